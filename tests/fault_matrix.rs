//! Each way to fail, at each moment of a call and of its worker, beside neighbours of each kind: what becomes of the task,
//! and that nothing becomes of anybody else.
//!
//! What is expected is [`expected`]. `cargo xtask faults` prints the whole table.

use crate::{
    before_main::name_prefix,
    support::{DEADLINE, Gate, Key, Log, append, eventually, pass, runs, signal_child},
};
use concurrent_futures::{
    Executor, Future, Priority, ProcessPoolExecutor, RetryPolicy, Shutdown, TaskError, TaskOptions,
};
use rustix::process::{Resource, Rlimit, Signal, getpid, getrlimit, kill_process, setrlimit};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use std::{
    collections::BTreeMap,
    env,
    fs::{self, OpenOptions},
    hint::black_box,
    io::{self, Write},
    panic, process,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Fault {
    Error,
    Panic,
    Exit,
    Abort,
    Segv,
    Kill,
    OutOfMemory,
    StackOverflow,
    Hang,
    EndlessOutput,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Stage {
    BeforeHello,
    Decoding,
    Running,
    Encoding,
    /// A large call to the same worker is on its way, and cannot arrive as long as this one runs.
    CallFrame,
    /// The call's own large result is on its way, and cannot arrive.
    ReplyFrame,
    Shutdown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Neighbours {
    Idle,
    Busy,
    /// A queue of thousands.
    Queue,
}

impl Fault {
    /// Those that go on when the call is over come last.
    pub(crate) const ALL: [Fault; 10] = [
        Fault::Error,
        Fault::Panic,
        Fault::Exit,
        Fault::Abort,
        Fault::Segv,
        Fault::Kill,
        Fault::OutOfMemory,
        Fault::StackOverflow,
        Fault::Hang,
        Fault::EndlessOutput,
    ];

    /// Somebody has to end it.
    fn is_endless(self) -> bool {
        matches!(self, Fault::Hang | Fault::EndlessOutput)
    }

    /// What is told of a worker that it has ended.
    fn exit(self) -> &'static str {
        match self {
            Fault::Exit => "lost: exited with code 3",
            Fault::Panic | Fault::Abort | Fault::OutOfMemory => "lost: was ended by SIGABRT",
            Fault::Segv | Fault::StackOverflow => "lost: was ended by SIGSEGV",
            Fault::Kill | Fault::Hang | Fault::EndlessOutput => "lost: was ended by SIGKILL",
            Fault::Error => unreachable!("it ends no process"),
        }
    }
}

impl Stage {
    const ALL: [Stage; 7] = [
        Stage::BeforeHello,
        Stage::Decoding,
        Stage::Running,
        Stage::Encoding,
        Stage::CallFrame,
        Stage::ReplyFrame,
        Stage::Shutdown,
    ];
}

impl Neighbours {
    const ALL: [Neighbours; 3] = [Neighbours::Idle, Neighbours::Busy, Neighbours::Queue];
}

/// What becomes of the task; or why there is no such case.
fn expected(fault: Fault, stage: Stage, neighbours: Neighbours) -> Result<&'static str, &'static str> {
    match (stage, fault) {
        (Stage::BeforeHello, Fault::Error) => Err("nobody is there yet to return it"),
        (Stage::BeforeHello, _) if neighbours == Neighbours::Idle => {
            Ok("value, of another worker; broken if none starts")
        }
        (Stage::BeforeHello, _) => Ok("value, of another worker"),
        (Stage::CallFrame, _) if neighbours == Neighbours::Idle => {
            Err("a call waits behind another if no worker is idle")
        }
        (Stage::ReplyFrame, Fault::Error) => Err("what is being sent was returned before"),
        // In another thread of the worker.
        (Stage::ReplyFrame, Fault::Panic | Fault::EndlessOutput) => Ok("value"),
        (Stage::Decoding | Stage::Encoding, Fault::Error) => Ok("codec error"),
        (_, Fault::Error) => Ok("its Err"),
        (_, Fault::Panic) => Ok("panic"),
        (_, Fault::Hang | Fault::EndlessOutput) => Ok("killed"),
        (_, fatal) => Ok(fatal.exit()),
    }
}

/// The same of a call whose fault does not depend on its neighbours.
pub(crate) fn expected_of_a_call(fault: Fault, stage: Stage) -> &'static str {
    expected(fault, stage, Neighbours::Busy).expect("there is such a case")
}

fn told<T>(outcome: &Result<Result<T, String>, TaskError>) -> String {
    match outcome {
        Ok(Ok(_)) => "value".to_owned(),
        Ok(Err(_)) => "its Err".to_owned(),
        Err(error) if error.is_panic() => "panic".to_owned(),
        Err(error) if error.is_codec() => "codec error".to_owned(),
        Err(error) if error.is_killed() => "killed".to_owned(),
        Err(error) => match error.worker_lost() {
            Some(lost) => format!("lost: {}", lost.exit),
            None => error.to_string(),
        },
    }
}

/// Fails. What comes back is the text of an error.
pub(crate) fn spring(fault: Fault, stage: Stage) -> String {
    match fault {
        Fault::Error => return "as data".to_owned(),
        Fault::Panic => panic!("in the worker"),
        Fault::Exit => process::exit(3),
        Fault::Abort => process::abort(),
        Fault::Segv => signal_self(Signal::SEGV),
        Fault::Kill => signal_self(Signal::KILL),
        Fault::OutOfMemory => {
            limit(Resource::As, address_space_bytes() + (32 << 20));
            let mut kept: Vec<Vec<u8>> = Vec::new();
            loop {
                kept.push(black_box(Vec::with_capacity(8 << 20)));
            }
        }
        Fault::StackOverflow => {
            limit(Resource::Stack, 1 << 20);
            black_box(deeper(&[0; 4096]));
        }
        // A thread that hangs would not keep another one from sending.
        Fault::Hang if stage == Stage::ReplyFrame => signal_self(Signal::STOP),
        Fault::Hang => {}
        Fault::EndlessOutput => loop {
            let _ = io::stderr().write_all(&[b'x'; 1000]);
        },
    }
    loop {
        thread::sleep(DEADLINE);
    }
}

fn signal_self(signal: Signal) {
    kill_process(getpid(), signal).unwrap();
}

fn limit(resource: Resource, most: u64) {
    setrlimit(resource, Rlimit { current: Some(most), ..getrlimit(resource) }).unwrap();
}

fn address_space_bytes() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').next().unwrap().parse::<u64>().unwrap() * rustix::param::page_size() as u64
}

