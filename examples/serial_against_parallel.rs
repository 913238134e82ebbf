//! The tutorials' first loop: tasks that sleep, one after the other, and then all at once. The loop takes the sum of their times, the
//! pool the longest one.
//!
//! `cargo run --example serial_against_parallel`, or with `-- --seconds`, as in the tutorials

use concurrent_futures::{Executor, ProcessPoolExecutor};
use std::{
    env,
    thread::sleep,
    time::{Duration, Instant},
};

fn nap(length: Duration) -> Duration {
    sleep(length);
    length
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seconds = env::args().any(|argument| argument == "--seconds");
    let (unit, name) =
        if seconds { (Duration::from_secs(1), "seconds") } else { (Duration::from_millis(100), "tenths") };
    let naps = [1, 2, 3, 4].map(|length| unit * length);

    let began = Instant::now();
    let serial: Vec<Duration> = naps.into_iter().map(nap).collect();
    println!("serial: {:.1} {name}", began.elapsed().div_duration_f64(unit));

    let pool = ProcessPoolExecutor::new(4)?;
    let began = Instant::now();
    let parallel: Vec<Duration> = pool.map(nap, naps).collect::<Result<_, _>>()?;
    println!("parallel: {:.1} {name}", began.elapsed().div_duration_f64(unit));

    println!("the results are the same, in the same order: {}", serial == parallel);
    Ok(())
}
