//! The handle: accepting tasks, shutdown.

use executor_core::{
    BuildError, Executor, Shutdown, ShutdownReport, Task, blocking, initializer::Initializer, sync::Mutex,
};
use std::{
    fmt, io,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use crate::{builder::ProcessPoolExecutorBuilder, driver, inbox::Shared};

/// Runs calls in worker processes of this program. Python's `ProcessPoolExecutor`.
///
/// A call that crashes, exits, leaks or hangs takes only its own worker with it: its future fails with
/// [`TaskError::is_worker_lost`](executor_core::TaskError::is_worker_lost), every other task goes on, and the worker
/// is replaced. [`Future::kill`](executor_core::Future::kill) stops one running call.
///
/// # What a worker is
/// This same program, started again, which turns into a worker before `main` begins: see [`worker`](crate::worker). It has
/// its own memory, so it sees this program's constants and functions, and none of what was assigned since. Standard
/// output and error are this process's (the last of the error output is also kept for a lost worker's error); standard
/// input is empty. It dies with this process, whatever ends that. Ctrl-C and Ctrl-Z go to this process only.
/// (Its standard error is a pipe to this process, so it is no terminal there.)
///
/// # Examples
/// ```
/// use concurrent_futures::{Executor, ProcessPoolExecutor};
///
/// let pool = ProcessPoolExecutor::new(2)?;
/// let lost = pool.submit(|code| -> () { std::process::exit(code) }, 3);
/// let fine = pool.submit(|x: u64| x * x, 12);
/// assert!(lost.result().unwrap_err().is_worker_lost());
/// assert_eq!(fine.result()?, 144);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ProcessPoolExecutor {
    shared: Arc<Shared>,
    driver: Mutex<Option<JoinHandle<()>>>,
    /// A shutdown was asked for by name: dropping the pool has nothing left to decide.
    dismissed: AtomicBool,
}

impl ProcessPoolExecutor {
    /// A pool on which at most `max_workers` calls run at a time. Processes start as they are needed.
    ///
    /// # Errors
    /// [`BuildError::Workers`] when `max_workers` is zero or absurdly large; [`BuildError::Unsupported`] when the system
    /// refuses what the pool needs.
    pub fn new(max_workers: usize) -> Result<Self, BuildError> {
        Self::builder().max_workers(max_workers).build()
    }

    /// For choosing more than the number of workers.
    pub fn builder() -> ProcessPoolExecutorBuilder {
        ProcessPoolExecutorBuilder::default()
    }

    pub(crate) fn start(
        max_workers: usize,
        name_prefix: Option<String>,
        initializer: Option<Initializer>,
    ) -> io::Result<Self> {
        static POOLS: AtomicUsize = AtomicUsize::new(0);
        let name_prefix = name_prefix.unwrap_or_else(|| {
            // ORDERING: Relaxed; only uniqueness matters.
            format!("executor-{}", POOLS.fetch_add(1, Ordering::Relaxed))
        });
        let initializer = initializer.map(|initializer| {
            let (task, future) = initializer.task();
            task.pack().map_err(|_| match future.exception() {
                Some(error) => io::Error::other(error.clone()),
                None => io::Error::other("its initializer was cancelled"),
            })
        });
        let max_workers = NonZeroUsize::new(max_workers).expect("the builder refuses zero");
        let shared = Arc::new(Shared::new(max_workers, name_prefix, initializer.transpose()?)?);
        let driven = Arc::clone(&shared);
        let driver =
            thread::Builder::new().name(format!("{}-driver", shared.name_prefix)).spawn(|| driver::run(driven))?;
        Ok(ProcessPoolExecutor { shared, driver: Mutex::new(Some(driver)), dismissed: AtomicBool::new(false) })
    }

    /// The worker processes that there are now.
    #[must_use]
    pub fn worker_pids(&self) -> Vec<u32> {
        self.shared.inbox().pids.clone()
    }

    fn shut_down(&self, how: Shutdown) -> ShutdownReport {
        let deadline = how.deadline();
        self.shared.order(|inbox| inbox.closed = true);
        let cancelled = if how.cancels_pending() { self.shared.cancel_pending() } else { 0 };
        let inside = blocking::current_home() == Some(self.shared.home);
        if !inside && !how.is_no_wait() {
            blocking::while_blocked(|| self.wait_for_driver(deadline));
        }
        ShutdownReport { cancelled, unfinished: self.shared.unfinished() }
    }

    fn wait_for_driver(&self, deadline: Option<Instant>) {
        let over = self.shared.wait_until(deadline, |inbox| inbox.driver_is_over);
        if over && let Some(driver) = self.driver.lock().take() {
            // It has said that it is over; this waits for the operating system to be done with it.
            let _ = driver.join();
        }
    }
}

impl Executor for ProcessPoolExecutor {
    fn execute(&self, task: Task) {
        if let Some(refusal) = self.shared.inbox().refusal() {
            drop(task.fail(refusal));
            return;
        }
        // Encoded on the thread that submits: errors are there at once, and the driver runs no user code.
        match task.pack() {
            Ok(parcel) => self.shared.accept(parcel),
            Err(announcement) => drop(announcement),
        }
    }

    fn max_workers(&self) -> NonZeroUsize {
        self.shared.max_workers
    }

    fn shutdown(&self, how: Shutdown) -> ShutdownReport {
        // ORDERING: Relaxed; read by `drop`, which has the pool to itself.
        self.dismissed.store(true, Ordering::Relaxed);
        self.shut_down(how)
    }
}

/// Waits for everything that was submitted; in a panic, cancels first what has not begun. After a
/// [`shutdown`](Executor::shutdown) it does nothing.
impl Drop for ProcessPoolExecutor {
    fn drop(&mut self) {
        if self.dismissed.load(Ordering::Relaxed) {
            return;
        }
        let how = if thread::panicking() { Shutdown::wait().cancel_pending() } else { Shutdown::wait() };
        self.shut_down(how);
    }
}

impl fmt::Debug for ProcessPoolExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inbox = self.shared.inbox();
        f.debug_struct("ProcessPoolExecutor")
            .field("max_workers", &self.shared.max_workers)
            .field("workers", &inbox.pids)
            .field("unfinished", &self.shared.unfinished())
            .finish_non_exhaustive()
    }
}
