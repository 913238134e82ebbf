//! Pools of processes that change their size, that are shared, and what their workers find around them.

use crate::support::{DEADLINE, Gate, Key, Log, append, eventually, pass, runs, signal_child};
use concurrent_futures::{
    BuildError, Executor, Future, ProcessPoolExecutor, ProcessPoolExecutorBuilder, Shared as Slice, Shutdown, WhenFull,
    cpu_count,
};
use rustix::process::Signal;
use std::{
    collections::HashSet,
    env, fs, io,
    process::{self, Command},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

fn pid((): ()) -> u32 {
    process::id()
}

fn stay(key: Key) -> u32 {
    pass(key);
    process::id()
}

fn all<R: concurrent_futures::Value>(futures: Vec<Future<R>>) -> Vec<R> {
    futures.into_iter().map(|future| future.result().unwrap()).collect()
}

/// LOK-02, LOK-03: a pool that grows does so at once, and keeps its workers.
#[test]
fn a_pool_grows_at_once() {
    let pool = ProcessPoolExecutor::new(1).unwrap();
    let gate = Gate::new();
    let calls: Vec<_> = (0..3).map(|_| pool.submit(stay, gate.key())).collect();
    gate.await_arrivals(1);
    let first = pool.worker_pids()[0];
    assert!(calls.iter().filter(|call| call.running()).count() == 1 && pool.worker_pids().len() == 1);
    pool.resize(3).unwrap();
    assert_eq!(pool.max_workers().get(), 3);
    gate.await_arrivals(3);
    gate.open();
    let pids: HashSet<_> = all(calls).into_iter().collect();
    assert!(pids.len() == 3 && pids.contains(&first));
    for asked in [0, 1 << 20] {
        assert_eq!(pool.resize(asked).unwrap_err(), BuildError::Workers { asked, limit: 4096 });
    }
    assert_eq!(pool.max_workers().get(), 3);
}

/// LOK-03: it becomes smaller as its workers become idle, waits for none, stops none and loses no call.
#[test]
fn a_pool_shrinks_as_workers_become_idle() {
    let pool = ProcessPoolExecutor::new(4).unwrap();
    let (gate, log) = (Gate::new(), Log::new());
    let running: Vec<_> = (0..4).map(|_| pool.submit(stay, gate.key())).collect();
    gate.await_arrivals(4);
    let before: HashSet<_> = pool.worker_pids().into_iter().collect();
    let note = |(log, x): (String, u32)| {
        append(&log, &x.to_string());
        process::id()
    };
    let waiting: Vec<_> = (0..40).map(|x| pool.submit(note, (log.path(), x))).collect();
    pool.resize(1).unwrap();
    assert!(running.iter().all(|call| call.running()), "nobody was waited for, and nobody stopped");
    gate.open();
    assert_eq!(all(running).into_iter().collect::<HashSet<_>>(), before);
    let pids: HashSet<_> = all(waiting).into_iter().collect();
    assert!(pids.is_subset(&before), "no worker was started for them");
    eventually("one is left", || pool.worker_pids().len() == 1);
    let left = pool.worker_pids()[0];
    assert!(before.contains(&left));
    assert_eq!(pool.submit(pid, ()).result().unwrap(), left);
    eventually("the others have ended", || before.iter().filter(|pid| runs(**pid)).count() == 1);
    let one = Gate::new();
    let calls: Vec<_> = (0..2).map(|_| pool.submit(stay, one.key())).collect();
    one.await_arrivals(1);
    assert!(!calls[1].running() && pool.worker_pids() == [left]);
    one.open();
    assert_eq!(all(calls), [left, left]);
}

/// LOK-03: idle workers leave at once; and those that were to leave stay if they are needed after all.
#[test]
fn a_pool_may_change_its_mind() {
    let pool = ProcessPoolExecutor::new(3).unwrap();
    let use_all = || {
        let gate = Gate::new();
        let calls: Vec<_> = (0..3).map(|_| pool.submit(stay, gate.key())).collect();
        gate.await_arrivals(3);
        pool.resize(1).unwrap();
        // Seen by the driver, since that answers an order of a later one.
        let last = pool.submit(pid, ());
        assert!(last.cancel());
        pool.resize(3).unwrap();
        gate.open();
        all(calls).into_iter().collect::<HashSet<_>>()
    };
    let first = use_all();
    assert_eq!(use_all(), first);
    pool.resize(2).unwrap();
    eventually("one has left", || pool.worker_pids().len() == 2);
    assert!(pool.worker_pids().iter().all(|pid| first.contains(pid)));
}

/// A smaller pool, whose calls are many and short, with workers that are replaced: nothing is lost, whatever comes together.
#[test]
fn sizes_may_vary_all_the_time() {
    let pool = ProcessPoolExecutor::builder().max_workers(2).max_tasks_per_child(5).build().unwrap();
    let futures: Vec<_> = (0..60_u64)
        .map(|x| {
            pool.resize([1, 3, 2, 4][x as usize % 4]).unwrap();
            pool.submit(|x: u64| x * x, x)
        })
        .collect();
    assert!(all(futures).into_iter().eq((0..60).map(|x| x * x)));
    assert!(pool.shutdown(Shutdown::wait().at_most(DEADLINE)).is_complete());
}

/// DL-02, DL-03: with calls under way, and with workers that are killed before, while and after it is resized: each call has its
/// outcome, and the pool its size.
#[test]
fn a_pool_is_resized_whatever_happens_to_its_workers() {
    for kills in [false, true] {
        let pool = ProcessPoolExecutor::new(4).unwrap();
        let kill_one = || {
            let victim = pool.worker_pids().first().copied().filter(|_| kills);
            victim.is_some_and(|pid| signal_child(pid, Signal::KILL))
        };
        for size in [12, 2, 1, 12, 6, 1, 8, 5] {
            let calls: Vec<_> = (0..20_u64).map(|x| pool.submit(|x: u64| x * x, x)).collect();
            let mut killed = usize::from(kill_one());
            pool.resize(size).unwrap();
            killed += usize::from(kill_one());
            let after = pool.submit(|x: u64| x + 1, 1);
            let outcomes: Vec<_> = calls.into_iter().map(Future::result).collect();
            let mut lost = usize::from(after.result().is_err_and(|error| error.is_worker_lost()));
            for (x, outcome) in (0..).zip(outcomes) {
                match outcome {
                    Ok(square) => assert_eq!(square, x * x),
                    Err(error) => {
                        assert!(error.is_worker_lost(), "{error}");
                        lost += 1;
                    }
                }
            }
            assert!(lost <= killed, "{lost} calls were lost with {killed} workers");
            assert_eq!(pool.max_workers().get(), size);
        }
        assert!(pool.shutdown(Shutdown::wait().at_most(DEADLINE)).is_complete());
    }
}

/// LOK-07: in the environment with which the process was started, before any code of it ran.
#[test]
fn variables_are_there_from_the_start() {
    let builder = || ProcessPoolExecutor::builder().max_workers(1);
    let pool = builder()
        .env("LOK_07", "first")
        .env("LOK_07", "second")
        .env("RAYON_NUM_THREADS", "5")
        .inner_max_num_threads(3)
        .build()
        .unwrap();
    let look = |name: String| {
        let start = fs::read("/proc/self/environ").unwrap();
        let entry = format!("{name}=");
        let found = start.split(|byte| *byte == 0).filter_map(|line| line.strip_prefix(entry.as_bytes()));
        (found.map(|value| String::from_utf8_lossy(value).into_owned()).collect::<Vec<_>>(), env::var(name).ok())
    };
    for (name, value) in [("LOK_07", "second"), ("RAYON_NUM_THREADS", "5"), ("OMP_NUM_THREADS", "3")] {
        let seen = pool.submit(look, name.to_owned()).result().unwrap();
        assert_eq!(seen, (vec![value.to_owned()], Some(value.to_owned())));
    }
    assert!(env::var_os("LOK_07").is_none(), "not in this process");
    for (name, value) in [("", "x"), ("a=b", "x"), ("a\0b", "x"), ("a", "x\0y"), ("CONCURRENT_FUTURES_WORKER", "x")] {
        let error = builder().env(name, value).build().unwrap_err();
        assert_eq!(error, BuildError::Variable { name: name.to_owned() });
        assert!(error.to_string().contains(&format!("{name:?} cannot be set")), "{error}");
    }
}

/// LOK-10: more than there are processors, all at the same time.
#[test]
fn more_workers_than_processors_are_honoured() {
    let workers = 2 * cpu_count().get() + 2;
    let pool = ProcessPoolExecutor::new(workers).unwrap();
    let gate = Gate::new();
    let calls: Vec<_> = (0..workers).map(|_| pool.submit(stay, gate.key())).collect();
    gate.await_arrivals(workers);
    gate.open();
    assert_eq!(all(calls).into_iter().collect::<HashSet<_>>().len(), workers);
}

/// LOK-11: empty for the call and for what it starts, which is nobody's channel.
#[test]
fn standard_input_is_empty() {
    let reads = |()| {
        let started = Command::new("cat").output().unwrap();
        (io::read_to_string(io::stdin()).unwrap(), started.status.success(), started.stdout)
    };
    let pool = ProcessPoolExecutor::new(1).unwrap();
    assert_eq!(pool.submit(reads, ()).result().unwrap(), (String::new(), true, Vec::new()));
    assert_eq!(pool.submit(|x: u32| x, 1).result().unwrap(), 1);
}

/// In a process of its own: a program has one shared pool.
fn alone(program: fn(())) {
    ProcessPoolExecutor::new(1).unwrap().submit(program, ()).result().unwrap();
}

fn shared(workers: usize) -> ProcessPoolExecutorBuilder {
    ProcessPoolExecutor::builder().max_workers(workers)
}

/// LOK-01, LOK-02: the same for equal choices, whatever its size; another one for others, and in place of one that is over.
#[test]
fn a_pool_is_shared_while_choices_are_equal() {
    alone(|()| {
        let first = ProcessPoolExecutor::shared().unwrap();
        assert_eq!(first.max_workers(), cpu_count());
        let worker = first.submit(pid, ()).result().unwrap();
        let same = shared(1).build_shared().unwrap();
        assert!(Arc::ptr_eq(&first, &same) && first.max_workers().get() == 1, "it was resized");
        assert!(Arc::ptr_eq(&first, &ProcessPoolExecutor::builder().build_shared().unwrap()));
        assert_eq!(first.max_workers().get(), 1, "no size was asked for");
        assert_eq!(same.submit(pid, ()).result().unwrap(), worker);
        assert!(shared(0).build_shared().is_err() && Arc::ptr_eq(&first, &ProcessPoolExecutor::shared().unwrap()));

        // Each choice makes another pool of it; the one before goes on for whoever has it.
        type Choose = fn(ProcessPoolExecutorBuilder) -> ProcessPoolExecutorBuilder;
        let choices: [Choose; 9] = [
            |builder| builder.env("A", "1"),
            |builder| builder.env("A", "2"),
            |builder| builder.initializer(|_: u32| (), 1),
            |builder| builder.initializer(|_: u32| (), 2),
            |builder| builder.finalizer(|_: u32| (), 2),
            |builder| builder.max_open_files(64),
            |builder| builder.max_tasks_per_child(9),
            |builder| builder.queue_capacity(9, WhenFull::Reject),
            |builder| builder.kill_grace(Duration::from_secs(1)),
        ];
        let mut before = Arc::clone(&first);
        for choose in choices {
            let pool = choose(shared(1)).build_shared().unwrap();
            assert!(!Arc::ptr_eq(&pool, &before));
            assert!(Arc::ptr_eq(&pool, &choose(shared(1)).build_shared().unwrap()));
            assert!(Arc::ptr_eq(&pool, &ProcessPoolExecutor::shared().unwrap()), "whatever was chosen");
            before = pool;
        }
        assert_eq!(before.submit(pid, ()).result().is_ok(), first.submit(pid, ()).result().is_ok());

        let shut_down = shared(1).build_shared().unwrap();
        shut_down.kill_workers();
        let broken = shared(1).build_shared().unwrap();
        assert!(!Arc::ptr_eq(&shut_down, &broken));
        let broken = broken.max_workers();
        let fails = || shared(broken.get()).initializer(|()| panic!("no"), ());
        let pool = fails().build_shared().unwrap();
        assert!(pool.submit(pid, ()).result().unwrap_err().is_broken());
        let next = fails().build_shared().unwrap();
        assert!(!Arc::ptr_eq(&pool, &next));
    });
}

/// LOK-01: what was submitted to a pool that another one replaces is still done.
#[test]
fn a_shared_pool_that_is_replaced_finishes() {
    alone(|()| {
        let gate = Gate::new();
        let call = shared(1).build_shared().unwrap().submit(stay, gate.key());
        gate.await_arrivals(1);
        let other = shared(1).env("A", "1").build_shared().unwrap();
        other.submit(pid, ()).result().unwrap();
        assert!(!call.done());
        gate.open();
        call.result().unwrap();
    });
}

/// LOK-04: a crash costs a call, and neither the pool nor the next one.
#[test]
fn a_shared_pool_survives_crashes() {
    alone(|()| {
        let pool = || shared(2).build_shared().unwrap();
        let first = pool();
        for code in 0..3 {
            assert!(pool().submit(|code| -> () { process::exit(code) }, code).result().unwrap_err().is_worker_lost());
            assert_eq!(pool().submit(|x: u32| x, 5).result().unwrap(), 5);
        }
        assert!(Arc::ptr_eq(&first, &pool()));
    });
}

/// LOK-05, LOK-12: any number of threads may ask for it, with sizes that vary, from a clean start and from a broken one;
/// none of them is in the way of the processes that start meanwhile, and nobody warns of anything.
#[test]
fn a_shared_pool_is_for_all_threads() {
    alone(|()| {
        for start in ["clean", "shut down", "broken"] {
            match start {
                "shut down" => drop(ProcessPoolExecutor::shared().unwrap().shutdown(Shutdown::now())),
                "broken" => {
                    let pool = shared(1).initializer(|()| panic!("on purpose"), ()).build_shared().unwrap();
                    assert!(pool.submit(pid, ()).result().unwrap_err().is_broken());
                }
                _ => {}
            }
            thread::scope(|scope| {
                for thread in 0..6_usize {
                    scope.spawn(move || {
                        for round in 0..4 {
                            let workers = if thread % 2 == 0 { 2 } else { 1 + (thread + round) % 3 };
                            let pool = shared(workers).build_shared().unwrap();
                            assert_eq!(pool.submit(|x: usize| x * x, round).result().unwrap(), round * round);
                        }
                    });
                }
            });
        }
        let pools: HashSet<_> = (0..3).map(|_| Arc::as_ptr(&ProcessPoolExecutor::shared().unwrap())).collect();
        assert_eq!(pools.len(), 1);
    });
}

/// LOK-01: choices that differ only in what a descriptor stands for are different ones.
#[test]
fn a_shared_pool_knows_shared_slices_apart() {
    static SUM: AtomicU64 = AtomicU64::new(0);
    let sum_with = |items: [u64; 4]| {
        let learn = |items: Slice<[u64]>| SUM.store(items.iter().sum(), Ordering::Relaxed);
        let builder = ProcessPoolExecutor::builder().max_workers(1).process_name_prefix("slices");
        let pool = builder.initializer(learn, Slice::new(items).unwrap()).build_shared().unwrap();
        pool.submit(|()| SUM.load(Ordering::Relaxed), ()).result().unwrap()
    };
    assert_eq!((sum_with([1; 4]), sum_with([2; 4])), (4, 8));
}
