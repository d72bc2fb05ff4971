//! Owns which pages and places of the data are in use: runs of pages for what is large, slabs of equal places for what
//! is small.
//!
//! ```text
//! data: | page 0: none | run ... | slab of 64 KiB: place place place ... | run ... | free run | never used ...
//! ```
//! Invariants: runs in use, free runs and pages never used cover the data and do not overlap; two free runs are never
//! neighbours; a place is free or handed out once. Classes are an eighth of a power of two apart, so that at most an
//! eighth of a place is lost. Pages never used before are touched only when nothing else fits.
//! It must never touch the data: it is arithmetic.

use crate::layout::{PAGE_BYTES, PAGE_WORDS, UNIT_BYTES, UNIT_WORDS, bucket};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Smallest place.
const PLACE_MIN: usize = 32;
/// Units of a page.
const PAGE_UNITS: u32 = (PAGE_WORDS / UNIT_WORDS) as u32;
const FREE: u32 = 0;
const INSIDE: u32 = 1;
const RUN: u32 = 2;
const CHUNK: u32 = 3;
const SLAB: u32 = 4;

/// Sizes of places: steps of 16 bytes at first, of an eighth of a power of two later.
#[derive(Debug)]
struct Classes(Vec<usize>);

impl Classes {
    fn up_to(largest: usize) -> Self {
        let mut sizes = vec![PLACE_MIN];
        while let Some(last) = sizes.last().filter(|last| **last < largest) {
            let step = ((1 << last.ilog2()) / 8).max(UNIT_BYTES);
            sizes.push((last + step).min(largest));
        }
        Self(sizes)
    }

    fn of(&self, bytes: usize) -> Option<usize> {
        let class = self.0.partition_point(|size| *size < bytes);
        (class < self.0.len()).then_some(class)
    }
}

/// Equal places in a run of pages.
#[derive(Debug)]
struct Slab {
    page: u32,
    class: usize,
    /// One bit a place: in use.
    used: Box<[u64]>,
    places: u32,
    live: u32,
}

/// A run, a slab, or pages that are free.
struct Block {
    pages: u32,
    /// Bytes in use; `None`: it cannot go.
    cost: Option<u64>,
    rows: Vec<u32>,
}

/// What lies at a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A row, or an alias.
    Row,
    /// A bucket of a chain, or a chunk of the index.
    Index,
    /// Nothing begins there.
    None,
}

/// The space of an arena.
#[derive(Debug)]
pub(crate) struct Space {
    /// What each page is, as far as pages were ever used.
    pages: Vec<u32>,
    pages_max: u32,
    /// Pages never used before are not used beyond this many.
    pages_limit: u32,
    /// Lengths of runs in use.
    runs: HashMap<u32, u32>,
    free: BTreeMap<u32, u32>,
    free_by_len: BTreeSet<(u32, u32)>,
    slabs: Vec<Option<Slab>>,
    slab_numbers: Vec<u32>,
    slab_pages: u32,
    classes: Classes,
    /// Of each class the slabs with free places; the last class is the index's buckets.
    open: Vec<BTreeSet<(u32, u32)>>,
    bytes: u64,
}

impl Space {
    /// The space of so many pages, all free but the first.
    pub(crate) fn new(pages_max: u32) -> Self {
        let slab_pages = (pages_max / 64).clamp(4, 16);
        let classes = Classes::up_to(slab_pages as usize * PAGE_BYTES / 8);
        let open = vec![BTreeSet::new(); classes.0.len() + 1];
        Self {
            pages: vec![INSIDE],
            pages_max,
            pages_limit: pages_max,
            runs: HashMap::new(),
            free: BTreeMap::new(),
            free_by_len: BTreeSet::new(),
            slabs: Vec::new(),
            slab_numbers: Vec::new(),
            slab_pages,
            classes,
            open,
            bytes: PAGE_BYTES as u64,
        }
    }

    /// Bytes handed out, with what is lost at their ends.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Pages that were ever used, each of which may be resident.
    pub(crate) fn pages_used(&self) -> u32 {
        self.pages.len() as u32
    }

    /// Pages never used before are used up to so many only, until this is called again.
    pub(crate) fn limit(&mut self, pages: u32) {
        self.pages_limit = pages;
    }

