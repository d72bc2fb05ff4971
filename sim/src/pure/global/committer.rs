//! Global's committer: queued ops become batches, batches become durable, then visible, then finished.

use super::{Batch, Event, Finish, Global, Job, OUTCOMES_KEPT, Record};
use crate::pure::config::Fault;
use crate::pure::history::Told;
use crate::pure::local::value_of;
use crate::pure::planted::Planted;
use crate::pure::rng::MS;
use crate::pure::world::{self, World};
use dstore_global::sessions::OpNo;
use dstore_shared::frame::Answer;
use dstore_shared::{
    Command, CopyOutcome, CopyResult, DeleteMode, DeleteOutcome, Entry, Error, Name, Outcome, PrefixOutcome,
    Revision, SetOutcome,
};

impl World {
    /// Appends what is queued as one batch, if no batch is on its way.
    pub(super) fn commit_next(&mut self) {
        let held_up = self.awaits(self.global_now());
        let process = self.global.process.as_mut().expect("global is up");
        if process.batch.is_some() || process.queue.is_empty() || process.failed || held_up {
            return;
        }
        let jobs = std::mem::take(&mut process.queue);
        let mut batch = Batch { ends: Vec::new(), records: Vec::new() };
        let mut head = self.global.head;
        for (op, job) in jobs {
            if self.overtakes(&job) {
                let now = self.global_now();
                self.machine().drain_first(now, op, Job { drained: true, ..job });
                continue;
            }
            head = self.append(&mut batch, op, &job, head);
            if self.planted(Planted::RepliesBeforeSync) {
                let outcome = batch.ends.last().expect("it was just appended").outcome.clone();
                self.reply(job.responder, Answer::Changed { outcome, cacheable: None, stale: None });
            }
        }
        if self.planted(Planted::VisibleBeforeSync) {
            self.global.before = Some(self.global.visible.clone());
            for record in &batch.records {
                self.global.apply(record);
            }
        }
        if self.planted(Planted::WatchBeforeVisible) {
            for record in &batch.records {
                self.feed(record.rev, &self.global.with_before(record));
            }
        }
        self.global.process.as_mut().expect("global is up").batch = Some(batch);
        let slow = if self.siege().is_some() { 100 } else { 20 };
        let sync = if self.rng.chance(slow) {
            self.rng.between(1, 80) * MS
        } else {
            self.rng.between(100, 900) * 1_000
        };
        self.after(sync, world::Event::Global(self.global.boot, Event::Synced));
    }

    /// Decides one op and puts it into the batch; gives the newest revision of that. Ops of one batch have no name in
    /// common: the state before the batch is the state before each.
    fn append(&mut self, batch: &mut Batch, op: OpNo, job: &Job, mut head: Revision) -> Revision {
        let outcome = self.outcome(&job.command, head.next());
        let asynchronous = matches!(job.command, Command::Delete { mode: DeleteMode::Async, .. });
        self.global.async_dels |= asynchronous;
        let id = job.id;
        let mut gone = None;
        if let Some(changes) = self.changes(&job.command, &outcome) {
            head = head.next();
            if matches!(job.command, Command::DeletePrefix { .. }) {
                gone = Some(changes.iter().map(|(name, _)| name.clone()).collect());
            }
            batch.records.push(Record { rev: head, id, outcome: outcome.clone(), changes, asynchronous });
        }
        // By the names that were taken when it came, which it may have outgrown.
        gone = gone.filter(|_| !self.planted(Planted::PrefixTakesWhatIsThere));
        batch.ends.push(Finish { op, id, outcome, head, asynchronous, gone });
        head
    }

    /// Whether it would bind a name anew whose holders were not waited for.
    fn overtakes(&self, job: &Job) -> bool {
        let Command::Set { name, hash, .. } = &job.command else { return false };
        let rebinds =
            self.cfg.replaces && self.global.visible.get(name).is_some_and(|held| held.hash != *hash);
        rebinds && !job.drained && !self.planted(Planted::UndrainedReplace)
    }

