//! The power is cut at every failpoint that Global's code names, in every way.

use super::images::{SURVIVALS, Tally, cut};
use super::life::Life;
use dstore_sys::disk::{Replay, SimDisk};
use dstore_sys::failpoints::{disarm, watch};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// Moments at which nothing of Global's own disk is under way, or that need Locals or another level: processes are
/// ended there.
const ELSEWHERE: [&str; 8] = [
    "global::lease::after_grant",
    "global::lease::before_grant",
    "global::relaxed::after_fsync",
    "global::relaxed::before_fsync",
    "global::session::after_ack",
    "global::session::after_hello",
    "global::session::before_ack",
    "global::session::before_hello",
];
/// Times at which a failpoint was reached that are looked at.
const HITS_MAX: usize = 1;

/// Every failpoint that the code below `dir` names.
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

/// When which failpoint was reached: the number of the disk, and its changes until then.
type Reached = BTreeMap<String, Vec<(usize, usize)>>;

async fn watched(seed: u64, steps: usize, names: &BTreeSet<String>) -> (Life, Reached) {
    let reached = Arc::new(Mutex::new(Reached::new()));
    let now = Arc::new(Mutex::new((0, SimDisk::new())));
    // Other tests of this process reach failpoints too.
    let me = std::thread::current().id();
    for name in names {
        let (reached, now, key) = (reached.clone(), now.clone(), name.clone());
        let note = move || {
            if std::thread::current().id() == me {
                let (span, disk) = &*now.lock();
                reached.lock().entry(key.clone()).or_default().push((span - 1, disk.op_count()));
            }
        };
        watch(name, note).expect("known to be right");
    }
    let life = Life::live(seed, steps, |disk| {
        let mut now = now.lock();
        *now = (now.0 + 1, disk.clone());
    })
    .await;
    names.iter().for_each(|name| disarm(name));
    let reached = std::mem::take(&mut *reached.lock());
    (life, reached)
}

/// Some moments of each failpoint, in order, and which of them each is of.
fn chosen(reached: Reached) -> BTreeMap<(usize, usize), Vec<String>> {
    let mut moments: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for (name, hits) in reached {
        for at in hits.iter().step_by(hits.len().div_ceil(HITS_MAX)) {
            moments.entry(*at).or_default().push(name.clone());
        }
    }
    moments
}

#[tokio::test(start_paused = true)]
async fn a_power_cut_at_every_failpoint_of_global_loses_nothing_acknowledged() {
    let mut names = BTreeSet::new();
    named_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut names);
    names.retain(|name| name.starts_with("global::"));
    assert!(names.len() >= 30, "{} failpoints", names.len());
    let (mut tally, mut seen) = (Tally::default(), BTreeMap::<String, usize>::new());
    for seed in [4, 9] {
        println!("seed {seed}");
        let (life, reached) = watched(seed, 60, &names).await;
        let mut walks: Vec<Option<Replay>> = life.spans.iter().map(|_| None).collect();
        for (at, names) in chosen(reached) {
            let mut walk = walks[at.0].take().unwrap_or_else(|| life.spans[at.0].disk.replay());
            for kind in 0..SURVIVALS.len() {
                let n = at.1 * SURVIVALS.len() + kind;
                cut(&life, at, n, &mut walk, &mut tally).await;
                names.iter().for_each(|name| *seen.entry(name.clone()).or_default() += 1);
            }
            walks[at.0] = Some(walk);
        }
    }
    for (name, images) in &seen {
        println!("{images:4} images at {name}");
    }
    println!("{} failpoints, {} images: {tally:?}", seen.len(), tally.count());
    let missed: BTreeSet<_> = names
        .iter()
        .filter(|name| !seen.contains_key(*name) && !ELSEWHERE.contains(&name.as_str()))
        .collect();
    assert!(missed.is_empty(), "never reached: {missed:?}");
    assert!(ELSEWHERE.iter().all(|name| names.contains(*name)), "the list names what is not there");
}
