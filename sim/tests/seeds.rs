//! Both tiers, real gRPC included, under faults: a run for each seed, judged by what the clients saw.
//!
//! A seed that fails is run again, and looked at, with the command that the failure names.

use dstore_sim::long::{Tally, again};
use dstore_sim::plan::Deed;
use dstore_sim::run::{self, Bug, Plan, Report};
use std::sync::mpsc;
use std::time::Duration;

/// Real time that a run may take on a machine that is busy with other things too.
const HANGS: Duration = Duration::from_secs(600);

/// Runs `plan` on a thread of its own, so that a run in which time stands still is told from a slow one.
fn run(plan: Plan) -> Report {
    let (done, report) = mpsc::channel();
    let seed = plan.seed;
    std::thread::spawn(move || done.send(run::run(&plan)));
    report.recv_timeout(HANGS).unwrap_or_else(|_| panic!("time stands still, or a panic: {}", again(seed)))
}

/// Runs `seeds`, and fails with the command for the first that went wrong, and if too little was done.
fn hold(seeds: std::ops::Range<u64>) {
    let mut tally = Tally::default();
    for seed in seeds {
        let report = run(Plan::of(seed));
        // A run in which nothing happens proves nothing.
        assert!(report.ops >= 40, "{report}");
        tally.add(&report);
        assert!(tally.wrong.is_none(), "{tally}");
    }
    println!("{tally}");
    assert!(tally.is_enough(), "{tally}");
}

#[test]
fn what_clients_see_is_linearizable_under_faults_in_seeds_0_to_16() {
    hold(0..16);
}

#[test]
fn what_clients_see_is_linearizable_under_faults_in_seeds_16_to_32() {
    hold(16..32);
}

#[test]
fn what_clients_see_is_linearizable_under_faults_in_seeds_32_to_48() {
    hold(32..48);
}

#[test]
fn what_clients_see_is_linearizable_under_faults_in_seeds_48_to_64() {
    hold(48..64);
}

#[test]
fn nothing_is_refused_and_nothing_unknown_in_a_whole_cluster() {
    for seed in 0..5 {
        let report = run(Plan::calm(seed));
        assert!(report.violations.is_empty(), "{report}");
        assert!(report.unknown == 0 && report.ops >= 250, "{report}");
    }
}

/// Whether a run comes again, at the latest the fifth time. Mostly the second is the first again; but one clock of the
/// machine is left (`docs/TESTING.md`), so that a run during which the machine stands still may be another one. What
/// asks the machine in every run is seen by this, what does it once in many runs is not.
fn is_repeated<T: PartialEq>(again: impl Fn() -> T) -> bool {
    let mut seen = Vec::new();
    for _ in 0..5 {
        let this = again();
        if seen.contains(&this) {
            return true;
        }
        seen.push(this);
    }
    false
}

#[test]
fn one_seed_gives_one_run_where_nothing_breaks() {
    for seed in 1000..1004 {
        let again = || {
            run(Plan::calm(seed + 1));
            run(Plan::of(seed).whole())
        };
        assert!(is_repeated(again), "seed {seed}: something asks the machine");
        let other = Plan { seed: seed + 1, ..Plan::of(seed) }.whole();
        assert_ne!(run(other).trace, run(Plan::of(seed).whole()).trace);
    }
}

/// How many seeds a bug may take to be found, from any seed on.
fn seeds_for(bug: Bug) -> u64 {
    if bug == Bug::ResumeOffByOne { 120 } else { 60 }
}

/// How often these seeds are gone through: a run under faults that finds a bug may once in a while be another one.
const ROUNDS: u32 = 3;

/// The first seed from `from` on whose run finds `bug` as one of `signs`; the same seed without the bug must find
/// nothing.
fn is_found(bug: Bug, from: u64, signs: &[&str]) {
    is_found_in(Plan::of, bug, from, signs);
}

/// [`is_found`] in plans of another kind.
fn is_found_in(plan_of: fn(u64) -> Plan, bug: Bug, from: u64, signs: &[&str]) {
    let with = |seed| run(Plan { bug: Some(bug), ..plan_of(seed) });
    let shows = |report: &Report| report.violations.iter().any(|v| signs.iter().any(|s| v.contains(s)));
    let found = (0..ROUNDS).flat_map(|_| from..from + seeds_for(bug)).map(with).find(shows);
    let found = found.unwrap_or_else(|| panic!("{bug:?} went unnoticed from seed {from} on"));
    assert_eq!(run(plan_of(found.seed)).violations, Vec::<String>::new(), "without the bug");
    println!("{bug:?}: after {} seeds: {found}", found.seed - from + 1);
}

/// One Local is away four times for longer than its lease, and little happens meanwhile: each time it has missed
/// one change or two when it resumes, and nothing later makes up for one that is left out.
fn seldom_there(seed: u64) -> Plan {
    use dstore_sim::faults::{Fault, Planned};
    let ms = Duration::from_millis;
    let away = |at| Planned { at: ms(at), lasts: ms(250), fault: Fault::Delay(1) };
    let deeds = vec![Deed::Get, Deed::Get, Deed::Get, Deed::Set, Deed::Delete];
    let faults = [200, 600, 1000, 1400].map(away).to_vec();
    Plan { keys: 2, think_ms: 90, work: ms(1800), deeds, faults, ..Plan::calm(seed) }
}

