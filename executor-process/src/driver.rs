//! The one thread that feeds the supervisor with real events and does what it says.
//!
//! It sleeps in `poll` on everything that can happen: an order in the inbox, and for each worker its channel, its
//! standard error and its end. It runs no user code: arguments were encoded by who submitted, results are decoded
//! by who wants them, and callbacks go to a thread of their own, so none of these can hold up another task.
//!
//! # Who gets a task
//! A worker whose channel is empty, the first such one; otherwise the one with the shortest channel, up to a few, so that
//! a worker never waits for its next call. A worker that runs out while another's channel still holds calls that have not
//! begun is given half of those, the oldest, so that calls begin in the order of their submission as far as possible.
//! While calls of different priorities wait, no channel holds more than the call that runs: what is in a channel can no
//! longer be overtaken.
//!
//! # What becomes of a dead worker's tasks
//! First what it answered before it died is taken from its channel. Of the rest, at most one has begun, says its
//! claim: that one is lost. All others go back to the front of the queue.

use executor_core::{
    BrokenCause, Exit, Failure, Priority, ResourceLimit, WorkerLost,
    attachments::Encoded,
    codec, portable,
    task::{Ended, Parcel},
    timer,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::Signal,
};
use std::{
    collections::BTreeMap,
    io, mem,
    os::fd::AsFd,
    process,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    announcer::Announcer,
    claims::{Claim, Claims},
    echo::Echo,
    inbox::{KillOrder, Shared, Stop},
    lane::{DEPTH, Doom, InFlight, Lane},
    os,
    records::Levels,
    supervisor::{Action, Event, Restarts, State},
    wire::{Frame, Hello, Kind},
};

/// Reads from a dead worker's standard error at most.
const LAST_READS: usize = 64;

/// How often a worker's memory is looked at.
const MEMORY_PERIOD: Duration = Duration::from_secs(1);

/// The driver thread.
pub(crate) fn run(shared: Arc<Shared>) {
    let _guard = AbortIfPanic;
    let mut driver = Driver {
        announcer: Announcer::new(&shared),
        echo: Echo::new(&shared),
        shared,
        lanes: Vec::new(),
        next_worker: 0,
        restarts: Restarts::default(),
        pausing: BTreeMap::new(),
        has_levels: false,
        glances_at: None,
        is_closing: false,
    };
    loop {
        driver.follow_orders();
        driver.assign();
        driver.rebalance();
        driver.fail_stranded();
        driver.close_idle();
        driver.flush();
        driver.stand_by();
        if driver.is_done() {
            break;
        }
        driver.wait();
    }
    drop(driver.announcer); // waits for the callbacks
    drop(driver.echo);
    driver.shared.tell(|inbox| inbox.driver_is_over = true);
}

struct Driver {
    shared: Arc<Shared>,
    lanes: Vec<Lane>,
    next_worker: u64,
    restarts: Restarts,
    /// Calls that wait for another attempt, by when and which.
    pausing: BTreeMap<(Instant, u64), Parcel>,
    /// Calls of different priorities wait.
    has_levels: bool,
    /// When to look, in a closed pool, whether what pauses was cancelled.
    glances_at: Option<Instant>,
    /// The pool was seen to be closed.
    is_closing: bool,
    announcer: Announcer,
    echo: Echo,
}

impl Driver {
    fn follow_orders(&mut self) {
        let (kills, recall, stop) = {
            let mut inbox = self.shared.begin_to_look();
            let recall = (inbox.recalls_asked > inbox.recalls_done).then_some(inbox.recalls_asked);
            (mem::take(&mut inbox.kills), recall, inbox.stop.take())
        };
        for KillOrder { worker, ticket } in kills {
            self.kill(worker, ticket);
        }
        if let Some(asked) = recall {
            self.take_all_back();
            let pausing = mem::take(&mut self.pausing).into_values();
            self.shared.tell(|inbox| {
                // Out of reach of `assign`, which would put them into channels again.
                let pending = inbox.queue.take_if(|_| true);
                inbox.recalled.extend(pending);
                inbox.recalled.extend(pausing);
                inbox.recalls_done = asked;
            });
        }
        if let Some(stop) = stop {
            self.stop(stop);
        }
    }

