//! What a dying process may cost: its own task, and nothing else.

use crate::{
    suite::future::OnlyEven,
    support::{DEADLINE, Gate, Key, Limit, Log, append, eventually, pass, tries},
};
use concurrent_futures::{Context as SharedContext, Executor, Exit, ProcessPoolExecutor, TaskError};
use rustix::process::Resource;
use std::{
    env, fs, io,
    process::{self, Command, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
};

fn pool(workers: usize) -> ProcessPoolExecutor {
    ProcessPoolExecutor::new(workers).unwrap()
}

fn kill(pid: u32, signal: &str) {
    let status = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status().unwrap();
    assert!(status.success(), "kill -{signal} {pid}");
}

fn fails(how: String) {
    match how.as_str() {
        "exit" => process::exit(3),
        "abort" => {
            eprintln!("last words");
            process::abort()
        }
        "SIGKILL" => kill(process::id(), "KILL"),
        "SIGTERM" => kill(process::id(), "TERM"),
        other => unreachable!("{other}"),
    }
    unreachable!("{how} has ended this process")
}

fn signal_of(error: &TaskError) -> &str {
    match &error.worker_lost().expect("a lost worker").exit {
        Exit::Signal { name, .. } => name,
        other => panic!("not a signal: {other:?}"),
    }
}

/// PP-07, PP-10, PP-11, PP-29: a lost worker's error says how it ended, and what it said last. (Each way to fail is in
/// `fault_matrix`.)
#[test]
fn a_lost_worker_says_how_it_ended() {
    let pool = pool(1);
    let ending = |how: &str| pool.submit(fails, how.to_owned()).result().unwrap_err();
    let error = ending("abort");
    assert_eq!((signal_of(&error), &*error.worker_lost().unwrap().stderr), ("SIGABRT", "last words"));
    assert!(error.to_string().contains("was ended by SIGABRT while it ran the call"), "{error}");
    for signal in ["SIGKILL", "SIGTERM"] {
        assert_eq!(signal_of(&ending(signal)), signal);
    }
    assert_eq!(ending("exit").worker_lost().unwrap().exit, Exit::Code(3));
}

/// PP-14: a worker that dies while it is idle costs nothing.
#[test]
fn an_idle_death_costs_nothing() {
    let pool = pool(1);
    for x in 0..5 {
        assert_eq!(pool.submit(|x: u32| x, x).result().unwrap(), x);
        kill(pool.worker_pids()[0], "KILL");
    }
    assert_eq!(pool.submit(|x: u32| x, 9).result().unwrap(), 9);
}

/// PP-12: a hundred tasks of which every tenth kills its worker, on three workers.
#[test]
fn many_deaths_cost_exactly_their_tasks() {
    let pool = pool(3);
    let futures: Vec<_> = (0..100)
        .map(|x| {
            pool.submit(
                |x: u32| {
                    if x % 10 == 7 {
                        process::abort();
                    }
                    x
                },
                x,
            )
        })
        .collect();
    for (x, future) in (0..).zip(futures) {
        match future.result() {
            Ok(value) => assert!(value == x && x % 10 != 7),
            Err(error) => assert!(error.is_worker_lost() && x % 10 == 7, "{x}: {error}"),
        }
    }
}

/// CAN-10, CAN-11, CAN-13: one running call is stopped, and no other is touched.
#[test]
fn kill_stops_one_call() {
    let pool = pool(1);
    let gate = Gate::new();
    let running = pool.submit(pass, gate.key());
    gate.await_arrivals(1);
    let pid = pool.worker_pids()[0];
    let waiting: Vec<_> = (0..10).map(|x| pool.submit(|x: u32| x, x)).collect();
    let pending = pool.submit(|x: u32| x, 99);
    assert!(pending.kill() && pending.cancelled(), "what has not begun is cancelled");
    assert!(running.kill());
    let error = running.result().unwrap_err();
    assert!(error.is_killed() && !error.is_worker_lost(), "{error}");
    assert!(error.to_string().contains(&format!("worker process {pid}")), "{error}");
    for (x, future) in (0..).zip(waiting) {
        assert_eq!(future.result().unwrap(), x);
    }
    assert_ne!(pool.worker_pids(), [pid]);
    let done = pool.submit(|x: u32| x, 1);
    done.wait();
    assert!(!done.kill());
}

/// CAN-12: also one that does not heed SIGTERM. Bash, since a task of ours cannot ignore signals without `unsafe`.
#[test]
fn kill_does_not_need_consent() {
    let pool = pool(1);
    let gate = Gate::new();
    let stubborn = |(key, script): (Key, String)| -> () {
        append(&key.1, "here");
        // The worker is replaced, in the same process, by one that ignores SIGTERM and never ends.
        let error = std::os::unix::process::CommandExt::exec(Command::new("bash").args(["-c", &script]));
        panic!("bash could not be started: {error}");
    };
    let script = "trap '' TERM; while :; do sleep 0.01; done".to_owned();
    let running = pool.submit(stubborn, (gate.key(), script));
    gate.await_arrivals(1);
    let comm = format!("/proc/{}/comm", pool.worker_pids()[0]);
    eventually("bash", || fs::read_to_string(&comm).is_ok_and(|name| name == "bash\n"));
    assert!(running.kill());
    assert!(running.result().unwrap_err().is_killed());
    assert_eq!(pool.submit(|x: u32| x, 1).result().unwrap(), 1);
}

/// PP-15, PP-16: 100 MiB in either direction, and a death in the middle of both.
#[test]
fn large_arguments_and_results_pass() {
    const SIZE: usize = 100 << 20;
    let pool = pool(2);
    let bytes: Vec<u8> = (0..SIZE).map(|i| (i % 251) as u8).collect();
    let back = pool.submit(|bytes: Vec<u8>| bytes, bytes.clone()).result().unwrap();
    assert!(back == bytes);
    let text = pool.submit(|length| "x".repeat(length), SIZE).result().unwrap();
    assert_eq!(text.len(), SIZE);
    let dying = |_: Vec<u8>| process::abort();
    let lost: Vec<_> = (0..3).map(|_| pool.submit(dying, bytes.clone())).collect();
    let fine = pool.submit(|bytes: Vec<u8>| bytes.len(), bytes);
    assert_eq!(fine.result().unwrap(), SIZE);
    for future in lost {
        let ending: Result<(), TaskError> = future.result();
        assert!(ending.unwrap_err().is_worker_lost());
    }
}

/// A context is sent once to each worker, also to one that came later, and forgotten with its last handle.
#[test]
fn a_context_travels_once() {
    #[derive(serde::Serialize)]
    struct Noted(String);
    impl<'de> serde::Deserialize<'de> for Noted {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let log = String::deserialize(deserializer)?;
            append(&log, "decoded");
            Ok(Noted(log))
        }
    }
    impl Drop for Noted {
        fn drop(&mut self) {
            append(&self.0, "dropped");
        }
    }
    let log = Log::new();
    let pool = pool(1);
    let context = SharedContext::new(Noted(log.path()));
    let call = |context: &Noted, dies: bool| {
        if dies {
            process::abort();
        }
        context.0.len()
    };
    for _ in 0..20 {
        pool.submit_with(&context, call, false).result().unwrap();
    }
    assert_eq!(log.lines(), ["decoded"]);
    assert!(pool.submit_with(&context, call, true).result().unwrap_err().is_worker_lost());
    for _ in 0..5 {
        pool.submit_with(&context, call, false).result().unwrap();
    }
    assert_eq!(log.lines(), ["decoded", "decoded"]);
    drop(context);
    pool.submit(|()| (), ()).result().unwrap();
    eventually("both copies are dropped", || log.lines().len() == 4);
}

