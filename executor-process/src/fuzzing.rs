//! The door by which `fuzz/` feeds whatever reads bytes, here and in core. Each function takes any bytes; that it panics, does
//! not return, or touches what is not its own, is a defect.
//!
//! No part of the interface: it changes without notice.

use executor_core::{
    Panic,
    attachments::{Attachments, handing_out},
    codec, fuzzing, portable,
};
use std::{
    fs::File,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{Arc, OnceLock},
};

use crate::{
    attached::{send_all, send_with_descriptor},
    limits::Limits,
    ring::both_ends::BothEnds,
    segment::Segment,
    shared::{Plain, Shared},
    wire::{Cutter, FrameReader, Hello, Kind, get_call},
};

/// A name, and what takes any bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every door. Each has a program in `fuzz/fuzz_targets`, and a corpus.
pub const TARGETS: [Target; 8] = [
    ("arguments", fuzzing::arguments),
    ("descriptors", descriptors),
    ("frames", frames),
    ("names", fuzzing::names),
    ("replies", fuzzing::replies),
    ("rings", rings),
    ("shared", shared),
    ("values", fuzzing::values),
];

/// Feeds the door of this name.
///
/// # Panics
/// If there is none, or it has a defect.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|target| target.0 == name);
    target.expect("there is such a door").1(bytes);
}

/// A stream of frames, and what is in them. However it is cut, the same frames come out.
fn frames(bytes: &[u8]) {
    let whole = read_frames(bytes, bytes.len().max(1), None);
    let pieces = read_frames(bytes, 1 + bytes.len() % 7, None);
    assert_eq!(pieces, whole);
}

/// The same with descriptors on some of the pieces, in which the first byte says how to cut.
fn descriptors(bytes: &[u8]) {
    static NULL: OnceLock<OwnedFd> = OnceLock::new();
    let null = NULL.get_or_init(|| File::open("/dev/null").expect("every system has it").into());
    if let Some((&cut, bytes)) = bytes.split_first() {
        read_frames(bytes, usize::from(cut) + 1, Some(null));
    }
}

/// What was read of a frame: kind, ticket, body, and how many descriptors it has.
type Read = (Kind, u64, Vec<u8>, usize);

/// The frames of a stream, and whether it ends in an error.
fn read_frames(bytes: &[u8], piece: usize, descriptor: Option<&OwnedFd>) -> (Vec<Read>, bool) {
    let (ours, theirs) = UnixStream::pair().expect("there are few descriptors");
    // What is not yet there is not waited for.
    theirs.set_nonblocking(true).expect("it is open");
    let mut reader = FrameReader::new();
    let mut frames = Vec::new();
    for piece in bytes.chunks(piece.min(32 << 10)) {
        let marked = descriptor.filter(|_| piece[0] % 2 == 0);
        let sent = marked.map_or(0, |descriptor| {
            send_with_descriptor(&ours, piece, descriptor.as_fd()).expect("a piece fits into a socket")
        });
        send_all(&ours, &piece[sent..]).expect("a piece fits into a socket");
        let mut left = piece.len();
        while left > 0 {
            left -= reader.fill(&theirs).expect("there is something to read");
            loop {
                match reader.next() {
                    Ok(Some(frame)) => {
                        look_into(frame.kind, &frame.body);
                        frames.push((frame.kind, frame.ticket, frame.body, frame.attachments.len()));
                    }
                    Ok(None) => break,
                    Err(_) => return (frames, true),
                }
            }
        }
    }
    (frames, false)
}

/// Reads a frame's body as the side does to which it is sent. An error is as good as a success.
fn look_into(kind: Kind, body: &[u8]) {
    match kind {
        Kind::Hello => {
            if let Ok(hello) = Hello::get(body) {
                let own = Hello::of_this_process();
                assert_eq!(own.accepts(hello).is_ok(), (hello.version, hello.build) == (own.version, own.build));
            }
        }
        Kind::Call | Kind::AtExit => {
            if let Ok((_, _, args)) = get_call(body) {
                fuzzing::arguments(args);
            }
        }
        Kind::Reply => drop(portable::check(body)),
        Kind::Limits => drop(Limits::of_body(body)),
        Kind::Panicked => drop(codec::decode::<Panic>(body)),
        Kind::Unfit
        | Kind::Context
        | Kind::Forget
        | Kind::Skipped
        | Kind::Descriptor
        | Kind::Flush
        | Kind::Forward
        | Kind::Record
        | Kind::Bell
        | Kind::Birth
        | Kind::Errand => {}
    }
}

