//! Upkeep of blobs: sweeping those without a name, journaling marks of damage, adopting files that nothing knows.
//!
//! A client of the authority like any other: what it removes was forgotten by a journaled command before.
//! It must never remove a file that the journal still knows.

use crate::authority::Authority;
use crate::blobs::Failure;
use crate::committer::{Done, Work};
use dstore_shared::BlobHash;
use futures_util::StreamExt;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Blobs swept in one go.
const BATCH: usize = 256;
/// Files whose removal is tried again in the next round; beyond it, or after a stop, the next start finds them.
const RETRIES_MAX: usize = 4096;
/// How long a round of sweeping waits at most for the next.
const ROUND_MAX: Duration = Duration::from_secs(60);
/// The pause after each directory when orphans are looked for.
const WALK_PAUSE: Duration = Duration::from_millis(50);

/// Sweeps for ever.
pub(crate) async fn sweep(authority: Arc<Authority>) {
    let round = (authority.sweep_grace / 4).clamp(Duration::from_millis(50), ROUND_MAX);
    let mut left = VecDeque::new();
    loop {
        tokio::time::sleep(authority.sys.rng.jitter(round)).await;
        // Checkpoints by time are due even when nobody writes.
        authority.nudge_committer();
        for _ in 0..left.len() {
            let Some(hash) = left.pop_front() else { break };
            remove(&authority, hash, &mut left).await;
        }
        while sweep_batch(&authority, &mut left).await == BATCH {}
    }
}

/// Sweeps up to [`BATCH`] blobs; gives how many there were to look at.
async fn sweep_batch(authority: &Arc<Authority>, left: &mut VecDeque<BlobHash>) -> usize {
    let grace_ms = authority.sweep_grace.as_millis() as u64;
    let catalog = authority.catalog.clone();
    let before_ms = authority.journal_now().saturating_sub(grace_ms);
    let found = authority.sys.blocking.run(move || catalog.unnamed(before_ms, BATCH)).await;
    // A failed index has been reported by whoever met it first.
    let Ok(found) = found else { return 0 };
    let mut swept = 0;
    for hash in &found {
        dstore_sys::failpoint!("global::sweep::before_journal");
        let done = authority.commit(Work::Sweep { hash: *hash, before_ms }).await;
        dstore_sys::failpoint!("global::sweep::journaled");
        match done {
            Ok(Done::Swept { file }) => {
                swept += 1;
                if file {
                    remove(authority, *hash, left).await;
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

/// Removes a file whose sweep is durable, unless the blob has come back meanwhile. One that is pinned, or that
/// the disk does not let go, is `left` for the next round.
pub(crate) async fn remove(authority: &Arc<Authority>, hash: BlobHash, left: &mut VecDeque<BlobHash>) {
    let store = authority.clone();
    // When the journal has failed, it may know of blobs that nobody can see before the next start.
    // What it knows no more, it must not know again after a crash: no change is made durable for the file's sake later.
    let known = move |hash: &BlobHash| {
        store.failed().is_some()
            || !matches!(store.catalog.blob(hash), Ok(None))
            || store.ensure_visible_is_durable().is_err()
    };
    let removed = authority.blobs.unlink(hash, known).await;
    if let Err(error) = &removed {
        tracing::warn!(%hash, %error, "the file of a swept blob stays for now");
    }
    if !matches!(removed, Ok(true)) && left.len() < RETRIES_MAX {
        left.push_back(hash);
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

/// At each start: files that no journaled change knows are adopted, so that they are swept in time. A crash
/// leaves some, and so does a clean stop: what was still to be removed, an upload whose caller went away.
pub(crate) async fn adopt_orphans(authority: Arc<Authority>) {
    let catalog = authority.catalog.clone();
    let known = move |hash: &BlobHash| !matches!(catalog.blob_once(hash), Ok(None));
    let mut walk = std::pin::pin!(authority.blobs.walk(known, WALK_PAUSE));
    let (mut adopted, mut durable) = (0_u64, false);
    while let Some(walked) = walk.next().await {
        let Ok(walked) = walked else { continue };
        for hash in walked.orphans {
            let Ok(Some(held)) = authority.blobs.contains(hash).await else { continue };
            // Merely found: before the journal relies on the name it must be durable.
            if !durable && let Err(failure) = authority.blobs.sync_all_dirs().await {
                if let Failure::Store(error) = failure {
                    authority.fail(&error);
                }
                return;
            }
            durable = true;
            dstore_sys::failpoint!("global::adopt::before_journal");
            adopted += u64::from(authority.keep(held).await.is_ok());
            dstore_sys::failpoint!("global::adopt::journaled");
        }
    }
    if adopted > 0 {
        tracing::info!(adopted, "files that nothing knew will be swept");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EngineKind, Global, GlobalConfig};
    use bytes::Bytes;
    use dstore_proto::store::Body;
    use dstore_sys::Sys;
    use dstore_sys::disk::{Call, Disk, Fault, SimDisk};
    use dstore_sys::tasks::Blocking;
    use std::path::PathBuf;

    async fn start(disk: &SimDisk) -> Global {
        let blocking = Blocking::Inline { latency: Duration::from_millis(1) };
        let sys = Sys { blocking, disk: Arc::new(disk.clone()), ..Sys::real() };
        let config = GlobalConfig {
            engine: EngineKind::Memory,
            min_free: 0,
            sweep_grace: Duration::ZERO,
            ..GlobalConfig::new("/data")
        };
        Global::start(sys, config).await.expect("started")
    }

    /// A blob too large for the index, and its file.
    fn large() -> (Bytes, BlobHash, PathBuf) {
        let all = Bytes::from(vec![7; 70_000]);
        let hash = BlobHash::of(&all);
        let text = hash.to_string();
        (all, hash, PathBuf::from("/data/blobs").join(&text[..2]).join(&text[2..]))
    }

    async fn soon(what: &str, done: impl Fn() -> bool) {
        for _ in 0..1_000 {
            if done() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{what}: not within 100 s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_could_not_be_removed_before_a_clean_stop_is_removed_after_the_next_start() {
        let disk = SimDisk::default();
        let (all, hash, path) = large();
        let global = start(&disk).await;
        let authority = global.authority().clone();
        let pin = authority.blobs.pin(hash).expect("room");
        authority.take_blob(None, Body::Bytes(all).into_stream()).await.expect("kept");
        soon("swept", || matches!(authority.catalog.blob(&hash), Ok(None))).await;
        assert!(disk.exists(&path).expect("looked"), "a reader has it pinned");
        drop(authority);
        global.stop().await.expect("a clean stop");
        // Not before: the sweep could come round once more.
        drop(pin);
        assert!(disk.exists(&path).expect("looked"), "else nothing is left to be found");
        let global = start(&disk).await;
        soon("removed", || !disk.exists(&path).expect("looked")).await;
        global.stop().await.expect("a clean stop");
    }

    #[tokio::test(start_paused = true)]
    async fn a_removal_that_the_disk_refused_is_tried_again() {
        let disk = SimDisk::default();
        let (all, hash, path) = large();
        let global = start(&disk).await;
        disk.inject(Fault::next(Call::Remove).at(&hash.to_string()[2..]));
        let body = Body::Bytes(all).into_stream();
        global.authority().take_blob(None, body).await.expect("kept");
        soon("removed", || !disk.exists(&path).expect("looked")).await;
        assert!(global.authority().failed().is_none());
        global.stop().await.expect("a clean stop");
    }
}
