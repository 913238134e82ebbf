//! What one thread offers to others while it is in a `join`: the halves that it will do itself unless somebody takes them.
//!
//! ```text
//!      top ──►  oldest fork        thieves, one at a time, take from here
//!                  …
//!               newest fork
//!   bottom ──►                     the owner puts and takes back here
//! ```
//!
//! The protocol is Cilk's (Frigo, Leiserson, Randall 1998: "THE"). The owner takes its newest fork back by lowering `bottom` and
//! then looking at `top`; a thief claims the oldest one by raising `top` and then looking at `bottom`. Whoever finds the two
//! crossed has met the other at the last fork: the thief gives way, and the owner looks again under the thieves' lock. So
//! the owner needs neither a lock nor an atomic operation of the costly kind, and by the halves of `barrier` not even a fence.
//!
//! Invariants:
//! - Only the owner writes `bottom`, only who holds `thieves` writes `top`.
//! - The oldest goes first. So when a fork is found to be taken, all older ones are, and this is empty: **a thread that waits for a
//!   fork offers nothing.** Whatever a thief offers while it makes a call that it took belongs to that call.
//! - A slot is not written again while a thief reads it: one slot is always left free, and there is one thief at a time.

use std::ptr::{self, NonNull};

use crate::{
    barrier,
    sync::{
        Condvar, Mutex,
        atomic::{AtomicIsize, AtomicPtr, Ordering},
    },
};

/// The forks of one thread. Whoever nests more joins than there is room for does both halves of the inner ones itself, which costs
/// next to nothing: what can be taken meanwhile is larger, and when it has been taken there is room again.
pub(crate) struct Forks<T, const ROOM: usize = 8> {
    owner: Padded<AtomicIsize>,
    top: Padded<AtomicIsize>,
    slots: [AtomicPtr<T>; ROOM],
    thieves: Mutex<()>,
    /// Where the owner waits for a fork that was taken.
    waiting: Mutex<()>,
    done: Condvar,
}

/// Whether a fork can be offered.
pub(crate) enum Room {
    There,
    None,
    /// Not before [`Forks::begin`].
    NotYet,
}

/// Apart from what others write.
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

impl<T, const ROOM: usize> Forks<T, ROOM> {
    /// Without room until [`begin`](Self::begin).
    pub(crate) fn new() -> Self {
        Forks {
            owner: Padded(AtomicIsize::new(0)),
            top: Padded(AtomicIsize::new(-(ROOM as isize))),
            slots: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            thieves: Mutex::new(()),
            waiting: Mutex::new(()),
            done: Condvar::new(),
        }
    }

    /// The owner's, once: makes room.
    pub(crate) fn begin(&self) {
        // A thief that looks for parts of what this thread took comes also before this, and must not write `top` meanwhile.
        let _thieves = self.thieves.lock();
        self.top.0.store(0, Ordering::Relaxed);
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.top.0.load(Ordering::Relaxed) >= 0
    }

    /// The owner's.
    #[inline]
    pub(crate) fn room(&self) -> Room {
        // ORDERING: Relaxed; nobody else writes it.
        let bottom = self.owner.0.load(Ordering::Relaxed);
        // ORDERING: Relaxed. It may be stale, which finds less room; or one too high for a moment, for which one slot is left free.
        let top = self.top.0.load(Ordering::Relaxed);
        if bottom - top < ROOM as isize - 1 {
            Room::There
        } else if top >= 0 {
            Room::None
        } else {
            Room::NotYet
        }
    }

    /// The owner's: offers `fork`, for which there is room.
    #[inline]
    pub(crate) fn push(&self, fork: NonNull<T>) {
        let bottom = self.owner.0.load(Ordering::Relaxed);
        self.slot(bottom).store(fork.as_ptr(), Ordering::Relaxed);
        // ORDERING: Release, for the thief's Acquire: who sees the fork sees what is in it.
        self.owner.0.store(bottom + 1, Ordering::Release);
    }

    /// The owner's: takes the newest fork back. `false`: that one has been taken, and so have all older ones.
    #[inline]
    pub(crate) fn pop(&self) -> bool {
        let bottom = self.owner.0.load(Ordering::Relaxed) - 1;
        self.owner.0.store(bottom, Ordering::Relaxed);
        // ORDERING: against `steal`: either that sees the lower bottom, or this sees the higher top.
        barrier::light();
        self.top.0.load(Ordering::Relaxed) <= bottom || self.pop_last(bottom)
    }

