//! Calls that are described now and made later, by an executor that is chosen then.
//!
//! A description forgets the type of its arguments, so that calls of different functions go together. Those of one function
//! that follow each other travel as one [`Batch`], as a chunk of a map does.

use std::{any::Any, fmt, panic::Location, time::Duration};

use crate::{
    error::TaskError,
    function::Plain,
    future::Future,
    task::Task,
    value::Value,
    work::{Batch, Many},
};

/// Describes calls of `function`, to be made later: `delayed(f)(args)`, by joblib's name.
///
/// Several arguments are a tuple. The errors of such a call name the line of `delayed`.
///
/// # Examples
/// ```
/// use concurrent_futures::parallel::{Parallel, delayed};
///
/// let halves = (1..=2).map(|x| delayed(|x: f64| x / 2.0)(f64::from(x)));
/// let power = delayed(|(a, b)| f64::powi(a, b))((2.0, 10));
/// assert_eq!(Parallel::new().run(halves.chain([power]))?, [0.5, 1.0, 1024.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[track_caller]
pub fn delayed<A: Value, R: Value>(function: fn(A) -> R) -> impl Fn(A) -> Delayed<R> + Copy + Send + Sync {
    let site = Location::caller();
    move |args| Delayed { call: Box::new(Described { function, args }), site }
}

/// A call that is described, and not made. From [`delayed`].
#[must_use = "a described call is made by nobody until it is given to somebody"]
pub struct Delayed<R> {
    call: Box<dyn Describes<R>>,
    site: &'static Location<'static>,
}

struct Described<A, R> {
    function: fn(A) -> R,
    args: A,
}

/// A described call, whatever its arguments are.
trait Describes<R>: Any + Send {
    fn into_batch(self: Box<Self>) -> Box<dyn Gathers<R>>;
}

/// Calls of one function, whatever their arguments are.
trait Gathers<R>: Send {
    /// Takes one more in, or gives it back: it is of another function.
    fn push(&mut self, call: Box<dyn Describes<R>>) -> Result<(), Box<dyn Describes<R>>>;
    fn len(&self) -> usize;
    fn into_task(self: Box<Self>, site: &'static Location<'static>) -> (Task, Future<Batch<R>>);
}

impl<A: Value, R: Value> Describes<R> for Described<A, R> {
    fn into_batch(self: Box<Self>) -> Box<dyn Gathers<R>> {
        Box::new(Many { function: Plain(self.function), items: vec![self.args] })
    }
}

impl<A: Value, R: Value> Gathers<R> for Many<Plain<A, R>, A> {
    fn push(&mut self, call: Box<dyn Describes<R>>) -> Result<(), Box<dyn Describes<R>>> {
        // Two functions may have one address, if they do the same: then it does not matter which of them is called.
        let is_alike = |other: &Described<A, R>| std::ptr::fn_addr_eq(other.function, self.function.0);
        let any: &dyn Any = &*call;
        if !any.downcast_ref().is_some_and(is_alike) {
            return Err(call);
        }
        let call: Box<dyn Any> = call;
        let call = call.downcast::<Described<A, R>>().expect("it has just been seen to be one");
        self.items.push(call.args);
        Ok(())
    }

    fn len(&self) -> usize {
        self.items.len()
    }

    fn into_task(self: Box<Self>, site: &'static Location<'static>) -> (Task, Future<Batch<R>>) {
        Task::new(*self, site)
    }
}

/// Calls of one function, described on one line, that are to be made as one task.
pub struct DelayedBatch<R> {
    calls: Box<dyn Gathers<R>>,
    site: &'static Location<'static>,
}

impl<R: Value> DelayedBatch<R> {
    /// A batch of one.
    pub fn new(first: Delayed<R>) -> Self {
        DelayedBatch { calls: first.call.into_batch(), site: first.site }
    }

    /// Takes one more call in.
    ///
    /// # Errors
    /// The call, if it is of another function, or was described elsewhere.
    pub fn push(&mut self, call: Delayed<R>) -> Result<(), Delayed<R>> {
        let Delayed { call, site } = call;
        if !std::ptr::eq(site, self.site) {
            return Err(Delayed { call, site });
        }
        self.calls.push(call).map_err(|call| Delayed { call, site })
    }

    /// How many calls there are: at least one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a batch is never empty")]
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// The batch as a task, for [`Executor::execute`](crate::Executor::execute).
    pub fn into_task(self) -> (Task, Future<Batch<R>>) {
        self.calls.into_task(self.site)
    }
}

/// What each call of a batch gave, in their order, and how long they took together. Waits for the batch.
///
/// If all of it was lost, with a worker for instance, each of its `calls` has that error, and the time is not known.
pub fn outcomes<R>(future: Future<Batch<R>>, calls: usize) -> (Vec<Result<R, TaskError>>, Option<Duration>) {
    let (task, site) = (future.id(), future.submitted_at());
    match future.result_and_attempts() {
        (Ok(Batch { outcomes, elapsed }), attempts) => {
            let named =
                outcomes.into_iter().map(|outcome| outcome.map_err(|why| TaskError::after(attempts, why, task, site)));
            (named.collect(), Some(elapsed))
        }
        (Err(error), _) => ((0..calls).map(|_| Err(error.clone())).collect(), None),
    }
}

impl<R> fmt::Debug for Delayed<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delayed").field("described_at", &format_args!("{}", self.site)).finish_non_exhaustive()
    }
}

impl<R> fmt::Debug for DelayedBatch<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DelayedBatch")
            .field("described_at", &format_args!("{}", self.site))
            .field("calls", &self.calls.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half(x: u32) -> u32 {
        x / 2
    }

    #[test]
    fn a_batch_takes_calls_of_one_function_and_line() {
        let halves = delayed(half);
        let mut batch = DelayedBatch::new(halves(2));
        assert!(batch.push(halves(4)).is_ok());
        let others = [delayed(half)(6), delayed(|x: u32| x + 1)(6), delayed(|(x, y): (u32, u32)| x + y)((1, 2))];
        for other in others {
            assert!(batch.push(other).is_err());
        }
        assert_eq!(batch.len(), 2);
        let (task, future) = batch.into_task();
        task.run();
        let (outcomes, elapsed) = outcomes(future, 2);
        assert_eq!(outcomes.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [1, 2]);
        assert!(elapsed.is_some());
    }

    #[test]
    fn a_batch_that_is_lost_is_lost_for_each_call() {
        let mut batch = DelayedBatch::new(delayed(half)(1));
        let _ = batch.push(delayed(half)(1));
        let (task, future) = batch.into_task();
        drop(task);
        let (outcomes, elapsed) = outcomes(future, 3);
        assert_eq!(outcomes.iter().filter(|outcome| outcome.as_ref().is_err_and(TaskError::is_broken)).count(), 3);
        assert_eq!(elapsed, None);
    }
}
