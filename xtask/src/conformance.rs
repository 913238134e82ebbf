//! Which test shows which row of `tests/CONFORMANCE.md`, on which backends, and whether any is missing.
//!
//! A test names the rows that it shows in the comment above it, or inside it: `MAP-05`, or `MAP-05 [threads]` where it shows
//! the row on that backend alone. Sources are read line by line, as rustfmt leaves them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::Path,
};

const TABLE: &str = "tests/CONFORMANCE.md";

/// Every group that the table must have.
const GROUPS: &[&str] = &[
    "FUT", "CAN", "RES", "CB", "WAIT", "ASC", "MAP", "SUB", "SHD", "INI", "WRK", "NEST", "AIO", "CPU", "LOK", "PEB",
    "MEM", "PROC", "QUE", "PP", "DL", "DILL", "POOL", "AR", "THR", "JOB",
];

/// Where tests are.
const FOLDERS: [&str; 5] = ["tests", "src", "executor-core/src", "executor-thread/src", "executor-process/src"];

/// On which backends the tests of a file run: the first line whose path begins so. All others run on both.
const HOMES: &[(&str, Home)] = &[
    ("tests/suite/", Home::Suite),
    ("tests/ui/", Home::Program),
    ("tests/threads.rs", Home::On(Backend::Threads)),
    ("tests/threading.rs", Home::On(Backend::Threads)),
    ("tests/threads_under_pressure.rs", Home::On(Backend::Threads)),
    ("executor-thread/", Home::On(Backend::Threads)),
    ("tests/faults.rs", Home::On(Backend::Processes)),
    ("tests/output.rs", Home::On(Backend::Processes)),
    ("tests/limits.rs", Home::On(Backend::Processes)),
    ("tests/reusable.rs", Home::On(Backend::Processes)),
    ("tests/fault_matrix.rs", Home::On(Backend::Processes)),
    ("tests/chaos.rs", Home::On(Backend::Processes)),
    ("tests/deadlocks.rs", Home::On(Backend::Processes)),
    ("tests/start_methods.rs", Home::On(Backend::Processes)),
    ("executor-process/", Home::On(Backend::Processes)),
];

#[derive(Clone, Copy, PartialEq)]
enum Home {
    /// On the backends for which `tests/conformance.rs` binds each function.
    Suite,
    /// The file is one program that must not compile, whatever the backend.
    Program,
    On(Backend),
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Backend {
    Threads,
    Processes,
}

const BOTH: [Backend; 2] = [Backend::Threads, Backend::Processes];

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Backend::Threads => "threads",
            Backend::Processes => "processes",
        })
    }
}

fn backend(name: &str) -> Option<Backend> {
    BOTH.into_iter().find(|backend| backend.to_string() == name)
}

/// Prints the table.
///
/// # Errors
/// A line for each row that lacks a test, and for whatever else does not fit together.
pub(crate) fn conformance() -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace");
    let read = |path: &str| fs::read_to_string(root.join(path)).map_err(|error| format!("{path}: {error}"));
    let mut sources = Vec::new();
    for folder in FOLDERS {
        for path in rust_files(root, folder).map_err(|error| format!("{folder}: {error}"))? {
            let text = read(&path)?;
            sources.push(Source { path, text });
        }
    }
    let manifest = read("Cargo.toml")?;
    let report = check(&read(TABLE)?, &sources, &manifest);
    println!("{}", report.text);
    if report.errors.is_empty() { Ok(()) } else { Err(report.errors.join("\n")) }
}

/// Paths below `folder`, from the root on.
fn rust_files(root: &Path, folder: &str) -> std::io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{folder}/{name}");
        if entry.file_type()?.is_dir() {
            found.extend(if name == "target" { Vec::new() } else { rust_files(root, &path)? });
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

struct Source {
    path: String,
    text: String,
}

struct Report {
    text: String,
    errors: Vec<String>,
}

/// A line of the table.
struct Row {
    id: String,
    backends: BTreeSet<Backend>,
    reason: String,
}

/// Something that shows rows.
struct Test {
    path: String,
    name: String,
    backends: BTreeSet<Backend>,
    /// Each row that it names, and the backend alone on which it shows it.
    rows: Vec<(String, Option<Backend>)>,
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.strip_prefix("tests/").unwrap_or(&self.path), self.name)
    }
}

