//! Owns the way of frozen memtables into the index: the memtables' bytes are bounded, and the one writer behind it.
//!
//! Invariants: jobs run in the order in which they were queued, so that a checkpoint finds the index at
//! exactly one revision; a memtable leaves the overlay only after the index has it. The first failed or
//! panicking job poisons: nothing more is applied, everybody who waits is told.

use super::memtable::Memtable;
use super::overlay::Layers;
use crate::checkpoint::{Checkpoint, Checkpoints, Remembered};
use crate::engine::{Engine, EngineKind, Table, Write};
use bytes::Bytes;
use dstore_shared::{Error, HistoryId, NamespaceInfo, Result, Revision};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;

/// Bytes of disk below which nothing is written to the index: for the files and folders that an engine makes.
const SPACE_MIN: u64 = 2 << 20;

/// Called once, with the reason, when the index takes no more.
pub type OnPoison = Box<dyn FnOnce(Error) + Send>;

/// Returns when everything up to a revision is durable in the journal.
pub type Gate = Box<dyn Fn(Revision) -> Result<()> + Send + Sync>;

/// Something for the applier.
pub(super) enum Job {
    Memtable(Arc<Memtable>),
    Checkpoint(CheckpointJob),
    /// Remove hints of blobs that have a name again or are gone.
    Prune(Vec<Bytes>),
}

pub(super) struct CheckpointJob {
    pub(super) revision: Revision,
    pub(super) at_ms: u64,
    pub(super) names: u64,
    pub(super) namespaces: Vec<NamespaceInfo>,
    pub(super) outcomes: Vec<Remembered>,
    pub(super) done: oneshot::Sender<Result<Revision>>,
}

