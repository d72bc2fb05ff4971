//! Reads what a journal holds and decides: whole, torn at its tail, or to be refused.
//!
//! The segments are put in order of sequence. An *origin* says after which revision the journal goes on in it;
//! whatever earlier segments hold beyond that is void. From the segment that holds the first revision after the
//! checkpoint the batches are walked, each tied to the one before by its header's checksum, until one is bad.
//! A bad batch is the torn tail iff no valid batch of a higher revision follows anywhere and nobody knows of a
//! revision at or past it; otherwise acknowledged writes are damaged, and the journal is refused. A valid batch of a
//! *relaxed* segment may follow a lost one: there only what the batch says was durable before it counts, and the
//! journal is cut at the first bad batch.
//!
//! Invariants: nothing on the disk is changed here; memory holds one batch or one window.

use super::format::{BatchHeader, DATA_START};
use super::refusal::Refusal;
use super::segment::{Bad, Reader, Role, Segment};
use super::{Floors, Torn};
use dstore_shared::{Result, Revision};
use dstore_sys::disk::Disk;
use std::path::{Path, PathBuf};

/// A file that serves nobody any more.
#[derive(Debug)]
pub(super) struct Stale {
    pub(super) path: PathBuf,
    pub(super) sequence: u64,
    pub(super) bytes: u64,
}

/// What lies in a journal's directory.
#[derive(Debug)]
pub(super) struct Survey {
    /// Segments in order of sequence, without those that a later origin voids altogether.
    pub(super) segments: Vec<Surveyed>,
    /// Voided segments.
    pub(super) void: Vec<Stale>,
    /// Segments that wait for their next use.
    pub(super) spares: Vec<Stale>,
    /// Segments that were being made.
    pub(super) unfinished: Vec<PathBuf>,
    /// Larger than every sequence in use.
    pub(super) next_sequence: u64,
}

/// A segment and its place among the others.
#[derive(Debug)]
pub(super) struct Surveyed {
    pub(super) segment: Segment,
    /// First revision, if the first batch has a whole header or the segment is an origin.
    pub(super) first: Option<Revision>,
    /// Last revision that counts here; later ones are void.
    pub(super) limit: Revision,
}

impl Survey {
    /// Looks at every file.
    pub(super) fn take(disk: &dyn Disk, dir: &Path) -> Result<Self, Refusal> {
        let read = |source| Refusal::Unreadable { segment: dir.display().to_string(), source };
        let mut found = Self {
            segments: Vec::new(),
            void: Vec::new(),
            spares: Vec::new(),
            unfinished: Vec::new(),
            next_sequence: 1,
        };
        let mut live = Vec::new();
        for entry in disk.list(dir).map_err(read)? {
            let Some((role, sequence)) = Role::parse(&entry.name) else { continue };
            found.next_sequence = found.next_sequence.max(sequence.saturating_add(1));
            let path = dir.join(&entry.name);
            match role {
                Role::Live => live.push(Segment::open(disk, path, sequence)?),
                Role::New => found.unfinished.push(path),
                Role::Spare => found.spares.push(Stale { path, sequence, bytes: entry.len }),
            }
        }
        live.sort_by_key(|segment| segment.header.sequence);
        found.place(live)?;
        Ok(found)
    }

    /// Gives each segment its limit, from the last to the first.
    fn place(&mut self, live: Vec<Segment>) -> Result<(), Refusal> {
        let mut reader = Reader::default();
        let mut limit = Revision(u64::MAX);
        for segment in live.into_iter().rev() {
            let first = match segment.header.origin {
                Some(base) => Some(base.next()),
                None => first_revision(&mut reader, &segment)?,
            };
            if is_void(&mut reader, &segment, first, limit)? {
                self.void.push(Stale::of(&segment));
            } else {
                self.segments.push(Surveyed { segment, first, limit });
            }
            let origin = self.segments.last().and_then(|s| s.segment.header.origin);
            limit = limit.min(origin.unwrap_or(limit));
        }
        self.segments.reverse();
        Ok(())
    }

    /// Voids the segments behind the one in which a walk ended: they were never used, or torn at once.
    pub(super) fn drop_unused(&mut self, end: &End) {
        self.void.extend(self.segments.drain(end.index + 1..).map(|s| Stale::of(&s.segment)));
    }

