//! How a task can end other than with a value, and how a wait can.
//!
//! A user's own `Result` is a value like any other and never appears here.

#[cfg(feature = "transport")]
use serde::{Deserialize, Serialize};
use std::{error, fmt, panic::Location, sync::Arc, time::Duration};

/// Identifies a task within this process: unique, and greater for a task submitted later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "transport", derive(Serialize, Deserialize))]
pub struct TaskId(pub(crate) u64);

impl TaskId {
    /// As a number.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Why a submitted call has no value: every ending there is, and where the call was submitted.
///
/// Cheap to clone. The predicates tell the endings apart.
///
/// `{}` says in a line what happened, to which task, and where that was submitted. `{:#}` and `{:?}` add what takes more than
/// a line: a panic's backtrace, and the last that a lost worker wrote to its standard error. So does an `unwrap`, and a
/// `main` that returns the error. `{:#?}` shows the fields. A broken executor's cause is also the
/// [`source`](error::Error::source); these words have it already.
///
/// # Examples
/// ```
/// use concurrent_futures::{Executor, ThreadPoolExecutor};
///
/// let pool = ThreadPoolExecutor::new(1)?;
/// let error = pool.submit(|n: u32| 10 / n, 0).result().unwrap_err();
/// assert!(error.is_panic());
/// assert_eq!(error.panic_message(), Some("attempt to divide by zero"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct TaskError(Arc<Inner>);

struct Inner {
    failure: Failure,
    task: TaskId,
    site: &'static Location<'static>,
    attempts: u32,
}

impl TaskError {
    pub(crate) fn new(failure: Failure, task: TaskId, site: &'static Location<'static>) -> Self {
        TaskError(Arc::new(Inner { failure, task, site, attempts: 1 }))
    }

    /// The error of the last of so many attempts.
    pub(crate) fn after(attempts: u32, failure: Failure, task: TaskId, site: &'static Location<'static>) -> Self {
        TaskError(Arc::new(Inner { failure, task, site, attempts }))
    }

    /// The task that ended so.
    #[must_use]
    pub fn task(&self) -> TaskId {
        self.0.task
    }

    /// The line of the `submit`, `map` or `spawn` that made the task.
    #[must_use]
    pub fn submitted_at(&self) -> &'static Location<'static> {
        self.0.site
    }

    /// How often the call was made: more than once only with a [`RetryPolicy`](crate::RetryPolicy).
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// The ending itself, as data.
    #[must_use]
    pub fn failure(&self) -> &Failure {
        &self.0.failure
    }

    /// It was cancelled before it began.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(self.0.failure, Failure::Cancelled)
    }

    /// The call panicked.
    #[must_use]
    pub fn is_panic(&self) -> bool {
        matches!(self.0.failure, Failure::Panicked(_))
    }

    /// Its worker process ended while the call ran; running it again may succeed.
    #[must_use]
    pub fn is_worker_lost(&self) -> bool {
        matches!(self.0.failure, Failure::WorkerLost(_))
    }

    /// It ran longer than its [time limit](crate::TaskOptions::time_limit). (A *wait* that ends early is a
    /// [`WaitError`](crate::WaitError), and does not affect the task.)
    #[must_use]
    pub fn is_timed_out(&self) -> bool {
        matches!(self.0.failure, Failure::TimedOut { .. })
    }

    /// Waiting for it would have lasted for ever, since it waits for whoever waits for it.
    #[must_use]
    pub fn is_deadlock(&self) -> bool {
        matches!(self.0.failure, Failure::Deadlock { .. })
    }

    /// It was not accepted, since as many calls were waiting as its executor allows.
    #[must_use]
    pub fn is_queue_full(&self) -> bool {
        matches!(self.0.failure, Failure::QueueFull { .. })
    }

    /// It was stopped by [`Future::kill`](crate::Future::kill), or by a [`Shutdown::now`](crate::Shutdown::now).
    #[must_use]
    pub fn is_killed(&self) -> bool {
        matches!(self.0.failure, Failure::Killed { .. })
    }

    /// It used more memory, or more processor time, than its worker process may, and ended with it.
    /// [`exceeded_limit`](Self::exceeded_limit) says which limit that was.
    #[must_use]
    pub fn is_limit_exceeded(&self) -> bool {
        matches!(self.0.failure, Failure::LimitExceeded { .. })
    }

