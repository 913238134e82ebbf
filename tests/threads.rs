//! What only threads can do.

use crate::support::{DEADLINE, Gate, Limit, eventually, pass, promptly, tries};
use concurrent_futures::{
    ALL_COMPLETED, Executor, Future, Pool, ProcessPoolExecutor, RetryPolicy, Shutdown, TaskError, TaskId, TaskOptions,
    ThreadPoolExecutor, WaitError, as_completed, current_task,
    parallel::{Parallel, delayed},
    wait,
};
use futures::{
    executor::block_on,
    future::{Either, join, select},
};
use rustix::process::Resource;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{
    collections::HashSet,
    fs, mem,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Barrier, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

fn pool(workers: usize) -> Arc<ThreadPoolExecutor> {
    Arc::new(ThreadPoolExecutor::new(workers).unwrap())
}

/// Counts how many of its kind were dropped.
#[derive(Clone)]
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new() -> (Counted, Arc<AtomicUsize>) {
        let drops = Arc::new(AtomicUsize::new(0));
        (Counted(Arc::clone(&drops)), drops)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn closures_bring_what_they_captured() {
    let pool = pool(2);
    let words = ["one".to_owned(), "two".to_owned()];
    let line = line!() + 1;
    let future = pool.spawn(move || words.concat());
    assert_eq!(future.submitted_at().line(), line);
    assert_eq!(future.result().unwrap(), "onetwo");
    assert!(pool.spawn(|| -> () { panic!("spawned") }).result().unwrap_err().is_panic());
}

/// SUB-04: also what a task submits goes behind what is queued.
#[test]
fn nested_submits_go_to_the_end_of_the_queue() {
    let pool = pool(1);
    let order = Arc::new(Mutex::new(Vec::new()));
    let note = |name: &'static str| {
        let order = Arc::clone(&order);
        move || order.lock().unwrap().push(name)
    };
    let (ready, go) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let first = pool.spawn({
        let (ready, go, inner, nested) = (Arc::clone(&ready), Arc::clone(&go), Arc::clone(&pool), note("nested"));
        move || {
            ready.wait();
            go.wait();
            drop(inner.spawn(nested));
        }
    });
    ready.wait();
    let futures = ["0", "1", "2"].map(|name| pool.spawn(note(name)));
    go.wait();
    first.result().unwrap();
    futures.into_iter().for_each(|future| future.result().unwrap());
    eventually("four notes", || order.lock().unwrap().len() == 4);
    assert_eq!(*order.lock().unwrap(), ["0", "1", "2", "nested"]);
}

/// NEST-01, P21: to any depth on one worker.
#[test]
fn waiting_inside_is_safe_to_any_depth() {
    fn descend(pool: Arc<ThreadPoolExecutor>, depth: usize) -> usize {
        if depth == 0 {
            return 0;
        }
        let inner = Arc::clone(&pool);
        pool.spawn(move || descend(inner, depth - 1)).result().unwrap() + 1
    }
    let pool = pool(1);
    let inner = Arc::clone(&pool);
    assert_eq!(pool.spawn(move || descend(inner, 1000)).result().unwrap(), 1000);
    eventually("the spare threads are gone", || pool.worker_count() == 1);
}

/// NEST-04 [threads].
#[test]
fn all_kinds_of_waits_inside_are_safe() {
    let pool = pool(1);
    let inner = Arc::clone(&pool);
    let total = pool.spawn(move || {
        let spawn = |x: u32| inner.spawn(move || x);
        let waited = wait([spawn(1), spawn(2)], concurrent_futures::ALL_COMPLETED);
        let first: u32 = waited.done.into_iter().map(|future| future.result().unwrap()).sum();
        let each: u32 = as_completed([spawn(4), spawn(8)]).map(|future| future.result().unwrap()).sum();
        let mapped: u32 = inner.map(|x: u32| x, [16, 32]).map(|x| x.unwrap()).sum();
        let unordered: u32 = inner.map(|x: u32| x, [64, 128]).unordered().map(|x| x.unwrap()).sum();
        let timed = spawn(256).result_timeout(DEADLINE).unwrap();
        let scoped = inner.scope(|scope| scope.spawn(|| 512).result().unwrap());
        first + each + mapped + unordered + timed + scoped
    });
    assert_eq!(total.result().unwrap(), 1023);
}

/// NEST-03, P22: a waiter never runs an unrelated task, which could want the lock that it holds.
#[test]
fn waiting_with_a_lock_held_runs_nothing_unrelated() {
    let pool = pool(2);
    let lock = Arc::new(Mutex::new(()));
    for _ in 0..200 {
        let (inner, held) = (Arc::clone(&pool), Arc::clone(&lock));
        let holder = pool.spawn(move || {
            let _held = held.lock().unwrap();
            let related = inner.spawn(thread::yield_now);
            related.result().unwrap();
        });
        let wanting: Vec<_> = (0..4)
            .map(|_| {
                let lock = Arc::clone(&lock);
                pool.spawn(move || drop(lock.lock().unwrap()))
            })
            .collect();
        // On the same thread it would be a deadlock with itself.
        assert!(holder.wait_timeout(DEADLINE), "the holder waits for a lock that it holds");
        wanting.iter().for_each(|future| assert!(future.wait_timeout(DEADLINE)));
    }
}

/// A worker that waits for what runs elsewhere leaves its place to a spare.
#[test]
fn a_blocked_worker_is_stood_in_for() {
    let pool = pool(2);
    let (gate, tell) = (Gate::new(), mpsc::channel());
    let slow = Arc::new(pool.submit(pass, gate.key()));
    gate.await_arrivals(1);
    let awaited = Arc::clone(&slow);
    let waiter = pool.spawn(move || awaited.wait());
    // One worker runs `slow`, the other waits for it: without a spare, this would not begin.
    let send = tell.0.clone();
    let third = pool.spawn(move || send.send(()).unwrap());
    tell.1.recv_timeout(DEADLINE).unwrap();
    third.result().unwrap();
    gate.open();
    waiter.result().unwrap();
    let alive: HashSet<_> = (0..100)
        .map(|_| pool.spawn(|| thread::current().name().map(str::to_owned)))
        .map(|future| future.result().unwrap())
        .collect();
    eventually("two threads", || pool.worker_count() == 2);
    assert!(alive.len() <= 3, "{alive:?}");
}

/// WRK-05, WRK-07, WRK-08.
#[test]
fn threads_start_as_they_are_needed() {
    let pool = pool(3);
    assert_eq!(pool.worker_count(), 0);
    for _ in 0..50 {
        pool.spawn(|| ()).result().unwrap();
        assert_eq!(pool.worker_count(), 1, "an idle worker is used again");
    }
    let gate = Gate::new();
    let futures: Vec<_> = (0..45).map(|_| pool.submit(pass, gate.key())).collect();
    gate.await_arrivals(3);
    assert_eq!(pool.worker_count(), 3);
    gate.open();
    futures.into_iter().for_each(|future| future.result().unwrap());
    assert_eq!(pool.worker_count(), 3);
}

/// WRK-09.
#[test]
fn threads_have_names() {
    let named = ThreadPoolExecutor::builder().max_workers(1).thread_name_prefix("resize").build().unwrap();
    let name = |()| thread::current().name().unwrap().to_owned();
    assert_eq!(named.submit(name, ()).result().unwrap(), "resize-0");
    let names = [pool(1), pool(1)].map(|pool| pool.submit(name, ()).result().unwrap());
    assert!(names[0] != names[1] && names.iter().all(|name| name.starts_with("executor-")), "{names:?}");
}

/// A task is never stuck behind a long one in somebody's batch.
#[test]
fn a_batch_behind_a_long_task_is_stolen() {
    let pool = pool(2);
    let (gate, long) = (Gate::new(), Gate::new());
    // Both workers are held, so that all that follows is queued when they go on, and taken in batches.
    let holders = [pool.submit(pass, gate.key()), pool.submit(pass, gate.key())];
    gate.await_arrivals(2);
    let slow = pool.submit(pass, long.key());
    let quick: Vec<_> = (0..60).map(|_| pool.spawn(|| ())).collect();
    gate.open();
    quick.iter().for_each(|future| assert!(future.wait_timeout(DEADLINE), "stuck"));
    assert!(!slow.done());
    long.open();
    slow.result().unwrap();
    holders.into_iter().for_each(|future| future.result().unwrap());
}

/// FUT-17, MAP-25: arguments before the outcome is seen, results with their last handle.
#[test]
fn captures_and_results_are_dropped_promptly() {
    let pool = pool(1);
    let (capture, drops) = Counted::new();
    let future = pool.spawn(move || drop(capture));
    future.result().unwrap();
    assert_eq!(drops.load(Ordering::SeqCst), 1);

    let (capture, drops) = Counted::new();
    let future = pool.spawn(move || {
        let _used = &capture;
        panic!("with a capture")
    });
    let ending: Result<(), _> = future.result();
    assert!(ending.is_err());
    assert_eq!(drops.load(Ordering::SeqCst), 1);

    let gate = Gate::new();
    let blocker = pool.submit(pass, gate.key());
    let (capture, drops) = Counted::new();
    let cancelled = pool.spawn(move || capture);
    assert!(cancelled.cancel());
    assert_eq!(drops.load(Ordering::SeqCst), 1, "cancelled: never run, dropped at once");
    let (result, drops) = Counted::new();
    let unread = pool.spawn(move || result);
    gate.open();
    blocker.result().unwrap();
    unread.wait();
    assert_eq!(drops.load(Ordering::SeqCst), 0);
    drop(unread);
    eventually("the unread result is dropped", || drops.load(Ordering::SeqCst) == 1);
}

/// A result whose `Drop` panics, on a worker or here, hurts nobody else.
#[test]
fn a_panic_in_a_drop_is_contained() {
    struct DropsBadly;
    impl Drop for DropsBadly {
        fn drop(&mut self) {
            panic!("in drop");
        }
    }
    let pool = pool(1);
    let gate = Gate::new();
    let blocker = pool.submit(pass, gate.key());
    drop(pool.spawn(|| DropsBadly)); // so the worker is the last to hold the result
    let capture = DropsBadly;
    let cancelled = pool.spawn(move || drop(capture));
    assert!(cancelled.cancel());
    gate.open();
    blocker.result().unwrap();
    assert_eq!(pool.submit(|x: u8| x, 1).result().unwrap(), 1);
}

#[test]
fn a_scope_lends_what_lives_outside() {
    let pool = pool(2);
    let mut counts = [0_u32; 8];
    let total = AtomicUsize::new(0);
    let sum = pool.scope(|scope| {
        for (index, count) in counts.iter_mut().enumerate() {
            let total = &total;
            drop(scope.spawn(move || {
                *count = index as u32;
                total.fetch_add(index, Ordering::SeqCst);
                // A call of the scope may spawn another one.
                drop(scope.spawn(move || total.fetch_add(100, Ordering::SeqCst)));
            }));
        }
        let text = scope.spawn(|| total.load(Ordering::SeqCst).to_string());
        assert!(!text.result().unwrap().is_empty());
        7
    });
    assert_eq!((sum, total.into_inner()), (7, 28 + 800));
    assert_eq!(counts, [0, 1, 2, 3, 4, 5, 6, 7]);
}

/// Whatever happens, nothing that borrows is left when a scope returns.
#[test]
fn a_scope_ends_with_all_its_calls() {
    let pool = pool(2);
    let over = AtomicUsize::new(0);
    let slow = |_: ()| {
        thread::sleep(Duration::from_millis(5)); // widens the race
        over.fetch_add(1, Ordering::SeqCst);
    };
    let body_panics = panic::catch_unwind(AssertUnwindSafe(|| {
        pool.scope(|scope| {
            drop([scope.spawn(|| slow(())), scope.spawn(|| slow(()))]);
            panic!("the body");
        })
    }));
    assert_eq!(*body_panics.unwrap_err().downcast_ref::<&str>().unwrap(), "the body");
    assert_eq!(over.load(Ordering::SeqCst), 2);

    let unasked = panic::catch_unwind(AssertUnwindSafe(|| {
        pool.scope(|scope| drop([scope.spawn(|| slow(())), scope.spawn(|| panic!("a call"))]))
    }));
    assert!(unasked.unwrap_err().downcast_ref::<String>().unwrap().contains("a call"));
    assert_eq!(over.load(Ordering::SeqCst), 3);

    let asked: Result<(), _> = pool.scope(|scope| scope.spawn(|| panic!("a call")).result());
    assert_eq!(asked.unwrap_err().panic_message(), Some("a call"));
}

/// A call that a shutdown cancels lets go of what it borrowed before its scope returns.
#[test]
fn a_scope_outlives_a_shutdown() {
    let pool = pool(1);
    let gate = Gate::new();
    let blocker = pool.submit(pass, gate.key());
    gate.await_arrivals(1);
    let borrowed = "text".to_owned();
    let (counted, drops) = Counted::new();
    let ending = pool.scope(|scope| {
        let borrowed = borrowed.as_str();
        let call = scope.spawn(move || {
            let _keep = &counted;
            borrowed.len()
        });
        pool.shutdown(Shutdown::no_wait().cancel_pending());
        call.result()
    });
    assert!(ending.unwrap_err().is_cancelled());
    assert_eq!(drops.load(Ordering::SeqCst), 1);
    gate.open();
    blocker.result().unwrap();
}

#[test]
fn join_runs_both_halves_and_passes_panics_on() {
    fn fib(pool: &ThreadPoolExecutor, n: u64) -> u64 {
        if n < 2 {
            return n;
        }
        let (a, b) = pool.join(|| fib(pool, n - 1), || fib(pool, n - 2));
        a + b
    }
    for workers in [1, 2, 3] {
        let pool = pool(workers);
        assert_eq!(fib(&pool, 14), 377, "from outside");
        let inner = Arc::clone(&pool);
        assert_eq!(pool.spawn(move || fib(&inner, 14)).result().unwrap(), 377, "from inside");
    }
    let pool = pool(1);
    let other_ran = AtomicBool::new(false);
    let left = panic::catch_unwind(AssertUnwindSafe(|| {
        pool.join(|| panic!("left"), || other_ran.store(true, Ordering::SeqCst))
    }));
    assert!(left.is_err() && other_ran.load(Ordering::SeqCst));
    let right = panic::catch_unwind(AssertUnwindSafe(|| pool.join(|| 1, || -> u8 { panic!("right") })));
    assert_eq!(right.unwrap_err().downcast_ref::<&str>(), Some(&"right"), "as it was thrown");
}

/// A thread cannot be killed, and says so.
#[test]
fn kill_cancels_what_is_pending_and_refuses_what_runs() {
    let pool = pool(1);
    let gate = Gate::new();
    let running = pool.submit(pass, gate.key());
    gate.await_arrivals(1);
    let pending = pool.submit(|x: u8| x, 1);
    assert!(pending.kill() && pending.cancelled());
    assert!(!running.kill());
    gate.open();
    running.result().unwrap();
}

/// A pool may be dropped by one of its own tasks.
#[test]
fn the_last_handle_may_be_dropped_inside() {
    let pool = pool(1);
    let (tell, told) = mpsc::channel();
    let inner = Arc::clone(&pool);
    let ready = Arc::new(Barrier::new(2));
    let inside = Arc::clone(&ready);
    drop(pool.spawn(move || {
        inside.wait();
        drop(inner);
        tell.send(()).unwrap();
    }));
    drop(pool);
    ready.wait();
    told.recv_timeout(DEADLINE).unwrap();
}

/// Two tasks always run at the same time on two workers, however wake-ups fall together.
#[test]
fn no_task_waits_beside_a_free_worker() {
    for round in tries(4000) {
        let pool = pool(2);
        let (left, right) = (Arc::new(Barrier::new(2)), Arc::new(AtomicBool::new(false)));
        let first = pool.spawn(|| ());
        while !first.done() {
            std::hint::spin_loop();
        }
        // Its worker is now about to fall asleep, some time or other.
        (0..round * 7 % 600).for_each(|_| std::hint::spin_loop());
        let meet = |met: Arc<AtomicBool>, barrier: Arc<Barrier>| {
            move || {
                barrier.wait();
                met.store(true, Ordering::SeqCst);
            }
        };
        let one = pool.spawn(meet(Arc::clone(&right), Arc::clone(&left)));
        let other = pool.spawn(meet(Arc::clone(&right), left));
        assert!(one.wait_timeout(DEADLINE) && other.wait_timeout(DEADLINE), "one ran, and the other waited for it");
    }
}

/// A worker that runs callbacks is busy: its pool starts another thread, and a wait inside is stood in for.
#[test]
fn a_worker_with_callbacks_is_busy() {
    let (two, gate) = (pool(2), Gate::new());
    let slow = two.submit(pass, gate.key());
    let (entered, go) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let (enter, wait) = (Arc::clone(&entered), Arc::clone(&go));
    slow.add_done_callback(move |_| {
        enter.wait();
        wait.wait();
    });
    gate.open();
    entered.wait();
    assert!(two.spawn(|| ()).wait_timeout(DEADLINE), "it waits behind a callback");
    go.wait();

    let (one, gate) = (pool(1), Gate::new());
    let first = one.submit(pass, gate.key());
    let (inner, (tell, told)) = (Arc::clone(&one), mpsc::channel());
    first.add_done_callback(move |_| tell.send(inner.spawn(|| 7).result_timeout(DEADLINE).ok()).unwrap());
    gate.open();
    assert_eq!(told.recv_timeout(DEADLINE).unwrap(), Some(7));
}

/// Ending a pool inside another pool's task is a wait like any other.
#[test]
fn dropping_a_pool_inside_a_task_is_stood_in_for() {
    let outer = pool(1);
    let inner = Arc::clone(&outer);
    let task = outer.spawn(move || {
        let other = pool(1);
        let value = other.spawn(move || inner.spawn(|| 5).result().unwrap());
        drop(other);
        value.result().unwrap()
    });
    assert!(task.wait_timeout(DEADLINE));
    assert_eq!(task.result().unwrap(), 5);
}

/// What a scope could not run is not passed over in silence.
#[test]
fn a_scope_on_a_closed_pool_says_so() {
    let pool = pool(1);
    pool.shutdown(Shutdown::wait());
    let told = panic::catch_unwind(AssertUnwindSafe(|| {
        pool.scope(|scope| {
            scope.spawn(|| ());
        })
    }));
    assert!(told.unwrap_err().downcast_ref::<String>().unwrap().contains("already shut down"));
}

/// AIO-15: a coroutine is run from a pool's thread, in whatever runtime it belongs to, and what comes of it is in a future
/// like any other.
#[test]
fn a_coroutine_has_a_future_like_any_call() {
    let pool = pool(1);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    let here = runtime.handle();
    let run = |handle: &tokio::runtime::Handle, value: Option<u32>| {
        let handle = handle.clone();
        pool.spawn(move || {
            handle.block_on(async {
                tokio::time::sleep(Duration::from_millis(1)).await;
                value.expect("a value")
            })
        })
    };
    assert_eq!(run(here, Some(7)).result().unwrap(), 7);
    assert_eq!(run(here, None).exception().unwrap().panic_message(), Some("a value"));
    assert_eq!(pool.spawn(|| smol::block_on(async { 7 })).result().unwrap(), 7);
    assert_eq!(runtime.block_on(run(here, Some(7))).unwrap(), 7, "and may be awaited in turn");

    let (send, receive) = futures::channel::oneshot::channel::<u32>();
    let handle = here.clone();
    let waits = pool.spawn(move || handle.block_on(receive));
    eventually("it runs", || waits.running());
    let pending = run(here, Some(7));
    let Err(WaitError::Timeout(waits)) = waits.result_timeout(Duration::from_millis(1)) else {
        panic!("it cannot be done");
    };
    assert!(pending.cancel());
    assert!(pending.result().unwrap_err().is_cancelled());
    send.send(7).unwrap();
    assert_eq!(waits.result().unwrap(), Ok(7));
}

/// Tasks that wait for each other: each is given the future of another one, and says what came of its wait.
fn cycle(
    pool: &ThreadPoolExecutor,
    length: usize,
    wait_for: fn(Future<String>) -> Result<String, String>,
) -> (Vec<TaskId>, Vec<Result<String, String>>) {
    let (tell, told) = mpsc::channel();
    let (futures, hands): (Vec<_>, Vec<_>) = (0..length)
        .map(|_| {
            let (give, get) = mpsc::channel::<Future<String>>();
            let tell = tell.clone();
            let future = pool.spawn(move || {
                let outcome = wait_for(get.recv().unwrap());
                tell.send(outcome).unwrap();
                String::from("over")
            });
            (future, give)
        })
        .unzip();
    let ids = futures.iter().map(Future::id).collect();
    for (next, future) in futures.into_iter().enumerate() {
        hands[(next + length - 1) % length].send(future).unwrap();
    }
    (ids, (0..length).map(|_| told.recv_timeout(DEADLINE).expect("a cycle of waits hangs")).collect())
}

/// NEST-02: the one that closes the cycle is told, with the names of all; the others then get what they wait for.
#[test]
fn a_cycle_of_waits_is_an_error_that_names_it() {
    let plainly = |future: Future<String>| {
        future.result().map_err(|error| {
            assert!(error.is_deadlock(), "{error}");
            error.to_string()
        })
    };
    for (workers, length) in [(1, 1), (2, 1), (2, 2), (1, 2), (3, 3), (1, 3), (2, 5)] {
        let pool = pool(workers);
        let (ids, outcomes) = cycle(&pool, length, plainly);
        let (good, told): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
        assert_eq!((good.len(), told.len()), (length - 1, 1), "{workers} workers, {length} tasks: {told:?}");
        assert!(good.into_iter().all(|value| value.as_deref() == Ok("over")));
        let sentence = told[0].as_ref().unwrap_err();
        assert!(sentence.starts_with("waiting for it would last for ever: task "), "{sentence}");
        for id in ids {
            assert!(sentence.contains(&format!(" task {id}")), "{sentence} does not name {id}");
        }
    }
}

/// NEST-02: in whatever form they wait. What cannot return an error panics, and that is the task's outcome.
#[test]
fn every_unlimited_wait_notices_a_cycle() {
    type Form = fn(Future<String>) -> Result<String, String>;
    fn caught(wait: impl FnOnce() -> String) -> Result<String, String> {
        panic::catch_unwind(AssertUnwindSafe(wait)).map_err(|panic| panic.downcast_ref::<String>().unwrap().clone())
    }
    let forms: [Form; 4] = [
        |future| {
            caught(|| {
                future.wait();
                future.result().unwrap()
            })
        },
        |future| caught(|| future.exception().map_or("value".into(), ToString::to_string)),
        |future| caught(|| as_completed([future]).next().unwrap().result().unwrap()),
        |future| caught(|| format!("{:?}", wait([&future], ALL_COMPLETED).done.len())),
    ];
    for (number, form) in forms.into_iter().enumerate() {
        let (_, outcomes) = cycle(&pool(2), 2, form);
        let told: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
        assert!(told.len() == 1 && told[0].contains("would last for ever"), "form {number}: {told:?}");
    }
}

/// NEST-02: a wait with a limit ends by itself, and one that another future can end is none that lasts for ever.
#[test]
fn what_ends_by_itself_is_no_cycle() {
    let limited = |future: Future<String>| match future.result_timeout(Duration::from_millis(30)) {
        Err(WaitError::Timeout(_)) => Ok("gave up".into()),
        Err(WaitError::Task(error)) => Err(error.to_string()),
        Ok(value) => Ok(value),
    };
    let (_, outcomes) = cycle(&pool(2), 2, limited);
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    let with_a_way_out = |future: Future<String>| {
        let other = ThreadPoolExecutor::new(1).unwrap().spawn(|| String::from("another"));
        let first = as_completed([future, other]).next().unwrap();
        first.result().map_err(|error| error.to_string())
    };
    let (_, outcomes) = cycle(&pool(2), 2, with_a_way_out);
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
}

/// NEST-01, AIO-01: a runtime's `block_on` in a call is a wait like any other.
#[test]
fn blocking_on_a_future_inside_cannot_exhaust_a_pool() {
    fn dig(pool: Arc<ThreadPoolExecutor>, depth: u32) -> u32 {
        let deeper = Arc::clone(&pool);
        match depth {
            0 => 0,
            _ => 1 + futures::executor::block_on(pool.spawn(move || dig(deeper, depth - 1))).unwrap(),
        }
    }
    // (That runtime refuses to be entered twice on one stack, which is why the depth is one.)
    let pool = pool(1);
    let outer = Arc::clone(&pool);
    assert_eq!(pool.spawn(move || dig(outer, 1)).result().unwrap(), 1);
    let outer = Arc::clone(&pool);
    let many = pool.spawn(move || {
        let calls: Vec<_> = (0..20).map(|x| outer.submit(|x: u32| x, x)).collect();
        futures::executor::block_on(futures::future::join_all(calls)).into_iter().map(Result::unwrap).sum::<u32>()
    });
    assert_eq!(many.result().unwrap(), 190);
}

/// CB-07: on the thread that cancels, and otherwise on the one that made the call.
#[test]
fn callbacks_run_on_the_worker() {
    let pool = pool(2);
    let gate = Gate::new();
    let key = gate.key();
    let call = pool.spawn(move || {
        pass(key);
        thread::current().id()
    });
    gate.await_arrivals(1);
    let (tell, told) = mpsc::channel();
    call.add_done_callback(move |_| tell.send(thread::current().id()).unwrap());
    gate.open();
    assert_eq!(told.recv_timeout(DEADLINE).unwrap(), call.result().unwrap());
    pool.shutdown(Shutdown::wait());
    let refused = pool.spawn(|| ());
    let (tell, told) = mpsc::channel();
    refused.add_done_callback(move |_| tell.send(thread::current().id()).unwrap());
    assert_eq!(told.try_recv().unwrap(), thread::current().id());
}

/// CB-13: neither does one in a call.
#[test]
fn a_shutdown_in_a_call_does_not_wait_for_itself() {
    let pool = pool(2);
    let inner = Arc::clone(&pool);
    let call = pool.spawn(move || inner.shutdown(Shutdown::wait()).is_complete());
    assert!(call.wait_timeout(DEADLINE));
    assert!(!call.result().unwrap(), "the call itself was not over");
    assert!(pool.spawn(|| ()).result().unwrap_err().is_shutdown());
}

/// SUB-05: without any order of its own, memory is as it was left.
#[test]
fn memory_is_seen_across_a_call() {
    let pool = pool(2);
    let cells: Arc<[AtomicU32; 16]> = Arc::default();
    for round in 1..200 {
        // ORDERING: Relaxed on purpose: `submit` and `result` are what orders.
        cells.iter().for_each(|cell| cell.store(round, Ordering::Relaxed));
        let seen = Arc::clone(&cells);
        let call = pool.spawn(move || {
            let stale = seen.iter().filter(|cell| cell.load(Ordering::Relaxed) != round).count();
            seen.iter().for_each(|cell| cell.store(round + 1000, Ordering::Relaxed));
            stale
        });
        assert_eq!(call.result().unwrap(), 0);
        assert!(cells.iter().all(|cell| cell.load(Ordering::Relaxed) == round + 1000));
    }
}

/// WRK-03, WRK-19: two hundred at the same time.
#[test]
fn a_large_pool_works() {
    const WORKERS: usize = 200;
    let pool = pool(WORKERS);
    let all = Arc::new(Barrier::new(WORKERS));
    let calls: Vec<_> = (0..WORKERS)
        .map(|_| {
            let all = Arc::clone(&all);
            pool.spawn(move || all.wait())
        })
        .collect();
    calls.iter().for_each(|call| assert!(call.wait_timeout(DEADLINE)));
    assert_eq!(pool.worker_count(), WORKERS);
}

/// SUB-12, WRK-17, WRK-18: in a process of its own, whose address space ends where a second stack would begin.
#[test]
fn a_thread_that_cannot_start_holds_nothing_up() {
    let program = |()| {
        const STACK: usize = 256 << 20;
        let build = || ThreadPoolExecutor::builder().max_workers(2).stack_size_bytes(STACK).build().unwrap();
        let (pool, none) = (build(), build());
        let gate = Gate::new();
        let first = pool.submit(pass, gate.key());
        gate.await_arrivals(1);
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
        let size: u64 = size.trim().trim_end_matches(" kB").parse().unwrap();
        let limit = Limit::set(Resource::As, size * 1024 + STACK as u64 / 4);
        let second = pool.submit(|x: u32| x, 5);
        assert!(pool.worker_count() == 1 && !second.done(), "it waits for the thread that there is");
        let refused = none.submit(|x: u32| x, 6);
        assert!(refused.done() && none.worker_count() == 0);
        let why = refused.result().unwrap_err();
        assert!(why.is_broken() && why.to_string().contains("no worker could be started"), "{why}");
        assert!(none.submit(|x: u32| x, 6).result().unwrap_err().is_broken());
        assert!(none.shutdown(Shutdown::wait()).is_complete());
        gate.open();
        first.result().unwrap();
        assert_eq!(second.result().unwrap(), 5);
        drop(limit);
    };
    ProcessPoolExecutor::new(1).unwrap().submit(program, ()).result().unwrap();
}

/// NEST-02: also of a wait for many, or for one that is made on top of the waiting one. A scope's own wait cannot be refused,
/// so there it is the other side that is told.
#[test]
fn a_call_that_waits_for_its_caller_is_noticed() {
    static OWN: Mutex<Option<Future<()>>> = Mutex::new(None);
    static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());
    fn wait_for_caller((): ()) {
        eventually("the caller's future", || OWN.lock().unwrap().is_some());
        let caller = OWN.lock().unwrap().take().unwrap();
        if let Err(error) = caller.result() {
            TOLD.lock().unwrap().push(error.to_string());
        }
    }
    fn note<R>(result: Result<R, TaskError>) {
        TOLD.lock().unwrap().extend(result.err().map(|error| error.to_string()));
    }
    type Form = fn(&ThreadPoolExecutor);
    let forms: [Form; 6] = [
        |pool| pool.map(wait_for_caller, [()]).for_each(note),
        |pool| pool.map(wait_for_caller, [()]).unordered().for_each(note),
        |pool| drop(wait([pool.submit(wait_for_caller, ()), pool.submit(|()| (), ())], ALL_COMPLETED)),
        |pool| drop(pool.scope(|scope| scope.spawn(|| wait_for_caller(())).result())),
        |pool| pool.scope(|scope| drop(scope.spawn(|| wait_for_caller(())))),
        |pool| {
            // The limit ends the task, and not the call that lies on the caller's stack.
            let limited = pool.with(TaskOptions::new().time_limit(2 * DEADLINE));
            note(limited.submit(wait_for_caller, ()).result());
        },
    ];
    // On one worker, each is made where it is awaited.
    for (number, workers) in [(0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (4, 1), (5, 1)] {
        let (form, pool, (tell, told)) = (forms[number], pool(workers), mpsc::channel());
        let inner = Arc::clone(&pool);
        let caller = pool.spawn(move || {
            let waited = panic::catch_unwind(AssertUnwindSafe(|| form(&inner)));
            TOLD.lock().unwrap().extend(waited.err().map(|panic| panic.downcast_ref::<String>().unwrap().clone()));
            tell.send(()).unwrap();
        });
        *OWN.lock().unwrap() = Some(caller);
        told.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("form {number} hangs"));
        promptly(move || pool.shutdown(Shutdown::wait()));
        let told = mem::take(&mut *TOLD.lock().unwrap());
        assert!(told.iter().any(|sentence| sentence.contains("would last for ever")), "form {number}: {told:?}");
    }
}

