//! Owns what a node remembers: names, and the blobs that they are bound to.
//!
//! ```text
//! names   Name -> { entry, registration, era } --+     leased: removed by INV, unservable in an older era
//!                                                v
//! blobs   BlobHash -> bytes, holders                   immutable: never stale, kept until evicted
//!                                                ^
//! ledger  bytes, S3-FIFO queues, slots ----------+     one lock for every change; a hit takes none of it
//! ```
//!
//! Invariants: every name held has a resident blob with its entry's hash. The bytes in use are the sum
//! of the charges of all names and blobs held, and never exceed the budget. Changes are exact and
//! in the order of the ledger's lock, so whoever drives the coherence machine under a lock of its own gets
//! what it orders. Lock order: ledger, then one row of a table.
//! It must never ask a clock, wait for anything, or call back.

mod blobs;
mod check;
mod eviction;
mod gone;
mod names;
mod pins;
mod shelves;
mod table;

use blobs::{Blobs, Home, Resident};
use dstore_shared::{Blob, BlobHash, Entry, Moment, Name, Prefix, RegSeq, Revision};
use eviction::{Evictable, Eviction, Uses};
pub use gone::Left;
pub use names::Cursor;
use names::{Comparison, Held, Names, Slots};
use parking_lot::Mutex;
pub use shelves::{Attached, NotShelved};
use shelves::{Bound, Shelves};
use slab::Slab;
use std::fmt;
use std::sync::Arc;
pub use table::Listing;

/// Locks that each table is divided among: many more than cores, so that two hits seldom meet at one.
const SHARDS: usize = 64;
/// A blob is not admitted if it takes more than one part in this many of the budget: it would empty the cache
/// for the sake of one value. It streams through.
const OVERSIZE_PART: u64 = 4;
/// Names that a victim loses at a time: bounds what one eviction does when very many names share a blob.
const SHED_MAX: usize = 64;
/// Slots looked at in one batch of a listing: bounds how long it holds the lock.
const SCAN_MAX: usize = 1024;

/// How much a cache may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CacheConfig {
    /// Bytes of blobs, names and what it costs to keep them.
    pub bytes: u64,
}

impl Default for CacheConfig {
    fn default() -> Self {
        // A node shares its machine with the workers it serves.
        Self { bytes: 1 << 30 }
    }
}

/// A name found.
#[derive(Clone, Debug)]
pub struct Hit {
    /// What it is bound to.
    pub entry: Entry,
    /// The bytes; `blob.id() == entry.hash`.
    pub blob: Blob,
    /// To be served before this moment only, also under a valid lease.
    pub until: Moment,
}

/// Names that an admission pushed out, each with the registration it had: Global is to be told by DROP.
pub type Evicted = Vec<(Name, RegSeq)>;

/// What became of something that was to be kept.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use = "evicted names are still registered at Global"]
pub enum Admission {
    /// It is held now.
    Installed {
        /// What had to go for it.
        evicted: Evicted,
    },
    /// It is not held, and no other had to go for it.
    Refused(Refusal),
}

/// Why something is not kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The name is held with a newer binding, of this revision, and keeps it.
    Older(Revision),
    /// It takes more than a quarter of the budget. A registration made for it is to be given back by DROP.
    Oversize,
    /// The blob is not the one that the entry names. A registration made for it is to be given back by DROP.
    Mismatch,
}

/// Some of the names that may not be served until they are validated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StaleNames {
    /// Each with the binding held.
    pub names: Vec<(Name, Revision)>,
    /// Where to go on; `None` = these were the last. A batch may be empty and still not be the last.
    pub next: Option<Cursor>,
}

/// What a name and its blob cost beyond their bytes.
pub fn overhead() -> u64 {
    names::NAME_OVERHEAD + blobs::BLOB_OVERHEAD
}

/// What a cache holds and did. Hits and misses are counted by the node.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CacheStats {
    /// Names held = `names_installed - names_removed - names_evicted`.
    pub names: u64,
    /// Blobs held = `blobs_admitted - blobs_evicted`.
    pub blobs: u64,
    /// Bytes charged to names = sum over names held of (packed length + overhead).
    pub name_bytes: u64,
    /// Bytes charged to blobs = sum over blobs held of (size + overhead); of one in shared memory only the overhead.
    pub blob_bytes: u64,
    /// Bytes of shared memory that were ever used and may be resident: blobs that workers can reach, and their index.
    pub shared_bytes: u64,
    /// The budget; `bytes() <= bytes_max`.
    pub bytes_max: u64,
    /// Names that came to be held, rebound ones included, renewed ones not.
    pub names_installed: u64,
    /// Names that went because they were deleted, rebound, refused or dropped.
    pub names_removed: u64,
    /// Names that went for want of room = sum of the lengths of all [`Evicted`].
    pub names_evicted: u64,
    /// Blobs that came to be held.
    pub blobs_admitted: u64,
    /// Blobs that went for want of room.
    pub blobs_evicted: u64,
    /// Admissions refused = older + oversize + mismatch.
    pub refused: u64,
}

