//! The reader's handle on a submitted call.

use std::{
    any::type_name,
    error, fmt,
    hash::{Hash, Hasher},
    panic::Location,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use crate::{
    blocking, current,
    error::{Failure, TaskError, TaskId},
    patience,
    reader::Reader,
    state::State,
    waits::{self, Awaited},
};

/// The result that a submitted call will have.
///
/// - Wait for it: [`result`](Self::result), [`result_timeout`](Self::result_timeout), `.await` in
///   any async runtime, or [`wait`](crate::wait()) and [`as_completed`](crate::as_completed) for many.
/// - Look without waiting: [`done`](Self::done), [`running`](Self::running),
///   [`cancelled`](Self::cancelled), [`peek`](Self::peek).
/// - Be called: [`add_done_callback`](Self::add_done_callback).
/// - Stop it: [`cancel`](Self::cancel), [`kill`](Self::kill), or [`cancel_on_drop`](Self::cancel_on_drop).
///
/// Futures are compared and hashed by identity, so they can be the keys of a map. Dropping one
/// neither cancels nor waits: the call is made all the same, and its result dropped. One that is to take
/// its call along says so, with `cancel_on_drop`.
///
/// # Memory effects
/// What a thread did before it submitted is visible to the call, and what the call did is visible to
/// whoever has seen it done. Across processes the same holds for what is sent: arguments and result.
///
/// # Order of events
/// A finished call's callbacks run first, in the order in which they were added. Then every wait ends,
/// and the value can be moved out. A callback that waits for a thread that waits for the same
/// future would therefore wait for ever; and so would one of a process pool that waits for another
/// future with callbacks, since one thread runs them all.
///
/// # Examples
/// ```
/// use concurrent_futures::{Executor, ThreadPoolExecutor};
///
/// let pool = ThreadPoolExecutor::new(2)?;
/// let future = pool.submit(|(a, b): (u32, u32)| a.pow(b), (2, 10));
/// assert_eq!(future.result()?, 1024);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping a future does not cancel its call, but an error in it would go unseen"]
pub struct Future<R>(Reader<R>);

impl<R> Future<R> {
    pub(crate) fn new(reader: Reader<R>) -> Self {
        Future(reader)
    }

    pub(crate) fn reader(&self) -> &Reader<R> {
        &self.0
    }

    /// Waits for the call and gives its value.
    ///
    /// Ends when the call has returned, panicked, been cancelled or lost its worker, and the
    /// callbacks that were added before have run. Called by a task of the same thread pool, it runs
    /// the call in place if that has not begun, so waiting inside a pool cannot exhaust it. Called by a task for which
    /// the awaited one waits itself, it does not wait.
    ///
    /// # Errors
    /// [`TaskError`] for every ending but a value; and [`TaskError::is_deadlock`] where waiting would last for ever: the
    /// call itself then goes on, without this future.
    pub fn result(self) -> Result<R, TaskError> {
        let future = match self.0.try_take() {
            Ok(outcome) => return outcome,
            Err(reader) => Future(reader),
        };
        match future.wait_unless_stuck() {
            Ok(()) => future.0.take(),
            Err(stuck) => Err(future.stuck(stuck)),
        }
    }

    /// As [`result`](Self::result), for at most `limit`. A limit of zero does not wait.
    ///
    /// The task is not affected by a wait that ends early: the error gives the future back.
    ///
    /// # Errors
    /// [`WaitError::Timeout`] when the limit passes first, [`WaitError::Task`] for every ending but a
    /// value.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{Executor, ThreadPoolExecutor, WaitError};
    /// use std::{thread::sleep, time::Duration};
    ///
    /// let pool = ThreadPoolExecutor::new(1)?;
    /// let future = pool.submit(|ms| sleep(Duration::from_millis(ms)), 20);
    /// let future = match future.result_timeout(Duration::ZERO) {
    ///     Err(WaitError::Timeout(future)) => future,
    ///     other => panic!("too early: {other:?}"),
    /// };
    /// future.result()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn result_timeout(self, limit: Duration) -> Result<R, WaitError<R>> {
        if self.wait_timeout(limit) { self.0.take().map_err(WaitError::Task) } else { Err(WaitError::Timeout(self)) }
    }

    /// Waits until the outcome is there, whatever it is.
    ///
    /// # Panics
    /// In a task for which the awaited one waits itself, so that waiting would last for ever. The message names all
    /// that wait for each other. ([`result`](Self::result) gives an error instead.)
    #[track_caller]
    pub fn wait(&self) {
        if let Err(stuck) = self.wait_unless_stuck() {
            panic!("{stuck}");
        }
    }

    /// As [`wait`](Self::wait), with an error instead of a panic.
    ///
    /// # Errors
    /// [`TaskError::is_deadlock`] where waiting would last for ever. Not the call's own error.
    pub fn wait_or_deadlock(&self) -> Result<(), TaskError> {
        self.wait_unless_stuck().map_err(|stuck| self.stuck(stuck))
    }

    fn wait_unless_stuck(&self) -> Result<(), Failure> {
        if self.0.is_published() || self.0.is_here() {
            return Ok(());
        }
        if self.comes_soon() {
            return Ok(());
        }
        let waiting = waits::enter(|| Awaited::one(self.id()));
        match waiting {
            Ok(_waiting) => {
                self.block();
                Ok(())
            }
            // It may have come to its end meanwhile.
            Err(_) if self.0.is_here() => Ok(()),
            Err(stuck) => Err(stuck),
        }
    }

    /// As [`wait`](Self::wait), without asking whether anything will end it. For a backend that must not return before.
    pub fn wait_regardless(&self) {
        if self.0.is_here() || self.comes_soon() {
            return;
        }
        let _waiting = waits::enter_regardless(Awaited::one(self.id()));
        self.block();
    }

    /// Makes the call here, if that can be, or looks for it a little.
    fn comes_soon(&self) -> bool {
        self.0.run_in_place();
        // Who drives looks by himself, and has better to do meanwhile.
        self.0.is_published() || !self.0.is_driven() && patience::look_for(|| self.0.is_published())
    }

    fn block(&self) {
        blocking::while_blocked(|| self.0.wait(None));
    }

    fn stuck(&self, stuck: Failure) -> TaskError {
        TaskError::new(stuck, self.id(), self.submitted_at())
    }

    /// Waits for at most `limit`. Returns whether the outcome is there.
    #[must_use = "whether the outcome is there is the answer"]
    pub fn wait_timeout(&self, limit: Duration) -> bool {
        if self.0.is_here() {
            return true;
        }
        match Instant::now().checked_add(limit) {
            Some(deadline) => blocking::while_blocked(|| self.0.wait(Some(deadline))),
            None => {
                self.wait(); // further away than clocks go
                true
            }
        }
    }

    /// The outcome, if it is there. The value stays where it is.
    #[must_use]
    pub fn peek(&self) -> Option<Result<&R, &TaskError>>
    where
        R: Sync,
    {
        self.0.peek().map(Result::as_ref)
    }

    /// Waits for the call and gives its error, if it ended with one. The future keeps its outcome.
    ///
    /// # Panics
    /// As [`wait`](Self::wait) does.
    #[must_use]
    #[track_caller]
    pub fn exception(&self) -> Option<&TaskError> {
        if !self.done() {
            self.wait();
        }
        self.0.error()
    }

    /// Whether the call has an outcome: a value, an error, or a cancellation.
    #[must_use]
    pub fn done(&self) -> bool {
        self.0.state().is_final()
    }

    /// Whether the call is being made now.
    #[must_use]
    pub fn running(&self) -> bool {
        self.0.state() == State::Running
    }

    /// Whether the call was cancelled before it began.
    #[must_use]
    pub fn cancelled(&self) -> bool {
        self.0.state() == State::Cancelled
    }

    /// Cancels the call unless it has begun. Returns whether it is cancelled, now or from before; a
    /// call that is cancelled is never made.
    ///
    /// Callbacks run on this thread before it returns, and every wait for the future ends at once. A call that has begun is
    /// asked to stop, and finds that out if it [looks](crate::current_task); its outcome is what it then returns.
    pub fn cancel(&self) -> bool {
        self.0.cancel()
    }

    /// Stops the call: a pending one is [cancelled](Self::cancel), and one that runs in a worker process
    /// is stopped together with that process, which is replaced. No other task is affected.
    ///
    /// Returns `false` if the call is over, or runs on a thread: a thread cannot be stopped from outside.
    /// On `true` the future ends soon, with [`TaskError::is_killed`] or
    /// [`TaskError::is_cancelled`], or with its value if that was already on its way.
    pub fn kill(&self) -> bool {
        self.0.kill()
    }

    /// Has `callback` called with this future when it is done; at once, and on this thread, if it is.
    ///
    /// Otherwise callbacks run in the order in which they were added: on the thread that cancels, on the
    /// worker of a thread pool, on a process pool's callback thread. They hold no lock, so they may use
    /// this future, submit and cancel. A callback's panic is reported on standard error and affects
    /// nothing else.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{Executor, ThreadPoolExecutor};
    /// use std::sync::mpsc;
    ///
    /// let pool = ThreadPoolExecutor::new(1)?;
    /// let (tell, told) = mpsc::channel();
    /// let future = pool.submit(|x: u32| x + 1, 1);
    /// future.add_done_callback(move |future| tell.send(future.peek().unwrap().cloned().unwrap()).unwrap());
    /// assert_eq!(told.recv()?, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn add_done_callback(&self, callback: impl FnOnce(&Future<R>) + Send + 'static) {
        self.0.add_callback(Box::new(callback));
    }

    /// The outcome, and how often the call was made for it.
    pub(crate) fn result_and_attempts(self) -> (Result<R, TaskError>, u32) {
        match self.wait_unless_stuck() {
            Ok(()) => {
                let attempts = self.0.header().attempts();
                (self.0.take(), attempts)
            }
            Err(stuck) => (Err(self.stuck(stuck)), 0),
        }
    }

    /// Which task this is the future of.
    #[must_use]
    pub fn id(&self) -> TaskId {
        self.0.header().id
    }

    /// The line that submitted the call.
    #[must_use]
    pub fn submitted_at(&self) -> &'static Location<'static> {
        self.0.header().site
    }
}

