//! The page: one file with its style, its script and its data.
//!
//! The data is one JSON object. Of a lane's blocks, each field is a list of its own; beginnings and task numbers are given as
//! differences to the ones before, so that they are short.

use executor_core::{WorkerEnd, WorkerKind};
use std::io::{self, Write};

use super::{
    json_string,
    record::{Block, Outcome, Recorded},
    trace,
};

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

pub(super) fn write(recorded: &Recorded, out: &mut dyn Write) -> io::Result<()> {
    let mut rest = PAGE;
    for (mark, content) in [("/*STYLE*/", STYLE), ("/*DATA*/", ""), ("/*SCRIPT*/", SCRIPT)] {
        let (before, after) = rest.split_once(mark).expect("the page has its marks, in this order");
        out.write_all(before.as_bytes())?;
        if content.is_empty() {
            write_data(recorded, out)?;
        }
        out.write_all(content.as_bytes())?;
        rest = after;
    }
    out.write_all(rest.as_bytes())
}

fn write_data(recorded: &Recorded, out: &mut dyn Write) -> io::Result<()> {
    // Functions of one name have one colour, whatever the line that submitted them.
    let mut names: Vec<&str> = Vec::new();
    let mut name_of = Vec::new();
    for (name, _) in &recorded.functions {
        let number = names.iter().position(|known| known == name).unwrap_or_else(|| {
            names.push(name);
            names.len() - 1
        });
        name_of.push(number);
    }
    write!(out, "{{\"names\":[")?;
    list(out, &names, |name| json_string(name))?;
    write!(out, "],\"kinds\":[")?;
    list(out, recorded.functions.iter().zip(&name_of), |((_, site), name)| format!("[{name},{}]", json_string(site)))?;
    write!(out, "],\"errors\":[")?;
    list(out, &recorded.errors, |error| json_string(error))?;
    write!(
        out,
        "],\"waiting\":{},\"cancelled\":{},\"missing\":{},\"lanes\":[",
        recorded.waiting, recorded.cancelled, recorded.missing
    )?;
    for (number, lane) in recorded.lanes.iter().enumerate() {
        let worker = &lane.worker;
        let comma = if number > 0 { "," } else { "" };
        let pid = if worker.kind == WorkerKind::WorkerProcess { worker.pid } else { 0 };
        write!(
            out,
            "{comma}\n{{\"pool\":{},\"name\":{},\"pid\":{pid},\"beside\":{},\"from\":{},",
            json_string(&worker.pool),
            json_string(&worker.name),
            worker.kind == WorkerKind::Caller,
            lane.began
        )?;
        if let Some((at, end)) = &lane.end {
            let died = matches!(end, WorkerEnd::Died { .. });
            write!(out, "\"to\":{at},\"end\":{},\"died\":{died},", json_string(&trace::told(end)))?;
        }
        let blocks = recorded.blocks_of(number);
        fn differences(out: &mut dyn Write, blocks: &[Block], field: fn(&Block) -> u64) -> io::Result<()> {
            let mut before = 0;
            list(out, blocks, |block| {
                let now = field(block).cast_signed();
                (now - std::mem::replace(&mut before, now)).to_string()
            })
        }
        write!(out, "\"began\":[")?;
        differences(out, blocks, |block| block.began)?;
        write!(out, "],\"ran\":[")?;
        list(out, blocks, |block| (block.ended - block.began).to_string())?;
        write!(out, "],\"waited\":[")?;
        list(out, blocks, |block| block.waited.to_string())?;
        write!(out, "],\"task\":[")?;
        differences(out, blocks, |block| block.task)?;
        write!(out, "],\"kind\":[")?;
        list(out, blocks, |block| block.function.to_string())?;
        write!(out, "],\"ended\":[")?;
        // 0: done; 1: running; from 2 on: failed, and from -2 down: failed and made again, with the number of the error.
        list(out, blocks, |block| match block.outcome {
            Outcome::Done => "0".into(),
            Outcome::Running => "1".into(),
            Outcome::Failed => (2 + block.error.unwrap_or_default()).to_string(),
            Outcome::Retried => format!("-{}", 2 + block.error.unwrap_or_default()),
        })?;
        write!(out, "]}}")?;
    }
    write!(out, "]}}")
}

fn list<T>(
    out: &mut dyn Write,
    items: impl IntoIterator<Item = T>,
    mut text: impl FnMut(T) -> String,
) -> io::Result<()> {
    for (place, item) in items.into_iter().enumerate() {
        if place > 0 {
            out.write_all(b",")?;
        }
        out.write_all(text(item).as_bytes())?;
    }
    Ok(())
}
