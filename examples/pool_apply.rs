//! The tutorials' `apply` and `apply_async`: a call that is waited for, and results that are asked for later.
//!
//! `cargo run --example pool_apply`

use concurrent_futures::Pool;
use std::{thread::sleep, time::Duration};

fn cube(x: u64) -> u64 {
    x.pow(3)
}

fn nap(tenths: u32) -> u32 {
    sleep(Duration::from_millis(100) * tenths);
    tenths
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = Pool::new(4)?; // or ThreadPool::new(4)?
    println!("apply: {}", pool.apply(cube, 3)?);

    let results: Vec<_> = (1..7).map(|x| pool.apply_async(cube, x)).collect();
    for result in results {
        println!("apply_async: {}", result.get()?);
    }

    let result = pool.apply_async(nap, 3);
    println!("ready: {}, successful: {:?}", result.ready(), result.successful());
    result.wait();
    println!("ready: {}, successful: {:?}", result.ready(), result.successful());
    println!("get: {}", result.get()?);

    let failed = pool
        .apply_async(|x: u32| 1 / x, 0)
        .callback(|value| println!("callback: {value}"))
        .error_callback(|error| println!("error_callback: {}", error.panic_message().unwrap_or("no panic")));
    failed.wait();
    println!("ready: {}, successful: {:?}", failed.ready(), failed.successful());
    Ok(())
}
