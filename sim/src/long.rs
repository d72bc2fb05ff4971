//! Fresh seeds for a given time, until something is wrong.
//!
//! A run in which little happens proves little: the whole must come to a floor of calls and of faults for each run.

use crate::plan::{Bug, Plan, Scenario};
use crate::run::{Report, run};
use crate::wall::{Wall, cpu};
use std::fmt;
use std::time::Duration;

/// Calls that are answered and judged, for each run, in the mean.
const OPS_MIN: usize = 150;
/// Calls that are answered in any run.
const OPS_LEAST: usize = 40;
/// Faults, for each run, in the mean.
const FAULTS_MIN: usize = 3;
/// Of a hundred runs, those that may be left without a verdict on the order of their calls.
const UNDECIDED_MAX: usize = 3;
/// Between two lines that tell how far it is.
const TOLD_EVERY: Duration = Duration::from_secs(30);

/// Which runs are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked {
    /// The first seed.
    pub first: u64,
    /// What plans are drawn.
    pub scenario: Scenario,
    /// A mistake made on purpose.
    pub bug: Option<Bug>,
}

impl Asked {
    /// The command that runs a seed again.
    pub fn again(&self, seed: u64) -> String {
        // Some mistakes are made in the product.
        let features = if self.bug.is_some() { " --features planted" } else { "" };
        let scenario =
            Scenario::ALL.iter().find(|(_, this)| *this == self.scenario && *this != Scenario::Drawn);
        let scenario = scenario.map_or(String::new(), |(name, _)| format!(" --scenario {name}"));
        let bug = Bug::ALL.iter().find(|(_, bug)| Some(*bug) == self.bug);
        let bug = bug.map_or(String::new(), |(name, _)| format!(" --bug {name}"));
        format!("cargo run -p dstore-sim --release{features} -- stack --seed {seed}{scenario}{bug}")
    }

    /// The plan of a seed.
    pub fn plan(&self, seed: u64) -> Plan {
        Plan { bug: self.bug, ..self.scenario.plan(seed) }
    }
}

/// What many runs came to.
#[derive(Clone, Debug)]
pub struct Tally {
    /// What was asked for.
    pub asked: Asked,
    /// How many runs there were.
    pub runs: usize,
    /// Calls that were answered, and judged.
    pub ops: usize,
    /// In the run with the fewest.
    fewest: usize,
    /// Calls whose outcome stayed unknown.
    pub unknown: usize,
    /// Runs without a verdict on the order of their calls.
    pub undecided: usize,
    /// Faults that were made.
    pub faults: usize,
    /// Virtual time of all runs.
    pub lived: Duration,
    /// When the first began.
    began: Wall,
    /// What the process had worked before.
    worked: Duration,
    /// The first run in which something was wrong.
    pub wrong: Option<Report>,
}

impl Tally {
    /// Of no runs yet.
    pub fn of(asked: Asked) -> Self {
        let (runs, ops, unknown, undecided, faults) = (0, 0, 0, 0, 0);
        let (lived, began, worked) = (Duration::ZERO, Wall::now(), cpu());
        Self {
            asked,
            runs,
            ops,
            fewest: usize::MAX,
            unknown,
            undecided,
            faults,
            lived,
            began,
            worked,
            wrong: None,
        }
    }

    /// Adds a run.
    pub fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.fewest = self.fewest.min(report.ops);
        if report.is_undecided {
            self.undecided += 1;
        } else {
            self.ops += report.ops;
        }
        self.unknown += report.unknown;
        self.faults += report.faults;
        self.lived += report.took;
        if !report.violations.is_empty() && self.wrong.is_none() {
            self.wrong = Some(report.clone());
        }
    }

    /// Whether enough was done to mean something. Only of plans as they are drawn can that be said.
    pub fn is_enough(&self) -> bool {
        let is_other = self.asked.scenario != Scenario::Drawn || self.asked.bug.is_some();
        is_other
            || self.ops >= OPS_MIN * self.runs
                && self.fewest >= OPS_LEAST
                && self.faults >= FAULTS_MIN * self.runs
                && self.undecided * 100 <= UNDECIDED_MAX * self.runs.max(100)
    }

    /// Whether nothing was wrong and enough was done.
    pub fn is_right(&self) -> bool {
        self.wrong.is_none() && self.is_enough()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked, runs, ops, fewest, unknown, undecided, faults, lived, began, worked, wrong } = self;
        let (took, worked) = (began.elapsed(), cpu().saturating_sub(*worked));
        let a_second = |n: usize, of: Duration| n as f64 / of.as_secs_f64().max(0.001);
        write!(
            f,
            "{runs} runs, {ops} calls judged, {unknown} of unknown outcome, {undecided} runs undecided, {faults} faults, \
             {lived:.0?} of virtual \
             time in {took:.0?}: {:.1} runs/s, {:.0} calls/s, {:.0} calls a second of work",
            a_second(*runs, took),
            a_second(*ops, took),
            a_second(*ops, worked),
        )?;
        if !self.is_enough() {
            write!(
                f,
                "\ntoo little was done: {OPS_MIN} calls and {FAULTS_MIN} faults are expected for each run, and \
                 {OPS_LEAST} calls in any, of which one has {fewest}; at most {UNDECIDED_MAX} of 100 undecided"
            )?;
        }
        match wrong {
            Some(report) => write!(f, "\n{report}\nrun it again: {}", asked.again(report.seed)),
            None => Ok(()),
        }
    }
}

/// Runs seeds for `time`, and stops at the first that is wrong. One after the other: runs beside each other in one
/// process would not be repeated exactly.
pub fn hold(asked: Asked, time: Duration) -> Tally {
    let (mut tally, mut told) = (Tally::of(asked), Wall::now());
    for seed in asked.first.. {
        tally.add(&run(&asked.plan(seed)));
        if tally.began.elapsed() >= time || tally.wrong.is_some() {
            break;
        }
        if told.elapsed() > TOLD_EVERY {
            told = Wall::now();
            println!("{tally}");
        }
    }
    tally
}
