//! Which piece of the data is emptied when nothing that is free does: by blocks, each a run, a slab, or free pages.

use super::{CHUNK, FREE, INSIDE, Need, PAGE_UNITS, RUN, SLAB, Slab, Space};
use crate::layout::{PAGE_BYTES, UNIT_BYTES};
use std::collections::{HashSet, VecDeque};

/// A run, a slab, or pages that are free.
#[derive(Clone, Copy)]
struct Block {
    page: u32,
    pages: u32,
    /// Bytes in use; `None`: it cannot go.
    cost: Option<u64>,
}

impl Space {
    /// The pages, from and to, in which what is needed would fit if everything in them went: for a row those that cost the
    /// least, for the index the last ones. Nothing of the index goes, nor the blocks of what is `held`. Looks at each
    /// block once, and at nothing in them.
    pub(crate) fn piece_for(&self, need: Need, held: impl IntoIterator<Item = u32>) -> Option<(u32, u32)> {
        let held: HashSet<u32> = held.into_iter().filter_map(|unit| self.block_of(unit)).collect();
        let pages_needed = self.pages_for(need);
        let mut best: Option<(u64, u32, u32)> = None;
        // Blocks in a row that can go.
        let mut window: VecDeque<Block> = VecDeque::new();
        let (mut pages, mut cost, mut at) = (0, 0, 1);
        while at < self.pages.len() as u32 {
            let block = self.block(at);
            at += block.pages;
            let Some(bytes) = block.cost.filter(|_| !held.contains(&block.page)) else {
                window.clear();
                (pages, cost) = (0, 0);
                continue;
            };
            window.push_back(block);
            (pages, cost) = (pages + block.pages, cost + bytes);
            // What is not needed of it at its beginning is left out.
            while let Some(first) =
                window.front().copied().filter(|first| pages - first.pages >= pages_needed)
            {
                window.pop_front();
                (pages, cost) = (pages - first.pages, cost - first.cost.unwrap_or(0));
            }
            let is_better = |least: u64| cost < least || !matches!(need, Need::Row(_));
            if pages >= pages_needed && best.is_none_or(|(least, ..)| is_better(least)) {
                best = Some((cost, at - pages, at));
            }
        }
        best.map(|(_, from, to)| (from, to))
    }

    /// The rows that begin in pages `from` to `to`.
    pub(crate) fn rows_in(&self, from: u32, to: u32) -> impl Iterator<Item = u32> {
        let blocks = std::iter::successors(Some(self.block(from)), move |block| {
            let next = block.page + block.pages;
            (next < to).then(|| self.block(next))
        });
        blocks.flat_map(|block| self.rows_of(block.page))
    }

    /// Where the block behind the one at `page` begins; at page 1 the first one does.
    pub(crate) fn next_block(&self, page: u32) -> Option<u32> {
        let next = page + self.block(page).pages;
        ((next as usize) < self.pages.len()).then_some(next)
    }

    /// Whether some block begins at `page`.
    pub(crate) fn is_block(&self, page: u32) -> bool {
        if self.fresh.contains(&page) {
            return page == self.fresh.start;
        }
        match self.pages.get(page as usize).copied() {
            None | Some(INSIDE) => false,
            Some(FREE) => self.free.contains_key(&page),
            Some(RUN | CHUNK) => true,
            Some(slab) => self.slab(slab).is_some_and(|slab| slab.page == page),
        }
    }

    /// The first page of the block in which a row begins.
    fn block_of(&self, unit: u32) -> Option<u32> {
        let page = unit / PAGE_UNITS;
        match self.pages.get(page as usize).copied()? {
            slab if slab >= SLAB => self.slab(slab).map(|slab| slab.page),
            RUN => Some(page),
            _ => None,
        }
    }

    fn slab(&self, code: u32) -> Option<&Slab> {
        self.slabs.get(code.checked_sub(SLAB)? as usize)?.as_ref()
    }

    /// What begins at `page`, where something does.
    fn block(&self, page: u32) -> Block {
        #[cfg(test)]
        self.looks.set(self.looks.get() + 1);
        if self.fresh.contains(&page) {
            return Block { page, pages: self.fresh.end - page, cost: None };
        }
        let (pages, cost) = match self.pages.get(page as usize).copied().unwrap_or(INSIDE) {
            FREE => (self.free.get(&page).copied().unwrap_or(1), Some(0)),
            code @ (INSIDE | RUN | CHUNK) => {
                let pages = self.runs.get(&page).copied().unwrap_or(1);
                (pages, (code == RUN).then_some(u64::from(pages) * PAGE_BYTES as u64))
            }
            code => match self.slab(code) {
                Some(slab) if slab.class < self.classes.0.len() => {
                    (self.slab_pages, Some(u64::from(slab.live) * u64::from(self.size(slab.class))))
                }
                Some(_) => (self.slab_pages, None),
                None => (1, None),
            },
        };
        Block { page, pages, cost }
    }

    /// The rows of the block that begins at `page`.
    fn rows_of(&self, page: u32) -> Vec<u32> {
        match self.pages.get(page as usize).copied() {
            Some(RUN) => vec![page * PAGE_UNITS],
            Some(code) => match self.slab(code) {
                Some(slab) if slab.class < self.classes.0.len() => self.rows_of_slab(slab),
                _ => Vec::new(),
            },
            None => Vec::new(),
        }
    }

    fn rows_of_slab(&self, slab: &Slab) -> Vec<u32> {
        let size = self.size(slab.class) / UNIT_BYTES as u32;
        let used = |place: &u32| slab.used[*place as usize / 64] >> (place % 64) & 1 == 1;
        (0..slab.places).filter(used).map(|place| slab.page * PAGE_UNITS + place * size).collect()
    }
}
