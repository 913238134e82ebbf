//! What continuous integration and contributors run: `cargo xtask ci`, and the longer lanes.

mod api;
mod browser;
mod conformance;
mod features;
mod fuzz;
mod licences;
mod modules;

use std::{
    env, fs,
    path::PathBuf,
    process::{Command, ExitCode, ExitStatus, Stdio},
    thread,
    time::{Instant, SystemTime},
};

const USAGE: &str = "\
usage: cargo xtask LANE

  ci             everything that must hold for a change to land: format, lints, features, licences, documentation, public
                 interface, tests, packages
  features       every combination of features compiles without a warning; a consumer of the crates, with its tests
  licences       every dependency's licence is one that is allowed
  api [--bless]  the public interface is that of docs/public-api.txt; or writes it there
  conformance    which test shows which row of tests/CONFORMANCE.md, and whether one is missing
  modules        pools in libraries, in static and stripped programs, in programs whose file is gone
  faults         each fault at each stage beside each kind of neighbours, with queues of 10,000: prints the table
  chaos [--minutes M] [--seed S]
                 workers and parents that are killed and halted at random, for M minutes (10) and a little more
  stress [N]     every test but those in the documentation N times (20), beside a load on every processor
  fuzz [--minutes N] [TARGET…]
                 feeds whatever reads bytes with what a fuzzer thinks of, for N minutes in all (10)
  browser        a timeline of 100,000 calls in a real browser; draws docs/timeline.png
  models         tasks and the thread pool in every order of a few threads, or in many, and whether planted bugs are found
  package        whether each crate could be published";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        ["ci"] => ci(),
        ["features"] => features::features(),
        ["licences"] => licences::licences(),
        ["api"] => api::api(false),
        ["api", "--bless"] => api::api(true),
        ["conformance"] => conformance::conformance(),
        ["modules"] => modules::modules(),
        ["faults"] => faults(),
        ["chaos", ref choices @ ..] => chaos(choices),
        ["stress"] => stress(20),
        ["stress", rounds] => match rounds.parse() {
            Ok(rounds) if rounds > 0 => stress(rounds),
            _ => Err(format!("`{rounds}` is not a number of rounds\n\n{USAGE}")),
        },
        ["fuzz", ref arguments @ ..] => fuzz::fuzz(arguments),
        ["browser"] => browser::browser(),
        ["models"] => models(),
        ["package"] => package(),
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

type Outcome = Result<(), String>;

fn ci() -> Outcome {
    for (component, what) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if !silent(cargo(&[component, "--version"])) {
            return Err(format!("`cargo {component}` is missing; `rustup component add {what}` installs it"));
        }
    }
    run("format", cargo(&["fmt", "--all", "--check"]))?;
    run("lints", cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    features::features()?;
    licences::licences()?;
    let mut documentation = cargo(&["doc", "--workspace", "--no-deps", "--document-private-items"]);
    documentation.env("RUSTDOCFLAGS", "-D warnings");
    run("documentation", documentation)?;
    api::api(false)?;
    conformance::conformance()?;
    let mut tests = cargo(&SUITE);
    tests.args(["--".to_owned(), test_threads(2)]).env("FAULTS_QUEUE", FAULTS_QUEUE);
    // Hundreds of calls panic on purpose, and what fails is to be found among what they say.
    tests.env("RUST_BACKTRACE", "0");
    run("tests", tests)?;
    run("benchmark, as a test", cargo(&["test", "--bench", "crossover"]))?;
    for pools in ["processes", "threads", "growth"] {
        run("benchmark beside rivals, as a test", cargo(&["test", "--package", "rivals", "--bench", pools]))?;
    }
    models()?;
    explicit_entry()?;
    let began = Instant::now();
    modules::modules()?;
    report("modules", began);
    package()
}

/// Every test. Rivals have none but their benchmark, and with them `serde` and what uses it would have another feature than
/// without: all that would be compiled once more for the examples that tests build.
const SUITE: [&str; 6] = ["test", "--workspace", "--exclude", "rivals", "--exclude", "models"];

/// Many tests wait for something most of the time, so there may be more of them than processors.
fn test_threads(for_each_processor: usize) -> String {
    format!("--test-threads={}", for_each_processor * processors())
}

fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// How long queues are beside which calls fail.
const FAULTS_QUEUE: &str = "10000";

/// Without the constructor, a program says itself where workers begin; one that forgets is told, and starts no
/// workers that start workers.
fn explicit_entry() -> Outcome {
    let example = |name: &'static str| {
        cargo(&["run", "--quiet", "--no-default-features", "--features", "process", "--example", name])
    };
    run("explicit entry", example("explicit_entry"))?;
    let began = Instant::now();
    let output = example("swap").output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() || !said.contains("run_if_worker") {
        return Err(format!("a program without an entry for workers must be told so, but said:\n{said}"));
    }
    report("missing entry", began);
    Ok(())
}

