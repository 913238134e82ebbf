//! What fuzzing has fed to the decoders, once more: also cut off at every place, and with single bytes changed.

use executor_process::fuzzing::TARGETS;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn files(folder: PathBuf) -> Vec<PathBuf> {
    let listed = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    listed.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn no_decoder_fails_on_what_fuzzing_has_fed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    for (name, target) in TARGETS {
        let inputs = files(root.join("corpus").join(name));
        assert!(!inputs.is_empty(), "{name}");
        for path in inputs {
            let input = fs::read(&path).unwrap();
            // Told by the harness if it fails.
            println!("{}", path.display());
            target(&input);
            for place in 0..input.len().min(32) {
                target(&input[..place]);
                let mut changed = input.clone();
                changed[place] = changed[place].wrapping_add(0x81);
                target(&changed);
            }
        }
    }
}

#[test]
fn every_door_has_its_program() {
    let programs = files(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets"));
    let programs: BTreeSet<_> =
        programs.iter().map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(programs, TARGETS.iter().map(|target| target.0.to_owned()).collect());
}
