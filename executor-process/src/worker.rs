//! The other side: a process that was started to be a worker.
//!
//! With the feature `constructor`, which is on by default, this happens by itself before `main`: the linker runs a
//! function of this module at the start of every program that uses the pool, and it notices the worker's
//! environment. So nothing is asked of `main`, of tests, benches or examples. Without the feature, `main`
//! begins with [`run_if_worker`].
//!
//! Before `main`, three things are not as they are in it: the standard library has not yet set up its message for a
//! stack overflow (a worker then just dies of SIGSEGV), the main thread has no name, and other libraries' own constructors
//! may or may not have run.

#![expect(
    unsafe_code,
    reason = "code before main, calls that must come before any other thread, and the premise of portable functions"
)]

use executor_core::{
    attachments::{Attachments, Encoded},
    buffers,
    context::{ContextId, ContextStore},
    current,
    linkage::loaded_later,
    payload::Payload,
    portable::{self, Incoming},
    reply::Ending,
};
use rustix::{
    io::FdFlags,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketType, recvmsg, sockopt::socket_type},
    process::{Pid, Signal, getppid, set_parent_process_death_signal},
};
use std::{
    env, fs,
    io::{self, IoSliceMut, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    process,
    sync::{Arc, OnceLock},
    time::Duration,
};

use crate::{
    attached::{Inlet, send_all},
    claims::{Claims, RINGS_AT},
    cpu_timer::CpuTimer,
    identity::{self, Birth},
    life,
    limits::Limits,
    os::{self, MARKER},
    records,
    ring::{Awaited, WorkerRequests, map_worker},
    segment::Segment,
    uplink::{self, Bell},
    wire::{BareFrame, Cutter, HELLO_BYTES, Header, Hello, Kind, SMALL_BYTES, get_call, put_frame},
    zygote::{self, Forked, Taken},
};

/// For how long memory stays mapped, and large buffers are kept, after a call, if no other call comes.
const STAYS_WARM: Duration = Duration::from_millis(100);

/// The exit code of a worker that cannot serve; it says why on standard error.
pub(crate) const UNFIT: i32 = 70;

#[cfg(feature = "constructor")]
#[used]
// SAFETY: the dynamic loader, or the C runtime of a static program, calls each entry of this section once, as a C
// function, before `main`. `enter_before_main` is one, takes no arguments (what it is passed is ignored by the
// calling convention), and aborts rather than unwinds.
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = enter_before_main;

#[cfg(feature = "constructor")]
extern "C" fn enter_before_main() {
    run_if_worker();
}

/// Keeps [`BEFORE_MAIN`] in every program that makes a pool: a linker leaves out object files to which nothing
/// refers.
pub(crate) fn keep_entry() {
    #[cfg(feature = "constructor")]
    std::hint::black_box(&BEFORE_MAIN);
}

/// The library that this is part of, if it is loaded by hand: in a program that is started again, it comes too late to enter
/// anything before `main`.
pub(crate) fn late_module() -> Option<&'static str> {
    static LATE: OnceLock<Option<String>> = OnceLock::new();
    let find = || if cfg!(feature = "constructor") { loaded_later(late_module as *const () as usize) } else { None };
    LATE.get_or_init(find).as_deref()
}

/// Whether this process was started as a worker, or to make one call, and has not become that.
pub(crate) fn is_stray_worker() -> bool {
    [MARKER, life::MARKER].into_iter().any(|marker| env::var_os(marker).is_some())
}

/// What is said to such a process.
pub(crate) const STRAY: &str = "this process was started as a worker and runs `main` instead: without the feature \
                                `constructor`, call `concurrent_futures::worker::run_if_worker()` first in `main`";

/// How many processes of this library this one has above it: 0 in a program that somebody has started, 1 in a worker of its
/// pools, or in a [`Process`](crate::Process) of its own, and so on.
///
/// # Examples
/// ```
/// use concurrent_futures::{Executor, ProcessPoolExecutor, worker};
///
/// let pool = ProcessPoolExecutor::new(1)?;
/// let inside = pool.submit(|()| worker::depth(), ()).result()?;
/// assert_eq!(inside, worker::depth() + 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn depth() -> u32 {
    os::depth()
}

