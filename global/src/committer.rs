//! The committer: takes what has gathered, decides each change, appends one journal batch with one fsync (or, at
//! the level `always`, one for each change), and hands what is durable to the publisher.
//!
//! Runs on a thread of its own (or in place, in simulation), so it may block. It is the only writer: what it
//! decides needs no lock. A name's next change comes only after the one before is visible, so names are looked
//! up in the visible state; blobs are shared between names, so what was decided of them is kept here until it
//! is visible. At the level `relaxed` a batch is handed on when it is written, and `durable` below means that.
//! Invariants: the results that it writes are absolute; a change without effect writes nothing;
//! after a failed append nothing is acknowledged, released or retried.

mod copy;
mod draft;
mod namespace;
mod transaction;
mod unbind;

use crate::SyncLevel;
use crate::authority::Authority;
use crate::catalog::Catalog;
use crate::change::{BlobMeta, Change, Commit, Payload, Place};
use crate::feed::Unbound;
use crate::journal::{Class, Journal};
use crate::publisher::{Decided, Publication, Publishing, To};
use crate::sessions::OpNo;
use crate::space::Space;
use bytes::Bytes;
use dstore_shared::{
    Blob, BlobHash, Entry, Error, Kind, Name, Namespace, NamespaceSpec, Outcome, Payload as Value, Prefix,
    PrefixOutcome, RequestId, Result, Revision, SetOutcome, Transaction, type_len,
};
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::oneshot;

/// Bytes after which a batch is written though more has gathered: bounds the time of one write.
const BATCH_BYTES: usize = 4 << 20;

/// Something for the committer.
#[derive(Debug)]
pub(crate) enum Job {
    /// Drained ops that came together, at least one: they share a batch, unless it is full before.
    Ops(Vec<(OpNo, Work)>),
    /// Work of Global's own.
    Own(Box<Work>, oneshot::Sender<Result<Done>>),
    /// Write a checkpoint; tells how to wait for it.
    Checkpoint(oneshot::Sender<oneshot::Receiver<Result<Revision>>>),
    /// Make everything durable that was handed over before.
    Sync(oneshot::Sender<Result<Revision>>),
    /// Look whether a checkpoint is due.
    Tick,
}

/// What is to be decided and written.
#[derive(Debug)]
pub(crate) enum Work {
    Set {
        id: RequestId,
        name: Name,
        value: Value,
        ttl: Option<Duration>,
        drained: Drained,
    },
    Delete {
        id: RequestId,
        names: Vec<Name>,
        /// It is committed before it is drained, which the next boot must know (rule 27).
        asynchronous: bool,
    },
    /// COPY, or RENAME if `unbinds`.
    Copy {
        id: RequestId,
        from: Name,
        to: Name,
        unbinds: bool,
        drained: Drained,
    },
    /// Several reads and changes that are decided together.
    Apply {
        id: RequestId,
        transaction: Transaction,
        drained: Drained,
    },
    /// Unbind those of the names whose time is over.
    Expire {
        names: Vec<Name>,
    },
    /// Create or drop a namespace, of which nobody changes a name meanwhile.
    Namespace {
        id: RequestId,
        change: NamespaceChange,
    },
    /// Unbind whatever is under a prefix: nobody else changes any of it meanwhile.
    DeletePrefix {
        id: RequestId,
        prefix: Prefix,
    },
    /// A blob arrived: in a file, or carried to be kept in the index.
    Keep {
        hash: BlobHash,
        size: u64,
        carried: Option<Blob>,
    },
    /// Forget a blob that has been without a name since `before_ms`.
    Sweep {
        hash: BlobHash,
        before_ms: u64,
    },
    /// A blob was found not to have its hash.
    Mark {
        hash: BlobHash,
    },
}

/// Whose holders were waited for before a change came here: their names may be bound to something else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Drained {
    None,
    All,
    AllBut(Vec<Name>),
}

impl Drained {
    /// What a submission says.
    pub fn of(drains: bool, spared: &[Name]) -> Self {
        match (drains, spared) {
            (false, _) => Self::None,
            (true, []) => Self::All,
            (true, spared) => Self::AllBut(spared.to_vec()),
        }
    }

