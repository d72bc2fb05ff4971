//! Why a journal is not opened, for the operator: what, where, and what to do.

use dstore_shared::{Error, Kind, Revision};
use std::io;

const ADVICE: &str = "restore the data directory from a backup, or move it away and begin with an empty one";

/// A reason to refuse. Nothing was changed on the disk when one is given.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("journal segment `{segment}` cannot be read: repair the disk, then start again")]
    Unreadable { segment: String, source: io::Error },
    #[error(
        "journal segment `{segment}` has format `{format}`, newer than this dstore knows: use a newer dstore"
    )]
    Newer { segment: String, format: u32 },
    #[error(
        "journal segment `{segment}` is damaged at offset `0`: neither copy of its header is whole: {ADVICE}"
    )]
    Header { segment: String },
    #[error(
        "journal segment `{segment}` is misnamed, its header at offset `0` has sequence `{sequence}`: undo the renaming"
    )]
    Misnamed { segment: String, sequence: u64 },
    #[error(
        "journal segment `{segment}` is damaged at offset `{offset}`: revision `{revision}` is missing \
         ({reason}), but revision `{follows}` follows in `{follows_segment}` at offset `{follows_offset}`: {ADVICE}"
    )]
    Damaged {
        segment: String,
        offset: u64,
        revision: Revision,
        reason: String,
        follows: Revision,
        follows_segment: String,
        follows_offset: u64,
    },
    #[error(
        "journal segment `{segment}` is out of order at offset `{offset}`: after revision `{head}` comes a batch \
         that begins with `{first}` and does not follow it: {ADVICE}"
    )]
    OutOfOrder { segment: String, offset: u64, head: Revision, first: Revision },
    #[error(
        "journal ends at revision `{head}` (segment `{segment}` offset `{offset}`: {reason}), but {witness} has \
         revision `{floor}`: acknowledged writes are missing from the journal: {ADVICE}"
    )]
    Behind {
        segment: String,
        offset: u64,
        head: Revision,
        reason: String,
        witness: &'static str,
        floor: Revision,
    },
    #[error(
        "journal begins after revision `{checkpoint}`, so what follows that checkpoint is missing: {ADVICE}"
    )]
    Begins { checkpoint: Revision },
    #[error(
        "journal directory `{dir}` holds no segment, but {witness} has revision `{floor}`: put the journal back, \
         or restore a backup"
    )]
    Gone { dir: String, witness: &'static str, floor: Revision },
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let kind = match refusal {
            Refusal::Unreadable { .. } => Kind::Unavailable,
            Refusal::Newer { .. } => Kind::Invalid,
            _ => Kind::Corrupt,
        };
        let error = Self::new(kind, refusal.to_string());
        match refusal {
            Refusal::Unreadable { source, .. } => error.caused_by(source),
            _ => error,
        }
    }
}