#[expect(unconditional_recursion, reason = "that is the fault")]
fn deeper(above: &[u8; 4096]) -> u8 {
    let mut own = *black_box(above);
    own[0] = own[0].wrapping_add(1);
    let below = deeper(black_box(&own));
    below ^ black_box(&own)[0]
}

/// The argument and the result of a call that fails.
struct Trap {
    plan: Plan,
    bulk: String,
}

#[derive(Clone, Serialize, Deserialize)]
struct Plan {
    fault: Fault,
    stage: Stage,
    /// Where it does not fail.
    parent: u32,
    /// Where the call waits before it fails.
    gate: Option<Key>,
    /// Gets a line just before the fault.
    log: String,
    /// A second attempt succeeds.
    once: bool,
}

/// Of a result that fits into no channel.
const LARGE_BYTES: usize = 4 << 20;

impl Plan {
    fn is_due(&self, stage: Stage) -> bool {
        let is_first = !self.once || !fs::read_to_string(&self.log).is_ok_and(|text| text.contains("here"));
        self.stage == stage && process::id() != self.parent && is_first
    }

    fn spring(&self) -> String {
        append(&self.log, &format!("here {}", process::id()));
        spring(self.fault, self.stage)
    }
}

impl Serialize for Trap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.plan.is_due(Stage::Encoding) {
            return Err(ser::Error::custom(self.plan.spring()));
        }
        if self.plan.is_due(Stage::ReplyFrame) {
            append(&self.plan.log, "sending");
        }
        (&self.plan, &self.bulk).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Trap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (plan, bulk) = <(Plan, String)>::deserialize(deserializer)?;
        if plan.is_due(Stage::Decoding) {
            return Err(de::Error::custom(plan.spring()));
        }
        Ok(Trap { plan, bulk })
    }
}

