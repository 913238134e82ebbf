//! How what is measured changes as a size grows, and whether it gets worse by more than it may.
//!
//! As in [`contest`](crate::contest), everybody takes a turn at each size in every round.

use crate::{
    contest::{Contestant, Job, Pools, give_up_later},
    machine::{Machine, QUIET, Watch, wait_until_quiet},
    options::Options,
    picture::short,
    stats::{median, number, rounded},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt::{self, Debug},
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

/// What is measured at several sizes.
pub struct Curve<J> {
    /// A word for `--rows`.
    pub name: &'static str,
    /// What is measured.
    pub title: &'static str,
    /// What grows.
    pub along: &'static str,
    /// In what it is counted.
    pub unit: &'static str,
    /// The figure of a sample, in that unit.
    pub figure: fn(&BTreeMap<String, f64>) -> Option<f64>,
    /// Whether more is better.
    pub more_is_better: bool,
    /// Who takes part. The first one is judged.
    pub contestants: &'static [&'static str],
    /// Which pools there are.
    pub pools: Pools,
    /// The sizes, growing.
    pub at: Vec<u64>,
    /// The size with which the last one is compared.
    pub from: u64,
    /// The job of a size.
    pub job: Box<dyn Fn(u64) -> J>,
}

impl<J> Debug for Curve<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Curve").field("name", &self.name).field("at", &self.at).finish_non_exhaustive()
    }
}

/// How many times as bad the largest size may be as the one that it is compared with.
const ALLOWED: f64 = 2.0;

/// It may also be as bad as the best rival is there, and so much more: that is the machine's doing, as when memory is fresh, or
/// in no cache any more. A plain loop over a hundred million numbers takes many times as long for each as over ten thousand.
const BESIDE_RIVALS: f64 = 1.5;

/// A sample of a small size is the mean of as many as fill this time.
const FILLED: Duration = Duration::from_millis(20);

/// After this long at one size a contestant is hanging, not slow.
const PATIENCE: Duration = Duration::from_secs(900);

/// All curves.
#[derive(Debug, Serialize, Deserialize)]
pub struct Growth {
    /// What was measured on.
    pub machine: Machine,
    /// How many workers each pool had, where nothing else is said.
    pub workers: usize,
    /// How often everything was measured.
    pub rounds: usize,
    /// Whether others left the machine alone during every curve.
    pub quiet: bool,
    /// In the order in which they were measured.
    pub curves: Vec<Measured>,
}

/// One curve: what everybody did.
#[derive(Debug, Serialize, Deserialize)]
pub struct Measured {
    name: String,
    pub(crate) title: String,
    pub(crate) along: String,
    pub(crate) unit: String,
    more_is_better: bool,
    judged: String,
    from: u64,
    /// Which share of the machine others used, round by round.
    others: Vec<f64>,
    /// Who could not do it, and what went wrong.
    failed: BTreeMap<String, String>,
    pub(crate) lines: Vec<Line>,
}

/// One contestant at all sizes.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) contestant: String,
    pub(crate) points: Vec<Point>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Point {
    pub(crate) at: u64,
    pub(crate) median: f64,
    /// Of the rounds. It is judged: what disturbs only ever makes worse, and at the largest size lasts longest.
    best: f64,
    samples: Vec<f64>,
}

/// Measures all `curves` that `options` ask for.
///
/// # Errors
/// The first contestant of a curve could not do its job, or a result was not right; in the short lane, whoever it was.
pub fn run<J: Job>(
    curves: &[Curve<J>],
    contestants: &mut [Box<dyn Contestant<J>>],
    options: &Options,
) -> Result<Vec<Measured>, String> {
    let somebody = |curve: &Curve<J>| curve.contestants.iter().any(|name| options.wants(name));
    let chosen = curves.iter().filter(|curve| options.wants_row(curve.name, curve.name) && somebody(curve));
    let chosen: Vec<_> = chosen.collect();
    if chosen.is_empty() {
        return Err("there is no such curve with such a contestant; --list says which there are".into());
    }
    chosen.into_iter().map(|curve| run_curve(curve, contestants, options)).collect()
}

/// How often everything is measured.
#[must_use]
pub fn rounds(options: &Options) -> usize {
    match options {
        Options { test: true, .. } => 1,
        Options { rounds: Some(rounds), .. } => *rounds,
        Options { quick: true, .. } => 2,
        _ => 3,
    }
}

