//! Results as soon as they are there, whatever the order of the calls, and what each of them was for.
//!
//! `cargo run --example as_completed`

use concurrent_futures::{Executor, FIRST_COMPLETED, ThreadPoolExecutor, as_completed, wait};
use std::{collections::HashMap, thread::sleep, time::Duration};

fn load((page, tenths): (String, u32)) -> String {
    sleep(Duration::from_millis(100) * tenths);
    if page == "lost" {
        panic!("there is no such page");
    }
    page.to_uppercase()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = ThreadPoolExecutor::new(4)?; // or ProcessPoolExecutor::new(4)?
    let pages = [("home", 3), ("news", 1), ("lost", 2), ("about", 4)];

    // Python's `future_to_url`: a future is a key.
    let pages: HashMap<_, _> = pages.map(|(page, tenths)| (pool.submit(load, (page.into(), tenths)), page)).into();
    for future in as_completed(pages.keys()) {
        match future.exception() {
            None => println!("{}: {:?}", pages[future], future.peek()),
            Some(error) => println!("{}: {}", pages[future], error.panic_message().unwrap_or_default()),
        }
    }

    // Or only the first one.
    let race = [1, 5].map(|tenths| pool.submit(load, (format!("after {tenths}"), tenths)));
    let waited = wait(&race, FIRST_COMPLETED);
    println!("at least one of {} is done: {}", race.len(), !waited.done.is_empty());
    Ok(())
}
