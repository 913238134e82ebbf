use crate::support::{Backend, DEADLINE, Gate, pass};
use concurrent_futures::{ALL_COMPLETED, Executor, Shutdown, as_completed, wait};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

/// CB-01, CB-02, CB-12.
pub(crate) fn they_run_in_order_with_a_done_future<B: Backend>() {
    let pool = B::pool(1);
    let gate = Gate::new();
    let blocker = pool.submit(pass, gate.key());
    let future = pool.submit(|x: u32| x, 7);
    let (id, (tell, told)) = (future.id(), mpsc::channel());
    for number in 0..5 {
        let tell = tell.clone();
        future.add_done_callback(move |future| {
            assert!(future.done() && !future.running() && !future.cancel());
            tell.send((number, future.id(), *future.peek().unwrap().unwrap())).unwrap();
        });
    }
    drop(tell);
    gate.open();
    assert_eq!(told.iter().collect::<Vec<_>>(), (0..5).map(|number| (number, id, 7)).collect::<Vec<_>>());
    blocker.result().unwrap();
    assert_eq!(future.result().unwrap(), 7);
}

/// CB-03, CB-05.
pub(crate) fn a_late_one_runs_at_once<B: Backend>() {
    let pool = B::pool(1);
    let value = pool.submit(|x: u8| x, 1);
    let failed = pool.submit(|_: u8| -> u8 { panic!("late") }, 1);
    for future in [value, failed] {
        future.wait();
        let here = thread::current().id();
        let ran = Arc::new(AtomicBool::new(false));
        let mark = Arc::clone(&ran);
        future.add_done_callback(move |future| {
            assert!(future.done());
            mark.store(thread::current().id() == here, Ordering::SeqCst);
        });
        assert!(ran.load(Ordering::SeqCst), "on this thread, before it returned");
        future.add_done_callback(|_| panic!("contained"));
    }
    let gate = Gate::new();
    let blocker = pool.submit(pass, gate.key());
    let cancelled = pool.submit(|x: u8| x, 1);
    assert!(cancelled.cancel());
    let (tell, told) = mpsc::channel();
    cancelled.add_done_callback(move |future| tell.send((thread::current().id(), future.cancelled())).unwrap());
    assert_eq!(told.try_recv().unwrap(), (thread::current().id(), true));
    gate.open();
    blocker.result().unwrap();
}

/// CB-08: with the other worker, all goes on while one is at it.
pub(crate) fn a_slow_one_holds_up_no_other_call<B: Backend>() {
    let pool = B::pool(2);
    let gate = Gate::new();
    let slow = pool.submit(pass, gate.key());
    let (entered, (go, wait)) = (mpsc::channel(), mpsc::channel::<()>());
    slow.add_done_callback(move |_| {
        entered.0.send(()).unwrap();
        wait.recv().unwrap_err();
    });
    gate.open();
    entered.1.recv_timeout(DEADLINE).unwrap();
    let others: Vec<_> = (0..50).map(|x| pool.submit(|x: u32| x, x)).collect();
    assert!(others.iter().all(|future| future.wait_timeout(DEADLINE)), "it waits behind a callback");
    drop(go);
    slow.result().unwrap();
}

/// CB-04, CB-06, CB-16: later callbacks run, the outcome stays, the pool lives.
pub(crate) fn a_panic_in_one_is_contained<B: Backend>() {
    let pool = B::pool(1);
    let gate = Gate::new();
    let blocker = pool.submit(pass, gate.key());
    let future = pool.submit(|x: u32| x, 3);
    let (tell, told) = mpsc::channel();
    future.add_done_callback(|_| panic!("first callback"));
    future.add_done_callback(move |_| tell.send(()).unwrap());
    gate.open();
    blocker.result().unwrap();
    assert_eq!(future.result().unwrap(), 3);
    told.recv().unwrap();
    let sum: u32 = pool.map(|x: u32| x, 0..1000).map(|x| x.unwrap()).sum();
    assert_eq!(sum, 499_500);
}

/// CB-11: a nested callback runs at once, before the remaining ones.
pub(crate) fn one_may_add_another<B: Backend>() {
    let pool = B::pool(1);
    let gate = Gate::new();
    let future = pool.submit(pass, gate.key());
    let order = Arc::new(Mutex::new(Vec::new()));
    let (first, second) = (Arc::clone(&order), Arc::clone(&order));
    let (tell, told) = mpsc::channel();
    future.add_done_callback(move |future| {
        first.lock().unwrap().push("a");
        future.add_done_callback(move |_| first.lock().unwrap().push("nested"));
    });
    future.add_done_callback(move |_| {
        second.lock().unwrap().push("b");
        tell.send(()).unwrap();
    });
    gate.open();
    told.recv().unwrap();
    assert_eq!(*order.lock().unwrap(), ["a", "nested", "b"]);
}

