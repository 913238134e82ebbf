//! What a worker process prints appears where this program's own output does.

use concurrent_futures::{Executor, ProcessPoolExecutor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = ProcessPoolExecutor::new(1)?;
    let speak = |()| {
        println!("printed by the worker");
        eprintln!("told by the worker");
    };
    pool.submit(speak, ()).result()?;
    println!("printed by the parent");
    Ok(())
}
