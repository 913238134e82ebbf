//! How long worker threads and processes live, and what ends them.

use crate::support::{DEADLINE, Gate, Key, Log, append, eventually, pass, runs, tries};
use concurrent_futures::{
    BuildError, Executor, Future, Priority, ProcessPoolExecutor, RetryPolicy, Shutdown, ShutdownReport, TaskOptions,
    ThreadPoolExecutor,
};
use std::{
    collections::{HashMap, HashSet},
    env, fs,
    path::Path,
    process::{self, Command},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

fn pid((): ()) -> u32 {
    process::id()
}

fn recycled(workers: usize, calls: u64) -> ProcessPoolExecutor {
    ProcessPoolExecutor::builder().max_workers(workers).max_tasks_per_child(calls).build().unwrap()
}

/// WRK-11 [threads]: workers without work leave, and others come when there is some.
#[test]
fn idle_threads_leave_and_come_back() {
    let pool = ThreadPoolExecutor::builder().max_workers(3).idle_timeout(Duration::from_millis(20)).build().unwrap();
    for _ in 0..3 {
        let gate = Gate::new();
        let futures: Vec<_> = (0..3).map(|_| pool.submit(pass, gate.key())).collect();
        gate.await_arrivals(3);
        assert_eq!(pool.worker_count(), 3);
        gate.open();
        futures.into_iter().for_each(|future| future.result().unwrap());
        eventually("all have left", || pool.worker_count() == 0);
    }
    assert!(pool.shutdown(Shutdown::wait()).is_complete());
}

/// WRK-11 [processes].
#[test]
fn idle_processes_leave_and_come_back() {
    let pool = ProcessPoolExecutor::builder().max_workers(2).idle_timeout(Duration::from_millis(20)).build().unwrap();
    let mut seen = HashSet::new();
    for _ in 0..5 {
        assert!(seen.insert(pool.submit(pid, ()).result().unwrap()), "a fresh one each time");
        eventually("all have left", || pool.worker_pids().is_empty());
    }
    assert!(pool.shutdown(Shutdown::wait()).is_complete());
}

/// WRK-12, WRK-13, WRK-14, POOL-27: never more calls in a process, and with one worker exactly so many.
#[test]
fn a_worker_is_replaced_after_its_calls() {
    for (workers, limit, calls) in [(1, 2, 6), (2, 2, 8), (1, 3, 7), (3, 1, 9)] {
        let pool = recycled(workers, limit);
        let futures: Vec<_> = (0..calls).map(|_| pool.submit(pid, ())).collect();
        let mut calls_of = HashMap::<u32, u64>::new();
        for future in futures {
            *calls_of.entry(future.result().unwrap()).or_default() += 1;
        }
        assert!(calls_of.values().all(|made| *made <= limit), "{workers} × {limit}: {calls_of:?}");
        if workers == 1 {
            let full = calls_of.values().filter(|made| **made == limit).count() as u64;
            assert_eq!(full, calls / limit, "{workers} × {limit}: {calls_of:?}");
        }
    }
    let nothing = std::panic::catch_unwind(|| ProcessPoolExecutor::builder().max_tasks_per_child(0));
    assert!(nothing.is_err(), "a worker that makes no call");
}

/// WRK-15, WRK-16, SHD-15: closing the pool, or letting go of it, does not keep the last calls from fresh workers.
#[test]
fn replacements_start_also_when_the_pool_is_closed() {
    let pool = recycled(3, 1);
    let futures: Vec<_> = (0..6).map(|_| pool.submit(pid, ())).collect();
    assert!(pool.shutdown(Shutdown::wait()).is_complete());
    let pids: HashSet<_> = futures.into_iter().map(|future| future.result().unwrap()).collect();
    assert_eq!(pids.len(), 6);

    for detaches in [true, false] {
        let pool = recycled(1, 1);
        let futures: Vec<_> = (0..4).map(|_| pool.submit(pid, ())).collect();
        if detaches {
            pool.shutdown(Shutdown::no_wait());
        }
        drop(pool);
        assert!(detaches || futures.iter().all(|future| future.done()));
        let pids: HashSet<_> = futures.into_iter().map(|future| future.result().unwrap()).collect();
        assert_eq!(pids.len(), 4);
    }
}

/// WRK-20: also while calls wait, and none is lost over it.
#[test]
fn a_worker_that_grows_is_replaced() {
    const STEP: usize = 4 << 20;
    let pool = ProcessPoolExecutor::builder().max_workers(1).max_memory_growth_bytes(32 << 20).build().unwrap();
    let leak = |bytes: usize| {
        let leaked: &'static mut [u8] = vec![1_u8; bytes].leak();
        // So that the worker is looked at while it still has calls to make.
        thread::sleep(Duration::from_millis(40));
        (process::id(), leaked.len())
    };
    let futures: Vec<_> = (0..60).map(|_| pool.submit(leak, STEP)).collect();
    let mut calls_of = HashMap::<u32, usize>::new();
    for future in futures {
        let (pid, kept) = future.result().unwrap();
        assert_eq!(kept, STEP);
        *calls_of.entry(pid).or_default() += 1;
    }
    assert!(calls_of.len() > 1, "all calls were made in one worker, which kept {} MiB", (60 * STEP) >> 20);
    let small = ProcessPoolExecutor::builder().max_workers(1).max_memory_growth_bytes(1 << 30).build().unwrap();
    let first = small.submit(leak, 1).result().unwrap().0;
    assert_eq!(small.submit(leak, STEP).result().unwrap().0, first, "nothing to speak of");
}

/// PEB-01, CAN-12, CAN-11: a worker whose call is over its limit is stopped, deaf to signals or not, with all that the
/// call has started; another one takes its place.
#[test]
fn a_limit_stops_the_process_and_what_it_started() {
    let log = Log::new();
    let pool = ProcessPoolExecutor::new(1).unwrap();
    let before = pool.submit(pid, ()).result().unwrap();
    let starts_another = |log: String| {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        append(&log, &child.id().to_string());
        child.wait().unwrap();
    };
    let strict = pool.with(TaskOptions::new().time_limit(Duration::from_millis(300)));
    let error = strict.submit(starts_another, log.path()).result().unwrap_err();
    assert!(error.is_timed_out(), "{error}");
    assert!(error.to_string().contains(&format!("was stopped with worker process {before}")), "{error}");
    if let Some(grandchild) = log.lines().first() {
        let grandchild = grandchild.parse().unwrap();
        eventually("what it started has ended", || !runs(grandchild));
    } // else the limit came before it could start anything
    assert_ne!(pool.submit(pid, ()).result().unwrap(), before);
    assert!(!runs(before));
}

/// PEB-01: the call that was next in the channel is not touched, and begins elsewhere.
#[test]
fn a_limit_costs_no_neighbour_in_the_channel() {
    let pool = ProcessPoolExecutor::new(1).unwrap();
    let strict = pool.with(TaskOptions::new().time_limit(Duration::from_millis(100)));
    let slow = strict.submit(|()| thread::sleep(DEADLINE * 2), ());
    let next: Vec<_> = (0..20).map(|x| pool.submit(|x: u32| x, x)).collect();
    assert!(slow.result().unwrap_err().is_timed_out());
    assert_eq!(
        next.into_iter().map(|future| future.result().unwrap()).collect::<Vec<_>>(),
        (0..20).collect::<Vec<_>>()
    );
}

/// CAN-13 [threads]: a thread is busy until its call returns, whatever its future says.
#[test]
fn an_overrun_keeps_its_thread_until_it_returns() {
    let gate = Gate::new();
    let pool = ThreadPoolExecutor::new(1).unwrap();
    let strict = pool.with(TaskOptions::new().time_limit(Duration::from_millis(20)));
    let deaf = strict.submit(pass, gate.key()); // it never looks whether it is to stop
    let called = std::sync::Arc::new(std::sync::Mutex::new(None));
    deaf.add_done_callback({
        let called = std::sync::Arc::clone(&called);
        move |future| *called.lock().unwrap() = Some(future.exception().unwrap().is_timed_out())
    });
    let next = pool.submit(|x: u32| x, 1);
    assert!(deaf.exception().unwrap().is_timed_out());
    assert_eq!(*called.lock().unwrap(), Some(true), "callbacks have run");
    assert!(!next.running() && !next.done());
    assert_eq!(pool.shutdown(Shutdown::no_wait()).unfinished, 2, "the call that goes on, and the one that waits");
    gate.open();
    assert_eq!(next.result().unwrap(), 1);
    assert!(pool.shutdown(Shutdown::wait()).is_complete());
    assert!(deaf.result().unwrap_err().is_timed_out(), "FUT-06: the late result changes nothing");
}

/// A lost worker counts apart from other failures.
#[test]
fn a_lost_worker_is_another_attempt() {
    let log = Log::new();
    let pool = ProcessPoolExecutor::new(1).unwrap();
    let dies_until = |(attempt, log): (usize, String)| {
        append(&log, "attempt");
        let made = fs::read_to_string(&log).unwrap().lines().count();
        if made < attempt {
            process::exit(3);
        }
        made
    };
    let stubborn = pool.with(TaskOptions::new().retry(RetryPolicy::attempts(1).lost_workers(2)));
    assert_eq!(stubborn.submit(dies_until, (3, log.path())).result().unwrap(), 3);
    let log = Log::new();
    let error = stubborn.submit(dies_until, (9, log.path())).result().unwrap_err();
    assert!(error.is_worker_lost() && error.attempts() == 3 && log.lines().len() == 3, "{error}");
    // In a map, too; and no neighbour is made again.
    let logs: Vec<_> = (0..4).map(|_| Log::new()).collect();
    let items = (0..4).map(|x| (if x == 2 { 2 } else { 1 }, logs[x].path()));
    let results: Vec<_> = stubborn.map(dies_until, items).map(Result::unwrap).collect();
    assert_eq!(results, [1, 1, 2, 1]);
    // A call that is over its limit can be made again, too.
    let log = Log::new();
    let slow_at_first = |log: String| {
        append(&log, "attempt");
        if fs::read_to_string(&log).unwrap().lines().count() == 1 {
            thread::sleep(DEADLINE * 2);
        }
    };
    let options = TaskOptions::new().time_limit(Duration::from_secs(2)).retry(RetryPolicy::attempts(2));
    pool.with(options).submit(slow_at_first, log.path()).result().unwrap();
    assert_eq!(log.lines().len(), 2);
}

/// SHD-16, SHD-17, SHD-18, SHD-22: nothing is left, in little time, of a pool with a hundred calls to make.
#[test]
fn workers_are_ended_by_force() {
    type End = fn(&ProcessPoolExecutor) -> ShutdownReport;
    let ends: [(&str, End); 3] = [
        ("terminate", |pool| pool.terminate_workers()),
        ("kill", |pool| pool.kill_workers()),
        ("now", |pool| pool.shutdown(Shutdown::now())),
    ];
    for (name, end) in ends {
        let pool = ProcessPoolExecutor::builder().max_workers(2).max_tasks_per_child(1).build().unwrap();
        end_of_nothing(end);
        end_of_the_dead(end);
        let log = Log::new();
        let starts_another = |log: String| {
            let mut child = Command::new("sleep").arg("600").spawn().unwrap();
            append(&log, &child.id().to_string());
            child.wait().unwrap();
        };
        let stubborn = pool.with(TaskOptions::new().retry(RetryPolicy::attempts(9).delay(DEADLINE)));
        let futures: Vec<_> = (0..100).map(|_| stubborn.submit(starts_another, log.path())).collect();
        eventually("two calls are made", || log.lines().len() == 2);
        let pids = pool.worker_pids();
        end(&pool);
        let (mut killed, mut cancelled) = (0, 0);
        for future in futures {
            let error = future.result().unwrap_err();
            killed += usize::from(error.is_killed());
            cancelled += usize::from(error.is_cancelled());
        }
        assert_eq!((killed, cancelled), (2, 98), "{name}");
        assert!(pool.submit(|x: u32| x, 1).result().unwrap_err().is_shutdown(), "{name}");
        assert!(pool.shutdown(Shutdown::wait().at_most(DEADLINE)).is_complete(), "{name}");
        assert!(pids.iter().all(|pid| !runs(*pid)) && pool.worker_pids().is_empty(), "{name}: none was replaced");
        for started in log.lines() {
            let started = started.parse().unwrap();
            eventually("what the calls have started has ended", || !runs(started));
        }
        end(&pool); // again, when all are dead
    }
}

/// The same when there is no worker yet.
fn end_of_nothing(end: fn(&ProcessPoolExecutor) -> ShutdownReport) {
    let pool = ProcessPoolExecutor::new(2).unwrap();
    assert_eq!(end(&pool), ShutdownReport::new(0, 0, 0));
    assert!(pool.submit(|x: u32| x, 1).result().unwrap_err().is_shutdown());
}

/// The same when a worker has just died, and in a pool that is broken.
fn end_of_the_dead(end: fn(&ProcessPoolExecutor) -> ShutdownReport) {
    let pool = ProcessPoolExecutor::new(1).unwrap();
    let dies = pool.submit(|()| -> () { process::exit(3) }, ());
    eventually("it has died or is about to", || dies.done() || dies.running());
    end(&pool);
    let error = dies.result().unwrap_err();
    assert!(error.is_worker_lost() || error.is_killed(), "{error}");
    let broken = ProcessPoolExecutor::builder().max_workers(1).initializer(|()| panic!("no"), ()).build().unwrap();
    assert!(broken.submit(|x: u32| x, 1).result().unwrap_err().is_broken());
    end(&broken);
    assert!(broken.shutdown(Shutdown::wait().at_most(DEADLINE)).is_complete());
}

/// NEST-05, NEST-07: pools in workers of pools, to a depth that ends before the machine does.
#[test]
fn pools_are_nested_to_a_limit() {
    fn dig(depth: u32) -> Result<u32, String> {
        match ProcessPoolExecutor::new(1) {
            Ok(pool) => pool.submit(dig, depth + 1).result().map_err(|error| error.to_string())?,
            Err(BuildError::Nested { depth: said, limit }) if said == limit => Ok(depth),
            Err(other) => Err(other.to_string()),
        }
    }
    assert_eq!(dig(0), Ok(10));
    let sentence = BuildError::Nested { depth: 10, limit: 10 }.to_string();
    assert!(sentence.starts_with("process pools are nested 10 deep here"), "{sentence}");
}

/// NEST-09: libraries with threads of their own are told their share, unless the environment says more; what the pool is
/// told holds.
#[test]
fn workers_share_the_processors() {
    let variables = |()| {
        let value = |name: &str| env::var(name).ok();
        (value("OMP_NUM_THREADS"), value("RAYON_NUM_THREADS"))
    };
    let share = |workers: usize| (concurrent_futures::cpu_count().get() / workers).max(1).to_string();
    for workers in [1, 2, 64] {
        let pool = ProcessPoolExecutor::new(workers).unwrap();
        let (omp, rayon) = pool.submit(variables, ()).result().unwrap();
        assert_eq!(rayon, Some(env::var("RAYON_NUM_THREADS").unwrap_or_else(|_| share(workers))));
        assert_eq!(omp, Some(env::var("OMP_NUM_THREADS").unwrap_or_else(|_| share(workers))));
    }
    let pool = ProcessPoolExecutor::builder().max_workers(1).inner_max_num_threads(7).build().unwrap();
    let (omp, _) = pool.submit(variables, ()).result().unwrap();
    assert_eq!(omp.as_deref(), Some("7"), "whatever the environment says");
    assert!(
        Path::new("/proc/self").exists() && env::var_os("CONCURRENT_FUTURES_DEPTH").is_none(),
        "not in this process"
    );
}

/// A call that fails when its first gate opens, and then keeps the pool's driver from doing anything until its second one
/// opens: whether it is to be made again is asked there.
pub(crate) fn hold_the_driver(pool: &ProcessPoolExecutor, fails: &Gate, held: &Gate) -> Future<()> {
    let policy = RetryPolicy::attempts(2).when(|error| {
        let (open, log) = error.panic_message().and_then(|key| key.split_once('|')).expect("it panicked with a key");
        pass((open.into(), log.into()));
        false
    });
    let fails_with = |(gate, (open, log)): (Key, Key)| -> () {
        pass(gate);
        panic!("{open}|{log}")
    };
    pool.with(TaskOptions::new().retry(policy)).submit(fails_with, (fails.key(), held.key()))
}

/// Whether a call that lies behind others in a channel begins while the driver is held. On a slow machine it may not have
/// been sent before: then a test shows nothing.
fn comes_soon(gate: &Gate) -> bool {
    let began = Instant::now();
    while gate.arrived() == 0 && began.elapsed() < Duration::from_millis(300) {
        thread::sleep(Duration::from_millis(1));
    }
    gate.arrived() > 0
}

/// CAN-10, PEB-01: the call that runs is stopped, by whoever wants it or by its limit, also while the reply to an earlier
/// one lies unread.
#[test]
fn a_late_reply_does_not_save_the_next_call() {
    let pool = ProcessPoolExecutor::new(1).unwrap();
    let limit = Duration::from_millis(20);
    let stops_in = |limit: Option<Duration>| {
        let (fails, held, first, endless) = (Gate::new(), Gate::new(), Gate::new(), Gate::new());
        let holder = hold_the_driver(&pool, &fails, &held);
        fails.await_arrivals(1);
        let before = pool.submit(pass, first.key());
        let options = limit.map_or_else(TaskOptions::new, |limit| TaskOptions::new().time_limit(limit));
        let runs = pool.with(options).submit(pass, endless.key());
        fails.open();
        held.await_arrivals(1);
        first.open();
        if !comes_soon(&endless) {
            return false;
        }
        match limit {
            None => assert!(runs.kill()),
            Some(limit) => thread::sleep(2 * limit), // over it, before the driver can look
        }
        held.open();
        let error = runs.result().expect_err("nothing else ends it");
        assert!(if limit.is_some() { error.is_timed_out() } else { error.is_killed() }, "{error}");
        before.result().unwrap();
        assert!(holder.result().unwrap_err().is_panic());
        true
    };
    for limit in [None, Some(limit)] {
        assert!((0..50).any(|_| stops_in(limit)), "it never came to it");
    }
}

/// CAN-10: whenever a call has begun, it can be stopped, whatever the driver has to do meanwhile.
#[test]
fn no_kill_is_lost() {
    let pool = ProcessPoolExecutor::new(1).unwrap();
    let over = AtomicBool::new(false);
    let rounds = || {
        for _ in tries(200) {
            let quick = pool.submit(|()| thread::sleep(Duration::from_micros(200)), ());
            let slow = pool.submit(|()| thread::sleep(Duration::from_secs(5)), ());
            let began = Instant::now();
            while !slow.running() && began.elapsed() < DEADLINE {
                std::hint::spin_loop();
            }
            assert!(slow.kill());
            if !slow.exception().is_some_and(|error| error.is_killed()) {
                return Err(slow.exception().cloned());
            }
            quick.result().unwrap();
        }
        Ok(())
    };
    let outcome = thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for _ in 0..20 {
                    pool.submit(|()| (), ()).cancel();
                }
                thread::sleep(Duration::from_micros(50));
            }
        });
        let outcome = rounds();
        over.store(true, Ordering::Relaxed);
        outcome
    });
    assert!(outcome.is_ok(), "{outcome:?}");
}

