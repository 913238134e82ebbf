//! The handle: accepting tasks, shutdown.

use executor_core::{
    BuildError, Dump, Executor, Failure, Rejected, Shutdown, ShutdownReport, Stats, Task, WhenFull,
    admission::{Admission, Full, Permit},
    blocking,
    drive::Drive,
    observe::Observers,
    sync::Mutex,
    task::Parcel,
    worker_call::WorkerCall,
};
use std::{
    cell::Cell,
    fmt, io, mem,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    builder::{self, ProcessPoolExecutorBuilder},
    echo,
    engine::Engine,
    inbox::{Choices, Shared, Stop},
    os::InnerThreads,
    records, reuse,
    supervisor::KILL_GRACE,
};

/// Runs calls in worker processes of this program. Python's `ProcessPoolExecutor`.
///
/// A call that crashes, exits, leaks or hangs takes only its own worker with it: its future fails with
/// [`TaskError::is_worker_lost`](executor_core::TaskError::is_worker_lost), every other task goes on, and the worker
/// is replaced. [`Future::kill`](executor_core::Future::kill) stops one running call.
///
/// # What a worker is
/// This same program, started again, which turns into a worker before `main` begins: see [`worker`](crate::worker), and
/// [`StartMethod`](crate::StartMethod) for another way. It has
/// its own memory, so it sees this program's constants and functions, and none of what was assigned since. Standard
/// output and error are this process's (the last of the error output is also kept for a lost worker's error); standard
/// input is empty. It dies with this process, whatever ends that. Ctrl-C and Ctrl-Z go to this process only.
/// (Its standard error is a pipe to this process, so it is no terminal there.)
/// [`output`](crate::ProcessPoolExecutorBuilder::output) chooses something else for what it prints.
///
/// With the feature `log` or `tracing`, records of its calls reach this process's logger or subscriber, with the call's number
/// and where it was submitted: those up to the level that is wanted here when the worker starts, and none where nobody
/// looks. They are handed over on a thread of the pool's own, in the order in which each worker made them, and all of
/// them before [`shutdown`](Executor::shutdown) has waited; a crash right behind a record does not take it along. Spans of
/// `tracing` stay in the worker. An initializer that sets a logger, or a global subscriber, keeps it instead.
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
    engine: Arc<Engine>,
    driver: Mutex<Option<JoinHandle<()>>>,
    /// A shutdown was asked for by name: dropping the pool has nothing left to decide.
    dismissed: AtomicBool,
    /// The workers are being stopped.
    stops: AtomicBool,
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

    /// The pool that the whole program shares, whatever was chosen for it: made now, with nothing chosen, if there is none that
    /// takes calls. With choices: [`build_shared`](ProcessPoolExecutorBuilder::build_shared).
    ///
    /// # Errors
    /// As [`build`](ProcessPoolExecutorBuilder::build).
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{Executor, ProcessPoolExecutor};
    ///
    /// fn cube(x: u64) -> Result<u64, Box<dyn std::error::Error>> {
    ///     Ok(ProcessPoolExecutor::shared()?.submit(|x: u64| x.pow(3), x).result()?)
    /// }
    /// assert_eq!((cube(2)?, cube(3)?), (8, 27)); // of the same workers
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn shared() -> Result<Arc<Self>, BuildError> {
        reuse::present().map_or_else(|| reuse::with(Self::builder()), Ok)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.shared.is_closed()
    }

    /// Lets so many calls run at the same time from now on. Returns at once.
    ///
    /// More workers start as they are needed. When there are too many, idle ones leave, and others as soon as they have made the
    /// call that they make; what waits in their channels is given to those that stay. A queue capacity counts from the new
    /// number. What libraries in the workers were told of threads stays.
    ///
    /// # Errors
    /// [`BuildError::Workers`] when `max_workers` is zero or absurdly large: then nothing is changed.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{Executor, ProcessPoolExecutor};
    ///
    /// let pool = ProcessPoolExecutor::new(1)?;
    /// pool.resize(2)?;
    /// assert_eq!(pool.max_workers().get(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn resize(&self, max_workers: usize) -> Result<(), BuildError> {
        self.shared.resize(builder::number_of_workers(max_workers)?);
        Ok(())
    }

    pub(crate) fn start(
        max_workers: NonZeroUsize,
        inner_threads: InnerThreads,
        chosen: ProcessPoolExecutorBuilder,
    ) -> io::Result<Self> {
        static POOLS: AtomicUsize = AtomicUsize::new(0);
        let name_prefix = chosen.name_prefix.unwrap_or_else(|| {
            // ORDERING: Relaxed; only uniqueness matters.
            format!("executor-{}", POOLS.fetch_add(1, Ordering::Relaxed))
        });
        let (capacity, when_full) = chosen.queue_capacity.unzip();
        let observers = Observers::start(chosen.observers.0, &name_prefix)?;
        let shared = Arc::new(Shared::new(Choices {
            max_workers: AtomicUsize::new(max_workers.get()),
            name_prefix,
            drop_policy: chosen.drop_policy,
            initializer: chosen.initializer.as_ref().map(packed).transpose()?,
            finalizer: chosen.finalizer.as_ref().map(packed).transpose()?,
            recycling: chosen.recycling,
            limits: chosen.limits,
            kill_grace: chosen.kill_grace.unwrap_or(KILL_GRACE),
            env: chosen.env,
            inner_threads,
            output: chosen.output,
            records: records::Here::find(),
            start_method: chosen.start_method,
            preload: chosen.preload.as_ref().map(packed).transpose()?,
            admission: Arc::new(Admission::new(capacity, when_full.unwrap_or_default(), max_workers)),
            observers,
        })?);
        let engine = Arc::new(Engine::new(Arc::clone(&shared))?);
        shared.chosen.admission.set_driver(&engine);
        let driven = Arc::clone(&engine);
        let driver =
            thread::Builder::new().name(format!("{}-driver", shared.chosen.name_prefix)).spawn(move || driven.run())?;
        Ok(ProcessPoolExecutor {
            shared,
            engine,
            driver: Mutex::new(Some(driver)),
            dismissed: AtomicBool::new(false),
            stops: AtomicBool::new(false),
        })
    }

    /// Encodes a task that was admitted, on the thread that submits it: errors are there at once, and the driver runs no
    /// user code.
    fn accept(&self, task: Task, permit: Permit) {
        self.observe(&task);
        task.hold(permit);
        match task.pack() {
            Ok(mut parcel) => {
                if let Some(origin) = records::origin() {
                    parcel.set_luggage(origin);
                }
                self.engine.accept(parcel);
            }
            Err(announcement) => drop(announcement),
        }
    }

    /// Makes a call on this thread, in this process.
    fn make_here(&self, task: Task) {
        self.observe(&task);
        let counters = &self.shared.tally.here;
        counters.begin_beside();
        task.run_counted(|made| counters.end_in_place(made));
    }

    fn observe(&self, task: &Task) {
        if let Some(observers) = &self.shared.chosen.observers {
            task.observe(observers);
        }
    }

    fn enter_when_there_is_room(&self, deadline: Option<Instant>) -> Result<Permit, Full> {
        let admission = &self.shared.chosen.admission;
        let enter = || admission.enter(deadline, || self.shared.is_closed());
        blocking::while_blocked(|| {
            let entered = Cell::new(None);
            let has_entered = || {
                let found = entered.take().or_else(|| admission.try_enter().ok());
                let is_inside = found.is_some();
                entered.set(found);
                is_inside
            };
            let mut slept = None;
            self.engine.wait(deadline, &has_entered, &mut || slept = Some(enter()));
            entered.take().map(Ok).or(slept).unwrap_or_else(enter)
        })
    }

    /// The worker processes that there are now.
    #[must_use]
    pub fn worker_pids(&self) -> Vec<u32> {
        self.shared.inbox().pids.clone()
    }

    /// Cancels what has not begun, has every worker end by SIGTERM, and soon afterwards by SIGKILL, and returns at once.
    /// Python's method of that name.
    pub fn terminate_workers(&self) -> ShutdownReport {
        self.dismiss();
        self.stop(Shutdown::no_wait().cancel_pending(), Some(Stop::Terminate))
    }

    /// Cancels what has not begun, ends every worker by SIGKILL, and returns at once. Python's method of that name.
    pub fn kill_workers(&self) -> ShutdownReport {
        self.dismiss();
        self.stop(Shutdown::no_wait().cancel_pending(), Some(Stop::Kill))
    }

    fn dismiss(&self) {
        // ORDERING: Relaxed; read by `drop`, which has the pool to itself.
        self.dismissed.store(true, Ordering::Relaxed);
    }

    fn shut_down(&self, how: Shutdown) -> ShutdownReport {
        self.stop(how, how.stops_running().then_some(Stop::Terminate))
    }

    fn stop(&self, how: Shutdown, stop: Option<Stop>) -> ShutdownReport {
        let deadline = how.deadline();
        let found = self.shared.unfinished();
        self.shared.close(|_| ());
        let cancelled = if how.cancels_pending() { self.shared.cancel_pending() } else { 0 };
        if let Some(stop) = stop {
            // ORDERING: Relaxed; as `dismissed`.
            self.stops.store(true, Ordering::Relaxed);
            self.shared.order(|inbox| {
                inbox.gives_up = true;
                inbox.stop = Some(stop);
            });
        }
        if !how.is_no_wait() {
            self.wait_for_end(deadline);
        }
        let given_up = mem::take(&mut self.shared.inbox().given_up);
        ShutdownReport::new(found, cancelled + given_up, self.shared.unfinished())
    }

    /// Unless this thread is what the end would wait for.
    fn wait_for_end(&self, deadline: Option<Instant>) {
        if blocking::current_home() == Some(self.shared.home) {
            return;
        }
        blocking::while_blocked(|| {
            self.wait_for_driver(deadline);
            self.shared.chosen.observers.iter().for_each(|observers| observers.flush(deadline));
        });
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
        let shared = &self.shared;
        let refusal = shared.inbox().refusal();
        if let Some(refusal) = refusal {
            drop(task.fail(refusal));
            return;
        }
        let admission = &shared.chosen.admission;
        match admission.try_enter() {
            Ok(permit) => self.accept(task, permit),
            Err(full) => match admission.when_full() {
                WhenFull::Reject => drop(task.fail(queue_full(full))),
                WhenFull::CallerRuns => self.make_here(task),
                _ => {
                    let entered = self.enter_when_there_is_room(None);
                    self.accept(task, entered.expect("without a deadline it ends with room, or with the pool"));
                }
            },
        }
    }

    fn try_execute(&self, task: Task, limit: Duration) -> Result<(), Rejected<Task>> {
        let shared = &self.shared;
        let entered = shared.chosen.admission.try_enter().or_else(|full| match limit.is_zero() {
            true => Err(full),
            false => {
                let deadline = Instant::now().checked_add(limit);
                self.enter_when_there_is_room(deadline)
            }
        });
        let refusal = shared.inbox().refusal();
        match (entered, refusal) {
            (Ok(permit), None) => {
                self.accept(task, permit);
                Ok(())
            }
            (_, Some(refusal)) => Err(Rejected::new(task, refusal)),
            (Err(full), None) => Err(Rejected::new(task, queue_full(full))),
        }
    }

    fn max_workers(&self) -> NonZeroUsize {
        self.shared.chosen.max_workers()
    }

    fn stats(&self) -> Stats {
        self.shared.stats()
    }

    fn dump(&self) -> Dump {
        blocking::while_blocked(|| self.shared.dump())
    }

    fn shutdown(&self, how: Shutdown) -> ShutdownReport {
        self.dismiss();
        self.shut_down(how)
    }
}

