//! The vocabulary that every part of dstore speaks: names, blobs, revisions, errors, limits and the
//! messages of the two coherence machines.
//!
//! Invariants: a [`Blob`] exists only hashed or verified; a [`Key`] or [`Namespace`] only within its limits.
//! This crate does no I/O, reads no clock and knows neither tonic nor an index engine.

mod attributes;
mod blob;
pub mod canon;
mod end;
mod entry;
mod error;
pub mod figures;
pub mod frame;
mod ids;
pub mod limits;
mod moment;
mod name;
mod namespace;
mod outline;
#[cfg(feature = "faults")]
pub mod planted;
mod transaction;

pub use attributes::{Attributes, ContentType, type_len};
pub use blob::{Blob, BlobHash, BlobHasher, ParseHashError};
pub use end::End;
pub use entry::{
    Command, CopyOutcome, CopyResult, DeleteMode, DeleteOutcome, Entry, Outcome, PrefixOutcome, SetOutcome,
};
pub use error::{Error, Kind, Result};
pub use ids::{
    Born, ClientId, Epoch, FlightId, HistoryId, Incarnation, LocalId, RegSeq, RequestId, Revision,
};
pub use moment::Moment;
pub use name::{Key, Name, Namespace, Prefix};
pub use namespace::{NamespaceInfo, NamespaceMode, NamespaceOutcome, NamespaceResult, NamespaceSpec};
pub use outline::{GROUP_BYTES, Outline, OutlineBuilder};
pub use transaction::{
    Decision, ExpireWhen, Expiry, Guard, Payload, Step, StepOutcome, StepResult, Transaction,
    TransactionOutcome, When, check_ttl,
};
