//! Large slices of plain data that calls share: neither encoded nor copied, but mapped where they are used.

use bytemuck::Pod;
use executor_core::attachments::{attach, attached};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use std::{
    fmt,
    io::{self, BufWriter, Read, Write},
    marker::PhantomData,
    num::NonZeroUsize,
    ops::{Bound, Deref, Range, RangeBounds},
    os::fd::OwnedFd,
    slice,
    sync::Arc,
};

use crate::segment::Segment;

/// What can be in a [`Shared`] slice: numbers, arrays of them, and structures of them.
///
/// Implemented for every type that is [`bytemuck::Pod`] and that threads may share; a structure of your own derives it:
/// `#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]`, with `#[repr(C)]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be in shared memory",
    label = "not plain data",
    note = "numbers, arrays of numbers and `#[repr(C)]` structures of numbers that derive `bytemuck::Pod` can",
    note = "any other value is sent to each worker once by a `Context`"
)]
pub trait Plain: Pod + Send + Sync {}
impl<T: Pod + Send + Sync> Plain for T {}

/// A constant slice of plain data, in memory that processes share.
///
/// It is an argument, a result or a context like any other value, on every backend, and however large it is, only its descriptor
/// travels: a worker process maps the same memory, as long as it uses it, and keeps it mapped for a call that follows soon. Cloning it, or
/// [a part](Self::slice) of it, copies nothing. Who wants to change what is in it makes a copy, with `to_vec`.
///
/// The memory belongs to no process, has no name, and goes with the last handle. Each such slice, with all its clones and parts, takes
/// one of the descriptors that a process may have open. What other programs than this one read, from a file or as JSON, should be
/// a `Vec`: to encode a `Shared` for anything but a call is an error.
///
/// # Examples
/// ```
/// use concurrent_futures::{Executor, ProcessPoolExecutor, Shared};
///
/// let pool = ProcessPoolExecutor::new(2)?;
/// let data = Shared::new(vec![0.5_f64; 100_000])?;
/// let halves = [data.slice(..50_000), data.slice(50_000..)];
/// let sums: Vec<f64> = pool.map(|part: Shared<[f64]>| part.iter().sum(), halves).collect::<Result<_, _>>()?;
/// assert_eq!(sums, [25_000.0, 25_000.0]);
///
/// // A worker's result is as cheap.
/// let squares = |length: usize| {
///     Shared::build(length, |squares| (0_u64..).zip(squares).for_each(|(x, square)| *square = x * x)).ok()
/// };
/// let squares: Shared<[u64]> = pool.submit(squares, 1000).result()?.ok_or("no memory")?;
/// assert_eq!(squares[999], 998_001);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Shared<T: ?Sized> {
    /// `None`: the slice is empty.
    segment: Option<Arc<Segment>>,
    /// Which bytes of the segment these are: whole items, aligned.
    bytes: Range<usize>,
    items: PhantomData<T>,
}

impl<T: Plain> Shared<[T]> {
    /// A copy of `items`: a slice, an array, a `Vec`.
    ///
    /// # Errors
    /// The system has no memory for it, or lets this process open no more descriptors.
    pub fn new(items: impl AsRef<[T]>) -> io::Result<Self> {
        Self::whole(Segment::written(|file| file.write_all(bytemuck::cast_slice(items.as_ref())))?)
    }

