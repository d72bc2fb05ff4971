//! The index in a sled tree (<https://docs.rs/sled>): everything that knows sled is in this file.
//!
//! sled has no snapshots, so [`Undo`] keeps, for each snapshot that is alive, what writes replaced since.
//!
//! Invariants: one tree a table and one for what the index says of itself; `apply` syncs nothing, a checkpoint
//! flushes all, and syncs every file and folder here, because sled does not wait for the disk. Before a batch is written its old values are noted in every snapshot that is alive, under a
//! lock that a snapshot's reader holds while it looks in the tree.
//!
//! Memory: sled's page cache, 64 MiB, and what snapshots keep.

use super::{Each, Engine, EngineKind, Table, View, Write, folder};
use crate::sealed::failed;
use bytes::Bytes;
use dstore_shared::{Error, Result, Revision};
use dstore_sys::Sys;
use dstore_sys::disk::Open;
use parking_lot::{Mutex, RwLock};
use sled::{Batch, Config, Db, Mode, Tree};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

const FOLDER: &str = "sled";
const META: &str = "meta";
const IDENTITY: &str = "identity";
const REVISION: &str = "revision";
const FORMAT: &str = "format";
const FORMAT_NOW: u32 = 1;
const CACHE_BYTES: u64 = 64 << 20;
/// Writes that are handed to sled as one batch: bounds what it copies at once.
const BATCH: usize = 1024;
/// Keys of a snapshot that a scan reads under one lock.
const PAGE: usize = 1024;

/// The index in a sled tree.
pub(super) struct SledEngine {
    trees: Trees,
    meta: Tree,
    db: Db,
    /// Snapshots that may be alive.
    snapshots: Mutex<Vec<Weak<RwLock<Undo>>>>,
    /// Held while writes are applied, and while a snapshot is taken.
    turn: Mutex<()>,
    identity: u128,
    sys: Sys,
    dir: PathBuf,
}

type Trees = [Tree; 4];

/// What keys were when the snapshot was taken, of those written since; `None` = absent.
#[derive(Default, Debug)]
struct Undo {
    tables: [BTreeMap<Bytes, Option<Bytes>>; 4],
}

impl fmt::Debug for SledEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SledEngine({})", self.dir.display())
    }
}

impl SledEngine {
    pub(super) fn open(sys: &Sys, dir: &Path) -> Result<Self> {
        folder::open(dir, || Self::open_or_panic(sys, dir))
    }

    fn open_or_panic(sys: &Sys, dir: &Path) -> Result<Self> {
        folder::finish_discard(dir, FOLDER)?;
        // Syncing is a checkpoint's, so nothing is flushed in the background.
        let config = Config::new()
            .path(dir.join(FOLDER))
            .cache_capacity(CACHE_BYTES)
            .mode(Mode::HighThroughput)
            .flush_every_ms(None);
        let db = folder::once_free(|| config.open(), is_held).map_err(broken)?;
        let meta = db.open_tree(META).map_err(broken)?;
        let identity = match meta.get(IDENTITY).map_err(broken)? {
            Some(id) => {
                folder::check_format(&meta.get(FORMAT).map_err(broken)?.unwrap_or_default(), FORMAT_NOW)?;
                u128::from_le_bytes(folder::fixed(&id)?)
            }
            None => create_identity(sys, &db, &meta)?,
        };
        let tree = |table: Table| db.open_tree(table.name()).map_err(broken);
        let [names, blobs, inline, unnamed] = Table::ALL;
        let trees = [tree(names)?, tree(blobs)?, tree(inline)?, tree(unnamed)?];
        let (snapshots, turn) = (Mutex::default(), Mutex::new(()));
        Ok(Self { trees, meta, db, snapshots, turn, identity, sys: sys.clone(), dir: dir.to_owned() })
    }

    fn tree(&self, table: Table) -> &Tree {
        &self.trees[table.number()]
    }

