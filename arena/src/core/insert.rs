//! How a name comes to be held: its bytes written, then its name linked to them.

use super::{Binding, Core, Evicted, Hash, OVERSIZE_PART, Refusal, SPARE_BUCKETS, Seen, prefix};
use crate::index::{Room, Writer, word_of};
use crate::layout::{KEY_BYTES_MAX, PAGE_WORDS, Shape, VALUE_BYTES_MAX, bucket, header, row};
use crate::memory::{Extend, Memory};
use crate::space::Space;
use std::sync::atomic::Ordering::{Relaxed, Release, SeqCst};

/// Buckets by which one insertion may let the index grow.
const SPLITS_MAX: usize = 2;

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
    /// Binds `key`, to `bytes` or to the same bytes held already, in place of what it was bound to.
    ///
    /// # Errors
    /// Why not; what the key was bound to before it is bound to still. What had to go for it meanwhile is gone.
    pub(crate) fn insert(
        &mut self,
        key: &[u8],
        binding: &Binding,
        bytes: &[u8],
        evicted: &mut Vec<Evicted>,
    ) -> Result<(), Refusal> {
        self.check(key.len(), bytes.len())?;
        if key.is_empty() {
            return Err(Refusal::Key);
        }
        self.grow_index(evicted);
        let known = self.row_with(&binding.hash);
        if known.is_some_and(|unit| self.shape(unit).value_len() as usize != bytes.len()) {
            return Err(Refusal::Mismatch);
        }
        let done = match known {
            Some(unit) if self.is_home(unit, key, binding) => Ok(Some(unit)),
            Some(_) => self.alias(key, binding, evicted),
            None => Ok(None),
        };
        // An alias that needed the place of its own target: the bytes come anew.
        let unit = match done? {
            Some(unit) => unit,
            None => self.write(key, binding, bytes, evicted)?,
        };
        let linked = self.bind(key, unit, binding);
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
        self.check(0, bytes.len())?;
        match self.row_with(hash) {
            Some(unit) if self.shape(unit).value_len() as usize == bytes.len() => Ok(()),
            Some(_) => Err(Refusal::Mismatch),
            None => {
                let none = Binding { hash: *hash, bind_rev: 0, registration: 0, era: 0, expiry: None };
                self.write(&[], &none, bytes, evicted)?;
                self.show();
                Ok(())
            }
        }
    }

    fn check(&self, key: usize, value: usize) -> Result<(), Refusal> {
        if key > KEY_BYTES_MAX {
            return Err(Refusal::Key);
        }
        let fits = value as u64 <= VALUE_BYTES_MAX
            && Shape::new(key, value as u32, false, true).bytes() <= self.terms.data_bytes / OVERSIZE_PART;
        if fits { Ok(()) } else { Err(Refusal::Oversize) }
    }

    /// Whether the row was written for this key, and can be its again.
    fn is_home(&self, unit: u32, key: &[u8], binding: &Binding) -> bool {
        let shape = self.shape(unit);
        shape.key_len() == key.len()
            && self.data.same(word_of(unit) + shape.key_at(), key)
            && (shape.expires() || binding.expiry.is_none())
    }

    /// A row for bytes that are not held.
    fn write(
        &mut self,
        key: &[u8],
        binding: &Binding,
        bytes: &[u8],
        evicted: &mut Vec<Evicted>,
    ) -> Result<u32, Refusal> {
        let shape = Shape::new(key.len(), bytes.len() as u32, false, binding.expiry.is_some());
        let unit = self.obtain(|space| space.take(shape.bytes()), shape.bytes(), evicted)?;
        let at = word_of(unit);
        self.data.write(at + row::HASH, &binding.hash);
        self.data.write(at + shape.key_at(), key);
        self.data.write(at + shape.value_at(), bytes);
        self.set_shape(unit, shape);
        let data = &self.data;
        self.by_hash.insert_unique(prefix(&binding.hash), unit, |unit| {
            data.load(word_of(*unit) + row::HASH, Relaxed)
        });
        self.queues.admit(unit, &Seen { data: &self.data, space: &self.space });
        Ok(unit)
    }

    /// A row that leads to the bytes held under the binding's hash; `None` if they had to go for it.
    fn alias(
        &mut self,
        key: &[u8],
        binding: &Binding,
        evicted: &mut Vec<Evicted>,
    ) -> Result<Option<u32>, Refusal> {
        let shape = Shape::new(key.len(), 0, true, binding.expiry.is_some());
        let unit = self.obtain(|space| space.take(shape.bytes()), shape.bytes(), evicted)?;
        let Some(target) = self.row_with(&binding.hash) else {
            self.space.give_back(unit);
            return Ok(None);
        };
        let shape = Shape::new(key.len(), self.shape(target).value_len(), true, binding.expiry.is_some());
        self.data.store(word_of(unit) + row::TARGET, u64::from(target), Relaxed);
        self.data.write(word_of(unit) + shape.key_at(), key);
        self.set_shape(unit, shape);
        self.aliases.entry(target).or_default().push(unit);
        Ok(Some(unit))
    }

    /// Links `key` to a row that is written, in one step with its binding.
    fn bind(&mut self, key: &[u8], unit: u32, binding: &Binding) -> Result<(), Refusal> {
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
            let Ok(unit) = self.obtain(Space::take_bucket, 64, evicted) else { return };
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
        let bytes = (bucket::CHUNK * bucket::WORDS * 8) as u64;
        let Ok(page) = self.obtain(Space::take_chunk, bytes, evicted) else { return false };
        let first = page as usize * PAGE_WORDS;
        (first..first + bucket::CHUNK * bucket::WORDS).for_each(|word| self.data.store(word, 0, Relaxed));
        self.header.store(entry, u64::from(page), Release);
        true
    }
}
