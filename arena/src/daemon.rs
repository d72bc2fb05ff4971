//! What the daemon does with an arena: make it, keep it, and let workers attach.

use crate::core::{
    Alive, Binding, Core, Evicted, Hash, Held, Hoarder, Listed, OVERSIZE_PART, Obstacle, Page, Stats, Terms,
};
use crate::error::{Error, Miss, Refusal};
use crate::files::{self, Segments, Writers};
use crate::layout::{DATA_BYTES_MAX, PAGE_BYTES, WORD, header, worker};
use crate::map::{Access, Mapped};
use crate::memory::Memory;
use crate::reader::Reader;
use crate::value::Value;
use rustix::fd::OwnedFd;
use rustix::rand::{GetRandomFlags, getrandom};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Least bytes of an arena.
const BUDGET_MIN: u64 = 1 << 20;
/// Values of more bytes are always pinned.
const COPY_MAX_MAX: u64 = 64 << 10;
/// Bytes of a worker's page.
pub(crate) const WORKER_BYTES: usize = (worker::WORDS * WORD).next_multiple_of(PAGE_BYTES);

/// How an arena is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// Bytes of all of it: header, index, values and what is lost between them. Never more is ever resident.
    pub budget: u64,
    /// Bytes of addresses that are added at a time; their memory is reserved as it is needed. The index has segments of its
    /// own, small ones at first.
    pub segment_bytes: u64,
    /// Values up to so many bytes are copied out by readers, larger ones are pinned.
    pub copy_max: u64,
    /// Bytes of values that one worker may have pinned; at least the largest value, which is a quarter of the data.
    pub pin_bytes_max: u64,
    /// Whether to ask for huge pages.
    pub huge_pages: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            budget: 256 << 20,
            // A descriptor for each is passed to each worker.
            segment_bytes: 64 << 20,
            // A pin costs 105 ns whatever the length, a copy of 512 bytes 116 and of 1 KiB 160; but pins are few (256 a
            // worker), and what cannot be pinned can be evicted without looking for pins.
            copy_max: 512,
            // A quarter of the default budget: four hoarders cannot stop the rest.
            pin_bytes_max: 64 << 20,
            huge_pages: true,
        }
    }
}

/// An arena, as the daemon has it.
#[derive(Debug)]
pub struct Arena {
    core: Core<Arc<Mapped>, Segments>,
    header: OwnedFd,
    workers_made: u64,
}

/// A worker, attached for as long as this lives: to be dropped when nothing of it can read any more, which is when its
/// process has ended, or has been seen to close its socket in good order.
#[derive(Debug)]
pub struct Worker(Arc<Page<Arc<Mapped>>>);

impl Worker {
    /// Its number.
    pub fn id(&self) -> u64 {
        self.0.id
    }
}

/// What a worker needs to map an arena. Sent over its socket.
#[derive(Debug)]
pub struct Descriptors {
    /// The header.
    pub header: OwnedFd,
    /// The worker's own page.
    pub page: OwnedFd,
    /// The segments, in their order, as far as there are any.
    pub segments: Vec<OwnedFd>,
}

/// Bytes of the arena that the daemon itself uses, in place.
pub struct Kept {
    at: usize,
    len: usize,
    mapped: Arc<Mapped>,
    alive: Alive,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the bytes of a row are written once, before it has a hash by which it can be kept, or by a draft, which
        // whoever has written it has no more; its place is not given
        // to another as long as `alive` lives. The daemon is the only one that can write to it.
        #[allow(unsafe_code)]
        let bytes = unsafe { self.mapped.slice(self.at, self.len) };
        bytes.unwrap_or_default()
    }
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kept({} B)", self.len)
    }
}

/// A place for a value, to be written without the arena. Given up when it is dropped.
#[derive(Debug)]
pub struct Draft {
    unit: u32,
    incarnation: [u64; 2],
    place: Kept,
}

/// A draft that is written.
#[derive(Debug)]
pub struct Filled(Draft);

impl Draft {
    /// Writes the value: as many bytes as it was made for, and zeros if there are fewer.
    pub fn fill(self, bytes: &[u8]) -> Filled {
        let Kept { at, len, mapped, .. } = &self.place;
        let (written, words) = (bytes.len().min(*len), len.div_ceil(WORD));
        mapped.write(*at, &bytes[..written]);
        (written.div_ceil(WORD)..words).for_each(|word| mapped.store(at + word, 0, Relaxed));
        Filled(self)
    }
}

impl Filled {
    /// The bytes that were written, in place: they stay as they are until what is given is dropped.
    pub fn bytes(&self) -> Kept {
        let Kept { at, len, mapped, alive } = &self.0.place;
        Kept { at: *at, len: *len, mapped: Arc::clone(mapped), alive: Arc::clone(alive) }
    }
}

