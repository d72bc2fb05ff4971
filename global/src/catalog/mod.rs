//! Owns what Global's state *is* for everybody who reads it: the committed changes that are visible, over the
//! index that holds those of before.
//!
//! ```text
//! committer --show--> memtable (visible at once) --frozen when full--> applier --apply--> index, hot caches
//! reader: memtables? hot cache? else ask the index, and keep its answer unless newer was shown meanwhile
//! ```
//!
//! Invariants: all changes of a commit become visible in one step; a value once visible is never followed by
//! an older one (`overlay` says why); what is visible and not indexed is bounded in bytes, and
//! [`Catalog::make_room`] waits when it is too much. The catalog decides nothing: it must only be shown what is
//! durable in the journal, by one caller at a time, in the order of revisions. If what is shown is only written, a gate
//! keeps it from the index until it is durable.

mod applier;
#[cfg(test)]
mod figures;
mod list;
mod memtable;
mod overlay;
#[cfg(test)]
mod tests;

pub use applier::{Gate, OnPoison};
pub use list::Page;

use crate::change::{BlobMeta, Commit, decode_entry, decode_meta};
use crate::checkpoint::{Checkpoints, Remembered};
use crate::engine::{Engine, Table};
use applier::{Applier, CheckpointJob, Job};
use bytes::Bytes;
use dstore_shared::{
    BlobHash, Entry, Error, HistoryId, Moment, Name, Namespace, NamespaceInfo, NamespaceSpec, Result,
    Revision,
};
use dstore_sys::tasks::{Blocking, Lane, LaneEnd};
use memtable::{ENDS, decode_end, decode_hint, encode_end, encode_hint, weight};
use overlay::{Layers, Look, Overlay, Stamp};
use std::collections::HashSet;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;

/// How much memory the catalog may take, and when a checkpoint is due.
#[derive(Clone, Debug)]
pub struct CatalogConfig {
    /// Bytes that may be visible and not indexed; one batch of the journal may come on top.
    pub pending_bytes: u64,
    /// Bytes of a memtable that is full: it is frozen and written to the index at once. At most half of
    /// `pending_bytes` counts.
    pub memtable_bytes: u64,
    /// Bytes of the hot cache of names.
    pub hot_names_bytes: u64,
    /// Bytes of the hot cache of what is known of blobs.
    pub hot_blobs_bytes: u64,
    /// Bytes of the hot cache of inline values.
    pub hot_inline_bytes: u64,
    /// A checkpoint is due after commits of so many bytes.
    pub checkpoint_bytes: u64,
    /// A checkpoint is due after so long, if there was any commit.
    pub checkpoint_every: Duration,
}

impl Default for CatalogConfig {
    fn default() -> Self {
        Self {
            // One memtable that fills, one that is written, and one more while a checkpoint syncs.
            pending_bytes: 96 << 20,
            // Fewer and longer runs in the index mean less compaction.
            memtable_bytes: 32 << 20,
            // About 400,000 names.
            hot_names_bytes: 96 << 20,
            hot_blobs_bytes: 16 << 20,
            hot_inline_bytes: 64 << 20,
            // Bounds what an unclean start has to redo: half a second of it.
            checkpoint_bytes: 64 << 20,
            checkpoint_every: Duration::from_secs(60),
        }
    }
}

/// Where a catalog starts from: what the last checkpoint proves.
#[derive(Debug)]
pub struct Start {
    /// The index.
    pub engine: Arc<dyn Engine>,
    /// Where checkpoints are kept.
    pub files: Checkpoints,
    /// The history.
    pub history: HistoryId,
    /// The revision of the last checkpoint.
    pub revision: Revision,
    /// That of the one before, if it proves this index; else 0.
    pub previous: Revision,
    /// Journal time at `revision`.
    pub at_ms: u64,
    /// Names that are bound at `revision`.
    pub names: u64,
    /// Namespaces that were created, at `revision`.
    pub namespaces: Vec<NamespaceInfo>,
}

