//! What was measured, in numbers: tables and sentences for people, JSON for programs.

use serde::Serialize;
use std::{collections::BTreeMap, fs, io, path::Path, process::Command};

use crate::{Batch, Contestant, Options, processors};

/// More variation than this between rounds says that something else was using the machine.
const QUIET: f64 = 0.2;

#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) commit: Option<String>,
    pub(crate) workers: usize,
    pub(crate) rounds: usize,
    pub(crate) iterations_per_us: f64,
    pub(crate) points: Vec<Point>,
    pub(crate) crossovers: BTreeMap<Contestant, Crossover>,
}

#[derive(Serialize)]
pub(crate) struct Machine {
    cores: usize,
    model: String,
    kernel: String,
}

/// All contestants at one cost.
#[derive(Serialize)]
pub(crate) struct Point {
    pub(crate) cost_us: f64,
    tasks: usize,
    /// How much longer the loop took in its slowest round than in its fastest, as a fraction of the latter.
    serial_spread: f64,
    /// In the order of [`Contestant::ALL`].
    timings: Vec<Timing>,
}

#[derive(Serialize)]
struct Timing {
    contestant: Contestant,
    median_seconds: f64,
    min_seconds: f64,
    /// Of the medians.
    speedup: f64,
    /// What a call takes beyond a perfect share of the loop: wall-clock time of the whole batch, divided by its calls.
    overhead_us: f64,
}

/// From which cost on a backend is faster than the loop.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(crate) enum Crossover {
    /// The cheapest calls that were measured pay already.
    #[serde(rename = "below_us")]
    Below(f64),
    #[serde(rename = "at_us")]
    At(f64),
    /// The dearest calls that were measured do not pay yet.
    #[serde(rename = "above_us")]
    Above(f64),
}

impl Machine {
    fn this() -> Self {
        let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Machine {
            cores: processors(),
            model: model.map_or("unknown processor", |(_, model)| model).trim().into(),
            kernel: kernel.trim().into(),
        }
    }

    pub(crate) fn describe(&self) -> String {
        format!("{} cores of {}, Linux {}", self.cores, self.model, self.kernel)
    }
}

