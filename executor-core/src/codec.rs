//! Arguments and results to bytes and back. The only file that names the codec.
//!
//! Both ends are always the same build of the same program, so the format needs no versions and
//! names no fields: `postcard` writes values one after the other. Types whose `serde` form depends
//! on field names being present (`#[serde(flatten)]`, `#[serde(untagged)]`) do not travel; they
//! come back as an error of their task.
//!
//! Large values are mostly lists of numbers, or text. One that is a whole argument or result is copied at once, as it lies
//! in memory. Inside of another value, `serde` shows the items of a list one by one, whose types cannot be told soundly, so
//! there they are written one by one.

use postcard::ser_flavors::Flavor;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    any::{Any, type_name},
    mem,
};

use crate::{
    buffers::{self, want_large_pages},
    error::Failure,
    payload::{List, Payload},
};

/// Appends `value` to `out`; on an error `out` is as it was.
///
/// # Errors
/// [`Failure::Encode`] when `value`'s own `Serialize` refuses, or the format cannot hold it.
pub fn encode<T: Serialize + 'static>(value: &T, out: &mut Vec<u8>) -> Result<(), Failure> {
    if let Some(bytes) = plain_bytes(value) {
        out.extend_from_slice(bytes);
        return Ok(());
    }
    let start = out.len();
    postcard::serialize_with_flavor(value, Appending(out)).map_err(|error| {
        out.truncate(start);
        Failure::Encode { type_name: type_name::<T>().into(), reason: error.to_string() }
    })
}

/// As [`encode`], and may use up the value: bytes and text that are alone in `out`, and long lists of numbers, are not copied.
///
/// # Errors
/// As there. Then, and for most types, the value stays where it is.
///
/// # Panics
/// If there is no value.
pub fn encode_from<T: Serialize + 'static>(value: &mut Option<T>, out: &mut Payload) -> Result<(), Failure> {
    if out.is_empty() {
        if let Some(list) = long_list(value) {
            *out = Payload::of(list);
            return Ok(());
        }
        let value: &mut dyn Any = value;
        let bytes = match value.downcast_mut::<Option<Vec<u8>>>() {
            Some(bytes) => bytes.take(),
            None => value.downcast_mut::<Option<String>>().and_then(Option::take).map(String::into_bytes),
        };
        if let Some(bytes) = bytes {
            *out.buffer() = bytes;
            return Ok(());
        }
    }
    encode(value.as_ref().expect("a value to encode"), out.buffer())
}

/// As [`decode`], and may use up the buffer: bytes and text are not copied.
///
/// # Errors
/// As there.
pub fn decode_from<T: DeserializeOwned + 'static>(mut bytes: Vec<u8>) -> Result<T, Failure> {
    let mut value: Option<T> = None;
    let slot: &mut dyn Any = &mut value;
    if let Some(slot) = slot.downcast_mut::<Option<Vec<u8>>>() {
        *slot = Some(mem::take(&mut bytes));
    } else if let Some(slot) = slot.downcast_mut::<Option<String>>() {
        match String::from_utf8(mem::take(&mut bytes)) {
            Ok(text) => *slot = Some(text),
            Err(refused) => bytes = refused.into_bytes(), // `decode` says why
        }
    }
    if let Some(value) = value {
        return Ok(value);
    }
    let decoded = decode(&bytes);
    buffers::keep(bytes);
    decoded
}

/// Reads a `T` that fills `bytes` exactly.
///
/// # Errors
/// [`Failure::Decode`] when the bytes are not a `T`, or go on after it.
pub fn decode<T: DeserializeOwned + 'static>(bytes: &[u8]) -> Result<T, Failure> {
    let refused = |reason: String| Failure::Decode { type_name: type_name::<T>().into(), reason };
    let mut plain: Option<T> = None;
    if let Some(filled) = fill_plain(&mut plain, bytes) {
        return filled.and_then(|()| plain.ok_or_else(|| "nothing was read".into())).map_err(refused);
    }
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(refused(format!("{} bytes left over", rest.len()))),
        Err(error) => Err(refused(error.to_string())),
    }
}

/// Lists of these are copied at once, as `u8` and text are.
macro_rules! for_each_number {
    ($look:ident) => { $look!(i8 u16 i16 u32 i32 u64 i64 u128 i128 usize isize f32 f64) };
}