/// The visible state of one shard. Clones share it.
#[derive(Clone, Debug)]
pub struct Catalog {
    applier: Arc<Applier>,
    lane: Lane<Wake>,
    blocking: Blocking,
    due: Arc<Due>,
    memtable_bytes: usize,
}

/// Says that something was queued. One that waits stands for any number.
#[derive(Debug)]
struct Wake;

#[derive(Debug)]
struct Due {
    bytes_since: AtomicU64,
    last_at: AtomicU64,
    bytes: u64,
    every: Duration,
}

/// Names that one call of [`Catalog::unnamed`] looks at, for each that it may give.
const HINTS_PER_CANDIDATE: usize = 8;
/// Attempts of [`Catalog::entries`] before it lets nothing become visible while it reads.
const ENTRIES_ATTEMPTS: usize = 4;

/// A place among the hints of names whose time ends: those that are indexed, and those that are only visible.
#[derive(Clone, Default, Debug)]
pub struct Hints {
    indexed: Option<(u64, Name)>,
    shown: Option<(u64, Name)>,
}

/// How much the catalog holds.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Names that are bound.
    pub names: u64,
    /// Blobs, about.
    pub blobs: u64,
    /// Keys whose value is visible and not indexed.
    pub pending: usize,
    /// Bytes visible and not indexed.
    pub pending_bytes: u64,
    /// Bytes of hot names, of what is known of hot blobs, and of hot inline values.
    pub hot_bytes: [u64; 3],
}

impl Catalog {
    /// A catalog over the index, and the end of its applier: that comes after every clone is dropped.
    pub fn start(start: Start, config: &CatalogConfig, blocking: Blocking) -> (Self, LaneEnd) {
        let hot = (config.hot_names_bytes, config.hot_blobs_bytes, config.hot_inline_bytes);
        let layers = Layers::new(hot);
        {
            let mut overlay = layers.overlay.write();
            (overlay.head, overlay.at_ms, overlay.names) = (start.revision, start.at_ms, start.names);
            let namespaces = start.namespaces.into_iter().map(|info| (info.namespace.clone(), info));
            overlay.namespaces = namespaces.collect();
        }
        let memtable_bytes = config.memtable_bytes.min(config.pending_bytes / 2);
        let applier = Arc::new(Applier::new(
            start.engine,
            layers,
            (start.files, start.history),
            (start.revision, start.previous),
            config.pending_bytes as usize,
        ));
        let worker = applier.clone();
        let (lane, end) =
            Lane::start(blocking, "dstore-index", (1, 1), move |_: &mut Vec<Wake>| worker.drain());
        let due = Due {
            bytes_since: 0.into(),
            last_at: 0.into(),
            bytes: config.checkpoint_bytes,
            every: config.checkpoint_every,
        };
        let memtable_bytes = memtable_bytes as usize;
        (Self { applier, lane, blocking, due: Arc::new(due), memtable_bytes }, end)
    }

    /// The revision of the newest visible commit.
    pub fn head(&self) -> Revision {
        self.layers().overlay.read().head
    }

    /// Journal time of the newest visible commit, in milliseconds since 1970.
    pub fn journal_time(&self) -> u64 {
        self.layers().overlay.read().at_ms
    }

    /// What a namespace allows.
    pub fn namespace(&self, namespace: &Namespace) -> NamespaceSpec {
        let overlay = self.layers().overlay.read();
        overlay.namespaces.get(namespace).map_or_else(NamespaceSpec::default, |info| info.spec)
    }

    /// The namespaces that were created, in the order of their names.
    pub fn namespaces(&self) -> Vec<NamespaceInfo> {
        self.layers().overlay.read().namespaces.values().cloned().collect()
    }

    /// Everything up to this revision is in the index (and not for that durable there).
    pub fn indexed(&self) -> Revision {
        self.applier.indexed()
    }

