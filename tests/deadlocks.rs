//! Where others of its kind hang, or notice too late: deaths beside calls that go on, channels that are full, and ends in the
//! middle of everything.

use crate::{
    fault_matrix::{Fault, Stage, Victim, expected_of_a_call},
    support::{DEADLINE, Gate, Key, Limit, Log, append, eventually, pass, promptly, runs},
    workers::hold_the_driver,
};
use concurrent_futures::{
    BuildError, Executor, Future, ProcessPoolExecutor, Shutdown, TaskError, TaskOptions, ThreadPoolExecutor,
};
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use rustix::process::{Pid, PidfdFlags, Resource, Signal, getpid, kill_process, pidfd_getfd, pidfd_open};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashSet,
    fs,
    panic::{self, AssertUnwindSafe},
    process::{self, Command},
    sync::{Arc, OnceLock, mpsc},
    thread,
    time::Duration,
};

fn pool(workers: usize) -> ProcessPoolExecutor {
    ProcessPoolExecutor::new(workers).unwrap()
}

fn same(x: u64) -> u64 {
    x
}

fn is_over(pool: &ProcessPoolExecutor) {
    assert!(pool.shutdown(Shutdown::wait().at_most(DEADLINE)).is_complete());
}

/// PP-13: the death of the worker that was started last is noticed at once, and not when the call beside it ends.
#[test]
fn a_death_is_noticed_while_another_call_runs() {
    let (pool, gate) = (pool(2), Gate::new());
    let long = pool.submit(pass, gate.key());
    gate.await_arrivals(1);
    let dies = pool.submit(|()| -> () { process::abort() }, ());
    assert!(dies.wait_timeout(DEADLINE) && !long.done(), "it waits for its neighbour");
    assert!(dies.result().unwrap_err().is_worker_lost());
    gate.open();
    long.result().unwrap();
}

/// PP-14: workers that end each other, in a ring.
#[test]
fn workers_that_end_each_other_cost_their_own_calls() {
    for workers in [1, 2, 5, 13] {
        let pool = pool(workers);
        let gate = Gate::new();
        let started: Vec<_> = (0..workers).map(|_| pool.submit(pass, gate.key())).collect();
        gate.await_arrivals(workers);
        gate.open();
        started.into_iter().for_each(|call| call.result().unwrap());
        let pids: Vec<_> = pool.worker_pids().into_iter().map(|pid| i32::try_from(pid).unwrap()).collect();
        let end = |pid: i32| {
            // It may have been ended by somebody else.
            let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
        };
        let calls: Vec<_> = pids.into_iter().map(|pid| pool.submit(end, pid)).collect();
        for call in calls {
            assert!(call.wait_timeout(DEADLINE), "{workers} workers");
            if let Err(error) = call.result() {
                assert!(error.is_worker_lost(), "{workers} workers: {error}");
            }
        }
        let both = Gate::new();
        let again: Vec<_> = (0..workers).map(|_| pool.submit(pass, both.key())).collect();
        both.await_arrivals(workers);
        both.open();
        again.into_iter().for_each(|call| call.result().unwrap());
    }
}

/// PP-17: a pool is ended while much is on its way, in either direction.
#[test]
fn large_transfers_do_not_hold_up_the_end() {
    const BYTES: usize = 100 << 20;
    let gate = Gate::new();
    let busy = pool(1);
    let running = busy.submit(pass, gate.key());
    gate.await_arrivals(1);
    // To a worker that reads nothing.
    let behind = busy.submit(|text: String| text.len(), "x".repeat(BYTES));
    let sends = pool(1);
    let log = Log::new();
    let reply = |(log, bytes): (String, usize)| {
        append(&log, "here");
        "x".repeat(bytes)
    };
    let answered = sends.submit(reply, (log.path(), BYTES));
    eventually("it is called", || log.lines().len() == 1);
    for pool in [&busy, &sends] {
        assert!(pool.shutdown(Shutdown::now().at_most(DEADLINE)).is_complete());
    }
    assert!(running.result().unwrap_err().is_killed());
    assert!(behind.result().unwrap_err().is_cancelled());
    assert!(answered.wait_timeout(DEADLINE));
    assert!(answered.result().map_or_else(|error| error.is_killed(), |text| text.len() == BYTES));
}

/// Ends the worker as it is dropped there.
#[derive(Serialize, Deserialize)]
struct DiesInDrop {
    parent: u32,
}

