//! The same program on threads and on processes: the type after `let pool` is all that changes.

use concurrent_futures::{Executor, ProcessPoolExecutor, as_completed};
use std::{thread::sleep, time::Duration};

fn cube(x: u64) -> u64 {
    x.pow(3)
}

fn slow(seconds: u64) -> String {
    sleep(Duration::from_secs(seconds) / 10);
    format!("slept {seconds} tenths in {}", std::process::id())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = ProcessPoolExecutor::new(4)?; // or ThreadPoolExecutor::new(4)?
    println!("{}", pool.submit(cube, 3).result()?);
    let squares: Vec<u64> = pool.map(|x| x * x, 0..20).collect::<Result<_, _>>()?;
    println!("{squares:?}");
    for future in as_completed((1..=4).map(|s| pool.submit(slow, s))) {
        println!("{}", future.result()?);
    }
    Ok(())
}
