//! The other side of a `Process`: this program, started again to make one call and end with it.

use executor_core::{codec, context::ContextStore, payload::Payload, target};
use rustix::process::{Signal, set_parent_process_death_signal};
use std::{
    ffi::CString,
    io::{self, Write},
    os::unix::net::UnixStream,
};

use crate::{
    identity::{self, Birth},
    wire::{Frame, FrameReader, Hello, Kind},
    worker,
};

/// Tells a process that it is to make one call, which comes through its standard input. Taken out of the environment before
/// the call is made.
pub(crate) const MARKER: &str = "CONCURRENT_FUTURES_PROCESS";

/// What a process ends with whose function failed: as Python's with an uncaught exception.
const FAILED: i32 = 1;

/// Makes the call for which this process was started. Returns its exit code.
pub(crate) fn live() -> io::Result<i32> {
    worker::refuse_foreign_rights()?;
    let channel = worker::take_channel()?;
    let mut reader = FrameReader::new();
    let parent = Hello::get(&expect(Kind::Hello, &mut reader, &channel)?.body)?;
    Hello::of_this_process().accepts(parent).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))?;
    let birth = expect(Kind::Birth, &mut reader, &channel)?;
    let birth: Birth = codec::decode(&birth.body).map_err(|failure| io::Error::other(failure.to_string()))?;
    let (name, daemon) = (birth.name.clone(), birth.daemon);
    if daemon {
        // Tied to the thread that started this process, which is the keeper, and outlives it.
        set_parent_process_death_signal(Some(Signal::KILL))?;
    }
    identity::learn(birth, parent.pid as u32);
    if daemon && !identity::parent_process().is_some_and(identity::ParentProcess::is_alive) {
        return Ok(FAILED); // it ended before it could be watched
    }
    rustix::thread::set_name(&CString::new(name.as_str()).unwrap_or_default())?;
    let frame = expect(Kind::Call, &mut reader, &channel)?;
    drop((reader, channel));
    let mut reply = Payload::default();
    // A process gives nothing back: what goes with the reply goes nowhere.
    let ending =
        worker::make(worker::incoming(frame.body, frame.attachments)?, &mut ContextStore::default(), &mut reply);
    reply.buffer().push(ending.mark);
    Ok(target::exit_code(&reply.into_vec()).unwrap_or_else(|message| {
        // Standard error may be closed, or full.
        let _ = writeln!(io::stderr(), "Process {name}: {message}");
        FAILED
    }))
}

fn expect(kind: Kind, reader: &mut FrameReader, channel: &UnixStream) -> io::Result<Frame> {
    loop {
        match reader.next()? {
            Some(frame) if frame.kind == kind => return Ok(frame),
            Some(frame) => {
                let why = format!("it was sent {:?}, not {kind:?}", frame.kind);
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            None if reader.fill(channel)? == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            None => {}
        }
    }
}
