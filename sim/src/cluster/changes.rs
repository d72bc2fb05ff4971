//! How a client changes: under an id, tried again under it, at times twice at once and at several tiers.

use super::client::Client;
use super::desk::Desk;
use super::reads::body;
use super::{bytes_of, name, prefix_of};
use crate::history::Begun;
use crate::linear::{Answer, Bind, Keys, Op, Swap, Value};
use dstore_proto::store::{SetOne, Store, Target};
use dstore_shared::limits::CARRIED_BYTES_MAX;
use dstore_shared::{
    Attributes, Blob, CopyOutcome, CopyResult, Decision, DeleteMode, ExpireWhen, Expiry, Guard, Kind,
    Namespace, Payload, Prefix, Result, SetOutcome, Step, StepOutcome, StepResult, Transaction, When,
};
use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

/// How often a change is tried under one id before its outcome counts as unknown.
const ATTEMPTS: usize = 4;
/// Values up to this one are set by anybody at any time.
const REUSED: Value = 8;
/// How often a DEL that is pending is asked about again.
const ASKED_AGAIN: usize = 60;

impl<D: Desk> Client<D> {
    /// A value for a SET: mostly one that nobody used, else one of the first.
    fn value(&self) -> Value {
        let fresh = self.below(5) > 0;
        let value = if fresh { self.cluster.new_value() } else { 1 + self.below(u64::from(REUSED)) as Value };
        if value < self.cluster.0.value_next.get() { value } else { self.cluster.new_value() }
    }

    pub async fn set(&self, key: usize) {
        let value = self.value();
        let is_stream = self.below(4) == 0;
        let Ok(id) = self.ended(self.desk.id(self.draw())).await else { return };
        let begun = self.begin(Op::Set(key, value));
        let done = self.insist(true, |store| async move {
            store.set(id, Some(name(key)), body(value, is_stream)).await.map(|reply| reply.outcome)
        });
        if let Some(outcome) = done.await {
            self.stored(&begun, &outcome);
        }
    }

    fn stored(&self, begun: &Begun, outcome: &SetOutcome) {
        let answer = match outcome {
            SetOutcome::Stored(entry) => {
                self.cluster.0.history.say(begun, |told| told.revision = Some(entry.bind_rev.0));
                Some(Answer::Stored)
            }
            SetOutcome::Unchanged(_) => Some(Answer::Unchanged),
            SetOutcome::Occupied(entry) => self.known(&entry.hash).map(Answer::Occupied),
            SetOutcome::NeedBlob => {
                self.cluster.accuse(format!("{}: a SET with its bytes was asked for them", self.by));
                None
            }
        };
        if let Some(answer) = answer {
            self.end(begun, answer);
        }
    }

    /// Two SETs in one call, each by itself.
    pub async fn set_many(&self, keys: [usize; 2]) {
        let (mut sets, mut begun) = (Vec::new(), Vec::new());
        let draw = self.draw();
        for key in keys {
            // Of one client, so that they follow one another.
            let Ok(id) = self.ended(self.desk.id(draw)).await else { return };
            let value = self.cluster.new_value();
            let attributes = Attributes::default();
            sets.push(SetOne { id, name: name(key), value: Blob::hash(bytes_of(value)), attributes });
            begun.push(Op::Set(key, value));
        }
        let begun: Vec<Begun> = begun.into_iter().map(|op| self.begin(op)).collect();
        // What fails is not tried again: its outcome stays unknown.
        match self.ended(self.desk.store(draw).set_many(sets)).await {
            Ok(done) => {
                for (begun, done) in begun.iter().zip(done) {
                    match done {
                        Ok(reply) => self.stored(begun, &reply.outcome),
                        Err(e) => self.judge(&e),
                    }
                }
            }
            Err(e) => self.judge(&e),
        }
    }

    /// A time to live of which some is left when the name is read again.
    fn ttl(&self) -> Duration {
        Duration::from_millis(20 + self.below(180))
    }

    /// A value that nobody else sets, and that travels with a transaction.
    fn own_value(&self) -> Value {
        loop {
            let value = self.cluster.new_value();
            if value > REUSED && bytes_of(value).len() <= CARRIED_BYTES_MAX {
                return value;
            }
        }
    }

    /// A SET of a name that lives for a moment.
    pub async fn set_brief(&self, key: usize) {
        let (value, ttl) = (self.own_value(), self.ttl());
        let Ok(id) = self.ended(self.desk.id(self.draw())).await else { return };
        let begun = self.begin(Op::Set(key, value));
        self.cluster.0.history.say(&begun, |told| told.ttl = Some(ttl));
        let attributes = Attributes { content_type: None, ttl: Some(ttl) };
        let done = self.insist(true, |store| {
            let set = store.set_as(id, Some(name(key)), body(value, false), attributes.clone());
            async move { set.await.map(|reply| reply.outcome) }
        });
        if let Some(outcome) = done.await {
            self.stored(&begun, &outcome);
        }
    }

