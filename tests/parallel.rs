//! joblib's `Parallel`, on threads and on processes.

use crate::support::{Gate, Key, Log, append, eventually, pass, promptly};
use concurrent_futures::{
    BuildError, Executor, ProcessPoolExecutor, RetryPolicy, SequentialExecutor, Shared, Shutdown, TaskOptions,
    ThreadPoolExecutor, cpu_count, current_task,
    parallel::{
        Aborted, Backend, Parallel, ParallelError, Prefer, delayed, parallel_config, register_parallel_backend,
    },
};
use serde::{Deserialize, Serialize, Serializer, ser};
use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    iter, process,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

const BACKENDS: [&str; 2] = ["threading", "process"];

fn square(x: u64) -> u64 {
    x * x
}

/// In which process and on which thread a call is made.
type Place = (u32, String);

fn place(_: u32) -> Place {
    (process::id(), format!("{:?}", thread::current().id()))
}

/// Two workers of a test's own: those of the shared pool may be busy with other tests' calls.
fn pool(backend: &str) -> Arc<dyn Executor> {
    match backend {
        "threading" => Arc::new(ThreadPoolExecutor::new(2).unwrap()),
        _ => Arc::new(ProcessPoolExecutor::new(2).unwrap()),
    }
}

fn on(pool: &Arc<dyn Executor>) -> Parallel {
    Parallel::new().backend(Arc::clone(pool))
}

/// In a process of its own, which has its own shared pool.
fn alone(program: fn(())) {
    ProcessPoolExecutor::new(1).unwrap().submit(program, ()).result().unwrap();
}

/// A call that lasts until it is asked to stop, or stopped.
fn endless(_: u64) -> u64 {
    while !current_task().is_cancelled() {
        thread::sleep(Duration::from_millis(1));
    }
    0
}

/// JOB-01, JOB-02: what the loop gives, whatever makes the calls, and however many of them at a time.
#[test]
fn it_gives_what_the_loop_gives() {
    for backend in ["threading", "process", "loky", "sequential"] {
        for n_jobs in [1, 2, -1, -2, 7] {
            let parallel = Parallel::new().n_jobs(n_jobs).backend(backend);
            let calls =
                (0..25_u64).map(|x| delayed(|(x, y, name): (u64, u64, String)| (x * y, name))((x, 3, x.to_string())));
            let expected: Vec<_> = (0..25).map(|x| (3 * x, x.to_string())).collect();
            assert_eq!(parallel.run(calls).unwrap(), expected, "{backend}, {n_jobs}");
        }
    }
}

/// JOB-02: calls of different functions, with different arguments, in one loop.
#[test]
fn functions_may_be_mixed() {
    for backend in BACKENDS {
        let calls = (0..12_u64).map(|x| match x % 3 {
            0 => delayed(square)(x),
            1 => delayed(|(x, y)| x + y)((x, 1)),
            _ => delayed(|text: String| text.len() as u64)("x".repeat(x as usize)),
        });
        let results = Parallel::new().n_jobs(2).backend(backend).batch_size(3).run(calls).unwrap();
        assert_eq!(results, [0, 2, 2, 9, 5, 5, 36, 8, 8, 81, 11, 11]);
    }
}

