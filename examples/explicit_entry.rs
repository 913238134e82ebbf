//! Without the feature `constructor`, a program says itself where workers begin. With it, this changes nothing.

use concurrent_futures::{Executor, ProcessPoolExecutor, worker};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    worker::run_if_worker(); // first, before anything that a worker should not do again
    let pool = ProcessPoolExecutor::new(2)?;
    let sum: u64 = pool.map(|x: u64| x * x, 0..10).sum::<Result<_, _>>()?;
    println!("{sum}");
    Ok(())
}