    /// What `name` is bound to, from memory only: `Some(None)` = to nothing, `None` = ask [`Catalog::entry`].
    pub fn entry_hot(&self, name: &Name) -> Option<Option<Entry>> {
        self.layers().names.known(&self.layers().overlay, name)
    }

    /// What `name` is bound to. May block on the index's disk.
    ///
    /// # Errors
    /// `Unavailable` or `Corrupt` if the index cannot be read.
    pub fn entry(&self, name: &Name) -> Result<Option<Entry>> {
        self.layers().names.read(&self.layers().overlay, name, || self.ask_entry(name))
    }

    /// As [`Catalog::entry`], for whoever is about to change the name: what the index says is not kept.
    ///
    /// # Errors
    /// As [`Catalog::entry`].
    pub fn entry_once(&self, name: &Name) -> Result<Option<Entry>> {
        self.layers().names.read_once(&self.layers().overlay, name, || self.ask_entry(name))
    }

    /// What each of `names` is bound to, all at the one revision that is given too. May block on the index's
    /// disk.
    ///
    /// # Errors
    /// As [`Catalog::entry`].
    pub fn entries(&self, names: &[Name]) -> Result<(Revision, Vec<Option<Entry>>)> {
        for _ in 0..ENTRIES_ATTEMPTS {
            if let Some(read) = self.try_entries(names)? {
                return Ok(read);
            }
        }
        // Nothing becomes visible while the lock is held, so what the index says stays true.
        let overlay = self.layers().overlay.read();
        let read = |name| match self.layers().names.look_under(&overlay, name) {
            Look::Known(entry) => Ok(entry),
            Look::Ask(_) => self.ask_entry(name),
        };
        Ok((overlay.head, names.iter().map(read).collect::<Result<_>>()?))
    }

    /// `None` if one of the names may have changed while the index was asked.
    fn try_entries(&self, names: &[Name]) -> Result<Option<(Revision, Vec<Option<Entry>>)>> {
        let layer = &self.layers().names;
        let overlay = self.layers().overlay.read();
        let looks: Vec<_> = names.iter().map(|name| layer.look_under(&overlay, name)).collect();
        let head = overlay.head;
        drop(overlay);
        let mut asked: Vec<(&Name, Stamp)> = Vec::new();
        let mut found = Vec::with_capacity(names.len());
        for (name, look) in names.iter().zip(looks) {
            found.push(match look {
                Look::Known(entry) => entry,
                Look::Ask(stamp) => {
                    asked.push((name, stamp));
                    self.entry(name)?
                }
            });
        }
        let _overlay = self.layers().overlay.read();
        Ok(asked.iter().all(|(name, stamp)| layer.unmoved(name, *stamp)).then_some((head, found)))
    }

    fn ask_entry(&self, name: &Name) -> Result<Option<Entry>> {
        self.applier.engine.get(Table::Names, name.as_bytes())?.map(decode_entry).transpose()
    }

    /// What is known of a blob, from memory only: `Some(None)` = Global does not hold it, `None` = ask
    /// [`Catalog::blob`].
    pub fn blob_hot(&self, hash: &BlobHash) -> Option<Option<BlobMeta>> {
        self.layers().blobs.known(&self.layers().overlay, hash)
    }

    /// What is known of a blob; `None` = Global does not hold it. May block on the index's disk.
    ///
    /// # Errors
    /// As [`Catalog::entry`].
    pub fn blob(&self, hash: &BlobHash) -> Result<Option<BlobMeta>> {
        self.layers().blobs.read(&self.layers().overlay, hash, || self.ask_blob(hash))
    }

    /// As [`Catalog::blob`], for whoever is about to change what is known.
    ///
    /// # Errors
    /// As [`Catalog::entry`].
    pub fn blob_once(&self, hash: &BlobHash) -> Result<Option<BlobMeta>> {
        self.layers().blobs.read_once(&self.layers().overlay, hash, || self.ask_blob(hash))
    }

