//! Owns which pages and places of the data are in use: runs of pages for what is large, slabs of equal places for what
//! is small.
//!
//! ```text
//! data: | page 0: none | run ... | slab of 64 KiB: place place ... | free run |  fresh  | slab of buckets | chunk | chunk |
//!        rows, from here on ->                                                                 <- the index, from here on
//! ```
//! The index stays for ever, and everything else can be made to go: so the index lies at the end, where it parts no run.
//!
//! Invariants: runs in use, free runs and fresh pages cover the data and do not overlap; two free runs are never
//! neighbours; a place is free or handed out once. Classes are an eighth of a power of two apart, so that at most an
//! eighth of a place is lost. Fresh pages were never handed out: whoever asks for some sees to it first that they are
//! there, so what could not be had is not missed.
//! It must never touch the data: it is arithmetic.

mod classes;
mod pieces;

use crate::layout::{PAGE_BYTES, PAGE_WORDS, UNIT_BYTES, UNIT_WORDS, bucket};
use classes::Classes;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

/// Units of a page.
const PAGE_UNITS: u32 = (PAGE_WORDS / UNIT_WORDS) as u32;
const FREE: u32 = 0;
const INSIDE: u32 = 1;
const RUN: u32 = 2;
const CHUNK: u32 = 3;
const SLAB: u32 = 4;

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

/// What space is needed for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Need {
    /// A row of so many bytes.
    Row(u64),
    /// A bucket of the index.
    Bucket,
    /// A chunk of the index.
    Chunk,
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
    /// What each page is. Pages that were never used take no memory here either.
    pages: Vec<u32>,
    /// Pages that were never used.
    fresh: Range<u32>,
    /// The index takes free pages from here on.
    top: u32,
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
    #[cfg(test)]
    pub(crate) looks: std::cell::Cell<u64>,
}

impl Space {
    /// The space of so many pages, all fresh but the first.
    pub(crate) fn new(pages_max: u32) -> Self {
        let slab_pages = (pages_max / 64).clamp(4, 16);
        let classes = Classes::up_to(slab_pages as usize * PAGE_BYTES / 8);
        let open = vec![BTreeSet::new(); classes.0.len() + 1];
        let mut pages = vec![FREE; pages_max as usize];
        if let Some(first) = pages.first_mut() {
            *first = INSIDE;
        }
        Self {
            pages,
            fresh: 1..pages_max.max(1),
            top: pages_max,
            runs: HashMap::new(),
            free: BTreeMap::new(),
            free_by_len: BTreeSet::new(),
            slabs: Vec::new(),
            slab_numbers: Vec::new(),
            slab_pages,
            classes,
            open,
            bytes: PAGE_BYTES as u64,
            #[cfg(test)]
            looks: std::cell::Cell::new(0),
        }
    }

    /// Bytes handed out, with what is lost at their ends.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of this process that it takes.
    pub(crate) fn private_bytes(&self) -> u64 {
        (self.pages.len() - self.fresh.len()) as u64 * 4
    }

    /// Pages that were never used.
    #[cfg(test)]
    pub(crate) fn fresh(&self) -> Range<u32> {
        self.fresh.clone()
    }

    /// What a row of so many bytes takes.
    pub(crate) fn charge(&self, bytes: u64) -> u64 {
        match self.class(bytes) {
            Some(class) => self.classes.0[class] as u64,
            None => bytes.next_multiple_of(PAGE_BYTES as u64),
        }
    }

    fn class(&self, bytes: u64) -> Option<usize> {
        usize::try_from(bytes).ok().and_then(|bytes| self.classes.of(bytes))
    }

    /// Pages in one piece that are needed where no place is free.
    pub(crate) fn pages_for(&self, need: Need) -> u32 {
        match need {
            Need::Row(bytes) if self.class(bytes).is_none() => {
                u32::try_from(bytes.div_ceil(PAGE_BYTES as u64)).unwrap_or(u32::MAX)
            }
            Need::Row(_) | Need::Bucket => self.slab_pages,
            Need::Chunk => bucket::CHUNK_PAGES as u32,
        }
    }

    /// Whether a row of `bytes` takes a run of its own.
    pub(crate) fn is_run(&self, bytes: u64) -> bool {
        self.class(bytes).is_none()
    }

