//! Two closures, possibly at the same time: what divides and conquers stands on. Nothing is allocated, and where nobody helps,
//! next to nothing is done.
//!
//! The second closure is a *fork*: it lies on the stack of the thread that calls `join`, which offers it by
//! a pointer in its [`Forks`] and makes the first call. Then it takes the fork back, which nearly always succeeds, and makes the second call
//! as well. An idle worker that takes the fork instead sets its latch when it is done.
//!
//! # Waiting for a fork that was taken
//! Whoever waits does what the thief offers meanwhile, and nothing else: since a thief offers nothing when it takes a fork (see
//! `forks.rs`), that is part of the very call that is awaited. So the promise holds that a waiter runs nothing
//! unrelated. If there is nothing of the kind, it looks for a short while, and then blocks, and the pool puts a spare to work.
//!
//! # Who may
//! Any thread: one that is no worker of the pool lists its forks there for as long as its outermost `join` lasts.

#![expect(unsafe_code, reason = "a fork lies on the stack of a thread that waits for it")]

use executor_core::{
    blocking::{self, Home},
    current::{self, Here},
    panic::{Unwinding, catch_unwinding, drop_quietly, keep_origin},
    seat::Seat,
};
use std::{
    cell::{Cell, UnsafeCell},
    hint,
    mem::{self, ManuallyDrop, MaybeUninit},
    ptr::{self, NonNull},
    sync::{Arc, Weak},
    thread,
};

use crate::{
    barrier,
    forks::{Forks, Room},
    latch::Latch,
    pool::ThreadPoolExecutor,
    shared::Shared,
    sync::{
        self, Mutex,
        atomic::{AtomicBool, Ordering},
        thread_local,
    },
};

/// How often a waiter looks before it blocks: some ten microseconds, which waking it would cost at least.
const LOOKS: usize = if sync::IS_MODELLED { 2 } else { 300 };

impl ThreadPoolExecutor {
    /// Runs two closures, possibly at the same time, and gives both results.
    ///
    /// `b` is offered to the pool while this thread runs `a`. If nobody has taken it by then, this thread runs `b` as well. That costs a
    /// few nanoseconds more than calling one after the other, so it may be done for parts that are small.
    ///
    /// Both are part of the call that this thread makes, if it makes one: [`current_task`](executor_core::current_task) is the
    /// same in both.
    ///
    /// # Panics
    /// If either panics, after both are over, with what that one panicked with; `a`'s goes first.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ThreadPoolExecutor;
    ///
    /// fn sum(pool: &ThreadPoolExecutor, numbers: &[u64]) -> u64 {
    ///     if numbers.len() <= 1000 {
    ///         return numbers.iter().sum();
    ///     }
    ///     let (left, right) = numbers.split_at(numbers.len() / 2);
    ///     let (left, right) = pool.join(|| sum(pool, left), || sum(pool, right));
    ///     left + right
    /// }
    ///
    /// let pool = ThreadPoolExecutor::new(2)?;
    /// assert_eq!(sum(&pool, &(0..10_000).collect::<Vec<_>>()), 49_995_000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn join<A, B, RA, RB>(&self, a: A, b: B) -> (RA, RB)
    where
        A: FnOnce() -> RA,
        B: FnOnce() -> RB + Send,
        RB: Send,
    {
        let pool = self.shared();
        with_forks(pool, |lister| join_on(pool, lister, a, b))
    }
}

impl ThreadPoolExecutor {
    /// Whether nothing of this thread's is there that others could take.
    pub(crate) fn offers_nothing(&self) -> bool {
        with_lister(|lister| match lister {
            Some(lister) if lister.pool == self.shared().home() => lister.forks.is_empty(),
            _ => true,
        })
    }
}

/// What lists forks for a thread, while the thread is on its way through a `join`.
pub(crate) struct Lister {
    pool: Home,
    forks: Arc<Forks<Fork>>,
}

thread_local! {
    /// Of the pool whose `join` this thread is in, or whose worker it is.
    static LISTER: Cell<*const Lister> = const { Cell::new(ptr::null()) };
}

/// The threads of a pool that have been in a `join`.
#[derive(Default)]
pub(crate) struct Forkers {
    /// There was one.
    any: AtomicBool,
    listed: Mutex<Vec<Arc<Forks<Fork>>>>,
    /// Somebody was called to help, and has not come yet.
    calling: AtomicBool,
}