fn check(table: &str, sources: &[Source], manifest: &str) -> Report {
    let mut errors = Vec::new();
    let rows = parse_table(table, &mut errors);
    let tests = parse_tests(sources, manifest, &mut errors);
    let known: BTreeSet<_> = rows.iter().map(|row| row.id.as_str()).collect();
    let mut shown: BTreeMap<(&str, Backend), Vec<&Test>> = BTreeMap::new();
    for test in &tests {
        for (id, only) in &test.rows {
            if !known.contains(id.as_str()) {
                errors.push(format!("{test} names {id}, which {TABLE} does not have"));
            }
            for backend in test.backends.iter().filter(|backend| only.is_none_or(|only| only == **backend)) {
                shown.entry((id, *backend)).or_default().push(test);
            }
        }
    }
    let mut text = String::new();
    let mut totals: BTreeMap<&str, (usize, usize, usize)> = BTreeMap::new();
    for row in &rows {
        let total = totals.entry(group_of(&row.id)).or_default();
        total.0 += 1;
        let mut lines: Vec<(String, String)> = Vec::new();
        let mut complete = true;
        for backend in &row.backends {
            let tests = shown.get(&(row.id.as_str(), *backend)).map(Vec::as_slice).unwrap_or_default();
            if tests.is_empty() {
                complete = false;
                errors.push(format!("{} has no test on {backend}", row.id));
                lines.push((backend.to_string(), "MISSING".to_owned()));
            }
            lines.extend(tests.iter().map(|test| (backend.to_string(), test.to_string())));
        }
        // A test that runs on both is one line.
        lines.sort_by(|a, b| a.1.cmp(&b.1));
        lines.dedup_by(|next, first| {
            let same = next.1 == first.1 && next.0 != first.0;
            if same {
                first.0 = "both".to_owned();
            }
            same || next == first
        });
        if !row.reason.is_empty() {
            lines.push(("—".to_owned(), row.reason.clone()));
        }
        total.1 += usize::from(complete && !row.backends.is_empty());
        total.2 += usize::from(row.backends.is_empty());
        for (index, (backend, what)) in lines.iter().enumerate() {
            let id = if index == 0 { row.id.as_str() } else { "" };
            text.push_str(&format!("{id:8} {backend:9} {what}\n"));
        }
        for named in row.reason.split('`').skip(1).step_by(2).filter(|named| named.contains(".rs: ")) {
            let exists = tests.iter().any(|test| test.to_string() == named);
            if !exists {
                errors.push(format!("{}: its reason names `{named}`, which does not exist", row.id));
            }
        }
    }
    text.push('\n');
    let mut all = (0, 0, 0);
    let summary = |name: &str, (rows, tested, reasoned): (usize, usize, usize)| {
        format!("{name:4} {rows:4} rows: {tested:3} tested, {reasoned:2} with a reason, {:2} missing\n", {
            rows - tested - reasoned
        })
    };
    for &group in GROUPS {
        let total = totals.get(group).copied().unwrap_or_default();
        all = (all.0 + total.0, all.1 + total.1, all.2 + total.2);
        text.push_str(&summary(group, total));
    }
    text.push_str(&summary("all", all));
    Report { text, errors }
}

fn group_of(id: &str) -> &str {
    id.split('-').next().unwrap_or_default()
}

/// The rows, in their order. A heading such as `## FUT: futures (17 rows)` begins a group and says how many it has.
fn parse_table(table: &str, errors: &mut Vec<String>) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut promised: BTreeMap<&str, usize> = BTreeMap::new();
    let mut group = "";
    for line in table.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            group = heading.split(':').next().unwrap_or_default();
            let count = heading.rsplit_once('(').and_then(|(_, count)| count.strip_suffix(" rows)")?.parse().ok());
            match count {
                Some(count) => drop(promised.insert(group, count)),
                None => errors.push(format!("{TABLE}: `{line}` does not say how many rows it has")),
            }
        }
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let ["", id, behaviour, backends, reason, ""] = cells[..] else {
            if line.starts_with('|') {
                errors.push(format!("{TABLE}: `{line}` has not four columns"));
            }
            continue;
        };
        if id == "ID" || id.starts_with("--") {
            continue;
        }
        if group_of(id) != group || ids(id).is_empty() {
            errors.push(format!("{TABLE}: {id} does not belong to the group {group}"));
        }
        if rows.iter().any(|row| row.id == id) {
            errors.push(format!("{TABLE}: {id} is there twice"));
        }
        if behaviour.is_empty() {
            errors.push(format!("{TABLE}: {id} says nothing"));
        }
        let names: Vec<_> = backends.split(", ").filter(|name| *name != "—").collect();
        let parsed: BTreeSet<_> = names.iter().filter_map(|name| backend(name)).collect();
        if parsed.len() != names.len() {
            errors.push(format!("{TABLE}: {id}: `{backends}` are no backends"));
        }
        if parsed.len() < BOTH.len() && reason.is_empty() {
            errors.push(format!("{TABLE}: {id} leaves a backend out and gives no reason"));
        }
        rows.push(Row { id: id.to_owned(), backends: parsed, reason: reason.to_owned() });
    }
    for &group in GROUPS {
        let count = rows.iter().filter(|row| group_of(&row.id) == group).count();
        match promised.get(group) {
            None => errors.push(format!("{TABLE}: the group {group} is missing")),
            Some(promised) if *promised != count => {
                errors.push(format!("{TABLE}: {group} has {count} rows, and its heading says {promised}"));
            }
            Some(_) => {}
        }
    }
    rows
}

