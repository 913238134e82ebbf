//! Chrome's trace format: an array of events, in microseconds. A pool is a process of it, a worker a thread.

use executor_core::{WorkerEnd, WorkerKind};
use std::io::{self, Write};

use super::{
    json_string,
    record::{Outcome, Recorded},
};

pub(super) fn write(recorded: &Recorded, out: &mut dyn Write) -> io::Result<()> {
    let pools = pools(recorded);
    writeln!(out, "{{\"displayTimeUnit\":\"ms\",\"traceEvents\":[")?;
    for (number, pool) in pools.iter().enumerate() {
        let name = json_string(pool);
        writeln!(out, r#"{{"ph":"M","name":"process_name","pid":{number},"args":{{"name":{name}}}}},"#)?;
    }
    for (lane, worker) in recorded.lanes.iter().enumerate() {
        let pool = pools.iter().position(|pool| *pool == &*worker.worker.pool).unwrap_or_default();
        let name = match worker.worker.kind {
            WorkerKind::WorkerProcess => format!("{} (process {})", worker.worker.name, worker.worker.pid),
            _ => worker.worker.name.clone(),
        };
        let name = json_string(&name);
        let place = format!(r#""pid":{pool},"tid":{lane}"#);
        writeln!(out, r#"{{"ph":"M","name":"thread_name",{place},"args":{{"name":{name}}}}},"#)?;
        writeln!(out, r#"{{"ph":"M","name":"thread_sort_index",{place},"args":{{"sort_index":{lane}}}}},"#)?;
        for block in recorded.blocks_of(lane) {
            let (function, site) = &recorded.functions[block.function];
            let (began, ran) = (Micros(block.began), Micros(block.ended - block.began));
            let outcome = match block.outcome {
                Outcome::Done => "done",
                Outcome::Failed => "failed",
                Outcome::Retried => "failed, and was made again",
                Outcome::Running => "running",
            };
            let error = block.error.map(|error| json_string(&recorded.errors[error]));
            write!(
                out,
                r#"{{"ph":"X","cat":"task","name":{},{place},"ts":{began},"dur":{ran},"args":{{"task":{},"submitted at":{},"waited (µs)":{},"ran (µs)":{ran},"outcome":"{outcome}""#,
                json_string(function),
                block.task,
                json_string(site),
                Micros(block.waited),
            )?;
            if let Some(error) = &error {
                write!(out, r#","error":{error}"#)?;
            }
            writeln!(out, "}}}},")?;
            if let Some(error) = error {
                let at = Micros(block.ended);
                writeln!(
                    out,
                    r#"{{"ph":"i","s":"t","cat":"failure","name":"task failed",{place},"ts":{at},"args":{{"error":{error}}}}},"#
                )?;
            }
        }
        if let Some((at, end)) = &worker.end {
            let (at, how) = (Micros(*at), json_string(&told(end)));
            let scope = if matches!(end, WorkerEnd::Died { .. }) { "p" } else { "t" };
            writeln!(out, r#"{{"ph":"i","s":"{scope}","cat":"worker","name":{how},{place},"ts":{at}}},"#)?;
        }
    }
    // The format has no comma behind the last event.
    let (waiting, cancelled, missing) = (recorded.waiting, recorded.cancelled, recorded.missing);
    writeln!(
        out,
        r#"{{"ph":"M","name":"process_labels","pid":0,"args":{{"labels":"{cancelled} cancelled, {waiting} waiting, {missing} events missing"}}}}"#
    )?;
    writeln!(out, "]}}")
}

/// The pools' names, in the order in which their first workers came.
pub(super) fn pools(recorded: &Recorded) -> Vec<&str> {
    let mut pools: Vec<&str> = Vec::new();
    for lane in &recorded.lanes {
        if !pools.contains(&&*lane.worker.pool) {
            pools.push(&lane.worker.pool);
        }
    }
    pools
}

/// What is said of a worker's end.
pub(super) fn told(end: &WorkerEnd) -> String {
    match end {
        WorkerEnd::Left => "worker left".into(),
        WorkerEnd::Recycled => "worker replaced".into(),
        WorkerEnd::Stopped => "worker stopped, for its call".into(),
        WorkerEnd::Died { how } => format!("worker died: it {how}"),
        _ => "worker ended".into(),
    }
}

/// Nanoseconds, as microseconds.
struct Micros(u64);

impl std::fmt::Display for Micros {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}
