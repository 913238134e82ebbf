//! `multiprocessing.Pool`'s names, over any executor.

use executor_core::{
    AsyncResult, BuildError, Executor, Failure, Map, Rejected, SharedValue, Shutdown, ShutdownReport, Task, TaskError,
    Value, gather,
};
#[cfg(feature = "process")]
use executor_process::{ProcessPoolExecutor, ProcessPoolExecutorBuilder};
use executor_thread::{ThreadPoolExecutor, ThreadPoolExecutorBuilder};
use std::{
    fmt,
    num::NonZeroUsize,
    ops::Deref,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

/// What a pool has unless told: worker processes, as the original; threads in a program that has nothing else.
#[cfg(feature = "process")]
type Usual = ProcessPoolExecutor;
#[cfg(feature = "process")]
type UsualBuilder = ProcessPoolExecutorBuilder;
#[cfg(not(feature = "process"))]
type Usual = ThreadPoolExecutor;
#[cfg(not(feature = "process"))]
type UsualBuilder = ThreadPoolExecutorBuilder;

/// Python's `multiprocessing.Pool`, over any executor.
///
/// `Pool::new(4)?` has worker processes, as Python's has. [`ThreadPool`] has threads, and `Pool::from(executor)` whatever that
/// executor has: it then owns the executor, and ends it.
///
/// # Dropping it terminates it
/// As leaving Python's `with Pool() as pool:` does, and **unlike an [`Executor`]**, which waits when it is dropped: what has not begun is
/// cancelled, and what runs is stopped. Worker processes end soon, and that is waited for, so that what they have written is not lost;
/// nobody waits for threads. A program that ends drops its pools. To have everything done, [`join`](Self::join) the pool, or use
/// [`scope`](Self::scope), which does.
///
/// # Functions and arguments
/// As everywhere: `fn` items, and closures that capture nothing; several arguments are a tuple, for which `starmap` takes a
/// function of two.
///
/// # Examples
/// ```
/// use concurrent_futures::Pool;
///
/// fn cube(x: u64) -> u64 {
///     x.pow(3)
/// }
///
/// let pool = Pool::new(4)?;
/// assert_eq!(pool.apply(cube, 3)?, 27);
/// let result = pool.apply_async(cube, 4);
/// assert_eq!(pool.map(cube, 1..=3)?, [1, 8, 27]);
/// assert_eq!(result.get()?, 64);
/// for cube in pool.imap_unordered(cube, 1..=3) {
///     println!("{}", cube?); // each as soon as it is there
/// }
/// pool.close();
/// pool.join();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Pool<E: Executor = Usual> {
    executor: E,
    closed: AtomicBool,
}

#[cfg(feature = "process")]
impl Pool {
    /// A pool of so many worker processes, which start as they are needed.
    ///
    /// # Errors
    /// As [`ProcessPoolExecutor::new`].
    pub fn new(processes: usize) -> Result<Self, BuildError> {
        Self::builder().processes(processes).build()
    }

    /// For choosing more than the number of processes.
    pub fn builder() -> PoolBuilder {
        PoolBuilder(ProcessPoolExecutor::builder())
    }
}

/// The pool owns `executor`, and ends it when it is terminated, joined or dropped: also one that others use too, through an
/// `Arc` or a reference.
///
/// # Examples
/// ```
/// use concurrent_futures::{Executor, Pool, TaskOptions, With, ThreadPoolExecutor};
/// use std::time::Duration;
///
/// let executor: Box<dyn Executor> = Box::new(ThreadPoolExecutor::new(2)?);
/// let limited = With::new(executor, TaskOptions::new().time_limit(Duration::from_secs(60)));
/// let pool = Pool::from(limited);
/// assert_eq!(pool.apply(|x: u32| x + 1, 1)?, 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl<E: Executor> From<E> for Pool<E> {
    fn from(executor: E) -> Self {
        Pool { executor, closed: AtomicBool::new(false) }
    }
}

