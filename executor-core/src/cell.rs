//! The one heap object that is a submitted call: its state, its work, later its outcome, and who
//! wants to know.
//!
//! # Who may touch what
//!
//! | field | when |
//! |---|---|
//! | `shared` | under its lock. User code (the call, callbacks, `Drop`, `Serialize`, `Deserialize`, wakers) never runs under it: what is to be run or dropped is moved out first. |
//! | `slot`, before the task ends | under the lock: first the work, then nothing or a place in a worker's channel. |
//! | `slot`, written | under the lock: by the event that ends the task, once; `Encoded → Decoding → Ready` by whoever decodes; `Ready → Taken` by the owning `Reader`, by value, after publication. |
//! | `slot`, read | under the lock, by a backend only if it has seen there that the task is not over; or, once it is `Ready`, through a borrowed `Reader` without the lock. |
//! | `slot`, taken | once the outcome is published, by the owning `Reader`, without the lock. |
//!
//! # An outcome in two steps
//!
//! `state` becomes final first. Then the callbacks that were waiting run, each with a borrowed view
//! of the future. Then the outcome is *published*: waits end, wakers wake, and only now can the value
//! be moved out. So a callback always finds the value, whoever else is waiting for it. Without
//! callbacks the two steps are one.
//!
//! A result from another process is kept as bytes until somebody looks: it is decoded on the
//! thread that wants it, never on the backend's.

#![expect(unsafe_code, reason = "a finished outcome is lent out without a lock")]

use std::{
    any::Any,
    fmt, io, mem,
    panic::Location,
    sync::{Arc, Weak},
    task::Waker,
    time::{Duration, Instant},
};

use crate::{
    admission::Permit,
    arrivals::Arrivals,
    attachments::{Attachments, Encoded},
    blocking,
    call::Call,
    current::{self, StopSource},
    error::{BrokenCause, Failure, TaskError, TaskId},
    future::Future,
    header::{Extras, Header},
    observe::{Buffer, TaskEventKind},
    panic::{catch, drop_quietly},
    state::{Event, State},
    stats::{Counted, Counters, Made},
    sync::{
        Condvar, Mutex, MutexGuard, UnsafeCell,
        atomic::Ordering,
        thread::{self, ThreadId},
    },
    task::{Retries, Task},
    timer,
    waits::Waiter,
    work::{Travel, Work},
};

pub(crate) struct Cell<W: Work> {
    header: Header,
    shared: Mutex<Shared<W::Output>>,
    changed: Condvar,
    slot: UnsafeCell<Slot<W>>,
}

// SAFETY: everything but `slot` is `Sync` by itself. `slot` is written, and read
// in the general case, under the lock of `shared`, which moves work and an outcome of `Send` types between
// threads. References into it are handed out only by `Reader::peek`, which asks for `R: Sync`, and by
// `Reader::error`, whose `TaskError` is `Sync`.
unsafe impl<W: Work> Sync for Cell<W> {}

struct Shared<R> {
    state: State,
    published: bool,
    /// Another attempt is to be made, and not yet.
    pauses: bool,
    /// How it ended, for the pool that has taken it in.
    counted: Option<Counted>,
    /// Its place among those that its pool has taken in.
    permit: Option<Permit>,
    watchers: Option<Box<Watchers<R>>>,
}

type Callback<R> = Box<dyn FnOnce(&Future<R>) + Send>;

struct Watchers<R> {
    callbacks: Vec<Callback<R>>,
    /// The thread that runs the callbacks now: for it, the outcome is there.
    announcer: Option<ThreadId>,
    waker: Option<Waker>,
    arrivals: Vec<(Arc<Arrivals>, usize)>,
}

impl<R> Shared<R> {
    /// Whether somebody's code is to run before or at the publication: a callback, or a runtime's waker.
    fn is_watched(&self) -> bool {
        self.watchers.as_ref().is_some_and(|watchers| !watchers.callbacks.is_empty() || watchers.waker.is_some())
    }

    fn is_announced_here(&self) -> bool {
        let announcer = self.watchers.as_ref().and_then(|watchers| watchers.announcer);
        announcer.is_some_and(|announcer| announcer == thread::current().id())
    }
}

impl<R> Default for Watchers<R> {
    fn default() -> Self {
        Watchers { callbacks: Vec::new(), announcer: None, waker: None, arrivals: Vec::new() }
    }
}

/// What is to be done, who does it, and what came of it: never two of these at a time, and a task that waits in a queue for long
/// is as small as it can be.
enum Slot<W: Work> {
    /// The call is made here, is packed, or is about to be sent.
    Empty,
    /// Nobody has begun.
    Work(W),
    /// It lies in a worker's channel, or its call is made there.
    Leased(Lease),
    /// A reply, as it came.
    Encoded(Kept),
    /// Somebody is decoding it, outside the lock.
    Decoding,
    Ready(Result<W::Output, TaskError>),
    Taken,
}

/// An encoded reply, small: most have no attachments.
struct Kept {
    bytes: Vec<u8>,
    attachments: Option<Box<Attachments>>,
}

impl Kept {
    fn new(Encoded { bytes, attachments }: Encoded) -> Kept {
        Kept { bytes, attachments: (!attachments.is_empty()).then(|| Box::new(attachments)) }
    }

