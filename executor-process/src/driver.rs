//! Feeds the supervisor with real events and does what it says. Who does that, and when, is decided in `engine`.
//!
//! It runs no user code: arguments were encoded by who submitted, results are decoded by who wants them, and callbacks
//! go to a thread of their own, so none of these can hold up another task.
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
    BrokenCause, Exit, Failure, Priority, ResourceLimit, RunningTask, WorkerEnd, WorkerEvent, WorkerEventKind,
    WorkerInfo, WorkerKind, WorkerLost,
    attachments::{Attachments, Encoded},
    codec,
    cpu::cpu_count,
    portable,
    task::{Ended, Parcel},
    timer,
};
use rustix::process::Signal;
use std::{
    collections::{BTreeMap, VecDeque},
    io, mem,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{
        Arc,
        atomic::{Ordering, fence},
    },
    time::{Duration, Instant},
};

use crate::{
    announcer::Announcer,
    claims::{Claim, Claims, RINGS_AT, SLOTS},
    echo::Echo,
    forkserver::{ForkServer, News, StartMethod},
    inbox::{KillOrder, Shared, Stop},
    lane::{DEPTH, Doom, HELD_UP, InFlight, Lane, Outbox},
    os,
    records::Levels,
    ring::ParentRings,
    supervisor::{Action, Event, Restarts, State},
    watch::{Source, Watch},
    wire::{BareFrame, Cutter, Hello, Kind, WireError},
};

/// Reads from a dead worker's standard error at most.
const LAST_READS: usize = 64;

/// How soon somebody who observes is told that a call has begun.
const STARTS_PERIOD: Duration = Duration::from_millis(20);

/// How often a worker's memory is looked at.
const MEMORY_PERIOD: Duration = Duration::from_secs(1);

/// Of calls that last so long, as many as a worker is given ahead last longer than a nap, which the system makes
/// longer by some tens of microseconds.
const NAPPING_PACE_NANOS: u32 = 8_000;

const LONGEST_NAP: Duration = Duration::from_micros(500);

/// What is known of the workers and their calls. Behind a lock: see `engine`.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    watch: Arc<Watch>,
    lanes: Vec<Lane>,
    /// How many there are to use.
    processors: usize,
    next_worker: u64,
    restarts: Restarts,
    /// Calls that wait for another attempt, by when and which.
    pausing: BTreeMap<(Instant, u64), Parcel>,
    /// Calls of different priorities wait.
    has_levels: bool,
    /// Where calls are that were taken from the queue, for a moment.
    batch: VecDeque<Parcel>,
    /// When to look, in a closed pool, whether what pauses was cancelled.
    glances_at: Option<Instant>,
    /// The pool was seen to be closed.
    is_closing: bool,
    /// Something is to be done that only the driver thread does.
    needs_thread: bool,
    /// A call was not given to the worker with the fewest, but to one that is quicker. The driver thread is to see whether that
    /// holds.
    pub(crate) holds_back: bool,
    /// When the driver thread looks again, if nothing happens before.
    alarm: Option<Instant>,
    /// Workers' standard error is left alone, since too much of it is still to be printed.
    is_muted: bool,
    /// Calls may begin of which those who observe are to be told before they end.
    looks_for_starts: bool,
    announcer: Announcer,
    echo: Echo,
    /// If that is how workers are started.
    fork_server: Option<ForkServer>,
}

impl Driver {
    pub(crate) fn new(shared: &Arc<Shared>, watch: &Arc<Watch>) -> Driver {
        Driver {
            announcer: Announcer::new(shared),
            echo: Echo::new(shared),
            shared: Arc::clone(shared),
            watch: Arc::clone(watch),
            lanes: Vec::new(),
            processors: cpu_count().get(),
            next_worker: 0,
            restarts: Restarts::default(),
            pausing: BTreeMap::new(),
            has_levels: false,
            batch: VecDeque::new(),
            glances_at: None,
            is_closing: false,
            needs_thread: false,
            holds_back: false,
            alarm: None,
            is_muted: false,
            looks_for_starts: false,
            fork_server: None,
        }
    }

