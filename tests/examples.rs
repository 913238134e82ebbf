//! Examples that no other test runs, as a user runs them.

use crate::support::{eventually, example, interrupts_are_ignored, runs};
use rustix::{
    fs::{OFlags, fcntl_setfl},
    process::{Pid, Signal, kill_process_group},
};
use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    iter,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

/// The processes that a process has started and not yet taken note of.
fn children(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let listed = fs::read_to_string(thread.unwrap().path().join("children")).unwrap_or_default();
        found.extend(listed.split_whitespace().map(|child| child.parse::<u32>().unwrap()));
    }
    found
}

/// AIO-12, in the tutorials' form. How long it takes at most is the machine's affair; that it cannot take less than the
/// longest fetch is ours.
#[test]
fn gather_prints_results_in_order() {
    for arguments in [&[][..], &["--processes"]] {
        let output = Command::new(example("gather")).args(arguments).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        let (fetched, together) = said.trim_end().rsplit_once('\n').unwrap();
        let expected = ["home took 2", "news took 5", "about took 1"].map(|line| format!("{line} tenths of a second"));
        assert_eq!(fetched, expected.join("\n"));
        let tenths: f64 = together.strip_prefix("together ").unwrap().strip_suffix(" tenths").unwrap().parse().unwrap();
        assert!(tenths >= 5.0, "{together}");
    }
}

/// PROC-03, PROC-04, in the tutorials' form. That it is a mistake to join in the loop can be seen from how long that takes at least.
#[test]
fn processes_by_hand_are_named_and_joined() {
    let output = Command::new(example("processes_by_hand")).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    for worker in ["worker", "late"] {
        for rank in 1..=3 {
            assert!(said.contains(&format!("{worker}-{rank} has worked for MainProcess\n")), "{said}");
        }
    }
    assert!(said.contains("worker-3 has ended with Some(0)\ntogether: "), "{said}");
    let (_, tenths) = said.trim_end().rsplit_once("one after the other: ").unwrap();
    assert!(tenths.strip_suffix(" tenths").unwrap().parse::<f64>().unwrap() >= 6.0, "{said}");
}

/// THR-04, THR-07, in the tutorials' form. The mistake is as that of the processes.
#[test]
fn threads_by_hand_are_named_and_joined() {
    let said = said_by("threads_by_hand");
    for worker in ["worker", "late"] {
        for rank in 1..=3 {
            assert!(said.contains(&format!("{worker}-{rank} has worked\n")), "{said}");
        }
    }
    assert!(said.lines().any(|line| line == "MainThread has started 3"), "{said}");
    let gave: Vec<_> = said.lines().filter(|line| line.contains(" gave ")).collect();
    assert_eq!(gave, ["worker-1 gave 1", "worker-2 gave 4", "worker-3 gave 9"]);
    let (_, tenths) = said.trim_end().rsplit_once("one after the other: ").unwrap();
    assert!(tenths.strip_suffix(" tenths").unwrap().parse::<f64>().unwrap() >= 6.0, "{said}");
}

