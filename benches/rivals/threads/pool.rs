//! Pools of this language: what each of them may be able to do, and the jobs, which are the same for all.

use rivals::{
    contest::{Contestant, Sample},
    stats::{median, percentile},
};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::{
    collections::VecDeque,
    fs, iter,
    sync::{
        Arc, Barrier, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

use crate::{
    alone,
    job::{Job, Work, digest, fib, square},
    workers::workers,
};

/// What is not there is `None`: the rows say who takes part in what.
pub(crate) trait Pool: Sized + Sync {
    const NAME: &str;
    /// How many calls it may be given before results are taken.
    const OUTSTANDING: usize = usize::MAX;
    type Handle: Send;

    fn open(workers: usize) -> Result<Self, String>;

    /// Of a pool that has handles.
    fn submit<F: FnOnce() -> u64 + Send + 'static>(&self, call: F) -> Self::Handle;

    fn wait(&self, handle: Self::Handle) -> u64;

    /// The sum of all results.
    fn collect(&self, handles: impl Iterator<Item = Self::Handle>) -> u64 {
        handles.fold(0, |sum, handle| sum.wrapping_add(self.wait(handle)))
    }

    /// The sum of the first `n` squares, taken as they are there.
    fn completion(&self, _n: u64) -> Option<u64> {
        None
    }

    /// Has the pool call `Leaves::grow` on the root, and on whatever is below it.
    fn tree(&self, _leaves: &Arc<Leaves>) -> Option<()> {
        None
    }

    fn awaited(&self, _depth: u32) -> Option<u64> {
        None
    }

    fn fib(&self, _n: u64) -> Option<u64> {
        None
    }

    fn squares(&self, _items: &[u64]) -> Option<Vec<u64>> {
        None
    }

    /// The digest of the results for the first `n` numbers.
    fn lazy_squares(&self, _n: u64) -> Option<u64> {
        None
    }

    fn map(&self, _work: &Work) -> Option<Vec<u64>> {
        None
    }
}

/// A contestant that has such a pool.
pub(crate) struct OnPool<P> {
    pool: Option<P>,
}

impl<P> OnPool<P> {
    pub(crate) fn new() -> Self {
        OnPool { pool: None }
    }
}

impl<P: Pool> Contestant<Job> for OnPool<P> {
    fn name(&self) -> &'static str {
        P::NAME
    }

    fn open(&mut self) -> Result<(), String> {
        self.pool = Some(P::open(workers())?);
        Ok(())
    }

    fn measure(&mut self, job: &Job) -> Result<Sample, String> {
        match (job, &self.pool) {
            (Job::Alone(job), _) => alone::sample(P::NAME, job, workers()),
            (Job::Instructions { few, many, by }, _) => alone::instructions(P::NAME, few, many, *by),
            (Job::Apart { n }, _) => apart::<P>(*n),
            (Job::Workers { n, workers }, _) => with_workers::<P>(*n, *workers),
            (_, None) => Err("there is no pool".into()),
            (Job::Submit { n }, Some(pool)) => each(*n, || Some(submit_window(pool, *n, usize::MAX))),
            (Job::Window { n, outstanding }, Some(pool)) => each(*n, || Some(submit_window(pool, *n, *outstanding))),
            (Job::Contended { n, submitters }, Some(pool)) => contended(pool, *n, *submitters),
            (Job::OneByOne { n, idle_us }, Some(pool)) => Ok(one_by_one(pool, *n, Duration::from_micros(*idle_us))),
            (Job::Tree { depth }, Some(pool)) => each(2 << depth, || Leaves::grow_all(pool, *depth)),
            (Job::Awaited { depth }, Some(pool)) => each(2 << depth, || pool.awaited(*depth)),
            (Job::Fib { n }, Some(pool)) => each(joins(*n), || pool.fib(*n)),
            (Job::Squares { n }, Some(pool)) => {
                let items: Vec<_> = (0..*n).collect();
                into_vector(*n, || pool.squares(&items))
            }
            (Job::LazySquares { n }, Some(pool)) => each(*n, || pool.lazy_squares(*n)),
            (Job::Map(work), Some(pool)) => {
                let work: &Work = work;
                into_vector(work.items.len() as u64, || pool.map(work))
            }
            (Job::Completion { n }, Some(pool)) => each(*n, || pool.completion(*n)),
            (Job::Queued { n }, Some(pool)) => queued(pool, *n),
            (Job::Idle { milliseconds }, Some(pool)) => Ok(idle(pool, Duration::from_millis(*milliseconds))),
        }
    }

    fn close(&mut self) {
        self.pool = None;
    }
}

const MISSING: &str = "it has nothing of the kind";

/// The time that each of `n` took, in nanoseconds.
fn each(n: u64, body: impl FnOnce() -> Option<u64>) -> Result<Sample, String> {
    let began = Instant::now();
    let check = body().ok_or(MISSING)?;
    let seconds = began.elapsed().as_secs_f64();
    Ok(Sample::new(seconds, [("ns", seconds * 1e9 / n as f64)], check))
}

fn into_vector(n: u64, body: impl FnOnce() -> Option<Vec<u64>>) -> Result<Sample, String> {
    let began = Instant::now();
    let results = body().ok_or(MISSING)?;
    let seconds = began.elapsed().as_secs_f64();
    Ok(Sample::new(seconds, [("ns", seconds * 1e9 / n as f64), ("ms", seconds * 1e3)], digest(results)))
}

/// How many joins the `n`th Fibonacci number is made of.
pub(crate) fn joins(n: u64) -> u64 {
    fib(n + 1) - 1
}

fn submit_window<P: Pool>(pool: &P, n: u64, outstanding: usize) -> u64 {
    let outstanding = outstanding.min(P::OUTSTANDING);
    let mut handles = VecDeque::with_capacity(outstanding.min(n as usize));
    let mut sum = 0_u64;
    for x in 0..n {
        if handles.len() == outstanding
            && let Some(first) = handles.pop_front()
        {
            sum = sum.wrapping_add(pool.wait(first));
        }
        handles.push_back(pool.submit(move || square(x)));
    }
    sum.wrapping_add(pool.collect(handles.into_iter()))
}

fn with_workers<P: Pool>(n: u64, workers: usize) -> Result<Sample, String> {
    let pool = P::open(workers)?;
    submit_window(&pool, 1000, usize::MAX);
    each(n, || Some(submit_window(&pool, n, usize::MAX)))
}

fn contended<P: Pool>(pool: &P, n: u64, submitters: u64) -> Result<Sample, String> {
    let start = Barrier::new(submitters as usize + 1);
    thread::scope(|scope| {
        let threads: Vec<_> = iter::repeat_with(|| {
            scope.spawn(|| {
                start.wait();
                (Instant::now(), submit_window(pool, n / submitters, usize::MAX))
            })
        })
        .take(submitters as usize)
        .collect();
        start.wait();
        // The first of them to go on has begun it; this thread may be the last one.
        let ends: Vec<_> = threads.into_iter().map_while(|thread| thread.join().ok()).collect();
        let began = ends.iter().map(|(began, _)| *began).min().ok_or(MISSING)?;
        let seconds = began.elapsed().as_secs_f64();
        let sum = ends.into_iter().fold(0_u64, |sum, (_, of_one)| sum.wrapping_add(of_one));
        Ok(Sample::new(seconds, [("ns", seconds * 1e9 / n as f64)], sum))
    })
}

fn one_by_one<P: Pool>(pool: &P, n: u64, idle: Duration) -> Sample {
    let began = Instant::now();
    let mut sum = 0_u64;
    let mut times_us = Vec::with_capacity(n as usize);
    for x in 0..n {
        if !idle.is_zero() {
            thread::sleep(idle);
        }
        let submitted = Instant::now();
        sum = sum.wrapping_add(pool.wait(pool.submit(move || square(x))));
        times_us.push(submitted.elapsed().as_secs_f64() * 1e6);
    }
    let seconds = began.elapsed().as_secs_f64();
    let fastest = times_us.iter().copied().fold(f64::INFINITY, f64::min);
    Sample::new(seconds, [("p50", median(&times_us)), ("p99", percentile(&times_us, 0.99)), ("min", fastest)], sum)
}

/// Threads are made on the processor of the one that makes them. So all of the pool's are made, and warmed up, there, before
/// this thread goes elsewhere.
fn apart<P: Pool>(n: u64) -> Result<Sample, String> {
    let everywhere = sched_getaffinity(None).map_err(|error| error.to_string())?;
    let processors: Vec<_> = (0..CpuSet::MAX_CPU).filter(|cpu| everywhere.is_set(*cpu)).collect();
    let (Some(first), Some(last)) = (processors.first(), processors.last()) else { return Err("no processor".into()) };
    let only = |cpu: usize| {
        let mut set = CpuSet::new();
        set.set(cpu);
        sched_setaffinity(None, &set).map_err(|error| error.to_string())
    };
    only(*last)?;
    let pool = P::open(workers())?;
    submit_window(&pool, 1000, usize::MAX);
    only(*first)?;
    let sample = one_by_one(&pool, n, Duration::ZERO);
    drop(pool);
    sched_setaffinity(None, &everywhere).map_err(|error| error.to_string())?;
    Ok(sample)
}

/// How much more this process keeps in memory for each call that waits. In a process of its own, whose heap is fresh.
fn queued<P: Pool>(pool: &P, n: u64) -> Result<Sample, String> {
    let gate = Arc::new(Gate::default());
    let blocked: Vec<_> = iter::repeat_with(|| {
        let gate = Arc::clone(&gate);
        pool.submit(move || gate.pass())
    })
    .take(workers())
    .collect();
    gate.wait_for(workers());
    // The handles lie in pages that are touched before, so that they do not count.
    let mut handles: Vec<Option<P::Handle>> = Vec::new();
    handles.resize_with(n as usize, || None);
    let before = resident_bytes();
    for (x, handle) in (0..n).zip(&mut handles) {
        *handle = Some(pool.submit(move || square(x)));
    }
    let bytes = resident_bytes().saturating_sub(before) as f64 / n as f64;
    gate.open();
    let sum = pool.collect(handles.into_iter().flatten());
    pool.collect(blocked.into_iter());
    Ok(Sample::new(0.0, [("bytes", bytes)], sum))
}

fn resident_bytes() -> usize {
    let pages = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = pages.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * rustix::param::page_size()
}

/// What a pool does that has nothing to do. In a process of its own.
fn idle<P: Pool>(pool: &P, time: Duration) -> Sample {
    submit_window(pool, 1000, usize::MAX);
    thread::sleep(Duration::from_millis(100));
    let before = wake_ups();
    thread::sleep(time);
    // This thread's own one is not the pool's.
    let wake_ups = wake_ups().saturating_sub(before + 1);
    Sample::new(time.as_secs_f64(), [("wake_ups", wake_ups as f64 / time.as_secs_f64())], 0)
}

/// How often threads of this process have begun to wait.
fn wake_ups() -> u64 {
    let of_thread = |thread: fs::DirEntry| {
        let status = fs::read_to_string(thread.path().join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        line.trim().parse::<u64>().ok()
    };
    fs::read_dir("/proc/self/task").into_iter().flatten().flatten().filter_map(of_thread).sum()
}

/// Where calls wait until it is opened.
#[derive(Default)]
struct Gate {
    /// How many are there, and whether they may pass.
    state: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self) -> u64 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 += 1;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |(_, open)| !*open));
        0
    }

    fn wait_for(&self, calls: usize) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_while(state, |(there, _)| *there < calls));
    }

    fn open(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.changed.notify_all();
    }
}

