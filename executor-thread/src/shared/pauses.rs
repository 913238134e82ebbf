//! Another attempt: a task that is to be tried again waits aside until its pause is over, and then enters the queue again, also when the
//! pool is closed. While one waits, a closed pool is not over: its workers stay, or one is started when the pause ends.

use executor_core::{Task, stats::Made, sync::atomic::Ordering, task::Retries, timer};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::Shared;

impl Shared {
    /// Puts tasks whose pause ends by `now` into the queue again.
    fn resume(self: &Arc<Self>, now: Instant) {
        loop {
            let due = {
                let mut pausing = self.pausing.lock();
                pausing.first_entry().filter(|entry| entry.key().0 <= now).map(|entry| entry.remove())
            };
            let Some(task) = due else { break };
            if !task.is_over() {
                task.resume();
                let level = task.priority();
                self.enqueue(task, level);
            }
            self.pauses.fetch_sub(1, Ordering::SeqCst); // only now: no worker ends in between
        }
        self.pauses_are_fewer();
    }

    /// Whether no further attempts are made.
    pub(super) fn gives_up(&self) -> bool {
        // ORDERING: SeqCst, against `retry`: either that sees this, or whoever made it true finds what waits.
        self.cancelling.load(Ordering::SeqCst) || self.stopping.load(Ordering::SeqCst) || self.broken.get().is_some()
    }

    /// Ends what waits for another attempt. Returns how many of them this cancelled.
    pub(super) fn give_up_pausing(&self) -> usize {
        let tasks = std::mem::take(&mut *self.pausing.lock());
        let mut cancelled = 0;
        for task in tasks.into_values() {
            match self.broken.get() {
                Some(_) => {
                    self.counters.count(Made::Failed, u64::from(!task.is_void()));
                    drop(task.fail(self.refusal()));
                }
                None => cancelled += usize::from(task.cancel()),
            }
            self.pauses.fetch_sub(1, Ordering::SeqCst);
        }
        self.pauses_are_fewer();
        cancelled
    }

    /// Forgets what was cancelled while it waited for another attempt.
    pub(super) fn forget_cancelled_pauses(&self) {
        let cancelled: Vec<_> = self.pausing.lock().extract_if(.., |_, task| task.is_over()).collect();
        self.pauses.fetch_sub(cancelled.len(), Ordering::SeqCst);
        drop(cancelled);
        self.pauses_are_fewer();
    }

    fn pauses_are_fewer(&self) {
        if self.is_closed() {
            self.sleep.wake_all(); // those that only waited for this may end
            self.tell_if_over();
        }
    }
}

impl Retries for Shared {
    fn retry(self: Arc<Self>, task: Task, pause: Duration) {
        self.pauses.fetch_add(1, Ordering::SeqCst);
        let at = timer::after(pause);
        self.pausing.lock().insert((at, task.id().number()), task);
        if self.gives_up() {
            // ORDERING: SeqCst, as in `next_task`.
            self.cancelled_in_motion.fetch_add(self.give_up_pausing(), Ordering::SeqCst);
            return;
        }
        // ORDERING: SeqCst, against `close`: either this sees it, or whoever waits for the end sees the pause.
        if self.is_closed() {
            let _crew = self.crew.lock();
            // WAKES: threads in `wait_for_everybody` (predicate: nothing pauses; they wait in another way while something does).
            // They hold the lock from their look until they wait.
            self.everybody_left.notify_all();
        }
        let pool = Arc::clone(&self); // lives as long as something is to be done
        match timer::at(at, move || pool.resume(at)) {
            Ok(entry) => entry.keep(),
            // No pause, then: the pool's own threads are there.
            Err(_) => self.resume(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ThreadPoolExecutorBuilder;
    use executor_core::Shutdown;
    use std::{num::NonZeroUsize, sync::mpsc, thread};

    /// SHD-01: somebody waits for the end already when a call fails that is to be tried again much later, and then that is cancelled.
    #[test]
    fn a_pause_that_begins_during_a_shutdown_can_be_cancelled() {
        const MINUTE: Duration = Duration::from_secs(60);
        let one = NonZeroUsize::MIN;
        let pool = Arc::new(Shared::new(one, ThreadPoolExecutorBuilder::default()).unwrap());
        let (let_go, held) = mpsc::channel::<()>();
        let (busy, made) = Task::local(move || _ = held.recv());
        pool.execute(busy);
        let began = Instant::now();
        thread::scope(|scope| {
            let shutdown = scope.spawn(|| pool.dismiss(Shutdown::wait()));
            while !pool.is_closed() {
                thread::yield_now();
            }
            thread::sleep(Duration::from_millis(50)); // until it waits, or else this shows nothing
            let (again, future) = Task::local(|| ());
            Arc::clone(&pool).retry(again, MINUTE);
            assert!(future.cancel());
            drop(let_go);
            assert!(shutdown.join().unwrap().is_complete());
        });
        assert!(made.result().is_ok());
        assert!(began.elapsed() < MINUTE / 2, "it waited for the pause to end");
    }
}