    /// Ends all workers, whatever they run.
    fn stop(&mut self, stop: Stop) {
        for parcel in mem::take(&mut self.pausing).into_values() {
            self.announcer.announce(parcel.call_off());
        }
        for lane in 0..self.lanes.len() {
            self.lanes[lane].doom = Some(Doom::Shutdown);
            self.on(lane, Event::Kill);
            if stop == Stop::Kill {
                self.on(lane, Event::Deadline); // no grace
            }
        }
    }

    /// Takes back to the queue all calls that have not begun, in the order of their submission.
    fn take_all_back(&mut self) {
        let mut taken: Vec<_> = self.lanes.iter_mut().flat_map(|lane| lane.take_back(usize::MAX)).collect();
        taken.sort_by_key(Parcel::id);
        self.requeue(taken);
    }

    fn kill(&mut self, worker: u64, ticket: u64) {
        if let Some(lane) = self.lanes.iter().position(|lane| lane.channel.worker == worker) {
            self.end_call(lane, Doom::Kill(ticket), ticket);
        }
    }

    /// Ends workers whose call runs longer than its limit.
    fn end_overruns(&mut self, now: Instant) {
        for lane in 0..self.lanes.len() {
            if let Some((ticket, limit)) = self.lanes[lane].overrun(now) {
                self.end_call(lane, Doom::Overrun(ticket, limit), ticket);
            }
        }
    }

    /// Ends a worker for the sake of the call that it makes.
    fn end_call(&mut self, lane: usize, doom: Doom, ticket: u64) {
        // Its neighbours in the channel must not begin now.
        let taken = self.lanes[lane].take_back(usize::MAX);
        self.requeue(taken);
        // What was begun before the last one is over, and its answer on the way: that is read before the worker is buried.
        if self.lanes[lane].last_live() == Some(ticket) {
            self.lanes[lane].doom.get_or_insert(doom); // the first reason is the one to tell
            self.on(lane, Event::Kill);
        } // else it has been answered meanwhile
    }

    /// Puts calls whose pause is over back into the queue.
    fn resume(&mut self, now: Instant) {
        while let Some(entry) = self.pausing.first_entry().filter(|entry| entry.key().0 <= now) {
            let parcel = entry.remove();
            self.shared.inbox().queue.push_back(parcel.priority(), parcel);
        }
    }

    /// Ends an attempt, and with it the task, unless another one is to follow.
    fn settle(&mut self, parcel: Parcel, end: impl FnOnce(Parcel) -> Ended) {
        match end(parcel) {
            Ended::Over(announcement) => self.announcer.announce(announcement),
            Ended::Again(parcel, _) if self.shared.inbox().gives_up => self.announcer.announce(parcel.call_off()),
            Ended::Again(parcel, pause) => {
                let at = timer::after(pause);
                self.pausing.insert((at, parcel.id().number()), parcel);
            }
        }
    }

    /// Puts calls that have not begun back to the front of the queue.
    fn requeue(&mut self, calls: Vec<Parcel>) {
        let calls: Vec<_> = calls.into_iter().filter(Parcel::recall).collect();
        let mut inbox = self.shared.inbox();
        for parcel in calls.into_iter().rev() {
            inbox.queue.push_front(parcel.priority(), parcel);
        }
    }

    /// Gives queued tasks to workers, and starts workers as long as there are more tasks than workers.
    fn assign(&mut self) {
        self.shrink();
        let has_levels = {
            let queue = &self.shared.inbox().queue;
            queue.has(Priority::High) || queue.has(Priority::Low)
        };
        if has_levels && !self.has_levels {
            self.take_all_back(); // what was put there before may be overtaken now
        }
        self.has_levels = has_levels;
        self.start_wanted();
        // What is written in one call must not be taken for another's.
        let depth = if has_levels || self.shared.chosen.output.is_attributed() { 1 } else { DEPTH };
        let mut places = self.places();
        loop {
            let best = (0..self.lanes.len())
                .filter(|lane| self.lanes[*lane].takes_calls(depth) && (places > 0 || self.lanes[*lane].live() > 0))
                .min_by_key(|lane| self.lanes[*lane].live());
            let Some(lane) = best else { break };
            let Some(parcel) = self.shared.inbox().queue.pop() else { break };
            let was_free = self.lanes[lane].live() == 0;
            self.dispatch(lane, parcel);
            places -= usize::from(was_free && self.lanes[lane].live() > 0);
        }
    }