impl CacheStats {
    /// Bytes in use = `name_bytes + blob_bytes + shared_bytes`.
    pub fn bytes(&self) -> u64 {
        self.name_bytes + self.blob_bytes + self.shared_bytes
    }
}

/// The cache of one node.
pub struct Cache {
    names: Names,
    blobs: Blobs,
    uses: Arc<Uses>,
    ledger: Mutex<Ledger>,
    bytes_max: u64,
    gone: gone::Gone,
}

/// What every change must see and leave consistent.
struct Ledger {
    slots: Slots,
    /// The blobs by their numbers, which are as small as possible.
    numbers: Slab<Arc<Resident>>,
    eviction: Eviction<Resident>,
    pins: pins::Pins,
    stats: CacheStats,
    shelves: Shelves,
    /// Bytes of all blobs that ever left.
    discarded: u64,
    /// What had to go for something that was not kept after all: told of with the next that is.
    owed: Evicted,
    /// Chooses among the names of a victim that has many.
    dice: usize,
}

impl Cache {
    /// An empty cache.
    pub fn new(config: CacheConfig) -> Self {
        let uses = Arc::new(Uses::new(config.bytes / blobs::BLOB_OVERHEAD));
        let ledger = Ledger {
            slots: Slots::default(),
            numbers: Slab::new(),
            eviction: Eviction::new(Arc::clone(&uses)),
            pins: pins::Pins::default(),
            stats: CacheStats { bytes_max: config.bytes, ..CacheStats::default() },
            shelves: Shelves::default(),
            discarded: 0,
            owed: Evicted::new(),
            dice: 0,
        };
        let (names, blobs) = (Names::new(), Blobs::new());
        Self {
            names,
            blobs,
            uses,
            ledger: Mutex::new(ledger),
            bytes_max: config.bytes,
            gone: gone::Gone::default(),
        }
    }

    /// What the name is bound to, if it is held and of `era` or a later one. One lookup, no allocation, no waiting
    /// but for a change of a row nearby. The caller has loaded `valid_until` before, and reads the clock after
    /// (rule 1).
    #[inline]
    pub fn hit(&self, packed_name: &[u8], era: u64) -> Option<Hit> {
        self.names.view_if(packed_name, |held| held.era >= era, |held| self.found(held))
    }

    /// What the name was bound to, of whatever era: only for answers that say they may be stale.
    pub fn stale_hit(&self, packed_name: &[u8]) -> Option<Hit> {
        self.names.view(packed_name, |held| self.found(held))
    }

    /// As [`Self::stale_hit`], with the era.
    pub fn stale_hit_of(&self, packed_name: &[u8]) -> Option<(Hit, u64)> {
        self.names.view(packed_name, |held| (self.found(held), held.era))
    }

    /// The blob, if there is a copy: held by a name or not.
    pub fn have(&self, hash: &BlobHash) -> Option<Blob> {
        self.blobs.hit(hash, &self.uses)
    }

    /// The size of the largest blob that is admitted under a name of 1,024 bytes.
    pub fn blob_bytes_max(&self) -> u64 {
        let key_max = dstore_shared::limits::KEY_BYTES_MAX + dstore_shared::limits::NAMESPACE_BYTES_MAX + 1;
        let overhead = blobs::BLOB_OVERHEAD + names::NAME_OVERHEAD + key_max as u64;
        (self.bytes_max / OVERSIZE_PART).saturating_sub(overhead)
    }

    /// Holds `name` with its binding, to be served in `era`, unless a newer binding is held. If the very
    /// binding is held already, the newer registration and era count (rules 10 and 20).
    ///
    /// A name with a time to live is held and not served: see [`Cache::install_until`].
    pub fn install(&self, name: &Name, entry: Entry, blob: &Blob, reg_seq: RegSeq, era: u64) -> Admission {
        let until = if entry.expires_at.is_some() { Moment::ZERO } else { Moment::MAX };
        self.install_until(name, (entry, until), blob, reg_seq, era)
    }

