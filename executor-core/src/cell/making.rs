//! How a call is made in this process: begun, with its limit and its further attempts, and ended.

#![expect(unsafe_code, reason = "who makes a call has its slot, without the lock")]

use std::{
    io, mem,
    sync::{Arc, Weak},
    time::Duration,
};

use super::{Cell, Slot};
use crate::{
    current::{self, Share, Source, StopSource},
    error::{BrokenCause, Failure, TaskError, TaskId},
    handle::CellHandle,
    header::Extras,
    observe::TaskEventKind,
    panic::{catch, drop_quietly},
    state::{Event, State},
    stats::{Counted, Made},
    sync::{atomic::Ordering, thread},
    task::{Retries, Task},
    timer,
    waits::Waiter,
    work::Work,
};

impl<W: Work> Cell<W> {
    pub(super) fn start(&self) -> Option<W> {
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
    pub(super) fn try_again(&self, failure: &Failure, copy: Option<&mut Option<W>>) -> Option<Duration> {
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

    fn call(&self, work: W) -> Result<W::Output, Failure> {
        current::making_of(self, 0, || catch(|| work.run()))
    }

    /// Makes a call that was started.
    pub(super) fn make(&self, work: W, over: &mut dyn FnMut(Made)) {
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

    pub(super) fn first_failure(outcome: &Result<W::Output, TaskError>) -> Option<&Failure> {
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
