//! What a person has pinned: copies that stay whatever comes, and what goes when a person says so.
//!
//! Invariants: a pinned blob is in no queue of the eviction; pinned blobs take at most half of the budget, so that
//! everything else always has room; a pin is of a name, and ends when that name is removed or bound anew.

use super::{Cache, Evictable, Ledger, Resident};
use dstore_shared::{BlobHash, Moment, Name};
use std::collections::HashMap;
use std::sync::Arc;

/// Part of the budget that pins may take: one in this many.
const PINNED_PART: u64 = 2;

/// The pins.
#[derive(Debug, Default)]
pub(super) struct Pins {
    names: HashMap<Name, BlobHash>,
    /// How many names pin a blob.
    blobs: HashMap<BlobHash, usize>,
    bytes: u64,
}

impl Pins {
    /// Whether nothing is pinned: what nearly every cache is.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// A damaged copy leaves, pinned or not. Its names leave with it.
    pub fn forget(&mut self, resident: &Resident) {
        if self.blobs.remove(&resident.hash()).is_some() {
            self.bytes -= resident.charge();
            self.names.retain(|_, hash| *hash != resident.hash());
        }
    }
}

impl Cache {
    /// Pins the copy that `name` is bound to; `false` if there is none, or no room for a pin.
    pub fn pin(&self, name: &Name, hash: &BlobHash) -> bool {
        let mut ledger = self.ledger.lock();
        let Some(resident) = self.blobs.get(hash) else { return false };
        if ledger.pins.names.get(name) == Some(hash) {
            return true;
        }
        self.unpin_in(&mut ledger, name);
        if !ledger.pins.blobs.contains_key(hash) {
            if ledger.pins.bytes + resident.charge() > self.bytes_max / PINNED_PART {
                return false;
            }
            ledger.eviction.withdraw(&resident);
            ledger.pins.bytes += resident.charge();
        }
        *ledger.pins.blobs.entry(*hash).or_default() += 1;
        ledger.pins.names.insert(name.compact(), *hash);
        true
    }

    /// Lets the copy that was pinned for `name` leave again; `false` if none was.
    pub fn unpin(&self, name: &Name) -> bool {
        self.unpin_in(&mut self.ledger.lock(), name)
    }

    /// How many names are pinned.
    pub fn pinned(&self) -> usize {
        self.ledger.lock().pins.names.len()
    }

    pub(super) fn unpin_in(&self, ledger: &mut Ledger, name: &Name) -> bool {
        let Some(hash) = ledger.pins.names.remove(name) else { return false };
        let left = ledger.pins.blobs.get_mut(&hash).map_or(0, |pins| {
            *pins -= 1;
            *pins
        });
        if left == 0 {
            ledger.pins.blobs.remove(&hash);
            if let Some(resident) = self.blobs.get(&hash) {
                ledger.pins.bytes -= resident.charge();
                ledger.eviction.admit(Arc::clone(&resident));
            }
        }
        true
    }

    /// Gives up the copy with `hash`, if no name holds it and none is pinned to it.
    pub fn let_go(&self, hash: &BlobHash) {
        let mut ledger = self.ledger.lock();
        let Some(resident) = self.blobs.get(hash) else { return };
        if self.blobs.any_holder(hash, 0).is_none() && !ledger.pins.blobs.contains_key(hash) {
            ledger.eviction.withdraw(&resident);
            self.blobs.remove(hash);
            ledger.numbers.remove(resident.number());
            ledger.stats.blob_bytes -= resident.charge();
            ledger.stats.blobs_evicted += 1;
        }
    }

    /// Size and end of what the name is bound to, if it is held and of `era` or a later one; not counted as a use.
    pub fn peek(&self, packed_name: &[u8], era: u64) -> Option<(u64, Moment)> {
        self.names.view_if(packed_name, |held| held.era >= era, |held| (held.blob.size(), held.until))
    }
}
