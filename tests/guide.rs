//! The guide in `docs/guide` is true: its programs are the examples, and what it says they print is what they print.
//!
//! A line `cargo run --example NAME`, alone in backticks, says which example comes next. A block ```` ```rust,ignore ```` after it is
//! that example's file, and a block ```` ```text ```` what the example prints. All other blocks of Rust are tests of the
//! documentation (`src/lib.rs`). With `GUIDE=write` in the environment, the test writes such blocks instead of comparing them.
//!
//! Times differ from run to run, so their digits do not count, nor do spaces. What else may differ is said beside `text`: `numbers`, all
//! of them; `unordered`, the order of the lines; `varies`, all that comes after a line's first colon, and, if `unordered` too, how often
//! there is such a line.

use crate::support::{DEADLINE, Place, examples};
use concurrent_futures::{DropPolicy, ThreadPoolExecutor};
use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Files of a directory, at whatever depth.
fn files(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|extension| extension == ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn pages() -> Vec<PathBuf> {
    let pages = files(&root().join("docs/guide/src"), "md");
    assert!(pages.len() > 10, "{pages:?}");
    pages
}

/// A fenced block of a page.
struct Block<'a> {
    /// What stands beside the fence.
    info: &'a str,
    /// Where its text is in the page, without the fences.
    text: std::ops::Range<usize>,
    line: usize,
}

