//! For tiny tasks a process pool is slower than the loop, since each has to be sent, and its result to come back. Where it begins to pay is
//! measured here and now: with `submit`, call by call, and with `map`, which sends many at a time.
//!
//! `cargo run --release --example tiny_tasks`

use concurrent_futures::{Executor, ProcessPoolExecutor};
use std::{hint::black_box, time::Instant};

fn work(rounds: u64) -> u64 {
    let mut value = 1;
    for round in 0..rounds {
        value = black_box(value ^ round);
    }
    value
}

/// Seconds, the best of three.
fn time(mut run: impl FnMut() -> u64) -> f64 {
    let once = |_| {
        let began = Instant::now();
        black_box(run());
        began.elapsed().as_secs_f64()
    };
    (0..3).map(once).fold(f64::INFINITY, f64::min)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = ProcessPoolExecutor::new(2)?;
    pool.map(work, [1, 1]).chunk_size(1).for_each(drop); // the workers are there

    let mut borders = [f64::NAN; 2];
    for rounds in [10, 100, 1_000, 10_000, 100_000, 1_000_000] {
        let calls = (1_000_000 / rounds).clamp(4, 1_000) as usize;
        let all = || std::iter::repeat_n(rounds, calls);
        let serial = time(|| all().map(work).sum());
        let submitted = time(|| {
            let futures: Vec<_> = all().map(|rounds| pool.submit(work, rounds)).collect();
            futures.into_iter().map(|future| future.result().expect("it cannot fail")).sum()
        });
        let mapped = time(|| pool.map(work, all()).sum::<Result<u64, _>>().expect("it cannot fail"));
        let cost = serial / calls as f64 * 1e6;
        let gains = [submitted, mapped].map(|parallel| serial / parallel);
        println!(
            "calls of {cost:.2} µs: submit is {:.2} times as fast as the loop, map {:.2} times",
            gains[0], gains[1]
        );
        for (border, gain) in borders.iter_mut().zip(gains) {
            *border = if gain <= 1.0 { f64::NAN } else { border.min(cost) };
        }
    }
    for (name, border) in ["submit", "map"].into_iter().zip(borders) {
        let border =
            if border.is_nan() { "at no cost, here and now".into() } else { format!("from {border:.2} µs a call") };
        println!("{name} pays: {border}");
    }
    Ok(())
}
