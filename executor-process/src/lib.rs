//! Where a task runs outside this process: wire, worker, supervision.
//!
//! | module | decides |
//! |---|---|
//! | `pool` | the handle: accepting tasks, shutdown |
//! | `builder` | what can be chosen |
//! | `supervisor` | the life of a worker process, as pure transitions |
//! | `driver` | feeds the supervisor with events and does what it says |
//! | `engine` | who drives: submitters, waiters, or the driver thread |
//! | `watch` | what the driver thread sleeps on |
//! | `ring` | how frames pass from process to process |
//! | `inbox` | what handle and driver share |
//! | `lane` | one worker process, and what lies in its channel |
//! | `announcer`, `echo`, `teller` | where callbacks run, where workers' standard error goes on, and where it is told whose it is |
//! | `output`, `records` | what becomes of what calls print, and of what they log |
//! | `wire` | what goes through a worker's channel |
//! | `attached` | descriptors beside it |
//! | `shared`, `segment` | slices that calls share: what users see of it, and the memory behind it |
//! | `limits`, `cpu_timer` | what a worker may use, and whether it used more |
//! | `reuse` | the pool that a whole program shares |
//! | `claims` | whether a call that lies in a channel has begun |
//! | [`worker`], `uplink` | the other side, and how it sends |
//! | `forkserver`, `zygote` | workers that are forked from a process kept for that: the pool's side, and its own |
//! | `fuzzing` | the door by which `fuzz/` feeds whatever reads bytes |
//! | `os` | starting, ending and naming processes |
//! | `observed` | what is told of workers and calls to those who observe, or ask |
//! | `process`, `life` | one process for one call: its handle, and the other side |
//! | `keeper` | the thread that starts these |
//! | `identity` | who this process is, and whose child |
//! | `queue`, `pipe` | the handles of queues and pipes |
//! | `store` | what is in a queue, in the process that made it |
//! | `clerk` | the thread that serves other processes with that |
//! | `errand` | what they say to each other |
//! | `wait_any` | waiting for the first of several things of the system's |
//!
//! This crate knows nothing of queues that are stolen from, or of how a future keeps its value.

#[cfg(not(target_os = "linux"))]
compile_error!("executor-process needs Linux: it rests on pidfd, memfd and /proc/self/exe");

mod announcer;
mod attached;
mod builder;
mod claims;
mod clerk;
mod cpu_timer;
mod driver;
mod echo;
mod engine;
mod errand;
mod forkserver;
#[doc(hidden)]
pub mod fuzzing;
mod identity;
mod inbox;
mod keeper;
mod lane;
mod life;
mod limits;
mod observed;
mod os;
mod output;
mod pipe;
mod pool;
mod process;
mod queue;
mod records;
mod reuse;
mod ring;
mod segment;
mod shared;
mod store;
mod supervisor;
mod teller;
mod uplink;
mod wait_any;
mod watch;
mod wire;
pub mod worker;
mod zygote;

pub use builder::ProcessPoolExecutorBuilder;
pub use forkserver::StartMethod;
pub use identity::{CurrentProcess, ParentProcess, current_process, parent_process};
pub use output::{Output, OutputLine, OutputStream};
pub use pipe::{Connection, Never, one_way_pipe, pipe};
pub use pool::ProcessPoolExecutor;
pub use process::{ActiveChild, JoinError, Process, ProcessHandle, StartError, active_children};
pub use queue::{JoinableQueue, PutError, Queue, QueueError, QueueTask};
pub use shared::{Plain, Shared};
pub use wait_any::wait_any;
