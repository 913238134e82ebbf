//! A submitted call as a backend sees it, without its types: to be run here, or packed, sent and
//! completed with the bytes that come back.
//!
//! Either handle owns the duty to end the task. Dropping one without having done so ends it as
//! broken, so that nobody waits for ever.

use std::{
    any::Any,
    fmt,
    panic::Location,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use crate::{
    admission::Permit,
    attachments::Encoded,
    blocking::Home,
    call::Call,
    cell::{self, Announcement, Lease},
    error::{BrokenCause, Failure, TaskId},
    future::Future,
    handle::Handle,
    levels::Priority,
    observe::{Observers, WorkerInfo},
    options::TaskOptions,
    stats::Made,
    work::{Closure, Work},
};

/// A call to be made in this process, or packed for another.
pub struct Task(Duty<false>);

/// A call in the form in which it travels.
pub struct Parcel {
    handle: Duty<true>,
    call: Call,
    luggage: Option<Luggage>,
}

/// What a pool keeps with a task until its end. It must be droppable anywhere: it may run no user code as it is dropped.
pub type Luggage = Arc<dyn Any + Send + Sync>;

/// A pool in this process, to which a task goes back whose call is to be made again.
pub trait Retries: Send + Sync {
    /// Takes the task in again, also when the pool is closed, and runs it after the pause.
    fn retry(self: Arc<Self>, task: Task, pause: Duration);
}

/// What came of an attempt in another process.
#[derive(Debug)]
#[must_use = "another attempt may be due"]
pub enum Ended {
    /// The task has its outcome.
    Over(Option<Announcement>),
    /// The same is to be sent once more, after a pause.
    Again(Parcel, Duration),
}

/// The duty to end a task. One that `TRAVELS` ends it also when it runs: elsewhere, with a worker that is gone. One that
/// does not may have been left behind by a worker that made the call in place, and then has no say any more.
struct Duty<const TRAVELS: bool>(Option<Handle>);

impl Task {
    pub(crate) fn new<W: Work>(work: W, site: &'static Location<'static>) -> (Task, Future<W::Output>) {
        let (runnable, reader) = cell::new(work, site);
        (Task(Duty(Some(runnable))), Future::new(reader))
    }

    /// A task that makes `call`, which stays in this process: a backend that cannot run tasks here
    /// fails it.
    #[track_caller]
    pub fn local<F, R>(call: F) -> (Task, Future<R>)
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        Task::local_at(call, Location::caller())
    }

    /// As [`local`](Self::local), submitted at `site`.
    pub fn local_at<F, R>(call: F, site: &'static Location<'static>) -> (Task, Future<R>)
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        Task::new(Closure::new(call), site)
    }

    /// Which task this is.
    #[must_use]
    pub fn id(&self) -> TaskId {
        self.0.get().header().id
    }

    /// Its number, and the line that made it.
    pub(crate) fn identity(&self) -> (TaskId, &'static Location<'static>) {
        let header = self.0.get().header();
        (header.id, header.site)
    }

    /// Has the pool's observers told of what becomes of the task, beginning with its submission.
    pub fn observe(&self, observers: &Observers) {
        self.0.get().observe(observers.buffer());
    }

    pub(crate) fn again(runnable: Handle) -> Task {
        Task(Duty(Some(runnable)))
    }

    pub(crate) fn choose(&self, options: &Arc<TaskOptions>) {
        self.0.get().header().choose(options);
    }

    /// Takes back what was to be done. `None`: it is of another type, or the task has begun or ended.
    pub(crate) fn reclaim<W: Work>(self) -> Option<W> {
        self.0.get().reclaim()?.downcast().ok().map(|work| *work)
    }

    /// When it is to begin, of several that wait.
    #[must_use]
    pub fn priority(&self) -> Priority {
        self.0.get().header().options().map_or(Priority::Normal, TaskOptions::chosen_priority)
    }

    /// Says to which pool in this process it belongs: workers of the pool `home` may run it in place when they wait for
    /// it, and `pool` is where it goes for another attempt. Returns its [priority](Self::priority).
    #[inline]
    pub fn belong_to<P: Retries + 'static>(&self, home: Home, pool: &Arc<P>) -> Priority {
        let header = self.0.get().header();
        header.set_home(home);
        let Some(options) = header.options() else { return Priority::Normal };
        let pool: Weak<P> = Arc::downgrade(pool);
        header.set_retries(pool);
        options.chosen_priority()
    }

    /// Makes the call on this thread, unless it was cancelled or has begun. Its panic becomes its outcome, and its callbacks run here.
    pub fn run(self) {
        self.run_counted(|_| ());
    }

    /// As [`run`](Self::run), for a pool that counts. `over` is told what became of the call when its callbacks have run, before any wait
    /// for the outcome ends, or at once if there was nothing to do. It must not block, nor touch the task.
    #[inline]
    pub fn run_counted(mut self, mut over: impl FnMut(Made)) {
        let handle = self.0.release();
        handle.run(&mut over);
        handle.drop_quietly(); // the last one drops the outcome, which is the user's
    }

    /// Encodes the call for another process. The arguments are dropped here.
    ///
    /// # Errors
    /// The task has ended: it was cancelled, or its arguments could not be encoded. Callbacks may be
    /// due.
    pub fn pack(mut self) -> Result<Parcel, Option<Announcement>> {
        let runnable = self.0.release();
        let call = runnable.pack()?;
        Ok(Parcel { handle: Duty(Some(runnable)), call, luggage: None })
    }

    /// Ends the task without a value, unless its call is being made.
    pub fn fail(mut self, failure: Failure) -> Option<Announcement> {
        self.0.release().fail_unless_begun(failure)
    }

    /// Has the task keep its place in its pool until it ends.
    pub fn hold(&self, permit: Permit) {
        self.0.get().hold(permit);
    }

    /// The pause before another attempt is over: the task may be run.
    pub fn resume(&self) {
        self.0.get().resume();
    }

    /// Whether the task has its outcome already: it was cancelled, or made in place.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.get().is_over()
    }

    /// Whether there is nothing left to do for whoever takes it from a queue: it was cancelled, or is made in place.
    #[must_use]
    pub fn is_void(&self) -> bool {
        self.0.get().is_void()
    }

    /// Cancels the task if it has not begun. Returns whether it was this that cancelled it.
    pub fn cancel(mut self) -> bool {
        self.0.release().cancel()
    }
}

