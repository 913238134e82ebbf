//! The process from which workers are forked: this same program, which was entered before `main` like a worker and did not
//! become one.
//!
//! It makes the preload's call once, and then forks *spares*, one after the other, with what the call left in their memory. A spare
//! waits for a name that the pool sends, and becomes the worker of that name: to fork takes its time, so it is
//! done before. The pool's side is `forkserver`.
//!
//! ```text
//!  pool ► zygote                                       zygote ► pool            a message each, not a stream
//!  Hello  + descriptors of the preload's call, and of what its arguments attach
//!                                                      Ready, or Unfit, or PreloadFailed
//!  the worker's name  + its channel, standard error, and standard output where that is told
//!                                                      Forked, or Refused       in the order of the names; by the spare
//!                                                      Ended                    of a spare, that the pool may wait for it
//! ```
//!
//! # Whose child a worker is
//! The pool's, as if the pool had started it: `clone` with `CLONE_PARENT` gives the new process its caller's own parent. So the
//! pool waits for it, learns how it ended, and holds a descriptor of it that cannot come to mean another process; and the
//! worker's own death signal follows the pool's driver, not the zygote, which may die without harm to anybody.
//!
//! Until the pool has heard of it, a new worker stays in the zygote's process group, and is sent no call. By that the pool finds
//! those that were forked and never told: see `forkserver`.

#![expect(
    unsafe_code,
    reason = "the process is doubled by the system call, since the C library's function knows no CLONE_PARENT"
)]

use executor_core::{attachments::Attachments, context::ContextStore, payload::Payload, portable};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::retry_on_intr,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recvmsg},
    process::{Pid, getpid, getppid},
    thread::gettid,
};
use std::{
    ffi::CString,
    fs::{self, File},
    io::{self, IoSliceMut, PipeReader, PipeWriter, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, IntoRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    ptr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    attached::MOST_IN_MESSAGE,
    identity::{self, Birth},
    wire::{HEADER_BYTES, HELLO_BYTES, Header, Hello},
    worker,
};

/// What a zygote is sent has no more than a greeting, or a name.
const ASKED_BYTES: usize = 256;

/// What a zygote says has no more.
pub(crate) const SAID_BYTES: usize = 64 << 10;

/// The system takes a moment to forget threads that have been waited for.
const LAST_THREADS_END: Duration = Duration::from_secs(1);

/// What a zygote tells its pool.
#[derive(Debug)]
pub(crate) enum Said {
    /// The preload's call is made.
    Ready,
    /// It cannot serve: why.
    Unfit(String),
    /// The preload's call failed: its reply.
    PreloadFailed(Vec<u8>),
    /// There is a worker of the name that was asked for.
    Forked(Pid),
    /// There is none: why.
    Refused(String),
    /// A spare has ended, before or after it said that it is a worker.
    Ended(Pid),
}

impl Said {
    fn bytes(&self) -> Vec<u8> {
        let (tag, body) = match self {
            Said::Ready => (0, Vec::new()),
            Said::Unfit(why) => (1, why.clone().into_bytes()),
            Said::PreloadFailed(reply) => (2, reply.clone()),
            Said::Forked(pid) => (3, pid.as_raw_nonzero().get().to_le_bytes().to_vec()),
            Said::Refused(why) => (4, why.clone().into_bytes()),
            Said::Ended(pid) => (5, pid.as_raw_nonzero().get().to_le_bytes().to_vec()),
        };
        [vec![tag], body].concat()
    }

    /// `None`: it is nothing that a zygote says.
    pub(crate) fn get(bytes: &[u8]) -> Option<Said> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let pid = |bytes: &[u8]| Pid::from_raw(i32::from_le_bytes(bytes.try_into().ok()?));
        match bytes.split_first()? {
            (0, []) => Some(Said::Ready),
            (1, why) => Some(Said::Unfit(text(why))),
            (2, reply) => Some(Said::PreloadFailed(reply.to_vec())),
            (3, bytes) => pid(bytes).map(Said::Forked),
            (4, why) => Some(Said::Refused(text(why))),
            (5, bytes) => pid(bytes).map(Said::Ended),
            _ => None,
        }
    }
}

/// What a process finds itself to be that was forked.
pub(crate) struct Forked {
    pub(crate) name: String,
    pub(crate) channel: UnixStream,
    /// Has the next spare be forked.
    pub(crate) taken: Taken,
}

