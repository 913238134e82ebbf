//! Both halves are fences here: loom knows no barrier of which one side pays for both.

use loom::sync::atomic::{Ordering, fence};

use crate::is_planted;

pub(crate) fn light() {
    if !is_planted("no light half") {
        fence(Ordering::SeqCst);
    }
}

pub(crate) fn heavy() {
    if !is_planted("no heavy half") {
        fence(Ordering::SeqCst);
    }
}

/// For the files' own tests, which are compiled here by whoever asks for all targets, and never run.
#[cfg(test)]
pub(crate) fn prepare() {}
