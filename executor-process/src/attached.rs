//! Descriptors beside frames. A frame says how many belong to it; each comes in a message of its own, a frame of kind
//! `Descriptor` with the descriptor on its first byte.
//!
//! Messages go through the socket, frames through the rings. Both sides count descriptors, in the order in which the frames that own
//! them are sent, and a `Descriptor` says its number: so the two streams need no common order. The parent reads its sockets anyway.
//! A worker does not: for each descriptor a frame in its ring tells it to.

use executor_core::attachments::Attachments;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::Arc,
};

use crate::wire::{BareFrame, Cutter, Kind, WireError, put_frame};

/// Descriptors that came through a socket, until the frames that own them are read.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    /// Received; their messages are not yet read.
    received: VecDeque<OwnedFd>,
    numbered: BTreeMap<u64, Arc<OwnedFd>>,
    /// The number of the next one that a frame owns.
    next: u64,
}

impl Arrivals {
    /// Reads what is there, or waits for some if the socket blocks. Returns how many bytes: 0 is the end.
    pub(crate) fn receive(&mut self, socket: impl AsFd, bytes: &mut [u8]) -> io::Result<usize> {
        // One message at a time has descriptors, and it has one: so ours are sent.
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.received.extend(descriptors);
            }
        }
        Ok(got.bytes)
    }

    /// A frame of kind `Descriptor` was read. `false`: nothing came with it.
    #[must_use]
    pub(crate) fn number(&mut self, number: u64) -> bool {
        let Some(descriptor) = self.received.pop_front() else { return false };
        self.numbered.insert(number, Arc::new(descriptor));
        true
    }

    /// One that came with bytes that are no frame.
    pub(crate) fn take_unnumbered(&mut self) -> Option<OwnedFd> {
        self.received.pop_front()
    }

    /// For a socket through which frames have taken so many.
    pub(crate) fn after(count: u64) -> Arrivals {
        Arrivals { next: count, ..Arrivals::default() }
    }

    /// How many frames have taken.
    pub(crate) fn count(&self) -> u64 {
        self.next
    }

    /// Those that belong to the frame that is read now. `None`: not all have arrived.
    pub(crate) fn take(&mut self, count: u32) -> Option<Attachments> {
        let numbers = self.next..self.next + u64::from(count);
        if numbers.clone().any(|number| !self.numbered.contains_key(&number)) {
            return None;
        }
        self.next = numbers.end;
        numbers.map(|number| self.numbered.remove(&number)).collect()
    }
}

/// A worker's end of the socket, through which descriptors come.
#[derive(Debug)]
pub(crate) struct Inlet {
    socket: &'static UnixStream,
    reader: Cutter,
    arrivals: Arrivals,
}

impl Inlet {
    pub(crate) fn new(socket: &'static UnixStream) -> Self {
        Inlet { socket, reader: Cutter::default(), arrivals: Arrivals::default() }
    }

