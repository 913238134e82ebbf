//! Memory for task cells and for whom they are to tell: taken from the program's allocator in chunks, given out in the order of the
//! calls, and used again.
//!
//! A cell is made by who submits, and let go of by whoever comes last, often another thread. What a general allocator does then costs
//! more than a short call. Here a thread gives out its own chunk from the front to the end, and counts in its own memory. What comes back
//! is counted only: when nothing is left of a chunk, it is kept for the next one who needs one, up to a [bound](KEPT).
//!
//! Who gives out and who takes back touch nothing in common but the count at the front of a chunk, and that once for many cells. Calls
//! that are submitted one after the other lie side by side, where the processor looks ahead.
//!
//! The price: a single cell keeps its chunk. A program that keeps a future of each hundredth call keeps the memory of them all.
//!
//! In models each cell comes from the allocator, and the checker sees what is used after it was freed.

#![expect(unsafe_code, reason = "memory is given out by hand")]

use std::{
    alloc::{self, Layout},
    cell::Cell,
    ops::{Deref, DerefMut},
    ptr::NonNull,
    sync::atomic::{AtomicUsize, Ordering, fence},
};

use crate::sync::{IS_MODELLED, Mutex};

/// What is taken from the allocator at a time.
const CHUNK: Layout = match Layout::from_size_align(16 * 1024, align_of::<Chunk>()) {
    Ok(layout) => layout,
    Err(_) => panic!("a power of two"),
};

/// How many empty chunks are kept for use again: 4 MiB.
const KEPT: usize = 256;

/// What each cell's place is a multiple of.
const LINE: usize = 64;

/// Where the first cell lies: apart from the count, which others write.
const FIRST: usize = size_of::<Chunk>();

/// Counted in the place of what its thread is still to give out of a chunk. More than there is room for.
const OPEN: usize = usize::MAX / 2;

/// The front of a chunk.
#[repr(align(128))]
struct Chunk {
    /// How many cells are left; of a chunk that is open, [`OPEN`] less those that others than its thread have given back.
    left: AtomicUsize,
}

/// Where a cell's memory comes from, and goes to.
#[derive(Clone, Copy)]
pub(crate) struct Origin(Option<NonNull<Chunk>>);

/// What one thread has at hand.
struct Local {
    /// From which it gives out.
    open: Cell<Option<NonNull<Chunk>>>,
    /// Where in that the next cell is to lie.
    next: Cell<usize>,
    /// How many it has given out of it, less those that it took back.
    given: Cell<usize>,
    /// Another chunk, and how many of its cells this thread has taken back and not told yet.
    returning: Cell<Option<NonNull<Chunk>>>,
    returned: Cell<usize>,
}

thread_local! {
    static LOCAL: Local = const {
        Local {
            open: Cell::new(None),
            next: Cell::new(CHUNK.size()),
            given: Cell::new(0),
            returning: Cell::new(None),
            returned: Cell::new(0),
        }
    };
}

/// Memory for a cell of that layout.
#[inline]
pub(crate) fn allocate(layout: Layout) -> (NonNull<u8>, Origin) {
    let fits = layout.align() <= LINE && layout.size() <= CHUNK.size() / 16 && !IS_MODELLED;
    // A thread that is being taken down has nothing at hand any more.
    let allocated = fits.then(|| LOCAL.try_with(|local| local.allocate(layout.size())));
    match allocated {
        Some(Ok((place, chunk))) => (place, Origin(Some(chunk))),
        _ => (from_allocator(layout), Origin(None)),
    }
}

fn from_allocator(layout: Layout) -> NonNull<u8> {
    assert!(layout.size() > 0, "a cell is never empty");
    // SAFETY: the layout is not empty.
    NonNull::new(unsafe { alloc::alloc(layout) }).unwrap_or_else(|| alloc::handle_alloc_error(layout))
}

/// Takes back what [`allocate`] gave.
///
/// # Safety
/// The three belong together, and nobody will use the memory again.
#[inline]
pub(crate) unsafe fn give_back(place: NonNull<u8>, layout: Layout, origin: Origin) {
    match origin.0 {
        // SAFETY: by this function's contract it was allocated with this layout, and is used no more.
        None => unsafe { alloc::dealloc(place.as_ptr(), layout) },
        Some(chunk) => {
            if LOCAL.try_with(|local| local.give_back(chunk)).is_err() {
                subtract(chunk, 1);
            }
        }
    }
}

