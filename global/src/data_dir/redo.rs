//! Owns the way from what was found on disk to a catalog at the journal's head.
//!
//! Invariants: an index that is not proven is removed only once the journal has shown that it reaches back to
//! revision 1; the journal's batches follow each other without a gap. What is redone is visible in the catalog
//! at once, and in the index a little later, so that a start waits for reading and not for the index.

use super::{DataDirConfig, Index, index_dir};
use crate::catalog::{Catalog, Start};
use crate::change::{Change, Commit, Commits};
use crate::checkpoint::{Checkpoint, Checkpoints, Remembered};
use crate::engine::{self, Engine, Table};
use crate::feed::{Limits, Log};
use crate::sessions::{InvLog, LogBounds};
use bytes::Bytes;
use dstore_shared::{Error, HistoryId, Kind, Moment, Result, Revision};
use dstore_sys::Sys;
use dstore_sys::tasks::LaneEnd;
use std::sync::Arc;

/// Commits that become visible at once: bounds what one of the journal's batches takes besides its bytes.
const SHOW_COMMITS: usize = 1024;

pub(super) struct Redo<'a> {
    sys: &'a Sys,
    config: &'a DataDirConfig,
    history: HistoryId,
    checkpoint: Option<Checkpoint>,
    state: State,
    outcomes: Vec<Remembered>,
    log: InvLog,
    last: Revision,
    /// What became of names, from the first batch on that was read.
    feed: Option<Log>,
}

enum State {
    Waiting(Index, Checkpoints),
    Running { catalog: Catalog, applier: LaneEnd, rebuilt: bool },
    Failed,
}

/// What redoing led to.
pub(super) struct Redone {
    pub(super) catalog: Catalog,
    pub(super) applier: LaneEnd,
    pub(super) rebuilt: bool,
    pub(super) outcomes: Vec<Remembered>,
    pub(super) log: InvLog,
    pub(super) feed: Log,
}

impl<'a> Redo<'a> {
    pub(super) fn new(
        sys: &'a Sys,
        config: &'a DataDirConfig,
        (index, files): (Index, Checkpoints),
        (history, mut checkpoint): (HistoryId, Option<Checkpoint>),
    ) -> Self {
        let last = match &index {
            Index::Proven(_, revision) => *revision,
            Index::Unproven(_) | Index::Broken(_) => Revision(0),
        };
        let outcomes = checkpoint.as_mut().map(|c| std::mem::take(&mut c.outcomes)).unwrap_or_default();
        let (state, log) = (State::Waiting(index, files), InvLog::new(last, LogBounds::default()));
        Self { sys, config, history, checkpoint, state, outcomes, log, last, feed: None }
    }

    /// Redoes a batch of the journal.
    pub(super) fn batch(&mut self, first: Revision, last: Revision, payload: Bytes) -> Result<()> {
        if last <= self.last {
            self.recall(first, payload);
            return Ok(());
        }
        if first > self.last.next() {
            let gap = self.gap(first);
            // It says all that there is to say.
            self.state = State::Failed;
            return Err(gap);
        }
        dstore_sys::failpoint!("global::redo::before_batch");
        let catalog = self.running()?;
        let mut commits = Vec::new();
        for commit in Commits::of(payload) {
            let commit = commit?;
            if commit.revision <= self.last {
                self.tell(std::slice::from_ref(&commit));
                continue;
            }
            if commit.revision != self.last.next() {
                return Err(self.gap(commit.revision));
            }
            self.last = commit.revision;
            self.remember(&commit);
            commits.push(owned(commit));
            if commits.len() == SHOW_COMMITS {
                catalog.make_room();
                catalog.check_space(true)?;
                catalog.show(&commits)?;
                self.tell(&commits);
                commits.clear();
            }
        }
        catalog.make_room();
        catalog.check_space(true)?;
        catalog.show(&commits)?;
        self.tell(&commits);
        if self.last == last {
            return Ok(());
        }
        let found = self.last;
        Err(Error::corrupt(format!(
            "a journal batch ends at revision `{found}` and should end at `{last}`: restore the data directory from a backup"
        )))
    }

    /// A batch that index and checkpoint have: for feed and log alone, which do without it if it cannot be read.
    fn recall(&mut self, first: Revision, payload: Bytes) {
        for commit in Commits::of(payload) {
            match commit {
                Ok(commit) => self.tell(&[commit]),
                Err(error) => {
                    tracing::warn!(%first, %error, "an old batch of the journal cannot be read: watches begin later, and locals list");
                    self.feed = None;
                    return;
                }
            }
        }
    }

    /// Tells feed and log of the next commits; they begin anew if some are missing before them.
    fn tell(&mut self, commits: &[Commit]) {
        let Some(first) = commits.first() else { return };
        let before = Revision(first.revision.0.saturating_sub(1));
        let feed = match &mut self.feed {
            Some(feed) if feed.head() == before => feed,
            feed => {
                self.log = InvLog::new(before, LogBounds::default());
                feed.insert(Log::new(before, Limits::default()))
            }
        };
        feed.append(commits, &[]);
        drop(feed.evict());
        commits.iter().for_each(|commit| self.note_voided(commit));
    }

    /// The catalog at `head`, the journal's last revision; `reached` is what index or checkpoint have seen.
    pub(super) fn finish(mut self, head: Revision, reached: Revision) -> Result<Redone> {
        if head < reached {
            let path = self.config.path.display();
            return Err(Error::corrupt(format!(
                "in `{path}`, the index has seen revision `{reached}` but the journal ends at `{head}`: it lost \
                 acknowledged writes, restore it from a backup"
            )));
        }
        if self.last != head {
            return Err(self.gap(head.next()));
        }
        self.running()?;
        match self.state {
            State::Running { catalog, applier, rebuilt } => {
                let feed = self.feed.filter(|feed| feed.head() == head);
                let feed = feed.unwrap_or_else(|| Log::new(head, Limits::default()));
                Ok(Redone { catalog, applier, rebuilt, outcomes: self.outcomes, log: self.log, feed })
            }
            State::Waiting(..) | State::Failed => Err(Error::internal("redo did not start: report this")),
        }
    }

