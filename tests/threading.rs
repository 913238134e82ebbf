//! Threads by hand: how they begin, what is known of them, and how they end.

use crate::support::{DEADLINE, Gate, Key, Log, append, eventually, pass, promptly};
use concurrent_futures::{
    ALL_COMPLETED, Process, Thread, ThreadHandle, ThreadPoolExecutor, current_task,
    threading::{active_count, current_thread, enumerate, main_thread},
    wait,
};
use std::{
    cell::Cell,
    panic, process,
    sync::{Arc, Mutex, OnceLock, mpsc},
    thread,
    time::Duration,
};

/// A thread that waits at a gate, and has come there.
fn at_the_gate(gate: &Gate) -> ThreadHandle<()> {
    let before = gate.arrived();
    let thread = Thread::new(pass, gate.key()).start().unwrap();
    gate.await_arrivals(before + 1);
    thread
}

/// Runs what is to be alone in its process.
fn alone(program: fn(String), log: &Log) {
    let process = Process::new(program, log.path()).start().unwrap();
    promptly(move || process.join()).unwrap();
}

/// THR-01, THR-02, THR-04, THR-07.
#[test]
fn a_thread_begins_and_ends() {
    let gate = Gate::new();
    let work = |(key, number): (Key, u64)| {
        pass(key);
        (current_thread().name().to_owned(), current_thread().ident().unwrap(), number * number)
    };
    let thread = Thread::new(work, (gate.key(), 12)).name("the-name").start().unwrap();
    gate.await_arrivals(1);
    assert!(thread.is_alive() && !thread.is_daemon());
    for limit in [Duration::ZERO, Duration::from_millis(1)] {
        let error = thread.join_timeout(limit).unwrap_err();
        assert!(error.is_timeout() && !error.is_panic() && error.error().is_none());
        assert_eq!(error.to_string(), "thread the-name still runs");
    }
    assert!(format!("{thread:?}").contains("the-name"));
    gate.open();
    let expected = ("the-name".to_owned(), thread.ident(), 144);
    assert_eq!(thread.join().unwrap(), &expected);
    assert_eq!(thread.join_timeout(Duration::ZERO).unwrap(), &expected);
    assert_eq!(thread.join().unwrap(), &expected);
    assert!(!thread.is_alive());
    assert_eq!(thread.result().unwrap(), expected);
}

/// THR-01: a thread that joins itself is told so. Letting go of its own handle is fine.
#[test]
fn a_thread_cannot_wait_for_itself() {
    type Own = Arc<OnceLock<Arc<ThreadHandle<bool>>>>;
    let own = Own::default();
    let (place, gate) = (Arc::clone(&own), Gate::new());
    let key = gate.key();
    let thread = Thread::from_fn(move || {
        pass(key);
        let error = place.get().unwrap().join().unwrap_err();
        assert!(error.is_deadlock() && error.to_string().contains("for ever"), "{error}");
        drop(place);
        true
    });
    let thread = Arc::new(thread.start().unwrap());
    own.set(Arc::clone(&thread)).unwrap();
    drop(own);
    gate.open();
    assert!(promptly(move || *thread.join().unwrap()));
}

/// THR-01: so are two that wait for each other; none of them is held up by letting go of the other, either.
#[test]
fn threads_that_wait_for_each_other_are_told() {
    let (give, take) = mpsc::channel::<ThreadHandle<bool>>();
    let first = Thread::from_fn(move || take.recv().unwrap().result().is_err_and(|error| error.is_deadlock()));
    let first = first.start().unwrap();
    let (give_first, take_first) = mpsc::channel::<ThreadHandle<bool>>();
    let second = Thread::from_fn(move || take_first.recv().unwrap().result().is_err_and(|error| error.is_deadlock()));
    let second = second.start().unwrap();
    let told = [&first, &second].map(|thread| {
        let (tell, told) = mpsc::channel();
        thread.future().add_done_callback(move |future| tell.send(*future.peek().unwrap().unwrap()).unwrap());
        told
    });
    give.send(second).unwrap();
    give_first.send(first).unwrap();
    let told = told.map(|told| told.recv_timeout(DEADLINE).expect("it hangs"));
    assert!(told[0] != told[1], "one is told, and the other one is then given its result");
}

/// THR-03.
#[test]
fn many_threads_join_one() {
    let gate = Gate::new();
    let work = |key: Key| {
        pass(key);
        "result".to_owned()
    };
    let worker = Thread::new(work, gate.key()).start().unwrap();
    thread::scope(|scope| {
        let joins: Vec<_> =
            (0..8).map(|_| scope.spawn(|| worker.join().map(|text| (text.len(), worker.is_alive())))).collect();
        gate.await_arrivals(1);
        gate.open();
        assert!(joins.into_iter().all(|join| join.join().unwrap().unwrap() == (6, false)));
    });
}

/// THR-02: a thread has ended when its own values are gone, too.
#[test]
fn joining_waits_for_what_a_thread_takes_down() {
    struct Slow(Cell<Option<mpsc::Sender<()>>>);
    impl Drop for Slow {
        fn drop(&mut self) {
            thread::sleep(Duration::from_millis(30)); // so that who does not wait comes too early
            let _ = self.0.take().unwrap().send(());
        }
    }
    thread_local! {
        static SLOW: Slow = const { Slow(Cell::new(None)) };
    }
    let (tell, told) = mpsc::channel();
    let thread = Thread::from_fn(move || SLOW.with(|slow| slow.0.set(Some(tell)))).start().unwrap();
    thread.join().unwrap();
    told.try_recv().unwrap();
}

