//! Counts words in a large text: in a plain loop, on threads and on processes.
//!
//! ```text
//! cargo run --release --example gutenberg                           # makes its own text of 256 MiB
//! cargo run --release --example gutenberg -- --backend process --words whale,sea moby-dick.txt
//! cargo run --release --example gutenberg -- --timeline run.html    # shows which worker counted what when
//! ```
//!
//! Such a job is often done by sending the text itself to the workers. Then the one who reads and sends is the
//! bottleneck, and a second worker gains nothing. Here a task is three numbers, a span of a file, and each worker
//! reads its span by itself.

mod count;
mod options;
mod text;

use concurrent_futures::{
    Context, Executor, ProcessPoolExecutor, TaskError, ThreadPoolExecutor, progress::WithProgress, timeline::Timeline,
};
use indicatif::{HumanBytes, ProgressBar, ProgressFinish, ProgressStyle};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    error::Error,
    ffi::OsString,
    fs::File,
    io::{self, Write},
    process::ExitCode,
    time::{Duration, Instant},
};

use count::{Counts, Job, Span, Spans, count_span};
use options::{Backend, Format, Options, Picture, Request, Text};

/// How often a span is counted, if a worker is lost each time, before the job is given up.
const ROUNDS: usize = 4;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(&*error) => ExitCode::SUCCESS, // whoever reads, `head` say, has seen enough
        Err(error) => {
            // One line, also if the name of a file or an option has several.
            let message = error.to_string().replace(['\n', '\r'], " ");
            let _ = writeln!(io::stderr(), "gutenberg: {message}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout();
    let options = match Request::from_env()? {
        Request::Help => return Ok(out.write_all(options::HELP.as_bytes())?),
        Request::Count(options) => options,
    };
    let files = match &options.text {
        Text::Files(files) => files.clone(),
        Text::Generated(bytes) => {
            let progress = bar("text", "{bytes}/{total_bytes}");
            progress.set_length(*bytes);
            vec![text::make_once(*bytes, |written| progress.inc(written))?.into_os_string()]
        }
    };
    let context = Context::new(Job::new(files, options.words.clone())?);
    let job = context.get();
    if options.backends.len() > 1 {
        warm_up(job)?;
    }
    let unwritable = |path: &OsString, error| format!("{path:?} cannot be written: {error}");
    if let Some((_, path)) = &options.timeline {
        File::create(path).map_err(|error| unwritable(path, error))?; // rather than when all is counted
    }
    let timeline = options.timeline.as_ref().map(|_| Timeline::new());
    let mut first: Option<Run> = None;
    for &backend in &options.backends {
        let began = Instant::now();
        let counts = count(backend, &options, &context, timeline.as_ref())?;
        let elapsed = began.elapsed();
        job.check_lengths()?;
        let run = Run { backend, workers: backend.workers(&options), counts, elapsed };
        if let Some(first) = &first
            && first.counts != run.counts
        {
            let (before, now) = (&first.counts, &run.counts);
            return Err(format!("{} counted {before:?}, but {backend} counted {now:?}", first.backend).into());
        }
        match options.format {
            Format::Table => {
                if first.is_none() {
                    write_heading(&mut out, job, &options)?;
                }
                write_row(&mut out, job, &run, first.as_ref().unwrap_or(&run))?;
            }
            Format::Json => writeln!(out, "{}", serde_json::to_string(&run.to_line(job))?)?,
        }
        out.flush()?;
        first.get_or_insert(run);
    }
    if let Some((timeline, (picture, path))) = timeline.zip(options.timeline.as_ref()) {
        let written = match picture {
            Picture::Html => timeline.write_html(path),
            Picture::Json => timeline.write_json(path),
        };
        written.map_err(|error| unwritable(path, error))?;
    }
    Ok(())
}

/// The job on one backend. What a pool costs to start and to end is part of it.
fn count(
    backend: Backend,
    options: &Options,
    context: &Context<Job>,
    timeline: Option<&Timeline>,
) -> Result<Counts, Box<dyn Error>> {
    let job = context.get();
    let spans = job.spans(options.chunk);
    let mut tally = Tally { counts: vec![0; job.words().len()], bar: || bar(backend.name(), "{pos}/{len} spans") };
    match backend {
        Backend::Serial => {
            for span in (tally.bar)().wrap_iter(spans) {
                let counts = match timeline {
                    Some(timeline) => timeline.span("count_span", || count_span(job, span)),
                    None => count_span(job, span),
                };
                tally.add(&counts?);
            }
        }
        Backend::Thread => {
            let mut builder = ThreadPoolExecutor::builder().max_workers(options.workers);
            if let Some(timeline) = timeline {
                builder = builder.thread_name_prefix("thread").observer(timeline.clone());
            }
            count_on(&builder.build()?, context, spans, &mut tally)?;
        }
        Backend::Process => {
            let mut builder = ProcessPoolExecutor::builder().max_workers(options.workers);
            if let Some(timeline) = timeline {
                builder = builder.process_name_prefix("process").observer(timeline.clone());
            }
            count_on(&builder.build()?, context, spans, &mut tally)?;
        }
    }
    Ok(tally.counts)
}

/// Counts every span on `pool`, whatever it is, and also if workers die meanwhile.
///
/// A worker process that is killed takes with it the whole chunk of items that it was at: each of them is an `Err` at
/// its place, and all other items have their results. Nothing of the lost ones has been counted, so counting exactly
/// those again gives exact sums. They go one by one then: if one of them is what kills, it takes no other with it.
fn count_on(
    pool: &impl Executor,
    context: &Context<Job>,
    spans: Spans,
    tally: &mut Tally<impl Fn() -> ProgressBar>,
) -> Result<(), Box<dyn Error>> {
    let results = pool.map_with(context, count_span, spans.clone()).progress_with((tally.bar)());
    let mut lost = tally.add_all(spans, results)?;
    for round in 2.. {
        let Some((_, error)) = lost.last() else { break };
        if round > ROUNDS {
            return Err(format!("gave up on {} of the spans after {ROUNDS} rounds: {error}", lost.len()).into());
        }
        let _ = writeln!(io::stderr(), "gutenberg: lost {} of the spans, and counts them again: {error}", lost.len());
        let spans = lost.iter().map(|(span, _)| *span).collect::<Vec<_>>();
        let results = pool.map_with(context, count_span, spans.clone()).chunk_size(1).progress_with((tally.bar)());
        lost = tally.add_all(spans, results)?;
    }
    Ok(())
}

/// What has been counted so far.
struct Tally<B> {
    counts: Counts,
    /// A bar for each round.
    bar: B,
}

impl<B> Tally<B> {
    fn add(&mut self, counts: &Counts) {
        self.counts.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }

    /// Adds the results of `spans`, and gives back the spans whose worker was lost.
    ///
    /// Results come in the order of the items, one for each, so a second run of the same lazy iterator tells which
    /// span a result belongs to: no list of all spans is ever needed.
    fn add_all(
        &mut self,
        spans: impl IntoIterator<Item = Span>,
        results: impl Iterator<Item = Result<Result<Counts, String>, TaskError>>,
    ) -> Result<Vec<(Span, TaskError)>, Box<dyn Error>> {
        let mut lost = Vec::new();
        for (span, result) in spans.into_iter().zip(results) {
            match result {
                Ok(counts) => self.add(&counts?),
                Err(error) if error.is_worker_lost() => lost.push((span, error)),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(lost)
    }
}

/// A bar on standard error, if that is a terminal, which is gone when it is over.
fn bar(what: &'static str, amount: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(&format!("{{prefix:>8}} {{wide_bar}} {amount} {{eta}} {{msg}}"));
    let style = style.expect("the template is a constant, and right");
    ProgressBar::no_length().with_style(style).with_prefix(what).with_finish(ProgressFinish::AndClear)
}

/// Reads everything once, so that the first of several backends is not the only one that waits for the disk.
fn warm_up(job: &Job) -> Result<(), String> {
    for path in job.paths() {
        let read = File::open(path).and_then(|mut file| io::copy(&mut file, &mut io::sink()));
        read.map_err(|error| count::unreadable(path, &error))?;
    }
    Ok(())
}

/// What one backend has found.
struct Run {
    backend: Backend,
    workers: usize,
    counts: Counts,
    elapsed: Duration,
}

impl Run {
    fn to_line<'a>(&self, job: &'a Job) -> Line<'a> {
        Line {
            backend: self.backend.name(),
            workers: self.workers,
            bytes: job.bytes(),
            seconds: self.elapsed.as_secs_f64(),
            counts: job.words().iter().map(String::as_str).zip(self.counts.iter().copied()).collect(),
        }
    }
}

/// One line of the result, for programs.
#[derive(Serialize)]
struct Line<'a> {
    backend: &'static str,
    workers: usize,
    bytes: u64,
    seconds: f64,
    counts: BTreeMap<&'a str, u64>,
}

