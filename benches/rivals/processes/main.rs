//! The process pool beside its rivals: how fast, how soon, how large.
//!
//! ```text
//! cargo bench --package rivals --bench processes                  # five minutes; the table, and JSON
//! cargo bench --package rivals --bench processes -- --help        # choosing rows and contestants
//! cargo test --package rivals --bench processes                   # seconds; only whether all results are right
//! ```
//!
//! `README.md` says how it is measured.

mod ipc_channel;
mod job;
mod mapping;
mod ours;
mod pool;
mod procspawn;
mod script;
mod task;
mod text;

use rivals::{
    contest::{self, Contestant, Count, Pools, Row},
    options::{self, Options},
    report::{Goal, Line},
};
use std::{env, error::Error, path::Path, sync::Arc};

use crate::{
    job::{Job, Kind},
    pool::OnPool,
    script::Script,
    text::Text,
};

const OWN_USAGE: &str = "\
options of this benchmark:
  --text SIZE      how large the text is whose words are counted, in MiB [default: 256]";

/// Each pool has as many.
const WORKERS: usize = 2;

const MIB: usize = 1 << 20;

fn contestants() -> Vec<Box<dyn Contestant<Job>>> {
    vec![
        Box::new(OnPool::<ours::Ours>::new()),
        Box::new(OnPool::<ours::FromZygote>::new()),
        Box::new(OnPool::<ipc_channel::ByHand>::new()),
        Box::new(OnPool::<procspawn::Procspawn>::new()),
        Box::new(Script::python("Pool", "pool")),
        Box::new(Script::python("ProcessPoolExecutor", "executor")),
        Box::new(Script::python("ProcessPoolExecutor-chunked", "executor-chunked")),
        Box::new(Script::python("joblib", "joblib")),
        Box::new(Script::node("workerpool")),
        Box::new(mapping::Loop::new()),
    ]
}

