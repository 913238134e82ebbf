//! Progress bars, with the feature `progress`: for a [`Map`], for [`as_completed`](crate::as_completed), and for what
//! [`Parallel`](crate::parallel::Parallel) makes.
//!
//! ```
//! use concurrent_futures::{Executor, ThreadPoolExecutor, progress::WithProgress};
//!
//! let pool = ThreadPoolExecutor::new(2)?;
//! let squares: Vec<u64> = pool.map(|x| x * x, 0..1000).progress().collect::<Result<_, _>>()?;
//! assert_eq!(squares.len(), 1000);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A bar counts results as they are yielded: each once, whatever chunk it came in, however often its call was made, in
//! whatever order they come. Those that are errors count as done, and it says how many they are. It knows how many are
//! still to come, and so when, if the input knows its length. It is on standard error, and only if that is a terminal.
//! It stays as it is when it is over, or is dropped before, with the next line free for others; while it is there,
//! print with [`suspend`](indicatif::ProgressBar::suspend) of a bar of your own.

use executor_core::{AsCompleted, AsCompletedTimeout, AsFuture, Delayed, Map, TaskError, Timeout, Value};
use indicatif::{ProgressBar, ProgressFinish, ProgressState, ProgressStyle};
use std::{fmt, iter::FusedIterator, time::Duration};

use crate::parallel::{Generator, ParallelError};

/// How often a bar is drawn anew when nothing comes, so that its clock goes on.
const TICK: Duration = Duration::from_millis(200);

const BAR: &str = "{wide_bar} {human_pos}/{human_len} {rate} {elapsed}, {eta} left {msg}";
const COUNT: &str = "{spinner} {human_pos} {rate} {elapsed} {msg}";

/// Results that can be shown to come. Implemented for [`Map`], [`AsCompleted`] with or without a limit, and [`Generator`].
///
/// Other choices for these come first: `pool.map(f, items).unordered().progress()`.
pub trait WithProgress: Results {
    /// Shows a bar while results are taken.
    fn progress(self) -> Progress<Self> {
        let total = self.remaining();
        Progress { results: self, counter: Counter::default_of(total) }
    }

    /// Shows `bar` while results are taken: any bar, in any style, anywhere. It is told how many results there are,
    /// where that is known, how many have come, and in its message how many of them failed. At the end it is finished
    /// as its style says.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{Executor, ThreadPoolExecutor, progress::WithProgress};
    /// use indicatif::ProgressBar;
    ///
    /// let pool = ThreadPoolExecutor::new(2)?;
    /// let bar = ProgressBar::hidden();
    /// let failed = pool.map(|x: u32| 6 / x, 0..4).progress_with(bar.clone()).filter(Result::is_err).count();
    /// assert_eq!((failed, bar.position(), bar.length()), (1, 4, Some(4)));
    /// assert_eq!(bar.message(), "1 failed");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn progress_with(self, bar: ProgressBar) -> Progress<Self> {
        let total = self.remaining();
        Progress { results: self, counter: Counter::of_own(bar, total) }
    }
}

impl<I: Results> WithProgress for I {}

/// What [`WithProgress`] can show. Sealed.
pub trait Results: Iterator + Sized + sealed::Sealed {
    /// How many are still to come, where that is known.
    #[doc(hidden)]
    fn remaining(&self) -> Option<usize>;

