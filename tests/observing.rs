//! What observers and counters tell of one backend alone: of workers that die or are replaced, of waits inside of a pool.

use crate::support::{Gate, Recorder, eventually, pass};
use concurrent_futures::{
    Executor, Observer, ProcessPoolExecutor, Shutdown, TaskEvent, TaskEventKind, TaskOptions, ThreadPoolExecutor,
    WhenFull, WorkerEnd, WorkerEventKind, WorkerKind,
};
use std::{
    process,
    sync::Arc,
    time::{Duration, Instant},
};

fn ends(recorder: &Recorder) -> Vec<WorkerEnd> {
    let workers = recorder.workers.lock().unwrap();
    let ends = workers.iter().filter_map(|event| match &event.kind {
        WorkerEventKind::Ended(end) => Some(end.clone()),
        _ => None,
    });
    ends.collect()
}

/// How a worker ended is told apart, and so is what the counters say of it.
#[test]
fn ends_of_workers_are_told_apart() {
    let recorder = Arc::new(Recorder::default());
    let pool = ProcessPoolExecutor::builder().max_workers(1).observer(recorder.clone()).build().unwrap();
    assert!(pool.submit(|code| -> () { process::exit(code) }, 3).result().unwrap_err().is_worker_lost());
    let gate = Gate::new();
    let killed = pool.submit(pass, gate.key());
    gate.await_arrivals(1);
    killed.kill();
    killed.wait();
    assert!(
        pool.with(TaskOptions::new().time_limit(Duration::from_millis(20))).submit(pass, gate.key()).result().is_err()
    );
    pool.submit(|()| (), ()).result().unwrap();
    let stats = pool.stats();
    assert_eq!((stats.restarts, stats.lost_workers, stats.done, stats.failed), (3, 1, 1, 3), "{stats}");
    pool.shutdown(Shutdown::wait());
    let died = WorkerEnd::Died { how: "exited with code 3".into() };
    assert_eq!(ends(&recorder), [died, WorkerEnd::Stopped, WorkerEnd::Stopped, WorkerEnd::Left]);
}

#[test]
fn replaced_workers_are_told() {
    let recorder = Arc::new(Recorder::default());
    let builder = ProcessPoolExecutor::builder().max_workers(1).max_tasks_per_child(1);
    let pool = builder.observer(recorder.clone()).build().unwrap();
    for _ in 0..3 {
        pool.submit(|()| (), ()).result().unwrap();
    }
    eventually("three are replaced", || ends(&recorder).len() == 3);
    assert_eq!(ends(&recorder), [WorkerEnd::Recycled, WorkerEnd::Recycled, WorkerEnd::Recycled]);
    let stats = pool.stats();
    assert!((2..=3).contains(&stats.restarts) && stats.lost_workers == 0, "{stats}");
}

/// A call in a worker process has the worker's own times: what lies between the reply and whoever takes it is no part of it.
#[test]
fn times_are_those_of_the_worker() {
    let recorder = Arc::new(Recorder::default());
    let pool = ProcessPoolExecutor::builder().max_workers(1).observer(recorder.clone()).build().unwrap();
    pool.submit(|()| (), ()).result().unwrap(); // the worker is there
    let before = Instant::now();
    let future = pool.submit(
        |()| {
            let began = Instant::now();
            while began.elapsed() < Duration::from_millis(5) {}
            process::id()
        },
        (),
    );
    let id = future.id();
    let pid = future.result().unwrap();
    let after = Instant::now();
    pool.shutdown(Shutdown::wait());
    let tasks = recorder.tasks.lock().unwrap();
    let events: Vec<_> = tasks.iter().filter(|event| event.task == id).collect();
    let [submitted, started, ended] = events[..] else { panic!("{events:#?}") };
    let TaskEventKind::Started { worker } = &started.kind else { panic!("{started:?}") };
    assert_eq!((worker.pid, worker.kind), (pid, WorkerKind::WorkerProcess));
    assert!(before <= submitted.at && submitted.at <= started.at && ended.at <= after, "{events:#?}");
    assert!(ended.at - started.at >= Duration::from_millis(5), "{events:#?}");
}

