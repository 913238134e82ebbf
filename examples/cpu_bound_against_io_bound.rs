//! Threads, for work that waits and for work that computes. Python's gain from the first only, since one thread at a time may
//! compute. Here they gain from both, as far as there are processors.
//!
//! `cargo run --release --example cpu_bound_against_io_bound`

use concurrent_futures::{Executor, ThreadPoolExecutor, cpu_count};
use std::{
    thread::sleep,
    time::{Duration, Instant},
};

/// Waits, as for a disk or a network.
fn io_bound(_: u32) -> usize {
    sleep(Duration::from_millis(100));
    1
}

/// Computes: how many primes there are in some thousands of numbers.
fn cpu_bound(thousands: u32) -> usize {
    let is_prime = |number: &u32| {
        let mut factors = (2..).take_while(|factor| factor * factor <= *number);
        factors.all(|factor| !number.is_multiple_of(factor))
    };
    (2..thousands * 1000).filter(is_prime).count()
}

fn compare(kind: &str, work: fn(u32) -> usize) -> Result<(), Box<dyn std::error::Error>> {
    let began = Instant::now();
    let serial: usize = [60; 4].into_iter().map(work).sum();
    println!("{kind}, in a loop: {:.1} tenths", began.elapsed().as_secs_f64() * 10.0);

    let pool = ThreadPoolExecutor::new(4)?;
    let began = Instant::now();
    let parallel = pool.map(work, [60; 4]).sum::<Result<usize, _>>()?;
    println!("{kind}, on 4 threads: {:.1} tenths", began.elapsed().as_secs_f64() * 10.0);
    assert_eq!(serial, parallel);
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("processors to use: {}", cpu_count());
    compare("I/O-bound", io_bound)?;
    compare("CPU-bound", cpu_bound)
}
