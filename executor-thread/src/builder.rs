//! What can be chosen for a thread pool.

use executor_core::{
    BuildError, DropPolicy, Observer, SharedValue, WhenFull, cpu::cpu_count, observe::ObserverList,
    worker_call::WorkerCall,
};
use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use crate::pool::ThreadPoolExecutor;

/// Threads that a pool may have; far more than any machine runs well.
const MAX_WORKERS: usize = 1 << 15;

/// Chooses what [`ThreadPoolExecutor::new`] leaves to defaults.
///
/// # Examples
/// ```
/// use concurrent_futures::{Executor, ThreadPoolExecutor};
///
/// let pool = ThreadPoolExecutor::builder().max_workers(2).thread_name_prefix("resize").build()?;
/// let name = pool.submit(|()| std::thread::current().name().map(str::to_owned), ()).result()?;
/// assert_eq!(name.as_deref(), Some("resize-0"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
#[must_use = "`build` makes the pool"]
pub struct ThreadPoolExecutorBuilder {
    pub(crate) max_workers: Option<usize>,
    pub(crate) name_prefix: Option<String>,
    pub(crate) stack_size_bytes: Option<usize>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) queue_capacity: Option<(usize, WhenFull)>,
    pub(crate) drop_policy: DropPolicy,
    pub(crate) initializer: Option<WorkerCall>,
    pub(crate) finalizer: Option<WorkerCall>,
    pub(crate) observers: ObserverList,
}

impl ThreadPoolExecutorBuilder {
    /// How many calls may run at the same time. Without it, [`cpu_count`]: as many as this process has processors to use.
    pub fn max_workers(mut self, max_workers: usize) -> Self {
        self.max_workers = Some(max_workers);
        self
    }

    /// Threads are named `prefix-0`, `prefix-1` and so on. Without it, `executor-N` with a number of the pool.
    pub fn thread_name_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.name_prefix = Some(prefix.into());
        self
    }

    /// The size of each worker's stack. Without it, the standard library's choice.
    pub fn stack_size_bytes(mut self, bytes: usize) -> Self {
        self.stack_size_bytes = Some(bytes);
        self
    }

    /// Has every worker call `function` on a clone of `args` before its first task. If that panics, the pool is
    /// broken: what waits and what is submitted later fails, with the panic as the cause.
    #[track_caller]
    pub fn initializer<A: SharedValue + Clone>(mut self, function: fn(A), args: A) -> Self {
        self.initializer = Some(WorkerCall::new(function, args));
        self
    }

    /// Has every worker call `function` on a clone of `args` before it leaves: when it has been idle for too long, or at
    /// the end. A shutdown that waits, waits for this too.
    #[track_caller]
    pub fn finalizer<A: SharedValue + Clone>(mut self, function: fn(A), args: A) -> Self {
        self.finalizer = Some(WorkerCall::new(function, args));
        self
    }

    /// How long a worker without work stays. Without it: until the pool is shut down.
    pub fn idle_timeout(mut self, limit: Duration) -> Self {
        self.idle_timeout = Some(limit);
        self
    }

    /// How many calls may wait besides the `max_workers` that run, and what `submit` does when as many do. Without it, any
    /// number may. A [`map`](executor_core::Executor::map) waits for room, whatever is chosen here.
    pub fn queue_capacity(mut self, waiting: usize, when_full: WhenFull) -> Self {
        self.queue_capacity = Some((waiting, when_full));
        self
    }

    /// What dropping the pool does, when nobody has shut it down.
    pub fn drop_policy(mut self, policy: DropPolicy) -> Self {
        self.drop_policy = policy;
        self
    }

    /// Tells `observer` what tasks and workers do. There may be several.
    pub fn observer(mut self, observer: impl Observer + 'static) -> Self {
        self.observers.0.push(Arc::new(observer));
        self
    }

    /// Makes the pool. Its threads start as they are needed.
    ///
    /// # Errors
    /// [`BuildError::Workers`] when `max_workers` is zero or absurdly large; [`BuildError::Name`] when the prefix cannot be a
    /// name; [`BuildError::Unsupported`] when the thread that tells observers cannot be started.
    pub fn build(self) -> Result<ThreadPoolExecutor, BuildError> {
        let asked = self.max_workers.unwrap_or_else(|| cpu_count().get().min(MAX_WORKERS));
        let max_workers = NonZeroUsize::new(asked).filter(|workers| workers.get() <= MAX_WORKERS);
        let max_workers = max_workers.ok_or(BuildError::Workers { asked, limit: MAX_WORKERS })?;
        if let Some(prefix) = self.name_prefix.as_ref().filter(|prefix| prefix.contains('\0')) {
            return Err(BuildError::Name { prefix: prefix.clone() });
        }
        ThreadPoolExecutor::start(max_workers, self)
    }
}
