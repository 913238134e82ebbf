//! What ordering means, as properties over every backend. Pools are made once: a property is tried on many inputs.

use crate::support::{Backend, Gate, Log, Processes, Threads, append, pass};
use concurrent_futures::{
    ALL_COMPLETED, Executor, FIRST_COMPLETED, FIRST_EXCEPTION, Future, ReturnWhen, as_completed, wait_timeout,
};
use proptest::{prelude::*, sample::Index, test_runner::TestRunner};
use std::{
    collections::HashSet,
    panic::resume_unwind,
    thread,
    time::{Duration, Instant},
};

fn each_backend(cases: u32, check: impl Fn(&mut TestRunner, &dyn Fn(usize) -> Box<dyn Executor>)) {
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    for pool in [Threads::pool, Processes::pool] {
        check(&mut TestRunner::new(config.clone()), &pool);
    }
}

/// Takes its time, and fails if it is asked to.
fn item((x, micros, fails): (u32, u64, bool)) -> u32 {
    let began = Instant::now();
    while began.elapsed() < Duration::from_micros(micros) {
        thread::yield_now();
    }
    if fails {
        resume_unwind(Box::new(format!("{x} was asked to fail"))); // a panic that prints nothing
    }
    x
}

/// MAP-01, MAP-11, MAP-21: whatever items take, wherever they are cut into chunks, whichever fail.
#[test]
fn map_keeps_the_order_of_its_items() {
    let items = prop::collection::vec((0..300_u64, prop::bool::weighted(0.1)), 0..120);
    let options = (prop::option::of(1..20_usize), prop::option::of(1..50_usize));
    each_backend(24, |runner, pool| {
        let pool = pool(2);
        let property = runner.run(&(items.clone(), options.clone()), |(items, (chunk, buffer))| {
            let inputs: Vec<_> = (0..).zip(&items).map(|(x, (micros, fails))| (x, *micros, *fails)).collect();
            let mut map = pool.map(item, inputs.clone());
            if let Some(chunk) = chunk {
                map = map.chunk_size(chunk);
            }
            if let Some(buffer) = buffer {
                map = map.buffer(buffer);
            }
            let mut results = 0;
            for ((x, _, fails), outcome) in inputs.iter().zip(map) {
                prop_assert_eq!(outcome.ok(), (!fails).then_some(*x));
                results += 1;
            }
            prop_assert_eq!(results, inputs.len());
            Ok(())
        });
        property.unwrap();
    });
}

/// MAP-26: the same results as in order, each once.
#[test]
fn unordered_map_is_a_permutation() {
    let items = prop::collection::vec(0..300_u64, 0..120);
    each_backend(16, |runner, pool| {
        let pool = pool(2);
        let property = runner.run(&(items.clone(), prop::option::of(1..20_usize)), |(items, chunk)| {
            let inputs = (0..).zip(&items).map(|(x, micros)| (x, *micros, false));
            let mut map = pool.map(item, inputs.collect::<Vec<_>>()).unordered();
            if let Some(chunk) = chunk {
                map = map.chunk_size(chunk);
            }
            let mut results: Vec<_> = map.map(Result::unwrap).collect();
            results.sort_unstable();
            prop_assert!(results.into_iter().eq(0..items.len() as u32));
            Ok(())
        });
        property.unwrap();
    });
}