    /// The items that an iterator gives.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn from_items(items: impl IntoIterator<Item = T>) -> io::Result<Self> {
        Self::whole(Segment::written(|file| {
            let mut out = BufWriter::with_capacity(64 << 10, file);
            items.into_iter().try_for_each(|item| out.write_all(bytemuck::bytes_of(&item)))?;
            out.flush()
        })?)
    }

    /// A slice of `length` items, which `fill` is given to fill in place. Before, every byte of it is zero.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn build(length: usize, fill: impl FnOnce(&mut [T])) -> io::Result<Self> {
        let size = length.checked_mul(size_of::<T>()).ok_or(io::ErrorKind::OutOfMemory)?;
        match NonZeroUsize::new(size) {
            Some(size) => Self::whole(Some(Segment::filled(size, |bytes| fill(bytemuck::cast_slice_mut(bytes)))?)),
            None => {
                fill(&mut []);
                Self::whole(None)
            }
        }
    }

    /// What `source` holds from where it stands, in this machine's byte order: that of an open file, say, which the kernel
    /// copies by itself. It is copied, once for all workers, since others may change a file, or cut it off, while it is being used.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::Shared;
    ///
    /// let program: Shared<[u8]> = Shared::read_from(std::fs::File::open("/proc/self/exe")?)?;
    /// assert_eq!(program[1..4], *b"ELF");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of reading it; [`InvalidData`](io::ErrorKind::InvalidData) if it does not hold whole items; and those of
    /// [`new`](Self::new).
    pub fn read_from(mut source: impl Read) -> io::Result<Self> {
        Self::whole(Segment::written(|file| io::copy(&mut source, file).map(drop))?)
    }

    fn whole(segment: Option<Arc<Segment>>) -> io::Result<Self> {
        let length = segment.as_ref().map_or(0, |segment| segment.bytes().len());
        Self::part(segment, 0..length)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{length} bytes are no whole items")))
    }

    /// `None`: the segment has no such bytes, or they are not items.
    fn part(segment: Option<Arc<Segment>>, bytes: Range<usize>) -> Option<Self> {
        const {
            assert!(size_of::<T>() > 0, "items that take no memory cannot be shared");
            assert!(align_of::<T>() <= 4096, "memory is mapped by pages");
        }
        let place = segment.as_deref().map_or(&[][..], Segment::bytes).get(bytes.clone())?;
        if place.is_empty() {
            return Some(Shared { segment: None, bytes: 0..0, items: PhantomData });
        }
        bytemuck::try_cast_slice::<u8, T>(place).ok()?;
        Some(Shared { segment, bytes, items: PhantomData })
    }

    /// A part of this slice, in the same memory.
    ///
    /// # Panics
    /// If it has no such part.
    #[must_use]
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Self {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => self.len(),
        };
        let length = size_of_val(&self[start..end]);
        let first = self.bytes.start + start * size_of::<T>();
        Self::part(self.segment.clone(), first..first + length).expect("it is a part of this slice")
    }
}

impl<T: Plain> Deref for Shared<[T]> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.segment {
            Some(segment) => bytemuck::cast_slice(&segment.bytes()[self.bytes.clone()]),
            None => &[],
        }
    }
}

impl<T: ?Sized> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Shared { segment: self.segment.clone(), bytes: self.bytes.clone(), items: PhantomData }
    }
}

/// Memory of the caller's own making: a file that is only in memory (`memfd_create`), with all four seals against change.
/// It is not copied.
///
/// # Errors
/// [`InvalidData`](io::ErrorKind::InvalidData): it is not such a file, or it does not hold whole items.
impl<T: Plain> TryFrom<OwnedFd> for Shared<[T]> {
    type Error = io::Error;

    fn try_from(file: OwnedFd) -> io::Result<Self> {
        Self::whole(Some(Segment::of(Arc::new(file))?))
    }
}

impl<T: Plain> AsRef<[T]> for Shared<[T]> {
    fn as_ref(&self) -> &[T] {
        self
    }
}

impl<'a, T: Plain> IntoIterator for &'a Shared<[T]> {
    type Item = &'a T;
    type IntoIter = slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T: Plain + PartialEq> PartialEq for Shared<[T]> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Plain + Eq> Eq for Shared<[T]> {}

impl<T: Plain + fmt::Debug> fmt::Debug for Shared<[T]> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A slice as it travels: whose memory, and which bytes of it. `None`: it is empty.
type Travelling = Option<(u32, u64, u64)>;

impl<T: Plain> Serialize for Shared<[T]> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let travelling: Travelling = match &self.segment {
            Some(segment) => {
                let number = attach(segment.file())
                    .ok_or_else(|| ser::Error::custom("shared memory goes to calls, and to nowhere else"))?;
                Some((number, self.bytes.start as u64, self.bytes.end as u64))
            }
            None => None,
        };
        travelling.serialize(serializer)
    }
}

