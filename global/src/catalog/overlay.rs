//! Owns what is visible but not in the index yet, and the hot part of what is.
//!
//! Invariants, by which no reader ever sees an older value after a newer one:
//! 1. what was shown stays in the overlay until the index has it, and the overlay is asked first;
//! 2. a key's stamp changes, under the overlay's write lock, whenever a value of it is shown; a reader that
//!    asked the index keeps the answer in the hot cache only under the read lock and only if the stamp is
//!    still the one it took when it found the key in neither;
//! 3. the applier puts the applied value into the hot cache *before* it takes it out of the overlay, and
//!    takes it out only if nothing newer was shown.
//!
//! Lock order: overlay, then a shard of a hot cache. No engine call under either.

use crate::change::{BlobMeta, Change, Commit};
use bytes::Bytes;
use dstore_shared::{BlobHash, Entry, Name, Result, Revision};
use foldhash::fast::RandomState;
use parking_lot::RwLock;
use quick_cache::Weighter;
use quick_cache::sync::{Cache, DefaultLifecycle};
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::sync::atomic::{AtomicU64, Ordering};

/// Stamps a layer has: two keys rarely share one, and sharing only costs a fill.
const STAMPS: usize = 4096;
/// Values up to this size are hot as soon as they are applied; larger ones when they are first read.
const HOT_AT_ONCE_BYTES: usize = 4 << 10;
/// What an entry of a hot cache costs besides its key's and value's bytes.
const HOT_OVERHEAD_BYTES: u64 = 160;

pub(super) type Map<K, V> = HashMap<K, Shown<V>, RandomState>;

/// A value that is visible, and since when.
#[derive(Debug)]
pub(super) struct Shown<V> {
    value: V,
    revision: Revision,
}

/// All that is visible and not yet indexed.
#[derive(Default, Debug)]
pub(super) struct Overlay {
    pub(super) head: Revision,
    pub(super) at_ms: u64,
    pub(super) names: Map<Name, Option<Entry>>,
    pub(super) blobs: Map<BlobHash, Option<BlobMeta>>,
    pub(super) inline: Map<BlobHash, Option<Bytes>>,
}

impl Overlay {
    pub(super) fn len(&self) -> usize {
        self.names.len() + self.blobs.len() + self.inline.len()
    }
}

/// The overlay and, for each kind of key, its hot cache.
#[derive(Debug)]
pub(super) struct Layers {
    pub(super) overlay: RwLock<Overlay>,
    pub(super) names: Layer<Name, Option<Entry>>,
    pub(super) blobs: Layer<BlobHash, Option<BlobMeta>>,
    pub(super) inline: Layer<BlobHash, Option<Bytes>>,
}

impl Layers {
    pub(super) fn new((names, blobs, inline): (u64, u64, u64)) -> Self {
        Self {
            overlay: RwLock::default(),
            names: Layer::new(names, |o| &o.names, |o| &mut o.names),
            blobs: Layer::new(blobs, |o| &o.blobs, |o| &mut o.blobs),
            inline: Layer::new(inline, |o| &o.inline, |o| &mut o.inline),
        }
    }

    /// Makes commits visible in one step.
    pub(super) fn show(&self, commits: &[Commit]) {
        let Some(last) = commits.last() else { return };
        let mut overlay = self.overlay.write();
        for commit in commits {
            for change in &commit.changes {
                self.show_change(&mut overlay, change, commit.revision);
            }
        }
        overlay.head = last.revision;
        overlay.at_ms = last.at_ms.max(overlay.at_ms);
    }

    fn show_change(&self, overlay: &mut Overlay, change: &Change, revision: Revision) {
        match change {
            Change::Bind { name, entry } => self.names.show(overlay, name.clone(), Some(*entry), revision),
            Change::Unbind { name } => self.names.show(overlay, name.clone(), None, revision),
            Change::Blob { hash, meta } => self.blobs.show(overlay, *hash, Some(*meta), revision),
            Change::BlobGone { hash } => self.blobs.show(overlay, *hash, None, revision),
            Change::Inline { hash, bytes } => self.inline.show(overlay, *hash, Some(bytes.clone()), revision),
            Change::InlineGone { hash } => self.inline.show(overlay, *hash, None, revision),
        }
    }

