//! Upkeep of blobs: sweeping those without a name, journaling marks of damage, adopting files that a crash left.
//!
//! A client of the authority like any other: what it removes was forgotten by a journaled command before.
//! It must never remove a file that the journal still knows.

use crate::authority::Authority;
use crate::committer::{Done, Work};
use dstore_shared::BlobHash;
use futures_util::StreamExt;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Blobs swept in one go.
const BATCH: usize = 256;
/// Files whose removal is tried again because they were pinned; beyond it a later start finds them.
const RETRIES_MAX: usize = 4096;
/// How long a round of sweeping waits at most for the next.
const ROUND_MAX: Duration = Duration::from_secs(60);
/// The pause after each directory when orphans are looked for.
const WALK_PAUSE: Duration = Duration::from_millis(50);

/// Sweeps for ever.
pub(crate) async fn sweep(authority: Arc<Authority>) {
    let round = (authority.sweep_grace / 4).clamp(Duration::from_millis(50), ROUND_MAX);
    let mut pinned = VecDeque::new();
    loop {
        tokio::time::sleep(authority.sys.rng.jitter(round)).await;
        // Checkpoints by time are due even when nobody writes.
        authority.nudge_committer();
        for _ in 0..pinned.len() {
            let Some(hash) = pinned.pop_front() else { break };
            remove(&authority, hash, &mut pinned).await;
        }
        while sweep_batch(&authority, &mut pinned).await == BATCH {}
    }
}

/// Sweeps up to [`BATCH`] blobs; gives how many there were to look at.
async fn sweep_batch(authority: &Arc<Authority>, pinned: &mut VecDeque<BlobHash>) -> usize {
    let grace_ms = authority.sweep_grace.as_millis() as u64;
    let catalog = authority.catalog.clone();
    let before_ms = catalog.journal_time().max(authority.sys.clock.wall_ms()).saturating_sub(grace_ms);
    let found = authority.sys.blocking.run(move || catalog.unnamed(before_ms, BATCH)).await;
    // A failed index has been reported by whoever met it first.
    let Ok(found) = found else { return 0 };
    let mut swept = 0;
    for hash in &found {
        match authority.commit(Work::Sweep { hash: *hash, before_ms }).await {
            Ok(Done::Swept { file }) => {
                swept += 1;
                if file {
                    remove(authority, *hash, pinned).await;
                }
            }
            Ok(_) => {}
            Err(_) => return 0,
        }
    }
    if swept > 0 {
        tracing::info!(swept, "blobs without a name were swept");
    }
    // Candidates that were not swept would be found again at once.
    if swept == found.len() { found.len() } else { 0 }
}

/// Removes a file whose sweep is durable, unless the blob has come back meanwhile.
pub(crate) async fn remove(authority: &Arc<Authority>, hash: BlobHash, pinned: &mut VecDeque<BlobHash>) {
    let store = authority.clone();
    // When the journal has failed, it may know of blobs that nobody can see before the next start.
    let known =
        move |hash: &BlobHash| store.failed().is_some() || !matches!(store.catalog.blob(hash), Ok(None));
    if let Ok(false) = authority.blobs.unlink(hash, known).await
        && pinned.len() < RETRIES_MAX
    {
        pinned.push_back(hash);
    }
}

/// Journals marks of damaged blobs for ever.
pub(crate) async fn mark(authority: Arc<Authority>) {
    loop {
        let hash = authority.blobs.next_mark().await;
        if authority.blobs.is_marked(&hash) {
            // If it cannot be journaled now, the next reader finds it again.
            let _ = authority.commit(Work::Mark { hash }).await;
        }
    }
}

/// After an unclean stop: files that no journaled change knows are adopted, so that they are swept in time.
pub(crate) async fn adopt_orphans(authority: Arc<Authority>) {
    let catalog = authority.catalog.clone();
    let known = move |hash: &BlobHash| !matches!(catalog.blob(hash), Ok(None));
    let mut walk = std::pin::pin!(authority.blobs.walk(known, WALK_PAUSE));
    while let Some(walked) = walk.next().await {
        let Ok(walked) = walked else { continue };
        for hash in walked.orphans {
            let Ok(Some(held)) = authority.blobs.contains(hash).await else { continue };
            let _ = authority.keep(held).await;
        }
    }
}
