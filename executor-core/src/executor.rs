//! What a backend must do, and what every caller then gets.

use std::{num::NonZeroUsize, panic::Location, sync::Arc, time::Duration};

use crate::{
    context::Context,
    error::Rejected,
    function::{Bound, Plain, Spread},
    future::Future,
    map::{Map, Target},
    options::TaskOptions,
    shutdown::{Shutdown, ShutdownReport},
    stats::{Dump, Stats},
    task::Task,
    value::{SharedValue, Value},
    work::Single,
};

/// Runs calls in parallel, with a handle on each: on threads, in processes, wherever a backend sends them.
///
/// The same program runs on any of them. A function is a function *pointer*: an `fn` item, or a closure
/// that captures nothing. What it needs comes as its argument, several things as a tuple. Arguments and
/// results are [`Value`]s. These rules are the same for every backend, so that code that compiles for one
/// compiles for all; what only threads can do has names of its own on `ThreadPoolExecutor`.
///
/// `&E`, `Box<E>` and `Arc<E>` are executors too, so a backend can be chosen at run time as a
/// `Box<dyn Executor>`. (Generic methods cannot be called on a bare `dyn Executor`: where `pool` is a
/// `&dyn Executor`, write `(&pool).submit(..)`.)
///
/// # Order
/// Calls begin in the order of their submission, as far as several workers allow; with one worker, exactly.
///
/// # Shutdown and drop
/// A pool that is dropped waits for all that was submitted to it; in a panic it first cancels what has not
/// begun. [`shutdown`](Self::shutdown) offers the other choices. A call submitted afterwards is not an error
/// of `submit`: its future has already failed, with [`TaskError::is_shutdown`](crate::TaskError::is_shutdown).
///
/// # Examples
/// ```
/// use concurrent_futures::{Executor, ProcessPoolExecutor, ThreadPoolExecutor};
///
/// fn pool(isolated: bool) -> Result<Box<dyn Executor>, Box<dyn std::error::Error>> {
///     Ok(if isolated { Box::new(ProcessPoolExecutor::new(2)?) } else { Box::new(ThreadPoolExecutor::new(2)?) })
/// }
///
/// for isolated in [false, true] {
///     let pool = pool(isolated)?;
///     assert_eq!(pool.submit(|(x, y)| x * y, (6, 7)).result()?, 42);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # For authors of backends
/// Three methods are required. `execute` receives a call without its types: [run](Task::run) it, or
/// [pack](Task::pack) it, send it, have it [answered](crate::portable::answer) in another process of the same
/// build, and [complete](crate::task::Parcel::complete) it with the reply. Everything else is provided.
pub trait Executor: Send + Sync {
    /// Accepts a task, without blocking on workers (unless the caller chose a queue of limited capacity). Every accepted
    /// task gets exactly one outcome; one that cannot be run is [failed](Task::fail) right here.
    fn execute(&self, task: Task);

    /// Accepts a task if there is room for it, or will be within `limit`. A backend without a capacity need not write this.
    ///
    /// # Errors
    /// The task, and why it was not accepted.
    fn try_execute(&self, task: Task, limit: Duration) -> Result<(), Rejected<Task>> {
        let _ = limit; // there is always room
        self.execute(task);
        Ok(())
    }

    /// How many calls can be made at the same time.
    fn max_workers(&self) -> NonZeroUsize;

    /// Ends the executor: see [`Shutdown`] for the choices. May be called again, with others.
    ///
    /// Called by a task of this very pool it does not wait, for that would be waiting for itself.
    fn shutdown(&self, how: Shutdown) -> ShutdownReport;

    /// What the executor does now, and has done so far. Does not wait for calls.
    ///
    /// For authors of backends: without an implementation nothing is counted, and all is zero.
    fn stats(&self) -> Stats {
        Stats { max_workers: self.max_workers().get(), ..Stats::default() }
    }

