//! Explains a data directory without changing one byte of it.
//!
//! ```text
//! lock (if it can be had) -> meta -> checkpoints -> index -> journal, judged and read as a start would -> blobs
//! ```
//!
//! Invariants: everything is read through a disk that refuses to change anything; an engine that cannot be
//! opened without writing is opened in a copy elsewhere. What a start would refuse is a fault in the report, and
//! is found by the code that a start refuses with. Must never panic, whatever is in the files.

mod missing;
mod report;
mod salvage;
mod scratch;
mod still;
#[cfg(test)]
mod tests;

pub use crate::blobs::{BadBlob, BlobFacts};
pub use crate::journal::{BatchFault, Judged, SegmentFacts, SegmentRole, Torn};
pub use missing::MissingBlobs;
pub use report::{Checked, CheckpointFacts, IndexFacts, MetaFacts, Report, Verdict};
pub use salvage::{Loss, SalvageConfig, Salvaged, salvage};

use crate::catalog::CatalogConfig;
use crate::change::Commits;
use crate::checkpoint::{Checkpoint, Checkpoints};
use crate::data_dir::{self, DataDirConfig, Index, Meta};
use crate::engine::EngineKind;
use crate::journal;
use crate::sealed::failed;
use bytes::Bytes;
use dstore_shared::{Error, Result, Revision};
use dstore_sys::Sys;
use dstore_sys::disk::{Disk, Lock};
use missing::Changed;
use scratch::Scratch;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use still::Still;

/// What to look at, and how closely.
#[derive(Clone, Debug)]
pub struct InspectConfig {
    /// The data directory.
    pub data: PathBuf,
    /// A folder outside of it, where an index may be copied to.
    pub temp: PathBuf,
    /// Whether every byte of every blob is read.
    pub deep: bool,
    /// Free bytes below which a Global stores nothing.
    pub min_free: u64,
}

/// Looks at a data directory. Reads the journal whole and the index as far as its engine does to open it. Blocks on
/// the disk. While it looks, no dstore can start in the directory.
///
/// # Errors
/// `Unavailable` if a dstore uses the directory, `Invalid` if it is none. What is wrong with its contents is in the
/// report.
pub fn inspect(sys: &Sys, config: &InspectConfig) -> Result<Report> {
    let still = Sys { disk: Arc::new(Still(sys.disk.clone())), ..sys.clone() };
    is_data_dir(&*still.disk, &config.data)?;
    let mut report = Report::of(config);
    let lock = claim(&*still.disk, &config.data, &mut report.notes)?;
    report.locked = lock.is_some();
    Look { real: sys, sys: &still, config, report: &mut report }.at_everything();
    drop(lock);
    Ok(report)
}

fn is_data_dir(disk: &dyn Disk, path: &Path) -> Result<()> {
    let text = path.display();
    let listed = disk.list(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            Error::invalid(format!("there is no data directory `{text}`: name one with --data"))
        }
        _ => failed("list", path, e),
    })?;
    let ours = |name: &str| data_dir::FILES.contains(&name) || name == "meta";
    if listed.iter().any(|entry| ours(&entry.name)) {
        return Ok(());
    }
    Err(Error::invalid(format!("`{text}` is not a data directory, or a new one: name another with --data")))
}

fn claim(disk: &dyn Disk, path: &Path, notes: &mut Vec<String>) -> Result<Option<Box<dyn Lock>>> {
    match disk.lock(&path.join("LOCK")) {
        Ok(lock) => Ok(Some(lock)),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Err(Error::unavailable(format!(
            "the data directory `{}` is in use by a dstore: ask that one with `dstore status`, or stop it first",
            path.display()
        ))),
        Err(e) => {
            notes.push(format!("not locked, {e}: a dstore that starts meanwhile makes this out of date"));
            Ok(None)
        }
    }
}