    fn into_encoded(self) -> Encoded {
        Encoded { bytes: self.bytes, attachments: self.attachments.map_or_else(Attachments::new, |boxed| *boxed) }
    }
}

/// A worker's channel, as a task that lies in it sees it.
pub trait Channel: Send + Sync + fmt::Debug {
    /// Takes the call back before it begins. `false`: it has begun. Must not block.
    fn revoke(&self, ticket: u64) -> bool;

    /// Whether the call has begun. Must not block.
    fn has_begun(&self, ticket: u64) -> bool;

    /// Stops the call by stopping its worker. `false`: this cannot be done, or it is over. The task
    /// then ends as the backend learns of it. Must not block.
    fn kill(&self, ticket: u64) -> bool;

    /// Asks the call, which has begun, to stop. Must not block.
    fn ask_to_stop(&self, ticket: u64);
}

/// A task's place in a channel.
#[derive(Clone, Debug)]
pub struct Lease {
    /// The channel.
    pub channel: Arc<dyn Channel>,
    /// Which of the tasks in it.
    pub ticket: u64,
}

/// What became of a request to cancel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cancel {
    /// This request cancelled the task.
    Now,
    /// An earlier one had.
    Before,
    /// It has begun, or is done.
    Refused,
}

/// Callbacks and wakers that are due, and the publication between them.
///
/// A backend that must not run user code where a task ended hands this to a thread that may.
/// Dropping it does the same as [`run`](Self::run).
#[must_use = "the callbacks run and the waiters wake where this is run or dropped"]
pub struct Announcement(Option<Box<dyn FnOnce() + Send>>);

impl Announcement {
    /// Runs the callbacks, then wakes the waiters.
    pub fn run(mut self) {
        self.perform();
    }

    fn perform(&mut self) {
        if let Some(announce) = self.0.take() {
            announce();
        }
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        self.perform();
    }
}

impl fmt::Debug for Announcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Announcement").finish_non_exhaustive()
    }
}

/// A new cell, with its two ends.
#[inline]
pub(crate) fn new<W: Work>(work: W, site: &'static Location<'static>) -> (Arc<dyn Runnable>, Reader<W::Output>) {
    let cell = Arc::new(Cell {
        header: Header::new(site),
        shared: Mutex::new(Shared {
            state: State::Pending,
            published: false,
            pauses: false,
            counted: None,
            permit: None,
            watchers: None,
        }),
        changed: Condvar::new(),
        slot: UnsafeCell::new(Slot::Work(work)),
    });
    (Arc::clone(&cell) as Arc<dyn Runnable>, Reader(cell))
}

/// The backend's end.
pub(crate) trait Runnable: Send + Sync {
    fn header(&self) -> &Header;
    /// Takes the work out, which the task will then never do.
    fn reclaim(&self) -> Option<Box<dyn Any>>;
    fn hold(&self, permit: Permit);
    /// The pause before another attempt is over.
    fn resume(&self);
    /// Makes the call here unless it has begun or ended. `over` is called between the call's end and
    /// its publication, or at once if there was nothing to do.
    fn run(self: Arc<Self>, over: &mut dyn FnMut(Made));
    fn observe(&self, buffer: &Arc<Buffer>);
    /// Takes the work out and encodes it. `None`: it is cancelled, or has just failed.
    fn pack(self: Arc<Self>) -> Result<Call, Option<Announcement>>;
    fn dispatch(&self, lease: Lease) -> bool;
    fn recall(&self) -> bool;
    /// `Err`: another attempt is to follow, after a pause.
    fn complete(self: Arc<Self>, reply: Encoded) -> Result<Option<Announcement>, Duration>;
    /// As `complete`, for an attempt that gave no reply.
    fn fail_attempt(self: Arc<Self>, failure: Failure) -> Result<Option<Announcement>, Duration>;
    fn fail(self: Arc<Self>, failure: Failure) -> Option<Announcement>;
    /// As `fail`, unless the call is being made in this process: then whoever makes it ends the task.
    fn fail_unless_begun(self: Arc<Self>, failure: Failure) -> Option<Announcement>;
    fn cancel(self: Arc<Self>) -> bool;
    /// As `cancel`, for a thread that must not run callbacks.
    fn call_off(self: Arc<Self>) -> Option<Announcement>;
    fn is_over(&self) -> bool;
    /// Whether whoever takes it from a queue finds nothing to do.
    fn is_void(&self) -> bool;
}

/// The user's end.
trait Readable<R>: Send + Sync {
    fn header(&self) -> &Header;
    fn state(&self) -> State;
    fn cancel(self: Arc<Self>) -> bool;
    fn kill(self: Arc<Self>) -> bool;
    fn run_here(self: Arc<Self>);
    /// Whether the outcome that is there is an error. A value that cannot be decoded is not known to be one.
    fn has_failed(&self) -> bool;
    fn is_published(&self) -> bool;
    fn is_here(&self) -> bool;
    /// Whether who waits moves the call along.
    fn is_driven(&self) -> bool;
    fn wait(&self, deadline: Option<Instant>) -> bool;
    fn ready(&self) -> Option<*const Result<R, TaskError>>;
    /// # Safety
    /// The outcome is published, as this thread has seen with Acquire, and nobody holds or will form a reference into the slot.
    unsafe fn take(&self) -> Result<R, TaskError>;
    fn add_callback(self: Arc<Self>, callback: Callback<R>);
    fn set_waker(&self, waker: &Waker) -> bool;
    /// `false`: the outcome is there already, and nobody will tell.
    fn watch(&self, arrivals: &Arc<Arrivals>, index: usize) -> bool;
    fn unwatch(&self, arrivals: &Arc<Arrivals>);
}