/// Waits for everything that was submitted, unless another [`DropPolicy`](executor_core::DropPolicy) was chosen; in a
/// panic, cancels first what has not begun. After a [`shutdown`](Executor::shutdown) that stops what runs it waits for the workers'
/// end, which comes soon, so that what they wrote is passed on; after any other shutdown it does nothing.
impl Drop for ProcessPoolExecutor {
    fn drop(&mut self) {
        if !self.dismissed.load(Ordering::Relaxed) {
            self.shut_down(self.shared.chosen.drop_policy.shutdown());
        }
        if self.stops.load(Ordering::Relaxed) {
            self.wait_for_end(Instant::now().checked_add(self.shared.chosen.kill_grace + echo::LAST_WAIT));
        }
    }
}

/// A call that every worker makes, in the form in which it travels.
pub(crate) fn packed(call: &WorkerCall) -> io::Result<Parcel> {
    let (task, future) = call.task();
    task.pack().map_err(|_| match future.exception() {
        Some(error) => io::Error::other(error.clone()),
        None => io::Error::other("its initializer was cancelled"),
    })
}

fn queue_full(Full { capacity }: Full) -> Failure {
    Failure::QueueFull { capacity }
}

impl fmt::Debug for ProcessPoolExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inbox = self.shared.inbox();
        f.debug_struct("ProcessPoolExecutor")
            .field("max_workers", &self.shared.chosen.max_workers())
            .field("workers", &inbox.pids)
            .field("unfinished", &self.shared.unfinished())
            .finish_non_exhaustive()
    }
}