    /// The limit that it exceeded, for [`is_limit_exceeded`](Self::is_limit_exceeded).
    #[must_use]
    pub fn exceeded_limit(&self) -> Option<ResourceLimit> {
        match self.0.failure {
            Failure::LimitExceeded { limit, .. } => Some(limit),
            _ => None,
        }
    }

    /// Its arguments or its result could not be turned into bytes, or back.
    #[must_use]
    pub fn is_codec(&self) -> bool {
        matches!(self.0.failure, Failure::Encode { .. } | Failure::Decode { .. })
    }

    /// Its executor can run nothing any more.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        matches!(self.0.failure, Failure::Broken(_))
    }

    /// It was submitted after its executor's shutdown.
    #[must_use]
    pub fn is_shutdown(&self) -> bool {
        matches!(self.0.failure, Failure::Shutdown)
    }

    /// The time given to a whole `map` was over before this item's result was there.
    #[must_use]
    pub fn is_map_timeout(&self) -> bool {
        matches!(self.0.failure, Failure::MapTimeout { .. })
    }

    /// What the call said as it panicked.
    #[must_use]
    pub fn panic_message(&self) -> Option<&str> {
        self.panic().map(|panic| panic.message.as_str())
    }

    /// `file:line:column` of the panic, when known.
    #[must_use]
    pub fn panic_location(&self) -> Option<&str> {
        self.panic().and_then(|panic| panic.location.as_deref())
    }

    /// The panic's backtrace, when the environment asks for backtraces: with `RUST_BACKTRACE=1` the call's own frames, with
    /// `full` all.
    #[must_use]
    pub fn panic_backtrace(&self) -> Option<&str> {
        self.panic().and_then(|panic| panic.backtrace.as_deref())
    }

    /// How the worker process ended, for [`is_worker_lost`](Self::is_worker_lost) and
    /// [`is_limit_exceeded`](Self::is_limit_exceeded).
    #[must_use]
    pub fn worker_lost(&self) -> Option<&WorkerLost> {
        match &self.0.failure {
            Failure::WorkerLost(lost) | Failure::LimitExceeded { lost, .. } => Some(lost),
            _ => None,
        }
    }

    fn panic(&self) -> Option<&Panic> {
        match &self.0.failure {
            Failure::Panicked(panic) => Some(panic),
            _ => None,
        }
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let details = if f.alternate() { self.0.failure.details() } else { Vec::new() };
        match details.is_empty() {
            true => write!(f, "{}", self.0.failure)?,
            false => write!(f, "{}", self.0.failure.headline())?,
        }
        write!(f, " (task {} submitted at {}", self.0.task, self.0.site)?;
        match self.0.attempts {
            1 => write!(f, ")")?,
            attempts => write!(f, ", attempt {attempts})")?,
        }
        for (what, lines) in details {
            write!(f, "\n{what}:")?;
            for line in lines.lines() {
                write!(f, "\n    {line}")?;
            }
        }
        Ok(())
    }
}

/// What an `unwrap` prints is read by people, so it is the long form of `Display`.
impl fmt::Debug for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return write!(f, "{self:#}");
        }
        f.debug_struct("TaskError")
            .field("failure", &self.0.failure)
            .field("task", &self.0.task)
            .field("submitted_at", &format_args!("{}", self.0.site))
            .field("attempts", &self.0.attempts)
            .finish()
    }
}

impl error::Error for TaskError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match &self.0.failure {
            Failure::Broken(cause) => Some(cause),
            _ => None,
        }
    }
}

/// An ending as plain data: what travels between processes, and what a backend reports.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "transport", derive(Serialize, Deserialize))]
#[non_exhaustive]
pub enum Failure {
    /// Cancelled before it began.
    Cancelled,
    /// The call panicked.
    Panicked(Panic),
    /// The worker process ended while it ran the call.
    WorkerLost(WorkerLost),
    /// Stopped on request, together with its worker process.
    Killed {
        /// The worker process that was stopped.
        pid: u32,
    },
    /// The call ran longer than its time limit.
    TimedOut {
        /// The limit.
        limit: Duration,
        /// The worker process that was stopped. `None`: it ran in this process, where it was asked to stop, and may still
        /// run.
        pid: Option<u32>,
    },
    /// The call used more than its worker process may.
    LimitExceeded {
        /// More than this.
        limit: ResourceLimit,
        /// How the worker process ended of it.
        lost: WorkerLost,
    },
    /// Waiting for it would last for ever.
    Deadlock {
        /// Each waits for the next; the last is the first again.
        cycle: Vec<TaskId>,
    },
    /// It was not accepted: as many calls waited as may.
    QueueFull {
        /// How many may wait.
        capacity: usize,
    },
    /// A value could not be turned into bytes.
    Encode {
        /// The value's type.
        type_name: String,
        /// What the codec said.
        reason: String,
    },
    /// Bytes could not be turned into a value.
    Decode {
        /// The type that was expected.
        type_name: String,
        /// What the codec said.
        reason: String,
    },
    /// The worker refused what it was asked to call.
    Refused(
        /// Which check failed.
        String,
    ),
    /// The executor can run nothing any more.
    Broken(BrokenCause),
    /// The executor was shut down before the task was submitted.
    Shutdown,
    /// The limit of a whole `map` passed.
    MapTimeout {
        /// The limit.
        limit: Duration,
    },
}