fn victim(trap: Trap) -> Result<Trap, String> {
    let Trap { plan, mut bulk } = trap;
    if let Some(gate) = plan.gate.clone() {
        pass(gate);
    }
    if [Stage::Running, Stage::CallFrame, Stage::Shutdown].into_iter().any(|stage| plan.is_due(stage)) {
        return Err(plan.spring());
    }
    if plan.is_due(Stage::ReplyFrame) {
        bulk = "x".repeat(LARGE_BYTES);
        let plan = plan.clone();
        thread::spawn(move || {
            while !fs::read_to_string(&plan.log).is_ok_and(|text| text.contains("sending")) {
                thread::sleep(Duration::from_millis(1));
            }
            thread::sleep(Duration::from_millis(5)); // so that some of it is on its way, which decides nothing
            plan.spring();
        });
    }
    Ok(Trap { plan, bulk })
}

fn square(x: u64) -> u64 {
    x * x
}

fn length(text: String) -> usize {
    text.len()
}

type Outcome = Result<Trap, String>;

/// A call that fails, and what is needed to see to its end.
pub(crate) struct Victim {
    fault: Fault,
    stage: Stage,
    log: Log,
    future: Future<Outcome>,
}

impl Victim {
    pub(crate) fn submit(on: &impl Executor, fault: Fault, stage: Stage, gate: Option<&Gate>, once: bool) -> Victim {
        let log = Log::new();
        let gate = gate.map(Gate::key);
        let plan = Plan { fault, stage, parent: process::id(), gate, log: log.path(), once };
        let future = on.submit(victim, Trap { plan, bulk: String::new() });
        Victim { fault, stage, log, future }
    }

    /// The process in which it fails, once it does.
    fn comes_to_it(&self) -> Option<u32> {
        self.log.lines().iter().find_map(|line| line.strip_prefix("here ")?.parse().ok())
    }

    fn await_fault(&self) -> u32 {
        eventually("the fault", || self.comes_to_it().is_some());
        self.comes_to_it().unwrap()
    }

    /// Its outcome, in words; who goes on for ever is killed.
    pub(crate) fn outcome(self) -> String {
        if self.fault.is_endless() && expected(self.fault, self.stage, Neighbours::Busy) == Ok("killed") {
            self.await_fault();
            assert!(self.future.kill(), "{:?} × {:?}: it is over", self.fault, self.stage);
        }
        told(&outcome(self.future))
    }
}

fn outcome<T: Send + 'static>(future: Future<T>) -> Result<T, TaskError> {
    assert!(future.wait_timeout(DEADLINE), "it has no outcome");
    future.result()
}

/// Futures are over once each.
#[derive(Clone, Default)]
struct Tally(Arc<(AtomicUsize, AtomicUsize)>);

impl Tally {
    fn watch<T: Send + 'static>(&self, future: Future<T>) -> Future<T> {
        self.0.0.fetch_add(1, Ordering::Relaxed);
        let tally = self.clone();
        future.add_done_callback(move |_| {
            tally.0.1.fetch_add(1, Ordering::Relaxed);
        });
        future
    }

    fn check(&self) {
        let (futures, endings) = (self.0.0.load(Ordering::Relaxed), self.0.1.load(Ordering::Relaxed));
        assert_eq!(futures, endings, "futures, and their endings");
    }
}

