//! Which task waits for which, so that tasks that wait for each other are told instead of waiting for ever.
//!
//! A call that is about to block without a limit is entered here with what it waits for, any one of which would let it
//! go on. It would wait for ever if all of these are entered as well, and so on: then none of them can end. A
//! task that is not entered runs, is queued, or is over, and all of that comes to an end by itself. Waits with a
//! limit are not entered, for they end too; nor are threads that make no call; nor is a wait for any of very many, until
//! few of them are left.
//!
//! A call that is made on top of another one, in place, holds that one up. This is entered when the upper one waits, not before:
//! until then it goes on, and most never wait.
//!
//! A task with a limit ends by itself, so whoever waits for it is let go. Its call need not end: it is entered as a
//! [`Waiter`] of its own, for which only those wait on top of whose calls it is made.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasherDefault, Hash, Hasher},
    slice,
};

use crate::{
    current,
    error::{Failure, TaskId},
    sync::Mutex,
};

/// A wait for any of more tasks than this is not entered: each of its steps would look at all of them.
pub(crate) const MANY: usize = 64;

/// The tasks that wait.
static WAITS: Mutex<Option<Waits>> = Mutex::new(None);

type Waits = HashMap<Waiter, Awaited, NumberHash>;

pub(crate) type NumberHash = BuildHasherDefault<NumberHasher>;

/// A call that may wait, and be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiter {
    task: TaskId,
    /// The task's limit ends the task, but not this call.
    is_outlived: bool,
}

impl Waiter {
    /// The task's call, at whose end the task ends.
    pub(crate) fn task(task: TaskId) -> Self {
        Waiter { task, is_outlived: false }
    }

    /// The call of a task that ends at its limit, whatever the call does.
    pub(crate) fn call_with_limit(task: TaskId) -> Self {
        Waiter { task, is_outlived: true }
    }
}

impl Hash for Waiter {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.task.hash(state); // both of one task are seldom there
    }
}

/// Those of which any one would let a call go on.
#[derive(Debug)]
pub(crate) enum Awaited {
    One(Waiter),
    Any(Vec<Waiter>),
}

impl Awaited {
    /// That this task ends.
    pub(crate) fn one(task: TaskId) -> Self {
        Awaited::One(Waiter::task(task))
    }

    /// That one of these tasks ends.
    pub(crate) fn any(tasks: impl Iterator<Item = TaskId>) -> Self {
        Awaited::Any(tasks.map(Waiter::task).collect())
    }

    fn waiters(&self) -> &[Waiter] {
        match self {
            Awaited::One(waiter) => slice::from_ref(waiter),
            Awaited::Any(waiters) => waiters,
        }
    }
}

/// Tasks are numbered one after the other, so a number is as good as its hash, once its low bits are spread to where the
/// table looks.
#[derive(Default)]
pub(crate) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// Enters the call that this thread makes, if it makes one, until the guard is dropped.
///
/// # Errors
/// [`Failure::Deadlock`] when it would wait for ever.
pub(crate) fn enter(awaited: impl FnOnce() -> Awaited) -> Result<Option<Waiting>, Failure> {
    let Some(waiter) = current::waiter() else { return Ok(None) };
    let awaited = awaited();
    let mut waits = WAITS.lock();
    let waits = waits.get_or_insert_default();
    let mut waiting = Waiting::of_stack(waits);
    // Most often nothing that is awaited waits itself.
    if awaited.waiters().iter().all(|awaited| *awaited == waiter || waits.contains_key(awaited))
        && let Some(cycle) = cycle(waits, waiter, awaited.waiters())
    {
        waiting.leave(waits);
        return Err(Failure::Deadlock { cycle: cycle.into_iter().map(|waiter| waiter.task).collect() });
    }
    waiting.enter(waits, waiter, awaited);
    Ok(Some(waiting))
}

