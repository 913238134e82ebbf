//! Whether a call that failed is made again, and when.

use std::time::Duration;

use crate::error::{Failure, TaskError};

/// How often a call is made again after it has failed, for what, and after which pause.
///
/// A call is made again when it [panicked](TaskError::is_panic), was stopped at its
/// [time limit](TaskError::is_timed_out), [used more](TaskError::is_limit_exceeded) than its worker process may, or
/// [lost its worker process](TaskError::is_worker_lost). The last is counted
/// apart, since it may be nobody's fault: the machine was short of memory, or somebody ended the process. A
/// `Result` that the call returns is a value and never a reason; who wants to try again for that has a loop.
/// A call that was cancelled, killed or refused is not made again, nor one that goes on in its thread although its
/// time limit has passed.
///
/// In a map, an attempt is that of a whole chunk, and chunks are of one item unless a
/// [chunk size](crate::Map::chunk_size) is chosen: then only a lost worker or a time limit counts as the chunk's failure.
///
/// On threads, arguments are copied through `serde` before each attempt that another one may follow. If that fails, none
/// does.
///
/// # Examples
/// ```
/// use concurrent_futures::{Executor, RetryPolicy, TaskOptions, ThreadPoolExecutor};
/// use std::{sync::atomic::{AtomicU32, Ordering}, time::Duration};
///
/// static CALLS: AtomicU32 = AtomicU32::new(0);
///
/// let pool = ThreadPoolExecutor::new(1)?;
/// let policy = RetryPolicy::attempts(5).delay(Duration::from_millis(1)).when(|error| error.is_panic());
/// let future = pool.with(TaskOptions::new().retry(policy)).submit(
///     |()| assert!(CALLS.fetch_add(1, Ordering::Relaxed) >= 2, "not yet"),
///     (),
/// );
/// future.result()?;
/// assert_eq!(CALLS.load(Ordering::Relaxed), 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "this only says when; `TaskOptions::retry` chooses it"]
pub struct RetryPolicy {
    attempts: u32,
    lost_workers: u32,
    when: Option<fn(&TaskError) -> bool>,
    delay: Duration,
    factor: f64,
    longest: Duration,
}

impl RetryPolicy {
    /// At most so many attempts in all, not counting those that lost their worker; and as many lost workers less one. No
    /// pause between them.
    ///
    /// # Panics
    /// If `attempts` is zero: one is always made.
    pub fn attempts(attempts: u32) -> Self {
        assert!(attempts > 0, "a call is made at least once, so there is no policy of zero attempts");
        RetryPolicy {
            attempts,
            lost_workers: attempts - 1,
            when: None,
            delay: Duration::ZERO,
            factor: 2.0,
            longest: Duration::from_secs(60),
        }
    }

    /// So many worker processes may be lost over the call, and it is still made again.
    pub fn lost_workers(mut self, count: u32) -> Self {
        self.lost_workers = count;
        self
    }

    /// Makes the call again only after errors for which this holds. It must be quick: a pool's own thread may ask.
    pub fn when(mut self, decide: fn(&TaskError) -> bool) -> Self {
        self.when = Some(decide);
        self
    }

    /// The pause before the second attempt. Each further one is longer than the last by a [factor](Self::factor).
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// What each pause is to the one before: 2 if nothing is chosen.
    ///
    /// # Panics
    /// If it is less than 1, or no number.
    pub fn factor(mut self, factor: f64) -> Self {
        assert!(factor >= 1.0, "pauses must not become shorter, but the factor is {factor}");
        self.factor = factor;
        self
    }

    /// No pause is longer than this: a minute if nothing is chosen.
    pub fn max_delay(mut self, longest: Duration) -> Self {
        self.longest = longest;
        self
    }

    /// Whether another attempt may follow the next one, in this process, where no worker can be lost.
    pub(crate) fn may_follow(&self, tried: Tried) -> bool {
        tried.failed + 1 < self.attempts
    }