    /// A moment for a name that is bound, if it is.
    pub async fn brief(&self, key: usize) {
        let ttl = self.ttl();
        let Ok(id) = self.ended(self.desk.id(self.draw())).await else { return };
        let begun = self.begin(Op::Brief(key));
        self.cluster.0.history.say(&begun, |told| told.ttl = Some(ttl));
        let step = Step::Expire { name: name(key), expiry: Expiry::In(ttl), when: ExpireWhen::Less };
        let done = self.insist(true, |store| store.apply(id, Transaction::of(step.clone())));
        let Some(done) = done.await else { return };
        let Decision::Done(steps) = done.decision else {
            return self.cluster.accuse(format!("{}: a step without a guard came to {done:?}", self.by));
        };
        let answer = match steps.first() {
            Some(StepOutcome { result: StepResult::Done | StepResult::NotMet, old: Some(old), .. }) => {
                self.known(&old.hash).map(Answer::Found)
            }
            Some(StepOutcome { result: StepResult::NotFound, .. }) => Some(Answer::Absent),
            other => return self.cluster.accuse(format!("{}: an EXPIRE came to {other:?}", self.by)),
        };
        if let Some(answer) = answer {
            self.end(&begun, answer);
        }
    }

    /// If a key is bound as it is now, it or another is unbound and one of them bound.
    pub async fn swap(&self, key: usize, other: usize) {
        let Ok(stat) = self.ended(self.desk.store(self.draw()).stat(Target::Name(name(key)))).await else {
            return;
        };
        let seen = match &stat {
            Some(stat) => match self.known(&stat.entry.hash) {
                Some(value) => Some(value),
                None => return,
            },
            None => None,
        };
        // What was seen may have changed by the time.
        tokio::time::sleep(Duration::from_millis(self.below(30))).await;
        let (unbound, bound) = if self.below(2) == 0 { (key, other) } else { (other, key) };
        let value = self.own_value();
        let Ok(id) = self.ended(self.desk.id(self.draw())).await else { return };
        let begun = self.begin(Op::Swap(Swap { guard: (key, seen), unbound, bound: (bound, value) }));
        let payload = Payload::carrying(Blob::hash(bytes_of(value)));
        let set = Step::Set { name: name(bound), value: payload, when: When::Always, expiry: Expiry::Clear };
        let guard = Guard { name: name(key), bind_rev: stat.map(|stat| stat.entry.bind_rev) };
        let transaction = Transaction::guarded(vec![guard], vec![Step::Delete { name: name(unbound) }, set]);
        let done = self.insist(true, |store| store.apply(id, transaction.clone()));
        let Some(done) = done.await else { return };
        self.cluster.0.history.say(&begun, |told| told.revision = Some(done.revision.0));
        let answer = match &done.decision {
            Decision::Aborted(0) => Some(Answer::Aborted),
            Decision::Done(steps) if steps.len() == 2 => self.applied(&steps[0], &steps[1]),
            _ => None,
        };
        match answer {
            Some(answer) => self.end(&begun, answer),
            None => self.cluster.accuse(format!("{}: a transaction came to {done:?}", self.by)),
        }
    }

    fn applied(&self, delete: &StepOutcome, set: &StepOutcome) -> Option<Answer> {
        let was = match (delete.result, &delete.old) {
            (StepResult::Done, Some(old)) => Some(self.known(&old.hash)?),
            (StepResult::NotFound, None) => None,
            _ => return None,
        };
        let bind = match (set.result, &set.old) {
            (StepResult::Done, None) => Bind::Stored,
            (StepResult::Unchanged, Some(_)) => Bind::Unchanged,
            (StepResult::Occupied, Some(old)) => Bind::Occupied(self.known(&old.hash)?),
            _ => return None,
        };
        Some(Answer::Applied(was, bind))
    }

    pub async fn copy(&self, from: usize, to: usize, unbinds: bool) {
        let Ok(id) = self.ended(self.desk.id(self.draw())).await else { return };
        let begun = self.begin(if unbinds { Op::Rename(from, to) } else { Op::Copy(from, to) });
        let done = self.insist(true, |store| async move {
            if unbinds {
                store.rename(id, name(from), name(to)).await
            } else {
                store.copy(id, name(from), name(to)).await
            }
        });
        let Some(CopyOutcome { result, revision }) = done.await else { return };
        self.cluster.0.history.say(&begun, |told| told.revision = Some(revision.0));
        let answer = match result {
            CopyResult::Done(entry) => self.known(&entry.hash).map(Answer::Done),
            CopyResult::Unchanged(_) => Some(Answer::Unchanged),
            CopyResult::Occupied(entry) => self.known(&entry.hash).map(Answer::Occupied),
            CopyResult::NotFound => Some(Answer::Absent),
        };
        if let Some(answer) = answer {
            self.end(&begun, answer);
        }
    }

