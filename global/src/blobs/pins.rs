//! Who needs a blob's file to stay: counted, in memory.
//!
//! Invariants: a hash is in the map iff somebody holds a [`Pin`] on it; the map is bounded.
//! Must never be asked on a path that could wait: it is one short lock.

use dstore_shared::{BlobHash, Error, Result};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// Hashes that can be pinned at once: each costs about 100 B, and no more reads and uploads run at a time.
pub const PINS_MAX: usize = 1 << 16;

type Counts = HashMap<BlobHash, usize, foldhash::fast::RandomState>;

#[derive(Clone, Default)]
pub(super) struct Pins(Arc<Mutex<Counts>>);

impl Pins {
    pub(super) fn pin(&self, hash: BlobHash) -> Result<Pin> {
        let mut counts = self.0.lock();
        if counts.len() >= PINS_MAX && !counts.contains_key(&hash) {
            return Err(Error::exhausted(format!("`{PINS_MAX}` blobs are in use at once: try again later")));
        }
        *counts.entry(hash).or_default() += 1;
        drop(counts);
        Ok(Pin { hash, pins: self.clone() })
    }

    pub(super) fn is_pinned(&self, hash: &BlobHash) -> bool {
        self.0.lock().contains_key(hash)
    }

    /// How many hashes are pinned.
    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }
}

impl fmt::Debug for Pins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pins({})", self.len())
    }
}

/// While it lives, the file of its hash is not unlinked.
#[must_use = "a pin that is dropped pins nothing"]
pub struct Pin {
    hash: BlobHash,
    pins: Pins,
}

impl Pin {
    /// The hash that is pinned.
    pub fn hash(&self) -> BlobHash {
        self.hash
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut counts = self.pins.0.lock();
        if let Some(count) = counts.get_mut(&self.hash) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.hash);
            }
        }
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({:?})", self.hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dstore_shared::Kind;

    #[test]
    fn a_hash_is_pinned_until_the_last_pin_is_gone() {
        let (pins, hash) = (Pins::default(), BlobHash::of(b"x"));
        let one = pins.pin(hash).expect("room");
        let two = pins.pin(hash).expect("room");
        drop(one);
        assert!(pins.is_pinned(&hash));
        drop(two);
        assert!(!pins.is_pinned(&hash));
        assert_eq!(pins.len(), 0);
    }

    #[test]
    fn pins_are_bounded_but_a_pinned_hash_can_be_pinned_again() {
        let pins = Pins::default();
        let hash = |n: usize| BlobHash::of(&n.to_le_bytes());
        let held: Vec<Pin> = (0..PINS_MAX).map(|n| pins.pin(hash(n)).expect("room")).collect();
        assert_eq!(pins.pin(hash(PINS_MAX)).expect_err("full").kind(), Kind::Exhausted);
        assert!(pins.pin(hash(7)).is_ok());
        drop(held);
        assert!(pins.pin(hash(PINS_MAX)).is_ok());
    }
}
