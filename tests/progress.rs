//! Progress bars, on a screen of a test's own.

use concurrent_futures::{
    Executor, ProcessPoolExecutor, RetryPolicy, TaskOptions, ThreadPoolExecutor, as_completed,
    parallel::{Parallel, delayed},
    progress::WithProgress,
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, TermLike};
use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

/// What a terminal shows: lines, and where the next character goes.
#[derive(Clone, Debug, Default)]
struct Screen(Arc<Mutex<Shown>>);

#[derive(Debug, Default)]
struct Shown {
    lines: Vec<String>,
    row: usize,
    column: usize,
}

impl Shown {
    fn put(&mut self, text: &str) {
        for c in text.chars() {
            while self.lines.len() <= self.row {
                self.lines.push(String::new());
            }
            match c {
                '\n' => (self.row, self.column) = (self.row + 1, 0),
                '\r' => self.column = 0,
                _ => {
                    let line = &mut self.lines[self.row];
                    let mut chars: Vec<char> = line.chars().collect();
                    chars.resize(chars.len().max(self.column + 1), ' ');
                    chars[self.column] = c;
                    *line = chars.into_iter().collect();
                    self.column += 1;
                }
            }
        }
    }
}

impl Screen {
    fn bar(&self) -> ProgressBar {
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(self.clone()), 100);
        ProgressBar::with_draw_target(None, target).with_finish(ProgressFinish::AndLeave)
    }

    /// What is there after a line was printed as any program prints.
    fn after(&self, line: &str) -> Vec<String> {
        let mut shown = self.0.lock().unwrap();
        // A terminal's line that is full goes on in the next one; a program that begins there finds it empty.
        if shown.column == usize::from(self.width()) {
            (shown.row, shown.column) = (shown.row + 1, 0);
        }
        shown.put(line);
        shown.lines.iter().map(|line| line.trim_end().to_owned()).filter(|line| !line.is_empty()).collect()
    }
}

impl TermLike for Screen {
    fn width(&self) -> u16 {
        80
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        let mut shown = self.0.lock().unwrap();
        shown.row = shown.row.saturating_sub(n);
        Ok(())
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.0.lock().unwrap().row += n;
        Ok(())
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.0.lock().unwrap().column += n;
        Ok(())
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        let mut shown = self.0.lock().unwrap();
        shown.column = shown.column.saturating_sub(n);
        Ok(())
    }

