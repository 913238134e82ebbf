//! What holds for every backend (`conformance`), what ordering means (`ordering`), what a dying process may cost
//! (`faults`), what only threads can do (`threads`), what the processors are (`cpu`), and the rules of the house
//! (`tidy`).

mod compile_fail;
mod conformance;
mod cpu;
mod faults;
mod ordering;
mod suite;
mod support;
mod threads;
mod tidy;
