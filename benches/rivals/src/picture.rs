//! Pictures of what was measured, drawn from the JSON that a run has left.

pub mod bars;
pub mod panels;

use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};
use std::error::Error;

const WIDTH: u32 = 960;
const INK: RGBColor = RGBColor(0x24, 0x29, 0x2f);
const FAINT: RGBColor = RGBColor(0x6e, 0x77, 0x81);
const GRID: RGBColor = RGBColor(0xe4, 0xe8, 0xec);
const BLUE: RGBColor = RGBColor(0x00, 0x72, 0xb2);
const VERMILION: RGBColor = RGBColor(0xd5, 0x5e, 0x00);
const FONT: &str = "Helvetica, Arial, sans-serif";

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn write(
    area: &Area<'_>,
    text: impl Into<String>,
    at: (i32, i32),
    size: u32,
    colour: RGBColor,
    side: HPos,
) -> Result<(), Box<dyn Error>> {
    let style = (FONT, size).with_color(colour).with_anchor::<RGBColor>(Pos::new(side, VPos::Center));
    area.draw(&Text::new(text.into(), at, style.into_text_style(area)))?;
    Ok(())
}

/// What the picture shows, and under which conditions it was measured.
fn write_headings(area: &Area<'_>, title: &str, conditions: &[&str]) -> Result<(), Box<dyn Error>> {
    write(area, title, (24, 30), 27, INK, HPos::Left)?;
    for (line, text) in conditions.iter().enumerate() {
        write(area, *text, (24, 56 + 20 * line as i32), 16, FAINT, HPos::Left)?;
    }
    Ok(())
}

/// `100`, `10 k`, `3.5 M`.
pub(crate) fn short(number: f64) -> String {
    match number {
        1e6.. => format!("{} M", number / 1e6),
        1e3.. => format!("{} k", number / 1e3),
        _ => number.to_string(),
    }
}