    pub async fn delete(&self, keys: Keys) {
        self.delete_in(keys, DeleteMode::Strict).await;
    }

    pub async fn delete_async(&self, keys: Keys) {
        self.delete_in(keys, DeleteMode::Async).await;
    }

    /// With a deadline that often passes.
    pub async fn delete_patient(&self, keys: Keys) {
        let deadline = Duration::from_millis(1 + self.below(20));
        self.delete_in(keys, DeleteMode::Deadline(deadline)).await;
    }

    async fn delete_in(&self, keys: Keys, mode: DeleteMode) {
        let Ok(id) = self.ended(self.desk.id(self.draw())).await else { return };
        let begun = self.begin(Op::Delete(keys));
        self.cluster.0.history.say(&begun, |told| {
            told.is_async = mode == DeleteMode::Async;
            told.is_patient = mode.deadline().is_some();
        });
        let names: Vec<_> = keys.each().map(name).collect();
        let is_strict = mode == DeleteMode::Strict;
        let done = self.insist(is_strict, |store| store.delete_in(id, names.clone(), mode));
        let Some(reply) = done.await else { return };
        if reply.removed.len() != names.len() {
            self.cluster.accuse(format!("{}: a DEL of {keys:?} answered {reply:?}", self.by));
            return;
        }
        self.cluster.0.history.say(&begun, |told| {
            told.revision = Some(reply.revision.0);
            told.stale = reply.stale;
        });
        let removed = keys.each().zip(reply.removed).filter(|(_, removed)| *removed).map(|(key, _)| key);
        self.end(&begun, Answer::Removed(Keys::of(removed)));
    }

    /// All keys that begin as `key` does.
    pub async fn delete_prefix(&self, key: usize) {
        let prefix = prefix_of(key);
        let Ok(prefix) = Prefix::new(&Namespace::default(), prefix.as_bytes()) else { return };
        let keys = Keys::of((0..self.cluster.0.plan.keys).filter(|other| other % 2 == key % 2));
        let Ok(id) = self.ended(self.desk.id(self.draw())).await else { return };
        let begun = self.begin(Op::DeletePrefix(keys));
        let done = self.insist(true, |store| store.delete_prefix(id, prefix.clone()));
        let Some(done) = done.await else { return };
        self.cluster.0.history.say(&begun, |told| told.revision = Some(done.revision.0));
        self.end(&begun, Answer::RemovedMany(done.removed));
    }

    /// Tries a change again under its id; `None` = its outcome stays unknown.
    async fn insist<'a, T: PartialEq + Debug, F: Future<Output = Result<T>>>(
        &'a self,
        may_double: bool,
        change: impl Fn(&'a D::Store) -> F,
    ) -> Option<T> {
        let (mut failures, mut pending) = (0, 0);
        while failures < ATTEMPTS && pending < ASKED_AGAIN {
            let first = self.ended(change(self.desk.store(self.draw())));
            let done = if may_double && self.below(8) == 0 {
                let second = self.ended(change(self.desk.store(self.draw())));
                self.both(tokio::join!(first, second))
            } else {
                first.await
            };
            match done {
                Ok(reply) => return Some(reply),
                Err(e) if e.kind() == Kind::Pending && !may_double => {
                    pending += 1;
                    tokio::time::sleep(Duration::from_millis(1 + self.below(20))).await;
                }
                Err(e) => {
                    self.judge(&e);
                    if e.kind() != Kind::Unavailable {
                        return None;
                    }
                    tokio::time::sleep(Duration::from_millis(10 << failures)).await;
                    failures += 1;
                }
            }
        }
        None
    }

    /// Two attempts of one change are one change, and are answered alike.
    fn both<T: PartialEq + Debug>(&self, both: (Result<T>, Result<T>)) -> Result<T> {
        match both {
            (Ok(one), Ok(other)) => {
                if one != other {
                    self.cluster.accuse(format!(
                        "{}: two attempts under one id were answered {one:?} and {other:?}",
                        self.by
                    ));
                }
                Ok(one)
            }
            (Ok(one), Err(e)) | (Err(e), Ok(one)) => {
                self.judge(&e);
                Ok(one)
            }
            (Err(e), Err(other)) => {
                self.judge(&e);
                Err(other)
            }
        }
    }
}