    /// The checkpoint has the outcomes up to its own revision.
    fn remember(&mut self, commit: &Commit) {
        let known = self.checkpoint.as_ref().is_some_and(|c| commit.revision <= c.revision);
        if let (false, Some((id, outcome))) = (known, &commit.outcome) {
            self.outcomes.push((*id, outcome.clone(), commit.at_ms));
        }
    }

    /// What holders must be told if they come back. A binding of a name that had none makes nothing void.
    fn note_voided(&mut self, commit: &Commit) {
        let voided = commit.changes.iter().filter_map(|change| match change {
            // What is remembered must not keep the batch that it was read from.
            Change::Unbind { name } | Change::Rebind { name, .. } => Some(name.compact()),
            _ => None,
        });
        let names: Vec<_> = voided.collect();
        if !names.is_empty() {
            self.log.push(Moment::ZERO, commit.revision, names, None);
        }
    }

    /// The catalog; started, and a useless index removed, when first needed.
    fn running(&mut self) -> Result<Catalog> {
        if let State::Running { catalog, .. } = &self.state {
            return Ok(catalog.clone());
        }
        let State::Waiting(index, files) = std::mem::replace(&mut self.state, State::Failed) else {
            return Err(Error::internal("redo goes on after an error: report this"));
        };
        let (engine, rebuilt) = self.usable(index)?;
        let (revision, previous) = match &self.checkpoint {
            Some(c) if !rebuilt => (c.revision, c.previous),
            _ => (Revision(0), Revision(0)),
        };
        let at_ms = self.checkpoint.as_ref().map_or(0, |c| c.at_ms);
        let history = self.history;
        let names = match &self.checkpoint {
            Some(c) if !rebuilt => c.names.unwrap_or_else(|| engine.about(Table::Names)),
            // All of them will be redone.
            _ => 0,
        };
        let namespaces = match &self.checkpoint {
            Some(c) if !rebuilt => c.namespaces.clone(),
            _ => Vec::new(),
        };
        let engine = Arc::from(engine);
        let start = Start { engine, files, history, revision, previous, at_ms, names, namespaces };
        let (catalog, applier) = Catalog::start(start, &self.config.catalog, self.sys.blocking);
        self.state = State::Running { catalog: catalog.clone(), applier, rebuilt };
        Ok(catalog)
    }

    /// An index to redo into, and whether it begins empty in place of another.
    fn usable(&self, index: Index) -> Result<(Box<dyn Engine>, bool)> {
        let dir = index_dir(self.config);
        match index {
            Index::Proven(engine, _) => Ok((engine, false)),
            Index::Unproven(engine) => {
                tracing::warn!(dir = %dir.display(), "index is not the one of the checkpoint, rebuilding it");
                Ok((engine.wipe()?, true))
            }
            Index::Broken(_) => {
                tracing::warn!(dir = %dir.display(), "index cannot be opened, rebuilding it");
                engine::discard(self.config.engine, self.sys, &dir)?;
                Ok((engine::open(self.config.engine, self.sys, &dir)?, true))
            }
        }
    }

    /// Why the journal was refused, if that is because it would have to rebuild an index.
    pub(super) fn explained(&self, refusal: Error) -> Error {
        let what = match &self.state {
            State::Waiting(Index::Broken(_), _) => "cannot be opened",
            State::Waiting(Index::Unproven(_), _) => "is not the one that `checkpoint` proves",
            _ => return refusal,
        };
        if refusal.kind() != Kind::Corrupt {
            return refusal;
        }
        let (path, why) = (self.config.path.display(), refusal.message());
        Error::corrupt(format!(
            "the index in `{path}` {what}, and cannot be rebuilt ({why}): put the right `index` back, or restore a backup"
        ))
        .caused_by(refusal.clone())
    }

    fn gap(&self, next: Revision) -> Error {
        let (path, last) = (self.config.path.display(), self.last);
        match &self.state {
            State::Waiting(Index::Broken(reason), _) => Error::corrupt(format!(
                "the index in `{path}` cannot be opened and the journal, from revision `{next}`, does not reach \
                 back to 1 to rebuild it: restore a backup"
            ))
            .caused_by(reason.clone()),
            State::Waiting(Index::Unproven(_), _) => Error::corrupt(format!(
                "the index in `{path}` is not the one that `checkpoint` proves and the journal, from revision \
                 `{next}`, does not reach back to 1 to rebuild it: put the right `index` back, or restore a backup"
            )),
            _ => Error::corrupt(format!(
                "in `{path}`, the journal goes on with revision `{next}` after `{last}`: what is between is \
                 missing, restore a backup"
            )),
        }
    }
}

/// The commit without the journal's batch that it was read from, which must not stay in memory for it.
fn owned(mut commit: Commit) -> Commit {
    for change in &mut commit.changes {
        match change {
            Change::Bind { name, .. } | Change::Rebind { name, .. } | Change::Unbind { name } => {
                *name = name.compact();
            }
            Change::Inline { bytes, .. } => *bytes = Bytes::copy_from_slice(bytes),
            // Names of namespaces are read into memory of their own.
            Change::Namespace(_)
            | Change::NamespaceGone { .. }
            | Change::Blob { .. }
            | Change::BlobGone { .. }
            | Change::InlineGone { .. } => {}
        }
    }
    commit
}
