//! What the daemon looks at beside names: what goes with them, bytes by their hash, and samples of what is held.

use super::{Core, Hash};
use crate::index::word_of;
use crate::memory::{Extend, Memory};

impl<M: Memory, D: Extend> Core<M, D> {
    /// The note of a name.
    pub(crate) fn note(&self, key: &[u8]) -> Option<Box<[u8]>> {
        let unit = self.index.find(&self.header, &self.data, self.hash(key), key)?.unit;
        let shape = self.shape(unit);
        let mut note = vec![0; shape.note_len()].into_boxed_slice();
        self.data.read(word_of(unit) + shape.note_at(), &mut note);
        Some(note)
    }

    /// A row that holds the bytes with this hash.
    pub(crate) fn unit_with(&self, hash: &Hash) -> Option<u32> {
        self.row_with(hash)
    }

    /// Rows of page `from` and further ones, of about `bytes_max` bytes together and at least one block's, and the page to
    /// go on from; 0 behind the last. One that stays where it is throughout a round is in it once.
    pub(crate) fn sample(&self, from: u64, bytes_max: u64) -> (Vec<u32>, u64) {
        let from = u32::try_from(from.max(1)).unwrap_or(u32::MAX);
        // What was a block once may be in the midst of one by now.
        let begins = (from..self.terms.pages()).find(|page| self.space.is_block(*page));
        let (mut rows, mut bytes, mut at) = (Vec::new(), 0, begins);
        while let Some(page) = at.filter(|_| bytes < bytes_max) {
            let held = self.space.rows_in(page, page + 1);
            let held = held.filter(|unit| !self.shape(*unit).is_alias() && !self.limbo.contains(unit));
            for unit in held {
                bytes += u64::from(self.shape(unit).value_len());
                rows.push(unit);
            }
            at = self.space.next_block(page);
        }
        (rows, at.map_or(0, u64::from))
    }
}
