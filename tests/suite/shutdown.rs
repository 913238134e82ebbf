use crate::support::{Backend, DEADLINE, Gate, Key, Log, Processes, append, eventually, interrupts_are_ignored, pass};
use concurrent_futures::{ALL_COMPLETED, Executor, Exit, Shutdown, as_completed, wait};
use std::{
    fs,
    panic::{self, AssertUnwindSafe},
    process,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// SHD-01.
pub(crate) fn waiting_finishes_everything<B: Backend>() {
    let log = Log::new();
    let pool = B::pool(2);
    let futures: Vec<_> = (0..50).map(|_| pool.submit(|log: String| append(&log, "ran"), log.path())).collect();
    let report = pool.shutdown(Shutdown::wait());
    assert!(report.is_complete() && report.cancelled == 0, "{report:?}");
    assert!(futures.iter().all(|future| future.done()));
    assert_eq!(log.lines().len(), 50);
}

/// SHD-02.
pub(crate) fn not_waiting_returns_at_once_and_the_rest_is_done<B: Backend>() {
    let pool = B::pool(1);
    let gate = Gate::new();
    let first = pool.submit(pass, gate.key());
    let second = pool.submit(|x: u8| x, 2);
    gate.await_arrivals(1);
    let report = pool.shutdown(Shutdown::no_wait());
    assert_eq!(report.unfinished, 2);
    drop(pool); // nor does dropping it wait any more
    assert!(!first.done());
    gate.open();
    first.result().unwrap();
    assert_eq!(second.result().unwrap(), 2);
}

/// SHD-03, SHD-04, CAN-07, CAN-09: nothing stays pending, and every wait ends.
pub(crate) fn cancelling_completes_every_future<B: Backend>() {
    for how in [Shutdown::wait(), Shutdown::no_wait()] {
        let pool = B::pool(1);
        let gate = Gate::new();
        let running = pool.submit(pass, gate.key());
        gate.await_arrivals(1);
        let pending: Vec<_> = (0..30).map(|x| pool.submit(|x: u32| x, x)).collect();
        assert!(pending[7].cancel());
        thread::scope(|scope| {
            let shutdown = scope.spawn(|| pool.shutdown(how.cancel_pending()));
            assert_eq!(wait(&pending, ALL_COMPLETED).done.len(), 30);
            assert_eq!(as_completed(&pending).count(), 30);
            assert!(pending.iter().all(|future| future.cancelled()));
            assert!(!running.done());
            gate.open();
            assert_eq!(shutdown.join().unwrap().cancelled, 29);
        });
        running.result().unwrap();
    }
}

/// SHD-21.
pub(crate) fn a_limit_ends_the_wait<B: Backend>() {
    let pool = B::pool(1);
    let gate = Gate::new();
    let future = pool.submit(pass, gate.key());
    gate.await_arrivals(1);
    let report = pool.shutdown(Shutdown::wait().at_most(Duration::from_millis(20)));
    assert!(!report.is_complete() && report.unfinished == 1, "{report:?}");
    gate.open();
    assert!(pool.shutdown(Shutdown::wait().at_most(Duration::MAX)).is_complete());
    assert!(future.done());
}

/// SHD-05, SHD-06: a later wait does wait.
pub(crate) fn again_with_another_choice_waits<B: Backend>() {
    let log = Log::new();
    let pool = B::pool(1);
    let gate = Gate::new();
    pool.submit(pass, gate.key()).add_done_callback({
        let log = log.path();
        move |_| append(&log, "done")
    });
    gate.await_arrivals(1);
    pool.shutdown(Shutdown::no_wait());
    pool.shutdown(Shutdown::no_wait());
    assert!(log.lines().is_empty());
    thread::scope(|scope| {
        scope.spawn(|| gate.open());
        assert!(pool.shutdown(Shutdown::wait()).is_complete());
        assert_eq!(log.lines().len(), 1);
    });
    assert!(pool.shutdown(Shutdown::wait()).is_complete());
}

/// SHD-07, SHD-09.
pub(crate) fn dropping_waits<B: Backend>() {
    let log = Log::new();
    {
        let pool = B::pool(2);
        for _ in 0..20 {
            drop(pool.submit(|log: String| append(&log, "ran"), log.path()));
        }
    }
    assert_eq!(log.lines().len(), 20);
}

/// SHD-08: an error in the scope does not wait for the backlog.
pub(crate) fn dropping_in_a_panic_cancels<B: Backend>() {
    let gate = Arc::new(Gate::new());
    let mut pending = Vec::new();
    let told = panic::catch_unwind(AssertUnwindSafe(|| {
        let pool = B::pool(1);
        drop(pool.submit(pass, gate.key()));
        gate.await_arrivals(1);
        pending.extend((0..5).map(|_| pool.submit(pass, gate.key())));
        let opens = Arc::clone(&gate);
        // The last to be cancelled; until then nothing can finish.
        pending[4].add_done_callback(move |_| opens.open());
        panic!("in the scope");
    }));
    assert!(told.is_err());
    assert!(pending.iter().all(|future| future.cancelled()));
    assert_eq!(gate.arrived(), 1);
}

/// DL-12: each submit in a race with a shutdown is either run or refused.
pub(crate) fn submits_during_shutdown_are_run_or_refused<B: Backend>() {
    for round in 0..10 {
        let log = Log::new();
        let pool: Arc<dyn Executor> = Arc::from(B::pool(2));
        let futures: Vec<_> = thread::scope(|scope| {
            let submitters: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        (0..30).map(|_| pool.submit(|log: String| append(&log, "ran"), log.path())).collect::<Vec<_>>()
                    })
                })
                .collect();
            let began = Instant::now();
            while began.elapsed() < Duration::from_micros(200 * round) {
                thread::yield_now();
            }
            pool.shutdown(Shutdown::wait());
            submitters.into_iter().flat_map(|submitter| submitter.join().unwrap()).collect()
        });
        let ran = futures
            .into_iter()
            .filter(|future| match future.exception() {
                None => true,
                Some(error) => {
                    assert!(error.is_shutdown(), "{error}");
                    false
                }
            })
            .count();
        eventually("the log", || log.lines().len() >= ran);
        assert_eq!(log.lines().len(), ran);
    }
}

