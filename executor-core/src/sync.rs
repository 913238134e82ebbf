//! The one door to locks and condition variables, for this crate and for backends: a model checker
//! can be put behind it without touching the code that uses it.

pub use parking_lot::{Condvar, Mutex, MutexGuard};
