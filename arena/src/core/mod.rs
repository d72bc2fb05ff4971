//! Owns the daemon's side of an arena: what is in it, and the order in which it changes.
//!
//! ```text
//! insert   room (evict) -> row written -> name linked: from here on readers find it
//! remove   name unlinked -> fence: from here on no reader begins to find it -> the caller acknowledges
//! evict    names unlinked -> fence -> pinned? wait in limbo : place used again
//! ```
//! Invariants: every row and every alias but those in limbo is in exactly one queue, unless somebody else decides what
//! leaves. Of each hash one row is under it, from which all others are found; a row has at most one name of its own and
//! 255 aliases, which are unlinked before it leaves. What is read by others is written before the
//! link that leads there, and written over only after the link is gone. All of it is one writer's: `&mut self`.
//! It must never believe what a worker wrote.

mod evict;
mod insert;
mod kept;
mod look;
mod names;
mod room;
mod terms;
mod twins;
mod workers;

#[cfg(all(test, not(miri)))]
mod golden_tests;
#[cfg(test)]
mod room_tests;
#[cfg(test)]
mod tests;

use crate::error::{Error, Refusal};
use crate::eviction::{Eviction, Rows};
use crate::index::{self, word_of};
use crate::layout::{self, PAGE_WORDS, Shape, header, row};
use crate::memory::{Extend, Memory};
use crate::space::{Need, Space};
use hashbrown::HashTable;
pub(crate) use kept::Alive;
pub use kept::Obstacle;
use std::collections::HashMap;
use std::sync::Weak;
use std::sync::atomic::Ordering::{Relaxed, Release, SeqCst};
pub(crate) use terms::Terms;
pub use workers::Hoarder;
pub(crate) use workers::Page;

/// A value may take one part in this many of the budget.
pub(crate) const OVERSIZE_PART: u64 = 4;
/// Buckets kept in hand, so that a name never waits for space in the index.
const SPARE_BUCKETS: usize = 16;

/// A BLAKE3 hash.
pub type Hash = [u8; 32];

/// What a name is bound to, apart from the bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Binding {
    /// Hash of the bytes.
    pub hash: Hash,
    /// Revision of the binding.
    pub bind_rev: u64,
    /// Its registration at Global.
    pub registration: u64,
    /// It is served in this era and in earlier ones.
    pub era: u64,
    /// If it expires.
    pub expiry: Option<Expiry>,
}

/// When a name's time is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expiry {
    /// By this machine's `CLOCK_BOOTTIME`, in nanoseconds: not served from then on.
    pub until: u64,
    /// As Global has it.
    pub expires_at: u64,
}

/// A name that is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    /// What it is bound to.
    pub binding: Binding,
    /// Bytes of its value.
    pub size: u64,
}

/// A name that had to go for want of room: Global is to be told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Evicted {
    /// Its key.
    pub key: Box<[u8]>,
    /// The registration that it had.
    pub registration: u64,
}

/// A name in a listing: its key, and what it is bound to.
pub type Listed = (Box<[u8]>, Held);

/// What an arena holds and did.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Stats {
    /// Names held.
    pub names: u64,
    /// Rows with bytes held, whether a name leads to them or not: short bytes may be in several.
    pub rows: u64,
    /// Names of these whose bytes are in another name's row.
    pub aliases: u64,
    /// Bytes of data in use, the index and what is lost at the ends of places included; `<= bytes_max`.
    pub bytes: u64,
    /// Bytes of memory that the arena has, all of it reserved; `<= bytes_max`.
    pub resident: u64,
    /// The budget.
    pub bytes_max: u64,
    /// Bytes that the daemon keeps for itself beside the arena.
    pub private: u64,
    /// Names that came to be held.
    pub inserted: u64,
    /// Names that were removed or bound anew.
    pub removed: u64,
    /// Names that went for want of room.
    pub evicted: u64,
    /// Rows that nobody finds any more and that a worker still reads.
    pub limbo: u64,
    /// Workers attached.
    pub workers: u64,
}

