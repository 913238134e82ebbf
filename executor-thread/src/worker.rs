//! What each thread of a pool does: find work, run it, sleep.

use executor_core::{
    Task, TaskId,
    blocking::{self, Home, Worker},
    error::Failure,
    panic::catch,
    seat::Seat,
    stats::Made,
    sync::{atomic::AtomicBool, thread},
    worker_call::WorkerCall,
};
use std::{cell::RefCell, panic::Location, process, rc::Rc, sync::Arc};

use crate::{join, queue::Local, shared::Shared, sync::thread_local};

/// The life of one thread. `local` is `None` for a spare, which stands in while another one blocks.
pub(crate) fn run(pool: Arc<Shared>, local: Option<Local>, seat: Arc<Seat>) {
    let _guard = AbortIfPanic;
    let mut local = local.map(Rc::new);
    OWN.set(local.clone().map(|local| Own { home: pool.home(), local }));
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
            if let Some(task) = pool.next_task(local.as_deref(), &seat) {
                seat.begin(&task);
                task.run_counted(|made| pool.task_is_made(&seat, made));
            } else if !join::help(&pool, lister, &seat)
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
    task.run();
    future.result().map_err(|error| error.failure().clone())
}

thread_local! {
    static OWN: RefCell<Option<Own>> = const { RefCell::new(None) };
}

/// What this thread has for itself, as a worker that is no spare.
struct Own {
    home: Home,
    local: Rc<Local>,
}

/// Puts a task into this thread's own queue, if it is a worker of that pool, has one, and `may`.
///
/// # Errors
/// The task, where it is not, or has none, or may not.
#[inline]
pub(crate) fn keep(home: Home, task: Task, may: impl FnOnce() -> bool) -> Result<(), Task> {
    let mut task = Some(task);
    // A thread that is being taken down is no worker any more.
    let _ = OWN.try_with(|own| {
        if let Some(own) = own.borrow().as_ref().filter(|own| own.home == home)
            && may()
        {
            task.take().into_iter().for_each(|task| own.local.push(task));
        }
    });
    task.map_or(Ok(()), Err)
}

/// The worker's own queue is to be another's.
pub(crate) fn give_up(local: Rc<Local>) -> Local {
    OWN.take();
    Rc::into_inner(local).expect("only its worker has it")
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
