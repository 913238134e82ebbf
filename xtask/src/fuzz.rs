//! Feeds every decoder with what a fuzzer thinks of: the programs in `fuzz`.

use crate::{Outcome, run, silent};
use std::{fs, path::Path, process::Command};

/// `arguments`: `--minutes N`, and names of targets; all of them, if there are none.
pub(crate) fn fuzz(arguments: &[&str]) -> Outcome {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace");
    let (minutes, chosen) = match arguments {
        ["--minutes", minutes, chosen @ ..] => match minutes.parse::<f64>() {
            Ok(minutes) if minutes > 0.0 && minutes.is_finite() => (minutes, chosen),
            _ => return Err(format!("`{minutes}` is not a number of minutes")),
        },
        chosen => (10.0, chosen),
    };
    let mut targets = Vec::new();
    for entry in fs::read_dir(root.join("fuzz/fuzz_targets")).map_err(|error| error.to_string())? {
        let path = entry.map_err(|error| error.to_string())?.path();
        targets.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    targets.sort();
    if let Some(unknown) = chosen.iter().find(|name| !targets.iter().any(|target| target == **name)) {
        return Err(format!("`{unknown}` is no target; there are {}", targets.join(", ")));
    }
    targets.retain(|target| chosen.is_empty() || chosen.contains(&target.as_str()));

    if !silent(nightly(&["--version"])) {
        return Err("fuzzing needs the nightly compiler; `rustup toolchain install nightly` installs it".into());
    }
    if !silent(nightly(&["fuzz", "--version"])) {
        return Err("`cargo fuzz` is missing; `cargo install cargo-fuzz` installs it".into());
    }
    let mut build = nightly(&["fuzz", "build"]);
    build.current_dir(root);
    run("build", build)?;
    let seconds = (minutes * 60.0 / targets.len() as f64).max(1.0) as u64;
    for target in &targets {
        // New inputs are kept from run to run, and not among those that are committed.
        let grown = root.join("fuzz/target/grown").join(target);
        fs::create_dir_all(&grown).map_err(|error| format!("{}: {error}", grown.display()))?;
        // A frame may say that it is of any length; that there is no memory for it is an answer, not a defect.
        let mut sanitizer = "allocator_may_return_null=1:max_allocation_size_mb=1024".to_owned();
        if target == "names" {
            // Whether a descriptor lies at some place in read-only data is asked of that place, which may lie between two
            // constants: readable, and nothing to the sanitizer.
            sanitizer += ":report_globals=0";
        }
        let mut command = nightly(&["fuzz", "run", target]);
        command
            .current_dir(root)
            .arg(&grown)
            .arg(format!("fuzz/corpus/{target}"))
            .env("ASAN_OPTIONS", sanitizer)
            .args(["--", "-malloc_limit_mb=1000000", "-timeout=20", "-print_final_stats=1"])
            .arg(format!("-max_total_time={seconds}"));
        run(target, command)?;
    }
    Ok(())
}

/// `cargo` of the compiler that can do this, whichever runs now.
fn nightly(arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.arg("+nightly").args(arguments);
    command
}
