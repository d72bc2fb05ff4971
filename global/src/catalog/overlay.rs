//! Owns what is visible but not in the index yet, and the hot part of what is.
//!
//! What is not indexed is in memtables: a young one that takes every change, and frozen ones that the applier
//! writes to the index, the oldest first.
//!
//! Invariants, by which no reader ever sees an older value after a newer one:
//! 1. what was shown stays in a memtable until the index has it, and memtables are asked first, the youngest
//!    before the older ones;
//! 2. a key's stamp changes, under the overlay's write lock, whenever a value of it is shown; a reader that
//!    asked the index keeps the answer in the hot cache only under the read lock and only if the stamp is
//!    still the one it took when it found the key in neither;
//! 3. the applier brings the hot cache up to date with a frozen memtable *before* it takes that away.
//!
//! Lock order: overlay, then a shard of a hot cache. No engine call under either.

use super::memtable::{Map, Memtable};
use crate::change::{BlobMeta, Change, Commit};
use bytes::Bytes;
use dstore_shared::{BlobHash, Entry, Name, Namespace, NamespaceInfo, Result, Revision};
use foldhash::fast::RandomState;
use parking_lot::RwLock;
use quick_cache::Weighter;
use quick_cache::sync::{Cache, DefaultLifecycle};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{BuildHasher, Hash};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Stamps a layer has: two keys rarely share one, and sharing only costs a fill.
const STAMPS: usize = 4096;
/// Values up to this size are hot as soon as they are indexed; larger ones when they are first read.
const HOT_AT_ONCE_BYTES: usize = 4 << 10;
/// What an entry of a hot cache costs besides its key's and value's bytes.
const HOT_OVERHEAD_BYTES: u64 = 160;
/// Hints taken away between two chances for readers.
const HINTS_UNDER_LOCK: usize = 128;

/// All that is visible and not yet indexed.
#[derive(Default, Debug)]
pub(super) struct Overlay {
    pub(super) head: Revision,
    pub(super) at_ms: u64,
    /// Names that are bound, in the index and here.
    pub(super) names: u64,
    young: Memtable,
    /// The oldest first.
    frozen: VecDeque<Arc<Memtable>>,
    /// The memtables' blobs without a name, and since when.
    unnamed: BTreeSet<(u64, BlobHash)>,
    /// The memtables' names with a time to live, and when that ends.
    expiring: BTreeSet<(u64, Name)>,
    /// The namespaces that were created: all of them.
    pub(super) namespaces: BTreeMap<Namespace, NamespaceInfo>,
}

impl Overlay {
    /// The youngest first.
    pub(super) fn memtables(&self) -> impl Iterator<Item = &Memtable> {
        std::iter::once(&self.young).chain(self.frozen.iter().rev().map(|frozen| &**frozen))
    }

    /// Keys of all kinds.
    pub(super) fn len(&self) -> usize {
        self.memtables().map(Memtable::len).sum()
    }

    /// Bytes that the memtables take, about.
    pub(super) fn bytes(&self) -> usize {
        self.memtables().map(Memtable::bytes).sum()
    }

    /// At most `limit` blobs that are without a name since `before_ms` or earlier, oldest first.
    pub(super) fn unnamed(&self, before_ms: u64, limit: usize) -> Vec<(u64, BlobHash)> {
        self.unnamed.iter().take_while(|(since, _)| *since <= before_ms).take(limit).copied().collect()
    }

