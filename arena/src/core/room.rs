//! How space is found for what comes: what is free, then memory that was never used, then rows leave.

use super::{Core, Evicted, Refusal, Seen};
use crate::layout::row::ALIGNED_FROM;
use crate::layout::{
    KEY_BYTES_MAX, NOTE_BYTES_MAX, PAGE_BYTES, PAGE_WORDS, Shape, VALUE_BYTES_MAX, WORD, header,
};
use crate::memory::{Extend, Memory};
use crate::space::{Kind, Need};
use std::sync::atomic::Ordering::Release;

/// Times that a piece of the data is emptied for one insertion.
const CLEARINGS_MAX: usize = 4;

impl<M: Memory, D: Extend> Core<M, D> {
    /// Space for what is needed, made by eviction if there is none.
    pub(super) fn obtain(&mut self, need: Need, evicted: &mut Vec<Evicted>) -> Result<u32, Refusal> {
        let obtained = self.find_or_free(need, evicted);
        if obtained.is_err() {
            self.relieve();
        }
        obtained
    }

    fn find_or_free(&mut self, need: Need, evicted: &mut Vec<Evicted>) -> Result<u32, Refusal> {
        let enough = match need {
            // What goes in its turn seldom lies in one piece: as much as is needed, and then a piece as a whole.
            Need::Row(bytes) if self.space.is_run(bytes) => self.space.charge(bytes),
            Need::Row(bytes) => 2 * self.space.charge(bytes) + 16 * PAGE_BYTES as u64,
            // The index grows by the last piece that can be had, whosoever turn it is.
            Need::Bucket | Need::Chunk => 0,
        };
        let (mut freed, mut clearings, mut is_drained) = (0, 0, false);
        loop {
            if let Some(unit) = self.space.take(need) {
                return Ok(unit);
            }
            if self.grow(need) {
                continue;
            }
            if self.queues.is_idle() {
                // Whoever decides what leaves has perhaps dropped what it kept of it since.
                let limbo = self.limbo.len();
                self.sweep_limbo();
                if self.limbo.len() == limbo {
                    return Err(Refusal::Full);
                }
                continue;
            }
            if !is_drained {
                self.drain_touches();
                is_drained = true;
            }
            if freed >= enough {
                if clearings == CLEARINGS_MAX || !self.clear(need, evicted) {
                    return Err(Refusal::Full);
                }
                (freed, clearings) = (0, clearings + 1);
            } else {
                let before = self.space.bytes();
                // If none can go, what is left is pinned or the index's; perhaps a piece is free of both.
                let went = self.evict_next(evicted);
                freed = if went { freed + before.saturating_sub(self.space.bytes()) } else { u64::MAX };
            }
        }
    }

    /// Has memory that was never used for what is needed, or for as much of it as there is. `false`: there is no more.
    fn grow(&mut self, need: Need) -> bool {
        let Some(left) = self.space.fresh_without(need).filter(|_| !self.is_out_of_memory) else {
            return false;
        };
        let (low, high) = (left.start as usize * PAGE_WORDS, left.end as usize * PAGE_WORDS);
        let extended = self.data.extend(low, high, self.words_max);
        // Also if it failed: some of them may be there.
        self.header.store(header::SEGMENTS, self.data.segments(), Release);
        self.is_out_of_memory = extended.is_err();
        let is_there = extended.unwrap_or(false);
        if is_there {
            self.space.break_in(left);
        }
        is_there
    }

    /// Memory that was never used is used only until there are so many bytes in all.
    pub(crate) fn limit(&mut self, bytes: u64) {
        let words = bytes.saturating_sub(self.terms.beside()) / WORD as u64;
        self.words_max = usize::try_from(words).unwrap_or(usize::MAX / WORD);
    }

    /// Does a part of what the insertion of a value of `bytes` would have to do: at most `victims_max` rows leave. Whether
    /// there is more to do.
    pub(crate) fn make_room(&mut self, bytes: u64, victims_max: usize, evicted: &mut Vec<Evicted>) -> bool {
        let len = u32::try_from(bytes).unwrap_or(u32::MAX);
        let row = Shape::new(KEY_BYTES_MAX, len, false, true).noted(NOTE_BYTES_MAX).bytes();
        let row = row.min(self.terms.data_bytes / super::OVERSIZE_PART);
        while !self.space.has_room(row) && self.grow(Need::Row(row)) {}
        let mut left = victims_max;
        if !self.space.is_run(row) {
            while left > 0 && !self.space.has_room(row) && self.evict_next(evicted) {
                left -= 1;
            }
        } else if !self.space.has_room(row) {
            self.drain_touches();
            self.clear_at_most(Need::Row(row), left, evicted);
        }
        self.show();
        !self.space.has_room(row)
    }

    /// Bytes of the largest value that is held under a key, and with a note, of any length.
    pub(crate) fn value_bytes_max(&self) -> u64 {
        let max = self.terms.data_bytes / super::OVERSIZE_PART;
        let beside = Shape::new(KEY_BYTES_MAX, ALIGNED_FROM, false, true).noted(NOTE_BYTES_MAX).value_at();
        (max.saturating_sub((beside * WORD) as u64) / WORD as u64 * WORD as u64).min(VALUE_BYTES_MAX)
    }

    /// Empties the piece of data in which there will be room for what is needed.
    fn clear(&mut self, need: Need, evicted: &mut Vec<Evicted>) -> bool {
        self.sweep_limbo();
        self.clear_at_most(need, usize::MAX, evicted)
    }

    fn clear_at_most(&mut self, need: Need, rows_max: usize, evicted: &mut Vec<Evicted>) -> bool {
        let pinned = self.workers.all_pinned();
        let held = pinned.iter().chain(&self.limbo).copied();
        let Some((from, to)) = self.space.piece_for(need, held) else { return false };
        let rows: Vec<u32> = self.space.rows_in(from, to).take(rows_max).collect();
        for unit in rows {
            // An alias may have gone with its target meanwhile.
            if self.space.kind(unit) == Kind::Row {
                self.withdraw(unit);
                self.expel(unit, evicted);
            }
        }
        if !matches!(need, Need::Row(_)) {
            self.space.lower_top(to - self.space.pages_for(need));
        }
        true
    }

    /// Takes a row or alias out of its queue.
    pub(super) fn withdraw(&mut self, unit: u32) {
        let rows = Seen { data: &self.data, space: &self.space, seed: self.terms.seed };
        self.queues.withdraw(unit, &rows);
    }
}
