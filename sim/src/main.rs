//! Runs seeds and prints a line for each: `dstore-sim --seed N [--seeds M] [--bug NAME]`, or those of the two
//! machines alone: `dstore-sim pure --seed N …`.
//! With `RUST_LOG` set it also prints the plan and what the product logs, with virtual time.

use dstore_sim::run::{Bug, Plan, run};
use std::process::ExitCode;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|first| first == "pure") {
        return dstore_sim::pure::cli::main(std::env::args().skip(2));
    }
    let Some((first, count, bug)) = arguments(std::env::args().skip(1)) else {
        eprintln!("usage: dstore-sim --seed N [--seeds M] [--bug client-cache|slow-clock|forgetful-disk]");
        return ExitCode::from(2);
    };
    let verbose = std::env::var_os("RUST_LOG").is_some();
    if verbose {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).with_timer(Virtual).with_ansi(false).init();
    }
    let mut wrong = 0;
    for seed in first..first.saturating_add(count) {
        let plan = Plan { bug, ..Plan::of(seed) };
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

/// The first seed, how many, and the mistake to be made.
fn arguments(mut given: impl Iterator<Item = String>) -> Option<(u64, u64, Option<Bug>)> {
    let (mut first, mut count, mut bug) = (None, 1, None);
    while let Some(flag) = given.next() {
        let value = given.next()?;
        match flag.as_str() {
            "--seed" => first = Some(value.parse().ok()?),
            "--seeds" => count = value.parse().ok()?,
            "--bug" => bug = Some(bug_of(&value)?),
            _ => return None,
        }
    }
    first.map(|first| (first, count, bug))
}

fn bug_of(name: &str) -> Option<Bug> {
    match name {
        "client-cache" => Some(Bug::ClientCache),
        "slow-clock" => Some(Bug::SlowClock),
        "forgetful-disk" => Some(Bug::ForgetfulDisk),
        _ => None,
    }
}