/// A lost call has begun, also if nobody was told before.
#[test]
fn a_lost_call_began_before_it_ended() {
    let recorder = Arc::new(Recorder::default());
    let pool = ProcessPoolExecutor::builder().max_workers(1).observer(recorder.clone()).build().unwrap();
    let lost = pool.submit(|()| -> () { process::abort() }, ());
    lost.wait();
    pool.shutdown(Shutdown::wait());
    assert_eq!(recorder.kinds(lost.id()), ["submitted", "started", "failed"]);
}

/// What is waited for inside, and made in place, is counted and listed like any other.
#[test]
fn calls_in_place_are_counted_and_listed() {
    let recorder = Arc::new(Recorder::default());
    let pool = ThreadPoolExecutor::builder().max_workers(1).observer(recorder.clone()).build().unwrap();
    let pool = Arc::new(pool);
    let (gate, inside) = (Gate::new(), Arc::clone(&pool));
    let key = gate.key();
    let outer = pool.spawn(move || inside.submit(pass, key).result().unwrap());
    gate.await_arrivals(1);
    let dump = pool.dump();
    assert_eq!((dump.running.len(), dump.stats.running, dump.stats.queued), (2, 2, 0), "{dump}");
    gate.open();
    outer.result().unwrap();
    let later = pool.submit(|x: u32| x, 1);
    later.wait();
    let stats = pool.stats();
    assert_eq!((stats.done, stats.unfinished()), (3, 0), "{stats}");
    pool.shutdown(Shutdown::wait());
    let tasks = recorder.tasks.lock().unwrap();
    assert!(tasks[0].function.name.is_some_and(|name| name.contains("closure")), "{:?}", tasks[0]);
}

/// A call for which there was no room is made by who submits it, and so it is told.
#[test]
fn calls_of_the_caller_are_told_as_such() {
    fn check(pool: &impl Executor, recorder: &Recorder) {
        let gate = Gate::new();
        let held = pool.submit(pass, gate.key());
        gate.await_arrivals(1);
        let own = pool.submit(|()| (), ());
        let stats = pool.stats();
        assert_eq!((stats.running, stats.done), (1, 1), "{stats}");
        gate.open();
        held.wait();
        pool.shutdown(Shutdown::wait());
        let tasks = recorder.tasks.lock().unwrap();
        let worker = |event: &TaskEvent| match &event.kind {
            TaskEventKind::Started { worker } if event.task == own.id() => Some(worker.kind),
            _ => None,
        };
        assert_eq!(tasks.iter().find_map(worker), Some(WorkerKind::Caller));
    }
    let recorder = || Arc::new(Recorder::default());
    let (threads, processes) = (recorder(), recorder());
    let pool = ThreadPoolExecutor::builder().max_workers(1).queue_capacity(0, WhenFull::CallerRuns);
    check(&pool.observer(threads.clone()).build().unwrap(), &threads);
    let pool = ProcessPoolExecutor::builder().max_workers(1).queue_capacity(0, WhenFull::CallerRuns);
    check(&pool.observer(processes.clone()).build().unwrap(), &processes);
}

/// A panic of one observer is its own affair.
#[test]
fn a_panic_of_an_observer_hurts_nobody() {
    struct Panics;
    impl Observer for Panics {
        fn task(&self, _: &TaskEvent) {
            panic!("an observer's own affair");
        }
    }
    let recorder = Arc::new(Recorder::default());
    let builder = ThreadPoolExecutor::builder().max_workers(1).observer(Panics).observer(recorder.clone());
    let pool = builder.build().unwrap();
    let future = pool.submit(|x: u32| x, 1);
    let id = future.id();
    assert_eq!(future.result().unwrap(), 1);
    pool.shutdown(Shutdown::wait());
    assert_eq!(recorder.kinds(id), ["submitted", "started", "done"]);
}
