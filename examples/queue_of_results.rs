//! Results of processes, with the rank of each, through a queue. They come in any order, and are sorted by rank. The processes are
//! joined first: a queue holds what was put into it, however much that is.
//!
//! `cargo run --release --example queue_of_results`

use concurrent_futures::{Process, Queue};

const NUMBERS: u64 = 1 << 18;

type Results = Queue<(u64, Vec<u64>)>;

fn square((rank, results): (u64, Results)) -> Result<(), String> {
    let squares = (0..NUMBERS).map(|number| (number + rank).pow(2)).collect();
    results.put((rank, squares)).map_err(|error| error.to_string())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let results = Results::new();
    let mut workers = Vec::new();
    for rank in 0..4 {
        workers.push(Process::new(square, (rank, results.clone())).start()?);
    }
    for worker in workers {
        worker.join()?;
    }
    let mut found = Vec::new();
    while let Ok(result) = results.try_get() {
        found.push(result);
    }
    found.sort();
    for (rank, squares) in found {
        println!("rank {rank}: {} squares, the last one {}", squares.len(), squares[squares.len() - 1]);
    }
    Ok(())
}