fn urgently(pool: &ProcessPoolExecutor) -> impl Executor {
    pool.with(TaskOptions::new().priority(Priority::High))
}

/// So many calls run at once, whatever waits.
fn has_strength(pool: &ProcessPoolExecutor, workers: usize) {
    let gate = Gate::new();
    let calls: Vec<_> = (0..workers).map(|_| urgently(pool).submit(pass, gate.key())).collect();
    gate.await_arrivals(workers);
    gate.open();
    calls.into_iter().for_each(|call| outcome(call).unwrap());
}

fn is_over(pool: &ProcessPoolExecutor) {
    assert!(pool.shutdown(Shutdown::wait().at_most(DEADLINE)).is_complete(), "workers stay");
    assert!(pool.worker_pids().is_empty());
}

/// Small calls that come after the one that fails.
fn followers(pool: &ProcessPoolExecutor, tally: &Tally) -> Vec<Future<u64>> {
    (0..8).map(|x| tally.watch(pool.submit(square, x))).collect()
}

fn are_squares(futures: Vec<Future<u64>>) {
    for (x, future) in (0..).zip(futures) {
        assert_eq!(outcome(future).unwrap(), x * x, "call {x}");
    }
}

#[derive(Serialize, Deserialize)]
struct Cell {
    fault: Fault,
    stage: Stage,
    neighbours: Neighbours,
    outcome: String,
}

/// The cells of one group, made by `make` for each fault that exists there.
fn cells(stage: Stage, neighbours: Neighbours, mut make: impl FnMut(Fault) -> String) -> Vec<Cell> {
    let exists = |fault: &Fault| expected(*fault, stage, neighbours).is_ok();
    let cell = |fault| Cell { fault, stage, neighbours, outcome: make(fault) };
    Fault::ALL.into_iter().filter(exists).map(cell).collect()
}

/// One pool that sees each fault, one after the other.
fn in_a_call(stage: Stage, neighbours: Neighbours) -> Vec<Cell> {
    let pool = ProcessPoolExecutor::new(2).unwrap();
    let (tally, gate) = (Tally::default(), Gate::new());
    has_strength(&pool, 2);
    let busy = (neighbours == Neighbours::Busy).then(|| tally.watch(pool.submit(pass, gate.key())));
    if busy.is_some() {
        gate.await_arrivals(1);
    }
    let cells = cells(stage, neighbours, |fault| {
        // With a large call behind it, where that is the matter.
        let first = (stage == Stage::CallFrame).then(Gate::new);
        let mut victim = Victim::submit(&pool, fault, stage, first.as_ref(), false);
        victim.future = tally.watch(victim.future);
        let mut large = Vec::new();
        if let Some(first) = first {
            first.await_arrivals(1);
            // In each worker's channel there is at least one.
            large.extend((0..3).map(|_| tally.watch(pool.submit(length, "x".repeat(LARGE_BYTES)))));
            thread::sleep(Duration::from_millis(5)); // so that some of it is on its way, which decides nothing
            first.open();
        }
        let small = followers(&pool, &tally);
        let told = victim.outcome();
        are_squares(small);
        large.into_iter().for_each(|call| assert_eq!(outcome(call).unwrap(), LARGE_BYTES));
        assert!(busy.as_ref().is_none_or(|busy| !busy.done()), "the neighbour runs on");
        has_strength(&pool, 2 - usize::from(busy.is_some()));
        assert_eq!(pool.worker_pids().len(), 2);
        told
    });
    gate.open();
    busy.into_iter().for_each(|busy| outcome(busy).unwrap());
    is_over(&pool);
    tally.check();
    cells
}

