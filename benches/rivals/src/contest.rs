//! Who takes part in what, and the rounds.
//!
//! In every round of a row each contestant takes a turn, each round beginning with another one. So what disturbs the
//! machine for a while falls on all alike, in a round or two, and the medians pass over it.

use crate::{
    machine::{Machine, Watch, wait_until_quiet},
    options::Options,
    report::{Line, Report, RowReport, Standing},
};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fmt::Debug,
    process,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

/// What a contestant is told to do.
pub trait Job: Debug {
    /// What [`Sample::check`] must be: who does nothing does not win.
    fn expected(&self) -> u64;
}

/// What came of a job.
#[derive(Debug, Default, Deserialize)]
pub struct Sample {
    /// How long the measured part took.
    pub seconds: f64,
    /// What was measured, by name.
    pub figures: BTreeMap<String, f64>,
    /// A number made of all results, so that they can be compared with what they should be.
    pub check: u64,
}

impl Sample {
    /// One of a job that took so many `seconds`.
    #[must_use]
    pub fn new<const N: usize>(seconds: f64, figures: [(&str, f64); N], check: u64) -> Self {
        let figures = figures.into_iter().map(|(name, figure)| (name.to_owned(), figure)).collect();
        Sample { seconds, figures, check }
    }
}

/// Somebody who is measured.
pub trait Contestant<J> {
    /// As in [`Row::contestants`].
    fn name(&self) -> &'static str;

    /// Why it cannot take part on this machine.
    fn missing(&mut self) -> Option<String> {
        None
    }

    /// Makes a pool, with all workers there and warm.
    ///
    /// # Errors
    /// Why there is none.
    fn open(&mut self) -> Result<(), String>;

    /// Does a job.
    ///
    /// # Errors
    /// Why it could not be done.
    fn measure(&mut self, job: &J) -> Result<Sample, String>;

    /// Ends the pool, if there is one.
    fn close(&mut self);
}

/// Which pools there are while one contestant is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pools {
    /// One of each, made before the first round.
    Kept,
    /// A new one for each sample, and no other.
    New,
    /// None: the job makes its own.
    None,
}

/// The size of a job.
#[derive(Clone, Copy, Debug)]
pub enum Count {
    /// The same for all.
    Fixed(u64),
    /// As many as fill a fifth of a second, within these; each contestant has its own. The first number is also that
    /// of the short lane.
    Filling(u64, u64),
}

/// How long a job of [`Count::Filling`] should last, in seconds.
const FILLED: f64 = 0.2;

/// Whoever bears this name is no rival in any row: it shows what the machine takes.
pub const FLOOR: &str = "floor";

/// What is measured together.
pub struct Row<J> {
    /// The row of the table that was asked for; several may share one.
    pub number: &'static str,
    /// A word for `--rows`.
    pub name: &'static str,
    /// What is measured.
    pub title: &'static str,
    /// Who takes part. The first one is judged.
    pub contestants: &'static [&'static str],
    /// Who is no rival but a measure.
    pub baseline: Option<&'static str>,
    /// Which pools there are.
    pub pools: Pools,
    /// How large the job is.
    pub count: Count,
    /// The job of that size.
    pub job: Box<dyn Fn(u64) -> J>,
    /// The figures that are reported.
    pub lines: Vec<Line>,
}

impl<J> Debug for Row<J> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Row").field("name", &self.name).field("contestants", &self.contestants).finish_non_exhaustive()
    }
}

/// One contestant in one row.
struct Entry<'a, J> {
    contestant: &'a mut Box<dyn Contestant<J>>,
    count: u64,
    samples: Vec<Sample>,
    failed: Option<String>,
}

/// Measures all `rows` that `options` ask for.
///
/// # Errors
/// The first contestant of a row could not do its job, or a result was not right; in the short lane, whoever it was.
pub fn run<J: Job>(
    rows: &[Row<J>],
    contestants: &mut [Box<dyn Contestant<J>>],
    options: &Options,
) -> Result<Report, String> {
    let known = |name: &String| contestants.iter().any(|contestant| contestant.name() == name);
    if let Some(name) = options.only.iter().find(|name| !known(name)) {
        return Err(format!("there is no contestant {name}; --list says who there is"));
    }
    let chosen: Vec<_> = rows.iter().filter(|row| options.wants_row(row.number, row.name)).collect();
    if chosen.is_empty() {
        return Err("there is no such row; --list says which there are".into());
    }
    let needed = |name: &str| options.wants(name) && chosen.iter().any(|row| row.contestants.contains(&name));
    let mut absent = BTreeMap::new();
    for contestant in contestants.iter_mut().filter(|contestant| needed(contestant.name())) {
        if let Some(why) = contestant.missing() {
            eprintln!("{} takes no part: {why}", contestant.name());
            absent.insert(contestant.name(), why);
        }
    }
    let mut report =
        Report { machine: Machine::this(), workers: None, rounds: rounds(options), absent, quiet: true, rows: vec![] };
    for row in chosen {
        let takes_part = |name| row.contestants.contains(&name) && options.wants(name);
        let entries = contestants
            .iter_mut()
            .filter(|contestant| takes_part(contestant.name()) && !report.absent.contains_key(contestant.name()))
            .map(|contestant| Entry { contestant, count: 0, samples: Vec::new(), failed: None })
            .collect();
        report.push(run_row(row, entries, options)?);
    }
    Ok(report)
}

