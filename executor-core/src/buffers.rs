//! Large buffers for what arrives. To touch fresh memory for the first time costs more than to copy what comes: the kernel clears it,
//! a page at a time. So a buffer that has been read or sent is kept by its thread for what arrives next, where an allocator
//! would give its memory back; and what is larger than that has large pages, if the system has them.

#![expect(unsafe_code, reason = "the kernel is advised on memory")]

use rustix::mm::{Advice, madvise};
use std::{cell::Cell, ops::RangeInclusive};

/// Of a buffer that is kept: more than allocators keep by themselves, and not so much that somebody would miss it.
const KEPT_BYTES: RangeInclusive<usize> = 64 << 10..=4 << 20;

/// From here on a buffer has room for several large pages.
const HUGE_BYTES: usize = 8 << 20;

const PAGE_BYTES: usize = 4096;

thread_local! {
    static KEPT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// An empty buffer with room for so many bytes, or none if there is no memory.
#[must_use]
pub fn with_room(length: usize) -> Option<Vec<u8>> {
    let kept = KEPT.take();
    // Whoever is given the bytes may hold them for long, and the rest of the buffer with them.
    if kept.capacity() >= length && kept.capacity() / 2 <= length {
        return Some(kept);
    }
    KEPT.set(kept);
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(length).ok()?;
    want_large_pages(buffer.spare_capacity_mut());
    Some(buffer)
}

/// Keeps a buffer with which this thread is done, in place of the one that was kept before.
pub fn keep(mut buffer: Vec<u8>) {
    if KEPT_BYTES.contains(&buffer.capacity()) {
        buffer.clear();
        // At its thread's end nothing is kept.
        let _ = KEPT.try_with(|kept| kept.set(buffer));
    }
}

/// Gives back what this thread keeps.
pub fn let_go() {
    KEPT.take();
}

/// Of memory that nobody has touched yet, and somebody will touch all of.
pub(crate) fn want_large_pages<T>(memory: &mut [T]) {
    let length = size_of_val(memory);
    if length < HUGE_BYTES {
        return;
    }
    let start = memory.as_mut_ptr().cast::<u8>();
    let skipped = start.align_offset(PAGE_BYTES);
    let length = (length - skipped) & !(PAGE_BYTES - 1);
    // SAFETY: less than a page into memory of many.
    let start = unsafe { start.add(skipped) };
    // SAFETY: whole pages within memory that is borrowed exclusively. The advice changes no contents, only by how much at a time
    // the kernel provides memory. An error means that there are no large pages.
    let _ = unsafe { madvise(start.cast(), length, Advice::LinuxHugepage) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_used_again_once() {
        let buffer = vec![1_u8; 1 << 20];
        let start = buffer.as_ptr();
        keep(buffer);
        keep(vec![2; 100]);
        keep(vec![3; 5 << 20]);
        let others = [(1 << 20) + 1, (1 << 19) - 1, 100].map(|length| with_room(length).unwrap());
        assert!(others.iter().all(|other| other.as_ptr() != start));
        let [again, another] = [1 << 19, 1 << 19].map(|length| with_room(length).unwrap());
        assert!(again.as_ptr() == start && again.is_empty() && another.as_ptr() != start);
        keep(again);
        let_go();
        assert_eq!(KEPT.take().capacity(), 0);
        assert!(with_room(usize::MAX).is_none());
    }

    #[test]
    fn large_pages_change_nothing() {
        let mut list: Vec<u64> = (0..HUGE_BYTES as u64).collect();
        want_large_pages(&mut list[1..]);
        assert!(list.iter().copied().eq(0..HUGE_BYTES as u64));
        let mut buffer = with_room(HUGE_BYTES + 1).unwrap();
        buffer.resize(HUGE_BYTES + 1, 7);
        assert!(buffer.iter().all(|byte| *byte == 7));
    }
}
