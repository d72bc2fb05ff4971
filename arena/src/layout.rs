//! Owns the layout of the shared memory: where each word lies, and what its bits mean. `docs/ARENA.md` draws it.
//!
//! Invariants: every word is 64 bits, little-endian, and only ever accessed whole and atomically. Whatever changes
//! here changes [`VERSION`]; readers of another version refuse the arena.
//! This file never touches memory.

/// The first word of a header.
pub const MAGIC: u64 = u64::from_le_bytes(*b"dstArena");
/// The first word of a worker's page.
pub const WORKER_MAGIC: u64 = u64::from_le_bytes(*b"dstWorkr");
/// Version of everything in this file.
pub const VERSION: u32 = 2;

/// Bytes of a word.
pub const WORD: usize = 8;
/// Words of a page of 4 KiB, in which space is handed out.
pub const PAGE_WORDS: usize = 512;
/// Bytes of such a page.
pub const PAGE_BYTES: usize = PAGE_WORDS * WORD;
/// Words of a unit, in which places are counted: 32 bits of them reach over 64 GiB.
pub const UNIT_WORDS: usize = 2;
/// Bytes of a unit.
pub const UNIT_BYTES: usize = UNIT_WORDS * WORD;
/// Most bytes of data that an arena can have.
pub const DATA_BYTES_MAX: u64 = (u32::MAX as u64 + 1) * UNIT_BYTES as u64;
/// Longest key.
pub const KEY_BYTES_MAX: usize = (1 << KEY_BITS) - 1;
/// Longest note that a name carries.
pub const NOTE_BYTES_MAX: usize = (1 << NOTE_BITS) - 1;
/// Longest value.
pub const VALUE_BYTES_MAX: u64 = u32::MAX as u64;

/// Words of the page behind a segment's data, in its file only: it tells where the data belongs.
pub mod segment {
    /// The first word of the page.
    pub const MAGIC_WORD: u64 = u64::from_le_bytes(*b"dstSegmt");
    /// [`MAGIC_WORD`].
    pub const MAGIC: usize = 0;
    /// [`super::VERSION`].
    pub const LAYOUT: usize = 1;
    /// The arena's incarnation: two words.
    pub const INCARNATION: usize = 2;
    /// Its number: segments before it were made before it.
    pub const NUMBER: usize = 4;
    /// Where in the data it begins.
    pub const FIRST_PAGE: usize = 5;
    /// Pages of data in it.
    pub const PAGES: usize = 6;
    /// Words that say something.
    pub const WORDS: usize = 7;
}

/// Words of the header, and of its directory of index chunks behind them.
pub mod header {
    /// [`super::MAGIC`].
    pub const MAGIC: usize = 0;
    /// [`super::VERSION`].
    pub const LAYOUT: usize = 1;
    /// Tells one start of the daemon from every other: two words.
    pub const INCARNATION: usize = 2;
    /// Seed of the keys' hashes.
    pub const SEED: usize = 4;
    /// Bytes of data when all segments are there.
    pub const DATA_BYTES: usize = 5;
    /// Bytes of each segment but the last.
    pub const SEGMENT_BYTES: usize = 6;
    /// Values up to so many bytes are copied out and never pinned.
    pub const COPY_MAX: usize = 7;
    /// Words of the directory.
    pub const DIRECTORY_WORDS: usize = 8;
    /// Bytes of values that one worker may have pinned.
    pub const PIN_BYTES_MAX: usize = 9;
    /// Names are served before this moment of `CLOCK_BOOTTIME` only, in nanoseconds. With the two words after it
    /// alone on its cache line: every hit reads them.
    pub const VALID_UNTIL: usize = 16;
    /// Names of this era or a later one only are served.
    pub const ERA: usize = 17;
    /// Buckets of the index.
    pub const BUCKETS: usize = 18;
    /// Segments that are there.
    pub const SEGMENTS: usize = 24;
    /// Counters, for whoever wants to look: names, rows, bytes in use, inserted, removed, evicted.
    pub const COUNTERS: usize = 32;
    /// Number of counters.
    pub const COUNTERS_LEN: usize = 6;
    /// The directory: for each chunk of the index the page where it begins, or 0.
    pub const DIRECTORY: usize = super::PAGE_WORDS;
}

/// The index: buckets of one cache line, in chunks.
pub mod bucket {
    /// Words of a bucket: one of state, seven slots.
    pub const WORDS: usize = 8;
    /// Slots of a bucket.
    pub const SLOTS: usize = WORDS - 1;
    /// Buckets of a chunk.
    pub const CHUNK: usize = 1024;
    /// Pages of a chunk.
    pub const CHUNK_PAGES: usize = CHUNK * WORDS / super::PAGE_WORDS;
    /// Buckets that an empty index has.
    pub const MIN: u64 = CHUNK as u64;
    /// Most buckets of one chain: bounds a lookup.
    pub const CHAIN_MAX: usize = 8;
    /// Added to the state for each half of a change: odd while the chain is being changed.
    pub const STEP: u64 = 1 << 32;

