//! Who wants to know what tasks and workers do: observers, and how events come to them.
//!
//! Events come from everywhere: from threads that submit, from workers, from a process pool's driver, often with a lock held.
//! Observers are user code, which may take its time and any lock. So nobody who makes an event runs an observer: he puts the
//! event into the pool's buffer, and one thread of the pool's own takes it from there. That costs the one a short lock, and
//! gives the other events one at a time, in the order in which they became known. The buffer is bounded: of events that come
//! faster than they are taken for too long, it is told how many are missing. Waiting for room instead could be for ever, if an
//! observer waits for a call.
//!
//! A pool without observers has no buffer, and asks once for each call whether it has.

use std::{
    cell::RefCell,
    fmt, io, mem,
    panic::Location,
    process,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    error::{TaskError, TaskId},
    panic::{catch, drop_quietly},
    sync::{
        Condvar, Mutex,
        thread::{self, ThreadId},
        thread_local,
    },
};

/// Events that wait to be told, at most.
const CAPACITY: usize = 1 << 20;

/// How long events are gathered before they are told.
const GATHER: Duration = Duration::from_millis(1);

/// Is told what the tasks and workers of a pool do. Given to a pool by its builder's `observer`.
///
/// The methods are called one at a time, on a thread of the pool's own, a little after what they tell: each event has the
/// time at which it was. Events of one task come in their order: submitted, started, perhaps retried and started again,
/// ended. [`shutdown`](crate::Executor::shutdown), where it waits, also waits until all is told. A panic is printed, and goes
/// no further. A method that is slow holds up no call; events that come much faster than they are told for long are
/// [`missing`](Self::missing).
///
/// A call in a worker process has the times at which it began and ended there.
///
/// # Examples
/// ```
/// use concurrent_futures::{Executor, Observer, Shutdown, TaskEvent, TaskEventKind, ThreadPoolExecutor};
/// use std::sync::{Arc, atomic::{AtomicUsize, Ordering}};
///
/// #[derive(Default)]
/// struct Failures(AtomicUsize);
///
/// impl Observer for Failures {
///     fn task(&self, event: &TaskEvent) {
///         if let TaskEventKind::Ended { error: Some(error) } = &event.kind {
///             eprintln!("{error}");
///             self.0.fetch_add(1, Ordering::Relaxed);
///         }
///     }
/// }
///
/// let failures = Arc::new(Failures::default());
/// let pool = ThreadPoolExecutor::builder().max_workers(2).observer(Arc::clone(&failures)).build()?;
/// pool.submit(|x: u32| 10 / x, 0);
/// pool.shutdown(Shutdown::wait());
/// assert_eq!(failures.0.load(Ordering::Relaxed), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Observer: Send + Sync {
    /// Something happened to a task.
    fn task(&self, event: &TaskEvent) {
        let _ = event;
    }

    /// Something happened to a worker.
    fn worker(&self, event: &WorkerEvent) {
        let _ = event;
    }

    /// So many events could not be kept until they were told: they are missing between the last one and the next.
    fn missing(&self, events: u64) {
        let _ = events;
    }
}

impl<O: Observer + ?Sized> Observer for Arc<O> {
    fn task(&self, event: &TaskEvent) {
        (**self).task(event);
    }

    fn worker(&self, event: &WorkerEvent) {
        (**self).worker(event);
    }

    fn missing(&self, events: u64) {
        (**self).missing(events);
    }
}

/// Something that happened to a task.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TaskEvent {
    /// When it happened.
    pub at: Instant,
    /// What its pool's workers are named after.
    pub pool: Arc<str>,
    /// Which task.
    pub task: TaskId,
    /// The line of the `submit` or `map` that made the task.
    pub submitted_at: &'static Location<'static>,
    /// What is called.
    pub function: Function,
    /// What happened.
    pub kind: TaskEventKind,
}

