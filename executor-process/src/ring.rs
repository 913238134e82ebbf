//! How bytes go from one process to another without the kernel: two rings in memory that a parent and one worker share,
//! requests in the one and replies in the other, and a word for each side by which it says that it sleeps.
//!
//! ```text
//!                    read                 written
//!                     ▼                      ▼
//!  ring   ·  ·  ·  ·  █  █  █  █  █  █  █  █  ·  ·  ·     positions only grow; a byte lies at its position modulo the size
//! ```
//!
//! What is written is a stream, so a frame may be larger than its ring: it then passes through in pieces. A ring begins small, so
//! that short calls touch little memory, and becomes large as the first large frame comes; as it is empty then, only later bytes lie
//! elsewhere. Each
//! position has one writer. Nothing that the other side wrote is trusted: its positions are checked, and bytes are
//! copied out before anybody looks at them. Who sleeps when, and why no wake-up is lost: `ring.md`.

#![expect(unsafe_code, reason = "memory that two processes share is mapped, and copied from and to")]
#![doc = include_str!("ring.md")]

use rustix::{
    mm::{MapFlags, ProtFlags, mmap, munmap},
    thread::{Timespec, futex, sched_getcpu},
};
use std::{
    fmt, hint, io,
    os::fd::AsFd,
    ptr::{self, NonNull},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering, fence},
    },
    thread,
    time::{Duration, Instant},
};

/// Of a ring through which only short frames have passed: little enough to stay in a cache.
const SMALL_BYTES: usize = 64 << 10;

/// Of a ring through which a large frame has passed: enough for a chunk of a file and the next one, so that the parent need not come
/// back, in the midst of a frame, to a worker that does something else meanwhile.
const LARGE_BYTES: usize = 1 << 20;

/// What is copied at once: the other side begins with it meanwhile.
const PIECE_BYTES: usize = 16 << 10;

/// The words come first, on a page of their own.
const WORDS_BYTES: usize = 4096;

/// What the rings take of the shared memory.
pub(crate) const BYTES: usize = WORDS_BYTES + 2 * LARGE_BYTES;

/// Of a worker that has made no call.
const UNKNOWN_PACE_NANOS: u32 = 1_000_000;

/// How long a worker that has answered everything looks for more before it sleeps, at most.
const WORKER_SPIN: Duration = Duration::from_micros(50);

/// Keeps what one side writes away from what the other one does. Two lines, since they are fetched in pairs.
#[repr(C, align(128))]
struct Apart<T>(T);

#[repr(C)]
struct Positions {
    written: Apart<Written>,
    read: Apart<AtomicU64>,
}

#[repr(C)]
struct Written {
    position: AtomicU64,
    /// Not 0: the ring is large from here on.
    is_large: AtomicU32,
}

#[repr(C)]
struct Words {
    requests: Positions,
    replies: Positions,
    /// Whether the parent looks by itself, or wants to be told.
    parent: Apart<AtomicU32>,
    /// Whether the worker looks by itself, or sleeps, and for what. A futex.
    worker: Apart<AtomicU32>,
    /// What the parent tells besides.
    told: Apart<Told>,
    /// What the worker tells besides.
    says: Apart<Says>,
}

#[repr(C)]
struct Told {
    /// It has more to send than fits.
    wants_room: AtomicU32,
    /// Nothing more comes.
    closed: AtomicU32,
    cpu: AtomicU32,
}

#[repr(C)]
struct Says {
    cpu: AtomicU32,
    /// How long its calls take, of late, in nanoseconds. 0: it has made none.
    pace: AtomicU32,
}

const _: () = assert!(size_of::<Words>() <= WORDS_BYTES);

const AWAKE: u32 = 0;
/// The parent sleeps; or the worker, until there is a request.
const ASLEEP: u32 = 1;
/// The worker sleeps until there is room for its reply.
const WANTS_ROOM: u32 = 2;

/// The other side's position cannot be: it is not in its right mind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Astray;

impl fmt::Display for Astray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a position in its ring that cannot be")
    }
}

impl From<Astray> for io::Error {
    fn from(astray: Astray) -> Self {
        io::Error::new(io::ErrorKind::InvalidData, format!("the other side wrote {astray}"))
    }
}