fn commit() -> Option<String> {
    let output = Command::new("git")
        .args(["rev-parse", "--short", "HEAD"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().into())
}

impl Point {
    fn new(batch: Batch, workers: usize) -> Self {
        let tasks = batch.inputs.len();
        let medians = batch.seconds.each_ref().map(|seconds| median(seconds));
        let serial = medians[Contestant::Serial as usize];
        let share = serial / workers.min(processors()) as f64;
        let timing = |contestant: Contestant| {
            let median = medians[contestant as usize];
            Timing {
                contestant,
                median_seconds: median,
                min_seconds: min(&batch.seconds[contestant as usize]),
                speedup: rounded(serial / median),
                overhead_us: rounded((median - share) / tasks as f64 * 1e6),
            }
        };
        let loops = &batch.seconds[Contestant::Serial as usize];
        let slowest = loops.iter().copied().fold(0.0, f64::max);
        Point {
            cost_us: batch.cost_us,
            tasks,
            serial_spread: rounded(slowest / min(loops) - 1.0),
            timings: Contestant::ALL.map(timing).into(),
        }
    }

    /// Who varied too much, and by how much. For the loop every round counts, since all speed-ups rest on it; for the
    /// others, how far the usual round is from the best.
    fn disturbance(&self) -> Option<String> {
        let spread = |timing: &Timing| match timing.contestant {
            Contestant::Serial => self.serial_spread,
            _ => timing.median_seconds / timing.min_seconds - 1.0,
        };
        let disturbed: Vec<_> = self
            .timings
            .iter()
            .filter(|timing| spread(timing) > QUIET)
            .map(|timing| format!("{} {:.0} %", timing.contestant.name(), spread(timing) * 1e2))
            .collect();
        (!disturbed.is_empty()).then(|| format!("{}: {}", duration(self.cost_us), disturbed.join(", ")))
    }

    pub(crate) fn speedup(&self, contestant: Contestant) -> f64 {
        self.timings[contestant as usize].speedup
    }
}

impl Crossover {
    /// The smallest cost at which the speed-up exceeds 1; between two that were measured, on the straight line that
    /// joins them when both axes are logarithmic.
    fn of(contestant: Contestant, points: &[Point]) -> Self {
        let point = |index: usize| (points[index].cost_us, points[index].speedup(contestant));
        match (0..points.len()).find(|&index| point(index).1 > 1.0) {
            None => Crossover::Above(point(points.len() - 1).0),
            Some(0) => Crossover::Below(point(0).0),
            Some(index) => {
                let ((before, slow), (after, fast)) = (point(index - 1), point(index));
                let way = slow.ln() / (slow.ln() - fast.ln());
                Crossover::At(rounded(before * (after / before).powf(way)))
            }
        }
    }
}

impl Report {
    pub(crate) fn new(options: &Options, iterations_per_us: f64, batches: Vec<Batch>) -> Self {
        let points: Vec<_> = batches.into_iter().map(|batch| Point::new(batch, options.workers)).collect();
        let backends = Contestant::ALL.into_iter().filter(|contestant| *contestant != Contestant::Serial);
        Report {
            machine: Machine::this(),
            commit: commit(),
            workers: options.workers,
            rounds: options.rounds,
            iterations_per_us: rounded(iterations_per_us),
            crossovers: backends.map(|contestant| (contestant, Crossover::of(contestant, &points))).collect(),
            points,
        }
    }

    pub(crate) fn print(&self) {
        let Report { workers, rounds, .. } = self;
        println!("{}; commit {}", self.machine.describe(), self.commit.as_deref().unwrap_or("unknown"));
        println!("{workers} workers, {rounds} rounds, {} iterations a microsecond\n", self.iterations_per_us);

        println!("    call   calls  contestant           median      minimum   overhead/call   speed-up");
        for point in &self.points {
            for timing in &point.timings {
                let overhead = match timing.contestant {
                    Contestant::Serial => String::new(),
                    _ => format!("{:.2} µs", timing.overhead_us),
                };
                println!(
                    "{:>8}  {:>6}  {:<15} {:>9.2} ms {:>9.2} ms  {overhead:>14} {:>10.2}",
                    duration(point.cost_us),
                    point.tasks,
                    timing.contestant.name(),
                    timing.median_seconds * 1e3,
                    timing.min_seconds * 1e3,
                    timing.speedup,
                );
            }
            println!();
        }

        print!("speed-up");
        Contestant::ALL.iter().for_each(|contestant| print!("  {:>14}", contestant.name()));
        println!();
        for point in &self.points {
            print!("{:>8}", duration(point.cost_us));
            point.timings.iter().for_each(|timing| print!("  {:>14.2}", timing.speedup));
            println!();
        }
        println!();

        for (contestant, crossover) in &self.crossovers {
            let name = contestant.name();
            match *crossover {
                Crossover::Below(us) => println!("{name} pays already for calls of {}.", duration(us)),
                Crossover::At(us) => println!("{name} pays for calls longer than {}.", duration(us)),
                Crossover::Above(us) => println!("{name} does not pay for calls of up to {}.", duration(us)),
            }
        }
        let disturbed: Vec<_> = self.points.iter().filter_map(Point::disturbance).collect();
        if !disturbed.is_empty() {
            println!("\nDisturbed: some rounds took much longer than others.\n  {}", disturbed.join("\n  "));
        }
    }

    pub(crate) fn save(&self, path: &Path) -> io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, serde_json::to_string_pretty(self)? + "\n")
    }
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

fn min(samples: &[f64]) -> f64 {
    samples.iter().copied().fold(f64::INFINITY, f64::min)
}

/// To a thousandth: more digits would only be noise.
fn rounded(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

/// With two digits that count: `300 ns`, `1.4 µs`, `25 µs`, `3 ms`.
pub(crate) fn duration(us: f64) -> String {
    let digit = 10_f64.powf(us.log10().floor() - 1.0);
    let us = (us / digit).round() * digit;
    let (number, unit) = match us {
        ..0.999 => (us * 1e3, "ns"),
        ..999.0 => (us, "µs"),
        _ => (us / 1e3, "ms"),
    };
    let places = usize::from(number < 9.95 && number.fract() > 0.05);
    format!("{number:.places$} {unit}")
}
