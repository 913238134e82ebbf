//! Everybody. Rows and curves say who takes part in what.

use rivals::contest::Contestant;

use crate::{
    closures::{Channel, Threads, WithHandles},
    floor::Floor,
    fork_join::{Chili, Loop},
    java::ForkJoinPool,
    job::Job,
    on_rayon::{Rayon, RayonFifo},
    on_tokio::Tokio,
    ours::Ours,
    pool::OnPool,
};

type Executors = executors::crossbeam_workstealing_pool::ThreadPool<
    executors::parker::StaticParker<executors::parker::SmallThreadData>,
>;

pub(crate) fn contestants() -> Vec<Box<dyn Contestant<Job>>> {
    vec![
        Box::new(OnPool::<Ours>::new()),
        Box::new(OnPool::<Rayon>::new()),
        Box::new(OnPool::<RayonFifo>::new()),
        Box::new(OnPool::<Tokio>::new()),
        Box::new(OnPool::<WithHandles<threadpool::ThreadPool>>::new()),
        Box::new(OnPool::<WithHandles<Executors>>::new()),
        Box::new(OnPool::<WithHandles<Channel>>::new()),
        Box::new(OnPool::<Threads>::new()),
        Box::new(OnPool::<Chili>::new()),
        Box::new(OnPool::<Loop>::new()),
        Box::new(OnPool::<Floor>::new()),
        Box::new(ForkJoinPool::new()),
    ]
}
