//! Pools of other languages: a script each, which is told a job a line and answers with a line, both JSON.

use rivals::contest::{Contestant, Sample};
use serde::Deserialize;
use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use crate::{WORKERS, job::Job};

pub(crate) struct Script {
    name: &'static str,
    program: &'static str,
    /// The script, and what it needs to know.
    arguments: [&'static str; 2],
    running: Option<Running>,
}

struct Running {
    process: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Done,
    Sample(Sample),
    Failed(String),
}

impl Script {
    pub(crate) fn python(name: &'static str, kind: &'static str) -> Self {
        let arguments = [concat!(env!("CARGO_MANIFEST_DIR"), "/processes/script.py"), kind];
        Script { name, program: "python3", arguments, running: None }
    }

    pub(crate) fn node(name: &'static str) -> Self {
        let arguments = [concat!(env!("CARGO_MANIFEST_DIR"), "/processes/script.cjs"), name];
        Script { name, program: "node", arguments, running: None }
    }

    fn start(&mut self) -> Result<(), String> {
        let mut command = Command::new(self.program);
        command.args(self.arguments).arg(WORKERS.to_string());
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process = started.map_err(|error| format!("{} cannot be started: {error}", self.program))?;
        let (to, from) = (process.stdin.take(), process.stdout.take());
        let (Some(to), Some(from)) = (to, from) else { return Err("there are no pipes".into()) };
        self.running = Some(Running { process, to, from: BufReader::new(from) });
        self.answer().map(drop)
    }

    fn answer(&mut self) -> Result<Option<Sample>, String> {
        let Some(running) = &mut self.running else { return Err("it is not running".into()) };
        let mut line = String::new();
        running.from.read_line(&mut line).map_err(|error| error.to_string())?;
        if line.is_empty() {
            return Err("it has ended".into());
        }
        match serde_json::from_str(&line).map_err(|error| format!("{line:?}: {error}"))? {
            Answer::Done => Ok(None),
            Answer::Sample(sample) => Ok(Some(sample)),
            Answer::Failed(why) => Err(why),
        }
    }

    fn tell(&mut self, line: &str) -> Result<Option<Sample>, String> {
        let Some(running) = &mut self.running else { return Err("it is not running".into()) };
        writeln!(running.to, "{line}").map_err(|error| error.to_string())?;
        self.answer()
    }
}

impl Contestant<Job> for Script {
    fn name(&self) -> &'static str {
        self.name
    }

    /// Its interpreter is started only once, so that its start is in no figure.
    fn missing(&mut self) -> Option<String> {
        self.start().err()
    }

    fn open(&mut self) -> Result<(), String> {
        self.tell(r#"{"job": "open"}"#).map(drop)
    }

    fn measure(&mut self, job: &Job) -> Result<Sample, String> {
        let job = serde_json::to_string(job).map_err(|error| error.to_string())?;
        self.tell(&job)?.ok_or_else(|| "it has measured nothing".into())
    }

    fn close(&mut self) {
        // If it cannot, the next job will say so.
        let _ = self.tell(r#"{"job": "close"}"#);
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        if let Some(Running { mut process, to, .. }) = self.running.take() {
            drop(to); // it ends at the end of its input
            let _ = process.wait();
        }
    }
}
