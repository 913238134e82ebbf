//! Results as an iterator.

use executor_core::{Delayed, TaskError, Value};
use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    iter::FusedIterator,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Kept,
    dispatch::{Arrived, Dispatch},
    error::ParallelError,
};

/// The results of a parallel call, as they are wanted. From [`Parallel::generator`](super::Parallel::generator) and
/// [`Parallel::generator_unordered`](super::Parallel::generator_unordered).
///
/// A call that fails is an `Err` at its place, and the others go on. Dropping the iterator aborts what is not done: cancels
/// what has not begun, and stops what runs, of this parallel call and no other.
#[must_use = "dropping it aborts the calls"]
pub struct Generator<I: Iterator<Item = Delayed<R>>, R: Value> {
    dispatch: Dispatch<I, R>,
    /// In whose order results come.
    order: Order<R>,
    /// How many batches' worth of results may wait for being taken, or for an earlier one.
    most: Option<usize>,
    is_sequential: bool,
    timeout: Option<Duration>,
    waiting: Waiting,
    kept: Arc<Kept>,
    is_over: bool,
}

enum Order<R> {
    Input { next: usize, ready: BTreeMap<usize, Outcome<R>> },
    Completion { yielded: usize, ready: VecDeque<Outcome<R>> },
}

type Outcome<R> = Result<R, ParallelError>;

/// What came of a [`Generator`] that was [aborted](Generator::abort).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aborted {
    /// Results that were there, and were not taken.
    pub unused: usize,
    /// Calls that were under way: cancelled, or stopped.
    pub cancelled: usize,
}

/// In what order results are wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    InOrder,
    AsCompleted,
}

impl<I: Iterator<Item = Delayed<R>>, R: Value> Generator<I, R> {
    pub(super) fn new(
        dispatch: Dispatch<I, R>,
        wanted: Wanted,
        most: Option<usize>,
        is_sequential: bool,
        timeout: Option<Duration>,
        kept: Arc<Kept>,
    ) -> Self {
        let order = match wanted {
            Wanted::InOrder => Order::Input { next: 0, ready: BTreeMap::new() },
            Wanted::AsCompleted => Order::Completion { yielded: 0, ready: VecDeque::new() },
        };
        let mut generator = Generator {
            dispatch,
            order,
            most,
            is_sequential,
            timeout,
            waiting: Waiting::default(),
            kept,
            is_over: false,
        };
        if !is_sequential {
            generator.fill();
        }
        generator
    }

    fn fill(&mut self) {
        let most = self.most.map(|batches| batches.saturating_mul(self.dispatch.batch_size()));
        if most.is_none_or(|most| self.order.len() < most) {
            self.dispatch.fill();
        }
    }

    /// How many results are still to come, if the input says how many calls it has.
    #[must_use]
    pub fn remaining(&self) -> Option<usize> {
        if self.is_over { Some(0) } else { Some(self.dispatch.left()? + self.order.len()) }
    }

    /// Aborts what is not done, as dropping it does, and says what that was.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::parallel::{Parallel, delayed};
    ///
    /// let mut cubes = Parallel::new().n_jobs(2).backend("threading").generator((0..).map(|x: u64| delayed(|x| x * x * x)(x)))?;
    /// let first_large = cubes.by_ref().map_while(Result::ok).find(|cube| *cube > 1000);
    /// assert_eq!(first_large, Some(1331));
    /// let aborted = cubes.abort();
    /// println!("{} results were not needed, {} calls not made to their end", aborted.unused, aborted.cancelled);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn abort(mut self) -> Aborted {
        self.give_up()
    }

    fn give_up(&mut self) -> Aborted {
        let was_over = self.is_over || self.dispatch.is_over();
        self.is_over = true;
        let Aborted { unused, cancelled } = self.dispatch.abort();
        let aborted = Aborted { unused: unused + self.order.len(), cancelled };
        self.order.clear();
        if cancelled > 0 {
            // Its threads may be busy for a while with what nobody wants.
            self.kept.forget();
        }
        let Aborted { unused, cancelled } = aborted;
        if !was_over || unused > 0 {
            let what = format_args!("Aborted: {unused} results unused, {cancelled} calls cancelled");
            self.dispatch.report.say(what);
        }
        aborted
    }

    /// Waits for every call, and gives what `keep` makes of the outcomes, in the calls' order. Its error aborts the rest.
    pub(super) fn collect_in_order<T>(
        &mut self,
        keep: impl Fn(Result<R, TaskError>) -> Result<T, ParallelError>,
    ) -> Result<Vec<T>, ParallelError> {
        let mut kept: Vec<Option<T>> = Vec::new();
        let mut missing = 0;
        loop {
            self.dispatch.fill();
            let patience = self.patience(missing);
            match self.dispatch.next(patience) {
                Ok(Some(Arrived { first, outcomes })) => {
                    kept.resize_with(kept.len().max(first + outcomes.len()), || None);
                    for (place, outcome) in (first..).zip(outcomes) {
                        match keep(outcome) {
                            Ok(outcome) => kept[place] = Some(outcome),
                            Err(error) => {
                                self.give_up();
                                return Err(error);
                            }
                        }
                    }
                    missing += kept[missing..].iter().take_while(|kept| kept.is_some()).count();
                }
                Ok(None) => {
                    self.is_over = true;
                    return Ok(kept.into_iter().flatten().collect());
                }
                Err(_) => return Err(self.late()),
            }
        }
    }

    /// Gives up, since the next result took too long.
    fn late(&mut self) -> ParallelError {
        let (limit, done) = (self.timeout.unwrap_or_default(), self.dispatch.done());
        self.give_up();
        ParallelError::Timeout { limit, done }
    }

    /// Which result is awaited, as a number that changes with it.
    fn awaited(&self) -> usize {
        match &self.order {
            Order::Input { next, .. } => *next,
            Order::Completion { yielded, .. } => *yielded,
        }
    }

    /// How long the awaited result may still take.
    fn patience(&mut self, awaited: usize) -> Option<Duration> {
        let limit = self.timeout.filter(|_| !self.is_sequential)?;
        Some(self.waiting.left(limit, awaited, Instant::now()))
    }
}

