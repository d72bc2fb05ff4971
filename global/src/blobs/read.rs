//! Reads blobs: group by group, each verified before it is passed on.
//!
//! Invariants: the outline is verified against the hash, each group against the outline; at most
//! [`JOBS_AHEAD`] times [`JOB_GROUPS`] groups of a reader are in memory beyond what it was given; the blob is
//! pinned until the reader and its last job are gone. Damage marks the hash.
//! Must never pass on a byte that was not verified.

use super::format::{BadHeader, Header, PAGE, crc};
use super::pins::Pin;
use super::spare::Spares;
use super::started::Started;
use super::stats::{Buffer, count};
use super::{Blobs, failed};
use bytes::Bytes;
use dstore_proto::store::{BodyStream, Slice};
use dstore_shared::{BlobHash, Error, GROUP_BYTES, Outline, Result};
use dstore_sys::disk::{DiskFile, Open};
use futures_util::stream::{self, StreamExt};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use thiserror::Error;

/// Reads under way before they are asked for: enough to keep two threads busy.
const JOBS_AHEAD: usize = 2;
/// Groups of 256 KiB that are read at a time: one is quick, but then waking a thread for it shows.
const JOB_GROUPS: u64 = 2;
const GROUP: u64 = GROUP_BYTES as u64;

/// A blob that is being read.
pub struct BlobRead {
    /// Length of the whole blob in bytes.
    pub size: u64,
    /// Verified against the hash; empty for a blob of one group.
    pub outline: Arc<Outline>,
    /// The bytes that `stream` gives.
    pub range: Range<u64>,
    /// The bytes, in order, in pieces of at most 256 KiB that end where groups end, all verified. An error
    /// (`Corrupt`) ends it. Dropping it ends the read.
    pub stream: BodyStream,
}

impl fmt::Debug for BlobRead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobRead({:?} of {} B)", self.range, self.size)
    }
}

/// Why a file cannot be read as the blob it should be.
#[derive(Debug, Error)]
pub(super) enum Bad {
    #[error("there is no such file")]
    Absent,
    #[error("{0}")]
    Damaged(String),
    #[error("{0}")]
    Newer(BadHeader),
    #[error("it could not be opened")]
    Unopened(#[source] io::Error),
}

impl Bad {
    fn damaged(what: impl fmt::Display) -> Self {
        Self::Damaged(what.to_string())
    }
}

/// Opens the file of `hash` and checks its header and length. Blocks.
pub(super) fn open(blobs: &Blobs, hash: &BlobHash) -> Result<(Box<dyn DiskFile>, Header), Bad> {
    let path = blobs.0.layout.blob(hash);
    let file = blobs.0.sys.disk.open(&path, Open::Read).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Bad::Absent,
        _ => Bad::Unopened(e),
    })?;
    let mut page = [0; PAGE];
    // A sector that cannot be read is damage as well: only writing the bytes anew heals it.
    file.read_exact_at(&mut page, 0).map_err(Bad::damaged)?;
    let header = Header::decode(&page).map_err(|e| match e {
        BadHeader::Newer(_) => Bad::Newer(e),
        _ => Bad::damaged(e),
    })?;
    if header.hash != *hash {
        return Err(Bad::damaged(format!("its header is of blake3:{}", header.hash)));
    }
    let (len, due) = (file.len().map_err(Bad::damaged)?, header.file_len());
    if len != due {
        return Err(Bad::damaged(format!("it has `{len}` bytes instead of `{due}`")));
    }
    Ok((file, header))
}

impl Blobs {
    /// Reads a slice of the blob with `hash`, which its entry says has `size` bytes. `Ok(None)`: there is
    /// no such file; resolve the name again.
    ///
    /// # Errors
    /// `Invalid` for a slice past the end, `Corrupt` if header or outline do not match (the hash is then
    /// marked), `Exhausted` if too many blobs are in use, `Unavailable` if the file cannot be opened or is
    /// of a newer format.
    ///
    /// # Cancel safety
    /// Safe: a cancelled call has no effect.
    pub async fn read(&self, hash: BlobHash, size: u64, slice: Slice) -> Result<Option<BlobRead>> {
        let range = slice.within(size)?;
        let pin = self.pin(hash)?;
        let blobs = self.clone();
        let opened = self.0.sys.blocking.run(move || Reader::open(blobs, pin, size)).await?;
        let Some((reader, only)) = opened else { return Ok(None) };
        let outline = reader.outline.clone();
        let stream = match only {
            Some(group) => {
                let slice = group.slice(range.start as usize..range.end as usize);
                stream::iter((!slice.is_empty()).then_some(Ok(slice))).boxed()
            }
            None => Arc::new(reader).stream(range.clone()),
        };
        Ok(Some(BlobRead { size, outline, range, stream }))
    }

    /// The size of the blob with `hash`, if its file is there, looks whole and is not marked. Blocks.
    pub(super) fn held(&self, hash: &BlobHash) -> Result<Option<u64>> {
        if !self.0.marks.trusts(hash) {
            return Ok(None);
        }
        match open(self, hash) {
            Ok((_, header)) => Ok(Some(header.size)),
            Err(Bad::Absent | Bad::Damaged(_)) => Ok(None),
            Err(bad) => Err(unreadable(hash, bad)),
        }
    }
}

fn unreadable(hash: &BlobHash, bad: Bad) -> Error {
    match bad {
        Bad::Unopened(e) => failed("a blob's file could not be opened", e),
        bad => Error::unavailable(format!("the file of blake3:{hash} cannot be read: {bad}")),
    }
}

/// An open blob.
struct Reader {
    blobs: Blobs,
    file: Box<dyn DiskFile>,
    hash: BlobHash,
    size: u64,
    outline: Arc<Outline>,
    /// Which replacements of files were known when this one was opened.
    replaced: u64,
    spares: Spares,
    _pin: Pin,
}