thread_local! {
    static EVENTS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn note(what: &str, x: u64) -> u64 {
    EVENTS.with_borrow_mut(|events| events.push(format!("{what}{x}")));
    x
}

/// JOB-03: one worker is the calling thread, whatever the backend; taking from the input and calling alternate, by batches.
#[test]
fn one_worker_is_the_calling_thread() {
    for backend in BACKENDS {
        for (size, expected) in [(1, "+0 0 +1 1 +2 2 +3 3 +4 4 +5 5"), (4, "+0 +1 +2 +3 0 1 2 3 +4 +5 4 5")] {
            let parallel = Parallel::new().backend(backend).batch_size(size);
            let calls = || (0..6).map(|x| delayed(|x| note("", x))(note("+", x)));
            assert_eq!(parallel.run(calls()).unwrap(), [0, 1, 2, 3, 4, 5]);
            assert_eq!(EVENTS.take().join(" "), expected, "{backend}");
            let mut generator = parallel.generator(calls()).unwrap();
            assert!(EVENTS.with_borrow(Vec::is_empty), "nothing was asked for");
            assert_eq!(generator.next().unwrap().unwrap(), 0);
            drop(generator);
            assert!(expected.starts_with(&EVENTS.take().join(" ")));
        }
        let error = Parallel::new().backend(backend).run([delayed(|x: u32| 1 / x)(0)]).unwrap_err();
        assert!(error.task().unwrap().panic_location().unwrap().contains("tests/parallel.rs"), "{error}");
        assert!(error.to_string().contains("submitted at tests/parallel.rs"), "{error}");
    }
}

/// JOB-04, JOB-32: no workers are an error. What is no whole number does not compile.
#[test]
fn no_workers_are_refused() {
    for backend in BACKENDS {
        let error = Parallel::new().n_jobs(0).backend(backend).run([delayed(square)(1)]).unwrap_err();
        assert!(matches!(error, ParallelError::Build(BuildError::Jobs)), "{error}");
    }
    register_parallel_backend("none", |_| Ok(Arc::new(ThreadPoolExecutor::new(0)?)));
    let error = Parallel::new().n_jobs(2).backend("none").run([delayed(square)(1)]).unwrap_err();
    assert!(error.to_string().starts_with("max_workers is 0"), "{error}");
}

/// JOB-05: backends have names, also those that a program brings along; an unknown one is told which there are.
#[test]
fn backends_have_names() {
    for backend in BACKENDS {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        MADE.store(0, Ordering::Relaxed);
        let name = format!("own {backend}");
        register_parallel_backend(name.clone(), |_| panic!("it is replaced"));
        register_parallel_backend(name.clone(), move |n_jobs| {
            MADE.fetch_add(n_jobs.get(), Ordering::Relaxed);
            Ok(pool(backend))
        });
        let parallel = Parallel::new().n_jobs(3).backend(&*name);
        for _ in 0..2 {
            assert_eq!(parallel.run((0..3).map(|x| delayed(square)(x))).unwrap(), [0, 1, 4]);
        }
        assert_eq!(MADE.load(Ordering::Relaxed), 3, "once, and kept");
        let error = Parallel::new().backend("dask").run([delayed(square)(1)]).unwrap_err();
        let told = error.to_string();
        assert!(told.starts_with("there is no backend \"dask\"; there are sequential, threading, process, "), "{told}");
        assert!(told.contains(&name), "{told}");
    }
}

/// JOB-06: a backend that cannot be had is an error that says why.
#[test]
fn a_backend_that_cannot_be_had_says_why() {
    for backend in BACKENDS {
        let name = format!("broken {backend}");
        register_parallel_backend(name.clone(), |_| Err(BuildError::Unsupported("not on Sundays".into())));
        let error = Parallel::new().n_jobs(2).backend(&*name).run([delayed(square)(1)]).unwrap_err();
        assert_eq!(error.to_string(), "not on Sundays");
    }
}

/// Whether such a parallel call's calls are made in this process.
fn is_here(parallel: &Parallel) -> bool {
    let places = parallel.run((0..2).map(|x| delayed(place)(x))).unwrap();
    assert!(places.iter().all(|(_, thread)| *thread != place(0).1 || places[0].0 != process::id()), "not this thread");
    places[0].0 == process::id()
}

/// JOB-07: a hint decides where nothing else does.
#[test]
fn a_hint_gives_way_to_a_choice() {
    let two = || Parallel::new().n_jobs(2);
    assert!(!is_here(&two()) && !is_here(&two().prefer(Prefer::Processes)) && is_here(&two().prefer(Prefer::Threads)));
    assert!(!is_here(&two().prefer(Prefer::Threads).backend("process")));
    assert!(is_here(&two().prefer(Prefer::Processes).backend("threading")));
    parallel_config(Parallel::new().backend("process"), || assert!(!is_here(&two().prefer(Prefer::Threads))));
    parallel_config(Parallel::new().backend("threading"), || assert!(is_here(&two().prefer(Prefer::Processes))));
    parallel_config(Parallel::new().prefer(Prefer::Threads), || assert!(is_here(&two())));
}

/// JOB-08, JOB-35 [threads], JOB-34 [threads]: where memory must be shared, calls are closures that borrow and change what is
/// around; a backend that was chosen around gives way, and one that was chosen for this call does not.
#[test]
fn shared_memory_is_a_constraint() {
    for n_jobs in [1, 2, 3] {
        let mut words = ["c b a", "f e d", "i h g"].map(|words| words.split(' ').collect::<Vec<_>>());
        let count = Mutex::new(0);
        let sort = || {
            let calls = words.iter_mut().map(|row| {
                let count = &count;
                move || {
                    row.sort();
                    *count.lock().unwrap() += row.len();
                    row[0]
                }
            });
            Parallel::new().n_jobs(n_jobs).prefer(Prefer::Threads).require_sharedmem().run(calls)
        };
        let first = parallel_config(Parallel::new().backend("process"), sort).unwrap();
        assert_eq!((first, count.into_inner().unwrap()), (vec!["a", "d", "g"], 9));
        assert_eq!(words[2], ["g", "h", "i"]);
    }
    let calls = || [|| process::id()];
    for wrong in [
        Parallel::new().n_jobs(2).backend("process"),
        Parallel::new().n_jobs(2).backend(pool("threading")),
        Parallel::new().n_jobs(2).prefer(Prefer::Processes),
        Parallel::new().n_jobs(2).timeout(Duration::from_secs(1)),
    ] {
        let error = wrong.require_sharedmem().run(calls()).unwrap_err();
        assert!(matches!(error, ParallelError::Conflict(_)), "{error}");
    }
}

/// JOB-08 [processes]: for processes that were chosen for this very call it is an error, which says so.
#[test]
fn processes_share_no_memory() {
    let error = Parallel::new().backend("process").require_sharedmem().run([|| 1]).unwrap_err();
    assert!(error.to_string().contains("shared memory is required"), "{error}");
}

/// JOB-23 [threads]: also of calls that borrow, the first error is that of the whole, and the rest is not made.
#[test]
fn an_error_ends_calls_that_borrow() {
    let made = AtomicUsize::new(0);
    let calls = (0..1000).map(|x| {
        let made = &made;
        move || {
            made.fetch_add(1, Ordering::Relaxed);
            assert!(x != 1, "one is wrong");
        }
    });
    let error = Parallel::new().n_jobs(2).require_sharedmem().run(calls).unwrap_err();
    assert_eq!(error.task().unwrap().panic_message(), Some("one is wrong"));
    assert!(made.into_inner() < 20);
}

/// JOB-09: choices around are inherited, by nested ones too; those of the call itself win, and other threads have none.
#[test]
fn choices_around_are_inherited() {
    for (backend, other) in [("threading", "process"), ("process", "threading")] {
        let chosen = || (is_here(&Parallel::new()), is_here(&Parallel::new().n_jobs(2).backend(other)));
        let here = backend == "threading";
        parallel_config(Parallel::new().n_jobs(2).backend(backend), || {
            assert_eq!(chosen(), (here, !here));
            parallel_config(Parallel::new().n_jobs(3), || assert_eq!(chosen(), (here, !here)));
            parallel_config(Parallel::new().backend(other), || assert!(is_here(&Parallel::new()) != here));
            assert_eq!(chosen(), (here, !here));
            let elsewhere = thread::spawn(|| Parallel::new().run([delayed(place)(0)]).unwrap() == [place(0)]);
            assert!(elsewhere.join().unwrap(), "nothing is chosen on that thread: it makes the call itself");
        });
        let thrown = std::panic::catch_unwind(|| {
            parallel_config(Parallel::new().n_jobs(0), || panic!("on purpose"));
        });
        assert!(thrown.is_err());
        assert_eq!(Parallel::new().backend(backend).run([delayed(place)(0)]).unwrap(), [place(0)], "all are left");
    }
}

/// JOB-11: a list, results in order, results as they come.
#[test]
fn results_come_in_three_ways() {
    for backend in BACKENDS {
        let pool = pool(backend);
        let gate = Gate::new();
        let calls = |gate: &Gate| {
            let slow = delayed(|(x, key): (u64, Key)| {
                pass(key);
                x
            })((0, gate.key()));
            iter::once(slow).chain((1..=3).map(|x| delayed(square)(x))).collect::<Vec<_>>()
        };
        let mut unordered = on(&pool).batch_size(1).generator_unordered(calls(&gate)).unwrap();
        let quick: HashSet<_> = unordered.by_ref().take(3).map(Result::unwrap).collect();
        assert_eq!(quick, HashSet::from([1, 4, 9]));
        assert_eq!(unordered.remaining(), Some(1));
        gate.open();
        assert_eq!(unordered.next().unwrap().unwrap(), 0);
        assert!(unordered.next().is_none() && unordered.next().is_none());

        let gate = Gate::new();
        let ordered = on(&pool).batch_size(1).generator(calls(&gate)).unwrap();
        gate.await_arrivals(1);
        gate.open();
        assert_eq!(ordered.map(Result::unwrap).collect::<Vec<_>>(), [0, 1, 4, 9]);
        gate.open();
        assert_eq!(on(&pool).run(calls(&gate)).unwrap(), [0, 1, 4, 9]);
    }
}

/// JOB-11: of a generator, a failed call is an error at its place, and the others go on.
#[test]
fn a_generator_goes_on_after_a_failure() {
    for backend in BACKENDS {
        let results = Parallel::new().n_jobs(2).backend(backend).generator((0..6).map(|x| delayed(|x: u32| 60 / x)(x)));
        let results: Vec<_> = results.unwrap().collect();
        assert_eq!(results[0].as_ref().unwrap_err().task().unwrap().panic_message(), Some("attempt to divide by zero"));
        assert_eq!(results.iter().flatten().collect::<Vec<_>>(), [&60, &30, &20, &15, &12]);
    }
}

/// JOB-12, JOB-13, JOB-20: a generator begins at once, takes so much from its input and no more while nobody takes its results.
#[test]
fn a_generator_begins_at_once_and_does_not_run_ahead() {
    for backend in BACKENDS {
        let (pool, log, taken) = (pool(backend), Log::new(), Cell::new(0));
        let path = log.path();
        let calls = (0_usize..).map(|x| {
            taken.set(taken.get() + 1);
            delayed(|(x, log): (usize, String)| {
                append(&log, "made");
                x
            })((x, path.clone()))
        });
        let mut generator = on(&pool).pre_dispatch("3*n_jobs").batch_size(1).generator(calls).unwrap();
        assert_eq!(taken.get(), 6);
        eventually("they are made unasked", || log.lines().len() == 6);
        for x in 0..50 {
            assert_eq!(generator.next().unwrap().unwrap(), x);
            assert!(taken.get() <= x + 1 + 12, "{} were taken for {x}", taken.get());
        }
        let Aborted { unused, cancelled } = generator.abort();
        assert_eq!(unused + cancelled, taken.get() - 50);
    }
}

/// JOB-20: what comes from the input next comes after a completion, of whichever call: a slow one holds up nobody.
#[test]
fn a_slow_call_holds_up_no_other() {
    for backend in BACKENDS {
        let (pool, gate, log) = (pool(backend), Gate::new(), Log::new());
        let (key, path) = (gate.key(), log.path());
        let run = thread::spawn(move || {
            let slow = delayed(pass)(key);
            let quick = (0..40).map(|_| delayed(|log: String| append(&log, "made"))(path.clone()));
            on(&pool).pre_dispatch(3).batch_size(1).run(iter::once(slow).chain(quick)).map(|results| results.len())
        });
        eventually("all others are made", || log.lines().len() == 40);
        gate.open();
        assert_eq!(run.join().unwrap().unwrap(), 41);
    }
}

/// JOB-20: as a number, all, or arithmetic; what is none of these is an error that says what it should be.
#[test]
fn pre_dispatch_is_a_number_or_arithmetic() {
    for backend in BACKENDS {
        let pool = pool(backend);
        let taken_by = |parallel: Parallel| {
            let gate = Gate::new();
            let taken = Cell::new(0);
            let calls = (0..30).map(|_| delayed(pass)(gate.key())).inspect(|_| taken.set(taken.get() + 1));
            let generator = parallel.batch_size(1).generator(calls)?;
            gate.open();
            drop(generator);
            Ok::<_, ParallelError>(taken.get())
        };
        assert_eq!(taken_by(on(&pool)).unwrap(), 4);
        assert_eq!(taken_by(on(&pool).pre_dispatch(7)).unwrap(), 7);
        assert_eq!(taken_by(on(&pool).pre_dispatch("all")).unwrap(), 30);
        assert_eq!(taken_by(on(&pool).pre_dispatch("n_jobs + 1")).unwrap(), 3);
        for wrong in [on(&pool).pre_dispatch("2*jobs"), on(&pool).pre_dispatch(0), on(&pool).pre_dispatch(-1)] {
            let told = taken_by(wrong).unwrap_err().to_string();
            assert!(told.starts_with("pre_dispatch is "), "{told}");
        }
    }
}

/// JOB-14, JOB-16: aborting a generator cancels what it has under way, and nothing else of the same pool; it says what that was.
#[test]
fn an_aborted_generator_takes_only_its_own_calls_along() {
    for backend in BACKENDS {
        let (pool, mine, others) = (pool(backend), Gate::new(), Gate::new());
        let other = pool.submit(pass, others.key());
        others.await_arrivals(1);
        let calls = (0..50).map(|_| delayed(pass)(mine.key()));
        let generator = on(&pool).batch_size(1).pre_dispatch(5).generator(calls).unwrap();
        mine.await_arrivals(1);
        let waits = pool.submit(square, 5);
        assert_eq!(generator.abort(), Aborted { unused: 0, cancelled: 5 });
        mine.open();
        others.open();
        assert_eq!(waits.result().unwrap(), 25);
        other.result().unwrap();
        assert!(pool.shutdown(Shutdown::wait()).is_complete());
        assert_eq!(mine.arrived(), 1, "the others were cancelled");
    }
}

/// JOB-15: one object makes two calls at once, and so do two; their results do not mix.
#[test]
fn two_calls_at_once_do_not_mix() {
    for backend in BACKENDS {
        let parallel = Parallel::new().n_jobs(2).backend(backend);
        let mut first = parallel.generator((0..50).map(|x| delayed(square)(x))).unwrap();
        let mut second = parallel.generator((0..50).map(|x| delayed(|x: u64| x + 1)(x))).unwrap();
        for x in 0..50 {
            assert_eq!(first.next().unwrap().unwrap(), x * x);
            assert_eq!(second.next().unwrap().unwrap(), x + 1);
        }
        thread::scope(|scope| {
            for n in 1..4 {
                let parallel = &parallel;
                scope.spawn(move || {
                    let results = parallel.run((0..30).map(|x| delayed(|(x, n): (u64, u64)| x * n)((x, n)))).unwrap();
                    assert!(results.into_iter().eq((0..30).map(|x| x * n)));
                });
            }
        });
    }
}

/// JOB-17: when the awaited result is late, the call as a whole ends, and what is not done is aborted; as a list, as generators.
#[test]
fn a_late_result_ends_the_whole() {
    for backend in BACKENDS {
        promptly(move || {
            let parallel = Parallel::new().n_jobs(2).backend(backend).timeout(Duration::from_millis(50));
            let calls = || (0..30).map(|x| delayed(endless)(x));
            let error = parallel.run(calls()).unwrap_err();
            assert!(error.is_timeout() && error.task().is_none(), "{error}");
            assert_eq!(error.to_string(), "the next result was not there within 50ms; 0 were before");
            let unordered = parallel.generator_unordered(calls()).unwrap();
            for mut generator in [parallel.generator(calls()).unwrap(), unordered] {
                assert!(generator.next().unwrap().unwrap_err().is_timeout());
                assert!(generator.next().is_none() && generator.remaining() == Some(0));
            }
            let calm = Parallel::new().n_jobs(2).backend(backend);
            assert_eq!(calm.run([delayed(square)(3)]).unwrap(), [9], "workers are there again");
        });
    }
}

/// JOB-18: with one worker, the limit is that of each call, which is asked to stop.
#[test]
fn one_worker_has_a_limit_too() {
    for backend in BACKENDS {
        promptly(move || {
            let parallel = Parallel::new().backend(backend).timeout(Duration::from_millis(50));
            let error = parallel.run([delayed(square)(1), delayed(endless)(1)]).unwrap_err();
            assert!(error.is_timeout() && error.task().unwrap().is_timed_out(), "{error}");
        });
    }
}

/// JOB-19: a call that takes too long costs its own result, and no other.
#[test]
fn one_late_call_costs_one_result() {
    for backend in BACKENDS {
        promptly(move || {
            let parallel = Parallel::new().n_jobs(2).backend(backend).task_timeout(Duration::from_secs(1));
            let calls = (0..6).map(|x| if x == 2 { delayed(endless)(x) } else { delayed(square)(x) });
            let outcomes = parallel.outcomes(calls).unwrap();
            assert!(outcomes[2].as_ref().unwrap_err().is_timed_out());
            assert_eq!(outcomes.iter().flatten().collect::<Vec<_>>(), [&0, &1, &9, &16, &25]);
        });
    }
}

/// JOB-21 [threads]: on threads batches are of one call, unless told.
#[test]
fn batches_on_threads_are_chosen() {
    let tasks = |parallel: Parallel| {
        let parallel = parallel.n_jobs(2).backend("threading");
        let tasks = parallel.run((0..200).map(|_| delayed(|()| current_task().id().unwrap().number())(()))).unwrap();
        tasks.into_iter().collect::<HashSet<_>>().len()
    };
    assert_eq!(tasks(Parallel::new()), 200);
    assert_eq!(tasks(Parallel::new().batch_size(8)), 25);
    assert_eq!(tasks(Parallel::new().batch_size(150)), 2);
}

/// JOB-21 [processes]: a batch is lost as a whole with its worker, and no other is.
#[test]
fn a_batch_is_lost_with_its_worker() {
    let pool = pool("process");
    let exits = |x: u64| if x == 2 { process::exit(7) } else { x };
    let outcomes = on(&pool).batch_size(4).outcomes((0..12).map(|x| delayed(exits)(x))).unwrap();
    for (x, outcome) in (0..).zip(outcomes) {
        match outcome {
            Ok(value) => assert!(x >= 4 && value == x),
            Err(error) => assert!(x < 4 && error.is_worker_lost(), "{x}: {error}"),
        }
    }
    // Short calls go together by themselves.
    let pids = on(&pool).run((0..20_000).map(|_| delayed(|()| process::id())(()))).unwrap();
    assert_eq!(pids.len(), 20_000);
}

/// JOB-22.
#[test]
#[should_panic(expected = "a batch must hold at least one call, not zero")]
fn a_batch_of_none_is_refused() {
    let _ = Parallel::new().batch_size(0);
}

/// JOB-23: the first error ends the whole at once, whatever else is under way or still to come; the object is as good as new.
#[test]
fn the_first_error_aborts_the_rest() {
    for backend in BACKENDS {
        promptly(move || {
            let pool = pool(backend);
            let parallel = on(&pool);
            let fails = delayed(|x: u64| if x == 0 { panic!("the first") } else { x })(0);
            let calls = iter::once(delayed(endless)(0)).chain([fails]).chain((0..100).map(|x| delayed(endless)(x)));
            let error = parallel.run(calls).unwrap_err();
            assert_eq!(error.task().unwrap().panic_message(), Some("the first"));
            assert_eq!(parallel.run((0..3).map(|x| delayed(square)(x))).unwrap(), [0, 1, 4]);
        });
    }
}

/// JOB-23 [processes]: what runs in worker processes is stopped with them.
#[test]
fn an_error_stops_what_runs_in_processes() {
    promptly(|| {
        let pool = pool("process");
        let gate = Gate::new();
        let fails = delayed(|(_, log): Key| {
            eventually("the other one runs", || std::fs::read_to_string(&log).is_ok_and(|text| !text.is_empty()));
            panic!("no");
        })(gate.key());
        on(&pool).batch_size(1).run([delayed(pass)(gate.key()), fails]).unwrap_err();
        assert!(pool.shutdown(Shutdown::wait()).is_complete(), "the gate is closed still");
    });
}

/// JOB-25: a panic of the input reaches the caller, and the rest is aborted.
#[test]
fn a_panic_of_the_input_reaches_the_caller() {
    for backend in BACKENDS {
        promptly(move || {
            let parallel = Parallel::new().n_jobs(2).backend(backend);
            let calls = || (0..100).map(|x| if x == 3 { panic!("no more") } else { delayed(endless)(x) });
            let run = || parallel.run(calls());
            let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_err();
            assert_eq!(panic.downcast_ref::<&str>(), Some(&"no more"));
            assert_eq!(parallel.run([delayed(square)(2)]).unwrap(), [4]);
        });
    }
}

#[derive(Debug, Deserialize)]
struct Stays;

impl Serialize for Stays {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(ser::Error::custom("it stays"))
    }
}