/// The mapping, which both ends of one side keep.
struct Mapping {
    start: NonNull<u8>,
}

// SAFETY: the mapping belongs to no thread. Its words are atomic; of its bytes, each end touches only those that the
// positions give to it, through `&mut self`.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn words(&self) -> &Words {
        // SAFETY: mapped from `map` until `drop`, page-aligned, larger than `Words`, and sealed against shrinking. Any bytes
        // are valid atomics, and both processes touch these bytes only atomically.
        unsafe { self.start.cast().as_ref() }
    }

    /// Where a ring's bytes are.
    fn ring(&self, which: Which) -> *mut u8 {
        let offset = match which {
            Which::Requests => WORDS_BYTES,
            Which::Replies => WORDS_BYTES + LARGE_BYTES,
        };
        // SAFETY: within the mapping, which has `BYTES` bytes.
        unsafe { self.start.as_ptr().add(offset) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping that `map` made, of that size; no reference into it outlives `self`. An error would mean
        // that it was never mapped; nothing can be done about it here.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), BYTES) };
    }
}

/// Maps the rings, which lie at `offset` of the memory.
fn map(memory: impl AsFd, offset: u64) -> io::Result<Arc<Mapping>> {
    // SAFETY: a fresh mapping at an address of the kernel's choice touches nothing that exists.
    let start =
        unsafe { mmap(ptr::null_mut(), BYTES, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, memory, offset)? };
    let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("the kernel mapped rings at zero"))?;
    Ok(Arc::new(Mapping { start }))
}

#[derive(Clone, Copy, Debug)]
enum Which {
    Requests,
    Replies,
}

impl Which {
    fn of(self, words: &Words) -> &Positions {
        match self {
            Which::Requests => &words.requests,
            Which::Replies => &words.replies,
        }
    }
}

/// The end of a ring that writes.
struct Producer {
    mapping: Arc<Mapping>,
    which: Which,
    size: usize,
    written: u64,
    /// Where the other side was seen last.
    read: u64,
}

impl Producer {
    fn new(mapping: &Arc<Mapping>, which: Which) -> Self {
        Producer { mapping: Arc::clone(mapping), which, size: SMALL_BYTES, written: 0, read: 0 }
    }

    fn positions(&self) -> &Positions {
        self.which.of(self.mapping.words())
    }

    /// How many bytes can be written now.
    fn room(&mut self) -> Result<usize, Astray> {
        // ORDERING: Acquire pairs with the store in `Consumer::take`: what was there has been copied out.
        let read = self.positions().read.0.load(Ordering::Acquire);
        let filled = self.written.wrapping_sub(read);
        if filled > self.size as u64 {
            return Err(Astray);
        }
        self.read = read;
        Ok(self.size - filled as usize)
    }

    /// Whether bytes can be written now, or something is wrong.
    fn has_room(&self) -> bool {
        // ORDERING: Relaxed; `room` follows before anything is written.
        self.written.wrapping_sub(self.positions().read.0.load(Ordering::Relaxed)) != self.size as u64
    }