    /// Whether the chain with this state in its first bucket is being changed.
    pub const fn is_changing(state: u64) -> bool {
        state & STEP != 0
    }

    /// The unit of the next bucket of the chain, or 0.
    pub const fn next(state: u64) -> u32 {
        state as u32
    }

    /// What a slot holds for a name with that hash whose row is at `unit`.
    pub const fn slot(hash: u64, unit: u32) -> u64 {
        (hash << 32) | unit as u64
    }

    /// The row of a slot; 0 = the slot is free.
    pub const fn unit(slot: u64) -> u32 {
        slot as u32
    }

    /// The bits of the name's hash that a slot has; they also tell its bucket.
    pub const fn tag(slot: u64) -> u32 {
        (slot >> 32) as u32
    }

    /// The bucket of a hash among `buckets`: linear hashing (Litwin, VLDB 1980).
    pub const fn of(tag: u32, buckets: u64) -> u64 {
        let level = buckets.ilog2();
        let at = tag as u64 & ((2 << level) - 1);
        if at < buckets { at } else { at & ((1 << level) - 1) }
    }
}

/// Words of a row, from its start; the key follows, then the value.
pub mod row {
    /// Lengths, kind, and what the daemon notes of it: see [`super::Shape`].
    pub const SHAPE: usize = 0;
    /// Revision of the binding.
    pub const BIND_REV: usize = 1;
    /// The binding's registration at Global.
    pub const REGISTRATION: usize = 2;
    /// Era of the binding.
    pub const ERA: usize = 3;
    /// Of an alias: the row that has the bytes.
    pub const TARGET: usize = 4;
    /// Of a row with bytes: their BLAKE3 hash, four words.
    pub const HASH: usize = 4;
    /// Words before what follows, in a row with bytes.
    pub const HEAD: usize = 8;
    /// The same in an alias.
    pub const ALIAS_HEAD: usize = 5;
    /// Words behind the head of a name that expires: the moment, and Global's own number of it.
    pub const EXPIRY: usize = 2;
    /// Values from so many bytes on begin on a cache line.
    pub const ALIGNED_FROM: u32 = 4096;
    /// Values of more bytes are held once for several names; of shorter ones each name has a copy.
    pub const SHARED_ABOVE: u32 = 512;
    /// Aliases that a row may have: bounds what leaves at once.
    pub const ALIASES_MAX: usize = 255;
}

const KEY_BITS: u32 = 11;
const ALIAS: u64 = 1 << 43;
const EXPIRES: u64 = 1 << 44;
const USES_AT: u32 = 48;
const LINKED: u64 = 1 << 50;
const MAIN: u64 = 1 << 51;
const NOTE_AT: u32 = 52;
const NOTE_BITS: u32 = 8;
/// How often a row may pass by its turn without having been asked for again.
pub const USES_MAX: u64 = 3;

/// The first word of a row: bits 0..32 bytes of the value, 32..43 bytes of the key, 43 alias, 44 expires,
/// 48..50 uses, 50 linked, 51 main queue, 52..60 bytes of the name's note. Uses, linked and main queue are the daemon's
/// and change at any time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape(pub u64);

impl Shape {
    /// The shape of a row with bytes, or of an alias for one.
    pub fn new(key: usize, value: u32, alias: bool, expires: bool) -> Self {
        debug_assert!(key <= KEY_BYTES_MAX);
        let kind = (u64::from(alias) * ALIAS) | (u64::from(expires) * EXPIRES);
        Self(u64::from(value) | (key as u64) << 32 | kind)
    }

    /// The same with room for a note of so many bytes.
    #[must_use]
    pub fn noted(self, note: usize) -> Self {
        debug_assert!(note <= NOTE_BYTES_MAX);
        Self((self.0 & !((NOTE_BYTES_MAX as u64) << NOTE_AT)) | (note as u64) << NOTE_AT)
    }

    /// Bytes of the name's note.
    pub fn note_len(self) -> usize {
        (self.0 >> NOTE_AT) as usize & NOTE_BYTES_MAX
    }

    /// Bytes of the value.
    pub fn value_len(self) -> u32 {
        self.0 as u32
    }

    /// Bytes of the key.
    pub fn key_len(self) -> usize {
        (self.0 >> 32) as usize & KEY_BYTES_MAX
    }

    /// Whether the bytes are in another row.
    pub fn is_alias(self) -> bool {
        self.0 & ALIAS != 0
    }

    /// Whether there is room for an expiry.
    pub fn expires(self) -> bool {
        self.0 & EXPIRES != 0
    }

    /// Whether the row's own key is bound to it.
    pub fn is_linked(self) -> bool {
        self.0 & LINKED != 0
    }

    /// The same, linked or not.
    #[must_use]
    pub fn linked(self, linked: bool) -> Self {
        Self((self.0 & !LINKED) | (u64::from(linked) * LINKED))
    }