/// After this long a contestant is hanging, not slow.
const PATIENCE: Duration = Duration::from_secs(180);

/// Ends this process, saying `why`, unless what it returns is dropped before: who hangs cannot be asked to stop.
pub(crate) fn give_up_later(why: String, patience: Duration) -> mpsc::Sender<()> {
    let (over, watched) = mpsc::channel();
    thread::spawn(move || {
        if watched.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
            eprintln!("{why}");
            process::exit(2);
        }
    });
    over
}

fn rounds(options: &Options) -> usize {
    if options.test { 1 } else { options.rounds.unwrap_or(if options.quick { 1 } else { 5 }) }
}

fn run_row<J: Job>(row: &Row<J>, mut entries: Vec<Entry<'_, J>>, options: &Options) -> Result<RowReport, String> {
    if !options.test {
        eprintln!("{} {}", row.number, row.title);
    }
    for entry in &mut entries {
        entry.attempt(row, options, |entry| entry.prepare(row, options))?;
    }
    let everybody = entries.len();
    let mut others = Vec::new();
    for round in 0..rounds(options) {
        wait_until_quiet(Duration::from_secs(options.patience));
        let watch = Watch::start();
        for turn in 0..everybody {
            let entry = &mut entries[(round + turn) % everybody];
            entry.attempt(row, options, |entry| {
                let sample = entry.measure(row)?;
                entry.samples.push(sample);
                Ok(())
            })?;
        }
        others.push(watch.others());
    }
    entries.iter_mut().for_each(|entry| entry.contestant.close());

    let standing = |entry: Entry<'_, J>| Standing {
        name: entry.contestant.name(),
        count: entry.count,
        samples: entry.samples,
        failed: entry.failed,
    };
    Ok(RowReport::new(row, entries.into_iter().map(standing).collect(), others))
}

impl<J: Job> Entry<'_, J> {
    /// Who fails is out of the row. That ends everything for the one that is judged, and for all in the short lane.
    fn attempt(
        &mut self,
        row: &Row<J>,
        options: &Options,
        step: impl FnOnce(&mut Self) -> Result<(), String>,
    ) -> Result<(), String> {
        if self.failed.is_some() {
            return Ok(());
        }
        let over =
            give_up_later(format!("{}, {}: no end after {PATIENCE:?}", self.contestant.name(), row.name), PATIENCE);
        let outcome = step(self);
        drop(over);
        let Err(why) = outcome else { return Ok(()) };
        let name = self.contestant.name();
        let why = format!("{name}, {}: {why}", row.name);
        self.contestant.close();
        if options.test || name == row.contestants[0] {
            return Err(why);
        }
        eprintln!("{why}");
        self.failed = Some(why);
        Ok(())
    }

    /// Makes the pool, finds the size of the job, and warms up with it.
    fn prepare(&mut self, row: &Row<J>, options: &Options) -> Result<(), String> {
        if row.pools == Pools::Kept {
            self.contestant.open()?;
        }
        self.count = match row.count {
            Count::Fixed(count) | Count::Filling(count, _) => count,
        };
        if let (Count::Filling(_, most), false) = (row.count, options.test) {
            // No more than tenfold at once, since the first jobs are slow; and twice, since one may be disturbed.
            let filled = if options.quick { FILLED / 10.0 } else { FILLED };
            loop {
                let seconds = self.measure(row)?.seconds.min(self.measure(row)?.seconds);
                if seconds >= filled / 2.0 || self.count >= most {
                    break;
                }
                let factor = (filled / seconds.max(1e-9)).clamp(1.0, 10.0);
                self.count = ((self.count as f64 * factor) as u64).min(most);
            }
        } else if !options.test && row.pools == Pools::Kept {
            self.measure(row)?;
        }
        Ok(())
    }

    fn measure(&mut self, row: &Row<J>) -> Result<Sample, String> {
        if row.pools == Pools::New {
            self.contestant.open()?;
        }
        let job = (row.job)(self.count);
        let sample = self.contestant.measure(&job)?;
        if row.pools != Pools::Kept {
            self.contestant.close();
        }
        if sample.check != job.expected() {
            return Err(format!("{job:?} gave {} instead of {}", sample.check, job.expected()));
        }
        if let Some(line) = row.lines.iter().find(|line| line.of_all && !sample.figures.contains_key(line.figure)) {
            return Err(format!("{job:?} has no {}", line.figure));
        }
        Ok(sample)
    }
}
