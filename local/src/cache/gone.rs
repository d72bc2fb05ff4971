//! Owns the names that left the cache and are still to be told of: clients that keep values themselves want to know.
//!
//! Invariant: nothing is kept unless somebody wants to know. Whoever drives the cache takes what there is after each
//! event, so it stays as short as one event is.

use dstore_shared::Name;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Names that left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Left {
    /// These.
    Names(Vec<Name>),
    /// All of them.
    All,
}

/// Names that left and were not told of yet.
#[derive(Debug, Default)]
pub(super) struct Gone {
    wanted: AtomicBool,
    left: Mutex<Option<Left>>,
}

impl Gone {
    /// Whether somebody wants to know.
    pub(super) fn want(&self, wanted: bool) {
        self.wanted.store(wanted, Ordering::Release);
    }

    /// A name left.
    pub(super) fn note(&self, name: &Name) {
        if !self.wanted.load(Ordering::Acquire) {
            return;
        }
        let mut left = self.left.lock();
        match &mut *left {
            Some(Left::Names(names)) => names.push(name.clone()),
            Some(Left::All) => {}
            None => *left = Some(Left::Names(vec![name.clone()])),
        }
    }

    /// All names left.
    pub(super) fn note_all(&self) {
        if self.wanted.load(Ordering::Acquire) {
            *self.left.lock() = Some(Left::All);
        }
    }

    /// What left since it was asked for last.
    pub(super) fn take(&self) -> Option<Left> {
        if !self.wanted.load(Ordering::Acquire) {
            return None;
        }
        self.left.lock().take()
    }
}
