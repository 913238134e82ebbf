//! What is measured on, and what else it does meanwhile.

use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// When others use more of the machine than this share, it is not quiet.
pub const QUIET: f64 = 0.05;

/// The machine, and the sources that are measured.
#[derive(Debug, Serialize, Deserialize)]
pub struct Machine {
    cores: usize,
    model: String,
    kernel: String,
    /// Processes that could run when the benchmark began, on average of the last minute.
    load: f64,
    commit: Option<String>,
}

impl Machine {
    /// This one, now.
    #[must_use]
    pub fn this() -> Self {
        let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Machine {
            cores: cores(),
            model: model.map_or("unknown processor", |(_, model)| model).trim().into(),
            kernel: kernel.trim().into(),
            load: load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
            commit: commit(),
        }
    }

    /// One line.
    #[must_use]
    pub fn describe(&self) -> String {
        let commit = self.commit.as_deref().unwrap_or("unknown");
        let Machine { cores, model, kernel, load, .. } = self;
        format!("{cores} cores of {model}, Linux {kernel}; load at the start {load}; commit {commit}")
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// With a `+` when the sources differ from it.
fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|changes| !changes.is_empty());
    git(&["rev-parse", "--short", "HEAD"]).map(|commit| commit + if changed { "+" } else { "" })
}

/// Watches what others use while something is measured.
#[derive(Debug)]
pub struct Watch {
    began: Instant,
    /// Of all processors, and of this process with all its descendants: in ticks.
    all: u64,
    own: u64,
}

impl Watch {
    /// Begins to watch.
    #[must_use]
    pub fn start() -> Self {
        Watch { began: Instant::now(), all: used_by_all(), own: used_by_own() }
    }

    /// Which share of the machine others have used since, other guests of the same host included.
    #[must_use]
    pub fn others(&self) -> f64 {
        let all = used_by_all().saturating_sub(self.all);
        let own = used_by_own().saturating_sub(self.own);
        let ticks = self.began.elapsed().as_secs_f64() * rustix::param::clock_ticks_per_second() as f64;
        (all.saturating_sub(own) as f64 / (ticks * cores() as f64)).min(1.0)
    }
}

/// Returns once others leave the machine alone, or when the time is over.
pub fn wait_until_quiet(patience: Duration) {
    const GLANCE: Duration = Duration::from_millis(500);
    let began = Instant::now();
    while began.elapsed() < patience {
        let watch = Watch::start();
        thread::sleep(GLANCE);
        if watch.others() <= QUIET {
            return;
        }
    }
}

fn used_by_all() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks: Vec<u64> =
        stat.lines().next().unwrap_or("").split_whitespace().skip(1).map(|ticks| ticks.parse().unwrap_or(0)).collect();
    // User, nice, system, two kinds of interrupts, and what the host took away.
    [0, 1, 2, 5, 6, 7].into_iter().filter_map(|column| ticks.get(column)).sum()
}

/// Children that have ended are in the sums of who waited for them.
fn used_by_own() -> u64 {
    let table = processes();
    let own = descendants_in(&table).into_iter().chain([std::process::id()]);
    own.filter_map(|process| table.get(&process)).map(|process| process.ticks).sum()
}

struct Process {
    parent: u32,
    ticks: u64,
}

fn processes() -> HashMap<u32, Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let process = |entry: fs::DirEntry| {
        let id = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // Behind the name, which may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = fields.get(11..15)?.iter().filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        Some((id, Process { parent: fields.get(1)?.parse().ok()?, ticks }))
    };
    entries.filter_map(process).collect()
}

/// All processes that this one has started, and those that they have.
#[must_use]
pub fn descendants() -> Vec<u32> {
    descendants_in(&processes())
}

fn descendants_in(table: &HashMap<u32, Process>) -> Vec<u32> {
    let mut found = vec![std::process::id()];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(table.iter().filter(|(_, process)| process.parent == parent).map(|(id, _)| *id));
        next += 1;
    }
    found.split_off(1)
}
