//! Pipes: two ends, each of which can be in another process.

use executor_core::{Value, attachments, blocking, sync::Mutex, timer};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use std::{
    fmt, io,
    marker::PhantomData,
    net::Shutdown,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    attached::{Arrivals, Departures},
    errand::{self, Word},
    queue::{Cause, PutError, QueueError, decode, encode},
    wait_any::wait_until_ready,
};

/// A pipe in both directions: what is sent into one end is received from the other. Python's `Pipe()`.
///
/// The first end sends `A` and receives `B`.
///
/// # Errors
/// When the system has no socket to give.
///
/// # Examples
/// ```
/// use concurrent_futures::{Connection, Process, pipe};
///
/// fn shout(connection: Connection<String>) {
///     let text = connection.recv().unwrap();
///     connection.send(text.to_uppercase()).unwrap();
/// }
///
/// let (ours, theirs) = pipe()?;
/// let p = Process::new(shout, theirs).start()?;
/// ours.send("hello".to_owned())?;
/// assert_eq!(ours.recv()?, "HELLO");
/// p.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn pipe<A, B>() -> io::Result<(Connection<A, B>, Connection<B, A>)> {
    let (one, two) = UnixStream::pair()?;
    Ok((Connection::new(one, 0, 0), Connection::new(two, 0, 0)))
}

/// A pipe in one direction: the end that receives, and the end that sends, as Python's `Pipe(duplex=False)`.
///
/// # Errors
/// When the system has no socket to give.
pub fn one_way_pipe<T>() -> io::Result<(Connection<Never, T>, Connection<T, Never>)> {
    let (receiver, sender) = pipe()?;
    receiver.socket.shutdown(Shutdown::Write)?;
    Ok((receiver, sender))
}

/// What nobody can send, for the direction that a [`one_way_pipe`] does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Never {}

/// One end of a [`pipe`], which sends `S` and receives `R`: whole values, of any size, in their order.
///
/// It is a [`Value`]: an argument of a [`Process`](crate::Process) or of a call, which moves it there. The other end then learns of it
/// when that process is gone, however it ended: [`recv`](Self::recv) and [`send`](Self::send) fail.
pub struct Connection<S, R = S> {
    socket: UnixStream,
    sending: Mutex<Departures>,
    receiving: Mutex<Arrivals>,
    values: PhantomData<fn(S) -> R>,
}

impl<S, R> Connection<S, R> {
    fn new(socket: UnixStream, sent: u64, received: u64) -> Self {
        Connection {
            socket,
            sending: Mutex::new(Departures::after(sent)),
            receiving: Mutex::new(Arrivals::after(received)),
            values: PhantomData,
        }
    }

    /// Waits until there is something to receive, or the other end is gone, but no longer than `limit`. A limit of zero only looks.
    #[must_use]
    pub fn poll(&self, limit: Duration) -> bool {
        self.is_ready(timer::after(limit)).unwrap_or(true) // the error will be told by who receives
    }

    fn is_ready(&self, deadline: Instant) -> io::Result<bool> {
        let ready = blocking::while_blocked(|| wait_until_ready(&[self.socket.as_fd()], Some(deadline)))?;
        Ok(!ready.is_empty())
    }
}

impl<S: Value, R> Connection<S, R> {
    /// Sends a value. Waits until the system has room for it, which is at the latest when the other end receives it.
    ///
    /// # Errors
    /// [`PutError`], which has the value: it cannot be encoded, or [nobody has the other end](QueueError::is_disconnected).
    pub fn send(&self, value: S) -> Result<(), PutError<S>> {
        let sent = encode(&value).and_then(|encoded| {
            let send = || errand::send(&self.socket, &mut self.sending.lock(), Word::Item, &encoded);
            Ok(blocking::while_blocked(send)?)
        });
        sent.map_err(|error| PutError { item: value, error })
    }
}

impl<S, R: Value> Connection<S, R> {
    /// Receives the next value, for which it waits.
    ///
    /// # Errors
    /// [`QueueError::is_disconnected`]: nobody has the other end, and all that was sent is received; or the value cannot be decoded.
    pub fn recv(&self) -> Result<R, QueueError> {
        let receive = || errand::receive(&self.socket, &mut self.receiving.lock());
        let frame = blocking::while_blocked(receive)?;
        decode(&attachments::Encoded { bytes: frame.body, attachments: frame.attachments })
    }

    /// As [`recv`](Self::recv), but waits no longer than `limit` for a value to begin to come.
    ///
    /// # Errors
    /// As `recv`, and [`QueueError::is_empty`] when the limit is over.
    pub fn recv_timeout(&self, limit: Duration) -> Result<R, QueueError> {
        match self.is_ready(timer::after(limit))? {
            true => self.recv(),
            false => Err(QueueError(Cause::Empty)),
        }
    }
}

/// Ready to be read when there is something to receive, or the other end is gone; for [`wait_any`](crate::wait_any()).
impl<S, R> AsFd for Connection<S, R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl<S, R> fmt::Debug for Connection<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("socket", &self.socket.as_fd()).finish_non_exhaustive()
    }
}

/// A connection as it travels. The descriptors that came and went with its values are counted on.
#[derive(Serialize, Deserialize)]
struct Ticket {
    socket: u32,
    sent: u64,
    received: u64,
}

impl<S, R> Serialize for Connection<S, R> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        let socket = self.socket.try_clone().map_err(ser::Error::custom)?;
        let socket = attachments::attach(&Arc::new(OwnedFd::from(socket)))
            .ok_or_else(|| ser::Error::custom("a connection can be sent to another process, and nowhere else"))?;
        let (sent, received) = (self.sending.lock().count(), self.receiving.lock().count());
        Ticket { socket, sent, received }.serialize(serializer)
    }
}

impl<'de, S, R> Deserialize<'de> for Connection<S, R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Ticket { socket, sent, received } = Ticket::deserialize(deserializer)?;
        let socket =
            attachments::attached(socket).ok_or_else(|| de::Error::custom("a connection came without its socket"))?;
        let socket = UnixStream::from(socket.try_clone().map_err(de::Error::custom)?);
        Ok(Connection::new(socket, sent, received))
    }
}
