//! What whoever decides by itself what leaves the arena asks for: bytes that it keeps, uses, and what stands in the way.

use super::{Binding, Core, Hash, Refusal, SPARE_BUCKETS};
use crate::eviction::Eviction;
use crate::index::word_of;
use crate::layout::{Shape, row};
use crate::memory::{Extend, Memory};
use crate::space::Need;
use std::sync::atomic::Ordering::Acquire;
use std::sync::{Arc, Weak};

/// For as long as one of these lives the bytes of its row stay as they are.
pub(crate) type Alive = Arc<()>;

/// Rows of one hash whose uses are asked for together.
const TWINS_ASKED: usize = 64;

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

    /// A place for a value of so many bytes: its number, the first word of the bytes, and what keeps it from being used
    /// otherwise. It waits in limbo, where nobody finds it, until it is adopted or given up.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn draft(&mut self, len: usize) -> Result<(u32, usize, Alive), Refusal> {
        self.check(0, 0, len)?;
        let shape = Shape::new(0, len as u32, false, false);
        let unit = self.obtain(Need::Row(shape.bytes()), &mut Vec::new())?;
        self.set_shape(unit, shape);
        let alive = Alive::default();
        self.kept.insert(unit, Arc::downgrade(&alive));
        self.limbo.push(unit);
        Ok((unit, word_of(unit) + shape.value_at(), alive))
    }

    /// What was written to a draft that is still kept has this hash: it is held, without a name. `false`: bytes with this
    /// hash are held already.
    pub(crate) fn adopt(&mut self, unit: u32, hash: &Hash) -> bool {
        let Some(at) = self.limbo.iter().position(|one| *one == unit) else { return false };
        if self.row_with(hash).is_some() {
            return false;
        }
        self.limbo.swap_remove(at);
        self.data.write(word_of(unit) + row::HASH, hash);
        let binding = Binding { hash: *hash, bind_rev: 0, registration: 0, era: 0, expiry: None };
        self.stamp(unit, &binding);
        self.hold(hash, unit);
        self.show();
        true
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
        let rows: Vec<u32> = self.twins.ring(unit).take(TWINS_ASKED).collect();
        let mut most = 0;
        for row in rows {
            let aliases = self.aliases.get(&row).into_iter().flatten().copied();
            for unit in std::iter::once(row).chain(aliases) {
                let shape = self.shape(unit);
                if shape.uses() > 0 {
                    self.set_shape(unit, shape.used(0));
                }
                most = most.max(shape.uses());
            }
        }
        most
    }

    /// Whether there is no space for a chain of the index to grow: the next insertion is `Full`.
    pub(super) fn is_index_short(&self) -> bool {
        self.queues.is_idle() && self.spare_buckets.len() < SPARE_BUCKETS / 2
    }

    /// Whether the next chunk of the index is missing and may be had.
    fn may_have_chunk(&self) -> bool {
        let end = crate::layout::header::DIRECTORY + self.terms.directory_words as usize;
        self.index.missing_chunk(&self.header).is_some_and(|entry| entry < end)
    }

    /// What has to go so that a row of `bytes` fits, or first of all the index: all that lies in the piece of data that
    /// costs the least. `None`: in each piece something is pinned.
    pub(crate) fn obstacles(&mut self, bytes: u64) -> Option<Vec<Obstacle>> {
        self.sweep_limbo();
        let need = if self.is_index_short() {
            Need::Bucket
        } else if self.index.is_overdue() && self.may_have_chunk() {
            Need::Chunk
        } else {
            Need::Row(bytes)
        };
        let pinned = self.workers.all_pinned();
        let (from, to) = self.space.piece_for(need, pinned.iter().chain(&self.limbo).copied())?;
        if need != Need::Row(bytes) {
            self.space.lower_top(to - self.space.pages_for(need));
        }
        let obstacle = |unit| {
            let is_name_only = self.twins.has(unit) && !self.aliases.contains_key(&unit);
            if self.shape(unit).is_alias() || is_name_only {
                Obstacle::Name(self.key_of(unit))
            } else {
                Obstacle::Value(self.hash_of(unit))
            }
        };
        Some(self.space.rows_in(from, to).map(obstacle).collect())
    }

    /// From now on somebody else decides what leaves.
    pub(crate) fn leave_eviction(&mut self) {
        self.queues = Eviction::idle();
    }

    /// Takes in what workers used.
    pub(crate) fn listen(&mut self) {
        self.drain_touches();
    }
}
