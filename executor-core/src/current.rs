//! The call that this thread makes now, as the call itself sees it: who it is, and whether it was asked to stop.
//!
//! A thread cannot be stopped from outside, so stopping is agreed upon: somebody asks, and the call looks now and then.

#![expect(unsafe_code, reason = "a call that is being made is known by its place on the stack")]

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{cell::Cell, error, fmt, ptr, sync::Arc};

use crate::{
    blocking,
    error::TaskId,
    handle::Handle,
    sync::{
        atomic::{AtomicBool, Ordering},
        thread_local,
    },
    waits::Waiter,
};

/// Where a running call learns that it is to stop. For backends.
pub trait StopSource: Send + Sync {
    /// Whether the call with this ticket was asked to stop.
    fn is_stopped(&self, ticket: u64) -> bool;

    /// Which task it is, where that is known.
    fn task(&self) -> Option<TaskId> {
        None
    }

    /// As what the call waits for tasks, if its waits are watched for cycles.
    fn waiter(&self) -> Option<Waiter> {
        None
    }
}

/// A call, and where it learns that it is to stop.
#[derive(Clone)]
struct Call {
    source: Share,
    ticket: u64,
}

/// A stop source that is there for as long as this.
#[derive(Clone)]
pub(crate) enum Share {
    Task(Handle),
    Backend(Arc<dyn StopSource>),
}

impl Share {
    fn source(&self) -> &dyn StopSource {
        match self {
            Share::Task(task) => task.as_stop_source(),
            Share::Backend(source) => &**source,
        }
    }
}

/// What a thread does for pools, as far as it is a call's affair. It lies on the thread's stack, below the call.
struct Frame {
    source: *const dyn Source,
    ticket: u64,
    /// Of the call on top of which this one is made.
    outer: *const Frame,
    /// The call has polled a future that is not done: the thread may park, where nobody sees it, and its pool was told.
    may_park: Cell<bool>,
}

/// A stop source, of which a share is taken only where it is to outlive the call.
pub(crate) trait Source {
    fn source(&self) -> &dyn StopSource;
    fn share(&self) -> Share;
}

impl<S: StopSource + 'static> Source for Arc<S> {
    fn source(&self) -> &dyn StopSource {
        &**self
    }

    fn share(&self) -> Share {
        Share::Backend(Arc::clone(self) as Arc<dyn StopSource>)
    }
}

thread_local! {
    static CURRENT: Cell<*const Frame> = const { Cell::new(ptr::null()) };
}

/// Makes `call` as the one that learns from `source` that it is to stop.
pub fn making<S: StopSource + 'static, T>(source: &Arc<S>, ticket: u64, call: impl FnOnce() -> T) -> T {
    making_of(source, ticket, call)
}

/// As [`making`], of any source.
#[inline]
pub(crate) fn making_of<T>(source: &(impl Source + 'static), ticket: u64, call: impl FnOnce() -> T) -> T {
    struct Restored<'a>(&'a Frame);
    impl Drop for Restored<'_> {
        fn drop(&mut self) {
            CURRENT.set(self.0.outer);
            if self.0.may_park.get() {
                blocking::unblock();
            }
        }
    }
    let source: &dyn Source = source;
    let frame = Frame { source: ptr::from_ref(source), ticket, outer: CURRENT.get(), may_park: Cell::new(false) };
    let _restored = Restored(&frame);
    CURRENT.set(&frame);
    call()
}

impl Frame {
    fn source(&self) -> &dyn Source {
        // SAFETY: `making` borrows the source for longer than its frame is there.
        unsafe { &*self.source }
    }

    fn call(&self) -> Call {
        Call { source: self.source().share(), ticket: self.ticket }
    }
}

/// What `look` sees of the call that this thread makes, if it makes one.
#[inline]
fn look<T>(look: impl FnOnce(&Frame) -> T) -> Option<T> {
    let frame = CURRENT.get();
    // SAFETY: not null, it was set by a `making` further down on this thread's stack, which sets it back before its frame goes.
    unsafe { frame.as_ref() }.map(look)
}

/// The call that a thread makes, for whoever does a part of it on another thread.
#[derive(Clone, Copy, Debug)]
pub struct Here(*const Frame);

/// The call that this thread makes now, if it makes one.
#[inline]
#[must_use]
pub fn here() -> Here {
    Here(CURRENT.get())
}

impl Here {
    /// Makes `part` on this thread as a part of that call: it is asked to stop when that is.
    ///
    /// # Safety
    /// Until this returns, the thread that called [`here`] stays within the call that it made then.
    pub unsafe fn on_behalf<T>(self, part: impl FnOnce() -> T) -> T {
        // SAFETY: not null, it is the frame of a call that is still being made, by this function's contract. Of what is in it,
        // another thread changes only `may_park`, which is not read here.
        let Some(frame) = (unsafe { self.0.as_ref() }) else { return part() };
        let part_of = Arc::new(Part(frame.call()));
        making(&part_of, 0, part)
    }
}

/// A part of a call on another thread. Its waits are not watched: the call may be waiting in another part.
struct Part(Call);

impl StopSource for Part {
    fn is_stopped(&self, _: u64) -> bool {
        self.0.source.source().is_stopped(self.0.ticket)
    }

    fn task(&self) -> Option<TaskId> {
        self.0.source.source().task()
    }
}

/// As what this thread's waits are watched now.
#[inline]
pub(crate) fn waiter() -> Option<Waiter> {
    look(|frame| frame.source().source().waiter()).flatten()
}

/// Shows each call on this thread's stack, and the one on top of which it is made, as what they wait.
pub(crate) fn stacked(mut see: impl FnMut(Waiter, Waiter)) {
    let mut upper = CURRENT.get();
    // SAFETY: not null, it was set by a `making` further down on this thread's stack, and so was each `outer`, by one below that.
    while let Some(frame) = unsafe { upper.as_ref() } {
        // SAFETY: as above.
        let lower = unsafe { frame.outer.as_ref() };
        let waiter = |frame: &Frame| frame.source().source().waiter();
        if let Some((upper, lower)) = waiter(frame).zip(lower.and_then(waiter)) {
            see(upper, lower);
        }
        upper = frame.outer;
    }
}

/// The call on this thread has polled a future that is not done: the thread may now park until it is.
pub(crate) fn may_park() {
    let news = look(|frame| !frame.may_park.replace(true));
    if news == Some(true) && !blocking::block() {
        look(|frame| frame.may_park.set(false)); // nobody minds
    }
}

/// The call on this thread has not parked it, or is back.
pub(crate) fn is_back() {
    if look(|frame| frame.may_park.take()) == Some(true) {
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
    let call = look(Frame::call);
    let task = call.as_ref().and_then(|call| call.source.source().task());
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
            || self.call.as_ref().is_some_and(|call| call.source.source().is_stopped(call.ticket))
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
