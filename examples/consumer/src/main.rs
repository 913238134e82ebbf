//! Thumbnails of a folder of pictures that strangers have sent. See README.md.

mod ilbm;
mod options;
mod thumbnail;

use concurrent_futures::{DropPolicy, Executor, TaskError, TaskOptions, ThreadPoolExecutor, as_completed};
use options::{Backend, HELP, Options};
use std::{
    collections::HashMap,
    error::Error,
    fs,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

fn main() -> ExitCode {
    let outcome = match options::parse() {
        Ok(Some(options)) => run(&options),
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("consumer: {error}");
            ExitCode::from(2)
        }
    }
}

/// The one place that knows which backend it is.
fn pool(options: &Options) -> Result<Box<dyn Executor>, Box<dyn Error>> {
    match options.backend {
        Backend::Threads => {
            // A thread that hangs cannot be ended, so nobody waits for it.
            let mut builder = ThreadPoolExecutor::builder().drop_policy(DropPolicy::Detach);
            if let Some(workers) = options.workers {
                builder = builder.max_workers(workers);
            }
            Ok(Box::new(builder.build()?))
        }
        #[cfg(feature = "processes")]
        Backend::Processes => {
            // More than any honest picture needs.
            let mut builder = concurrent_futures::ProcessPoolExecutor::builder().max_memory_bytes(2 << 30);
            if let Some(workers) = options.workers {
                builder = builder.max_workers(workers);
            }
            Ok(Box::new(builder.build()?))
        }
        #[cfg(not(feature = "processes"))]
        Backend::Processes => Err("this program was built with threads only".into()),
    }
}

/// Returns how many pictures have no thumbnail.
fn run(options: &Options) -> Result<usize, Box<dyn Error>> {
    let pool = pool(options)?;
    let files = pictures(&options.from)?;
    fs::create_dir_all(&options.to)?;

    let limited = pool.with(TaskOptions::new().time_limit(options.limit));
    let futures: HashMap<_, _> = files
        .iter()
        .map(|from| {
            let to = thumbnail_of(from, &options.to);
            (limited.submit(thumbnail::make, (from.into(), to.into())), from)
        })
        .collect();

    let mut progress = Progress::new(futures.len());
    let mut failures = Vec::new();
    for future in as_completed(futures.keys()) {
        let reason = match future.peek().expect("it is done") {
            Ok(Ok(())) => None,
            Ok(Err(reason)) => Some(reason.clone()),
            Err(error) => Some(reason_of(error, options.limit)),
        };
        if let Some(reason) = reason {
            let from = futures[future];
            // A call that was ended half-way has not tidied up.
            let _ = fs::remove_file(thumbnail::unfinished(&thumbnail_of(from, &options.to)));
            failures.push((from, reason));
        }
        progress.advance(failures.len());
    }
    progress.clear();

    failures.sort();
    println!("{} thumbnails in {}", files.len() - failures.len(), options.to.display());
    for (from, reason) in &failures {
        println!("{}: {reason}", from.display());
    }
    Ok(failures.len())
}

fn reason_of(error: &TaskError, limit: Duration) -> String {
    if error.is_timed_out() {
        format!("not done after {limit:?}")
    } else if error.is_limit_exceeded() {
        "needs more memory than a picture should".into()
    } else if let Some(lost) = error.worker_lost() {
        format!("its decoder {}", lost.exit)
    } else {
        error.to_string()
    }
}

fn pictures(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut files = entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    files.retain(|path| thumbnail::is_picture(path) && path.is_file());
    files.sort();
    Ok(files)
}

fn thumbnail_of(from: &Path, folder: &Path) -> PathBuf {
    let mut name = from.file_name().unwrap_or_default().to_owned();
    name.push(".png");
    folder.join(name)
}

/// A line that is written over, where somebody looks.
struct Progress {
    done: usize,
    all: usize,
    visible: bool,
}

impl Progress {
    fn new(all: usize) -> Self {
        Progress { done: 0, all, visible: io::stderr().is_terminal() }
    }

    fn advance(&mut self, failed: usize) {
        self.done += 1;
        if self.visible {
            let failed = if failed == 0 { String::new() } else { format!(", {failed} failed") };
            eprint!("\r{} of {}{failed}", self.done, self.all);
            let _ = io::stderr().flush();
        }
    }

    fn clear(&self) {
        if self.visible {
            eprint!("\r\x1b[K");
        }
    }
}
