//! What stands behind the door while a model is explored: loom's or shuttle's locks, threads and atomics, in the shape of those that
//! are used otherwise.
//!
//! Loom goes through every order of a few threads, and every value that a load may see. Shuttle goes through some of the orders of
//! many threads, and knows sequentially consistent accesses only.
//!
//! What panics leave for their hook stays with the real thread (`panic.rs`): the hook is called outside of models too.
//!
//! # Time
//! None passes. A wait with a limit ends at once or is one without a limit, and shuttle chooses which: so whatever follows a limit is
//! explored, before and after what was waited for, and nothing may rely on a limit that passes. Under loom, which is for single
//! cells, no limit passes.
//!
//! # Bugs
//! One can be [planted](plant), which the models then must find:
//!
//! | bug | what is wrong |
//! |---|---|
//! | a late wait | a thread that begins to wait lets its lock go before, and misses what is told in between |
//! | a lock let go | a lock is free for a moment before each change that is made under it |
//! | a forgotten guard | a bit that is to be set is not (loom) |
//! | a forgotten waiter | who tells all that wait tells one |
//! | relaxed publication | a flag orders nothing (loom) |

#[cfg(concurrent_futures_model = "loom")]
use loom as checker;
#[cfg(concurrent_futures_model = "shuttle")]
use shuttle as checker;

use std::{
    cell::{Cell, RefCell},
    mem,
    ops::{Deref, DerefMut},
    sync::{OnceLock, PoisonError, TryLockError},
    time::{Duration, Instant},
};

#[doc(hidden)]
pub use checker::thread_local as checkers_thread_local;

static PLANTED: OnceLock<String> = OnceLock::new();

/// Makes one thing wrong, for the rest of this process.
///
/// # Panics
/// If something is wrong already.
pub fn plant(bug: &str) {
    PLANTED.set(bug.to_owned()).expect("one bug at a time");
}

fn is_planted(bug: &str) -> bool {
    PLANTED.get().is_some_and(|planted| planted == bug)
}

/// As parking_lot's.
#[derive(Debug, Default)]
pub struct Mutex<T> {
    /// Made when it is first locked: loom makes none outside of what it explores, and there are statics.
    lock: OnceLock<checker::sync::Mutex<()>>,
    /// Free whenever `lock` is.
    value: std::sync::Mutex<T>,
}

/// As parking_lot's. Both are there but for a wait.
#[derive(Debug)]
pub struct MutexGuard<'a, T> {
    // The value goes before the lock that keeps others from it.
    value: Option<std::sync::MutexGuard<'a, T>>,
    held: Option<checker::sync::MutexGuard<'a, ()>>,
    mutex: &'a Mutex<T>,
}

impl<T> Mutex<T> {
    /// As parking_lot's.
    pub const fn new(value: T) -> Self {
        Mutex { lock: OnceLock::new(), value: std::sync::Mutex::new(value) }
    }

    /// As parking_lot's.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let held = self.acquire();
        MutexGuard { value: Some(self.value()), held: Some(held), mutex: self }
    }

    fn acquire(&self) -> checker::sync::MutexGuard<'_, ()> {
        let lock = self.lock.get_or_init(|| checker::sync::Mutex::new(()));
        lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn value(&self) -> std::sync::MutexGuard<'_, T> {
        match self.value.try_lock() {
            Ok(value) => value,
            Err(TryLockError::Poisoned(value)) => value.into_inner(),
            Err(TryLockError::WouldBlock) => panic!("a lock that was had twice"),
        }
    }
}

impl<T> MutexGuard<'_, T> {
    /// Lets the lock go for a moment.
    fn bump(&mut self) {
        self.value = None;
        self.held = None;
        checker::thread::yield_now();
        self.held = Some(self.mutex.acquire());
        self.value = Some(self.mutex.value());
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("there but for a wait")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        if is_planted("a lock let go") {
            self.bump();
        }
        self.value.as_mut().expect("there but for a wait")
    }
}

/// As parking_lot's.
#[derive(Debug, Default)]
pub struct Condvar(OnceLock<checker::sync::Condvar>);