    fn has(&self, name: &Name) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::AllBut(spared) => !spared.contains(name),
        }
    }
}

/// What becomes of a namespace.
#[derive(Clone, Debug)]
pub(crate) enum NamespaceChange {
    Create(Namespace, NamespaceSpec),
    Drop(Namespace),
}

/// What became of it.
#[derive(Debug)]
pub(crate) enum Done {
    Change(Outcome),
    /// Of the names that a change was about, for these it makes void what was held of them, or believed to be absent.
    Changed(Outcome, Vec<Name>),
    /// Nothing was done: it would change what holders may serve who were not waited for. The same, to be done when
    /// they were.
    Undrained(Box<Work>),
    /// A DEL by prefix, and the names that it unbinds.
    Prefix(PrefixOutcome, Vec<Name>),
    Kept,
    /// Swept; true: its file is to be removed now.
    Swept {
        file: bool,
    },
    /// There was nothing to do.
    Nothing,
}

pub(crate) struct Committer {
    authority: Weak<Authority>,
    catalog: Catalog,
    journal: Journal,
    publisher: Publishing,
    sync: SyncLevel,
    space: Arc<Space>,
    payload: Payload,
    /// Blobs as the batch so far leaves them.
    blobs: HashMap<BlobHash, Option<BlobMeta>>,
    /// Blobs as durable batches left them, and as of when: those that are not visible yet.
    durable_blobs: HashMap<BlobHash, (Revision, Option<BlobMeta>)>,
    /// The bytes of blobs that are decided to be kept in the index, and are not visible yet.
    fresh: HashMap<BlobHash, (Revision, Bytes)>,
    commits: Vec<Commit>,
    decided: Vec<Decided>,
    /// What the names were bound to that the commits unbind.
    unbound: Vec<Unbound>,
    head: Revision,
    at_ms: u64,
    failed: Option<Error>,
    /// The directory knows that there are asynchronous DELs.
    async_dels: bool,
}

impl Committer {
    pub fn new(
        authority: Weak<Authority>,
        catalog: Catalog,
        journal: Journal,
        publisher: Publishing,
        (sync, space): (SyncLevel, Arc<Space>),
    ) -> Self {
        Self {
            authority,
            publisher,
            head: journal.head(),
            at_ms: catalog.journal_time(),
            catalog,
            journal,
            sync,
            space,
            payload: Payload::new(),
            blobs: HashMap::new(),
            durable_blobs: HashMap::new(),
            fresh: HashMap::new(),
            commits: Vec::new(),
            decided: Vec::new(),
            unbound: Vec::new(),
            failed: None,
            async_dels: false,
        }
    }

    /// Does what has gathered.
    pub fn work(&mut self, jobs: &mut Vec<Job>) {
        let Some(authority) = self.authority.upgrade() else { return };
        self.at_ms = self.at_ms.max(authority.journal_now());
        self.forget_visible();
        let mut ticked = false;
        for job in jobs.drain(..) {
            match job {
                Job::Ops(ops) => {
                    for (op, work) in ops {
                        self.decide(To::Op(op), work);
                        if self.is_full() {
                            self.write(&authority);
                        }
                    }
                }
                Job::Own(work, to) => self.decide(To::Own(to), *work),
                Job::Checkpoint(to) => {
                    self.write(&authority);
                    self.publisher.publish(Publication::Checkpoint { to, at_ms: self.at_ms });
                }
                Job::Sync(to) => {
                    self.write(&authority);
                    // Whoever asked may have gone away.
                    let _ = to.send(self.journal.sync());
                }
                Job::Tick => ticked = true,
            }
            if self.is_full() {
                self.write(&authority);
            }
        }
        self.write(&authority);
        if ticked {
            // Nothing is left in it: the publisher looks whether a checkpoint is due.
            self.publish();
        }
        self.journal.trim(self.catalog.trim_below());
        self.fail_with_journal(&authority);
    }

    /// A journal can fail beside an append, as when it makes a segment to have in reserve: no change would ever tell.
    fn fail_with_journal(&mut self, authority: &Authority) {
        if let Some(poison) = self.journal.poison().filter(|_| self.failed.is_none()).cloned() {
            authority.fail(&poison);
            self.failed = Some(poison);
        }
    }

