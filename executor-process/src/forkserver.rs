//! The pool's side of a zygote: starting it, asking it for workers, and seeing to its end.
//!
//! Nothing here waits: a name is sent, and the answer is taken when the driver's `watch` says that it is there. So however long a preload
//! takes, the driver has time for everything else. A zygote that ends is replaced when the next worker is needed; what it was
//! still asked for is asked for again.

use executor_core::{Exit, Failure, portable, task::Parcel};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{MemfdFlags, memfd_create},
    io::{Errno, retry_on_intr},
    net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socketpair},
    pipe::{PipeFlags, pipe_with},
    process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, setpgid, waitid},
};
use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read, Seek, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::{ChildStderr, ChildStdout},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    attached::send_with_descriptors,
    claims::Claims,
    echo::Echo,
    inbox::Shared,
    lane::Tail,
    os::{self, ChildProcess, Started},
    output::{OutputStream, Speaker, Speech},
    ring::ParentRings,
    watch::{Source, Watch},
    wire::{Hello, Kind, call_header, call_tail},
    zygote::{SAID_BYTES, Said},
};

/// How worker processes come to be.
///
/// # Examples
/// ```
/// use concurrent_futures::{Executor, ProcessPoolExecutor, StartMethod};
/// use std::sync::OnceLock;
///
/// static PRIMES: OnceLock<Vec<u32>> = OnceLock::new();
///
/// fn find_primes(below: u32) {
///     let primes = (2..below).filter(|n| (2..*n).all(|divisor| n % divisor != 0));
///     PRIMES.set(primes.collect()).expect("it is called once");
/// }
///
/// let pool = ProcessPoolExecutor::builder()
///     .max_workers(2)
///     .start_method(StartMethod::ForkServer)
///     .preload(find_primes, 100)
///     .build()?;
/// // Both workers have them, and neither had to find them.
/// assert_eq!(pool.submit(|index: usize| PRIMES.get().unwrap()[index], 4).result()?, 11);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StartMethod {
    /// Each is this program, started again: about a millisecond, and each builds its own initial state.
    #[default]
    Spawn,
    /// Each is forked from a process that the pool starts with itself: this program, started again, which has one thread and runs
    /// no calls. One is always forked ahead, so a worker is there in a fraction of the time, and what a
    /// [`preload`](crate::ProcessPoolExecutorBuilder::preload) left in its memory is there in each worker, shared until somebody
    /// writes to it. If that process dies, it is replaced, and workers live on.
    ///
    /// Never is this process itself forked, which may have any number of threads.
    ///
    /// Workers have in common what the fork copied: seeds of random numbers that were drawn before it, and files that the preload
    /// left open, with their positions. Handlers of `pthread_atfork` are not run. Not on a C library that keeps its
    /// thread's number to itself, such as musl: the first call then says so.
    ForkServer,
}

/// Workers that are asked for and not there yet.
const MOST_ASKED: usize = 32;

/// A zygote that is ready answers within this time, or is replaced.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// A refused worker is asked for again after this time.
const REST: Duration = Duration::from_millis(100);

/// At its pool's end, a zygote has so long to end by itself.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// Of a worker's name, as it travels: with the number before it, it fits into what a zygote reads at once. What the system shows
/// of it is shorter.
const NAME_BYTES: usize = 255;

/// Reads from its standard error in one go, and from that of a dead one.
const READS: usize = 64;

/// Starts zygotes, one after the other if need be, and asks them for workers.
pub(crate) struct ForkServer {
    shared: Arc<Shared>,
    watch: Arc<Watch>,
    zygote: Option<Zygote>,
    /// A worker was refused: until then, none is asked for.
    rests_until: Option<Instant>,
    /// What zygotes write is left alone for now.
    is_muted: bool,
}

struct Zygote {
    watch: Arc<Watch>,
    child: ChildProcess,
    pidfd: OwnedFd,
    channel: OwnedFd,
    stderr: Option<ChildStderr>,
    /// Where what it writes is told with whose it is.
    speech: Option<(Speaker, Speech)>,
    tail: Tail,
    is_ready: bool,
    /// The last of the workers that it forked.
    forked: Option<Pid>,
    /// In the order of the answers.
    asked: VecDeque<Asked>,
    answers_by: Option<Instant>,
}

/// A worker that is to come, by this side's ends of what will connect us.
struct Asked {
    worker: u64,
    shares: (Claims, ParentRings),
    channel: UnixStream,
    stderr: ChildStderr,
    stdout: Option<ChildStdout>,
}

