//! joblib's tutorial, step by step: `Parallel` and `delayed`, with their options.

use concurrent_futures::{
    Shared,
    parallel::{Parallel, Prefer, delayed, parallel_config},
};
use std::{
    thread::sleep,
    time::{Duration, Instant},
};

fn root((x, n): (f64, u32)) -> f64 {
    x.powf(1.0 / f64::from(n))
}

fn slow(x: u64) -> u64 {
    sleep(Duration::from_millis(50));
    x * x
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The loop, and the same in worker processes: the results are those of the loop, in its order.
    let serial: Vec<f64> = (0..5).map(|x| root((f64::from(x * x), 2))).collect();
    let parallel = Parallel::new().n_jobs(2).run((0..5).map(|x| delayed(root)((f64::from(x * x), 2))))?;
    println!("roots: {parallel:?}, as the loop has them: {}", serial == parallel);

    // What waits is as well off on threads. `n_jobs(-1)` would be one for each processor.
    let threads = Parallel::new().n_jobs(8).prefer(Prefer::Threads);
    let began = Instant::now();
    let squares = threads.run((0..8).map(|x| delayed(slow)(x)))?;
    println!("slept 8 times on threads: {squares:?}");
    eprintln!("it took {:?} instead of 400 ms", began.elapsed());

    // Results one by one, as they are wanted; as they come, with `generator_unordered`.
    let results = Parallel::new().n_jobs(2).generator((1..).map(|x| delayed(slow)(x)))?;
    let first: Vec<u64> = results.take(3).collect::<Result<_, _>>()?;
    println!("the first three of an endless loop: {first:?}");

    // Lines of progress; on standard output from 50 on.
    Parallel::new().n_jobs(2).verbose(50).run((0..4).map(|x| delayed(slow)(x)))?;

    // How far ahead the input is taken, how many calls go to a worker together, how long each may take.
    let careful = Parallel::new().n_jobs(2).pre_dispatch("3*n_jobs").batch_size(1).task_timeout(Duration::from_secs(2));
    let naps = [0, 60, 0].map(|seconds| delayed(|seconds| sleep(Duration::from_secs(seconds)))(seconds));
    for (nap, outcome) in (1..).zip(careful.outcomes(naps)?) {
        println!("nap {nap}: {}", if outcome.is_ok() { "well slept" } else { "took too long, and was stopped" });
    }

    // Choices for whatever is called within.
    let lengths = parallel_config(Parallel::new().n_jobs(2).backend("threading"), || {
        let calls = ["a", "few", "words"].map(|word| delayed(|word: String| word.len())(word.into()));
        Parallel::new().run(calls)
    })?;
    println!("lengths: {lengths:?}");

    // A large array is mapped by the workers, not sent to them, when it is `Shared`.
    let data = Shared::new(vec![0.5_f64; 1_000_000])?;
    let halves = [data.slice(..500_000), data.slice(500_000..)];
    let sum = delayed(|half: Shared<[f64]>| half.iter().sum::<f64>());
    println!("sums of halves: {:?}", Parallel::new().n_jobs(2).run(halves.map(sum))?);

    // Calls that share this process's memory may borrow, and change what they borrow.
    let mut rows = [vec![3, 1, 2], vec![6, 5, 4]];
    Parallel::new().n_jobs(2).require_sharedmem().run(rows.iter_mut().map(|row| || row.sort()))?;
    println!("sorted in place: {rows:?}");
    Ok(())
}
