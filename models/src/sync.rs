//! What stands behind the door: loom's locks and atomics, in the shape of those that the pool uses.

use crate::is_planted;
use loom::sync as modelled;
use std::{
    ops::{Deref, DerefMut},
    sync::PoisonError,
    time::Instant,
};

/// None: whoever searches and finds nothing does what it does once.
pub(crate) const SEARCHES: usize = 1;

pub(crate) const GLANCES: usize = 1;

#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(modelled::Mutex<T>);

/// `None` only while it waits.
pub(crate) struct Guard<'a, T>(Option<modelled::MutexGuard<'a, T>>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Mutex(modelled::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> Guard<'_, T> {
        Guard(Some(self.0.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("held but for a wait")
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("held but for a wait")
    }
}

#[derive(Debug, Default)]
pub(crate) struct Condvar(modelled::Condvar);

/// Time does not pass here.
pub(crate) struct NeverLate;

impl NeverLate {
    pub(crate) fn timed_out(&self) -> bool {
        false
    }
}

impl Condvar {
    pub(crate) fn new() -> Self {
        Condvar(modelled::Condvar::new())
    }

    pub(crate) fn wait<T>(&self, guard: &mut Guard<'_, T>) {
        let held = guard.0.take().expect("held but for a wait");
        guard.0 = Some(self.0.wait(held).unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn wait_until<T>(&self, guard: &mut Guard<'_, T>, _: Instant) -> NeverLate {
        self.wait(guard);
        NeverLate
    }

    pub(crate) fn notify_one(&self) {
        // WAKES: what it wakes in the pool; see there.
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        if !is_planted("no wake-up") {
            // WAKES: what it wakes in the pool; see there.
            self.0.notify_all();
        }
    }
}

pub(crate) mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicUsize, Ordering};

    use super::{is_planted, modelled::atomic as modelled};

    pub(crate) fn fence(order: Ordering) {
        if !is_planted("no fences") {
            modelled::fence(order);
        }
    }

    /// In which a release can be planted away.
    pub(crate) struct AtomicIsize(modelled::AtomicIsize);

    impl AtomicIsize {
        pub(crate) fn new(value: isize) -> Self {
            AtomicIsize(modelled::AtomicIsize::new(value))
        }

        pub(crate) fn load(&self, order: Ordering) -> isize {
            self.0.load(order)
        }

        pub(crate) fn store(&self, value: isize, order: Ordering) {
            let order = if is_planted("relaxed publication") { Ordering::Relaxed } else { order };
            self.0.store(value, order);
        }
    }
}
