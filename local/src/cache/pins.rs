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

    /// Whether a name is pinned to the blob.
    pub fn has_blob(&self, hash: &BlobHash) -> bool {
        self.blobs.contains_key(hash)
    }

    /// Whether the name is pinned.
    pub fn has_name(&self, name: &Name) -> bool {
        self.names.contains_key(name)
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
            self.discard(&mut ledger, resident);
        }
    }

    /// Size and end of what the name is bound to, if it is held and of `era` or a later one; not counted as a use.
    pub fn peek(&self, packed_name: &[u8], era: u64) -> Option<(u64, Moment)> {
        self.names.view_if(packed_name, |held| held.era >= era, |held| (held.blob.size(), held.until))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Admission, CacheConfig};
    use super::*;
    use dstore_shared::{Blob, Entry, RegSeq, Revision};

    const BYTES: u64 = 1 << 20;

    fn blob(n: u64) -> Blob {
        Blob::hash(n.to_le_bytes().repeat(1000))
    }

    fn name(n: u64) -> Name {
        Name::of(format!("k{n}")).expect("valid")
    }

    fn hold(cache: &Cache, n: u64) {
        let blob = blob(n);
        let (hash, size) = (blob.id(), blob.size());
        let entry = Entry { hash, size, bind_rev: Revision(n), expires_at: None, content_type: None };
        assert!(matches!(cache.install(&name(n), entry, &blob, RegSeq(n), 1), Admission::Installed { .. }));
    }

    fn held(cache: &Cache, n: u64) -> bool {
        cache.hit(name(n).as_bytes(), 1).is_some()
    }

    #[test]
    fn what_is_pinned_stays_whatever_comes_and_leaves_like_any_other_afterwards() {
        let cache = Cache::new(CacheConfig { bytes: BYTES });
        hold(&cache, 1);
        hold(&cache, 2);
        assert!(cache.pin(&name(1), &blob(1).id()) && cache.pin(&name(1), &blob(1).id()));
        assert_eq!(cache.pinned(), 1);
        (10..2000).for_each(|n| hold(&cache, n));
        assert!(held(&cache, 1) && !held(&cache, 2), "only the pinned one is there yet");
        assert!(cache.stats().bytes() <= BYTES);
        assert!(cache.unpin(&name(1)) && !cache.unpin(&name(1)));
        (3000..5000).for_each(|n| hold(&cache, n));
        assert!(!held(&cache, 1));
    }

    #[test]
    fn pins_take_half_of_the_budget_at_most_and_only_of_what_is_held() {
        let cache = Cache::new(CacheConfig { bytes: BYTES });
        assert!(!cache.pin(&name(1), &blob(1).id()), "it is not held");
        let mut pinned = 0;
        for n in 0..100 {
            hold(&cache, n);
            pinned += u64::from(cache.pin(&name(n), &blob(n).id()));
        }
        assert!((40..=BYTES / 2 / 8000).contains(&pinned), "{pinned}");
        (1000..1200).for_each(|n| hold(&cache, n));
        assert!(held(&cache, 1199), "there is room for everything else");
        assert!(cache.stats().bytes() <= BYTES);
    }

    #[test]
    fn a_pin_ends_with_its_name_and_what_goes_by_request_is_gone() {
        let cache = Cache::new(CacheConfig { bytes: BYTES });
        hold(&cache, 1);
        assert!(cache.pin(&name(1), &blob(1).id()));
        cache.let_go(&blob(1).id());
        assert!(held(&cache, 1), "a name holds it");
        assert!(cache.remove_upto(&name(1), Revision(1)));
        assert_eq!(cache.pinned(), 0);
        cache.let_go(&blob(1).id());
        assert!(cache.have(&blob(1).id()).is_none());
        assert_eq!((cache.stats().blobs, cache.stats().bytes()), (0, 0));
    }

    #[test]
    fn a_pin_ends_with_a_name_that_leaves_for_want_of_room() {
        let cache = Cache::new(CacheConfig { bytes: BYTES });
        hold(&cache, 1);
        hold(&cache, 2);
        // The name was bound anew between the look at it and its pin: what it was bound to is another's still.
        assert!(cache.pin(&name(1), &blob(2).id()));
        (10..2000).for_each(|n| hold(&cache, n));
        assert!(!held(&cache, 1), "its own copy was not pinned");
        assert_eq!(cache.pinned(), 0, "and nobody has it any more who could let go of the other");
        (3000..5000).for_each(|n| hold(&cache, n));
        assert!(!held(&cache, 2));
        cache.ledger.lock().eviction.recount();
    }

    #[test]
    fn a_damaged_copy_leaves_whether_it_is_pinned_or_not() {
        let cache = Cache::new(CacheConfig { bytes: BYTES });
        hold(&cache, 1);
        assert!(cache.pin(&name(1), &blob(1).id()));
        assert_eq!(cache.expel(&blob(1).id()), [(name(1), RegSeq(1))]);
        assert_eq!((cache.pinned(), cache.stats().blobs), (0, 0));
        assert_eq!(cache.ledger.lock().eviction.recount(), (0, 0));
    }

    #[test]
    fn a_peek_tells_a_size_and_counts_as_no_use() {
        let cache = Cache::new(CacheConfig { bytes: BYTES });
        hold(&cache, 1);
        assert_eq!(cache.peek(name(1).as_bytes(), 1).map(|(size, _)| size), Some(8000));
        assert_eq!(cache.peek(name(1).as_bytes(), 2), None, "not of this era");
        assert_eq!(cache.peek(name(2).as_bytes(), 1), None);
    }
}
