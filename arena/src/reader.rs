//! What a worker does with an arena: map it, and read.
//!
//! Invariant: a [`Value`] that is pinned keeps its reader, its mappings and its pin alive; nothing that was read is
//! handed out before it was found to hold.

use crate::core::{Page, Terms};
use crate::daemon::{Descriptors, WORKER_BYTES};
use crate::error::{Error, Miss};
use crate::files::{self, Segments, Stamp, Writers};
use crate::layout::{PAGE_BYTES, VERSION, WORD, WORKER_MAGIC, header, worker};
use crate::map::{Access, Canary, Mapped};
use crate::memory::Memory;
use crate::value::{Body, INLINE_MAX, Pinned, Value};
use crate::view::{Candidate, Meta, View};
use rustix::fd::{AsFd, OwnedFd};
use rustix::time::{ClockId, clock_gettime};
use std::fmt;
use std::sync::atomic::Ordering::Acquire;
use std::sync::{Arc, Mutex};

/// A copy larger than this looks whether its length holds before it makes room for it.
const COPY_UNCHECKED: u64 = 64 << 10;

/// A large value that cannot be pinned is copied at most so many times for one answer.
const COPIES_MAX: usize = 8;

/// An arena, as a worker has it. All threads of the worker share one.
#[derive(Clone)]
pub struct Reader(Arc<Attached>);

pub(crate) struct Attached {
    pub(crate) view: View<Arc<Mapped>, Arc<Mapped>>,
    pub(crate) canary: Canary,
    /// It is the daemon's own, and reads where that writes: nothing is mapped twice, and everything at once.
    is_own: bool,
    /// How many segments are mapped; locked while more are.
    segments: Mutex<usize>,
    /// By its end the daemon knows that nothing of this reads any more: fields are dropped in order, so it is the last.
    _socket: Option<OwnedFd>,
}

impl Drop for Attached {
    fn drop(&mut self) {
        if !self.canary.is_mine() {
            // The page was left out of this child, whose own mappings may lie there by now. The daemon's own was not.
            if let Some(page) = Arc::get_mut(&mut self.view.page) {
                page.forget();
            }
        }
    }
}

/// This machine's `CLOCK_BOOTTIME`, in nanoseconds. No system call where the kernel has it in its vDSO.
#[inline]
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

impl Reader {
    /// Receives from a blocking socket what the daemon gives, and maps it. The socket stays open until this reader, its
    /// clones and all values that it gave are dropped; then, and when the process ends, the daemon sees its end.
    ///
    /// # Errors
    /// `Layout`: daemon and worker are of different versions; `Clock`: they are in different time namespaces; `Foreign`,
    /// `System`.
    pub fn attach(socket: OwnedFd) -> Result<Self, Error> {
        Self::attach_since(socket, 0)
    }

    /// As [`Reader::attach`], for who read the clock, [`now`], before it asked for an arena: a daemon that read its own
    /// clock before that reads another one.
    ///
    /// # Errors
    /// As [`Reader::attach`].
    pub fn attach_since(socket: OwnedFd, asked: u64) -> Result<Self, Error> {
        let descriptors = crate::pass::receive_since(&socket, asked)?;
        Self::mapped(descriptors, Some(socket))
    }

    /// Maps what the daemon gave. What says to the daemon that this worker lives, its socket as a rule, is the caller's to
    /// keep until the reader, its clones and all values that it gave are dropped: what they read is written over behind
    /// that. [`Reader::attach`] sees to it.
    ///
    /// # Errors
    /// As [`Reader::attach`].
    pub fn map(descriptors: Descriptors) -> Result<Self, Error> {
        Self::mapped(descriptors, None)
    }

    fn mapped(descriptors: Descriptors, socket: Option<OwnedFd>) -> Result<Self, Error> {
        let Descriptors { header, page, segments } = descriptors;
        let words = files::size(header.as_fd())?;
        files::check(header.as_fd(), (2 * PAGE_BYTES) as u64, Writers::Present)?;
        let header = Mapped::whole(header.as_fd(), words as usize, Access::Read)?;
        let terms = Terms::read(&header)?;
        if terms.directory_words as usize * WORD + PAGE_BYTES > words as usize {
            return Err(Error::Foreign("the header is shorter than it says"));
        }
        files::check(page.as_fd(), WORKER_BYTES as u64, Writers::All)?;
        let page = Mapped::whole(page.as_fd(), WORKER_BYTES, Access::Write)?;
        if page.load(worker::MAGIC, Acquire) != WORKER_MAGIC {
            return Err(Error::Foreign("the worker's page does not begin as one"));
        }
        if page.load(worker::LAYOUT, Acquire) != u64::from(VERSION) {
            return Err(Error::Layout { found: page.load(worker::LAYOUT, Acquire), known: VERSION });
        }
        // A child has no pins of its own, and no way to those of its parent.
        page.dont_fork()?;
        let data = Mapped::reserve(terms.data_bytes as usize, Access::Read, true)?;
        let view = View::new(Arc::new(header), Arc::new(data), Arc::new(page), terms);
        let (canary, mapped) = (Canary::new()?, Mutex::new(0));
        let reader =
            Self(Arc::new(Attached { view, canary, is_own: false, segments: mapped, _socket: socket }));
        reader.extend(0, segments)?;
        Ok(reader)
    }