impl Report {
    fn of(config: &InspectConfig) -> Self {
        Self {
            data: config.data.clone(),
            locked: false,
            meta: None,
            checkpoints: Vec::new(),
            index: None,
            segments: Vec::new(),
            journal: None,
            blobs: None,
            missing: None,
            free: None,
            min_free: config.min_free,
            notes: Vec::new(),
            mends: Vec::new(),
            faults: Vec::new(),
        }
    }
}

/// One look at a directory.
struct Look<'a> {
    /// For the copy only.
    real: &'a Sys,
    sys: &'a Sys,
    config: &'a InspectConfig,
    report: &'a mut Report,
}

impl Look<'_> {
    fn at_everything(&mut self) {
        let disk = &*self.sys.disk;
        match journal::describe(disk, &self.config.data.join("journal")) {
            Ok(segments) => self.report.segments = segments,
            Err(e) => self.report.faults.push(e),
        }
        let files = Checkpoints::new(self.sys.disk.clone(), &self.config.data);
        self.report.checkpoints = self.checkpoints(&files);
        // In the order of a start, up to what it refuses.
        if let Err(e) = self.as_a_start(&files)
            && self.report.faults.iter().all(|known| known.message() != e.message())
        {
            self.report.faults.push(e);
        }
        self.void_damage();
        self.blobs();
        self.space();
    }

    /// Goes as far as a start would, and says with which error it would refuse.
    fn as_a_start(&mut self, files: &Checkpoints) -> Result<()> {
        let meta = self.meta()?;
        let checkpoint = files.load()?;
        if let (Some(Err(_)), Some(c)) = (&self.report.checkpoints[0].found, &checkpoint) {
            let revision = c.revision;
            self.report.mends.push(format!(
                "`checkpoint` is not whole, `checkpoint.old` of revision `{revision}` will be used"
            ));
        }
        data_dir::check_history(&self.config.data, &meta, checkpoint.as_ref())?;
        let engine = meta.engine.parse::<EngineKind>()?;
        let index = self.index(engine, checkpoint.as_ref())?;
        let floors = data_dir::floors(&meta, &index.0, checkpoint.as_ref())?;
        self.journal(&meta, floors, &index.0)
    }

    fn meta(&mut self) -> Result<Meta> {
        let (disk, path) = (&*self.sys.disk, &self.config.data);
        let Some(meta) = Meta::load(disk, path)? else {
            return Err(Error::corrupt(format!(
                "the data directory `{}` has no `meta`: restore `meta` from a backup",
                path.display()
            )));
        };
        self.report.meta = Some(MetaFacts {
            format: Meta::FORMAT,
            history: meta.history,
            boot: meta.boot,
            clean: meta.clean,
            lease_max: meta.lease_max,
            negatives_ever: meta.negatives_ever,
            async_dels: meta.async_dels,
            relaxed: meta.relaxed,
            engine: meta.engine.clone(),
        });
        Ok(meta)
    }

    fn checkpoints(&mut self, files: &Checkpoints) -> Vec<CheckpointFacts> {
        let now_ms = self.sys.clock.wall_ms();
        let checked = |c: Checkpoint| Checked {
            revision: c.revision,
            previous: c.previous,
            index: c.index,
            history: c.history,
            at_ms: c.at_ms,
            age: Duration::from_millis(now_ms.saturating_sub(c.at_ms)),
            outcomes: c.outcomes.len(),
            namespaces: c.namespaces.len(),
            names: c.names,
        };
        let [latest, previous] = files.each().map(|found| found.map(|c| c.map(checked)).transpose());
        if let (Some(Err(e)), Some(Ok(_))) = (&previous, &latest) {
            self.report.notes.push(format!("not needed now: {}", e.message()));
        }
        vec![
            CheckpointFacts { file: "checkpoint", found: latest },
            CheckpointFacts { file: "checkpoint.old", found: previous },
        ]
    }

    /// The index as a start would find it, and the copy that it is in.
    fn index(
        &mut self,
        engine: EngineKind,
        checkpoint: Option<&Checkpoint>,
    ) -> Result<(Index, Option<Scratch>)> {
        let (data, temp) = (&self.config.data, &self.config.temp);
        let scratch = match engine {
            // Reading its one file changes nothing.
            EngineKind::Memory => None,
            EngineKind::Fjall | EngineKind::Sled if !engine.is_built_in() => None,
            EngineKind::Fjall | EngineKind::Sled => Some(Scratch::of_index(self.real, engine, data, temp)?),
        };
        let path = scratch.as_ref().map_or(&**data, Scratch::path).to_owned();
        let config = DataDirConfig { path, engine, catalog: CatalogConfig::default() };
        let index = data_dir::open_index(self.sys, &config, checkpoint)?;
        let (found, proven) = match &index {
            Index::Proven(engine, _) => (engine.revision().map(|r| (engine.identity(), r)), true),
            Index::Unproven(engine) => (engine.revision().map(|r| (engine.identity(), r)), false),
            Index::Broken(e) => (Err(e.clone()), false),
        };
        self.report.index = Some(IndexFacts { engine, found, proven });
        Ok((index, scratch))
    }

    fn journal(&mut self, meta: &Meta, floors: data_dir::Floors, index: &Index) -> Result<()> {
        let proven = matches!(index, Index::Proven(..));
        let mut redone = Redone { last: floors.checkpoint, changed: Changed::default() };
        let reached = floors.index;
        let floors =
            journal::Floors { checkpoint: floors.checkpoint, index: floors.index, clean: floors.clean };
        let judged = journal::judge(&*self.sys.disk, &self.config.data.join("journal"), &floors, |batch| {
            redone.batch(batch.first, batch.last, batch.payload)
        });
        let judged = judged.map_err(|e| if proven { e } else { cannot_rebuild(index, &e) })?;
        let (head, last) = (judged.head, redone.last);
        let changed = redone.changed;
        if head < reached || last != head {
            return Err(Error::corrupt(format!(
                "the journal ends at revision `{head}` and is read up to `{last}`, the index has seen `{reached}`: \
                 restore the data directory from a backup"
            )));
        }
        let lossy = meta.relaxed && meta.clean != Some(head);
        if let Some(torn) = &judged.torn {
            let known = if lossy { "it was not durable" } else { "it was never acknowledged" };
            self.report.mends.push(format!("{torn}; {known}").replace("was cut", "will be cut"));
        }
        if lossy {
            self.report.notes.push(
                "used with `--sync relaxed` and not stopped in order: what was acknowledged last may be lost, so the next \
                 start begins a new history"
                    .to_owned(),
            );
        }
        if !proven {
            self.report.mends.push("the index will be rebuilt from the whole journal".to_owned());
        }
        if meta.boot > 0 && meta.clean != Some(head) {
            let lease = meta.lease_max;
            self.report.notes.push(format!(
                "not stopped cleanly: the next start waits until leases of {lease:?} have ended"
            ));
        }
        self.report.journal = Some(judged);
        self.missing(index, &changed)
    }

    /// Names whose value has no file.
    fn missing(&mut self, index: &Index, changed: &Changed) -> Result<()> {
        let index = match index {
            Index::Proven(engine, _) => Some(&**engine),
            Index::Unproven(_) | Index::Broken(_) => None,
        };
        if let Some(index) = index.filter(|_| self.config.deep) {
            for hash in missing::damaged_inline(index)? {
                self.report.faults.push(Error::corrupt(format!(
                    "the value blake3:{hash} in the index is damaged: set it again, it will be replaced"
                )));
            }
        }
        let (disk, root) = (&*self.sys.disk, self.config.data.join("blobs"));
        let missing = changed.look(index, |hash| crate::blobs::has_file(disk, &root, hash))?;
        for (name, hash) in &missing.names {
            self.report.faults.push(Error::corrupt(format!(
                "the value of name {name:?}, blake3:{hash}, has no file: set it again, or delete the name"
            )));
        }
        if missing.values > 0 && missing.names.len() >= missing::NAMED_MAX {
            let n = missing.values;
            self.report.notes.push(format!("`{n}` values have no file, of which not all names are told"));
        }
        self.report.missing = Some(missing);
        Ok(())
    }

    /// Damage in the journal that a start does not come across, because a checkpoint covers it.
    fn void_damage(&mut self) {
        let refused = !self.report.faults.is_empty();
        for segment in self.report.segments.iter().filter(|s| s.role != SegmentRole::Void && !refused) {
            // Behind the end of a relaxed journal there may be such: that they will be cut is told.
            let torn = self.report.journal.as_ref().and_then(|judged| judged.torn.as_ref());
            let cut = torn.filter(|torn| torn.segment == segment.name).map_or(u64::MAX, |torn| torn.offset);
            if let Some(fault) = segment.faults.first().filter(|fault| fault.offset < cut) {
                let (name, offset, n) = (&segment.name, fault.offset, segment.faults.len());
                self.report.notes.push(format!(
                    "`{name}` has `{n}` damaged batches, the first at offset `{offset}`: the index has what they held"
                ));
            }
        }
    }

    fn blobs(&mut self) {
        let root = self.config.data.join("blobs");
        let facts = match crate::blobs::inspect(&*self.sys.disk, &root, self.config.deep) {
            Ok(facts) => facts,
            Err(e) => return self.report.faults.push(failed("list", &root, e)),
        };
        for bad in &facts.named {
            let file = root.join(&bad.file);
            let (file, reason) = (file.display(), &bad.reason);
            self.report.faults.push(Error::corrupt(format!(
                "blob `{file}` is damaged, {reason}: set its value again, it will be replaced"
            )));
        }
        if facts.staged > 0 {
            let (n, bytes) = (facts.staged, facts.staged_bytes);
            self.report
                .mends
                .push(format!("`{n}` files of `{bytes}` bytes of uploads that never ended will be removed"));
        }
        self.report.blobs = Some(facts);
    }

    fn space(&mut self) {
        let path = &self.config.data;
        let min = self.config.min_free;
        match self.sys.disk.free_bytes(path) {
            Ok(free) => {
                self.report.free = Some(free);
                if free < min {
                    self.report.notes.push(format!(
                        "`{free}` bytes are free, less than `{min}`: nothing will be stored until there is more"
                    ));
                }
            }
            Err(e) => self.report.notes.push(format!("free space is not known, {e}")),
        }
    }
}

