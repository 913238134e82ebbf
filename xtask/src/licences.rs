//! `cargo xtask licences`: whatever is compiled for anybody here may be used as freely as this. What is known of its defects
//! cannot be looked at without a network, so that is no part of it.

use crate::{Outcome, cargo};

/// Those that ask for nothing but to be named.
const ALLOWED: [&str; 9] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Zlib",
];

/// # Errors
/// Every package whose licence is none of these.
pub(crate) fn licences() -> Outcome {
    let mut refused = Vec::new();
    let mut seen = 0;
    for manifest in ["Cargo.toml", "examples/consumer/Cargo.toml"] {
        let mut command = cargo(&["tree", "--workspace", "--all-features", "--prefix=none", "--format={l}|{p}"]);
        let output = command.args(["--manifest-path", manifest]).output().map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)));
        }
        let listing = String::from_utf8_lossy(&output.stdout).into_owned();
        // What is not published has no licence to have, and lies here.
        for (licence, package) in listing.lines().filter_map(|line| line.split_once('|')) {
            seen += 1;
            let ours = package.contains(" (/");
            if !ours && !is_allowed(licence) {
                refused.push(format!("{package}: {licence:?}\n"));
            }
        }
    }
    refused.sort();
    refused.dedup();
    if seen < 100 {
        return Err(format!("only {seen} dependencies were found"));
    }
    if refused.is_empty() {
        eprintln!("── licences: fine");
        return Ok(());
    }
    Err(format!("licences that are not in xtask/src/licences.rs:\n{}", refused.concat()))
}

/// Whether an expression such as `(MIT OR Apache-2.0) AND Unicode-3.0` can be had with what is allowed. `/` is the old way to
/// write `OR`.
fn is_allowed(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ").replace(" WITH ", "_WITH_");
    let words = spaced.split_whitespace();
    let mut levels: Vec<(bool, bool)> = Vec::new();
    // Of what is open: whether an earlier alternative is allowed, and whether all of this one is so far.
    let (mut any, mut all) = (false, true);
    let mut is_empty = true;
    for word in words {
        match word {
            "(" => levels.push((std::mem::take(&mut any), std::mem::replace(&mut all, true))),
            ")" => {
                let inside = any || all;
                let Some((outer_any, outer_all)) = levels.pop() else { return false };
                (any, all) = (outer_any, outer_all && inside);
            }
            "AND" => {}
            "OR" => {
                any |= all;
                all = true;
            }
            licence => {
                is_empty = false;
                all &= ALLOWED.contains(&licence.replace("_WITH_", " WITH ").as_str());
            }
        }
    }
    !is_empty && levels.is_empty() && (any || all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_mean_what_they_say() {
        for allowed in [
            "MIT",
            "MIT/Apache-2.0",
            "GPL-3.0 OR MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "MIT OR (GPL-2.0 AND ISC)",
            "Apache-2.0 WITH LLVM-exception OR GPL-3.0",
        ] {
            assert!(is_allowed(allowed), "{allowed}");
        }
        for refused in
            ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR GPL-3.0) AND GPL-2.0", "GPL-3.0 OR (MIT AND MPL-2.0)", "MIT)"]
        {
            assert!(!is_allowed(refused), "{refused}");
        }
    }
}
