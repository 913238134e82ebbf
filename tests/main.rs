//! One test program, which is linked once. Each module says at its top what it shows.

mod before_main;
mod chaos;
mod compile_fail;
mod conformance;
mod cpu;
mod deadlocks;
mod descriptors;
mod driving;
mod examples;
mod fault_matrix;
mod faults;
mod fuzz_corpus;
mod limits;
mod ordering;
mod output;
mod pools;
mod processes;
mod queues;
mod reusable;
mod start_methods;
mod suite;
mod support;
mod threads;
mod threads_under_pressure;
mod tidy;
mod workers;