/// The leaves of a tree of calls, counted as they come. Those of one branch share a counter, so that counting does not become
/// what is measured.
pub(crate) struct Leaves {
    branches: [Branch; BRANCHES],
    left: AtomicU64,
    depth: u32,
    waiting: Thread,
}

const BRANCHES: usize = 64;

#[repr(align(128))]
struct Branch(AtomicU64);

impl Leaves {
    fn grow_all<P: Pool>(pool: &P, depth: u32) -> Option<u64> {
        let each = (1_u64 << depth) / BRANCHES as u64;
        let leaves = Arc::new(Leaves {
            branches: std::array::from_fn(|_| Branch(AtomicU64::new(each))),
            left: AtomicU64::new(BRANCHES as u64),
            depth,
            waiting: thread::current(),
        });
        pool.tree(&leaves)?;
        while leaves.left.load(Ordering::Acquire) > 0 {
            thread::park();
        }
        Some(each * BRANCHES as u64)
    }

    /// What a call in the tree does: `spawn` has the pool do the same with another place. The root is place 1, and below place
    /// `p` are `2 * p` and the one after it.
    pub(crate) fn grow(&self, place: u64, spawn: impl Fn(u64)) {
        if place >> self.depth == 0 {
            spawn(2 * place);
            spawn(2 * place + 1);
            return;
        }
        let branch = (place as usize) % BRANCHES;
        if self.branches[branch].0.fetch_sub(1, Ordering::AcqRel) == 1 && self.left.fetch_sub(1, Ordering::AcqRel) == 1
        {
            self.waiting.unpark();
        }
    }
}
