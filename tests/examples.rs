//! Examples that no other test runs, as a user runs them.

use std::process::Command;

/// AIO-12, in the tutorials' form. How long it takes at most is the machine's affair; that it cannot take less than the
/// longest fetch is ours.
#[test]
fn gather_prints_results_in_order() {
    for arguments in [&[][..], &["--", "--processes"]] {
        let mut command = Command::new(env!("CARGO"));
        command.args(["run", "--quiet", "--example", "gather"]).args(arguments);
        let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        let (fetched, together) = said.trim_end().rsplit_once('\n').unwrap();
        let expected = ["home took 2", "news took 5", "about took 1"].map(|line| format!("{line} tenths of a second"));
        assert_eq!(fetched, expected.join("\n"));
        let tenths: f64 = together.strip_prefix("together ").unwrap().strip_suffix(" tenths").unwrap().parse().unwrap();
        assert!(tenths >= 5.0, "{together}");
    }
}
