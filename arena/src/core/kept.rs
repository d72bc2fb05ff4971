//! What whoever decides by itself what leaves the arena asks for: bytes that it keeps, uses, and what stands in the way.

use super::{Core, Hash};
use crate::eviction::Eviction;
use crate::index::word_of;
use crate::memory::{Extend, Memory};
use std::collections::HashSet;
use std::sync::atomic::Ordering::Acquire;
use std::sync::{Arc, Weak};

/// For as long as one of these lives the bytes of its row stay as they are.
pub(crate) type Alive = Arc<()>;

/// What has to go so that something fits in one piece.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Obstacle {
    /// The value with this hash, and every name that leads to it.
    Value(Hash),
    /// This name; its value may stay.
    Name(Box<[u8]>),
}

impl<M: Memory, D: Extend> Core<M, D> {
    /// Where the bytes with this hash lie, word and length; they stay there while what comes with it lives, even if the row
    /// leaves.
    pub(crate) fn keep(&mut self, hash: &Hash) -> Option<(usize, usize, Alive)> {
        let unit = self.row_with(hash)?;
        let shape = self.shape(unit);
        let alive = self.kept.get(&unit).and_then(Weak::upgrade).unwrap_or_default();
        self.kept.insert(unit, Arc::downgrade(&alive));
        Some((word_of(unit) + shape.value_at(), shape.value_len() as usize, alive))
    }

    /// Whether the daemon itself still reads the row at `unit`.
    pub(super) fn is_kept(&mut self, unit: u32) -> bool {
        match self.kept.get(&unit).map(Weak::strong_count) {
            None => false,
            Some(0) => {
                // What was read before the last one was dropped is read before the place is written.
                self.header.fence(Acquire);
                self.kept.remove(&unit);
                false
            }
            Some(_) => true,
        }
    }

    /// How often workers asked for the value since this was asked last, as far as it is known: at most three.
    pub(crate) fn take_uses(&mut self, hash: &Hash) -> u64 {
        let Some(unit) = self.row_with(hash) else { return 0 };
        let shape = self.shape(unit);
        if shape.uses() > 0 {
            self.set_shape(unit, shape.used(0));
        }
        shape.uses()
    }

    /// What has to go so that a value of `bytes` fits: all that lies in the piece of data that costs the least. `None`: in
    /// each piece something is pinned.
    pub(crate) fn obstacles(&mut self, bytes: u64) -> Option<Vec<Obstacle>> {
        self.sweep_limbo();
        let pinned = self.workers.all_pinned();
        let limbo: HashSet<u32> = self.limbo.iter().copied().collect();
        let (from, to) =
            self.space.cheapest(bytes, |unit| pinned.contains(&unit) || limbo.contains(&unit))?;
        let rows = self.space.rows_in(from, to).into_iter();
        Some(
            rows.map(|unit| {
                if self.shape(unit).is_alias() {
                    Obstacle::Name(self.key_of(unit))
                } else {
                    Obstacle::Value(self.hash_of(unit))
                }
            })
            .collect(),
        )
    }

    /// From now on somebody else decides what leaves.
    pub(crate) fn leave_eviction(&mut self) {
        self.queues = Eviction::idle();
    }

    /// Memory that was never used is used only up to so many bytes.
    pub(crate) fn limit(&mut self, bytes: u64) {
        let pages = bytes / crate::layout::PAGE_BYTES as u64;
        self.space.limit(u32::try_from(pages).unwrap_or(u32::MAX));
    }
}
