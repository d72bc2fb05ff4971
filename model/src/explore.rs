//! The search: a scenario as a model of stateright, and what came of it.

use crate::scenario::Scenario;
use crate::seen::{Seen, Sightings};
use crate::state::{Run, State};
use crate::step::Step;
use dstore_shared::Name;
use stateright::{Checker, Expectation, HasDiscoveries, Model, Property};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub(crate) fn run_of(scenario: &Scenario) -> Arc<Run> {
    let name = |key: &'static str| Name::of(key).expect("a key of one byte");
    let (scenario, names) = (scenario.clone(), [name("a"), name("b")]);
    Arc::new(Run { scenario, seen: Sightings::default(), names })
}

/// How many properties must hold always.
const ALWAYS: usize = 5;

/// A scenario, for the checker.
pub struct Search {
    first: State,
    /// A violation was told: only the first one found is, to which the way is the shortest.
    told: AtomicBool,
    /// What was to happen at some time has been told to have happened.
    happened: [AtomicBool; Seen::ALL.len()],
}

impl Search {
    fn holds(&self, holds: bool) -> bool {
        holds || self.told.swap(true, Ordering::Relaxed)
    }

    fn happens(&self, seen: Seen) -> bool {
        self.first.run.seen.count(seen) > 0 && !self.happened[seen as usize].swap(true, Ordering::Relaxed)
    }
}

/// A property for each sort of thing that may be expected to happen.
macro_rules! sometimes {
    ($($seen:ident: $what:literal,)*) => {
        /// What must happen at some time.
        fn sometimes(seen: Seen) -> Property<Search> {
            match seen {
                $(Seen::$seen => Property::sometimes($what, |search: &Search, _| search.happens(Seen::$seen)),)*
            }
        }
    };
}

sometimes! {
    Hit: "a GET is answered from what a Local holds",
    Miss: "a GET is answered through Global",
    Install: "a Local takes a name in",
    NotInstalled: "an answer comes too late to be taken in",
    DelByAck: "an acknowledgement lets a DEL go on",
    DelByExpiry: "the end of a lease lets a DEL go on",
    DelByGrace: "the end of the grace lets a DEL go on",
    Resume: "a Local that holds names is told what it missed",
    Compacted: "a Local that holds names lists them",
    Refused: "a listed name is refused",
    CrashHolding: "a Local dies that may serve a name",
    GlobalCrash: "Global dies with a change on its way",
    RenewalRefused: "a renewal is refused",
    Duplicate: "an attempt meets an earlier one",
    NotCacheable: "a reader is not registered",
    Ended: "every operation ends",
}

impl Model for Search {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![self.first.clone()]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        state.steps(steps);
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        Some(state.after(step))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let always = [
            Property::always("I1: what may be served is true, or busy", |search: &Self, s: &State| {
                search.holds(s.is_never_stale())
            }),
            Property::always(
                "I4: Global waits for longer than a Local serves",
                |search: &Self, s: &State| search.holds(s.is_waited_for_longer()),
            ),
            Property::always("I7: who may serve a name is registered", |search: &Self, s: &State| {
                search.holds(s.is_registered())
            }),
            Property::always("G4: drains are bounded", |search: &Self, s: &State| {
                search.holds(s.is_bounded())
            }),
            Property::always("G1, G2, G3: callers are told the truth", |search: &Self, s: &State| {
                search.holds(s.error().is_none())
            }),
        ];
        let expected = self.first.run.scenario.expects.iter().copied().chain([Seen::Ended]);
        always.into_iter().chain(expected.map(sometimes)).collect()
    }
}

/// How far a search may go.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Threads. With one, the way to a violation is the shortest.
    pub threads: usize,
    /// Steps, about.
    pub steps: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { threads: 1, steps: usize::MAX }
    }
}

/// What came of a search.
#[derive(Debug)]
pub struct Report {
    /// The scenario.
    pub name: &'static str,
    /// Different states.
    pub states: usize,
    /// Steps that were taken.
    pub steps: usize,
    /// The longest of the shortest ways, in steps.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// What did not hold, with the way to it.
    pub violation: Option<(&'static str, Vec<String>)>,
    /// Whether every state was looked at.
    pub exhausted: bool,
    /// What was to happen and did not.
    pub unseen: Vec<&'static str>,
    /// On how many steps what happened.
    pub seen: String,
}

impl Report {
    /// Whether everything was looked at and held, and what was to happen did.
    pub fn is_good(&self) -> bool {
        self.exhausted && self.violation.is_none() && self.unseen.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, states, steps, depth, took, .. } = self;
        let took = took.as_secs_f64();
        write!(f, "{name:<22} {states:>9} states {steps:>10} steps depth {depth:>3} {took:>7.1} s ")?;
        match &self.violation {
            None if !self.exhausted => write!(f, "holds so far, not exhausted"),
            None if self.unseen.is_empty() => write!(f, "exhausted, holds"),
            None => write!(f, "exhausted, but never: {}", self.unseen.join(", ")),
            Some((what, way)) => {
                writeln!(f, "VIOLATED {what}")?;
                way.iter().enumerate().try_for_each(|(i, step)| writeln!(f, "    {:>2}. {step}", i + 1))
            }
        }
    }
}

/// Searches a scenario to its end, to the first violation, or to its limits.
pub fn explore(scenario: &Scenario, limits: Limits) -> Report {
    let began = Instant::now();
    let first = scenario.begin();
    let run = first.run.clone();
    let happened = std::array::from_fn(|_| AtomicBool::new(false));
    let search = Search { first, told: AtomicBool::new(false), happened };
    let mut unseen: Vec<&'static str> = search.properties().iter().skip(ALWAYS).map(|p| p.name).collect();
    let checker = search
        .checker()
        .threads(limits.threads)
        .finish_when(HasDiscoveries::AnyFailures)
        .target_state_count(limits.steps)
        .spawn_bfs()
        .join();
    let mut violation = None;
    for (what, path) in checker.discoveries() {
        unseen.retain(|expected| *expected != what);
        if checker.model().property(what).expectation == Expectation::Always {
            violation = Some((what, way(path.into_vec())));
        }
    }
    Report {
        name: scenario.name,
        states: checker.unique_state_count(),
        exhausted: checker.state_count() < limits.steps,
        steps: checker.state_count(),
        depth: checker.max_depth(),
        took: began.elapsed(),
        violation,
        unseen,
        seen: run.seen.to_string(),
    }
}

/// A way in words.
fn way(path: Vec<(State, Option<Step>)>) -> Vec<String> {
    let told = path.into_iter().map(|(state, step)| match step {
        Some(step) => state.tells(step),
        None => format!("{state:?}"),
    });
    told.collect()
}
