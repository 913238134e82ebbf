//! What holds for every backend (`conformance`), what ordering means (`ordering`), what a dying process may cost
//! (`faults`), what only threads can do (`threads`, `threads_under_pressure`), what the processors are (`cpu`), what travels
//! beside bytes (`descriptors`), what is told of calls (`output`), what the examples print (`examples`), and the rules of the house (`tidy`).

mod compile_fail;
mod conformance;
mod cpu;
mod descriptors;
mod examples;
mod faults;
mod ordering;
mod output;
mod suite;
mod support;
mod threads;
mod threads_under_pressure;
mod tidy;
mod workers;
