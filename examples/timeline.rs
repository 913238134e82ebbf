//! A picture of a run: on threads and on processes, with calls that fail and a worker that dies. For a program of one's own, it
//! takes the feature `timeline`.
//!
//! ```text
//! cargo run --example timeline -- run.html          # open it in a browser
//! cargo run --example timeline -- run.json          # for https://ui.perfetto.dev
//! cargo run --example timeline -- run.html 100000   # so many short calls more
//! ```

use concurrent_futures::{Executor, ProcessPoolExecutor, ThreadPoolExecutor, timeline::Timeline};
use std::{
    error::Error,
    path::Path,
    time::{Duration, Instant},
};

/// Keeps a processor busy for so many microseconds.
fn work(micros: u64) -> u64 {
    let began = Instant::now();
    while began.elapsed() < Duration::from_micros(micros) {}
    micros
}

fn divide((a, b): (u64, u64)) -> u64 {
    work(500);
    a / b
}

fn exit(code: i32) {
    work(1000);
    std::process::exit(code)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().unwrap_or_else(|| "run.html".into());
    let short: u64 = args.next().map_or(Ok(0), |number| number.parse())?;

    let timeline = Timeline::new();
    {
        let threads = ThreadPoolExecutor::builder()
            .max_workers(4)
            .thread_name_prefix("threads")
            .observer(timeline.clone())
            .build()?;
        let processes = ProcessPoolExecutor::builder()
            .max_workers(2)
            .process_name_prefix("processes")
            .observer(timeline.clone())
            .build()?;
        let long: Vec<_> = (0..40).map(|n| processes.submit(work, 300 + 100 * (n % 7))).collect();
        let failing: Vec<_> = (0..20).map(|n| threads.submit(divide, (n, n % 5))).collect();
        let lost = processes.submit(exit, 3);
        let more: Vec<_> = (0..short).map(|n| threads.submit(work, n % 10)).collect();
        let sum = timeline.span("sum up", || long.into_iter().filter_map(|future| future.result().ok()).sum::<u64>());
        println!(
            "{sum} µs of work; {} of 20 calls failed; {}",
            failing.iter().filter(|f| f.exception().is_some()).count(),
            lost.result().unwrap_err()
        );
        more.into_iter().for_each(|future| _ = future.result());
    } // the pools wait, and all is told

    match Path::new(&path).extension() {
        Some(extension) if extension == "json" => timeline.write_json(&path)?,
        _ => timeline.write_html(&path)?,
    }
    println!("{path} is written");
    Ok(())
}
