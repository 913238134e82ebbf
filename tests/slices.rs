//! The same call for each item of a slice.

use concurrent_futures::{Executor, ThreadPoolExecutor};
use proptest::prelude::*;
use std::{
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Barrier, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

static POOL: LazyLock<Arc<ThreadPoolExecutor>> = LazyLock::new(|| Arc::new(ThreadPoolExecutor::new(3).unwrap()));

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is divided where: the results are those of a loop, in its order.
    #[test]
    fn slices_are_done_as_by_a_loop(items in prop::collection::vec(0_u32..200, 0..300), inside: bool) {
        let all = {
            let items = items.clone();
            move |pool: &ThreadPoolExecutor| {
                // What takes long is divided in the middle of things.
                let slow = |x: &u32| (0..*x * 20).fold(u64::from(*x), |sum, step| std::hint::black_box(sum + u64::from(step)));
                let mapped = pool.map_slice(&items, |x| slow(x).to_string());
                let mut changed = items.clone();
                pool.for_each(&mut changed, |x| *x = x.wrapping_mul(slow(x) as u32));
                let listed = pool.reduce(&items, Vec::new, |mut list, x| { list.push(slow(x)); list }, |a, b| [a, b].concat());
                let expected: Vec<u64> = items.iter().map(slow).collect();
                assert_eq!(mapped, expected.iter().map(u64::to_string).collect::<Vec<_>>());
                assert_eq!(changed, items.iter().zip(&expected).map(|(x, y)| x.wrapping_mul(*y as u32)).collect::<Vec<_>>());
                assert_eq!(listed, expected);
            }
        };
        if inside {
            let pool = Arc::clone(&POOL);
            POOL.spawn(move || all(&pool)).result().unwrap();
        } else {
            all(&POOL);
        }
    }
}

/// As many items are in work at a time as there are threads, however few and heavy they are.
#[test]
fn few_items_are_shared_out() {
    let pool = Arc::new(ThreadPoolExecutor::new(3).unwrap());
    let inner = Arc::clone(&pool);
    let threads = pool.spawn(move || {
        let meeting = Barrier::new(3);
        inner.map_slice(&[(); 3], |()| (meeting.wait(), thread::current().id()).1)
    });
    let mut threads = threads.result().unwrap();
    threads.dedup();
    assert_eq!(threads.len(), 3);
}

/// Nothing is lost, and nothing dropped twice, when an item panics: neither results before it nor those beside it.
#[test]
fn a_panic_drops_the_results_that_were_there() {
    struct Counted<'a>(&'a AtomicUsize);
    impl Drop for Counted<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let items: Vec<usize> = (0..500).collect();
    let (made, dropped) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let mut results = Vec::new();
    let caught = panic::catch_unwind(AssertUnwindSafe(|| {
        POOL.map_into(&items, &mut results, |item| {
            if *item == 321 {
                panic::resume_unwind(Box::new(*item));
            }
            made.fetch_add(1, Ordering::SeqCst);
            Counted(&dropped)
        });
    }));
    assert_eq!(caught.unwrap_err().downcast_ref(), Some(&321_usize));
    assert!(results.is_empty());
    assert_eq!(dropped.load(Ordering::SeqCst), made.load(Ordering::SeqCst));
    POOL.map_into(&items, &mut results, |_| Counted(&dropped));
    assert_eq!(results.len(), 500);
    drop(results);
    assert_eq!(dropped.load(Ordering::SeqCst), made.load(Ordering::SeqCst) + 500);
}

/// Types without a size have nothing to lie at.
#[test]
fn results_may_have_no_size() {
    assert_eq!(POOL.map_slice(&[1_u8; 1000], |_| ()), vec![(); 1000]);
    assert!(POOL.map_slice(&[(); 0], |()| 1).is_empty());
    assert_eq!(POOL.max_workers().get(), 3);
}

/// Also in the first joins of fresh threads, whose offers others look for before there are any.
#[test]
fn each_item_is_called_once_from_the_beginning() {
    let items: Vec<usize> = (0..200).collect();
    for _ in 0..50 {
        let pool = ThreadPoolExecutor::new(3).unwrap();
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let called: Vec<AtomicUsize> = items.iter().map(|_| AtomicUsize::new(0)).collect();
                    pool.map_slice(&items, |item| called[*item].fetch_add(1, Ordering::SeqCst));
                    assert!(called.iter().all(|called| called.load(Ordering::SeqCst) == 1));
                });
            }
        });
    }
}
