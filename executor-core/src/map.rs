//! The same call on many items: lazily, within a window, in chunks.
//!
//! ```text
//!  items ──pull──► chunk ──execute──► [ window of chunks in flight ] ──arrive──► results, one by one
//! ```
//!
//! Nothing happens before the first result is asked for. Then chunks are submitted until the window is
//! full; each further request takes a result and fills the window again. So an endless input works, and
//! memory is bounded in both directions.
//!
//! # How large a chunk is
//! A chunk costs a submission, so a chunk of one item is right for long calls and wrong for short ones.
//! Unless told, the map starts with single items and reads from each finished chunk how long an item
//! takes; the next chunks are to last `CHUNK_TIME`. Since a worker has at most `CHUNKS_PER_WORKER` of them, that also
//! bounds what is pulled ahead: a few milliseconds' worth of items. No chunk is larger than its worker's fair share of
//! what is left, as far as the input knows its length, so the end is not one long chunk on one worker.

use std::{
    cmp::Reverse,
    collections::{HashMap, VecDeque},
    error, fmt,
    iter::FusedIterator,
    num::NonZeroUsize,
    panic::Location,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    arrivals::Arrivals,
    error::{Failure, Rejected, TaskError, TaskId},
    function::Function,
    future::Future,
    outcomes::{self, Outcomes},
    task::Task,
    value::Value,
    waits::{self, Awaited},
    work::{Batch, Many},
};

/// How long a chunk should take, if the map may choose: well above what it costs to send one.
const CHUNK_TIME: Duration = Duration::from_millis(1);

/// How many items may be in flight at most, if the map may choose: pulled, and their results not yet taken. Only
/// items that take next to no time come near it: others are fewer to a chunk.
const WINDOW: usize = 1 << 16;

/// Chunks in flight for each worker: one that runs, one that waits, one that is being taken.
const CHUNKS_PER_WORKER: usize = 3;

/// The results of one call on many items. From [`Executor::map`](crate::Executor::map).
///
/// Yields a `Result` for each item: the results come in the order of the items, unless
/// [`unordered`](Self::unordered). A failed item is an `Err` at its place, and the others go on. The iterator
/// is lazy: nothing is submitted before it is advanced (or [started](Self::start)). Dropping it cancels
/// what has not begun, and asks what has to stop: a chunk ends after the item that is being called.
///
/// # Panics
/// A panic of the input iterator passes through the call that pulled the item.
///
/// # Examples
/// ```
/// use concurrent_futures::{Executor, ThreadPoolExecutor};
///
/// let pool = ThreadPoolExecutor::new(2)?;
/// let first: Vec<u64> = pool.map(|x| x * x, 0..).take(4).collect::<Result<_, _>>()?;   // no end is needed
/// assert_eq!(first, [0, 1, 4, 9]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a map is lazy: it does nothing until its results are taken"]
pub struct Map<'a, I: Iterator, R> {
    submit: Submit<'a, I::Item, R>,
    workers: usize,
    site: &'static Location<'static>,
    /// `None` once it is exhausted or closed.
    items: Option<I>,
    /// A chunk that was pulled, and for which the executor had no room.
    held: Option<Vec<I::Item>>,
    chunk_size: Option<NonZeroUsize>,
    buffer: Option<NonZeroUsize>,
    order: Order,
    limit: Option<Duration>,
    called: Instant,
    /// Until when `next_timeout` waits.
    patience: Option<Instant>,
    pace: Pace,
    in_flight: InFlight<R>,
    /// Items that were pulled and whose results were not yielded.
    outstanding: usize,
    /// With more than this outstanding there is no room for another chunk.
    refill_at: usize,
    current: Current<R>,
}

/// Where a map sends its chunks.
pub(crate) struct Target<'a> {
    pub(crate) execute: Execute<'a>,
    pub(crate) workers: NonZeroUsize,
    /// What was chosen for calls is meant for each item.
    pub(crate) single_calls: bool,
}

type Execute<'a> = Box<dyn Fn(Task, Duration) -> Result<(), Rejected<Task>> + 'a>;

/// Sends a chunk off, if there is room for it now, or within the limit. Gives it back otherwise.
type Submit<'a, A, R> = Box<dyn FnMut(Vec<A>, Duration) -> Result<Future<Batch<R>>, Vec<A>> + 'a>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Order {
    Input,
    Completion,
}

/// The time is over of one who waits for the next result.
struct Impatient;

