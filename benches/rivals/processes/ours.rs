//! The pool that is judged, as its documentation uses it.

use concurrent_futures::{Executor, Future, ProcessPoolExecutor, Shared, StartMethod};

use crate::{
    pool::{Pool, SumShared},
    task::{Task, sum},
};

pub(crate) struct Ours(ProcessPoolExecutor);

impl Pool for Ours {
    const NAME: &str = "ours";
    const MAPS: bool = true;
    type Bytes = Vec<u8>;
    type Handle<T: Task> = Future<T::Out>;

    fn open(workers: usize) -> Result<Self, String> {
        ProcessPoolExecutor::new(workers).map(Ours).map_err(|error| error.to_string())
    }

    fn submit<T: Task>(&self, input: T::In) -> Future<T::Out> {
        self.0.submit(T::run, input)
    }

    fn wait<T: Task>(handle: Future<T::Out>) -> Result<T::Out, String> {
        handle.result().map_err(|error| error.to_string())
    }

    fn map<T: Task>(
        &self,
        inputs: impl Iterator<Item = T::In> + Send,
        mut each: impl FnMut(T::Out),
    ) -> Result<(), String> {
        self.0.map(T::run, inputs).try_for_each(|result| result.map(&mut each)).map_err(|error| error.to_string())
    }

    fn sum_shared(&self, numbers: &[u64]) -> Result<SumShared<'_>, String> {
        let shared = Shared::new(numbers).map_err(|error| error.to_string())?;
        let call = move || self.0.submit(|numbers: Shared<[u64]>| sum(&numbers), shared.clone()).result();
        Ok(Box::new(move || call().map_err(|error| error.to_string())))
    }
}

/// The same, with workers that are forked from a zygote.
pub(crate) struct FromZygote(Ours);

impl Pool for FromZygote {
    const NAME: &str = "ours-zygote";
    type Bytes = Vec<u8>;
    type Handle<T: Task> = Future<T::Out>;

    fn open(workers: usize) -> Result<Self, String> {
        let builder = ProcessPoolExecutor::builder().max_workers(workers).start_method(StartMethod::ForkServer);
        builder.build().map(|pool| FromZygote(Ours(pool))).map_err(|error| error.to_string())
    }

    fn submit<T: Task>(&self, input: T::In) -> Future<T::Out> {
        self.0.submit::<T>(input)
    }

    fn wait<T: Task>(handle: Future<T::Out>) -> Result<T::Out, String> {
        Ours::wait::<T>(handle)
    }
}
