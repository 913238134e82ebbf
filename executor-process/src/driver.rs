//! Feeds the supervisor with real events and does what it says. Who does that, and when, is decided in `engine`.
//!
//! It runs no user code: arguments were encoded by who submitted, results are decoded by who wants them, and callbacks
//! go to a thread of their own, so none of these can hold up another task.

mod calls;
mod replies;
mod workers;

use executor_core::{
    BrokenCause, RunningTask,
    cpu::cpu_count,
    task::{Ended, Parcel},
    timer,
};
use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    sync::{
        Arc,
        atomic::{Ordering, fence},
    },
    time::{Duration, Instant},
};

use crate::{
    announcer::Announcer,
    echo::Echo,
    forkserver::{ForkServer, StartMethod},
    inbox::{KillOrder, Shared, Stop},
    lane::{Doom, HELD_UP, Lane},
    supervisor::{Event, Restarts, State},
    watch::{Source, Watch},
};

/// How soon somebody who observes is told that a call has begun.
const STARTS_PERIOD: Duration = Duration::from_millis(20);

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
            self.give_up(parcel);
        }
        for lane in 0..self.lanes.len() {
            self.lanes[lane].doom = Some(Doom::Shutdown);
            self.on(lane, Event::Kill);
            if stop == Stop::Kill {
                self.on(lane, Event::Deadline); // no grace
            }
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
            Ended::Again(parcel, _) if self.shared.inbox().gives_up => self.give_up(parcel),
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

    /// Cancels what would have been tried again.
    fn give_up(&mut self, parcel: Parcel) {
        self.shared.inbox().given_up += usize::from(!parcel.is_over());
        self.announcer.announce(parcel.call_off());
    }

    fn count_pausing(&self) {
        self.shared.tally.pausing.store(self.pausing.len(), Ordering::Relaxed);
    }

    fn is_broken(&self) -> bool {
        self.shared.inbox().broken.is_some()
    }

    /// In a broken pool: fails what came back to the queue, when no worker is left that could run it.
    fn fail_stranded(&mut self) {
        let hopeful = |lane: &Lane| lane.state == State::Starting || lane.state.accepts_calls();
        if self.is_broken() && !self.lanes.iter().any(hopeful) {
            self.fail_queue();
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