/// POOL-01, POOL-02, AR-01, AR-03, in the tutorials' form. A panic's message is on standard error.
#[test]
fn pool_apply_prints_results_in_order() {
    let output = Command::new(example("pool_apply")).output().unwrap();
    assert!(output.status.success() && !output.stderr.is_empty(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let cubes: String = (1..7_u32).map(|x| format!("apply_async: {}\n", x.pow(3))).collect();
    let ready = "ready: true, successful: Some(true)\n";
    let failed = "error_callback: attempt to divide by zero\nready: true, successful: Some(false)\n";
    // It takes a nap, through which a busy machine may sleep.
    let expected = ["ready: false, successful: None\n", ready]
        .map(|before| format!("apply: 27\n{cubes}{before}{ready}get: 3\n{failed}"));
    assert!(expected.contains(&said), "{said}");
}

/// POOL-19 [processes]: though a pool that is dropped is terminated, a program that ends then has printed what its workers wrote. Here its
/// standard error takes nothing for a while.
#[test]
fn what_workers_wrote_outlasts_a_dropped_pool() {
    let (mut heard, stderr) = io::pipe().unwrap();
    fcntl_setfl(&stderr, OFlags::NONBLOCK).unwrap();
    let filled: usize = iter::from_fn(|| (&stderr).write(&[b'.'; 4096]).ok()).sum();
    fcntl_setfl(&stderr, OFlags::empty()).unwrap();
    let mut child = Command::new(example("pool_apply")).stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
    let said = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(said.into_iter().any(|line| line == "ready: true, successful: Some(false)"));
    // Long enough for one that does not wait to be gone.
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(300) && child.try_wait().unwrap().is_none() {
        sleep(Duration::from_millis(10));
    }
    let mut bytes = Vec::new();
    heard.read_to_end(&mut bytes).unwrap();
    let words = String::from_utf8_lossy(&bytes[filled..]);
    assert!(words.contains("attempt to divide by zero"), "{words}");
    assert!(child.wait().unwrap().success());
}

/// POOL-03, POOL-06, POOL-11, POOL-13, in the tutorials' form.
#[test]
fn pool_map_prints_cubes() {
    let cubes = "[1, 8, 27, 64, 125, 216]";
    let each: String = (1..7_u32).map(|x| format!("imap: {}\n", x.pow(3))).collect();
    let maps = format!("map: {cubes}\nmap in chunks of 2: {cubes}\nmap_async: {cubes}\n{each}");
    let rest = "starmap: [32, 9, 1000]\nseveral arguments: [5, 26]\n";
    assert_eq!(said_by("pool_map"), format!("{maps}imap_unordered, sorted: {cubes}\n{rest}"));
}

/// POOL-16, POOL-17, POOL-18, POOL-19 [processes], in the tutorials' form.
#[test]
fn pool_close_ends_pools_in_each_way() {
    let said = said_by("pool_close");
    let lines: Vec<_> = said.lines().collect();
    assert!(lines[0].starts_with("closed: the executor was already shut down (task "), "{said}");
    let rest = ["joined: 4 of 4 are ready", "after the scope: 2 of 2 are ready"];
    assert_eq!(lines[1..3], rest);
    assert!(lines[3].starts_with("running: killed on request, with worker process "), "{said}");
    assert!(lines[4].starts_with("waiting: cancelled before it began "), "{said}");
    assert!(lines[5].starts_with("dropped: cancelled ") || lines[5].starts_with("dropped: killed "), "{said}");
}

/// What an example prints, that has nothing to complain of.
fn said_by(name: &str) -> String {
    let output = Command::new(example(name)).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// QUE-10, in the tutorials' form: results with their rank, of processes that are joined before they are taken.
#[test]
fn a_queue_of_results_is_sorted_by_rank() {
    let output = Command::new(example("queue_of_results")).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let expected = (0..4).map(|rank: u64| {
        let last = ((1 << 18) - 1 + rank).pow(2);
        format!("rank {rank}: 262144 squares, the last one {last}\n")
    });
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected.collect::<String>());
}

/// JOB-30, and the rest of joblib's tutorial: what the example says, in its order.
#[test]
fn joblib_is_as_in_its_tutorial() {
    let output = Command::new(example("joblib")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let (lines, told): (Vec<_>, Vec<_>) = said.lines().partition(|line| line.starts_with("[Parallel(n_jobs=2)]: "));
    assert_eq!(
        told,
        [
            "roots: [0.0, 1.0, 2.0, 3.0, 4.0], as the loop has them: true",
            "slept 8 times on threads: [0, 1, 4, 9, 16, 25, 36, 49]",
            "the first three of an endless loop: [1, 4, 9]",
            "nap 1: well slept",
            "nap 2: took too long, and was stopped",
            "nap 3: well slept",
            "lengths: [1, 3, 5]",
            "sums of halves: [250000.0, 250000.0]",
            "sorted in place: [[1, 2, 3], [4, 5, 6]]",
        ]
    );
    assert!(lines[0].ends_with("Using backend process with 2 concurrent workers."), "{lines:?}");
    assert!(lines.last().unwrap().contains("Done 4 out of 4 | elapsed: ") && said.contains(" finished\n"), "{lines:?}");
}

/// Where nobody looks, no bar is drawn.
#[test]
fn progress_is_silent_without_a_terminal() {
    let output = Command::new(example("progress")).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let expected = "map: 8 of 200 failed\nas_completed: 96 of 100 succeeded\nParallel: 4 of 100 failed\n\
                    the first to fail was seen\n";
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

/// SHD-16, RES-18: Ctrl-C in the middle of a map. Nothing is lost, nobody is left, and the prompt is back at once: in
/// the best of some tries in less than 200 ms, since another program may have the processors in any one of them.
#[test]
fn an_interrupt_ends_everything_at_once() {
    for arguments in [&[][..], &["--threads"]] {
        let fastest = (0..20).map(|_| interrupted("interrupt", arguments)).find(|took| *took < PROMPT);
        assert!(fastest.is_some(), "never in less than {PROMPT:?}: {arguments:?}");
    }
}

/// SHD-20: a program that does nothing about it is ended by the signal, and its workers with it.
#[test]
fn an_interrupt_that_nobody_handles_leaves_no_worker() {
    if interrupts_are_ignored() {
        return;
    }
    let mut program = Command::new(example("interrupt"));
    let mut program = program.arg("--unhandled").process_group(0).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("press Ctrl-C"));
    eventually("its workers are there", || children(program.id()).len() == 4);
    let workers = children(program.id());
    kill_process_group(Pid::from_child(&program), Signal::INT).unwrap();
    assert_eq!(program.wait().unwrap().signal(), Some(Signal::INT.as_raw()));
    for worker in workers {
        eventually("its workers have ended", || !runs(worker));
    }
}

const PROMPT: Duration = Duration::from_millis(200);

/// Runs an example, presses Ctrl-C, and says how long it took to end.
fn interrupted(name: &str, arguments: &[&str]) -> Duration {
    let mut program = Command::new(example(name));
    let mut program = program.args(arguments).process_group(0).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("press Ctrl-C"));
    let expected = if arguments.is_empty() { 4 } else { 0 };
    eventually("its workers are there", || children(program.id()).len() == expected);
    let workers = children(program.id());
    let pressed = Instant::now();
    // To the foreground group, as a terminal does.
    kill_process_group(Pid::from_child(&program), Signal::INT).unwrap();
    let status = program.wait().unwrap();
    let took = pressed.elapsed();
    assert!(status.success(), "{status}");
    let said = lines.next().unwrap().unwrap();
    assert!(said.starts_with("interrupted after") && said.contains("; 0 of 2 calls"), "{said}");
    for worker in workers {
        eventually("its workers have ended", || !runs(worker));
    }
    took
}