    /// Starts as many workers as there are calls, and one for each that will leave, so that nobody waits for that one.
    fn start_wanted(&mut self) {
        let (queued, closed) = {
            let inbox = self.shared.inbox();
            (inbox.queue.len(), inbox.closed)
        };
        let max_workers = self.shared.chosen.max_workers().get();
        let staying: usize = self.lanes.iter().filter(|lane| lane.stays()).map(Lane::live).sum();
        let leaving = self.lanes.iter().filter(|lane| lane.needs_successor()).count();
        // In a pool that is closed nobody will come for successors.
        let successors = if closed && queued == 0 { 0 } else { leaving };
        let wanted = (queued + staying + successors).min(max_workers);
        // Those that leave in peace make no calls, but may be slow to leave.
        let most = max_workers.saturating_mul(2);
        while self.lanes.iter().filter(|lane| lane.stays()).count() < wanted
            && self.lanes.len() < most
            && !self.is_broken()
        {
            if let Err(error) = self.start_worker() {
                // With other workers the pool goes on, slower; without any it cannot.
                if self.lanes.is_empty() {
                    self.break_down(BrokenCause::Spawn(error.to_string()));
                }
                break;
            }
        }
    }

    /// After calls were sent off: those may be the last that their worker is given.
    fn stand_by(&mut self) {
        if self.lanes.iter().any(Lane::needs_successor) {
            self.start_wanted();
        }
    }

    /// How many more workers may be given calls. Successors of those that leave make a pool's processes more than its workers.
    fn places(&self) -> usize {
        let max_workers = self.shared.chosen.max_workers().get();
        if self.lanes.len() <= max_workers {
            return max_workers; // enough for all
        }
        max_workers.saturating_sub(self.lanes.iter().filter(|lane| lane.live() > 0).count())
    }

    /// After the pool was made smaller: those that are too many leave, idle ones now, others when they have made their call.
    fn shrink(&mut self) {
        let max_workers = self.shared.chosen.max_workers().get();
        if self.lanes.len() <= max_workers && !self.lanes.iter().any(|lane| lane.is_surplus) {
            return;
        }
        self.lanes.iter_mut().for_each(|lane| lane.is_surplus = false); // it may have grown again
        let mut staying: Vec<_> = (0..self.lanes.len()).filter(|lane| self.lanes[*lane].stays()).collect();
        if staying.len() <= max_workers {
            return;
        }
        // What is under way stays, and then what is ready.
        staying.sort_by_key(|lane| match self.lanes[*lane].state {
            State::Busy => 0,
            State::Idle => 1,
            _ => 2,
        });
        let mut taken = Vec::new();
        for lane in staying.split_off(max_workers) {
            self.lanes[lane].is_surplus = true;
            taken.extend(self.lanes[lane].take_back(usize::MAX));
            if self.lanes[lane].state != State::Busy {
                self.send_away(lane);
            }
        }
        taken.sort_by_key(Parcel::id);
        self.requeue(taken);
    }

    /// A worker is ready: one that is to be replaced is given no more calls.
    fn relieve(&mut self) {
        let due = |lane: &Lane| lane.is_due && lane.state.accepts_calls() && !lane.is_retired();
        let Some(old) = self.lanes.iter().position(due) else { return };
        self.lanes[old].is_relieved = true;
        let taken = self.lanes[old].take_back(usize::MAX);
        self.requeue(taken);
        self.idle(old);
    }

    fn dispatch(&mut self, lane: usize, parcel: Parcel) {
        if self.lanes[lane].send_call(parcel) {
            self.on(lane, Event::Dispatch);
        } // else it is cancelled
    }

    /// Calls in all channels.
    fn calls(&self) -> usize {
        self.lanes.iter().map(Lane::live).sum()
    }

