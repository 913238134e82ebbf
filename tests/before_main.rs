//! Faults before `main`, in worker processes only: the one moment of a worker's life at which no call of a test runs.
//!
//! A worker is this test program, started again with its name in the environment. The entry below comes before the pool's own,
//! and acts on names that begin with [`PREFIX`], which only `fault_matrix` gives to workers.

#![expect(unsafe_code, reason = "an entry before main cannot be had otherwise")]

use crate::{
    fault_matrix::{Fault, Stage, spring},
    support::append,
};
use std::{env, process};

const PREFIX: &str = "before-hello|";

#[used]
// SAFETY: the dynamic loader calls each entry of this section once, as a C function, before `main`, those with a number before
// those without. `enter` is one, takes no arguments (what it is passed is ignored by the calling convention), and aborts
// rather than unwinds.
#[unsafe(link_section = ".init_array.00999")]
static BEFORE_MAIN: extern "C" fn() = enter;

/// A prefix for the names of a pool's workers that has some of them fail as they start, by their number, or all. Each first
/// notes its process in the log.
pub(crate) fn name_prefix(log: &str, faults: &[(Option<usize>, Fault)]) -> String {
    let faults = faults.iter().map(|(worker, fault)| match worker {
        Some(worker) => format!("{worker}={fault:?}"),
        None => format!("*={fault:?}"),
    });
    format!("{PREFIX}{log}|{}|", faults.collect::<Vec<_>>().join(","))
}

extern "C" fn enter() {
    let Some(name) = env::var("CONCURRENT_FUTURES_WORKER").ok() else { return };
    let Some(planted) = name.strip_prefix(PREFIX) else { return };
    let (log, planted) = planted.split_once('|').expect("a log");
    let (faults, worker) = planted.split_once("|-").expect("faults");
    for (which, fault) in faults.split(',').filter_map(|fault| fault.split_once('=')) {
        if which == "*" || which == worker {
            append(log, &format!("here {}", process::id()));
            let fault = Fault::ALL.into_iter().find(|known| format!("{known:?}") == fault).expect("a fault");
            spring(fault, Stage::BeforeHello);
        }
    }
}
