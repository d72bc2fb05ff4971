//! The index in a fjall LSM tree (<https://docs.rs/fjall>): everything that knows fjall is in this file.
//!
//! Many writes do not go through fjall's own log and memtables: dstore's journal holds them already, and the
//! catalog gathers them, so those of one apply go to disk as a sorted run. That costs a third of the processor
//! time and half of the disk's bandwidth of writing through fjall's log. A few do, because a run is a file.
//!
//! Invariants: one keyspace a table and one for what the index says of itself; fjall syncs the runs it stores,
//! and stores before a run what is in memory; its log and the folder of separated values are synced at a
//! checkpoint, the latter here, because fjall does not. A crash may lose what was applied since, which is
//! redone.
//!
//! Memory: the block cache, 64 MiB; see [`Tuning`].

use super::{Each, Engine, EngineKind, Table, View, Write, folder};
use crate::sealed::failed;
use bytes::Bytes;
use dstore_shared::{Error, Result, Revision};
use dstore_sys::Sys;
use fjall::{
    CompressionType, Database, Iter, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode,
    Readable, Slice, Snapshot,
};
use parking_lot::Mutex;
use std::fmt;
use std::io;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
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
    /// Values from here on are kept out of the tree, so that compaction moves 40 bytes and not 64 KiB.
    separate: u32,
    /// Up to so many writes go through fjall's log.
    few: usize,
    /// Storing waits for compaction when a table has so many young runs, for at most `patience`: each run
    /// makes a cold read a little slower, and none may be left behind for ever.
    young_runs: usize,
    patience: Duration,
}

const TUNING: Tuning =
    Tuning { cache: 64 << 20, separate: 1 << 10, few: 256, young_runs: 16, patience: Duration::from_secs(5) };