impl Failure {
    /// What takes more than a line to tell, and what it is.
    fn details(&self) -> Vec<(&'static str, &str)> {
        let (panic, stderr) = match self {
            Failure::Panicked(panic) => (Some(panic), ""),
            Failure::WorkerLost(lost) | Failure::Broken(BrokenCause::Crashing(lost)) => {
                (lost.panic.as_deref(), lost.stderr.as_str())
            }
            Failure::Broken(BrokenCause::Initializer(failure)) => return failure.details(),
            _ => (None, ""),
        };
        let backtrace = panic.and_then(|panic| panic.backtrace.as_deref()).map(|lines| ("where it panicked", lines));
        let stderr = (!stderr.is_empty()).then_some(("last on its standard error", stderr));
        backtrace.into_iter().chain(stderr).collect()
    }

    /// The same ending without its [details](Self::details).
    fn headline(&self) -> Failure {
        let bare = |lost: &WorkerLost| WorkerLost { stderr: String::new(), ..lost.clone() };
        match self {
            Failure::WorkerLost(lost) => Failure::WorkerLost(bare(lost)),
            Failure::Broken(BrokenCause::Crashing(lost)) => Failure::Broken(BrokenCause::Crashing(bare(lost))),
            Failure::Broken(BrokenCause::Initializer(failure)) => {
                Failure::Broken(BrokenCause::Initializer(Box::new(failure.headline())))
            }
            other => other.clone(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Cancelled => write!(f, "cancelled before it began"),
            Failure::Panicked(panic) => write!(f, "panicked: {panic}"),
            Failure::WorkerLost(lost) => write!(f, "{lost}"),
            Failure::Killed { pid } => write!(f, "killed on request, with worker process {pid}"),
            Failure::TimedOut { limit, pid: Some(pid) } => {
                write!(f, "ran longer than its limit of {limit:?}, and was stopped with worker process {pid}")
            }
            Failure::TimedOut { limit, pid: None } => {
                write!(
                    f,
                    "ran longer than its limit of {limit:?}; its thread was asked to stop, and is busy until it does"
                )
            }
            Failure::LimitExceeded { limit, lost } => write!(f, "used more than {limit}: {lost}"),
            Failure::Deadlock { cycle } => {
                write!(f, "waiting for it would last for ever: ")?;
                for (index, task) in cycle.iter().enumerate() {
                    let join = ["task ", " waits for task ", ", which waits for task "][index.min(2)];
                    write!(f, "{join}{task}")?;
                }
                Ok(())
            }
            Failure::QueueFull { capacity } => {
                write!(f, "not accepted: the executor's queue, which holds {capacity} waiting calls, is full")
            }
            Failure::Encode { type_name, reason } => {
                write!(f, "a value of type {type_name} could not be encoded: {reason}")
            }
            Failure::Decode { type_name, reason } => {
                write!(f, "a value of type {type_name} could not be decoded: {reason}")
            }
            Failure::Refused(check) => write!(f, "the worker refused the call: {check}"),
            Failure::Broken(cause) => write!(f, "the executor is broken: {cause}"),
            Failure::Shutdown => write!(f, "the executor was already shut down"),
            Failure::MapTimeout { limit } => write!(f, "not done within the map's limit of {limit:?}"),
        }
    }
}

/// A panic, as it can be told elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "transport", derive(Serialize, Deserialize))]
pub struct Panic {
    /// The panic's message.
    pub message: String,
    /// `file:line:column`, when known.
    pub location: Option<String>,
    /// The stack at the panic, when backtraces are asked for.
    pub backtrace: Option<String>,
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        match &self.location {
            Some(location) => write!(f, ", at {location}"),
            None => Ok(()),
        }
    }
}