/// As parking_lot's.
#[derive(Debug)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// As parking_lot's.
    #[must_use]
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    /// As parking_lot's.
    #[must_use]
    pub const fn new() -> Self {
        Condvar(OnceLock::new())
    }

    fn condvar(&self) -> &checker::sync::Condvar {
        self.0.get_or_init(checker::sync::Condvar::new)
    }

    /// As parking_lot's, and it never ends for nothing.
    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        if is_planted("a late wait") {
            guard.bump();
        }
        guard.value = None;
        let held = guard.held.take().expect("there but for a wait");
        guard.held = Some(self.condvar().wait(held).unwrap_or_else(PoisonError::into_inner));
        guard.value = Some(guard.mutex.value());
    }

    /// See "Time".
    pub fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, _: Instant) -> WaitTimeoutResult {
        #[cfg(concurrent_futures_model = "shuttle")]
        if shuttle::rand::Rng::r#gen(&mut shuttle::rand::thread_rng()) {
            guard.bump();
            return WaitTimeoutResult(true);
        }
        self.wait(guard);
        WaitTimeoutResult(false)
    }

    /// See "Time".
    pub fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, _: Duration) -> WaitTimeoutResult {
        self.wait_until(guard, Instant::now())
    }

    /// As parking_lot's.
    pub fn notify_one(&self) {
        // WAKES: what it wakes in who calls this; see there.
        self.condvar().notify_one();
    }

    /// As parking_lot's.
    pub fn notify_all(&self) {
        if is_planted("a forgotten waiter") {
            // WAKES: too few.
            return self.notify_one();
        }
        // WAKES: what it wakes in who calls this; see there.
        self.condvar().notify_all();
    }
}

/// As the standard library's, but for what orders what is in it: that is watched.
#[cfg(concurrent_futures_model = "loom")]
#[derive(Debug)]
pub struct UnsafeCell<T> {
    value: std::cell::UnsafeCell<T>,
    watched: loom::cell::UnsafeCell<()>,
}

#[cfg(concurrent_futures_model = "loom")]
impl<T> UnsafeCell<T> {
    /// As the standard library's.
    pub fn new(value: T) -> Self {
        UnsafeCell { value: std::cell::UnsafeCell::new(value), watched: loom::cell::UnsafeCell::new(()) }
    }

    /// Loom objects unless all that others did with what is inside comes before or after this. It is told of no difference between
    /// looking and changing: what is kept thus is for one thread at a time.
    pub fn get(&self) -> *mut T {
        self.watched.with_mut(|_| self.value.get())
    }
}

#[cfg(concurrent_futures_model = "shuttle")]
pub use std::cell::UnsafeCell;

/// As the standard library's.
pub mod atomic {
    #[cfg(concurrent_futures_model = "shuttle")]
    pub use shuttle::sync::atomic::{
        AtomicBool, AtomicIsize, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };

    #[cfg(concurrent_futures_model = "loom")]
    pub use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

    /// In which an order can be planted away.
    #[cfg(concurrent_futures_model = "loom")]
    #[derive(Debug, Default)]
    pub struct AtomicU8(loom::sync::atomic::AtomicU8);

    #[cfg(concurrent_futures_model = "loom")]
    impl AtomicU8 {
        /// As the standard library's.
        #[must_use]
        pub fn new(value: u8) -> Self {
            AtomicU8(loom::sync::atomic::AtomicU8::new(value))
        }

        /// As the standard library's.
        pub fn load(&self, order: Ordering) -> u8 {
            self.0.load(order)
        }

        /// As the standard library's.
        pub fn store(&self, value: u8, order: Ordering) {
            self.0.store(value, planted(order));
        }

        /// As the standard library's.
        pub fn fetch_or(&self, bits: u8, order: Ordering) -> u8 {
            if super::is_planted("a forgotten guard") {
                self.0.load(Ordering::Acquire)
            } else {
                self.0.fetch_or(bits, order)
            }
        }

        /// As the standard library's.
        pub fn compare_exchange(&self, from: u8, to: u8, order: Ordering, fails: Ordering) -> Result<u8, u8> {
            self.0.compare_exchange(from, to, planted(order), fails)
        }
    }

    #[cfg(concurrent_futures_model = "loom")]
    fn planted(order: Ordering) -> Ordering {
        if super::is_planted("relaxed publication") { Ordering::Relaxed } else { order }
    }
}