impl Forkers {
    /// Whether there may be forks. Then whoever is about to sleep, and has said so, passes its half of the barrier before it looks
    /// for the last time.
    pub(crate) fn are_there(&self) -> bool {
        // ORDERING: SeqCst, against `enlist`: either this sees that forks may come, or who offers them sees who sleeps.
        self.any.load(Ordering::SeqCst)
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.are_there() || self.listed.lock().iter().all(|forks| forks.is_empty())
    }

    /// Somebody has come.
    pub(crate) fn come(&self) {
        if self.calling.load(Ordering::Relaxed) {
            self.calling.store(false, Ordering::Relaxed);
        }
    }

    fn enlist(&self, forks: &Arc<Forks<Fork>>) {
        self.listed.lock().push(Arc::clone(forks));
        self.any.store(true, Ordering::SeqCst);
    }

    fn strike_out(&self, forks: &Arc<Forks<Fork>>) {
        self.listed.lock().retain(|listed| !Arc::ptr_eq(listed, forks));
    }
}

/// Has this thread list its forks with `pool` while it does `body`.
pub(crate) fn as_forker<T>(pool: &Shared, body: impl FnOnce(&Lister) -> T) -> T {
    struct Restored<'a>(&'a Lister, &'a Shared, *const Lister);
    impl Drop for Restored<'_> {
        fn drop(&mut self) {
            LISTER.set(self.2);
            if self.0.forks.has_begun() {
                self.1.forkers().strike_out(&self.0.forks);
            }
        }
    }
    let lister = Lister { pool: pool.home(), forks: Arc::new(Forks::new()) };
    let _restored = Restored(&lister, pool, LISTER.replace(&lister));
    body(&lister)
}

#[inline]
fn with_lister<T>(body: impl FnOnce(Option<&Lister>) -> T) -> T {
    let lister = LISTER.get();
    // SAFETY: not null, it was set by `as_forker` further down on this stack, which sets it back before its lister goes.
    body(unsafe { lister.as_ref() })
}

#[inline]
fn with_forks<T>(pool: &Arc<Shared>, body: impl FnOnce(&Lister) -> T) -> T {
    with_lister(|lister| match lister {
        Some(lister) if lister.pool == pool.home() => body(lister),
        _ => from_outside(pool, body),
    })
}

#[cold]
fn from_outside<T>(pool: &Arc<Shared>, body: impl FnOnce(&Lister) -> T) -> T {
    as_forker(pool, body)
}

/// A closure on the stack of the thread that waits for it, as others see it.
pub(crate) struct Fork {
    /// Makes the call and leaves its outcome beside it. To be called once, by who has taken the fork.
    run: unsafe fn(NonNull<Fork>),
    latch: Latch,
    here: Here,
    /// Whose forks those are that belong to this one. Written by who takes it, and taken out by the owner, who then waits.
    thief: UnsafeCell<MaybeUninit<Weak<Forks<Fork>>>>,
}

/// `Fork` comes first, so that a pointer to this is one to that.
#[repr(C)]
struct OnStack<B, R> {
    fork: Fork,
    call: UnsafeCell<ManuallyDrop<B>>,
    outcome: UnsafeCell<MaybeUninit<Result<R, Unwinding>>>,
}

