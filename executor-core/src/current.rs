//! The call that this thread makes now, as the call itself sees it: who it is, and whether it was asked to stop.
//!
//! A thread cannot be stopped from outside, so stopping is agreed upon: somebody asks, and the call looks now and then.

use serde::{Deserialize, Serialize};
use std::{
    cell::Cell,
    error, fmt,
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{blocking, error::TaskId};

/// Where a running call learns that it is to stop. For backends.
pub trait StopSource: Send + Sync {
    /// Whether the call with this ticket was asked to stop.
    fn is_stopped(&self, ticket: u64) -> bool;

    /// Which task it is, where that is known.
    fn task(&self) -> Option<TaskId> {
        None
    }

    /// Whether the task ends by itself at some time, whatever the call does.
    fn has_limit(&self) -> bool {
        false
    }
}

/// A call that is being made, and where it learns that it is to stop.
#[derive(Clone)]
struct Call {
    source: Arc<dyn StopSource>,
    ticket: u64,
}

thread_local! {
    static CURRENT: Cell<Option<Call>> = const { Cell::new(None) };
}

/// Makes the current thread one that makes a call, until the guard is dropped.
#[must_use = "the thread makes the call only while the guard lives"]
pub fn enter(source: Arc<dyn StopSource>, ticket: u64) -> Entered {
    let previous = CURRENT.replace(Some(Call { source, ticket }));
    Entered { previous, not_send: PhantomData }
}

/// From [`enter`].
pub struct Entered {
    previous: Option<Call>,
    not_send: PhantomData<*const ()>,
}

impl fmt::Debug for Entered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entered").finish_non_exhaustive()
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.replace(self.previous.take());
    }
}

/// What `look` sees of the call that this thread makes now. A thread that is being taken down makes none.
fn look<T>(look: impl FnOnce(&Call) -> T) -> Option<T> {
    CURRENT
        .try_with(|current| {
            let call = current.take()?;
            let seen = look(&call);
            current.set(Some(call));
            Some(seen)
        })
        .ok()
        .flatten()
}

/// The task whose call this thread makes now, where it is known, and unless it ends by itself.
pub(crate) fn task_without_limit() -> Option<TaskId> {
    look(|call| call.source.task().filter(|_| !call.source.has_limit())).flatten()
}

/// The call that this thread makes now.
///
/// Outside of any call it is nobody, and never asked to stop.
///
/// # Examples
/// ```
/// use concurrent_futures::{Cancelled, Executor, ThreadPoolExecutor, current_task};
/// use std::thread::sleep;
///
/// fn patient(milliseconds: u64) -> Result<(), Cancelled> {
///     for _ in 0..milliseconds {
///         current_task().check_cancelled()?;
///         sleep(std::time::Duration::from_millis(1));
///     }
///     Ok(())
/// }
///
/// let pool = ThreadPoolExecutor::new(1)?;
/// let future = pool.submit(patient, 60_000);
/// while !future.running() {
///     sleep(std::time::Duration::from_millis(1));
/// }
/// assert!(!future.cancel(), "it has begun, so it is only asked to stop");
/// assert_eq!(future.result()?, Err(Cancelled));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn current_task() -> CurrentTask {
    let call = look(Call::clone);
    let task = call.as_ref().and_then(|call| call.source.task());
    CurrentTask { task, token: CancelToken { call, pool: blocking::pool_is_stopping() } }
}

/// From [`current_task`].
#[derive(Clone, Debug)]
pub struct CurrentTask {
    task: Option<TaskId>,
    token: CancelToken,
}

impl CurrentTask {
    /// Its number: that of its [`Future`](crate::Future). `None` outside of any call, and in a worker process, which
    /// does not know it.
    #[must_use]
    pub fn id(&self) -> Option<TaskId> {
        self.task
    }

    /// Whether the call was asked to stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.token.is_cancelled()
    }

    /// For `?` in a call that can stop half-way.
    ///
    /// # Errors
    /// [`Cancelled`] when it was asked to stop: by [`Future::cancel`](crate::Future::cancel), because its time limit
    /// has passed, or because its pool is shut down [now](crate::Shutdown::now).
    pub fn check_cancelled(&self) -> Result<(), Cancelled> {
        self.token.check_cancelled()
    }

    /// The same question as a value of its own, for threads that work for this call.
    #[must_use]
    pub fn cancel_token(&self) -> CancelToken {
        self.token.clone()
    }
}

/// Whether one call was asked to stop, wherever that is to be known. From [`CurrentTask::cancel_token`].
#[derive(Clone)]
pub struct CancelToken {
    call: Option<Call>,
    pool: Option<Arc<AtomicBool>>,
}

impl CancelToken {
    /// Whether the call was asked to stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        // ORDERING: Relaxed; the answer may be late, and nothing is read on the strength of it.
        self.pool.as_ref().is_some_and(|stopping| stopping.load(Ordering::Relaxed))
            || self.call.as_ref().is_some_and(|call| call.source.is_stopped(call.ticket))
    }

    /// For `?`.
    ///
    /// # Errors
    /// [`Cancelled`] when the call was asked to stop.
    pub fn check_cancelled(&self) -> Result<(), Cancelled> {
        if self.is_cancelled() { Err(Cancelled) } else { Ok(()) }
    }
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelToken").field("is_cancelled", &self.is_cancelled()).finish()
    }
}

/// A call was asked to stop. From [`CurrentTask::check_cancelled`]; it can be part of a call's own result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cancelled;

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the call was asked to stop")
    }
}

impl error::Error for Cancelled {}
