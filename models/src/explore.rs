//! The models: a few threads each, and what must hold whatever their order.

#![expect(unsafe_code, reason = "what forks point to is shared as the pool does it")]

use loom::{
    cell::UnsafeCell,
    model::Builder,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};
use std::ptr::NonNull;

use crate::{
    Explored, barrier,
    forks::{Forks, Room},
    latch::Latch,
    sleep::Sleep,
};

/// Explores the model of that name, all of its schedules with a few preemptions.
///
/// # Panics
/// When something does not hold that must, or there is no such model.
pub fn explore(name: &str) -> &'static Explored {
    let explored = Explored::kept();
    let model: fn(&Explored) = match name {
        "the last fork" => the_last_fork,
        "two thieves" => two_thieves,
        "a thief at the beginning" => a_thief_at_the_beginning,
        "a claim given back" => a_claim_given_back,
        "a latch" => a_latch,
        "a push and a sleeper" => a_push_and_a_sleeper,
        "an end and a sleeper" => an_end_and_a_sleeper,
        "two pushes and two sleepers" => two_pushes_and_two_sleepers,
        "an offer and a sleeper" => an_offer_and_a_sleeper,
        _ => panic!("there is no model {name:?}"),
    };
    let mut builder = Builder::new();
    // With three threads, more than two take minutes.
    builder.preemption_bound = Some(if name.starts_with("two pushes") { 2 } else { 3 });
    builder.check(move || model(explored));
    explored
}

/// A call that must be made once, by whoever has the fork.
struct Call(UnsafeCell<usize>);

// SAFETY: loom sees every access, and objects to two at a time.
unsafe impl Sync for Call {}

impl Call {
    fn new() -> Self {
        Call(UnsafeCell::new(0))
    }

    /// Loom objects if another thread may do the same now, or has not published that it did.
    fn make(&self) {
        self.0.with_mut(|made| {
            // SAFETY: loom checks that nobody else has access now.
            let made = unsafe { &mut *made };
            *made += 1;
            assert_eq!(*made, 1, "a call was made twice");
        });
    }
}

type Few = Forks<Call, 4>;

fn begun() -> Few {
    let forks = Few::new();
    assert!(!forks.has_begun());
    forks.begin();
    assert!(matches!(forks.room(), Room::There));
    forks
}

/// Threads of a model share what it made by a pointer, as those of the pool do.
fn steal(forks: &Few) -> bool {
    let fork = forks.steal(|| true, |_| ());
    if let Some(fork) = fork {
        // SAFETY: calls are kept until all threads of the model have ended.
        unsafe { fork.as_ref() }.make();
    }
    fork.is_some()
}

fn the_last_fork(explored: &Explored) {
    let shared = Arc::new((begun(), [Call::new(), Call::new()]));
    let thief = {
        let shared = Arc::clone(&shared);
        thread::spawn(move || steal(&shared.0))
    };
    let (forks, calls) = &*shared;
    let mut had = 0;
    for call in calls {
        forks.push(NonNull::from(call));
    }
    for call in calls.iter().rev() {
        if forks.pop() {
            call.make();
            had += 1;
        }
    }
    let stolen = thief.join().unwrap();
    assert_eq!(had + usize::from(stolen), 2, "each fork is had once");
    assert!(forks.is_empty());
    explored.note(usize::from(stolen));
}

fn two_thieves(explored: &Explored) {
    let shared = Arc::new((begun(), [Call::new(), Call::new()]));
    let thieves: Vec<_> = (0..2)
        .map(|_| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || steal(&shared.0))
        })
        .collect();
    let (forks, calls) = &*shared;
    let mut had = 0;
    for call in calls {
        forks.push(NonNull::from(call));
        if forks.pop() {
            call.make();
            had += 1;
        }
    }
    let stolen = thieves.into_iter().map(|thief| usize::from(thief.join().unwrap())).sum::<usize>();
    assert_eq!(had + stolen, 2, "each fork is had once");
    explored.note(stolen);
}

/// Who waits for what this thread took looks for parts of it also before this thread has offered any.
fn a_thief_at_the_beginning(explored: &Explored) {
    let shared = Arc::new((Few::new(), [Call::new(), Call::new()]));
    let thief = {
        let shared = Arc::clone(&shared);
        thread::spawn(move || usize::from(steal(&shared.0)) + usize::from(steal(&shared.0)))
    };
    let (forks, calls) = &*shared;
    forks.begin();
    let mut had = 0;
    for call in calls {
        assert!(matches!(forks.room(), Room::There), "it has begun, and few are there");
        forks.push(NonNull::from(call));
        if forks.pop() {
            call.make();
            had += 1;
        }
    }
    let stolen = thief.join().unwrap();
    assert_eq!(had + stolen, 2, "each fork is had once");
    explored.note(stolen);
}

