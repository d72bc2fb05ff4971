//! What a person has pinned: copies that stay whatever comes, and what goes when a person says so.
//!
//! Invariants: a pinned blob is in no queue of the eviction; pinned blobs and the names that pin them take at most half of
//! the budget; other names of a pinned blob leave when nothing else can; a pin is of a name that is held, and ends when
//! that name is removed or bound anew.

use super::{Cache, Evictable, Evicted, Ledger, Resident, names};
use dstore_shared::{BlobHash, Moment, Name};
use std::collections::HashMap;
use std::sync::Arc;

/// Part of the budget that pins may take: one in this many.
const PINNED_PART: u64 = 2;
/// Names that leave at a time, for one look at all of a blob's.
const SHED_MAX: usize = 256;

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
            let bytes = &mut self.bytes;
            self.names.retain(|name, hash| {
                let stays = *hash != resident.hash();
                *bytes -= if stays { 0 } else { charge(name) };
                stays
            });
        }
    }
}

/// What a pin counts besides its blob.
fn charge(name: &Name) -> u64 {
    names::charge(name, None)
}

impl Cache {
    /// Pins the copy that `name` is bound to; `false` if there is none, or no room for a pin.
    pub fn pin(&self, name: &Name, hash: &BlobHash) -> bool {
        let mut ledger = self.ledger.lock();
        let Some(resident) = self.blobs.get(hash) else { return false };
        // The name may have left since it was looked at: whoever removes one ends its pin, and finds none later.
        if self.names.view_if(name.as_bytes(), |held| held.blob.id() == *hash, |_| ()).is_none() {
            return false;
        }
        if ledger.pins.names.get(name) == Some(hash) {
            return true;
        }
        self.unpin_in(&mut ledger, name);
        let is_first = !ledger.pins.blobs.contains_key(hash);
        let more = charge(name) + if is_first { resident.charge() } else { 0 };
        if ledger.pins.bytes + more > self.bytes_max / PINNED_PART {
            return false;
        }
        if is_first {
            ledger.eviction.withdraw(&resident);
        }
        ledger.pins.bytes += more;
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
        ledger.pins.bytes -= charge(name);
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

    /// Ends every pin.
    pub(super) fn unpin_all(&self, ledger: &mut Ledger) {
        while let Some(name) = ledger.pins.names.keys().next().cloned() {
            self.unpin_in(ledger, &name);
        }
    }

    /// Removes a name of a pinned copy that does not pin it, when nothing else can leave. `false`: there is none.
    pub(super) fn shed(&self, ledger: &mut Ledger, evicted: &mut Evicted) -> bool {
        let hashes: Vec<BlobHash> = ledger.pins.blobs.keys().copied().collect();
        for hash in hashes {
            let slots = self.blobs.holders(&hash, usize::MAX).unwrap_or_default();
            let free = slots.into_iter().map(|slot| ledger.slots.name(slot).clone());
            let free: Vec<Name> =
                free.filter(|name| !ledger.pins.names.contains_key(name)).take(SHED_MAX).collect();
            if !free.is_empty() {
                free.iter().for_each(|name| self.evict_name(ledger, name, evicted));
                return true;
            }
        }
        false
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
    fn however_many_names_a_pinned_value_has_the_budget_holds_and_the_pin_too() {
        let cache = Cache::new(CacheConfig { bytes: BYTES });
        let blob = blob(1);
        hold(&cache, 1);
        assert!(cache.pin(&name(1), &blob.id()));
        for n in 10..20_000 {
            let entry = Entry {
                hash: blob.id(),
                size: blob.size(),
                bind_rev: Revision(n),
                expires_at: None,
                content_type: None,
            };
            let _ = cache.install(&name(n), entry, &blob, RegSeq(n), 1);
            assert!(cache.stats().bytes() <= BYTES, "after {n}: {:?}", cache.stats());
        }
        assert!(held(&cache, 1) && cache.pinned() == 1);
    }

    #[test]
    fn a_pin_is_of_a_name_that_is_held_and_none_outlives_its_names() {
        let cache = Cache::new(CacheConfig { bytes: BYTES });
        hold(&cache, 1);
        assert!(!cache.pin(&name(2), &blob(1).id()), "the value is there, the name is not");
        assert!(cache.pin(&name(1), &blob(1).id()));
        cache.drop_all_names();
        assert_eq!(cache.pinned(), 0);
        (10..2000).for_each(|n| hold(&cache, n));
        assert!(cache.have(&blob(1).id()).is_none(), "it leaves like any other");
        hold(&cache, 1);
        assert!(cache.pin(&name(1), &blob(1).id()), "its bytes do not count any more");
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
