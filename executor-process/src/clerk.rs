//! The one thread that serves other processes with this one's queues. It polls all their sockets and waits for none, runs no
//! user code, and starts when a queue is first sent somewhere.
//!
//! A queue that is sent has a *door*: a pair of sockets of which one end travels. Whoever has that end makes a socket of its own, and
//! sends its other end through the door; from then on [errands](crate::errand) come through it. So a door may be copied, sent twice or
//! lie about, and serves as many as come. When its last copy is closed, and the last socket that came through it, the clerk forgets the
//! queue.

use executor_core::{attachments::Encoded, sync::Mutex};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
};
use std::{
    collections::VecDeque,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    process,
    sync::{Arc, OnceLock},
    thread,
};

use crate::{
    attached::{Arrivals, Departures, send_with_descriptor},
    errand::Word,
    os,
    store::{By, Item, Refusal, Store},
    wire::{Frame, FrameReader},
};

static DESK: OnceLock<Desk> = OnceLock::new();

/// Where the clerk is told something.
struct Desk {
    wake: OwnedFd,
    new_doors: Mutex<Vec<Door>>,
    has_clerk: Mutex<bool>,
}

struct Door {
    socket: OwnedFd,
    arrivals: Arrivals,
    store: Arc<Store>,
}

/// Opens a door to `store`. Returns the end that travels.
pub(crate) fn open_door(store: &Arc<Store>) -> io::Result<OwnedFd> {
    let desk = match DESK.get() {
        Some(desk) => desk,
        None => {
            let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            DESK.get_or_init(|| Desk { wake, new_doors: Mutex::default(), has_clerk: Mutex::new(false) })
        }
    };
    {
        let mut has_clerk = desk.has_clerk.lock();
        if !*has_clerk {
            thread::Builder::new()
                .name("executor-queues".into())
                .spawn(|| Clerk { desk, doors: vec![], users: vec![] }.serve())?;
            *has_clerk = true;
        }
    }
    // Messages are whole or not there, whoever sends them at a time, and dies over it.
    let (socket, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    desk.new_doors.lock().push(Door { socket, arrivals: Arrivals::default(), store: Arc::clone(store) });
    wake();
    Ok(theirs)
}

/// Has the clerk look at everything.
pub(crate) fn wake() {
    if let Some(desk) = DESK.get() {
        // WAKES: the clerk in `poll`. The counter stays readable until the clerk reads it, before it looks. A full one is as
        // readable as any, so an error changes nothing.
        let _ = rustix::io::write(&desk.wake, &1_u64.to_ne_bytes());
    }
}

/// Knocks at a door. Returns this side of a socket on which the clerk serves.
pub(crate) fn enter(door: impl AsFd) -> io::Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair()?;
    send_with_descriptor(door, &[0], theirs.as_fd())?;
    Ok(ours)
}

struct Clerk {
    desk: &'static Desk,
    doors: Vec<Door>,
    /// In the order of their last errand, so that those who wait are served in turn.
    users: Vec<User>,
}

/// A socket that came through a door.
struct User {
    socket: UnixStream,
    reader: FrameReader,
    store: Arc<Store>,
    /// What could not be answered yet.
    waits: Option<Wait>,
    /// What it was given, and whether that is for good as soon as it has come.
    holds: Option<(Item, bool)>,
    outgoing: VecDeque<Segment>,
    /// How much of the first segment is sent.
    sent: usize,
    departures: Departures,
    /// Nothing comes or goes any more.
    gone: bool,
}

enum Wait {
    Put(Item),
    /// `true`: what is taken counts as borrowed.
    Get(bool),
    Join,
}

enum Segment {
    Bytes(Vec<u8>),
    Descriptor(Vec<u8>, Arc<OwnedFd>),
    Value(Item),
}