/// The right to a cell's outcome. There is one that owns. [Views](Cell::view) are lent to callbacks
/// only, by reference, and are gone before the outcome is published, or, where the callback was
/// added later, before the owner's borrow in `add_callback` ends.
pub(crate) struct Reader<R>(Arc<dyn Readable<R>>);

impl<R> Reader<R> {
    pub(crate) fn header(&self) -> &Header {
        self.0.header()
    }

    pub(crate) fn state(&self) -> State {
        self.0.state()
    }

    pub(crate) fn cancel(&self) -> bool {
        Arc::clone(&self.0).cancel()
    }

    pub(crate) fn kill(&self) -> bool {
        Arc::clone(&self.0).kill()
    }

    /// Runs the task on this thread if it has not begun and this is a worker of its pool.
    pub(crate) fn run_in_place(&self) {
        // ORDERING: Relaxed; a worker that sees 0 merely blocks instead.
        crate::blocking::in_place(self.header().home.load(Ordering::Relaxed), || Arc::clone(&self.0).run_here());
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.0.has_failed()
    }

    pub(crate) fn is_published(&self) -> bool {
        self.0.is_published()
    }

    /// Whether there is nothing to wait for: the outcome is published, or this thread runs its callbacks.
    pub(crate) fn is_here(&self) -> bool {
        self.0.is_here()
    }

    /// Blocks until the outcome is published; `false`: the deadline came first.
    pub(crate) fn is_driven(&self) -> bool {
        self.0.is_driven()
    }

    pub(crate) fn wait(&self, deadline: Option<Instant>) -> bool {
        self.0.wait(deadline)
    }

    /// Moves the outcome out, if it is published.
    ///
    /// # Errors
    /// This reader, when it is not.
    pub(crate) fn try_take(self) -> Result<Result<R, TaskError>, Self> {
        if !self.is_published() {
            return Err(self);
        }
        // SAFETY: as in `take`.
        Ok(unsafe { self.0.take() })
    }

    /// Moves the published outcome out.
    ///
    /// # Panics
    /// If it is not published, or was moved out by [`poll_take`](Self::poll_take).
    pub(crate) fn take(self) -> Result<R, TaskError> {
        assert!(self.is_published(), "an outcome is moved out only after its publication");
        // SAFETY: published, so no view exists any more; and this is the owning reader, by value,
        // so no reference from `peek` or `error` exists and none can be formed.
        unsafe { self.0.take() }
    }

    /// Has `waker` woken at the publication, on whose thread that will be. `true`: it is published, and nobody will be woken.
    pub(crate) fn set_waker(&self, waker: &Waker) -> bool {
        self.0.set_waker(waker)
    }

    /// As [`take`](Self::take), for a future that is pinned.
    pub(crate) fn poll_take(&mut self, waker: &Waker) -> Option<Result<R, TaskError>> {
        if !self.0.set_waker(waker) {
            return None;
        }
        // SAFETY: published, so no view exists any more; and this is the owning reader, by exclusive
        // reference, so no reference from `peek` or `error` exists now. Later ones find it `Taken`.
        Some(unsafe { self.0.take() })
    }

    pub(crate) fn peek(&self) -> Option<&Result<R, TaskError>>
    where
        R: Sync,
    {
        let outcome = self.0.ready()?;
        // SAFETY: `ready` returned the inside of a `Ready` slot. It stays so until `take`, which
        // needs the owning reader by value or exclusively. `self` is borrowed for as long as the
        // reference lives, and is the owner, or a view that ends before publication and thus before
        // `take`. Several threads may look at once, since `R: Sync`.
        Some(unsafe { &*outcome })
    }

    pub(crate) fn error(&self) -> Option<&TaskError> {
        let outcome = self.0.ready()?;
        // SAFETY: as in `peek`; only the `TaskError` inside, which is `Sync`, is handed on.
        unsafe { &*outcome }.as_ref().err()
    }

    pub(crate) fn add_callback(&self, callback: Callback<R>) {
        Arc::clone(&self.0).add_callback(callback);
    }

    /// Has `arrivals` told of the publication. `false`: the outcome is there already, and nobody will tell.
    #[must_use]
    pub(crate) fn watch(&self, arrivals: &Arc<Arrivals>, index: usize) -> bool {
        self.0.watch(arrivals, index)
    }

    pub(crate) fn unwatch(&self, arrivals: &Arc<Arrivals>) {
        self.0.unwatch(arrivals);
    }
}

impl<W: Work> Cell<W> {
    fn error(&self, failure: Failure) -> TaskError {
        TaskError::after(self.header.attempts(), failure, self.header.id, self.header.site)
    }

