//! The whole thread pool in some thousands of orders: `executor-core` and `executor-thread` themselves, with shuttle behind their door.
//!
//! A thread that nobody wakes is found by shuttle, which ends when all threads have: so each model also shows that the pool's own
//! threads come to their end. What a limit is here, and which bugs can be planted, is said where the door's other side is
//! (`executor-core/src/sync/modelled.rs`).
//!
//! A model that fails prints its schedule, which `shuttle::replay` repeats. `MODELS_SEED` chooses other orders than those that are
//! explored every time.

#![cfg(concurrent_futures_model = "shuttle")]

use executor_core::{
    Executor, Future, Shutdown, TaskError, WaitError, WhenFull, as_completed,
    sync::{plant, thread::current},
};
use executor_thread::ThreadPoolExecutor;
use models::{Explored, are_found, bug};
use shuttle::{
    Config, MaxSteps, Runner,
    scheduler::{PctScheduler, RandomScheduler},
    sync::{Barrier, mpsc},
    thread,
};
use std::{
    env,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

/// Orders of each of two kinds: chosen anew at each step, and with a few changes of who goes first. `MODELS_ROUNDS` says another
/// number.
const ROUNDS: u64 = 30_000;

/// Explores `model`, which must get to so many ends.
fn explore(ends: usize, model: impl Fn(&'static Explored) + Send + Sync + 'static) {
    // One at a time in a process: what the crates keep in statics is there for the threads of one model.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(bug) = bug() {
        plant(&bug);
    }
    let met = Explored::kept();
    let model = Arc::new(move || model(met));
    let mut config = Config::new();
    config.stack_size = 1 << 18;
    config.max_steps = MaxSteps::FailAfter(50_000);
    config.silence_warnings = true;
    let number = |name, default| env::var(name).map_or(default, |number| number.parse().expect("a number"));
    let (seed, rounds) = (number("MODELS_SEED", 1), number("MODELS_ROUNDS", ROUNDS) as usize);
    let again = Arc::clone(&model);
    Runner::new(RandomScheduler::new_from_seed(seed, rounds), config.clone()).run(move || model());
    Runner::new(PctScheduler::new_from_seed(seed, 3, rounds), config).run(move || again());
    assert_eq!(met.ends(), ends, "the model must get to each of its ends: {met:?}");
}

fn pool(workers: usize) -> Arc<ThreadPoolExecutor> {
    Arc::new(ThreadPoolExecutor::new(workers).expect("a pool"))
}

/// A call that is to be made once, or not at all.
#[derive(Clone, Default)]
struct Call(Arc<AtomicUsize>);

impl Call {
    fn submit(&self, pool: &ThreadPoolExecutor) -> Future<usize> {
        let made = Arc::clone(&self.0);
        pool.spawn(move || made.fetch_add(1, Relaxed) + 1)
    }

    fn made(&self) -> usize {
        self.0.load(Relaxed)
    }

    /// An outcome that goes with what was done. Gives its number.
    fn check(&self, outcome: &Result<usize, TaskError>) -> usize {
        match outcome {
            Ok(value) => {
                assert_eq!((*value, self.made()), (1, 1), "made once");
                0
            }
            Err(error) => {
                assert_eq!(self.made(), 0, "{error}, and it was made");
                assert!(error.is_cancelled() || error.is_shutdown(), "{error}");
                if error.is_cancelled() { 1 } else { 2 }
            }
        }
    }
}

fn submits_from_two_threads(workers: usize) {
    explore(2, move |ends| {
        let pool = pool(workers);
        let calls = [Call::default(), Call::default()];
        let other = {
            let (pool, call) = (Arc::clone(&pool), calls[1].clone());
            thread::spawn(move || call.check(&call.submit(&pool).result()))
        };
        let future = calls[0].submit(&pool);
        ends.note(calls[1].made());
        assert_eq!(calls[0].check(&future.result()), 0);
        assert_eq!(other.join().unwrap(), 0);
        let stats = pool.stats();
        assert_eq!((stats.done, stats.failed, stats.queued, stats.running), (2, 0, 0, 0), "{stats}");
    });
}

#[test]
fn submits_from_two_threads_to_one_worker() {
    submits_from_two_threads(1);
}

#[test]
fn submits_from_two_threads_to_two_workers() {
    submits_from_two_threads(2);
}

fn nested(pool: &Arc<ThreadPoolExecutor>, depth: usize, ends: &'static Explored) -> usize {
    let (within, outer) = (Arc::clone(pool), current().id());
    let future = pool.spawn(move || {
        ends.note(usize::from(current().id() == outer));
        if depth > 1 { nested(&within, depth - 1, ends) + 1 } else { 1 }
    });
    future.result().expect("it is made")
}

/// With as many workers as one, by its waiter or by a spare.
#[test]
fn calls_within_calls_come_to_their_end() {
    explore(2, |ends| assert_eq!(nested(&pool(1), 3, ends), 3));
}

#[test]
fn a_call_is_cancelled_or_made() {
    explore(2, |ends| {
        let (pool, call) = (pool(1), Call::default());
        let future = call.submit(&pool);
        let answers = thread::scope(|scope| {
            [scope.spawn(|| future.cancel()), scope.spawn(|| future.cancel())].map(|thread| thread.join().unwrap())
        });
        assert!(answers[0] == answers[1] || future.done(), "who was refused has found it running or done");
        let end = call.check(&future.result());
        assert_eq!(answers, [end == 1; 2], "both are told what became of it");
        ends.note(end);
        let stats = pool.stats();
        assert_eq!((stats.done + stats.cancelled, stats.cancelled), (1, u64::from(end == 1)), "{stats}");
    });
}

/// All that a future can tell, while it comes to its end.
#[test]
fn whoever_waits_is_told_after_the_callbacks() {
    explore(2, |ends| {
        let (pool, call, called) = (pool(1), Call::default(), Arc::new(AtomicUsize::new(0)));
        let future = call.submit(&pool);
        let (submitter, calls) = (current().id(), Arc::clone(&called));
        future.add_done_callback(move |future| {
            assert_eq!(*future.peek().expect("it is done").expect("it is made"), 1);
            calls.fetch_add(1, Relaxed);
            ends.note(usize::from(current().id() == submitter));
        });
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    future.wait();
                    assert_eq!(called.load(Relaxed), 1);
                });
            }
            scope.spawn(|| {
                assert!(as_completed([&future]).all(|_| called.load(Relaxed) == 1));
            });
        });
        assert_eq!(call.check(&future.result()), 0);
    });
}

