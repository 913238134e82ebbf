//! Calls that are made again when they have failed.

use crate::{
    suite::stopping,
    support::{Backend, Choices, DEADLINE, Gate, Key, Log, append, eventually, pass, promptly},
};
use concurrent_futures::{Executor, RetryPolicy, Shutdown, TaskOptions};
use std::{
    panic::catch_unwind,
    thread,
    time::{Duration, Instant},
};

fn retry(policy: RetryPolicy) -> TaskOptions {
    TaskOptions::new().retry(policy)
}

/// Notes each attempt, and fails until there were so many.
fn fails_until((attempt, log): (usize, String)) -> String {
    append(&log, "attempt");
    let made = std::fs::read_to_string(&log).unwrap().lines().count();
    assert!(made >= attempt, "attempt {made} fails");
    format!("attempt {made}")
}

pub(crate) fn a_later_attempt_counts<B: Backend>() {
    let log = Log::new();
    let pool = B::pool(1);
    let future = pool.with(retry(RetryPolicy::attempts(5))).submit(fails_until, (3, log.path()));
    assert_eq!(future.result().unwrap(), "attempt 3");
    assert_eq!(log.lines().len(), 3);
}

pub(crate) fn the_last_error_is_the_outcome<B: Backend>() {
    let log = Log::new();
    let pool = B::pool(1);
    let future = pool.with(retry(RetryPolicy::attempts(3))).submit(fails_until, (100, log.path()));
    let error = future.result().unwrap_err();
    assert_eq!((error.panic_message(), error.attempts()), (Some("attempt 3 fails"), 3));
    assert!(error.to_string().ends_with(", attempt 3)"), "{error}");
    assert_eq!(log.lines().len(), 3);
    let once = pool.submit(fails_until, (100, log.path())).result().unwrap_err();
    assert_eq!((once.attempts(), log.lines().len()), (1, 4), "nothing was chosen for this one");
}

pub(crate) fn only_errors_that_were_chosen_are_tried_again<B: Backend>() {
    let log = Log::new();
    let pool = B::pool(1);
    let policy = RetryPolicy::attempts(9).when(|error| error.panic_message() == Some("attempt 1 fails"));
    let error = pool.with(retry(policy)).submit(fails_until, (100, log.path())).result().unwrap_err();
    assert_eq!((error.panic_message(), log.lines().len()), (Some("attempt 2 fails"), 2));
    // A value is no failure, whatever it says.
    let refuses = |log: String| -> Result<(), String> {
        append(&log, "attempt");
        Err("no".into())
    };
    let value = pool.with(retry(RetryPolicy::attempts(9))).submit(refuses, log.path()).result().unwrap();
    assert_eq!((value, log.lines().len()), (Err("no".into()), 3));
}

pub(crate) fn pauses_lie_between_attempts<B: Backend>() {
    let log = Log::new();
    let pool = B::pool(1);
    let policy = RetryPolicy::attempts(3).delay(Duration::from_millis(40));
    let began = Instant::now();
    let future = pool.with(retry(policy)).submit(fails_until, (3, log.path()));
    let other = pool.submit(|x: u32| x, 1); // is not held up: the worker does not wait
    assert_eq!(other.result().unwrap(), 1);
    future.result().unwrap();
    assert!(began.elapsed() >= Duration::from_millis(40 + 80), "{:?}", began.elapsed());
}

/// SHD-01, SHD-09: a pool is not done while something is still to be tried again.
pub(crate) fn a_shutdown_waits_for_further_attempts<B: Backend>() {
    let log = Log::new();
    let pool = B::pool(2);
    let policy = RetryPolicy::attempts(4).delay(Duration::from_millis(20));
    let future = pool.with(retry(policy)).submit(fails_until, (4, log.path()));
    drop(pool);
    assert!(future.done());
    assert_eq!(future.result().unwrap(), "attempt 4");
}