    fn is_broken(&self) -> bool {
        self.shared.inbox().broken.is_some()
    }

    /// Lets idle workers take over calls that wait behind others.
    fn rebalance(&mut self) {
        while let Some(idle) = (0..self.lanes.len()).find(|lane| self.lanes[*lane].is_idle()) {
            if self.places() == 0 {
                return;
            }
            let left = self.lanes[idle].max_tasks - self.lanes[idle].given;
            let room = usize::try_from(left).unwrap_or(usize::MAX);
            let longest = self.lanes.iter_mut().max_by_key(|lane| lane.live());
            let Some(longest) = longest.filter(|lane| lane.live() > 1) else { return };
            let taken = longest.take_back(room.min(longest.live() / 2));
            if taken.is_empty() {
                return; // they have begun meanwhile
            }
            for parcel in taken.into_iter().filter(Parcel::recall) {
                self.dispatch(idle, parcel);
            }
        }
    }

    /// In a broken pool: fails what came back to the queue, when no worker is left that could run it.
    fn fail_stranded(&mut self) {
        let hopeful = |lane: &Lane| lane.state == State::Starting || lane.state.accepts_calls();
        if self.is_broken() && !self.lanes.iter().any(hopeful) {
            self.fail_queue();
        }
    }

    /// Once the pool is closed: sends workers away that nobody will need.
    fn close_idle(&mut self) {
        let mut inbox = self.shared.inbox();
        if !inbox.closed {
            return;
        }
        if !mem::replace(&mut self.is_closing, true) {
            // Nobody needs to be there for what is cancelled. Once: what is cancelled later is found as its turn comes.
            drop(inbox.queue.take_if(Parcel::is_over));
        }
        let empty = inbox.queue.is_empty();
        drop(inbox);
        if self.glances_at.is_none_or(|at| at <= Instant::now()) {
            // What pauses may be cancelled, and tells nobody.
            self.pausing.retain(|_, parcel| !parcel.is_over());
            self.glances_at = (!self.pausing.is_empty()).then(|| timer::after(timer::GLANCE));
        }
        if !empty {
            return;
        }
        let calls = self.calls();
        let ready = self.lanes.iter().filter(|lane| lane.state.accepts_calls()).count();
        for lane in 0..self.lanes.len() {
            // One that is starting will take over calls from the others' channels, if there are enough for all.
            let starting = self.lanes[lane].state == State::Starting;
            if !starting || calls <= ready {
                self.lanes[lane].dismissed |= starting;
                self.on(lane, Event::Close);
            }
        }
    }

    fn flush(&mut self) {
        for lane in &mut self.lanes {
            lane.flush();
        }
    }

    /// Whether there is nothing more to do, now or ever. From then on no orders are taken.
    fn is_done(&self) -> bool {
        let mut inbox = self.shared.inbox();
        let recalled = inbox.recalls_asked == inbox.recalls_done;
        if !(inbox.closed && inbox.queue.is_empty() && self.pausing.is_empty() && recalled && self.lanes.is_empty()) {
            return false;
        }
        inbox.driver_is_done = true; // under the same lock, so no order can come between
        drop(inbox);
        self.shared.tell(|_| ());
        true
    }

    /// Sleeps until something happens, and deals with it.
    fn wait(&mut self) {
        let sleeps = self.shared.prepare_to_sleep();
        let pause = self.pausing.first_key_value().map(|(&(at, _), _)| at);
        let own = pause.into_iter().chain(self.glances_at);
        let timeout = match (sleeps, self.lanes.iter().filter_map(Lane::next_deadline).chain(own).min()) {
            (false, _) => Some(Duration::ZERO),
            (true, deadline) => deadline.map(|at| at.saturating_duration_since(Instant::now())),
        };
        let (woken, happened) = self.poll(timeout);
        self.shared.awake(woken);
        for (lane, what) in happened.iter().enumerate() {
            if what.stderr {
                self.lanes[lane].read_stderr(&mut self.echo);
            }
            if what.stdout {
                self.lanes[lane].read_stdout(&mut self.echo.teller);
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
                if self.lanes[lane].state.accepts_calls() {
                    self.unfit(lane, "it closed its channel and did not end".into());
                } else {
                    self.on(lane, Event::Deadline);
                }
            }
            if self.lanes[lane].leaves_at.is_some_and(|at| at <= now) {
                self.lanes[lane].leaves_at = None;
                let leaving = self.lanes.iter().filter(|lane| lane.needs_successor()).count();
                if leaving < self.lanes.iter().filter(|lane| lane.is_idle() && lane.stays()).count() {
                    self.send_away(lane);
                } else {
                    self.idle(lane); // it is a successor, and stays for as long again
                }
            }
            if self.lanes[lane].due_at.is_some_and(|at| at <= now) {
                self.lanes[lane].due_at = None;
                self.lanes[lane].is_due = true;
            }
        }
        self.end_overruns(now);
        self.resume(now);
        self.remove_dead();
    }

