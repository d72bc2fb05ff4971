//! Runs seeds and prints a line for each: `dstore-sim --seed N [--seeds M]`.

use dstore_sim::run::{Plan, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some((first, count)) = arguments(std::env::args().skip(1)) else {
        eprintln!("usage: dstore-sim --seed N [--seeds M]");
        return ExitCode::from(2);
    };
    let mut wrong = 0;
    for seed in first..first.saturating_add(count) {
        let report = run(Plan::of(seed));
        println!("{report}");
        wrong += report.violations.len();
    }
    if wrong > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The first seed and how many.
fn arguments(mut given: impl Iterator<Item = String>) -> Option<(u64, u64)> {
    let (mut first, mut count) = (None, 1);
    while let Some(flag) = given.next() {
        let number = given.next()?.parse().ok()?;
        match flag.as_str() {
            "--seed" => first = Some(number),
            "--seeds" => count = number,
            _ => return None,
        }
    }
    first.map(|first| (first, count))
}
