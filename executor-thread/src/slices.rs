//! The same call for each item of a slice, on all workers: borrowed, inlined, and divided only as somebody is there to take a part.
//!
//! # How it is divided
//! A thread works through its part in small blocks. Before each it looks whether anything is left that others could take from it; if
//! not, because somebody did, or at the beginning, it offers the second half of what is left by a [`join`](ThreadPoolExecutor::join). So
//! where nobody takes anything there are a few joins in all, and where many do, parts become as small as they need
//! ("lazy binary splitting": Tzannes, Caragea, Barua, Vishkin 2010). A block is as many items as take about ten microseconds, by the
//! clock, which is read once a block. So neither the number of items nor their cost has to be known, and costs may differ.

#![expect(unsafe_code, reason = "results are written to where they will lie")]

use std::{
    marker::PhantomData,
    mem::{self, MaybeUninit},
    ptr,
    time::{Duration, Instant},
};

use crate::pool::ThreadPoolExecutor;

/// A block that took less becomes larger.
const SHORT: Duration = Duration::from_micros(5);

/// A block that took more becomes smaller.
const LONG: Duration = Duration::from_micros(20);

impl ThreadPoolExecutor {
    /// Calls `call` on every item, in parallel, and gives the results in the order of the items.
    ///
    /// The items are borrowed, and the closure may borrow as well: nothing is encoded, boxed or queued. The calls are part of the call
    /// that this thread makes. (`map`, which every executor has, takes items from any iterator, and goes on after a failed one.)
    ///
    /// # Panics
    /// If `call` panics, with what it panicked with, after all threads have left the items. Results that were there are dropped.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ThreadPoolExecutor;
    ///
    /// let pool = ThreadPoolExecutor::new(2)?;
    /// let (words, suffix) = (["one", "two", "three"], String::from("!"));
    /// let louder = pool.map_slice(&words, |word| word.to_uppercase() + &suffix);
    /// assert_eq!(louder, ["ONE!", "TWO!", "THREE!"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn map_slice<T: Sync, R: Send>(&self, items: &[T], call: impl Fn(&T) -> R + Sync) -> Vec<R> {
        let mut results = Vec::new();
        self.map_into(items, &mut results, call);
        results
    }

    /// As [`map_slice`](Self::map_slice), into a vector whose memory is used again. What was in it is dropped.
    ///
    /// # Panics
    /// As there; the vector is then empty.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ThreadPoolExecutor;
    ///
    /// let pool = ThreadPoolExecutor::new(2)?;
    /// let mut squares = Vec::new();
    /// for numbers in [[1, 2, 3], [4, 5, 6]] {
    ///     pool.map_into(&numbers, &mut squares, |x| x * x);
    /// }
    /// assert_eq!(squares, [16, 25, 36]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn map_into<T: Sync, R: Send>(&self, items: &[T], results: &mut Vec<R>, call: impl Fn(&T) -> R + Sync) {
        results.clear();
        results.reserve(items.len());
        let slots = Slots::of(results);
        let slots = self.drive(Mapped { items, slots, call: &call }, 1, &Slots::unite);
        assert_eq!(slots.filled, items.len(), "every part was filled");
        mem::forget(slots); // the vector has what is in them
        // SAFETY: as many slots from the vector's first one on are filled, as was asserted, and it has room for them.
        unsafe { results.set_len(items.len()) };
    }

    /// Calls `call` on every item, in parallel, to change it where it is.
    ///
    /// # Panics
    /// If `call` panics, with what it panicked with, after all threads have left the items. Which of the others were changed
    /// is not said.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ThreadPoolExecutor;
    ///
    /// let pool = ThreadPoolExecutor::new(2)?;
    /// let mut numbers = [1, 2, 3];
    /// pool.for_each(&mut numbers, |x| *x += 10);
    /// assert_eq!(numbers, [11, 12, 13]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn for_each<T: Send>(&self, items: &mut [T], call: impl Fn(&mut T) + Sync) {
        self.drive(Each { items, call: &call }, 1, &|(), ()| ());
    }

    /// Folds all items into one value, in parallel: runs of items by `fold`, each from an `identity`, and what these gave by
    /// `combine`, in the order of the items.
    ///
    /// How many runs there are differs from time to time, so the result is certain only if `combine` is associative, and
    /// combining with an identity changes nothing.
    ///
    /// # Panics
    /// If one of the closures panics, with what it panicked with, after all threads have left the items.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::ThreadPoolExecutor;
    ///
    /// let pool = ThreadPoolExecutor::new(2)?;
    /// let words = ["one", "two", "three"];
    /// let longest = pool.reduce(&words, || 0, |longest, word| longest.max(word.len()), usize::max);
    /// assert_eq!(longest, 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reduce<T: Sync, R: Send>(
        &self,
        items: &[T],
        identity: impl Fn() -> R + Sync,
        fold: impl Fn(R, &T) -> R + Sync,
        combine: impl Fn(R, R) -> R + Sync,
    ) -> R {
        let part = Folded { items, value: identity(), identity: &identity, fold: &fold };
        self.drive(part, 1, &combine)
    }

    fn drive<P: Part>(
        &self,
        mut part: P,
        mut block: usize,
        unite: &(impl Fn(P::Done, P::Done) -> P::Done + Sync),
    ) -> P::Done {
        let mut began = Instant::now();
        loop {
            let left = part.len();
            if left == 0 {
                return part.done();
            }
            if left > 1 && left > block / 2 && self.offers_nothing() {
                let (before, first, second) = part.divide();
                let (first, second) =
                    self.join(|| self.drive(first, block, unite), || self.drive(second, block, unite));
                return unite(unite(before, first), second);
            }
            part = part.advance(block.min(left));
            let now = Instant::now();
            let took = now.duration_since(began);
            began = now;
            if took < SHORT {
                block = block.saturating_mul(2);
            } else if took > LONG {
                block = (block / 2).max(1);
            }
        }
    }
}

