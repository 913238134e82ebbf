//! Java's `ForkJoinPool`, where there is a `java`: a program of another language, told a job a line, answering with a line.

use rivals::contest::{Contestant, Sample};
use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use crate::{job::Job, workers::workers};

pub(crate) struct ForkJoinPool(Option<Running>);

struct Running {
    process: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl ForkJoinPool {
    pub(crate) fn new() -> Self {
        ForkJoinPool(None)
    }

    fn start(&mut self) -> Result<(), String> {
        // Run as a source file, it needs no compiler beside it and leaves nothing behind.
        let mut command = Command::new("java");
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/threads/Rival.java")).arg(workers().to_string());
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut process = started.map_err(|error| format!("java cannot be started: {error}"))?;
        let (to, from) = (process.stdin.take(), process.stdout.take());
        let (Some(to), Some(from)) = (to, from) else { return Err("there are no pipes".into()) };
        self.0 = Some(Running { process, to, from: BufReader::new(from) });
        self.ask("hello 0").map(drop)
    }

    fn ask(&mut self, line: &str) -> Result<String, String> {
        let Some(running) = &mut self.0 else { return Err("it is not running".into()) };
        writeln!(running.to, "{line}").map_err(|error| error.to_string())?;
        let mut answer = String::new();
        running.from.read_line(&mut answer).map_err(|error| error.to_string())?;
        if answer.is_empty() { Err("it has ended".into()) } else { Ok(answer) }
    }
}

impl Contestant<Job> for ForkJoinPool {
    fn name(&self) -> &'static str {
        "ForkJoinPool"
    }

    /// Started only once: what it has compiled stays.
    fn missing(&mut self) -> Option<String> {
        self.start().err()
    }

    fn open(&mut self) -> Result<(), String> {
        Ok(())
    }

    fn measure(&mut self, job: &Job) -> Result<Sample, String> {
        let line = match job {
            Job::Submit { n } => format!("submit {n}"),
            Job::Window { n, outstanding } => format!("window {n} {outstanding}"),
            Job::Contended { n, submitters } => format!("contended {n} {submitters}"),
            Job::OneByOne { n, idle_us } => format!("one_by_one {n} {idle_us}"),
            Job::Tree { depth } => format!("tree {depth}"),
            Job::Awaited { depth } => format!("awaited {depth}"),
            Job::Fib { n } => format!("fib {n}"),
            Job::Squares { n } => format!("squares {n}"),
            Job::Completion { n } => format!("completion {n}"),
            other => return Err(format!("{other:?} is not for it")),
        };
        let answer = self.ask(&line)?;
        serde_json::from_str(&answer).map_err(|error| format!("{answer:?}: {error}"))
    }

    fn close(&mut self) {}
}

impl Drop for ForkJoinPool {
    fn drop(&mut self) {
        if let Some(Running { mut process, to, .. }) = self.0.take() {
            drop(to); // it ends at the end of its input
            let _ = process.wait();
        }
    }
}
