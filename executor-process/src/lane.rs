//! A worker process, and what lies in its channel.

use executor_core::{
    Panic, WorkerInfo,
    attachments::Attachments,
    cell::{Channel, Lease},
    context::{ContextId, ContextParcel},
    payload::Payload,
    task::Parcel,
};
use rustix::process::Signal;
use std::{
    collections::{HashMap, VecDeque},
    io::{self, Read},
    mem,
    num::NonZeroU64,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::ChildStderr,
    sync::{Arc, Weak, atomic::AtomicBool},
    time::{Duration, Instant},
};

use crate::{
    attached::{Arrivals, Departures, send_with_descriptor},
    claims::{Claims, SLOTS},
    echo::Echo,
    inbox::{Shared, WorkerChannel},
    limits::{self, Limits},
    os,
    output::{OutputStream, Speech},
    ring::{Astray, ParentRings, this_cpu},
    supervisor::State,
    watch::{Source, Watch},
    wire::{Cutter, Header, Kind, NO_TICKET, SMALL_BYTES, call_header, call_tail, put_frame},
};

/// Calls in a worker's channel at most, of those that have not been taken back: so many at least, and of short calls as many
/// as last for `AHEAD`, but no more than three quarters of the slots. So a worker that is woken has something to do.
pub(crate) const DEPTH: usize = 16;
const AHEAD: Duration = Duration::from_micros(100);

/// About what it takes to wake a worker: what is shorter is better done by one that is awake.
const WAKE_NANOS: u64 = 50_000;

/// Calls in a worker's channel, before the arguments of more of them are to wait until there is room in its ring.
const SHALLOW: usize = 2;

/// How much of a worker's standard error is kept for the error of a lost task.
const TAIL_BYTES: usize = 4096;
const TAIL_LINES: usize = 10;

/// A worker that has closed its channel should end by itself within this time.
const AFTER_HANG_UP: Duration = Duration::from_secs(1);

/// How long a call may take before those behind it are given to others.
pub(crate) const HELD_UP: Duration = Duration::from_millis(5);

/// A worker process, and what lies in its channel.
pub(crate) struct Lane {
    pub(crate) state: State,
    pub(crate) deadline: Option<Instant>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) channel: Arc<WorkerChannel>,
    pub(crate) stream: UnixStream,
    pub(crate) child: os::ChildProcess,
    pub(crate) pidfd: OwnedFd,
    pub(crate) stderr: Option<ChildStderr>,
    pub(crate) tail: Tail,
    /// Where what it writes is told with whose it is.
    pub(crate) speech: Option<Speech>,
    pub(crate) name: Arc<str>,
    /// Who it is to those who observe.
    pub(crate) observed: Option<Arc<WorkerInfo>>,
    /// Its last panic since it answered a call.
    pub(crate) panic: Option<Panic>,
    pub(crate) rings: ParentRings,
    /// What comes through the socket, and through the ring.
    pub(crate) greetings: Cutter,
    pub(crate) arrivals: Arrivals,
    pub(crate) reader: Cutter,
    pub(crate) outbox: Outbox,
    /// In the order in which they were sent, which is the order of the answers.
    pub(crate) in_flight: VecDeque<InFlight>,
    /// How many of them have not been taken back.
    pub(crate) live: usize,
    /// The call for which others have waited for too long: until it is answered, none is put behind it.
    held_up_by: Option<u64>,
    pub(crate) next_ticket: u64,
    /// The contexts that it has. One whose bytes nobody else holds any more is forgotten.
    pub(crate) contexts: HashMap<ContextId, Weak<Payload>>,
    pub(crate) greeted: bool,
    /// It has answered a call, or begun one.
    pub(crate) served: bool,
    pub(crate) hung_up: bool,
    /// What it wrote cannot be: its rings are not looked at any more.
    pub(crate) astray: bool,
    /// It was sent away before it was ready, since nothing was left for it to do.
    pub(crate) dismissed: bool,
    /// What it is being killed for.
    pub(crate) doom: Option<Doom>,
    /// Calls that it was given and that were not taken back.
    pub(crate) given: u64,
    /// How many calls it is to make at most.
    pub(crate) max_tasks: u64,
    /// It keeps too much memory, or has served for long enough: it is to be replaced.
    pub(crate) is_due: bool,
    /// When it has served for long enough.
    pub(crate) due_at: Option<Instant>,
    /// Another one is ready to serve in its place.
    pub(crate) is_relieved: bool,
    /// The pool was made smaller.
    pub(crate) is_surplus: bool,
    /// It may not have as much memory as it likes.
    is_limited: bool,
    /// It said that it was refused memory.
    pub(crate) says_out_of_memory: bool,
    /// It was told to leave.
    pub(crate) leaves: bool,
    /// Its input ends when all that is for it is sent.
    pub(crate) ends_input: bool,
    /// When it leaves, if no call comes before.
    pub(crate) leaves_at: Option<Instant>,
    /// The memory that it kept when it was first looked at, and when it was last looked at.
    pub(crate) memory: Option<(u64, Instant)>,
}

