//! Owns the way of visible commits into the index: a queue bounded in bytes, and the one writer behind it.
//!
//! Invariants: jobs run in the order in which they were queued, so that a checkpoint finds the index at
//! exactly one revision; commits leave the overlay only after the index has them. The first failed or
//! panicking job poisons: nothing more is applied, everybody who waits is told.

use super::overlay::Layers;
use crate::change::{Change, Commit, encode_entry, encode_meta};
use crate::checkpoint::{Checkpoint, Checkpoints, Remembered};
use crate::engine::{Engine, Table, Write};
use bytes::Bytes;
use dstore_shared::{BlobHash, Error, HistoryId, Result, Revision};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::oneshot;

/// Called once, with the reason, when the index takes no more.
pub type OnPoison = Box<dyn FnOnce(Error) + Send>;

/// Something for the applier.
pub(super) enum Job {
    Commits {
        commits: Vec<Commit>,
        bytes: u64,
    },
    Checkpoint(CheckpointJob),
    /// Remove hints of blobs that have a name again or are gone.
    Prune(Vec<Bytes>),
}

pub(super) struct CheckpointJob {
    pub(super) revision: Revision,
    pub(super) at_ms: u64,
    pub(super) outcomes: Vec<Remembered>,
    pub(super) done: oneshot::Sender<Result<Revision>>,
}

/// What the applier and those who feed it share.
pub(super) struct Applier {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) layers: Layers,
    files: Checkpoints,
    history: HistoryId,
    queue: Mutex<Queue>,
    room: Condvar,
    turn: Mutex<()>,
    /// Everything up to here is in the index.
    indexed: AtomicU64,
    /// The latest checkpoint, and the one before if it proves this index.
    checkpointed: AtomicU64,
    checkpointed_before: AtomicU64,
    pub(super) checkpointing: AtomicBool,
    poison: OnceLock<Error>,
    on_poison: Mutex<Option<OnPoison>>,
    pending_bytes_max: u64,
    apply_bytes: u64,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    bytes: u64,
}

impl fmt::Debug for Applier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Applier({:?}, indexed {})", self.engine, self.indexed())
    }
}

impl Applier {
    pub(super) fn new(
        engine: Arc<dyn Engine>,
        layers: Layers,
        (files, history): (Checkpoints, HistoryId),
        (indexed, checkpointed_before): (Revision, Revision),
        (pending_bytes_max, apply_bytes): (u64, u64),
    ) -> Self {
        Self {
            engine,
            layers,
            files,
            history,
            queue: Mutex::default(),
            room: Condvar::new(),
            turn: Mutex::new(()),
            indexed: indexed.0.into(),
            checkpointed: indexed.0.into(),
            checkpointed_before: checkpointed_before.0.into(),
            checkpointing: false.into(),
            poison: OnceLock::new(),
            on_poison: Mutex::new(None),
            pending_bytes_max,
            apply_bytes,
        }
    }

    pub(super) fn indexed(&self) -> Revision {
        Revision(self.indexed.load(Ordering::Acquire))
    }

    pub(super) fn checkpointed(&self) -> Revision {
        Revision(self.checkpointed.load(Ordering::Acquire))
    }

    pub(super) fn checkpointed_before(&self) -> Revision {
        Revision(self.checkpointed_before.load(Ordering::Acquire))
    }

    pub(super) fn poison(&self) -> Option<&Error> {
        self.poison.get()
    }

    pub(super) fn pending_bytes(&self) -> u64 {
        self.queue.lock().bytes
    }

    /// Sets whom to tell; tells at once if it has happened already.
    pub(super) fn on_poison(&self, tell: OnPoison) {
        *self.on_poison.lock() = Some(tell);
        self.tell();
    }

    /// Whether commits may be queued now.
    pub(super) fn has_room(&self) -> bool {
        self.queue.lock().bytes <= self.pending_bytes_max
    }

    /// Blocks until commits may be queued, or never will.
    pub(super) fn wait_for_room(&self) {
        let mut queue = self.queue.lock();
        while queue.bytes > self.pending_bytes_max && self.poison.get().is_none() {
            self.room.wait(&mut queue);
        }
    }

    /// Queues a job; drops it if poisoned.
    pub(super) fn push(&self, job: Job) {
        let mut queue = self.queue.lock();
        if self.poison.get().is_some() {
            return;
        }
        if let Job::Commits { bytes, .. } = &job {
            queue.bytes += bytes;
        }
        queue.jobs.push_back(job);
    }

    /// Does every queued job.
    pub(super) fn drain(&self) {
        let _turn = self.turn.lock();
        let _dart = Dart(self);
        while let Some(step) = self.next() {
            if let Err(e) = self.run(step) {
                self.be_poisoned(e);
            }
        }
    }

    /// The next jobs that can be done as one: some commits, or one other.
    fn next(&self) -> Option<Step> {
        let mut queue = self.queue.lock();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(Job::Commits { bytes: more, .. }) = queue.jobs.front() {
            if !batch.is_empty() && bytes + more > self.apply_bytes {
                break;
            }
            if let Some(Job::Commits { commits, bytes: more }) = queue.jobs.pop_front() {
                batch.push(commits);
                bytes += more;
            }
        }
        if !batch.is_empty() {
            return Some(Step::Commits { batch, bytes });
        }
        match queue.jobs.pop_front()? {
            Job::Checkpoint(job) => Some(Step::Checkpoint(job)),
            Job::Prune(hints) => Some(Step::Prune(hints)),
            Job::Commits { .. } => unreachable!("commits at the front were taken above"),
        }
    }

