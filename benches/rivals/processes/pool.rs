//! Pools of this language: what each of them must be able to do, and the jobs, which are the same for all.

use rivals::{
    contest::{Contestant, Sample},
    machine::descendants,
    stats::{median, percentile},
};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    collections::VecDeque,
    fs, thread,
    time::{Duration, Instant},
};

use crate::{
    WORKERS,
    job::{Job, Kind, numbers},
    task::{Bytes, CountChunk, CountSpan, Counts, EchoBytes, EchoFloats, Folder, Hold, Square, Task, WhoIsIt},
    text::{Text, digest},
};

pub(crate) trait Pool: Sized {
    const NAME: &str;
    /// How many calls it may be given before results are taken.
    const OUTSTANDING: usize = usize::MAX;
    /// Whether it has a map.
    const MAPS: bool = false;
    /// The form in which it takes bytes best.
    type Bytes: Bytes;
    type Handle<T: Task>;

    fn open(workers: usize) -> Result<Self, String>;
    fn submit<T: Task>(&self, input: T::In) -> Self::Handle<T>;
    fn wait<T: Task>(handle: Self::Handle<T>) -> Result<T::Out, String>;

    /// Results in the order of the inputs. Whoever has no map keeps some calls under way.
    fn map<T: Task>(
        &self,
        inputs: impl Iterator<Item = T::In> + Send,
        mut each: impl FnMut(T::Out),
    ) -> Result<(), String> {
        const UNDER_WAY: usize = 16;
        let mut handles = VecDeque::with_capacity(UNDER_WAY);
        for input in inputs {
            if handles.len() == UNDER_WAY
                && let Some(first) = handles.pop_front()
            {
                each(Self::wait(first)?);
            }
            handles.push_back(self.submit::<T>(input));
        }
        handles.into_iter().try_for_each(|handle| Self::wait(handle).map(&mut each))
    }

    /// How a worker sums `numbers`, which lie in memory that it shares with this process.
    fn sum_shared(&self, _numbers: &[u64]) -> Result<SumShared<'_>, String> {
        Err("it shares no memory".into())
    }
}

/// One call that sums.
pub(crate) type SumShared<'a> = Box<dyn Fn() -> Result<u64, String> + 'a>;

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
        let pool = P::open(WORKERS)?;
        submit_each(&pool, 100)?;
        self.pool = Some(pool);
        Ok(())
    }

    fn measure(&mut self, job: &Job) -> Result<Sample, String> {
        match (job, &self.pool) {
            (Job::FirstResult { n }, _) => first_result::<P>(*n),
            (Job::IdleMemory { n }, _) => idle_memory::<P>(*n),
            (_, None) => Err("there is no pool".into()),
            (Job::Submit { n }, Some(pool)) => {
                let (seconds, sum) = timed(|| submit_each(pool, *n))?;
                Ok(Sample::new(seconds, [("rate", *n as f64 / seconds)], sum))
            }
            (Job::OneByOne { n, idle_us }, Some(pool)) => one_by_one(pool, *n, Duration::from_micros(*idle_us)),
            (Job::Map { .. }, Some(_)) if !P::MAPS => Err("it has no map".into()),
            (Job::Map { n }, Some(pool)) => {
                let (seconds, sum) = timed(|| {
                    let mut sum = 0_u64;
                    pool.map::<Square>(0..*n, |square| sum = sum.wrapping_add(square)).map(|()| sum)
                })?;
                Ok(Sample::new(seconds, [("rate", *n as f64 / seconds)], sum))
            }
            (Job::Echo { kind: Kind::Bytes, bytes, n }, Some(pool)) => {
                let payload: P::Bytes = (0..*bytes).map(|index| (index % 251) as u8).collect::<Vec<_>>().into();
                let same = |returned: &P::Bytes, sent: &P::Bytes| returned.as_ref() == sent.as_ref();
                echo::<P, EchoBytes<P::Bytes>, _>(pool, &payload, same, *bytes, *n)
            }
            (Job::Echo { kind: Kind::Floats, bytes, n }, Some(pool)) => {
                let payload: Vec<f64> = (0..*bytes / size_of::<f64>()).map(|index| index as f64 / 3.0).collect();
                echo::<P, EchoFloats, _>(pool, &payload, |returned, sent| returned == sent, *bytes, *n)
            }
            (Job::SumShared { bytes, n }, Some(pool)) => sum_shared(pool.sum_shared(&numbers(*bytes))?, *n),
            (Job::Death, Some(pool)) => death(pool),
            (Job::Descriptors { n }, Some(pool)) => descriptors(pool, *n),
            (Job::Text { spans, text }, Some(pool)) => count_words(pool, *spans, text),
        }
    }

    fn close(&mut self) {
        self.pool = None;
    }
}

