//! What becomes of that which calls print: whose line it is, and to whom it is told.

use executor_core::{
    TaskId,
    task::{Luggage, Parcel},
};
use std::{
    fmt,
    io::{self, Read},
    panic::Location,
    process::ChildStdout,
    sync::Arc,
};

use crate::{claims::Claim, echo::Echo, lane::Lane, teller::Teller};

/// Longer lines are told in pieces.
const LINE_BYTES: usize = 8 << 10;

/// What a pipe can hold is read in so many goes, or in fewer.
const READS: usize = 64;

/// What becomes of that which worker processes write to their standard output and error.
///
/// # What is guaranteed
/// For [`Prefixed`](Output::Prefixed) and [`Capture`](Output::capture), a worker is given its next call only when its last
/// one has been answered and all that it had printed has been read. So a line is told of the call that was being made as it was
/// written. All of a call's lines are on their way, in the order of each stream, before its future is done; but they are
/// printed, or the function is called, on a thread of its own, perhaps a little later. When
/// [`shutdown`](executor_core::Executor::shutdown) has waited, all is told.
///
/// The price is that calls no longer wait in a worker's channel, so that very short ones take longer.
///
/// What a call left running, a thread or a process, is heard as well: its lines are told of the call that its worker makes
/// then, or of none. C's `printf` keeps what is for a pipe in a buffer of its own: `fflush` it.
///
/// Nothing is lost while this process lives, and nothing piles up: a worker whose lines are told too slowly waits as it writes.
///
/// # Examples
/// ```
/// use concurrent_futures::{Executor, Output, ProcessPoolExecutor, Shutdown};
/// use std::sync::mpsc;
///
/// let (sender, lines) = mpsc::channel();
/// let pool = ProcessPoolExecutor::builder()
///     .max_workers(1)
///     .output(Output::capture(move |line| drop(sender.send(line))))
///     .build()?;
/// let future = pool.submit(|name: String| println!("hello, {name}"), "world".to_owned());
/// let line = lines.recv()?;
/// assert_eq!((line.text.as_str(), line.task), ("hello, world", Some(future.id())));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Output {
    /// It appears where this process's own does, as it is written. The last of the standard error is kept for a lost worker's
    /// error, as it always is.
    #[default]
    Inherit,
    /// As `Inherit`, line by line, each with the worker's name, the call's number and where it was submitted before it:
    /// `[executor-0-1 task 7 src/main.rs:12:24] the line`.
    Prefixed,
    /// Each line is given to a function, and appears nowhere else.
    Capture(
        /// The function. It runs on a thread of the pool's own.
        Arc<dyn Fn(OutputLine) + Send + Sync>,
    ),
}

impl Output {
    /// Gives each line to `function`, on a thread of the pool's own. To receive them elsewhere, have it send them through a
    /// channel. It must not wait for calls of the same pool, which may be waiting for it. Its panics are printed, and go no
    /// further.
    pub fn capture(function: impl Fn(OutputLine) + Send + Sync + 'static) -> Output {
        Output::Capture(Arc::new(function))
    }

    /// Whether it matters which call wrote something.
    pub(crate) fn is_attributed(&self) -> bool {
        !matches!(self, Output::Inherit)
    }
}

/// Two functions are equal if they are the same.
impl PartialEq for Output {
    fn eq(&self, other: &Output) -> bool {
        match (self, other) {
            (Output::Inherit, Output::Inherit) | (Output::Prefixed, Output::Prefixed) => true,
            (Output::Capture(one), Output::Capture(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Output::Inherit => "Inherit",
            Output::Prefixed => "Prefixed",
            Output::Capture(_) => "Capture(..)",
        })
    }
}

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line that a worker process wrote. `Display` is what [`Output::Prefixed`] prints of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutputLine {
    /// The worker process.
    pub pid: u32,
    /// Its name, as `ps` shows it.
    pub worker: Arc<str>,
    /// Where it was written.
    pub stream: OutputStream,
    /// The call that was being made. `None`: none was, or the initializer.
    pub task: Option<TaskId>,
    /// The line of the `submit` or `map` that made the task.
    pub submitted_at: Option<&'static Location<'static>>,
    /// The line without its end. What is not UTF-8 is replaced. One of more than 8 KiB comes in pieces.
    pub text: String,
}

impl fmt::Display for OutputLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}", self.worker)?;
        if let (Some(task), Some(site)) = (self.task, self.submitted_at) {
            write!(f, " task {task} {site}")?;
        }
        write!(f, "] {}", self.text)
    }
}

/// The worker that says something, and the call that it makes.
#[derive(Clone, Debug)]
pub(crate) struct Speaker {
    pub(crate) pid: u32,
    pub(crate) name: Arc<str>,
    pub(crate) task: Option<(TaskId, &'static Location<'static>)>,
    /// Where the call comes from, for its records.
    #[cfg_attr(not(feature = "tracing"), expect(dead_code, reason = "only a subscriber knows spans"))]
    pub(crate) origin: Option<Luggage>,
}

/// What is put beside a log record's message.
impl fmt::Display for Speaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((task, site)) = self.task {
            write!(f, "task {task} submitted at {site}, ")?;
        }
        write!(f, "worker process {}", self.pid)
    }
}

/// What a worker whose lines are told writes.
pub(crate) struct Speech {
    pub(crate) stdout: Option<ChildStdout>,
    lines: [Lines; 2],
}

impl Speech {
    pub(crate) fn new(stdout: Option<ChildStdout>) -> Speech {
        Speech { stdout, lines: Default::default() }
    }