    /// Whether nothing more is to share the batch.
    fn is_full(&self) -> bool {
        match self.sync {
            SyncLevel::Group | SyncLevel::Relaxed(_) => self.payload.len() >= BATCH_BYTES,
            SyncLevel::Always => !self.commits.is_empty(),
        }
    }

    fn forget_visible(&mut self) {
        let visible = self.catalog.head();
        if visible >= self.head {
            self.durable_blobs.clear();
            self.fresh.clear();
        } else {
            self.durable_blobs.retain(|_, (revision, _)| *revision > visible);
            self.fresh.retain(|_, (revision, _)| *revision > visible);
        }
    }

    fn decide(&mut self, to: To, work: Work) {
        let revision = self.head.next();
        let (done, changes, outcome) = match self.judge(work, revision) {
            Ok(Verdict { done, changes, id, unbound }) => {
                self.unbound.extend(unbound);
                let outcome = match (&done, id) {
                    // Not done: the same request may come again when the blobs are there.
                    (Done::Change(outcome) | Done::Changed(outcome, _), _) if outcome.needs_blob() => None,
                    (Done::Change(outcome) | Done::Changed(outcome, _), Some(id)) => {
                        Some((id, outcome.clone()))
                    }
                    (Done::Prefix(outcome, _), Some(id)) => Some((id, Outcome::DeletePrefix(*outcome))),
                    _ => None,
                };
                (Ok(done), changes, outcome)
            }
            Err(e) => (Err(e), Vec::new(), None),
        };
        if changes.is_empty() {
            self.decided.push(Decided { to, done, revision: self.head });
            return;
        }
        for change in &changes {
            match change {
                Change::Blob { hash, meta } => _ = self.blobs.insert(*hash, Some(*meta)),
                Change::BlobGone { hash } => _ = self.blobs.insert(*hash, None),
                Change::Inline { hash, bytes } => _ = self.fresh.insert(*hash, (revision, bytes.clone())),
                Change::InlineGone { hash } => _ = self.fresh.remove(hash),
                _ => {}
            }
        }
        let commit = Commit { revision, at_ms: self.at_ms, outcome, changes };
        self.payload.push(&commit);
        self.commits.push(commit);
        self.head = revision;
        self.decided.push(Decided { to, done, revision });
    }

    fn judge(&mut self, work: Work, revision: Revision) -> Result<Verdict> {
        if let Some(e) = &self.failed {
            return Err(e.clone());
        }
        match work {
            Work::Set { id, name, value, ttl, drained } => {
                let mut verdict = self.judge_set((id, name, drained), (value, ttl), revision)?;
                verdict.id = Some(id);
                Ok(verdict)
            }
            Work::Apply { id, transaction, drained } => {
                let mut verdict = self.judge_transaction(id, transaction, &drained, revision)?;
                verdict.id = Some(id);
                Ok(verdict)
            }
            Work::Expire { names } => self.judge_expire(&names, revision),
            Work::Namespace { id, change } => {
                let mut verdict = self.judge_namespace(change, revision)?;
                verdict.id = Some(id);
                Ok(verdict)
            }
            Work::Delete { id, names, asynchronous } => {
                if asynchronous {
                    self.expect_async_dels()?;
                }
                let mut verdict = self.judge_delete(&names, revision)?;
                verdict.id = Some(id);
                Ok(verdict)
            }
            Work::Copy { id, from, to, unbinds, drained } => {
                let mut verdict = self.judge_copy(id, (from, to), unbinds, (&drained, revision))?;
                verdict.id = Some(id);
                Ok(verdict)
            }
            Work::DeletePrefix { id, prefix } => {
                let mut verdict = self.judge_delete_prefix(&prefix, revision)?;
                verdict.id = Some(id);
                Ok(verdict)
            }
            Work::Keep { hash, size, carried } => self.judge_keep(hash, size, carried),
            Work::Sweep { hash, before_ms } => self.judge_sweep(hash, before_ms),
            Work::Mark { hash } => {
                let changes = match self.meta(&hash)? {
                    Some(meta) if !meta.corrupt => {
                        vec![Change::Blob { hash, meta: BlobMeta { corrupt: true, ..meta } }]
                    }
                    _ => Vec::new(),
                };
                Ok(Verdict::of(Done::Nothing, changes))
            }
        }
    }