    /// The daemon's own reader: of what the daemon has mapped.
    pub(crate) fn own(
        header: Arc<Mapped>,
        data: &Segments,
        page: &Page<Arc<Mapped>>,
        terms: Terms,
    ) -> Result<Self, Error> {
        let view = View::new(header, data.mapped(), Arc::clone(&page.memory), terms);
        let (canary, segments) = (Canary::new()?, Mutex::new(0));
        Ok(Self(Arc::new(Attached { view, canary, is_own: true, segments, _socket: None })))
    }

    /// Maps further segments, of which the first is number `from`. Each says itself which it is; those that another thread
    /// mapped meanwhile are passed over, so threads may ask for the same ones.
    ///
    /// # Errors
    /// `Foreign`: also if one is not the one that it is said to be, is of another arena, or does not follow those that are
    /// mapped; `Layout`, `System`.
    pub fn extend(&self, from: usize, segments: Vec<OwnedFd>) -> Result<(), Error> {
        let attached = &*self.0;
        if attached.is_own {
            return Ok(());
        }
        let mut mapped = attached.segments.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (i, segment) in segments.into_iter().enumerate() {
            files::check(segment.as_fd(), PAGE_BYTES as u64, Writers::Present)?;
            let stamp = Stamp::read(segment.as_fd())?;
            if stamp.incarnation != attached.view.terms.incarnation {
                return Err(Error::Foreign("a segment is of another start of the daemon"));
            }
            if stamp.number != (from + i) as u64 {
                return Err(Error::Foreign("a segment is not the one that it is said to be"));
            }
            if stamp.number < *mapped as u64 {
                continue;
            }
            if stamp.number > *mapped as u64 {
                return Err(Error::Foreign("its segments do not follow those that are mapped"));
            }
            let bytes = |pages: u64| usize::try_from(pages.saturating_mul(PAGE_BYTES as u64)).ok();
            let (Some(at), Some(len)) = (bytes(stamp.first_page), bytes(stamp.pages)) else {
                return Err(Error::Foreign("a segment is larger than this machine's addresses"));
            };
            attached.view.data.add(segment.as_fd(), at, len, || Ok(()))?;
            *mapped += 1;
        }
        Ok(())
    }

    /// How many segments are mapped, and how many the daemon has.
    pub fn segments(&self) -> (usize, usize) {
        let there = self.0.view.header.load(header::SEGMENTS, Acquire) as usize;
        let mapped = *self.0.segments.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        (if self.0.is_own { there } else { mapped }, there)
    }

    /// Tells one start of the daemon from every other.
    pub fn incarnation(&self) -> [u64; 2] {
        self.0.view.terms.incarnation
    }

    /// Until when names are served, in nanoseconds of `CLOCK_BOOTTIME`; 0: not now.
    pub fn valid_until(&self) -> u64 {
        self.0.view.header.load(header::VALID_UNTIL, Acquire)
    }

    /// Bytes of values that this worker has pinned, and that it may have.
    pub fn pinned(&self) -> (u64, u64) {
        (self.0.view.held(), self.0.view.terms.pin_bytes_max)
    }

    /// Whether the daemon took this worker for one that hoards: it can pin nothing more until it attaches anew.
    pub fn is_revoked(&self) -> bool {
        crate::pins::is_revoked(&self.0.view.page)
    }

    /// Whether this is still the process that attached.
    #[inline]
    pub fn is_mine(&self) -> bool {
        self.0.canary.is_mine()
    }

    /// The value of `key`. No system call, no wake-up; larger values are not copied.
    ///
    /// # Errors
    /// Why there is none to be had here.
    #[inline]
    pub fn get(&self, key: &[u8]) -> Result<Value, Miss> {
        if !self.is_mine() {
            return Err(Miss::Forked);
        }
        let mut value = Value::new();
        self.0.view.serve(key, |candidate| self.take(candidate, &mut value), now)?;
        Ok(value)
    }

    /// What `key` was bound to when the node heard of it last: whatever the lease, the era and the name's end. Only for who
    /// checks those itself, or says that its answers may be stale.
    ///
    /// # Errors
    /// As [`Reader::get`], but never `Lapsed`.
    #[inline]
    pub fn get_stale(&self, key: &[u8]) -> Result<Value, Miss> {
        if !self.is_mine() {
            return Err(Miss::Forked);
        }
        let mut value = Value::new();
        self.0.view.serve_stale(key, |candidate| self.take(candidate, &mut value))?;
        Ok(value)
    }