/// The index in a fjall LSM tree.
pub(super) struct FjallEngine {
    tables: Tables,
    meta: Keyspace,
    db: Database,
    /// Held while writes are applied, and while a snapshot is taken.
    turn: Mutex<()>,
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
        folder::open(dir, || Self::open_or_panic(sys, dir))
    }

    fn open_or_panic(sys: &Sys, dir: &Path) -> Result<Self> {
        folder::finish_discard(dir, FOLDER)?;
        no_keyspace_is_lost(dir)?;
        let builder = || Database::builder(dir.join(FOLDER)).cache_size(TUNING.cache).worker_threads(1);
        let is_held = |e: &fjall::Error| matches!(e, fjall::Error::Locked);
        let db = folder::once_free(|| builder().open(), is_held).map_err(broken)?;
        let meta = db.keyspace(META, KeyspaceCreateOptions::default).map_err(broken)?;
        let identity = match meta.get(IDENTITY).map_err(broken)? {
            Some(id) => {
                folder::check_format(&meta.get(FORMAT).map_err(broken)?.unwrap_or_default(), FORMAT_NOW)?;
                u128::from_le_bytes(folder::fixed(&id)?)
            }
            None => create_identity(sys, &db, &meta)?,
        };
        let table = |table: Table| db.keyspace(table.name(), || options(table)).map_err(broken);
        let [names, blobs, inline, unnamed] = Table::ALL;
        let tables = [table(names)?, table(blobs)?, table(inline)?, table(unnamed)?];
        let revision = match meta.get(REVISION).map_err(broken)? {
            Some(bytes) => u64::from_le_bytes(folder::fixed(&bytes)?),
            None => 0,
        };
        let (sys, dir) = (sys.clone(), dir.to_owned());
        let turn = Mutex::new(());
        Ok(Self { tables, meta, db, turn, identity, revision: revision.into(), sys, dir })
    }

    /// Stores writes as a run a table.
    fn store(&self, writes: Vec<Write>) -> Result<()> {
        let mut tables: [Vec<Write>; 4] = Default::default();
        for write in writes {
            tables[write.table.number()].push(write);
        }
        for (table, mut writes) in self.tables.iter().zip(tables) {
            // Stable: of two writes of a key the later one stays the later one.
            writes.sort_by(|a, b| a.key.cmp(&b.key));
            self.store_run(table, writes)?;
        }
        Ok(())
    }

    /// Stores writes of one table, sorted by their keys, as a run.
    fn store_run(&self, table: &Keyspace, writes: Vec<Write>) -> Result<()> {
        if writes.is_empty() {
            return Ok(());
        }
        self.await_compaction(table);
        let mut run = table.start_ingestion().map_err(broken)?;
        let mut writes = writes.into_iter().peekable();
        while let Some(Write { key, value, .. }) = writes.next() {
            if writes.peek().is_some_and(|later| later.key == key) {
                continue;
            }
            match value {
                Some(value) => run.write(key, value),
                None => run.write_tombstone(key),
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
        let value = self.tables[table.number()].get(key).map_err(broken)?;
        Ok(value.map(own))
    }

    fn scan(&self, table: Table, start: Bound<&[u8]>, limit: usize, each: Each<'_>) -> Result<()> {
        hand_on(self.tables[table.number()].range::<&[u8], _>((start, Bound::Unbounded)), limit, each)
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
        Ok(Box::new(FjallView { tables: self.tables.clone(), snapshot: self.db.snapshot() }))
    }

    fn apply(&self, writes: Vec<Write>, revision: Revision) -> Result<()> {
        let _turn = self.turn.lock();
        let mut batch = self.db.batch();
        if writes.len() <= TUNING.few {
            for Write { table, key, value } in writes {
                let table = &self.tables[table.number()];
                match value {
                    Some(value) => batch.insert(table, key, value),
                    None => batch.remove(table, key),
                }
            }
        } else {
            self.store(writes)?;
        }
        batch.insert(&self.meta, REVISION, revision.0.to_le_bytes());
        batch.commit().map_err(broken)?;
        self.revision.store(revision.0, Ordering::Release);
        Ok(())
    }

    fn revision(&self) -> Result<Revision> {
        Ok(Revision(self.revision.load(Ordering::Acquire)))
    }

    fn checkpoint(&self) -> Result<Revision> {
        let _turn = self.turn.lock();
        let revision = self.revision()?;
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
        Ok(value.map(own))
    }

    fn scan(&self, table: Table, start: Bound<&[u8]>, limit: usize, each: Each<'_>) -> Result<()> {
        let stored = &self.tables[table.number()];
        hand_on(self.snapshot.range::<&[u8], _>(stored, (start, Bound::Unbounded)), limit, each)
    }
}

fn hand_on(found: Iter, limit: usize, each: Each<'_>) -> Result<()> {
    for guard in found.take(limit) {
        let (key, value) = guard.into_inner().map_err(broken)?;
        if each(key.into(), value.into()) == ControlFlow::Break(()) {
            break;
        }
    }
    Ok(())
}

/// The bytes of a value, which may be a part of a block that must not be kept in memory for it.
fn own(value: Slice) -> Bytes {
    if value.len() < TUNING.separate as usize { Bytes::copy_from_slice(&value) } else { value.into() }
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

/// fjall takes a keyspace without this file for one that was never finished, and begins it anew, empty, without a word:
/// every name would be gone, and nobody would know. We never leave one unfinished but when the whole index is new.
fn no_keyspace_is_lost(dir: &Path) -> Result<()> {
    let keyspaces = dir.join(FOLDER).join("keyspaces");
    let found = match std::fs::read_dir(&keyspaces) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(|e| failed("list", &keyspaces, e))?,
    };
    for entry in found {
        let path = entry.map_err(|e| failed("list", &keyspaces, e))?.path();
        let current = path.join("current");
        if path.is_dir() && !current.try_exists().map_err(|e| failed("look at", &current, e))? {
            let current = current.display();
            return Err(Error::corrupt(format!(
                "the index is damaged, `{current}` is missing: restore the data directory from a backup"
            )));
        }
    }
    Ok(())
}

fn broken(e: fjall::Error) -> Error {
    let outside = outside(&e).map(|io| folder::refused(io, &e));
    let error = match &e {
        fjall::Error::Locked => {
            Error::unavailable("the index is in use by another process: stop that process")
        }
        fjall::Error::InvalidVersion(Some(_)) => {
            Error::invalid(format!("the index is of another version of fjall, {e}: use that dstore"))
        }
        fjall::Error::Poisoned => {
            Error::unavailable(format!("the index cannot be written, {e}: check the disk, restart dstore"))
        }
        _ => outside.unwrap_or_else(|| {
            Error::corrupt(format!("the index is damaged, {e}: restore the data directory from a backup"))
        }),
    };
    error.caused_by(e)
}

/// What the system refused, which says nothing of what is stored, if that is it. A file that is missing or too
/// short is damage.
fn outside<'a>(e: &'a (dyn std::error::Error + 'static)) -> Option<&'a io::Error> {
    let mut causes = std::iter::successors(Some(e), |e| e.source());
    let io = causes.find_map(|e| e.downcast_ref::<io::Error>());
    io.filter(|io| !folder::is_damage(io))
}

/// Removes the index, whatever its state.
pub(super) fn discard(dir: &Path) -> Result<()> {
    folder::discard(dir, FOLDER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dstore_shared::Kind;
    use dstore_sys::disk::{Disk, RealDisk};

    #[test]
    fn a_keyspace_that_lost_its_file_is_damage_and_not_empty() {
        let dir = tempfile::tempdir().unwrap();
        let write = || Write { table: Table::Names, key: "k".into(), value: Some("v".into()) };
        let engine = FjallEngine::open(&Sys::real(), dir.path()).unwrap();
        engine.apply(vec![write()], Revision(1)).unwrap();
        engine.checkpoint().unwrap();
        drop(engine);
        let mut keyspaces = 0;
        for entry in std::fs::read_dir(dir.path().join(FOLDER).join("keyspaces")).unwrap() {
            let (current, aside) = (entry.unwrap().path().join("current"), dir.path().join("aside"));
            std::fs::copy(&current, &aside).unwrap();
            RealDisk.remove(&current).unwrap();
            let e = FjallEngine::open(&Sys::real(), dir.path()).expect_err("a file is missing");
            assert!(e.kind() == Kind::Corrupt && e.message().contains("/current` is missing"), "{e}");
            std::fs::copy(&aside, &current).unwrap();
            keyspaces += 1;
        }
        assert!(keyspaces >= 5, "{keyspaces}");
        let engine = FjallEngine::open(&Sys::real(), dir.path()).unwrap();
        assert_eq!(engine.revision().unwrap(), Revision(1));
    }

    #[test]
    fn a_system_that_refuses_is_not_taken_for_damage() {
        let kind = |e: fjall::Error| broken(e).kind();
        let io = |kind: io::ErrorKind| io::Error::from(kind);
        let too_many = || io::Error::from_raw_os_error(24);
        assert_eq!(kind(fjall::Error::Io(too_many())), Kind::Unavailable);
        assert_eq!(kind(fjall::Error::Storage(fjall::LsmError::Io(too_many()))), Kind::Unavailable);
        assert_eq!(kind(fjall::Error::Io(io(io::ErrorKind::PermissionDenied))), Kind::Unavailable);
        assert_eq!(kind(fjall::Error::Storage(fjall::LsmError::Unrecoverable)), Kind::Corrupt);
        assert_eq!(kind(fjall::Error::Io(io(io::ErrorKind::UnexpectedEof))), Kind::Corrupt);
        let before_the_beginning = || io::Error::from_raw_os_error(22);
        assert_eq!(
            kind(fjall::Error::Storage(fjall::LsmError::Io(before_the_beginning()))),
            Kind::Corrupt,
            "a file is shorter than its trailer"
        );
        assert_eq!(
            kind(fjall::Error::Io(io(io::ErrorKind::AlreadyExists))),
            Kind::Corrupt,
            "a file is missing"
        );
        assert_eq!(
            kind(fjall::Error::Storage(fjall::LsmError::Io(io(io::ErrorKind::NotFound)))),
            Kind::Corrupt
        );
    }
}
