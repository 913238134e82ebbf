//! What a pool's handle and its threads share, and a worker's way from task to task.

mod crew;
mod ending;
mod intake;
mod pauses;

use executor_core::{
    BrokenCause, BuildError, DropPolicy, Dump, Failure, Stats, Task,
    admission::Admission,
    blocking::{self, Home},
    observe::Observers,
    seat::Seat,
    stats::{Counters, Made},
    sync::{
        Condvar, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    worker_call::WorkerCall,
};
use once_cell::sync::OnceCell;
use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};

use self::crew::Crew;
use crate::{
    builder::ThreadPoolExecutorBuilder,
    join::Forkers,
    queue::{Local, Queue},
    sleep::Sleep,
};

pub(crate) struct Shared {
    home: Home,
    max_workers: NonZeroUsize,
    queue: Queue,
    /// `None`: any number of tasks is taken in.
    admission: Option<Arc<Admission>>,
    /// Tasks that wait for another attempt, by when and which.
    pausing: Mutex<BTreeMap<(Instant, u64), Task>>,
    /// How many of them there are. Counted before the worker that failed is idle.
    pauses: AtomicUsize,
    sleep: Sleep,
    forkers: Forkers,
    /// Threads that are not blocked in a wait. Changed under the lock of `crew` or by the thread itself.
    active: AtomicUsize,
    closed: AtomicBool,
    /// What has not begun is to be cancelled.
    cancelling: AtomicBool,
    /// What runs is asked to stop.
    stopping: Arc<AtomicBool>,
    /// Tasks that a worker cancelled because of that, and that no shutdown has told yet.
    cancelled_in_motion: AtomicUsize,
    /// What was found in the queue of the closed pool and had ended before: cancelled, or made in place.
    stale: AtomicUsize,
    /// A shutdown was asked for by name: dropping the pool has nothing left to decide.
    dismissed: AtomicBool,
    broken: OnceCell<BrokenCause>,
    crew: Mutex<Crew>,
    everybody_left: Condvar,
    drop_policy: DropPolicy,
    name_prefix: String,
    stack_size_bytes: Option<usize>,
    idle_timeout: Option<Duration>,
    initializer: Option<WorkerCall>,
    finalizer: Option<WorkerCall>,
    /// What nobody counts at a seat of his own.
    counters: Arc<Counters>,
    /// Whoever makes calls.
    seats: Mutex<Vec<Arc<Seat>>>,
    observers: Option<Observers>,
}

/// What there is to do, and who does it.
struct Load {
    queued: usize,
    /// Threads that have something to do.
    busy: usize,
    /// Tasks that were taken out of the queue, and have not begun.
    in_hand: usize,
}

impl Shared {
    pub(crate) fn new(max_workers: NonZeroUsize, chosen: ThreadPoolExecutorBuilder) -> Result<Self, BuildError> {
        static POOLS: AtomicUsize = AtomicUsize::new(0);
        let name_prefix = chosen.name_prefix.unwrap_or_else(|| {
            // ORDERING: Relaxed; only uniqueness matters.
            format!("executor-{}", POOLS.fetch_add(1, Ordering::Relaxed))
        });
        let admission = |(capacity, when_full)| Arc::new(Admission::new(Some(capacity), when_full, max_workers));
        let no_thread = |error| BuildError::Unsupported(format!("the thread that tells observers: {error}"));
        let observers = Observers::start(chosen.observers.0, &name_prefix).map_err(no_thread)?;
        let home = Home::new();
        Ok(Shared {
            home,
            max_workers,
            queue: Queue::new(max_workers.get()),
            admission: chosen.queue_capacity.map(admission),
            pausing: Mutex::default(),
            pauses: AtomicUsize::new(0),
            sleep: Sleep::default(),
            forkers: Forkers::default(),
            active: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            cancelling: AtomicBool::new(false),
            stopping: Arc::default(),
            cancelled_in_motion: AtomicUsize::new(0),
            stale: AtomicUsize::new(0),
            dismissed: AtomicBool::new(false),
            broken: OnceCell::new(),
            crew: Mutex::default(),
            everybody_left: Condvar::new(),
            drop_policy: chosen.drop_policy,
            name_prefix,
            stack_size_bytes: chosen.stack_size_bytes,
            idle_timeout: chosen.idle_timeout,
            initializer: chosen.initializer,
            finalizer: chosen.finalizer,
            counters: Counters::of(home),
            seats: Mutex::default(),
            observers,
        })
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(crate) fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        let (queued, busy) = self.load();
        stats.queued = queued.saturating_sub(self.counters.void());
        stats.running = busy;
        stats.pausing = self.pauses.load(Ordering::SeqCst);
        stats.workers = self.thread_count();
        stats.max_workers = self.max_workers.get();
        // Under the lock under which who leaves hands over what he has counted.
        let seats = self.seats.lock();
        seats.iter().for_each(|seat| seat.add_to(&mut stats));
        self.counters.add_to(&mut stats);
        stats
    }

    pub(crate) fn dump(&self) -> Dump {
        let seats = self.seats.lock().clone();
        let running = seats.iter().flat_map(|seat| seat.running()).collect();
        Dump::new(&*self.name_prefix, self.stats(), running)
    }

    #[inline]
    pub(crate) fn home(&self) -> Home {
        self.home
    }

    pub(crate) fn max_workers(&self) -> NonZeroUsize {
        self.max_workers
    }

