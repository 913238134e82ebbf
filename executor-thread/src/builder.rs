//! What can be chosen for a thread pool.

use executor_core::{BuildError, SharedValue, initializer::Initializer};
use std::thread;

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
    max_workers: Option<usize>,
    name_prefix: Option<String>,
    stack_size_bytes: Option<usize>,
    initializer: Option<Initializer>,
}

impl ThreadPoolExecutorBuilder {
    /// How many calls may run at the same time. Without it: as many as this process has processors to use.
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
        self.initializer = Some(Initializer::new(function, args));
        self
    }

    /// Makes the pool. Its threads start as they are needed.
    ///
    /// # Errors
    /// [`BuildError::Workers`] when `max_workers` is zero or absurdly large; [`BuildError::Name`] when the prefix cannot be a
    /// name.
    pub fn build(self) -> Result<ThreadPoolExecutor, BuildError> {
        let asked = self.max_workers.unwrap_or_else(usable_processors);
        if !(1..=MAX_WORKERS).contains(&asked) {
            return Err(BuildError::Workers { asked, limit: MAX_WORKERS });
        }
        if let Some(prefix) = self.name_prefix.as_ref().filter(|prefix| prefix.contains('\0')) {
            return Err(BuildError::Name { prefix: prefix.clone() });
        }
        Ok(ThreadPoolExecutor::start(asked, self.name_prefix, self.stack_size_bytes, self.initializer))
    }
}

/// Processors that this process may use: its affinity and its control group's quota count.
fn usable_processors() -> usize {
    thread::available_parallelism().map_or(1, |processors| processors.get().min(MAX_WORKERS))
}