    /// A second reader for callbacks. It must be gone before publication.
    fn view(self: &Arc<Self>) -> Future<W::Output> {
        Future::new(Reader(Arc::clone(self) as Arc<dyn Readable<W::Output>>))
    }

    /// For a reader. A backend looks [`before_the_end`](Self::before_the_end).
    fn slot<'a>(&'a self, _lock: &'a MutexGuard<'_, Shared<W::Output>>) -> &'a Slot<W> {
        // SAFETY: the lock is held for as long as the reference lives, and all writers hold it but one: the owner who takes the
        // outcome, by value or exclusively, after its publication. Then there is no reader to call this, and `before_the_end` does not.
        unsafe { &*self.slot.get() }
    }

    /// The slot, unless the task is over: then the owner may be taking the outcome.
    fn before_the_end<'a>(&'a self, shared: &'a MutexGuard<'_, Shared<W::Output>>) -> Option<&'a Slot<W>> {
        (!shared.state.is_final()).then(|| self.slot(shared))
    }

    fn lease<'a>(&'a self, shared: &'a MutexGuard<'_, Shared<W::Output>>) -> Option<&'a Lease> {
        match self.before_the_end(shared)? {
            Slot::Leased(lease) => Some(lease),
            _ => None,
        }
    }

    fn work<'a>(&'a self, shared: &'a MutexGuard<'_, Shared<W::Output>>) -> Option<&'a W> {
        match self.before_the_end(shared)? {
            Slot::Work(work) => Some(work),
            _ => None,
        }
    }

    fn take_work(&self, shared: &MutexGuard<'_, Shared<W::Output>>) -> Option<W> {
        self.work(shared)?;
        match self.fill(shared, Slot::Empty) {
            Slot::Work(work) => Some(work),
            _ => unreachable!("it was there, and the lock is still held"),
        }
    }

    /// Replaces a slot that nobody can be looking into: any but `Ready`, of a task that is not published.
    fn fill(&self, lock: &MutexGuard<'_, Shared<W::Output>>, slot: Slot<W>) -> Slot<W> {
        assert!(!matches!(self.slot(lock), Slot::Ready(_)), "an outcome is written once");
        // SAFETY: the lock is held, so no other thread writes or reads under it; references without
        // the lock are only into `Ready`, which this is not.
        mem::replace(unsafe { &mut *self.slot.get() }, slot)
    }

    /// Ends the task with `event` and fills the slot. `None` if it had ended, or if nothing is left
    /// to announce.
    fn end(
        self: &Arc<Self>,
        mut shared: MutexGuard<'_, Shared<W::Output>>,
        event: Event,
        slot: Slot<W>,
    ) -> Option<Announcement> {
        let Some(next) = shared.state.after(event) else {
            drop(shared);
            drop_quietly(slot);
            return None;
        };
        shared.state = next;
        if shared.permit.is_some() || self.header.observed().is_some() {
            let failure = Self::failure_in(&slot);
            let counted = match (event, &failure) {
                (Event::Cancel, _) => Counted::Cancelled,
                (_, None) => Counted::Done,
                (_, Some(_)) => Counted::Failed,
            };
            self.ends(&mut shared, counted, || failure);
        }
        let former = self.fill(&shared, slot);
        if shared.is_watched() {
            drop(shared);
            drop_quietly(former);
            let cell = Arc::clone(self);
            return Some(Announcement(Some(Box::new(move || cell.announce(cell.shared.lock(), &mut || ())))));
        }
        match former {
            // Captures are gone before anybody learns of the end: a scope relies on it.
            Slot::Work(work) => {
                drop(shared);
                drop_quietly(work);
                self.announce(self.shared.lock(), &mut || ());
            }
            _ => self.publish(shared),
        }
        None
    }

    /// The task has ended: tells who counts, and who observes.
    fn ends(&self, shared: &mut Shared<W::Output>, counted: Counted, failure: impl FnOnce() -> Option<Failure>) {
        shared.counted = Some(counted);
        // LOCK: a cell's, then a buffer's; nobody takes them the other way round.
        self.header.tell_end(|| TaskEventKind::Ended { error: failure().map(|failure| self.error(failure)) });
    }

    /// How a slot that is to be filled has ended its task.
    fn failure_in(slot: &Slot<W>) -> Option<Failure> {
        match slot {
            Slot::Ready(Ok(output)) => W::first_failure(output).cloned(),
            Slot::Ready(Err(error)) => Some(error.failure().clone()),
            Slot::Encoded(reply) => (Self::travel().first_failure)(&reply.bytes),
            Slot::Empty | Slot::Work(_) | Slot::Leased(_) | Slot::Decoding | Slot::Taken => None,
        }
    }

    /// Runs callbacks until there are none left, then publishes. `over`, which is a backend's, is called in between, under
    /// the lock.
    fn announce<'a>(self: &'a Arc<Self>, mut shared: MutexGuard<'a, Shared<W::Output>>, over: &mut dyn FnMut()) {
        while let Some(watchers) = shared.watchers.as_mut().filter(|watchers| !watchers.callbacks.is_empty()) {
            let callbacks = mem::take(&mut watchers.callbacks);
            watchers.announcer = Some(thread::current().id());
            drop(shared);
            let view = self.view();
            for callback in callbacks {
                call_back(callback, &view);
            }
            drop(view);
            shared = self.shared.lock();
        }
        over();
        self.publish(shared);
    }

    fn publish(&self, mut shared: MutexGuard<'_, Shared<W::Output>>) {
        // Before its outcome can be seen: whoever has seen all outcomes finds nobody inside.
        // LOCK: a cell's, then an admission's; nobody takes them the other way round.
        if let Some((permit, counted)) = shared.permit.take().zip(shared.counted) {
            permit.leave_as(counted);
        }
        shared.published = true;
        let watchers = shared.watchers.take();
        if let Some(watchers) = &watchers {
            // LOCK: a cell's lock, then a queue of arrivals; nobody takes them the other way round. Under the lock,
            // so that whoever has seen this outcome finds it in the queue before all that it causes.
            for (arrivals, index) in &watchers.arrivals {
                arrivals.push(*index);
            }
        }
        // ORDERING: Release, for the Acquire of whoever then takes the outcome without the lock.
        self.header.is_published.store(true, Ordering::Release);
        drop(shared);
        // WAKES: every thread in `wait` (predicate: `published`) and in `ready` (predicate: not
        // `Decoding`). The predicate changed under the lock that they hold from their check until
        // they wait, so none of them can miss this.
        self.changed.notify_all();
        if let Some(waker) = watchers.and_then(|watchers| watchers.waker) {
            // WAKES: the async task that polled the future last; it polls again and finds
            // `published`, which was set before the waker was taken, under the same lock.
            drop_quietly(catch(|| waker.wake()));
        }
    }

    /// If it is refused because the call runs, and `asks`, the call is asked to stop.
    fn cancel_if_not_begun(self: &Arc<Self>, asks: bool) -> Cancel {
        let mut shared = self.shared.lock();
        self.learn(&mut shared, |lease| !lease.channel.revoke(lease.ticket));
        if shared.state.after(Event::Cancel).is_none() {
            if asks && shared.state == State::Running {
                // ORDERING: Relaxed; the call looks now and then, and reads nothing on the strength of it.
                self.header.stop.store(true, Ordering::Relaxed);
                if let Some(lease) = self.lease(&shared) {
                    lease.channel.ask_to_stop(lease.ticket);
                }
            }
            return if shared.state == State::Cancelled { Cancel::Before } else { Cancel::Refused };
        }
        // LOCK: a cell's, then that of the pools' counters; nobody takes them the other way round.
        Counters::count_cancelled(self.header.home.load(Ordering::Relaxed), !shared.pauses);
        // The lock is held from the revocation on, so nobody can put the task elsewhere meanwhile.
        drop(self.end(shared, Event::Cancel, Slot::Ready(Err(self.error(Failure::Cancelled)))));
        Cancel::Now
    }

    /// Asks the channel, if the task lies in one, whether the call has begun.
    fn learn(&self, shared: &mut MutexGuard<'_, Shared<W::Output>>, has_begun: impl FnOnce(&Lease) -> bool) {
        if shared.state == State::Dispatched && self.lease(shared).is_some_and(has_begun) {
            shared.state = shared.state.after(Event::Start).expect("a dispatched task may start");
        }
    }

    fn start(&self) -> Option<W> {
        let mut shared = self.shared.lock();
        if shared.pauses {
            return None; // a handle that was left behind when the last attempt was made in place
        }
        let work = self.take_work(&shared)?; // packed or cancelled work is gone
        let next = shared.state.after(Event::Start);
        shared.state = next.expect("work is taken by whoever starts, packs or ends the task");
        self.header.count_attempt();
        Some(work)
    }

    /// The running call's limit: when it passes, the task ends, and the call is asked to.
    fn watch(self: &Arc<Self>, limit: Duration, attempt: u32) -> io::Result<timer::Entry> {
        let cell = Arc::downgrade(self);
        timer::at(timer::after(limit), move || {
            if let Some(cell) = cell.upgrade() {
                cell.overrun(limit, attempt);
            }
        })
    }

    fn overrun(self: &Arc<Self>, limit: Duration, attempt: u32) {
        let extras = self.header.extras.get().expect("a limit is one of the extras");
        let error = self.error(Failure::TimedOut { limit, pid: None });
        let shared = self.shared.lock();
        // ORDERING: Relaxed; changed under the lock.
        if shared.state != State::Running || extras.attempts.load(Ordering::Relaxed) != attempt {
            return;
        }
        self.header.stop.store(true, Ordering::Relaxed);
        let Some(announcement) = self.end(shared, Event::Settle, Slot::Ready(Err(error))) else { return };
        // The call's own thread is busy, and this one is everybody's.
        let announced = thread::Builder::new().name("executor-overrun".into()).spawn(|| announcement.run());
        drop(announced); // without a thread, the announcement was dropped, and so made here
    }

    /// Whether an attempt that ended with `failure` is followed by another one, for which `copy` is put back if the call is
    /// made in this process; and if so, after which pause.
    fn try_again(&self, failure: &Failure, copy: Option<&mut Option<W>>) -> Option<Duration> {
        let extras = self.header.extras.get()?;
        let policy = extras.options.retry_policy()?;
        let tried = {
            let mut tried = extras.tried.lock();
            tried.count(failure);
            *tried
        };
        let error = self.error(failure.clone());
        let pause = catch(|| policy.pause(&error, tried)).ok().flatten()?;
        let mut shared = self.shared.lock();
        // ORDERING: Relaxed; whoever asks a call to stop takes the lock for it.
        if self.header.stop.load(Ordering::Relaxed) {
            return None; // nobody wants it any more
        }
        shared.state = shared.state.after(Event::Retry)?;
        let again = copy.and_then(Option::take);
        shared.pauses = again.is_some();
        drop(self.fill(&shared, again.map_or(Slot::Empty, Slot::Work)));
        self.header.tell_end(|| TaskEventKind::Retried { error, pause });
        Some(pause)
    }

    /// What is needed for another attempt in this process, if one may follow this one. A copy that fails is as none.
    fn prepare_retry(&self, extras: &Extras, work: &W) -> (Option<Arc<dyn Retries>>, Option<W>) {
        let tried = *extras.tried.lock();
        let wanted = extras.options.retry_policy().is_some_and(|policy| policy.may_follow(tried));
        let retries = extras.retries.get().and_then(Weak::upgrade).filter(|_| wanted);
        let copy = if retries.is_some() {
            W::TRAVEL.and_then(|travel| catch(|| (travel.copy)(work)).flatten().ok())
        } else {
            None
        };
        (retries, copy)
    }

    /// Sleeps until the outcome is published; `false`: the deadline came first.
    fn sleep(&self, deadline: Option<Instant>) -> bool {
        let mut shared = self.shared.lock();
        while !shared.published {
            match deadline {
                None => self.changed.wait(&mut shared),
                Some(deadline) => {
                    if self.changed.wait_until(&mut shared, deadline).timed_out() {
                        return shared.published;
                    }
                }
            }
        }
        true
    }

    fn decode(&self, reply: Kept) -> Result<W::Output, TaskError> {
        (Self::travel().unpack)(reply.into_encoded()).map_err(|failure| self.error(failure))
    }
}

