//! What contestants are told to do.

use rivals::contest;
use serde::Serialize;
use std::{fmt, sync::Arc};

use crate::{
    task::{square, sum},
    text::Text,
};

/// As JSON, a job is also what scripts in other languages are told.
#[derive(Clone, Serialize)]
#[serde(tag = "job", rename_all = "snake_case")]
pub(crate) enum Job {
    /// `n` squares, submitted one by one, all collected.
    Submit { n: u64 },
    /// `n` squares, each waited for; with a pause before each.
    OneByOne { n: u64, idle_us: u64 },
    /// `n` squares by a map.
    Map { n: u64 },
    /// So many bytes there and back, `n` times.
    Echo { kind: Kind, bytes: usize, n: u64 },
    /// So many bytes of numbers that a worker sums where they are, `n` times the same ones.
    SumShared { bytes: usize, n: u64 },
    /// From a constructor to a result, `n` times.
    FirstResult { n: u64 },
    /// A worker is killed while both have a call.
    Death,
    /// What a worker has of the memory after `n` squares.
    IdleMemory { n: u64 },
    /// What `n` squares that wait behind two long calls hold.
    Descriptors { n: u64 },
    /// The words of a text are counted: in chunks that are sent, or that workers read themselves.
    Text {
        spans: bool,
        #[serde(skip)]
        text: Arc<Text>,
    },
}

/// What payload consists of.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Bytes,
    Floats,
}

/// What is summed: so many bytes of it.
pub(crate) fn numbers(bytes: usize) -> Vec<u64> {
    (0..(bytes / size_of::<u64>()) as u64).collect()
}

impl contest::Job for Job {
    fn expected(&self) -> u64 {
        match self {
            Job::Submit { n }
            | Job::OneByOne { n, .. }
            | Job::Map { n }
            | Job::IdleMemory { n }
            | Job::Descriptors { n } => (0..*n).map(square).fold(0, u64::wrapping_add),
            Job::Echo { n, .. } => *n,
            Job::SumShared { bytes, n } => sum(&numbers(*bytes)).wrapping_mul(*n),
            Job::FirstResult { n } => n * square(3),
            Job::Death => 1,
            Job::Text { text, .. } => text.expected(),
        }
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}
