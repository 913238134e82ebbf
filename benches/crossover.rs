//! Where does each backend start to pay?
//!
//! Batches of equal calls of pure CPU work, from 100 ns to 10 ms a call, on each backend and on two rivals: a plain
//! loop, and rayon. The answer is the *crossover*: the cost of a call from which the batch beats the loop.
//!
//! ```text
//! cargo bench --bench crossover                # a minute; tables and sentences
//! cargo bench --bench crossover -- --quick     # seconds, and rough
//! cargo bench --bench crossover -- --save      # as the first; writes docs/crossover.{json,svg}
//! ```
//!
//! Every round takes every cost once, and in it every contestant once, each round beginning with another one. So what
//! disturbs the machine for a while falls on all alike, in a round or two, and the medians pass over it.

#[path = "crossover/chart.rs"]
mod chart;
#[path = "crossover/report.rs"]
mod report;

use concurrent_futures::{Executor, ProcessPoolExecutor, ThreadPoolExecutor, worker};
use rayon::prelude::*;
use serde::Serialize;
use std::{
    env,
    error::Error,
    hint::black_box,
    path::Path,
    thread::available_parallelism,
    time::{Duration, Instant},
};

use report::Report;

/// Nominal: short calls overlap within a core, so at 100 ns the loop takes a quarter less than that.
const COSTS_US: &[f64] = &[0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0];
const QUICK_COSTS_US: &[f64] = &[0.1, 1.0, 10.0, 100.0, 1_000.0];

/// What a batch should take in the loop, within [`MOST_TASKS`] and the fewest that share out well. With fewer
/// calls, the scheduler's whims would decide about the shortest ones; with more, memory would.
const BATCH: Duration = Duration::from_millis(150);
const MOST_TASKS: usize = 100_000;

const USAGE: &str = "\
usage: cargo bench --bench crossover [-- OPTIONS]
  --workers N   threads and processes of each pool; without it, one for each processor
  --rounds N    how often everything is measured; without it 7, or 3 with --quick
  --quick       fewer costs
  --save        write docs/crossover.json and docs/crossover.svg";

