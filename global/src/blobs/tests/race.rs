//! Uploads, deduplication, reads and unlinks of the same few blobs, all at once.

use super::*;
use crate::committer::{Done, Work};
use crate::{EngineKind, Global, GlobalConfig, sweep};
use dstore_proto::store::Body;
use dstore_sys::rng::{Rng, SeededRng};
use dstore_sys::tasks::{Blocking, Tasks};
use std::collections::VecDeque;
use std::time::Duration;

const ROUNDS: usize = 150;
const WORKERS: u64 = 8;

/// What a worker holds pinned must be readable, whatever the others do.
async fn assert_readable(blobs: &Blobs, all: &Bytes, what: &str) {
    let read = get(blobs, BlobHash::of(all), all.len()).await;
    let read = read.expect(what).unwrap_or_else(|| panic!("{what}: a pinned blob is gone"));
    assert!(read == *all, "{what}: other bytes");
}

async fn work(blobs: Blobs, seed: u64, contents: Arc<Vec<Bytes>>) {
    let rng = SeededRng::new(seed);
    for _ in 0..ROUNDS {
        let all = &contents[rng.next_u64() as usize % contents.len()];
        let hash = BlobHash::of(all);
        match rng.next_u64() % 8 {
            0..=2 => {
                let staged = put(&blobs, all).await;
                assert_readable(&blobs, all, "just staged").await;
                assert!(!blobs.unlink(hash, unknown).await.expect("refused"), "pinned by its upload");
                assert_readable(&blobs, all, "still pinned").await;
                drop(staged);
            }
            3 | 4 => {
                if let Some(held) = blobs.contains(hash).await.expect("looked") {
                    assert_eq!(held.size, all.len() as u64);
                    assert_readable(&blobs, all, "deduplicated").await;
                    drop(held);
                }
            }
            5 => {
                // Gone or whole, never anything between.
                let read = get(&blobs, hash, all.len()).await.expect("readable");
                assert!(read.is_none_or(|read| read == *all));
            }
            _ => _ = blobs.unlink(hash, unknown).await.expect("no error"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pinned_blob_survives_any_race_of_uploads_and_unlinks() {
    let seed = std::env::var("DSTORE_SEED").ok().and_then(|s| s.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| dstore_sys::rng::OsRng.next_u64() >> 16);
    println!("DSTORE_SEED={seed}");
    let (dir, blobs) = fresh().await;
    let contents: Arc<Vec<Bytes>> =
        Arc::new([17_000, 70_000, 300_000, 1_200_000].iter().map(|size| bytes(*size, 1)).collect());
    let (tasks, failed) = (Tasks::new(), Arc::new(AtomicU64::new(WORKERS)));
    for worker in 0..WORKERS {
        let (blobs, contents, failed) = (blobs.clone(), contents.clone(), failed.clone());
        tasks.spawn_graceful(async move {
            work(blobs, seed ^ worker, contents).await;
            failed.fetch_sub(1, Ordering::SeqCst);
        });
    }
    tasks.stop().await;
    assert_eq!(failed.load(Ordering::SeqCst), 0, "workers that panicked, seed {seed}");
    while blobs.stats().pinned > 0 {
        tokio::task::yield_now().await; // read-ahead that had begun
    }
    for all in contents.iter() {
        let hash = BlobHash::of(all);
        assert!(blobs.unlink(hash, unknown).await.expect("removed"));
        assert!(!RealDisk.exists(&blobs.0.layout.blob(&hash)).expect("looked"));
    }
    blobs.close().await;
    let stats = blobs.stats();
    assert_eq!((stats.staged_files, stats.staged_bytes, stats.corrupt_reads), (0, 0, 0));
    assert_eq!(stats.placed_files, stats.unlinked_files);
    assert!(stats.dedup_hits > 0 && stats.unlinked_files > 4, "the race was none: {stats:?}");
    assert_eq!(staging_of(&dir), Vec::<String>::new());
}

/// A Global in virtual time where each job takes ten milliseconds.
async fn slow_global() -> (TempDir, Global) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let blocking = Blocking::Inline { latency: Duration::from_millis(10) };
    let config = GlobalConfig { engine: EngineKind::Memory, min_free: 0, ..GlobalConfig::new(dir.path()) };
    let global = Global::start(Sys { blocking, ..Sys::real() }, config).await.expect("started");
    (dir, global)
}

/// The interleaving that a check before the lock would miss: looked, not known -> kept again by somebody who
/// found the file, and unpinned -> removed.
#[tokio::test(start_paused = true)]
async fn a_blob_that_is_kept_again_while_its_removal_waits_for_the_lock_keeps_its_file() {
    let (_dir, global) = slow_global().await;
    let authority = global.authority().clone();
    let all = bytes(70_000, 7);
    let body = Body::Bytes(all.clone()).into_stream();
    let (hash, size) = authority.take_blob(None, body).await.expect("kept");
    let swept = authority.commit(Work::Sweep { hash, before_ms: u64::MAX }).await.expect("swept");
    assert!(matches!(swept, Done::Swept { file: true }), "{swept:?}");

    let lock = authority.blobs.0.locks.lock(&hash).await;
    let (tasks, remover) = (Tasks::new(), authority.clone());
    tasks.spawn_graceful(async move { sweep::remove(&remover, hash, &mut VecDeque::new()).await });
    // Virtual time: it has got as far as it can.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let pin = authority.blobs.pin(hash).expect("room");
    authority.commit(Work::Keep { hash, size, carried: None }).await.expect("kept again");
    drop((pin, lock));
    tasks.stop().await;

    assert!(authority.catalog.blob(&hash).expect("looked").is_some(), "it is known again");
    let read = get(&authority.blobs, hash, all.len()).await.expect("readable");
    assert!(read.expect("its file is there") == all);
    drop(authority);
    global.stop().await.expect("stopped");
}

/// Whoever uploads may hang up at any moment, also when the journal is just being told of the file.
#[tokio::test(start_paused = true)]
async fn a_file_stays_while_the_journal_is_told_of_it_though_the_uploader_is_gone() {
    let (_dir, global) = slow_global().await;
    let authority = global.authority().clone();
    let mut kept_after_all = 0;
    for patience in 1..100 {
        let all = bytes(70_000, patience);
        let (hash, body) = (BlobHash::of(&all), Body::Bytes(all.clone()).into_stream());
        let upload = authority.take_blob(None, body);
        let gone = tokio::time::timeout(Duration::from_millis(patience), upload).await.is_err();
        let catalog = authority.catalog.clone();
        let known = |hash: &BlobHash| !matches!(catalog.blob(hash), Ok(None));
        let _ = authority.blobs.unlink_locked(&hash, known).expect("no error");
        tokio::time::sleep(Duration::from_secs(1)).await;
        if known(&hash) {
            kept_after_all += u32::from(gone);
            let read = get(&authority.blobs, hash, all.len()).await.expect("readable");
            assert!(read.is_some_and(|read| read == all), "known without a file, after {patience} ms");
        }
    }
    assert!(kept_after_all > 0, "nobody went away while the journal was told");
    drop(authority);
    global.stop().await.expect("stopped");
}
