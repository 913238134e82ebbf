use crate::support::{Backend, Gate, Processes, Threads, pass};
use concurrent_futures::{
    ALL_COMPLETED, Executor, FIRST_COMPLETED, FIRST_EXCEPTION, Future, ReturnWhen, as_completed, wait, wait_timeout,
};
use std::{collections::HashSet, time::Duration};

const ALL: [ReturnWhen; 3] = [FIRST_COMPLETED, FIRST_EXCEPTION, ALL_COMPLETED];

/// WAIT-01, WAIT-03, WAIT-04: values, errors and cancellations alike.
pub(crate) fn all_completed_takes_every_ending<B: Backend>() {
    let pool = B::pool(1);
    let gate = Gate::new();
    let blocker = pool.submit(pass, gate.key());
    let futures: Vec<_> = (0..6).map(|x| pool.submit(|x: u32| if x == 2 { panic!("two") } else { x }, x)).collect();
    assert!(futures[3].cancel());
    assert_eq!(wait_timeout(&futures, ALL_COMPLETED, Duration::ZERO).done, [&futures[3]]);
    gate.open();
    let waited = wait(&futures, ALL_COMPLETED);
    assert_eq!((waited.done.len(), waited.not_done.len()), (6, 0));
    assert!(futures.iter().all(Future::done));
    blocker.result().unwrap();
    let owned = wait(futures, ALL_COMPLETED);
    assert_eq!(owned.done.into_iter().filter(|future| future.exception().is_none()).count(), 4);
}

/// WAIT-05.
pub(crate) fn first_completed_returns_with_what_is_done<B: Backend>() {
    let pool = B::pool(2);
    let gate = Gate::new();
    let slow = pool.submit(pass, gate.key());
    let quick = pool.submit(|()| (), ());
    let waited = wait([&slow, &quick], FIRST_COMPLETED);
    assert_eq!((waited.done, waited.not_done), (vec![&quick], vec![&slow]));
    let again = wait([&slow, &quick], FIRST_COMPLETED);
    assert_eq!(again.done, [&quick]);
    assert!(!slow.done());
}

/// WAIT-06, WAIT-07.
pub(crate) fn first_exception_ignores_values_and_cancellations<B: Backend>() {
    let pool = B::pool(2);
    let (gate, other) = (Gate::new(), Gate::new());
    let slow = pool.submit(pass, gate.key());
    let blocked = pool.submit(pass, other.key());
    other.await_arrivals(1);
    gate.await_arrivals(1);
    let cancelled = pool.submit(|()| (), ());
    assert!(cancelled.cancel());
    let value = pool.submit(|()| (), ());
    let failed = pool.submit(|()| panic!("failed"), ());
    let all = [&slow, &cancelled, &value, &failed];
    let early = wait_timeout([&slow, &cancelled], FIRST_EXCEPTION, Duration::from_millis(10));
    assert_eq!((early.done.len(), early.not_done), (1, vec![&slow]), "a cancellation is no failure");
    other.open();
    let waited = wait(all, FIRST_EXCEPTION);
    assert!(waited.done.contains(&&failed) && waited.not_done.contains(&&slow), "{waited:?}");
    let at_once = wait([&slow, &failed], FIRST_EXCEPTION);
    assert_eq!(at_once.done, [&failed]);
    gate.open();
    blocked.result().unwrap();
    assert_eq!(wait([&slow, &value, &cancelled], FIRST_EXCEPTION).done.len(), 3, "without a failure, all");
}

/// WAIT-08, WAIT-09, WAIT-12: and waiting a thousand times leaves nothing behind that would be told twice.
pub(crate) fn a_limit_is_no_error<B: Backend>() {
    let pool = B::pool(1);
    let gate = Gate::new();
    let futures = [pool.submit(|()| (), ()), pool.submit(pass, gate.key()), pool.submit(|()| (), ())];
    futures[0].wait();
    for _ in 0..1000 {
        let waited = wait_timeout(&futures, ALL_COMPLETED, Duration::ZERO);
        assert_eq!(waited.done, [&futures[0]]);
        assert_eq!(waited.not_done, [&futures[1], &futures[2]]);
    }
    gate.open();
    assert_eq!(wait_timeout(&futures, ALL_COMPLETED, Duration::MAX).done.len(), 3);
}

/// WAIT-02, WAIT-10, ASC-02, ASC-12.
pub(crate) fn duplicates_and_nothing<B: Backend>() {
    let pool = B::pool(1);
    let future = pool.submit(|x: u8| x, 1);
    for until in ALL {
        let waited = wait([&future, &future, &future], until);
        assert_eq!((waited.done.len(), waited.not_done.len()), (1, 0));
        let nothing = wait(Vec::<Future<u8>>::new(), until);
        assert!(nothing.done.is_empty() && nothing.not_done.is_empty());
    }
    assert_eq!(as_completed([&future, &future]).count(), 1);
    assert_eq!(as_completed(Vec::<Future<u8>>::new()).count(), 0);
}

/// FUT-15, ASC-10.
pub(crate) fn executors_can_be_mixed<B: Backend>() {
    let pools = [B::pool(1), Threads::pool(1), Processes::pool(1)];
    let futures: Vec<_> = pools.iter().cycle().zip(0..12).map(|(pool, x)| pool.submit(|x: u32| x, x)).collect();
    assert_eq!(wait(&futures, ALL_COMPLETED).done.len(), 12);
    let values: HashSet<u32> = as_completed(futures).map(|future| future.result().unwrap()).collect();
    assert_eq!(values.len(), 12);
}

/// WAIT-13.
pub(crate) fn completions_during_registration_are_seen<B: Backend>() {
    let pool = B::pool(2);
    for _ in 0..30 {
        let futures: Vec<_> = (0..40).map(|x| pool.submit(|x: u32| x, x)).collect();
        assert_eq!(wait(&futures, ALL_COMPLETED).done.len(), 40);
        assert_eq!(as_completed(futures).count(), 40);
    }
}