/// Why a worker is ended by force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doom {
    /// Somebody asked for this call to be stopped.
    Kill(u64),
    /// This call ran longer than its limit.
    Overrun(u64, Duration),
    /// The pool is shut down now, whatever runs.
    Shutdown,
}

pub(crate) struct InFlight {
    pub(crate) ticket: u64,
    /// `None`: the initializer, or a call that was taken back and will be skipped.
    pub(crate) parcel: Option<Parcel>,
    /// When to look whether it runs longer than its limit.
    pub(crate) look_at: Option<Instant>,
}

impl Lane {
    pub(crate) fn new(
        worker: u64,
        claims: Claims,
        rings: ParentRings,
        started: os::Started,
        shared: &Arc<Shared>,
        watch: &Arc<Watch>,
    ) -> Lane {
        let state = State::Starting;
        Lane {
            state,
            deadline: state.limit().and_then(|limit| Instant::now().checked_add(limit)),
            watch: Arc::clone(watch),
            channel: Arc::new(WorkerChannel {
                worker,
                claims,
                is_ready: AtomicBool::new(false),
                shared: Arc::clone(shared),
            }),
            stream: started.channel,
            child: started.child,
            pidfd: started.pidfd,
            stderr: Some(started.stderr),
            tail: Tail::default(),
            speech: shared.chosen.output.is_attributed().then(|| Speech::new(started.stdout)),
            name: os::worker_name(&shared.chosen.name_prefix, worker).into(),
            observed: None,
            panic: None,
            rings,
            greetings: Cutter::default(),
            arrivals: Arrivals::default(),
            reader: Cutter::default(),
            outbox: Outbox::default(),
            in_flight: VecDeque::new(),
            held_up_by: None,
            live: 0,
            next_ticket: 0,
            contexts: HashMap::new(),
            greeted: false,
            served: false,
            hung_up: false,
            astray: false,
            dismissed: false,
            doom: None,
            given: 0,
            max_tasks: shared.chosen.recycling.max_tasks.map_or(u64::MAX, NonZeroU64::get),
            is_due: false,
            due_at: None,
            is_relieved: false,
            is_surplus: false,
            is_limited: shared.chosen.limits.memory_bytes.is_some(),
            says_out_of_memory: false,
            leaves: false,
            ends_input: false,
            leaves_at: None,
            memory: None,
        }
    }

    /// The oldest call in the channel, if it is the one with this ticket.
    pub(crate) fn pop_answered(&mut self, ticket: u64) -> Option<InFlight> {
        let call = self.in_flight.pop_front_if(|call| call.ticket == ticket)?;
        self.live -= usize::from(call.parcel.is_some());
        Some(call)
    }

    /// All calls in the channel, whose worker is gone.
    pub(crate) fn take_all(&mut self) -> VecDeque<InFlight> {
        self.live = 0;
        mem::take(&mut self.in_flight)
    }

