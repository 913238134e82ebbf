//! Locks and atomics, as this crate takes them: by one door, so that a model checker can be put behind it. `models/` does so for
//! the files whose order of accesses is an argument of its own.

pub(crate) use executor_core::sync::{Condvar, IS_MODELLED, Mutex, atomic, thread_local};

/// How often a worker that searches looks: some tens of microseconds, which are what waking it would cost.
pub(crate) const SEARCHES: usize = if IS_MODELLED { 1 } else { 1000 };

/// How often a thread that is about to wake a worker looks whether another one has come: a fifth of a microsecond, where waking takes two.
pub(crate) const GLANCES: usize = if IS_MODELLED { 1 } else { 5 };