fn cannot_rebuild(index: &Index, e: &Error) -> Error {
    let why = match index {
        Index::Broken(reason) => reason.message().to_owned(),
        _ => "the index is not the one that `checkpoint` proves".to_owned(),
    };
    Error::new(e.kind(), format!("{why}, and it cannot be rebuilt: {}", e.message()))
}

/// Follows the commits as redoing them would, and keeps what they change.
struct Redone {
    last: Revision,
    changed: Changed,
}

impl Redone {
    fn batch(&mut self, first: Revision, last: Revision, payload: Bytes) -> Result<()> {
        if last <= self.last {
            return Ok(());
        }
        if first > self.last.next() {
            return Err(self.gap(first));
        }
        for commit in Commits::of(payload) {
            let commit = commit?;
            let revision = commit.revision;
            if revision <= self.last {
                continue;
            }
            if revision != self.last.next() {
                return Err(self.gap(revision));
            }
            self.last = revision;
            self.changed.commit(commit);
        }
        if self.last == last { Ok(()) } else { Err(self.gap(last.next())) }
    }

    fn gap(&self, next: Revision) -> Error {
        let last = self.last;
        Error::corrupt(format!(
            "the journal goes on with revision `{next}` after `{last}`: what is between is missing, restore a backup"
        ))
    }
}
