//! Calls about many names, through both tiers, while the names change.

use crate::rig::{get, global, local, machine, name, set};
use dstore_local::Local;
use dstore_proto::store::{FoundMany, Store, Tier};
use dstore_shared::{BlobHash, CopyResult};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const LEASE: Duration = Duration::from_secs(2);
/// Every so many-eth value is too large to be carried, and fetched.
const LARGE_EVERY: usize = 7;

/// What was seen of two names, by how many are bound.
#[derive(Default)]
struct Seen([AtomicUsize; 3], AtomicUsize);

fn value(round: usize) -> Vec<u8> {
    let len = if round.is_multiple_of(LARGE_EVERY) { 70_000 } else { 8 };
    let mut value = vec![0; len];
    value[..8].copy_from_slice(&(round as u64).to_le_bytes());
    value
}

async fn round_of(all: FoundMany, seen: &Seen) -> [Option<u64>; 2] {
    let mut rounds = [None; 2];
    for (found, round) in all.found.into_iter().zip(&mut rounds) {
        let Some(found) = found else { continue };
        assert!(found.entry.bind_rev <= all.revision, "{:?} as of {:?}", found.entry, all.revision);
        seen.1.fetch_add(usize::from(found.from.tier == Tier::Local), Ordering::Relaxed);
        let bytes = found.body.collect(1 << 20).await.expect("the bytes");
        assert_eq!(BlobHash::of(&bytes), found.entry.hash);
        *round = Some(u64::from_le_bytes(bytes[..8].try_into().expect("eight")));
    }
    seen.0[rounds.iter().flatten().count()].fetch_add(1, Ordering::Relaxed);
    rounds
}

/// Reads two names over and over, by each of the calls.
async fn look(
    local: Arc<Local>,
    keys: [&'static str; 2],
    done: Arc<AtomicBool>,
    seen: Arc<Seen>,
    allowed: fn([bool; 2]) -> bool,
) {
    let names: Vec<_> = keys.iter().map(|key| name(*key)).collect();
    while !done.load(Ordering::SeqCst) {
        // Hits wait for nothing, and the Local's own tasks have to run too.
        tokio::task::yield_now().await;
        match local.node().get_many(names.clone()).await {
            Ok(all) => {
                let revision = all.revision;
                let rounds = round_of(all, &seen).await;
                assert!(allowed(rounds.map(|round| round.is_some())), "half: {rounds:?} as of {revision}");
                if let [Some(first), Some(second)] = rounds {
                    assert_eq!(first, second, "of two rounds, as of {revision}");
                }
            }
            Err(e) => panic!("{e}"),
        }
        // One name of the two is held more often than both.
        let _ = get(&local, keys[0]).await.expect("answered");
        let exists = local.node().exists(names.clone()).await.expect("answered");
        assert!(allowed([exists[0], exists[1]]), "half: {exists:?}");
        let _ = get(&local, keys[1]).await.expect("answered");
        let stats = local.node().stat_many(names.clone()).await.expect("answered").stats;
        let stats = [stats[0].is_some(), stats[1].is_some()];
        assert!(allowed(stats), "half: {stats:?}");
    }
}

/// Runs `storm` at one Local while two others and itself look, and gives what they saw.
async fn watched(
    keys: [&'static str; 2],
    allowed: fn([bool; 2]) -> bool,
    storm: impl AsyncFnOnce(&Local),
) -> Arc<Seen> {
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    let global = global(&sys, dir.path(), LEASE).await;
    let locals = [Arc::new(local(&sys).await), Arc::new(local(&sys).await)];
    let (done, seen) = (Arc::new(AtomicBool::new(false)), Arc::<Seen>::default());
    // A first value, so that nobody looks at nothing.
    let mut looking = Vec::new();
    for i in 0..4 {
        let at = locals[i % 2].clone();
        looking.push(tokio::spawn(look(at, keys, done.clone(), seen.clone(), allowed)));
    }
    storm(&locals[0]).await;
    done.store(true, Ordering::SeqCst);
    for look in looking {
        look.await.expect("nobody saw half");
    }
    for local in locals {
        Arc::into_inner(local).expect("nobody else has it").stop().await;
    }
    global.stop().await.expect("a clean stop");
    seen
}

fn counts(seen: &Seen) -> ([usize; 3], usize) {
    ([0, 1, 2].map(|n| seen.0[n].load(Ordering::Relaxed)), seen.1.load(Ordering::Relaxed))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_half_of_a_delete_of_two_names() {
    // The first is set first, and both are deleted at once.
    let allowed = |[first, second]: [bool; 2]| first || !second;
    let seen = watched(["half/1", "half/2"], allowed, async |writer| {
        for round in 0..400 {
            set(writer, "half/1", value(round)).await.expect("set");
            set(writer, "half/2", value(round)).await.expect("set");
            // Until others hold them.
            tokio::time::sleep(Duration::from_millis(round as u64 % 3)).await;
            let id = writer.node().request_id().await.expect("an id");
            writer.node().delete(id, vec![name("half/1"), name("half/2")]).await.expect("deleted");
        }
    })
    .await;
    let (by_number, hits) = counts(&seen);
    println!("seen none, one, both: {by_number:?}; hits: {hits}");
    assert!(by_number[0] > 0 && by_number[2] > 0 && hits > 0, "{by_number:?}, {hits} hits");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_sees_a_renamed_value_under_both_names_or_under_neither() {
    static BEGUN: AtomicBool = AtomicBool::new(false);
    let allowed = |[first, second]: [bool; 2]| first != second || !BEGUN.load(Ordering::SeqCst);
    let seen = watched(["from", "to"], allowed, async |writer| {
        set(writer, "from", value(0)).await.expect("set");
        tokio::time::sleep(Duration::from_millis(20)).await;
        BEGUN.store(true, Ordering::SeqCst);
        for round in 0..400 {
            let (from, to) = if round % 2 == 0 { ("from", "to") } else { ("to", "from") };
            tokio::time::sleep(Duration::from_millis(round % 3)).await;
            let id = writer.node().request_id().await.expect("an id");
            let renamed = writer.node().rename(id, name(from), name(to)).await.expect("answered");
            assert!(matches!(renamed.result, CopyResult::Done(_)), "round {round}: {renamed:?}");
            assert!(writer.node().hit(&name(from)).is_none(), "its old name is held nowhere");
        }
    })
    .await;
    let (by_number, hits) = counts(&seen);
    println!("seen none, one, both: {by_number:?}; hits: {hits}");
    assert!(by_number[1] > 200 && hits > 0, "{by_number:?}, {hits} hits");
}