/// NEST-02: no cycle leads through a task that ends by itself, as long as its call has a thread of its own.
#[test]
fn a_task_with_a_limit_closes_no_cycle() {
    static OTHER: Mutex<Option<Future<bool>>> = Mutex::new(None);
    let pool = pool(2);
    let limit = TaskOptions::new().time_limit(Duration::from_millis(50));
    let limited = pool.with(limit).submit(
        |()| {
            eventually("the other's future", || OTHER.lock().unwrap().is_some());
            let other = OTHER.lock().unwrap().take().unwrap();
            other.result().unwrap()
        },
        (),
    );
    // On a thread of its own, not in place by the one that waits for it.
    eventually("it runs", || limited.running() || limited.done());
    let (tell, told) = mpsc::channel();
    let other = pool.spawn(move || {
        let error = limited.result().unwrap_err();
        tell.send(error.to_string()).unwrap();
        error.is_timed_out()
    });
    *OTHER.lock().unwrap() = Some(other);
    let told = told.recv_timeout(DEADLINE).expect("it hangs");
    assert!(told.contains("its limit of 50ms"), "{told}");
}

/// AIO-01: polling makes no call and holds up no other branch; a spare makes what was polled.
#[test]
fn a_branch_beside_a_future_goes_on() {
    let (one, gate) = (pool(1), Gate::new());
    let (inner, key) = (Arc::clone(&one), gate.key());
    let selected = one.spawn(move || {
        let slow = inner.submit(pass, key);
        matches!(block_on(select(slow, std::future::ready(()))), Either::Right(_))
    });
    assert!(promptly(move || selected.result().unwrap()), "the gate is still closed");
    gate.open();

    let (inner, (tell, told)) = (Arc::clone(&one), mpsc::channel());
    let joined = one.spawn(move || {
        let waits = inner.spawn(move || told.recv_timeout(DEADLINE).ok());
        block_on(join(waits, async move { tell.send(7).unwrap() })).0.unwrap()
    });
    assert_eq!(promptly(move || joined.result().unwrap()), Some(7));
}