    /// The driver thread, once: starts what is to be there before the first worker. As workers, it dies with this thread.
    pub(crate) fn begin(&mut self) {
        if self.shared.chosen.start_method == StartMethod::ForkServer {
            self.fork_server = Some(ForkServer::new(&self.shared, &self.watch));
        }
    }

    /// The driver thread: deals with what has happened, and then with everything there is to do. `false`: there will be
    /// nothing more to do.
    pub(crate) fn turn(&mut self, happened: &[(u64, Source)]) -> bool {
        self.take_replies(); // what has been answered is neither late nor lost
        self.deal_with(happened);
        self.follow_orders();
        self.free_held_up();
        self.look_for_starts();
        self.assign(Starts::Workers);
        self.rebalance(Starts::Workers);
        self.holds_back = false;
        self.fail_stranded();
        self.close_idle();
        self.flush();
        self.stand_by();
        self.count_pausing();
        !self.is_done()
    }

    /// Whoever drives: takes replies, and gives workers more to do. Returns whether anything has moved.
    pub(crate) fn pump(&mut self, calls_came: bool) -> bool {
        let mut moved = self.take_replies();
        if moved || calls_came {
            moved |= self.hand_out();
        }
        moved | self.flush()
    }

    /// Whoever drives: gives queued calls to workers.
    pub(crate) fn hand_out(&mut self) -> bool {
        self.assign(Starts::Nothing);
        self.rebalance(Starts::Nothing);
        // What follows from an end is the driver thread's affair.
        self.needs_thread |= self.is_closing || self.lanes.iter().any(Lane::needs_successor);
        self.flush()
    }

    /// Whether all workers that may be are there and have as many calls as they take, so that there is nothing to be done for
    /// one more before a reply comes.
    pub(crate) fn is_saturated(&self) -> bool {
        let takes_none = |lane: &Lane| lane.state == State::Busy && !lane.takes_calls(lane.depth());
        self.lanes.len() >= self.shared.chosen.max_workers().get() && self.lanes.iter().all(takes_none)
    }

    /// Whether something may come of workers by itself.
    pub(crate) fn is_engaged(&self) -> bool {
        self.lanes.iter().any(Lane::is_engaged)
    }

    /// Somebody looks by himself from now on.
    pub(crate) fn stay_awake(&self) {
        self.lanes.iter().for_each(|lane| lane.rings.stay_awake());
    }

    /// Nobody will look: workers are to ring. Returns whether there is something to look at now.
    pub(crate) fn fall_asleep(&mut self) -> bool {
        // Also those that have nothing to do: a finalizer may log, or a thread that a call has left behind.
        for lane in &self.lanes {
            lane.rings.fall_asleep(lane.outbox.wants_room());
        }
        // ORDERING: SeqCst, against the fence in `Words::ring`.
        fence(Ordering::SeqCst);
        // Else whoever has told enough of what they said wakes the driver thread.
        let hears = !self.echo.teller.is_full();
        self.lanes.iter_mut().any(|lane| {
            let wants_room = lane.outbox.wants_room() && !lane.hung_up;
            !lane.astray && (hears && lane.rings.has_replies() || wants_room && lane.rings.has_room())
        })
    }

    /// Whether all workers that have something to do would do it on this processor.
    pub(crate) fn is_in_the_way(&self, cpu: u32) -> bool {
        self.lanes.iter().filter(|lane| lane.is_engaged()).all(|lane| lane.rings.worker_cpu() == cpu)
    }

    /// How long to nap between two looks, if workers need all processors: then who looks all the time takes one from them.
    pub(crate) fn nap(&self) -> Option<Duration> {
        let mut busy = 0;
        let mut pace = u32::MAX;
        for lane in self.lanes.iter().filter(|lane| lane.is_engaged()) {
            busy += 1;
            pace = pace.min(lane.rings.pace_nanos());
        }
        let naps = busy >= self.processors && pace >= NAPPING_PACE_NANOS;
        naps.then(|| Duration::from_nanos(u64::from(pace / 2)).min(LONGEST_NAP))
    }