    /// Tells the lines of which the last is written now.
    pub(crate) fn tell(&mut self, speaker: &Speaker, stream: OutputStream, bytes: &[u8], teller: &mut Teller) {
        self.lines[stream as usize].push(bytes, |text| teller.line(speaker, stream, text));
    }

    /// Tells a line that has no end.
    pub(crate) fn end(&mut self, speaker: &Speaker, stream: OutputStream, teller: &mut Teller) {
        self.lines[stream as usize].end(|text| teller.line(speaker, stream, text));
    }
}

impl Lane {
    /// Who speaks, if something that it wrote is read now.
    pub(crate) fn speaker(&self) -> Speaker {
        let claims = &self.channel.claims;
        let begun = self.in_flight.iter().filter(|call| claims.get(call.ticket) == Claim::Begun);
        self.speaker_of(begun.filter_map(|call| call.parcel.as_ref()).next())
    }

    /// Who speaks, if it says itself for which call.
    pub(crate) fn speaker_for(&self, ticket: u64) -> Speaker {
        let call = self.in_flight.iter().find(|call| call.ticket == ticket);
        self.speaker_of(call.and_then(|call| call.parcel.as_ref()))
    }

    fn speaker_of(&self, parcel: Option<&Parcel>) -> Speaker {
        Speaker {
            pid: self.child.id(),
            name: Arc::clone(&self.name),
            task: parcel.map(|parcel| (parcel.id(), parcel.submitted_at())),
            origin: parcel.and_then(Parcel::luggage).cloned(),
        }
    }

    /// Tells what was read of a stream. `false`: its lines are not told.
    pub(crate) fn tell_output(&mut self, stream: OutputStream, bytes: &[u8], teller: &mut Teller) -> bool {
        let Some(mut speech) = self.speech.take() else { return false };
        let speaker = self.speaker();
        speech.tell(&speaker, stream, bytes, teller);
        self.speech = Some(speech);
        true
    }

    /// Reads some of what it wrote to its standard output, where that is told. `false`: nothing was there.
    pub(crate) fn read_stdout(&mut self, teller: &mut Teller) -> bool {
        let Some(stdout) = self.speech.as_mut().and_then(|speech| speech.stdout.as_mut()) else { return false };
        let mut bytes = [0; 8192];
        match stdout.read(&mut bytes) {
            Ok(0) => {
                self.watch.remove(stdout);
                self.speech.as_mut().expect("it was there").stdout = None;
                false
            }
            Ok(got) => self.tell_output(OutputStream::Stdout, &bytes[..got], teller),
            Err(error) => error.kind() == io::ErrorKind::Interrupted,
        }
    }

    /// The worker's call is over, or the worker is: tells all that it wrote until then. Bounded, since a child of the
    /// worker's may still hold the pipes, and write for ever.
    pub(crate) fn hear_out(&mut self, echo: &mut Echo) {
        if self.speech.is_none() {
            return;
        }
        for _ in 0..READS {
            let (out, err) = (self.read_stdout(&mut echo.teller), self.read_stderr(echo));
            if !out && !err {
                break;
            }
        }
        let speaker = self.speaker();
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            self.speech.iter_mut().for_each(|speech| speech.end(&speaker, stream, &mut echo.teller));
        }
    }
}

/// Cuts a stream into lines. Keeps no more than the longest one.
#[derive(Default)]
struct Lines {
    /// A line that has no end yet.
    begun: Vec<u8>,
}

impl Lines {
    fn push(&mut self, bytes: &[u8], mut tell: impl FnMut(String)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.begun.extend_from_slice(piece);
            if self.begun.pop_if(|last| *last == b'\n').is_some() {
                tell(text(&self.begun));
                self.begun.clear();
            }
            while self.begun.len() >= LINE_BYTES {
                // Not within a character.
                let cut = (LINE_BYTES - 3..LINE_BYTES).rev().find(|cut| self.begun[*cut] & 0xc0 != 0x80);
                let rest = self.begun.split_off(cut.unwrap_or(LINE_BYTES));
                tell(text(&self.begun));
                self.begun = rest;
            }
        }
    }

    /// Whoever wrote the line writes no more of it.
    fn end(&mut self, mut tell: impl FnMut(String)) {
        if !self.begun.is_empty() {
            tell(text(&self.begun));
            self.begun.clear();
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(pieces: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut told) = (Lines::default(), Vec::new());
        for piece in pieces {
            lines.push(piece, |text| told.push(text));
            assert!(lines.begun.len() < LINE_BYTES);
        }
        lines.end(|text| told.push(text));
        told
    }

    #[test]
    fn lines_are_cut_where_they_end() {
        assert_eq!(cut(&[b"one\ntw", b"o\n\nthr", b"ee"]), ["one", "two", "", "three"]);
        assert_eq!(cut(&[b"one\n"]), ["one"]);
        assert!(cut(&[]).is_empty());
        assert_eq!(cut(&[b"\xff\n"]), ["\u{fffd}"]);
    }

    /// However long a line is, no more than a piece of it is kept, and nothing of it is lost.
    #[test]
    fn endless_lines_come_in_pieces() {
        let long = "\u{20ac}".repeat(LINE_BYTES);
        for size in [1, 1000, LINE_BYTES, 3 * LINE_BYTES] {
            let pieces: Vec<&[u8]> = long.as_bytes().chunks(size).collect();
            let told = cut(&pieces);
            assert!(told.len() >= 3 && told.concat() == long, "pieces of {size}");
        }
    }
}
