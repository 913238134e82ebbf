//! Processes by hand: how they begin, what is known of them, and how they end.

use crate::support::{
    DEADLINE, Gate, Key, Log, Noted, Place, append, eventually, interrupts_are_ignored, pass, runs, stop, stops,
};
use concurrent_futures::{
    Executor, Exit, Process, ProcessHandle, ProcessPoolExecutor, Queue, StartError, ThreadPoolExecutor,
    active_children, current_process, parent_process, pipe, wait_any,
};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use std::{
    env,
    fs::{self, File},
    io, iter,
    os::{fd::AsFd, unix::net::UnixStream},
    path::Path,
    process::{self, Command, Stdio},
    thread,
    time::Duration,
};

/// A process that waits at a gate, and has come there.
fn at_the_gate(gate: &Gate) -> ProcessHandle {
    let before = gate.arrived();
    let process = Process::new(pass, gate.key()).start().unwrap();
    gate.await_arrivals(before + 1);
    process
}

fn is_active(process: &ProcessHandle) -> bool {
    active_children().iter().any(|child| child.pid == process.pid() && child.name == process.name())
}

/// PROC-01, PROC-02, PROC-03, PROC-06.
#[test]
fn a_process_begins_and_ends() {
    let (gate, log) = (Gate::new(), Log::new());
    let work = |(key, log): (Key, String)| {
        append(&log, &format!("{} {} {}", current_process().name(), process::id(), parent_process().unwrap().pid()));
        pass(key);
    };
    let process = Process::new(work, (gate.key(), log.path())).name("the-name");
    assert!(!active_children().iter().any(|child| child.name == "the-name"), "it is not started");
    let process = process.start().unwrap();
    gate.await_arrivals(1);
    assert!(process.is_alive() && is_active(&process));
    assert_eq!((process.exit(), process.exit_code()), (None, None));
    assert!(format!("{process:?}").contains("the-name"));
    for limit in [Duration::ZERO, Duration::from_millis(5)] {
        let error = process.join_timeout(limit).unwrap_err();
        assert!(error.is_timeout() && error.to_string().ends_with("still runs"), "{error}");
    }
    gate.open();
    process.join().unwrap();
    process.join_timeout(Duration::ZERO).unwrap();
    process.join().unwrap();
    assert!(!process.is_alive() && !is_active(&process));
    assert_eq!((process.exit(), process.exit_code()), (Some(Exit::Code(0)), Some(0)));
    assert_eq!(log.lines(), [format!("the-name {} {}", process.pid(), process::id())]);
    process.terminate(); // of which there is nothing left that it could hit
    assert_eq!(process.exit_code(), Some(0));
}

/// PROC-04, PROC-11, PROC-22: children have children, and names that say whose.
#[test]
fn children_have_children_with_names() {
    fn family((depth, log): (u32, String)) {
        let parent = parent_process().expect("it has one");
        assert!(parent.is_alive());
        append(&log, &format!("{} of {}", current_process().name(), parent.name()));
        for _ in 0..if depth == 0 { 0 } else { 2 } {
            Process::new(family, (depth - 1, log.clone())).start().unwrap().join().unwrap();
        }
    }
    assert_eq!(current_process().name(), "MainProcess");
    assert!(parent_process().is_none());
    let log = Log::new();
    let first = Process::new(family, (2, log.path())).start().unwrap();
    first.join().unwrap();
    let name = first.name();
    assert!(name.strip_prefix("Process-").unwrap().parse::<u32>().is_ok(), "{name}");
    let expected = [
        format!("{name} of MainProcess"),
        format!("{name}:1 of {name}"),
        format!("{name}:1:1 of {name}:1"),
        format!("{name}:1:2 of {name}:1"),
        format!("{name}:2 of {name}"),
        format!("{name}:2:1 of {name}:2"),
        format!("{name}:2:2 of {name}:2"),
    ];
    assert_eq!(log.lines(), expected);

    let pool = ProcessPoolExecutor::builder().max_workers(1).process_name_prefix("crew").build().unwrap();
    let names =
        pool.submit(|()| (current_process().name().to_owned(), parent_process().map(|p| p.name().to_owned())), ());
    assert_eq!(names.result().unwrap(), ("crew-0".into(), Some("MainProcess".into())));
}

