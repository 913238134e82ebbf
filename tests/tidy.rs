//! The rules of the house that a program can check.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<PathBuf> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                walk(&path, found);
            } else if name.ends_with(".rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(root(), &mut found);
    assert!(found.len() > 30, "the walk found {} files", found.len());
    found
}

/// `core ← thread`, `core ← process`, façade → all: no arrow turns round, and backends do not know each other.
#[test]
fn arrows_point_one_way() {
    let allowed =
        [("executor-core", &[][..]), ("executor-thread", &["executor-core"]), ("executor-process", &["executor-core"])];
    for (name, may_use) in allowed {
        let manifest = fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
        let dependencies = manifest.split("[dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
        for line in dependencies.lines().filter(|line| line.starts_with("executor-") || line.starts_with("concurrent-"))
        {
            let used = line.split(['.', ' ', '=']).next().unwrap();
            assert!(may_use.contains(&used), "{name} must not depend on {used}");
        }
    }
}

/// Any async runtime will do: none is asked for.
#[test]
fn no_crate_needs_an_async_runtime() {
    for member in [".", "executor-core", "executor-thread", "executor-process"] {
        let manifest = fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap();
        let dependencies = manifest.split("\n[dependencies]\n").nth(1).unwrap().split("\n[").next().unwrap();
        for line in dependencies.lines() {
            let is_one = ["async-", "futures", "smol", "tokio"].iter().any(|runtime| line.starts_with(runtime));
            assert!(!is_one, "{member} must not depend on {line}");
        }
    }
}

/// Each of these has one home.
#[test]
fn each_thing_has_one_home() {
    let homes = [
        ("crossbeam_deque::", "executor-thread/src/queue.rs"),
        ("postcard::", "executor-core/src/codec.rs"),
        ("parking_lot::", "executor-core/src/sync.rs"),
        ("libc::dl_", "executor-core/src/portable.rs"),
    ];
    for source in sources() {
        let text = fs::read_to_string(&source).unwrap();
        let path = source.strip_prefix(root()).unwrap().to_str().unwrap();
        for (thing, home) in homes {
            assert!(
                !text.contains(thing) || path == home || path == "tests/tidy.rs",
                "{path} uses {thing}, at home in {home}"
            );
        }
    }
}

/// `unsafe` lives in these files only, and each use of it says why it is sound.
#[test]
fn unsafe_lives_in_few_files_and_explains_itself() {
    let homes = [
        "benches/rivals/processes/mapping.rs",
        "executor-core/src/arena.rs",
        "executor-core/src/buffers.rs",
        "executor-core/src/cell.rs",
        "executor-core/src/cell/making.rs",
        "executor-core/src/cell/readable.rs",
        "executor-core/src/current.rs",
        "executor-core/src/handle.rs",
        "executor-core/src/linkage.rs",
        "executor-core/src/portable.rs",
        "executor-core/src/reader.rs",
        "executor-core/src/seat.rs",
        "executor-process/src/claims.rs",
        "executor-process/src/segment.rs",
        "executor-process/src/cpu_timer.rs",
        "executor-process/src/ring.rs",
        "executor-process/src/worker.rs",
        "executor-process/src/zygote.rs",
        "executor-thread/src/join.rs",
        "executor-thread/src/scope.rs",
        "executor-thread/src/slices.rs",
        "models/src/explore.rs",
        "tests/before_main.rs",
        "tests/fixtures/host/src/main.rs",
        "tests/fixtures/plugin/src/lib.rs",
    ];
    for source in sources() {
        let text = fs::read_to_string(&source).unwrap();
        let path = source.strip_prefix(root()).unwrap().to_str().unwrap();
        if path == "tests/tidy.rs" {
            continue;
        }
        let blocks =
            text.matches("unsafe {").count() + text.matches("unsafe impl").count() + text.matches("#[unsafe(").count();
        assert!(blocks == 0 || homes.contains(&path), "{path} is not a home of unsafe code");
        let explained = text.matches("SAFETY:").count();
        assert!(explained >= blocks, "{path}: {blocks} uses of unsafe, {explained} explanations");
    }
}

/// Wake-ups explain which waiter they wake, and why it cannot be missed.
#[test]
fn wakes_explain_themselves() {
    for source in sources().into_iter().filter(|path| path.components().any(|part| part.as_os_str() == "src")) {
        let text = fs::read_to_string(&source).unwrap();
        let wakes = text.matches(".notify_one()").count() + text.matches(".notify_all()").count();
        let explained = text.matches("WAKES:").count();
        assert!(explained >= wakes, "{}: {wakes} wake-ups, {explained} explanations", source.display());
    }
}

#[test]
fn the_changelog_knows_this_version() {
    let changelog = fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    let heading = format!("## [{}]", env!("CARGO_PKG_VERSION"));
    assert!(changelog.contains(&heading) || changelog.contains("## [Unreleased]"), "no {heading}");
}

/// Every source file is named where a reader looks for it.
#[test]
fn the_architecture_names_every_module() {
    let architecture = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for member in ["executor-core", "executor-thread", "executor-process"] {
        for entry in fs::read_dir(root().join(member).join("src")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(
                name == "lib.rs" || architecture.contains(&name),
                "ARCHITECTURE.md does not name {member}/src/{name}"
            );
        }
    }
}