/// In a directory of its own each time: Cargo keeps what it unpacked by the directory and the version, so it would verify
/// the sources of an earlier run against those of this one.
fn package() -> Outcome {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(|error| error.to_string())?;
    let target = format!("target/package-check-{}", now.as_nanos());
    // Those that are published.
    let all = [
        "package",
        "--workspace",
        "--exclude",
        "rivals",
        "--exclude",
        "models",
        "--exclude",
        "xtask",
        "--allow-dirty",
        "--quiet",
    ];
    let mut command = cargo(&all);
    // What is built is never run.
    command.env("CARGO_TARGET_DIR", &target).env("CARGO_PROFILE_DEV_DEBUG", "0");
    let outcome = run("packages", command);
    fs::remove_dir_all(&target).map_err(|error| format!("{target} could not be removed: {error}"))?;
    outcome
}

/// Each checker in a directory of its own: what stands behind the door is chosen for all crates at once. Both at the same time, each on
/// one thread: on two, models hold each other up where they make and drop stacks.
fn models() -> Outcome {
    let models = target()?.join("models");
    let flags = env::var("RUSTFLAGS").unwrap_or_default();
    let explore = |checker: &str, tests: &[&str]| {
        let mut command = cargo(&["test", "--package", "models", "--release"]);
        command.args(tests).args(["--", "--test-threads=1"]);
        command.env("RUSTFLAGS", format!("{flags} --cfg concurrent_futures_model=\"{checker}\""));
        command.env("CARGO_TARGET_DIR", models.join(checker));
        run_aside(&format!("models, by {checker}"), command)
    };
    thread::scope(|scope| {
        let loom = scope.spawn(|| explore("loom", &["--test=models", "--test=cell"]));
        let shuttle = explore("shuttle", &["--test=pool"]);
        loom.join().expect("it does not panic").and(shuttle)
    })
}

fn faults() -> Outcome {
    let mut command = cargo(&["test", "--quiet", "--test", "main", "each_fault_costs_one_task", "--", "--nocapture"]);
    command.env("FAULTS_QUEUE", FAULTS_QUEUE);
    run("faults", command)
}

fn chaos(choices: &[&str]) -> Outcome {
    let (mut minutes, mut seed) = ("10", None);
    for choice in choices.chunks(2) {
        match *choice {
            ["--minutes", number] if number.parse().is_ok_and(|number: u64| number > 0) => minutes = number,
            ["--seed", number] if number.parse::<u64>().is_ok() => seed = Some(number),
            _ => return Err(format!("`{}` is no choice of chaos\n\n{USAGE}", choice.join(" "))),
        }
    }
    let mut command = cargo(&["test", "--test", "main", "chaos::", "--", "--nocapture", "--test-threads=1"]);
    command.env("CHAOS_MINUTES", minutes);
    command.envs(seed.map(|seed| ("CHAOS_SEED", seed)));
    run("chaos", command)
}

fn stress(rounds: usize) -> Outcome {
    let test = |arguments: &[&str]| {
        let mut command = cargo(&SUITE);
        command.args(["--quiet", "--tests"]).args(arguments);
        command
    };
    run("build", test(&["--no-run"]))?;
    let load: Result<Vec<_>, _> =
        (0..processors()).map(|_| Command::new("sh").args(["-c", "while :; do :; done"]).spawn()).collect();
    let mut load = load.map_err(|error| format!("the load could not be started: {error}"))?;
    let outcome =
        (1..=rounds).try_for_each(|round| run(&format!("round {round} of {rounds}"), test(&["--", &test_threads(4)])));
    for process in &mut load {
        let _ = process.kill();
        let _ = process.wait();
    }
    outcome
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments);
    command
}

/// Where Cargo puts what it builds.
fn target() -> Result<PathBuf, String> {
    let here = env::current_dir().map_err(|error| error.to_string())?;
    Ok(here.join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into())))
}

fn silent(mut command: Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn run(what: &str, mut command: Command) -> Outcome {
    eprintln!("── {what}");
    let began = Instant::now();
    let status = command.status().map_err(|error| format!("{what}: {command:?} could not be started: {error}"))?;
    report(what, began);
    succeeded(what, &command, status)
}

/// As `run`, beside another: what it prints is shown when it has ended.
fn run_aside(what: &str, mut command: Command) -> Outcome {
    eprintln!("── {what}");
    let began = Instant::now();
    let output = command.output().map_err(|error| format!("{what}: {command:?} could not be started: {error}"))?;
    let said = [output.stderr, output.stdout].concat();
    eprintln!("{}", String::from_utf8_lossy(&said));
    report(what, began);
    succeeded(what, &command, output.status)
}

fn succeeded(what: &str, command: &Command, status: ExitStatus) -> Outcome {
    if status.success() { Ok(()) } else { Err(format!("{what}: {command:?} failed ({status})")) }
}

fn report(what: &str, began: Instant) {
    eprintln!("── {what}: {:.1} s", began.elapsed().as_secs_f64());
}
