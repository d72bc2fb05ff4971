//! Owns a worker's page: the pins by which it says what it reads, and the rings by which it says what it used.
//!
//! ```text
//! reader   pin := row -> fence(SeqCst) -> chain unchanged? then the bytes stay where they are
//! daemon   row out of its chain -> fence(SeqCst) -> no pin names it? then its place may be used again
//! ```
//! Of the two fences one is first, so either the daemon sees the pin or the reader sees the chain changed (hazard
//! pointers: Michael, TPDS 2004). A pin is given back with Release and looked at with Acquire, so that what was read is
//! read before the place is used again; a pin is taken with Acquire, so that this holds over all earlier users of it.
//!
//! Invariants: a reader writes to its own page only. The daemon believes nothing in it: a pin is compared and nothing
//! more, a touch counts if a row begins at its number, the head of a ring tells at most how many entries to look at.

use crate::layout::{VERSION, WORKER_MAGIC, worker};
use crate::memory::Memory;
use std::cell::Cell;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

/// Writes a fresh page.
pub(crate) fn begin(page: &impl Memory, id: u64) {
    page.store(worker::LAYOUT, u64::from(VERSION), Relaxed);
    page.store(worker::ID, id, Relaxed);
    page.store(worker::MAGIC, WORKER_MAGIC, Release);
}

static THREADS: AtomicUsize = AtomicUsize::new(0);
thread_local! {
    static THREAD: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// A number of this thread: threads spread over pins and rings by it.
#[inline]
fn thread() -> usize {
    THREAD.with(|thread| {
        if thread.get() == usize::MAX {
            thread.set(THREADS.fetch_add(1, Relaxed));
        }
        thread.get()
    })
}

/// Publishes that the row at `unit` is being read; gives the pin. `None`: all pins are in use, or were
/// revoked. The caller must then
/// look whether the row's chain is unchanged, and [`release`] the pin if not.
pub(crate) fn publish(page: &impl Memory, unit: u32, number: u32) -> Option<usize> {
    let start = thread() * 16;
    let word = u64::from(number) << 32 | u64::from(unit);
    for i in 0..worker::PINS_LEN {
        let pin = worker::PINS + (start + i) % worker::PINS_LEN;
        if page.load(pin, Relaxed) == 0 && page.claim(pin, word) {
            page.fence(SeqCst);
            // Either this sees that the pins were revoked, or whoever revoked them sees this one.
            if is_revoked(page) {
                release(page, pin);
                return None;
            }
            return Some(pin);
        }
    }
    None
}

/// Says that pins published from now on do not count, and gives the units of those that do.
pub(crate) fn revoke(page: &impl Memory) -> Vec<u32> {
    page.store(worker::REVOKED, 1, Relaxed);
    pinned(page).map(|word| word as u32).collect()
}

/// Whether pins of this page do not count any more.
#[inline]
pub(crate) fn is_revoked(page: &impl Memory) -> bool {
    page.load(worker::REVOKED, Relaxed) != 0
}

/// Gives a pin back; nothing is read under it any more.
pub(crate) fn release(page: &impl Memory, pin: usize) {
    page.store(pin, 0, Release);
}

/// All pins of a page that are in use. The caller has taken what it asks about out of its chain before.
pub(crate) fn pinned(page: &impl Memory) -> impl Iterator<Item = u64> {
    page.fence(SeqCst);
    (worker::PINS..worker::PINS + worker::PINS_LEN)
        .map(|pin| page.load(pin, Acquire))
        .filter(|word| *word != 0)
}

/// Says that the row at `unit` was used. Lost if the ring is full; two threads that share a ring may lose one.
#[inline]
pub(crate) fn touch(page: &impl Memory, unit: u32) {
    let ring = thread() % worker::RINGS;
    let head = page.load(worker::HEADS + ring * worker::HEADS_STEP, Relaxed);
    let entry = worker::ENTRIES + ring * worker::RING_LEN + head as usize % worker::RING_LEN;
    page.store(entry, u64::from(unit), Relaxed);
    page.store(worker::HEADS + ring * worker::HEADS_STEP, head.wrapping_add(1), Release);
}

/// The touches since `tails` was last brought up to date: at most as many as the rings have entries.
pub(crate) fn touched(page: &impl Memory, tails: &mut [u64; worker::RINGS], mut each: impl FnMut(u32)) {
    for (ring, tail) in tails.iter_mut().enumerate() {
        let head = page.load(worker::HEADS + ring * worker::HEADS_STEP, Acquire);
        // A head that went back, by two threads on one ring or by a worker that lies, brings nothing.
        let new = (head.wrapping_sub(*tail) as i64).clamp(0, worker::RING_LEN as i64) as u64;
        for back in (1..=new).rev() {
            let at = head.wrapping_sub(back) as usize % worker::RING_LEN;
            each(page.load(worker::ENTRIES + ring * worker::RING_LEN + at, Relaxed) as u32);
        }
        *tail = head;
    }
}
