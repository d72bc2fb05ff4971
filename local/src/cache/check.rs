//! The cache as whoever checks its bytes sees it: samples of its copies, and the removal of one that is damaged.

use super::{Cache, Evicted, Ledger};
use crate::cache::eviction::Evictable;
use dstore_shared::{Blob, BlobHash};

/// Places looked at in one sample: bounds how long it holds the lock.
const PLACES_MAX: usize = 1024;

impl Cache {
    /// Copies from place `from` on, at least one and about `bytes_max` bytes of them, and the place to go on
    /// from; 0 after the last. One that is kept throughout a round is in it once.
    pub fn sample(&self, from: usize, bytes_max: u64) -> (Vec<Blob>, usize) {
        let ledger = self.ledger.lock();
        let end = from.saturating_add(PLACES_MAX).min(ledger.numbers.capacity());
        let (mut blobs, mut bytes) = (Vec::new(), 0);
        for at in from..end {
            let Some(resident) = ledger.numbers.get(at) else { continue };
            blobs.push(resident.blob());
            bytes += resident.charge();
            if bytes >= bytes_max {
                return (blobs, at + 1);
            }
        }
        (blobs, if end < ledger.numbers.capacity() { end } else { 0 })
    }

    /// Removes the copy with `hash`, and every name that holds it: Global is to be told of them by DROP.
    pub fn expel(&self, hash: &BlobHash) -> Evicted {
        let mut evicted = Evicted::new();
        self.expel_from(&mut self.ledger.lock(), hash, &mut evicted);
        evicted
    }

    /// As [`Self::expel`], under the ledger's lock.
    pub(super) fn expel_from(&self, ledger: &mut Ledger, hash: &BlobHash, evicted: &mut Evicted) {
        let Some(resident) = self.blobs.get(hash) else { return };
        while let Some(slot) = self.blobs.any_holder(hash, 0) {
            let name = ledger.slots.name(slot).clone();
            self.evict_name(ledger, &name, evicted);
        }
        ledger.pins.forget(&resident);
        ledger.eviction.withdraw(&resident);
        self.discard(ledger, resident);
    }

    /// Turns a bit of the copy that `name` is served from, as a defect of the memory does.
    #[cfg(any(test, feature = "faults"))]
    pub fn damage(&self, name: &dstore_shared::Name, era: u64) -> bool {
        let Some(hit) = self.hit(name.as_bytes(), era) else { return false };
        for (name, reg_seq) in self.expel(&hit.entry.hash) {
            // Nobody but a test holds it under several names that differ in their binding.
            let _ = self.install(&name, hit.entry.clone(), &hit.blob.damaged(), reg_seq, era);
        }
        true
    }
}
