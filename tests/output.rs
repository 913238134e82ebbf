//! What is told of calls in worker processes: how they ended, what they printed, what they logged, and of which call that is.

use crate::support::{Log, append, eventually, example};
use concurrent_futures::{
    Executor, Exit, Future, Output, OutputLine, OutputStream, ProcessPoolExecutor, TaskError, ThreadPoolExecutor,
};
use log::LevelFilter;
use std::{
    cell::RefCell,
    env, fmt,
    io::{self, Write},
    panic::Location,
    process::{self, Command},
    sync::{Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

fn pool(workers: usize) -> ProcessPoolExecutor {
    ProcessPoolExecutor::new(workers).unwrap()
}

fn capturing(workers: usize) -> (ProcessPoolExecutor, mpsc::Receiver<OutputLine>) {
    let (sender, lines) = mpsc::channel();
    let output = Output::capture(move |line| drop(sender.send(line)));
    (ProcessPoolExecutor::builder().max_workers(workers).output(output).build().unwrap(), lines)
}

/// PP-10, PP-11, PP-29: which process, how it ended, which call, where it was submitted, and what was said last.
#[test]
fn a_lost_call_says_all_that_is_known() {
    let pool = pool(1);
    pool.submit(|()| eprintln!("of an earlier call"), ()).result().unwrap();
    let pid = pool.worker_pids()[0];
    let exits = |code| -> () {
        eprintln!("first\n  \"second\"");
        process::exit(code)
    };
    let (future, line) = (pool.submit(exits, 99), line!());
    let id = future.id();
    let error = future.result().unwrap_err();
    let lost = error.worker_lost().unwrap();
    assert_eq!((lost.pid, &lost.exit), (pid, &Exit::Code(99)));
    assert_eq!(lost.stderr, "first\n  \"second\"");
    assert_eq!((error.task(), error.submitted_at().line()), (id, line));
    let site = error.submitted_at();
    let ended = format!("worker process {pid} exited with code 99 while it ran the call");
    let short =
        format!(r#"{ended}; last on its standard error: "first\n  \"second\"" (task {id} submitted at {site})"#);
    assert_eq!(error.to_string(), short);
    let long =
        format!("{ended} (task {id} submitted at {site})\nlast on its standard error:\n    first\n      \"second\"");
    assert_eq!((format!("{error:#}"), format!("{error:?}")), (long.clone(), long));
}

/// PP-29: a panic that ends its process is told, though its backtrace has driven the message out of the last lines. So does
/// `panic = "abort"`: the hook has told before the end begins.
#[test]
fn a_panic_that_ends_its_worker_is_told() {
    extern "C" fn panics(x: u32) {
        assert!(x > 100, "{x} is too small");
    }
    let caught = |()| {
        let _ = std::panic::catch_unwind(|| panic!("of an earlier call"));
    };
    let pool = pool(1);
    pool.submit(caught, ()).result().unwrap();
    let error = pool.submit(|x| panics(x), 7).result().unwrap_err();
    let lost = error.worker_lost().unwrap();
    assert!(matches!(&lost.exit, Exit::Signal { name, .. } if name == "SIGABRT"), "{error}");
    assert!(!lost.stderr.contains("too small"), "{error:#}");
    let panic = lost.panic.as_deref().expect("it was told");
    assert_eq!(panic.message, "7 is too small");
    assert!(panic.location.as_ref().unwrap().starts_with(file!()), "{panic:?}");
    assert!(error.to_string().contains(" while it ran the call after a panic: 7 is too small, at "), "{error}");
    // One that was contained, and answered for, is not the reason.
    pool.submit(caught, ()).result().unwrap();
    let error = pool.submit(|()| -> () { process::abort() }, ()).result().unwrap_err();
    assert_eq!(error.worker_lost().unwrap().panic, None);
}

/// FUT-10: where a panic was, on both backends, when it is asked for; without what lies around the call.
#[test]
fn backtraces_come_when_they_are_asked_for() {
    let run = |asked: &str| {
        let mut program = Command::new(env::current_exe().unwrap());
        program.args(["--exact", "--ignored", "--nocapture", "output::prints_two_panics"]);
        let output = program.env("RUST_BACKTRACE", asked).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let said = run("1");
    assert_eq!(said.matches("where it panicked:\n").count(), 2, "{said}");
    assert_eq!(said.matches("deep_in_the_call").count(), 2 * 3, "{said}");
    assert!(!said.contains("catch_unwind") && !said.contains("panic_fmt"), "{said}");
    let said = run("0");
    assert!(said.contains("panicked: at the bottom, at ") && !said.contains("where it panicked"), "{said}");
}

fn deep_in_the_call(depth: u32) -> u32 {
    assert!(depth > 0, "at the bottom");
    std::hint::black_box(deep_in_the_call(depth - 1)) + 1
}

#[test]
#[ignore = "a program of its own, for the test above"]
fn prints_two_panics() {
    for error in [
        ThreadPoolExecutor::new(1).unwrap().submit(deep_in_the_call, 2).result().unwrap_err(),
        pool(1).submit(deep_in_the_call, 2).result().unwrap_err(),
    ] {
        assert_eq!(error.panic_backtrace().is_some(), format!("{error:#}").contains("where it panicked"));
        println!("{error:#}");
    }
}

/// Each line is told of the call that wrote it, on either stream, whether it has an end or not.
#[test]
fn lines_are_told_with_their_call() {
    let (pool, lines) = capturing(2);
    let speak = |x: u32| {
        println!("out {x}");
        eprintln!("err {x}");
        if x.is_multiple_of(2) {
            print!("more {x}");
            eprint!("rest {x}");
        }
        process::id()
    };
    let futures: Vec<Future<u32>> = (0..60).map(|x| pool.submit(speak, x)).collect();
    let ids: Vec<_> = futures.iter().map(Future::id).collect();
    let pids: Vec<_> = futures.into_iter().map(|future| future.result().unwrap()).collect();
    drop(pool);
    let lines: Vec<_> = lines.into_iter().collect();
    for (x, (id, pid)) in ids.into_iter().zip(pids).enumerate() {
        let of = |stream| {
            let mine = lines.iter().filter(|line| line.task == Some(id) && line.stream == stream);
            mine.map(|line| (line.pid, line.text.clone())).collect::<Vec<_>>()
        };
        let rest = |what: &str| x.is_multiple_of(2).then(|| (pid, format!("{what} {x}")));
        let expected = |first: &str, second| [(pid, format!("{first} {x}"))].into_iter().chain(rest(second)).collect();
        let (out, err): (Vec<_>, Vec<_>) = (expected("out", "more"), expected("err", "rest"));
        assert_eq!((of(OutputStream::Stdout), of(OutputStream::Stderr)), (out, err));
    }
    assert_eq!(lines.len(), 60 * 2 + 30 * 2);
    let first = &lines[0];
    assert_eq!(first.submitted_at.map(Location::file), Some(file!()));
    let (task, site) = (first.task.unwrap(), first.submitted_at.unwrap());
    assert_eq!(first.to_string(), format!("[{} task {task} {site}] {}", first.worker, first.text));
}

/// PP-29: what a lost call wrote is told as well, and is in its error. What no call wrote has none.
#[test]
fn lost_and_first_words_are_told() {
    let (sender, lines) = mpsc::channel();
    let pool = ProcessPoolExecutor::builder()
        .max_workers(1)
        .initializer(|()| print!("made ready"), ())
        .output(Output::capture(move |line| {
            sender.send(line).unwrap();
            panic!("a panic of the function is its own affair");
        }))
        .build()
        .unwrap();
    let dies = |()| -> () {
        print!("half a");
        io::stdout().flush().unwrap();
        eprint!("the end");
        process::abort()
    };
    let future = pool.submit(dies, ());
    let id = future.id();
    let error = future.result().unwrap_err();
    assert_eq!(error.worker_lost().unwrap().stderr, "the end");
    drop(pool);
    let mut told: Vec<_> = lines.into_iter().map(|line| (line.task, line.text)).collect();
    told[1..].sort();
    let expected = [(None, "made ready"), (Some(id), "half a"), (Some(id), "the end")];
    assert_eq!(told, expected.map(|(task, text)| (task, text.to_owned())));
}

/// A line without an end is told in pieces; and who writes faster than is told waits, rather than fill the memory.
#[test]
fn endless_lines_do_not_pile_up() {
    const MEGABYTES: usize = 12;
    let log = Log::new();
    let (sender, received) = mpsc::channel();
    let (progress, mut told) = (log.path(), 0);
    let told = Mutex::new(move |length: usize| {
        let written = || std::fs::read_to_string(&progress).unwrap().lines().count();
        // The function is slow at first: time for a worker that does not wait to get ahead. One that does gets nowhere.
        let began = Instant::now();
        while told == 0 && written() < MEGABYTES && began.elapsed() < Duration::from_millis(200) {
            thread::sleep(Duration::from_millis(1));
        }
        told += length;
        let written = written();
        // What lies in pipes and in the pool is less than four.
        sender.send((length, (told >> 20) + 4 >= written)).unwrap();
    });
    let output = Output::capture(move |line| told.lock().unwrap()(line.text.len()));
    let pool = ProcessPoolExecutor::builder().max_workers(1).output(output).build().unwrap();
    let write = |log: String| {
        let megabyte = vec![b'x'; 1 << 20];
        for _ in 0..MEGABYTES {
            append(&log, "one more");
            io::stdout().write_all(&megabyte).unwrap();
        }
    };
    pool.submit(write, log.path()).result().unwrap();
    drop(pool);
    let received: Vec<_> = received.into_iter().collect();
    assert_eq!(received.iter().map(|(length, _)| length).sum::<usize>(), MEGABYTES << 20);
    assert!(received.iter().all(|(_, bounded)| *bounded), "too much was read ahead of what was told");
}

/// Where this process's own output goes, with whose it is.
#[test]
fn prefixed_lines_appear_where_others_do() {
    let output = Command::new(example("output")).arg("--prefixed").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    for (said, words) in [(&stdout, "printed by the worker"), (&stderr, "told by the worker")] {
        let line = said.lines().find(|line| line.ends_with(words)).unwrap();
        assert!(line.starts_with("[executor-0-0 task 1 examples/output.rs:"), "{line}");
    }
    assert!(stdout.lines().any(|line| line == "printed by the parent"), "{stdout}");
}

/// What reached a logger or a subscriber.
static RECORDS: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn records() -> Vec<String> {
    RECORDS.lock().unwrap().clone()
}

struct Collects;

impl log::Log for Collects {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target() != "unwanted"
    }

    fn log(&self, record: &log::Record<'_>) {
        let (level, target, line) = (record.level(), record.target(), record.line().unwrap());
        RECORDS.lock().unwrap().push(format!("{level} {target} {line} {}", record.args()));
    }

    fn flush(&self) {}
}

/// Logs, and is lost.
fn logs_and_dies(x: u32) {
    log::debug!("not asked for");
    log::info!(target: "unwanted", "nobody looks");
    log::warn!("x is {x}");
    process::abort();
}

const LOGGED: u32 = line!() - 4;

/// A record is told with its call, and not lost though its process is, right after it. In a process of its own, for the
/// logger is a program's.
#[test]
fn log_records_reach_the_parent() {
    let program = |()| {
        log::set_logger(&Collects).unwrap();
        log::set_max_level(LevelFilter::Info);
        let pool = pool(1);
        let level = |()| log::max_level() == LevelFilter::Info;
        assert!(pool.submit(level, ()).result().unwrap(), "workers log what is asked for here");
        let future = pool.submit(logs_and_dies, 7);
        let id = future.id();
        let error: TaskError = future.result().unwrap_err();
        let (pid, site) = (error.worker_lost().unwrap().pid, error.submitted_at());
        drop(pool);
        let expected = format!("x is 7 [task {id} submitted at {site}, worker process {pid}]");
        assert_eq!(records(), [format!("WARN {} {LOGGED} {expected}", module_path!())]);
    };
    pool(1).submit(program, ()).result().unwrap();
}

/// A worker that has no call is heard as well: its finalizer may log more than the way to its parent holds.
#[test]
fn a_finalizer_may_log_as_much_as_it_likes() {
    let program = |()| {
        log::set_logger(&Collects).unwrap();
        log::set_max_level(LevelFilter::Info);
        let logs = |count: u32| (0..count).for_each(|number| log::info!("a record that says number {number:0100}"));
        let pool = ProcessPoolExecutor::builder().max_workers(1).finalizer(logs, 3000).build().unwrap();
        pool.submit(|()| (), ()).result().unwrap();
        drop(pool);
        assert_eq!(records().len(), 3000);
    };
    pool(1).submit(program, ()).result().unwrap();
}

/// A worker whose initializer has chosen a logger keeps it; and where nobody here has one, none is put there.
#[test]
fn a_logger_of_the_workers_own_stays() {
    fn own((): ()) {
        log::set_logger(&Collects).unwrap();
        log::set_max_level(LevelFilter::Trace);
    }
    fn logs((): ()) -> usize {
        log::info!("to its own");
        records().len()
    }
    let program = |()| {
        assert!(pool(1).submit(|()| log::max_level() == LevelFilter::Off, ()).result().unwrap());
        own(());
        let pool = ProcessPoolExecutor::builder().max_workers(1).initializer(own, ()).build().unwrap();
        assert_eq!(pool.submit(logs, ()).result().unwrap(), 1);
        drop(pool);
        assert_eq!(records(), Vec::<String>::new());
    };
    pool(1).submit(program, ()).result().unwrap();
}

/// Collects events.
struct Subscribes;

impl tracing::Subscriber for Subscribes {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::INFO
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(tracing::level_filters::LevelFilter::INFO)
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Fields(String);
        impl tracing::field::Visit for Fields {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
                self.0 += &format!(" {field}={value:?}");
            }
        }
        let metadata = event.metadata();
        let mut fields = Fields(format!("{} {}", metadata.level(), metadata.target()));
        event.record(&mut fields);
        RECORDS.lock().unwrap().push(fields.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// An event keeps its target, level and fields, and gets its call's beside them.
#[test]
fn tracing_events_reach_the_parent() {
    fn traces(x: u32) {
        let _span = tracing::info_span!("stays behind").entered();
        tracing::debug!("not asked for");
        tracing::info!(target: "chosen", x, name = "seven", "counted {}", x);
        tracing::info!(target: "chosen", x, name = "seven", "counted {}", x);
        if x > 0 {
            process::exit(3);
        }
    }
    let program = |()| {
        tracing::subscriber::set_global_default(Subscribes).unwrap();
        let pool = pool(1);
        let future = pool.submit(traces, 7);
        let id = future.id();
        let error: TaskError = future.result().unwrap_err();
        let (pid, site) = (error.worker_lost().unwrap().pid, error.submitted_at());
        drop(pool);
        let ours = format!("task.id={id} task.submitted_at={site} worker.pid={pid}");
        let event = format!("INFO chosen {ours} message=counted 7 x=7 name=\"seven\"");
        assert_eq!(records(), [event.clone(), event]);
    };
    pool(1).submit(program, ()).result().unwrap();
}

/// Collects events, each with its span, and counts who keeps a span open.
struct KnowsSpans;

static OPEN: Mutex<Vec<(&'static tracing::Metadata<'static>, usize)>> = Mutex::new(Vec::new());

thread_local! {
    static ENTERED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

fn place(id: &tracing::span::Id) -> usize {
    id.into_u64() as usize - 1
}

impl tracing::Subscriber for KnowsSpans {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        let mut open = OPEN.lock().unwrap();
        open.push((span.metadata(), 1));
        tracing::span::Id::from_u64(open.len() as u64)
    }

    fn current_span(&self) -> tracing_core::span::Current {
        match ENTERED.with_borrow(|entered| entered.last().copied()) {
            Some(id) => {
                let id = tracing::span::Id::from_u64(id);
                let metadata = OPEN.lock().unwrap()[place(&id)].0;
                tracing_core::span::Current::new(id, metadata)
            }
            None => tracing_core::span::Current::none(),
        }
    }

    fn clone_span(&self, id: &tracing::span::Id) -> tracing::span::Id {
        OPEN.lock().unwrap()[place(id)].1 += 1;
        id.clone()
    }

    fn try_close(&self, id: tracing::span::Id) -> bool {
        let mut open = OPEN.lock().unwrap();
        open[place(&id)].1 -= 1;
        open[place(&id)].1 == 0
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let open = OPEN.lock().unwrap();
        let span = event.parent().map_or("no span", |id| {
            let (metadata, count) = open[place(id)];
            assert!(count > 0, "the span is closed");
            metadata.name()
        });
        RECORDS.lock().unwrap().push(format!("{} in {span}", event.metadata().target()));
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn enter(&self, id: &tracing::span::Id) {
        ENTERED.with_borrow_mut(|entered| entered.push(id.into_u64()));
    }

    fn exit(&self, _: &tracing::span::Id) {
        ENTERED.with_borrow_mut(|entered| entered.pop());
    }
}

/// An event lies in the span in which its call was submitted, which stays open until the call is over, and no longer.
#[test]
fn tracing_events_lie_in_the_span_of_their_submission() {
    let program = |()| {
        tracing::subscriber::set_global_default(KnowsSpans).unwrap();
        let pool = pool(1);
        let first =
            tracing::info_span!("first").in_scope(|| pool.submit(|()| tracing::info!(target: "one", "said"), ()));
        let second = tracing::info_span!("second").in_scope(|| {
            pool.submit(|()| tracing::info!(target: "two", "said"), ()).result().unwrap();
            pool.map(|_| tracing::info!(target: "item", "said"), 0..1).for_each(|item| item.unwrap());
            pool.submit(|()| -> () { process::exit(0) }, ()).result().unwrap_err();
            pool.submit(|()| tracing::info!(target: "three", "said"), ())
        });
        [first, second].into_iter().for_each(|call| call.result().unwrap());
        pool.submit(|()| tracing::info!(target: "four", "said"), ()).result().unwrap();
        drop(pool);
        assert_eq!(
            records(),
            ["one in first", "two in second", "item in second", "three in second", "four in no span"]
        );
        eventually("both are closed", || OPEN.lock().unwrap().iter().all(|(_, count)| *count == 0));
        assert_eq!(OPEN.lock().unwrap().len(), 2);
    };
    pool(1).submit(program, ()).result().unwrap();
}
