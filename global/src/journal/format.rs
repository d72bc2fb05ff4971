//! The bytes of segment and batch headers, and the checksums that tie them together (docs/STORAGE.md).
//!
//! Invariants: a checksum covers the salt of the segment's present use and the batch's offset in it, so the
//! same bytes are valid at one place and in one use only; nothing is allocated for a length that is not checked.
//! This module must never do I/O.

use crc_fast::{CrcAlgorithm, Digest};
use dstore_shared::Revision;

/// The format of a segment each of whose batches was durable before the next was written.
pub(super) const FORMAT: u32 = 1;
/// The format of a relaxed segment, and the newest that this binary reads: several of its last batches may be lost
/// or torn, in any order.
pub(super) const FORMAT_RELAXED: u32 = 2;
/// Batches start at multiples of this: what a disk writes as one, so that no write touches an earlier batch.
pub(super) const BLOCK: u64 = 4096;
/// Where batches begin: after two copies of the segment header, a block each.
pub(super) const DATA_START: u64 = 2 * BLOCK;
/// Bytes of a batch header; the payload follows at once.
pub(super) const BATCH_HEADER: usize = 64;
const SEGMENT_HEADER: usize = 64;

const SEGMENT_MAGIC: [u8; 8] = *b"dstoreJ\n";
const BATCH_MAGIC: [u8; 8] = *b"dstoreB\n";

static ZEROS: [u8; BLOCK as usize] = [0; BLOCK as usize];

const FLAG_ORIGIN: u32 = 1;
const FLAG_RECYCLED: u32 = 2;
const FLAG_RELAXED: u32 = 4;

/// What a segment says of its present use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SegmentHeader {
    /// Orders segments: a later use has a larger number, whatever file it is in.
    pub(super) sequence: u64,
    /// Drawn for this use, and different from that of the use before.
    pub(super) salt: u64,
    /// Of an origin: the journal goes on here after this revision, and whatever earlier segments hold beyond it is void.
    pub(super) origin: Option<Revision>,
    /// Whether the file was used before, so that stale bytes may follow the last batch.
    pub(super) recycled: bool,
    /// Whether batches were written to it before those before them were durable.
    pub(super) relaxed: bool,
    /// Bytes of the file.
    pub(super) length: u64,
}

/// Why a segment header cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HeaderFault {
    /// It is not one, or it is damaged.
    Damaged,
    /// It is one of a newer format.
    Newer(u32),
}