/// ASC-01: the tasks are let go in an order of the test's own, each only when the one before is done.
#[test]
fn as_completed_yields_each_once_in_completion_order() {
    let order = Just((0..5_usize).collect::<Vec<_>>()).prop_shuffle();
    each_backend(12, |runner, pool| {
        let pool = pool(5);
        let property = runner.run(&(order.clone(), any::<Index>()), |(order, cancelled)| {
            let gates: Vec<_> = order.iter().map(|_| Gate::new()).collect();
            let mut futures: Vec<_> = gates.iter().map(|gate| pool.submit(pass, gate.key())).collect();
            gates.iter().for_each(|gate| gate.await_arrivals(1));
            // One more, behind the others, that is cancelled somewhere in between.
            let waiting = futures.len();
            futures.push(pool.submit(pass, gates[0].key()));
            let cancelled = cancelled.index(order.len());
            let each = as_completed(&futures);
            let mut expected = Vec::new();
            for (position, index) in order.iter().enumerate() {
                // Workers are all taken until the first gate opens, so only then is it sure not to have begun.
                let cancels = position == 0 || position == cancelled && !futures[waiting].done();
                if cancels && futures[waiting].cancel() {
                    expected.push(waiting);
                }
                gates[*index].open();
                futures[*index].wait();
                expected.push(*index);
            }
            let seen: Vec<_> =
                each.map(|done| futures.iter().position(|future| future == done).expect("one of them")).collect();
            prop_assert_eq!(seen, expected);
            Ok(())
        });
        property.unwrap();
    });
}

/// SUB-04: with one worker calls begin exactly in the order of their submission, whatever is cancelled in between.
#[test]
fn one_worker_starts_calls_in_the_order_of_submission() {
    let cancels = prop::collection::vec(prop::bool::weighted(0.2), 1..80);
    each_backend(12, |runner, pool| {
        let pool = pool(1);
        let property = runner.run(&cancels, |cancels| {
            let (gate, log) = (Gate::new(), Log::new());
            let first = pool.submit(pass, gate.key());
            gate.await_arrivals(1);
            let note = |(log, x): (String, usize)| append(&log, &x.to_string());
            let futures: Vec<_> = (0..cancels.len()).map(|x| pool.submit(note, (log.path(), x))).collect();
            for (future, cancel) in futures.iter().zip(&cancels) {
                prop_assert!(!cancel || future.cancel());
            }
            gate.open();
            first.wait();
            futures.iter().for_each(Future::wait);
            let kept = (0..cancels.len()).filter(|x| !cancels[*x]).map(|x| x.to_string());
            prop_assert!(log.lines().into_iter().eq(kept), "{:?}", log.lines());
            Ok(())
        });
        property.unwrap();
    });
}

/// WAIT-01, WAIT-09: done and not done partition the distinct inputs, also when completions race with the limit.
#[test]
fn wait_partitions_its_input() {
    let tasks = prop::collection::vec((0..400_u64, prop::bool::weighted(0.1)), 1..30);
    let until = prop::sample::select(vec![FIRST_COMPLETED, FIRST_EXCEPTION, ALL_COMPLETED]);
    let picks = prop::collection::vec(any::<Index>(), 0..40);
    each_backend(24, |runner, pool| {
        let pool = pool(2);
        let strategy = (tasks.clone(), until.clone(), picks.clone(), 0..600_u64);
        let property = runner.run(&strategy, |(tasks, until, picks, micros)| {
            let futures: Vec<_> =
                (0..).zip(&tasks).map(|(x, (micros, fails))| pool.submit(item, (x, *micros, *fails))).collect();
            let given: Vec<_> = picks.iter().map(|pick| &futures[pick.index(futures.len())]).collect();
            let waited = wait_timeout(given.iter().copied(), until, Duration::from_micros(micros));
            let distinct: HashSet<_> = given.iter().map(|future| future.id()).collect();
            let (done, rest) = (&waited.done, &waited.not_done);
            let union: HashSet<_> = done.iter().chain(rest).map(|future| future.id()).collect();
            prop_assert_eq!(done.len() + rest.len(), distinct.len());
            prop_assert_eq!(union, distinct);
            prop_assert!(done.iter().all(|future| future.done()));
            if until == ReturnWhen::AllCompleted && rest.is_empty() {
                prop_assert!(given.iter().all(|future| future.done()));
            }
            futures.iter().for_each(Future::wait);
            Ok(())
        });
        property.unwrap();
    });
}