/// By which a spare tells its zygote that it has become a worker, or has ended.
pub(crate) struct Taken(PipeWriter);

impl Taken {
    pub(crate) fn tell(mut self) {
        // A zygote that is gone forks nobody.
        let _ = self.0.write(&[1]);
    }
}

/// After a spare that ended without becoming a worker, the next one comes after this time: its end may have a reason.
const AFTER_LOSS: Duration = Duration::from_millis(10);

/// Once a spare has become a worker, the next one comes after this time, or when it is asked for: at first the worker is to answer
/// its call, which a fork on the same processor would hold up.
const AFTER_TAKEN: Duration = Duration::from_micros(300);

/// Serves as a zygote until the pool hangs up. `Some` in each of the workers.
pub(crate) fn serve(channel: OwnedFd, name: &str) -> io::Result<Option<Forked>> {
    let served = prepare_and_fork(&channel, name);
    if served.is_err() {
        // A pool that finds it closed ends this process, which has still to say what went wrong.
        let _open_to_the_end = channel.into_raw_fd();
    }
    served
}

fn prepare_and_fork(channel: &OwnedFd, name: &str) -> io::Result<Option<Forked>> {
    worker::watch_parent(name)?;
    if !prepare(channel, name)? {
        return Ok(None);
    }
    let number = ThreadNumber::find().map_err(|error| unfit(channel, error.to_string()))?;
    say(channel, &Said::Ready)?;
    loop {
        let forked = io::pipe().and_then(|ends| Ok((ends, fork(&number)?)));
        let ((mut told, taken), spare) = match forked {
            Ok(((_, taken), None)) => return stand_ready(channel, name, Taken(taken)),
            Ok((ends, Some(spare))) => (ends, spare),
            Err(error) if refuse(channel, format!("the zygote cannot fork: {error}"))? => continue,
            Err(_) => return Ok(None),
        };
        drop(taken);
        // Of the channel only that the pool has hung up is of interest here: what comes through it is the spare's.
        if has_hung_up(channel, PollFlags::empty(), Some(&told), None)? {
            return Ok(None);
        }
        if told.read(&mut [0])? == 0 {
            if !answer(channel, &Said::Ended(spare))? {
                return Ok(None);
            }
            thread::sleep(AFTER_LOSS);
        } else if has_hung_up(channel, PollFlags::IN, None, Some(AFTER_TAKEN))? {
            return Ok(None);
        }
    }
}

/// Waits until something of that kind comes through the channel, or anything from the spare, for so long. Whether the pool has
/// hung up.
fn has_hung_up(
    channel: &OwnedFd,
    kind: PollFlags,
    spare: Option<&PipeReader>,
    limit: Option<Duration>,
) -> io::Result<bool> {
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    let spare = spare.map(|told| PollFd::new(told, PollFlags::IN));
    let mut awaited: Vec<_> = [PollFd::new(channel, kind)].into_iter().chain(spare).collect();
    retry_on_intr(|| poll(&mut awaited, limit.as_ref()))?;
    Ok(awaited[0].revents().intersects(PollFlags::HUP | PollFlags::ERR))
}

/// What a spare does: it waits until a worker is needed, and becomes that. `None`: none will be, for the pool has hung up.
fn stand_ready(channel: &OwnedFd, zygote: &str, taken: Taken) -> io::Result<Option<Forked>> {
    rustix::thread::set_name(&CString::new(zygote.replace("-zygote", "-spare")).unwrap_or_default())?;
    loop {
        let Some(Asked { name, descriptors }) = asked(channel)? else { return Ok(None) };
        let mut descriptors = descriptors.into_iter();
        let (Some(theirs), Some(stderr), stdout) = (descriptors.next(), descriptors.next(), descriptors.next()) else {
            let why = "the zygote has too many descriptors open to take those of a worker";
            if answer(channel, &Said::Refused(why.into()))? {
                continue;
            }
            return Ok(None);
        };
        if !answer(channel, &Said::Forked(getpid()))? {
            return Ok(None);
        }
        rustix::stdio::dup2_stderr(stderr)?;
        stdout.map_or(Ok(()), rustix::stdio::dup2_stdout)?;
        return Ok(Some(Forked { name, channel: UnixStream::from(theirs), taken }));
    }
}

