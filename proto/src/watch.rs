//! What a watch is asked for and what it tells: the changes of names with a prefix, from a revision on.
//!
//! Invariants: events come in the order of revisions, none is left out and none comes twice; all events of a revision
//! are seen when `through` has reached it, never before. So whoever resumes after the last `through` that he has
//! dealt with misses nothing and sees nothing of an earlier revision again.
//! A watch must never hold up a change: one that does not keep up is told `TooOld` and ends.

use bytes::Bytes;
use dstore_shared::{Entry, Error, HistoryId, Key, Kind, Namespace, Result, Revision};
use futures_util::stream::Stream;
use std::fmt;
use std::pin::Pin;

/// What to watch, and from where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WatchQuery {
    /// In which namespace.
    pub namespace: Namespace,
    /// What the keys begin with, 0 to 1,024 bytes.
    pub prefix: Bytes,
    /// Only changes after this revision: the last [`Seen::through`], or the revision of a list. `None` = from now
    /// on, `Some(Revision(0))` = from the first.
    pub after: Option<Revision>,
    /// The history that `after` is of, if it is known: another one is `TooOld`.
    pub history: Option<HistoryId>,
}

/// A watch that has begun.
pub struct Watching {
    /// The history whose revisions are told.
    pub history: HistoryId,
    /// Changes after this revision follow.
    pub after: Revision,
    /// What happens, for as long as it is read. An error is its end; a stream that ends otherwise ends because the
    /// tier stops.
    pub batches: WatchStream,
}

impl fmt::Debug for Watching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watching({:?} after {})", self.history, self.after)
    }
}

/// Batches of events, as they happen.
pub type WatchStream = Pin<Box<dyn Stream<Item = Result<Seen>> + Send>>;

/// Some events, and how far they reach.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Seen {
    /// In the order in which they happened; perhaps none.
    pub events: Vec<Event>,
    /// All changes up to this revision have been told. Events of a greater one are a part of what it did, and the
    /// rest follows.
    pub through: Revision,
}

/// What became of one name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// Events of one revision happened in one step.
    pub revision: Revision,
    /// Journal time in milliseconds since 1970: Global's clock, never falling.
    pub at_ms: u64,
    /// The name's key, in the namespace that is watched.
    pub key: Key,
    /// What became of it.
    pub happened: Happened,
}

/// What became of a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Happened {
    /// It is bound to this now.
    Bound(Entry),
    /// It is not bound any more; to what it was, unless that is not known after a restart of Global.
    Unbound(Option<Entry>),
}

/// The error of a watch whose changes are forgotten: `oldest` is what a watch may begin after.
pub fn too_old(after: Revision, oldest: Revision) -> Error {
    Error::new(
        Kind::TooOld,
        format!(
            "changes after revision `{after}` are forgotten, those after `{oldest}` are not: list, then watch after \
             the list's revision"
        ),
    )
}

/// The error of a watch that goes on from a revision that there was not yet, as after a backup was restored.
pub fn not_reached(after: Revision, head: Revision) -> Error {
    Error::new(
        Kind::TooOld,
        format!(
            "revision `{after}` is not reached here, the newest is `{head}`; perhaps a backup was restored: list, then \
             watch after the list's revision"
        ),
    )
}

/// The error of a watch that goes on from a revision of another history.
pub fn other_history(asked: HistoryId, found: HistoryId) -> Error {
    Error::new(
        Kind::TooOld,
        format!(
            "revisions of history `{asked}` mean nothing here, this one is `{found}`: list, then watch after the \
             list's revision"
        ),
    )
}
