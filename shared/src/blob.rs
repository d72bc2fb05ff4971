//! Immutable bytes and the hash that names them.

use crate::{Error, Result};
use bytes::Bytes;
use std::fmt;
use std::str::FromStr;

/// The BLAKE3 hash of a blob's bytes (<https://github.com/BLAKE3-team/BLAKE3-specs>).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobHash([u8; 32]);

impl BlobHash {
    /// The hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// A hash that was computed elsewhere; nothing is verified by it.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads a hash from a slice.
    ///
    /// # Errors
    /// `Invalid` unless it has 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Result<Self> {
        let n = bytes.len();
        bytes.try_into().map(Self).map_err(|_| Error::invalid(format!("a hash has 32 bytes, not `{n}`")))
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first eight hex digits, for people.
    pub fn fmt_short(&self) -> String {
        self.to_string()[..8].to_owned()
    }
}

impl fmt::Display for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fmt_short())
    }
}

/// The text is not 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a hash is 64 hex digits")]
pub struct ParseHashError;

impl FromStr for BlobHash {
    type Err = ParseHashError;

    fn from_str(text: &str) -> Result<Self, ParseHashError> {
        blake3::Hash::from_hex(text).map(|h| Self(*h.as_bytes())).map_err(|_| ParseHashError)
    }
}

/// Bytes together with their hash. Exists only hashed or verified, so unverified bytes cannot pass for one.
#[derive(Clone)]
pub struct Blob {
    bytes: Bytes,
    hash: BlobHash,
}

impl Blob {
    /// Hashes `bytes`.
    pub fn hash(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let hash = BlobHash::of(&bytes);
        Self { bytes, hash }
    }

    /// Checks that `bytes` have `hash`.
    ///
    /// # Errors
    /// `Corrupt` if they have another.
    pub fn verify(bytes: impl Into<Bytes>, hash: BlobHash) -> Result<Self> {
        let blob = Self::hash(bytes);
        #[cfg(feature = "faults")]
        if crate::planted::is_made(crate::planted::Mistake::SkippedHash) {
            return Ok(Self { bytes: blob.bytes, hash });
        }
        if blob.hash != hash {
            let (n, found) = (blob.bytes.len(), blob.hash);
            return Err(Error::corrupt(format!(
                "`{n}` bytes that should be blake3:{hash} are blake3:{found}: set the value again"
            )));
        }
        Ok(blob)
    }

    /// The same blob in an allocation of its own, for whoever keeps it long: bytes that came in a frame share,
    /// and keep alive, the whole frame. Clones of it do not allocate.
    #[must_use]
    pub fn compact(&self) -> Self {
        let own = Self { bytes: Bytes::copy_from_slice(&self.bytes), hash: self.hash };
        drop(own.clone()); // the first clone allocates the reference count
        own
    }

    /// The same blob in other memory, if `bytes` are the same. Compares them, unless they are in the very same place.
    #[must_use]
    pub fn moved(&self, bytes: Bytes) -> Option<Self> {
        let same = bytes.as_ptr() == self.bytes.as_ptr() && bytes.len() == self.bytes.len();
        (same || bytes == self.bytes).then_some(Self { bytes, hash: self.hash })
    }

    /// Whether the bytes still have the hash: memory can decay. Hashes all of them.
    pub fn is_intact(&self) -> bool {
        BlobHash::of(&self.bytes) == self.hash
    }

    /// The same with one bit turned, as a defect of the memory leaves it: for tests of what notices that.
    #[cfg(feature = "faults")]
    #[must_use]
    pub fn damaged(&self) -> Self {
        let mut bytes = self.bytes.to_vec();
        if let Some(byte) = bytes.last_mut() {
            *byte ^= 1;
        }
        Self { bytes: bytes.into(), hash: self.hash }
    }

    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Their hash.
    pub fn id(&self) -> BlobHash {
        self.hash
    }

    /// Their number.
    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({:?}, {} B)", self.hash, self.bytes.len())
    }
}

/// Hashes a blob piece by piece.
#[derive(Clone, Default)]
pub struct BlobHasher(blake3::Hasher);

impl BlobHasher {
    /// A hasher that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The hash of all pieces.
    pub fn finish(&self) -> BlobHash {
        BlobHash(*self.0.finalize().as_bytes())
    }
}

impl fmt::Debug for BlobHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BlobHasher")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn unverified_bytes_never_become_a_blob() {
        let good = Blob::hash("hello");
        assert!(Blob::verify("hello", good.id()).is_ok());
        assert_eq!(Blob::verify("hellO", good.id()).expect_err("flipped").kind(), Kind::Corrupt);
    }

    #[test]
    fn a_blob_moves_to_the_same_bytes_elsewhere_and_to_no_others() {
        let blob = Blob::hash("hello");
        let moved = blob.moved(Bytes::from(b"hello".to_vec())).expect("the same bytes");
        assert_eq!((moved.id(), moved.bytes()), (blob.id(), blob.bytes()));
        assert!(blob.moved(Bytes::from_static(b"hellO")).is_none());
        assert!(blob.moved(blob.bytes().slice(..4)).is_none(), "the same place, and not all of it");
    }

    #[test]
    fn a_compact_blob_shares_nothing_with_the_frame_it_came_in() {
        let frame = Bytes::from(vec![7; 1000]);
        let blob = Blob::hash(frame.slice(10..20));
        let own = blob.compact();
        assert_eq!((own.bytes(), own.id()), (blob.bytes(), blob.id()));
        drop(blob);
        assert!(frame.is_unique() && own.bytes().is_unique());
    }

    #[test]
    fn a_hash_reads_back_from_its_text() {
        let hash = BlobHash::of(b"x");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_eq!("00".parse::<BlobHash>(), Err(ParseHashError));
        assert_eq!(BlobHash::of(b"").to_string()[..8], *"af1349b9");
    }
}
