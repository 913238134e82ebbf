//! What is in a queue, in the process that made it, and who of this process waits for what. It knows nothing of other
//! processes, but that a clerk acts for them, who does not wait here: it is woken when it is worth another try.

use executor_core::{
    attachments::Encoded,
    blocking,
    sync::{Condvar, Mutex, MutexGuard},
};
use std::{collections::VecDeque, mem, sync::Arc, time::Instant};

use crate::clerk;

/// An encoded item. Whoever is being given it shares it with the queue, until it is sure to have arrived.
pub(crate) type Item = Arc<Encoded>;

/// For how long somebody waits.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience {
    None,
    Until(Instant),
    Endless,
}

/// Why there is nothing to be had, or nothing to be put, now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Full, empty, or unfinished: it may change.
    NotNow,
    Closed,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// A thread of this process.
    Thread,
    /// The clerk, who is woken by the next change if it is refused.
    Clerk,
}

#[derive(Debug)]
pub(crate) struct Store {
    maxsize: usize,
    state: Mutex<State>,
    /// There may be an item, or never one again.
    filled: Condvar,
    /// There may be room, or never again.
    drained: Condvar,
    /// Every item may be finished.
    finished: Condvar,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    closed: bool,
    /// Items that were put and not reported as done.
    unfinished: usize,
    /// Items on their way to other processes, of which each may come back.
    on_their_way: usize,
    clerk_waits: bool,
}

impl Store {
    /// A store for so many items; 0 is any number.
    pub(crate) fn new(maxsize: usize) -> Store {
        Store {
            maxsize: if maxsize == 0 { usize::MAX } else { maxsize },
            state: Mutex::default(),
            filled: Condvar::new(),
            drained: Condvar::new(),
            finished: Condvar::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.state.lock().items.len()
    }

    /// Puts an item in, unless that is not possible now.
    pub(crate) fn try_put(&self, item: &Item, by: By) -> Result<(), Refusal> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Refusal::Closed);
        }
        if state.items.len() >= self.maxsize {
            state.clerk_waits |= by == By::Clerk;
            return Err(Refusal::NotNow);
        }
        state.items.push_back(Arc::clone(item));
        state.unfinished += 1;
        // WAKES: one who waits in `take`. It looked under the lock that was held for this change.
        self.filled.notify_one();
        Self::tell(state);
        Ok(())
    }

    /// Takes the oldest item, if there is one.
    pub(crate) fn try_take(&self, by: By) -> Result<Item, Refusal> {
        self.take_one(by, false)
    }

    /// The clerk: takes the oldest item for another process. Until it [has arrived](Self::has_arrived), or [is back](Self::put_back),
    /// nobody is told that a closed queue is empty.
    pub(crate) fn send_off(&self) -> Result<Item, Refusal> {
        self.take_one(By::Clerk, true)
    }

    fn take_one(&self, by: By, is_sent_off: bool) -> Result<Item, Refusal> {
        let mut state = self.state.lock();
        match state.items.pop_front() {
            Some(item) => {
                state.on_their_way += usize::from(is_sent_off);
                // WAKES: one who waits in `put`, for this place. It looked under the lock that was held for this change.
                self.drained.notify_one();
                if state.is_over() {
                    // WAKES: all who wait in `take`, for whom nothing will come. They looked under the lock.
                    self.filled.notify_all();
                }
                Self::tell(state);
                Ok(item)
            }
            None if state.is_over() => Err(Refusal::Closed),
            None => {
                state.clerk_waits |= by == By::Clerk;
                Err(Refusal::NotNow)
            }
        }
    }

    /// An item that was sent off is where it was to go.
    pub(crate) fn has_arrived(&self) {
        let mut state = self.state.lock();
        state.on_their_way -= 1;
        if state.is_over() {
            // WAKES: all who wait in `take`, for whom there may be nothing now. They looked under the lock.
            self.filled.notify_all();
            Self::tell(state);
        }
    }

    /// An item whose receiver is gone is the next again.
    pub(crate) fn put_back(&self, item: Item, was_sent_off: bool) {
        let mut state = self.state.lock();
        state.on_their_way -= usize::from(was_sent_off);
        state.items.push_front(item);
        // WAKES: one who waits in `take`. It looked under the lock that was held for this change.
        self.filled.notify_one();
        Self::tell(state);
    }

    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        // WAKES: all who wait in `take`: they looked under the lock that was held for this change.
        self.filled.notify_all();
        // WAKES: all who wait in `put`, as above.
        self.drained.notify_all();
        Self::tell(state);
    }

    /// One item is done. `false`: more than were ever put.
    #[must_use]
    pub(crate) fn task_done(&self) -> bool {
        let mut state = self.state.lock();
        if state.unfinished == 0 {
            return false;
        }
        state.unfinished -= 1;
        if state.unfinished == 0 {
            // WAKES: all who wait in `join`: they looked under the lock that was held for this change.
            self.finished.notify_all();
            Self::tell(state);
        }
        true
    }

    /// Whether every item that was put is done.
    pub(crate) fn is_finished(&self, by: By) -> bool {
        let mut state = self.state.lock();
        state.clerk_waits |= by == By::Clerk && state.unfinished > 0;
        state.unfinished == 0
    }

    /// Lets the clerk try again, if it waits for a change.
    fn tell(mut state: MutexGuard<'_, State>) {
        if mem::take(&mut state.clerk_waits) {
            drop(state);
            clerk::wake();
        }
    }

    /// Waits for room, and puts the item in.
    pub(crate) fn put(&self, item: &Item, patience: Patience) -> Result<(), Refusal> {
        let is_full = |state: &State| !state.closed && state.items.len() >= self.maxsize;
        self.retry(patience, &self.drained, || self.try_put(item, By::Thread), is_full)
    }

    /// Waits for an item.
    pub(crate) fn take(&self, patience: Patience) -> Result<Item, Refusal> {
        let is_empty = |state: &State| state.items.is_empty() && !state.is_over();
        self.retry(patience, &self.filled, || self.try_take(By::Thread), is_empty)
    }

    /// Waits until every item that was put is done. `false`: not in time.
    pub(crate) fn join(&self, patience: Patience) -> bool {
        let look = || if self.is_finished(By::Thread) { Ok(()) } else { Err(Refusal::NotNow) };
        self.retry(patience, &self.finished, look, |state| state.unfinished > 0).is_ok()
    }

    /// Does `attempt` until it succeeds, or can never, or the patience is over. Between attempts it sleeps as long as there
    /// `is_no_use` in another one.
    fn retry<T>(
        &self,
        patience: Patience,
        changed: &Condvar,
        attempt: impl Fn() -> Result<T, Refusal>,
        is_no_use: impl Fn(&State) -> bool,
    ) -> Result<T, Refusal> {
        loop {
            match (attempt(), patience) {
                (Err(Refusal::NotNow), Patience::Until(deadline)) if Instant::now() < deadline => {}
                (Err(Refusal::NotNow), Patience::Endless) => {}
                (outcome, _) => return outcome,
            }
            blocking::while_blocked(|| {
                let mut state = self.state.lock();
                while is_no_use(&state) {
                    match patience {
                        Patience::Until(deadline) => {
                            if changed.wait_until(&mut state, deadline).timed_out() {
                                break;
                            }
                        }
                        _ => changed.wait(&mut state),
                    }
                }
            });
        }
    }
}

impl State {
    /// Whether there is no item, and never will be one again.
    fn is_over(&self) -> bool {
        self.closed && self.items.is_empty() && self.on_their_way == 0
    }
}
