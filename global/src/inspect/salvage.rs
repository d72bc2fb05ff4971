//! Copies what is whole in a damaged data directory into a fresh one.
//!
//! ```text
//! source, never changed: meta? index (in a copy)? -> what the journal changed since, past its damage
//! target, a new history: inline values -> blob files, each read and verified -> names whose value is there
//! ```
//!
//! Invariants: a value is taken only if its bytes have its hash, a name only if its value was taken; whatever is
//! missing or may be out of date is written down. The target is made beside its place and moved there when it is
//! complete, so that half of one is never started. Must never write to the source, nor give a revision of its
//! history to something else: so the target has a history of its own.

mod notes;
mod source;
mod target;
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests damage files of the real disk")]
mod tests;

pub use notes::Loss;

use super::still::Still;
use super::{claim, is_data_dir};
use crate::change::{BlobMeta, Change, Place};
use crate::engine::EngineKind;
use crate::sealed::failed;
use bytes::Bytes;
use dstore_shared::{Blob, BlobHash, Entry, Error, HistoryId, Name, NamespaceInfo, Result};
use dstore_sys::Sys;
use dstore_sys::disk::Disk;
use notes::Notes;
use source::Source;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use target::Target;

/// Where from, and where to.
#[derive(Clone, Debug)]
pub struct SalvageConfig {
    /// The damaged data directory.
    pub data: PathBuf,
    /// The data directory to make: it must not exist, or be empty.
    pub to: PathBuf,
    /// A folder outside of both, where an index may be copied to.
    pub temp: PathBuf,
    /// Free bytes that are left on the disk of `to`.
    pub min_free: u64,
}

/// What was copied, and what was not.
#[derive(Clone, Debug)]
pub struct Salvaged {
    /// The data directory that was made.
    pub to: PathBuf,
    /// Its history: a new one.
    pub history: HistoryId,
    /// Its engine.
    pub engine: EngineKind,
    /// Names in it.
    pub names: u64,
    /// Values in it.
    pub values: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Values among them that have no name there: they are removed an hour after it is first started.
    pub unnamed: u64,
    /// What was lost, or may be.
    pub loss: Loss,
}

/// Copies what is whole. Blocks on the disk; not to be called on an async thread. While it works, no dstore can start
/// in the source.
///
/// # Errors
/// `Invalid` if the source is no data directory, the target is not empty, or something is of a newer format;
/// `Exhausted` without room, before anything is written; `Unavailable` if a dstore uses the source or the target's
/// disk fails. Nothing is left of the target then.
pub fn salvage(sys: &Sys, config: &SalvageConfig) -> Result<Salvaged> {
    let still = Sys { disk: Arc::new(Still(sys.disk.clone())), ..sys.clone() };
    is_data_dir(&*still.disk, &config.data)?;
    is_free(&*sys.disk, &config.to)?;
    is_apart(config)?;
    let mut said = Vec::new();
    let _lock = claim(&*still.disk, &config.data, &mut said)?;
    let mut notes = Notes::default();
    said.into_iter().for_each(|line| notes.doubt(line));
    let source = Source::open(sys, &still, config, &mut notes)?;
    has_room(sys, config, &source)?;
    let place = Beside::of(&config.to)?;
    let target = Target::create(sys, &place.0, source.engine)?;
    let mut copy = Copy { source: &source, target, notes: &mut notes, bytes: 0, values: 0, unnamed: 0 };
    let copied = copy.everything();
    let Copy { target, bytes, values, unnamed, .. } = copy;
    copied?;
    let names = target.names();
    let (history, lease) = (target.history(), source.lease_max);
    target.close(lease, source.negatives_ever)?;
    notes.write(&*sys.disk, &place.0, &config.data)?;
    place.keep(&*sys.disk, &config.to)?;
    Ok(Salvaged {
        to: config.to.clone(),
        history,
        engine: source.engine,
        names,
        values,
        bytes,
        unnamed,
        loss: notes.loss(),
    })
}

fn is_free(disk: &dyn Disk, to: &Path) -> Result<()> {
    match disk.list(to) {
        Ok(found) if found.is_empty() => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() != io::ErrorKind::NotADirectory => Err(failed("list", to, e)),
        _ => Err(Error::invalid(format!(
            "`{}` is there and not empty: name a directory that is empty or does not exist",
            to.display()
        ))),
    }
}

/// The target is not within the source, whatever links lead there: that is never written to.
fn is_apart(config: &SalvageConfig) -> Result<()> {
    let data = std::fs::canonicalize(&config.data).map_err(|e| failed("look at", &config.data, e))?;
    let above =
        config.to.ancestors().map(|dir| if dir.as_os_str().is_empty() { Path::new(".") } else { dir });
    let there = { above }.find_map(|dir| std::fs::canonicalize(dir).ok());
    if there.is_some_and(|there| there.starts_with(&data)) {
        let to = config.to.display();
        return Err(Error::invalid(format!(
            "`{to}` is within the damaged data directory, which is left as it is: name a directory elsewhere"
        )));
    }
    Ok(())
}