/// A piece of a page.
enum Piece<'a> {
    Line(&'a str),
    Block(Block<'a>),
}

fn pieces(page: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut open: Option<Block> = None;
    let mut at = 0;
    for (number, line) in page.split_inclusive('\n').enumerate() {
        let text = line.trim_end();
        open = match (open, text.strip_prefix("```")) {
            (None, Some(info)) => Some(Block { info, text: at + line.len()..at, line: number + 1 }),
            (None, None) => {
                pieces.push(Piece::Line(text));
                None
            }
            (Some(block), Some("")) => {
                pieces.push(Piece::Block(Block { text: block.text.start..at, ..block }));
                None
            }
            (Some(block), _) => Some(block),
        };
        at += line.len();
    }
    assert!(open.is_none(), "a block has no end: {:?}", open.map(|block| block.line));
    pieces
}

/// An example as it is run: its name, and its arguments.
type Run = Vec<String>;

fn command(line: &str) -> Option<Run> {
    let command = line.strip_prefix("`cargo run ")?.strip_suffix('`')?;
    let words = command.split_once("--example ")?.1.split(' ');
    Some(words.filter(|word| *word != "--").map(str::to_owned).collect())
}

/// The file of an example, from where its program begins.
fn program(name: &str) -> String {
    let text = read(&root().join(format!("examples/{name}.rs")));
    let program: String = text.split_inclusive('\n').skip_while(|line| line.starts_with("//!")).collect();
    program.trim_start().to_owned()
}

/// A number with a unit of time after it, or all numbers, as `#`.
fn without_numbers(line: &str, all: bool) -> String {
    const UNITS: [&str; 8] = ["tenths", "seconds", "s", "ms", "µs", "ns", "times", "MiB/s"];
    let (mut kept, mut rest) = (String::new(), line);
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        kept += &rest[..start];
        rest = &rest[start..];
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number = rest[..end].trim_end_matches('.');
        rest = &rest[number.len()..];
        let next =
            rest.trim_start().split(|c: char| c.is_whitespace() || c == ',' || c == ')').next().unwrap_or_default();
        kept += if all || UNITS.contains(&next) { "#" } else { number };
    }
    (kept + rest).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What of an output is the same in each run.
fn normalised(output: &str, info: &str) -> Vec<String> {
    let has = |word| info.split(',').any(|other| other == word);
    let line = |line: &str| {
        let line = if has("varies") { line.split(": ").next().unwrap_or_default() } else { line };
        without_numbers(line, has("numbers") || has("varies"))
    };
    let mut lines: Vec<String> = output.lines().map(line).collect();
    if has("unordered") {
        lines.sort();
        if has("varies") {
            lines.dedup(); // how often there is such a line varies, too
        }
    }
    lines
}

fn said_by(binary: &Path, arguments: &[String], directory: &str) -> String {
    let mut command = Command::new(binary);
    let child = command.args(arguments).current_dir(directory).stdin(Stdio::null());
    let output = child.output().unwrap_or_else(|error| panic!("{}: {error}", binary.display()));
    assert!(output.status.success(), "{}: {output:?}", binary.display());
    String::from_utf8(output.stdout).unwrap()
}

/// Runs examples, several at a time, since they sleep most of the time.
fn outputs(runs: BTreeSet<Run>) -> BTreeMap<Run, String> {
    let folder = examples();
    // Where what examples write is in nobody's way.
    let place = Place::new();
    // An example that hangs is not waited for.
    let pool = ThreadPoolExecutor::builder().max_workers(4).drop_policy(DropPolicy::Detach).build().unwrap();
    let call = |run: Run| {
        let binary = folder.join(&run[0]);
        let (arguments, directory) = (run.clone(), place.path(""));
        (run, pool.spawn(move || said_by(&binary, &arguments[1..], &directory)))
    };
    let running: Vec<_> = runs.into_iter().map(call).collect();
    running.into_iter().map(|(run, output)| (run, output.result_timeout(DEADLINE).unwrap())).collect()
}

/// Each block that stands for an example is the example's file, and each that follows it is what the example prints.
#[test]
fn programs_and_outputs_are_those_of_the_examples() {
    let pages: Vec<(PathBuf, String)> = pages().into_iter().map(|path| (path.clone(), read(&path))).collect();
    let (mut programs, mut printed) = (Vec::new(), Vec::new());
    for (path, page) in &pages {
        let mut example: Option<Run> = None;
        for piece in pieces(page) {
            let Piece::Block(block) = piece else {
                let Piece::Line(line) = piece else { unreachable!() };
                example = command(line).or(example);
                continue;
            };
            let place = format!("{}:{}", path.display(), block.line);
            let named = || example.clone().unwrap_or_else(|| panic!("{place}: no line says which example this is"));
            match block.info.split(',').next().unwrap_or_default() {
                "rust" if block.info == "rust,ignore" => programs.push((path, block.text, place.clone(), named())),
                "rust" => assert_eq!(block.info, "rust", "{place}: a test of the documentation, or a whole example"),
                "text" => printed.push((path, block.text, block.info, place.clone(), named())),
                "python" | "toml" | "console" | "sh" => {}
                other => panic!("{place}: what is a block of {other:?}?"),
            }
        }
    }
    assert!(programs.len() > 10 && printed.len() > 10);

    let outputs = outputs(printed.iter().map(|(.., run)| run.clone()).collect());
    let mut wrong = Vec::new();
    let mut edits: BTreeMap<&PathBuf, Vec<(std::ops::Range<usize>, String)>> = BTreeMap::new();
    let texts: BTreeMap<&PathBuf, &str> = pages.iter().map(|(path, page)| (path, page.as_str())).collect();
    for (path, text, place, run) in programs {
        let program = program(&run[0]);
        if texts[path][text.clone()] != program {
            wrong.push(format!("{place} is not examples/{}.rs", run[0]));
            edits.entry(path).or_default().push((text, program));
        }
    }
    for (path, text, info, place, run) in printed {
        let output = &outputs[&run];
        let (shown, printed) = (normalised(&texts[path][text.clone()], info), normalised(output, info));
        if shown != printed {
            wrong.push(format!(
                "{place} is not what {run:?} prints, which is, without what may differ:\n{}",
                printed.join("\n")
            ));
            edits.entry(path).or_default().push((text, output.clone()));
        }
    }
    if env::var_os("GUIDE").is_some_and(|what| what == "write") {
        for (path, mut edits) in edits {
            let mut page = texts[path].to_owned();
            // From the end, so that the places before stay where they are.
            edits.sort_by_key(|(text, _)| std::cmp::Reverse(text.start));
            for (text, new) in edits {
                page.replace_range(text, &new);
            }
            fs::write(path, page).unwrap();
        }
    } else {
        assert!(wrong.is_empty(), "{}\n\nGUIDE=write cargo test --test main guide:: writes them", wrong.join("\n"));
    }
}

/// Whoever looks for an example finds a page that shows it; one that is a folder is linked, and the page says what is worth reading.
#[test]
fn every_example_is_in_the_guide() {
    let (mut shown, mut linked) = (BTreeSet::new(), BTreeSet::new());
    for path in pages() {
        let page = read(&path);
        let mut named = BTreeSet::new();
        for piece in pieces(&page) {
            match piece {
                Piece::Line(line) => named.extend(command(line).map(|run| run[0].clone() + ".rs")),
                Piece::Block(block) if block.info == "rust,ignore" => shown.append(&mut named),
                Piece::Block(_) => {}
            }
        }
        let examples = links(&page).into_iter().filter_map(|link| link.strip_prefix("../../../examples/"));
        linked.extend(examples.filter_map(|link| Some(link.split_once('/')?.0.to_owned())));
    }
    let entries = fs::read_dir(root().join("examples")).unwrap().map(Result::unwrap);
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|entry| entry.path().is_dir());
    let names = |entries: Vec<fs::DirEntry>| -> BTreeSet<String> {
        entries.into_iter().map(|entry| entry.file_name().into_string().unwrap()).collect()
    };
    assert_eq!((shown, linked), (names(files), names(folders)), "examples in the guide, and examples that there are");
}

