//! The user's end of a cell, by which its outcome is looked at and taken.

#![expect(unsafe_code, reason = "a finished outcome is lent out without a lock")]

use std::{sync::Arc, task::Waker, time::Instant};

use crate::{
    arrivals::Arrivals, blocking, cell::Callback, error::TaskError, handle::ReadHandle, header::Header, state::State,
    sync::atomic::Ordering,
};

/// The right to a cell's outcome. There is one that owns. Views (`view` in `cell.rs`) are lent to callbacks
/// only, by reference, and are gone before the outcome is published, or, where the callback was
/// added later, before the owner's borrow in `add_callback` ends.
pub(crate) struct Reader<R>(ReadHandle<R>);

impl<R> Reader<R> {
    pub(crate) fn new(cell: ReadHandle<R>) -> Self {
        Reader(cell)
    }

    pub(crate) fn header(&self) -> &Header {
        self.0.header()
    }

    pub(crate) fn state(&self) -> State {
        self.0.state()
    }

    pub(crate) fn cancel(&self) -> bool {
        self.0.cancel()
    }

    pub(crate) fn kill(&self) -> bool {
        self.0.kill()
    }

    /// Runs the task on this thread if it has not begun and this is a worker of its pool.
    pub(crate) fn run_in_place(&self) {
        // ORDERING: Relaxed; a worker that sees 0 merely blocks instead.
        blocking::in_place(self.header().home.load(Ordering::Relaxed), || self.0.run_here());
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.0.has_failed()
    }

    pub(crate) fn is_published(&self) -> bool {
        self.0.header().stage.is_published()
    }

    /// Whether there is nothing to wait for: the outcome is published, or this thread runs its callbacks.
    pub(crate) fn is_here(&self) -> bool {
        self.0.is_here()
    }

    /// Blocks until the outcome is published; `false`: the deadline came first.
    pub(crate) fn is_driven(&self) -> bool {
        self.0.is_driven()
    }

    pub(crate) fn wait(&self, deadline: Option<Instant>) -> bool {
        self.0.wait(deadline)
    }

    /// Moves the outcome out, if it is published.
    ///
    /// # Errors
    /// This reader, when it is not.
    pub(crate) fn try_take(self) -> Result<Result<R, TaskError>, Self> {
        if !self.is_published() {
            return Err(self);
        }
        // SAFETY: as in `take`.
        Ok(unsafe { self.0.take() })
    }

    /// Moves the published outcome out.
    ///
    /// # Panics
    /// If it is not published, or was moved out by [`poll_take`](Self::poll_take).
    pub(crate) fn take(self) -> Result<R, TaskError> {
        assert!(self.is_published(), "an outcome is moved out only after its publication");
        // SAFETY: published, so no view exists any more; and this is the owning reader, by value,
        // so no reference from `peek` or `error` exists and none can be formed.
        unsafe { self.0.take() }
    }

    /// Has `waker` woken at the publication, on whose thread that will be. `true`: it is published, and nobody will be woken.
    pub(crate) fn set_waker(&self, waker: &Waker) -> bool {
        self.0.set_waker(waker)
    }

    /// As [`take`](Self::take), for a future that is pinned.
    pub(crate) fn poll_take(&mut self, waker: &Waker) -> Option<Result<R, TaskError>> {
        if !self.0.set_waker(waker) {
            return None;
        }
        // SAFETY: published, so no view exists any more; and this is the owning reader, by exclusive
        // reference, so no reference from `peek` or `error` exists now. Later ones find it `Taken`.
        Some(unsafe { self.0.take() })
    }

    pub(crate) fn peek(&self) -> Option<&Result<R, TaskError>>
    where
        R: Sync,
    {
        let outcome = self.0.ready()?;
        // SAFETY: `ready` returned the inside of a `Ready` slot. It stays so until `take`, which
        // needs the owning reader by value or exclusively. `self` is borrowed for as long as the
        // reference lives, and is the owner, or a view that ends before publication and thus before
        // `take`. Several threads may look at once, since `R: Sync`.
        Some(unsafe { &*outcome })
    }

    pub(crate) fn error(&self) -> Option<&TaskError> {
        let outcome = self.0.ready()?;
        // SAFETY: as in `peek`; only the `TaskError` inside, which is `Sync`, is handed on.
        unsafe { &*outcome }.as_ref().err()
    }

    pub(crate) fn add_callback(&self, callback: Callback<R>) {
        self.0.add_callback(callback);
    }

    /// Has `arrivals` told of the publication. `false`: the outcome is there already, and nobody will tell.
    #[must_use]
    pub(crate) fn watch(&self, arrivals: &Arc<Arrivals>, index: usize) -> bool {
        self.0.watch(arrivals, index)
    }

    pub(crate) fn unwatch(&self, arrivals: &Arc<Arrivals>) {
        self.0.unwatch(arrivals);
    }
}
