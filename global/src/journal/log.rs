//! The journal itself: appending, trimming, and what it tells about itself, on one thread.
//!
//! Invariants: `head` is the last revision whose fsync returned; a write or sync that failed leaves the journal
//! poisoned; the revisions of all batches follow each other without a gap.

use super::format::{self, BATCH_HEADER, DATA_START, Place};
use super::open::{self, Old};
use super::recovery::Stale;
use super::segment::Segment;
use super::spares::{Spares, is_full};
use super::syncer::Syncer;
use super::{Batch, Class, Floors, JournalConfig, Opened};
use dstore_shared::{Error, Result, Revision};
use dstore_sys::Sys;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Capacity above which the batch buffer is given back: most batches need less, and one large one must not cost
/// memory for ever.
const BUFFER_BYTES: usize = 16 << 20;
/// The shortest delay that a refusal asks for: the attempt that is due now takes a moment.
const RETRY_MIN: Duration = Duration::from_millis(50);

/// The journal of one shard, open for appending. All calls block; it lives on the committer's thread.
///
/// Dropping it waits until the segment that is just being prepared is done.
#[derive(Debug)]
pub struct Journal {
    current: Segment,
    /// Where the next batch goes.
    at: u64,
    /// What it names as predecessor.
    chain: u64,
    head: Revision,
    /// First revision of the current segment.
    first: Revision,
    /// Segments before the current one, oldest first.
    old: VecDeque<Old>,
    spares: Spares,
    segment_bytes: u64,
    min_free_bytes: u64,
    buffer: Vec<u8>,
    poison: Option<Error>,
    /// Of a relaxed journal.
    syncer: Option<Arc<Syncer>>,
}

impl Journal {
    /// Opens the journal, or begins one, and gives every batch after `floors.checkpoint` to `replay`, in order
    /// (a batch that the checkpoint cuts in two is given whole).
    ///
    /// What is replayed is durable: after an unclean stop it was written to a fresh segment and fsynced before.
    /// A torn tail is cut and reported in [`Opened::torn`]. A refusal leaves the journal as it was.
    ///
    /// # Errors
    /// `Corrupt` if acknowledged batches are damaged or missing; `Invalid` for a newer format or a wrong
    /// configuration; `Exhausted` if the disk is full; `Unavailable` if the journal is in use or the disk
    /// fails; and whatever `replay` gives.
    pub fn open(
        sys: &Sys,
        config: &JournalConfig,
        floors: &Floors,
        replay: impl FnMut(Batch) -> Result<()>,
    ) -> Result<(Self, Opened)> {
        config.check()?;
        let found = open::recover(sys, config, floors, replay)?;
        let (clock, file) = (sys.clock.clone(), found.current.file.clone());
        let syncer = config.relaxed.map(|within| Syncer::new(clock, within, file, found.head));
        let mut journal = Self {
            spares: Spares::start(sys, config, found.lock, found.next_sequence, found.retired),
            current: found.current,
            at: found.at,
            chain: found.chain,
            head: found.head,
            first: found.first,
            old: found.old.into(),
            segment_bytes: config.segment_bytes,
            min_free_bytes: config.min_free_bytes,
            buffer: Vec::new(),
            poison: None,
            syncer,
        };
        journal.pump();
        journal.check_poison()?;
        let opened = Opened {
            head: journal.head,
            oldest: journal.oldest(),
            created: found.created,
            clean: found.clean,
            torn: found.torn,
            replayed: found.replayed,
        };
        Ok((journal, opened))
    }

    /// Appends one batch and returns when it is durable; a relaxed journal returns when it is written.
    /// `first` must follow the head.
    ///
    /// # Errors
    /// - Without effect: `TooLarge` above [`Journal::batch_bytes_max`]; `Exhausted` if there is no space for a
    ///   further segment, `Unavailable` with a delay if none can be made for another reason (ask
    ///   [`Journal::room`] before); `Internal` if the revisions do not follow the head.
    /// - `Unavailable` if the write or its fsync failed: whether the batch is on the disk is unknown until the
    ///   journal is opened again. The journal is poisoned: every later call fails at once, nothing is retried.
    pub fn append(&mut self, first: Revision, last: Revision, payload: &[&[u8]]) -> Result<()> {
        self.check_poison()?;
        if let Some(e) = self.syncer.as_ref().and_then(|syncer| syncer.failed()) {
            self.poison = Some(e.clone());
            return Err(e);
        }
        if first != self.head.next() || last < first {
            let head = self.head;
            return Err(Error::internal(format!(
                "batch `{first}..={last}` after revision `{head}`: report this"
            )));
        }
        let span = self.span(payload.iter().map(|part| part.len()).sum())?;
        if !self.fits(span) {
            self.change_segment()?;
        }
        let durable = self.syncer.as_ref().map(|syncer| syncer.durable()).unwrap_or_default();
        let place = Place { salt: self.current.header.salt, offset: self.at, previous: self.chain, durable };
        let checksum = format::encode_batch(&mut self.buffer, place, (first, last), payload);
        dstore_sys::failpoint!("global::journal::before_write");
        let written = self.current.file.write_all_at(&self.buffer, self.at);
        dstore_sys::failpoint!("global::journal::after_write");
        let synced = match &self.syncer {
            None => written.and_then(|()| self.current.file.sync()),
            Some(_) => written,
        };
        if let Err(e) = synced {
            return Err(self.fail(e));
        }
        if let Some(syncer) = &self.syncer {
            syncer.wrote(last);
        }
        if self.buffer.capacity() > BUFFER_BYTES {
            self.buffer = Vec::new();
        }
        (self.head, self.chain) = (last, checksum);
        self.at += span;
        self.pump();
        Ok(())
    }

