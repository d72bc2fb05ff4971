//! The index in a fjall LSM tree (<https://docs.rs/fjall>): everything that knows fjall is in this file.
//!
//! fjall's own log and memtables are not used for the tables: dstore's journal holds every write already, so
//! writes gather in memory and go to disk as sorted runs, at once for a whole layer. That costs a third of the
//! processor time and half of the disk's bandwidth of writing through fjall's log.
//!
//! Invariants: one keyspace a table and one for what the index says of itself; a layer that is being stored
//! stays readable until it is stored; a checkpoint stores the layer, and fjall syncs what it stores; the folder
//! of separated values is synced here, because fjall does not. A crash loses layers, which are redone.
//!
//! Memory: two layers and the block cache, about 130 MiB; see [`Tuning`].

use super::fresh::{self, Fresh, Page, Sorted};
use super::{Each, Engine, EngineKind, Table, View, Write};
use crate::sealed::failed;
use bytes::Bytes;
use dstore_shared::{Error, Result, Revision};
use dstore_sys::Sys;
use fjall::{
    CompressionType, Database, Guard, Iter, Keyspace, KeyspaceCreateOptions, KvSeparationOptions,
    PersistMode, Readable, Snapshot,
};
use parking_lot::{Mutex, RwLock};
use std::fmt;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const FOLDER: &str = "fjall";
const META: &str = "meta";
const IDENTITY: &str = "identity";
const REVISION: &str = "revision";
const FORMAT: &str = "format";
const FORMAT_NOW: u32 = 1;

/// Sizes that decide how much memory and disk fjall takes.
struct Tuning {
    /// Blocks and small values read: index blocks and filters of 10 M names fit.
    cache: u64,
    /// A layer of writes is stored when it has so many bytes: fewer and longer runs mean less compaction.
    layer: usize,
    /// Values from here on are kept out of the tree, so that compaction moves 40 bytes and not 64 KiB.
    separate: u32,
    /// Storing waits for compaction when a table has so many young runs, for at most `patience`: each run
    /// makes a cold read a little slower, and none may be left behind for ever.
    young_runs: usize,
    patience: Duration,
}

const TUNING: Tuning = Tuning {
    cache: 64 << 20,
    layer: 32 << 20,
    separate: 1 << 10,
    young_runs: 16,
    patience: Duration::from_secs(5),
};

/// Keys written between two chances for readers of the layer.
const PUTS_UNDER_LOCK: usize = 128;

/// The index in a fjall LSM tree.
pub(super) struct FjallEngine {
    tables: Tables,
    meta: Keyspace,
    db: Database,
    layers: RwLock<Layers>,
    /// Held while writes are applied or stored, and while a snapshot is taken.
    turn: Mutex<()>,
    identity: u128,
    revision: AtomicU64,
    sys: Sys,
    dir: PathBuf,
}

/// What is not stored yet.
#[derive(Clone, Default, Debug)]
struct Layers {
    fresh: Fresh,
    /// Is being stored.
    storing: Arc<Fresh>,
}

impl Layers {
    fn get(&self, table: Table, key: &[u8]) -> Option<&Option<Bytes>> {
        self.fresh.get(table, key).or_else(|| self.storing.get(table, key))
    }

    fn page(&self, table: Table, start: Bound<&[u8]>) -> Page {
        Page::of(&[&self.fresh, &self.storing], table, start)
    }
}

type Tables = [Keyspace; 4];

impl fmt::Debug for FjallEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FjallEngine({})", self.dir.display())
    }
}

impl FjallEngine {
    pub(super) fn open(sys: &Sys, dir: &Path) -> Result<Self> {
        // fjall asserts what it finds in its files; a damaged index must not end the process.
        catch_unwind(AssertUnwindSafe(|| Self::open_or_panic(sys, dir))).unwrap_or_else(|_| {
            let dir = dir.display();
            Err(Error::corrupt(format!(
                "the index in `{dir}` is damaged: it is rebuilt if the journal allows"
            )))
        })
    }

