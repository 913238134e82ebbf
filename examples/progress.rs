//! Progress bars: for a map, for futures as they are completed, for joblib's loop. Nothing is drawn where standard error is no
//! terminal: try it with `2> /dev/null` too.

use concurrent_futures::{
    Executor, ProcessPoolExecutor, as_completed,
    parallel::{Parallel, delayed},
    progress::WithProgress,
};
use indicatif::{ProgressBar, ProgressStyle};
use std::{panic, sync::Arc, thread::sleep, time::Duration};

fn work(x: u64) -> u64 {
    sleep(Duration::from_millis(x % 7));
    assert!(x % 25 != 24, "each 25th goes wrong");
    x * x
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Panics are counted, not printed, which would tear the bar apart.
    let quiet = |()| panic::set_hook(Box::new(|_| ()));
    let pool = Arc::new(ProcessPoolExecutor::builder().max_workers(4).initializer(quiet, ()).build()?);

    // Count, rate, time left, and how many have failed: however results come, in whatever chunks.
    let failed = pool.map(work, 0..200).unordered().progress().filter(Result::is_err).count();
    println!("map: {failed} of 200 failed");

    let futures = (0..100).map(|x| pool.submit(work, x));
    let done = as_completed(futures).progress().filter(|future| future.exception().is_none()).count();
    println!("as_completed: {done} of 100 succeeded");

    let outcomes =
        Parallel::new().backend(Arc::clone(&pool)).progress().outcomes((0..100).map(|x| delayed(work)(x)))?;
    println!("Parallel: {} of 100 failed", outcomes.iter().filter(|outcome| outcome.is_err()).count());

    // A bar of one's own, and a loop that is left early: the bar stays where it was.
    let bar = ProgressBar::no_length().with_style(ProgressStyle::with_template("{bar:40} {pos} of {len} {msg}")?);
    let first = pool.map(work, 0..1000).progress_with(bar).find_map(Result::err);
    println!("the first to fail was {}", if first.is_some() { "seen" } else { "missed" });
    Ok(())
}
