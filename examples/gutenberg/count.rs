//! What is counted, and how one span of it is.
//!
//! A word is a maximal run of bytes between ASCII whitespace. It belongs to the span in which it *begins*, wherever
//! it ends. So each word belongs to exactly one span, however the text is cut, and a span is counted without
//! knowing what others found. Two things outside of it have to be seen:
//!
//! ```text
//!        ·───────── span ─────────·
//!  ... h o│t d o g   d o g s   d o│g   c a t ...
//!        ▲                        └──┬──┘
//!        │                           as many bytes behind it as the longest searched word has: enough
//!        │                           for a word that begins at the last byte, and for what follows it
//!        one byte before it: is the first byte the beginning of a word?
//! ```

use serde::{Deserialize, Serialize};
use std::{
    cell::RefCell,
    ffi::OsString,
    fs::{self, File},
    io,
    num::NonZeroU64,
    ops::Range,
    os::unix::fs::FileExt,
    path::Path,
    sync::OnceLock,
};

/// How often each of the searched words was found, in their order.
pub(crate) type Counts = Vec<u64>;

/// Bytes that are read at a time: a span may be larger than what memory should hold.
const BLOCK: u64 = 256 << 10;

/// What all tasks share, and each worker receives once: the files and the words.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    files: Vec<Source>,
    words: Vec<String>,
    /// Made from `words` by each process that needs it.
    #[serde(skip)]
    search: OnceLock<Search>,
}

/// A file, and how long it was when the job began.
#[derive(Debug, Serialize, Deserialize)]
struct Source {
    /// Not a `PathBuf`, which is encoded as a string, and not every name is one.
    path: OsString,
    length: u64,
}

impl Job {
    /// # Errors
    /// One of `files` is not there, is not a file, or cannot be read.
    pub(crate) fn new(files: Vec<OsString>, words: Vec<String>) -> Result<Self, String> {
        let source = |path: OsString| {
            let length = length_of(Path::new(&path))?;
            // Opened for nothing but the error, before any worker meets it.
            File::open(&path).map_err(|error| unreadable(Path::new(&path), &error))?;
            Ok(Source { path, length })
        };
        let files = files.into_iter().map(source).collect::<Result<_, String>>()?;
        Ok(Job { files, words, search: OnceLock::new() })
    }

    pub(crate) fn words(&self) -> &[String] {
        &self.words
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|source| Path::new(&source.path))
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|source| source.length).sum()
    }

    /// All files in spans of `chunk` bytes, the last of each file perhaps shorter.
    pub(crate) fn spans(&self, chunk: NonZeroU64) -> Spans {
        let lengths: Vec<_> = self.files.iter().map(|source| source.length).collect();
        let left = lengths.iter().map(|length| length.div_ceil(chunk.get())).sum();
        Spans { lengths, chunk: chunk.get(), file: 0, start: 0, left }
    }

    /// # Errors
    /// A file is not as long as it was: what was counted then belongs to no one text.
    pub(crate) fn check_lengths(&self) -> Result<(), String> {
        for source in &self.files {
            let (path, before) = (Path::new(&source.path), source.length);
            let now = length_of(path)?;
            if now != before {
                return Err(format!("{path:?} changed while it was counted: it had {before} bytes, and now has {now}"));
            }
        }
        Ok(())
    }
}

fn length_of(path: &Path) -> Result<u64, String> {
    let metadata = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    match metadata.file_type() {
        kind if kind.is_file() => Ok(metadata.len()),
        kind if kind.is_dir() => Err(format!("{path:?} is a directory")),
        _ => Err(format!("{path:?} is not a regular file")),
    }
}

/// What is said of a file that cannot be read.
pub(crate) fn unreadable(path: &Path, error: &io::Error) -> String {
    format!("{path:?} cannot be read: {error}")
}

/// Part of a file: this is all that a task consists of.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Span {
    file: usize,
    start: u64,
    pub(crate) length: u64,
}

/// All spans of a job, one after the other. Lazy: in spans of one byte, a book has a million of them.
#[derive(Clone, Debug)]
pub(crate) struct Spans {
    lengths: Vec<u64>,
    chunk: u64,
    file: usize,
    start: u64,
    left: u64,
}

impl Iterator for Spans {
    type Item = Span;

    fn next(&mut self) -> Option<Span> {
        // A file that is empty has no span.
        while self.start >= *self.lengths.get(self.file)? {
            self.file += 1;
            self.start = 0;
        }
        let (file, start) = (self.file, self.start);
        let length = self.chunk.min(self.lengths[file] - start);
        self.start += length;
        self.left -= 1;
        Some(Span { file, start, length })
    }

    /// Exact, so that a map can share out the last items fairly.
    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::try_from(self.left);
        (left.unwrap_or(usize::MAX), left.ok())
    }
}

