//! How long a thread looks before it sleeps. Waking another core costs tens of microseconds, looking again a fraction of one.

use std::{hint, thread};

use crate::sync;

/// Before each time that the processor is offered to others: half a microsecond, in which whoever runs elsewhere may bring it.
const LOOKS: u32 = if sync::IS_MODELLED { 1 } else { 12 };

/// How often it is offered to others, of whom one may have to run here to bring it.
const OFFERS: u32 = if sync::IS_MODELLED { 1 } else { 4 };

/// Looks for a short while whether something has come: two microseconds, where nobody else wants this processor.
pub fn look_for(has_come: impl Fn() -> bool) -> bool {
    if has_come() {
        return true;
    }
    for _ in 0..OFFERS {
        for _ in 0..LOOKS {
            hint::spin_loop();
            if has_come() {
                return true;
            }
        }
        thread::yield_now();
    }
    has_come()
}
