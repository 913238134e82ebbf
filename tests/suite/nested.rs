use crate::support::{Backend, Processes, Threads};
use concurrent_futures::Executor;

/// NEST-08, NEST-10: a worker of either kind has pools of both.
pub(crate) fn every_backend_nests_in_every_other<B: Backend>() {
    let squares = |count: u32| {
        let pools = [Threads::pool(1), Processes::pool(1)];
        pools.map(|pool| pool.map(|x: u32| x * x, 0..count).map(|square| square.unwrap()).sum::<u32>())
    };
    let pool = B::pool(2);
    let sums: Vec<_> = pool.map(squares, 1..4).map(|sums| sums.unwrap()).collect();
    assert_eq!(sums, [[0, 0], [1, 1], [5, 5]]);
}

/// NEST-11: what was said on the innermost level, and each submission on the way.
pub(crate) fn an_error_keeps_its_words_through_all_levels<B: Backend>() {
    fn innermost(x: u32) -> u32 {
        assert!(x != 7, "no sevens");
        x
    }
    fn middle(x: u32) -> u32 {
        Threads::pool(1).submit(innermost, x).result().unwrap_or_else(|error| panic!("middle: {error}"))
    }
    let outer = |x: u32| Processes::pool(1).submit(middle, x).result().map_err(|error| format!("outer: {error}"));
    let pool = B::pool(1);
    assert_eq!(pool.submit(outer, 6).result().unwrap(), Ok(6));
    let error = pool.submit(outer, 7).result().unwrap().unwrap_err();
    assert!(error.starts_with("outer: panicked: middle: panicked: no sevens, at "), "{error}");
    assert_eq!(error.matches("submitted at tests/suite/nested.rs").count(), 2, "{error}");
}