/// Rows of our groups that a comment names, and the backend that it adds in brackets.
fn ids(comment: &str) -> Vec<(String, Option<Backend>)> {
    let mut found = Vec::new();
    for (at, _) in comment.match_indices('-') {
        let before = comment[..at].rsplit(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
        let after = &comment[at + 1..];
        let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        if digits == 2 && GROUPS.contains(&before) {
            let only = after[2..].strip_prefix(" [").and_then(|rest| backend(rest.split(']').next()?));
            found.push((format!("{before}-{}", &after[..2]), only));
        }
    }
    found
}

/// Every test, whether it names rows or not.
fn parse_tests(sources: &[Source], manifest: &str, errors: &mut Vec<String>) -> Vec<Test> {
    let text_of = |path: &str| sources.iter().find(|source| source.path == path).map_or("", |source| &source.text);
    let bound = parse_bindings(text_of("tests/conformance.rs"));
    let (modules, main) = (text_of("tests/suite.rs"), text_of("tests/main.rs"));
    let mut tests = Vec::new();
    for Source { path, text } in sources {
        let home = HOMES.iter().find(|(prefix, _)| path.starts_with(prefix)).map_or(Home::Both, |(_, home)| *home);
        let file = path.rsplit('/').next().and_then(|name| name.strip_suffix(".rs")).unwrap_or_default();
        if home == Home::Program {
            let rows = text.lines().flat_map(|line| ids(comment_of(line))).collect();
            tests.push(Test { path: path.clone(), name: file.to_owned(), backends: BOTH.into(), rows });
            continue;
        }
        let first = tests.len();
        for Function { name, is_test, is_generic, rows, line } in functions(text) {
            let backends: BTreeSet<_> = match home {
                Home::Suite if is_generic => bound.get(&(file.to_owned(), name.clone())).cloned().unwrap_or_default(),
                Home::On(backend) if is_test => [backend].into(),
                Home::Both if is_test => BOTH.into(),
                _ => BTreeSet::new(),
            };
            // In a library, a comment may name the row for which some code is there.
            let names_rows = !rows.is_empty() && path.starts_with("tests/");
            if backends.is_empty() && names_rows {
                let why = if home == Home::Suite { "is bound to no backend" } else { "is no test that is run" };
                errors.push(format!("{path}:{line}: {name} names {}, and {why}", rows[0].0));
            }
            if !backends.is_empty() {
                tests.push(Test { path: path.clone(), name, backends, rows });
            }
        }
        // Cargo compiles what is named, and says nothing of what is not.
        let compiled = match path.strip_prefix("tests/") {
            Some(rest) if home == Home::Suite => rest.contains('/') && modules.contains(&format!("mod {file};")),
            Some(_) => file == "main" || main.contains(&format!("mod {file};")) || has_target(manifest, file),
            None => true,
        };
        if tests.len() > first && !compiled {
            errors.push(format!("{path} has tests, and is part of no test program"));
        }
    }
    tests
}

fn has_target(manifest: &str, name: &str) -> bool {
    let targets = manifest.split("[[test]]").skip(1).filter_map(|target| target.split("\n[").next());
    targets.into_iter().any(|target| target.contains(&format!("name = \"{name}\"")))
}

/// For each function of the suite, by file and name, the backends to which a `bind!` binds it.
fn parse_bindings(text: &str) -> BTreeMap<(String, String), BTreeSet<Backend>> {
    let mut bound: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for binding in text.split("\nbind! {").skip(1) {
        let Some((head, body)) = binding.split_once(": {") else { continue };
        let backends = head.split(',').filter_map(|part| backend(&part.split_whitespace().next()?.to_lowercase()));
        let backends: BTreeSet<_> = backends.collect();
        let code: Vec<_> = body.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        for group in code.join("\n").split('}').next().unwrap_or_default().split(';') {
            let Some((file, tests)) = group.split_once(':') else { continue };
            for test in tests.split_whitespace() {
                bound.entry((file.trim().to_owned(), test.to_owned())).or_default().extend(&backends);
            }
        }
    }
    bound
}

struct Function {
    name: String,
    is_test: bool,
    /// Over a backend, as the functions of the suite are.
    is_generic: bool,
    rows: Vec<(String, Option<Backend>)>,
    line: usize,
}

/// The functions of a file that are not inside of others. Rows of a test are named above it or in it, of anything else
/// only above it.
fn functions(text: &str) -> Vec<Function> {
    let mut found: Vec<Function> = Vec::new();
    let mut above = String::new();
    let mut attributes = String::new();
    let mut inside: Option<&str> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let code = line.trim_start();
        let indent = &line[..line.len() - code.len()];
        if let Some(outer) = inside {
            let function = found.last_mut().expect("it is inside of one");
            function.rows.extend(ids(comment_of(line)));
            if indent == outer && code.starts_with('}') {
                inside = None;
            }
        } else if code.starts_with("//") {
            above.push_str(code);
            above.push('\n');
        } else if code.starts_with("#[") {
            attributes.push_str(code);
        } else {
            if let Some(name) = function_name(code) {
                // `#[test]`, or a runtime's own, such as `#[smol::test]`.
                let is_test = (attributes.contains("#[test]") || attributes.contains("::test"))
                    && !attributes.contains("#[ignore");
                let is_generic = code.contains("<B: Backend>");
                let rows = ids(&above);
                found.push(Function { name, is_test, is_generic, rows, line: number });
                if (is_test || is_generic) && code.ends_with('{') {
                    inside = Some(indent);
                }
            }
            above.clear();
            attributes.clear();
        }
    }
    found
}