    fn ask_blob(&self, hash: &BlobHash) -> Result<Option<BlobMeta>> {
        self.applier.engine.get(Table::Blobs, hash.as_bytes())?.map(decode_meta).transpose()
    }

    /// The bytes of an inline blob, from memory only; `None` = ask [`Catalog::inline`].
    pub fn inline_hot(&self, hash: &BlobHash) -> Option<Bytes> {
        self.layers().inline.known(&self.layers().overlay, hash).flatten()
    }

    /// The bytes of an inline blob, not verified; `None` = they are not inline. May block on the index's disk.
    ///
    /// # Errors
    /// As [`Catalog::entry`].
    pub fn inline(&self, hash: &BlobHash) -> Result<Option<Bytes>> {
        self.layers()
            .inline
            .read(&self.layers().overlay, hash, || self.applier.engine.get(Table::Inline, hash.as_bytes()))
    }

    /// Waits until the applier has caught up far enough for another batch (or, where blocking is simulated,
    /// does the applier's work in place). To be called before [`Catalog::show`], outside every lock.
    pub fn make_room(&self) {
        match self.blocking {
            Blocking::Threads => self.applier.wait_for_room(),
            Blocking::Inline { .. } if !self.applier.has_room() => self.applier.drain(),
            Blocking::Inline { .. } => {}
        }
    }

    /// Whether another change may be shown though the index waits for space: an `essential` one as long as there is
    /// room in memory, others not at all, so that the room is left.
    ///
    /// # Errors
    /// `Exhausted` with a delay if not.
    pub fn check_space(&self, essential: bool) -> Result<()> {
        let starved = self.applier.is_starved() && !(essential && self.applier.has_room());
        if starved { Err(applier::no_space()) } else { Ok(()) }
    }

    /// Has the index go on if it waited for space and there may be some. To be called now and then.
    pub fn try_again(&self) {
        if self.applier.is_starved() {
            let _ = self.lane.try_send(Wake); // a full lane has a wake-up waiting already
        }
    }

    /// Makes durable commits visible, all in one step; the applier gets them when enough have gathered. Never waits: see
    /// [`Catalog::make_room`].
    ///
    /// # Errors
    /// `Unavailable` if the index has failed: the commits are visible all the same, but nothing should be
    /// committed any more.
    pub fn show(&self, commits: &[Commit]) -> Result<()> {
        let bytes: usize = commits.iter().flat_map(|commit| &commit.changes).map(weight).sum();
        self.due.bytes_since.fetch_add(bytes as u64, Ordering::Relaxed);
        if let Some(frozen) = self.layers().show(commits, self.memtable_bytes) {
            self.queue(Job::Memtable(frozen));
        }
        self.poison().map_or(Ok(()), Err)
    }

    /// Whether it is time for a checkpoint: enough was committed, or anything and long ago.
    pub fn checkpoint_due(&self, now: Moment) -> bool {
        let bytes = self.due.bytes_since.load(Ordering::Relaxed);
        let last_at = Moment::from_nanos(self.due.last_at.load(Ordering::Relaxed));
        let long = now.since(last_at) >= self.due.every && bytes > 0;
        (bytes >= self.due.bytes || long) && !self.applier.checkpointing.load(Ordering::Acquire)
    }