fn run_curve<J: Job>(
    curve: &Curve<J>,
    contestants: &mut [Box<dyn Contestant<J>>],
    options: &Options,
) -> Result<Measured, String> {
    if !options.test {
        eprintln!("{}", curve.title);
    }
    let takes_part = |name| curve.contestants.contains(&name) && options.wants(name);
    let mut entries = Vec::new();
    for contestant in contestants.iter_mut().filter(|contestant| takes_part(contestant.name())) {
        match contestant.missing() {
            Some(why) => eprintln!("{} takes no part: {why}", contestant.name()),
            None => entries.push(contestant),
        }
    }
    if entries.is_empty() {
        return Err(format!("{}: nobody is left", curve.name));
    }
    entries.sort_by_key(|entry| curve.contestants.iter().position(|name| *name == entry.name()));
    let mut samples = vec![BTreeMap::<u64, Vec<f64>>::new(); entries.len()];
    let mut failed = BTreeMap::new();
    let mut others = Vec::new();

    // The first turn warms up, with the size that all others are compared with.
    for round in 0..=rounds(options) {
        let warms_up = round == 0;
        wait_until_quiet(Duration::from_secs(options.patience));
        let watch = Watch::start();
        for at in curve.at.iter().copied().filter(|at| !warms_up || *at == curve.from) {
            for turn in 0..entries.len() {
                let place = (round + turn) % entries.len();
                let entry = &mut *entries[place];
                if failed.contains_key(entry.name()) {
                    continue;
                }
                match sample(curve, entry, at, warms_up, options) {
                    Ok(_) if warms_up => {}
                    Ok(figure) => samples[place].entry(at).or_default().push(figure),
                    Err(why) => {
                        let why = format!("{}, {}: {why}", entry.name(), curve.name);
                        entry.close();
                        if options.test || entry.name() == curve.contestants[0] {
                            return Err(why);
                        }
                        eprintln!("{why}");
                        failed.insert(entry.name().to_owned(), why);
                    }
                }
            }
        }
        if !warms_up {
            others.push(rounded(watch.others()));
        }
    }
    entries.iter_mut().for_each(|entry| entry.close());

    let best = if curve.more_is_better { f64::max } else { f64::min };
    let point = |(at, samples): (u64, Vec<f64>)| {
        let best = samples.iter().copied().reduce(best).map_or(f64::NAN, rounded);
        Point { at, median: rounded(median(&samples)), best, samples: samples.into_iter().map(rounded).collect() }
    };
    let lines = entries.iter().zip(samples).filter(|(entry, _)| !failed.contains_key(entry.name()));
    Ok(Measured {
        lines: lines
            .map(|(entry, samples)| Line {
                contestant: entry.name().into(),
                points: samples.into_iter().map(point).collect(),
            })
            .collect(),
        name: curve.name.into(),
        title: curve.title.into(),
        along: curve.along.into(),
        unit: curve.unit.into(),
        more_is_better: curve.more_is_better,
        judged: curve.contestants[0].into(),
        from: curve.from,
        others,
        failed,
    })
}

fn sample<J: Job>(
    curve: &Curve<J>,
    contestant: &mut Box<dyn Contestant<J>>,
    at: u64,
    opens: bool,
    options: &Options,
) -> Result<f64, String> {
    let why = format!("{}, {} at {at}: no end after {PATIENCE:?}", contestant.name(), curve.name);
    let _over = give_up_later(why, PATIENCE);
    if opens && curve.pools == Pools::Kept {
        contestant.open()?;
    }
    let job = (curve.job)(at);
    let began = Instant::now();
    let mut figures = Vec::new();
    while figures.is_empty() || !options.test && began.elapsed() < FILLED {
        let sample = contestant.measure(&job)?;
        if sample.check != job.expected() {
            return Err(format!("{job:?} gave {} instead of {}", sample.check, job.expected()));
        }
        figures.push((curve.figure)(&sample.figures).ok_or("it has no such figure")?);
    }
    Ok(figures.iter().sum::<f64>() / figures.len() as f64)
}

/// What is judged of a curve.
pub(crate) struct Limit<'a> {
    pub(crate) from: &'a Point,
    pub(crate) last: &'a Point,
    pub(crate) figure: f64,
    beside: Option<&'a str>,
}

/// Whether a curve bends, in words.
#[derive(Debug)]
pub struct Verdict {
    /// A sentence.
    pub words: String,
    /// It does not, or there is nothing to compare.
    pub holds: bool,
}

impl Measured {
    /// Unless it was left out.
    pub(crate) fn judged(&self) -> Option<&Line> {
        self.lines.iter().find(|line| line.contestant == self.judged)
    }