    /// Makes the ring large, if it is empty.
    #[cold]
    fn grow(&mut self) -> Result<(), Astray> {
        if self.room()? == self.size {
            self.size = LARGE_BYTES;
            // ORDERING: Relaxed; the position that follows, of bytes which lie where the large ring has them, publishes it.
            self.positions().written.0.is_large.store(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Writes as much as there is room for, and shows it to the other side.
    fn put(&mut self, mut bytes: &[u8]) -> Result<usize, Astray> {
        let whole = bytes.len();
        if whole > SMALL_BYTES / 2 && self.size == SMALL_BYTES {
            self.grow()?;
        }
        let mut room = self.size - self.written.wrapping_sub(self.read) as usize;
        while !bytes.is_empty() {
            let piece = bytes.len().min(PIECE_BYTES);
            if room < piece {
                room = self.room()?;
            }
            let piece = piece.min(room);
            if piece == 0 {
                break;
            }
            let (now, later) = bytes.split_at(piece);
            self.copy_in(now);
            // ORDERING: Release pairs with the load in `Consumer::available`: the bytes come before their position.
            self.positions().written.0.position.store(self.written, Ordering::Release);
            room -= piece;
            bytes = later;
        }
        Ok(whole - bytes.len())
    }

    /// Writes bytes for which there is room.
    fn copy_in(&mut self, bytes: &[u8]) {
        let ring = self.mapping.ring(self.which);
        let at = self.written as usize % self.size;
        let (first, rest) = bytes.split_at(bytes.len().min(self.size - at));
        // SAFETY: `at` is within the ring, of which the mapping has `LARGE_BYTES`, and so is its sum with the length of `first`, by
        // the line above.
        let place = unsafe { ring.add(at) };
        // SAFETY: `first` is readable, and `place` has room for it within the mapping, which is no Rust object: they do not
        // overlap. No reference to these bytes exists anywhere in this process, and this is the only end that writes. What the
        // other process does meanwhile, if it is mad, changes bytes that nobody here reads.
        unsafe { ptr::copy_nonoverlapping(first.as_ptr(), place, first.len()) };
        // SAFETY: as above; `rest` is shorter than the ring, since no more than its size is written at once.
        unsafe { ptr::copy_nonoverlapping(rest.as_ptr(), ring, rest.len()) };
        self.written += bytes.len() as u64;
    }
}

/// The end of a ring that reads.
struct Consumer {
    mapping: Arc<Mapping>,
    which: Which,
    size: usize,
    read: u64,
}

impl Consumer {
    fn new(mapping: &Arc<Mapping>, which: Which) -> Self {
        Consumer { mapping: Arc::clone(mapping), which, size: SMALL_BYTES, read: 0 }
    }

    fn positions(&self) -> &Positions {
        self.which.of(self.mapping.words())
    }

    /// Whether there is anything to read, or wrong.
    fn has_more(&self) -> bool {
        // ORDERING: Relaxed; `available` follows before anything is read.
        self.positions().written.0.position.load(Ordering::Relaxed) != self.read
    }

    /// How many bytes can be read now.
    fn available(&mut self) -> Result<usize, Astray> {
        let written = &self.positions().written.0;
        // ORDERING: Acquire pairs with the store in `Producer::put`: the bytes were written before, and where they lie was said.
        let filled = written.position.load(Ordering::Acquire).wrapping_sub(self.read);
        if written.is_large.load(Ordering::Relaxed) != 0 {
            self.size = LARGE_BYTES;
        }
        if filled > self.size as u64 { Err(Astray) } else { Ok(filled as usize) }
    }

    /// Appends what is there to `out`, but no more than `most`, and makes room for more.
    fn take(&mut self, out: &mut Vec<u8>, most: usize) -> Result<usize, Astray> {
        let count = self.available()?.min(most);
        out.reserve(count);
        let mut left = count;
        while left > 0 {
            let piece = left.min(PIECE_BYTES);
            self.copy_out(out, piece);
            // ORDERING: Release pairs with the load in `Producer::room`: the bytes were copied out before.
            self.positions().read.0.store(self.read, Ordering::Release);
            left -= piece;
        }
        Ok(count)
    }

    /// Appends `count` bytes, which are there, to `out`, which has room for them.
    fn copy_out(&mut self, out: &mut Vec<u8>, count: usize) {
        let spare = out.spare_capacity_mut();
        assert!(count <= spare.len() && count <= self.size);
        let ring = self.mapping.ring(self.which);
        let at = self.read as usize % self.size;
        let first = count.min(self.size - at);
        let target = spare.as_mut_ptr().cast::<u8>();
        // SAFETY: `at` is within the ring, of which the mapping has `LARGE_BYTES`, and so is its sum with `first`, by the line above.
        let place = unsafe { ring.add(at) };
        // SAFETY: `place` has `first` readable bytes within the mapping, and `target`, which is another allocation, room for
        // `count`. No reference to the ring's bytes exists anywhere in this process. If the other process is mad and writes
        // them meanwhile, the copy has bytes of an unknown time, which are as good as any: nothing is concluded from them here.
        unsafe { ptr::copy_nonoverlapping(place, target, first) };
        // SAFETY: `first <= count`, so this stays within the spare capacity.
        let target = unsafe { target.add(first) };
        // SAFETY: as the copy above, from the beginning of the ring; `count - first` is less than its size.
        unsafe { ptr::copy_nonoverlapping(ring, target, count - first) };
        // SAFETY: within the capacity, and these `count` bytes have just been written.
        unsafe { out.set_len(out.len() + count) };
        self.read += count as u64;
    }
}

/// The parent's side.
pub(crate) struct ParentRings {
    requests: Producer,
    replies: Consumer,
}

impl ParentRings {
    pub(crate) fn map(memory: impl AsFd, offset: u64) -> io::Result<Self> {
        let mapping = map(memory, offset)?;
        mapping.words().says.0.cpu.store(NO_CPU, Ordering::Relaxed);
        Ok(ParentRings {
            requests: Producer::new(&mapping, Which::Requests),
            replies: Consumer::new(&mapping, Which::Replies),
        })
    }

    fn words(&self) -> &Words {
        self.requests.mapping.words()
    }

    /// Sends as much as there is room for. [`wake`](Self::wake) is to follow.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<usize, Astray> {
        self.requests.put(bytes)
    }

    /// Whether the worker has said something, or gone astray.
    pub(crate) fn has_replies(&self) -> bool {
        self.replies.has_more()
    }

    /// Appends what the worker has said to `out`, but no more than `most`.
    pub(crate) fn receive(&mut self, out: &mut Vec<u8>, most: usize) -> Result<usize, Astray> {
        let count = self.replies.take(out, most)?;
        if count > 0 {
            self.wake_from(WANTS_ROOM);
        }
        Ok(count)
    }

    /// Wakes the worker if it sleeps for want of requests.
    pub(crate) fn wake(&self) {
        self.wake_from(ASLEEP);
    }

    fn wake_from(&self, state: u32) {
        // ORDERING: SeqCst, against the fence in `Words::sleep`: either that sees what was published before this, or
        // this sees that it sleeps.
        fence(Ordering::SeqCst);
        let word = &self.words().worker.0;
        if word.load(Ordering::Relaxed) == state
            && word.compare_exchange(state, AWAKE, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            // WAKES: the worker in `Words::sleep`. An error would mean that the word is not mapped.
            let _ = futex::wake(word, futex::Flags::empty(), 1);
        }
    }

    /// Nothing more comes: the worker leaves when it has read what was sent.
    pub(crate) fn close(&self) {
        // ORDERING: Release, and the fence in `wake`: what was sent is read first.
        self.words().told.0.closed.store(1, Ordering::Release);
        self.wake();
    }

    /// The parent looks by itself from now on.
    pub(crate) fn stay_awake(&self) {
        let word = &self.words().parent.0;
        // ORDERING: Relaxed; a worker that sees it late wakes the parent without need.
        if word.load(Ordering::Relaxed) != AWAKE {
            word.store(AWAKE, Ordering::Relaxed);
        }
    }

    /// The parent wants to be told from now on. After a fence it must look once more.
    pub(crate) fn fall_asleep(&self, wants_room: bool) {
        // ORDERING: Relaxed; the fence follows.
        self.words().told.0.wants_room.store(u32::from(wants_room), Ordering::Relaxed);
        self.words().parent.0.store(ASLEEP, Ordering::Relaxed);
    }

    /// Whether there is room for what is to be sent, or something is wrong.
    pub(crate) fn has_room(&self) -> bool {
        self.requests.has_room()
    }

    /// On which processor the parent sends.
    pub(crate) fn note_cpu(&self, cpu: u32) {
        let word = &self.words().told.0.cpu;
        // ORDERING: Relaxed, as all of these: a hint.
        if word.load(Ordering::Relaxed) != cpu {
            word.store(cpu, Ordering::Relaxed);
        }
    }

    /// How long the worker's calls take, of late, in nanoseconds. One that has made none yet is assumed to be slow.
    pub(crate) fn pace_nanos(&self) -> u32 {
        match self.words().says.0.pace.load(Ordering::Relaxed) {
            0 => UNKNOWN_PACE_NANOS,
            nanos => nanos,
        }
    }

    /// Whether the worker sleeps, and has to be woken for the next call.
    pub(crate) fn worker_sleeps(&self) -> bool {
        // ORDERING: Relaxed; a hint, as all that follows.
        self.words().worker.0.load(Ordering::Relaxed) == ASLEEP
    }

    /// On which processor the worker runs, if it does.
    pub(crate) fn worker_cpu(&self) -> u32 {
        self.words().says.0.cpu.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for ParentRings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParentRings").finish_non_exhaustive()
    }
}

/// Maps the worker's side. `bell` makes what wakes a parent that sleeps.
pub(crate) fn map_worker<B: Fn()>(
    memory: impl AsFd,
    offset: u64,
    bell: impl Fn() -> B,
) -> io::Result<(WorkerRequests<B>, WorkerReplies<B>)> {
    let mapping = map(memory, offset)?;
    mapping.words().says.0.cpu.store(this_cpu(), Ordering::Relaxed);
    let patience = || Patience::new(WORKER_SPIN);
    let requests = WorkerRequests {
        requests: Consumer::new(&mapping, Which::Requests),
        patience: patience(),
        pace: 0,
        bell: bell(),
    };
    let replies =
        WorkerReplies { replies: Producer::new(&mapping, Which::Replies), patience: patience(), bell: bell() };
    Ok((requests, replies))
}

/// Where a worker's requests come from. For its one thread that answers calls.
pub(crate) struct WorkerRequests<B> {
    requests: Consumer,
    patience: Patience,
    pace: u32,
    bell: B,
}

impl<B: Fn()> WorkerRequests<B> {
    /// Appends what the parent has sent to `out`, but no more than `most`. `false`: nothing was there.
    pub(crate) fn receive(&mut self, out: &mut Vec<u8>, most: usize) -> Result<bool, Astray> {
        let count = self.requests.take(out, most)?;
        if count > 0 {
            self.requests
                .mapping
                .words()
                .ring(&self.bell, |words| words.told.0.wants_room.load(Ordering::Relaxed) != 0);
        }
        Ok(count > 0)
    }

    /// A call took so long.
    pub(crate) fn note_pace(&mut self, took: Duration) {
        let took = u32::try_from(took.as_nanos()).unwrap_or(u32::MAX);
        // One that takes much longer than those before says more than they do.
        self.pace = if took / 16 > self.pace { took } else { self.pace - self.pace / 8 + took / 8 }.max(1);
        let told = &self.requests.mapping.words().says.0.pace;
        // Not for every little change: the parent's copy of this line would be lost each time.
        if told.load(Ordering::Relaxed).abs_diff(self.pace) > self.pace / 4 {
            told.store(self.pace, Ordering::Relaxed);
        }
    }

    /// Waits for requests, for as long as `limit`.
    pub(crate) fn await_requests(&mut self, limit: Option<Duration>) -> Awaited {
        let end = limit.map(|limit| Instant::now() + limit);
        let Self { requests, patience, bell, .. } = self;
        let words = requests.mapping.words();
        // ORDERING: Acquire pairs with the store in `close`: requests from before are seen now.
        let closed = || words.told.0.closed.load(Ordering::Acquire) != 0;
        loop {
            // In this order: what was sent before the end counts.
            let ended = closed();
            if requests.has_more() {
                return Awaited::Requests;
            }
            if ended {
                return Awaited::End;
            }
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Awaited::Nothing;
            }
            let ready = || requests.has_more() || closed();
            patience.wait(ready, || is_here(words), || words.sleep(&*bell, ASLEEP, left, ready));
        }
    }
}

/// What waiting for requests came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    Requests,
    /// Not in time.
    Nothing,
    /// None will come.
    End,
}

