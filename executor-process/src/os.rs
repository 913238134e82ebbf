//! Starting, ending and naming processes.

use executor_core::Exit;
use rustix::{
    net::SendFlags,
    process::{
        Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, pidfd_send_signal, waitid,
    },
};
use std::{
    env,
    ffi::OsString,
    fs, io,
    num::NonZeroUsize,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt, process::ExitStatusExt},
    },
    process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio},
};

use crate::{attached, identity::current_process};

/// Tells a process that it is to be a worker, whose channel is its standard input. Taken out of the environment
/// before any call is made, so that a worker's own children do not think that they are meant.
pub(crate) const MARKER: &str = "CONCURRENT_FUTURES_WORKER";

/// Tells a worker process how deep pools are nested in it.
pub(crate) const DEPTH: &str = "CONCURRENT_FUTURES_DEPTH";

/// Tells a worker process the name of the one that started it.
pub(crate) const PARENT: &str = "CONCURRENT_FUTURES_PARENT";

/// This program, also when its file was replaced or deleted.
pub(crate) const PROGRAM: &str = "/proc/self/exe";

/// How many worker processes this process has above it: 0, unless it is one.
pub(crate) fn depth() -> u32 {
    env::var(DEPTH).ok().and_then(|depth| depth.parse().ok()).unwrap_or(0)
}

/// What tells libraries with threads of their own how many of these to start.
const THREAD_VARIABLES: [&str; 7] = [
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
];

/// How many threads libraries in a worker are told to start.
#[derive(Clone, Copy, Debug)]
pub(crate) enum InnerThreads {
    /// Whatever the environment says.
    Chosen(NonZeroUsize),
    /// Unless the environment says something.
    Share(NonZeroUsize),
}

/// A child of this process, whoever started it: nobody else gets its number before it is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChildProcess(pub(crate) Pid);

impl ChildProcess {
    pub(crate) fn id(self) -> u32 {
        self.0.as_raw_nonzero().get().unsigned_abs()
    }
}

/// A process that was started, with this side's ends of what connects us.
#[derive(Debug)]
pub(crate) struct Started<C = UnixStream> {
    pub(crate) child: ChildProcess,
    /// Becomes readable when the process has ended.
    pub(crate) pidfd: OwnedFd,
    pub(crate) channel: C,
    pub(crate) stderr: ChildStderr,
    /// Where it is not this process's own.
    pub(crate) stdout: Option<ChildStdout>,
}

/// What a worker is called.
pub(crate) fn worker_name(prefix: &str, worker: u64) -> String {
    format!("{prefix}-{worker}")
}

/// Starts this program again, as a worker.
///
/// `/proc/self/exe` is the running program also when its file was replaced or deleted. Everything that this process
/// has open is closed in the worker, but for standard output and error: the standard library opens all else
/// close-on-exec, and so do we.
pub(crate) fn start_worker(
    name: &str,
    inner_threads: InnerThreads,
    hears_stdout: bool,
    variables: &[(OsString, OsString)],
) -> io::Result<Started> {
    start(name, inner_threads, hears_stdout, variables, UnixStream::pair()?)
}

/// Starts this program again. What it becomes depends on the kind of its channel: see `worker`.
pub(crate) fn start<C>(
    name: &str,
    inner_threads: InnerThreads,
    hears_stdout: bool,
    variables: &[(OsString, OsString)],
    (channel, theirs): (C, C),
) -> io::Result<Started<C>>
where
    C: AsFd + Into<OwnedFd>,
{
    let mut command = Command::new(PROGRAM);
    command
        .arg0(env::args_os().next().unwrap_or_else(|| "executor-worker".into()))
        .env(MARKER, name)
        .env(DEPTH, (depth() + 1).to_string())
        .env(PARENT, current_process().name())
        .stdin(Stdio::from(theirs.into()))
        .stderr(Stdio::piped())
        // Ctrl-C goes to the foreground group, and is for the parent to decide about.
        .process_group(0);
    if hears_stdout {
        command.stdout(Stdio::piped());
    }
    let (threads, holds) = match inner_threads {
        InnerThreads::Chosen(threads) => (threads, true),
        InnerThreads::Share(threads) => (threads, false),
    };
    let told = THREAD_VARIABLES.into_iter().filter(|variable| holds || env::var_os(variable).is_none());
    command.envs(told.map(|variable| (variable, threads.to_string())));
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    let mut child = command.spawn()?;
    let stderr = child.stderr.take().expect("it was asked for");
    let stdout = child.stdout.take();
    let connected = (|| {
        rustix::io::ioctl_fionbio(&channel, true)?;
        rustix::io::ioctl_fionbio(&stderr, true)?;
        stdout.as_ref().map_or(Ok(()), |stdout| rustix::io::ioctl_fionbio(stdout, true))?;
        Ok(pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?)
    })();
    match connected {
        Ok(pidfd) => Ok(Started { child: ChildProcess(Pid::from_child(&child)), pidfd, channel, stderr, stdout }),
        Err(error) => {
            abandon(child);
            Err(error)
        }
    }
}