    /// Takes out of the overlay what the index now has. Readers wait at most for one commit's worth of it.
    pub(super) fn retire(&self, commits: &[Commit]) {
        for commit in commits {
            for change in &commit.changes {
                self.keep_hot(change);
            }
            let mut overlay = self.overlay.write();
            for change in &commit.changes {
                self.retire_change(&mut overlay, change, commit.revision);
            }
        }
    }

    fn keep_hot(&self, change: &Change) {
        match change {
            Change::Bind { name, entry } => self.names.keep(name, Some(*entry)),
            Change::Unbind { name } => self.names.keep(name, None),
            Change::Blob { hash, meta } => self.blobs.keep_if_hot(hash, Some(*meta)),
            Change::BlobGone { hash } => self.blobs.keep_if_hot(hash, None),
            Change::Inline { hash, bytes } if bytes.len() <= HOT_AT_ONCE_BYTES => {
                // A copy: the bytes may be a small part of a frame, which the cache must not keep.
                self.inline.keep(hash, Some(Bytes::copy_from_slice(bytes)));
            }
            Change::Inline { hash, .. } => self.inline.forget(hash),
            Change::InlineGone { hash } => self.inline.keep(hash, None),
        }
    }

    fn retire_change(&self, overlay: &mut Overlay, change: &Change, revision: Revision) {
        match change {
            Change::Bind { name, .. } | Change::Unbind { name } => self.names.retire(overlay, name, revision),
            Change::Blob { hash, .. } | Change::BlobGone { hash } => {
                self.blobs.retire(overlay, hash, revision);
            }
            Change::Inline { hash, .. } | Change::InlineGone { hash } => {
                self.inline.retire(overlay, hash, revision);
            }
        }
    }
}

/// What is known of a key without asking the index.
pub(super) enum Look<V> {
    /// This is its value.
    Known(V),
    /// Ask the index, and keep its answer with this stamp.
    Ask(Stamp),
}

/// How often values of a key, and of those that share its place, were shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stamp(u64);

/// One kind of key: its part of the overlay, its stamps and its hot cache.
pub(super) struct Layer<K, V>
where
    Weigh: Weighter<K, V>,
{
    part: fn(&Overlay) -> &Map<K, V>,
    part_mut: fn(&mut Overlay) -> &mut Map<K, V>,
    stamps: Box<[AtomicU64]>,
    stamping: RandomState,
    hot: Cache<K, V, Weigh, RandomState>,
}