/// THR-04: in a process of its own, so that nobody else starts threads.
#[test]
fn threads_without_a_name_are_numbered() {
    let log = Log::new();
    let program = |log: String| {
        for round in 0..3 {
            let thread = Thread::new(|()| thread::current().name().unwrap().to_owned(), ());
            let thread = if round == 1 { thread.name("named") } else { thread };
            append(&log, &thread.start().unwrap().result().unwrap());
        }
    };
    alone(program, &log);
    assert_eq!(log.lines(), ["Thread-1", "named", "Thread-2"]);
    let error = Thread::new(|()| (), ()).name("a\0b").start().unwrap_err();
    assert!(error.to_string().contains("must not contain a NUL"), "{error}");
    assert!(Thread::new(|()| (), ()).stack_size_bytes(1 << 62).start().is_err());
}

/// THR-05: letting go of one that is no daemon waits for it; the program ends without the others.
#[test]
fn daemons_hold_up_nobody() {
    let log = Log::new();
    let program = |log: String| {
        let forever = || loop {
            thread::park();
        };
        let daemon = Thread::from_fn(forever).daemon(true).start().unwrap();
        assert!(daemon.is_daemon());
        drop(daemon);
        let (tell, told) = mpsc::channel();
        let parent = Thread::from_fn(move || {
            let child = Thread::from_fn(forever).start().unwrap(); // as its parent
            tell.send((current_thread().is_daemon(), child.is_daemon())).unwrap();
        });
        drop(parent.daemon(true).start().unwrap());
        assert_eq!(told.recv().unwrap(), (true, true));
        let worker = Thread::new(
            |log: String| {
                thread::sleep(Duration::from_millis(30)); // so that who does not wait is the first
                append(&log, "it has ended");
            },
            log.clone(),
        );
        let worker = worker.start().unwrap();
        assert!(!worker.is_daemon());
        drop(worker);
        append(&log, "it was let go");
    };
    alone(program, &log);
    assert_eq!(log.lines(), ["it has ended", "it was let go"]);
}

/// THR-06: the panic hook is told, on the thread and with its name; who joins is told as well; and the program goes on.
#[test]
fn a_panic_is_told_and_ends_its_thread_alone() {
    let log = Log::new();
    let program = |log: String| {
        static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());
        panic::set_hook(Box::new(|info| {
            let said = format!("{} on {:?}", info.payload_as_str().unwrap_or_default(), thread::current().name());
            SAID.lock().unwrap().push(said);
        }));
        let line = line!() + 1;
        let thread = Thread::new(|x: u32| 1 / x, 0).name("divides").start().unwrap();
        let error = thread.join().unwrap_err();
        assert!(error.is_panic() && !error.is_timeout() && !error.is_deadlock());
        assert_eq!(error.panic_message(), Some("attempt to divide by zero"));
        assert!(error.to_string().starts_with("thread divides: panicked: attempt to divide by zero"), "{error}");
        assert_eq!(error.error().unwrap().submitted_at().line(), line);
        assert!(!thread.is_alive() && thread.join_timeout(Duration::ZERO).unwrap_err().is_panic());
        assert!(thread.result().unwrap_err().is_panic());
        assert_eq!(*SAID.lock().unwrap(), ["attempt to divide by zero on Some(\"divides\")"]);
        append(&log, "and the program goes on");
    };
    alone(program, &log);
    assert_eq!(log.lines(), ["and the program goes on"]);
}

/// THR-08: in a process of its own, of whose threads we know.
#[test]
fn the_threads_that_there_are() {
    let log = Log::new();
    let program = |log: String| {
        let names = || enumerate().iter().map(|thread| thread.name().to_owned()).collect::<Vec<_>>();
        assert_eq!(names(), ["MainThread"]);
        assert_eq!(current_thread(), main_thread());
        assert_eq!(main_thread().ident(), Some(thread::current().id()));
        assert!(main_thread().is_alive() && !main_thread().is_daemon());
        let gate = Gate::new();
        let threads = [at_the_gate(&gate), at_the_gate(&gate)];
        assert_eq!((names().len(), active_count()), (3, 3));
        assert_eq!(names(), ["MainThread", threads[0].name(), threads[1].name()]);
        assert!(enumerate()[1] != enumerate()[2] && enumerate()[1].ident() == Some(threads[0].ident()));
        let other = thread::spawn(|| (current_thread(), current_thread() == main_thread(), current_thread()));
        let (first, is_main, again) = other.join().unwrap();
        assert_eq!((first.name(), is_main, first == again), ("Dummy-1", false, true));
        let named = thread::Builder::new().name("main".into()).spawn(|| current_thread() == main_thread()).unwrap();
        assert!(!named.join().unwrap(), "a name is no proof");
        gate.open();
        for thread in &threads {
            thread.join().unwrap();
        }
        assert_eq!((names(), active_count()), (vec!["MainThread".to_owned()], 1));
        append(&log, "seen");
    };
    alone(program, &log);
    assert_eq!(log.lines(), ["seen"]);
}

/// A thread's call is a task, which can be waited for with others, and asked to stop.
#[test]
fn a_thread_has_a_future() {
    let pool = ThreadPoolExecutor::new(1).unwrap();
    let gate = Gate::new();
    let key = gate.key();
    let patient = Thread::from_fn(move || {
        pass(key);
        let token = current_task().cancel_token();
        eventually("somebody asks", || token.is_cancelled());
        process::id()
    });
    let patient = patient.start().unwrap();
    gate.await_arrivals(1);
    assert!(patient.future().running() && !patient.future().cancel());
    gate.open();
    let call = pool.spawn(process::id);
    assert_eq!(wait([&call, patient.future()], ALL_COMPLETED).done.len(), 2);
    assert_eq!(patient.result().unwrap(), process::id());
}