    fn judge_set(
        &mut self,
        (id, name, drained): (RequestId, Name, Drained),
        (value, ttl): (Value, Option<Duration>),
        revision: Revision,
    ) -> Result<Verdict> {
        let set = |outcome, changes| Ok(Verdict::of(Done::Change(Outcome::Set(outcome)), changes));
        let spec = self.catalog.namespace(&name.namespace());
        let bound = self.catalog.entry_once(&name)?;
        let timed = |entry: &Entry| ttl.is_some() && entry.hash == value.hash;
        if bound.as_ref().is_some_and(|e| spec.replaces() || e.is_over(self.at_ms) || timed(e)) {
            return self.judge_rebinding((id, name, drained), (value, ttl), revision);
        }
        let Value { hash, size, carried, content_type } = value;
        if let Some(entry) = bound.clone().filter(|entry| entry.hash != hash) {
            return set(SetOutcome::Occupied(entry), Vec::new());
        }
        let known = self.meta(&hash)?;
        let healthy = known.filter(|meta| !meta.corrupt);
        if healthy.is_none() && carried.is_none() {
            if known.is_some()
                && let Some(authority) = self.authority.upgrade()
            {
                // So that the upload that follows replaces the file instead of finding it there.
                authority.blobs.restore_marks([hash]);
            }
            return set(SetOutcome::NeedBlob, Vec::new());
        }
        if let Some(meta) = healthy.filter(|meta| meta.size != size) {
            return Err(Error::invalid(format!("blake3:{hash} has `{}` bytes, not `{size}`", meta.size)));
        }
        let said = name.as_bytes().len() + 2 * type_len(content_type.as_ref());
        self.room(Class::Ordinary, said + carried.as_ref().map_or(0, |blob| blob.bytes().len()))?;
        let mut changes = Vec::with_capacity(3);
        let mut meta = healthy.unwrap_or(BlobMeta {
            size,
            refs: known.map_or(0, |meta| meta.refs),
            place: Place::Inline,
            unnamed_since_ms: None,
            corrupt: false,
        });
        if healthy.is_none()
            && let Some(blob) = carried
        {
            changes.push(Change::Inline { hash, bytes: blob.bytes().clone() });
        }
        if let Some(entry) = bound {
            // Identical bytes: nothing is written, unless they replace damaged ones.
            if !changes.is_empty() {
                changes.push(Change::Blob { hash, meta });
            }
            return set(SetOutcome::Unchanged(entry), changes);
        }
        (meta.refs, meta.unnamed_since_ms) = (meta.refs + 1, None);
        let after =
            |ttl: Duration| dstore_shared::End::new(self.at_ms.saturating_add(ttl.as_millis() as u64));
        let expires_at = ttl.or(spec.ttl).and_then(after);
        let entry = Entry { hash, size, bind_rev: revision, expires_at, content_type };
        changes.push(Change::Blob { hash, meta });
        changes.push(Change::Bind { name, entry: entry.clone() });
        set(SetOutcome::Stored(entry), changes)
    }

    fn judge_keep(&mut self, hash: BlobHash, size: u64, carried: Option<Blob>) -> Result<Verdict> {
        let place = if carried.is_some() { Place::Inline } else { Place::File };
        let known = self.meta(&hash)?;
        let healthy = known.filter(|meta| !meta.corrupt);
        if healthy.is_some_and(|meta| meta.refs > 0) {
            return Ok(Verdict::of(Done::Kept, Vec::new()));
        }
        self.room(Class::Ordinary, carried.as_ref().map_or(0, |blob| blob.bytes().len()))?;
        let mut changes = Vec::with_capacity(2);
        let refs = known.map_or(0, |meta| meta.refs);
        let place = healthy.map_or(place, |meta| meta.place);
        if healthy.is_none()
            && let Some(blob) = carried
        {
            changes.push(Change::Inline { hash, bytes: blob.bytes().clone() });
        }
        let unnamed_since_ms = (refs == 0).then_some(self.at_ms);
        changes.push(Change::Blob {
            hash,
            meta: BlobMeta { size, refs, place, unnamed_since_ms, corrupt: false },
        });
        Ok(Verdict::of(Done::Kept, changes))
    }