/// What came of asking.
pub(crate) enum News {
    /// A worker, by its serial number.
    Forked(u64, Claims, ParentRings, Started),
    /// A worker that was asked for could not be started.
    Refused(io::Error),
    /// No worker can be started in this way.
    Unfit(String),
    /// The preload's call failed.
    PreloadFailed(Failure),
    /// The zygote ended, in these words, without a single worker.
    Fruitless(String),
}

impl ForkServer {
    /// Starts a zygote at once, so that it is there when the first worker is needed.
    pub(crate) fn new(shared: &Arc<Shared>, watch: &Arc<Watch>) -> ForkServer {
        let (shared, watch) = (Arc::clone(shared), Arc::clone(watch));
        let mut server = ForkServer { shared, watch, zygote: None, rests_until: None, is_muted: false };
        // It is tried again, and its error told, when a worker is needed.
        let _ = server.start();
        server
    }

    fn start(&mut self) -> io::Result<&mut Zygote> {
        let chosen = &self.shared.chosen;
        let call = file_of(chosen.preload.as_ref())?;
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let hears_stdout = chosen.output.is_attributed();
        let name = format!("{}-zygote", chosen.name_prefix);
        let Started { child, pidfd, channel, stderr, stdout } =
            os::start(&name, chosen.inner_threads, hears_stdout, &chosen.env, pair)?;
        let speaker = Speaker { pid: child.id(), name: name.into(), task: None, origin: None };
        let zygote = Zygote {
            watch: Arc::clone(&self.watch),
            child,
            pidfd,
            channel,
            stderr: Some(stderr),
            speech: hears_stdout.then(|| (speaker, Speech::new(stdout))),
            tail: Tail::default(),
            is_ready: false,
            forked: None,
            asked: VecDeque::new(),
            answers_by: None,
        };
        let mut hello = Vec::new();
        Hello::of_this_process().put(&mut hello);
        let attachments = chosen.preload.iter().flat_map(|preload| &preload.call().attachments);
        let descriptors: Vec<_> = [call.as_fd()].into_iter().chain(attachments.map(AsFd::as_fd)).collect();
        let begun = (|| {
            zygote.watch.add(0, Source::Zygote, &zygote.pidfd)?;
            zygote.watch.add(0, Source::Zygote, &zygote.channel)?;
            if !self.is_muted {
                zygote.watch_output(true)?;
            }
            deliver(send_with_descriptors(&zygote.channel, &hello, &descriptors))
        })();
        if let Err(error) = begun {
            os::discard(&zygote.pidfd);
            return Err(error);
        }
        Ok(self.zygote.insert(zygote))
    }

    /// Workers that were asked for and are not there yet.
    pub(crate) fn asked(&self) -> usize {
        self.zygote.as_ref().map_or(0, |zygote| zygote.asked.len())
    }

    /// Whether it can be asked for another one now.
    pub(crate) fn has_room(&self) -> bool {
        self.asked() < MOST_ASKED && self.rests_until.is_none()
    }

    /// Asks for a worker, which is greeted already, and starts a zygote if there is none.
    pub(crate) fn ask(
        &mut self,
        worker: u64,
        name: &str,
        shares: (Claims, ParentRings),
        (channel, theirs): (UnixStream, UnixStream),
    ) -> io::Result<()> {
        channel.set_nonblocking(true)?;
        let (stderr, their_stderr) = nonblocking_pipe()?;
        let (stdout, their_stdout) = match self.shared.chosen.output.is_attributed() {
            true => Some(nonblocking_pipe()?).unzip(),
            false => (None, None),
        };
        let zygote = match &mut self.zygote {
            Some(zygote) => zygote,
            None => self.start()?,
        };
        let name = &name.as_bytes()[..name.floor_char_boundary(NAME_BYTES)];
        let pipes = [&their_stderr].into_iter().chain(&their_stdout);
        let descriptors: Vec<_> = [theirs.as_fd()].into_iter().chain(pipes.map(AsFd::as_fd)).collect();
        // How many come with it: the system drops those for which the other side has no room.
        let asked = [&[descriptors.len() as u8], name].concat();
        deliver(send_with_descriptors(&zygote.channel, &asked, &descriptors))?;
        let (stderr, stdout) = (ChildStderr::from(stderr), stdout.map(ChildStdout::from));
        zygote.asked.push_back(Asked { worker, shares, channel, stderr, stdout });
        zygote.expect_answer();
        Ok(())
    }

