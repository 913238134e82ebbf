//! One thread for one call: starting it, waiting for it, and which there are.

use executor_core::{
    Future, Task, TaskError, blocking,
    sync::{
        Mutex,
        atomic::AtomicBool,
        thread::{self, JoinHandle, ThreadId},
        thread_local,
    },
};
use std::{
    cell::RefCell,
    error, fmt, fs, io,
    panic::Location,
    sync::{
        Arc, LazyLock, OnceLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// A call on a thread of its own, not yet started. Python's `threading.Thread`, in the form of `Process`.
///
/// The function is an `fn` item or a closure that captures nothing, as for a `Process`, so that one can take the other's place; a
/// closure with captures has [`from_fn`](Self::from_fn). Unlike Python's, a thread gives its result back.
///
/// # How it ends
/// When the function returns or panics. A panic's message goes to standard error, with the thread's name, as the panic hook
/// ([`std::panic::set_hook`]) has it; the program goes on, and [`join`](ThreadHandle::join) says so. When `main` returns, or
/// the process exits, all threads end with it.
///
/// A thread cannot be ended from outside. What it calls can be [asked to stop](Future::cancel), through its
/// [future](ThreadHandle::future), and [looks](executor_core::current_task) now and then.
///
/// # Examples
/// ```
/// use concurrent_futures::Thread;
///
/// fn square(number: u64) -> u64 {
///     number * number
/// }
///
/// let worker = Thread::new(square, 12).name("squares").start()?;
/// assert_eq!(worker.name(), "squares");
/// assert_eq!(worker.join()?, &144);
/// assert!(!worker.is_alive());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "it does nothing until it is started"]
pub struct Thread<R> {
    call: Box<dyn FnOnce() -> R + Send>,
    site: &'static Location<'static>,
    name: Option<String>,
    daemon: Option<bool>,
    stack_size_bytes: Option<usize>,
}

impl<R: Send + 'static> Thread<R> {
    /// A thread that is to call `target` on `args`. They need not be serialisable: a channel or an `Arc` is fine.
    #[track_caller]
    pub fn new<A: Send + 'static>(target: fn(A) -> R, args: A) -> Thread<R> {
        Thread::at(Box::new(move || target(args)), Location::caller())
    }

    /// A thread that is to call a closure with whatever it captured.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::Thread;
    ///
    /// let words = vec!["one", "two"];
    /// assert_eq!(Thread::from_fn(move || words.concat()).start()?.result()?, "onetwo");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn from_fn(call: impl FnOnce() -> R + Send + 'static) -> Thread<R> {
        Thread::at(Box::new(call), Location::caller())
    }

    fn at(call: Box<dyn FnOnce() -> R + Send>, site: &'static Location<'static>) -> Thread<R> {
        Thread { call, site, name: None, daemon: None, stack_size_bytes: None }
    }

    /// What [`current_thread`] says there, and what the system shows (15 bytes of it). Without it: `Thread-1`, `Thread-2`, and so
    /// on, in the order of their starts.
    pub fn name(mut self, name: impl Into<String>) -> Thread<R> {
        self.name = Some(name.into());
        self
    }

    /// Whether nobody waits for it when its handle is dropped. Without it: if the thread that starts it is such a one.
    pub fn daemon(mut self, daemon: bool) -> Thread<R> {
        self.daemon = Some(daemon);
        self
    }

    /// The size of its stack. Without it, the standard library's choice.
    pub fn stack_size_bytes(mut self, bytes: usize) -> Thread<R> {
        self.stack_size_bytes = Some(bytes);
        self
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// The system starts no thread, or the name holds a NUL character.
    pub fn start(self) -> io::Result<ThreadHandle<R>> {
        static THREADS: AtomicU64 = AtomicU64::new(1);
        let name = self.name.unwrap_or_else(|| {
            // ORDERING: Relaxed; only uniqueness matters.
            format!("Thread-{}", THREADS.fetch_add(1, Ordering::Relaxed))
        });
        if name.contains('\0') {
            let why = format!("the name {name:?} must not contain a NUL character");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let mut builder = thread::Builder::new().name(name.clone());
        if let Some(bytes) = self.stack_size_bytes {
            builder = builder.stack_size(bytes);
        }
        let info = ThreadInfo::new(name, self.daemon.unwrap_or_else(|| current_thread().is_daemon()));
        {
            let mut started = STARTED.lock();
            started.retain(|known| known.strong_count() > 0);
            started.push(Arc::downgrade(&info.0));
        }
        let (task, future) = Task::local_at(self.call, self.site);
        let own = info.clone();
        let thread = builder.spawn(move || {
            let _ = own.0.ident.set(thread::current().id());
            let _ended = Ended(own.clone());
            CURRENT.set(Some(own));
            task.run();
        })?;
        let _ = info.0.ident.set(thread.thread().id());
        Ok(ThreadHandle { future: Some(future), info, thread: Mutex::new(Some(thread)) })
    }
}

impl<R> fmt::Debug for Thread<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Thread").field("name", &self.name).field("daemon", &self.daemon).finish_non_exhaustive()
    }
}