/// A value in such memory, as in a box.
pub(crate) struct Placed<T>(NonNull<Lot<T>>);

struct Lot<T> {
    value: T,
    origin: Origin,
}

// SAFETY: it owns its value, as a box does.
unsafe impl<T: Send> Send for Placed<T> {}

impl<T> Placed<T> {
    pub(crate) fn new(value: T) -> Self {
        let (place, origin) = allocate(Layout::new::<Lot<T>>());
        let lot = place.cast::<Lot<T>>();
        // SAFETY: it has that layout, and is nobody else's.
        unsafe { lot.write(Lot { value, origin }) };
        Placed(lot)
    }
}

impl<T> Deref for Placed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: written in `new`, and there until it is dropped.
        unsafe { &self.0.as_ref().value }
    }
}

impl<T> DerefMut for Placed<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and exclusively borrowed.
        unsafe { &mut self.0.as_mut().value }
    }
}

impl<T> Drop for Placed<T> {
    fn drop(&mut self) {
        // SAFETY: written in `new`, and read out only here.
        let Lot { value, origin } = unsafe { self.0.read() };
        // SAFETY: allocated with this layout in `new`, and nothing is in it any more.
        unsafe { give_back(self.0.cast(), Layout::new::<Lot<T>>(), origin) };
        drop(value);
    }
}

impl Local {
    #[inline]
    fn allocate(&self, size: usize) -> (NonNull<u8>, NonNull<Chunk>) {
        let size = size.next_multiple_of(LINE);
        if CHUNK.size() - self.next.get() < size {
            self.open_another();
        }
        let (next, chunk) = (self.next.get(), self.open.get().expect("there is room in it"));
        self.next.set(next + size);
        self.given.set(self.given.get() + 1);
        // SAFETY: within the chunk, by the comparison above, and of a new one also since cells that are larger were sent elsewhere.
        (unsafe { chunk.cast::<u8>().add(next) }, chunk)
    }

    #[cold]
    fn open_another(&self) {
        self.close();
        let chunk = EMPTY.lock().pop().map_or_else(|| from_allocator(CHUNK).cast(), |Empty(chunk)| chunk);
        // SAFETY: it is of that size and alignment, and nobody else has it: it is new, or nothing was left of it.
        unsafe { chunk.write(Chunk { left: AtomicUsize::new(OPEN) }) };
        self.open.set(Some(chunk));
        self.next.set(FIRST);
        self.given.set(0);
    }

    /// Gives nothing more out of the open chunk.
    fn close(&self) {
        if let Some(chunk) = self.open.take() {
            subtract(chunk, OPEN - self.given.get());
        }
    }

    #[inline]
    fn give_back(&self, chunk: NonNull<Chunk>) {
        if self.open.get() == Some(chunk) {
            self.given.set(self.given.get() - 1);
            if self.given.get() == 0 {
                self.next.set(FIRST); // this thread took all of them back: they can be given out again
            }
        } else if self.returning.get() == Some(chunk) {
            self.returned.set(self.returned.get() + 1);
        } else {
            self.tell();
            self.returning.set(Some(chunk));
            self.returned.set(1);
        }
    }

