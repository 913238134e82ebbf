use super::future::OnlyEven;
use crate::support::{Backend, Gate, Key, Log, Noted, append, pass};
use concurrent_futures::{Executor, Shutdown};
use std::{
    iter::FusedIterator,
    panic::{self, AssertUnwindSafe},
    process,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Long enough for a loaded machine to tell it from no time at all.
const LIMIT: Duration = Duration::from_millis(400);

fn values(pool: &impl Executor, count: u64) -> Vec<u64> {
    pool.map(|x: u64| x * x, 0..count).collect::<Result<_, _>>().unwrap()
}

/// MAP-01, MAP-02, MAP-07, MAP-19, DILL-01.
pub(crate) fn results_come_in_order<B: Backend>() {
    let pool = B::pool(3);
    assert_eq!(values(&pool, 3000), (0..3000).map(|x| x * x).collect::<Vec<_>>());
    assert!(values(&pool, 0).is_empty());
    let zipped: Vec<u32> =
        pool.map(|(a, b)| a + b, [1, 2, 3].into_iter().zip([10, 20])).collect::<Result<_, _>>().unwrap();
    assert_eq!(zipped, [11, 22], "the shortest input ends it");
    let mut map = pool.map(|x: u8| x, [1]);
    assert_eq!(map.next().unwrap().unwrap(), 1);
    assert!(map.next().is_none() && map.next().is_none(), "it stays at its end");
}

/// MAP-04, MAP-05, MAP-10, POOL-14: at first the buffer, then one for each that is taken.
pub(crate) fn endless_input_is_pulled_within_the_buffer<B: Backend>() {
    let pool = B::pool(2);
    let pulled = Arc::new(AtomicUsize::new(0));
    let endless = || {
        let pulled = Arc::clone(&pulled);
        (0_u64..).inspect(move |_| {
            pulled.fetch_add(1, Ordering::SeqCst);
        })
    };
    for (buffer, chunk) in [(1, 1), (5, 1), (5, 3), (64, 7)] {
        pulled.store(0, Ordering::SeqCst);
        let mut map = pool.map(|x: u64| x + 1, endless()).buffer(buffer).chunk_size(chunk).start();
        assert_eq!(pulled.load(Ordering::SeqCst), buffer / chunk * chunk, "whole chunks");
        for taken in 1..=200 {
            assert_eq!(map.next().unwrap().unwrap(), taken);
            let ahead = pulled.load(Ordering::SeqCst) - taken as usize;
            assert!(ahead <= buffer, "{ahead} ahead with a buffer of {buffer}");
        }
    }
    pulled.store(0, Ordering::SeqCst);
    let first: Vec<_> = pool.map(|x: u64| x, endless()).take(3).map(|x| x.unwrap()).collect();
    assert_eq!(first, [0, 1, 2]);
    assert!(pulled.load(Ordering::SeqCst) < 2000, "bounded also by default");
}

/// MAP-11, MAP-12, P35.
pub(crate) fn a_failed_item_costs_only_itself<B: Backend>() {
    let pool = B::pool(2);
    let outcomes: Vec<_> = pool.map(|x: u32| 12 / x, [3, 0, 4, 0, 6]).collect();
    let told: Vec<_> =
        outcomes.iter().map(|outcome| outcome.as_ref().map_err(|error| error.panic_message().unwrap())).collect();
    let zero = Err("attempt to divide by zero");
    assert_eq!(told, [Ok(&4), zero, Ok(&3), zero, Ok(&2)]);
}

/// MAP-20, MAP-21.
pub(crate) fn chunks_do_not_change_results<B: Backend>() {
    let pool = B::pool(2);
    for chunk in [1, 6, 40, 50] {
        let squares: Vec<u32> = pool.map(|x: u32| x * x, 0..40).chunk_size(chunk).collect::<Result<_, _>>().unwrap();
        assert_eq!(squares, (0..40).map(|x| x * x).collect::<Vec<_>>(), "chunks of {chunk}");
    }
    let zero_chunk = panic::catch_unwind(AssertUnwindSafe(|| drop(pool.map(|x: u32| x, 0..1).chunk_size(0))));
    let zero_buffer = panic::catch_unwind(AssertUnwindSafe(|| drop(pool.map(|x: u32| x, 0..1).buffer(0))));
    for refused in [zero_chunk.unwrap_err(), zero_buffer.unwrap_err()] {
        let said = refused.downcast_ref::<String>().map(String::as_str).or(refused.downcast_ref::<&str>().copied());
        assert!(said.unwrap().contains("not zero"), "{said:?}");
    }
}

/// MAP-13, MAP-14, POOL-09.
pub(crate) fn a_chunk_loses_no_neighbour_of_a_failed_item<B: Backend>() {
    let log = Log::new();
    let pool = B::pool(1);
    let inputs = (0..9).map(|x| (log.path(), x));
    let call = |(log, x): (String, u32)| {
        append(&log, &x.to_string());
        assert!(x % 3 != 1, "no {x}");
        x
    };
    let outcomes: Vec<_> = pool.map(call, inputs).chunk_size(3).map(|outcome| outcome.ok()).collect();
    assert_eq!(outcomes, (0..9).map(|x| (x % 3 != 1).then_some(x)).collect::<Vec<_>>());
    assert_eq!(log.lines().len(), 9, "every item was run");
}

/// MAP-15, MAP-16, MAP-17, MAP-19, RES-08.
pub(crate) fn the_limit_counts_from_the_call<B: Backend>() {
    let log = Log::new();
    let pool = B::pool(1);
    let gate = Gate::new();
    let inputs = [gate.key(), gate.key(), gate.key()].map(|key| (key, log.path()));
    let call = |(key, log): (Key, String)| {
        pass(key);
        append(&log, "done");
    };
    for unordered in [false, true] {
        let mut map = pool.map(call, inputs.clone()).chunk_size(1).timeout(LIMIT);
        if unordered {
            map = map.unordered();
        }
        let mut map = map.start();
        gate.await_arrivals(1);
        thread::sleep(LIMIT + Duration::from_millis(10));
        let began = Instant::now();
        let error = map.next().unwrap().unwrap_err();
        assert!(began.elapsed() < LIMIT, "the limit was not granted again");
        assert!(error.is_map_timeout() && !error.is_cancelled(), "{error}");
        assert!(map.next().is_none() && map.next().is_none());
        fn stays_at_its_end(_: impl FusedIterator) {}
        stays_at_its_end(map);
    }
    gate.open();
    pool.submit(|()| (), ()).result().unwrap();
    assert_eq!(log.lines().len(), 1, "what had not begun was cancelled");
    let own: Vec<_> = pool.map(|()| -> () { panic!("TimeoutError") }, [()]).collect();
    assert!(!own[0].as_ref().unwrap_err().is_map_timeout(), "the call's own error is another");
}

/// MAP-18.
pub(crate) fn dropping_cancels_what_has_not_begun<B: Backend>() {
    let pool = B::pool(1);
    let gate = Gate::new();
    let map = pool.map(pass, [gate.key(), gate.key(), gate.key()]).chunk_size(1).start();
    gate.await_arrivals(1);
    drop(map);
    gate.open();
    pool.submit(|()| (), ()).result().unwrap();
    assert_eq!(gate.arrived(), 1);
}

/// MAP-26, POOL-13.
pub(crate) fn unordered_yields_what_is_there<B: Backend>() {
    let pool = B::pool(2);
    let gate = Gate::new();
    let call = |(key, x): (Option<_>, u32)| {
        if let Some(key) = key {
            pass(key);
        }
        x
    };
    let inputs = (0..10).map(|x| ((x == 0).then(|| gate.key()), x));
    let mut map = pool.map(call, inputs).chunk_size(1).unordered();
    let mut seen: Vec<_> = map.by_ref().take(9).map(|x| x.unwrap()).collect();
    assert!(!seen.contains(&0), "it did not wait for the slow one");
    gate.open();
    seen.extend(map.map(|x| x.unwrap()));
    assert_eq!(seen.pop(), Some(0));
    seen.sort_unstable();
    assert_eq!(seen, (1..10).collect::<Vec<_>>());
}

/// MAP-03.
pub(crate) fn starting_submits_before_the_first_result<B: Backend>() {
    let log = Log::new();
    let pool = B::pool(1);
    let call = |log: String| append(&log, "run");
    let lazy = pool.map(call, [log.path(), log.path()]);
    drop(lazy);
    let started = pool.map(call, [log.path(), log.path()]).start();
    pool.submit(|()| (), ()).result().unwrap();
    assert_eq!(log.lines().len(), 2, "one map was started, the other never");
    assert_eq!(started.count(), 2);
}

/// MAP-23, DL-08.
pub(crate) fn a_panicking_input_panics_here<B: Backend>() {
    let pool = B::pool(1);
    for bad in [0, 5, 19] {
        let inputs = (0..20).inspect(|x| assert!(*x != bad, "input {bad}"));
        let mut map = pool.map(|x: i32| x, inputs).chunk_size(1).buffer(1);
        let mut given = 0;
        let told = panic::catch_unwind(AssertUnwindSafe(|| {
            for x in map.by_ref() {
                assert_eq!(x.unwrap(), given);
                given += 1;
            }
        }));
        assert_eq!(told.unwrap_err().downcast_ref::<String>().unwrap(), &format!("input {bad}"));
        assert!(given == bad || given == bad - 1, "the results before it were given: {given} of {bad}");
    }
    assert_eq!(pool.submit(|x: u8| x, 1).result().unwrap(), 1);
}

/// DL-09, PP-02: in chunks too, each item fails or succeeds alone.
pub(crate) fn items_that_do_not_encode_fail_alone<B: Backend>() {
    let pool = B::pool(1);
    let travels = pool.submit(|()| std::process::id(), ()).result().unwrap() != std::process::id();
    for chunk in [1, 4] {
        let outcomes: Vec<_> = pool.map(OnlyEven, 0..8).chunk_size(chunk).collect::<Vec<Result<OnlyEven, _>>>();
        for (x, outcome) in outcomes.into_iter().enumerate() {
            assert_eq!(outcome.is_err(), travels && x % 2 == 1, "{x} in chunks of {chunk}: {outcome:?}");
        }
    }
}

/// MAP-22.
pub(crate) fn a_map_on_a_closed_pool_fails<B: Backend>() {
    let pool = B::pool(1);
    pool.shutdown(Shutdown::wait());
    let outcomes: Vec<_> = pool.map(|x: u8| x, [1, 2]).collect();
    assert!(outcomes.iter().all(|outcome| outcome.as_ref().unwrap_err().is_shutdown()));
    assert_eq!(outcomes.len(), 2);
}

/// MAP-26: in either order of asking.
pub(crate) fn a_started_map_can_become_unordered<B: Backend>() {
    let pool = B::pool(2);
    let mut squares: Vec<_> = pool.map(|x: u32| x * x, 0..100).start().unordered().map(|x| x.unwrap()).collect();
    squares.sort_unstable();
    assert!(squares.into_iter().eq((0..100).map(|x| x * x)));
}

/// MAP-06.
pub(crate) fn a_buffer_of_none_is_refused_first<B: Backend>() {
    let log = Log::new();
    let pool = B::pool(1);
    let pulled = AtomicUsize::new(0);
    let inputs = [log.path(), log.path()].into_iter().inspect(|_| {
        pulled.fetch_add(1, Ordering::SeqCst);
    });
    let call = |log: String| append(&log, "run");
    let told = panic::catch_unwind(AssertUnwindSafe(|| drop(pool.map(call, inputs).buffer(0).start())));
    assert!(told.is_err());
    pool.submit(|()| (), ()).result().unwrap(); // behind whatever was submitted
    assert_eq!((pulled.into_inner(), log.lines().len()), (0, 0));
}

/// MAP-08.
pub(crate) fn a_buffer_bounds_every_input<B: Backend>() {
    let pool = B::pool(2);
    let pulled = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let input = |index: usize| {
        let pulled = &pulled[index];
        (0_usize..).inspect(move |_| {
            pulled.fetch_add(1, Ordering::SeqCst);
        })
    };
    let mut map = pool.map(|(a, b)| a + b, input(0).zip(input(1).map(|x| 10 * x))).chunk_size(1).buffer(4);
    for x in 0..50 {
        assert_eq!(map.next().unwrap().unwrap(), 11 * x);
        assert!(pulled.iter().all(|pulled| pulled.load(Ordering::SeqCst) <= x + 1 + 4));
    }
    let (short, endless) = ([1, 2, 3].into_iter(), 0..);
    assert_eq!(pool.map(|(a, b): (i32, i32)| a + b, short.zip(endless)).buffer(2).count(), 3);
}

/// MAP-09.
pub(crate) fn a_shutdown_on_the_way_delivers_what_was_submitted<B: Backend>() {
    let pool = B::pool(1);
    let mut map = pool.map(|x: u32| x, 0..).chunk_size(1).buffer(5).start();
    assert_eq!(map.next().unwrap().unwrap(), 0);
    pool.shutdown(Shutdown::wait());
    for x in 1..=5 {
        assert_eq!(map.next().unwrap().unwrap(), x);
    }
    assert!(map.take(5).all(|outcome| outcome.unwrap_err().is_shutdown()));
}

/// MAP-24: and the report counts all that the shutdown cancelled.
pub(crate) fn a_shutdown_may_follow_at_once<B: Backend>() {
    let cancelling = [Shutdown::wait().cancel_pending(); 20];
    for how in [Shutdown::wait(), Shutdown::no_wait()].into_iter().chain(cancelling) {
        let pool = B::pool(2);
        let map = pool.map(|x: u32| x, 0..200).chunk_size(1).buffer(200).start();
        let report = pool.shutdown(how);
        let (mut given, mut cancelled) = (0, 0);
        for outcome in map {
            match outcome {
                Ok(value) => assert_eq!(value, given),
                Err(error) => {
                    assert!(error.is_cancelled(), "{error}");
                    cancelled += 1;
                }
            }
            given += 1;
        }
        assert_eq!((given, cancelled), (200, report.cancelled));
    }
}

/// MAP-25: what was taken and dropped is gone before the next one is asked for.
pub(crate) fn a_result_that_was_taken_is_not_kept<B: Backend>() {
    let pool = B::pool(1);
    let dropped_here = format!("dropped in {}", process::id());
    for chunk in [1, 3] {
        let log = Log::new();
        let mut map = pool.map(Noted::new, (0..6).map(|_| log.path())).chunk_size(chunk);
        for taken in 1..=6 {
            drop(map.next().unwrap().unwrap());
            assert_eq!(log.lines().iter().filter(|line| **line == dropped_here).count(), taken, "chunks of {chunk}");
        }
    }
}

/// RES-10: not nothing, not an error, and not a panic that calls itself the end.
pub(crate) fn no_outcome_ends_a_map_early<B: Backend>() {
    let pool = B::pool(1);
    let call = |x: u32| match x {
        1 => panic!("StopIteration"),
        x => Some(x).filter(|x| x % 2 == 1),
    };
    for chunk in [1, 4] {
        let outcomes: Vec<_> = pool.map(call, 0..4).chunk_size(chunk).map(|outcome| outcome.ok()).collect();
        assert_eq!(outcomes, [Some(None), None, Some(None), Some(Some(3))]);
    }
}
