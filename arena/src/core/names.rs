//! What becomes of names that are held: looked at, renewed, removed, listed.

use super::{Core, Held, Listed, Seen};
use crate::eviction::Rows;
use crate::index::{Writer, rows_of, word_of};
use crate::layout::row;
use crate::memory::{Extend, Memory};
use crate::space::Kind;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

impl<M: Memory, D: Extend> Core<M, D> {
    /// What the key is bound to, of whatever era.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Held> {
        let place = self.index.find(&self.header, &self.data, self.hash(key), key)?;
        Some(self.held(place.unit))
    }

    /// Whether bytes with this hash are held, and how many.
    pub(crate) fn have(&self, hash: &super::Hash) -> Option<u64> {
        self.row_with(hash).map(|unit| u64::from(self.shape(unit).value_len()))
    }

    /// Removes the name if it is `doomed`; its bytes stay. When this returns no reader finds it any more, so the caller
    /// may acknowledge.
    pub(crate) fn remove_if(&mut self, key: &[u8], doomed: impl FnOnce(&Held) -> bool) -> Option<Held> {
        let hash = self.hash(key);
        let place = self.index.find(&self.header, &self.data, hash, key)?;
        let held = self.held(place.unit);
        if !doomed(&held) {
            return None;
        }
        self.index.unlink(&self.data, place);
        self.unbound(place.unit);
        self.stats.removed += 1;
        self.header.fence(SeqCst);
        self.show();
        Some(held)
    }

    /// Removes all names; their bytes stay. Takes time in proportion to their number; readers go on meanwhile.
    pub(crate) fn remove_all(&mut self) -> u64 {
        let mut removed = 0;
        for at in 0..self.index.buckets() {
            let rows = self.index.unlink_all(&self.header, &self.data, at);
            removed += rows.len() as u64;
            rows.into_iter().for_each(|unit| self.unbound(unit));
        }
        self.stats.removed += removed;
        self.header.fence(SeqCst);
        self.show();
        removed
    }

    /// Makes a name servable in `era` under a registration, if it still has the binding of `bind_rev`. The later of
    /// two registrations and of two eras counts.
    pub(crate) fn renew(&mut self, key: &[u8], bind_rev: u64, registration: u64, era: u64) -> bool {
        let hash = self.hash(key);
        let Some(place) = self.index.find(&self.header, &self.data, hash, key) else { return false };
        let at = word_of(place.unit);
        if self.data.load(at + row::BIND_REV, Relaxed) != bind_rev {
            return false;
        }
        Writer::change(&self.data, place, || {
            for (word, new) in [(row::REGISTRATION, registration), (row::ERA, era)] {
                let held = self.data.load(at + word, Relaxed);
                self.data.store(at + word, held.max(new), Relaxed);
            }
        });
        true
    }

    /// Lists the names in some buckets from `from` on, and where to go on. A name that is held throughout is listed at
    /// least once; one whose bucket is split meanwhile may be listed twice.
    pub(crate) fn names(&self, from: u64, buckets: u64) -> (Vec<Listed>, Option<u64>) {
        let end = from.saturating_add(buckets.max(1)).min(self.index.buckets());
        let rows = (from..end).flat_map(|at| rows_of(&self.header, &self.data, at));
        let listed = rows.map(|unit| (self.key_of(unit), self.held(unit))).collect();
        (listed, (end < self.index.buckets()).then_some(end))
    }

    /// Takes in what readers said that they used.
    pub(super) fn drain_touches(&mut self) {
        let Self { workers, data, space, terms, .. } = self;
        let seen = Seen { data: &*data, space, seed: terms.seed };
        let is_row = |unit| space.kind(unit) == Kind::Row;
        let note = |unit| seen.note(unit, seen.uses(unit) + 1, seen.is_main(unit));
        workers.touched(|unit| {
            // Whatever number this is: only a row that begins there is noted, and of that only its uses.
            if !is_row(unit) {
                return;
            }
            note(unit);
            // Whoever asks for a name asks for its bytes.
            if seen.shape(unit).is_alias() {
                let target = data.load(word_of(unit) + row::TARGET, Relaxed) as u32;
                if is_row(target) {
                    note(target);
                }
            }
        });
    }
}
