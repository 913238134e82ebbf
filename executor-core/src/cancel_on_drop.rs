//! A future whose owner wants its call only as long as it wants the future.

use std::{
    fmt,
    ops::Deref,
    pin::Pin,
    task::{Context, Poll},
};

use crate::{error::TaskError, future::Future};

/// A [`Future`] that cancels its call when it is dropped before the call is done.
///
/// From [`Future::cancel_on_drop`]. Awaited, it gives what the future gives. For async code that is itself dropped
/// when its time is over, in a `select!` or under a time limit, and for sync code that leaves early.
///
/// It cancels as [`Future::cancel`] does: a call that has not begun is never made, and callbacks run where it is
/// dropped. A call that is done keeps its outcome. Dropping never waits.
///
/// It dereferences to the future, for looking at it. [`detach`](Self::detach) gives the future back.
///
/// # Examples
/// ```
/// use concurrent_futures::{Executor, ThreadPoolExecutor};
/// use std::sync::mpsc;
///
/// let pool = ThreadPoolExecutor::new(1)?;
/// let (open, gate) = mpsc::channel();
/// let busy = pool.spawn(move || gate.recv());
///
/// let (tell, told) = mpsc::channel();
/// let unwanted = pool.submit(|x: u32| x, 7).cancel_on_drop();
/// unwanted.add_done_callback(move |future| tell.send(future.cancelled()).unwrap());
/// drop(unwanted);
/// assert!(told.recv()?);
///
/// open.send(())?;
/// busy.result()??;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping it cancels the call"]
pub struct CancelOnDrop<R>(Option<Future<R>>);

const HELD: &str = "only `detach` takes the future out, and it takes `self` by value";

impl<R> Future<R> {
    /// Binds the call to what is returned: dropped before the call is done, that [cancels](Self::cancel) it.
    pub fn cancel_on_drop(self) -> CancelOnDrop<R> {
        CancelOnDrop(Some(self))
    }
}

impl<R> CancelOnDrop<R> {
    /// Gives the future back, which cancels nothing when it is dropped.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{Executor, ThreadPoolExecutor};
    ///
    /// let pool = ThreadPoolExecutor::new(1)?;
    /// let future = pool.submit(|x: u32| x + 1, 1).cancel_on_drop();
    /// assert_eq!(future.detach().result()?, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn detach(mut self) -> Future<R> {
        self.0.take().expect(HELD)
    }
}

impl<R> Deref for CancelOnDrop<R> {
    type Target = Future<R>;

    fn deref(&self) -> &Future<R> {
        self.0.as_ref().expect(HELD)
    }
}

impl<R> Drop for CancelOnDrop<R> {
    fn drop(&mut self) {
        if let Some(future) = &self.0 {
            future.cancel();
        }
    }
}

/// Awaits the call in any async runtime.
///
/// # Panics
/// When polled again after it has given its outcome.
impl<R> std::future::Future for CancelOnDrop<R> {
    type Output = Result<R, TaskError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(self.0.as_mut().expect(HELD)).poll(context)
    }
}

/// As the future's: the state and the type, never the value.
impl<R> fmt::Debug for CancelOnDrop<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CancelOnDrop").field(&**self).finish()
    }
}