/// JOB-26 [processes]: an argument that cannot be sent is an error that names its type.
#[test]
fn an_argument_that_cannot_be_sent_is_named() {
    let parallel = Parallel::new().n_jobs(2).backend("process");
    let error = parallel.run((0..3).map(|_| delayed(|_: Stays| 1)(Stays))).unwrap_err();
    assert!(error.task().unwrap().is_codec() && error.to_string().contains("Stays"), "{error}");
}

/// JOB-27.
#[test]
fn nothing_gives_nothing() {
    for backend in BACKENDS {
        let parallel = Parallel::new().n_jobs(2).backend(backend);
        assert_eq!(parallel.run::<u64>([]).unwrap(), [0; 0]);
        assert!(parallel.outcomes::<u64>(None).unwrap().is_empty());
        assert!(parallel.generator::<u64, _>([]).unwrap().next().is_none());
        assert!(parallel.generator_unordered::<u64, _>(Vec::new()).unwrap().next().is_none());
    }
}

/// JOB-28, JOB-29 [processes]: workers are kept: an object's threads until it is dropped, and processes for any object after it.
#[test]
fn workers_are_kept() {
    let workers = |parallel: &Parallel| {
        let places = parallel.run((0..40).map(|x| delayed(place)(x))).unwrap();
        places.into_iter().collect::<HashSet<_>>()
    };
    let parallel = Parallel::new().n_jobs(2).backend("threading");
    let all: HashSet<_> = (0..5).flat_map(|_| workers(&parallel)).collect();
    assert!(all.len() <= 2, "{all:?}");
    let others = workers(&Parallel::new().n_jobs(2).backend("threading"));
    assert!(others.is_disjoint(&all));
    alone(|()| {
        let workers = || {
            let parallel = Parallel::new().n_jobs(2).backend("process");
            (0..2).flat_map(|_| parallel.run((0..40).map(|x| delayed(place)(x))).unwrap()).collect::<HashSet<_>>()
        };
        let all: HashSet<_> = (0..3).flat_map(|_| workers()).collect();
        assert!(all.len() <= 2, "{all:?}");
        let pool = ProcessPoolExecutor::shared().unwrap();
        assert!(pool.worker_pids().contains(&all.iter().next().unwrap().0), "it is the program's shared pool");
    });
}

