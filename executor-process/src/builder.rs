//! What can be chosen for a process pool.

use executor_core::{BuildError, DropPolicy, SharedValue, WhenFull, cpu::cpu_count, worker_call::WorkerCall};
use std::{
    num::{NonZeroU64, NonZeroUsize},
    time::Duration,
};

use crate::{
    inbox::Recycling,
    os::{self, InnerThreads},
    output::Output,
    pool::ProcessPoolExecutor,
    worker,
};

/// Processes that a pool may have; far more than any machine runs well.
const MAX_WORKERS: usize = 1 << 12;

/// How deep pools may be nested, each in a worker process of the one above. A program that starts a pool in each of its
/// calls would otherwise fill the machine.
const MAX_DEPTH: u32 = 10;

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
    pub(crate) max_workers: Option<usize>,
    pub(crate) name_prefix: Option<String>,
    pub(crate) initializer: Option<WorkerCall>,
    pub(crate) finalizer: Option<WorkerCall>,
    pub(crate) recycling: Recycling,
    pub(crate) queue_capacity: Option<(usize, WhenFull)>,
    pub(crate) drop_policy: DropPolicy,
    pub(crate) inner_threads: Option<NonZeroUsize>,
    pub(crate) output: Output,
}

impl ProcessPoolExecutorBuilder {
    /// How many calls may run at the same time. Without it, [`cpu_count`]: as many as this process has processors to use.
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
        self.initializer = Some(WorkerCall::new(function, args));
        self
    }

    /// Has every worker call `function` on `args` before it leaves in peace: replaced, idle for too long, or at the end. It
    /// has some seconds for that. A worker that is lost or killed does not come to it, nor does one that
    /// [`Shutdown::now`](executor_core::Shutdown::now) ends, idle or not.
    #[track_caller]
    pub fn finalizer<A: SharedValue + Clone>(mut self, function: fn(A), args: A) -> Self {
        self.finalizer = Some(WorkerCall::new(function, args));
        self
    }

    /// Replaces every worker by a fresh one after so many calls, for calls that leak. Python's `max_tasks_per_child`.
    ///
    /// A chunk of a [`map`](executor_core::Executor::map) is one call.
    ///
    /// # Panics
    /// If `calls` is zero.
    pub fn max_tasks_per_child(mut self, calls: u64) -> Self {
        let calls = NonZeroU64::new(calls).expect("a worker must make at least one call, not zero");
        self.recycling.max_tasks = Some(calls);
        self
    }

    /// Replaces a worker that keeps so much more memory than after its first call. It is looked at after its calls, about once a
    /// second, and then given no more of them.
    pub fn max_memory_growth_bytes(mut self, bytes: u64) -> Self {
        self.recycling.memory_growth_bytes = Some(bytes);
        self
    }

    /// How long a worker without work stays. Without it: until the pool is shut down.
    pub fn idle_timeout(mut self, limit: Duration) -> Self {
        self.recycling.idle_timeout = Some(limit);
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

    /// How many threads libraries in each worker are told to start, by `OMP_NUM_THREADS`, `RAYON_NUM_THREADS` and the
    /// like. Without it: what this process's own environment says, and where that says nothing, its processors divided by
    /// the workers, so that all of them together are as many as there are.
    ///
    /// # Panics
    /// If `threads` is zero.
    pub fn inner_max_num_threads(mut self, threads: usize) -> Self {
        self.inner_threads = Some(NonZeroUsize::new(threads).expect("a library needs at least one thread, not zero"));
        self
    }

    /// What becomes of what calls print. Without it, it appears where this process's own output does.
    pub fn output(mut self, output: Output) -> Self {
        self.output = output;
        self
    }

    /// Makes the pool. Its processes start as they are needed.
    ///
    /// # Errors
    /// [`BuildError::Workers`] when `max_workers` is zero or absurdly large; [`BuildError::Name`] when the prefix cannot be a
    /// name; [`BuildError::Unsupported`] when the system
    /// refuses what the pool needs, or when this process is itself a worker that did not become one;
    /// [`BuildError::Nested`] in a worker of a worker of a worker, ten deep.
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
        let depth = os::depth();
        if depth >= MAX_DEPTH {
            return Err(BuildError::Nested { depth, limit: MAX_DEPTH });
        }
        let asked = self.max_workers.unwrap_or_else(|| cpu_count().get().min(MAX_WORKERS));
        let max_workers = NonZeroUsize::new(asked).filter(|workers| workers.get() <= MAX_WORKERS);
        let max_workers = max_workers.ok_or(BuildError::Workers { asked, limit: MAX_WORKERS })?;
        if let Some(prefix) = self.name_prefix.as_ref().filter(|prefix| prefix.contains('\0')) {
            return Err(BuildError::Name { prefix: prefix.clone() });
        }
        let share = NonZeroUsize::new(cpu_count().get() / max_workers).unwrap_or(NonZeroUsize::MIN);
        let inner = self.inner_threads.map_or(InnerThreads::Share(share), InnerThreads::Chosen);
        ProcessPoolExecutor::start(max_workers, inner, self)
            .map_err(|error| BuildError::Unsupported(format!("a process pool cannot be set up here: {error}")))
    }
}