/// What waits is cancelled, and what a waiter has begun in place no longer waits.
#[test]
fn cancelling_what_waits_stops_no_call_in_place() {
    let (pool, gate) = (pool(1), Gate::new());
    let (inner, key) = (Arc::clone(&pool), gate.key());
    let asked = |key| {
        pass(key);
        current_task().is_cancelled()
    };
    let call = pool.spawn(move || inner.submit(asked, key).result());
    gate.await_arrivals(1);
    pool.shutdown(Shutdown::no_wait().cancel_pending());
    gate.open();
    assert!(!call.result().unwrap().unwrap());
}

/// A call that has begun in place ends as it likes, though the pool breaks meanwhile.
#[test]
fn a_call_in_place_outlives_its_pool() {
    static STARTED: AtomicU32 = AtomicU32::new(0);
    let (gate, initializer) = (Gate::new(), Gate::new());
    let fails_second = |key| {
        if STARTED.fetch_add(1, Ordering::SeqCst) == 1 {
            pass(key);
            panic!("on purpose");
        }
    };
    let builder = ThreadPoolExecutor::builder().max_workers(2).initializer(fails_second, initializer.key());
    let pool = Arc::new(builder.build().unwrap());
    let (inner, key) = (Arc::clone(&pool), gate.key());
    let call = pool.spawn(move || {
        let in_place = inner.spawn(move || {
            pass(key);
            7
        });
        in_place.result()
    });
    gate.await_arrivals(1);
    initializer.await_arrivals(1);
    initializer.open();
    assert!(promptly(move || pool.submit(|()| (), ()).result()).unwrap_err().is_broken());
    gate.open();
    assert_eq!(call.result().unwrap().unwrap(), 7);
}

