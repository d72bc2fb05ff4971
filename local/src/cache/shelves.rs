//! Owns what workers of this machine find in shared memory: an arena for each namespace that one of them attached to.
//!
//! ```text
//! bind     arena first: bytes and name -> the copy's home is there -> then the table     (`Cache::publish`)
//! release  table, then arena: behind this no worker begins to find the name, and only then is anybody told
//! ```
//! Invariants, all under the ledger's lock: a name that is in an arena is held by the cache, with the same binding,
//! registration, era and end; a hash that leaves the cache leaves every arena. The cache alone decides what leaves.
//! `valid_until` and `era` are stored into every arena in the order in which they come, and into a new one before anybody
//! can have it.
//! What finds no place in an arena is kept outside: workers then ask for it over a socket.

use super::blobs::Home;
use super::{Cache, Cursor, Evicted, Ledger, blobs};
use bytes::Bytes;
use dstore_arena::{
    Arena, Binding, Config, Descriptors, Draft, Error, Expiry, Hoarder, Obstacle, Refusal, Worker,
};
use dstore_shared::{Blob, BlobHash, Entry, Moment, Name, Namespace, RegSeq, Revision};
use std::collections::HashMap;
use std::os::fd::OwnedFd;

/// Namespaces that may have an arena at a time: each reserves addresses as if it had the whole budget.
const SHELVES_MAX: usize = 16;
/// Of the budget all arenas together may have all but one part in this many: names and what is outside need some.
const OUTSIDE_PART: u64 = 8;
/// And all but one part in this many as long as each has its least: memory that was ever used does not come back, and
/// another namespace may come.
const GROWN_PART: u64 = 4;
/// An arena's least is one part in this many of the budget.
const LEAST_PART: u64 = 16;
/// Times that room in one piece is made for one value.
const CLEARINGS_MAX: usize = 4;
/// What a place in an arena is given beyond the bytes of key and value when room is made for them.
const PLACE_SLACK: u64 = 64 << 10;
/// Room is looked for again each time that one part in this many of what is needed has gone: each look takes one at all
/// that workers have pinned.
const GONE_PART: u64 = 4;
/// Names of one blob that are led to a new home of its bytes; those of a blob with more stay with the old one.
const MOVED_MAX: usize = 1024;
/// Values of more bytes are copied without the lock.
const COPIED_UNDER_LOCK: u64 = 64 << 10;
/// Slots looked at, and bytes moved, in one step of [`Cache::shelve`].
const SHELVE_MAX: (usize, u64) = (256, 1 << 20);

/// Why a worker cannot attach.
#[derive(Debug, thiserror::Error)]
pub enum NotShelved {
    /// So many namespaces have workers already.
    #[error(
        "workers are attached to `{SHELVES_MAX}` namespaces already: values of this one are read over the socket"
    )]
    TooMany,
    /// The others have it all.
    #[error(
        "there is no room for another namespace in shared memory: values of this one are read over the socket"
    )]
    NoRoom,
    /// This system has no such memory, or not enough of it.
    #[error(transparent)]
    Arena(#[from] Error),
}

/// A name about to be held.
pub(super) struct Bound<'a> {
    pub name: &'a Name,
    pub entry: &'a Entry,
    pub until: Moment,
    pub reg_seq: RegSeq,
    pub era: u64,
}

impl Bound<'_> {
    fn binding(&self) -> Binding {
        let expires_at = self.entry.expires_at.map(dstore_shared::End::get);
        let expires = expires_at.is_some() || self.until != Moment::MAX;
        Binding {
            hash: *self.entry.hash.as_bytes(),
            bind_rev: self.entry.bind_rev.0,
            registration: self.reg_seq.0,
            era: self.era,
            expiry: expires
                .then(|| Expiry { until: self.until.as_nanos(), expires_at: expires_at.unwrap_or_default() }),
        }
    }
}

/// A namespace's arena and who reads it. A worker is kept here, and not by the door, so that its pins count until somebody
/// has seen that it reads no more, whatever becomes of the door.
#[derive(Debug)]
struct Shelf {
    arena: Arena,
    workers: HashMap<u64, Worker>,
    /// Nobody was told yet that what is held is to be brought here.
    is_new: bool,
}

/// A worker that was attached.
#[derive(Debug)]
pub struct Attached {
    /// Its number among those of its namespace.
    pub worker: u64,
    /// What it needs.
    pub descriptors: Descriptors,
    /// What had to go for it.
    pub evicted: Evicted,
    /// It is the first: what is held of the namespace is still to be brought there, by [`Cache::shelve`].
    pub is_first: bool,
}

