//! What a future does with its task.

#![expect(unsafe_code, reason = "a published outcome is taken without a lock")]

use std::{mem, sync::Arc, task::Waker, time::Instant};

use super::{Callback, Cancel, Cell, Kept, Slot, call_back};
use crate::{
    admission::Permit, arrivals::Arrivals, blocking, error::TaskError, panic::drop_quietly, state::State, work::Work,
};

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
