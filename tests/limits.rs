//! What a worker process may use and how long, what stops one call, and who takes the place of a worker that leaves.

use crate::support::{DEADLINE, Gate, Key, Log, append, eventually, pass, runs};
use concurrent_futures::{
    Executor, Exit, Future, Priority, ProcessPoolExecutor, ProcessPoolExecutorBuilder, ResourceLimit, RetryPolicy,
    Shared, TaskError, TaskOptions,
};
use rustix::{
    process::{Pid, Resource, Signal, getrlimit, kill_process},
    time::{ClockId, clock_gettime},
};
use std::{
    collections::HashSet,
    fs,
    os::unix::process::CommandExt,
    panic, process,
    process::Command,
    thread,
    time::{Duration, Instant},
};

fn one() -> ProcessPoolExecutorBuilder {
    ProcessPoolExecutor::builder().max_workers(1)
}

fn pid((): ()) -> u32 {
    process::id()
}

/// A call whose process becomes a shell, which can ignore signals: a call of ours could not without `unsafe`.
fn becomes((log, script): (String, String)) {
    let script = format!("{script}; echo $$ >> {log}; while :; do sleep 0.01; done");
    panic!("{}", Command::new("bash").args(["-c", &script]).exec());
}

const DEAF: &str = "trap '' TERM";

/// A call that notes its process, and waits at a gate.
fn noted((key, log): (Key, String)) -> u32 {
    append(&log, &process::id().to_string());
    pass(key);
    process::id()
}

fn pids_in(log: &Log) -> Vec<u32> {
    log.lines().iter().map(|line| line.parse().unwrap()).collect()
}

/// CAN-11, CAN-12, CAN-14, PEB-01: by its limit or on request, heeding SIGTERM or not, that worker and no other.
#[test]
fn exactly_one_worker_is_stopped() {
    let pool = ProcessPoolExecutor::new(2).unwrap();
    let (gate, neighbour) = (Gate::new(), Log::new());
    let beside = pool.submit(noted, (gate.key(), neighbour.path()));
    eventually("the neighbour runs", || neighbour.lines().len() == 1);
    let limit = TaskOptions::new().time_limit(Duration::from_millis(200));
    for (script, is_limited) in [("true", false), (DEAF, false), ("true", true), (DEAF, true)] {
        let log = Log::new();
        let options = if is_limited { limit.clone() } else { TaskOptions::new() };
        let call = pool.with(options).submit(becomes, (log.path(), script.to_owned()));
        if !is_limited {
            eventually("the shell runs", || log.lines().len() == 1);
            assert!(call.kill());
        }
        let error = call.result().unwrap_err();
        assert!(if is_limited { error.is_timed_out() } else { error.is_killed() }, "{script}: {error}");
        let stopped = pids_in(&log); // none, if the limit came before the shell
        assert!(!stopped.iter().any(|pid| runs(*pid)), "{script}");
        let next = pool.submit(pid, ()).result().unwrap();
        assert!(!stopped.contains(&next) && !pids_in(&neighbour).contains(&next), "{script}");
        assert!(beside.running());
    }
    gate.open();
    assert_eq!(pids_in(&neighbour), [beside.result().unwrap()]);
}

/// CAN-10: whoever handles SIGTERM has the time that was chosen.
#[test]
fn a_grace_is_as_long_as_was_chosen() {
    let pool = one().kill_grace(DEADLINE).build().unwrap();
    let log = Log::new();
    let script = format!("trap 'sleep 0.3; echo tidied >> {}; exit' TERM", log.path());
    let call = pool.submit(becomes, (log.path(), script));
    eventually("the shell runs", || log.lines().len() == 1);
    assert!(call.kill());
    assert!(call.result().unwrap_err().is_killed());
    assert_eq!(log.lines().last().map(String::as_str), Some("tidied"));
    // And none is none.
    let pool = one().kill_grace(Duration::ZERO).build().unwrap();
    let log = Log::new();
    let call = pool.submit(becomes, (log.path(), DEAF.to_owned()));
    eventually("the shell runs", || log.lines().len() == 1);
    assert!(call.kill());
    assert!(call.result().unwrap_err().is_killed());
}

/// CAN-13: another worker stands ready while the one that is stopped has its grace, and waits for its end.
#[test]
fn a_successor_waits_for_the_end() {
    let started = Log::new();
    let builder = one().kill_grace(DEADLINE * 2).initializer(|log| append(&log, "ready"), started.path());
    let pool = builder.build().unwrap();
    let log = Log::new();
    let call = pool.submit(becomes, (log.path(), DEAF.to_owned()));
    let next = pool.submit(pid, ());
    eventually("the shell runs", || log.lines().len() == 1);
    assert!(call.kill());
    eventually("its successor is ready", || started.lines().len() == 2);
    assert!(!next.running() && !call.done() && pool.worker_pids().len() == 2);
    kill_process(Pid::from_raw(pids_in(&log)[0] as i32).unwrap(), Signal::KILL).unwrap();
    assert!(call.result().unwrap_err().is_killed());
    next.result().unwrap();
    assert_eq!(started.lines().len(), 2);
}

