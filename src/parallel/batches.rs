//! How many calls go to a worker together.
//!
//! A batch costs a submission, whatever is in it, so it should last long beside that: some milliseconds. Much longer
//! ones gain nothing, are shared out less evenly, and are lost as a whole with their worker.

use std::{num::NonZeroUsize, time::Duration};

/// A batch that lasts less should be larger.
const SHORT: Duration = Duration::from_millis(1);

/// A batch that lasts longer should be smaller.
const LONG: Duration = Duration::from_millis(10);

/// Finds a size by what it is told of the batches before: it knows no clock.
#[derive(Debug)]
pub(super) struct Batches {
    size: usize,
    is_fixed: bool,
    /// Seconds that a batch of this size takes; an average in which the latest counts most.
    seconds: Option<f64>,
}

impl Batches {
    pub(super) fn fixed(size: NonZeroUsize) -> Self {
        Batches { size: size.get(), is_fixed: true, seconds: None }
    }

    pub(super) fn auto() -> Self {
        Batches { size: 1, is_fixed: false, seconds: None }
    }

    /// How large the next batch is to be, when so many calls are left for so many workers.
    pub(super) fn next(&self, left: Option<usize>, workers: NonZeroUsize) -> usize {
        let share = match left {
            // The last ones are shared out, so that nobody waits for the longest batch at the end.
            Some(left) if !self.is_fixed => left.div_ceil(workers.get().saturating_mul(2)),
            _ => usize::MAX,
        };
        self.size.min(share).max(1)
    }

    /// A batch of so many calls took so long.
    pub(super) fn observe(&mut self, calls: usize, elapsed: Duration) {
        // Those of another size, sent before, say less.
        if self.is_fixed || calls != self.size {
            return;
        }
        let latest = elapsed.as_secs_f64();
        let seconds = self.seconds.map_or(latest, |before| 0.2 * before + 0.8 * latest);
        self.seconds = Some(seconds);
        let fitting = |aim: Duration| (self.size as f64 * aim.as_secs_f64() / seconds.max(1e-9)) as usize;
        let size = if seconds < SHORT.as_secs_f64() {
            fitting(2 * SHORT).clamp(self.size, self.size.saturating_mul(2))
        } else if seconds > LONG.as_secs_f64() {
            fitting(2 * SHORT).clamp(1, self.size)
        } else {
            self.size
        };
        if size != self.size {
            (self.size, self.seconds) = (size, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: NonZeroUsize = NonZeroUsize::new(2).unwrap();

    /// What becomes of the size when calls take so long each.
    fn run(batches: &mut Batches, per_call: Duration, rounds: usize) -> Vec<usize> {
        (0..rounds)
            .map(|_| {
                let calls = batches.next(None, TWO);
                batches.observe(calls, per_call * u32::try_from(calls).unwrap());
                batches.next(None, TWO)
            })
            .collect()
    }

    /// JOB-21: short calls go together, at most twice as many at each step, until a batch lasts long enough.
    #[test]
    fn batches_double_while_they_are_short() {
        let mut batches = Batches::auto();
        assert_eq!(batches.next(None, TWO), 1, "nothing is known");
        assert_eq!(run(&mut batches, Duration::from_micros(1), 9), [2, 4, 8, 16, 32, 64, 128, 256, 512]);
        assert_eq!(run(&mut batches, Duration::from_micros(1), 3), [1024, 1024, 1024]);
        let mut nothing = Batches::auto();
        assert_eq!(run(&mut nothing, Duration::ZERO, 3), [2, 4, 8]);
    }

    /// JOB-21: a batch that is too long shrinks at once, as far as it must; long calls stay alone.
    #[test]
    fn batches_shrink_when_calls_get_slow() {
        let mut batches = Batches::auto();
        run(&mut batches, Duration::from_micros(1), 12);
        assert_eq!(run(&mut batches, Duration::from_micros(100), 2), [24, 24]);
        assert_eq!(run(&mut batches, Duration::from_secs(3), 2), [1, 1]);
        // Between the two limits nothing changes, so that it does not swing.
        let mut steady = Batches::auto();
        assert_eq!(run(&mut steady, Duration::from_millis(5), 4), [1; 4]);
    }

    /// JOB-21: a batch of another size, which was sent before, changes nothing.
    #[test]
    fn only_batches_of_the_present_size_count() {
        let mut batches = Batches::auto();
        batches.observe(64, Duration::ZERO);
        assert_eq!(batches.next(None, TWO), 1);
    }

    /// JOB-21: the last calls are shared out among the workers.
    #[test]
    fn the_last_batches_are_smaller() {
        let mut batches = Batches::auto();
        run(&mut batches, Duration::from_micros(1), 12);
        for (left, size) in [(100_000, 1024), (1000, 250), (10, 3), (1, 1), (0, 1)] {
            assert_eq!(batches.next(Some(left), TWO), size, "{left} are left");
        }
        let fixed = Batches::fixed(NonZeroUsize::new(7).unwrap());
        assert_eq!(fixed.next(Some(8), TWO), 7, "what was chosen is kept to");
    }
}
