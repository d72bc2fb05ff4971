//! Moves a finished upload into the store, under the lock of its hash.
//!
//! Invariants: a file is durable before it has its name, its name before anybody is told; a hash that is
//! marked as damaged is never found "there already". The pin is taken before the lock is released.
//! Must never try a failed directory fsync again: what it lost is not known.

use super::layout::Unprepared;
use super::staging::{Draft, Staged};
use super::stats::count;
use super::{Blobs, failed};
use dstore_shared::Error;
use std::fmt;

/// How far a failure reaches.
#[derive(Clone, Debug)]
pub enum Failure {
    /// What was asked failed, and nothing else.
    Own(Error),
    /// A directory could not be made durable: which names survive a crash is unknown. The blob store
    /// refuses every further change; the caller must stop acknowledging writes.
    Store(Error),
}

impl Failure {
    /// Whether the whole store is affected.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Store(_))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Own(e) | Self::Store(e)) = self;
        e.fmt(f)
    }
}

impl std::error::Error for Failure {}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Self::Own(e)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let (Failure::Own(e) | Failure::Store(e)) = failure;
        e
    }
}

/// Places `draft`.
pub(super) async fn place(draft: Draft) -> Result<Staged, Failure> {
    let lock = draft.blobs.0.locks.lock(&draft.hash).await;
    let blocking = draft.blobs.0.sys.blocking;
    let job = move || {
        let placed = place_locked(draft);
        drop(lock);
        placed
    };
    blocking.run(job).await
}

fn place_locked(mut draft: Draft) -> Result<Staged, Failure> {
    let (blobs, hash, size) = (draft.blobs.clone(), draft.hash, draft.size);
    blobs.check()?;
    let pin = blobs.pin(hash)?;
    if blobs.held(&hash)? == Some(size) {
        count(&blobs.0.counters.dedup_hits, 1);
        return Ok(Staged { hash, size, pin, fresh: false, cleared_mark: false });
    }
    let file = draft.seal()?;
    let dir = blobs.0.layout.prepare(&*blobs.0.sys.disk, hash.as_bytes()[0]);
    let dir = dir.map_err(|e| match e {
        Unprepared::Make(e) => Failure::Own(failed("a directory could not be made", e)),
        Unprepared::Sync(e) => blobs.lose_directory(e),
    })?;
    dstore_sys::failpoint!("global::blobs::before_rename");
    file.move_to(&blobs.0.layout.blob(&hash))?;
    dstore_sys::failpoint!("global::blobs::renamed");
    blobs.0.sys.disk.sync_dir(&dir).map_err(|e| blobs.lose_directory(e))?;
    dstore_sys::failpoint!("global::blobs::placed");
    let cleared_mark = blobs.0.marks.clear(&hash);
    count(&blobs.0.counters.placed_files, 1);
    count(&blobs.0.counters.placed_bytes, size);
    count(&blobs.0.counters.healed, u64::from(cleared_mark));
    Ok(Staged { hash, size, pin, fresh: true, cleared_mark })
}

impl Blobs {
    /// Takes no further changes, because `e` befell a directory.
    pub(super) fn lose_directory(&self, e: std::io::Error) -> Failure {
        self.poison();
        let text = "a directory of the blob store could not be made durable: check the disk, restart dstore";
        Failure::Store(Error::unavailable(text).caused_by(e))
    }
}
