//! The command `pure`: runs seeds on a few threads, a line a seed, and says which go wrong.
//!
//! ```text
//! options -> threads take seed after seed -> a line each -> one line for all -> exit code
//! ```
//! Invariant: what a seed does depends on the seed and the options that its replay names, and on nothing else.

use super::{Config, Fault, Planted, Report, run};
use crate::wall::Wall;
use std::fmt;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How the command is called.
pub const USAGE: &str = "usage: dstore-sim pure --seed N [--seeds M | --minutes M] [--threads T] [--bug NAME] \
                         [--black-box] [--life SECONDS] [--floor OPS] [--trace] [--survey BASES]";

/// Operations a seed, on average, below which a range of seeds proves too little. One seed alone is not judged.
pub const FLOOR: usize = 1_000;
/// Ranges up to this long have a line for every seed; of longer ones only violations are told one by one.
const LINES_MAX: u64 = 1_000;
/// Between two lines that tell how far a long range has got.
const PROGRESS: Duration = Duration::from_secs(20);
const THREADS_MAX: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Options {
    seed: u64,
    seeds: u64,
    minutes: Option<u64>,
    threads: usize,
    bug: Option<Planted>,
    black_box: bool,
    life: Option<u64>,
    floor: usize,
    trace: bool,
    /// Tells, from so many places on, after how many seeds each bug, or the one asked for, is found.
    survey: Option<u64>,
}

impl Options {
    fn of(mut given: impl Iterator<Item = String>) -> Option<Self> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let mut seed = None;
        let (seeds, minutes, bug, life, survey) = (1, None, None, None, None);
        let (black_box, floor, trace) = (false, FLOOR, false);
        let mut options =
            Self { seed: 0, seeds, minutes, threads, bug, black_box, life, floor, trace, survey };
        while let Some(flag) = given.next() {
            let mut number = || given.next()?.parse::<u64>().ok();
            match flag.as_str() {
                "--seed" => seed = Some(number()?),
                "--seeds" => options.seeds = number()?,
                "--minutes" => options.minutes = Some(number()?),
                "--threads" => options.threads = usize::try_from(number()?).ok()?.clamp(1, THREADS_MAX),
                "--life" => options.life = Some(number()?),
                "--floor" => options.floor = usize::try_from(number()?).ok()?,
                "--bug" => options.bug = Some(Planted::named(&given.next()?)?),
                "--survey" => options.survey = Some(number()?.max(1)),
                "--black-box" => options.black_box = true,
                "--trace" => options.trace = true,
                _ => return None,
            }
        }
        if options.minutes.is_some() {
            options.seeds = u64::MAX;
        }
        Some(Self { seed: seed?, ..options })
    }

    fn config(&self, seed: u64) -> Config {
        let mut config = Config::for_seed(seed);
        if let Some(bug) = self.bug {
            config = config.with(bug);
        }
        if let Some(seconds) = self.life {
            config.duration = Duration::from_secs(seconds);
        }
        Config { black_box: self.black_box, narrate: self.trace, ..config }
    }

    /// The command that runs one seed again.
    fn replay(&self, seed: u64) -> String {
        let bug = self.bug.map(|bug| format!(" --bug {bug:?}")).unwrap_or_default();
        let black_box = if self.black_box { " --black-box" } else { "" };
        let life = self.life.map(|seconds| format!(" --life {seconds}")).unwrap_or_default();
        format!("cargo run -p dstore-sim --release -- pure --seed {seed}{bug}{black_box}{life} --trace")
    }
}

/// What came of a range of seeds.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Sum {
    /// Histories.
    pub seeds: u64,
    /// Operations that were answered.
    pub ops: usize,
    /// Reads answered without a question to Global.
    pub hits: usize,
    /// Times that something went wrong, as configured.
    pub faults: usize,
    /// The same by kind, in the order of [`Fault::ALL`].
    pub struck: [usize; Fault::ALL.len()],
    /// Changes that watchers were told of.
    pub watched: usize,
    /// Seeds that showed a violation.
    pub wrong: u64,
    /// Histories too tangled to be searched in the steps allowed.
    pub undecided: usize,
    /// Of all seeds, in whatever order they ran.
    pub trace: u64,
}

impl Sum {
    /// Counts one more run.
    pub fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.ops += report.ops;
        self.hits += report.hits;
        self.faults += report.faults;
        self.struck.iter_mut().zip(report.struck).for_each(|(sum, n)| *sum += n);
        self.watched += report.watched;
        self.wrong += u64::from(!report.violations.is_empty());
        self.undecided += report.undecided;
        self.trace = self.trace.wrapping_add(report.trace_hash);
    }

    /// Whether there were as many operations a seed as it takes to mean anything.
    pub fn reaches(&self, floor: usize) -> bool {
        self.ops as u64 >= floor as u64 * self.seeds
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seeds, ops, hits, faults, struck: _, watched, wrong, undecided, trace } = self;
        write!(
            f,
            "seeds={seeds} ops={ops} hits={hits} watched={watched} faults={faults} violating={wrong} \
             undecided={undecided} trace={trace:016x}"
        )
    }
}

