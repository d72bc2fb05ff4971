//! Processes that end, or are slow, at every failpoint that the code names, while others write and read.
//!
//! The code is the list: whatever `failpoint!` names in Global's and Local's sources is tried here, each until a
//! process has ended there by SIGABRT, or it is among the few that a process with the defaults cannot reach, which
//! name the test that does.

use crate::rig::{Global, Local, client_with, dstore, name, noise, until};
use crate::storm::{Storm, seeded};
use dstore_client::{Address, Client};
use dstore_shared::limits::UNARY_BYTES_MAX;
use dstore_shared::{BlobHash, DeleteMode};
use dstore_sys::rng::{Rng, SeededRng};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// Reached with a grace of zero only, on a simulated disk:
/// `a_power_cut_at_every_failpoint_of_global_loses_nothing_acknowledged`.
const SIMULATED: [&str; 4] = [
    "global::sweep::before_journal",
    "global::sweep::before_unlink",
    "global::sweep::journaled",
    "global::sweep::unlinked",
];
/// Reached only if there was an upload that nothing knows yet.
const AFTER_AN_ORPHAN: [&str; 2] = ["global::adopt::before_journal", "global::adopt::journaled"];
/// Another level.
const RELAXED: [&str; 2] = ["global::relaxed::after_fsync", "global::relaxed::before_fsync"];
/// A generator, and what it was seeded with.
type Drawn = (SeededRng, String);
/// How long it may take until a process ends at a failpoint while it is busy; then it is asked to stop.
const BUSY: Duration = Duration::from_millis(700);
/// And if it has to look through the folders of all blobs first.
const LOOKS_ABOUT: Duration = Duration::from_secs(15);
const ATTEMPTS: u64 = 4;
/// A breeze: it is not the load that matters here.
const WRITERS: usize = 2;
/// For what must come.
const SOON: Duration = Duration::from_secs(30);

fn named_below(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            named_below(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).expect("text");
            let names = text.split("failpoint!(\"").skip(1).filter_map(|rest| rest.split('"').next());
            found.extend(names.map(str::to_owned));
        }
    }
}

/// The failpoints of one tier.
fn failpoints(tier: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    named_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join(tier).join("src"), &mut found);
    found.retain(|name| name.starts_with(&format!("{tier}::")));
    found
}

fn without(mut names: BTreeSet<String>, left_out: &[&str]) -> BTreeSet<String> {
    for name in left_out {
        assert!(names.remove(*name), "`{name}` is not in the code any more");
    }
    names
}

/// Ends the process when it has passed there some times.
fn crash_at(name: &str, rng: &SeededRng, attempt: u64) -> String {
    let skip = if attempt.is_multiple_of(2) { rng.next_u64() % 4 } else { 0 };
    if skip == 0 { format!("{name}=return(crash)") } else { format!("{name}={skip}*off->return(crash)") }
}

/// Whether it ended by abort: the one way out of a failpoint.
fn at_failpoint(status: ExitStatus, err: &[String], name: &str) -> bool {
    if status.signal() != Some(Signal::ABORT.as_raw()) {
        assert_eq!(status.code(), Some(0), "{name}: {status:?} {err:#?}");
        return false;
    }
    let told = err.iter().any(|line| line.contains(name));
    assert!(told, "{name}: it ended somewhere else: {err:#?}");
    true
}

