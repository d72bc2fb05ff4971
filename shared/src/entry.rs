//! What a name is bound to, and what a command did.

use crate::{
    Attributes, Blob, BlobHash, ContentType, Name, NamespaceOutcome, Prefix, Revision, Transaction,
    TransactionOutcome, type_len,
};
use std::sync::Arc;
use std::time::Duration;

/// The binding of a name to a blob.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The blob's hash.
    pub hash: BlobHash,
    /// The blob's length in bytes.
    pub size: u64,
    /// Revision of the last committed change of this entry (rule 9).
    pub bind_rev: Revision,
    /// Journal time, in milliseconds since 1970, at which the name expires; `None` = never.
    pub expires_at: Option<crate::End>,
    /// Of what type the value is, if whoever bound the name said so.
    pub content_type: Option<ContentType>,
}

impl Entry {
    /// A binding that lives for ever, of a value whose type nobody told.
    pub const fn new(hash: BlobHash, size: u64, bind_rev: Revision) -> Self {
        Self { hash, size, bind_rev, expires_at: None, content_type: None }
    }

    /// Bytes of its type.
    pub fn type_len(&self) -> usize {
        type_len(self.content_type.as_ref())
    }
}

/// A change asked of Global.
#[derive(Clone, Debug)]
pub enum Command {
    /// Bind `name` to a blob, unless it is bound to another.
    Set {
        /// The name to bind.
        name: Name,
        /// The blob's hash.
        hash: BlobHash,
        /// The blob's length in bytes.
        size: u64,
        /// The bytes, if they travel with the command; otherwise Global must hold the blob already.
        carried: Option<Blob>,
        /// What is said besides.
        attributes: Attributes,
    },
    /// Unbind all of `names`, atomically.
    Delete {
        /// The names, at least one; duplicates are allowed and answered alike.
        names: Vec<Name>,
        /// When it is answered.
        mode: DeleteMode,
    },
    /// Bind `to` to the blob that `from` is bound to, unless it is bound to another. No bytes move.
    Copy {
        /// The name that has the blob.
        from: Name,
        /// The name to bind.
        to: Name,
    },
    /// As `Copy`, and unbind `from`, in one step.
    Rename {
        /// The name to unbind.
        from: Name,
        /// The name to bind.
        to: Name,
    },
    /// Unbind all names under `prefix`, atomically.
    DeletePrefix {
        /// What they begin with.
        prefix: Prefix,
    },
    /// Several reads and changes that are decided together.
    Apply(Transaction),
}

/// When a DEL is answered. The mode belongs to the change: every attempt under one id has the same.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum DeleteMode {
    /// When it is durable and nobody can read the old value any more.
    #[default]
    Strict,
    /// As `Strict`, or after this time as `Pending`: the change goes on, and is not durable yet. At most
    /// [`DELETE_DEADLINE_MAX`](crate::limits::DELETE_DEADLINE_MAX).
    Deadline(Duration),
    /// When it is durable: others may go on reading the old value for as long as the answer says (rule 27).
    Async,
}

impl DeleteMode {
    /// How long the answer may take, if that is bounded.
    pub fn deadline(self) -> Option<Duration> {
        match self {
            Self::Deadline(limit) => Some(limit),
            Self::Strict | Self::Async => None,
        }
    }
}

/// What became of a [`Command`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Of a `Set`.
    Set(SetOutcome),
    /// Of a `Delete`.
    Delete(DeleteOutcome),
    /// Of a `Copy`.
    Copy(CopyOutcome),
    /// Of a `Rename`.
    Rename(CopyOutcome),
    /// Of a `DeletePrefix`.
    DeletePrefix(PrefixOutcome),
    /// Of an `Apply`. Shared: it may be long, and is remembered.
    Transaction(Arc<TransactionOutcome>),
    /// Of the creation or the drop of a namespace.
    Namespace(NamespaceOutcome),
}

impl Outcome {
    /// Whether nothing was done for want of a blob: the same request may come again.
    pub fn needs_blob(&self) -> bool {
        match self {
            Self::Set(SetOutcome::NeedBlob) => true,
            Self::Transaction(done) => matches!(done.decision, crate::Decision::NeedBlobs(_)),
            _ => false,
        }
    }

    /// Bytes of the content types of what it tells.
    pub fn type_len(&self) -> usize {
        match self {
            Self::Set(SetOutcome::Stored(e) | SetOutcome::Unchanged(e) | SetOutcome::Occupied(e)) => {
                e.type_len()
            }
            Self::Copy(done) | Self::Rename(done) => match &done.result {
                CopyResult::Done(e) | CopyResult::Unchanged(e) | CopyResult::Occupied(e) => e.type_len(),
                CopyResult::NotFound => 0,
            },
            Self::Transaction(done) => done.type_len(),
            Self::Set(SetOutcome::NeedBlob)
            | Self::Delete(_)
            | Self::DeletePrefix(_)
            | Self::Namespace(_) => 0,
        }
    }

    /// The newest revision that it tells of: Global was there when it decided; 0 if it tells of none.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Set(SetOutcome::Stored(e) | SetOutcome::Unchanged(e) | SetOutcome::Occupied(e)) => {
                e.bind_rev
            }
            Self::Set(SetOutcome::NeedBlob) => Revision(0),
            Self::Delete(done) => done.revision,
            Self::Copy(done) | Self::Rename(done) => done.revision,
            Self::DeletePrefix(done) => done.revision,
            Self::Transaction(done) => done.revision,
            Self::Namespace(done) => done.revision,
        }
    }
}

/// What became of a SET.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SetOutcome {
    /// The name is now bound to the blob.
    Stored(Entry),
    /// The name was bound to the same blob already; nothing was written.
    Unchanged(Entry),
    /// The name is bound to another blob, this one.
    Occupied(Entry),
    /// Global does not hold the blob that the command names; nothing was done. Upload it, then ask again
    /// with the same id.
    NeedBlob,
}

/// What became of a DEL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeleteOutcome {
    /// For each name of the command, whether it was bound.
    pub removed: Vec<bool>,
    /// The revision at which all of them were unbound; the head revision if none was bound.
    pub revision: Revision,
}

/// What became of a COPY or a RENAME.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CopyOutcome {
    /// What was done, or why nothing was.
    pub result: CopyResult,
    /// The revision of the change; the head revision if nothing was changed.
    pub revision: Revision,
}

impl CopyOutcome {
    /// Whether the name that was copied or renamed to was not bound before.
    pub fn is_fresh(&self) -> bool {
        matches!(&self.result, CopyResult::Done(entry) if entry.bind_rev == self.revision)
    }
}

/// What a COPY or RENAME did, or why it did nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CopyResult {
    /// It is done: the second name is bound to the blob by this entry. A RENAME over a name that was bound to the
    /// very blob leaves its entry as it was.
    Done(Entry),
    /// Of a COPY whose second name was bound to the blob already, or of a name to itself: nothing was written.
    Unchanged(Entry),
    /// The second name is bound to another blob, this one; nothing was done.
    Occupied(Entry),
    /// The first name is not bound; nothing was done.
    NotFound,
}
/// What became of a DEL by prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PrefixOutcome {
    /// How many names were bound.
    pub removed: u64,
    /// The revision at which all of them were unbound; the head revision if none was bound.
    pub revision: Revision,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_without_a_type_takes_no_more_memory_than_before_there_were_types() {
        // 32 of the hash, 8 each of size, revision and end, and 8 for the type, which the end gave up.
        assert_eq!((size_of::<Entry>(), size_of::<Option<Entry>>()), (64, 64));
    }
}
