//! Uploads, deduplication, reads and unlinks of the same few blobs, all at once.

use super::*;
use dstore_sys::rng::{Rng, SeededRng};
use dstore_sys::tasks::Tasks;

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
                assert!(!blobs.unlink(hash).await.expect("refused"), "pinned by its upload");
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
            _ => _ = blobs.unlink(hash).await.expect("no error"),
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
        assert!(blobs.unlink(hash).await.expect("removed"));
        assert!(!RealDisk.exists(&blobs.0.layout.blob(&hash)).expect("looked"));
    }
    blobs.close().await;
    let stats = blobs.stats();
    assert_eq!((stats.staged_files, stats.staged_bytes, stats.corrupt_reads), (0, 0, 0));
    assert_eq!(stats.placed_files, stats.unlinked_files);
    assert!(stats.dedup_hits > 0 && stats.unlinked_files > 4, "the race was none: {stats:?}");
    assert_eq!(staging_of(&dir), Vec::<String>::new());
}