/// The pause lies between attempts also where a waiter makes them.
#[test]
fn a_call_in_place_pauses_too() {
    const PAUSE: Duration = Duration::from_millis(60);
    /// When an attempt began, and when it was decided what follows: a panic takes its time to be printed.
    static TIMES: Mutex<Vec<Instant>> = Mutex::new(Vec::new());
    fn note() {
        TIMES.lock().unwrap().push(Instant::now());
    }
    let fails = |()| -> () {
        note();
        panic!("on purpose");
    };
    let policy = RetryPolicy::attempts(2).delay(PAUSE).when(|_| {
        note();
        true
    });
    let pool = pool(1);
    let inner = Arc::clone(&pool);
    let call = pool.spawn(move || inner.with(TaskOptions::new().retry(policy)).submit(fails, ()).result());
    assert_eq!(promptly(move || call.result().unwrap()).unwrap_err().attempts(), 2);
    let times = TIMES.lock().unwrap();
    assert!(times[2] - times[1] >= PAUSE, "{times:?}");
}

/// INI-09: a finalizer may wait, for another pool's call or for its own pool's end.
#[test]
fn a_finalizer_may_wait() {
    static OTHER: OnceLock<Arc<ThreadPoolExecutor>> = OnceLock::new();
    static POOL: OnceLock<Arc<ThreadPoolExecutor>> = OnceLock::new();
    static FLUSHED: AtomicU32 = AtomicU32::new(0);
    let flush = |key| {
        OTHER.get_or_init(|| pool(1)).submit(pass, key).result().unwrap();
        if let Some(pool) = POOL.get() {
            pool.shutdown(Shutdown::wait());
        }
        FLUSHED.fetch_add(1, Ordering::SeqCst);
    };
    let gate = Gate::new();
    let builder = ThreadPoolExecutor::builder().max_workers(1).finalizer(flush, gate.key());
    let idle = Arc::new(builder.idle_timeout(Duration::from_millis(1)).build().unwrap());
    idle.submit(|()| (), ()).result().unwrap();
    gate.await_arrivals(1);
    // A worker has left, and waits. The pool goes on without it.
    assert!(idle.submit(|()| (), ()).wait_timeout(DEADLINE), "it has lost count of its workers");
    assert!(idle.worker_count() <= 1);
    gate.open();
    promptly(move || idle.shutdown(Shutdown::wait()));
    let before = FLUSHED.load(Ordering::SeqCst);
    assert!(before > 0);

    let builder = ThreadPoolExecutor::builder().max_workers(1).finalizer(flush, gate.key());
    let own = POOL.get_or_init(|| Arc::new(builder.build().unwrap()));
    own.submit(|()| (), ()).result().unwrap();
    assert!(promptly(|| own.shutdown(Shutdown::wait())).is_complete());
    assert_eq!(FLUSHED.load(Ordering::SeqCst), before + 1);
}

