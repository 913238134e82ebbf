//! The example `gutenberg`, as a user runs it: exact counts on every backend, whatever the text, the chunks, and the
//! end of a worker; and one clear line for what it cannot do.

use serde::Deserialize;
use std::{
    collections::BTreeMap,
    env, fs,
    fs::File,
    io::{self, Write},
    os::unix::{ffi::OsStrExt, fs::MetadataExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};

/// After this long a program is hanging, not slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// Between two looks at something that has no event to wait for. It decides nothing: deadlines do.
const GLANCE: Duration = Duration::from_millis(2);

const WORDS: [&str; 4] = ["dog", "cat", "girl", "boy"];

/// However a text is cut, each word is counted once.
#[test]
fn every_backend_counts_what_split_counts_whatever_the_chunks() {
    let scratch = Scratch::new("borders");
    let mut texts: Vec<Vec<u8>> = [
        "",
        " ",
        "\n \t\r\n",
        "dog",
        " dog",
        "dog ",
        "\r\ndog\r\n",
        "dogdog",
        "dog dog",
        "  dog  dog  ",
        "dog\tcat\x0cgirl\rboy\ndog",
        "dog\x0bcat",           // a vertical tab is not ASCII whitespace
        "dog\u{a0}cat\u{3000}", // nor is any other
        "dogs cats girls boys hotdog concat schoolgirl cowboy Dog DOG dog. 'dog' do-g do g d o g",
        "dog\0 \0dog \0",
        "boyboy girlgirl girl",
        "gir",
        "x girl",
        "a bo",
    ]
    .map(Vec::from)
    .to_vec();
    let mut random = fastrand::Rng::with_seed(1971);
    texts.extend((0..40).map(|_| random_text(&mut random)));
    texts.extend([7, 64, 4096].map(words_across));
    let paths = scratch.files(&texts);
    for words in [&WORDS[..], &["dog", "d", "g", "do", "dogs", "girl.", "schoolgirl", "\u{a0}"]] {
        let expected = count_naively(&texts, words);
        for chunk in ["1", "2", "3", "7", "4KiB", "1GiB"] {
            check_all_backends(&paths, words, chunk, &expected);
        }
    }
}

/// A chunk may be larger than what is read at a time: that has borders of its own.
#[test]
fn large_chunks_count_what_split_counts() {
    let scratch = Scratch::new("large-borders");
    let texts = [words_across(256 << 10)];
    let paths = scratch.files(&texts);
    let expected = count_naively(&texts, &WORDS);
    for chunk in ["65536", "256K", "262145", "1MiB", "1g"] {
        check_all_backends(&paths, &WORDS, chunk, &expected);
    }
}

#[test]
fn real_books_have_the_known_counts() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus");
    let Ok(entries) = fs::read_dir(&corpus) else {
        let note = "SKIPPED: tests/gutenberg.rs: real_books_have_the_known_counts";
        // Past the harness, which swallows what a passing test prints with `eprintln!`.
        let _ = writeln!(io::stderr(), "\n{note}: there is no directory {corpus:?}\n");
        return;
    };
    let mut books: Vec<_> = entries.map(|entry| entry.expect("the corpus can be listed").path()).collect();
    books.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    books.sort();
    let bytes: u64 = books.iter().map(|path| fs::metadata(path).expect("it was listed").len()).sum();
    assert_eq!((books.len(), bytes), (24, 17_416_001), "this is not the corpus whose counts are known");
    let known = counts_of([("dog", 162), ("cat", 108), ("girl", 425), ("boy", 256)]);
    for chunk in ["4KiB", "256KiB", "1GiB"] {
        check_all_backends(&books, &WORDS, chunk, &known);
    }

    let alice = corpus.join("pg11.txt");
    let text = fs::read(&alice).expect("it can be read");
    check_all_backends(&[alice], &WORDS, "1", &count_naively(&[text], &WORDS));
}