/// How wide a word's column is: as the word, and as any number below a thousand millions.
fn width(word: &str) -> usize {
    word.chars().count().max(9)
}

fn write_heading(out: &mut impl Write, job: &Job, options: &Options) -> io::Result<()> {
    let files = job.paths().count();
    let plural = if files == 1 { "" } else { "s" };
    writeln!(out, "{} in {files} file{plural}, chunk {}", HumanBytes(job.bytes()), HumanBytes(options.chunk.get()))?;
    write!(out, "{:8} {:>7}", "backend", "workers")?;
    for word in job.words() {
        write!(out, " {word:>0$}", width(word))?;
    }
    writeln!(out, " {:>8} {:>7} {:>8}", "seconds", "MB/s", "speed-up")
}

fn write_row(out: &mut impl Write, job: &Job, run: &Run, first: &Run) -> io::Result<()> {
    let seconds = run.elapsed.as_secs_f64();
    write!(out, "{:8} {:>7}", run.backend.name(), run.workers)?;
    for (word, count) in job.words().iter().zip(&run.counts) {
        write!(out, " {count:>0$}", width(word))?;
    }
    write!(out, " {seconds:>8.3} {:>7.0}", job.bytes() as f64 / 1e6 / seconds)?;
    match first.backend {
        Backend::Serial => writeln!(out, " {:>7.2}x", first.elapsed.as_secs_f64() / seconds),
        Backend::Thread | Backend::Process => writeln!(out, " {:>8}", "-"),
    }
}

fn is_closed_pipe(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
