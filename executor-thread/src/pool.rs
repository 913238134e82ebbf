//! The handle: accepting tasks, shutdown.

use executor_core::{BuildError, Dump, Executor, Future, Rejected, Shutdown, ShutdownReport, Stats, Task};
use std::{fmt, num::NonZeroUsize, sync::Arc, time::Duration};

use crate::{builder::ThreadPoolExecutorBuilder, shared::Shared};

/// Runs calls on a fixed number of threads of this process. Python's `ThreadPoolExecutor`, with work stealing.
///
/// Beyond [`Executor`] it offers what only threads can: closures with captures ([`spawn`](Self::spawn)), borrowed
/// data ([`scope`](Self::scope), [`join`](Self::join)), and loops over slices ([`map_slice`](Self::map_slice),
/// [`map_into`](Self::map_into), [`for_each`](Self::for_each), [`reduce`](Self::reduce)).
///
/// # Waiting inside
/// A task may wait for other tasks of the same pool, to any depth: one that has not begun is run in place, and while the
/// waiter blocks on one that runs elsewhere, a spare thread takes its place. A waiter never runs an unrelated
/// task, so waiting while holding a lock is safe.
///
/// # Examples
/// ```
/// use concurrent_futures::{Executor, ThreadPoolExecutor};
///
/// let pool = ThreadPoolExecutor::new(4)?;
/// let cubes: Vec<u64> = pool.map(|x: u64| x.pow(3), 1..=3).collect::<Result<_, _>>()?;
/// assert_eq!(cubes, [1, 8, 27]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ThreadPoolExecutor {
    shared: Arc<Shared>,
}

impl ThreadPoolExecutor {
    /// A pool on which at most `max_workers` calls run at a time. Threads start as they are needed.
    ///
    /// # Errors
    /// [`BuildError::Workers`] when `max_workers` is zero or absurdly large.
    pub fn new(max_workers: usize) -> Result<Self, BuildError> {
        Self::builder().max_workers(max_workers).build()
    }

    /// For choosing more than the number of workers.
    pub fn builder() -> ThreadPoolExecutorBuilder {
        ThreadPoolExecutorBuilder::default()
    }

    pub(crate) fn start(max_workers: NonZeroUsize, chosen: ThreadPoolExecutorBuilder) -> Result<Self, BuildError> {
        Ok(ThreadPoolExecutor { shared: Arc::new(Shared::new(max_workers, chosen)?) })
    }

    /// Submits a closure with whatever it captured. It stays in this process, so nothing needs to be serialisable.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ThreadPoolExecutor;
    ///
    /// let pool = ThreadPoolExecutor::new(2)?;
    /// let words = vec!["one", "two"];
    /// assert_eq!(pool.spawn(move || words.concat()).result()?, "onetwo");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn spawn<F, R>(&self, call: F) -> Future<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        let (task, future) = Task::local(call);
        self.execute(task);
        future
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Accepts a scope's call, which is never rejected.
    pub(crate) fn execute_scoped(&self, task: Task) {
        self.shared.execute_scoped(task);
    }

    /// How many threads the pool has now, spares included.
    #[must_use]
    pub fn worker_count(&self) -> usize {
        self.shared.thread_count()
    }
}

impl Executor for ThreadPoolExecutor {
    fn execute(&self, task: Task) {
        self.shared.execute(task);
    }

    fn try_execute(&self, task: Task, limit: Duration) -> Result<(), Rejected<Task>> {
        self.shared.try_execute(task, limit)
    }

    fn max_workers(&self) -> NonZeroUsize {
        self.shared.max_workers()
    }

    fn stats(&self) -> Stats {
        self.shared.stats()
    }

    fn dump(&self) -> Dump {
        self.shared.dump()
    }

    fn shutdown(&self, how: Shutdown) -> ShutdownReport {
        self.shared.dismiss(how)
    }
}

/// Waits for everything that was submitted, unless another [`DropPolicy`](executor_core::DropPolicy) was chosen; in a panic, cancels first what has
/// not begun. After a [`shutdown`](Executor::shutdown) it does nothing.
impl Drop for ThreadPoolExecutor {
    fn drop(&mut self) {
        self.shared.handle_is_gone();
    }
}

impl fmt::Debug for ThreadPoolExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (queued, busy) = self.shared.load();
        f.debug_struct("ThreadPoolExecutor")
            .field("max_workers", &self.shared.max_workers())
            .field("threads", &self.worker_count())
            .field("queued", &queued)
            .field("busy", &busy)
            .finish_non_exhaustive()
    }
}
