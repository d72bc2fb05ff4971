//! Runs seeds and prints a line for each:
//!
//! ```text
//! dstore-sim --seed N [--seeds M] [--bug NAME]          these seeds, each on its own line
//!            [--faults none]                            nothing breaks in them
//! dstore-sim --minutes M [--threads T] [--seed N]       fresh seeds from N on, until something is wrong
//! dstore-sim pure ...                                   the two machines of the protocol alone
//! ```
//! With `RUST_LOG` set it also prints the plan and what the product logs, with virtual time.

use dstore_sim::long;
use dstore_sim::run::{Bug, Plan, run};
use std::process::ExitCode;
use std::time::Duration;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|first| first == "pure") {
        return dstore_sim::pure::cli::main(std::env::args().skip(2));
    }
    let Some(given) = arguments(std::env::args().skip(1)) else {
        let bugs: Vec<&str> = Bug::ALL.iter().map(|(name, _)| *name).collect();
        eprintln!(
            "usage: dstore-sim --seed N [--seeds M] [--faults none] [--bug {}]\n       dstore-sim --minutes M [--threads T] [--seed N]",
            bugs.join("|")
        );
        return ExitCode::from(2);
    };
    let verbose = std::env::var_os("RUST_LOG").is_some();
    if verbose {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).with_timer(Virtual).with_ansi(false).init();
    }
    if let Some(minutes) = given.minutes {
        let tally = long::hold(given.first, Duration::from_secs(60 * minutes), given.threads);
        println!("{tally}");
        return if tally.is_right() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let mut wrong = 0;
    for seed in given.first..given.first.saturating_add(given.count) {
        let plan = if given.is_whole { Plan::of(seed).whole() } else { Plan::of(seed) };
        let plan = Plan { bug: given.bug, ..plan };
        if verbose {
            println!("{plan:#?}");
        }
        let report = run(&plan);
        println!("{report}");
        wrong += report.violations.len();
    }
    if wrong > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Shows the simulation's time.
struct Virtual;

impl FormatTime for Virtual {
    fn format_time(&self, out: &mut Writer<'_>) -> std::fmt::Result {
        let now = if turmoil::in_simulation() { turmoil::sim_elapsed() } else { None };
        write!(out, "{:>9.3}", now.unwrap_or_default().as_secs_f64() * 1e3)
    }
}

/// What is asked for.
struct Given {
    first: u64,
    count: u64,
    bug: Option<Bug>,
    minutes: Option<u64>,
    threads: usize,
    is_whole: bool,
}

fn arguments(mut given: impl Iterator<Item = String>) -> Option<Given> {
    let (mut first, mut asked) =
        (None, Given { first: 0, count: 1, bug: None, minutes: None, threads: 1, is_whole: false });
    while let Some(flag) = given.next() {
        let value = given.next()?;
        match flag.as_str() {
            "--seed" => first = Some(value.parse().ok()?),
            "--seeds" => asked.count = value.parse().ok()?,
            "--faults" if value == "none" => asked.is_whole = true,
            "--bug" => asked.bug = Some(bug_of(&value)?),
            "--minutes" => asked.minutes = Some(value.parse().ok()?),
            "--threads" => asked.threads = value.parse().ok()?,
            _ => return None,
        }
    }
    if first.is_none() && asked.minutes.is_none() {
        return None;
    }
    // Seeds that no test has, and others each second.
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    asked.first = first.unwrap_or_else(|| since_1970.map_or(1 << 40, |now| now.as_secs() << 20));
    Some(asked)
}

fn bug_of(name: &str) -> Option<Bug> {
    Bug::ALL.iter().find(|(known, _)| *known == name).map(|(_, bug)| *bug)
}
