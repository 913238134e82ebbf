//! Calls that share this process's memory: closures that borrow.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, Ordering},
};

use super::{Parallel, backend::Plan, error::ParallelError};

/// A [`Parallel`] whose calls share memory with who makes them. From [`Parallel::require_sharedmem`].
#[derive(Debug)]
#[must_use = "`run` makes the calls"]
pub struct SharedMemory {
    parallel: Parallel,
}

impl SharedMemory {
    pub(super) fn new(mut parallel: Parallel) -> Self {
        parallel.choices.sharedmem = true;
        SharedMemory { parallel }
    }

    /// Makes the calls, which may borrow and need not be serialisable, on threads, and gives their results in the
    /// calls' order. With one worker they are made in this thread, one after the other, and a panic of one is this
    /// thread's.
    ///
    /// What borrows must be over when it returns, so after an error it waits for the calls that have begun, and makes
    /// no others.
    ///
    /// # Errors
    /// The first failure of a call; [`ParallelError::Conflict`] where processes were chosen for this very call, and what
    /// [`Parallel::run`] says of choices. A [`timeout`](Parallel::timeout) is not for calls that must be waited for.
    pub fn run<F, R>(&self, calls: impl IntoIterator<Item = F>) -> Result<Vec<R>, ParallelError>
    where
        F: FnOnce() -> R + Send,
        R: Send,
    {
        let choices = self.parallel.effective();
        let plan = Plan::of(&self.parallel.choices, &choices)?;
        self.parallel.announce(&plan, &choices);
        if choices.timeout.is_some() || choices.task_timeout.is_some() {
            return Err(ParallelError::Conflict("calls that borrow must be waited for, however long they take"));
        }
        if plan.is_sequential() {
            return Ok(calls.into_iter().map(|call| call()).collect());
        }
        let most = choices.pre_dispatch.clone().unwrap_or_default().batches(plan.n_jobs)?;
        let pool = plan.threads()?;
        let has_failed = AtomicBool::new(false);
        let has_failed = &has_failed;
        pool.scope(|scope| {
            let mut results = Vec::new();
            let mut under_way = VecDeque::new();
            let mut calls = calls.into_iter().fuse();
            loop {
                while most.is_none_or(|most| under_way.len() < most.get())
                    && let Some(call) = calls.next()
                {
                    // ORDERING: Relaxed; who sees it late makes one call more.
                    under_way.push_back(scope.spawn(move || (!has_failed.load(Ordering::Relaxed)).then(call)));
                }
                let Some(next) = under_way.pop_front() else { return Ok(results) };
                match next.result() {
                    Ok(result) => results.extend(result),
                    Err(error) => {
                        has_failed.store(true, Ordering::Relaxed);
                        // Asked for, so that the scope does not panic of what this error makes of them.
                        under_way.into_iter().for_each(|call| drop(call.result()));
                        return Err(error.into());
                    }
                }
            }
        })
    }
}