/// The same while the call's own result is on its way. Whoever would receive it is held up meanwhile, so that it cannot
/// arrive: by a call that fails, and a question whether it is to be made again.
fn in_a_reply(neighbours: Neighbours, queue: u64) -> Vec<Cell> {
    let workers = if neighbours == Neighbours::Busy { 3 } else { 2 };
    let pool = ProcessPoolExecutor::new(workers).unwrap();
    let (tally, gate) = (Tally::default(), Gate::new());
    has_strength(&pool, workers);
    let busy = (neighbours == Neighbours::Busy).then(|| tally.watch(pool.submit(pass, gate.key())));
    if busy.is_some() {
        gate.await_arrivals(1);
    }
    let waiting = if neighbours == Neighbours::Queue { queue } else { 0 };
    let waiting: Vec<_> = (0..waiting).map(|x| tally.watch(pool.submit(square, x))).collect();
    let ask = |error: &TaskError| {
        let (open, log) = error.panic_message().and_then(|key| key.split_once('|')).expect("it panicked with a key");
        pass((open.to_owned(), log.to_owned()));
        false
    };
    let fails_with = |(gate, (open, log)): (Key, Key)| -> () {
        pass(gate);
        panic!("{open}|{log}")
    };
    let policy = TaskOptions::new().priority(Priority::High).retry(RetryPolicy::attempts(2).when(ask));
    let cells = cells(Stage::ReplyFrame, neighbours, |fault| {
        let (first, fails, held) = (Gate::new(), Gate::new(), Gate::new());
        let mut victim = Victim::submit(&urgently(&pool), fault, Stage::ReplyFrame, Some(&first), false);
        victim.future = tally.watch(victim.future);
        first.await_arrivals(1);
        let holder = tally.watch(pool.with(policy.clone()).submit(fails_with, (fails.key(), held.key())));
        fails.await_arrivals(1);
        fails.open();
        held.await_arrivals(1);
        first.open();
        let pid = victim.await_fault();
        if expected(fault, Stage::ReplyFrame, neighbours) == Ok(fault.exit()) {
            eventually("its death", || !runs(pid));
        }
        assert!(!victim.future.done(), "nobody could have received it");
        held.open();
        let small = if waiting.is_empty() { followers(&pool, &tally) } else { Vec::new() };
        let told = victim.outcome();
        assert!(outcome(holder).unwrap_err().is_panic());
        are_squares(small);
        assert!(busy.as_ref().is_none_or(|busy| !busy.done()), "the neighbour runs on");
        has_strength(&pool, workers - usize::from(busy.is_some()));
        told
    });
    gate.open();
    busy.into_iter().for_each(|busy| outcome(busy).unwrap());
    are_squares(waiting);
    is_over(&pool);
    tally.check();
    cells
}

/// A pool that is closed while the call runs.
fn in_a_shutdown(neighbours: Neighbours) -> Vec<Cell> {
    cells(Stage::Shutdown, neighbours, |fault| {
        let pool = ProcessPoolExecutor::new(2).unwrap();
        let (tally, gate, first) = (Tally::default(), Gate::new(), Gate::new());
        has_strength(&pool, 2);
        let busy = (neighbours == Neighbours::Busy).then(|| tally.watch(pool.submit(pass, gate.key())));
        let mut victim = Victim::submit(&pool, fault, Stage::Shutdown, Some(&first), false);
        victim.future = tally.watch(victim.future);
        first.await_arrivals(1);
        let small = followers(&pool, &tally);
        pool.shutdown(Shutdown::no_wait());
        first.open();
        let told = victim.outcome();
        are_squares(small);
        gate.open();
        busy.into_iter().for_each(|busy| outcome(busy).unwrap());
        is_over(&pool);
        tally.check();
        told
    })
}

