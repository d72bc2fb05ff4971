//! Owns the names that this node holds: `Name -> Held`, and the slots by which they can be listed.
//!
//! Invariants: a name has one slot for as long as it is held, and the slot tells its place among the holders
//! of its blob. The table is the only thing a hit touches; it is one small type, so that another index can
//! take its place. A guard of the table never leaves this file; nothing is called back under one, except the
//! reading of a row.

use super::SHARDS;
use dashmap::DashMap;
use dstore_shared::{Blob, ContentType, Entry, Moment, Name, RegSeq, Revision};
use slab::Slab;
use std::mem::size_of;

/// What a name costs beyond its packed bytes: its row in the table (which is between 7/16 and 7/8 full:
/// counted twice), its slot and its place among the holders (both in vectors that grow by doubling: counted
/// twice), the reference count and allocation headers of its bytes.
pub(super) const NAME_OVERHEAD: u64 =
    (2 * (size_of::<(Name, Held)>() + 1) + 2 * (size_of::<Slot>() + 16) + 2 * size_of::<usize>() + 48) as u64;

/// What a content type costs beyond its bytes: two allocations, and what counts and points.
const TYPE_OVERHEAD: u64 = 64;

/// What `name` costs in the cache, its blob apart, with a value of this type.
pub(super) fn charge(name: &Name, content_type: Option<&ContentType>) -> u64 {
    let typed = content_type.map_or(0, |words| TYPE_OVERHEAD + words.len() as u64);
    NAME_OVERHEAD + name.as_bytes().len() as u64 + typed
}

/// A name's row: what a hit needs, in one place. Hash and size of its entry are the blob's.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) blob: Blob,
    pub(super) bind_rev: Revision,
    pub(super) expires_at: Option<dstore_shared::End>,
    pub(super) content_type: Option<ContentType>,
    /// When its time is over by this node's clock; the end of all time if it lives for ever.
    pub(super) until: Moment,
    pub(super) reg_seq: RegSeq,
    pub(super) era: u64,
    /// Where the blob's uses are counted.
    pub(super) number: usize,
    pub(super) slot: usize,
}

/// How a binding that comes in compares with the one held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Comparison {
    /// No binding is held, or an older one.
    Newer,
    /// The very binding is held; its registration and era are now the newer ones.
    Same,
    /// A newer binding is held, this one.
    Older(Revision),
}

/// The table.
#[derive(Debug)]
pub(super) struct Names(DashMap<Name, Held, foldhash::fast::RandomState>);

impl Names {
    pub(super) fn new() -> Self {
        Self(DashMap::with_hasher_and_shard_amount(foldhash::fast::RandomState::default(), SHARDS))
    }

    /// Reads a row in place.
    pub(super) fn view<T>(&self, packed: &[u8], read: impl FnOnce(&Held) -> T) -> Option<T> {
        self.0.view(packed, |_, held| read(held))
    }

    /// Reads a row in place if it is `wanted`. Not told by `view`: an `Option` within another is copied twice.
    #[inline]
    pub(super) fn view_if<T>(
        &self,
        packed: &[u8],
        wanted: impl FnOnce(&Held) -> bool,
        read: impl FnOnce(&Held) -> T,
    ) -> Option<T> {
        let held = self.0.get(packed)?;
        wanted(&held).then(|| read(&held))
    }

    /// Compares the binding `entry` with the one held; if they are the same, renews the one held.
    pub(super) fn compare(
        &self,
        name: &Name,
        (entry, until): (&Entry, Moment),
        reg_seq: RegSeq,
        era: u64,
    ) -> Comparison {
        let Some(mut held) = self.0.get_mut(name.as_bytes()) else { return Comparison::Newer };
        if held.bind_rev > entry.bind_rev {
            return Comparison::Older(held.bind_rev);
        }
        if (held.bind_rev, held.blob.id()) != (entry.bind_rev, entry.hash) {
            return Comparison::Newer;
        }
        if held.reg_seq < reg_seq {
            held.expires_at = entry.expires_at;
            held.until = until;
        }
        held.renew(reg_seq, era);
        Comparison::Same
    }

