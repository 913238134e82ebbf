//! Where a task runs inside this process: queues, workers, and who sleeps.
//!
//! | module | decides |
//! |---|---|
//! | `pool` | the handle |
//! | `shared` | what handle and threads share: taking tasks in, starting threads, ending |
//! | `builder` | what can be chosen |
//! | `worker` | one loop: find work, run it, sleep |
//! | `queue` | where tasks wait, and who takes which first |
//! | `sleep` | who sleeps, and who wakes whom |
//! | `scope` | calls that borrow |
//! | `thread` | one thread for one call, and which there are |
//! | `join`, `forks`, `latch` | two calls at a time on one stack; what is offered to others meanwhile, and when it is done |
//! | `slices` | the same call for each item of a slice |
//! | `barrier` | a fence of which one side pays for both |
//! | `sync` | the door to locks and atomics |
//!
//! This crate knows nothing of bytes, processes, or how a future keeps its value.

mod barrier;
mod builder;
mod forks;
mod join;
mod latch;
mod pool;
mod queue;
mod scope;
mod shared;
mod sleep;
mod slices;
mod sync;
mod thread;
mod worker;

pub use builder::ThreadPoolExecutorBuilder;
pub use pool::ThreadPoolExecutor;
pub use scope::{Scope, ScopedFuture};
pub use thread::{
    Thread, ThreadHandle, ThreadInfo, ThreadJoinError, active_count, current_thread, enumerate, main_thread,
};
