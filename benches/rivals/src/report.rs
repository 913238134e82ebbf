//! What was measured: a table for people, JSON for programs.

use crate::{
    contest::{FLOOR, Row, Sample},
    machine::{Machine, QUIET},
    stats::{median, number, rounded},
};
use serde::Serialize;
use std::{collections::BTreeMap, fs, io, path::Path};

/// A figure that is reported.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its name in [`Sample::figures`].
    pub figure: &'static str,
    /// What it is.
    pub title: &'static str,
    /// In what it is counted.
    pub unit: &'static str,
    /// Whether more is better.
    pub more_is_better: bool,
    /// Whether every contestant of the row must have it.
    pub of_all: bool,
    /// What the first contestant is to reach.
    pub goal: Option<Goal>,
}

/// What the first contestant is to reach.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// As many times as good as the best rival.
    Times(f64),
    /// As good as the best rival, but for what a run differs from the next.
    NotBehind,
    /// No more than this.
    AtMost(f64),
    /// No more than so many times what the baseline takes.
    OfBaseline(f64),
}

/// Two runs of the same thing differ by as much.
const NOISE: f64 = 0.05;

/// All rows.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What was measured on.
    pub machine: Machine,
    /// How many workers each pool had, if the benchmark says so.
    pub workers: Option<usize>,
    /// How often everything was measured.
    pub rounds: usize,
    /// Who took no part, and why.
    pub absent: BTreeMap<&'static str, String>,
    /// Whether others left the machine alone in every row.
    pub quiet: bool,
    /// In the order of their numbers.
    pub rows: Vec<RowReport>,
}

/// One row: what everybody did.
#[derive(Debug, Serialize)]
pub struct RowReport {
    number: &'static str,
    name: &'static str,
    title: &'static str,
    baseline: Option<&'static str>,
    /// Which share of the machine others used, round by round.
    others: Vec<f64>,
    quiet: bool,
    /// Who could not do it, and what went wrong.
    failed: BTreeMap<&'static str, String>,
    lines: Vec<LineReport>,
}

/// One figure of everybody.
#[derive(Debug, Serialize)]
struct LineReport {
    figure: &'static str,
    title: &'static str,
    unit: &'static str,
    more_is_better: bool,
    places: Vec<Place>,
    verdict: Option<Verdict>,
}

/// One figure of one contestant.
#[derive(Debug, Serialize)]
struct Place {
    contestant: &'static str,
    count: u64,
    median: f64,
    best: f64,
    samples: Vec<f64>,
}

/// How the first contestant stands.
#[derive(Debug, Serialize)]
struct Verdict {
    ours: f64,
    best_rival: Option<&'static str>,
    theirs: Option<f64>,
    /// How many times as good as the best rival: above 1 is ahead of it.
    ratio: Option<f64>,
    goal: Option<String>,
    to_reach: Option<f64>,
    reached: Option<bool>,
}

/// One contestant's samples of one row.
pub(crate) struct Standing {
    pub(crate) name: &'static str,
    pub(crate) count: u64,
    pub(crate) samples: Vec<Sample>,
    pub(crate) failed: Option<String>,
}

impl RowReport {
    pub(crate) fn new<J>(row: &Row<J>, mut standings: Vec<Standing>, others: Vec<f64>) -> Self {
        let failed = standings.iter().filter_map(|standing| Some((standing.name, standing.failed.clone()?))).collect();
        standings.retain(|standing| standing.failed.is_none());
        standings.sort_by_key(|standing| row.contestants.iter().position(|name| *name == standing.name));
        RowReport {
            number: row.number,
            name: row.name,
            title: row.title,
            baseline: row.baseline,
            // A disturbed round or two are passed over by the medians, but not more.
            quiet: median(&others) <= QUIET,
            others: others.into_iter().map(rounded).collect(),
            failed,
            lines: row.lines.iter().map(|line| LineReport::new(row, line, &standings)).collect(),
        }
    }
}

impl LineReport {
    fn new<J>(row: &Row<J>, line: &Line, standings: &[Standing]) -> Self {
        let places: Vec<_> = standings.iter().filter_map(|standing| Place::new(line, standing)).collect();
        let ours = places.iter().find(|place| place.contestant == row.contestants[0]);
        LineReport {
            figure: line.figure,
            title: line.title,
            unit: line.unit,
            more_is_better: line.more_is_better,
            verdict: ours.map(|ours| Verdict::new(row, line, ours, &places)),
            places,
        }
    }
}

impl Place {
    fn new(line: &Line, standing: &Standing) -> Option<Self> {
        let samples: Vec<_> =
            standing.samples.iter().filter_map(|sample| sample.figures.get(line.figure).copied()).collect();
        let best = if line.more_is_better { f64::max } else { f64::min };
        Some(Place {
            contestant: standing.name,
            count: standing.count,
            best: rounded(samples.iter().copied().reduce(best)?),
            median: rounded(median(&samples)),
            samples: samples.into_iter().map(rounded).collect(),
        })
    }
}

