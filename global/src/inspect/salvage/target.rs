//! The data directory that a salvage makes: opened as Global opens one, and filled through its journal.
//!
//! Invariants: every change goes through the journal, as in a Global; at the end a checkpoint has it all. It is not
//! marked as stopped cleanly: the first start waits until leases of the damaged one have ended, with every change.

use crate::catalog::{Catalog, CatalogConfig};
use crate::change::{BlobMeta, Change, Commit, Payload};
use crate::data_dir::{self, DataDir, DataDirConfig, Found, Opened};
use crate::engine::EngineKind;
use crate::journal::{self, Journal, JournalConfig};
use dstore_shared::{BlobHash, Error, HistoryId, Result, Revision};
use dstore_sys::Sys;
use dstore_sys::tasks::LaneEnd;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a data directory takes besides what is stored in it: the journal's segments.
pub(super) const OVERHEAD: u64 = 256 << 20;
/// Bytes after which a batch is written.
const BATCH_BYTES: usize = 4 << 20;
/// Commits after which a batch is written.
const BATCH_COMMITS: usize = 1024;

pub(super) struct Target {
    pub(super) sys: Sys,
    dir: DataDir,
    catalog: Catalog,
    journal: Journal,
    applier: LaneEnd,
    history: HistoryId,
    at_ms: u64,
    payload: Payload,
    waiting: Vec<Commit>,
    /// Blobs as those leave them.
    fresh: HashMap<BlobHash, BlobMeta>,
}

impl Target {
    pub(super) fn create(sys: &Sys, path: &Path, engine: EngineKind) -> Result<Self> {
        let config = DataDirConfig { path: path.to_owned(), engine, catalog: CatalogConfig::default() };
        let opened = data_dir::open(sys, &config, |dir, floors, replay| {
            let config = JournalConfig { min_free_bytes: 0, ..JournalConfig::new(dir) };
            let floors =
                journal::Floors { checkpoint: floors.checkpoint, index: floors.index, clean: floors.clean };
            let (journal, opened) =
                Journal::open(sys, &config, &floors, |b| replay(b.first, b.last, b.payload))?;
            Ok((journal, Found { head: opened.head, torn: None }))
        })?;
        let Opened { dir, catalog, applier, journal, history, .. } = opened;
        let (payload, waiting, at_ms) = (Payload::new(), Vec::new(), sys.clock.wall_ms());
        let (sys, fresh) = (sys.clone(), HashMap::new());
        Ok(Self { sys, dir, catalog, journal, applier, history, at_ms, payload, waiting, fresh })
    }

    pub(super) fn history(&self) -> HistoryId {
        self.history
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.at_ms
    }

    /// Where its blobs are.
    pub(super) fn blobs(&self) -> PathBuf {
        self.dir.path().join("blobs")
    }

    /// Names that are bound.
    pub(super) fn names(&self) -> u64 {
        self.catalog.counts().names
    }

    /// The revision of the next commit.
    pub(super) fn next(&self) -> Revision {
        self.waiting.last().map_or_else(|| self.journal.head(), |commit| commit.revision).next()
    }

    /// What is known of a blob, changes that wait included.
    pub(super) fn blob(&self, hash: &BlobHash) -> Result<Option<BlobMeta>> {
        let fresh = self.fresh.get(hash);
        fresh.map_or_else(|| self.catalog.blob_once(hash), |meta| Ok(Some(*meta)))
    }

    /// Takes a change.
    pub(super) fn commit(&mut self, changes: Vec<Change>) -> Result<()> {
        for change in &changes {
            if let Change::Blob { hash, meta } = change {
                self.fresh.insert(*hash, *meta);
            }
        }
        let commit = Commit { revision: self.next(), at_ms: self.at_ms, outcome: None, changes };
        self.payload.push(&commit);
        self.waiting.push(commit);
        if self.payload.len() >= BATCH_BYTES || self.waiting.len() >= BATCH_COMMITS {
            self.flush()?;
        }
        Ok(())
    }

    /// Makes what waits durable.
    pub(super) fn flush(&mut self) -> Result<()> {
        let (Some(first), Some(last)) = (self.waiting.first(), self.waiting.last()) else { return Ok(()) };
        self.journal.append(first.revision, last.revision, &self.payload.slices())?;
        self.payload.clear();
        let commits = std::mem::take(&mut self.waiting);
        self.catalog.make_room();
        self.catalog.check_space(true)?;
        self.catalog.show(&commits)?;
        self.fresh.clear();
        if self.catalog.checkpoint_due(self.sys.clock.now()) {
            drop(self.catalog.checkpoint(self.sys.clock.now(), Vec::new()));
        }
        self.journal.trim(self.catalog.trim_below());
        Ok(())
    }

    /// Has a checkpoint hold it all, and closes it. Leases of `lease` may be out.
    pub(super) fn close(mut self, lease: Duration, negatives_ever: bool) -> Result<()> {
        self.flush()?;
        let written = self.catalog.checkpoint(self.sys.clock.now(), Vec::new());
        written.blocking_recv().map_err(|_| Error::internal("the index ended early: report this"))??;
        if negatives_ever {
            self.dir.persist_negatives()?;
        }
        // Locals may hold a name that was lost, or that was deleted and not drained: whoever sets it must not overtake
        // them.
        self.dir.persist_async_dels()?;
        self.dir.begin(lease)?;
        let Self { dir, catalog, journal, applier, .. } = self;
        drop((journal, catalog));
        applier.wait_blocking();
        drop(dir);
        Ok(())
    }
}