impl<K: Hash + Eq + Clone, V: Clone> Layer<K, V>
where
    Weigh: Weighter<K, V>,
{
    fn new(
        hot_bytes: u64,
        part: fn(&Overlay) -> &Map<K, V>,
        part_mut: fn(&mut Overlay) -> &mut Map<K, V>,
    ) -> Self {
        let about = (hot_bytes / (4 * HOT_OVERHEAD_BYTES)) as usize;
        let hot = Cache::with(about, hot_bytes, Weigh, RandomState::default(), DefaultLifecycle::default());
        let stamps = (0..STAMPS).map(|_| AtomicU64::new(0)).collect();
        Self { part, part_mut, stamps, stamping: RandomState::default(), hot }
    }

    fn stamp(&self, key: &K) -> &AtomicU64 {
        &self.stamps[self.stamping.hash_one(key) as usize % STAMPS]
    }

    /// The value of a key, if memory has it. Blocks for no longer than a commit takes to become visible.
    pub(super) fn look(&self, overlay: &RwLock<Overlay>, key: &K) -> Look<V> {
        let shown = overlay.read();
        match self.look_under(&shown, key) {
            Look::Known(value) => Look::Known(value),
            Look::Ask(stamp) => {
                drop(shown);
                self.hot.get(key).map_or(Look::Ask(stamp), Look::Known)
            }
        }
    }

    /// Looks in the overlay only.
    pub(super) fn look_under(&self, overlay: &Overlay, key: &K) -> Look<V> {
        match (self.part)(overlay).get(key) {
            Some(shown) => Look::Known(shown.value.clone()),
            None => Look::Ask(Stamp(self.stamp(key).load(Ordering::Relaxed))),
        }
    }

    /// The value of a key, without asking the index.
    pub(super) fn known(&self, overlay: &RwLock<Overlay>, key: &K) -> Option<V> {
        // The stamp is not needed, so not computed.
        if let Some(shown) = (self.part)(&overlay.read()).get(key) {
            return Some(shown.value.clone());
        }
        self.hot.get(key)
    }

    /// The value of a key; `ask` asks the index, if need be.
    pub(super) fn read(
        &self,
        overlay: &RwLock<Overlay>,
        key: &K,
        ask: impl FnOnce() -> Result<V>,
    ) -> Result<V> {
        match self.look(overlay, key) {
            Look::Known(value) => Ok(value),
            Look::Ask(stamp) => {
                let value = ask()?;
                self.fill(&overlay.read(), key, value.clone(), stamp);
                Ok(value)
            }
        }
    }

    /// Keeps the index's answer, unless something newer may have been shown meanwhile.
    pub(super) fn fill(&self, _under: &Overlay, key: &K, value: V, stamp: Stamp) {
        if self.unmoved(key, stamp) {
            self.hot.insert(key.clone(), value);
        }
    }

    /// Whether nothing was shown of the key since `stamp` was taken.
    pub(super) fn unmoved(&self, key: &K, stamp: Stamp) -> bool {
        Stamp(self.stamp(key).load(Ordering::Relaxed)) == stamp
    }

    fn show(&self, overlay: &mut Overlay, key: K, value: V, revision: Revision) {
        // Ordered by the overlay's lock, which readers of the stamp hold too.
        self.stamp(&key).fetch_add(1, Ordering::Relaxed);
        (self.part_mut)(overlay).insert(key, Shown { value, revision });
    }

    fn keep(&self, key: &K, value: V) {
        self.hot.insert(key.clone(), value);
    }

    /// As `keep`, for keys that are rarely read after they were written.
    fn keep_if_hot(&self, key: &K, value: V) {
        let _ = self.hot.replace(key.clone(), value, true); // fails if the key is not there
    }

    fn forget(&self, key: &K) {
        self.hot.remove(key);
    }

    fn retire(&self, overlay: &mut Overlay, key: &K, revision: Revision) {
        let part = (self.part_mut)(overlay);
        if part.get(key).is_some_and(|shown| shown.revision == revision) {
            part.remove(key);
        }
    }

    /// Bytes in the hot cache.
    pub(super) fn hot_bytes(&self) -> u64 {
        self.hot.weight()
    }
}

impl<K, V> std::fmt::Debug for Layer<K, V>
where
    Weigh: Weighter<K, V>,
{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Layer")
    }
}

/// Bytes that a key and its value take in a hot cache.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weigh;

impl Weighter<Name, Option<Entry>> for Weigh {
    fn weight(&self, name: &Name, _: &Option<Entry>) -> u64 {
        HOT_OVERHEAD_BYTES + name.as_bytes().len() as u64
    }
}

impl Weighter<BlobHash, Option<BlobMeta>> for Weigh {
    fn weight(&self, _: &BlobHash, _: &Option<BlobMeta>) -> u64 {
        HOT_OVERHEAD_BYTES
    }
}

impl Weighter<BlobHash, Option<Bytes>> for Weigh {
    fn weight(&self, _: &BlobHash, bytes: &Option<Bytes>) -> u64 {
        HOT_OVERHEAD_BYTES + bytes.as_ref().map_or(0, Bytes::len) as u64
    }
}
