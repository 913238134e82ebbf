//! What a queue's users in other processes and its clerk say to each other, and how frames are sent and received one by one.
//!
//! Each user has a stream socket of its own for each of its threads that use the queue at a time. An errand is one frame, and
//! has one answer:
//!
//! ```text
//!  Put, TryPut    the item             Done, Full or Closed
//!  Get, TryGet                         Item, Empty or Closed     then from the user: Taken
//!  Borrow, TryBorrow                   Item, Empty or Closed     then from the user: Finished
//!  TaskDone                            Done or TooMany
//!  Join, Length, Close                 Done; a Length; Done
//!  Cancel                              no answer of its own: what waits is answered Full, Empty or Unfinished
//! ```
//!
//! No lock is shared, so none can be left behind. An item of which only a part has come is forgotten with its socket; one that
//! was given and neither `Taken` nor `Finished` before the socket's end is the next again.

use executor_core::attachments::{Attachments, Encoded};
use std::{
    io::{self, Read},
    os::unix::net::UnixStream,
    process,
};

use crate::{
    attached::{Arrivals, Departures, send_all},
    wire::{Frame, HEADER_BYTES, Header, Kind, WireError, put_frame},
};

/// The words, as a frame's ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Word {
    Put = 1,
    TryPut,
    Get,
    TryGet,
    Borrow,
    TryBorrow,
    Taken,
    Finished,
    TaskDone,
    Join,
    Length,
    Close,
    Cancel,
    Done,
    Item,
    Full,
    Empty,
    Closed,
    Unfinished,
    TooMany,
}

impl Word {
    const ALL: [Word; 20] = [
        Word::Put,
        Word::TryPut,
        Word::Get,
        Word::TryGet,
        Word::Borrow,
        Word::TryBorrow,
        Word::Taken,
        Word::Finished,
        Word::TaskDone,
        Word::Join,
        Word::Length,
        Word::Close,
        Word::Cancel,
        Word::Done,
        Word::Item,
        Word::Full,
        Word::Empty,
        Word::Closed,
        Word::Unfinished,
        Word::TooMany,
    ];

    /// The word that a frame says, if it says one.
    pub(crate) fn of(frame: &Frame) -> Option<Word> {
        let known = Word::ALL.into_iter().find(|word| *word as u64 == frame.ticket);
        known.filter(|_| frame.kind == Kind::Errand)
    }

    /// A frame without a body.
    pub(crate) fn alone(self) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_frame(Kind::Errand, self as u64, &[], &mut bytes);
        bytes
    }

    /// The header of a frame with this body.
    pub(crate) fn header(self, value: &Encoded) -> Vec<u8> {
        let (attachments, length) = (value.attachments.len() as u32, value.bytes.len() as u64);
        let mut bytes = Vec::new();
        Header { kind: Kind::Errand, attachments, ticket: self as u64, length }.put(&mut bytes);
        bytes
    }
}

/// Bodies up to this size are sent with their header.
const SMALL_BYTES: usize = 16 << 10;

/// One end of a socket that blocks. It is read frame by frame, and no further, so that nothing is ever kept here that somebody
/// would look for in the socket.
#[derive(Debug)]
pub(crate) struct Line {
    process: u32,
    pub(crate) socket: UnixStream,
    pub(crate) departures: Departures,
    pub(crate) arrivals: Arrivals,
}

impl Line {
    /// Whether this process has begun it, and is not one that was forked from that: who both spoke would take each other's
    /// answers.
    pub(crate) fn is_own(&self) -> bool {
        self.process == process::id()
    }

    pub(crate) fn new(socket: UnixStream) -> Line {
        Line { process: process::id(), socket, departures: Departures::default(), arrivals: Arrivals::default() }
    }

    pub(crate) fn send(&mut self, word: Word, value: &Encoded) -> io::Result<()> {
        send(&self.socket, &mut self.departures, word, value)
    }

    pub(crate) fn receive(&mut self) -> io::Result<Frame> {
        receive(&self.socket, &mut self.arrivals)
    }
}

pub(crate) fn send(socket: &UnixStream, departures: &mut Departures, word: Word, value: &Encoded) -> io::Result<()> {
    departures.send_all(socket, &value.attachments)?;
    let mut bytes = word.header(value);
    if value.bytes.len() <= SMALL_BYTES {
        bytes.extend_from_slice(&value.bytes);
        return send_all(socket, &bytes);
    }
    send_all(socket, &bytes)?;
    send_all(socket, &value.bytes)
}

/// The next frame, for which it waits.
pub(crate) fn receive(socket: &UnixStream, arrivals: &mut Arrivals) -> io::Result<Frame> {
    loop {
        let mut bytes = [0; HEADER_BYTES];
        let mut got = 0;
        while got < HEADER_BYTES {
            match arrivals.receive(socket, &mut bytes[got..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(more) => got += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let Header { kind, attachments, ticket, length } = Header::get(&bytes)?;
        let size = usize::try_from(length).map_err(|_| WireError::Length(length))?;
        let mut body = Vec::new();
        body.try_reserve_exact(size).map_err(|_| WireError::Length(length))?;
        if socket.take(length).read_to_end(&mut body)? < size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if kind != Kind::Descriptor {
            let attachments: Attachments = arrivals.take(attachments).ok_or(WireError::Attachments(kind))?;
            return Ok(Frame { kind, ticket, body, attachments });
        }
        if !arrivals.number(ticket) {
            return Err(WireError::Attachments(kind).into());
        }
    }
}
