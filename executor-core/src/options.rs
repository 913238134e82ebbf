//! What can be chosen for single calls: a time limit, a priority, further attempts.

use std::time::Duration;

use crate::{levels::Priority, retry::RetryPolicy};

/// Choices for the calls that are submitted through
/// [`Executor::with`](crate::Executor::with).
///
/// # Examples
/// ```
/// use concurrent_futures::{Executor, Priority, ProcessPoolExecutor, RetryPolicy, TaskOptions};
/// use std::time::Duration;
///
/// let pool = ProcessPoolExecutor::new(2)?;
/// let careful = TaskOptions::new()
///     .time_limit(Duration::from_secs(10))
///     .priority(Priority::High)
///     .retry(RetryPolicy::attempts(3));
/// assert_eq!(pool.with(careful).submit(|x: u64| x * x, 12).result()?, 144);
///
/// let hasty = pool.with(TaskOptions::new().time_limit(Duration::from_millis(50)));
/// let error = hasty.submit(|()| std::thread::sleep(Duration::from_secs(60)), ()).result().unwrap_err();
/// assert!(error.is_timed_out());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "these are only choices; `Executor::with` makes them"]
pub struct TaskOptions {
    time_limit: Option<Duration>,
    priority: Option<Priority>,
    retry: Option<RetryPolicy>,
}

impl TaskOptions {
    /// No limit, no priority, one attempt.
    pub fn new() -> Self {
        TaskOptions::default()
    }

    /// How long a call may take, counted from when it begins, not from its submission. Then its future fails with
    /// [`TaskError::is_timed_out`](crate::TaskError::is_timed_out).
    ///
    /// A worker process is stopped, and replaced. A thread cannot be: the call is [asked to stop](crate::current_task), its
    /// result is dropped when it comes, and until then its worker is busy.
    ///
    /// In a map the limit is for each item, and chunks are of one item unless a
    /// [chunk size](crate::Map::chunk_size) is chosen; then it is for the chunk.
    ///
    /// # Panics
    /// If `limit` is zero.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        assert!(!limit.is_zero(), "a time limit must be longer than zero");
        self.time_limit = Some(limit);
        self
    }

    /// Which calls begin first, when several wait.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Makes a call again when it has failed.
    ///
    /// With the feature `retry`, which `process` has as well: arguments are kept for another attempt in their encoded form.
    #[cfg(feature = "transport")]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = Some(policy);
        self
    }

    /// How long a call may take.
    #[must_use]
    pub fn chosen_time_limit(&self) -> Option<Duration> {
        self.time_limit
    }

    /// Whether single calls matter to what was chosen, so that several should not be made as one.
    pub(crate) fn are_for_single_calls(&self) -> bool {
        self.time_limit.is_some() || self.retry.is_some()
    }

    pub(crate) fn chosen_priority(&self) -> Priority {
        self.priority.unwrap_or_default()
    }

    pub(crate) fn retry_policy(&self) -> Option<&RetryPolicy> {
        self.retry.as_ref()
    }

    /// These choices, and those of `others` where nothing was chosen here.
    pub(crate) fn or(&self, others: &TaskOptions) -> TaskOptions {
        TaskOptions {
            time_limit: self.time_limit.or(others.time_limit),
            priority: self.priority.or(others.priority),
            retry: self.retry.clone().or_else(|| others.retry.clone()),
        }
    }
}
