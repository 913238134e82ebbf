use crate::support::{Backend, DEADLINE, Gate, Key, Log, Processes, Threads, append, eventually, pass};
use concurrent_futures::{ALL_COMPLETED, Context, Executor, Future, Shutdown, TaskError, as_completed, wait};
use futures::{
    FutureExt,
    future::{join, join_all, try_join_all},
};
use std::{
    cell::Cell,
    future::{IntoFuture, poll_fn},
    iter,
    panic::{self, AssertUnwindSafe},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    task::{Context as TaskContext, Poll, Wake, Waker},
    thread,
    time::Duration,
};
use tokio::{
    runtime::{Builder, Runtime},
    task::{JoinSet, spawn_blocking, yield_now},
    time::{sleep, timeout},
};

/// A timer of this length is only ever set against what cannot come before it.
const SOON: Duration = Duration::from_millis(2);

type Test<'a> = Pin<Box<dyn std::future::Future<Output = ()> + 'a>>;
type BlockOn = fn(Test);

/// All that this library says about async runtimes is that any will do.
const RUNTIMES: [(&str, BlockOn); 4] = [
    ("tokio on this thread", |test| tokio_of_one_thread().block_on(test)),
    ("tokio on threads of its own", |test| tokio_of_two_threads().block_on(test)),
    ("smol", |test| smol::block_on(test)),
    ("futures", |test| futures::executor::block_on(test)),
];

fn under_each_runtime(test: impl AsyncFn()) {
    for (name, block_on) in RUNTIMES {
        println!("under {name}");
        block_on(Box::pin(test()));
    }
}

fn tokio_of_one_thread() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

fn tokio_of_two_threads() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap()
}

/// Looks once, with the waker of the task that awaits this, and goes on.
async fn poll_once<F: std::future::Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    poll_fn(|context| Poll::Ready(Pin::new(&mut *future).poll(context))).await
}

/// A task: as [`pass`], and says when it is at its end.
fn pass_and_tell((key, log): (Key, String)) -> u32 {
    pass(key);
    append(&log, "made");
    1
}

/// A task: says that it was made.
fn tell(log: String) -> u32 {
    append(&log, "made");
    2
}

/// AIO-01, AIO-16: a call ends with the same error, awaited or waited for.
pub(crate) fn every_ending_is_awaited<B: Backend>() {
    under_each_runtime(async || {
        let pool = B::pool(1);
        assert_eq!(pool.submit(|x: u32| x + 1, 1).await.unwrap(), 2);
        let panicked = pool.submit(|()| -> () { panic!("awaited") }, ()).await.unwrap_err();
        assert_eq!(panicked.panic_message(), Some("awaited"));

        let gate = Gate::new();
        let running = pool.submit(pass, gate.key());
        gate.await_arrivals(1);
        let mut cancelled = pool.submit(|x: u32| x, 1);
        assert!(poll_once(&mut cancelled).await.is_pending());
        assert!(cancelled.cancel());
        assert!(cancelled.await.unwrap_err().is_cancelled());
        let awaited = pool.submit(|x: u32| x, 1);
        let shutdown = async { pool.shutdown(Shutdown::no_wait().cancel_pending()) };
        let (awaited, report) = join(awaited, shutdown).await;
        assert!(awaited.unwrap_err().is_cancelled());
        assert_eq!((report.cancelled, report.unfinished), (1, 1));
        gate.open();
        running.await.unwrap();
        assert!(pool.submit(|x: u32| x, 1).await.unwrap_err().is_shutdown());
    });
}

/// AIO-03, AIO-16: nothing is wrapped, no runtime is looked for, and an outcome is given once.
pub(crate) fn a_future_is_its_own_awaitable<B: Backend>() {
    let pool = B::pool(1);
    let future = pool.submit(|x: u8| x, 7);
    let id = future.id();
    let mut future = IntoFuture::into_future(future);
    assert_eq!(future.id(), id);
    future.wait();
    assert_eq!((&mut future).now_or_never().unwrap().unwrap(), 7);
    assert!(future.done() && future.peek().is_none() && !future.cancel());
    let again = panic::catch_unwind(AssertUnwindSafe(|| (&mut future).now_or_never()));
    let message = again.unwrap_err().downcast::<String>().unwrap();
    assert_eq!(*message, format!("the outcome of task {id} was polled after it had been given"));
}

