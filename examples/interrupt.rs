//! Ctrl-C in the middle of a map ends the calls, the workers and the program, at once and in order: every future has its
//! outcome, and `main` returns.
//!
//! `cargo run --example interrupt`, or with `-- --threads`; then press Ctrl-C. With `-- --unhandled` the program does nothing
//! about it: then the signal ends it, and its workers with it.

use concurrent_futures::{Cancelled, Executor, ProcessPoolExecutor, Shutdown, ThreadPoolExecutor, current_task};
use std::{env, sync::Arc, thread::sleep, time::Duration};

/// On a thread a call has to look whether it is to stop. A process is ended, whatever it does.
fn work(milliseconds: u32) -> Result<u32, Cancelled> {
    for _ in 0..milliseconds {
        current_task().check_cancelled()?;
        sleep(Duration::from_millis(1));
    }
    Ok(milliseconds)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool: Arc<dyn Executor> = match env::args().nth(1).as_deref() {
        Some("--threads") => Arc::new(ThreadPoolExecutor::new(4)?),
        _ => Arc::new(ProcessPoolExecutor::new(4)?),
    };
    if env::args().nth(1).as_deref() != Some("--unhandled") {
        let stopped = Arc::clone(&pool);
        ctrlc::set_handler(move || {
            stopped.shutdown(Shutdown::now());
        })?;
    }

    let calls: Vec<_> = (0..2).map(|_| pool.submit(work, 600_000)).collect();
    println!("working in process {}; press Ctrl-C", std::process::id());
    let mut results = pool.map(work, (0..).map(|_| 5));
    let mapped = results.by_ref().map_while(|result| result.ok()?.ok()).count();
    pool.shutdown(Shutdown::wait()); // the one above may still be at it
    let unfinished = calls.iter().filter(|call| !call.done()).count();
    println!("interrupted after {mapped} items; {unfinished} of {} calls have no outcome", calls.len());
    Ok(())
}
