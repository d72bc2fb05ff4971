//! Owns the copies of blobs, shared by all names that bind them: `BlobHash -> bytes`.
//!
//! Invariants: a copy is found only under its own hash; its holders are the slots of exactly the names whose
//! entry has that hash. Copies are immutable, so nothing here is ever stale, whatever becomes of a session.
//! A guard of the table never leaves this file.

use super::SHARDS;
use super::eviction::{Evictable, Seat, Uses};
use dashmap::DashMap;
use dstore_shared::{Blob, BlobHash};
use parking_lot::Mutex;
use std::mem::size_of;
use std::sync::Arc;

/// Copies up to this many bytes get an allocation of their own when they are admitted: they came in a frame
/// with others. Larger ones were assembled by themselves, and copying them again would cost more than it saves.
const COMPACT_BYTES_MAX: u64 = dstore_shared::limits::CARRIED_BYTES_MAX as u64;

/// What a copy costs beyond its bytes: its row in the table (which is between 7/16 and 7/8 full: counted
/// twice), the resident with its reference counts, the bytes' own reference count and allocation headers,
/// the holders' list at its smallest, one place in a queue, one ghost (8 bytes in line, about 16 in a set), its
/// place among the numbers (which grow by doubling), and one use count.
pub(super) const BLOB_OVERHEAD: u64 = (2 * (size_of::<(BlobHash, Row)>() + 1)
    + size_of::<Resident>()
    + 2 * 8
    + 48
    + 4 * 8
    + 16
    + 24
    + 2 * 16
    + 1) as u64;

/// What it costs beside that if the bytes are in shared memory: what keeps them there (an allocation of 48 bytes, one of
/// 16, each with a header), its place among what is kept (in a table that grows by doubling), the arena's own tables.
const SHARED_OVERHEAD: u64 = 48 + 16 + 2 * 16 + 2 * 24 + 32;

/// A copy in the cache.
#[derive(Debug)]
pub(super) struct Resident {
    number: usize,
    seat: Seat,
    home: Mutex<Home>,
}

/// Where the bytes of a copy are.
#[derive(Clone, Debug)]
pub(super) struct Home {
    pub(super) blob: Blob,
    /// In shared memory, where others count them.
    pub(super) is_shared: bool,
}

impl Home {
    /// What the copy costs in the cache, names and shared memory apart.
    pub(super) fn charge(&self) -> u64 {
        if self.is_shared { shared_charge() } else { charge(&self.blob) }
    }
}

impl Resident {
    pub(super) fn blob(&self) -> Blob {
        self.home.lock().blob.clone()
    }

    pub(super) fn hash(&self) -> BlobHash {
        self.home.lock().blob.id()
    }

    pub(super) fn is_shared(&self) -> bool {
        self.home.lock().is_shared
    }

    /// What it costs in the cache now, names and shared memory apart.
    pub(super) fn held_bytes(&self) -> u64 {
        self.home.lock().charge()
    }

    /// Gives the copy a home elsewhere, and tells what it cost before and what it costs now.
    pub(super) fn move_to(&self, home: Home) -> (u64, u64) {
        let mut own = self.home.lock();
        let before = std::mem::replace(&mut *own, home);
        (before.charge(), own.charge())
    }
}

impl Evictable for Resident {
    /// The same wherever the bytes are, so that moving them changes nothing in the queues.
    fn charge(&self) -> u64 {
        charge(&self.home.lock().blob)
    }

    fn fingerprint(&self) -> u64 {
        let hash = self.hash();
        let (first, _) = hash.as_bytes().split_first_chunk().expect("a hash has 32 bytes");
        u64::from_le_bytes(*first)
    }

    fn number(&self) -> usize {
        self.number
    }

    fn seat(&self) -> &Seat {
        &self.seat
    }
}

/// What a copy in shared memory costs, the memory apart.
pub(super) fn shared_charge() -> u64 {
    BLOB_OVERHEAD + SHARED_OVERHEAD
}

/// What `blob` costs in the cache, names apart.
pub(super) fn charge(blob: &Blob) -> u64 {
    BLOB_OVERHEAD + blob.size()
}

/// `blob` as the cache keeps it: pinning nothing else, and cloned without an allocation.
pub(super) fn compact(blob: &Blob) -> Blob {
    if blob.size() <= COMPACT_BYTES_MAX { blob.compact() } else { blob.clone() }
}

#[derive(Debug)]
struct Row {
    resident: Arc<Resident>,
    /// The slots of the names that hold it, in no order.
    holders: Vec<usize>,
}

/// The table.
#[derive(Debug)]
pub(super) struct Blobs(DashMap<BlobHash, Row, foldhash::fast::RandomState>);

impl Blobs {
    pub(super) fn new() -> Self {
        Self(DashMap::with_hasher_and_shard_amount(foldhash::fast::RandomState::default(), SHARDS))
    }

    pub(super) fn get(&self, hash: &BlobHash) -> Option<Arc<Resident>> {
        self.0.view(hash, |_, row| Arc::clone(&row.resident))
    }

    /// The blob, noting that it was asked for.
    pub(super) fn hit(&self, hash: &BlobHash, uses: &Uses) -> Option<Blob> {
        let resident = self.get(hash)?;
        uses.note(resident.number);
        Some(resident.blob())
    }

    /// Takes a blob that is not there yet.
    pub(super) fn insert(&self, home: Home, number: usize) -> Arc<Resident> {
        let resident = Arc::new(Resident { number, seat: Seat::default(), home: Mutex::new(home) });
        let row = Row { resident: Arc::clone(&resident), holders: Vec::new() };
        self.0.insert(resident.hash(), row);
        resident
    }

    pub(super) fn remove(&self, hash: &BlobHash) {
        self.0.remove(hash);
    }

    /// Adds the name in `slot`, and gives its place among the holders.
    pub(super) fn attach(&self, hash: &BlobHash, slot: usize) -> usize {
        let mut row = self.0.get_mut(hash).expect("a blob that is given a holder is resident");
        row.holders.push(slot);
        row.holders.len() - 1
    }

    /// Removes the holder at `place`, and gives the slot that has its place now, if any.
    pub(super) fn detach(&self, hash: &BlobHash, place: usize) -> Option<usize> {
        let mut row = self.0.get_mut(hash).expect("a blob that is held is resident");
        row.holders.swap_remove(place);
        row.holders.get(place).copied()
    }

    /// One of the holders, as `dice` falls.
    pub(super) fn any_holder(&self, hash: &BlobHash, dice: usize) -> Option<usize> {
        self.0.view(hash, |_, row| row.holders.get(dice % row.holders.len().max(1)).copied())?
    }

    /// All holders, if they are at most `max`.
    pub(super) fn holders(&self, hash: &BlobHash, max: usize) -> Option<Vec<usize>> {
        self.0.view(hash, |_, row| (row.holders.len() <= max).then(|| row.holders.clone()))?
    }

    /// Forgets all holders.
    pub(super) fn detach_all(&self) {
        self.0.alter_all(|_, row| Row { holders: Vec::new(), ..row });
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The copies with their holders, for counting anew.
    #[cfg(test)]
    pub(super) fn all(&self) -> Vec<(BlobHash, u64, Vec<usize>)> {
        let row = |r: dashmap::mapref::multiple::RefMulti<'_, BlobHash, Row>| {
            (*r.key(), r.resident.held_bytes(), r.holders.clone())
        };
        self.0.iter().map(row).collect()
    }
}
