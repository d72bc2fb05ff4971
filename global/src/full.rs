//! A whole Global on a disk that fills up, and the sweep under load, on a simulated disk.

use crate::{EngineKind, Global, GlobalConfig};
use bytes::Bytes;
use dstore_proto::IdSource;
use dstore_proto::store::{Body, Slice, Store, Target};
use dstore_shared::{BlobHash, Error, Kind, Moment, Name, Result, SetOutcome};
use dstore_sys::Sys;
use dstore_sys::clock::{BootClock, Clock, TokioClock};
use dstore_sys::disk::{Call, Disk, Fault, SimDisk};
use dstore_sys::rng::{Rng, SeededRng};
use dstore_sys::tasks::{Blocking, Tasks};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const MIB: u64 = 1 << 20;

async fn start(disk: &SimDisk, blocking: Blocking, min_free: u64) -> Global {
    start_with(disk, blocking, |config| config.min_free = min_free).await
}

async fn start_with(disk: &SimDisk, blocking: Blocking, set_up: impl FnOnce(&mut GlobalConfig)) -> Global {
    let clock = Arc::new(TokioClock::new(Moment::ZERO, 1_000_000));
    let sys = Sys { blocking, clock, disk: Arc::new(disk.clone()), ..Sys::real() };
    let mut config = GlobalConfig {
        engine: EngineKind::Memory,
        sweep_grace: Duration::ZERO,
        ..GlobalConfig::new("/data")
    };
    set_up(&mut config);
    Global::start(sys, config).await.expect("started")
}

fn name(key: impl Into<String>) -> Name {
    Name::of(key.into()).expect("a valid key")
}

async fn set<S: Store + IdSource>(store: &S, key: &str, value: &[u8]) -> Result<SetOutcome> {
    let body = Body::Bytes(Bytes::copy_from_slice(value));
    Ok(store.set(store.next_id()?, Some(name(key)), body).await?.outcome)
}

async fn delete<S: Store + IdSource>(store: &S, key: &str) -> Result<bool> {
    Ok(store.delete(store.next_id()?, vec![name(key)]).await?.removed[0])
}

async fn get<S: Store>(store: &S, key: &str) -> Result<Option<BlobHash>> {
    let Some(found) = store.get(Target::Name(name(key)), Slice::ALL).await? else { return Ok(None) };
    let bytes = found.body.collect(found.entry.size).await?;
    assert!(BlobHash::of(&bytes) == found.entry.hash, "other bytes than were named");
    Ok(Some(found.entry.hash))
}

async fn space<S: Store>(store: &S) -> String {
    let facts = store.status().await.expect("answered").facts;
    facts.into_iter().find(|(name, _)| name == "space").expect("told").1
}

/// Small, in the index; and large, in a file.
fn value(n: u64) -> Vec<u8> {
    let len = if n.is_multiple_of(2) { 40_000 } else { 700_000 };
    SeededRng::new(n).next_u64().to_le_bytes().repeat(len / 8)
}

fn full(e: &Error) -> bool {
    e.kind() == Kind::Exhausted && e.delay().is_some()
}