    fn outcome(&self, command: &Command, next: Revision) -> Outcome {
        match command {
            Command::Set { name, hash, size, .. } => Outcome::Set(match self.global.visible.get(name) {
                None => SetOutcome::Stored(Entry {
                    hash: *hash,
                    size: *size,
                    bind_rev: next,
                    expires_at: None,
                    content_type: None,
                }),
                Some(held) if held.hash == *hash => SetOutcome::Unchanged(held.clone()),
                Some(_) if self.cfg.replaces => SetOutcome::Stored(Entry {
                    hash: *hash,
                    size: *size,
                    bind_rev: next,
                    expires_at: None,
                    content_type: None,
                }),
                Some(held) => SetOutcome::Occupied(held.clone()),
            }),
            Command::Delete { names, .. } => {
                let removed: Vec<bool> = names.iter().map(|n| self.global.visible.contains_key(n)).collect();
                let revision = if removed.contains(&true) { next } else { Revision(next.0 - 1) };
                Outcome::Delete(DeleteOutcome { removed, revision })
            }
            Command::Copy { from, to } => Outcome::Copy(self.copied(from, to, false, next)),
            Command::Rename { from, to } => Outcome::Rename(self.copied(from, to, true, next)),
            Command::Apply(_) => unreachable!("no client here applies transactions"),
            Command::DeletePrefix { prefix } => {
                let removed = self.global.visible.keys().filter(|name| prefix.covers(name)).count() as u64;
                let revision = if removed > 0 { next } else { Revision(next.0 - 1) };
                Outcome::DeletePrefix(PrefixOutcome { removed, revision })
            }
        }
    }

    /// What a command changes, if anything.
    fn changes(&self, command: &Command, outcome: &Outcome) -> Option<Vec<(Name, Option<Entry>)>> {
        match (command, outcome) {
            (Command::Set { name, .. }, Outcome::Set(SetOutcome::Stored(e))) => {
                Some(vec![(name.clone(), Some(e.clone()))])
            }
            (Command::Delete { names, .. }, Outcome::Delete(d)) => {
                let removed = names.iter().zip(&d.removed).filter(|(_, removed)| **removed);
                let changes: Vec<_> = removed.map(|(name, _)| (name.clone(), None)).collect();
                (!changes.is_empty()).then_some(changes)
            }
            (Command::DeletePrefix { prefix }, Outcome::DeletePrefix(done)) if done.removed > 0 => {
                let under = self.global.visible.keys().filter(|name| prefix.covers(name));
                Some(under.map(|name| (name.clone(), None)).collect())
            }
            (Command::Copy { to, .. }, Outcome::Copy(copy)) => match &copy.result {
                CopyResult::Done(entry) => Some(vec![(to.clone(), Some(entry.clone()))]),
                _ => None,
            },
            (Command::Rename { from, to }, Outcome::Rename(copy)) => match &copy.result {
                CopyResult::Done(entry) => {
                    Some(vec![(from.clone(), None), (to.clone(), Some(entry.clone()))])
                }
                _ => None,
            },
            _ => None,
        }
    }

    fn copied(&self, from: &Name, to: &Name, unbinds: bool, next: Revision) -> CopyOutcome {
        let none = |result| CopyOutcome { result, revision: Revision(next.0 - 1) };
        let Some(source) = self.global.visible.get(from) else { return none(CopyResult::NotFound) };
        match self.global.visible.get(to) {
            _ if from == to => none(CopyResult::Unchanged(source.clone())),
            Some(held) if held.hash != source.hash => none(CopyResult::Occupied(held.clone())),
            Some(held) if !unbinds => none(CopyResult::Unchanged(held.clone())),
            Some(held) => CopyOutcome { result: CopyResult::Done(held.clone()), revision: next },
            None => {
                let entry = Entry { bind_rev: next, ..source.clone() };
                CopyOutcome { result: CopyResult::Done(entry), revision: next }
            }
        }
    }

    /// The batch is durable: visible in one step, then its ops are finished one after the other.
    pub(super) fn synced(&mut self) {
        let Some(batch) = self.global.process.as_mut().and_then(|p| p.batch.take()) else { return };
        if self.has(Fault::SyncFailures) && !self.is_calm() && self.rng.chance(4) {
            return self.sync_fails(batch);
        }
        self.global.before = None;
        let mut late = Vec::new();
        for record in &batch.records {
            if self.planted(Planted::FreeBeforeVisible) {
                late.push(record.clone());
            } else if self.shows_piecemeal(record) {
                let (mut first, mut rest) = (record.clone(), record.clone());
                rest.changes = first.changes.split_off(1);
                late.push(rest);
                self.show(&first, false);
            } else {
                self.show(record, true);
            }
        }
        let head = self.global.head;
        let mut delay = 0;
        let boot = self.global.boot;
        for rest in late {
            self.after(3 * MS, world::Event::Global(boot, Event::Rest(rest)));
        }
        for end in batch.ends {
            delay += if self.rng.chance(500) { 0 } else { self.rng.between(1, 1_500) * 1_000 };
            self.after(delay, world::Event::Global(boot, Event::Finish(Box::new(Finish { head, ..end }))));
        }
    }

