//! Whether a call that lies in a worker's channel has begun: one word for each call, in memory that parent and worker
//! share.
//!
//! A channel holds several calls, so that a worker never waits for the next one. The price would be that the
//! parent does not know which of them the worker has begun: it could not cancel the others, nor give them to an idle
//! worker, nor tell after a death which one was running. So each call has a word of shared memory; the worker *begins* it,
//! and the parent *revokes* it, by one compare-exchange on that word. One of them succeeds.
//!
//! A word holds a ticket and a state, so that a word that now serves a later call is never mistaken. Tickets grow, and so
//! does each word: one that is still that of an earlier call says that the later one is *offered*, without anybody having
//! to write it. Beside it stands
//! when the call was begun, for its time limit. And the parent may *ask* a call that was begun *to stop*, which it finds in
//! the same word. Nothing else is shared: there is no lock that a dying process could hold.

#![expect(unsafe_code, reason = "memory that two processes share is mapped")]

use executor_core::current::StopSource;
use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create},
    mm::{MapFlags, ProtFlags, mmap, munmap},
    time::{ClockId, clock_gettime},
};
use std::{
    fmt, io,
    os::fd::{AsFd, OwnedFd},
    ptr::{self, NonNull},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::ring;

/// How many calls a channel can hold.
pub(crate) const SLOTS: usize = 512;

const BYTES: usize = size_of::<Words>();

/// Where in the memory the rings begin: on a page of their own.
pub(crate) const RINGS_AT: usize = BYTES.next_multiple_of(4096);

const MEMORY_BYTES: usize = RINGS_AT + ring::BYTES;

const BEGUN: u64 = 2;
const REVOKED: u64 = 3;
const ASKED_TO_STOP: u64 = 4;

/// What lies in the shared memory.
#[repr(C)]
struct Words {
    claims: [AtomicU64; SLOTS],
    /// Nanoseconds of the clock that all processes share.
    begun_at: [AtomicU64; SLOTS],
    ended_at: [AtomicU64; SLOTS],
    /// The ticket of the call that is being made, plus one; 0: none is. Only told of.
    current: AtomicU64,
}

/// The words of one channel, as one of its two sides sees them.
pub(crate) struct Claims {
    words: NonNull<Words>,
}

// SAFETY: the mapping belongs to no thread, and what is in it is atomic.
unsafe impl Send for Claims {}
// SAFETY: as above.
unsafe impl Sync for Claims {}

/// What the parent finds of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    Offered,
    Begun,
    Revoked,
}

impl Claims {
    /// New memory for a channel, with the words in it, and the descriptor by which its other side maps them.
    pub(crate) fn create() -> io::Result<(Claims, OwnedFd)> {
        let memory = memfd_create("executor-claims", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&memory, MEMORY_BYTES as u64)?;
        // Sealed in size: whatever the other side does, the mapping stays backed by memory.
        fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok((Claims::map(&memory)?, memory))
    }

