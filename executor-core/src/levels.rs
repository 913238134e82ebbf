//! Which of several waiting tasks comes first: levels of priority, with ageing, so that none is passed over for ever.

use std::collections::VecDeque;

/// Which calls begin first, when several wait.
///
/// Among calls of the same priority, the one that was submitted first. A call that waits while
/// [`PATIENCE`] others of higher priority begin is taken next, so a lower priority means later, never *never*.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// When nothing else waits.
    Low,
    /// As if nothing had been chosen.
    #[default]
    Normal,
    /// Before all that nothing was chosen for.
    High,
}

/// How many calls of higher priority begin, one after the other, before the oldest of a lower one.
pub const PATIENCE: u32 = 16;

impl Priority {
    /// All of them, the first to begin first.
    pub(crate) const ALL: [Priority; 3] = [Priority::High, Priority::Normal, Priority::Low];
}

/// Whose turn it is. Counts how often each level was passed over.
#[derive(Debug, Default)]
pub struct Turns {
    passed: [u32; Priority::ALL.len()],
}

impl Turns {
    /// The level whose oldest task begins next, of those in which one `waits`.
    pub fn next(&mut self, waits: impl Fn(Priority) -> bool) -> Option<Priority> {
        let waiting = || Priority::ALL.into_iter().filter(|level| waits(*level));
        let aged = waiting().rev().find(|level| self.passed[*level as usize] >= PATIENCE);
        let next = aged.or_else(|| waiting().next())?;
        for level in waiting().filter(|level| *level < next) {
            self.passed[level as usize] += 1;
        }
        self.passed[next as usize] = 0;
        Some(next)
    }
}

/// A queue for each level.
#[derive(Debug)]
pub struct Levels<T> {
    queues: [VecDeque<T>; Priority::ALL.len()],
    turns: Turns,
}

impl<T> Default for Levels<T> {
    fn default() -> Self {
        Levels { queues: Default::default(), turns: Turns::default() }
    }
}

impl<T> Levels<T> {
    /// Puts `item` behind all others of its level.
    pub fn push_back(&mut self, level: Priority, item: T) {
        self.queues[level as usize].push_back(item);
    }

    /// Puts `item` before all others of its level.
    pub fn push_front(&mut self, level: Priority, item: T) {
        self.queues[level as usize].push_front(item);
    }

    /// Takes the item whose turn it is.
    pub fn pop(&mut self) -> Option<T> {
        let next = self.turns.next(|level| !self.queues[level as usize].is_empty())?;
        self.queues[next as usize].pop_front()
    }

    /// Takes the oldest of a level.
    pub fn pop_level(&mut self, level: Priority) -> Option<T> {
        self.queues[level as usize].pop_front()
    }

    /// How many items there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queues.iter().map(VecDeque::len).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queues.iter().all(VecDeque::is_empty)
    }

    /// Whether the level has one.
    #[must_use]
    pub fn has(&self, level: Priority) -> bool {
        !self.queues[level as usize].is_empty()
    }

    /// Takes out all for which `taken` holds.
    pub fn take_if(&mut self, mut taken: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut out = Vec::new();
        for queue in &mut self.queues {
            let (gone, left): (VecDeque<_>, _) = std::mem::take(queue).into_iter().partition(&mut taken);
            *queue = left;
            out.extend(gone);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::{Priority::*, *};

    #[test]
    fn the_highest_comes_first_and_within_a_level_the_oldest() {
        let mut levels = Levels::default();
        for (number, level) in [Low, Normal, High, Low, Normal, High].into_iter().enumerate() {
            levels.push_back(level, number);
        }
        levels.push_front(Normal, 9);
        let order: Vec<_> = std::iter::from_fn(|| levels.pop()).collect();
        assert_eq!(order, [2, 5, 9, 1, 4, 0, 3]);
    }

    /// However many of higher priority keep coming, each level is served: the lowest at the latest after two rounds.
    #[test]
    fn nobody_is_passed_over_for_ever() {
        let mut levels = Levels::default();
        for _ in 0..200 {
            [High, Normal, Low].into_iter().for_each(|level| levels.push_back(level, level));
        }
        let order: Vec<_> = std::iter::from_fn(|| levels.pop()).take(150).collect();
        for level in [Normal, Low] {
            let served = order.iter().filter(|taken| **taken == level).count();
            assert!(served >= 8, "{level:?} was served {served} times in 150: {order:?}");
        }
        assert!(order.iter().filter(|taken| **taken == High).count() > 110, "{order:?}");
        assert!(order[..PATIENCE as usize].iter().all(|taken| *taken == High), "{order:?}");
    }
}
