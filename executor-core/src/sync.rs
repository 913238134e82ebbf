//! The one door to locks, condition variables, threads and atomics, for this crate and for backends: a model checker can be put behind
//! it without touching the code that uses it. `cargo xtask models` does so, by a private `cfg` that says which.

#[cfg(not(any(concurrent_futures_model = "loom", concurrent_futures_model = "shuttle")))]
pub use {
    parking_lot::{Condvar, Mutex, MutexGuard},
    std::{cell::UnsafeCell, sync::atomic, thread, thread_local},
};

#[cfg(any(concurrent_futures_model = "loom", concurrent_futures_model = "shuttle"))]
mod modelled;
#[cfg(any(concurrent_futures_model = "loom", concurrent_futures_model = "shuttle"))]
pub use modelled::*;

/// Whether a model checker is behind the door. Then whoever looks before it sleeps hardly looks: each look is a step.
pub const IS_MODELLED: bool = cfg!(any(concurrent_futures_model = "loom", concurrent_futures_model = "shuttle"));
