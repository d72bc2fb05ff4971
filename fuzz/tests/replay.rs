//! The inputs that are kept, and mutations of them, through every target: so a compiler that is not nightly holds what
//! fuzzing found. `DSTORE_FUZZ_SEED` and `DSTORE_FUZZ_RUNS` ask for others, `DSTORE_FUZZ_TARGET` for one target.

use dstore_fuzz::{Mutator, TARGETS, Target};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Mutations of each target's inputs.
const RUNS: usize = 1_000;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// The inputs of a target, each with its name, in the order of names.
fn inputs(target: &str) -> Vec<(String, Vec<u8>)> {
    let files = std::fs::read_dir(corpus(target)).unwrap_or_else(|e| panic!("{target} has inputs: {e}"));
    let mut inputs: Vec<_> = files
        .map(|file| {
            let file = file.expect("a file");
            (file.file_name().to_string_lossy().into_owned(), std::fs::read(file.path()).expect("read"))
        })
        .collect();
    inputs.sort();
    inputs
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

/// Runs it, and says what to do with an input that it does not bear.
fn bears(target: Target, bytes: &[u8], what: &str) -> bool {
    let borne = std::panic::catch_unwind(|| target.run(bytes));
    borne.unwrap_or_else(|_| {
        let name = target.name;
        let hex = bytes.iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("a string takes it");
            hex
        });
        panic!("`{name}` does not bear {what}; to keep it: echo {hex} | xxd -r -p > fuzz/corpus/{name}/NAME");
    })
}

#[test]
fn every_input_that_is_kept_is_borne_and_each_target_takes_some_and_refuses_others() {
    for target in TARGETS {
        let inputs = inputs(target.name);
        let taken = inputs.iter().filter(|(name, bytes)| bears(*target, bytes, name)).count();
        let bytes: usize = inputs.iter().map(|(_, bytes)| bytes.len()).sum();
        eprintln!("{}: {} inputs of {bytes} bytes, {taken} taken", target.name, inputs.len());
        assert!(taken > 0, "{}: nothing that it takes", target.name);
        assert!(bytes <= 64 << 10, "{}: {bytes} bytes are kept: minimise them", target.name);
    }
}

#[test]
fn mutations_of_what_is_kept_are_borne() {
    let seed = number("DSTORE_FUZZ_SEED").unwrap_or(1);
    let runs = number("DSTORE_FUZZ_RUNS").map_or(RUNS, |n| usize::try_from(n).expect("a number of runs"));
    let only = std::env::var("DSTORE_FUZZ_TARGET").ok();
    eprintln!("DSTORE_FUZZ_SEED={seed} DSTORE_FUZZ_RUNS={runs}");
    for target in TARGETS.iter().filter(|target| only.as_deref().is_none_or(|name| name == target.name)) {
        let (inputs, mut mutator) = (inputs(target.name), Mutator::new(seed));
        let mut taken = 0;
        for run in 0..runs {
            let (one, other) = (mutator.below(inputs.len()), mutator.below(inputs.len()));
            let bytes = mutator.spoil(&inputs[one].1, &inputs[other].1);
            taken += usize::from(bears(*target, &bytes, &format!("run {run} of seed {seed}")));
        }
        eprintln!("{}: {runs} mutations, {taken} taken", target.name);
        // A target that refuses all it is given looks at nothing.
        assert!(taken > 0 || runs < RUNS, "{}: all were refused", target.name);
    }
}

#[test]
fn every_folder_of_inputs_has_its_target_and_every_target_its_program() {
    let folders = std::fs::read_dir(corpus("")).expect("the folder of inputs");
    let mut folders: Vec<_> =
        folders.map(|folder| folder.expect("a folder").file_name().to_string_lossy().into_owned()).collect();
    folders.sort();
    let targets: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(folders, targets);
    let programs = include_str!("../libfuzzer/Cargo.toml");
    for target in TARGETS {
        assert!(programs.contains(&format!("name = \"{}\"", target.name)), "{}", target.name);
    }
}