    /// Spares included.
    pub(crate) fn thread_count(&self) -> usize {
        self.crew.lock().threads
    }

    pub(crate) fn initializer(&self) -> Option<&WorkerCall> {
        self.initializer.as_ref()
    }

    pub(crate) fn finalizer(&self) -> Option<&WorkerCall> {
        self.finalizer.as_ref()
    }

    pub(crate) fn stopping(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stopping)
    }

    /// Whether this thread makes a call for this pool.
    fn is_home(&self) -> bool {
        blocking::current_home() == Some(self.home)
    }

    /// Why nothing is accepted any more.
    fn refusal(&self) -> Failure {
        self.broken.get().cloned().map_or(Failure::Shutdown, Failure::Broken)
    }

    #[inline]
    fn is_closed(&self) -> bool {
        // ORDERING: SeqCst, see `ending`.
        self.closed.load(Ordering::SeqCst)
    }

    /// How many tasks are queued, and how many threads have one. Exact where nobody is about to change it.
    pub(crate) fn load(&self) -> (usize, usize) {
        let Load { queued, busy, .. } = self.look();
        (queued, busy)
    }

    fn look(&self) -> Load {
        let queued = self.queue.len(); // first: what is not there any more is in hand by then, or past that
        let seats = self.seats.lock();
        let in_hand = seats.iter().filter(|seat| seat.has_in_hand()).count();
        Load { queued, busy: seats.iter().filter(|seat| seat.is_busy()).count(), in_hand }
    }

    /// The next task for the worker at this seat, which is busy from now on.
    pub(crate) fn next_task(self: &Arc<Self>, local: Option<&Local>, seat: &Seat) -> Option<Task> {
        loop {
            seat.reach();
            let popped = match local {
                Some(local) => self.queue.pop_for(local),
                None => self.queue.pop(None).map(|task| (task, false)),
            };
            let Some((task, is_own)) = popped else {
                seat.be_idle();
                return None;
            };
            self.forkers.come(); // though for something else: the next call shall reach somebody
            seat.be_busy();
            // What lies in its own queue was there when it last passed a wake on, and before who sleeps looked.
            if !is_own || self.active.load(Ordering::Relaxed) < self.max_workers.get() {
                self.pass_on();
            }
            // A batch in motion escapes who empties the queue, and is caught here.
            if self.is_closed() && task.is_over() {
                self.counters.was_void();
                seat.be_idle();
                self.stale.fetch_add(1, Ordering::SeqCst);
            } else if self.broken.get().is_some() {
                self.fail_taken(task);
                seat.be_idle();
            } else if self.cancelling.load(Ordering::SeqCst) {
                self.cancelled_in_motion.fetch_add(usize::from(task.cancel()), Ordering::SeqCst);
                self.counters.was_void();
                seat.be_idle(); // only now: a shutdown may wait for it
            } else {
                return Some(task);
            }
        }
    }

    /// A worker that is busy from now on may have been woken for something else than what it found, or hold a batch that was
    /// in motion while others looked: it passes the wake on.
    pub(crate) fn pass_on(self: &Arc<Self>) {
        // ORDERING: the fence in `has_sleepers` pairs with the one in `wake_one`, which whoever submits passes before he counts the
        // busy workers: either he counts this one, or this one sees his task.
        let helpers = self.sleep.has_sleepers() || self.active.load(Ordering::SeqCst) < self.max_workers.get();
        if helpers && !self.queue.is_empty() && !self.sleep.wake_one() {
            self.start_thread_if_needed();
        }
    }

    /// What became of a task that the worker at this seat took. Its callbacks have run; no wait for it has ended yet, so
    /// whoever waited finds this worker idle.
    pub(crate) fn task_is_made(self: &Arc<Self>, seat: &Seat, made: Made) {
        if made == Made::Busy {
            seat.be_busy();
            return self.pass_on(); // somebody may have counted on it
        }
        seat.end(made);
        if made == Made::Nothing {
            self.counters.was_void();
        }
        seat.be_idle();
    }

    /// `false`: nothing has come for as long as a worker stays idle.
    pub(crate) fn sleep(&self, spare: bool) -> bool {
        let must_go = || self.may_close() || spare && self.has_surplus();
        // Who stays in a closed pool stays for a task that waits for another attempt.
        let limit = self.idle_timeout.filter(|_| !self.is_closed());
        let has_work = || !self.queue.is_empty() || !self.forkers.is_empty();
        self.sleep.sleep(limit, has_work, must_go, || {
            self.forkers.come(); // from here on there is somebody to be called
            self.forkers.are_there()
        })
    }

    #[inline]
    pub(crate) fn forkers(&self) -> &Forkers {
        &self.forkers
    }

    /// Whether another thread could make a call now that this one offers, as far as it sees.
    #[inline]
    pub(crate) fn could_help(&self) -> bool {
        // ORDERING: Relaxed. The caller has passed `light`, and a sleeper looks again when it has passed `heavy`. A thread that is
        // missing is missed by the next `join`, or by nobody.
        self.sleep.may_have_sleepers() || self.active.load(Ordering::Relaxed) < self.max_workers.get()
    }

    /// Wakes or starts a thread for calls that are offered and not queued. Returns whether one comes.
    pub(crate) fn call_for_forks(self: &Arc<Self>) -> bool {
        self.sleep.wake_one() || self.start_thread_for(1)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        Counters::forget(self.home);
    }
}
