//! Python's `concurrent.futures` for Rust: calls that run in parallel, with a handle on each.
//!
//! ```
//! use concurrent_futures::{Executor, ProcessPoolExecutor, as_completed}; // or ThreadPoolExecutor
//!
//! fn cube(x: u64) -> u64 {
//!     x.pow(3)
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let pool = ProcessPoolExecutor::new(4)?; // the one type to change
//!     println!("{}", pool.submit(cube, 3).result()?);
//!     let squares: Vec<u64> = pool.map(|x| x * x, 0..20).collect::<Result<_, _>>()?;
//!     println!("{squares:?}");
//!     for future in as_completed((1..=4).map(|x| pool.submit(cube, x))) {
//!         println!("{}", future.result()?);
//!     }
//!     Ok(())
//! }
//! ```
//!
//! One trait, [`Executor`], with `submit`, `map` and `shutdown`; behind it a work-stealing [`ThreadPoolExecutor`] and a
//! supervised [`ProcessPoolExecutor`]. Callers swap them by changing one type, or choose at run time with a
//! `Box<dyn Executor>`. Nothing is registered, `main` stays as it is, and closures work too, as long as they capture
//! nothing: what a call needs is its argument.
//!
//! - A call's handle is a [`Future`]: [`result`](Future::result), `.await`, [`cancel`](Future::cancel),
//!   [`cancel_on_drop`](Future::cancel_on_drop), [`add_done_callback`](Future::add_done_callback).
//! - Many of them: [`Executor::map`], [`wait()`], [`as_completed`].
//! - Whatever goes wrong is a [`TaskError`] of that one call.
//! - Time limits, retries and priorities: [`Executor::with`]. A running call that can stop half-way: [`current_task`].
//! - What calls in worker processes print: [`ProcessPoolExecutorBuilder::output`]. What they log reaches this process's logger
//!   with the feature `log`, its subscriber with `tracing`.
//! - What a pool does: [`Executor::stats`], [`Executor::dump`], an [`Observer`]; with the feature `timeline` a picture of it.
//! - Without a pool: a [`Process`] for one call, [`Queue`]s and [`pipe`]s between processes, [`wait_any`].
//! - By the names of Python's `multiprocessing` and `threading`: a [`Pool`] or [`ThreadPool`] with `apply`, `map` and `imap`, and
//!   [`Thread`] in [`threading`].
//! - A program with threads only says `default-features = false`, and compiles nothing that the others need. The feature `process` is the
//!   process pool and all that goes with it, `constructor` (the default) also starts its workers, and `retry`, which both bring along, is
//!   [`TaskOptions::retry`].
//! - joblib's loops: [`parallel`]. Without workers: [`SequentialExecutor`]. Bars on the terminal, with the feature `progress`:
//!   `progress`.
//! - What only threads can do has its own names: [`ThreadPoolExecutor::spawn`], [`ThreadPoolExecutor::scope`],
//!   [`ThreadPoolExecutor::join`].

pub mod parallel;
mod pool;
#[cfg(feature = "progress")]
pub mod progress;
mod sequential;
#[cfg(feature = "timeline")]
pub mod timeline;

#[cfg(feature = "process")]
pub use executor_core::ExitReport;
#[cfg(feature = "retry")]
pub use executor_core::RetryPolicy;
pub use executor_core::cpu;
pub use executor_core::cpu::{cpu_count, effective_n_jobs};
pub use executor_core::{
    ALL_COMPLETED, AsCompleted, AsCompletedTimeout, AsFuture, AsyncResult, BrokenCause, BuildError, CancelOnDrop,
    CancelToken, Cancelled, Context, CurrentTask, DropPolicy, Dump, Executor, Exit, FIRST_COMPLETED, FIRST_EXCEPTION,
    Failure, Function, Future, Map, NotYet, Observer, Panic, Priority, Rejected, ResourceLimit, ReturnWhen,
    RunningTask, SharedValue, Shutdown, ShutdownReport, Stats, TaskError, TaskEvent, TaskEventKind, TaskId,
    TaskOptions, Timeout, Value, WaitError, Waited, WhenFull, With, WorkerEnd, WorkerEvent, WorkerEventKind,
    WorkerInfo, WorkerKind, WorkerLost, as_completed, current_task, wait, wait_timeout,
};
#[cfg(feature = "process")]
pub use executor_process::{
    ActiveChild, Connection, CurrentProcess, JoinError, JoinableQueue, Never, Output, OutputLine, OutputStream,
    ParentProcess, Plain, Process, ProcessHandle, ProcessPoolExecutor, ProcessPoolExecutorBuilder, PutError, Queue,
    QueueError, QueueTask, Shared, StartError, StartMethod, active_children, current_process, one_way_pipe,
    parent_process, pipe, wait_any, worker,
};
pub use executor_thread::{
    Scope, ScopedFuture, Thread, ThreadHandle, ThreadInfo, ThreadJoinError, ThreadPoolExecutor,
    ThreadPoolExecutorBuilder,
};
pub use pool::{Chunked, Pool, PoolBuilder, ThreadPool};
pub use sequential::SequentialExecutor;

