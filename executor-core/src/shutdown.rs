//! How an executor is shut down, and what it says afterwards.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How to shut an executor down.
///
/// Whatever is chosen, nothing more is accepted from the call on, running calls are finished, and every
/// future gets its outcome.
///
/// # Examples
/// ```
/// use concurrent_futures::{Executor, Shutdown, ThreadPoolExecutor};
/// use std::time::Duration;
///
/// let pool = ThreadPoolExecutor::new(1)?;
/// let future = pool.submit(|x: u32| x, 7);
/// let report = pool.shutdown(Shutdown::wait().at_most(Duration::from_secs(10)));
/// assert!(report.is_complete());
/// assert_eq!(future.result()?, 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "this only says how; `Executor::shutdown` does it"]
pub struct Shutdown {
    limit: Option<Duration>,
    cancel_pending: bool,
    stop_running: bool,
}

impl Shutdown {
    /// Return when everything that was submitted is done and the workers have ended. Python's
    /// `shutdown()`, and what dropping an executor does.
    pub fn wait() -> Self {
        Shutdown { limit: None, cancel_pending: false, stop_running: false }
    }

    /// Return at once; the rest goes on in the background. Python's `shutdown(wait=False)`.
    pub fn no_wait() -> Self {
        Shutdown { limit: Some(Duration::ZERO), cancel_pending: false, stop_running: false }
    }

    /// Cancel what has not begun. Those futures are done when `shutdown` returns. Python's
    /// `cancel_futures=True`.
    pub fn cancel_pending(mut self) -> Self {
        self.cancel_pending = true;
        self
    }

    /// Cancel what has not begun, stop what runs, and wait for that. What runs in a worker process is stopped with that
    /// process, so this ends soon; its futures fail with [`TaskError::is_killed`](crate::TaskError::is_killed).
    /// What runs on a thread is [asked to stop](crate::current_task), so this ends when it does.
    pub fn now() -> Self {
        Shutdown::wait().cancel_pending().stop_running()
    }

    /// Stop what runs, as [`now`](Self::now) does.
    pub fn stop_running(mut self) -> Self {
        self.stop_running = true;
        self
    }

    /// Wait for at most `limit`; the rest goes on in the background.
    pub fn at_most(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Whether pending calls are to be cancelled.
    #[must_use]
    pub fn cancels_pending(&self) -> bool {
        self.cancel_pending
    }

    /// Whether running calls are to be stopped.
    #[must_use]
    pub fn stops_running(&self) -> bool {
        self.stop_running
    }

    /// Whether to return without waiting.
    #[must_use]
    pub fn is_no_wait(&self) -> bool {
        self.limit.is_some_and(|limit| limit.is_zero())
    }

    /// When to stop waiting, counted from now; `None` is never.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.limit.and_then(|limit| Instant::now().checked_add(limit))
    }
}

/// What became of the calls that a shutdown found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShutdownReport {
    /// How many came to their end meanwhile: with a value, an error, or stopped.
    pub finished: usize,
    /// How many this shutdown cancelled.
    pub cancelled: usize,
    /// How many it left to themselves, running or queued.
    pub unfinished: usize,
}

impl ShutdownReport {
    /// What became of so many calls that were `found`, of which so many were cancelled and so many are left.
    #[must_use]
    pub fn new(found: usize, cancelled: usize, unfinished: usize) -> Self {
        ShutdownReport { finished: found.saturating_sub(cancelled + unfinished), cancelled, unfinished }
    }

    /// Whether nothing was left to do.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.unfinished == 0
    }
}

/// What happens when an executor is dropped that nobody has shut down. Chosen with the builders' `drop_policy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DropPolicy {
    /// Dropping waits until everything that was submitted is done; in a panic it first cancels what has not begun.
    #[default]
    Wait,
    /// Dropping returns at once, and what was submitted is done in the background, for as long as the program lives.
    Detach,
    /// Dropping cancels what has not begun, and waits for what runs.
    Cancel,
}

impl DropPolicy {
    /// The shutdown that a drop is now.
    pub fn shutdown(self) -> Shutdown {
        match self {
            DropPolicy::Wait if thread::panicking() => Shutdown::wait().cancel_pending(),
            DropPolicy::Wait => Shutdown::wait(),
            DropPolicy::Detach => Shutdown::no_wait(),
            DropPolicy::Cancel => Shutdown::wait().cancel_pending(),
        }
    }
}
