//! How many calls a pool takes in before it makes the caller wait.

use std::{
    fmt,
    num::NonZeroUsize,
    sync::{Arc, OnceLock, Weak},
    time::Instant,
};

use crate::{
    drive::Drive,
    stats::{Counted, Stats},
    sync::{
        Condvar, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

/// What `submit` does when a pool's queue is full. Chosen with the builders' `queue_capacity`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WhenFull {
    /// Wait until there is room. A worker of the same thread pool does not wait, which could be for ever, but makes
    /// the call itself.
    #[default]
    Block,
    /// Fail the call's future, with [`TaskError::is_queue_full`](crate::TaskError::is_queue_full). Who wants
    /// the arguments back uses [`Executor::try_submit`](crate::Executor::try_submit).
    Reject,
    /// Make the call on the thread that submits it, which cannot submit more meanwhile. On a process pool too: the call is
    /// then made in this process, not isolated, and once, whatever retries were chosen for it.
    CallerRuns,
}

/// Counts the calls that a pool has taken in and not finished, and keeps further ones out.
pub struct Admission {
    when_full: WhenFull,
    capacity: usize,
    limit: AtomicUsize,
    inside: AtomicUsize,
    done: AtomicU64,
    failed: AtomicU64,
    cancelled: AtomicU64,
    waiting: Mutex<usize>,
    room: Condvar,
    /// What moves the calls inside along, if whoever waits for them can.
    driver: OnceLock<Weak<dyn Drive>>,
}

/// A call's place among those that are inside. Dropping it makes room: a task does so as it ends, however it ends.
#[derive(Debug)]
#[must_use = "dropping it makes room for another call"]
pub struct Permit(Arc<Admission>);

impl Permit {
    /// Drops it for a call that was accepted, and has ended thus.
    pub(crate) fn leave_as(self, counted: Counted) {
        let counter = match counted {
            Counted::Done => &self.0.done,
            Counted::Failed => &self.0.failed,
            Counted::Cancelled => &self.0.cancelled,
        };
        // ORDERING: Relaxed; it orders nothing.
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether anything moves the call along.
    pub(crate) fn is_driven(&self) -> bool {
        self.0.driver.get().is_some()
    }

    /// What moves the call along.
    pub(crate) fn driver(&self) -> Option<Arc<dyn Drive>> {
        self.0.driver.get()?.upgrade()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// What a pool with a full queue says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// How many calls may wait.
    pub capacity: usize,
}

impl Admission {
    /// For a pool in which `max_workers` calls run and `capacity` more may wait; `None` for any number.
    #[must_use]
    pub fn new(capacity: Option<usize>, when_full: WhenFull, max_workers: NonZeroUsize) -> Self {
        Admission {
            when_full,
            capacity: capacity.unwrap_or(usize::MAX),
            limit: AtomicUsize::new(capacity.unwrap_or(usize::MAX).saturating_add(max_workers.get())),
            inside: AtomicUsize::new(0),
            done: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            waiting: Mutex::new(0),
            room: Condvar::new(),
            driver: OnceLock::new(),
        }
    }

    /// Whoever waits for a call that is inside may use `driver` from now on. The first one holds.
    pub fn set_driver<D: Drive + 'static>(&self, driver: &Arc<D>) {
        let driver: Weak<D> = Arc::downgrade(driver);
        let _ = self.driver.set(driver);
    }

    /// What to do when there is no room.
    #[must_use]
    pub fn when_full(&self) -> WhenFull {
        self.when_full
    }

    /// From now on `max_workers` calls run. What is inside stays.
    pub fn resize(&self, max_workers: NonZeroUsize) {
        // ORDERING: SeqCst, and the lock: whoever waits saw the old limit before this, or sees the new one.
        self.limit.store(self.capacity.saturating_add(max_workers.get()), Ordering::SeqCst);
        let _waiting = self.waiting.lock();
        // WAKES: all threads in `enter`, for which there may be room now. They look at the limit and begin to wait under the
        // lock that was taken here in between.
        self.room.notify_all();
    }

    /// How many calls are inside.
    #[must_use]
    pub fn inside(&self) -> usize {
        self.inside.load(Ordering::SeqCst)
    }

    /// Adds the calls that have left, by how they ended.
    pub fn add_to(&self, stats: &mut Stats) {
        stats.done += self.done.load(Ordering::Relaxed);
        stats.failed += self.failed.load(Ordering::Relaxed);
        stats.cancelled += self.cancelled.load(Ordering::Relaxed);
    }

    /// Takes a call in, if there is room.
    ///
    /// # Errors
    /// When there is none.
    pub fn try_enter(self: &Arc<Self>) -> Result<Permit, Full> {
        // ORDERING: SeqCst, against `enter`: either that sees the room that `leave` made, or `leave` sees it wait.
        let limit = self.limit.load(Ordering::SeqCst);
        let entered = self
            .inside
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |inside| (inside < limit).then_some(inside + 1));
        match entered {
            Ok(_) => Ok(Permit(Arc::clone(self))),
            Err(_) => Err(Full { capacity: self.capacity }),
        }
    }

    /// Takes a call in, whether there is room or not.
    pub fn force_enter(self: &Arc<Self>) -> Permit {
        self.inside.fetch_add(1, Ordering::SeqCst);
        Permit(Arc::clone(self))
    }

    /// Takes a call in as soon as there is room, or the pool is closed: then it is to be refused by who refuses all others.
    ///
    /// # Errors
    /// When the deadline comes first.
    pub fn enter(self: &Arc<Self>, deadline: Option<Instant>, is_closed: impl Fn() -> bool) -> Result<Permit, Full> {
        if let Ok(permit) = self.try_enter() {
            return Ok(permit);
        }
        let mut waiting = self.waiting.lock();
        *waiting += 1;
        let entered = loop {
            match self.try_enter() {
                Ok(permit) => break Ok(permit),
                Err(_) if is_closed() => break Ok(self.force_enter()),
                Err(full) => match deadline {
                    None => self.room.wait(&mut waiting),
                    Some(deadline) => {
                        if self.room.wait_until(&mut waiting, deadline).timed_out() {
                            break self.try_enter().map_err(|_| full);
                        }
                    }
                },
            }
        };
        *waiting -= 1;
        entered
    }

    fn leave(&self) {
        self.inside.fetch_sub(1, Ordering::SeqCst);
        if self.capacity == usize::MAX {
            return; // nobody ever waits
        }
        if *self.waiting.lock() > 0 {
            // WAKES: one thread in `enter`, which waits for the count to fall, as it just has. It looks at the count and begins
            // to wait under the lock that was taken here in between.
            self.room.notify_one();
        }
    }

    /// The pool is closed: nobody waits any more.
    pub fn close(&self) {
        let _waiting = self.waiting.lock();
        // WAKES: all threads in `enter`, which ask whether the pool is closed. It was, before the lock was taken.
        self.room.notify_all();
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").field("inside", &self.inside()).field("limit", &self.limit).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::atomic::AtomicBool, thread, time::Duration};

    fn admission(capacity: usize, workers: usize) -> Arc<Admission> {
        Arc::new(Admission::new(Some(capacity), WhenFull::Block, NonZeroUsize::new(workers).unwrap()))
    }

    #[test]
    fn as_many_come_in_as_run_and_may_wait() {
        let admission = admission(2, 1);
        let mut inside: Vec<_> = (0..3).map(|_| admission.try_enter().unwrap()).collect();
        assert_eq!(admission.try_enter().unwrap_err(), Full { capacity: 2 });
        assert_eq!(admission.enter(Some(Instant::now()), || false).unwrap_err(), Full { capacity: 2 });
        inside.pop();
        assert!(admission.try_enter().is_ok());
    }

    #[test]
    fn whoever_waits_comes_in_when_others_leave() {
        let admission = admission(0, 1);
        let most = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let _permit = admission.enter(None, || false).unwrap();
                        most.fetch_max(admission.inside(), Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!((most.into_inner(), admission.inside()), (1, 0));
    }

    #[test]
    fn more_come_in_when_more_run() {
        let admission = admission(1, 1);
        let mut inside: Vec<_> = (0..2).map(|_| admission.try_enter().unwrap()).collect();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| admission.enter(None, || false).unwrap());
            while *admission.waiting.lock() == 0 {
                thread::sleep(Duration::from_millis(1));
            }
            admission.resize(NonZeroUsize::new(2).unwrap());
            inside.push(waiter.join().unwrap());
        });
        admission.resize(NonZeroUsize::new(1).unwrap());
        inside.pop();
        assert!(admission.try_enter().is_err(), "as many as may are still inside");
        inside.pop();
        assert!(admission.try_enter().is_ok());
    }

    #[test]
    fn closing_lets_everybody_in_to_be_refused() {
        let (admission, closed) = (admission(0, 1), AtomicBool::new(false));
        let _permit = admission.try_enter().unwrap();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| admission.enter(None, || closed.load(Ordering::SeqCst)).is_ok());
            while *admission.waiting.lock() == 0 {
                thread::sleep(Duration::from_millis(1));
            }
            closed.store(true, Ordering::SeqCst);
            admission.close();
            assert!(waiter.join().unwrap());
        });
    }
}