impl Parcel {
    /// Which task this is.
    #[must_use]
    pub fn id(&self) -> TaskId {
        self.handle.get().header().id
    }

    /// When it is to begin, of several that wait.
    #[must_use]
    pub fn priority(&self) -> Priority {
        self.handle.get().header().options().map_or(Priority::Normal, TaskOptions::chosen_priority)
    }

    /// How long the call may take, counted from its beginning.
    #[must_use]
    pub fn time_limit(&self) -> Option<Duration> {
        self.handle.get().header().options().and_then(TaskOptions::chosen_time_limit)
    }

    /// The line of the `submit` or `map` that made the task.
    #[must_use]
    pub fn submitted_at(&self) -> &'static Location<'static> {
        self.handle.get().header().site
    }

    /// Tells observers, if there are any, that the call began, and perhaps that it ended, in another process. What they are
    /// told next of the task was then at its end.
    pub fn ran(&self, worker: &Arc<WorkerInfo>, began: Instant, ended: Option<Instant>) {
        self.handle.get().header().ran(worker, began, ended);
    }

    /// Whether anybody observes it, and does not know yet that its call began.
    #[must_use]
    pub fn begins_unobserved(&self) -> bool {
        self.handle.get().header().begins_unobserved()
    }

    /// Keeps something with the task.
    pub fn set_luggage(&mut self, luggage: Luggage) {
        self.luggage = Some(luggage);
    }

    /// What is kept with it.
    #[must_use]
    pub fn luggage(&self) -> Option<&Luggage> {
        self.luggage.as_ref()
    }

    /// What is to be sent.
    #[must_use]
    pub fn call(&self) -> &Call {
        &self.call
    }

    /// Notes that the task now lies in a channel. `false`: it was cancelled, and must not be sent.
    #[must_use]
    pub fn dispatch(&self, lease: Lease) -> bool {
        self.handle.get().dispatch(lease)
    }

    /// Notes that the task was taken back from its channel, not begun. `false`: it was cancelled.
    #[must_use]
    pub fn recall(&self) -> bool {
        self.handle.get().recall()
    }

    /// Whether the task has its outcome already: it was cancelled.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.handle.get().is_over()
    }

    /// Ends the task with the reply that [`answer`](crate::portable::answer) made. It is decoded by
    /// whoever wants the result.
    pub fn complete(self, reply: Encoded) -> Ended {
        let outcome = self.handle.get().complete(reply);
        self.ended(outcome)
    }

    /// Ends the task without a value.
    pub fn fail(self, failure: Failure) -> Ended {
        let outcome = self.handle.get().fail_attempt(failure);
        self.ended(outcome)
    }

    fn ended(mut self, outcome: Result<Option<Announcement>, Duration>) -> Ended {
        match outcome {
            Ok(announcement) => {
                self.handle.release();
                Ended::Over(announcement)
            }
            Err(pause) => Ended::Again(self, pause),
        }
    }

    /// As [`cancel`](Self::cancel), for a thread that must not run callbacks.
    pub fn call_off(mut self) -> Option<Announcement> {
        self.handle.release().call_off()
    }

    /// Cancels the task if it has not begun. Returns whether it was this that cancelled it.
    pub fn cancel(mut self) -> bool {
        self.handle.release().cancel()
    }
}

impl<const TRAVELS: bool> Duty<TRAVELS> {
    #[inline]
    fn get(&self) -> &Handle {
        self.0.as_ref().expect("only methods that take the handle by value release it")
    }

    #[inline]
    fn release(&mut self) -> Handle {
        self.0.take().expect("only methods that take the handle by value release it")
    }
}

impl<const TRAVELS: bool> Drop for Duty<TRAVELS> {
    #[inline]
    fn drop(&mut self) {
        let Some(runnable) = self.0.take() else { return };
        let abandoned = Failure::Broken(BrokenCause::Abandoned);
        drop(if TRAVELS { runnable.fail(abandoned) } else { runnable.fail_unless_begun(abandoned) });
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Task({})", self.id())
    }
}

impl fmt::Debug for Parcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parcel({})", self.id())
    }
}