    /// Whether an order woke the driver, and what happened to each worker.
    fn poll(&self, timeout: Option<Duration>) -> (bool, Vec<Happened>) {
        let mut polled = vec![PollFd::new(&self.shared.wake, PollFlags::IN)];
        let mut places = Vec::with_capacity(self.lanes.len());
        for lane in &self.lanes {
            let ended = polled.len();
            polled.push(PollFd::new(&lane.pidfd, PollFlags::IN));
            let channel = (!lane.hung_up && !self.echo.teller.is_full()).then(|| {
                let writes = if lane.outbox.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
                polled.push(PollFd::new(&lane.stream, PollFlags::IN | writes));
                polled.len() - 1
            });
            let stderr = lane.stderr.as_ref().filter(|_| !self.echo.is_full()).map(|stderr| {
                polled.push(PollFd::new(stderr, PollFlags::IN));
                polled.len() - 1
            });
            let stdout = lane.speech.as_ref().and_then(|speech| speech.stdout.as_ref());
            let stdout = stdout.filter(|_| !self.echo.is_full()).map(|stdout| {
                polled.push(PollFd::new(stdout, PollFlags::IN));
                polled.len() - 1
            });
            places.push((ended, channel, stderr, stdout));
        }
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(error) => panic!("the driver's descriptors cannot be polled: {error}"),
        }
        let ready = |place: usize| polled[place].revents().intersects(!PollFlags::OUT);
        let happened = places.into_iter().map(|(ended, channel, stderr, stdout)| Happened {
            ended: ready(ended),
            channel: channel.is_some_and(ready),
            stderr: stderr.is_some_and(ready),
            stdout: stdout.is_some_and(ready),
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
            Kind::Panicked => {
                self.lanes[lane].panic = codec::decode(&frame.body).ok();
                Ok(())
            }
            Kind::Record => {
                let speaker = self.lanes[lane].speaker_for(frame.ticket);
                self.echo.teller.record(speaker, frame.body);
                Ok(())
            }
            Kind::Reply | Kind::Skipped => {
                if frame.kind == Kind::Reply {
                    self.lanes[lane].hear_out(&mut self.echo);
                    self.lanes[lane].panic = None;
                }
                let Some(call) = self.lanes[lane].in_flight.pop_front_if(|call| call.ticket == frame.ticket) else {
                    return Err(format!("it answered call {}, which is not its next", frame.ticket));
                };
                match (frame.kind, call.parcel) {
                    (Kind::Reply, Some(parcel)) => {
                        self.lanes[lane].served = true;
                        self.restarts.served();
                        let reply = Encoded { bytes: frame.body, attachments: frame.attachments };
                        self.settle(parcel, |parcel| parcel.complete(reply));
                    }
                    (Kind::Reply, None) if self.lanes[lane].state == State::Starting => {
                        match portable::check(&frame.body) {
                            Ok(()) => self.ready(lane),
                            Err(failure) => {
                                self.break_down(BrokenCause::Initializer(Box::new(failure)));
                                self.on(lane, Event::Unfit);
                            }
                        }
                    }
                    (Kind::Reply, None) => return Err(format!("it made call {}, which was taken back", frame.ticket)),
                    (_, _cancelled) => {}
                }
                self.look_at_memory(lane);
                if self.lanes[lane].in_flight.is_empty() {
                    self.lanes[lane].forget_contexts();
                    self.lanes[lane].forget_words();
                    self.on(lane, Event::Drained);
                    self.idle(lane);
                }
                Ok(())
            }
            kind => Err(format!("it sent a frame {kind:?} out of turn")),
        }
    }

