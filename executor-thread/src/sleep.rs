#![doc = include_str!("sleep.md")]

use std::{
    hint, thread,
    time::{Duration, Instant},
};

use crate::{
    barrier,
    sync::{
        Condvar, GLANCES, Mutex, SEARCHES,
        atomic::{AtomicBool, AtomicUsize, Ordering, fence},
    },
};

/// How many wake-ups glances spare before one is made: where they are that frequent, somebody who searches spares more.
const SPARED: usize = 16;

#[derive(Default)]
pub(crate) struct Sleep {
    /// A worker searches: it will find whatever is pushed.
    searching: AtomicBool,
    sleepers: AtomicUsize,
    /// Wake-ups that glances have spared, since the last one that they have not.
    spared: AtomicUsize,
    permits: Mutex<usize>,
    granted: Condvar,
}

impl Sleep {
    /// Returns when there may be work, as `has_work` tells, or when the thread `must_go`. Whoever makes that true calls
    /// [`wake_all`](Self::wake_all) afterwards. `false`: nothing of that has come within the limit. `is_one_sided` tells whether work
    /// may come from somebody who passes only the light half of a barrier before he looks for sleepers.
    pub(crate) fn sleep(
        &self,
        limit: Option<Duration>,
        has_work: impl Fn() -> bool,
        must_go: impl Fn() -> bool,
        is_one_sided: impl Fn() -> bool,
    ) -> bool {
        if has_work() || must_go() || self.search(&has_work, &must_go) {
            return true;
        }
        // ORDERING: SeqCst here and the fence pair with the fence in `wake_one`: either that sees
        // this announcement, or the look below sees what was pushed before it.
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if is_one_sided() {
            barrier::heavy();
        }
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        if !has_work() {
            let mut permits = self.permits.lock();
            loop {
                if must_go() {
                    if *permits > 0 {
                        // WAKES: another sleeper, which was not told of the permit that this thread leaves unused.
                        self.granted.notify_one();
                    }
                    break;
                }
                if *permits > 0 {
                    *permits -= 1;
                    break;
                }
                let late = match deadline {
                    None => {
                        self.granted.wait(&mut permits);
                        false
                    }
                    Some(deadline) => self.granted.wait_until(&mut permits, deadline).timed_out(),
                };
                if late && *permits == 0 && !must_go() {
                    // Under the lock: from here on no permit is meant for this thread, and a push finds it missing.
                    self.sleepers.fetch_sub(1, Ordering::SeqCst);
                    return false;
                }
            }
        }
        // ORDERING: SeqCst for the same total order; a late decrement only grants a permit too many.
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        true
    }