/// Serves as a worker, and never returns, if this process was started to be one; otherwise returns at once.
///
/// Needed only without the feature `constructor`: then it must come first in `main`, before any thread is started.
pub fn run_if_worker() {
    let role = [MARKER, life::MARKER].into_iter().find_map(|marker| Some((marker, env::var_os(marker)?)));
    let Some((marker, name)) = role else { return };
    // SAFETY: no other thread exists: this runs before `main`, or first in it, as documented.
    unsafe { env::remove_var(marker) };
    // As the standard library does for `main`: writing to a closed pipe is an error, not a death. And a worker is in no
    // terminal's foreground: using one is an error at worst, not a stop that nobody would notice.
    for signal in [libc::SIGPIPE, libc::SIGTTIN, libc::SIGTTOU] {
        // SAFETY: sets a disposition of the system's; no handler of ours is involved.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    // SAFETY: as above. Who starts this program may ignore the signal, and would so take a limit away.
    unsafe { libc::signal(libc::SIGXCPU, libc::SIG_DFL) };
    let served = if marker == MARKER { serve(&name.to_string_lossy()).map(|()| 0) } else { life::live() };
    match served {
        Ok(code) => process::exit(code),
        Err(error) => {
            let _ = writeln!(io::stderr(), "concurrent-futures: this process cannot be a worker: {error}");
            process::exit(UNFIT)
        }
    }
}

/// # Errors
/// When this process has rights that its parent may not have.
pub(crate) fn refuse_foreign_rights() -> io::Result<()> {
    // SAFETY: reads a number that the kernel left for this process.
    if unsafe { libc::getauxval(libc::AT_SECURE) } != 0 {
        // Whoever started it would choose what it calls, with rights that are not theirs.
        let why = format!("it has rights that its parent may not have; unset {MARKER} to run the program");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok(())
}

fn serve(name: &str) -> io::Result<()> {
    refuse_foreign_rights()?;
    let channel = take_channel()?;
    if socket_type(&channel)? == SocketType::SEQPACKET {
        return match zygote::serve(channel.into(), name)? {
            Some(Forked { name, channel, taken }) => work(&name, channel, Some(taken)),
            None => Ok(()),
        };
    }
    work(name, channel, None)
}

/// Dies with its parent, also in the middle of a call. The signal is tied to the thread that started this process, which is
/// the pool's driver and outlives its workers.
pub(crate) fn watch_parent(name: &str) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(rustix::thread::set_name(&std::ffi::CString::new(name).unwrap_or_default())?)
}

/// Answers calls until the parent hangs up.
fn work(name: &str, channel: UnixStream, taken: Option<Taken>) -> io::Result<()> {
    watch_parent(name)?;
    // Leaked, so that every thread may tell through it, as long as the process lives.
    let channel: &'static UnixStream = Box::leak(Box::new(channel));
    let (parent, memory) = greeting(channel)?;
    if getppid().map(Pid::as_raw_nonzero).map(|pid| pid.get() as u64) != Some(parent.pid) {
        return Ok(()); // it ended before it could be watched
    }
    let own = Hello::of_this_process();
    let mut out = Vec::new();
    if let Err(why) = own.accepts(parent) {
        // Not one call is answered: another build's offsets mean something else here.
        put_frame(Kind::Unfit, 0, why.as_bytes(), &mut out);
        send_all(channel, &out)?;
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("the parent cannot be served: {why}")));
    }
    let claims = Arc::new(Claims::map(&memory)?);
    let (requests, replies) = map_worker(&memory, RINGS_AT as u64, || -> Bell { Box::new(|| ring_bell(channel)) })?;
    drop(memory);
    uplink::open(replies, channel);
    own.put(&mut out);
    send_all(channel, &out)?;
    // Not before, lest the next spare's coming and this worker's be in each other's way.
    taken.into_iter().for_each(Taken::tell);
    identity::learn(Birth::of_worker(name), parent.pid as u32);
    answer_calls(requests, Inlet::new(channel), &claims)
}

