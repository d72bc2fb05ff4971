//! The large blobs of a Global: one file each, named by its BLAKE3 hash.
//!
//! ```text
//! stage -> write.. -> finish   staged, hashed, fsynced -> lock of the hash -> renamed in, directory fsynced -> pinned
//! read                         pinned -> header, outline, groups: each verified before it is passed on
//! unlink                       lock of the hash -> refused if pinned, left alone if known
//! ```
//! Invariants: a file under a blob's name is whole and durable before anybody is told of it. A pinned blob
//! is not unlinked. A blob marked as damaged is never said to be there. Everything is bounded by
//! [`BlobLimits`], [`PINS_MAX`] and [`MARKS_MAX`].
//! Must never decide which blobs are needed, nor journal: that is the authority's.
//!
//! The bytes of a file are drawn in `docs/STORAGE.md`.

mod budget;
mod format;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod gather;
mod inspect;
mod layout;
mod locks;
mod marks;
mod pace;
mod pins;
mod place;
mod read;
mod salvage;
mod spare;
mod staging;
mod started;
mod stats;
#[cfg(test)]
mod tests;
mod walk;

pub use budget::BlobLimits;
pub(crate) use inspect::inspect;
pub use inspect::{BadBlob, BlobFacts};
pub use marks::MARKS_MAX;
pub use pins::{PINS_MAX, Pin};
pub use place::Failure;
pub use read::BlobRead;
pub(crate) use salvage::{copy_whole, each_file, has_file};
pub use staging::{Staged, Staging};
pub use stats::BlobStats;
pub use walk::Walked;

use budget::{Budget, Reservation};
use dstore_shared::{BlobHash, Error, Result};
use dstore_sys::Sys;
use dstore_sys::disk::{Disk, DiskFile};
use dstore_sys::tasks::Lane;
use layout::Layout;
use locks::Locks;
use marks::Marks;
use pins::Pins;
use stats::{Counters, count};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The store of large blobs. Clones share it.
#[derive(Clone)]
pub struct Blobs(Arc<Inner>);

struct Inner {
    sys: Sys,
    layout: Layout,
    budget: Arc<Budget>,
    locks: Locks,
    pins: Pins,
    marks: Marks,
    counters: Counters,
    doomed: Lane<Doomed>,
    /// Tells this run's staged files from those of a run whose cleaning is not over.
    run: u64,
    staged: AtomicU64,
    poisoned: AtomicBool,
}

/// A staged file that is to be removed; its slot is free only when it is.
struct Doomed {
    path: PathBuf,
    _file: Option<Box<dyn DiskFile>>,
    _reservation: Arc<Reservation>,
}

/// A blob that is there, and stays while `pin` lives.
#[derive(Debug)]
pub struct Held {
    /// Its length in bytes.
    pub size: u64,
    /// Keeps the file.
    pub pin: Pin,
}

impl Blobs {
    /// Opens the store in `dir`, the data directory's `blobs/`, which is made if need be. What aborted
    /// uploads left in staging is removed. Only one process may have it open.
    ///
    /// # Errors
    /// `Invalid` for limits that contradict each other, `Unavailable` for a directory that cannot be used.
    pub async fn open(sys: Sys, dir: impl Into<PathBuf>, limits: BlobLimits) -> Result<Self> {
        let (budget, dir, disk) = (Budget::new(limits)?, dir.into(), sys.disk.clone());
        let layout = sys.blocking.run(move || {
            let shown = dir.display().to_string();
            Layout::open(&*disk, dir).map_err(|e| failed(&format!("`{shown}` cannot hold blobs"), e))
        });
        let layout = layout.await?;
        let disk = sys.disk.clone();
        let clean = move |batch: &mut Vec<Doomed>| {
            batch.drain(..).for_each(|doomed| doomed.remove(&*disk));
        };
        let (doomed, _) = Lane::start(sys.blocking, "blobs-clean", (limits.staging_files_max, 16), clean);
        Ok(Self(Arc::new(Inner {
            layout,
            budget,
            locks: Locks::new(),
            pins: Pins::default(),
            marks: Marks::default(),
            counters: Counters::default(),
            doomed,
            run: sys.rng.next_u64(),
            staged: AtomicU64::new(0),
            poisoned: AtomicBool::new(false),
            sys,
        })))
    }

