//! The thread pool beside its rivals.
//!
//! ```text
//! cargo bench --package rivals --bench threads                  # some minutes; the table, and JSON
//! cargo bench --package rivals --bench threads -- --help        # choosing rows and contestants
//! cargo test --package rivals --bench threads                   # seconds; only whether all results are right
//! ```
//!
//! `README.md` says how it is measured.

mod alone;
mod closures;
mod contestants;
mod floor;
mod fork_join;
mod java;
mod job;
mod on_rayon;
mod on_tokio;
mod ours;
mod pool;
mod workers;

use rivals::{
    contest::{self, Count, FLOOR, Pools, Row},
    options::{self, Options},
    picture::bars,
    report::{Goal, Line},
};
use std::{
    error::Error,
    path::Path,
    sync::{Arc, LazyLock},
    thread,
};

use crate::{
    contestants::contestants,
    job::{Job, Later, MakeWork, Work},
    workers::workers,
};

const OWN_USAGE: &str = "\
options of this benchmark:
  --workers N      how many workers each pool has [default: 2]
  --picture FILE   draws the table, as SVG
  --from JSON      measures nothing; --picture draws what an earlier run has left";

/// The table that was asked for.
fn rows(test: bool) -> Vec<Row<Job>> {
    const HANDLES: &[&str] =
        &["ours", "rayon", "tokio", "threadpool", "executors", "crossbeam-channel", "std-threads", "ForkJoinPool"];
    const QUEUES: &[&str] = &["ours", "rayon", "tokio", "threadpool", "executors", "crossbeam-channel", "ForkJoinPool"];
    const WAITED_FOR: &[&str] = &[
        "ours",
        "rayon",
        "tokio",
        "threadpool",
        "executors",
        "crossbeam-channel",
        "std-threads",
        "ForkJoinPool",
        FLOOR,
    ];
    const WAITED_FOR_HERE: &[&str] = &["ours", "rayon", "tokio", "threadpool", "executors", "crossbeam-channel", FLOOR];
    const OF_THIS_PROCESS: &[&str] = &["ours", "rayon", "tokio", "threadpool", "executors", "crossbeam-channel"];

    let less = |figure, title, unit, goal| Line { figure, title, unit, more_is_better: false, of_all: true, goal };
    let nanoseconds = |goal| vec![less("ns", "each", "ns", Some(goal))];
    let row = |number, name, title, contestants, count, job: Box<dyn Fn(u64) -> Job>, lines| Row {
        number,
        name,
        title,
        contestants,
        baseline: None,
        pools: Pools::Kept,
        count,
        job,
        lines,
    };

    let mut rows = vec![
        row(
            "1",
            "submit",
            "submit from outside, collect by handle",
            HANDLES,
            Count::Filling(1000, 1_000_000),
            Box::new(|n| Job::Submit { n }),
            nanoseconds(Goal::Times(2.0)),
        ),
        row(
            "2",
            "window",
            "the same, 1024 outstanding",
            HANDLES,
            Count::Filling(2000, 1_000_000),
            Box::new(|n| Job::Window { n, outstanding: 1024 }),
            nanoseconds(Goal::Times(2.0)),
        ),
        row(
            "3",
            "contended",
            "4 outside threads submit and collect",
            QUEUES,
            Count::Filling(2000, 1_000_000),
            Box::new(|n| Job::Contended { n: n / 4 * 4, submitters: 4 }),
            nanoseconds(Goal::Times(1.67)),
        ),
    ];
    let latency = |p50, p99| {
        vec![
            less("p50", "median", "µs", Some(Goal::Times(p50))),
            less("p99", "of a hundred, the 99th", "µs", Some(Goal::Times(p99))),
            less("min", "fastest", "µs", None),
        ]
    };
    rows.push(row(
        "4",
        "latency",
        "submit one and wait, hot",
        WAITED_FOR,
        Count::Filling(100, 20_000),
        Box::new(|n| Job::OneByOne { n, idle_us: 0 }),
        latency(3.33, 10.0),
    ));
    rows.push(Row {
        pools: Pools::None,
        ..row(
            "5",
            "apart",
            "the same, caller and pool on processors of their own",
            WAITED_FOR_HERE,
            Count::Fixed(if test { 50 } else { 3000 }),
            Box::new(|n| Job::Apart { n }),
            latency(20.0, 20.0),
        )
    });
    rows.push(row(
        "6",
        "idle-latency",
        "the same, after 1 ms idle",
        WAITED_FOR,
        Count::Fixed(if test { 20 } else { 300 }),
        Box::new(|n| Job::OneByOne { n, idle_us: 1000 }),
        latency(1.0, 1.0),
    ));
    let depth = if test { 7 } else { 16 };
    rows.push(row(
        "7",
        "tree",
        "a tree of calls spawned inside",
        &["ours", "rayon", "rayon-fifo", "tokio", "threadpool", "executors", "crossbeam-channel", "ForkJoinPool"],
        Count::Fixed(1),
        Box::new(move |_| Job::Tree { depth }),
        nanoseconds(Goal::Times(1.67)),
    ));
    rows.push(row(
        "8",
        "awaited-tree",
        "a tree whose calls wait for the handles of two others",
        &["ours", "rayon", "tokio", "chili", "ForkJoinPool"],
        Count::Fixed(1),
        Box::new(move |_| Job::Awaited { depth }),
        nanoseconds(Goal::Times(2.5)),
    ));
    rows.push(Row {
        baseline: Some("loop"),
        ..row(
            "9",
            "fib",
            "fib(30) by join",
            &["ours", "rayon", "chili", "ForkJoinPool", "loop"],
            Count::Fixed(if test { 12 } else { 30 }),
            Box::new(|n| Job::Fib { n }),
            nanoseconds(Goal::Times(1.25)),
        )
    });
    rows.push(Row {
        baseline: Some("loop"),
        ..row(
            "10",
            "squares",
            "ordered map of x * x + 1 into a vector",
            &["ours", "rayon", "chili", "ForkJoinPool", "loop"],
            Count::Fixed(if test { 10_000 } else { 10_000_000 }),
            Box::new(|n| Job::Squares { n }),
            nanoseconds(Goal::Times(1.11)),
        )
    });

    let size = move |size: u64| if test { size / 100 } else { size };
    // On two processors, an efficiency of e is a loop's time divided by 2 e. More workers than processors are no faster.
    let at_once = thread::available_parallelism().map_or(1, usize::from).min(workers()) as f64;
    let maps: [(_, _, _, MakeWork, _); 4] = [
        ("11", "map-few", "ordered map, 256 calls of 1 µs", Box::new(|| Work::equal(256)), 0.97),
        ("12", "map-many", "ordered map, 1e5 calls of 1 µs", Box::new(move || Work::equal(size(100_000))), 0.99),
        (
            "13",
            "map-heavy-first",
            "ordered map, heavy first calls",
            Box::new(move || Work::heavy_first(size(100_000))),
            0.99,
        ),
        (
            "14",
            "mandelbrot",
            "ordered map, rows of a Mandelbrot set",
            Box::new(move || Work::mandelbrot(size(2000))),
            0.98,
        ),
    ];
    for (number, name, title, make, efficiency) in maps {
        let work: Later = Arc::new(LazyLock::new(make));
        rows.push(Row {
            baseline: Some("loop"),
            ..row(
                number,
                name,
                title,
                &["ours", "rayon", "chili", "loop", FLOOR],
                Count::Fixed(1),
                Box::new(move |_| Job::Map(Arc::clone(&work))),
                vec![less("ms", "all of it", "ms", Some(Goal::OfBaseline(1.0 / (at_once * efficiency))))],
            )
        });
    }
    rows.push(row(
        "15",
        "completion",
        "results in the order of completion",
        QUEUES,
        Count::Fixed(if test { 1000 } else { 100_000 }),
        Box::new(|n| Job::Completion { n }),
        nanoseconds(Goal::Times(3.33)),
    ));
    rows.push(Row {
        pools: Pools::None,
        ..row(
            "16",
            "memory",
            "memory of a queued call",
            OF_THIS_PROCESS,
            Count::Fixed(if test { 1000 } else { 1_000_000 }),
            Box::new(|n| Job::Alone(Box::new(Job::Queued { n }))),
            vec![less("bytes", "each", "bytes", Some(Goal::Times(1.25)))],
        )
    });
    rows.push(Row {
        pools: Pools::None,
        ..row(
            "18",
            "idle",
            "an idle pool",
            OF_THIS_PROCESS,
            Count::Fixed(if test { 50 } else { 500 }),
            Box::new(|milliseconds| Job::Alone(Box::new(Job::Idle { milliseconds }))),
            vec![less("wake_ups", "wake-ups", "a second", Some(Goal::AtMost(0.0)))],
        )
    });
    if !test && alone::has_callgrind() {
        let instructions = |goal| vec![less("instructions", "each", "instructions", Some(goal))];
        rows.push(Row {
            pools: Pools::None,
            ..row(
                "17",
                "instructions",
                "instructions of a submitted call, one worker",
                OF_THIS_PROCESS,
                Count::Fixed(20_000),
                Box::new(|n| {
                    let window = |n| Box::new(Job::Window { n, outstanding: 256 });
                    Job::Instructions { few: window(5000), many: window(n + 5000), by: n }
                }),
                instructions(Goal::Times(3.33)),
            )
        });
        let tree = |depth| Box::new(Job::Tree { depth });
        let completion = |n| Box::new(Job::Completion { n });
        let of_calls = [
            (
                "instructions-tree",
                "instructions of a call in a tree, one worker",
                Job::Instructions { few: tree(12), many: tree(14), by: (2 << 14) - (2 << 12) },
            ),
            (
                "instructions-completion",
                "instructions of a call whose result is taken as it is there, one worker",
                Job::Instructions { few: completion(10_000), many: completion(30_000), by: 20_000 },
            ),
        ];
        for (name, title, job) in of_calls {
            rows.push(Row {
                pools: Pools::None,
                ..row(
                    "17",
                    name,
                    title,
                    OF_THIS_PROCESS,
                    Count::Fixed(1),
                    Box::new(move |_| job.clone()),
                    instructions(Goal::NotBehind),
                )
            });
        }
        rows.push(Row {
            pools: Pools::None,
            ..row(
                "17",
                "instructions-join",
                "instructions of a join, one worker",
                &["ours", "rayon", "chili"],
                Count::Fixed(1),
                Box::new(|_| {
                    let by = pool::joins(20) - pool::joins(12);
                    Job::Instructions { few: Box::new(Job::Fib { n: 12 }), many: Box::new(Job::Fib { n: 20 }), by }
                }),
                instructions(Goal::NotBehind),
            )
        });
    }
    rows
}

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(done) = alone::run(contestants) {
        return Ok(done?);
    }
    let options = Options::parse(&["workers", "picture", "from"])?;
    if options.help {
        println!("usage: cargo bench --package rivals --bench threads [-- OPTIONS]\n{}\n{OWN_USAGE}", options::USAGE);
        return Ok(());
    }
    let draw = |json: &Path| match options.file("picture") {
        Some(picture) => {
            bars::draw(json, &picture)?;
            println!("{} has the picture.", picture.display());
            Ok::<_, Box<dyn Error>>(())
        }
        None => Ok(()),
    };
    if let Some(json) = options.file("from") {
        return if options.file("picture").is_some() { draw(&json) } else { Err("--from needs a --picture".into()) };
    }
    if let Some(count) = options.workers()? {
        workers::choose(count);
    }
    let rows = rows(options.test);
    let mut contestants = contestants();
    if options.list {
        rows.iter().for_each(|row| println!("{:<5} {:<18} {}", row.number, row.name, row.contestants.join(", ")));
        return Ok(());
    }
    let mut report = contest::run(&rows, &mut contestants, &options)?;
    if options.test {
        eprintln!("threads: all contestants agree; `cargo bench --package rivals --bench threads` measures them");
        return Ok(());
    }
    report.workers = Some(workers());
    report.print();
    let path = options.json.clone();
    let path = path.unwrap_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("threads.json"));
    report.save(&path)?;
    println!("{} has all of it.", path.display());
    draw(&path)
}
