//! A picture of a run: which worker made which call when, and what went wrong. For the feature `timeline`.
//!
//! | file | decides |
//! |---|---|
//! | `record` | what is kept of what an observer is told |
//! | `symbols` | what a function is called |
//! | `trace` | Chrome's trace format |
//! | `page` | the page: its data; `page.html`, `page.css` and `page.js` are the rest |

mod page;
mod record;
mod symbols;
mod trace;

use executor_core::{Observer, TaskEvent, WorkerEvent, sync::Mutex};
use std::{
    fmt,
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
    sync::Arc,
    time::Instant,
};

use record::{Record, Recorded};

/// Records what pools do, for a picture of it: an [`Observer`] that keeps what it is told.
///
/// Each worker has a lane, with a block for each call, which tells the function, where it was submitted, how long it waited and
/// ran, and how it ended. Failed calls and dead workers stand out. Calls that one worker made in another's place, while that
/// waited, lie within the one that waited.
///
/// One timeline may be given to several pools, and holds all that they do until it is dropped, about a hundred bytes for each
/// call. What it writes is complete when the pools have been [shut down](crate::Executor::shutdown) or dropped; earlier, what is
/// still running is drawn up to now. Clones are the same timeline.
///
/// # Examples
/// ```
/// use concurrent_futures::{Executor, ThreadPoolExecutor, timeline::Timeline};
///
/// fn cube(x: u64) -> u64 {
///     x.pow(3)
/// }
///
/// let timeline = Timeline::new();
/// let pool = ThreadPoolExecutor::builder().max_workers(2).observer(timeline.clone()).build()?;
/// let cubes: Vec<u64> = pool.map(cube, 0..1000).collect::<Result<_, _>>()?;
/// drop(pool);
/// # let directory = std::env::temp_dir().join(format!("timeline-{}", std::process::id()));
/// # std::fs::create_dir_all(&directory)?;
/// # let (html, json) = (directory.join("run.html"), directory.join("run.json"));
/// timeline.write_html(&html)?; // for any browser: one file, which needs no network
/// timeline.write_json(&json)?; // for https://ui.perfetto.dev
/// # std::fs::remove_dir_all(directory)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Timeline {
    record: Arc<Mutex<Record>>,
}

impl Default for Timeline {
    fn default() -> Self {
        Timeline::new()
    }
}

impl Timeline {
    /// One that begins now.
    #[must_use]
    pub fn new() -> Timeline {
        Timeline { record: Arc::new(Mutex::new(Record::new(Instant::now()))) }
    }

    /// Makes `call` on this thread, and records it under `name` in a lane of this thread's: for what is done beside the pools.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::timeline::Timeline;
    ///
    /// let timeline = Timeline::new();
    /// assert_eq!(timeline.span("add up", || (1..=4).sum::<u32>()), 10);
    /// ```
    #[track_caller]
    pub fn span<R>(&self, name: &'static str, call: impl FnOnce() -> R) -> R {
        let site = std::panic::Location::caller();
        let began = Instant::now();
        let result = call();
        self.record.lock().span(name, site, began, Instant::now());
        result
    }

    /// Writes Chrome's trace format, which <https://ui.perfetto.dev> and `chrome://tracing` open.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_json(&self, path: impl AsRef<Path>) -> io::Result<()> {
        self.write(path.as_ref(), trace::write)
    }

    /// Writes a page for any browser. It is one file, and needs no network.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_html(&self, path: impl AsRef<Path>) -> io::Result<()> {
        self.write(path.as_ref(), page::write)
    }

    fn write(&self, path: &Path, write: fn(&Recorded, &mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        // Symbols are looked up outside of the lock, which whoever tells events needs.
        let recorded = { self.record.lock().snapshot(Instant::now()) };
        let recorded = recorded.named();
        let mut out = BufWriter::new(File::create(path)?);
        write(&recorded, &mut out)?;
        out.flush()
    }
}

impl Observer for Timeline {
    fn task(&self, event: &TaskEvent) {
        self.record.lock().task(event);
    }

    fn worker(&self, event: &WorkerEvent) {
        self.record.lock().worker(event);
    }

    fn missing(&self, events: u64) {
        self.record.lock().missing(events);
    }
}

impl fmt::Debug for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timeline").field("calls", &self.record.lock().calls()).finish_non_exhaustive()
    }
}

/// A string of JSON, which may stand in a page's script: nothing in it ends that.
fn json_string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", char as u32)),
            char if char.is_control() => out.push_str(&format!("\\u{:04x}", char as u32)),
            char => out.push(char),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::json_string;

    #[test]
    fn strings_are_told_as_they_are_and_end_no_script() {
        let text = "\"a\\b\"\n</script><!-- \u{7}\u{2028}é😀";
        let json = json_string(text);
        assert!(!json.contains(['<', '>', '\n', '\u{7}', '\u{2028}']), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }
}
