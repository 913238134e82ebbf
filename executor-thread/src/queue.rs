//! Where tasks wait, and who takes which first. The only file that names crossbeam.
//!
//! Tasks enter one queue, the *injector*, in the order of their submission. A worker takes a batch from its front into a queue
//! of its own and works through that in order, so one lock-free operation on the shared queue serves many tasks. A worker
//! whose own queue is empty first steals from the front of another's: what is there is older than the injector's
//! front, and is never stuck behind a long task in somebody's batch.
//!
//! What a task submits goes to the end of its worker's own queue, but only while the injector is empty: then it is the youngest of
//! all there too, and workers that submit need not meet at one place.
//!
//! So tasks begin in the order of their submission: exactly with one worker, and with several as far as each works through its own
//! batch. A batch is moved under a lock, under which a worker looks at the others' queues once more before it takes from the injector.
//! Without it, one that found nothing there, since a batch was just being moved, would take a younger task, and if that never
//! returned, an older one could wait for ever.
//!
//! Tasks of other than normal priority wait apart, behind a lock that is only taken while there are any.

use crossbeam_deque::{Injector, Steal, Stealer, Worker};
use executor_core::{
    Priority, Task,
    levels::{Levels, Turns},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use std::iter;

/// The tasks of one pool.
pub(crate) struct Queue {
    injector: Injector<Task>,
    /// Held by who takes from the injector.
    taking: Mutex<()>,
    /// Those of other than normal priority, and whose turn it is.
    levels: Mutex<(Levels<Task>, Turns)>,
    /// How many of them there are.
    levelled: AtomicUsize,
    /// A local queue for each worker that may run at a time.
    stealers: Vec<Stealer<Task>>,
    /// The owners' ends that no thread has taken yet.
    free: Mutex<Vec<Local>>,
}

/// A worker's own queue. A spare thread, which stands in for a blocked worker, has none.
pub(crate) struct Local(Worker<Task>);

impl Local {
    /// Only if the queue says that its worker [may keep](Queue::may_keep) it.
    #[inline]
    pub(crate) fn push(&self, task: Task) {
        self.0.push(task);
    }
}

impl Queue {
    pub(crate) fn new(workers: usize) -> Self {
        let locals: Vec<_> = iter::repeat_with(Worker::new_fifo).take(workers).collect();
        Queue {
            injector: Injector::new(),
            taking: Mutex::default(),
            levels: Mutex::default(),
            levelled: AtomicUsize::new(0),
            stealers: locals.iter().map(Worker::stealer).collect(),
            free: Mutex::new(locals.into_iter().map(Local).collect()),
        }
    }

    /// A local queue for a new worker, if one is left.
    pub(crate) fn claim_local(&self) -> Option<Local> {
        self.free.lock().pop()
    }

    /// Takes back what [`claim_local`](Self::claim_local) gave, from a worker that leaves. It is empty.
    pub(crate) fn give_back_local(&self, local: Local) {
        debug_assert!(local.0.is_empty(), "only its owner fills it");
        self.free.lock().push(local);
    }

    #[inline]
    pub(crate) fn push(&self, task: Task, level: Priority) {
        match level {
            Priority::Normal => self.injector.push(task),
            level => {
                let mut levels = self.levels.lock();
                levels.0.push_back(level, task);
                // ORDERING: SeqCst, as the injector's own push: whoever was not told of it looks after this.
                self.levelled.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    /// Whether a task goes to the end of the order when its worker keeps it.
    #[inline]
    pub(crate) fn may_keep(&self) -> bool {
        self.injector.is_empty()
    }

    /// The next task for the owner of `local`, and whether it was there.
    #[inline]
    pub(crate) fn pop_for(&self, local: &Local) -> Option<(Task, bool)> {
        if self.levelled.load(Ordering::SeqCst) == 0
            && let Some(task) = local.0.pop()
        {
            return Some((task, true));
        }
        Some((self.pop(Some(local))?, false))
    }

    /// The next task for the owner of `local`.
    pub(crate) fn pop(&self, local: Option<&Local>) -> Option<Task> {
        if self.levelled.load(Ordering::SeqCst) == 0 {
            return self.pop_normal(local);
        }
        self.pop_by_turn().or_else(|| self.pop_normal(local)).or_else(|| self.pop_levelled())
    }

    /// A task of other than normal priority, if it is its turn.
    fn pop_by_turn(&self) -> Option<Task> {
        let mut levels = self.levels.lock();
        let (tasks, turns) = &mut *levels;
        let next = turns.next(|level| match level {
            Priority::Normal => !self.is_normal_empty(),
            level => tasks.has(level),
        })?;
        let task = tasks.pop_level(next)?;
        self.levelled.fetch_sub(1, Ordering::SeqCst);
        Some(task)
    }

    /// A task of other than normal priority, since no other was there after all.
    fn pop_levelled(&self) -> Option<Task> {
        let task = self.levels.lock().0.pop()?;
        self.levelled.fetch_sub(1, Ordering::SeqCst);
        Some(task)
    }

    fn pop_normal(&self, local: Option<&Local>) -> Option<Task> {
        local.and_then(|Local(local)| local.pop()).or_else(|| self.steal_from_workers()).or_else(|| {
            if self.injector.is_empty() {
                return None;
            }
            let _taking = self.taking.lock();
            self.steal_from_workers().or_else(|| match local {
                Some(Local(local)) => retry(|| self.injector.steal_batch_and_pop(local)),
                // Without keeping others.
                None => retry(|| self.injector.steal()),
            })
        })
    }

    /// How many tasks there are.
    pub(crate) fn len(&self) -> usize {
        let _taking = self.taking.lock(); // so none is between two queues
        let local = self.stealers.iter().map(Stealer::len).sum::<usize>();
        self.levelled.load(Ordering::SeqCst) + self.injector.len() + local
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.levelled.load(Ordering::SeqCst) == 0 && self.is_normal_empty()
    }

    #[inline]
    fn is_normal_empty(&self) -> bool {
        self.injector.is_empty() && self.stealers.iter().all(Stealer::is_empty)
    }

    fn steal_from_workers(&self) -> Option<Task> {
        self.stealers.iter().find_map(|stealer| retry(|| stealer.steal()))
    }
}

/// A steal that lost a race against another thread is tried again: that one made progress.
fn retry(mut steal: impl FnMut() -> Steal<Task>) -> Option<Task> {
    loop {
        match steal() {
            Steal::Success(task) => return Some(task),
            Steal::Empty => return None,
            Steal::Retry => std::hint::spin_loop(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use executor_core::{Future, TaskId};

    fn tasks(count: usize) -> (Vec<Task>, Vec<Future<()>>) {
        iter::repeat_with(|| Task::local(|| ())).take(count).unzip()
    }

    #[test]
    fn one_worker_takes_tasks_in_order_also_across_batches() {
        let queue = Queue::new(1);
        let local = queue.claim_local();
        assert!(queue.claim_local().is_none());
        let (tasks, _futures) = tasks(200);
        let pushed: Vec<TaskId> = tasks.iter().map(Task::id).collect();
        let mut popped = Vec::new();
        for task in tasks {
            queue.push(task, Priority::Normal);
            if popped.len() < 50 {
                popped.push(queue.pop(local.as_ref()).unwrap().id());
            }
        }
        popped.extend(iter::from_fn(|| queue.pop(local.as_ref())).map(|task| task.id()));
        assert_eq!(popped, pushed);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_batch_in_one_workers_queue_can_be_stolen() {
        let queue = Queue::new(2);
        let (busy, idle) = (queue.claim_local(), queue.claim_local());
        let (tasks, _futures) = tasks(8);
        let pushed: Vec<TaskId> = tasks.iter().map(Task::id).collect();
        tasks.into_iter().for_each(|task| queue.push(task, Priority::Normal));
        let mut seen = vec![queue.pop(busy.as_ref()).unwrap().id()];
        // The busy worker now holds a batch and never comes back for it.
        seen.extend(iter::from_fn(|| queue.pop(idle.as_ref())).map(|task| task.id()));
        seen.sort_unstable();
        assert_eq!(seen, pushed);
    }
}
