//! Journals as a disk might give them, for the fuzz targets: segments made of a few words each, checksums right where
//! nothing was spoilt afterwards, so that what judges them is reached and not only what checks their sums.

use super::format::{
    BATCH_HEADER, BLOCK, BatchHeader, DATA_START, HeaderFault, Place, SegmentHeader, encode_batch, sum_right,
};
use super::segment::Role;
use super::{Batch, Floors, Journal, JournalConfig};
use dstore_shared::{Error, Kind, Result, Revision};
use dstore_sys::disk::{Disk, Open, SimDisk};
use dstore_sys::rng::SeededRng;
use dstore_sys::tasks::Blocking;
use dstore_sys::{Sys, clock, net};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const DIR: &str = "/data/journal";
/// Segments of one journal, and bytes of one.
const SEGMENTS_MAX: usize = 4;
const SEGMENT_BYTES: u64 = 48 << 10;

/// The header of a segment and of a batch, each in at most 64 bytes; the first byte says which, and whether its
/// checksum is made right.
pub fn journal_headers(bytes: &[u8]) -> Result<()> {
    let Some((how, bytes)) = bytes.split_first() else { return Ok(()) };
    let mut head = [0; BATCH_HEADER];
    let len = bytes.len().min(BATCH_HEADER);
    head[..len].copy_from_slice(&bytes[..len]);
    let (salt, offset) = (u64::from(*how), DATA_START);
    if how & 2 == 0 {
        sum_right(&mut head, (how & 1 == 0).then_some((salt, offset)));
    }
    if how & 1 == 0 {
        let Some(header) = BatchHeader::decode(&head, salt, offset) else {
            return Err(Error::corrupt("no batch header: restore it"));
        };
        assert!(header.first <= header.last && header.last.0 < u64::MAX);
        assert_eq!(BatchHeader::decode(&head, salt ^ 1, offset), None, "of another use");
        assert_eq!(BatchHeader::decode(&head, salt, offset + BLOCK), None, "of another place");
        return Ok(());
    }
    let header = SegmentHeader::decode(&head).map_err(|fault| match fault {
        HeaderFault::Damaged => Error::corrupt("no segment header: restore it"),
        HeaderFault::Newer(format) => Error::invalid(format!("format `{format}`: use a newer dstore")),
    })?;
    assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
    Ok(())
}

/// A whole journal, from words: what it is made of, then what is spoilt. It is opened or refused; what is replayed was
/// written, is without a gap, and is replayed again when it is opened again.
pub fn journal(bytes: &[u8]) -> Result<()> {
    let mut words = Words(bytes);
    let floors = Floors { checkpoint: Revision(u64::from(words.byte() % 8)), ..Floors::default() };
    let mut made = Made::default();
    while !words.0.is_empty() {
        made.word(&mut words);
    }
    let disk = made.disk();
    let first = open(&disk, floors)?;
    let mut head = first.first().map_or(floors.checkpoint, |batch| Revision(batch.first.0 - 1));
    assert!(head <= floors.checkpoint, "a gap after the checkpoint");
    for batch in &first {
        assert_eq!(batch.first, head.next(), "a gap");
        assert!(made.written.contains(batch), "{batch:?} was never written");
        head = batch.last;
    }
    assert_eq!(open(&disk, floors).expect("what was opened opens again"), first);
    Ok(())
}

fn open(disk: &SimDisk, floors: Floors) -> Result<Vec<Batch>> {
    let sys = Sys {
        clock: Arc::new(clock::ManualClock::default()),
        rng: Arc::new(SeededRng::new(disk.op_count() as u64)),
        net: Arc::new(net::RealNet),
        disk: Arc::new(disk.clone()),
        blocking: Blocking::Inline { latency: Duration::ZERO },
    };
    let config = JournalConfig {
        segment_bytes: SEGMENT_BYTES,
        first_segment_bytes: 2 * BLOCK,
        spare_segments: 1,
        min_free_bytes: 0,
        ..JournalConfig::new(DIR)
    };
    let mut batches = Vec::new();
    let opened = Journal::open(&sys, &config, &floors, |batch| {
        batches.push(batch);
        Ok(())
    });
    match opened {
        Ok(_) => Ok(batches),
        Err(e) => {
            assert!(matches!(e.kind(), Kind::Corrupt | Kind::Invalid), "{e:?}");
            Err(e)
        }
    }
}