impl Drop for DiesInDrop {
    fn drop(&mut self) {
        if process::id() != self.parent {
            process::abort();
        }
    }
}

/// PP-18: what crashes after a result was sent costs nobody: the result is there, and so is the next one. Before that, a
/// destructor of an argument or a result is part of the call, which can be killed and has a limit.
#[test]
fn a_crash_after_the_result_costs_nobody() {
    let pool = pool(1);
    for round in 0..5 {
        let gate = Gate::new();
        let crashes_later = |key: Key| {
            thread::spawn(|| {
                pass(key);
                process::abort();
            });
            process::id()
        };
        let pid = pool.submit(crashes_later, gate.key()).result().unwrap();
        gate.open();
        if round % 2 == 0 {
            eventually("its death", || !runs(pid));
        } else {
            eventually("its death is noticed", || !pool.worker_pids().contains(&pid));
        }
        assert_eq!(pool.submit(same, round).result().unwrap(), round);
    }
    let own = process::id();
    let result = pool.submit(|parent| DiesInDrop { parent }, own);
    let argument = pool.submit(|_: DiesInDrop| (), DiesInDrop { parent: own });
    let next = pool.submit(same, 7);
    assert!(result.exception().is_some_and(|error| error.is_worker_lost()));
    assert!(argument.exception().is_some_and(|error| error.is_worker_lost()));
    assert_eq!(next.result().unwrap(), 7);
}

/// PP-19: a callback that submits a call that fails, in each way and at each stage of a call.
#[test]
fn callbacks_may_submit_what_fails() {
    let pool = Arc::new(pool(1));
    // Endless output would be printed here; what it costs, the matrix shows.
    for stage in [Stage::Decoding, Stage::Running, Stage::Encoding] {
        for fault in Fault::ALL.into_iter().filter(|fault| *fault != Fault::EndlessOutput) {
            let (tell, told) = mpsc::channel();
            let (inner, first) = (Arc::clone(&pool), pool.submit(same, 1));
            first.add_done_callback(move |_| tell.send(Victim::submit(&*inner, fault, stage, None, false)).unwrap());
            let victim = told.recv_timeout(DEADLINE).unwrap();
            assert_eq!(victim.outcome(), expected_of_a_call(fault, stage), "{fault:?} × {stage:?}");
            assert_eq!(pool.submit(same, 2).result().unwrap(), 2);
        }
    }
}

/// PP-20: what becomes of calls is still found out when nobody has the pool any more.
#[test]
fn deaths_are_noticed_without_a_handle() {
    for fault in Fault::ALL.into_iter().filter(|fault| *fault != Fault::EndlessOutput) {
        let (pool, gate) = (pool(1), Gate::new());
        let victim = Victim::submit(&pool, fault, Stage::Running, Some(&gate), false);
        let next = pool.submit(same, 5);
        gate.await_arrivals(1);
        pool.shutdown(Shutdown::no_wait());
        drop(pool);
        gate.open();
        assert_eq!(victim.outcome(), expected_of_a_call(fault, Stage::Running));
        assert!(next.wait_timeout(DEADLINE), "{fault:?}");
        assert_eq!(next.result().unwrap(), 5);
    }
    // A pool that breaks.
    let crash = |()| process::exit(5);
    let broken = ProcessPoolExecutor::builder().max_workers(1).initializer(crash, ()).build().unwrap();
    let call = broken.submit(same, 1);
    broken.shutdown(Shutdown::no_wait());
    drop(broken);
    assert!(call.wait_timeout(DEADLINE) && call.result().unwrap_err().is_broken());
}

/// PP-22, PP-23: what the system refuses is told as the pool is made. In a process of its own, whose limits are set.
#[test]
fn a_pool_that_cannot_be_made_says_so() {
    let program = |()| {
        let refused = |limit: Limit| {
            let refused = ProcessPoolExecutor::new(1).err();
            drop(limit);
            assert!(matches!(refused, Some(BuildError::Unsupported(_))), "{refused:?}");
        };
        let open = fs::read_dir("/proc/self/fd").unwrap().count();
        refused(Limit::set(Resource::Nofile, open as u64 - 1));
        // Room for small things, and for the stack of no thread.
        let pages = fs::read_to_string("/proc/self/statm").unwrap();
        let bytes = pages.split(' ').next().unwrap().parse::<u64>().unwrap() * rustix::param::page_size() as u64;
        refused(Limit::set(Resource::As, bytes + (1 << 20)));
        pool(1).submit(same, 1).result().unwrap()
    };
    assert_eq!(pool(1).submit(program, ()).result().unwrap(), 1);
}

