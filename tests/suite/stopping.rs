//! What stops a call that has begun: somebody asks, its time is over, or its pool is shut down now.

use crate::support::{Backend, Choices, DEADLINE, Gate, Log, append, eventually, pass};
use concurrent_futures::{
    ALL_COMPLETED, Cancelled, DropPolicy, Executor, Shutdown, TaskOptions, as_completed, current_task, wait,
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

/// A call that lasts until it is asked to stop.
pub(crate) fn patient(log: String) -> Result<(), Cancelled> {
    append(&log, "began");
    let began = Instant::now();
    while began.elapsed() < DEADLINE {
        current_task().check_cancelled()?;
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn limit(milliseconds: u64) -> TaskOptions {
    TaskOptions::new().time_limit(Duration::from_millis(milliseconds))
}

/// CAN-10, CAN-02: the call ends as it likes, and the future with it.
pub(crate) fn a_running_call_is_asked_to_stop<B: Backend>() {
    let log = Log::new();
    let pool = B::pool(2);
    let (asked, other) = (pool.submit(patient, log.path()), pool.submit(patient, log.path()));
    eventually("both have begun", || log.lines().len() == 2);
    assert!(!asked.cancel(), "it has begun");
    assert_eq!(asked.result().unwrap(), Err(Cancelled));
    assert!(other.running(), "CAN-14: nobody has asked it");
    assert!(!other.cancel());
    assert_eq!(other.result().unwrap(), Err(Cancelled));
    let fresh = pool.submit(|()| current_task().is_cancelled(), ());
    assert!(!fresh.result().unwrap(), "the next call on that worker was not asked");
    assert!(!current_task().is_cancelled() && current_task().id().is_none(), "nor this thread, which makes no call");
}

/// CAN-10: threads of the call's own can look too, and what is left of a token when the call is over says no.
pub(crate) fn a_token_can_be_handed_on<B: Backend>() {
    let log = Log::new();
    let pool = B::pool(1);
    let helped = |log: String| {
        let token = current_task().cancel_token();
        let helper = thread::spawn(move || {
            append(&log, "began");
            let began = Instant::now();
            while !token.is_cancelled() && began.elapsed() < DEADLINE {
                thread::sleep(Duration::from_millis(1));
            }
            token.check_cancelled()
        });
        helper.join().unwrap()
    };
    let future = pool.submit(helped, log.path());
    eventually("the helper has begun", || log.lines().len() == 1);
    assert!(!future.cancel());
    assert_eq!(future.result().unwrap(), Err(Cancelled));
}

/// MAP-18: the item that is being called is finished or stopped, and no other of its chunk is begun.
pub(crate) fn a_dropped_map_stops_within_its_chunk<B: Backend>() {
    let log = Log::new();
    let pool = B::pool(1);
    let items = (0..50).map(|_| log.path());
    let map = pool.map(patient, items).chunk_size(50).start();
    eventually("the first item is called", || log.lines().len() == 1);
    drop(map);
    pool.submit(|()| (), ()).result().unwrap(); // behind the chunk
    assert_eq!(log.lines().len(), 1);
}

/// PEB-01, RES-08: the time of the call itself, which is no wait's.
pub(crate) fn a_call_ends_at_its_limit<B: Backend>() {
    let log = Log::new();
    let pool = B::pool(2);
    let other = pool.submit(|x: u32| x, 5);
    let future = pool.with(limit(50)).submit(patient, log.path());
    let error = future.result().unwrap_err();
    assert!(error.is_timed_out() && !error.is_cancelled(), "{error}");
    assert!(error.to_string().starts_with("ran longer than its limit of 50ms"), "{error}");
    assert_eq!(other.result().unwrap(), 5, "CAN-14");
    assert_eq!(pool.with(limit(60_000)).submit(|x: u32| x, 6).result().unwrap(), 6);
    assert_eq!(pool.submit(|x: u32| x, 7).result().unwrap(), 7);
}

/// PEB-01: the limit is counted from the call's beginning, however long it was queued.
pub(crate) fn waiting_does_not_count<B: Backend>() {
    let pool = B::pool(1);
    let gate = Gate::new();
    let running = pool.submit(pass, gate.key());
    gate.await_arrivals(1);
    let limit = Duration::from_millis(700);
    let queued = Instant::now();
    let future = pool.with(TaskOptions::new().time_limit(limit)).submit(|x: u32| x, 1);
    while queued.elapsed() <= limit + limit / 2 {
        thread::sleep(Duration::from_millis(10));
    }
    assert!(!future.done());
    gate.open();
    running.result().unwrap();
    assert_eq!(future.result().unwrap(), 1);
}

/// PEB-02: in a map each item has the limit, and one that is too slow costs no other.
pub(crate) fn a_map_limits_each_item<B: Backend>() {
    let log = Log::new();
    let pool = B::pool(2);
    let slow_at_two = |(x, log): (u32, String)| {
        if x == 2 {
            patient(log).unwrap();
        }
        x
    };
    let strict = pool.with(limit(2_000));
    let items = (0..6).map(|x| (x, log.path()));
    let results: Vec<_> = strict.map(slow_at_two, items).collect();
    for (x, result) in (0..).zip(results) {
        match result {
            Ok(value) => assert!(value == x && x != 2),
            Err(error) => assert!(x == 2 && error.is_timed_out(), "{x}: {error}"),
        }
    }
}

/// PEB-02: chunks of a chosen size have the limit as a whole, and the map goes on after one that was too slow.
pub(crate) fn a_map_limits_each_chunk<B: Backend>() {
    let log = Log::new();
    let pool = B::pool(2);
    let slow_at_two = |(x, log): (u32, String)| {
        if x == 2 {
            patient(log).unwrap();
        }
        x
    };
    let strict = pool.with(limit(1_000));
    let results: Vec<_> = strict.map(slow_at_two, (0..6).map(|x| (x, log.path()))).chunk_size(2).collect();
    for (x, result) in (0..).zip(results) {
        match result {
            Ok(value) => assert!(value == x && x / 2 != 1),
            Err(error) => assert!(x / 2 == 1 && error.is_timed_out(), "{x}: {error}"),
        }
    }
}

/// PEB-04: each item that has not begun is cancelled, what runs is asked to stop, and nothing more is pulled.
pub(crate) fn a_map_is_cancelled_as_a_whole<B: Backend>() {
    let (log, pulled) = (Log::new(), std::cell::Cell::new(0));
    let pool = B::pool(1);
    let call = |(x, log): (u32, String)| {
        let stopped = if x == 0 { Ok(()) } else { patient(log) };
        (x, stopped)
    };
    let items = (0..).map(|x| {
        pulled.set(pulled.get() + 1);
        (x, log.path())
    });
    for is_unordered in [false, true] {
        let before = (log.lines().len(), pulled.get());
        let map = pool.map(call, items.clone()).chunk_size(1).buffer(5);
        let mut map = if is_unordered { map.unordered() } else { map };
        assert_eq!(map.next().unwrap().unwrap(), (0, Ok(())));
        eventually("the second item is called", || log.lines().len() == before.0 + 1);
        map.cancel();
        let rest: Vec<_> = map.by_ref().collect();
        assert!(map.next().is_none());
        assert_eq!(rest.len() + 1, pulled.get() - before.1, "all that was pulled");
        let (called, cancelled): (Vec<_>, Vec<_>) = rest.into_iter().partition(Result::is_ok);
        assert_eq!(called.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [(1, Err(Cancelled))]);
        assert!(cancelled.len() > 2 && cancelled.into_iter().all(|item| item.unwrap_err().is_cancelled()));
    }
    assert_eq!(pool.submit(|x: u32| x, 3).result().unwrap(), 3);
}

/// PEB-06: a callback may stop the whole pool, or another call, and is not waited for by itself.
pub(crate) fn a_callback_may_stop_everything<B: Backend>() {
    for stops_all in [true, false] {
        let pool: Arc<dyn Executor> = Arc::from(B::pool(2));
        let (log, gate) = (Log::new(), Gate::new());
        let first = pool.submit(pass, gate.key());
        let other = Arc::new(pool.submit(patient, log.path()));
        eventually("both run", || log.lines().len() == 1 && gate.arrived() == 1);
        let pending = stops_all.then(|| pool.submit(patient, log.path()));
        let (tell, told) = mpsc::channel();
        let (inside, victim) = (Arc::clone(&pool), Arc::clone(&other));
        first.add_done_callback(move |_| {
            match stops_all {
                true => drop(inside.shutdown(Shutdown::now())),
                false => drop(victim.kill() || victim.cancel()),
            }
            tell.send(()).unwrap();
        });
        gate.open();
        told.recv_timeout(DEADLINE).unwrap();
        first.result().unwrap();
        assert!(other.wait_timeout(DEADLINE));
        assert!(other.exception().is_none_or(|error| error.is_killed()));
        match pending {
            // The first one's worker may have begun it.
            Some(pending) => match pending.result() {
                Ok(asked) => assert_eq!(asked, Err(Cancelled)),
                Err(error) => assert!(error.is_cancelled() || error.is_killed(), "{error}"),
            },
            None => assert_eq!(pool.submit(|x: u32| x, 7).result().unwrap(), 7),
        }
    }
}

/// A wait's limit is no task's, and both can pass.
pub(crate) fn no_limit_is_shorter_than_nothing<B: Backend>() {
    let panic = catch_unwind(|| TaskOptions::new().time_limit(Duration::ZERO)).unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"a time limit must be longer than zero"));
    let pool = B::pool(1);
    let endless = TaskOptions::new().time_limit(Duration::MAX);
    assert_eq!(pool.with(endless).submit(|x: u32| x, 1).result().unwrap(), 1);
}

/// SHD-22, SHD-16, RES-18: running calls are stopped, pending ones cancelled, and every wait ends.
pub(crate) fn a_shutdown_now_ends_everything<B: Backend>() {
    let log = Log::new();
    let pool = B::pool(2);
    let running: Vec<_> = (0..2).map(|_| pool.submit(patient, log.path())).collect();
    eventually("both have begun", || log.lines().len() == 2);
    let pending: Vec<_> = (0..10).map(|_| pool.submit(patient, log.path())).collect();
    let report = thread::scope(|scope| {
        let waiter = scope.spawn(|| wait(running.iter().chain(&pending), ALL_COMPLETED).done.len());
        let report = pool.shutdown(Shutdown::now().at_most(DEADLINE));
        assert_eq!(waiter.join().unwrap(), 12);
        report
    });
    assert!(report.is_complete(), "{report:?}");
    assert_eq!((report.finished, report.cancelled), (2, 10), "{report:?}");
    assert_eq!(as_completed(&pending).filter(|future| future.cancelled()).count(), 10);
    for future in running {
        match future.result() {
            Ok(asked) => assert_eq!(asked, Err(Cancelled)),
            Err(killed) => assert!(killed.is_killed(), "{killed}"),
        }
    }
    assert_eq!(log.lines().len(), 2);
}

/// The three parts of a shutdown's report: done meanwhile, cancelled, left behind.
pub(crate) fn a_report_tells_what_became_of_each<B: Backend>() {
    let pool = B::pool(2);
    let (short, long, log) = (Gate::new(), Gate::new(), Log::new());
    let (finishes, stays) = (pool.submit(pass, short.key()), pool.submit(pass, long.key()));
    short.await_arrivals(1);
    long.await_arrivals(1);
    let pending: Vec<_> = (0..3).map(|_| pool.submit(patient, log.path())).collect();
    let before: Vec<_> = (0..4).map(|_| pool.submit(patient, log.path())).collect();
    assert!(before.iter().all(|future| future.cancel()), "these are none of the shutdown's");
    let report = thread::scope(|scope| {
        let shutdown = scope.spawn(|| pool.shutdown(Shutdown::wait().cancel_pending().at_most(Duration::from_secs(2))));
        wait(&pending, ALL_COMPLETED);
        short.open();
        shutdown.join().unwrap()
    });
    assert_eq!((report.finished, report.cancelled, report.unfinished), (1, 3, 1));
    assert!(finishes.done() && !stays.done() && !report.is_complete());
    long.open();
    assert!(pool.shutdown(Shutdown::wait().at_most(DEADLINE)).is_complete());
    stays.result().unwrap();
}

/// SHD-09: as was chosen.
pub(crate) fn dropping_does_what_was_chosen<B: Backend>() {
    for policy in [DropPolicy::Wait, DropPolicy::Detach, DropPolicy::Cancel] {
        let pool = B::pool_of(1, Choices { drop_policy: policy, ..Choices::default() });
        let gate = Gate::new();
        let running = pool.submit(pass, gate.key());
        gate.await_arrivals(1);
        let pending = pool.submit(|x: u32| x, 3);
        match policy {
            DropPolicy::Detach => {
                drop(pool);
                assert!(!running.done());
                gate.open();
            }
            _ => thread::scope(|scope| {
                let dropped = scope.spawn(move || drop(pool));
                if policy == DropPolicy::Cancel {
                    pending.wait(); // while the other one still runs
                    assert!(!running.done());
                }
                gate.open();
                dropped.join().unwrap();
                assert!(running.done() && pending.done());
            }),
        }
        running.result().unwrap();
        assert_eq!(pending.result().is_ok(), policy != DropPolicy::Cancel, "{policy:?}");
    }
}

/// SHD-08 holds for whatever waits; a panic does not make a detached pool wait.
pub(crate) fn a_panic_does_not_wait_for_a_detached_pool<B: Backend>() {
    let gate = Gate::new();
    let mut future = None;
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        let pool = B::pool_of(1, Choices { drop_policy: DropPolicy::Detach, ..Choices::default() });
        future = Some(pool.submit(pass, gate.key()));
        gate.await_arrivals(1);
        panic!("on purpose");
    }));
    assert!(unwound.is_err());
    let future = future.unwrap();
    assert!(!future.done());
    gate.open();
    future.result().unwrap();
}

/// SHD-22, MAP-18: nor is the rest of a chunk begun.
pub(crate) fn a_shutdown_now_ends_a_chunk<B: Backend>() {
    let log = Log::new();
    let pool = B::pool(1);
    let items = (0..50).map(|_| log.path());
    let map = pool.map(patient, items).chunk_size(50).start();
    eventually("the first item is called", || log.lines().len() == 1);
    let report = pool.shutdown(Shutdown::now().at_most(DEADLINE));
    assert!(report.is_complete(), "{report:?}");
    assert!(map.skip(1).all(|result| result.is_err()));
    assert_eq!(log.lines().len(), 1);
}