impl<'de, T: Plain> Deserialize<'de> for Shared<[T]> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Some((number, start, end)) = Travelling::deserialize(deserializer)? else {
            return Self::part(None, 0..0).ok_or_else(|| de::Error::custom("nothing has no items"));
        };
        let file = attached(number).ok_or_else(|| de::Error::custom("the memory did not come along"))?;
        let segment = Segment::of(file).map_err(de::Error::custom)?;
        let bytes = usize::try_from(start).ok().zip(usize::try_from(end).ok());
        bytes
            .and_then(|(start, end)| Self::part(Some(segment), start..end))
            .ok_or_else(|| de::Error::custom("the memory has no such items"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use executor_core::{
        attachments::{Attachments, collecting, handing_out},
        codec::{decode, encode},
    };
    use std::fs::File;

    fn arrived<T: Plain>(travelling: Travelling, attachments: &Attachments) -> Option<Shared<[T]>> {
        let mut bytes = Vec::new();
        encode(&travelling, &mut bytes).unwrap();
        handing_out(attachments.clone(), || decode(&bytes)).ok()
    }

    #[test]
    fn slices_are_made_in_several_ways() {
        let made = [
            Shared::new([1_u16, 2, 3]).unwrap(),
            Shared::new(vec![1, 2, 3]).unwrap(),
            Shared::from_items(1..=3).unwrap(),
            Shared::build(3, |items| items.copy_from_slice(&[1, 2, 3])).unwrap(),
            Shared::read_from(bytemuck::cast_slice(&[1_u16, 2, 3])).unwrap(),
            Shared::new([0, 1, 2, 3, 4]).unwrap().slice(1..4),
        ];
        for slice in &made {
            assert_eq!(**slice, [1, 2, 3]);
            assert_eq!(format!("{slice:?}"), "[1, 2, 3]");
            assert_eq!(slice.into_iter().sum::<u16>(), 6);
        }
        assert_eq!(Shared::<[u16]>::read_from(&[1_u8, 2, 3][..]).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(Shared::<[u64]>::build(usize::MAX, |_| ()).is_err());
        assert!(Shared::<[u8]>::build(usize::MAX / 2, |_| ()).is_err());
    }

    #[test]
    fn nothing_can_be_shared_too() {
        let empty = Shared::<[f64]>::build(0, |items| assert!(items.is_empty())).unwrap();
        assert!(empty.is_empty() && empty.slice(..).is_empty());
        let part = Shared::new([1_u8, 2]).unwrap().slice(2..);
        assert!(part.slice(0..0).is_empty() && part == Shared::from_items([]).unwrap());
        let (bytes, attachments) = collecting(|| {
            let mut bytes = Vec::new();
            encode(&part, &mut bytes).map(|()| bytes)
        });
        assert!(attachments.is_empty());
        assert!(decode::<Shared<[u8]>>(&bytes.unwrap()).unwrap().is_empty());
    }

    #[test]
    #[should_panic(expected = "out of range")]
    fn a_part_that_is_not_there_is_a_panic() {
        let _ = Shared::new([1_u8, 2]).unwrap().slice(1..4);
    }

    #[test]
    fn it_goes_nowhere_else_than_to_calls() {
        let data = Shared::new([1_u8, 2]).unwrap();
        assert!(encode(&data, &mut Vec::new()).is_err(), "for a file, perhaps");
        let (bytes, _) = collecting(|| {
            let mut bytes = Vec::new();
            encode(&data, &mut bytes).map(|()| bytes)
        });
        assert!(decode::<Shared<[u8]>>(&bytes.unwrap()).is_err(), "from a file, perhaps");
    }

    /// Whatever a handle says, a slice is within its memory, or there is none.
    #[test]
    fn what_arrives_is_checked() {
        let data = Shared::new([1_u32, 2, 3]).unwrap();
        let memory = vec![Arc::clone(data.segment.as_ref().unwrap().file())];
        assert_eq!(*arrived::<u32>(Some((0, 4, 12)), &memory).unwrap(), [2, 3]);
        assert!(arrived::<u32>(Some((0, 4, 4)), &memory).unwrap().is_empty());
        assert!(arrived::<u32>(None, &memory).unwrap().is_empty());
        let wrong = [
            (1, 0, 4),               // another descriptor, which did not come
            (0, 0, 16),              // longer than the memory
            (0, 12, 16),             // behind it
            (0, 2, 10),              // not aligned
            (0, 0, 6),               // one and a half
            (0, 8, 4),               // backwards
            (0, u64::MAX, u64::MAX), // nothing, nowhere
            (0, 0, u64::MAX),        // everything
            (u32::MAX, u64::MAX, 0),
        ];
        for travelling in wrong {
            assert!(arrived::<u32>(Some(travelling), &memory).is_none(), "{travelling:?}");
        }
        let file: Attachments = vec![Arc::new(File::open("/proc/self/exe").unwrap().into())];
        assert!(arrived::<u8>(Some((0, 0, 4)), &file).is_none(), "a file, which somebody can cut off");
    }
}
