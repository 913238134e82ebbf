use crate::support::{Backend, Gate, Log, append, pass};
use concurrent_futures::Executor;

/// INI-01, WRK-05, WRK-07, WRK-08: before the worker's first task, and once, however many tasks follow.
pub(crate) fn it_runs_once_in_each_worker<B: Backend>() {
    let log = Log::new();
    let pool = B::pool_with_initializer(2, |log| append(&log, "initialized"), log.path());
    assert!(log.lines().is_empty(), "workers start as they are needed");
    for x in 0..10 {
        pool.submit(|x: u32| x, x).result().unwrap();
    }
    assert_eq!(log.lines().len(), 1, "an idle worker is used again");
    let gate = Gate::new();
    let both: Vec<_> = (0..2).map(|_| pool.submit(pass, gate.key())).collect();
    gate.await_arrivals(2);
    assert_eq!(log.lines().len(), 2);
    gate.open();
    both.into_iter().for_each(|future| future.result().unwrap());
    let futures: Vec<_> = (0..30).map(|x| pool.submit(|x: u32| x, x)).collect();
    futures.into_iter().for_each(|future| assert!(future.result().is_ok()));
    assert_eq!(log.lines().len(), 2, "never more than there may be workers");
}

/// INI-02, INI-03, INI-06, RES-12, SUB-07, LOK-09: it is not tried for ever.
pub(crate) fn a_failing_one_breaks_the_pool_with_its_cause<B: Backend>() {
    let log = Log::new();
    let fail = |log: String| {
        append(&log, "tried");
        panic!("no licence");
    };
    let pool = B::pool_with_initializer(2, fail, log.path());
    let futures: Vec<_> = (0..5).map(|x| pool.submit(|x: u32| x, x)).collect();
    for future in futures {
        let id = future.id();
        let error = future.result().unwrap_err();
        assert!(error.is_broken() && error.task() == id, "{error}");
        assert!(error.to_string().contains("initializer failed: panicked: no licence"), "{error}");
        assert!(std::error::Error::source(&error).is_some());
    }
    assert!(pool.submit(|x: u32| x, 1).result().unwrap_err().is_broken());
    drop(pool);
    assert!((1..=2).contains(&log.lines().len()), "{} tries", log.lines().len());
}