/// PEB-03: its exit code, and which process it was; on that future only.
#[test]
fn a_lost_worker_is_told_with_its_process() {
    let pool = one().build().unwrap();
    let worker = pool.submit(pid, ()).result().unwrap();
    let lost = pool.submit(|code| -> () { process::exit(code) }, 5);
    let next = pool.submit(pid, ());
    let error = lost.result().unwrap_err();
    let lost = error.worker_lost().unwrap();
    assert_eq!((lost.pid, &lost.exit), (worker, &Exit::Code(5)));
    assert_ne!(next.result().unwrap(), worker);
}

const MEMORY: u64 = 64 << 20;

fn limited() -> ProcessPoolExecutorBuilder {
    one().max_memory_bytes(MEMORY).without_core_files()
}

fn assert_no_memory<R>(future: Future<R>) -> TaskError {
    let error = future.result().err().expect("there is not so much memory");
    assert_eq!(error.exceeded_limit(), Some(ResourceLimit::Memory { bytes: MEMORY }), "{error}");
    assert!(error.is_limit_exceeded() && !error.is_worker_lost(), "{error}");
    assert!(error.to_string().contains("used more than the 67108864 bytes of memory"), "{error}");
    error
}

/// A call that needs too much memory, at once or bit by bit, costs itself its life, and nobody else anything; whatever its
/// worker prints about it.
#[test]
fn too_much_memory_is_that_calls_error() {
    for backtrace in ["0", "full"] {
        let pool = limited().env("RUST_BACKTRACE", backtrace).build().unwrap();
        let fits = |bytes: usize| vec![1_u8; bytes].len();
        let too_much = pool.submit(fits, 1 << 40);
        let next = pool.submit(fits, 1 << 20);
        let error = assert_no_memory(too_much);
        let lost = error.worker_lost().unwrap();
        assert!(matches!(&lost.exit, Exit::Signal { name, .. } if name == "SIGABRT"), "{error}");
        assert_eq!(next.result().unwrap(), 1 << 20);
        let grows = |()| {
            let mut kept = Vec::new();
            loop {
                kept.push(vec![1_u8; 100_000]);
            }
        };
        let grows: fn(()) = grows;
        assert_no_memory(pool.submit(grows, ()));
        assert_eq!(pool.submit(fits, 1 << 20).result().unwrap(), 1 << 20);
    }
}

/// Who asks for memory and takes a no for an answer goes on, and what it returns is a value.
#[test]
fn a_call_may_handle_the_want_of_memory() {
    let pool = limited().build().unwrap();
    let careful = |bytes: usize| {
        let mut bytes_of = Vec::<u8>::new();
        bytes_of.try_reserve(bytes).map_err(|error| error.to_string())
    };
    let worker = pool.submit(pid, ()).result().unwrap();
    assert!(pool.submit(careful, 1 << 40).result().unwrap().is_err());
    assert_eq!(pool.submit(pid, ()).result().unwrap(), worker);
    let sees = |()| {
        let limit = getrlimit(Resource::Data);
        (limit.current, limit.maximum)
    };
    assert_eq!(pool.submit(sees, ()).result().unwrap(), (Some(MEMORY), Some(MEMORY)));
}

/// Arguments for which a worker has no memory are that call's error too, and break no pool.
#[test]
fn arguments_that_are_too_large_cost_their_call() {
    let pool = limited().build().unwrap();
    let length = |bytes: Vec<u8>| bytes.len();
    for _ in 0..4 {
        let too_large = pool.submit(length, vec![1; 100 << 20]);
        let next = pool.submit(length, vec![1; 1 << 20]);
        assert_no_memory(too_large);
        assert_eq!(next.result().unwrap(), 1 << 20);
    }
}

/// A call that ends otherwise is lost, whatever limits there are; and without them, so is one that is refused memory.
#[test]
fn other_ends_are_no_limits() {
    let aborts: fn(()) = |()| process::abort();
    let error = limited().build().unwrap().submit(aborts, ()).result().unwrap_err();
    assert!(error.is_worker_lost() && error.exceeded_limit().is_none(), "{error}");
    let pool = one().without_core_files().build().unwrap();
    let full: fn(()) = |()| {
        eprintln!("memory allocation of 7 bytes failed");
        process::abort()
    };
    assert!(pool.submit(full, ()).result().unwrap_err().is_worker_lost());
    let xcpu: fn(()) = |()| {
        let own = Pid::from_raw(process::id() as i32).unwrap();
        kill_process(own, Signal::XCPU).unwrap();
        thread::sleep(DEADLINE);
    };
    let error = pool.submit(xcpu, ()).result().unwrap_err();
    assert!(error.is_worker_lost() && error.to_string().contains("SIGXCPU"), "{error}");
}