/// Every span is in the picture, on each backend.
#[test]
fn a_timeline_shows_every_span_on_every_backend() {
    let scratch = Scratch::new("timeline");
    let [text] = &scratch.files(&[words_across(10_000)])[..] else { panic!("not one file") };
    let spans = fs::metadata(text).expect("it is there").len().div_ceil(1 << 10);
    let json = scratch.0.join("run.json");
    let mut command =
        scratch.gutenberg(["--json", "--backend", "all", "--workers", "2", "--chunk", "1KiB", "--timeline"]);
    run_json(command.arg(&json).arg(text));
    let trace: serde_json::Value = serde_json::from_slice(&fs::read(json).expect("it is written")).expect("it is JSON");
    let events = trace["traceEvents"].as_array().expect("a list");
    let lanes = |start: &str| {
        let named = events.iter().filter(|event| event["name"] == "thread_name");
        let of =
            |event: &&serde_json::Value| event["args"]["name"].as_str().is_some_and(|name| name.starts_with(start));
        named.filter(of).map(|event| event["tid"].clone()).collect::<Vec<_>>()
    };
    for (start, least) in [("main", 1), ("thread-", 1), ("process-", 1)] {
        let lanes = lanes(start);
        let calls = events.iter().filter(|event| event["ph"] == "X" && lanes.contains(&event["tid"])).count() as u64;
        assert!(lanes.len() >= least && calls > 0 && calls <= spans, "{start}: {calls} calls of {spans} spans");
        // A chunk of spans is one call of a pool, and each span one of the serial loop.
        assert!(start != "main" || calls == spans, "{calls} of {spans} spans");
    }
    let html = scratch.0.join("run.html");
    run_json(scratch.gutenberg(["--json", "--backend", "thread", "--timeline"]).arg(&html).arg(text));
    assert!(fs::read_to_string(html).expect("it is written").contains("count_span"));
}

#[test]
fn a_text_is_made_once_and_has_what_it_promises() {
    let scratch = Scratch::new("generated");
    let make = || {
        let lines = run_json(&mut scratch.gutenberg(["--json", "--generate", "3M", "--backend", "all"]));
        let [text] = &fs::read_dir(&scratch.0).expect("it exists").collect::<Vec<_>>()[..] else {
            panic!("not exactly one file in {:?}", scratch.0);
        };
        (lines, text.as_ref().expect("it can be listed").path())
    };
    let (lines, path) = make();
    let made = fs::metadata(&path).expect("it exists");
    let text = fs::read(&path).expect("it can be read");
    assert_eq!((text.len(), lines[0].bytes), (3 << 20, 3 << 20));
    let total = split(&text).count() as u64;
    for (word, count) in &lines[0].counts {
        let share = count * 1000 / total;
        assert!((10..60).contains(&share), "{word} is {share} in a thousand words");
    }
    for near_miss in ["dogs", "cats", "hotdog", "concat", "boyish", "girls", "Dog", "dog."] {
        assert!(split(&text).any(|word| word == near_miss.as_bytes()), "no {near_miss}");
    }
    assert!(text.split(|byte| *byte == b'\n').all(|line| line.len() < 100));
    let expected = count_naively(&[&text], &WORDS);
    for line in &lines {
        assert_eq!(line.counts, expected, "{}", line.backend);
    }

    let (again, same_path) = make();
    let found = fs::metadata(&same_path).expect("it exists");
    assert_eq!((found.ino(), found.modified().ok()), (made.ino(), made.modified().ok()), "it was made again");
    assert_eq!(again[0].counts, lines[0].counts);

    // What is left of another length is not taken for it.
    fs::write(&path, "dog").expect("it can be written");
    assert_eq!(make().0[0].counts, lines[0].counts);
}