/// INI-06: a worker that dies as it is initialized is not started for ever, and the pool says why.
#[test]
fn a_crashing_initializer_breaks_the_pool() {
    let log = Log::new();
    let crash = |log: String| {
        append(&log, "tried");
        process::exit(5);
    };
    let pool = ProcessPoolExecutor::builder().max_workers(1).initializer(crash, log.path()).build().unwrap();
    let error = pool.submit(|x: u8| x, 1).result().unwrap_err();
    assert!(error.is_broken(), "{error}");
    assert!(error.to_string().contains("exited with code 5"), "{error}");
    assert!(pool.submit(|x: u8| x, 1).result().unwrap_err().is_broken());
    drop(pool);
    assert_eq!(log.lines().len(), 3);
}

/// A task is the only thing that a worker process shares with its parent: nothing stays open, nothing stays set.
#[test]
fn a_worker_starts_clean() {
    let kept = fs::File::open("/dev/null").unwrap();
    let pool = pool(1);
    let open = |()| {
        let descriptors = fs::read_dir("/proc/self/fd").unwrap();
        let names = descriptors.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
        names.map(|name| name.to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    let open = pool.submit(open, ()).result().unwrap();
    // Standard input, output and error, the channel, and the directory that is being read.
    assert_eq!(open.len(), 5, "{open:?}");
    assert_eq!(open.iter().filter(|name| name.starts_with("socket:")).count(), 1, "{open:?}");
    drop(kept);
    let marked = |()| (env::var_os("CONCURRENT_FUTURES_WORKER").is_some(), io::read_to_string(io::stdin()).unwrap());
    assert_eq!(pool.submit(marked, ()).result().unwrap(), (false, String::new()));
}

/// PP-26, PP-27: the worker's environment without its channel is an error and an exit, not a run of `main`.
#[test]
fn a_marker_without_a_channel_is_refused() {
    let output = Command::new(env::current_exe().unwrap())
        .env("CONCURRENT_FUTURES_WORKER", "stray")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(70));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("standard input is not a channel"), "{said}");
    assert!(output.stdout.is_empty(), "no test was run");
}

