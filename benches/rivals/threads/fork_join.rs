//! What has no handles: chili, whose calls are joined, and the loop that uses no other thread.

use chili::{Config, Scope};
use std::num::NonZero;

use crate::{
    job::{Work, square_and_one},
    pool::Pool,
};

/// The calling thread is one of its workers.
pub(crate) struct Chili(chili::ThreadPool);

/// There is none.
pub(crate) enum Never {}

impl Pool for Chili {
    const NAME: &str = "chili";
    type Handle = Never;

    fn open(workers: usize) -> Result<Self, String> {
        let config = Config { thread_count: NonZero::new(workers), ..Config::default() };
        Ok(Chili(chili::ThreadPool::with_config(config)))
    }

    fn submit<F: FnOnce() -> u64 + Send + 'static>(&self, _: F) -> Never {
        unreachable!("it has no handles, and takes part in no row on them")
    }

    fn wait(&self, handle: Never) -> u64 {
        match handle {}
    }

    fn awaited(&self, depth: u32) -> Option<u64> {
        Some(awaited(&mut self.0.scope(), depth))
    }

    fn fib(&self, n: u64) -> Option<u64> {
        Some(fib(&mut self.0.scope(), n))
    }

    fn squares(&self, items: &[u64]) -> Option<Vec<u64>> {
        let mut results = vec![0; items.len()];
        fill(&mut self.0.scope(), items, &mut results, 1024, &square_and_one);
        Some(results)
    }

    fn map(&self, work: &Work) -> Option<Vec<u64>> {
        let mut results = vec![0; work.items.len()];
        fill(&mut self.0.scope(), &work.items, &mut results, 1, &work.call);
        Some(results)
    }
}

fn awaited(scope: &mut Scope<'_>, depth: u32) -> u64 {
    if depth == 0 {
        return 1;
    }
    let (left, right) = scope.join(|scope| awaited(scope, depth - 1), |scope| awaited(scope, depth - 1));
    left + right + 1
}

fn fib(scope: &mut Scope<'_>, n: u64) -> u64 {
    if n < 2 {
        return n;
    }
    let (a, b) = scope.join(|scope| fib(scope, n - 1), |scope| fib(scope, n - 2));
    a + b
}

/// It has no map: halves, down to so many items.
fn fill(
    scope: &mut Scope<'_>,
    items: &[u64],
    results: &mut [u64],
    smallest: usize,
    call: &(impl Fn(u64) -> u64 + Sync),
) {
    if items.len() <= smallest {
        results.iter_mut().zip(items).for_each(|(result, item)| *result = call(*item));
        return;
    }
    let half = items.len() / 2;
    let ((left, right), (left_results, right_results)) = (items.split_at(half), results.split_at_mut(half));
    scope.join(
        |scope| fill(scope, left, left_results, smallest, call),
        |scope| fill(scope, right, right_results, smallest, call),
    );
}

fn slowly(n: u64) -> u64 {
    if n < 2 { n } else { slowly(n - 1) + slowly(n - 2) }
}

/// One call after the other, on the thread that wants the results.
pub(crate) struct Loop;

impl Pool for Loop {
    const NAME: &str = "loop";
    type Handle = Never;

    fn open(_: usize) -> Result<Self, String> {
        Ok(Loop)
    }

    fn submit<F: FnOnce() -> u64 + Send + 'static>(&self, _: F) -> Never {
        unreachable!("it has no handles, and takes part in no row on them")
    }

    fn wait(&self, handle: Never) -> u64 {
        match handle {}
    }

    fn fib(&self, n: u64) -> Option<u64> {
        Some(slowly(n))
    }

    fn squares(&self, items: &[u64]) -> Option<Vec<u64>> {
        Some(items.iter().copied().map(square_and_one).collect())
    }

    fn map(&self, work: &Work) -> Option<Vec<u64>> {
        Some(work.items.iter().copied().map(work.call).collect())
    }
}
