//! The power is cut at every moment of a life, with what was not synced lost, torn at 512 bytes and 4 KiB, kept in
//! part or reordered: recovery must give the state of one revision, no older than what was acknowledged.

use super::given;
use super::life::{self, Bound, Life, read, set, start, sys};
use crate::inspect::{InspectConfig, inspect};
use crate::{Global, GlobalConfig};
use bytes::Bytes;
use dstore_proto::IdSource;
use dstore_proto::store::{ListQuery, Store};
use dstore_shared::{Namespace, Revision};
use dstore_sys::disk::{Replay, SimDisk, Survival};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What survives, in turn.
pub(super) const SURVIVALS: [Survival; 6] = [
    Survival::Nothing,
    Survival::Sectors { bytes: 512 },
    Survival::Writes,
    Survival::Sectors { bytes: 4096 },
    Survival::Prefix,
    Survival::Everything,
];

/// Revisions that Global may use for work of its own, which is sweeping, between a look at its head and its end.
const OWN_WORK: u64 = 64;

/// How much was looked at.
#[derive(Default, Debug)]
pub(super) struct Tally {
    /// Images of each kind.
    images: BTreeMap<String, usize>,
    /// Images of a recovery that was cut short itself, or of the first steps after one.
    again: usize,
    values_read: usize,
    /// Images in which changes were there that nobody had been told of, or not.
    in_flight: usize,
    lost_in_flight: usize,
}

impl Tally {
    pub(super) fn count(&self) -> usize {
        self.images.values().sum::<usize>() + self.again
    }
}

/// Everything that is bound.
pub(super) async fn served<S: Store>(store: &S) -> Bound {
    let query = ListQuery { namespace: Namespace::default(), prefix: Bytes::new(), after: None, limit: 1000 };
    let listing = store.list(query).await.expect("listed");
    assert!(listing.next.is_none(), "all of them");
    let key = |key: &dstore_shared::Key| String::from_utf8(key.as_bytes().to_vec()).expect("text");
    listing.names.iter().map(|(name, entry)| (key(name), entry.hash)).collect()
}

/// What an image must have.
#[derive(Clone, Copy)]
struct Promise<'a> {
    life: &'a Life,
    span: usize,
    /// At least this was acknowledged.
    least: Revision,
    /// Whatever the life did, it did up to here; what is newer is Global's own work.
    most: Revision,
}

/// Opens an image, and compares it with what was promised.
async fn recover(
    promise: Promise<'_>,
    image: &SimDisk,
    draw: u64,
    tally: &mut Tally,
    text: &str,
) -> (Global, Revision) {
    let Promise { life, span, least, most } = promise;
    let global = start(image, life.seed, draw).await.unwrap_or_else(|e| panic!("{text}: {e}"));
    let head = global.authority().catalog.head();
    assert!(head >= least, "{text}: {head} lacks acknowledged changes up to {least}");
    assert!(head.0 <= most.0 + OWN_WORK, "{text}: {head} was never written, only up to {most}");
    let state = life.state(span, head.min(most));
    let store = global.store();
    assert_eq!(served(&*store).await, state, "{text}: at {head}");
    for (key, hash) in &state {
        let found = read(&*store, key).await.unwrap_or_else(|e| panic!("{text}: `{key}`: {e}"));
        assert_eq!(found, Some(*hash), "{text}: `{key}`");
        tally.values_read += 1;
    }
    (global, head)
}

/// Whether `dstore check` finds nothing that a start would not mend.
fn is_sound(image: &SimDisk, text: &str) {
    if !dstore_sys::disk::Disk::exists(image, Path::new("/data/meta")).expect("looked") {
        return;
    }
    let config = InspectConfig { data: "/data".into(), temp: std::env::temp_dir(), deep: true, min_free: 0 };
    let report = inspect(&sys(image, 1), &config).unwrap_or_else(|e| panic!("{text}: {e}"));
    assert!(report.faults.is_empty(), "{text}: {:?}", report.faults);
}

/// The files of blobs.
fn files(disk: &SimDisk) -> BTreeSet<PathBuf> {
    let all = disk.files().into_iter().map(|(path, _)| path);
    all.filter(|path| path.starts_with("/data/blobs")).collect()
}

