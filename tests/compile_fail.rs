//! Programs that must not compile, in `tests/ui`: each names, in `//~` comments, what the compiler must say. Parts of its
//! words, not all of them, so that a new compiler's wording elsewhere does not matter.

use serde_json::Value;
use std::{collections::HashMap, env, fs, path::Path, process::Command};

#[test]
fn what_must_not_compile_says_what_to_do() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ui = root.join("tests/ui");
    // The versions of the workspace, so that nothing has to be looked up.
    fs::copy(root.join("Cargo.lock"), ui.join("Cargo.lock")).unwrap();
    let test = env::current_exe().unwrap();
    let target = test.ancestors().nth(3).expect("it lies in target/debug/deps");
    // All at once: starting the compiler takes longer than any of them.
    let output = Command::new(env!("CARGO"))
        .args(["check", "--offline", "--quiet", "--bins", "--keep-going", "--message-format=json"])
        .env("CARGO_TARGET_DIR", target)
        .current_dir(&ui)
        .output()
        .unwrap();
    // What the compiler said of each, and whether any of it is an error.
    let mut said: HashMap<String, (String, bool)> = HashMap::new();
    for line in output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let message: Value = serde_json::from_slice(line).unwrap();
        if let (Some(program), Some(text)) =
            (message["target"]["name"].as_str(), message["message"]["rendered"].as_str())
        {
            let (all, failed) = said.entry(program.to_owned()).or_default();
            all.push_str(text);
            *failed |= message["message"]["level"] == "error";
        }
    }
    let mut checked = 0;
    for entry in fs::read_dir(ui.join("src/bin")).unwrap() {
        let path = entry.unwrap().path();
        let program = path.file_stem().unwrap().to_str().unwrap();
        let (said, failed) = said.remove(program).unwrap_or_default();
        if program == "what_must_compile" {
            assert!(!failed, "{said}");
            continue;
        }
        let source = fs::read_to_string(&path).unwrap();
        let expected: Vec<_> = source.lines().filter_map(|line| line.strip_prefix("//~ ")).collect();
        assert!(!expected.is_empty(), "{program} names nothing");
        let output = String::from_utf8_lossy(&output.stderr);
        assert!(failed, "{program} compiles, or was not reached: {output}");
        for words in expected {
            assert!(said.contains(words), "{program}: expected {words:?} in\n{said}");
        }
        checked += 1;
    }
    assert!(checked >= 15, "only {checked} programs were found");
}
