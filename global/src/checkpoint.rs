//! Owns the file `checkpoint`: what is proven durable in the index, and what else the journal need not tell
//! any more.
//!
//! Invariants: the file is written only after the engine said that everything up to the revision is durable;
//! it is replaced atomically, and the one before stays as `checkpoint.old`, so that a damaged file costs
//! redoing a little more of the journal and nothing else; it names the index that it proves, so that it never
//! vouches for another (a wiped, a copied). The journal must be trimmed only below what two checkpoints cover.

use crate::change::{
    Reader, put_namespace, put_outcome, put_request_id, read_namespace, read_outcome, read_request_id,
};
use crate::sealed::{self, Form, Part, SealedWriter};
use dstore_shared::{Error, HistoryId, Kind, NamespaceInfo, Outcome, RequestId, Result, Revision};
use dstore_sys::disk::Disk;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) const FORM: Form = Form { magic: *b"dstoreCP", version: 1 };
const HEAD: u8 = 1;
const OUTCOME: u8 = 2;
/// Whoever does not know it would take the namespace for write-once.
const NAMESPACE: u8 = 0x81;
/// A part of this or a higher number must be understood; lower ones are left out by those who do not know them.
const MUST_KNOW: u8 = 0x80;

/// A request, what it was told, and the journal time of that.
pub type Remembered = (RequestId, Outcome, u64);

/// What the file says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// Everything up to this revision is durable in the index.
    pub revision: Revision,
    /// The index that this proves, by its [`identity`](crate::engine::Engine::identity).
    pub index: u128,
    /// The revision of the checkpoint before, if it proves the same index; else 0.
    pub previous: Revision,
    /// The history that it belongs to.
    pub history: HistoryId,
    /// Journal time at `revision`, in milliseconds since 1970.
    pub at_ms: u64,
    /// Names that are bound at `revision`; `None` in files that do not say.
    pub names: Option<u64>,
    /// Namespaces that were created, at `revision`.
    pub namespaces: Vec<NamespaceInfo>,
    /// Outcomes still in their window at `revision`, oldest first.
    pub outcomes: Vec<Remembered>,
}

/// Where checkpoints are kept.
#[derive(Debug)]
pub struct Checkpoints {
    disk: Arc<dyn Disk>,
    latest: PathBuf,
    previous: PathBuf,
}

impl Checkpoints {
    /// Those in the data directory `dir`.
    pub fn new(disk: Arc<dyn Disk>, dir: &Path) -> Self {
        Self { disk, latest: dir.join("checkpoint"), previous: dir.join("checkpoint.old") }
    }

    /// Writes the next checkpoint, durably.
    ///
    /// # Errors
    /// `Exhausted` if the disk is full, `Unavailable` or `Denied` if it cannot be written; the checkpoint
    /// before then still counts.
    pub fn write(&self, checkpoint: &Checkpoint) -> Result<()> {
        let mut writer = SealedWriter::create(&*self.disk, &self.latest, FORM)?;
        let (history, index) = (checkpoint.history.0.to_le_bytes(), checkpoint.index.to_le_bytes());
        let [revision, previous, at_ms] =
            [checkpoint.revision.0, checkpoint.previous.0, checkpoint.at_ms].map(u64::to_le_bytes);
        let names = checkpoint.names.map(u64::to_le_bytes);
        let names = names.as_ref().map_or(&[][..], |names| names);
        writer.push(HEAD, &[&revision, &previous, &at_ms, &history, &index, names])?;
        let mut bytes = Vec::new();
        for namespace in &checkpoint.namespaces {
            bytes.clear();
            put_namespace(&mut bytes, namespace);
            writer.push(NAMESPACE, &[&bytes])?;
        }
        for (id, outcome, at_ms) in &checkpoint.outcomes {
            bytes.clear();
            bytes.extend_from_slice(&at_ms.to_le_bytes());
            put_request_id(&mut bytes, id);
            put_outcome(&mut bytes, outcome);
            writer.push(OUTCOME, &[&bytes])?;
        }
        writer.seal()?.replace(Some(&self.previous))
    }

    /// The newest checkpoint that is whole; `None` if none was ever written.
    ///
    /// # Errors
    /// `Corrupt` if there are files but none is whole, `Invalid` if one is of a newer dstore, `Unavailable`
    /// or `Denied` if one cannot be read.
    pub fn load(&self) -> Result<Option<Checkpoint>> {
        match self.read(&self.latest) {
            Ok(None) => self.read(&self.previous),
            Err(e) if e.kind() == Kind::Corrupt => match self.read(&self.previous) {
                Ok(Some(previous)) => {
                    let revision = previous.revision.0;
                    tracing::warn!(error = %e, revision, "checkpoint is damaged, using the one before");
                    Ok(Some(previous))
                }
                _ => Err(e),
            },
            read => read,
        }
    }

    /// The newest checkpoint and the one before, each by itself.
    pub(crate) fn each(&self) -> [Result<Option<Checkpoint>>; 2] {
        [&self.latest, &self.previous].map(|path| self.read(path))
    }

    /// Bytes that are free where they are kept, if the disk can tell.
    pub(crate) fn free_bytes(&self) -> Option<u64> {
        self.disk.free_bytes(self.latest.parent()?).ok()
    }

