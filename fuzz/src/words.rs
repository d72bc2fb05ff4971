//! Names, hashes, addresses and levels: the small words that stand everywhere.

use bytes::Bytes;
use dstore_global::{EngineKind, SyncLevel};
use dstore_shared::{BlobHash, Error, GROUP_BYTES, Key, Name, Namespace, Outline, Prefix, Result};
use dstore_sys::net::Address;
use std::fmt::Display;
use std::str::FromStr;

/// One of the words; the first byte says which.
pub fn names(bytes: &[u8]) -> Result<()> {
    let Some((which, bytes)) = bytes.split_first() else { return Ok(()) };
    let given = Bytes::copy_from_slice(bytes);
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    match which % 8 {
        0 => {
            let name = Name::from_packed(given)?;
            assert_eq!(name.as_bytes(), bytes);
            assert_eq!(Name::new(&name.namespace(), &name.key()), name);
            let prefix = Prefix::new(&name.namespace(), name.key().as_bytes())?;
            assert!(prefix.covers(&name) && prefix.overlaps(&prefix));
        }
        1 => {
            let prefix = Prefix::from_packed(bytes)?;
            assert_eq!(prefix.as_bytes(), bytes);
            assert_eq!(Prefix::new(&prefix.namespace(), &prefix.bytes())?, prefix);
        }
        2 => assert_eq!(Namespace::new(given)?.as_str().as_bytes(), bytes),
        3 => assert_eq!(Key::new(given)?.as_bytes(), bytes),
        4 => _ = same_again::<BlobHash>(text).map_err(|e| Error::invalid(e.to_string()))?,
        5 => _ = same_again::<Address>(text)?,
        6 => _ = same_again::<SyncLevel>(text)?,
        _ => _ = text.parse::<EngineKind>().map_err(|_| Error::invalid("no engine"))?,
    }
    Ok(())
}

/// What is read from `text`, which reads back from what it writes.
fn same_again<T: FromStr + Display + PartialEq>(text: &str) -> std::result::Result<T, T::Err> {
    let read: T = text.parse()?;
    assert!(read.to_string().parse::<T>().is_ok_and(|again| again == read), "{read} is read otherwise");
    Ok(read)
}

/// An outline: the blob's length in eight bytes, the outline, and a group at a place that the length says.
pub fn outline(bytes: &[u8]) -> Result<()> {
    let Some((size, bytes)) = bytes.split_first_chunk() else { return Ok(()) };
    let size = u64::from_le_bytes(*size);
    let hash = BlobHash::of(bytes);
    let outline = Outline::verify(if size <= GROUP_BYTES as u64 { &[] } else { bytes }, size, hash)?;
    assert_eq!(outline.size(), size);
    let is_it = bytes.len() as u64 == size;
    assert_eq!(outline.matches(0, bytes, hash), is_it, "only the bytes themselves match");
    assert!(!outline.matches(size | 1, bytes, hash));
    Ok(())
}
