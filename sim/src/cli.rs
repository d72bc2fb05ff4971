//! The command `stack`: runs seeds over the real stack, a line a seed, and says which go wrong.
//!
//! ```text
//! options -> seed after seed, or fresh seeds for some minutes -> a line each -> one line for all -> exit code
//! ```
//! The exit code is 1 if a seed shows a violation, if a run that was to come again is another one, or if too little
//! is done to mean anything. With `RUST_LOG` set the plan is printed too, and what the product logs, in virtual time.
//! Invariant: what a seed does depends on the seed, the scenario of plan and the bug, and on nothing else.

use crate::long::{self, Asked, Tally};
use crate::plan::{Bug, Scenario};
use crate::run::run;
use crate::wall::since_1970;
use std::process::ExitCode;
use std::time::Duration;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// How the command is called.
pub fn usage() -> String {
    let scenarios: Vec<&str> = Scenario::ALL.iter().map(|(name, _)| *name).collect();
    let bugs: Vec<&str> = Bug::ALL.iter().map(|(name, _)| *name).collect();
    format!(
        "usage: dstore-sim stack --seed N [--seeds M] [--scenario {}] [--twice] [--bug {}] [--first]\n       \
         dstore-sim stack --minutes M [--seed N]",
        scenarios.join("|"),
        bugs.join("|")
    )
}

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Options {
    asked: Asked,
    count: u64,
    minutes: Option<u64>,
    /// Each run is made twice, and must be the same.
    twice: bool,
    /// Nothing is run after the first that is wrong.
    ends_at_first: bool,
}

impl Options {
    fn of(mut given: impl Iterator<Item = String>) -> Option<Self> {
        let asked = Asked { first: 0, scenario: Scenario::Drawn, bug: None };
        let (twice, ends_at_first) = (false, false);
        let mut options = Self { asked, count: 1, minutes: None, twice, ends_at_first };
        let mut first = None;
        while let Some(flag) = given.next() {
            let mut number = || given.next()?.parse::<u64>().ok();
            match flag.as_str() {
                "--seed" => first = Some(number()?),
                "--seeds" => options.count = number()?,
                "--minutes" => options.minutes = Some(number()?),
                "--scenario" => options.asked.scenario = named(Scenario::ALL, &given.next()?)?,
                "--bug" => options.asked.bug = Some(named(Bug::ALL, &given.next()?)?),
                "--twice" => options.twice = true,
                "--first" => options.ends_at_first = true,
                _ => return None,
            }
        }
        // Seeds that no test has, and others each second.
        let fresh = options.minutes.map(|_| since_1970().as_secs() << 20);
        options.asked.first = first.or(fresh)?;
        Some(options)
    }
}

fn named<T: Copy>(all: &[(&str, T)], name: &str) -> Option<T> {
    all.iter().find(|(known, _)| *known == name).map(|(_, one)| *one)
}

/// Does what the command line asks for.
pub fn main(given: impl Iterator<Item = String>) -> ExitCode {
    let Some(options) = Options::of(given) else {
        eprintln!("{}", usage());
        return ExitCode::from(2);
    };
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).with_timer(Virtual).with_ansi(false).init();
    }
    let is_right = match options.minutes {
        Some(minutes) => {
            let tally = long::hold(options.asked, Duration::from_secs(60 * minutes));
            println!("{tally}");
            tally.is_right()
        }
        None => seeds(&options),
    };
    if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the seeds asked for, in order.
fn seeds(options: &Options) -> bool {
    let asked = options.asked;
    let (mut tally, mut is_same) = (Tally::of(asked), true);
    for seed in asked.first..asked.first.saturating_add(options.count) {
        let plan = asked.plan(seed);
        if std::env::var_os("RUST_LOG").is_some() {
            println!("{plan:#?}");
        }
        let report = run(&plan);
        println!("{report}");
        if options.twice {
            let again = run(&plan);
            if again != report {
                println!("seed={seed} is another run the second time: {again}");
                is_same = false;
            }
        }
        tally.add(&report);
        if options.ends_at_first && tally.wrong.is_some() {
            return false;
        }
    }
    if options.count > 1 {
        println!("{tally}");
        return is_same && tally.is_right();
    }
    is_same && tally.wrong.is_none()
}

/// Shows the simulation's time.
struct Virtual;

impl FormatTime for Virtual {
    fn format_time(&self, out: &mut Writer<'_>) -> std::fmt::Result {
        let now = if turmoil::in_simulation() { turmoil::sim_elapsed() } else { None };
        write!(out, "{:>9.3}", now.unwrap_or_default().as_secs_f64() * 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Option<Options> {
        Options::of(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn the_command_that_a_failure_names_asks_for_the_same_run() {
        let asked = options("--seed 5 --seeds 9 --scenario away --bug slow-clock").unwrap();
        let again = asked.asked.again(7);
        let (_, flags) = again.split_once("stack ").unwrap();
        let again = options(flags).unwrap();
        assert_eq!((again.asked, again.count), (Asked { first: 7, ..asked.asked }, 1));
        assert_eq!(options("--seeds 3"), None, "the first seed must be said");
        assert_eq!(options("--seed 3 --bug none"), None);
        assert!(options("--minutes 1").is_some());
    }
}
