#![no_main]

use executor_process::fuzzing;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzzing::run("rings", bytes));