#[test]
fn a_table_has_a_row_for_each_backend() {
    let scratch = Scratch::new("table");
    let paths = scratch.files(&["dog dog cat"]);
    let output = finish(start(scratch.gutenberg(["--workers=3", "--words", "dog,cat,dog"]).args(&paths)));
    assert!(output.status.success(), "{output:?}");
    let table = String::from_utf8(output.stdout).expect("it is text");
    let rows: Vec<Vec<_>> = table.lines().skip(1).map(|row| row.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["backend", "workers", "dog", "cat", "seconds", "MB/s", "speed-up"], "{table}");
    assert_eq!(rows.len(), 4, "{table}");
    for (row, begin) in rows[1..].iter().zip([["serial", "1"], ["thread", "3"], ["process", "3"]]) {
        assert_eq!((&row[..2], &row[2..4], row.len()), (&begin[..], &["2", "1"][..], 7), "{table}");
    }
    assert!(output.stderr.is_empty(), "a progress bar, and nobody looks: {table}");
}

#[test]
fn what_cannot_be_done_is_said_in_one_line() {
    let scratch = Scratch::new("refused");
    let text = scratch.0.join("text");
    fs::write(&text, "dog").expect("it can be written");
    let locked = scratch.0.join("locked");
    fs::write(&locked, "dog").expect("it can be written");
    let mode = Command::new("chmod").args(["000".as_ref(), locked.as_os_str()]).status().expect("there is a chmod");
    assert!(mode.success());
    let path = |path: &Path| path.to_str().expect("it is UTF-8").to_string();
    let (text, locked, directory) = (path(&text), path(&locked), path(&scratch.0));
    let missing = format!("{directory}/miss\ning"); // even then it is one line

    let table: &[(&[&str], &str)] = &[
        (&["/dev/null"], "is not a regular file"),
        (&[&missing], "cannot be read: No such file"),
        (&[&text, &missing], "cannot be read: No such file"),
        (&[&directory], "is a directory"),
        (&["--chunk", "0", &text], "at least one byte, not zero"),
        (&["--chunk", "0KiB", &text], "at least one byte, not zero"),
        (&["--chunk", "", &text], "a size is a number of bytes"),
        (&["--chunk", "KiB", &text], "a size is a number of bytes"),
        (&["--chunk", "-1", &text], "a size is a number of bytes"),
        (&["--chunk", "1.5MiB", &text], "a size is a number of bytes"),
        (&["--chunk", "4KB", &text], "a size is a number of bytes"),
        (&["--chunk", "9999999999G", &text], "below 8 EiB"),
        (&["--chunk", "99999999999999999999", &text], "below 8 EiB"),
        (&["--chunk"], "missing argument"),
        (&["--workers", "0", &text], "at least one worker, not zero"),
        (&["--workers", "two", &text], "not a number of workers"),
        (&["--workers", "-2", &text], "not a number of workers"),
        (&["--workers", "99999999", "--backend", "process", &text], "max_workers is 99999999"),
        (&["--workers", "99999999", "--backend", "thread", &text], "max_workers is 99999999"),
        (&["--backend", "gpu", &text], "serial, thread, process or all"),
        (&["--backend", "", &text], "serial, thread, process or all"),
        (&["--words", "", &text], "is empty"),
        (&["--words", "dog,,cat", &text], "is empty"),
        (&["--words", "dog,a cat", &text], "has whitespace"),
        (&["--words", "dog\n", &text], "has whitespace"),
        (&["--generate", "much"], "a size is a number of bytes"),
        (&["--generate", "1KiB", &text], "no files beside it"),
        (&["--wrods", "dog"], "invalid option '--wrods'"),
        (&["-x"], "invalid option '-x'"),
        (&["--json=yes", &text], "unexpected argument"),
        (&["--timeline", "run.svg", &text], "ends with .html or .json"),
        (&["--timeline", "/nowhere/run.html", &text], "cannot be written"),
    ];
    let unreadable: (&[&str], &str) = (&[&locked], "cannot be read: Permission denied");
    let anything_goes = File::open(&locked).is_ok(); // for root, say
    for (args, phrase) in table.iter().chain((!anything_goes).then_some(&unreadable)) {
        let output = finish(start(&mut scratch.gutenberg(*args)));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.starts_with("gutenberg: ") && said.contains(phrase), "{args:?}: {said}");
        assert_eq!((said.lines().count(), said.ends_with('\n')), (1, true), "{args:?}: {said}");
        assert!(output.stdout.is_empty(), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
    }

    let odd = std::ffi::OsStr::from_bytes(b"d\xffg");
    let output = finish(start(scratch.gutenberg(["--words"]).arg(odd)));
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn a_file_may_have_any_name() {
    let scratch = Scratch::new("names");
    let path = scratch.0.join(std::ffi::OsStr::from_bytes(b"d\xffg --json"));
    fs::write(&path, "dog").expect("it can be written");
    for line in run_json(scratch.gutenberg(["--json"]).arg(path)) {
        assert_eq!(line.counts["dog"], 1, "{}", line.backend);
    }
}

#[test]
fn a_closed_pipe_is_no_reason_to_panic() {
    let scratch = Scratch::new("pipe");
    let paths = scratch.files(&["dog"]);
    for option in ["--json", "--backend=all", "--help"] {
        let mut child = start(scratch.gutenberg([option]).args(&paths));
        drop(child.stdout.take());
        let output = finish(child);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.is_empty() && output.status.success(), "{option}: {} {said}", output.status);
    }
}