/// Items that are still to be done, and what came of those before them.
trait Part: Sized + Send {
    type Done: Send;

    fn len(&self) -> usize;
    /// Does so many.
    fn advance(self, items: usize) -> Self;
    /// What is done, and the halves of the rest.
    fn divide(self) -> (Self::Done, Self, Self);
    fn done(self) -> Self::Done;
}

struct Mapped<'a, T, R, F> {
    items: &'a [T],
    slots: Slots<R>,
    call: &'a F,
}

impl<T: Sync, R: Send, F: Fn(&T) -> R + Sync> Part for Mapped<'_, T, R, F> {
    type Done = Slots<R>;

    fn len(&self) -> usize {
        self.items.len()
    }

    fn advance(mut self, items: usize) -> Self {
        let (now, later) = self.items.split_at(items);
        self.slots.fill(now, self.call);
        self.items = later;
        self
    }

    fn divide(self) -> (Slots<R>, Self, Self) {
        let half = self.items.len() / 2;
        let (first, second) = self.items.split_at(half);
        let (done, rest) = self.slots.divide_at_filled();
        let (first_slots, second_slots) = rest.divide_empty(half);
        let part = |items, slots| Mapped { items, slots, call: self.call };
        (done, part(first, first_slots), part(second, second_slots))
    }

    fn done(self) -> Slots<R> {
        self.slots
    }
}

/// A run of places for results in a vector's spare memory, which nobody else has. The first ones are filled, and dropped with this.
struct Slots<R> {
    start: *mut MaybeUninit<R>,
    filled: usize,
    owned: PhantomData<R>,
}

// SAFETY: it owns the results in it, and is the only one to touch the places from its start on up to where its part ends.
unsafe impl<R: Send> Send for Slots<R> {}