/// SHD-22, SHD-16: an attempt that failed just before everything was ended is the last one, and no pause is waited for.
#[test]
fn nothing_is_tried_again_once_all_is_ended() {
    type End = fn(&ProcessPoolExecutor) -> ShutdownReport;
    let ends: [(&str, End); 3] = [
        ("terminate", |pool| pool.terminate_workers()),
        ("now", |pool| pool.shutdown(Shutdown::now().at_most(DEADLINE))),
        ("stop running", |pool| pool.shutdown(Shutdown::wait().stop_running().at_most(DEADLINE))),
    ];
    for (name, end) in ends {
        for delay in [Duration::ZERO, DEADLINE * 2] {
            let (log, fails, held, gate, behind) = (Log::new(), Gate::new(), Gate::new(), Gate::new(), Gate::new());
            let pool = ProcessPoolExecutor::new(1).unwrap();
            let patient = pool.with(TaskOptions::new().retry(RetryPolicy::attempts(3).delay(delay)));
            let fails_behind = |(key, log): (Key, String)| -> () {
                pass(key);
                append(&log, "attempt");
                panic!("again")
            };
            let holder = hold_the_driver(&pool, &fails, &held);
            let call = patient.submit(fails_behind, (gate.key(), log.path()));
            let next = pool.submit(pass, behind.key());
            fails.await_arrivals(1);
            fails.open();
            held.await_arrivals(1);
            gate.open();
            if !comes_soon(&behind) {
                held.open();
                behind.open();
                pool.kill_workers();
                continue;
            }
            // The attempt has failed, and the driver does not know.
            thread::scope(|scope| {
                let ended = scope.spawn(|| end(&pool));
                eventually("the pool is closed", || pool.submit(pid, ()).done());
                held.open();
                behind.open();
                ended.join().unwrap();
            });
            assert!(pool.shutdown(Shutdown::wait().at_most(DEADLINE)).is_complete(), "{name} waits for a pause");
            let error = call.result().unwrap_err();
            assert!(error.is_cancelled() || error.is_killed() || error.is_panic(), "{name}: {error}");
            assert!(holder.result().is_err() && next.wait_timeout(DEADLINE));
            assert_eq!(log.lines().len(), 1, "{name}");
        }
    }
}