/// What a killed worker was at is counted again: no word is lost, and none is counted twice.
#[test]
fn counts_are_exact_though_a_worker_is_killed() {
    let (scratch, path, known) = long_job("killed-worker");
    let arguments = ["--backend=process", "--workers=2", "--chunk=1MiB", "--json"];
    at_work("a killed worker loses what it was at", || {
        let child = start(scratch.gutenberg(arguments).arg(&path));
        let killed = busy_workers(&child, 2).is_some_and(|workers| kill_9(workers[1].pid).success());
        let output = finish(child);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", output.status);
        let [line] = &parse(&output)[..] else { panic!("not one line: {output:?}") };
        assert_eq!(line.counts, known, "{said}");
        // A worker that is killed between two spans loses none.
        killed && said.contains("counts them again: ") && said.contains("was ended by SIGKILL")
    });
}

#[test]
fn a_killed_parent_leaves_no_worker() {
    let (scratch, path, _) = long_job("killed-parent");
    at_work("the parent has workers as it is killed", || {
        let mut child = start(scratch.gutenberg(["--backend=process", "--workers=2"]).arg(&path));
        let workers = busy_workers(&child, 2).unwrap_or_default();
        let left = || workers.iter().filter(|worker| worker.is_alive()).collect::<Vec<_>>();
        child.kill().expect("it is there to be killed, or waited for");
        let status = child.wait().expect("it is a child of this process");
        let deadline = Instant::now() + Duration::from_secs(1);
        while !left().is_empty() {
            assert!(Instant::now() < deadline, "still there after a second: {:?}", left());
            thread::sleep(GLANCE);
        }
        !workers.is_empty() && status.signal() == Some(9)
    });
}

#[test]
fn a_file_that_changes_meanwhile_has_no_count() {
    let (scratch, path, _) = long_job("changed");
    at_work("a file changes", || {
        let child = start(scratch.gutenberg(["--backend=process", "--workers=2"]).arg(&path));
        let seen = busy_workers(&child, 2).is_some();
        let file = File::options().write(true).open(&path).expect("it can be written");
        let length = file.metadata().expect("it exists").len();
        // A worker finds that there is nothing left to read, or else the job in the end.
        file.set_len(length - length / 8).expect("it can be cut");
        let output = finish(child);
        let said = String::from_utf8_lossy(&output.stderr);
        let refused = output.status.code() == Some(2);
        assert!(!refused || said.contains("while it was counted") && said.lines().count() == 1, "{said}");
        seen && refused
    });
}

