//! How calls are stopped: before they begin, while they run, and all at once.
//!
//! `cargo run --example cancel`

use concurrent_futures::{
    Cancelled, Executor, Future, ProcessPoolExecutor, Shutdown, ThreadPoolExecutor, current_task,
};
use std::{thread::sleep, time::Duration};

/// Looks now and then whether it is to stop.
fn patient(steps: u32) -> Result<u32, Cancelled> {
    for _ in 0..steps {
        current_task().check_cancelled()?;
        sleep(Duration::from_millis(1));
    }
    Ok(steps)
}

fn stubborn(seconds: u64) {
    sleep(Duration::from_secs(seconds));
}

fn has_begun<R>(future: &Future<R>) {
    while !future.running() {
        sleep(Duration::from_millis(1));
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // One worker, so what comes second waits.
    let threads = ThreadPoolExecutor::new(1)?;
    let [running, waiting] = [60_000, 60_000].map(|steps| threads.submit(patient, steps));
    has_begun(&running);
    println!("waiting, cancelled: {}", waiting.cancel());
    println!("running, cancelled: {}", running.cancel()); // no, but it is asked to stop
    println!("it stopped: {:?}", running.result()?);

    // A process can be stopped whatever it does.
    let processes = ProcessPoolExecutor::new(1)?;
    let running = processes.submit(stubborn, 600);
    has_begun(&running);
    println!("killed: {}", running.kill());
    println!("it says so: {}", running.result().is_err_and(|error| error.is_killed()));

    // All at once: what waits is cancelled, what runs is stopped.
    let calls = [600, 600, 600].map(|seconds| processes.submit(stubborn, seconds));
    has_begun(&calls[0]);
    let report = processes.shutdown(Shutdown::now());
    println!("shut down: {} cancelled, {} left", report.cancelled, report.unfinished);
    println!("all have an outcome: {}", calls.iter().all(Future::done));
    Ok(())
}