/// The next result of a [`Map`] was not there in time. From [`Map::next_timeout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotYet {
    limit: Duration,
}

impl fmt::Display for NotYet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the next result was not there within {:?}", self.limit)
    }
}

impl error::Error for NotYet {}

/// The chunk whose results are being yielded.
enum Current<R> {
    Outcomes {
        outcomes: outcomes::IntoIter<R>,
        task: TaskId,
        attempts: u32,
    },
    /// The whole chunk failed: each of its items has this error.
    Failed(TaskError, usize),
}

struct Chunk<R> {
    future: Future<Batch<R>>,
    items: usize,
}

impl<'a, I: Iterator, R: Value> Map<'a, I, R>
where
    I::Item: Value,
{
    /// A map whose chunks go to `executor`.
    pub(crate) fn new<F>(target: Target<'a>, function: F, items: I, site: &'static Location<'static>) -> Self
    where
        F: Function<I::Item, Output = R>,
    {
        let submit = move |items, limit| {
            let (task, future) = Task::new(Many { function: function.clone(), items }, site);
            match (target.execute)(task, limit) {
                Ok(()) => Ok(future),
                Err(rejected) if rejected.is_queue_full() => {
                    let work = rejected.into_value().reclaim::<Many<F, I::Item>>();
                    Err(work.expect("a rejected task was not begun").items)
                }
                Err(rejected) => {
                    let failure = rejected.failure().clone();
                    drop(rejected.into_value().fail(failure));
                    Ok(future)
                }
            }
        };
        Map {
            submit: Box::new(submit),
            workers: target.workers.get(),
            site,
            items: Some(items),
            held: None,
            chunk_size: target.single_calls.then_some(NonZeroUsize::MIN),
            buffer: None,
            order: Order::Input,
            limit: None,
            called: Instant::now(),
            patience: None,
            pace: Pace::default(),
            in_flight: InFlight {
                ordered: VecDeque::new(),
                unordered: HashMap::new(),
                arrivals: Arrivals::new(),
                next: 0,
            },
            outstanding: 0,
            refill_at: usize::MAX,
            current: Current::nothing(),
        }
    }

    /// Submits `size` items at a time, instead of as many as seem right. The results are the same; what
    /// changes is the cost, and that a worker's death takes all items of the chunk that it ran with it.
    ///
    /// # Panics
    /// If `size` is zero.
    pub fn chunk_size(mut self, size: usize) -> Self {
        self.chunk_size = Some(NonZeroUsize::new(size).expect("a chunk must hold at least one item, not zero"));
        self
    }

    /// Pulls at most `items` items ahead, in whole chunks: at first that many, then one for each result that is
    /// taken. Results that nobody has taken count as well.
    ///
    /// # Panics
    /// If `items` is zero.
    pub fn buffer(mut self, items: usize) -> Self {
        self.buffer = Some(NonZeroUsize::new(items).expect("a buffer must hold at least one item, not zero"));
        self
    }

    /// Limits the whole map, counted from the call of [`map`](crate::Executor::map). When it passes, the next item is
    /// an error for which [`TaskError::is_map_timeout`] holds, the iterator ends, and what has not begun is cancelled.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Yields results as they are there, instead of in the order of the items.
    pub fn unordered(mut self) -> Self {
        self.order = Order::Completion;
        // What was started before moves over.
        for chunk in std::mem::take(&mut self.in_flight.ordered) {
            self.in_flight.push(chunk, Order::Completion);
        }
        self
    }

    /// How many results are still to come, if the input says how many items it has. Fewer come from a map that is cancelled or
    /// over its time.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{Executor, ThreadPoolExecutor};
    ///
    /// let pool = ThreadPoolExecutor::new(2)?;
    /// let mut map = pool.map(|x: u32| x * x, 0..10);
    /// map.next();
    /// assert_eq!(map.remaining(), Some(9));
    /// assert_eq!(pool.map(|x: u32| x * x, 0..).remaining(), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn remaining(&self) -> Option<usize> {
        let unseen = match self.items.as_ref().map(I::size_hint) {
            None => 0,
            Some((least, most)) => most.filter(|most| *most == least)?,
        };
        self.outstanding.checked_add(unseen)
    }

    /// Submits the first window of items now, rather than when the first result is asked for.
    pub fn start(mut self) -> Self {
        self.fill_window();
        self
    }

    fn fill_window(&mut self) {
        self.refill_at = self.pull_and_send();
    }

    /// Returns at how many outstanding items there may be room again, unless a chunk is taken before.
    fn pull_and_send(&mut self) -> usize {
        let chunks = match (self.buffer, self.chunk_size) {
            (Some(_), Some(_)) => usize::MAX, // both were chosen, and say it all
            _ => self.workers.saturating_mul(CHUNKS_PER_WORKER),
        };
        let window = match (self.buffer, self.chunk_size) {
            (Some(items), _) => items.get(),
            // A chunk size is a wish for whole chunks; the default window makes room for them.
            (None, Some(size)) => WINDOW.max(size.get().saturating_mul(self.workers + 1)),
            (None, None) => WINDOW,
        };
        while self.in_flight.len() < chunks {
            if let Some(chunk) = self.held.take() {
                if !self.send(chunk) {
                    return usize::MAX;
                }
                continue;
            }
            let Some(items) = &mut self.items else { return 0 };
            let size = match self.chunk_size {
                Some(size) => size.get(),
                None => {
                    let share = match items.size_hint() {
                        (_, Some(left)) => left.div_ceil(self.workers.saturating_mul(2)),
                        (_, None) => usize::MAX,
                    };
                    let of_window = window / self.workers.saturating_mul(CHUNKS_PER_WORKER);
                    self.pace.chunk().min(share).min(of_window).max(1)
                }
            }
            .min(window);
            // Whole chunks only: one made of the place that a single result left would undo the chunking.
            if self.outstanding + size > window {
                return window - size;
            }
            let chunk: Vec<_> = items.take(size).collect();
            let count = chunk.len();
            if count < size {
                self.items = None;
            }
            if count == 0 {
                return 0;
            }
            self.outstanding += count;
            if !self.send(chunk) {
                return usize::MAX;
            }
        }
        0
    }

    /// Submits a chunk, or holds it back. If nothing is in flight, there is nothing else to wait for than room.
    fn send(&mut self, chunk: Vec<I::Item>) -> bool {
        let limit = match self.deadline() {
            _ if self.in_flight.len() > 0 => Duration::ZERO,
            None => Duration::MAX,
            Some(at) => at.saturating_duration_since(Instant::now()),
        };
        let items = chunk.len();
        match (self.submit)(chunk, limit) {
            Ok(future) => {
                self.in_flight.push(Chunk { future, items }, self.order);
                true
            }
            Err(chunk) => {
                self.held = Some(chunk);
                false
            }
        }
    }

    /// Until when to wait for anything: the map's own deadline, or that of the one who waits.
    fn deadline(&self) -> Option<Instant> {
        match (self.own_deadline(), self.patience) {
            (Some(own), Some(patience)) => Some(own.min(patience)),
            (own, patience) => own.or(patience),
        }
    }

    fn own_deadline(&self) -> Option<Instant> {
        self.limit.and_then(|limit| self.called.checked_add(limit))
    }

    /// Gives the next result, waiting for it no longer than `limit`; `None` is the end of the map. A limit of zero only looks.
    ///
    /// The map is not affected by a wait that ends early: the result is still to come. (For a limit to the whole map there is
    /// [`timeout`](Self::timeout).)
    ///
    /// # Errors
    /// [`NotYet`] when the limit passes first.
    ///
    /// # Panics
    /// As the map itself, when the input does.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{Executor, ThreadPoolExecutor};
    /// use std::{thread::sleep, time::Duration};
    ///
    /// let pool = ThreadPoolExecutor::new(1)?;
    /// let mut map = pool.map(|ms| sleep(Duration::from_millis(ms)), [20]);
    /// assert!(map.next_timeout(Duration::ZERO).is_err());
    /// map.next_timeout(Duration::from_secs(60))?.unwrap()?;
    /// assert!(map.next_timeout(Duration::ZERO)?.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn next_timeout(&mut self, limit: Duration) -> Result<Option<Result<R, TaskError>>, NotYet> {
        self.patience = Instant::now().checked_add(limit);
        let next = self.advance();
        self.patience = None;
        next.map_err(|_| NotYet { limit })
    }

    /// Whether it is only the one who waits whose time is over, and not the map's.
    fn may_be_asked_again(&self) -> bool {
        self.patience.is_some() && self.own_deadline().is_none_or(|own| Instant::now() < own)
    }

    /// The next result, or `Err` when whoever waits for it has no more time.
    fn advance(&mut self) -> Result<Option<Result<R, TaskError>>, Impatient> {
        loop {
            let ready = self.current.next(self.site);
            if ready.is_some() {
                self.outstanding -= 1;
                if self.outstanding <= self.refill_at {
                    self.fill_window();
                }
                return Ok(ready);
            }
            self.fill_window();
            let chunk = match self.in_flight.next(self.order, self.deadline()) {
                Next::Chunk(chunk) => chunk,
                Next::Late(_) if self.may_be_asked_again() => return Err(Impatient),
                // There was no room for the next chunk before the deadline.
                Next::End if self.held.is_some() && self.may_be_asked_again() => return Err(Impatient),
                Next::End if self.held.is_some() => return Ok(Some(Err(self.late(TaskId(0))))),
                Next::End => return Ok(None),
                Next::Late(id) => return Ok(Some(Err(self.late(id)))),
                Next::Stuck(id, failure) => {
                    self.close();
                    return Ok(Some(Err(TaskError::new(failure, id, self.site))));
                }
            };
            self.refill_at = usize::MAX;
            let task = chunk.future.id();
            self.current = match chunk.future.result_and_attempts() {
                (Ok(batch), attempts) => {
                    self.pace.observe(batch.outcomes.len(), batch.elapsed);
                    Current::Outcomes { outcomes: batch.outcomes.into_iter(), task, attempts }
                }
                (Err(error), _) => Current::Failed(error, chunk.items),
            };
        }
    }

    /// Cancels the map as a whole: what has not begun is cancelled, what runs is [asked to stop](crate::current_task), and no
    /// further item is pulled. The results that are there are still yielded, and for each other item that was submitted an error
    /// for which [`TaskError::is_cancelled`] holds. (Dropping the map does the same, where nobody wants to know.)
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{Executor, ThreadPoolExecutor};
    /// use std::{thread::sleep, time::Duration};
    ///
    /// let pool = ThreadPoolExecutor::new(1)?;
    /// let mut map = pool.map(|ms| sleep(Duration::from_millis(ms)), [0, 50, 60_000, 60_000]).chunk_size(1).start();
    /// assert!(map.next().unwrap().is_ok());
    /// map.cancel();
    /// assert!(map.last().unwrap().unwrap_err().is_cancelled());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cancel(&mut self) {
        self.items = None;
        self.held = None;
        self.in_flight.cancel();
    }

    /// Ends the map, whose limit has passed.
    fn late(&mut self, awaited: TaskId) -> TaskError {
        self.close();
        let limit = self.limit.unwrap_or_default();
        TaskError::new(Failure::MapTimeout { limit }, awaited, self.site)
    }

    /// Cancels what has not begun, and ends the iterator.
    fn close(&mut self) {
        self.items = None;
        self.held = None;
        self.in_flight.abandon();
        self.current = Current::nothing();
    }
}