    /// Whether the driver thread is to look now.
    pub(crate) fn take_need(&mut self) -> bool {
        mem::take(&mut self.needs_thread)
    }

    /// The driver thread is about to sleep: until when at most.
    pub(crate) fn set_alarm(&mut self) -> Option<Instant> {
        let is_full = self.echo.is_full();
        if is_full != self.is_muted {
            self.is_muted = is_full;
            // One that can be watched no more is read as the worker ends.
            self.lanes.iter().for_each(|lane| drop(lane.watch_output(!is_full)));
            self.fork_server.iter_mut().for_each(|server| server.watch_output(!is_full));
        }
        let pause = self.pausing.first_key_value().map(|(&(at, _), _)| at);
        let forks = self.fork_server.as_ref().and_then(ForkServer::deadline);
        let starts = self.looks_for_starts.then(|| Instant::now() + STARTS_PERIOD);
        let held_up = self.lanes.iter().any(Lane::has_queue).then(|| Instant::now() + HELD_UP);
        let own = pause.into_iter().chain(self.glances_at).chain(forks).chain(starts).chain(held_up);
        self.alarm = self.lanes.iter().filter_map(Lane::next_deadline).chain(own).min();
        self.alarm
    }

    /// Tells those who observe of calls that have begun. The replies would tell of it too, but may be long in coming.
    fn look_for_starts(&mut self) {
        if self.shared.chosen.observers.is_some() {
            self.looks_for_starts = self.lanes.iter().fold(false, |any, lane| any | lane.look_for_starts());
        }
    }

    /// Something is due at this time.
    fn due_at(&mut self, at: Option<Instant>) {
        self.needs_thread |= at.is_some_and(|at| self.alarm.is_none_or(|alarm| at < alarm));
    }

    /// What waits for others as it is dropped.
    pub(crate) fn take_apart(&mut self) -> (Announcer, Echo, Option<ForkServer>) {
        let announcer = mem::replace(&mut self.announcer, Announcer::new(&self.shared));
        (announcer, mem::replace(&mut self.echo, Echo::new(&self.shared)), self.fork_server.take())
    }

    fn follow_orders(&mut self) {
        let (kills, recall, stop, dump) = {
            let mut inbox = self.shared.begin_to_look();
            let recall = (inbox.recalls_asked > inbox.recalls_done).then_some(inbox.recalls_asked);
            let dump = (inbox.dumps_asked > inbox.dumps_done).then_some(inbox.dumps_asked);
            (mem::take(&mut inbox.kills), recall, inbox.stop.take(), dump)
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
        if let Some(asked) = dump {
            let running = self.running();
            self.shared.tell(|inbox| {
                inbox.dumped = running;
                inbox.dumps_done = asked;
            });
        }
    }

    /// The calls that workers make now.
    fn running(&self) -> Vec<RunningTask> {
        let lanes = self.lanes.iter();
        lanes.filter_map(Lane::running).collect()
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

    /// Calls that were put behind one that takes long are given to whoever has time. All that have not begun are given out anew,
    /// in their order, so that none begins before one that was submitted earlier and has waited for longer.
    fn free_held_up(&mut self) {
        if self.lanes.iter_mut().fold(false, |any, lane| any | lane.holds_up_others()) {
            self.take_all_back();
        }
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
                self.due_at(Some(at));
                self.needs_thread |= self.is_closing; // what pauses then is looked at now and then
                self.pausing.insert((at, parcel.id().number()), parcel);
                self.shared.tally.retried.fetch_add(1, Ordering::Relaxed);
                self.count_pausing();
            }
        }
    }