/// Does something with the executor, or, if the pool is closed, with one that refuses.
macro_rules! with_executor {
    ($pool:expr, $executor:ident => $call:expr) => {
        // ORDERING: Acquire; see `close`.
        if $pool.closed.load(Ordering::Acquire) {
            let $executor = &Closed;
            $call
        } else {
            let $executor = &$pool.executor;
            $call
        }
    };
}

impl<E: Executor> Pool<E> {
    /// Makes the call `function(args)` in a worker, waits for it, and gives its value.
    ///
    /// # Errors
    /// [`TaskError`] for every ending but a value; [`TaskError::is_shutdown`] when the pool is closed.
    #[track_caller]
    pub fn apply<A: Value, R: Value>(&self, function: fn(A) -> R, args: A) -> Result<R, TaskError> {
        self.apply_async(function, args).get()
    }

    /// Submits the call `function(args)`. What Python takes as `callback=` and `error_callback=` is said to the
    /// [result](AsyncResult::callback).
    ///
    /// Whatever is wrong is the outcome of the result; [`TaskError::is_shutdown`] when the pool is closed.
    #[track_caller]
    pub fn apply_async<A: Value, R: Value>(&self, function: fn(A) -> R, args: A) -> AsyncResult<R> {
        with_executor!(self, executor => executor.submit(function, args)).into()
    }

    /// Calls `function` on every item, waits for all of them, and gives the values in the order of the items.
    ///
    /// Items are pulled as there is room for them, and a chunk fits itself to how long they take, unless a
    /// [size](Self::chunk_size) is chosen. Every item is called, whatever becomes of the others.
    ///
    /// # Errors
    /// The first failure, in the order of the items. (To keep the others' values, or to stop at it, take [`imap`](Self::imap).)
    ///
    /// # Panics
    /// When the input does: what has not begun is then cancelled.
    #[track_caller]
    pub fn map<A: Value, R: Value>(
        &self,
        function: fn(A) -> R,
        items: impl IntoIterator<Item = A>,
    ) -> Result<Vec<R>, TaskError> {
        with_executor!(self, executor => whole(executor.map(function, items), None))
    }