    #[cold]
    fn pop_last(&self, bottom: isize) -> bool {
        let _thieves = self.thieves.lock();
        let is_mine = self.top.0.load(Ordering::Relaxed) <= bottom;
        if !is_mine {
            self.owner.0.store(bottom + 1, Ordering::Relaxed); // empty
        }
        is_mine
    }

    /// Takes the oldest fork, if `may` still holds when it is certain which one that is. `taken` sees it before the owner can
    /// find out that it is gone.
    pub(crate) fn steal(&self, may: impl FnOnce() -> bool, taken: impl FnOnce(NonNull<T>)) -> Option<NonNull<T>> {
        if self.is_empty() {
            return None;
        }
        let _thieves = self.thieves.lock();
        let top = self.top.0.load(Ordering::Relaxed);
        if top < 0 {
            return None; // it has not begun
        }
        self.top.0.store(top + 1, Ordering::Relaxed);
        // ORDERING: against `pop`, as there.
        barrier::heavy();
        // ORDERING: Acquire, see `push`.
        let found = if self.owner.0.load(Ordering::Acquire) > top && may() {
            NonNull::new(self.slot(top).load(Ordering::Relaxed))
        } else {
            None
        };
        match found {
            Some(fork) => taken(fork),
            None => self.top.0.store(top, Ordering::Relaxed),
        }
        found
    }

    /// Whether nothing is there to be taken, as far as this thread sees.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        let top = self.top.0.load(Ordering::Relaxed);
        top < 0 || self.owner.0.load(Ordering::Relaxed) <= top
    }

    /// The owner's: waits until `is_done`, which somebody makes true before calling [`wake_owner`](Self::wake_owner).
    pub(crate) fn wait(&self, is_done: &dyn Fn() -> bool) {
        let mut waiting = self.waiting.lock();
        while !is_done() {
            self.done.wait(&mut waiting);
        }
    }

    pub(crate) fn wake_owner(&self) {
        let _waiting = self.waiting.lock();
        // WAKES: the owner in `wait` (predicate: `is_done`). It became true before the lock was taken, which the owner holds from
        // its look until it waits.
        self.done.notify_all();
    }

    fn slot(&self, place: isize) -> &AtomicPtr<T> {
        &self.slots[place as usize % ROOM]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::atomic::{AtomicBool, AtomicU32},
        thread,
    };

    fn steal<const ROOM: usize>(forks: &Forks<u32, ROOM>) -> Option<usize> {
        forks.steal(|| true, |_| ()).map(|fork| fork.addr().get())
    }

    fn fork(number: usize) -> NonNull<u32> {
        NonNull::new(ptr::without_provenance_mut(number)).unwrap()
    }

    #[test]
    fn the_owner_has_the_newest_and_thieves_the_oldest() {
        barrier::prepare();
        let forks = Forks::<u32, 4>::new();
        assert!(matches!(forks.room(), Room::NotYet) && !forks.has_begun());
        forks.begin();
        assert_eq!(steal(&forks), None);
        for round in 0..10 {
            for number in 1..=3 {
                assert!(matches!(forks.room(), Room::There), "round {round}");
                forks.push(fork(number));
            }
            assert!(matches!(forks.room(), Room::None), "one slot is left free");
            assert!(forks.steal(|| false, |_| ()).is_none() && !forks.is_empty());
            assert!(forks.pop());
            assert_eq!(steal(&forks), Some(1));
            assert_eq!(steal(&forks), Some(2));
            assert_eq!(steal(&forks), None);
            assert!(!forks.pop() && !forks.pop() && forks.is_empty());
        }
    }

    /// Each fork is had by its owner or by one thief, never by both.
    #[test]
    fn each_fork_is_had_once() {
        const FORKS: usize = 20_000;
        barrier::prepare();
        let forks = Forks::<u32, 8>::new();
        forks.begin();
        let had: Vec<AtomicU32> = (0..=FORKS).map(|_| AtomicU32::new(0)).collect();
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !over.load(Ordering::SeqCst) {
                        match steal(&forks) {
                            Some(number) => drop(had[number].fetch_add(1, Ordering::SeqCst)),
                            None => thread::yield_now(),
                        }
                    }
                });
            }
            for number in (1..=FORKS).step_by(2) {
                // Two, so that there is something to meet at, and something to take.
                forks.push(fork(number));
                forks.push(fork(number + 1));
                if forks.pop() {
                    had[number + 1].fetch_add(1, Ordering::SeqCst);
                }
                if forks.pop() {
                    had[number].fetch_add(1, Ordering::SeqCst);
                }
            }
            over.store(true, Ordering::SeqCst);
        });
        assert!(had[1..].iter().all(|had| had.load(Ordering::SeqCst) == 1));
    }
}