impl Clerk {
    fn serve(mut self) {
        let _guard = AbortIfPanic;
        loop {
            self.doors.append(&mut self.desk.new_doors.lock());
            for user in &mut self.users {
                user.try_again();
                user.flush();
            }
            // Who was served is behind those who still wait.
            self.users.sort_by_key(|user| user.waits.is_none());
            self.users.retain_mut(|user| {
                if user.gone {
                    user.leave();
                }
                !user.gone
            });
            self.wait();
        }
    }

    /// Sleeps until something happens, and deals with it.
    fn wait(&mut self) {
        let mut polled = vec![PollFd::new(&self.desk.wake, PollFlags::IN)];
        polled.extend(self.doors.iter().map(|door| PollFd::new(&door.socket, PollFlags::IN)));
        polled.extend(self.users.iter().map(|user| {
            let writes = if user.outgoing.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            PollFd::new(&user.socket, PollFlags::IN | writes)
        }));
        match poll(&mut polled, None) {
            Ok(_) | Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(error) => panic!("the descriptors of queues cannot be polled: {error}"),
        }
        let ready: Vec<_> = polled.iter().map(|polled| polled.revents().intersects(!PollFlags::OUT)).collect();
        drop(polled);
        if ready[0] {
            // An error means that somebody was faster, of whom there is none.
            let _ = rustix::io::read(&self.desk.wake, &mut [0; 8]);
        }
        let (of_doors, of_users) = ready[1..].split_at(self.doors.len());
        for (user, ready) in self.users.iter_mut().zip(of_users) {
            if *ready {
                user.read();
            }
        }
        let mut ready = of_doors.iter();
        let users = &mut self.users;
        self.doors.retain_mut(|door| !ready.next().is_some_and(|ready| *ready) || door.answer(users));
    }
}

impl Door {
    /// Lets in who has knocked. `false`: nobody ever will again.
    fn answer(&mut self, users: &mut Vec<User>) -> bool {
        loop {
            match self.arrivals.receive(&self.socket, &mut [0; 1]) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
            while let Some(socket) = self.arrivals.take_unnumbered() {
                let socket = UnixStream::from(socket);
                if socket.set_nonblocking(true).is_ok() {
                    users.push(User::new(socket, &self.store));
                }
            }
        }
    }
}

impl User {
    fn new(socket: UnixStream, store: &Arc<Store>) -> User {
        User {
            socket,
            reader: FrameReader::new(),
            store: Arc::clone(store),
            waits: None,
            holds: None,
            outgoing: VecDeque::new(),
            sent: 0,
            departures: Departures::default(),
            gone: false,
        }
    }