    fn open_or_panic(sys: &Sys, dir: &Path) -> Result<Self> {
        finish_discard(dir)?;
        let db = Database::builder(dir.join(FOLDER))
            .cache_size(TUNING.cache)
            .worker_threads(1)
            .open()
            .map_err(broken)?;
        let meta = db.keyspace(META, KeyspaceCreateOptions::default).map_err(broken)?;
        let identity = match meta.get(IDENTITY).map_err(broken)? {
            Some(id) => {
                check_format(&meta)?;
                u128::from_le_bytes(fixed(&id)?)
            }
            None => create_identity(sys, &db, &meta)?,
        };
        let table = |table: Table| db.keyspace(table.name(), || options(table)).map_err(broken);
        let [names, blobs, inline, unnamed] = Table::ALL;
        let tables = [table(names)?, table(blobs)?, table(inline)?, table(unnamed)?];
        let revision = match meta.get(REVISION).map_err(broken)? {
            Some(bytes) => u64::from_le_bytes(fixed(&bytes)?),
            None => 0,
        };
        let (sys, dir) = (sys.clone(), dir.to_owned());
        let (layers, turn) = (RwLock::default(), Mutex::new(()));
        Ok(Self { tables, meta, db, layers, turn, identity, revision: revision.into(), sys, dir })
    }

    /// Moves the layer of writes to disk. The caller has the turn.
    fn store(&self) -> Result<()> {
        let storing = {
            let mut layers = self.layers.write();
            layers.storing = Arc::new(std::mem::take(&mut layers.fresh));
            layers.storing.clone()
        };
        for table in Table::ALL {
            self.store_table(&self.tables[table.number()], storing.table(table))?;
        }
        self.meta.insert(REVISION, self.revision.load(Ordering::Acquire).to_le_bytes()).map_err(broken)?;
        self.layers.write().storing = Arc::default();
        Ok(())
    }

    fn store_table(&self, table: &Keyspace, keys: &Sorted) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        self.await_compaction(table);
        let mut run = table.start_ingestion().map_err(broken)?;
        for (key, value) in keys {
            match value {
                Some(value) => run.write(key.clone(), value.clone()),
                None => run.write_tombstone(key.clone()),
            }
            .map_err(broken)?;
        }
        run.finish().map_err(broken)
    }

    fn await_compaction(&self, table: &Keyspace) {
        let start = self.sys.clock.now();
        while table.l0_table_count() >= TUNING.young_runs
            && self.sys.clock.now().since(start) < TUNING.patience
        {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn sync_separated(&self) -> Result<()> {
        let dir = self.tables[Table::Inline.number()].path().join("blobs");
        match self.sys.disk.sync_dir(&dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            done => done.map_err(|e| failed("sync", &dir, e)),
        }
    }
}

impl View for FjallEngine {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        if let Some(value) = self.layers.read().get(table, key) {
            return Ok(value.clone());
        }
        let value = self.tables[table.number()].get(key).map_err(broken)?;
        Ok(value.map(Bytes::from))
    }

    fn scan(&self, table: Table, start: Bound<&[u8]>, limit: usize, each: Each<'_>) -> Result<()> {
        let page = |from: Bound<&[u8]>| self.layers.read().page(table, from);
        let stored = &self.tables[table.number()];
        fresh::scan(start, limit, each, page, |from, to| pairs(stored.range::<&[u8], _>((from, to))))
    }
}

impl Engine for FjallEngine {
    fn kind(&self) -> EngineKind {
        EngineKind::Fjall
    }

    fn identity(&self) -> u128 {
        self.identity
    }

    fn snapshot(&self) -> Result<Box<dyn View>> {
        let _turn = self.turn.lock();
        let layers = self.layers.read().clone();
        Ok(Box::new(FjallView { tables: self.tables.clone(), layers, snapshot: self.db.snapshot() }))
    }

    fn apply(&self, writes: Vec<Write>, revision: Revision) -> Result<()> {
        let _turn = self.turn.lock();
        let mut writes = writes.into_iter().peekable();
        while writes.peek().is_some() {
            let mut layers = self.layers.write();
            for write in writes.by_ref().take(PUTS_UNDER_LOCK) {
                layers.fresh.put(write);
            }
        }
        self.revision.store(revision.0, Ordering::Release);
        let full = self.layers.read().fresh.bytes() >= TUNING.layer;
        if full { self.store() } else { Ok(()) }
    }

    fn revision(&self) -> Result<Revision> {
        Ok(Revision(self.revision.load(Ordering::Acquire)))
    }

    fn checkpoint(&self) -> Result<Revision> {
        let _turn = self.turn.lock();
        let revision = self.revision()?;
        self.store()?;
        self.sync_separated()?;
        self.db.persist(PersistMode::SyncAll).map_err(broken)?;
        Ok(revision)
    }

