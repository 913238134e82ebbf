//! What a worker process prints appears where this program's own output does; with `--prefixed`, each line with whose it is.

use concurrent_futures::{Executor, Output, ProcessPoolExecutor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let prefixed = std::env::args().any(|argument| argument == "--prefixed");
    let output = if prefixed { Output::Prefixed } else { Output::Inherit };
    let pool = ProcessPoolExecutor::builder().max_workers(1).output(output).build()?;
    let speak = |()| {
        println!("printed by the worker");
        eprintln!("told by the worker");
    };
    pool.submit(speak, ()).result()?;
    println!("printed by the parent");
    Ok(())
}
