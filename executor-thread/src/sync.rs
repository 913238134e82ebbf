//! Locks and atomics, as this crate takes them: by one door, so that a model checker can be put behind it. `models/` does so for
//! the files whose order of accesses is an argument of its own.

pub(crate) use executor_core::sync::{Condvar, Mutex};
pub(crate) use std::sync::atomic;