#[tokio::test(start_paused = true)]
async fn on_a_full_disk_dels_go_on_and_with_their_space_sets_come_back_by_themselves() {
    let disk = SimDisk::default();
    disk.set_budget(Some(240 * MIB));
    let blocking = Blocking::Inline { latency: Duration::from_millis(1) };
    let mut global = start(&disk, blocking, 32 * MIB).await;
    for round in 0..2 {
        let (store, mut stored, mut refused) = (global.store(), Vec::new(), 0);
        for n in round * 1000.. {
            match set(&*store, &format!("k{n}"), &value(n)).await {
                Ok(outcome) => {
                    assert!(matches!(outcome, SetOutcome::Stored(_)), "{outcome:?}");
                    stored.push(n);
                }
                Err(e) => {
                    assert!(full(&e), "{e:?}");
                    assert_eq!(
                        get(&*store, &format!("k{n}")).await.expect("answered"),
                        None,
                        "nothing of it"
                    );
                    refused += 1;
                }
            }
            if refused == 20 {
                break;
            }
        }
        assert!(stored.len() > 20, "it did not begin full: {stored:?}");
        let free = disk.free_bytes(Path::new("/data")).expect("told");
        assert!(free >= 30 * MIB, "what SETs leave is left: {free}");
        // The watch looks once a second.
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(space(&*store).await.starts_with("low: "), "{}", space(&*store).await);
        assert!(store.status().await.expect("answered").serving);
        // Somebody else takes the rest.
        disk.set_budget(Some(240 * MIB - free));
        for n in &stored {
            assert_eq!(get(&*store, &format!("k{n}")).await.expect("read"), Some(BlobHash::of(&value(*n))));
            assert!(delete(&*store, &format!("k{n}")).await.expect("a DEL goes on"), "{n}");
        }
        disk.set_budget(Some(240 * MIB));
        let mut tries = 0;
        while let Err(e) = set(&*store, "after", &value(1)).await {
            assert!(full(&e) && tries < 100, "{e:?}, {tries}");
            tries += 1;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        tokio::time::sleep(Duration::from_secs(12)).await;
        assert_eq!(space(&*store).await, "enough");
        assert!(delete(&*store, "after").await.expect("deleted"));
        drop(store);
        global.stop().await.expect("a clean stop");
        global = start(&disk, blocking, 32 * MIB).await;
    }
    global.stop().await.expect("a clean stop");
}

#[tokio::test(start_paused = true)]
async fn a_failed_fsync_acknowledges_nothing_and_no_set_or_del_is_taken_after_it() {
    let disk = SimDisk::default();
    let global = start(&disk, Blocking::Inline { latency: Duration::from_millis(1) }, 0).await;
    let store = global.store();
    set(&*store, "before", b"1").await.expect("stored");
    disk.inject(Fault::next(Call::Sync).at(".journal"));
    let e = set(&*store, "doubtful", b"2").await.expect_err("its fsync failed");
    assert!(e.kind() == Kind::Unavailable && e.message().starts_with("outcome unknown"), "{e:?}");
    for key in ["doubtful", "later"] {
        assert_eq!(set(&*store, key, b"3").await.expect_err("poisoned").kind(), Kind::Unavailable);
        assert_eq!(delete(&*store, "before").await.expect_err("poisoned").kind(), Kind::Unavailable);
    }
    assert_eq!(get(&*store, "before").await.expect("reads go on"), Some(BlobHash::of(b"1")));
    assert_eq!(get(&*store, "doubtful").await.expect("reads go on"), None, "not visible");
    assert!(!store.status().await.expect("answered").serving);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_between_appends_fails_the_store_aloud_and_not_each_change_for_ever() {
    let disk = SimDisk::default();
    let blocking = Blocking::Inline { latency: Duration::from_millis(1) };
    let small = |config: &mut GlobalConfig| (config.min_free, config.segment_bytes) = (0, MIB);
    let global = start_with(&disk, blocking, small).await;
    let store = global.store();
    // A segment in reserve is made when one is taken, not by a change.
    disk.inject(Fault::next(Call::SyncDir).at("journal"));
    let mut refused = None;
    for n in 0..100 {
        if let Err(e) = set(&*store, &format!("k{n}"), &value(2 * n)).await {
            refused = Some(e);
            break;
        }
    }
    assert_eq!(refused.map(|e| e.kind()), Some(Kind::Unavailable), "the fault was met");
    tokio::time::timeout(Duration::from_secs(1), global.failed())
        .await
        .expect("the store has failed, and says so");
    assert!(!store.status().await.expect("answered").serving);
}

/// Sets and deletes names of the same few blobs, and looks that what it set is there until it deletes it.
async fn churn<S: Store + IdSource>(store: Arc<S>, me: u64, seed: u64, until: Moment) -> u64 {
    let (rng, mut made) = (SeededRng::new(seed), 0);
    while BootClock.now() < until {
        let (key, value) = (format!("w{me}"), value(rng.next_u64() % 6));
        let hash = BlobHash::of(&value);
        match set(&*store, &key, &value).await {
            Ok(SetOutcome::Stored(entry)) => assert_eq!(entry.hash, hash, "seed {seed}"),
            // Swept between its upload and its name: nothing was named.
            Err(e) if e.message().contains("swept meanwhile") => continue,
            other => panic!("seed {seed}: {other:?}"),
        }
        for _ in 0..rng.next_u64() % 4 {
            let found = get(&*store, &key).await;
            assert!(matches!(found, Ok(Some(found)) if found == hash), "seed {seed}: {found:?}");
        }
        assert!(delete(&*store, &key).await.expect("deleted"), "seed {seed}");
        made += 1;
    }
    made
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn while_the_same_blobs_are_set_and_deleted_the_sweep_takes_nothing_that_is_named_and_all_that_is_not()
{
    let seed = std::env::var("DSTORE_SEED").ok().and_then(|s| s.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| dstore_sys::rng::OsRng.next_u64() >> 16);
    println!("DSTORE_SEED={seed}");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = GlobalConfig {
        engine: EngineKind::preferred(),
        min_free: 0,
        sweep_grace: Duration::ZERO,
        ..GlobalConfig::new(dir.path())
    };
    let global = Global::start(Sys::real(), config).await.expect("started");
    let store = global.store();
    let (tasks, made) = (Tasks::new(), Arc::new(AtomicU64::new(0)));
    let until = BootClock.now() + Duration::from_secs(3);
    let ended = Arc::new(AtomicU64::new(0));
    for me in 0..8 {
        let (store, made, ended) = (store.clone(), made.clone(), ended.clone());
        tasks.spawn_graceful(async move {
            made.fetch_add(churn(store, me, seed ^ me, until).await, Ordering::SeqCst);
            ended.fetch_add(1, Ordering::SeqCst);
        });
    }
    tasks.stop().await;
    assert_eq!(ended.load(Ordering::SeqCst), 8, "workers that panicked, seed {seed}");
    let swept = global.authority().blobs.stats().unlinked_files;
    // Every name is gone, so every blob goes, and every file.
    for round in 0.. {
        let left = (0..6).map(|n| BlobHash::of(&value(n)));
        let left = left.filter(|hash| !matches!(global.authority().catalog.blob(hash), Ok(None))).count();
        let files = files(&dir.path().join("blobs"));
        if (left, files) == (0, 0) {
            break;
        }
        assert!(round < 200, "{left} blobs and {files} files are left, seed {seed}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let made = made.load(Ordering::SeqCst);
    println!("{made} times set and deleted, {swept} files swept meanwhile");
    assert!(made > 50 && swept > 5, "a storm: {made} made, {swept} swept, seed {seed}");
    drop(store);
    global.stop().await.expect("a clean stop");
}

fn files(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.map(|path| if path.is_dir() { files(&path) } else { 1 }).sum()
}
