//! The one thread that feeds the supervisor with real events and does what it says.
//!
//! It sleeps in `poll` on everything that can happen: an order in the inbox, and for each worker its channel, its
//! standard error and its end. It runs no user code: arguments were encoded by who submitted, results are decoded
//! by who wants them, and callbacks go to a thread of their own, so none of these can hold up another task.
//!
//! # Who gets a task
//! A worker whose channel is empty, the first such one; otherwise the one with the shortest channel, up to [`DEPTH`], so that
//! a worker never waits for its next call. A worker that runs out while another's channel still holds calls that have not
//! begun is given half of those, the oldest, so that calls begin in the order of their submission as far as possible.
//!
//! # What becomes of a dead worker's tasks
//! First what it answered before it died is taken from its channel. Of the rest, at most one has begun, says its
//! claim: that one is lost. All others go back to the front of the queue.

use executor_core::{
    BrokenCause, Exit, Failure, WorkerLost,
    blocking::{self, Home, Worker},
    cell::{Announcement, Lease},
    context::ContextId,
    portable,
    task::Parcel,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    collections::{HashMap, VecDeque},
    io::{self, Read, Write},
    net::Shutdown,
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{self, Child, ChildStderr},
    rc::Rc,
    sync::{Arc, Weak, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    claims::{Claim, Claims, SLOTS},
    os,
    pool::{KillOrder, Shared, WorkerChannel},
    supervisor::{Action, Event, Restarts, State},
    wire::{Frame, FrameReader, Hello, Kind, SMALL_BYTES, put_call_head, put_frame},
};

/// Calls in a worker's channel at most, of those that have not been taken back.
const DEPTH: usize = 16;

/// How much of a worker's standard error is kept for the error of a lost task.
const TAIL_BYTES: usize = 4096;
const TAIL_LINES: usize = 10;

/// A worker that has closed its channel should end by itself within this time.
const AFTER_HANG_UP: Duration = Duration::from_secs(1);

/// The driver thread.
pub(crate) fn run(shared: Arc<Shared>) {
    let _guard = AbortIfPanic;
    let mut driver = Driver {
        announcer: Announcer::new(&shared),
        shared,
        lanes: Vec::new(),
        wanted: 0,
        next_worker: 0,
        restarts: Restarts::default(),
        ended: 0,
    };
    loop {
        driver.follow_orders();
        driver.assign();
        driver.rebalance();
        driver.close_idle();
        driver.flush();
        driver.settle_accounts();
        if driver.is_over() {
            break;
        }
        driver.wait();
    }
    drop(driver.announcer); // waits for the callbacks
    driver.shared.tell(|inbox| inbox.driver_is_over = true);
}

struct Driver {
    shared: Arc<Shared>,
    lanes: Vec<Lane>,
    /// How many workers there should be: as many as were ever of use at once.
    wanted: usize,
    next_worker: u64,
    restarts: Restarts,
    announcer: Announcer,
    /// Tasks that got their outcome since the inbox was last told.
    ended: usize,
}

/// A worker process, and what lies in its channel.
struct Lane {
    state: State,
    deadline: Option<Instant>,
    channel: Arc<WorkerChannel>,
    stream: UnixStream,
    child: Child,
    pidfd: OwnedFd,
    stderr: Option<ChildStderr>,
    tail: VecDeque<u8>,
    reader: FrameReader,
    outbox: Outbox,
    /// In the order in which they were sent, which is the order of the answers.
    in_flight: VecDeque<InFlight>,
    next_ticket: u64,
    /// The contexts that it has. One whose bytes nobody else holds any more is forgotten.
    contexts: HashMap<ContextId, Weak<[u8]>>,
    greeted: bool,
    was_ready: bool,
    hung_up: bool,
    /// The call that it is being killed for.
    victim: Option<u64>,
}

struct InFlight {
    ticket: u64,
    /// `None`: the initializer, or a call that was taken back and will be skipped.
    parcel: Option<Parcel>,
}

impl Driver {
    fn follow_orders(&mut self) {
        let (kills, recall) = {
            let mut inbox = self.shared.begin_to_look();
            let recall = (inbox.recalls_asked > inbox.recalls_done).then_some(inbox.recalls_asked);
            (std::mem::take(&mut inbox.kills), recall)
        };
        for KillOrder { worker, ticket } in kills {
            self.kill(worker, ticket);
        }
        if let Some(asked) = recall {
            for lane in 0..self.lanes.len() {
                let taken = self.lanes[lane].take_back(usize::MAX);
                self.requeue(taken);
            }
            self.shared.tell(|inbox| {
                // Out of reach of `assign`, which would put them into channels again.
                let pending = std::mem::take(&mut inbox.queue);
                inbox.recalled.extend(pending);
                inbox.recalls_done = asked;
            });
        }
    }

    fn kill(&mut self, worker: u64, ticket: u64) {
        let Some(lane) = self.lanes.iter().position(|lane| lane.channel.worker == worker) else { return };
        if !self.lanes[lane].in_flight.iter().any(|call| call.ticket == ticket && call.parcel.is_some()) {
            return; // it has been answered meanwhile
        }
        self.lanes[lane].victim = Some(ticket);
        // Its neighbours in the channel must not begin now.
        let taken = self.lanes[lane].take_back(usize::MAX);
        self.requeue(taken);
        self.on(lane, Event::Kill);
    }

    /// Puts calls that have not begun back to the front of the queue.
    fn requeue(&mut self, calls: Vec<Parcel>) {
        let mut cancelled = Vec::new();
        let mut inbox = self.shared.inbox();
        for parcel in calls.into_iter().rev() {
            if parcel.recall() {
                inbox.queue.push_front(parcel);
            } else {
                cancelled.push(parcel);
            }
        }
        drop(inbox);
        self.ended += cancelled.len();
    }

    /// Gives queued tasks to workers, and starts workers as long as there are more tasks than workers.
    fn assign(&mut self) {
        let queued = self.shared.inbox().queue.len();
        if queued == 0 && self.lanes.len() >= self.wanted {
            return;
        }
        let outstanding = queued + self.lanes.iter().map(Lane::live).sum::<usize>();
        self.wanted = self.wanted.max(outstanding.min(self.shared.max_workers.get()));
        while self.lanes.len() < self.wanted {
            let inbox = self.shared.inbox();
            if inbox.broken.is_some() || inbox.closed && outstanding <= self.lanes.len() {
                break;
            }
            drop(inbox);
            if let Err(error) = self.start_worker() {
                // With other workers the pool goes on, slower; without any it cannot.
                self.wanted = self.lanes.len();
                if self.lanes.is_empty() {
                    self.break_down(BrokenCause::Spawn(error.to_string()));
                }
                break;
            }
        }
        loop {
            let best = (0..self.lanes.len())
                .filter(|lane| self.lanes[*lane].takes_calls())
                .min_by_key(|lane| self.lanes[*lane].live());
            let Some(lane) = best else { break };
            let Some(parcel) = self.shared.inbox().queue.pop_front() else { break };
            self.dispatch(lane, parcel);
        }
    }

    fn dispatch(&mut self, lane: usize, parcel: Parcel) {
        if self.lanes[lane].send_call(parcel) {
            self.on(lane, Event::Dispatch);
        } else {
            self.ended += 1; // cancelled
        }
    }

    /// Lets idle workers take over calls that wait behind others.
    fn rebalance(&mut self) {
        while let Some(idle) = (0..self.lanes.len()).find(|lane| self.lanes[*lane].is_idle()) {
            let longest = self.lanes.iter_mut().max_by_key(|lane| lane.live());
            let Some(longest) = longest.filter(|lane| lane.live() > 1) else { return };
            let taken = longest.take_back(longest.live() / 2);
            if taken.is_empty() {
                return; // they have begun meanwhile
            }
            for parcel in taken {
                if parcel.recall() {
                    self.dispatch(idle, parcel);
                } else {
                    self.ended += 1;
                }
            }
        }
    }

    /// Once the pool is closed: sends workers away that nobody will need.
    fn close_idle(&mut self) {
        let inbox = self.shared.inbox();
        let closing = inbox.closed && inbox.queue.is_empty();
        drop(inbox);
        if closing {
            for lane in 0..self.lanes.len() {
                self.on(lane, Event::Close);
            }
        }
    }

    fn flush(&mut self) {
        for lane in &mut self.lanes {
            lane.flush();
        }
    }

    fn settle_accounts(&mut self) {
        if self.ended > 0 {
            self.shared.inbox().unfinished -= std::mem::take(&mut self.ended);
        }
    }

    fn is_over(&self) -> bool {
        let inbox = self.shared.inbox();
        inbox.closed && inbox.queue.is_empty() && inbox.recalls_asked == inbox.recalls_done && self.lanes.is_empty()
    }

    /// Sleeps until something happens, and deals with it.
    fn wait(&mut self) {
        let sleeps = self.shared.prepare_to_sleep();
        let timeout = match (sleeps, self.lanes.iter().filter_map(|lane| lane.deadline).min()) {
            (false, _) => Some(Duration::ZERO),
            (true, deadline) => deadline.map(|at| at.saturating_duration_since(Instant::now())),
        };
        let (woken, happened) = self.poll(timeout);
        self.shared.awake(woken);
        for (lane, what) in happened.iter().enumerate() {
            if what.stderr {
                self.lanes[lane].read_stderr();
            }
            if what.channel {
                self.read_channel(lane);
            }
            if what.ended {
                self.on(lane, Event::Exited);
            }
        }
        let now = Instant::now();
        for lane in 0..self.lanes.len() {
            if self.lanes[lane].deadline.is_some_and(|deadline| deadline <= now) {
                self.lanes[lane].deadline = None;
                // A worker in use has no deadline but the one after it hung up.
                let event = if self.lanes[lane].state.accepts_calls() { Event::Unfit } else { Event::Deadline };
                self.on(lane, event);
            }
        }
        self.remove_dead();
    }

    /// Whether an order woke the driver, and what happened to each worker.
    fn poll(&self, timeout: Option<Duration>) -> (bool, Vec<Happened>) {
        let mut polled = vec![PollFd::new(&self.shared.wake, PollFlags::IN)];
        let mut places = Vec::with_capacity(self.lanes.len());
        for lane in &self.lanes {
            let ended = polled.len();
            polled.push(PollFd::new(&lane.pidfd, PollFlags::IN));
            let channel = (!lane.hung_up).then(|| {
                let writes = if lane.outbox.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
                polled.push(PollFd::new(&lane.stream, PollFlags::IN | writes));
                polled.len() - 1
            });
            let stderr = lane.stderr.as_ref().map(|stderr| {
                polled.push(PollFd::new(stderr, PollFlags::IN));
                polled.len() - 1
            });
            places.push((ended, channel, stderr));
        }
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
            // Rounded up, so that a deadline has really passed when the wait for it ends.
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(error) => panic!("the driver's descriptors cannot be polled: {error}"),
        }
        let ready = |place: usize| polled[place].revents().intersects(!PollFlags::OUT);
        let happened = places.into_iter().map(|(ended, channel, stderr)| Happened {
            ended: ready(ended),
            channel: channel.is_some_and(ready),
            stderr: stderr.is_some_and(ready),
        });
        (ready(0), happened.collect())
    }

    /// Takes what the worker has sent. `false`: nothing was there.
    fn read_channel(&mut self, lane: usize) -> bool {
        if self.lanes[lane].hung_up {
            return false;
        }
        let Lane { reader, stream, .. } = &mut self.lanes[lane];
        match reader.fill(stream) {
            Ok(0) => self.lanes[lane].hang_up(),
            Ok(_) => {
                self.take_frames(lane);
                return true;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
            Err(_) => self.lanes[lane].hang_up(),
        }
        false
    }

    fn take_frames(&mut self, lane: usize) {
        loop {
            match self.lanes[lane].reader.next() {
                Ok(Some(frame)) => {
                    if let Err(why) = self.take_frame(lane, frame) {
                        return self.unfit(lane, why);
                    }
                }
                Ok(None) => return,
                Err(error) => return self.unfit(lane, error.to_string()),
            }
        }
    }

    /// # Errors
    /// Why this frame cannot come from a worker in its right mind.
    fn take_frame(&mut self, lane: usize, frame: Frame) -> Result<(), String> {
        match frame.kind {
            Kind::Hello if !self.lanes[lane].greeted => {
                let hello = Hello::get(&frame.body).map_err(|error| error.to_string())?;
                Hello::of_this_process().accepts(hello)?;
                self.greeted(lane);
                Ok(())
            }
            Kind::Unfit => Err(String::from_utf8_lossy(&frame.body).into_owned()),
            Kind::Reply | Kind::Skipped => {
                let Some(call) = self.lanes[lane].in_flight.pop_front_if(|call| call.ticket == frame.ticket) else {
                    return Err(format!("it answered call {}, which is not its next", frame.ticket));
                };
                match (frame.kind, call.parcel) {
                    (Kind::Reply, Some(parcel)) => {
                        self.ended += 1;
                        self.announcer.announce(parcel.complete(frame.body));
                    }
                    (Kind::Reply, None) if self.lanes[lane].state == State::Starting => {
                        match portable::check(&frame.body) {
                            Ok(()) => self.on(lane, Event::Ready),
                            Err(failure) => {
                                self.break_down(BrokenCause::Initializer(Box::new(failure)));
                                self.on(lane, Event::Unfit);
                            }
                        }
                    }
                    (Kind::Reply, None) => return Err(format!("it made call {}, which was taken back", frame.ticket)),
                    (_, Some(_cancelled)) => self.ended += 1,
                    (_, None) => {}
                }
                if self.lanes[lane].in_flight.is_empty() {
                    self.lanes[lane].forget_contexts();
                    self.on(lane, Event::Drained);
                }
                Ok(())
            }
            kind => Err(format!("it sent a frame {kind:?} out of turn")),
        }
    }

    /// A worker has proved who it is.
    fn greeted(&mut self, lane: usize) {
        self.lanes[lane].greeted = true;
        match &self.shared.initializer {
            None => self.on(lane, Event::Ready),
            Some(initializer) => {
                // It may take its time.
                self.lanes[lane].deadline = None;
                let ticket = self.lanes[lane].new_ticket();
                self.lanes[lane].outbox.put_call(ticket, initializer);
                self.lanes[lane].in_flight.push_back(InFlight { ticket, parcel: None });
            }
        }
    }

    /// A worker does what none should. One that never got ready shows that none will.
    fn unfit(&mut self, lane: usize, why: String) {
        if self.lanes[lane].state == State::Starting {
            self.break_down(BrokenCause::Spawn(format!("a worker cannot serve this process: {why}")));
        }
        self.on(lane, Event::Unfit);
    }

    fn on(&mut self, lane: usize, event: Event) {
        let this = &mut self.lanes[lane];
        let (state, action) = this.state.after(event);
        if state != this.state {
            this.state = state;
            this.deadline = state.limit().and_then(|limit| Instant::now().checked_add(limit));
        }
        if event == Event::Ready {
            this.was_ready = true;
            self.restarts.ready();
        }
        match action {
            Action::Nothing => {}
            Action::EndInput => {
                // An error means that it has hung up already.
                let _ = self.lanes[lane].stream.shutdown(Shutdown::Write);
            }
            Action::Terminate => os::terminate(&self.lanes[lane].child),
            Action::Kill => {
                // An error means that it has ended already.
                let _ = self.lanes[lane].child.kill();
            }
            Action::Bury => self.bury(lane),
        }
    }

    fn bury(&mut self, lane: usize) {
        // What it said before it died counts.
        while self.read_channel(lane) {}
        let this = &mut self.lanes[lane];
        while this.read_stderr() {}
        let exit = this.child.wait().map_or(Exit::Unknown, os::exit_of);
        let lost = WorkerLost { pid: this.child.id(), exit, stderr: this.last_lines() };
        let mut unbegun = Vec::new();
        let mut failed = Vec::new();
        let victim = this.victim;
        for InFlight { ticket, parcel } in std::mem::take(&mut this.in_flight) {
            let Some(parcel) = parcel else { continue };
            match this.channel.claims.get(ticket) {
                Claim::Begun if victim == Some(ticket) => failed.push((parcel, Failure::Killed { pid: lost.pid })),
                Claim::Begun => failed.push((parcel, Failure::WorkerLost(lost.clone()))),
                // A cancelled one is refused by `recall`.
                Claim::Offered | Claim::Revoked => unbegun.push(parcel),
            }
        }
        let was_ready = this.was_ready;
        self.ended += failed.len();
        for (parcel, failure) in failed {
            self.announcer.announce(parcel.fail(failure));
        }
        self.requeue(unbegun);
        if !was_ready && self.shared.inbox().refusal().is_none() && !self.restarts.ended_before_ready() {
            self.break_down(BrokenCause::Crashing(lost));
        }
    }

    fn remove_dead(&mut self) {
        let before = self.lanes.len();
        self.lanes.retain(|lane| lane.state != State::Dead);
        if self.lanes.len() != before {
            self.tell_pids();
        }
    }

    fn tell_pids(&self) {
        let pids = self.lanes.iter().map(|lane| lane.child.id()).collect();
        self.shared.tell(|inbox| inbox.pids = pids);
    }

    fn start_worker(&mut self) -> io::Result<()> {
        let worker = self.next_worker;
        let (claims, memory) = Claims::create()?;
        let started = os::start_worker(&format!("{}-{worker}", self.shared.name_prefix))?;
        self.next_worker += 1;
        let mut hello = Vec::new();
        Hello::of_this_process().put(&mut hello);
        // A failure means that it has ended already, which its descriptor tells as well.
        let _ = os::send_with_descriptor(&started.channel, &hello, std::os::fd::AsFd::as_fd(&memory));
        self.lanes.push(Lane::new(worker, claims, started, &self.shared));
        self.tell_pids();
        Ok(())
    }

    /// Nothing can be run any more: fails what waits.
    fn break_down(&mut self, cause: BrokenCause) {
        let queue = {
            let mut inbox = self.shared.inbox();
            inbox.closed = true;
            inbox.broken.get_or_insert(cause);
            std::mem::take(&mut inbox.queue)
        };
        let refusal = self.shared.inbox().refusal().expect("it was just broken");
        self.ended += queue.len();
        for parcel in queue {
            self.announcer.announce(parcel.fail(refusal.clone()));
        }
    }
}

/// What `poll` found of one worker.
struct Happened {
    ended: bool,
    channel: bool,
    stderr: bool,
}

impl Lane {
    fn new(worker: u64, claims: Claims, started: os::Started, shared: &Arc<Shared>) -> Lane {
        let state = State::Starting;
        Lane {
            state,
            deadline: state.limit().and_then(|limit| Instant::now().checked_add(limit)),
            channel: Arc::new(WorkerChannel { worker, claims, shared: Arc::clone(shared) }),
            stream: started.channel,
            child: started.child,
            pidfd: started.pidfd,
            stderr: Some(started.stderr),
            tail: VecDeque::new(),
            reader: FrameReader::new(),
            outbox: Outbox::default(),
            in_flight: VecDeque::new(),
            next_ticket: 0,
            contexts: HashMap::new(),
            greeted: false,
            was_ready: false,
            hung_up: false,
            victim: None,
        }
    }

    /// Calls in the channel that have not been taken back.
    fn live(&self) -> usize {
        self.in_flight.iter().filter(|call| call.parcel.is_some()).count()
    }

    fn is_idle(&self) -> bool {
        self.state == State::Idle && !self.hung_up
    }

    fn takes_calls(&self) -> bool {
        self.state.accepts_calls() && !self.hung_up && self.in_flight.len() < SLOTS && self.live() < DEPTH
    }

    fn new_ticket(&mut self) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.channel.claims.offer(ticket);
        ticket
    }

    /// Puts a call into the channel. `false`: it is cancelled.
    fn send_call(&mut self, parcel: Parcel) -> bool {
        let ticket = self.new_ticket();
        let channel = Arc::clone(&self.channel) as Arc<dyn executor_core::cell::Channel>;
        if !parcel.dispatch(Lease { channel, ticket }) {
            self.next_ticket = ticket; // it was not used
            return false;
        }
        if let Some(context) = &parcel.call().context
            && !self.contexts.contains_key(&context.id)
        {
            self.forget_contexts();
            self.outbox.put_context(context.id, &context.bytes);
            self.contexts.insert(context.id, Arc::downgrade(&context.bytes));
        }
        self.outbox.put_call(ticket, &parcel);
        self.in_flight.push_back(InFlight { ticket, parcel: Some(parcel) });
        true
    }

    /// Takes back up to `count` calls that have not begun, the oldest of them, in their order.
    fn take_back(&mut self, count: usize) -> Vec<Parcel> {
        let mut taken = Vec::new();
        for call in &mut self.in_flight {
            if taken.len() == count {
                break;
            }
            if call.parcel.is_some() && self.channel.claims.revoke(call.ticket) {
                taken.extend(call.parcel.take());
            }
        }
        taken
    }

    fn forget_contexts(&mut self) {
        let outbox = &mut self.outbox;
        self.contexts.retain(|id, bytes| {
            let alive = bytes.strong_count() > 0;
            if !alive {
                outbox.put_forget(*id);
            }
            alive
        });
    }

    fn flush(&mut self) {
        if !self.hung_up && self.outbox.flush(&self.stream).is_err() {
            // It reads no more. What it still has to say, and its end, are noticed as ever.
            self.outbox = Outbox::default();
        }
    }

    fn hang_up(&mut self) {
        self.hung_up = true;
        self.outbox = Outbox::default();
        if self.state.accepts_calls() {
            self.deadline = Instant::now().checked_add(AFTER_HANG_UP);
        }
    }

    /// Passes on what the worker wrote to its standard error, and keeps the last of it. `false`: nothing was there.
    fn read_stderr(&mut self) -> bool {
        let Some(stderr) = &mut self.stderr else { return false };
        let mut bytes = [0; 8192];
        match stderr.read(&mut bytes) {
            Ok(0) => {
                self.stderr = None;
                false
            }
            Ok(got) => {
                // Nobody to tell if this process's own standard error is closed.
                let _ = io::stderr().write_all(&bytes[..got]);
                self.tail.extend(&bytes[..got]);
                let surplus = self.tail.len().saturating_sub(TAIL_BYTES);
                self.tail.drain(..surplus);
                true
            }
            Err(error) => error.kind() == io::ErrorKind::Interrupted,
        }
    }

    fn last_lines(&mut self) -> String {
        let tail = String::from_utf8_lossy(self.tail.make_contiguous()).into_owned();
        let lines: Vec<_> = tail.trim().lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}

/// Bytes on their way to a worker.
#[derive(Default)]
struct Outbox {
    segments: VecDeque<Segment>,
    /// How much of the first segment is sent.
    sent: usize,
}

enum Segment {
    Frames(Vec<u8>),
    /// Large arguments, sent from where they are.
    Args(Arc<Vec<u8>>),
    Context(Arc<[u8]>),
}

impl Segment {
    fn bytes(&self) -> &[u8] {
        match self {
            Segment::Frames(bytes) => bytes,
            Segment::Args(bytes) => bytes,
            Segment::Context(bytes) => bytes,
        }
    }
}

impl Outbox {
    fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    fn frames(&mut self) -> &mut Vec<u8> {
        if !matches!(self.segments.back(), Some(Segment::Frames(_))) {
            self.segments.push_back(Segment::Frames(Vec::new()));
        }
        match self.segments.back_mut() {
            Some(Segment::Frames(bytes)) => bytes,
            _ => unreachable!("it was put there"),
        }
    }

    fn put_call(&mut self, ticket: u64, parcel: &Parcel) {
        let call = parcel.call();
        let frames = self.frames();
        put_call_head(ticket, call, frames);
        if call.args.len() <= SMALL_BYTES {
            frames.extend_from_slice(&call.args);
        } else {
            self.segments.push_back(Segment::Args(Arc::clone(&call.args)));
        }
    }

    fn put_context(&mut self, id: ContextId, bytes: &Arc<[u8]>) {
        crate::wire::Header { kind: Kind::Context, ticket: id.0, length: bytes.len() as u64 }.put(self.frames());
        self.segments.push_back(Segment::Context(Arc::clone(bytes)));
    }

    fn put_forget(&mut self, id: ContextId) {
        put_frame(Kind::Forget, id.0, &[], self.frames());
    }

    /// Sends as much as the worker takes now.
    fn flush(&mut self, stream: &UnixStream) -> io::Result<()> {
        while let Some(segment) = self.segments.front() {
            let bytes = segment.bytes();
            if self.sent == bytes.len() {
                self.segments.pop_front();
                self.sent = 0;
                continue;
            }
            match os::send(stream, &bytes[self.sent..]) {
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Runs callbacks on a thread of their own, which starts with the first of them.
struct Announcer {
    home: Home,
    name: String,
    thread: Option<(mpsc::Sender<Announcement>, JoinHandle<()>)>,
}

impl Announcer {
    fn new(shared: &Shared) -> Self {
        Announcer { home: shared.home, name: format!("{}-callbacks", shared.name_prefix), thread: None }
    }

    fn announce(&mut self, announcement: Option<Announcement>) {
        let Some(announcement) = announcement else { return };
        if self.thread.is_none() {
            let (sender, receiver) = mpsc::channel::<Announcement>();
            let home = self.home;
            let run = move || {
                // So that a callback that shuts this pool down does not wait for itself.
                let _entered = blocking::enter(Rc::new(CallbackThread(home)));
                receiver.into_iter().for_each(Announcement::run);
            };
            self.thread = thread::Builder::new().name(self.name.clone()).spawn(run).ok().map(|thread| (sender, thread));
        }
        match &self.thread {
            // Gives it back if the thread is gone, and dropping it runs it: late, but not lost.
            Some((sender, _)) => drop(sender.send(announcement)),
            None => announcement.run(),
        }
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        if let Some((sender, thread)) = self.thread.take() {
            drop(sender);
            // Callbacks' panics are contained, so there is none to pass on.
            let _ = thread.join();
        }
    }
}

struct CallbackThread(Home);

impl Worker for CallbackThread {
    fn home(&self) -> Home {
        self.0
    }

    fn block(&self) {}

    fn unblock(&self) {}
}

/// A driver that is gone leaves futures that nobody will ever complete.
struct AbortIfPanic;

impl Drop for AbortIfPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("concurrent-futures: the driver of a process pool panicked; aborting");
            process::abort();
        }
    }
}