/// The task: counts the words that begin in `span`.
///
/// # Errors
/// The file cannot be read, or has become too short.
pub(crate) fn count_span(job: &Job, span: Span) -> Result<Counts, String> {
    // A worker, be it a thread or a process, makes many of these calls, one after the other.
    thread_local!(static READER: RefCell<Reader> = RefCell::default());

    let source = &job.files[span.file];
    let search = job.search.get_or_init(|| Search::new(&job.words));
    let mut counts = vec![0; job.words.len()];
    let end = span.start + span.length;
    READER.with_borrow_mut(|reader| {
        // What holds for spans of a file holds for blocks of a span.
        let mut start = span.start;
        while start < end {
            let block = start..end.min(start + BLOCK);
            start = block.end;
            let seen = block.start.saturating_sub(1)..source.length.min(block.end.saturating_add(search.longest));
            let text = reader.read(&source.path, seen.clone())?;
            let within = |at: u64| (at - seen.start) as usize; // fits, as what was read does
            search.count(text, within(block.start)..within(block.end), &mut counts);
        }
        Ok(counts)
    })
}

/// What a worker keeps from one span to the next, so that a span of a few bytes costs one read and little else.
#[derive(Default)]
struct Reader {
    /// The file that was read last. Spans come in order, so there is rarely need of another.
    opened: Option<(OsString, File)>,
    buffer: Vec<u8>,
}

impl Reader {
    fn read(&mut self, path: &OsString, bytes: Range<u64>) -> Result<&[u8], String> {
        let told = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => format!("{path:?} became shorter while it was counted"),
            _ => unreadable(Path::new(path), &error),
        };
        let file = match &mut self.opened {
            Some((name, file)) if name == path => file,
            opened => &mut opened.insert((path.clone(), File::open(path).map_err(told)?)).1,
        };
        let length = (bytes.end - bytes.start) as usize; // at most a block and what is seen around it
        if self.buffer.len() < length {
            self.buffer.resize(length, 0);
        }
        let buffer = &mut self.buffer[..length];
        file.read_exact_at(buffer, bytes.start).map_err(told)?;
        Ok(buffer)
    }
}

/// The searched words, in the form in which they are found fast.
#[derive(Debug)]
struct Search {
    words: Vec<Vec<u8>>,
    longest: u64,
    /// For each byte: [`WHITESPACE`], [`INITIAL`], or nothing.
    classes: [u8; 256],
    /// For each byte: which words begin with it.
    by_initial: Vec<Vec<usize>>,
}

const WHITESPACE: u8 = 1;
/// A searched word begins with it. `WHITESPACE << 1`, so that one comparison sees both in a row.
const INITIAL: u8 = 2;

impl Search {
    fn new(words: &[String]) -> Self {
        let words: Vec<_> = words.iter().map(|word| word.clone().into_bytes()).collect();
        let mut classes = [0; 256];
        for byte in (0..=u8::MAX).filter(u8::is_ascii_whitespace) {
            classes[usize::from(byte)] = WHITESPACE;
        }
        let mut by_initial = vec![Vec::new(); 256];
        for (index, word) in words.iter().enumerate() {
            let initial = usize::from(word[0]); // none is empty
            classes[initial] = INITIAL;
            by_initial[initial].push(index);
        }
        let longest = words.iter().map(Vec::len).max().unwrap_or(0) as u64;
        Search { words, longest, classes, by_initial }
    }

    /// Counts the words that begin in `span` of `text`. Before it there is one byte or the beginning of the file, and
    /// behind it there are `longest` bytes or its end.
    fn count(&self, text: &[u8], span: Range<usize>, counts: &mut [u64]) {
        let class = |byte: &u8| self.classes[usize::from(*byte)];
        let mut before = text[..span.start].last().map_or(WHITESPACE, class);
        for (at, byte) in span.clone().zip(&text[span]) {
            let this = class(byte);
            // One branch a byte, and one that is rarely taken: most words cost nothing more.
            if before << 1 & this != 0
                && let Some(word) = self.word_at(&text[at..])
            {
                counts[word] += 1;
            }
            before = this;
        }
    }

    /// Which searched word `text` begins with, as a whole word. Its first byte is that of one at least.
    fn word_at(&self, text: &[u8]) -> Option<usize> {
        self.by_initial[usize::from(text[0])].iter().copied().find(|index| {
            let word = &self.words[*index];
            // Byte by byte: calling `memcmp` for so few takes longer.
            text.len() >= word.len()
                && text.iter().zip(word).all(|(found, wanted)| found == wanted)
                && text.get(word.len()).is_none_or(u8::is_ascii_whitespace)
        })
    }
}