/// Notes that its thread has ended, however it does.
struct Ended(ThreadInfo);

impl Drop for Ended {
    fn drop(&mut self) {
        // ORDERING: Release; whoever sees it sees what the call did.
        self.0.0.ended.store(true, Ordering::Release);
    }
}

/// A thread that was started.
///
/// Dropping it waits for the thread to end, unless that is a [daemon](Thread::daemon), or waits for the one who drops it. (Python
/// waits for such threads when the program ends.) Daemons go on by themselves, until `main` returns.
#[must_use = "dropping it waits for the thread to end"]
pub struct ThreadHandle<R> {
    /// `None` once `result` has taken it.
    future: Option<Future<R>>,
    info: ThreadInfo,
    thread: Mutex<Option<JoinHandle<()>>>,
}

const HELD: &str = "only `result` takes the future out, and it takes `self` by value";

impl<R> ThreadHandle<R> {
    /// The name that it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        self.info.name()
    }

    /// Which thread it is.
    #[must_use]
    pub fn ident(&self) -> ThreadId {
        *self.info.0.ident.get().expect("a thread that was started has it")
    }

    /// Whether nobody waits for it when this is dropped.
    #[must_use]
    pub fn is_daemon(&self) -> bool {
        self.info.is_daemon()
    }

    /// Whether it has not ended.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.info.is_alive()
    }

    /// Waits until the thread has ended, and shows its result. May be called again, and by several threads.
    ///
    /// Called by the thread itself, or by one for which it waits, it does not wait.
    ///
    /// # Errors
    /// [`ThreadJoinError`]: the call panicked, or the wait would last for ever.
    pub fn join(&self) -> Result<&R, ThreadJoinError>
    where
        R: Sync,
    {
        self.future().wait_or_deadlock().map_err(|error| self.error(error))?;
        self.outcome()
    }

    /// As [`join`](Self::join), for at most `limit`. A limit of zero only looks.
    ///
    /// # Errors
    /// [`ThreadJoinError::is_timeout`]: it has not ended. Otherwise as `join`.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::Thread;
    /// use std::{sync::mpsc, time::Duration};
    ///
    /// let (open, gate) = mpsc::channel::<()>();
    /// let worker = Thread::from_fn(move || gate.recv().is_err()).start()?;
    /// assert!(worker.join_timeout(Duration::ZERO).unwrap_err().is_timeout());
    /// drop(open);
    /// assert_eq!(worker.join_timeout(Duration::from_secs(60))?, &true);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn join_timeout(&self, limit: Duration) -> Result<&R, ThreadJoinError>
    where
        R: Sync,
    {
        if !self.future().wait_timeout(limit) {
            return Err(ThreadJoinError { name: self.name().to_owned(), error: None });
        }
        self.outcome()
    }

    /// Waits until the thread has ended, and gives its result.
    ///
    /// # Errors
    /// As [`join`](Self::join).
    pub fn result(mut self) -> Result<R, ThreadJoinError> {
        let result = self.future.take().expect(HELD).result().map_err(|error| self.error(error));
        if !matches!(&result, Err(error) if error.is_deadlock()) {
            self.reap();
        }
        result
    }

    /// The future of its call: for [`wait`](executor_core::wait()), `as_completed`, `add_done_callback`, and for asking the call to stop.
    pub fn future(&self) -> &Future<R> {
        self.future.as_ref().expect(HELD)
    }

    fn outcome(&self) -> Result<&R, ThreadJoinError>
    where
        R: Sync,
    {
        self.reap();
        let outcome = self.future().peek().expect("it was waited for");
        outcome.map_err(|error| self.error(error.clone()))
    }

    /// Waits until nothing is left of the thread.
    fn reap(&self) {
        if self.info.ident() == Some(thread::current().id()) {
            return; // in a callback
        }
        blocking::while_blocked(|| {
            // Held meanwhile: whoever else joins returns when the thread has ended, too.
            let mut thread = self.thread.lock();
            if let Some(thread) = thread.take() {
                // Its panics were caught, but for those of its thread-local values, which abort.
                let _ = thread.join();
            }
        });
    }

    fn error(&self, error: TaskError) -> ThreadJoinError {
        ThreadJoinError { name: self.info.name().to_owned(), error: Some(error) }
    }
}