/// Runs the command with what follows its name.
pub fn main(given: impl Iterator<Item = String>) -> ExitCode {
    let Some(options) = Options::of(given) else {
        eprintln!("{USAGE}\nbugs:{}", Planted::ALL.map(|bug| format!(" {bug:?}")).concat());
        return ExitCode::from(2);
    };
    if let Some(bases) = options.survey {
        let bugs = options.bug.map_or(Planted::ALL.to_vec(), |bug| vec![bug]);
        let found = bugs.into_iter().map(|bug| survey(&Options { bug: Some(bug), ..options }, bases));
        return if found.min() == Some(true) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let (sum, took) = sweep(&options);
    let rate = sum.ops as f64 / took.as_secs_f64().max(1e-9);
    if sum.seeds > 1 {
        println!("{sum} seconds={:.1} ops/s={rate:.0}", took.as_secs_f64());
        let struck = Fault::ALL.iter().zip(sum.struck).map(|(fault, n)| format!(" {fault:?}={n}"));
        println!("faults:{}", struck.collect::<String>());
    }
    if sum.seeds > 1 && !sum.reaches(options.floor) {
        println!("too little was done to mean anything: fewer than {} operations a seed", options.floor);
        return ExitCode::FAILURE;
    }
    if sum.wrong > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Seeds from one place on in which a bug is looked for.
const SURVEYED: u64 = 1_000;
/// Between two of these places.
const APART: u64 = 10_000;

/// Tells after how many seeds a bug is found, from `bases` places on; false if it was not found from one of them.
fn survey(options: &Options, bases: u64) -> bool {
    let shows = |seed: &u64| !run(*seed, options.config(*seed)).violations.is_empty();
    let base = |n: u64| options.seed.wrapping_add(n * APART);
    let first = |from: u64| (from..from + SURVEYED).find(shows).map(|seed| seed - from + 1);
    let next = AtomicU64::new(0);
    let found = Mutex::new(Vec::new());
    on_threads(options.threads, || {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= bases {
                return;
            }
            let after = first(base(n)).unwrap_or(u64::MAX);
            found.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(after);
        }
    });
    let mut found = found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    found.sort_unstable();
    let told = |n: u64| if n == u64::MAX { format!("> {SURVEYED}") } else { n.to_string() };
    let (bug, rule) = options.bug.map(|bug| (format!("{bug:?}"), bug.rule())).unwrap_or_default();
    let (median, most) = (told(found[found.len() / 2]), told(found[found.len() - 1]));
    println!("{bug} ({rule}): median {median}, at most {most} seeds, from {bases} places on");
    found.last() != Some(&u64::MAX)
}

fn on_threads(threads: usize, work: impl Fn() + Sync) {
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(&work);
        }
        work();
    });
}

/// Runs all seeds asked for, or as many as there is time for.
fn sweep(options: &Options) -> (Sum, Duration) {
    let began = Wall::now();
    let limit = options.minutes.map(|minutes| Duration::from_secs(60 * minutes));
    let next = AtomicU64::new(0);
    let told = Mutex::new((Sum::default(), began));
    let work = || {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= options.seeds || limit.is_some_and(|limit| began.elapsed() >= limit) {
                return;
            }
            let seed = options.seed.wrapping_add(n);
            let report = run(seed, options.config(seed));
            let mut told = told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            told.0.add(&report);
            tell(options, seed, &report, &mut told);
        }
    };
    on_threads(options.threads, work);
    let (sum, _) = told.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    (sum, began.elapsed())
}

fn tell(options: &Options, seed: u64, report: &Report, (sum, told): &mut (Sum, Wall)) {
    let wrong = !report.violations.is_empty();
    if options.seeds <= LINES_MAX || wrong {
        println!("{}", line(seed, report));
    }
    for violation in &report.violations {
        println!("    {violation}");
    }
    if wrong {
        println!("    again: {}", options.replay(seed));
    }
    if options.seeds > LINES_MAX && told.elapsed() >= PROGRESS {
        println!("so far: {sum}");
        *told = Wall::now();
    }
}

/// The line of one seed.
pub fn line(seed: u64, report: &Report) -> String {
    let Report { ops, violations, trace_hash, .. } = report;
    format!("seed={seed} ops={ops} violations={} trace={trace_hash:016x}", violations.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Option<Options> {
        Options::of(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn the_replay_of_a_seed_asks_for_the_same_run() {
        let asked = options("--seed 5 --seeds 9 --bug skipgrace --life 3 --black-box --threads 1").unwrap();
        let again = asked.replay(7);
        let (_, flags) = again.split_once("pure ").unwrap();
        let again = options(flags).unwrap();
        assert_eq!((again.seed, again.bug, again.life), (7, Some(Planted::SkipGrace), Some(3)));
        assert!(again.black_box && again.trace);
        assert_eq!((again.config(7).faults, again.config(7).lease), {
            let config = asked.config(7);
            (config.faults, config.lease)
        });
        assert_eq!(options("--seeds 3"), None, "the first seed must be said");
        assert_eq!(options("--seed 3 --bug none"), None);
    }

    #[test]
    fn a_range_in_which_too_little_happens_is_told() {
        let sum = Sum { seeds: 10, ops: 99, ..Sum::default() };
        assert!(!sum.reaches(10) && sum.reaches(9));
    }

    #[test]
    fn two_threads_see_what_one_sees() {
        let asked = options("--seed 40 --seeds 4 --threads 1").unwrap();
        let (one, _) = sweep(&asked);
        let (two, _) = sweep(&Options { threads: 2, ..asked });
        assert_eq!((one, one.wrong), (two, 0));
        assert!(one.reaches(FLOOR), "{one}");
    }
}
