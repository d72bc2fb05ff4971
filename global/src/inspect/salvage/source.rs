//! What can still be read of a damaged data directory: its index, in a copy, and what the journal changed since.
//!
//! Invariants: read through a disk that refuses every change. A name's state is that of its latest whole change: of
//! the journal, unless the index shows a later one. Memory holds the names that the replayed part of the journal
//! changed, which its size on disk bounds.

use super::super::scratch::Scratch;
use super::SalvageConfig;
use super::notes::Notes;
use crate::catalog::CatalogConfig;
use crate::change::{Change, Commits, decode_entry};
use crate::checkpoint::Checkpoints;
use crate::data_dir::{self, DataDirConfig, Index, Meta};
use crate::engine::{Engine, EngineKind, Table};
use crate::journal;
use bytes::Bytes;
use dstore_shared::{BlobHash, Entry, Kind, Name, Namespace, NamespaceSpec, Result, Revision};
use dstore_sys::Sys;
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest lease that `--lease` takes: for a directory that does not say.
const LEASE_MAX: Duration = Duration::from_secs(10);
/// What is read of the index at once.
const PAGE: usize = 256;

/// A damaged data directory.
pub(super) struct Source {
    pub(super) sys: Sys,
    pub(super) engine: EngineKind,
    pub(super) lease_max: Duration,
    pub(super) negatives_ever: bool,
    /// Bytes that a copy may take.
    pub(super) weight: u64,
    data: PathBuf,
    index: Option<Box<dyn Engine>>,
    journal: journal::Whole,
    /// What the journal is read after.
    after: Revision,
    /// What it makes of names, and at which revision.
    changed: BTreeMap<Bytes, (Revision, Option<Entry>)>,
    /// Namespaces that were created.
    pub(super) namespaces: BTreeMap<Namespace, NamespaceSpec>,
    /// The index's copy, as long as it is open.
    _scratch: Option<Scratch>,
}

impl Source {
    pub(super) fn open(real: &Sys, still: &Sys, config: &SalvageConfig, notes: &mut Notes) -> Result<Self> {
        let data = &config.data;
        let meta = known(Meta::load(&*still.disk, data), "`meta`", notes)?.flatten();
        if meta.is_none() {
            notes.doubt("`meta` is not whole: the engine is guessed by what is in `index`".to_owned());
        }
        let engine = meta.as_ref().and_then(|meta| meta.engine.parse().ok());
        let engine = engine.unwrap_or_else(|| guess(still, data));
        let checkpoint = Checkpoints::new(still.disk.clone(), data).load();
        let checkpoint = known(checkpoint, "`checkpoint`", notes)?.flatten();
        let scratch = match engine {
            EngineKind::Memory => None,
            _ => Some(Scratch::of_index(real, engine, data, &config.temp)?),
        };
        let path = scratch.as_ref().map_or(&**data, Scratch::path).to_owned();
        let opening = DataDirConfig { path, engine, catalog: CatalogConfig::default() };
        let index = data_dir::open_index(still, &opening, checkpoint.as_ref())?;
        let journal = journal::whole(&*still.disk, &data.join("journal"))?;
        let (index, after, reached) = match index {
            Index::Proven(index, revision) => {
                let reached = index.revision()?;
                (Some(index), revision, reached)
            }
            // It was made just now, in the copy: there was none.
            Index::Unproven(index) if index.revision()? == Revision(0) => {
                notes.doubt("the index is lost, the journal alone counts".to_owned());
                (None, Revision(0), checkpoint.as_ref().map_or(Revision(0), |c| c.revision))
            }
            Index::Unproven(index) => {
                notes.doubt(
                    "the index is not the one that `checkpoint` proves: what only it holds is doubtful"
                        .into(),
                );
                (Some(index), Revision(0), checkpoint.as_ref().map_or(Revision(0), |c| c.revision))
            }
            Index::Broken(e) => {
                notes.doubt(format!("the index is lost, the journal alone counts: {}", e.message()));
                (None, Revision(0), checkpoint.as_ref().map_or(Revision(0), |c| c.revision))
            }
        };
        journal.doubts.iter().for_each(|line| notes.doubt(line.clone()));
        let weight = weigh(still, data);
        let clean = meta.as_ref().and_then(|meta| meta.clean).unwrap_or_default();
        let mut source = Self {
            sys: still.clone(),
            engine: if engine.is_built_in() { engine } else { EngineKind::preferred() },
            lease_max: meta.as_ref().map_or(LEASE_MAX, |meta| meta.lease_max),
            negatives_ever: meta.is_none_or(|meta| meta.negatives_ever),
            weight,
            data: data.clone(),
            index,
            journal,
            after,
            changed: BTreeMap::new(),
            namespaces: checkpoint.map_or_else(BTreeMap::new, |c| {
                c.namespaces.into_iter().map(|info| (info.namespace, info.spec)).collect()
            }),
            _scratch: scratch,
        };
        // A clean stop wrote down how far the journal went.
        source.replay(reached.max(clean), notes)?;
        Ok(source)
    }

