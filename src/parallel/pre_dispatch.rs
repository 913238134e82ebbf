//! How far ahead of the workers calls are taken from the input: a number, or arithmetic on the number of workers.

use std::{num::NonZeroUsize, str::FromStr};

use super::error::ParallelError;

/// How many batches of calls may be under way at a time. For [`Parallel::pre_dispatch`](super::Parallel::pre_dispatch).
///
/// As text: `"all"`, or arithmetic on numbers and `n_jobs` with `+ - * / // %` and parentheses, such as `"2*n_jobs"` and
/// `"1.5 * (n_jobs + 1)"`. What is behind the decimal point of the result is dropped, and at least 1 must be left.
///
/// # Examples
/// ```
/// use concurrent_futures::parallel::{Parallel, PreDispatch};
///
/// let by_workers = Parallel::new().pre_dispatch("3*n_jobs");
/// let by_number = Parallel::new().pre_dispatch(10);
/// let whole_input = Parallel::new().pre_dispatch(PreDispatch::ALL);
/// assert!("3*cores".parse::<PreDispatch>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct PreDispatch(Amount);

#[derive(Clone, Debug, PartialEq)]
enum Amount {
    All,
    Batches(usize),
    Expression(String),
}

/// Longer arithmetic is no arithmetic, and each parenthesis takes some of the stack.
const LONGEST: usize = 200;

impl PreDispatch {
    /// The whole input at once.
    pub const ALL: PreDispatch = PreDispatch(Amount::All);

    /// `None`: there is no limit.
    pub(super) fn batches(&self, n_jobs: NonZeroUsize) -> Result<Option<NonZeroUsize>, ParallelError> {
        let wrong = |text: &str, why| ParallelError::PreDispatch { text: text.to_owned(), why };
        match &self.0 {
            Amount::All => Ok(None),
            Amount::Batches(batches) => match NonZeroUsize::new(*batches) {
                Some(batches) => Ok(Some(batches)),
                None => Err(wrong("0", "nothing would ever begin")),
            },
            Amount::Expression(text) => {
                let value = evaluate(text, n_jobs).map_err(|why| wrong(text, why))?;
                match value {
                    value if !value.is_finite() => Err(wrong(text, "it is not finite")),
                    // A conversion saturates, which is as good as all.
                    value if value >= 1.0 => Ok(NonZeroUsize::new(value as usize)),
                    _ => Err(wrong(text, "it is less than 1")),
                }
            }
        }
    }
}

/// Two for each worker: one that it makes, and one that lies ready.
impl Default for PreDispatch {
    fn default() -> Self {
        PreDispatch(Amount::Expression("2*n_jobs".into()))
    }
}

impl From<usize> for PreDispatch {
    fn from(batches: usize) -> Self {
        PreDispatch(Amount::Batches(batches))
    }
}

impl TryFrom<i32> for PreDispatch {
    type Error = ParallelError;

    fn try_from(batches: i32) -> Result<Self, ParallelError> {
        match usize::try_from(batches) {
            Ok(batches) => Ok(batches.into()),
            Err(_) => Err(ParallelError::PreDispatch { text: batches.to_string(), why: "it is less than 1" }),
        }
    }
}

impl FromStr for PreDispatch {
    type Err = ParallelError;

    fn from_str(text: &str) -> Result<Self, ParallelError> {
        if text == "all" {
            return Ok(PreDispatch::ALL);
        }
        // Whether it can be understood does not depend on the number; what it comes to may.
        match evaluate(text, NonZeroUsize::MIN) {
            Ok(_) => Ok(PreDispatch(Amount::Expression(text.to_owned()))),
            Err(why) => Err(ParallelError::PreDispatch { text: text.to_owned(), why }),
        }
    }
}

impl TryFrom<&str> for PreDispatch {
    type Error = ParallelError;

    fn try_from(text: &str) -> Result<Self, ParallelError> {
        text.parse()
    }
}

fn evaluate(text: &str, n_jobs: NonZeroUsize) -> Result<f64, &'static str> {
    if text.len() > LONGEST {
        return Err("it is too long");
    }
    let mut parser = Parser { rest: text.trim_start(), n_jobs: n_jobs.get() as f64 };
    let value = parser.sum()?;
    if parser.rest.is_empty() { Ok(value) } else { Err("it goes on where nothing can follow") }
}