/// INI-09: whoever waits for a pool's end waits for its finalizers, and no longer than the limit.
#[test]
fn every_shutdown_waits_for_finalizers() {
    let gate = Gate::new();
    let builder = ThreadPoolExecutor::builder().max_workers(1).finalizer(pass, gate.key());
    let pool = Arc::new(builder.build().unwrap());
    pool.submit(|()| (), ()).result().unwrap();
    let inner = Arc::clone(&pool);
    promptly(move || inner.shutdown(Shutdown::wait().at_most(Duration::from_millis(20))));
    gate.await_arrivals(1);
    let (opened, (tell, told)) = (Arc::new(AtomicBool::new(false)), mpsc::channel());
    for _ in 0..2 {
        let (pool, opened, tell) = (Arc::clone(&pool), Arc::clone(&opened), tell.clone());
        thread::spawn(move || {
            pool.shutdown(Shutdown::wait());
            tell.send(opened.load(Ordering::SeqCst)).unwrap();
        });
    }
    thread::sleep(Duration::from_millis(20)); // for one that does not wait to show itself
    opened.store(true, Ordering::SeqCst);
    gate.open();
    assert!((0..2).all(|_| told.recv_timeout(DEADLINE).expect("it hangs")), "one did not wait");
}

/// Arguments are copied for each attempt but the last, and a copy that is dropped badly hurts nobody.
#[test]
fn attempts_copy_what_they_need() {
    static COPIES: AtomicUsize = AtomicUsize::new(0);
    struct Copied;
    impl Serialize for Copied {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            COPIES.fetch_add(1, Ordering::SeqCst);
            serializer.serialize_unit()
        }
    }
    impl<'de> Deserialize<'de> for Copied {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            <()>::deserialize(deserializer).map(|()| Copied)
        }
    }
    #[derive(Serialize, Deserialize)]
    struct DropsBadly;
    impl Drop for DropsBadly {
        fn drop(&mut self) {
            panic!("in drop");
        }
    }
    let pool = pool(1);
    let fails = |_: Copied| -> () { panic!("on purpose") };
    for attempts in 1..4 {
        let options = TaskOptions::new().retry(RetryPolicy::attempts(attempts));
        let error = pool.with(options).submit(fails, Copied).result().unwrap_err();
        assert_eq!((error.attempts(), COPIES.swap(0, Ordering::SeqCst)), (attempts, attempts as usize - 1));
    }
    let twice = TaskOptions::new().retry(RetryPolicy::attempts(2));
    let kept = pool.with(twice).submit(|args: DropsBadly| mem::forget(args), DropsBadly);
    assert!(kept.wait_timeout(DEADLINE));
    kept.result().unwrap();
    assert_eq!(pool.submit(|x: u8| x, 1).result().unwrap(), 1);
}

