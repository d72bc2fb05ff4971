//! Owns which rows hold the same bytes: short values are in a row for each name.
//!
//! Invariant: rows of one hash form a ring; a row that is alone is in none. One that leaves is taken out before its place
//! is used again.

use std::collections::HashMap;

/// The rings: of each row in one, the one before it and the one behind it.
#[derive(Debug, Default)]
pub(super) struct Twins(HashMap<u32, (u32, u32)>);

impl Twins {
    /// `new` has the same bytes as `one`.
    pub(super) fn join(&mut self, one: u32, new: u32) {
        let (_, behind) = *self.0.entry(one).or_insert((one, one));
        self.0.insert(new, (one, behind));
        self.set(one, |place| place.1 = new);
        self.set(behind, |place| place.0 = new);
    }

    /// Takes a row out. Gives another one of its ring.
    pub(super) fn leave(&mut self, unit: u32) -> Option<u32> {
        let (before, behind) = self.0.remove(&unit)?;
        if before == behind {
            self.0.remove(&before);
        } else {
            self.set(before, |place| place.1 = behind);
            self.set(behind, |place| place.0 = before);
        }
        Some(before)
    }

    /// Whether another row has its bytes.
    pub(super) fn has(&self, unit: u32) -> bool {
        self.0.contains_key(&unit)
    }

    /// The row and all others with its bytes.
    pub(super) fn ring(&self, unit: u32) -> impl Iterator<Item = u32> {
        std::iter::successors(Some(unit), move |one| {
            self.0.get(one).map(|(_, behind)| *behind).filter(|behind| *behind != unit)
        })
    }

    /// Bytes of this process that it takes.
    pub(super) fn private_bytes(&self) -> u64 {
        (self.0.capacity() * 14) as u64
    }

    fn set(&mut self, unit: u32, change: impl FnOnce(&mut (u32, u32))) {
        change(self.0.get_mut(&unit).expect("a ring has places for all of its rows"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_has_whoever_joined_and_did_not_leave() {
        let mut twins = Twins::default();
        let ring = |twins: &Twins, one| {
            let mut all: Vec<u32> = twins.ring(one).collect();
            all.sort_unstable();
            all
        };
        assert_eq!((ring(&twins, 7), twins.has(7), twins.leave(7)), (vec![7], false, None));
        twins.join(7, 8);
        twins.join(7, 9);
        twins.join(9, 10);
        twins.join(1, 2);
        assert_eq!((ring(&twins, 8), ring(&twins, 2)), (vec![7, 8, 9, 10], vec![1, 2]));
        assert!(twins.leave(7).is_some());
        assert_eq!(ring(&twins, 10), [8, 9, 10]);
        assert!(twins.leave(9).is_some() && twins.leave(8) == Some(10));
        assert_eq!((ring(&twins, 10), twins.has(10)), (vec![10], false));
        twins.leave(1);
        assert_eq!(twins.0.len(), 0);
    }
}
