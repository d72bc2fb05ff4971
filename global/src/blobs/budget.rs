//! How much may be staged at once, and whether the disk has room for it.
//!
//! Invariants: files and bytes in flight never exceed [`BlobLimits`]; what is reserved and not yet written
//! counts as used when free space is judged, so that a full disk is met before a byte is written.
//! Uploads wait in line for a place, for a bounded time and in bounded number; the first thing that one who
//! waits does is to end the latest upload, if one is late. Bytes that do not fit are refused at once.

use super::pace::{Pace, Paces};
use dstore_shared::limits::BLOB_BYTES_MAX;
use dstore_shared::{Error, Moment, Result};
use dstore_sys::clock::Clock;
use parking_lot::Mutex;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a look at the free space counts for an upload that has written nothing.
const LOOK_TTL: Duration = Duration::from_millis(100);
/// Uploads that wait for a place; each holds the few KiB that have come, and one more is refused at once.
const LINE_MAX: usize = 1024;
/// How often one who waits looks for a late upload.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// What refused callers are told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The bounds of the blob store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlobLimits {
    /// Largest blob in bytes.
    pub blob_bytes_max: u64,
    /// Uploads at once; each buffers up to 2 MiB in memory.
    pub staging_files_max: usize,
    /// Bytes of all uploads at once, announced or received; at least `blob_bytes_max`.
    pub staging_bytes_max: u64,
    /// How long an upload waits for its place.
    pub staging_wait: Duration,
    /// Bytes of the file system that uploads leave free.
    pub min_free_bytes: u64,
}

impl Default for BlobLimits {
    /// 1 GiB a blob, as the wire allows; 128 uploads, so at most 256 MiB of buffers; 16 GiB staged, sixteen
    /// of the largest; 4 s in line, less than a client or person waits (5 s), who then hears why; 256 MiB left free, enough for the journal to go on deleting.
    fn default() -> Self {
        Self {
            blob_bytes_max: BLOB_BYTES_MAX,
            staging_files_max: 128,
            staging_bytes_max: 16 << 30,
            staging_wait: Duration::from_secs(4),
            min_free_bytes: 256 << 20,
        }
    }
}

#[derive(Debug)]
pub(super) struct Budget {
    limits: BlobLimits,
    slots: Arc<Semaphore>,
    line: Semaphore,
    paces: Paces,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// Bytes of all uploads.
    reserved: u64,
    /// The part of them that is not on the disk yet.
    unwritten: u64,
    /// When the disk was last looked at, and what was free.
    look: Option<(Moment, u64)>,
    /// Bytes that must be free for the last upload that was refused for want of space; until it is taken.
    refused: Option<u64>,
}

impl Budget {
    /// # Errors
    /// `Invalid` for limits that contradict each other.
    pub(super) fn new(limits: BlobLimits) -> Result<Arc<Self>> {
        if limits.staging_bytes_max < limits.blob_bytes_max {
            let (all, one) = (limits.staging_bytes_max, limits.blob_bytes_max);
            return Err(Error::invalid(format!(
                "`{all}` staged bytes have no room for a blob of `{one}`: raise the former"
            )));
        }
        if limits.staging_files_max == 0 || limits.staging_files_max > u32::MAX as usize >> 4 {
            return Err(Error::invalid("the number of uploads at once is out of range: take 128"));
        }
        let slots = Arc::new(Semaphore::new(limits.staging_files_max));
        let (line, paces) = (Semaphore::new(LINE_MAX), Paces::default());
        Ok(Arc::new(Self { limits, slots, line, paces, held: Mutex::default() }))
    }

    /// Takes a slot, waiting in line for it, and, if the size is known, its bytes.
    pub(super) async fn reserve(self: &Arc<Self>, bytes: u64, clock: &dyn Clock) -> Result<Reservation> {
        let slot = match self.slots.clone().try_acquire_owned() {
            Ok(slot) => slot,
            Err(_) => self.wait_for_slot(clock).await?,
        };
        let mine = Mutex::new(Mine::default());
        let pace = self.paces.begin(clock.now());
        let reservation = Reservation { budget: self.clone(), mine, pace, _slot: slot };
        reservation.grow_to(bytes)?;
        Ok(reservation)
    }

    /// Places are given in the order of the line. Each who waits ends at most one late upload.
    async fn wait_for_slot(&self, clock: &dyn Clock) -> Result<OwnedSemaphorePermit> {
        let n = self.limits.staging_files_max;
        let full = || busy(format!("`{n}` uploads are under way"));
        let _in_line = self.line.try_acquire().map_err(|_| full())?;
        let turn = async {
            let mut slot = pin!(self.slots.clone().acquire_owned());
            while !self.paces.evict_one(clock.now()) {
                if let Ok(slot) = tokio::time::timeout(LOOK_AGAIN, slot.as_mut()).await {
                    return slot;
                }
            }
            slot.await
        };
        match tokio::time::timeout(self.limits.staging_wait, turn).await {
            Ok(Ok(slot)) => Ok(slot),
            _ => Err(full()),
        }
    }

    /// # Errors
    /// `TooLarge` if no blob may have `size` bytes.
    pub(super) fn admit(&self, size: u64) -> Result<()> {
        let max = self.limits.blob_bytes_max;
        if size > max {
            return Err(Error::too_large(format!("a blob has at most `{max}` bytes: split the value")));
        }
        Ok(())
    }

    /// Whether a look at the disk at `now` is due; if not, whether the last one left room.
    pub(super) fn recent_look(&self, now: Moment) -> bool {
        let held = self.held.lock();
        held.look.is_some_and(|(at, free)| now.since(at) < LOOK_TTL && self.judge(&held, free).is_ok())
    }

