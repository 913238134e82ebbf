//! What goes through a worker's channel: whole frames in both directions, through its rings. Before it has these, and to wake
//! the parent, through a Unix stream socket of its own.
//!
//! ```text
//!  frame = kind: u32 │ attachments: u32 │ ticket: u64 │ length: u64 │ body: length bytes     all little-endian
//!
//!  parent ► worker                               worker ► parent
//!  through the socket:
//!  Hello    version, build, parent's pid  (+ the memory's descriptor)
//!                                                Hello     version, build
//!                                                Unfit     why it cannot serve, as text
//!                                                Bell      something is in the ring
//!  Descriptor  ticket: its number (+ the descriptor), from either side; see `attached`
//!  through the rings:
//!  Context  ticket: its id; encoded value
//!  Forget   ticket: its id
//!  AtExit   as `Call`: to be made before it leaves
//!  Flush    standard output is to be flushed after each call
//!  Forward  up to which levels log records are wanted
//!  Limits   what it may use, as `limits` wrote it; before any call
//!  Call     arguments, name, context id          Reply     the outcome, as `portable::answer` made it
//!                                                Skipped   the call was revoked before it began
//!  Descriptor  ticket: its number; it is in the socket
//!                                                Panicked  the call to which it belongs, or none; where, and why
//!                                                Record    likewise; a log record
//!  between a process, its parent and queues, through sockets alone:
//!  Birth    who it is; to a `Process` only, which then gets one Call
//!  Errand   ticket: what a queue's users and its process say to each other; see `errand`
//! ```
//!
//! `attachments` is how many descriptors belong to the frame; they have come before it.
//!
//! `Hello` is the first frame of either side, and its layout stays for ever, so that two versions can at least tell
//! each other that they differ. The order to leave is a word beside the rings.

use executor_core::{
    Call,
    attachments::Attachments,
    buffers,
    context::ContextId,
    portable::{Address, CallName},
};
use std::{
    fmt,
    io::{self, Read},
    os::unix::net::UnixStream,
};

use crate::{attached::Arrivals, limits::NO_MEMORY_FOR_FRAME};

/// Of the frames below. To be raised with any change to them.
pub(crate) const VERSION: u64 = 5;

pub(crate) const HEADER_BYTES: usize = 24;
const TAIL_BYTES: usize = 40;

/// Bodies up to this size are read together with their neighbours, larger ones straight into a buffer of their own.
pub(crate) const SMALL_BYTES: usize = 64 << 10;

/// What a stalled peer's neighbours wait for at most, in one go.
const READ_AT_ONCE_BYTES: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Kind {
    Hello = 1,
    Unfit = 2,
    Context = 3,
    Forget = 4,
    Call = 5,
    Reply = 6,
    Skipped = 7,
    AtExit = 8,
    Descriptor = 9,
    Flush = 10,
    Forward = 11,
    Panicked = 12,
    Record = 13,
    Limits = 14,
    Bell = 15,
    Birth = 16,
    Errand = 17,
}

impl Kind {
    const ALL: [Kind; 17] = [
        Kind::Hello,
        Kind::Unfit,
        Kind::Context,
        Kind::Forget,
        Kind::Call,
        Kind::Reply,
        Kind::Skipped,
        Kind::AtExit,
        Kind::Descriptor,
        Kind::Flush,
        Kind::Forward,
        Kind::Panicked,
        Kind::Record,
        Kind::Limits,
        Kind::Bell,
        Kind::Birth,
        Kind::Errand,
    ];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) attachments: u32,
    pub(crate) ticket: u64,
    pub(crate) length: u64,
}

/// A frame that was read whole, with the descriptors that belong to it.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) ticket: u64,
    pub(crate) body: Vec<u8>,
    pub(crate) attachments: Attachments,
}

/// A frame that was read whole. Its descriptors come by another way.
#[derive(Debug)]
pub(crate) struct BareFrame {
    pub(crate) kind: Kind,
    /// How many descriptors belong to it.
    pub(crate) attachments: u32,
    pub(crate) ticket: u64,
    pub(crate) body: Vec<u8>,
}