/// What a sender of replies does while there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// It sleeps until it is woken. For the thread that answers calls: it alone may say in the worker's word that it sleeps.
    Asleep,
    /// It looks now and then.
    Napping,
}

/// How long a nap is.
const NAP: Duration = Duration::from_micros(200);

/// Where a worker's replies go.
pub(crate) struct WorkerReplies<B> {
    replies: Producer,
    patience: Patience,
    bell: B,
}

impl<B: Fn()> WorkerReplies<B> {
    /// Sends all of it, waiting for room as often as need be.
    pub(crate) fn send(&mut self, mut bytes: &[u8], room: Room) -> Result<(), Astray> {
        let mapping = Arc::clone(&self.replies.mapping);
        let words = mapping.words();
        loop {
            let sent = self.replies.put(bytes)?;
            bytes = &bytes[sent..];
            if sent > 0 {
                words.ring(&self.bell, |_| true);
            }
            if bytes.is_empty() {
                return Ok(());
            }
            if sent == 0 {
                let Self { replies, patience, bell } = self;
                let has_room = || replies.has_room();
                match room {
                    Room::Napping => thread::sleep(NAP),
                    Room::Asleep => {
                        patience.wait(has_room, || is_here(words), || words.sleep(&*bell, WANTS_ROOM, None, has_room));
                    }
                }
            }
        }
    }
}