fn timed<T>(body: impl FnOnce() -> Result<T, String>) -> Result<(f64, T), String> {
    let began = Instant::now();
    let value = body()?;
    Ok((began.elapsed().as_secs_f64(), value))
}

fn submit_each<P: Pool>(pool: &P, n: u64) -> Result<u64, String> {
    let mut sum = 0_u64;
    let mut handles = VecDeque::new();
    for x in 0..n {
        if handles.len() == P::OUTSTANDING
            && let Some(first) = handles.pop_front()
        {
            sum = sum.wrapping_add(P::wait(first)?);
        }
        handles.push_back(pool.submit::<Square>(x));
    }
    for handle in handles {
        sum = sum.wrapping_add(P::wait(handle)?);
    }
    Ok(sum)
}

fn one_by_one<P: Pool>(pool: &P, n: u64, idle: Duration) -> Result<Sample, String> {
    let began = Instant::now();
    let mut sum = 0_u64;
    let mut times_us = Vec::with_capacity(n as usize);
    for x in 0..n {
        if !idle.is_zero() {
            thread::sleep(idle);
        }
        let (seconds, square) = timed(|| P::wait(pool.submit::<Square>(x)))?;
        sum = sum.wrapping_add(square);
        times_us.push(seconds * 1e6);
    }
    let seconds = began.elapsed().as_secs_f64();
    let figures = [("p50", 0.5), ("p99", 0.99), ("min", 0.0)].map(|(name, share)| (name, percentile(&times_us, share)));
    Ok(Sample::new(seconds, figures, sum))
}

/// The payload is given away, as a user would who has no more need of it; copying it before that, and comparing it
/// afterwards, are not counted. Letting go of what came back is.
fn echo<P: Pool, T: Task<In = V, Out = V>, V: Clone>(
    pool: &P,
    payload: &V,
    same: impl Fn(&V, &V) -> bool,
    bytes: usize,
    n: u64,
) -> Result<Sample, String> {
    let (mut times, mut right) = (Vec::new(), 0);
    for _ in 0..n {
        let sent = payload.clone();
        let (seconds, returned) = timed(|| P::wait(pool.submit::<T>(sent)))?;
        right += u64::from(same(&returned, payload));
        let began = Instant::now();
        drop(returned);
        times.push(seconds + began.elapsed().as_secs_f64());
    }
    let gb_per_s = 2.0 * bytes as f64 / median(&times) / 1e9;
    Ok(Sample::new(times.iter().sum(), [("gb_per_s", gb_per_s)], right))
}

/// What is shared is made before.
pub(crate) fn sum_shared(sum: impl Fn() -> Result<u64, String>, n: u64) -> Result<Sample, String> {
    let (mut times_ms, mut total) = (Vec::new(), 0_u64);
    for _ in 0..n {
        let (seconds, sum) = timed(&sum)?;
        total = total.wrapping_add(sum);
        times_ms.push(seconds * 1e3);
    }
    let figures = [("ms", median(&times_ms)), ("first_ms", times_ms[0])];
    Ok(Sample::new(times_ms.iter().sum::<f64>() / 1e3, figures, total))
}

/// The pools' ends are not counted.
fn first_result<P: Pool>(n: u64) -> Result<Sample, String> {
    let (mut times_ms, mut sum) = (Vec::new(), 0);
    for _ in 0..n {
        let (seconds, (pool, square)) = timed(|| {
            let pool = P::open(WORKERS)?;
            let square = P::wait(pool.submit::<Square>(3))?;
            Ok((pool, square))
        })?;
        drop(pool);
        sum += square;
        times_ms.push(seconds * 1e3);
    }
    Ok(Sample::new(times_ms.iter().sum::<f64>() / 1e3, [("ms", median(&times_ms))], sum))
}