/// What no name leads to goes, with its space, and what one leads to stays.
async fn leaves_no_file_behind(global: Global, disk: &SimDisk, config: &GlobalConfig, text: &str) {
    assert_eq!(config.sweep_grace, Duration::ZERO, "nobody waits for an hour");
    let named: BTreeSet<PathBuf> = served(&*global.store())
        .await
        .values()
        .map(|hash| {
            let text = hash.to_string();
            Path::new("/data/blobs").join(&text[..2]).join(&text[2..])
        })
        .collect();
    let mut left = BTreeSet::new();
    for _ in 0..400 {
        left = files(disk).difference(&named).cloned().collect();
        if left.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(left.is_empty(), "{text}: {left:?} have no name and stay");
    let _ = global.stop().await;
}

/// What is acknowledged after a recovery survives the next crash, whatever the recovery left unsynced.
async fn goes_on(global: Global, life: &Life, image: &SimDisk, draw: u64, tally: &mut Tally, text: &str) {
    let value = Bytes::from(vec![9; 80_000]);
    let stored = set(&*global.store(), "after", value).await.expect("a sound disk");
    assert!(stored.is_some(), "{text}: it was free");
    let mut expected = served(&*global.store()).await;
    if let Some(first) = expected.keys().next().cloned().filter(|key| key != "after") {
        let store = global.store();
        let id = store.next_id().expect("an id");
        store.delete(id, vec![life::name(&first)]).await.expect("deleted");
        expected.remove(&first);
    }
    let later = image.crash(Survival::Nothing, 1);
    let _ = global.stop().await;
    let global =
        start(&later, life.seed, draw ^ 1 << 62).await.unwrap_or_else(|e| panic!("{text}, and later: {e}"));
    let store = global.store();
    assert_eq!(served(&*store).await, expected, "{text}, and later");
    for (key, hash) in &expected {
        assert_eq!(read(&*store, key).await.expect("read"), Some(*hash), "{text}, and later: `{key}`");
    }
    drop(store);
    let _ = global.stop().await;
    tally.again += 1;
}

/// Cuts the power of a span after `op` changes, for the `n`th time.
pub(super) async fn cut(
    life: &Life,
    (span, op): (usize, usize),
    n: usize,
    walk: &mut Replay,
    tally: &mut Tally,
) {
    let survival = SURVIVALS[n % SURVIVALS.len()];
    let text = format!("seed {}, span {span}, after {op} changes, {survival:?}", life.seed);
    let image = walk.crash_at(op, survival, n as u64);
    let (least, most) = (life.spans[span].promised(op), life.spans[span].newest);
    let promise = Promise { life, span, least, most };
    let draw = life.seed << 48 | (n as u64) << 8;
    if n.is_multiple_of(7) {
        is_sound(&image, &text);
    }
    image.record(64 << 20);
    let (global, head) = recover(promise, &image, draw, tally, &text).await;
    *tally.images.entry(format!("{survival:?}")).or_default() += 1;
    tally.in_flight += usize::from(head > promise.least);
    tally.lost_in_flight += usize::from(head < promise.most);
    match n % 5 {
        0 => goes_on(global, life, &image, draw, tally, &text).await,
        1 => {
            // The power goes again within the recovery, or within the stop after it.
            let _ = global.stop().await;
            let (first, last) = image.moments().into_inner();
            let within = first + (n.wrapping_mul(7919) % (last - first + 1));
            let twice = image.crash_at(within, SURVIVALS[n / 5 % SURVIVALS.len()], n as u64);
            let text = format!("{text}, and again after {} of {}", within - first, last - first);
            let promise = Promise { most: head, ..promise };
            let (global, _) = recover(promise, &twice, draw | 1, tally, &text).await;
            let _ = global.stop().await;
            tally.again += 1;
        }
        2 if life.seed % 4 < 2 => {
            leaves_no_file_behind(global, &image, &life::config(life.seed), &text).await;
        }
        _ => _ = global.stop().await,
    }
}

/// Lives that are looked at in `cargo test`, and every how many-eth moment of them; each quarter is a test, so that
/// they run beside each other. All moments of more lives take minutes.
const LIVES: u64 = 4;
const STRIDE: u64 = 3;
const STEPS: usize = 40;
/// Images of a life, if every moment is looked at, that are the least to mean anything.
const FLOOR: u64 = 500;

async fn quarter(quarter: u64) {
    let (first, count) = (given("DSTORE_CRASH_SEED", 1), given("DSTORE_CRASH_LIVES", LIVES));
    let stride = given("DSTORE_CRASH_STRIDE", STRIDE);
    let lives = (first..first + count).filter(|seed| seed % 4 == quarter);
    let least = lives.clone().count() as u64 * FLOOR / stride;
    let (mut tally, mut changes) = (Tally::default(), 0);
    for seed in lives {
        println!("DSTORE_CRASH_SEED={seed}");
        let life = Life::live(seed, STEPS, |_| {}).await;
        changes += life.changes;
        let mut n = seed as usize;
        for span in 0..life.spans.len() {
            let mut walk = life.spans[span].disk.replay();
            for op in life.spans[span].disk.moments().step_by(stride as usize) {
                n += 1;
                cut(&life, (span, op), n, &mut walk, &mut tally).await;
            }
        }
    }
    println!("{} images of {changes} changes: {tally:?}", tally.count());
    assert!(tally.count() as u64 >= least, "fewer than {least}: {tally:?}");
    assert!(SURVIVALS.iter().all(|s| tally.images.contains_key(&format!("{s:?}"))), "{tally:?}");
    assert!(tally.in_flight > 0 && tally.lost_in_flight > 0, "{tally:?}");
}

#[tokio::test(start_paused = true)]
async fn a_power_cut_at_any_moment_of_a_whole_global_keeps_what_was_acknowledged() {
    quarter(0).await;
}

#[tokio::test(start_paused = true)]
async fn a_power_cut_at_any_moment_of_a_whole_global_keeps_what_was_acknowledged_second_quarter() {
    quarter(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_power_cut_at_any_moment_of_a_whole_global_keeps_what_was_acknowledged_third_quarter() {
    quarter(2).await;
}

#[tokio::test(start_paused = true)]
async fn a_power_cut_at_any_moment_of_a_whole_global_keeps_what_was_acknowledged_fourth_quarter() {
    quarter(3).await;
}
