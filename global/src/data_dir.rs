//! Owns the data directory: who may use it, what it says of itself, and the order in which it is opened.
//!
//! ```text
//! open:  lock -> meta (engine? version?) -> checkpoint -> index -> journal, redone into the catalog
//! begin: boot number
//! ```
//!
//! Invariants: one process at a time; a directory is changed only after it was judged; nothing is given out
//! before the new boot number is durable, together with the end of the clean-shutdown mark (rules 11 and 29);
//! a start that fails before [`DataDir::begin`] leaves both as they were;
//! an index is trusted only as far as the checkpoint that names it. It must never serve less than was
//! acknowledged: an index or checkpoint that the journal does not reach is refused, not mended.

mod meta;
mod redo;
#[cfg(test)]
mod tests;

use crate::catalog::{Catalog, CatalogConfig};
use crate::checkpoint::{Checkpoint, Checkpoints, Remembered};
use crate::engine::{self, Engine, EngineKind};
use crate::feed::Log;
use crate::sealed::failed;
use crate::sessions::InvLog;
use bytes::Bytes;
use dstore_shared::{Error, HistoryId, Kind, Result, Revision, limits};
use dstore_sys::Sys;
use dstore_sys::disk::{Disk, Lock};
use dstore_sys::tasks::LaneEnd;
pub(crate) use meta::Meta;
use parking_lot::Mutex;
use redo::Redo;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is in a data directory beside `meta`.
pub(crate) const FILES: [&str; 5] = ["journal", "index", "checkpoint", "checkpoint.old", "blobs"];

/// Which directory, and how it is to be used.
#[derive(Clone, Debug)]
pub struct DataDirConfig {
    /// The directory; made if need be.
    pub path: PathBuf,
    /// The engine of the index.
    pub engine: EngineKind,
    /// Memory and checkpoints.
    pub catalog: CatalogConfig,
}

/// What the journal must know before it is opened: revisions that it must reach.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Floors {
    /// Everything up to here is durable in the index; what follows is to be replayed.
    pub checkpoint: Revision,
    /// The newest revision that index or checkpoint show.
    pub index: Revision,
    /// The head at the last stop, if it was clean.
    pub clean: Option<Revision>,
}

/// What the journal found.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Found {
    /// Its last revision.
    pub head: Revision,
    /// What was cut off its end, in words.
    pub torn: Option<String>,
}

/// Takes a batch of the journal: first and last revision, and the payload. An error ends the replay.
pub type Replay<'a> = &'a mut dyn FnMut(Revision, Revision, Bytes) -> Result<()>;

/// An opened data directory, and what Global goes on from.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "answers, not states")]
pub struct Opened<J> {
    /// The directory, locked while this lives.
    pub dir: DataDir,
    /// The visible state, at the journal's head.
    pub catalog: Catalog,
    /// Ends after every clone of the catalog was dropped and the index is closed.
    pub applier: LaneEnd,
    /// The journal.
    pub journal: J,
    /// The line of history.
    pub history: HistoryId,
    /// The number of this boot, from 1: durable, and this boot's, after [`DataDir::begin`].
    pub boot: u64,
    /// The largest lease ever granted.
    pub lease_max: Duration,
    /// Whether "not found" answers were ever leased.
    pub negatives_ever: bool,
    /// Whether an asynchronous DEL was made since the last start after a clean stop.
    pub async_dels: bool,
    /// Whether the last stop was clean, so that no lease is outstanding.
    pub clean: bool,
    /// Whether this is its first boot, so that no lease can be outstanding.
    pub fresh: bool,
    /// Whether the index was rebuilt from the journal.
    pub rebuilt: bool,
    /// Outcomes still in their window, oldest first.
    pub outcomes: Vec<Remembered>,
    /// What became void by the changes that were redone: its floor is the oldest of them.
    pub log: InvLog,
    /// What became of names, as far back as the journal was read.
    pub(crate) feed: Log,
    /// Whether a boot that acknowledged before it synced was not ended in order: `history` is a new one.
    pub lossy: bool,
    /// What was cut off the journal's end, in words.
    pub torn: Option<String>,
    /// Journal time at the head, in milliseconds since 1970.
    pub journal_time: u64,
}

/// A locked data directory. Its methods block on the disk.
#[derive(Debug)]
pub struct DataDir {
    sys: Sys,
    path: PathBuf,
    meta: Mutex<Meta>,
    /// The history of the boot that is to begin.
    history: HistoryId,
    _lock: Box<dyn Lock>,
}

