//! Which ends of a model were met.

use std::sync::atomic::{AtomicUsize, Ordering};

/// How often each end of a model was met: one that never came was not explored.
#[derive(Debug, Default)]
pub struct Explored([AtomicUsize; 4]);

impl Explored {
    /// Kept, as what a model shares must be.
    #[must_use]
    pub fn kept() -> &'static Explored {
        Box::leak(Box::default())
    }

    /// This one was met.
    pub fn note(&self, end: usize) {
        self.0[end].fetch_add(1, Ordering::Relaxed);
    }

    /// How many of the model's ends were met.
    #[must_use]
    pub fn ends(&self) -> usize {
        self.0.iter().filter(|count| count.load(Ordering::Relaxed) > 0).count()
    }
}
