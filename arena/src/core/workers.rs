//! Who reads the arena, and what they have pinned.

use super::Core;
use crate::layout::worker;
use crate::memory::{Extend, Memory};
use crate::pins;
use std::collections::HashSet;
use std::sync::{Arc, Weak};

/// A worker's page as the daemon has it. It counts for as long as its [`crate::Worker`] lives.
#[derive(Debug)]
pub(crate) struct Page<M> {
    pub id: u64,
    pub memory: M,
}

#[derive(Debug)]
struct Attached<M> {
    page: Weak<Page<M>>,
    tails: [u64; worker::RINGS],
    /// The pins at the last sweep.
    pins: Vec<u64>,
    /// Its pins do not count any more: it has taken more than it may.
    revoked: bool,
}

/// A worker that holds more bytes than it may. The reader's library never does; whoever does without it has lost the
/// protection of its pins, and is to be told and cut off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hoarder {
    /// The worker's number.
    pub worker: u64,
    /// Bytes that it held at once, proven.
    pub bytes: u64,
}

/// All workers.
#[derive(Debug)]
pub(super) struct Workers<M>(Vec<Attached<M>>);

impl<M> Default for Workers<M> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<M: Memory> Workers<M> {
    pub(super) fn len(&self) -> usize {
        self.0.iter().filter(|one| one.page.strong_count() > 0).count()
    }

    fn trusted(&self) -> impl Iterator<Item = Arc<Page<M>>> {
        self.0.iter().filter(|one| !one.revoked).filter_map(|one| one.page.upgrade())
    }

    /// Whether somebody reads the row at `unit`.
    pub(super) fn is_pinned(&self, unit: u32) -> bool {
        self.trusted().any(|page| pins::pinned(&page.memory).any(|word| word as u32 == unit))
    }

    /// Everything that is pinned.
    pub(super) fn all_pinned(&self) -> HashSet<u32> {
        let units =
            |page: Arc<Page<M>>| pins::pinned(&page.memory).map(|word| word as u32).collect::<Vec<_>>();
        self.trusted().flat_map(units).collect()
    }

    /// Takes in all touches, and forgets workers that are gone.
    pub(super) fn touched(&mut self, mut each: impl FnMut(u32)) {
        self.0.retain_mut(|one| {
            let Some(page) = one.page.upgrade() else { return false };
            pins::touched(&page.memory, &mut one.tails, &mut each);
            true
        });
    }
}

impl<M: Memory, D: Extend> Core<M, D> {
    /// Counts the pins and touches of a fresh page from now on.
    pub(crate) fn attach(&mut self, page: &Arc<Page<M>>) {
        pins::begin(&page.memory, page.id);
        let tails = [0; worker::RINGS];
        let attached = Attached { page: Arc::downgrade(page), tails, pins: Vec::new(), revoked: false };
        self.workers.0.push(attached);
    }

    /// Takes in touches, frees what nobody reads any more, and tells who hoards.
    ///
    /// A pin whose word, number included, is there at two sweeps was there all the time between: what such pins hold was
    /// held at once, so that no worker is accused because it let go of one value and took another meanwhile.
    pub(crate) fn sweep(&mut self) -> Vec<Hoarder> {
        self.drain_touches();
        let mut hoarders = Vec::new();
        let mut workers = std::mem::take(&mut self.workers.0);
        for one in workers.iter_mut().filter(|one| !one.revoked) {
            let Some(page) = one.page.upgrade() else { continue };
            let now: Vec<u64> = pins::pinned(&page.memory).collect();
            let both = now.iter().filter(|word| one.pins.contains(word));
            let bytes = both.map(|word| self.bytes_at(*word as u32)).sum();
            one.pins = now;
            if bytes > self.terms.pin_bytes_max {
                one.revoked = true;
                hoarders.push(Hoarder { worker: page.id, bytes });
            }
        }
        self.workers.0 = workers;
        self.sweep_limbo();
        self.show();
        hoarders
    }

    /// Bytes of the value of the row at `unit`, whatever number that is.
    fn bytes_at(&self, unit: u32) -> u64 {
        if self.space.kind(unit) == crate::space::Kind::Row {
            u64::from(self.shape(unit).value_len())
        } else {
            0
        }
    }
}