    /// The pause before another attempt, after so many `failed` ones of which `lost` lost their worker. `None`: this
    /// error is final.
    pub(crate) fn pause(&self, error: &TaskError, tried: Tried) -> Option<Duration> {
        let left = match error.failure() {
            Failure::WorkerLost(_) => tried.lost <= self.lost_workers,
            Failure::Panicked(_) | Failure::TimedOut { pid: Some(_), .. } | Failure::LimitExceeded { .. } => {
                tried.failed < self.attempts
            }
            _ => false,
        };
        if !left || !self.when.is_none_or(|decide| decide(error)) {
            return None;
        }
        let growth = self.factor.powi(i32::try_from(tried.failed + tried.lost).unwrap_or(i32::MAX).saturating_sub(1));
        if self.delay.is_zero() {
            return Some(Duration::ZERO);
        }
        let seconds = (self.delay.as_secs_f64() * growth).min(self.longest.as_secs_f64());
        Some(Duration::try_from_secs_f64(seconds).unwrap_or(self.longest))
    }
}

/// What a call has been through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tried {
    /// Attempts that panicked, took too long or used too much.
    pub(crate) failed: u32,
    /// Attempts that lost their worker.
    pub(crate) lost: u32,
}

impl Tried {
    pub(crate) fn count(&mut self, failure: &Failure) {
        match failure {
            Failure::WorkerLost(_) => self.lost += 1,
            _ => self.failed += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Exit, Panic, ResourceLimit, TaskId, WorkerLost};
    use std::panic::Location;

    fn error(failure: Failure) -> TaskError {
        TaskError::new(failure, TaskId(1), Location::caller())
    }

    fn panicked() -> TaskError {
        error(Failure::Panicked(Panic { message: "no".into(), location: None, backtrace: None }))
    }

    fn lost() -> TaskError {
        error(Failure::WorkerLost(WorkerLost { pid: 1, exit: Exit::Unknown, stderr: String::new(), panic: None }))
    }

    fn exceeded() -> TaskError {
        let lost = WorkerLost { pid: 1, exit: Exit::Unknown, stderr: String::new(), panic: None };
        error(Failure::LimitExceeded { limit: ResourceLimit::Memory { bytes: 1 }, lost })
    }

    #[test]
    fn each_ending_has_its_own_answer() {
        let policy = RetryPolicy::attempts(3).lost_workers(1);
        let tried = |failed, lost| Tried { failed, lost };
        let limit = Duration::from_secs(1);
        let table = [
            (panicked(), tried(1, 0), true),
            (panicked(), tried(2, 5), true),
            (panicked(), tried(3, 0), false),
            (lost(), tried(0, 1), true),
            (lost(), tried(2, 1), true),
            (lost(), tried(0, 2), false),
            (error(Failure::TimedOut { limit, pid: Some(1) }), tried(1, 0), true),
            (error(Failure::TimedOut { limit, pid: None }), tried(1, 0), false),
            (exceeded(), tried(2, 5), true),
            (exceeded(), tried(3, 0), false),
            (error(Failure::Cancelled), tried(1, 0), false),
            (error(Failure::Killed { pid: 1 }), tried(1, 0), false),
            (error(Failure::Shutdown), tried(1, 0), false),
        ];
        for (error, tried, again) in table {
            assert_eq!(policy.pause(&error, tried).is_some(), again, "{error}, {tried:?}");
        }
        assert_eq!(policy.when(|error| !error.is_panic()).pause(&panicked(), tried(1, 0)), None);
    }

    #[test]
    fn pauses_grow_to_the_longest() {
        let policy = RetryPolicy::attempts(100).delay(Duration::from_millis(10)).max_delay(Duration::from_millis(50));
        let pauses = (1..6).map(|failed| policy.pause(&panicked(), Tried { failed, lost: 0 }).unwrap().as_millis());
        assert_eq!(pauses.collect::<Vec<_>>(), [10, 20, 40, 50, 50]);
        let none = RetryPolicy::attempts(u32::MAX).factor(1e300);
        assert_eq!(none.pause(&panicked(), Tried { failed: 1_000_000, lost: 0 }), Some(Duration::ZERO));
    }
}
