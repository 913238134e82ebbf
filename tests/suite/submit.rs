use crate::support::{Backend, Gate, Log, Place, append, pass};
use concurrent_futures::{BuildError, Context, Executor, Future, as_completed};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    sync::{Arc, Mutex, mpsc},
    thread,
};

fn cube(x: u64) -> u64 {
    x.pow(3)
}

fn twice<T: Clone>(x: T) -> (T, T) {
    (x.clone(), x)
}

/// SUB-01, RES-01: the ten lines of the README.
pub(crate) fn a_call_gives_its_value<B: Backend>() {
    let pool = B::pool(4);
    assert_eq!(pool.submit(cube, 3).result().unwrap(), 27);
    let squares: Vec<u64> = pool.map(|x| x * x, 0..20).collect::<Result<_, _>>().unwrap();
    assert_eq!(squares, (0..20).map(|x| x * x).collect::<Vec<u64>>());
    let mut cubes: Vec<u64> =
        as_completed((1..=4).map(|s| pool.submit(cube, s))).map(|future| future.result().unwrap()).collect();
    cubes.sort_unstable();
    assert_eq!(cubes, [1, 8, 27, 64]);
}

/// SUB-02, IPE-01.
pub(crate) fn arguments_of_every_shape<B: Backend>() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Order {
        name: String,
        lines: Vec<(u32, Option<f64>)>,
    }
    let pool = B::pool(2);
    pool.submit(|()| (), ()).result().unwrap();
    assert_eq!(pool.submit(|(a, b, c)| a * b + c, (3, 4, 5)).result().unwrap(), 17);
    assert_eq!(pool.submit(|text: String| text.len(), "four".into()).result().unwrap(), 4);
    assert_eq!(pool.submit(twice, 7_u8).result().unwrap(), (7, 7));
    assert_eq!(pool.submit(twice::<Vec<String>>, vec!["x".into()]).result().unwrap().0, ["x"]);
    assert_eq!(pool.submit(u64::count_ones, 255).result().unwrap(), 8);
    let order = Order { name: "o".into(), lines: vec![(1, None), (2, Some(-0.5))] };
    assert_eq!(pool.submit(|order: Order| order, order.clone()).result().unwrap(), order);
    let bytes = vec![7_u8; 300_000];
    assert_eq!(pool.submit(|bytes: Vec<u8>| bytes, bytes.clone()).result().unwrap(), bytes);
    assert_eq!(pool.submit(|x: Option<Option<()>>| x, Some(None)).result().unwrap(), Some(None));
}

/// RES-14.
pub(crate) fn a_users_result_is_a_value<B: Backend>() {
    let pool = B::pool(1);
    let parsed = pool.submit(|text: String| text.parse::<u32>().map_err(|error| error.to_string()), "x".into());
    assert!(parsed.exception().is_none());
    assert_eq!(parsed.result().unwrap(), Err("invalid digit found in string".to_owned()));
}

/// SUB-09.
pub(crate) fn many_threads_submit_at_once<B: Backend>() {
    let pool = B::pool(2);
    thread::scope(|scope| {
        for base in 0..8_u64 {
            let pool = &pool;
            scope.spawn(move || {
                let futures: Vec<_> = (0..50).map(|x| pool.submit(|x: u64| x + 1, base * 1000 + x)).collect();
                for (x, future) in futures.into_iter().enumerate() {
                    if x % 7 == 3 && future.cancel() {
                        assert!(future.result().unwrap_err().is_cancelled());
                    } else {
                        assert_eq!(future.result().unwrap(), base * 1000 + x as u64 + 1);
                    }
                }
                let mapped: Vec<u64> = pool.map(|x: u64| x * 2, 0..20).collect::<Result<_, _>>().unwrap();
                assert_eq!(mapped[19], 38);
            });
        }
    });
}

/// SUB-04.
pub(crate) fn with_one_worker_tasks_start_in_order<B: Backend>() {
    let pool = B::pool(1);
    let (gate, log) = (Gate::new(), Log::new());
    let first = pool.submit(pass, gate.key());
    gate.await_arrivals(1);
    let futures: Vec<_> = (0..100)
        .map(|x| pool.submit(|(log, x): (String, u32)| append(&log, &x.to_string()), (log.path(), x)))
        .collect();
    gate.open();
    first.result().unwrap();
    futures.into_iter().for_each(|future| future.result().unwrap());
    assert_eq!(log.lines(), (0..100).map(|x| x.to_string()).collect::<Vec<_>>());
}

/// SUB-06.
pub(crate) fn after_shutdown_the_future_has_failed<B: Backend>() {
    let pool = B::pool(1);
    pool.submit(cube, 1).result().unwrap();
    pool.shutdown(concurrent_futures::Shutdown::wait());
    let future = pool.submit(cube, 2);
    assert!(future.done());
    let error = future.result().unwrap_err();
    assert!(error.is_shutdown(), "{error}");
    assert!(error.to_string().contains("already shut down"), "{error}");
}

/// SUB-05: in files, which all processes see alike.
pub(crate) fn what_came_before_is_seen<B: Backend>() {
    let place = Place::new();
    let pool = B::pool(2);
    for round in 0..20 {
        fs::write(place.path("before"), format!("{round}")).unwrap();
        let call = |(before, after): (String, String)| {
            fs::write(after, format!("{} was read", fs::read_to_string(before).unwrap())).unwrap();
        };
        pool.submit(call, (place.path("before"), place.path("after"))).wait();
        assert_eq!(fs::read_to_string(place.path("after")).unwrap(), format!("{round} was read"));
    }
}

