//! Waiting for many futures: until some or all are done, or one after the other as they finish.
//!
//! Each wait owns a queue of *arrivals*, in which its futures register.

use std::{
    collections::{HashSet, VecDeque},
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    arrivals::Arrivals,
    async_result::AsyncResult,
    blocking,
    cancel_on_drop::CancelOnDrop,
    error::{TaskId, Timeout},
    future::Future,
    waits::{self, Awaited, NumberHash},
};

/// A future that can be waited for together with others: owned, or borrowed.
///
/// Sealed: [`Future<R>`], [`CancelOnDrop<R>`], [`AsyncResult<R>`], and references to them are all there are.
pub trait AsFuture: sealed::Sealed {
    /// What the future's call gives.
    type Result;

    /// The future.
    fn as_future(&self) -> &Future<Self::Result>;
}

macro_rules! as_future {
    ($($type:ty),*) => {$(
        impl<R> AsFuture for $type {
            type Result = R;

            fn as_future(&self) -> &Future<R> {
                self
            }
        }

        impl<R> sealed::Sealed for $type {}
    )*};
}

as_future!(Future<R>, &Future<R>, CancelOnDrop<R>, &CancelOnDrop<R>, AsyncResult<R>, &AsyncResult<R>);

mod sealed {
    pub trait Sealed {}
}

/// When [`wait`] ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReturnWhen {
    /// When any future is done.
    FirstCompleted,
    /// When any future has failed; a cancelled one has not. Without a failure, when all are done.
    FirstException,
    /// When all futures are done.
    AllCompleted,
}

/// [`ReturnWhen::FirstCompleted`], by its Python name.
pub const FIRST_COMPLETED: ReturnWhen = ReturnWhen::FirstCompleted;
/// [`ReturnWhen::FirstException`], by its Python name.
pub const FIRST_EXCEPTION: ReturnWhen = ReturnWhen::FirstException;
/// [`ReturnWhen::AllCompleted`], by its Python name.
pub const ALL_COMPLETED: ReturnWhen = ReturnWhen::AllCompleted;

/// What [`wait`] found: each distinct input is in exactly one of the two.
#[derive(Debug)]
pub struct Waited<F> {
    /// Done, in the order of completion; those that were done when all had been given come first.
    pub done: Vec<F>,
    /// Not done, in the order of the input.
    pub not_done: Vec<F>,
}

/// Waits until as many of `futures` are done as `until` says.
///
/// Takes futures by value or by reference, of any executors. A future that is given twice counts once.
///
/// # Panics
/// In a task for which all that is awaited waits itself, as [`Future::wait`] does.
///
/// # Examples
/// ```
/// use concurrent_futures::{ALL_COMPLETED, Executor, ThreadPoolExecutor, wait};
///
/// let pool = ThreadPoolExecutor::new(2)?;
/// let futures: Vec<_> = (0..4).map(|x| pool.submit(|x: u32| x * x, x)).collect();
/// let waited = wait(&futures, ALL_COMPLETED);
/// assert_eq!((waited.done.len(), waited.not_done.len()), (4, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn wait<F: AsFuture>(futures: impl IntoIterator<Item = F>, until: ReturnWhen) -> Waited<F> {
    wait_until(futures, until, None)
}

/// As [`wait`], for at most `limit`. Running out of time is no error: what is done by then is in
/// [`Waited::done`].
pub fn wait_timeout<F: AsFuture>(
    futures: impl IntoIterator<Item = F>,
    until: ReturnWhen,
    limit: Duration,
) -> Waited<F> {
    wait_until(futures, until, Instant::now().checked_add(limit))
}

fn wait_until<F: AsFuture>(
    futures: impl IntoIterator<Item = F>,
    until: ReturnWhen,
    deadline: Option<Instant>,
) -> Waited<F> {
    let mut pending = Pending::of(futures);
    let mut done = Vec::new();
    let mut enough = pending.is_empty();
    let mut arrived = pending.try_next();
    loop {
        // Whatever has arrived by now counts, also when enough is reached on the way.
        while let Some(future) = arrived {
            enough |= match until {
                ReturnWhen::FirstCompleted => true,
                ReturnWhen::FirstException => {
                    future.as_future().reader().error().is_some_and(|error| !error.is_cancelled())
                }
                ReturnWhen::AllCompleted => false,
            };
            done.push(future);
            arrived = pending.try_next();
        }
        if enough || pending.is_empty() {
            break;
        }
        arrived = pending.next(deadline);
        if arrived.is_none() {
            break; // the deadline
        }
    }
    Waited { done, not_done: pending.into_rest() }
}