    /// Takes in a new origin, which voids what lies beyond its base.
    pub(super) fn add(&mut self, segment: Segment, base: Revision) {
        self.next_sequence = self.next_sequence.max(segment.header.sequence + 1);
        for mut before in std::mem::take(&mut self.segments) {
            before.limit = before.limit.min(base);
            if before.first.is_some_and(|first| first > base) {
                self.void.push(Stale::of(&before.segment));
            } else {
                self.segments.push(before);
            }
        }
        self.segments.push(Surveyed { segment, first: Some(base.next()), limit: Revision(u64::MAX) });
    }

    /// The segment to start from in order to read what follows `checkpoint`.
    fn start(&self, checkpoint: Revision) -> Result<usize, Refusal> {
        let holds = |s: &Surveyed| s.first.is_some_and(|first| first.0 <= checkpoint.0.saturating_add(1));
        self.segments.iter().rposition(holds).ok_or(Refusal::Begins { checkpoint })
    }
}

impl Stale {
    pub(super) fn of(segment: &Segment) -> Self {
        Self { path: segment.path.clone(), sequence: segment.header.sequence, bytes: segment.bytes }
    }
}

/// Whether nothing in the segment counts. One without a first batch may be a spare that an open voided and a
/// crash kept from being retired, or be damaged; the search tells.
fn is_void(
    reader: &mut Reader,
    segment: &Segment,
    first: Option<Revision>,
    limit: Revision,
) -> Result<bool, Refusal> {
    if let Some(first) = first {
        return Ok(first > limit);
    }
    if limit == Revision(u64::MAX) {
        return Ok(false);
    }
    // Of a relaxed one the first batch may have been lost, and not those after it: they are void as it is.
    let counts = |header: &BatchHeader| !segment.header.relaxed || header.first <= limit;
    let found = reader.search_by(segment, DATA_START, counts);
    Ok(found.map_err(|source| unreadable(segment, source))?.is_none())
}

fn first_revision(reader: &mut Reader, segment: &Segment) -> Result<Option<Revision>, Refusal> {
    let bytes = reader.view(segment, DATA_START, super::format::BATCH_HEADER as u64);
    let bytes = bytes.map_err(|source| Refusal::Unreadable { segment: segment.name(), source })?;
    Ok(BatchHeader::decode(bytes, segment.header.salt, DATA_START).map(|header| header.first))
}

/// Where a walk ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    /// Index into the survey's segments.
    pub(super) index: usize,
    /// Offset of the first byte after the last batch.
    pub(super) at: u64,
    /// Last revision that was read.
    pub(super) head: Revision,
    /// What the next batch would name as its predecessor.
    pub(super) chain: u64,
    bad: Bad,
}

/// Reads batches in order, over all segments.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    segments: &'a [Surveyed],
    reader: Reader,
    index: usize,
    at: u64,
    head: Revision,
    /// `None` before the first batch of a segment whose predecessor is gone: it is believed.
    chain: Option<u64>,
}

impl<'a> Walk<'a> {
    /// Will read what follows `checkpoint`, and what precedes it in the same segment.
    pub(super) fn after(survey: &'a Survey, checkpoint: Revision) -> Result<Self, Refusal> {
        let index = survey.start(checkpoint)?;
        let Surveyed { segment, first, .. } = &survey.segments[index];
        let head = Revision(first.map_or(0, |first| first.0 - 1));
        let chain = segment.header.origin.map(|_| segment.header.salt);
        Ok(Self { segments: &survey.segments, reader: Reader::default(), index, at: DATA_START, head, chain })
    }

    /// Will read what precedes the segment that [`Walk::after`] begins with: the last segments whose last revision is
    /// `wanted`, until they have `bytes`.
    pub(super) fn before(
        survey: &'a Survey,
        checkpoint: Revision,
        mut bytes: u64,
        wanted: impl Fn(Revision) -> bool,
    ) -> Result<Option<Self>, Refusal> {
        let start = survey.start(checkpoint)?;
        let (mut from, mut follows) = (start, survey.segments[start].first);
        for (i, before) in survey.segments[..start].iter().enumerate().rev() {
            let (Some(first), Some(next)) = (before.first, follows) else { break };
            let last = Revision(next.0.saturating_sub(1)).min(before.limit);
            if bytes == 0 || !wanted(last) {
                break;
            }
            if first <= last {
                bytes = bytes.saturating_sub(before.segment.bytes);
            }
            (from, follows) = (i, Some(first.min(next)));
        }
        let segments = &survey.segments[from..start];
        let Some(Surveyed { segment, first: Some(first), .. }) = segments.first() else { return Ok(None) };
        let (head, chain) =
            (Revision(first.0.saturating_sub(1)), segment.header.origin.map(|_| segment.header.salt));
        Ok(Some(Self { segments, reader: Reader::default(), index: 0, at: DATA_START, head, chain }))
    }

