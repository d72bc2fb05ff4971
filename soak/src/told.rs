//! What a run comes to: violations, what happened, how long calls took. Shared by everybody who takes part.
//!
//! Invariant: everything here is bounded, however long the run; a violation is counted though its text is left out.

use hdrhistogram::Histogram;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Stories of violations that are kept.
const STORIES_MAX: usize = 50;
/// Happenings that are kept.
const HAPPENINGS_MAX: usize = 2000;

/// What a run comes to, as far as it has got.
#[derive(Debug)]
pub struct Told {
    begun: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    violations: u64,
    stories: Vec<String>,
    happened: VecDeque<String>,
    calls: BTreeMap<&'static str, Figures>,
    counts: BTreeMap<String, u64>,
}

/// The calls of one kind.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Those that were answered, in microseconds.
    pub took: Histogram<u64>,
    /// Calls that failed, or that their caller gave up.
    pub failed: u64,
}

impl Default for Figures {
    fn default() -> Self {
        // Up to ten minutes, which no call takes.
        let took = Histogram::new_with_bounds(1, 600_000_000, 3).expect("valid bounds");
        Self { took, failed: 0 }
    }
}

impl Told {
    pub fn new() -> Self {
        Self { begun: Instant::now(), state: Mutex::default() }
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().expect("nobody panics with it"))
    }

    /// Time since the beginning: what histories are made of.
    pub fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// A promise was broken.
    pub fn accuse(&self, story: impl Into<String>) {
        let story = format!("{:.3} s: {}", self.now().as_secs_f64(), story.into());
        eprintln!("VIOLATION {story}");
        self.with(|state| {
            state.violations += 1;
            if state.stories.len() < STORIES_MAX {
                state.stories.push(story);
            }
        });
    }

    /// Something happened that helps to understand a violation.
    pub fn note(&self, what: impl Into<String>) {
        let line = format!("{:9.3} s  {}", self.now().as_secs_f64(), what.into());
        self.with(|state| {
            if state.happened.len() == HAPPENINGS_MAX {
                state.happened.pop_front();
            }
            state.happened.push_back(line);
        });
    }

    /// One more of what there may be many of.
    pub fn count(&self, what: impl Into<String>) {
        self.add(what, 1);
    }

    pub fn add(&self, what: impl Into<String>, n: u64) {
        self.with(|state| *state.counts.entry(what.into()).or_default() += n);
    }

    /// A call was answered.
    pub fn answered(&self, kind: &'static str, took: Duration) {
        let micros = (took.as_micros() as u64).max(1);
        self.with(|state| state.calls.entry(kind).or_default().took.saturating_record(micros));
    }

    /// A call failed, or was given up.
    pub fn failed(&self, kind: &'static str) {
        self.with(|state| state.calls.entry(kind).or_default().failed += 1);
    }

    pub fn violations(&self) -> u64 {
        self.with(|state| state.violations)
    }

    pub fn stories(&self) -> Vec<String> {
        self.with(|state| state.stories.clone())
    }

    pub fn happened(&self) -> Vec<String> {
        self.with(|state| state.happened.iter().cloned().collect())
    }

    pub fn calls(&self) -> BTreeMap<&'static str, Figures> {
        self.with(|state| state.calls.clone())
    }

    /// Counts whose name begins with `prefix`, without it.
    pub fn counts(&self, prefix: &str) -> BTreeMap<String, u64> {
        let of = |(name, n): (&String, &u64)| Some((name.strip_prefix(prefix)?.to_owned(), *n));
        self.with(|state| state.counts.iter().filter_map(of).collect())
    }

    pub fn counted(&self, what: &str) -> u64 {
        self.with(|state| state.counts.get(what).copied().unwrap_or_default())
    }
}
