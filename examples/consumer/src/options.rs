//! What can be asked for on the command line.

use lexopt::{Arg, Parser, ValueExt};
use std::{path::PathBuf, time::Duration};

pub(crate) const HELP: &str = "\
Makes thumbnails of the pictures in a folder: JPEG, PNG, and the Amiga's ILBM.

Usage: consumer [OPTIONS] FROM TO

Options:
      --processes    each picture in a worker process: one that crashes its decoder costs only itself
      --threads      on threads of this process: cheaper, for pictures that one has made oneself
      --workers N    how many at a time [default: as many as there are processors to use]
      --limit S      how many seconds a picture may take [default: 10]
      --help         this text
";

pub(crate) struct Options {
    pub(crate) backend: Backend,
    /// `None`: the pool's own choice.
    pub(crate) workers: Option<usize>,
    pub(crate) limit: Duration,
    pub(crate) from: PathBuf,
    pub(crate) to: PathBuf,
}

#[derive(Clone, Copy)]
pub(crate) enum Backend {
    Threads,
    Processes,
}

/// `None`: help is asked for.
pub(crate) fn parse() -> Result<Option<Options>, lexopt::Error> {
    let mut backend = if cfg!(feature = "processes") { Backend::Processes } else { Backend::Threads };
    let mut workers = None;
    let mut limit = Duration::from_secs(10);
    let mut folders = Vec::new();
    let mut parser = Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("threads") => backend = Backend::Threads,
            Arg::Long("processes") => backend = Backend::Processes,
            Arg::Long("workers") => workers = Some(parser.value()?.parse()?),
            Arg::Long("limit") => {
                let seconds: f64 = parser.value()?.parse()?;
                limit = Duration::try_from_secs_f64(seconds)
                    .ok()
                    .filter(|limit| !limit.is_zero())
                    .ok_or("no such limit")?;
            }
            Arg::Long("help") => return Ok(None),
            Arg::Value(folder) => folders.push(PathBuf::from(folder)),
            _ => return Err(arg.unexpected()),
        }
    }
    let [from, to] = <[PathBuf; 2]>::try_from(folders).map_err(|_| "two folders are needed: FROM and TO")?;
    Ok(Some(Options { backend, workers, limit, from, to }))
}
