//! Queues: handles on a `store`, in the process that made it, and on a `clerk` in others.

use executor_core::{
    Failure, Value,
    attachments::{self, Encoded},
    blocking, codec,
    panic::{catch, drop_quietly},
    sync::Mutex,
    timer,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use std::{
    collections::BTreeMap,
    error, fmt,
    hash::{BuildHasher, RandomState},
    io,
    marker::PhantomData,
    ops::{Deref, DerefMut},
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    clerk,
    errand::{Line, Word},
    store::{Item, Patience, Refusal, Store},
    wait_any::wait_until_ready,
};

/// A queue between threads and processes: first in, first out, for any number of users. Python's `multiprocessing.Queue`.
///
/// A handle is cheap to clone, and is a [`Value`]: it is an argument like any other, of a [`Process`](crate::Process) and of calls of
/// any pool, and may be a result, or an item of another queue.
///
/// # Where it is
/// Its items are kept, encoded, in the memory of the process that made it, for as long as that lives. So a [`put`](Self::put) that has
/// returned needs nobody who takes: a process may put more than any pipe holds and end, and be joined, before its items are
/// taken. And no lock is shared: a process that is killed in the middle of a `put` has put nothing, and what a `get` of
/// such a process was being given goes to the next.
///
/// # Examples
/// ```
/// use concurrent_futures::{Executor, ProcessPoolExecutor, Queue};
///
/// let results = Queue::new();
/// let pool = ProcessPoolExecutor::new(2)?;
/// for rank in 0..3 {
///     pool.submit(|(rank, results): (u64, Queue<(u64, u64)>)| results.put((rank, rank * rank)).unwrap(), (rank, results.clone()));
/// }
/// let mut found: Vec<_> = (0..3).map(|_| results.get()).collect::<Result<_, _>>()?;
/// found.sort();
/// assert_eq!(found, [(0, 0), (1, 1), (2, 4)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Queue<T> {
    place: Place,
    items: PhantomData<fn(T) -> T>,
}

#[derive(Clone)]
enum Place {
    Here(Arc<Here>),
    There(Arc<There>),
}

/// The queue itself, as all handles in its own process share it. Its clerk does not: it knows the store only.
struct Here {
    number: u64,
    store: Arc<Store>,
    /// The end of the door that travels, once it was sent somewhere.
    door: OnceLock<Arc<OwnedFd>>,
}

/// A queue of another process.
struct There {
    ticket: (u64, u64),
    door: Arc<OwnedFd>,
    /// Sockets on which nothing is asked at the moment.
    idle: Mutex<Vec<Line>>,
}

/// This process's queues that were sent somewhere, from where they may come back.
static SENT: Mutex<BTreeMap<u64, Weak<Here>>> = Mutex::new(BTreeMap::new());

/// Tells this process from all others that there ever are, which its number does not.
fn this_process() -> u64 {
    static NUMBER: Mutex<Option<(u32, u64)>> = Mutex::new(None);
    let (mut number, own) = (NUMBER.lock(), std::process::id());
    // One that was forked since is another process.
    match &*number {
        Some((process, number)) if *process == own => *number,
        _ => number.insert((own, RandomState::new().hash_one(own))).1,
    }
}

impl<T: Value> Queue<T> {
    /// A queue for any number of items.
    #[must_use]
    pub fn new() -> Queue<T> {
        Queue::with_maxsize(0)
    }

