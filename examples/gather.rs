//! The tutorials' `asyncio.gather`: several fetches are awaited together. Their results come in the order of the calls, after
//! the time of the longest.
//!
//! `cargo run --example gather`, or with `-- --processes`

use concurrent_futures::{Executor, ProcessPoolExecutor, ThreadPoolExecutor};
use futures::future::try_join_all;
use std::{
    env,
    thread::sleep,
    time::{Duration, Instant},
};

fn fetch((page, tenths): (String, u32)) -> String {
    sleep(Duration::from_millis(100) * tenths); // a blocking call, like any that has no async form
    format!("{page} took {tenths} tenths of a second")
}

#[tokio::main(flavor = "current_thread")] // or `smol::block_on`, or `futures::executor::block_on`
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool: Box<dyn Executor> = match env::args().nth(1).as_deref() {
        Some("--processes") => Box::new(ProcessPoolExecutor::new(3)?),
        _ => Box::new(ThreadPoolExecutor::new(3)?),
    };
    let pages = [("home", 2), ("news", 5), ("about", 1)];
    let began = Instant::now();
    let fetched = try_join_all(pages.map(|(page, tenths)| pool.submit(fetch, (page.into(), tenths)))).await?;
    let took = began.elapsed();
    for line in fetched {
        println!("{line}");
    }
    println!("together {:.1} tenths", took.as_secs_f64() * 10.0);
    Ok(())
}