/// The table that was asked for.
fn rows(test: bool, text_mib: usize) -> Vec<Row<Job>> {
    const ONE_BY_ONE: &[&str] = &["ours", "ipc-channel", "procspawn", "Pool", "ProcessPoolExecutor", "workerpool"];
    const PAYLOAD: &[&str] = &["ours", "ipc-channel", "procspawn", "Pool", "joblib"];
    const START: &[&str] = &["ours", "ipc-channel", "procspawn", "Pool"];

    let less = |figure, title, unit, goal| Line { figure, title, unit, more_is_better: false, of_all: true, goal };
    let more = |figure, title, unit, goal| Line { more_is_better: true, ..less(figure, title, unit, goal) };
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

    let mut rows = vec![row(
        "1",
        "submit",
        "submit each, collect",
        &["ours", "ipc-channel", "procspawn", "Pool", "ProcessPoolExecutor"],
        Count::Filling(300, 200_000),
        Box::new(|n| Job::Submit { n }),
        vec![more("rate", "throughput", "tasks/s", Some(Goal::Times(20.0)))],
    )];

    for (number, name, title, idle_us, goal) in [
        ("2", "latency", "submit one and wait, busy caller", 0, Goal::Times(20.0)),
        ("3", "idle", "submit one and wait, after 1 ms idle", 1_000, Goal::NotBehind),
    ] {
        rows.push(row(
            number,
            name,
            title,
            ONE_BY_ONE,
            if idle_us == 0 { Count::Filling(100, 20_000) } else { Count::Fixed(if test { 20 } else { 300 }) },
            Box::new(move |n| Job::OneByOne { n, idle_us }),
            vec![
                less("p50", "median", "µs", Some(goal)),
                less("p99", "of a hundred, the 99th", "µs", None),
                less("min", "fastest", "µs", None),
            ],
        ));
    }

    rows.push(row(
        "4",
        "map",
        "map of trivial items, no chunk size given",
        &["ours", "Pool", "ProcessPoolExecutor", "ProcessPoolExecutor-chunked"],
        Count::Filling(1_000, 1_000_000),
        Box::new(|n| Job::Map { n }),
        vec![more("rate", "throughput", "items/s", Some(Goal::Times(10.0)))],
    ));

    let large = if test { 4 } else { 64 };
    for (name, title, kind, mib, reps) in [
        ("bytes-small", "1 MiB of bytes, there and back", Kind::Bytes, 1, 20),
        ("bytes-large", "64 MiB of bytes, there and back", Kind::Bytes, large, 2),
        ("floats-small", "1 MiB of f64, there and back", Kind::Floats, 1, 20),
        ("floats-large", "64 MiB of f64, there and back", Kind::Floats, large, 2),
    ] {
        rows.push(row(
            "5",
            name,
            title,
            PAYLOAD,
            Count::Fixed(if test { 2 } else { reps }),
            Box::new(move |n| Job::Echo { kind, bytes: mib * MIB, n }),
            vec![more("gb_per_s", "throughput", "GB/s", Some(Goal::Times(4.0)))],
        ));
    }

    rows.push(Row {
        baseline: Some("loop"),
        ..row(
            "5",
            "shared",
            "64 MiB of shared memory, summed by a worker",
            &["ours", "joblib", "loop"],
            Count::Fixed(if test { 2 } else { 20 }),
            Box::new(move |n| Job::SumShared { bytes: large * MIB, n }),
            vec![
                less("ms", "median", "ms", Some(Goal::OfBaseline(1.2))),
                less("first_ms", "the first time", "ms", None),
            ],
        )
    });
    rows.push(Row {
        pools: Pools::None,
        ..row(
            "6",
            "start",
            "constructor to first result",
            START,
            Count::Fixed(if test { 1 } else { 5 }),
            Box::new(|n| Job::FirstResult { n }),
            vec![less("ms", "median", "ms", Some(Goal::NotBehind))],
        )
    });
    // Not every one has both figures: `Pool` never says that a worker died, and an executor is broken by it.
    rows.push(Row {
        pools: Pools::New,
        ..row(
            "6, 7",
            "death",
            "a worker is killed in a call",
            &["ours", "ipc-channel", "procspawn", "Pool", "ProcessPoolExecutor"],
            Count::Fixed(1),
            Box::new(|_| Job::Death),
            vec![
                Line { of_all: false, ..less("strength_ms", "back to full strength", "ms", Some(Goal::NotBehind)) },
                Line { of_all: false, ..less("seen_ms", "seen as an error", "ms", Some(Goal::AtMost(0.2))) },
            ],
        )
    });
    rows.push(Row {
        pools: Pools::New,
        ..row(
            "6",
            "zygote",
            "a worker is killed in a call; workers come from a zygote",
            &["ours-zygote", "ipc-channel", "procspawn", "Pool"],
            Count::Fixed(1),
            Box::new(|_| Job::Death),
            vec![Line { of_all: false, ..less("strength_ms", "back to full strength", "ms", Some(Goal::Times(4.0))) }],
        )
    });
    rows.push(Row {
        pools: Pools::None,
        ..row(
            "8",
            "memory",
            "memory of an idle worker",
            START,
            Count::Fixed(200),
            Box::new(|n| Job::IdleMemory { n }),
            vec![
                less("pss_kb", "proportional share", "kB", Some(Goal::AtMost(381.0))),
                less("private_kb", "pages of its own", "kB", Some(Goal::NotBehind)),
            ],
        )
    });
    rows.push(Row {
        pools: Pools::New,
        ..row(
            "8",
            "descriptors",
            "descriptors of a queued task",
            START,
            Count::Fixed(100),
            Box::new(|n| Job::Descriptors { n }),
            vec![less("each", "in the parent", "descriptors", Some(Goal::AtMost(0.0)))],
        )
    });

    let text = Arc::new(Text::of(if test { 2 * MIB } else { text_mib * MIB }));
    for (name, title, spans) in [
        ("text-chunks", "words in a text, 256 KiB chunks sent", false),
        ("text-spans", "words in a text, workers read their spans", true),
    ] {
        let text = Arc::clone(&text);
        rows.push(Row {
            baseline: Some("loop"),
            ..row(
                "9",
                name,
                title,
                &["ours", "ipc-channel", "loop"],
                Count::Fixed(1),
                Box::new(move |_| Job::Text { spans, text: Arc::clone(&text) }),
                vec![less("seconds", "all of it", "s", Some(Goal::OfBaseline(1.1)))],
            )
        });
    }
    rows
}

fn main() -> Result<(), Box<dyn Error>> {
    // What is started again as a worker of one of the three pools in this program goes no further than its own line.
    concurrent_futures::worker::run_if_worker();
    ::procspawn::init();
    ipc_channel::run_if_worker();

    let options = Options::parse(&["text"])?;
    if options.help {
        println!("usage: cargo bench --package rivals --bench processes [-- OPTIONS]\n{}\n{OWN_USAGE}", options::USAGE);
        return Ok(());
    }
    let text_mib = options.own.get("text").map_or(Ok(256), |mib| mib.trim_end_matches("MiB").parse())?;
    let rows = rows(options.test, text_mib);
    let mut contestants = contestants();
    if options.list {
        rows.iter().for_each(|row| println!("{:<5} {:<13} {}", row.number, row.name, row.contestants.join(", ")));
        return Ok(());
    }
    let mut report = contest::run(&rows, &mut contestants, &options)?;
    if options.test {
        eprintln!("processes: all contestants agree; `cargo bench --package rivals --bench processes` measures them");
        return Ok(());
    }
    report.workers = Some(WORKERS);
    report.print();
    let path = options.json.unwrap_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("processes.json"));
    report.save(&path)?;
    println!("{} has all of it.", path.display());
    Ok(())
}