/// For which result somebody waits, and since when.
#[derive(Default)]
struct Waiting(Option<(usize, Instant)>);

impl Waiting {
    /// How much is left of the time that each result may take, now that this one is awaited.
    fn left(&mut self, limit: Duration, awaited: usize, now: Instant) -> Duration {
        let since = match self.0 {
            Some((same, since)) if same == awaited => since,
            _ => now,
        };
        self.0 = Some((awaited, since));
        limit.saturating_sub(now.saturating_duration_since(since))
    }
}

impl<R> Order<R> {
    fn len(&self) -> usize {
        match self {
            Order::Input { ready, .. } => ready.len(),
            Order::Completion { ready, .. } => ready.len(),
        }
    }

    fn clear(&mut self) {
        match self {
            Order::Input { ready, .. } => ready.clear(),
            Order::Completion { ready, .. } => ready.clear(),
        }
    }

    fn put(&mut self, first: usize, outcomes: impl Iterator<Item = Outcome<R>>) {
        match self {
            Order::Input { ready, .. } => ready.extend((first..).zip(outcomes)),
            Order::Completion { ready, .. } => ready.extend(outcomes),
        }
    }

    fn take(&mut self) -> Option<Outcome<R>> {
        match self {
            Order::Input { next, ready } => {
                let outcome = ready.remove(next)?;
                *next += 1;
                Some(outcome)
            }
            Order::Completion { yielded, ready } => {
                let outcome = ready.pop_front()?;
                *yielded += 1;
                Some(outcome)
            }
        }
    }
}

impl<I: Iterator<Item = Delayed<R>>, R: Value> Iterator for Generator<I, R> {
    type Item = Result<R, ParallelError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.is_over {
                return None;
            }
            if let Some(outcome) = self.order.take() {
                if !self.is_sequential {
                    self.fill();
                }
                return Some(outcome);
            }
            // The awaited one has to be under way, whatever else waits for being taken.
            match &self.order {
                Order::Input { next, .. } if self.dispatch.awaits(*next) => self.fill(),
                _ => self.dispatch.fill(),
            }
            let patience = self.patience(self.awaited());
            match self.dispatch.next(patience) {
                Ok(Some(arrived)) => {
                    let outcomes = arrived.outcomes.into_iter().map(|outcome| outcome.map_err(ParallelError::from));
                    self.order.put(arrived.first, outcomes);
                }
                Ok(None) => {
                    self.is_over = true;
                    return None;
                }
                Err(_) => return Some(Err(self.late())),
            }
        }
    }
}

impl<I: Iterator<Item = Delayed<R>>, R: Value> FusedIterator for Generator<I, R> {}

impl<I: Iterator<Item = Delayed<R>>, R: Value> Drop for Generator<I, R> {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl<I: Iterator<Item = Delayed<R>>, R: Value> fmt::Debug for Generator<I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generator")
            .field("remaining", &self.remaining())
            .field("ready", &self.order.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// JOB-17: the limit is for each result that is awaited, from when it is, and not for all of them.
    #[test]
    fn each_result_has_its_own_time() {
        let (limit, second) = (Duration::from_secs(5), Duration::from_secs(1));
        let mut waiting = Waiting::default();
        let mut now = Instant::now();
        for awaited in 0..10 {
            assert_eq!(waiting.left(limit, awaited, now), limit);
            now += 3 * second; // another one came meanwhile
            assert_eq!(waiting.left(limit, awaited, now), 2 * second);
            now += second;
        }
        assert_eq!(waiting.left(limit, 9, now + limit), Duration::ZERO);
    }
}