/// A worker process that ended by itself, or was ended from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "transport", derive(Serialize, Deserialize))]
pub struct WorkerLost {
    /// The process.
    pub pid: u32,
    /// How it ended.
    pub exit: Exit,
    /// The last lines that it wrote to its standard error; empty when it wrote none.
    pub stderr: String,
    /// The last panic in that process since it answered a call: with `panic = "abort"`, or where a panic cannot be
    /// contained, why it ended. Told even where a backtrace has driven the message out of [`stderr`](Self::stderr). `None`
    /// also where the worker's code has put a panic hook of its own in the place of all others.
    pub panic: Option<Box<Panic>>,
}

impl WorkerLost {
    /// What is known of the reason, after how it ended. A panic says more than the last lines, which may be its backtrace's.
    fn reason(&self) -> String {
        match (&self.panic, self.stderr.as_str()) {
            (Some(panic), _) => format!(" after a panic: {panic}"),
            (None, "") => String::new(),
            (None, stderr) => format!("; last on its standard error: {stderr:?}"),
        }
    }
}

impl fmt::Display for WorkerLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker process {} {} while it ran the call{}", self.pid, self.exit, self.reason())
    }
}

/// How much a worker process may use of something, as was chosen when its pool was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "transport", derive(Serialize, Deserialize))]
#[non_exhaustive]
pub enum ResourceLimit {
    /// Memory, of the whole process.
    Memory {
        /// So much.
        bytes: u64,
    },
    /// Processor time, for each call.
    CpuTime {
        /// So much.
        limit: Duration,
    },
}

impl fmt::Display for ResourceLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResourceLimit::Memory { bytes } => write!(f, "the {bytes} bytes of memory that its worker process may"),
            ResourceLimit::CpuTime { limit } => write!(f, "the {limit:?} of processor time that a call may"),
        }
    }
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "transport", derive(Serialize, Deserialize))]
#[non_exhaustive]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// A signal ended it.
    Signal {
        /// The signal's number.
        number: i32,
        /// Its name, such as `SIGKILL`.
        name: String,
    },
    /// Nobody could tell.
    Unknown,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exited with code {code}"),
            Exit::Signal { name, .. } => write!(f, "was ended by {name}"),
            Exit::Unknown => write!(f, "ended in an unknown way"),
        }
    }
}

/// Why an executor can run nothing any more.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "transport", derive(Serialize, Deserialize))]
#[non_exhaustive]
pub enum BrokenCause {
    /// A worker's initializer failed.
    Initializer(
        /// How it failed.
        Box<Failure>,
    ),
    /// The call failed that was to be made before the first worker was forked.
    Preload(
        /// How it failed.
        Box<Failure>,
    ),
    /// No worker could be started.
    Spawn(
        /// What the operating system said.
        String,
    ),
    /// Workers kept ending before they ran a single task.
    Crashing(
        /// The last of them.
        WorkerLost,
    ),
    /// The backend let go of the task without an outcome.
    Abandoned,
}

impl fmt::Display for BrokenCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BrokenCause::Initializer(failure) => write!(f, "a worker's initializer failed: {failure}"),
            BrokenCause::Preload(failure) => write!(f, "the workers' preload failed: {failure}"),
            BrokenCause::Spawn(reason) => write!(f, "no worker could be started: {reason}"),
            BrokenCause::Crashing(lost) => {
                let WorkerLost { pid, exit, .. } = lost;
                write!(
                    f,
                    "workers keep ending before their first task; the last, process {pid}, {exit}{}",
                    lost.reason()
                )
            }
            BrokenCause::Abandoned => write!(f, "it dropped the task"),
        }
    }
}

impl error::Error for BrokenCause {}

/// The limit of an [`as_completed`](crate::as_completed) passed with futures still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout {
    /// How many are not done.
    pub unfinished: usize,
    /// How many there were.
    pub total: usize,
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (of {}) futures unfinished", self.unfinished, self.total)
    }
}

impl error::Error for Timeout {}

/// What an executor did not accept, and why. From
/// [`Executor::try_submit`](crate::Executor::try_submit).
pub struct Rejected<T> {
    pub(crate) value: T,
    pub(crate) failure: Failure,
}

impl<T> Rejected<T> {
    /// `value` was not accepted, because of `failure`.
    pub fn new(value: T, failure: Failure) -> Self {
        Rejected { value, failure }
    }

    /// What was not accepted: for a call, its arguments.
    pub fn into_value(self) -> T {
        self.value
    }

    /// Why.
    #[must_use]
    pub fn failure(&self) -> &Failure {
        &self.failure
    }