/// WRK-12: however slow workers are to leave, there are never more than twice as many processes as may make calls.
#[test]
fn slow_leavers_do_not_pile_up() {
    const WORKERS: usize = 2;
    let gate = Gate::new();
    let builder = ProcessPoolExecutor::builder().max_workers(WORKERS).max_tasks_per_child(1);
    let pool = builder.finalizer(pass, gate.key()).build().unwrap();
    let futures: Vec<_> = (0..12).map(|_| pool.submit(pid, ())).collect();
    let within = || assert!(pool.worker_pids().len() <= 2 * WORKERS, "{:?}", pool.worker_pids());
    gate.await_arrivals(2 * WORKERS);
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(100) {
        within(); // for one too many to show itself
        thread::sleep(Duration::from_millis(1));
    }
    gate.open();
    eventually("all calls are made", || {
        within();
        futures.iter().all(|future| future.done())
    });
    let pids: HashSet<_> = futures.into_iter().map(|future| future.result().unwrap()).collect();
    assert_eq!(pids.len(), 12);
}

/// Stopping what runs also ends workers that are only starting. That says nothing against those that come after them.
#[test]
fn workers_that_were_stopped_as_they_started_do_not_break_the_pool() {
    let gate = Gate::new();
    let pool = ProcessPoolExecutor::builder().max_workers(4).initializer(pass, gate.key()).build().unwrap();
    let futures: Vec<_> = (0..8).map(|_| pool.submit(pid, ())).collect();
    gate.await_arrivals(4);
    let first = pool.worker_pids();
    pool.shutdown(Shutdown::no_wait().stop_running());
    gate.await_arrivals(5);
    gate.open();
    assert!(pool.shutdown(Shutdown::wait().at_most(DEADLINE)).is_complete());
    for future in futures {
        assert!(!first.contains(&future.result().unwrap()));
    }
}

