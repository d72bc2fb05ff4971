//! One segment file: its name, its header, and the reading of batches from it.
//!
//! Invariants: a file is called `<sequence>.journal` only after its header was fsynced; one that is being made
//! is `<sequence>.new` and worth nothing; one that waits to be used again is `<sequence>.spare`.
//! Reading holds at most one batch, or one window, in memory.

use super::format::{BATCH_HEADER, BLOCK, BatchHeader, DATA_START, HeaderFault, SegmentHeader};
use super::refusal::Refusal;
use dstore_shared::Revision;
use dstore_sys::disk::{Disk, DiskFile, Open};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How much is read ahead: large enough that small batches cost no call each.
const WINDOW: usize = 1 << 20;

/// What a file of the journal's directory is there for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    Live,
    New,
    Spare,
}

impl Role {
    fn suffix(self) -> &'static str {
        match self {
            Self::Live => "journal",
            Self::New => "new",
            Self::Spare => "spare",
        }
    }

    /// The file's path.
    pub(super) fn path(self, dir: &Path, sequence: u64) -> PathBuf {
        dir.join(format!("{sequence:016x}.{}", self.suffix()))
    }

    /// What a file name says; `None` for files that are not the journal's.
    pub(super) fn parse(name: &str) -> Option<(Self, u64)> {
        let (number, suffix) = name.split_once('.')?;
        let role = [Self::Live, Self::New, Self::Spare].into_iter().find(|r| r.suffix() == suffix)?;
        let sequence = u64::from_str_radix(number, 16).ok()?;
        (number == format!("{sequence:016x}") && sequence < u64::MAX).then_some((role, sequence))
    }
}

/// The last part of a path, for messages.
pub(super) fn name_of(path: &Path) -> String {
    path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

/// An open segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) header: SegmentHeader,
    /// Bytes that can be read: fewer than the header says if the file was cut.
    pub(super) bytes: u64,
}

impl Segment {
    /// Opens a live segment.
    pub(super) fn open(disk: &dyn Disk, path: PathBuf, sequence: u64) -> Result<Self, Refusal> {
        let name = || name_of(&path);
        let read = |source| Refusal::Unreadable { segment: name(), source };
        let file: Arc<dyn DiskFile> = disk.open(&path, Open::Write).map_err(read)?.into();
        let len = file.len().map_err(read)?;
        let mut both = vec![0; DATA_START.min(len) as usize];
        file.read_exact_at(&mut both, 0).map_err(read)?;
        let header = match SegmentHeader::decode(&both) {
            Ok(header) => header,
            Err(HeaderFault::Newer(format)) => return Err(Refusal::Newer { segment: name(), format }),
            Err(HeaderFault::Damaged) => return Err(Refusal::Header { segment: name() }),
        };
        if header.sequence != sequence {
            return Err(Refusal::Misnamed { segment: name(), sequence: header.sequence });
        }
        Ok(Self { bytes: header.length.min(len), path, file, header })
    }

    pub(super) fn name(&self) -> String {
        name_of(&self.path)
    }

    /// The revision up to which everything was durable when a batch of this segment was written: what precedes the
    /// batch, and it itself was to be, or in a relaxed segment what it says.
    pub(super) fn proves(&self, batch: &BatchHeader) -> Revision {
        if self.header.relaxed { batch.durable } else { batch.last }
    }

    /// Whether the file lost its end.
    pub(super) fn is_cut(&self) -> bool {
        self.bytes < self.header.length
    }
}

/// Why there is no batch at a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Bad {
    /// Less than a header's room is left.
    #[error("the segment ends there")]
    End,
    /// Zeros.
    #[error("nothing is written there")]
    Blank,
    /// No header of this use of the segment.
    #[error("the batch header does not match its checksum")]
    Header,
    /// A whole header, but the payload would end behind the segment.
    #[error("the batch is longer than what is left of the segment")]
    Length,
    /// A whole header, another payload.
    #[error("the payload does not match its checksum")]
    Payload,
    /// Whole, but voided by a later origin.
    #[error("what follows was written again elsewhere")]
    Superseded,
}

/// Reads batches through a window.
#[derive(Default, Debug)]
pub(super) struct Reader {
    buffer: Vec<u8>,
    /// How much of it holds bytes of the segment `sequence`, from `at` on.
    filled: usize,
    sequence: Option<u64>,
    at: u64,
}

