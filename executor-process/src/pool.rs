//! The handle: accepting tasks, shutdown. What it shares with the driver is the *inbox*: a queue and a few orders,
//! behind one lock that nobody holds while user code runs.

use executor_core::{
    BrokenCause, BuildError, Executor, Failure, Shutdown, ShutdownReport, Task,
    blocking::{self, Home},
    cell::Channel,
    initializer::Initializer,
    sync::{Condvar, Mutex, MutexGuard},
    task::Parcel,
};
use rustix::event::{EventfdFlags, eventfd};
use std::{
    collections::VecDeque,
    fmt, io, mem,
    num::NonZeroUsize,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use crate::{
    builder::ProcessPoolExecutorBuilder,
    claims::{Claim, Claims},
    driver,
};

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
/// input is empty. It dies with this process, whatever ends that. Ctrl-C goes to this process only.
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

pub(crate) struct Shared {
    pub(crate) max_workers: NonZeroUsize,
    pub(crate) name_prefix: String,
    /// What each worker is to do first; encoded once.
    pub(crate) initializer: Option<Parcel>,
    pub(crate) home: Home,
    pub(crate) wake: OwnedFd,
    inbox: Mutex<Inbox>,
    changed: Condvar,
}

/// What the handle leaves for the driver, and what the driver tells.
#[derive(Default)]
pub(crate) struct Inbox {
    pub(crate) queue: VecDeque<Parcel>,
    pub(crate) closed: bool,
    pub(crate) broken: Option<BrokenCause>,
    pub(crate) kills: Vec<KillOrder>,
    /// How often the driver was asked to take back what has not begun, and how often it did.
    pub(crate) recalls_asked: u64,
    pub(crate) recalls_done: u64,
    /// What it took back, for those who asked.
    pub(crate) recalled: Vec<Parcel>,
    /// Tasks that were accepted and have no outcome.
    pub(crate) unfinished: usize,
    pub(crate) pids: Vec<u32>,
    pub(crate) driver_is_over: bool,
    /// Something was changed since the driver looked.
    news: bool,
    driver_sleeps: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct KillOrder {
    /// The worker's serial number.
    pub(crate) worker: u64,
    pub(crate) ticket: u64,
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
        let shared = Arc::new(Shared {
            max_workers: NonZeroUsize::new(max_workers).expect("the builder refuses zero"),
            name_prefix,
            initializer: initializer.transpose()?,
            home: Home::new(),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            inbox: Mutex::default(),
            changed: Condvar::new(),
        });
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
            self.wait_for_driver(deadline);
        }
        ShutdownReport { cancelled, unfinished: self.shared.inbox().unfinished }
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
            .field("unfinished", &inbox.unfinished)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock()
    }

    /// Changes the inbox, and makes the driver look at it.
    pub(crate) fn order<T>(&self, change: impl FnOnce(&mut Inbox) -> T) -> T {
        let mut inbox = self.inbox.lock();
        let result = change(&mut inbox);
        inbox.news = true;
        let sleeps = mem::take(&mut inbox.driver_sleeps);
        drop(inbox);
        if sleeps {
            // WAKES: the driver in `poll`. It said under the lock that it would sleep, and only if there were
            // no news, so each later order finds `driver_sleeps`; the counter stays readable until it is
            // read, so it cannot be missed between saying and polling. A full counter is as readable as
            // any, so an error changes nothing.
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
        result
    }

    /// The driver: begins to look at everything.
    pub(crate) fn begin_to_look(&self) -> MutexGuard<'_, Inbox> {
        let mut inbox = self.inbox.lock();
        inbox.news = false;
        inbox
    }

    /// The driver: says that it will sleep, unless there are news since it began to look.
    pub(crate) fn prepare_to_sleep(&self) -> bool {
        let mut inbox = self.inbox.lock();
        inbox.driver_sleeps = !inbox.news;
        inbox.driver_sleeps
    }

    /// The driver: is awake, because it was `woken` or because of something else.
    pub(crate) fn awake(&self, woken: bool) {
        self.inbox.lock().driver_sleeps = false;
        if woken {
            // Readable, so there is nothing that could fail.
            let _ = rustix::io::read(&self.wake, &mut [0_u8; 8][..]);
        }
    }

    /// The driver tells what waiters of `wait_until` may want to know.
    pub(crate) fn tell(&self, change: impl FnOnce(&mut Inbox)) {
        change(&mut self.inbox.lock());
        // WAKES: threads in `wait_until`; what their conditions look at was changed under the lock.
        self.changed.notify_all();
    }

    fn wait_until(&self, deadline: Option<Instant>, condition: impl Fn(&Inbox) -> bool) -> bool {
        let mut inbox = self.inbox.lock();
        while !condition(&inbox) {
            match deadline {
                None => self.changed.wait(&mut inbox),
                Some(deadline) => {
                    if self.changed.wait_until(&mut inbox, deadline).timed_out() {
                        return condition(&inbox);
                    }
                }
            }
        }
        true
    }

    fn accept(&self, parcel: Parcel) {
        // Under one lock: a task is accepted before the pool is closed, or refused.
        let refused = self.order(|inbox| match inbox.refusal() {
            Some(refusal) => Some((parcel, refusal)),
            None => {
                inbox.queue.push_back(parcel);
                inbox.unfinished += 1;
                None
            }
        });
        if let Some((parcel, refusal)) = refused {
            drop(parcel.fail(refusal));
        }
    }

    /// Cancels, on this thread, what has not begun: in the queue, and in the workers' channels.
    fn cancel_pending(&self) -> usize {
        let asked = self.order(|inbox| {
            inbox.recalls_asked += 1;
            inbox.recalls_asked
        });
        self.wait_until(None, |inbox| inbox.recalls_done >= asked || inbox.driver_is_over);
        let pending = mem::take(&mut self.inbox().recalled);
        let count = pending.len();
        let cancelled = pending.into_iter().filter_map(|parcel| parcel.cancel().then_some(())).count();
        self.order(|inbox| inbox.unfinished -= count);
        cancelled
    }
}

impl Inbox {
    /// Why nothing is accepted any more, if so.
    pub(crate) fn refusal(&self) -> Option<Failure> {
        match &self.broken {
            Some(cause) => Some(Failure::Broken(cause.clone())),
            None => self.closed.then_some(Failure::Shutdown),
        }
    }
}

/// One worker's channel, as the tasks in it see it.
pub(crate) struct WorkerChannel {
    pub(crate) worker: u64,
    pub(crate) claims: Claims,
    pub(crate) shared: Arc<Shared>,
}

impl Channel for WorkerChannel {
    fn revoke(&self, ticket: u64) -> bool {
        self.claims.revoke(ticket)
    }

    fn has_begun(&self, ticket: u64) -> bool {
        self.claims.get(ticket) == Claim::Begun
    }

    fn kill(&self, ticket: u64) -> bool {
        self.shared.order(|inbox| inbox.kills.push(KillOrder { worker: self.worker, ticket }));
        true
    }
}

impl fmt::Debug for WorkerChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerChannel").field("worker", &self.worker).finish_non_exhaustive()
    }
}
