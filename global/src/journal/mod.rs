//! The journal: the truth since the last checkpoint, an append-only sequence of batches of revisions on disk.
//!
//! ```text
//! append(first, last, payload)
//!   -> one write of header + payload + padding at the next 4 KiB boundary of a pre-zeroed segment
//!   -> fdatasync -> Ok                       (any failure: poisoned for ever)
//! open(floors)
//!   -> survey segments -> walk batches after the checkpoint -> judge the tail: whole | torn | refuse
//!   -> unless stopped cleanly: copy them to a fresh segment, fsync, rename, fsync the directory
//!   -> replay them to the caller
//! ```
//!
//! Invariants:
//! - A batch that was acknowledged is there after any crash, in order, with exactly its bytes.
//! - Batch n+1 is written only after the fsync of n returned, so at most the last one can be torn. Only a relaxed
//!   journal, whose segments say so, writes on, and there a batch says which revisions were durable before it.
//! - Old batches of a recycled segment, and values that look like batches, are never taken for batches: each
//!   checksum covers a salt drawn for this use of the segment, and the batch's offset.
//! - What was merely read is not given out: after an unclean stop it is written and fsynced again first.
//!
//! It must never retry after a failed write or fsync of a batch, interpret a payload, or let a batch cross segments.

mod format;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod inspect;
mod log;
mod open;
mod recovery;
mod refusal;
mod rewrite;
mod salvage;
mod segment;
mod spares;
mod syncer;

pub use inspect::{BatchFault, Judged, SegmentFacts, SegmentRole};
pub(crate) use inspect::{describe, judge};
pub use log::Journal;
pub(crate) use salvage::{Whole, whole};
pub(crate) use syncer::Syncer;

use bytes::Bytes;
use dstore_shared::{Error, Result, Revision};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Bytes of a segment: large enough that the change of segments is rare, small enough to be zeroed in about 50 ms.
pub(crate) const SEGMENT_BYTES: u64 = 64 << 20;

/// How a journal is laid out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JournalConfig {
    /// Directory of the segments, made if need be. Nothing else should be in it.
    pub dir: PathBuf,
    /// Bytes of a segment, a multiple of 4 KiB. A batch never exceeds a segment.
    pub segment_bytes: u64,
    /// Room for new batches in the segment that `open` makes, a multiple of 4 KiB.
    pub first_segment_bytes: u64,
    /// Segments kept ready ahead of need, at least 1: the last one is reserved for [`Class::Essential`] batches
    /// when no further one can be made.
    pub spare_segments: usize,
    /// No new segment file is made if fewer bytes than this would remain free.
    pub min_free_bytes: u64,
    /// So many of the last revisions are replayed though the checkpoint has them, as far as they are kept; for that
    /// at most two segments more are read.
    pub replay_again: u64,
    /// Batches are acknowledged before they are durable: all are within about so long. `None`: each is durable before
    /// it is acknowledged and before the next is written.
    pub relaxed: Option<Duration>,
}

impl JournalConfig {
    /// The defaults, in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            segment_bytes: SEGMENT_BYTES,
            // An empty directory is to start within milliseconds.
            first_segment_bytes: 1 << 20,
            // One for use while the next is prepared, one in reserve for a full disk.
            spare_segments: 2,
            min_free_bytes: 256 << 20,
            replay_again: 0,
            relaxed: None,
        }
    }

    /// Whether a batch that ends with `last` is replayed though the checkpoint has it.
    fn replays_again(&self, last: Revision, head: Revision) -> bool {
        last.0.saturating_add(self.replay_again) > head.0
    }

    fn check(&self) -> Result<()> {
        let whole = |bytes: u64| bytes.is_multiple_of(format::BLOCK);
        if self.segment_bytes < format::DATA_START + format::BLOCK || !whole(self.segment_bytes) {
            let bytes = self.segment_bytes;
            return Err(Error::invalid(format!(
                "journal segments of `{bytes}` bytes: use a multiple of 4096, at least 12288"
            )));
        }
        if self.first_segment_bytes < format::BLOCK || !whole(self.first_segment_bytes) {
            let bytes = self.first_segment_bytes;
            return Err(Error::invalid(format!(
                "a first journal segment of `{bytes}` bytes: use a multiple of 4096"
            )));
        }
        if self.spare_segments == 0 {
            return Err(Error::invalid("`0` spare journal segments: use at least 1"));
        }
        Ok(())
    }
}

/// Revisions that others know to be durable: the journal must reach them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Floors {
    /// Everything up to here is in a durable checkpoint; what follows is replayed.
    pub checkpoint: Revision,
    /// The newest revision that the index shows.
    pub index: Revision,
    /// The head at the last stop, if its clean-shutdown mark is there. It must have been removed durably before
    /// the first append after an `open` with it.
    pub clean: Option<Revision>,
}

impl Floors {
    fn highest(&self) -> Option<(&'static str, Revision)> {
        let clean = self.clean.unwrap_or_default();
        let floors = [
            ("the checkpoint", self.checkpoint),
            ("the index", self.index),
            ("the clean-shutdown mark", clean),
        ];
        floors.into_iter().max_by_key(|(_, revision)| *revision).filter(|(_, revision)| revision.0 > 0)
    }
}

/// A batch as it is replayed.
#[derive(Clone, PartialEq, Eq)]
pub struct Batch {
    /// Its first revision.
    pub first: Revision,
    /// Its last revision.
    pub last: Revision,
    /// What was appended.
    pub payload: Bytes,
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({}..={}, {} bytes)", self.first, self.last, self.payload.len())
    }
}

/// What was cut off at the end of the journal: a batch that was begun and never acknowledged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Torn {
    /// File name of the segment.
    pub segment: String,
    /// Offset of the batch in it, in bytes.
    pub offset: u64,
    /// The revision that the batch would have begun with.
    pub revision: Revision,
    /// How it shows.
    pub reason: String,
}

impl fmt::Display for Torn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segment, offset, revision, reason } = self;
        write!(
            f,
            "a torn batch of revision `{revision}` was cut from `{segment}` at offset `{offset}`: {reason}"
        )
    }
}

/// What `open` found and did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Opened {
    /// The last revision in the journal.
    pub head: Revision,
    /// The oldest revision that can still be replayed; one past `head` if there is none.
    pub oldest: Revision,
    /// Whether there was no journal before.
    pub created: bool,
    /// Whether the journal was stopped cleanly, so that nothing had to be written again.
    pub clean: bool,
    /// What was cut off.
    pub torn: Option<Torn>,
    /// Batches that were replayed.
    pub replayed: u64,
}

/// What a batch is for, when the disk is nearly full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Uses more space: refused when only the reserved segment is left.
    Ordinary,
    /// Frees space or ends something (DEL, sweep, checkpoint): may use the reserved segment.
    Essential,
}

#[cfg(test)]
mod tests;
