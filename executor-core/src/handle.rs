//! Counted pointers to task cells, one word each whatever the types of the call are.
//!
//! A handle is to a cell what an `Arc` is to its value. It is our own because an `Arc` chooses its memory by itself, which is what a
//! short call costs most (see `arena.rs`); and because a queue of thin pointers is half as long.
//!
//! Each cell begins with a [`Head`]: the count, and a [`Kind`], which knows the cell's types and gives either end's view of it.

#![expect(unsafe_code, reason = "cells are counted by hand")]

use std::{
    alloc::Layout,
    marker::PhantomData,
    ops::Deref,
    process,
    ptr::{self, NonNull},
};

use crate::{
    arena::{self, Origin},
    cell::{Cell, Readable, Runnable},
    header::Header,
    panic::drop_quietly,
    sync::atomic::{AtomicUsize, Ordering, fence},
    work::Work,
};

/// With what each cell begins.
pub(crate) struct Head {
    handles: AtomicUsize,
    /// The front of a `Kind<R>`, for the cell's own `R`.
    kind: NonNull<AnyKind>,
    origin: Origin,
    pub(crate) header: Header,
}

/// What can be done with a cell by who does not know its types.
struct AnyKind {
    runnable: fn(NonNull<Head>) -> NonNull<dyn Runnable>,
    free: unsafe fn(NonNull<Head>),
}

/// The same, by who knows the type of its output.
#[repr(C)]
struct Kind<R> {
    any: AnyKind,
    readable: fn(NonNull<Head>) -> NonNull<dyn Readable<R>>,
}

/// A share in a cell.
pub(crate) struct Handle(NonNull<Head>);

// SAFETY: cells are `Send` and `Sync` (see `Cell`), and are counted atomically.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

/// The end of a cell that gives an `R`.
pub(crate) struct ReadHandle<R> {
    handle: Handle,
    /// It reads, and may drop, an `R`.
    output: PhantomData<Box<dyn Readable<R>>>,
}

/// A handle of a cell whose types are known.
pub(crate) struct CellHandle<W: Work> {
    handle: Handle,
    cell: PhantomData<Box<Cell<W>>>,
}

/// Counts beyond this are somebody's mistake, and would come round to zero.
const TOO_MANY: usize = isize::MAX as usize;

impl<W: Work> CellHandle<W> {
    const KIND: Kind<W::Output> = Kind {
        any: AnyKind { runnable: |head| head.cast::<Cell<W>>(), free: free::<W> },
        readable: |head| head.cast::<Cell<W>>(),
    };

    /// A new cell, made around its head: both of its ends.
    #[inline]
    pub(crate) fn ends_of_new(header: Header, cell: impl FnOnce(Head) -> Cell<W>) -> (Handle, ReadHandle<W::Output>) {
        let kind: &'static Kind<W::Output> = const { &Self::KIND };
        let (place, origin) = arena::allocate(Layout::new::<Cell<W>>());
        let place = place.cast::<Cell<W>>();
        let cell = cell(Head { handles: AtomicUsize::new(2), kind: NonNull::from(kind).cast(), origin, header });
        // SAFETY: it has the cell's layout, and is nobody else's.
        unsafe { place.write(cell) };
        let [backend, reader] = [(); 2].map(|()| Handle(place.cast()));
        (backend, ReadHandle { handle: reader, output: PhantomData })
    }

    /// Another handle of this cell.
    pub(crate) fn of(cell: &Cell<W>) -> Self {
        // All of a cell is in an `UnsafeCell`: the pointer may do what the one to its memory may.
        let handle = Handle(NonNull::from(cell).cast());
        handle.count_one_more();
        CellHandle { handle, cell: PhantomData }
    }

    pub(crate) fn into_handle(self) -> Handle {
        self.handle
    }

    pub(crate) fn into_read_handle(self) -> ReadHandle<W::Output> {
        ReadHandle { handle: self.handle, output: PhantomData }
    }
}

impl<W: Work> Deref for CellHandle<W> {
    type Target = Cell<W>;

    fn deref(&self) -> &Cell<W> {
        // SAFETY: it was made from such a cell, which is there for as long as there are handles.
        unsafe { self.handle.0.cast().as_ref() }
    }
}

impl<R> ReadHandle<R> {
    #[inline]
    pub(crate) fn header(&self) -> &Header {
        self.handle.header()
    }
}