fn ends(how: String) -> Result<i32, String> {
    match how.as_str() {
        "error" => return Err("no such file".into()),
        "panic" => panic!("the message"),
        "exit" => process::exit(3),
        "signal" => kill_process(Pid::from_raw(process::id() as i32).unwrap(), Signal::KILL).unwrap(),
        number => return Ok(number.parse().unwrap()),
    }
    unreachable!("{how} has ended this process")
}

/// PROC-07.
#[test]
fn each_ending_has_its_exit_code() {
    let table = [("0", 0), ("7", 7), ("263", 7), ("error", 1), ("panic", 1), ("exit", 3), ("signal", -9)];
    let processes = table.map(|(how, code)| (how, code, Process::new(ends, how.to_owned()).start().unwrap()));
    for (how, code, process) in processes {
        let outcome = process.join();
        assert_eq!((outcome.is_ok(), process.exit_code()), (code == 0, Some(code)), "{how}");
        if let Err(error) = outcome {
            let end = if code < 0 { "was ended by SIGKILL".into() } else { format!("exited with code {code}") };
            assert_eq!(error.to_string(), format!("process {} ({}) {end}", process.name(), process.pid()));
            assert!(!error.is_timeout() && !error.is_timed_out() && error.exit() == process.exit().as_ref());
        }
    }
}

/// PROC-07, PROC-20: what went wrong is on standard error, with the name; and if that is closed, nothing else goes wrong.
#[test]
fn failures_are_told_on_standard_error() {
    fn fails((how, errors): (String, String)) -> Result<i32, String> {
        rustix::stdio::dup2_stderr(File::create(errors).unwrap()).unwrap();
        ends(how)
    }
    fn fails_unheard(how: String) -> Result<i32, String> {
        let (closed, other) = UnixStream::pair().unwrap();
        drop(other);
        rustix::stdio::dup2_stderr(&closed).unwrap();
        rustix::stdio::dup2_stdout(&closed).unwrap();
        ends(how)
    }
    let place = Place::new();
    for (how, expected) in
        [("error", "Process w: no such file\n"), ("panic", "Process w: panicked: the message, at tests/")]
    {
        let process = Process::new(fails, (how.to_owned(), place.path(how))).name("w").start().unwrap();
        assert_eq!((process.join().is_err(), process.exit_code()), (true, Some(1)));
        let said = fs::read_to_string(place.path(how)).unwrap();
        assert!(said.contains(expected), "{said}");
        let unheard = Process::new(fails_unheard, how.to_owned()).start().unwrap();
        assert_eq!((unheard.join().is_err(), unheard.exit_code()), (true, Some(1)));
    }
}

/// PROC-08: the signals, and that the first can be left unheeded, which the last cannot.
#[test]
fn a_process_can_be_ended() {
    let gate = Gate::new();
    for (end, code) in [(ProcessHandle::terminate as fn(&ProcessHandle), -15), (ProcessHandle::kill, -9)] {
        let process = at_the_gate(&gate);
        end(&process);
        assert!(process.join().is_err());
        assert_eq!(process.exit_code(), Some(code));
    }
    let deaf = at_the_gate(&gate);
    stop(deaf.pid());
    deaf.terminate();
    assert!(deaf.join_timeout(Duration::from_millis(20)).unwrap_err().is_timeout());
    deaf.kill();
    assert!(deaf.join().is_err());
    assert_eq!(deaf.exit_code(), Some(-9));
}

/// PROC-09: with a handler of its own, and without.
#[test]
fn a_process_can_be_interrupted() {
    if interrupts_are_ignored() {
        return;
    }
    fn handles(key: Key) {
        ctrlc::set_handler(|| process::exit(1)).unwrap();
        pass(key);
    }
    let gate = Gate::new();
    for (target, code) in [(handles as fn(Key), 1), (pass, -2)] {
        let process = Process::new(target, gate.key());
        let before = gate.arrived();
        let process = process.start().unwrap();
        gate.await_arrivals(before + 1);
        process.interrupt();
        assert!(process.join().is_err());
        assert_eq!(process.exit_code(), Some(code));
    }
}