impl SegmentHeader {
    /// Both copies: the bytes before [`DATA_START`].
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut copy = [0; SEGMENT_HEADER];
        copy[..8].copy_from_slice(&SEGMENT_MAGIC);
        let format = if self.relaxed { FORMAT_RELAXED } else { FORMAT };
        copy[16..20].copy_from_slice(&format.to_le_bytes());
        let origin = if self.origin.is_some() { FLAG_ORIGIN } else { 0 };
        let recycled = if self.recycled { FLAG_RECYCLED } else { 0 };
        let relaxed = if self.relaxed { FLAG_RELAXED } else { 0 };
        copy[20..24].copy_from_slice(&(origin | recycled | relaxed).to_le_bytes());
        let base = self.origin.map_or(0, |r| r.0);
        for (at, field) in [(24, self.sequence), (32, self.salt), (40, base), (48, self.length)] {
            copy[at..at + 8].copy_from_slice(&field.to_le_bytes());
        }
        let checksum = digest(&copy[16..]);
        copy[8..16].copy_from_slice(&checksum.to_le_bytes());
        let mut both = vec![0; DATA_START as usize];
        both[..SEGMENT_HEADER].copy_from_slice(&copy);
        both[BLOCK as usize..BLOCK as usize + SEGMENT_HEADER].copy_from_slice(&copy);
        both
    }

    /// Reads the bytes before [`DATA_START`]: the first whole copy counts, two that differ are damage.
    pub(super) fn decode(both: &[u8]) -> Result<Self, HeaderFault> {
        let copies = [both.get(..SEGMENT_HEADER), both.get(BLOCK as usize..BLOCK as usize + SEGMENT_HEADER)];
        match copies.map(|copy| copy.map_or(Err(HeaderFault::Damaged), Self::decode_copy)) {
            [Err(HeaderFault::Newer(format)), _] | [_, Err(HeaderFault::Newer(format))] => {
                Err(HeaderFault::Newer(format))
            }
            [Ok(a), Ok(b)] if a != b => Err(HeaderFault::Damaged),
            [Ok(header), _] | [_, Ok(header)] => Ok(header),
            _ => Err(HeaderFault::Damaged),
        }
    }

    fn decode_copy(copy: &[u8]) -> Result<Self, HeaderFault> {
        // Magic, checksum and format stand where they stand in every format, so that a newer one is told
        // from damage.
        if copy[..8] != SEGMENT_MAGIC || u64_at(copy, 8) != digest(&copy[16..]) {
            return Err(HeaderFault::Damaged);
        }
        let format = u32_at(copy, 16);
        if format > FORMAT_RELAXED {
            return Err(HeaderFault::Newer(format));
        }
        let flags = u32_at(copy, 20);
        let relaxed = flags & FLAG_RELAXED != 0;
        let possible = u64_at(copy, 40) < u64::MAX
            && u64_at(copy, 48) >= DATA_START
            && relaxed == (format == FORMAT_RELAXED);
        if flags & !(FLAG_ORIGIN | FLAG_RECYCLED | FLAG_RELAXED) != 0 || !possible {
            return Err(HeaderFault::Damaged);
        }
        Ok(Self {
            sequence: u64_at(copy, 24),
            salt: u64_at(copy, 32),
            origin: (flags & FLAG_ORIGIN != 0).then(|| Revision(u64_at(copy, 40))),
            recycled: flags & FLAG_RECYCLED != 0,
            relaxed,
            length: u64_at(copy, 48),
        })
    }
}

/// What stands before a batch's payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BatchHeader {
    /// Of this header, and through `payload_checksum` of the whole batch. The next batch carries it.
    pub(super) checksum: u64,
    payload_checksum: u64,
    /// Checksum of the header before; of the first batch of an origin, the segment's salt.
    pub(super) previous: u64,
    /// First revision of the batch.
    pub(super) first: Revision,
    /// Last revision of the batch.
    pub(super) last: Revision,
    /// Bytes of the payload.
    pub(super) length: u64,
    /// In a relaxed segment: every revision up to here was durable before this batch was written. Else 0.
    pub(super) durable: Revision,
}

impl BatchHeader {
    /// The header that these bytes are at `offset` of a segment whose use has this `salt`.
    pub(super) fn decode(bytes: &[u8], salt: u64, offset: u64) -> Option<Self> {
        let header = Self::fields(bytes)?;
        let ordered = 0 < header.first.0 && header.first <= header.last && header.last.0 < u64::MAX;
        (ordered
            && Self::is_likely(bytes)
            && salted(salt, offset, &bytes[16..BATCH_HEADER]) == header.checksum)
            .then_some(header)
    }

    /// Whether the bytes were once to be a batch that follows `head`, whose header had checksum `chain`. Only to
    /// describe damage.
    pub(super) fn was_to_follow(bytes: &[u8], head: Revision, chain: u64) -> bool {
        Self::fields(bytes)
            .is_some_and(|h| h.previous == chain || Self::is_likely(bytes) && h.first == head.next())
    }

    fn fields(bytes: &[u8]) -> Option<Self> {
        (bytes.len() >= BATCH_HEADER).then(|| Self {
            checksum: u64_at(bytes, 8),
            payload_checksum: u64_at(bytes, 16),
            previous: u64_at(bytes, 24),
            first: Revision(u64_at(bytes, 32)),
            last: Revision(u64_at(bytes, 40)),
            length: u64_at(bytes, 48),
            durable: Revision(u64_at(bytes, 56)),
        })
    }