impl<R> Deref for ReadHandle<R> {
    type Target = dyn Readable<R>;

    #[inline]
    fn deref(&self) -> &(dyn Readable<R> + 'static) {
        // SAFETY: the cell gives an `R`, so its kind is a constant `Kind<R>`, of which the pointer is to the first field.
        let kind: &Kind<R> = unsafe { self.handle.head().kind.cast().as_ref() };
        // SAFETY: what a kind makes of the head of its own cell is that cell, which is there for as long as there are handles.
        unsafe { (kind.readable)(self.handle.0).as_ref() }
    }
}

impl Deref for Handle {
    type Target = dyn Runnable;

    #[inline]
    fn deref(&self) -> &(dyn Runnable + 'static) {
        // SAFETY: what a kind makes of the head of its own cell is that cell, which is there for as long as there are handles.
        unsafe { (self.head().kind().runnable)(self.0).as_ref() }
    }
}

impl Head {
    #[inline]
    fn kind(&self) -> &'static AnyKind {
        // SAFETY: it was made of a reference to a constant.
        unsafe { self.kind.as_ref() }
    }
}

impl Handle {
    #[inline]
    fn head(&self) -> &Head {
        // SAFETY: each cell begins with its head, and is there for as long as there are handles.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    pub(crate) fn header(&self) -> &Header {
        &self.head().header
    }

    #[inline]
    fn count_one_more(&self) {
        // ORDERING: Relaxed; whoever has the new handle has it from one that has a handle.
        if self.head().handles.fetch_add(1, Ordering::Relaxed) > TOO_MANY {
            process::abort();
        }
    }

    /// Whether this was the last one, of which the cell is then to be freed.
    #[inline]
    fn uncount(&self) -> bool {
        let handles = &self.head().handles;
        // ORDERING: Release, and Acquire for the last one: it frees the cell after all that others did with it. If this is the
        // only one already, nobody can make another one, and nothing needs to be written.
        if handles.load(Ordering::Acquire) == 1 {
            return true;
        }
        if handles.fetch_sub(1, Ordering::Release) != 1 {
            return false;
        }
        fence(Ordering::Acquire);
        true
    }

    /// Lets go of it. If the cell goes with it, and a panic comes from what lies in it, that goes no further.
    #[inline]
    pub(crate) fn drop_quietly(self) {
        /// The last one.
        struct Last(NonNull<Head>);
        impl Drop for Last {
            fn drop(&mut self) {
                // SAFETY: it was the last handle.
                unsafe { free_by_kind(self.0) }
            }
        }
        if self.uncount() {
            drop_quietly(Last(self.0));
        }
        std::mem::forget(self);
    }
}

impl Clone for Handle {
    #[inline]
    fn clone(&self) -> Self {
        self.count_one_more();
        Handle(self.0)
    }
}

impl Drop for Handle {
    #[inline]
    fn drop(&mut self) {
        if self.uncount() {
            // SAFETY: it was the last handle.
            unsafe { free_by_kind(self.0) }
        }
    }
}

/// # Safety
/// There is no handle any more.
unsafe fn free_by_kind(head: NonNull<Head>) {
    // SAFETY: nobody has freed it: there was a handle until now.
    let kind = unsafe { head.as_ref() }.kind();
    // SAFETY: a cell's kind knows its type, and by this function's contract there is no handle.
    unsafe { (kind.free)(head) }
}

/// # Safety
/// It is the head of a cell of this type, of which there is no handle any more.
unsafe fn free<W: Work>(head: NonNull<Head>) {
    /// Gives the memory back, also if what is dropped before panics.
    struct Memory<W: Work>(NonNull<Cell<W>>, Origin);
    impl<W: Work> Drop for Memory<W> {
        fn drop(&mut self) {
            // SAFETY: allocated with this layout in `ends_of_new`, and what was in it has been dropped.
            unsafe { arena::give_back(self.0.cast(), Layout::new::<Cell<W>>(), self.1) }
        }
    }
    let cell = head.cast::<Cell<W>>();
    // SAFETY: the cell is still whole.
    let _memory = Memory(cell, unsafe { head.as_ref() }.origin);
    // SAFETY: by this function's contract it is nobody else's.
    unsafe { ptr::drop_in_place(cell.as_ptr()) }
}