/// Yields `futures` as they are done: each exactly once, in the order of completion, those already done
/// first.
///
/// Takes futures by value or by reference, of any executors; a future that is given twice is yielded
/// once. It registers with all of them before it returns. Dropping the iterator cancels nothing.
///
/// # Examples
/// ```
/// use concurrent_futures::{Executor, ThreadPoolExecutor, as_completed};
/// use std::collections::HashMap;
///
/// let pool = ThreadPoolExecutor::new(2)?;
/// let names: HashMap<_, _> =
///     ["one", "three"].into_iter().map(|word| (pool.submit(|w: String| w.len(), word.into()), word)).collect();
/// for future in as_completed(names.keys()) {
///     println!("{} has {:?} letters", names[future], future.peek());
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn as_completed<F: AsFuture>(futures: impl IntoIterator<Item = F>) -> AsCompleted<F> {
    let called = Instant::now();
    AsCompleted { pending: Pending::of(futures), called }
}

/// From [`as_completed`].
#[derive(Debug)]
#[must_use = "futures are yielded as the iterator is advanced"]
pub struct AsCompleted<F: AsFuture> {
    pending: Pending<F>,
    called: Instant,
}

impl<F: AsFuture> AsCompleted<F> {
    /// Limits the whole wait. The clock started at the call of [`as_completed`].
    pub fn timeout(self, limit: Duration) -> AsCompletedTimeout<F> {
        AsCompletedTimeout { deadline: self.called.checked_add(limit), pending: self.pending }
    }

    /// Adds a future, to be yielded when it is done. One that is still awaited here is not added again.
    pub fn add(&mut self, future: F) {
        self.pending.add(future);
    }

    /// How many futures are still to come.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.pending.len()
    }

    /// The futures that are still to come, in no particular order: for giving them up, say.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{Executor, ThreadPoolExecutor, as_completed};
    ///
    /// let pool = ThreadPoolExecutor::new(1)?;
    /// let mut futures = as_completed((0..100).map(|x| pool.submit(|x: u32| x, x)));
    /// let first = futures.next();
    /// futures.pending().for_each(|future| { future.cancel(); });
    /// assert!(first.is_some() && futures.all(|future| future.done()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn pending(&self) -> impl Iterator<Item = &F> {
        self.pending.futures.values()
    }

    /// As [`next`](Iterator::next), waiting for at most `limit`. A limit of zero does not wait.
    ///
    /// # Errors
    /// [`Timeout`], when the limit passes first. The iterator can be advanced further.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{Executor, ThreadPoolExecutor, as_completed};
    /// use std::{thread::sleep, time::Duration};
    ///
    /// let pool = ThreadPoolExecutor::new(1)?;
    /// let mut futures = as_completed([pool.submit(|ms| sleep(Duration::from_millis(ms)), 20)]);
    /// while futures.next_timeout(Duration::from_millis(5)).is_err() {
    ///     println!("{} to come", futures.remaining());
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn next_timeout(&mut self, limit: Duration) -> Result<Option<F>, Timeout> {
        if self.pending.is_empty() {
            return Ok(None);
        }
        let timeout = Timeout { unfinished: self.pending.len(), total: self.pending.total };
        match Instant::now().checked_add(limit) {
            Some(deadline) => self.pending.next(Some(deadline)).map(Some).ok_or(timeout),
            None => Ok(self.pending.next(None)), // further away than clocks go
        }
    }
}

impl<F: AsFuture> Iterator for AsCompleted<F> {
    type Item = F;

    fn next(&mut self) -> Option<F> {
        self.pending.next(None)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.pending.len(), Some(self.pending.len()))
    }
}

/// From [`AsCompleted::timeout`]: yields `Err` once when the limit passes, after all that are done. It can
/// be advanced further: what is done later is then yielded without waiting.
#[derive(Debug)]
#[must_use = "futures are yielded as the iterator is advanced"]
pub struct AsCompletedTimeout<F: AsFuture> {
    pending: Pending<F>,
    deadline: Option<Instant>,
}

impl<F: AsFuture> AsCompletedTimeout<F> {
    /// How many futures are still to come.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.pending.len()
    }
}

