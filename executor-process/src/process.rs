//! One process for one call: starting it, waiting for it, ending it.

use executor_core::{
    Call, Exit, Failure, Value, blocking, codec,
    sync::Mutex,
    target::{self, ExitReport},
    timer,
};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::{
    env, error, fmt, io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    process::{Child, Command, Stdio},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    attached::{Departures, send_all},
    builder::MAX_DEPTH,
    identity::{self, Birth, current_process},
    keeper, life, os,
    wait_any::wait_until_ready,
    wire::{Hello, Kind, call_header, call_tail, put_frame},
    worker,
};

/// How long a process that was asked to end has, before it is ended.
const GRACE: Duration = Duration::from_millis(100);

/// A call in a process of its own, not yet started. Python's `multiprocessing.Process`.
///
/// The function is an `fn` item or a closure that captures nothing, and its argument is any [`Value`], of which
/// [`Queue`](crate::Queue)s and [`Connection`](crate::Connection)s are some: through these it gives something back.
///
/// # What it is
/// This same program, started again, which turns to the call before `main` begins: see [`worker`]. Standard
/// output and error are this process's, and so is the group to which Ctrl-C goes; standard input is empty.
///
/// # How it ends
/// With the exit code that [`ExitReport`] tells when the function returns: 0 for `()`. With 1, and the message on standard error,
/// when it returns an `Err` or panics. Threads that still run end with it, as they do with `main`.
///
/// # Examples
/// ```
/// use concurrent_futures::{Process, Queue};
///
/// fn square((numbers, squares): (Vec<u64>, Queue<u64>)) {
///     for number in numbers {
///         squares.put(number * number).unwrap();
///     }
/// }
///
/// let squares = Queue::new();
/// let p = Process::new(square, (vec![1, 2, 3], squares.clone())).name("squares").start()?;
/// p.join()?;
/// assert_eq!([squares.get()?, squares.get()?, squares.get()?], [1, 4, 9]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "it does nothing until it is started"]
pub struct Process {
    call: Result<Call, Failure>,
    name: String,
    path: String,
    daemon: bool,
    time_limit: Option<Duration>,
}

impl Process {
    /// A process that is to call `target` on `args`. They are encoded now; if that fails, `start` says so.
    pub fn new<A: Value, R: ExitReport>(target: fn(A) -> R, args: A) -> Process {
        let path = identity::next_path();
        Process {
            call: target::pack(target, args),
            name: format!("Process-{path}"),
            path,
            daemon: current_process().is_daemon(),
            time_limit: None,
        }
    }

    /// What [`current_process`] says there, and what the system shows. Without it: `Process-1`, `Process-2`, and so on; their own
    /// children `Process-1:1`.
    pub fn name(mut self, name: impl Into<String>) -> Process {
        self.name = name.into();
        self
    }

    /// Whether the process is ended when its handle is dropped, and when this process ends, in whatever way. Without it: if
    /// this process is one, whose children can be nothing else.
    pub fn daemon(mut self, daemon: bool) -> Process {
        self.daemon = daemon;
        self
    }

    /// How long the process may take, counted from its start. Then it is asked to end, by SIGTERM, and soon afterwards is ended.
    ///
    /// # Panics
    /// If `limit` is zero.
    pub fn time_limit(mut self, limit: Duration) -> Process {
        assert!(!limit.is_zero(), "a time limit must be longer than zero");
        self.time_limit = Some(limit);
        self
    }

    /// Starts the process. Returns as soon as it has its arguments, not when it has begun the call.
    ///
    /// # Errors
    /// [`StartError`]: the arguments cannot be encoded, or the system starts no process.
    pub fn start(self) -> Result<ProcessHandle, StartError> {
        worker::keep_entry();
        if worker::is_stray_worker() {
            return Err(StartError::NoEntry);
        }
        if let Some(library) = worker::late_module() {
            let why = format!(
                "this is part of {library}, which the program has loaded by hand: started again, it would run its `main` before \
                 that library is there; link the program with the library"
            );
            return Err(io::Error::new(io::ErrorKind::Unsupported, why).into());
        }
        if os::depth() >= MAX_DEPTH {
            return Err(StartError::Nested { limit: MAX_DEPTH });
        }
        if current_process().is_daemon() && !self.daemon {
            return Err(StartError::Daemon);
        }
        let call = self.call.map_err(StartError::Arguments)?;
        let birth = Birth {
            name: self.name.clone(),
            path: self.path,
            daemon: self.daemon,
            parent_name: current_process().name().to_owned(),
        };
        let (channel, theirs) = UnixStream::pair()?;
        let mut command = Command::new(os::PROGRAM);
        command
            .arg0(env::args_os().next().unwrap_or_else(|| "executor-process".into()))
            .env(life::MARKER, "1")
            .env(os::DEPTH, (os::depth() + 1).to_string())
            .stdin(Stdio::from(OwnedFd::from(theirs)));
        let child = keeper::spawn(command)?;
        let pidfd = match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                os::abandon(child);
                return Err(StartError::System(error.into()));
            }
        };
        let running = Arc::new(Running {
            name: self.name,
            pid: child.id(),
            daemon: self.daemon,
            pidfd,
            time_limit: self.time_limit,
            overran: AtomicBool::new(false),
            limit: Mutex::new(None),
            end: Mutex::new((child, None)),
        });
        {
            let mut children = CHILDREN.lock();
            children.retain(|child| child.strong_count() > 0);
            children.push(Arc::downgrade(&running));
        }
        let handle = ProcessHandle { running };
        let begun = self.time_limit.map_or(Ok(()), |limit| handle.running.watch(limit));
        // On this thread, and through a socket that blocks: arguments may be larger than it holds, and are read at once.
        match begun.and_then(|()| hand_over(&channel, &birth, &call)) {
            // One that has ended already says why by its exit code, and on standard error.
            Err(error) if !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                handle.kill();
                Err(error.into())
            }
            _ => Ok(handle),
        }
    }
}

