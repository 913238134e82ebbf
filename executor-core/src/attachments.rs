//! Descriptors that travel with encoded values: a value that stands for something of the operating system's, such as memory
//! or a socket, is encoded as a number, and its descriptor goes beside the bytes.
//!
//! While arguments or a result are encoded for another process, the thread [collects](collecting) what values
//! [`attach`]; a backend sends that with the bytes. While they are decoded there, the thread [hands out](handing_out)
//! what came with them. Nobody between the two looks at the descriptors, and bytes and numbers may be sent again, as they
//! are, for another attempt.

use std::{cell::RefCell, fmt, os::fd::OwnedFd, sync::Arc, thread::LocalKey};

/// Descriptors in the order of their numbers.
pub type Attachments = Vec<Arc<OwnedFd>>;

thread_local! {
    /// `None`: nothing is being encoded for another process.
    static COLLECTED: RefCell<Option<Attachments>> = const { RefCell::new(None) };
    /// `None`: nothing that came from another process is being decoded.
    static ARRIVED: RefCell<Option<Attachments>> = const { RefCell::new(None) };
}

/// An encoded value, and what travels with it.
#[derive(Default)]
pub struct Encoded {
    /// The value.
    pub bytes: Vec<u8>,
    /// What it attached.
    pub attachments: Attachments,
}

/// A value without attachments.
impl From<Vec<u8>> for Encoded {
    fn from(bytes: Vec<u8>) -> Self {
        Encoded { bytes, attachments: Attachments::new() }
    }
}

impl fmt::Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoded")
            .field("bytes", &self.bytes.len())
            .field("attachments", &self.attachments.len())
            .finish()
    }
}

/// Adds `descriptor` to what travels with the value that this thread is encoding. Returns the number by which
/// [`attached`] knows it at the other end, or `None`: what is being encoded goes to no other process, but to a file,
/// perhaps. The same descriptor is sent once, however often it is added.
///
/// For implementations of `Serialize`.
#[must_use = "without its number the descriptor cannot be found"]
pub fn attach(descriptor: &Arc<OwnedFd>) -> Option<u32> {
    COLLECTED.with_borrow_mut(|collected| {
        let collected = collected.as_mut()?;
        let place = collected.iter().position(|known| Arc::ptr_eq(known, descriptor)).unwrap_or_else(|| {
            collected.push(Arc::clone(descriptor));
            collected.len() - 1
        });
        u32::try_from(place).ok()
    })
}

/// The descriptor with this number, of those that came with the value that this thread is decoding. It is shared with all
/// who ask for it.
///
/// For implementations of `Deserialize`.
#[must_use]
pub fn attached(number: u32) -> Option<Arc<OwnedFd>> {
    ARRIVED.with_borrow(|arrived| arrived.as_ref()?.get(number as usize).cloned())
}

/// Calls `encode`, which encodes something for another process, and returns what it attached as well.
pub fn collecting<T>(encode: impl FnOnce() -> T) -> (T, Attachments) {
    let _outer = Restore(&COLLECTED, COLLECTED.replace(Some(Vec::new())));
    let result = encode();
    (result, COLLECTED.take().unwrap_or_default())
}

/// Calls `decode`, which decodes something that came with `attachments`. They are let go of afterwards.
pub fn handing_out<T>(attachments: Attachments, decode: impl FnOnce() -> T) -> T {
    let _outer = Restore(&ARRIVED, ARRIVED.replace(Some(attachments)));
    decode()
}

/// Puts back what was there before, also when user code panics: encodings are nested where one makes a call.
struct Restore(&'static LocalKey<RefCell<Option<Attachments>>>, Option<Attachments>);

impl Drop for Restore {
    fn drop(&mut self) {
        let done = self.0.replace(self.1.take());
        drop(done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::File, panic};

    fn descriptor() -> Arc<OwnedFd> {
        Arc::new(File::open("/dev/null").unwrap().into())
    }

    #[test]
    fn numbers_name_descriptors_at_both_ends() {
        let (one, two) = (descriptor(), descriptor());
        assert_eq!(attach(&one), None, "nothing is encoded");
        let (numbers, attachments) = collecting(|| [attach(&one), attach(&two), attach(&one)]);
        assert_eq!(numbers, [Some(0), Some(1), Some(0)]);
        assert_eq!(attachments.len(), 2);
        let found = handing_out(attachments, || [0, 1, 2].map(attached));
        assert!(Arc::ptr_eq(found[0].as_ref().unwrap(), &one) && Arc::ptr_eq(found[1].as_ref().unwrap(), &two));
        assert!(found[2].is_none() && attached(0).is_none());
    }

    #[test]
    fn what_is_encoded_meanwhile_has_its_own() {
        let (one, two) = (descriptor(), descriptor());
        let (inner, outer) = collecting(|| {
            assert_eq!(attach(&one), Some(0));
            let contained = panic::catch_unwind(panic::AssertUnwindSafe(|| {
                collecting(|| {
                    assert_eq!(attach(&two), Some(0));
                    panic::resume_unwind(Box::new("in the middle"));
                })
            }));
            assert!(contained.is_err());
            collecting(|| attach(&two)).1
        });
        assert!(Arc::ptr_eq(&inner[0], &two) && inner.len() == 1);
        assert!(Arc::ptr_eq(&outer[0], &one) && outer.len() == 1);
    }
}
