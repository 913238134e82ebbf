//! Calls on their way: taken from the input, sent in batches, and come back.
//!
//! ```text
//!  input ──take──► batch ──execute──► [ at most so many batches under way ] ──► outcomes, each with its place
//! ```
//!
//! Nothing is taken but by whoever waits for outcomes, so nothing piles up while nobody does.

use executor_core::{
    Delayed, Executor, Failure, Future, Task, TaskError, TaskId, Timeout, Value,
    delayed::{DelayedBatch, outcomes},
    wait::{AsCompleted, as_completed},
};
use std::{
    collections::{HashMap, HashSet},
    num::NonZeroUsize,
    ops::Range,
    sync::Arc,
    time::Duration,
};

use super::{
    Aborted,
    batches::Batches,
    verbose::{Progress, Report},
};

pub(super) struct Dispatch<I, R: Value> {
    executor: Arc<dyn Executor>,
    /// `None` once it is exhausted, or given up.
    calls: Option<I>,
    /// Taken, and not to go with the batch before.
    ahead: Option<Delayed<R>>,
    /// For which the executor had no room.
    held: Option<(Task, Sent<R>)>,
    under_way: AsCompleted<Sent<R>>,
    /// Which calls, by their places, each task makes.
    places: HashMap<TaskId, Range<usize>>,
    batches: Batches,
    /// How many batches may be under way.
    most: Option<NonZeroUsize>,
    workers: NonZeroUsize,
    taken: usize,
    /// The places of calls that are not done, below `taken`.
    undone: HashSet<usize>,
    finished_batches: usize,
    total: Option<usize>,
    pub(super) report: Report,
    #[cfg(feature = "progress")]
    pub(super) bar: Option<crate::progress::Counter>,
}

type Sent<R> = Future<executor_core::Batch<R>>;

/// How a [`Dispatch`] goes about it.
pub(super) struct Manner {
    pub(super) executor: Arc<dyn Executor>,
    pub(super) batches: Batches,
    pub(super) most: Option<NonZeroUsize>,
    pub(super) report: Report,
}

/// What a batch gave: the place of its first call, and the outcomes from there on.
pub(super) struct Arrived<R> {
    pub(super) first: usize,
    pub(super) outcomes: Vec<Result<R, TaskError>>,
}

impl<I: Iterator<Item = Delayed<R>>, R: Value> Dispatch<I, R> {
    pub(super) fn new(manner: Manner, calls: I) -> Self {
        let Manner { executor, batches, most, report } = manner;
        let total = match calls.size_hint() {
            (least, Some(most)) if least == most => Some(most),
            _ => None,
        };
        Dispatch {
            workers: executor.max_workers(),
            executor,
            calls: Some(calls),
            ahead: None,
            held: None,
            under_way: as_completed([]),
            places: HashMap::new(),
            batches,
            most,
            taken: 0,
            undone: HashSet::new(),
            finished_batches: 0,
            total,
            report,
            #[cfg(feature = "progress")]
            bar: None,
        }
    }

    /// Sends what may be under way.
    pub(super) fn fill(&mut self) {
        while self.most.is_none_or(|most| self.under_way.remaining() < most.get()) {
            let Some((task, future)) = self.held.take().or_else(|| self.batch()) else { return };
            // If nothing is under way, there is nothing else to wait for than room.
            let limit = if self.under_way.remaining() == 0 { Duration::MAX } else { Duration::ZERO };
            match self.executor.try_execute(task, limit) {
                Ok(()) => {}
                Err(rejected) if rejected.is_queue_full() => {
                    self.held = Some((rejected.into_value(), future));
                    return;
                }
                Err(rejected) => {
                    let failure: Failure = rejected.failure().clone();
                    drop(rejected.into_value().fail(failure));
                }
            }
            self.under_way.add(future);
        }
    }

