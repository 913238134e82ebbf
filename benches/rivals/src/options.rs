//! What can be asked for on the command line.

use std::{
    collections::BTreeMap,
    env,
    num::NonZero,
    path::{Path, PathBuf},
};

/// What every benchmark understands.
pub const USAGE: &str = "\
options:
  --rounds N       how often everything is measured [default: 5]
  --patience SECS  before each round, wait up to so long for others to leave the machine alone [default: 0]
  --rows A,B       only these, by number or by name
  --only A,B       only these contestants
  --json FILE      where the figures go as JSON; a relative path begins at the root of the repository
  --quick          fewer rounds, and smaller ones: rough
  --list           says what the rows and the contestants are
  --test           checks results in seconds, and measures nothing";

/// What was asked for.
#[derive(Debug, Default)]
pub struct Options {
    /// How often everything is measured.
    pub rounds: Option<usize>,
    /// How many seconds each round waits for others to leave the machine alone.
    pub patience: u64,
    /// Numbers or names of rows; all of them when it is empty.
    pub rows: Vec<String>,
    /// Names of contestants; all of them when it is empty.
    pub only: Vec<String>,
    /// Where the figures go as JSON.
    pub json: Option<PathBuf>,
    /// Fewer rounds, and smaller ones.
    pub quick: bool,
    /// Results are checked, in seconds; nothing is measured.
    pub test: bool,
    /// Only what the rows and the contestants are.
    pub list: bool,
    /// Only help.
    pub help: bool,
    /// What this benchmark alone understands.
    pub own: BTreeMap<&'static str, String>,
}

impl Options {
    /// From the command line; `own` are the names of options with a value that this benchmark alone understands.
    ///
    /// Only `cargo bench` says `--bench`. What is said without it, such as a test's name, is for a test harness, and
    /// means the short lane.
    ///
    /// # Errors
    /// Something was asked for that does not exist.
    pub fn parse(own: &[&'static str]) -> Result<Self, lexopt::Error> {
        use lexopt::prelude::*;

        if !env::args().any(|argument| argument == "--bench") {
            return Ok(Options { test: true, ..Options::default() });
        }
        let mut options = Options::default();
        let list = |text: String| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        let mut arguments = lexopt::Parser::from_env();
        while let Some(argument) = arguments.next()? {
            match argument {
                Long("rounds") => {
                    let rounds = arguments.value()?.parse()?;
                    options.rounds = Some(if rounds > 0 { rounds } else { return Err("at least 1 round".into()) });
                }
                Long("patience") => options.patience = arguments.value()?.parse()?,
                Long("rows") => options.rows.extend(list(arguments.value()?.string()?)),
                Long("only") => options.only.extend(list(arguments.value()?.string()?)),
                Long("json") => options.json = Some(from_root(arguments.value()?)),
                Long("quick") => options.quick = true,
                Long("test") => options.test = true,
                Long("list") => options.list = true,
                Long("help") | Short('h') => options.help = true,
                Long("bench") => {}
                Long(name) => match own.iter().find(|own| **own == name) {
                    Some(own) => drop(options.own.insert(own, arguments.value()?.string()?)),
                    None => return Err(argument.unexpected()),
                },
                _ => return Err(argument.unexpected()),
            }
        }
        Ok(options)
    }

    /// How many workers each pool has, where a benchmark lets that be chosen.
    ///
    /// # Errors
    /// It is no number, or none.
    pub fn workers(&self) -> Result<Option<usize>, lexopt::Error> {
        let Some(text) = self.own.get("workers") else { return Ok(None) };
        let workers: NonZero<usize> = text.parse().map_err(|error| format!("--workers {text}: {error}"))?;
        Ok(Some(workers.get()))
    }

    /// The file that an option of this benchmark alone names.
    #[must_use]
    pub fn file(&self, own: &str) -> Option<PathBuf> {
        self.own.get(own).map(from_root)
    }

    pub(crate) fn wants_row(&self, number: &str, name: &str) -> bool {
        self.rows.is_empty()
            || self.rows.iter().any(|row| row == name || number.split(", ").any(|number| row == number))
    }

    pub(crate) fn wants(&self, contestant: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == contestant)
    }
}

/// Cargo runs a benchmark in the folder of its package, which nobody means who types a path.
fn from_root(path: impl AsRef<Path>) -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().nth(2).unwrap_or(package).join(path)
}
