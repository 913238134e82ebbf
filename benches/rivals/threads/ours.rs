//! The pool that is judged, as its documentation uses it.

use concurrent_futures::{Executor, Future, ThreadPoolExecutor, as_completed};
use std::sync::Arc;

use crate::{
    job::{Work, digest, square, square_and_one},
    pool::{Leaves, Pool},
};

pub(crate) struct Ours(Arc<ThreadPoolExecutor>);

impl Pool for Ours {
    const NAME: &str = "ours";
    type Handle = Future<u64>;

    fn open(workers: usize) -> Result<Self, String> {
        ThreadPoolExecutor::new(workers).map(|pool| Ours(Arc::new(pool))).map_err(|error| error.to_string())
    }

    fn submit<F: FnOnce() -> u64 + Send + 'static>(&self, call: F) -> Future<u64> {
        self.0.spawn(call)
    }

    fn wait(&self, handle: Future<u64>) -> u64 {
        handle.result().expect("squares do not fail")
    }

    fn completion(&self, n: u64) -> Option<u64> {
        let futures = (0..n).map(|x| self.0.spawn(move || square(x)));
        Some(as_completed(futures).fold(0, |sum, future| sum.wrapping_add(self.wait(future))))
    }

    fn tree(&self, leaves: &Arc<Leaves>) -> Option<()> {
        spawn_tree(&self.0, Arc::clone(leaves), 1);
        Some(())
    }

    fn awaited(&self, depth: u32) -> Option<u64> {
        let pool = Arc::clone(&self.0);
        self.0.spawn(move || awaited(&pool, depth)).result().ok()
    }

    fn fib(&self, n: u64) -> Option<u64> {
        let pool = Arc::clone(&self.0);
        self.0.spawn(move || fib(&pool, n)).result().ok()
    }

    fn squares(&self, items: &[u64]) -> Option<Vec<u64>> {
        Some(self.0.map_slice(items, |x| square_and_one(*x)))
    }

    fn lazy_squares(&self, n: u64) -> Option<u64> {
        Some(digest(self.0.map(square_and_one, 0..n).map(|square| square.expect("squares do not fail"))))
    }

    fn map(&self, work: &Work) -> Option<Vec<u64>> {
        Some(self.0.map_slice(&work.items, |item| (work.call)(*item)))
    }
}

fn spawn_tree(pool: &Arc<ThreadPoolExecutor>, leaves: Arc<Leaves>, place: u64) {
    let owned = Arc::clone(pool);
    drop(pool.spawn(move || leaves.grow(place, |place| spawn_tree(&owned, Arc::clone(&leaves), place))));
}

fn awaited(pool: &Arc<ThreadPoolExecutor>, depth: u32) -> u64 {
    if depth == 0 {
        return 1;
    }
    let [left, right] = [(); 2].map(|()| {
        let owned = Arc::clone(pool);
        pool.spawn(move || awaited(&owned, depth - 1))
    });
    let count = |future: Future<u64>| future.result().expect("trees do not fail");
    count(left) + count(right) + 1
}

fn fib(pool: &ThreadPoolExecutor, n: u64) -> u64 {
    if n < 2 {
        return n;
    }
    let (a, b) = pool.join(|| fib(pool, n - 1), || fib(pool, n - 2));
    a + b
}