    fn read(&self, path: &Path) -> Result<Option<Checkpoint>> {
        let mut checkpoint: Option<Checkpoint> = None;
        let found = sealed::read(&*self.disk, path, FORM, |part| match (part.tag, &mut checkpoint) {
            (HEAD, slot) => {
                *slot = Some(read_head(part)?);
                Ok(())
            }
            (OUTCOME, Some(checkpoint)) => {
                checkpoint.outcomes.push(read_remembered(part)?);
                Ok(())
            }
            (NAMESPACE, Some(checkpoint)) => {
                let mut bytes = Reader::new(part.bytes);
                checkpoint.namespaces.push(read_namespace(&mut bytes)?);
                Ok(bytes.end()?)
            }
            (tag, _) if tag < MUST_KNOW => Ok(()),
            (tag, _) => Err(Error::invalid(format!(
                "`{}` has a part `{tag}` of a newer dstore: use that version",
                path.display()
            ))),
        })?;
        match (found, checkpoint) {
            (true, None) => Err(Error::corrupt(format!(
                "`{}` does not say what it proves: restore the data directory from a backup",
                path.display()
            ))),
            (_, checkpoint) => Ok(checkpoint),
        }
    }
}

fn read_head(part: Part) -> Result<Checkpoint> {
    let mut head = Reader::new(part.bytes);
    let (revision, previous, at_ms) = (Revision(head.u64()?), Revision(head.u64()?), head.u64()?);
    let (history, index) = (HistoryId(head.u128()?), head.u128()?);
    let names = if head.left() >= 8 { Some(head.u64()?) } else { None };
    let (namespaces, outcomes) = (Vec::new(), Vec::new());
    Ok(Checkpoint { revision, index, previous, history, at_ms, names, namespaces, outcomes })
}

fn read_remembered(part: Part) -> Result<Remembered> {
    let mut bytes = Reader::new(part.bytes);
    let at_ms = bytes.u64()?;
    let (id, outcome) = (read_request_id(&mut bytes)?, read_outcome(&mut bytes)?);
    bytes.end()?;
    Ok((id, outcome, at_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dstore_shared::{ClientId, DeleteOutcome, Namespace, NamespaceMode, NamespaceSpec, SetOutcome};
    use dstore_sys::disk::{Open, RealDisk};

    fn namespace(i: u64) -> NamespaceInfo {
        let mode = if i.is_multiple_of(2) { NamespaceMode::Replace } else { NamespaceMode::WriteOnce };
        let ttl = (i > 0).then(|| std::time::Duration::from_millis(i));
        let namespace = Namespace::new(format!("n{i}")).unwrap();
        NamespaceInfo { namespace, spec: NamespaceSpec { mode, ttl }, created: Revision(i) }
    }

    fn checkpoint(revision: u64, outcomes: u64) -> Checkpoint {
        let outcome = |i: u64| {
            let id = RequestId { client: ClientId(7), n: i, ..RequestId::default() };
            let outcome = match i % 2 {
                0 => Outcome::Set(SetOutcome::NeedBlob),
                _ => {
                    Outcome::Delete(DeleteOutcome { removed: vec![true; i as usize], revision: Revision(i) })
                }
            };
            (id, outcome, i)
        };
        Checkpoint {
            revision: Revision(revision),
            index: 3,
            previous: Revision(1),
            history: HistoryId(9),
            at_ms: 5,
            names: Some(6),
            namespaces: (0..outcomes.min(3)).map(namespace).collect(),
            outcomes: (0..outcomes).map(outcome).collect(),
        }
    }

    fn damage(path: &Path) {
        let file = RealDisk.open(path, Open::Write).unwrap();
        file.write_all_at(b"damage", 30).unwrap();
    }

    #[test]
    fn the_newest_whole_checkpoint_counts() {
        let dir = tempfile::tempdir().unwrap();
        let files = Checkpoints::new(Arc::new(RealDisk), dir.path());
        assert_eq!(files.load().unwrap(), None);
        let (first, second, third) = (checkpoint(1, 0), checkpoint(2, 5000), checkpoint(3, 1));
        files.write(&first).unwrap();
        assert_eq!(files.load().unwrap(), Some(first));
        files.write(&second).unwrap();
        assert_eq!(files.load().unwrap().as_ref(), Some(&second));
        files.write(&third).unwrap();
        assert_eq!(files.load().unwrap(), Some(third));
        damage(&dir.path().join("checkpoint"));
        assert_eq!(files.load().unwrap().as_ref(), Some(&second));
        damage(&dir.path().join("checkpoint.old"));
        assert_eq!(files.load().expect_err("both damaged").kind(), Kind::Corrupt);
    }

    #[test]
    fn a_crash_between_the_two_renames_leaves_the_checkpoint_before() {
        let dir = tempfile::tempdir().unwrap();
        let files = Checkpoints::new(Arc::new(RealDisk), dir.path());
        files.write(&checkpoint(1, 0)).unwrap();
        RealDisk.rename(&files.latest, &files.previous).unwrap();
        assert_eq!(files.load().unwrap(), Some(checkpoint(1, 0)));
        files.write(&checkpoint(2, 0)).unwrap();
        assert_eq!(files.load().unwrap(), Some(checkpoint(2, 0)));
    }

    #[test]
    fn unknown_parts_are_left_out_or_refused_by_their_number() {
        let dir = tempfile::tempdir().unwrap();
        let files = Checkpoints::new(Arc::new(RealDisk), dir.path());
        for (tag, good) in [(0x7f, true), (0x80, false)] {
            let mut writer = SealedWriter::create(&RealDisk, &files.latest, FORM).unwrap();
            writer.push(HEAD, &[&[1; 24], &[2; 32], b"later fields"]).unwrap();
            writer.push(tag, &[b"?"]).unwrap();
            writer.seal().unwrap().replace(None).unwrap();
            let loaded = files.load();
            assert_eq!(loaded.is_ok(), good, "{tag} {loaded:?}");
            if let Err(e) = loaded {
                assert_eq!(e.kind(), Kind::Invalid);
            }
        }
    }
}