/// What a worker prints is the user's: standard output and error pass through.
#[test]
fn output_passes_through() {
    // Built first, so that nothing but the example speaks.
    let cargo = |verb| {
        let mut command = Command::new(env!("CARGO"));
        command.args([verb, "--quiet", "--example", "output"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        command
    };
    assert!(cargo("build").status().unwrap().success());
    let output = cargo("run").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "printed by the worker\nprinted by the parent\n");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "told by the worker\n");
}

/// A pool that is broken by one worker still gives every future its outcome when another one dies with calls in its channel.
#[test]
fn a_broken_pool_completes_what_comes_back() {
    let (log, gate) = (Log::new(), Gate::new());
    let second_fails = |log: String| {
        append(&log, "started");
        assert!(fs::read_to_string(&log).unwrap().lines().count() < 2, "the second one");
    };
    let pool = ProcessPoolExecutor::builder().max_workers(2).initializer(second_fails, log.path()).build().unwrap();
    let dies = |key| -> () {
        pass(key);
        process::exit(3)
    };
    let victim = pool.submit(dies, gate.key());
    gate.await_arrivals(1);
    let behind: Vec<_> = (0..5).map(|x| pool.submit(|x: u32| x, x)).collect();
    eventually("the pool is broken", || {
        let refused = pool.submit(|()| (), ());
        refused.done() && refused.exception().is_some_and(TaskError::is_broken)
    });
    gate.open();
    assert!(victim.result().unwrap_err().is_worker_lost());
    for future in behind {
        assert!(future.result().unwrap_err().is_broken());
    }
}

/// INI-06: neither does a pool that is closed meanwhile try for ever.
#[test]
fn a_crashing_initializer_ends_a_closed_pool() {
    let log = Log::new();
    let crash = |log: String| {
        append(&log, "tried");
        process::exit(5);
    };
    let pool = ProcessPoolExecutor::builder().max_workers(1).initializer(crash, log.path()).build().unwrap();
    let future = pool.submit(|x: u8| x, 1);
    drop(pool);
    assert!(future.result().unwrap_err().is_broken());
    assert_eq!(log.lines().len(), 3);
}

/// A worker that dies on its own once it is ready is not replaced for nothing, and not for ever.
#[test]
fn workers_that_die_idle_are_not_replaced_without_need() {
    let (log, gate) = (Log::new(), Gate::new());
    let first_dies = |(log, key): (String, Key)| {
        append(&log, "started");
        if std::fs::read_to_string(&log).unwrap().lines().count() == 1 {
            std::thread::spawn(|| {
                pass(key);
                process::abort();
            });
        }
    };
    let args = (log.path(), gate.key());
    let pool = ProcessPoolExecutor::builder().max_workers(2).initializer(first_dies, args).build().unwrap();
    assert_eq!(pool.submit(|x: u8| x, 1).result().unwrap(), 1);
    gate.open();
    eventually("its death", || pool.worker_pids().is_empty());
    assert_eq!(log.lines().len(), 1);
    assert_eq!(pool.submit(|x: u8| x, 2).result().unwrap(), 2);
    assert_eq!(log.lines().len(), 2);
}