/// JOB-31: from any thread, whatever its name.
#[test]
fn it_works_on_any_thread() {
    for backend in BACKENDS {
        let thread = thread::Builder::new().name("background".into());
        let run = move || Parallel::new().n_jobs(2).backend(backend).run((0..3).map(|x| delayed(square)(x))).unwrap();
        assert_eq!(thread.spawn(run).unwrap().join().unwrap(), [0, 1, 4]);
    }
}

/// JOB-33 [threads]: calls on threads see what was assigned before.
#[test]
fn threads_see_what_was_assigned() {
    static SET: AtomicUsize = AtomicUsize::new(0);
    let parallel = Parallel::new().n_jobs(2).backend("threading");
    for value in [7, 8] {
        SET.store(value, Ordering::Relaxed);
        assert_eq!(parallel.run([delayed(|()| SET.load(Ordering::Relaxed))(())]).unwrap(), [value]);
    }
}

/// JOB-34: closures, functions within functions, and those that call themselves.
#[test]
fn functions_need_no_name_and_no_place() {
    fn factorial(n: u64) -> u64 {
        if n == 0 { 1 } else { n * factorial(n - 1) }
    }
    for backend in BACKENDS {
        let calls = (0..5).map(|n| {
            let with_next = |n| {
                let next = |x| x + 1;
                factorial(n) + next(n)
            };
            delayed(with_next)(n)
        });
        assert_eq!(Parallel::new().n_jobs(2).backend(backend).run(calls).unwrap(), [2, 3, 5, 10, 29]);
    }
}