    /// What a row of so many bytes takes.
    pub(crate) fn charge(&self, bytes: u64) -> u64 {
        let class = usize::try_from(bytes).ok().and_then(|bytes| self.classes.of(bytes));
        class.map_or_else(|| bytes.next_multiple_of(PAGE_BYTES as u64), |class| self.classes.0[class] as u64)
    }

    /// Space for `bytes`; `None`: there is none in one piece.
    pub(crate) fn take(&mut self, bytes: u64) -> Option<u32> {
        let class = usize::try_from(bytes).ok().and_then(|bytes| self.classes.of(bytes));
        let unit = if let Some(class) = class {
            self.take_place(class)?
        } else {
            let pages = u32::try_from(bytes.div_ceil(PAGE_BYTES as u64)).ok()?;
            self.take_run(pages, RUN)? * PAGE_UNITS
        };
        self.bytes += self.charge(bytes);
        Some(unit)
    }

    /// Space for a bucket.
    pub(crate) fn take_bucket(&mut self) -> Option<u32> {
        let unit = self.take_place(self.classes.0.len())?;
        self.bytes += (bucket::WORDS * 8) as u64;
        Some(unit)
    }

    /// The first page of space for a chunk of the index.
    pub(crate) fn take_chunk(&mut self) -> Option<u32> {
        let page = self.take_run(bucket::CHUNK_PAGES as u32, CHUNK)?;
        self.bytes += (bucket::CHUNK_PAGES * PAGE_BYTES) as u64;
        Some(page)
    }

    /// What begins at `unit`, whatever number that is.
    pub(crate) fn kind(&self, unit: u32) -> Kind {
        match self.pages.get((unit / PAGE_UNITS) as usize).copied() {
            Some(RUN) if unit.is_multiple_of(PAGE_UNITS) => Kind::Row,
            Some(CHUNK) if unit.is_multiple_of(PAGE_UNITS) => Kind::Index,
            Some(slab) if slab >= SLAB => match self.place(slab - SLAB, unit) {
                Some((_, class)) if class == self.classes.0.len() => Kind::Index,
                Some(_) => Kind::Row,
                None => Kind::None,
            },
            _ => Kind::None,
        }
    }

    /// The number and class of the place in use that begins at `unit`.
    fn place(&self, number: u32, unit: u32) -> Option<(u32, usize)> {
        let slab = self.slabs.get(number as usize)?.as_ref()?;
        let (offset, size) = (unit - slab.page * PAGE_UNITS, self.size(slab.class) / UNIT_BYTES as u32);
        let place = offset / size;
        let starts = offset.is_multiple_of(size) && place < slab.places;
        (starts && slab.used[place as usize / 64] >> (place % 64) & 1 == 1).then_some((place, slab.class))
    }

    /// Gives back what begins at `unit`. Nothing happens if nothing does.
    pub(crate) fn give_back(&mut self, unit: u32) {
        let page = unit / PAGE_UNITS;
        match self.pages.get(page as usize).copied() {
            Some(RUN | CHUNK) if unit.is_multiple_of(PAGE_UNITS) => {
                let pages = self.runs.remove(&page).expect("a run in use has a length");
                self.bytes -= u64::from(pages) * PAGE_BYTES as u64;
                self.free_run(page, pages);
            }
            Some(slab) if slab >= SLAB => {
                if let Some((place, class)) = self.place(slab - SLAB, unit) {
                    self.bytes -= u64::from(self.size(class));
                    self.free_place(slab - SLAB, place);
                }
            }
            _ => debug_assert!(false, "nothing begins at unit {unit}"),
        }
    }

