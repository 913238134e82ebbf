//! Where a task stands, as one word: most tasks are made and read without their cell's lock.
//!
//! A task begins *alone*: whoever makes it enters `Running` and later `Done` by one compare-exchange each. Whoever wants more than to
//! look, such as to cancel, to be told or to sleep until the end, takes the lock and [guards](Stage::guard) the word first. From then
//! on, for ever, the compare-exchanges fail, and everybody goes by the lock. So who holds it knows: either the word was final before it
//! was guarded, or it changes under the lock only.
//!
//! While a task is `Running` *here*, its slot is the maker's, who needs no lock for it. The others let it be.

use std::fmt;

use crate::{
    state::State,
    sync::atomic::{AtomicU8, Ordering},
};

/// See the module. What changes it under the lock says so.
pub(crate) struct Stage(AtomicU8);

/// The bits of the `State`.
const STATE: u8 = 0b111;
/// The outcome can be taken. Nothing changes any more.
const PUBLISHED: u8 = 1 << 3;
/// It changes under the lock only.
const GUARDED: u8 = 1 << 4;
/// The call is made in this process.
const HERE: u8 = 1 << 5;
/// Somebody has asked the running call to stop.
const STOP: u8 = 1 << 6;

const STATES: [State; 5] = [State::Pending, State::Dispatched, State::Running, State::Done, State::Cancelled];

const fn bits(state: State) -> u8 {
    state as u8
}

impl Stage {
    /// Of a new task.
    pub(crate) fn new() -> Self {
        Stage(AtomicU8::new(bits(State::Pending)))
    }

    /// Where the task stands. Outside of the lock, where it stood.
    pub(crate) fn state(&self) -> State {
        // ORDERING: Relaxed; for more than the answer, take the lock.
        STATES[usize::from(self.0.load(Ordering::Relaxed) & STATE)]
    }

    /// Whether the outcome can be taken by its owner.
    #[inline]
    pub(crate) fn is_published(&self) -> bool {
        // ORDERING: Acquire, for the outcome; see `end_alone` and `publish`.
        self.0.load(Ordering::Acquire) & PUBLISHED != 0
    }

    /// Whether the call is being made in this process.
    pub(crate) fn is_here(&self) -> bool {
        self.0.load(Ordering::Relaxed) & HERE != 0
    }

    /// Whether the call was asked to stop.
    pub(crate) fn is_stopped(&self) -> bool {
        // ORDERING: Relaxed; the answer may be late, and nothing is read on the strength of it.
        self.0.load(Ordering::Relaxed) & STOP != 0
    }

    /// Whether anybody has taken the lock. Not to be relied upon without it.
    #[inline]
    pub(crate) fn is_guarded(&self) -> bool {
        self.0.load(Ordering::Relaxed) & GUARDED != 0
    }

    /// By who has taken the lock: from now on the task changes under it only.
    pub(crate) fn guard(&self) {
        // ORDERING: Acquire pairs with `end_alone`: who holds the lock of a task that ended alone sees its outcome. If it is guarded
        // already, whoever did that goes between.
        if self.0.load(Ordering::Acquire) & GUARDED == 0 {
            self.0.fetch_or(GUARDED, Ordering::AcqRel);
        }
    }

    /// The call begins on this thread, if it has neither begun nor is anybody else concerned. Then the slot is this thread's.
    #[inline]
    pub(crate) fn start_alone(&self) -> bool {
        // ORDERING: Relaxed; the queue ordered what was submitted, and nobody else has touched it.
        self.change(bits(State::Pending), bits(State::Running) | HERE, Ordering::Relaxed)
    }

    /// The call is over, and its outcome in the slot can be taken, if nobody else is concerned.
    #[inline]
    pub(crate) fn end_alone(&self) -> bool {
        // ORDERING: Release, for the outcome; see `is_published` and `guard`.
        self.change(bits(State::Running) | HERE, bits(State::Done) | PUBLISHED, Ordering::Release)
    }

    #[inline]
    fn change(&self, from: u8, to: u8, order: Ordering) -> bool {
        self.0.compare_exchange(from, to, order, Ordering::Relaxed).is_ok()
    }

    /// Under the lock.
    pub(crate) fn enter(&self, state: State) {
        self.update(|word| word & !(STATE | HERE) | bits(state));
    }

    /// Under the lock: the call, which is `Running`, is made on this thread.
    pub(crate) fn be_here(&self) {
        self.update(|word| word | HERE);
    }

    /// Under the lock.
    pub(crate) fn ask_to_stop(&self) {
        self.update(|word| word | STOP);
    }

    /// Under the lock: what is in the slot can be taken.
    pub(crate) fn publish(&self) {
        self.update(|word| word | PUBLISHED);
    }

    fn update(&self, change: impl FnOnce(u8) -> u8) {
        // Nobody else writes it: it is guarded, and the lock is held.
        let word = self.0.load(Ordering::Relaxed);
        debug_assert!(word & GUARDED != 0, "the lock is held");
        // ORDERING: Release, for whoever then takes the outcome without the lock.
        self.0.store(change(word), Ordering::Release);
    }
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.state(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Event;

    #[test]
    fn every_state_has_its_bits() {
        for state in STATES {
            assert_eq!(STATES[usize::from(bits(state))], state);
            assert_eq!(bits(state) & !STATE, 0);
        }
    }

    #[test]
    fn alone_a_task_goes_by_the_same_rules() {
        assert_eq!(State::Pending.after(Event::Start), Some(State::Running));
        assert_eq!(State::Running.after(Event::Settle), Some(State::Done));
        let stage = Stage::new();
        assert!(!stage.end_alone() && stage.start_alone() && !stage.start_alone());
        assert!(stage.state() == State::Running && stage.is_here() && !stage.is_published());
        assert!(stage.end_alone() && !stage.end_alone());
        assert!(stage.state() == State::Done && stage.is_published());
    }

    #[test]
    fn what_is_guarded_is_nobodys_alone() {
        let stage = Stage::new();
        stage.guard();
        assert!(!stage.start_alone());
        stage.enter(State::Running);
        stage.be_here();
        assert!(stage.is_here() && !stage.end_alone());
        stage.ask_to_stop();
        stage.enter(State::Pending);
        assert!(!stage.is_here() && stage.is_stopped());
        stage.enter(State::Cancelled);
        assert!(!stage.is_published());
        stage.publish();
        assert!(stage.is_published() && stage.state() == State::Cancelled);
    }
}
