//! `cargo xtask features`: every combination of the façade's features compiles without a warning, and so does a program that
//! depends on it in two ways.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use crate::{Outcome, cargo, run};

/// Those that are part of every program.
const ALWAYS: [&str; 3] = ["concurrent-futures", "executor-core", "executor-thread"];

const CONSUMER: &str = "examples/consumer/Cargo.toml";

/// What programs with threads only need not wait for: encoding, and processes.
const NOT_FOR_THREADS: [&str; 5] = ["bytemuck", "executor-process", "postcard", "serde_derive", "syn"];

/// # Errors
/// The first combination that does not compile.
pub(crate) fn features() -> Outcome {
    let manifest = fs::read_to_string("Cargo.toml").map_err(|error| format!("Cargo.toml: {error}"))?;
    for combination in combinations(&implied(&manifest)?) {
        let list = combination.iter().map(|name| format!("concurrent-futures/{name}")).collect::<Vec<_>>().join(",");
        let mut command = cargo(&["clippy", "--quiet", "--no-default-features", "--features", &list]);
        // Warnings are errors in packages that are named only; and naming the one of processes turns on what it needs of core.
        command.args(ALWAYS.iter().flat_map(|name| ["--package", name]));
        if combination.contains("process") {
            command.args(["--package", "executor-process"]);
        }
        command.args(["--", "-D", "warnings"]);
        let names = combination.into_iter().collect::<Vec<_>>().join(", ");
        run(&format!("features: {}", if names.is_empty() { "none" } else { &names }), command)?;
    }
    threads_only()?;
    run("a consumer: format", cargo(&["fmt", "--check", "--manifest-path", CONSUMER]))?;
    for choice in [&[][..], &["--no-default-features"]] {
        for lane in [&["clippy", "--quiet", "--all-targets"][..], &["test", "--quiet"]] {
            let mut command = cargo(lane);
            // Its lock file goes with ours, which may have changed.
            command.args(choice).args(["--locked", "--manifest-path", CONSUMER]);
            if lane[0] == "clippy" {
                command.args(["--", "-D", "warnings"]);
            }
            command.env("CARGO_TARGET_DIR", crate::target()?);
            run(&format!("a consumer: {} {}", lane[0], choice.join(" ")), command)?;
        }
    }
    Ok(())
}

/// What the façade without features depends on.
fn threads_only() -> Outcome {
    let mut command =
        cargo(&["tree", "--no-default-features", "--edges=normal,build", "--prefix=none", "--format={p}"]);
    let output = command.args(["--package", "concurrent-futures"]).output().map_err(|error| error.to_string())?;
    let listing = String::from_utf8_lossy(&output.stdout);
    let names: BTreeSet<_> = listing.lines().filter_map(|line| line.split(' ').next()).collect();
    if !names.contains("executor-thread") {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    match NOT_FOR_THREADS.iter().find(|name| names.contains(*name)) {
        None => Ok(()),
        Some(name) => Err(format!("a program with threads only depends on {name}; `cargo tree --invert` says why")),
    }
}

/// What each feature of a manifest brings along of its other ones.
fn implied(manifest: &str) -> Result<BTreeMap<&str, Vec<&str>>, String> {
    let section = manifest.split("\n[features]\n").nth(1).ok_or("Cargo.toml has no features")?;
    let section = section.split("\n[").next().unwrap_or(section);
    let mut features = BTreeMap::new();
    for line in section.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        let list = line.split_once(" = [").and_then(|(name, list)| Some((name, list.strip_suffix(']')?)));
        let (name, list) = list.ok_or_else(|| format!("a feature is expected in one line, not `{line}`"))?;
        let list = list.split(", ").map(|other| other.trim_matches('"')).filter(|other| !other.is_empty());
        features.insert(name, list.filter(|other| !other.contains(['/', ':'])).collect());
    }
    features.remove("default");
    Ok(features)
}

/// Every set of features with all that they imply. Those that are the same in effect are one.
fn combinations<'a>(features: &BTreeMap<&'a str, Vec<&'a str>>) -> BTreeSet<BTreeSet<&'a str>> {
    let names: Vec<_> = features.keys().copied().collect();
    let mut all = BTreeSet::new();
    for chosen in 0..1_u32 << names.len() {
        let mut set = BTreeSet::new();
        let mut left: Vec<_> =
            (0..names.len()).filter(|place| chosen >> place & 1 == 1).map(|place| names[place]).collect();
        while let Some(name) = left.pop() {
            if set.insert(name) {
                left.extend(features.get(name).into_iter().flatten());
            }
        }
        all.insert(set);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combinations_are_closed_and_few() {
        let manifest =
            "\n[features]\ndefault = [\"b\"]\n# Words.\na = []\nb = [\"a\", \"x/y\"]\nc = [\"dep:x\"]\n\n[x]\n";
        let features = implied(manifest).unwrap();
        assert_eq!(features, BTreeMap::from([("a", vec![]), ("b", vec!["a"]), ("c", vec![])]));
        let all = combinations(&features);
        let expected = [&[][..], &["a"], &["a", "b"], &["a", "b", "c"], &["a", "c"], &["c"]];
        assert_eq!(all.into_iter().collect::<Vec<_>>(), expected.map(|set| set.iter().copied().collect()));
        assert!(implied("\n[features]\na = [\n  \"b\",\n]\n").is_err());
    }
}
