//! Means by which a test and its tasks meet, in whatever process a task runs: files in a directory of the test's own.
//! A test waits for a condition, never for a time; the deadline only ends a test that would hang.

use concurrent_futures::{
    BuildError, DropPolicy, Executor, Observer, ProcessPoolExecutor, ProcessPoolExecutorBuilder, StartMethod,
    TaskEvent, TaskEventKind, TaskId, ThreadPoolExecutor, WhenFull, WorkerEvent,
};
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, getrlimit, kill_process, pidfd_open, pidfd_send_signal, setrlimit,
};
use serde::{Deserialize, Deserializer, Serialize};
use std::{
    env,
    fs::{self, File, OpenOptions},
    io::Write,
    panic,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

/// After this, whatever is awaited is taken never to come.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A kind of executor to which the suite is bound.
pub(crate) trait Backend: 'static {
    /// A pool of this kind.
    fn pool(workers: usize) -> Box<dyn Executor>;

    /// A pool of this kind with choices that all kinds have.
    fn pool_of(workers: usize, choices: Choices) -> Box<dyn Executor>;

    /// A pool of this kind whose workers each append a line to the log before their first task.
    fn pool_with_initializer(workers: usize, function: fn(String), args: String) -> Box<dyn Executor>;

    /// What a pool of this kind says to that many workers.
    fn refusal(workers: usize) -> Option<BuildError>;

    /// What a pool of this kind says to that prefix of its workers' names.
    fn refusal_of_name(prefix: &str) -> Option<BuildError>;
}

pub(crate) struct Threads;
pub(crate) struct Processes;
/// Processes that are forked from a zygote.
pub(crate) struct Forked;

/// What can be chosen for a pool of any kind.
#[derive(Default)]
pub(crate) struct Choices {
    pub(crate) queue_capacity: Option<(usize, WhenFull)>,
    pub(crate) drop_policy: DropPolicy,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) initializer: Option<Hook>,
    pub(crate) finalizer: Option<Hook>,
    pub(crate) observer: Option<Arc<dyn Observer>>,
}

/// A function for each worker, and its argument.
pub(crate) type Hook = (fn(String), String);

/// The builders have the same methods, and no trait.
macro_rules! build {
    ($builder:expr, $choices:expr) => {{
        let (mut builder, choices) = ($builder, $choices);
        builder = builder.drop_policy(choices.drop_policy);
        if let Some((waiting, when_full)) = choices.queue_capacity {
            builder = builder.queue_capacity(waiting, when_full);
        }
        if let Some(limit) = choices.idle_timeout {
            builder = builder.idle_timeout(limit);
        }
        if let Some((function, args)) = choices.initializer {
            builder = builder.initializer(function, args);
        }
        if let Some(observer) = choices.observer {
            builder = builder.observer(observer);
        }
        if let Some((function, args)) = choices.finalizer {
            builder = builder.finalizer(function, args);
        }
        Box::new(builder.build().unwrap())
    }};
}

impl Backend for Threads {
    fn pool(workers: usize) -> Box<dyn Executor> {
        Box::new(ThreadPoolExecutor::new(workers).unwrap())
    }

    fn pool_of(workers: usize, choices: Choices) -> Box<dyn Executor> {
        build!(ThreadPoolExecutor::builder().max_workers(workers), choices)
    }

    fn pool_with_initializer(workers: usize, function: fn(String), args: String) -> Box<dyn Executor> {
        let builder = ThreadPoolExecutor::builder().max_workers(workers);
        Box::new(builder.initializer(function, args).build().unwrap())
    }

    fn refusal(workers: usize) -> Option<BuildError> {
        ThreadPoolExecutor::new(workers).err()
    }

    fn refusal_of_name(prefix: &str) -> Option<BuildError> {
        ThreadPoolExecutor::builder().thread_name_prefix(prefix).build().err()
    }
}

impl Backend for Processes {
    fn pool(workers: usize) -> Box<dyn Executor> {
        Box::new(ProcessPoolExecutor::new(workers).unwrap())
    }

    fn pool_of(workers: usize, choices: Choices) -> Box<dyn Executor> {
        build!(ProcessPoolExecutor::builder().max_workers(workers), choices)
    }

    fn pool_with_initializer(workers: usize, function: fn(String), args: String) -> Box<dyn Executor> {
        let builder = ProcessPoolExecutor::builder().max_workers(workers);
        Box::new(builder.initializer(function, args).build().unwrap())
    }

    fn refusal(workers: usize) -> Option<BuildError> {
        ProcessPoolExecutor::new(workers).err()
    }