/// As [`enter`], for what cannot be refused: a scope's wait. Those who wait later at least shall know; who waits already
/// is not woken.
pub(crate) fn enter_regardless(awaited: Awaited) -> Option<Waiting> {
    let waiter = current::waiter()?;
    let mut waits = WAITS.lock();
    let waits = waits.get_or_insert_default();
    let mut waiting = Waiting::of_stack(waits);
    waiting.enter(waits, waiter, awaited);
    Some(waiting)
}

/// From [`enter`].
#[derive(Debug)]
#[must_use = "the wait is known only while the guard lives"]
pub(crate) struct Waiting {
    /// Whom it has entered, and as what waiting they were there before.
    entered: Vec<(Waiter, Option<Awaited>)>,
}

impl Waiting {
    /// Enters the calls that lie below others on this thread's stack.
    fn of_stack(waits: &mut Waits) -> Self {
        let mut waiting = Waiting { entered: Vec::new() };
        current::stacked(|upper, lower| waiting.enter(waits, lower, Awaited::One(upper)));
        waiting
    }

    fn enter(&mut self, waits: &mut Waits, waiter: Waiter, awaited: Awaited) {
        // A callback of a task that was run in place waits on behalf of the call that waits already.
        self.entered.push((waiter, waits.insert(waiter, awaited)));
    }

    fn leave(&mut self, waits: &mut Waits) {
        while let Some((waiter, previous)) = self.entered.pop() {
            match previous {
                Some(previous) => waits.insert(waiter, previous),
                None => waits.remove(&waiter),
            };
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.entered.is_empty() {
            self.leave(WAITS.lock().get_or_insert_default());
        }
    }
}

/// A way from `waiter` back to a call on that way, if no call that it depends on can go on.
fn cycle(waits: &Waits, waiter: Waiter, awaited: &[Waiter]) -> Option<Vec<Waiter>> {
    let next = |call: Waiter| if call == waiter { Some(awaited) } else { waits.get(&call).map(Awaited::waiters) };
    let mut seen = HashSet::new();
    let mut reached = vec![waiter];
    while let Some(call) = reached.pop() {
        // One that is not entered, or waits for nothing, goes on.
        let targets = next(call).filter(|targets| !targets.is_empty())?;
        if seen.insert(call) {
            reached.extend(targets);
        }
    }
    let mut path = vec![waiter];
    loop {
        let call = *next(path[path.len() - 1])?.first()?;
        if let Some(start) = path.iter().position(|known| *known == call) {
            path.push(call);
            return Some(path.split_off(start));
        }
        path.push(call);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who waits for whom, who is about to wait for whom, and the cycle that this would close.
    #[test]
    fn only_a_wait_that_nothing_can_end_is_a_cycle() {
        let waiter = |number: u64| Waiter::task(TaskId(number));
        let waiters = |numbers: &[u64]| numbers.iter().copied().map(waiter).collect::<Vec<_>>();
        type Row<'a> = (&'a [(u64, &'a [u64])], u64, &'a [u64], Option<&'a [u64]>);
        let table: &[Row<'_>] = &[
            (&[], 1, &[2], None),
            (&[], 1, &[1], Some(&[1, 1])),
            (&[(2, &[1])], 1, &[2], Some(&[1, 2, 1])),
            (&[(2, &[3]), (3, &[1])], 1, &[2], Some(&[1, 2, 3, 1])),
            (&[(2, &[3])], 1, &[2], None),    // 3 runs
            (&[(2, &[1])], 1, &[2, 3], None), // 3 would do
            (&[(2, &[1]), (3, &[2])], 1, &[3, 2], Some(&[1, 3, 2, 1])),
            (&[(2, &[1, 4])], 1, &[2], None),                     // 4 lets 2 go on
            (&[(2, &[3]), (3, &[2])], 1, &[2], Some(&[2, 3, 2])), // others' cycle, which would have been refused
        ];
        for (waiting, about, awaited, expected) in table {
            let waits = waiting.iter().map(|(task, targets)| (waiter(*task), Awaited::Any(waiters(targets)))).collect();
            let found = cycle(&waits, waiter(*about), &waiters(awaited));
            assert_eq!(found, expected.map(waiters), "{waiting:?} {about} → {awaited:?}");
        }
    }
}