impl Words {
    /// Tells a parent that sleeps, if that is so, and it is `wanted`.
    fn ring(&self, bell: impl Fn(), wanted: impl FnOnce(&Words) -> bool) {
        // ORDERING: SeqCst, against the fence after `fall_asleep`: either the parent sees what was published before this,
        // or this sees that it sleeps.
        fence(Ordering::SeqCst);
        let word = &self.parent.0;
        if word.load(Ordering::Relaxed) == ASLEEP
            && wanted(self)
            && word.compare_exchange(ASLEEP, AWAKE, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            bell();
        }
    }

    /// The worker sleeps, unless what it waits for is there.
    fn sleep(&self, bell: impl Fn(), why: u32, limit: Option<Duration>, mut is_ready: impl FnMut() -> bool) {
        // A parent that said it would look, and has not: it is busy elsewhere, and there is something to be done for it.
        // ORDERING: Relaxed; a hint. What must not be lost goes through `ring`.
        let Positions { written, read } = &self.replies;
        if read.0.load(Ordering::Relaxed) != written.0.position.load(Ordering::Relaxed)
            && self.parent.0.load(Ordering::Relaxed) == AWAKE
        {
            bell();
        }
        self.says.0.cpu.store(NO_CPU, Ordering::Relaxed);
        self.worker.0.store(why, Ordering::Relaxed);
        // ORDERING: SeqCst, against the fence in `wake_from`.
        fence(Ordering::SeqCst);
        if !is_ready() {
            let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
            // Returns also when the word has changed already, or for a signal: the caller looks again.
            let _ = futex::wait(&self.worker.0, futex::Flags::empty(), why, limit.as_ref());
        }
        self.worker.0.store(AWAKE, Ordering::Relaxed);
        self.says.0.cpu.store(this_cpu(), Ordering::Relaxed);
    }
}