/// Each page is in the summary, and what of it is a program is compiled and run as a test.
#[test]
fn every_page_is_found_and_tested() {
    let folder = root().join("docs/guide/src");
    let summary = read(&folder.join("SUMMARY.md"));
    let facade = read(&root().join("src/lib.rs"));
    for path in pages() {
        let name = path.strip_prefix(&folder).unwrap().to_str().unwrap();
        if name == "SUMMARY.md" {
            continue;
        }
        assert_eq!(summary.matches(&format!("]({name})")).count(), 1, "{name} in the summary");
        let test = format!("include_str!(\"../docs/guide/src/{name}\")");
        assert_eq!(facade.matches(&test).count(), 1, "{name} among the tests of the documentation, in src/lib.rs");
    }
}

/// Targets of the links and pictures of a page, without those in code.
fn links(page: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for piece in pieces(page) {
        let Piece::Line(line) = piece else { continue };
        for text in line.split('`').step_by(2) {
            let targets = text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap_or_default());
            found.extend(targets);
        }
        // A link whose text is code is cut in two above.
        found.extend(line.split("`](").skip(1).map(|rest| rest.split(')').next().unwrap_or_default()));
    }
    found
}

/// What is a heading's name in a link.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = pieces(page).into_iter().filter_map(|piece| match piece {
        Piece::Line(line) if line.starts_with('#') => Some(line.trim_start_matches('#').trim()),
        _ => None,
    });
    let kept =
        |c: char| (c.is_alphanumeric() || matches!(c, ' ' | '-' | '_')).then_some(if c == ' ' { '-' } else { c });
    headings.map(|heading| heading.to_lowercase().chars().filter_map(kept).collect()).collect()
}

/// No link leads nowhere: to a file that is not there, or to a heading that is not in it.
#[test]
fn every_relative_link_leads_somewhere() {
    let mut documents = files(&root().join("docs"), "md");
    documents.extend(
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "examples/consumer/README.md"]
            .map(|name| root().join(name)),
    );
    let mut checked = 0;
    for document in documents {
        let page = read(&document);
        for link in links(&page) {
            let place = document.display();
            if link.starts_with("http:") || link.starts_with("https:") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { document.clone() } else { document.parent().unwrap().join(file) };
            assert!(target.exists(), "{place}: {link:?} leads nowhere");
            assert!(
                heading.is_empty() || anchors(&read(&target)).contains(heading),
                "{place}: {link:?} names no heading"
            );
            checked += 1;
        }
    }
    assert!(checked > 20, "{checked}");
}