impl<I: Iterator, R: Value> Iterator for Map<'_, I, R>
where
    I::Item: Value,
{
    type Item = Result<R, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.patience = None; // the input may have panicked in a `next_timeout`
        match self.advance() {
            Ok(next) => next,
            Err(Impatient) => unreachable!("only `next_timeout` has a limit of its own"),
        }
    }
}

impl<I: Iterator, R: Value> FusedIterator for Map<'_, I, R> where I::Item: Value {}

impl<I: Iterator, R> Drop for Map<'_, I, R> {
    fn drop(&mut self) {
        self.in_flight.abandon();
    }
}

impl<I: Iterator, R> fmt::Debug for Map<'_, I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map")
            .field("submitted_at", &format_args!("{}", self.site))
            .field("outstanding", &self.outstanding)
            .field("order", &self.order)
            .finish_non_exhaustive()
    }
}

impl<R> Current<R> {
    fn nothing() -> Self {
        Current::Outcomes { outcomes: Outcomes::from(Vec::new()).into_iter(), task: TaskId(0), attempts: 0 }
    }

    fn next(&mut self, site: &'static Location<'static>) -> Option<Result<R, TaskError>> {
        match self {
            Current::Outcomes { outcomes, task, attempts } => outcomes
                .next()
                .map(|outcome| outcome.map_err(|failure| TaskError::after(*attempts, failure, *task, site))),
            Current::Failed(error, items) => {
                *items = items.checked_sub(1)?;
                Some(Err(error.clone()))
            }
        }
    }
}