impl<R> fmt::Debug for ThreadHandle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("ThreadHandle");
        shown.field("name", &self.name()).field("daemon", &self.is_daemon()).field("is_alive", &self.is_alive());
        shown.finish_non_exhaustive()
    }
}

impl<R> Drop for ThreadHandle<R> {
    fn drop(&mut self) {
        let Some(future) = self.future.as_ref().filter(|_| !self.is_daemon()) else { return };
        if future.wait_or_deadlock().is_ok() {
            self.reap();
        }
    }
}

/// A thread gave no result, or not in time.
#[derive(Clone, Debug)]
pub struct ThreadJoinError {
    name: String,
    error: Option<TaskError>,
}

impl ThreadJoinError {
    /// It still runs.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.error.is_none()
    }

    /// Its call panicked.
    #[must_use]
    pub fn is_panic(&self) -> bool {
        self.error.as_ref().is_some_and(TaskError::is_panic)
    }

    /// Waiting for it would last for ever, since it waits for whoever waits for it: most often, it is the thread itself.
    #[must_use]
    pub fn is_deadlock(&self) -> bool {
        self.error.as_ref().is_some_and(TaskError::is_deadlock)
    }

    /// What the call said as it panicked.
    #[must_use]
    pub fn panic_message(&self) -> Option<&str> {
        self.error.as_ref().and_then(TaskError::panic_message)
    }

    /// How the call ended, or `None` if it has not.
    #[must_use]
    pub fn error(&self) -> Option<&TaskError> {
        self.error.as_ref()
    }
}

impl fmt::Display for ThreadJoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.error {
            None => write!(f, "thread {} still runs", self.name),
            Some(error) => write!(f, "thread {}: {error}", self.name),
        }
    }
}

impl error::Error for ThreadJoinError {}

/// All that were started with a [`Thread`] and are not forgotten.
static STARTED: Mutex<Vec<Weak<Known>>> = Mutex::new(Vec::new());

static MAIN: LazyLock<ThreadInfo> = LazyLock::new(|| ThreadInfo::new("MainThread".into(), false));

thread_local! {
    /// This thread, once that is known.
    static CURRENT: RefCell<Option<ThreadInfo>> = const { RefCell::new(None) };
}

/// What is known of a thread. From [`current_thread`], [`enumerate`] and [`main_thread`].
#[derive(Clone)]
pub struct ThreadInfo(Arc<Known>);

struct Known {
    name: String,
    daemon: bool,
    ident: OnceLock<ThreadId>,
    ended: AtomicBool,
}