/// Sends `bytes`, and a descriptor with the first of them.
pub(crate) fn send_with_descriptor(channel: &UnixStream, bytes: &[u8], descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let sent = attached::send_with_descriptor(channel, bytes, descriptor)?;
    if sent == bytes.len() { Ok(()) } else { Err(io::Error::from(io::ErrorKind::WriteZero)) }
}

/// Sends as much as the channel takes now. Never raises SIGPIPE.
pub(crate) fn send(channel: &UnixStream, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match rustix::net::send(channel, bytes, SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

/// Signals a worker through its descriptor, which cannot come to mean another process, and then all that its calls have
/// started and left in its group.
pub(crate) fn signal(child: ChildProcess, pidfd: &OwnedFd, signal: Signal) {
    // An error means that it has ended already.
    let _ = pidfd_send_signal(pidfd, signal);
    // The group has the worker's number, which nobody else gets before `child` is waited for, as somebody else in this
    // program may have done.
    let watched = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    if waitid(WaitId::PidFd(pidfd.as_fd()), watched).is_ok() {
        let _ = kill_process_group(child.0, signal);
    }
}

/// Waits for a child's end, which is told once.
pub(crate) fn wait(pidfd: &OwnedFd) -> io::Result<ExitStatus> {
    loop {
        match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Err(rustix::io::Errno::INTR) => {}
            ended => {
                let status = ended?.ok_or(io::ErrorKind::NotFound)?;
                let code = status.exit_status().map(|code| (code & 0xff) << 8);
                return Ok(ExitStatus::from_raw(code.or(status.terminating_signal()).unwrap_or_default()));
            }
        }
    }
}

/// How much memory a process keeps for itself, in bytes: not what it only maps, such as its program, and memory that is shared.
pub(crate) fn own_bytes(pid: u32) -> Option<u64> {
    let pages = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let mut pages = pages.split(' ').skip(1).map_while(|pages| pages.parse::<u64>().ok());
    let (resident, mapped) = (pages.next()?, pages.next()?);
    Some(resident.saturating_sub(mapped) * rustix::param::page_size() as u64)
}

/// Ends a process that was only just started, and forgets it.
pub(crate) fn abandon(mut child: Child) {
    // Errors mean that it has ended already; whoever calls this has a better one to tell.
    let _ = child.kill();
    let _ = child.wait();
}

/// As [`abandon`], if the process has a descriptor by now.
pub(crate) fn discard(pidfd: &OwnedFd) {
    let _ = pidfd_send_signal(pidfd, Signal::KILL);
    let _ = wait(pidfd);
}

/// How a process ended, in words.
pub(crate) fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(number)) => Exit::Signal { number, name: signal_name(number) },
        (None, None) => Exit::Unknown,
    }
}

fn signal_name(number: i32) -> String {
    const NAMES: [(i32, &str); 18] = [
        (libc::SIGHUP, "SIGHUP"),
        (libc::SIGINT, "SIGINT"),
        (libc::SIGQUIT, "SIGQUIT"),
        (libc::SIGILL, "SIGILL"),
        (libc::SIGTRAP, "SIGTRAP"),
        (libc::SIGABRT, "SIGABRT"),
        (libc::SIGBUS, "SIGBUS"),
        (libc::SIGFPE, "SIGFPE"),
        (libc::SIGKILL, "SIGKILL"),
        (libc::SIGUSR1, "SIGUSR1"),
        (libc::SIGSEGV, "SIGSEGV"),
        (libc::SIGUSR2, "SIGUSR2"),
        (libc::SIGPIPE, "SIGPIPE"),
        (libc::SIGALRM, "SIGALRM"),
        (libc::SIGTERM, "SIGTERM"),
        (libc::SIGXCPU, "SIGXCPU"),
        (libc::SIGXFSZ, "SIGXFSZ"),
        (libc::SIGSYS, "SIGSYS"),
    ];
    match NAMES.iter().find(|(known, _)| *known == number) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("signal {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_process_is_known() {
        let own = std::hint::black_box(vec![1_u8; 64 << 20]);
        let megabytes = own_bytes(std::process::id()).unwrap() >> 20;
        assert!((64..10_000).contains(&megabytes), "{megabytes} MiB");
        drop(own);
        assert_eq!(own_bytes(0), None);
    }

    #[test]
    fn endings_have_names() {
        assert_eq!(exit_of(ExitStatus::from_raw(3 << 8)), Exit::Code(3));
        let killed = exit_of(ExitStatus::from_raw(libc::SIGKILL));
        assert_eq!(killed.to_string(), "was ended by SIGKILL");
        assert_eq!(exit_of(ExitStatus::from_raw(50)).to_string(), "was ended by signal 50");
    }
}