    /// Follows the journal, past what is missing in it.
    fn replay(&mut self, reached: Revision, notes: &mut Notes) -> Result<()> {
        let (mut changed, mut damaged) = (BTreeMap::new(), Vec::new());
        let mut namespaces = std::mem::take(&mut self.namespaces);
        // Without a checkpoint the index has what was before the journal's first revision, or nobody has.
        let begins = self.journal.ends().map_or(Revision(0), |(first, _)| Revision(first.0 - 1));
        let from = if self.after == Revision(0) && self.index.is_some() { begins } else { self.after };
        if from > self.after {
            notes.doubt(format!(
                "no checkpoint proves the index: what it holds up to revision {from}, where the journal begins, may be \
                 incomplete"
            ));
        }
        let gap = |first, last| {
            notes.gap(first, last);
            Ok(())
        };
        self.journal.replay(from, gap, |payload| {
            for commit in Commits::of(payload) {
                let commit = match commit {
                    Ok(commit) => commit,
                    Err(e) if e.kind() == Kind::Corrupt => {
                        damaged.push(format!(
                            "a whole batch of the journal cannot be understood: {}",
                            e.message()
                        ));
                        break;
                    }
                    Err(e) => return Err(e),
                };
                for change in commit.changes {
                    let (name, entry) = match change {
                        Change::Bind { name, entry } | Change::Rebind { name, entry } => (name, Some(entry)),
                        Change::Unbind { name } => (name, None),
                        Change::Namespace(info) => {
                            namespaces.insert(info.namespace, info.spec);
                            continue;
                        }
                        Change::NamespaceGone { namespace } => {
                            namespaces.remove(&namespace);
                            continue;
                        }
                        _ => continue,
                    };
                    changed.insert(Bytes::copy_from_slice(name.as_bytes()), (commit.revision, entry));
                }
            }
            Ok(())
        })?;
        damaged.into_iter().for_each(|line| notes.doubt(line));
        let head = self.journal.ends().map_or(from, |(_, last)| last.max(from));
        if reached > head {
            notes.gap(head.next(), reached);
        }
        (self.changed, self.namespaces) = (changed, namespaces);
        Ok(())
    }

    /// Every value that is inside the index or the journal, perhaps more than once; what cannot be read, in words.
    pub(super) fn inline(
        &self,
        mut each: impl FnMut(Result<(BlobHash, Bytes), String>) -> Result<()>,
    ) -> Result<()> {
        self.scan(Table::Inline, |found| match found {
            Ok((key, bytes)) => match <[u8; 32]>::try_from(&key[..]) {
                Ok(hash) => each(Ok((BlobHash::from_bytes(hash), bytes))),
                Err(_) => each(Err("the index names a value by what is no hash".to_owned())),
            },
            Err(why) => each(Err(why)),
        })?;
        self.journal.replay(
            self.after,
            |_, _| Ok(()),
            |payload| {
                // What cannot be understood was noted when the names were read.
                for commit in Commits::of(payload).map_while(Result::ok) {
                    for change in commit.changes {
                        if let Change::Inline { hash, bytes } = change {
                            each(Ok((hash, Bytes::copy_from_slice(&bytes))))?;
                        }
                    }
                }
                Ok(())
            },
        )
    }

