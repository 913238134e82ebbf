//! Pools that take in only so many calls, and which of those that wait comes first.

use crate::support::{Backend, Choices, DEADLINE, Gate, Log, append, eventually, pass};
use concurrent_futures::{Executor, Priority, RetryPolicy, Shutdown, TaskOptions, WhenFull};
use std::{
    process,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

fn bounded<B: Backend>(workers: usize, waiting: usize, when_full: WhenFull) -> Box<dyn Executor> {
    B::pool_of(workers, Choices { queue_capacity: Some((waiting, when_full)), ..Choices::default() })
}

/// SUB-11.
pub(crate) fn a_full_pool_rejects<B: Backend>() {
    let pool = bounded::<B>(1, 2, WhenFull::Reject);
    let gate = Gate::new();
    let running = pool.submit(pass, gate.key());
    let waiting: Vec<_> = (0..2).map(|x| pool.submit(|x: u32| x, x)).collect();
    let error = pool.submit(|x: u32| x, 9).result().unwrap_err();
    assert!(error.is_queue_full(), "{error}");
    assert!(error.to_string().contains("which holds 2 waiting calls, is full"), "{error}");
    gate.open();
    running.result().unwrap();
    assert_eq!(waiting.into_iter().map(|future| future.result().unwrap()).collect::<Vec<_>>(), [0, 1]);
    eventually("there is room again", || pool.submit(|x: u32| x, 1).result().is_ok());
}

/// SUB-06, SUB-11, SUB-03: whoever asks first gets the arguments back, also from a pool that is closed.
pub(crate) fn arguments_come_back<B: Backend>() {
    let pool = bounded::<B>(1, 0, WhenFull::Block);
    let gate = Gate::new();
    let running = pool.try_submit(pass, gate.key()).unwrap();
    let words = vec!["one".to_owned(), "two".to_owned()];
    let rejected = pool.try_submit(|words: Vec<String>| words.len(), words.clone()).unwrap_err();
    assert!(rejected.is_queue_full());
    let limit = Duration::from_millis(20);
    let rejected = pool.submit_timeout(|words: Vec<String>| words.len(), rejected.into_value(), limit).unwrap_err();
    assert_eq!(rejected.to_string(), "not accepted: the executor's queue, which holds 0 waiting calls, is full");
    let words = rejected.into_value();
    gate.open();
    running.result().unwrap();
    let accepted = pool.submit_timeout(|words: Vec<String>| words.len(), words, DEADLINE).unwrap();
    assert_eq!(accepted.result().unwrap(), 2);
    pool.shutdown(Shutdown::wait());
    let rejected = pool.try_submit(|x: u32| x, 5).unwrap_err();
    assert!(!rejected.is_queue_full());
    assert_eq!(rejected.to_string(), "the executor was already shut down");
    assert_eq!(rejected.into_value(), 5);
    let unbounded = B::pool(1);
    assert_eq!(unbounded.try_submit(|x: u32| x, 6).unwrap().result().unwrap(), 6);
    unbounded.shutdown(Shutdown::no_wait());
    assert_eq!(unbounded.try_submit(|x: u32| x, 7).unwrap_err().into_value(), 7);
}

/// SUB-11: and never more than may wait.
pub(crate) fn a_full_pool_makes_the_caller_wait<B: Backend>() {
    let pool = bounded::<B>(1, 1, WhenFull::Block);
    let gate = Gate::new();
    let accepted = AtomicUsize::new(0);
    thread::scope(|scope| {
        let submitter = scope.spawn(|| {
            let submit = |_| {
                let future = pool.submit(pass, gate.key());
                accepted.fetch_add(1, Ordering::SeqCst);
                future
            };
            (0..5).map(submit).collect::<Vec<_>>()
        });
        eventually("the pool is full", || accepted.load(Ordering::SeqCst) >= 2);
        gate.await_arrivals(1);
        thread::sleep(Duration::from_millis(30)); // for one that does not wait to show itself
        assert_eq!(accepted.load(Ordering::SeqCst), 2, "one that runs, and one that waits");
        gate.open();
        submitter.join().unwrap().into_iter().for_each(|future| future.result().unwrap());
    });
}

/// Whoever waits for room is told when there will be none.
pub(crate) fn a_shutdown_ends_the_wait_for_room<B: Backend>() {
    let pool = bounded::<B>(1, 0, WhenFull::Block);
    let gate = Gate::new();
    let running = pool.submit(pass, gate.key());
    gate.await_arrivals(1);
    thread::scope(|scope| {
        let log = Log::new();
        let submit = |path: String| {
            append(&path, "waits");
            pool.submit(|x: u32| x, 1)
        };
        let waits = scope.spawn({
            let path = log.path();
            move || submit(path)
        });
        eventually("somebody waits", || log.lines().len() == 1);
        pool.shutdown(Shutdown::no_wait());
        assert!(waits.join().unwrap().result().unwrap_err().is_shutdown());
    });
    gate.open();
    running.result().unwrap();
}

/// The third choice: the thread that submits makes the call.
pub(crate) fn the_caller_runs_what_does_not_fit<B: Backend>() {
    let pool = bounded::<B>(1, 0, WhenFull::CallerRuns);
    let gate = Gate::new();
    let running = pool.submit(pass, gate.key());
    let place = |()| (process::id(), format!("{:?}", thread::current().id()));
    let here = pool.submit(place, ());
    assert!(here.done(), "it was made before `submit` returned");
    assert_eq!(here.result().unwrap(), place(()));
    assert!(pool.submit(|()| -> () { panic!("contained") }, ()).result().unwrap_err().is_panic());
    gate.open();
    running.result().unwrap();
    pool.shutdown(Shutdown::wait());
    assert!(pool.submit(place, ()).result().unwrap_err().is_shutdown(), "a closed pool makes no calls anywhere");
}

/// MAP-05: a map waits for room, whatever was chosen, and loses nothing.
pub(crate) fn a_map_fits_into_any_capacity<B: Backend>() {
    for when_full in [WhenFull::Block, WhenFull::Reject, WhenFull::CallerRuns] {
        let pool = bounded::<B>(2, 0, when_full);
        let results: Vec<_> = pool.map(|x: u32| x + 1, 0..300).collect::<Result<_, _>>().unwrap();
        assert_eq!(results, (1..301).collect::<Vec<_>>());
        let mut results: Vec<_> = pool.map(|x: u32| x, 0..50).chunk_size(1).unordered().map(Result::unwrap).collect();
        results.sort_unstable();
        assert_eq!(results, (0..50).collect::<Vec<_>>());
    }
}

/// MAP-15: the limit of a map also ends a wait for room that never comes.
pub(crate) fn a_map_without_room_ends_at_its_limit<B: Backend>() {
    let pool = bounded::<B>(1, 0, WhenFull::Block);
    let gate = Gate::new();
    let running = pool.submit(pass, gate.key());
    let mut map = pool.map(|x: u32| x, 0..3).timeout(Duration::from_millis(30));
    assert!(map.next().unwrap().unwrap_err().is_map_timeout());
    assert!(map.next().is_none());
    gate.open();
    running.result().unwrap();
}

/// A call that is cancelled makes room at once, whatever still runs; one that is made in place, when it is over.
pub(crate) fn a_call_that_ends_makes_room<B: Backend>() {
    let pool = bounded::<B>(1, 1, WhenFull::Reject);
    let gate = Gate::new();
    let running = pool.submit(pass, gate.key());
    for _ in 0..5 {
        let waiting = pool.submit(|x: u32| x, 1);
        assert!(pool.try_submit(|x: u32| x, 2).unwrap_err().is_queue_full());
        assert!(waiting.cancel());
    }
    let patient = TaskOptions::new().retry(RetryPolicy::attempts(2).delay(DEADLINE));
    let waiting = pool.submit(|x: u32| x, 1);
    gate.open();
    running.result().unwrap();
    waiting.result().unwrap();
    for _ in 0..3 {
        let log = Log::new();
        let fails = |log: String| -> () {
            append(&log, "attempt");
            panic!("on purpose");
        };
        let pausing = pool.with(patient.clone()).submit(fails, log.path());
        eventually("it waits for another attempt", || log.lines().len() == 1 && !pausing.running());
        assert!(pausing.cancel());
    }
    assert_eq!(pool.submit(|x: u32| x, 3).result().unwrap(), 3);
    assert!(pool.shutdown(Shutdown::wait()).is_complete(), "no pause is waited for that nobody wants");
}

/// SUB-11: a call keeps its place until it ends, whether it is made, waits for another attempt, or begins that.
pub(crate) fn a_pause_keeps_its_place<B: Backend>() {
    const ATTEMPTS: u32 = 4;
    let pool = bounded::<B>(1, 0, WhenFull::Reject);
    let fails = |log: String| -> () {
        append(&log, "attempt");
        panic!("on purpose");
    };
    let log = Log::new();
    let policy = RetryPolicy::attempts(ATTEMPTS).delay(Duration::from_millis(10));
    let failing = pool.with(TaskOptions::new().retry(policy)).submit(fails, log.path());
    eventually("there is room", || match pool.try_submit(|x: u32| x, 1) {
        Ok(_) => true,
        Err(full) => {
            assert!(full.is_queue_full());
            false
        }
    });
    assert_eq!(log.lines().len(), ATTEMPTS as usize, "only now");
    assert_eq!(failing.result().unwrap_err().attempts(), ATTEMPTS);
    eventually("it is empty", || pool.try_submit(|x: u32| x, 1).is_ok_and(|future| future.result().is_ok()));
    let log = Log::new();
    let patient = TaskOptions::new().retry(RetryPolicy::attempts(2).delay(DEADLINE * 2));
    let pausing = pool.with(patient).submit(fails, log.path());
    eventually("it waits for another attempt", || log.lines().len() == 1 && !pausing.running());
    assert!(pool.try_submit(|x: u32| x, 1).unwrap_err().is_queue_full());
    assert!(pausing.cancel());
    assert_eq!(pool.try_submit(|x: u32| x, 2).unwrap().result().unwrap(), 2);
}

pub(crate) fn many_callers_share_the_room<B: Backend>() {
    let pool = bounded::<B>(2, 3, WhenFull::Block);
    thread::scope(|scope| {
        for caller in 0..4_u64 {
            let pool = &pool;
            scope.spawn(move || {
                for x in 0..40 {
                    let future = pool.submit(|x: u64| x, caller * 100 + x);
                    if x % 7 == 0 && future.cancel() {
                        continue;
                    }
                    assert_eq!(future.result().unwrap(), caller * 100 + x);
                }
            });
        }
    });
    let report = pool.shutdown(Shutdown::wait());
    assert_eq!(report.unfinished, 0);
}

fn with(priority: Priority) -> TaskOptions {
    TaskOptions::new().priority(priority)
}

/// With one worker the order is exact: by priority, and in each by submission.
pub(crate) fn higher_priorities_begin_first<B: Backend>() {
    let (log, gate) = (Log::new(), Gate::new());
    let pool = B::pool(1);
    let running = pool.submit(pass, gate.key());
    gate.await_arrivals(1);
    let note = |(log, word): (String, String)| append(&log, &word);
    let submit = |priority, word: &str| pool.with(with(priority)).submit(note, (log.path(), word.into()));
    let mut futures = vec![pool.submit(note, (log.path(), "normal 1".into()))];
    for number in 1..3 {
        futures.push(submit(Priority::Low, &format!("low {number}")));
        futures.push(submit(Priority::High, &format!("high {number}")));
    }
    futures.push(submit(Priority::Normal, "normal 2"));
    // What was already in the worker's channel is taken back as soon as the pool has seen the others.
    eventually("nothing lies in a channel", || format!("{:?}", futures[0]).ends_with(", pending)"));
    gate.open();
    running.result().unwrap();
    futures.into_iter().for_each(|future| future.result().unwrap());
    assert_eq!(log.lines(), ["high 1", "high 2", "normal 1", "normal 2", "low 1", "low 2"]);
}

/// However many of higher priority there are, a lower one has its turn.
pub(crate) fn lower_priorities_grow_old<B: Backend>() {
    let (log, gate) = (Log::new(), Gate::new());
    let pool = B::pool(1);
    let running = pool.submit(pass, gate.key());
    gate.await_arrivals(1);
    let note = |(log, word): (String, String)| append(&log, &word);
    let mut futures = vec![pool.with(with(Priority::Low)).submit(note, (log.path(), "low".into()))];
    futures.push(pool.submit(note, (log.path(), "normal".into())));
    futures.extend((0..60).map(|_| pool.with(with(Priority::High)).submit(note, (log.path(), "high".into()))));
    gate.open();
    running.result().unwrap();
    futures.into_iter().for_each(|future| future.result().unwrap());
    let place = |word: &str| log.lines().iter().position(|line| line == word).unwrap();
    assert!((16..20).contains(&place("low")), "low came at {}", place("low"));
    assert!((16..20).contains(&place("normal")), "normal came at {}", place("normal"));
}

/// Several workers, all levels, all endings: nothing is lost between the queues.
pub(crate) fn levels_lose_nothing<B: Backend>() {
    let pool = B::pool(3);
    let levels = [Priority::Low, Priority::Normal, Priority::High];
    let futures: Vec<_> = (0..150).map(|x| pool.with(with(levels[x % 3])).submit(|x: usize| x, x)).collect();
    let cancelled = futures.iter().step_by(10).filter(|future| future.cancel()).count();
    let done = futures.into_iter().filter_map(|future| future.result().ok()).count();
    assert_eq!(done + cancelled, 150);
    let futures: Vec<_> = (0..30).map(|x| pool.with(with(levels[x % 3])).submit(|x: usize| x, x)).collect();
    let report = pool.shutdown(Shutdown::wait().cancel_pending());
    assert!(report.is_complete());
    assert!(futures.iter().all(|future| future.done()));
}

/// A pool that is full and closed is closed.
pub(crate) fn a_full_pool_that_is_closed_says_so<B: Backend>() {
    for when_full in [WhenFull::Block, WhenFull::Reject, WhenFull::CallerRuns] {
        let pool = bounded::<B>(1, 0, when_full);
        let gate = Gate::new();
        let running = pool.submit(pass, gate.key());
        gate.await_arrivals(1);
        pool.shutdown(Shutdown::no_wait());
        assert!(!pool.try_submit(|x: u32| x, 1).unwrap_err().is_queue_full());
        let refused = pool.submit(|x: u32| x, 1);
        assert!(refused.done() && refused.result().unwrap_err().is_shutdown(), "{when_full:?}");
        gate.open();
        running.result().unwrap();
    }
}
