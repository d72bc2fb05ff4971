//! The inner nodes of a blob's BLAKE3 tree at one level, so that a large blob can be verified group by group.
//!
//! BLAKE3 is a binary tree over chunks of 1 KiB; the chaining values of its subtrees of 256 KiB, merged,
//! give the hash. Whoever knows the hash can therefore check an [`Outline`], and with it each group as it
//! arrives: unverified bytes need not be held back until the last one, nor be passed on.
//! Source: the BLAKE3 paper, section 2.1 and 6.4 ("verified streaming").

use crate::{BlobHash, Error, Result};
use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root,
};
use bytes::Bytes;
use std::ops::Range;

/// Bytes of a group: a power of two of BLAKE3 chunks, and small enough to travel in one frame.
pub const GROUP_BYTES: usize = 256 << 10;
const GROUP: u64 = GROUP_BYTES as u64;

/// The chaining values of the groups of a blob that is longer than one group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outline {
    size: u64,
    values: Vec<ChainingValue>,
}

impl Outline {
    /// Checks that `encoded` is the outline of the blob of `size` bytes with `hash`.
    ///
    /// # Errors
    /// `Corrupt` if it is not.
    pub fn verify(encoded: &[u8], size: u64, hash: BlobHash) -> Result<Self> {
        let count = if size <= GROUP { 0 } else { size.div_ceil(GROUP) };
        let whole = encoded.len() as u64 == count * 32;
        let values = encoded.chunks_exact(32).map(|c| c.try_into().expect("32 bytes")).collect();
        let outline = Self { size, values };
        if !whole || (count > 0 && outline.root() != hash) {
            return Err(Error::corrupt(format!("the outline does not match blake3:{hash}: fetch it again")));
        }
        Ok(outline)
    }

    /// The 32-byte values in the order of their groups; empty for a blob of one group.
    pub fn encode(&self) -> Bytes {
        self.values.concat().into()
    }

    /// Length of the blob in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The hash that the values add up to. Meaningless for a blob of one group, whose hash is of its bytes.
    fn root(&self) -> BlobHash {
        let at = self.split(0..self.values.len());
        let left = self.subtree(0..at);
        let right = self.subtree(at..self.values.len());
        BlobHash::from_bytes(*merge_subtrees_root(&left, &right, Mode::Hash).as_bytes())
    }

    fn subtree(&self, groups: Range<usize>) -> ChainingValue {
        if groups.len() == 1 {
            return self.values[groups.start];
        }
        let at = self.split(groups.clone());
        let left = self.subtree(groups.start..at);
        let right = self.subtree(at..groups.end);
        merge_subtrees_non_root(&left, &right, Mode::Hash)
    }

    /// The first group of the right child of the subtree over `groups`.
    fn split(&self, groups: Range<usize>) -> usize {
        let bytes = self.size.min(groups.end as u64 * GROUP) - groups.start as u64 * GROUP;
        groups.start + (left_subtree_len(bytes) / GROUP) as usize
    }

    /// Whether `bytes` are the group at `index` of the blob with `hash`.
    pub fn matches(&self, index: u64, bytes: &[u8], hash: BlobHash) -> bool {
        let start = index.saturating_mul(GROUP);
        let due = self.size.saturating_sub(start).min(GROUP);
        if bytes.len() as u64 != due {
            return false;
        }
        if self.values.is_empty() {
            return index == 0 && BlobHash::of(bytes) == hash;
        }
        let Some(expected) = self.values.get(index as usize) else { return false };
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(start).update(bytes);
        *expected == hasher.finalize_non_root()
    }
}

/// Computes hash and outline of a blob from its bytes in order.
#[derive(Debug)]
pub struct OutlineBuilder {
    group: blake3::Hasher,
    in_group: usize,
    size: u64,
    values: Vec<ChainingValue>,
}

impl Default for OutlineBuilder {
    fn default() -> Self {
        Self { group: blake3::Hasher::new(), in_group: 0, size: 0, values: Vec::new() }
    }
}

impl OutlineBuilder {
    /// A builder that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece, of any length.
    pub fn update(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            if self.in_group == GROUP_BYTES {
                self.close_group();
            }
            let n = piece.len().min(GROUP_BYTES - self.in_group);
            self.group.update(&piece[..n]);
            self.in_group += n;
            self.size += n as u64;
            piece = &piece[n..];
        }
    }

    fn close_group(&mut self) {
        self.values.push(self.group.finalize_non_root());
        self.group = blake3::Hasher::new();
        self.group.set_input_offset(self.size);
        self.in_group = 0;
    }

    /// Bytes taken so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The hash of all pieces, and their outline.
    pub fn finish(mut self) -> (BlobHash, Outline) {
        if self.values.is_empty() {
            let hash = BlobHash::from_bytes(*self.group.finalize().as_bytes());
            return (hash, Outline { size: self.size, values: Vec::new() });
        }
        self.values.push(self.group.finalize_non_root());
        let outline = Outline { size: self.size, values: self.values };
        (outline.root(), outline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outline_adds_up_to_the_hash_and_tells_each_group_from_any_other() {
        for size in
            [0, 1, 1024, GROUP_BYTES - 1, GROUP_BYTES, GROUP_BYTES + 1, 2 * GROUP_BYTES, 5 * GROUP_BYTES + 7]
        {
            let bytes: Vec<u8> = (0..size).map(|i| (i * 31 % 251) as u8).collect();
            let mut builder = OutlineBuilder::new();
            bytes.chunks(100_003).for_each(|piece| builder.update(piece));
            let (hash, outline) = builder.finish();
            assert_eq!(hash, BlobHash::of(&bytes), "size {size}");
            let outline = Outline::verify(&outline.encode(), size as u64, hash).expect("own outline");
            for (i, group) in bytes.chunks(GROUP_BYTES).enumerate() {
                assert!(outline.matches(i as u64, group, hash), "group {i} of size {size}");
                assert!(!outline.matches(i as u64 + 1, group, hash));
                let mut flipped = group.to_vec();
                flipped[group.len() / 2] ^= 1;
                assert!(!outline.matches(i as u64, &flipped, hash));
                assert!(!outline.matches(i as u64, &group[1..], hash));
            }
        }
    }

    #[test]
    fn an_outline_of_other_bytes_or_of_another_length_is_refused() {
        let mut builder = OutlineBuilder::new();
        builder.update(&vec![7; 3 * GROUP_BYTES]);
        let (hash, outline) = builder.finish();
        let good = outline.encode();
        let mut bad = good.to_vec();
        bad[40] ^= 1;
        assert!(Outline::verify(&bad, 3 * GROUP, hash).is_err());
        assert!(Outline::verify(&good[..64], 3 * GROUP, hash).is_err());
        assert!(Outline::verify(&good, 3 * GROUP + 1, hash).is_err());
        assert!(Outline::verify(&good, 3 * GROUP, hash).is_ok());
    }
}