    /// Notes in every snapshot that is alive what `writes` are about to replace.
    fn note(&self, writes: &[Write]) -> Result<()> {
        let mut snapshots = self.snapshots.lock();
        snapshots.retain(|snapshot| snapshot.strong_count() > 0);
        for snapshot in snapshots.iter().filter_map(Weak::upgrade) {
            let mut undo = snapshot.write();
            for write in writes {
                let noted = &mut undo.tables[write.table.number()];
                if !noted.contains_key(&write.key) {
                    noted.insert(write.key.clone(), get(self.tree(write.table), &write.key)?);
                }
            }
        }
        Ok(())
    }

    /// What sled calls a flush starts the writing on Linux and does not wait for the disk.
    fn sync(&self, folder: &Path) -> Result<()> {
        let disk = &self.sys.disk;
        for entry in disk.list(folder).map_err(|e| failed("list", folder, e))? {
            let path = folder.join(&entry.name);
            if entry.is_dir {
                self.sync(&path)?;
                continue;
            }
            match disk.open(&path, Open::Write).and_then(|file| file.sync()) {
                // sled removes what it has moved elsewhere.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                done => done.map_err(|e| failed("sync", &path, e))?,
            }
        }
        disk.sync_dir(folder).map_err(|e| failed("sync", folder, e))
    }

    fn write(&self, writes: Vec<Write>) -> Result<()> {
        let mut batches: [Batch; 4] = Default::default();
        for Write { table, key, value } in writes {
            let batch = &mut batches[table.number()];
            match value {
                Some(value) => batch.insert(&key[..], &value[..]),
                None => batch.remove(&key[..]),
            }
        }
        for (tree, batch) in self.trees.iter().zip(batches) {
            tree.apply_batch(batch).map_err(broken)?;
        }
        Ok(())
    }
}

impl View for SledEngine {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        get(self.tree(table), key)
    }

    fn scan(&self, table: Table, start: Bound<&[u8]>, limit: usize, each: Each<'_>) -> Result<()> {
        for pair in self.tree(table).range::<&[u8], _>((start, Bound::Unbounded)).take(limit) {
            let (key, value) = pair.map_err(broken)?;
            if each(Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value)) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }
}

impl Engine for SledEngine {
    fn kind(&self) -> EngineKind {
        EngineKind::Sled
    }

    fn identity(&self) -> u128 {
        self.identity
    }

    fn snapshot(&self) -> Result<Box<dyn View>> {
        let _turn = self.turn.lock();
        let undo = Arc::<RwLock<Undo>>::default();
        self.snapshots.lock().push(Arc::downgrade(&undo));
        Ok(Box::new(SledView { trees: self.trees.clone(), undo }))
    }

    fn apply(&self, writes: Vec<Write>, revision: Revision) -> Result<()> {
        let _turn = self.turn.lock();
        let mut writes = writes.into_iter().peekable();
        while writes.peek().is_some() {
            let some: Vec<Write> = writes.by_ref().take(BATCH).collect();
            self.note(&some)?;
            self.write(some)?;
        }
        self.meta.insert(REVISION, &revision.0.to_le_bytes()).map_err(broken)?;
        Ok(())
    }

    fn revision(&self) -> Result<Revision> {
        match self.meta.get(REVISION).map_err(broken)? {
            Some(bytes) => Ok(Revision(u64::from_le_bytes(folder::fixed(&bytes)?))),
            None => Ok(Revision(0)),
        }
    }

    fn checkpoint(&self) -> Result<Revision> {
        let _turn = self.turn.lock();
        let revision = self.revision()?;
        self.db.flush().map_err(broken)?;
        self.sync(&self.dir.join(FOLDER))?;
        self.sys.disk.sync_dir(&self.dir).map_err(|e| failed("sync", &self.dir, e))?;
        Ok(revision)
    }