    /// At most `limit` names whose time ended at `now_ms` or earlier, the earliest first, behind one of them.
    pub(super) fn overdue(&self, now_ms: u64, limit: usize, after: Option<&(u64, Name)>) -> Vec<(u64, Name)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let ends = self.expiring.range((from, Bound::Unbounded));
        ends.take_while(|(end, _)| *end <= now_ms).take(limit).cloned().collect()
    }

    /// Forgets hints that are not true any more.
    pub(super) fn forget_expiring(&mut self, hints: &[(u64, Name)]) {
        for hint in hints {
            self.expiring.remove(hint);
        }
    }

    /// Forgets hints that are not true any more.
    pub(super) fn forget_unnamed(&mut self, hints: &[(u64, BlobHash)]) {
        for hint in hints {
            self.unnamed.remove(hint);
        }
    }

    /// Freezes the young memtable, if anything is in it; it is to be indexed.
    pub(super) fn freeze(&mut self) -> Option<Arc<Memtable>> {
        if self.young.last == Revision(0) {
            return None;
        }
        let next = self.young.next();
        let frozen = Arc::new(std::mem::replace(&mut self.young, next));
        self.frozen.push_back(frozen.clone());
        Some(frozen)
    }

    /// Names that no memtable has change from absent to bound or back, unless they are rebound: the committer binds
    /// only absent names, and rebinds and unbinds only bound ones.
    fn put_name(&mut self, name: &Name, entry: Option<Entry>, rebound: bool) {
        let known = self.memtables().find_map(|memtable| memtable.names.get(name));
        let was_bound = known.map_or(rebound || entry.is_none(), Option::is_some);
        let (is_bound, end) = (entry.is_some(), entry.as_ref().and_then(|entry| entry.expires_at));
        if let Some(end) = self.young.put_name(name, entry).and_then(|old| old.expires_at) {
            self.expiring.remove(&(end.get(), name.clone()));
        }
        if let Some(end) = end {
            self.expiring.insert((end.get(), name.clone()));
        }
        match (was_bound, is_bound) {
            (false, true) => self.names += 1,
            (true, false) => self.names = self.names.saturating_sub(1),
            _ => {}
        }
    }

    fn put_blob(&mut self, hash: BlobHash, meta: Option<BlobMeta>) {
        if let Some(since) = self.young.put_blob(hash, meta).and_then(|old| old.unnamed_since_ms) {
            self.unnamed.remove(&(since, hash));
        }
        if let Some(since) = meta.and_then(|meta| meta.unnamed_since_ms) {
            self.unnamed.insert((since, hash));
        }
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
            names: Layer::new(names, |m| &m.names, Name::compact),
            blobs: Layer::new(blobs, |m| &m.blobs, BlobHash::clone),
            inline: Layer::new(inline, |m| &m.inline, BlobHash::clone),
        }
    }

    /// Makes commits visible in one step. Gives a memtable to index if it has grown to `full` bytes.
    pub(super) fn show(&self, commits: &[Commit], full: usize) -> Option<Arc<Memtable>> {
        let last = commits.last()?;
        let mut overlay = self.overlay.write();
        for change in commits.iter().flat_map(|commit| &commit.changes) {
            self.show_change(&mut overlay, change);
        }
        overlay.head = last.revision;
        overlay.young.last = last.revision;
        overlay.at_ms = last.at_ms.max(overlay.at_ms);
        if overlay.young.bytes() < full { None } else { overlay.freeze() }
    }

    fn show_change(&self, overlay: &mut Overlay, change: &Change) {
        match change {
            Change::Bind { name, entry } => {
                self.names.touch(name);
                overlay.put_name(name, Some(entry.clone()), false);
            }
            Change::Rebind { name, entry } => {
                self.names.touch(name);
                overlay.put_name(name, Some(entry.clone()), true);
            }
            Change::Unbind { name } => {
                self.names.touch(name);
                overlay.put_name(name, None, false);
            }
            Change::Blob { hash, meta } => {
                self.blobs.touch(hash);
                overlay.put_blob(*hash, Some(*meta));
            }
            Change::BlobGone { hash } => {
                self.blobs.touch(hash);
                overlay.put_blob(*hash, None);
            }
            Change::Inline { hash, bytes } => {
                self.inline.touch(hash);
                overlay.young.put_inline(*hash, Some(bytes.clone()));
            }
            Change::InlineGone { hash } => {
                self.inline.touch(hash);
                overlay.young.put_inline(*hash, None);
            }
            Change::Namespace(info) => {
                overlay.namespaces.insert(info.namespace.clone(), info.clone());
            }
            Change::NamespaceGone { namespace } => _ = overlay.namespaces.remove(namespace),
        }
    }

    /// Takes away the oldest frozen memtable, which the index now has.
    pub(super) fn retire(&self, frozen: &Memtable) {
        for (name, entry) in &frozen.names {
            self.names.keep(name, entry.clone());
        }
        for (hash, meta) in &frozen.blobs {
            self.blobs.keep_if_hot(hash, *meta);
        }
        for (hash, bytes) in &frozen.inline {
            match bytes {
                Some(bytes) if bytes.len() > HOT_AT_ONCE_BYTES => self.inline.forget(hash),
                bytes => self.inline.keep(hash, bytes.clone()),
            }
        }
        let hints: Vec<_> = frozen.unnamed().map(|(since, hash)| (since, *hash)).collect();
        for some in hints.chunks(HINTS_UNDER_LOCK) {
            self.overlay.write().forget_unnamed(some);
        }
        let ends: Vec<_> = frozen.expiring().map(|(end, name)| (end, name.clone())).collect();
        for some in ends.chunks(HINTS_UNDER_LOCK) {
            self.overlay.write().forget_expiring(some);
        }
        // Dropped after the lock is let go: it is large.
        let _gone = self.overlay.write().frozen.pop_front();
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
    part: fn(&Memtable) -> &Map<K, V>,
    /// A copy of a key to keep, without the frame that it came in.
    own: fn(&K) -> K,
    stamps: Box<[AtomicU64]>,
    stamping: RandomState,
    hot: Cache<K, V, Weigh, RandomState>,
}