/// What `value` is in memory, if it is of a plain type. Each question is answered when this is compiled.
#[inline(always)]
fn plain_bytes<T: 'static>(value: &T) -> Option<&[u8]> {
    let value: &dyn Any = value;
    macro_rules! look {
        ($($number:ty)*) => {$(
            if let Some(list) = value.downcast_ref::<Vec<$number>>() {
                return Some(bytemuck::cast_slice(list));
            }
        )*};
    }
    for_each_number!(look);
    value.downcast_ref::<Vec<u8>>().map(Vec::as_slice).or_else(|| value.downcast_ref::<String>().map(String::as_bytes))
}

/// A list of fewer bytes is copied: it goes into one buffer with others.
const LONG_BYTES: usize = 64 << 10;

/// Takes the value, if it is of a plain type, and long.
#[inline(always)]
fn long_list<T: 'static>(value: &mut Option<T>) -> Option<List> {
    let value: &mut dyn Any = value;
    macro_rules! look {
        ($($number:ty)*) => {$(
            if let Some(value) = value.downcast_mut::<Option<Vec<$number>>>() {
                let list = value.take_if(|list| size_of_val(list.as_slice()) >= LONG_BYTES)?;
                return Some(List::Numbers(Box::new(Numbers(list))));
            }
        )*};
    }
    for_each_number!(look);
    if let Some(value) = value.downcast_mut::<Option<Vec<u8>>>() {
        return value.take_if(|list| list.len() >= LONG_BYTES).map(List::Bytes);
    }
    let text = value.downcast_mut::<Option<String>>()?.take_if(|text| text.len() >= LONG_BYTES)?;
    Some(List::Bytes(text.into_bytes()))
}

struct Numbers<T>(Vec<T>);

impl<T: bytemuck::Pod> AsRef<[u8]> for Numbers<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// Fills `slot` with what [`plain_bytes`] gave, if it is of a plain type. The error is why it cannot.
#[inline(always)]
fn fill_plain<T: 'static>(slot: &mut Option<T>, bytes: &[u8]) -> Option<Result<(), String>> {
    let slot: &mut dyn Any = slot;
    macro_rules! look {
        ($($number:ty)*) => {$(
            if let Some(slot) = slot.downcast_mut::<Option<Vec<$number>>>() {
                let size = size_of::<$number>();
                if bytes.len() % size != 0 {
                    return Some(Err(format!("{} bytes are no list of items of {size}", bytes.len())));
                }
                // Zeroed memory costs nothing before it is written.
                let mut list = vec![<$number>::default(); bytes.len() / size];
                want_large_pages(&mut list);
                bytemuck::cast_slice_mut(&mut list).copy_from_slice(bytes);
                *slot = Some(list);
                return Some(Ok(()));
            }
        )*};
    }
    for_each_number!(look);
    if let Some(slot) = slot.downcast_mut::<Option<Vec<u8>>>() {
        *slot = Some(bytes.to_vec());
        return Some(Ok(()));
    }
    let slot = slot.downcast_mut::<Option<String>>()?;
    Some(match str::from_utf8(bytes) {
        Ok(text) => {
            *slot = Some(text.to_owned());
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    })
}

/// The end of a vector, where the codec writes.
struct Appending<'a>(&'a mut Vec<u8>);

impl Flavor for Appending<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// A list whose items fail one by one: each is preceded by its length, so that one that cannot be
/// read does not hide the next. Numbers cannot fail, and are copied at once. A list of one is that one.
///
/// How many there are and in which form comes last, so that an only item begins where its buffer does, and need not be copied.
pub(crate) mod items {
    use super::{
        DeserializeOwned, Failure, Payload, Serialize, buffers, decode, decode_from, encode, encode_from, fill_plain,
        plain_bytes,
    };
    use crate::{
        outcomes::Outcomes,
        panic::{catch, drop_quietly},
    };
    use std::iter;