    /// As [`map`](Self::map), without waiting: one result for all. The input is taken whole, and submitted at once, in four chunks a
    /// worker unless a [size](Self::chunk_size) is chosen.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ThreadPool;
    ///
    /// let pool = ThreadPool::new(2)?;
    /// let cubes = pool.map_async(|x: u64| x.pow(3), 1..=3);
    /// let squares = pool.map_async(|x: u64| x.pow(2), 1..=3);
    /// pool.close();
    /// pool.join();
    /// assert_eq!((cubes.get()?, squares.get()?), (vec![1, 8, 27], vec![1, 4, 9]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn map_async<A: Value, R: Value>(
        &self,
        function: fn(A) -> R,
        items: impl IntoIterator<Item = A>,
    ) -> AsyncResult<Vec<R>> {
        let items: Vec<A> = items.into_iter().collect();
        let size = self.default_chunk(items.len());
        with_executor!(self, executor => gather::map_all(executor, function, items, size)).into()
    }

    /// As [`map`](Self::map), with a function of two arguments, on pairs.
    ///
    /// (With more of them: `map`, and a closure that takes the tuple apart.)
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// As there.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ThreadPool;
    ///
    /// let pool = ThreadPool::new(2)?;
    /// assert_eq!(pool.starmap(u64::pow, [(2, 5), (3, 2)])?, [32, 9]);
    /// assert_eq!(pool.map(|(a, b, c): (u64, u64, u64)| a * b + c, [(2, 3, 4)])?, [10]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn starmap<A: Value, B: Value, R: Value>(
        &self,
        function: fn(A, B) -> R,
        items: impl IntoIterator<Item = (A, B)>,
    ) -> Result<Vec<R>, TaskError> {
        with_executor!(self, executor => whole(executor.starmap(function, items), None))
    }

    /// As [`map_async`](Self::map_async), with a function of two arguments, on pairs.
    #[track_caller]
    pub fn starmap_async<A: Value, B: Value, R: Value>(
        &self,
        function: fn(A, B) -> R,
        items: impl IntoIterator<Item = (A, B)>,
    ) -> AsyncResult<Vec<R>> {
        let items: Vec<(A, B)> = items.into_iter().collect();
        let size = self.default_chunk(items.len());
        with_executor!(self, executor => gather::starmap_all(executor, function, items, size)).into()
    }

    /// An iterator over the results of `function` on every item, in the order of the items: a [`Map`], with chunks of one item
    /// unless [told](Map::chunk_size).
    ///
    /// A failed item is an `Err` at its place, and the others go on. Nothing is submitted before the first result is asked for,
    /// or the map is [started](Map::start); then no more is pulled ahead than there is room for. [`Map::next_timeout`] waits for
    /// a limited time.
    ///
    /// It borrows the pool, which so cannot be joined before the results are taken. It may be [closed](Self::close).
    #[track_caller]
    pub fn imap<A: Value, R: Value, I: IntoIterator<Item = A>>(
        &self,
        function: fn(A) -> R,
        items: I,
    ) -> Map<'_, I::IntoIter, R> {
        with_executor!(self, executor => executor.map(function, items)).chunk_size(1)
    }

    /// As [`imap`](Self::imap), with results as they are there, instead of in the order of the items.
    #[track_caller]
    pub fn imap_unordered<A: Value, R: Value, I: IntoIterator<Item = A>>(
        &self,
        function: fn(A) -> R,
        items: I,
    ) -> Map<'_, I::IntoIter, R> {
        self.imap(function, items).unordered()
    }

    /// The pool, with so many items to a chunk in `map` and its kin. Python's `chunksize=`.
    ///
    /// The results are the same; what changes is the cost, and that a worker's death takes all items of its chunk with it.
    ///
    /// # Panics
    /// If `size` is zero.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ThreadPool;
    ///
    /// let pool = ThreadPool::new(2)?;
    /// assert_eq!(pool.chunk_size(2).map(|x: u64| x + 1, 0..5)?, [1, 2, 3, 4, 5]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn chunk_size(&self, size: usize) -> Chunked<'_, E> {
        let size = NonZeroUsize::new(size).expect("a chunk must hold at least one item, not zero");
        Chunked { pool: self, size }
    }

    /// Takes no more calls: what is submitted from now on fails with [`TaskError::is_shutdown`]. What was submitted is done, and
    /// what [`imap`](Self::imap) has given goes on to its end.
    pub fn close(&self) {
        // ORDERING: Release, with the Acquire of each call: who learns of the closing finds the pool closed.
        self.closed.store(true, Ordering::Release);
    }

    /// Ends the pool at once: what has not begun is cancelled, and what runs is stopped. Does not wait for that, which
    /// [`join`](Self::join) does. May be called from any thread, while others wait for results.
    ///
    /// Every result comes to its end: calls in worker processes fail with [`TaskError::is_killed`]; those on threads are
    /// [asked to stop](crate::current_task), and end when they do.
    pub fn terminate(&self) -> ShutdownReport {
        self.close();
        self.executor.shutdown(Shutdown::no_wait().cancel_pending().stop_running())
    }

    /// Waits until everything that was submitted is done, or after [`terminate`](Self::terminate) stopped, and the workers have ended.
    ///
    /// It takes the pool, so nobody can submit any more: there is no need to [`close`](Self::close) it first, and no way to join
    /// it twice.
    pub fn join(self) -> ShutdownReport {
        self.executor.shutdown(Shutdown::wait())
    }

    /// Calls `body` with the pool, and [joins](Self::join) the pool when that returns. If it panics, the pool is terminated.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ThreadPool;
    ///
    /// let results = ThreadPool::new(2)?.scope(|pool| [1, 2, 3].map(|x: u32| pool.apply_async(|x| x * x, x)));
    /// assert!(results.iter().all(|result| result.successful() == Some(true)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn scope<T>(self, body: impl FnOnce(&Self) -> T) -> T {
        let value = body(&self);
        self.join();
        value
    }

    /// What makes the calls, for what a `Pool` has no name for.
    pub fn executor(&self) -> &E {
        &self.executor
    }

    /// As many items as make four chunks for each worker.
    fn default_chunk(&self, items: usize) -> NonZeroUsize {
        let chunks = self.executor.max_workers().saturating_mul(const { NonZeroUsize::new(4).unwrap() });
        NonZeroUsize::new(items.div_ceil(chunks.get())).unwrap_or(NonZeroUsize::MIN)
    }
}

