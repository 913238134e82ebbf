use crate::support::{
    Backend, Choices, DEADLINE, Gate, Key, Log, Noted, Processes, append, eventually, pass, promptly,
};
use concurrent_futures::{
    ALL_COMPLETED, AsyncResult, Cancelled, Executor, Exit, Future, Pool, WaitError, WhenFull, as_completed,
    current_task, wait,
};
use futures::future::join_all;
use std::{
    cell::Cell,
    panic::{self, AssertUnwindSafe},
    process,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

fn pool<B: Backend>(workers: usize) -> Pool<Box<dyn Executor>> {
    Pool::from(B::pool(workers))
}

fn cube(x: u64) -> u64 {
    x.pow(3)
}

fn reciprocal(x: u32) -> u32 {
    1 / x
}

/// POOL-01, POOL-02, AR-04.
pub(crate) fn a_call_is_applied<B: Backend>() {
    let pool = pool::<B>(2);
    assert_eq!(pool.apply(cube, 3).unwrap(), 27);
    let line = line!() + 1;
    let error = pool.apply(reciprocal, 0).unwrap_err();
    assert_eq!(error.panic_message(), Some("attempt to divide by zero"));
    assert_eq!((error.submitted_at().file(), error.submitted_at().line()), (file!(), line));
    assert!(error.panic_location().unwrap().starts_with(file!()), "{error}");

    let gate = Gate::new();
    let first = pool.apply_async(pass, gate.key());
    let second = pool.apply_async(cube, 2);
    assert_eq!(second.submitted_at().line(), line!() - 1);
    assert_eq!(second.get().unwrap(), 8);
    assert!(!first.ready());
    gate.open();
    first.get().unwrap();
    assert!(pool.apply_async(reciprocal, 0).get().unwrap_err().is_panic());
}

/// AR-01, AR-02, AR-03.
pub(crate) fn a_result_is_asked_for<B: Backend>() {
    let pool = pool::<B>(1);
    let gate = Gate::new();
    let result = pool.apply_async(pass, gate.key());
    assert!(!result.ready());
    assert_eq!(result.successful(), None);
    assert!(!result.wait_timeout(Duration::from_millis(1)) && !result.wait_timeout(Duration::ZERO));
    let result = match result.get_timeout(Duration::from_millis(1)) {
        Err(WaitError::Timeout(future)) => AsyncResult::from(future),
        other => panic!("too early: {other:?}"),
    };
    assert!(format!("{result:?}").starts_with("AsyncResult(Future<()>("));
    gate.open();
    result.wait();
    assert!(result.ready() && result.wait_timeout(Duration::ZERO));
    assert_eq!(result.successful(), Some(true));
    result.get_timeout(Duration::ZERO).unwrap();

    let failed = pool.apply_async(reciprocal, 0);
    assert!(failed.wait_timeout(DEADLINE));
    assert_eq!(failed.successful(), Some(false));
    assert!(matches!(failed.get_timeout(Duration::ZERO), Err(WaitError::Task(error)) if error.is_panic()));
}

/// AR-06: it is a future, for all that takes futures.
pub(crate) fn a_result_is_a_future<B: Backend>() {
    let pool = pool::<B>(2);
    let results: Vec<_> = (0..4).map(|x| pool.apply_async(cube, x)).collect();
    let plain: Future<u64> = pool.apply_async(cube, 9).into();
    assert_eq!(wait(&results, ALL_COMPLETED).done.len(), 4);
    assert_eq!(as_completed(&results).map(|result| *result.peek().unwrap().unwrap()).max(), Some(27));
    assert_eq!(as_completed([plain, pool.apply_async(cube, 1).into_inner()]).count(), 2);
    let cubes = futures::executor::block_on(join_all(results));
    assert_eq!(cubes.into_iter().collect::<Result<Vec<_>, _>>().unwrap(), [0, 1, 8, 27]);

    let gate = Gate::new();
    let running = [pool.apply_async(pass, gate.key()), pool.apply_async(pass, gate.key())];
    gate.await_arrivals(2);
    let pending = pool.apply_async(cube, 2);
    let whole = pool.map_async(cube, 0..100);
    assert!(pending.cancel() && whole.cancel());
    assert!(pending.ready() && whole.ready());
    assert!(pending.get().unwrap_err().is_cancelled() && whole.get().unwrap_err().is_cancelled());
    gate.open();
    running.into_iter().for_each(|result| result.get().unwrap());
}

/// AR-06: a whole map that is cancelled makes no call that has not begun.
pub(crate) fn a_whole_map_is_cancelled<B: Backend>() {
    let pool = pool::<B>(1);
    let (gate, log) = (Gate::new(), Log::new());
    let running = pool.apply_async(pass, gate.key());
    gate.await_arrivals(1);
    let whole = pool.chunk_size(3).map_async(|log: String| append(&log, "ran"), vec![log.path(); 50]);
    assert!(whole.cancel() && whole.cancelled());
    gate.open();
    running.get().unwrap();
    assert_eq!(pool.apply(cube, 2).unwrap(), 8);
    pool.join();
    assert!(log.lines().is_empty());
}

/// POOL-03, POOL-06, POOL-07, AR-05.
pub(crate) fn a_map_is_a_list<B: Backend>() {
    let pool = pool::<B>(2);
    let cubes: Vec<u64> = (0..50).map(cube).collect();
    assert_eq!(pool.map(cube, 0..50).unwrap(), cubes);
    assert_eq!(pool.map_async(cube, (0..50).filter(|_| true)).get().unwrap(), cubes);
    let powers: Vec<u64> = (0..20_u64).map(|x| x.pow(2)).collect();
    let pairs = || (0..20).map(|x| (x, 2));
    assert_eq!(pool.starmap(u64::pow, pairs()).unwrap(), powers);
    assert_eq!(pool.starmap_async(|x: u64, y| x.pow(y), pairs()).get().unwrap(), powers);
    for size in [1, 7, 50, 1000] {
        let pool = pool.chunk_size(size);
        assert_eq!(pool.map(cube, 0..50).unwrap(), cubes, "chunks of {size}");
        assert_eq!(pool.map_async(cube, 0..50).get().unwrap(), cubes, "chunks of {size}");
        assert_eq!(pool.starmap(u64::pow, pairs()).unwrap(), powers, "chunks of {size}");
        assert_eq!(pool.starmap_async(u64::pow, pairs()).get().unwrap(), powers, "chunks of {size}");
    }
    let nothing: Vec<u64> = Vec::new();
    assert_eq!(pool.map(cube, []).unwrap(), nothing);
    assert_eq!(pool.chunk_size(3).map(cube, []).unwrap(), nothing);
    assert_eq!(pool.starmap(u64::pow, []).unwrap(), nothing);
    let none = pool.map_async(cube, []);
    assert!(none.ready() && none.successful() == Some(true));
    assert_eq!(none.get().unwrap(), nothing);
    assert_eq!(pool.starmap_async(u64::pow, []).get().unwrap(), nothing);
    assert_eq!(pool.imap(cube, []).count() + pool.imap_unordered(cube, []).count(), 0);
}

/// POOL-08, POOL-09: whatever the chunks are, and although the second and the fifth fail.
pub(crate) fn every_item_is_called<B: Backend>() {
    let pool = pool::<B>(2);
    for size in [1, 3, 6] {
        for is_async in [false, true] {
            let log = Log::new();
            let call = |(log, item): (String, u32)| {
                append(&log, &item.to_string());
                assert!(item != 1 && item != 4, "item {item}");
            };
            let items = (0..6).map(|item| (log.path(), item));
            let pool = pool.chunk_size(size);
            let outcome = if is_async { pool.map_async(call, items).get() } else { pool.map(call, items) };
            assert_eq!(outcome.unwrap_err().panic_message(), Some("item 1"), "the first, not the fastest");
            let mut ran = log.lines();
            ran.sort();
            assert_eq!(ran, ["0", "1", "2", "3", "4", "5"], "in chunks of {size}");
        }
    }
}

/// POOL-10: it is the caller's own, and comes as it is.
pub(crate) fn a_panicking_input_is_the_callers<B: Backend>() {
    let pool = pool::<B>(1);
    let items = || (0..5).map(|x| if x == 3 { panic!("at the input") } else { x });
    let ways: [&dyn Fn(); 4] = [
        &|| drop(pool.map(cube, items())),
        &|| drop(pool.map_async(cube, items())),
        &|| pool.imap(cube, items()).for_each(drop),
        &|| pool.imap_unordered(cube, items()).for_each(drop),
    ];
    for way in ways {
        let payload = panic::catch_unwind(AssertUnwindSafe(way)).unwrap_err();
        assert_eq!(*payload.downcast::<&str>().unwrap(), "at the input");
    }
    assert_eq!(pool.map(cube, [2]).unwrap(), [8], "the pool goes on");
}

/// POOL-05, POOL-11, POOL-12.
pub(crate) fn imap_gives_each_in_order<B: Backend>() {
    let pool = pool::<B>(2);
    let gate = Gate::new();
    let call = |(key, x): (Option<Key>, u32)| {
        key.into_iter().for_each(pass);
        1 / x
    };
    let mut results = pool.imap(call, [(Some(gate.key()), 1), (None, 0), (None, 1)]);
    for limit in [Duration::ZERO, Duration::from_millis(1)] {
        let error = results.next_timeout(limit).unwrap_err();
        assert_eq!(error.to_string(), format!("the next result was not there within {limit:?}"));
    }
    gate.await_arrivals(1);
    gate.open();
    assert_eq!(results.next_timeout(DEADLINE).unwrap().unwrap().unwrap(), 1);
    assert!(results.next().unwrap().unwrap_err().is_panic());
    assert_eq!(results.next_timeout(DEADLINE).unwrap().unwrap().unwrap(), 1);
    assert!(results.next_timeout(Duration::ZERO).unwrap().is_none() && results.next().is_none());

    // Each item is a call of its own unless told: the first one is there while the second one is made.
    let gate = Gate::new();
    let mut results = pool.imap(|key: Option<Key>| key.map(pass), [None, Some(gate.key())]).start();
    gate.await_arrivals(1);
    assert!(promptly_next(&mut results).unwrap().is_none());
    gate.open();
    assert_eq!(results.count(), 1);
    let cubes: Result<Vec<_>, _> = pool.imap(cube, 0..20).chunk_size(7).collect();
    assert_eq!(cubes.unwrap(), (0..20).map(cube).collect::<Vec<_>>());
}

#[track_caller]
fn promptly_next<I: Iterator<Item: concurrent_futures::Value>, R: concurrent_futures::Value>(
    results: &mut concurrent_futures::Map<'_, I, R>,
) -> Result<R, concurrent_futures::TaskError> {
    results.next_timeout(DEADLINE).expect("it hangs").expect("a result is to come")
}

/// POOL-05, POOL-13.
pub(crate) fn imap_unordered_gives_each_as_it_is_there<B: Backend>() {
    let pool = pool::<B>(2);
    let gate = Gate::new();
    let call = |(key, x): (Option<Key>, u32)| {
        key.into_iter().for_each(pass);
        x
    };
    let items = (0..10).map(|x| ((x == 0).then(|| gate.key()), x));
    let mut results = pool.imap_unordered(call, items);
    let mut seen: Vec<u32> = (0..9).map(|_| promptly_next(&mut results).unwrap()).collect();
    seen.sort_unstable();
    assert_eq!(seen, (1..10).collect::<Vec<_>>(), "all but the one at the gate");
    assert!(results.next_timeout(Duration::ZERO).is_err());
    gate.open();
    assert_eq!(promptly_next(&mut results).unwrap(), 0);
    assert!(results.next().is_none());
}

/// POOL-14, POOL-15.
pub(crate) fn imap_pulls_what_there_is_room_for<B: Backend>() {
    let pool = pool::<B>(2);
    let pulled = Cell::new(0);
    let mut results = pool.imap(cube, (0..).inspect(|_| pulled.set(pulled.get() + 1))).buffer(5);
    for taken in 0..100 {
        assert_eq!(promptly_next(&mut results).unwrap(), cube(taken));
        assert!(pulled.get() <= taken + 1 + 5, "{} were pulled, and {} taken", pulled.get(), taken + 1);
    }
    assert!(pulled.get() >= 100);
}

/// POOL-15: whoever waits for the next one is let go.
pub(crate) fn terminating_ends_an_imap<B: Backend>() {
    let pool = pool::<B>(1);
    let log = Log::new();
    thread::scope(|scope| {
        let waits = scope.spawn(|| pool.imap(patient, (0..).map(|_| log.path())).find(Result::is_err));
        eventually("a call", || !log.lines().is_empty());
        pool.terminate();
        let error = waits.join().unwrap().unwrap().unwrap_err();
        assert!(error.is_killed() || error.is_cancelled() || error.is_shutdown(), "{error}");
    });
}

/// A call that ends when it is asked to.
fn patient(log: String) -> Result<(), Cancelled> {
    append(&log, "here");
    let began = Instant::now();
    while began.elapsed() < DEADLINE {
        current_task().check_cancelled()?;
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// POOL-16, POOL-17.
pub(crate) fn a_closed_pool_finishes_what_it_has<B: Backend>() {
    let pool = pool::<B>(1);
    let (gate, log) = (Gate::new(), Log::new());
    let first = pool.apply_async(pass, gate.key());
    let second = pool.apply_async(cube, 2);
    let whole = pool.map_async(|log: String| append(&log, "ran"), vec![log.path(); 50]);
    let each = pool.imap(cube, 0..50);
    pool.close();
    pool.close();
    for error in [
        pool.apply(cube, 1).map(drop),
        pool.apply_async(cube, 1).get().map(drop),
        pool.map(cube, [1]).map(drop),
        pool.chunk_size(2).map(cube, [1]).map(drop),
        pool.map_async(cube, [1]).get().map(drop),
        pool.starmap(u64::pow, [(1, 1)]).map(drop),
        pool.starmap_async(u64::pow, [(1, 1)]).get().map(drop),
        pool.imap(cube, [1]).next().unwrap().map(drop),
        pool.imap_unordered(cube, [1]).next().unwrap().map(drop),
    ] {
        assert!(error.unwrap_err().is_shutdown());
    }
    gate.open();
    assert_eq!(each.map(Result::unwrap).collect::<Vec<_>>(), (0..50).map(cube).collect::<Vec<_>>());
    assert!(pool.join().is_complete());
    assert!(first.ready() && second.ready() && whole.ready(), "joining waits");
    assert_eq!(second.get().unwrap(), 8);
    assert_eq!(whole.get().unwrap().len(), 50);
    assert_eq!(log.lines().len(), 50);
}

/// POOL-17: it needs not be closed before. Joining it twice is the compiler's error.
pub(crate) fn joining_waits_for_everything<B: Backend>() {
    let pool = pool::<B>(2);
    let log = Log::new();
    let results: Vec<_> = (0..50).map(|_| pool.apply_async(|log: String| append(&log, "ran"), log.path())).collect();
    pool.join();
    assert_eq!(log.lines().len(), 50);
    assert!(results.iter().all(|result| result.successful() == Some(true)));
}

/// POOL-18, POOL-20: with ten thousand calls that wait, each of which would take longer than anybody does.
pub(crate) fn terminating_ends_everything<B: Backend>() {
    let pool = pool::<B>(1);
    let log = Log::new();
    let running = pool.apply_async(patient, log.path());
    eventually("the first call", || !log.lines().is_empty());
    let waiting: Vec<_> = (0..10_000).map(|_| pool.apply_async(patient, log.path())).collect();
    let whole = pool.map_async(patient, vec![log.path(); 10]);
    let report = pool.terminate();
    // A worker that is let go meanwhile cancels some of them itself.
    assert!(report.cancelled > 9_000, "{report:?}");
    let waiting = promptly(|| waiting.into_iter().map(AsyncResult::get).collect::<Vec<_>>());
    assert!(waiting.into_iter().all(|result| result.unwrap_err().is_cancelled()));
    let error = promptly(|| whole.get()).unwrap_err();
    assert!(error.is_cancelled(), "{error}");
    match promptly(|| running.get()) {
        Ok(asked) => assert_eq!(asked, Err(Cancelled)),
        Err(killed) => assert!(killed.is_killed(), "{killed}"),
    }
    assert!(pool.apply(cube, 1).unwrap_err().is_shutdown());
    pool.join();
    assert_eq!(log.lines().len(), 1);
}

/// POOL-19, POOL-23: as at the end of Python's `with`. A scope waits.
pub(crate) fn dropping_terminates<B: Backend>() {
    let log = Log::new();
    let (done, running, waiting) = {
        let pool = pool::<B>(1);
        let done = pool.apply_async(cube, 2);
        done.wait();
        let running = pool.apply_async(patient, log.path());
        eventually("the second call", || !log.lines().is_empty());
        (done, running, pool.apply_async(cube, 3))
    };
    assert_eq!(done.get().unwrap(), 8);
    assert!(promptly(|| waiting.get()).unwrap_err().is_cancelled());
    assert!(!matches!(promptly(|| running.get()), Ok(Ok(()))), "it was stopped");

    let results = pool::<B>(1).scope(|pool| [1, 2, 3].map(|x| pool.apply_async(cube, x)));
    assert!(results.iter().all(|result| result.successful() == Some(true)));

    let gate = Gate::new();
    let mut waiting = None;
    let scope = panic::catch_unwind(AssertUnwindSafe(|| {
        pool::<B>(1).scope(|pool| {
            let _running = pool.apply_async(pass, gate.key());
            gate.await_arrivals(1);
            waiting = Some(pool.apply_async(cube, 1));
            panic!("in the scope");
        })
    }));
    assert!(scope.is_err() && waiting.unwrap().get().unwrap_err().is_cancelled());
}

/// POOL-22: whatever it carries.
pub(crate) fn every_panic_is_caught<B: Backend>() {
    let pool = pool::<B>(1);
    let worker = pool.apply(|()| process::id(), ()).unwrap();
    assert!(pool.apply(|()| -> () { panic::panic_any(7) }, ()).unwrap_err().is_panic());
    assert!(pool.apply(|()| -> () { panic::resume_unwind(Box::new(())) }, ()).unwrap_err().is_panic());
    assert_eq!(pool.apply(|()| process::id(), ()).unwrap(), worker, "its worker lives");
}

/// POOL-23, POOL-24: its calls are not made, and nobody waits for them.
pub(crate) fn a_program_that_ends_drops_what_waits<B: Backend>() {
    let (gate, log) = (Gate::new(), Log::new());
    let program = |(key, log): (Key, String)| -> () {
        {
            let pool = pool::<B>(1);
            let running = pool.apply_async(pass, key);
            eventually("the first call", || running.running());
            for _ in 0..4 {
                drop(pool.apply_async(|log: String| append(&log, "ran"), log.clone()));
            }
        }
        process::exit(7);
    };
    let future = Processes::pool(1).submit(program, (gate.key(), log.path()));
    let lost = promptly(|| future.result().unwrap_err());
    assert_eq!(lost.worker_lost().expect("it exited").exit, Exit::Code(7));
    gate.open();
    assert!(log.lines().is_empty());
}

/// POOL-29: by the time the result is there, nothing is left of the arguments, and later nothing of the result.
pub(crate) fn nothing_is_kept<B: Backend>() {
    let pool = pool::<B>(1);
    let log = Log::new();
    let all_gone = || {
        let lines = log.lines();
        lines.iter().filter(|line| line.starts_with("made")).count() * 2 == lines.len()
    };
    pool.apply(|noted: Noted| drop(noted), Noted::new(log.path())).unwrap();
    assert!(all_gone(), "{:?}", log.lines());
    drop(pool.apply(|noted: Noted| noted, Noted::new(log.path())).unwrap());
    eventually("the worker's own is gone", all_gone);
    drop(pool.map_async(|noted: Noted| noted, (0..5).map(|_| Noted::new(log.path()))).get().unwrap());
    eventually("the worker's own are gone", all_gone);
    assert!(log.lines().len() >= 14);
}

/// POOL-30.
pub(crate) fn a_pool_in_a_worker_works<B: Backend>() {
    let outer = pool::<B>(1);
    let inner = |items: Vec<u64>| pool::<B>(2).map(cube, items).map_err(|error| error.to_string());
    assert_eq!(outer.apply(inner, vec![1, 2]).unwrap().unwrap(), [1, 8]);
}

/// CB-15, CB-17, CB-18.
pub(crate) fn callbacks_come_before_the_result<B: Backend>() {
    let pool = pool::<B>(1);
    let gate = Gate::new();
    let (tell, told) = mpsc::channel();
    let (one, other, all, none) = (tell.clone(), tell.clone(), tell.clone(), tell);
    let running = pool.apply_async(pass, gate.key());
    let value = pool.apply_async(cube, 2);
    let value = value.callback(move |value| one.send(format!("{value}")).unwrap()).error_callback(|_| unreachable!());
    let failed = pool.apply_async(reciprocal, 0).callback(|_| unreachable!());
    let failed = failed.error_callback(move |error| other.send(error.panic_message().unwrap().to_owned()).unwrap());
    let whole = pool.chunk_size(1).map_async(cube, 0..4);
    let whole = whole.callback(move |cubes| all.send(format!("{cubes:?}")).unwrap());
    gate.open();
    running.get().unwrap();
    assert_eq!((value.get().unwrap(), told.try_recv().unwrap()), (8, "8".to_owned()));
    assert!(failed.get().is_err());
    assert_eq!(told.try_recv().unwrap(), "attempt to divide by zero");
    assert_eq!(whole.get().unwrap(), [0, 1, 8, 27]);
    assert_eq!(told.try_recv().unwrap(), "[0, 1, 8, 27]");
    let (open, closed) = mpsc::channel::<()>();
    let held = pool.apply_async(cube, 2).callback(move |_| assert!(closed.recv().is_err()));
    eventually("its call is over", || held.done());
    assert!(!held.ready() && held.successful().is_none(), "its callback is still running");
    drop(open);
    assert_eq!(held.get().unwrap(), 8);
    let nothing = pool.map_async(cube, []).callback(move |cubes| none.send(format!("{cubes:?}")).unwrap());
    assert_eq!((nothing.get().unwrap().len(), told.try_recv().unwrap()), (0, "[]".to_owned()));
    assert!(told.recv().is_err(), "each was called once");
}

/// A whole map with more chunks than a pool of limited capacity takes waits for room.
pub(crate) fn a_whole_map_finds_room<B: Backend>() {
    for when_full in [WhenFull::Block, WhenFull::Reject] {
        let choices = Choices { queue_capacity: Some((1, when_full)), ..Choices::default() };
        let pool = Pool::from(B::pool_of(1, choices));
        let cubes = pool.chunk_size(1).map_async(cube, 0..30).get().unwrap();
        assert_eq!(cubes, (0..30).map(cube).collect::<Vec<_>>());
    }
}

/// POOL-11: the limit of a whole map goes before that of one wait, and a wait for room has that limit, too.
pub(crate) fn limits_of_a_wait_and_of_a_map_are_told_apart<B: Backend>() {
    let pool = B::pool_of(1, Choices { queue_capacity: Some((0, WhenFull::Reject)), ..Choices::default() });
    let gate = Gate::new();
    let running = pool.submit(pass, gate.key());
    gate.await_arrivals(1);
    let mut limited = pool.map(cube, 0..3).timeout(Duration::from_millis(5));
    assert!(limited.next_timeout(DEADLINE).unwrap().unwrap().unwrap_err().is_map_timeout());
    assert!(limited.next().is_none());
    let mut waiting = [pool.map(cube, [2]), pool.map(cube, [2]).unordered()];
    for map in &mut waiting {
        assert!(map.next_timeout(Duration::from_millis(1)).is_err(), "there is no room");
    }
    gate.open();
    running.wait();
    for mut map in waiting {
        assert_eq!(map.next_timeout(DEADLINE).unwrap().unwrap().unwrap(), 8);
        assert!(map.next_timeout(Duration::ZERO).unwrap().is_none());
    }
}