    /// The calls that are being made now, for a program that seems to hang: a line each, if it is printed. Does not wait for
    /// calls.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{Executor, ProcessPoolExecutor};
    /// use std::time::Duration;
    ///
    /// let pool = ProcessPoolExecutor::new(1)?;
    /// let future = pool.submit(|()| std::thread::sleep(Duration::from_secs(60)), ());
    /// while pool.stats().running == 0 {
    ///     std::thread::sleep(Duration::from_millis(1));
    /// }
    /// let dump = pool.dump();
    /// eprintln!("{dump}"); // … task 1 for 0.0 s in executor-0-0 (process 4711), submitted at src/main.rs:5:19
    /// assert_eq!(dump.running[0].task, future.id());
    /// future.kill();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn dump(&self) -> Dump {
        Dump::new("executor", self.stats(), Vec::new())
    }

    /// What was chosen for all calls that are submitted through this. For [`With`].
    fn task_options(&self) -> Option<&TaskOptions> {
        None
    }

    /// This executor, with a time limit, a priority or further attempts for the calls that are submitted through it.
    ///
    /// See [`TaskOptions`] for an example.
    fn with(&self, options: TaskOptions) -> With<&Self>
    where
        Self: Sized,
    {
        With::new(self, options)
    }

    /// Submits the call `function(args)`.
    ///
    /// Never fails or panics: whatever is wrong is the outcome of the future. It blocks only on a pool with a
    /// queue capacity that is used up, and which was told to [block](crate::WhenFull::Block).
    #[track_caller]
    fn submit<A: Value, R: Value>(&self, function: fn(A) -> R, args: A) -> Future<R>
    where
        Self: Sized,
    {
        let (task, future) = Task::new(Single { function: Plain(function), args }, Location::caller());
        self.execute(task);
        future
    }

    /// Submits the call `function(args)` if the executor accepts it now.
    ///
    /// # Errors
    /// The arguments, and why they were not accepted: too many calls wait, or the executor is closed or broken.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{Executor, ThreadPoolExecutor, WhenFull};
    /// use std::{thread::sleep, time::Duration};
    ///
    /// let pool = ThreadPoolExecutor::builder().max_workers(1).queue_capacity(0, WhenFull::Block).build()?;
    /// let running = pool.try_submit(|ms| sleep(Duration::from_millis(ms)), 200)?;
    /// let rejected = pool.try_submit(|ms| sleep(Duration::from_millis(ms)), 300).unwrap_err();
    /// assert!(rejected.is_queue_full());
    /// assert_eq!(rejected.into_value(), 300);
    /// running.result()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    fn try_submit<A: Value, R: Value>(&self, function: fn(A) -> R, args: A) -> Result<Future<R>, Rejected<A>>
    where
        Self: Sized,
    {
        self.submit_timeout(function, args, Duration::ZERO)
    }

    /// As [`try_submit`](Self::try_submit), waiting for room for at most `limit`.
    ///
    /// # Errors
    /// As there.
    #[track_caller]
    fn submit_timeout<A: Value, R: Value>(
        &self,
        function: fn(A) -> R,
        args: A,
        limit: Duration,
    ) -> Result<Future<R>, Rejected<A>>
    where
        Self: Sized,
    {
        let (task, future) = Task::new(Single { function: Plain(function), args }, Location::caller());
        match self.try_execute(task, limit) {
            Ok(()) => Ok(future),
            Err(Rejected { value, failure }) => {
                let work = value.reclaim::<Single<Plain<A, R>, A>>().expect("a rejected task was not begun");
                Err(Rejected { value: work.args, failure })
            }
        }
    }

    /// Submits `function(&context, args)`. A worker process receives the context once, however many calls use it.
    #[track_caller]
    fn submit_with<C: SharedValue, A: Value, R: Value>(
        &self,
        context: &Context<C>,
        function: fn(&C, A) -> R,
        args: A,
    ) -> Future<R>
    where
        Self: Sized,
    {
        let function = Bound { function, context: context.clone() };
        let (task, future) = Task::new(Single { function, args }, Location::caller());
        self.execute(task);
        future
    }

    /// Calls `function` on every item, in parallel. Results come in the order of the items.
    ///
    /// The returned [`Map`] is a lazy iterator with choices of its own: chunks, window, time limit, order.
    #[track_caller]
    fn map<A: Value, R: Value, I: IntoIterator<Item = A>>(
        &self,
        function: fn(A) -> R,
        items: I,
    ) -> Map<'_, I::IntoIter, R>
    where
        Self: Sized,
    {
        Map::new(Target::of(self), Plain(function), items.into_iter(), Location::caller())
    }

    /// As [`map`](Self::map), with a context that is sent once to each worker.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{Context, Executor, ThreadPoolExecutor};
    ///
    /// let pool = ThreadPoolExecutor::new(2)?;
    /// let words = Context::new(vec!["dog".to_string(), "cat".to_string()]);
    /// let lengths: Vec<usize> =
    ///     pool.map_with(&words, |words, i: usize| words[i].len(), 0..2).collect::<Result<_, _>>()?;
    /// assert_eq!(lengths, [3, 3]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    fn map_with<C: SharedValue, A: Value, R: Value, I: IntoIterator<Item = A>>(
        &self,
        context: &Context<C>,
        function: fn(&C, A) -> R,
        items: I,
    ) -> Map<'_, I::IntoIter, R>
    where
        Self: Sized,
    {
        let function = Bound { function, context: context.clone() };
        Map::new(Target::of(self), function, items.into_iter(), Location::caller())
    }

    /// As [`map`](Self::map), with a function of two arguments, on pairs.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{Executor, ThreadPoolExecutor};
    ///
    /// let pool = ThreadPoolExecutor::new(2)?;
    /// let powers: Vec<u64> = pool.starmap(u64::pow, [(2, 5), (3, 2)]).collect::<Result<_, _>>()?;
    /// assert_eq!(powers, [32, 9]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    fn starmap<A: Value, B: Value, R: Value, I: IntoIterator<Item = (A, B)>>(
        &self,
        function: fn(A, B) -> R,
        items: I,
    ) -> Map<'_, I::IntoIter, R>
    where
        Self: Sized,
    {
        Map::new(Target::of(self), Spread(function), items.into_iter(), Location::caller())
    }
}

