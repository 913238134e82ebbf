//! Whatever runs boxed closures and has no handles: a channel of one for each result makes some.

use std::{
    marker::PhantomData,
    sync::{Arc, mpsc},
    thread,
};

use crate::{
    job::square,
    pool::{Leaves, Pool},
};

type Job = Box<dyn FnOnce() + Send>;

/// Something that runs closures, also for those that it runs.
pub(crate) trait Closures: Clone + Send + Sync + 'static {
    const NAME: &str;

    fn open(workers: usize) -> Self;
    fn execute(&self, call: impl FnOnce() + Send + 'static);
    fn close(&self);
}

pub(crate) struct WithHandles<C: Closures>(C);

impl<C: Closures> Pool for WithHandles<C> {
    const NAME: &str = C::NAME;
    type Handle = oneshot::Receiver<u64>;

    fn open(workers: usize) -> Result<Self, String> {
        Ok(WithHandles(C::open(workers)))
    }

    fn submit<F: FnOnce() -> u64 + Send + 'static>(&self, call: F) -> oneshot::Receiver<u64> {
        let (tell, told) = oneshot::channel();
        self.0.execute(move || drop(tell.send(call())));
        told
    }

    fn wait(&self, handle: oneshot::Receiver<u64>) -> u64 {
        handle.recv().expect("squares do not fail")
    }

    fn completion(&self, n: u64) -> Option<u64> {
        let (tell, told) = mpsc::channel();
        for x in 0..n {
            let tell = tell.clone();
            self.0.execute(move || tell.send(square(x)).expect("the receiver waits for all"));
        }
        drop(tell);
        Some(told.iter().fold(0, u64::wrapping_add))
    }

    fn tree(&self, leaves: &Arc<Leaves>) -> Option<()> {
        grow(&self.0, Arc::clone(leaves), 1);
        Some(())
    }
}

impl<C: Closures> Drop for WithHandles<C> {
    fn drop(&mut self) {
        self.0.close();
    }
}

fn grow<C: Closures>(pool: &C, leaves: Arc<Leaves>, place: u64) {
    let owned = pool.clone();
    pool.execute(move || leaves.grow(place, |place| grow(&owned, Arc::clone(&leaves), place)));
}

/// What somebody makes by hand: some threads and a channel.
#[derive(Clone)]
pub(crate) struct Channel(Option<crossbeam_channel::Sender<Job>>);

impl Closures for Channel {
    const NAME: &str = "crossbeam-channel";

    fn open(workers: usize) -> Self {
        let (give, take) = crossbeam_channel::unbounded::<Job>();
        for _ in 0..workers {
            let take = take.clone();
            thread::spawn(move || take.iter().for_each(|job| job()));
        }
        Channel(Some(give))
    }

    fn execute(&self, call: impl FnOnce() + Send + 'static) {
        if let Some(give) = &self.0 {
            // Its threads go on for as long as there is a sender.
            let _ = give.send(Box::new(call));
        }
    }

    fn close(&self) {}
}

impl Closures for threadpool::ThreadPool {
    const NAME: &str = "threadpool";

    fn open(workers: usize) -> Self {
        threadpool::ThreadPool::new(workers)
    }

    fn execute(&self, call: impl FnOnce() + Send + 'static) {
        threadpool::ThreadPool::execute(self, call);
    }

    fn close(&self) {
        self.join();
    }
}

type Parker = executors::parker::StaticParker<executors::parker::SmallThreadData>;

impl Closures for executors::crossbeam_workstealing_pool::ThreadPool<Parker> {
    const NAME: &str = "executors";

    fn open(workers: usize) -> Self {
        executors::crossbeam_workstealing_pool::small_pool(workers)
    }

    fn execute(&self, call: impl FnOnce() + Send + 'static) {
        executors::Executor::execute(self, call);
    }

    fn close(&self) {
        let _ = executors::Executor::shutdown(self.clone());
    }
}

/// No pool: a thread for each call.
pub(crate) struct Threads(PhantomData<()>);

impl Pool for Threads {
    const NAME: &str = "std-threads";
    const OUTSTANDING: usize = 64;
    type Handle = thread::JoinHandle<u64>;

    fn open(_: usize) -> Result<Self, String> {
        Ok(Threads(PhantomData))
    }

    fn submit<F: FnOnce() -> u64 + Send + 'static>(&self, call: F) -> thread::JoinHandle<u64> {
        thread::spawn(call)
    }

    fn wait(&self, handle: thread::JoinHandle<u64>) -> u64 {
        handle.join().expect("squares do not fail")
    }
}
