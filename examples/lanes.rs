//! Who did what when: a lane for each process, in it its tasks, from left to right. First for the loop, then for the pool.
//!
//! `cargo run --example lanes`, or with the name of a file, into which it draws the same as a picture:
//! `cargo run --example lanes -- docs/serial-against-parallel.svg`

use concurrent_futures::{Executor, ProcessPoolExecutor};
use std::{
    collections::BTreeMap,
    env, fs, process,
    thread::sleep,
    time::{Duration, SystemTime},
};

/// What a task has to say: in which process it ran, from when until when, in tenths of a second.
type Block = (u32, f64, f64);

/// A process's tasks, by number.
type Lane = Vec<(usize, f64, f64)>;

fn nap((start, tenths): (SystemTime, u32)) -> Block {
    let now = || start.elapsed().unwrap_or_default().as_secs_f64() * 10.0;
    let began = now();
    sleep(Duration::from_millis(100) * tenths);
    (process::id(), began, now())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let naps = [3, 1, 4, 2];
    let start = SystemTime::now();
    let serial: Vec<Block> = naps.into_iter().map(|tenths| nap((start, tenths))).collect();

    let pool = ProcessPoolExecutor::new(4)?;
    let start = SystemTime::now();
    let parallel: Vec<Block> = pool.map(nap, naps.map(|tenths| (start, tenths))).collect::<Result<_, _>>()?;

    let mut picture = Vec::new();
    for (title, colour, blocks) in [("serial", "#b35c1e", serial), ("parallel", "#2166ac", parallel)] {
        let mut lanes: BTreeMap<u32, Lane> = BTreeMap::new();
        for (task, (process, began, ended)) in (1..).zip(blocks) {
            lanes.entry(process).or_default().push((task, began, ended));
        }
        for lane in lanes.values() {
            let mut line = String::new();
            for (task, began, ended) in lane {
                // Three letters a tenth of a second.
                let begin = (began * 3.0).round() as usize;
                line = format!("{line:<begin$}");
                line += &task.to_string().repeat(((ended - began) * 3.0).round() as usize);
            }
            println!("{title:>8}: {line}");
            picture.push((title, colour, lane.clone()));
        }
    }
    if let Some(file) = env::args().nth(1) {
        fs::write(file, svg(&picture))?;
    }
    Ok(())
}

fn svg(lanes: &[(&str, &str, Lane)]) -> String {
    let height = lanes.len() * 30 + 50;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 720 {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"720\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (row, (title, colour, blocks)) in lanes.iter().enumerate() {
        let y = row * 30 + 10;
        svg += &format!("<text x=\"10\" y=\"{}\">{title}</text>\n", y + 17);
        for (task, began, ended) in blocks {
            let (x, width) = (80.0 + began * 60.0, (ended - began) * 60.0 - 2.0);
            svg += &format!(
                "<rect x=\"{x:.0}\" y=\"{y}\" width=\"{width:.0}\" height=\"24\" rx=\"3\" fill=\"{colour}\"/>\n\
                 <text x=\"{:.0}\" y=\"{}\" fill=\"white\">task {task}</text>\n",
                x + 8.0,
                y + 17
            );
        }
    }
    for tenth in 0..=10 {
        svg += &format!(
            "<text x=\"{}\" y=\"{}\" fill=\"#555\">{:.1} s</text>\n",
            70 + tenth * 60,
            height - 12,
            tenth as f64 / 10.0
        );
    }
    svg + "</svg>\n"
}
