//! What a backend does with a task.

use std::{any::Any, sync::Arc, time::Duration};

use super::{Announcement, Cancel, Cell, Kept, Lease, Slot};
use crate::{
    admission::Permit,
    attachments::Encoded,
    call::Call,
    current::StopSource,
    error::Failure,
    observe::Buffer,
    panic::{catch, drop_quietly},
    state::{Event, State},
    stats::Made,
    sync::atomic::Ordering,
    work::Work,
};

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
