//! Descriptors that travel with arguments and results.

use crate::support::{Gate, eventually, pass};
use concurrent_futures::{
    Context, Executor, ProcessPoolExecutor, RetryPolicy, Shared, TaskOptions, backend::attachments,
};
use rustix::fs::{MemfdFlags, memfd_create};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, IntoDeserializer, value::U32Deserializer},
    ser,
};
use std::{
    fmt::{self, Write as _},
    fs,
    io::Write,
    os::{fd::OwnedFd, unix::fs::FileExt},
    process,
    sync::Arc,
};

/// A file that travels as itself.
#[derive(Clone)]
struct Handle(Arc<OwnedFd>);

impl Handle {
    fn holding(text: &str) -> Handle {
        let memory = memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
        fs::File::from(memory.try_clone().unwrap()).write_all(text.as_bytes()).unwrap();
        Handle(Arc::new(memory))
    }

    fn text(&self) -> String {
        let mut bytes = [0; 64];
        let got = fs::File::from(self.0.try_clone().unwrap()).read_at(&mut bytes, 0).unwrap();
        String::from_utf8(bytes[..got].to_vec()).unwrap()
    }
}

impl Serialize for Handle {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let number = attachments::attach(&self.0).ok_or_else(|| ser::Error::custom("it goes to no process"))?;
        number.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Handle {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u32::deserialize(deserializer)?;
        attachments::attached(number).map(Handle).ok_or_else(|| de::Error::custom("it did not come"))
    }
}

/// QUE-16: there and back, in single calls, chunks and contexts; more of them than there are in any message.
#[test]
fn descriptors_go_with_arguments_and_come_with_results() {
    let pool = ProcessPoolExecutor::new(2).unwrap();
    let many: Vec<_> = (0..100).map(|number| Handle::holding(&number.to_string())).collect();
    let (texts, back, pid) = pool
        .submit(
            |many: Vec<Handle>| {
                let texts: Vec<String> = many.iter().map(Handle::text).collect();
                (texts, Handle::holding("of the worker"), process::id())
            },
            many.clone(),
        )
        .result()
        .unwrap();
    assert!(texts.into_iter().eq((0..100).map(|number| number.to_string())));
    assert_eq!(back.text(), "of the worker");
    assert_ne!(pid, process::id());

    let swapped: Vec<_> = pool.map(|handle: Handle| (handle.text(), handle), many).chunk_size(7).collect();
    for (number, outcome) in swapped.into_iter().enumerate() {
        let (text, handle) = outcome.unwrap();
        assert_eq!((text, handle.text()), (number.to_string(), number.to_string()));
    }

    let context = Context::new(Handle::holding("of all"));
    let texts = pool.map_with(&context, |handle, suffix: u32| format!("{} {suffix}", handle.text()), 0..20);
    for (number, text) in texts.enumerate() {
        assert_eq!(text.unwrap(), format!("of all {number}"));
    }
}

/// What is cancelled in a channel takes its own descriptors along, and not its neighbours'.
#[test]
fn calls_that_are_skipped_leave_their_neighbours_theirs() {
    let pool = ProcessPoolExecutor::new(1).unwrap();
    let gate = Gate::new();
    let first = pool.submit(pass, gate.key());
    gate.await_arrivals(1);
    let calls: Vec<_> = (0..8)
        .map(|number| pool.submit(|handle: Handle| handle.text(), Handle::holding(&number.to_string())))
        .collect();
    calls.iter().step_by(2).for_each(|call| assert!(call.cancel()));
    gate.open();
    first.result().unwrap();
    for (number, call) in calls.into_iter().enumerate() {
        match number % 2 {
            0 => assert!(call.result().unwrap_err().is_cancelled()),
            _ => assert_eq!(call.result().unwrap(), number.to_string()),
        }
    }
}

/// Another attempt has them as well.
#[test]
fn another_attempt_finds_them_again() {
    let pool = ProcessPoolExecutor::new(1).unwrap();
    let patient = pool.with(TaskOptions::new().retry(RetryPolicy::attempts(3)));
    let future = patient.submit(
        |(handle, tries): (Handle, Handle)| {
            let mut file = fs::File::from(tries.0.try_clone().unwrap());
            file.write_all(b"x").unwrap();
            match tries.text().len() {
                1 => process::abort(),
                2 => panic!("once more"),
                _ => handle.text(),
            }
        },
        (Handle::holding("still here"), Handle::holding("")),
    );
    assert_eq!(future.result().unwrap(), "still here");
}

/// What goes to no other process cannot have descriptors, and says so.
#[test]
fn a_descriptor_goes_nowhere_else() {
    fn finds(number: u32) -> bool {
        let from: U32Deserializer<de::value::Error> = number.into_deserializer();
        Handle::deserialize(from).is_ok()
    }
    struct Shown(Handle);
    impl fmt::Display for Shown {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.serialize(f)
        }
    }
    let mut text = String::new();
    assert!(write!(text, "{}", Shown(Handle::holding("x"))).is_err(), "{text}");
    assert!(!finds(0));
    // Nor is what came with its arguments still to be had in the middle of a call.
    let pool = ProcessPoolExecutor::new(1).unwrap();
    let found = pool.submit(|(_, number): (Handle, u32)| finds(number), (Handle::holding("x"), 0));
    assert!(!found.result().unwrap());
}

/// How much shared memory a process has in its page table, in kB, as the kernel tells it; `None`: it has none mapped.
fn shared_kb(process: u32) -> Option<u64> {
    let maps = fs::read_to_string(format!("/proc/{process}/smaps")).unwrap();
    let (_, ours) = maps.split_once("memfd:executor-shared")?;
    let line = ours.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
    Some(line.trim().trim_end_matches(" kB").parse().unwrap())
}

/// MEM-04, MEM-06: a call that is given what the one before it had finds each page in its place. A moment after the last call,
/// the worker has let go of the memory, though nothing else was asked of it.
#[test]
fn shared_memory_stays_mapped_between_calls_and_not_for_long() {
    let pool = ProcessPoolExecutor::new(1).unwrap();
    let data = Shared::new(vec![7_u8; 4 << 20]).unwrap();
    let read = |data: Shared<[u8]>| {
        let before = shared_kb(process::id());
        assert!(data.iter().step_by(4096).all(|byte| *byte == 7));
        before.unwrap()
    };
    assert_eq!(pool.submit(read, data.clone()).result().unwrap(), 0);
    // Each is the next one, unless the machine was busy elsewhere for longer than that moment.
    assert!((0..100).any(|_| pool.submit(read, data.clone()).result().unwrap() == 4 << 10));
    let [worker] = pool.worker_pids()[..] else { panic!("there is one worker") };
    eventually("the worker lets go of it", || shared_kb(worker).is_none());
}