    /// Begins an upload. `size_hint`, if known, reserves its bytes at once. Waits for a place while all are
    /// taken, which ends an upload that hardly moves.
    ///
    /// # Errors
    /// `TooLarge` for a hint beyond the largest blob; `Exhausted` if uploads or free space are at their
    /// limits, before a byte is written; `Unavailable` if the store takes no changes anymore.
    ///
    /// # Cancel safety
    /// Safe: a cancelled call has begun nothing.
    pub async fn stage(&self, size_hint: Option<u64>) -> Result<Staging> {
        self.check()?;
        let hint = size_hint.unwrap_or(0);
        self.0.budget.admit(hint)?;
        let reservation = self.0.budget.reserve(hint, &*self.0.sys.clock).await?;
        if !self.0.budget.recent_look(self.0.sys.clock.now()) {
            let blobs = self.clone();
            self.0.sys.blocking.run(move || blobs.check_free()).await?;
        }
        Ok(Staging::new(self.clone(), reservation, hint))
    }

    /// Keeps the file of `hash` from being unlinked, if it is there. An unlink that is under way already
    /// goes on: whoever must know looks with [`Blobs::contains`], which waits for it.
    ///
    /// # Errors
    /// `Exhausted` if [`PINS_MAX`] other blobs are pinned.
    pub fn pin(&self, hash: BlobHash) -> Result<Pin> {
        self.0.pins.pin(hash)
    }

    /// The blob with `hash`, pinned, if its file is there, looks whole and is not marked as damaged: this is
    /// what deduplication may rely on.
    ///
    /// # Errors
    /// `Exhausted` if too many blobs are pinned, `Unavailable` if the file cannot be opened or is of a newer
    /// format, or the store takes no changes anymore.
    ///
    /// # Cancel safety
    /// Safe: a cancelled call has no effect.
    pub async fn contains(&self, hash: BlobHash) -> Result<Option<Held>> {
        self.check()?;
        let lock = self.0.locks.lock(&hash).await;
        let blobs = self.clone();
        let look = move || {
            blobs.check()?;
            let held = match blobs.held(&hash)? {
                Some(size) => Some(Held { size, pin: blobs.pin(hash)? }),
                None => None,
            };
            drop(lock);
            Ok(held)
        };
        self.0.sys.blocking.run(look).await
    }

    /// Removes the file of `hash` and its mark, unless it is `known` again; `false` if it is pinned. A file
    /// that is not there counts as removed. To be called once the sweep of the hash is durable in the journal:
    /// the removal itself is not made durable, after a crash [`Blobs::walk`] may find the file again.
    ///
    /// `known` is asked on a thread that may block, under the lock of the hash and after the pins: whoever
    /// relied on the file is known before it is unpinned, so one of the two tells of it.
    ///
    /// # Errors
    /// `Unavailable` if the file cannot be removed or the store takes no changes anymore.
    ///
    /// # Cancel safety
    /// A cancelled call may have removed the file.
    pub async fn unlink(
        &self,
        hash: BlobHash,
        known: impl FnOnce(&BlobHash) -> bool + Send + 'static,
    ) -> Result<bool> {
        self.check()?;
        let lock = self.0.locks.lock(&hash).await;
        let blobs = self.clone();
        let unlink = move || {
            let done = blobs.unlink_locked(&hash, known);
            drop(lock);
            done
        };
        self.0.sys.blocking.run(unlink).await
    }

    fn unlink_locked(&self, hash: &BlobHash, known: impl FnOnce(&BlobHash) -> bool) -> Result<bool> {
        self.check()?;
        if self.0.pins.is_pinned(hash) {
            return Ok(false);
        }
        if known(hash) {
            return Ok(true);
        }
        dstore_sys::failpoint!("global::sweep::before_unlink");
        let (disk, path) = (&self.0.sys.disk, self.0.layout.blob(hash));
        let len = disk.open(&path, dstore_sys::disk::Open::Read).and_then(|file| file.len());
        match disk.remove(&path) {
            Ok(()) => {
                count(&self.0.counters.unlinked_files, 1);
                count(&self.0.counters.unlinked_bytes, len.unwrap_or(0));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed("a blob's file could not be removed", e)),
        }
        dstore_sys::failpoint!("global::sweep::unlinked");
        self.0.marks.clear(hash);
        Ok(true)
    }