/// Bytes that are no frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum WireError {
    Kind(u32),
    Length(u64),
    Body(Kind, usize),
    Attachments(Kind),
    Limits(usize),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WireError::Kind(number) => write!(f, "a frame of unknown kind {number}"),
            WireError::Length(length) => write!(f, "a frame of {length} bytes, {NO_MEMORY_FOR_FRAME}"),
            WireError::Limits(length) => write!(f, "limits of {length} bytes, which are none"),
            WireError::Body(kind, length) => write!(f, "a frame {kind:?} of {length} bytes, which is no such frame"),
            WireError::Attachments(kind) => write!(f, "a frame {kind:?} without the descriptors that belong to it"),
        }
    }
}

impl std::error::Error for WireError {}

impl From<WireError> for io::Error {
    fn from(error: WireError) -> Self {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

impl Header {
    pub(crate) fn put(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes());
    }

    pub(crate) fn bytes(self) -> [u8; HEADER_BYTES] {
        words([u64::from(self.kind as u32) | u64::from(self.attachments) << 32, self.ticket, self.length])
    }

    pub(crate) fn get(bytes: &[u8; HEADER_BYTES]) -> Result<Header, WireError> {
        let mut fields = Fields(bytes);
        let (number, attachments) = fields.u32s();
        let kind = Kind::ALL.into_iter().find(|kind| *kind as u32 == number).ok_or(WireError::Kind(number))?;
        Ok(Header { kind, attachments, ticket: fields.u64(), length: fields.u64() })
    }
}

/// Appends a frame with a short body.
pub(crate) fn put_frame(kind: Kind, ticket: u64, body: &[u8], out: &mut Vec<u8>) {
    Header { kind, attachments: 0, ticket, length: body.len() as u64 }.put(out);
    out.extend_from_slice(body);
}

/// The header of a call's frame, of kind `Call` or `AtExit`. Its arguments follow, and then its [tail](call_tail): so what
/// arrived is the arguments' own buffer once the tail is cut off.
pub(crate) fn call_header(kind: Kind, ticket: u64, call: &Call) -> [u8; HEADER_BYTES] {
    let attachments = call.attachments.len() as u32;
    Header { kind, attachments, ticket, length: (call.args.len() + TAIL_BYTES) as u64 }.bytes()
}

/// What ends a call's frame: its name and context.
pub(crate) fn call_tail(call: &Call) -> [u8; TAIL_BYTES] {
    let CallName { descriptor, function } = call.name;
    let context = call.context.as_ref().map_or(NO_CONTEXT, |context| context.id.0);
    words([descriptor.module, descriptor.offset, function.module, function.offset, context])
}

/// Numbers as they travel.
fn words<const COUNT: usize, const BYTES: usize>(numbers: [u64; COUNT]) -> [u8; BYTES] {
    const { assert!(BYTES == 8 * COUNT) };
    let mut bytes = [0; BYTES];
    for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    bytes
}

/// The ticket of what belongs to no call.
pub(crate) const NO_TICKET: u64 = u64::MAX;

/// Contexts are numbered from 1.
const NO_CONTEXT: u64 = 0;

/// The parts of a call's body.
pub(crate) fn get_call(body: &[u8]) -> Result<(CallName, Option<ContextId>, &[u8]), WireError> {
    let Some((args, tail)) = body.len().checked_sub(TAIL_BYTES).map(|length| body.split_at(length)) else {
        return Err(WireError::Body(Kind::Call, body.len()));
    };
    let mut fields = Fields(tail);
    let mut address = || Address { module: fields.u64(), offset: fields.u64() };
    let name = CallName { descriptor: address(), function: address() };
    let context = Some(fields.u64()).filter(|id| *id != NO_CONTEXT).map(ContextId);
    Ok((name, context, args))
}

/// What each side says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) version: u64,
    pub(crate) build: u64,
    pub(crate) pid: u64,
}

/// Bytes of a `Hello` frame, header included.
pub(crate) const HELLO_BYTES: usize = HEADER_BYTES + 24;

impl Hello {
    pub(crate) fn of_this_process() -> Hello {
        Hello { version: VERSION, build: executor_core::portable::build_identity(), pid: u64::from(std::process::id()) }
    }

    pub(crate) fn put(self, out: &mut Vec<u8>) {
        let body = [self.version, self.build, self.pid].map(u64::to_le_bytes).concat();
        put_frame(Kind::Hello, 0, &body, out);
    }

