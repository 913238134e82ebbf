//! What a worker of this process makes now, and how much it has made, where others can see it: written by one thread, with a
//! few plain stores for each call, since it is always on. Nothing here is written by two threads: a line of memory that two
//! workers write for each call costs more than a short call.

#![expect(unsafe_code, reason = "a reference to a constant is kept in an atomic")]

use rustix::time::{ClockId, clock_gettime};
use std::{panic::Location, ptr, time::Duration};

use crate::{
    error::TaskId,
    stats::{Counters, Made, RunningTask, Stats},
    sync::{
        Mutex,
        atomic::{AtomicPtr, AtomicU8, AtomicU64, Ordering, fence},
    },
    task::Task,
};

/// What stands in `state`.
const BUSY: u8 = 1;
const IN_HAND: u8 = 2;

/// A worker's place, apart from what others write.
#[derive(Debug)]
#[repr(align(128))]
pub struct Seat {
    worker: String,
    /// Whether it is busy, and has a task in hand.
    state: AtomicU8,
    /// The task whose call is made, on no other's top. 0: none is.
    task: AtomicU64,
    site: AtomicPtr<Location<'static>>,
    since: AtomicU64,
    /// Calls on top of that one, which its waits make in place.
    nested: Mutex<Vec<(TaskId, &'static Location<'static>, u64)>>,
    done: AtomicU64,
    failed: AtomicU64,
    retried: AtomicU64,
}

impl Seat {
    /// For the worker of that name.
    #[must_use]
    pub fn new(worker: impl Into<String>) -> Seat {
        Seat {
            worker: worker.into(),
            state: AtomicU8::new(0),
            task: AtomicU64::new(0),
            site: AtomicPtr::new(ptr::null_mut()),
            since: AtomicU64::new(0),
            nested: Mutex::default(),
            done: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            retried: AtomicU64::new(0),
        }
    }

    /// The worker is about to take a task out of its pool's queue, if there is one. It has that in hand until it [begins](Self::begin) its
    /// call, or [is idle](Self::be_idle).
    #[inline]
    pub fn reach(&self) {
        self.change(|state| state | IN_HAND);
    }

    /// The worker is busy.
    #[inline]
    pub fn be_busy(&self) {
        self.change(|state| state | BUSY);
    }

    /// The worker is no longer busy, and has nothing in hand. Whoever has seen the outcome of its call sees that, too.
    #[inline]
    pub fn be_idle(&self) {
        self.change(|_| 0);
    }

    fn change(&self, change: impl FnOnce(u8) -> u8) {
        // Nobody else writes it.
        let state = self.state.load(Ordering::Relaxed);
        // ORDERING: Release pairs with the Acquire in `is_busy` and `has_in_hand`: who sees that a task is no longer in hand sees what
        // became of it. Who sees that it is no longer in the queue sees that it is in hand, since the queue orders that.
        self.state.store(change(state), Ordering::Release);
    }

    /// Whether it is busy.
    pub fn is_busy(&self) -> bool {
        self.state.load(Ordering::Acquire) & BUSY != 0
    }

    /// Whether it may have a task in hand of which it has not begun the call. It may be about to cancel it.
    pub fn has_in_hand(&self) -> bool {
        self.state.load(Ordering::Acquire) & IN_HAND != 0
    }

    /// The worker makes this task's call from now on.
    pub fn begin(&self, task: &Task) {
        let (id, site) = task.identity();
        // ORDERING: Release; with the `Acquire` fence in `look`, whoever sees what follows sees that no task is named.
        fence(Ordering::Release);
        self.site.store(ptr::from_ref(site).cast_mut(), Ordering::Relaxed);
        self.since.store(now(), Ordering::Relaxed);
        // ORDERING: Release pairs with the load in `look`: who sees the task sees the rest.
        self.task.store(id.number(), Ordering::Release);
        self.change(|state| state & !IN_HAND);
    }

    /// It is over. By the worker itself.
    pub fn end(&self, made: Made) {
        self.task.store(0, Ordering::Relaxed);
        let counter = match made {
            Made::Done => &self.done,
            Made::Failed => &self.failed,
            Made::Again => &self.retried,
            Made::Nothing | Made::Busy | Made::Idle => return,
        };
        // Nobody else writes it.
        counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// The worker, waiting in one call, makes another one.
    pub fn begin_in_place(&self, task: TaskId, site: &'static Location<'static>) {
        self.nested.lock().push((task, site, now()));
    }

    /// That one is over.
    pub fn end_in_place(&self) {
        self.nested.lock().pop();
    }

    /// Adds what the worker has counted.
    pub fn add_to(&self, stats: &mut Stats) {
        stats.done += self.done.load(Ordering::Relaxed);
        stats.failed += self.failed.load(Ordering::Relaxed);
        stats.retried += self.retried.load(Ordering::Relaxed);
    }

    /// The worker leaves: what it has counted stays with the pool.
    pub fn leave_to(&self, counters: &Counters) {
        counters.count(Made::Done, self.done.load(Ordering::Relaxed));
        counters.count(Made::Failed, self.failed.load(Ordering::Relaxed));
        counters.count(Made::Again, self.retried.load(Ordering::Relaxed));
    }

    /// The calls that the worker makes now.
    pub fn running(&self) -> Vec<RunningTask> {
        let now = now();
        let nested = self.nested.lock().clone();
        let calls = self.look().into_iter().chain(nested);
        let age = |since: u64| Duration::from_nanos(now.saturating_sub(since));
        calls.map(|(task, site, since)| RunningTask::new(task, site, self.worker.clone(), age(since))).collect()
    }

    fn look(&self) -> Option<(TaskId, &'static Location<'static>, u64)> {
        // ORDERING: Acquire pairs with the store in `begin`.
        let task = self.task.load(Ordering::Acquire);
        let (site, since) = (self.site.load(Ordering::Relaxed), self.since.load(Ordering::Relaxed));
        // ORDERING: Acquire pairs with the fence in `begin`: if those were of a later task, this one is not there any more.
        fence(Ordering::Acquire);
        if task == 0 || self.task.load(Ordering::Relaxed) != task {
            return None; // it begins or ends in this moment
        }
        // SAFETY: the pointer is null, for which `as_ref` gives `None`, or was made of a `&'static Location` in `begin`, the
        // only writer: a constant that is never written to and never gone, whichever task's it is.
        let site = unsafe { site.as_ref::<'static>() }?;
        Some((TaskId(task), site, since))
    }
}

/// Nanoseconds of a clock that is cheap to read, and exact to some milliseconds.
fn now() -> u64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32).as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::HashMap, thread};

    /// A look from another thread sees a task with its own site, or none.
    #[test]
    fn what_is_seen_belongs_together() {
        let (seat, sites) = (Seat::new("worker"), Mutex::new(HashMap::new()));
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for turn in 0..20_000 {
                    let (task, _future) = if turn % 2 == 0 { Task::local(|| ()) } else { Task::local(|| ()) };
                    let (id, site) = task.identity();
                    sites.lock().insert(id, site.column());
                    seat.begin(&task);
                    assert_eq!(seat.look().map(|(id, site, _)| (id, site.column())), Some((id, site.column())));
                    seat.end(Made::Done);
                    assert!(seat.look().is_none());
                }
            });
            while !writer.is_finished() {
                for seen in seat.running() {
                    assert_eq!(sites.lock()[&seen.task], seen.submitted_at.column());
                    assert!(seen.age < Duration::from_secs(60), "{seen}");
                }
            }
        });
        let mut stats = Stats::default();
        seat.add_to(&mut stats);
        assert_eq!((stats.done, stats.failed), (20_000, 0));
    }
}