    /// Judges what the disk says is free at `now`.
    pub(super) fn look(&self, now: Moment, free: u64) -> Result<()> {
        let mut held = self.held.lock();
        held.look = Some((now, free));
        let judged = self.judge(&held, free);
        if judged.is_err() {
            held.refused = Some(self.limits.min_free_bytes.saturating_add(held.unwritten));
        }
        judged
    }

    fn judge(&self, held: &Held, free: u64) -> Result<()> {
        let min = self.limits.min_free_bytes;
        if free >= min.saturating_add(held.unwritten) {
            return Ok(());
        }
        let text = format!("`{free}` bytes are free, uploads leave `{min}`: delete names or add disk space");
        Err(Error::exhausted(text).retry_after(RETRY_AFTER))
    }

    /// Bytes that must be free for the last upload that was refused since this was asked, if one was.
    pub(super) fn take_refusal(&self) -> Option<u64> {
        self.held.lock().refused.take()
    }

    /// Uploads and their bytes now.
    pub(super) fn staged(&self) -> (usize, u64) {
        (self.limits.staging_files_max - self.slots.available_permits(), self.held.lock().reserved)
    }

    /// Lets nobody in anymore, and waits until everybody is out.
    pub(super) async fn close(&self) {
        let all = self.limits.staging_files_max as u32; // checked in `new`
        if let Ok(_out) = self.slots.acquire_many(all).await {
            self.slots.close();
        }
    }
}

fn busy(what: String) -> Error {
    Error::exhausted(what + ": try again later").retry_after(RETRY_AFTER)
}

/// An upload's share, given back when dropped, which is after its file is gone from staging.
#[derive(Debug)]
pub(super) struct Reservation {
    budget: Arc<Budget>,
    mine: Mutex<Mine>,
    pub(super) pace: Arc<Pace>,
    _slot: OwnedSemaphorePermit,
}

#[derive(Debug, Default)]
struct Mine {
    reserved: u64,
    written: u64,
}

impl Reservation {
    /// Reserves up to `bytes` in all.
    pub(super) fn grow_to(&self, bytes: u64) -> Result<()> {
        let mut mine = self.mine.lock();
        let more = bytes.saturating_sub(mine.reserved);
        let mut held = self.budget.held.lock();
        let max = self.budget.limits.staging_bytes_max;
        if more > max.saturating_sub(held.reserved) {
            let now = held.reserved;
            return Err(busy(format!("uploads under way have `{now}` of `{max}` bytes")));
        }
        held.reserved += more;
        held.unwritten += more;
        mine.reserved += more;
        Ok(())
    }

    /// `bytes` more are on the disk.
    pub(super) fn wrote(&self, bytes: u64) {
        let mut mine = self.mine.lock();
        let bytes = bytes.min(mine.reserved - mine.written);
        mine.written += bytes;
        self.budget.held.lock().unwritten -= bytes;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.paces.end(&self.pace);
        let mine = self.mine.get_mut();
        let mut held = self.budget.held.lock();
        held.reserved -= mine.reserved;
        held.unwritten -= mine.reserved - mine.written;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dstore_shared::Kind;
    use dstore_sys::clock::ManualClock;

    fn budget() -> Arc<Budget> {
        let limits = BlobLimits {
            blob_bytes_max: 100,
            staging_files_max: 2,
            staging_bytes_max: 150,
            staging_wait: Duration::from_millis(20),
            min_free_bytes: 10,
        };
        Budget::new(limits).expect("consistent")
    }

    #[tokio::test]
    async fn files_and_bytes_are_bounded_and_come_back() {
        let budget = budget();
        let one = budget.reserve(100, &ManualClock::default()).await.expect("room");
        assert_eq!(
            budget.reserve(51, &ManualClock::default()).await.expect_err("too many bytes").kind(),
            Kind::Exhausted
        );
        let two = budget.reserve(0, &ManualClock::default()).await.expect("room");
        assert_eq!(
            budget.reserve(0, &ManualClock::default()).await.expect_err("too many files").kind(),
            Kind::Exhausted
        );
        two.grow_to(50).expect("room");
        two.wrote(20);
        assert_eq!(two.grow_to(51).expect_err("full").kind(), Kind::Exhausted);
        drop((one, two));
        assert_eq!(budget.staged(), (0, 0));
        assert_eq!(budget.held.lock().unwritten, 0);
    }

    #[tokio::test]
    async fn what_is_announced_but_not_written_is_not_free() {
        let budget = budget();
        let one = budget.reserve(50, &ManualClock::default()).await.expect("room");
        assert!(budget.look(Moment::ZERO, 60).is_ok());
        assert_eq!(budget.look(Moment::ZERO, 59).expect_err("full").kind(), Kind::Exhausted);
        one.wrote(50);
        assert!(budget.look(Moment::ZERO, 10).is_ok());
        assert!(budget.recent_look(Moment::ZERO + LOOK_TTL / 2));
        assert!(!budget.recent_look(Moment::ZERO + LOOK_TTL));
    }

    #[test]
    fn limits_that_contradict_each_other_are_refused() {
        let limits = BlobLimits { staging_bytes_max: 5, blob_bytes_max: 6, ..BlobLimits::default() };
        assert_eq!(Budget::new(limits).expect_err("contradiction").kind(), Kind::Invalid);
        let limits = BlobLimits { staging_files_max: 0, ..BlobLimits::default() };
        assert_eq!(Budget::new(limits).expect_err("none").kind(), Kind::Invalid);
    }
}
