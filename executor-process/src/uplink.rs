//! What a worker process sends to its parent: replies, and what is told beside them, from whichever thread it comes.
//!
//! A frame is sent whole and at once. So what a call tells is on its way before the call goes on, and outlives it, however it
//! ends.

use executor_core::{attachments::Attachments, codec, panic::describe, sync::Mutex};
use std::{
    io,
    os::unix::net::UnixStream,
    panic, process,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    attached::Departures,
    ring::{Room, WorkerReplies},
    wire::{Kind, NO_TICKET, put_frame},
};

/// This process's end of its ring, if it is a worker. The lock keeps frames whole.
static UPLINK: OnceLock<Uplink> = OnceLock::new();

struct Uplink {
    process: u32,
    ends: Mutex<Ends>,
}

struct Ends {
    replies: WorkerReplies<Bell>,
    socket: &'static UnixStream,
    descriptors: Departures,
}

/// Wakes the parent's driver.
pub(crate) type Bell = Box<dyn Fn() + Send>;

/// The call that this process makes now.
static TICKET: AtomicU64 = AtomicU64::new(NO_TICKET);

/// Opens the way up, and has it tell of panics.
pub(crate) fn open(replies: WorkerReplies<Bell>, socket: &'static UnixStream) {
    let ends = Mutex::new(Ends { replies, socket, descriptors: Departures::default() });
    let _ = UPLINK.set(Uplink { process: process::id(), ends }); // a process becomes a worker once
    let previous = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        // One that core raises for another that cannot go on says less than that one.
        let is_second = info.location().is_some_and(|place| place.file().ends_with("core/src/panicking.rs"));
        if !is_second {
            let mut body = Vec::new();
            if codec::encode(&describe(info), &mut body).is_ok() {
                tell(Kind::Panicked, &body);
            }
        }
        previous(info);
    }));
}

/// Makes `ticket` the call to which what is told belongs, until the guard is dropped.
pub(crate) fn enter(ticket: u64) -> Entered {
    // ORDERING: Relaxed; a thread that works for the call was started or called after this.
    TICKET.store(ticket, Ordering::Relaxed);
    Entered
}

/// From [`enter`].
pub(crate) struct Entered;

impl Drop for Entered {
    fn drop(&mut self) {
        TICKET.store(NO_TICKET, Ordering::Relaxed);
    }
}

/// Sends a frame that says something of the call that is being made, from any thread. A parent that is gone is not told.
pub(crate) fn tell(kind: Kind, body: &[u8]) {
    let mut frame = Vec::new();
    put_frame(kind, TICKET.load(Ordering::Relaxed), body, &mut frame);
    if let Some(uplink) = UPLINK.get()
        // A child that a call has forked has this memory as well, and must not speak in its parent's name.
        && uplink.process == process::id()
    {
        let _ = uplink.ends.lock().replies.send(&frame, Room::Napping);
    }
}

/// Sends a frame in its parts, and before it what belongs to it. Only for the thread that answers calls.
pub(crate) fn answer(parts: &[&[u8]], attachments: &Attachments) -> io::Result<()> {
    let Some(uplink) = UPLINK.get() else { return Ok(()) };
    let mut ends = uplink.ends.lock();
    let Ends { replies, socket, descriptors } = &mut *ends;
    descriptors.send_all(socket, attachments)?;
    for part in parts {
        replies.send(part, Room::Asleep)?;
    }
    Ok(())
}
