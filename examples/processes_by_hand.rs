//! The tutorials' first processes: given a name, started, joined. And their classic mistake: joined in the loop that starts
//! them, they run one after the other.
//!
//! `cargo run --example processes_by_hand`

use concurrent_futures::{Process, current_process, parent_process};
use std::{
    thread::sleep,
    time::{Duration, Instant},
};

fn work(tenths: u32) {
    sleep(Duration::from_millis(100) * tenths);
    println!(
        "{} has worked for {}",
        current_process().name(),
        parent_process().map_or("nobody", |parent| parent.name())
    );
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let began = Instant::now();
    let mut workers = Vec::new();
    for rank in 1..=3 {
        workers.push(Process::new(work, rank).name(format!("worker-{rank}")).start()?);
    }
    for worker in &workers {
        worker.join()?;
        println!("{} has ended with {:?}", worker.name(), worker.exit_code());
    }
    println!("together: {:.1} tenths", began.elapsed().as_secs_f64() * 10.0);

    let began = Instant::now();
    for rank in 1..=3 {
        Process::new(work, rank).name(format!("late-{rank}")).start()?.join()?; // waits before it starts the next
    }
    println!("one after the other: {:.1} tenths", began.elapsed().as_secs_f64() * 10.0);
    Ok(())
}