    /// Marks hashes that the journal knows as damaged. To be called before anything is served.
    pub fn restore_marks(&self, marked: impl IntoIterator<Item = BlobHash>) {
        marked.into_iter().for_each(|hash| self.0.marks.restore(hash));
    }

    /// Waits for the next hash that a reader found damaged, to be journaled. One caller at a time. Ask
    /// [`Blobs::is_marked`] when the journal's turn comes: the blob may have been set again.
    ///
    /// # Cancel safety
    /// Safe: a cancelled call takes nothing.
    pub async fn next_mark(&self) -> BlobHash {
        self.0.marks.next().await
    }

    /// Whether the blob is marked as damaged.
    pub fn is_marked(&self, hash: &BlobHash) -> bool {
        self.0.marks.is_marked(hash)
    }

    /// Makes the names of all files durable: after an unclean stop, before anything is served that was
    /// merely found.
    ///
    /// # Errors
    /// [`Failure::Store`] if a directory could not be synced, [`Failure::Own`] if they cannot be listed.
    ///
    /// # Cancel safety
    /// A cancelled call may have synced some; call it again.
    pub async fn sync_all_dirs(&self) -> Result<(), Failure> {
        let blobs = self.clone();
        let sync = move || {
            let (disk, layout) = (&*blobs.0.sys.disk, &blobs.0.layout);
            let found = layout.present(disk).map_err(|e| failed("the blobs cannot be listed", e))?;
            let dirs = found.into_iter().map(|first| layout.dir(first));
            for dir in dirs.chain([layout.root().to_owned()]) {
                disk.sync_dir(&dir).map_err(|e| blobs.lose_directory(e))?;
            }
            Ok(())
        };
        self.0.sys.blocking.run(sync).await
    }

    /// What was done and is held.
    pub fn stats(&self) -> BlobStats {
        let (files, bytes) = self.0.budget.staged();
        BlobStats {
            staged_files: files as u64,
            staged_bytes: bytes,
            marked: self.0.marks.len() as u64,
            pinned: self.0.pins.len() as u64,
            ..self.0.counters.read()
        }
    }

    /// Whether a directory could not be made durable: every change is refused.
    pub fn is_poisoned(&self) -> bool {
        self.0.poisoned.load(Ordering::SeqCst)
    }

    /// Waits until every upload under way has ended and staging is empty; new ones are refused from the
    /// moment that is so. For a graceful stop; the caller sets a deadline.
    ///
    /// # Cancel safety
    /// Safe: a cancelled call has no effect.
    pub async fn close(&self) {
        self.0.budget.close().await;
    }

    fn poison(&self) {
        self.0.poisoned.store(true, Ordering::SeqCst);
    }

    fn check(&self) -> Result<()> {
        if self.is_poisoned() {
            let text =
                "the blob store takes no changes since a directory could not be made durable: restart dstore";
            return Err(Error::unavailable(text));
        }
        Ok(())
    }

    /// Looks whether the disk has room for what is staged. Blocks.
    fn check_free(&self) -> Result<()> {
        let free = self.0.sys.disk.free_bytes(self.0.layout.root());
        let free = free.map_err(|e| failed("the free space cannot be told", e))?;
        self.0.budget.look(self.0.sys.clock.now(), free)
    }

    /// Bytes that must be free for the last upload that was refused for want of space since this was asked.
    pub(crate) fn take_refusal(&self) -> Option<u64> {
        self.0.budget.take_refusal()
    }

    /// A path in staging that nobody has.
    fn next_staged(&self) -> PathBuf {
        self.0.layout.staged(self.0.run, self.0.staged.fetch_add(1, Ordering::Relaxed))
    }
}

impl Doomed {
    fn remove(self, disk: &dyn Disk) {
        if let Err(e) = disk.remove(&self.path) {
            tracing::warn!(path = %self.path.display(), error = %e, "a staged file stays until the next start");
        }
    }
}

/// The error of a call of the disk: `what` failed because of `e`.
fn failed(what: &str, e: io::Error) -> Error {
    let full = matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let error = if full {
        Error::exhausted(format!("{what}, the disk is full: delete names or add disk space"))
    } else {
        Error::unavailable(format!("{what} ({e}): try again, or check the disk"))
    };
    error.caused_by(e)
}

impl fmt::Debug for Blobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blobs({})", self.0.layout.root().display())
    }
}