/// Answers in place of a spare that cannot be. `false`: the pool has hung up.
fn refuse(channel: &OwnedFd, why: String) -> io::Result<bool> {
    match asked(channel)? {
        Some(_) => answer(channel, &Said::Refused(why)),
        None => Ok(false),
    }
}

/// `false`: the pool is gone, and nobody is left to tell.
fn answer(channel: &OwnedFd, said: &Said) -> io::Result<bool> {
    match say(channel, said) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        told => told.map(|()| true),
    }
}

/// What the pool sends when it needs a worker.
struct Asked {
    name: String,
    /// None, if not all have come.
    descriptors: Vec<OwnedFd>,
}

/// `None`: the pool has hung up.
fn asked(channel: &OwnedFd) -> io::Result<Option<Asked>> {
    let (bytes, mut descriptors) = receive(channel)?;
    let Some((count, name)) = bytes.split_first() else { return Ok(None) };
    if descriptors.len() != usize::from(*count) {
        descriptors.clear();
    }
    Ok(Some(Asked { name: String::from_utf8_lossy(name).into_owned(), descriptors }))
}

/// Everything up to the first fork. `false`: the pool is gone.
fn prepare(channel: &OwnedFd, name: &str) -> io::Result<bool> {
    let (bytes, descriptors) = receive(channel)?;
    let mut descriptors = descriptors.into_iter();
    let Some(call) = descriptors.next().filter(|_| bytes.len() == HELLO_BYTES) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "what it was sent first is no greeting"));
    };
    let parent = Hello::get(&bytes[HEADER_BYTES..])?;
    if getppid().map(Pid::as_raw_nonzero).map(|pid| pid.get() as u64) != Some(parent.pid) {
        return Ok(false); // it ended before it could be watched
    }
    Hello::of_this_process().accepts(parent).map_err(|why| unfit(channel, why))?;
    identity::learn(Birth::of_worker(name), parent.pid as u32);
    preload(channel, call, descriptors.map(Arc::new).collect())?;
    if let Some(others) = others_after(LAST_THREADS_END)? {
        // Without these threads, what they share with the rest of the program would be left as it is in this moment, for
        // ever: a lock held, a queue that nobody takes from.
        let why = format!("its preload left threads behind ({others}), which no worker can be forked from");
        return Err(unfit(channel, why));
    }
    Ok(true)
}

/// Makes the call that lies in a file, if one does.
fn preload(channel: &OwnedFd, call: OwnedFd, attachments: Attachments) -> io::Result<()> {
    let mut bytes = Vec::new();
    File::from(call).read_to_end(&mut bytes)?;
    if let Some((header, body)) = bytes.split_first_chunk() {
        if Header::get(header)?.attachments as usize != attachments.len() {
            return Err(unfit(channel, "it has too many descriptors open to take those of its preload".into()));
        }
        let mut reply = Payload::default();
        let call = worker::incoming(body.to_vec(), attachments)?;
        drop(bytes); // the call may be large, and what is here now is in each worker
        let ending = worker::make(call, &mut ContextStore::default(), &mut reply);
        reply.buffer().push(ending.mark);
        let reply = reply.into_vec();
        if portable::check(&reply).is_err() {
            say(channel, &Said::PreloadFailed(reply))?;
            return Err(io::Error::other("its preload failed"));
        }
    }
    // Else each worker would print it once more.
    io::stdout().flush()
}

/// The names of the threads that there are besides this one, also after this time.
fn others_after(limit: Duration) -> io::Result<Option<String>> {
    let own = gettid().as_raw_nonzero().to_string();
    let began = Instant::now();
    loop {
        let threads: Vec<_> = fs::read_dir("/proc/self/task")?.collect::<Result<_, _>>()?;
        let others: Vec<_> = threads.into_iter().filter(|thread| thread.file_name() != own.as_str()).collect();
        if others.is_empty() {
            return Ok(None);
        }
        if began.elapsed() >= limit {
            let names = others.iter().filter_map(|thread| fs::read_to_string(thread.path().join("comm")).ok());
            return Ok(Some(names.map(|name| name.trim().to_owned()).collect::<Vec<_>>().join(", ")));
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Tells the pool why this process cannot serve it.
fn unfit(channel: &OwnedFd, why: String) -> io::Error {
    // Of two errors, the first is the one to print.
    let _ = say(channel, &Said::Unfit(why.clone()));
    io::Error::other(why)
}

fn say(channel: &OwnedFd, said: &Said) -> io::Result<()> {
    let mut bytes = said.bytes();
    if bytes.len() > SAID_BYTES {
        bytes = Said::Unfit("its preload failed, and what it has to say of that is too long".into()).bytes();
    }
    rustix::io::retry_on_intr(|| rustix::net::send(channel, &bytes, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// The next message, and what comes with it. Empty when the pool has hung up.
fn receive(channel: &OwnedFd) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; ASKED_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_IN_MESSAGE))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut into = [IoSliceMut::new(&mut bytes)];
        match recvmsg(channel.as_fd(), &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            received => break received?,
        }
    };
    bytes.truncate(received.bytes);
    let descriptors = ancillary.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect(),
        _ => Vec::new(),
    });
    Ok((bytes, descriptors.collect()))
}

