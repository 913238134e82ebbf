//! Why a parallel call has no results.

use executor_core::{BuildError, TaskError};
use std::{convert::Infallible, error, fmt, time::Duration};

/// Why a [`Parallel`](super::Parallel) call, or one of its results, is not there.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ParallelError {
    /// One of the calls failed.
    Task(
        /// How.
        TaskError,
    ),
    /// The next result took longer than the [`timeout`](super::Parallel::timeout).
    Timeout {
        /// The limit.
        limit: Duration,
        /// How many results were there.
        done: usize,
    },
    /// The workers could not be had: `n_jobs` was zero, or the pool could not be built.
    Build(
        /// Why.
        BuildError,
    ),
    /// There is no backend of that name.
    UnknownBackend {
        /// What was asked for.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// Choices that contradict each other.
    Conflict(
        /// Which.
        &'static str,
    ),
    /// A [`pre_dispatch`](super::Parallel::pre_dispatch) that says no number of calls.
    PreDispatch {
        /// What was asked for.
        text: String,
        /// What is wrong.
        why: &'static str,
    },
}

impl ParallelError {
    /// The error of the call that failed, if that is what happened.
    #[must_use]
    pub fn task(&self) -> Option<&TaskError> {
        match self {
            ParallelError::Task(error) => Some(error),
            _ => None,
        }
    }

    /// Whether some limit passed: that of the wait for a result, or a call's own.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, ParallelError::Timeout { .. }) || self.task().is_some_and(TaskError::is_timed_out)
    }
}

impl fmt::Display for ParallelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParallelError::Task(error) => fmt::Display::fmt(error, f),
            ParallelError::Timeout { limit, done } => {
                write!(f, "the next result was not there within {limit:?}; {done} were before")
            }
            ParallelError::Build(error) => fmt::Display::fmt(error, f),
            ParallelError::UnknownBackend { name, known } => {
                write!(f, "there is no backend {name:?}; there are {}", known.join(", "))
            }
            ParallelError::Conflict(which) => f.write_str(which),
            ParallelError::PreDispatch { text, why } => {
                write!(
                    f,
                    "pre_dispatch is {text:?}, and must be a number of calls from 1 on, \"all\", or arithmetic on n_jobs: {why}"
                )
            }
        }
    }
}

impl error::Error for ParallelError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        // What a task's or a builder's error says is said already.
        match self {
            ParallelError::Task(error) => error.source(),
            ParallelError::Build(error) => error.source(),
            _ => None,
        }
    }
}

impl From<TaskError> for ParallelError {
    fn from(error: TaskError) -> Self {
        ParallelError::Task(error)
    }
}

impl From<BuildError> for ParallelError {
    fn from(error: BuildError) -> Self {
        ParallelError::Build(error)
    }
}

impl From<Infallible> for ParallelError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}