    /// As [`Cache::install`], to be served before `until` only.
    pub fn install_until(
        &self,
        name: &Name,
        (entry, until): (Entry, Moment),
        blob: &Blob,
        reg_seq: RegSeq,
        era: u64,
    ) -> Admission {
        let kept = blobs::compact(blob);
        let mut ledger = self.ledger.lock();
        if (blob.id(), blob.size()) != (entry.hash, entry.size) {
            return ledger.refuse(Refusal::Mismatch);
        }
        match self.names.compare(name, (&entry, until), reg_seq, era) {
            Comparison::Older(held) => return ledger.refuse(Refusal::Older(held)),
            Comparison::Same => {
                self.republish(&mut ledger, name);
                return Admission::Installed { evicted: Evicted::new() };
            }
            Comparison::Newer => self.remove(&mut ledger, name, |_| true),
        };
        let charge = names::charge(name, entry.content_type.as_ref());
        if self.is_oversize(blobs::charge(blob) + charge) {
            return ledger.refuse(Refusal::Oversize);
        }
        let mut evicted = std::mem::take(&mut ledger.owed);
        let bound = Bound { name, entry: &entry, until, reg_seq, era };
        let home = match self.publish(&mut ledger, &bound, &kept, charge, &mut evicted) {
            Some(home) => home,
            None if self.is_oversize_outside(&ledger, blobs::charge(&kept) + charge) => {
                ledger.owed = evicted;
                return ledger.refuse(Refusal::Oversize);
            }
            None => Home { blob: kept, is_shared: false },
        };
        let resident = self.lodge(&mut ledger, home, charge, &mut evicted);
        let held = Held {
            blob: resident.blob(),
            bind_rev: entry.bind_rev,
            expires_at: entry.expires_at,
            content_type: entry.content_type,
            until,
            reg_seq,
            era,
            number: resident.number(),
            slot: 0,
        };
        self.bind(&mut ledger, name.compact(), held);
        Admission::Installed { evicted }
    }

    /// Keeps a copy of `blob` that no name holds, for reads by hash.
    pub fn admit(&self, blob: &Blob) -> Admission {
        let kept = blobs::compact(blob);
        let mut ledger = self.ledger.lock();
        let charge = blobs::charge(blob);
        let is_held = self.blobs.get(&blob.id()).is_some();
        if self.is_oversize(charge) || !is_held && self.is_oversize_outside(&ledger, charge) {
            return ledger.refuse(Refusal::Oversize);
        }
        let mut evicted = std::mem::take(&mut ledger.owed);
        self.lodge(&mut ledger, Home { blob: kept, is_shared: false }, 0, &mut evicted);
        Admission::Installed { evicted }
    }

    /// Evicts until `bytes` more would fit, or `victims_max` blobs have been looked at. Whoever is about to
    /// admit a large blob calls it, again and again while it gives `true` and with pauses, so that the
    /// admission itself has little to do. Gives what had to go, and whether there is more to do.
    pub fn make_room(&self, bytes: u64, victims_max: usize) -> (Evicted, bool) {
        let (mut evicted, bytes) = (Evicted::new(), bytes.min(self.bytes_max));
        let mut ledger = self.ledger.lock();
        for _ in 0..victims_max {
            if self.fits(&ledger, bytes) || !self.evict(&mut ledger, &mut evicted) {
                break;
            }
        }
        (evicted, !self.fits(&ledger, bytes))
    }

    /// Removes the name if its binding is not newer than `upto`, whatever its era (rule 10). Its blob stays.
    pub fn remove_upto(&self, name: &Name, upto: Revision) -> bool {
        self.remove(&mut self.ledger.lock(), name, |held| held.bind_rev <= upto)
    }

    /// Removes the names under `prefix` whose binding is not newer than `upto`, whatever their era (rule 10), and gives
    /// how many. Their blobs stay. Takes time in proportion to all names; hits go on meanwhile.
    pub fn remove_prefix_upto(&self, prefix: &Prefix, upto: Revision) -> usize {
        let mut ledger = self.ledger.lock();
        let under: Vec<Name> = ledger.slots.all().filter(|name| prefix.covers(name)).cloned().collect();
        under.iter().filter(|name| self.remove(&mut ledger, name, |held| held.bind_rev <= upto)).count()
    }

