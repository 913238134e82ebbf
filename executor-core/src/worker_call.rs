//! What each worker does once: before its first task, or before it leaves.

use std::{fmt, panic::Location};

use crate::{function::Plain, future::Future, task::Task, value::SharedValue, work::Single};

/// A call that every worker makes once: an *initializer* before its first task, a *finalizer* before it leaves.
///
/// It is a task like any other, made anew for each worker, so that threads run it and processes ship it. If an
/// initializer panics, the pool is broken with that panic as the cause.
pub struct WorkerCall(Box<dyn Fn() -> (Task, Future<()>) + Send + Sync>);

impl WorkerCall {
    /// `function(args)`, with a clone of `args` for each worker.
    #[track_caller]
    pub fn new<A: SharedValue + Clone>(function: fn(A), args: A) -> Self {
        let site = Location::caller();
        WorkerCall(Box::new(move || Task::new(Single { function: Plain(function), args: args.clone() }, site)))
    }

    /// The call for one worker. Cloning its arguments may panic.
    pub fn task(&self) -> (Task, Future<()>) {
        (self.0)()
    }
}

impl fmt::Debug for WorkerCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerCall").finish_non_exhaustive()
    }
}
