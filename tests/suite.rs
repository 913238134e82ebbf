//! The suite, written once for all backends. IDs in comments name the behaviour of the originals that a test shows.

pub(crate) mod as_completed;
pub(crate) mod awaiting;
pub(crate) mod callback;
pub(crate) mod cancel;
pub(crate) mod future;
pub(crate) mod initializer;
pub(crate) mod map;
pub(crate) mod nested;
pub(crate) mod observing;
pub(crate) mod pool;
pub(crate) mod pressure;
pub(crate) mod retrying;
pub(crate) mod shared;
pub(crate) mod shutdown;
pub(crate) mod stopping;
pub(crate) mod submit;
pub(crate) mod wait;
pub(crate) mod worker;