/// CAN-07: a call that waits for another attempt has not begun, and can be cancelled.
pub(crate) fn a_pause_can_be_cancelled<B: Backend>() {
    let log = Log::new();
    let pool = B::pool(1);
    let patient = retry(RetryPolicy::attempts(2).delay(Duration::from_secs(50)));
    let alone = pool.with(patient.clone()).submit(fails_until, (9, log.path()));
    eventually("the first attempt is over", || log.lines().len() == 1 && !alone.running());
    assert!(alone.cancel());
    assert!(alone.result().unwrap_err().is_cancelled());
    let with_its_pool = pool.with(patient).submit(fails_until, (9, log.path()));
    eventually("the first attempt is over", || log.lines().len() == 2 && !with_its_pool.running());
    let report = pool.shutdown(Shutdown::wait().cancel_pending());
    assert!(report.is_complete() && report.cancelled == 1, "{report:?}");
    assert!(with_its_pool.result().unwrap_err().is_cancelled());
    assert_eq!(log.lines().len(), 2);
}

/// SHD-01: also while somebody waits for the pool to end already.
pub(crate) fn a_pause_can_be_cancelled_during_a_shutdown<B: Backend>() {
    let log = Log::new();
    let pool = B::pool(1);
    let patient = retry(RetryPolicy::attempts(2).delay(DEADLINE));
    let future = pool.with(patient).submit(fails_until, (9, log.path()));
    eventually("the first attempt is over", || log.lines().len() == 1 && !future.running());
    let began = Instant::now();
    thread::scope(|scope| {
        let shutdown = scope.spawn(|| pool.shutdown(Shutdown::wait()));
        eventually("the pool is closed", || pool.submit(|x: u32| x, 1).done());
        assert!(future.cancel());
        assert!(shutdown.join().unwrap().is_complete());
    });
    assert!(began.elapsed() < DEADLINE / 2, "it waited for the pause to end");
}

/// SHD-03: a call that fails while the pool is shut down, and is therefore not made again, is among those that the report tells as
/// cancelled.
pub(crate) fn what_is_given_up_is_reported_as_cancelled<B: Backend>() {
    let pool = B::pool(1);
    let gate = Gate::new();
    let fails_behind = |key: Key| -> () {
        pass(key);
        panic!("fails");
    };
    let future = pool.with(retry(RetryPolicy::attempts(9))).submit(fails_behind, gate.key());
    gate.await_arrivals(1);
    let waits = pool.submit(|x: u32| x, 1);
    thread::scope(|scope| {
        let shutdown = scope.spawn(|| pool.shutdown(Shutdown::wait().cancel_pending()));
        eventually("what waits is cancelled", || waits.done());
        gate.open();
        let report = shutdown.join().unwrap();
        assert!(report.is_complete() && (report.cancelled, report.finished) == (2, 0), "{report:?}");
    });
    assert!(future.result().unwrap_err().is_cancelled());
}

/// Somebody who wants a call to stop does not want it to be made again.
pub(crate) fn a_call_that_was_asked_to_stop_is_not_tried_again<B: Backend>() {
    let log = Log::new();
    let pool = B::pool(1);
    let gate = Gate::new();
    let fails_behind = |(key, log): (Key, String)| -> () {
        append(&log, "attempt");
        pass(key);
        panic!("fails");
    };
    let future = pool.with(retry(RetryPolicy::attempts(9))).submit(fails_behind, (gate.key(), log.path()));
    gate.await_arrivals(1);
    assert!(!future.cancel());
    gate.open();
    assert!(future.result().unwrap_err().is_panic());
    assert_eq!(log.lines().len(), 1);
}

pub(crate) fn a_map_tries_each_item_again<B: Backend>() {
    let logs: Vec<_> = (0..6).map(|_| Log::new()).collect();
    let pool = B::pool(2);
    let stubborn = pool.with(retry(RetryPolicy::attempts(3)));
    let items = (0..6).map(|x| (x, logs[x].path()));
    let results: Vec<_> = stubborn.map(fails_until, items).collect();
    for (x, result) in results.into_iter().enumerate() {
        let attempts = logs[x].lines().len();
        match result {
            Ok(_) => assert!(x <= 3 && attempts == x.max(1), "{x}: {attempts}"),
            Err(error) => assert!(x > 3 && attempts == 3 && error.attempts() == 3, "{x}: {attempts}, {error}"),
        }
    }
}