/// The daemon's side, on any memory.
#[derive(Debug)]
pub(crate) struct Core<M, D> {
    pub header: M,
    pub data: D,
    pub terms: Terms,
    index: index::Writer,
    space: Space,
    spare_buckets: Vec<u32>,
    queues: Eviction,
    /// One row of each hash that there is.
    by_hash: HashTable<u32>,
    /// Of rows that have any: the aliases that lead to them.
    aliases: HashMap<u32, Vec<u32>>,
    /// All of these.
    aliases_held: usize,
    /// All rows with bytes, but for those in limbo.
    rows_held: usize,
    /// Of rows whose bytes others have too: which.
    twins: twins::Twins,
    /// Rows whose bytes the daemon itself keeps, for as long as what was given for them lives.
    kept: HashMap<u32, Weak<()>>,
    /// Words of data that there may be.
    words_max: usize,
    /// There was no memory to be had; until the next sweep it is not asked for again.
    is_out_of_memory: bool,
    limbo: Vec<u32>,
    workers: workers::Workers<M>,
    stats: Stats,
}

impl<M: Memory, D: Extend> Core<M, D> {
    /// Begins an arena in memory that is all zeros.
    pub(crate) fn begin(header: M, data: D, terms: Terms) -> Result<Self, Error> {
        terms.write(&header);
        let why = "it has no room for an index";
        let too_small = Error::Config { budget: terms.data_bytes, why };
        let mut space = Space::new(terms.pages());
        let Some(left) = space.fresh_without(Need::Chunk) else { return Err(too_small) };
        data.extend(PAGE_WORDS, left.end as usize * PAGE_WORDS, usize::MAX / layout::WORD)?;
        header.store(header::SEGMENTS, data.segments(), Release);
        space.break_in(left);
        let Some(chunk) = space.take(Need::Chunk) else { return Err(too_small) };
        let index = index::Writer::begin(&header, (word_of(chunk) / PAGE_WORDS) as u32);
        let stats = Stats { bytes_max: terms.beside() + terms.data_bytes, ..Stats::default() };
        let (queues, by_hash, spare_buckets) = (Eviction::default(), HashTable::new(), Vec::new());
        let (aliases, limbo, workers) = (HashMap::new(), Vec::new(), workers::Workers::default());
        Ok(Self {
            header,
            data,
            terms,
            index,
            space,
            spare_buckets,
            queues,
            by_hash,
            aliases,
            aliases_held: 0,
            rows_held: 0,
            twins: twins::Twins::default(),
            kept: HashMap::new(),
            words_max: usize::MAX / layout::WORD,
            is_out_of_memory: false,
            limbo,
            workers,
            stats,
        })
    }

    /// Names are served before this moment only. Only an epoch's LEASE raises it; 0 ends the lease.
    pub(crate) fn set_valid_until(&self, nanos: u64) {
        self.header.store(header::VALID_UNTIL, nanos, Release);
        self.header.fence(SeqCst);
    }

    /// Names of an earlier era are not served from now on. To be set before the `valid_until` of its first LEASE.
    pub(crate) fn set_era(&self, era: u64) {
        self.header.store(header::ERA, era, Release);
        self.header.fence(SeqCst);
    }

    /// What it holds and did.
    pub(crate) fn stats(&self) -> Stats {
        let by_hash = self.by_hash.allocation_size() as u64;
        // An entry for each row that has aliases, and a number for each alias.
        let aliases =
            (self.aliases.capacity() * 40 + self.aliases_held * 8) as u64 + self.twins.private_bytes();
        Stats {
            names: self.index.names(),
            rows: self.rows_held as u64,
            aliases: self.aliases_held as u64,
            bytes: self.space.bytes() + self.terms.beside(),
            resident: self.resident(),
            private: by_hash + aliases + self.space.private_bytes() + self.queues.private_bytes(),
            limbo: self.limbo.len() as u64,
            workers: self.workers.len() as u64,
            ..self.stats
        }
    }

    /// Bytes of memory that it has.
    pub(crate) fn resident(&self) -> u64 {
        (self.data.reserved() * layout::WORD) as u64 + self.terms.beside()
    }

