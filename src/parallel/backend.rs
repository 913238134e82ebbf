//! Where calls are made: by name, by hint, by constraint, and by how deep this call is within others.
//!
//! | this call is made | unless told, its calls are made |
//! |---|---|
//! | by the program itself | in processes (without the feature `process`: on threads) |
//! | in a call of these, or of any pool | on threads |
//! | in a call of those | on its own thread |

use executor_core::{
    BuildError, DropPolicy, Executor, blocking,
    cpu::{cpu_count, effective_n_jobs},
    sync::Mutex,
};
#[cfg(feature = "process")]
use executor_process::{ProcessPoolExecutor, worker};
use executor_thread::ThreadPoolExecutor;
use std::{cell::Cell, collections::BTreeMap, env, fmt, num::NonZeroUsize, sync::Arc};

use super::{Choices, error::ParallelError};
use crate::sequential::SequentialExecutor;

/// How deep parallel calls may be nested, each in a call of the one above. One that makes itself again would otherwise fill
/// the machine.
const MAX_LEVEL: u32 = 10;

/// How long the processes of the shared pool wait for another parallel call.
#[cfg(feature = "process")]
const IDLE: std::time::Duration = std::time::Duration::from_secs(300);

/// Where a [`Parallel`](super::Parallel)'s calls are made.
///
/// By name: `"sequential"`, `"threading"`, `"process"`, which may also be called `"loky"`, and what was
/// [registered](register_parallel_backend).
///
/// # Examples
/// ```
/// use concurrent_futures::{ProcessPoolExecutor, parallel::{Backend, Parallel, delayed}};
/// use std::sync::Arc;
///
/// // One worker of its own, for calls that may crash: with `n_jobs(1)` it would be this very thread.
/// let isolated = Parallel::new().backend(Arc::new(ProcessPoolExecutor::new(1)?));
/// let outcomes = isolated.outcomes([0, 3].map(|code| delayed(|code| if code > 0 { std::process::exit(code) })(code)))?;
/// assert!(outcomes[1].as_ref().unwrap_err().is_worker_lost());
///
/// let here = Parallel::new().n_jobs(4).backend(Backend::Sequential);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub enum Backend {
    /// One after the other, in the calling thread.
    Sequential,
    /// On threads of this process.
    Threading,
    /// In worker processes: those of the pool that the whole program
    /// [shares](crate::ProcessPoolExecutorBuilder::build_shared). The part of joblib's `loky`. An error without the feature
    /// `process`.
    Processes,
    /// On this executor, whatever it is. It has as many workers as it has, whatever `n_jobs` says.
    Custom(
        /// The executor.
        Arc<dyn Executor>,
    ),
    /// On an executor that is made for it.
    Registered(
        /// By which name and how.
        Registered,
    ),
}

/// A backend that was [registered](register_parallel_backend).
#[derive(Clone)]
pub struct Registered {
    name: String,
    make: Make,
}

type Make = Arc<dyn Fn(NonZeroUsize) -> Result<Arc<dyn Executor>, BuildError> + Send + Sync>;

static REGISTERED: Mutex<BTreeMap<String, Make>> = Mutex::new(BTreeMap::new());

/// Gives a backend a name, by which [`Parallel::backend`](super::Parallel::backend) finds it. `make` is asked for an
/// executor with so many workers. One that had the name before is replaced; the names of the three that are always
/// there are taken.
///
/// # Examples
/// ```
/// use concurrent_futures::{ThreadPoolExecutor, parallel::{Parallel, delayed, register_parallel_backend}};
/// use std::sync::Arc;
///
/// register_parallel_backend("big-stacks", |n_jobs| {
///     let builder = ThreadPoolExecutor::builder().max_workers(n_jobs.get()).stack_size_bytes(64 << 20);
///     Ok(Arc::new(builder.build()?))
/// });
/// let roots = Parallel::new().n_jobs(2).backend("big-stacks").run((0..3).map(|x| delayed(f64::sqrt)(f64::from(x))))?;
/// assert_eq!(roots[..2], [0.0, 1.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn register_parallel_backend(
    name: impl Into<String>,
    make: impl Fn(NonZeroUsize) -> Result<Arc<dyn Executor>, BuildError> + Send + Sync + 'static,
) {
    let replaced = REGISTERED.lock().insert(name.into(), Arc::new(make));
    drop(replaced); // not under the lock: it is user code
}

impl TryFrom<&str> for Backend {
    type Error = ParallelError;