/// A batch, or why there is none.
pub(super) type Found<'a> = Result<(BatchHeader, &'a [u8]), Bad>;

impl Reader {
    /// The batch at `at`.
    ///
    /// # Errors
    /// Those of reading; a bad batch is a result.
    pub(super) fn batch(&mut self, segment: &Segment, at: u64) -> io::Result<Found<'_>> {
        let bytes = self.view(segment, at, BATCH_HEADER as u64)?;
        if bytes.len() < BATCH_HEADER {
            return Ok(Err(Bad::End));
        }
        let Some(header) = BatchHeader::decode(bytes, segment.header.salt, at) else {
            let blank = is_blank(self.view(segment, at, BLOCK)?);
            return Ok(Err(if blank { Bad::Blank } else { Bad::Header }));
        };
        if header.length > segment.bytes - at - BATCH_HEADER as u64 {
            return Ok(Err(Bad::Length));
        }
        let payload = &self.view(segment, at, BATCH_HEADER as u64 + header.length)?[BATCH_HEADER..];
        Ok(if header.fits(payload, segment.header.salt, at) {
            Ok((header, payload))
        } else {
            Err(Bad::Payload)
        })
    }

    /// The first valid batch at or after `from` whose last revision is above `above`.
    pub(super) fn search(
        &mut self,
        segment: &Segment,
        from: u64,
        above: Revision,
    ) -> io::Result<Option<(u64, BatchHeader)>> {
        self.search_by(segment, from, |header| header.last > above)
    }

    /// The first valid batch at or after `from` that is `wanted`.
    pub(super) fn search_by(
        &mut self,
        segment: &Segment,
        from: u64,
        mut wanted: impl FnMut(&BatchHeader) -> bool,
    ) -> io::Result<Option<(u64, BatchHeader)>> {
        for at in (from..segment.bytes).step_by(BLOCK as usize) {
            if !BatchHeader::is_likely(self.view(segment, at, BATCH_HEADER as u64)?) {
                continue;
            }
            if let Ok((header, _)) = self.batch(segment, at)?
                && wanted(&header)
            {
                return Ok(Some((at, header)));
            }
        }
        Ok(None)
    }

    /// Whether any byte from `from` on is not zero.
    pub(super) fn is_written(&mut self, segment: &Segment, from: u64) -> io::Result<bool> {
        for at in (from..segment.bytes).step_by(BLOCK as usize) {
            if !is_blank(self.view(segment, at, BLOCK)?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The `len` bytes at `at`, or as many as there are.
    pub(super) fn view(&mut self, segment: &Segment, at: u64, len: u64) -> io::Result<&[u8]> {
        let end = segment.bytes.min(at + len).max(at);
        let loaded = self.sequence == Some(segment.header.sequence)
            && self.at <= at
            && end <= self.at + self.filled as u64;
        if !loaded {
            self.load(segment, at, len)?;
        }
        let start = (at - self.at) as usize;
        Ok(&self.buffer[start..start + (end - at) as usize])
    }

    fn load(&mut self, segment: &Segment, at: u64, len: u64) -> io::Result<()> {
        self.sequence = None;
        let wanted = (len as usize).max(WINDOW) as u64;
        let end = segment.bytes.min(at + wanted).max(at);
        let len = (end - at) as usize;
        if self.buffer.len() < len || self.buffer.len() > 2 * len.max(WINDOW) {
            self.buffer = vec![0; len.max(WINDOW.min(segment.bytes as usize))];
        }
        segment.file.read_exact_at(&mut self.buffer[..len], at)?;
        (self.sequence, self.at, self.filled) = (Some(segment.header.sequence), at, len);
        Ok(())
    }
}

/// Whether at most a block of bytes is zeros; one comparison, because whole segments are searched.
fn is_blank(block: &[u8]) -> bool {
    static ZEROS: [u8; BLOCK as usize] = [0; BLOCK as usize];
    block == &ZEROS[..block.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_names_are_the_journals() {
        let dir = Path::new("/j");
        for role in [Role::Live, Role::New, Role::Spare] {
            assert_eq!(Role::parse(&name_of(&role.path(dir, 0xabc))), Some((role, 0xabc)));
        }
        for other in ["LOCK", "1.journal", "000000000000000G.journal", "0000000000000001.journal.bak", ""] {
            assert_eq!(Role::parse(other), None, "{other}");
        }
    }
}