impl ThreadInfo {
    fn new(name: String, daemon: bool) -> Self {
        ThreadInfo(Arc::new(Known { name, daemon, ident: OnceLock::new(), ended: AtomicBool::new(false) }))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Which thread it is. `None`: it was started only just now, or it is the main thread, and that has not asked for itself yet.
    #[must_use]
    pub fn ident(&self) -> Option<ThreadId> {
        self.0.ident.get().copied()
    }

    /// Whether nobody waits for it when its handle is dropped.
    #[must_use]
    pub fn is_daemon(&self) -> bool {
        self.0.daemon
    }

    /// Whether it has not ended. Of a thread that was not started with a [`Thread`] this is not known, and true.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        // ORDERING: Acquire; see `Ended`.
        !self.0.ended.load(Ordering::Acquire)
    }
}

/// They are the same if they are of the same thread.
impl PartialEq for ThreadInfo {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for ThreadInfo {}

impl fmt::Debug for ThreadInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("ThreadInfo");
        shown.field("name", &self.name()).field("ident", &self.ident()).field("daemon", &self.is_daemon());
        shown.field("is_alive", &self.is_alive()).finish()
    }
}

/// This thread. Python's function of that name.
///
/// One that was started otherwise has the name that it has there, or is called `Dummy-1`, `Dummy-2`, and so on.
///
/// # Examples
/// ```
/// use concurrent_futures::{Thread, threading::current_thread};
///
/// let worker = Thread::new(|()| current_thread().name().to_owned(), ()).name("worker").start()?;
/// assert_eq!(worker.result()?, "worker");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn current_thread() -> ThreadInfo {
    // A thread that is being taken down remembers nothing any more.
    let known = CURRENT.try_with(|current| current.borrow().clone()).ok().flatten();
    known.unwrap_or_else(|| {
        let info = if is_main() { MAIN.clone() } else { foreign() };
        let _ = info.0.ident.set(thread::current().id());
        let _ = CURRENT.try_with(|current| current.replace(Some(info.clone())));
        info
    })
}

fn foreign() -> ThreadInfo {
    static DUMMIES: AtomicU64 = AtomicU64::new(1);
    let name = thread::current().name().map_or_else(
        // ORDERING: Relaxed; only uniqueness matters.
        || format!("Dummy-{}", DUMMIES.fetch_add(1, Ordering::Relaxed)),
        str::to_owned,
    );
    ThreadInfo::new(name, false)
}

/// Whether this is the thread with which the process began. The standard library knows only when `main` has begun, and a worker
/// process calls before that.
fn is_main() -> bool {
    match fs::read_link("/proc/thread-self") {
        Ok(path) => path.file_name() == path.iter().next(), // process/task/thread
        Err(_) => thread::current().name() == Some("main"),
    }
}

/// The main thread. Python's function of that name.
#[must_use]
pub fn main_thread() -> ThreadInfo {
    MAIN.clone()
}

/// The main thread, and those that were started with a [`Thread`] and have not ended, in the order of their start. Python's function of
/// that name.
///
/// # Examples
/// ```
/// use concurrent_futures::{Thread, threading};
/// use std::sync::mpsc;
///
/// let (open, gate) = mpsc::channel::<()>();
/// let worker = Thread::from_fn(move || drop(gate.recv())).name("waits").start()?;
/// let names: Vec<_> = threading::enumerate().iter().map(|thread| thread.name().to_owned()).collect();
/// assert_eq!(names, ["MainThread", "waits"]);
/// drop(open);
/// worker.join()?;
/// assert_eq!(threading::active_count(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn enumerate() -> Vec<ThreadInfo> {
    let started: Vec<_> = STARTED.lock().iter().filter_map(Weak::upgrade).map(ThreadInfo).collect();
    [main_thread()].into_iter().chain(started).filter(ThreadInfo::is_alive).collect()
}

/// How many threads [`enumerate`] gives.
#[must_use]
pub fn active_count() -> usize {
    enumerate().len()
}