impl<F: AsFuture> Iterator for AsCompletedTimeout<F> {
    type Item = Result<F, Timeout>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.pending.is_empty() {
            return None;
        }
        let timeout = Timeout { unfinished: self.pending.len(), total: self.pending.total };
        Some(self.pending.next(self.deadline).ok_or(timeout))
    }
}

/// Futures that are waited for, and the queue that they report to.
struct Pending<F: AsFuture> {
    futures: Slots<F>,
    known: Known,
    /// Those that were done before they could be watched.
    done: VecDeque<usize>,
    arrivals: Arc<Arrivals>,
    total: usize,
}

impl<F: AsFuture> Pending<F> {
    fn of(futures: impl IntoIterator<Item = F>) -> Self {
        let mut pending = Pending {
            futures: Slots::default(),
            known: Known::Ascending(None),
            done: VecDeque::new(),
            arrivals: Arrivals::new(),
            total: 0,
        };
        for future in futures {
            pending.take_in(future);
        }
        // Only when all are there: many are done by then, and cost no more than a look.
        for index in 0..pending.total {
            pending.watch(index);
        }
        pending
    }

    fn add(&mut self, future: F) {
        if self.take_in(future) {
            self.watch(self.total - 1);
        }
    }

    /// Returns whether it was not there.
    fn take_in(&mut self, future: F) -> bool {
        let is_new = self.known.insert(future.as_future().id(), &self.futures);
        if is_new {
            self.futures.push(future);
            self.total += 1;
        }
        is_new
    }

    fn watch(&mut self, index: usize) {
        let future = self.futures.get(index).expect("it was just taken in");
        if !future.as_future().reader().watch(&self.arrivals, index) {
            self.done.push_back(index);
        }
    }

    fn len(&self) -> usize {
        self.futures.len()
    }

    fn is_empty(&self) -> bool {
        self.futures.len() == 0
    }

    fn try_next(&mut self) -> Option<F> {
        self.done.pop_front().or_else(|| self.arrivals.try_next()).map(|index| self.take(index))
    }

    fn next(&mut self, deadline: Option<Instant>) -> Option<F> {
        if self.is_empty() {
            return None;
        }
        if let Some(future) = self.try_next() {
            return Some(future);
        }
        if deadline.is_none() && blocking::current_home().is_some() {
            self.run_in_place();
            if let Some(future) = self.try_next() {
                return Some(future);
            }
        }
        let waiting = match deadline {
            None if self.futures.len() <= waits::MANY => {
                waits::enter(|| Awaited::any(self.futures.values().map(|future| future.as_future().id())))
            }
            _ => Ok(None),
        };
        let _waiting = match waiting {
            Ok(waiting) => waiting,
            // One may have arrived meanwhile, after which another one need not be awaited.
            Err(stuck) => return Some(self.try_next().unwrap_or_else(|| panic!("{stuck}"))),
        };
        self.arrivals.next(deadline).map(|index| self.take(index))
    }

    /// On a worker of the futures' own pool: runs those that have not begun, until one has arrived.
    fn run_in_place(&self) {
        for future in self.futures.values() {
            if !self.arrivals.is_empty() {
                return;
            }
            future.as_future().reader().run_in_place();
        }
    }

    fn take(&mut self, index: usize) -> F {
        let future = self.futures.take(index).expect("each future arrives once");
        self.known.remove(future.as_future().id());
        future
    }

    /// The futures that have not arrived, in the order of the input.
    fn into_rest(mut self) -> Vec<F> {
        self.unregister();
        mem::take(&mut self.futures).slots.into_iter().flatten().collect()
    }

    fn unregister(&self) {
        for future in self.futures.values() {
            future.as_future().reader().unwatch(&self.arrivals);
        }
    }
}

/// Which futures are awaited.
enum Known {
    /// All came in the order of their submission, up to this one: a later one is new, and no table is needed.
    Ascending(Option<TaskId>),
    Listed(HashSet<TaskId, NumberHash>),
}

impl Known {
    /// Returns whether it was not there, among those that are awaited.
    fn insert<F: AsFuture>(&mut self, id: TaskId, awaited: &Slots<F>) -> bool {
        match self {
            Known::Ascending(last) if last.is_none_or(|last| last < id) => {
                *last = Some(id);
                true
            }
            Known::Ascending(_) => {
                let mut listed: HashSet<_, _> = awaited.values().map(|future| future.as_future().id()).collect();
                let is_new = listed.insert(id);
                *self = Known::Listed(listed);
                is_new
            }
            Known::Listed(listed) => listed.insert(id),
        }
    }