impl Arena {
    /// Makes an empty arena, without a lease: nothing is served from it until [`Arena::set_valid_until`].
    ///
    /// # Errors
    /// `Config`; `Unsupported` where there is no such memory: the caller goes on without it; `System`.
    pub fn create(config: Config) -> Result<Self, Error> {
        let page = PAGE_BYTES as u64;
        let refused = |why| Error::Config { budget: config.budget, why };
        if config.budget < BUDGET_MIN {
            return Err(refused("1 MiB is the least"));
        }
        let directory_words = Terms::directory_words(config.budget);
        let header_bytes = (header::DIRECTORY as u64 + directory_words) * WORD as u64;
        let segment_bytes = config.segment_bytes.next_multiple_of(2 << 20).max(2 << 20);
        let of_segments = files::segments_max(config.budget, segment_bytes) * page;
        let data_bytes = config.budget.saturating_sub(header_bytes + of_segments) / page * page;
        if data_bytes > DATA_BYTES_MAX {
            return Err(refused("64 GiB is the most: use several namespaces"));
        }
        if config.pin_bytes_max < data_bytes / OVERSIZE_PART {
            return Err(refused("a worker must be able to pin the largest value, a quarter of it"));
        }
        if config.copy_max > COPY_MAX_MAX {
            return Err(refused("values of more than 64 KiB are not to be copied"));
        }
        let mut random = [0; 24];
        let filled = getrandom(&mut random, GetRandomFlags::empty());
        filled.map_err(|errno| Error::System { what: "getrandom", source: errno.into() })?;
        let ([first, second, seed], _) = random.as_chunks::<8>() else {
            return Err(refused("no randomness"));
        };
        let terms = Terms {
            incarnation: [u64::from_le_bytes(*first), u64::from_le_bytes(*second)],
            seed: u64::from_le_bytes(*seed),
            data_bytes,
            segment_bytes,
            copy_max: config.copy_max,
            directory_words,
            pin_bytes_max: config.pin_bytes_max,
        };
        Self::on(terms, config.huge_pages)
    }

    fn on(terms: Terms, huge: bool) -> Result<Self, Error> {
        let bytes = (header::DIRECTORY + terms.directory_words as usize) * WORD;
        let map = |file: rustix::fd::BorrowedFd<'_>| Mapped::whole(file, bytes, Access::Write);
        let (file, header) = files::create("dstore-header", bytes, Writers::Present, map)?;
        let (data_bytes, segment_bytes) = (terms.data_bytes as usize, terms.segment_bytes as usize);
        let data = Segments::new(terms.incarnation, data_bytes, segment_bytes, huge)?;
        Ok(Self { core: Core::begin(Arc::new(header), data, terms)?, header: file, workers_made: 0 })
    }

    /// The same, and nothing leaves but by [`Arena::expel`] and [`Arena::remove`]: an insertion that finds no room is
    /// `Full`. To be called before anything is inserted.
    #[must_use]
    pub fn without_eviction(mut self) -> Self {
        self.core.leave_eviction();
        self
    }

    /// Memory that was never used is used only until [`Arena::resident`] has come to so many bytes.
    pub fn limit(&mut self, bytes: u64) {
        self.core.limit(bytes);
    }

    /// Bytes of memory that it has.
    pub fn resident(&self) -> u64 {
        self.core.resident()
    }

    /// The bytes with this hash, in place: they stay as they are until what is given is dropped, even if they leave.
    pub fn keep(&mut self, hash: &Hash) -> Option<Kept> {
        let (at, len, alive) = self.core.keep(hash)?;
        Some(Kept { at, len, mapped: self.core.data.mapped(), alive })
    }

    /// A place for a value of so many bytes, which is written outside: whoever shares the arena is not kept waiting by the
    /// copying. It is not used otherwise, nor found by anybody, until it is adopted or dropped.
    ///
    /// # Errors
    /// Why there is none.
    pub fn draft(&mut self, len: usize) -> Result<Draft, Refusal> {
        let (unit, at, alive) = self.core.draft(len)?;
        let place = Kept { at, len, mapped: self.core.data.mapped(), alive };
        Ok(Draft { unit, incarnation: self.incarnation(), place })
    }

    /// Holds the bytes of a draft, which have `hash`, without a name. `false`: they are held already, or the draft is of
    /// another arena.
    pub fn adopt(&mut self, filled: &Filled, hash: &Hash) -> bool {
        filled.0.incarnation == self.incarnation() && self.core.adopt(filled.0.unit, hash)
    }

    /// Takes in what workers used.
    pub fn listen(&mut self) {
        self.core.listen();
    }

