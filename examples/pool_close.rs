//! How a pool ends: closed and joined, by a scope, terminated, or merely dropped, which terminates it, too.
//!
//! `cargo run --example pool_close`

use concurrent_futures::Pool;
use std::{thread::sleep, time::Duration};

fn nap(tenths: u32) -> u32 {
    sleep(Duration::from_millis(100) * tenths);
    tenths
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Nothing more is taken, and what was submitted is done.
    let pool = Pool::new(2)?;
    let results: Vec<_> = (0..4).map(|_| pool.apply_async(nap, 1)).collect();
    pool.close();
    println!("closed: {}", pool.apply(nap, 1).unwrap_err());
    pool.join();
    println!("joined: {} of 4 are ready", results.iter().filter(|result| result.ready()).count());

    // The same, at the end of a scope.
    let results = Pool::new(2)?.scope(|pool| [1, 1].map(|tenths| pool.apply_async(nap, tenths)));
    println!("after the scope: {} of 2 are ready", results.iter().filter(|result| result.ready()).count());

    // At once: what runs is stopped with its process, and what waits is cancelled.
    let pool = Pool::new(1)?;
    let [running, waiting] = [600, 600].map(|tenths| pool.apply_async(nap, tenths));
    while !running.running() {
        sleep(Duration::from_millis(1));
    }
    pool.terminate();
    println!("running: {}", running.get().unwrap_err());
    println!("waiting: {}", waiting.get().unwrap_err());

    // As at the end of Python's `with Pool() as pool:`, dropping it terminates it.
    let dropped = Pool::new(1)?.apply_async(nap, 600);
    println!("dropped: {}", dropped.get().unwrap_err());
    Ok(())
}
