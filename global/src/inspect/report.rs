//! What is told of a data directory.

use super::{BlobFacts, Judged, MissingBlobs, SegmentFacts};
use crate::engine::EngineKind;
use dstore_shared::{Error, HistoryId, Kind, Result, Revision};
use std::path::PathBuf;
use std::time::Duration;

/// What can be said of the directory as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Nothing is wrong.
    Healthy,
    /// The next start repairs what is wrong, and loses nothing that was acknowledged.
    Mends,
    /// Something that was stored is damaged or missing.
    Damaged,
    /// This dstore cannot use it, which says nothing of what is stored.
    Unusable,
}

/// What `meta` says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MetaFacts {
    /// Format of the file.
    pub format: u32,
    /// The line of history.
    pub history: HistoryId,
    /// The last boot's number; 0 if there was none.
    pub boot: u64,
    /// The head at the last stop, if it was clean.
    pub clean: Option<Revision>,
    /// The largest lease ever granted.
    pub lease_max: Duration,
    /// Whether "not found" answers were ever leased.
    pub negatives_ever: bool,
    /// Whether there was an asynchronous DEL since the last start after a clean stop: a start after a crash then lets
    /// every change wait for leases.
    pub async_dels: bool,
    /// Whether changes were acknowledged before they were durable, and a start begins a new history.
    pub relaxed: bool,
    /// Name of the engine.
    pub engine: String,
}

/// What a checkpoint file says.
#[derive(Clone, Debug)]
pub struct CheckpointFacts {
    /// Its name.
    pub file: &'static str,
    /// What it says, or why it is not whole. `None` if there is no such file.
    pub found: Option<Result<Checked>>,
}

/// What a whole checkpoint says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checked {
    /// Everything up to here is durable in the index.
    pub revision: Revision,
    /// The revision of the one before, if of the same index; else 0.
    pub previous: Revision,
    /// The index that it proves.
    pub index: u128,
    /// Its history.
    pub history: HistoryId,
    /// Journal time at the revision, in milliseconds since 1970.
    pub at_ms: u64,
    /// How long ago that was, by this machine's clock.
    pub age: Duration,
    /// Outcomes of requests.
    pub outcomes: usize,
    /// Names that are bound at the revision, if it says.
    pub names: Option<u64>,
    /// Namespaces that were created.
    pub namespaces: usize,
}

/// What the index is.
#[derive(Clone, Debug)]
pub struct IndexFacts {
    /// The engine.
    pub engine: EngineKind,
    /// Its identity and the newest revision that it has seen, or why it cannot be opened.
    pub found: Result<(u128, Revision)>,
    /// Whether it is what the checkpoint proves; also if there is no checkpoint, so that nothing is to be proven.
    pub proven: bool,
}

/// Everything that was found.
#[derive(Clone, Debug)]
pub struct Report {
    /// The directory.
    pub data: PathBuf,
    /// Whether its lock was held meanwhile, so that nothing moved.
    pub locked: bool,
    /// What `meta` says, if it is whole.
    pub meta: Option<MetaFacts>,
    /// `checkpoint` and `checkpoint.old`.
    pub checkpoints: Vec<CheckpointFacts>,
    /// The index, if it was looked at.
    pub index: Option<IndexFacts>,
    /// The journal's files.
    pub segments: Vec<SegmentFacts>,
    /// What a start would make of the journal, if it would not refuse.
    pub journal: Option<Judged>,
    /// The blobs, if they could be listed.
    pub blobs: Option<BlobFacts>,
    /// Values that have no file, if that could be told.
    pub missing: Option<MissingBlobs>,
    /// Free bytes of the file system, if it says.
    pub free: Option<u64>,
    /// What it is compared with.
    pub min_free: u64,
    /// What is worth knowing and not wrong.
    pub notes: Vec<String>,
    /// What the next start repairs.
    pub mends: Vec<String>,
    /// Why the next start would refuse, and what is damaged.
    pub faults: Vec<Error>,
}

impl Report {
    /// What can be said of the directory as a whole.
    pub fn verdict(&self) -> Verdict {
        let damaged = self.faults.iter().any(|e| e.kind() == Kind::Corrupt);
        match (damaged, self.faults.is_empty(), self.mends.is_empty()) {
            (true, ..) => Verdict::Damaged,
            (false, false, _) => Verdict::Unusable,
            (false, true, false) => Verdict::Mends,
            (false, true, true) => Verdict::Healthy,
        }
    }
}
