//! One future for a call on many items: all of them are submitted at once, in chunks, and the last chunk that comes to its end
//! ends the future.
//!
//! A chunk's value can be moved out only after its publication, so a chunk tells of its end as an async task is told, by a
//! waker, and not by a callback. Whoever ends the last chunk puts the values together, where its callbacks would run.

use std::{
    mem,
    num::NonZeroUsize,
    panic::Location,
    sync::{Arc, Weak},
    task::{Wake, Waker},
    time::Duration,
};

use crate::{
    error::{Failure, TaskError},
    executor::Executor,
    function::{Function, Plain, Spread},
    future::Future,
    outcomes::Outcomes,
    panic::{catch, drop_quietly},
    sync::Mutex,
    task::Task,
    value::Value,
    work::{Batch, Many},
};

/// Submits `function` on every item, `chunk_size` of them as one call, and gives one future for all: the values in the order of
/// the items, or the first failure in that order, when every item has been called. Waits for room where the executor has none.
///
/// Cancelled before its end, it cancels the chunks that have not begun, and asks the others to stop.
#[track_caller]
pub fn map_all<A: Value, R: Value>(
    executor: &impl Executor,
    function: fn(A) -> R,
    items: Vec<A>,
    chunk_size: NonZeroUsize,
) -> Future<Vec<R>> {
    submit_all(executor, Plain(function), items, chunk_size, Location::caller())
}

/// As [`map_all`], for a function of two arguments.
#[track_caller]
pub fn starmap_all<A: Value, B: Value, R: Value>(
    executor: &impl Executor,
    function: fn(A, B) -> R,
    items: Vec<(A, B)>,
    chunk_size: NonZeroUsize,
) -> Future<Vec<R>> {
    submit_all(executor, Spread(function), items, chunk_size, Location::caller())
}

fn submit_all<A: Value, F: Function<A, Output: Value>>(
    executor: &impl Executor,
    function: F,
    items: Vec<A>,
    chunk_size: NonZeroUsize,
    site: &'static Location<'static>,
) -> Future<Vec<F::Output>> {
    let place = Arc::new(Mutex::new(None));
    let values = Arc::clone(&place);
    let take = move || values.lock().take().expect("the values are in their place before the task is run");
    let (task, whole) = Task::local_at(take, site);
    let chunks = items.len().div_ceil(chunk_size.get());
    let gathered = Gathered { chunks: (0..chunks).map(|_| Chunk::Coming).collect(), left: chunks, task: Some(task) };
    let gather = Arc::new(Gather { gathered: Mutex::new(gathered), place });
    let cancelled = Arc::downgrade(&gather);
    whole.add_done_callback(move |whole| {
        if whole.cancelled() {
            Gather::cancel(&cancelled);
        }
    });
    if chunks == 0 {
        gather.finish();
    }
    let mut items = items.into_iter();
    for index in 0..chunks {
        let items = items.by_ref().take(chunk_size.get()).collect();
        let (task, chunk) = Task::new(Many { function: function.clone(), items }, site);
        if let Err(rejected) = executor.try_execute(task, Duration::MAX) {
            let failure = rejected.failure().clone();
            drop(rejected.into_value().fail(failure));
        }
        gather.expect(index, chunk);
    }
    whole
}

struct Gather<R> {
    gathered: Mutex<Gathered<R>>,
    /// Where the task finds its value.
    place: Arc<Mutex<Option<Vec<R>>>>,
}

struct Gathered<R> {
    chunks: Vec<Chunk<R>>,
    /// How many have not come to their end.
    left: usize,
    /// The duty to end the whole.
    task: Option<Task>,
}

enum Chunk<R> {
    /// Not submitted, or just being looked at.
    Coming,
    Awaited(Future<Batch<R>>),
    /// Just being cancelled, by which it may arrive.
    Cancelling {
        has_arrived: bool,
    },
    Ended(Result<Outcomes<R>, TaskError>),
}

/// Told when a chunk has come to its end.
struct ChunkWaker<R> {
    gather: Arc<Gather<R>>,
    index: usize,
}

impl<R: Send + 'static> Wake for ChunkWaker<R> {
    fn wake(self: Arc<Self>) {
        self.gather.arrive(self.index);
    }
}

impl<R: Send + 'static> Gather<R> {
    fn expect(self: &Arc<Self>, index: usize, chunk: Future<Batch<R>>) {
        let waker = Waker::from(Arc::new(ChunkWaker { gather: Arc::clone(self), index }));
        let mut gathered = self.gathered.lock();
        // LOCK: this, then a cell's. Wakers are woken under no lock. Under this one, so that who is woken finds the chunk.
        let is_here = chunk.reader().set_waker(&waker);
        gathered.chunks[index] = Chunk::Awaited(chunk);
        drop(gathered);
        if is_here {
            self.arrive(index);
        }
    }

    fn arrive(&self, index: usize) {
        let mut gathered = self.gathered.lock();
        if let Chunk::Cancelling { has_arrived } = &mut gathered.chunks[index] {
            *has_arrived = true; // whoever cancels it looks again
            return;
        }
        let Chunk::Awaited(chunk) = mem::replace(&mut gathered.chunks[index], Chunk::Coming) else {
            unreachable!("a chunk ends once, and is expected before");
        };
        drop(gathered);
        // Decodes, which is user code. It is published, so there is nothing to wait for.
        let outcome = chunk.result().map(|batch| batch.outcomes);
        let mut gathered = self.gathered.lock();
        gathered.chunks[index] = Chunk::Ended(outcome);
        gathered.left -= 1;
        let is_last = gathered.left == 0;
        drop(gathered);
        if is_last {
            self.finish();
        }
    }

    /// Puts the whole together and ends it.
    fn finish(&self) {
        let mut gathered = self.gathered.lock();
        let chunks = mem::take(&mut gathered.chunks);
        let task = gathered.task.take();
        drop(gathered);
        let task = task.expect("the last chunk ends once");
        // Values are dropped where one has failed, and that is user code.
        match catch(|| all_values(chunks)).flatten() {
            Ok(values) => {
                *self.place.lock() = Some(values);
                task.run();
                // Nobody took them if the whole was cancelled.
                let left = self.place.lock().take();
                drop_quietly(left);
            }
            Err(failure) => drop(task.fail(failure)),
        }
    }

    /// The whole was cancelled.
    fn cancel(gather: &Weak<Self>) {
        let Some(gather) = gather.upgrade() else { return };
        let chunks = gather.gathered.lock().chunks.len();
        // From the youngest to the oldest: a call that is asked to stop leaves its worker to the next one, which must not begin.
        for index in (0..chunks).rev() {
            let mut gathered = gather.gathered.lock();
            let chunk = match gathered.chunks.get_mut(index) {
                Some(chunk @ Chunk::Awaited(_)) => mem::replace(chunk, Chunk::Cancelling { has_arrived: false }),
                _ => continue,
            };
            drop(gathered);
            if let Chunk::Awaited(chunk) = &chunk {
                chunk.cancel(); // under no lock: its callbacks, and its waker, run here
            }
            let before = mem::replace(&mut gather.gathered.lock().chunks[index], chunk);
            if matches!(before, Chunk::Cancelling { has_arrived: true }) {
                gather.arrive(index);
            }
        }
    }
}

fn all_values<R>(chunks: Vec<Chunk<R>>) -> Result<Vec<R>, Failure> {
    let mut values = Vec::new();
    for chunk in chunks {
        let Chunk::Ended(outcome) = chunk else { unreachable!("all have ended") };
        for value in outcome.map_err(|error| error.failure().clone())? {
            values.push(value?);
        }
    }
    Ok(values)
}
