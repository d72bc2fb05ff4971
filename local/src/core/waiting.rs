//! Who waits for a flight, and what they are told: once, or nothing if they went away.

use crate::coherence::Waiter;
use dstore_shared::frame::Resolved;
use dstore_shared::{Blob, Entry, Error, Outcome, Result, Revision};
use std::time::Duration;
use tokio::sync::oneshot;

/// What a Resolve came to.
#[derive(Clone, Debug)]
pub(crate) struct Looked {
    /// The binding.
    pub entry: Option<Entry>,
    /// Its bytes, unless they are too many to be kept.
    pub blob: Option<Blob>,
    /// The node holds the name now.
    pub cached: bool,
    /// Global's revision at the read.
    pub head: Revision,
}

/// What a change came to.
#[derive(Clone, Debug)]
pub(crate) struct Changed {
    pub outcome: Outcome,
    /// The node holds the name that was SET now.
    pub cached: bool,
    /// Of an asynchronous DEL: for so long others may still read the old value.
    pub stale: Option<Duration>,
}

/// Somebody who waits for a flight.
#[derive(Debug)]
pub(crate) enum Waiting {
    Look(oneshot::Sender<Result<Looked>>),
    Change(oneshot::Sender<Result<Changed>>),
    Many(oneshot::Sender<Result<Vec<Resolved>>>),
}

impl Waiter for Waiting {
    fn is_gone(&self) -> bool {
        match self {
            Self::Look(to) => to.is_closed(),
            Self::Change(to) => to.is_closed(),
            Self::Many(to) => to.is_closed(),
        }
    }
}

impl Waiting {
    pub fn fail(self, error: &Error) {
        // Whoever has gone away is not told.
        match self {
            Self::Look(to) => _ = to.send(Err(error.clone())),
            Self::Change(to) => _ = to.send(Err(error.clone())),
            Self::Many(to) => _ = to.send(Err(error.clone())),
        }
    }

    pub fn tell_many(self, resolved: &[Resolved]) {
        if let Self::Many(to) = self {
            let _ = to.send(Ok(resolved.to_vec()));
        }
    }

    pub fn tell(self, looked: &Looked) {
        if let Self::Look(to) = self {
            let _ = to.send(Ok(looked.clone()));
        }
    }
}