/// AIO-12.
pub(crate) fn a_thousand_are_joined_in_order<B: Backend>() {
    let pool = B::pool(2);
    under_each_runtime(async || {
        let outcomes = join_all((0..1000).map(|x| pool.submit(|x: u32| x * 2, x))).await;
        let values: Vec<_> = outcomes.into_iter().map(|outcome| outcome.unwrap()).collect();
        assert_eq!(values, (0..1000).map(|x| x * 2).collect::<Vec<_>>());
    });
    // Also when the first is done last.
    let (log, gate) = (Log::new(), Gate::new());
    let first = pool.submit(pass_and_tell, (gate.key(), log.path()));
    let second = pool.submit(tell, log.path());
    second.wait();
    gate.open();
    assert_eq!(smol::block_on(try_join_all([first, second])).unwrap(), [1, 2]);
}

/// AIO-02, AIO-17: the task that awaits goes on where it was, and until then its thread is free for others.
pub(crate) fn a_runtime_of_one_thread_goes_on_meanwhile<B: Backend>() {
    let pool = B::pool(1);
    let turns = 100;
    under_each_runtime(async || {
        let gate = Gate::new();
        let here = thread::current().id();
        let others = Cell::new(0);
        let awaits = async {
            pool.submit(pass, gate.key()).await.unwrap();
            (others.get(), thread::current().id())
        };
        let goes_on = async {
            for _ in 0..turns {
                smol::future::yield_now().await;
                others.set(others.get() + 1);
            }
            gate.open();
        };
        assert_eq!(join(awaits, goes_on).await.0, (turns, here));
    });
}

