//! Owns the reader's side, on any memory: from a key to bytes that hold.
//!
//! ```text
//! valid_until, era -> hash -> chain's state -> slot -> row: key equal? -> copy, or pin
//!     -> chain unchanged? -> only now the clock: before valid_until and the name's own end?
//! ```
//! Invariants: nothing read under a state that changed is used, but for finding that it must be read again. Nothing is
//! written but to this worker's own page, and on a hit of a hot value not even there.
//! It must never trust a length or a place before the state behind it was checked, beyond what cannot hurt.

use crate::core::{Hash, Terms};
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
}

/// A row under a state that is still to be checked: all numbers may be anything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub chain: Chain,
    pub meta: Meta,
    pub era: u64,
    pub until: u64,
    pub unit: u32,
    /// First word of the value.
    pub at: usize,
    pub is_hot: bool,
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
        mut take: impl FnMut(&Candidate) -> Result<(), Miss>,
        now: impl FnOnce() -> u64,
    ) -> Result<(), Miss> {
        // In this order: an era is published before the LEASE that follows it, so whoever sees the new `valid_until`
        // sees the new era, and whoever sees the old one is held by the old lease.
        let valid_until = self.header.load(header::VALID_UNTIL, Acquire);
        let era = self.header.load(header::ERA, Acquire);
        let hash = layout::hash(key, self.terms.seed);
        let (mut end, mut to_touch) = (valid_until, 0);
        let looked = index::look(&self.header, &self.data, (hash, key), |unit, chain| {
            let there = Within::new(&self.data);
            let candidate = Self::candidate(&there, unit, chain);
            // Of an alias the row with the bytes may be elsewhere.
            if there.was_left() {
                return Err(Miss::Unmapped);
            }
            end = candidate.until;
            to_touch = if candidate.is_hot { 0 } else { candidate.unit };
            if candidate.era < era { Err(Miss::Absent) } else { take(&candidate) }
        });
        match looked {
            Looked::Found(taken) => taken?,
            Looked::Absent => return Err(Miss::Absent),
            Looked::Busy => return Err(Miss::Busy),
            Looked::Unmapped => return Err(Miss::Unmapped),
        }
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

    #[inline]
    fn candidate(there: &Within<'_, D>, unit: u32, chain: Chain) -> Candidate {
        let word = |at| there.load(at, Relaxed);
        let at = word_of(unit);
        let name = Shape(word(at + row::SHAPE));
        let until = if name.expires() { word(at + name.expiry_at()) } else { u64::MAX };
        let (target, shape) = if name.is_alias() {
            let target = word(at + row::TARGET) as u32;
            (target, Shape(word(word_of(target) + row::SHAPE)))
        } else {
            (unit, name)
        };
        let value = word_of(target);
        let mut hash = [0; 32];
        there.read(value + row::HASH, &mut hash);
        let meta = Meta { hash, size: u64::from(shape.value_len()), bind_rev: word(at + row::BIND_REV) };
        Candidate {
            chain,
            meta,
            era: word(at + row::ERA),
            until,
            unit: target,
            at: value + shape.value_at(),
            is_hot: shape.uses() == USES_MAX,
        }
    }

    /// Whether the candidate's bytes are mapped here.
    #[inline]
    pub(crate) fn is_mapped(&self, candidate: &Candidate) -> bool {
        candidate.at + (candidate.meta.size as usize).div_ceil(layout::WORD) <= self.data.words()
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