    /// How often workers asked for the value with this hash since this was asked last, as far as it is known: at most
    /// three. See [`Arena::listen`].
    pub fn take_uses(&mut self, hash: &Hash) -> u64 {
        self.core.take_uses(hash)
    }

    /// What has to go so that a value of `bytes`, with its key, fits in one piece, or first of all the index where that has
    /// no room left; `None`: in each piece something is read.
    pub fn obstacles(&mut self, bytes: u64) -> Option<Vec<Obstacle>> {
        self.core.obstacles(bytes)
    }

    /// Tells this start of the daemon from every other.
    pub fn incarnation(&self) -> [u64; 2] {
        self.core.terms.incarnation
    }

    /// Names are served before this moment of `CLOCK_BOOTTIME` only, in nanoseconds; 0: not at all.
    pub fn set_valid_until(&self, nanos: u64) {
        self.core.set_valid_until(nanos);
    }

    /// Names of an earlier era are not served any more. To be set before the `valid_until` of its first LEASE.
    pub fn set_era(&self, era: u64) {
        self.core.set_era(era);
    }

    /// Binds `key` to `bytes`, which have `binding.hash`, in place of what it was bound to; if those bytes are held
    /// already they are not written again. Names that had to go are added to `evicted`, also if this fails.
    ///
    /// # Errors
    /// Why it is not held. What the key was bound to before it is bound to still, unless it had to go.
    pub fn insert(
        &mut self,
        key: &[u8],
        binding: &Binding,
        bytes: &[u8],
        evicted: &mut Vec<Evicted>,
    ) -> Result<(), Refusal> {
        self.core.insert(key, (binding, &[]), bytes, evicted)
    }

    /// As [`Arena::insert`] where nobody may be kept waiting: `Oversize` if more than `written_max` bytes had to be written,
    /// since they are not held, or by a row that no further name can share.
    ///
    /// # Errors
    /// As [`Arena::insert`].
    pub fn insert_upto(
        &mut self,
        key: &[u8],
        binding: &Binding,
        (bytes, written_max): (&[u8], usize),
        evicted: &mut Vec<Evicted>,
    ) -> Result<(), Refusal> {
        self.core.insert_upto(key, (binding, &[]), (bytes, written_max), evicted)
    }

    /// As [`Arena::insert`], with a note that goes with the name: up to 255 bytes, of whatever meaning.
    ///
    /// # Errors
    /// As [`Arena::insert`]; `Note`.
    pub fn insert_noted(
        &mut self,
        key: &[u8],
        (binding, note): (&Binding, &[u8]),
        bytes: &[u8],
        evicted: &mut Vec<Evicted>,
    ) -> Result<(), Refusal> {
        self.core.insert(key, (binding, note), bytes, evicted)
    }

    /// Holds `bytes`, which have `hash`, without a name.
    ///
    /// # Errors
    /// Why they are not held.
    pub fn admit(&mut self, hash: &Hash, bytes: &[u8], evicted: &mut Vec<Evicted>) -> Result<(), Refusal> {
        self.core.admit(hash, bytes, evicted)
    }

    /// What the key is bound to, whatever the lease and the era.
    pub fn get(&self, key: &[u8]) -> Option<Held> {
        self.core.get(key)
    }

    /// The note of a name that is held.
    pub fn note(&self, key: &[u8]) -> Option<Box<[u8]>> {
        self.core.note(key)
    }

    /// The value with this hash, if it is held, as a reader of this arena has it.
    ///
    /// # Errors
    /// `PinBudget`; `Unmapped`: also of a reader of another arena.
    pub fn blob(&self, hash: &Hash, reader: &Reader) -> Result<Option<Value>, Miss> {
        self.core.unit_with(hash).map(|unit| self.value(unit, reader)).transpose()
    }

    /// Values held, from place `from` on, of about `bytes_max` bytes together, and the place to go on from; 0 behind the
    /// last. One that is held throughout a round is in it once. What cannot be pinned is left out.
    ///
    /// # Errors
    /// `Unmapped`: the reader is of another arena.
    pub fn sample(&self, from: u64, bytes_max: u64, reader: &Reader) -> Result<(Vec<Value>, u64), Miss> {
        let (rows, next) = self.core.sample(from, bytes_max);
        let values = rows.into_iter().map(|unit| self.value(unit, reader));
        let values = values.filter(|value| !matches!(value, Err(Miss::PinBudget { .. })));
        Ok((values.collect::<Result<_, _>>()?, next))
    }

    /// Nothing changes while this is borrowed, so what is pinned meanwhile is what was meant.
    fn value(&self, unit: u32, reader: &Reader) -> Result<Value, Miss> {
        if reader.incarnation() == self.incarnation() { reader.row(unit) } else { Err(Miss::Unmapped) }
    }

