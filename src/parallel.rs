//! joblib's `Parallel`: a loop whose calls are made in parallel, with everything else left as it is.
//!
//! ```
//! use concurrent_futures::parallel::{Parallel, delayed};
//!
//! fn power((x, n): (u64, u32)) -> u64 {
//!     x.pow(n)
//! }
//!
//! // Python: Parallel(n_jobs=2)(delayed(power)(x, 2) for x in range(10))
//! let squares = Parallel::new().n_jobs(2).run((0..10).map(|x| delayed(power)((x, 2))))?;
//! assert_eq!(squares, (0..10).map(|x| x * x).collect::<Vec<_>>());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | joblib | here |
//! |---|---|
//! | `Parallel(n_jobs=2)(calls)` | `Parallel::new().n_jobs(2).run(calls)?` |
//! | `delayed(f)(a, b)` | `delayed(f)((a, b))`; calls of several functions go together |
//! | `return_as="generator"`, `"generator_unordered"` | [`generator(calls)?`](Parallel::generator), [`generator_unordered(calls)?`](Parallel::generator_unordered) |
//! | – | [`outcomes(calls)?`](Parallel::outcomes): failures too, each at its place |
//! | `backend="threading"`, `"loky"`, `"sequential"` | the same names, or a [`Backend`]; `"loky"` is `"process"` |
//! | `prefer="threads"` | [`prefer(Prefer::Threads)`](Parallel::prefer) |
//! | `require="sharedmem"` | [`require_sharedmem()`](Parallel::require_sharedmem), whose calls may borrow |
//! | `timeout=5` | [`timeout(d)`](Parallel::timeout) for the wait, [`task_timeout(d)`](Parallel::task_timeout) for each call |
//! | `pre_dispatch="2*n_jobs"`, `batch_size="auto"` | the same, or numbers |
//! | `with Parallel(n_jobs=2) as parallel:` | any `Parallel` that is used again |
//! | `with parallel_config(n_jobs=2):` | [`parallel_config(Parallel::new().n_jobs(2), \|\| …)`](parallel_config) |
//! | `max_nbytes`, `mmap_mode` | nothing is mapped unless asked for, by a [`Shared`](crate::Shared) |
//!
//! # Large arguments
//! joblib writes large arrays to files, which its workers map. Here that is the argument's own type: a
//! [`Shared<[T]>`](crate::Shared), a constant slice in memory that all processes map, so that calls of which each has
//! it, or a part of it, cost no copy. By size alone it would be mapped where a copy is cheaper. Every other value is
//! sent with its call.
//!
//! # Parallel calls within parallel calls
//! Unless told, a call in the program itself goes to processes, one within those to threads, and one within these is a
//! plain loop. A negative `n_jobs` shares out the processors that the call around has left for each of its workers, so
//! that all of them together are as many as there are; libraries in worker processes are told the same. Ten levels are
//! the most.

mod backend;
mod batches;
mod config;
mod dispatch;
mod error;
mod generator;
mod pre_dispatch;
mod sharedmem;
mod verbose;

use executor_core::{Executor, TaskError, TaskOptions, Value, With, sync::Mutex};
use std::{fmt, num::NonZeroUsize, sync::Arc, time::Duration};

pub use backend::{Backend, Prefer, Registered, register_parallel_backend};
pub use config::parallel_config;
pub use error::ParallelError;
pub use executor_core::delayed::{Delayed, delayed};
pub use generator::{Aborted, Generator};
pub use pre_dispatch::PreDispatch;
pub use sharedmem::SharedMemory;

use backend::{Keep, Plan};
use batches::Batches;
use dispatch::{Dispatch, Manner};
use generator::Wanted;
use verbose::Report;