/// PEB-04, JOB-23 [threads]: what runs is asked to stop last, so that its worker begins nothing else. Here one of those that wait is slow to
/// go.
#[test]
fn what_waits_is_cancelled_before_what_runs_is_asked_to_stop() {
    static BEGAN: AtomicUsize = AtomicUsize::new(0);

    #[derive(Serialize, Deserialize)]
    struct Item(u32);

    impl Drop for Item {
        fn drop(&mut self) {
            // Long enough for a worker that has nothing else to do.
            let came = Instant::now();
            while self.0 == 2 && BEGAN.load(Ordering::SeqCst) < 2 && came.elapsed() < Duration::from_millis(100) {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }

    fn call(item: Item) -> u32 {
        BEGAN.fetch_add(1, Ordering::SeqCst);
        while !current_task().is_cancelled() {
            thread::sleep(Duration::from_millis(1));
        }
        item.0
    }

    let items = || (1..=3).map(Item);
    let is_called = || eventually("the first is called", || BEGAN.load(Ordering::SeqCst) == 1);
    let executor = pool(1);
    let pool = Pool::from(Arc::clone(&executor));
    for way in ["cancelled", "unordered, cancelled", "dropped", "all at once", "Parallel"] {
        BEGAN.store(0, Ordering::SeqCst);
        match way {
            "all at once" => {
                let whole = pool.map_async(call, items());
                is_called();
                assert!(whole.cancel());
            }
            "Parallel" => {
                let parallel = Parallel::new().backend(Arc::clone(&executor) as Arc<dyn Executor>);
                let results = parallel.batch_size(1).pre_dispatch("all").generator(items().map(delayed(call)));
                is_called();
                drop(results);
            }
            _ => {
                let map = executor.map(call, items()).chunk_size(1);
                let map = if way == "unordered, cancelled" { map.unordered() } else { map };
                let mut map = map.start();
                is_called();
                if way != "dropped" {
                    map.cancel();
                }
            }
        }
        // The worker is there for another call when the first has stopped.
        assert_eq!(pool.apply(|x: u32| x, 7).unwrap(), 7);
        assert_eq!(BEGAN.load(Ordering::SeqCst), 1, "{way}");
    }
}
