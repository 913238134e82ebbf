//! A fence in two halves, for two threads of which one passes it all the time and the other seldom.
//!
//! Where both sides write a word each and then read the other's, both need a fence between, or each may miss what the other
//! wrote. A fence costs several nanoseconds, which is more than all else that a `join` does. Linux can have every thread
//! of this process pass one on behalf of the caller (`membarrier`): so whoever comes often keeps only the compiler from
//! moving its accesses, and whoever comes seldom pays for both, a microsecond or two. Where the system call is not to be had,
//! both are ordinary fences.

use rustix::thread::{MembarrierCommand, membarrier};
use std::{
    process,
    sync::{
        Once,
        atomic::{AtomicBool, Ordering, compiler_fence, fence},
    },
};

/// Whether `heavy` works for two. Set before any thread passes either half.
static IS_ONE_SIDED: AtomicBool = AtomicBool::new(false);

/// To be called before words are shared for which the halves are used. Registering may take milliseconds, once in a process.
pub(crate) fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let registered = membarrier(MembarrierCommand::RegisterPrivateExpedited);
        // ORDERING: Relaxed; whoever passes a half has learnt of the other side by a lock that was taken later.
        IS_ONE_SIDED.store(registered.is_ok(), Ordering::Relaxed);
    });
}

/// The half of the side that comes often.
#[inline]
pub(crate) fn light() {
    // ORDERING: Relaxed; see `prepare`.
    if IS_ONE_SIDED.load(Ordering::Relaxed) {
        compiler_fence(Ordering::SeqCst);
    } else {
        fence(Ordering::SeqCst);
    }
}

/// The half of the side that comes seldom.
pub(crate) fn heavy() {
    // ORDERING: Relaxed; see `prepare`.
    if !IS_ONE_SIDED.load(Ordering::Relaxed) {
        fence(Ordering::SeqCst);
        return;
    }
    let passed = membarrier(MembarrierCommand::PrivateExpedited).or_else(|_| {
        // A forked child may have to ask for it anew.
        membarrier(MembarrierCommand::RegisterPrivateExpedited)?;
        membarrier(MembarrierCommand::PrivateExpedited)
    });
    if let Err(error) = passed {
        // The others have passed no fence of their own, so going on would be a race.
        eprintln!("concurrent-futures: membarrier worked before and does not now: {error}; aborting");
        process::abort();
    }
}
