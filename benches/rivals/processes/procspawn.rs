//! `procspawn::Pool`, as its documentation uses it.

use crate::{pool::Pool, task::Task};
use serde_bytes::ByteBuf;

pub(crate) struct Procspawn(procspawn::Pool);

impl Pool for Procspawn {
    const NAME: &str = "procspawn";
    // Each call holds three descriptors until its result is taken, and a process often has no more than 1,024.
    const OUTSTANDING: usize = 200;
    type Bytes = ByteBuf;
    type Handle<T: Task> = procspawn::JoinHandle<T::Out>;

    fn open(workers: usize) -> Result<Self, String> {
        procspawn::Pool::new(workers).map(Procspawn).map_err(|error| error.to_string())
    }

    fn submit<T: Task>(&self, input: T::In) -> Self::Handle<T> {
        self.0.spawn(input, T::run)
    }

    fn wait<T: Task>(handle: Self::Handle<T>) -> Result<T::Out, String> {
        handle.join().map_err(|error| error.to_string())
    }
}