    fn rivals(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.contestant != self.judged)
    }

    /// How many times as bad the one figure is as the other.
    fn worse(&self, one: f64, other: f64) -> f64 {
        if self.more_is_better { other / one } else { one / other }
    }

    /// The size that others are compared with, and the largest one.
    fn compared<'a>(&self, line: &'a Line) -> Option<(&'a Point, &'a Point)> {
        let from = line.points.iter().find(|point| point.at == self.from)?;
        Some((from, line.points.last().filter(|last| last.at > from.at)?))
    }

    /// What is judged, and the figure that it has to keep to at the largest size; and who takes it beyond [`ALLOWED`], if somebody does.
    pub(crate) fn limit(&self) -> Option<Limit<'_>> {
        let (from, last) = self.compared(self.judged()?)?;
        let times = |times: f64, figure: f64| if self.more_is_better { figure / times } else { figure * times };
        let own = times(ALLOWED, from.best);
        let of_rivals = self.rivals().filter_map(|rival| {
            let there = rival.points.iter().find(|point| point.at == last.at)?;
            Some((times(BESIDE_RIVALS, there.best), &*rival.contestant))
        });
        let best = of_rivals.reduce(|one, other| if self.worse(one.0, other.0) < 1.0 { one } else { other });
        let (figure, beside) = match best {
            Some((figure, rival)) if self.worse(figure, own) > 1.0 => (figure, Some(rival)),
            _ => (own, None),
        };
        Some(Limit { from, last, figure, beside })
    }

    fn quiet(&self) -> bool {
        median(&self.others) <= QUIET
    }

    /// Compares the largest size with the smaller one that it is to be compared with.
    #[must_use]
    pub fn judge(&self) -> Verdict {
        let Some(Limit { from, last, figure, beside }) = self.limit() else {
            return Verdict { words: format!("{}: there is nothing to compare.", self.name), holds: true };
        };
        let holds = self.worse(last.best, figure) <= 1.0;
        let changes = |line: &Line| {
            let (from, last) = self.compared(line)?;
            Some(format!("{} {} ×", line.contestant, number(last.best / from.best)))
        };
        let words = format!(
            "{}: {} With {} {} it is {} {}, {} × what it is with {}; it may be {}{}. Others: {}.",
            self.name,
            if holds { "holds." } else { "BENDS." },
            short(last.at as f64),
            self.along,
            number(last.best),
            self.unit,
            number(last.best / from.best),
            short(from.at as f64),
            number(figure),
            beside.map_or(String::new(), |rival| format!(", since {rival} is not much better")),
            self.rivals().filter_map(changes).collect::<Vec<_>>().join(", "),
        );
        Verdict { words, holds }
    }

    fn print(&self) {
        println!("\n{} [{}], {}; medians of the rounds", self.title, self.name, self.unit);
        let names = self.lines.iter().map(|line| format!("{:>18}", line.contestant));
        println!("{:>20}{}", self.along, names.collect::<String>());
        for (place, point) in self.lines.first().map_or(&[][..], |line| &line.points).iter().enumerate() {
            let figure = |line: &Line| line.points.get(place).map_or(String::new(), |point| number(point.median));
            let figures = self.lines.iter().map(|line| format!("{:>18}", figure(line)));
            println!("{:>20}{}", short(point.at as f64), figures.collect::<String>());
        }
        self.failed.values().for_each(|why| println!("     failed: {why}"));
        if !self.quiet() {
            println!("     the machine was not quiet: others used {:.0} % of it", median(&self.others) * 1e2);
        }
    }
}

impl Growth {
    /// What `curves` are, as they were measured with these `options` on pools of so many `workers`.
    #[must_use]
    pub fn new(curves: Vec<Measured>, workers: usize, options: &Options) -> Self {
        let quiet = curves.iter().all(Measured::quiet);
        Growth { machine: Machine::this(), workers, rounds: rounds(options), quiet, curves }
    }

    /// The tables, and a sentence on each curve. Returns whether all of them hold.
    #[must_use]
    pub fn print(&self) -> bool {
        println!("{}\n{} workers each; {} rounds", self.machine.describe(), self.workers, self.rounds);
        self.curves.iter().for_each(Measured::print);
        println!();
        let verdicts: Vec<_> = self.curves.iter().map(Measured::judge).collect();
        verdicts.iter().for_each(|verdict| println!("{}", verdict.words));
        if !self.quiet {
            println!(
                "NOT QUIET: others used the machine. What bends may be their doing; measure again before it is believed."
            );
        }
        verdicts.iter().all(|verdict| verdict.holds)
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, serde_json::to_string_pretty(self)? + "\n")
    }

    /// Reads what [`Growth::save`] has written.
    ///
    /// # Errors
    /// The file cannot be read, or holds something else.
    pub fn read(path: &Path) -> io::Result<Self> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let text = fs::read_to_string(path).map_err(named)?;
        serde_json::from_str(&text).map_err(|error| named(error.into()))
    }
}
