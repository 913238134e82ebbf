//! Which task waits for which, so that tasks that wait for each other are told instead of waiting for ever.
//!
//! A task that is about to block without a limit is entered here with what it waits for, any one of which would let it
//! go on. It would wait for ever if all of these are entered as well, and so on: then none of them can end. A
//! task that is not entered runs, is queued, or is over, and all of that comes to an end by itself. Waits with a
//! limit are not entered, for they end too, nor are tasks with a limit; nor are threads that make no call; nor is a wait for any of very many, until
//! few of them are left.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasherDefault, Hasher},
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

type Waits = HashMap<TaskId, Awaited, NumberHash>;

pub(crate) type NumberHash = BuildHasherDefault<NumberHasher>;

/// Those of which any one would let a task go on.
#[derive(Debug)]
pub(crate) enum Awaited {
    One(TaskId),
    Any(Vec<TaskId>),
}

impl Awaited {
    fn tasks(&self) -> &[TaskId] {
        match self {
            Awaited::One(task) => slice::from_ref(task),
            Awaited::Any(tasks) => tasks,
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

/// Enters the task whose call this thread makes, if it makes one, until the guard is dropped.
///
/// # Errors
/// [`Failure::Deadlock`] when it would wait for ever.
pub(crate) fn enter(awaited: impl FnOnce() -> Awaited) -> Result<Option<Waiting>, Failure> {
    let Some(waiter) = current::task_without_limit() else { return Ok(None) };
    let awaited = awaited();
    let mut waits = WAITS.lock();
    let waits = waits.get_or_insert_default();
    // Most often nothing that is awaited waits itself.
    if awaited.tasks().iter().all(|task| *task == waiter || waits.contains_key(task))
        && let Some(cycle) = cycle(waits, waiter, awaited.tasks())
    {
        return Err(Failure::Deadlock { cycle });
    }
    Ok(Some(Waiting::new(waits, waiter, awaited)))
}

/// As [`enter`], for what cannot be refused: a call that is made on top of another one, and a scope's wait. Those who wait
/// later at least shall know; who waits already is not woken.
pub(crate) fn enter_regardless(awaited: TaskId) -> Option<Waiting> {
    current::task_without_limit().map(|waiter| enter_outer(waiter, awaited))
}

/// As [`enter_regardless`], for `outer`, on top of whose call that of `inner` is made.
pub(crate) fn enter_outer(outer: TaskId, inner: TaskId) -> Waiting {
    Waiting::new(WAITS.lock().get_or_insert_default(), outer, Awaited::One(inner))
}

/// From [`enter`].
#[derive(Debug)]
#[must_use = "the wait is known only while the guard lives"]
pub(crate) struct Waiting {
    waiter: TaskId,
    previous: Option<Awaited>,
}

impl Waiting {
    fn new(waits: &mut Waits, waiter: TaskId, awaited: Awaited) -> Self {
        // A callback of a task that was run in place waits on behalf of the one that waits already.
        Waiting { waiter, previous: waits.insert(waiter, awaited) }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut waits = WAITS.lock();
        let waits = waits.get_or_insert_default();
        match self.previous.take() {
            Some(previous) => waits.insert(self.waiter, previous),
            None => waits.remove(&self.waiter),
        };
    }
}

/// A way from `waiter` back to a task on that way, if no task that it depends on can go on.
fn cycle(waits: &Waits, waiter: TaskId, awaited: &[TaskId]) -> Option<Vec<TaskId>> {
    let next = |task: TaskId| if task == waiter { Some(awaited) } else { waits.get(&task).map(Awaited::tasks) };
    let mut seen = HashSet::new();
    let mut reached = vec![waiter];
    while let Some(task) = reached.pop() {
        // One that is not entered, or waits for nothing, goes on.
        let targets = next(task).filter(|targets| !targets.is_empty())?;
        if seen.insert(task) {
            reached.extend(targets);
        }
    }
    let mut path = vec![waiter];
    loop {
        let task = *next(path[path.len() - 1])?.first()?;
        if let Some(start) = path.iter().position(|known| *known == task) {
            path.push(task);
            return Some(path.split_off(start));
        }
        path.push(task);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who waits for whom, who is about to wait for whom, and the cycle that this would close.
    #[test]
    fn only_a_wait_that_nothing_can_end_is_a_cycle() {
        let ids = |numbers: &[u64]| numbers.iter().copied().map(TaskId).collect::<Vec<_>>();
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
        for (waiting, waiter, awaited, expected) in table {
            let waits = waiting.iter().map(|(task, targets)| (TaskId(*task), Awaited::Any(ids(targets)))).collect();
            let found = cycle(&waits, TaskId(*waiter), &ids(awaited));
            assert_eq!(found, expected.map(ids), "{waiting:?} {waiter} → {awaited:?}");
        }
    }
}