/// Tries `hit` again if it says that the job was over too soon for it. That is bad luck, but not each time.
fn at_work(what: &str, hit: impl FnMut() -> bool) {
    assert!(std::iter::repeat_with(hit).take(5).any(|hit| hit), "in five attempts, never once: {what}");
}

/// Runs the example on `paths` and compares what each backend counts.
fn check_all_backends(paths: &[PathBuf], words: &[&str], chunk: &str, expected: &BTreeMap<String, u64>) {
    let mut command = Command::new(example());
    command.args(["--json", "--workers=2", "--chunk", chunk, "--words", &words.join(",")]).args(paths);
    let lines = run_json(&mut command);
    let bytes: u64 = paths.iter().map(|path| fs::metadata(path).expect("it exists").len()).sum();
    let backends: Vec<_> = lines.iter().map(|line| (line.backend.as_str(), line.workers)).collect();
    assert_eq!(backends, [("serial", 1), ("thread", 2), ("process", 2)]);
    for line in &lines {
        assert_eq!((&line.counts, line.bytes), (expected, bytes), "{} in chunks of {chunk}", line.backend);
        assert!(line.seconds > 0.0, "{}", line.backend);
    }
}

/// What the example must agree with.
fn split(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

fn count_naively(texts: &[impl AsRef<[u8]>], words: &[&str]) -> BTreeMap<String, u64> {
    let mut counts = counts_of(words.iter().map(|word| (*word, 0)));
    for word in texts.iter().flat_map(|text| split(text.as_ref())) {
        if let Some(count) = str::from_utf8(word).ok().and_then(|word| counts.get_mut(word)) {
            *count += 1;
        }
    }
    counts
}

fn counts_of<'a>(counts: impl IntoIterator<Item = (&'a str, u64)>) -> BTreeMap<String, u64> {
    counts.into_iter().map(|(word, count)| (word.to_string(), count)).collect()
}

/// Searched words, parts of them, and whitespace, in any order.
fn random_text(random: &mut fastrand::Rng) -> Vec<u8> {
    let pieces = ["dog", "cat", "girl", "boy", "d", "o", "g", "s", "hot", ".", " ", " ", "  ", "\n", "\t", "\r\n"];
    let pieces = (0..random.usize(..80)).map(|_| pieces[random.usize(..pieces.len())]);
    pieces.collect::<String>().into_bytes()
}

/// A text in which words, and what resembles them, lie across multiples of `border` in every way.
fn words_across(border: usize) -> Vec<u8> {
    let mut text = Vec::new();
    for word in ["girl", "girls", "xgirl"] {
        for before in 0..=word.len() {
            let start = (text.len() + word.len() + 2).next_multiple_of(border) - before;
            text.extend(b"dog boys\n".iter().cycle().take(start - 1 - text.len()));
            text.push(b' ');
            text.extend_from_slice(word.as_bytes());
            text.push(b'\t');
        }
    }
    text
}

/// A text that takes about a second, and what is in it.
fn long_job(name: &str) -> (Scratch, PathBuf, BTreeMap<String, u64>) {
    const REPEATED: u64 = if cfg!(debug_assertions) { 96 } else { 768 };
    let scratch = Scratch::new(name);
    let mut block = b"a dog and a cat, a boy, no dogs; girl boy girl\n".repeat(1 + (1 << 20) / 48);
    block.truncate(1 << 20);
    block.push(b'\n');
    let path = scratch.0.join("long.txt");
    let mut file = File::create(&path).expect("it can be made");
    (0..REPEATED).for_each(|_| file.write_all(&block).expect("it can be written"));
    let known = count_naively(&[block], &WORDS).into_iter().map(|(word, count)| (word, count * REPEATED)).collect();
    (scratch, path, known)
}

