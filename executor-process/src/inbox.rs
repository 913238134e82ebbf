//! What a pool's handle and its driver share: a queue and a few orders, behind one lock that nobody holds while user code
//! runs.

use executor_core::{
    BrokenCause, DropPolicy, Dump, Failure, RunningTask, Stats,
    admission::Admission,
    blocking::Home,
    cell::Channel,
    levels::Levels,
    observe::Observers,
    stats::Counters,
    sync::{Condvar, Mutex, MutexGuard},
    task::Parcel,
};
use rustix::event::{EventfdFlags, eventfd};
use std::{
    ffi::OsString,
    fmt, io, mem,
    num::{NonZeroU64, NonZeroUsize},
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence},
    },
    time::{Duration, Instant},
};

use crate::{
    claims::{Claim, Claims},
    forkserver::StartMethod,
    limits::Limits,
    os::InnerThreads,
    output::Output,
    records,
};

pub(crate) struct Shared {
    pub(crate) chosen: Choices,
    pub(crate) home: Home,
    pub(crate) wake: OwnedFd,
    /// Calls have come since somebody who drives looked. Whoever drives looks at this once more when he has stopped.
    calls_came: AtomicBool,
    pub(crate) tally: Tally,
    inbox: Mutex<Inbox>,
    changed: Condvar,
}

/// What the driver counts. ORDERING: Relaxed throughout; it is told only.
#[derive(Default)]
pub(crate) struct Tally {
    /// Calls that wait for another attempt.
    pub(crate) pausing: AtomicUsize,
    pub(crate) retried: AtomicU64,
    /// Workers that ended and were to be replaced, and those that took such a place.
    pub(crate) replaceable: AtomicU64,
    pub(crate) restarts: AtomicU64,
    pub(crate) lost_workers: AtomicU64,
    /// Calls that were made in this process, for want of room.
    pub(crate) here: Counters,
}

/// What was chosen as the pool was built.
pub(crate) struct Choices {
    /// At least one. May be changed at any time.
    pub(crate) max_workers: AtomicUsize,
    pub(crate) name_prefix: String,
    pub(crate) drop_policy: DropPolicy,
    /// What each worker is to do first, and last; encoded once.
    pub(crate) initializer: Option<Parcel>,
    pub(crate) finalizer: Option<Parcel>,
    pub(crate) recycling: Recycling,
    pub(crate) limits: Limits,
    /// Between the signal that a worker may handle and the one that it cannot.
    pub(crate) kill_grace: Duration,
    /// Set for every worker before it starts.
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) inner_threads: InnerThreads,
    pub(crate) output: Output,
    /// Where workers' log records go.
    pub(crate) records: records::Here,
    pub(crate) start_method: StartMethod,
    /// What a fork server is to do first.
    pub(crate) preload: Option<Parcel>,
    /// Counts the tasks that were accepted and are not known to have an outcome.
    pub(crate) admission: Arc<Admission>,
    pub(crate) observers: Option<Observers>,
}

impl Choices {
    pub(crate) fn max_workers(&self) -> NonZeroUsize {
        // ORDERING: Relaxed; who has changed it then sends the driver an order.
        NonZeroUsize::new(self.max_workers.load(Ordering::Relaxed)).unwrap_or(NonZeroUsize::MIN)
    }
}

/// When a worker is replaced by a fresh one, or is needed no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Recycling {
    /// After so many calls.
    pub(crate) max_tasks: Option<NonZeroU64>,
    /// When it keeps so much more memory than at first.
    pub(crate) memory_growth_bytes: Option<u64>,
    /// When it has served for so long.
    pub(crate) max_age: Option<Duration>,
    /// When it has had nothing to do for so long.
    pub(crate) idle_timeout: Option<Duration>,
}

/// What the handle leaves for the driver, and what the driver tells.
#[derive(Default)]
pub(crate) struct Inbox {
    pub(crate) queue: Levels<Parcel>,
    pub(crate) closed: bool,
    pub(crate) broken: Option<BrokenCause>,
    pub(crate) kills: Vec<KillOrder>,
    /// All workers are to be ended.
    pub(crate) stop: Option<Stop>,
    /// No call is made again that has failed.
    pub(crate) gives_up: bool,
    /// Calls that were cancelled because of that, and that no shutdown has told yet.
    pub(crate) given_up: usize,
    /// How often the driver was asked to take back what has not begun, and how often it did.
    pub(crate) recalls_asked: u64,
    pub(crate) recalls_done: u64,
    /// What it took back, for those who asked.
    pub(crate) recalled: Vec<Parcel>,
    pub(crate) pids: Vec<u32>,
    /// Of the same workers.
    pub(crate) channels: Vec<Arc<WorkerChannel>>,
    /// How often the driver was asked what is being made, how often it said so, and what that was.
    pub(crate) dumps_asked: u64,
    pub(crate) dumps_done: u64,
    pub(crate) dumped: Vec<RunningTask>,
    /// The driver takes no more orders: nothing is left that they could be about.
    pub(crate) driver_is_done: bool,
    /// All callbacks have run as well.
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

/// How workers are ended by force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// By a signal that they may handle, and soon afterwards by one that they cannot.
    Terminate,
    /// At once.
    Kill,
}