fn function_name(code: &str) -> Option<String> {
    let code = code.strip_prefix("pub(crate) ").unwrap_or(code);
    let rest = code.strip_prefix("async ").unwrap_or(code).strip_prefix("fn ")?;
    rest.split(['(', '<']).next().map(str::to_owned)
}

fn comment_of(line: &str) -> &str {
    line.find("//").map_or("", |at| &line[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const BINDINGS: &str = "
bind! { Threads in threads, Processes in processes: {
    map:
        in_order
        // not this one
        in_chunks;
}}

bind! { Threads in only_threads: {
    map: on_threads;
}}
";

    const SUITE: &str = "
/// FUT-01, IPE-03: in order.
pub(crate) fn in_order<B: Backend>() {
    fn inner() {
    }
    // FUT-02: and twice.
}

/// FUT-03 [processes].
pub(crate) fn in_chunks<B: Backend>() {
}

/// FUT-03.
pub(crate) fn on_threads<B: Backend>() {}
";

    const THREADS: &str = "
/// FUT-04.
#[test]
fn spawns() {
    let x = 1; // FUT-05
}

// FUT-04, in a runtime.
#[smol::test]
async fn awaits() {}

fn no_test() {}
";

    fn sources(changes: &[(&str, &str, &str)]) -> Vec<Source> {
        let files = [
            ("tests/conformance.rs", BINDINGS),
            ("tests/suite.rs", "mod map;"),
            ("tests/main.rs", "mod threads;"),
            ("tests/suite/map.rs", SUITE),
            ("tests/threads.rs", THREADS),
            ("tests/ui/src/bin/no_callable.rs", "//~ E0308\n//! FUT-06\nfn main() {}"),
        ];
        let change = |path: &str, text: &str| {
            let apply = |text: String, (_, from, to): &(&str, &str, &str)| text.replace(from, to);
            changes.iter().filter(|(changed, ..)| *changed == path).fold(text.to_owned(), apply)
        };
        files.map(|(path, text)| Source { path: path.into(), text: change(path, text) }).into()
    }

    fn table(from: &str, to: &str) -> String {
        let futures = "## FUT: futures (6 rows)\n
| ID | Behaviour | Backends | Why not, where not |
|---|---|---|---|
| FUT-01 | one | threads, processes | |
| FUT-02 | two | threads, processes | |
| FUT-03 | three | threads, processes | |
| FUT-04 | four | threads | see `threads.rs: spawns` |
| FUT-05 | five | — | unrepresentable |
| FUT-06 | six | threads, processes | |
";
        let others = GROUPS.iter().skip(1).map(|group| format!("## {group}: none (0 rows)\n"));
        format!("{futures}{}", others.collect::<String>()).replace(from, to)
    }

    fn errors(table: &str, changes: &[(&str, &str, &str)]) -> Vec<String> {
        check(table, &sources(changes), "").errors
    }

    #[test]
    fn what_fits_is_printed() {
        let report = check(&table("", ""), &sources(&[]), "");
        assert!(report.errors.is_empty(), "{:?}", report.errors);
        for line in [
            "FUT-01   both      suite/map.rs: in_order\n",
            "FUT-02   both      suite/map.rs: in_order\n",
            "FUT-03   processes suite/map.rs: in_chunks\n         threads   suite/map.rs: on_threads\n",
            "FUT-04   threads   threads.rs: awaits\n         threads   threads.rs: spawns\n         —         see `threads.rs: spawns`\n",
            "FUT-05   —         unrepresentable\n",
            "FUT-06   both      ui/src/bin/no_callable.rs: no_callable\n",
            "all     6 rows:   5 tested,  1 with a reason,  0 missing\n",
        ] {
            assert!(report.text.contains(line), "{line}in\n{}", report.text);
        }
    }

    #[test]
    fn a_missing_test_is_told() {
        let unnamed = [("tests/suite/map.rs", "FUT-02", "")];
        let found = errors(&table("", ""), &unnamed);
        assert_eq!(found, ["FUT-02 has no test on threads", "FUT-02 has no test on processes"]);
        let ignored = [
            ("tests/threads.rs", "#[test]", "#[test]\n#[ignore = \"slow\"]"),
            ("tests/threads.rs", "#[smol::test]", ""),
        ];
        let found = errors(&table("", ""), &ignored);
        assert!(found.contains(&"FUT-04 has no test on threads".to_owned()), "{found:?}");
        assert!(
            found.iter().any(|error| error.contains("spawns names FUT-04, and is no test that is run")),
            "{found:?}"
        );
        let half = [("tests/conformance.rs", "map: on_threads", "map: other")];
        let found = errors(&table("", ""), &half);
        assert!(found.contains(&"FUT-03 has no test on threads".to_owned()), "{found:?}");
        assert!(found.iter().any(|error| error.contains("on_threads names FUT-03, and is bound to no")), "{found:?}");
    }

    #[test]
    fn a_missing_row_is_told() {
        let found = errors(&table("| FUT-01 | one | threads, processes | |\n", ""), &[]);
        let named = "suite/map.rs: in_order names FUT-01, which tests/CONFORMANCE.md does not have";
        assert_eq!(found, ["tests/CONFORMANCE.md: FUT has 5 rows, and its heading says 6", named]);
        let found = errors(&table("## CAN: none (0 rows)\n", ""), &[]);
        assert_eq!(found, ["tests/CONFORMANCE.md: the group CAN is missing"]);
    }

    #[test]
    fn a_row_without_reason_and_a_reason_without_test_are_told() {
        let found = errors(&table("| — | unrepresentable |", "| — | |"), &[]);
        assert_eq!(found, ["tests/CONFORMANCE.md: FUT-05 leaves a backend out and gives no reason"]);
        let found = errors(&table("threads.rs: spawns", "threads.rs: sleeps"), &[]);
        assert_eq!(found, ["FUT-04: its reason names `threads.rs: sleeps`, which does not exist"]);
        let found = errors(&table("| threads |", "| fibres |"), &[]);
        assert_eq!(found, ["tests/CONFORMANCE.md: FUT-04: `fibres` are no backends"]);
    }

    #[test]
    fn a_file_of_no_program_is_told() {
        let found = errors(&table("", ""), &[("tests/main.rs", "mod threads;", "")]);
        assert_eq!(found, ["tests/threads.rs has tests, and is part of no test program"]);
    }
}