    pub(crate) fn get(body: &[u8]) -> Result<Hello, WireError> {
        if body.len() != HELLO_BYTES - HEADER_BYTES {
            return Err(WireError::Body(Kind::Hello, body.len()));
        }
        let mut fields = Fields(body);
        Ok(Hello { version: fields.u64(), build: fields.u64(), pid: fields.u64() })
    }

    /// Whether a peer can serve this process: if not, why.
    pub(crate) fn accepts(self, peer: Hello) -> Result<(), String> {
        if peer.version != self.version {
            return Err(format!("it speaks version {} of the channel, not {}", peer.version, self.version));
        }
        if peer.build != self.build {
            return Err(format!("it is build {:016x} of the program, not {:016x}", peer.build, self.build));
        }
        Ok(())
    }
}

/// Reads numbers from the front of a slice that is known to be long enough.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u64(&mut self) -> u64 {
        let (number, rest) = self.0.split_first_chunk::<8>().expect("the caller checked the length");
        self.0 = rest;
        u64::from_le_bytes(*number)
    }

    fn u32s(&mut self) -> (u32, u32) {
        let both = self.u64();
        (both as u32, (both >> 32) as u32)
    }
}

/// Cuts a stream into frames.
#[derive(Debug, Default)]
pub(crate) struct Cutter {
    /// Where reads from a stream arrive.
    arrived: Box<[u8]>,
    /// Bytes that were read and not yet cut; those before `cut` are done with.
    buffer: Vec<u8>,
    cut: usize,
    /// A frame whose large body is being read into its own buffer.
    large: Option<(Header, Vec<u8>)>,
}

impl Cutter {
    /// Reads what is there, or waits for some if the stream blocks; descriptors go to `arrivals`. Returns how many bytes: 0 is
    /// the end.
    pub(crate) fn fill(&mut self, stream: &UnixStream, arrivals: &mut Arrivals) -> io::Result<usize> {
        if let Some((header, body)) = &mut self.large {
            let left = header.length - body.len() as u64;
            if left > 0 {
                // Appends what it gets, also before an error such as "would block".
                let before = body.len();
                let result = stream.take(left.min(READ_AT_ONCE_BYTES)).read_to_end(body);
                return match body.len() - before {
                    0 => result,
                    got => Ok(got),
                };
            }
        }
        self.buffer.drain(..self.cut);
        self.cut = 0;
        if self.arrived.is_empty() {
            self.arrived = vec![0; SMALL_BYTES].into();
        }
        let got = arrivals.receive(stream, &mut self.arrived)?;
        self.buffer.extend_from_slice(&self.arrived[..got]);
        Ok(got)
    }

    /// Has `take` append what is there, but no more than so many bytes.
    pub(crate) fn fill_with<T>(&mut self, take: impl FnOnce(&mut Vec<u8>, usize) -> T) -> T {
        if let Some((header, body)) = &mut self.large {
            let left = header.length - body.len() as u64;
            if left > 0 {
                return take(body, left.min(READ_AT_ONCE_BYTES) as usize);
            }
        }
        self.buffer.drain(..self.cut);
        self.cut = 0;
        take(&mut self.buffer, usize::MAX)
    }

    /// The next whole frame of what was read.
    pub(crate) fn next(&mut self) -> Result<Option<BareFrame>, WireError> {
        let Some((Header { kind, attachments, ticket, .. }, body)) = self.cut()? else { return Ok(None) };
        Ok(Some(BareFrame { kind, attachments, ticket, body }))
    }

    fn cut(&mut self) -> Result<Option<(Header, Vec<u8>)>, WireError> {
        if let Some((header, body)) = self.large.take() {
            if (body.len() as u64) < header.length {
                self.large = Some((header, body));
                return Ok(None);
            }
            return Ok(Some((header, body)));
        }
        let unread = &self.buffer[self.cut..];
        let Some((header, rest)) = unread.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let header = Header::get(header)?;
        let length = usize::try_from(header.length).map_err(|_| WireError::Length(header.length))?;
        if let Some(body) = rest.get(..length) {
            let body = body.to_vec();
            self.cut += HEADER_BYTES + length;
            return Ok(Some((header, body)));
        }
        if length > SMALL_BYTES {
            let mut body = buffers::with_room(length).ok_or(WireError::Length(header.length))?;
            body.extend_from_slice(rest);
            self.cut = self.buffer.len();
            self.large = Some((header, body));
        }
        Ok(None)
    }
}