/// The call: integer mixing, each step of which needs the one before.
fn mix(iterations: u64) -> u64 {
    let mut x = black_box(iterations);
    for _ in 0..iterations {
        x = (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    }
    black_box(x)
}

/// How many iterations of [`mix`] take a microsecond, when nothing disturbs.
fn iterations_per_us() -> f64 {
    const TRIES: usize = 200;
    const ITERATIONS: u64 = 500_000;
    let fastest = (0..TRIES).map(|_| seconds(|| mix(ITERATIONS)).0).fold(f64::INFINITY, f64::min);
    ITERATIONS as f64 / (fastest * 1e6)
}

fn seconds<T>(body: impl FnOnce() -> T) -> (f64, T) {
    let begin = Instant::now();
    let value = body();
    (begin.elapsed().as_secs_f64(), value)
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Contestant {
    Serial,
    ThreadSubmit,
    ThreadMap,
    ProcessSubmit,
    ProcessMap,
    Rayon,
}

impl Contestant {
    const ALL: [Contestant; 6] = [
        Contestant::Serial,
        Contestant::ThreadSubmit,
        Contestant::ThreadMap,
        Contestant::ProcessSubmit,
        Contestant::ProcessMap,
        Contestant::Rayon,
    ];

    fn name(self) -> &'static str {
        match self {
            Contestant::Serial => "serial",
            Contestant::ThreadSubmit => "thread submit",
            Contestant::ThreadMap => "thread map",
            Contestant::ProcessSubmit => "process submit",
            Contestant::ProcessMap => "process map",
            Contestant::Rayon => "rayon par_iter",
        }
    }
}

struct Pools {
    threads: ThreadPoolExecutor,
    processes: ProcessPoolExecutor,
    rayon: rayon::ThreadPool,
}

impl Pools {
    fn new(workers: usize) -> Result<Self, Box<dyn Error>> {
        Ok(Pools {
            threads: ThreadPoolExecutor::new(workers)?,
            processes: ProcessPoolExecutor::new(workers)?,
            rayon: rayon::ThreadPoolBuilder::new().num_threads(workers).build()?,
        })
    }

    /// Makes all calls of a batch, and adds up their results.
    fn run(&self, contestant: Contestant, inputs: &[u64]) -> u64 {
        match contestant {
            Contestant::Serial => inputs.iter().map(|&iterations| mix(iterations)).fold(0, u64::wrapping_add),
            Contestant::ThreadSubmit => submit_each(&self.threads, inputs),
            Contestant::ThreadMap => map_all(&self.threads, inputs),
            Contestant::ProcessSubmit => submit_each(&self.processes, inputs),
            Contestant::ProcessMap => map_all(&self.processes, inputs),
            Contestant::Rayon => self
                .rayon
                .install(|| inputs.par_iter().map(|&iterations| mix(iterations)).reduce(|| 0, u64::wrapping_add)),
        }
    }
}

fn submit_each(pool: &impl Executor, inputs: &[u64]) -> u64 {
    let futures: Vec<_> = inputs.iter().map(|&iterations| pool.submit(mix, iterations)).collect();
    let results = futures.into_iter().map(|future| future.result().expect("mixing cannot fail"));
    results.fold(0, u64::wrapping_add)
}

fn map_all(pool: &impl Executor, inputs: &[u64]) -> u64 {
    let results = pool.map(mix, inputs.iter().copied()).map(|result| result.expect("mixing cannot fail"));
    results.fold(0, u64::wrapping_add)
}

/// Equal calls, and how long each contestant took for them in each round.
struct Batch {
    cost_us: f64,
    inputs: Vec<u64>,
    expected: u64,
    seconds: [Vec<f64>; Contestant::ALL.len()],
}

impl Batch {
    fn new(cost_us: f64, iterations_per_us: f64, tasks: usize) -> Self {
        let inputs = vec![(cost_us * iterations_per_us).round() as u64; tasks];
        let expected = mix(inputs[0]).wrapping_mul(tasks as u64);
        Batch { cost_us, inputs, expected, seconds: Default::default() }
    }

    /// As many calls as fill [`BATCH`]; a multiple of the workers, so that nobody is left over at the end.
    fn lasting(cost_us: f64, iterations_per_us: f64, workers: usize) -> Self {
        let filling = ((BATCH.as_secs_f64() * 1e6 / cost_us) as usize).min(MOST_TASKS).max(workers * 8);
        Batch::new(cost_us, iterations_per_us, filling.next_multiple_of(workers))
    }

    fn measure(&mut self, pools: &Pools, contestant: Contestant) {
        let (seconds, sum) = seconds(|| pools.run(contestant, &self.inputs));
        assert_eq!(sum, self.expected, "{} differs from serial at {} µs", contestant.name(), self.cost_us);
        self.seconds[contestant as usize].push(seconds);
    }
}

struct Options {
    workers: usize,
    rounds: usize,
    costs_us: &'static [f64],
    save: bool,
}

impl Options {
    /// `None` when only help was asked for.
    fn parse() -> Result<Option<Self>, lexopt::Error> {
        use lexopt::prelude::*;

        let (mut workers, mut rounds, mut quick, mut save) = (None, None, false, false);
        let mut args = lexopt::Parser::from_env();
        while let Some(arg) = args.next()? {
            match arg {
                Long("workers") => workers = Some(at_least_one(args.value()?.parse()?)?),
                Long("rounds") => rounds = Some(at_least_one(args.value()?.parse()?)?),
                Long("quick") => quick = true,
                Long("save") => save = true,
                Long("bench") => {} // from Cargo
                Short('h') | Long("help") => return Ok(None),
                _ => return Err(arg.unexpected()),
            }
        }
        if quick && save {
            return Err("--quick is too rough to --save".into());
        }
        Ok(Some(Options {
            workers: workers.unwrap_or_else(processors),
            rounds: rounds.unwrap_or(if quick { 3 } else { 7 }),
            costs_us: if quick { QUICK_COSTS_US } else { COSTS_US },
            save,
        }))
    }
}

fn at_least_one(number: usize) -> Result<usize, lexopt::Error> {
    if number > 0 { Ok(number) } else { Err("at least 1 is needed, not 0".into()) }
}

fn processors() -> usize {
    available_parallelism().map_or(1, usize::from)
}

fn measure(options: &Options) -> Result<Report, Box<dyn Error>> {
    let iterations_per_us = iterations_per_us();
    let pools = Pools::new(options.workers)?;
    let batch = |&cost_us: &f64| Batch::lasting(cost_us, iterations_per_us, options.workers);
    let mut batches: Vec<_> = options.costs_us.iter().map(batch).collect();

    // Processes start with the first calls; after these batches everybody is there and has done both kinds of work.
    for mut batch in [1.0, 1_000.0].iter().map(batch) {
        Contestant::ALL.into_iter().for_each(|contestant| batch.measure(&pools, contestant));
    }
    assert_eq!(pools.processes.worker_pids().len(), options.workers, "not all processes have started");

    for round in 0..options.rounds {
        eprintln!("round {} of {}", round + 1, options.rounds);
        for batch in &mut batches {
            for turn in 0..Contestant::ALL.len() {
                batch.measure(&pools, Contestant::ALL[(round + turn) % Contestant::ALL.len()]);
            }
        }
    }
    Ok(Report::new(options, iterations_per_us, batches))
}

/// For `cargo test --benches`: that it runs, and that all agree.
fn smoke() -> Result<(), Box<dyn Error>> {
    let pools = Pools::new(2)?;
    for (cost_us, tasks) in [(1.0, 500), (300.0, 20)] {
        let mut batch = Batch::new(cost_us, 100.0, tasks);
        Contestant::ALL.into_iter().for_each(|contestant| batch.measure(&pools, contestant));
    }
    eprintln!("crossover: all contestants agree; `cargo bench --bench crossover` measures them");
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    worker::run_if_worker(); // returns at once, unless the feature `constructor` is off

    // Only `cargo bench` says `--bench`. What is said without it, such as a test's name, is for a test harness.
    if !env::args().any(|arg| arg == "--bench") {
        return smoke();
    }
    let Some(options) = Options::parse()? else {
        println!("{USAGE}");
        return Ok(());
    };
    let report = measure(&options)?;
    report.print();
    if options.save {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
        report.save(&docs.join("crossover.json"))?;
        chart::draw(&report, &docs.join("crossover.svg"))?;
    }
    Ok(())
}