    /// Whether it is worth another try later.
    #[must_use]
    pub fn is_queue_full(&self) -> bool {
        matches!(self.failure, Failure::QueueFull { .. })
    }
}

impl<T> fmt::Debug for Rejected<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejected").field("failure", &self.failure).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for Rejected<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.failure)
    }
}

impl<T> error::Error for Rejected<T> {}

/// Why an executor could not be built.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildError {
    /// `max_workers` was zero, or more than the backend can ever start.
    Workers {
        /// What was asked for.
        asked: usize,
        /// The most that this backend takes.
        limit: usize,
    },
    /// `n_jobs` was zero, of which nobody can tell what is meant.
    Jobs,
    /// The name prefix holds a NUL character, which no name of a thread or process can.
    Name {
        /// What was asked for.
        prefix: String,
    },
    /// This cannot be the name of an environment variable, or what it was given cannot be a value, or it is one that
    /// worker processes need for themselves.
    Variable {
        /// The name.
        name: String,
    },
    /// This process is a worker of a worker of a worker, and so on, as deep as is allowed.
    Nested {
        /// How many worker processes it has above it, itself included.
        depth: u32,
        /// How many there may be.
        limit: u32,
    },
    /// This process cannot start workers of this kind.
    Unsupported(
        /// Why, and what to do.
        String,
    ),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BuildError::Workers { asked, limit } => {
                write!(f, "max_workers is {asked}, and must be from 1 to {limit}")
            }
            BuildError::Jobs => {
                write!(f, "n_jobs is 0, and must be a number of workers, or -1 for all processors, -2 for all but one")
            }
            BuildError::Name { prefix } => write!(f, "the name prefix {prefix:?} must not contain a NUL character"),
            BuildError::Variable { name } => write!(
                f,
                "the environment variable {name:?} cannot be set: a name is not empty and holds no `=`, nothing holds a NUL \
                 character, and worker processes need `CONCURRENT_FUTURES_WORKER` and `CONCURRENT_FUTURES_DEPTH` themselves"
            ),
            BuildError::Nested { depth, limit } => write!(
                f,
                "process pools are nested {depth} deep here, and may be {limit} deep; \
                 does each call start a pool of its own that makes the same call?"
            ),
            BuildError::Unsupported(why) => write!(f, "{why}"),
        }
    }
}