    /// When to look, if nothing happens before.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let answers_by = self.zygote.as_ref().and_then(|zygote| zygote.answers_by);
        answers_by.into_iter().chain(self.rests_until).min()
    }

    /// Begins or ceases to watch what the zygote writes.
    pub(crate) fn watch_output(&mut self, watches: bool) {
        self.is_muted = !watches;
        // One that can be watched no more is read as the zygote ends.
        self.zygote.iter().for_each(|zygote| drop(zygote.watch_output(watches)));
    }

    /// Takes what the zygote has said, and buries it if it is dead.
    pub(crate) fn look(&mut self, now: Instant, echo: &mut Echo) -> Vec<News> {
        self.rests_until.take_if(|at| *at <= now);
        let Some(zygote) = &mut self.zygote else { return Vec::new() };
        // Asked first: what it said before its end is then read below.
        let has_ended = zygote.has_ended();
        if !echo.is_full() || has_ended {
            zygote.read_output(echo);
        }
        let mut news = Vec::new();
        zygote.read_channel(&mut news);
        if news.iter().any(|news| matches!(news, News::Refused(_))) {
            // What is asked for again would be refused again.
            self.rests_until = now.checked_add(REST);
        }
        if zygote.answers_by.is_some_and(|at| at <= now) {
            zygote.tail.keep(b"concurrent-futures: the zygote is ended, for it does not answer\n");
            zygote.kill();
            zygote.answers_by = None;
        }
        if has_ended && let Some(mut zygote) = self.zygote.take() {
            zygote.end_lines(echo);
            let has_forked = zygote.forked.is_some();
            let words = zygote.bury();
            if !has_forked {
                news.push(News::Fruitless(words));
            }
        }
        news
    }

    /// At the end of the pool.
    pub(crate) fn end(mut self, echo: &mut Echo) {
        let Some(mut zygote) = self.zygote.take() else { return };
        if zygote.is_ready {
            // An error means that it has hung up already.
            let _ = rustix::net::shutdown(&zygote.channel, rustix::net::Shutdown::Both);
            let limit = Timespec { tv_sec: LAST_WAIT.as_secs() as i64, tv_nsec: 0 };
            // If it cannot be waited for, or is not done in time, it is killed.
            let _ = poll(&mut [PollFd::new(&zygote.pidfd, PollFlags::IN)], Some(&limit));
        } else {
            zygote.kill();
        }
        zygote.read_output(echo);
        zygote.end_lines(echo);
        zygote.bury();
    }
}

impl Zygote {
    fn expect_answer(&mut self) {
        let expects = self.is_ready && !self.asked.is_empty();
        self.answers_by = if expects { Instant::now().checked_add(ANSWER_LIMIT) } else { None };
    }

    fn has_ended(&self) -> bool {
        let watched = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        // Not to be found is as good as ended: somebody else in this program has waited for it.
        !matches!(waitid(WaitId::PidFd(self.pidfd.as_fd()), watched), Ok(None))
    }

    fn kill(&self) {
        // An error means that it has ended already.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    fn watch_output(&self, watches: bool) -> io::Result<()> {
        let stdout = self.speech.as_ref().and_then(|(_, speech)| speech.stdout.as_ref()).map(AsFd::as_fd);
        for stream in stdout.into_iter().chain(self.stderr.as_ref().map(AsFd::as_fd)) {
            if watches {
                self.watch.add(0, Source::Zygote, stream)?;
            } else {
                self.watch.remove(stream);
            }
        }
        Ok(())
    }

    /// Passes on what it wrote, and keeps the last of its standard error. Bounded: somebody may hold the pipes and write for
    /// ever.
    fn read_output(&mut self, echo: &mut Echo) {
        let mut bytes = [0; 8192];
        for _ in 0..READS {
            let Zygote { watch, stderr, speech, tail, .. } = self;
            let said = read_some(stderr, watch, &mut bytes);
            match speech {
                Some((speaker, speech)) => speech.tell(speaker, OutputStream::Stderr, said, &mut echo.teller),
                None if said.is_empty() => {}
                None => echo.print(said),
            }
            tail.keep(said);
            let mut any = !said.is_empty();
            if let Some((speaker, speech)) = speech {
                let said = read_some(&mut speech.stdout, watch, &mut bytes);
                any |= !said.is_empty();
                speech.tell(speaker, OutputStream::Stdout, said, &mut echo.teller);
            }
            if !any {
                return;
            }
        }
    }

    /// It writes no more.
    fn end_lines(&mut self, echo: &mut Echo) {
        if let Some((speaker, speech)) = &mut self.speech {
            for stream in [OutputStream::Stdout, OutputStream::Stderr] {
                speech.end(speaker, stream, &mut echo.teller);
            }
        }
    }

