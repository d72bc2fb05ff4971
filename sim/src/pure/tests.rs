//! Seeds without violations, planted bugs with them.

use super::*;
use std::env;
use std::ops::Range;

/// Runs `seeds`; at the first violation says how to see it again.
fn all_hold(seeds: Range<u64>) {
    let (mut ops, mut hits, mut faults, mut undecided) = (0, 0, 0, 0);
    for seed in seeds.clone() {
        let report = run(seed, Config::for_seed(seed));
        assert!(
            report.violations.is_empty(),
            "seed {seed}: {:#?}\n{:?}\nto see it again: DSTORE_SIM_SEED={seed} cargo test -p dstore-sim --lib \
             pure::tests::replay -- --ignored --nocapture",
            report.violations,
            Config::for_seed(seed),
        );
        ops += report.ops;
        hits += report.hits;
        faults += report.faults;
        undecided += report.undecided;
    }
    println!("seeds {seeds:?}: {ops} ops, {hits} hits, {faults} faults, {undecided} histories undecided");
    assert!(hits * 20 > ops, "too few hits to mean anything");
}

#[test]
fn a_seed_replays_to_the_same_trace() {
    for seed in [1, 2, 3] {
        let (first, second) = (run(seed, Config::for_seed(seed)), run(seed, Config::for_seed(seed)));
        assert_eq!(first.trace_hash, second.trace_hash, "seed {seed}");
        assert_ne!(first.trace_hash, run(seed + 1, Config::for_seed(seed)).trace_hash);
    }
}

#[test]
fn no_schedule_of_the_first_three_hundred_breaks_a_promise() {
    all_hold(0..300);
}

#[test]
#[ignore = "minutes; DSTORE_SIM_SEED = where to begin, DSTORE_SIM_SEEDS = how many"]
fn long() {
    let number = |name, otherwise| env::var(name).map_or(otherwise, |n| n.parse().expect("a number"));
    let from = number("DSTORE_SIM_SEED", 1_000_000);
    all_hold(from..from + number("DSTORE_SIM_SEEDS", 10_000));
}

#[test]
#[ignore = "replays the seed in DSTORE_SIM_SEED, telling every event"]
fn replay() {
    let seed = env::var("DSTORE_SIM_SEED").expect("a seed").parse().expect("a number");
    let report = run(seed, Config { narrate: true, ..Config::for_seed(seed) });
    assert!(report.violations.is_empty(), "seed {seed}: {report:#?}");
}

/// The first seed that shows a planted bug.
fn find(planted: Planted, seeds: Range<u64>, black_box: bool) -> u64 {
    let shows = |seed: &u64| {
        let config = Config { black_box, ..Config::for_seed(*seed).with(planted) };
        !run(*seed, config).violations.is_empty()
    };
    let n = seeds.end;
    seeds.into_iter().find(shows).unwrap_or_else(|| panic!("{planted:?} was not found in {n} seeds"))
}

/// How many seeds a planted bug may take to show.
fn seeds_for(planted: Planted) -> u64 {
    match planted {
        // A hit must stand still between its lookup and its look at the clock while a whole session begins.
        Planted::LoadAfterLookup => 200,
        _ => 60,
    }
}

#[test]
fn every_planted_bug_is_found() {
    for planted in Planted::ALL {
        println!("{planted:?}: seed {}", find(planted, 0..seeds_for(planted), false));
    }
}

#[test]
fn every_planted_bug_shows_in_what_callers_are_told() {
    for planted in Planted::ALL {
        println!("{planted:?}: seed {}", find(planted, 0..seeds_for(planted), true));
    }
}