    fn write_line(&self, line: &str) -> io::Result<()> {
        let mut shown = self.0.lock().unwrap();
        shown.put(line);
        shown.put("\n");
        Ok(())
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.0.lock().unwrap().put(text);
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        let mut shown = self.0.lock().unwrap();
        let row = shown.row;
        if let Some(line) = shown.lines.get_mut(row) {
            line.clear();
        }
        shown.column = 0;
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

fn pools() -> [Box<dyn Executor>; 2] {
    [Box::new(ThreadPoolExecutor::new(2).unwrap()), Box::new(ProcessPoolExecutor::new(2).unwrap())]
}

fn failing(x: u32) -> u32 {
    assert!(!x.is_multiple_of(25), "each 25th");
    x
}

/// Whatever the order and the chunks, each result counts once, and failures are told apart.
#[test]
fn a_map_is_counted_by_its_results() {
    for pool in pools() {
        for (chunk, unordered) in [(None, false), (None, true), (Some(7), false), (Some(7), true)] {
            let mut map = pool.map(failing, 0..100);
            if let Some(size) = chunk {
                map = map.chunk_size(size);
            }
            let bar = ProgressBar::hidden();
            let map = if unordered { map.unordered() } else { map }.progress_with(bar.clone());
            assert_eq!(bar.length(), Some(100), "it is known before anything is done");
            let mut seen = 0;
            for _ in map {
                seen += 1;
                assert_eq!(bar.position(), seen);
            }
            assert_eq!((seen, bar.length(), bar.message().as_str()), (100, Some(100), "4 failed"));
            assert!(bar.is_finished());
        }
    }
}

/// Further attempts at a call are not further results.
#[test]
fn retries_count_once() {
    for pool in pools() {
        let pool = pool.with(TaskOptions::new().retry(RetryPolicy::attempts(3)));
        let bar = ProgressBar::hidden();
        assert_eq!(pool.map(failing, 0..20).progress_with(bar.clone()).count(), 20);
        assert_eq!((bar.position(), bar.message().as_str()), (20, "1 failed"));
    }
}

/// An input that does not say how long it is has a count, and the total as soon as that is known.
#[test]
fn a_total_is_shown_when_it_is_known() {
    let pool = ThreadPoolExecutor::new(2).unwrap();
    let bar = ProgressBar::hidden();
    let items = (0..50_u32).filter(|x| x % 2 == 0);
    let mut map = pool.map(|x| x, items).progress_with(bar.clone());
    map.next().unwrap().unwrap();
    assert_eq!(bar.length(), None);
    assert_eq!(map.count(), 24);
    assert_eq!((bar.position(), bar.length()), (25, Some(25)));
}

#[test]
fn as_completed_is_counted() {
    for pool in pools() {
        let futures = || (0..20).map(|x| pool.submit(failing, x));
        let bar = ProgressBar::hidden();
        assert_eq!(as_completed(futures()).progress_with(bar.clone()).count(), 20);
        assert_eq!((bar.position(), bar.length(), bar.message().as_str()), (20, Some(20), "1 failed"));
        let limited = as_completed(futures()).timeout(Duration::from_secs(60));
        assert_eq!(limited.progress().filter(Result::is_ok).count(), 20);
    }
}

/// In whatever way its results are taken.
#[test]
fn parallel_calls_are_counted() {
    for backend in ["threading", "process", "sequential"] {
        let calls = || (0..30).map(|x| delayed(failing)(x));
        let with = |bar: &ProgressBar| Parallel::new().n_jobs(2).backend(backend).progress_with(bar.clone());
        let bar = ProgressBar::hidden();
        assert_eq!(with(&bar).outcomes(calls()).unwrap().len(), 30);
        assert_eq!((bar.position(), bar.length(), bar.message().as_str()), (30, Some(30), "2 failed"));
        assert!(bar.is_finished());
        let bar = ProgressBar::hidden();
        assert_eq!(with(&bar).generator(calls()).unwrap().count(), 30);
        assert_eq!((bar.position(), bar.is_finished()), (30, true));
        let bar = ProgressBar::hidden();
        let generator = Parallel::new().n_jobs(2).backend(backend).generator_unordered(calls()).unwrap();
        assert_eq!(generator.progress_with(bar.clone()).count(), 30);
        assert_eq!((bar.position(), bar.message().as_str()), (30, "2 failed"));
        assert_eq!(
            Parallel::new()
                .n_jobs(2)
                .backend(backend)
                .progress()
                .run((1..9).map(|x| delayed(failing)(x)))
                .unwrap()
                .len(),
            8
        );
    }
}

/// When it is over, or dropped before, the bar stands as it was, once, and what is printed next begins on a line of its own.
#[test]
fn a_bar_leaves_the_screen_in_order() {
    let pool = ThreadPoolExecutor::new(2).unwrap();
    for taken in [0, 1, 57, 100] {
        let screen = Screen::default();
        let mut map = pool.map(|x: u32| x, 0..100).progress_with(screen.bar());
        for _ in 0..taken {
            map.next().unwrap().unwrap();
        }
        if taken == 100 {
            assert!(map.next().is_none());
        }
        drop(map);
        let lines = screen.after("next");
        assert_eq!(lines.last().unwrap(), "next", "{lines:?}");
        let bars: Vec<_> = lines.iter().filter(|line| line.contains("/100")).collect();
        assert!(bars.len() <= 1 && lines.len() <= 2, "{lines:?}");
        assert!(taken == 0 || bars[0].contains(&format!("{taken}/100")), "{lines:?}");
    }
    // In a panic too.
    let screen = Screen::default();
    let bar = screen.bar();
    let map = pool.map(|x: u32| x, 0..100).progress_with(bar.clone());
    let taking = std::panic::AssertUnwindSafe(|| map.for_each(|x| assert!(x.unwrap() < 5)));
    std::panic::catch_unwind(taking).unwrap_err();
    assert!(bar.is_finished());
    assert_eq!(screen.after("next").last().unwrap(), "next");
}
