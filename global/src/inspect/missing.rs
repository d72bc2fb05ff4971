//! Looks for names whose value should have a file and has none, and for damaged values inside the index.
//!
//! Invariants: the state that is looked at is what a start would serve: the index, and over it what the journal
//! changed since. Memory holds what that part of the journal changed, and at most [`NAMED_MAX`] names.

use crate::change::{BlobMeta, Change, Commit, Place, decode_entry, decode_meta};
use crate::engine::{Engine, Table};
use bytes::Bytes;
use dstore_shared::{BlobHash, Name, Result};
use std::collections::{HashMap, HashSet};
use std::ops::{Bound, ControlFlow};

/// Names that are told; more are counted.
pub(super) const NAMED_MAX: usize = 100;
/// Missing values whose names are looked for.
const HASHES_MAX: usize = 10_000;
/// What is read of the index at once.
const PAGE: usize = 256;

/// What the journal changed since the checkpoint.
#[derive(Default)]
pub(super) struct Changed {
    blobs: HashMap<BlobHash, Option<BlobMeta>>,
    names: HashMap<Bytes, Option<BlobHash>>,
}

/// Values without a file.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct MissingBlobs {
    /// How many values that a name is bound to have no file.
    pub values: u64,
    /// Names that are bound to them, the first hundred.
    pub names: Vec<(Name, BlobHash)>,
}

impl Changed {
    pub(super) fn commit(&mut self, commit: Commit) {
        for change in commit.changes {
            match change {
                Change::Blob { hash, meta } => _ = self.blobs.insert(hash, Some(meta)),
                Change::BlobGone { hash } => _ = self.blobs.insert(hash, None),
                Change::Bind { name, entry } | Change::Rebind { name, entry } => {
                    self.names.insert(Bytes::copy_from_slice(name.as_bytes()), Some(entry.hash));
                }
                Change::Unbind { name } => {
                    self.names.insert(Bytes::copy_from_slice(name.as_bytes()), None);
                }
                Change::Inline { .. }
                | Change::InlineGone { .. }
                | Change::Namespace(_)
                | Change::NamespaceGone { .. } => {}
            }
        }
    }

    /// Values that are named and in no file, over `index` if that counts.
    pub(super) fn look(
        &self,
        index: Option<&dyn Engine>,
        has_file: impl Fn(&BlobHash) -> bool,
    ) -> Result<MissingBlobs> {
        let (mut missing, mut found) = (HashSet::new(), MissingBlobs::default());
        let mut note = |hash: BlobHash, meta: &BlobMeta| {
            if meta.place == Place::File && meta.refs > 0 && !has_file(&hash) {
                found.values += 1;
                if missing.len() < HASHES_MAX {
                    missing.insert(hash);
                }
            }
        };
        for (hash, meta) in &self.blobs {
            meta.iter().for_each(|meta| note(*hash, meta));
        }
        pages(index, Table::Blobs, |key, value| {
            let Ok(hash) = <[u8; 32]>::try_from(&key[..]) else { return Ok(()) };
            let hash = BlobHash::from_bytes(hash);
            if !self.blobs.contains_key(&hash) {
                note(hash, &decode_meta(value)?);
            }
            Ok(())
        })?;
        if missing.is_empty() {
            return Ok(found);
        }
        let mut name = |key: Bytes, hash: BlobHash| {
            if missing.contains(&hash)
                && found.names.len() < NAMED_MAX
                && let Ok(name) = Name::from_packed(key)
            {
                found.names.push((name, hash));
            }
        };
        for (key, hash) in &self.names {
            hash.iter().for_each(|hash| name(key.clone(), *hash));
        }
        pages(index, Table::Names, |key, value| {
            if !self.names.contains_key(&key) {
                name(key, decode_entry(value)?.hash);
            }
            Ok(())
        })?;
        found.names.sort();
        Ok(found)
    }
}

/// Values inside the index whose bytes do not have their hash, the first hundred.
pub(super) fn damaged_inline(index: &dyn Engine) -> Result<Vec<BlobHash>> {
    let mut damaged = Vec::new();
    pages(Some(index), Table::Inline, |key, bytes| {
        let hash = BlobHash::from_bytes(<[u8; 32]>::try_from(&key[..]).unwrap_or_default());
        if damaged.len() < NAMED_MAX && BlobHash::of(&bytes) != hash {
            damaged.push(hash);
        }
        Ok(())
    })?;
    Ok(damaged)
}

/// Hands over a whole table, read in pages.
fn pages(
    index: Option<&dyn Engine>,
    table: Table,
    mut each: impl FnMut(Bytes, Bytes) -> Result<()>,
) -> Result<()> {
    let Some(index) = index else { return Ok(()) };
    let mut after: Option<Bytes> = None;
    loop {
        let mut page = Vec::with_capacity(PAGE);
        let start = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        index.scan(table, start, PAGE, &mut |key, value| {
            page.push((key, value));
            ControlFlow::Continue(())
        })?;
        let n = page.len();
        after = page.last().map(|(key, _)| key.clone());
        for (key, value) in page {
            each(key, value)?;
        }
        if n < PAGE {
            return Ok(());
        }
    }
}
