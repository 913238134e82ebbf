//! The one heap object that is a submitted call: its state, its work, later its outcome, and who
//! wants to know.
//!
//! # Who may touch what
//!
//! | field | when |
//! |---|---|
//! | the stage (`stage.rs`) | alone, by who makes the call, until somebody takes the lock of `shared`; then under that. |
//! | `shared` | under its lock. User code (the call, callbacks, `Drop`, `Serialize`, `Deserialize`, wakers) never runs under it: what is to be run or dropped is moved out first. |
//! | `slot`, before the call begins | under the lock: first the work, then nothing or a place in a worker's channel. |
//! | `slot`, while the call is made here | by its maker, without the lock: it takes the work out, and puts the outcome in. If there are options, whose limit may end the task meanwhile, it puts that in under the lock. |
//! | `slot`, written | under the lock, or as above: by the event that ends the task, once; `Encoded → Decoding → Ready` by whoever decodes; `Ready → Taken` by the owning `Reader`, by value, after publication. |
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

use smallvec::SmallVec;
use std::{
    any::Any,
    fmt, io, mem,
    ops::{Deref, DerefMut},
    panic::Location,
    sync::{Arc, Weak},
    task::Waker,
    time::{Duration, Instant},
};

use crate::{
    admission::Permit,
    arena::Placed,
    arrivals::Arrivals,
    attachments::{Attachments, Encoded},
    blocking,
    call::Call,
    current::{self, Share, Source, StopSource},
    error::{BrokenCause, Failure, TaskError, TaskId},
    future::Future,
    handle::{CellHandle, Handle, Head},
    header::{Extras, Header},
    observe::{Buffer, TaskEventKind},
    panic::{catch, drop_quietly},
    reader::Reader,
    stage::Stage,
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

/// Lies behind [handles](crate::handle), and nowhere else. That all of it is in an `UnsafeCell` lets handles be made from a reference.
#[repr(transparent)]
pub(crate) struct Cell<W: Work>(std::cell::UnsafeCell<Body<W>>);

#[repr(C)]
pub(crate) struct Body<W: Work> {
    /// First, where handles look for it.
    head: Head,
    shared: Mutex<Shared<W::Output>>,
    changed: Condvar,
    slot: UnsafeCell<Slot<W>>,
}

impl<W: Work> Deref for Cell<W> {
    type Target = Body<W>;

    fn deref(&self) -> &Body<W> {
        // SAFETY: nobody has an exclusive reference to it but who drops it, after the last handle is gone.
        unsafe { &*self.0.get() }
    }
}

impl<W: Work> Body<W> {
    fn header(&self) -> &Header {
        &self.head.header
    }

    fn stage(&self) -> &Stage {
        &self.head.header.stage
    }

    /// From now on the task goes by the lock.
    fn lock(&self) -> Locked<'_, W::Output> {
        let shared = self.shared.lock();
        self.stage().guard();
        Locked { shared, stage: self.stage() }
    }
}

// SAFETY: everything but `slot` is `Sync` by itself. `slot` is written, and read in the general case, under the lock of `shared`, or by who
// makes the call, to whom the stage gives it alone. Either moves work and an outcome of `Send` types between threads. References into it are handed out only by `Reader::peek`, which asks for `R: Sync`, and by
// `Reader::error`, whose `TaskError` is `Sync`.
unsafe impl<W: Work> Sync for Cell<W> {}
// SAFETY: work and outputs are `Send`, and the rest is, too, but for pointers to constants and to the cell's own memory.
unsafe impl<W: Work> Send for Cell<W> {}

struct Shared<R> {
    /// Another attempt is to be made, and not yet.
    pauses: bool,
    /// How it ended, for the pool that has taken it in.
    counted: Option<Counted>,
    /// Its place among those that its pool has taken in.
    permit: Option<Permit>,
    watchers: Option<Placed<Watchers<R>>>,
}

pub(crate) type Callback<R> = Box<dyn FnOnce(&Future<R>) + Send>;