/// PROC-10: what a process has started outlives it, unless it is a daemon, and can learn that it is alone.
#[test]
fn children_of_a_dead_process_know() {
    fn child((key, log, daemon): (Key, String, bool)) {
        let grandchild = |log: String| {
            append(&log, &process::id().to_string());
            while parent_process().unwrap().is_alive() {
                thread::sleep(Duration::from_millis(1));
            }
            append(&log, "alone");
        };
        let _grandchild = Process::new(grandchild, log).daemon(daemon).start().unwrap();
        pass(key);
    }
    let gate = Gate::new();
    for daemon in [false, true] {
        let log = Log::new();
        let process = Process::new(child, (gate.key(), log.path(), daemon)).start().unwrap();
        eventually("the grandchild is there", || !log.lines().is_empty());
        // PROC-12: however the parent ends.
        if daemon {
            process.kill()
        } else {
            process.terminate()
        }
        assert!(process.join().is_err());
        let grandchild = log.lines()[0].parse().unwrap();
        eventually("it has ended as well", || !runs(grandchild));
        // A daemon is not there any more when its parent is not.
        assert_eq!(log.lines()[1..], ["alone"; 1][daemon.into()..]);
    }
}

/// PROC-12: a daemon is ended with its handle; its children are daemons too, and nothing else.
#[test]
fn daemons_end_with_their_handles() {
    let gate = Gate::new();
    let process = Process::new(pass, gate.key()).daemon(true).start().unwrap();
    gate.await_arrivals(1);
    assert!(process.is_daemon());
    let pid = process.pid();
    drop(process);
    assert!(!runs(pid) && !Path::new(&format!("/proc/{pid}")).exists(), "it is ended, and nothing is left of it");

    let inside = |()| {
        assert!(current_process().is_daemon());
        assert!(Process::new(|()| assert!(current_process().is_daemon()), ()).start().unwrap().is_daemon());
        let refused = Process::new(|()| (), ()).daemon(false).start().unwrap_err();
        assert!(matches!(refused, StartError::Daemon), "{refused}");
    };
    Process::new(inside, ()).daemon(true).start().unwrap().join().unwrap();
    assert!(!current_process().is_daemon());
    assert!(!Process::new(|()| (), ()).start().unwrap().is_daemon());
}

/// PROC-13, PROC-17: letting go of a process that is no daemon waits for it. There is nothing that could be done afterwards.
#[test]
fn dropping_a_handle_waits() {
    let (gate, log) = (Gate::new(), Log::new());
    let work = |(key, log): (Key, String)| {
        pass(key);
        append(&log, "done");
    };
    let process = Process::new(work, (gate.key(), log.path())).start().unwrap();
    gate.await_arrivals(1);
    let dropped = thread::spawn(move || drop(process));
    assert!(!dropped.is_finished());
    gate.open();
    dropped.join().unwrap();
    assert_eq!(log.lines(), ["done"]);
}

/// PROC-14, PROC-19: what a process has set up is taken down as its function returns, and a pool's threads are waited for.
#[test]
fn a_process_ends_in_order() {
    fn work((log, slow): (String, Key)) {
        let _last = Noted::new(log.clone());
        let pool = ThreadPoolExecutor::new(1).unwrap();
        drop(pool.submit(
            |(log, slow): (String, Key)| {
                pass(slow);
                append(&log, "the thread is done");
            },
            (log, slow),
        ));
    }
    let (log, gate) = (Log::new(), Gate::new());
    let process = Process::new(work, (log.path(), gate.key())).start().unwrap();
    gate.await_arrivals(1);
    gate.open();
    process.join().unwrap();
    let pid = process.pid();
    assert_eq!(log.lines(), [format!("made in {pid}"), "the thread is done".into(), format!("dropped in {pid}")]);
}

/// PROC-15, PROC-16: processes, connections and sockets together; all that are ready, in their order, and none when time is over.
#[test]
fn the_first_of_several_is_waited_for() {
    let gate = Gate::new();
    let process = at_the_gate(&gate);
    let (ours, theirs) = pipe::<u32, u32>().unwrap();
    let (socket, mut other) = UnixStream::pair().unwrap();
    let all: [&dyn AsFd; 3] = [&process, &ours, &socket];
    for limit in [Duration::ZERO, Duration::from_millis(5)] {
        assert!(wait_any(&all, Some(limit)).unwrap().is_empty());
    }
    theirs.send(1).unwrap();
    assert_eq!(wait_any(&all, None).unwrap(), [1]);
    io::Write::write_all(&mut other, b"x").unwrap();
    assert_eq!(wait_any(&all, None).unwrap(), [1, 2]);
    assert_eq!(ours.recv().unwrap(), 1);
    process.kill();
    eventually("it has ended", || wait_any(&all, Some(DEADLINE)).unwrap() == [0, 2]);
    assert!(process.join().is_err());
    assert_eq!(wait_any(&all, None).unwrap(), [0, 2], "it stays so");
}

