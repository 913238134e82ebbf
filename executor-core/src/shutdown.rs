//! How an executor is shut down, and what it says afterwards.

use std::time::{Duration, Instant};

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
/// assert!(report.finished());
/// assert_eq!(future.result()?, 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "this only says how; `Executor::shutdown` does it"]
pub struct Shutdown {
    limit: Option<Duration>,
    cancel_pending: bool,
}

impl Shutdown {
    /// Return when everything that was submitted is done and the workers have ended. Python's
    /// `shutdown()`, and what dropping an executor does.
    pub fn wait() -> Self {
        Shutdown { limit: None, cancel_pending: false }
    }

    /// Return at once; the rest goes on in the background. Python's `shutdown(wait=False)`.
    pub fn no_wait() -> Self {
        Shutdown { limit: Some(Duration::ZERO), cancel_pending: false }
    }

    /// Cancel what has not begun. Those futures are done when `shutdown` returns. Python's
    /// `cancel_futures=True`.
    pub fn cancel_pending(mut self) -> Self {
        self.cancel_pending = true;
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

/// What a shutdown left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShutdownReport {
    /// How many calls this shutdown cancelled.
    pub cancelled: usize,
    /// How many calls were still running or queued when it returned.
    pub unfinished: usize,
}

impl ShutdownReport {
    /// Whether nothing was left to do.
    #[must_use]
    pub fn finished(&self) -> bool {
        self.unfinished == 0
    }
}