    /// Looks for a while, unless another worker does.
    fn search(&self, has_work: impl Fn() -> bool, must_go: impl Fn() -> bool) -> bool {
        // ORDERING: Relaxed; only one may get it, and it promises something to others from the next look on.
        if self.searching.compare_exchange(false, true, Ordering::SeqCst, Ordering::Relaxed).is_err() {
            return false;
        }
        let found = (0..SEARCHES).any(|look| {
            if look % 8 == 7 {
                thread::yield_now();
            } else {
                hint::spin_loop();
            }
            has_work() || must_go()
        });
        // ORDERING: SeqCst, and a fence before the next look for work, here or in who takes it: a pusher that has read `true` did so
        // before, so that look sees what it pushed.
        self.searching.store(false, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        found
    }

    /// Whether somebody sleeps, or is about to and has not looked for the last time.
    #[inline]
    pub(crate) fn has_sleepers(&self) -> bool {
        // ORDERING: as in `wake_one`; the caller's own queue was filled before.
        fence(Ordering::SeqCst);
        self.sleepers.load(Ordering::Relaxed) > 0
    }

    /// As [`has_sleepers`](Self::has_sleepers), without the fence.
    #[inline]
    pub(crate) fn may_have_sleepers(&self) -> bool {
        self.sleepers.load(Ordering::Relaxed) > 0
    }

    /// To be called after a push. Returns whether somebody comes for it: a sleeper was let go, or a worker searches.
    #[inline]
    pub(crate) fn wake_one(&self) -> bool {
        self.wake_one_unless(|| false)
    }

    /// As [`wake_one`](Self::wake_one), by who may find that what was pushed `is_taken` before it has woken anybody: most often a worker
    /// is just between two calls. Then somebody has come.
    #[inline]
    pub(crate) fn wake_one_unless(&self, is_taken: impl Fn() -> bool) -> bool {
        // ORDERING: pairs with the fences in `search` and `sleep`; the push is before it.
        fence(Ordering::SeqCst);
        if self.searching.load(Ordering::Relaxed) {
            return true;
        }
        if self.sleepers.load(Ordering::Relaxed) == 0 {
            return false;
        }
        // ORDERING: Relaxed; it matters to nobody's safety, and who loses a count glances once more.
        let spared = self.spared.load(Ordering::Relaxed);
        let glances = if spared < SPARED { GLANCES } else { 0 };
        for _ in 0..glances {
            hint::spin_loop();
            if self.searching.load(Ordering::Relaxed) || is_taken() {
                self.spared.store(spared + 1, Ordering::Relaxed);
                return true;
            }
        }
        self.spared.store(0, Ordering::Relaxed);
        self.grant()
    }

    #[cold]
    fn grant(&self) -> bool {
        let mut permits = self.permits.lock();
        // ORDERING: Relaxed; the caller's fence ordered what matters, and the count may be stale by
        // then anyway: see "No wake-up is lost".
        if *permits >= self.sleepers.load(Ordering::Relaxed) {
            return false;
        }
        *permits += 1;
        // WAKES: one sleeper in `sleep` (predicate: a permit is there). It was added under the lock
        // that sleepers hold from their check until they wait.
        self.granted.notify_one();
        true
    }

    /// Has every sleeper look whether it must go.
    pub(crate) fn wake_all(&self) {
        let _permits = self.permits.lock();
        // WAKES: all sleepers (predicate: `must_go`). What makes it true was done before the lock was taken, and
        // sleepers hold the lock from their check until they wait.
        self.granted.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    };

    /// Two workers and two pushers, as fast as they can: every unit of work is taken. A lost wake-up
    /// would leave some behind with everybody asleep, and the test would not end.
    #[test]
    fn whatever_is_pushed_is_taken() {
        const PUSHES: u64 = 20_000;
        let sleep = Arc::new(Sleep::default());
        let (work, taken) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let closed = Arc::new(AtomicBool::new(false));
        let take = |work: &AtomicU64| {
            work.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
        };
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    loop {
                        while take(&work) {
                            taken.fetch_add(1, Ordering::SeqCst);
                        }
                        if closed.load(Ordering::SeqCst) {
                            return;
                        }
                        sleep.sleep(
                            None,
                            || work.load(Ordering::SeqCst) > 0,
                            || closed.load(Ordering::SeqCst),
                            || false,
                        );
                    }
                });
            }
            let pushers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        for _ in 0..PUSHES {
                            work.fetch_add(1, Ordering::SeqCst);
                            sleep.wake_one();
                        }
                    })
                })
                .collect();
            pushers.into_iter().for_each(|pusher| pusher.join().unwrap());
            while taken.load(Ordering::SeqCst) < 2 * PUSHES {
                thread::yield_now();
            }
            closed.store(true, Ordering::SeqCst);
            sleep.wake_all();
        });
        assert_eq!(taken.load(Ordering::SeqCst), 2 * PUSHES);
    }

    #[test]
    fn for_what_is_taken_at_a_glance_hardly_anybody_is_woken() {
        let (sleep, woken) = (Sleep::default(), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                assert!(sleep.sleep(None, || false, || false, || false));
                woken.store(true, Ordering::SeqCst);
            });
            while sleep.searching.load(Ordering::SeqCst) || sleep.sleepers.load(Ordering::SeqCst) == 0 {
                thread::yield_now();
            }
            for _ in 0..SPARED {
                assert!(sleep.wake_one_unless(|| true) && *sleep.permits.lock() == 0);
            }
            assert!(!woken.load(Ordering::SeqCst));
            assert!(sleep.wake_one_unless(|| true));
        }); // which ends when the sleeper has been woken
        assert_eq!(sleep.spared.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn nobody_asleep_means_nobody_woken() {
        assert!(!Sleep::default().wake_one());
    }
}
