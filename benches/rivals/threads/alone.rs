//! Jobs that are done in a process of their own: with a fresh heap, with no other pool, or under callgrind.

use rivals::contest::{Contestant, Job as _, Sample};
use serde::{Deserialize, Serialize};
use std::{
    env,
    process::{Command, Stdio},
};

use crate::job::Job;

const VARIABLE: &str = "RIVALS_ALONE";

/// What such a process is told.
#[derive(Serialize, Deserialize)]
struct Errand {
    contestant: String,
    job: Job,
    workers: usize,
}

fn command(mut program: Command, contestant: &str, job: &Job, workers: usize) -> Result<Command, String> {
    let errand = Errand { contestant: contestant.into(), job: job.clone(), workers };
    program.env(VARIABLE, serde_json::to_string(&errand).map_err(|error| error.to_string())?);
    program.stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(program)
}

fn output(mut command: Command) -> Result<(String, String), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    if output.status.success() { Ok((stdout, stderr)) } else { Err(format!("{}: {stderr}", output.status)) }
}

fn this_program() -> Result<std::path::PathBuf, String> {
    env::current_exe().map_err(|error| error.to_string())
}

pub(crate) fn sample(contestant: &str, job: &Job, workers: usize) -> Result<Sample, String> {
    let (answer, _) = output(command(Command::new(this_program()?), contestant, job, workers)?)?;
    serde_json::from_str(&answer).map_err(|error| format!("{answer:?}: {error}"))
}

/// Whether instructions can be counted here.
pub(crate) fn has_callgrind() -> bool {
    Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// How many instructions the larger job takes more than the smaller one, divided by `by`. Callgrind runs one thread at a time,
/// so waiting differs from what it is otherwise.
pub(crate) fn instructions(contestant: &str, few: &Job, many: &Job, by: u64) -> Result<Sample, String> {
    let count = |job: &Job| {
        let mut valgrind = Command::new("valgrind");
        valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(this_program()?);
        let (_, said) = output(command(valgrind, contestant, job, 1)?)?;
        let collected = said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse::<u64>().ok());
        collected.ok_or_else(|| format!("callgrind did not say what it counted: {said}"))
    };
    let instructions = count(many)?.saturating_sub(count(few)?) as f64 / by as f64;
    Ok(Sample::new(0.0, [("instructions", instructions)], many.expected()))
}

/// Does the job that this process was started for. `None`: it was started by a user.
pub(crate) fn run(contestants: impl FnOnce() -> Vec<Box<dyn Contestant<Job>>>) -> Option<Result<(), String>> {
    let errand: Errand = serde_json::from_str(&env::var(VARIABLE).ok()?).ok()?;
    let mut contestants = contestants();
    let contestant = contestants.iter_mut().find(|contestant| contestant.name() == errand.contestant)?;
    let measured = contestant.open().and_then(|()| contestant.measure(&errand.job));
    let told = measured.and_then(|sample| {
        let told = serde_json::json!({
            "seconds": sample.seconds,
            "figures": sample.figures,
            "check": sample.check,
        });
        if sample.check == errand.job.expected() { Ok(told) } else { Err(format!("{told} is wrong")) }
    });
    Some(told.map(|told| println!("{told}")))
}

/// As many as this process was told to use.
pub(crate) fn workers() -> Option<usize> {
    let errand: Errand = serde_json::from_str(&env::var(VARIABLE).ok()?).ok()?;
    Some(errand.workers)
}