    /// Makes everything durable that was appended, and tells up to where; at once unless the journal is relaxed.
    ///
    /// # Errors
    /// `Unavailable` if the journal is poisoned or the fsync failed.
    pub fn sync(&self) -> Result<Revision> {
        self.check_poison()?;
        self.syncer.as_ref().map_or(Ok(self.head), |syncer| syncer.sync())
    }

    /// What makes it durable, if it is relaxed.
    pub(crate) fn syncer(&self) -> Option<&Arc<Syncer>> {
        self.syncer.as_ref()
    }

    /// Gives up segments whose batches are all below `below`. The caller has seen two checkpoints cover them.
    /// They go in the background, oldest first; after a crash some may be there again.
    pub fn trim(&mut self, below: Revision) {
        if self.poison.is_some() {
            return;
        }
        while self.old.front().is_some_and(|old| old.last < below) {
            let Some(old) = self.old.pop_front() else { break };
            self.spares.retire(old.stale);
        }
        self.pump();
    }

    /// Whether a batch with `payload_bytes` can be taken now. Ordinary batches leave the reserved segment alone.
    ///
    /// # Errors
    /// `Exhausted` while the disk is too full for another segment: free space, it is noticed by itself.
    /// `Unavailable` with a delay while none can be made for another reason, such as too many open files.
    /// `TooLarge` and `Unavailable` as [`Journal::append`].
    pub fn room(&mut self, class: Class, payload_bytes: usize) -> Result<()> {
        self.check_poison()?;
        let span = self.span(payload_bytes)?;
        let needed = usize::from(!self.fits(span)) + usize::from(class == Class::Ordinary);
        if self.spares.ready() >= needed {
            return Ok(());
        }
        self.pump();
        self.check_poison()?;
        let hindered = self.spares.is_full() || self.spares.hindrance().is_some();
        if self.spares.ready() >= needed || !hindered {
            return Ok(());
        }
        Err(self.no_segment())
    }

    /// The last revision that is durable here, or in a relaxed journal written; 0 if there is none.
    pub fn head(&self) -> Revision {
        self.head
    }

    /// The oldest revision that could still be replayed; one past the head if there is none.
    pub fn oldest(&self) -> Revision {
        let known = self.old.iter().rev().map_while(|old| old.first).last();
        known.unwrap_or(self.first)
    }

    /// Bytes of payload that one batch can have.
    pub fn batch_bytes_max(&self) -> usize {
        (self.segment_bytes - DATA_START) as usize - BATCH_HEADER
    }

    /// Bytes that can be appended without making another segment.
    pub fn reserved_bytes(&self) -> u64 {
        let ready = self.spares.ready() as u64 * (self.segment_bytes - DATA_START);
        self.current.bytes - self.at + ready
    }

    /// Bytes that must be free for another segment to be made.
    pub fn segment_wants(&self) -> u64 {
        self.segment_bytes + self.min_free_bytes
    }

    /// Segments that hold batches, the current one included.
    pub fn segments(&self) -> usize {
        self.old.len() + 1
    }

    /// Whether a write or sync has failed, so that nothing can be appended any more.
    pub fn is_poisoned(&self) -> bool {
        self.poison.is_some()
    }

    /// What whoever asks after that is told: nothing of it was written.
    pub fn poison(&self) -> Option<&Error> {
        self.poison.as_ref()
    }

    fn span(&self, payload_bytes: usize) -> Result<u64> {
        let max = self.batch_bytes_max();
        if payload_bytes > max {
            let text =
                format!("batch of `{payload_bytes}` bytes, at most `{max}` fit a journal segment: split it");
            return Err(Error::too_large(text));
        }
        Ok(format::span(payload_bytes as u64))
    }

    fn fits(&self, span: u64) -> bool {
        self.at + span <= self.current.bytes
    }

    fn change_segment(&mut self) -> Result<()> {
        let taken = self.spares.take();
        let Some(next) = taken.map_err(|e| self.fail(e))? else { return Err(self.no_segment()) };
        if let Some(syncer) = &self.syncer
            && let Err(e) = syncer.go_on_in(next.file.clone())
        {
            self.poison = Some(e.clone());
            return Err(e);
        }
        dstore_sys::failpoint!("global::journal::next_segment");
        let full = std::mem::replace(&mut self.current, next);
        self.old.push_back(Old { stale: Stale::of(&full), first: Some(self.first), last: self.head });
        self.first = self.head.next();
        self.at = DATA_START;
        Ok(())
    }

    fn pump(&mut self) {
        if let Err(e) = self.spares.pump() {
            self.fail(e);
        }
    }

    /// Poisons the journal for ever: after a failed fsync nobody knows what is on the disk.
    fn fail(&mut self, error: io::Error) -> Error {
        let (segment, at) = (self.current.name(), self.at);
        let what = if is_full(&error) { "the disk is full" } else { "the disk failed" };
        let poison = Error::unavailable(format!(
            "the journal takes no more writes ({what}: `{error}`, segment `{segment}` offset `{at}`): \
             restart dstore when the disk is sound"
        ))
        .caused_by(error);
        let outcome = Error::unavailable(format!("outcome unknown: {}", poison.message()));
        self.poison = Some(poison);
        outcome
    }

    fn check_poison(&self) -> Result<()> {
        self.poison.clone().map_or(Ok(()), Err)
    }

    /// Why there is no segment to go on in; nothing is lost or in doubt.
    fn no_segment(&self) -> Error {
        if let Some((error, delay)) = self.spares.hindrance() {
            let text =
                format!("no further journal segment can be made (`{error}`): it is tried again by itself");
            return Error::unavailable(text).retry_after(delay.max(RETRY_MIN));
        }
        Error::exhausted(
            "no space for another journal segment: free space on its disk, it is noticed by itself",
        )
    }
}
