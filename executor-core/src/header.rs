//! What a task's cell has that needs no lock: who it is, and, for the few tasks that have any, what was chosen for it and who is told
//! of it.

use once_cell::{race::OnceBox, sync::OnceCell};
use std::{
    fmt, mem,
    panic::Location,
    sync::{Arc, Weak, atomic::AtomicU64},
    time::Instant,
};

use crate::{
    blocking::Home,
    error::TaskId,
    observe::{self, Buffer, TaskEvent, TaskEventKind, WorkerInfo},
    options::TaskOptions,
    retry::Tried,
    stage::Stage,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    task::Retries,
};

/// What never changes, or matters to nobody's safety.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) id: TaskId,
    pub(crate) site: &'static Location<'static>,
    /// The pool whose workers may run it in place; 0 for none.
    pub(crate) home: AtomicU32,
    pub(crate) stage: Stage,
    /// What most tasks have not got.
    pub(crate) extras: OnceBox<Extras>,
}

/// What was chosen for one task, and what came of it.
pub(crate) struct Extras {
    pub(crate) options: Arc<TaskOptions>,
    /// Where it goes for another attempt, in this process.
    pub(crate) retries: OnceCell<Weak<dyn Retries>>,
    pub(crate) attempts: AtomicU32,
    pub(crate) tried: Mutex<Tried>,
    observed: OnceCell<Observed>,
}

/// Who is told of one task.
pub(crate) struct Observed {
    buffer: Arc<Buffer>,
    function: observe::Function,
    elsewhere: Mutex<Elsewhere>,
}

/// What is known of a call in another process.
#[derive(Default)]
struct Elsewhere {
    began: bool,
    ended: Option<Instant>,
}

impl Extras {
    fn new(options: &Arc<TaskOptions>) -> Box<Extras> {
        Box::new(Extras {
            options: Arc::clone(options),
            retries: OnceCell::new(),
            attempts: AtomicU32::new(0),
            tried: Mutex::default(),
            observed: OnceCell::new(),
        })
    }
}

impl fmt::Debug for Extras {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extras").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Header {
    /// Of the next task, which was submitted at `site`.
    #[inline]
    pub(crate) fn new(site: &'static Location<'static>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Header {
            // ORDERING: Relaxed; only uniqueness matters, and one thread's own order.
            id: TaskId(NEXT.fetch_add(1, Ordering::Relaxed)),
            site,
            home: AtomicU32::new(0),
            stage: Stage::new(),
            extras: OnceBox::new(),
        }
    }

    #[inline]
    pub(crate) fn set_home(&self, home: Home) {
        // ORDERING: Relaxed; the queue through which the task then passes orders it.
        self.home.store(home.number(), Ordering::Relaxed);
    }

    /// The first choice is the nearest to the call, and holds.
    pub(crate) fn choose(&self, options: &Arc<TaskOptions>) {
        let _ = self.extras.set(Extras::new(options));
    }

    pub(crate) fn observe(&self, buffer: &Arc<Buffer>, function: observe::Function) {
        static NO_OPTIONS: OnceCell<Arc<TaskOptions>> = OnceCell::new();
        let extras = self.extras.get_or_init(|| Extras::new(NO_OPTIONS.get_or_init(Arc::default)));
        let observed = Observed { buffer: Arc::clone(buffer), function, elsewhere: Mutex::default() };
        // A task that comes back, for another attempt or from a queue that was full, is known already.
        if let Ok(observed) = extras.observed.try_insert(observed) {
            self.tell_at(Instant::now(), observed, TaskEventKind::Submitted);
        }
    }

    pub(crate) fn observed(&self) -> Option<&Observed> {
        self.extras.get()?.observed.get()
    }

    /// The call begins on this thread.
    pub(crate) fn tell_start(&self) {
        if let Some(observed) = self.observed() {
            let worker = observe::this_worker(&observed.buffer.pool);
            self.tell_at(Instant::now(), observed, TaskEventKind::Started { worker });
        }
    }

    fn tell_at(&self, at: Instant, observed: &Observed, kind: TaskEventKind) {
        let Observed { buffer, function, .. } = observed;
        buffer.task(TaskEvent {
            at,
            pool: Arc::clone(&buffer.pool),
            task: self.id,
            submitted_at: self.site,
            function: *function,
            kind,
        });
    }

    /// Tells of the end of an attempt, which may have been elsewhere.
    pub(crate) fn tell_end(&self, kind: impl FnOnce() -> TaskEventKind) {
        if let Some(observed) = self.observed() {
            let elsewhere = mem::take(&mut *observed.elsewhere.lock());
            self.tell_at(elsewhere.ended.unwrap_or_else(Instant::now), observed, kind());
        }
    }

    /// A call began in another process, and perhaps ended there.
    pub(crate) fn ran(&self, worker: &Arc<WorkerInfo>, began: Instant, ended: Option<Instant>) {
        let Some(observed) = self.observed() else { return };
        let is_known = {
            let mut elsewhere = observed.elsewhere.lock();
            elsewhere.ended = ended.or(elsewhere.ended);
            mem::replace(&mut elsewhere.began, true)
        };
        if !is_known {
            self.tell_at(began, observed, TaskEventKind::Started { worker: Arc::clone(worker) });
        }
    }

    pub(crate) fn begins_unobserved(&self) -> bool {
        self.observed().is_some_and(|observed| !observed.elsewhere.lock().began)
    }

    /// Where the task goes for another attempt.
    pub(crate) fn set_retries(&self, retries: Weak<dyn Retries>) {
        if let Some(extras) = self.extras.get() {
            let _ = extras.retries.set(retries); // the same pool, at a later attempt
        }
    }

    #[inline]
    pub(crate) fn options(&self) -> Option<&TaskOptions> {
        self.extras.get().map(|extras| &*extras.options)
    }

    /// Under the cell's lock.
    pub(crate) fn count_attempt(&self) {
        if let Some(extras) = self.extras.get() {
            // ORDERING: Relaxed; see `attempts`.
            extras.attempts.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often the call was begun, as far as was counted: at least once for a call that ended by itself.
    pub(crate) fn attempts(&self) -> u32 {
        // ORDERING: Relaxed; it is told only, and counts the teller's own attempt or earlier ones.
        self.extras.get().map_or(1, |extras| extras.attempts.load(Ordering::Relaxed).max(1))
    }
}
