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

mod making;
mod readable;
mod runnable;

pub(crate) use readable::Readable;
pub(crate) use runnable::Runnable;

use smallvec::SmallVec;
use std::{
    fmt, mem,
    ops::{Deref, DerefMut},
    panic::Location,
    sync::Arc,
    task::Waker,
};

use crate::{
    admission::Permit,
    arena::Placed,
    arrivals::Arrivals,
    attachments::{Attachments, Encoded},
    error::{Failure, TaskError},
    future::Future,
    handle::{CellHandle, Handle, Head},
    header::Header,
    observe::TaskEventKind,
    panic::{catch, drop_quietly},
    reader::Reader,
    stage::Stage,
    state::{Event, State},
    stats::{Counted, Counters},
    sync::{
        Condvar, Mutex, MutexGuard, UnsafeCell,
        atomic::Ordering,
        thread::{self, ThreadId},
    },
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

// SAFETY: everything but `slot` is `Sync` by itself. `slot` is written, and read in the general case, under the lock of `shared`, or by
// who makes the call, to whom the stage gives it alone. Either moves work and an outcome of `Send` types between threads. References
// into it are handed out only by `Reader::peek`, which asks for `R: Sync`, and by `Reader::error`, whose `TaskError` is `Sync`.
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

    /// For a task that has been packed.
    fn travel() -> Travel<W> {
        W::TRAVEL.expect("what came back as bytes has travelled")
    }
}

fn call_back<R>(callback: Callback<R>, future: &Future<R>) {
    // A callback's panic is printed by the hook and ends there: it is nobody's outcome.
    drop_quietly(catch(|| callback(future)));
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