    /// The pages, from and to, in which a row of `bytes` would fit if everything in them went, and in which the least
    /// would have to go. Nothing of the index goes, nor what is `held`. Looks at all pages.
    pub(crate) fn cheapest(&self, bytes: u64, held: impl Fn(u32) -> bool) -> Option<(u32, u32)> {
        let need = match usize::try_from(bytes).ok().and_then(|bytes| self.classes.of(bytes)) {
            Some(_) => self.slab_pages,
            None => u32::try_from(bytes.div_ceil(PAGE_BYTES as u64)).ok()?,
        };
        let mut best: Option<(u64, u32, u32)> = None;
        // Blocks in a row that can go: first page, pages, bytes in use.
        let mut window: std::collections::VecDeque<(u32, u32, u64)> = std::collections::VecDeque::new();
        let (mut pages, mut cost, mut at) = (0, 0, 1);
        while at < self.pages_max {
            let block = self.block(at, &held);
            at += block.pages;
            let Some(bytes) = block.cost else {
                window.clear();
                (pages, cost) = (0, 0);
                continue;
            };
            window.push_back((at - block.pages, block.pages, bytes));
            (pages, cost) = (pages + block.pages, cost + bytes);
            while let Some((first, len, bytes)) = window.front().copied().filter(|_| pages >= need) {
                if best.is_none_or(|(least, ..)| cost < least) {
                    best = Some((cost, first, at));
                }
                window.pop_front();
                (pages, cost) = (pages - len, cost - bytes);
            }
        }
        best.map(|(_, from, to)| (from, to))
    }

    /// The rows that begin in pages `from` to `to`.
    pub(crate) fn rows_in(&self, from: u32, to: u32) -> Vec<u32> {
        let (mut rows, mut at) = (Vec::new(), from);
        while at < to {
            let block = self.block(at, &|_| false);
            rows.extend(block.rows);
            at += block.pages;
        }
        rows
    }

    /// What begins at `page`, where something does.
    fn block(&self, page: u32, held: &impl Fn(u32) -> bool) -> Block {
        let Some(code) = self.pages.get(page as usize).copied() else {
            return Block { pages: self.pages_max - page, cost: Some(0), rows: Vec::new() };
        };
        match code {
            FREE => {
                Block { pages: self.free.get(&page).copied().unwrap_or(1), cost: Some(0), rows: Vec::new() }
            }
            INSIDE | RUN | CHUNK => {
                let pages = self.runs.get(&page).copied().unwrap_or(1);
                let movable = code == RUN && !held(page * PAGE_UNITS);
                let cost = movable.then_some(u64::from(pages) * PAGE_BYTES as u64);
                Block { pages, cost, rows: if code == RUN { vec![page * PAGE_UNITS] } else { Vec::new() } }
            }
            slab => self.slab_block(slab - SLAB, held),
        }
    }

    fn slab_block(&self, number: u32, held: &impl Fn(u32) -> bool) -> Block {
        let pages = self.slab_pages;
        let Some(slab) = self.slabs.get(number as usize).and_then(Option::as_ref) else {
            return Block { pages: 1, cost: None, rows: Vec::new() };
        };
        if slab.class == self.classes.0.len() {
            return Block { pages, cost: None, rows: Vec::new() };
        }
        let size = self.size(slab.class) / UNIT_BYTES as u32;
        let used = |place: &u32| slab.used[*place as usize / 64] >> (place % 64) & 1 == 1;
        let unit = |place| slab.page * PAGE_UNITS + place * size;
        let rows: Vec<u32> = (0..slab.places).filter(used).map(unit).collect();
        let cost = u64::from(slab.live) * u64::from(self.size(slab.class));
        Block { pages, cost: (!rows.iter().any(|unit| held(*unit))).then_some(cost), rows }
    }

    fn size(&self, class: usize) -> u32 {
        self.classes.0.get(class).map_or((bucket::WORDS * 8) as u32, |size| *size as u32)
    }

    fn take_place(&mut self, class: usize) -> Option<u32> {
        if self.open[class].is_empty() {
            self.new_slab(class)?;
        }
        let (_, number) = *self.open[class].first()?;
        let size = self.size(class) / UNIT_BYTES as u32;
        let slab = self.slabs[number as usize].as_mut().expect("an open slab is there");
        let word =
            slab.used.iter().position(|word| *word != u64::MAX).expect("an open slab has a free place");
        let bit = (!slab.used[word]).trailing_zeros();
        slab.used[word] |= 1 << bit;
        slab.live += 1;
        let unit = slab.page * PAGE_UNITS + (word as u32 * 64 + bit) * size;
        if slab.live == slab.places {
            let page = slab.page;
            self.open[class].remove(&(page, number));
        }
        Some(unit)
    }

