//! Two loops that cannot be parallel as they are, and what to do instead: a running sum, of which each step needs the one before, and
//! a counter that all steps share.
//!
//! `cargo run --example loops_that_cannot_be_parallel`

use concurrent_futures::{Executor, ProcessPoolExecutor, ThreadPoolExecutor};
use std::sync::atomic::{AtomicU32, Ordering};

const NUMBERS: [u32; 8] = [3, 1, 4, 1, 5, 9, 2, 6];

fn running_sum(start: u32, numbers: &[u32]) -> Vec<u32> {
    let mut sum = start;
    let add = |number| {
        sum += number; // what the step before has left
        sum
    };
    numbers.iter().map(add).collect()
}

static COUNT: AtomicU32 = AtomicU32::new(0);

fn count(number: u32) -> u32 {
    // ORDERING: Relaxed; the results say that the calls are over.
    COUNT.fetch_add(1, Ordering::Relaxed);
    number % 2
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = ProcessPoolExecutor::new(2)?;
    println!("running sum: {:?}", running_sum(0, &NUMBERS));

    // In two steps it can be done: first the sum of each block, each by itself. Then, when it is known with what a block
    // begins, the running sum within each.
    let blocks: Vec<Vec<u32>> = NUMBERS.chunks(2).map(<[u32]>::to_vec).collect();
    let sums = pool.map(|block: Vec<u32>| block.iter().sum(), blocks.clone()).collect::<Result<Vec<u32>, _>>()?;
    let starts = [0].into_iter().chain(running_sum(0, &sums));
    let within = pool.map(|(start, block): (u32, Vec<u32>)| running_sum(start, &block), starts.zip(blocks));
    println!("in blocks:   {:?}", within.collect::<Result<Vec<_>, _>>()?.concat());

    // Each worker process has a counter of its own: what it counts is not seen here.
    let odd = pool.map(count, NUMBERS).sum::<Result<u32, _>>()?;
    println!("counted in processes: {}", COUNT.load(Ordering::Relaxed));
    // Threads share it. It must be an atomic or behind a lock: a plain variable is the compiler's error.
    ThreadPoolExecutor::new(2)?.map(count, NUMBERS).sum::<Result<u32, _>>()?;
    println!("counted by threads: {}", COUNT.load(Ordering::Relaxed));
    // What comes back as a result needs neither, and is right on every backend.
    println!("odd, as results say: {odd}");
    Ok(())
}
