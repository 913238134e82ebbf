//! What can be asked for on the command line.

use concurrent_futures::cpu_count;
use lexopt::{Arg, Parser, ValueExt};
use std::{ffi::OsString, fmt, num::NonZeroU64, path::Path};

/// What `--help` prints.
pub(crate) const HELP: &str = "\
Counts words in a large text: in a plain loop, on threads and on processes.

Usage: gutenberg [OPTIONS] [FILE]...

Several files are counted separately and added up. Without a file, a text is made once in the temporary directory.
A word is what stands between ASCII whitespace, compared byte by byte: 'dog' is neither 'Dog' nor 'dog.'.

Options:
      --backend NAME   serial, thread, process, or all of them one after the other [default: all]
      --workers N      threads or processes [default: as many as there are processors to use]
      --words A,B,C    what is counted [default: dog,cat,girl,boy]
      --chunk SIZE     how much of the text one task counts [default: 256KiB]
      --generate SIZE  how large the text is that is made [default: 256MiB]
      --json           one JSON object a line instead of a table
      --timeline FILE  a picture of which worker counted which span when: a page for a browser (.html), or for Perfetto (.json)
      --help           this text

SIZE is a number of bytes, or of KiB, MiB or GiB (also K, M, G) when one of these follows it.
";

const DEFAULT_WORDS: &str = "dog,cat,girl,boy";
const DEFAULT_CHUNK: NonZeroU64 = NonZeroU64::new(256 << 10).expect("not zero");
const DEFAULT_TEXT: u64 = 256 << 20;

/// What the program is to do.
pub(crate) enum Request {
    Help,
    Count(Options),
}

pub(crate) struct Options {
    pub(crate) backends: Vec<Backend>,
    pub(crate) workers: usize,
    /// At least one, none twice, none that could not be a word.
    pub(crate) words: Vec<String>,
    pub(crate) chunk: NonZeroU64,
    pub(crate) text: Text,
    pub(crate) format: Format,
    pub(crate) timeline: Option<(Picture, OsString)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Serial,
    Thread,
    Process,
}

pub(crate) enum Text {
    Files(Vec<OsString>),
    /// One that is made, of so many bytes.
    Generated(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Table,
    Json,
}

/// How a timeline is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Picture {
    Html,
    Json,
}

impl Backend {
    const ALL: [Backend; 3] = [Backend::Serial, Backend::Thread, Backend::Process];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Backend::Serial => "serial",
            Backend::Thread => "thread",
            Backend::Process => "process",
        }
    }

    /// How many spans are counted at the same time.
    pub(crate) fn workers(self, options: &Options) -> usize {
        match self {
            Backend::Serial => 1,
            Backend::Thread | Backend::Process => options.workers,
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Request {
    /// # Errors
    /// Something was asked for that does not exist, or makes no sense.
    pub(crate) fn from_env() -> Result<Self, lexopt::Error> {
        let mut backends = Backend::ALL.to_vec();
        let mut workers = None;
        let mut words = words(DEFAULT_WORDS)?;
        let mut chunk = DEFAULT_CHUNK;
        let mut generated = None;
        let mut format = Format::Table;
        let mut timeline = None;
        let mut files = Vec::new();

        let mut args = Parser::from_env();
        while let Some(arg) = args.next()? {
            match arg {
                Arg::Long("backend") => backends = args.value()?.parse_with(backends_named)?,
                Arg::Long("workers") => workers = Some(args.value()?.parse_with(number_of_workers)?),
                Arg::Long("words") => words = self::words(&args.value()?.string()?)?,
                Arg::Long("chunk") => {
                    let size = args.value()?.parse_with(size)?;
                    chunk = NonZeroU64::new(size).ok_or("a chunk must have at least one byte, not zero")?;
                }
                Arg::Long("generate") => generated = Some(args.value()?.parse_with(size)?),
                Arg::Long("timeline") => timeline = Some(picture(args.value()?)?),
                Arg::Long("json") => format = Format::Json,
                Arg::Long("help") | Arg::Short('h') => return Ok(Request::Help),
                Arg::Value(file) => files.push(file),
                unknown => return Err(unknown.unexpected()),
            }
        }
        let text = match (generated, files.is_empty()) {
            (Some(_), false) => return Err("--generate makes a text, so there can be no files beside it".into()),
            (None, false) => Text::Files(files),
            (size, true) => Text::Generated(size.unwrap_or(DEFAULT_TEXT)),
        };
        let workers = workers.unwrap_or_else(|| cpu_count().get());
        Ok(Request::Count(Options { backends, workers, words, chunk, text, format, timeline }))
    }
}

/// By what a file's name ends with.
fn picture(path: OsString) -> Result<(Picture, OsString), String> {
    match Path::new(&path).extension().and_then(|extension| extension.to_str()) {
        Some("html") => Ok((Picture::Html, path)),
        Some("json") => Ok((Picture::Json, path)),
        _ => Err(format!("a timeline is a file that ends with .html or .json, not {path:?}")),
    }
}

fn backends_named(name: &str) -> Result<Vec<Backend>, String> {
    match Backend::ALL.iter().find(|backend| backend.name() == name) {
        Some(backend) => Ok(vec![*backend]),
        None if name == "all" => Ok(Backend::ALL.to_vec()),
        None => Err("a backend is serial, thread, process or all".into()),
    }
}

fn number_of_workers(number: &str) -> Result<usize, String> {
    match number.parse() {
        Ok(0) => Err("there must be at least one worker, not zero".into()),
        Ok(workers) => Ok(workers),
        Err(error) => Err(format!("not a number of workers: {error}")),
    }
}

/// Words between commas, each once.
fn words(list: &str) -> Result<Vec<String>, String> {
    let mut words: Vec<String> = Vec::new();
    for word in list.split(',') {
        if word.is_empty() {
            return Err(format!("one of the words in {list:?} is empty"));
        }
        if word.bytes().any(|byte| byte.is_ascii_whitespace()) {
            return Err(format!("{word:?} has whitespace in it, so it is not one word"));
        }
        if !words.iter().any(|known| known == word) {
            words.push(word.into());
        }
    }
    Ok(words)
}

/// A number of bytes: `4096`, `4KiB`, `4K`, `4k`.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" => Some(0),
        "k" | "kib" => Some(10),
        "m" | "mib" => Some(20),
        "g" | "gib" => Some(30),
        _ => None,
    };
    let (Some(shift), false) = (shift, number.is_empty()) else {
        return Err("a size is a number of bytes, or of KiB, MiB or GiB when one of these follows it".into());
    };
    // What no file can be as large as is no size either.
    let bytes = number.parse().ok().and_then(|number: u64| number.checked_mul(1 << shift));
    bytes.filter(|bytes| i64::try_from(*bytes).is_ok()).ok_or_else(|| "a size must be below 8 EiB".into())
}