impl<W: Work> Cell<W> {
    /// For a task that has been packed.
    fn travel() -> Travel<W> {
        W::TRAVEL.expect("what came back as bytes has travelled")
    }

    fn call(self: &Arc<Self>, work: W) -> Result<W::Output, Failure> {
        current::making(self, 0, || catch(|| work.run()))
    }

    /// Makes a call that was started.
    fn make(self: Arc<Self>, work: W, over: &mut dyn FnMut(Made)) {
        let outcome = match self.header.extras.get() {
            None => self.call(work),
            Some(extras) => {
                self.header.tell_start();
                let (retries, mut copy) = self.prepare_retry(extras, &work);
                let outcome = self.call_within_limit(work, extras);
                let failure = match &outcome {
                    Ok(output) => W::failure_in(output),
                    Err(failure) => Some(failure),
                };
                let failure = failure.filter(|_| copy.is_some());
                let pause = failure.and_then(|failure| self.try_again(failure, Some(&mut copy)));
                drop_quietly(copy);
                if let Some((retries, pause)) = retries.zip(pause) {
                    drop_quietly(outcome);
                    retries.retry(Task::again(Arc::clone(&self) as Arc<dyn Runnable>), pause);
                    return over(Made::Again);
                }
                outcome
            }
        };
        let outcome = outcome.map_err(|failure| self.error(failure));
        let failure = match &outcome {
            Ok(output) => W::first_failure(output),
            Err(error) => Some(error.failure()),
        };
        let counted = if failure.is_some() { Counted::Failed } else { Counted::Done };
        let mut shared = self.shared.lock();
        let Some(next) = shared.state.after(Event::Settle) else {
            // Its limit has passed, and that was its outcome.
            drop(shared);
            drop_quietly(outcome);
            over(Made::Failed);
            return drop_quietly(self);
        };
        shared.state = next;
        self.ends(&mut shared, counted, || failure.cloned());
        self.fill(&shared, Slot::Ready(outcome));
        // Here, on the thread of the call: it is busy until its callbacks have run.
        let made = if counted == Counted::Done { Made::Done } else { Made::Failed };
        self.announce(shared, &mut || over(made));
        if mem::needs_drop::<W::Output>() || self.header.extras.get().is_some() {
            drop_quietly(self); // the last handle drops the outcome, which is user code
        }
    }