    /// Whether the worker has something to do, or to be sent: then something may come of it.
    pub(crate) fn is_engaged(&self) -> bool {
        !self.in_flight.is_empty() || !self.outbox.is_empty()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.state == State::Idle && self.serves()
    }

    /// How many calls it is to have at most.
    pub(crate) fn depth(&self) -> usize {
        let ahead = AHEAD.as_nanos() as u32 / self.rings.pace_nanos().max(1);
        (ahead as usize).clamp(DEPTH, SLOTS * 3 / 4)
    }

    /// About when another call would begin that is given to it, in nanoseconds.
    pub(crate) fn delay(&self) -> u64 {
        let wake = if self.rings.worker_sleeps() { WAKE_NANOS } else { 0 };
        u64::from(self.rings.pace_nanos()) * self.live as u64 + wake
    }

    /// Whether another call can be put into the channel, where no more than `depth` are to be.
    pub(crate) fn takes_calls(&self, depth: usize) -> bool {
        self.serves()
            && !self.is_held_up()
            && self.in_flight.len() < SLOTS
            && self.live < depth
            && (self.live < SHALLOW || self.outbox.is_short())
    }

    fn is_held_up(&self) -> bool {
        self.held_up_by.is_some() && self.held_up_by == self.in_flight.front().map(|call| call.ticket)
    }

    /// Whether calls wait here behind one that may take long.
    pub(crate) fn has_queue(&self) -> bool {
        self.live > 1 && !self.is_held_up()
    }

    /// Whether calls have waited for too long behind the one that it makes now. From then on none is put behind that.
    pub(crate) fn holds_up_others(&mut self) -> bool {
        let Some(first) = self.in_flight.front().filter(|_| self.has_queue()) else { return false };
        let is_long = self.channel.claims.runs_for(first.ticket).is_some_and(|time| time >= HELD_UP);
        if is_long {
            self.held_up_by = Some(first.ticket);
        }
        is_long
    }

    /// Whether it answers calls, now and later.
    fn serves(&self) -> bool {
        self.state.accepts_calls() && !self.hung_up && !self.is_retired()
    }

    /// Whether it is given no more calls, and leaves when it has answered those that it has.
    pub(crate) fn is_retired(&self) -> bool {
        self.is_relieved || self.is_surplus || self.given >= self.max_tasks
    }

    /// Whether another worker is to stand ready for when this one leaves, or is ended.
    pub(crate) fn needs_successor(&self) -> bool {
        self.counts()
            && !self.is_surplus
            && (self.was_used_up() || matches!(self.doom, Some(Doom::Kill(_) | Doom::Overrun(..))))
    }

    /// Whether it has made all the calls that it was to make, or is too old or too large.
    pub(crate) fn was_used_up(&self) -> bool {
        self.is_due || self.is_relieved || self.given >= self.max_tasks
    }

    /// Whether it is one of those that stay.
    pub(crate) fn stays(&self) -> bool {
        self.counts() && !self.is_surplus && !self.needs_successor()
    }

    /// The call that it makes now, or will make next: the last of those that could not be taken back.
    pub(crate) fn last_live(&self) -> Option<u64> {
        self.in_flight.iter().rev().find(|call| call.parcel.is_some()).map(|call| call.ticket)
    }

    /// Whether it counts as one that makes calls: it does, or will. One that leaves in peace does not.
    pub(crate) fn counts(&self) -> bool {
        self.state != State::Closing
    }

