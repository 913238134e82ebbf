//! A future by the names of `multiprocessing`.

use std::{
    fmt,
    ops::Deref,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use crate::{
    error::TaskError,
    future::{Future, WaitError},
};

/// The result that a call of a `Pool` will have. Python's `multiprocessing.pool.AsyncResult`.
///
/// It is a [`Future`] by other names, and dereferences to it: [`wait`](Future::wait), [`wait_timeout`](Future::wait_timeout), which
/// says whether the result is there, and [`cancel`](Future::cancel) are the future's. [`wait()`](crate::wait()) and
/// [`as_completed`](crate::as_completed) take it, and it can be awaited. That of a whole map is one result.
///
/// No `get` waits for ever for a worker that is dead or a pool that was terminated: these are errors of the call. Dropping it
/// cancels nothing.
///
/// # Examples
/// ```
/// use concurrent_futures::Pool;
///
/// let pool = Pool::new(2)?;
/// let result = pool.apply_async(|(a, b): (u32, u32)| a.pow(b), (2, 10));
/// result.wait();
/// assert!(result.ready());
/// assert_eq!(result.successful(), Some(true));
/// assert_eq!(result.get()?, 1024);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping a result does not cancel its call, but an error in it would go unseen"]
pub struct AsyncResult<R>(Future<R>);

impl<R> AsyncResult<R> {
    /// Waits for the call and gives its value. Ends when [`Future::result`] does.
    ///
    /// # Errors
    /// [`TaskError`] for every ending but a value.
    pub fn get(self) -> Result<R, TaskError> {
        self.0.result()
    }

    /// As [`get`](Self::get), for at most `limit`. The call is not affected by a wait that ends early.
    ///
    /// # Errors
    /// [`WaitError::Timeout`] when the limit passes first: it gives the future back, from which an `AsyncResult` can be made
    /// again. [`WaitError::Task`] for every ending but a value.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{AsyncResult, ThreadPool, WaitError};
    /// use std::{thread::sleep, time::Duration};
    ///
    /// let pool = ThreadPool::new(1)?;
    /// let result = pool.apply_async(|ms| sleep(Duration::from_millis(ms)), 20);
    /// let result: AsyncResult<()> = match result.get_timeout(Duration::ZERO) {
    ///     Err(WaitError::Timeout(future)) => future.into(),
    ///     other => panic!("too early: {other:?}"),
    /// };
    /// result.get()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_timeout(self, limit: Duration) -> Result<R, WaitError<R>> {
        self.0.result_timeout(limit)
    }

    /// Whether the outcome is there, and the callbacks that were added before have run.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.0.reader().is_here()
    }

    /// Whether the call ended with a value, or `None` if it has not ended.
    #[must_use]
    pub fn successful(&self) -> Option<bool> {
        self.ready().then(|| self.0.reader().error().is_none())
    }

    /// Has `callback` called with the value when there is one. See [`Future::add_done_callback`] for when and where that is;
    /// before anybody finds the result [ready](Self::ready), in any case.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ThreadPool;
    /// use std::sync::mpsc;
    ///
    /// let pool = ThreadPool::new(1)?;
    /// let (tell, told) = mpsc::channel();
    /// let result = pool.apply_async(|x: u32| x + 1, 1).callback(move |value| tell.send(*value).unwrap());
    /// assert_eq!((result.get()?, told.recv()?), (2, 2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn callback(self, callback: impl FnOnce(&R) + Send + 'static) -> Self
    where
        R: Sync,
    {
        self.0.add_done_callback(|future| {
            if let Some(Ok(value)) = future.peek() {
                callback(value);
            }
        });
        self
    }

    /// Has `callback` called with the error when the call ends without a value.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ThreadPool;
    /// use std::sync::mpsc;
    ///
    /// let pool = ThreadPool::new(1)?;
    /// let (tell, told) = mpsc::channel();
    /// let result = pool.apply_async(|x: u32| 1 / x, 0).error_callback(move |error| tell.send(error.is_panic()).unwrap());
    /// assert!(result.get().is_err() && told.recv()?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn error_callback(self, callback: impl FnOnce(&TaskError) + Send + 'static) -> Self {
        self.0.add_done_callback(|future| {
            if let Some(error) = future.reader().error() {
                callback(error);
            }
        });
        self
    }

    /// The same, by the names of `concurrent.futures`.
    pub fn into_inner(self) -> Future<R> {
        self.0
    }
}

impl<R> From<Future<R>> for AsyncResult<R> {
    fn from(future: Future<R>) -> Self {
        AsyncResult(future)
    }
}

impl<R> From<AsyncResult<R>> for Future<R> {
    fn from(result: AsyncResult<R>) -> Self {
        result.0
    }
}

impl<R> Deref for AsyncResult<R> {
    type Target = Future<R>;

    fn deref(&self) -> &Future<R> {
        &self.0
    }
}

/// Awaits the call in any async runtime.
///
/// # Panics
/// When polled again after it has given its outcome.
impl<R> std::future::Future for AsyncResult<R> {
    type Output = Result<R, TaskError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

/// As the future's: the state and the type, never the value.
impl<R> fmt::Debug for AsyncResult<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AsyncResult").field(&self.0).finish()
    }
}
