//! What a backend must do, and what every caller then gets.

use std::{num::NonZeroUsize, panic::Location, sync::Arc};

use crate::{
    context::Context,
    future::Future,
    map::Map,
    portable::{Bound, Plain},
    shutdown::{Shutdown, ShutdownReport},
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
    /// Accepts a task, without blocking on workers. Every accepted task gets exactly one outcome; one that
    /// cannot be run is [failed](Task::fail) right here.
    fn execute(&self, task: Task);

    /// How many calls can be made at the same time.
    fn max_workers(&self) -> NonZeroUsize;

    /// Ends the executor: see [`Shutdown`] for the choices. May be called again, with others.
    ///
    /// Called by a task of this very pool it does not wait, for that would be waiting for itself.
    fn shutdown(&self, how: Shutdown) -> ShutdownReport;

    /// Submits the call `function(args)`.
    ///
    /// Never blocks, fails or panics: whatever is wrong is the outcome of the future.
    #[track_caller]
    fn submit<A: Value, R: Value>(&self, function: fn(A) -> R, args: A) -> Future<R>
    where
        Self: Sized,
    {
        let (task, future) = Task::new(Single { function: Plain(function), args }, Location::caller());
        self.execute(task);
        future
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
        let execute = |task| self.execute(task);
        Map::new(execute, self.max_workers(), Plain(function), items.into_iter(), Location::caller())
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
        let execute = |task| self.execute(task);
        let function = Bound { function, context: context.clone() };
        Map::new(execute, self.max_workers(), function, items.into_iter(), Location::caller())
    }
}

macro_rules! executor_through {
    ($($pointer:ty),*) => {$(
        impl<E: Executor + ?Sized> Executor for $pointer {
            fn execute(&self, task: Task) {
                (**self).execute(task);
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
