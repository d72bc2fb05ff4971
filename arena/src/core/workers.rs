//! Who reads the arena, and what they have pinned.

use super::Core;
use crate::layout::worker;
use crate::memory::{Extend, Memory};
use crate::pins;
use std::collections::HashSet;
use std::sync::{Arc, Weak};

/// All workers together may hold one part in this many of the data, if others find no room.
const PINNED_PART: u64 = 2;

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
    /// The rows pinned at the last sweep.
    pins: HashSet<u32>,
    /// It reads in the daemon's own process: by the library, and so no more than it may.
    is_own: bool,
    /// It has taken more than it may: its pins do not count any more, but for those that it had when it was told so. They
    /// hold until it is gone, so that even a worker that was accused wrongly reads nothing wrong.
    frozen: Option<HashSet<u32>>,
}

impl<M: Memory> Attached<M> {
    /// What it has pinned, as far as that counts; nothing once it is gone.
    fn pinned(&self) -> HashSet<u32> {
        match (&self.frozen, self.page.upgrade()) {
            (Some(frozen), Some(_)) => frozen.clone(),
            (None, Some(page)) => pins::pinned(&page.memory).map(|word| word as u32).collect(),
            (_, None) => HashSet::new(),
        }
    }

    /// Whether it is to be watched.
    fn may_hoard(&self) -> bool {
        self.frozen.is_none() && !self.is_own && self.page.strong_count() > 0
    }

    fn revoke(&mut self) -> Option<u64> {
        let page = self.page.upgrade()?;
        self.frozen = Some(pins::revoke(&page.memory).into_iter().collect());
        Some(page.id)
    }
}

/// A worker that holds more bytes than it may. The reader's library never does; whoever does without it has lost the
/// protection of its pins, and is to be told and cut off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hoarder {
    /// The worker's number.
    pub worker: u64,
    /// Bytes that it was seen to hold.
    pub bytes: u64,
}

/// All workers.
#[derive(Debug)]
pub(super) struct Workers<M> {
    all: Vec<Attached<M>>,
    /// Found between two sweeps.
    found: Vec<Hoarder>,
}

impl<M> Default for Workers<M> {
    fn default() -> Self {
        Self { all: Vec::new(), found: Vec::new() }
    }
}

impl<M: Memory> Workers<M> {
    pub(super) fn len(&self) -> usize {
        self.all.iter().filter(|one| one.page.strong_count() > 0).count()
    }

    /// Whether somebody reads the row at `unit`.
    pub(super) fn is_pinned(&self, unit: u32) -> bool {
        self.all.iter().any(|one| match (&one.frozen, one.page.upgrade()) {
            (Some(frozen), Some(_)) => frozen.contains(&unit),
            (None, Some(page)) => pins::pinned(&page.memory).any(|word| word as u32 == unit),
            (_, None) => false,
        })
    }

    /// Everything that is pinned.
    pub(super) fn all_pinned(&self) -> HashSet<u32> {
        self.all.iter().flat_map(Attached::pinned).collect()
    }

    /// Takes in all touches, and forgets workers that are gone.
    pub(super) fn touched(&mut self, mut each: impl FnMut(u32)) {
        self.all.retain_mut(|one| {
            let Some(page) = one.page.upgrade() else { return false };
            pins::touched(&page.memory, &mut one.tails, &mut each);
            true
        });
    }
}

impl<M: Memory, D: Extend> Core<M, D> {
    /// Counts the pins and touches of a fresh page from now on.
    pub(crate) fn attach(&mut self, page: &Arc<Page<M>>, is_own: bool) {
        pins::begin(&page.memory, page.id);
        let tails = [0; worker::RINGS];
        let attached =
            Attached { page: Arc::downgrade(page), tails, pins: HashSet::new(), is_own, frozen: None };
        self.workers.all.push(attached);
    }

    /// Takes in touches, frees what nobody reads any more, and tells who hoards.
    ///
    /// A worker hoards whose rows that are pinned at two sweeps have more bytes than it may hold, whatever it wrote beside
    /// them, or whose pins have twice as many at one. One that uses the library can come to that only if it changed its
    /// pins while they were looked at; it is told, reads on what it has, and attaches anew.
    pub(crate) fn sweep(&mut self) -> Vec<Hoarder> {
        self.drain_touches();
        let mut workers = std::mem::take(&mut self.workers);
        for one in workers.all.iter_mut().filter(|one| one.may_hoard()) {
            let now = one.pinned();
            let both = self.bytes_of(now.iter().filter(|unit| one.pins.contains(unit)));
            let all = self.bytes_of(&now);
            one.pins = now;
            let max = self.terms.pin_bytes_max;
            if (both > max || all / 2 > max)
                && let Some(worker) = one.revoke()
            {
                workers.found.push(Hoarder { worker, bytes: all });
            }
        }
        let found = std::mem::take(&mut workers.found);
        self.workers = workers;
        self.sweep_limbo();
        self.is_out_of_memory = false;
        self.show();
        found
    }

    /// Something could not be held for want of room: if workers together hold more than their part, whoever holds the most
    /// is told of at the next sweep, and can pin no more.
    pub(super) fn relieve(&mut self) {
        let watched = || self.workers.all.iter().enumerate().filter(|(_, one)| one.may_hoard());
        let pinned: Vec<(usize, HashSet<u32>)> = watched().map(|(at, one)| (at, one.pinned())).collect();
        let together: HashSet<u32> = pinned.iter().flat_map(|(_, units)| units).copied().collect();
        if self.bytes_of(&together) <= self.terms.data_bytes / PINNED_PART {
            return;
        }
        let most = pinned.iter().map(|(at, units)| (self.bytes_of(units), *at)).max();
        if let Some((bytes, at)) = most
            && let Some(worker) = self.workers.all[at].revoke()
        {
            self.workers.found.push(Hoarder { worker, bytes });
        }
    }

    fn bytes_of<'a>(&self, units: impl IntoIterator<Item = &'a u32>) -> u64 {
        units.into_iter().map(|unit| self.bytes_at(*unit)).sum()
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
