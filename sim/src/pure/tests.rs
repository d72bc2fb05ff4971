//! Seeds without violations, planted bugs with them.

use super::cli::{FLOOR, Sum, line};
use super::*;
use std::collections::BTreeMap;
use std::env;
use std::ops::Range;
use std::time::{Duration, Instant};

/// Where the seeds begin in which planted bugs are looked for.
const BASE: u64 = 500_000;

/// Runs `seeds`; at the first violation says how to see it again.
fn all_hold(seeds: Range<u64>) {
    let (mut sum, mut resumed, mut resyncs) = (Sum::default(), 0, 0);
    for seed in seeds.clone() {
        let report = run(seed, Config::for_seed(seed));
        assert!(
            report.violations.is_empty(),
            "{}\n{:#?}\n{:?}\nto see it again: cargo run -p dstore-sim --release -- pure --seed {seed} --trace",
            line(seed, &report),
            report.violations,
            Config::for_seed(seed),
        );
        sum.add(&report);
        resumed += report.resumed;
        resyncs += report.resyncs;
    }
    println!("seeds {seeds:?}: {sum}, {resumed} resumed, {resyncs} overflows");
    assert!(sum.reaches(FLOOR), "fewer than {FLOOR} operations a seed mean little: {sum}");
    assert!(resumed > 100 && resyncs > 100, "sessions that come back and queues that overflow are looked at");
    assert!(sum.hits * 20 > sum.ops && sum.watched > 1_000, "too few hits or watched changes: {sum}");
    assert!(sum.struck.iter().all(|n| *n > 0 || seeds.end - seeds.start < 100), "{:?}", sum.struck);
}

#[test]
fn a_seed_replays_to_the_same_trace() {
    for seed in [1, 2, 3] {
        let (first, second) = (run(seed, Config::for_seed(seed)), run(seed, Config::for_seed(seed)));
        assert_eq!(first.trace_hash, second.trace_hash, "seed {seed}");
        assert_eq!(line(seed, &first), line(seed, &second));
        assert_ne!(first.trace_hash, run(seed + 1, Config::for_seed(seed)).trace_hash);
    }
}

#[test]
fn no_schedule_of_the_first_three_hundred_breaks_a_promise() {
    all_hold(0..300);
}

#[test]
fn an_hour_of_a_clusters_life_holds() {
    let (seed, began) = (77, Instant::now());
    let (duration, lease) = (Duration::from_secs(3_600), Duration::from_secs(2));
    // A caller asks ten times a second or less, as most do.
    let (think_us, bursts, watchers) = (400_000, 0, 1);
    let config = Config { lease, duration, think_us, bursts, watchers, ..Config::for_seed(seed) };
    let report = run(seed, config);
    println!("{} took {:?}", line(seed, &report), began.elapsed());
    assert!(report.violations.is_empty(), "{:#?}", report.violations);
    assert!(report.ops > 20_000 && report.faults > 1_000, "{report:?}");
}

#[test]
#[ignore = "minutes; DSTORE_SIM_SEED = where to begin, DSTORE_SIM_SEEDS = how many"]
fn long() {
    let number = |name, otherwise| env::var(name).map_or(otherwise, |n| n.parse().expect("a number"));
    let from = number("DSTORE_SIM_SEED", 1_000_000);
    all_hold(from..from + number("DSTORE_SIM_SEEDS", 10_000));
}

#[test]
fn every_fault_is_absent_from_some_runs_and_dominates_others() {
    let (mut there, mut dominant) = (BTreeMap::<Fault, u64>::new(), BTreeMap::<Fault, u64>::new());
    for seed in 0..2_000 {
        let faults = Config::for_seed(seed).faults;
        let others: u64 = faults.values().sum();
        for (fault, weight) in faults {
            *there.entry(fault).or_default() += 1;
            *dominant.entry(fault).or_default() += u64::from(weight * 3 > others);
        }
    }
    println!("of 2000 runs\nhave it {there:?}\nand are dominated by it {dominant:?}");
    for fault in Fault::ALL {
        assert!((600..1_400).contains(&there[&fault]), "{fault:?} is there in {}", there[&fault]);
        assert!(dominant[&fault] > 60, "{fault:?} dominates {}", dominant[&fault]);
    }
}

/// After how many seeds a planted bug shows.
fn find(planted: Planted, black_box: bool) -> u64 {
    let most = seeds_for(planted, black_box);
    let shows = |seed: &u64| {
        let config = Config { black_box, ..Config::for_seed(*seed).with(planted) };
        !run(*seed, config).violations.is_empty()
    };
    let found = (BASE..BASE + most).find(shows);
    found.unwrap_or_else(|| panic!("{planted:?} was not found in {most} seeds from {BASE} on")) - BASE + 1
}

/// How many seeds a planted bug may take to show: ten times what it does by the survey of docs/TESTING.md, or more.
fn seeds_for(planted: Planted, black_box: bool) -> u64 {
    let seldom = SELDOM.contains(&planted);
    match black_box {
        false if seldom => 1_000,
        false => 400,
        true if seldom => 3_000,
        true => 1_000,
    }
}

/// Those for which several things must come together within a few milliseconds.
const SELDOM: [Planted; 3] = [Planted::ReplayOffByOne, Planted::ForgetFloor, Planted::WildcardEndsEarly];

/// Those that callers notice by waiting only.
const DELAYS: [Planted; 1] = [Planted::NeverOverdue];

#[test]
fn every_planted_bug_is_found() {
    for planted in Planted::ALL {
        println!("{planted:?}: after {} seeds", find(planted, false));
    }
}

#[test]
fn every_planted_bug_shows_in_what_callers_are_told() {
    for planted in Planted::ALL.into_iter().filter(|planted| !DELAYS.contains(planted)) {
        println!("{planted:?}: after {} seeds", find(planted, true));
    }
}
