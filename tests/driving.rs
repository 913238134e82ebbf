//! Who moves calls to worker processes and replies back: whoever submits, whoever waits, or the driver thread. Nobody is
//! forgotten, and nobody is held up.

use crate::support::{DEADLINE, Gate, eventually, pass};
use concurrent_futures::{Executor, ProcessPoolExecutor, as_completed};
use std::{
    fs,
    os::unix::fs::FileExt,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

fn square(x: u64) -> u64 {
    x * x
}

/// All ways to wait, from several threads at once: each call's end reaches who waits for it.
#[test]
fn nobody_who_waits_is_forgotten() {
    let pool = ProcessPoolExecutor::new(2).unwrap();
    thread::scope(|scope| {
        for thread in 0..4 {
            let pool = &pool;
            scope.spawn(move || {
                for round in 0..60_u64 {
                    let count = [1, 3, 40, 300][(round % 4) as usize];
                    let futures: Vec<_> = (0..count).map(|x| pool.submit(square, x)).collect();
                    match (round + thread) % 5 {
                        0 => futures.iter().for_each(|future| assert!(future.wait_timeout(DEADLINE))),
                        1 => assert!(as_completed(&futures).timeout(DEADLINE).all(|next| next.is_ok())),
                        2 => {
                            let (tell, told) = mpsc::channel();
                            for future in &futures {
                                let tell = tell.clone();
                                future.add_done_callback(move |_| tell.send(()).unwrap());
                            }
                            (0..count).for_each(|_| told.recv_timeout(DEADLINE).unwrap());
                        }
                        3 => {
                            futures.iter().step_by(2).for_each(|future| _ = future.cancel());
                            futures.iter().for_each(|future| assert!(future.wait_timeout(DEADLINE)));
                        }
                        _ => {
                            let bytes = vec![7_u8; 100_000 + round as usize];
                            let back = pool.submit(|bytes: Vec<u8>| bytes, bytes.clone());
                            assert!(back.wait_timeout(DEADLINE) && back.result().unwrap() == bytes);
                            eventually("all are done", || futures.iter().all(|future| future.done()));
                        }
                    }
                }
            });
        }
    });
}

/// A reply is told though the worker is busy with its next call, and nobody has been looking for a while.
#[test]
fn a_reply_does_not_wait_for_the_next_call() {
    let pool = ProcessPoolExecutor::new(1).unwrap();
    let gate = Gate::new();
    let first = pool.submit(|milliseconds| thread::sleep(Duration::from_millis(milliseconds)), 30);
    let next = pool.submit(pass, gate.key());
    let (tell, told) = mpsc::channel();
    first.add_done_callback(move |_| tell.send(()).unwrap());
    told.recv_timeout(DEADLINE).unwrap();
    assert!(!next.done());
    gate.open();
    next.result().unwrap();
}

/// Who waits for a long call moves others' calls along meanwhile, and does not keep the driver thread from ending it.
#[test]
fn a_waiter_that_drives_holds_up_no_kill() {
    let pool = ProcessPoolExecutor::new(2).unwrap();
    let gate = Gate::new();
    let long = pool.submit(pass, gate.key());
    gate.await_arrivals(1);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| long.wait());
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let futures: Vec<_> = (0..100).map(|x| pool.submit(square, x)).collect();
                futures.iter().for_each(|future| assert!(future.wait_timeout(DEADLINE)));
            }
        });
        assert!(long.kill());
        let ended = long.wait_timeout(DEADLINE);
        is_over.store(true, Ordering::Relaxed);
        assert!(ended, "the worker was not ended");
        waiter.join().unwrap();
    });
    assert!(long.exception().unwrap().is_killed());
}

/// Short calls are put behind one another, but not behind one that turns out to be long.
#[test]
fn a_long_call_among_short_ones_holds_none_up() {
    let pool = ProcessPoolExecutor::new(2).unwrap();
    // So that calls are known to be short.
    let futures: Vec<_> = (0..2_000).map(|x| pool.submit(square, x)).collect();
    futures.into_iter().for_each(|future| _ = future.result().unwrap());
    let gate = Gate::new();
    let long = pool.submit(pass, gate.key());
    let short: Vec<_> = (0..50).map(|x| pool.submit(square, x)).collect();
    short.iter().for_each(|future| assert!(future.wait_timeout(DEADLINE)));
    assert!(!long.done());
    gate.open();
    long.result().unwrap();
}