    /// Tells what was taken back.
    fn tell(&self) {
        if let Some(chunk) = self.returning.take() {
            subtract(chunk, self.returned.get());
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.close();
        self.tell();
    }
}

/// So many cells of a chunk are there no more, or will never be.
fn subtract(chunk: NonNull<Chunk>, cells: usize) {
    // SAFETY: those cells are still counted, so the chunk is there.
    let left = unsafe { &chunk.as_ref().left };
    // ORDERING: Release and, for the last, Acquire: whoever uses the chunk again does so after all that used its cells.
    if left.fetch_sub(cells, Ordering::Release) == cells {
        fence(Ordering::Acquire);
        let mut empty = EMPTY.lock();
        if empty.len() < KEPT {
            return empty.push(Empty(chunk));
        }
        drop(empty);
        // SAFETY: made with this layout in `open_another`, and nothing is left of it.
        unsafe { alloc::dealloc(chunk.as_ptr().cast(), CHUNK) };
    }
}

/// A chunk of which nothing is left.
struct Empty(NonNull<Chunk>);

// SAFETY: it is plain memory, which whoever has this has to himself.
unsafe impl Send for Empty {}

/// What is kept, the last to come at the end: of that the most is still in some processor's cache.
static EMPTY: Mutex<Vec<Empty>> = Mutex::new(Vec::new());

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        collections::HashSet,
        sync::{Arc, mpsc},
        thread,
    };

    const CELL: Layout = Layout::new::<[u64; 15]>();

    /// One that is written all over.
    struct Filled(NonNull<u8>, Origin, u8);

    // SAFETY: plain memory that has one owner.
    unsafe impl Send for Filled {}

    impl Filled {
        fn new(layout: Layout, with: u8) -> Filled {
            let (place, origin) = allocate(layout);
            assert_eq!(place.addr().get() % layout.align(), 0);
            // SAFETY: it has that size, and is ours.
            unsafe { place.write_bytes(with, layout.size()) };
            Filled(place, origin, with)
        }

        fn give_back(self, layout: Layout) {
            let Filled(place, origin, with) = self;
            // SAFETY: written by `new`.
            let bytes = unsafe { std::slice::from_raw_parts(place.as_ptr(), layout.size()) };
            assert!(bytes.iter().all(|byte| *byte == with), "nobody else has written there");
            // SAFETY: from `allocate`, with this layout.
            unsafe { give_back(place, layout, origin) };
        }
    }

    #[test]
    fn what_is_given_out_is_nobody_elses() {
        let (send, receive) = mpsc::channel::<Filled>();
        let other = thread::spawn(move || receive.into_iter().for_each(|filled| filled.give_back(CELL)));
        let mut own = Vec::new();
        for turn in 0..20_000_u32 {
            let filled = Filled::new(CELL, turn as u8);
            if turn % 3 == 0 {
                own.push(filled)
            } else {
                send.send(filled).unwrap()
            }
            if own.len() > 500 {
                own.drain(..400).for_each(|filled| filled.give_back(CELL));
            }
        }
        own.into_iter().for_each(|filled| filled.give_back(CELL));
        drop(send);
        other.join().unwrap();
    }

    #[test]
    fn memory_is_used_again_whoever_gave_it_back() {
        let in_a_thread = |cells: Vec<Filled>| {
            thread::spawn(|| cells.into_iter().for_each(|filled| filled.give_back(CELL))).join().unwrap();
        };
        let mut places = HashSet::new();
        for _ in 0..100 {
            let cells: Vec<_> = (0..1000).map(|_| Filled::new(CELL, 1)).collect();
            places.extend(cells.iter().map(|filled| filled.0));
            in_a_thread(cells);
        }
        // Other tests have chunks as well, for a while.
        assert!(places.len() < 50_000, "{} places for a thousand cells at a time", places.len());
    }

    #[test]
    fn who_takes_all_back_begins_again_at_the_front() {
        thread::spawn(|| {
            let first = Filled::new(CELL, 1);
            let place = first.0;
            first.give_back(CELL);
            for _ in 0..1000 {
                let again = Filled::new(CELL, 2);
                assert_eq!(again.0, place);
                again.give_back(CELL);
            }
        })
        .join()
        .unwrap();
    }

    #[test]
    fn what_does_not_fit_comes_from_the_allocator() {
        for layout in [Layout::new::<[u64; 200]>(), Layout::from_size_align(64, 4096).unwrap()] {
            let filled = Filled::new(layout, 7);
            assert!(filled.1.0.is_none());
            filled.give_back(layout);
        }
    }

    #[test]
    fn what_is_placed_is_dropped_once() {
        let counted = Arc::new(());
        let mut placed: Vec<_> = (0..1000).map(|number| Placed::new((number, Arc::clone(&counted)))).collect();
        placed.iter_mut().for_each(|placed| (**placed).0 += 1);
        assert!(placed.iter().enumerate().all(|(place, placed)| (**placed).0 == place + 1));
        assert_eq!(Arc::strong_count(&counted), 1001);
        thread::spawn(move || drop(placed)).join().unwrap();
        assert_eq!(Arc::strong_count(&counted), 1);
    }

    #[test]
    fn no_more_than_the_bound_is_kept() {
        let cells: Vec<_> = (0..2 * KEPT * CHUNK.size() / 128).map(|_| Filled::new(CELL, 3)).collect();
        cells.into_iter().for_each(|filled| filled.give_back(CELL));
        assert!(EMPTY.lock().len() <= KEPT);
    }
}