    /// A worker has proved who it is.
    fn greeted(&mut self, lane: usize) {
        self.lanes[lane].greeted = true;
        if self.shared.chosen.output.is_attributed() {
            self.lanes[lane].outbox.put_notice(Kind::Flush, &[]);
        }
        self.lanes[lane].outbox.put_limits(&self.shared.chosen.limits);
        match &self.shared.chosen.initializer {
            None => self.ready(lane),
            Some(initializer) => {
                // It may take its time.
                self.lanes[lane].deadline = None;
                let ticket = self.lanes[lane].new_ticket();
                self.lanes[lane].outbox.put_call(ticket, initializer);
                self.lanes[lane].in_flight.push_back(InFlight { ticket, parcel: None, look_at: None });
            }
        }
    }

    fn ready(&mut self, lane: usize) {
        let levels = Levels::wanted();
        if !levels.are_none() {
            // After the initializer, which may have a logger of its own.
            self.lanes[lane].outbox.put_notice(Kind::Forward, &levels.bytes());
        }
        if let Some(finalizer) = &self.shared.chosen.finalizer {
            self.lanes[lane].outbox.put_at_exit(finalizer);
        }
        self.on(lane, Event::Ready);
        self.idle(lane);
        let age = self.shared.chosen.recycling.max_age;
        self.lanes[lane].due_at = age.and_then(|age| Instant::now().checked_add(age));
        self.relieve();
    }

    /// A worker has nothing more to do: it may be time for it to leave.
    fn idle(&mut self, lane: usize) {
        if self.lanes[lane].state != State::Idle {
            return;
        }
        if self.lanes[lane].is_retired() {
            return self.send_away(lane);
        }
        let limit = self.shared.chosen.recycling.idle_timeout;
        self.lanes[lane].leaves_at = limit.and_then(|limit| Instant::now().checked_add(limit));
    }

    /// Has a worker replaced that keeps too much memory.
    fn look_at_memory(&mut self, lane: usize) {
        let Some(growth) = self.shared.chosen.recycling.memory_growth_bytes else { return };
        let now = Instant::now();
        let this = &mut self.lanes[lane];
        if !this.served || this.memory.is_some_and(|(_, looked)| now.duration_since(looked) < MEMORY_PERIOD) {
            return;
        }
        let Some(bytes) = os::resident_bytes(this.child.id()) else { return };
        // What it needs to be there at all, and for its first call, is no growth.
        let first = this.memory.map_or(bytes, |(first, _)| first);
        this.memory = Some((first, now));
        this.is_due |= bytes > first.saturating_add(growth);
    }

    /// Has an idle worker leave in peace.
    fn send_away(&mut self, lane: usize) {
        self.lanes[lane].dismissed = true;
        self.on(lane, Event::Close);
    }

    /// A worker does what none should. One that never got ready shows that none will.
    fn unfit(&mut self, lane: usize, why: String) {
        if self.lanes[lane].state == State::Starting {
            self.break_down(BrokenCause::Spawn(format!("a worker cannot serve this process: {why}")));
        }
        self.lanes[lane].note(&format!("concurrent-futures: the worker is ended, for {why}\n"));
        self.on(lane, Event::Unfit);
    }

    fn on(&mut self, lane: usize, event: Event) {
        let this = &mut self.lanes[lane];
        let (state, action) = this.state.after(event);
        if state != this.state {
            this.state = state;
            let limit = match state {
                State::Terminating => Some(self.shared.chosen.kill_grace),
                state => state.limit(),
            };
            this.deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        }
        match action {
            Action::Nothing => {}
            Action::EndInput => {
                self.lanes[lane].ends_input = true;
                self.lanes[lane].flush();
            }
            Action::Terminate => self.lanes[lane].signal(Signal::TERM),
            Action::Kill => self.lanes[lane].signal(Signal::KILL),
            Action::Bury => self.bury(lane),
        }
    }