    /// A queue for at most `maxsize` items, of which 0 means any number, as in Python. A `put` waits until there is room.
    #[must_use]
    pub fn with_maxsize(maxsize: usize) -> Queue<T> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // ORDERING: Relaxed; only uniqueness matters.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let store = Arc::new(Store::new(maxsize));
        Queue { place: Place::Here(Arc::new(Here { number, store, door: OnceLock::new() })), items: PhantomData }
    }

    /// Puts an item in; waits for room, until there is some or the queue is closed. The item is encoded before this returns, so what
    /// becomes of the original later does not matter.
    ///
    /// # Errors
    /// [`PutError`], which has the item: the queue is closed, or its process has ended, or the item cannot be encoded.
    pub fn put(&self, item: T) -> Result<(), PutError<T>> {
        self.put_patiently(item, Patience::Endless)
    }

    /// As [`put`](Self::put), but waits no longer than `limit`.
    ///
    /// # Errors
    /// As `put`, and [`QueueError::is_full`] when the limit is over.
    pub fn put_timeout(&self, item: T, limit: Duration) -> Result<(), PutError<T>> {
        self.put_patiently(item, Patience::Until(timer::after(limit)))
    }

    /// As [`put`](Self::put), but waits for no room. Python's `put_nowait`.
    ///
    /// # Errors
    /// As `put`, and [`QueueError::is_full`].
    pub fn try_put(&self, item: T) -> Result<(), PutError<T>> {
        self.put_patiently(item, Patience::None)
    }

    /// Takes the oldest item; waits until there is one, or never will be.
    ///
    /// # Errors
    /// [`QueueError`]: the queue is closed and empty, or its process has ended, or the item cannot be decoded.
    pub fn get(&self) -> Result<T, QueueError> {
        self.get_patiently(Patience::Endless)
    }

    /// As [`get`](Self::get), but waits no longer than `limit`.
    ///
    /// # Errors
    /// As `get`, and [`QueueError::is_empty`] when the limit is over.
    pub fn get_timeout(&self, limit: Duration) -> Result<T, QueueError> {
        self.get_patiently(Patience::Until(timer::after(limit)))
    }

    /// As [`get`](Self::get), but waits for nobody who puts. Python's `get_nowait`.
    ///
    /// # Errors
    /// As `get`, and [`QueueError::is_empty`].
    pub fn try_get(&self) -> Result<T, QueueError> {
        self.get_patiently(Patience::None)
    }

    fn put_patiently(&self, item: T, patience: Patience) -> Result<(), PutError<T>> {
        let put = encode(&item).and_then(|encoded| match &self.place {
            Place::Here(here) => {
                here.store.put(&Arc::new(encoded), patience).map_err(|refusal| refused(refusal, Cause::Full))
            }
            Place::There(there) => {
                let word = if matches!(patience, Patience::None) { Word::TryPut } else { Word::Put };
                there.simple_errand(word, &encoded, patience)
            }
        });
        match put {
            Ok(()) => {
                drop_quietly(item);
                Ok(())
            }
            Err(error) => Err(PutError { item, error }),
        }
    }

    fn get_patiently(&self, patience: Patience) -> Result<T, QueueError> {
        match &self.place {
            Place::Here(here) => {
                let item = here.take(patience)?;
                decode(&item)
            }
            Place::There(there) => {
                let (item, mut line) = there.take(Word::Get, Word::TryGet, patience)?;
                // From now on it is nobody else's. An error means that the queue is gone, and the item is here.
                if line.send(Word::Taken, &Encoded::default()).is_ok() {
                    there.idle.lock().push(line);
                }
                decode(&item)
            }
        }
    }
}

impl<T> Queue<T> {
    /// How many items there are: exactly, at some moment between call and return. 0 if its process has ended.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.place {
            Place::Here(here) => here.store.len(),
            Place::There(there) => there.length().unwrap_or(0),
        }
    }

    /// Whether there is no item, at some moment between call and return.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Nothing more is put, by anybody: each `put` fails, also one that waits. What is there can still be taken; then each `get`
    /// fails. (Python's method is for one process's handle; here that is dropping it.)
    pub fn close(&self) {
        match &self.place {
            Place::Here(here) => here.store.close(),
            // An error means that its process has ended: it is as closed as can be.
            Place::There(there) => drop(there.simple_errand(Word::Close, &Encoded::default(), Patience::Endless)),
        }
    }
}

impl<T: Value> Default for Queue<T> {
    fn default() -> Self {
        Queue::new()
    }
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Queue { place: self.place.clone(), items: PhantomData }
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Queue");
        match &self.place {
            Place::Here(here) => shown.field("len", &here.store.len()),
            Place::There(_) => shown.field("is_remote", &true),
        };
        shown.finish_non_exhaustive()
    }
}

/// A queue as it travels.
#[derive(Serialize, Deserialize)]
struct Ticket {
    process: u64,
    number: u64,
    door: u32,
}