    /// Whether the bytes may be a header at all: one comparison, for the search over whole segments.
    pub(super) fn is_likely(bytes: &[u8]) -> bool {
        bytes.starts_with(&BATCH_MAGIC)
    }

    /// Whether `payload` is this batch's.
    pub(super) fn fits(&self, payload: &[u8], salt: u64, offset: u64) -> bool {
        self.length == payload.len() as u64 && salted(salt, offset, payload) == self.payload_checksum
    }

    /// Bytes from this batch to the next: header, payload and padding.
    pub(super) fn span(&self) -> u64 {
        span(self.length)
    }
}

/// Where a batch goes, and what it follows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) salt: u64,
    pub(super) offset: u64,
    pub(super) previous: u64,
    /// What is known to be durable; 0 unless the segment is relaxed.
    pub(super) durable: Revision,
}

/// Puts a batch, padded with zeros to whole blocks, into `buffer`; gives the header's checksum.
pub(super) fn encode_batch(
    buffer: &mut Vec<u8>,
    place: Place,
    (first, last): (Revision, Revision),
    payload: &[&[u8]],
) -> u64 {
    buffer.clear();
    buffer.reserve(span(payload.iter().map(|part| part.len() as u64).sum()) as usize);
    buffer.extend_from_slice(&ZEROS[..BATCH_HEADER]);
    for part in payload {
        buffer.extend_from_slice(part);
    }
    let length = (buffer.len() - BATCH_HEADER) as u64;
    buffer.extend_from_slice(&ZEROS[..span(length) as usize - buffer.len()]);
    let (header, rest) = buffer.split_at_mut(BATCH_HEADER);
    header[..8].copy_from_slice(&BATCH_MAGIC);
    let payload_checksum = salted(place.salt, place.offset, &rest[..length as usize]);
    let fields = [payload_checksum, place.previous, first.0, last.0, length, place.durable.0];
    for (at, field) in (16..).step_by(8).zip(fields) {
        header[at..at + 8].copy_from_slice(&field.to_le_bytes());
    }
    let checksum = salted(place.salt, place.offset, &header[16..]);
    header[8..16].copy_from_slice(&checksum.to_le_bytes());
    checksum
}

/// Bytes that a batch with `length` bytes of payload takes.
pub(super) fn span(length: u64) -> u64 {
    whole_blocks(BATCH_HEADER as u64 + length)
}

/// `bytes` rounded up to whole blocks.
pub(super) fn whole_blocks(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK) * BLOCK
}

/// CRC-64/NVME over salt, offset and bytes. The first sixteen bytes map to the CRC's state one to one for each
/// of the two numbers, so equal bytes under another salt, or at another offset, always have another checksum.
fn salted(salt: u64, offset: u64, bytes: &[u8]) -> u64 {
    let mut prefix = [0; 16];
    prefix[..8].copy_from_slice(&salt.to_le_bytes());
    prefix[8..].copy_from_slice(&offset.to_le_bytes());
    let mut digest = Digest::new(CrcAlgorithm::Crc64Nvme);
    digest.update(&prefix);
    digest.update(bytes);
    digest.finalize()
}

fn digest(bytes: &[u8]) -> u64 {
    crc_fast::checksum(CrcAlgorithm::Crc64Nvme, bytes)
}