    /// Gives every batch to `sink`, up to the first that is bad.
    pub(super) fn run(&mut self, mut sink: impl FnMut(&BatchHeader, &[u8]) -> Result<()>) -> Result<End> {
        loop {
            let bad = self.run_segment(&mut sink)?;
            let Some((index, chain)) = self.goes_on()? else {
                let chain = self.chain.unwrap_or_default();
                return Ok(End { index: self.index, at: self.at, head: self.head, chain, bad });
            };
            (self.index, self.at, self.chain) = (index, DATA_START, Some(chain));
        }
    }

    fn run_segment(&mut self, sink: &mut impl FnMut(&BatchHeader, &[u8]) -> Result<()>) -> Result<Bad> {
        let Surveyed { segment, limit, .. } = &self.segments[self.index];
        loop {
            let found = self.reader.batch(segment, self.at);
            let (header, payload) = match found.map_err(|source| unreadable(segment, source))? {
                Ok((header, _)) if header.last > *limit => return Ok(Bad::Superseded),
                Ok(batch) => batch,
                Err(bad) => return Ok(bad),
            };
            if header.first != self.head.next() || self.chain.is_some_and(|chain| chain != header.previous) {
                let (head, first, offset) = (self.head, header.first, self.at);
                return Err(Refusal::OutOfOrder { segment: segment.name(), offset, head, first }.into());
            }
            sink(&header, payload)?;
            self.head = header.last;
            self.chain = Some(header.checksum);
            self.at += header.span();
        }
    }

    /// The segment that continues exactly here, and what its first batch names as predecessor.
    fn goes_on(&mut self) -> Result<Option<(usize, u64)>, Refusal> {
        for (index, Surveyed { segment, .. }) in self.segments.iter().enumerate().skip(self.index + 1) {
            match segment.header.origin {
                Some(base) if base == self.head => return Ok(Some((index, segment.header.salt))),
                Some(_) => return Ok(None),
                None => {}
            }
            let Some(chain) = self.chain else { return Ok(None) };
            let bytes = self.reader.view(segment, DATA_START, super::format::BATCH_HEADER as u64);
            let bytes = bytes.map_err(|source| unreadable(segment, source))?;
            let header = BatchHeader::decode(bytes, segment.header.salt, DATA_START);
            if header.is_some_and(|h| h.first == self.head.next() && h.previous == chain) {
                return Ok(Some((index, chain)));
            }
        }
        Ok(None)
    }

    /// Whether the walk may end where it ended, and what was torn there.
    ///
    /// # Errors
    /// The refusal, if acknowledged writes are missing.
    pub(super) fn judge(&mut self, end: &End, floors: &Floors) -> Result<Option<Torn>, Refusal> {
        // After a clean stop nothing was begun that could be torn, so the search is spared.
        let clean = self.is_clean(end, floors);
        if !clean && let Some((segment, offset, follows)) = self.follows(end)? {
            return Err(Refusal::Damaged {
                segment: self.segments[end.index].segment.name(),
                offset: end.at,
                revision: end.head.next(),
                reason: end.bad.to_string(),
                follows,
                follows_segment: segment.name(),
                follows_offset: offset,
            });
        }
        if let Some((witness, floor)) = floors.highest().filter(|(_, floor)| *floor > end.head) {
            return Err(Refusal::Behind {
                segment: self.segments[end.index].segment.name(),
                offset: end.at,
                head: end.head,
                reason: end.bad.to_string(),
                witness,
                floor,
            });
        }
        if clean {
            return Ok(None);
        }
        let (torn, cut) = (self.torn(end)?, self.cut_too(end)?);
        Ok(match (torn, cut) {
            (torn, None) => torn,
            (torn, Some((segment, offset, last))) => {
                let revision = end.head.next();
                let reason = torn.map_or_else(|| end.bad.to_string(), |torn| torn.reason);
                let reason = format!(
                    "{reason}; what follows it up to revision `{last}` was not durable either, and is cut with it"
                );
                Some(Torn { segment: segment.name(), offset, revision, reason })
            }
        })
    }

