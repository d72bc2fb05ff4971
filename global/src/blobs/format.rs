//! The bytes of a blob file: one header page, the data, the outline.
//!
//! Invariants: a header that decodes is whole (checksum over the page) and of a version this program
//! knows; its outline length follows from its size. `docs/STORAGE.md` draws the bytes.
//! Must never take a length from a file before the checksum of its page was checked.

use crc_fast::CrcAlgorithm::Crc32Iscsi;
use dstore_shared::{BlobHash, GROUP_BYTES};
use thiserror::Error;

/// Bytes of the header page, and so the offset of the data: a disk page, so that data stay aligned.
pub(super) const PAGE: usize = 4096;
/// Where every blob file begins.
const MAGIC: [u8; 8] = *b"dstoreBL";
/// The version that this program writes, and the newest it reads.
const VERSION: u32 = 1;
/// Where the checksum of the page is, in this and every later version.
const CHECKSUM_AT: usize = PAGE - 4;

/// What the first page of a blob file says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    /// The blob's hash, and the file's name.
    pub hash: BlobHash,
    /// Length of the data in bytes.
    pub size: u64,
    /// CRC-32C of the encoded outline.
    pub outline_crc: u32,
}

/// Why a page is no header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub(super) enum BadHeader {
    #[error("it does not begin as a blob file does")]
    Magic,
    #[error("the checksum of its header does not match")]
    Checksum,
    #[error("its header contradicts itself")]
    Contradiction,
    #[error("its format is `{0}`, this dstore reads up to `{VERSION}`: start a newer dstore")]
    Newer(u32),
}

/// Length of the encoded outline of a blob of `size` bytes.
pub(super) const fn outline_len(size: u64) -> u64 {
    if size <= GROUP_BYTES as u64 { 0 } else { size.div_ceil(GROUP_BYTES as u64) * 32 }
}

/// CRC-32C (Castagnoli).
pub(super) fn crc(bytes: &[u8]) -> u32 {
    crc_fast::checksum(Crc32Iscsi, bytes) as u32
}

impl Header {
    /// Length of the whole file; `u64::MAX` for a size that no file can have.
    pub(super) const fn file_len(&self) -> u64 {
        (PAGE as u64).saturating_add(self.size).saturating_add(outline_len(self.size))
    }

    /// Where the outline begins.
    pub(super) const fn outline_at(&self) -> u64 {
        (PAGE as u64).saturating_add(self.size)
    }

    /// The header page.
    pub(super) fn encode(&self) -> [u8; PAGE] {
        let mut page = [0; PAGE];
        page[..8].copy_from_slice(&MAGIC);
        page[8..12].copy_from_slice(&VERSION.to_le_bytes());
        page[16..24].copy_from_slice(&self.size.to_le_bytes());
        page[24..56].copy_from_slice(self.hash.as_bytes());
        page[56..64].copy_from_slice(&outline_len(self.size).to_le_bytes());
        page[64..68].copy_from_slice(&self.outline_crc.to_le_bytes());
        let checksum = crc(&page[..CHECKSUM_AT]);
        page[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
        page
    }

    /// Reads a header page. The checksum is looked at before the version, because its place never
    /// changes: so damage does not pass for a newer format, and a newer format not for damage.
    pub(super) fn decode(page: &[u8; PAGE]) -> Result<Self, BadHeader> {
        let u32_at = |at: usize| u32::from_le_bytes(page[at..at + 4].try_into().expect("4 bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(page[at..at + 8].try_into().expect("8 bytes"));
        if page[..8] != MAGIC {
            return Err(BadHeader::Magic);
        }
        if u32_at(CHECKSUM_AT) != crc(&page[..CHECKSUM_AT]) {
            return Err(BadHeader::Checksum);
        }
        let version = u32_at(8);
        if version > VERSION {
            return Err(BadHeader::Newer(version));
        }
        let size = u64_at(16);
        if version != VERSION || u64_at(56) != outline_len(size) {
            return Err(BadHeader::Contradiction);
        }
        let hash = BlobHash::from_bytes(page[24..56].try_into().expect("32 bytes"));
        Ok(Self { hash, size, outline_crc: u32_at(64) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header { hash: BlobHash::of(b"golden"), size: 300_000, outline_crc: 0x1234_5678 }
    }

    #[test]
    fn a_header_page_reads_back_and_any_flipped_bit_is_noticed() {
        let page = header().encode();
        assert_eq!(Header::decode(&page), Ok(header()));
        for at in 0..PAGE {
            let mut bad = page;
            bad[at] ^= 1 << (at % 8);
            let found = Header::decode(&bad).expect_err("a flipped bit");
            assert!(matches!(found, BadHeader::Magic | BadHeader::Checksum), "byte {at}: {found}");
        }
    }

    #[test]
    fn a_newer_format_is_refused_as_such_and_an_outline_of_the_wrong_length_too() {
        let with = |at: usize, byte: u8| {
            let mut page = header().encode();
            page[at] = byte;
            let checksum = crc(&page[..CHECKSUM_AT]);
            page[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
            Header::decode(&page)
        };
        assert_eq!(with(8, 2), Err(BadHeader::Newer(2)));
        assert_eq!(with(8, 0), Err(BadHeader::Contradiction));
        assert_eq!(with(56, 32), Err(BadHeader::Contradiction));
        assert_eq!(with(3000, 7), Ok(header()), "what is reserved is ignored");
    }

    #[test]
    fn lengths_saturate_instead_of_wrapping() {
        let header = Header { size: u64::MAX, ..header() };
        assert_eq!(header.file_len(), u64::MAX);
        assert_eq!(header.outline_at(), u64::MAX);
    }
}