/// A directory that is this test's, and goes with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("gutenberg-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("it can be made");
        Scratch(path)
    }

    fn files(&self, texts: &[impl AsRef<[u8]>]) -> Vec<PathBuf> {
        let write = |(index, text): (usize, &_)| {
            let path = self.0.join(format!("{index}.txt"));
            fs::write(&path, text).expect("it can be written");
            path
        };
        texts.iter().enumerate().map(write).collect()
    }

    /// The example, for which this is the temporary directory.
    fn gutenberg(&self, args: impl IntoIterator<Item = impl AsRef<std::ffi::OsStr>>) -> Command {
        let mut command = Command::new(example());
        command.env("TMPDIR", &self.0).args(args);
        command
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Where the example is. Built here: nothing builds it when a test runs alone, and it might be of yesterday.
fn example() -> &'static Path {
    static EXAMPLE: OnceLock<PathBuf> = OnceLock::new();
    EXAMPLE.get_or_init(|| {
        let test = env::current_exe().expect("this test is a file");
        let target = test.ancestors().nth(2).expect("it lies in target/debug/deps");
        let profile = if target.ends_with("release") { "release" } else { "dev" };
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--example", "gutenberg", "--profile", profile]);
        let built = build.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo built this test");
        assert!(built.success(), "{build:?}");
        target.join("examples/gutenberg")
    })
}

/// A line of `--json`.
#[derive(Debug, Deserialize)]
struct Line {
    backend: String,
    workers: usize,
    bytes: u64,
    seconds: f64,
    counts: BTreeMap<String, u64>,
}

fn run_json(command: &mut Command) -> Vec<Line> {
    let output = finish(start(command));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{command:?}: {} {said}", output.status);
    parse(&output)
}

fn parse(output: &Output) -> Vec<Line> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}

fn start(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Waits for a program, but not for ever.
fn finish(child: Child) -> Output {
    let pid = child.id();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || tell.send(child.wait_with_output()));
    match told.recv_timeout(PATIENCE) {
        Ok(output) => output.expect("its output can be read"),
        Err(_) => {
            kill_9(pid);
            panic!("it hung: {:?}", told.recv());
        }
    }
}

fn kill_9(pid: u32) -> ExitStatus {
    // The shell's own: not every system has a program of that name.
    Command::new("sh").args(["-c", &format!("kill -9 {pid}")]).status().expect("there is a shell")
}

/// A process, as `/proc` shows it.
#[derive(Clone, Copy, Debug)]
struct Process {
    pid: u32,
    state: char,
    parent: u32,
    /// Hundredths of a second for which it has computed.
    ticks: u64,
    /// With the pid, this names a process for good.
    started: u64,
}

impl Process {
    fn find(pid: u32) -> Option<Process> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may have spaces and parentheses of its own.
        let fields: Vec<_> = stat.rsplit_once(") ")?.1.split(' ').collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(Process {
            pid,
            state: fields[0].chars().next()?,
            parent: number(1)? as u32,
            ticks: number(11)? + number(12)?,
            started: number(19)?,
        })
    }

    fn is_alive(&self) -> bool {
        // One that has ended stays visible until its parent has taken note.
        Process::find(self.pid).is_some_and(|now| now.started == self.started && !matches!(now.state, 'Z' | 'X'))
    }
}

/// Waits until `child` has `count` workers, all in the middle of their work. `None`: it is over already.
fn busy_workers(child: &Child, count: usize) -> Option<Vec<Process>> {
    const TICKS: u64 = 3;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let entries = fs::read_dir("/proc").expect("this is Linux");
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let workers: Vec<_> = pids
            .filter_map(Process::find)
            .filter(|process| process.parent == child.id() && process.ticks >= TICKS)
            .collect();
        if workers.len() == count {
            return Some(workers);
        }
        Process::find(child.id()).filter(|parent| parent.state != 'Z')?;
        assert!(Instant::now() < deadline, "not {count} workers at work: {workers:?}");
        thread::sleep(GLANCE);
    }
}
