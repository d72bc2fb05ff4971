//! Owns the newest value of each key that changed since some revision, until the index gets them all at once.
//!
//! Invariants: it knows one value a key, so a key that changes often costs once; bytes that it keeps are
//! counted, and are expected to be in an allocation of their own (whoever submits a change sees to that).
//! Once frozen it never changes.

use super::list::Order;
use crate::change::{BlobMeta, Change, encode_entry, encode_meta};
use crate::engine::{Table, Write};
use bytes::Bytes;
use dstore_shared::{BlobHash, Entry, Name, Revision};
use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::sync::Arc;

/// What a key of each kind costs besides its name's or value's bytes, places that are kept free included.
const NAME_OVERHEAD_BYTES: usize = 220;
const BLOB_OVERHEAD_BYTES: usize = 150;
const INLINE_OVERHEAD_BYTES: usize = 200;

pub(super) type Map<K, V> = HashMap<K, V, RandomState>;

/// Values that are visible and not indexed; `None` = removed.
#[derive(Default, Debug)]
pub(super) struct Memtable {
    pub(super) names: Map<Name, Option<Entry>>,
    pub(super) blobs: Map<BlobHash, Option<BlobMeta>>,
    pub(super) inline: Map<BlobHash, Option<Bytes>>,
    order: Arc<Order>,
    /// Bytes of names and of inline values.
    contents: usize,
    /// The newest revision in it; 0 = none.
    pub(super) last: Revision,
}

impl Memtable {
    /// An empty one with room for as much as this one holds.
    pub(super) fn next(&self) -> Self {
        Self {
            names: Map::with_capacity_and_hasher(self.names.len(), RandomState::default()),
            blobs: Map::with_capacity_and_hasher(self.blobs.len(), RandomState::default()),
            inline: Map::with_capacity_and_hasher(self.inline.len(), RandomState::default()),
            order: Arc::default(),
            contents: 0,
            last: Revision(0),
        }
    }

    /// Bytes that it takes, about.
    pub(super) fn bytes(&self) -> usize {
        self.names.len() * NAME_OVERHEAD_BYTES
            + self.blobs.len() * BLOB_OVERHEAD_BYTES
            + self.inline.len() * INLINE_OVERHEAD_BYTES
            + self.contents
    }

    /// Its names, to be put in order.
    pub(super) fn order(&self) -> Arc<Order> {
        self.order.clone()
    }

    /// Keys of all kinds.
    pub(super) fn len(&self) -> usize {
        self.names.len() + self.blobs.len() + self.inline.len()
    }

    /// Gives what the name was bound to here before.
    pub(super) fn put_name(&mut self, name: &Name, entry: Option<Entry>) -> Option<Entry> {
        self.contents += entry.as_ref().map_or(0, Entry::type_len);
        let before = self.names.insert(name.clone(), entry);
        if before.is_none() {
            self.order.push(name);
            self.contents += name.as_bytes().len();
        }
        let before = before.flatten();
        self.contents -= before.as_ref().map_or(0, Entry::type_len);
        before
    }

    /// Gives what was known of the blob here before.
    pub(super) fn put_blob(&mut self, hash: BlobHash, meta: Option<BlobMeta>) -> Option<BlobMeta> {
        self.blobs.insert(hash, meta).flatten()
    }

    pub(super) fn put_inline(&mut self, hash: BlobHash, bytes: Option<Bytes>) {
        self.contents += bytes.as_ref().map_or(0, Bytes::len);
        let old = self.inline.insert(hash, bytes).flatten();
        self.contents -= old.map_or(0, |old| old.len());
    }

    /// What the index has to be told.
    pub(super) fn writes(&self) -> Vec<Write> {
        let key = |hash: &BlobHash| Bytes::copy_from_slice(hash.as_bytes());
        let mut writes = Vec::with_capacity(self.len());
        for (name, entry) in &self.names {
            let value = entry.as_ref().map(encode_entry);
            writes.push(Write { table: Table::Names, key: name.packed(), value });
        }
        for (hash, meta) in &self.blobs {
            writes.push(Write { table: Table::Blobs, key: key(hash), value: meta.as_ref().map(encode_meta) });
        }
        for (hash, bytes) in &self.inline {
            writes.push(Write { table: Table::Inline, key: key(hash), value: bytes.clone() });
        }
        for (since, hash) in self.unnamed() {
            writes.push(Write {
                table: Table::Unnamed,
                key: encode_hint(since, hash),
                value: Some(Bytes::new()),
            });
        }
        for (end, name) in self.expiring() {
            writes.push(Write {
                table: Table::Unnamed,
                key: encode_end(end, name),
                value: Some(Bytes::new()),
            });
        }
        writes
    }

    /// The blobs without a name, and since when.
    pub(super) fn unnamed(&self) -> impl Iterator<Item = (u64, &BlobHash)> {
        self.blobs.iter().filter_map(|(hash, meta)| Some((meta.as_ref()?.unnamed_since_ms?, hash)))
    }

    /// The names with a time to live, and when that ends.
    pub(super) fn expiring(&self) -> impl Iterator<Item = (u64, &Name)> {
        self.names.iter().filter_map(|(name, entry)| Some((entry.as_ref()?.expires_at?.get(), name)))
    }
}

/// About the bytes that redoing a change takes: of time and of the journal.
pub(super) fn weight(change: &Change) -> usize {
    match change {
        Change::Bind { name, entry } | Change::Rebind { name, entry } => {
            NAME_OVERHEAD_BYTES + name.as_bytes().len() + entry.type_len()
        }
        Change::Unbind { name } => NAME_OVERHEAD_BYTES + name.as_bytes().len(),
        Change::Namespace(_) | Change::NamespaceGone { .. } => NAME_OVERHEAD_BYTES,
        Change::Inline { bytes, .. } => INLINE_OVERHEAD_BYTES + bytes.len(),
        Change::Blob { .. } | Change::BlobGone { .. } | Change::InlineGone { .. } => BLOB_OVERHEAD_BYTES,
    }
}

/// The key of a hint that `hash` is without a name since `since_ms`: in order of time.
pub(super) fn encode_hint(since_ms: u64, hash: &BlobHash) -> Bytes {
    let mut key = Vec::with_capacity(40);
    key.extend_from_slice(&since_ms.to_be_bytes());
    key.extend_from_slice(hash.as_bytes());
    key.into()
}

/// Begins the keys of hints about names. Those about blobs begin with a time, whose first byte is less for as long as
/// anybody need care.
const END: u8 = 0x80;

/// The key of a hint that the time of `name` ends at `end_ms`: in order of time, after all hints about blobs.
pub(super) fn encode_end(end_ms: u64, name: &Name) -> Bytes {
    let packed = name.as_bytes();
    let mut key = Vec::with_capacity(9 + packed.len());
    key.push(END);
    key.extend_from_slice(&end_ms.to_be_bytes());
    key.extend_from_slice(packed);
    key.into()
}

/// Reads what [`encode_end`] made.
pub(super) fn decode_end(key: &[u8]) -> Option<(u64, Name)> {
    let (end, packed) = key.strip_prefix(&[END])?.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*end), Name::from_packed(Bytes::copy_from_slice(packed)).ok()?))
}

/// Where hints about names begin.
pub(super) const ENDS: &[u8] = &[END];

/// Reads what [`encode_hint`] made.
pub(super) fn decode_hint(key: &[u8]) -> Option<(u64, BlobHash)> {
    let (since, hash) = key.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*since), BlobHash::from_slice(hash).ok()?))
}
