//! Fetches that race with deletes: ten thousand rounds, after none of which anything stale is read.

use crate::rig::{global_with, local, machine, set};
use bytes::Bytes;
use dstore_local::Local;
use dstore_proto::store::{Slice, Store, Target};
use dstore_shared::{BlobHash, Kind, Name, SetOutcome};
use dstore_sys::rng::{OsRng, Rng, SeededRng};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Racers, each with a name of its own.
const RACERS: u64 = 16;
/// How often a SET may find its blob swept.
const SETS_MAX: usize = 50;
/// Values up to here travel with the answer; larger ones are fetched, which takes longer than a delete may.
const CARRIED: usize = 64 << 10;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum After {
    Delete,
    DeleteThenSet,
}

struct Racer {
    me: u64,
    rng: SeededRng,
    /// Fetch, fetch too, and change.
    locals: [Arc<Local>; 3],
    fetched: Arc<AtomicU64>,
}

/// The hash of what a GET finds, once all its bytes are here.
async fn read(local: &Local, name: &Name) -> Option<BlobHash> {
    let found = local.node().get(Target::Name(name.clone()), Slice::ALL).await.expect("answered")?;
    let bytes = found.body.collect(1 << 20).await.expect("the bytes");
    assert_eq!(BlobHash::of(&bytes), found.entry.hash, "whole");
    Some(found.entry.hash)
}

impl Racer {
    fn value(&self, round: u64, which: u8) -> Bytes {
        // One in eight is too large to be carried.
        let len = if self.rng.next_u64().is_multiple_of(8) { CARRIED + 4096 } else { 64 };
        let mut bytes = vec![which; len];
        bytes[..8].copy_from_slice(&self.me.to_le_bytes());
        bytes[8..16].copy_from_slice(&round.to_le_bytes());
        bytes.into()
    }

    /// Lets others run for a while, so that the race ends otherwise each time.
    async fn dawdle(&self, turns_max: u64) {
        for _ in 0..self.rng.next_u64() % turns_max {
            tokio::task::yield_now().await;
        }
    }

    async fn set(&self, key: &str, value: Bytes) {
        for _ in 0..SETS_MAX {
            match set(&self.locals[2], key, value.clone()).await {
                Ok(reply) => {
                    assert!(matches!(reply.outcome, SetOutcome::Stored(_)), "{reply:?}");
                    return;
                }
                // The grace is so short here that a blob may go before it has its name: then nothing was done.
                Err(e) => assert!(e.kind() == Kind::Unavailable && e.message().contains("swept"), "{e:?}"),
            }
        }
        panic!("swept {SETS_MAX} times");
    }

    async fn round(&self, round: u64, after: After) {
        let key = format!("race-{}", self.me);
        let name = crate::rig::name(&*key);
        let [near, far, changer] = &self.locals;
        let (old, new) = (self.value(round, 1), self.value(round, 2));
        let (was, is) = (BlobHash::of(&old), (after == After::DeleteThenSet).then(|| BlobHash::of(&new)));
        self.set(&key, old).await;
        let changed = AtomicU64::new(0);
        let fetch = async |local: &Local| {
            self.dawdle(120).await;
            let known = changed.load(Ordering::SeqCst);
            let found = read(local, &name).await;
            let legal = match known {
                // The GET began before the delete was acknowledged: anything of this round.
                0 => found.is_none() || found == Some(was) || found == is,
                1 => found.is_none() || found == is,
                _ => found == is,
            };
            assert!(legal, "racer {} round {round}: {found:?} after step {known}", self.me);
            self.fetched.fetch_add(u64::from(found == Some(was)), Ordering::SeqCst);
        };
        let change = async {
            self.dawdle(12).await;
            assert_eq!(crate::rig::delete(changer, &[&key]).await.expect("deleted"), [true]);
            changed.store(1, Ordering::SeqCst);
            if after == After::DeleteThenSet {
                self.dawdle(12).await;
                self.set(&key, new.clone()).await;
                changed.store(2, Ordering::SeqCst);
            }
        };
        tokio::join!(change, fetch(near), fetch(far), fetch(near));
        // What the race left in a cache would be served now.
        for local in &self.locals {
            assert_eq!(read(local, &name).await, is, "racer {} round {round} {after:?}", self.me);
        }
        if is.is_some() {
            assert_eq!(crate::rig::delete(changer, &[&key]).await.expect("deleted"), [true]);
            assert_eq!(read(near, &name).await, None);
        }
    }
}

async fn race(after: After, rounds: u64) {
    let seed = std::env::var("DSTORE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| OsRng.next_u64());
    eprintln!("{after:?}: DSTORE_SEED={seed}");
    let (sys, dir) = (machine(), tempfile::tempdir().expect("a directory"));
    // Blobs without a name are swept soon, under those who fetch them.
    let global = global_with(&sys, dir.path(), |config| {
        config.lease = Duration::from_secs(2);
        config.sweep_grace = Duration::from_millis(20);
    });
    let global = global.await;
    let locals = [local(&sys).await, local(&sys).await, local(&sys).await].map(Arc::new);
    let (rng, fetched) = (SeededRng::new(seed), Arc::new(AtomicU64::new(0)));
    let racers = (0..RACERS).map(|me| {
        let (rng, locals, fetched) = (SeededRng::new(rng.next_u64()), locals.clone(), fetched.clone());
        let racer = Racer { me, rng, locals, fetched };
        tokio::spawn(async move {
            for round in 0..rounds.div_ceil(RACERS) {
                racer.round(round, after).await;
            }
        })
    });
    for racer in racers.collect::<Vec<_>>() {
        racer.await.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    }
    let fetched = fetched.load(Ordering::SeqCst);
    eprintln!("{after:?}: {fetched} of {} racing fetches found the old value", 3 * rounds);
    assert!(fetched > rounds / 20 && fetched < 3 * rounds, "it was a race: {fetched}");
    for local in locals {
        Arc::into_inner(local).expect("the racers are gone").stop().await;
    }
    global.stop().await.expect("a clean stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stale_is_cached_by_five_thousand_fetches_that_race_with_a_delete() {
    race(After::Delete, 5_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stale_is_cached_by_five_thousand_fetches_that_race_with_a_delete_and_a_set() {
    race(After::DeleteThenSet, 5_000).await;
}
