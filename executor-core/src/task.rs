//! A submitted call as a backend sees it, without its types: to be run here, or packed, sent and
//! completed with the bytes that come back.
//!
//! Either handle owns the duty to end the task. Dropping one without having done so ends it as
//! broken, so that nobody waits for ever.

use std::{fmt, panic::Location, sync::Arc};

use crate::{
    blocking::Home,
    cell::{self, Announcement, Lease, Runnable},
    error::{BrokenCause, Failure, TaskId},
    future::Future,
    work::{Call, Closure, Work},
};

/// A call to be made in this process, or packed for another.
pub struct Task(Handle);

/// A call in the form in which it travels.
pub struct Parcel {
    handle: Handle,
    call: Call,
}

/// The duty to end a task.
struct Handle(Option<Arc<dyn Runnable>>);

impl Task {
    pub(crate) fn new<W: Work>(work: W, site: &'static Location<'static>) -> (Task, Future<W::Output>) {
        let (runnable, reader) = cell::new(work, site);
        (Task(Handle(Some(runnable))), Future::new(reader))
    }

    /// A task that makes `call`, which stays in this process: a backend that cannot run tasks here
    /// fails it.
    #[track_caller]
    pub fn local<F, R>(call: F) -> (Task, Future<R>)
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        Task::local_at(call, Location::caller())
    }

    /// As [`local`](Self::local), submitted at `site`.
    pub fn local_at<F, R>(call: F, site: &'static Location<'static>) -> (Task, Future<R>)
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        Task::new(Closure::new(call), site)
    }

    /// Which task this is.
    #[must_use]
    pub fn id(&self) -> TaskId {
        self.0.get().header().id
    }

    /// Lets workers of the pool `home` run the task in place when they wait for it.
    pub fn set_home(&self, home: Home) {
        self.0.get().set_home(home);
    }

    /// Makes the call on this thread, unless it was cancelled or has begun. Its panic becomes its
    /// outcome, and its callbacks run here. `over` is called when all that is done and before any wait
    /// for the outcome ends, or at once if there was nothing to do. It must not block, nor touch the task.
    pub fn run(mut self, mut over: impl FnMut()) {
        self.0.release().run(&mut over);
    }

    /// Encodes the call for another process. The arguments are dropped here.
    ///
    /// # Errors
    /// The task has ended: it was cancelled, or its arguments could not be encoded. Callbacks may be
    /// due.
    pub fn pack(mut self) -> Result<Parcel, Option<Announcement>> {
        let runnable = self.0.release();
        let call = Arc::clone(&runnable).pack()?;
        Ok(Parcel { handle: Handle(Some(runnable)), call })
    }

    /// Ends the task without a value.
    pub fn fail(mut self, failure: Failure) -> Option<Announcement> {
        self.0.release().fail(failure)
    }

    /// Cancels the task if it has not begun. Returns whether it was this that cancelled it.
    pub fn cancel(mut self) -> bool {
        self.0.release().cancel()
    }
}

impl Parcel {
    /// Which task this is.
    #[must_use]
    pub fn id(&self) -> TaskId {
        self.handle.get().header().id
    }

    /// What is to be sent.
    #[must_use]
    pub fn call(&self) -> &Call {
        &self.call
    }

    /// Notes that the task now lies in a channel. `false`: it was cancelled, and must not be sent.
    #[must_use]
    pub fn dispatch(&self, lease: Lease) -> bool {
        self.handle.get().dispatch(lease)
    }

    /// Notes that the task was taken back from its channel, not begun. `false`: it was cancelled.
    #[must_use]
    pub fn recall(&self) -> bool {
        self.handle.get().recall()
    }

    /// Whether the task has its outcome already: it was cancelled.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.handle.get().is_over()
    }

    /// Ends the task with the reply that [`answer`](crate::portable::answer) made. It is decoded by
    /// whoever wants the result.
    pub fn complete(mut self, reply: Vec<u8>) -> Option<Announcement> {
        self.handle.release().complete(reply)
    }

    /// Ends the task without a value.
    pub fn fail(mut self, failure: Failure) -> Option<Announcement> {
        self.handle.release().fail(failure)
    }

    /// Cancels the task if it has not begun. Returns whether it was this that cancelled it.
    pub fn cancel(mut self) -> bool {
        self.handle.release().cancel()
    }
}

impl Handle {
    fn get(&self) -> &Arc<dyn Runnable> {
        self.0.as_ref().expect("only methods that take the handle by value release it")
    }

    fn release(&mut self) -> Arc<dyn Runnable> {
        self.0.take().expect("only methods that take the handle by value release it")
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(runnable) = self.0.take() {
            drop(runnable.fail(Failure::Broken(BrokenCause::Abandoned)));
        }
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Task({})", self.id())
    }
}

impl fmt::Debug for Parcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parcel({})", self.id())
    }
}
