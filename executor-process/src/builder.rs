//! What can be chosen for a process pool.

use executor_core::{BuildError, SharedValue, initializer::Initializer};
use std::thread;

use crate::{pool::ProcessPoolExecutor, worker};

/// Processes that a pool may have; far more than any machine runs well.
const MAX_WORKERS: usize = 1 << 12;

/// Chooses what [`ProcessPoolExecutor::new`] leaves to defaults.
///
/// # Examples
/// ```
/// use concurrent_futures::{Executor, ProcessPoolExecutor};
/// use std::sync::atomic::{AtomicU32, Ordering};
///
/// static BASE: AtomicU32 = AtomicU32::new(0);
///
/// let pool = ProcessPoolExecutor::builder()
///     .max_workers(1)
///     .initializer(|base| BASE.store(base, Ordering::Relaxed), 100)
///     .build()?;
/// assert_eq!(pool.submit(|x| BASE.load(Ordering::Relaxed) + x, 7).result()?, 107);
/// assert_eq!(BASE.load(Ordering::Relaxed), 0, "this process has its own");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
#[must_use = "`build` makes the pool"]
pub struct ProcessPoolExecutorBuilder {
    max_workers: Option<usize>,
    name_prefix: Option<String>,
    initializer: Option<Initializer>,
}

impl ProcessPoolExecutorBuilder {
    /// How many calls may run at the same time. Without it: as many as this process has processors to use.
    pub fn max_workers(mut self, max_workers: usize) -> Self {
        self.max_workers = Some(max_workers);
        self
    }

    /// Worker processes are named `prefix-0`, `prefix-1` and so on, as `ps` and `top` show them (15 bytes of it).
    /// Without it, `executor-N` with a number of the pool.
    pub fn process_name_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.name_prefix = Some(prefix.into());
        self
    }

    /// Has every worker call `function` on `args` before its first task. If that panics, the pool is broken: what waits
    /// and what is submitted later fails, with the panic as the cause.
    #[track_caller]
    pub fn initializer<A: SharedValue + Clone>(mut self, function: fn(A), args: A) -> Self {
        self.initializer = Some(Initializer::new(function, args));
        self
    }

    /// Makes the pool. Its processes start as they are needed.
    ///
    /// # Errors
    /// [`BuildError::Workers`] when `max_workers` is zero or absurdly large; [`BuildError::Name`] when the prefix cannot be a
    /// name; [`BuildError::Unsupported`] when the system
    /// refuses what the pool needs, or when this process is itself a worker that did not become one.
    pub fn build(self) -> Result<ProcessPoolExecutor, BuildError> {
        worker::keep_entry();
        if worker::is_stray_worker() {
            // Going on would start workers that start workers, for ever.
            return Err(BuildError::Unsupported(
                "this process was started as a worker and runs `main` instead: without the feature `constructor`, \
                 call `concurrent_futures::worker::run_if_worker()` first in `main`"
                    .into(),
            ));
        }
        let usable = || thread::available_parallelism().map_or(1, |processors| processors.get().min(MAX_WORKERS));
        let asked = self.max_workers.unwrap_or_else(usable);
        if !(1..=MAX_WORKERS).contains(&asked) {
            return Err(BuildError::Workers { asked, limit: MAX_WORKERS });
        }
        if let Some(prefix) = self.name_prefix.as_ref().filter(|prefix| prefix.contains('\0')) {
            return Err(BuildError::Name { prefix: prefix.clone() });
        }
        ProcessPoolExecutor::start(asked, self.name_prefix, self.initializer)
            .map_err(|error| BuildError::Unsupported(format!("a process pool cannot be set up here: {error}")))
    }
}
