//! How a name comes to be held: its bytes written, then its name linked to them.

use super::{Binding, Core, Evicted, Hash, OVERSIZE_PART, Refusal, SPARE_BUCKETS, Seen, prefix};
use crate::index::{Room, Writer, word_of};
use crate::layout::{KEY_BYTES_MAX, NOTE_BYTES_MAX, PAGE_WORDS, Shape, VALUE_BYTES_MAX, bucket, header, row};
use crate::memory::{Extend, Memory};
use crate::space::{Need, Space};
use std::sync::atomic::Ordering::{Relaxed, Release, SeqCst};

/// Buckets by which one insertion may let the index grow.
const SPLITS_MAX: usize = 2;

/// A name that is to be held.
struct Name<'a> {
    key: &'a [u8],
    note: &'a [u8],
    binding: &'a Binding,
}

impl Name<'_> {
    fn shape(&self, value: u32, alias: bool) -> Shape {
        Shape::new(self.key.len(), value, alias, self.binding.expiry.is_some()).noted(self.note.len())
    }
}

/// Where the bytes of a name are.
enum Found {
    /// In a row that leads to them already and needs a new binding only.
    Here(u32),
    /// In a row that may be shared.
    Beside,
    /// They are to be written.
    Nowhere,
}

/// Where the index takes buckets from: those in hand.
struct Buckets<'a, D> {
    data: &'a D,
    space: &'a mut Space,
    spare: &'a mut Vec<u32>,
}

impl<D: Extend> Room for Buckets<'_, D> {
    fn bucket(&mut self) -> Option<u32> {
        let unit = self.spare.pop()?;
        (0..bucket::WORDS).for_each(|word| self.data.store(word_of(unit) + word, 0, Relaxed));
        Some(unit)
    }

    fn give_back(&mut self, unit: u32) {
        if self.spare.len() < SPARE_BUCKETS {
            self.spare.push(unit);
        } else {
            self.space.give_back(unit);
        }
    }
}

impl<M: Memory, D: Extend> Core<M, D> {
    /// Binds `key`, to `bytes` or to the same bytes held already, in place of what it was bound to. `note` goes with the
    /// name.
    ///
    /// # Errors
    /// Why not; what the key was bound to before it is bound to still. What had to go for it meanwhile is gone.
    pub(crate) fn insert(
        &mut self,
        key: &[u8],
        name: (&Binding, &[u8]),
        bytes: &[u8],
        evicted: &mut Vec<Evicted>,
    ) -> Result<(), Refusal> {
        self.insert_upto(key, name, (bytes, usize::MAX), evicted)
    }

    /// As [`Core::insert`], and `Oversize` if more than `written_max` bytes were to be written for it.
    pub(crate) fn insert_upto(
        &mut self,
        key: &[u8],
        (binding, note): (&Binding, &[u8]),
        (bytes, written_max): (&[u8], usize),
        evicted: &mut Vec<Evicted>,
    ) -> Result<(), Refusal> {
        self.check(key.len(), note.len(), bytes.len())?;
        if key.is_empty() {
            return Err(Refusal::Key);
        }
        let name = Name { key, note, binding };
        let known = self.row_with(&binding.hash);
        if known.is_some_and(|unit| self.shape(unit).value_len() as usize != bytes.len()) {
            return Err(Refusal::Mismatch);
        }
        self.grow_index(evicted);
        if self.is_index_short() {
            return Err(Refusal::Full);
        }
        let unit = match self.place_of(&name, bytes.len())? {
            Found::Here(unit) => unit,
            Found::Beside => match self.alias(&name, evicted)? {
                Some(unit) => unit,
                // It needed the place of its own target: the bytes come anew.
                None if bytes.len() <= written_max => self.write(&name, bytes, evicted)?,
                None => return Err(Refusal::Oversize),
            },
            Found::Nowhere if bytes.len() <= written_max => self.write(&name, bytes, evicted)?,
            Found::Nowhere => return Err(Refusal::Oversize),
        };
        let linked = self.bind(&name, unit);
        self.show();
        linked
    }

