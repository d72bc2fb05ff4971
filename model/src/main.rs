//! Searches scenarios and prints a line for each: `dstore-model [--threads N] [--states N] [--ways] [WORD...]`, those
//! whose names contain a word, or all. A search ends after so many steps even if there is more.

use dstore_model::explore::{Limits, explore};
use dstore_model::scenario;
use std::process::ExitCode;

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
        good &= report.is_good();
        println!("{report}\n    on so many steps: {}", report.seen);
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn arguments() -> Option<(Limits, Vec<String>)> {
    let (mut limits, mut words) = (Limits { threads: 2, ..Limits::default() }, Vec::new());
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