    fn call_within_limit(self: &Arc<Self>, work: W, extras: &Extras) -> Result<W::Output, Failure> {
        let attempt = self.header.attempts();
        let entry = extras.options.chosen_time_limit().map(|limit| self.watch(limit, attempt)).transpose();
        match entry {
            Ok(_entry) => self.call(work),
            Err(error) => {
                drop_quietly(work);
                Err(Failure::Broken(BrokenCause::Spawn(format!("the thread that watches time limits: {error}"))))
            }
        }
    }
}

impl<W: Work> StopSource for Cell<W> {
    fn is_stopped(&self, _: u64) -> bool {
        // ORDERING: Relaxed; see `cancel_if_not_begun`.
        self.header.stop.load(Ordering::Relaxed)
    }

    fn task(&self) -> Option<TaskId> {
        Some(self.header.id)
    }

    fn waiter(&self) -> Option<Waiter> {
        let has_limit = self.header.options().is_some_and(|options| options.chosen_time_limit().is_some());
        Some(if has_limit { Waiter::call_with_limit(self.header.id) } else { Waiter::task(self.header.id) })
    }
}

fn call_back<R>(callback: Callback<R>, future: &Future<R>) {
    // A callback's panic is printed by the hook and ends there: it is nobody's outcome.
    drop_quietly(catch(|| callback(future)));
}

