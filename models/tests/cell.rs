//! The task cell, in every order of a few threads, and with every value that a load may see: `executor-core` itself, with loom behind its
//! door. Whoever runs a task here stands for a backend, and calls nothing but what backends call.

#![cfg(concurrent_futures_model = "loom")]

use executor_core::{Failure, Future, Task, as_completed, stats::Made, sync::plant};
use loom::{
    model::Builder,
    sync::{Notify, atomic::AtomicUsize as Count},
    thread,
};
use models::{Explored, are_found, bug};
use std::{
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
};

/// Explores all of the model's orders, or those with so many preemptions. It must get to so many ends.
fn explore(preemptions: Option<usize>, ends: usize, model: impl Fn(&'static Explored) + Send + Sync + 'static) {
    if let Some(bug) = bug() {
        plant(&bug);
    }
    let met = Explored::kept();
    let mut builder = Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(move || model(met));
    assert_eq!(met.ends(), ends, "the model must get to each of its ends: {met:?}");
}

/// What a call gives: who does not know that it was made may see what was there before.
struct Value(Count);

impl Value {
    /// Makes it, in more than one step.
    fn make(made: &Count) -> Value {
        let value = Value(Count::new(0));
        value.0.store(made.fetch_add(1, Relaxed) + 1, Relaxed);
        value
    }

    fn look(&self) -> usize {
        self.0.load(Relaxed)
    }
}

/// A task, its future, and how often its call was made.
fn task() -> (Task, Future<Value>, Arc<Count>) {
    let made = Arc::new(Count::new(0));
    let counts = Arc::clone(&made);
    let (task, future) = Task::local(move || Value::make(&counts));
    (task, future, made)
}

fn run(task: Task) -> thread::JoinHandle<()> {
    thread::spawn(move || task.run())
}

#[test]
fn a_result_is_seen_whole() {
    explore(None, 2, |ends| {
        let (task, future, made) = task();
        let worker = run(task);
        ends.note(made.load(Relaxed));
        assert_eq!(future.result().expect("it is made").look(), 1);
        worker.join().unwrap();
    });
}

#[test]
fn all_who_wait_are_woken() {
    explore(Some(2), 2, |ends| {
        let (task, future, made) = task();
        let future = Arc::new(future);
        let worker = run(task);
        let other = {
            let future = Arc::clone(&future);
            thread::spawn(move || future.wait())
        };
        ends.note(made.load(Relaxed));
        future.wait();
        other.join().unwrap();
        worker.join().unwrap();
        assert_eq!(future.peek().expect("it is there").expect("it is made").look(), 1);
    });
}

#[test]
fn what_is_looked_at_is_whole() {
    explore(None, 2, |ends| {
        let (task, future, _) = task();
        let worker = run(task);
        let seen = future.peek().map(|outcome| outcome.expect("it is made").look());
        assert!(matches!(seen, None | Some(1)));
        ends.note(seen.unwrap_or(0));
        assert_eq!(future.result().expect("it is made").look(), 1);
        worker.join().unwrap();
    });
}

/// Who cancels, and who waits meanwhile, learn the same.
#[test]
fn a_task_is_cancelled_or_made() {
    explore(None, 2, |ends| {
        let (task, future, made) = task();
        let future = Arc::new(future);
        let worker = run(task);
        let other = {
            let future = Arc::clone(&future);
            thread::spawn(move || future.cancel())
        };
        let is_cancelled = future.cancel();
        assert_eq!(is_cancelled, other.join().unwrap(), "both are told what became of it");
        worker.join().unwrap();
        let outcome = Arc::into_inner(future).expect("the other has ended").result();
        assert_eq!((outcome.is_err(), made.load(Relaxed)), (is_cancelled, usize::from(!is_cancelled)));
        ends.note(usize::from(is_cancelled));
    });
}

#[test]
fn who_waits_learns_of_a_cancellation() {
    explore(None, 1, |ends| {
        let (task, future, made) = task();
        let future = Arc::new(future);
        let other = {
            let future = Arc::clone(&future);
            thread::spawn(move || assert!(future.cancel()))
        };
        future.wait();
        assert!(future.cancelled());
        other.join().unwrap();
        task.run();
        ends.note(made.load(Relaxed));
    });
}

/// A backend that lets go of a task, against who cancels it.
#[test]
fn a_task_that_is_let_go_has_one_outcome() {
    explore(None, 2, |ends| {
        let (task, future, made) = task();
        let future = Arc::new(future);
        let backend = thread::spawn(move || drop(task.fail(Failure::Shutdown)));
        let is_cancelled = future.cancel();
        future.wait();
        backend.join().unwrap();
        let error = Arc::into_inner(future).expect("nobody else has it").result().err().expect("nobody makes it");
        assert_eq!((error.is_cancelled(), error.is_shutdown(), made.load(Relaxed)), (is_cancelled, !is_cancelled, 0));
        ends.note(usize::from(is_cancelled));
    });
}

/// Two futures that come to their end, and who waits for the first, and the next.
#[test]
fn each_future_arrives_once() {
    explore(Some(2), 2, |ends| {
        let (tasks, futures): (Vec<_>, Vec<_>) = (0..2).map(|number| Task::local(move || number)).unzip();
        let workers: Vec<_> = tasks.into_iter().map(run).collect();
        let came: Vec<usize> = as_completed(futures).map(|future| future.result().expect("it is made")).collect();
        assert_eq!(came.iter().sum::<usize>(), 1);
        ends.note(came[0]);
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
}

/// A callback sees the value, runs once, and before any wait ends.
#[test]
fn a_callback_comes_before_the_end_of_a_wait() {
    explore(Some(4), 2, |ends| {
        let (task, future, _) = task();
        let worker = run(task);
        let (called, here) = (Arc::new(AtomicUsize::new(0)), thread::current().id());
        let calls = Arc::clone(&called);
        future.add_done_callback(move |future| {
            assert_eq!(future.peek().expect("it is there").expect("it is made").look(), 1);
            calls.fetch_add(1, Relaxed);
            ends.note(usize::from(thread::current().id() == here));
        });
        assert_eq!(future.result().expect("it is made").look(), 1);
        assert_eq!(called.load(Relaxed), 1);
        worker.join().unwrap();
    });
}

/// A backend counts on its thread again when it is told of the end, and not while a callback runs that came in that moment.
#[test]
fn a_backend_is_told_of_a_late_callback() {
    explore(None, 3, |ends| {
        let (task, future, _) = task();
        let told = Arc::new(Mutex::new(Vec::new()));
        let tells = Arc::clone(&told);
        let worker = thread::spawn(move || task.run_counted(|made| tells.lock().unwrap().push(made)));
        let called = Arc::clone(&told);
        let here = thread::current().id();
        future.add_done_callback(move |_| {
            let told = called.lock().unwrap();
            match told[..] {
                _ if thread::current().id() == here => ends.note(0), // it was over
                [] => ends.note(1),
                _ => {
                    assert_eq!(told[..], [Made::Done, Made::Busy]);
                    ends.note(2);
                }
            }
        });
        future.wait();
        let told_then = told.lock().unwrap().clone();
        assert!(matches!(told_then[..], [Made::Done] | [Made::Done, Made::Busy, Made::Idle]), "{told_then:?}");
        worker.join().unwrap();
    });
}

struct Woken(Notify, Count);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.1.fetch_add(1, Relaxed);
        self.0.notify();
    }
}

#[test]
fn a_polled_future_is_woken() {
    explore(None, 2, |ends| {
        let (task, future, _) = task();
        let worker = run(task);
        let woken = Arc::new(Woken(Notify::new(), Count::new(0)));
        let waker = Waker::from(Arc::clone(&woken));
        let mut future = pin!(future);
        let mut polls = 0;
        let outcome = loop {
            match future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(outcome) => break outcome,
                Poll::Pending => woken.0.wait(),
            }
            polls = 1; // or more: a thread may come back for nothing
        };
        assert_eq!(outcome.expect("it is made").look(), 1);
        ends.note(polls);
        worker.join().unwrap();
        assert_eq!(woken.1.load(Relaxed), polls, "woken once, if it had to wait");
    });
}

/// Counts what is dropped.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Relaxed);
    }
}

#[test]
fn what_nobody_waits_for_is_dropped_once() {
    explore(None, 2, |ends| {
        let dropped = Arc::new(AtomicUsize::new(0));
        let counted = Counted(Arc::clone(&dropped));
        let (task, future) = Task::local(move || counted);
        let worker = run(task);
        ends.note(usize::from(future.done()));
        drop(future);
        worker.join().unwrap();
        assert_eq!(dropped.load(Relaxed), 1);
    });
}

#[test]
fn planted_bugs_are_found() {
    are_found(&[
        ("relaxed publication", "a_result_is_seen_whole"),
        ("relaxed publication", "what_is_looked_at_is_whole"),
        ("a late wait", "a_result_is_seen_whole"),
        ("a late wait", "each_future_arrives_once"),
        ("a forgotten guard", "a_task_is_cancelled_or_made"),
        ("a forgotten guard", "a_callback_comes_before_the_end_of_a_wait"),
        ("a lock let go", "a_task_is_cancelled_or_made"),
        ("a lock let go", "a_task_that_is_let_go_has_one_outcome"),
        ("a forgotten waiter", "all_who_wait_are_woken"),
    ]);
}