    /// Queues a checkpoint at the head, with the outcomes that are in their window now. To be called by the
    /// one who calls [`Catalog::show`]. Gives the revision that is then proven durable, or why none is: the
    /// checkpoint before still counts then, and another attempt is due at the usual time.
    pub fn checkpoint(&self, now: Moment, outcomes: Vec<Remembered>) -> oneshot::Receiver<Result<Revision>> {
        let (done, answer) = oneshot::channel();
        self.applier.checkpointing.store(true, Ordering::Release);
        self.due.bytes_since.store(0, Ordering::Relaxed);
        self.due.last_at.store(now.as_nanos(), Ordering::Relaxed);
        let (frozen, revision, at_ms, names, namespaces) = {
            let mut overlay = self.layers().overlay.write();
            let namespaces = overlay.namespaces.values().cloned().collect();
            (overlay.freeze(), overlay.head, overlay.at_ms, overlay.names, namespaces)
        };
        if let Some(frozen) = frozen {
            self.queue(Job::Memtable(frozen));
        }
        self.queue(Job::Checkpoint(CheckpointJob { revision, at_ms, names, namespaces, outcomes, done }));
        answer
    }

    /// The revision of the last checkpoint.
    pub fn checkpointed(&self) -> Revision {
        self.applier.checkpointed()
    }

    /// Below this revision the journal is needed no more: two checkpoints cover it.
    pub fn trim_below(&self) -> Revision {
        match self.applier.checkpointed_before() {
            Revision(0) => Revision(0),
            before => before.next(),
        }
    }

    /// At most `limit` blobs that are without a name since `before_ms` or earlier, those not indexed yet last,
    /// else oldest first. May block on the index's disk.
    ///
    /// # Errors
    /// As [`Catalog::entry`].
    pub fn unnamed(&self, before_ms: u64, limit: usize) -> Result<Vec<BlobHash>> {
        let now_ms = self.journal_time();
        let hints_max = limit.saturating_mul(HINTS_PER_CANDIDATE);
        let mut hints = self.hints(before_ms, hints_max)?;
        let indexed = hints.len();
        hints.extend(self.layers().overlay.read().unnamed(before_ms, hints_max));
        let mut unnamed = Vec::new();
        let (mut old, mut old_shown) = (Vec::new(), Vec::new());
        for (i, (since_ms, hash)) in hints.into_iter().enumerate() {
            if unnamed.len() == limit {
                break;
            }
            let meta = self.blob(&hash)?;
            match meta {
                Some(meta) if meta.unnamed_since_ms == Some(since_ms) => {
                    // The index and a memtable may both have the hint.
                    if !unnamed.contains(&hash) {
                        unnamed.push(hash);
                    }
                }
                // A commit of this very millisecond may still put the same hint again.
                _ if since_ms >= now_ms => {}
                _ if i < indexed => old.push(encode_hint(since_ms, &hash)),
                _ => old_shown.push((since_ms, hash)),
            }
        }
        if !old.is_empty() {
            self.queue(Job::Prune(old));
        }
        if !old_shown.is_empty() {
            self.layers().overlay.write().forget_unnamed(&old_shown);
        }
        Ok(unnamed)
    }

    /// At most `limit` names whose time ended at `now_ms` of journal time or earlier, from a place on, and the place to
    /// go on from; `None` = there was no more. Those not indexed yet come last, else the earliest first. Looks at a
    /// few times as many hints, true or not. May block on the index's disk.
    ///
    /// # Errors
    /// As [`Catalog::entry`].
    pub fn overdue(&self, now_ms: u64, limit: usize, from: &Hints) -> Result<(Vec<Name>, Option<Hints>)> {
        let hints_max = limit.saturating_mul(HINTS_PER_CANDIDATE);
        let committed_ms = self.journal_time();
        let mut hints = self.ends(now_ms, hints_max, from.indexed.as_ref())?;
        let indexed = hints.len();
        hints.extend(self.layers().overlay.read().overdue(now_ms, hints_max, from.shown.as_ref()));
        let more = indexed == hints_max || hints.len() - indexed == hints_max;
        let (mut overdue, mut old, mut old_shown) = (Vec::new(), Vec::new(), Vec::new());
        let (mut seen, mut next) = (HashSet::new(), from.clone());
        for (i, (end, name)) in hints.into_iter().enumerate() {
            if overdue.len() == limit {
                self.forget_ends(old, &old_shown);
                return Ok((overdue, Some(next)));
            }
            let place = if i < indexed { &mut next.indexed } else { &mut next.shown };
            *place = Some((end, name.clone()));
            if self.entry_once(&name)?.is_some_and(|entry| entry.expires_at.is_some_and(|at| at.get() == end))
            {
                // The index and a memtable may both have the hint.
                if seen.insert(name.clone()) {
                    overdue.push(name);
                }
            } else if end < committed_ms {
                // No name is given this end any more: it is over.
                if i < indexed { old.push(encode_end(end, &name)) } else { old_shown.push((end, name)) }
            }
        }
        self.forget_ends(old, &old_shown);
        Ok((overdue, more.then_some(next)))
    }