    fn count_pausing(&self) {
        self.shared.tally.pausing.store(self.pausing.len(), Ordering::Relaxed);
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
    fn assign(&mut self, starts: Starts) {
        self.shrink();
        let has_levels = {
            let queue = &self.shared.inbox().queue;
            queue.has(Priority::High) || queue.has(Priority::Low)
        };
        if has_levels && !self.has_levels {
            self.take_all_back(); // what was put there before may be overtaken now
        }
        self.has_levels = has_levels;
        self.start_wanted(starts);
        // What is written in one call must not be taken for another's.
        let one_by_one = has_levels || self.shared.chosen.output.is_attributed();
        let depth = |lane: &Lane| if one_by_one { 1 } else { lane.depth() };
        // Not one by one, as each reply makes room for one: whoever is woken for it is to have more to do.
        if !self.lanes.iter().any(|lane| lane.takes_calls(depth(lane) / 2 + 1)) {
            return;
        }
        let room: usize = self.lanes.iter().map(|lane| depth(lane).saturating_sub(lane.live)).sum();
        let mut batch = mem::take(&mut self.batch);
        let queued = {
            let queue = &mut self.shared.inbox().queue;
            let queued = queue.len();
            if !has_levels {
                batch.extend((0..room.min(queued)).map_while(|_| queue.pop()));
            }
            queued
        };
        let mut places = self.places();
        // More than there is room for, since some may have been cancelled. With levels one at a time, in the order of their turns.
        for _ in 0..queued {
            let (mut least, mut quickest) = (None, None);
            let takes_one = |lane: &Lane| lane.takes_calls(depth(lane)) && (places > 0 || lane.live > 0);
            for (index, lane) in self.lanes.iter().enumerate().filter(|(_, lane)| takes_one(lane)) {
                if least.is_none_or(|(live, _)| lane.live < live) {
                    least = Some((lane.live, index));
                }
                let delay = lane.delay();
                if quickest.is_none_or(|(least, _)| delay < least) {
                    quickest = Some((delay, index));
                }
            }
            let Some(((least_live, least), (_, quickest))) = least.zip(quickest) else { break };
            // Now and then, calls are spread evenly: one of them may take longer than those before.
            let lane = if starts == Starts::Workers { least } else { quickest };
            self.holds_back |= self.lanes[lane].live > least_live;
            let Some(parcel) = batch.pop_front().or_else(|| self.shared.inbox().queue.pop()) else { break };
            let was_free = self.lanes[lane].live == 0;
            self.dispatch(lane, parcel);
            places -= usize::from(was_free && self.lanes[lane].live > 0);
        }
        if !batch.is_empty() {
            let mut inbox = self.shared.inbox();
            batch.drain(..).rev().for_each(|parcel| inbox.queue.push_front(parcel.priority(), parcel));
        }
        self.batch = batch;
    }

    /// Starts as many workers as there are calls, and one for each that will leave, so that nobody waits for that one.
    fn start_wanted(&mut self, starts: Starts) {
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
    fn stand_by(&mut self) {
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

    /// How many more workers may be given calls. Successors of those that leave make a pool's processes more than its workers.
    fn places(&self) -> usize {
        let max_workers = self.shared.chosen.max_workers().get();
        if self.lanes.len() <= max_workers {
            return max_workers; // enough for all
        }
        max_workers.saturating_sub(self.lanes.iter().filter(|lane| lane.live > 0).count())
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
        let due = parcel.time_limit().and_then(|limit| Instant::now().checked_add(limit));
        if self.lanes[lane].send_call(parcel) {
            self.looks_for_starts = self.shared.chosen.observers.is_some();
            let starts = self.looks_for_starts.then(|| Instant::now() + STARTS_PERIOD);
            self.due_at(due.into_iter().chain(starts).min());
            self.on(lane, Event::Dispatch);
        } // else it is cancelled
    }

    /// Calls in all channels.
    fn calls(&self) -> usize {
        self.lanes.iter().map(|lane| lane.live).sum()
    }

    fn is_broken(&self) -> bool {
        self.shared.inbox().broken.is_some()
    }

    /// Lets idle workers take over calls that wait behind others.
    fn rebalance(&mut self, starts: Starts) {
        while let Some(idle) = (0..self.lanes.len()).find(|lane| self.lanes[*lane].is_idle()) {
            if self.places() == 0 {
                return;
            }
            let delay = self.lanes[idle].delay();
            let left = self.lanes[idle].max_tasks - self.lanes[idle].given;
            let room = usize::try_from(left).unwrap_or(usize::MAX);
            let longest = (0..self.lanes.len()).max_by_key(|lane| self.lanes[*lane].live);
            let Some(longest) = longest.filter(|lane| self.lanes[*lane].live > 1) else { return };
            if starts == Starts::Nothing && self.lanes[longest].delay() < delay {
                self.holds_back = true;
                return;
            }
            // Few are dealt out in turns, for the oldest are to begin first: any of them may take long. Of many, which
            // are short, half are moved.
            let are_few = self.lanes[longest].live <= DEPTH;
            let count = if are_few { usize::MAX } else { room.min(self.lanes[longest].live / 2) };
            let taken = self.lanes[longest].take_back(count);
            if taken.is_empty() {
                return; // they have begun meanwhile
            }
            let mut turns = [idle, longest].into_iter().cycle();
            let mut left = Vec::new();
            for parcel in taken.into_iter().filter(Parcel::recall) {
                let turn = if are_few { turns.next().unwrap_or(idle) } else { idle };
                let lane = [turn, idle, longest].into_iter().find(|lane| self.lanes[*lane].takes_calls(SLOTS));
                match lane {
                    Some(lane) => self.dispatch(lane, parcel),
                    None => left.push(parcel),
                }
            }
            let mut inbox = self.shared.inbox();
            left.into_iter().rev().for_each(|parcel| inbox.queue.push_front(parcel.priority(), parcel));
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

    /// Sends what there is room for. Returns whether anything was sent.
    fn flush(&mut self) -> bool {
        (0..self.lanes.len()).fold(false, |any, lane| any | self.flush_lane(lane))
    }

    fn flush_lane(&mut self, lane: usize) -> bool {
        let this = &mut self.lanes[lane];
        if this.astray || (this.outbox.is_empty() && !this.ends_input) {
            return false;
        }
        match this.flush() {
            Ok(sent) => {
                let retry_at = this.outbox.retry_at;
                self.due_at(retry_at);
                sent
            }
            Err(astray) => {
                this.astray = true;
                this.outbox = Outbox::default();
                self.unfit(lane, format!("it wrote {astray}"));
                false
            }
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

    /// Deals with what the driver thread was woken for, and with what is due.
    fn deal_with(&mut self, happened: &[(u64, Source)]) {
        self.look_at_fork_server(happened);
        for (worker, source) in happened.iter().filter(|(_, source)| *source != Source::Zygote) {
            // One that has been buried has nothing more to tell.
            let Some(lane) = self.lanes.iter().position(|lane| lane.channel.worker == *worker) else { continue };
            match source {
                Source::Stdout => _ = self.lanes[lane].read_stdout(&mut self.echo.teller),
                Source::Stderr => _ = self.lanes[lane].read_stderr(&mut self.echo),
                Source::Socket => _ = self.read_socket(lane),
                Source::End => self.on(lane, Event::Exited),
                Source::Order | Source::Zygote => {}
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

    /// Takes what has come through the socket. `false`: nothing was there.
    fn read_socket(&mut self, lane: usize) -> bool {
        if self.lanes[lane].hung_up {
            return false;
        }
        let Lane { greetings, arrivals, stream, .. } = &mut self.lanes[lane];
        match greetings.fill(stream, arrivals) {
            Ok(0) => self.lanes[lane].hang_up(),
            Ok(_) => {
                self.take_frames(lane, |lane| &mut lane.greetings);
                return true;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
            Err(_) => self.lanes[lane].hang_up(),
        }
        false
    }

    /// Takes what all workers have answered. `false`: nothing was there, or too much of what they said is still to be told.
    fn take_replies(&mut self) -> bool {
        !self.echo.teller.is_full() && (0..self.lanes.len()).fold(false, |any, lane| any | self.read_ring(lane))
    }

    /// Takes what the worker has answered. `false`: nothing was there.
    fn read_ring(&mut self, lane: usize) -> bool {
        let Lane { reader, rings, astray, .. } = &mut self.lanes[lane];
        if *astray || !rings.has_replies() {
            return false;
        }
        match reader.fill_with(|bytes, most| rings.receive(bytes, most)) {
            Ok(_) => {
                self.take_frames(lane, |lane| &mut lane.reader);
                true
            }
            Err(why) => {
                *astray = true;
                self.unfit(lane, format!("it wrote {why}"));
                false
            }
        }
    }

    fn take_frames(&mut self, lane: usize, reader: fn(&mut Lane) -> &mut Cutter) {
        loop {
            match reader(&mut self.lanes[lane]).next() {
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
    fn take_frame(&mut self, lane: usize, frame: BareFrame) -> Result<(), String> {
        match frame.kind {
            Kind::Hello if !self.lanes[lane].greeted => {
                let hello = Hello::get(&frame.body).map_err(|error| error.to_string())?;
                Hello::of_this_process().accepts(hello)?;
                self.greeted(lane);
                Ok(())
            }
            Kind::Bell => Ok(()), // whoever heard it looks at the rings anyway
            Kind::Descriptor if self.lanes[lane].arrivals.number(frame.ticket) => Ok(()),
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
                    self.lanes[lane].says_out_of_memory = false;
                }
                let attachments = self.attachments_of(lane, &frame)?;
                let Some(call) = self.lanes[lane].pop_answered(frame.ticket) else {
                    return Err(format!("it answered call {}, which is not its next", frame.ticket));
                };
                match (frame.kind, call.parcel) {
                    (Kind::Reply, Some(parcel)) => {
                        self.lanes[lane].served = true;
                        self.restarts.served();
                        self.lanes[lane].tell_made(&parcel, frame.ticket);
                        let reply = Encoded { bytes: frame.body, attachments };
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
                    // While too much is still to be printed, it stays where it is, and so do the words before it.
                    if !self.echo.is_full() {
                        self.read_last_words(lane);
                        self.lanes[lane].forget_words();
                    }
                    self.on(lane, Event::Drained);
                    self.idle(lane);
                }
                Ok(())
            }
            kind => Err(format!("it sent a frame {kind:?} out of turn")),
        }
    }

    /// The descriptors that belong to a frame. They were sent before it, through the socket.
    fn attachments_of(&mut self, lane: usize, frame: &BareFrame) -> Result<Attachments, String> {
        loop {
            if let Some(attachments) = self.lanes[lane].arrivals.take(frame.attachments) {
                return Ok(attachments);
            }
            if !self.read_socket(lane) {
                return Err(WireError::Attachments(frame.kind).to_string());
            }
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
        // ORDERING: Relaxed; it is told only.
        self.lanes[lane].channel.is_ready.store(true, Ordering::Relaxed);
        self.on(lane, Event::Ready);
        self.idle(lane);
        let age = self.shared.chosen.recycling.max_age;
        let due_at = age.and_then(|age| Instant::now().checked_add(age));
        self.lanes[lane].due_at = due_at;
        self.due_at(due_at);
        self.relieve();
    }

    /// A worker has nothing more to do: it may be time for it to leave.
    fn idle(&mut self, lane: usize) {
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
    fn look_at_memory(&mut self, lane: usize) {
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
    fn read_last_words(&mut self, lane: usize) {
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

    fn remove_dead(&mut self) {
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

    fn look_at_fork_server(&mut self, happened: &[(u64, Source)]) {
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

/// Whether workers are started that are missing. Only the driver thread does: they die with the thread that started them. It
/// comes by less often, so it also spreads calls evenly over the workers, whatever is known of their pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Starts {
    Workers,
    Nothing,
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