/// A worker that sends what is no answer is ended, or not listened to. That costs what it has begun, and nothing else.
#[test]
fn nonsense_in_a_channel_costs_one_task() {
    let pool = pool(2);
    let babble = |bytes: Vec<u8>| {
        let own = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
        for number in 3..20 {
            let named = fs::read_link(format!("/proc/self/fd/{number}")).unwrap_or_default();
            if named.to_string_lossy().starts_with("socket:") {
                let channel = pidfd_getfd(&own, number, rustix::process::PidfdGetfdFlags::empty()).unwrap();
                rustix::io::write(&channel, &bytes).unwrap();
            }
        }
    };
    for bytes in [vec![6], vec![0xff; 100], vec![0; 24]] {
        let call = pool.submit(babble, bytes.clone());
        let others: Vec<_> = (0..20).map(|x| pool.submit(same, x)).collect();
        assert!(call.wait_timeout(DEADLINE), "{bytes:?}");
        if let Err(error) = call.result() {
            assert!(error.is_worker_lost(), "{error}");
        }
        for (x, call) in (0..).zip(others) {
            assert!(call.wait_timeout(DEADLINE), "{bytes:?}");
            match call.result() {
                Ok(value) => assert_eq!(value, x),
                // It may have gone on to this one before it was noticed.
                Err(error) => assert!(error.is_worker_lost(), "{error}"),
            }
        }
        // Of a frame that was only begun, the next one tells, and each of the two may have begun one.
        let outcomes = (0..3).map(|_| pool.submit(same, 7).result());
        let kept = outcomes.inspect(|outcome| assert!(outcome.as_ref().err().is_none_or(TaskError::is_worker_lost)));
        assert_eq!(kept.flatten().next(), Some(7), "{bytes:?}");
    }
}

/// DL-01: whoever submits does not wait for the one thread that serves all workers, however many calls it finds.
#[test]
fn submitting_waits_for_no_driver() {
    let (pool, fails, held) = (pool(1), Gate::new(), Gate::new());
    let holder = hold_the_driver(&pool, &fails, &held);
    fails.await_arrivals(1);
    fails.open();
    held.await_arrivals(1);
    let (pool, calls) = promptly(move || {
        let calls: Vec<_> = (0..1_000).map(|x| pool.submit(same, x)).collect();
        (pool, calls)
    });
    held.open();
    assert!(holder.result().unwrap_err().is_panic());
    assert!(calls.into_iter().map(|call| call.result().unwrap()).eq(0..1_000));
    is_over(&pool);
}

/// DL-04: a pool that a worker still has, with workers that would stay for long, does not hold up the end of the outer one.
#[test]
fn inner_pools_do_not_hold_up_the_outer_one() {
    static INNER: OnceLock<ProcessPoolExecutor> = OnceLock::new();
    let keeps = |()| {
        let patient = ProcessPoolExecutor::builder().max_workers(2).idle_timeout(DEADLINE * 10);
        let inner = INNER.get_or_init(|| patient.build().unwrap());
        inner.submit(same, 1).result().unwrap();
        inner.worker_pids()
    };
    let outer = pool(2);
    let pids = outer.submit(keeps, ()).result().unwrap();
    assert!(!pids.is_empty());
    is_over(&outer);
    eventually("the inner workers are gone", || !pids.iter().any(|pid| runs(*pid)));
}

/// DL-05: threads that another library had started here before there were workers are not missed there.
#[test]
fn threads_of_other_libraries_are_not_missed() {
    let sum = |to: u64| (0..to).into_par_iter().sum::<u64>();
    let here = sum(10_000);
    let pool = pool(2);
    let calls: Vec<_> = (0..4).map(|_| pool.submit(sum, 10_000)).collect();
    assert_eq!(sum(10_000), here, "here, meanwhile");
    for call in calls {
        assert!(call.wait_timeout(DEADLINE), "it froze");
        assert_eq!(call.result().unwrap(), here);
    }
}