/// By descent: a sum of products of atoms.
struct Parser<'a> {
    /// Begins with no whitespace.
    rest: &'a str,
    n_jobs: f64,
}

impl Parser<'_> {
    fn take(&mut self, sign: &str) -> bool {
        match self.rest.strip_prefix(sign) {
            Some(rest) => {
                self.rest = rest.trim_start();
                true
            }
            None => false,
        }
    }

    fn sum(&mut self) -> Result<f64, &'static str> {
        let mut value = self.product()?;
        loop {
            if self.take("+") {
                value += self.product()?;
            } else if self.take("-") {
                value -= self.product()?;
            } else {
                return Ok(value);
            }
        }
    }

    fn product(&mut self) -> Result<f64, &'static str> {
        let mut value = self.atom()?;
        loop {
            if self.take("*") {
                value *= self.atom()?;
            } else if self.take("//") {
                value = (value / self.atom()?).floor();
            } else if self.take("/") {
                value /= self.atom()?;
            } else if self.take("%") {
                value = value.rem_euclid(self.atom()?);
            } else {
                return Ok(value);
            }
        }
    }

    fn atom(&mut self) -> Result<f64, &'static str> {
        if self.take("-") {
            return Ok(-self.atom()?);
        }
        if self.take("(") {
            let value = self.sum()?;
            return if self.take(")") { Ok(value) } else { Err("a parenthesis is not closed") };
        }
        let is_of_word = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
        let end = self.rest.find(|c| !is_of_word(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        let is_number = word.starts_with(|c: char| c.is_ascii_digit()) && !word.contains(char::is_alphabetic);
        match word {
            "" => Err("a number or n_jobs is missing"),
            "n_jobs" => Ok(self.n_jobs),
            _ if is_number => word.parse().map_err(|_| "that is no number"),
            _ => Err("n_jobs is the only name that it may have"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(text: &str, n_jobs: usize) -> Result<Option<usize>, ParallelError> {
        let parsed: PreDispatch = text.parse()?;
        Ok(parsed.batches(NonZeroUsize::new(n_jobs).unwrap())?.map(NonZeroUsize::get))
    }

    /// JOB-20: arithmetic, and nothing else.
    #[test]
    fn expressions_are_arithmetic_on_n_jobs() {
        let right = [
            ("all", None),
            ("2*n_jobs", Some(6)),
            (" 2 * n_jobs ", Some(6)),
            ("n_jobs", Some(3)),
            ("7", Some(7)),
            ("1.5*n_jobs", Some(4)),
            ("n_jobs // 2 + 1", Some(2)),
            ("(n_jobs + 1) * 2 - -1", Some(9)),
            ("10 % (n_jobs+1)", Some(2)),
            ("7 / 2", Some(3)),
            ("99999999999999999999999", Some(usize::MAX)),
        ];
        for (text, expected) in right {
            assert_eq!(batches(text, 3).unwrap(), expected, "{text}");
        }
        let wrong = [
            "",
            " ",
            "0",
            "0.9",
            "-1",
            "n_jobs - 3",
            "1/0",
            "0/0",
            "1 % 0",
            "ALL",
            "jobs",
            "2n_jobs",
            "2 n_jobs",
            "2*",
            "*2",
            "(2",
            "2)",
            "()",
            "1..2",
            "1e3",
            "0x10",
            "inf",
            "nan",
            "2**3",
            "2;3",
            "n_jobs()",
            "exit(1)",
            "__import__('os')",
            "n_jobs.real",
            "٣",
            "1\u{a0}+",
        ];
        for text in wrong {
            let error = batches(text, 3).unwrap_err();
            assert!(error.to_string().starts_with(&format!("pre_dispatch is {text:?}, and must be ")), "{error}");
        }
        assert!(batches(&"(".repeat(100_000), 1).is_err() && batches(&"-".repeat(100_000), 1).is_err());
        assert!(PreDispatch::from(0).batches(NonZeroUsize::MIN).is_err());
        assert_eq!(PreDispatch::default().batches(NonZeroUsize::MIN).unwrap(), NonZeroUsize::new(2));
    }
}
