//! What each thread of a pool does: find work, run it, sleep.

use executor_core::{
    TaskId,
    blocking::{self, Home, Worker},
    error::Failure,
    panic::catch,
    seat::Seat,
    stats::Made,
    worker_call::WorkerCall,
};
use std::{
    panic::Location,
    process,
    rc::Rc,
    sync::{Arc, atomic::AtomicBool},
    thread,
};

use crate::{join, queue::Local, shared::Shared};

/// The life of one thread. `local` is `None` for a spare, which stands in while another one blocks.
pub(crate) fn run(pool: Arc<Shared>, mut local: Option<Local>, seat: Arc<Seat>) {
    let _guard = AbortIfPanic;
    let observed = pool.observe_thread();
    let entered = blocking::enter(Rc::new(Member(Arc::clone(&pool), Arc::clone(&seat))));
    if let Err(failure) = initialize(&pool) {
        pool.break_down(failure);
    }
    let spare = local.is_none();
    join::as_forker(&pool, |lister| {
        loop {
            if spare && pool.spare_may_leave() {
                break;
            }
            if let Some(task) = pool.next_task(local.as_ref()) {
                seat.begin(&task);
                task.run_counted(|made| pool.task_is_made(&seat, made));
            } else if !join::help(&pool, lister)
                && (pool.may_end() || !pool.sleep(spare) && pool.idle_may_leave(&mut local))
            {
                break;
            }
        }
    });
    // It has left, so nobody counts on it any more. But a shutdown waits for it, unless it is its own.
    drop(entered);
    if let Some(finalizer) = pool.finalizer() {
        let _guest = blocking::enter_as_guest(pool.home(), pool.stopping());
        // Its panic is printed by the hook; nothing is left that it could break.
        let _ = call(finalizer);
    }
    pool.thread_ends(&seat, observed);
}

fn initialize(pool: &Shared) -> Result<(), Failure> {
    pool.initializer().map_or(Ok(()), call)
}

fn call(hook: &WorkerCall) -> Result<(), Failure> {
    let (task, future) = catch(|| hook.task())?;
    task.run(|| ());
    future.result().map_err(|error| error.failure().clone())
}

/// What a wait on this thread needs to know.
struct Member(Arc<Shared>, Arc<Seat>);

impl Worker for Member {
    fn home(&self) -> Home {
        self.0.home()
    }

    fn block(&self) {
        self.0.worker_blocks();
    }

    fn unblock(&self) {
        self.0.worker_is_back();
    }

    fn begin_in_place(&self, task: TaskId, site: &'static Location<'static>) {
        self.0.counters().begin_in_place();
        self.1.begin_in_place(task, site);
    }

    fn end_in_place(&self, made: Made) {
        self.1.end_in_place();
        self.0.counters().end_in_place(made);
    }

    fn stopping(&self) -> Option<Arc<AtomicBool>> {
        Some(self.0.stopping())
    }
}

/// A panic of a task is its outcome. One that gets here is a defect of this crate, and a pool that goes
/// on with a thread less would hang somebody later.
struct AbortIfPanic;

impl Drop for AbortIfPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("concurrent-futures: a worker thread panicked outside of any task; aborting");
            process::abort();
        }
    }
}