    /// Takes what it has sent.
    fn read(&mut self) {
        match self.reader.fill(&self.socket) {
            Ok(0) => self.gone = true,
            Ok(_) => loop {
                match self.reader.next() {
                    Ok(Some(frame)) => self.take(frame),
                    Ok(None) => return,
                    Err(_) => return self.gone = true,
                }
            },
            Err(error) => {
                let later = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted);
                self.gone |= !later;
            }
        }
    }

    fn take(&mut self, frame: Frame) {
        // One that asks before it has its answer, or says what none of ours does, is not served any more.
        let word = Word::of(&frame);
        let interrupts = matches!(word, Some(Word::Cancel | Word::Taken | Word::Finished));
        if (self.waits.is_some() || self.holds.is_some()) && !interrupts {
            return self.gone = true;
        }
        let value = Encoded { bytes: frame.body, attachments: frame.attachments };
        match word {
            Some(Word::Put) => self.put(Arc::new(value), true),
            Some(Word::TryPut) => self.put(Arc::new(value), false),
            Some(Word::Get) => self.get(false, true),
            Some(Word::TryGet) => self.get(false, false),
            Some(Word::Borrow) => self.get(true, true),
            Some(Word::TryBorrow) => self.get(true, false),
            Some(Word::Taken) => self.settle(),
            Some(Word::Finished) => {
                if self.holds.is_some() {
                    self.settle();
                    // Its item was put, and is not done: by whom else?
                    let _ = self.store.task_done();
                }
            }
            Some(Word::TaskDone) if self.store.task_done() => self.say(Word::Done),
            Some(Word::TaskDone) => self.say(Word::TooMany),
            Some(Word::Join) => self.join(),
            Some(Word::Length) => {
                let length = (self.store.len() as u64).to_le_bytes().to_vec();
                self.say_value(Word::Length, &Arc::new(Encoded::from(length)));
            }
            Some(Word::Close) => {
                self.store.close();
                self.say(Word::Done);
            }
            Some(Word::Cancel) => match self.waits.take() {
                Some(Wait::Put(_)) => self.say(Word::Full),
                Some(Wait::Get(_)) => self.say(Word::Empty),
                Some(Wait::Join) => self.say(Word::Unfinished),
                None => {} // the answer is on its way
            },
            _ => self.gone = true,
        }
    }

    fn put(&mut self, item: Item, may_wait: bool) {
        match self.store.try_put(&item, By::Clerk) {
            Ok(()) => self.say(Word::Done),
            Err(Refusal::Closed) => self.say(Word::Closed),
            Err(Refusal::NotNow) if may_wait => self.waits = Some(Wait::Put(item)),
            Err(Refusal::NotNow) => self.say(Word::Full),
        }
    }

    fn get(&mut self, borrows: bool, may_wait: bool) {
        match if borrows { self.store.try_take(By::Clerk) } else { self.store.send_off() } {
            Ok(item) => {
                self.say_value(Word::Item, &item);
                self.holds = Some((item, !borrows));
            }
            Err(Refusal::Closed) => self.say(Word::Closed),
            Err(Refusal::NotNow) if may_wait => self.waits = Some(Wait::Get(borrows)),
            Err(Refusal::NotNow) => self.say(Word::Empty),
        }
    }

    fn join(&mut self) {
        match self.store.is_finished(By::Clerk) {
            true => self.say(Word::Done),
            false => self.waits = Some(Wait::Join),
        }
    }

    /// Does again what it waits for.
    fn try_again(&mut self) {
        match self.waits.take() {
            Some(Wait::Put(item)) => self.put(item, true),
            Some(Wait::Get(borrows)) => self.get(borrows, true),
            Some(Wait::Join) => self.join(),
            None => {}
        }
    }

    /// It has what it was given.
    fn settle(&mut self) {
        if let Some((_, true)) = self.holds.take() {
            self.store.has_arrived();
        }
    }

    /// It is gone: what it did not get is for the next.
    fn leave(&mut self) {
        if let Some((item, was_sent_off)) = self.holds.take() {
            self.store.put_back(item, was_sent_off);
        }
    }

    fn say(&mut self, word: Word) {
        self.outgoing.push_back(Segment::Bytes(word.alone()));
    }

    fn say_value(&mut self, word: Word, value: &Item) {
        for descriptor in &value.attachments {
            self.outgoing.push_back(Segment::Descriptor(self.departures.message(), Arc::clone(descriptor)));
        }
        self.outgoing.push_back(Segment::Bytes(word.header(value)));
        self.outgoing.push_back(Segment::Value(Arc::clone(value)));
    }

    /// Sends as much as it takes now.
    fn flush(&mut self) {
        while let Some(segment) = self.outgoing.front() {
            let bytes = match segment {
                Segment::Bytes(bytes) | Segment::Descriptor(bytes, _) => bytes,
                Segment::Value(item) => &item.bytes,
            };
            if self.sent == bytes.len() {
                self.outgoing.pop_front();
                self.sent = 0;
                continue;
            }
            let result = match segment {
                Segment::Descriptor(_, descriptor) if self.sent == 0 => {
                    send_with_descriptor(&self.socket, bytes, descriptor.as_fd())
                }
                _ => os::send(&self.socket, &bytes[self.sent..]),
            };
            match result {
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.gone = true,
            }
        }
    }
}

/// A clerk that is gone leaves processes that nobody will ever answer.
struct AbortIfPanic;

impl Drop for AbortIfPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("concurrent-futures: the thread that serves queues panicked; aborting");
            process::abort();
        }
    }
}
