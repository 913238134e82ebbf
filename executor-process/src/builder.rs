//! What can be chosen for a process pool.

use executor_core::{
    BuildError, DropPolicy, Observer, SharedValue, WhenFull, cpu::cpu_count, observe::ObserverList,
    worker_call::WorkerCall,
};
use std::{
    ffi::{OsStr, OsString},
    fs,
    num::{NonZeroU64, NonZeroUsize},
    os::unix::ffi::OsStrExt,
    sync::Arc,
    time::Duration,
};

use crate::{
    forkserver::StartMethod,
    inbox::Recycling,
    limits::Limits,
    os::{self, InnerThreads},
    output::Output,
    pool::ProcessPoolExecutor,
    reuse, worker,
};

/// Processes that a pool may have; far more than any machine runs well.
const MAX_WORKERS: usize = 1 << 12;

/// How deep pools may be nested, each in a worker process of the one above. A program that starts a pool in each of its
/// calls would otherwise fill the machine.
pub(crate) const MAX_DEPTH: u32 = 10;

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
    pub(crate) limits: Limits,
    pub(crate) kill_grace: Option<Duration>,
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) queue_capacity: Option<(usize, WhenFull)>,
    pub(crate) drop_policy: DropPolicy,
    pub(crate) inner_threads: Option<NonZeroUsize>,
    pub(crate) output: Output,
    pub(crate) start_method: StartMethod,
    pub(crate) preload: Option<WorkerCall>,
    pub(crate) observers: ObserverList,
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

    /// Sets an environment variable for every worker, from its very beginning, before it loads a library. It goes before what
    /// this process's environment says, and before [`inner_max_num_threads`](Self::inner_max_num_threads).
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        let name = name.into();
        self.env.retain(|(before, _)| *before != name);
        self.env.push((name, value.into()));
        self
    }

    /// How long a worker whose call is [killed](executor_core::Future::kill), or over its
    /// [time limit](executor_core::TaskOptions::time_limit), has between SIGTERM, which it may handle, and SIGKILL; also when
    /// the pool is shut down [now](executor_core::Shutdown::now). Without it, a tenth of a second.
    pub fn kill_grace(mut self, grace: Duration) -> Self {
        self.kill_grace = Some(grace);
        self
    }

    /// How much memory a worker may have for itself to write to: its heap, and the stacks of its threads, but not the program,
    /// its libraries, or memory that it shares. (Linux's `RLIMIT_DATA`.) A worker needs some hundred kB to be there at all.
    ///
    /// A call that needs more ends with its worker, and its error, for which
    /// [`TaskError::is_limit_exceeded`](executor_core::TaskError::is_limit_exceeded) holds, says so; the worker is replaced. Of
    /// allocations that can fail, such as `Vec::try_reserve`, and of threads that cannot be started, the call itself is told.
    /// C code that is refused memory and crashes for it is a [lost worker](executor_core::TaskError::is_worker_lost).
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{Executor, ProcessPoolExecutor, ResourceLimit};
    ///
    /// let pool = ProcessPoolExecutor::builder().max_workers(1).max_memory_bytes(256 << 20).build()?;
    /// let error = pool.submit(|bytes| vec![1_u8; bytes].len(), 1 << 40).result().unwrap_err();
    /// assert_eq!(error.exceeded_limit(), Some(ResourceLimit::Memory { bytes: 256 << 20 }));
    /// assert_eq!(pool.submit(|bytes| vec![1_u8; bytes].len(), 1 << 20).result()?, 1 << 20);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn max_memory_bytes(mut self, bytes: u64) -> Self {
        self.limits.memory_bytes = Some(bytes);
        self
    }

    /// How much processor time each call may use, over all threads of its worker, and the initializer too. Who waits or sleeps
    /// uses none: see [`TaskOptions::time_limit`](executor_core::TaskOptions::time_limit) for that. Processes that a call
    /// starts have their own.
    ///
    /// A call that uses more ends with its worker, by SIGXCPU, and its error, for which
    /// [`TaskError::is_limit_exceeded`](executor_core::TaskError::is_limit_exceeded) holds, says so; the worker is replaced.
    /// (A call that handles that signal has one more second: then it is a [lost
    /// worker](executor_core::TaskError::is_worker_lost), by SIGKILL.)
    ///
    /// # Panics
    /// If `limit` is zero.
    pub fn max_cpu_time(mut self, limit: Duration) -> Self {
        assert!(!limit.is_zero(), "a call needs some processor time, not zero");
        self.limits.cpu_time = Some(limit);
        self
    }

    /// How many files, sockets and the like a worker may have open, of which it needs about six itself. Opening more is an
    /// `io::Error` inside of the call, which decides what that means.
    pub fn max_open_files(mut self, count: u64) -> Self {
        self.limits.open_files = Some(count);
        self
    }

    /// Workers that crash leave no core file. Without it, it is as the system says.
    pub fn without_core_files(mut self) -> Self {
        self.limits.no_core_files = true;
        self
    }

    /// Replaces every worker by a fresh one after so many calls, for calls that leak. Python's `max_tasks_per_child`.
    ///
    /// The fresh one is started as the old one begins its last calls, so that nobody waits for it afterwards: for a while there
    /// are more processes than workers that make calls, at most twice as many.
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
    /// second, and given no more of them as soon as another one is ready.
    pub fn max_memory_growth_bytes(mut self, bytes: u64) -> Self {
        self.recycling.memory_growth_bytes = Some(bytes);
        self
    }

    /// Replaces a worker that has served for so long: it is given no more calls as soon as another one is ready, and finishes
    /// what it has begun.
    ///
    /// # Panics
    /// If `age` is zero.
    pub fn max_worker_age(mut self, age: Duration) -> Self {
        assert!(!age.is_zero(), "a worker must serve for a while, not for no time");
        self.recycling.max_age = Some(age);
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

    /// How worker processes come to be. Without it, each is this program, started again.
    pub fn start_method(mut self, method: StartMethod) -> Self {
        self.start_method = method;
        self
    }

    /// Has the process from which workers are forked call `function` on `args`, once, before the first of them: what it leaves in
    /// memory, such as a table in a `static`, is there in each worker, and shared until somebody writes to it. It begins with
    /// the pool, and workers wait for it. For [`StartMethod::ForkServer`], an example of which is there.
    ///
    /// If it panics, or leaves threads behind, which a fork would not take along, the pool is broken and says so. What it left
    /// in memory counts for [`max_memory_bytes`](Self::max_memory_bytes) of each worker, though they share it; it has no limits itself.
    #[track_caller]
    pub fn preload<A: SharedValue + Clone>(mut self, function: fn(A), args: A) -> Self {
        self.preload = Some(WorkerCall::new(function, args));
        self
    }

    /// Tells `observer` what tasks and workers do. There may be several. A call's beginning is told within some hundredths of a
    /// second, with the time at which it was.
    pub fn observer(mut self, observer: impl Observer + 'static) -> Self {
        self.observers.0.push(Arc::new(observer));
        self
    }

    /// Makes the pool. Its processes start as they are needed.
    ///
    /// # Errors
    /// [`BuildError::Workers`] when `max_workers` is zero or absurdly large; [`BuildError::Name`] when the prefix cannot be a
    /// name; [`BuildError::Variable`] when an environment variable cannot be set; [`BuildError::Unsupported`] when the system
    /// refuses what the pool needs, or when this process is itself a worker that did not become one;
    /// [`BuildError::Nested`] in a worker of a worker of a worker, ten deep.
    pub fn build(self) -> Result<ProcessPoolExecutor, BuildError> {
        worker::keep_entry();
        if worker::is_stray_worker() {
            // Going on would start workers that start workers, for ever.
            return Err(BuildError::Unsupported(worker::STRAY.into()));
        }
        if let Some(library) = worker::late_module() {
            return Err(BuildError::Unsupported(format!(
                "this pool is part of {library}, which the program has loaded by hand: a worker is the program, started again, and \
                 would run its `main` before that library is there; link the program with the library, or use a \
                 `ThreadPoolExecutor`"
            )));
        }
        let depth = os::depth();
        if depth >= MAX_DEPTH {
            return Err(BuildError::Nested { depth, limit: MAX_DEPTH });
        }
        let asked = self.max_workers.unwrap_or_else(|| cpu_count().get().min(MAX_WORKERS));
        let max_workers = number_of_workers(asked)?;
        if let Some(prefix) = self.name_prefix.as_ref().filter(|prefix| prefix.contains('\0')) {
            return Err(BuildError::Name { prefix: prefix.clone() });
        }
        if let Some((name, _)) = self.env.iter().find(|(name, value)| !can_be_set(name, value)) {
            return Err(BuildError::Variable { name: name.to_string_lossy().into_owned() });
        }
        if self.preload.is_some() && self.start_method != StartMethod::ForkServer {
            let why = "a preload is made where workers are forked: choose `StartMethod::ForkServer`, or an initializer instead";
            return Err(BuildError::Unsupported(why.into()));
        }
        if let Err(error) = fs::read_link(os::PROGRAM) {
            let why = format!("this program cannot be started again: {}: {error}; is /proc mounted here?", os::PROGRAM);
            return Err(BuildError::Unsupported(why));
        }
        let share = NonZeroUsize::new(cpu_count().get() / max_workers).unwrap_or(NonZeroUsize::MIN);
        let inner = self.inner_threads.map_or(InnerThreads::Share(share), InnerThreads::Chosen);
        ProcessPoolExecutor::start(max_workers, inner, self)
            .map_err(|error| BuildError::Unsupported(format!("a process pool cannot be set up here: {error}")))
    }

    /// The pool of these choices that the whole program shares: loky's reusable executor.
    ///
    /// As long as it is asked for with equal choices, it is the same pool with the same workers; another `max_workers`
    /// [resizes](ProcessPoolExecutor::resize) it, and none leaves it as large as it is. With other choices, or when it is
    /// broken or was shut down, a new pool takes its place; the old one serves whoever still has it, and finishes what was
    /// submitted. The shared pool is never dropped: with an [`idle_timeout`](Self::idle_timeout) its processes leave when nobody
    /// needs them, and all end with the program.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{Executor, ProcessPoolExecutor};
    ///
    /// let pid = || {
    ///     let pool = ProcessPoolExecutor::builder().max_workers(1).process_name_prefix("shared").build_shared().unwrap();
    ///     pool.submit(|()| std::process::id(), ()).result()
    /// };
    /// assert_eq!(pid()?, pid()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn build_shared(self) -> Result<Arc<ProcessPoolExecutor>, BuildError> {
        reuse::with(self)
    }
}

/// A number of workers that a pool may have.
pub(crate) fn number_of_workers(asked: usize) -> Result<NonZeroUsize, BuildError> {
    let workers = NonZeroUsize::new(asked).filter(|workers| workers.get() <= MAX_WORKERS);
    workers.ok_or(BuildError::Workers { asked, limit: MAX_WORKERS })
}

fn can_be_set(name: &OsStr, value: &OsStr) -> bool {
    let own = name == os::MARKER || name == os::DEPTH;
    let is_name = !name.is_empty() && !name.as_bytes().contains(&b'=');
    !own && is_name && !name.as_bytes().contains(&0) && !value.as_bytes().contains(&0)
}