/// A worker that fails before it says who it is, beside one that is idle, or busy; and then all of them.
fn in_a_start(neighbours: Neighbours) -> Vec<Cell> {
    cells(Stage::BeforeHello, neighbours, |fault| {
        let (log, gate, tally) = (Log::new(), Gate::new(), Tally::default());
        let builder = |planted, workers| {
            let prefix = name_prefix(&log.path(), &[(planted, fault)]);
            ProcessPoolExecutor::builder().max_workers(workers).process_name_prefix(prefix).build().unwrap()
        };
        let end_endless = |seen: usize| {
            eventually("a worker that fails", || log.lines().len() > seen || !fault.is_endless());
            if fault.is_endless() {
                end_from_outside(log.lines()[seen].strip_prefix("here ").unwrap().parse().unwrap());
            }
        };
        let pool = builder(Some(1), 2);
        let first = match neighbours {
            Neighbours::Busy => tally.watch(pool.submit(pass, gate.key())),
            _ => tally.watch(pool.submit(|_: Key| (), gate.key())),
        };
        match neighbours {
            Neighbours::Busy => gate.await_arrivals(1),
            _ => assert!(first.wait_timeout(DEADLINE)),
        }
        // Needs the second worker, which fails as it starts.
        let both = Gate::new();
        let count = if neighbours == Neighbours::Busy { 1 } else { 2 };
        let calls: Vec<_> = (0..count).map(|_| tally.watch(pool.submit(pass, both.key()))).collect();
        end_endless(0);
        both.await_arrivals(count);
        both.open();
        gate.open();
        calls.into_iter().chain([first]).for_each(|call| outcome(call).unwrap());
        assert_eq!(log.lines().len(), 1, "{fault:?}: one has failed");
        assert_eq!(pool.worker_pids().len(), 2);
        is_over(&pool);
        if neighbours == Neighbours::Idle {
            let pool = builder(None, 1);
            let futures = followers(&pool, &tally);
            (1..=3).for_each(end_endless);
            for future in futures {
                let error = outcome(future).unwrap_err();
                let cause = fault.exit().strip_prefix("lost: ").unwrap();
                assert!(error.is_broken() && error.to_string().contains(cause), "{fault:?}: {error}");
            }
            assert!(outcome(pool.submit(square, 1)).unwrap_err().is_broken());
            is_over(&pool);
        }
        tally.check();
        expected(fault, Stage::BeforeHello, neighbours).unwrap().to_owned()
    })
}

/// As an operator would, or a system that runs out of memory. The pool itself would wait for a minute.
fn end_from_outside(pid: u32) {
    assert!(signal_child(pid, Signal::KILL), "{pid} is no worker");
}

/// All faults that a call can meet, in a queue of thousands of others, on three workers; and in a queue of which the rest is
/// done when the pool is closed.
fn in_a_queue(stages: &[Stage], queue: u64) -> Vec<Cell> {
    let pool = ProcessPoolExecutor::new(3).unwrap();
    let (tally, gate) = (Tally::default(), Gate::new());
    let stubborn = pool.with(TaskOptions::new().retry(RetryPolicy::attempts(1).lost_workers(1)));
    let held: Vec<_> = (0..3).map(|_| tally.watch(pool.submit(pass, gate.key()))).collect();
    let places: Vec<_> = stages.iter().flat_map(|stage| Fault::ALL.map(|fault| (fault, *stage))).collect();
    let step = queue / places.len() as u64;
    let (mut victims, mut twins, mut large, mut small) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for x in 0..queue {
        if let Some((fault, stage)) = places.get((x / step) as usize).filter(|_| x % step == step / 2) {
            let mut victim = Victim::submit(&pool, *fault, *stage, None, false);
            victim.future = tally.watch(victim.future);
            victims.push(victim);
            if *stage == Stage::CallFrame {
                large.extend((0..4).map(|_| tally.watch(pool.submit(length, "x".repeat(LARGE_BYTES / 8)))));
            }
            // One that fails once, and is made again.
            if expected(*fault, *stage, Neighbours::Queue).is_ok_and(|told| told.starts_with("lost")) {
                let mut twin = Victim::submit(&stubborn, *fault, *stage, None, true);
                twin.future = tally.watch(twin.future);
                twins.push(twin);
            }
        }
        small.push(tally.watch(pool.submit(square, x)));
    }
    if stages == [Stage::Shutdown] {
        pool.shutdown(Shutdown::no_wait());
    }
    gate.open();
    held.into_iter().for_each(|call| outcome(call).unwrap());
    // In the order of the queue, so that each is ended when it is come to.
    let cells: Vec<_> = victims
        .into_iter()
        .map(|victim| {
            let (fault, stage) = (victim.fault, victim.stage);
            Cell { fault, stage, neighbours: Neighbours::Queue, outcome: victim.outcome() }
        })
        .collect();
    are_squares(small);
    large.into_iter().for_each(|call| assert_eq!(outcome(call).unwrap(), LARGE_BYTES / 8));
    for twin in twins {
        let (fault, stage) = (twin.fault, twin.stage);
        let outcome = outcome(twin.future);
        assert!(matches!(outcome, Ok(Ok(_))), "{fault:?} × {stage:?}, made again: {}", told(&outcome));
        assert_eq!(twin.log.lines().len(), 1, "{fault:?} × {stage:?}: it failed once");
    }
    if stages != [Stage::Shutdown] {
        has_strength(&pool, 3);
    }
    is_over(&pool);
    tally.check();
    cells
}