    fn new_slab(&mut self, class: usize) -> Option<()> {
        let page = self.take_run(self.slab_pages, RUN)?;
        self.runs.remove(&page);
        let places = self.slab_pages * PAGE_BYTES as u32 / self.size(class);
        let mut used = vec![0; (places as usize).div_ceil(64)].into_boxed_slice();
        // Bits behind the last place count as used.
        if !places.is_multiple_of(64) {
            used[places as usize / 64] = u64::MAX << (places % 64);
        }
        let slab = Slab { page, class, used, places, live: 0 };
        let number = self.slab_numbers.pop().unwrap_or(self.slabs.len() as u32);
        if number as usize == self.slabs.len() {
            self.slabs.push(Some(slab));
        } else {
            self.slabs[number as usize] = Some(slab);
        }
        for one in page..page + self.slab_pages {
            self.pages[one as usize] = SLAB + number;
        }
        self.open[class].insert((page, number));
        Some(())
    }

    fn free_place(&mut self, number: u32, place: u32) {
        let slab = self.slabs[number as usize].as_mut().expect("a place in use is in a slab");
        slab.used[place as usize / 64] &= !(1 << (place % 64));
        slab.live -= 1;
        let (page, class, live) = (slab.page, slab.class, slab.live);
        if live > 0 {
            self.open[class].insert((page, number));
            return;
        }
        self.open[class].remove(&(page, number));
        self.slabs[number as usize] = None;
        self.slab_numbers.push(number);
        self.free_run(page, self.slab_pages);
    }

    fn take_run(&mut self, pages: u32, code: u32) -> Option<u32> {
        let best = self.free_by_len.range((pages, 0)..).next().copied();
        let page = if let Some((len, page)) = best {
            self.forget_free(page, len);
            if len > pages {
                self.note_free(page + pages, len - pages);
            }
            page
        } else {
            self.take_fresh(pages)?
        };
        for one in page..page + pages {
            self.pages[one as usize] = INSIDE;
        }
        self.pages[page as usize] = code;
        self.runs.insert(page, pages);
        Some(page)
    }

    /// Pages never used before, behind a free run if the last one is.
    fn take_fresh(&mut self, pages: u32) -> Option<u32> {
        let end = self.pages.len() as u32;
        let last = self.free.last_key_value().map(|(page, len)| (*page, *len));
        let joined = last.filter(|(page, len)| page + len == end);
        let page = joined.map_or(end, |(page, _)| page);
        if pages > self.pages_max.min(self.pages_limit).saturating_sub(page) {
            return None;
        }
        if let Some((page, len)) = joined {
            self.forget_free(page, len);
        }
        self.pages.resize((page + pages) as usize, FREE);
        Some(page)
    }

    fn free_run(&mut self, mut page: u32, mut pages: u32) {
        for one in page..page + pages {
            self.pages[one as usize] = FREE;
        }
        if let Some((before, len)) = self.free.range(..page).next_back().map(|(p, l)| (*p, *l))
            && before + len == page
        {
            self.forget_free(before, len);
            (page, pages) = (before, pages + len);
        }
        if let Some(len) = self.free.get(&(page + pages)).copied() {
            self.forget_free(page + pages, len);
            pages += len;
        }
        self.note_free(page, pages);
    }

    fn note_free(&mut self, page: u32, pages: u32) {
        self.free.insert(page, pages);
        self.free_by_len.insert((pages, page));
    }

    fn forget_free(&mut self, page: u32, pages: u32) {
        self.free.remove(&page);
        self.free_by_len.remove(&(pages, page));
    }

    /// Counts everything anew.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        let free: u64 = self.free.values().map(|len| u64::from(*len)).sum();
        let marked = self.pages.iter().filter(|code| **code == FREE).count() as u64;
        assert_eq!(free, marked, "free runs are what the pages say");
        assert_eq!(self.free.len(), self.free_by_len.len());
        let mut end = 0;
        for (page, len) in &self.free {
            assert!(*page > end, "two free runs are neighbours");
            end = page + len;
        }
        let runs: u64 = self.runs.values().map(|len| u64::from(*len) * PAGE_BYTES as u64).sum();
        let places = self.slabs.iter().flatten();
        let places: u64 = places.map(|slab| u64::from(slab.live) * u64::from(self.size(slab.class))).sum();
        assert_eq!(self.bytes, runs + places + PAGE_BYTES as u64);
        assert!(self.pages.len() <= self.pages_max as usize);
    }
}

#[cfg(test)]
#[path = "space_tests.rs"]
mod tests;
