//! What a worker thread does when the call that it runs waits for another task.
//!
//! A pool whose workers all wait for tasks that are queued behind them would stand still. So a pool
//! tells this module, for each of its threads, who it is; and a wait then does one of two things.
//! If the awaited task belongs to the same pool and has not begun, the waiter runs it in place. If
//! it is running elsewhere, the waiter blocks and lets the pool put a spare thread to work. It never
//! runs an unrelated task: that task could want a lock that the waiter holds.

use std::{
    cell::{Cell, RefCell},
    fmt,
    marker::PhantomData,
    num::NonZeroU32,
    panic::Location,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    error::TaskId,
    stats::{Counters, Made},
    sync::{atomic::AtomicBool, thread_local},
};

/// Names a pool whose waiting workers may run its tasks in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Home(NonZeroU32);

impl Home {
    /// A name that no other pool of this process has.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "each one is different, which a default value is not")]
    pub fn new() -> Home {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // ORDERING: Relaxed; only uniqueness matters.
        let number = u32::try_from(NEXT.fetch_add(1, Ordering::Relaxed)).ok();
        Home(number.and_then(NonZeroU32::new).expect("fewer than four billion pools in a program's life"))
    }

    pub(crate) fn number(self) -> u32 {
        self.0.get()
    }
}

/// A pool's thread, as a wait sees it.
pub trait Worker {
    /// The pool to which the thread belongs.
    fn home(&self) -> Home;

    /// The thread is about to block on a task that runs elsewhere.
    fn block(&self);

    /// It is back.
    fn unblock(&self);

    /// The thread, waiting in a call, makes another one in place.
    fn begin_in_place(&self, task: TaskId, site: &'static Location<'static>) {
        let _ = (task, site);
        Counters::begin_in_place_at(self.home().number());
    }

    /// That one is over.
    fn end_in_place(&self, made: Made) {
        Counters::end_in_place_at(self.home().number(), made);
    }

    /// What becomes true when the pool asks all that runs to stop.
    fn stopping(&self) -> Option<Arc<AtomicBool>> {
        None
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<dyn Worker>>> = const { RefCell::new(None) };
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Calls nested in place on one stack before a wait blocks instead, and a spare thread with a fresh
/// stack goes on. A worker's stack of 2 MiB leaves each of them 16 KiB.
const DEPTH_LIMIT: usize = 128;

/// Makes the current thread `worker` until the guard is dropped.
#[must_use = "the thread is a worker only while the guard lives"]
pub fn enter(worker: Rc<dyn Worker>) -> Entered {
    let previous = CURRENT.replace(Some(worker));
    Entered { previous, not_send: PhantomData }
}

/// From [`enter`].
pub struct Entered {
    previous: Option<Rc<dyn Worker>>,
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

/// The pool whose worker this thread is.
#[must_use]
pub fn current_home() -> Option<Home> {
    worker().map(|worker| worker.home())
}

/// What tells whether this thread's pool asks all that runs to stop.
pub(crate) fn pool_is_stopping() -> Option<Arc<AtomicBool>> {
    worker().and_then(|worker| worker.stopping())
}

/// This thread as a worker. A thread that is being taken down is none any more.
fn worker() -> Option<Rc<dyn Worker>> {
    CURRENT.try_with(|worker| worker.borrow().clone()).ok().flatten()
}

/// The thread may block until something is done elsewhere: its pool puts a spare to work. Returns whether it has a pool.
pub(crate) fn block() -> bool {
    let worker = worker();
    if let Some(worker) = &worker {
        worker.block();
    }
    worker.is_some()
}

/// The thread is back from [`block`].
pub(crate) fn unblock() {
    if let Some(worker) = worker() {
        worker.unblock();
    }
}

/// Makes the current thread one that makes a single call for a pool whose worker it is not, until the guard is dropped.
/// It can be told to stop by the pool, and run the pool's tasks in place. Where it blocks matters only to the pool to which
/// it belongs, if it belongs to one.
pub fn enter_as_guest(home: Home, stopping: Arc<AtomicBool>) -> Entered {
    enter(Rc::new(Guest { home, stopping, own: worker() }))
}

struct Guest {
    home: Home,
    stopping: Arc<AtomicBool>,
    own: Option<Rc<dyn Worker>>,
}

impl Worker for Guest {
    fn home(&self) -> Home {
        self.home
    }

    fn block(&self) {
        if let Some(own) = &self.own {
            own.block();
        }
    }

    fn unblock(&self) {
        if let Some(own) = &self.own {
            own.unblock();
        }
    }

    fn stopping(&self) -> Option<Arc<AtomicBool>> {
        Some(Arc::clone(&self.stopping))
    }
}

/// Runs `task` if it belongs to the pool `home` and this thread is one of that pool's workers.
pub(crate) fn in_place(home: u32, task: impl FnOnce()) {
    let at_home = current_home().is_some_and(|current| current.number() == home);
    if at_home {
        let _ = nested(task, |task| task());
    }
}

pub(crate) fn begin_in_place(task: TaskId, site: &'static Location<'static>) {
    if let Some(worker) = worker() {
        worker.begin_in_place(task, site);
    }
}

pub(crate) fn end_in_place(made: Made) {
    if let Some(worker) = worker() {
        worker.end_in_place(made);
    }
}

/// Has a worker `make` a call on top of the one that it makes.
///
/// # Errors
/// The call, when too many lie on this stack already.
pub fn nested<T>(call: T, make: impl FnOnce(T)) -> Result<(), T> {
    if DEPTH.get() >= DEPTH_LIMIT {
        return Err(call);
    }
    DEPTH.set(DEPTH.get() + 1);
    make(call);
    DEPTH.set(DEPTH.get() - 1);
    Ok(())
}

/// Performs a wait that may block, telling this thread's pool around it. For backends: `wait` runs no user code.
pub fn while_blocked<T>(wait: impl FnOnce() -> T) -> T {
    let Some(worker) = worker() else { return wait() };
    worker.block();
    let result = wait();
    worker.unblock();
    result
}