/// AIO-02: by tasks that their runtime moves between its threads.
pub(crate) fn tasks_of_a_runtime_of_many_threads_await<B: Backend>() {
    let pool: Arc<dyn Executor> = Arc::from(B::pool(2));
    let sum = tokio_of_two_threads().block_on(async {
        let mut tasks: JoinSet<u32> = (0..100)
            .map(|x| {
                let pool = Arc::clone(&pool);
                async move {
                    let first = pool.submit(|x: u32| x + 1, x).await.unwrap();
                    yield_now().await;
                    pool.submit(|x: u32| x + 1, first).await.unwrap()
                }
            })
            .collect();
        let mut sum = 0;
        while let Some(value) = tasks.join_next().await {
            sum += value.unwrap();
        }
        sum
    });
    assert_eq!(sum, (0..100).map(|x| x + 2).sum::<u32>());
    let executor = smol::Executor::new();
    let tasks: Vec<_> = (0..100).map(|x| executor.spawn(pool.submit(|x: u32| x, x))).collect();
    let joined = smol::block_on(executor.run(try_join_all(tasks))).unwrap();
    assert_eq!(joined, (0..100).collect::<Vec<_>>());
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Count {
    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// AIO-02: a future may wander between tasks, and wakes the one that looked last, once.
pub(crate) fn the_waker_of_the_last_poll_is_woken<B: Backend>() {
    let pool = B::pool(1);
    let gate = Gate::new();
    let mut future = pool.submit(pass, gate.key());
    let counts = [0, 1, 2].map(|_| Arc::new(Count::default()));
    for count in [&counts[0], &counts[1], &counts[0], &counts[2]] {
        let waker = Waker::from(Arc::clone(count));
        assert!(Pin::new(&mut future).poll(&mut TaskContext::from_waker(&waker)).is_pending());
    }
    gate.open();
    eventually("a wake", || counts[2].get() == 1);
    assert!(future.now_or_never().unwrap().is_ok(), "it is there when its waker is woken");
    drop(pool);
    assert_eq!(counts.each_ref().map(|count| count.get()), [0, 0, 1]);
    eventually("the last waker is gone", || counts.iter().all(|count| Arc::strong_count(count) == 1));
}

/// AIO-17.
pub(crate) fn a_limit_ends_the_await_and_not_the_call<B: Backend>() {
    let pool = B::pool(1);
    tokio_of_one_thread().block_on(async {
        let gate = Gate::new();
        let mut future = pool.submit(pass, gate.key());
        tokio::select! {
            outcome = &mut future => panic!("it cannot be done: {outcome:?}"),
            () = sleep(SOON) => {}
        }
        assert!(timeout(SOON, &mut future).await.is_err());
        assert!(!future.done());
        gate.open();
        timeout(DEADLINE, &mut future).await.unwrap().unwrap();
        let outcome = tokio::select! {
            outcome = pool.submit(|x: u8| x, 1) => outcome,
            () = sleep(DEADLINE) => panic!("it never came"),
        };
        assert_eq!(outcome.unwrap(), 1);
    });
    smol::block_on(async {
        let limit = async |limit| {
            smol::Timer::after(limit).await;
            None
        };
        let gate = Gate::new();
        let mut future = pool.submit(pass, gate.key());
        let first = smol::future::or(async { Some((&mut future).await) }, limit(SOON)).await;
        assert!(first.is_none() && !future.done());
        gate.open();
        smol::future::or(async { Some(future.await) }, limit(DEADLINE)).await.unwrap().unwrap();
    });
}

/// AIO-04, AIO-06: neither by a limit, nor by the end of its task.
pub(crate) fn an_await_that_is_dropped_cancels_nothing<B: Backend>() {
    let log = Log::new();
    let pool = B::pool(1);
    let gate = Gate::new();
    tokio_of_one_thread().block_on(async {
        let running = pool.submit(pass_and_tell, (gate.key(), log.path()));
        let pending = pool.submit(tell, log.path());
        let awaited = pool.submit(tell, log.path());
        assert!(timeout(SOON, running).await.is_err());
        assert!(timeout(SOON, pending).await.is_err());
        let task = tokio::spawn(awaited);
        yield_now().await;
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    });
    assert!(log.lines().is_empty());
    gate.open();
    eventually("three calls", || log.lines().len() == 3);
}

/// AIO-04: by a limit, by the end of its task, and without having been awaited.
pub(crate) fn cancel_on_drop_cancels_what_has_not_begun<B: Backend>() {
    let log = Log::new();
    let pool = B::pool(1);
    let gate = Gate::new();
    let running = pool.submit(pass, gate.key());
    gate.await_arrivals(1);
    let (told, cancelled) = mpsc::channel();
    let unwanted = || {
        let future = pool.submit(tell, log.path()).cancel_on_drop();
        let told = told.clone();
        future.add_done_callback(move |future| told.send((future.cancelled(), thread::current().id())).unwrap());
        future
    };
    let here = thread::current().id();
    let is_cancelled_here = || assert_eq!(cancelled.try_recv().unwrap(), (true, here));
    tokio_of_one_thread().block_on(async {
        assert!(timeout(SOON, unwanted()).await.is_err());
        is_cancelled_here();
        let task = tokio::spawn(unwanted());
        yield_now().await;
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        is_cancelled_here();
    });
    let limit = async { Err(smol::Timer::after(SOON).await) };
    assert!(smol::block_on(smol::future::or(async { Ok(unwanted().await) }, limit)).is_err());
    is_cancelled_here();
    drop(unwanted());
    is_cancelled_here();
    gate.open();
    running.result().unwrap();
    pool.submit(|()| (), ()).result().unwrap(); // behind them in the queue
    assert!(log.lines().is_empty(), "none was made");
}

/// AIO-05.
pub(crate) fn cancel_on_drop_leaves_what_is_done<B: Backend>() {
    let pool = B::pool(1);
    under_each_runtime(async || {
        let (told, cancelled) = mpsc::channel();
        let mut future = pool.submit(|n: usize| "x".repeat(n), 3).cancel_on_drop();
        future.add_done_callback(move |future| told.send(future.cancelled()).unwrap());
        assert_eq!((&mut future).await.unwrap(), "xxx");
        drop(future);
        assert_eq!(cancelled.iter().collect::<Vec<_>>(), [false]);

        let done = pool.submit(|n: usize| "x".repeat(n), 3).cancel_on_drop();
        done.wait();
        assert!(!done.cancel() && !done.cancelled());
        assert_eq!(done.peek().unwrap().unwrap(), "xxx");
        assert_eq!(done.await.unwrap(), "xxx");
        let failed = pool.submit(|()| -> () { panic!("awaited") }, ()).cancel_on_drop();
        assert_eq!(failed.await.unwrap_err().panic_message(), Some("awaited"));
    });
}

/// AIO-06: the await ends at once, and a call that does not look whether it is wanted goes on to its end.
pub(crate) fn cancel_on_drop_lets_go_of_what_runs<B: Backend>() {
    let log = Log::new();
    let pool = B::pool(1);
    let gate = Gate::new();
    let running = pool.submit(pass_and_tell, (gate.key(), log.path())).cancel_on_drop();
    gate.await_arrivals(1);
    assert!(tokio_of_one_thread().block_on(async { timeout(SOON, running).await }).is_err());
    assert!(log.lines().is_empty(), "nobody waited for it");
    gate.open();
    eventually("its end", || log.lines().len() == 1);
    assert_eq!(pool.submit(|x: u8| x, 1).result().unwrap(), 1);
}

/// AIO-14: the join takes along those that asked for it.
pub(crate) fn cancel_on_drop_of_many_cancels_many<B: Backend>() {
    let log = Log::new();
    let pool = B::pool(1);
    let gate = Gate::new();
    let running = pool.submit(pass, gate.key());
    gate.await_arrivals(1);
    let unwanted = join_all((0..20).map(|_| pool.submit(tell, log.path()).cancel_on_drop()));
    let wanted = join_all((0..20).map(|_| pool.submit(tell, log.path())));
    let both = tokio_of_one_thread().block_on(async { timeout(SOON, join(unwanted, wanted)).await });
    assert!(both.is_err());
    gate.open();
    running.result().unwrap();
    pool.shutdown(Shutdown::wait());
    assert_eq!(log.lines().len(), 20);
}

/// AIO-04: whoever leaves early, by an error or a panic, leaves no call behind.
pub(crate) fn cancel_on_drop_needs_no_runtime<B: Backend>() {
    let log = Log::new();
    let pool = B::pool(1);
    let gate = Gate::new();
    let running = pool.submit(pass, gate.key());
    gate.await_arrivals(1);
    let unwanted = || pool.submit(tell, log.path()).cancel_on_drop();
    let left = || -> Result<u32, TaskError> {
        let first = unwanted();
        assert!(first.cancel());
        let _second = unwanted();
        first.detach().result()
    };
    assert!(left().unwrap_err().is_cancelled());
    let panics = || {
        let _held = unwanted();
        panic::resume_unwind(Box::new("a panic that prints nothing"));
    };
    assert!(panic::catch_unwind(AssertUnwindSafe(panics)).is_err());
    let mut each = as_completed([unwanted(), unwanted(), unwanted()]);
    each.add(pool.submit(tell, log.path()).cancel_on_drop());
    drop(each);
    let kept = unwanted();
    let named = format!("CancelOnDrop(Future<u32>({}, ", kept.id());
    assert!(format!("{kept:?}").starts_with(&named), "{kept:?}");
    let kept = kept.detach();
    gate.open();
    running.result().unwrap();
    assert_eq!(kept.result().unwrap(), 2);
    assert_eq!(log.lines(), ["made"]);

    let wanted = [0, 1].map(|_| unwanted());
    assert_eq!(wait(&wanted, ALL_COMPLETED).done.len(), 2);
    assert!(as_completed(wanted).all(|future| future.detach().result().is_ok_and(|value| value == 2)));
}

/// AIO-08: the outcome comes all the same, and whoever has the future finds it.
pub(crate) fn a_runtime_that_is_gone_is_not_missed<B: Backend>() {
    let log = Log::new();
    let pool = B::pool(1);
    for runtime in [tokio_of_one_thread, tokio_of_two_threads] {
        let gate = Gate::new();
        let mut kept = pool.submit(pass, gate.key());
        let runtime = runtime();
        let lost = pool.submit(tell, log.path());
        runtime.spawn(async move { lost.await.unwrap() });
        assert!(runtime.block_on(poll_once(&mut kept)).is_pending());
        runtime.shutdown_background();
        gate.open();
        kept.result().unwrap();
    }
    let gate = Gate::new();
    let executor = smol::Executor::new();
    let mut kept = pool.submit(pass, gate.key());
    let lost = executor.spawn(pool.submit(tell, log.path()));
    smol::block_on(executor.run(async { assert!(poll_once(&mut kept).await.is_pending()) }));
    drop(executor);
    drop(lost);
    gate.open();
    assert!(tokio_of_one_thread().block_on(kept).is_ok(), "in another one");
    pool.shutdown(Shutdown::wait());
    assert_eq!(log.lines().len(), 3);
}

/// AIO-12: it is told while others still run, and they run on.
pub(crate) fn the_first_error_ends_the_join_and_no_call<B: Backend>() {
    under_each_runtime(async || {
        let (slow, quick) = (Log::new(), Log::new());
        let pool = B::pool(2);
        let gate = Gate::new();
        let calls = || -> [Future<u32>; 3] {
            [
                pool.submit(pass_and_tell, (gate.key(), slow.path())),
                pool.submit(|()| panic!("the second"), ()),
                pool.submit(tell, quick.path()),
            ]
        };
        let error = try_join_all(calls()).await.unwrap_err();
        assert_eq!(error.panic_message(), Some("the second"));
        assert!(slow.lines().is_empty(), "it was not waited for");
        gate.open();
        eventually("the others' ends", || (slow.lines().len(), quick.lines().len()) == (1, 1));

        // What Python calls `return_exceptions`.
        let [first, second, third] = join_all(calls()).await.try_into().unwrap();
        assert_eq!((first.unwrap(), third.unwrap()), (1, 2));
        assert!(second.unwrap_err().is_panic());
    });
}

/// AIO-13: a shared future gives its outcome, value or error, to each who awaits it.
pub(crate) fn an_outcome_is_awaited_twice<B: Backend>() {
    let log = Log::new();
    let pool = B::pool(1);
    under_each_runtime(async || {
        let future = pool.submit(tell, log.path()).shared();
        assert_eq!(try_join_all([future.clone(), future.clone(), future]).await.unwrap(), [2; 3]);
        let failed = pool.submit(|()| -> u32 { panic!("shared") }, ()).shared();
        for outcome in join_all([failed.clone(), failed]).await {
            assert_eq!(outcome.unwrap_err().panic_message(), Some("shared"));
        }
    });
    assert_eq!(log.lines().len(), RUNTIMES.len(), "made once each");
}

/// AIO-07, AIO-09: and there is no default that only some may be.
pub(crate) fn every_executor_is_awaited_alike<B: Backend>() {
    async fn doubled(pool: &dyn Executor, x: u32) -> Result<u32, TaskError> {
        (&pool).submit(|x: u32| x * 2, x).await
    }
    let pools: [Box<dyn Executor>; 3] = [B::pool(1), Threads::pool(2), Processes::pool(1)];
    under_each_runtime(async || {
        let calls = iter::zip(&pools, 1..).map(|(pool, x)| doubled(pool, x));
        assert_eq!(try_join_all(calls).await.unwrap(), [2, 4, 6]);
    });
}

/// AIO-11: what the call is to know comes with it, whatever thread or process makes it.
pub(crate) fn a_call_is_made_once_with_its_arguments<B: Backend>() {
    let pool = B::pool(2);
    let context = Context::new("request 7".to_owned());
    under_each_runtime(async || {
        let log = Log::new();
        let call = |context: &String, (log, left, right): (String, u32, u32)| {
            append(&log, context);
            left - right
        };
        assert_eq!(pool.submit_with(&context, call, (log.path(), 5, 3)).await.unwrap(), 2);
        let error = pool.submit_with(&context, call, (log.path(), 3, 5)).await.unwrap_err();
        assert_eq!(error.panic_message(), Some("attempt to subtract with overflow"));
        assert_eq!(log.lines(), ["request 7"; 2]);
    });
}

/// AIO-10: the runtime goes on, and what is not done by then is told and not cut off.
pub(crate) fn a_shutdown_is_awaited_within_its_limit<B: Backend>() {
    let pool: Arc<dyn Executor> = Arc::from(B::pool(1));
    let gate = Gate::new();
    tokio_of_one_thread().block_on(async {
        let future = pool.submit(pass, gate.key());
        let shut_down = |limit| {
            let pool = Arc::clone(&pool);
            spawn_blocking(move || pool.shutdown(Shutdown::wait().at_most(limit)))
        };
        let report = shut_down(SOON).await.unwrap();
        assert!(!report.is_complete() && report.unfinished == 1, "{report:?}");
        let (report, ()) = join(shut_down(DEADLINE), async { gate.open() }).await;
        assert!(report.unwrap().is_complete());
        future.await.unwrap();
    });
}
