//! What a pool's handle and its threads share: taking tasks in, starting threads, ending.
//!
//! # When a thread is started
//! Threads start one by one: a task that is accepted starts one if more tasks are queued than workers are idle, and
//! fewer than `max_workers` can run. A worker that blocks on another task does not count as one that can run,
//! so a spare thread takes its place; when it is back, a spare leaves as soon as it has finished its task.
//!
//! # Another attempt
//! A task that is to be tried again waits aside until its pause is over, and then enters the queue again, also when the pool
//! is closed. While one waits, a closed pool is not over: its workers stay, or one is started when the pause ends.
//!
//! # How it ends
//! A shutdown closes the pool. Workers then leave when they find nothing to do, and the last one wakes who waits
//! for them. A task that was accepted in the very moment of closing is either run by a worker that is
//! still there, or found by the last to leave, or by the thread that submitted it: both look after the other
//! may have acted (sequentially consistent on both sides), and whoever takes it fails it as shut down.

use executor_core::{
    BrokenCause, BuildError, DropPolicy, Dump, Failure, Priority, Rejected, Shutdown, ShutdownReport, Stats, Task,
    WhenFull, WorkerEnd, WorkerEvent, WorkerEventKind, WorkerInfo, WorkerKind,
    admission::{Admission, Full, Permit},
    blocking::{self, Home},
    observe::{self, Observers},
    seat::Seat,
    stats::{Counters, Made},
    sync::{
        Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        thread::{self, JoinHandle},
    },
    task::Retries,
    timer,
    worker_call::WorkerCall,
};
use once_cell::sync::OnceCell;
use std::{
    collections::BTreeMap,
    iter,
    num::NonZeroUsize,
    process,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    builder::ThreadPoolExecutorBuilder,
    join::Forkers,
    queue::{Local, Queue},
    sleep::Sleep,
    worker,
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

/// The threads.
#[derive(Default)]
struct Crew {
    threads: usize,
    /// Threads that make no more calls, and are not yet at their end.
    leaving: usize,
    /// Threads of others that make a call for which there was no room.
    guests: usize,
    started: usize,
    handles: Vec<JoinHandle<()>>,
}

/// What there is to do, and who does it.
struct Load {
    queued: usize,
    /// Threads that have something to do.
    busy: usize,
    /// Tasks that were taken out of the queue, and have not begun.
    in_hand: usize,
}

/// Where a task goes that somebody submits.
enum Admitted {
    ToQueue(Option<Permit>),
    ToRunHere(Permit),
    Not(Failure),
}

fn queue_full(Full { capacity }: Full) -> Admitted {
    Admitted::Not(Failure::QueueFull { capacity })
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

    fn take_seat(&self, worker: impl Into<String>) -> Arc<Seat> {
        let seat = Arc::new(Seat::new(worker));
        self.seats.lock().push(Arc::clone(&seat));
        seat
    }

    fn leave_seat(&self, seat: &Arc<Seat>) {
        let mut seats = self.seats.lock();
        seats.retain(|taken| !Arc::ptr_eq(taken, seat));
        seat.leave_to(&self.counters);
    }

    /// This thread, a worker, begins. If somebody observes it: who it is.
    pub(crate) fn observe_thread(&self) -> Option<Arc<WorkerInfo>> {
        let observers = self.observers.as_ref()?;
        let thread = thread::current();
        let name = thread.name().unwrap_or_default();
        let info = Arc::new(WorkerInfo::new(observers.pool(), name, process::id(), WorkerKind::PoolThread));
        observe::be_worker(&info);
        observers.worker(WorkerEvent::now(&info, WorkerEventKind::Started));
        Some(info)
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

    #[inline]
    pub(crate) fn execute(self: &Arc<Self>, task: Task) {
        match &self.admission {
            None => self.accept(task), // there is always room
            Some(_) => self.take_in_or_fail(task, self.admit()),
        }
    }

    pub(crate) fn try_execute(self: &Arc<Self>, task: Task, limit: Duration) -> Result<(), Rejected<Task>> {
        self.take_in(task, self.admit_within(limit))
    }

    /// Takes in a scope's call, which is never rejected: where there is no room, this thread makes it.
    pub(crate) fn execute_scoped(self: &Arc<Self>, task: Task) {
        let admitted = match (self.admit(), &self.admission) {
            (Admitted::Not(Failure::QueueFull { .. }), Some(admission)) => Admitted::ToRunHere(admission.force_enter()),
            (admitted, _) => admitted,
        };
        self.take_in_or_fail(task, admitted);
    }

    fn take_in_or_fail(self: &Arc<Self>, task: Task, admitted: Admitted) {
        if let Err(rejected) = self.take_in(task, admitted) {
            let failure = rejected.failure().clone();
            drop(rejected.into_value().fail(failure));
        }
    }

    fn admit(&self) -> Admitted {
        if self.is_closed() {
            return Admitted::Not(self.refusal());
        }
        let Some(admission) = &self.admission else { return Admitted::ToQueue(None) };
        match admission.try_enter() {
            Ok(permit) => Admitted::ToQueue(Some(permit)),
            Err(full) => match admission.when_full() {
                WhenFull::Reject => queue_full(full),
                WhenFull::CallerRuns => Admitted::ToRunHere(admission.force_enter()),
                _ => self.wait_for_room(admission, None),
            },
        }
    }

    fn admit_within(&self, limit: Duration) -> Admitted {
        if self.is_closed() {
            return Admitted::Not(self.refusal());
        }
        let Some(admission) = &self.admission else { return Admitted::ToQueue(None) };
        match admission.try_enter() {
            Ok(permit) => Admitted::ToQueue(Some(permit)),
            Err(full) if limit.is_zero() => queue_full(full),
            Err(_) => self.wait_for_room(admission, Some(limit)),
        }
    }

    fn wait_for_room(&self, admission: &Arc<Admission>, limit: Option<Duration>) -> Admitted {
        if self.is_home() {
            // Room may come only from the calls that this thread makes.
            return Admitted::ToRunHere(admission.force_enter());
        }
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        match blocking::while_blocked(|| admission.enter(deadline, || self.is_closed())) {
            Ok(_) if self.is_closed() => Admitted::Not(self.refusal()),
            Ok(permit) => Admitted::ToQueue(Some(permit)),
            Err(full) => queue_full(full),
        }
    }

    /// Whether this thread makes a call for this pool.
    fn is_home(&self) -> bool {
        blocking::current_home() == Some(self.home)
    }

    fn take_in(self: &Arc<Self>, task: Task, admitted: Admitted) -> Result<(), Rejected<Task>> {
        match admitted {
            Admitted::ToQueue(permit) => {
                if let Some(permit) = permit {
                    task.hold(permit);
                }
                self.accept(task);
            }
            Admitted::ToRunHere(permit) => {
                task.hold(permit);
                self.run_here(task);
            }
            Admitted::Not(failure) => return Err(Rejected::new(task, failure)),
        }
        Ok(())
    }

    /// Makes a call on the thread that submits it. Too deep on that thread's stack, it goes to the queue after all.
    fn run_here(self: &Arc<Self>, task: Task) {
        self.observe(&task);
        task.belong_to(self.home, self);
        if self.is_home() {
            if let Err(task) = blocking::nested(task, |task| self.make_beside(task)) {
                self.accept(task);
            }
            return;
        }
        // A shutdown waits for it as for a worker.
        let mut crew = self.crew.lock();
        if self.is_closed() {
            drop(crew);
            drop(task.fail(self.refusal()));
            return;
        }
        crew.guests += 1;
        drop(crew);
        let guest = blocking::enter_as_guest(self.home, self.stopping());
        self.make_beside(task);
        drop(guest);
        self.crew.lock().guests -= 1;
        self.tell_if_over();
    }

    /// Makes a call on this thread that was in no queue.
    fn make_beside(&self, task: Task) {
        let seat = self.take_seat(thread::current().name().unwrap_or("a caller"));
        seat.begin(&task);
        self.counters.begin_beside();
        task.run_counted(|made| {
            if made.is_end() {
                seat.end(Made::Nothing);
                self.counters.end_in_place(made);
            }
        });
        self.leave_seat(&seat);
    }

    fn observe(&self, task: &Task) {
        if let Some(observers) = &self.observers {
            task.observe(observers);
        }
    }

    /// Puts a task that was admitted into the queue.
    #[inline]
    fn accept(self: &Arc<Self>, task: Task) {
        if self.is_closed() {
            drop(task.fail(self.refusal()));
            return;
        }
        self.observe(&task);
        let level = task.belong_to(self.home, self);
        self.enqueue(task, level);
        if self.is_closed() {
            self.sweep();
        }
    }

    #[inline]
    fn enqueue(self: &Arc<Self>, task: Task, level: Priority) {
        let kept = match level {
            Priority::Normal => worker::keep(self.home, task, || self.queue.may_keep()),
            _ => Err(task),
        };
        let is_kept = kept.is_ok();
        if let Err(task) = kept {
            self.queue.push(task, level);
        }
        // ORDERING: the fence in there is against the one that `worker_blocks` passes there: either this thread sees that a
        // worker blocks, or that worker sees the task.
        // What this worker has kept waits until its call is over, or for another worker.
        if !self.sleep.wake_one_unless(|| !is_kept && self.queue.is_empty()) {
            self.start_thread_if_needed();
        }
    }

    /// Puts tasks whose pause ends by `now` into the queue again.
    fn resume(self: &Arc<Self>, now: Instant) {
        loop {
            let due = {
                let mut pausing = self.pausing.lock();
                pausing.first_entry().filter(|entry| entry.key().0 <= now).map(|entry| entry.remove())
            };
            let Some(task) = due else { break };
            if !task.is_over() {
                task.resume();
                let level = task.priority();
                self.enqueue(task, level);
            }
            self.pauses.fetch_sub(1, Ordering::SeqCst); // only now: no worker ends in between
        }
        self.pauses_are_fewer();
    }

    /// Whether no further attempts are made.
    fn gives_up(&self) -> bool {
        // ORDERING: SeqCst, against `retry`: either that sees this, or whoever made it true finds what waits.
        self.cancelling.load(Ordering::SeqCst) || self.stopping.load(Ordering::SeqCst) || self.broken.get().is_some()
    }

    /// Ends what waits for another attempt. Returns how many of them this cancelled.
    fn give_up_pausing(&self) -> usize {
        let tasks = std::mem::take(&mut *self.pausing.lock());
        let mut cancelled = 0;
        for task in tasks.into_values() {
            match self.broken.get() {
                Some(_) => {
                    self.counters.count(Made::Failed, u64::from(!task.is_void()));
                    drop(task.fail(self.refusal()));
                }
                None => cancelled += usize::from(task.cancel()),
            }
            self.pauses.fetch_sub(1, Ordering::SeqCst);
        }
        self.pauses_are_fewer();
        cancelled
    }

    /// Forgets what was cancelled while it waited for another attempt.
    fn forget_cancelled_pauses(&self) {
        let cancelled: Vec<_> = self.pausing.lock().extract_if(.., |_, task| task.is_over()).collect();
        self.pauses.fetch_sub(cancelled.len(), Ordering::SeqCst);
        drop(cancelled);
        self.pauses_are_fewer();
    }

    fn pauses_are_fewer(&self) {
        if self.is_closed() {
            self.sleep.wake_all(); // those that only waited for this may end
            self.tell_if_over();
        }
    }

    /// Why nothing is accepted any more.
    fn refusal(&self) -> Failure {
        self.broken.get().cloned().map_or(Failure::Shutdown, Failure::Broken)
    }

    #[inline]
    fn is_closed(&self) -> bool {
        // ORDERING: SeqCst, see "How it ends".
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

    /// Whether the pool is closed and no task waits for another attempt.
    fn may_close(&self) -> bool {
        self.is_closed() && self.pauses.load(Ordering::SeqCst) == 0
    }

    fn has_surplus(&self) -> bool {
        self.active.load(Ordering::SeqCst) > self.max_workers.get()
    }

    #[inline]
    fn start_thread_if_needed(self: &Arc<Self>) {
        // ORDERING: SeqCst, see `accept` and `worker_blocks`.
        if self.active.load(Ordering::SeqCst) < self.max_workers.get() {
            self.start_thread_for(0);
        }
    }

    /// Starts a thread if more calls wait than threads are idle: those in the queue, and so many others. Returns whether it did.
    fn start_thread_for(self: &Arc<Self>, others: usize) -> bool {
        let mut crew = self.crew.lock();
        let (queued, busy) = self.load();
        let idle = crew.threads.saturating_sub(busy);
        let full = self.active.load(Ordering::SeqCst) >= self.max_workers.get();
        let nobody_left = self.may_close() && crew.threads == 0;
        if full || nobody_left || queued + others <= idle {
            return false;
        }
        let pool = Arc::clone(self);
        let local = self.queue.claim_local();
        let name = format!("{}-{}", self.name_prefix, crew.started);
        let seat = self.take_seat(&*name);
        let mut builder = thread::Builder::new().name(name);
        if let Some(bytes) = self.stack_size_bytes {
            builder = builder.stack_size(bytes);
        }
        // Counted before it runs: it must not find itself missing when it leaves.
        crew.threads += 1;
        self.active.fetch_add(1, Ordering::SeqCst);
        let taken = Arc::clone(&seat);
        match builder.spawn(move || worker::run(pool, local, taken)) {
            Ok(handle) => {
                crew.started += 1;
                crew.handles.retain(|handle| !handle.is_finished());
                crew.handles.push(handle);
                true
            }
            Err(error) => {
                self.leave_seat(&seat);
                crew.threads -= 1;
                self.active.fetch_sub(1, Ordering::SeqCst);
                // With other threads the pool goes on, slower; without any it cannot.
                if crew.threads == 0 {
                    drop(crew);
                    self.break_with(BrokenCause::Spawn(error.to_string()));
                }
                false
            }
        }
    }

    /// This thread, a worker, is about to block on a task that runs elsewhere.
    pub(crate) fn worker_blocks(self: &Arc<Self>) {
        // ORDERING: SeqCst, see `accept`.
        self.active.fetch_sub(1, Ordering::SeqCst);
        if !self.sleep.wake_one() {
            self.start_thread_if_needed();
        }
    }

    pub(crate) fn worker_is_back(&self) {
        let active = self.active.fetch_add(1, Ordering::SeqCst) + 1;
        if active > self.max_workers.get() {
            self.sleep.wake_all(); // a spare among the sleepers is to leave
        }
    }

    /// Whether this thread, a spare, is to end because the workers for which it stood in are back.
    pub(crate) fn spare_may_leave(self: &Arc<Self>) -> bool {
        if !self.has_surplus() {
            return false;
        }
        let crew = self.crew.lock();
        if !self.has_surplus() {
            return false; // another one has left
        }
        self.leave_to_others(crew);
        true
    }

    /// Whether this thread is to end because it has been idle for too long. Its local queue is then given back.
    pub(crate) fn idle_may_leave(self: &Arc<Self>, local: &mut Option<Rc<Local>>) -> bool {
        let crew = self.crew.lock();
        if self.is_closed() || !self.queue.is_empty() {
            return false;
        }
        if let Some(local) = local.take() {
            self.queue.give_back_local(worker::give_up(local));
        }
        self.leave_to_others(crew);
        true
    }

    fn leave_to_others(self: &Arc<Self>, crew: MutexGuard<'_, Crew>) {
        self.leave(crew);
        // It may have been woken for a task that it now does not run, and others may have counted on it.
        if !self.queue.is_empty() && !self.sleep.wake_one() {
            self.start_thread_if_needed();
        }
    }

    /// Whether this thread is to end because the pool is closed and nothing is left to do.
    pub(crate) fn may_end(&self) -> bool {
        if !self.may_close() {
            return false;
        }
        let crew = self.crew.lock();
        if !self.queue.is_empty() || !self.may_close() {
            return false;
        }
        self.leave(crew);
        true
    }

    fn leave(&self, mut crew: MutexGuard<'_, Crew>) {
        crew.threads -= 1;
        crew.leaving += 1;
        self.active.fetch_sub(1, Ordering::SeqCst);
        let last = crew.threads == 0;
        drop(crew);
        if last && self.is_closed() {
            self.sweep();
        }
    }

    /// A thread that has left is at its end.
    pub(crate) fn thread_ends(&self, seat: &Arc<Seat>, observed: Option<Arc<WorkerInfo>>) {
        self.leave_seat(seat);
        if let Some((observers, worker)) = self.observers.as_ref().zip(observed) {
            observers.worker(WorkerEvent::now(&worker, WorkerEventKind::Ended(WorkerEnd::Left)));
        }
        self.crew.lock().leaving -= 1;
        self.tell_if_over();
    }

    /// Whether nobody is there, or will be, who makes a call of this pool. Of a closed one.
    fn is_over(&self, crew: &Crew) -> bool {
        crew.threads + crew.leaving + crew.guests == 0 && self.pauses.load(Ordering::SeqCst) == 0
    }

    fn tell_if_over(&self) {
        let crew = self.crew.lock();
        if self.is_closed() && self.is_over(&crew) {
            // WAKES: threads in `wait_for_everybody` (predicate: `is_over`). All that it looks at was changed before the lock
            // was taken, which they hold from their look until they wait.
            self.everybody_left.notify_all();
        }
    }

    /// Fails tasks that came too late for any worker. See "How it ends".
    fn sweep(&self) {
        if self.crew.lock().threads > 0 || self.pauses.load(Ordering::SeqCst) > 0 {
            return;
        }
        self.fail_queued();
    }

    fn fail_queued(&self) {
        for task in iter::from_fn(|| self.queue.pop(None)) {
            self.fail_taken(task);
        }
    }

    /// Fails what was taken from the queue.
    fn fail_taken(&self, task: Task) {
        if task.is_void() {
            self.counters.was_void();
        } else {
            self.counters.count(Made::Failed, 1);
        }
        drop(task.fail(self.refusal()));
    }

    fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        if let Some(admission) = &self.admission {
            admission.close();
        }
        self.sleep.wake_all();
    }

    fn break_with(&self, cause: BrokenCause) {
        let _ = self.broken.set(cause); // the first cause is the one to tell
        self.close();
        self.fail_queued();
        self.give_up_pausing();
    }

    /// A worker's initializer failed.
    pub(crate) fn break_down(&self, failure: Failure) {
        self.break_with(BrokenCause::Initializer(Box::new(failure)));
    }

    /// A shutdown that somebody asked for by name.
    pub(crate) fn dismiss(&self, how: Shutdown) -> ShutdownReport {
        // ORDERING: Relaxed; read by who drops the handle, and has it to itself.
        self.dismissed.store(true, Ordering::Relaxed);
        self.shut_down(how)
    }

    /// The handle was dropped.
    pub(crate) fn handle_is_gone(&self) {
        if !self.dismissed.load(Ordering::Relaxed) {
            self.shut_down(self.drop_policy.shutdown());
        }
    }

    fn shut_down(&self, how: Shutdown) -> ShutdownReport {
        let deadline = how.deadline();
        let found = self.unfinished();
        self.close();
        // Before any call is told to stop: the worker that it leaves free must not begin another one.
        self.cancelling.fetch_or(how.cancels_pending(), Ordering::SeqCst);
        self.stopping.fetch_or(how.stops_running(), Ordering::SeqCst);
        self.forget_cancelled_pauses();
        let mut cancelled = 0;
        if how.cancels_pending() {
            cancelled += self.cancel_queued();
            // What was between the queue and a worker is cancelled by that, if it saw the flag. But a callback of such a one, which
            // may be who shuts down, would wait for itself.
            while !self.is_home() && self.is_in_motion() {
                thread::yield_now();
                cancelled += self.cancel_queued();
            }
        }
        if self.gives_up() {
            cancelled += self.give_up_pausing();
        }
        self.sweep();
        if !self.is_home() && !how.is_no_wait() {
            blocking::while_blocked(|| {
                self.wait_for_everybody(deadline);
                self.observers.iter().for_each(|observers| observers.flush(deadline));
            });
        }
        let in_motion = self.cancelled_in_motion.swap(0, Ordering::SeqCst);
        let stale = self.stale.swap(0, Ordering::SeqCst);
        ShutdownReport::new(found.saturating_sub(stale), cancelled + in_motion, self.unfinished())
    }

    /// Cancels what is in the queue. Returns how many of them this cancelled.
    fn cancel_queued(&self) -> usize {
        let mut cancelled = 0;
        for task in iter::from_fn(|| self.queue.pop(None)) {
            self.stale.fetch_add(usize::from(task.is_over()), Ordering::SeqCst);
            cancelled += usize::from(task.cancel());
            self.counters.was_void();
        }
        cancelled
    }

    /// Whether a task is in the queue, or with a worker that has not begun its call.
    fn is_in_motion(&self) -> bool {
        let Load { queued, in_hand, .. } = self.look();
        queued + in_hand > 0
    }

    fn unfinished(&self) -> usize {
        let (queued, busy) = self.load();
        queued + busy + self.pauses.load(Ordering::SeqCst) + self.crew.lock().guests
    }

    fn wait_for_everybody(&self, deadline: Option<Instant>) {
        let mut crew = self.crew.lock();
        while !self.is_over(&crew) {
            if self.pauses.load(Ordering::SeqCst) > 0 {
                // What pauses may be cancelled, and tells nobody.
                self.everybody_left.wait_for(&mut crew, timer::GLANCE);
                drop(crew);
                self.forget_cancelled_pauses();
                if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                    return;
                }
                crew = self.crew.lock();
                continue;
            }
            match deadline {
                None => self.everybody_left.wait(&mut crew),
                Some(deadline) => {
                    if self.everybody_left.wait_until(&mut crew, deadline).timed_out() {
                        return;
                    }
                }
            }
        }
        let handles = std::mem::take(&mut crew.handles);
        drop(crew);
        for handle in handles {
            // They have left already; this waits for the operating system to be done with them.
            let _ = handle.join();
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        Counters::forget(self.home);
    }
}

impl Retries for Shared {
    fn retry(self: Arc<Self>, task: Task, pause: Duration) {
        self.pauses.fetch_add(1, Ordering::SeqCst);
        let at = timer::after(pause);
        self.pausing.lock().insert((at, task.id().number()), task);
        if self.gives_up() {
            // ORDERING: SeqCst, as in `next_task`.
            self.cancelled_in_motion.fetch_add(self.give_up_pausing(), Ordering::SeqCst);
            return;
        }
        // ORDERING: SeqCst, against `close`: either this sees it, or whoever waits for the end sees the pause.
        if self.is_closed() {
            let _crew = self.crew.lock();
            // WAKES: threads in `wait_for_everybody` (predicate: nothing pauses; they wait in another way while something does).
            // They hold the lock from their look until they wait.
            self.everybody_left.notify_all();
        }
        let pool = Arc::clone(&self); // lives as long as something is to be done
        match timer::at(at, move || pool.resume(at)) {
            Ok(entry) => entry.keep(),
            // No pause, then: the pool's own threads are there.
            Err(_) => self.resume(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// SHD-01: somebody waits for the end already when a call fails that is to be tried again much later, and then that is cancelled.
    #[test]
    fn a_pause_that_begins_during_a_shutdown_can_be_cancelled() {
        const MINUTE: Duration = Duration::from_secs(60);
        let one = NonZeroUsize::MIN;
        let pool = Arc::new(Shared::new(one, ThreadPoolExecutorBuilder::default()).unwrap());
        let (let_go, held) = mpsc::channel::<()>();
        let (busy, made) = Task::local(move || _ = held.recv());
        pool.execute(busy);
        let began = Instant::now();
        thread::scope(|scope| {
            let shutdown = scope.spawn(|| pool.dismiss(Shutdown::wait()));
            while !pool.is_closed() {
                thread::yield_now();
            }
            std::thread::sleep(Duration::from_millis(50)); // until it waits, or else this shows nothing
            let (again, future) = Task::local(|| ());
            Arc::clone(&pool).retry(again, MINUTE);
            assert!(future.cancel());
            drop(let_go);
            assert!(shutdown.join().unwrap().is_complete());
        });
        assert!(made.result().is_ok());
        assert!(began.elapsed() < MINUTE / 2, "it waited for the pause to end");
    }
}