struct Words<'a>(&'a [u8]);

impl Words<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn short(&mut self) -> usize {
        usize::from(u16::from_le_bytes([self.byte(), self.byte()]))
    }
}

/// A segment file on its way.
struct Segment {
    header: SegmentHeader,
    bytes: Vec<u8>,
    at: u64,
}

#[derive(Default)]
struct Made {
    segments: Vec<Segment>,
    head: u64,
    chain: u64,
    written: Vec<Batch>,
}

impl Made {
    fn word(&mut self, words: &mut Words<'_>) {
        match words.byte() % 8 {
            0..=2 => {
                let (revisions, len) = (1 + u64::from(words.byte() % 3), words.short() % 6000);
                self.batch(self.head + 1, revisions, len, self.chain);
            }
            // One that follows nothing that is there.
            3 => {
                let (first, chain) = (1 + u64::from(words.byte() % 16), u64::from(words.byte()));
                self.batch(first, 1, words.short() % 600, chain);
            }
            4 => {
                let (flags, base) = (words.byte(), u64::from(words.byte() % 16));
                let base = if flags & 8 == 0 { self.head } else { base };
                self.segment(flags & 1 != 0, flags & 2 != 0, flags & 4 != 0, base);
            }
            5 => {
                let (at, mask) = (words.short(), words.byte());
                if let Some(byte) = self.segments.last_mut().and_then(|s| s.bytes.get_mut(at)) {
                    *byte ^= mask;
                }
            }
            6 => {
                let len = words.short();
                if let Some(segment) = self.segments.last_mut() {
                    segment.bytes.truncate(len);
                    segment.at = SEGMENT_BYTES;
                }
            }
            _ => {
                if let Some(segment) = self.segments.last_mut() {
                    segment.at += BLOCK;
                }
            }
        }
    }

    fn segment(&mut self, origin: bool, recycled: bool, relaxed: bool, base: u64) {
        if self.segments.len() == SEGMENTS_MAX {
            return;
        }
        let sequence = self.segments.len() as u64 + 1;
        let salt = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(sequence);
        let origin = (origin || self.segments.is_empty()).then_some(Revision(base));
        let header = SegmentHeader { sequence, salt, origin, recycled, relaxed, length: SEGMENT_BYTES };
        if origin.is_some() {
            (self.head, self.chain) = (base, salt);
        }
        let mut bytes = header.encode();
        bytes.resize(SEGMENT_BYTES as usize, 0);
        self.segments.push(Segment { header, bytes, at: DATA_START });
    }

    fn batch(&mut self, first: u64, revisions: u64, len: usize, previous: u64) {
        if self.segments.is_empty() {
            self.segment(true, false, false, 0);
        }
        let Some(segment) = self.segments.last_mut() else { return };
        let payload: Vec<u8> = (0..len).map(|i| (i as u64 * 31 + first) as u8).collect();
        let (first, last) = (Revision(first), Revision(first + revisions - 1));
        let durable = if segment.header.relaxed { Revision(first.0 - 1) } else { Revision(0) };
        let place = Place { salt: segment.header.salt, offset: segment.at, previous, durable };
        let mut bytes = Vec::new();
        let checksum = encode_batch(&mut bytes, place, (first, last), &[&payload]);
        let (from, to) = (segment.at as usize, segment.at as usize + bytes.len());
        let Some(there) = segment.bytes.get_mut(from..to) else { return };
        there.copy_from_slice(&bytes);
        segment.at = to as u64;
        (self.head, self.chain) = (last.0, checksum);
        self.written.push(Batch { first, last, payload: payload.into() });
    }

    fn disk(&self) -> SimDisk {
        let disk = SimDisk::new();
        disk.create_dir_all(Path::new(DIR)).expect("a new disk");
        for segment in &self.segments {
            let path = Role::Live.path(Path::new(DIR), segment.header.sequence);
            let file = disk.open(&path, Open::Create).expect("a new file");
            file.write_all_at(&segment.bytes, 0).expect("a disk without faults");
        }
        disk
    }
}