    fn try_from(name: &str) -> Result<Self, ParallelError> {
        match name {
            "sequential" => return Ok(Backend::Sequential),
            "threading" | "threads" => return Ok(Backend::Threading),
            "process" | "processes" | "loky" | "multiprocessing" => return Ok(Backend::Processes),
            _ => {}
        }
        let registered = REGISTERED.lock();
        match registered.get(name) {
            Some(make) => Ok(Backend::Registered(Registered { name: name.to_owned(), make: Arc::clone(make) })),
            None => {
                let known = ["sequential", "threading", "process"].map(str::to_owned);
                let known = known.into_iter().chain(registered.keys().cloned()).collect();
                Err(ParallelError::UnknownBackend { name: name.to_owned(), known })
            }
        }
    }
}

impl<E: Executor + 'static> From<Arc<E>> for Backend {
    fn from(executor: Arc<E>) -> Self {
        Backend::Custom(executor)
    }
}

impl From<Arc<dyn Executor>> for Backend {
    fn from(executor: Arc<dyn Executor>) -> Self {
        Backend::Custom(executor)
    }
}

impl Backend {
    fn name(&self) -> &str {
        match self {
            Backend::Sequential => "sequential",
            Backend::Threading => "threading",
            Backend::Processes => "process",
            Backend::Custom(_) => "of a given executor",
            Backend::Registered(registered) => &registered.name,
        }
    }

    fn shares_memory(&self) -> bool {
        matches!(self, Backend::Sequential | Backend::Threading)
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Backend({})", self.name())
    }
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registered").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What kind of workers would be good for some calls, where nobody says what they have to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefer {
    /// Threads: the calls wait, or are many and short.
    Threads,
    /// Processes: the calls may crash, leak or hang.
    Processes,
}

/// Where this thread is: in how many parallel calls, and how many processors each of these may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    level: u32,
    share: NonZeroUsize,
}

thread_local! {
    /// `None` on a thread that no parallel call has started.
    static PLACE: Cell<Option<Place>> = const { Cell::new(None) };
}

fn place() -> Place {
    #[cfg(feature = "process")]
    let above = worker::depth();
    #[cfg(not(feature = "process"))]
    let above = 0;
    PLACE.get().unwrap_or_else(|| {
        let in_some_pool = u32::from(blocking::current_home().is_some());
        Place { level: above + in_some_pool, share: if above > 0 { share_of_worker() } else { cpu_count() } }
    })
}

/// As many processors as libraries in this worker process are told to have threads.
fn share_of_worker() -> NonZeroUsize {
    let told = env::var("RAYON_NUM_THREADS").ok().and_then(|told| told.parse().ok());
    told.unwrap_or(cpu_count()).min(cpu_count())
}

/// What choices come to, here and now.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) backend: Backend,
    pub(super) n_jobs: NonZeroUsize,
    /// A constraint was stronger than what was chosen around.
    pub(super) overrides: Option<Backend>,
    place: Place,
    #[cfg_attr(not(feature = "process"), expect(dead_code, reason = "it is told to worker processes"))]
    inner_threads: Option<usize>,
}

impl Plan {
    /// `own` are the choices of the call itself, `all` also those around it.
    pub(super) fn of(own: &Choices, all: &Choices) -> Result<Plan, ParallelError> {
        if let Some(wrong) = &all.wrong {
            return Err(wrong.clone());
        }
        let place = place();
        let mut overrides = None;
        let by_level = || match (place.level, all.prefer) {
            (0, Some(Prefer::Threads)) => Backend::Threading,
            (0, _) if cfg!(feature = "process") => Backend::Processes,
            (0, _) => Backend::Threading,
            (1, _) => Backend::Threading,
            _ => Backend::Sequential,
        };
        let mut backend = all.backend.clone().unwrap_or_else(by_level);
        if all.sharedmem {
            if own.backend.as_ref().is_some_and(|backend| !backend.shares_memory()) {
                return Err(ParallelError::Conflict(
                    "shared memory is required, which only the backends \"threading\" and \"sequential\" have",
                ));
            }
            if own.prefer == Some(Prefer::Processes) {
                return Err(ParallelError::Conflict("shared memory is required, and processes are preferred"));
            }
            if !backend.shares_memory() {
                overrides = all.backend.is_some().then_some(backend);
                backend = Backend::Threading;
            }
        }
        let n_jobs = workers(all.n_jobs.unwrap_or(1), place.share)?;
        let n_jobs = match &backend {
            Backend::Custom(executor) => executor.max_workers(),
            _ => n_jobs,
        };
        if matches!(backend, Backend::Threading | Backend::Processes) && n_jobs == NonZeroUsize::MIN {
            backend = Backend::Sequential;
        }
        if place.level >= MAX_LEVEL && !matches!(backend, Backend::Sequential) {
            return Err(BuildError::Nested { depth: place.level, limit: MAX_LEVEL }.into());
        }
        let n_jobs = if matches!(backend, Backend::Sequential) { NonZeroUsize::MIN } else { n_jobs };
        Ok(Plan { backend, n_jobs, overrides, place, inner_threads: all.inner_threads })
    }