    fn refusal_of_name(prefix: &str) -> Option<BuildError> {
        ProcessPoolExecutor::builder().process_name_prefix(prefix).build().err()
    }
}

impl Forked {
    pub(crate) fn builder(workers: usize) -> ProcessPoolExecutorBuilder {
        ProcessPoolExecutor::builder().max_workers(workers).start_method(StartMethod::ForkServer)
    }
}

impl Backend for Forked {
    fn pool(workers: usize) -> Box<dyn Executor> {
        Box::new(Forked::builder(workers).build().unwrap())
    }

    fn pool_of(workers: usize, choices: Choices) -> Box<dyn Executor> {
        build!(Forked::builder(workers), choices)
    }

    fn pool_with_initializer(workers: usize, function: fn(String), args: String) -> Box<dyn Executor> {
        Box::new(Forked::builder(workers).initializer(function, args).build().unwrap())
    }

    fn refusal(workers: usize) -> Option<BuildError> {
        Forked::builder(workers).build().err()
    }

    fn refusal_of_name(prefix: &str) -> Option<BuildError> {
        Forked::builder(1).process_name_prefix(prefix).build().err()
    }
}

/// Waits until `condition` holds.
#[track_caller]
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < DEADLINE, "never came: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// What `call` returns, on a thread of its own: a call that would hang ends its test.
#[track_caller]
pub(crate) fn promptly<R: Send + 'static>(call: impl FnOnce() -> R + Send + 'static) -> R {
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || tell.send(call()));
    match told.recv_timeout(DEADLINE) {
        Ok(returned) => returned,
        Err(RecvTimeoutError::Timeout) => panic!("it hangs"),
        Err(RecvTimeoutError::Disconnected) => panic::resume_unwind(thread.join().unwrap_err()),
    }
}

/// Whether a process is there, and has not ended.
pub(crate) fn runs(pid: u32) -> bool {
    state(pid).is_some_and(|state| state != 'Z')
}

/// What a process does, in the system's letters.
pub(crate) fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.trim_start().chars().next()
}

/// Stops a process, which then heeds no signal but one.
#[track_caller]
pub(crate) fn stop(pid: u32) {
    assert!(stops(pid), "process {pid} had ended before it could be stopped");
}

/// As [`stop`]. `false`: the process has ended before.
#[track_caller]
pub(crate) fn stops(pid: u32) -> bool {
    if kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::STOP).is_err() {
        return false;
    }
    eventually("it has stopped, or ended", || matches!(state(pid), Some('T' | 'Z') | None));
    state(pid) == Some('T')
}

/// Signals a child of this process. `false`: it is none, or none any more. Never somebody else who has its number by now.
pub(crate) fn signal_child(pid: u32, signal: Signal) -> bool {
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    let Ok(process) = pidfd_open(number, PidfdFlags::empty()) else { return false };
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
    parent == Some(process::id()) && pidfd_send_signal(&process, signal).is_ok()
}

/// An example, built here: nothing else builds it when a test runs alone, and it might be of yesterday.
pub(crate) fn example(name: &str) -> PathBuf {
    built(&["--example", name]).join(name)
}

/// Where all examples are, built here.
pub(crate) fn examples() -> PathBuf {
    built(&["--examples"])
}

fn built(what: &[&str]) -> PathBuf {
    let test = env::current_exe().unwrap();
    let target = test.ancestors().nth(2).expect("it lies in target/debug/deps");
    let profile = if target.ends_with("release") { "release" } else { "dev" };
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--profile", profile]).args(what);
    assert!(build.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap().success(), "{build:?}");
    target.join("examples")
}

/// Whether SIGINT was ignored when this program was started, as a shell without job control does for what it runs in the
/// background: then so it is in all that this program starts, and there is nothing to see.
pub(crate) fn interrupts_are_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    let ignored = u64::from_str_radix(ignored.trim(), 16).unwrap() >> 1 & 1 == 1;
    if ignored {
        eprintln!("skipped: SIGINT is ignored here, as in the background of a shell");
    }
    ignored
}

/// Tries of a race: as many as two seconds allow, so that a loaded machine is not held up.
pub(crate) fn tries(most: u32) -> impl Iterator<Item = u32> {
    let began = Instant::now();
    (0..most).take_while(move |_| began.elapsed() < Duration::from_secs(2))
}

/// A directory that is removed with its value.
pub(crate) struct Place(PathBuf);

