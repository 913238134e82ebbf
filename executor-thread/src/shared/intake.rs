//! Taking tasks in: into the queue, or onto the thread that submits them.

use executor_core::{
    Failure, Priority, Rejected, Task, WhenFull,
    admission::{Admission, Full, Permit},
    blocking,
    stats::Made,
    sync::thread,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::Shared;
use crate::worker;

/// Where a task goes that somebody submits.
enum Admitted {
    ToQueue(Option<Permit>),
    ToRunHere(Permit),
    Not(Failure),
}

fn queue_full(Full { capacity }: Full) -> Admitted {
    Admitted::Not(Failure::QueueFull { capacity })
}

impl Shared {
    #[inline]
    pub(crate) fn execute(self: &Arc<Self>, task: Task) {
        match &self.admission {
            None => self.accept(task), // there is always room
            Some(_) => self.take_in_or_fail(task, self.admit()),
        }
    }

    pub(crate) fn try_execute(self: &Arc<Self>, task: Task, limit: Duration) -> Result<(), Rejected<Task>> {
        self.take_in(task, self.admit_within(limit))
    }

    /// Takes in a scope's call, which is never rejected: where there is no room, this thread makes it.
    pub(crate) fn execute_scoped(self: &Arc<Self>, task: Task) {
        let admitted = match (self.admit(), &self.admission) {
            (Admitted::Not(Failure::QueueFull { .. }), Some(admission)) => Admitted::ToRunHere(admission.force_enter()),
            (admitted, _) => admitted,
        };
        self.take_in_or_fail(task, admitted);
    }

    fn take_in_or_fail(self: &Arc<Self>, task: Task, admitted: Admitted) {
        if let Err(rejected) = self.take_in(task, admitted) {
            let failure = rejected.failure().clone();
            drop(rejected.into_value().fail(failure));
        }
    }

    fn admit(&self) -> Admitted {
        if self.is_closed() {
            return Admitted::Not(self.refusal());
        }
        let Some(admission) = &self.admission else { return Admitted::ToQueue(None) };
        match admission.try_enter() {
            Ok(permit) => Admitted::ToQueue(Some(permit)),
            Err(full) => match admission.when_full() {
                WhenFull::Reject => queue_full(full),
                WhenFull::CallerRuns => Admitted::ToRunHere(admission.force_enter()),
                _ => self.wait_for_room(admission, None),
            },
        }
    }

    fn admit_within(&self, limit: Duration) -> Admitted {
        if self.is_closed() {
            return Admitted::Not(self.refusal());
        }
        let Some(admission) = &self.admission else { return Admitted::ToQueue(None) };
        match admission.try_enter() {
            Ok(permit) => Admitted::ToQueue(Some(permit)),
            Err(full) if limit.is_zero() => queue_full(full),
            Err(_) => self.wait_for_room(admission, Some(limit)),
        }
    }

    fn wait_for_room(&self, admission: &Arc<Admission>, limit: Option<Duration>) -> Admitted {
        if self.is_home() {
            // Room may come only from the calls that this thread makes.
            return Admitted::ToRunHere(admission.force_enter());
        }
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        match blocking::while_blocked(|| admission.enter(deadline, || self.is_closed())) {
            Ok(_) if self.is_closed() => Admitted::Not(self.refusal()),
            Ok(permit) => Admitted::ToQueue(Some(permit)),
            Err(full) => queue_full(full),
        }
    }

    fn take_in(self: &Arc<Self>, task: Task, admitted: Admitted) -> Result<(), Rejected<Task>> {
        match admitted {
            Admitted::ToQueue(permit) => {
                if let Some(permit) = permit {
                    task.hold(permit);
                }
                self.accept(task);
            }
            Admitted::ToRunHere(permit) => {
                task.hold(permit);
                self.run_here(task);
            }
            Admitted::Not(failure) => return Err(Rejected::new(task, failure)),
        }
        Ok(())
    }

    /// Makes a call on the thread that submits it. Too deep on that thread's stack, it goes to the queue after all.
    fn run_here(self: &Arc<Self>, task: Task) {
        self.observe(&task);
        task.belong_to(self.home, self);
        if self.is_home() {
            if let Err(task) = blocking::nested(task, |task| self.make_beside(task)) {
                self.accept(task);
            }
            return;
        }
        // A shutdown waits for it as for a worker.
        let mut crew = self.crew.lock();
        if self.is_closed() {
            drop(crew);
            drop(task.fail(self.refusal()));
            return;
        }
        crew.guests += 1;
        drop(crew);
        let guest = blocking::enter_as_guest(self.home, self.stopping());
        self.make_beside(task);
        drop(guest);
        self.crew.lock().guests -= 1;
        self.tell_if_over();
    }

    /// Makes a call on this thread that was in no queue.
    fn make_beside(&self, task: Task) {
        let seat = self.take_seat(thread::current().name().unwrap_or("a caller"));
        seat.begin(&task);
        self.counters.begin_beside();
        task.run_counted(|made| {
            if made.is_end() {
                seat.end(Made::Nothing);
                self.counters.end_in_place(made);
            }
        });
        self.leave_seat(&seat);
    }

    fn observe(&self, task: &Task) {
        if let Some(observers) = &self.observers {
            task.observe(observers);
        }
    }

    /// Puts a task that was admitted into the queue.
    #[inline]
    fn accept(self: &Arc<Self>, task: Task) {
        if self.is_closed() {
            drop(task.fail(self.refusal()));
            return;
        }
        self.observe(&task);
        let level = task.belong_to(self.home, self);
        self.enqueue(task, level);
        if self.is_closed() {
            self.sweep();
        }
    }

    #[inline]
    pub(super) fn enqueue(self: &Arc<Self>, task: Task, level: Priority) {
        let kept = match level {
            Priority::Normal => worker::keep(self.home, task, || self.queue.may_keep()),
            _ => Err(task),
        };
        let is_kept = kept.is_ok();
        if let Err(task) = kept {
            self.queue.push(task, level);
        }
        // ORDERING: the fence in there is against the one that `worker_blocks` passes there: either this thread sees that a
        // worker blocks, or that worker sees the task.
        // What this worker has kept waits until its call is over, or for another worker.
        if !self.sleep.wake_one_unless(|| !is_kept && self.queue.is_empty()) {
            self.start_thread_if_needed();
        }
    }
}