impl<R> Slots<R> {
    /// The first places of an empty vector. The caller keeps it, untouched, until they are done with.
    fn of(vector: &mut Vec<R>) -> Self {
        Slots { start: vector.spare_capacity_mut().as_mut_ptr(), filled: 0, owned: PhantomData }
    }

    /// One result for each item. There are at least as many places left as items in the whole part.
    fn fill<T>(&mut self, items: &[T], call: &impl Fn(&T) -> R) {
        for item in items {
            let result = call(item);
            // SAFETY: a part has a place for each of its items, and those that are filled are as many as items were done.
            let place = unsafe { self.start.add(self.filled) };
            // SAFETY: in the vector's spare memory, and this part's own.
            unsafe { place.write(MaybeUninit::new(result)) };
            self.filled += 1;
        }
    }

    /// Those that are filled, and those after them.
    fn divide_at_filled(self) -> (Self, Self) {
        // SAFETY: a part has at least as many places as are filled, so this is inside, or just behind, the vector's memory.
        let rest = unsafe { self.start.add(self.filled) };
        (self, Slots { start: rest, filled: 0, owned: PhantomData })
    }

    /// Two runs, of which the first has so many places. Nothing is filled yet.
    fn divide_empty(self, places: usize) -> (Self, Self) {
        debug_assert_eq!(self.filled, 0, "what is filled would be in the first run only");
        // SAFETY: half of a part's items have no more places than the part has.
        let second = unsafe { self.start.add(places) };
        (self, Slots { start: second, filled: 0, owned: PhantomData })
    }

    /// Runs of which the second begins where the first one ends, both filled.
    fn unite(self, after: Self) -> Self {
        // SAFETY: inside, or just behind, the vector's memory, as all that is filled.
        let end = unsafe { self.start.add(self.filled) };
        assert!(ptr::eq(end, after.start) || size_of::<R>() == 0, "results are united in their order");
        let filled = self.filled + after.filled;
        let start = self.start;
        mem::forget((self, after)); // what is in them is in the new one
        Slots { start, filled, owned: PhantomData }
    }
}

impl<R> Drop for Slots<R> {
    fn drop(&mut self) {
        let filled = ptr::slice_from_raw_parts_mut(self.start.cast::<R>(), self.filled);
        // SAFETY: so many are filled, and nobody else has them.
        unsafe { filled.drop_in_place() };
    }
}

struct Each<'a, T, F> {
    items: &'a mut [T],
    call: &'a F,
}

impl<T: Send, F: Fn(&mut T) + Sync> Part for Each<'_, T, F> {
    type Done = ();

    fn len(&self) -> usize {
        self.items.len()
    }

    fn advance(self, items: usize) -> Self {
        let (now, later) = self.items.split_at_mut(items);
        now.iter_mut().for_each(self.call);
        Each { items: later, ..self }
    }

    fn divide(self) -> ((), Self, Self) {
        let (first, second) = self.items.split_at_mut(self.items.len() / 2);
        ((), Each { items: first, call: self.call }, Each { items: second, call: self.call })
    }

    fn done(self) {}
}

struct Folded<'a, T, R, I, F> {
    items: &'a [T],
    value: R,
    identity: &'a I,
    fold: &'a F,
}

impl<T: Sync, R: Send, I: Fn() -> R + Sync, F: Fn(R, &T) -> R + Sync> Part for Folded<'_, T, R, I, F> {
    type Done = R;

    fn len(&self) -> usize {
        self.items.len()
    }

    fn advance(self, items: usize) -> Self {
        let (now, later) = self.items.split_at(items);
        Folded { value: now.iter().fold(self.value, self.fold), items: later, ..self }
    }

    fn divide(self) -> (R, Self, Self) {
        let (first, second) = self.items.split_at(self.items.len() / 2);
        let part = |items| Folded { items, value: (self.identity)(), identity: self.identity, fold: self.fold };
        (self.value, part(first), part(second))
    }

    fn done(self) -> R {
        self.value
    }
}
