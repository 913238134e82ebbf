//! How long a worker takes to come, spawned and forked: `cargo bench --bench start_methods`.

use concurrent_futures::{Executor, ProcessPoolExecutor, StartMethod};
use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

const ROUNDS: usize = 100;

fn pool(method: StartMethod) -> ProcessPoolExecutor {
    ProcessPoolExecutor::builder().max_workers(1).start_method(method).build().expect("this system has processes")
}

fn answer(pool: &ProcessPoolExecutor) {
    assert_eq!(pool.submit(|x: u64| x + 1, 41).result().expect("an answer"), 42);
}

/// From the constructor to the first result.
fn first_result(method: StartMethod) -> Duration {
    let began = Instant::now();
    let pool = pool(method);
    answer(&pool);
    began.elapsed()
}

/// From a call that finds no worker to its result.
fn fresh_worker(pool: &ProcessPoolExecutor) -> Duration {
    let pid = pool.worker_pids()[0].to_string();
    assert!(Command::new("kill").args(["-KILL", &pid]).status().expect("kill").success());
    while !pool.worker_pids().is_empty() {
        thread::sleep(Duration::from_micros(100));
    }
    let began = Instant::now();
    answer(pool);
    began.elapsed()
}

/// From the end of a worker in its call to the result of the next call.
fn replacement(pool: &ProcessPoolExecutor) -> Duration {
    let doomed = pool.submit(|()| thread::sleep(Duration::from_secs(60)), ());
    while !doomed.running() {
        thread::sleep(Duration::from_micros(100));
    }
    let next = pool.submit(|x: u64| x + 1, 41);
    let pid = pool.worker_pids()[0].to_string();
    assert!(Command::new("kill").args(["-KILL", &pid]).status().expect("kill").success());
    let began = Instant::now();
    assert_eq!(next.result().expect("an answer"), 42);
    began.elapsed()
}

fn median(mut measured: Vec<Duration>) -> (Duration, Duration) {
    measured.sort();
    (measured[measured.len() / 2], measured[0])
}

fn main() {
    println!("median (least) of {ROUNDS}, in microseconds");
    for method in [StartMethod::Spawn, StartMethod::ForkServer] {
        let first = (0..ROUNDS).map(|_| first_result(method)).collect();
        let pool = pool(method);
        answer(&pool);
        let fresh = (0..ROUNDS).map(|_| fresh_worker(&pool)).collect();
        let replaced = (0..ROUNDS).map(|_| replacement(&pool)).collect();
        for (what, measured) in [
            ("constructor to first result", first),
            ("a worker for a call", fresh),
            ("another after a death", replaced),
        ] {
            let (median, least) = median(measured);
            let method = format!("{method:?}");
            println!("{method:12} {what:28} {:6} ({})", median.as_micros(), least.as_micros());
        }
    }
}
