//! The threads: they start one by one. A task that is accepted starts one if more tasks are queued than workers are idle, and fewer than
//! `max_workers` can run. A worker that blocks on another task does not count as one that can run, so a spare thread takes its place; when
//! it is back, a spare leaves as soon as it has finished its task.

use executor_core::{
    BrokenCause, WorkerEnd, WorkerEvent, WorkerEventKind, WorkerInfo, WorkerKind, observe,
    seat::Seat,
    sync::{
        MutexGuard,
        atomic::Ordering,
        thread::{self, JoinHandle},
    },
};
use std::{process, rc::Rc, sync::Arc};

use super::Shared;
use crate::{queue::Local, worker};

/// The threads.
#[derive(Default)]
pub(super) struct Crew {
    pub(super) threads: usize,
    /// Threads that make no more calls, and are not yet at their end.
    pub(super) leaving: usize,
    /// Threads of others that make a call for which there was no room.
    pub(super) guests: usize,
    pub(super) started: usize,
    pub(super) handles: Vec<JoinHandle<()>>,
}

impl Shared {
    pub(super) fn take_seat(&self, worker: impl Into<String>) -> Arc<Seat> {
        let seat = Arc::new(Seat::new(worker));
        self.seats.lock().push(Arc::clone(&seat));
        seat
    }

    pub(super) fn leave_seat(&self, seat: &Arc<Seat>) {
        let mut seats = self.seats.lock();
        seats.retain(|taken| !Arc::ptr_eq(taken, seat));
        seat.leave_to(&self.counters);
    }

    /// This thread, a worker, begins. If somebody observes it: who it is.
    pub(crate) fn observe_thread(&self) -> Option<Arc<WorkerInfo>> {
        let observers = self.observers.as_ref()?;
        let thread = thread::current();
        let name = thread.name().unwrap_or_default();
        let info = Arc::new(WorkerInfo::new(observers.pool(), name, process::id(), WorkerKind::PoolThread));
        observe::be_worker(&info);
        observers.worker(WorkerEvent::now(&info, WorkerEventKind::Started));
        Some(info)
    }

    #[inline]
    pub(super) fn start_thread_if_needed(self: &Arc<Self>) {
        // ORDERING: SeqCst, see `accept` and `worker_blocks`.
        if self.active.load(Ordering::SeqCst) < self.max_workers.get() {
            self.start_thread_for(0);
        }
    }

    /// Starts a thread if more calls wait than threads are idle: those in the queue, and so many others. Returns whether it did.
    pub(super) fn start_thread_for(self: &Arc<Self>, others: usize) -> bool {
        let mut crew = self.crew.lock();
        let (queued, busy) = self.load();
        let idle = crew.threads.saturating_sub(busy);
        let full = self.active.load(Ordering::SeqCst) >= self.max_workers.get();
        let nobody_left = self.may_close() && crew.threads == 0;
        if full || nobody_left || queued + others <= idle {
            return false;
        }
        let pool = Arc::clone(self);
        let local = self.queue.claim_local();
        let name = format!("{}-{}", self.name_prefix, crew.started);
        let seat = self.take_seat(&*name);
        let mut builder = thread::Builder::new().name(name);
        if let Some(bytes) = self.stack_size_bytes {
            builder = builder.stack_size(bytes);
        }
        // Counted before it runs: it must not find itself missing when it leaves.
        crew.threads += 1;
        self.active.fetch_add(1, Ordering::SeqCst);
        let taken = Arc::clone(&seat);
        match builder.spawn(move || worker::run(pool, local, taken)) {
            Ok(handle) => {
                crew.started += 1;
                crew.handles.retain(|handle| !handle.is_finished());
                crew.handles.push(handle);
                true
            }
            Err(error) => {
                self.leave_seat(&seat);
                crew.threads -= 1;
                self.active.fetch_sub(1, Ordering::SeqCst);
                // With other threads the pool goes on, slower; without any it cannot.
                if crew.threads == 0 {
                    drop(crew);
                    self.break_with(BrokenCause::Spawn(error.to_string()));
                }
                false
            }
        }
    }

    /// This thread, a worker, is about to block on a task that runs elsewhere.
    pub(crate) fn worker_blocks(self: &Arc<Self>) {
        // ORDERING: SeqCst, see `accept`.
        self.active.fetch_sub(1, Ordering::SeqCst);
        if !self.sleep.wake_one() {
            self.start_thread_if_needed();
        }
    }

    pub(crate) fn worker_is_back(&self) {
        let active = self.active.fetch_add(1, Ordering::SeqCst) + 1;
        if active > self.max_workers.get() {
            self.sleep.wake_all(); // a spare among the sleepers is to leave
        }
    }

    pub(super) fn has_surplus(&self) -> bool {
        self.active.load(Ordering::SeqCst) > self.max_workers.get()
    }

    /// Whether this thread, a spare, is to end because the workers for which it stood in are back.
    pub(crate) fn spare_may_leave(self: &Arc<Self>) -> bool {
        if !self.has_surplus() {
            return false;
        }
        let crew = self.crew.lock();
        if !self.has_surplus() {
            return false; // another one has left
        }
        self.leave_to_others(crew);
        true
    }

    /// Whether this thread is to end because it has been idle for too long. Its local queue is then given back.
    pub(crate) fn idle_may_leave(self: &Arc<Self>, local: &mut Option<Rc<Local>>) -> bool {
        let crew = self.crew.lock();
        if self.is_closed() || !self.queue.is_empty() {
            return false;
        }
        if let Some(local) = local.take() {
            self.queue.give_back_local(worker::give_up(local));
        }
        self.leave_to_others(crew);
        true
    }

    fn leave_to_others(self: &Arc<Self>, crew: MutexGuard<'_, Crew>) {
        self.leave(crew);
        // It may have been woken for a task that it now does not run, and others may have counted on it.
        if !self.queue.is_empty() && !self.sleep.wake_one() {
            self.start_thread_if_needed();
        }
    }

    /// Whether this thread is to end because the pool is closed and nothing is left to do.
    pub(crate) fn may_end(&self) -> bool {
        if !self.may_close() {
            return false;
        }
        let crew = self.crew.lock();
        if !self.queue.is_empty() || !self.may_close() {
            return false;
        }
        self.leave(crew);
        true
    }

    fn leave(&self, mut crew: MutexGuard<'_, Crew>) {
        crew.threads -= 1;
        crew.leaving += 1;
        self.active.fetch_sub(1, Ordering::SeqCst);
        let last = crew.threads == 0;
        drop(crew);
        if last && self.is_closed() {
            self.sweep();
        }
    }

    /// A thread that has left is at its end.
    pub(crate) fn thread_ends(&self, seat: &Arc<Seat>, observed: Option<Arc<WorkerInfo>>) {
        self.leave_seat(seat);
        if let Some((observers, worker)) = self.observers.as_ref().zip(observed) {
            observers.worker(WorkerEvent::now(&worker, WorkerEventKind::Ended(WorkerEnd::Left)));
        }
        self.crew.lock().leaving -= 1;
        self.tell_if_over();
    }
}