impl<'a> Target<'a> {
    fn of(executor: &'a impl Executor) -> Self {
        Target {
            execute: Box::new(|task, limit| executor.try_execute(task, limit)),
            workers: executor.max_workers(),
            single_calls: executor.task_options().is_some_and(TaskOptions::are_for_single_calls),
        }
    }
}

macro_rules! executor_through {
    ($($pointer:ty),*) => {$(
        impl<E: Executor + ?Sized> Executor for $pointer {
            fn execute(&self, task: Task) {
                (**self).execute(task);
            }

            fn try_execute(&self, task: Task, limit: Duration) -> Result<(), Rejected<Task>> {
                (**self).try_execute(task, limit)
            }

            fn stats(&self) -> Stats {
                (**self).stats()
            }

            fn dump(&self) -> Dump {
                (**self).dump()
            }

            fn task_options(&self) -> Option<&TaskOptions> {
                (**self).task_options()
            }

            fn max_workers(&self) -> NonZeroUsize {
                (**self).max_workers()
            }

            fn shutdown(&self, how: Shutdown) -> ShutdownReport {
                (**self).shutdown(how)
            }
        }
    )*};
}

executor_through!(&E, Box<E>, Arc<E>);

/// An executor, with choices for the calls that are submitted through it. From [`Executor::with`].
#[derive(Clone, Debug)]
pub struct With<E> {
    executor: E,
    options: Arc<TaskOptions>,
}

impl<E: Executor> With<E> {
    /// Calls that are submitted to this go to `executor`, with `options`. What an executor of this kind itself was given
    /// before is overridden.
    pub fn new(executor: E, options: TaskOptions) -> Self {
        let options = executor.task_options().map_or_else(|| options.clone(), |before| options.or(before));
        With { executor, options: Arc::new(options) }
    }
}

impl<E: Executor> Executor for With<E> {
    fn execute(&self, task: Task) {
        task.choose(&self.options);
        self.executor.execute(task);
    }

    fn try_execute(&self, task: Task, limit: Duration) -> Result<(), Rejected<Task>> {
        task.choose(&self.options);
        self.executor.try_execute(task, limit)
    }

    fn max_workers(&self) -> NonZeroUsize {
        self.executor.max_workers()
    }

    fn shutdown(&self, how: Shutdown) -> ShutdownReport {
        self.executor.shutdown(how)
    }

    fn stats(&self) -> Stats {
        self.executor.stats()
    }

    fn dump(&self) -> Dump {
        self.executor.dump()
    }

    fn task_options(&self) -> Option<&TaskOptions> {
        Some(&self.options)
    }
}