    pub(crate) fn new_ticket(&mut self) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        ticket
    }

    /// Puts a call into the channel. `false`: it is cancelled.
    pub(crate) fn send_call(&mut self, parcel: Parcel) -> bool {
        let ticket = self.new_ticket();
        let channel = Arc::clone(&self.channel) as Arc<dyn Channel>;
        if !parcel.dispatch(Lease { channel, ticket }) {
            self.next_ticket = ticket; // it was not used
            return false;
        }
        if let Some(context) = &parcel.call().context
            && !self.contexts.contains_key(&context.id)
        {
            self.forget_contexts();
            self.outbox.put_context(context);
            self.contexts.insert(context.id, Arc::downgrade(&context.bytes));
        }
        self.outbox.put_call(ticket, &parcel);
        let look_at = parcel.time_limit().and_then(|limit| Instant::now().checked_add(limit));
        self.in_flight.push_back(InFlight { ticket, parcel: Some(parcel), look_at });
        self.live += 1;
        self.given += 1;
        self.leaves_at = None;
        true
    }

    /// Takes back up to `count` calls that have not begun, the oldest of them, in their order.
    pub(crate) fn take_back(&mut self, count: usize) -> Vec<Parcel> {
        let mut taken = Vec::new();
        for call in &mut self.in_flight {
            if taken.len() == count {
                break;
            }
            if call.parcel.is_some() && self.channel.claims.revoke(call.ticket) {
                call.look_at = None;
                taken.extend(call.parcel.take());
            }
        }
        self.given -= taken.len() as u64;
        self.live -= taken.len();
        taken
    }

    /// The call that has run longer than its limit, if there is one. The others' times are seen to.
    pub(crate) fn overrun(&mut self, now: Instant) -> Option<(u64, Duration)> {
        for call in self.in_flight.iter_mut().filter(|call| call.look_at.is_some_and(|at| at <= now)) {
            let limit = call.parcel.as_ref().and_then(Parcel::time_limit)?;
            // One that has not begun has all of its time still before it.
            let left = limit.saturating_sub(self.channel.claims.runs_for(call.ticket).unwrap_or_default());
            if left.is_zero() {
                call.look_at = None;
                return Some((call.ticket, limit));
            }
            call.look_at = now.checked_add(left);
        }
        None
    }

    /// When something is to be done about this worker, if nothing happens before.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let limits = self.in_flight.iter().filter_map(|call| call.look_at);
        limits.chain(self.deadline).chain(self.leaves_at).chain(self.due_at).chain(self.outbox.retry_at).min()
    }

    pub(crate) fn forget_contexts(&mut self) {
        let outbox = &mut self.outbox;
        self.contexts.retain(|id, bytes| {
            let alive = bytes.strong_count() > 0;
            if !alive {
                outbox.put_forget(*id);
            }
            alive
        });
    }

    /// Signals the process, and all that its calls have started and left in its group.
    pub(crate) fn signal(&self, signal: Signal) {
        os::signal(self.child, &self.pidfd, signal);
    }

    /// Sends as much as there is room for. Returns whether anything was sent.
    pub(crate) fn flush(&mut self) -> Result<bool, Astray> {
        let sent = !self.hung_up && self.outbox.flush(&mut self.rings, &self.stream)?;
        if sent {
            self.rings.note_cpu(this_cpu());
            self.rings.wake();
        }
        if self.ends_input && self.outbox.is_empty() {
            self.ends_input = false;
            self.rings.close();
        }
        Ok(sent)
    }

    pub(crate) fn hang_up(&mut self) {
        self.hung_up = true;
        self.watch.remove(&self.stream);
        self.expect_end();
    }

    /// Nothing more comes of this worker. It is given a while to end by itself, so that its own end is what is told.
    fn expect_end(&mut self) {
        self.outbox = Outbox::default();
        if self.state.accepts_calls() || self.state == State::Starting {
            self.deadline = Instant::now().checked_add(AFTER_HANG_UP);
        }
    }

    /// Passes on what the worker wrote to its standard error, and keeps the last of it. `false`: nothing was there.
    pub(crate) fn read_stderr(&mut self, echo: &mut Echo) -> bool {
        let Some(stderr) = &mut self.stderr else { return false };
        let mut bytes = [0; 8192];
        match stderr.read(&mut bytes) {
            Ok(0) => {
                self.watch.remove(stderr);
                self.stderr = None;
                false
            }
            Ok(got) => {
                if !self.tell_output(OutputStream::Stderr, &bytes[..got], &mut echo.teller) {
                    echo.print(&bytes[..got]);
                }
                self.keep(&bytes[..got]);
                true
            }
            Err(error) => error.kind() == io::ErrorKind::Interrupted,
        }
    }

    /// Begins or ceases to watch what it writes.
    pub(crate) fn watch_output(&self, watches: bool) -> io::Result<()> {
        let stdout = self
            .speech
            .as_ref()
            .and_then(|speech| speech.stdout.as_ref())
            .map(|stdout| (Source::Stdout, stdout.as_fd()));
        let stderr = self.stderr.as_ref().map(|stderr| (Source::Stderr, stderr.as_fd()));
        for (source, stream) in stdout.into_iter().chain(stderr) {
            if watches {
                self.watch.add(self.channel.worker, source, stream)?;
            } else {
                self.watch.remove(stream);
            }
        }
        Ok(())
    }

    /// Ends a worker that was only just started, and forgets it.
    pub(crate) fn abandon(self) {
        os::discard(&self.pidfd);
    }

    /// Adds a line of our own to what will be told of this worker's end.
    pub(crate) fn note(&mut self, line: &str) {
        self.keep(line.as_bytes());
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.tail.0.extend(bytes);
        if self.is_limited && !self.says_out_of_memory {
            // Here, since what follows it, such as a backtrace, may be longer than what is kept.
            self.says_out_of_memory = limits::tells_of_no_memory(self.tail.0.make_contiguous());
        }
        self.tail.cut();
    }

    /// It has nothing more to do: what it wrote so far is not of the call that it may be lost in.
    pub(crate) fn forget_words(&mut self) {
        self.tail.0.clear();
        self.panic = None;
        self.says_out_of_memory = false;
    }
}