    /// Whether it stands in the main queue.
    pub fn is_main(self) -> bool {
        self.0 & MAIN != 0
    }

    /// The same in the queue of newcomers or in the main one.
    #[must_use]
    pub fn main(self, main: bool) -> Self {
        Self((self.0 & !MAIN) | (u64::from(main) * MAIN))
    }

    /// How often it was asked for since its last turn, up to [`USES_MAX`].
    pub fn uses(self) -> u64 {
        self.0 >> USES_AT & USES_MAX
    }

    /// The same with so many uses.
    #[must_use]
    pub fn used(self, uses: u64) -> Self {
        Self(self.0 & !(USES_MAX << USES_AT) | uses.min(USES_MAX) << USES_AT)
    }

    /// Words from the row's start to its key.
    pub fn key_at(self) -> usize {
        let head = if self.is_alias() { row::ALIAS_HEAD } else { row::HEAD };
        head + if self.expires() { row::EXPIRY } else { 0 }
    }

    /// Words from the row's start to its expiry, if there is room for one.
    pub fn expiry_at(self) -> usize {
        if self.is_alias() { row::ALIAS_HEAD } else { row::HEAD }
    }

    /// Words from the row's start to the name's note.
    pub fn note_at(self) -> usize {
        self.key_at() + self.key_len().div_ceil(WORD)
    }

    /// Words from the row's start to its value.
    pub fn value_at(self) -> usize {
        let behind = self.note_at() + self.note_len().div_ceil(WORD);
        if self.value_len() < row::ALIGNED_FROM { behind } else { behind.next_multiple_of(8) }
    }

    /// Bytes of the whole row.
    pub fn bytes(self) -> u64 {
        if self.is_alias() {
            return ((self.note_at() + self.note_len().div_ceil(WORD)) * WORD) as u64;
        }
        (self.value_at() * WORD) as u64 + u64::from(self.value_len()).next_multiple_of(WORD as u64)
    }
}

/// Words of a worker's page.
pub mod worker {
    /// [`super::WORKER_MAGIC`].
    pub const MAGIC: usize = 0;
    /// [`super::VERSION`].
    pub const LAYOUT: usize = 1;
    /// Its number at the daemon.
    pub const ID: usize = 2;
    /// Not 0: the daemon does not look at its pins any more. Only those that were there when it said so hold.
    pub const REVOKED: usize = 3;
    /// Pins: 0, or the row's unit in the lower half and the number of the pin in the upper one.
    pub const PINS: usize = 64;
    /// Number of pins.
    pub const PINS_LEN: usize = 256;
    /// How many touches each ring ever took: a cache line each.
    pub const HEADS: usize = 320;
    /// Words between two of them.
    pub const HEADS_STEP: usize = 8;
    /// Rings: threads are spread over them.
    pub const RINGS: usize = 8;
    /// The rings' entries: units of rows.
    pub const ENTRIES: usize = 512;
    /// Entries of each ring.
    pub const RING_LEN: usize = 512;
    /// Words of it all.
    pub const WORDS: usize = ENTRIES + RINGS * RING_LEN;
}

/// The hash of a key.
pub fn hash(key: &[u8], seed: u64) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(key, seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tag_has_a_bucket_and_keeps_it_or_moves_to_the_new_one() {
        for buckets in 1024..5000 {
            for tag in (0..u32::MAX).step_by(9_999_991) {
                let (before, after) = (bucket::of(tag, buckets), bucket::of(tag, buckets + 1));
                assert!(before < buckets);
                let split = buckets - (1 << buckets.ilog2());
                assert!(after == before || (before == split && after == buckets));
            }
        }
    }

    #[test]
    fn a_shape_gives_back_what_it_was_made_of() {
        for (key, value, alias, expires) in [
            (1, 0, false, false),
            (2047, u32::MAX, false, true),
            (16, 100, true, false),
            (1024, 7, true, true),
        ] {
            let shape = Shape::new(key, value, alias, expires).used(3).linked(true).main(true);
            assert_eq!((shape.key_len(), shape.value_len()), (key, value));
            assert_eq!((shape.is_alias(), shape.expires()), (alias, expires));
            assert_eq!((shape.uses(), shape.is_linked(), shape.is_main()), (3, true, true));
            let noted = shape.noted(255);
            assert_eq!((noted.note_len(), noted.noted(0)), (255, shape));
            assert_eq!(noted.value_at(), Shape::new(key, value, alias, expires).noted(249).value_at());
            let back = shape.used(0).linked(false).main(false);
            assert_eq!(back, Shape::new(key, value, alias, expires));
        }
    }

    #[test]
    fn large_values_begin_on_a_cache_line() {
        for key in 1..100 {
            assert_eq!(Shape::new(key, row::ALIGNED_FROM, false, false).value_at() % 8, 0);
        }
        assert_eq!(Shape::new(16, 100, false, false).bytes(), 64 + 16 + 104);
    }
}