/// SUB-01, SUB-10: more than any channel holds, and more wake-ups than a pipe.
pub(crate) fn submitting_waits_for_no_worker<B: Backend>() {
    let pool = B::pool(1);
    let gate = Gate::new();
    let running = pool.submit(pass, gate.key());
    gate.await_arrivals(1);
    let large: Vec<_> = (0..20).map(|_| pool.submit(|bytes: Vec<u8>| bytes.len(), vec![0; 1 << 20])).collect();
    let small: Vec<_> = (0..3000).map(|x| pool.submit(|x: u32| x, x)).collect();
    assert!(
        running.running() && !large.iter().any(|future| future.done()) && !small.iter().any(|future| future.done())
    );
    gate.open();
    running.result().unwrap();
    assert!(large.into_iter().all(|future| future.result().unwrap() == 1 << 20));
    assert!(small.into_iter().map(|future| future.result().unwrap()).eq(0..3000));
}

/// CB-09, SUB-13: three interleaved chains, each link submitted by the callback of the one before.
pub(crate) fn callbacks_may_submit<B: Backend>() {
    fn chain(pool: Arc<dyn Executor>, left: u32, done: mpsc::Sender<()>) {
        let future = pool.submit(|x: u32| x, left);
        future.add_done_callback(move |future| {
            assert_eq!(future.peek().unwrap().unwrap(), &left);
            if left == 0 {
                done.send(()).unwrap();
            } else {
                chain(pool, left - 1, done);
            }
        });
    }
    let pool: Arc<dyn Executor> = Arc::from(B::pool(2));
    let (done, all_done) = mpsc::channel();
    for length in [100, 50, 60] {
        chain(Arc::clone(&pool), length, done.clone());
    }
    drop(done);
    assert_eq!(all_done.iter().count(), 3);
}

/// A context is given to many calls, and to several workers.
pub(crate) fn a_context_is_shared<B: Backend>() {
    let pool = B::pool(2);
    let table = Context::new((0..1000_u64).collect::<Vec<_>>());
    let sum: u64 = pool.map_with(&table, |table, i: usize| table[i], (0..1000).rev()).map(|value| value.unwrap()).sum();
    assert_eq!(sum, 499_500);
    let other = Context::new("other".to_owned());
    assert_eq!(pool.submit_with(&other, |text, times| text.repeat(times), 2).result().unwrap(), "otherother");
    assert_eq!(pool.submit_with(&table, |table, ()| table.len(), ()).result().unwrap(), 1000);
    drop(table);
    assert_eq!(pool.submit_with(&other, |text, ()| text.len(), ()).result().unwrap(), 5);
}

/// Every ending says where its call was submitted, also through a `dyn Executor`.
pub(crate) fn a_call_keeps_its_submit_site<B: Backend>() {
    let pool = B::pool(1);
    let line = line!() + 1;
    let future = pool.submit(|()| panic!("boom"), ());
    let error: concurrent_futures::TaskError = Future::<()>::result(future).unwrap_err();
    assert_eq!((error.submitted_at().line(), error.submitted_at().file()), (line, file!()));
    assert!(error.to_string().contains(&format!("submitted at {}:{line}:", file!())), "{error}");
    let pool: &dyn Executor = &pool;
    assert_eq!((&pool).submit(|x: u8| x, 1).submitted_at().line(), line!());
    let mut map = (&pool).map(|x: u32| 1 / x, 0..1);
    assert_eq!(map.next().unwrap().unwrap_err().submitted_at().line(), line!() - 1);
}

/// WRK-02.
pub(crate) fn bad_worker_counts_are_refused<B: Backend>() {
    for workers in [0, usize::MAX] {
        let error = B::refusal(workers).expect("a pool of that many");
        assert!(matches!(error, BuildError::Workers { asked, .. } if asked == workers), "{error}");
        assert!(error.to_string().starts_with(&format!("max_workers is {workers}, and must be from 1 to ")), "{error}");
    }
    assert_eq!(B::refusal(1), None);
}

/// No thread or process can have such a name, and that is said before any is started.
pub(crate) fn bad_names_are_refused<B: Backend>() {
    let error = B::refusal_of_name("a\0b").expect("a pool of that name");
    assert!(error.to_string().contains("must not contain a NUL"), "{error}");
}

/// `&E`, `Box<E>` and `Arc<E>` are executors, and generic code takes them all.
pub(crate) fn a_pool_is_chosen_at_run_time<B: Backend>() {
    fn generic(pool: impl Executor) -> u64 {
        pool.submit(cube, 2).result().unwrap() + pool.map(cube, [1, 2]).map(|cube| cube.unwrap()).sum::<u64>()
    }
    let pool: Box<dyn Executor> = B::pool(1);
    assert_eq!(generic(&pool), 17);
    assert_eq!(generic(&*pool), 17);
    let pool: Arc<dyn Executor> = Arc::from(pool);
    assert_eq!(generic(Arc::clone(&pool)), 17);
    assert_eq!(pool.max_workers().get(), 1);
    let shared = Mutex::new(pool);
    assert_eq!(generic(Arc::clone(&*shared.lock().unwrap())), 17);
}
