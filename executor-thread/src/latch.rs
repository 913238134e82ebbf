//! Whether a call that somebody else makes is over.

use crate::sync::atomic::{AtomicU8, Ordering};

/// Set once, by who makes the call; waited for by at most one thread.
pub(crate) struct Latch(AtomicU8);

const OPEN: u8 = 0;
const AWAITED: u8 = 1;
const SET: u8 = 2;

impl Latch {
    pub(crate) fn new() -> Self {
        Latch(AtomicU8::new(OPEN))
    }

    /// What was done before it was set is visible to who finds it so.
    pub(crate) fn is_set(&self) -> bool {
        // ORDERING: Acquire, for the Release in `set`.
        self.0.load(Ordering::Acquire) == SET
    }

    /// Sets it. Returns whether its owner waits, and is to be woken; after this, he may be gone and the latch with him.
    pub(crate) fn set(&self) -> bool {
        // ORDERING: AcqRel; Release for the Acquire of the owner, and Acquire for what that wrote before it began to wait.
        self.0.swap(SET, Ordering::AcqRel) == AWAITED
    }

    /// Calls `sleep`, which returns when what it is given says that the latch is set, unless it is.
    pub(crate) fn wait(&self, sleep: impl FnOnce(&dyn Fn() -> bool)) {
        // ORDERING: Acquire when it fails, since then it is set.
        if self.0.compare_exchange(OPEN, AWAITED, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            sleep(&|| self.is_set());
        }
    }
}
