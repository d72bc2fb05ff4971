//! Searches scenarios and prints a line for each: `dstore-model [--threads N] [--steps N] [WORD...]`, those whose
//! names contain a word, or all. A search ends after so many steps even if there is more, and says so.

use dstore_model::explore::{Limits, explore};
use dstore_model::scenario;
use std::process::ExitCode;

/// Unless it is told: a search holds what it has not looked at yet in memory, a few KiB a state.
const STEPS: usize = 10_000_000;

fn main() -> ExitCode {
    let Some((limits, words)) = arguments() else {
        eprintln!("usage: dstore-model [--threads N] [--steps N] [WORD...]");
        return ExitCode::from(2);
    };
    let asked = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    let mut good = true;
    for scenario in scenario::all().into_iter().filter(|scenario| asked(scenario.name)) {
        println!("{scenario}");
        let report = explore(&scenario, limits);
        good &= report.violation.is_none() && (report.unseen.is_empty() || !report.exhausted);
        println!("{report}\n    on so many steps: {}", report.seen);
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn arguments() -> Option<(Limits, Vec<String>)> {
    let (mut limits, mut words) = (Limits { threads: 2, steps: STEPS }, Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--threads" => limits.threads = arguments.next()?.parse().ok()?,
            "--steps" => limits.steps = arguments.next()?.parse().ok()?,
            option if option.starts_with('-') => return None,
            _ => words.push(argument),
        }
    }
    Some((limits, words))
}