/// Waits until Global has ended, in the end because it is asked to; whether it was at the failpoint.
async fn ends(global: &mut Global, name: &str) -> bool {
    let busy = if AFTER_AN_ORPHAN.contains(&name) { LOOKS_ABOUT } else { BUSY };
    let begun = Instant::now();
    let mut asked = false;
    loop {
        if let Some(status) = global.daemon.ended() {
            // The thread that reads its standard error may be behind.
            let told = async || global.daemon.err().iter().any(|line| line.contains(name));
            if status.signal().is_some() {
                until("it says where it ended", told).await;
            }
            return at_failpoint(status, &global.daemon.err(), name);
        }
        if !asked && begun.elapsed() > busy {
            global.daemon.signal(Signal::TERM);
            asked = true;
        }
        assert!(begun.elapsed() < SOON, "{name}: it neither ends there nor stops");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// What writers do not do: DELs that wait for nobody, and uploads without a name, until Global is gone.
async fn others(at: Address) {
    let client = client_with(&at, Duration::from_millis(200));
    for n in 0_u64.. {
        let gone = client.delete_in(&[name("nobody")], DeleteMode::Async).await;
        let kept = client.put(noise(n | 1 << 63, 70_000)).await;
        if gone.is_err() && kept.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Starts Global with a failpoint; whether it ended there.
async fn lives_until(name: &str, failpoint: &str, global: &mut Global, storm: &Storm) -> bool {
    global.daemon.kill();
    if let Err(ended) = global.again_with(failpoint) {
        return at_failpoint(ended.status, &ended.err, name);
    }
    storm.point_to(global);
    let at = global.daemon.at.clone();
    tokio::join!(others(at), ends(global, name)).1
}

/// Lives until one ends at `name`, which it tells; after each everything acknowledged is there.
async fn end_at(name: &str, rng: &SeededRng, global: &mut Global, storm: &mut Storm) -> bool {
    for attempt in 0..ATTEMPTS {
        if AFTER_AN_ORPHAN.contains(&name) {
            let placed = "global::blobs::placed";
            lives_until(placed, &crash_at(placed, rng, 1), global, storm).await;
        }
        let hit = lives_until(name, &crash_at(name, rng, attempt), global, storm).await;
        global.again();
        storm.is_whole(global, &format!("after {name}")).await;
        if hit {
            return true;
        }
    }
    false
}

/// Those that need Locals, or another level: the others are reached in simulation too.
const PROCESSES_ONLY: [&str; 6] = [
    "global::lease::after_grant",
    "global::lease::before_grant",
    "global::session::after_ack",
    "global::session::after_hello",
    "global::session::before_ack",
    "global::session::before_hello",
];
/// How many of the others a run draws.
const DRAWN: usize = 5;

/// Ends a Global on `engine` at each of `names`; gives those that it did not reach.
async fn global_ends_at(
    names: &[String],
    engine: &'static str,
    flags: &[&'static str],
    drawn: Drawn,
) -> Vec<String> {
    let (rng, what) = drawn;
    let mut global = Global::start(&[&["--engine", engine, "--lease", "100ms"], flags].concat());
    let mut storm = Storm::begin(&global, WRITERS, &rng, what).await;
    let begun = Instant::now();
    let mut missed = Vec::new();
    for name in names {
        if !end_at(name, &rng, &mut global, &mut storm).await {
            missed.push(name.clone());
        }
    }
    let (made, unknown) = storm.end().await;
    let ended = names.len() - missed.len();
    eprintln!(
        "{engine}: ended at {ended} failpoints, {made} changes, {unknown} unknown, {:?}",
        begun.elapsed()
    );
    assert!(made > ended as u64, "{made} changes");
    missed
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn all_but_simulated() -> Vec<String> {
    let left_out = [&SIMULATED[..], &RELAXED[..]].concat();
    without(failpoints("global"), &left_out).into_iter().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn global_ends_at_failpoints_and_loses_nothing_acknowledged() {
    let all = failpoints("global").len() + failpoints("local").len();
    assert!(all >= 30, "{all} failpoints");
    let drawn = seeded("failpoints of global");
    let mut others = without(all_but_simulated().into_iter().collect(), &PROCESSES_ONLY);
    // Whether an upload is orphaned, and when it is found, depends on the load.
    others = without(others, &AFTER_AN_ORPHAN);
    let mut names = owned(&PROCESSES_ONLY);
    for _ in 0..DRAWN {
        let at = drawn.0.next_u64() as usize % others.len();
        let name = others.iter().nth(at).expect("within").clone();
        others.remove(&name);
        names.push(name);
    }
    // What else is reached depends on the load; simulation reaches it at any.
    let missed = global_ends_at(&names, "memory", &[], drawn).await;
    assert!(!missed.iter().any(|name| PROCESSES_ONLY.contains(&&**name)), "not reached: {missed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relaxed_global_ends_at_its_failpoints_and_what_was_written_is_there() {
    let drawn = seeded("failpoints of a relaxed global");
    let missed = global_ends_at(&owned(&RELAXED), "memory", &["--sync", "relaxed=50ms"], drawn).await;
    assert!(missed.is_empty(), "not reached: {missed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: every failpoint on every engine"]
async fn global_on_every_engine_ends_at_every_failpoint_and_loses_nothing_acknowledged() {
    for engine in ["memory", "fjall", "sled"] {
        let missed = global_ends_at(&all_but_simulated(), engine, &[], seeded(engine)).await;
        eprintln!("{engine}: not reached: {missed:?}");
        assert!(missed.len() < 6, "{missed:?}");
        let relaxed = ["--sync", "relaxed=50ms"];
        let missed = global_ends_at(&owned(&RELAXED), engine, &relaxed, seeded(engine)).await;
        assert!(missed.is_empty(), "not reached: {missed:?}");
    }
}

/// What a visitor of one Local has seen acknowledged: each key, and what it may be bound to.
type Seen = Vec<(String, Vec<Option<BlobHash>>)>;

/// Sets, reads and deletes at a Local until it has gone; large values too, and what others wrote.
async fn visit(at: Address, round: u64, others: Vec<String>) -> Seen {
    let client = client_with(&at, Duration::from_millis(400));
    let mut seen = Seen::new();
    for n in 0_u64.. {
        // Carried, offered by its hash and staged, streamed.
        let len = [100, 70_000, UNARY_BYTES_MAX + 1][n as usize % 3];
        let value = noise(round << 20 | n, len);
        let (key, hash) = (format!("v{round}-{n}"), BlobHash::of(&value));
        let set = client.set(&name(&*key), value).await;
        seen.push((key, if set.is_ok() { vec![Some(hash)] } else { vec![None, Some(hash)] }));
        if n % 3 == 2 {
            let (key, may_be) = &mut seen[n as usize - 1];
            match client.delete(&[name(&**key)]).await {
                Ok(_) => *may_be = vec![None],
                Err(_) => may_be.push(None),
            }
        }
        let read = others.iter().map(async |key| client.get(&name(&**key)).await);
        let read = futures_util::future::join_all(read).await;
        if set.is_err() && read.iter().all(Result::is_err) {
            return seen;
        }
    }
    seen
}

/// What was acknowledged at the visited Local is bound at Global.
async fn is_there(client: &Client, seen: Seen, when: &str) {
    for (key, may_be) in seen {
        let found = client.get(&name(&*key)).await.expect("global answers").map(|value| value.entry.hash);
        assert!(may_be.contains(&found), "{when}: `{key}` is {found:?} and not among {may_be:?}");
    }
}

/// One life of a Local that ends at `name`, while others write what it holds.
async fn local_ends_at(name: &str, failpoint: &str, round: u64, global: &Global, storm: &Storm) -> bool {
    let mut local = match Local::begin(global, failpoint).await {
        Err(ended) => return at_failpoint(ended.status, &ended.err, name),
        Ok(local) => local,
    };
    let keys = storm.some_keys().await.into_iter().chain(["large".to_owned()]).collect();
    let visitor = tokio::spawn(visit(local.daemon.at.clone(), round, keys));
    let (begun, mut asked) = (Instant::now(), false);
    let status = loop {
        if let Some(status) = local.daemon.ended() {
            break status;
        }
        if !asked && begun.elapsed() > BUSY {
            local.daemon.signal(Signal::TERM);
            asked = true;
        }
        assert!(begun.elapsed() < SOON, "{name}: it neither ends there nor stops");
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    if status.signal().is_some() {
        until("it says where it ended", async || local.daemon.err().iter().any(|l| l.contains(name))).await;
    }
    let hit = at_failpoint(status, &local.daemon.err(), name);
    is_there(&global.client(), visitor.await.expect("it ended"), name).await;
    hit
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_ends_at_every_failpoint_and_others_lose_nothing_and_wait_a_lease_at_most() {
    // Nobody speaks RESP here: `resp_bounds` has a panic at that one.
    let names = without(failpoints("local"), &["local::resp::dispatch"]);
    let (rng, what) = seeded("failpoints of a local");
    let global = Global::start(&["--engine", "memory", "--lease", "100ms"]);
    let mut storm = Storm::begin(&global, WRITERS, &rng, what).await;
    global.client().set(&name("large"), noise(0, 300_000)).await.expect("set");
    let mut round = 0;
    for name in &names {
        let mut hit = false;
        for attempt in 0..ATTEMPTS {
            round += 1;
            let failpoint = crash_at(name, &rng, attempt);
            hit = local_ends_at(name, &failpoint, round, &global, &storm).await;
            let before = storm.made();
            until("writers go on", async || storm.made() > before + 2).await;
            if hit {
                break;
            }
        }
        assert!(hit, "{name} was not reached in {ATTEMPTS} lives");
        storm.is_whole(&global, &format!("after {name}")).await;
    }
    let (made, unknown) = storm.end().await;
    eprintln!("{} failpoints, {made} changes, {unknown} unknown", names.len());
}

/// Delays at all failpoints of a tier.
fn slow(tier: &str) -> String {
    let names = failpoints(tier);
    names.iter().map(|name| format!("{name}=4%sleep(8)")).collect::<Vec<_>>().join(";")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tiers_that_are_slow_at_every_failpoint_lose_nothing_over_kills() {
    let (rng, what) = seeded("slow at every failpoint");
    let mut global = Global::start(&["--engine", "memory", "--lease", "300ms"]);
    let mut storm = Storm::begin(&global, WRITERS, &rng, what).await;
    for round in 0..4 {
        global.daemon.kill();
        global.again_with(&slow("global")).expect("it starts");
        storm.point_to(&global);
        let local = Local::begin(&global, &slow("local")).await.expect("it starts");
        let visitor = tokio::spawn(visit(local.daemon.at.clone(), round, storm.some_keys().await));
        tokio::time::sleep(Duration::from_micros(200_000 + rng.next_u64() % 200_000)).await;
        drop(local);
        let seen = visitor.await.expect("it ended");
        storm.is_whole(&global, &format!("round {round}")).await;
        is_there(&global.client(), seen, &format!("round {round}")).await;
    }
    let (made, unknown) = storm.end().await;
    eprintln!("slow at every failpoint: {made} changes, {unknown} unknown");
    assert!(made > 20, "{made} changes");
}

#[test]
fn failpoints_that_cannot_be_understood_keep_a_process_from_starting() {
    let dir = tempfile::tempdir().expect("a directory");
    for wrong in ["global::commit::after_fsync", "a=nonsense(", "=;="] {
        let ended = dstore(dir.path(), &["global", "--listen", "127.0.0.1:0"])
            .env("FAILPOINTS", wrong)
            .output()
            .expect("dstore runs");
        let err = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(2), "{wrong}: {err}");
        assert!(err.contains("FAILPOINTS"), "{wrong}: {err}");
    }
}
