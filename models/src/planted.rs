//! How a planted bug is looked for.

use std::{
    env,
    process::{Command, Stdio},
};

/// The variable that names the bug to be planted in a process.
const BUG: &str = "MODELS_BUG";

/// The bug to be planted in this process.
#[must_use]
pub fn bug() -> Option<String> {
    env::var(BUG).ok()
}

/// Has other processes explore with a bug planted, each of which must fail: a checker ends its process where threads are stuck. Each row
/// has a bug, and the test that is to find it.
///
/// # Panics
/// When one is not found.
pub fn are_found(table: &[(&str, &str)]) {
    if bug().is_some() {
        return;
    }
    for (bug, test) in table {
        let mut child = Command::new(env::current_exe().expect("this program is somewhere"));
        child.args(["--exact", test, "--test-threads=1"]).env(BUG, bug);
        let status = child.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("it can be started once more");
        assert!(!status.success(), "{test} did not find: {bug}");
    }
}
