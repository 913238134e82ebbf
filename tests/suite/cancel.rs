use crate::support::{Backend, Gate, Log, append, pass};
use concurrent_futures::{ALL_COMPLETED, Executor, as_completed, wait};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// CAN-01, CAN-03, CAN-05, FUT-11: and callbacks have run when `cancel` returns, once.
pub(crate) fn a_pending_call_is_never_made<B: Backend>() {
    let log = Log::new();
    let pool = B::pool(1);
    let gate = Gate::new();
    let running = pool.submit(pass, gate.key());
    gate.await_arrivals(1);
    let pending = pool.submit(|log: String| append(&log, "made"), log.path());
    let called = Arc::new(AtomicUsize::new(0));
    let here = thread::current().id();
    pending.add_done_callback({
        let called = Arc::clone(&called);
        move |future| {
            assert!(future.cancelled() && thread::current().id() == here);
            called.fetch_add(1, Ordering::SeqCst);
        }
    });
    assert!(pending.cancel());
    assert!(pending.done() && pending.cancelled());
    assert_eq!(called.load(Ordering::SeqCst), 1);
    assert!(pending.cancel(), "again");
    assert_eq!(called.load(Ordering::SeqCst), 1);
    gate.open();
    running.result().unwrap();
    pool.submit(|()| (), ()).result().unwrap(); // behind it in the queue
    assert!(log.lines().is_empty());
    assert!(pending.result().unwrap_err().is_cancelled());
}

/// CAN-02.
pub(crate) fn what_runs_or_is_done_is_not_cancelled<B: Backend>() {
    let pool = B::pool(1);
    let gate = Gate::new();
    let future = pool.submit(pass, gate.key());
    gate.await_arrivals(1);
    assert!(!future.cancel());
    assert!(future.running());
    gate.open();
    future.wait();
    assert!(!future.cancel());
    future.result().unwrap();
}

/// CAN-04, CAN-06, CAN-08: in a pool in which nothing else will ever finish.
pub(crate) fn cancelling_ends_waits_at_once<B: Backend>() {
    let pool = B::pool(1);
    let gate = Gate::new();
    let running = pool.submit(pass, gate.key());
    gate.await_arrivals(1);
    let pending: Vec<_> = (0..3).map(|x| pool.submit(|x: u8| x, x)).collect();
    thread::scope(|scope| {
        let result = scope.spawn(|| pending[0].exception().unwrap().is_cancelled());
        let all = scope.spawn(|| wait(&pending, ALL_COMPLETED).done.len());
        let each = scope.spawn(|| as_completed(&pending).count());
        for future in &pending {
            assert!(future.cancel());
        }
        assert!(result.join().unwrap());
        assert_eq!((all.join().unwrap(), each.join().unwrap()), (3, 3));
    });
    assert!(running.running(), "the pool is as busy as before");
}

/// FUT-13, CAN-05: also calls that lie in a worker's channel already.
pub(crate) fn all_but_the_running_one_can_be_cancelled<B: Backend>() {
    let log = Log::new();
    let pool = B::pool(1);
    let gate = Gate::new();
    let running = pool.submit(pass, gate.key());
    gate.await_arrivals(1);
    let pending: Vec<_> = (0..40).map(|_| pool.submit(|log: String| append(&log, "made"), log.path())).collect();
    // Whatever the backend does with them, it has had the time.
    thread::yield_now();
    assert!(pending.iter().all(|future| !future.running()));
    assert!(pending.iter().all(|future| future.cancel()));
    assert!(!running.cancel());
    gate.open();
    running.result().unwrap();
    assert_eq!(pool.submit(|x: u8| x, 1).result().unwrap(), 1);
    assert!(log.lines().is_empty(), "none was made");
}

/// CAN-14.
pub(crate) fn siblings_are_not_affected<B: Backend>() {
    let pool = B::pool(1);
    let gate = Gate::new();
    let running = pool.submit(pass, gate.key());
    let futures: Vec<_> = (0..20).map(|x| pool.submit(|x: u32| x, x)).collect();
    let cancelled: Vec<bool> = futures.iter().map(|future| future.id() > running.id() && future.cancel()).collect();
    assert!(cancelled.iter().all(|cancelled| *cancelled));
    let kept: Vec<_> = (0..20).map(|x| pool.submit(|x: u32| x, x)).collect();
    assert!(kept.iter().step_by(2).all(|future| future.cancel()));
    gate.open();
    for (x, future) in (0..).zip(kept) {
        match future.result() {
            Ok(value) => assert!(value == x && x % 2 == 1),
            Err(error) => assert!(error.is_cancelled() && x % 2 == 0),
        }
    }
}

/// FUT-03, FUT-06, CAN-05: however the beginning and a cancellation fall together.
pub(crate) fn a_call_is_made_once_or_cancelled<B: Backend>() {
    let log = Log::new();
    let pool = B::pool(2);
    let call = |(log, x): (String, u32)| append(&log, &x.to_string());
    let mut made = Vec::new();
    for round in 0..10 {
        let futures: Vec<_> =
            (0..20).map(|x| (20 * round + x, pool.submit(call, (log.path(), 20 * round + x)))).collect();
        let cancel = || {
            for (_, future) in &futures {
                future.cancel();
            }
        };
        thread::scope(|scope| {
            scope.spawn(cancel);
            scope.spawn(cancel);
        });
        for (x, future) in futures {
            let cancelled = future.cancelled();
            match future.result() {
                Ok(()) => made.push((!cancelled).then_some(x)),
                Err(error) => assert!(cancelled && error.is_cancelled(), "{error}"),
            }
        }
    }
    let mut noted: Vec<_> = log.lines().iter().map(|line| Some(line.parse().unwrap())).collect();
    noted.sort_unstable();
    assert_eq!(noted, made);
}