/// What is taken back from several channels, so that a call of higher priority can overtake it, keeps its order.
#[test]
fn what_is_overtaken_keeps_its_order() {
    let pool = ProcessPoolExecutor::new(2).unwrap();
    let (first, second, log) = (Gate::new(), Gate::new(), Log::new());
    let running = [pool.submit(pass, first.key()), pool.submit(pass, second.key())];
    first.await_arrivals(1);
    second.await_arrivals(1);
    let note = |(log, word): (String, String)| append(&log, &word);
    let submit = |priority, word: &str| {
        pool.with(TaskOptions::new().priority(priority)).submit(note, (log.path(), word.to_owned()))
    };
    let words = ["1", "2", "3", "4", "5", "6", "7", "8"];
    let mut futures: Vec<_> = words.iter().map(|word| submit(Priority::Normal, word)).collect();
    thread::sleep(Duration::from_millis(20)); // so that they lie in both channels
    // While calls of two levels wait, one at a time is given to the only worker that goes on: from the high one on, before
    // which that worker may have begun what lay in its channel, the order is exact.
    futures.push(submit(Priority::Low, "low"));
    futures.push(submit(Priority::High, "high"));
    first.open();
    futures.into_iter().for_each(|future| future.result().unwrap());
    let lines = log.lines();
    let (before, from) = lines.split_at(lines.iter().position(|line| line == "high").unwrap());
    assert!(before.is_sorted() && from[1..].is_sorted() && from.last().unwrap() == "low", "{lines:?}");
    second.open();
    running.into_iter().for_each(|future| future.result().unwrap());
}