impl<K: Hash + Eq + Clone, V: Clone> Layer<K, V>
where
    Weigh: Weighter<K, V>,
{
    fn new(hot_bytes: u64, part: fn(&Memtable) -> &Map<K, V>, own: fn(&K) -> K) -> Self {
        let about = (hot_bytes / (4 * HOT_OVERHEAD_BYTES)) as usize;
        let hot = Cache::with(about, hot_bytes, Weigh, RandomState::default(), DefaultLifecycle::default());
        let stamps = (0..STAMPS).map(|_| AtomicU64::new(0)).collect();
        Self { part, own, stamps, stamping: RandomState::default(), hot }
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
        match self.shown(overlay, key) {
            Some(value) => Look::Known(value.clone()),
            None => Look::Ask(Stamp(self.stamp(key).load(Ordering::Relaxed))),
        }
    }

    /// The value of a key, without asking the index.
    pub(super) fn known(&self, overlay: &RwLock<Overlay>, key: &K) -> Option<V> {
        // The stamp is not needed, so not computed.
        if let Some(value) = self.shown(&overlay.read(), key) {
            return Some(value.clone());
        }
        self.hot.get(key)
    }

    fn shown<'a>(&self, overlay: &'a Overlay, key: &K) -> Option<&'a V>
    where
        K: 'a,
    {
        overlay.memtables().find_map(|memtable| (self.part)(memtable).get(key))
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

    /// As `read`, for whoever is about to change the key: the index's answer is not kept.
    pub(super) fn read_once(
        &self,
        overlay: &RwLock<Overlay>,
        key: &K,
        ask: impl FnOnce() -> Result<V>,
    ) -> Result<V> {
        self.known(overlay, key).map_or_else(ask, Ok)
    }

    /// Keeps the index's answer, unless something newer may have been shown meanwhile.
    pub(super) fn fill(&self, _under: &Overlay, key: &K, value: V, stamp: Stamp) {
        if self.unmoved(key, stamp) {
            self.hot.insert((self.own)(key), value);
        }
    }

    /// Whether nothing was shown of the key since `stamp` was taken.
    pub(super) fn unmoved(&self, key: &K, stamp: Stamp) -> bool {
        Stamp(self.stamp(key).load(Ordering::Relaxed)) == stamp
    }

    /// A value of the key is about to be shown. Ordered by the overlay's lock, which readers of the stamp hold
    /// too.
    fn touch(&self, key: &K) {
        self.stamp(key).fetch_add(1, Ordering::Relaxed);
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
    fn weight(&self, name: &Name, entry: &Option<Entry>) -> u64 {
        let content_type = entry.as_ref().map_or(0, Entry::type_len);
        HOT_OVERHEAD_BYTES + (name.as_bytes().len() + content_type) as u64
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
