//! Two calls at a time on one stack: who gets the second one, and what a thread does that waits for it.

use crate::support::{DEADLINE, eventually};
use concurrent_futures::{Executor, Shutdown, ThreadPoolExecutor, current_task};
use std::{
    cell::Cell,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

fn pool(workers: usize) -> Arc<ThreadPoolExecutor> {
    Arc::new(ThreadPoolExecutor::new(workers).unwrap())
}

/// Does the same from outside of a pool and in a call of it.
fn from_everywhere(workers: usize, body: fn(&ThreadPoolExecutor)) {
    let pool = pool(workers);
    body(&pool);
    let inner = Arc::clone(&pool);
    pool.spawn(move || body(&inner)).result().unwrap();
}

/// The first call returns only when the second one has run, which another thread has to do.
#[test]
fn the_halves_of_a_join_meet() {
    from_everywhere(2, |pool| {
        let meeting = Barrier::new(2);
        let (a, b) =
            pool.join(|| (meeting.wait(), thread::current().id()).1, || (meeting.wait(), thread::current().id()).1);
        assert_ne!(a, b);
        assert_eq!(a, thread::current().id(), "the first one stays where it is");
    });
}

/// All levels of a chain meet at once: each second call is taken, the oldest first.
#[test]
fn all_that_is_offered_can_be_taken() {
    fn chain(pool: &ThreadPoolExecutor, left: usize, meeting: &Barrier) -> usize {
        if left == 0 {
            meeting.wait();
            return 1;
        }
        let (a, b) = pool.join(|| chain(pool, left - 1, meeting), || (meeting.wait(), 1).1);
        a + b
    }
    from_everywhere(4, |pool| assert_eq!(chain(pool, 3, &Barrier::new(4)), 4));
}

/// No half is stuck behind a long one: a worker that becomes idle later finds it, though nobody is told of it then.
#[test]
fn what_was_offered_to_busy_workers_is_found_when_they_are_idle() {
    let pool = pool(2);
    let (let_go, may_go) = mpsc::channel::<()>();
    let (begun, has_begun) = mpsc::channel();
    let busy = pool.spawn(move || {
        begun.send(()).unwrap();
        may_go.recv_timeout(DEADLINE).unwrap();
    });
    has_begun.recv_timeout(DEADLINE).unwrap();
    let inner = Arc::clone(&pool);
    let joined = pool.spawn(move || {
        let (tell, told) = mpsc::channel();
        inner.join(
            move || {
                let_go.send(()).unwrap();
                told.recv_timeout(DEADLINE).expect("the other half is made meanwhile");
            },
            move || tell.send(()).unwrap(),
        );
    });
    joined.result().unwrap();
    busy.result().unwrap();
}

/// A thread that waits for the other half makes no call that has nothing to do with it; a spare does.
#[test]
fn whoever_waits_for_a_half_runs_nothing_unrelated() {
    thread_local!(static IS_WAITING: Cell<bool> = const { Cell::new(false) });
    let pool = pool(2);
    let inner = Arc::clone(&pool);
    let joined = pool.spawn(move || {
        let meeting = Barrier::new(2);
        let others = AtomicUsize::new(0);
        IS_WAITING.set(true);
        inner.join(
            || meeting.wait(),
            || {
                meeting.wait();
                // The first half is over, or about to be. These are made while its thread waits.
                let unrelated: Vec<_> = (0..100).map(|_| inner.spawn(|| IS_WAITING.get())).collect();
                for call in unrelated {
                    // Without making them in place, as a wait for them would.
                    eventually("the end of an unrelated call", || call.done());
                    others.fetch_add(usize::from(call.result().unwrap()), Ordering::SeqCst);
                }
            },
        );
        others.into_inner()
    });
    assert_eq!(joined.result().unwrap(), 0);
}

/// Both halves are parts of one call: they know which, and when it is asked to stop.
#[test]
fn a_half_that_was_taken_belongs_to_the_call() {
    let pool = pool(2);
    let inner = Arc::clone(&pool);
    let (begun, has_begun) = mpsc::channel();
    let future = pool.spawn(move || {
        let (meeting, id) = (Barrier::new(2), current_task().id());
        let (_, taken) = inner.join(
            || meeting.wait(),
            || {
                meeting.wait();
                begun.send(()).unwrap();
                eventually("the request to stop", || current_task().is_cancelled());
                current_task().id()
            },
        );
        assert_eq!(taken, id);
        taken
    });
    has_begun.recv_timeout(DEADLINE).unwrap();
    assert!(!future.cancel(), "it has begun");
    let id = future.id();
    assert_eq!(future.result().unwrap(), Some(id));
}

/// PAN: a panic keeps its message and its place, whichever half it was and whoever made it.
#[test]
fn panics_of_halves_arrive_as_they_were() {
    for left in [true, false] {
        let pool = pool(2);
        let inner = Arc::clone(&pool);
        let line = line!() + 4;
        let half = move |is_left: bool, meeting: &Barrier| {
            meeting.wait();
            if is_left == left {
                panic!("half {left}");
            }
        };
        let call = pool.spawn(move || {
            let meeting = Barrier::new(2);
            inner.join(|| half(true, &meeting), || half(false, &meeting));
        });
        let error = call.result().unwrap_err();
        assert_eq!(error.panic_message(), Some(format!("half {left}").as_str()));
        let told = format!("{error}");
        assert!(told.contains(&format!("joins.rs:{line}:")), "{told}");
    }
}

/// When the first half panics, the second one is made all the same, by whomever, before that goes on.
#[test]
fn a_panic_waits_for_the_other_half() {
    from_everywhere(2, |pool| {
        for meets in [true, false] {
            let (meeting, over) = (Barrier::new(2), AtomicBool::new(false));
            let met = || {
                if meets {
                    meeting.wait();
                }
            };
            let caught = panic::catch_unwind(AssertUnwindSafe(|| {
                let first = || {
                    met();
                    panic::resume_unwind(Box::new(7_u8));
                };
                let second = || {
                    met();
                    over.store(true, Ordering::SeqCst);
                };
                pool.join(first, second)
            }));
            assert_eq!(caught.unwrap_err().downcast_ref::<u8>(), Some(&7));
            assert!(over.load(Ordering::SeqCst));
        }
    });
}

/// Deeper than what is offered at a time, also where one side only grows.
#[test]
fn joins_nest_deeply() {
    fn down(pool: &ThreadPoolExecutor, left: u32) -> u32 {
        if left == 0 {
            return 0;
        }
        let (a, b) = pool.join(|| down(pool, left - 1), || 1);
        a + b
    }
    from_everywhere(2, |pool| assert_eq!(down(pool, 500), 500));
}

/// All threads of a pool, outside ones beside them, and calls that wait for others between the joins.
#[test]
fn joins_add_up_on_many_threads() {
    fn sum(pool: &Arc<ThreadPoolExecutor>, numbers: &[u64]) -> u64 {
        match numbers {
            [] => 0,
            [one] if one % 64 == 0 => {
                let one = *one;
                pool.spawn(move || one).result().unwrap()
            }
            [one] => *one,
            more => {
                let (left, right) = more.split_at(more.len() / 2);
                let (left, right) = pool.join(|| sum(pool, left), || sum(pool, right));
                left + right
            }
        }
    }
    let numbers: Vec<u64> = (0..4096).collect();
    let pool = pool(3);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..5 {
                    assert_eq!(sum(&pool, &numbers), 4095 * 2048);
                    let (inner, numbers) = (Arc::clone(&pool), numbers.clone());
                    assert_eq!(pool.spawn(move || sum(&inner, &numbers)).result().unwrap(), 4095 * 2048);
                }
            });
        }
    });
}

/// There is nobody left to help, and nothing to fail: this thread makes both halves.
#[test]
fn a_join_outlives_a_shutdown() {
    let pool = pool(2);
    pool.shutdown(Shutdown::wait());
    assert_eq!(pool.join(|| 1, || pool.join(|| 2, || 3)), (1, (2, 3)));
}