/// Tells a process that was only just started what it is to do.
fn hand_over(channel: &UnixStream, birth: &Birth, call: &Call) -> io::Result<()> {
    let mut bytes = Vec::new();
    Hello::of_this_process().put(&mut bytes);
    let mut encoded = Vec::new();
    codec::encode(birth, &mut encoded).map_err(|failure| io::Error::other(failure.to_string()))?;
    put_frame(Kind::Birth, 0, &encoded, &mut bytes);
    send_all(channel, &bytes)?;
    Departures::default().send_all(channel, &call.attachments)?;
    send_all(channel, &call_header(Kind::Call, 0, call))?;
    call.args.parts().iter().try_for_each(|part| send_all(channel, part))?;
    send_all(channel, &call_tail(call))
}

/// All that were started here and whose handle is there.
static CHILDREN: Mutex<Vec<Weak<Running>>> = Mutex::new(Vec::new());

/// A process that was started.
///
/// Dropping it waits for the process to end. A [daemon](Process::daemon) is ended instead: by SIGTERM, and if that is of no use
/// soon, by SIGKILL. A program that ends without dropping it (by [`std::process::exit`], by a signal) takes its daemons along, and leaves the
/// others to themselves: these can ask [`parent_process`](crate::parent_process) whether somebody is still there.
#[must_use = "dropping it waits for the process to end"]
pub struct ProcessHandle {
    running: Arc<Running>,
}

struct Running {
    name: String,
    pid: u32,
    daemon: bool,
    /// Becomes readable when the process has ended.
    pidfd: OwnedFd,
    time_limit: Option<Duration>,
    /// It is being ended for its time limit.
    overran: AtomicBool,
    limit: Mutex<Option<timer::Entry>>,
    /// How it ended, once that was asked for. Nobody keeps the lock while it runs.
    end: Mutex<(Child, Option<Exit>)>,
}

impl ProcessHandle {
    /// The name that it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.running.name
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running.pid
    }

    /// Whether it ends with this process.
    #[must_use]
    pub fn is_daemon(&self) -> bool {
        self.running.daemon
    }

    /// Whether it has not ended.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.running.exit().is_none()
    }

    /// How it ended, or `None` if it has not.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        self.running.exit()
    }

    /// How it ended, as Python's number, or `None` if it has not: its exit code, or minus the number of the signal that ended it.
    /// 255 if somebody else in this program took note of its end.
    #[must_use]
    pub fn exit_code(&self) -> Option<i32> {
        self.exit().map(|exit| match exit {
            Exit::Code(code) => code,
            Exit::Signal { number, .. } => -number,
            _ => 255,
        })
    }

    /// Waits until the process has ended. May be called again.
    ///
    /// There is no need to take its results from a [`Queue`](crate::Queue) first.
    ///
    /// # Errors
    /// [`JoinError`]: it has not ended well, which is with exit code 0.
    pub fn join(&self) -> Result<(), JoinError> {
        self.running.wait(None);
        self.running.outcome()
    }

    /// Waits until the process has ended, but no longer than `limit`. A limit of zero only looks.
    ///
    /// # Errors
    /// [`JoinError::is_timeout`]: it has not ended. Otherwise as [`join`](Self::join).
    pub fn join_timeout(&self, limit: Duration) -> Result<(), JoinError> {
        self.running.wait(Some(timer::after(limit)));
        self.running.outcome()
    }

    /// Asks it to end, by SIGTERM. It can refuse. What it has started goes on.
    pub fn terminate(&self) {
        self.running.signal(Signal::TERM);
    }

    /// Ends it, by SIGKILL. What it has started goes on, but for daemons.
    pub fn kill(&self) {
        self.running.signal(Signal::KILL);
    }

    /// Interrupts it as Ctrl-C does, by SIGINT.
    pub fn interrupt(&self) {
        self.running.signal(Signal::INT);
    }
}

impl Running {
    fn signal(&self, signal: Signal) {
        // An error means that it has ended already.
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }

    fn exit(&self) -> Option<Exit> {
        let mut end = self.end.lock();
        let (child, exit) = &mut *end;
        if exit.is_none() {
            *exit = match child.try_wait() {
                Ok(status) => status.map(os::exit_of),
                Err(_) => Some(Exit::Unknown), // somebody else has waited for it
            };
        }
        exit.clone()
    }