/// MEM-01: a large array that each call has is mapped, not copied, when it is `Shared`.
#[test]
fn large_arguments_are_mapped() {
    for backend in BACKENDS {
        let data = Shared::new(vec![1_u64; 1 << 16]).unwrap();
        let sum = |(data, range): (Shared<[u64]>, (usize, usize))| data[range.0..range.1].iter().sum::<u64>();
        let calls = (0..8).map(|part| delayed(sum)((data.clone(), (part << 13, (part + 1) << 13))));
        assert_eq!(Parallel::new().n_jobs(2).backend(backend).run(calls).unwrap(), [1 << 13; 8]);
    }
}

/// Where a call is made, and where the calls are that it makes in parallel, and those that these make.
fn levels(x: u32) -> (Place, Vec<(Place, Vec<Place>)>) {
    let inner = |x| (place(x), Parallel::new().n_jobs(2).run((0..2).map(|x| delayed(place)(x))).unwrap());
    (place(x), Parallel::new().n_jobs(2).run((0..2).map(|x| delayed(inner)(x))).unwrap())
}

/// NEST-06: the first level has the chosen backend, the second one threads, and the third none; so it is in the calls of any pool.
#[test]
fn inner_levels_have_fewer_workers() {
    for backend in BACKENDS {
        let outer = Parallel::new().n_jobs(2).backend(backend).run((0..2).map(|x| delayed(levels)(x))).unwrap();
        let of_pool = pool(backend).map(levels, 0..2).map(Result::unwrap).collect::<Vec<_>>();
        for (first, second) in outer.into_iter().chain(of_pool) {
            assert_eq!(first.0 == process::id(), backend == "threading");
            for (second, third) in second {
                assert!(second.0 == first.0 && second.1 != first.1, "a thread: {first:?}, {second:?}");
                assert!(third.iter().all(|third| *third == second), "the same thread: {second:?}, {third:?}");
            }
        }
    }
}

