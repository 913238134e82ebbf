//! What the processors of this very machine are: as this program sees them, and as the example `cpus` does when it is
//! bound to one of them or told otherwise.

use crate::support::example;
use concurrent_futures::{
    Executor, ProcessPoolExecutor, ThreadPoolExecutor,
    cpu::{CPU_COUNT_VARIABLE, CpuCount},
    cpu_count, effective_n_jobs,
};
use std::{
    collections::HashMap,
    fs,
    io::{self, ErrorKind, Write},
    process::Command,
};

/// CPU-01, CPU-03, CPU-04: here too, nothing is more than what limits it.
#[test]
fn this_machine_makes_sense() {
    let cpus = CpuCount::detect();
    assert!(cpus.physical().is_none_or(|cores| cores <= cpus.logical()), "{cpus:?}");
    assert!(cpus.quota().is_none_or(|quota| quota > 0.0), "{cpus:?}");
    assert_eq!(cpus.usable(), cpu_count(), "{cpus:?}");
    assert_eq!(effective_n_jobs(-1), Ok(cpu_count()));
    if cpus.environment().is_none() {
        assert!(cpus.usable() <= cpus.logical(), "{cpus:?}");
        assert!(cpus.affinity().is_none_or(|bound| cpus.usable() <= bound), "{cpus:?}");
    }
}

/// WRK-01: unless told, a pool has a worker for each processor to use.
#[test]
fn pools_have_a_worker_for_each_processor() {
    assert_eq!(ThreadPoolExecutor::builder().build().unwrap().max_workers(), cpu_count());
    assert_eq!(ProcessPoolExecutor::builder().build().unwrap().max_workers(), cpu_count());
}

/// CPU-01, CPU-06, WRK-01: under `taskset`, one processor is usable, whatever the machine has.
#[test]
fn a_process_bound_to_one_processor_uses_one() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
    let first = allowed.split(['-', ',']).next().unwrap();
    let mut command = Command::new("taskset");
    command.args(["-c", first]).arg(example("cpus"));
    let Some(told) = told_by(command) else {
        // Past the harness, which swallows what a passing test prints with `eprintln!`.
        let _ = writeln!(io::stderr(), "\nSKIPPED: tests/cpu.rs: there is no program taskset\n");
        return;
    };
    assert_eq!(told["logical"], CpuCount::detect().logical().to_string());
    for line in ["affinity", "usable", "usable cores", "workers of a thread pool", "workers of a process pool"] {
        assert_eq!(told[line], "1", "{line}: {told:?}");
    }
    let reason =
        if told["logical"] == "1" { "the machine has so many" } else { "this process is bound to so many processors" };
    assert_eq!(told["reason"], reason, "{told:?}");
}

/// CPU-02, WRK-01: the environment overrides what the machine has, also for pools.
#[test]
fn the_environment_overrides_the_machine() {
    let told = |value| {
        let mut command = Command::new(example("cpus"));
        command.env(CPU_COUNT_VARIABLE, value);
        told_by(command).unwrap()
    };
    let seven = told("7");
    for line in ["usable", "workers of a thread pool", "workers of a process pool"] {
        assert_eq!(seven[line], "7", "{line}: {seven:?}");
    }
    assert_eq!(seven["reason"], "CONCURRENT_FUTURES_CPU_COUNT says so");
    assert_eq!(seven["logical"], CpuCount::detect().logical().to_string());
    for line in ["workers of a thread pool", "workers of a process pool"] {
        assert!(told("99999999")[line].parse::<usize>().unwrap() < 99_999_999, "a pool keeps to what it can have");
    }
    let unset = told_by(Command::new(example("cpus"))).unwrap();
    assert_eq!(told("many"), unset);
}

/// What the example prints; `None` when the program is not there.
fn told_by(mut command: Command) -> Option<HashMap<String, String>> {
    if !command.get_envs().any(|(name, _)| name == CPU_COUNT_VARIABLE) {
        command.env_remove(CPU_COUNT_VARIABLE);
    }
    let output = match command.output() {
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        output => output.unwrap(),
    };
    assert!(output.status.success(), "{command:?}: {output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    Some(text.lines().map(|line| line.split_once(": ").unwrap()).map(|(a, b)| (a.to_owned(), b.to_owned())).collect())
}
