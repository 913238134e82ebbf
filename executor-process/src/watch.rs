//! What the driver thread sleeps on: for each worker its end, its socket and what it writes; all that a zygote can tell; and an
//! order in the inbox.

use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
    io::Errno,
};
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

/// What can happen to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Stdout,
    Stderr,
    Socket,
    /// Its process.
    End,
    /// None of a worker's: an order.
    Order,
    /// None of a worker's: whatever happens to the process that they are forked from.
    Zygote,
}

impl Source {
    const ALL: [Source; 6] =
        [Source::Stdout, Source::Stderr, Source::Socket, Source::End, Source::Order, Source::Zygote];
}

/// Everything that is watched, of all workers.
#[derive(Debug)]
pub(crate) struct Watch(OwnedFd);

impl Watch {
    pub(crate) fn new() -> io::Result<Watch> {
        Ok(Watch(epoll::create(CreateFlags::CLOEXEC)?))
    }

    pub(crate) fn add(&self, worker: u64, source: Source, descriptor: impl AsFd) -> io::Result<()> {
        let data = EventData::new_u64(worker * Source::ALL.len() as u64 + source as u64);
        Ok(epoll::add(&self.0, descriptor, data, EventFlags::IN)?)
    }

    /// To be done before the descriptor is closed: as long as a process that was forked meanwhile has it as well, it would
    /// still be watched.
    pub(crate) fn remove(&self, descriptor: impl AsFd) {
        // An error means that it is not watched.
        let _ = epoll::delete(&self.0, descriptor);
    }

    /// Sleeps until something happens. What it was and to which worker is in `happened` then; each is told until it is dealt
    /// with.
    pub(crate) fn wait(&self, timeout: Option<Duration>, happened: &mut Vec<(u64, Source)>) {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        let mut events: Vec<Event> = Vec::with_capacity(64);
        match epoll::wait(&self.0, spare_capacity(&mut events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => panic!("the driver's descriptors cannot be watched: {error}"),
        }
        happened.clear();
        happened.extend(events.iter().map(|event| {
            let data = event.data.u64();
            let sources = Source::ALL.len() as u64;
            (data / sources, Source::ALL[(data % sources) as usize])
        }));
    }
}
