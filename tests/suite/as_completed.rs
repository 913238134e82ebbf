use crate::support::{Backend, Gate, pass};
use concurrent_futures::{Executor, Timeout, as_completed};
use std::{
    thread,
    time::{Duration, Instant},
};

/// Long enough for a loaded machine to tell it from no time at all.
const LIMIT: Duration = Duration::from_millis(400);

/// ASC-01, ASC-07: registered at the call, so what happens between that and the first item is seen in order.
pub(crate) fn completion_order_is_kept<B: Backend>() {
    let pool = B::pool(3);
    let gates: Vec<_> = (0..3).map(|_| Gate::new()).collect();
    let futures: Vec<_> = gates.iter().map(|gate| pool.submit(pass, gate.key())).collect();
    gates.iter().for_each(|gate| gate.await_arrivals(1));
    let each = as_completed(&futures);
    for index in [2, 0, 1] {
        gates[index].open();
        futures[index].wait();
    }
    let order: Vec<_> = each.collect();
    assert_eq!(order, [&futures[2], &futures[0], &futures[1]]);
}

/// ASC-03, ASC-08.
pub(crate) fn each_comes_once_whatever_its_ending<B: Backend>() {
    let pool = B::pool(1);
    let gate = Gate::new();
    let blocker = pool.submit(pass, gate.key());
    let futures: Vec<_> = (0..4).map(|x| pool.submit(|x: u32| if x == 1 { panic!("one") } else { x }, x)).collect();
    assert!(futures[2].cancel());
    let each = as_completed(futures); // before any but the cancelled one is done
    gate.open();
    let endings: Vec<_> = each
        .map(|future| match future.result() {
            Ok(value) => value.to_string(),
            Err(error) if error.is_cancelled() => "cancelled".to_owned(),
            Err(error) => error.panic_message().unwrap().to_owned(),
        })
        .collect();
    assert_eq!(endings, ["cancelled", "0", "one", "3"]);
    blocker.result().unwrap();
}

/// ASC-04, ASC-05, ASC-06: the limit is over before the first item is asked for.
pub(crate) fn the_clock_starts_at_the_call<B: Backend>() {
    let pool = B::pool(2);
    let gate = Gate::new();
    let done = pool.submit(|()| (), ());
    done.wait();
    let futures = [pool.submit(pass, gate.key()), done, pool.submit(pass, gate.key()), pool.submit(pass, gate.key())];
    let mut each = as_completed(&futures).timeout(LIMIT);
    thread::sleep(LIMIT + Duration::from_millis(10));
    let began = Instant::now();
    assert_eq!(each.next().unwrap().unwrap(), &futures[1], "what is done comes all the same");
    let error = each.next().unwrap().unwrap_err();
    assert!(began.elapsed() < LIMIT, "the limit was not granted again: {:?}", began.elapsed());
    assert_eq!(error, Timeout { unfinished: 3, total: 4 });
    assert_eq!(error.to_string(), "3 (of 4) futures unfinished");
    gate.open();
    futures.iter().for_each(|future| future.wait());
    assert_eq!(each.filter_map(Result::ok).count(), 3, "it goes on with what is done by then");
}

/// ASC-11.
pub(crate) fn one_can_be_added<B: Backend>() {
    let pool = B::pool(1);
    let mut each = as_completed([pool.submit(|x: u32| x, 0)]);
    let mut seen = Vec::new();
    while let Some(future) = each.next() {
        let value = future.result().unwrap();
        seen.push(value);
        if value < 5 {
            each.add(pool.submit(|x: u32| x, value + 1));
        }
    }
    assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
}

/// ASC-09.
pub(crate) fn leaving_early_cancels_nothing<B: Backend>() {
    let pool = B::pool(1);
    let gate = Gate::new();
    let futures = [pool.submit(|()| (), ()), pool.submit(pass, gate.key()), pool.submit(|()| (), ())];
    assert_eq!(as_completed(&futures).next().unwrap(), &futures[0]);
    gate.open();
    for future in futures {
        future.result().unwrap();
    }
}