/// The chunks that were submitted and not yet taken.
struct InFlight<R> {
    ordered: VecDeque<Chunk<R>>,
    unordered: HashMap<usize, Chunk<R>>,
    arrivals: Arc<Arrivals>,
    next: usize,
}

enum Next<R> {
    Chunk(Chunk<R>),
    /// The deadline passed while this task was awaited.
    Late(TaskId),
    /// Waiting for this task, or any other, would last for ever.
    Stuck(TaskId, Failure),
    End,
}

impl<R> InFlight<R> {
    fn len(&self) -> usize {
        self.ordered.len() + self.unordered.len()
    }

    fn push(&mut self, chunk: Chunk<R>, order: Order) {
        match order {
            Order::Input => self.ordered.push_back(chunk),
            Order::Completion => {
                if !chunk.future.reader().watch(&self.arrivals, self.next) {
                    self.arrivals.push(self.next);
                }
                self.unordered.insert(self.next, chunk);
                self.next += 1;
            }
        }
    }

    fn next(&mut self, order: Order, deadline: Option<Instant>) -> Next<R> {
        match order {
            Order::Input => {
                let Some(chunk) = self.ordered.front() else { return Next::End };
                if let Some(deadline) = deadline
                    && !chunk.future.wait_timeout(deadline.saturating_duration_since(Instant::now()))
                {
                    return Next::Late(chunk.future.id());
                }
                self.ordered.pop_front().map_or(Next::End, Next::Chunk)
            }
            Order::Completion => {
                let Some(oldest) = self.unordered.keys().min() else { return Next::End };
                let oldest = &self.unordered[oldest].future;
                let in_place = || {
                    oldest.reader().run_in_place();
                    self.arrivals.try_next()
                };
                let there = self.arrivals.try_next();
                let arrived = match there.or_else(|| if deadline.is_none() { in_place() } else { None }) {
                    Some(index) => Some(index),
                    None => {
                        let awaited = || Awaited::any(self.unordered.values().map(|chunk| chunk.future.id()));
                        let waiting = match deadline {
                            None if self.unordered.len() <= waits::MANY => waits::enter(awaited),
                            _ => Ok(None), // it ends anyway
                        };
                        match waiting {
                            Ok(_waiting) => self.arrivals.next(deadline),
                            Err(stuck) => match self.arrivals.try_next() {
                                Some(index) => Some(index),
                                None => return Next::Stuck(oldest.id(), stuck),
                            },
                        }
                    }
                };
                match arrived {
                    Some(index) => self.unordered.remove(&index).map_or(Next::End, Next::Chunk),
                    None => Next::Late(oldest.id()),
                }
            }
        }
    }