/// Opens the directory. `open_journal` opens the journal in the folder it is given, and replays every batch
/// after `Floors::checkpoint` in order. Blocks on the disk.
///
/// # Errors
/// `Unavailable` if another process uses the directory or the disk fails, `Denied` without permission,
/// `Exhausted` without space, `Invalid` if it is of another engine or a newer dstore or no directory,
/// `Corrupt` if it is damaged in a way that redoing the journal does not mend. Nothing is lost by an attempt.
pub fn open<J>(
    sys: &Sys,
    config: &DataDirConfig,
    open_journal: impl FnOnce(PathBuf, Floors, Replay<'_>) -> Result<(J, Found)>,
) -> Result<Opened<J>> {
    let path = &config.path;
    let lock = claim(&*sys.disk, path)?;
    dstore_sys::failpoint!("global::start::locked");
    let mut meta = load_meta(sys, path, config.engine)?;
    let files = Checkpoints::new(sys.disk.clone(), path);
    let checkpoint = files.load()?;
    check_history(path, &meta, checkpoint.as_ref())?;
    let index = open_index(sys, config, checkpoint.as_ref())?;
    let floors = floors(&meta, &index, checkpoint.as_ref())?;
    let mut redo = Redo::new(sys, config, (index, files), (meta.line(), checkpoint));
    let journal = open_journal(path.join("journal"), floors, &mut |first, last, payload| {
        redo.batch(first, last, payload)
    });
    let (journal, found) = journal.map_err(|e| redo.explained(e))?;
    let redone = redo.finish(found.head, floors.index)?;
    let (fresh, clean) = (meta.boot == 0, meta.clean == Some(found.head));
    // A mark of another head, as in a directory put together from copies, says nothing of leases.
    meta.clean = meta.clean.filter(|_| clean);
    let boot = meta.boot + 1;
    // Whatever was given out of what is lost: nothing that this boot commits is taken for it.
    let lossy = meta.relaxed && !clean;
    let history = if lossy { HistoryId(sys.rng.next_u128()) } else { meta.history };
    let mut outcomes = redone.outcomes;
    let journal_time = redone.catalog.journal_time();
    let window = journal_time.saturating_sub(limits::OUTCOME_TTL.as_millis() as u64);
    outcomes.retain(|(_, _, at_ms)| *at_ms >= window);
    Ok(Opened {
        catalog: redone.catalog,
        applier: redone.applier,
        journal,
        history,
        boot,
        lease_max: meta.lease_max,
        negatives_ever: meta.negatives_ever,
        async_dels: meta.async_dels,
        clean,
        fresh,
        rebuilt: redone.rebuilt,
        outcomes,
        log: redone.log,
        feed: redone.feed,
        lossy,
        torn: found.torn,
        journal_time,
        dir: DataDir { sys: sys.clone(), path: path.clone(), meta: Mutex::new(meta), history, _lock: lock },
    })
}

impl DataDir {
    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Begins the boot that [`open`] numbered: its number, the end of the clean-shutdown mark and that leases of
    /// `lease` may be granted become durable in one step. To be called once, when nothing can keep Global from
    /// starting any more, and before anything is committed, granted or given out.
    ///
    /// # Errors
    /// As [`DataDir::persist_lease_max`]: the boot must not go on.
    pub fn begin(&self, lease: Duration) -> Result<()> {
        self.begin_as(lease, false)
    }

    /// As [`DataDir::begin`]; `relaxed`: this boot may acknowledge before it syncs. In the same step a history that
    /// [`open`] drew becomes the directory's.
    ///
    /// # Errors
    /// As [`DataDir::begin`].
    pub fn begin_as(&self, lease: Duration, relaxed: bool) -> Result<()> {
        self.update(|meta| {
            if meta.history != self.history {
                meta.line = Some(meta.line());
                meta.history = self.history;
                // A Local may serve a name that is lost until its lease ends, also if this boot ends before.
                meta.async_dels = true;
            }
            meta.relaxed = relaxed;
            meta.boot += 1;
            // Nobody served anything when it stopped.
            let clean = meta.clean.take().is_some();
            meta.async_dels &= !clean;
            // No lease of before is outstanding then: what a crowd of sessions once made of it is over.
            meta.lease_max = if clean { lease } else { meta.lease_max.max(lease) };
        })
    }

    /// Notes that a lease of `length` may be granted from now on. To be called before the first grant of a
    /// length; does nothing if a lease so long was noted before.
    ///
    /// # Errors
    /// `Unavailable` or `Exhausted` if it cannot be made durable: the lease must not be granted.
    pub fn persist_lease_max(&self, length: Duration) -> Result<()> {
        self.update(|meta| meta.lease_max = meta.lease_max.max(length))
    }

    /// Notes that "not found" answers may be leased from now on.
    ///
    /// # Errors
    /// As [`DataDir::persist_lease_max`].
    pub fn persist_negatives(&self) -> Result<()> {
        self.update(|meta| meta.negatives_ever = true)
    }

    /// Notes that an asynchronous DEL may be committed from now on: if its drain is cut short by a crash, no change
    /// of the next boot may overtake it.
    ///
    /// # Errors
    /// As [`DataDir::persist_lease_max`]: the DEL must not be made.
    pub fn persist_async_dels(&self) -> Result<()> {
        self.update(|meta| meta.async_dels = true)
    }

    /// Writes the clean-shutdown mark: no lease is outstanding, and `head` is the last revision. To be called
    /// when nothing will be committed or granted any more.
    ///
    /// # Errors
    /// As [`DataDir::persist_lease_max`]; the stop is then not clean.
    pub fn mark_clean(&self, head: Revision) -> Result<()> {
        self.update(|meta| {
            meta.clean = Some(head);
            meta.relaxed = false;
        })
    }

    /// Notes that everything that was acknowledged is durable, and that nothing will be committed any more, though
    /// leases may be outstanding.
    ///
    /// # Errors
    /// As [`DataDir::persist_lease_max`]; the next start then draws a new history.
    pub fn mark_synced(&self) -> Result<()> {
        self.update(|meta| meta.relaxed = false)
    }

    fn update(&self, change: impl FnOnce(&mut Meta)) -> Result<()> {
        let mut meta = self.meta.lock();
        let mut changed = meta.clone();
        change(&mut changed);
        if changed != *meta {
            changed.write(&*self.sys.disk, &self.path)?;
            *meta = changed;
        }
        Ok(())
    }
}

fn claim(disk: &dyn Disk, path: &Path) -> Result<Box<dyn Lock>> {
    let text = path.display();
    disk.create_dir_all(path).map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
            Error::invalid(format!("`{text}` is not a directory: name another with --data"))
        }
        _ => failed("make", path, e),
    })?;
    disk.lock(&path.join("LOCK")).map_err(|e| match e.kind() {
        io::ErrorKind::WouldBlock => Error::unavailable(format!(
            "the data directory `{text}` is in use by another dstore: stop that one, or name another with --data"
        )),
        _ => failed("lock", path, e),
    })
}