impl<B: FnOnce() -> R + Send, R: Send> OnStack<B, R> {
    fn new(call: B) -> Self {
        OnStack {
            fork: Fork {
                run: Self::run,
                latch: Latch::new(),
                here: current::here(),
                thief: UnsafeCell::new(MaybeUninit::uninit()),
            },
            call: UnsafeCell::new(ManuallyDrop::new(call)),
            outcome: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    fn pointer(&self) -> NonNull<Fork> {
        NonNull::from(self).cast()
    }

    /// # Safety
    /// `fork` is the head of an `OnStack<B, R>` whose owner waits for it, and was taken by the caller, who calls this once.
    unsafe fn run(fork: NonNull<Fork>) {
        // SAFETY: of this type, and there until its latch is set, by this function's contract.
        let this = unsafe { fork.cast::<Self>().as_ref() };
        // SAFETY: whoever has taken the fork has its call to himself, once.
        let call = unsafe { this.take_call() };
        let outcome = catch_unwinding(|| {
            // SAFETY: the owner waits for the latch inside the call that it made when it put the fork there.
            unsafe { this.fork.here.on_behalf(call) }
        });
        // SAFETY: nobody looks at the outcome before the latch is set.
        unsafe { (*this.outcome.get()).write(outcome) };
    }

    /// # Safety
    /// The caller took the fork, or took it back, and calls this once.
    unsafe fn take_call(&self) -> B {
        // SAFETY: who has the fork is the only one to look, by this function's contract.
        let call = unsafe { &mut *self.call.get() };
        // SAFETY: once, by this function's contract.
        unsafe { ManuallyDrop::take(call) }
    }

    /// # Safety
    /// The latch is set, and the caller, who is the owner, calls this once.
    unsafe fn take_outcome(&self) -> Result<R, Unwinding> {
        // SAFETY: it was written before the latch was set, and the thief does not touch it after that.
        let outcome = unsafe { &*self.outcome.get() };
        // SAFETY: written, and read out once, by this function's contract.
        unsafe { outcome.assume_init_read() }
    }
}

#[inline]
fn join_on<A, B, RA, RB>(pool: &Arc<Shared>, lister: &Lister, a: A, b: B) -> (RA, RB)
where
    A: FnOnce() -> RA,
    B: FnOnce() -> RB + Send,
    RB: Send,
{
    match lister.forks.room() {
        Room::There => {}
        Room::None => return one_after_the_other(a, b),
        Room::NotYet => begin(pool, lister),
    }
    let fork = OnStack::new(b);
    lister.forks.push(fork.pointer());
    // From here on the fork must neither move nor go before it is taken back, or done: also if `a` panics.
    let unfinished = Unfinished { lister, fork: &fork };
    // ORDERING: against a worker that is about to sleep and says so: either it sees the fork, or this sees it.
    barrier::light();
    if pool.could_help() {
        call_help(pool);
    }
    let a = a();
    mem::forget(unfinished);
    if lister.forks.pop() {
        // SAFETY: it was taken back; and `unfinished` is forgotten, so this is the only time.
        let b = unsafe { fork.take_call() };
        return (a, b());
    }
    // SAFETY: it could not be taken back, so somebody has taken it; once, as above.
    unsafe { await_fork(lister, &fork.fork) };
    // SAFETY: its latch is set; once, as above.
    match unsafe { fork.take_outcome() } {
        Ok(b) => (a, b),
        Err(unwinding) => {
            drop(a);
            unwinding.resume()
        }
    }
}

/// A thread's first fork for this pool. Thieves may know its forks already: those who wait for what it took.
#[cold]
fn begin(pool: &Shared, lister: &Lister) {
    barrier::prepare();
    lister.forks.begin();
    pool.forkers().enlist(&lister.forks);
}

/// `a` panicked: `b` is done all the same, and its outcome dropped.
struct Unfinished<'a, B: FnOnce() -> R + Send, R: Send> {
    lister: &'a Lister,
    fork: &'a OnStack<B, R>,
}

impl<B: FnOnce() -> R + Send, R: Send> Drop for Unfinished<'_, B, R> {
    fn drop(&mut self) {
        let _origin = keep_origin();
        if self.lister.forks.pop() {
            // SAFETY: it was taken back; `join_on` is unwinding, so it does not.
            let call = unsafe { self.fork.take_call() };
            drop_quietly(catch_unwinding(call));
        } else {
            // SAFETY: it could not be taken back, so somebody has taken it; `join_on` is unwinding, so it does not wait as well.
            unsafe { await_fork(self.lister, &self.fork.fork) };
            // SAFETY: the latch is set; `join_on` is unwinding, so it does not.
            drop_quietly(unsafe { self.fork.take_outcome() });
        }
    }
}

/// For which there is no room.
#[inline]
fn one_after_the_other<RA, RB>(a: impl FnOnce() -> RA, b: impl FnOnce() -> RB) -> (RA, RB) {
    struct Second<B: FnOnce() -> R, R>(Option<B>);
    impl<B: FnOnce() -> R, R> Drop for Second<B, R> {
        fn drop(&mut self) {
            // `a` panicked.
            if let Some(call) = self.0.take() {
                let _origin = keep_origin();
                drop_quietly(catch_unwinding(call));
            }
        }
    }
    let mut second = Second(Some(b));
    let a = a();
    let b = second.0.take().expect("nobody else takes it");
    mem::forget(second); // it is empty
    (a, b())
}

