//! Owns what the journal says: typed changes, the commits that group them, and their bytes on disk.
//!
//! Invariants: a change carries the *absolute* result (the entry as it now is, the count as it now is), so
//! that redoing it twice, or over an index that already holds later changes, ends in the same state; what
//! [`Payload`] writes [`Commits`] reads back equal; bytes that this version does not know are refused, never
//! guessed. Decoding must never panic, and never reserve more memory than the bytes it was given.
//!
//! The layout, byte by byte, is in docs/STORAGE.md.

mod codec;
mod reader;
#[cfg(test)]
mod tests;
mod values;

pub use codec::{Commits, Payload};
pub(crate) use reader::Reader;
pub(crate) use values::{
    decode_entry, decode_meta, encode_entry, encode_meta, outcome_len, put_namespace, put_outcome,
    put_request_id, read_namespace, read_outcome, read_request_id,
};

use bytes::Bytes;
use dstore_shared::{BlobHash, Entry, Name, Namespace, NamespaceInfo, Outcome, RequestId, Revision};

/// One committed step of the history: everything in it becomes durable and visible together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Commit {
    /// Its number; the first is 1.
    pub revision: Revision,
    /// Journal time in milliseconds since 1970: never less than that of the commit before.
    pub at_ms: u64,
    /// The request that asked for it and what it is told, remembered with the change (rule 25).
    pub outcome: Option<(RequestId, Outcome)>,
    /// What is different now, in order; of two changes of one thing the later counts.
    pub changes: Vec<Change>,
}

/// One difference that a commit makes, as the absolute result.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// `name` is bound to `entry` now.
    Bind {
        /// The name.
        name: Name,
        /// What it is bound to.
        entry: Entry,
    },
    /// `name` is not bound any more.
    Unbind {
        /// The name.
        name: Name,
    },
    /// Global holds the blob, and this is what it knows of it now.
    Blob {
        /// The blob.
        hash: BlobHash,
        /// All that is known.
        meta: BlobMeta,
    },
    /// Global does not hold the blob any more.
    BlobGone {
        /// The blob.
        hash: BlobHash,
    },
    /// The bytes of a blob that is kept inside the index.
    Inline {
        /// The blob.
        hash: BlobHash,
        /// Its bytes.
        bytes: Bytes,
    },
    /// The index keeps the bytes of the blob no longer.
    InlineGone {
        /// The blob.
        hash: BlobHash,
    },
    /// `name` was bound, and is bound to `entry` now: as `Bind`, but what holders had of it is void.
    Rebind {
        /// The name.
        name: Name,
        /// What it is bound to.
        entry: Entry,
    },
    /// The namespace is there, and this is what it allows.
    Namespace(NamespaceInfo),
    /// The namespace is as one that nobody created.
    NamespaceGone {
        /// The namespace.
        namespace: Namespace,
    },
}

/// What Global knows of a blob besides its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlobMeta {
    /// Length in bytes.
    pub size: u64,
    /// How many names are bound to it now.
    pub refs: u64,
    /// Where its bytes are.
    pub place: Place,
    /// Journal time at which it lost its last name, or arrived without one; `None` while it has a name.
    pub unnamed_since_ms: Option<u64>,
    /// Its bytes were found not to have its hash: never served, and replaced by the next SET of them.
    pub corrupt: bool,
}

/// Where the bytes of a blob are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// In the index.
    Inline,
    /// In a file named by the hash.
    File,
}

impl Commit {
    /// Bytes that this commit takes in a payload.
    pub fn encoded_len(&self) -> usize {
        codec::commit_len(self)
    }
}