impl Place {
    pub(crate) fn new() -> Place {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("concurrent-futures-{}-{number}", process::id()));
        fs::create_dir_all(&path).unwrap();
        Place(path)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What is left behind in the temporary directory hurts nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Lines that tasks append, in the order in which they do.
pub(crate) struct Log(Place);

impl Log {
    pub(crate) fn new() -> Log {
        Log(Place::new())
    }

    pub(crate) fn path(&self) -> String {
        self.0.path("log")
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        fs::read_to_string(self.path()).map(|text| text.lines().map(str::to_owned).collect()).unwrap_or_default()
    }
}

/// Appends a line to a log. One write, so that lines of several processes do not mix.
pub(crate) fn append(log: &str, line: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open(log).unwrap();
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Notes in a log when one is made, also by decoding, and when one is dropped, and in which process.
#[derive(Serialize)]
pub(crate) struct Noted(String);

impl Noted {
    pub(crate) fn new(log: String) -> Noted {
        append(&log, &format!("made in {}", process::id()));
        Noted(log)
    }
}

impl<'de> Deserialize<'de> for Noted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Noted::new)
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        append(&self.0, &format!("dropped in {}", process::id()));
    }
}

/// Keeps tasks from going on until the test opens it. Dropping opens it, so that a failed test ends.
pub(crate) struct Gate {
    place: Place,
    log: Log,
}

impl Gate {
    pub(crate) fn new() -> Gate {
        Gate { place: Place::new(), log: Log::new() }
    }

    /// What a task needs to [`pass`].
    pub(crate) fn key(&self) -> Key {
        (self.place.path("open"), self.log.path())
    }

    pub(crate) fn open(&self) {
        File::create(self.place.path("open")).unwrap();
    }

    /// How many tasks have come to the gate.
    pub(crate) fn arrived(&self) -> usize {
        self.lines().len()
    }

    /// A line for each of them, and what they added.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.log.lines()
    }

    #[track_caller]
    pub(crate) fn await_arrivals(&self, count: usize) {
        eventually("tasks at the gate", || self.arrived() >= count);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open();
    }
}

pub(crate) type Key = (String, String);

/// A task: notes that it has come to the gate, and waits until it is open.
pub(crate) fn pass((open, log): Key) {
    append(&log, "here");
    let began = Instant::now();
    while !Path::new(&open).exists() {
        // A gate that is gone with its test is as good as open.
        if began.elapsed() > DEADLINE || !Path::new(&open).parent().is_some_and(Path::exists) {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Keeps what it is told, in the order in which it was.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) tasks: Mutex<Vec<TaskEvent>>,
    pub(crate) workers: Mutex<Vec<WorkerEvent>>,
    gate: Mutex<Option<mpsc::Receiver<()>>>,
}

impl Recorder {
    /// One that hears nothing of tasks before it is let.
    pub(crate) fn holding(gate: mpsc::Receiver<()>) -> Recorder {
        Recorder { gate: Mutex::new(Some(gate)), ..Recorder::default() }
    }

    /// What happened to one task.
    pub(crate) fn kinds(&self, task: TaskId) -> Vec<&'static str> {
        let tasks = self.tasks.lock().unwrap();
        tasks.iter().filter(|event| event.task == task).map(|event| kind(&event.kind)).collect()
    }
}

fn kind(kind: &TaskEventKind) -> &'static str {
    match kind {
        TaskEventKind::Submitted => "submitted",
        TaskEventKind::Started { .. } => "started",
        TaskEventKind::Retried { .. } => "retried",
        TaskEventKind::Ended { error: None } => "done",
        TaskEventKind::Ended { error: Some(error) } if error.is_cancelled() => "cancelled",
        TaskEventKind::Ended { .. } => "failed",
        _ => "something else",
    }
}

impl Observer for Recorder {
    fn task(&self, event: &TaskEvent) {
        if let Some(gate) = self.gate.lock().unwrap().take() {
            // An error is a test that is over.
            let _ = gate.recv();
        }
        self.tasks.lock().unwrap().push(event.clone());
    }

    fn worker(&self, event: &WorkerEvent) {
        self.workers.lock().unwrap().push(event.clone());
    }
}

/// Limits what this process may have, until it is dropped. For processes of a test's own.
pub(crate) struct Limit(Resource, Rlimit);

impl Limit {
    pub(crate) fn set(resource: Resource, most: u64) -> Limit {
        let before = getrlimit(resource);
        setrlimit(resource, Rlimit { current: Some(most), ..before }).unwrap();
        Limit(resource, before)
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        setrlimit(self.0, self.1).unwrap();
    }
}
