//! What can be an argument or a result, on every backend.

use serde::{Serialize, de::DeserializeOwned};

/// What arguments and results must be, so that a call can run on any backend: `serde` in both
/// directions, `Send`, and nothing borrowed.
///
/// Implemented for every such type; there is nothing to write by hand. A type of your own needs
/// `#[derive(serde::Serialize, serde::Deserialize)]`. What cannot have that, such as a closure with
/// captures or an open file, is for `ThreadPoolExecutor::spawn`, which stays in this process.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument or a result of a submitted call",
    label = "not a value that every backend can take",
    note = "derive `serde::Serialize` and `serde::Deserialize` for it, and let it be `Send` and own what it holds",
    note = "what cannot be serialised stays on threads: `ThreadPoolExecutor::spawn`, `scope` and `join` take any closure"
)]
pub trait Value: Serialize + DeserializeOwned + Send + 'static {}
impl<T: Serialize + DeserializeOwned + Send + 'static> Value for T {}

/// What a [`Context`](crate::Context) must be, and what an initializer takes: a [`Value`] that threads may share.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a context or the argument of an initializer",
    label = "not a value that every worker can have",
    note = "derive `serde::Serialize` and `serde::Deserialize` for it, and let it be `Send` and `Sync` and own what it holds"
)]
pub trait SharedValue: Value + Sync {}
impl<T: Value + Sync> SharedValue for T {}
