//! What becomes of the thread pool's cost as there are more tasks, more workers and more submitting threads.
//!
//! ```text
//! cargo bench --package rivals --bench growth                   # ten minutes; tables, verdicts, and JSON
//! cargo bench --package rivals --bench growth -- --quick        # seconds, and smaller
//! cargo bench --package rivals --bench growth -- --picture docs/growth-threads.svg
//! cargo test --package rivals --bench growth                    # seconds; only whether all results are right
//! ```
//!
//! It fails when a curve bends: when the largest size is more than twice as bad as the one that it is compared with, and the best
//! rival is clearly better there.

#[expect(dead_code, reason = "only the table counts instructions")]
mod alone;
mod closures;
mod contestants;
mod floor;
mod fork_join;
mod java;
#[expect(dead_code, reason = "only the table has maps of long calls")]
mod job;
mod on_rayon;
mod on_tokio;
mod ours;
mod pool;
mod workers;

use rivals::{
    contest::Pools,
    curves::{self, Curve, Growth, Measured},
    options::{self, Options},
    picture::panels,
};
use serde_json::json;
use std::{error::Error, path::Path};

use crate::{contestants::contestants, job::Job, workers::workers};

const OWN_USAGE: &str = "\
options of this benchmark, which has 3 rounds unless told otherwise:
  --workers N      how many workers each pool has, where their number does not grow [default: 2]
  --picture FILE   draws the curves, as SVG
  --from JSON      measures nothing; what an earlier run has left is printed, judged and drawn";

/// More would not fit: a hundred million would take 23 GB.
const OUTSTANDING: usize = 1_000_000;

fn curves(options: &Options) -> Vec<Curve<Job>> {
    const SOME: &[&str] = &["ours", "rayon", "tokio", "crossbeam-channel"];
    let by_tens = |from: u32, to: u32| (from..=to).map(|power| 10_u64.pow(power)).collect::<Vec<_>>();
    let (tasks, queued, threads, calls) = match options {
        Options { test: true, .. } => (by_tens(2, 3), by_tens(3, 3), vec![2, 4], 400),
        Options { quick: true, .. } => (by_tens(2, 6), by_tens(5, 6), vec![1, 2, 8, 64], 64_000),
        _ => (by_tens(2, 8), by_tens(4, 7), vec![1, 2, 4, 8, 16, 32, 64], 640_000),
    };
    let curve = |name, title, contestants, job: Box<dyn Fn(u64) -> Job>| Curve {
        name,
        title,
        along: "tasks",
        unit: "ns each",
        figure: |figures| figures.get("ns").copied(),
        more_is_better: false,
        contestants,
        pools: Pools::Kept,
        at: tasks.clone(),
        from: if options.test { tasks[0] } else { 10_000 },
        job,
    };
    let throughput = |name, title, along, job: Box<dyn Fn(u64) -> Job>| Curve {
        along,
        unit: "millions a second",
        figure: |figures| Some(1e3 / figures.get("ns")?),
        more_is_better: true,
        at: threads.clone(),
        from: 2,
        ..curve(name, title, SOME, job)
    };
    vec![
        curve(
            "submit",
            "submit, a million outstanding at most",
            &["ours", "rayon", "crossbeam-channel", "ForkJoinPool"],
            Box::new(|n| Job::Window { n, outstanding: OUTSTANDING }),
        ),
        curve("map", "map of an iterator, in order", &["ours", "rayon"], Box::new(|n| Job::LazySquares { n })),
        curve(
            "map_slice",
            "map of a slice into a vector",
            &["ours", "rayon", "chili", "loop"],
            Box::new(|n| Job::Squares { n }),
        ),
        Curve {
            unit: "bytes each",
            along: "queued calls",
            figure: |figures| figures.get("bytes").copied(),
            pools: Pools::None,
            from: queued[0].max(if options.test { 0 } else { 100_000 }),
            at: queued,
            ..curve(
                "memory",
                "memory of a queued call",
                &["ours", "rayon", "tokio", "threadpool", "executors", "crossbeam-channel"],
                Box::new(|n| Job::Alone(Box::new(Job::Queued { n }))),
            )
        },
        Curve {
            pools: Pools::None,
            ..throughput(
                "workers",
                "calls submitted by one thread",
                "workers",
                Box::new(move |workers| Job::Workers { n: calls, workers: workers as usize }),
            )
        },
        throughput(
            "submitters",
            "calls submitted by several threads",
            "submitting threads",
            Box::new(move |submitters| Job::Contended { n: calls, submitters }),
        ),
    ]
}

/// Whether the judge is right on what was made up, since nothing is judged in the short lane: it is too short.
fn try_the_judge() -> Result<(), Box<dyn Error>> {
    let table = [
        // Whether more is better; ours at the small size and at the large one; a rival's; whether it is to hold.
        (false, [10.0, 20.0], [10.0, 10.0], true),
        (false, [10.0, 21.0], [10.0, 10.0], false),
        (false, [10.0, 29.0], [1.0, 20.0], true),
        (false, [10.0, 31.0], [1.0, 20.0], false),
        (true, [10.0, 5.0], [10.0, 10.0], true),
        (true, [10.0, 4.9], [10.0, 10.0], false),
        (true, [10.0, 2.1], [10.0, 3.0], true),
        (true, [10.0, 1.9], [10.0, 3.0], false),
    ];
    for (more_is_better, ours, theirs, holds) in table {
        let point = |at: u64, best: f64| json!({ "at": at, "median": best, "best": best, "samples": [best] });
        let line = |who: &str, [small, large]: [f64; 2]| json!({ "contestant": who, "points": [point(100, small), point(1_000, large)] });
        let curve: Measured = serde_json::from_value(json!({
            "name": "made up", "title": "made up", "along": "tasks", "unit": "each", "more_is_better": more_is_better,
            "judged": "ours", "from": 100, "others": [0.0], "failed": {},
            "lines": [line("ours", ours), line("rival", theirs)],
        }))?;
        let verdict = curve.judge();
        if verdict.holds != holds {
            return Err(format!("{ours:?} beside {theirs:?} is judged wrongly: {}", verdict.words).into());
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(done) = alone::run(contestants) {
        return Ok(done?);
    }
    let options = Options::parse(&["workers", "picture", "from"])?;
    if options.help {
        println!("usage: cargo bench --package rivals --bench growth [-- OPTIONS]\n{}\n{OWN_USAGE}", options::USAGE);
        return Ok(());
    }
    if let Some(count) = options.workers()? {
        workers::choose(count);
    }
    let curves = curves(&options);
    if options.list {
        curves.iter().for_each(|curve| println!("{:<12} {}", curve.name, curve.contestants.join(", ")));
        return Ok(());
    }
    let growth = if let Some(json) = options.file("from") {
        Growth::read(&json)?
    } else {
        let growth = Growth::new(curves::run(&curves, &mut contestants(), &options)?, workers(), &options);
        if options.test {
            try_the_judge()?;
            eprintln!("growth: all contestants agree; `cargo bench --package rivals --bench growth` measures them");
            return Ok(());
        }
        let path = options.json.clone();
        let path = path.unwrap_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("growth.json"));
        growth.save(&path)?;
        println!("{} has all of it.", path.display());
        growth
    };
    let holds = growth.print();
    if let Some(picture) = options.file("picture") {
        panels::draw(&growth, &picture)?;
        println!("{} has the picture.", picture.display());
    }
    if holds { Ok(()) } else { Err("a curve bends".into()) }
}
