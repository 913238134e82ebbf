//! `submit` gives a future at once: what will become of the call. The same on threads and on processes.
//!
//! `cargo run --example submit`

use concurrent_futures::{Executor, ThreadPoolExecutor};
use std::{thread::sleep, time::Duration};

fn cube(x: u64) -> u64 {
    x.pow(3)
}

fn nap(tenths: u32) -> String {
    sleep(Duration::from_millis(100) * tenths);
    format!("slept {tenths} tenths")
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = ThreadPoolExecutor::new(2)?; // or ProcessPoolExecutor::new(2)?
    println!("{}", pool.submit(cube, 3).result()?);

    // Several arguments are one tuple.
    let power = pool.submit(|(base, exponent): (u64, u32)| base.pow(exponent), (2, 10));
    power.add_done_callback(|power| println!("called back with {:?}", power.peek()));
    println!("{}", power.result()?);

    // All are submitted first, then the results are taken. Asked for one by one, they would run one by one.
    let futures: Vec<_> = (1..=4).map(|x| pool.submit(cube, x)).collect();
    for future in futures {
        println!("{}", future.result()?);
    }

    let future = pool.submit(nap, 2);
    while !future.done() {
        sleep(Duration::from_millis(10)); // there may be something better to do
    }
    println!("{:?}", future.peek()); // looks; `result` takes
    println!("running: {}, cancelled: {}", future.running(), future.cancelled());
    Ok(())
} // here the pool waits for what was submitted, as Python's does at the end of `with`
