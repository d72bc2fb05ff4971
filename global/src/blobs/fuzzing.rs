//! Header pages of blob files as a disk might give them, for the fuzz targets.

use super::format::{BadHeader, Header, PAGE, crc, outline_len};
use dstore_shared::{Error, Result};

/// A header page, filled up with zeros: as it is if the first byte is odd, else with a right checksum.
pub fn blob_header(bytes: &[u8]) -> Result<()> {
    let Some((which, bytes)) = bytes.split_first() else { return Ok(()) };
    let mut page = [0; PAGE];
    let len = bytes.len().min(PAGE);
    page[..len].copy_from_slice(&bytes[..len]);
    if which % 2 == 0 {
        let checksum = crc(&page[..PAGE - 4]);
        page[PAGE - 4..].copy_from_slice(&checksum.to_le_bytes());
    }
    let told = |bad: BadHeader| Error::corrupt(format!("{bad}: restore it"));
    let header = Header::decode(&page).map_err(told)?;
    assert!(header.outline_at() >= header.size && header.file_len() >= header.outline_at());
    assert!(
        header.file_len() == u64::MAX || header.file_len() - header.outline_at() == outline_len(header.size)
    );
    assert_eq!(Header::decode(&header.encode()), Ok(header));
    Ok(())
}