/// A thief that finds that it may not gives back what it claimed, and the owner has it.
fn a_claim_given_back(explored: &Explored) {
    let shared = Arc::new((begun(), Call::new()));
    let thief = {
        let shared = Arc::clone(&shared);
        thread::spawn(move || {
            assert!(shared.0.steal(|| false, |_| ()).is_none());
        })
    };
    let (forks, call) = &*shared;
    forks.push(NonNull::from(call));
    assert!(forks.pop(), "nobody has taken it");
    call.make();
    thief.join().unwrap();
    assert!(forks.is_empty());
    explored.note(0);
}

/// The outcome is there when the latch is set, and who waits is woken.
fn a_latch(explored: &Explored) {
    let shared = Arc::new((begun(), Latch::new(), Call::new()));
    let thief = {
        let shared = Arc::clone(&shared);
        thread::spawn(move || {
            shared.2.make();
            let awaited = shared.1.set();
            if awaited {
                shared.0.wake_owner();
            }
            awaited
        })
    };
    let (forks, latch, outcome) = &*shared;
    if !latch.is_set() {
        latch.wait(|is_set| forks.wait(is_set));
    }
    // SAFETY: loom checks that what was written to it is seen.
    outcome.0.with(|made| assert_eq!(unsafe { *made }, 1));
    explored.note(usize::from(thief.join().unwrap()));
}

/// Work that was pushed is taken by whoever sleeps, or is about to: a lost wake-up leaves the sleeper asleep, and the model stuck.
fn a_push_and_a_sleeper(explored: &Explored) {
    let shared = Arc::new((Sleep::default(), AtomicUsize::new(0)));
    let sleeper = {
        let shared = Arc::clone(&shared);
        thread::spawn(move || while !take_or_sleep(&shared.0, &shared.1) {})
    };
    let (sleep, work) = &*shared;
    // ORDERING: Relaxed; what orders it is the protocol's.
    work.fetch_add(1, Ordering::Relaxed);
    explored.note(usize::from(sleep.wake_one()));
    sleeper.join().unwrap();
}

/// A sleeper that must go does, whatever it is about to do when that becomes true.
fn an_end_and_a_sleeper(explored: &Explored) {
    let shared = Arc::new((Sleep::default(), AtomicBool::new(false)));
    let sleeper = {
        let shared = Arc::clone(&shared);
        thread::spawn(move || {
            let must_go = || shared.1.load(Ordering::SeqCst);
            shared.0.sleep(None, || false, must_go, || false);
            assert!(must_go());
        })
    };
    let (sleep, must_go) = &*shared;
    must_go.store(true, Ordering::SeqCst);
    explored.note(usize::from(sleep.may_have_sleepers()));
    sleep.wake_all();
    sleeper.join().unwrap();
}

fn two_pushes_and_two_sleepers(explored: &Explored) {
    let shared = Arc::new((Sleep::default(), AtomicUsize::new(0)));
    let sleepers: Vec<_> = (0..2)
        .map(|_| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                while !take_or_sleep(&shared.0, &shared.1) {}
                // Who takes work and sees more passes the wake on.
                if shared.0.has_sleepers() && shared.1.load(Ordering::Relaxed) > 0 {
                    shared.0.wake_one();
                }
            })
        })
        .collect();
    let (sleep, work) = &*shared;
    for _ in 0..2 {
        work.fetch_add(1, Ordering::Relaxed);
        explored.note(usize::from(sleep.wake_one()));
    }
    sleepers.into_iter().for_each(|sleeper| sleeper.join().unwrap());
}

fn take_or_sleep(sleep: &Sleep, work: &AtomicUsize) -> bool {
    let take = |left: usize| left.checked_sub(1);
    if work.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
        return true;
    }
    sleep.sleep(None, || work.load(Ordering::Relaxed) > 0, || false, || false);
    false
}

/// What is offered without a fence is found by who is about to sleep, or who offers it finds him.
fn an_offer_and_a_sleeper(explored: &Explored) {
    let shared = Arc::new((Sleep::default(), begun(), Call::new(), AtomicBool::new(false)));
    let sleeper = {
        let shared = Arc::clone(&shared);
        thread::spawn(move || {
            let (sleep, forks, ..) = &*shared;
            while !steal(forks) {
                sleep.sleep(None, || !forks.is_empty(), || false, || true);
            }
        })
    };
    let (sleep, forks, call, _) = &*shared;
    forks.push(NonNull::from(call));
    barrier::light();
    let seen = sleep.may_have_sleepers();
    if seen {
        sleep.wake_one();
    }
    explored.note(usize::from(seen));
    sleeper.join().unwrap();
}