struct Watchers<R> {
    callbacks: Vec<Callback<R>>,
    /// The thread that runs the callbacks now: for it, the outcome is there.
    announcer: Option<ThreadId>,
    waker: Option<Waker>,
    /// Nearly always one.
    arrivals: SmallVec<[(Arc<Arrivals>, usize); 1]>,
}

/// The lock, and what changes under it.
struct Locked<'a, R> {
    shared: MutexGuard<'a, Shared<R>>,
    stage: &'a Stage,
}

impl<R> Locked<'_, R> {
    /// `event` happens. `false`: it is refused.
    fn enter(&mut self, event: Event) -> bool {
        let Some(next) = self.stage.state().after(event) else { return false };
        self.pauses = false;
        self.stage.enter(next);
        true
    }
}

impl<R> Deref for Locked<'_, R> {
    type Target = Shared<R>;

    fn deref(&self) -> &Shared<R> {
        &self.shared
    }
}

impl<R> DerefMut for Locked<'_, R> {
    fn deref_mut(&mut self) -> &mut Shared<R> {
        &mut self.shared
    }
}

impl<R> Shared<R> {
    /// Whether somebody's code is to run before or at the publication: a callback, or a runtime's waker.
    fn is_watched(&self) -> bool {
        self.watchers.as_ref().is_some_and(|watchers| !watchers.callbacks.is_empty() || watchers.waker.is_some())
    }

    fn watchers(&mut self) -> &mut Watchers<R> {
        self.watchers.get_or_insert_with(|| Placed::new(Watchers::default()))
    }

    fn is_announced_here(&self) -> bool {
        let announcer = self.watchers.as_ref().and_then(|watchers| watchers.announcer);
        announcer.is_some_and(|announcer| announcer == thread::current().id())
    }
}

impl<R> Default for Watchers<R> {
    fn default() -> Self {
        Watchers { callbacks: Vec::new(), announcer: None, waker: None, arrivals: SmallVec::new() }
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
pub(crate) fn new<W: Work>(work: W, site: &'static Location<'static>) -> (Handle, Reader<W::Output>) {
    let cell = |head| {
        Cell(std::cell::UnsafeCell::new(Body {
            head,
            shared: Mutex::new(Shared { pauses: false, counted: None, permit: None, watchers: None }),
            changed: Condvar::new(),
            slot: UnsafeCell::new(Slot::Work(work)),
        }))
    };
    let (backend, reader) = CellHandle::ends_of_new(Header::new(site), cell);
    (backend, Reader::new(reader))
}

/// The backend's end.
pub(crate) trait Runnable: Send + Sync {
    fn as_stop_source(&self) -> &dyn StopSource;
    /// Takes the work out, which the task will then never do.
    fn reclaim(&self) -> Option<Box<dyn Any>>;
    fn hold(&self, permit: Permit);
    /// The pause before another attempt is over.
    fn resume(&self);
    /// Makes the call here unless it has begun or ended. `over` is called between the call's end and
    /// its publication, or at once if there was nothing to do.
    fn run(&self, over: &mut dyn FnMut(Made));
    fn observe(&self, buffer: &Arc<Buffer>);
    /// Takes the work out and encodes it. `None`: it is cancelled, or has just failed.
    fn pack(&self) -> Result<Call, Option<Announcement>>;
    fn dispatch(&self, lease: Lease) -> bool;
    fn recall(&self) -> bool;
    /// `Err`: another attempt is to follow, after a pause.
    fn complete(&self, reply: Encoded) -> Result<Option<Announcement>, Duration>;
    /// As `complete`, for an attempt that gave no reply.
    fn fail_attempt(&self, failure: Failure) -> Result<Option<Announcement>, Duration>;
    fn fail(&self, failure: Failure) -> Option<Announcement>;
    /// As `fail`, unless the call is being made in this process: then whoever makes it ends the task.
    fn fail_unless_begun(&self, failure: Failure) -> Option<Announcement>;
    fn cancel(&self) -> bool;
    /// As `cancel`, for a thread that must not run callbacks.
    fn call_off(&self) -> Option<Announcement>;
    fn is_over(&self) -> bool;
    /// Whether whoever takes it from a queue finds nothing to do.
    fn is_void(&self) -> bool;
}

/// The user's end.
pub(crate) trait Readable<R>: Send + Sync {
    fn state(&self) -> State;
    fn cancel(&self) -> bool;
    fn kill(&self) -> bool;
    fn run_here(&self);
    /// Whether the outcome that is there is an error. A value that cannot be decoded is not known to be one.
    fn has_failed(&self) -> bool;
    fn is_here(&self) -> bool;
    /// Whether who waits moves the call along.
    fn is_driven(&self) -> bool;
    fn wait(&self, deadline: Option<Instant>) -> bool;
    fn ready(&self) -> Option<*const Result<R, TaskError>>;
    /// # Safety
    /// The outcome is published, as this thread has seen with Acquire, and nobody holds or will form a reference into the slot.
    unsafe fn take(&self) -> Result<R, TaskError>;
    fn add_callback(&self, callback: Callback<R>);
    fn set_waker(&self, waker: &Waker) -> bool;
    /// `false`: the outcome is there already, and nobody will tell.
    fn watch(&self, arrivals: &Arc<Arrivals>, index: usize) -> bool;
    fn unwatch(&self, arrivals: &Arc<Arrivals>);
}

impl<W: Work> Cell<W> {
    fn error(&self, failure: Failure) -> TaskError {
        TaskError::after(self.header().attempts(), failure, self.header().id, self.header().site)
    }

    /// A second reader for callbacks. It must be gone before publication.
    fn view(&self) -> Future<W::Output> {
        Future::new(Reader::new(CellHandle::of(self).into_read_handle()))
    }

    /// For a reader. A backend looks [`before_the_end`](Self::before_the_end).
    fn slot<'a>(&'a self, _lock: &'a Locked<'_, W::Output>) -> &'a Slot<W> {
        // SAFETY: the lock is held for as long as the reference lives, and all writers hold it but two. One is who makes the call here,
        // until the task is over: readers call this afterwards only. The other is the owner who takes the outcome, by value or
        // exclusively, after its publication: then there is no reader to call this. `before_the_end` does not in either case.
        unsafe { &*self.slot.get() }
    }