    fn run(&self, step: Step) -> Result<()> {
        match step {
            Step::Commits { batch, bytes } => {
                self.apply(&batch)?;
                self.queue.lock().bytes -= bytes;
                self.room.notify_all();
                Ok(())
            }
            Step::Prune(hints) => {
                let gone = |key| Write { table: Table::Unnamed, key, value: None };
                self.engine.apply(hints.into_iter().map(gone).collect(), self.indexed())
            }
            Step::Checkpoint(job) => {
                let (done, answer) = self.checkpoint(job);
                if let Err(e) = &answer {
                    tracing::warn!(error = %e, "checkpoint failed");
                }
                self.checkpointing.store(false, Ordering::Release);
                let _ = done.send(answer); // nobody may be waiting
                Ok(())
            }
        }
    }

    fn apply(&self, batch: &[Vec<Commit>]) -> Result<()> {
        let Some(last) = batch.iter().rev().find_map(|c| c.last()) else { return Ok(()) };
        let changes = || batch.iter().flatten().flat_map(|c| &c.changes);
        let mut writes = Vec::with_capacity(changes().count() + 8);
        for change in changes() {
            put_writes(&mut writes, change);
        }
        self.engine.apply(writes, last.revision)?;
        for commits in batch {
            self.layers.retire(commits);
        }
        self.indexed.store(last.revision.0, Ordering::Release);
        Ok(())
    }

    fn checkpoint(&self, job: CheckpointJob) -> (oneshot::Sender<Result<Revision>>, Result<Revision>) {
        let CheckpointJob { revision, at_ms, outcomes, done } = job;
        let proven = self.engine.checkpoint().and_then(|proven| {
            if proven == revision {
                return Ok(());
            }
            Err(Error::internal(format!("the index is at `{proven}`, not at `{revision}`: report this")))
        });
        let written = proven.and_then(|()| {
            self.files.write(&Checkpoint {
                revision,
                index: self.engine.identity(),
                previous: self.checkpointed(),
                history: self.history,
                at_ms,
                outcomes,
            })
        });
        if written.is_ok() {
            let before = self.checkpointed.swap(revision.0, Ordering::AcqRel);
            self.checkpointed_before.store(before, Ordering::Release);
        }
        (done, written.map(|()| revision))
    }

    fn be_poisoned(&self, error: Error) {
        tracing::error!(error = ?error, "index failed");
        let mut queue = self.queue.lock();
        let _ = self.poison.set(error); // the first reason counts
        *queue = Queue::default();
        drop(queue);
        self.room.notify_all();
        self.tell();
    }

    fn tell(&self) {
        let Some(error) = self.poison.get() else { return };
        let tell = self.on_poison.lock().take();
        if let Some(tell) = tell {
            tell(error.clone());
        }
    }
}

enum Step {
    Commits { batch: Vec<Vec<Commit>>, bytes: u64 },
    Checkpoint(CheckpointJob),
    Prune(Vec<Bytes>),
}

/// Poisons when a panic goes by, so that nobody waits for an applier that is gone.
struct Dart<'a>(&'a Applier);

impl Drop for Dart<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.be_poisoned(Error::internal("the index's writer panicked: report this"));
        }
    }
}

/// Memory that a commit takes while it is visible and not indexed.
pub(super) fn weight(commit: &Commit) -> u64 {
    let change = |c: &Change| match c {
        Change::Bind { name, .. } | Change::Unbind { name } => 200 + name.as_bytes().len(),
        Change::Inline { bytes, .. } => 200 + bytes.len(),
        Change::Blob { .. } | Change::BlobGone { .. } | Change::InlineGone { .. } => 150,
    };
    // A remembered outcome of a large DEL weighs as its names do.
    200 + commit.changes.iter().map(change).sum::<usize>() as u64
}

fn put_writes(writes: &mut Vec<Write>, change: &Change) {
    let key = |hash: &BlobHash| Bytes::copy_from_slice(hash.as_bytes());
    let mut put = |table, key, value| writes.push(Write { table, key, value });
    match change {
        Change::Bind { name, entry } => put(Table::Names, name.packed(), Some(encode_entry(entry))),
        Change::Unbind { name } => put(Table::Names, name.packed(), None),
        Change::Blob { hash, meta } => {
            put(Table::Blobs, key(hash), Some(encode_meta(meta)));
            if let Some(since) = meta.unnamed_since_ms {
                put(Table::Unnamed, hint(since, hash), Some(Bytes::new()));
            }
        }
        Change::BlobGone { hash } => put(Table::Blobs, key(hash), None),
        // A copy: the bytes may be a small part of a frame, which the engine must not keep.
        Change::Inline { hash, bytes } => {
            put(Table::Inline, key(hash), Some(Bytes::copy_from_slice(bytes)));
        }
        Change::InlineGone { hash } => put(Table::Inline, key(hash), None),
    }
}

/// The key of a hint that `hash` is without a name since `since_ms`: in order of time.
pub(super) fn hint(since_ms: u64, hash: &BlobHash) -> Bytes {
    let mut key = Vec::with_capacity(40);
    key.extend_from_slice(&since_ms.to_be_bytes());
    key.extend_from_slice(hash.as_bytes());
    key.into()
}

/// Reads what [`hint`] made.
pub(super) fn read_hint(key: &[u8]) -> Option<(u64, BlobHash)> {
    let (since, hash) = key.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*since), BlobHash::from_slice(hash).ok()?))
}