/// Python's `threading`, by its names.
///
/// What else is in it has its place in the standard library: `Lock` and `Condition` are [`Mutex`](std::sync::Mutex) and
/// [`Condvar`](std::sync::Condvar), `Barrier` is [`Barrier`](std::sync::Barrier), and `local()` is [`thread_local!`].
pub mod threading {
    pub use executor_thread::{
        Thread, ThreadHandle, ThreadInfo, ThreadJoinError, active_count, current_thread, enumerate, main_thread,
    };
}

/// For authors of backends: what an [`Executor`] receives, and what it needs to run it or to send it.
pub mod backend {
    #[cfg(feature = "retry")]
    pub use executor_core::portable;
    pub use executor_core::{
        Task, admission, attachments, blocking, cell, context, current, levels, observe, retry, seat, stats, task,
        worker_call,
    };
}

#[cfg(all(doctest, feature = "process"))]
#[doc = include_str!("../README.md")]
struct Readme;

/// The pages of the guide, whose programs are tests like those of the README. Whole examples among them are checked by `tests/guide.rs`.
#[cfg(all(doctest, feature = "process"))]
mod guide {
    #[doc = include_str!("../docs/guide/src/introduction.md")]
    struct Introduction;
    #[doc = include_str!("../docs/guide/src/first-loop.md")]
    struct FirstLoop;
    #[doc = include_str!("../docs/guide/src/lambdas.md")]
    struct Lambdas;
    #[doc = include_str!("../docs/guide/src/loops-that-cannot-be-parallel.md")]
    struct LoopsThatCannotBeParallel;
    #[doc = include_str!("../docs/guide/src/tiny-tasks.md")]
    struct TinyTasks;
    #[doc = include_str!("../docs/guide/src/cpu-and-io.md")]
    struct CpuAndIo;
    #[doc = include_str!("../docs/guide/src/pool.md")]
    struct Pool;
    #[doc = include_str!("../docs/guide/src/by-hand.md")]
    struct ByHand;
    #[doc = include_str!("../docs/guide/src/joblib.md")]
    struct Joblib;
    #[doc = include_str!("../docs/guide/src/futures.md")]
    struct Futures;
    #[doc = include_str!("../docs/guide/src/map.md")]
    struct Map;
    #[doc = include_str!("../docs/guide/src/async.md")]
    struct Async;
    #[doc = include_str!("../docs/guide/src/errors.md")]
    struct Errors;
    #[doc = include_str!("../docs/guide/src/stopping.md")]
    struct Stopping;
    #[doc = include_str!("../docs/guide/src/large-data.md")]
    struct LargeData;
    #[doc = include_str!("../docs/guide/src/output.md")]
    struct Output;
    #[doc = include_str!("../docs/guide/src/seeing-it-work.md")]
    struct SeeingItWork;
    #[doc = include_str!("../docs/guide/src/timeline.md")]
    struct Timeline;
    #[doc = include_str!("../docs/guide/src/gutenberg.md")]
    struct Gutenberg;
    #[doc = include_str!("../docs/guide/src/a-whole-program.md")]
    struct AWholeProgram;
    #[doc = include_str!("../docs/guide/src/which-backend.md")]
    struct WhichBackend;
    #[doc = include_str!("../docs/guide/src/worker-processes.md")]
    struct WorkerProcesses;
    #[doc = include_str!("../docs/guide/src/coming-from-python.md")]
    struct ComingFromPython;
}