    /// Whether there is space for a row of `bytes` that is not fresh.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        let is_open = self.class(bytes).is_some_and(|class| !self.open[class].is_empty());
        let pages = self.pages_for(Need::Row(bytes));
        is_open || self.free_by_len.range((pages, 0)..).next().is_some()
    }

    /// Space for what is needed, of what is not fresh; `None`: there is none in one piece.
    pub(crate) fn take(&mut self, need: Need) -> Option<u32> {
        match need {
            Need::Row(bytes) => {
                let unit = match self.class(bytes) {
                    Some(class) => self.take_place(class)?,
                    None => self.take_run(self.pages_for(need))? * PAGE_UNITS,
                };
                self.bytes += self.charge(bytes);
                Some(unit)
            }
            Need::Bucket => {
                let unit = self.take_place(self.classes.0.len())?;
                self.bytes += (bucket::WORDS * 8) as u64;
                Some(unit)
            }
            Need::Chunk => {
                let page = self.take_top(bucket::CHUNK_PAGES as u32)?;
                self.mark(page, bucket::CHUNK_PAGES as u32, CHUNK);
                self.runs.insert(page, bucket::CHUNK_PAGES as u32);
                self.bytes += (bucket::CHUNK_PAGES * PAGE_BYTES) as u64;
                Some(page * PAGE_UNITS)
            }
        }
    }

    /// What would be fresh still if what is needed were taken from there; `None`: nothing is fresh. If all of it would not
    /// do, all of it goes to the rows.
    pub(crate) fn fresh_without(&self, need: Need) -> Option<Range<u32>> {
        let Range { start, end } = self.fresh.clone();
        let pages = self.pages_for(need);
        if start >= end {
            return None;
        }
        if !matches!(need, Need::Row(_)) {
            return Some(if pages <= end - start { start..end - pages } else { end..end });
        }
        // A free run that ends where the fresh pages begin is a part of it.
        let last = self.free.range(..start).next_back().filter(|(page, len)| *page + *len == start);
        let from = last.map_or(start, |(page, _)| *page);
        Some(from.saturating_add(pages).clamp(start, end)..end)
    }

    /// Takes fresh pages for free ones: `left` is fresh still.
    pub(crate) fn break_in(&mut self, left: Range<u32>) {
        let Range { start, end } = std::mem::replace(&mut self.fresh, left.clone());
        if left.start > start {
            self.free_run(start, left.start - start);
        }
        if left.end < end {
            self.top = self.top.min(left.end);
            self.free_run(left.end, end - left.end);
        }
    }

    /// The index may take free pages from `page` on from now on.
    pub(crate) fn lower_top(&mut self, page: u32) {
        self.top = self.top.min(page);
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
        let is_index = class == self.classes.0.len();
        let page = if is_index { self.take_top(self.slab_pages) } else { self.take_free(self.slab_pages) }?;
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

    fn take_run(&mut self, pages: u32) -> Option<u32> {
        let page = self.take_free(pages)?;
        self.mark(page, pages, RUN);
        self.runs.insert(page, pages);
        Some(page)
    }

    /// The smallest free run that does, and of those the first.
    fn take_free(&mut self, pages: u32) -> Option<u32> {
        let (_, page) = self.free_by_len.range((pages, 0)..).next().copied()?;
        self.carve(page, pages)
    }

    /// The last free pages that do, from the index's part on.
    fn take_top(&mut self, pages: u32) -> Option<u32> {
        let (page, len) = self
            .free
            .iter()
            .rev()
            .map(|(page, len)| (*page, *len))
            .take_while(|(page, len)| page + len > self.top)
            .find(|(page, len)| page + len - self.top.max(*page) >= pages)?;
        self.carve(page + len - pages, pages)
    }

    /// Takes these pages, which are in one free run.
    fn carve(&mut self, page: u32, pages: u32) -> Option<u32> {
        let (first, len) = self.free.range(..=page).next_back().map(|(first, len)| (*first, *len))?;
        let end = (first + len).checked_sub(page + pages)?;
        self.forget_free(first, len);
        if page > first {
            self.note_free(first, page - first);
        }
        if end > 0 {
            self.note_free(page + pages, end);
        }
        Some(page)
    }

    fn mark(&mut self, page: u32, pages: u32, code: u32) {
        self.pages[page as usize..(page + pages) as usize].fill(INSIDE);
        self.pages[page as usize] = code;
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
        let free: u64 = self.free.values().map(|len| u64::from(*len)).sum::<u64>() + self.fresh.len() as u64;
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
        assert!(
            self.free.iter().all(|(page, len)| page + len <= self.fresh.start || *page >= self.fresh.end)
        );
    }
}

#[cfg(test)]
#[path = "space_tests.rs"]
mod tests;