    /// Forgets hints that are not true any more: of the index, and of memtables.
    fn forget_ends(&self, old: Vec<Bytes>, old_shown: &[(u64, Name)]) {
        if !old.is_empty() {
            self.queue(Job::Prune(old));
        }
        if !old_shown.is_empty() {
            self.layers().overlay.write().forget_expiring(old_shown);
        }
    }

    /// Hints of ends that are indexed, the earliest first, behind one of them.
    fn ends(&self, now_ms: u64, limit: usize, after: Option<&(u64, Name)>) -> Result<Vec<(u64, Name)>> {
        let mut ends = Vec::new();
        let after = after.map(|(end, name)| encode_end(*end, name));
        let start = after.as_ref().map_or(Bound::Included(ENDS), |key| Bound::Excluded(&key[..]));
        self.applier.engine.scan(Table::Unnamed, start, limit, &mut |key, _| match decode_end(&key) {
            Some((end, _)) if end > now_ms => ControlFlow::Break(()),
            hint => {
                ends.extend(hint);
                ControlFlow::Continue(())
            }
        })?;
        Ok(ends)
    }

    /// Hints that are indexed, oldest first.
    fn hints(&self, before_ms: u64, limit: usize) -> Result<Vec<(u64, BlobHash)>> {
        let mut hints = Vec::new();
        self.applier.engine.scan(
            Table::Unnamed,
            Bound::Unbounded,
            limit,
            &mut |key, _| match decode_hint(&key) {
                _ if key[..] >= *ENDS => ControlFlow::Break(()),
                Some((since_ms, _)) if since_ms > before_ms => ControlFlow::Break(()),
                hint => {
                    hints.extend(hint);
                    ControlFlow::Continue(())
                }
            },
        )?;
        Ok(hints)
    }

    /// How much there is.
    pub fn counts(&self) -> Counts {
        let layers = self.layers();
        let (names, pending, pending_bytes) = {
            let overlay: &Overlay = &layers.overlay.read();
            (overlay.names, overlay.len(), overlay.bytes() as u64)
        };
        Counts {
            names,
            blobs: self.applier.engine.about(Table::Blobs),
            pending,
            pending_bytes,
            hot_bytes: [layers.names.hot_bytes(), layers.blobs.hot_bytes(), layers.inline.hot_bytes()],
        }
    }

    /// Calls `tell` once, when the index has failed for good; at once if it has.
    pub fn on_poison(&self, tell: OnPoison) {
        self.applier.on_poison(tell);
    }

    /// From now on what is shown may not be durable yet: `gate` is asked before the index or a checkpoint takes it. To
    /// be called once, before anything is shown that is not durable.
    pub fn gate(&self, gate: Gate) {
        let first = self.applier.gate.set(gate).is_ok();
        debug_assert!(first, "one journal feeds a catalog");
    }

    /// Why the index takes no more, if it has failed.
    pub fn poison(&self) -> Option<Error> {
        self.applier.poison().cloned()
    }

    fn layers(&self) -> &Layers {
        &self.applier.layers
    }

    fn queue(&self, job: Job) {
        self.applier.push(job);
        let _ = self.lane.try_send(Wake); // a full lane has a wake-up waiting already
    }
}
