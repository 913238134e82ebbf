//! What a pool does now, and what it has done: counters that are always on, and the list of running calls for a program that
//! hangs.
//!
//! What is counted costs a submission nothing. Ends are counted by who makes the call; a cancelled call, which nobody makes,
//! is counted by who cancels it, who finds its pool by number.

use std::{
    collections::BTreeMap,
    fmt,
    panic::Location,
    sync::{Arc, Weak},
    time::Duration,
};

use crate::{
    blocking::Home,
    error::TaskId,
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

/// What a pool does, and has done since it was made. From [`Executor::stats`](crate::Executor::stats).
///
/// A call is queued, pausing or running until it is done, failed or cancelled, and is counted in one of these six. A chunk of
/// a [`map`](crate::Executor::map) is one call, and has failed if one of its items has. What was not accepted is not counted.
///
/// The numbers are read one after the other, while calls go on: each is right, but a call that goes from one to another in
/// this moment may be in both or in none. What somebody has waited for is counted as ended.
///
/// # Examples
/// ```
/// use concurrent_futures::{Executor, ThreadPoolExecutor};
///
/// let pool = ThreadPoolExecutor::new(2)?;
/// let failed = pool.map(|x: u32| 100 / x, 0..5).chunk_size(1).filter(Result::is_err).count();
/// let stats = pool.stats();
/// assert_eq!((stats.done, stats.failed, failed), (4, 1, 1));
/// println!("{stats}"); // 0 running, 0 queued, 4 done, 1 failed, 0 cancelled; 2 of 2 workers
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Calls that have not begun, in the queue or in a worker's channel.
    pub queued: usize,
    /// Calls that wait for another attempt.
    pub pausing: usize,
    /// Calls that have begun and not ended.
    pub running: usize,
    /// Calls that gave a value.
    pub done: u64,
    /// Calls that ended with an error, cancelled ones apart.
    pub failed: u64,
    /// Calls that were cancelled.
    pub cancelled: u64,
    /// Attempts that failed and were followed by another one.
    pub retried: u64,
    /// Workers that there are now, spares and successors included.
    pub workers: usize,
    /// How many calls may run at the same time.
    pub max_workers: usize,
    /// Workers that were started in the place of others, which had died or were replaced.
    pub restarts: u64,
    /// Workers that died of themselves: of a call, of a signal from elsewhere, or as they started.
    pub lost_workers: u64,
}

impl Stats {
    /// Calls that have neither begun nor ended, and those that have begun.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.queued + self.pausing + self.running
    }

    /// Calls that have ended, however.
    #[must_use]
    pub fn finished(&self) -> u64 {
        self.done + self.failed + self.cancelled
    }
}

/// In one line.
impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stats { queued, pausing, running, done, failed, cancelled, retried, .. } = self;
        write!(f, "{running} running, {queued} queued, ")?;
        if *pausing > 0 {
            write!(f, "{pausing} waiting for another attempt, ")?;
        }
        write!(f, "{done} done, {failed} failed, {cancelled} cancelled")?;
        if *retried > 0 {
            write!(f, ", {retried} tried again")?;
        }
        write!(f, "; {} of {} workers", self.workers, self.max_workers)?;
        if self.restarts > 0 {
            write!(f, ", {} restarted", self.restarts)?;
        }
        if self.lost_workers > 0 {
            write!(f, ", {} lost", self.lost_workers)?;
        }
        Ok(())
    }
}

/// What a pool is doing: its counters, and each running call. From [`Executor::dump`](crate::Executor::dump).
///
/// `{}` is a line for the pool and one for each call, the oldest first:
///
/// ```text
/// executor-0: 2 running, 13 queued, 4 done, 0 failed, 0 cancelled; 2 of 2 workers
///   task 5 for 12.3 s in executor-0-0 (process 4711), submitted at src/main.rs:12:24
///   task 6 for 0.1 s in executor-0-1 (process 4712), submitted at src/main.rs:12:24
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Dump {
    /// What the pool's workers are named after.
    pub pool: String,
    /// Its counters.
    pub stats: Stats,
    /// The calls that have begun and not ended, the oldest first.
    pub running: Vec<RunningTask>,
}

impl Dump {
    /// For backends. Puts the oldest first.
    #[must_use]
    pub fn new(pool: impl Into<String>, stats: Stats, mut running: Vec<RunningTask>) -> Self {
        running.sort_by_key(|task| std::cmp::Reverse(task.age));
        Dump { pool: pool.into(), stats, running }
    }
}

impl fmt::Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.pool, self.stats)?;
        self.running.iter().try_for_each(|task| write!(f, "\n  {task}"))
    }
}

/// A call that is being made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RunningTask {
    /// Which task.
    pub task: TaskId,
    /// The line of the `submit` or `map` that made the task.
    pub submitted_at: &'static Location<'static>,
    /// The name of the thread, or of the process, that makes the call.
    pub worker: String,
    /// The process that makes it, if it is not this one.
    pub pid: Option<u32>,
    /// How long ago it began, within a few milliseconds.
    pub age: Duration,
}