/// Whether the parent is on this processor: then looking only keeps it from running.
fn is_here(words: &Words) -> bool {
    let cpu = this_cpu();
    let own = &words.says.0.cpu;
    if own.load(Ordering::Relaxed) != cpu {
        own.store(cpu, Ordering::Relaxed);
    }
    words.told.0.cpu.load(Ordering::Relaxed) == cpu
}

/// Says that a worker runs nowhere.
pub(crate) const NO_CPU: u32 = u32::MAX;

/// The processor that this thread runs on.
pub(crate) fn this_cpu() -> u32 {
    sched_getcpu() as u32
}

/// How long to look before one sleeps: learnt from whether looking has paid.
#[derive(Debug)]
pub(crate) struct Patience {
    now: Duration,
    most: Duration,
}

impl Patience {
    pub(crate) fn new(most: Duration) -> Self {
        Patience { now: most, most }
    }

    /// Looks until `is_ready`, but not for too long, and then sleeps. Where it would be `in_the_way` of who is to make it ready, it offers
    /// its processor between two looks. If both slept in turns instead, one of them at a time could run, and they would stay on one
    /// processor beside an idle one.
    fn wait(&mut self, is_ready: impl Fn() -> bool, in_the_way: impl Fn() -> bool, sleep: impl FnOnce()) {
        let began = Instant::now();
        let came = self.look(began, is_ready, in_the_way);
        if !came {
            sleep();
        }
        // Also if it slept, but so shortly that looking on would have cost less: whoever looks for too short a time would never
        // find that out by looking.
        let pays = came || began.elapsed() < 2 * self.most;
        let now = if pays { self.now * 2 } else { self.now / 2 };
        self.now = now.clamp(self.most / 64, self.most);
    }

    fn look(&self, began: Instant, is_ready: impl Fn() -> bool, in_the_way: impl Fn() -> bool) -> bool {
        loop {
            for _ in 0..32 {
                if is_ready() {
                    return true;
                }
                hint::spin_loop();
            }
            if began.elapsed() >= self.now {
                return false;
            }
            if in_the_way() {
                thread::yield_now();
            }
        }
    }
}