impl Verdict {
    fn new<J>(row: &Row<J>, line: &Line, ours: &Place, places: &[Place]) -> Self {
        let better = |one: &&Place, other: &&Place| {
            let order = one.median.total_cmp(&other.median);
            if line.more_is_better { order } else { order.reverse() }
        };
        let is_rival =
            |place: &&Place| ![Some(ours.contestant), Some(FLOOR), row.baseline].contains(&Some(place.contestant));
        let rival = places.iter().filter(is_rival).max_by(better);
        let theirs = rival.map(|rival| rival.median);
        let baseline = places.iter().find(|place| Some(place.contestant) == row.baseline);
        let times = |times: f64| theirs.map(|theirs| if line.more_is_better { theirs * times } else { theirs / times });
        let (goal, to_reach) = match line.goal {
            Some(Goal::Times(factor)) => (Some(format!("{factor} × the best rival")), times(factor)),
            Some(Goal::NotBehind) => (Some("not behind".into()), times(1.0)),
            Some(Goal::AtMost(most)) => (Some(format!("at most {most} {}", line.unit)), Some(most)),
            Some(Goal::OfBaseline(factor)) => (
                Some(format!("at most {factor} × {}", row.baseline.unwrap_or("the baseline"))),
                baseline.map(|baseline| baseline.median * factor),
            ),
            None => (None, None),
        };
        let allowance = if matches!(line.goal, Some(Goal::NotBehind)) { 1.0 + NOISE } else { 1.0 };
        let reached = |goal: f64| match line.more_is_better {
            true => ours.median * allowance >= goal,
            false => ours.median <= goal * allowance,
        };
        let ratio = theirs.map(|theirs| match line.more_is_better {
            true => ours.median / theirs,
            false => theirs / ours.median,
        });
        Verdict {
            ours: ours.median,
            best_rival: rival.map(|rival| rival.contestant),
            theirs,
            ratio: ratio.filter(|ratio| ratio.is_finite()).map(rounded),
            goal,
            to_reach: to_reach.map(rounded),
            reached: to_reach.map(reached),
        }
    }
}

impl Report {
    pub(crate) fn push(&mut self, row: RowReport) {
        self.quiet &= row.quiet;
        self.rows.push(row);
    }

    /// The table, for people.
    pub fn print(&self) {
        let workers = self.workers.map_or(String::new(), |workers| format!("{workers} workers each; "));
        println!("{}\n{workers}{} rounds; medians, and the best round\n", self.machine.describe(), self.rounds);
        for (name, why) in &self.absent {
            println!("{name} takes no part: {why}");
        }
        for row in &self.rows {
            println!("\n{}  {} [{}]", row.number, row.title, row.name);
            for line in &row.lines {
                println!("   {}, {}", line.title, line.unit);
                for place in &line.places {
                    let Place { contestant, median, best, .. } = place;
                    println!("     {contestant:<28} {:>10} {:>10}", number(*median), number(*best));
                }
            }
            row.failed.values().for_each(|why| println!("     failed: {why}"));
            if !row.quiet {
                println!("     the machine was not quiet: others used {:.0} % of it", median(&row.others) * 1e2);
            }
        }
        self.print_summary();
    }

    fn print_summary(&self) {
        let columns = ["", "", "ours", "best rival", "", "ratio", "to reach", "which is"];
        let mut table = vec![columns.map(String::from)];
        let figure = |figure: Option<f64>| figure.map_or(String::new(), number);
        for (row, line) in self.rows.iter().flat_map(|row| row.lines.iter().map(move |line| (row, line))) {
            let Some(verdict) = &line.verdict else { continue };
            let reached = match (verdict.reached, &verdict.goal) {
                (Some(true), Some(goal)) => format!("{goal}: reached"),
                (Some(false), Some(goal)) => format!("{goal}: not yet"),
                (None, Some(goal)) => format!("{goal}: nobody to compare with"),
                (_, None) => String::new(),
            };
            table.push([
                row.number.into(),
                format!("{} [{}], {}", row.title, line.title, line.unit),
                number(verdict.ours),
                figure(verdict.theirs),
                verdict.best_rival.unwrap_or("no rival").into(),
                verdict.ratio.map_or("–".into(), |ratio| number(ratio) + " ×"),
                figure(verdict.to_reach),
                reached,
            ]);
        }
        let width = |column: usize| table.iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
        println!();
        for cells in &table {
            let padded = |column: usize| {
                let (cell, width) = (&cells[column], width(column));
                if matches!(column, 2 | 3 | 5 | 6) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            };
            let line: Vec<_> = (0..cells.len()).map(padded).collect();
            println!("{}", line.join("  ").trim_end());
        }
        println!("\nA ratio above 1 is ahead of the best rival, whatever is counted.");
        let loud: Vec<_> = self.rows.iter().filter(|row| !row.quiet).map(|row| row.name).collect();
        if !self.quiet {
            println!("NOT QUIET: others used the machine during {}. These figures judge nothing.", loud.join(", "));
        }
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
}