/// Both workers have a call. One is killed; its call is to fail. The next call can only be answered by its successor,
/// since the other worker is busy: with the answer, the pool has its full strength again.
fn death<P: Pool>(pool: &P) -> Result<Sample, String> {
    let folder = Folder::new().map_err(|error| error.to_string())?;
    let [survivor, victim] = [0, 1].map(|index| pool.submit::<Hold>((folder.path().to_owned(), index)));
    let [survivors, victims] = [folder.process(0)?, folder.process(1)?];
    let victims_id = i32::try_from(victims).ok().and_then(Pid::from_raw).ok_or("no process has such a number")?;

    let killed = Instant::now();
    kill_process(victims_id, Signal::KILL).map_err(|error| error.to_string())?;
    let outcome = P::wait(victim);
    let seen = killed.elapsed().as_secs_f64();
    let successors = P::wait(pool.submit::<WhoIsIt>(()))?;
    let strength = killed.elapsed().as_secs_f64();

    folder.let_go()?;
    let survived = P::wait(survivor)? == survivors;
    let right = outcome.is_err() && survived && ![survivors, victims].contains(&successors);
    Ok(Sample::new(strength, [("seen_ms", seen * 1e3), ("strength_ms", strength * 1e3)], u64::from(right)))
}

fn idle_memory<P: Pool>(n: u64) -> Result<Sample, String> {
    let before = descendants();
    let pool = P::open(WORKERS)?;
    let (seconds, sum) = timed(|| submit_each(&pool, n))?;
    // Until they have done what they do after a call.
    thread::sleep(Duration::from_millis(300));
    let own: Vec<_> = descendants().into_iter().filter(|process| !before.contains(process)).collect();
    let per_worker =
        |kinds: &[&str]| own.iter().map(|process| memory_kb(*process, kinds)).sum::<f64>() / WORKERS as f64;
    let figures =
        [("pss_kb", per_worker(&["Pss:"])), ("private_kb", per_worker(&["Private_Clean:", "Private_Dirty:"]))];
    Ok(Sample::new(seconds, figures, sum))
}

/// The sum of some of the kernel's figures on a process.
fn memory_kb(process: u32, kinds: &[&str]) -> f64 {
    let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap_or_default();
    let fields = rollup.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let wanted = fields.filter(|fields| fields.first().is_some_and(|kind| kinds.contains(kind)));
    wanted.filter_map(|fields| fields.get(1)?.parse::<f64>().ok()).sum()
}

fn descriptors<P: Pool>(pool: &P, n: u64) -> Result<Sample, String> {
    let open = || fs::read_dir("/proc/self/fd").map(|open| open.count() as f64).map_err(|error| error.to_string());
    let folder = Folder::new().map_err(|error| error.to_string())?;
    let holds: Vec<_> =
        (0..WORKERS as u32).map(|index| pool.submit::<Hold>((folder.path().to_owned(), index))).collect();
    (0..WORKERS as u32).try_for_each(|index| folder.process(index).map(drop))?;
    let before = open()?;
    let queued: Vec<_> = (0..n).map(|x| pool.submit::<Square>(x)).collect();
    let more = open()? - before;
    folder.let_go()?;
    for hold in holds {
        P::wait(hold)?;
    }
    let (seconds, sum) =
        timed(|| queued.into_iter().try_fold(0_u64, |sum, handle| Ok(sum.wrapping_add(P::wait(handle)?))))?;
    Ok(Sample::new(seconds, [("each", more.max(0.0) / n as f64)], sum))
}

fn count_words<P: Pool>(pool: &P, spans: bool, text: &Text) -> Result<Sample, String> {
    let mut sum = Counts::default();
    let each = |counts: Counts| sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    let (seconds, ()) = timed(|| match spans {
        true => pool.map::<CountSpan>(text.spans(), each),
        false => pool.map::<CountChunk<P::Bytes>>(text.chunks().map(P::Bytes::from), each),
    })?;
    Ok(Sample::new(seconds, [("seconds", seconds)], digest(&sum)))
}
