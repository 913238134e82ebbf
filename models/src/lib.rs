//! The protocols whose correctness is an argument on the order of memory accesses, explored by loom: every schedule of a few threads,
//! and every value that a load may see. Tasks and the thread pool as wholes are explored by what is in `tests/`.
//!
//! The very files of the thread pool are compiled here once more, with other things behind their door (`sync`) and their barrier: so what
//! is explored is what runs. Bugs can be [planted] in what stands behind the door, and the models must find each.
//!
//! [planted]: plant

mod barrier;
mod sync;

#[path = "../../executor-thread/src/forks.rs"]
mod forks;
#[path = "../../executor-thread/src/latch.rs"]
mod latch;
#[path = "../../executor-thread/src/sleep.rs"]
mod sleep;

mod explore;
mod explored;
mod planted;

pub use explore::explore;
pub use explored::Explored;
pub use planted::{are_found, bug};

use std::sync::OnceLock;

/// What is to be wrong.
static PLANTED: OnceLock<String> = OnceLock::new();

/// Makes one thing wrong, for the rest of this process.
pub fn plant(bug: &str) {
    // Nobody plants two.
    let _ = PLANTED.set(bug.to_owned());
}

fn is_planted(bug: &str) -> bool {
    PLANTED.get().is_some_and(|planted| planted == bug)
}