    /// Renews the binding of `bind_rev`, if it is the one held.
    pub(super) fn validate(&self, name: &Name, bind_rev: Revision, reg_seq: RegSeq, era: u64) -> bool {
        match self.0.get_mut(name.as_bytes()) {
            Some(mut held) if held.bind_rev == bind_rev => {
                held.renew(reg_seq, era);
                true
            }
            _ => false,
        }
    }

    /// The same bytes are elsewhere now.
    pub(super) fn move_to(&self, name: &Name, blob: &Blob) {
        if let Some(mut held) = self.0.get_mut(name.as_bytes()).filter(|held| held.blob.id() == blob.id()) {
            held.blob = blob.clone();
        }
    }

    pub(super) fn insert(&self, name: Name, held: Held) {
        self.0.insert(name, held);
    }

    pub(super) fn remove_if(&self, name: &Name, doomed: impl FnOnce(&Held) -> bool) -> Option<Held> {
        self.0.remove_if(name.as_bytes(), |_, held| doomed(held)).map(|(_, held)| held)
    }

    pub(super) fn clear(&self) {
        self.0.clear();
        self.0.shrink_to_fit();
    }

    /// The rows, for counting anew.
    #[cfg(test)]
    pub(super) fn all(&self) -> Vec<(Name, dstore_shared::BlobHash, usize, u64)> {
        self.0
            .iter()
            .map(|r| (r.key().clone(), r.blob.id(), r.slot, charge(r.key(), r.content_type.as_ref())))
            .collect()
    }
}

impl Held {
    pub(super) fn entry(&self) -> Entry {
        let (hash, size) = (self.blob.id(), self.blob.size());
        let content_type = self.content_type.clone();
        Entry { hash, size, bind_rev: self.bind_rev, expires_at: self.expires_at, content_type }
    }

    /// Of two registrations of one binding the later counts, in whatever order their replies came: it is the
    /// one that a DROP must name (rule 20).
    fn renew(&mut self, reg_seq: RegSeq, era: u64) {
        self.reg_seq = self.reg_seq.max(reg_seq);
        self.era = self.era.max(era);
    }
}

/// Where a listing of names stands. Names come and go while one is under way: those that are held throughout
/// keep their slots, so each is listed exactly once.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Cursor(usize);

impl Cursor {
    /// The place of that number.
    pub fn at(place: usize) -> Self {
        Self(place)
    }

    /// Its number.
    pub fn place(self) -> usize {
        self.0
    }
}

#[derive(Debug)]
struct Slot {
    name: Name,
    place: usize,
}

/// All held names in an order that does not change while they are held.
#[derive(Debug, Default)]
pub(super) struct Slots(Slab<Slot>);

impl Slots {
    /// Gives `name` a slot.
    pub(super) fn take(&mut self, name: Name) -> usize {
        self.0.insert(Slot { name, place: 0 })
    }

    /// Frees a slot, and gives the place that its name had among the holders of its blob.
    pub(super) fn free(&mut self, slot: usize) -> usize {
        self.0.remove(slot).place
    }

    pub(super) fn set_place(&mut self, slot: usize, place: usize) {
        self.0[slot].place = place;
    }

    pub(super) fn name(&self, slot: usize) -> &Name {
        &self.0[slot].name
    }

    /// The name in a slot, if there is one.
    pub(super) fn get(&self, slot: usize) -> Option<&Name> {
        self.0.get(slot).map(|slot| &slot.name)
    }

    /// No slot has this number or a larger one.
    pub(super) fn capacity(&self) -> usize {
        self.0.capacity()
    }

    /// The names in the next `count` slots from `from`, and the cursor behind them unless they were the last.
    pub(super) fn scan(&self, from: Cursor, count: usize) -> (impl Iterator<Item = &Name>, Option<Cursor>) {
        let end = from.0.saturating_add(count).min(self.0.capacity());
        let names = (from.0..end).filter_map(|at| Some(&self.0.get(at)?.name));
        (names, (end < self.0.capacity()).then_some(Cursor(end)))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Name> {
        self.0.iter().map(|(_, slot)| &slot.name)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn clear(&mut self) {
        self.0 = Slab::new();
    }
}
