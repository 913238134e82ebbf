//! Programs that must not compile, in `tests/ui`: each names, in `//~` comments, what the compiler must say. Parts of its
//! words, not all of them, so that a new compiler's wording elsewhere does not matter.

use std::{fs, path::Path, process::Command};

#[test]
fn what_must_not_compile_says_what_to_do() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ui = root.join("tests/ui");
    // The versions of the workspace, so that nothing has to be looked up.
    fs::copy(root.join("Cargo.lock"), ui.join("Cargo.lock")).unwrap();
    let check = |program: &str| {
        let output = Command::new(env!("CARGO"))
            .args(["check", "--offline", "--quiet", "--color=never", "--bin", program])
            .env("CARGO_TARGET_DIR", root.join("target/ui"))
            .current_dir(&ui)
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (compiles, said) = check("what_must_compile");
    assert!(compiles, "{said}");
    let mut checked = 0;
    for entry in fs::read_dir(ui.join("src/bin")).unwrap() {
        let path = entry.unwrap().path();
        let program = path.file_stem().unwrap().to_str().unwrap();
        if program == "what_must_compile" {
            continue;
        }
        let source = fs::read_to_string(&path).unwrap();
        let expected: Vec<_> = source.lines().filter_map(|line| line.strip_prefix("//~ ")).collect();
        assert!(!expected.is_empty(), "{program} names nothing");
        let (compiles, said) = check(program);
        assert!(!compiles, "{program} compiles");
        for words in expected {
            assert!(said.contains(words), "{program}: expected {words:?} in\n{said}");
        }
        checked += 1;
    }
    assert!(checked >= 15, "only {checked} programs were found");
}
