//! The small scenarios hold, the search would find what is broken, and states that are taken for one behave as one.

use crate::explore::{Limits, explore};
use crate::planted::Planted;
use crate::scenario::{Faults, Kind, Scenario, Split, all, op, small};
use crate::state::State;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

fn named(name: &str) -> Scenario {
    all().into_iter().find(|scenario| scenario.name == name).expect("a scenario")
}

#[test]
fn every_small_scenario_holds_and_has_as_many_states_as_ever() {
    let mut wrong = Vec::new();
    for scenario in small() {
        let report = explore(&scenario, Limits::default());
        println!("{report}");
        let expected = STATES.iter().find(|(name, _)| *name == scenario.name).map(|(_, states)| *states);
        if !report.is_good() || Some(report.states) != expected {
            wrong.push(format!("{report}, expected {expected:?} states"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// How many states each small scenario has: fewer would be a search that does not see all.
const STATES: [(&str, usize); 10] = [
    ("hit", 6_605),
    ("fill", 74_170),
    ("resume", 71_800),
    ("compacted", 69_330),
    ("local-crash", 19_067),
    ("global-crash", 85_860),
    ("retry", 3_686),
    ("both", 93_372),
    ("evict", 17_615),
    ("twins", 4_120),
];

/// States that are written alike are one to the search. So they must lead to the same states: looked at whenever
/// a state is come across again on another way.
#[test]
fn states_that_are_taken_for_one_behave_as_one() {
    for name in ["hit", "both", "retry-and-break", "evict", "global-crash", "twins"] {
        let mut known: HashMap<Vec<u64>, Vec<Vec<u64>>> = HashMap::new();
        let mut pending = VecDeque::from([named(name).begin()]);
        let (mut met, mut looked) = (0, 0);
        while let Some(state) = pending.pop_front() {
            looked += 1;
            if looked > 4_000 {
                break;
            }
            let next = followers(&state);
            let mut written: Vec<Vec<u64>> = next.iter().map(State::words).collect();
            written.sort();
            written.dedup();
            match known.entry(state.words()) {
                Entry::Occupied(before) => {
                    met += 1;
                    assert_eq!(before.get(), &written, "{name}: one state, two futures: {state:?}");
                }
                Entry::Vacant(new) => {
                    new.insert(written);
                    pending.extend(next);
                }
            }
        }
        assert!(met > 100, "{name}: {met} of {looked}");
    }
}

fn followers(state: &State) -> Vec<State> {
    let mut steps = Vec::new();
    state.steps(&mut steps);
    steps.into_iter().map(|step| state.after(step)).collect()
}

/// Where each bug shows.
fn shows(planted: Planted) -> Scenario {
    let scenario = match planted {
        Planted::AckWithoutRemoval
        | Planted::ServePastLease
        | Planted::CommitBeforeAcked
        | Planted::SlowClock => named("hit"),
        Planted::ReleaseOnStreamLoss | Planted::LeaseBeforeInvs | Planted::NoRepeatedInvs => named("resume"),
        Planted::InstallPoisoned | Planted::AlwaysCacheable => named("fill"),
        Planted::ReadBeforeRegistering => {
            Scenario { split: Split { reads: true, ..Split::default() }, ..named("fill") }
        }
        Planted::IgnoreEra => compacted_read(),
        Planted::SkipGrace => named("global-crash"),
        Planted::RestampRetries => named("retry"),
        Planted::VisibleBeforeSync => lost_set(),
    };
    scenario.with(planted)
}

/// A Local comes back after a DEL that nothing tells it of, and is read.
fn compacted_read() -> Scenario {
    let ops = vec![op(0, 0, Kind::Del(1)), op(1, 1, Kind::Get(0))];
    Scenario { ops, ..named("compacted") }
}

/// A SET that is lost with a crash, and read.
fn lost_set() -> Scenario {
    Scenario {
        before: Vec::new(),
        faults: Faults { global_crashes: 1, ..named("retry").faults },
        ..Scenario::new("lost-set", vec![op(0, 0, Kind::Set(0, 1)), op(1, 1, Kind::Get(0))])
    }
}

#[test]
fn every_planted_bug_is_found() {
    let limits = Limits { steps: 1_000_000, ..Limits::default() };
    let mut missed = Vec::new();
    for planted in Planted::ALL {
        let report = explore(&shows(planted), limits);
        match &report.violation {
            Some((what, way)) => {
                println!(
                    "{planted:?} in {}: {what}, {} steps, {} states",
                    report.name,
                    way.len() - 1,
                    report.states
                );
            }
            None => missed.push(format!("{planted:?}: {report}")),
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}