/// Every value, or the first failure when all have come to their end.
fn whole<I: Iterator<Item: Value>, R: Value>(
    mut map: Map<'_, I, R>,
    chunk_size: Option<NonZeroUsize>,
) -> Result<Vec<R>, TaskError> {
    if let Some(size) = chunk_size {
        map = map.chunk_size(size.get());
    }
    let mut values = Vec::new();
    let mut failed = None;
    for outcome in map {
        match outcome {
            Ok(value) if failed.is_none() => values.push(value),
            Ok(_) => {}
            Err(error) => _ = failed.get_or_insert(error),
        }
    }
    failed.map_or(Ok(values), Err)
}

/// Terminates it.
impl<E: Executor> Drop for Pool<E> {
    fn drop(&mut self) {
        self.terminate();
    }
}

impl<E: Executor + fmt::Debug> fmt::Debug for Pool<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Pool");
        shown.field("executor", &self.executor).field("closed", &self.closed).finish()
    }
}

/// A [`Pool`], with a size of the chunks. From [`Pool::chunk_size`].
pub struct Chunked<'a, E: Executor> {
    pool: &'a Pool<E>,
    size: NonZeroUsize,
}

impl<E: Executor> Chunked<'_, E> {
    /// [`Pool::map`], in chunks of this size.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// As there.
    #[track_caller]
    pub fn map<A: Value, R: Value>(
        &self,
        function: fn(A) -> R,
        items: impl IntoIterator<Item = A>,
    ) -> Result<Vec<R>, TaskError> {
        with_executor!(self.pool, executor => whole(executor.map(function, items), Some(self.size)))
    }

    /// [`Pool::map_async`], in chunks of this size.
    #[track_caller]
    pub fn map_async<A: Value, R: Value>(
        &self,
        function: fn(A) -> R,
        items: impl IntoIterator<Item = A>,
    ) -> AsyncResult<Vec<R>> {
        let items = items.into_iter().collect();
        with_executor!(self.pool, executor => gather::map_all(executor, function, items, self.size)).into()
    }

    /// [`Pool::starmap`], in chunks of this size.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// As there.
    #[track_caller]
    pub fn starmap<A: Value, B: Value, R: Value>(
        &self,
        function: fn(A, B) -> R,
        items: impl IntoIterator<Item = (A, B)>,
    ) -> Result<Vec<R>, TaskError> {
        with_executor!(self.pool, executor => whole(executor.starmap(function, items), Some(self.size)))
    }

    /// [`Pool::starmap_async`], in chunks of this size.
    #[track_caller]
    pub fn starmap_async<A: Value, B: Value, R: Value>(
        &self,
        function: fn(A, B) -> R,
        items: impl IntoIterator<Item = (A, B)>,
    ) -> AsyncResult<Vec<R>> {
        let items = items.into_iter().collect();
        with_executor!(self.pool, executor => gather::starmap_all(executor, function, items, self.size)).into()
    }
}

impl<E: Executor> fmt::Debug for Chunked<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunked").field("size", &self.size).finish_non_exhaustive()
    }
}

/// Python's `multiprocessing.pool.ThreadPool`: a [`Pool`] of threads, to which it dereferences.
///
/// Its workers share this process's memory, so arguments and results are moved and not encoded, and a call that crashes takes
/// the program with it.
///
/// # Examples
/// ```
/// use concurrent_futures::ThreadPool;
///
/// let pool = ThreadPool::new(4)?;
/// assert_eq!(pool.map(|x: u64| x.pow(3), 1..=3)?, [1, 8, 27]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ThreadPool(Pool<ThreadPoolExecutor>);

impl ThreadPool {
    /// A pool of so many threads, which start as they are needed.
    ///
    /// # Errors
    /// As [`ThreadPoolExecutor::new`].
    pub fn new(threads: usize) -> Result<Self, BuildError> {
        Self::builder().processes(threads).build()
    }