    /// Makes the name servable in `era` under a new registration, if it still has the binding of `bind_rev`.
    pub fn validate(&self, name: &Name, bind_rev: Revision, reg_seq: RegSeq, era: u64) -> bool {
        let mut ledger = self.ledger.lock();
        let is_valid = self.names.validate(name, bind_rev, reg_seq, era);
        if is_valid {
            ledger.shelves.renew(name, bind_rev, reg_seq, era);
        }
        is_valid
    }

    /// Removes a name that Global refused to validate, unless it came to be held anew in `era` meanwhile (rule 19).
    pub fn drop_unvalidated(&self, name: &Name, era: u64) -> bool {
        self.remove(&mut self.ledger.lock(), name, |held| held.era < era)
    }

    /// Removes all names; the blobs stay (rule 31). Takes time in proportion to their number.
    pub fn drop_all_names(&self) {
        let mut ledger = self.ledger.lock();
        self.unpin_all(&mut ledger);
        let Ledger { slots, shelves, .. } = &mut *ledger;
        slots.all().for_each(|name| shelves.remove(name));
        self.names.clear();
        self.blobs.detach_all();
        ledger.stats.names_removed += ledger.slots.len() as u64;
        ledger.stats.name_bytes = 0;
        ledger.slots.clear();
        self.gone.note_all();
    }

    /// Lists, from `from` on, names of an era before `before_era`: at most `limit` of them, which is at least
    /// one. A name held from the first batch to the last is in exactly one of them.
    pub fn stale_names(&self, before_era: u64, from: Cursor, limit: usize) -> StaleNames {
        let ledger = self.ledger.lock();
        let (slots, next) = ledger.slots.scan(from, limit.clamp(1, SCAN_MAX));
        let stale = |held: &Held| (held.era < before_era).then_some(held.bind_rev);
        let listed = |name: &Name| Some((name.clone(), self.names.view(name.as_bytes(), stale)??));
        StaleNames { names: slots.filter_map(listed).collect(), next }
    }

    /// Lists, from `from` on, names that are held, of the next `slots` slots.
    pub fn held_names(&self, from: Cursor, slots: usize) -> (Vec<Name>, Option<Cursor>) {
        let ledger = self.ledger.lock();
        let (names, next) = ledger.slots.scan(from, slots.clamp(1, SCAN_MAX));
        (names.cloned().collect(), next)
    }

    /// Removes the name and gives the registration that it had.
    pub fn forget(&self, name: &Name) -> Option<RegSeq> {
        let mut registration = None;
        self.remove(&mut self.ledger.lock(), name, |held| {
            registration = Some(held.reg_seq);
            true
        });
        registration
    }

    /// Whether the names that leave are kept for [`Self::take_gone`].
    pub fn want_gone(&self, wanted: bool) {
        self.gone.want(wanted);
    }

    /// The names that left since it was asked for last.
    pub fn take_gone(&self) -> Option<Left> {
        self.gone.take()
    }

    /// What the cache holds and did.
    pub fn stats(&self) -> CacheStats {
        let ledger = self.ledger.lock();
        let (names, blobs) = (ledger.slots.len() as u64, self.blobs.len() as u64);
        CacheStats { names, blobs, shared_bytes: ledger.shelves.resident(), ..ledger.stats }
    }

    #[inline]
    fn found(&self, held: &Held) -> Hit {
        self.uses.note(held.number);
        Hit { entry: held.entry(), blob: held.blob.clone(), until: held.until }
    }

    fn is_oversize(&self, charge: u64) -> bool {
        charge > self.bytes_max / OVERSIZE_PART
    }

    /// The same of what is not in shared memory, if there is any: that memory does not come back.
    fn is_oversize_outside(&self, ledger: &Ledger, charge: u64) -> bool {
        charge > self.bytes_max.saturating_sub(ledger.shelves.resident()) / OVERSIZE_PART
    }

    fn fits(&self, ledger: &Ledger, bytes: u64) -> bool {
        self.in_use(ledger) + bytes <= self.bytes_max
    }

    #[expect(clippy::unused_self, reason = "as its neighbours")]
    fn in_use(&self, ledger: &Ledger) -> u64 {
        ledger.stats.bytes() + ledger.shelves.resident()
    }