    /// Until it has ended, or until `deadline`.
    fn wait(&self, deadline: Option<Instant>) {
        if self.exit().is_none() {
            // An error of the system's ends the wait early, and the outcome says that it still runs.
            let _ = blocking::while_blocked(|| wait_until_ready(&[self.pidfd.as_fd()], deadline));
        }
    }

    fn outcome(&self) -> Result<(), JoinError> {
        let exit = self.exit();
        match exit {
            Some(Exit::Code(0)) => Ok(()),
            // ORDERING: Relaxed; it was set before the signal by which the process ended.
            _ => Err(JoinError {
                name: self.name.clone(),
                pid: self.pid,
                limit: self.time_limit.filter(|_| self.overran.load(Ordering::Relaxed)),
                exit,
            }),
        }
    }

    /// Has the process ended when its time is over.
    fn watch(self: &Arc<Self>, limit: Duration) -> io::Result<()> {
        let running = Arc::downgrade(self);
        // Held until the entry is in its place: the next one is put there by what this one does.
        let mut place = self.limit.lock();
        let entry = timer::at(timer::after(limit), move || {
            let Some(running) = running.upgrade() else { return };
            // ORDERING: Relaxed; see `outcome`.
            running.overran.store(true, Ordering::Relaxed);
            running.signal(Signal::TERM);
            let same = Arc::downgrade(&running);
            let kill = timer::at(timer::after(GRACE), move || {
                if let Some(running) = same.upgrade() {
                    running.signal(Signal::KILL);
                }
            });
            match kill {
                Ok(entry) => drop(running.limit.lock().replace(entry)),
                Err(_) => running.signal(Signal::KILL),
            }
        })?;
        *place = Some(entry);
        Ok(())
    }
}

impl Drop for ProcessHandle {
    fn drop(&mut self) {
        if self.running.daemon && self.running.exit().is_none() {
            self.terminate();
            self.running.wait(Some(timer::after(GRACE)));
            self.kill();
        }
        self.running.wait(None);
        drop(self.running.exit()); // so that nothing is left of it
    }
}

/// The sentinel: ready to be read when the process has ended, for [`wait_any`](crate::wait_any()) and other pollers.
impl AsFd for ProcessHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.running.pidfd.as_fd()
    }
}

impl fmt::Debug for ProcessHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("ProcessHandle");
        shown.field("name", &self.name()).field("pid", &self.pid()).field("daemon", &self.is_daemon());
        shown.field("exit", &self.exit()).finish()
    }
}

/// A process that was started here and has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ActiveChild {
    /// Its number.
    pub pid: u32,
    /// Its name.
    pub name: String,
}

/// The processes that this one has started with [`Process`] and that have not ended, in the order of their start. Python's function of that name.
#[must_use]
pub fn active_children() -> Vec<ActiveChild> {
    let children: Vec<_> = CHILDREN.lock().iter().filter_map(Weak::upgrade).collect();
    let active = children.into_iter().filter(|child| child.exit().is_none());
    active.map(|child| ActiveChild { pid: child.pid, name: child.name.clone() }).collect()
}

/// Why a [`Process`] was not started.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// Its arguments could not be encoded.
    Arguments(
        /// Why.
        Failure,
    ),
    /// This process is a daemon, and the other one was to be none: it would be left behind.
    Daemon,
    /// This process was itself started to make a call, and runs `main` instead.
    NoEntry,
    /// Each process starts another one, as deep as is allowed.
    Nested {
        /// How deep that is.
        limit: u32,
    },
    /// The system refused.
    System(
        /// What it said.
        io::Error,
    ),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Arguments(failure) => write!(f, "{failure}"),
            StartError::Daemon => write!(f, "a daemonic process can start only daemonic ones"),
            StartError::NoEntry => write!(f, "{}", worker::STRAY),
            StartError::Nested { limit } => write!(
                f,
                "processes are nested {limit} deep here, which is as deep as they may be; does each start another one?"
            ),
            StartError::System(error) => write!(f, "no process could be started: {error}"),
        }
    }
}

impl error::Error for StartError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            StartError::System(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        StartError::System(error)
    }
}

/// A process has not ended well, or not in time.
#[derive(Clone, Debug)]
pub struct JoinError {
    name: String,
    pid: u32,
    limit: Option<Duration>,
    exit: Option<Exit>,
}

impl JoinError {
    /// It still runs.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.exit.is_none()
    }

    /// How it ended, or `None` if it has not.
    #[must_use]
    pub fn exit(&self) -> Option<&Exit> {
        self.exit.as_ref()
    }

    /// It was ended since it ran longer than its [time limit](Process::time_limit).
    #[must_use]
    pub fn is_timed_out(&self) -> bool {
        self.limit.is_some() && self.exit.is_some()
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({}) ", self.name, self.pid)?;
        match (&self.exit, self.limit) {
            (None, _) => write!(f, "still runs"),
            (Some(exit), Some(limit)) => write!(f, "ran longer than its limit of {limit:?}, and {exit}"),
            (Some(exit), None) => write!(f, "{exit}"),
        }
    }
}

impl error::Error for JoinError {}
