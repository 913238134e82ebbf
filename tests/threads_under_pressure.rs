//! Thread pools with as many calls as they take in, and calls that are made by whoever submits them.

use crate::{
    suite::stopping::patient,
    support::{DEADLINE, Gate, Key, Log, append, eventually, pass, promptly},
};
use concurrent_futures::{
    Cancelled, Executor, Future, RetryPolicy, Shutdown, TaskOptions, ThreadPoolExecutor, WhenFull,
};
use std::{
    iter,
    sync::{Arc, mpsc},
    thread,
};

const ALL: [WhenFull; 3] = [WhenFull::Block, WhenFull::Reject, WhenFull::CallerRuns];

fn bounded(workers: usize, waiting: usize, when_full: WhenFull) -> Arc<ThreadPoolExecutor> {
    let builder = ThreadPoolExecutor::builder().max_workers(workers).queue_capacity(waiting, when_full);
    Arc::new(builder.build().unwrap())
}

/// How many calls a pool takes in that has nothing to do.
fn room(pool: &ThreadPoolExecutor) -> usize {
    let gate = Gate::new();
    let inside: Vec<_> = iter::from_fn(|| pool.try_submit(pass, gate.key()).ok()).take(100).collect();
    gate.open();
    inside.into_iter().map(|future| future.result().unwrap()).count()
}

/// More often than there are places.
#[test]
fn a_call_that_submits_keeps_no_place() {
    type Way = fn(&ThreadPoolExecutor) -> bool;
    let ways: [Way; 5] = [
        |pool| pool.submit(|x: u32| x, 1).result().is_ok(),
        |pool| pool.try_submit(|x: u32| x, 1).is_ok_and(|future| future.result().is_ok()),
        |pool| pool.submit_timeout(|x: u32| x, 1, DEADLINE).is_ok_and(|future| future.result().is_ok()),
        |pool| pool.map(|x: u32| x, 0..4).all(|result| result.is_ok()),
        |pool| pool.map(|x: u32| x, 0..4).unordered().all(|result| result.is_ok()),
    ];
    for when_full in ALL {
        for (number, way) in ways.into_iter().enumerate() {
            promptly(move || {
                let pool = bounded(1, 2, when_full);
                for round in 0..8 {
                    let inner = Arc::clone(&pool);
                    let all = pool.spawn(move || way(&inner)).result().unwrap();
                    assert!(all, "{when_full:?}, way {number}, round {round}");
                }
                assert_eq!(room(&pool), 3, "{when_full:?}, way {number}");
            });
        }
    }
}

/// A caller that makes a call for a pool is waited for like a worker, and the pool's threads make the next attempt.
#[test]
fn a_shutdown_waits_for_what_callers_run() {
    let pool = bounded(1, 0, WhenFull::CallerRuns);
    let (busy, held, log) = (Gate::new(), Gate::new(), Log::new());
    let running = pool.submit(pass, busy.key());
    busy.await_arrivals(1);
    let caller = thread::spawn({
        let (pool, args) = (Arc::clone(&pool), (log.path(), held.key()));
        let fails_once = |(log, key): (String, Key)| {
            append(&log, "attempt");
            let attempts = std::fs::read_to_string(&log).unwrap().lines().count();
            if attempts == 1 {
                pass(key);
                panic!("on purpose");
            }
            attempts
        };
        let twice = TaskOptions::new().retry(RetryPolicy::attempts(2));
        move || pool.with(twice).submit(fails_once, args)
    });
    held.await_arrivals(1);
    busy.open();
    running.result().unwrap();
    let shutdown = thread::spawn({
        let (pool, path) = (Arc::clone(&pool), log.path());
        move || (pool.shutdown(Shutdown::wait()), std::fs::read_to_string(path).unwrap().lines().count())
    });
    eventually("the pool is closed", || pool.try_submit(|()| (), ()).is_err_and(|rejected| !rejected.is_queue_full()));
    held.open();
    let future = promptly(move || caller.join().unwrap());
    let (report, attempts) = promptly(move || shutdown.join().unwrap());
    assert!(report.is_complete() && attempts == 2, "{report:?}, {attempts}");
    assert_eq!(future.result().unwrap(), 2);
}

/// SHD-22: wherever they run.
#[test]
fn a_shutdown_now_stops_what_callers_run() {
    let pool = bounded(1, 0, WhenFull::CallerRuns);
    let log = Log::new();
    let submit = || {
        let (pool, path) = (Arc::clone(&pool), log.path());
        thread::spawn(move || pool.submit(patient, path).result())
    };
    let calls = [submit(), submit()];
    eventually("one on the worker, one on its caller", || log.lines().len() == 2);
    let inner = Arc::clone(&pool);
    let report = promptly(move || inner.shutdown(Shutdown::now()));
    assert!(report.is_complete() && report.finished == 2, "{report:?}");
    for call in calls {
        assert_eq!(call.join().unwrap().unwrap(), Err(Cancelled));
    }
}

/// A scope's calls are never rejected: there is nobody to whom that could be said.
#[test]
fn a_scope_needs_no_room() {
    for when_full in [WhenFull::Reject, WhenFull::CallerRuns] {
        let pool = bounded(1, 0, when_full);
        let gate = Gate::new();
        let running = pool.submit(pass, gate.key());
        gate.await_arrivals(1);
        let inner = Arc::clone(&pool);
        promptly(move || {
            assert_eq!(inner.join(|| 1, || 2), (1, 2));
            let (one, two) = (1, 2);
            let sum = inner.scope(|scope| {
                let calls = [scope.spawn(|| one), scope.spawn(|| two)];
                calls.into_iter().map(|call| call.result().unwrap()).sum::<u32>()
            });
            assert_eq!(sum, 3);
        });
        assert!(!running.done());
        gate.open();
        running.result().unwrap();
        assert_eq!(room(&pool), 1, "{when_full:?}");
    }
}

/// NEST-02: a call that a submitter makes on top of its own one may wait for that one in vain.
#[test]
fn a_call_that_is_run_by_its_submitter_is_told_of_a_cycle() {
    for when_full in [WhenFull::Block, WhenFull::CallerRuns] {
        let pool = bounded(1, 0, when_full);
        let (give, get) = mpsc::channel::<Future<bool>>();
        let (tell, told) = mpsc::channel();
        let inner = Arc::clone(&pool);
        let outer = pool.spawn(move || {
            let own = get.recv().unwrap();
            let waits = inner.spawn(move || own.result().is_err_and(|error| error.is_deadlock()));
            let noticed = waits.result().unwrap();
            tell.send(noticed).unwrap();
            noticed
        });
        give.send(outer).unwrap();
        assert!(told.recv_timeout(DEADLINE).expect("the cycle hangs"));
    }
}

/// A closed pool makes no call anywhere, and says that it is closed rather than full.
#[test]
fn a_closed_pool_is_closed_to_its_own_calls() {
    for capacity in [None, Some(WhenFull::Block), Some(WhenFull::Reject), Some(WhenFull::CallerRuns)] {
        let pool = match capacity {
            None => Arc::new(ThreadPoolExecutor::new(1).unwrap()),
            Some(when_full) => bounded(1, 0, when_full),
        };
        let inner = Arc::clone(&pool);
        let error = pool.spawn(move || {
            let _ = inner.shutdown(Shutdown::no_wait());
            inner.submit(|x: u32| x, 5).result().unwrap_err()
        });
        assert!(error.wait_timeout(DEADLINE), "{capacity:?}");
        assert!(error.result().unwrap().is_shutdown(), "{capacity:?}");
    }
}