/// RES-17, better: whoever waits for the value gets it after the callbacks have seen it.
pub(crate) fn they_see_the_value_before_it_is_taken<B: Backend>() {
    let pool = B::pool(1);
    for _ in 0..20 {
        let gate = Gate::new();
        let blocker = pool.submit(pass, gate.key());
        let future = pool.submit(|n: usize| vec![n; n], 3);
        let seen = Arc::new(Mutex::new(None));
        let see = Arc::clone(&seen);
        future.add_done_callback(move |future| {
            thread::sleep(Duration::from_micros(200)); // widens the race
            *see.lock().unwrap() = future.peek().map(|outcome| outcome.unwrap().clone());
        });
        gate.open();
        blocker.result().unwrap();
        assert_eq!(future.result().unwrap(), [3, 3, 3]);
        assert_eq!(seen.lock().unwrap().as_deref(), Some(&[3, 3, 3][..]));
    }
}

/// CB-14.
pub(crate) fn they_run_before_shutdown_returns<B: Backend>() {
    let pool = B::pool(2);
    let ran = Arc::new(Mutex::new(0));
    let gate = Gate::new();
    for _ in 0..2 {
        let ran = Arc::clone(&ran);
        pool.submit(pass, gate.key()).add_done_callback(move |_| {
            thread::sleep(Duration::from_millis(20)); // widens the race
            *ran.lock().unwrap() += 1;
        });
    }
    gate.open();
    pool.shutdown(Shutdown::wait());
    assert_eq!(*ran.lock().unwrap(), 2);
}

/// CB-10, CB-13: and what it submits then has failed, which stays within the callback.
pub(crate) fn a_shutdown_from_one_does_not_wait_for_itself<B: Backend>() {
    let pool: Arc<dyn Executor> = Arc::from(B::pool(1));
    let gate = Gate::new();
    let future = pool.submit(pass, gate.key());
    let (tell, told) = mpsc::channel();
    let inside = Arc::clone(&pool);
    future.add_done_callback(move |_| {
        inside.shutdown(Shutdown::wait());
        tell.send(inside.submit(|x: u8| x, 1).result().unwrap_err().is_shutdown()).unwrap();
        panic!("which changes nothing");
    });
    gate.open();
    assert!(told.recv_timeout(DEADLINE).unwrap());
    future.result().unwrap();
    assert!(pool.submit(|x: u8| x, 1).result().unwrap_err().is_shutdown());
}

/// CB-12: in its callback a future is done, and every way of waiting for it agrees.
pub(crate) fn one_may_wait_for_its_own_future<B: Backend>() {
    let pool = B::pool(1);
    let gate = Gate::new();
    let blocker = pool.submit(pass, gate.key());
    let future = pool.submit(|x: u32| x, 3);
    let (tell, told) = mpsc::channel();
    future.add_done_callback(move |future| {
        future.wait();
        let timed = future.wait_timeout(Duration::ZERO);
        let all = wait([future], ALL_COMPLETED).done.len();
        let each = as_completed([future]).count();
        tell.send((timed, all, each, future.exception().is_none())).unwrap();
    });
    gate.open();
    assert_eq!(told.recv_timeout(DEADLINE).unwrap(), (true, 1, 1, true));
    blocker.result().unwrap();
    assert_eq!(future.result().unwrap(), 3);
}

/// CB-13: a callback that shuts its own pool down and cancels the rest, also when it is the last that the pool does.
pub(crate) fn one_may_cancel_the_rest<B: Backend>() {
    let pool: Arc<dyn Executor> = Arc::from(B::pool_with_initializer(1, |_| panic!("no"), String::new()));
    let future = pool.submit(|x: u8| x, 1);
    let (inside, (tell, told)) = (Arc::clone(&pool), mpsc::channel());
    future.add_done_callback(move |future| {
        thread::sleep(Duration::from_millis(20)); // widens the race with the end of the pool
        inside.shutdown(Shutdown::wait().cancel_pending());
        tell.send(future.peek().unwrap().is_err()).unwrap();
    });
    assert!(told.recv_timeout(DEADLINE).unwrap());
}