/// The arenas.
#[derive(Debug, Default)]
pub(super) struct Shelves {
    all: HashMap<Namespace, Shelf, foldhash::fast::RandomState>,
    valid_until: Moment,
    era: u64,
}

impl Shelves {
    fn of(&mut self, name: &Name) -> Option<&mut Arena> {
        if self.all.is_empty() {
            return None;
        }
        self.all.get_mut(&name.namespace()).map(|shelf| &mut shelf.arena)
    }

    /// Bytes of memory that the arenas have used, and have still.
    pub(super) fn resident(&self) -> u64 {
        self.all.values().map(|shelf| shelf.arena.resident()).sum()
    }

    /// No worker begins to find the name any more when this returns.
    pub(super) fn remove(&mut self, name: &Name) {
        if let Some(arena) = self.of(name) {
            arena.remove(name.key().as_bytes());
        }
    }

    /// The name is served in `era`, if it is there.
    pub(super) fn renew(&mut self, name: &Name, bind_rev: Revision, reg_seq: RegSeq, era: u64) {
        if let Some(arena) = self.of(name) {
            arena.renew(name.key().as_bytes(), bind_rev.0, reg_seq.0, era);
        }
    }

    /// Bytes that left the cache leave all arenas.
    pub(super) fn expel(&mut self, hash: &BlobHash) {
        for Shelf { arena, .. } in self.all.values_mut() {
            // No name leads there any more: those of the cache were removed before, and others there are none.
            arena.expel(hash.as_bytes(), &mut Vec::new());
        }
    }

    /// How often workers asked for these bytes since this was asked last.
    pub(super) fn take_uses(&mut self, hash: &BlobHash) -> u8 {
        let uses = self.all.values_mut().map(|shelf| shelf.arena.take_uses(hash.as_bytes()));
        u8::try_from(uses.sum::<u64>()).unwrap_or(u8::MAX)
    }
}

impl Cache {
    /// Names are served to workers before this moment only.
    pub fn publish_valid_until(&self, at: Moment) {
        let shelves = &mut self.ledger.lock().shelves;
        shelves.valid_until = at;
        shelves.all.values().for_each(|shelf| shelf.arena.set_valid_until(at.as_nanos()));
    }

    /// Names of an earlier era are not served to workers any more. To be called before the lease that follows is published.
    pub fn publish_era(&self, era: u64) {
        let shelves = &mut self.ledger.lock().shelves;
        shelves.era = era;
        shelves.all.values().for_each(|shelf| shelf.arena.set_era(era));
    }

    /// Attaches a worker to a namespace, until [`Cache::detach`].
    ///
    /// # Errors
    /// Why it has to read over the socket instead.
    pub fn attach(&self, namespace: &Namespace) -> Result<Attached, NotShelved> {
        let is_new = !self.ledger.lock().shelves.all.contains_key(namespace);
        // Outside the lock: it takes system calls.
        let arena = is_new.then(|| Arena::create(self.shelf_config())).transpose()?;
        let mut ledger = self.ledger.lock();
        if let Some(arena) = arena
            && !ledger.shelves.all.contains_key(namespace)
        {
            self.open_shelf(&mut ledger, namespace, arena.without_eviction())?;
        }
        let shelf = ledger.shelves.all.get_mut(namespace).ok_or(NotShelved::NoRoom)?;
        let (worker, descriptors) = shelf.arena.attach()?;
        let id = worker.id();
        shelf.workers.insert(id, worker);
        let is_first = std::mem::take(&mut shelf.is_new);
        Ok(Attached { worker: id, descriptors, evicted: std::mem::take(&mut ledger.owed), is_first })
    }

    fn open_shelf(&self, ledger: &mut Ledger, namespace: &Namespace, arena: Arena) -> Result<(), NotShelved> {
        if ledger.shelves.all.len() >= SHELVES_MAX {
            return Err(NotShelved::TooMany);
        }
        if ledger.shelves.resident() + arena.resident() > self.shelves_bytes_max() {
            return Err(NotShelved::NoRoom);
        }
        let mut evicted = Evicted::new();
        while !self.fits(ledger, arena.resident()) && self.evict(ledger, &mut evicted) {}
        ledger.owed.extend(evicted);
        // In this order: see `Published`.
        arena.set_era(ledger.shelves.era);
        arena.set_valid_until(ledger.shelves.valid_until.as_nanos());
        ledger.shelves.all.insert(namespace.clone(), Shelf { arena, workers: HashMap::new(), is_new: true });
        Ok(())
    }