/// A limit passes before the end or after it, and the future is there in both.
#[test]
fn a_limit_loses_nothing() {
    explore(4, |ends| {
        let (pool, calls) = (pool(1), [Call::default(), Call::default()]);
        let futures = calls.each_ref().map(|call| call.submit(&pool));
        let mut each = as_completed(&futures).timeout(Duration::from_secs(1));
        let came = each.by_ref().take_while(Result::is_ok).count();
        assert_eq!(came + each.remaining(), 2);
        drop(each);
        ends.note(usize::from(came == 2));
        let other = Call::default();
        for (call, future) in calls.iter().chain([&other]).zip(futures.into_iter().chain([other.submit(&pool)])) {
            let outcome = match future.result_timeout(Duration::from_secs(1)) {
                Ok(value) => Ok(value),
                Err(WaitError::Timeout(future)) => {
                    ends.note(2);
                    future.result()
                }
                Err(WaitError::Task(error)) => Err(error),
            };
            ends.note(3);
            assert_eq!(call.check(&outcome), 0);
        }
    });
}

/// Each future has one outcome; and if the shutdown waits, no later than that.
fn a_shutdown_against_submits(how: fn() -> Shutdown, ends: usize) {
    explore(ends, move |ends| {
        let (pool, calls) = (pool(1), [Call::default(), Call::default(), Call::default()]);
        let over = Arc::new(AtomicUsize::new(0));
        let waits = !how().is_no_wait();
        let other = {
            let (pool, call, over) = (Arc::clone(&pool), calls[2].clone(), Arc::clone(&over));
            thread::spawn(move || {
                let future = call.submit(&pool);
                assert!(!waits || over.load(Relaxed) == 0 || future.done(), "it was left behind");
                call.check(&future.result())
            })
        };
        let futures = [calls[0].submit(&pool), calls[1].submit(&pool)];
        let report = pool.shutdown(how());
        over.store(1, Relaxed);
        if waits {
            assert!(futures.iter().all(Future::done), "{report:?}");
        }
        for (call, future) in calls.iter().zip(futures) {
            let is_done = future.done();
            let end = call.check(&future.result());
            assert!(end == 0 || is_done, "it was cancelled after the shutdown had returned: {report:?}");
            assert!(end == 0 || end == 1 && how().cancels_pending(), "what was accepted before is made, or cancelled");
            ends.note(end);
        }
        ends.note(other.join().unwrap());
    });
}