/// NEST-07: without end, whatever is chosen.
#[test]
fn recursion_without_end_is_an_error() {
    fn deeper((backend, level): (String, u32)) -> (u32, String) {
        // One branch only, so that it is as deep as it can be, and no wider.
        let parallel = Parallel::new().n_jobs(2).backend(&*backend);
        match parallel.run([delayed(deeper)((backend, level + 1))]) {
            Ok(mut found) => found.remove(0),
            Err(error) => (level, error.to_string()),
        }
    }
    for backend in BACKENDS {
        promptly(move || {
            let (level, error) = deeper((backend.into(), 0));
            assert!(level == 10 && error.contains("nested 10 deep"), "{level}: {error}");
        });
    }
}

/// JOB-01, NEST-09: what there is to share out is shared out once.
#[test]
fn inner_counts_are_of_what_is_left() {
    // As many workers as processors leave one for each of them.
    let inner = |_: u32| Parallel::new().n_jobs(-1).run((0..2).map(|x| delayed(place)(x))).unwrap();
    for backend in BACKENDS {
        let n_jobs = i64::try_from(cpu_count().get()).unwrap().max(2);
        let places = alone_or_here(backend, n_jobs, inner);
        assert!(places.windows(2).all(|pair| pair[0] == pair[1]), "{backend}: {places:?}");
    }
}