    pub(super) fn show(&mut self, record: &Record, whole: bool) {
        if record.asynchronous {
            let keys: Vec<usize> = record.changes.iter().map(|(name, _)| self.key(name)).collect();
            self.history.lingers(self.now, record.id, &keys);
        }
        let changes = self.global.with_before(record);
        self.global.apply(record);
        if whole {
            self.global.outcomes.push_back((record.id, record.outcome.clone()));
            if self.global.outcomes.len() > OUTCOMES_KEPT {
                self.global.outcomes.pop_front();
            }
        }
        for (name, is, was) in &changes {
            let value = |entry: &Option<Entry>| entry.as_ref().map(|entry| value_of(entry.hash));
            self.note_became(record.rev, name, value(is), value(was));
        }
        if !self.planted(Planted::WatchBeforeVisible) {
            self.feed(record.rev, &changes);
        }
        let mut changes: Vec<_> = record
            .changes
            .iter()
            .map(|(name, e)| (self.key(name), e.as_ref().map(|e| value_of(e.hash))))
            .collect();
        changes.sort_unstable();
        let first = self.history.visible(self.now, record.id, &changes, told(&record.outcome));
        let pieces = self.planted(Planted::PiecemealDelete) || self.planted(Planted::PiecemealPrefix);
        if whole && !first && !pieces {
            self.violation(|| format!("G2: request {:?} took effect twice", record.id));
        }
    }

    fn shows_piecemeal(&self, record: &Record) -> bool {
        let by_prefix = matches!(record.outcome, Outcome::DeletePrefix(_));
        let planted = if by_prefix { Planted::PiecemealPrefix } else { Planted::PiecemealDelete };
        self.planted(planted) && record.changes.len() > 1
    }

    /// The process goes on without writing, and dies soon.
    fn sync_fails(&mut self, batch: Batch) {
        self.struck[Fault::SyncFailures as usize] += 1;
        let error = Error::unavailable("outcome unknown");
        for end in &batch.ends {
            self.machine().fail(end.op, &error);
        }
        let process = self.global.process.as_mut().expect("global is up");
        process.failed = true;
        // Whether it is on the disk will show.
        process.batch = Some(batch);
        let soon = self.rng.between(1, 500) * MS;
        self.after(soon, world::Event::Global(self.global.boot, Event::Crash));
    }
}

impl Global {
    /// The changes of a record that is about to be applied, each with what its name is bound to.
    fn with_before(&self, record: &Record) -> Vec<(Name, Option<Entry>, Option<Entry>)> {
        let before = |name: &Name| self.visible.get(name).cloned();
        record.changes.iter().map(|(name, is)| (name.clone(), is.clone(), before(name))).collect()
    }

    fn apply(&mut self, record: &Record) {
        self.head = self.head.max(record.rev);
        for (name, entry) in &record.changes {
            match entry {
                Some(entry) => _ = self.visible.insert(name.clone(), entry.clone()),
                None => _ = self.visible.remove(name),
            }
        }
    }
}

pub(in crate::pure) fn told(outcome: &Outcome) -> Told {
    match outcome {
        Outcome::Set(SetOutcome::Stored(_)) => Told::Stored,
        Outcome::Set(SetOutcome::Unchanged(_)) => Told::Unchanged,
        Outcome::Set(SetOutcome::Occupied(e)) => Told::Occupied(value_of(e.hash)),
        Outcome::Set(SetOutcome::NeedBlob) => unreachable!("every value travels along"),
        Outcome::Delete(d) => Told::Removed(d.removed.clone()),
        Outcome::Copy(copy) | Outcome::Rename(copy) => match &copy.result {
            CopyResult::Done(e) => Told::Moved(value_of(e.hash)),
            CopyResult::Unchanged(_) => Told::Unchanged,
            CopyResult::Occupied(e) => Told::Occupied(value_of(e.hash)),
            CopyResult::NotFound => Told::NotFound,
        },
        Outcome::DeletePrefix(done) => Told::RemovedUnder(done.removed),
        Outcome::Transaction(_) | Outcome::Namespace(_) => unreachable!("no client here asks for it"),
    }
}