/// Cuts a stream into frames with their descriptors, all of which come through one socket.
#[derive(Debug, Default)]
pub(crate) struct FrameReader {
    cutter: Cutter,
    arrivals: Arrivals,
}

impl FrameReader {
    pub(crate) fn new() -> Self {
        FrameReader::default()
    }

    /// Reads what is there, or waits for some if the stream blocks. Returns how many bytes: 0 is the end.
    pub(crate) fn fill(&mut self, stream: &UnixStream) -> io::Result<usize> {
        self.cutter.fill(stream, &mut self.arrivals)
    }

    /// The next whole frame of what was read.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, WireError> {
        while let Some(BareFrame { kind, attachments, ticket, body }) = self.cutter.next()? {
            if kind != Kind::Descriptor {
                let attachments = self.arrivals.take(attachments).ok_or(WireError::Attachments(kind))?;
                return Ok(Some(Frame { kind, ticket, body, attachments }));
            }
            if !self.arrivals.number(ticket) {
                return Err(WireError::Attachments(kind));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Write, thread};

    fn frames_of(bytes: &[u8], pieces: impl Iterator<Item = usize> + Send) -> Result<Vec<Frame>, WireError> {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let mut reader = FrameReader::new();
        let mut frames = Vec::new();
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut rest = bytes;
                for piece in pieces {
                    let (now, later) = rest.split_at(piece.min(rest.len()));
                    // An error is the reader's refusal: it has hung up.
                    if ours.write_all(now).is_err() {
                        return;
                    }
                    rest = later;
                }
                let _ = ours.write_all(rest);
            });
            let theirs = theirs;
            loop {
                while let Some(frame) = reader.next()? {
                    frames.push(frame);
                }
                if reader.fill(&theirs).unwrap() == 0 {
                    return Ok(());
                }
            }
        })?;
        Ok(frames)
    }

    #[test]
    fn frames_come_out_whole_however_they_are_cut() {
        let bodies = [vec![], vec![1], vec![2; SMALL_BYTES], vec![3; 5 * SMALL_BYTES + 7], vec![4; 10]];
        let mut bytes = Vec::new();
        for (ticket, body) in bodies.iter().enumerate() {
            put_frame(Kind::Reply, ticket as u64, body, &mut bytes);
        }
        for piece in [1, 7, HEADER_BYTES, 1000, SMALL_BYTES + 1, bytes.len()] {
            let pieces = bytes.len().div_ceil(piece).min(5_000);
            let frames = frames_of(&bytes, std::iter::repeat_n(piece, pieces)).unwrap();
            assert_eq!(frames.len(), bodies.len(), "pieces of {piece}");
            for (ticket, (frame, body)) in frames.iter().zip(&bodies).enumerate() {
                assert_eq!((frame.kind, frame.ticket), (Kind::Reply, ticket as u64));
                assert!(frame.body == *body, "body {ticket}, pieces of {piece}");
            }
        }
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        let mut bytes = Vec::new();
        put_frame(Kind::Reply, 0, b"x", &mut bytes);
        bytes[0] = 99;
        assert_eq!(frames_of(&bytes, std::iter::empty()).unwrap_err(), WireError::Kind(99));

        let mut bytes = Vec::new();
        Header { kind: Kind::Reply, attachments: 0, ticket: 0, length: u64::MAX }.put(&mut bytes);
        assert_eq!(frames_of(&bytes, std::iter::empty()).unwrap_err(), WireError::Length(u64::MAX));

        assert_eq!(get_call(&[0; TAIL_BYTES - 1]).unwrap_err(), WireError::Body(Kind::Call, TAIL_BYTES - 1));
        assert_eq!(Hello::get(&[0; 3]).unwrap_err(), WireError::Body(Kind::Hello, 3));
    }

    #[test]
    fn another_version_or_build_is_told_apart() {
        let own = Hello::of_this_process();
        assert_eq!(own.accepts(own), Ok(()));
        let old = Hello { version: VERSION + 1, ..own };
        assert!(own.accepts(old).unwrap_err().contains("version"));
        let other = Hello { build: own.build ^ 1, ..own };
        assert!(own.accepts(other).unwrap_err().contains("build"));
    }
}