/// DL-06: a call on a thread starts processes, and pools of them, as it likes.
#[test]
fn calls_on_threads_may_start_processes() {
    let threads = ThreadPoolExecutor::new(2).unwrap();
    let starts = |()| {
        let pool = pool(1);
        let pid = pool.submit(|()| process::id(), ()).result().unwrap();
        (Command::new("true").status().unwrap().success(), pid)
    };
    let calls: Vec<_> = (0..6).map(|_| threads.submit(starts, ())).collect();
    let outcomes: Vec<_> = calls.into_iter().map(|call| call.result().unwrap()).collect();
    assert!(outcomes.iter().all(|(succeeded, _)| *succeeded));
    let pids: HashSet<_> = outcomes.into_iter().map(|(_, pid)| pid).collect();
    assert!(!pids.contains(&process::id()));
}

/// DL-07: whoever loses interest in a map while large items are on their way.
#[test]
fn a_map_may_be_dropped_while_it_sends() {
    let pool = pool(2);
    for taken in [0, 2] {
        let items = (0..10).map(|_| "x".repeat(500_000));
        let mut lengths = pool.map(|text: String| text.len(), items);
        assert!(lengths.by_ref().take(taken).all(|length| length.unwrap() == 500_000));
        drop(lengths);
    }
    assert_eq!(pool.submit(same, 1).result().unwrap(), 1);
    promptly(move || is_over(&pool));
}

/// DL-08: input that fails at its beginning, in the middle or at its end, on whichever thread it is pulled.
#[test]
fn failing_input_ends_its_map_wherever_it_fails() {
    let pool = Arc::new(pool(2));
    for at in [0, 5, 19] {
        let shared = Arc::clone(&pool);
        let outcome = promptly(move || {
            let items = (0..20).inspect(move |x| assert!(*x != at, "no item {at}"));
            panic::catch_unwind(AssertUnwindSafe(|| shared.map(same, items).map(Result::unwrap).count())).is_err()
        });
        assert!(outcome, "item {at}");
        assert_eq!(pool.submit(same, at).result().unwrap(), at);
    }
}

/// DL-10: two large errors come while the pool is shut down.
#[test]
fn large_errors_do_not_hold_up_a_shutdown() {
    let (pool, gate) = (pool(2), Gate::new());
    let fails = |key: Key| -> () {
        pass(key);
        panic::resume_unwind(Box::new("x".repeat(1 << 20))) // which is printed nowhere
    };
    let calls: Vec<_> = (0..2).map(|_| pool.submit(fails, gate.key())).collect();
    gate.await_arrivals(2);
    pool.shutdown(Shutdown::no_wait());
    gate.open();
    promptly(move || is_over(&pool));
    for call in calls {
        assert_eq!(call.result().unwrap_err().panic_message().map(str::len), Some(1 << 20));
    }
}

/// DL-11: calls are cancelled, killed and stopped at their limit while the channel is stuffed with what the worker does not
/// read.
#[test]
fn a_stuffed_channel_holds_up_no_order() {
    let pool = pool(1);
    for by_limit in [false, true] {
        let gate = Gate::new();
        let options = TaskOptions::new();
        let options = if by_limit { options.time_limit(Duration::from_millis(300)) } else { options };
        let running = pool.with(options).submit(pass, gate.key());
        let large: Vec<Future<usize>> =
            (0..8).map(|_| pool.submit(|text: String| text.len(), "x".repeat(2 << 20))).collect();
        if !by_limit {
            gate.await_arrivals(1);
        }
        // At its limit, the running one may be over by now, and the first of these be made.
        let cancelled: Vec<_> = large.iter().enumerate().map(|(index, call)| index % 2 == 0 && call.cancel()).collect();
        assert!(by_limit || cancelled.iter().filter(|cancelled| **cancelled).count() == 4);
        let error = match by_limit {
            true => running.exception().unwrap(),
            false => {
                assert!(running.kill());
                running.exception().unwrap()
            }
        };
        assert_eq!((error.is_timed_out(), error.is_killed()), (by_limit, !by_limit), "{error}");
        for (cancelled, call) in cancelled.into_iter().zip(large) {
            assert!(call.wait_timeout(DEADLINE));
            match call.result() {
                Ok(length) => assert!(length == 2 << 20 && !cancelled),
                Err(error) => assert!(error.is_cancelled() && cancelled, "{error}"),
            }
        }
    }
}