    /// From the youngest to the oldest: a call that is asked to stop leaves its worker to the next one, which must not begin.
    fn cancel(&self) {
        let mut unordered: Vec<_> = self.unordered.iter().collect();
        unordered.sort_unstable_by_key(|(index, _)| Reverse(**index));
        for chunk in unordered.into_iter().map(|(_, chunk)| chunk).chain(self.ordered.iter().rev()) {
            chunk.future.cancel();
        }
    }

    fn abandon(&mut self) {
        self.cancel();
        self.ordered.clear();
        self.unordered.clear();
    }
}

/// How long items take, as far as seen.
#[derive(Debug, Default)]
struct Pace {
    /// Seconds an item; an average in which the latest chunk counts most.
    seconds: Option<f64>,
    largest: usize,
}

impl Pace {
    /// A chunk may grow to this many times the largest one that has been seen to finish.
    const GROWTH: usize = 8;

    fn observe(&mut self, items: usize, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64() / items.max(1) as f64;
        self.seconds = Some(self.seconds.map_or(seconds, |before| (before + 3.0 * seconds) / 4.0));
        self.largest = self.largest.max(items);
    }

    fn chunk(&self) -> usize {
        let Some(seconds) = self.seconds else { return 1 };
        let fits = CHUNK_TIME.as_secs_f64() / seconds.max(1e-9);
        (fits as usize).clamp(1, self.largest.saturating_mul(Self::GROWTH))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_grow_for_short_items_and_stay_single_for_long_ones() {
        let mut short = Pace::default();
        assert_eq!(short.chunk(), 1);
        short.observe(1, Duration::from_nanos(100));
        assert_eq!(short.chunk(), Pace::GROWTH);
        short.observe(2000, Duration::from_micros(200));
        assert!((8_000..12_000).contains(&short.chunk()), "{}", short.chunk());

        let mut long = Pace::default();
        long.observe(1, Duration::from_millis(3));
        assert_eq!(long.chunk(), 1);
    }
}