impl<R> PartialEq for Future<R> {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl<R> Eq for Future<R> {}

impl<R> Hash for Future<R> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id().hash(state);
    }
}

/// Names the state and the type, never the value.
impl<R> fmt::Debug for Future<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.0.state() {
            State::Pending => "pending",
            State::Dispatched => "dispatched",
            State::Running => "running",
            State::Cancelled => "cancelled",
            State::Done if self.0.has_failed() => "failed",
            State::Done => "done",
        };
        write!(f, "Future<{}>({}, {state})", type_name::<R>(), self.id())
    }
}

/// Awaits the call in any async runtime. Dropping the future while it is awaited cancels nothing, unless it is a
/// [`cancel_on_drop`](Self::cancel_on_drop).
///
/// Polled on a worker of a thread pool, as by a runtime's `block_on` inside another call, and not done, it lets a spare thread
/// stand in for that worker, which may be about to park: a pool cannot be exhausted by waits of any kind.
///
/// # Panics
/// When polled again after it has given its outcome.
impl<R> std::future::Future for Future<R> {
    type Output = Result<R, TaskError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.0.poll_take(context.waker()) {
            Some(outcome) => {
                current::is_back();
                Poll::Ready(outcome)
            }
            None => {
                current::may_park();
                Poll::Pending
            }
        }
    }
}

/// Why [`Future::result_timeout`] has no value: the wait was over first, or the task failed.
pub enum WaitError<R> {
    /// The wait's limit passed. The task goes on, and here is its future again.
    Timeout(
        /// The future that is still to be had.
        Future<R>,
    ),
    /// The task ended without a value.
    Task(
        /// How.
        TaskError,
    ),
}

impl<R> WaitError<R> {
    /// Whether the wait ended before the task did.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, WaitError::Timeout(_))
    }
}

impl<R> fmt::Debug for WaitError<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitError::Timeout(future) => f.debug_tuple("Timeout").field(future).finish(),
            WaitError::Task(error) => f.debug_tuple("Task").field(error).finish(),
        }
    }
}

impl<R> fmt::Display for WaitError<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitError::Timeout(future) => write!(f, "task {} was not done within the wait's limit", future.id()),
            WaitError::Task(error) => fmt::Display::fmt(error, f),
        }
    }
}

impl<R> error::Error for WaitError<R> {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            WaitError::Timeout(_) => None,
            WaitError::Task(error) => error.source(),
        }
    }
}
