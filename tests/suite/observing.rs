//! What is counted of calls, listed of those that run, and told to observers.

use crate::support::{Backend, Choices, Gate, Recorder, eventually, pass};
use concurrent_futures::{Executor, RetryPolicy, Shutdown, TaskEventKind, TaskOptions, WhenFull, WorkerEventKind};
use std::sync::{Arc, mpsc};

fn double(x: u64) -> u64 {
    2 * x
}

/// Each call is in one of the counters, and in the right one.
pub(crate) fn counters_follow_calls<B: Backend>() {
    let pool = B::pool(1);
    let idle = pool.stats();
    assert_eq!((idle.max_workers, idle.unfinished(), idle.finished()), (1, 0, 0));

    let gate = Gate::new();
    let held = pool.submit(pass, gate.key());
    gate.await_arrivals(1);
    let waiting: Vec<_> = (0..4).map(|x| pool.submit(double, x)).collect();
    let stats = pool.stats();
    assert_eq!((stats.running, stats.queued, stats.workers), (1, 4, 1), "{stats}");

    assert!(waiting[1].cancel());
    let stats = pool.stats();
    assert_eq!((stats.running, stats.queued, stats.cancelled), (1, 3, 1), "{stats}");

    gate.open();
    held.result().unwrap();
    let given = waiting.into_iter().filter_map(|future| future.result().ok()).collect::<Vec<_>>();
    assert_eq!(given, [0, 4, 6]);
    assert!(pool.submit(|x: u32| 10 / x, 0).result().is_err());
    let stats = pool.stats();
    assert_eq!((stats.done, stats.failed, stats.cancelled, stats.unfinished()), (4, 1, 1, 0), "{stats}");

    // What is found cancelled in the queue is counted once.
    let gate = Gate::new();
    let held = pool.submit(pass, gate.key());
    gate.await_arrivals(1);
    let waiting: Vec<_> = (0..4).map(|x| pool.submit(double, x)).collect();
    assert!(waiting[0].cancel());
    gate.open();
    held.result().unwrap();
    eventually("all are over", || waiting.iter().all(|future| future.done()));
    let end = pool.shutdown(Shutdown::wait().cancel_pending());
    assert_eq!(end.unfinished, 0);
    let stats = pool.stats();
    assert_eq!((stats.done, stats.failed, stats.cancelled), (8, 1, 2), "{stats}");
    assert_eq!((stats.unfinished(), stats.workers, stats.lost_workers), (0, 0, 0), "{stats}");
}

/// Also those that a shutdown cancels, and those of a pool that is full.
pub(crate) fn counters_end_with_the_pool<B: Backend>() {
    for queue_capacity in [None, Some((8, WhenFull::Block))] {
        let pool = B::pool_of(1, Choices { queue_capacity, ..Choices::default() });
        let gate = Gate::new();
        let held = pool.submit(pass, gate.key());
        gate.await_arrivals(1);
        let waiting: Vec<_> = (0..6).map(|x| pool.submit(double, x)).collect();
        pool.shutdown(Shutdown::no_wait().cancel_pending());
        gate.open();
        pool.shutdown(Shutdown::wait());
        held.result().unwrap();
        let stats = pool.stats();
        assert_eq!((stats.done, stats.cancelled, stats.unfinished()), (1, waiting.len() as u64, 0), "{stats}");
    }
}

/// A chunk is one call, and has failed if an item has.
pub(crate) fn a_chunk_fails_with_its_item<B: Backend>() {
    let pool = B::pool(1);
    let results = pool.map(|x: u32| 12 / x, [1, 2, 0, 3, 4, 6]).chunk_size(3);
    assert_eq!(results.filter(Result::is_err).count(), 1);
    let stats = pool.stats();
    assert_eq!((stats.done, stats.failed), (1, 1), "{stats}");
}

/// What runs is listed with who runs it, and where it was submitted.
pub(crate) fn a_dump_lists_what_runs<B: Backend>() {
    let pool = B::pool(1);
    assert!(pool.dump().running.is_empty());
    let gate = Gate::new();
    let held = pool.submit(pass, gate.key());
    let line = line!() - 1;
    gate.await_arrivals(1);
    let later = pool.submit(double, 1);
    let dump = pool.dump();
    assert_eq!((dump.running.len(), dump.stats.queued), (1, 1), "{dump}");
    let running = &dump.running[0];
    assert_eq!((running.task, running.submitted_at.line()), (held.id(), line), "{dump}");
    let text = dump.to_string();
    let here = format!("submitted at {}:{line}:", file!());
    assert!(text.contains(&format!("task {} for ", held.id())) && text.contains(&here), "{text}");
    assert!(text.contains(&running.worker) && text.starts_with(&dump.pool), "{text}");
    gate.open();
    later.result().unwrap();
    let dump = pool.dump();
    assert!(dump.running.is_empty(), "{dump}");
}

