//! The table as a picture: for each row a bar for each rival, as long as ours is better or worse than it.

use plotters::{prelude::*, style::text_anchor::HPos};
use serde::Deserialize;
use std::{error::Error, fs, path::Path};

use super::{Area, BLUE, FAINT, GRID, INK, VERMILION, WIDTH, short, write, write_headings};
use crate::{contest::FLOOR, machine::Machine, stats::number};

/// What is drawn of a run.
#[derive(Deserialize)]
struct Run {
    machine: Machine,
    workers: Option<usize>,
    rounds: usize,
    quiet: bool,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    number: String,
    title: String,
    baseline: Option<String>,
    quiet: bool,
    lines: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    title: String,
    unit: String,
    more_is_better: bool,
    places: Vec<Place>,
    verdict: Option<Verdict>,
}

#[derive(Deserialize)]
struct Place {
    contestant: String,
    median: f64,
}

#[derive(Deserialize)]
struct Verdict {
    theirs: Option<f64>,
    to_reach: Option<f64>,
}

impl Row {
    /// The rivals, the best one first, and how many times as good ours is. Where somebody takes nothing at all there is no ratio.
    fn ratios<'a>(&self, line: &'a Line) -> Vec<(&'a str, f64)> {
        let Some((ours, rivals)) = line.places.split_first() else { return Vec::new() };
        let ratios = rivals.iter().map(|rival| (&*rival.contestant, line.ratio(ours.median, rival.median)));
        let mut ratios: Vec<_> = ratios.filter(|(_, ratio)| ratio.is_finite() && *ratio > 0.0).collect();
        ratios.sort_by(|(one, a), (other, b)| self.is_baseline(one).cmp(&self.is_baseline(other)).then(a.total_cmp(b)));
        ratios
    }

    fn is_baseline(&self, contestant: &str) -> bool {
        self.baseline.as_deref() == Some(contestant) || contestant == FLOOR
    }
}

impl Line {
    /// How many times as good the one is as the other: above 1 is better.
    fn ratio(&self, one: f64, other: f64) -> f64 {
        if self.more_is_better { one / other } else { other / one }
    }

    /// What is to be reached, as a ratio to the best rival.
    fn goal(&self) -> Option<f64> {
        let verdict = self.verdict.as_ref()?;
        let goal = self.ratio(verdict.to_reach?, verdict.theirs?);
        (goal.is_finite() && goal > 0.0).then_some(goal)
    }
}

/// A bar that is longer ends at the edge; its label has the number.
const LONGEST: f64 = 32.0;
const TOP: i32 = 136;
const BAR: i32 = 13;
const GAP: i32 = 16;
/// Where the bars may lie, with room for their labels on both sides.
const LEFT: i32 = 440;
const RIGHT: i32 = 840;

/// Where a ratio lies: in the middle if it is 1, and as far for a half as for the double.
fn x(ratio: f64) -> i32 {
    let share = (ratio.clamp(1.0 / LONGEST, LONGEST).ln() / LONGEST.ln() + 1.0) / 2.0;
    LEFT + (share * f64::from(RIGHT - LEFT)).round() as i32
}

/// Draws the run that `json` holds. Figures that nothing is to be reached in are left out.
///
/// # Errors
/// `json` holds no run, or the picture cannot be written.
pub fn draw(json: &Path, picture: &Path) -> Result<(), Box<dyn Error>> {
    let text = fs::read_to_string(json).map_err(|error| format!("{}: {error}", json.display()))?;
    let run: Run = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", json.display()))?;
    let lines: Vec<_> = run
        .rows
        .iter()
        .flat_map(|row| row.lines.iter().filter(|line| line.goal().is_some()).map(move |line| (row, line)))
        .map(|(row, line)| (row, line, row.ratios(line)))
        .filter(|(_, _, ratios)| !ratios.is_empty())
        .collect();
    // A name is two lines of text, which may need more room than the bars.
    let height = |ratios: &[_]| (ratios.len() as i32 * BAR).max(32) + GAP;
    let bottom = TOP + lines.iter().map(|(_, _, ratios)| height(ratios)).sum::<i32>();

    let root = SVGBackend::new(picture, (WIDTH, bottom as u32 + 8)).into_drawing_area();
    root.fill(&WHITE)?;
    let workers = run.workers.map_or(String::new(), |workers| format!("{workers} workers each; "));
    let quiet = if run.quiet { "" } else { " Others used the machine during the rows marked *, which judge nothing." };
    write_headings(
        &root,
        "How many times as good as each rival?",
        &[
            &format!("{workers}{}; medians of {} rounds.", run.machine.describe(), run.rounds),
            &format!("Right of 1 is ahead. The mark at the first bar is what is to be reached.{quiet}"),
        ],
    )?;
    for ratio in [1.0 / 16.0, 0.25, 1.0, 4.0, 16.0] {
        let label = if ratio < 1.0 { format!("1/{}", 1.0 / ratio) } else { short(ratio) };
        write(&root, label + " ×", (x(ratio), TOP - 24), 15, FAINT, HPos::Center)?;
        let colour = if ratio == 1.0 { FAINT } else { GRID };
        root.draw(&PathElement::new([(x(ratio), TOP - 12), (x(ratio), bottom)], colour))?;
    }
    let mut y = TOP;
    for (row, line, ratios) in lines {
        draw_line(&root, row, line, &ratios, y)?;
        y += height(&ratios);
    }
    root.present()?;
    Ok(())
}

fn draw_line(root: &Area<'_>, row: &Row, line: &Line, ratios: &[(&str, f64)], y: i32) -> Result<(), Box<dyn Error>> {
    let mark = if row.quiet { "" } else { " *" };
    write(root, format!("{}  {}{mark}", row.number, row.title), (24, y + 8), 15, INK, HPos::Left)?;
    let ours = number(line.places[0].median);
    write(root, format!("{}: {ours} {}", line.title, line.unit), (24, y + 24), 14, FAINT, HPos::Left)?;
    for (place, (rival, ratio)) in ratios.iter().enumerate() {
        let (top, middle, end) = (y + place as i32 * BAR, x(1.0), x(*ratio));
        let colour = match *ratio {
            _ if row.is_baseline(rival) => FAINT,
            ..1.0 => VERMILION,
            _ => BLUE,
        };
        let (from, to) = (middle.min(end), end.max(middle + 1));
        root.draw(&Rectangle::new([(from, top + 2), (to, top + BAR - 1)], colour.filled()))?;
        let goal = line.goal().filter(|_| place == 0).map(x);
        if let Some(goal) = goal {
            root.draw(&PathElement::new([(goal, top), (goal, top + BAR + 1)], INK.stroke_width(2)))?;
        }
        // Its label is beyond the mark, if that is on the same side.
        let (at, side) = match *ratio {
            ..1.0 => (goal.map_or(end, |goal| goal.min(end)) - 5, HPos::Right),
            _ => (goal.map_or(end, |goal| goal.max(end)) + 5, HPos::Left),
        };
        write(root, format!("{rival} {} ×", number(*ratio)), (at, top + BAR / 2 + 1), 13, INK, side)?;
    }
    Ok(())
}