/// Makes the checksum of a header right: of a batch at a place, or of a segment.
#[cfg(feature = "fuzzing")]
pub(super) fn sum_right(header: &mut [u8; BATCH_HEADER], batch: Option<(u64, u64)>) {
    let magic = if batch.is_some() { BATCH_MAGIC } else { SEGMENT_MAGIC };
    header[..8].copy_from_slice(&magic);
    let checksum =
        batch.map_or_else(|| digest(&header[16..]), |(salt, offset)| salted(salt, offset, &header[16..]));
    header[8..16].copy_from_slice(&checksum.to_le_bytes());
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("a slice of eight bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("a slice of four bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: SegmentHeader = SegmentHeader {
        sequence: 3,
        salt: 0x1234_5678,
        origin: Some(Revision(9)),
        recycled: true,
        relaxed: false,
        length: 1 << 20,
    };

    fn batch(place: Place) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_batch(&mut bytes, place, (Revision(10), Revision(12)), &[b"some ", b"payload"]);
        bytes
    }

    #[test]
    fn a_segment_header_survives_the_loss_of_either_copy_and_no_flip_goes_unseen() {
        let bytes = HEADER.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(HEADER));
        for at in 0..SEGMENT_HEADER {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert_eq!(SegmentHeader::decode(&flipped), Ok(HEADER), "the second copy stands in");
                flipped[BLOCK as usize + at] ^= 1 << bit;
                assert_eq!(SegmentHeader::decode(&flipped), Err(HeaderFault::Damaged), "byte {at} bit {bit}");
            }
        }
        assert_eq!(SegmentHeader::decode(&bytes[..64]), Ok(HEADER));
        assert_eq!(SegmentHeader::decode(&bytes[..63]), Err(HeaderFault::Damaged));
        assert_eq!(SegmentHeader::decode(&[]), Err(HeaderFault::Damaged));
    }

    #[test]
    fn two_whole_copies_that_differ_are_damage() {
        let mut bytes = HEADER.encode();
        let other = SegmentHeader { salt: 7, ..HEADER }.encode();
        bytes[BLOCK as usize..].copy_from_slice(&other[BLOCK as usize..]);
        assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderFault::Damaged));
    }

    #[test]
    fn a_newer_format_is_told_from_damage() {
        let mut bytes = HEADER.encode();
        bytes[16..20].copy_from_slice(&(FORMAT_RELAXED + 1).to_le_bytes());
        let checksum = digest(&bytes[16..SEGMENT_HEADER]);
        bytes[8..16].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderFault::Newer(FORMAT_RELAXED + 1)));
    }

    #[test]
    fn a_batch_is_valid_only_with_its_salt_and_at_its_offset() {
        let place = Place { salt: 5, offset: 8192, previous: 77, durable: Revision(0) };
        let bytes = batch(place);
        assert_eq!(bytes.len() as u64, BLOCK);
        let header = BatchHeader::decode(&bytes, 5, 8192).expect("valid");
        assert_eq!((header.first, header.last, header.previous), (Revision(10), Revision(12), 77));
        let payload = &bytes[BATCH_HEADER..BATCH_HEADER + header.length as usize];
        assert_eq!(payload, b"some payload");
        assert!(header.fits(payload, 5, 8192));
        for (salt, offset) in [(4, 8192), (5, 12_288), (5, 0), (u64::MAX, 8192)] {
            assert_eq!(BatchHeader::decode(&bytes, salt, offset), None);
            assert!(!header.fits(payload, salt, offset));
        }
    }

    #[test]
    fn no_flip_in_header_or_payload_goes_unseen() {
        let bytes = batch(Place { salt: 5, offset: 8192, previous: 77, durable: Revision(0) });
        let used = BATCH_HEADER + b"some payload".len();
        for bit in 0..used * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let whole = BatchHeader::decode(&flipped, 5, 8192)
                .is_some_and(|h| h.fits(&flipped[BATCH_HEADER..used], 5, 8192));
            assert!(!whole, "bit {bit}");
        }
    }

    #[test]
    fn an_empty_payload_is_a_batch_too() {
        let mut bytes = vec![1; 9000];
        encode_batch(
            &mut bytes,
            Place { salt: 1, offset: 0, previous: 0, durable: Revision(0) },
            (Revision(1), Revision(1)),
            &[],
        );
        assert_eq!(bytes.len() as u64, BLOCK);
        let header = BatchHeader::decode(&bytes, 1, 0).expect("valid");
        assert!(header.length == 0 && header.fits(&[], 1, 0));
        assert!(bytes[BATCH_HEADER..].iter().all(|b| *b == 0), "padding holds nothing old");
    }
}
