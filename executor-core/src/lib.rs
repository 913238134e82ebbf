//! What a task, a future and an executor *are*; what it means to run a task or to ship one; who is woken
//! when.
//!
//! Programs depend on `concurrent-futures`, which re-exports what they need. This crate is for authors of
//! backends: [`Executor`] says what one must do, [`task`] is what it moves.
//!
//! | module | decides |
//! |---|---|
//! | [`executor`] | what a backend must do, and what every caller gets |
//! | [`future`], [`mod@wait`], [`map`] | how results are waited for |
//! | [`task`] | how a backend runs a call, or packs, sends and completes it |
//! | [`portable`] | how a function is named in another process |
//! | `work`, `value` | the kinds of call, and what they take and give |
//! | [`cell`], [`state`] | the one object behind a call, and its life |
//! | [`error`] | every ending |
//! | [`blocking`] | what a worker does while it waits |
//!
//! This crate never spawns a thread, opens a file or socket, or reads a clock but to measure a wait or a chunk.

mod arrivals;
pub mod blocking;
pub mod cell;
pub mod codec;
pub mod context;
pub mod error;
pub mod executor;
pub mod future;
pub mod initializer;
pub mod map;
pub mod panic;
pub mod portable;
mod reply;
pub mod shutdown;
pub mod state;
pub mod sync;
pub mod task;
mod value;
pub mod wait;
mod work;

pub use context::Context;
pub use error::{BrokenCause, BuildError, Exit, Failure, Panic, TaskError, TaskId, Timeout, WorkerLost};
pub use executor::Executor;
pub use future::{Future, WaitError};
pub use map::Map;
pub use shutdown::{Shutdown, ShutdownReport};
pub use task::Task;
pub use value::{SharedValue, Value};
pub use wait::{
    ALL_COMPLETED, AsCompleted, AsCompletedTimeout, AsFuture, FIRST_COMPLETED, FIRST_EXCEPTION, ReturnWhen, Waited,
    as_completed, wait, wait_timeout,
};
pub use work::Call;