    /// Appends each item; one that cannot be encoded travels as its failure.
    pub(crate) fn encode_all<T: Serialize + 'static>(items: Outcomes<T>, out: &mut Payload) {
        let count = items.len() as u64;
        let form = put_items(items, out);
        put(out.buffer(), count);
        out.buffer().push(form);
    }

    fn put_items<T: Serialize + 'static>(items: Outcomes<T>, out: &mut Payload) -> u8 {
        if let Some(bytes) = items.all_values().and_then(plain_bytes) {
            out.buffer().extend_from_slice(bytes);
            return PLAIN;
        }
        if items.len() > 1 || items.only_failure().is_some() {
            return put_each(items, out.buffer());
        }
        let mut only = items.into_iter().next().and_then(Result::ok);
        if only.is_none() {
            return EACH; // there is none
        }
        let start = out.buffer().len();
        let encoded = catch(|| encode_from(&mut only, out)).flatten();
        drop_quietly(only);
        match encoded {
            Ok(()) => ONE,
            Err(failure) => {
                out.buffer().truncate(start);
                put_each(iter::once(Err::<T, _>(failure)), out.buffer())
            }
        }
    }

    fn put_each<T: Serialize + 'static>(items: impl IntoIterator<Item = Result<T, Failure>>, out: &mut Vec<u8>) -> u8 {
        for item in items {
            let length_at = out.len();
            put(out, 0);
            match &item {
                Ok(value) => {
                    out.push(OK);
                    if let Err(failure) = catch(|| encode(value, out)).flatten() {
                        out.truncate(length_at + 8);
                        encode_failure(&failure, out);
                    }
                }
                Err(failure) => encode_failure(failure, out),
            }
            drop_quietly(item);
            let length = (out.len() - length_at - 8) as u64;
            out[length_at..length_at + 8].copy_from_slice(&length.to_le_bytes());
        }
        EACH
    }

    /// Reads what [`encode_all`] wrote.
    pub(crate) fn decode_all<T: DeserializeOwned + 'static>(mut list: Vec<u8>) -> Result<Outcomes<T>, Failure> {
        let (bytes, count, form) = parts(&list)?;
        if form == ONE && count == 1 {
            list.truncate(bytes.len());
            return Ok(iter::once(catch(|| decode_from(list)).flatten()).collect());
        }
        let items = decode_several(bytes, count, form);
        buffers::keep(list);
        items
    }

    fn decode_several<T: DeserializeOwned + 'static>(
        mut bytes: &[u8],
        count: usize,
        form: u8,
    ) -> Result<Outcomes<T>, Failure> {
        match form {
            PLAIN => {
                let mut values: Option<Vec<T>> = None;
                let filled = fill_plain(&mut values, bytes).map(|filled| filled.is_ok());
                match values.filter(|values| filled == Some(true) && values.len() == count) {
                    Some(values) => Ok(values.into()),
                    None => Err(truncated()),
                }
            }
            EACH => {
                // Each has a length and a mark.
                let mut items = Outcomes::with_capacity(count.min(bytes.len() / 9));
                for _ in 0..count {
                    let length = take_length(&mut bytes)?;
                    let Some((item, rest)) = bytes.split_at_checked(length) else {
                        return Err(truncated());
                    };
                    items.push(match item.split_first() {
                        Some((&OK, value)) => catch(|| decode(value)).flatten(),
                        Some((&FAILED, failure)) => Err(decode(failure).unwrap_or_else(|unreadable| unreadable)),
                        _ => Err(truncated()),
                    });
                    bytes = rest;
                }
                if bytes.is_empty() { Ok(items) } else { Err(truncated()) }
            }
            _ => Err(truncated()),
        }
    }

    /// The failure of the only item of what [`encode_all`] wrote, if there is one item, and it failed. Runs no user code.
    pub(crate) fn only_failure(list: &[u8]) -> Option<Failure> {
        let (mut bytes, 1, EACH) = parts(list).ok()? else { return None };
        let length = take_length(&mut bytes).ok()?;
        match bytes.get(..length)?.split_first()? {
            (&FAILED, failure) => decode(failure).ok(),
            _ => None,
        }
    }

    /// The first failure in what [`encode_all`] wrote, if there is one. Runs no user code.
    pub(crate) fn first_failure(list: &[u8]) -> Option<Failure> {
        let (mut bytes, count, EACH) = parts(list).ok()? else { return None };
        for _ in 0..count {
            let length = take_length(&mut bytes).ok()?;
            let (item, rest) = bytes.split_at_checked(length)?;
            if let Some((&FAILED, failure)) = item.split_first() {
                return Some(decode(failure).unwrap_or_else(|unreadable| unreadable));
            }
            bytes = rest;
        }
        None
    }

    /// The items, how many there are, and in which form.
    fn parts(list: &[u8]) -> Result<(&[u8], usize, u8), Failure> {
        let (&form, list) = list.split_last().ok_or_else(truncated)?;
        let (items, count) = list.split_last_chunk::<8>().ok_or_else(truncated)?;
        let count = usize::try_from(u64::from_le_bytes(*count)).map_err(|_| truncated())?;
        Ok((items, count, form))
    }

    /// The items one after the other, each with its length and a mark.
    const EACH: u8 = 0;
    /// The items as they lie in memory. There is no failure among them.
    const PLAIN: u8 = 1;
    /// One item, as it is by itself.
    const ONE: u8 = 2;

    const OK: u8 = 0;
    const FAILED: u8 = 1;

    fn encode_failure(failure: &Failure, out: &mut Vec<u8>) {
        out.push(FAILED);
        encode(failure, out).expect("a failure is plain data, which the codec can hold");
    }

    fn put(out: &mut Vec<u8>, number: u64) {
        out.extend_from_slice(&number.to_le_bytes());
    }

    fn take_length(bytes: &mut &[u8]) -> Result<usize, Failure> {
        let (number, rest) = bytes.split_first_chunk::<8>().ok_or_else(truncated)?;
        *bytes = rest;
        usize::try_from(u64::from_le_bytes(*number)).map_err(|_| truncated())
    }

    fn truncated() -> Failure {
        Failure::Decode { type_name: "a chunk of items".into(), reason: "it ends too early".into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcomes::Outcomes;
    use serde::{Deserialize, Serializer};

    fn listed<T: Serialize + 'static>(items: Outcomes<T>) -> Vec<u8> {
        let mut out = Payload::default();
        items::encode_all(items, &mut out);
        out.into_vec()
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Shape {
        Dot,
        Line(f64, Option<Option<u8>>),
        Named { text: String, bytes: Vec<u8> },
    }

    fn there_and_back<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug + 'static>(value: T) {
        let mut bytes = vec![7];
        encode(&value, &mut bytes).unwrap();
        assert_eq!(bytes[0], 7, "what was there stays");
        assert_eq!(decode::<T>(&bytes[1..]).unwrap(), value);
    }

    #[test]
    fn values_come_back_as_they_went() {
        there_and_back(());
        there_and_back(u64::MAX);
        there_and_back(Some(None::<()>));
        there_and_back(vec![0_u8, 1, 255]);
        there_and_back(Shape::Dot);
        there_and_back(Shape::Line(f64::MIN_POSITIVE, Some(None)));
        there_and_back(Shape::Named { text: "word".into(), bytes: vec![1, 2] });
    }

    #[test]
    fn plain_values_come_back_as_they_went_and_hold_no_more_than_themselves() {
        there_and_back(vec![0.5_f64, f64::MAX]);
        there_and_back(vec![i128::MIN, 7]);
        there_and_back(Vec::<usize>::new());
        there_and_back("text with an ö".to_owned());
        there_and_back(("name".to_owned(), vec![0.5_f32, 1.0], vec![u64::MAX]));
        let mut bytes = Vec::new();
        encode(&vec![1_u64, u64::MAX], &mut bytes).unwrap();
        assert_eq!(bytes.len(), 16);
        for end in (0..16).filter(|end| end % 8 != 0) {
            let error = decode::<Vec<u64>>(&bytes[..end]).unwrap_err();
            assert!(error.to_string().contains("are no list of items of 8"), "{error}");
        }
        let error = decode::<String>(&[b'x', 0xff]).unwrap_err();
        assert!(error.to_string().contains("utf-8"), "{error}");
    }

    #[test]
    fn bytes_left_over_are_an_error() {
        let error = decode::<u8>(&[1, 2]).unwrap_err();
        assert_eq!(error.to_string(), "a value of type u8 could not be decoded: 1 bytes left over");
    }

    #[test]
    fn a_failed_encoding_leaves_the_buffer_alone() {
        struct Refuses;
        impl Serialize for Refuses {
            fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("no"))
            }
        }
        let mut bytes = vec![1, 2];
        assert!(matches!(encode(&(5_u8, Refuses), &mut bytes), Err(Failure::Encode { .. })));
        assert_eq!(bytes, [1, 2]);
    }

    #[test]
    fn the_failure_of_an_only_item_is_found() {
        let lists = [vec![Err(Failure::Shutdown)], vec![Ok(1_u32)], vec![Err(Failure::Shutdown), Ok(1)], vec![]];
        let found = lists.map(|list| {
            let bytes = listed(list.into_iter().collect());
            items::only_failure(&bytes).is_some()
        });
        assert_eq!(found, [true, false, false, false]);
        assert!(items::only_failure(&[1, 2]).is_none());
    }

    #[test]
    fn truncated_lists_are_errors_and_never_panics() {
        fn cut<T: Serialize + DeserializeOwned + Clone + PartialEq + std::fmt::Debug + 'static>(list: &[T]) {
            let bytes = listed(list.to_vec().into());
            assert_eq!(items::decode_all::<T>(bytes.clone()).unwrap().all_values().unwrap(), list);
            for end in 0..bytes.len() {
                assert!(items::decode_all::<T>(bytes[..end].to_vec()).is_err(), "cut at {end}");
            }
        }
        cut(&[1_u32, 2]);
        cut(&[(1_u32, 'x'), (2, 'y')]);
    }

    #[test]
    fn an_only_item_lies_where_it_lay() {
        let text = "a text that is an item by itself".repeat(100);
        let mut list = vec![text.clone()];
        list[0].reserve(100); // for what is put behind it
        let start = list[0].as_ptr();
        let bytes = listed(list.into());
        assert_eq!(bytes.as_ptr(), start);
        let back = items::decode_all::<String>(bytes).unwrap();
        let back = &back.all_values().unwrap()[0];
        assert_eq!((back, back.as_ptr()), (&text, start));

        let bytes = listed(vec![Shape::Dot].into());
        for end in 0..bytes.len() {
            assert!(items::decode_all::<Shape>(bytes[..end].to_vec()).is_err(), "cut at {end}");
        }
        assert_eq!(items::decode_all::<Shape>(bytes).unwrap().all_values().unwrap(), &[Shape::Dot]);

        let none = Outcomes::<Shape>::from(Vec::new());
        let bytes = listed(none);
        assert_eq!(items::decode_all::<Shape>(bytes).unwrap().len(), 0);
    }

    /// By itself, and as an item that is alone; whatever it is a list of.
    #[test]
    fn a_long_list_is_sent_from_where_it_lies() {
        fn sent<T>(list: Vec<T>)
        where
            T: Serialize + DeserializeOwned + Clone + PartialEq + std::fmt::Debug + 'static,
        {
            let (copy, start) = (list.clone(), list.as_ptr().cast::<u8>());
            let mut value = Some(list);
            let mut alone = Payload::default();
            encode_from(&mut value, &mut alone).unwrap();
            assert_eq!((value, alone.parts()[0].as_ptr(), alone.parts()[1]), (None, start, &[][..]));
            assert!(decode_from::<Vec<T>>(alone.into_vec()).unwrap() == copy);

            let list = copy.clone();
            let start = list.as_ptr().cast::<u8>();
            let mut item = Payload::default();
            items::encode_all(vec![list].into(), &mut item);
            assert_eq!(item.parts()[0].as_ptr(), start);
            assert!(items::decode_all::<Vec<T>>(item.into_vec()).unwrap().all_values().unwrap()[0] == copy);
        }
        sent(vec![7_u8; LONG_BYTES]);
        sent(vec![-7_i16; LONG_BYTES / 2]);
        sent(vec![0.5_f32; LONG_BYTES / 4]);
        sent(vec![0.5_f64; LONG_BYTES]);
        let mut text = Some("text".repeat(LONG_BYTES));
        let mut out = Payload::default();
        encode_from(&mut text, &mut out).unwrap();
        assert!(text.is_none() && out.parts()[0].len() == 4 * LONG_BYTES);
    }

    #[test]
    fn a_text_that_is_none_is_refused_as_it_comes_by_itself_too() {
        assert_eq!(decode_from::<String>(b"text".to_vec()).unwrap(), "text");
        assert!(decode_from::<String>(vec![b'x', 0xff]).unwrap_err().to_string().contains("utf-8"));
    }

    #[test]
    fn numbers_travel_at_once_and_a_failure_among_them_by_itself() {
        let bytes = listed((0..100_u64).collect::<Vec<_>>().into());
        assert_eq!(bytes.len(), 8 + 1 + 800);
        let bytes = listed([Ok(1_u64), Err(Failure::Shutdown), Ok(3)].into_iter().collect());
        let back = items::decode_all::<u64>(bytes).unwrap().into_iter().map(Result::ok);
        assert_eq!(back.collect::<Vec<_>>(), [Some(1), None, Some(3)]);
    }
}
