//! Owns the lock by which one writer changes a chain of buckets under many readers: a sequence lock.
//!
//! ```text
//! writer   state+1 (odd) -> fence(Release) -> words ... -> state+1 (even), Release
//! reader   state (even), Acquire -> words ... -> fence(Acquire) -> the same state?
//! ```
//! A reader that saw a word written after the writer's fence has, behind its own fence, a state that is not the one it
//! began with (the two fences synchronise through that word). This holds for every word that the writer stores *after*
//! it took a name out of its chain, so also for whatever comes to lie where the name's row was.
//! Source: Boehm, "Can seqlocks get along with programming language memory models?", MSPC 2012.
//! Invariants: one writer; every word between is accessed atomically. A reader never writes and never waits for ever.

use crate::layout::bucket::{STEP, is_changing, next};
use crate::memory::Memory;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// The chain's state, if it is not being changed.
#[inline]
pub(crate) fn begin_read(memory: &impl Memory, at: usize) -> Option<u64> {
    let state = memory.load(at, Acquire);
    (!is_changing(state)).then_some(state)
}

/// Whether the chain is still as it was at [`begin_read`]; so is, then, all that was read in between.
#[inline]
pub(crate) fn is_unchanged(memory: &impl Memory, at: usize, state: u64) -> bool {
    memory.fence(Acquire);
    memory.load(at, Relaxed) == state
}

/// Begins a change.
pub(crate) fn begin_change(memory: &impl Memory, at: usize) {
    let state = memory.load(at, Relaxed);
    debug_assert!(!is_changing(state), "a change begins where none is under way");
    memory.store(at, state.wrapping_add(STEP), Relaxed);
    memory.fence(Release);
}

/// Ends the change, with `next` as the chain's next bucket.
pub(crate) fn end_change(memory: &impl Memory, at: usize, next_unit: u32) {
    let state = memory.load(at, Relaxed).wrapping_add(STEP);
    debug_assert!(!is_changing(state), "a change ends where one is under way");
    memory.store(at, state & !u64::from(u32::MAX) | u64::from(next_unit), Release);
}

/// The chain's next bucket.
pub(crate) fn next_of(memory: &impl Memory, at: usize) -> u32 {
    next(memory.load(at, Relaxed))
}