/// Who has seen every outcome finds nothing unfinished.
pub(crate) fn what_is_over_is_not_reported_unfinished<B: Backend>() {
    for _ in 0..50 {
        let pool = B::pool(1);
        let futures: Vec<_> = (0..5).map(|x| pool.submit(|x: u32| x, x)).collect();
        futures.into_iter().for_each(|future| assert!(future.result().is_ok()));
        let report = pool.shutdown(Shutdown::no_wait());
        assert!(report.is_complete(), "{report:?}");
    }
}

/// Runs `program`, which is to exit, in a process of its own. Its exit code.
fn run<A: concurrent_futures::Value>(program: fn(A), args: A) -> Exit {
    let future = Processes::pool(1).submit(program, args);
    future.result().unwrap_err().worker_lost().expect("it exited").exit.clone()
}

/// SHD-10: as at the end of `main`, where the scope ends, and then the process.
pub(crate) fn a_program_that_ends_runs_what_was_submitted<B: Backend>() {
    let log = Log::new();
    let program = |log: String| {
        {
            let pool = B::pool(1);
            for _ in 0..4 {
                drop(pool.submit(|log: String| append(&log, "ran"), log.clone()));
            }
        }
        process::exit(7);
    };
    assert_eq!(run(program, log.path()), Exit::Code(7));
    assert_eq!(log.lines().len(), 4);
}

/// SHD-11, SHD-12: the call that runs would end only with the gate.
pub(crate) fn a_program_that_does_not_wait_ends_at_once<B: Backend>() {
    let gate = Gate::new();
    let program = |key: Key| {
        let pool = B::pool(1);
        let calls = [pool.submit(pass, key.clone()), pool.submit(pass, key)];
        eventually("the first call", || calls[0].running());
        pool.shutdown(Shutdown::no_wait());
        drop(pool);
        process::exit(7);
    };
    assert_eq!(run(program, gate.key()), Exit::Code(7));
    assert!(gate.arrived() <= 1, "the second call was not begun");
}

/// SHD-19, INI-07: no thread, no process, no descriptor, also when the workers' initializer fails. In a process of its
/// own: other tests start and open what they like.
pub(crate) fn a_pool_leaves_nothing_behind<B: Backend>() {
    fn what_is_there() -> [usize; 3] {
        let count = |path: &str| fs::read_dir(path).unwrap().count();
        let tasks = fs::read_dir("/proc/self/task").unwrap().filter_map(Result::ok);
        // A thread may end meanwhile.
        let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        let children = children.map(|children| children.split_whitespace().count()).sum();
        [count("/proc/self/fd"), count("/proc/self/task"), children]
    }
    let program = |fails: bool| {
        let use_a_pool = || {
            let fail = |_| panic!("no");
            let pool = if fails { B::pool_with_initializer(2, fail, String::new()) } else { B::pool(2) };
            let futures: Vec<_> = (0..10).map(|x| pool.submit(|x: u32| assert!(x != 3), x)).collect();
            assert_eq!(wait(&futures, ALL_COMPLETED).done.iter().all(|future| future.exception().is_some()), fails);
            pool.shutdown(Shutdown::wait());
        };
        let before = what_is_there();
        (0..4).for_each(|_| use_a_pool());
        // The system takes a moment to forget a thread that has been waited for.
        eventually("as much as before", || what_is_there() == before);
    };
    for fails in [false, true] {
        let future = Processes::pool(1).submit(program, fails);
        assert!(future.wait_timeout(DEADLINE));
        future.result().unwrap();
    }
}

/// RES-18: Ctrl-C is a signal, and a wait does not keep it from its work.
pub(crate) fn an_interrupt_ends_a_program_that_waits<B: Backend>() {
    if interrupts_are_ignored() {
        return;
    }
    let gate = Gate::new();
    let program = |key: Key| {
        let pool = B::pool(1);
        let future = pool.submit(pass, key.clone());
        eventually("the call", || future.running());
        append(&key.1, &process::id().to_string());
        future.result().unwrap();
    };
    let outer = Processes::pool(1);
    let future = outer.submit(program, gate.key());
    gate.await_arrivals(2);
    let pid = gate.lines().into_iter().find(|line| line.parse::<u32>().is_ok()).expect("its number");
    assert!(process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let error = future.result().unwrap_err();
    let exit = &error.worker_lost().expect("it is ended").exit;
    assert!(matches!(exit, Exit::Signal { name, .. } if name == "SIGINT"), "{error}");
}
