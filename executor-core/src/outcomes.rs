//! The outcomes of a chunk's items, in the items' order. Nearly all of them are values, so those lie together as in any
//! vector, and only failures are kept apart.

use std::vec;

use crate::error::Failure;

/// An outcome for each item, in order.
#[derive(Debug)]
pub(crate) struct Outcomes<T> {
    values: Vec<T>,
    /// Each with its place among all outcomes, in ascending order.
    failures: Vec<(usize, Failure)>,
}

impl<T> Outcomes<T> {
    pub(crate) fn with_capacity(items: usize) -> Self {
        Outcomes { values: Vec::with_capacity(items), failures: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len() + self.failures.len()
    }

    pub(crate) fn push(&mut self, outcome: Result<T, Failure>) {
        match outcome {
            Ok(value) => self.values.push(value),
            Err(failure) => self.failures.push((self.len(), failure)),
        }
    }

    /// All outcomes, if none of them is a failure.
    #[cfg(any(test, feature = "transport"))]
    pub(crate) fn all_values(&self) -> Option<&Vec<T>> {
        self.failures.is_empty().then_some(&self.values)
    }

    /// The first failure, if there is one.
    pub(crate) fn first_failure(&self) -> Option<&Failure> {
        self.failures.first().map(|(_, failure)| failure)
    }

    /// The failure of the only item, if there is one item, and it failed.
    pub(crate) fn only_failure(&self) -> Option<&Failure> {
        match (&self.values[..], &self.failures[..]) {
            ([], [(_, failure)]) => Some(failure),
            _ => None,
        }
    }
}

impl<T> From<Vec<T>> for Outcomes<T> {
    fn from(values: Vec<T>) -> Self {
        Outcomes { values, failures: Vec::new() }
    }
}

impl<T> FromIterator<Result<T, Failure>> for Outcomes<T> {
    fn from_iter<I: IntoIterator<Item = Result<T, Failure>>>(outcomes: I) -> Self {
        let outcomes = outcomes.into_iter();
        let mut all = Outcomes::with_capacity(outcomes.size_hint().0);
        outcomes.for_each(|outcome| all.push(outcome));
        all
    }
}

impl<T> IntoIterator for Outcomes<T> {
    type Item = Result<T, Failure>;
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        let mut failures = self.failures.into_iter();
        let next_failure = failures.next();
        let until_failure = next_failure.as_ref().map_or(usize::MAX, |(place, _)| *place);
        IntoIter { values: self.values.into_iter(), failures, next_failure, until_failure }
    }
}

/// From [`Outcomes::into_iter`].
#[derive(Debug)]
pub(crate) struct IntoIter<T> {
    values: vec::IntoIter<T>,
    failures: vec::IntoIter<(usize, Failure)>,
    next_failure: Option<(usize, Failure)>,
    /// How many values come before the next failure.
    until_failure: usize,
}

impl<T> IntoIter<T> {
    pub(crate) fn len(&self) -> usize {
        self.values.len() + self.failures.len() + usize::from(self.next_failure.is_some())
    }
}

impl<T> Iterator for IntoIter<T> {
    type Item = Result<T, Failure>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.until_failure > 0 {
            self.until_failure -= 1;
            return self.values.next().map(Ok);
        }
        let (place, failure) = self.next_failure.take()?;
        self.next_failure = self.failures.next();
        self.until_failure = self.next_failure.as_ref().map_or(usize::MAX, |(next, _)| next - place - 1);
        Some(Err(failure))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len(), Some(self.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_come_out_in_the_order_in_which_they_went_in() {
        for failed in 0..64_u32 {
            let is_failed = |place: usize| failed >> place & 1 == 1;
            let outcomes: Outcomes<usize> =
                (0..6).map(|place| if is_failed(place) { Err(Failure::Shutdown) } else { Ok(place) }).collect();
            assert_eq!(outcomes.len(), 6);
            assert_eq!(outcomes.all_values().is_some(), failed == 0);
            assert!(outcomes.only_failure().is_none());
            let mut iter = outcomes.into_iter();
            for place in 0..6 {
                assert_eq!(iter.len(), 6 - place);
                assert_eq!(iter.next().unwrap().ok(), (!is_failed(place)).then_some(place), "{failed:06b}");
            }
            assert!(iter.next().is_none());
        }
    }

    #[test]
    fn an_only_failure_is_found() {
        let only: Outcomes<()> = [Err(Failure::Shutdown)].into_iter().collect();
        assert!(only.only_failure().is_some() && only.all_values().is_none());
        assert!(Outcomes::from(vec![1]).only_failure().is_none());
    }
}