/// A call that is killed as it ends does not take the one behind it along.
#[test]
fn kill_never_hits_the_next_call() {
    let call = |micros: u64| std::thread::sleep(std::time::Duration::from_micros(micros));
    let pool = pool(1);
    for round in tries(1500).map(u64::from) {
        let quick = pool.submit(call, 50);
        let next = pool.submit(call, 300);
        // Around the time of its end, as far as two processes agree on that.
        call(round % 150);
        quick.kill();
        assert!(next.exception().is_none(), "{:?}", next.exception());
        quick.wait();
    }
}

/// Workers' standard error goes on though this thread holds the lock of ours.
#[test]
fn a_held_standard_error_holds_nobody_up() {
    let pool = pool(1);
    let lock = io::stderr().lock();
    let loud = |lines: u32| {
        for _ in 0..lines {
            eprintln!();
        }
    };
    let future = pool.submit(loud, 3);
    assert!(future.wait_timeout(DEADLINE));
    drop(pool);
    drop(lock);
}

/// A waker is a runtime's code: it runs where callbacks run, not on the thread that serves every worker.
#[test]
fn wakers_do_not_run_on_the_driver() {
    use std::{
        pin::pin,
        sync::{Arc, mpsc},
        task::{Context, Poll, Wake, Waker},
        thread,
    };
    struct Tells(mpsc::Sender<String>);
    impl Wake for Tells {
        fn wake(self: Arc<Self>) {
            self.0.send(thread::current().name().unwrap_or_default().to_owned()).unwrap();
        }
    }
    let (pool, gate) = (pool(1), Gate::new());
    let mut future = pin!(pool.submit(pass, gate.key()));
    let (tell, told) = mpsc::channel();
    let waker = Waker::from(Arc::new(Tells(tell)));
    assert!(matches!(future.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Pending));
    gate.open();
    let name = told.recv_timeout(DEADLINE).unwrap();
    assert!(name.ends_with("-callbacks"), "{name}");
    assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
}

/// CB-07: here, on the pool's callback thread, and on this one where it cancels.
#[test]
fn callbacks_run_on_a_thread_of_their_own() {
    let (pool, gate) = (pool(1), Gate::new());
    let call = pool.submit(pass, gate.key());
    gate.await_arrivals(1);
    let cancelled = pool.submit(|()| (), ());
    let (tell, told) = mpsc::channel();
    for future in [&call, &cancelled] {
        let tell = tell.clone();
        future.add_done_callback(move |_| tell.send(thread::current()).unwrap());
    }
    assert!(cancelled.cancel());
    assert_eq!(told.try_recv().unwrap().id(), thread::current().id());
    gate.open();
    let thread = told.recv_timeout(DEADLINE).unwrap();
    assert!(thread.name().is_some_and(|name| name.ends_with("-callbacks")), "{thread:?}");
}

/// INI-05: an initializer is encoded before there is a pool.
#[test]
fn an_initializer_that_cannot_be_sent_is_refused() {
    let build = |x| ProcessPoolExecutor::builder().max_workers(1).initializer(|_: OnlyEven| (), OnlyEven(x)).build();
    assert_eq!(build(2).unwrap().submit(|x: u8| x, 1).result().unwrap(), 1);
    for x in [1, 100] {
        let refused = build(x).unwrap_err().to_string();
        assert!(refused.contains("OnlyEven") || refused.contains("one hundred panics"), "{refused}");
    }
}

/// WRK-06: what this process assigned is not there, nor are its threads.
#[test]
fn a_worker_is_a_fresh_start() {
    static ASSIGNED: AtomicU32 = AtomicU32::new(7);
    ASSIGNED.store(8, Ordering::SeqCst);
    let look = |()| (ASSIGNED.load(Ordering::SeqCst), fs::read_dir("/proc/self/task").unwrap().count());
    assert_eq!(pool(1).submit(look, ()).result().unwrap(), (7, 1));
}