/// Refused before a byte is written if what may be copied does not fit.
fn has_room(sys: &Sys, config: &SalvageConfig, source: &Source) -> Result<()> {
    let above = config
        .to
        .ancestors()
        .skip(1)
        .map(|dir| if dir.as_os_str().is_empty() { Path::new(".") } else { dir });
    let dir = { above }.find(|dir| sys.disk.exists(dir).unwrap_or(false)).unwrap_or(Path::new("/"));
    let free = sys.disk.free_bytes(dir).map_err(|e| failed("look at", dir, e))?;
    let wanted = source.weight.saturating_add(target::OVERHEAD).saturating_add(config.min_free);
    if free < wanted {
        let dir = dir.display();
        return Err(Error::exhausted(format!(
            "what is whole may need `{wanted}` bytes and `{dir}` has `{free}`: free some space, or name a directory on \
             a larger disk"
        )));
    }
    Ok(())
}

/// The folder that the target is made in; removed unless it is kept.
struct Beside(PathBuf);

impl Beside {
    fn of(to: &Path) -> Result<Self> {
        let name = to.file_name().ok_or_else(|| {
            Error::invalid(format!("`{}` names no directory: name one that does not exist", to.display()))
        })?;
        let mut name = name.to_owned();
        name.push(".unfinished");
        let beside = to.with_file_name(name);
        if std::fs::symlink_metadata(&beside).is_ok() {
            let beside = beside.display();
            return Err(Error::invalid(format!(
                "`{beside}` is left of a salvage that did not end: remove it first"
            )));
        }
        Ok(Self(beside))
    }

    /// Moves it to its place, durably.
    fn keep(self, disk: &dyn Disk, to: &Path) -> Result<()> {
        disk.rename(&self.0, to).map_err(|e| failed("rename", &self.0, e))?;
        let above = to.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        disk.sync_dir(above).map_err(|e| failed("sync", above, e))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // Moved away, or worth nothing.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The copying.
struct Copy<'a> {
    source: &'a Source,
    target: Target,
    notes: &'a mut Notes,
    bytes: u64,
    values: u64,
    /// Values that no name was bound to so far.
    unnamed: u64,
}

impl Copy<'_> {
    fn everything(&mut self) -> Result<()> {
        let source = self.source;
        for (namespace, spec) in source.namespaces.clone() {
            let created = self.target.next();
            self.target.commit(vec![Change::Namespace(NamespaceInfo { namespace, spec, created })])?;
        }
        source.inline(|found| match found {
            Ok((hash, bytes)) => self.inline(hash, bytes),
            Err(why) => {
                self.notes.doubt(why);
                Ok(())
            }
        })?;
        source.files(|found| match found {
            Ok((path, hash)) => self.file(&path, hash),
            Err(why) => {
                self.notes.doubt(why);
                Ok(())
            }
        })?;
        source.names(|found| match found {
            Ok((name, entry)) => self.name(name, entry),
            Err(why) => {
                self.notes.doubt(why);
                Ok(())
            }
        })?;
        self.target.flush()
    }

    fn inline(&mut self, hash: BlobHash, bytes: Bytes) -> Result<()> {
        if self.target.blob(&hash)?.is_some() {
            return Ok(());
        }
        let Ok(blob) = Blob::verify(bytes, hash) else {
            self.notes.value(&hash, "its bytes in the index or journal do not match its hash");
            return Ok(());
        };
        let bytes = blob.bytes().clone();
        self.keep(hash, blob.size(), Place::Inline, Some(Change::Inline { hash, bytes }))
    }

    fn file(&mut self, path: &Path, hash: BlobHash) -> Result<()> {
        if self.target.blob(&hash)?.is_some() {
            return Ok(());
        }
        let (disk, blobs) = (&*self.source.sys.disk, self.target.blobs());
        match crate::blobs::copy_whole(disk, path, &hash, &*self.target.sys.disk, &blobs)? {
            Ok(size) => self.keep(hash, size, Place::File, None),
            Err(why) => {
                self.notes.value(&hash, &why);
                Ok(())
            }
        }
    }

    fn keep(&mut self, hash: BlobHash, size: u64, place: Place, inline: Option<Change>) -> Result<()> {
        self.bytes += size;
        self.values += 1;
        self.unnamed += 1;
        let unnamed_since_ms = Some(self.target.now_ms());
        let meta = BlobMeta { size, refs: 0, place, unnamed_since_ms, corrupt: false };
        self.target.commit(inline.into_iter().chain([Change::Blob { hash, meta }]).collect())
    }

    fn name(&mut self, name: Name, entry: Entry) -> Result<()> {
        let hash = entry.hash;
        let Some(meta) = self.target.blob(&hash)? else {
            self.notes.name(&name, &entry);
            return Ok(());
        };
        self.unnamed -= u64::from(meta.refs == 0);
        let meta = BlobMeta { refs: meta.refs + 1, unnamed_since_ms: None, ..meta };
        let entry = Entry { bind_rev: self.target.next(), size: meta.size, ..entry };
        self.target.commit(vec![Change::Blob { hash, meta }, Change::Bind { name, entry }])
    }
}