/// What can happen to a task.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TaskEventKind {
    /// A pool accepted it.
    Submitted,
    /// Its call began.
    Started {
        /// Who makes the call.
        worker: Arc<WorkerInfo>,
    },
    /// An attempt failed, and another one follows.
    Retried {
        /// How it failed.
        error: TaskError,
        /// After how long the next one is queued.
        pause: Duration,
    },
    /// It has its outcome.
    Ended {
        /// `None`: it gave a value. An error for which [`TaskError::is_cancelled`] holds: it was cancelled. For a chunk of a
        /// `map`: the error of the first item that failed.
        error: Option<TaskError>,
    },
}

/// Something that happened to a worker.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WorkerEvent {
    /// When it happened.
    pub at: Instant,
    /// Which worker.
    pub worker: Arc<WorkerInfo>,
    /// What happened.
    pub kind: WorkerEventKind,
}

/// What can happen to a worker.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum WorkerEventKind {
    /// It was started.
    Started,
    /// It ended.
    Ended(WorkerEnd),
}

/// How a worker ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerEnd {
    /// It left: it was idle for too long, or one too many, or its pool was shut down.
    Left,
    /// It was replaced, after so many calls, for its age, or for the memory that it kept.
    Recycled,
    /// It was ended for the sake of a call: one that was killed, or over its time limit.
    Stopped,
    /// It died.
    Died {
        /// How, in words.
        how: String,
    },
}

impl WorkerEvent {
    /// For backends: something that happened now.
    #[must_use]
    pub fn now(worker: &Arc<WorkerInfo>, kind: WorkerEventKind) -> WorkerEvent {
        WorkerEvent { at: Instant::now(), worker: Arc::clone(worker), kind }
    }
}

/// Who makes calls for a pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct WorkerInfo {
    /// What its pool's workers are named after.
    pub pool: Arc<str>,
    /// Its name, which tells it apart from the pool's other workers.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// What it is.
    pub kind: WorkerKind,
}

/// What makes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WorkerKind {
    /// A thread of a pool.
    PoolThread,
    /// A process of a pool.
    WorkerProcess,
    /// A thread that is not the pool's: the caller's own, for which there was no room in the queue.
    Caller,
}

impl WorkerInfo {
    /// For backends.
    #[must_use]
    pub fn new(pool: &Arc<str>, name: impl Into<String>, pid: u32, kind: WorkerKind) -> WorkerInfo {
        WorkerInfo { pool: Arc::clone(pool), name: name.into(), pid, kind }
    }
}

thread_local! {
    static THIS_WORKER: RefCell<Option<Arc<WorkerInfo>>> = const { RefCell::new(None) };
}

/// Says for good who this thread is. For backends.
pub fn be_worker(worker: &Arc<WorkerInfo>) {
    THIS_WORKER.set(Some(Arc::clone(worker)));
}

/// Who makes the call of the pool `pool` on this thread.
pub(crate) fn this_worker(pool: &Arc<str>) -> Arc<WorkerInfo> {
    // A thread that is being taken down is no worker any more.
    let own = THIS_WORKER.try_with(|worker| worker.borrow().clone()).ok().flatten();
    own.filter(|worker| Arc::ptr_eq(&worker.pool, pool)).unwrap_or_else(|| {
        let thread = thread::current();
        let name = thread.name().map_or_else(|| format!("{:?}", thread.id()), str::to_owned);
        Arc::new(WorkerInfo::new(pool, name, process::id(), WorkerKind::Caller))
    })
}

/// A task's function, as far as it can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Function {
    /// Where it lies in this process: to be looked up among the program's symbols. (Of functions with the same machine code
    /// the linker may have kept one.)
    pub address: Option<usize>,
    /// The compiler's name of a closure that stays in this process.
    pub name: Option<&'static str>,
}

impl Function {
    pub(crate) fn at(address: *const ()) -> Function {
        Function { address: Some(address as usize), name: None }
    }

    /// One that has a name, and no address.
    #[must_use]
    pub fn named(name: &'static str) -> Function {
        Function { address: None, name: Some(name) }
    }
}

/// A pool's observers, and the thread that tells them. Dropping it ends the thread, when all is told.
pub struct Observers {
    buffer: Arc<Buffer>,
}

