//! The call that this thread makes now, as the call itself sees it: who it is, and whether it was asked to stop.
//!
//! A thread cannot be stopped from outside, so stopping is agreed upon: somebody asks, and the call looks now and then.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{
    cell::Cell,
    error, fmt,
    marker::PhantomData,
    mem,
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

/// What a thread does for pools, as far as it is a call's affair.
struct Current {
    call: Option<Call>,
    /// The call has polled a future that is not done: the thread may park, where nobody sees it, and its pool was told.
    may_park: bool,
}

thread_local! {
    static CURRENT: Cell<Current> = const { Cell::new(Current { call: None, may_park: false }) };
}

/// Makes the current thread one that makes a call, until the guard is dropped.
#[must_use = "the thread makes the call only while the guard lives"]
pub fn enter(source: Arc<dyn StopSource>, ticket: u64) -> Entered {
    let previous = CURRENT.replace(Current { call: Some(Call { source, ticket }), may_park: false });
    Entered { previous, not_send: PhantomData }
}

/// From [`enter`].
pub struct Entered {
    previous: Current,
    not_send: PhantomData<*const ()>,
}

impl Entered {
    /// The call on top of which this one is made, unless it ends by itself.
    pub(crate) fn outer_without_limit(&self) -> Option<TaskId> {
        self.previous.call.as_ref().and_then(Call::task_without_limit)
    }
}

impl fmt::Debug for Entered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entered").finish_non_exhaustive()
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let previous = mem::replace(&mut self.previous, Current { call: None, may_park: false });
        if CURRENT.replace(previous).may_park {
            blocking::unblock();
        }
    }
}

impl Call {
    fn task_without_limit(&self) -> Option<TaskId> {
        self.source.task().filter(|_| !self.source.has_limit())
    }
}

/// What `look` sees, and changes, of what this thread does. A thread that is being taken down does nothing.
fn look<T>(look: impl FnOnce(&mut Current) -> T) -> Option<T> {
    let seen = CURRENT.try_with(|cell| {
        let mut current = cell.replace(Current { call: None, may_park: false });
        let seen = look(&mut current);
        cell.set(current);
        seen
    });
    seen.ok()
}

/// The task whose call this thread makes now, where it is known, and unless it ends by itself.
pub(crate) fn task_without_limit() -> Option<TaskId> {
    look(|current| current.call.as_ref().and_then(Call::task_without_limit)).flatten()
}

/// The call on this thread has polled a future that is not done: the thread may now park until it is.
pub(crate) fn may_park() {
    let news = look(|current| current.call.is_some() && !mem::replace(&mut current.may_park, true));
    if news == Some(true) && !blocking::block() {
        look(|current| current.may_park = false); // nobody minds
    }
}

/// The call on this thread has not parked it, or is back.
pub(crate) fn is_back() {
    if look(|current| mem::take(&mut current.may_park)) == Some(true) {
        blocking::unblock();
    }
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
    let call = look(|current| current.call.clone()).flatten();
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cancelled;

// By hand, so that `serde`'s macros are compiled only where there is more to derive.
impl Serialize for Cancelled {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl<'de> Deserialize<'de> for Cancelled {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <()>::deserialize(deserializer).map(|()| Cancelled)
    }
}

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the call was asked to stop")
    }
}

impl error::Error for Cancelled {}