/// Workers that are replaced all the time, of which every fourth one fails as it starts, until each fault has been seen.
fn in_the_starts_of_a_queue(queue: u64) -> Vec<Cell> {
    let (log, tally) = (Log::new(), Tally::default());
    let faults = Fault::ALL.into_iter().filter(|fault| *fault != Fault::Error);
    // With three workers that start at the same time, no three starts fail in a row.
    let faults: Vec<_> = faults.enumerate().map(|(index, fault)| (Some(4 * index + 1), fault)).collect();
    let builder = ProcessPoolExecutor::builder().max_workers(3).max_tasks_per_child(queue / 50);
    let pool = builder.process_name_prefix(name_prefix(&log.path(), &faults)).build().unwrap();
    let futures: Vec<_> = (0..queue).map(|x| tally.watch(pool.submit(square, x))).collect();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut seen = 0;
            while !over.load(Ordering::Relaxed) {
                for line in log.lines().into_iter().skip(seen) {
                    seen += 1;
                    // Most have ended by themselves.
                    signal_child(line.strip_prefix("here ").unwrap().parse().unwrap(), Signal::KILL);
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        let _over = Sets(&over);
        are_squares(futures);
    });
    assert_eq!(log.lines().len(), faults.len(), "each fault was met");
    has_strength(&pool, 3);
    is_over(&pool);
    tally.check();
    let told = |fault| expected(fault, Stage::BeforeHello, Neighbours::Queue).unwrap().to_owned();
    cells(Stage::BeforeHello, Neighbours::Queue, told)
}

/// Also in a panic.
struct Sets<'a>(&'a AtomicBool);

impl Drop for Sets<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How many groups are under way at the same time: they mostly wait.
const THREADS: usize = 4;