/// The last that a process wrote to its standard error.
#[derive(Default)]
pub(crate) struct Tail(VecDeque<u8>);

impl Tail {
    pub(crate) fn keep(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
        self.cut();
    }

    fn cut(&mut self) {
        let surplus = self.0.len().saturating_sub(TAIL_BYTES);
        self.0.drain(..surplus);
    }

    pub(crate) fn last_lines(&mut self) -> String {
        let tail = String::from_utf8_lossy(self.0.make_contiguous()).into_owned();
        let lines: Vec<_> = tail.trim().lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.watch.remove(&self.pidfd);
        self.watch.remove(&self.stream);
        let _ = self.watch_output(false); // which cannot fail
    }
}

/// Bytes on their way to a worker.
#[derive(Default)]
pub(crate) struct Outbox {
    segments: VecDeque<Segment>,
    /// How much of the first segment is sent.
    sent: usize,
    /// The socket took no more: when it is tried again.
    pub(crate) retry_at: Option<Instant>,
    descriptors: Departures,
    /// A buffer that was sent, for the next frames.
    spare: Vec<u8>,
}

/// How long after the socket took no more descriptors it is tried again. Nothing tells that it would take some.
const RETRY: Duration = Duration::from_millis(1);

/// A larger buffer is not kept.
const KEPT_BYTES: usize = 64 << 10;

/// Frames that are put together before they are sent.
const SHORT_BYTES: usize = 32 << 10;

enum Segment {
    Frames(Vec<u8>),
    /// A part of large arguments, or of a context, sent from where it is: the first one or the second.
    Value(Arc<Payload>, usize),
    /// Goes through the socket.
    Descriptor(Vec<u8>, Arc<OwnedFd>),
}

impl Segment {
    fn bytes(&self) -> &[u8] {
        match self {
            Segment::Frames(bytes) | Segment::Descriptor(bytes, _) => bytes,
            Segment::Value(value, part) => value.parts()[*part],
        }
    }
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Whether more can be sent as soon as there is room in the ring.
    pub(crate) fn wants_room(&self) -> bool {
        !self.is_empty() && self.retry_at.is_none()
    }

    /// Whether what is on its way is about to be there: little, and nothing large among it.
    fn is_short(&self) -> bool {
        match self.segments.front() {
            None => true,
            Some(first) => self.segments.len() == 1 && first.bytes().len() <= SHORT_BYTES,
        }
    }