/// Of the values between each Local and Global one is damaged every 100 ms, and nothing else goes wrong.
fn often_damaged(seed: u64) -> Plan {
    use dstore_sim::faults::{Fault, Planned};
    let ms = Duration::from_millis;
    let damage =
        |n: u64| Planned { at: ms(100 + 50 * n), lasts: ms(1), fault: Fault::DamageOnWire(n as usize % 2) };
    Plan { faults: (0..20).map(damage).collect(), ..Plan::calm(seed) }
}

#[test]
fn values_damaged_on_the_wire_are_refused_and_come_whole_when_asked_for_again() {
    let mut damaged = 0;
    for seed in 0..5 {
        let report = run(often_damaged(seed));
        assert!(report.violations.is_empty(), "{report}");
        damaged += report.damaged;
    }
    assert!(damaged >= 10, "only {damaged} values were damaged");
}

#[test]
fn bytes_that_nobody_compares_with_their_hash_are_found() {
    is_found_in(often_damaged, Bug::SkippedHash, 7000, &["with other bytes", "not served again", "G3"]);
}

#[test]
fn a_cache_that_ignores_deletes_is_found() {
    is_found(Bug::ClientCache, 2000, &["not linearizable", "G1"]);
}

#[test]
fn a_clock_that_breaks_its_bound_is_found() {
    is_found(Bug::SlowClock, 3000, &["not linearizable", "G1", "G5"]);
}

#[test]
fn a_disk_that_forgets_what_was_synced_is_found() {
    is_found(Bug::ForgetfulDisk, 4000, &["not linearizable", "did not start", "G2"]);
}

#[test]
fn an_answer_before_the_fsync_is_found() {
    is_found(Bug::LateSync, 5000, &["not linearizable", "did not start", "G2", "G3"]);
}

#[test]
fn a_directory_that_is_not_synced_is_found() {
    is_found(Bug::NoDirSync, 6000, &["not linearizable", "did not start", "G2", "G3", "is not served again"]);
}

#[test]
fn a_session_that_resumes_one_revision_too_late_is_found() {
    is_found_in(seldom_there, Bug::ResumeOffByOne, 8040, &["not linearizable", "G1"]);
}

#[test]
fn a_watch_that_resumes_one_revision_too_late_is_found() {
    is_found(Bug::WatchOffByOne, 9000, &["G2: watch"]);
}

/// How often each bug shows in 300 seeds: for the table of docs/TESTING.md.
#[test]
#[ignore = "minutes: prints a table"]
fn how_many_seeds_each_bug_takes() {
    for (name, bug) in Bug::ALL {
        let mut shows = Vec::new();
        let mut since = 0;
        for seed in 20_000..20_300 {
            since += 1;
            if !run(Plan { bug: Some(*bug), ..Plan::of(seed) }).violations.is_empty() {
                shows.push(since);
                since = 0;
            }
        }
        shows.sort_unstable();
        let median = shows.get(shows.len() / 2);
        println!("{name}: in {} of 300 seeds, median {median:?}, most {:?}", shows.len(), shows.last());
    }
}

/// The same in another process: nothing hangs on addresses, hash seeds, threads or the time of day.
#[test]
fn one_seed_gives_one_run_in_every_process_where_nothing_breaks() {
    for seed in [17, 18] {
        let again = || {
            let mut sim = std::process::Command::new(env!("CARGO_BIN_EXE_dstore-sim"));
            let done = sim.args(["--faults", "none", "--seed", &seed.to_string()]).output().expect("it runs");
            String::from_utf8(done.stdout).expect("a line of text")
        };
        assert!(again().starts_with(&format!("seed={seed} ops=")), "one line for a seed");
        assert!(is_repeated(again), "seed {seed}: something hangs on the process");
    }
}

/// `retire` waited for the end of a lease that had run out already: it spun, and nothing else came to run.
#[test]
fn a_stop_during_which_a_lease_runs_out_does_not_spin() {
    use dstore_sim::faults::{Fault, Planned};
    for at in (200..240).step_by(5) {
        let ms = Duration::from_millis;
        let deaf = Planned { at: ms(at), lasts: ms(148), fault: Fault::DeafGlobal(1) };
        let stop = Planned { at: ms(250), lasts: ms(0), fault: Fault::StopGlobal };
        let plan = Plan { faults: vec![deaf, stop], work: ms(400), ..Plan::calm(at) };
        assert_eq!(run(plan).violations, Vec::<String>::new(), "partition at {at} ms");
    }
}

/// Its KEEPs still come, so that only an INV that stays unacknowledged ends its lease (G4).
#[test]
fn a_local_that_hears_nothing_delays_a_delete_no_longer_than_one_that_is_gone() {
    use dstore_sim::faults::{Fault, Planned};
    for seed in 0..10 {
        let ms = Duration::from_millis;
        let deaf = Planned { at: ms(400 + seed), lasts: ms(600), fault: Fault::DeafLocal(1) };
        let report = run(Plan { faults: vec![deaf], ..Plan::calm(seed) });
        assert!(report.violations.is_empty(), "{report}");
    }
}
