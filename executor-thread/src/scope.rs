//! Calls on a thread pool that borrow from the caller's stack.

#![expect(unsafe_code, reason = "a closure's lifetime is extended for as long as its scope waits for it")]

use executor_core::{
    Future, Task, TaskError,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};
use std::{
    fmt,
    marker::PhantomData,
    mem,
    panic::{self, AssertUnwindSafe, Location},
    process,
    sync::Arc,
};

use crate::pool::ThreadPoolExecutor;

/// Where calls that borrow can be spawned. From [`ThreadPoolExecutor::scope`].
pub struct Scope<'scope, 'env: 'scope> {
    pool: &'scope ThreadPoolExecutor,
    spawned: Mutex<Vec<Arc<Spawned>>>,
    // Invariant in both, as for the standard library's scoped threads: `'scope` must not shrink to
    // something that ends before the wait, nor `'env` to something inside the scope.
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

struct Spawned {
    future: Future<()>,
    /// Somebody asked for the outcome, and knows if it is a panic.
    asked: AtomicBool,
}

impl ThreadPoolExecutor {
    /// Runs `body`, which may spawn calls that borrow what lives outside of the scope. Returns when `body` and all of
    /// them are over.
    ///
    /// # Panics
    /// If `body` panics, or a spawned call panicked, or was never made since the pool is shut down, and nobody asked for its
    /// result; in any case after all calls are over.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ThreadPoolExecutor;
    ///
    /// let pool = ThreadPoolExecutor::new(2)?;
    /// let mut numbers = [1, 2, 3, 4];
    /// let (left, right) = numbers.split_at_mut(2);
    /// pool.scope(|scope| {
    ///     scope.spawn(|| left.iter_mut().for_each(|n| *n *= 10));
    ///     scope.spawn(|| right.iter_mut().for_each(|n| *n *= 100));
    /// });
    /// assert_eq!(numbers, [10, 20, 300, 400]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn scope<'env, T>(&self, body: impl for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T) -> T {
        let scope = Scope { pool: self, spawned: Mutex::default(), scope: PhantomData, env: PhantomData };
        let result = panic::catch_unwind(AssertUnwindSafe(|| body(&scope)));
        let guard = AbortIfPanic;
        let spawned = scope.wait_for_all();
        mem::forget(guard);
        let result = result.unwrap_or_else(|payload| panic::resume_unwind(payload));
        for spawned in spawned {
            // ORDERING: Relaxed; the wait for the call ordered what it did.
            if !spawned.asked.load(Ordering::Relaxed)
                && let Some(error) = spawned.future.exception()
            {
                panic!("a call in a scope: {error}");
            }
        }
        result
    }
}

/// A wait that unwound would let go of what calls still borrow.
struct AbortIfPanic;

impl Drop for AbortIfPanic {
    fn drop(&mut self) {
        eprintln!("concurrent-futures: a scope could not wait for its calls; aborting");
        process::abort();
    }
}

impl<'scope> Scope<'scope, '_> {
    /// Submits `call` to the scope's pool. Dropping the returned handle does not cancel it. Where the pool has a
    /// [queue capacity](crate::ThreadPoolExecutorBuilder::queue_capacity) that is used up and rejects calls, this thread makes it.
    #[track_caller]
    pub fn spawn<F, R>(&'scope self, call: F) -> ScopedFuture<'scope, R>
    where
        F: FnOnce() -> R + Send + 'scope,
        R: Send + 'scope,
    {
        self.spawn_at(call, Location::caller())
    }

    fn spawn_at<F, R>(&'scope self, call: F, site: &'static Location<'static>) -> ScopedFuture<'scope, R>
    where
        F: FnOnce() -> R + Send + 'scope,
        R: Send + 'scope,
    {
        let value = Arc::new(Mutex::new(None));
        let put = Arc::clone(&value);
        let call: Box<dyn FnOnce() + Send + 'scope> = Box::new(move || {
            let result = call();
            *put.lock() = Some(result);
        });
        // SAFETY: only the lifetime changes. The closure, with all that it borrows, is gone before its
        // task is published as over: run to its end or unwound, or dropped without being run
        // (`executor_core::cell` drops a task's work before it publishes the end). `scope` returns
        // to where the borrows may end only after it has waited for that publication, for every
        // task that was spawned, also when its body panics; `self.spawned` cannot be emptied
        // otherwise. What the call returned is either in `value`, whose owners are the closure and
        // a `ScopedFuture<'scope, R>`, or was dropped with the closure.
        let call = unsafe { mem::transmute::<Box<dyn FnOnce() + Send + 'scope>, Box<dyn FnOnce() + Send>>(call) };
        let (task, future) = Task::local_at(call, site);
        let spawned = Arc::new(Spawned { future, asked: AtomicBool::new(false) });
        // Listed before it is submitted: from here on the scope waits for it, whatever happens.
        self.spawned.lock().push(Arc::clone(&spawned));
        self.pool.execute_scoped(task);
        ScopedFuture { spawned, value, scope: PhantomData }
    }

    /// Calls may spawn further ones, so this goes on until none is left that was not waited for.
    fn wait_for_all(&self) -> Vec<Arc<Spawned>> {
        let mut waited = Vec::new();
        loop {
            let next = self.spawned.lock().pop();
            let Some(spawned) = next else { return waited };
            spawned.future.wait_regardless();
            waited.push(spawned);
        }
    }
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("spawned", &self.spawned.lock().len()).finish_non_exhaustive()
    }
}

/// The result that a call in a [`Scope`] will have.
///
/// Dropped without having been asked, it leaves the call to the scope, of which a panic of the call becomes a panic.
pub struct ScopedFuture<'scope, R> {
    spawned: Arc<Spawned>,
    value: Arc<Mutex<Option<R>>>,
    scope: PhantomData<&'scope ()>,
}

impl<R> ScopedFuture<'_, R> {
    /// Waits for the call and gives its value.
    ///
    /// # Errors
    /// [`TaskError`] when the call panicked, or was cancelled by the pool's shutdown.
    pub fn result(self) -> Result<R, TaskError> {
        self.spawned.asked.store(true, Ordering::Relaxed);
        match self.spawned.future.exception() {
            Some(error) => Err(error.clone()),
            None => {
                // Whoever sees `done` may still be ahead of the publication.
                self.spawned.future.wait();
                Ok(self.value.lock().take().expect("a call that returned has put its value"))
            }
        }
    }

    /// Whether the call is over.
    #[must_use]
    pub fn done(&self) -> bool {
        self.spawned.future.done()
    }
}

impl<R> fmt::Debug for ScopedFuture<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ScopedFuture").field(&self.spawned.future).finish()
    }
}
