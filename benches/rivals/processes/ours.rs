//! The pool that is judged, as its documentation uses it.

use concurrent_futures::{Executor, Future, ProcessPoolExecutor};

use crate::{pool::Pool, task::Task};

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
}
