//! rayon: `spawn` with a channel of one for handles, `join`, `scope` and parallel iterators.

use rayon::prelude::*;
use std::sync::{Arc, mpsc};

use crate::{
    job::{Work, digest, square, square_and_one},
    pool::{Leaves, Pool},
};

pub(crate) struct Rayon(rayon::ThreadPool);

impl Pool for Rayon {
    const NAME: &str = "rayon";
    type Handle = oneshot::Receiver<u64>;

    fn open(workers: usize) -> Result<Self, String> {
        rayon::ThreadPoolBuilder::new().num_threads(workers).build().map(Rayon).map_err(|error| error.to_string())
    }

    fn submit<F: FnOnce() -> u64 + Send + 'static>(&self, call: F) -> oneshot::Receiver<u64> {
        let (tell, told) = oneshot::channel();
        self.0.spawn(move || drop(tell.send(call())));
        told
    }

    fn wait(&self, handle: oneshot::Receiver<u64>) -> u64 {
        handle.recv().expect("squares do not fail")
    }

    fn completion(&self, n: u64) -> Option<u64> {
        let (tell, told) = mpsc::channel();
        for x in 0..n {
            let tell = tell.clone();
            self.0.spawn(move || tell.send(square(x)).expect("the receiver waits for all"));
        }
        drop(tell);
        Some(told.iter().fold(0, u64::wrapping_add))
    }

    fn tree(&self, leaves: &Arc<Leaves>) -> Option<()> {
        let leaves = Arc::clone(leaves);
        self.0.spawn(move || grow(&leaves, 1));
        Some(())
    }

    fn awaited(&self, depth: u32) -> Option<u64> {
        Some(self.0.install(|| awaited(depth)))
    }

    fn fib(&self, n: u64) -> Option<u64> {
        Some(self.0.install(|| fib(n)))
    }

    fn squares(&self, items: &[u64]) -> Option<Vec<u64>> {
        Some(self.0.install(|| items.par_iter().map(|x| square_and_one(*x)).collect()))
    }

    /// It has nothing lazy that keeps an order.
    fn lazy_squares(&self, n: u64) -> Option<u64> {
        let squares: Vec<u64> =
            self.0.install(|| (0..n as usize).into_par_iter().map(|x| square_and_one(x as u64)).collect());
        Some(digest(squares))
    }

    fn map(&self, work: &Work) -> Option<Vec<u64>> {
        Some(self.0.install(|| work.items.par_iter().map(|item| (work.call)(*item)).collect()))
    }
}

/// The same where calls begin in the order in which they were spawned, as ours do.
pub(crate) struct RayonFifo(Rayon);

impl Pool for RayonFifo {
    const NAME: &str = "rayon-fifo";
    type Handle = oneshot::Receiver<u64>;

    fn open(workers: usize) -> Result<Self, String> {
        Rayon::open(workers).map(RayonFifo)
    }

    fn submit<F: FnOnce() -> u64 + Send + 'static>(&self, call: F) -> oneshot::Receiver<u64> {
        let (tell, told) = oneshot::channel();
        self.0.0.spawn_fifo(move || drop(tell.send(call())));
        told
    }

    fn wait(&self, handle: oneshot::Receiver<u64>) -> u64 {
        self.0.wait(handle)
    }

    fn tree(&self, leaves: &Arc<Leaves>) -> Option<()> {
        let leaves = Arc::clone(leaves);
        self.0.0.spawn_fifo(move || grow_in_order(&leaves, 1));
        Some(())
    }
}

fn grow_in_order(leaves: &Arc<Leaves>, place: u64) {
    leaves.grow(place, |place| {
        let leaves = Arc::clone(leaves);
        rayon::spawn_fifo(move || grow_in_order(&leaves, place));
    });
}

fn grow(leaves: &Arc<Leaves>, place: u64) {
    leaves.grow(place, |place| {
        let leaves = Arc::clone(leaves);
        rayon::spawn(move || grow(&leaves, place));
    });
}

fn awaited(depth: u32) -> u64 {
    if depth == 0 {
        return 1;
    }
    let (mut left, mut right) = (0, 0);
    rayon::scope(|scope| {
        scope.spawn(|_| left = awaited(depth - 1));
        scope.spawn(|_| right = awaited(depth - 1));
    });
    left + right + 1
}

fn fib(n: u64) -> u64 {
    if n < 2 {
        return n;
    }
    let (a, b) = rayon::join(|| fib(n - 1), || fib(n - 2));
    a + b
}