    fn batch(&mut self) -> Option<(Task, Sent<R>)> {
        let left = self.calls.as_ref().and_then(|calls| calls.size_hint().1);
        let size = self.batches.next(left, self.workers);
        let first = self.ahead.take().or_else(|| self.take())?;
        let mut batch = DelayedBatch::new(first);
        while batch.len() < size
            && let Some(call) = self.take()
        {
            if let Err(other) = batch.push(call) {
                self.ahead = Some(other);
                break;
            }
        }
        let places = self.taken..self.taken + batch.len();
        self.taken = places.end;
        let (task, future) = batch.into_task();
        self.undone.extend(places.clone());
        self.places.insert(future.id(), places);
        Some((task, future))
    }

    fn take(&mut self) -> Option<Delayed<R>> {
        let call = self.calls.as_mut()?.next();
        if call.is_none() {
            self.calls = None;
        }
        call
    }

    /// The next batch that is done. `None`: all are.
    pub(super) fn next(&mut self, limit: Option<Duration>) -> Result<Option<Arrived<R>>, Timeout> {
        let future = match limit {
            None => self.under_way.next(),
            Some(limit) => self.under_way.next_timeout(limit)?,
        };
        let Some(future) = future else {
            #[cfg(feature = "progress")]
            if let Some(bar) = &mut self.bar {
                bar.finish();
            }
            return Ok(None);
        };
        let places = self.places.remove(&future.id()).expect("each task comes once");
        let (outcomes, elapsed) = outcomes(future, places.len());
        if let Some(elapsed) = elapsed {
            self.batches.observe(places.len(), elapsed);
        }
        for place in places.clone() {
            self.undone.remove(&place);
        }
        self.finished_batches += 1;
        let progress = self.progress();
        self.report.progress(progress);
        #[cfg(feature = "progress")]
        if let Some(bar) = &mut self.bar {
            let failed = outcomes.iter().filter(|outcome| outcome.is_err()).count();
            bar.advance(outcomes.len() as u64, failed as u64, progress.is_all_taken.then_some(progress.taken as u64));
        }
        Ok(Some(Arrived { first: places.start, outcomes }))
    }

    fn progress(&self) -> Progress {
        Progress {
            done: self.taken - self.undone.len(),
            taken: self.taken,
            is_all_taken: self.calls.is_none() && self.ahead.is_none() && self.held.is_none(),
            total: self.total,
            batches: self.finished_batches,
        }
    }

    /// Whether the call at this place is under way.
    pub(super) fn awaits(&self, place: usize) -> bool {
        self.undone.contains(&place)
    }

    /// How many calls go together now.
    pub(super) fn batch_size(&self) -> usize {
        self.batches.next(None, self.workers)
    }

    pub(super) fn done(&self) -> usize {
        self.taken - self.undone.len()
    }

    /// How many calls are still to come, if the input knows.
    pub(super) fn left(&self) -> Option<usize> {
        let unseen = match self.calls.as_ref().map(I::size_hint) {
            None => 0,
            Some((least, most)) => most.filter(|most| *most == least)?,
        };
        Some(self.undone.len() + usize::from(self.ahead.is_some()) + unseen)
    }
}

impl<I, R: Value> Dispatch<I, R> {
    /// Gives up what is not done: cancels what has not begun, stops what runs in worker processes, and asks to stop
    /// what runs on threads. Returns how many calls that are, and how many were done and have not come back.
    pub(super) fn abort(&mut self) -> Aborted {
        let mut unused = 0;
        self.calls = None;
        self.ahead = None;
        self.held = None;
        // From the youngest to the oldest: a call that is asked to stop leaves its worker to the next one, which must not begin.
        let under_way: Vec<_> = self.under_way.pending().collect();
        for future in under_way.into_iter().rev() {
            if future.done() {
                unused += self.places[&future.id()].len();
            } else if !future.cancel() {
                future.kill();
            }
        }
        self.under_way = as_completed([]);
        self.places.clear();
        let cancelled = self.undone.len() - unused;
        self.undone.clear();
        Aborted { unused, cancelled }
    }

    /// Whether all has come back.
    pub(super) fn is_over(&self) -> bool {
        self.undone.is_empty() && self.calls.is_none() && self.ahead.is_none()
    }
}

impl<I, R: Value> Drop for Dispatch<I, R> {
    fn drop(&mut self) {
        self.abort();
    }
}
