//! The tutorials' first threads: given a name, started, joined. And their classic mistake: joined in the loop that starts them, they
//! run one after the other. `processes_by_hand` is the same with processes.
//!
//! `cargo run --example threads_by_hand`

use concurrent_futures::{
    Thread,
    threading::{current_thread, main_thread},
};
use std::{
    thread::sleep,
    time::{Duration, Instant},
};

fn work(tenths: u32) -> u32 {
    sleep(Duration::from_millis(100) * tenths);
    println!("{} has worked", current_thread().name());
    tenths * tenths
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let began = Instant::now();
    let mut workers = Vec::new();
    for rank in 1..=3 {
        workers.push(Thread::new(work, rank).name(format!("worker-{rank}")).start()?);
    }
    println!("{} has started {}", main_thread().name(), workers.len());
    for worker in &workers {
        let result = worker.join()?; // Python's gives nothing back
        println!("{} gave {result}", worker.name());
    }
    println!("together: {:.1} tenths", began.elapsed().as_secs_f64() * 10.0);

    let began = Instant::now();
    for rank in 1..=3 {
        Thread::new(work, rank).name(format!("late-{rank}")).start()?.join()?; // waits before it starts the next
    }
    println!("one after the other: {:.1} tenths", began.elapsed().as_secs_f64() * 10.0);
    Ok(())
}