/// For `fuzzing`: both ends of one side's rings in this process, and what a mad worker could write into its words.
pub(crate) mod both_ends {
    use super::*;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    /// The parent's end, and in place of the worker's only what it is made of.
    pub(crate) struct BothEnds {
        pub(crate) parent: ParentRings,
        requests: Consumer,
        replies: Producer,
    }

    impl BothEnds {
        pub(crate) fn new() -> io::Result<Self> {
            let memory = memfd_create("rings", MemfdFlags::CLOEXEC)?;
            ftruncate(&memory, BYTES as u64)?;
            let parent = ParentRings::map(&memory, 0)?;
            let mapping = map(&memory, 0)?;
            let requests = Consumer::new(&mapping, Which::Requests);
            Ok(BothEnds { parent, requests, replies: Producer::new(&mapping, Which::Replies) })
        }

        /// What a worker receives.
        pub(crate) fn receive(&mut self, out: &mut Vec<u8>, most: usize) -> Result<usize, Astray> {
            self.requests.take(out, most)
        }

        /// What a worker sends, as much as there is room for.
        pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<usize, Astray> {
            self.replies.room()?;
            self.replies.put(bytes)
        }

        /// A worker that is mad writes `value` into the word of this number.
        pub(crate) fn scribble(&self, word: u8, value: u64) {
            let words = self.replies.mapping.words();
            match word % 7 {
                0 => words.replies.written.0.position.store(value, Ordering::Relaxed),
                1 => words.requests.read.0.store(value, Ordering::Relaxed),
                2 => words.worker.0.store(value as u32, Ordering::Relaxed),
                3 => words.parent.0.store(value as u32, Ordering::Relaxed),
                4 => words.says.0.pace.store(value as u32, Ordering::Relaxed),
                5 => words.replies.written.0.is_large.store(value as u32, Ordering::Relaxed),
                _ => words.says.0.cpu.store(value as u32, Ordering::Relaxed),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use std::sync::mpsc;

    fn pair<B: Fn() + Clone>(bell: B) -> (ParentRings, WorkerRequests<B>, WorkerReplies<B>) {
        let memory = memfd_create("rings", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&memory, BYTES as u64).unwrap();
        let parent = ParentRings::map(&memory, 0).unwrap();
        let (requests, replies) = map_worker(&memory, 0, || bell.clone()).unwrap();
        (parent, requests, replies)
    }

    /// A parent that sleeps whenever it may, and a worker that echoes: nobody waits for ever, and the bytes are the same.
    #[test]
    fn whoever_sleeps_is_woken() {
        let (bell, rung) = mpsc::channel();
        let (mut parent, mut requests, mut replies) = pair(move || _ = bell.send(()));
        let large = LARGE_BYTES;
        let sizes = [1, 24, 100, 5_000, SMALL_BYTES / 2, SMALL_BYTES + 1, large - 1, large, large + 1, 3 * large + 7];
        let rounds = 3_000;
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut bytes = Vec::new();
                while requests.await_requests(None) == Awaited::Requests {
                    bytes.clear();
                    requests.receive(&mut bytes, usize::MAX).unwrap();
                    replies.send(&bytes, if bytes.len() % 2 == 0 { Room::Asleep } else { Room::Napping }).unwrap();
                }
            });
            let mut got = Vec::new();
            for round in 0..rounds {
                // The large ones now and then: they would take all the time.
                let size = if round % 50 == 0 { sizes[round / 50 % sizes.len()] } else { sizes[round % 3] };
                let sent: Vec<u8> = (0..size).map(|i| (i + round) as u8).collect();
                let mut rest = &sent[..];
                got.clear();
                while got.len() < size {
                    let count = parent.send(rest).unwrap();
                    rest = &rest[count..];
                    parent.wake();
                    parent.receive(&mut got, usize::MAX).unwrap();
                    let wants_room = !rest.is_empty();
                    parent.fall_asleep(wants_room);
                    fence(Ordering::SeqCst);
                    if got.len() < size && !parent.has_replies() && !(wants_room && parent.has_room()) {
                        rung.recv_timeout(Duration::from_secs(60)).expect("a wake-up was lost");
                    }
                    parent.stay_awake();
                }
                assert!(got == sent, "round {round}, {size} bytes");
            }
            parent.close();
        });
    }

    #[test]
    fn what_is_sent_before_the_end_is_read() {
        let (mut parent, mut worker, _replies) = pair(|| ());
        parent.send(b"last").unwrap();
        parent.close();
        let mut bytes = Vec::new();
        assert_eq!(worker.await_requests(None), Awaited::Requests);
        assert!(worker.receive(&mut bytes, usize::MAX).unwrap());
        assert_eq!(worker.await_requests(None), Awaited::End);
        assert_eq!(bytes, b"last");
    }

    #[test]
    fn a_limit_ends_the_wait_and_nothing_else() {
        let (mut parent, mut worker, _replies) = pair(|| ());
        let limit = Duration::from_millis(20);
        let began = Instant::now();
        assert_eq!(worker.await_requests(Some(limit)), Awaited::Nothing);
        assert!(began.elapsed() >= limit);
        parent.send(b"late").unwrap();
        assert_eq!(worker.await_requests(Some(limit)), Awaited::Requests);
    }

    /// Only where nothing lies that was put there while it was small; and not for short frames.
    #[test]
    fn a_ring_grows_while_it_is_empty() {
        let (mut parent, mut worker, _replies) = pair(|| ());
        let frames = [100, SMALL_BYTES / 2 + 1, SMALL_BYTES - 200, 100, LARGE_BYTES / 2, 100];
        let sent: Vec<Vec<u8>> = (1..).zip(frames).map(|(tag, length)| vec![tag; length]).collect();
        let mut got = Vec::new();
        let mut sizes = Vec::new();
        for frame in &sent {
            let mut rest = &frame[..];
            while !rest.is_empty() {
                let count = parent.send(rest).unwrap();
                sizes.push(parent.requests.size);
                rest = &rest[count..];
                // What came before the large frame is still there when that comes.
                if got.len() + 100 < sent.concat().len() && frame.len() > 100 {
                    worker.receive(&mut got, usize::MAX).unwrap();
                }
            }
        }
        worker.receive(&mut got, usize::MAX).unwrap();
        assert!(got == sent.concat());
        assert_eq!(sizes, [SMALL_BYTES, SMALL_BYTES, LARGE_BYTES, LARGE_BYTES, LARGE_BYTES, LARGE_BYTES]);
    }

    /// A call there and back takes longer than the shortest look, and much less than a sleep.
    #[test]
    fn who_looks_too_shortly_learns_it_by_sleeping_shortly() {
        let mut patience = Patience { now: Duration::from_millis(10), most: Duration::from_millis(640) };
        for expected in [20, 40, 80] {
            patience.wait(|| false, || false, || ());
            assert_eq!(patience.now, Duration::from_millis(expected));
        }
        let mut patience = Patience::new(Duration::from_nanos(64));
        for expected in [32, 16, 8, 4, 2, 1, 1] {
            patience.wait(|| false, || false, || thread::sleep(Duration::from_micros(1)));
            assert_eq!(patience.now, Duration::from_nanos(expected));
        }
        patience.wait(|| true, || false, || panic!("it was there"));
    }

    /// Whatever stands in the words of the other side is an error at worst.
    #[test]
    fn positions_that_cannot_be_are_refused() {
        let (mut parent, mut worker, _replies) = pair(|| ());
        let words = parent.requests.mapping.words();
        for mad in [SMALL_BYTES as u64 + 1, u64::MAX, 1 << 63] {
            words.replies.written.0.position.store(mad, Ordering::Relaxed);
            words.requests.read.0.store(mad, Ordering::Relaxed);
        }
        assert!(parent.has_replies() && parent.has_room());
        assert_eq!(parent.receive(&mut Vec::new(), usize::MAX), Err(Astray));
        assert_eq!(parent.send(&[0; SMALL_BYTES]), Err(Astray));
        let words = parent.requests.mapping.words();
        words.requests.written.0.position.store(u64::MAX, Ordering::Relaxed);
        assert_eq!(worker.receive(&mut Vec::new(), usize::MAX), Err(Astray));
    }
}
