//! How long a thread looks before it sleeps. Waking another core costs tens of microseconds, looking again a fraction of one.

use std::{hint, sync::LazyLock, thread};

/// How often. One or two microseconds: where whoever is awaited needs this very processor, that is what it loses by it.
const LOOKS: u32 = 40;

/// Looks for a short while whether something has come. It does so once where there is nobody else who could bring it.
pub fn look_for(has_come: impl Fn() -> bool) -> bool {
    static IS_ALONE: LazyLock<bool> =
        LazyLock::new(|| thread::available_parallelism().is_ok_and(|cores| cores.get() == 1));
    if has_come() {
        return true;
    }
    if *IS_ALONE {
        return false;
    }
    for _ in 0..LOOKS {
        hint::spin_loop();
        if has_come() {
            return true;
        }
    }
    false
}