    fn judge_sweep(&mut self, hash: BlobHash, before_ms: u64) -> Result<Verdict> {
        let Some(meta) = self.meta(&hash)? else { return Ok(Verdict::of(Done::Nothing, Vec::new())) };
        if meta.refs > 0 || meta.unnamed_since_ms.is_none_or(|since| since > before_ms) {
            return Ok(Verdict::of(Done::Nothing, Vec::new()));
        }
        self.room(Class::Essential, 128)?;
        let file = meta.place == Place::File;
        let mut changes = vec![Change::BlobGone { hash }];
        if !file {
            changes.push(Change::InlineGone { hash });
        }
        Ok(Verdict::of(Done::Swept { file }, changes))
    }

    /// Whether the batch so far and `bytes` more still fit on the disk.
    fn room(&mut self, class: Class, bytes: usize) -> Result<()> {
        if class == Class::Ordinary {
            self.space.admit(bytes as u64)?;
        }
        self.catalog.check_space(class == Class::Essential)?;
        let room = self.journal.room(class, self.payload.len() + bytes + 1024);
        if room.as_ref().is_err_and(|e| e.kind() == Kind::Exhausted) {
            self.space.refused(self.journal.segment_wants());
        }
        room
    }

    fn meta(&self, hash: &BlobHash) -> Result<Option<BlobMeta>> {
        let decided = self.blobs.get(hash).or_else(|| Some(&self.durable_blobs.get(hash)?.1));
        decided.map_or_else(|| self.catalog.blob_once(hash), |meta| Ok(*meta))
    }

    /// Makes the batch durable and hands it on.
    fn write(&mut self, authority: &Authority) {
        if let (Some(first), Some(last)) = (self.commits.first(), self.commits.last()) {
            let (first, last) = (first.revision, last.revision);
            dstore_sys::failpoint!("global::commit::before_append");
            let begun = authority.sys.clock.now();
            if let Err(e) = self.journal.append(first, last, &self.payload.slices()) {
                return self.lost(authority, &e);
            }
            authority.writes.times.note_time(authority.sys.clock.now().since(begun));
            authority.writes.sizes.note(self.commits.len() as u64);
            dstore_sys::failpoint!("global::commit::after_fsync");
            self.payload.clear();
            self.durable_blobs.extend(self.blobs.drain().map(|(hash, meta)| (hash, (last, meta))));
        }
        if !self.decided.is_empty() {
            self.publish();
        }
    }

    fn publish(&mut self) {
        debug_assert!(self.payload.is_empty(), "what is published is in the journal");
        let (commits, decided) = (std::mem::take(&mut self.commits), std::mem::take(&mut self.decided));
        let unbound = std::mem::take(&mut self.unbound);
        self.publisher.publish(Publication::Batch { commits, decided, unbound, at_ms: self.at_ms });
    }

    /// The batch was not written, or nobody knows whether it was.
    fn lost(&mut self, authority: &Authority, error: &Error) {
        let poison = self.journal.poison().cloned();
        let unknown = poison.is_some();
        self.payload.clear();
        self.commits.clear();
        self.unbound.clear();
        self.blobs.clear();
        self.head = self.journal.head();
        self.fresh.retain(|_, (revision, _)| *revision <= self.head);
        if let Some(poison) = poison {
            authority.fail(&poison);
            self.failed = Some(poison);
        }
        for Decided { to, .. } in std::mem::take(&mut self.decided) {
            match to {
                To::Op(op) if unknown => authority.event(|m, _| m.fail(op, error)),
                To::Op(op) => authority.event(|m, now| m.finish(now, op, &Err(error.clone()), Revision(0))),
                To::Own(to) => _ = to.send(Err(error.clone())),
            }
        }
    }
}

struct Verdict {
    done: Done,
    changes: Vec<Change>,
    id: Option<RequestId>,
    /// What the names were bound to that the changes unbind.
    unbound: Vec<Unbound>,
}

impl Verdict {
    fn of(done: Done, changes: Vec<Change>) -> Self {
        Self { done, changes, id: None, unbound: Vec::new() }
    }
}
