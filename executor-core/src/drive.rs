//! How a thread that waits for a result moves it along, where the backend lets it.

use std::{sync::Arc, time::Instant};

/// A pool whose calls can be moved along by whoever waits for one. For backends.
///
/// A thread that waits would otherwise sleep until another thread has taken the reply and wakes it, which takes tens of
/// microseconds more than the call itself.
pub trait Drive: Send + Sync {
    /// Waits until `is_over` or the deadline: for a short while by moving calls along, and then by `sleep`, which returns when
    /// either is so. It need not be called if that is so before. May return earlier than `is_over` only after `sleep`.
    fn wait(&self, deadline: Option<Instant>, is_over: &dyn Fn() -> bool, sleep: &mut dyn FnMut());
}

/// Waits as [`Drive::wait`] does, for what may come from any of several pools.
pub(crate) fn wait(
    drivers: &[Arc<dyn Drive>],
    deadline: Option<Instant>,
    is_over: &dyn Fn() -> bool,
    sleep: &mut dyn FnMut(),
) {
    match drivers.split_first() {
        None => sleep(),
        Some((first, others)) => first.wait(deadline, is_over, &mut || wait(others, deadline, is_over, sleep)),
    }
}
