//! How the outcome of a call comes back from another process: the encoded value or [`Failure`], and then one byte, `VALUE` or
//! `FAILED`. It comes last, so that a value's bytes are the reply's own buffer once it is cut off.

use crate::{
    attachments::{self, Attachments},
    codec,
    error::Failure,
    panic::catch,
    payload::Payload,
};

const VALUE: u8 = 0;
const FAILED: u8 = 1;

/// What ends a reply.
#[derive(Debug)]
pub struct Ending {
    /// The byte that is to follow.
    pub mark: u8,
    /// What is to travel with it.
    pub attachments: Attachments,
}

/// Puts the reply of a call that failed into `out`, which is empty. Nothing travels with it.
pub(crate) fn failure(failure: &Failure, out: &mut Payload) -> Ending {
    codec::encode(failure, out.buffer()).expect("a failure is plain data, which the codec can hold");
    Ending { mark: FAILED, attachments: Attachments::new() }
}

/// Puts a value's reply into `out`, which is empty, or that of the failure to encode it.
pub(crate) fn value(encode: impl FnOnce(&mut Payload) -> Result<(), Failure>, out: &mut Payload) -> Ending {
    match attachments::collecting(|| catch(|| encode(out)).flatten()) {
        (Ok(()), attachments) => Ending { mark: VALUE, attachments },
        (Err(refused), _) => {
            *out = Payload::default();
            failure(&refused, out)
        }
    }
}

/// The failure that a reply tells of, or that `look` finds in its value. Runs no user code.
pub(crate) fn failure_in(bytes: &[u8], look: impl FnOnce(&[u8]) -> Option<Failure>) -> Option<Failure> {
    match bytes.split_last() {
        Some((&VALUE, value)) => look(value),
        _ => read(bytes, |_| Ok(())).err(),
    }
}

/// Reads a reply, its value with `unpack`.
pub(crate) fn read<R>(bytes: &[u8], unpack: impl FnOnce(&[u8]) -> Result<R, Failure>) -> Result<R, Failure> {
    match bytes.split_last() {
        Some((&VALUE, value)) => catch(|| unpack(value)).flatten(),
        Some((&FAILED, failure)) => Err(codec::decode(failure).unwrap_or_else(|unreadable| unreadable)),
        _ => Err(Failure::Decode { type_name: "a reply".into(), reason: "it has no known mark".into() }),
    }
}

/// As [`read`], and lets `unpack` have the buffer.
pub(crate) fn read_from<R>(
    mut bytes: Vec<u8>,
    unpack: impl FnOnce(Vec<u8>) -> Result<R, Failure>,
) -> Result<R, Failure> {
    if bytes.pop_if(|mark| *mark == VALUE).is_some() {
        return catch(|| unpack(bytes)).flatten();
    }
    read(&bytes, |_| unreachable!("it has another mark"))
}