/// It is a failed attempt, of which a policy may allow more.
#[test]
fn too_much_memory_may_be_tried_again() {
    let log = Log::new();
    let pool = limited().build().unwrap();
    let grows = |log: String| {
        append(&log, "attempt");
        vec![1_u8; 1 << 40].len()
    };
    let stubborn = pool.with(TaskOptions::new().retry(RetryPolicy::attempts(2)));
    assert_eq!(assert_no_memory(stubborn.submit(grows, log.path())).attempts(), 2);
    assert_eq!(log.lines().len(), 2);
}

/// Processor time that this process has used.
fn used() -> Duration {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(used.tv_sec as u64, used.tv_nsec as u32)
}

fn burn(milliseconds: u64) -> (u32, Duration) {
    let until = used() + Duration::from_millis(milliseconds);
    while used() < until {
        std::hint::spin_loop();
    }
    (process::id(), used())
}

/// Each call has its own allowance, however much its worker has used before; and no more.
#[test]
fn processor_time_is_limited_for_each_call() {
    const LIMIT: Duration = Duration::from_millis(100);
    let pool = one().max_cpu_time(LIMIT).without_core_files().build().unwrap();
    let (worker, mut total) = pool.submit(burn, 0).result().unwrap();
    while total < 3 * LIMIT {
        let (same, now) = pool.submit(burn, 50).result().unwrap();
        assert_eq!(same, worker);
        total = now;
    }
    let endless = pool.submit(burn, 3_600_000);
    let next = pool.submit(burn, 0);
    let error = endless.result().unwrap_err();
    assert_eq!(error.exceeded_limit(), Some(ResourceLimit::CpuTime { limit: LIMIT }), "{error}");
    assert!(error.is_limit_exceeded() && !error.is_timed_out(), "{error}");
    assert!(error.to_string().starts_with("used more than the 100ms of processor time that a call may"), "{error}");
    assert_ne!(next.result().unwrap().0, worker);
    assert!(panic::catch_unwind(|| one().max_cpu_time(Duration::ZERO)).is_err());
}

/// Too many open files are an error where they are opened. And no limit is set but those that were chosen.
#[test]
fn open_files_and_cores_are_limited() {
    let limits = |()| {
        [Resource::Data, Resource::Nofile, Resource::Core, Resource::Cpu].map(|what| {
            let limit = getrlimit(what);
            (limit.current, limit.maximum)
        })
    };
    let free = one().build().unwrap();
    assert_eq!(free.submit(limits, ()).result().unwrap(), limits(()));
    let pool = one().max_open_files(16).without_core_files().build().unwrap();
    let opens = |count: usize| {
        let opened: Result<Vec<_>, _> = (0..count).map(|_| fs::File::open("/dev/null")).collect();
        opened.map(|files| files.len()).map_err(|error| error.to_string())
    };
    let error = pool.submit(opens, 32).result().unwrap().unwrap_err();
    assert!(error.contains("Too many open files"), "{error}");
    assert_eq!(pool.submit(opens, 8).result().unwrap(), Ok(8));
    let [data, files, core, cpu] = pool.submit(limits, ()).result().unwrap();
    assert_eq!((files, core), ((Some(16), Some(16)), (Some(0), Some(0))));
    let [was_data, _, _, was_cpu] = limits(());
    assert_eq!((data, cpu), (was_data, was_cpu));
}

/// WRK-12, WRK-13: the next worker is there before the last call of the one before has ended, and no call begins early.
#[test]
fn a_successor_stands_ready() {
    let started = Log::new();
    let note = |log: String| append(&log, &process::id().to_string());
    let pool = one().max_tasks_per_child(1).initializer(note, started.path()).build().unwrap();
    for round in 1..4 {
        let gate = Gate::new();
        let last = pool.submit(pass, gate.key());
        gate.await_arrivals(1);
        eventually("its successor is ready", || started.lines().len() == round + 1);
        let next = pool.submit(pass, gate.key());
        eventually("it waits", || pool.worker_pids().len() == 2);
        assert!(last.running() && !next.running() && gate.arrived() == 1);
        assert!(next.cancel());
        gate.open();
        last.result().unwrap();
    }
    assert_eq!(pool.submit(pid, ()).result().unwrap(), pids_in(&started)[3]);
    let pids = pids_in(&started);
    assert_eq!(pids.iter().collect::<HashSet<_>>().len(), pids.len());
}

