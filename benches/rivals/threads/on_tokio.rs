//! tokio: `spawn` on the runtime of several threads, whose handles are awaited.

use std::{future::Future, pin::Pin, sync::Arc};
use tokio::{
    runtime::{Builder, Runtime},
    task::{JoinHandle, JoinSet},
};

use crate::{
    job::square,
    pool::{Leaves, Pool},
};

pub(crate) struct Tokio(Runtime);

impl Pool for Tokio {
    const NAME: &str = "tokio";
    type Handle = JoinHandle<u64>;

    fn open(workers: usize) -> Result<Self, String> {
        Builder::new_multi_thread().worker_threads(workers).build().map(Tokio).map_err(|error| error.to_string())
    }

    fn submit<F: FnOnce() -> u64 + Send + 'static>(&self, call: F) -> JoinHandle<u64> {
        self.0.spawn(async move { call() })
    }

    fn wait(&self, handle: JoinHandle<u64>) -> u64 {
        self.0.block_on(handle).expect("squares do not fail")
    }

    fn collect(&self, handles: impl Iterator<Item = JoinHandle<u64>>) -> u64 {
        self.0.block_on(async {
            let mut sum = 0_u64;
            for handle in handles {
                sum = sum.wrapping_add(handle.await.expect("squares do not fail"));
            }
            sum
        })
    }

    fn completion(&self, n: u64) -> Option<u64> {
        let mut set = JoinSet::new();
        for x in 0..n {
            set.spawn_on(async move { square(x) }, self.0.handle());
        }
        self.0.block_on(async {
            let mut sum = 0_u64;
            while let Some(result) = set.join_next().await {
                sum = sum.wrapping_add(result.ok()?);
            }
            Some(sum)
        })
    }

    fn tree(&self, leaves: &Arc<Leaves>) -> Option<()> {
        self.0.spawn(grow(Arc::clone(leaves), 1));
        Some(())
    }

    fn awaited(&self, depth: u32) -> Option<u64> {
        self.0.block_on(self.0.spawn(awaited(depth))).ok()
    }
}

fn grow(leaves: Arc<Leaves>, place: u64) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move { leaves.grow(place, |place| drop(tokio::spawn(grow(Arc::clone(&leaves), place)))) })
}

fn awaited(depth: u32) -> Pin<Box<dyn Future<Output = u64> + Send>> {
    Box::pin(async move {
        if depth == 0 {
            return 1;
        }
        let (left, right) = (tokio::spawn(awaited(depth - 1)), tokio::spawn(awaited(depth - 1)));
        left.await.expect("trees do not fail") + right.await.expect("trees do not fail") + 1
    })
}