impl Reader {
    /// Opens and verifies; the bytes of a blob of one group are read at once. Blocks.
    fn open(blobs: Blobs, pin: Pin, size: u64) -> Result<Option<(Self, Option<Bytes>)>> {
        let (hash, replaced) = (pin.hash(), blobs.0.marks.replaced(&pin.hash()));
        let opened = open(&blobs, &hash).and_then(|(file, header)| {
            if header.size != size {
                let found = header.size;
                return Err(Bad::damaged(format!("it is of `{found}` bytes, its entry of `{size}`")));
            }
            let outline = read_outline(&*file, &header)?;
            Ok((file, Arc::new(outline)))
        });
        let (file, outline) = match opened {
            Ok(opened) => opened,
            Err(Bad::Absent) => return Ok(None),
            Err(Bad::Damaged(what)) => return Err(blobs.damaged(hash, replaced, &what)),
            Err(bad) => return Err(unreadable(&hash, bad)),
        };
        let spares =
            Spares::new(JOBS_AHEAD, (JOB_GROUPS * GROUP).min(size) as usize, &blobs.0.counters.gauge);
        let reader = Self { blobs, file, hash, size, outline, replaced, spares, _pin: pin };
        let only = if size <= GROUP { Some(reader.only()?) } else { None };
        Ok(Some((reader, only)))
    }

    /// Reads and verifies the blob of one group. Blocks.
    fn only(&self) -> Result<Bytes> {
        let mut bytes = Buffer::zeros(self.size as usize, &self.blobs.0.counters.gauge);
        self.fill(bytes.as_mut(), 0)?;
        self.check(0, bytes.as_ref())?;
        Ok(Bytes::from_owner(bytes))
    }

    fn fill(&self, bytes: &mut [u8], start: u64) -> Result<()> {
        let read = self.file.read_exact_at(bytes, PAGE as u64 + start);
        read.map_err(|e| self.blobs.damaged(self.hash, self.replaced, &e.to_string()))
    }

    fn check(&self, index: u64, bytes: &[u8]) -> Result<()> {
        if self.outline.matches(index, bytes, self.hash) {
            return Ok(());
        }
        let what = format!("the bytes from `{}` on are not what they should be", index * GROUP);
        Err(self.blobs.damaged(self.hash, self.replaced, &what))
    }

    /// Reads `groups` at once, verifies each, and cuts it to `range`; ends with the first error. Blocks.
    fn pieces(&self, groups: Range<u64>, range: &Range<u64>) -> VecDeque<Result<Bytes>> {
        let start = groups.start * GROUP;
        let len = ((groups.end * GROUP).min(self.size) - start) as usize;
        let mut lent = self.spares.take();
        if let Err(e) = self.fill(&mut lent.as_mut()[..len], start) {
            return [Err(e)].into();
        }
        let bytes = Bytes::from_owner(lent).slice(..len);
        let mut pieces = VecDeque::with_capacity(JOB_GROUPS as usize);
        for index in groups {
            let at = index * GROUP - start;
            let group = bytes.slice(at as usize..len.min((at + GROUP) as usize));
            if let Err(e) = self.check(index, &group) {
                pieces.push_back(Err(e));
                break;
            }
            let from = range.start.saturating_sub(start + at) as usize;
            let to = (range.end - (start + at)).min(GROUP) as usize;
            pieces.push_back(Ok(group.slice(from..to)));
        }
        pieces
    }

    /// The pieces of `range`, read ahead, ending after an error.
    fn stream(self: Arc<Self>, range: Range<u64>) -> BodyStream {
        let groups = if range.is_empty() { 0..0 } else { range.start / GROUP..range.end.div_ceil(GROUP) };
        let (ready, ahead) = (VecDeque::new(), VecDeque::with_capacity(JOBS_AHEAD));
        stream::unfold((groups, ahead, ready), move |(mut groups, mut ahead, mut ready)| {
            while ready.is_empty() && ahead.len() < JOBS_AHEAD && !groups.is_empty() {
                let next = groups.start..groups.end.min(groups.start + JOB_GROUPS);
                groups.start = next.end;
                let (reader, range) = (self.clone(), range.clone());
                let job = self.blobs.0.sys.blocking.run(move || reader.pieces(next, &range));
                ahead.push_back(Started::new(job));
            }
            async move {
                if ready.is_empty() {
                    ready = ahead.pop_front()?.wait().await;
                }
                let piece: Result<Bytes> = ready.pop_front()?;
                if piece.is_err() {
                    (groups, ahead) = (0..0, VecDeque::new());
                }
                Some((piece, (groups, ahead, ready)))
            }
        })
        .fuse()
        .boxed()
    }
}

fn read_outline(file: &dyn DiskFile, header: &Header) -> Result<Outline, Bad> {
    // The length was checked against that of the file: nobody makes us allocate by a made-up size.
    let mut encoded = vec![0; super::format::outline_len(header.size) as usize];
    file.read_exact_at(&mut encoded, header.outline_at()).map_err(Bad::damaged)?;
    if crc(&encoded) != header.outline_crc {
        return Err(Bad::damaged("the checksum of its outline does not match"));
    }
    Outline::verify(&encoded, header.size, header.hash).map_err(|e| Bad::damaged(e.message()))
}

impl Blobs {
    /// Marks `hash`, and says what was found.
    fn damaged(&self, hash: BlobHash, replaced: u64, what: &str) -> Error {
        count(&self.0.counters.corrupt_reads, 1);
        self.0.marks.found(hash, replaced);
        Error::corrupt(format!("the file of blake3:{hash} is damaged, {what}: set the value again"))
    }
}