/// A parent and a worker that send and receive by turns, as the bytes say; the worker may go mad and write into its words. Before
/// that each receives what the other one has sent; after it the parent finds frames, or an error.
fn rings(bytes: &[u8]) {
    let mut ends = BothEnds::new().expect("there is memory");
    let (mut sent, mut received) = ([0_usize; 2], [0_usize; 2]);
    let mut is_mad = false;
    let mut cutter = Cutter::default();
    // What lies at some place of a stream, so that a byte that is lost or comes twice is seen.
    let stream = |from: usize, count: usize| (from..from + count).map(|at| (at ^ at >> 8) as u8).collect::<Vec<_>>();
    let mut rest = bytes;
    while let Some((&[action, size, more], after)) = rest.split_first_chunk::<3>() {
        rest = after;
        let count = usize::from(u16::from_le_bytes([size, more])) << (action >> 6);
        let mut out = Vec::new();
        match action % 6 {
            0 => match ends.parent.send(&stream(sent[0], count)) {
                Ok(count) => sent[0] += count,
                Err(_) => assert!(is_mad),
            },
            1 => match ends.receive(&mut out, count) {
                Ok(_) if is_mad => {}
                Ok(count) => {
                    assert!(out == stream(received[0], count));
                    received[0] += count;
                }
                Err(_) => assert!(is_mad),
            },
            2 if !is_mad => sent[1] += ends.send(&stream(sent[1], count)).expect("the parent is not mad"),
            3 if !is_mad => {
                let count = ends.parent.receive(&mut out, count).expect("the worker is not mad");
                assert!(out == stream(received[1], count));
                received[1] += count;
            }
            // What a mad worker writes is of these bytes: frames, perhaps.
            2 => {
                let count = count.min(rest.len());
                let _ = ends.send(&rest[..count]);
                rest = &rest[count..];
            }
            3 => {
                if cutter.fill_with(|bytes, most| ends.parent.receive(bytes, most.min(count))).is_err() {
                    return; // the worker is ended
                }
                while let Ok(Some(frame)) = cutter.next() {
                    look_into(frame.kind, &frame.body);
                }
            }
            4 => {
                is_mad = true;
                let value = match rest.split_first_chunk() {
                    Some((value, after)) => {
                        rest = after;
                        u64::from_le_bytes(*value)
                    }
                    None => u64::MAX,
                };
                ends.scribble(size, value);
            }
            _ => {
                ends.parent.fall_asleep(more % 2 == 0);
                ends.parent.wake();
                ends.parent.stay_awake();
                let _ = (ends.parent.has_replies(), ends.parent.has_room());
            }
        }
        if !is_mad {
            assert!(received[0] <= sent[0] && received[1] <= sent[1]);
        }
    }
}

/// Handles of shared slices, in the company of memory and of what is none. What is accepted can be read to its end.
fn shared(bytes: &[u8]) {
    static COMPANY: OnceLock<Attachments> = OnceLock::new();
    let company = COMPANY.get_or_init(|| {
        let memory = Segment::written(|file| std::io::Write::write_all(file, &[7; 100]));
        let memory = memory.expect("there is memory").expect("something was written");
        let plain: OwnedFd = File::open("/proc/self/exe").expect("it runs").into();
        vec![Arc::clone(memory.file()), Arc::new(plain)]
    });
    fn read<T: Plain>(company: &Attachments, bytes: &[u8]) {
        let slice = handing_out(company.clone(), || codec::decode::<Shared<[T]>>(bytes));
        if let Ok(slice) = slice {
            assert!(bytemuck::cast_slice::<T, u8>(&slice).iter().all(|byte| *byte == 7));
            assert!(size_of_val(&*slice) <= 100);
        }
    }
    read::<u8>(company, bytes);
    read::<u64>(company, bytes);
    read::<[u16; 3]>(company, bytes);
}