/// Writes nonsense over the words that this worker shares with its parent, for as long as it lives.
/// Calls that were put behind a long one are made by another worker, before those that were submitted later, though that one is
/// never without calls.
#[test]
fn nothing_waits_behind_a_long_call_while_others_are_made() {
    let pool = ProcessPoolExecutor::new(2).unwrap();
    // Short calls, so that many are put into each channel.
    pool.map(square, 0..2_000).for_each(|square| _ = square.unwrap());
    let gate = Gate::new();
    let mut calls = Vec::new();
    let mut long = None;
    for x in 0..400 {
        if x == 200 {
            long = Some(pool.submit(pass, gate.key()));
        }
        calls.push(pool.submit(square, x));
    }
    gate.await_arrivals(1);
    let (tell, told) = mpsc::channel();
    let stop = AtomicBool::new(false);
    let (pool, stop) = (&pool, &stop);
    thread::scope(|scope| {
        // The other worker is kept busy until all are done.
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let more: Vec<_> = (0..300).map(|x| pool.submit(square, x)).collect();
                more.into_iter().for_each(|call| _ = call.wait_timeout(DEADLINE));
            }
        });
        scope.spawn(move || {
            calls.iter().for_each(|call| assert!(call.wait_timeout(DEADLINE), "{call:?} waits behind the long one"));
            tell.send(()).unwrap();
        });
        let all = told.recv_timeout(DEADLINE);
        stop.store(true, Ordering::Relaxed);
        gate.open();
        all.expect("all but the long one are made");
    });
    long.unwrap().result().unwrap();
}

/// Of calls that were put into one worker's channel before another worker was there, the oldest begin first: nothing waits behind two
/// that do not end, one of which was submitted later.
#[test]
fn the_oldest_begin_first_whichever_worker_comes_first() {
    for _ in 0..6 {
        let pool = ProcessPoolExecutor::new(2).unwrap();
        let gate = Gate::new();
        let first = pool.submit(pass, gate.key());
        let second = pool.submit(square, 7);
        let later: Vec<_> = (0..3).map(|_| pool.submit(pass, gate.key())).collect();
        assert!(second.wait_timeout(DEADLINE), "it waits for later ones");
        gate.open();
        [first].into_iter().chain(later).for_each(|call| call.result().unwrap());
    }
}

fn goes_mad(milliseconds: u64) {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let starts = maps.lines().filter(|line| line.contains("memfd:executor-claims"));
    let starts: Vec<_> = starts.map(|line| u64::from_str_radix(line.split('-').next().unwrap(), 16).unwrap()).collect();
    assert!(!starts.is_empty());
    let memory = fs::File::options().write(true).open("/proc/self/mem").unwrap();
    thread::spawn(move || {
        let mut nonsense = fastrand::Rng::with_seed(1);
        loop {
            let words: Vec<u8> = (0..1024).map(|_| nonsense.u8(..)).collect();
            starts.iter().for_each(|start| memory.write_all_at(&words, *start).unwrap());
        }
    });
    thread::sleep(Duration::from_millis(milliseconds));
}

/// Whatever a worker writes into the memory that it shares with its parent, the parent only loses that worker.
#[test]
fn a_worker_that_has_gone_mad_costs_itself() {
    let pool = ProcessPoolExecutor::new(2).unwrap();
    for _ in 0..3 {
        let mad = pool.submit(goes_mad, 2 * DEADLINE.as_millis() as u64);
        let behind: Vec<_> = (0..50).map(|x| pool.submit(square, x)).collect();
        eventually("it has begun", || mad.running() || mad.done());
        mad.kill();
        // Whether it made them nobody can know.
        behind.iter().for_each(|future| assert!(future.wait_timeout(DEADLINE)));
        assert!(mad.wait_timeout(DEADLINE));
        eventually("the pool works", || {
            let future = pool.submit(square, 3);
            assert!(future.wait_timeout(DEADLINE));
            future.result().is_ok_and(|nine| nine == 9)
        });
    }
}