    /// Holds bytes that no name leads to.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn admit(
        &mut self,
        hash: &Hash,
        bytes: &[u8],
        evicted: &mut Vec<Evicted>,
    ) -> Result<(), Refusal> {
        self.check(0, 0, bytes.len())?;
        match self.row_with(hash) {
            Some(unit) if self.shape(unit).value_len() as usize == bytes.len() => Ok(()),
            Some(_) => Err(Refusal::Mismatch),
            None => {
                let binding = Binding { hash: *hash, bind_rev: 0, registration: 0, era: 0, expiry: None };
                self.write(&Name { key: &[], note: &[], binding: &binding }, bytes, evicted)?;
                self.show();
                Ok(())
            }
        }
    }

    pub(super) fn check(&self, key: usize, note: usize, value: usize) -> Result<(), Refusal> {
        if key > KEY_BYTES_MAX {
            return Err(Refusal::Key);
        }
        if note > NOTE_BYTES_MAX {
            return Err(Refusal::Note);
        }
        let fits = value as u64 <= VALUE_BYTES_MAX && {
            let shape = Shape::new(key, value as u32, false, true).noted(note);
            shape.bytes() <= self.terms.data_bytes / OVERSIZE_PART
        };
        if fits { Ok(()) } else { Err(Refusal::Oversize) }
    }

    /// Where a name comes to be held with bytes of that length.
    fn place_of(&self, name: &Name<'_>, len: usize) -> Result<Found, Refusal> {
        // It has these bytes already, in its own row or in another: what it is bound to is written there anew.
        let place = self.index.find(&self.header, &self.data, self.hash(name.key), name.key);
        if let Some(place) = place
            && self.hash_of(self.target(place.unit)) == name.binding.hash
        {
            if self.shape(place.unit).value_len() as usize != len {
                return Err(Refusal::Mismatch);
            }
            if self.can_be_stamped(place.unit, name) {
                return Ok(Found::Here(place.unit));
            }
        }
        let Some(unit) = self.row_with(&name.binding.hash) else { return Ok(Found::Nowhere) };
        let shape = self.shape(unit);
        let is_home = !shape.is_linked()
            && shape.key_len() == name.key.len()
            && self.data.same(word_of(unit) + shape.key_at(), name.key);
        if is_home && self.can_be_stamped(unit, name) {
            return Ok(Found::Here(unit));
        }
        let aliases = self.aliases.get(&unit).map_or(0, Vec::len);
        let is_shared = shape.value_len() > row::SHARED_ABOVE && aliases < row::ALIASES_MAX;
        Ok(if is_shared { Found::Beside } else { Found::Nowhere })
    }

    /// Whether a row or alias with the name's key has room for what else goes with the name.
    fn can_be_stamped(&self, unit: u32, name: &Name<'_>) -> bool {
        let shape = self.shape(unit);
        (shape.expires() || name.binding.expiry.is_none())
            && shape.note_len() == name.note.len()
            && self.data.same(word_of(unit) + shape.note_at(), name.note)
    }

    /// A row of its own for a name.
    fn write(&mut self, name: &Name<'_>, bytes: &[u8], evicted: &mut Vec<Evicted>) -> Result<u32, Refusal> {
        let shape = name.shape(bytes.len() as u32, false);
        let unit = self.obtain(Need::Row(shape.bytes()), evicted)?;
        let at = word_of(unit);
        self.data.write(at + row::HASH, &name.binding.hash);
        self.data.write(at + shape.key_at(), name.key);
        self.data.write(at + shape.note_at(), name.note);
        self.data.write(at + shape.value_at(), bytes);
        self.set_shape(unit, shape);
        self.hold(&name.binding.hash, unit);
        Ok(unit)
    }

    /// A row that is written is held from now on.
    pub(super) fn hold(&mut self, hash: &Hash, unit: u32) {
        self.note_hash(hash, unit);
        self.queues.admit(unit, &Seen { data: &self.data, space: &self.space, seed: self.terms.seed });
    }

    /// Counts a row, beside those that have the same bytes if there are any. Further names share it if the one that they
    /// shared until now has no room.
    fn note_hash(&mut self, hash: &Hash, unit: u32) {
        self.rows_held += 1;
        let data = &self.data;
        let Some(one) = self.by_hash.find_mut(prefix(hash), |one| data.same(word_of(*one) + row::HASH, hash))
        else {
            let prefix_of = |unit: &u32| data.load(word_of(*unit) + row::HASH, Relaxed);
            self.by_hash.insert_unique(prefix(hash), unit, prefix_of);
            return;
        };
        self.twins.join(*one, unit);
        if self.aliases.get(one).is_some_and(|all| all.len() >= row::ALIASES_MAX) {
            *one = unit;
        }
    }

    /// A row that leads to the bytes held under the binding's hash; `None` if they had to go for it.
    fn alias(&mut self, name: &Name<'_>, evicted: &mut Vec<Evicted>) -> Result<Option<u32>, Refusal> {
        let unit = self.obtain(Need::Row(name.shape(0, true).bytes()), evicted)?;
        let Some(target) = self.row_with(&name.binding.hash) else {
            self.space.give_back(unit);
            return Ok(None);
        };
        let shape = name.shape(self.shape(target).value_len(), true);
        self.data.store(word_of(unit) + row::TARGET, u64::from(target), Relaxed);
        self.data.write(word_of(unit) + shape.key_at(), name.key);
        self.data.write(word_of(unit) + shape.note_at(), name.note);
        self.set_shape(unit, shape);
        self.aliases.entry(target).or_default().push(unit);
        self.aliases_held += 1;
        self.queues.admit(unit, &Seen { data: &self.data, space: &self.space, seed: self.terms.seed });
        Ok(Some(unit))
    }

    /// Links `key` to a row that is written, in one step with its binding.
    fn bind(&mut self, name: &Name<'_>, unit: u32) -> Result<(), Refusal> {
        let (key, binding) = (name.key, name.binding);
        let hash = self.hash(key);
        if let Some(place) = self.index.find(&self.header, &self.data, hash, key) {
            if place.unit == unit {
                Writer::change(&self.data, place, || self.stamp(unit, binding));
            } else {
                self.stamp(unit, binding);
                Writer::relink(&self.data, place, unit);
                self.unbound(place.unit);
            }
            self.stats.removed += 1;
        } else {
            self.stamp(unit, binding);
            let Self { header, data, index, space, spare_buckets, .. } = self;
            let mut room = Buckets { data: &*data, space, spare: spare_buckets };
            if !index.link(&*header, &*data, (hash, unit), &mut room) {
                self.unbound(unit);
                return Err(Refusal::Crowded);
            }
        }
        self.set_shape(unit, self.shape(unit).linked(true));
        self.stats.inserted += 1;
        // Whoever is told of this from now on, by whatever way, finds it.
        self.header.fence(SeqCst);
        Ok(())
    }

    /// Writes what a name is bound to into its row.
    pub(super) fn stamp(&self, unit: u32, binding: &Binding) {
        let (at, shape) = (word_of(unit), self.shape(unit));
        self.data.store(at + row::BIND_REV, binding.bind_rev, Relaxed);
        self.data.store(at + row::REGISTRATION, binding.registration, Relaxed);
        self.data.store(at + row::ERA, binding.era, Relaxed);
        if shape.expires() {
            let (until, expires_at) = binding.expiry.map_or((u64::MAX, 0), |e| (e.until, e.expires_at));
            self.data.store(at + shape.expiry_at(), until, Relaxed);
            self.data.store(at + shape.expiry_at() + 1, expires_at, Relaxed);
        }
    }

    /// Lets the index grow if it is due, and sees to it that buckets are in hand.
    fn grow_index(&mut self, evicted: &mut Vec<Evicted>) {
        while self.spare_buckets.len() < SPARE_BUCKETS {
            let Ok(unit) = self.obtain(Need::Bucket, evicted) else { return };
            self.spare_buckets.push(unit);
        }
        for _ in 0..SPLITS_MAX {
            if !self.index.is_full() || !self.has_chunk(evicted) {
                return;
            }
            let Self { header, data, index, space, spare_buckets, .. } = self;
            let mut room = Buckets { data: &*data, space, spare: spare_buckets };
            if !index.split(&*header, &*data, &mut room) {
                return;
            }
        }
    }

    /// Sees to it that the chunk of the next bucket is there.
    fn has_chunk(&mut self, evicted: &mut Vec<Evicted>) -> bool {
        let Some(entry) = self.index.missing_chunk(&self.header) else { return true };
        if entry >= header::DIRECTORY + self.terms.directory_words as usize {
            return false;
        }
        let Ok(unit) = self.obtain(Need::Chunk, evicted) else { return false };
        let first = word_of(unit);
        (first..first + bucket::CHUNK * bucket::WORDS).for_each(|word| self.data.store(word, 0, Relaxed));
        self.header.store(entry, (first / PAGE_WORDS) as u64, Release);
        true
    }
}
