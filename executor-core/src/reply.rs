//! How the outcome of a call comes back from another process: one byte, [`VALUE`] or [`FAILED`], and then the encoded value or
//! [`Failure`].

use crate::{
    attachments::{self, Attachments},
    codec,
    error::Failure,
    panic::catch,
};

const VALUE: u8 = 0;
const FAILED: u8 = 1;

/// Appends the reply of a call that failed. Nothing travels with it.
pub(crate) fn failure(failure: &Failure, out: &mut Vec<u8>) -> Attachments {
    out.push(FAILED);
    codec::encode(failure, out).expect("a failure is plain data, which the codec can hold");
    Attachments::new()
}

/// Appends a value's reply, or that of the failure to encode it. Returns what travels with it.
pub(crate) fn value(encode: impl FnOnce(&mut Vec<u8>) -> Result<(), Failure>, out: &mut Vec<u8>) -> Attachments {
    let start = out.len();
    out.push(VALUE);
    match attachments::collecting(|| catch(|| encode(out)).flatten()) {
        (Ok(()), attachments) => attachments,
        (Err(refused), _) => {
            out.truncate(start);
            failure(&refused, out)
        }
    }
}

/// The failure that a reply tells of, or that `look` finds in its value. Runs no user code.
pub(crate) fn failure_in(bytes: &[u8], look: impl FnOnce(&[u8]) -> Option<Failure>) -> Option<Failure> {
    match bytes.split_first() {
        Some((&VALUE, value)) => look(value),
        _ => read(bytes, |_| Ok(())).err(),
    }
}

/// Reads a reply, its value with `unpack`.
pub(crate) fn read<R>(bytes: &[u8], unpack: impl FnOnce(&[u8]) -> Result<R, Failure>) -> Result<R, Failure> {
    match bytes.split_first() {
        Some((&VALUE, value)) => catch(|| unpack(value)).flatten(),
        Some((&FAILED, failure)) => Err(codec::decode(failure).unwrap_or_else(|unreadable| unreadable)),
        _ => Err(Failure::Decode { type_name: "a reply".into(), reason: "it has no known mark".into() }),
    }
}
