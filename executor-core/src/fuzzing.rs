//! The door by which `fuzz/` feeds whatever reads bytes in this crate. Each function takes any bytes; that it panics, does not
//! return, or touches what is not its own, is a defect.
//!
//! No part of the interface: it changes without notice.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use crate::{
    codec,
    error::Failure,
    function::Plain,
    payload::Payload,
    portable::{self, Address, CallName, Travels, check_name, name_of},
    reply,
    travel::Packs,
    work::{Many, Single},
};

/// Names of calls: found where they are checked to be, or refused. The good name of a call with the bytes mixed in, so that
/// some come close.
pub fn names(bytes: &[u8]) {
    let good =
        name_of::<Single<Plain<u64, u64>, u64>>(&Plain(u64::swap_bytes)).expect("it is a function of this program");
    assert!(check_name(good).is_ok());
    let mut words = bytes.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    let mut mixed = |address: Address| {
        let (module, offset) = (words.next().unwrap_or(0), words.next().unwrap_or(0));
        Address { module: address.module ^ module, offset: address.offset.wrapping_add(offset) }
    };
    let name = CallName { descriptor: mixed(good.descriptor), function: mixed(good.function) };
    if let Ok((descriptor, function)) = check_name(name) {
        // What was found lies in a module, and is named as it was asked for.
        assert_eq!(Address::of(descriptor).map(|found| found.offset), Some(name.descriptor.offset));
        assert_eq!(Address::of(function).map(|found| found.offset), Some(name.function.offset));
    }
}

/// Replies, as the pool and those who look at them read them.
pub fn replies(bytes: &[u8]) {
    let told = portable::check(bytes);
    let found = reply::failure_in(bytes, Many::<Plain<u64, Shape>, u64>::failure_in_value);
    if told.is_err() {
        assert!(found.is_some());
    }
    for failure in told.err().into_iter().chain(found) {
        assert!(!failure.to_string().is_empty());
    }
    // Errors and values are both fine.
    let _ = reply::read(bytes, codec::decode::<(String, Vec<u64>)>);
    let _ = reply::read_from(bytes.to_vec(), Many::<Plain<u64, Shape>, u64>::unpack);
}

/// Arguments, single ones and chunks, as a worker reads them before it calls. Whatever comes of them, there is a reply.
pub fn arguments(bytes: &[u8]) {
    let name = |shape: Shape| format!("{shape:?}");
    let mut out = Payload::default();
    let ending = Single::<Plain<Shape, String>, Shape>::serve(Plain(name), bytes.to_vec(), Vec::new(), &mut out);
    out.buffer().push(ending.mark);
    let single = reply::read(&out.into_vec(), codec::decode::<String>);
    assert!(matches!(single, Ok(_) | Err(Failure::Decode { .. })), "{single:?}");
    let mut out = Payload::default();
    let ending = Many::<Plain<Shape, String>, Shape>::serve(Plain(name), bytes.to_vec(), Vec::new(), &mut out);
    out.buffer().push(ending.mark);
    let chunk = reply::read_from(out.into_vec(), Many::<Plain<Shape, String>, Shape>::unpack);
    assert!(chunk.is_ok() || matches!(chunk, Err(Failure::Decode { .. })));
}

/// Values of the type that the first byte chooses. What is decoded is encoded, and decoded to the same.
pub fn values(bytes: &[u8]) {
    let Some((&choice, bytes)) = bytes.split_first() else { return };
    match choice % 16 {
        0 => value::<()>(bytes),
        1 => value::<(bool, char, i8)>(bytes),
        2 => value::<u64>(bytes),
        3 => value::<(i128, f64, f32)>(bytes),
        4 => value::<String>(bytes),
        5 => value::<Vec<u8>>(bytes),
        6 => value::<Vec<f64>>(bytes),
        7 => value::<Vec<u128>>(bytes),
        8 => value::<(String, Vec<f64>)>(bytes),
        9 => value::<Option<Option<()>>>(bytes),
        10 => value::<BTreeMap<String, Vec<Option<i32>>>>(bytes),
        11 => value::<(PathBuf, Duration)>(bytes),
        12 => value::<Result<Box<str>, [u16; 3]>>(bytes),
        13 => value::<Vec<Shape>>(bytes),
        14 => value::<Failure>(bytes),
        _ => value::<Vec<String>>(bytes),
    }
}

fn value<T: Serialize + DeserializeOwned + fmt::Debug + 'static>(bytes: &[u8]) {
    let encoded = |value: &T| {
        let mut out = Vec::new();
        codec::encode(value, &mut out).map(|()| out)
    };
    let Ok(value) = codec::decode::<T>(bytes) else { return };
    // Compared as bytes, since not every number is equal to itself.
    let once = encoded(&value).expect("what was read can be written");
    let again = encoded(&codec::decode(&once).expect("what was written can be read")).expect("as before");
    assert_eq!(once, again, "{value:?}");
}

/// A type such as users have.
#[derive(Debug, Serialize, Deserialize)]
enum Shape {
    Dot,
    Line(f64, Option<u8>),
    Named { text: String, bytes: Vec<u8>, inner: Vec<(u16, String)> },
}
