//! Searches scenarios and prints a line for each: `dstore-model [WORD...]`, those whose names contain a word.

use dstore_model::{explore::explore, scenario};
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let asked = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    let mut good = true;
    for (ticks, cuts, hellos, gets) in
        [(4, 0, 0, 1), (255, 0, 0, 1), (4, 0, 1, 1), (255, 0, 1, 1), (4, 1, 1, 1), (255, 1, 1, 1), (4, 1, 1, 2), (255, 1, 1, 2)]
    {
        let mut s = scenario::small().remove(0);
        s.faults = scenario::Faults { ticks, cuts, hellos, ..s.faults };
        s.ops.truncate(1 + gets);
        s.expects.clear();
        let report = explore(&s, 1, 1_500_000);
        println!("ticks {ticks} cuts {cuts} hellos {hellos} gets {gets}: {report}");
    }
    return ExitCode::SUCCESS;
    #[allow(unreachable_code)]
    for scenario in scenario::all().into_iter().filter(|scenario| asked(scenario.name)) {
        let report = explore(&scenario, 1, 200_000);
        good &= report.is_good();
        println!("{report}");
        println!("    {}", report.seen);
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