impl Shared {
    pub(crate) fn new(chosen: Choices) -> io::Result<Self> {
        Ok(Shared {
            chosen,
            home: Home::new(),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            calls_came: AtomicBool::new(false),
            tally: Tally::default(),
            inbox: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    pub(crate) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock()
    }

    /// Changes the inbox, and makes the driver thread look at it.
    pub(crate) fn order<T>(&self, change: impl FnOnce(&mut Inbox) -> T) -> T {
        let mut inbox = self.inbox.lock();
        let result = change(&mut inbox);
        inbox.news = true;
        let sleeps = mem::take(&mut inbox.driver_sleeps);
        drop(inbox);
        if sleeps {
            // WAKES: the driver in `epoll`. It said under the lock that it would sleep, and only if there were
            // no news, so each later order finds `driver_sleeps`; the counter stays readable until it is
            // read, so it cannot be missed between saying and polling. A full counter is as readable as
            // any, so an error changes nothing.
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
        result
    }

    /// Somebody is to drive who may not have looked at everything.
    pub(crate) fn call_came(&self) {
        // ORDERING: SeqCst, as in `calls_came`, against `Engine::drive`: whoever drives sees this, or has stopped driving
        // and leaves it to who said so.
        self.calls_came.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Whether calls have come since this was asked last.
    pub(crate) fn take_news(&self) -> bool {
        self.calls_came.load(Ordering::SeqCst) && self.calls_came.swap(false, Ordering::SeqCst)
    }

    pub(crate) fn has_news(&self) -> bool {
        // ORDERING: SeqCst; see `engine`.
        fence(Ordering::SeqCst);
        self.calls_came.load(Ordering::SeqCst)
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

    /// Waits until `condition` holds; `false`: the deadline came first.
    pub(crate) fn wait_until(&self, deadline: Option<Instant>, condition: impl Fn(&Inbox) -> bool) -> bool {
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

    pub(crate) fn unfinished(&self) -> usize {
        self.chosen.admission.inside()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.inbox.lock().refusal().is_some()
    }

    /// Takes in a task that was admitted, or fails it. Somebody is to drive then.
    pub(crate) fn accept(&self, parcel: Parcel) {
        // Under one lock: a task is accepted before the pool is closed, or refused.
        let mut inbox = self.inbox.lock();
        match inbox.refusal() {
            Some(refusal) => {
                drop(inbox);
                drop(parcel.fail(refusal));
            }
            None => {
                inbox.queue.push_back(parcel.priority(), parcel);
            }
        }
    }

    /// So many calls may run from now on.
    pub(crate) fn resize(&self, max_workers: NonZeroUsize) {
        // ORDERING: Relaxed; the order that follows shows it to the driver.
        self.chosen.max_workers.store(max_workers.get(), Ordering::Relaxed);
        self.chosen.admission.resize(max_workers);
        self.order(|_| ());
    }

    /// Nothing more is accepted, and nobody waits for room any more.
    pub(crate) fn close(&self, change: impl FnOnce(&mut Inbox)) {
        self.order(|inbox| {
            inbox.closed = true;
            change(inbox);
        });
        self.chosen.admission.close();
    }

    /// Cancels, on this thread, what has not begun: in the queue, and in the workers' channels. From now on nothing is tried
    /// again.
    pub(crate) fn cancel_pending(&self) -> usize {
        let asked = self.order(|inbox| {
            inbox.gives_up = true;
            inbox.recalls_asked += 1;
            inbox.recalls_asked
        });
        self.wait_until(None, |inbox| inbox.recalls_done >= asked || inbox.driver_is_done);
        let pending = mem::take(&mut self.inbox().recalled);
        pending.into_iter().filter_map(|parcel| parcel.cancel().then_some(())).count()
    }
}

impl Shared {
    pub(crate) fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        let (admission, tally) = (&self.chosen.admission, &self.tally);
        stats.max_workers = self.chosen.max_workers().get();
        let busy = {
            let inbox = self.inbox();
            stats.workers = inbox.pids.len();
            inbox.channels.iter().filter(|channel| channel.is_busy()).count()
        };
        // What workers say is true of a moment before, and of no more calls than there are.
        let inside = admission.inside();
        stats.pausing = tally.pausing.load(Ordering::Relaxed).min(inside);
        stats.running = busy.min(inside - stats.pausing);
        stats.queued = inside - stats.pausing - stats.running;
        stats.retried = tally.retried.load(Ordering::Relaxed);
        stats.restarts = tally.restarts.load(Ordering::Relaxed);
        stats.lost_workers = tally.lost_workers.load(Ordering::Relaxed);
        admission.add_to(&mut stats);
        tally.here.add_to(&mut stats);
        stats
    }

    /// Asks the driver thread, which alone knows what lies in channels.
    pub(crate) fn dump(&self) -> Dump {
        let asked = self.order(|inbox| {
            inbox.dumps_asked += 1;
            inbox.dumps_asked
        });
        self.wait_until(None, |inbox| inbox.dumps_done >= asked || inbox.driver_is_done);
        let running = {
            let inbox = self.inbox();
            if inbox.driver_is_done { Vec::new() } else { inbox.dumped.clone() }
        };
        Dump::new(&*self.chosen.name_prefix, self.stats(), running)
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
    /// It has made what it is to make first.
    pub(crate) is_ready: AtomicBool,
    pub(crate) shared: Arc<Shared>,
}

impl WorkerChannel {
    /// Whether it makes a call of a task.
    fn is_busy(&self) -> bool {
        // ORDERING: Relaxed; it is told only.
        self.is_ready.load(Ordering::Relaxed) && self.claims.current().is_some()
    }
}

impl Channel for WorkerChannel {
    fn revoke(&self, ticket: u64) -> bool {
        self.claims.revoke(ticket)
    }

    fn has_begun(&self, ticket: u64) -> bool {
        self.claims.get(ticket) == Claim::Begun
    }

    fn ask_to_stop(&self, ticket: u64) {
        self.claims.ask_to_stop(ticket);
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