    /// The value of the row at `unit`, which nobody changes meanwhile.
    pub(crate) fn row(&self, unit: u32) -> Result<Value, Miss> {
        let mut value = Value::new();
        self.take(&self.0.view.row(unit), &mut value)?;
        Ok(value)
    }

    /// Copies the value of `key` to `to`, in place of what was there. Nothing stays pinned.
    ///
    /// # Errors
    /// As [`Reader::get`]; `to` then holds nothing of use.
    #[inline]
    pub fn get_into(&self, key: &[u8], to: &mut Vec<u8>) -> Result<Meta, Miss> {
        if !self.is_mine() {
            return Err(Miss::Forked);
        }
        let copy_max = self.0.view.terms.copy_max;
        if let Some(meta) = self.copy(key, to, copy_max, usize::MAX)? {
            return Ok(meta);
        }
        // A large value that others of its chain change under would be copied again and again: it is held meanwhile.
        match self.get(key) {
            Ok(value) => {
                to.clear();
                to.extend_from_slice(value.try_bytes().ok_or(Miss::Forked)?);
                Ok(*value.meta())
            }
            Err(Miss::PinBudget { .. }) => self.copy(key, to, u64::MAX, COPIES_MAX)?.ok_or(Miss::Busy),
            Err(why) => Err(why),
        }
    }

    /// Copies a value of at most `size_max` bytes, beginning at most `times`; `None`: it would take more.
    #[inline]
    fn copy(
        &self,
        key: &[u8],
        to: &mut Vec<u8>,
        size_max: u64,
        mut times: usize,
    ) -> Result<Option<Meta>, Miss> {
        let (view, mut meta) = (&self.0.view, Meta::default());
        let mut is_over = false;
        let copied = |candidate: &Candidate| {
            if !view.is_mapped(candidate) {
                return Err(Miss::Unmapped);
            }
            is_over = candidate.meta.size > size_max || times == 0;
            if is_over {
                return Err(Miss::Busy);
            }
            // A length that does not hold is not made room for.
            if candidate.meta.size > COPY_UNCHECKED && !candidate.chain.holds(&view.data) {
                return Err(Miss::Busy);
            }
            times -= 1;
            to.resize(candidate.meta.size as usize, 0);
            view.data.read(candidate.at, to);
            meta = candidate.meta;
            Ok(())
        };
        match view.serve(key, copied, now) {
            Ok(()) => Ok(Some(meta)),
            Err(Miss::Busy) if is_over => Ok(None),
            Err(why) => Err(why),
        }
    }

    #[inline]
    fn take(&self, candidate: &Candidate, value: &mut Value) -> Result<(), Miss> {
        let view = &self.0.view;
        if !view.is_mapped(candidate) {
            return Err(Miss::Unmapped);
        }
        value.meta = candidate.meta;
        // What is dropped costs a look also where there is nothing to drop.
        if candidate.note.1 > 0 || value.note.is_some() {
            value.note = self.note(candidate);
        }
        let size = candidate.meta.size as usize;
        if size <= INLINE_MAX {
            if !matches!(value.body, Body::Inline(_)) {
                value.body = Body::Inline([0; INLINE_MAX]);
            }
            if let Body::Inline(bytes) = &mut value.body {
                view.data.read(candidate.at, &mut bytes[..size]);
            }
        } else if candidate.meta.size <= view.terms.copy_max {
            let mut bytes = vec![0; size].into_boxed_slice();
            view.data.read(candidate.at, &mut bytes);
            value.body = Body::Copied(bytes);
        } else {
            // The pin of an attempt that did not hold is not to count against this one.
            value.body = Body::Nothing;
            value.body = self.pin(candidate)?;
        }
        Ok(())
    }

    #[inline]
    fn note(&self, candidate: &Candidate) -> Option<Box<[u8]>> {
        let (at, len) = candidate.note;
        (len > 0).then(|| {
            let mut note = vec![0; len].into_boxed_slice();
            self.0.view.data.read(at, &mut note);
            note
        })
    }

    fn pin(&self, candidate: &Candidate) -> Result<Body, Miss> {
        let pin = self.0.view.pin(candidate)?;
        Ok(Body::Pinned(Pinned { reader: Arc::clone(&self.0), pin, at: candidate.at }))
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("terms", &self.0.view.terms).finish_non_exhaustive()
    }
}

const _: () = {
    const fn shared_by_threads<T: Send + Sync>() {}
    shared_by_threads::<Value>();
    shared_by_threads::<Reader>();
};
