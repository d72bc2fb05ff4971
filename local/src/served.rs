//! How reads were served, counted where they are.
//!
//! Owns counts that only grow. It must never cost a hit more than one addition.

use dstore_shared::Moment;
use dstore_shared::figures::{Histogram, Tally};
use dstore_sys::clock::Clock;
use std::sync::atomic::AtomicU64;

/// What was served, besides RESP's hits.
#[derive(Debug, Default)]
pub(crate) struct Served {
    /// Reads that were answered from memory.
    pub hits: AtomicU64,
    /// Reads for which Global was asked, and how long they took, until the bytes were there or began to come.
    misses: Histogram,
    /// Times that the lease ran out or was given up.
    pub lapses: AtomicU64,
}

/// A read that goes to Global; counted when it is over.
pub(crate) struct Miss<'a> {
    misses: &'a Histogram,
    clock: &'a dyn Clock,
    begun: Moment,
}

impl Served {
    /// How long reads took for which Global was asked.
    pub fn misses(&self) -> Tally {
        self.misses.read()
    }

    /// A read goes to Global, until what this gives is dropped.
    pub fn miss<'a>(&'a self, clock: &'a dyn Clock) -> Miss<'a> {
        Miss { misses: &self.misses, clock, begun: clock.now() }
    }
}

impl Drop for Miss<'_> {
    fn drop(&mut self) {
        self.misses.note_time(self.clock.now().since(self.begun));
    }
}
