//! The index in a fjall LSM tree (<https://docs.rs/fjall>): everything that knows fjall is in this file.
//!
//! Invariants: one keyspace a table and one for what the index says of itself; an `apply` is one batch of
//! fjall's own log, written without a sync, because dstore's journal holds the same; a checkpoint syncs that
//! log, and fjall syncs what it moves out of it by itself. Keys and values are copied on their way in: they
//! are slices of network frames, and a memtable must not keep those.
//!
//! Memory: at most five memtables a keyspace and the block cache, about 400 MiB if all fill at once, which
//! only the disk's falling behind can bring about; see [`Tuning`].

use super::{Each, Engine, EngineKind, Table, View, Write};
use crate::sealed::failed;
use bytes::Bytes;
use dstore_shared::{Error, Result, Revision};
use dstore_sys::Sys;
use fjall::{
    CompressionType, Database, Guard, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, OwnedWriteBatch,
    PersistMode, Readable, Snapshot,
};
use std::fmt;
use std::ops::{Bound, ControlFlow};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

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
    /// fjall's own log, on disk. It is only read after a crash, and what is in it is also in the journal.
    log: u64,
    /// Small tables: 16 MiB hold 100,000 names; larger ones make each lookup slower.
    memtable: u64,
    /// Inline values: large enough that few are rewritten by compaction.
    inline_memtable: u64,
    /// Values from here on are kept out of the tree, so that compaction moves 40 bytes and not 64 KiB.
    separate: u32,
}

const TUNING: Tuning = Tuning {
    cache: 64 << 20,
    log: 256 << 20,
    memtable: 16 << 20,
    inline_memtable: 32 << 20,
    separate: 1 << 10,
};

/// The index in a fjall LSM tree.
pub(super) struct FjallEngine {
    tables: Tables,
    meta: Keyspace,
    db: Database,
    identity: u128,
    revision: AtomicU64,
    sys: Sys,
    dir: PathBuf,
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
            .max_journaling_size(TUNING.log)
            .journal_compression(CompressionType::None)
            .worker_threads(2)
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
        Ok(Self { tables, meta, db, identity, revision: revision.into(), sys, dir })
    }

    fn batch(&self, mut writes: Vec<Write>, revision: Revision) -> OwnedWriteBatch {
        // All writes of a batch get one sequence number, so only the last of a key may be in it.
        writes.sort_by(|a, b| (a.table, &a.key).cmp(&(b.table, &b.key)));
        let mut batch = OwnedWriteBatch::with_capacity(self.db.clone(), writes.len() + 1);
        let mut writes = writes.into_iter().peekable();
        while let Some(write) = writes.next() {
            if writes.peek().is_some_and(|next| (next.table, &next.key) == (write.table, &write.key)) {
                continue;
            }
            let table = &self.tables[write.table.number()];
            match write.value {
                Some(value) => batch.insert(table, &write.key[..], &value[..]),
                None => batch.remove(table, &write.key[..]),
            }
        }
        batch.insert(&self.meta, REVISION, revision.0.to_le_bytes());
        batch
    }
}

impl View for FjallEngine {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        let value = self.tables[table.number()].get(key).map_err(broken)?;
        Ok(value.map(Bytes::from))
    }

    fn scan(&self, table: Table, start: Bound<&[u8]>, limit: usize, each: Each<'_>) -> Result<()> {
        walk(self.tables[table.number()].range::<&[u8], _>((start, Bound::Unbounded)), limit, each)
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
        Ok(Box::new(FjallView { tables: self.tables.clone(), snapshot: self.db.snapshot() }))
    }

    fn apply(&self, writes: Vec<Write>, revision: Revision) -> Result<()> {
        self.batch(writes, revision).commit().map_err(broken)?;
        self.revision.store(revision.0, Ordering::Release);
        Ok(())
    }

    fn revision(&self) -> Result<Revision> {
        Ok(Revision(self.revision.load(Ordering::Acquire)))
    }

    fn checkpoint(&self) -> Result<Revision> {
        let revision = self.revision()?;
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
        self.tables[table.number()].approximate_len() as u64
    }
}

/// The index as it was once.
struct FjallView {
    tables: Tables,
    snapshot: Snapshot,
}

impl View for FjallView {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        let value = self.snapshot.get(&self.tables[table.number()], key).map_err(broken)?;
        Ok(value.map(Bytes::from))
    }

    fn scan(&self, table: Table, start: Bound<&[u8]>, limit: usize, each: Each<'_>) -> Result<()> {
        let table = &self.tables[table.number()];
        walk(self.snapshot.range::<&[u8], _>(table, (start, Bound::Unbounded)), limit, each)
    }
}

fn walk(found: impl Iterator<Item = Guard>, limit: usize, each: Each<'_>) -> Result<()> {
    for guard in found.take(limit) {
        let (key, value) = guard.into_inner().map_err(broken)?;
        if each(key.into(), value.into()) == ControlFlow::Break(()) {
            break;
        }
    }
    Ok(())
}

fn options(table: Table) -> KeyspaceCreateOptions {
    let options = KeyspaceCreateOptions::default();
    match table {
        Table::Inline => {
            let apart = KvSeparationOptions::default()
                .separation_threshold(TUNING.separate)
                .compression(CompressionType::None);
            options.max_memtable_size(TUNING.inline_memtable).with_kv_separation(Some(apart))
        }
        Table::Names | Table::Blobs | Table::Unnamed => options.max_memtable_size(TUNING.memtable),
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
    bytes.try_into().map_err(|_| Error::corrupt("the index says nonsense of itself: run `dstore check`"))
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
        _ => Error::corrupt(format!("the index is damaged, {e}: run `dstore check`")),
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