    /// Every file that is called as a blob.
    pub(super) fn files(
        &self,
        mut each: impl FnMut(Result<(PathBuf, BlobHash), String>) -> Result<()>,
    ) -> Result<()> {
        crate::blobs::each_file(&*self.sys.disk, &self.data.join("blobs"), &mut each)
    }

    /// Every name that is bound, once.
    pub(super) fn names(
        &self,
        mut each: impl FnMut(Result<(Name, Entry), String>) -> Result<()>,
    ) -> Result<()> {
        let mut seen = Vec::new();
        self.scan(Table::Names, |found| {
            let (key, value) = match found {
                Ok(found) => found,
                Err(why) => return each(Err(why)),
            };
            let entry = match decode_entry(value) {
                Ok(entry) => entry,
                // It is whole, and not to be lost because this dstore is too old for it.
                Err(newer) if newer.kind() == Kind::Invalid => return Err(newer),
                Err(_) => {
                    return each(Err(format!(
                        "the index has an entry that cannot be understood, of {key:?}"
                    )));
                }
            };
            let changed = self.changed.get(&key);
            // The index may show a later change than what is left of the journal.
            let entry = match changed {
                Some((revision, changed)) if entry.bind_rev <= *revision => changed.clone(),
                _ => Some(entry),
            };
            if changed.is_some() {
                seen.push(key.clone());
            }
            match (Name::from_packed(key), entry) {
                (Ok(name), Some(entry)) => each(Ok((name, entry))),
                (Ok(_), None) => Ok(()),
                (Err(e), _) => each(Err(format!("the index has a name that cannot be one: {}", e.message()))),
            }
        })?;
        seen.sort_unstable();
        for (key, (_, entry)) in &self.changed {
            let Some(entry) = entry.as_ref().filter(|_| seen.binary_search(key).is_err()) else {
                continue;
            };
            each(Ok((Name::from_packed(key.clone())?, entry.clone())))?;
        }
        Ok(())
    }

    /// A table of the index, page by page.
    fn scan(
        &self,
        table: Table,
        mut each: impl FnMut(Result<(Bytes, Bytes), String>) -> Result<()>,
    ) -> Result<()> {
        let Some(index) = &self.index else { return Ok(()) };
        let mut after: Option<Bytes> = None;
        loop {
            let mut page = Vec::with_capacity(PAGE);
            let start = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let read = index.scan(table, start, PAGE, &mut |key, value| {
                page.push((key, value));
                ControlFlow::Continue(())
            });
            let n = page.len();
            after = page.last().map(|(key, _)| key.clone()).or(after);
            for found in page {
                each(Ok(found))?;
            }
            if let Err(e) = read {
                let (table, message) = (table.name(), e.message());
                return each(Err(format!(
                    "the index's table of {table} is read no further than here: {message}"
                )));
            }
            if n < PAGE {
                return Ok(());
            }
        }
    }
}

/// What is damaged is noted; what is newer, or cannot be read, ends the salvage.
fn known<T>(read: Result<T>, what: &str, notes: &mut Notes) -> Result<Option<T>> {
    match read {
        Err(e) if e.kind() == Kind::Corrupt => {
            notes.doubt(format!("{what} is not whole: {}", e.message()));
            Ok(None)
        }
        read => read.map(Some),
    }
}

fn guess(sys: &Sys, data: &Path) -> EngineKind {
    let there =
        |engine: &EngineKind| sys.disk.exists(&data.join("index").join(engine.to_string())).unwrap_or(false);
    EngineKind::ALL.into_iter().find(there).unwrap_or(EngineKind::preferred())
}

/// The bytes of all files, so far as they can be told.
fn weigh(sys: &Sys, dir: &Path) -> u64 {
    let Ok(entries) = sys.disk.list(dir) else { return 0 };
    let weight = |entry: &dstore_sys::disk::DirEntry| {
        // Spare segments, and what is not written of others, count too: rather too much than too little.
        if entry.is_dir { weigh(sys, &dir.join(&entry.name)) } else { entry.len }
    };
    entries.iter().map(weight).fold(0, u64::saturating_add)
}