/// WRK-10.
#[test]
fn workers_have_names() {
    let named = ProcessPoolExecutor::builder().max_workers(2).process_name_prefix("resize").build().unwrap();
    let gate = Gate::new();
    let calls = [named.submit(pass, gate.key()), named.submit(pass, gate.key())];
    gate.await_arrivals(2);
    let name = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap().trim().to_owned();
    let mut names: Vec<_> = named.worker_pids().iter().map(name).collect();
    names.sort_unstable();
    assert_eq!(names, ["resize-0", "resize-1"]);
    gate.open();
    calls.into_iter().for_each(|call| call.result().unwrap());
    let other = pool(1);
    other.submit(|()| (), ()).result().unwrap();
    assert!(name(&other.worker_pids()[0]).starts_with("executor-"));
}

/// WRK-03, WRK-19: seventy at the same time, whose descriptors are beyond those that `select` could watch. In a process
/// of its own, which may have so many.
#[test]
fn a_large_pool_works() {
    const WORKERS: usize = 70;
    let program = |()| {
        let _limit = Limit::set(Resource::Nofile, 4096);
        let _taken: Vec<_> = (0..1100).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        let pool = pool(WORKERS);
        let gate = Gate::new();
        let calls: Vec<_> = (0..WORKERS).map(|_| pool.submit(pass, gate.key())).collect();
        gate.await_arrivals(WORKERS);
        assert_eq!(pool.worker_pids().len(), WORKERS);
        gate.open();
        calls.into_iter().for_each(|call| call.result().unwrap());
    };
    pool(1).submit(program, ()).result().unwrap();
}

/// The descriptors of this process.
fn descriptors() -> Vec<u64> {
    let listed = fs::read_dir("/proc/self/fd").unwrap();
    listed.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect()
}

/// SUB-12: in a process of its own, which may have no descriptor more after the first worker.
#[test]
fn a_worker_that_cannot_start_holds_nothing_up() {
    let program = |()| {
        let pool = pool(2);
        let gate = Gate::new();
        let first = pool.submit(pass, gate.key());
        gate.await_arrivals(1);
        // Opens the gate without opening a file.
        let (open, _) = gate.key();
        let closed = format!("{open}.not");
        fs::File::create(&closed).unwrap();
        let limit = Limit::set(Resource::Nofile, descriptors().into_iter().max().unwrap() + 1);
        let second = pool.submit(|x: u32| x, 5);
        fs::rename(closed, open).unwrap();
        first.result().unwrap();
        assert_eq!(second.result().unwrap(), 5);
        assert_eq!(pool.worker_pids().len(), 1);
        drop(limit);
    };
    pool(1).submit(program, ()).result().unwrap();
}

/// SUB-12, WRK-17, WRK-18: wherever on its way a first worker cannot be started, the pool says so, and nothing is left.
#[test]
fn a_start_that_fails_halfway_leaves_nothing() {
    let program = |()| {
        pool(1).submit(|()| (), ()).result().unwrap(); // what is made once stays
        let before = descriptors();
        let (mut failed, mut worked) = (0, 0);
        for more in 0..12 {
            let pool = pool(1);
            let limit = Limit::set(Resource::Nofile, descriptors().into_iter().max().unwrap() + more);
            let call = pool.submit(|x: u32| x, 5);
            match call.result() {
                Ok(value) => worked += u32::from(value == 5),
                Err(why) => {
                    assert!(why.is_broken(), "{why}");
                    assert!(pool.submit(|x: u32| x, 5).result().unwrap_err().is_broken());
                    failed += 1;
                }
            }
            drop(limit);
            drop(pool);
            assert_eq!(descriptors(), before, "with {more} more");
            let children = fs::read_to_string(format!("/proc/self/task/{}/children", process::id())).unwrap();
            assert_eq!(children.trim(), "", "with {more} more");
        }
        (failed, worked)
    };
    let (failed, worked) = pool(1).submit(program, ()).result().unwrap();
    assert!(failed > 2 && worked > 2 && failed + worked == 12, "{failed} failed, {worked} worked");
}
