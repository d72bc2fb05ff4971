//! Owns the sizes of places.

use crate::layout::UNIT_BYTES;

/// Smallest place.
const PLACE_MIN: usize = 32;

/// Sizes of places: steps of 16 bytes at first, of an eighth of a power of two later.
#[derive(Debug)]
pub(super) struct Classes(pub(super) Vec<usize>);

impl Classes {
    pub(super) fn up_to(largest: usize) -> Self {
        let mut sizes = vec![PLACE_MIN];
        while let Some(last) = sizes.last().filter(|last| **last < largest) {
            let step = ((1 << last.ilog2()) / 8).max(UNIT_BYTES);
            sizes.push((last + step).min(largest));
        }
        Self(sizes)
    }

    /// The smallest one that does.
    pub(super) fn of(&self, bytes: usize) -> Option<usize> {
        let class = self.0.partition_point(|size| *size < bytes);
        (class < self.0.len()).then_some(class)
    }
}
