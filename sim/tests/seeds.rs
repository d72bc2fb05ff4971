//! Both tiers, real gRPC included, under faults: a run for each seed, judged by what the clients saw.
//!
//! Seeds are run by the program `dstore-sim`, whose process has no clock of the machine: a seed that fails here fails
//! always, and is run again, and looked at, with the command that the failure names.

use dstore_sim::plan::Plan;
use dstore_sim::run::{Bug, run};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Real time that a run may take on a machine that is busy with other things too.
const HANGS: Duration = Duration::from_secs(600);

/// A line of the simulator, with what follows it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Told {
    text: String,
}

impl Told {
    /// A number of the line.
    fn number(&self, name: &str) -> u64 {
        let found = self.text.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        found.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no {name}: {}", self.text))
    }

    fn is_whole(&self) -> bool {
        self.number("violations") == 0
    }
}

/// Ends the simulator if nobody wants to know any more.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the simulator says of each seed, what it says of all, and whether all was well.
fn simulate(given: &str) -> (Vec<Told>, String, bool) {
    let mut sim = Command::new(env!("CARGO_BIN_EXE_dstore-sim"));
    let sim = sim.arg("stack").args(given.split_whitespace()).env_remove("RUST_LOG").stdout(Stdio::piped());
    let mut sim = Ended(sim.spawn().expect("it runs"));
    let (line, lines) = mpsc::channel();
    let out = BufReader::new(sim.0.stdout.take().expect("it is piped"));
    std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|told| line.send(told)));
    let (mut seeds, mut rest): (Vec<Told>, _) = (Vec::new(), String::new());
    loop {
        match lines.recv_timeout(HANGS) {
            Ok(told) if told.starts_with("seed=") => seeds.push(Told { text: told }),
            Ok(told) => match seeds.last_mut().filter(|_| told.starts_with("  ")) {
                Some(seed) => seed.text.extend(["\n", told.as_str()]),
                None => rest.extend([told.as_str(), "\n"]),
            },
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                panic!("`{given}`: time stands still after {} seeds: {:?}", seeds.len(), seeds.last())
            }
        }
    }
    let is_well = sim.0.wait().expect("it ends").success();
    (seeds, rest, is_well)
}

/// Runs `seeds`, and fails with the command for the first that went wrong, and if too little was done.
fn hold(seeds: std::ops::Range<u64>) {
    let count = seeds.end - seeds.start;
    let (told, all, is_well) = simulate(&format!("--seed {} --seeds {count}", seeds.start));
    let wrong = told.iter().find(|seed| !seed.is_whole());
    assert!(is_well && told.len() as u64 == count, "{all}{wrong:?}");
    println!("{all}");
}

#[test]
fn what_clients_see_is_linearizable_under_faults_in_seeds_0_to_8() {
    hold(0..8);
}

#[test]
fn what_clients_see_is_linearizable_under_faults_in_seeds_8_to_16() {
    hold(8..16);
}

#[test]
fn what_clients_see_is_linearizable_under_faults_in_seeds_16_to_24() {
    hold(16..24);
}

#[test]
fn what_clients_see_is_linearizable_under_faults_in_seeds_24_to_32() {
    hold(24..32);
}

#[test]
fn nothing_is_refused_and_nothing_unknown_in_a_whole_cluster() {
    let (seeds, all, is_well) = simulate("--scenario calm --seed 0 --seeds 5");
    assert!(is_well && seeds.len() == 5, "{all}{seeds:?}");
    for seed in seeds {
        assert!(seed.number("unknown") == 0 && seed.number("ops") >= 250, "{seed:?}");
    }
}

/// In one process each seed gives the same run twice, and in another, whatever came before: nothing hangs on clocks,
/// addresses, hash seeds, threads or the time of day.
#[test]
fn one_seed_gives_one_run_under_faults_twice_in_one_process_and_in_another() {
    let (twice, all, is_same) = simulate("--seed 1001 --seeds 3 --twice");
    assert!(is_same && twice.len() == 3, "{all}{twice:?}");
    let (others, all, is_well) = simulate("--seed 1000 --seeds 4");
    assert!(is_well, "{all}");
    assert_eq!(twice, others[1..]);
    let mut traces: Vec<&str> = others.iter().filter_map(|seed| seed.text.split("trace=").nth(1)).collect();
    traces.sort_unstable();
    traces.dedup();
    assert_eq!(traces.len(), 4, "different seeds are different runs");
}

/// How many seeds a bug may take to be found, from any seed on.
const SEEDS_FOR_A_BUG: u64 = 60;

