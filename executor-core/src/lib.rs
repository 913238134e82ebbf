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
//! | `cancel_on_drop` | a future that takes its call along |
//! | `async_result` | a future by the names of `multiprocessing` |
//! | [`gather`] | one future for a call on many items |
//! | [`task`] | how a backend runs a call, or packs, sends and completes it |
//! | [`portable`] | how a function is named in another process |
//! | [`target`] | a call that is all that a process does |
//! | [`attachments`] | descriptors that travel with values |
//! | `work`, `value`, `function` | the kinds of call, and what they take and give |
//! | `travel`, `call` | how each kind of call travels |
//! | [`cell`], [`state`] | the one object behind a call, and its life |
//! | [`error`] | every ending |
//! | [`blocking`], `waits` | what a worker does while it waits, and when it must not |
//! | [`patience`] | how long a thread looks before it sleeps |
//! | [`current`] | how a running call learns that it is to stop |
//! | [`mod@delayed`] | calls that are described now and made later |
//! | [`options`], [`retry`], [`levels`] | what can be chosen for single calls |
//! | [`admission`] | how many calls a pool takes in |
//! | [`observe`] | who is told of tasks and workers |
//! | [`stats`], [`seat`] | what is counted of calls, and what is being made now |
//! | [`timer`] | what is done at some time: with the observers' ones, the only thread that this crate starts, when it is needed |
//! | `fuzzing` | the door by which `fuzz/` feeds whatever reads bytes |
//! | [`cpu`] | how many processors there are to use |
//!
//! With the feature `transport` calls can leave this process. Without it all stay, as closures with captures always do, and
//! nothing is compiled that encodes.
//!
//! This crate opens no socket. The only files that it reads are those in which the system tells of processors.

pub mod admission;
mod arena;
mod arrivals;
mod async_result;
pub mod attachments;
pub mod blocking;
pub mod buffers;
mod call;
mod cancel_on_drop;
pub mod cell;
#[cfg(feature = "transport")]
pub mod codec;
pub mod context;
#[cfg(feature = "transport")]
mod context_store;
pub mod cpu;
pub mod current;
pub mod delayed;
pub mod drive;
pub mod error;
pub mod executor;
mod function;
pub mod future;
#[cfg(feature = "transport")]
#[doc(hidden)]
pub mod fuzzing;
pub mod gather;
mod handle;
mod header;
pub mod levels;
#[cfg(feature = "transport")]
pub mod linkage;
pub mod map;
pub mod observe;
pub mod options;
mod outcomes;
pub mod panic;
pub mod patience;
#[cfg_attr(not(feature = "transport"), expect(dead_code, reason = "nothing is encoded"))]
pub mod payload;
#[cfg(feature = "transport")]
pub mod portable;
mod reader;
#[cfg(feature = "transport")]
pub mod reply;
pub mod retry;
pub mod seat;
pub mod shutdown;
mod stage;
pub mod state;
pub mod stats;
pub mod sync;
#[cfg(feature = "transport")]
pub mod target;
pub mod task;
pub mod timer;
#[cfg(feature = "transport")]
mod travel;
mod value;
pub mod wait;
mod waits;
mod work;
pub mod worker_call;

pub use admission::WhenFull;
pub use async_result::AsyncResult;
pub use call::Call;
pub use cancel_on_drop::CancelOnDrop;
pub use context::Context;
pub use current::{CancelToken, Cancelled, CurrentTask, current_task};
pub use delayed::{Delayed, delayed};
pub use error::{
    BrokenCause, BuildError, Exit, Failure, Panic, Rejected, ResourceLimit, TaskError, TaskId, Timeout, WorkerLost,
};
pub use executor::{Executor, With};
pub use future::{Future, WaitError};
pub use levels::Priority;
pub use map::{Map, NotYet};
pub use observe::{
    Function, Observer, TaskEvent, TaskEventKind, WorkerEnd, WorkerEvent, WorkerEventKind, WorkerInfo, WorkerKind,
};
pub use options::TaskOptions;
pub use retry::RetryPolicy;
pub use shutdown::{DropPolicy, Shutdown, ShutdownReport};
pub use stats::{Dump, RunningTask, Stats};
#[cfg(feature = "transport")]
pub use target::ExitReport;
pub use task::Task;
pub use value::{SharedValue, Value};
pub use wait::{
    ALL_COMPLETED, AsCompleted, AsCompletedTimeout, AsFuture, FIRST_COMPLETED, FIRST_EXCEPTION, ReturnWhen, Waited,
    as_completed, wait, wait_timeout,
};
pub use work::Batch;