    /// Sees to it that the blob of `home` is resident and that `extra` bytes beside it are free: room is made first, so
    /// the budget is kept even while a value comes in. An eviction may hit the blob's present copy; then it
    /// comes anew. A copy whose bytes are in shared memory by now has its home there.
    fn lodge(&self, ledger: &mut Ledger, home: Home, extra: u64, evicted: &mut Evicted) -> Arc<Resident> {
        loop {
            let resident = self.blobs.get(&home.blob.id());
            let need = if resident.is_some() { extra } else { extra + home.charge() };
            if !self.fits(ledger, need) && self.evict(ledger, evicted) {
                continue;
            }
            let Some(resident) = resident else { return self.insert(ledger, home) };
            if home.is_shared {
                self.rehome(ledger, &resident, home);
            }
            return resident;
        }
    }

    fn insert(&self, ledger: &mut Ledger, home: Home) -> Arc<Resident> {
        ledger.stats.blob_bytes += home.charge();
        ledger.stats.blobs_admitted += 1;
        let place = ledger.numbers.vacant_entry();
        let resident = self.blobs.insert(home, place.key());
        place.insert(Arc::clone(&resident));
        ledger.eviction.admit(Arc::clone(&resident));
        resident
    }

    fn bind(&self, ledger: &mut Ledger, name: Name, mut held: Held) {
        ledger.stats.name_bytes += names::charge(&name, held.content_type.as_ref());
        ledger.stats.names_installed += 1;
        held.slot = ledger.slots.take(name.clone());
        let place = self.blobs.attach(&held.blob.id(), held.slot);
        ledger.slots.set_place(held.slot, place);
        self.names.insert(name, held);
    }

    fn remove(&self, ledger: &mut Ledger, name: &Name, doomed: impl FnOnce(&Held) -> bool) -> bool {
        let Some(held) = self.names.remove_if(name, doomed) else { return false };
        self.release(ledger, name, &held);
        ledger.stats.names_removed += 1;
        if !ledger.pins.is_empty() {
            self.unpin_in(ledger, name);
        }
        true
    }

    /// Settles the accounts of a name that left the table.
    fn release(&self, ledger: &mut Ledger, name: &Name, held: &Held) {
        let place = ledger.slots.free(held.slot);
        if let Some(moved) = self.blobs.detach(&held.blob.id(), place) {
            ledger.slots.set_place(moved, place);
        }
        ledger.stats.name_bytes -= names::charge(name, held.content_type.as_ref());
        ledger.shelves.remove(name);
        self.gone.note(name);
    }

    /// Removes one blob with the names that hold it, or, if very many do, some of those. `false`: the cache
    /// is empty.
    fn evict(&self, ledger: &mut Ledger, evicted: &mut Evicted) -> bool {
        let Ledger { eviction, shelves, .. } = ledger;
        let heard = |one: &Resident| if one.is_shared() { shelves.take_uses(&one.hash()) } else { 0 };
        let Some(victim) = eviction.victim(heard) else { return self.shed(ledger, evicted) };
        for _ in 0..SHED_MAX {
            ledger.dice = ledger.dice.wrapping_add(0x9E37_79B1);
            let Some(slot) = self.blobs.any_holder(&victim.hash(), ledger.dice) else {
                self.discard(ledger, victim);
                return true;
            };
            let name = ledger.slots.name(slot).clone();
            self.evict_name(ledger, &name, evicted);
        }
        ledger.eviction.spare(victim);
        true
    }

    /// Removes a copy that no name holds and that is in no queue any more.
    fn discard(&self, ledger: &mut Ledger, copy: Arc<Resident>) {
        let hash = copy.hash();
        self.blobs.remove(&hash);
        ledger.numbers.remove(copy.number());
        ledger.stats.blob_bytes -= copy.held_bytes();
        ledger.stats.blobs_evicted += 1;
        ledger.discarded += copy.charge();
        // Its bytes may be in an arena, which has their place free if nobody keeps them.
        drop(copy);
        ledger.shelves.expel(&hash);
    }

    /// Removes a name, if it is held, for want of room.
    fn evict_name(&self, ledger: &mut Ledger, name: &Name, evicted: &mut Evicted) {
        let Some(held) = self.names.remove_if(name, |_| true) else { return };
        self.release(ledger, name, &held);
        ledger.stats.names_evicted += 1;
        if !ledger.pins.is_empty() {
            self.unpin_in(ledger, name);
        }
        evicted.push((name.clone(), held.reg_seq));
    }
}

impl Ledger {
    fn refuse(&mut self, why: Refusal) -> Admission {
        self.stats.refused += 1;
        Admission::Refused(why)
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cache({:?})", self.stats())
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
