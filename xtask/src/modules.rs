//! `cargo xtask modules`: where a program may lie that has worker processes, and in which module the pool may be. The programs are in
//! `tests/fixtures`. PP-24, PP-26, PP-27.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const FIXTURES: &str = "tests/fixtures";

type Outcome = Result<(), String>;

/// # Errors
/// The first program that does not do what it should.
pub(crate) fn modules() -> Outcome {
    // The versions that everything else is tested with.
    fs::copy("Cargo.lock", format!("{FIXTURES}/Cargo.lock")).map_err(|error| format!("Cargo.lock: {error}"))?;
    let target = crate::target()?;
    let built = target.join("debug");
    cargo(&target, &["build", "--package", "alone", "--package", "host", "--package", "plugin"])?;

    let alone = copy(&built, "alone", "here")?;
    fine("a program", Command::new(&alone))?;
    fine("started by a relative path, and then elsewhere", sh("cd \"$0\" && ./here elsewhere", &built))?;
    fine("deleted while it runs", arg(&copy(&built, "alone", "deleted")?, "deleted"))?;
    fine("replaced while it runs", arg(&copy(&built, "alone", "replaced")?, "replaced"))?;
    without_proc(&alone)?;

    linked(&target, &built)?;
    by_hand(&built)?;

    // Of these two, only the last step differs.
    cargo(&target, &["rustc", "--package", "alone", "--", "-C", "strip=symbols"])?;
    fine("stripped", Command::new(built.join("alone")))?;
    cargo(&target, &["rustc", "--package", "alone", "--", "-C", "target-feature=+crt-static"])?;
    fine("static", Command::new(built.join("alone")))
}

/// A library that is there when the program starts can enter before `main`, which is run once.
fn linked(target: &Path, built: &Path) -> Outcome {
    let place = built.to_str().ok_or("the path is no text")?;
    cargo(target, &["rustc", "--package", "program", "--", "-L", place])?;
    let mut program = Command::new(built.join("program"));
    let (said, errors) = output(program.env("LD_LIBRARY_PATH", built))?;
    told("in a library that the program is linked with", said == "main\n3 calls made\n", &said, &errors)
}

/// A library that was loaded by hand refuses, and its host's `main` is run by nobody else.
fn by_hand(built: &Path) -> Outcome {
    let (said, errors) = output(&mut arg(&built.join("host"), built.join("libplugin.so")))?;
    let expected =
        said == "main\n1 calls made\n" && errors.contains("loaded by hand") && errors.contains("libplugin.so");
    told("in a library that is loaded by hand: refused", expected, &said, &errors)
}

/// In a place of its own where nothing is mounted on `/proc`. Not every system lets everybody make one.
fn without_proc(program: &Path) -> Outcome {
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]).arg(program);
        command
    };
    let bare = "mount -t tmpfs none /proc";
    if !unshare(bare).output().is_ok_and(|output| output.status.success()) {
        eprintln!("   skipped: without /proc, which cannot be had here");
        return Ok(());
    }
    let (said, errors) = output(&mut unshare(&format!("{bare} && exec \"$0\"")))?;
    told("without /proc: refused", said.is_empty() && errors.contains("is /proc mounted here?"), &said, &errors)
}

fn copy(built: &Path, name: &str, to: &str) -> Result<PathBuf, String> {
    let to = built.join(to);
    // A file that is there may be running still.
    let _ = fs::remove_file(&to);
    fs::copy(built.join(name), &to).map_err(|error| format!("{name}: {error}"))?;
    Ok(to)
}

fn arg(program: &Path, arg: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.arg(arg);
    command
}

fn sh(script: &str, argument: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(argument);
    command
}

fn fine(what: &str, mut program: Command) -> Outcome {
    let (said, errors) = output(&mut program)?;
    told(what, said == "loaded, fine\n", &said, &errors)
}

fn told(what: &str, expected: bool, said: &str, errors: &str) -> Outcome {
    if !expected {
        return Err(format!("{what}: it said\n{said}{errors}"));
    }
    eprintln!("   {what}");
    Ok(())
}

fn output(command: &mut Command) -> Result<(String, String), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok((text(output.stdout), text(output.stderr)))
}

fn cargo(target: &Path, arguments: &[&str]) -> Outcome {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .arg(arguments[0])
        .arg("--quiet")
        .args(&arguments[1..])
        .current_dir(FIXTURES)
        .env("CARGO_TARGET_DIR", target);
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{command:?} failed ({status})")),
        Err(error) => Err(format!("{command:?} could not be started: {error}")),
    }
}