    fn wipe(self: Box<Self>) -> Result<Box<dyn Engine>> {
        let (sys, dir) = (self.sys.clone(), self.dir.clone());
        drop(self);
        discard(&dir)?;
        Ok(Box::new(Self::open(&sys, &dir)?))
    }

    fn about(&self, table: Table) -> u64 {
        let fresh = self.layers.read().fresh.table(table).len();
        (self.tables[table.number()].approximate_len() + fresh) as u64
    }
}

/// The index as it was once.
struct FjallView {
    tables: Tables,
    layers: Layers,
    snapshot: Snapshot,
}

impl View for FjallView {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        if let Some(value) = self.layers.get(table, key) {
            return Ok(value.clone());
        }
        let value = self.snapshot.get(&self.tables[table.number()], key).map_err(broken)?;
        Ok(value.map(Bytes::from))
    }

    fn scan(&self, table: Table, start: Bound<&[u8]>, limit: usize, each: Each<'_>) -> Result<()> {
        let page = |from: Bound<&[u8]>| self.layers.page(table, from);
        let stored = &self.tables[table.number()];
        fresh::scan(start, limit, each, page, |from, to| {
            pairs(self.snapshot.range::<&[u8], _>(stored, (from, to)))
        })
    }
}

fn pairs(found: Iter) -> impl Iterator<Item = Result<(Bytes, Bytes)>> {
    found.map(|guard: Guard| {
        let (key, value) = guard.into_inner().map_err(broken)?;
        Ok((key.into(), value.into()))
    })
}

fn options(table: Table) -> KeyspaceCreateOptions {
    let options = KeyspaceCreateOptions::default();
    match table {
        Table::Inline => {
            let apart = KvSeparationOptions::default()
                .separation_threshold(TUNING.separate)
                .compression(CompressionType::None);
            options.with_kv_separation(Some(apart))
        }
        Table::Names | Table::Blobs | Table::Unnamed => options,
    }
}

fn create_identity(sys: &Sys, db: &Database, meta: &Keyspace) -> Result<u128> {
    let identity = sys.rng.next_u128();
    let mut batch = db.batch();
    batch.insert(meta, FORMAT, FORMAT_NOW.to_le_bytes());
    batch.insert(meta, IDENTITY, identity.to_le_bytes());
    batch.commit().map_err(broken)?;
    db.persist(PersistMode::SyncAll).map_err(broken)?;
    Ok(identity)
}

fn check_format(meta: &Keyspace) -> Result<()> {
    let found = meta.get(FORMAT).map_err(broken)?.unwrap_or_default();
    let found = u32::from_le_bytes(fixed(&found)?);
    if found > FORMAT_NOW {
        return Err(Error::invalid(format!(
            "the index has format `{found}`, this dstore knows `{FORMAT_NOW}`: use the newer dstore"
        )));
    }
    Ok(())
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| {
        Error::corrupt("the index says nonsense of itself: restore the data directory from a backup")
    })
}

fn broken(e: fjall::Error) -> Error {
    let error = match &e {
        fjall::Error::Locked => {
            Error::unavailable("the index is in use by another process: stop that process")
        }
        fjall::Error::Io(_) | fjall::Error::Poisoned => {
            Error::unavailable(format!("the index cannot be read or written, {e}: check the disk"))
        }
        fjall::Error::InvalidVersion(Some(_)) => {
            Error::invalid(format!("the index is of another version of fjall, {e}: use that dstore"))
        }
        _ => Error::corrupt(format!("the index is damaged, {e}: restore the data directory from a backup")),
    };
    error.caused_by(e)
}

/// Removes the index. It is renamed first, so that a crash leaves none of it or all of it.
pub(super) fn discard(dir: &Path) -> Result<()> {
    finish_discard(dir)?;
    let (folder, gone) = (dir.join(FOLDER), dir.join("fjall.gone"));
    match std::fs::metadata(&folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed("look at", &folder, e)),
        Ok(_) => {}
    }
    rename(&folder, &gone)?;
    finish_discard(dir)
}

fn finish_discard(dir: &Path) -> Result<()> {
    let gone = dir.join("fjall.gone");
    match std::fs::remove_dir_all(&gone) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => done.map_err(|e| failed("remove", &gone, e)),
    }
}

#[expect(clippy::disallowed_methods, reason = "fjall's own folder does not go through the disk seam")]
fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).map_err(|e| failed("rename", from, e))
}
