//! An executor without workers: each call is made by whoever submits it.

use executor_core::{Executor, Failure, Rejected, Shutdown, ShutdownReport, Task, blocking::Home, task::Retries};
use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// Makes each call at once, on the thread that submits it: for debugging, and for what is not worth a pool.
///
/// `submit` returns when the call is over. A panic is contained and becomes the future's error, as on any executor.
/// With a [time limit](crate::TaskOptions::time_limit), a call that is over it has failed, and is
/// [asked to stop](crate::current_task); the thread is busy until it does.
///
/// # Examples
/// ```
/// use concurrent_futures::{Executor, SequentialExecutor};
/// use std::thread;
///
/// let here = SequentialExecutor::new();
/// let future = here.submit(|()| format!("{:?}", thread::current().id()), ());
/// assert!(future.done());
/// assert_eq!(future.result()?, format!("{:?}", thread::current().id()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SequentialExecutor {
    home: Home,
    again: Arc<Again>,
    is_closed: AtomicBool,
}

/// Makes further attempts at a call, right after the one before.
#[derive(Debug)]
struct Again;

impl Retries for Again {
    fn retry(self: Arc<Self>, task: Task, pause: Duration) {
        thread::sleep(pause);
        task.resume();
        task.run();
    }
}

impl SequentialExecutor {
    /// An executor that is ready.
    #[must_use]
    pub fn new() -> Self {
        SequentialExecutor { home: Home::new(), again: Arc::new(Again), is_closed: AtomicBool::new(false) }
    }

    fn run(&self, task: Task) {
        task.belong_to(self.home, &self.again);
        task.run();
    }

    fn is_closed(&self) -> bool {
        // ORDERING: Relaxed; nothing is read on the strength of it. Who shuts down while another thread submits may be
        // late.
        self.is_closed.load(Ordering::Relaxed)
    }
}

impl Default for SequentialExecutor {
    fn default() -> Self {
        SequentialExecutor::new()
    }
}

impl Executor for SequentialExecutor {
    fn execute(&self, task: Task) {
        match self.is_closed() {
            true => drop(task.fail(Failure::Shutdown)),
            false => self.run(task),
        }
    }

    fn try_execute(&self, task: Task, _: Duration) -> Result<(), Rejected<Task>> {
        if self.is_closed() {
            return Err(Rejected::new(task, Failure::Shutdown));
        }
        self.run(task);
        Ok(())
    }

    fn max_workers(&self) -> NonZeroUsize {
        NonZeroUsize::MIN
    }

    /// Refuses further calls. There are none to wait for.
    fn shutdown(&self, _: Shutdown) -> ShutdownReport {
        self.is_closed.store(true, Ordering::Relaxed);
        ShutdownReport::new(0, 0, 0)
    }
}