    /// Receives the next descriptor, which was sent before whoever calls this was told of it.
    pub(crate) fn receive(&mut self) -> io::Result<()> {
        loop {
            if let Some(BareFrame { kind, ticket, .. }) = self.reader.next()? {
                let is_one = kind == Kind::Descriptor && self.arrivals.number(ticket);
                return if is_one { Ok(()) } else { Err(WireError::Attachments(kind).into()) };
            }
            if self.reader.fill(self.socket, &mut self.arrivals)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Those that belong to this frame.
    pub(crate) fn take(&mut self, frame: &BareFrame) -> Result<Attachments, WireError> {
        self.arrivals.take(frame.attachments).ok_or(WireError::Attachments(frame.kind))
    }
}

/// Counts the descriptors that are sent, and makes their messages.
#[derive(Debug, Default)]
pub(crate) struct Departures(u64);

impl Departures {
    /// For a socket through which so many were sent.
    pub(crate) fn after(count: u64) -> Departures {
        Departures(count)
    }

    /// How many were sent.
    pub(crate) fn count(&self) -> u64 {
        self.0
    }

    /// The message for the next descriptor.
    pub(crate) fn message(&mut self) -> Vec<u8> {
        let mut message = Vec::new();
        put_frame(Kind::Descriptor, self.0, &[], &mut message);
        self.0 += 1;
        message
    }

    /// Sends all of these, through a socket that blocks.
    pub(crate) fn send_all(&mut self, socket: &UnixStream, attachments: &Attachments) -> io::Result<()> {
        for descriptor in attachments {
            let message = self.message();
            let sent = send_with_descriptor(socket, &message, descriptor.as_fd())?;
            send_all(socket, &message[sent..])?;
        }
        Ok(())
    }
}

/// Sends all of `bytes`, through a socket that blocks.
pub(crate) fn send_all(socket: &UnixStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let sent = crate::os::send(socket, bytes)?;
        bytes = &bytes[sent..];
    }
    Ok(())
}

/// Sends as much of `bytes` as the socket takes now, and a descriptor with the first of them. Never raises SIGPIPE.
pub(crate) fn send_with_descriptor(socket: impl AsFd, bytes: &[u8], descriptor: BorrowedFd<'_>) -> io::Result<usize> {
    send_with_descriptors(socket, bytes, &[descriptor])
}

/// A message has no more descriptors: the system's limit.
pub(crate) const MOST_IN_MESSAGE: usize = 253;

/// As [`send_with_descriptor`], with several.
pub(crate) fn send_with_descriptors(
    socket: impl AsFd,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_IN_MESSAGE))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other(format!("no room for {} descriptors in a message", descriptors.len())));
    }
    loop {
        match sendmsg(&socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Header;
    use std::{
        fs::File,
        io::{Read, Write},
    };

    /// A file that holds `text`.
    fn file(text: &str) -> Arc<OwnedFd> {
        let memory = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        File::from(memory.try_clone().unwrap()).write_all(text.as_bytes()).unwrap();
        Arc::new(memory)
    }

    fn text(descriptor: &Arc<OwnedFd>) -> String {
        let mut text = String::new();
        rustix::fs::seek(descriptor, rustix::fs::SeekFrom::Start(0)).unwrap();
        File::from(descriptor.try_clone().unwrap()).read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn descriptors_come_with_their_frames() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut departures = Departures::default();
        let lists = [vec![file("a"), file("b")], vec![], vec![file("c")]];
        for (ticket, list) in lists.iter().enumerate() {
            departures.send_all(&ours, list).unwrap();
            let mut bytes = Vec::new();
            Header { kind: Kind::Call, attachments: list.len() as u32, ticket: ticket as u64, length: 3 }
                .put(&mut bytes);
            send_all(&ours, &bytes).unwrap();
            send_all(&ours, b"xyz").unwrap();
        }
        drop(ours);
        let (mut reader, mut arrivals) = (Cutter::default(), Arrivals::default());
        let mut found = Vec::new();
        loop {
            while let Some(frame) = reader.next().unwrap() {
                if frame.kind == Kind::Descriptor {
                    assert!(arrivals.number(frame.ticket));
                    continue;
                }
                assert_eq!((frame.kind, &frame.body[..]), (Kind::Call, &b"xyz"[..]));
                found.push(arrivals.take(frame.attachments).unwrap().iter().map(text).collect::<String>());
            }
            if reader.fill(&theirs, &mut arrivals).unwrap() == 0 {
                break;
            }
        }
        assert_eq!(found, ["ab", "", "c"]);
    }

    #[test]
    fn a_frame_without_its_descriptors_is_an_error() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut bytes = Vec::new();
        Header { kind: Kind::Call, attachments: 1, ticket: 0, length: 0 }.put(&mut bytes);
        put_frame(Kind::Descriptor, 0, &[], &mut bytes);
        send_all(&ours, &bytes).unwrap();
        let mut inlet = Inlet::new(Box::leak(Box::new(theirs)));
        let call = BareFrame { kind: Kind::Call, attachments: 1, ticket: 0, body: Vec::new() };
        assert!(inlet.take(&call).is_err());
        assert!(inlet.receive().is_err(), "a frame that does not belong there");
        assert!(inlet.receive().is_err(), "a message that promises a descriptor");
    }
}