    fn remove(&mut self, id: TaskId) {
        if let Known::Listed(listed) = self {
            listed.remove(&id);
        }
    }
}

/// Futures by the order in which they came. What is taken from the front leaves no hole.
struct Slots<F> {
    slots: VecDeque<Option<F>>,
    /// The index of the first slot.
    first: usize,
    filled: usize,
}

impl<F> Default for Slots<F> {
    fn default() -> Self {
        Slots { slots: VecDeque::new(), first: 0, filled: 0 }
    }
}

impl<F> Slots<F> {
    fn len(&self) -> usize {
        self.filled
    }

    fn push(&mut self, future: F) {
        self.slots.push_back(Some(future));
        self.filled += 1;
    }

    fn get(&self, index: usize) -> Option<&F> {
        self.slots.get(index.checked_sub(self.first)?)?.as_ref()
    }

    fn take(&mut self, index: usize) -> Option<F> {
        let future = self.slots.get_mut(index.checked_sub(self.first)?)?.take()?;
        self.filled -= 1;
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.first += 1;
        }
        Some(future)
    }

    fn values(&self) -> impl Iterator<Item = &F> {
        self.slots.iter().flatten()
    }
}

impl<F: AsFuture> Drop for Pending<F> {
    fn drop(&mut self) {
        self.unregister();
    }
}

impl<F: AsFuture> std::fmt::Debug for Pending<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending").field("futures", &self.futures.len()).field("total", &self.total).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Task;
    use std::sync::Weak;

    #[test]
    fn the_next_one_can_be_awaited_for_a_while() {
        let (tasks, futures): (Vec<_>, Vec<_>) = (0..2).map(|x| Task::local(move || x)).unzip();
        let mut each = as_completed(&futures);
        assert_eq!(each.next_timeout(Duration::ZERO), Err(Timeout { unfinished: 2, total: 2 }));
        for (task, left) in tasks.into_iter().zip([1, 0]) {
            task.run();
            assert!(each.next_timeout(Duration::MAX).unwrap().is_some_and(Future::done));
            assert_eq!((each.pending().count(), each.remaining()), (left, left));
        }
        assert_eq!(each.next_timeout(Duration::ZERO), Ok(None), "there is nothing to wait for");
    }

    /// WAIT-02, ASC-02: in whatever order they come. One that is done may come again.
    #[test]
    fn a_future_that_is_awaited_is_not_added_again() {
        for order in [&[0, 1, 2, 1][..], &[2, 0, 2, 1, 0], &[1, 1, 0, 2]] {
            let (tasks, futures): (Vec<_>, Vec<_>) = (0..3).map(|x| Task::local(move || x)).unzip();
            let mut each = as_completed(order.iter().map(|index| &futures[*index]));
            assert_eq!(each.remaining(), 3, "{order:?}");
            for (task, future) in tasks.into_iter().zip(&futures) {
                task.run();
                assert_eq!(each.next(), Some(future), "{order:?}");
            }
            for again in [&futures[1], &futures[1], &futures[0]] {
                each.add(again);
            }
            assert!(each.eq([&futures[1], &futures[0]]), "{order:?}");
        }
    }

    /// WAIT-12, ASC-08, ASC-09: whatever ends a wait, its futures forget it.
    #[test]
    fn a_wait_leaves_nothing_behind() {
        let (tasks, futures): (Vec<_>, Vec<_>) = (0..3).map(|x| Task::local(move || x)).unzip();
        for gives_up in [true, false] {
            let mut pending = Pending::of(&futures);
            let watched = Arc::downgrade(&pending.arrivals);
            if gives_up {
                assert!(pending.next(Some(Instant::now())).is_none());
                assert_eq!(pending.into_rest().len(), 3);
            } else {
                drop(pending);
            }
            assert_eq!(Weak::strong_count(&watched), 0, "after {}", if gives_up { "a limit" } else { "a drop" });
        }
        let mut each = as_completed(&futures);
        let watched = Arc::downgrade(&each.pending.arrivals);
        for task in tasks {
            task.run();
            assert!(each.next().is_some_and(Future::done));
        }
        assert_eq!(each.pending.futures.len(), 0);
        assert_eq!(Weak::strong_count(&watched), 1, "only the iterator");
    }
}
