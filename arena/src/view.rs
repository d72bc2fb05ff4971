//! Owns the reader's side, on any memory: from a key to bytes that hold.
//!
//! ```text
//! valid_until, era -> hash -> chain's state -> slot -> row: key equal? -> copy, or pin
//!     -> chain unchanged? -> only now the clock: before valid_until and the name's own end?
//! ```
//! Invariants: nothing read under a state that changed is used, but for finding that it must be read again. Nothing is
//! written but to this worker's own page, and on a hit of a hot value not even there.
//! It must never trust a length or a place before the state behind it was checked, beyond what cannot hurt.

use crate::core::{Expiry, Hash, Terms};
use crate::error::Miss;
use crate::index::{self, Chain, Looked, word_of};
use crate::layout::{self, Shape, USES_MAX, header, row};
use crate::memory::{Memory, Within};
use crate::pins;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::{AtomicU32, AtomicU64};

/// What is known of a value beside its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Meta {
    /// BLAKE3 hash of the bytes.
    pub hash: Hash,
    /// Bytes.
    pub size: u64,
    /// Revision of the name's binding.
    pub bind_rev: u64,
    /// Era of the name's binding.
    pub era: u64,
    /// If the name expires.
    pub expiry: Option<Expiry>,
}

/// A row under a state that is still to be checked: all numbers may be anything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub chain: Chain,
    pub meta: Meta,
    /// The row with the bytes.
    pub unit: u32,
    /// First word of the value.
    pub at: usize,
    /// The name's note: its first word, and its bytes.
    pub note: (usize, usize),
    /// What is to be told of a use: the name's own row; 0 if nothing is.
    pub to_touch: u32,
}

/// What a reader has mapped.
#[derive(Debug)]
pub(crate) struct View<M, D> {
    pub header: M,
    pub data: D,
    pub page: M,
    pub terms: Terms,
    held: AtomicU64,
    number: AtomicU32,
}

/// A pin with the bytes that it counts for. Given back by whoever holds it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pin {
    pub slot: usize,
    pub bytes: u64,
}

impl<M: Memory, D: Memory> View<M, D> {
    pub(crate) fn new(header: M, data: D, page: M, terms: Terms) -> Self {
        Self { header, data, page, terms, held: AtomicU64::new(0), number: AtomicU32::new(1) }
    }

    /// Bytes of values pinned.
    pub(crate) fn held(&self) -> u64 {
        self.held.load(Relaxed)
    }

    /// Finds the value of `key` and has it taken by `take`; what was taken last may be served if this says so (rule 1:
    /// load `valid_until`, look up, read the clock).
    #[inline]
    pub(crate) fn serve(
        &self,
        key: &[u8],
        take: impl FnMut(&Candidate) -> Result<(), Miss>,
        now: impl FnOnce() -> u64,
    ) -> Result<(), Miss> {
        // In this order: an era is published before the LEASE that follows it, so whoever sees the new `valid_until`
        // sees the new era, and whoever sees the old one is held by the old lease.
        let valid_until = self.header.load(header::VALID_UNTIL, Acquire);
        let era = self.header.load(header::ERA, Acquire);
        let (end, to_touch) = self.find(key, era, take)?;
        let now = now();
        if now >= valid_until {
            return Err(Miss::Lapsed);
        }
        if now >= end {
            return Err(Miss::Absent);
        }
        if to_touch != 0 {
            pins::touch(&self.page, to_touch);
        }
        Ok(())
    }

    /// As [`Self::serve`], whatever the lease, the era and the name's end.
    pub(crate) fn serve_stale(
        &self,
        key: &[u8],
        take: impl FnMut(&Candidate) -> Result<(), Miss>,
    ) -> Result<(), Miss> {
        let (_, to_touch) = self.find(key, 0, take)?;
        if to_touch != 0 {
            pins::touch(&self.page, to_touch);
        }
        Ok(())
    }