    fn wipe(self: Box<Self>) -> Result<Box<dyn Engine>> {
        let (sys, dir) = (self.sys.clone(), self.dir.clone());
        drop(self);
        discard(&dir)?;
        Ok(Box::new(Self::open(&sys, &dir)?))
    }

    fn about(&self, table: Table) -> u64 {
        self.tree(table).len() as u64
    }
}

/// The index as it was once.
struct SledView {
    trees: Trees,
    undo: Arc<RwLock<Undo>>,
}

impl View for SledView {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        let undo = self.undo.read();
        match undo.tables[table.number()].get(key) {
            Some(then) => Ok(then.clone()),
            None => get(&self.trees[table.number()], key),
        }
    }

    fn scan(&self, table: Table, start: Bound<&[u8]>, limit: usize, each: Each<'_>) -> Result<()> {
        let mut start = start.map(Bytes::copy_from_slice);
        let mut left = limit;
        while left > 0 {
            let page = self.page(table, start.as_ref().map(|b| &b[..]))?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            start = Bound::Excluded(last.clone());
            for (key, value) in page {
                let Some(value) = value else { continue };
                left -= 1;
                if each(key, value) == ControlFlow::Break(()) || left == 0 {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

impl SledView {
    /// The first keys from `start` on that are in the tree or were, and what they were.
    fn page(&self, table: Table, start: Bound<&[u8]>) -> Result<Vec<(Bytes, Option<Bytes>)>> {
        let undo = self.undo.read();
        let mut then = undo.tables[table.number()].range::<[u8], _>((start, Bound::Unbounded)).peekable();
        let mut page = Vec::new();
        let own = |(key, value): (&Bytes, &Option<Bytes>)| (key.clone(), value.clone());
        for pair in self.trees[table.number()].range::<&[u8], _>((start, Bound::Unbounded)) {
            let (key, value) = pair.map_err(broken)?;
            while page.len() < PAGE
                && let Some(noted) = then.next_if(|(noted, _)| noted[..] < key[..])
            {
                page.push(own(noted));
            }
            if page.len() >= PAGE {
                return Ok(page);
            }
            page.push(match then.next_if(|(noted, _)| noted[..] == key[..]) {
                Some(noted) => own(noted),
                None => (Bytes::copy_from_slice(&key), Some(Bytes::copy_from_slice(&value))),
            });
        }
        page.extend(then.take(PAGE - page.len().min(PAGE)).map(own));
        Ok(page)
    }
}

fn get(tree: &Tree, key: &[u8]) -> Result<Option<Bytes>> {
    Ok(tree.get(key).map_err(broken)?.map(|value| Bytes::copy_from_slice(&value)))
}

fn create_identity(sys: &Sys, db: &Db, meta: &Tree) -> Result<u128> {
    let identity = sys.rng.next_u128();
    let mut batch = Batch::default();
    batch.insert(FORMAT, &FORMAT_NOW.to_le_bytes());
    batch.insert(IDENTITY, &identity.to_le_bytes());
    meta.apply_batch(batch).map_err(broken)?;
    db.flush().map_err(broken)?;
    Ok(identity)
}

/// Whether another process holds the lock: what sled gives for that.
fn is_held(e: &sled::Error) -> bool {
    matches!(e, sled::Error::Io(io) if io.kind() == io::ErrorKind::Other)
}

fn broken(e: sled::Error) -> Error {
    let error = match &e {
        held if is_held(held) => Error::unavailable(format!(
            "the index cannot be used, {e}: stop the process that uses it, or check the disk"
        )),
        sled::Error::Io(io) if !folder::is_damage(io) => folder::refused(io, &e),
        _ => Error::corrupt(format!("the index is damaged, {e}: restore the data directory from a backup")),
    };
    error.caused_by(e)
}

/// Removes the index, whatever its state.
pub(super) fn discard(dir: &Path) -> Result<()> {
    folder::discard(dir, FOLDER)
}
