//! How a pool ends.
//!
//! A shutdown closes the pool. Workers then leave when they find nothing to do, and the last one wakes who waits
//! for them. A task that was accepted in the very moment of closing is either run by a worker that is
//! still there, or found by the last to leave, or by the thread that submitted it: both look after the other
//! may have acted (sequentially consistent on both sides), and whoever takes it fails it as shut down.

use executor_core::{
    BrokenCause, Failure, Shutdown, ShutdownReport, Task, blocking,
    stats::Made,
    sync::{atomic::Ordering, thread},
    timer,
};
use std::{iter, time::Instant};

use super::{Load, Shared, crew::Crew};

impl Shared {
    /// Whether the pool is closed and no task waits for another attempt.
    pub(super) fn may_close(&self) -> bool {
        self.is_closed() && self.pauses.load(Ordering::SeqCst) == 0
    }

    /// Whether nobody is there, or will be, who makes a call of this pool. Of a closed one.
    fn is_over(&self, crew: &Crew) -> bool {
        crew.threads + crew.leaving + crew.guests == 0 && self.pauses.load(Ordering::SeqCst) == 0
    }

    pub(super) fn tell_if_over(&self) {
        let crew = self.crew.lock();
        if self.is_closed() && self.is_over(&crew) {
            // WAKES: threads in `wait_for_everybody` (predicate: `is_over`). All that it looks at was changed before the lock
            // was taken, which they hold from their look until they wait.
            self.everybody_left.notify_all();
        }
    }

    /// Fails tasks that came too late for any worker. See the module.
    pub(super) fn sweep(&self) {
        if self.crew.lock().threads > 0 || self.pauses.load(Ordering::SeqCst) > 0 {
            return;
        }
        self.fail_queued();
    }

    fn fail_queued(&self) {
        for task in iter::from_fn(|| self.queue.pop(None)) {
            self.fail_taken(task);
        }
    }

    /// Fails what was taken from the queue.
    pub(super) fn fail_taken(&self, task: Task) {
        if task.is_void() {
            self.counters.was_void();
        } else {
            self.counters.count(Made::Failed, 1);
        }
        drop(task.fail(self.refusal()));
    }

    fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        if let Some(admission) = &self.admission {
            admission.close();
        }
        self.sleep.wake_all();
    }

    pub(super) fn break_with(&self, cause: BrokenCause) {
        let _ = self.broken.set(cause); // the first cause is the one to tell
        self.close();
        self.fail_queued();
        self.give_up_pausing();
    }

    /// A worker's initializer failed.
    pub(crate) fn break_down(&self, failure: Failure) {
        self.break_with(BrokenCause::Initializer(Box::new(failure)));
    }

    /// A shutdown that somebody asked for by name.
    pub(crate) fn dismiss(&self, how: Shutdown) -> ShutdownReport {
        // ORDERING: Relaxed; read by who drops the handle, and has it to itself.
        self.dismissed.store(true, Ordering::Relaxed);
        self.shut_down(how)
    }

    /// The handle was dropped.
    pub(crate) fn handle_is_gone(&self) {
        if !self.dismissed.load(Ordering::Relaxed) {
            self.shut_down(self.drop_policy.shutdown());
        }
    }

    fn shut_down(&self, how: Shutdown) -> ShutdownReport {
        let deadline = how.deadline();
        let found = self.unfinished();
        self.close();
        // Before any call is told to stop: the worker that it leaves free must not begin another one.
        self.cancelling.fetch_or(how.cancels_pending(), Ordering::SeqCst);
        self.stopping.fetch_or(how.stops_running(), Ordering::SeqCst);
        self.forget_cancelled_pauses();
        let mut cancelled = 0;
        if how.cancels_pending() {
            cancelled += self.cancel_queued();
            // What was between the queue and a worker is cancelled by that, if it saw the flag. But a callback of such a one, which
            // may be who shuts down, would wait for itself.
            while !self.is_home() && self.is_in_motion() {
                thread::yield_now();
                cancelled += self.cancel_queued();
            }
        }
        if self.gives_up() {
            cancelled += self.give_up_pausing();
        }
        self.sweep();
        if !self.is_home() && !how.is_no_wait() {
            blocking::while_blocked(|| {
                self.wait_for_everybody(deadline);
                self.observers.iter().for_each(|observers| observers.flush(deadline));
            });
        }
        let in_motion = self.cancelled_in_motion.swap(0, Ordering::SeqCst);
        let stale = self.stale.swap(0, Ordering::SeqCst);
        ShutdownReport::new(found.saturating_sub(stale), cancelled + in_motion, self.unfinished())
    }

    /// Cancels what is in the queue. Returns how many of them this cancelled.
    fn cancel_queued(&self) -> usize {
        let mut cancelled = 0;
        for task in iter::from_fn(|| self.queue.pop(None)) {
            self.stale.fetch_add(usize::from(task.is_over()), Ordering::SeqCst);
            cancelled += usize::from(task.cancel());
            self.counters.was_void();
        }
        cancelled
    }

    /// Whether a task is in the queue, or with a worker that has not begun its call.
    fn is_in_motion(&self) -> bool {
        let Load { queued, in_hand, .. } = self.look();
        queued + in_hand > 0
    }

    fn unfinished(&self) -> usize {
        let (queued, busy) = self.load();
        queued + busy + self.pauses.load(Ordering::SeqCst) + self.crew.lock().guests
    }

    fn wait_for_everybody(&self, deadline: Option<Instant>) {
        let mut crew = self.crew.lock();
        while !self.is_over(&crew) {
            if self.pauses.load(Ordering::SeqCst) > 0 {
                // What pauses may be cancelled, and tells nobody.
                self.everybody_left.wait_for(&mut crew, timer::GLANCE);
                drop(crew);
                self.forget_cancelled_pauses();
                if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                    return;
                }
                crew = self.crew.lock();
                continue;
            }
            match deadline {
                None => self.everybody_left.wait(&mut crew),
                Some(deadline) => {
                    if self.everybody_left.wait_until(&mut crew, deadline).timed_out() {
                        return;
                    }
                }
            }
        }
        let handles = std::mem::take(&mut crew.handles);
        drop(crew);
        for handle in handles {
            // They have left already; this waits for the operating system to be done with them.
            let _ = handle.join();
        }
    }
}