/// What the directory says of itself; a new one is told first.
fn load_meta(sys: &Sys, path: &Path, engine: EngineKind) -> Result<Meta> {
    let text = path.display();
    if let Some(meta) = Meta::load(&*sys.disk, path)? {
        if meta.engine != engine.to_string() {
            let found = &meta.engine;
            return Err(Error::invalid(format!(
                "the data directory `{text}` belongs to engine `{found}`, not `{engine}`: use --engine {found}, \
                 or name another directory with --data"
            )));
        }
        return Ok(meta);
    }
    for ours in FILES {
        if sys.disk.exists(&path.join(ours)).map_err(|e| failed("look at", path, e))? {
            return Err(Error::corrupt(format!(
                "the data directory `{text}` has `{ours}` but no `meta`: restore `meta` from a backup, or name \
                 an empty directory with --data"
            )));
        }
    }
    let meta = Meta::new(HistoryId(sys.rng.next_u128()), engine.to_string());
    // First, because a directory that has its `meta` is not synced again.
    sync_ancestors(&*sys.disk, path)?;
    meta.write(&*sys.disk, path)?;
    Ok(meta)
}

/// Makes the directory's own name durable, and those of the directories above it that were made with it.
fn sync_ancestors(disk: &dyn Disk, path: &Path) -> Result<()> {
    for above in path.ancestors().skip(1) {
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        match disk.sync_dir(above) {
            // A directory that may be passed but not read cannot be synced by us, and was not made by us.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
            done => done.map_err(|e| failed("sync", above, e))?,
        }
    }
    Ok(())
}

pub(crate) fn check_history(path: &Path, meta: &Meta, checkpoint: Option<&Checkpoint>) -> Result<()> {
    match checkpoint {
        Some(c) if c.history != meta.line() => Err(Error::corrupt(format!(
            "in `{}`, `meta` and `checkpoint` are of different histories: restore both from one backup",
            path.display()
        ))),
        _ => Ok(()),
    }
}

/// The index as it was found.
#[derive(Debug)]
pub(crate) enum Index {
    /// It holds everything up to this revision.
    Proven(Box<dyn Engine>, Revision),
    /// It is not what the checkpoint proves.
    Unproven(Box<dyn Engine>),
    /// It cannot be opened, for this reason.
    Broken(Error),
}

pub(crate) fn open_index(
    sys: &Sys,
    config: &DataDirConfig,
    checkpoint: Option<&Checkpoint>,
) -> Result<Index> {
    let engine = match engine::open(config.engine, sys, &index_dir(config)) {
        Ok(engine) => engine,
        Err(e) if e.kind() == Kind::Corrupt => {
            tracing::warn!(error = ?e, "index cannot be opened");
            return Ok(Index::Broken(e));
        }
        Err(e) => return Err(e),
    };
    Ok(match checkpoint {
        // Redoing absolute results from the start is right over whatever is there.
        None => Index::Proven(engine, Revision(0)),
        Some(c) if c.index == engine.identity() && engine.revision()? >= c.revision => {
            Index::Proven(engine, c.revision)
        }
        Some(_) => Index::Unproven(engine),
    })
}

fn index_dir(config: &DataDirConfig) -> PathBuf {
    config.path.join("index")
}

pub(crate) fn floors(meta: &Meta, index: &Index, checkpoint: Option<&Checkpoint>) -> Result<Floors> {
    let proven = checkpoint.map_or(Revision(0), |c| c.revision);
    let (redo_after, reached) = match index {
        Index::Proven(engine, revision) => (*revision, engine.revision()?),
        Index::Unproven(_) | Index::Broken(_) => (Revision(0), proven),
    };
    Ok(Floors { checkpoint: redo_after, index: reached.max(proven), clean: meta.clean })
}