/// What the applier and those who feed it share.
pub(super) struct Applier {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) layers: Layers,
    files: Checkpoints,
    history: HistoryId,
    jobs: Mutex<VecDeque<Job>>,
    room: Condvar,
    turn: Mutex<()>,
    /// Memtables that the index has begun to take.
    begun: AtomicU64,
    /// Everything up to here is in the index.
    indexed: AtomicU64,
    /// The latest checkpoint, and the one before if it proves this index.
    checkpointed: AtomicU64,
    checkpointed_before: AtomicU64,
    pub(super) checkpointing: AtomicBool,
    /// What is next for the index waits for space on its disk.
    starved: AtomicBool,
    poison: OnceLock<Error>,
    on_poison: Mutex<Option<OnPoison>>,
    /// Set if what is shown may not be durable yet: the index must not have it before it is.
    pub(super) gate: OnceLock<Gate>,
    pending_bytes_max: usize,
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
        pending_bytes_max: usize,
    ) -> Self {
        Self {
            engine,
            layers,
            files,
            history,
            jobs: Mutex::default(),
            room: Condvar::new(),
            turn: Mutex::new(()),
            begun: 0.into(),
            indexed: indexed.0.into(),
            checkpointed: indexed.0.into(),
            checkpointed_before: checkpointed_before.0.into(),
            checkpointing: false.into(),
            starved: false.into(),
            poison: OnceLock::new(),
            on_poison: Mutex::new(None),
            gate: OnceLock::new(),
            pending_bytes_max,
        }
    }

    pub(super) fn indexed(&self) -> Revision {
        Revision(self.indexed.load(Ordering::Acquire))
    }

    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
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

    /// Sets whom to tell; tells at once if it has happened already.
    pub(super) fn on_poison(&self, tell: OnPoison) {
        *self.on_poison.lock() = Some(tell);
        self.tell();
    }

    /// Whether more may be shown now.
    pub(super) fn has_room(&self) -> bool {
        self.layers.overlay.read().bytes() <= self.pending_bytes_max
    }

    /// Blocks until more may be shown, or never will. A memtable is full before all of the room is, so whoever
    /// waits waits for one that is queued.
    pub(super) fn wait_for_room(&self) {
        if self.has_room() {
            return;
        }
        let mut jobs = self.jobs.lock();
        while !self.has_room() && self.poison.get().is_none() && !self.is_starved() {
            self.room.wait(&mut jobs);
        }
    }

    /// Queues a job; drops it if poisoned.
    pub(super) fn push(&self, job: Job) {
        let mut jobs = self.jobs.lock();
        if self.poison.get().is_none() {
            jobs.push_back(job);
        }
    }

    /// Does every queued job.
    pub(super) fn drain(&self) {
        let _turn = self.turn.lock();
        let _dart = Dart(self);
        while let Some(job) = self.next() {
            if !self.has_space_for(&job) {
                self.starve(job);
                return;
            }
            if let Err(e) = self.run(job) {
                self.be_poisoned(e);
            }
        }
        self.starved.store(false, Ordering::Release);
    }

    /// Whether the index waits for space on its disk: nothing is lost, and it goes on by itself.
    pub(super) fn is_starved(&self) -> bool {
        self.starved.load(Ordering::Acquire)
    }

    /// An engine that meets a full disk half-way is of no use any more, so it is not begun there.
    fn has_space_for(&self, job: &Job) -> bool {
        let bytes = match job {
            // In memory, until a checkpoint writes a new file beside the old one.
            Job::Memtable(_) | Job::Prune(_) if self.engine.kind() == EngineKind::Memory => return true,
            Job::Memtable(memtable) => memtable.bytes() as u64,
            Job::Prune(_) | Job::Checkpoint(_) => 0,
        };
        self.files.free_bytes().is_none_or(|free| free >= bytes.saturating_mul(2) + SPACE_MIN)
    }

    fn starve(&self, job: Job) {
        let first = !self.starved.swap(true, Ordering::AcqRel);
        if first && matches!(job, Job::Memtable(_)) {
            tracing::warn!("the index waits for disk space: nothing is lost, and it goes on by itself");
        }
        match job {
            // It is due again at the usual time, and the one before counts.
            Job::Checkpoint(CheckpointJob { done, .. }) => {
                self.checkpointing.store(false, Ordering::Release);
                let _ = done.send(Err(no_space()));
            }
            // What they would remove is found again.
            Job::Prune(_) => {}
            job @ Job::Memtable(_) => self.jobs.lock().push_front(job),
        }
        drop(self.jobs.lock());
        self.room.notify_all();
    }

    fn next(&self) -> Option<Job> {
        self.jobs.lock().pop_front()
    }

    fn run(&self, job: Job) -> Result<()> {
        match job {
            Job::Memtable(memtable) => {
                self.durable(memtable.last)?;
                // Before anything of it can be seen in the index.
                self.begun.fetch_add(1, Ordering::SeqCst);
                dstore_sys::failpoint!("global::index::before_apply");
                self.engine.apply(memtable.writes(), memtable.last)?;
                dstore_sys::failpoint!("global::index::after_apply");
                self.layers.retire(&memtable);
                self.indexed.store(memtable.last.0, Ordering::Release);
                // Held once, so that nobody looks before it and waits after it.
                drop(self.jobs.lock());
                self.room.notify_all();
                Ok(())
            }
            Job::Prune(hints) => {
                let gone = |key| Write { table: Table::Unnamed, key, value: None };
                self.engine.apply(hints.into_iter().map(gone).collect(), self.indexed())
            }
            Job::Checkpoint(CheckpointJob { revision, at_ms, names, namespaces, outcomes, done }) => {
                let stored = self.durable(revision).and_then(|()| self.store(revision));
                let file = Checkpoint {
                    revision,
                    index: self.engine.identity(),
                    previous: self.checkpointed(),
                    history: self.history,
                    at_ms,
                    names: Some(names),
                    namespaces,
                    outcomes,
                };
                let answer = stored.clone().and_then(|()| self.vouch(&file));
                self.checkpointing.store(false, Ordering::Release);
                let _ = done.send(answer); // nobody may be waiting
                // What an index that failed to sync holds is unknown, and another sync proves nothing of it.
                stored
            }
        }
    }

    fn durable(&self, revision: Revision) -> Result<()> {
        self.gate.get().map_or(Ok(()), |gate| gate(revision))
    }

    /// Has the index make everything durable, and it must be at `revision`.
    fn store(&self, revision: Revision) -> Result<()> {
        dstore_sys::failpoint!("global::checkpoint::before_index");
        let proven = self.engine.checkpoint()?;
        dstore_sys::failpoint!("global::checkpoint::after_index");
        if proven == revision {
            return Ok(());
        }
        Err(Error::internal(format!("the index is at `{proven}`, not at `{revision}`: report this")))
    }

    /// Writes the checkpoint's file. If that fails the one before still counts, and may be replaced later.
    fn vouch(&self, checkpoint: &Checkpoint) -> Result<Revision> {
        let revision = checkpoint.revision;
        if let Err(e) = self.files.write(checkpoint) {
            tracing::warn!(error = %e, "checkpoint failed");
            return Err(e);
        }
        dstore_sys::failpoint!("global::checkpoint::after_file");
        let before = self.checkpointed.swap(revision.0, Ordering::AcqRel);
        self.checkpointed_before.store(before, Ordering::Release);
        Ok(revision)
    }

    fn be_poisoned(&self, error: Error) {
        tracing::error!(error = ?error, "index failed");
        let mut jobs = self.jobs.lock();
        let _ = self.poison.set(error); // the first reason counts
        jobs.clear();
        drop(jobs);
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

pub(super) fn no_space() -> Error {
    Error::exhausted("the index waits for disk space: free some, it is noticed by itself")
        .retry_after(Duration::from_secs(1))
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