impl<T> Serialize for Queue<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ((process, number), door) = match &self.place {
            Place::Here(here) => ((this_process(), here.number), here.door().map_err(ser::Error::custom)?),
            Place::There(there) => (there.ticket, &there.door),
        };
        let door = attachments::attach(door)
            .ok_or_else(|| ser::Error::custom("a queue can be sent to another process, and nowhere else"))?;
        Ticket { process, number, door }.serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for Queue<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Ticket { process, number, door } = Ticket::deserialize(deserializer)?;
        let at_home = (process == this_process()).then(|| SENT.lock().get(&number).and_then(Weak::upgrade)).flatten();
        let place = match at_home {
            Some(here) => Place::Here(here),
            None => {
                let door =
                    attachments::attached(door).ok_or_else(|| de::Error::custom("a queue came without its door"))?;
                Place::There(Arc::new(There { ticket: (process, number), door, idle: Mutex::default() }))
            }
        };
        Ok(Queue { place, items: PhantomData })
    }
}

impl Here {
    fn door(self: &Arc<Self>) -> io::Result<&Arc<OwnedFd>> {
        if let Some(door) = self.door.get() {
            return Ok(door);
        }
        let door = Arc::new(clerk::open_door(&self.store)?);
        SENT.lock().insert(self.number, Arc::downgrade(self));
        // Of two that were opened at once, the other one is closed here, and forgotten by the clerk.
        Ok(self.door.get_or_init(|| door))
    }

    fn take(&self, patience: Patience) -> Result<Item, QueueError> {
        self.store.take(patience).map_err(|refusal| refused(refusal, Cause::Empty))
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        if self.door.get().is_some() {
            SENT.lock().remove(&self.number);
        }
    }
}

impl There {
    /// Asks for something, and waits for the answer.
    fn errand(&self, word: Word, value: &Encoded, patience: Patience) -> io::Result<(Word, Item, Line)> {
        blocking::while_blocked(|| {
            let idle = self.idle.lock().pop().filter(Line::is_own);
            let mut line = match idle {
                Some(line) => line,
                None => Line::new(clerk::enter(&self.door)?),
            };
            line.send(word, value)?;
            if let Patience::Until(deadline) = patience
                && wait_until_ready(&[line.socket.as_fd()], Some(deadline))?.is_empty()
            {
                // There is an answer all the same, to the one or to the other.
                line.send(Word::Cancel, &Encoded::default())?;
            }
            let answer = line.receive()?;
            let word = Word::of(&answer).ok_or(io::ErrorKind::InvalidData)?;
            Ok((word, Arc::new(Encoded { bytes: answer.body, attachments: answer.attachments }), line))
        })
    }

    /// An errand whose answer is a word.
    fn simple_errand(&self, word: Word, value: &Encoded, patience: Patience) -> Result<(), QueueError> {
        let (answer, _, line) = self.errand(word, value, patience)?;
        self.idle.lock().push(line);
        match answer {
            Word::Done => Ok(()),
            other => Err(refused_by_word(other)),
        }
    }

    /// An item, and the line through which it came, on which its arrival is to be reported.
    fn take(&self, get: Word, try_get: Word, patience: Patience) -> Result<(Item, Line), QueueError> {
        let word = if matches!(patience, Patience::None) { try_get } else { get };
        let (answer, item, line) = self.errand(word, &Encoded::default(), patience)?;
        if answer == Word::Item {
            return Ok((item, line));
        }
        self.idle.lock().push(line);
        Err(refused_by_word(answer))
    }

    fn length(&self) -> Result<usize, QueueError> {
        let (_, length, line) = self.errand(Word::Length, &Encoded::default(), Patience::Endless)?;
        self.idle.lock().push(line);
        let bytes = length.bytes[..].try_into().map_err(|_| QueueError(Cause::Gone))?;
        Ok(u64::from_le_bytes(bytes) as usize)
    }
}

pub(crate) fn encode<T: Value>(value: &T) -> Result<Encoded, QueueError> {
    let mut bytes = Vec::new();
    let encode = || catch(|| codec::encode(value, &mut bytes)).flatten();
    let (encoded, attachments) = attachments::collecting(encode);
    encoded?;
    Ok(Encoded { bytes, attachments })
}

pub(crate) fn decode<T: Value>(value: &Encoded) -> Result<T, QueueError> {
    let decode = || catch(|| codec::decode(&value.bytes)).flatten();
    Ok(attachments::handing_out(value.attachments.clone(), decode)?)
}

fn refused(refusal: Refusal, not_now: Cause) -> QueueError {
    QueueError(if refusal == Refusal::Closed { Cause::Closed } else { not_now })
}

