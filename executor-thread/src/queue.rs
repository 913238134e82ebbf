//! Where tasks wait, and who takes which first. The only file that names crossbeam.
//!
//! All tasks enter one queue, the *injector*, in the order of their submission, also those that tasks
//! submit. A worker takes a batch from its front into a queue of its own and works through that in
//! order, so one lock-free operation on the shared queue serves many tasks. A worker whose own queue is empty first
//! steals from the front of another's: what is there is older than the injector's front, and is never stuck
//! behind a long task in somebody's batch.
//!
//! So tasks begin in the order of their submission: exactly with one worker, and with several but for a batch that is
//! just being moved.

use crossbeam_deque::{Injector, Steal, Stealer, Worker};
use executor_core::{Task, sync::Mutex};
use std::iter;

/// The tasks of one pool.
pub(crate) struct Queue {
    injector: Injector<Task>,
    /// A local queue for each worker that may run at a time.
    stealers: Vec<Stealer<Task>>,
    /// The owners' ends that no thread has taken yet.
    free: Mutex<Vec<Local>>,
}

/// A worker's own queue. A spare thread, which stands in for a blocked worker, has none.
pub(crate) struct Local(Worker<Task>);

impl Queue {
    pub(crate) fn new(workers: usize) -> Self {
        let locals: Vec<_> = iter::repeat_with(Worker::new_fifo).take(workers).collect();
        Queue {
            injector: Injector::new(),
            stealers: locals.iter().map(Worker::stealer).collect(),
            free: Mutex::new(locals.into_iter().map(Local).collect()),
        }
    }

    /// A local queue for a new worker, if one is left.
    pub(crate) fn claim_local(&self) -> Option<Local> {
        self.free.lock().pop()
    }

    pub(crate) fn push(&self, task: Task) {
        self.injector.push(task);
    }

    /// The next task for the owner of `local`.
    pub(crate) fn pop(&self, local: Option<&Local>) -> Option<Task> {
        match local {
            Some(Local(local)) => local
                .pop()
                .or_else(|| self.steal_from_workers())
                .or_else(|| retry(|| self.injector.steal_batch_and_pop(local))),
            None => self.steal(),
        }
    }

    /// Takes the oldest task that is to be had, without keeping others.
    pub(crate) fn steal(&self) -> Option<Task> {
        self.steal_from_workers().or_else(|| retry(|| self.injector.steal()))
    }

    pub(crate) fn is_empty(&self) -> bool {
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
            queue.push(task);
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
        tasks.into_iter().for_each(|task| queue.push(task));
        let mut seen = vec![queue.pop(busy.as_ref()).unwrap().id()];
        // The busy worker now holds a batch and never comes back for it.
        seen.extend(iter::from_fn(|| queue.pop(idle.as_ref())).map(|task| task.id()));
        seen.sort_unstable();
        assert_eq!(seen, pushed);
    }
}
