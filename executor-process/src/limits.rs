//! What a worker process may use: sent to it before its first call, set by itself, and read from its end.
//!
//! | limit | what the kernel does | what becomes of the call |
//! |---|---|---|
//! | memory | refuses more | Rust's allocator aborts, and C++'s throws, with a sentence on standard error: told apart by that |
//! | processor time | sends SIGXCPU, which ends the process | told apart by the signal |
//! | open files | refuses more | an `io::Error` inside of the call, which is the call's own result |
//! | core files | writes none | |
//!
//! Memory is `RLIMIT_DATA`: what the process has for itself to write to, heap and the stacks of further threads.
//! `RLIMIT_AS` would count the program, its libraries, what is only reserved, and memory that is shared, all of which differ
//! from machine to machine and cost a call nothing; and the resident size is no limit that the kernel holds.
//! Processor time is each call's own, and the business of `cpu_timer`.

use executor_core::{Exit, ResourceLimit};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{io, time::Duration};

use crate::wire::WireError;

/// Chosen as the pool was built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) memory_bytes: Option<u64>,
    /// For each call.
    pub(crate) cpu_time: Option<Duration>,
    pub(crate) open_files: Option<u64>,
    pub(crate) no_core_files: bool,
}

/// Stands for no limit.
const NONE: u64 = u64::MAX;

impl Limits {
    pub(crate) fn are_none(&self) -> bool {
        *self == Limits::default()
    }

    /// A frame's body.
    pub(crate) fn body(&self) -> Vec<u8> {
        let nanos = self.cpu_time.map(|limit| u64::try_from(limit.as_nanos()).unwrap_or(NONE));
        let words = [self.memory_bytes, nanos, self.open_files].map(|limit| limit.unwrap_or(NONE));
        words.into_iter().chain([u64::from(self.no_core_files)]).flat_map(u64::to_le_bytes).collect()
    }

    pub(crate) fn of_body(body: &[u8]) -> Result<Limits, WireError> {
        let (words, []) = body.as_chunks::<8>() else { return Err(WireError::Limits(body.len())) };
        let &[memory, nanos, files, core] = words else { return Err(WireError::Limits(body.len())) };
        let limit = |word| Some(u64::from_le_bytes(word)).filter(|limit| *limit != NONE);
        Ok(Limits {
            memory_bytes: limit(memory),
            cpu_time: limit(nanos).map(Duration::from_nanos),
            open_files: limit(files),
            no_core_files: u64::from_le_bytes(core) != 0,
        })
    }

    /// In the worker, before its first call: from now on.
    pub(crate) fn set(&self) -> io::Result<()> {
        let most = |resource, most: Option<u64>| most.map_or(Ok(()), |most| lower(resource, most));
        most(Resource::Data, self.memory_bytes)?;
        most(Resource::Nofile, self.open_files)?;
        most(Resource::Core, self.no_core_files.then_some(0))
    }

    /// In the parent: the limit that a worker has exceeded that ended so, if it has.
    pub(crate) fn exceeded(&self, exit: &Exit, says_out_of_memory: bool) -> Option<ResourceLimit> {
        match exit {
            Exit::Signal { number: libc::SIGXCPU, .. } => self.cpu_time.map(|limit| ResourceLimit::CpuTime { limit }),
            Exit::Signal { number: libc::SIGABRT, .. } | Exit::Code(crate::worker::UNFIT) if says_out_of_memory => {
                self.memory_bytes.map(|bytes| ResourceLimit::Memory { bytes })
            }
            _ => None,
        }
    }
}

/// Whether a process that said this was refused memory and does not go on: Rust's sentence, C++'s, C's, and our own.
pub(crate) fn tells_of_no_memory(said: &[u8]) -> bool {
    let said = String::from_utf8_lossy(said);
    let rust = said.split("memory allocation of ").skip(1).any(|rest| {
        let unit = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        unit.len() < rest.len() && unit.starts_with(" bytes failed")
    });
    rust || ["std::bad_alloc", "out of memory", NO_MEMORY_FOR_FRAME].iter().any(|other| said.contains(other))
}

/// What a worker says that cannot read a call for want of memory.
pub(crate) const NO_MEMORY_FOR_FRAME: &str = "for which there is no memory";

/// A limit that code in the worker cannot raise again. One that is lower already stays.
fn lower(resource: Resource, most: u64) -> io::Result<()> {
    let most = Some(getrlimit(resource).maximum.map_or(most, |before| before.min(most)));
    Ok(setrlimit(resource, Rlimit { current: most, maximum: most })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Limits = Limits {
        memory_bytes: Some(1 << 30),
        cpu_time: Some(Duration::from_millis(1500)),
        open_files: Some(0),
        no_core_files: true,
    };

    #[test]
    fn limits_arrive_as_they_were_sent() {
        for limits in [ALL, Limits::default(), Limits { memory_bytes: None, ..ALL }] {
            let body = limits.body();
            assert_eq!(body.len(), 32);
            assert_eq!(Limits::of_body(&body).unwrap(), limits);
            for length in (0..32).chain([40]) {
                let mut other = body.clone();
                other.resize(length, 0);
                assert_eq!(Limits::of_body(&other).unwrap_err(), WireError::Limits(length));
            }
        }
        let endless = Limits { cpu_time: Some(Duration::MAX), ..ALL };
        assert_eq!(Limits::of_body(&endless.body()).unwrap().cpu_time, None);
    }

    #[test]
    fn an_end_tells_which_limit_was_exceeded() {
        let signal = |number| Exit::Signal { number, name: String::new() };
        let memory = Some(ResourceLimit::Memory { bytes: 1 << 30 });
        let time = Some(ResourceLimit::CpuTime { limit: Duration::from_millis(1500) });
        let table = [
            (signal(libc::SIGXCPU), false, time),
            (signal(libc::SIGABRT), true, memory),
            (signal(libc::SIGABRT), false, None),
            (signal(libc::SIGKILL), true, None),
            (Exit::Code(70), true, memory),
            (Exit::Code(1), true, None),
            (Exit::Unknown, true, None),
        ];
        for (exit, says, limit) in table {
            assert_eq!(ALL.exceeded(&exit, says), limit, "{exit:?}");
            assert_eq!(Limits::default().exceeded(&exit, says), None, "{exit:?}, which may use what it likes");
        }
    }

    #[test]
    fn a_refusal_of_memory_has_its_sentence() {
        let frame = WireError::Length(1 << 40).to_string();
        let glibc = "Fatal glibc error: failed to register TLS destructor: out of memory\n";
        for said in ["x\nmemory allocation of 123 bytes failed\n", "what():  std::bad_alloc", glibc, &frame] {
            assert!(tells_of_no_memory(said.as_bytes()), "{said}");
        }
        for said in ["", "memory allocation of bytes failed", "memory allocation of 12 bytes", "memory", "\u{fffd}"] {
            assert!(!tells_of_no_memory(said.as_bytes()), "{said}");
        }
    }
}
