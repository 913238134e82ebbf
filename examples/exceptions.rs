//! What a call can do wrong, and what its future says then: an error that it returns, a panic, its process's death, too long a time.
//! Other calls go on. (Panics also print their message where Python prints none: on standard error.)
//!
//! `cargo run --example exceptions`

use concurrent_futures::{Executor, ProcessPoolExecutor, TaskOptions, WaitError};
use std::{process::exit, thread::sleep, time::Duration};

fn divide((a, b): (u32, u32)) -> u32 {
    a / b
}

fn parse(text: String) -> Result<u32, String> {
    text.parse().map_err(|error| format!("{text:?}: {error}"))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = ProcessPoolExecutor::new(2)?; // or ThreadPoolExecutor::new(2)?, where nothing can be killed

    // An error that the function returns is a value: the outer `?` is for the call, the inner result is yours.
    println!("returned: {:?}", pool.submit(parse, "12".into()).result()?);
    println!("returned: {:?}", pool.submit(parse, "twelve".into()).result()?);

    // A panic is Python's exception.
    let error = pool.submit(divide, (1, 0)).result().unwrap_err();
    println!("panic: {}", error.panic_message().unwrap_or_default());
    println!("in full: {error}");

    // In a map it is the result of that item, and the others are there.
    let quotients: Vec<String> = pool
        .map(divide, (0..4).map(|b| (12, b)))
        .map(|result| match result {
            Ok(quotient) => quotient.to_string(),
            Err(_) => "failed".into(),
        })
        .collect();
    println!("map: {}", quotients.join(", "));

    // A process that ends in the middle of a call costs that call. The pool goes on.
    let error = pool.submit(|code| -> () { exit(code) }, 3).result().unwrap_err();
    println!("its worker: {}", error.worker_lost().map(|lost| lost.exit.to_string()).unwrap_or_default());
    println!("the next call: {}", pool.submit(divide, (12, 4)).result()?);

    // `result(timeout=)` is how long to wait. It gives the future back, and the call goes on.
    let nap = pool.submit(|seconds| sleep(Duration::from_secs(seconds)), 600);
    let Err(WaitError::Timeout(nap)) = nap.result_timeout(Duration::from_millis(100)) else { unreachable!() };
    println!("waited long enough; killed: {}", nap.kill());
    println!("killed: {}", nap.result().is_err_and(|error| error.is_killed()));

    // A time limit is how long the call may take. It is stopped then.
    let limited = pool.with(TaskOptions::new().time_limit(Duration::from_millis(100)));
    let nap = limited.submit(|seconds| sleep(Duration::from_secs(seconds)), 600);
    println!("timed out: {}", nap.result().is_err_and(|error| error.is_timed_out()));
    Ok(())
}