impl<W: Work> Runnable for Cell<W> {
    fn header(&self) -> &Header {
        &self.header
    }

    fn run(self: Arc<Self>, over: &mut dyn FnMut(Made)) {
        match self.start() {
            Some(work) => self.make(work, over),
            None => over(Made::Nothing),
        }
    }

    fn observe(&self, buffer: &Arc<Buffer>) {
        let function = self.work(&self.shared.lock()).map(W::function);
        // One that is over already has never been in a pool.
        function.into_iter().for_each(|function| self.header.observe(buffer, function));
    }

    fn reclaim(&self) -> Option<Box<dyn Any>> {
        let work = self.take_work(&self.shared.lock())?;
        Some(Box::new(work))
    }

    fn hold(&self, permit: Permit) {
        let mut shared = self.shared.lock();
        if !shared.state.is_final() {
            shared.permit = Some(permit);
        } // else it is given back here and now
    }

    fn resume(&self) {
        self.shared.lock().pauses = false;
    }

    fn pack(self: Arc<Self>) -> Result<Call, Option<Announcement>> {
        let work = self.take_work(&self.shared.lock());
        let Some(work) = work else { return Err(None) };
        let Some(travel) = W::TRAVEL else {
            drop_quietly(work);
            let stays = "it stays in this process, as a closure with captures does";
            return Err(self.fail(Failure::Refused(stays.into())));
        };
        catch(|| (travel.pack)(work)).flatten().map_err(|failure| self.fail(failure))
    }

    fn dispatch(&self, lease: Lease) -> bool {
        let mut shared = self.shared.lock();
        let Some(next) = shared.state.after(Event::Dispatch) else { return false };
        shared.state = next;
        drop(self.fill(&shared, Slot::Leased(lease)));
        self.header.count_attempt();
        true
    }

    fn recall(&self) -> bool {
        let mut shared = self.shared.lock();
        let Some(next) = shared.state.after(Event::Recall) else { return false };
        shared.state = next;
        drop(self.fill(&shared, Slot::Empty));
        if let Some(extras) = self.header.extras.get() {
            // ORDERING: Relaxed; see `attempts`. It had not begun.
            extras.attempts.fetch_sub(1, Ordering::Relaxed);
        }
        true
    }

    fn complete(self: Arc<Self>, reply: Encoded) -> Result<Option<Announcement>, Duration> {
        if self.header.options().is_some_and(|options| options.retry_policy().is_some())
            && let Some(failure) = (Self::travel().failure_of_all)(&reply.bytes)
            && let Some(pause) = self.try_again(&failure, None)
        {
            return Err(pause);
        }
        Ok(self.end(self.shared.lock(), Event::Settle, Slot::Encoded(Kept::new(reply))))
    }

    fn fail_attempt(self: Arc<Self>, failure: Failure) -> Result<Option<Announcement>, Duration> {
        match self.try_again(&failure, None) {
            Some(pause) => Err(pause),
            None => Ok(self.fail(failure)),
        }
    }

    fn fail(self: Arc<Self>, failure: Failure) -> Option<Announcement> {
        let error = self.error(failure);
        self.end(self.shared.lock(), Event::Settle, Slot::Ready(Err(error)))
    }

    fn fail_unless_begun(self: Arc<Self>, failure: Failure) -> Option<Announcement> {
        let error = self.error(failure);
        let shared = self.shared.lock();
        if shared.state == State::Running {
            return None;
        }
        self.end(shared, Event::Settle, Slot::Ready(Err(error)))
    }

    fn cancel(self: Arc<Self>) -> bool {
        self.cancel_if_not_begun(false) == Cancel::Now
    }

    fn call_off(self: Arc<Self>) -> Option<Announcement> {
        let error = self.error(Failure::Cancelled);
        self.end(self.shared.lock(), Event::Cancel, Slot::Ready(Err(error)))
    }

    fn is_over(&self) -> bool {
        self.shared.lock().state.is_final()
    }

    fn is_void(&self) -> bool {
        self.shared.lock().state != State::Pending
    }
}

impl<W: Work> Readable<W::Output> for Cell<W> {
    fn header(&self) -> &Header {
        &self.header
    }

    fn state(&self) -> State {
        let mut shared = self.shared.lock();
        self.learn(&mut shared, |lease| lease.channel.has_begun(lease.ticket));
        shared.state
    }

    fn cancel(self: Arc<Self>) -> bool {
        self.cancel_if_not_begun(true) != Cancel::Refused
    }

