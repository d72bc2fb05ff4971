//! Searches scenarios and prints a line for each: `dstore-model [WORD...]`, those whose names contain a word.

use dstore_model::{explore::explore, scenario};
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let asked = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    let mut good = true;
    for scenario in scenario::all().into_iter().filter(|scenario| asked(scenario.name)) {
        let report = explore(&scenario, 1);
        good &= report.is_good();
        println!("{report}");
        println!("    {}", report.seen);
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
