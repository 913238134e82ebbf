//! How workers come and go.
//!
//! # What becomes of a dead worker's tasks
//! First what it answered before it died is taken from its channel. Of the rest, at most one has begun, says its
//! claim: that one is lost. All others go back to the front of the queue.

use executor_core::{
    BrokenCause, Exit, Failure, ResourceLimit, WorkerEnd, WorkerEvent, WorkerEventKind, WorkerInfo, WorkerKind,
    WorkerLost, task::Parcel, timer,
};
use rustix::process::Signal;
use std::{
    io, mem,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{Driver, Starts};
use crate::{
    claims::{Claim, Claims, RINGS_AT},
    forkserver::{ForkServer, News},
    lane::{Doom, InFlight, Lane},
    os,
    ring::ParentRings,
    supervisor::{Action, Event, State},
    watch::Source,
    wire::Hello,
};

/// Reads from a dead worker's standard error at most.
const LAST_READS: usize = 64;

/// How often a worker's memory is looked at.
const MEMORY_PERIOD: Duration = Duration::from_secs(1);

impl Driver {
    /// Starts as many workers as there are calls, and one for each that will leave, so that nobody waits for that one.
    pub(super) fn start_wanted(&mut self, starts: Starts) {
        let (queued, closed, is_broken) = {
            let inbox = self.shared.inbox();
            (inbox.queue.len(), inbox.closed, inbox.broken.is_some())
        };
        let max_workers = self.shared.chosen.max_workers().get();
        let staying: usize = self.lanes.iter().filter(|lane| lane.stays()).map(|lane| lane.live).sum();
        let leaving = self.lanes.iter().filter(|lane| lane.needs_successor()).count();
        // In a pool that is closed nobody will come for successors.
        let successors = if closed && queued == 0 { 0 } else { leaving };
        let wanted = (queued + staying + successors).min(max_workers);
        // Those that leave in peace make no calls, but may be slow to leave.
        let most = max_workers.saturating_mul(2);
        while self.lanes.iter().filter(|lane| lane.stays()).count() + self.asked() < wanted
            && self.lanes.len() + self.asked() < most
            && self.fork_server.as_ref().is_none_or(ForkServer::has_room)
            && !is_broken
        {
            if starts == Starts::Nothing {
                self.needs_thread = true;
                break;
            }
            if let Err(error) = self.start_worker() {
                self.not_started(&error);
                break;
            }
        }
        self.needs_thread |= is_broken;
    }

    /// After calls were sent off: those may be the last that their worker is given.
    pub(super) fn stand_by(&mut self) {
        if self.lanes.iter().any(Lane::needs_successor) {
            self.start_wanted(Starts::Workers);
        }
    }

    /// Workers that are to be forked and are not there yet.
    fn asked(&self) -> usize {
        self.fork_server.as_ref().map_or(0, ForkServer::asked)
    }

    /// With other workers the pool goes on, slower; without any it cannot.
    fn not_started(&mut self, error: &io::Error) {
        if self.lanes.is_empty() && self.asked() == 0 {
            self.break_down(BrokenCause::Spawn(error.to_string()));
        }
    }

    fn start_worker(&mut self) -> io::Result<()> {
        let worker = self.next_worker;
        let (claims, memory) = Claims::create()?;
        let rings = ParentRings::map(&memory, RINGS_AT as u64)?;
        let chosen = &self.shared.chosen;
        let name = os::worker_name(&chosen.name_prefix, worker);
        if let Some(fork_server) = &mut self.fork_server {
            let pair = UnixStream::pair()?;
            greet(&pair.0, &memory)?;
            fork_server.ask(worker, &name, (claims, rings), pair)?; // it will be among the news
            self.next_worker += 1;
            return Ok(());
        }
        let started = os::start_worker(&name, chosen.inner_threads, chosen.output.is_attributed(), &chosen.env)?;
        self.next_worker += 1;
        if let Err(error) = greet(&started.channel, &memory) {
            os::discard(&started.pidfd);
            return Err(error);
        }
        self.adopt(worker, claims, rings, started)
    }

    /// Takes in a worker process that was started and greeted.
    fn adopt(&mut self, worker: u64, claims: Claims, rings: ParentRings, started: os::Started) -> io::Result<()> {
        let lane = Lane::new(worker, claims, rings, started, &self.shared, &self.watch);
        let watched = (|| {
            self.watch.add(worker, Source::End, &lane.pidfd)?;
            self.watch.add(worker, Source::Socket, &lane.stream)?;
            if self.is_muted { Ok(()) } else { lane.watch_output(true) }
        })();
        if let Err(error) = watched {
            lane.abandon();
            return Err(error);
        }
        self.lanes.push(lane);
        self.count_start();
        self.tell_pids();
        Ok(())
    }

    /// A worker was started, perhaps in another one's place.
    fn count_start(&mut self) {
        let tally = &self.shared.tally;
        let leaving = self.lanes.iter().filter(|lane| lane.needs_successor()).count() as u64;
        if tally.restarts.load(Ordering::Relaxed) < tally.replaceable.load(Ordering::Relaxed) + leaving {
            tally.restarts.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(lane) = self.lanes.last_mut()
            && let Some(observers) = &self.shared.chosen.observers
        {
            let info = WorkerInfo::new(observers.pool(), &*lane.name, lane.child.id(), WorkerKind::WorkerProcess);
            let info = lane.observed.insert(Arc::new(info));
            observers.worker(WorkerEvent::now(info, WorkerEventKind::Started));
        }
    }

    pub(super) fn look_at_fork_server(&mut self, happened: &[(u64, Source)]) {
        let Some(fork_server) = &mut self.fork_server else { return };
        let now = Instant::now();
        let is_due = fork_server.deadline().is_some_and(|at| at <= now);
        if !is_due && happened.iter().all(|(_, source)| *source != Source::Zygote) {
            return;
        }
        for news in fork_server.look(now, &mut self.echo) {
            match news {
                News::Forked(worker, claims, rings, started) => {
                    if let Err(error) = self.adopt(worker, claims, rings, started) {
                        self.not_started(&error);
                    }
                }
                News::Refused(error) => self.not_started(&error),
                News::Unfit(why) => self.break_down(BrokenCause::Spawn(why)),
                News::PreloadFailed(failure) => self.break_down(BrokenCause::Preload(Box::new(failure))),
                News::Fruitless(why) if !self.restarts.ended_without_a_call() => {
                    self.break_down(BrokenCause::Spawn(why));
                }
                News::Fruitless(_) => {}
            }
        }
    }

    /// After the pool was made smaller: those that are too many leave, idle ones now, others when they have made their call.
    pub(super) fn shrink(&mut self) {
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
    pub(super) fn relieve(&mut self) {
        let due = |lane: &Lane| lane.is_due && lane.state.accepts_calls() && !lane.is_retired();
        let Some(old) = self.lanes.iter().position(due) else { return };
        self.lanes[old].is_relieved = true;
        let taken = self.lanes[old].take_back(usize::MAX);
        self.requeue(taken);
        self.idle(old);
    }

    /// A worker has nothing more to do: it may be time for it to leave.
    pub(super) fn idle(&mut self, lane: usize) {
        if self.lanes[lane].state != State::Idle {
            return;
        }
        if self.lanes[lane].is_surplus {
            self.shrink(); // the pool may have grown again meanwhile
        }
        if self.lanes[lane].is_retired() {
            return self.send_away(lane);
        }
        let limit = self.shared.chosen.recycling.idle_timeout;
        let leaves_at = limit.and_then(|limit| Instant::now().checked_add(limit));
        self.lanes[lane].leaves_at = leaves_at;
        self.due_at(leaves_at);
    }

    /// Has a worker replaced that keeps too much memory.
    pub(super) fn look_at_memory(&mut self, lane: usize) {
        let Some(growth) = self.shared.chosen.recycling.memory_growth_bytes else { return };
        let now = Instant::now();
        let this = &mut self.lanes[lane];
        if !this.served || this.memory.is_some_and(|(_, looked)| now.duration_since(looked) < MEMORY_PERIOD) {
            return;
        }
        let Some(bytes) = os::own_bytes(this.child.id()) else { return };
        // What it needs to be there at all, and for its first call, is no growth.
        let first = this.memory.map_or(bytes, |(first, _)| first);
        this.memory = Some((first, now));
        this.is_due |= bytes > first.saturating_add(growth);
    }

    /// Has an idle worker leave in peace.
    pub(super) fn send_away(&mut self, lane: usize) {
        self.lanes[lane].dismissed = true;
        self.on(lane, Event::Close);
    }

    /// Once the pool is closed: sends workers away that nobody will need.
    pub(super) fn close_idle(&mut self) {
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

    pub(super) fn on(&mut self, lane: usize, event: Event) {
        let this = &mut self.lanes[lane];
        let (state, action) = this.state.after(event);
        if state != this.state {
            this.state = state;
            let limit = match state {
                State::Terminating => Some(self.shared.chosen.kill_grace),
                state => state.limit(),
            };
            this.deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
            self.needs_thread |= !state.accepts_calls();
        }
        match action {
            Action::Nothing => {}
            Action::EndInput => {
                self.lanes[lane].leaves = true;
                self.lanes[lane].ends_input = true;
                self.flush_lane(lane);
            }
            Action::Terminate => self.lanes[lane].signal(Signal::TERM),
            Action::Kill => self.lanes[lane].signal(Signal::KILL),
            Action::Bury => self.bury(lane),
        }
    }

    /// Reads what the worker's standard error holds. Bounded: somebody may hold the pipe and write for ever.
    pub(super) fn read_last_words(&mut self, lane: usize) {
        for _ in 0..LAST_READS {
            if !self.lanes[lane].read_stderr(&mut self.echo) {
                break;
            }
        }
    }

    fn bury(&mut self, lane: usize) {
        // What it said before it died counts.
        while self.read_socket(lane) {}
        while self.read_ring(lane) {}
        self.read_last_words(lane);
        let this = &mut self.lanes[lane];
        this.hear_out(&mut self.echo);
        if this.doom.is_some() {
            this.signal(Signal::KILL); // what its calls have started, and what outlived the first signal
        }
        let exit = os::wait(&this.pidfd).map_or(Exit::Unknown, os::exit_of);
        let how_it_ended = this.end(&exit);
        let limit = self.shared.chosen.limits.exceeded(&exit, this.says_out_of_memory);
        let lost = WorkerLost {
            pid: this.child.id(),
            exit,
            stderr: this.tail.last_lines(),
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
        for InFlight { ticket, parcel, .. } in this.take_all() {
            let Some(parcel) = parcel else { continue };
            match this.channel.claims.get(ticket) {
                Claim::Begun => {
                    this.tell_begun(&parcel, ticket);
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
        let observed = this.observed.take();
        let tally = &self.shared.tally;
        tally.replaceable.fetch_add(u64::from(how_it_ended != WorkerEnd::Left), Ordering::Relaxed);
        tally.lost_workers.fetch_add(u64::from(matches!(how_it_ended, WorkerEnd::Died { .. })), Ordering::Relaxed);
        for (parcel, failure) in failed {
            self.settle(parcel, |parcel| parcel.fail(failure));
        }
        if let Some((observers, worker)) = self.shared.chosen.observers.as_ref().zip(observed) {
            observers.worker(WorkerEvent::now(&worker, WorkerEventKind::Ended(how_it_ended)));
        }
        self.requeue(unbegun);
        if fruitless && !self.restarts.ended_without_a_call() {
            self.break_down(BrokenCause::Crashing(lost));
        }
    }

    pub(super) fn remove_dead(&mut self) {
        let before = self.lanes.len();
        self.lanes.retain(|lane| lane.state != State::Dead);
        if self.lanes.len() != before {
            self.tell_pids();
        }
    }

    fn tell_pids(&self) {
        let pids = self.lanes.iter().map(|lane| lane.child.id()).collect();
        let channels = self.lanes.iter().map(|lane| Arc::clone(&lane.channel)).collect();
        self.shared.tell(|inbox| {
            inbox.pids = pids;
            inbox.channels = channels;
        });
    }
}

/// Says first what a worker is to know first, and gives it the memory that it shares with this process.
fn greet(channel: &UnixStream, memory: &OwnedFd) -> io::Result<()> {
    let mut hello = Vec::new();
    Hello::of_this_process().put(&mut hello);
    match os::send_with_descriptor(channel, &hello, memory.as_fd()) {
        // One that is gone before it was greeted is buried like any other, with what it said of the reason.
        Err(error) if !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => Err(error),
        _ => Ok(()),
    }
}