/// Makes every cell, and says how long that took. In a process of its own, whose standard error it silences.
fn make_all(queue: u64) -> (Vec<Cell>, Vec<String>) {
    rustix::stdio::dup2_stderr(OpenOptions::new().write(true).open("/dev/null").unwrap()).unwrap();
    type Group = Box<dyn FnOnce() -> Vec<Cell> + Send>;
    let mut groups: Vec<(String, Group)> = Vec::new();
    let mut add = |what: String, group: Group| groups.push((what, group));
    add("queue".into(), {
        Box::new(move || in_a_queue(&[Stage::Decoding, Stage::Running, Stage::Encoding, Stage::CallFrame], queue))
    });
    add("closed queue".into(), Box::new(move || in_a_queue(&[Stage::Shutdown], queue)));
    add("starts of a queue".into(), Box::new(move || in_the_starts_of_a_queue(queue)));
    add("replies of a queue".into(), Box::new(move || in_a_reply(Neighbours::Queue, queue)));
    for neighbours in [Neighbours::Idle, Neighbours::Busy] {
        for stage in Stage::ALL {
            let make: fn(Stage, Neighbours) -> Vec<Cell> = match stage {
                Stage::CallFrame if neighbours == Neighbours::Idle => continue,
                Stage::Decoding | Stage::Running | Stage::Encoding | Stage::CallFrame => in_a_call,
                Stage::ReplyFrame => |_, neighbours| in_a_reply(neighbours, 0),
                Stage::Shutdown => |_, neighbours| in_a_shutdown(neighbours),
                Stage::BeforeHello => |_, neighbours| in_a_start(neighbours),
            };
            add(format!("{stage:?} × {neighbours:?}"), Box::new(move || make(stage, neighbours)));
        }
    }
    groups.reverse();
    let (groups, made, times) = (Mutex::new(groups), Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let Some((what, group)) = groups.lock().unwrap().pop() else { return };
                    let began = Instant::now();
                    let cells = panic::catch_unwind(panic::AssertUnwindSafe(group)).map_err(|panic| {
                        let message = panic.downcast_ref::<String>().cloned();
                        let message = message.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
                        format!("{what}: {}", message.unwrap_or_default())
                    });
                    times.lock().unwrap().push(format!("{what}: {:.1} s", began.elapsed().as_secs_f64()));
                    made.lock().unwrap().push(cells);
                }
            });
        }
    });
    let made: Result<Vec<_>, _> = made.into_inner().unwrap().into_iter().collect();
    let cells = made.unwrap_or_else(|why| panic!("{why}")).into_iter().flatten().collect();
    (cells, times.into_inner().unwrap())
}

/// PP-04, PP-05, PP-07, PP-08, PP-09, PP-10, PP-11, PP-12, PP-15, SHD-14, CAN-11: each fault, at each stage, beside each kind of
/// neighbours: exactly one outcome for every future, only the victim's task fails or is made again, and the pool is at full
/// strength afterwards, or broken with a cause.
#[test]
fn each_fault_costs_one_task() {
    let queue = env::var("FAULTS_QUEUE").ok().map_or(2_000, |queue| queue.parse().unwrap());
    let pool = ProcessPoolExecutor::new(1).unwrap();
    let program = pool.submit(make_all, queue);
    if !program.wait_timeout(DEADLINE * 3) {
        program.kill();
    }
    let (cells, times) = program.result().unwrap();
    println!("{}", times.join("\n"));
    let mut table = BTreeMap::new();
    for Cell { fault, stage, neighbours, outcome } in cells {
        let before = table.insert((fault, stage, neighbours), outcome);
        assert_eq!(before, None, "{fault:?} × {stage:?} × {neighbours:?} twice");
    }
    println!("{:14} {:12} {:10} outcome", "fault", "stage", "neighbours");
    let mut wrong = Vec::new();
    for fault in Fault::ALL {
        for stage in Stage::ALL {
            for neighbours in Neighbours::ALL {
                let expected = expected(fault, stage, neighbours);
                let made = table.remove(&(fault, stage, neighbours));
                let told = match (&made, expected) {
                    (Some(outcome), _) => outcome.clone(),
                    (None, Ok(_)) => "MISSING".to_owned(),
                    (None, Err(why)) => format!("— ({why})"),
                };
                let line = format!("{fault:14} {stage:12} {neighbours:10} {told}");
                println!("{line}");
                if made.as_deref() != expected.ok() {
                    wrong.push(format!("{line}, expected: {expected:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty() && table.is_empty(), "{}", wrong.join("\n"));
}

macro_rules! padded {
    ($($name:ty),*) => {$(
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&format!("{self:?}"))
            }
        }
    )*};
}

padded! { Fault, Stage, Neighbours }
