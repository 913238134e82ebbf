//! What each worker does before its first task.

use std::{fmt, panic::Location};

use crate::{future::Future, portable::Plain, task::Task, value::SharedValue, work::Single};

/// A call that every worker makes once, before its first task.
///
/// It is a task like any other, made anew for each worker, so that threads run it and processes ship
/// it. If it panics, the pool is broken with that panic as the cause.
pub struct Initializer(Box<dyn Fn() -> (Task, Future<()>) + Send + Sync>);

impl Initializer {
    /// `function(args)`, with a clone of `args` for each worker.
    #[track_caller]
    pub fn new<A: SharedValue + Clone>(function: fn(A), args: A) -> Self {
        let site = Location::caller();
        Initializer(Box::new(move || Task::new(Single { function: Plain(function), args: args.clone() }, site)))
    }

    /// The call for one worker. Cloning its arguments may panic.
    pub fn task(&self) -> (Task, Future<()>) {
        (self.0)()
    }
}

impl fmt::Debug for Initializer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Initializer").finish_non_exhaustive()
    }
}