#[test]
fn a_shutdown_that_waits() {
    a_shutdown_against_submits(Shutdown::wait, 2);
}

#[test]
fn a_shutdown_that_does_not_wait() {
    a_shutdown_against_submits(Shutdown::no_wait, 2);
}

#[test]
fn a_shutdown_that_cancels() {
    a_shutdown_against_submits(|| Shutdown::wait().cancel_pending(), 3);
}

#[test]
fn a_shutdown_that_cancels_and_does_not_wait() {
    a_shutdown_against_submits(|| Shutdown::no_wait().cancel_pending(), 3);
}

#[test]
fn a_shutdown_that_stops_all() {
    a_shutdown_against_submits(Shutdown::now, 3);
}

/// The worker is about to sleep, or to leave, as the next call comes.
fn an_idle_worker(limit: Option<Duration>, ends: usize) {
    explore(ends, move |ends| {
        let mut builder = ThreadPoolExecutor::builder().max_workers(1);
        if let Some(limit) = limit {
            builder = builder.idle_timeout(limit);
        }
        let pool = builder.build().expect("a pool");
        let mut before = None;
        for round in 0..3 {
            let future = pool.spawn(|| current().id());
            ends.note(usize::from(future.done()));
            let worker = future.result().expect("it is made");
            let is_another = before.replace(worker).is_some_and(|before| before != worker);
            assert!(!is_another || limit.is_some(), "round {round}");
            ends.note(2 + usize::from(is_another));
        }
    });
}

#[test]
fn an_idle_worker_takes_the_next_call() {
    an_idle_worker(None, 3);
}

#[test]
fn an_idle_worker_leaves_no_call_behind() {
    an_idle_worker(Some(Duration::from_secs(1)), 4);
}

/// Both workers are needed for calls that wait for each other by other means than futures, whoever has been woken for which of them.
#[test]
fn as_many_workers_come_as_are_needed() {
    explore(3, |ends| {
        let pool = pool(2);
        for _ in 0..2 {
            let gate = Arc::new(Barrier::new(2));
            let futures = [(); 2].map(|()| {
                let gate = Arc::clone(&gate);
                pool.spawn(move || {
                    gate.wait();
                    current().id()
                })
            });
            ends.note(futures.iter().filter(|future| future.running()).count());
            let [first, second] = futures.map(|future| future.result().expect("it is made"));
            assert_ne!(first, second);
        }
    });
}

/// The only worker waits for a call elsewhere that needs this pool: a spare comes, and goes when it is needed no more.
#[test]
fn a_worker_that_waits_elsewhere_is_stood_in_for() {
    explore(3, |ends| {
        let (pool, elsewhere) = (pool(1), pool(1));
        let (here, there) = (Arc::clone(&pool), Arc::clone(&elsewhere));
        let future = pool.spawn(move || {
            let worker = current().id();
            let future = there.spawn(move || here.spawn(|| current().id()).result().expect("it is made"));
            assert_ne!(future.result().expect("it is made"), worker);
            worker
        });
        let worker = future.result().expect("it is made");
        // Whichever of the two sleeps, or is on its way out.
        for _ in 0..2 {
            ends.note(pool.worker_count().min(2));
            let next = pool.spawn(|| current().id()).result().expect("it is made");
            ends.note(if next == worker { 1 } else { 3 });
        }
    });
}

#[test]
fn a_scope_waits_for_what_borrows() {
    explore(2, |ends| {
        let (pool, mut parts) = (pool(2), [0; 2]);
        pool.scope(|scope| {
            for part in &mut parts {
                let _future = scope.spawn(move || *part += 1);
            }
        });
        assert_eq!(parts, [1; 2]);
        // From a worker, which may do it all by itself.
        let within = Arc::clone(&pool);
        let sum = pool.spawn(move || {
            let (mut parts, owner) = ([0; 2], current().id());
            within.scope(|scope| {
                for part in &mut parts {
                    let _future = scope.spawn(move || {
                        *part += 1;
                        ends.note(usize::from(current().id() == owner));
                    });
                }
            });
            parts.iter().sum::<i32>()
        });
        assert_eq!(sum.result().expect("it is made"), 2);
    });
}