/// As the standard library's.
pub mod thread {
    use super::checker::thread as modelled;
    use std::{
        io,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
    };

    pub use modelled::{Thread, ThreadId, current, panicking, yield_now};

    /// As the standard library's, but for the size of stacks, which is the checker's.
    #[derive(Debug)]
    pub struct Builder(modelled::Builder);

    /// As the standard library's.
    #[derive(Debug)]
    pub struct JoinHandle<T> {
        thread: modelled::JoinHandle<T>,
        finished: Arc<AtomicBool>,
    }

    impl Builder {
        /// As the standard library's.
        #[expect(clippy::new_without_default, reason = "so is the standard library's")]
        #[must_use]
        pub fn new() -> Self {
            Builder(modelled::Builder::new())
        }

        /// As the standard library's.
        #[must_use]
        pub fn name(self, name: String) -> Self {
            Builder(self.0.name(name))
        }

        /// Does nothing.
        #[must_use]
        pub fn stack_size(self, _: usize) -> Self {
            self
        }

        /// As the standard library's.
        ///
        /// # Errors
        /// None.
        pub fn spawn<R: Send + 'static>(self, call: impl FnOnce() -> R + Send + 'static) -> io::Result<JoinHandle<R>> {
            let finished = Arc::new(AtomicBool::new(false));
            let finishes = Arc::clone(&finished);
            let thread = self.0.spawn(move || {
                let result = call();
                finishes.store(true, Ordering::Relaxed);
                result
            })?;
            Ok(JoinHandle { thread, finished })
        }
    }

    impl<T> JoinHandle<T> {
        /// As the standard library's.
        ///
        /// # Errors
        /// As the standard library's.
        pub fn join(self) -> std::thread::Result<T> {
            self.thread.join()
        }

        /// As the standard library's.
        #[must_use]
        pub fn is_finished(&self) -> bool {
            self.finished.load(Ordering::Relaxed)
        }

        /// As the standard library's.
        #[must_use]
        pub fn thread(&self) -> &Thread {
            self.thread.thread()
        }
    }
}

/// As the standard library's, of the model's threads.
#[derive(Debug)]
pub struct LocalKey<T: 'static>(#[doc(hidden)] pub &'static checker::thread::LocalKey<T>);

impl<T> LocalKey<T> {
    /// As the standard library's.
    pub fn with<R>(&'static self, look: impl FnOnce(&T) -> R) -> R {
        self.0.with(look)
    }

    /// As the standard library's.
    ///
    /// # Errors
    /// As the standard library's.
    pub fn try_with<R>(&'static self, look: impl FnOnce(&T) -> R) -> Result<R, checker::thread::AccessError> {
        self.0.try_with(look)
    }
}

impl<T> LocalKey<Cell<T>> {
    /// As the standard library's.
    pub fn get(&'static self) -> T
    where
        T: Copy,
    {
        self.0.with(Cell::get)
    }

    /// As the standard library's.
    pub fn set(&'static self, value: T) {
        self.0.with(|cell| cell.set(value));
    }

    /// As the standard library's.
    pub fn replace(&'static self, value: T) -> T {
        self.0.with(|cell| cell.replace(value))
    }
}

impl<T> LocalKey<RefCell<T>> {
    /// As the standard library's.
    pub fn set(&'static self, value: T) {
        drop(self.replace(value));
    }

    /// As the standard library's.
    pub fn replace(&'static self, value: T) -> T {
        self.0.with(|cell| cell.replace(value))
    }

    /// As the standard library's.
    pub fn take(&'static self) -> T
    where
        T: Default,
    {
        self.0.with(|cell| mem::take(&mut *cell.borrow_mut()))
    }
}

/// As the standard library's, for constants.
#[doc(hidden)]
#[macro_export]
macro_rules! modelled_thread_local {
    ($($(#[$attribute:meta])* $visible:vis static $name:ident: $type:ty = const { $value:expr };)*) => {$(
        $(#[$attribute])*
        $visible static $name: $crate::sync::LocalKey<$type> = {
            $crate::sync::checkers_thread_local! { static OWN: $type = $value }
            $crate::sync::LocalKey(&OWN)
        };
    )*};
}
#[doc(inline)]
pub use crate::modelled_thread_local as thread_local;