    fn read_channel(&mut self, news: &mut Vec<News>) {
        let mut bytes = vec![0; SAID_BYTES];
        loop {
            match recv(&self.channel, &mut bytes[..], RecvFlags::DONTWAIT) {
                Ok((_, length @ 1..)) => news.extend(self.hear(Said::get(&bytes[..length]))),
                // Reset: it ended with a name unread. That is told once, and before what it had said itself.
                Err(Errno::INTR | Errno::CONNRESET) => {}
                Err(Errno::AGAIN) => return,
                // Nothing more comes of it; its end will be seen.
                Ok((_, 0)) | Err(_) => return self.kill(),
            }
        }
    }

    fn hear(&mut self, said: Option<Said>) -> Option<News> {
        match said {
            Some(Said::Ready) if !self.is_ready => {
                self.is_ready = true;
                self.expect_answer();
                None
            }
            Some(Said::Unfit(why)) => Some(News::Unfit(why)),
            Some(Said::PreloadFailed(reply)) => portable::check(&reply).err().map(News::PreloadFailed),
            Some(Said::Forked(pid)) => {
                let Asked { worker, shares: (claims, rings), channel, stderr, stdout } = self.asked.pop_front()?;
                self.forked = Some(pid);
                self.expect_answer();
                // It cannot be another process by now: its end would still be waited for, by this one.
                Some(match pidfd_open(pid, PidfdFlags::empty()) {
                    Ok(pidfd) => {
                        // It leaves the zygote's group, as one that is known. An error means that it has ended already.
                        let _ = setpgid(Some(pid), Some(pid));
                        let started = Started { child: ChildProcess(pid), pidfd, channel, stderr, stdout };
                        News::Forked(worker, claims, rings, started)
                    }
                    Err(error) => News::Refused(error.into()),
                })
            }
            Some(Said::Refused(why)) => {
                self.asked.pop_front()?;
                self.expect_answer();
                Some(News::Refused(io::Error::other(why)))
            }
            // One that became a worker is waited for as that.
            Some(Said::Ended(pid)) => {
                if self.forked != Some(pid) {
                    bury_spare(pid);
                }
                None
            }
            Some(Said::Ready) | None => {
                self.kill();
                Some(News::Unfit("its zygote says what no zygote should".into()))
            }
        }
    }

    /// Ends what is left of it, and says how it ended.
    fn bury(mut self) -> String {
        // With the zygote go the processes that its preload has started, and workers of which it did not come to tell. All others
        // have left its group.
        os::signal(self.child, &self.pidfd, Signal::KILL);
        let exit = os::wait(&self.pidfd).map_or(Exit::Unknown, os::exit_of);
        // Those workers are children of this process.
        let untold = || waitid(WaitId::Pgid(Some(self.child.0)), WaitIdOptions::EXITED);
        while matches!(untold(), Ok(Some(_)) | Err(Errno::INTR)) {}
        let words = format!("the zygote, process {}, {exit}", self.child.id());
        match self.tail.last_lines() {
            lines if lines.is_empty() => words,
            lines => format!("{words}; last on its standard error: {lines:?}"),
        }
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        self.watch.remove(&self.pidfd);
        self.watch.remove(&self.channel);
        let _ = self.watch_output(false); // which cannot fail
    }
}

/// Waits for a spare that has ended, or is just about to. Not for long: no zygote is trusted with this thread's time.
fn bury_spare(pid: Pid) {
    // An error means that somebody else in this program has waited for it.
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    let limit = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    let _ = retry_on_intr(|| poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)));
    let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
}

/// What there is to read; nothing at the end of the stream, which is then closed.
fn read_some<'a>(stream: &mut Option<impl Read + AsFd>, watch: &Watch, bytes: &'a mut [u8]) -> &'a [u8] {
    let Some(open) = stream else { return &[] };
    loop {
        match open.read(bytes) {
            Ok(0) => {
                watch.remove(open);
                *stream = None;
                return &[];
            }
            Ok(got) => return &bytes[..got],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return &[],
        }
    }
}

/// A call, in memory that another process reads as a file; empty if there is none.
fn file_of(call: Option<&Parcel>) -> io::Result<File> {
    let mut file = File::from(memfd_create("executor-preload", MemfdFlags::CLOEXEC)?);
    if let Some(call) = call.map(Parcel::call) {
        file.write_all(&call_header(Kind::Call, 0, call))?;
        call.args.parts().iter().try_for_each(|part| file.write_all(part))?;
        file.write_all(&call_tail(call))?;
        file.rewind()?;
    }
    Ok(file)
}

/// Its reading end first, which does not wait.
fn nonblocking_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((ours, theirs))
}

/// A zygote that is gone is noticed by its end.
fn deliver(sent: io::Result<usize>) -> io::Result<()> {
    match sent {
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => Ok(()),
        sent => sent.map(drop), // a message is sent whole
    }
}