#[test]
fn both_calls_of_a_join_are_made() {
    explore(2, |ends| {
        let (pool, owner) = (pool(2), current().id());
        let sum = |from: usize| {
            let (a, b) = pool.join(|| from, || (from + 1, current().id()));
            ends.note(usize::from(b.1 == owner));
            a + b.0
        };
        let (a, b) = pool.join(|| sum(1), || sum(3));
        assert_eq!((a, b), (3, 7));
    });
}

/// A callback that comes as its call ends, and waits for another call: somebody else makes that.
#[test]
fn a_late_callback_holds_nobody_up() {
    explore(2, |ends| {
        let pool = pool(2);
        let (tell, told) = mpsc::channel();
        let future = pool.spawn(|| ());
        let other = {
            let pool = Arc::clone(&pool);
            thread::spawn(move || pool.spawn(move || tell.send(()).expect("it is waited for")).result())
        };
        let here = current().id();
        future.add_done_callback(move |_| {
            told.recv().expect("it is made");
            ends.note(usize::from(current().id() == here));
        });
        assert!(other.join().unwrap().is_ok() && future.result().is_ok());
        let stats = pool.stats();
        assert_eq!((stats.done, stats.queued, stats.running), (2, 0, 0), "{stats}");
    });
}

/// Room for one call beside that of the worker, and three that come.
fn a_full_queue(when_full: WhenFull) {
    explore(2, move |ends| {
        let builder = ThreadPoolExecutor::builder().max_workers(1).queue_capacity(0, when_full);
        let (pool, calls) =
            (Arc::new(builder.build().expect("a pool")), [Call::default(), Call::default(), Call::default()]);
        let other = {
            let (pool, call) = (Arc::clone(&pool), calls[2].clone());
            thread::spawn(move || call.check(&call.submit(&pool).result()))
        };
        let futures = [calls[0].submit(&pool), calls[1].submit(&pool)];
        ends.note(calls[2].made());
        for (call, future) in calls.iter().zip(futures) {
            assert_eq!(call.check(&future.result()), 0);
        }
        assert_eq!(other.join().unwrap(), 0);
        let stats = pool.stats();
        assert_eq!((stats.done, stats.queued, stats.running), (3, 0, 0), "{stats}");
    });
}

#[test]
fn a_full_queue_makes_room() {
    a_full_queue(WhenFull::Block);
}

#[test]
fn a_full_queue_has_its_callers_run() {
    a_full_queue(WhenFull::CallerRuns);
}

/// Who waits for room is let go by the end of the pool.
#[test]
fn a_full_queue_that_is_closed_refuses() {
    explore(2, |ends| {
        let builder = ThreadPoolExecutor::builder().max_workers(1).queue_capacity(0, WhenFull::Block);
        let (pool, calls) = (Arc::new(builder.build().expect("a pool")), [Call::default(), Call::default()]);
        let other = {
            let (pool, call) = (Arc::clone(&pool), calls[1].clone());
            thread::spawn(move || call.check(&call.submit(&pool).result()))
        };
        let future = calls[0].submit(&pool);
        pool.shutdown(Shutdown::wait());
        assert_eq!(calls[0].check(&future.result()), 0);
        ends.note(other.join().unwrap());
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
    explore(2, |ends| {
        let (pool, arguments, values) = (pool(1), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (argument, value) = (Counted(Arc::clone(&arguments)), Arc::clone(&values));
        let future = pool.spawn(move || {
            let _argument = argument;
            Counted(value)
        });
        ends.note(usize::from(future.done()));
        drop(future);
        drop(pool);
        assert_eq!((arguments.load(Relaxed), values.load(Relaxed)), (1, 1), "arguments and values that were dropped");
    });
}

#[test]
fn planted_bugs_are_found() {
    are_found(&[
        ("a late wait", "an_idle_worker_takes_the_next_call"),
        ("a late wait", "whoever_waits_is_told_after_the_callbacks"),
        ("a lock let go", "a_call_is_cancelled_or_made"),
        ("a forgotten waiter", "whoever_waits_is_told_after_the_callbacks"),
    ]);
}