    /// Has the value of `key` taken if its name is of `era` or a later one. Gives its end, and what is to be touched.
    #[inline]
    fn find(
        &self,
        key: &[u8],
        era: u64,
        mut take: impl FnMut(&Candidate) -> Result<(), Miss>,
    ) -> Result<(u64, u32), Miss> {
        let hash = layout::hash(key, self.terms.seed);
        let (mut end, mut to_touch) = (u64::MAX, 0);
        let looked = index::look(&self.header, &self.data, (hash, key), |unit, chain| {
            let there = Within::new(&self.data);
            let candidate = Self::candidate(&there, unit, chain);
            // Of an alias the row with the bytes may be elsewhere.
            if there.was_left() {
                return Err(Miss::Unmapped);
            }
            end = candidate.meta.expiry.map_or(u64::MAX, |expiry| expiry.until);
            to_touch = candidate.to_touch;
            if candidate.meta.era < era { Err(Miss::Absent) } else { take(&candidate) }
        });
        match looked {
            Looked::Found(taken) => taken.map(|()| (end, to_touch)),
            Looked::Absent => Err(Miss::Absent),
            Looked::Busy => Err(Miss::Busy),
            Looked::Unmapped => Err(Miss::Unmapped),
        }
    }

    /// The row at `unit`, where one is that nobody changes meanwhile.
    pub(crate) fn row(&self, unit: u32) -> Candidate {
        Self::candidate(&Within::new(&self.data), unit, Chain::default())
    }

    #[inline]
    fn candidate(there: &Within<'_, D>, unit: u32, chain: Chain) -> Candidate {
        let word = |at| there.load(at, Relaxed);
        let at = word_of(unit);
        let name = Shape(word(at + row::SHAPE));
        let expiry = name.expires().then(|| {
            let expiry_at = at + name.expiry_at();
            Expiry { until: word(expiry_at), expires_at: word(expiry_at + 1) }
        });
        let target = if name.is_alias() { word(at + row::TARGET) as u32 } else { unit };
        // What is not there was noted.
        let [shape, mut bind_rev, _, mut era, hash @ ..] =
            there.several::<{ row::HEAD }>(word_of(target)).unwrap_or_default();
        if target != unit {
            (bind_rev, era) = (word(at + row::BIND_REV), word(at + row::ERA));
        }
        let shape = Shape(shape);
        let mut bytes = [0; 32];
        for (to, word) in bytes.as_chunks_mut::<{ layout::WORD }>().0.iter_mut().zip(hash) {
            *to = word.to_le_bytes();
        }
        let meta = Meta {
            hash: bytes,
            size: u64::from(shape.value_len()),
            bind_rev,
            era,
            // A name that does not expire may be in a row with room for it.
            expiry: expiry.filter(|expiry| expiry.until != u64::MAX),
        };
        Candidate {
            chain,
            meta,
            unit: target,
            at: word_of(target) + shape.value_at(),
            note: (at + name.note_at(), name.note_len()),
            to_touch: if name.uses() == USES_MAX { 0 } else { unit },
        }
    }

    /// Whether the candidate's bytes and note are mapped here.
    #[inline]
    pub(crate) fn is_mapped(&self, candidate: &Candidate) -> bool {
        let (extent, (note_at, note)) = (self.data.extent(), candidate.note);
        let words = (candidate.meta.size as usize).div_ceil(layout::WORD);
        extent.has_all(candidate.at, words)
            && (note == 0 || extent.has_all(note_at, note.div_ceil(layout::WORD)))
    }

    /// Pins the candidate, whose chain the caller then checks.
    pub(crate) fn pin(&self, candidate: &Candidate) -> Result<Pin, Miss> {
        let (bytes, max) = (candidate.meta.size, self.terms.pin_bytes_max);
        let held = self.held.fetch_add(bytes, Relaxed);
        if held + bytes > max {
            self.held.fetch_sub(bytes, Relaxed);
            return Err(self.budget(held));
        }
        let number = self.number.fetch_add(1, Relaxed);
        let Some(slot) = pins::publish(&self.page, candidate.unit, number) else {
            self.held.fetch_sub(bytes, Relaxed);
            return Err(self.budget(held));
        };
        Ok(Pin { slot, bytes })
    }

    fn budget(&self, held: u64) -> Miss {
        let max = if pins::is_revoked(&self.page) { 0 } else { self.terms.pin_bytes_max };
        Miss::PinBudget { held, max }
    }

    /// Gives a pin back.
    pub(crate) fn unpin(&self, pin: Pin) {
        pins::release(&self.page, pin.slot);
        self.held.fetch_sub(pin.bytes, Relaxed);
    }
}
