//! `Pool` and `ThreadPool` by their own names: what the suite, which has pools of any executor, cannot show.

use crate::support::{DEADLINE, Gate, Log, append, eventually, pass, promptly, runs, signal_child};
use concurrent_futures::{
    BuildError, Executor, Pool, ProcessPoolExecutor, Rejected, Shutdown, ShutdownReport, ThreadPool,
    ThreadPoolExecutor, backend::Task,
};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use std::{
    num::NonZeroUsize,
    process,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

fn cube(x: u64) -> u64 {
    x.pow(3)
}

/// POOL-26.
#[test]
fn pools_have_as_many_workers_as_were_asked_for() {
    let refused = |error: BuildError| matches!(error, BuildError::Workers { asked: 0, .. });
    assert!(refused(Pool::new(0).unwrap_err()) && refused(ThreadPool::new(0).unwrap_err()));
    assert_eq!(Pool::new(3).unwrap().executor().max_workers().get(), 3);
    assert_eq!(ThreadPool::new(3).unwrap().executor().max_workers().get(), 3);
    let gate = Gate::new();
    let (processes, threads) = (Pool::new(3).unwrap(), ThreadPool::new(3).unwrap());
    let _running: Vec<_> =
        (0..8)
            .map(|number| {
                if number < 4 { processes.apply_async(pass, gate.key()) } else { threads.apply_async(pass, gate.key()) }
            })
            .collect();
    gate.await_arrivals(6);
    assert_eq!(processes.executor().worker_pids().len(), 3);
    gate.open();
}

/// POOL-28: the same calls, and an error is told alike.
#[test]
fn both_kinds_have_the_same_face() {
    fn use_it<E: Executor>(pool: &Pool<E>) -> Vec<String> {
        let mut said = vec![
            format!("{:?}", pool.apply(cube, 3)),
            format!("{:?}", pool.map(cube, 0..3)),
            format!("{:?}", pool.starmap(u64::pow, [(2, 3)])),
            format!("{:?}", pool.apply_async(cube, 2).get()),
            format!("{:?}", pool.imap(cube, 0..3).map(Result::unwrap).collect::<Vec<_>>()),
        ];
        let error = pool.apply(|x: u32| 1 / x, 0).unwrap_err();
        said.push(format!("{:?} at {:?}", error.panic_message(), error.panic_location()));
        said
    }
    let (processes, threads) = (Pool::new(1).unwrap(), ThreadPool::new(1).unwrap());
    assert_eq!(use_it(&processes), use_it(&threads));
    let threads: Pool<ThreadPoolExecutor> = threads.into();
    assert!(format!("{threads:?} {processes:?}").contains("executor: ThreadPoolExecutor {"));
    assert!(threads.join().is_complete());
    let (first, second) =
        ThreadPool::new(2).unwrap().scope(|pool| (pool.apply_async(cube, 1), pool.apply_async(cube, 2)));
    assert!(first.ready() && second.ready());
    ThreadPool::new(1).unwrap().join();
}

/// POOL-27 [processes], INI-01: and what else a builder passes on.
#[test]
fn builders_pass_their_choices_on() {
    let log = Log::new();
    let hello = |log: String| append(&log, &format!("hello {:?} {}", thread::current().id(), process::id()));
    let pool = Pool::builder().processes(1).initializer(hello, log.path()).max_tasks_per_child(2).build().unwrap();
    let pids: Vec<_> = (0..6).map(|_| pool.apply(|()| process::id(), ()).unwrap()).collect();
    for pid in &pids {
        assert!(pids.iter().filter(|other| *other == pid).count() <= 2, "{pids:?}");
    }
    assert!(log.lines().len() >= 3, "{:?}", log.lines());

    let log = Log::new();
    let pool = ThreadPool::builder().processes(1).initializer(hello, log.path()).build().unwrap();
    assert_eq!(pool.map(cube, 0..3).unwrap(), [0, 1, 8]);
    assert_eq!(log.lines().len(), 1);
}

/// POOL-21 [processes]: its worker is replaced, and nobody waits for it in vain; it costs what it ran, and nothing else.
#[test]
fn a_killed_worker_is_the_error_of_its_call() {
    let pool = Pool::new(1).unwrap();
    let gate = Gate::new();
    let tell = |key| {
        pass(key);
        process::id()
    };
    let result = pool.apply_async(tell, gate.key());
    let next = pool.apply_async(cube, 3);
    gate.await_arrivals(1);
    let worker = pool.executor().worker_pids()[0];
    assert!(signal_child(worker, Signal::KILL));
    let error = promptly(|| result.get()).unwrap_err();
    assert_eq!(error.worker_lost().map(|lost| lost.pid), Some(worker));
    eventually("it has ended", || !runs(worker));
    assert_eq!(promptly(|| next.get()).unwrap(), 27);

    let whole = pool.chunk_size(2).map_async(|x: u64| if x == 3 { process::exit(5) } else { x }, 0..6);
    assert!(promptly(|| whole.get()).unwrap_err().is_worker_lost());
    assert_eq!(pool.apply(cube, 2).unwrap(), 8);
}

/// Makes each call at once, and counts them.
#[derive(Default)]
struct Counts(AtomicUsize);

impl Executor for Counts {
    fn execute(&self, task: Task) {
        self.0.fetch_add(1, Ordering::Relaxed);
        task.run();
    }

    fn max_workers(&self) -> NonZeroUsize {
        NonZeroUsize::new(3).unwrap()
    }

    fn shutdown(&self, _: Shutdown) -> ShutdownReport {
        ShutdownReport::new(0, 0, 0)
    }
}

/// POOL-04, POOL-05, POOL-03: how many calls so many items are, on any executor.
#[test]
fn chunks_are_as_large_as_they_should_be() {
    let pool = Pool::from(Counts::default());
    let count = |what: &dyn Fn()| {
        let before = pool.executor().0.load(Ordering::Relaxed);
        what();
        pool.executor().0.load(Ordering::Relaxed) - before
    };
    // ceil(items / (4 × 3 workers)) items each.
    for (items, chunks) in [(0, 0), (1, 1), (12, 12), (13, 7), (24, 12), (25, 9), (1200, 12), (1201, 12)] {
        assert_eq!(count(&|| drop(pool.map_async(cube, 0..items).get().unwrap())), chunks, "{items} items");
        let pairs = (0..items).map(|x| (x, 1));
        assert_eq!(count(&|| drop(pool.starmap_async(u64::pow, pairs.clone()).get().unwrap())), chunks);
        assert_eq!(count(&|| pool.imap(cube, 0..items).for_each(drop)), items as usize);
        assert_eq!(count(&|| pool.imap_unordered(cube, 0..items).for_each(drop)), items as usize);
    }
    for size in [1, 5, 100] {
        let chunks = 17_usize.div_ceil(size);
        let pool = pool.chunk_size(size);
        assert_eq!(count(&|| drop(pool.map(cube, 0..17).unwrap())), chunks);
        assert_eq!(count(&|| drop(pool.map_async(cube, 0..17).get().unwrap())), chunks);
        assert_eq!(count(&|| drop(pool.starmap(u64::pow, (0..17).map(|x| (x, 1))).unwrap())), chunks);
    }
}

/// Loses each call but the first, and refuses all later ones that ask.
struct Loses(AtomicUsize);

impl Executor for Loses {
    fn execute(&self, task: Task) {
        drop(task);
    }

    fn try_execute(&self, task: Task, _: Duration) -> Result<(), Rejected<Task>> {
        match self.0.fetch_add(1, Ordering::Relaxed) {
            0 => task.run(),
            1 => drop(task),
            _ => return Err(Rejected::new(task, concurrent_futures::Failure::Shutdown)),
        }
        Ok(())
    }

    fn max_workers(&self) -> NonZeroUsize {
        NonZeroUsize::MIN
    }

    fn shutdown(&self, _: Shutdown) -> ShutdownReport {
        ShutdownReport::new(0, 0, 0)
    }
}

/// A whole map ends, whatever an executor does with its chunks.
#[test]
fn a_whole_map_ends_with_its_last_chunk() {
    let pool = Pool::from(Loses(AtomicUsize::new(0)));
    let whole = pool.chunk_size(1).map_async(cube, 0..4);
    assert!(whole.ready());
    assert!(whole.get().unwrap_err().is_broken(), "the first failure in the order of the items");
}

/// A whole map's values are put together by whoever ends the last chunk, while others look, cancel and wait.
#[test]
fn whole_maps_are_waited_for_and_cancelled_at_once() {
    let (processes, threads) = (ProcessPoolExecutor::new(2).unwrap(), ThreadPoolExecutor::new(2).unwrap());
    let pools = [Pool::from(&processes as &dyn Executor), Pool::from(&threads as &dyn Executor)];
    for round in 0..100_u64 {
        for pool in &pools {
            let whole = pool.chunk_size(1).map_async(cube, 0..8);
            thread::scope(|scope| {
                scope.spawn(|| whole.wait_timeout(DEADLINE));
                if round % 2 == 0 {
                    whole.cancel();
                }
            });
            assert!(whole.ready(), "round {round}");
            match whole.get() {
                Ok(cubes) => assert_eq!(cubes, (0..8).map(cube).collect::<Vec<_>>()),
                Err(error) => assert!(round % 2 == 0 && error.is_cancelled(), "{error}"),
            }
        }
    }
}

/// A task of a pool of one thread may wait for a whole map on the same pool.
#[test]
fn a_task_waits_for_a_whole_map_of_its_own_pool() {
    let pool = Arc::new(Pool::from(ThreadPoolExecutor::new(1).unwrap()));
    let inner = Arc::clone(&pool);
    let outer = pool.executor().spawn(move || {
        let whole = inner.chunk_size(1).map_async(cube, 0..8).get().unwrap();
        (whole, inner.map(cube, 0..8).unwrap(), inner.apply(cube, 2).unwrap())
    });
    let cubes: Vec<_> = (0..8).map(cube).collect();
    assert_eq!(promptly(|| outer.result()).unwrap(), (cubes.clone(), cubes, 8));
}

/// A whole map ends, also when the values that nobody gets include one that cannot be dropped in peace.
#[test]
fn values_that_drop_badly_are_nobodys_hang() {
    #[derive(Serialize, Deserialize)]
    struct DropsBadly(u32);
    impl Drop for DropsBadly {
        fn drop(&mut self) {
            assert!(self.0 > 0, "as it is dropped");
        }
    }
    let pool = Pool::from(Counts::default());
    let make = |x: u32| {
        assert!(x < 3, "the last one");
        DropsBadly(x)
    };
    let error = pool.chunk_size(1).map_async(make, 0..4).get().err().unwrap();
    assert_eq!(error.panic_message(), Some("as it is dropped"));
}