    /// A worker reads no more: its process has ended, or has closed its socket.
    pub fn detach(&self, namespace: &Namespace, worker: u64) {
        if let Some(shelf) = self.ledger.lock().shelves.all.get_mut(namespace) {
            shelf.workers.remove(&worker);
        }
    }

    /// The segments of a namespace's arena from number `from` on.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn segments(&self, namespace: &Namespace, from: usize) -> Result<Vec<OwnedFd>, Error> {
        let shelves = &self.ledger.lock().shelves;
        shelves.all.get(namespace).map_or(Ok(Vec::new()), |shelf| shelf.arena.segments_from(from))
    }

    /// Brings names of `namespace` that are held into its arena: those of the next slots from `from` on. Gives what had to
    /// go, and where to go on.
    pub fn shelve(&self, namespace: &Namespace, from: Cursor) -> (Evicted, Option<Cursor>) {
        let mut evicted = Evicted::new();
        let (mut moved, mut large) = (0, None);
        let mut ledger = self.ledger.lock();
        let mut at = from.place();
        let end = at.saturating_add(SHELVE_MAX.0).min(ledger.slots.capacity());
        while at < end && moved <= SHELVE_MAX.1 && large.is_none() {
            if let Some(name) = ledger.slots.get(at).filter(|name| name.namespace() == *namespace).cloned() {
                moved += self.shelve_one(&mut ledger, &name, &mut evicted);
                large = self.large_outside(&mut ledger, &name);
            }
            at += 1;
        }
        let next = (at < ledger.slots.capacity()).then_some(Cursor::at(at));
        drop(ledger);
        if let Some((name, blob)) = large {
            let (staged, gone) = self.stage(&name, &blob);
            evicted.extend(gone);
            if staged.is_some() {
                self.shelve_one(&mut self.ledger.lock(), &name, &mut evicted);
            }
        }
        (evicted, next)
    }

    /// The name and its blob, if that is large and not in the arena.
    fn large_outside(&self, ledger: &mut Ledger, name: &Name) -> Option<(Name, Blob)> {
        let blob = self.names.view(name.as_bytes(), |held| held.blob.clone())?;
        let is_outside = ledger.shelves.of(name)?.have(blob.id().as_bytes()).is_none();
        (is_outside && blob.size() > COPIED_UNDER_LOCK).then(|| (name.clone(), blob))
    }

    fn shelve_one(&self, ledger: &mut Ledger, name: &Name, evicted: &mut Evicted) -> u64 {
        let is_there = ledger.shelves.of(name).is_none_or(|arena| arena.get(name.key().as_bytes()).is_some());
        let held = |held: &super::Held| (held.entry(), held.blob.clone(), held.until, held.reg_seq, held.era);
        let Some((entry, blob, until, reg_seq, era)) =
            self.names.view(name.as_bytes(), held).filter(|_| !is_there)
        else {
            return 0;
        };
        let bound = Bound { name, entry: &entry, until, reg_seq, era };
        let home = self.publish(ledger, &bound, &blob, 0, evicted);
        // Room was made for it perhaps by what it is itself about.
        if self.names.view(name.as_bytes(), |held| held.bind_rev) != Some(entry.bind_rev) {
            ledger.shelves.remove(name);
        }
        match (self.blobs.get(&entry.hash), home) {
            (Some(resident), Some(home)) => self.rehome(ledger, &resident, home),
            (Some(_), None) => {}
            (None, home) => {
                drop(home);
                ledger.shelves.expel(&entry.hash);
            }
        }
        entry.size
    }

    /// Takes in what workers used and frees what they read no more; to be called a few times a second while there are any.
    /// Gives the workers that hold more than they may. An arena that nobody uses any more goes.
    pub fn sweep(&self) -> Vec<(Namespace, Hoarder)> {
        let shelves = &mut self.ledger.lock().shelves;
        let mut found = Vec::new();
        shelves.all.retain(|namespace, Shelf { arena, workers, .. }| {
            found.extend(arena.sweep().into_iter().map(|hoarder| (namespace.clone(), hoarder)));
            let stats = arena.stats();
            !workers.is_empty() || stats.rows + stats.limbo > 0
        });
        found
    }

    /// Copies a large value to where a name is about to be held, without holding anybody up meanwhile: the installation that
    /// follows then has nothing to copy, nor to compare. Gives the same blob there, and what had to go for it; nothing if it
    /// is small or has no place.
    pub fn stage(&self, name: &Name, blob: &Blob) -> (Option<Blob>, Evicted) {
        let mut evicted = Evicted::new();
        if blob.size() <= COPIED_UNDER_LOCK || self.is_oversize(blobs::charge(blob)) {
            return (None, evicted);
        }
        let kept = self.ledger.lock().shelves.of(name).and_then(|arena| arena.keep(blob.id().as_bytes()));
        if let Some(kept) = kept {
            // Nothing if other bytes are there under this hash: the installation sees to that.
            return (blob.moved(Bytes::from_owner(kept)), evicted);
        }
        let Some(draft) = self.draft(name, blob, &mut evicted) else { return (None, evicted) };
        let filled = draft.fill(blob.bytes());
        let Some(blob) = blob.moved(Bytes::from_owner(filled.bytes())) else { return (None, evicted) };
        let mut ledger = self.ledger.lock();
        if !ledger.shelves.of(name).is_some_and(|arena| arena.adopt(&filled, blob.id().as_bytes())) {
            return (None, evicted);
        }
        self.lodge(&mut ledger, Home { blob: blob.clone(), is_shared: true }, 0, &mut evicted);
        (Some(blob), evicted)
    }

    fn draft(&self, name: &Name, blob: &Blob, evicted: &mut Evicted) -> Option<Draft> {
        let mut ledger = self.ledger.lock();
        let ledger = &mut *ledger;
        if ledger.shelves.of(name)?.have(blob.id().as_bytes()).is_some() {
            return None;
        }
        let place = blob.size() + PLACE_SLACK;
        self.in_arena(ledger, name, place, 0, evicted, |arena| arena.draft(blob.size() as usize))
    }

    /// Puts a name and its bytes into the arena of its namespace, if that has one and room can be made. Gives the bytes'
    /// home there. `extra` bytes beside it stay free. What is large must be there already.
    pub(super) fn publish(
        &self,
        ledger: &mut Ledger,
        bound: &Bound<'_>,
        blob: &Blob,
        extra: u64,
        evicted: &mut Evicted,
    ) -> Option<Home> {
        let (key, hash) = (bound.name.key(), blob.id());
        let arena = ledger.shelves.of(bound.name)?;
        if blob.size() > COPIED_UNDER_LOCK && arena.have(hash.as_bytes()).is_none() {
            // Nor is anybody to leave for it.
            return None;
        }
        let place = blob.size() + key.as_bytes().len() as u64 + PLACE_SLACK;
        let binding = bound.binding();
        let insert = |arena: &mut Arena| {
            let bytes = (&blob.bytes()[..], COPIED_UNDER_LOCK as usize);
            arena.insert_upto(key.as_bytes(), &binding, bytes, &mut Vec::new())?;
            Ok(arena.keep(hash.as_bytes()))
        };
        let kept = self.in_arena(ledger, bound.name, place, extra, evicted, insert)?;
        let blob = kept.and_then(|kept| blob.moved(Bytes::from_owner(kept)));
        if blob.is_none() {
            // Other bytes are there under this hash: memory has decayed, and nobody is to find them, here or there.
            self.expel_from(ledger, &hash, evicted);
            ledger.shelves.expel(&hash);
        }
        blob.map(|blob| Home { blob, is_shared: true })
    }

    /// Does something in the arena of the name's namespace that needs a place of so many bytes, as soon as it finds one;
    /// others leave for it. `None`: there is no such arena, or no room to be made. `extra` bytes stay free.
    fn in_arena<T>(
        &self,
        ledger: &mut Ledger,
        name: &Name,
        place: u64,
        extra: u64,
        evicted: &mut Evicted,
        mut act: impl FnMut(&mut Arena) -> Result<T, Refusal>,
    ) -> Option<T> {
        let extra = extra + blobs::shared_charge();
        while !self.fits(ledger, extra) {
            if !self.evict(ledger, evicted) {
                return None;
            }
        }
        let (mut from, mut clearings) = (ledger.discarded, 0);
        let part = place.saturating_sub(PLACE_SLACK) / GONE_PART;
        loop {
            let limit = self.limit(ledger, name, extra);
            let arena = ledger.shelves.of(name)?;
            arena.limit(limit);
            match act(arena) {
                Ok(done) => return Some(done),
                Err(Refusal::Full) => {}
                Err(_) => return None,
            }
            // Twice what is needed has gone, and elsewhere, or not in one piece: the cheapest piece goes as a whole.
            if ledger.discarded - from > 2 * place || !self.evict_bytes(ledger, part, evicted) {
                if clearings == CLEARINGS_MAX || !self.clear(ledger, name, place, evicted) {
                    return None;
                }
                (from, clearings) = (ledger.discarded, clearings + 1);
            }
        }
    }

    /// Removes one blob, and others until so many bytes have gone. `false`: the cache is empty.
    fn evict_bytes(&self, ledger: &mut Ledger, bytes: u64, evicted: &mut Evicted) -> bool {
        let (from, mut went) = (ledger.discarded, false);
        while self.evict(ledger, evicted) {
            went = true;
            if ledger.discarded - from >= bytes {
                break;
            }
        }
        went
    }

    /// Empties the piece of an arena that costs the least and in which `bytes` have room.
    fn clear(&self, ledger: &mut Ledger, name: &Name, bytes: u64, evicted: &mut Evicted) -> bool {
        let namespace = name.namespace();
        let Some(obstacles) = ledger.shelves.of(name).and_then(|arena| arena.obstacles(bytes)) else {
            return false;
        };
        let name_of = |key: &[u8]| {
            let key = dstore_shared::Key::new(Bytes::copy_from_slice(key)).ok()?;
            Some(Name::new(&namespace, &key))
        };
        // What a person has pinned stays, and with it what lies beside it.
        let is_pinned = |obstacle: &Obstacle| match obstacle {
            Obstacle::Value(hash) => ledger.pins.has_blob(&BlobHash::from_bytes(*hash)),
            Obstacle::Name(key) => name_of(key).is_some_and(|name| ledger.pins.has_name(&name)),
        };
        if obstacles.iter().any(is_pinned) {
            return false;
        }
        for obstacle in obstacles {
            match obstacle {
                Obstacle::Value(hash) => self.expel_from(ledger, &BlobHash::from_bytes(hash), evicted),
                Obstacle::Name(key) => {
                    let Some(name) = name_of(&key) else { continue };
                    self.evict_name(ledger, &name, evicted);
                }
            }
        }
        true
    }

    /// Up to how many bytes the arena of the name's namespace may grow if `extra` more are to stay free.
    fn limit(&self, ledger: &mut Ledger, name: &Name, extra: u64) -> u64 {
        let (all, in_use) = (ledger.shelves.resident(), self.in_use(ledger) + extra);
        let free = self.bytes_max.saturating_sub(in_use);
        let own = ledger.shelves.of(name).map_or(0, |arena| arena.resident());
        let common = (self.bytes_max - self.bytes_max / GROWN_PART).saturating_sub(all);
        let least = (self.bytes_max / LEAST_PART).saturating_sub(own);
        own + free.min(common.max(least.min(self.shelves_bytes_max().saturating_sub(all))))
    }

    fn shelves_bytes_max(&self) -> u64 {
        self.bytes_max - self.bytes_max / OUTSIDE_PART
    }

    fn shelf_config(&self) -> Config {
        let budget = self.shelves_bytes_max().min(dstore_arena::layout::DATA_BYTES_MAX);
        let default = Config::default();
        Config { budget, pin_bytes_max: default.pin_bytes_max.max(budget / 4), ..default }
    }

    /// The name's binding is the same, and its registration, era or end are others.
    pub(super) fn republish(&self, ledger: &mut Ledger, name: &Name) {
        let key = name.key();
        if ledger.shelves.of(name).is_none_or(|arena| arena.get(key.as_bytes()).is_none()) {
            return;
        }
        let limit = self.limit(ledger, name, 0);
        let Some(arena) = ledger.shelves.of(name) else { return };
        arena.limit(limit);
        let held = |held: &super::Held| (held.entry(), held.blob.clone(), held.until, held.reg_seq, held.era);
        let Some((entry, blob, until, reg_seq, era)) = self.names.view(name.as_bytes(), held) else { return };
        let binding = Bound { name, entry: &entry, until, reg_seq, era }.binding();
        let bytes = (&blob.bytes()[..], COPIED_UNDER_LOCK as usize);
        if arena.insert_upto(key.as_bytes(), &binding, bytes, &mut Vec::new()).is_err() {
            arena.remove(key.as_bytes());
        }
    }

    /// The bytes of a copy are in shared memory now: those of before go.
    pub(super) fn rehome(&self, ledger: &mut Ledger, resident: &blobs::Resident, home: Home) {
        if resident.is_shared() {
            return;
        }
        let Some(holders) = self.blobs.holders(&resident.hash(), MOVED_MAX) else { return };
        for slot in holders {
            self.names.move_to(ledger.slots.name(slot), &home.blob);
        }
        let (before, after) = resident.move_to(home);
        ledger.stats.blob_bytes = ledger.stats.blob_bytes - before + after;
    }
}

#[cfg(test)]
#[path = "shelves_tests.rs"]
mod tests;
