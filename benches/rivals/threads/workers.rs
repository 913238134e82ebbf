//! How many workers each pool has.

use std::sync::OnceLock;

use crate::alone;

/// If nobody says how many.
const USUAL: usize = 2;

static CHOSEN: OnceLock<usize> = OnceLock::new();

/// What a user has asked for; to be called before anybody asks how many there are.
pub(crate) fn choose(workers: usize) {
    CHOSEN.get_or_init(|| workers);
}

/// A process that was started for one job has been told how many.
pub(crate) fn workers() -> usize {
    *CHOSEN.get_or_init(|| alone::workers().unwrap_or(USUAL))
}
