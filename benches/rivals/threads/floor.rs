//! What no pool can beat by much: one thread beside the caller's, with room for one call. There is no queue, and no handle that
//! anybody else could have; a call cannot be cancelled, and does not fail. Not a rival: it shows what the machine takes.

use std::{
    hint, iter,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle, Thread},
    time::{Duration, Instant},
};

use crate::{job::Work, pool::Pool};

/// How long each side looks before it sleeps.
const LOOKS_FOR: Duration = Duration::from_micros(10);

pub(crate) struct Floor {
    place: Arc<Place>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Place {
    state: AtomicU8,
    call: Mutex<Option<Call>>,
    result: AtomicU64,
}

struct Call {
    make: Box<dyn FnOnce() -> u64 + Send>,
    caller: Thread,
}

const EMPTY: u8 = 0;
const FULL: u8 = 1;
const DONE: u8 = 2;
const OVER: u8 = 3;

impl Place {
    fn put(&self, call: Option<Call>) -> Option<Call> {
        std::mem::replace(&mut *self.call.lock().unwrap_or_else(PoisonError::into_inner), call)
    }

    fn work(&self) {
        loop {
            self.look_for(&[FULL, OVER]);
            let Some(Call { make, caller }) = self.put(None) else { return };
            self.result.store(make(), Ordering::Relaxed);
            self.state.store(DONE, Ordering::Release);
            caller.unpark();
        }
    }

    fn look_for(&self, states: &[u8]) {
        let is_there = || states.contains(&self.state.load(Ordering::Acquire));
        let began = Instant::now();
        while began.elapsed() < LOOKS_FOR {
            for _ in 0..16 {
                if is_there() {
                    return;
                }
                hint::spin_loop();
            }
            thread::yield_now(); // both may be on one processor
        }
        while !is_there() {
            thread::park();
        }
    }
}

impl Pool for Floor {
    const NAME: &str = rivals::contest::FLOOR;
    const OUTSTANDING: usize = 1;
    type Handle = ();

    fn open(_: usize) -> Result<Self, String> {
        let place = Arc::new(Place::default());
        let theirs = Arc::clone(&place);
        Ok(Floor { place, thread: Some(thread::spawn(move || theirs.work())) })
    }

    fn submit<F: FnOnce() -> u64 + Send + 'static>(&self, call: F) {
        self.place.put(Some(Call { make: Box::new(call), caller: thread::current() }));
        self.place.state.store(FULL, Ordering::Release);
        self.thread.iter().for_each(|thread| thread.thread().unpark());
    }

    fn wait(&self, (): ()) -> u64 {
        self.place.look_for(&[DONE]);
        self.place.state.store(EMPTY, Ordering::Relaxed);
        self.place.result.load(Ordering::Relaxed)
    }

    /// Both threads take one item after the other.
    fn map(&self, work: &Work) -> Option<Vec<u64>> {
        let (items, call) = (work.items.clone(), work.call);
        let results: Vec<AtomicU64> = iter::repeat_with(AtomicU64::default).take(items.len()).collect();
        let all = Arc::new((items, results, AtomicUsize::new(0)));
        let theirs = Arc::clone(&all);
        let make = move |(items, results, next): &(Vec<u64>, Vec<AtomicU64>, AtomicUsize)| {
            while let index = next.fetch_add(1, Ordering::Relaxed)
                && let Some(item) = items.get(index)
            {
                results[index].store(call(*item), Ordering::Relaxed);
            }
            0
        };
        self.submit(move || make(&theirs));
        make(&all);
        self.wait(());
        Some(all.1.iter().map(|result| result.load(Ordering::Relaxed)).collect())
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        self.place.state.store(OVER, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join(); // it does not panic
        }
    }
}