/// Every executor passes these on.
pub(crate) fn counters_are_seen_through_any_executor<B: Backend>() {
    fn done(executor: impl Executor) -> u64 {
        assert_eq!(executor.dump().stats.done, executor.stats().done);
        executor.stats().done
    }
    let pool: Arc<dyn Executor> = Arc::from(B::pool(1));
    assert_eq!(pool.submit(double, 2).result().unwrap(), 4);
    let with = pool.with(TaskOptions::new());
    assert_eq!((done(&pool), done(Arc::clone(&pool)), done(&with), done(&*pool)), (1, 1, 1, 1));
}

/// Every task's events, in their order, and those of the workers around them.
pub(crate) fn observers_are_told_everything<B: Backend>() {
    let recorder = Arc::new(Recorder::default());
    let choices = Choices { observer: Some(recorder.clone()), ..Choices::default() };
    let pool = B::pool_of(1, choices);
    let gate = Gate::new();
    let held = pool.submit(pass, gate.key());
    let line = line!() - 1;
    gate.await_arrivals(1);
    eventually("its beginning is told while it runs", || recorder.kinds(held.id()) == ["submitted", "started"]);
    let cancelled = pool.submit(double, 1);
    assert!(cancelled.cancel());
    let failed = pool.submit(|x: u32| 10 / x, 0);
    gate.open();
    held.wait();
    failed.wait();
    pool.shutdown(Shutdown::wait());

    assert_eq!(recorder.kinds(held.id()), ["submitted", "started", "done"]);
    assert_eq!(recorder.kinds(cancelled.id()), ["submitted", "cancelled"]);
    assert_eq!(recorder.kinds(failed.id()), ["submitted", "started", "failed"]);
    let events = recorder.tasks.lock().unwrap();
    let held: Vec<_> = events.iter().filter(|event| event.task == held.id()).collect();
    assert!(held.is_sorted_by_key(|event| event.at), "{held:#?}");
    assert!(held.iter().all(|event| event.submitted_at.line() == line));
    assert!(held.iter().all(|event| event.function.address == Some(pass as *const () as usize)));
    let workers = recorder.workers.lock().unwrap();
    assert!(matches!(workers[0].kind, WorkerEventKind::Started), "{workers:#?}");
    assert!(matches!(workers.last().unwrap().kind, WorkerEventKind::Ended(_)), "{workers:#?}");
    let TaskEventKind::Started { worker } = &held[1].kind else { panic!("{:?}", held[1]) };
    assert_eq!(*worker, workers[0].worker);
    assert!(workers[0].at <= held[1].at && held[2].at <= workers.last().unwrap().at);
}

/// Another attempt is told as such.
pub(crate) fn further_attempts_are_told<B: Backend>() {
    let recorder = Arc::new(Recorder::default());
    let choices = Choices { observer: Some(recorder.clone()), ..Choices::default() };
    let pool = B::pool_of(1, choices);
    let twice = pool.with(TaskOptions::new().retry(RetryPolicy::attempts(2)));
    let failed = twice.submit(|x: u32| 10 / x, 0);
    failed.wait();
    let stats = pool.stats();
    assert_eq!((stats.retried, stats.failed, stats.unfinished()), (1, 1, 0), "{stats}");
    pool.shutdown(Shutdown::wait());
    let expected = ["submitted", "started", "retried", "started", "failed"];
    assert_eq!(recorder.kinds(failed.id()), expected);
}

/// An observer may take any lock, wait, and use the pool: it holds up no call.
pub(crate) fn an_observer_holds_up_no_call<B: Backend>() {
    let (go, gate) = mpsc::channel::<()>();
    let recorder = Arc::new(Recorder::holding(gate));
    let choices = Choices { observer: Some(recorder.clone()), ..Choices::default() };
    let pool = B::pool_of(1, choices);
    let mut futures: Vec<_> = (0..100).map(|x| pool.submit(double, x)).collect();
    assert_eq!(futures.pop().unwrap().result().unwrap(), 198);
    assert!(recorder.tasks.lock().unwrap().is_empty(), "it has not been told of any yet");
    go.send(()).unwrap();
    pool.shutdown(Shutdown::wait());
    assert_eq!(recorder.kinds(futures[0].id()), ["submitted", "started", "done"]);
}