    fn bury(&mut self, lane: usize) {
        // What it said before it died counts.
        while self.read_channel(lane) {}
        let this = &mut self.lanes[lane];
        // Bounded: a child of the worker's may still hold the pipe, and write for ever.
        for _ in 0..LAST_READS {
            if !this.read_stderr(&mut self.echo) {
                break;
            }
        }
        this.hear_out(&mut self.echo);
        if this.doom.is_some() {
            this.signal(Signal::KILL); // what its calls have started, and what outlived the first signal
        }
        let exit = this.child.wait().map_or(Exit::Unknown, os::exit_of);
        let limit = self.shared.chosen.limits.exceeded(&exit, this.says_out_of_memory);
        let lost = WorkerLost {
            pid: this.child.id(),
            exit,
            stderr: this.last_lines(),
            panic: this.panic.take().map(Box::new),
        };
        let ended_by = || match limit {
            Some(limit) => Failure::LimitExceeded { limit, lost: lost.clone() },
            None => Failure::WorkerLost(lost.clone()),
        };
        let is_full = matches!(limit, Some(ResourceLimit::Memory { .. }));
        let reading = this.in_flight.front().map(|call| call.ticket);
        let mut unbegun = Vec::new();
        let mut failed = Vec::new();
        let pid = lost.pid;
        for InFlight { ticket, parcel, .. } in mem::take(&mut this.in_flight) {
            let Some(parcel) = parcel else { continue };
            match this.channel.claims.get(ticket) {
                Claim::Begun => {
                    let failure = match this.doom {
                        Some(Doom::Shutdown) => Failure::Killed { pid },
                        Some(Doom::Kill(victim)) if victim == ticket => Failure::Killed { pid },
                        Some(Doom::Overrun(victim, limit)) if victim == ticket => {
                            Failure::TimedOut { limit, pid: Some(pid) }
                        }
                        _ => ended_by(),
                    };
                    failed.push((parcel, failure));
                }
                // There was no memory even for the arguments of its next call, and there will be none elsewhere.
                Claim::Offered if is_full && this.doom.is_none() && reading == Some(ticket) => {
                    failed.push((parcel, ended_by()));
                }
                // A cancelled one is refused by `recall`.
                Claim::Offered | Claim::Revoked => unbegun.push(parcel),
            }
        }
        let fruitless = !this.served && failed.is_empty() && !this.dismissed && this.doom.is_none();
        for (parcel, failure) in failed {
            self.settle(parcel, |parcel| parcel.fail(failure));
        }
        self.requeue(unbegun);
        if fruitless && !self.restarts.ended_without_a_call() {
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
        let chosen = &self.shared.chosen;
        let name = os::worker_name(&chosen.name_prefix, worker);
        let started = os::start_worker(&name, chosen.inner_threads, chosen.output.is_attributed(), &chosen.env)?;
        self.next_worker += 1;
        let mut hello = Vec::new();
        Hello::of_this_process().put(&mut hello);
        match os::send_with_descriptor(&started.channel, &hello, memory.as_fd()) {
            // One that is gone before it was greeted is buried like any other, with what it said of the reason.
            Err(error) if !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                os::abandon(started.child);
                return Err(error);
            }
            _ => {}
        }
        self.lanes.push(Lane::new(worker, claims, started, &self.shared));
        self.tell_pids();
        Ok(())
    }

    /// Nothing can be run any more: fails what waits.
    fn break_down(&mut self, cause: BrokenCause) {
        self.shared.close(|inbox| {
            inbox.broken.get_or_insert(cause);
        });
        self.fail_queue();
    }

    fn fail_queue(&mut self) {
        let (queue, refusal) = {
            let mut inbox = self.shared.inbox();
            (inbox.queue.take_if(|_| true), inbox.refusal())
        };
        let Some(refusal) = refusal else { return };
        for parcel in queue.into_iter().chain(mem::take(&mut self.pausing).into_values()) {
            self.settle(parcel, |parcel| parcel.fail(refusal.clone()));
        }
    }
}

/// What `poll` found of one worker.
struct Happened {
    ended: bool,
    channel: bool,
    stderr: bool,
    stdout: bool,
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