fn refused_by_word(word: Word) -> QueueError {
    QueueError(match word {
        Word::Full => Cause::Full,
        Word::Empty => Cause::Empty,
        Word::Closed => Cause::Closed,
        Word::Unfinished => Cause::Unfinished,
        Word::TooMany => Cause::TooMany,
        other => Cause::System(format!("it answered {other:?}")),
    })
}

/// A [`Queue`] that knows when what was put is also done. Python's `JoinableQueue`.
///
/// It has all that a queue has. Whoever takes an item with `get` says [`task_done`](Self::task_done) when it is done with it; an item that is taken
/// with [`get_task`](Self::get_task) says so itself when it is dropped, and goes to somebody else if its process dies before.
///
/// # Examples
/// ```
/// use concurrent_futures::{JoinableQueue, Process};
///
/// fn work(jobs: JoinableQueue<u32>) {
///     while let Ok(job) = jobs.get_task() {
///         assert!(*job < 3); // and at the end of its scope it is done
///     }
/// }
///
/// let jobs = JoinableQueue::new();
/// let worker = Process::new(work, jobs.clone()).start()?;
/// for job in 0..3 {
///     jobs.put(job)?;
/// }
/// jobs.join()?;
/// jobs.close();
/// worker.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub struct JoinableQueue<T>(Queue<T>);

impl<T: Value> JoinableQueue<T> {
    /// A queue for any number of items.
    #[must_use]
    pub fn new() -> JoinableQueue<T> {
        JoinableQueue(Queue::new())
    }

    /// As [`Queue::with_maxsize`].
    #[must_use]
    pub fn with_maxsize(maxsize: usize) -> JoinableQueue<T> {
        JoinableQueue(Queue::with_maxsize(maxsize))
    }

    /// As [`get`](Queue::get), and the item counts as done when the guard is dropped, also by a panic. If its process ends before, it is the next
    /// item again; so one that ends each process that takes it does so until somebody else takes it out.
    ///
    /// # Errors
    /// As `get`. An item that cannot be decoded counts as done.
    pub fn get_task(&self) -> Result<QueueTask<T>, QueueError> {
        self.task(Patience::Endless)
    }

    /// As [`get_task`](Self::get_task), but waits no longer than `limit`.
    ///
    /// # Errors
    /// As `get_task`, and [`QueueError::is_empty`] when the limit is over.
    pub fn get_task_timeout(&self, limit: Duration) -> Result<QueueTask<T>, QueueError> {
        self.task(Patience::Until(timer::after(limit)))
    }

    fn task(&self, patience: Patience) -> Result<QueueTask<T>, QueueError> {
        let (item, done) = match &self.0.place {
            Place::Here(here) => (here.take(patience)?, Done::Here(Arc::clone(&here.store))),
            Place::There(there) => {
                let (item, line) = there.take(Word::Borrow, Word::TryBorrow, patience)?;
                (item, Done::There(Some(line), Arc::clone(there)))
            }
        };
        Ok(QueueTask { item: decode(&item)?, _done: done })
    }
}

impl<T> JoinableQueue<T> {
    /// Says that an item that was taken with `get` is done.
    ///
    /// # Errors
    /// [`QueueError`]: more are done than were put, or the queue's process has ended.
    pub fn task_done(&self) -> Result<(), QueueError> {
        match &self.0.place {
            Place::Here(here) if here.store.task_done() => Ok(()),
            Place::Here(_) => Err(QueueError(Cause::TooMany)),
            Place::There(there) => there.simple_errand(Word::TaskDone, &Encoded::default(), Patience::Endless),
        }
    }

    /// Waits until everything that was put is done.
    ///
    /// # Errors
    /// [`QueueError::is_disconnected`]: the queue's process has ended.
    pub fn join(&self) -> Result<(), QueueError> {
        self.join_patiently(Patience::Endless)
    }

    /// As [`join`](Self::join), but waits no longer than `limit`.
    ///
    /// # Errors
    /// As `join`, and [`QueueError::is_unfinished`] when the limit is over.
    pub fn join_timeout(&self, limit: Duration) -> Result<(), QueueError> {
        self.join_patiently(Patience::Until(timer::after(limit)))
    }

