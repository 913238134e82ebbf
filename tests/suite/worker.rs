//! How long workers live, what they do first and last, and what one call leaves to the next.

use crate::support::{Backend, Choices, Gate, Log, append, pass, tries};
use concurrent_futures::{Executor, Shutdown};
use std::{
    cell::RefCell,
    thread,
    time::{Duration, Instant},
};

/// INI-01, INI-09, INI-10: what one call leaves in its worker, the next one on that worker finds; and every worker says
/// goodbye, once, before a shutdown that waits returns.
pub(crate) fn state_lives_as_long_as_its_worker<B: Backend>() {
    thread_local! {
        static STATE: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }
    let log = Log::new();
    let choices = Choices {
        initializer: Some((|log| STATE.with_borrow_mut(|state| state.push(log)), log.path())),
        finalizer: Some((|log| append(&log, &format!("{} calls", STATE.with_borrow(Vec::len) - 1)), log.path())),
        ..Choices::default()
    };
    let pool = B::pool_of(1, choices);
    let remember = |word: String| {
        STATE.with_borrow_mut(|state| {
            state.push(word);
            state.len()
        })
    };
    let lengths: Vec<_> =
        ["one", "two", "three"].map(|word| pool.submit(remember, word.into()).result().unwrap()).to_vec();
    assert_eq!(lengths, [2, 3, 4], "the initializer's, and one for each call");
    assert!(log.lines().is_empty());
    assert!(pool.shutdown(Shutdown::wait()).is_complete());
    assert_eq!(log.lines(), ["3 calls"]);
}

/// INI-09: one that panics costs nothing but its own end.
pub(crate) fn a_failing_finalizer_hurts_nobody<B: Backend>() {
    let log = Log::new();
    let fails = |log: String| {
        append(&log, "goodbye");
        panic!("on purpose");
    };
    let pool = B::pool_of(2, Choices { finalizer: Some((fails, log.path())), ..Choices::default() });
    let gate = Gate::new();
    let futures: Vec<_> = (0..2).map(|_| pool.submit(pass, gate.key())).collect();
    gate.await_arrivals(2);
    gate.open();
    futures.into_iter().for_each(|future| future.result().unwrap());
    assert!(pool.shutdown(Shutdown::wait()).is_complete());
    assert_eq!(log.lines().len(), 2);
}

/// INI-09: what is too long to be sent at once arrives all the same, though the pool is closed at once.
pub(crate) fn a_finalizer_may_have_much_to_read<B: Backend>() {
    let counts = |text: String| {
        let (log, rest) = text.split_once('|').unwrap();
        append(log, &rest.len().to_string());
    };
    for closes_at_once in [true, false] {
        let log = Log::new();
        let text = format!("{}|{}", log.path(), "x".repeat(1 << 20));
        let pool = B::pool_of(2, Choices { finalizer: Some((counts, text)), ..Choices::default() });
        let gate = Gate::new();
        let futures: Vec<_> = (0..2).map(|_| pool.submit(pass, gate.key())).collect();
        gate.await_arrivals(2);
        gate.open();
        if closes_at_once {
            drop(pool);
        } else {
            futures.into_iter().for_each(|future| future.result().unwrap());
            assert!(pool.shutdown(Shutdown::wait()).is_complete());
        }
        assert_eq!(log.lines(), ["1048576", "1048576"]);
    }
}

/// WRK-11: a call that comes as the last worker leaves is made all the same.
pub(crate) fn a_call_meets_a_leaving_worker<B: Backend>() {
    let pool = B::pool_of(1, Choices { idle_timeout: Some(Duration::from_micros(200)), ..Choices::default() });
    for x in tries(300) {
        assert_eq!(pool.submit(|x: u32| x, x).result().unwrap(), x);
        let began = Instant::now();
        while began.elapsed() < Duration::from_micros(u64::from(x % 40) * 20) {
            thread::yield_now();
        }
    }
}
