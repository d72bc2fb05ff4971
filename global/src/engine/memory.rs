//! The index in memory: ordered maps, and one sorted file at each checkpoint.
//!
//! Invariants: the file is replaced whole and atomically, so the index on disk is always that of one
//! checkpoint; the file is written from the maps piece by piece. A snapshot shares the maps, and the first
//! write after it copies the written table once.

use super::{Each, Engine, EngineKind, Table, View, Write};
use crate::sealed::{self, Form, Part, SealedWriter, failed};
use bytes::Bytes;
use dstore_shared::{Error, Result, Revision};
use dstore_sys::Sys;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const FORM: Form = Form { magic: *b"dstoreIX", version: 1 };
const FILE: &str = "memory";
/// Tag of the part that holds identity and revision; the tables' parts are tagged by their numbers.
const HEAD: u8 = 0x40;

/// The index in memory.
#[derive(Debug)]
pub(super) struct MemoryEngine {
    sys: Sys,
    dir: PathBuf,
    identity: u128,
    state: RwLock<State>,
}

#[derive(Clone, Default, Debug)]
struct State {
    tables: [Arc<BTreeMap<Bytes, Bytes>>; 4],
    revision: Revision,
}

impl MemoryEngine {
    pub(super) fn open(sys: &Sys, dir: &Path) -> Result<Self> {
        sys.disk.create_dir_all(dir).map_err(|e| failed("make", dir, e))?;
        let mut state = State::default();
        let mut identity = None;
        sealed::read(&*sys.disk, &dir.join(FILE), FORM, |part| {
            if part.tag == HEAD {
                let (id, revision) = read_head(&part)?;
                identity = Some(id);
                state.revision = revision;
                return Ok(());
            }
            let (key, value) = read_pair(&part)?;
            let table = state.tables.get_mut(part.tag as usize).ok_or_else(|| unknown(part.tag))?;
            Arc::make_mut(table).insert(key, value);
            Ok(())
        })?;
        let identity = identity.unwrap_or_else(|| sys.rng.next_u128());
        Ok(Self { sys: sys.clone(), dir: dir.to_owned(), identity, state: RwLock::new(state) })
    }

    fn write_file(&self, state: &State) -> Result<()> {
        let mut writer = SealedWriter::create(&*self.sys.disk, &self.dir.join(FILE), FORM)?;
        writer.push(HEAD, &[&self.identity.to_le_bytes(), &state.revision.0.to_le_bytes()])?;
        for table in Table::ALL {
            for (key, value) in &*state.tables[table.number()] {
                let len = u16::try_from(key.len()).expect("a key is at most 1,200 bytes");
                writer.push(table.number() as u8, &[&len.to_le_bytes(), key, value])?;
            }
        }
        writer.seal()?.replace(None)
    }
}

impl View for MemoryEngine {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.state.read().get(table, key))
    }

    fn scan(&self, table: Table, start: Bound<&[u8]>, limit: usize, each: Each<'_>) -> Result<()> {
        self.state.read().scan(table, start, limit, each);
        Ok(())
    }
}

impl Engine for MemoryEngine {
    fn kind(&self) -> EngineKind {
        EngineKind::Memory
    }

    fn identity(&self) -> u128 {
        self.identity
    }

    fn snapshot(&self) -> Result<Box<dyn View>> {
        Ok(Box::new(self.state.read().clone()))
    }

    fn apply(&self, writes: Vec<Write>, revision: Revision) -> Result<()> {
        let mut state = self.state.write();
        for write in writes {
            let table = Arc::make_mut(&mut state.tables[write.table.number()]);
            match write.value {
                Some(value) => _ = table.insert(write.key, value),
                None => _ = table.remove(&write.key),
            }
        }
        state.revision = revision;
        Ok(())
    }

    fn revision(&self) -> Result<Revision> {
        Ok(self.state.read().revision)
    }

    fn checkpoint(&self) -> Result<Revision> {
        // The maps are shared, not copied: the one writer is the caller.
        let state = self.state.read().clone();
        self.write_file(&state)?;
        Ok(state.revision)
    }

    fn wipe(self: Box<Self>) -> Result<Box<dyn Engine>> {
        discard(&self.sys, &self.dir)?;
        Ok(Box::new(Self::open(&self.sys, &self.dir)?))
    }

    fn about(&self, table: Table) -> u64 {
        self.state.read().tables[table.number()].len() as u64
    }
}

impl State {
    fn get(&self, table: Table, key: &[u8]) -> Option<Bytes> {
        self.tables[table.number()].get(key).cloned()
    }

    fn scan(&self, table: Table, start: Bound<&[u8]>, limit: usize, each: Each<'_>) {
        let from = self.tables[table.number()].range::<[u8], _>((start, Bound::Unbounded));
        for (key, value) in from.take(limit) {
            if each(key.clone(), value.clone()) == ControlFlow::Break(()) {
                return;
            }
        }
    }
}

impl View for State {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(Self::get(self, table, key))
    }

    fn scan(&self, table: Table, start: Bound<&[u8]>, limit: usize, each: Each<'_>) -> Result<()> {
        Self::scan(self, table, start, limit, each);
        Ok(())
    }
}

pub(super) fn discard(sys: &Sys, dir: &Path) -> Result<()> {
    let path = dir.join(FILE);
    if sys.disk.exists(&path).map_err(|e| failed("look at", &path, e))? {
        sys.disk.remove(&path).map_err(|e| failed("remove", &path, e))?;
        sys.disk.sync_dir(dir).map_err(|e| failed("sync", dir, e))?;
    }
    Ok(())
}

fn read_head(part: &Part) -> Result<(u128, Revision)> {
    let (id, revision) = part.bytes.split_first_chunk::<16>().ok_or_else(|| unknown(part.tag))?;
    let revision = revision.first_chunk::<8>().ok_or_else(|| unknown(part.tag))?;
    Ok((u128::from_le_bytes(*id), Revision(u64::from_le_bytes(*revision))))
}

fn read_pair(part: &Part) -> Result<(Bytes, Bytes)> {
    let len = part.bytes.first_chunk::<2>().ok_or_else(|| unknown(part.tag))?;
    let end = 2 + u16::from_le_bytes(*len) as usize;
    let key = part.bytes.get(2..end).ok_or_else(|| unknown(part.tag))?;
    // Copied, so that a key that is removed does not keep its whole block in memory.
    Ok((Bytes::copy_from_slice(key), Bytes::copy_from_slice(&part.bytes[end..])))
}

fn unknown(tag: u8) -> Error {
    Error::corrupt(format!(
        "the index file has a part `{tag}` that is not valid: restore the data directory from a backup"
    ))
}