impl Observers {
    /// Starts to tell `observers`. `None`: there are none.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start(observers: Vec<Arc<dyn Observer>>, pool: &str) -> io::Result<Option<Observers>> {
        if observers.is_empty() {
            return Ok(None);
        }
        let pool: Arc<str> = pool.into();
        let buffer = Arc::new(Buffer { pool, inner: Mutex::default(), came: Condvar::new(), told: Condvar::new() });
        let observed = Arc::clone(&buffer);
        let name = format!("{}-observer", buffer.pool);
        thread::Builder::new().name(name).spawn(move || observed.collect(observers))?;
        Ok(Some(Observers { buffer }))
    }

    /// What its pool's workers are named after.
    #[must_use]
    pub fn pool(&self) -> &Arc<str> {
        &self.buffer.pool
    }

    /// Tells of a worker.
    pub fn worker(&self, event: WorkerEvent) {
        self.buffer.push(Event::Worker(event));
    }

    /// Waits until all is told that came before, or until the deadline. Not on the thread that tells.
    pub fn flush(&self, deadline: Option<Instant>) {
        self.buffer.flush(deadline);
    }

    pub(crate) fn buffer(&self) -> &Arc<Buffer> {
        &self.buffer
    }
}

impl Drop for Observers {
    fn drop(&mut self) {
        self.buffer.inner.lock().closed = true;
        // WAKES: the collector, which looks at `closed` under the lock before it waits.
        self.buffer.came.notify_one();
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observers").field("pool", &self.buffer.pool).finish_non_exhaustive()
    }
}

/// A builder's list of observers.
#[derive(Clone, Default)]
pub struct ObserverList(pub Vec<Arc<dyn Observer>>);

impl fmt::Debug for ObserverList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} observers", self.0.len())
    }
}

/// Two lists are equal if their observers are the same.
impl PartialEq for ObserverList {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(|(one, other)| Arc::ptr_eq(one, other))
    }
}

/// Events on their way.
pub(crate) struct Buffer {
    pub(crate) pool: Arc<str>,
    inner: Mutex<Inner>,
    came: Condvar,
    told: Condvar,
}

#[derive(Default)]
struct Inner {
    events: Vec<Event>,
    missing: u64,
    pushed: u64,
    delivered: u64,
    /// The collector waits for an event.
    sleeps: bool,
    /// Somebody waits for the collector.
    hurry: bool,
    closed: bool,
    collector: Option<ThreadId>,
}

enum Event {
    Task(TaskEvent),
    Worker(WorkerEvent),
}

impl Buffer {
    pub(crate) fn task(&self, event: TaskEvent) {
        self.push(Event::Task(event));
    }

    fn push(&self, event: Event) {
        let mut inner = self.inner.lock();
        if inner.events.len() >= CAPACITY {
            inner.missing += 1;
            return;
        }
        inner.events.push(event);
        inner.pushed += 1;
        if mem::take(&mut inner.sleeps) {
            // WAKES: the collector. It said under the lock that it would wait, and looks at the events under it.
            self.came.notify_one();
        }
    }

    fn collect(&self, observers: Vec<Arc<dyn Observer>>) {
        let mut inner = self.inner.lock();
        inner.collector = Some(thread::current().id());
        loop {
            while inner.events.is_empty() && inner.missing == 0 {
                if inner.closed {
                    drop(inner);
                    return drop_quietly(observers);
                }
                inner.sleeps = true;
                self.came.wait(&mut inner);
            }
            let (events, missing) = (mem::take(&mut inner.events), mem::take(&mut inner.missing));
            drop(inner);
            let count = events.len() as u64;
            for event in events {
                tell(&observers, |observer| match &event {
                    Event::Task(event) => observer.task(event),
                    Event::Worker(event) => observer.worker(event),
                });
            }
            if missing > 0 {
                tell(&observers, |observer| observer.missing(missing));
            }
            inner = self.inner.lock();
            inner.delivered += count;
            // WAKES: threads in `flush`, which compare `delivered` under the lock.
            self.told.notify_all();
            inner.hurry &= inner.delivered < inner.pushed;
            if !inner.hurry && !inner.closed {
                // Nobody wakes it for an event, so it wakes once for many.
                self.came.wait_for(&mut inner, GATHER);
            }
        }
    }