/// In a pool of its own: what libraries are told in the shared one was decided as it was made.
fn alone_or_here(backend: &str, n_jobs: i64, inner: fn(u32) -> Vec<Place>) -> Vec<Place> {
    let parallel = Parallel::new().n_jobs(n_jobs);
    let parallel = match backend {
        "threading" => parallel.backend(backend),
        _ => parallel.backend(Arc::new(ProcessPoolExecutor::new(n_jobs as usize).unwrap())),
    };
    parallel.run([delayed(inner)(0)]).unwrap().remove(0)
}

/// What every executor does, without workers.
#[test]
fn a_sequential_executor_is_an_executor() {
    let here: Box<dyn Executor> = Box::new(SequentialExecutor::new());
    let future = here.submit(place, 0);
    assert!(future.done() && !future.cancel());
    assert_eq!(future.result().unwrap(), place(0));
    let squares: Vec<_> = here.map(square, 0..).take(4).map(Result::unwrap).collect();
    assert_eq!(squares, [0, 1, 4, 9]);
    let failed = here.map(|x: u32| 6 / x, [1, 0, 2]).unordered().filter(Result::is_err).count();
    assert_eq!((failed, here.max_workers().get()), (1, 1));
    let inner = here.submit(|()| SequentialExecutor::new().submit(square, 3).result().unwrap(), ());
    assert_eq!(inner.result().unwrap(), 9);
    let limited = here.with(TaskOptions::new().time_limit(Duration::from_millis(20)));
    assert!(limited.submit(endless, 0).result().unwrap_err().is_timed_out());
    let attempts = here.with(TaskOptions::new().retry(RetryPolicy::attempts(3)));
    assert_eq!(attempts.submit(|x: u32| 1 / x, 0).result().unwrap_err().attempts(), 3);
    assert!(here.shutdown(Shutdown::wait()).is_complete());
    assert!(here.submit(square, 1).result().unwrap_err().is_shutdown());
    assert!(here.try_submit(square, 1).is_err());
}

/// A backend is what it is called.
#[test]
fn backends_tell_their_names() {
    let told =
        ["threads", "multiprocessing", "sequential"].map(|name| format!("{:?}", Backend::try_from(name).unwrap()));
    assert_eq!(told, ["Backend(threading)", "Backend(process)", "Backend(sequential)"]);
    let parallel = Parallel::new().n_jobs(2).backend("threading");
    assert!(format!("{parallel:?}").contains("n_jobs: Some(2), backend: Some(Backend(threading))"), "{parallel:?}");
    fn both<T: Send + Sync>(_: &T) {}
    both(&parallel);
}