    fn join_patiently(&self, patience: Patience) -> Result<(), QueueError> {
        match &self.0.place {
            Place::Here(here) if here.store.join(patience) => Ok(()),
            Place::Here(_) => Err(QueueError(Cause::Unfinished)),
            Place::There(there) => there.simple_errand(Word::Join, &Encoded::default(), patience),
        }
    }
}

impl<T: Value> Default for JoinableQueue<T> {
    fn default() -> Self {
        JoinableQueue::new()
    }
}

impl<T> Clone for JoinableQueue<T> {
    fn clone(&self) -> Self {
        JoinableQueue(self.0.clone())
    }
}

/// All that a queue has.
impl<T> Deref for JoinableQueue<T> {
    type Target = Queue<T>;

    fn deref(&self) -> &Queue<T> {
        &self.0
    }
}

impl<T> fmt::Debug for JoinableQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JoinableQueue").field(&self.0).finish()
    }
}

/// An item of a [`JoinableQueue`] that is being worked on: done when this is dropped.
pub struct QueueTask<T> {
    item: T,
    /// After the item, which is dropped first.
    _done: Done,
}

enum Done {
    Here(Arc<Store>),
    There(Option<Line>, Arc<There>),
}

impl Drop for Done {
    fn drop(&mut self) {
        match self {
            // It was put, and is not done: by whom else?
            Done::Here(store) => drop(store.task_done()),
            Done::There(line, there) => {
                if let Some(mut line) = line.take()
                    && line.send(Word::Finished, &Encoded::default()).is_ok()
                {
                    there.idle.lock().push(line);
                }
            }
        }
    }
}

impl<T> Deref for QueueTask<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.item
    }
}

impl<T> DerefMut for QueueTask<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.item
    }
}

impl<T: fmt::Debug> fmt::Debug for QueueTask<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("QueueTask").field(&self.item).finish()
    }
}

/// Why a [`Queue`] or a [`Connection`](crate::Connection) did not do what it was asked for.
#[derive(Clone, Debug)]
pub struct QueueError(pub(crate) Cause);

#[derive(Clone, Debug)]
pub(crate) enum Cause {
    Full,
    Empty,
    Closed,
    Unfinished,
    TooMany,
    Gone,
    Value(Failure),
    System(String),
}

impl QueueError {
    /// There was no room, at once or in time.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self.0, Cause::Full)
    }

    /// There was no item, at once or in time.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self.0, Cause::Empty)
    }

    /// Not all items were done in time.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        matches!(self.0, Cause::Unfinished)
    }

    /// The queue is closed, and there is nothing in it that could be taken.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.0, Cause::Closed)
    }

    /// The process that made the queue has ended, or whoever had the connection's other end.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        matches!(self.0, Cause::Gone)
    }

    /// What is wrong with the item: it could not be encoded, or decoded.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        match &self.0 {
            Cause::Value(failure) => Some(failure),
            _ => None,
        }
    }
}

impl From<Failure> for QueueError {
    fn from(failure: Failure) -> Self {
        QueueError(Cause::Value(failure))
    }
}

impl From<io::Error> for QueueError {
    fn from(error: io::Error) -> Self {
        QueueError(match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Cause::Gone,
            _ => Cause::System(error.to_string()),
        })
    }
}

impl fmt::Display for QueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Cause::Full => write!(f, "the queue is full"),
            Cause::Empty => write!(f, "the queue is empty"),
            Cause::Closed => write!(f, "the queue is closed"),
            Cause::Unfinished => write!(f, "not all items of the queue are done"),
            Cause::TooMany => write!(f, "more items are said to be done than were put into the queue"),
            Cause::Gone => write!(f, "the process at the other end is gone"),
            Cause::Value(failure) => write!(f, "{failure}"),
            Cause::System(why) => write!(f, "the other end cannot be reached: {why}"),
        }
    }
}

impl error::Error for QueueError {}

/// What was not put, or not sent, and why.
pub struct PutError<T> {
    pub(crate) item: T,
    pub(crate) error: QueueError,
}

impl<T> PutError<T> {
    /// What was not put.
    pub fn into_value(self) -> T {
        self.item
    }

    /// Why.
    #[must_use]
    pub fn error(&self) -> &QueueError {
        &self.error
    }

    /// There was no room, at once or in time: it is worth another try.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.error.is_full()
    }
}

impl<T> fmt::Debug for PutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PutError").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for PutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)
    }
}

impl<T> error::Error for PutError<T> {}
