//! Curves as a picture: a panel for each, in which both axes are logarithmic, so that what is linear in all is level a task.

use plotters::{prelude::*, style::text_anchor::HPos};
use std::{error::Error, path::Path};

use super::{Area, BLUE, FAINT, FONT, GRID, INK, VERMILION, WIDTH, short, write, write_headings};
use crate::curves::{Growth, Measured};

const TOP: u32 = 80;
const PANEL: u32 = 330;

/// From Okabe and Ito's palette, which readers of any colour vision can tell apart.
fn colour(contestant: &str) -> RGBColor {
    match contestant {
        "ours" => BLUE,
        "rayon" => RGBColor(0x00, 0x9e, 0x73),
        "tokio" => RGBColor(0xe6, 0x9f, 0x00),
        "crossbeam-channel" => RGBColor(0xcc, 0x79, 0xa7),
        "threadpool" => RGBColor(0x56, 0xb4, 0xe9),
        "executors" => VERMILION,
        "loop" => FAINT,
        "chili" => RGBColor(0x8b, 0x5a, 0x2b),
        _ => INK,
    }
}

/// Draws all curves.
///
/// # Errors
/// The picture cannot be written.
pub fn draw(growth: &Growth, picture: &Path) -> Result<(), Box<dyn Error>> {
    let rows = growth.curves.len().div_ceil(2);
    let root = SVGBackend::new(picture, (WIDTH, TOP + rows as u32 * PANEL)).into_drawing_area();
    root.fill(&WHITE)?;
    let quiet = if growth.quiet { "" } else { ". Others used the machine" };
    let (workers, rounds) = (growth.workers, growth.rounds);
    write_headings(
        &root,
        "What becomes of the cost as there is more?",
        &[&format!("{workers} workers; {}; medians of {rounds} rounds{quiet}", growth.machine.describe())],
    )?;
    let (_, below) = root.split_vertically(TOP);
    let panels = below.split_evenly((rows, 2));
    growth.curves.iter().zip(&panels).try_for_each(|(curve, panel)| draw_panel(curve, panel))?;
    root.present()?;
    Ok(())
}

fn draw_panel(curve: &Measured, panel: &Area<'_>) -> Result<(), Box<dyn Error>> {
    let points: Vec<_> = curve.lines.iter().flat_map(|line| &line.points).collect();
    let limit = curve.limit();
    let all =
        || points.iter().map(|point| point.median).chain(limit.as_ref().map(|limit| limit.figure)).filter(|y| *y > 0.0);
    let (lowest, highest) = (all().fold(f64::INFINITY, f64::min), all().fold(0.0, f64::max));
    let Some(first) = curve.lines.first().filter(|_| highest > 0.0) else { return Ok(()) };
    let at: Vec<_> = first.points.iter().map(|point| point.at as f64).collect();
    write(panel, format!("{}, {}", curve.title, curve.unit), (24, 14), 17, INK, HPos::Left)?;

    // Above all lines is room for the legend, which takes about such a share of the height.
    let legend = (0.07 * (curve.lines.len() as f64 + 1.5)).min(0.6);
    let (bottom, highest) = (lowest / 1.4, highest * 1.2);
    let top = highest * (highest / bottom).powf(legend / (1.0 - legend));
    let mut chart = ChartBuilder::on(panel)
        .margin(8)
        .margin_top(28)
        .margin_right(24)
        .x_label_area_size(44)
        .y_label_area_size(60)
        .build_cartesian_2d(
            (at[0] / 1.25..at[at.len() - 1] * 1.25).log_scale().with_key_points(at),
            (bottom..top).log_scale().with_key_points(ticks(bottom, top)),
        )?;
    chart
        .configure_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(FAINT)
        .x_desc(&curve.along)
        .x_label_formatter(&|x| short(*x))
        .y_label_formatter(&|y| short(*y))
        .label_style((FONT, 15, &INK))
        .axis_desc_style((FONT, 16, &INK))
        .draw()?;
    if let Some(limit) = limit {
        let line = [limit.from, limit.last].map(|point| (point.at as f64, limit.figure));
        chart
            .draw_series(DashedLineSeries::new(line, 5, 5, BLUE.stroke_width(1)))?
            .label("the limit of ours")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 10, y)], BLUE.stroke_width(1)));
    }
    // What is judged is drawn over the others.
    for line in curve.lines.iter().rev() {
        let (colour, width) = (
            colour(&line.contestant),
            if curve.judged().is_some_and(|ours| ours.contestant == line.contestant) { 3 } else { 2 },
        );
        let points: Vec<_> = line.points.iter().map(|point| (point.at as f64, point.median)).collect();
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(width)).point_size(3))?
            .label(&line.contestant)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(width)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .margin(4)
        .legend_area_size(26)
        .label_font((FONT, 14, &INK))
        .background_style(WHITE.mix(0.8))
        .border_style(GRID)
        .draw()?;
    Ok(())
}

/// 1, 2 and 5 times each power of ten in between.
fn ticks(bottom: f64, top: f64) -> Vec<f64> {
    let powers = bottom.log10().floor() as i32..=top.log10().ceil() as i32;
    let ticks = powers.flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power)));
    ticks.filter(|tick| (bottom..=top).contains(tick)).collect()
}