    fn flush(&self, deadline: Option<Instant>) {
        let mut inner = self.inner.lock();
        if inner.collector == Some(thread::current().id()) {
            return;
        }
        let pushed = inner.pushed;
        while inner.delivered < pushed {
            inner.hurry = true;
            // WAKES: the collector, should it gather; it looks at the events under the lock before it waits for others.
            self.came.notify_one();
            match deadline {
                None => self.told.wait(&mut inner),
                Some(deadline) => {
                    if self.told.wait_until(&mut inner, deadline).timed_out() {
                        return;
                    }
                }
            }
        }
    }
}

/// Each of them, whatever another one does.
fn tell(observers: &[Arc<dyn Observer>], tell: impl Fn(&dyn Observer)) {
    for observer in observers {
        // A panic has been printed, and is nobody's result.
        drop_quietly(catch(|| tell(&**observer)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        atomic::{AtomicU64, Ordering},
        mpsc,
    };

    fn event() -> WorkerEvent {
        let worker = WorkerInfo::new(&"pool".into(), "worker", 1, WorkerKind::PoolThread);
        WorkerEvent::now(&Arc::new(worker), WorkerEventKind::Started)
    }

    #[derive(Default)]
    struct Counts {
        told: AtomicU64,
        missing: AtomicU64,
    }

    impl Observer for Counts {
        fn worker(&self, _: &WorkerEvent) {
            self.told.fetch_add(1, Ordering::Relaxed);
        }

        fn missing(&self, events: u64) {
            self.missing.fetch_add(events, Ordering::Relaxed);
        }
    }

    struct Panics;

    impl Observer for Panics {
        fn worker(&self, _: &WorkerEvent) {
            panic!("an observer's own affair");
        }
    }

    #[test]
    fn all_is_told_to_each_whatever_another_one_does() {
        let counts = Arc::new(Counts::default());
        let list: Vec<Arc<dyn Observer>> = vec![Arc::new(Panics), counts.clone()];
        let observers = Observers::start(list, "pool").unwrap().unwrap();
        for turn in 1..=3 {
            observers.worker(event());
            observers.flush(None);
            assert_eq!(counts.told.load(Ordering::Relaxed), turn);
        }
        assert!(Observers::start(Vec::new(), "pool").unwrap().is_none());
    }

    /// An observer that does not return holds up nobody, and is told how much it has missed.
    #[test]
    fn what_does_not_fit_is_counted() {
        struct Waits(Counts, Mutex<mpsc::Receiver<()>>, mpsc::Sender<()>);
        impl Observer for Waits {
            fn worker(&self, event: &WorkerEvent) {
                if self.0.told.load(Ordering::Relaxed) == 0 {
                    self.2.send(()).unwrap();
                    self.1.lock().recv().unwrap();
                }
                self.0.worker(event);
            }
            fn missing(&self, events: u64) {
                self.0.missing(events);
            }
        }
        let (go, gate) = mpsc::channel();
        let (here, at_gate) = mpsc::channel();
        let waits = Arc::new(Waits(Counts::default(), Mutex::new(gate), here));
        let observers = Observers::start(vec![waits.clone()], "pool").unwrap().unwrap();
        let event = event();
        observers.worker(event.clone());
        at_gate.recv().unwrap();
        for _ in 0..CAPACITY + 7 {
            observers.worker(event.clone());
        }
        observers.flush(Some(Instant::now())); // not for ever
        go.send(()).unwrap();
        observers.flush(None);
        drop(observers);
        let told = || (waits.0.told.load(Ordering::Relaxed), waits.0.missing.load(Ordering::Relaxed));
        while told().1 == 0 {
            thread::yield_now();
        }
        assert_eq!(told(), (CAPACITY as u64 + 1, 7));
    }
}