    /// For choosing more than the number of threads.
    pub fn builder() -> PoolBuilder<ThreadPoolExecutorBuilder> {
        PoolBuilder(ThreadPoolExecutor::builder())
    }

    /// [`Pool::join`].
    pub fn join(self) -> ShutdownReport {
        self.0.join()
    }

    /// [`Pool::scope`].
    pub fn scope<T>(self, body: impl FnOnce(&Self) -> T) -> T {
        let value = body(&self);
        self.join();
        value
    }
}

impl Deref for ThreadPool {
    type Target = Pool<ThreadPoolExecutor>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl From<ThreadPool> for Pool<ThreadPoolExecutor> {
    fn from(pool: ThreadPool) -> Self {
        pool.0
    }
}

/// Chooses what [`Pool::new`] and [`ThreadPool::new`] leave to defaults, by Python's names. What has no name there is said to the
/// executor's own builder, of which this can be made.
///
/// # Examples
/// ```
/// use concurrent_futures::{Pool, PoolBuilder, ProcessPoolExecutor};
///
/// let builder: PoolBuilder = ProcessPoolExecutor::builder().env("LEVEL", "7").into();
/// let pool = builder.processes(2).initializer(|name: String| println!("hello {name}"), "you".into()).max_tasks_per_child(10).build()?;
/// assert_eq!(pool.apply(|()| std::env::var("LEVEL").ok(), ())?.as_deref(), Some("7"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "`build` makes the pool"]
pub struct PoolBuilder<B = UsualBuilder>(B);

impl<B> From<B> for PoolBuilder<B> {
    fn from(builder: B) -> Self {
        PoolBuilder(builder)
    }
}

#[cfg(feature = "process")]
impl PoolBuilder {
    /// How many worker processes there are. Without it, as many as this process has processors to use.
    pub fn processes(self, processes: usize) -> Self {
        PoolBuilder(self.0.max_workers(processes))
    }

    /// [`ProcessPoolExecutorBuilder::initializer`].
    #[track_caller]
    pub fn initializer<A: SharedValue + Clone>(self, function: fn(A), args: A) -> Self {
        PoolBuilder(self.0.initializer(function, args))
    }

    /// [`ProcessPoolExecutorBuilder::max_tasks_per_child`]: Python's `maxtasksperchild`. A chunk is one task, as there.
    ///
    /// # Panics
    /// If `calls` is zero.
    pub fn max_tasks_per_child(self, calls: u64) -> Self {
        PoolBuilder(self.0.max_tasks_per_child(calls))
    }

    /// Makes the pool.
    ///
    /// # Errors
    /// As [`ProcessPoolExecutorBuilder::build`].
    pub fn build(self) -> Result<Pool, BuildError> {
        self.0.build().map(Pool::from)
    }
}

impl PoolBuilder<ThreadPoolExecutorBuilder> {
    /// How many threads there are, by Python's name for that. Without it, as many as this process has processors to use.
    pub fn processes(self, threads: usize) -> Self {
        PoolBuilder(self.0.max_workers(threads))
    }

    /// [`ThreadPoolExecutorBuilder::initializer`].
    #[track_caller]
    pub fn initializer<A: SharedValue + Clone>(self, function: fn(A), args: A) -> Self {
        PoolBuilder(self.0.initializer(function, args))
    }

    /// Makes the pool.
    ///
    /// # Errors
    /// As [`ThreadPoolExecutorBuilder::build`].
    pub fn build(self) -> Result<ThreadPool, BuildError> {
        self.0.build().map(|executor| ThreadPool(Pool::from(executor)))
    }
}

/// What a closed pool makes its calls with: it refuses them.
struct Closed;

impl Executor for Closed {
    fn execute(&self, task: Task) {
        drop(task.fail(Failure::Shutdown));
    }

    fn try_execute(&self, task: Task, _: Duration) -> Result<(), Rejected<Task>> {
        Err(Rejected::new(task, Failure::Shutdown))
    }

    fn max_workers(&self) -> NonZeroUsize {
        NonZeroUsize::MIN
    }

    fn shutdown(&self, _: Shutdown) -> ShutdownReport {
        ShutdownReport::new(0, 0, 0)
    }
}