    /// Bytes of the value with this hash, if it is held.
    pub fn have(&self, hash: &Hash) -> Option<u64> {
        self.core.have(hash)
    }

    /// Removes a name; its bytes stay. When this returns no reader begins to find it any more: only then may an
    /// invalidation be acknowledged.
    pub fn remove(&mut self, key: &[u8]) -> Option<Held> {
        self.core.remove_if(key, |_| true)
    }

    /// As [`Arena::remove`], if the name is `doomed`.
    pub fn remove_if(&mut self, key: &[u8], doomed: impl FnOnce(&Held) -> bool) -> Option<Held> {
        self.core.remove_if(key, doomed)
    }

    /// Removes all names, and gives how many; their bytes stay. Takes time in proportion to their number.
    pub fn remove_all(&mut self) -> u64 {
        self.core.remove_all()
    }

    /// Makes a name servable in `era` under a new registration, if it still has the binding of `bind_rev`.
    pub fn renew(&mut self, key: &[u8], bind_rev: u64, registration: u64, era: u64) -> bool {
        self.core.renew(key, bind_rev, registration, era)
    }

    /// Lists the names in `buckets` buckets of the index from `from` on, and where to go on. A name held throughout is
    /// listed at least once.
    pub fn names(&self, from: u64, buckets: u64) -> (Vec<Listed>, Option<u64>) {
        self.core.names(from, buckets)
    }

    /// Lets the value leave whose turn it is, with its names. `false`: there is none that could.
    pub fn evict(&mut self, evicted: &mut Vec<Evicted>) -> bool {
        self.core.evict_next(evicted)
    }

    /// Lets at most `victims_max` values and names leave so that a value of `bytes` finds room; `true`: there is more to
    /// do. Whoever is about to insert a large value calls it again and again with pauses, so that the insertion itself
    /// has little to do.
    pub fn make_room(&mut self, bytes: u64, victims_max: usize, evicted: &mut Vec<Evicted>) -> bool {
        self.core.make_room(bytes, victims_max, evicted)
    }

    /// Bytes of the largest value that is held under a key of any length.
    pub fn value_bytes_max(&self) -> u64 {
        self.core.value_bytes_max()
    }

    /// Removes the value with this hash and every name that leads to it: its bytes are damaged, or not wanted any more.
    pub fn expel(&mut self, hash: &Hash, evicted: &mut Vec<Evicted>) -> bool {
        self.core.expel_hash(hash, evicted)
    }

    /// Takes in what readers used, frees what nobody reads any more, and tells which workers hold more than they may: they
    /// are to be told and cut off. To be called a few times a second.
    pub fn sweep(&mut self) -> Vec<Hoarder> {
        self.core.sweep()
    }

    /// Attaches a worker, and gives what it needs.
    ///
    /// # Errors
    /// `System`, `Unsupported`.
    pub fn attach(&mut self) -> Result<(Worker, Descriptors), Error> {
        let header = self.header.try_clone().map_err(|source| Error::System { what: "dup", source })?;
        let segments = self.segments_from(0)?;
        let (worker, page) = self.attached(false)?;
        Ok((worker, Descriptors { header, page, segments }))
    }

    /// Attaches a reader of the daemon's own process: it reads where the daemon writes, so nothing is mapped twice, and no
    /// segment is ever lacking. It may pin `pin_bytes_max` bytes, whatever other workers may. 256 values at a time, like
    /// every other: who needs more attaches several.
    ///
    /// # Errors
    /// `System`, `Unsupported`.
    pub fn attach_own(&mut self, pin_bytes_max: u64) -> Result<(Worker, Reader), Error> {
        let (worker, _) = self.attached(true)?;
        let terms = Terms { pin_bytes_max, ..self.core.terms };
        let reader = Reader::own(Arc::clone(&self.core.header), &self.core.data, &worker.0, terms)?;
        Ok((worker, reader))
    }

    fn attached(&mut self, is_own: bool) -> Result<(Worker, OwnedFd), Error> {
        let map = |file: rustix::fd::BorrowedFd<'_>| Mapped::whole(file, WORKER_BYTES, Access::Write);
        let (file, memory) = files::create("dstore-worker", WORKER_BYTES, Writers::All, map)?;
        self.workers_made += 1;
        let page = Arc::new(Page { id: self.workers_made, memory: Arc::new(memory) });
        self.core.attach(&page, is_own);
        Ok((Worker(page), file))
    }

    /// The descriptors of the segments from number `from` on: what a reader lacks that has mapped so many.
    ///
    /// # Errors
    /// `System`.
    pub fn segments_from(&self, from: usize) -> Result<Vec<OwnedFd>, Error> {
        self.core.data.files_from(from)
    }

    /// What it holds and did.
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }
}
