//! Which of many futures are done: what `wait`, `as_completed` and an unordered `map` wait on.
//!
//! Every future that is watched tells the queue its index as its outcome is published; one that is already done is not
//! watched, and who wanted to is told. So nothing can fall between looking and waiting, no future is looked at twice, and the
//! order in the queue is the order of completion.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use crate::{
    blocking,
    drive::{self, Drive},
    patience,
    sync::{
        Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Indices of futures, in the order in which they were done.
pub(crate) struct Arrivals {
    queue: Mutex<VecDeque<usize>>,
    /// Of the queue, for who looks without its lock.
    length: AtomicUsize,
    arrived: Condvar,
    /// What moves the futures' calls along: of each pool once.
    drivers: Mutex<Vec<Arc<dyn Drive>>>,
}

impl Arrivals {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Arrivals {
            queue: Mutex::new(VecDeque::new()),
            length: AtomicUsize::new(0),
            arrived: Condvar::new(),
            drivers: Mutex::default(),
        })
    }

    pub(crate) fn push(&self, index: usize) {
        let mut queue = self.queue.lock();
        queue.push_back(index);
        self.length.store(queue.len(), Ordering::Relaxed);
        drop(queue);
        // WAKES: the one thread that may be in `next`; the queue is no longer empty, which it
        // checks under the lock that was held for the push.
        self.arrived.notify_one();
    }

    /// One of the futures is that of a call which `driver` moves along.
    pub(crate) fn driven_by(&self, driver: Arc<dyn Drive>) {
        let mut drivers = self.drivers.lock();
        if !drivers.iter().any(|known| Arc::ptr_eq(known, &driver)) {
            drivers.push(driver);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.lock().is_empty()
    }

    pub(crate) fn try_next(&self) -> Option<usize> {
        let mut queue = self.queue.lock();
        let index = queue.pop_front();
        self.length.store(queue.len(), Ordering::Relaxed);
        index
    }

    /// The next index. `None`: the deadline came first.
    pub(crate) fn next(&self, deadline: Option<Instant>) -> Option<usize> {
        if let Some(index) = self.try_next() {
            return Some(index);
        }
        // Who drives looks by himself, and has better to do meanwhile.
        let looks = self.drivers.lock().is_empty();
        // ORDERING: Relaxed; it is only to be known whether looking is worth while.
        if looks
            && patience::look_for(|| self.length.load(Ordering::Relaxed) > 0)
            && let Some(index) = self.try_next()
        {
            return Some(index);
        }
        blocking::while_blocked(|| {
            let drivers = self.drivers.lock().clone();
            let mut slept = None;
            drive::wait(&drivers, deadline, &|| !self.is_empty(), &mut || slept = Some(self.sleep(deadline)));
            slept.unwrap_or_else(|| self.try_next())
        })
    }

    fn sleep(&self, deadline: Option<Instant>) -> Option<usize> {
        let mut queue = self.queue.lock();
        loop {
            if let Some(index) = queue.pop_front() {
                self.length.store(queue.len(), Ordering::Relaxed);
                return Some(index);
            }
            match deadline {
                None => self.arrived.wait(&mut queue),
                Some(deadline) => {
                    if self.arrived.wait_until(&mut queue, deadline).timed_out() {
                        let index = queue.pop_front();
                        self.length.store(queue.len(), Ordering::Relaxed);
                        return index;
                    }
                }
            }
        }
    }
}
