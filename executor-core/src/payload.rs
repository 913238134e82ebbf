//! Where the bytes of an encoded value lie, on their way out.

use std::{fmt, mem};

use crate::buffers;

/// The bytes of an encoded value. A long list that lies in memory as it travels is not copied for it: it comes first, and is sent
/// from where it lies.
#[derive(Default)]
pub struct Payload {
    list: Option<List>,
    /// What was written behind it.
    rest: Vec<u8>,
}

/// A list that lies in memory as it travels.
pub(crate) enum List {
    Bytes(Vec<u8>),
    Numbers(Box<dyn AsRef<[u8]> + Send + Sync>),
}

impl AsRef<[u8]> for List {
    fn as_ref(&self) -> &[u8] {
        match self {
            List::Bytes(bytes) => bytes,
            List::Numbers(numbers) => (**numbers).as_ref(),
        }
    }
}

impl Payload {
    /// One that begins with a list.
    pub(crate) fn of(list: List) -> Self {
        Payload { list: Some(list), rest: Vec::new() }
    }

    /// What is written here comes behind what there is.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.rest
    }

    /// The bytes: first these, then those.
    #[must_use]
    pub fn parts(&self) -> [&[u8]; 2] {
        [self.list.as_ref().map_or(&[], AsRef::as_ref), &self.rest]
    }

    /// How many bytes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts().iter().map(|part| part.len()).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Moves all bytes to the end of `out`.
    pub fn append_to(&mut self, out: &mut Vec<u8>) {
        self.parts().iter().for_each(|part| out.extend_from_slice(part));
        self.list = None;
        self.rest.clear();
    }

    /// All bytes in one buffer.
    #[must_use]
    pub fn into_vec(mut self) -> Vec<u8> {
        if self.list.is_none() {
            return mem::take(&mut self.rest);
        }
        let mut bytes = Vec::with_capacity(self.len());
        self.append_to(&mut bytes);
        bytes
    }
}

impl From<Vec<u8>> for Payload {
    fn from(rest: Vec<u8>) -> Self {
        Payload { list: None, rest }
    }
}

/// What is sent may be followed by an answer of about its size.
impl Drop for Payload {
    fn drop(&mut self) {
        if let Some(List::Bytes(bytes)) = self.list.take() {
            buffers::keep(bytes);
        }
        buffers::keep(mem::take(&mut self.rest));
    }
}

/// Encoded values of one type are equal if their bytes are.
impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_comes_first_and_stays_where_it_is() {
        let list = vec![1_u8, 2, 3];
        let place = list.as_ptr();
        let mut payload = Payload::of(List::Bytes(list));
        payload.buffer().extend([4, 5]);
        let [first, rest] = payload.parts();
        assert_eq!((first.as_ptr(), first, rest), (place, &[1, 2, 3][..], &[4, 5][..]));
        assert_eq!(payload.len(), 5);

        let mut out = vec![0];
        payload.append_to(&mut out);
        assert_eq!(out, [0, 1, 2, 3, 4, 5]);
        assert!(payload.is_empty() && payload == Payload::default());

        payload = Payload::of(List::Bytes(vec![1, 2]));
        payload.buffer().push(3);
        assert_ne!(payload, Payload::of(List::Bytes(vec![1, 2])));
        assert_eq!(payload.into_vec(), [1, 2, 3]);
    }
}
