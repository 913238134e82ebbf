//! What contestants are told to do.

use rivals::contest;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    hint::black_box,
    sync::{Arc, LazyLock},
    time::Instant,
};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Job {
    /// `n` squares, submitted one by one, then all collected by their handles.
    Submit { n: u64 },
    /// The same with at most so many outstanding.
    Window { n: u64, outstanding: usize },
    /// `n` squares in all, submitted and collected by several threads at once.
    Contended { n: u64, submitters: u64 },
    /// `n` squares, each waited for; with a pause before each.
    OneByOne { n: u64, idle_us: u64 },
    /// The same without a pause, the pool on one processor and the caller on another one.
    Apart { n: u64 },
    /// A binary tree of calls, of which each spawns two others and waits for none.
    Tree { depth: u32 },
    /// The same, and each waits for the handles of its two.
    Awaited { depth: u32 },
    /// The `n`th Fibonacci number, by a join at each step.
    Fib { n: u64 },
    /// `x * x + 1` of `n` numbers, in order, into a vector.
    Squares { n: u64 },
    /// The same numbers, made as they are asked for, and results taken one by one.
    LazySquares { n: u64 },
    /// A function of each of some numbers, in order, into a vector.
    #[serde(skip)]
    Map(Later),
    /// `n` squares, taken in the order of their completion.
    Completion { n: u64 },
    /// `n` squares that wait behind calls that block all workers.
    Queued { n: u64 },
    /// `n` squares, submitted one by one, and collected, on a pool of its own with so many workers.
    Workers { n: u64, workers: usize },
    /// Nothing, for so long.
    Idle { milliseconds: u64 },
    /// A job in a process of its own.
    Alone(Box<Job>),
    /// What the larger job takes more than the smaller one on one worker, by so many.
    Instructions { few: Box<Job>, many: Box<Job>, by: u64 },
}

impl contest::Job for Job {
    fn expected(&self) -> u64 {
        match self {
            Job::Submit { n }
            | Job::Window { n, .. }
            | Job::OneByOne { n, .. }
            | Job::Apart { n }
            | Job::Completion { n }
            | Job::Workers { n, .. }
            | Job::Queued { n } => squares_until(*n),
            Job::Contended { n, submitters } => squares_until(n / submitters).wrapping_mul(*submitters),
            Job::Tree { depth } => 1 << depth,
            Job::Awaited { depth } => (1 << (depth + 1)) - 1,
            Job::Fib { n } => fib(*n),
            Job::Squares { n } | Job::LazySquares { n } => digest((0..*n).map(square_and_one)),
            Job::Map(work) => work.expected,
            Job::Idle { .. } => 0,
            Job::Alone(job) | Job::Instructions { many: job, .. } => job.expected(),
        }
    }
}

pub(crate) fn square(x: u64) -> u64 {
    x.wrapping_mul(x)
}

pub(crate) fn square_and_one(x: u64) -> u64 {
    x.wrapping_mul(x).wrapping_add(1)
}

fn squares_until(n: u64) -> u64 {
    (0..n).map(square).fold(0, u64::wrapping_add)
}

/// Without the work that others are to do for it.
pub(crate) fn fib(n: u64) -> u64 {
    (0..n).fold((0, 1), |(a, b), _| (b, a + b)).0
}

/// A number made of many, and of their order.
pub(crate) fn digest(numbers: impl IntoIterator<Item = u64>) -> u64 {
    numbers.into_iter().fold(0, |digest, number| digest.rotate_left(1) ^ number)
}

pub(crate) type MakeWork = Box<dyn FnOnce() -> Work + Send>;

/// Made when it is first asked for, which no row does that is not measured.
pub(crate) type Later = Arc<LazyLock<Work, MakeWork>>;

/// A function, and what it is to be called with.
pub(crate) struct Work {
    pub(crate) items: Vec<u64>,
    pub(crate) call: fn(u64) -> u64,
    expected: u64,
}

impl Work {
    fn new(items: impl IntoIterator<Item = u64>, call: fn(u64) -> u64) -> Work {
        let items: Vec<_> = items.into_iter().collect();
        let expected = digest(items.iter().copied().map(call));
        Work { items, call, expected }
    }

    /// Equal calls of about a microsecond each.
    pub(crate) fn equal(calls: u64) -> Work {
        let one = *MICROSECOND;
        Work::new((0..calls).map(|call| one + call % 2), churn)
    }

    /// The first call is a tenth of all, and each further one shorter: in all as long as `calls` of a microsecond.
    pub(crate) fn heavy_first(calls: u64) -> Work {
        let all = (1..=calls).map(|place| 1.0 / place as f64).sum::<f64>();
        let unit = *MICROSECOND as f64 * calls as f64 / all;
        Work::new((1..=calls).map(|place| ((unit / place as f64) as u64).max(1)), churn)
    }

    /// Rows of a picture: the middle ones take longest.
    pub(crate) fn mandelbrot(size: u64) -> Work {
        Work::new((0..size).map(|row| size << 32 | row), mandelbrot_row)
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work").field("items", &self.items.len()).finish_non_exhaustive()
    }
}

/// How many steps of [`churn`] take that long.
static MICROSECOND: LazyLock<u64> = LazyLock::new(|| {
    const STEPS: u64 = 100_000;
    let once = |_| {
        let began = Instant::now();
        black_box(churn(black_box(STEPS)));
        began.elapsed().as_nanos().max(1) as u64
    };
    (STEPS * 1000 / (0..20).map(once).min().unwrap_or(1)).max(1)
});

/// So many steps, of which each needs the one before, and no memory.
#[inline(never)]
fn churn(steps: u64) -> u64 {
    (0..steps).fold(steps | 1, |number, step| (number ^ number >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ step)
}

fn mandelbrot_row(row_of_size: u64) -> u64 {
    const LIMIT: u64 = 60;
    let (size, row) = (row_of_size >> 32, row_of_size & 0xffff_ffff);
    let scale = 3.0 / size as f64;
    let y = row as f64 * scale - 1.5;
    let steps = |column: u64| {
        let x = column as f64 * scale - 2.25;
        let (mut a, mut b, mut steps) = (0.0, 0.0, 0);
        while steps < LIMIT && a * a + b * b <= 4.0 {
            (a, b) = (a * a - b * b + x, 2.0 * a * b + y);
            steps += 1;
        }
        steps
    };
    (0..size).map(steps).sum()
}