    /// The slot, unless its call is made here, or the task is over: then it is its maker's, or the owner may be taking the outcome.
    fn before_the_end<'a>(&'a self, shared: &'a Locked<'_, W::Output>) -> Option<&'a Slot<W>> {
        let is_open = !shared.stage.state().is_final() && !shared.stage.is_here();
        is_open.then(|| self.slot(shared))
    }

    fn lease<'a>(&'a self, shared: &'a Locked<'_, W::Output>) -> Option<&'a Lease> {
        match self.before_the_end(shared)? {
            Slot::Leased(lease) => Some(lease),
            _ => None,
        }
    }

    fn work<'a>(&'a self, shared: &'a Locked<'_, W::Output>) -> Option<&'a W> {
        match self.before_the_end(shared)? {
            Slot::Work(work) => Some(work),
            _ => None,
        }
    }

    fn take_work(&self, shared: &Locked<'_, W::Output>) -> Option<W> {
        self.work(shared)?;
        match self.fill(shared, Slot::Empty) {
            Slot::Work(work) => Some(work),
            _ => unreachable!("it was there, and the lock is still held"),
        }
    }

    /// Replaces a slot that nobody can be looking into: any but `Ready`, of a task that is not published.
    fn fill(&self, lock: &Locked<'_, W::Output>, slot: Slot<W>) -> Slot<W> {
        assert!(!matches!(self.slot(lock), Slot::Ready(_)), "an outcome is written once");
        // SAFETY: the lock is held, so no other thread writes or reads under it; references without the lock are only into `Ready`, which
        // this is not. Nobody makes the call without the lock: such a call is ended by its maker alone, who does not come here.
        mem::replace(unsafe { &mut *self.slot.get() }, slot)
    }

    /// Ends the task with `event` and fills the slot. `None` if it had ended, or if nothing is left
    /// to announce.
    fn end(&self, mut shared: Locked<'_, W::Output>, event: Event, slot: Slot<W>) -> Option<Announcement> {
        if !shared.enter(event) {
            drop(shared);
            drop_quietly(slot);
            return None;
        }
        if shared.permit.is_some() || self.header().observed().is_some() {
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
            let cell = CellHandle::of(self);
            return Some(Announcement(Some(Box::new(move || cell.announce(cell.lock(), &mut || ())))));
        }
        match former {
            // Captures are gone before anybody learns of the end: a scope relies on it.
            Slot::Work(work) => {
                drop(shared);
                drop_quietly(work);
                self.announce(self.lock(), &mut || ());
            }
            _ => self.publish(shared),
        }
        None
    }

    /// The task has ended: tells who counts, and who observes.
    fn ends(&self, shared: &mut Shared<W::Output>, counted: Counted, failure: impl FnOnce() -> Option<Failure>) {
        shared.counted = Some(counted);
        // LOCK: a cell's, then a buffer's; nobody takes them the other way round.
        self.header().tell_end(|| TaskEventKind::Ended { error: failure().map(|failure| self.error(failure)) });
    }

    /// How a slot that is to be filled has ended its task.
    fn failure_in(slot: &Slot<W>) -> Option<Failure> {
        match slot {
            Slot::Ready(outcome) => Self::first_failure(outcome).cloned(),
            Slot::Encoded(reply) => (Self::travel().first_failure)(&reply.bytes),
            Slot::Empty | Slot::Work(_) | Slot::Leased(_) | Slot::Decoding | Slot::Taken => None,
        }
    }

    /// Runs callbacks until there are none left, then publishes. `over`, which is a backend's, is called in between, under
    /// the lock.
    fn announce<'a>(&'a self, mut shared: Locked<'a, W::Output>, over: &mut dyn FnMut()) {
        while let Some(watchers) = shared.watchers.as_mut().filter(|watchers| !watchers.callbacks.is_empty()) {
            let callbacks = mem::take(&mut watchers.callbacks);
            watchers.announcer = Some(thread::current().id());
            drop(shared);
            let view = self.view();
            for callback in callbacks {
                call_back(callback, &view);
            }
            drop(view);
            shared = self.lock();
        }
        over();
        self.publish(shared);
    }

    fn publish(&self, mut shared: Locked<'_, W::Output>) {
        // Before its outcome can be seen: whoever has seen all outcomes finds nobody inside.
        // LOCK: a cell's, then an admission's; nobody takes them the other way round.
        if let Some((permit, counted)) = shared.permit.take().zip(shared.counted) {
            permit.leave_as(counted);
        }
        let mut watchers = shared.watchers.take();
        if let Some(watchers) = &watchers {
            // LOCK: a cell's lock, then a queue of arrivals; nobody takes them the other way round. Under the lock,
            // so that whoever has seen this outcome finds it in the queue before all that it causes.
            for (arrivals, index) in &watchers.arrivals {
                arrivals.push(*index);
            }
        }
        shared.stage.publish();
        drop(shared);
        // WAKES: every thread in `wait` (predicate: `is_published`) and in `ready` (predicate: not
        // `Decoding`). The predicate changed under the lock that they hold from their check until
        // they wait, so none of them can miss this.
        self.changed.notify_all();
        if let Some(waker) = watchers.as_mut().and_then(|watchers| watchers.waker.take()) {
            // WAKES: the async task that polled the future last; it polls again and finds
            // it published, under the lock under which the waker was taken.
            drop_quietly(catch(|| waker.wake()));
        }
    }

    /// If it is refused because the call runs, and `asks`, the call is asked to stop.
    fn cancel_if_not_begun(&self, asks: bool) -> Cancel {
        let mut shared = self.lock();
        self.learn(&mut shared, |lease| !lease.channel.revoke(lease.ticket));
        let state = shared.stage.state();
        if state.after(Event::Cancel).is_none() {
            if asks && state == State::Running {
                shared.stage.ask_to_stop();
                if let Some(lease) = self.lease(&shared) {
                    lease.channel.ask_to_stop(lease.ticket);
                }
            }
            return if state == State::Cancelled { Cancel::Before } else { Cancel::Refused };
        }
        // LOCK: a cell's, then that of the pools' counters; nobody takes them the other way round.
        Counters::count_cancelled(self.header().home.load(Ordering::Relaxed), !shared.pauses);
        // The lock is held from the revocation on, so nobody can put the task elsewhere meanwhile.
        drop(self.end(shared, Event::Cancel, Slot::Ready(Err(self.error(Failure::Cancelled)))));
        Cancel::Now
    }

    /// Asks the channel, if the task lies in one, whether the call has begun.
    fn learn(&self, shared: &mut Locked<'_, W::Output>, has_begun: impl FnOnce(&Lease) -> bool) {
        if shared.stage.state() == State::Dispatched && self.lease(shared).is_some_and(has_begun) {
            shared.enter(Event::Start);
        }
    }

    fn start(&self) -> Option<W> {
        if self.header().extras.get().is_none() && self.stage().start_alone() {
            // SAFETY: a task that is made here has its slot for its maker, which this thread has just become. Nobody looks into it
            // under the lock until the task is over.
            return match mem::replace(unsafe { &mut *self.slot.get() }, Slot::Empty) {
                Slot::Work(work) => Some(work),
                _ => unreachable!("nobody else was concerned"),
            };
        }
        let mut shared = self.lock();
        if shared.pauses {
            return None; // a handle that was left behind when the last attempt was made in place
        }
        let work = self.take_work(&shared)?; // packed or cancelled work is gone
        let starts = shared.enter(Event::Start);
        assert!(starts, "work is taken by whoever starts, packs or ends the task");
        shared.stage.be_here();
        self.header().count_attempt();
        Some(work)
    }

    /// The running call's limit: when it passes, the task ends, and the call is asked to.
    fn watch(&self, limit: Duration, attempt: u32) -> io::Result<timer::Entry> {
        let cell = CellHandle::of(self);
        timer::at(timer::after(limit), move || {
            cell.overrun(limit, attempt);
            cell.into_handle().drop_quietly(); // the call may have ended in this moment, and this be the last handle
        })
    }

    fn overrun(&self, limit: Duration, attempt: u32) {
        let extras = self.header().extras.get().expect("a limit is one of the extras");
        let error = self.error(Failure::TimedOut { limit, pid: None });
        let shared = self.lock();
        // ORDERING: Relaxed; changed under the lock.
        if shared.stage.state() != State::Running || extras.attempts.load(Ordering::Relaxed) != attempt {
            return;
        }
        shared.stage.ask_to_stop();
        let Some(announcement) = self.end(shared, Event::Settle, Slot::Ready(Err(error))) else { return };
        // The call's own thread is busy, and this one is everybody's.
        let announced = thread::Builder::new().name("executor-overrun".into()).spawn(|| announcement.run());
        drop(announced); // without a thread, the announcement was dropped, and so made here
    }

    /// Whether an attempt that ended with `failure` is followed by another one, for which `copy` is put back if the call is
    /// made in this process; and if so, after which pause.
    fn try_again(&self, failure: &Failure, copy: Option<&mut Option<W>>) -> Option<Duration> {
        let extras = self.header().extras.get()?;
        let policy = extras.options.retry_policy()?;
        let tried = {
            let mut tried = extras.tried.lock();
            tried.count(failure);
            *tried
        };
        let error = self.error(failure.clone());
        let pause = catch(|| policy.pause(&error, tried)).ok().flatten()?;
        let mut shared = self.lock();
        if shared.stage.is_stopped() || !shared.enter(Event::Retry) {
            return None; // nobody wants it any more
        }
        let again = copy.and_then(Option::take);
        shared.pauses = again.is_some();
        drop(self.fill(&shared, again.map_or(Slot::Empty, Slot::Work)));
        self.header().tell_end(|| TaskEventKind::Retried { error, pause });
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
        let mut shared = self.lock();
        while !self.stage().is_published() {
            match deadline {
                None => self.changed.wait(&mut shared.shared),
                Some(deadline) => {
                    if self.changed.wait_until(&mut shared.shared, deadline).timed_out() {
                        return self.stage().is_published();
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

    fn call(&self, work: W) -> Result<W::Output, Failure> {
        current::making_of(self, 0, || catch(|| work.run()))
    }

    /// Makes a call that was started.
    fn make(&self, work: W, over: &mut dyn FnMut(Made)) {
        match self.header().extras.get() {
            None => self.make_simply(work, over),
            Some(extras) => self.make_as_chosen(work, extras, over),
        }
    }

    /// Without options and observers. Nobody but this thread ends the task.
    fn make_simply(&self, work: W, over: &mut dyn FnMut(Made)) {
        let outcome = self.call(work).map_err(|failure| self.error(failure));
        let (counted, made) = Self::count(Self::first_failure(&outcome));
        // SAFETY: this thread has begun the call, and until the task is over its slot, which is empty, is this thread's.
        drop(mem::replace(unsafe { &mut *self.slot.get() }, Slot::Ready(outcome)));
        let is_told = !self.stage().is_guarded();
        if is_told {
            over(made);
            if self.stage().end_alone() {
                return;
            }
            over(Made::Busy); // somebody came in between
        }
        let mut shared = self.lock();
        let ends = shared.enter(Event::Settle);
        assert!(ends, "nobody else ends it");
        self.ends(&mut shared, counted, || None); // whom nobody observes
        self.announce(shared, &mut || over(if is_told { Made::Idle } else { made }));
    }

    fn make_as_chosen(&self, work: W, extras: &Extras, over: &mut dyn FnMut(Made)) {
        self.header().tell_start();
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
            retries.retry(Task::again(CellHandle::of(self).into_handle()), pause);
            return over(Made::Again);
        }
        let outcome = outcome.map_err(|failure| self.error(failure));
        let failure = Self::first_failure(&outcome);
        let (counted, made) = Self::count(failure);
        let mut shared = self.lock();
        if !shared.enter(Event::Settle) {
            // Its limit has passed, and that was its outcome.
            drop(shared);
            drop_quietly(outcome);
            return over(Made::Failed);
        }
        self.ends(&mut shared, counted, || failure.cloned());
        self.fill(&shared, Slot::Ready(outcome));
        // Here, on the thread of the call: it is busy until its callbacks have run.
        self.announce(shared, &mut || over(made));
    }

    fn first_failure(outcome: &Result<W::Output, TaskError>) -> Option<&Failure> {
        match outcome {
            Ok(output) => W::first_failure(output),
            Err(error) => Some(error.failure()),
        }
    }

    fn count(failure: Option<&Failure>) -> (Counted, Made) {
        match failure {
            None => (Counted::Done, Made::Done),
            Some(_) => (Counted::Failed, Made::Failed),
        }
    }

    fn call_within_limit(&self, work: W, extras: &Extras) -> Result<W::Output, Failure> {
        let attempt = self.header().attempts();
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
        self.stage().is_stopped()
    }

    fn task(&self) -> Option<TaskId> {
        Some(self.header().id)
    }

    fn waiter(&self) -> Option<Waiter> {
        let has_limit = self.header().options().is_some_and(|options| options.chosen_time_limit().is_some());
        Some(if has_limit { Waiter::call_with_limit(self.header().id) } else { Waiter::task(self.header().id) })
    }
}

impl<W: Work> Source for Cell<W> {
    fn source(&self) -> &dyn StopSource {
        self
    }

    fn share(&self) -> Share {
        Share::Task(CellHandle::of(self).into_handle())
    }
}

fn call_back<R>(callback: Callback<R>, future: &Future<R>) {
    // A callback's panic is printed by the hook and ends there: it is nobody's outcome.
    drop_quietly(catch(|| callback(future)));
}

impl<W: Work> Runnable for Cell<W> {
    fn as_stop_source(&self) -> &dyn StopSource {
        self
    }

    fn run(&self, over: &mut dyn FnMut(Made)) {
        match self.start() {
            Some(work) => self.make(work, over),
            None => over(Made::Nothing),
        }
    }

    fn observe(&self, buffer: &Arc<Buffer>) {
        let function = self.work(&self.lock()).map(W::function);
        // One that is over already has never been in a pool.
        function.into_iter().for_each(|function| self.header().observe(buffer, function));
    }

    fn reclaim(&self) -> Option<Box<dyn Any>> {
        let work = self.take_work(&self.lock())?;
        Some(Box::new(work))
    }

    fn hold(&self, permit: Permit) {
        let mut shared = self.lock();
        if !shared.stage.state().is_final() {
            shared.permit = Some(permit);
        } // else it is given back here and now
    }

    fn resume(&self) {
        self.lock().pauses = false;
    }

    fn pack(&self) -> Result<Call, Option<Announcement>> {
        let work = self.take_work(&self.lock());
        let Some(work) = work else { return Err(None) };
        let Some(travel) = W::TRAVEL else {
            drop_quietly(work);
            let stays = "it stays in this process, as a closure with captures does";
            return Err(self.fail(Failure::Refused(stays.into())));
        };
        catch(|| (travel.pack)(work)).flatten().map_err(|failure| self.fail(failure))
    }

    fn dispatch(&self, lease: Lease) -> bool {
        let mut shared = self.lock();
        if !shared.enter(Event::Dispatch) {
            return false;
        }
        drop(self.fill(&shared, Slot::Leased(lease)));
        self.header().count_attempt();
        true
    }

    fn recall(&self) -> bool {
        let mut shared = self.lock();
        if !shared.enter(Event::Recall) {
            return false;
        }
        drop(self.fill(&shared, Slot::Empty));
        if let Some(extras) = self.header().extras.get() {
            // ORDERING: Relaxed; see `attempts`. It had not begun.
            extras.attempts.fetch_sub(1, Ordering::Relaxed);
        }
        true
    }

    fn complete(&self, reply: Encoded) -> Result<Option<Announcement>, Duration> {
        if self.header().options().is_some_and(|options| options.retry_policy().is_some())
            && let Some(failure) = (Self::travel().failure_of_all)(&reply.bytes)
            && let Some(pause) = self.try_again(&failure, None)
        {
            return Err(pause);
        }
        Ok(self.end(self.lock(), Event::Settle, Slot::Encoded(Kept::new(reply))))
    }

    fn fail_attempt(&self, failure: Failure) -> Result<Option<Announcement>, Duration> {
        match self.try_again(&failure, None) {
            Some(pause) => Err(pause),
            None => Ok(self.fail(failure)),
        }
    }

    fn fail(&self, failure: Failure) -> Option<Announcement> {
        let error = self.error(failure);
        self.end(self.lock(), Event::Settle, Slot::Ready(Err(error)))
    }

    fn fail_unless_begun(&self, failure: Failure) -> Option<Announcement> {
        let error = self.error(failure);
        let shared = self.lock();
        if shared.stage.state() == State::Running {
            return None;
        }
        self.end(shared, Event::Settle, Slot::Ready(Err(error)))
    }

    fn cancel(&self) -> bool {
        self.cancel_if_not_begun(false) == Cancel::Now
    }

    fn call_off(&self) -> Option<Announcement> {
        let error = self.error(Failure::Cancelled);
        self.end(self.lock(), Event::Cancel, Slot::Ready(Err(error)))
    }

    fn is_over(&self) -> bool {
        self.stage().state().is_final()
    }

    fn is_void(&self) -> bool {
        self.stage().state() != State::Pending
    }
}

impl<W: Work> Readable<W::Output> for Cell<W> {
    fn state(&self) -> State {
        let state = self.stage().state();
        if state != State::Dispatched {
            return state;
        }
        let mut shared = self.lock();
        self.learn(&mut shared, |lease| lease.channel.has_begun(lease.ticket));
        shared.stage.state()
    }

    fn cancel(&self) -> bool {
        self.cancel_if_not_begun(true) != Cancel::Refused
    }

    fn kill(&self) -> bool {
        if Readable::cancel(self) {
            return true;
        }
        let lease = self.lease(&self.lock()).cloned();
        lease.is_some_and(|lease| lease.channel.kill(lease.ticket))
    }

    fn run_here(&self) {
        if let Some(work) = self.start() {
            blocking::begin_in_place(self.header().id, self.header().site);
            self.make(work, &mut |made| {
                if made.is_end() {
                    blocking::end_in_place(made);
                }
            });
        }
    }

    fn has_failed(&self) -> bool {
        if !self.stage().state().is_final() {
            return false;
        }
        let shared = self.lock();
        match self.slot(&shared) {
            Slot::Ready(outcome) => outcome.is_err(),
            Slot::Encoded(reply) => (Self::travel().failure)(&reply.bytes).is_some(),
            Slot::Empty | Slot::Work(_) | Slot::Leased(_) | Slot::Decoding | Slot::Taken => false,
        }
    }

    fn is_here(&self) -> bool {
        self.stage().is_published() || self.stage().is_guarded() && self.lock().is_announced_here()
    }

    fn is_driven(&self) -> bool {
        // A task that keeps a place is guarded from then on.
        self.stage().is_guarded() && self.lock().permit.as_ref().is_some_and(Permit::is_driven)
    }

    fn wait(&self, deadline: Option<Instant>) -> bool {
        let driver = self.lock().permit.as_ref().and_then(Permit::driver);
        if let Some(driver) = driver {
            let is_published = || self.stage().is_published();
            driver.wait(deadline, &is_published, &mut || _ = self.sleep(deadline));
            return is_published();
        }
        self.sleep(deadline)
    }

    fn ready(&self) -> Option<*const Result<W::Output, TaskError>> {
        if !self.stage().state().is_final() {
            return None;
        }
        let mut shared = self.lock();
        loop {
            match self.slot(&shared) {
                Slot::Empty | Slot::Work(_) | Slot::Leased(_) | Slot::Taken => return None,
                Slot::Ready(outcome) => return Some(outcome),
                Slot::Decoding => self.changed.wait(&mut shared.shared),
                Slot::Encoded(_) => {
                    let Slot::Encoded(reply) = self.fill(&shared, Slot::Decoding) else {
                        unreachable!("it was encoded, and the lock is still held")
                    };
                    drop(shared);
                    let outcome = self.decode(reply);
                    shared = self.lock();
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
            Slot::Taken => panic!("the outcome of task {} was polled after it had been given", self.header().id),
            _ => unreachable!("published, and nobody is looking"),
        }
    }

    fn add_callback(&self, callback: Callback<W::Output>) {
        let mut shared = self.lock();
        if !shared.stage.is_published() && !shared.is_announced_here() {
            shared.watchers().callbacks.push(callback);
            return;
        }
        drop(shared);
        // The caller borrows the future until this returns, so the view does not outlive that.
        call_back(callback, &self.view());
    }

    fn set_waker(&self, waker: &Waker) -> bool {
        let waker = waker.clone(); // a runtime's code, so not under the lock
        let mut shared = self.lock();
        if shared.stage.is_published() {
            return true;
        }
        let replaced = shared.watchers().waker.replace(waker);
        drop(shared);
        drop_quietly(replaced);
        false
    }

    fn watch(&self, arrivals: &Arc<Arrivals>, index: usize) -> bool {
        if self.stage().is_published() {
            return false;
        }
        let mut shared = self.lock();
        if shared.stage.is_published() || shared.is_announced_here() {
            return false;
        }
        shared.watchers().arrivals.push((Arc::clone(arrivals), index));
        let driver = shared.permit.as_ref().and_then(Permit::driver);
        drop(shared);
        if let Some(driver) = driver {
            arrivals.driven_by(driver);
        }
        true
    }

    fn unwatch(&self, arrivals: &Arc<Arrivals>) {
        if let Some(watchers) = &mut self.lock().watchers {
            watchers.arrivals.retain(|(known, _)| !Arc::ptr_eq(known, arrivals));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::Closure;

    /// What lies in a queue by the million: two lines of memory.
    #[test]
    fn a_queued_call_is_small() {
        fn size<W: Work>(_: &W) -> usize {
            size_of::<Cell<W>>()
        }
        let captured = (0_u64, "name".as_ptr() as usize);
        let call = Closure::new(move || captured.0 + captured.1 as u64);
        assert!(size(&call) <= 128, "{} bytes", size(&call));
    }
}