    /// The other side's view.
    pub(crate) fn map(memory: impl AsFd) -> io::Result<Claims> {
        let length = rustix::fs::fstat(memory.as_fd())?.st_size;
        if length != MEMORY_BYTES as i64 {
            let why = format!("a channel's memory has {length} bytes, not {MEMORY_BYTES}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        // SAFETY: a fresh mapping at an address of the kernel's choice touches nothing that exists.
        let start =
            unsafe { mmap(ptr::null_mut(), BYTES, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, memory, 0)? };
        let words = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("the kernel mapped claims at zero"))?;
        Ok(Claims { words })
    }

    fn words(&self) -> &Words {
        // SAFETY: mapped from `map` until `drop`, page-aligned, of this very size, and sealed against
        // shrinking. Zeroed or not, any bytes are valid atomics, and both processes only touch them
        // atomically.
        unsafe { self.words.as_ref() }
    }

    fn word(&self, ticket: u64) -> &AtomicU64 {
        &self.words().claims[slot(ticket)]
    }

    /// The worker, before it makes the call. `false`: it was revoked.
    pub(crate) fn begin(&self, ticket: u64) -> bool {
        // ORDERING: Relaxed; published by the exchange, and of no meaning where that fails.
        self.words().begun_at[slot(ticket)].store(now().as_nanos() as u64, Ordering::Relaxed);
        let begun = self.claim(ticket, BEGUN);
        if begun {
            // ORDERING: Relaxed; it is told of, and nothing is read on the strength of it.
            self.words().current.store(ticket + 1, Ordering::Relaxed);
        }
        begun
    }

    /// The worker, after it has made the call: how long that took.
    pub(crate) fn end(&self, ticket: u64) -> Duration {
        let (words, now) = (self.words(), now());
        // ORDERING: Relaxed; published by the reply that follows.
        words.ended_at[slot(ticket)].store(now.as_nanos() as u64, Ordering::Relaxed);
        words.current.store(0, Ordering::Relaxed);
        now.saturating_sub(Duration::from_nanos(words.begun_at[slot(ticket)].load(Ordering::Relaxed)))
    }

    /// The parent: the call that the worker makes now, if it says so.
    pub(crate) fn current(&self) -> Option<u64> {
        self.words().current.load(Ordering::Relaxed).checked_sub(1)
    }

    /// The parent: when the call was begun, of one that was.
    pub(crate) fn begun_at(&self, ticket: u64) -> Instant {
        instant_of(self.words().begun_at[slot(ticket)].load(Ordering::Relaxed))
    }

    /// The parent: when the call ended, of one that was answered.
    pub(crate) fn ended_at(&self, ticket: u64) -> Instant {
        instant_of(self.words().ended_at[slot(ticket)].load(Ordering::Relaxed))
    }

    /// How long ago the call was begun, if it was.
    pub(crate) fn runs_for(&self, ticket: u64) -> Option<Duration> {
        if self.get(ticket) != Claim::Begun {
            return None;
        }
        // ORDERING: Relaxed; the load in `get` acquired it.
        let begun_at = self.words().begun_at[slot(ticket)].load(Ordering::Relaxed);
        Some(now().saturating_sub(Duration::from_nanos(begun_at)))
    }

    /// The parent. Does nothing to a call that has not begun, or is over.
    pub(crate) fn ask_to_stop(&self, ticket: u64) {
        // ORDERING: Relaxed; the call looks now and then, and reads nothing on the strength of it.
        let (begun, asked) = (pack(ticket, BEGUN), pack(ticket, ASKED_TO_STOP));
        let _ = self.word(ticket).compare_exchange(begun, asked, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The parent. `false`: the worker has begun. True again for a call that is already revoked.
    pub(crate) fn revoke(&self, ticket: u64) -> bool {
        self.claim(ticket, REVOKED) || self.get(ticket) == Claim::Revoked
    }

    pub(crate) fn get(&self, ticket: u64) -> Claim {
        // ORDERING: Acquire pairs with the exchange's release: after a death, what is read here is
        // the last that the worker did.
        match self.word(ticket).load(Ordering::Acquire) {
            word if word < pack(ticket, BEGUN) => Claim::Offered,
            word if word == pack(ticket, REVOKED) => Claim::Revoked,
            _ => Claim::Begun, // asked to stop or not; or over long ago, and the word serves another call
        }
    }

    /// Decides about a call that is offered. `false`: the other side has decided.
    fn claim(&self, ticket: u64, state: u64) -> bool {
        let word = self.word(ticket);
        // ORDERING: the exchange itself decides who wins; AcqRel so that the loser's next read of the word sees the winner's
        // value. Only the other side's claim of the same ticket can come between.
        let before = word.load(Ordering::Relaxed);
        before < pack(ticket, BEGUN)
            && word.compare_exchange(before, pack(ticket, state), Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

fn slot(ticket: u64) -> usize {
    (ticket % SLOTS as u64) as usize
}

fn pack(ticket: u64, state: u64) -> u64 {
    ticket << 3 | state
}

/// What the clock says that is the same in all processes, and never set back.
fn now() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

/// A time of that clock, as this process's standard library counts. Never one that is still to come, whatever was written.
fn instant_of(nanos: u64) -> Instant {
    static PAIR: OnceLock<(Instant, Duration)> = OnceLock::new();
    // The two are read one after the other; of several pairs that one is nearest to the truth that has the least between them.
    let (instant, reading) = *PAIR.get_or_init(|| {
        let pair = || {
            let (before, reading, after) = (Instant::now(), now(), Instant::now());
            (after - before, (before + (after - before) / 2, reading))
        };
        let pairs = std::iter::repeat_with(pair).take(8);
        pairs.min_by_key(|(between, _)| *between).expect("there are eight").1
    });
    let at = Duration::from_nanos(nanos);
    let moved = match at.checked_sub(reading) {
        Some(later) => instant.checked_add(later),
        None => instant.checked_sub(reading - at),
    };
    let now = Instant::now();
    moved.unwrap_or(now).min(now)
}

/// The worker's side: whether the call that it makes was asked to stop.
impl StopSource for Claims {
    fn is_stopped(&self, ticket: u64) -> bool {
        // ORDERING: Relaxed; the answer may be late, and nothing is read on the strength of it.
        self.word(ticket).load(Ordering::Relaxed) == pack(ticket, ASKED_TO_STOP)
    }
}

impl Drop for Claims {
    fn drop(&mut self) {
        // SAFETY: the mapping that `map` made, of that size; no reference into it outlives `self`.
        // An error would mean that it was never mapped; nothing can be done about it here.
        let _ = unsafe { munmap(self.words.as_ptr().cast(), BYTES) };
    }
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claims").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn a_call_is_begun_or_revoked_never_both() {
        let (parent, memory) = Claims::create().unwrap();
        let worker = Claims::map(&memory).unwrap();
        let mut outcomes = [0, 0];
        for ticket in 0..20_000 {
            assert_eq!(worker.get(ticket), Claim::Offered);
            let (revoked, begun) = thread::scope(|scope| {
                // A thread each is slow; every other round goes without, in both orders.
                if ticket % 100 == 0 {
                    let begun = scope.spawn(|| worker.begin(ticket));
                    (parent.revoke(ticket), begun.join().unwrap())
                } else if ticket % 2 == 0 {
                    (parent.revoke(ticket), worker.begin(ticket))
                } else {
                    let begun = worker.begin(ticket);
                    (parent.revoke(ticket), begun)
                }
            });
            assert_ne!(begun, revoked, "ticket {ticket}");
            outcomes[usize::from(begun)] += 1;
        }
        assert!(outcomes.iter().all(|count| *count > 0), "both were seen: {outcomes:?}");
    }

    #[test]
    fn a_word_that_serves_a_later_call_is_not_mistaken() {
        let (claims, _) = Claims::create().unwrap();
        let (early, late) = (3, 3 + SLOTS as u64);
        assert!(claims.begin(early));
        assert!(!claims.revoke(early));
        assert_eq!(claims.get(early), Claim::Begun);
        assert_eq!(claims.get(late), Claim::Offered);
        assert!(claims.revoke(late));
        assert!(claims.revoke(late), "again");
        assert!(!claims.begin(late));
    }

    #[test]
    fn a_call_that_was_begun_can_be_asked_to_stop_and_no_other() {
        let (parent, memory) = Claims::create().unwrap();
        let worker = Claims::map(&memory).unwrap();
        parent.ask_to_stop(0);
        assert!(!worker.is_stopped(0) && parent.runs_for(0).is_none(), "it has not begun");
        assert!(worker.begin(0));
        assert!(!worker.is_stopped(0) && parent.runs_for(0).is_some());
        parent.ask_to_stop(0);
        assert!(worker.is_stopped(0));
        assert_eq!((parent.get(0), parent.revoke(0)), (Claim::Begun, false));
        assert!(worker.begin(SLOTS as u64) && !worker.is_stopped(SLOTS as u64), "another call in the same word");
        parent.ask_to_stop(0);
        assert!(!worker.is_stopped(SLOTS as u64), "the first one was meant");
    }

    #[test]
    fn both_sides_agree_on_when_a_call_was_made() {
        let (parent, memory) = Claims::create().unwrap();
        let worker = Claims::map(&memory).unwrap();
        assert_eq!(parent.current(), None);
        let before = Instant::now();
        assert!(worker.begin(5));
        assert_eq!(parent.current(), Some(5));
        let took = worker.end(5);
        let after = Instant::now();
        assert_eq!(parent.current(), None);
        let (begun, ended) = (parent.begun_at(5), parent.ended_at(5));
        // The pair of readings from which both are moved may be a little off.
        let slack = Duration::from_millis(5);
        assert!(
            before <= begun + slack && begun <= ended && ended <= after,
            "{before:?} {begun:?} {ended:?} {after:?}"
        );
        assert_eq!(ended - begun, took);
        worker.words().ended_at[5].store(u64::MAX, Ordering::Relaxed);
        assert!(parent.ended_at(5) <= Instant::now(), "a worker's word is not believed");
    }

    #[test]
    fn memory_of_another_size_is_refused() {
        let memory = memfd_create("short", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&memory, BYTES as u64).unwrap();
        assert!(Claims::map(&memory).is_err());
    }
}