impl RunningTask {
    /// For backends: a call that began so long ago, in this process.
    #[must_use]
    pub fn new(task: TaskId, submitted_at: &'static Location<'static>, worker: String, age: Duration) -> Self {
        RunningTask { task, submitted_at, worker, pid: None, age }
    }

    /// For backends: it is made in another process.
    #[must_use]
    pub fn in_process(self, pid: u32) -> Self {
        RunningTask { pid: Some(pid), ..self }
    }
}

impl fmt::Display for RunningTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {} for {:.1} s in {}", self.task, self.age.as_secs_f64(), self.worker)?;
        if let Some(pid) = self.pid {
            write!(f, " (process {pid})")?;
        }
        write!(f, ", submitted at {}", self.submitted_at)
    }
}

/// How a call ended, as far as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// With a value.
    Done,
    /// With an error.
    Failed,
    /// It was cancelled.
    Cancelled,
}

/// What became of a task that was to be run here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// The call gave a value.
    Done,
    /// It gave an error.
    Failed,
    /// Another attempt follows.
    Again,
    /// There was nothing to do: it was cancelled before, or made elsewhere.
    Nothing,
    /// It was made, as was told just now; but a callback was added in that moment, and this thread runs it.
    Busy,
    /// That one has run, too.
    Idle,
}

impl Made {
    /// Whether this is the first that is told of the call's end.
    #[must_use]
    pub fn is_end(self) -> bool {
        !matches!(self, Made::Busy | Made::Idle)
    }
}

/// Counts the calls of a pool in this process, apart from those that its workers count themselves.
#[derive(Debug, Default)]
pub struct Counters {
    done: AtomicU64,
    failed: AtomicU64,
    cancelled: AtomicU64,
    retried: AtomicU64,
    /// Tasks in the queue whose call nobody will make: cancelled, or made in place.
    void: AtomicUsize,
    /// Calls that are made in place, on top of others.
    nested: AtomicUsize,
}

/// Pools whose calls are cancelled by others. Looked at only then.
static POOLS: Mutex<BTreeMap<u32, Weak<Counters>>> = Mutex::new(BTreeMap::new());

impl Counters {
    /// Those of the pool `home`, which must [forget](Self::forget) them at its end.
    #[must_use]
    pub fn of(home: Home) -> Arc<Counters> {
        let counters = Arc::new(Counters::default());
        POOLS.lock().insert(home.number(), Arc::downgrade(&counters));
        counters
    }

    /// The pool is no more.
    pub fn forget(home: Home) {
        POOLS.lock().remove(&home.number());
    }

    fn find(home: u32) -> Option<Arc<Counters>> {
        if home == 0 {
            return None;
        }
        POOLS.lock().get(&home).and_then(Weak::upgrade)
    }

    /// A task of the pool with this number was cancelled, which lies in its queue, or pauses.
    pub(crate) fn count_cancelled(home: u32, is_queued: bool) {
        if let Some(counters) = Counters::find(home) {
            // ORDERING: Relaxed, as all counters: they order nothing, and who has waited for a call was ordered by that.
            counters.cancelled.fetch_add(1, Ordering::Relaxed);
            counters.void.fetch_add(usize::from(is_queued), Ordering::Relaxed);
        }
    }

    pub(crate) fn begin_in_place_at(home: u32) {
        Counters::find(home).iter().for_each(|counters| counters.begin_in_place());
    }

    pub(crate) fn end_in_place_at(home: u32, made: Made) {
        Counters::find(home).iter().for_each(|counters| counters.end_in_place(made));
    }

    /// A task was taken from the queue by somebody who found nothing to do.
    pub fn was_void(&self) {
        self.void.fetch_sub(1, Ordering::Relaxed);
    }

    /// Tasks in the queue that are none any more.
    #[must_use]
    pub fn void(&self) -> usize {
        // One may have been taken out before it was counted.
        self.void.load(Ordering::Relaxed).cast_signed().max(0).cast_unsigned()
    }

    /// A call is made by who waits for it.
    pub fn begin_in_place(&self) {
        self.nested.fetch_add(1, Ordering::Relaxed);
        self.void.fetch_add(1, Ordering::Relaxed);
    }

    /// A call is made that was in no queue, by who submitted it.
    pub fn begin_beside(&self) {
        self.nested.fetch_add(1, Ordering::Relaxed);
    }

    /// It is over.
    pub fn end_in_place(&self, made: Made) {
        self.nested.fetch_sub(1, Ordering::Relaxed);
        self.count(made, 1);
    }

    /// So many calls ended thus.
    pub fn count(&self, made: Made, calls: u64) {
        let counter = match made {
            Made::Done => &self.done,
            Made::Failed => &self.failed,
            Made::Again => &self.retried,
            Made::Nothing | Made::Busy | Made::Idle => return,
        };
        counter.fetch_add(calls, Ordering::Relaxed);
    }

    /// Adds what was counted here.
    pub fn add_to(&self, stats: &mut Stats) {
        stats.done += self.done.load(Ordering::Relaxed);
        stats.failed += self.failed.load(Ordering::Relaxed);
        stats.cancelled += self.cancelled.load(Ordering::Relaxed);
        stats.retried += self.retried.load(Ordering::Relaxed);
        stats.running += self.nested.load(Ordering::Relaxed);
    }
}