/// Makes [`delayed`] calls in parallel, as it was told.
///
/// It can be used again, and its workers are: those of processes for as long as the program needs some within five
/// minutes, its threads until it is dropped. Several threads may use one at once.
///
/// What is not chosen here is as [`parallel_config`] says around, and otherwise as joblib has it: one worker, which is the
/// calling thread itself.
///
/// # Examples
/// ```
/// use concurrent_futures::parallel::{Parallel, delayed};
///
/// let parallel = Parallel::new().n_jobs(2).backend("threading");
/// let lengths = parallel.run(["a", "bc"].map(|word| delayed(|word: String| word.len())(word.to_owned())))?;
/// assert_eq!(lengths, [1, 2]);
///
/// // The first error is that of the whole, and what was not yet done is aborted.
/// let error = parallel.run((0..100).map(|x| delayed(|x: u32| 10 / (x - 3))(x + 3))).unwrap_err();
/// assert_eq!(error.task().unwrap().panic_message(), Some("attempt to divide by zero"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "these are only choices; `run` makes the calls"]
pub struct Parallel {
    choices: Choices,
    kept: Arc<Kept>,
}

/// What was chosen. What was not is chosen elsewhere.
#[derive(Clone, Debug, Default)]
struct Choices {
    n_jobs: Option<i64>,
    backend: Option<Backend>,
    prefer: Option<Prefer>,
    sharedmem: bool,
    verbose: Option<u32>,
    timeout: Option<Duration>,
    task_timeout: Option<Duration>,
    pre_dispatch: Option<PreDispatch>,
    batch_size: Option<NonZeroUsize>,
    inner_threads: Option<usize>,
    /// The first choice that cannot be.
    wrong: Option<ParallelError>,
    #[cfg(feature = "progress")]
    progress: Option<crate::progress::Chosen>,
}

impl Choices {
    /// These, and those of `around` where nothing was chosen here.
    fn or(&self, around: &Choices) -> Choices {
        Choices {
            n_jobs: self.n_jobs.or(around.n_jobs),
            backend: self.backend.clone().or_else(|| around.backend.clone()),
            prefer: self.prefer.or(around.prefer),
            sharedmem: self.sharedmem || around.sharedmem,
            verbose: self.verbose.or(around.verbose),
            timeout: self.timeout.or(around.timeout),
            task_timeout: self.task_timeout.or(around.task_timeout),
            pre_dispatch: self.pre_dispatch.clone().or_else(|| around.pre_dispatch.clone()),
            batch_size: self.batch_size.or(around.batch_size),
            inner_threads: self.inner_threads.or(around.inner_threads),
            wrong: self.wrong.clone().or_else(|| around.wrong.clone()),
            #[cfg(feature = "progress")]
            progress: self.progress.clone().or_else(|| around.progress.clone()),
        }
    }
}

/// The executor of the last call, for the next one.
#[derive(Default)]
struct Kept(Mutex<Option<(Plan, Arc<dyn Executor>)>>);

impl Kept {
    fn executor(&self, plan: &Plan) -> Result<Arc<dyn Executor>, ParallelError> {
        let kept = self.0.lock().as_ref().filter(|(other, _)| plan.is_like(other)).map(|(_, kept)| Arc::clone(kept));
        if let Some(executor) = kept {
            return Ok(executor);
        }
        let (executor, keep) = plan.executor()?;
        if keep == Keep::Yes {
            // Not under the lock: what a pool is dropped with is user code.
            let before = self.0.lock().replace((plan.clone(), Arc::clone(&executor)));
            drop(before);
        }
        Ok(executor)
    }

    fn forget(&self) {
        let kept = self.0.lock().take();
        drop(kept);
    }
}

impl Parallel {
    /// Nothing is chosen yet.
    pub fn new() -> Self {
        Parallel { choices: Choices::default(), kept: Arc::default() }
    }

    fn choose<T>(mut self, choice: Result<T, ParallelError>, put: impl FnOnce(&mut Choices, T)) -> Self {
        match choice {
            Ok(choice) => put(&mut self.choices, choice),
            Err(wrong) => drop(self.choices.wrong.get_or_insert(wrong)),
        }
        self
    }

