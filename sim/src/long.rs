//! Fresh seeds for a given time, on several threads, until something is wrong.
//!
//! A run in which little happens proves little: the whole must come to a floor of calls and of faults for each run.

use crate::run::{Plan, Report, run};
use parking_lot::Mutex;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Calls that are answered and judged, for each run, in the mean.
pub const OPS_MIN: usize = 150;
/// Faults, for each run, in the mean.
pub const FAULTS_MIN: usize = 3;
/// Between two lines that tell how far it is.
const TOLD_EVERY: Duration = Duration::from_secs(30);

/// What many runs came to.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How many runs there were.
    pub runs: usize,
    /// Calls that were answered, and judged.
    pub ops: usize,
    /// Calls whose outcome stayed unknown.
    pub unknown: usize,
    /// Faults that were made.
    pub faults: usize,
    /// Virtual time of all runs.
    pub lived: Duration,
    /// How long they took.
    pub took: Duration,
    /// The first run in which something was wrong.
    pub wrong: Option<Report>,
}

impl Tally {
    /// Adds a run.
    pub fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.ops += report.ops;
        self.unknown += report.unknown;
        self.faults += report.faults;
        self.lived += report.took;
        if !report.violations.is_empty() && self.wrong.is_none() {
            self.wrong = Some(report.clone());
        }
    }

    /// Whether enough was done to mean something.
    pub fn is_enough(&self) -> bool {
        self.ops >= OPS_MIN * self.runs && self.faults >= FAULTS_MIN * self.runs
    }

    /// Whether nothing was wrong and enough was done.
    pub fn is_right(&self) -> bool {
        self.wrong.is_none() && self.is_enough()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { runs, ops, unknown, faults, lived, took, wrong } = self;
        let seconds = took.as_secs_f64().max(0.001);
        write!(
            f,
            "{runs} runs, {ops} calls judged, {unknown} of unknown outcome, {faults} faults, {lived:.0?} of virtual \
             time in {took:.0?}: {:.1} runs/s, {:.0} calls/s",
            *runs as f64 / seconds,
            *ops as f64 / seconds,
        )?;
        if !self.is_enough() {
            write!(
                f,
                "\ntoo little was done: {OPS_MIN} calls and {FAULTS_MIN} faults for each run are expected"
            )?;
        }
        match wrong {
            Some(report) => write!(f, "\n{report}\nrun it again: {}", again(report.seed)),
            None => Ok(()),
        }
    }
}

/// The command that runs a seed again.
pub fn again(seed: u64) -> String {
    format!("RUST_LOG=info cargo run -p dstore-sim --release -- --seed {seed}")
}

/// Runs seeds from `first` on for `time`, on `threads` threads; stops at the first that is wrong.
pub fn hold(first: u64, time: Duration, threads: usize) -> Tally {
    let began = Instant::now();
    let (next, tally, told) = (AtomicU64::new(first), Mutex::new(Tally::default()), Mutex::new(began));
    let work = || {
        while began.elapsed() < time && tally.lock().wrong.is_none() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let report = run(&Plan::of(seed));
            let mut tally = tally.lock();
            tally.add(&report);
            tally.took = began.elapsed();
            let mut told = told.lock();
            if told.elapsed() > TOLD_EVERY {
                *told = Instant::now();
                println!("{tally}");
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(work);
        }
    });
    tally.into_inner()
}