/// WRK-12: also where calls of several levels wait, and with several workers: never more at a time than there may be.
#[test]
fn successors_make_no_pool_larger() {
    let pool = ProcessPoolExecutor::builder().max_workers(2).max_tasks_per_child(1).build().unwrap();
    let log = Log::new();
    let brief = |log: String| {
        append(&log, "+");
        thread::sleep(Duration::from_millis(2));
        append(&log, "-");
    };
    let levels = [Priority::High, Priority::Normal, Priority::Low];
    let submit = |n: usize| pool.with(TaskOptions::new().priority(levels[n % 3])).submit(brief, log.path());
    let futures: Vec<_> = (0..24).map(submit).collect();
    futures.into_iter().for_each(|future| future.result().unwrap());
    let mut running = 0;
    for line in log.lines() {
        running += if line == "+" { 1 } else { -1 };
        assert!((0..=2).contains(&running), "{:?}", log.lines());
    }
}

/// A successor is not sent away for having nothing to do, as long as it is one.
#[test]
fn a_successor_does_not_come_and_go() {
    let started = Log::new();
    let builder = one().max_tasks_per_child(1).idle_timeout(Duration::from_millis(10));
    let pool = builder.initializer(|log| append(&log, "ready"), started.path()).build().unwrap();
    let gate = Gate::new();
    let call = pool.submit(pass, gate.key());
    eventually("its successor is ready", || started.lines().len() == 2);
    thread::sleep(Duration::from_millis(60)); // for another one to show itself
    assert_eq!(started.lines().len(), 2);
    gate.open();
    call.result().unwrap();
    eventually("both have left", || pool.worker_pids().is_empty());

    // Of several that are idle, as many stay as there are successors to be.
    let pool = ProcessPoolExecutor::builder().max_workers(3).max_tasks_per_child(2);
    let pool = pool.idle_timeout(Duration::from_millis(20)).build().unwrap();
    let (gate, last) = (Gate::new(), Gate::new());
    let calls: Vec<_> = (0..3).map(|_| pool.submit(pass, gate.key())).collect();
    gate.await_arrivals(3);
    let call = pool.submit(pass, last.key()); // the second one of some worker
    gate.open();
    calls.into_iter().for_each(|call| call.result().unwrap());
    last.await_arrivals(1);
    eventually("the others have left", || pool.worker_pids().len() == 2);
    last.open();
    call.result().unwrap();
    eventually("all have left", || pool.worker_pids().is_empty());
}

/// A worker is replaced when it has served for so long, busy or idle, and there is always one.
#[test]
fn a_worker_of_some_age_is_replaced() {
    let started = Log::new();
    let note = |log: String| append(&log, &process::id().to_string());
    let builder = one().max_worker_age(Duration::from_millis(100)).initializer(note, started.path());
    let pool = builder.build().unwrap();
    let first = pool.submit(pid, ()).result().unwrap();
    eventually("it is replaced", || {
        let pids = pool.worker_pids();
        assert!(!pids.is_empty(), "the other one comes first");
        !pids.contains(&first) && !runs(first)
    });
    // What runs is not disturbed, however long it lasts.
    let gate = Gate::new();
    let log = Log::new();
    let call = pool.submit(noted, (gate.key(), log.path()));
    eventually("it runs", || log.lines().len() == 1);
    let busy = pids_in(&log)[0];
    eventually("another one has come", || pids_in(&started).last() != Some(&busy));
    let next = pool.submit(pid, ());
    assert!(!next.running() && call.running());
    gate.open();
    assert_eq!(call.result().unwrap(), busy);
    next.result().unwrap(); // by the old one, if the new one was not quite ready
    eventually("the new one makes the calls", || pool.submit(pid, ()).result().unwrap() != busy);
    assert!(panic::catch_unwind(|| one().max_worker_age(Duration::ZERO)).is_err());
}

/// Memory that is shared is not the worker's, also while it stays mapped from call to call.
#[test]
fn memory_that_is_only_mapped_is_no_growth() {
    let pool = one().max_memory_growth_bytes(16 << 20).build().unwrap();
    let first = pool.submit(pid, ()).result().unwrap();
    let data = Shared::new(vec![7_u8; 64 << 20]).unwrap();
    let read = |data: Shared<[u8]>| {
        assert!(data.iter().step_by(4096).all(|byte| *byte == 7));
        process::id()
    };
    // The pool looks at a worker's memory once a second, as it answers.
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(2500) {
        assert_eq!(pool.submit(read, data.clone()).result().unwrap(), first);
        thread::sleep(Duration::from_millis(1));
    }
}