    /// How many calls are made at a time: -1 is as many as there are processors to use, -2 one less, and so on, as
    /// [`effective_n_jobs`](crate::effective_n_jobs) says. With 1, calls are made in the calling thread, one after the
    /// other, and nothing is taken from the input before it is needed. 0 is an error of the call.
    pub fn n_jobs(mut self, n_jobs: i64) -> Self {
        self.choices.n_jobs = Some(n_jobs);
        self
    }

    /// Where calls are made: a [`Backend`], its name, or an `Arc` of an executor. An unknown name is an error of the
    /// call, which lists those that there are.
    pub fn backend<B>(self, backend: B) -> Self
    where
        B: TryInto<Backend, Error: Into<ParallelError>>,
    {
        self.choose(backend.try_into().map_err(Into::into), |choices, backend| choices.backend = Some(backend))
    }

    /// What kind of workers would be good, where no backend is chosen, and this is no call within others.
    pub fn prefer(mut self, kind: Prefer) -> Self {
        self.choices.prefer = Some(kind);
        self
    }

    /// Requires that the calls share this process's memory: then they may be closures that borrow, and change what they
    /// borrow.
    ///
    /// A backend that [`parallel_config`] chose around gives way. One that was chosen here, and has no shared memory,
    /// is an error of the call.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::parallel::Parallel;
    ///
    /// let mut rows = [vec![3, 1, 2], vec![6, 5, 4]];
    /// let sums = Parallel::new().n_jobs(2).require_sharedmem().run(rows.iter_mut().map(|row| {
    ///     move || {
    ///         row.sort();
    ///         row.iter().sum::<u32>()
    ///     }
    /// }))?;
    /// assert_eq!((sums, rows), (vec![6, 15], [vec![1, 2, 3], vec![4, 5, 6]]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn require_sharedmem(self) -> SharedMemory {
        SharedMemory::new(self)
    }

    /// Prints progress, in joblib's lines: the more, the more often; above 10 at each completion, and from 50 on on
    /// standard output instead of standard error. 0 prints nothing.
    pub fn verbose(mut self, level: u32) -> Self {
        self.choices.verbose = Some(level);
        self
    }

    /// How long the next result may be waited for; the time of those before does not count. When it passes, the call as
    /// a whole ends with [`ParallelError::Timeout`], and what is not done is aborted. For single calls that take too
    /// long, and cost nothing but their own result: [`task_timeout`](Self::task_timeout).
    ///
    /// With one worker, which is the calling thread, it is the limit of each call, which is asked to stop when that passes.
    ///
    /// # Panics
    /// If `limit` is zero.
    pub fn timeout(mut self, limit: Duration) -> Self {
        assert!(!limit.is_zero(), "a timeout must be longer than zero");
        self.choices.timeout = Some(limit);
        self
    }

    /// How long each call may take, from when it begins: see [`TaskOptions::time_limit`]. Batches are of one call then,
    /// unless a size is chosen; then it is for the batch.
    ///
    /// # Panics
    /// If `limit` is zero.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::parallel::{Parallel, delayed};
    /// use std::{thread::sleep, time::Duration};
    ///
    /// let parallel = Parallel::new().n_jobs(2).task_timeout(Duration::from_millis(500));
    /// let nap = |seconds| sleep(Duration::from_secs(seconds));
    /// let outcomes = parallel.outcomes([0, 60, 0].map(|seconds| delayed(nap)(seconds)))?;
    /// assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 2);
    /// assert!(outcomes[1].as_ref().unwrap_err().is_timed_out());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn task_timeout(mut self, limit: Duration) -> Self {
        assert!(!limit.is_zero(), "a time limit must be longer than zero");
        self.choices.task_timeout = Some(limit);
        self
    }

    /// How many batches of calls are under way at a time, and so how far the input is taken ahead: a number,
    /// [`PreDispatch::ALL`] or `"all"`, or arithmetic such as `"2*n_jobs"`, which it is unless told. What cannot be
    /// understood is an error of the call.
    ///
    /// A generator that gives results in order also keeps at most as many that wait for an earlier one.
    pub fn pre_dispatch<P>(self, batches: P) -> Self
    where
        P: TryInto<PreDispatch, Error: Into<ParallelError>>,
    {
        let batches = batches.try_into().map_err(Into::into);
        self.choose(batches, |choices, batches| choices.pre_dispatch = Some(batches))
    }

    /// How many calls go to a worker together, as long as they are of one function and described on one line. A worker
    /// process that is lost takes all calls of its batch with it.
    ///
    /// Without it, joblib's `"auto"`: as many as make a batch last for some milliseconds, as far as seen; on threads,
    /// where a call costs next to nothing to hand over, one.
    ///
    /// # Panics
    /// If `size` is zero.
    pub fn batch_size(mut self, size: usize) -> Self {
        self.choices.batch_size = Some(NonZeroUsize::new(size).expect("a batch must hold at least one call, not zero"));
        self
    }

    /// How many threads libraries in each worker process are told to start: see
    /// [`ProcessPoolExecutorBuilder::inner_max_num_threads`](crate::ProcessPoolExecutorBuilder::inner_max_num_threads).
    ///
    /// # Panics
    /// If `threads` is zero.
    pub fn inner_max_num_threads(mut self, threads: usize) -> Self {
        assert!(threads > 0, "a library needs at least one thread, not zero");
        self.choices.inner_threads = Some(threads);
        self
    }

    /// Shows a bar on standard error, if that is a terminal.
    #[cfg(feature = "progress")]
    pub fn progress(mut self) -> Self {
        self.choices.progress = Some(crate::progress::Chosen::default());
        self
    }

    /// Shows `bar`. It is told how many calls there are, where that is known, how many are done, and in its message how
    /// many of them failed.
    #[cfg(feature = "progress")]
    pub fn progress_with(mut self, bar: indicatif::ProgressBar) -> Self {
        self.choices.progress = Some(crate::progress::Chosen::own(bar));
        self
    }

    /// Makes the calls, and gives their results in the calls' order.
    ///
    /// # Errors
    /// The first failure of a call to be seen: then what has not begun is cancelled, what runs is stopped, or asked to
    /// stop if it runs on a thread, and nobody waits for it. [`ParallelError::Timeout`]; and where choices cannot be,
    /// which one.
    ///
    /// # Panics
    /// A panic of the input passes through, and aborts the calls.
    pub fn run<R: Value>(&self, calls: impl IntoIterator<Item = Delayed<R>>) -> Result<Vec<R>, ParallelError> {
        let mut generator = self.start(calls, Wanted::AsCompleted)?;
        generator.collect_in_order(|outcome| outcome.map_err(ParallelError::from))
    }

    /// Makes the calls, and gives what came of each, in the calls' order: failures too.
    ///
    /// # Errors
    /// [`ParallelError::Timeout`], and where choices cannot be, which one.
    ///
    /// # Panics
    /// As [`run`](Self::run) does.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::parallel::{Parallel, delayed};
    ///
    /// let outcomes = Parallel::new().n_jobs(2).outcomes((0..3).map(|x| delayed(|x: u32| 6 / x)(x)))?;
    /// assert!(outcomes[0].as_ref().unwrap_err().is_panic());
    /// assert_eq!(outcomes[1..].iter().flatten().collect::<Vec<_>>(), [&6, &3]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn outcomes<R: Value>(
        &self,
        calls: impl IntoIterator<Item = Delayed<R>>,
    ) -> Result<Vec<Result<R, TaskError>>, ParallelError> {
        let mut generator = self.start(calls, Wanted::AsCompleted)?;
        generator.collect_in_order(Ok)
    }

    /// Begins with the calls, and gives their results one by one, in the calls' order. joblib's `return_as="generator"`.
    ///
    /// The first calls are made right away, and further ones as results are taken: what nobody takes does not pile up.
    /// With one worker nothing is done before a result is asked for.
    ///
    /// # Errors
    /// Where choices cannot be, which one.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::parallel::{Parallel, delayed};
    ///
    /// let squares = Parallel::new().n_jobs(2).generator((0..).map(|x: u64| delayed(|x| x * x)(x)))?;   // no end is needed
    /// assert_eq!(squares.take(4).collect::<Result<Vec<_>, _>>()?, [0, 1, 4, 9]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn generator<R: Value, C: IntoIterator<Item = Delayed<R>>>(
        &self,
        calls: C,
    ) -> Result<Generator<C::IntoIter, R>, ParallelError> {
        self.start(calls, Wanted::InOrder)
    }

    /// As [`generator`](Self::generator), with results as they are there. joblib's `return_as="generator_unordered"`.
    ///
    /// # Errors
    /// As there.
    pub fn generator_unordered<R: Value, C: IntoIterator<Item = Delayed<R>>>(
        &self,
        calls: C,
    ) -> Result<Generator<C::IntoIter, R>, ParallelError> {
        self.start(calls, Wanted::AsCompleted)
    }

    fn effective(&self) -> Choices {
        self.choices.or(&config::around())
    }

    /// What joblib says before it begins.
    fn announce(&self, plan: &Plan, choices: &Choices) -> Report {
        let report = Report::new(choices.verbose.unwrap_or(0), choices.n_jobs.unwrap_or(1));
        if let Some(overridden) = &plan.overrides {
            report.say(format_args!(
                "Using backend {} as the calls require shared memory, which {overridden:?} does not have",
                plan.name()
            ));
        }
        report.say(format_args!("Using backend {} with {} concurrent workers.", plan.name(), plan.n_jobs));
        report
    }

    fn start<R: Value, C: IntoIterator<Item = Delayed<R>>>(
        &self,
        calls: C,
        wanted: Wanted,
    ) -> Result<Generator<C::IntoIter, R>, ParallelError> {
        let choices = self.effective();
        let plan = Plan::of(&self.choices, &choices)?;
        let most = choices.pre_dispatch.clone().unwrap_or_default().batches(plan.n_jobs)?;
        let mut executor = self.kept.executor(&plan)?;
        let limit = match plan.is_sequential() {
            // The calling thread cannot wait and make the call.
            true => choices.task_timeout.into_iter().chain(choices.timeout).min(),
            false => choices.task_timeout,
        };
        if let Some(limit) = limit {
            executor = Arc::new(With::new(executor, TaskOptions::new().time_limit(limit)));
        }
        let single = plan.is_threading() || plan.is_sequential() || limit.is_some();
        let batches = match choices.batch_size {
            Some(size) => Batches::fixed(size),
            None if single => Batches::fixed(NonZeroUsize::MIN),
            None => Batches::auto(),
        };
        let report = self.announce(&plan, &choices);
        let most = if plan.is_sequential() { Some(NonZeroUsize::MIN) } else { most };
        #[cfg_attr(not(feature = "progress"), expect(unused_mut, reason = "only a bar is put into it"))]
        let mut dispatch = Dispatch::new(Manner { executor, batches, most, report }, calls.into_iter());
        #[cfg(feature = "progress")]
        {
            dispatch.bar = choices.progress.map(|chosen| chosen.counter(dispatch.left()));
        }
        let most = most.map(NonZeroUsize::get);
        Ok(Generator::new(dispatch, wanted, most, plan.is_sequential(), choices.timeout, Arc::clone(&self.kept)))
    }
}

impl Default for Parallel {
    fn default() -> Self {
        Parallel::new()
    }
}

impl fmt::Debug for Parallel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.choices.fmt(f)
    }
}