/// Where the C library remembers the number of this process's only thread.
///
/// Its own `fork` renews that in the child. After a bare system call nobody would, and what signals this thread, or takes a lock
/// that the kernel knows by its owner's number, would mean the zygote's. The kernel does it instead, if it is told where: at the
/// address that the library gave it at the start, to be cleared when the thread ends. Some libraries give it another one there;
/// the number tells.
struct ThreadNumber(*mut libc::c_int);

impl ThreadNumber {
    fn find() -> io::Result<ThreadNumber> {
        let unknown = || {
            let why = "no worker can be forked here, since the C library's note of its thread cannot be found; \
                       choose `StartMethod::Spawn`";
            io::Error::new(io::ErrorKind::Unsupported, why)
        };
        let mut word: *mut libc::c_int = ptr::null_mut();
        // SAFETY: the kernel writes one pointer, for which there is room.
        if unsafe { libc::prctl(libc::PR_GET_TID_ADDRESS, &raw mut word) } != 0 || word.is_null() {
            return Err(unknown());
        }
        // SAFETY: the C library gave the kernel this address to write an `int` to when the thread ends, so for as long as the
        // thread lives it is mapped and aligned, and holds what the library put there as it started. Nobody writes to it
        // meanwhile: there is no other thread.
        let number = unsafe { word.read() };
        if number == gettid().as_raw_nonzero().get() { Ok(ThreadNumber(word)) } else { Err(unknown()) }
    }
}

/// Doubles this process. `None` in the new one, which is a child of this one's parent.
fn fork(number: &ThreadNumber) -> io::Result<Option<Pid>> {
    let flags = (libc::CLONE_PARENT | libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID) as libc::c_ulong;
    // Flags and stack change places on this one.
    let (first, second) = if cfg!(target_arch = "s390x") { (0, flags) } else { (flags, 0) };
    let nowhere: *mut libc::c_int = ptr::null_mut();
    // SAFETY: this is `fork`, but for whose child it makes. The new process has a copy of this one's memory, and goes on from here
    // on its own copy of this stack, since no other was given. What makes a fork dangerous is absent: `prepare` saw that this
    // thread is the only one, and no code but this module's has run since, so no lock is held by a thread that the copy lacks,
    // and nothing is half-done. What the C library's `fork` does besides: it runs handlers, which are there to take and release
    // such locks; and it renews the thread's number, which the kernel writes to the child's copy of the word (that the
    // library keeps it there was seen in `find`). Which of the last two places is that word's, and which a thread's storage,
    // depends on the machine; it is in both, and the storage is not looked at without its flag.
    match unsafe { libc::syscall(libc::SYS_clone, first, second, nowhere, number.0, number.0) } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(i32::try_from(pid).ok().and_then(Pid::from_raw)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        let pid = Pid::from_raw(77).unwrap();
        let all = [
            Said::Ready,
            Said::Unfit("no".into()),
            Said::PreloadFailed(vec![1, 2]),
            Said::Forked(pid),
            Said::Refused("full".into()),
            Said::Ended(pid),
        ];
        for said in all {
            assert_eq!(format!("{:?}", Said::get(&said.bytes()).unwrap()), format!("{said:?}"));
        }
        for nonsense in [&[][..], &[9], &[0, 1], &[3, 1], &[3, 0, 0, 0, 0], &[5, 1]] {
            assert!(Said::get(nonsense).is_none(), "{nonsense:?}");
        }
    }
}
