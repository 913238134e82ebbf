//! A call as it travels.

use std::sync::Arc;

use crate::{attachments::Attachments, context::ContextParcel, payload::Payload};

/// A call as it travels: a name, perhaps a context, and encoded arguments.
#[derive(Debug)]
pub struct Call {
    /// Which function, and how to call it.
    pub name: CallName,
    /// What it shares with other calls.
    pub context: Option<ContextParcel>,
    /// Its arguments, encoded.
    pub args: Arc<Payload>,
    /// What they attached.
    pub attachments: Attachments,
}

/// A place in a module, valid in every process of the same build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// The module: 0 is the program itself, any other is the identity of a shared library.
    pub module: u64,
    /// Bytes from where the module is loaded.
    pub offset: u64,
}

/// The two addresses that name a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallName {
    /// Of the descriptor.
    pub descriptor: Address,
    /// Of the function.
    pub function: Address,
}