    fn kill(self: Arc<Self>) -> bool {
        if Readable::cancel(Arc::clone(&self)) {
            return true;
        }
        let lease = self.lease(&self.shared.lock()).cloned();
        lease.is_some_and(|lease| lease.channel.kill(lease.ticket))
    }

    fn run_here(self: Arc<Self>) {
        if let Some(work) = self.start() {
            blocking::begin_in_place(self.header.id, self.header.site);
            self.make(work, &mut blocking::end_in_place);
        }
    }

    fn has_failed(&self) -> bool {
        let shared = self.shared.lock();
        match self.slot(&shared) {
            Slot::Ready(outcome) => outcome.is_err(),
            Slot::Encoded(reply) => (Self::travel().failure)(&reply.bytes).is_some(),
            Slot::Empty | Slot::Work(_) | Slot::Leased(_) | Slot::Decoding | Slot::Taken => false,
        }
    }

    fn is_published(&self) -> bool {
        // ORDERING: Acquire, see `publish`.
        self.header.is_published.load(Ordering::Acquire)
    }

    fn is_here(&self) -> bool {
        let shared = self.shared.lock();
        shared.published || shared.is_announced_here()
    }

    fn is_driven(&self) -> bool {
        self.shared.lock().permit.as_ref().is_some_and(Permit::is_driven)
    }

    fn wait(&self, deadline: Option<Instant>) -> bool {
        let driver = self.shared.lock().permit.as_ref().and_then(Permit::driver);
        if let Some(driver) = driver {
            driver.wait(deadline, &|| self.is_published(), &mut || _ = self.sleep(deadline));
            return self.is_published();
        }
        self.sleep(deadline)
    }

    fn ready(&self) -> Option<*const Result<W::Output, TaskError>> {
        let mut shared = self.shared.lock();
        loop {
            match self.slot(&shared) {
                Slot::Empty | Slot::Work(_) | Slot::Leased(_) | Slot::Taken => return None,
                Slot::Ready(outcome) => return Some(outcome),
                Slot::Decoding => self.changed.wait(&mut shared),
                Slot::Encoded(_) => {
                    let Slot::Encoded(reply) = self.fill(&shared, Slot::Decoding) else {
                        unreachable!("it was encoded, and the lock is still held")
                    };
                    drop(shared);
                    let outcome = self.decode(reply);
                    shared = self.shared.lock();
                    self.fill(&shared, Slot::Ready(outcome));
                    // WAKES: whoever met `Decoding` above; the slot changed under the lock.
                    self.changed.notify_all();
                }
            }
        }
    }

    unsafe fn take(&self) -> Result<W::Output, TaskError> {
        // SAFETY: by this function's contract the outcome is published, which the caller has seen with Acquire, and no
        // reference into the slot exists. From then on backends, whose events are all refused, do not look into it,
        // so this thread has it to itself.
        let slot = mem::replace(unsafe { &mut *self.slot.get() }, Slot::Taken);
        match slot {
            Slot::Ready(outcome) => outcome,
            Slot::Encoded(reply) => self.decode(reply),
            Slot::Taken => panic!("the outcome of task {} was polled after it had been given", self.header.id),
            _ => unreachable!("published, and nobody is looking"),
        }
    }

    fn add_callback(self: Arc<Self>, callback: Callback<W::Output>) {
        let mut shared = self.shared.lock();
        if !shared.published && !shared.is_announced_here() {
            shared.watchers.get_or_insert_default().callbacks.push(callback);
            return;
        }
        drop(shared);
        // The caller borrows the future until this returns, so the view does not outlive that.
        call_back(callback, &self.view());
    }

    fn set_waker(&self, waker: &Waker) -> bool {
        let waker = waker.clone(); // a runtime's code, so not under the lock
        let mut shared = self.shared.lock();
        if shared.published {
            return true;
        }
        let replaced = shared.watchers.get_or_insert_default().waker.replace(waker);
        drop(shared);
        drop_quietly(replaced);
        false
    }

    fn watch(&self, arrivals: &Arc<Arrivals>, index: usize) -> bool {
        if self.is_published() {
            return false;
        }
        let mut shared = self.shared.lock();
        if shared.published || shared.is_announced_here() {
            return false;
        }
        shared.watchers.get_or_insert_default().arrivals.push((Arc::clone(arrivals), index));
        let driver = shared.permit.as_ref().and_then(Permit::driver);
        drop(shared);
        if let Some(driver) = driver {
            arrivals.driven_by(driver);
        }
        true
    }

    fn unwatch(&self, arrivals: &Arc<Arrivals>) {
        if let Some(watchers) = &mut self.shared.lock().watchers {
            watchers.arrivals.retain(|(known, _)| !Arc::ptr_eq(known, arrivals));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::Closure;

    /// What lies in a queue by the million: two lines of memory, with the two counts of its `Arc`.
    #[test]
    fn a_queued_call_is_small() {
        fn size<W: Work>(_: &W) -> usize {
            size_of::<Cell<W>>() + 2 * size_of::<usize>()
        }
        let captured = (0_u64, "name".as_ptr() as usize);
        let call = Closure::new(move || captured.0 + captured.1 as u64);
        assert!(size(&call) <= 128, "{} bytes", size(&call));
    }
}
