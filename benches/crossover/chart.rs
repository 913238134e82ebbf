//! What was measured, as a picture: speed-up against the cost of a call.

use plotters::{
    coord::Shift,
    element::DashedPathElement,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};
use std::{error::Error, path::Path};

use crate::{
    Contestant,
    report::{Crossover, Report, duration},
};

const SIZE: (u32, u32) = (960, 560);
const INK: RGBColor = RGBColor(0x24, 0x29, 0x2f);
const FAINT: RGBColor = RGBColor(0x6e, 0x77, 0x81);
const GRID: RGBColor = RGBColor(0xe4, 0xe8, 0xec);
const FONT: &str = "Helvetica, Arial, sans-serif";

/// A hue for each backend, from Okabe and Ito's palette, which readers of any colour vision can tell apart.
fn colour(contestant: Contestant) -> RGBColor {
    match contestant {
        Contestant::Serial => FAINT,
        Contestant::ThreadSubmit | Contestant::ThreadMap => RGBColor(0x00, 0x72, 0xb2),
        Contestant::ProcessSubmit | Contestant::ProcessMap => RGBColor(0xd5, 0x5e, 0x00),
        Contestant::Rayon => RGBColor(0x00, 0x9e, 0x73),
    }
}

/// Dashed and hollow is call by call.
fn is_dashed(contestant: Contestant) -> bool {
    matches!(contestant, Contestant::ThreadSubmit | Contestant::ProcessSubmit)
}

pub(crate) fn draw(report: &Report, path: &Path) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    draw_headings(report, &root)?;

    let costs: Vec<f64> = report.points.iter().map(|point| point.cost_us).collect();
    let (cheapest, dearest) = (costs[0], costs[costs.len() - 1]);
    let mut chart = ChartBuilder::on(&root)
        .margin(16)
        .margin_top(76)
        .margin_right(28)
        .x_label_area_size(56)
        .y_label_area_size(64)
        .build_cartesian_2d(
            (cheapest / 1.25..dearest * 1.25).log_scale().with_key_points(costs.clone()),
            0.0..report.workers as f64 + 0.2,
        )?;
    chart
        .configure_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(FAINT)
        .y_labels(6)
        .x_desc("CPU time of one call")
        .y_desc("speed-up over a serial loop")
        .x_label_formatter(&|us| duration(*us))
        .y_label_formatter(&|speedup| format!("{speedup:.1}×"))
        .label_style((FONT, 17, &INK))
        .axis_desc_style((FONT, 19, &INK))
        .draw()?;

    // The later is drawn over the earlier. The loop is its own rival: its line is 1 everywhere.
    for contestant in Contestant::ALL {
        let colour = colour(contestant);
        if contestant == Contestant::Serial {
            let line = [(cheapest / 1.25, 1.0), (dearest * 1.25, 1.0)];
            chart
                .draw_series([PathElement::new(line, colour.stroke_width(2))])?
                .label(label(report, contestant))
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 36, y)], colour.stroke_width(2)));
            continue;
        }
        let line: Vec<_> = report.points.iter().map(|point| (point.cost_us, point.speedup(contestant))).collect();
        let (dash, gap, fill) = if is_dashed(contestant) { (7, 5, WHITE) } else { (1_000, 0, colour) };
        let dot = move |at| {
            EmptyElement::at(at)
                + Circle::new((0, 0), 5, fill.filled())
                + Circle::new((0, 0), 5, colour.stroke_width(2))
        };
        chart.draw_series(DashedLineSeries::new(line.clone(), dash, gap, colour.stroke_width(3)))?;
        chart.draw_series(line.into_iter().map(dot))?.label(label(report, contestant)).legend(move |(x, y)| {
            EmptyElement::at((x, y))
                + DashedPathElement::new([(0, 0), (36, 0)], dash, gap, colour.stroke_width(3))
                + Circle::new((18, 0), 5, fill.filled())
                + Circle::new((18, 0), 5, colour.stroke_width(2))
        });
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .margin(14)
        .legend_area_size(48)
        .label_font((FONT, 17, &INK))
        .background_style(WHITE)
        .border_style(GRID)
        .draw()?;
    root.present()?;
    Ok(())
}

fn draw_headings(report: &Report, root: &DrawingArea<SVGBackend<'_>, Shift>) -> Result<(), Box<dyn Error>> {
    let top_left = Pos::new(HPos::Left, VPos::Top);
    let title = (FONT, 27).with_color(INK).with_anchor::<RGBColor>(top_left).into_text_style(root);
    let conditions = (FONT, 17).with_color(FAINT).with_anchor::<RGBColor>(top_left).into_text_style(root);
    root.draw(&Text::new("Where does each backend start to pay?", (24, 18), title))?;
    let (workers, rounds, machine) = (report.workers, report.rounds, report.machine.describe());
    let text = format!("{workers} workers; {machine}; medians of {rounds} rounds");
    root.draw(&Text::new(text, (24, 50), conditions))?;
    Ok(())
}

fn label(report: &Report, contestant: Contestant) -> String {
    let name = contestant.name();
    match report.crossovers.get(&contestant) {
        None => format!("{name} loop"),
        Some(Crossover::Below(us)) => format!("{name}: pays below {}", duration(*us)),
        Some(Crossover::At(us)) => format!("{name}: pays from {}", duration(*us)),
        Some(Crossover::Above(us)) => format!("{name}: not up to {}", duration(*us)),
    }
}