    /// Whether this is a failure.
    #[doc(hidden)]
    fn is_failure(result: &Self::Item) -> bool;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! results {
    ($([$($generics:tt)*] $type:ty: |$this:ident| $remaining:expr, |$item:ident: $of:ty| $fails:expr;)*) => {$(
        impl<$($generics)*> sealed::Sealed for $type {}

        impl<$($generics)*> Results for $type {
            fn remaining(&self) -> Option<usize> {
                let $this = self;
                $remaining
            }

            fn is_failure($item: &$of) -> bool {
                $fails
            }
        }
    )*};
}

results! {
    [I: Iterator<Item: Value>, R: Value] Map<'_, I, R>: |map| map.remaining(), |result: Result<R, TaskError>| result.is_err();
    [I: Iterator<Item = Delayed<R>>, R: Value] Generator<I, R>:
        |results| results.remaining(), |result: Result<R, ParallelError>| result.is_err();
    [F: AsFuture] AsCompleted<F>: |futures| Some(futures.remaining()), |future: F| has_failed(future);
    [F: AsFuture] AsCompletedTimeout<F>:
        |futures| Some(futures.remaining()), |result: Result<F, Timeout>| result.as_ref().map_or(true, has_failed);
}

fn has_failed(future: &impl AsFuture) -> bool {
    future.as_future().exception().is_some()
}

/// Results that are shown to come. From [`WithProgress`].
#[derive(Debug)]
#[must_use = "nothing comes before it is taken"]
pub struct Progress<I> {
    results: I,
    counter: Counter,
}

impl<I: Results> Iterator for Progress<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        match self.results.next() {
            Some(result) => {
                let (remaining, failed) = (self.results.remaining(), u64::from(I::is_failure(&result)));
                let total = remaining.map(|remaining| self.counter.done + 1 + remaining as u64);
                self.counter.advance(1, failed, total);
                Some(result)
            }
            None => {
                self.counter.finish();
                None
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.results.size_hint()
    }
}

impl<I: Results + FusedIterator> FusedIterator for Progress<I> {}

/// Which bar is to be shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chosen {
    own: Option<ProgressBar>,
}

impl Chosen {
    pub(crate) fn own(bar: ProgressBar) -> Self {
        Chosen { own: Some(bar) }
    }

    pub(crate) fn counter(self, total: Option<usize>) -> Counter {
        match self.own {
            Some(bar) => Counter::of_own(bar, total),
            None => Counter::default_of(total),
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).expect("the templates are constants, and right");
    style.with_key("rate", |state: &ProgressState, out: &mut dyn fmt::Write| {
        // What cannot be written now is drawn anew soon.
        let _ = match state.per_sec() {
            fast if fast >= 10.0 => write!(out, "{fast:.0}/s"),
            slow => write!(out, "{slow:.2}/s"),
        };
    })
}

/// A bar, and what it was told.
#[derive(Debug)]
pub(crate) struct Counter {
    /// `None`: nobody looks.
    bar: Option<ProgressBar>,
    done: u64,
    failed: u64,
    is_over: bool,
}

impl Counter {
    fn default_of(total: Option<usize>) -> Self {
        let bar = match total {
            Some(total) => ProgressBar::new(total as u64).with_style(style(BAR)),
            None => ProgressBar::no_length().with_style(style(COUNT)),
        };
        let bar = (!bar.is_hidden()).then(|| {
            bar.enable_steady_tick(TICK);
            bar.with_finish(ProgressFinish::AndLeave)
        });
        Counter { bar, done: 0, failed: 0, is_over: false }
    }

    fn of_own(bar: ProgressBar, total: Option<usize>) -> Self {
        if let Some(total) = total {
            bar.set_length(total as u64);
        }
        Counter { bar: Some(bar), done: 0, failed: 0, is_over: false }
    }

    /// So many more are done, of which so many failed.
    pub(crate) fn advance(&mut self, done: u64, failed: u64, total: Option<u64>) {
        self.done += done;
        self.failed += failed;
        let Some(bar) = &self.bar else { return };
        if let Some(total) = total
            && bar.length() != Some(total)
        {
            bar.set_length(total);
        }
        if failed > 0 {
            bar.set_message(format!("{} failed", self.failed));
        }
        bar.inc(done);
    }

    /// All are done.
    pub(crate) fn finish(&mut self) {
        if !std::mem::replace(&mut self.is_over, true)
            && let Some(bar) = &self.bar
        {
            bar.finish_using_style();
        }
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        if !self.is_over
            && let Some(bar) = &self.bar
        {
            // It stays as it is, and what is printed next begins on a line of its own.
            bar.abandon();
        }
    }
}