/// PROC-18: what a process is given is nobody else's any more.
#[test]
fn arguments_are_let_go_of() {
    let log = Log::new();
    let here = process::id();
    let process = Process::new(drop, Noted::new(log.path()));
    assert_eq!(log.lines(), [format!("made in {here}"), format!("dropped in {here}")]);
    let process = process.start().unwrap();
    process.join().unwrap();
    assert_eq!(log.lines()[2..], ["made", "dropped"].map(|what| format!("{what} in {}", process.pid())));
    // Nor does anything stay open by which its other end would be reached.
    let (ours, theirs) = pipe::<u32, u32>().unwrap();
    Process::new(drop, theirs).start().unwrap().join().unwrap();
    assert!(ours.recv().unwrap_err().is_disconnected());
}

/// PROC-21: all at once, and all reaped.
#[test]
fn a_hundred_at_once_are_all_reaped() {
    let ranks = Queue::new();
    let processes: Vec<_> = (0..100)
        .map(|rank: u32| {
            let work = |(rank, ranks): (u32, Queue<u32>)| ranks.put(rank).unwrap();
            Process::new(work, (rank, ranks.clone())).start().unwrap()
        })
        .collect();
    for process in &processes {
        process.join().unwrap();
        assert!(!Path::new(&format!("/proc/{}", process.pid())).exists());
    }
    let mut found: Vec<_> = processes.iter().map(|_| ranks.try_get().unwrap()).collect();
    found.sort_unstable();
    assert!(found.into_iter().eq(0..100));
}

/// PROC-23: what a subclass would keep in itself is an argument, and `run` its method.
#[test]
fn an_object_can_be_run() {
    #[derive(Serialize, Deserialize)]
    struct Upper {
        text: String,
        results: Queue<String>,
    }
    impl Upper {
        fn run(self) {
            self.results.put(self.text.to_uppercase()).unwrap();
        }
    }
    let results = Queue::new();
    let job = Upper { text: "text".into(), results: results.clone() };
    Process::new(Upper::run, job).start().unwrap().join().unwrap();
    assert_eq!(results.try_get().unwrap(), "TEXT");
}

/// A process that takes too long is ended, deaf or not.
#[test]
fn a_limit_ends_a_process() {
    let gate = Gate::new();
    let start = |limit| Process::new(pass, gate.key()).time_limit(limit).start().unwrap();
    let limit = Duration::from_millis(100);
    // Its limit may pass before it is stopped, on a machine that has much to do.
    let later = iter::successors(Some(limit), |limit| Some(*limit * 2));
    let (deaf_limit, deaf) =
        later.map(|limit| (limit, start(limit))).find(|(_, process)| stops(process.pid())).unwrap();
    for (process, limit, code) in [(start(limit), limit, -15), (deaf, deaf_limit, -9)] {
        let error = process.join().unwrap_err();
        assert!(error.is_timed_out() && !error.is_timeout(), "{error}");
        let expected = format!("ran longer than its limit of {limit:?}, and was ended by SIG");
        assert!(error.to_string().contains(&expected), "{error}");
        assert_eq!(process.exit_code(), Some(code));
    }
    let quick = Process::new(|()| (), ()).time_limit(DEADLINE).start().unwrap();
    quick.join().unwrap();
}

/// What cannot begin says why, and the marker alone begins nothing.
#[test]
fn a_process_that_cannot_begin_says_so() {
    #[derive(Deserialize)]
    struct Refuses;
    impl Serialize for Refuses {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("no"))
        }
    }
    let error = Process::new(|_: Refuses| (), Refuses).start().unwrap_err();
    assert!(matches!(error, StartError::Arguments(_)) && error.to_string().contains("Refuses"), "{error}");

    let mut stray = Command::new(env::current_exe().unwrap());
    let output = stray.env("CONCURRENT_FUTURES_PROCESS", "1").stdin(Stdio::null()).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(70), true));

    // Its own children are not meant, and its standard input is empty.
    let look = |found: Queue<(bool, String)>| {
        let marked = env::var_os("CONCURRENT_FUTURES_PROCESS").is_some();
        found.put((marked, io::read_to_string(io::stdin()).unwrap())).unwrap();
    };
    let found = Queue::new();
    Process::new(look, found.clone()).start().unwrap().join().unwrap();
    assert_eq!(found.get().unwrap(), (false, String::new()));
}
