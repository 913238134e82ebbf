//! Who this process is, and whose child.

use executor_core::sync::Mutex;
use rustix::process::getppid;
use serde::{Deserialize, Serialize};
use std::{
    env, fmt, process,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::os;

static SELF: Mutex<Option<&'static Identity>> = Mutex::new(None);

struct Identity {
    birth: Birth,
    parent: Option<ParentProcess>,
}

/// What a process is told of itself as it is started.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Birth {
    pub(crate) name: String,
    /// Numbers on the way from the first process to this one, such as `2:1`.
    pub(crate) path: String,
    pub(crate) daemon: bool,
    pub(crate) parent_name: String,
}

impl Birth {
    pub(crate) fn of_worker(name: &str) -> Birth {
        let parent_name = env::var(os::PARENT).unwrap_or_else(|_| MAIN.into());
        Birth { name: name.into(), path: name.into(), daemon: false, parent_name }
    }
}

/// What the first process is called.
const MAIN: &str = "MainProcess";

fn identity() -> &'static Identity {
    SELF.lock().get_or_insert_with(|| {
        let (path, parent_name) = Default::default();
        let birth = Birth { name: MAIN.into(), path, daemon: false, parent_name };
        Box::leak(Box::new(Identity { birth, parent: None }))
    })
}

/// This process, as [`current_process`] gives it.
#[derive(Clone, Copy)]
pub struct CurrentProcess(&'static Identity);

/// This process: its name, and what kind of process it is. Python's `current_process`.
///
/// # Examples
/// ```
/// use concurrent_futures::current_process;
///
/// assert_eq!(current_process().name(), "MainProcess");
/// assert_eq!(current_process().pid(), std::process::id());
/// ```
#[must_use]
pub fn current_process() -> CurrentProcess {
    CurrentProcess(identity())
}

impl CurrentProcess {
    /// The name that it was given, or `MainProcess`. A pool's worker has the name of its thread.
    #[must_use]
    pub fn name(&self) -> &'static str {
        &self.0.birth.name
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        process::id()
    }

    /// Whether it ends with its parent.
    #[must_use]
    pub fn is_daemon(&self) -> bool {
        self.0.birth.daemon
    }
}

impl fmt::Debug for CurrentProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("CurrentProcess");
        shown.field("name", &self.name()).field("pid", &self.pid()).field("is_daemon", &self.is_daemon()).finish()
    }
}

/// The process that started this one.
pub struct ParentProcess {
    pid: u32,
    name: String,
}

/// The process that started this one with a [`Process`](crate::Process) or as a pool's worker; `None` in any other. Python's
/// `parent_process`.
#[must_use]
pub fn parent_process() -> Option<&'static ParentProcess> {
    identity().parent.as_ref()
}

impl ParentProcess {
    /// Its number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its name there.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it has not ended. A process that is no daemon goes on without it.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        // An orphan has another parent at once, which was there before, so that it cannot have come to have the same number.
        getppid().is_some_and(|parent| parent.as_raw_nonzero().get() as u32 == self.pid)
    }
}

impl fmt::Debug for ParentProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("ParentProcess");
        shown.field("pid", &self.pid).field("name", &self.name).field("is_alive", &self.is_alive()).finish()
    }
}

/// This process learns who it is, and that the process `parent` has started it.
pub(crate) fn learn(birth: Birth, parent: u32) {
    let parent = ParentProcess { pid: parent, name: birth.parent_name.clone() };
    // Somebody's constructor may have asked before, or a preload, where workers are forked: what they were told stays.
    *SELF.lock() = Some(Box::leak(Box::new(Identity { birth, parent: Some(parent) })));
}

/// The path of this process's next child.
pub(crate) fn next_path() -> String {
    static CHILDREN: AtomicU64 = AtomicU64::new(1);
    // ORDERING: Relaxed; only uniqueness matters.
    let number = CHILDREN.fetch_add(1, Ordering::Relaxed);
    match identity().birth.path.as_str() {
        "" => number.to_string(),
        path => format!("{path}:{number}"),
    }
}
