//! How worker processes come to be: workers that are forked from a zygote, and where a program may live that has workers.
//! Whatever else holds of worker processes is tested by the suite, which is bound to these too.

use crate::support::{
    DEADLINE, Forked, Gate, Key, Log, append, eventually, interrupts_are_ignored, pass, promptly, runs, tries,
};
use concurrent_futures::{
    BuildError, Executor, Exit, Output, ProcessPoolExecutor, Queue, Shutdown, StartMethod, TaskError,
    ThreadPoolExecutor, current_process, parent_process,
};
use rustix::process::{Resource, Rlimit, setrlimit};
use std::{
    cell::Cell,
    collections::BTreeSet,
    env, fs, io, iter,
    os::{fd::IntoRawFd, unix::process::parent_id},
    process::{self, Command},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
};

const METHODS: [StartMethod; 2] = [StartMethod::Spawn, StartMethod::ForkServer];

fn pool(method: StartMethod, workers: usize) -> ProcessPoolExecutor {
    ProcessPoolExecutor::builder().max_workers(workers).start_method(method).build().unwrap()
}

fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap().success());
}

/// Processes that this one has started, and that are not waited for, by their names.
fn children() -> Vec<(u32, String)> {
    let threads = fs::read_dir("/proc/self/task").unwrap().filter_map(Result::ok);
    let pids = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let pids: Vec<u32> =
        pids.flat_map(|pids| pids.split(' ').filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect();
    let name = |pid| fs::read_to_string(format!("/proc/{pid}/comm")).ok().map(|name| (pid, name.trim().to_owned()));
    pids.into_iter().filter_map(name).collect()
}

/// `None` also while a process that was just forked still bears another's name.
fn only_child(name: &str) -> Option<u32> {
    let mut named = children().into_iter().filter(|(pid, child)| child == name && runs(*pid));
    named.next().filter(|_| named.next().is_none()).map(|(pid, _)| pid)
}

fn await_child(name: &str) -> u32 {
    let found = Cell::new(None);
    eventually("one child of this name", || {
        found.set(only_child(name));
        found.get().is_some()
    });
    found.get().unwrap()
}

static TABLE: OnceLock<Vec<u64>> = OnceLock::new();

fn fill_table((log, length): (String, u64)) {
    append(&log, &process::id().to_string());
    TABLE.set((0..length).map(|x| x * x).collect()).unwrap();
}

fn look_up(index: usize) -> (u64, u32, u32) {
    (TABLE.get().expect("it was there before the worker was")[index], process::id(), parent_id())
}

/// PP-24: a large initial state is built once, in a process that makes no calls, and is there in each worker, also in one that
/// takes another's place. Workers are children of this process, as if it had started them.
#[test]
fn a_preload_is_made_once() {
    let (log, initialized) = (Log::new(), Log::new());
    let pool = Forked::builder(2)
        .preload(fill_table, (log.path(), 1000))
        .initializer(|log: String| append(&log, &TABLE.get().unwrap().len().to_string()), initialized.path())
        .max_tasks_per_child(2)
        .build()
        .unwrap();
    let futures: Vec<_> = (0..20).map(|index| pool.submit(look_up, index)).collect();
    let seen: Vec<_> = futures.into_iter().map(|future| future.result().unwrap()).collect();
    assert!(seen.iter().map(|(value, ..)| *value).eq((0..20).map(|x| x * x)));
    assert!(seen.iter().all(|(.., parent)| *parent == process::id()));
    let lines = log.lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(seen.iter().all(|(_, pid, _)| pid.to_string() != lines[0]));
    assert!(initialized.lines().len() >= 10 && initialized.lines().iter().all(|line| line == "1000"));
    assert!(TABLE.get().is_none(), "this process has its own");
}

/// PP-24: arguments of any size, which are there but once.
#[test]
fn a_preload_has_large_arguments() {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    let pool = Forked::builder(1).preload(|bytes| BYTES.set(bytes).unwrap(), vec![7_u8; 8 << 20]).build().unwrap();
    assert_eq!(pool.submit(|()| BYTES.get().map(Vec::len), ()).result().unwrap(), Some(8 << 20));
}

/// PP-24, PP-25, PP-10, PP-11: each way to end is told as it is, whoever has started the worker, and costs one call.
#[test]
fn each_end_is_told() {
    fn fails(how: String) {
        match how.as_str() {
            "exit" => process::exit(3),
            "abort" => {
                eprintln!("last words");
                process::abort()
            }
            signal_name => signal(process::id(), signal_name),
        }
        thread::sleep(DEADLINE);
    }
    for method in METHODS {
        let pool = pool(method, 2);
        for (how, name) in
            [("exit", None), ("abort", Some("SIGABRT")), ("KILL", Some("SIGKILL")), ("TERM", Some("SIGTERM"))]
        {
            let victim = pool.submit(fails, how.to_owned());
            let others: Vec<_> = (0..20).map(|x| pool.submit(|x: u32| x, x)).collect();
            let error = victim.result().unwrap_err();
            let lost = error.worker_lost().expect("a lost worker");
            match (&lost.exit, name) {
                (Exit::Code(3), None) => {}
                (Exit::Signal { name, .. }, Some(expected)) => assert_eq!(name, expected),
                other => panic!("{method:?}, {how}: {other:?}"),
            }
            assert_eq!(lost.stderr, if how == "abort" { "last words" } else { "" });
            for (x, other) in (0..).zip(others) {
                assert_eq!(other.result().unwrap(), x);
            }
        }
        let endless = pool.submit(|()| thread::sleep(DEADLINE * 2), ());
        eventually("it runs", || endless.running());
        assert!(endless.kill() && endless.result().unwrap_err().is_killed());
    }
}

/// PP-25: a zygote that is killed, or interrupted, takes no call with it and is replaced when the next worker is needed.
#[test]
fn a_dead_zygote_is_replaced() {
    let log = Log::new();
    let builder = Forked::builder(2).process_name_prefix("killed").preload(fill_table, (log.path(), 10));
    let pool = builder.build().unwrap();
    let mut signals = vec!["KILL", "INT", "SEGV", "KILL", "KILL"];
    if interrupts_are_ignored() {
        signals.retain(|name| *name != "INT");
    }
    for (times, name) in (2..).zip(signals) {
        let gate = Gate::new();
        let running = pool.submit(pass, gate.key());
        gate.await_arrivals(1);
        assert_eq!(pool.submit(look_up, 3).result().unwrap().0, 9);
        let zygote = await_child("killed-zygote");
        signal(zygote, name);
        eventually("it is gone", || !children().iter().any(|(pid, _)| *pid == zygote));
        assert!(!running.done());
        // Both workers must go before another one comes.
        for pid in pool.worker_pids() {
            signal(pid, "KILL");
        }
        assert!(running.result().unwrap_err().is_worker_lost());
        assert_eq!(pool.submit(look_up, 4).result().unwrap().0, 16);
        assert_eq!(log.lines().len(), times);
    }
}

/// PP-25: the worker that is to come next stands ready. If that one is killed, another does.
#[test]
fn a_dead_spare_is_replaced() {
    let pool = Forked::builder(1).process_name_prefix("ready").build().unwrap();
    let mut seen = BTreeSet::new();
    for round in 1..=3 {
        let dead = await_child("ready-spare");
        signal(dead, "KILL");
        eventually("it is waited for", || !children().iter().any(|(pid, _)| *pid == dead));
        let spare = await_child("ready-spare");
        // The only worker makes room for it.
        pool.worker_pids().into_iter().for_each(|pid| signal(pid, "KILL"));
        eventually("there is none", || pool.worker_pids().is_empty());
        assert_eq!(pool.submit(|()| process::id(), ()).result().unwrap(), spare);
        seen.extend([dead, spare]);
        assert_eq!(seen.len(), 2 * round);
    }
    let zygote = await_child("ready-zygote");
    drop(pool);
    eventually("all are gone", || !children().iter().any(|(pid, _)| *pid == zygote || seen.contains(pid)));
}

/// PP-25: a preload that leaves no descriptors for workers breaks the pool, which says so.
#[test]
fn a_preload_leaves_room_for_workers() {
    fn open_all(keep: usize) {
        let limit = Rlimit { current: Some(64), maximum: Some(64) };
        setrlimit(Resource::Nofile, limit).unwrap();
        let mut open: Vec<_> = iter::from_fn(|| fs::File::open("/dev/null").ok()).collect();
        open.truncate(open.len() - keep);
        open.into_iter().for_each(|file| _ = file.into_raw_fd());
    }
    let expected = ["Too many open files", "the zygote cannot fork", "the zygote has too many descriptors open"];
    for (keep, expected) in expected.into_iter().enumerate() {
        let pool = Forked::builder(1).preload(open_all, keep).build().unwrap();
        let error = promptly(move || pool.submit(|x: u32| x, 1).result()).unwrap_err();
        assert!(error.is_broken() && error.to_string().contains(expected), "{error}");
    }
}

/// PP-25: whenever it dies, whatever it was asked for: every call is made, and nothing is left of anybody.
#[test]
fn zygotes_die_at_any_time() {
    // In a process of its own, which has no other children.
    let program = |()| {
        let pool = Forked::builder(3).max_tasks_per_child(1).process_name_prefix("dies").build().unwrap();
        let mut made = 0;
        for round in tries(40) {
            let futures: Vec<_> = (0..6).map(|x| pool.submit(|x: u32| x, x)).collect();
            thread::sleep(std::time::Duration::from_micros(u64::from(round) * 97 % 1500));
            let killed =
                only_child("dies-zygote").map(|pid| Command::new("kill").args(["-KILL", &pid.to_string()]).output());
            drop(killed);
            for (x, future) in (0..).zip(futures) {
                match future.result() {
                    Ok(value) => assert_eq!(value, x),
                    // Its zygotes died thrice in a row before they had forked anybody.
                    Err(error) => return Err(format!("round {round}: {error}")),
                }
                made += 1;
            }
        }
        pool.shutdown(Shutdown::wait());
        match children() {
            left if left.is_empty() => Ok(made),
            left => Err(format!("{left:?}")),
        }
    };
    let outcome = pool(StartMethod::Spawn, 1).submit(program, ()).result().unwrap();
    assert!(outcome.as_ref().is_ok_and(|made| *made >= 6), "{outcome:?}");
}

/// What a pool says whose preload goes wrong.
fn broken_by(preload: fn(String), args: String) -> TaskError {
    let pool = Forked::builder(2).preload(preload, args).build().unwrap();
    let error = pool.submit(|x: u32| x, 1).result().unwrap_err();
    assert!(error.is_broken(), "{error}");
    let again = pool.submit(|x: u32| x, 2).result().unwrap_err();
    assert!(again.is_broken() && pool.worker_pids().is_empty());
    assert!(pool.shutdown(Shutdown::wait().at_most(DEADLINE)).is_complete());
    error
}

/// PP-25, INI-06: a preload that fails is not made again and again, and the pool says why.
#[test]
fn a_failing_preload_breaks_the_pool() {
    let log = Log::new();
    let error = broken_by(
        |log| {
            append(&log, "made");
            panic!("no table")
        },
        log.path(),
    );
    assert!(error.to_string().contains("preload failed: panicked: no table"), "{error}");
    assert_eq!(log.lines().len(), 1);

    let log = Log::new();
    let error = broken_by(
        |log| {
            append(&log, "made");
            eprintln!("no way");
            process::exit(5)
        },
        log.path(),
    );
    assert!(error.to_string().contains("the zygote, process "), "{error}");
    assert!(error.to_string().contains("exited with code 5; last on its standard error: \"no way\""), "{error}");
    assert_eq!(log.lines().len(), 3);
}

/// PP-24, DL-05: a fork takes only one thread along. A preload that leaves others is told so, by their names; one whose threads
/// are over is fine.
#[test]
fn a_preload_leaves_no_thread() {
    let leaves = |name| drop(thread::Builder::new().name(name).spawn(|| thread::sleep(DEADLINE)).unwrap());
    let error = broken_by(leaves, "background".into());
    assert!(error.to_string().contains("its preload left threads behind (background)"), "{error}");

    static SUM: AtomicU64 = AtomicU64::new(0);
    let joins = |most: u64| {
        let pool = ThreadPoolExecutor::new(2).unwrap();
        let sum = pool.map(|x: u64| x, 0..most).map(Result::unwrap).sum();
        SUM.store(sum, Ordering::Relaxed);
    };
    let pool = Forked::builder(1).preload(joins, 10).build().unwrap();
    assert_eq!(pool.submit(|()| SUM.load(Ordering::Relaxed), ()).result().unwrap(), 45);
}

/// PP-24, LOK-07: what is chosen for workers holds for forked ones too, and for the process that they are forked from: what
/// becomes of output, the environment, limits, and who each is.
#[test]
fn choices_hold_for_forked_workers() {
    fn say(word: &str) -> (Option<u64>, String) {
        let parent = parent_process().expect("a parent");
        assert_eq!((parent.pid(), parent.name()), (parent_id(), "MainProcess"));
        println!("{word}, {}", env::var("START_METHOD_WORD").unwrap_or_default());
        eprint!("{word}, without an end");
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        (limit, current_process().name().to_owned())
    }
    let (sender, lines) = mpsc::channel();
    let pool = Forked::builder(1)
        .process_name_prefix("chosen")
        .env("START_METHOD_WORD", "set")
        .max_open_files(40)
        .output(Output::capture(move |line| {
            drop(sender.send((line.worker.to_string(), line.task.is_some(), line.text)));
        }))
        .preload(|()| assert_eq!(say("preload").1, "chosen-zygote"), ())
        .build()
        .unwrap();
    assert_eq!(pool.submit(|()| say("call"), ()).result().unwrap(), (Some(40), "chosen-0".to_owned()));
    assert!(pool.shutdown(Shutdown::wait().at_most(DEADLINE)).is_complete());
    drop(pool);
    let told: BTreeSet<_> = lines.iter().collect();
    let line = |worker: &str, is_call, text: &str| (worker.to_owned(), is_call, text.to_owned());
    let expected = [
        line("chosen-0", true, "call, set"),
        line("chosen-0", true, "call, without an end"),
        line("chosen-zygote", false, "preload, set"),
        line("chosen-zygote", false, "preload, without an end"),
    ];
    assert!(told.iter().eq(&expected), "{told:?}");
}

/// PP-24: descriptors come with a preload's arguments. Workers have in common what is theirs, but not the way to a queue on
/// which one of them waits, nor a number that tells their own queues apart.
#[test]
fn a_preload_is_given_a_queue() {
    static QUEUE: OnceLock<Queue<(u32, u32)>> = OnceLock::new();
    static OWN: OnceLock<Queue<u32>> = OnceLock::new();
    fn keep(queue: Queue<(u32, u32)>) {
        queue.put((process::id(), 0)).unwrap();
        QUEUE.set(queue).unwrap();
    }
    fn fill((key, count): (Key, u32)) -> Queue<u32> {
        pass(key);
        let own = OWN.get_or_init(Queue::new);
        own.put(process::id()).unwrap();
        for number in 1..=count {
            QUEUE.get().unwrap().put((process::id(), number)).unwrap();
        }
        own.clone()
    }
    let (queue, gate) = (Queue::new(), Gate::new());
    let pool = Forked::builder(2).preload(keep, queue.clone()).build().unwrap();
    let calls: Vec<_> = (0..2).map(|_| pool.submit(fill, (gate.key(), 100))).collect();
    gate.await_arrivals(2);
    gate.open();
    let own: Vec<_> = calls.into_iter().map(|call| call.result().unwrap()).collect();
    let mut items: Vec<_> = (0..201).map(|_| queue.get_timeout(DEADLINE).unwrap()).collect();
    assert!(queue.is_empty() && items.remove(0).1 == 0);
    for pid in pool.worker_pids() {
        let numbers = items.iter().filter(|(from, _)| *from == pid).map(|(_, number)| *number);
        assert!(numbers.eq(1..=100));
    }
    // On one way for both, nothing would be heard of the second before the first had its answer.
    let waiting = pool.submit(|()| QUEUE.get().unwrap().get_timeout(DEADLINE).unwrap(), ());
    eventually("it waits", || waiting.running());
    let put = |()| QUEUE.get().unwrap().put((process::id(), 0)).map(|()| process::id()).unwrap();
    let pid = pool.submit(put, ()).result().unwrap();
    assert_eq!(waiting.result().unwrap(), (pid, 0));
    // One of the two is at home in the process that is given both.
    let take = |own: Vec<Queue<u32>>| own.iter().map(|own| own.get_timeout(DEADLINE).unwrap()).collect::<BTreeSet<_>>();
    let pids = pool.submit(take, own).result().unwrap();
    assert!(pids.into_iter().eq(pool.worker_pids().into_iter().collect::<BTreeSet<_>>()));
}

/// PP-24: a preload is for a fork server, and nobody is left to wonder why it is never made.
#[test]
fn a_preload_without_a_fork_server_is_refused() {
    let refused = ProcessPoolExecutor::builder().preload(|()| (), ()).build();
    let Err(BuildError::Unsupported(why)) = refused else { panic!("{refused:?}") };
    assert!(why.contains("StartMethod::ForkServer"), "{why}");
}

/// PP-24: however long a preload takes, calls are cancelled and the pool ends meanwhile.
#[test]
fn a_long_preload_holds_up_no_shutdown() {
    for how in [Shutdown::now(), Shutdown::wait().cancel_pending()] {
        let gate = Gate::new();
        let pool = Forked::builder(2).preload(pass, gate.key()).build().unwrap();
        let futures: Vec<_> = (0..3).map(|x| pool.submit(|x: u32| x, x)).collect();
        gate.await_arrivals(1);
        assert!(futures[0].cancel());
        let report = promptly(move || pool.shutdown(how.at_most(DEADLINE)));
        assert!(report.is_complete() && gate.arrived() == 1, "{report:?}");
        assert!(futures.into_iter().all(|future| future.result().unwrap_err().is_cancelled()));
    }
}

/// PP-25, SHD-20: when the parent is killed, its workers and their zygote end, also in the middle of a call or of a
/// preload, and what the preload has started with them.
#[test]
fn nobody_outlives_the_parent() {
    let (log, gate) = (Log::new(), Gate::new());
    let parent = |(log, key): (String, Key)| {
        let forks = Forked::builder(1).process_name_prefix("forks").build().unwrap();
        let busy = forks.submit(pass, key.clone());
        let loads = Forked::builder(1).process_name_prefix("loads").preload(pass, key).build().unwrap();
        for zygote in ["forks", "loads"] {
            append(&log, &await_child(&format!("{zygote}-zygote")).to_string());
        }
        eventually("a worker", || busy.running());
        append(&log, &forks.worker_pids()[0].to_string());
        busy.result().unwrap();
        drop(loads);
    };
    let outer = pool(StartMethod::Spawn, 1);
    let future = outer.submit(parent, (log.path(), gate.key()));
    gate.await_arrivals(2);
    eventually("all three", || log.lines().len() == 3);
    assert!(future.kill() || future.done());
    assert!(future.result().is_err());
    let pids: Vec<u32> = log.lines().iter().map(|pid| pid.parse().unwrap()).collect();
    eventually("they are gone", || !pids.iter().any(|pid| runs(*pid)));
}

/// PP-24, PP-26, PP-27, PP-21: a forked worker starts as clean as a spawned one, and so do those of its own pools.
#[test]
fn a_forked_worker_starts_clean() {
    let kept = fs::File::open("/dev/null").unwrap();
    let pool = Forked::builder(2).inner_max_num_threads(7).process_name_prefix("clean").build().unwrap();
    let gate = Gate::new();
    let other = pool.submit(pass, gate.key());
    gate.await_arrivals(1);
    let open = |()| {
        let descriptors = fs::read_dir("/proc/self/fd").unwrap();
        let names = descriptors.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
        names.map(|name| name.to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    let open = pool.submit(open, ()).result().unwrap();
    // Standard input, output and error, the channel, and the directory that is being read.
    assert_eq!(open.len(), 5, "{open:?}");
    drop(kept);
    let surroundings = |()| {
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        (
            env::vars().filter(|(name, _)| name.starts_with("CONCURRENT_FUTURES_")).collect::<BTreeSet<_>>(),
            io::read_to_string(io::stdin()).unwrap(),
            fields[2] == process::id().to_string(), // its own process group
            fs::read_to_string("/proc/self/comm").unwrap(),
            env::var("OMP_NUM_THREADS").unwrap(),
        )
    };
    let (variables, input, leads, name, threads) = pool.submit(surroundings, ()).result().unwrap();
    let told = [("CONCURRENT_FUTURES_DEPTH", "1"), ("CONCURRENT_FUTURES_PARENT", "MainProcess")];
    assert!(variables.into_iter().eq(told.map(|(name, value)| (name.to_owned(), value.to_owned()))));
    assert_eq!((input.as_str(), leads, name.as_str(), threads.as_str()), ("", true, "clean-1\n", "7"));
    gate.open();
    other.result().unwrap();
}

/// PP-26, PP-27, NEST-05, NEST-07: pools in forked workers, to the same depth.
#[test]
fn forked_pools_are_nested_to_a_limit() {
    fn dig(depth: u32) -> Result<u32, String> {
        match Forked::builder(1).build() {
            Ok(pool) => pool.submit(dig, depth + 1).result().map_err(|error| error.to_string())?,
            Err(BuildError::Nested { depth: said, limit }) if said == limit => Ok(depth),
            Err(other) => Err(other.to_string()),
        }
    }
    assert_eq!(dig(0), Ok(10));
}

/// DL-05: threads of a library that the parent has started, and may be using, freeze no worker.
#[test]
fn a_parents_threads_freeze_no_worker() {
    use rayon::prelude::*;
    fn sum(most: u64) -> u64 {
        (0..most).into_par_iter().map(|x| x % 7).sum()
    }
    let expected = sum(10_000);
    for method in METHODS {
        let pool = pool(method, 2);
        let busy = thread::spawn(|| (0..20).map(|_| sum(10_000)).sum::<u64>());
        for future in (0..4).map(|_| pool.submit(sum, 10_000)).collect::<Vec<_>>() {
            assert_eq!(future.result().unwrap(), expected);
        }
        assert_eq!(busy.join().unwrap(), 20 * expected);
    }
}