    /// Shows the counters to whoever looks.
    fn show(&self) {
        let stats = self.stats();
        let counters = [stats.names, stats.rows, stats.bytes, stats.inserted, stats.removed, stats.evicted];
        for (i, counter) in counters.into_iter().enumerate() {
            self.header.store(header::COUNTERS + i, counter, Relaxed);
        }
    }

    fn hash(&self, key: &[u8]) -> u64 {
        layout::hash(key, self.terms.seed)
    }

    fn shape(&self, unit: u32) -> Shape {
        Shape(self.data.load(word_of(unit) + row::SHAPE, Relaxed))
    }

    fn set_shape(&self, unit: u32, shape: Shape) {
        self.data.store(word_of(unit) + row::SHAPE, shape.0, Relaxed);
    }

    fn hash_of(&self, unit: u32) -> Hash {
        let mut hash = [0; 32];
        self.data.read(word_of(unit) + row::HASH, &mut hash);
        hash
    }

    fn key_of(&self, unit: u32) -> Box<[u8]> {
        let shape = self.shape(unit);
        let mut key = vec![0; shape.key_len()].into_boxed_slice();
        self.data.read(word_of(unit) + shape.key_at(), &mut key);
        key
    }

    #[cfg(test)]
    fn seen(&self) -> Seen<'_, D> {
        Seen { data: &self.data, space: &self.space, seed: self.terms.seed }
    }

    /// The row that has the bytes of a row or alias.
    fn target(&self, unit: u32) -> u32 {
        if self.shape(unit).is_alias() {
            self.data.load(word_of(unit) + row::TARGET, Relaxed) as u32
        } else {
            unit
        }
    }

    /// The row that holds the bytes with this hash.
    fn row_with(&self, hash: &Hash) -> Option<u32> {
        let same = |unit: &u32| self.data.same(word_of(*unit) + row::HASH, hash);
        self.by_hash.find(prefix(hash), same).copied()
    }

    /// What the name that leads to `unit` is bound to.
    fn held(&self, unit: u32) -> Held {
        let (shape, at) = (self.shape(unit), word_of(unit));
        let word = |offset| self.data.load(at + offset, Relaxed);
        let expiry = shape
            .expires()
            .then(|| Expiry { until: word(shape.expiry_at()), expires_at: word(shape.expiry_at() + 1) });
        let binding = Binding {
            hash: self.hash_of(self.target(unit)),
            bind_rev: word(row::BIND_REV),
            registration: word(row::REGISTRATION),
            era: word(row::ERA),
            // A name that does not expire may be in a row with room for it.
            expiry: expiry.filter(|expiry| expiry.until != u64::MAX),
        };
        Held { binding, size: u64::from(shape.value_len()) }
    }
}

/// The bits of a hash by which a table has it.
fn prefix(hash: &Hash) -> u64 {
    let (first, _) = hash.split_first_chunk().expect("a hash has 32 bytes");
    u64::from_le_bytes(*first)
}

/// The rows as the queues see them.
struct Seen<'a, D> {
    data: &'a D,
    space: &'a Space,
    seed: u64,
}

impl<D: Memory> Seen<'_, D> {
    fn shape(&self, unit: u32) -> Shape {
        Shape(self.data.load(word_of(unit) + row::SHAPE, Relaxed))
    }
}

impl<D: Memory> Rows for Seen<'_, D> {
    fn charge(&self, unit: u32) -> u64 {
        self.space.charge(self.shape(unit).bytes())
    }

    fn fingerprint(&self, unit: u32) -> u32 {
        let shape = self.shape(unit);
        if shape.is_alias() {
            let mut key = vec![0; shape.key_len()];
            self.data.read(word_of(unit) + shape.key_at(), &mut key);
            return layout::hash(&key, self.seed) as u32;
        }
        self.data.load(word_of(unit) + row::HASH, Relaxed) as u32
    }

    fn uses(&self, unit: u32) -> u64 {
        self.shape(unit).uses()
    }

    fn note(&self, unit: u32, uses: u64, main: bool) {
        let shape = self.shape(unit).used(uses).main(main);
        self.data.store(word_of(unit) + row::SHAPE, shape.0, Relaxed);
    }

    fn is_main(&self, unit: u32) -> bool {
        self.shape(unit).is_main()
    }
}