    pub(super) fn name(&self) -> &str {
        self.backend.name()
    }

    pub(super) fn is_sequential(&self) -> bool {
        matches!(self.backend, Backend::Sequential)
    }

    /// Its workers are threads of a parallel call's own.
    pub(super) fn is_threading(&self) -> bool {
        matches!(self.backend, Backend::Threading)
    }

    /// Threads that know where they are.
    pub(super) fn threads(&self) -> Result<ThreadPoolExecutor, BuildError> {
        let share = NonZeroUsize::new(self.place.share.get() / self.n_jobs).unwrap_or(NonZeroUsize::MIN);
        ThreadPoolExecutor::builder()
            .max_workers(self.n_jobs.get())
            .thread_name_prefix("parallel")
            .initializer(|(level, share)| PLACE.set(Some(Place { level, share })), (self.place.level + 1, share))
            // Whoever gives up a call does not wait for it.
            .drop_policy(DropPolicy::Detach)
            .build()
    }

    #[cfg(feature = "process")]
    fn processes(&self) -> Result<Arc<dyn Executor>, BuildError> {
        let mut builder = ProcessPoolExecutor::builder().max_workers(self.n_jobs.get()).idle_timeout(IDLE);
        if let Some(threads) = self.inner_threads {
            builder = builder.inner_max_num_threads(threads);
        }
        Ok(builder.build_shared()?)
    }

    #[cfg(not(feature = "process"))]
    fn processes(&self) -> Result<Arc<dyn Executor>, BuildError> {
        let why = "this program was built without the feature `process` of `concurrent-futures`";
        Err(BuildError::Unsupported(why.into()))
    }

    /// The executor, and whether it is worth keeping.
    pub(super) fn executor(&self) -> Result<(Arc<dyn Executor>, Keep), BuildError> {
        Ok(match &self.backend {
            Backend::Sequential => (Arc::new(SequentialExecutor::new()), Keep::No),
            Backend::Threading => (Arc::new(self.threads()?), Keep::Yes),
            // It is kept where it is, and may have become another one since.
            Backend::Processes => (self.processes()?, Keep::No),
            Backend::Custom(executor) => (Arc::clone(executor), Keep::No),
            Backend::Registered(registered) => ((registered.make)(self.n_jobs)?, Keep::Yes),
        })
    }

    /// Whether an executor that was made for `other` serves this.
    pub(super) fn is_like(&self, other: &Plan) -> bool {
        let is_same = match (&self.backend, &other.backend) {
            (Backend::Threading, Backend::Threading) => true,
            (Backend::Registered(this), Backend::Registered(other)) => Arc::ptr_eq(&this.make, &other.make),
            _ => false,
        };
        is_same && self.n_jobs == other.n_jobs && self.place == other.place
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    Yes,
    No,
}

/// As [`effective_n_jobs`], where there are so many processors to share out.
fn workers(n_jobs: i64, processors: NonZeroUsize) -> Result<NonZeroUsize, BuildError> {
    if n_jobs >= 0 {
        return effective_n_jobs(n_jobs);
    }
    let spared = usize::try_from(n_jobs.unsigned_abs() - 1).unwrap_or(usize::MAX);
    Ok(NonZeroUsize::new(processors.get().saturating_sub(spared)).unwrap_or(NonZeroUsize::MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// JOB-01: negative counts, of what there is to share out here.
    #[test]
    fn n_jobs_counts_from_the_end() {
        let of_four = |n_jobs| workers(n_jobs, NonZeroUsize::new(4).unwrap()).map(NonZeroUsize::get);
        for (n_jobs, expected) in [(1, 1), (9, 9), (-1, 4), (-2, 3), (-4, 1), (-5, 1), (i64::MIN, 1)] {
            assert_eq!(of_four(n_jobs), Ok(expected), "{n_jobs}");
        }
        assert_eq!(of_four(0), Err(BuildError::Jobs));
        assert_eq!(workers(-1, cpu_count()), effective_n_jobs(-1));
    }
}