/// Moves the channel away from standard input, which calls then find empty.
pub(crate) fn take_channel() -> io::Result<UnixStream> {
    let stdin = io::stdin();
    if socket_type(&stdin).is_err() {
        let why = format!("{MARKER} is set, but standard input is not a channel; unset it to run the program");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let channel = rustix::io::fcntl_dupfd_cloexec(&stdin, 3)?;
    close_others(&channel)?;
    rustix::stdio::dup2_stdin(fs::File::open("/dev/null")?)?;
    Ok(UnixStream::from(channel))
}

/// Closes what the parent has open without close-on-exec: a worker that kept it would keep a pipe from ending, or a
/// lock from being given back. What a library's constructor opened here is close-on-exec, as all should be, and stays.
fn close_others(channel: &OwnedFd) -> io::Result<()> {
    let listed: Vec<_> = fs::read_dir("/proc/self/fd")?.collect::<Result<_, _>>()?;
    let numbers = listed.iter().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    for number in numbers.filter(|number| *number > 2 && *number != channel.as_raw_fd()) {
        // SAFETY: borrowed for one question. It may be closed by now, as the listing's own is: then the answer is an
        // error, since no other thread is there to open another one.
        let inherited = unsafe { BorrowedFd::borrow_raw(number) };
        if rustix::io::fcntl_getfd(inherited).is_ok_and(|flags| !flags.contains(FdFlags::CLOEXEC)) {
            // SAFETY: open, and inherited without anybody in this process knowing of it.
            drop(unsafe { OwnedFd::from_raw_fd(number) });
        }
    }
    Ok(())
}

/// The parent's first frame, and the descriptor that comes with it.
fn greeting(channel: &UnixStream) -> io::Result<(Hello, OwnedFd)> {
    let mut bytes = [0; HELLO_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::WAITALL | RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(channel.as_fd(), &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags)?;
    let memory = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    let no_greeting = || io::Error::new(io::ErrorKind::InvalidData, "what it was sent first is no greeting");
    if received.bytes != HELLO_BYTES {
        return Err(no_greeting());
    }
    let hello = Hello::get(&bytes[HELLO_BYTES - 24..])?;
    Ok((hello, memory.ok_or_else(no_greeting)?))
}

fn answer_calls(mut requests: WorkerRequests<Bell>, mut inlet: Inlet, claims: &Arc<Claims>) -> io::Result<()> {
    let mut reader = Cutter::default();
    let mut contexts = ContextStore::default();
    let (mut reply, mut out) = (Payload::default(), Vec::new());
    let mut at_exit = None;
    let mut flushes = false;
    let mut cpu_timer = None;
    // The memory that the last call was given. The next one may be given the same, and would map it anew, page by page.
    let mut warm = Vec::new();
    // It has that, or a buffer is kept.
    let mut is_warm = false;
    loop {
        let Some(frame) = reader.next()? else {
            if !reader.fill_with(|bytes, most| requests.receive(bytes, most))? {
                match requests.await_requests(is_warm.then_some(STAYS_WARM)) {
                    Awaited::Requests => {}
                    Awaited::Nothing => {
                        warm.clear();
                        buffers::let_go();
                        is_warm = false;
                    }
                    Awaited::End => break,
                }
            }
            continue;
        };
        match frame.kind {
            Kind::Call if claims.begin(frame.ticket) => {
                let BareFrame { ticket, .. } = frame;
                let attachments = inlet.take(&frame)?;
                warm = Segment::all_of(&attachments);
                is_warm |= !warm.is_empty() || frame.body.len() > SMALL_BYTES;
                let call = incoming(frame.body, attachments)?;
                cpu_timer.iter().for_each(CpuTimer::start);
                let Ending { mark, attachments } = current::making(claims, ticket, || {
                    let _told = uplink::enter(ticket);
                    let ending = make(call, &mut contexts, &mut reply);
                    if flushes {
                        let _ = io::stdout().flush(); // what the call printed is told of the call, also without a newline
                    }
                    ending
                });
                requests.note_pace(claims.end(ticket));
                let (count, length) = (attachments.len() as u32, reply.len() as u64 + 1);
                Header { kind: Kind::Reply, attachments: count, ticket, length }.put(&mut out);
                // At once, rather than with the next reply: the next call may take for ever.
                if reply.len() > SMALL_BYTES {
                    is_warm = true;
                    let [first, second] = reply.parts();
                    uplink::answer(&[&out, first, second, &[mark]], &attachments)?;
                    reply = Payload::default();
                } else {
                    reply.append_to(&mut out);
                    out.push(mark);
                    uplink::answer(&[&out], &attachments)?;
                }
                out.clear();
            }
            Kind::Descriptor => inlet.receive()?,
            Kind::AtExit => at_exit = Some((inlet.take(&frame)?, frame.body)),
            Kind::Flush => flushes = true,
            Kind::Forward => records::install(&frame.body),
            Kind::Limits => {
                let limits = Limits::of_body(&frame.body)?;
                limits.set()?;
                cpu_timer = limits.cpu_time.map(CpuTimer::new).transpose()?;
            }
            Kind::Call => {
                inlet.take(&frame)?; // they came, whether the call is made or not
                put_frame(Kind::Skipped, frame.ticket, &[], &mut out);
                uplink::answer(&[&out], &Attachments::new())?;
                out.clear();
            }
            Kind::Context => {
                let value = Encoded { attachments: inlet.take(&frame)?, bytes: frame.body };
                contexts.insert(ContextId(frame.ticket), value);
            }
            Kind::Forget => contexts.forget(ContextId(frame.ticket)),
            kind @ (Kind::Hello
            | Kind::Unfit
            | Kind::Reply
            | Kind::Skipped
            | Kind::Panicked
            | Kind::Record
            | Kind::Bell
            | Kind::Birth
            | Kind::Errand) => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a worker was sent {kind:?}")));
            }
        }
    }
    cpu_timer.iter().for_each(CpuTimer::stop); // the finalizer has a limit of its own
    if let Some((attachments, body)) = at_exit {
        // Its panic is printed by the hook; nothing is left that it could break.
        make(incoming(body, attachments)?, &mut contexts, &mut reply);
    }
    Ok(())
}

pub(crate) fn incoming(mut body: Vec<u8>, attachments: Attachments) -> io::Result<Incoming> {
    let (name, context, args) = get_call(&body)?;
    body.truncate(args.len());
    Ok(Incoming { name, context, args: body, attachments })
}

/// Makes a call that came through the channel, and puts its reply into `out`, which is empty.
pub(crate) fn make(call: Incoming, contexts: &mut ContextStore, out: &mut Payload) -> Ending {
    // SAFETY: the parent proved in its greeting to be the same build, here and in `zygote`, and a parent of this build writes
    // only what `Parcel` packed, through a socket that nobody else has.
    unsafe { portable::answer(call, contexts, out) }
}

/// Wakes the parent's driver.
fn ring_bell(channel: &UnixStream) {
    let mut bell = Vec::new();
    put_frame(Kind::Bell, 0, &[], &mut bell);
    // A channel that takes no more holds bells that nobody has heard yet. A parent that is gone hears nothing.
    let _ = rustix::net::send(channel, &bell, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
}