    fn frames(&mut self) -> &mut Vec<u8> {
        if !matches!(self.segments.back(), Some(Segment::Frames(_))) {
            self.segments.push_back(Segment::Frames(mem::take(&mut self.spare)));
        }
        match self.segments.back_mut() {
            Some(Segment::Frames(bytes)) => bytes,
            _ => unreachable!("it was put there"),
        }
    }

    /// Something that the worker is to know, of no call.
    pub(crate) fn put_notice(&mut self, kind: Kind, body: &[u8]) {
        put_frame(kind, NO_TICKET, body, self.frames());
    }

    pub(crate) fn put_call(&mut self, ticket: u64, parcel: &Parcel) {
        self.put(Kind::Call, ticket, parcel);
    }

    /// The call to be made before the worker leaves.
    pub(crate) fn put_at_exit(&mut self, parcel: &Parcel) {
        self.put(Kind::AtExit, 0, parcel);
    }

    fn put_descriptors(&mut self, attachments: &Attachments) {
        for descriptor in attachments {
            let message = self.descriptors.message();
            self.segments.push_back(Segment::Descriptor(message.clone(), Arc::clone(descriptor)));
            self.frames().extend(message); // tells the worker to receive it
        }
    }

    /// What the worker may use, if that is limited.
    pub(crate) fn put_limits(&mut self, limits: &Limits) {
        if !limits.are_none() {
            put_frame(Kind::Limits, 0, &limits.body(), self.frames());
        }
    }

    fn put(&mut self, kind: Kind, ticket: u64, parcel: &Parcel) {
        let call = parcel.call();
        self.put_descriptors(&call.attachments);
        let frames = self.frames();
        frames.extend_from_slice(&call_header(kind, ticket, call));
        if call.args.len() <= SMALL_BYTES {
            call.args.parts().iter().for_each(|part| frames.extend_from_slice(part));
        } else {
            self.put_value(&call.args);
        }
        self.frames().extend_from_slice(&call_tail(call));
    }

    fn put_context(&mut self, ContextParcel { id, bytes, attachments }: &ContextParcel) {
        self.put_descriptors(attachments);
        let count = attachments.len() as u32;
        Header { kind: Kind::Context, attachments: count, ticket: id.0, length: bytes.len() as u64 }.put(self.frames());
        self.put_value(bytes);
    }

    fn put_value(&mut self, value: &Arc<Payload>) {
        let parts = (0..).zip(value.parts()).filter(|(_, bytes)| !bytes.is_empty());
        self.segments.extend(parts.map(|(part, _)| Segment::Value(Arc::clone(value), part)));
    }

    fn put_forget(&mut self, id: ContextId) {
        put_frame(Kind::Forget, id.0, &[], self.frames());
    }

    /// Sends as much as there is room for. Returns whether anything was sent.
    fn flush(&mut self, rings: &mut ParentRings, socket: &UnixStream) -> Result<bool, Astray> {
        let mut any = false;
        self.retry_at = None;
        while let Some(segment) = self.segments.front() {
            let bytes = segment.bytes();
            let sent = match segment {
                Segment::Descriptor(_, descriptor) => {
                    let result = match self.sent {
                        0 => send_with_descriptor(socket, bytes, descriptor.as_fd()),
                        sent => os::send(socket, &bytes[sent..]),
                    };
                    // If the worker is gone, that is noticed elsewhere.
                    let Ok(sent) = result else {
                        self.retry_at = Instant::now().checked_add(RETRY);
                        break;
                    };
                    sent
                }
                _ => rings.send(&bytes[self.sent..])?,
            };
            any |= sent > 0;
            self.sent += sent;
            if self.sent < bytes.len() {
                break;
            }
            self.sent = 0;
            if let Some(Segment::Frames(mut bytes)) = self.segments.pop_front()
                && bytes.capacity() <= KEPT_BYTES
            {
                bytes.clear();
                self.spare = bytes;
            }
        }
        Ok(any)
    }
}