/// One at a time: who comes looks at all forks, and calls the next.
#[cold]
fn call_help(pool: &Arc<Shared>) {
    // ORDERING: Relaxed; a call too many or too few costs time only.
    if !pool.forkers().calling.load(Ordering::Relaxed) && !pool.forkers().calling.swap(true, Ordering::Relaxed) {
        let somebody_comes = pool.call_for_forks();
        if !somebody_comes {
            pool.forkers().come();
        }
    }
}

/// An idle worker's: does a fork of somebody's, if there is one.
pub(crate) fn help(pool: &Arc<Shared>, lister: &Lister, seat: &Seat) -> bool {
    let forkers = pool.forkers();
    forkers.come();
    if !forkers.are_there() {
        return false;
    }
    let found = {
        let listed = forkers.listed.lock();
        listed.iter().find_map(|owner| Some((Arc::clone(owner), take(owner, lister, || true)?)))
    };
    let Some((owner, fork)) = found else { return false };
    seat.be_busy();
    pool.pass_on();
    if !owner.is_empty() && pool.could_help() {
        call_help(pool); // there is more where this came from
    }
    // SAFETY: it was taken just now, by this thread, which does it once.
    unsafe { perform(fork, &owner) };
    seat.be_idle();
    true
}

/// Takes a fork of `owner`'s, and says so in it.
fn take(owner: &Forks<Fork>, thief: &Lister, may: impl FnOnce() -> bool) -> Option<NonNull<Fork>> {
    owner.steal(may, |fork| {
        // SAFETY: it is there until its latch is set, which who takes it does.
        let fork = unsafe { fork.as_ref() };
        // SAFETY: under the lock of `owner`, which the owner takes before it looks; and nobody else has this fork.
        unsafe { (*fork.thief.get()).write(Arc::downgrade(&thief.forks)) };
    })
}

/// # Safety
/// The caller has taken `fork` from `owner`, and calls this once.
unsafe fn perform(fork: NonNull<Fork>, owner: &Forks<Fork>) {
    // SAFETY: it is there until its latch is set.
    let run = unsafe { fork.as_ref() }.run;
    // SAFETY: by this function's contract; `run` is that of the type that lies there.
    unsafe { run(fork) };
    // SAFETY: it is there until its latch is set, which this does. Its owner may go on from then on, and the fork be gone.
    let awaited = unsafe { fork.as_ref() }.latch.set();
    if awaited {
        owner.wake_owner();
    }
}

/// # Safety
/// The caller is the owner, has found that the fork was taken, and calls this once.
#[cold]
unsafe fn await_fork(lister: &Lister, fork: &Fork) {
    let is_done = || fork.latch.is_set();
    // SAFETY: the fork was found to be taken under the lock under which this was written, and nobody touches it again.
    let thief = unsafe { &*fork.thief.get() };
    // SAFETY: written by who took the fork, and taken out once, by this function's contract.
    let thief = unsafe { thief.assume_init_read() };
    let mut looks = 0;
    while looks < LOOKS {
        if is_done() {
            return;
        }
        let helped = thief.upgrade().is_some_and(|thief| help_thief(lister, &thief, is_done));
        looks = if helped { 0 } else { looks + 1 };
        if looks % 32 == 31 {
            thread::yield_now();
        } else {
            hint::spin_loop();
        }
    }
    fork.latch.wait(|is_set| blocking::while_blocked(|| lister.forks.wait(is_set)));
}

/// Does a part of the call that `thief` makes of this thread's fork, if it offers one, and the fork is not done.
fn help_thief(lister: &Lister, thief: &Arc<Forks<Fork>>, is_done: impl Fn() -> bool) -> bool {
    let mut helped = false;
    let _too_deep = blocking::nested((), |()| {
        // Not done when it was certain which one is taken, so the thief has been at the fork all the time, and offers no other's parts.
        if let Some(part) = take(thief, lister, || !is_done()) {
            // SAFETY: it was taken just now, by this thread, which does it once.
            unsafe { perform(part, thief) };
            helped = true;
        }
    });
    helped
}
