//! What each thread of a pool does: find work, run it, sleep.

use executor_core::{
    blocking::{self, Home, Worker},
    error::Failure,
    panic::catch,
};
use std::{process, rc::Rc, sync::Arc, thread};

use crate::{pool::Shared, queue::Local};

/// The life of one thread. `local` is `None` for a spare, which stands in while another one blocks.
pub(crate) fn run(pool: Arc<Shared>, local: Option<Local>) {
    let _guard = AbortIfPanic;
    let _entered = blocking::enter(Rc::new(Member(Arc::clone(&pool))));
    if let Err(failure) = initialize(&pool) {
        pool.break_down(failure);
    }
    let spare = local.is_none();
    loop {
        if spare && pool.spare_may_leave() {
            return;
        }
        if let Some(task) = pool.next_task(local.as_ref()) {
            task.run(|| pool.task_is_over());
        } else if pool.may_end() {
            return;
        } else {
            pool.sleep(spare);
        }
    }
}

fn initialize(pool: &Shared) -> Result<(), Failure> {
    let Some(initializer) = pool.initializer() else { return Ok(()) };
    let (task, future) = catch(|| initializer.task())?;
    task.run(|| ());
    future.result().map_err(|error| error.failure().clone())
}

/// What a wait on this thread needs to know.
struct Member(Arc<Shared>);

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