impl error::Error for BuildError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each ending says what happened and where the task was submitted. PP-11, WRK-17.
    #[test]
    fn every_ending_has_its_sentence() {
        let lost = WorkerLost {
            pid: 7,
            exit: Exit::Signal { number: 9, name: "SIGKILL".into() },
            stderr: "out of memory".into(),
            panic: None,
        };
        let panic = Panic { message: "boom".into(), location: Some("a.rs:1:2".into()), backtrace: None };
        let table = [
            (Failure::Cancelled, "cancelled before it began"),
            (Failure::Panicked(panic.clone()), "panicked: boom, at a.rs:1:2"),
            (
                Failure::WorkerLost(lost.clone()),
                "worker process 7 was ended by SIGKILL while it ran the call; last on its standard error: \"out of memory\"",
            ),
            (
                Failure::WorkerLost(WorkerLost { panic: Some(Box::new(panic.clone())), ..lost.clone() }),
                "worker process 7 was ended by SIGKILL while it ran the call after a panic: boom, at a.rs:1:2",
            ),
            (Failure::Killed { pid: 7 }, "killed on request, with worker process 7"),
            (
                Failure::TimedOut { limit: Duration::from_millis(1500), pid: Some(7) },
                "ran longer than its limit of 1.5s, and was stopped with worker process 7",
            ),
            (
                Failure::TimedOut { limit: Duration::from_secs(2), pid: None },
                "ran longer than its limit of 2s; its thread was asked to stop, and is busy until it does",
            ),
            (
                Failure::LimitExceeded { limit: ResourceLimit::Memory { bytes: 4096 }, lost: lost.clone() },
                "used more than the 4096 bytes of memory that its worker process may: worker process 7 was ended by SIGKILL \
                 while it ran the call; last on its standard error: \"out of memory\"",
            ),
            (
                Failure::LimitExceeded {
                    limit: ResourceLimit::CpuTime { limit: Duration::from_secs(2) },
                    lost: WorkerLost { stderr: String::new(), ..lost.clone() },
                },
                "used more than the 2s of processor time that a call may: worker process 7 was ended by SIGKILL while it ran \
                 the call",
            ),
            (
                Failure::Deadlock { cycle: [3, 5, 4, 3].map(TaskId).to_vec() },
                "waiting for it would last for ever: task 3 waits for task 5, which waits for task 4, \
                 which waits for task 3",
            ),
            (
                Failure::QueueFull { capacity: 8 },
                "not accepted: the executor's queue, which holds 8 waiting calls, is full",
            ),
            (
                Failure::Encode { type_name: "T".into(), reason: "no".into() },
                "a value of type T could not be encoded: no",
            ),
            (
                Failure::Decode { type_name: "T".into(), reason: "no".into() },
                "a value of type T could not be decoded: no",
            ),
            (Failure::Refused("not a function".into()), "the worker refused the call: not a function"),
            (
                Failure::Broken(BrokenCause::Initializer(Box::new(Failure::Panicked(panic)))),
                "the executor is broken: a worker's initializer failed: panicked: boom, at a.rs:1:2",
            ),
            (
                Failure::Broken(BrokenCause::Preload(Box::new(Failure::Refused("no".into())))),
                "the executor is broken: the workers' preload failed: the worker refused the call: no",
            ),
            (
                Failure::Broken(BrokenCause::Spawn("no memory".into())),
                "the executor is broken: no worker could be started: no memory",
            ),
            (
                Failure::Broken(BrokenCause::Crashing(WorkerLost {
                    exit: Exit::Code(3),
                    stderr: String::new(),
                    ..lost
                })),
                "the executor is broken: workers keep ending before their first task; the last, process 7, exited with code 3",
            ),
            (Failure::Broken(BrokenCause::Abandoned), "the executor is broken: it dropped the task"),
            (Failure::Shutdown, "the executor was already shut down"),
            (Failure::MapTimeout { limit: Duration::from_secs(1) }, "not done within the map's limit of 1s"),
        ];
        let site = Location::caller();
        for (failure, expected) in table {
            assert_eq!(failure.to_string(), expected);
            let error = TaskError::new(failure, TaskId(3), site);
            assert_eq!(error.to_string(), format!("{expected} (task 3 submitted at {site})"));
        }
        let third = TaskError::after(3, Failure::Cancelled, TaskId(3), site);
        assert_eq!(third.to_string(), format!("cancelled before it began (task 3 submitted at {site}, attempt 3)"));
    }

    /// PP-11, PP-29: what takes more than a line is told in the long form, line by line, and where an `unwrap` prints it.
    #[test]
    fn the_long_form_has_the_lines() {
        let site = Location::caller();
        let told = |failure: Failure| format!("{:#}", TaskError::new(failure, TaskId(3), site));
        let lost = WorkerLost {
            pid: 7,
            exit: Exit::Signal { number: 6, name: "SIGABRT".into() },
            stderr: "one\n  \"two\"".into(),
            panic: None,
        };
        let by = "worker process 7 was ended by SIGABRT while it ran the call";
        let task = format!("(task 3 submitted at {site})");
        let stderr = "last on its standard error:\n    one\n      \"two\"";
        assert_eq!(told(Failure::WorkerLost(lost.clone())), format!("{by} {task}\n{stderr}"));
        let panic = Panic { message: "boom".into(), location: None, backtrace: Some("0: f\n1: g\n".into()) };
        let backtrace = "where it panicked:\n    0: f\n    1: g";
        let panicked = Failure::WorkerLost(WorkerLost { panic: Some(Box::new(panic.clone())), ..lost.clone() });
        assert_eq!(told(panicked), format!("{by} after a panic: boom {task}\n{backtrace}\n{stderr}"));
        assert_eq!(told(Failure::Panicked(panic.clone())), format!("panicked: boom {task}\n{backtrace}"));
        let crashing = told(Failure::Broken(BrokenCause::Crashing(lost.clone())));
        assert!(crashing.ends_with(stderr) && crashing.matches("one").count() == 1, "{crashing}");
        let initializer = told(Failure::Broken(BrokenCause::Initializer(Box::new(Failure::Panicked(panic)))));
        assert!(initializer.ends_with(backtrace), "{initializer}");
        // Where there is no more to tell, it is the one line.
        assert_eq!(told(Failure::Shutdown), format!("the executor was already shut down {task}"));
        let error = TaskError::new(Failure::WorkerLost(lost), TaskId(3), site);
        assert_eq!(format!("{error:?}"), format!("{error:#}"));
        assert!(format!("{error:#?}").starts_with("TaskError {\n    failure: WorkerLost("));
    }
}