    /// Whether the journal ends where a clean stop left it, with nothing behind.
    pub(super) fn is_clean(&self, end: &End, floors: &Floors) -> bool {
        let segment = &self.segments[end.index].segment;
        let nothing = match end.bad {
            Bad::End | Bad::Blank => true,
            Bad::Header => segment.header.recycled,
            Bad::Length | Bad::Payload | Bad::Superseded => false,
        };
        floors.clean == Some(end.head) && nothing && !segment.is_cut()
    }

    /// A sign that revisions after the end were acknowledged.
    fn follows(&mut self, end: &End) -> Result<Option<(&'a Segment, u64, Revision)>, Refusal> {
        let segments = self.segments;
        for (index, Surveyed { segment, .. }) in segments.iter().enumerate().skip(end.index) {
            if index > end.index && segment.header.origin.is_some() {
                let base = segment.header.origin.unwrap_or_default();
                return Ok(Some((segment, 0, base)));
            }
            let from = if index == end.index { end.at } else { DATA_START };
            let found = self.reader.search_by(segment, from, |header| segment.proves(header) > end.head);
            let found = found.map_err(|source| unreadable(segment, source))?;
            if let Some((offset, header)) = found.filter(|_| end.bad != Bad::Superseded) {
                return Ok(Some((segment, offset, header.last)));
            }
        }
        Ok(None)
    }

    /// Whole batches behind the end of a relaxed journal that were acknowledged, perhaps, and must not count.
    fn cut_too(&mut self, end: &End) -> Result<Option<(&'a Segment, u64, Revision)>, Refusal> {
        let (segments, mut last) = (self.segments, Revision(0));
        for (index, Surveyed { segment, .. }) in segments.iter().enumerate().skip(end.index) {
            let from = if index == end.index { end.at } else { DATA_START };
            if segment.header.relaxed && end.bad != Bad::Superseded {
                let found = self.reader.search_by(segment, from, |header| {
                    last = last.max(header.last);
                    false
                });
                found.map_err(|source| unreadable(segment, source))?;
            }
        }
        Ok((last > end.head).then(|| (&segments[end.index].segment, end.at, last)))
    }

    fn torn(&mut self, end: &End) -> Result<Option<Torn>, Refusal> {
        let segments = self.segments;
        let revision = end.head.next();
        for (index, Surveyed { segment, .. }) in segments.iter().enumerate().skip(end.index) {
            let offset = if index == end.index { end.at } else { DATA_START };
            let found = self.remains(segment, offset, end);
            if let Some(reason) = found.map_err(|source| unreadable(segment, source))? {
                return Ok(Some(Torn { segment: segment.name(), offset, revision, reason }));
            }
        }
        Ok(None)
    }

    /// What is left of a batch that was begun at `at`.
    fn remains(&mut self, segment: &Segment, at: u64, end: &End) -> std::io::Result<Option<String>> {
        if segment.is_cut() {
            let cut = format!("the file has `{}` bytes of `{}`", segment.bytes, segment.header.length);
            return Ok(Some(cut));
        }
        let bad = match self.reader.batch(segment, at)? {
            Ok(_) | Err(Bad::End | Bad::Superseded) => return Ok(None),
            Err(bad @ (Bad::Length | Bad::Payload)) => return Ok(Some(bad.to_string())),
            Err(bad) => bad,
        };
        if !segment.header.recycled {
            return Ok(self.reader.is_written(segment, at)?.then(|| Bad::Header.to_string()));
        }
        // A recycled segment is full of old batches; only one that names our head as predecessor is ours.
        let bytes = self.reader.view(segment, at, super::format::BATCH_HEADER as u64)?;
        let ours = BatchHeader::was_to_follow(bytes, end.head, end.chain);
        Ok(ours.then(|| bad.to_string()))
    }
}

fn unreadable(segment: &Segment, source: std::io::Error) -> Refusal {
    Refusal::Unreadable { segment: segment.name(), source }
}
