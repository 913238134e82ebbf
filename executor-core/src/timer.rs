//! What is to be done at some time: for time limits of calls in this process, and for pauses between attempts.
//!
//! One thread for the whole process, which starts with the first use, sleeps until the next entry is due, and does it.

use std::{
    collections::BTreeMap,
    io, process,
    time::{Duration, Instant},
};

use crate::sync::{Condvar, Mutex, thread};

/// What is done must not block, nor run user code.
type Deed = Box<dyn FnOnce() + Send>;

static TIMER: Timer =
    Timer { plan: Mutex::new(Plan { entries: BTreeMap::new(), next: 0, running: false }), changed: Condvar::new() };

struct Timer {
    plan: Mutex<Plan>,
    changed: Condvar,
}

struct Plan {
    entries: BTreeMap<(Instant, u64), Deed>,
    next: u64,
    running: bool,
}

/// An entry, which is withdrawn with this value.
#[derive(Debug)]
#[must_use = "dropping it withdraws the entry"]
pub struct Entry((Instant, u64));

/// Plans `deed`, which must neither block nor run user code, for `at`.
///
/// # Errors
/// When the timer's thread cannot be started.
pub fn at(at: Instant, deed: impl FnOnce() + Send + 'static) -> io::Result<Entry> {
    let mut plan = TIMER.plan.lock();
    if !plan.running {
        thread::Builder::new().name("executor-timer".into()).spawn(run)?;
        plan.running = true;
    }
    let key = (at, plan.next);
    plan.next += 1;
    let first = plan.entries.first_key_value().is_none_or(|(earliest, _)| key < *earliest);
    plan.entries.insert(key, Box::new(deed));
    drop(plan);
    if first {
        // WAKES: the timer's thread in `run`, which waits until an entry that is no longer the first. The plan was changed
        // under the lock that it holds from its look until it waits.
        TIMER.changed.notify_one();
    }
    Ok(Entry(key))
}

/// How often who waits for pauses to end looks whether somebody has cancelled what pauses.
pub const GLANCE: Duration = Duration::from_millis(20);

/// When `limit` from now is, or a time that nobody lives to see.
#[must_use]
pub fn after(limit: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(limit).or_else(|| now.checked_add(Duration::from_secs(1 << 32))).unwrap_or(now)
}

impl Entry {
    /// Leaves the entry to be done, whatever becomes of this value.
    pub fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let deed = TIMER.plan.lock().entries.remove(&self.0);
        drop(deed); // outside of the lock: what it holds may be the last handle on something
    }
}

fn run() {
    let _guard = AbortIfPanic;
    let mut plan = TIMER.plan.lock();
    loop {
        match plan.entries.first_key_value() {
            None => TIMER.changed.wait(&mut plan),
            Some((&(at, _), _)) if at > Instant::now() => {
                TIMER.changed.wait_until(&mut plan, at);
            }
            Some(_) => {
                let deed = plan.entries.pop_first();
                drop(plan);
                if let Some((_, deed)) = deed {
                    deed();
                }
                plan = TIMER.plan.lock();
            }
        }
    }
}

/// Without its thread, no limit would ever pass, and nobody would know.
struct AbortIfPanic;

impl Drop for AbortIfPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("concurrent-futures: the timer's thread panicked; aborting");
            process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn deeds_are_done_in_the_order_of_their_times_and_withdrawn_ones_never() {
        let (tell, told) = mpsc::channel();
        let now = Instant::now();
        let plan = |milliseconds, word: &'static str| {
            let tell = tell.clone();
            at(now + Duration::from_millis(milliseconds), move || tell.send(word).unwrap()).unwrap()
        };
        plan(60, "late").keep();
        plan(20, "early").keep();
        drop(plan(30, "withdrawn"));
        plan(40, "between").keep();
        assert_eq!(told.iter().take(3).collect::<Vec<_>>(), ["early", "between", "late"]);
        assert!(now.elapsed() >= Duration::from_millis(60));
    }
}