/// Many at once, on several workers, half of which are tried again: each has its own outcome.
pub(crate) fn many_are_tried_again<B: Backend>() {
    let logs: Vec<_> = (0..40).map(|_| Log::new()).collect();
    let pool = B::pool(3);
    let stubborn = pool.with(retry(RetryPolicy::attempts(2).delay(Duration::from_millis(1))));
    let futures: Vec<_> = (0..40).map(|x| stubborn.submit(fails_until, (x % 2 + 1, logs[x].path()))).collect();
    for (x, future) in futures.into_iter().enumerate() {
        assert_eq!(future.result().unwrap(), format!("attempt {}", x % 2 + 1));
    }
    assert_eq!(pool.shutdown(Shutdown::wait()).unfinished, 0);
}

pub(crate) fn nonsense_is_refused_at_the_call<B: Backend>() {
    let message = |nonsense: fn() -> RetryPolicy| {
        let panic = catch_unwind(nonsense).unwrap_err();
        panic.downcast_ref::<String>().cloned().unwrap_or_else(|| (*panic.downcast_ref::<&str>().unwrap()).into())
    };
    assert!(message(|| RetryPolicy::attempts(0)).contains("at least once"));
    assert!(message(|| RetryPolicy::attempts(2).factor(0.5)).contains("0.5"));
    assert!(message(|| RetryPolicy::attempts(2).factor(f64::NAN)).contains("NaN"));
    let pool = B::pool(1);
    let absurd = RetryPolicy::attempts(u32::MAX).delay(Duration::MAX).factor(f64::INFINITY);
    assert_eq!(pool.with(retry(absurd)).submit(|x: u32| x, 1).result().unwrap(), 1);
    thread::yield_now();
}

/// WRK-11: also when its only worker has left meanwhile, for it was idle.
pub(crate) fn a_pause_outlasts_an_idle_worker<B: Backend>() {
    for dropped in [false, true] {
        let (log, goodbye) = (Log::new(), Log::new());
        let pool = B::pool_of(
            1,
            Choices {
                idle_timeout: Some(Duration::from_millis(1)),
                finalizer: Some((|log| append(&log, "goodbye"), goodbye.path())),
                ..Choices::default()
            },
        );
        let policy = RetryPolicy::attempts(2).delay(Duration::from_millis(200));
        let future = pool.with(retry(policy)).submit(fails_until, (2, log.path()));
        eventually("the worker has left", || !goodbye.lines().is_empty());
        promptly(move || match dropped {
            true => drop(pool),
            false => drop(pool.shutdown(Shutdown::wait())),
        });
        assert!(future.done(), "dropped: {dropped}");
        assert_eq!(future.result().unwrap(), "attempt 2");
    }
}

/// SHD-22: neither for a pause that lasts, nor for one that would begin.
pub(crate) fn a_shutdown_now_waits_for_no_pause<B: Backend>() {
    let log = Log::new();
    let pool = B::pool(2);
    let patient = retry(RetryPolicy::attempts(2).delay(DEADLINE * 2));
    let pauses = pool.with(patient.clone()).submit(fails_until, (9, log.path()));
    eventually("it pauses", || log.lines().len() == 1 && !pauses.running());
    let fails_when_asked = |log: String| -> () {
        stopping::patient(log).unwrap();
    };
    let runs = pool.with(patient).submit(fails_when_asked, log.path());
    eventually("the other has begun", || log.lines().len() == 2);
    let report = pool.shutdown(Shutdown::now().at_most(DEADLINE));
    assert!(report.is_complete(), "{report:?}");
    assert!(pauses.result().unwrap_err().is_cancelled());
    assert!(runs.done() && runs.result().is_err());
    assert_eq!(log.lines().len(), 2);
}

/// As above, also while it is being decided whether another attempt follows.
pub(crate) fn a_call_off_meets_a_decision<B: Backend>() {
    let (log, decision) = (Log::new(), Gate::new());
    let pool = B::pool(1);
    // The policy learns of this test's gate from the error.
    let fails = |(log, (open, arrivals)): (String, Key)| -> () {
        append(&log, "attempt");
        panic!("{open}\n{arrivals}");
    };
    let policy = RetryPolicy::attempts(2).when(|error| {
        let (open, arrivals) = error.panic_message().unwrap().split_once('\n').unwrap();
        pass((open.into(), arrivals.into()));
        true
    });
    let future = pool.with(retry(policy)).submit(fails, (log.path(), decision.key()));
    decision.await_arrivals(1);
    assert!(!future.cancel(), "it has begun");
    decision.open();
    assert!(future.result().unwrap_err().is_panic());
    assert_eq!(log.lines().len(), 1);
}