/// The first seed from `from` on whose run finds `bug`, as one of `signs`; the same seed without the bug must find
/// nothing.
fn is_found(scenario: &str, bug: &str, from: u64, signs: &[&str]) {
    let mut next = from;
    let found = loop {
        let count = SEEDS_FOR_A_BUG - (next - from);
        let given = format!("--scenario {scenario} --bug {bug} --first --seed {next} --seeds {count}");
        let found = simulate(&given).0.pop().expect("a line for each seed");
        assert!(!found.is_whole(), "{bug} went unnoticed from seed {from} on");
        if signs.iter().any(|sign| found.text.contains(sign)) {
            break found;
        }
        // It shows as something else than is asked for.
        next = found.number("seed") + 1;
        assert!(next < from + SEEDS_FOR_A_BUG, "{found:?}");
    };
    let (without, _, is_well) = simulate(&format!("--scenario {scenario} --seed {}", found.number("seed")));
    assert!(is_well, "without the bug: {without:?}");
    println!("{bug}: after {} seeds: {}", found.number("seed") - from + 1, found.text);
}

#[test]
fn values_damaged_on_the_wire_are_refused_and_come_whole_when_asked_for_again() {
    let (seeds, all, is_well) = simulate("--scenario damaged --seed 0 --seeds 5");
    assert!(is_well, "{all}{seeds:?}");
    let damaged: u64 = seeds.iter().map(|seed| seed.number("damaged")).sum();
    assert!(damaged >= 10, "only {damaged} values were damaged");
}

#[test]
fn bytes_that_nobody_compares_with_their_hash_are_found() {
    is_found("damaged", "skipped-hash", 7000, &["with other bytes", "not served again", "G3"]);
}

#[test]
fn a_cache_that_ignores_deletes_is_found() {
    is_found("drawn", "client-cache", 2000, &["not linearizable", "G1"]);
}

#[test]
fn a_clock_that_breaks_its_bound_is_found() {
    is_found("drawn", "slow-clock", 3025, &["not linearizable", "G1", "G5"]);
}

#[test]
fn a_clock_of_global_that_breaks_its_bound_is_found() {
    is_found("drawn", "fast-global", 3506, &["not linearizable", "G1", "G2"]);
}

#[test]
fn a_disk_that_forgets_what_was_synced_is_found() {
    is_found("drawn", "forgetful-disk", 4000, &["not linearizable", "did not start", "G2"]);
}

#[test]
fn an_answer_before_the_fsync_is_found() {
    is_found("drawn", "late-sync", 5000, &["not linearizable", "did not start", "G2", "G3"]);
}

#[test]
fn a_directory_that_is_not_synced_is_found() {
    let signs = ["not linearizable", "did not start", "G2", "G3", "is not served again"];
    is_found("drawn", "no-dir-sync", 6000, &signs);
}

#[test]
fn a_session_that_resumes_one_revision_too_late_is_found() {
    is_found("away", "resume-off-by-one", 8070, &["not linearizable", "G1"]);
}

#[test]
fn a_watch_that_resumes_one_revision_too_late_is_found() {
    is_found("drawn", "watch-off-by-one", 9000, &["G2: watch"]);
}

#[test]
fn transactions_and_times_to_live_are_linearizable_and_a_seed_gives_one_run() {
    let (seeds, all, is_well) = simulate("--scenario brief --seed 0 --seeds 3 --twice");
    assert!(is_well && seeds.len() == 3, "{all}{seeds:?}");
}

#[test]
fn guards_that_nobody_looks_at_are_found() {
    is_found("brief", "skipped-guard", 12_000, &["not linearizable"]);
}

#[test]
fn half_of_a_transaction_is_found() {
    is_found("brief", "half-transaction", 12_100, &["not linearizable", "G1", "G2: watch"]);
}

#[test]
fn a_holder_that_is_not_told_that_a_name_lives_less_long_is_found() {
    is_found("brief", "undrained-expiry", 12_210, &["read after its time", "not linearizable"]);
}

#[test]
fn a_local_that_serves_a_name_for_as_long_as_its_lease_is_found() {
    is_found("brief", "late-expiry", 12_315, &["read after its time", "not linearizable"]);
}

/// How often each bug shows in 300 seeds: for the table of docs/TESTING.md.
#[test]
#[ignore = "minutes: prints a table"]
fn how_many_seeds_each_bug_takes() {
    for (name, _) in Bug::ALL {
        let (seeds, _, _) = simulate(&format!("--bug {name} --seed 20000 --seeds 300"));
        let (mut shows, mut since) = (Vec::new(), 0);
        for seed in seeds {
            since += 1;
            if !seed.is_whole() {
                shows.push(since);
                since = 0;
            }
        }
        shows.sort_unstable();
        let median = shows.get(shows.len() / 2);
        println!("{name}: in {} of 300 seeds, median {median:?}, most {:?}", shows.len(), shows.last());
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
        assert_eq!(run(&plan).violations, Vec::<String>::new(), "partition at {at} ms");
    }
}

/// Its KEEPs still come, so that only an INV that stays unacknowledged ends its lease (G4).
#[test]
fn a_local_that_hears_nothing_delays_a_delete_no_longer_than_one_that_is_gone() {
    use dstore_sim::faults::{Fault, Planned};
    for seed in 0..5 {
        let ms = Duration::from_millis;
        let deaf = Planned { at: ms(400 + seed), lasts: ms(600), fault: Fault::DeafLocal(1) };
        let report = run(&Plan { faults: vec![deaf], ..Plan::calm(seed) });
        assert!(report.violations.is_empty(), "{report}");
    }
}
