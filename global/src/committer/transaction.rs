//! Transactions as the committer decides them, and SETs of names that are bound and may be bound anew.
//!
//! All names of a transaction are its own until it is visible, so what the catalog says of them is what they are bound
//! to. Guards first; then the steps in order, on a draft, which is undone if one of a whole transaction is refused;
//! then, if a name whose holders were not waited for would be
//! bound otherwise than they think, nothing is done yet (rules 6, 9).

use super::draft::{Bytes, Draft};
use super::{Committer, Done, Drained, Verdict, Work};
use crate::change::outcome_len;
use dstore_shared::limits::APPEND_BYTES_MAX;
#[cfg(feature = "faults")]
use dstore_shared::planted::{Mistake, is_made};
use dstore_shared::{
    Blob, Decision, Entry, Error, ExpireWhen, Expiry, Name, NamespaceSpec, Outcome, Payload, RequestId,
    Result, Revision, SetOutcome, Step, StepOutcome, StepResult, Transaction, TransactionOutcome, When,
};
use std::sync::Arc;
use std::time::Duration;

/// Bytes that all APPENDs of one transaction make: bounds what they cost though each makes the whole value anew.
const MADE_BYTES_MAX: usize = 8 << 20;
/// Digits and sign of the longest number.
const NUMBER_BYTES_MAX: u64 = 20;

/// When the time of a name ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Never,
    At(u64),
    /// It has ended.
    Over,
}

impl End {
    /// Of a name that is bound.
    fn of(entry: &Entry) -> Self {
        entry.expires_at.map_or(Self::Never, |end| Self::At(end.get()))
    }

    fn expires_at(self) -> Option<dstore_shared::End> {
        match self {
            Self::At(end) => dstore_shared::End::new(end),
            Self::Never | Self::Over => None,
        }
    }

    /// In order of time, the end last.
    fn place(self) -> u64 {
        match self {
            Self::Over => 0,
            Self::At(end) => end,
            Self::Never => u64::MAX,
        }
    }
}

/// A transaction that is being decided.
struct Deciding {
    draft: Draft,
    revision: Revision,
    /// Bytes that APPENDs made.
    made: usize,
}

impl Committer {
    pub(super) fn judge_transaction(
        &mut self,
        id: RequestId,
        transaction: Transaction,
        drained: &Drained,
        revision: Revision,
    ) -> Result<Verdict> {
        let mut deciding = Deciding { draft: Draft::default(), revision, made: 0 };
        let decision = self.decide_steps(&mut deciding, &transaction)?;
        #[cfg(feature = "faults")]
        if is_made(Mistake::HalfTransaction) {
            deciding.draft.forget_last();
        }
        if deciding.draft.overtakes(drained) {
            let work = Work::Apply { id, transaction, drained: Drained::All };
            return Ok(Verdict::of(Done::Undrained(Box::new(work)), Vec::new()));
        }
        let at = if deciding.draft.changes() { revision } else { self.head };
        let void = deciding.draft.void();
        let outcome = TransactionOutcome { decision, revision: at, at_ms: self.at_ms };
        let outcome = Outcome::Transaction(Arc::new(outcome));
        let taken = self.taken(deciding.draft, revision, outcome_len(&outcome))?;
        let done = Done::Changed(outcome, void);
        Ok(Verdict::of_draft(done, taken))
    }

    fn decide_steps(&mut self, deciding: &mut Deciding, transaction: &Transaction) -> Result<Decision> {
        for (i, guard) in transaction.guards.iter().enumerate() {
            let now = &self.row(&mut deciding.draft, &guard.name)?.now;
            #[cfg(feature = "faults")]
            if is_made(Mistake::SkippedGuard) {
                continue;
            }
            if now.as_ref().map(|entry| entry.bind_rev) != guard.bind_rev {
                return Ok(Decision::Aborted(i));
            }
        }
        let missing = self.missing_blobs(&mut deciding.draft, &transaction.steps)?;
        if !missing.is_empty() {
            return Ok(Decision::NeedBlobs(missing));
        }
        let mut done = Vec::with_capacity(transaction.steps.len());
        for (i, step) in transaction.steps.iter().enumerate() {
            let outcome = self.step(deciding, step)?;
            if transaction.whole && step.is_refused(outcome.result) {
                // What those before it did is not done either.
                deciding.draft.undo(self.at_ms);
                return Ok(Decision::Refused(i, outcome));
            }
            done.push(outcome);
        }
        Ok(Decision::Done(done))
    }

    /// The steps whose blobs are neither here nor carried.
    fn missing_blobs(&mut self, draft: &mut Draft, steps: &[Step]) -> Result<Vec<usize>> {
        let sets = || {
            let payload = |(i, step): (usize, &'_ Step)| match step {
                Step::Set { value, .. } => Some((i, value.clone())),
                _ => None,
            };
            steps.iter().enumerate().filter_map(payload)
        };
        // All of them first: a step may name what a later one carries.
        sets().filter_map(|(_, value)| value.carried).for_each(|blob| draft.bring(blob));
        let mut missing = Vec::new();
        for (i, value) in sets().filter(|(_, value)| value.carried.is_none()) {
            if !self.has_blob(draft, &value.hash, value.size)? {
                missing.push(i);
            }
        }
        Ok(missing)
    }

    fn step(&mut self, deciding: &mut Deciding, step: &Step) -> Result<StepOutcome> {
        match step {
            Step::Get { name } => {
                let now = self.row(&mut deciding.draft, name)?.now.clone();
                Ok(told(StepResult::Done, now.clone(), now))
            }
            Step::Set { name, value, when, expiry } => self.step_set(deciding, name, value, (*when, *expiry)),
            Step::Delete { name } => {
                let row = self.row(&mut deciding.draft, name)?;
                let old = row.now.take();
                let result = if old.is_some() { StepResult::Done } else { StepResult::NotFound };
                Ok(told(result, old, None))
            }
            Step::Expire { name, expiry, when } => self.step_expire(deciding, name, *expiry, *when),
            Step::Add { name, by } => self.step_add(deciding, name, *by),
            Step::Append { name, bytes } => self.step_append(deciding, name, bytes),
            Step::Copy { from, to, replace } => self.step_copy(deciding, (from, to), !replace, false),
            Step::Rename { from, to, only_absent } => {
                self.step_copy(deciding, (from, to), *only_absent, true)
            }
        }
    }

    fn step_set(
        &mut self,
        deciding: &mut Deciding,
        name: &Name,
        value: &Payload,
        (when, expiry): (When, Expiry),
    ) -> Result<StepOutcome> {
        let (spec, revision) = (self.spec(name), deciding.revision);
        let old = self.row(&mut deciding.draft, name)?.now.clone();
        let allowed = match when {
            When::Always => true,
            When::Absent => old.is_none(),
            When::Present => old.is_some(),
        };
        if !allowed {
            return Ok(told(StepResult::NotMet, old.clone(), old));
        }
        let same = old.as_ref().is_some_and(|entry| entry.hash == value.hash);
        if old.is_some() && !same && !spec.replaces() {
            return Ok(told(StepResult::Occupied, old.clone(), old));
        }
        // In a write-once namespace the same bytes change nothing, unless a time to live was given with them.
        let kept = same && !spec.replaces() && matches!(expiry, Expiry::Clear);
        let end = self.end(if kept { Expiry::Keep } else { expiry }, old.as_ref(), spec);
        // Nor does it another type: the first one stays.
        let first = old.as_ref().filter(|_| same && !spec.replaces());
        let content_type =
            first.map_or_else(|| value.content_type.clone(), |first| first.content_type.clone());
        let (hash, size, expires_at) = (value.hash, value.size, end.expires_at());
        let entry = Entry { hash, size, bind_rev: revision, expires_at, content_type };
        self.put(deciding, name, old, (end != End::Over).then_some(entry))
    }

    /// Binds a name, unless it is bound so already.
    fn put(
        &self,
        deciding: &mut Deciding,
        name: &Name,
        old: Option<Entry>,
        entry: Option<Entry>,
    ) -> Result<StepOutcome> {
        if old.as_ref().zip(entry.as_ref()).is_some_and(|(old, entry)| alike(old, entry)) {
            return Ok(told(StepResult::Unchanged, old.clone(), old));
        }
        self.row(&mut deciding.draft, name)?.now.clone_from(&entry);
        Ok(told(StepResult::Done, old, entry))
    }

    fn step_expire(
        &mut self,
        deciding: &mut Deciding,
        name: &Name,
        expiry: Expiry,
        when: ExpireWhen,
    ) -> Result<StepOutcome> {
        let Some(old) = self.row(&mut deciding.draft, name)?.now.clone() else {
            return Ok(told(StepResult::NotFound, None, None));
        };
        // Of its own it would live for ever: the namespace's time is for those whose SET does not say.
        let end = self.end(expiry, Some(&old), NamespaceSpec::default());
        let had = End::of(&old);
        let allowed = match when {
            ExpireWhen::Always => true,
            ExpireWhen::None => had == End::Never,
            ExpireWhen::Some => had != End::Never,
            ExpireWhen::Greater => end.place() > had.place(),
            ExpireWhen::Less => end.place() < had.place(),
        };
        if !allowed {
            return Ok(told(StepResult::NotMet, Some(old.clone()), Some(old)));
        }
        let entry = Entry { bind_rev: deciding.revision, expires_at: end.expires_at(), ..old.clone() };
        self.put(deciding, name, Some(old), (end != End::Over).then_some(entry))
    }

    fn step_add(&mut self, deciding: &mut Deciding, name: &Name, by: i64) -> Result<StepOutcome> {
        let old = self.row(&mut deciding.draft, name)?.now.clone();
        let failed = |result| Ok(told(result, old.clone(), old.clone()));
        if !self.spec(name).replaces() {
            return failed(StepResult::WriteOnce);
        }
        let number = match &old {
            None => 0,
            Some(entry) if entry.size > NUMBER_BYTES_MAX => return failed(StepResult::NotInteger),
            Some(entry) => match self.value(&deciding.draft, entry)? {
                Bytes::Damaged => return failed(StepResult::Damaged),
                Bytes::InFile => return failed(StepResult::NotInteger),
                Bytes::Whole(blob) => match number(blob.bytes()) {
                    Some(number) => number,
                    None => return failed(StepResult::NotInteger),
                },
            },
        };
        let Some(sum) = number.checked_add(by) else { return failed(StepResult::OutOfRange) };
        let done = self.put_made(deciding, name, old, Blob::hash(sum.to_string()))?;
        Ok(StepOutcome { number: Some(sum), ..done })
    }

    fn step_append(&mut self, deciding: &mut Deciding, name: &Name, bytes: &[u8]) -> Result<StepOutcome> {
        let old = self.row(&mut deciding.draft, name)?.now.clone();
        let failed = |result| Ok(told(result, old.clone(), old.clone()));
        if !self.spec(name).replaces() {
            return failed(StepResult::WriteOnce);
        }
        let len = old.as_ref().map_or(0, |entry| entry.size).saturating_add(bytes.len() as u64);
        let made = deciding.made.saturating_add(usize::try_from(len).unwrap_or(usize::MAX));
        if len > APPEND_BYTES_MAX as u64 || made > MADE_BYTES_MAX {
            return failed(StepResult::TooLarge);
        }
        let mut value = Vec::with_capacity(len as usize);
        if let Some(entry) = &old {
            match self.value(&deciding.draft, entry)? {
                Bytes::Whole(blob) => value.extend_from_slice(blob.bytes()),
                // It is too large to be made anew for each APPEND.
                Bytes::InFile => return failed(StepResult::TooLarge),
                Bytes::Damaged => return failed(StepResult::Damaged),
            }
        }
        value.extend_from_slice(bytes);
        deciding.made = made;
        self.put_made(deciding, name, old, Blob::hash(value))
    }

    /// Binds a name to a value that a step made; it lives as long as it did, and is of the type that it was.
    fn put_made(
        &mut self,
        deciding: &mut Deciding,
        name: &Name,
        old: Option<Entry>,
        value: Blob,
    ) -> Result<StepOutcome> {
        let end = self.end(Expiry::Keep, old.as_ref(), self.spec(name));
        let (bind_rev, expires_at) = (deciding.revision, end.expires_at());
        let content_type = old.as_ref().and_then(|old| old.content_type.clone());
        let entry = Entry { hash: value.id(), size: value.size(), bind_rev, expires_at, content_type };
        deciding.draft.bring(value);
        self.put(deciding, name, old, Some(entry))
    }

    fn step_copy(
        &mut self,
        deciding: &mut Deciding,
        (from, to): (&Name, &Name),
        only_absent: bool,
        unbinds: bool,
    ) -> Result<StepOutcome> {
        let source = self.row(&mut deciding.draft, from)?.now.clone();
        let old = self.row(&mut deciding.draft, to)?.now.clone();
        let Some(source) = source else { return Ok(told(StepResult::NotFound, old.clone(), old)) };
        if only_absent && old.is_some() {
            return Ok(told(StepResult::NotMet, old.clone(), old));
        }
        if from == to {
            return Ok(told(StepResult::Unchanged, old.clone(), old));
        }
        let replaces = self.spec(to).replaces();
        let same = old.as_ref().filter(|entry| entry.hash == source.hash);
        if old.is_some() && same.is_none() && !replaces {
            return Ok(told(StepResult::Occupied, old.clone(), old));
        }
        if unbinds {
            self.row(&mut deciding.draft, from)?.now = None;
        }
        let first = same.filter(|_| !replaces).map(|first| first.content_type.clone());
        let content_type = first.unwrap_or_else(|| source.content_type.clone());
        let entry = Entry { bind_rev: deciding.revision, content_type, ..source };
        let done = self.put(deciding, to, old, Some(entry))?;
        Ok(if unbinds { StepOutcome { result: StepResult::Done, ..done } } else { done })
    }

    /// When the time of a name ends that is given `expiry`.
    fn end(&self, expiry: Expiry, old: Option<&Entry>, spec: NamespaceSpec) -> End {
        let after = |ttl: Duration| {
            let ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
            End::At(self.at_ms.saturating_add(ms))
        };
        match expiry {
            Expiry::In(ttl) => after(ttl),
            Expiry::At(end) if end <= self.at_ms => End::Over,
            Expiry::At(end) => End::At(end),
            Expiry::Keep if old.is_some() => old.map_or(End::Never, End::of),
            Expiry::Keep | Expiry::Clear => spec.ttl.map_or(End::Never, after),
        }
    }

    pub(super) fn spec(&self, name: &Name) -> NamespaceSpec {
        self.catalog.namespace(&name.namespace())
    }

    /// A SET of a name that is bound, and whose namespace lets it be bound anew, or whose time is over, or is another
    /// now.
    pub(super) fn judge_rebinding(
        &mut self,
        (id, name, drained): (RequestId, Name, Drained),
        (value, ttl): (Payload, Option<Duration>),
        revision: Revision,
    ) -> Result<Verdict> {
        let mut deciding = Deciding { draft: Draft::default(), revision, made: 0 };
        match &value.carried {
            Some(blob) => deciding.draft.bring(blob.clone()),
            None if self.has_blob(&deciding.draft, &value.hash, value.size)? => {}
            None => return Ok(of_set(SetOutcome::NeedBlob)),
        }
        let done = self.step_set(
            &mut deciding,
            &name,
            &value,
            (When::Always, ttl.map_or(Expiry::Clear, Expiry::In)),
        )?;
        let outcome = match (done.result, done.entry) {
            (StepResult::Done, Some(entry)) => SetOutcome::Stored(entry),
            (StepResult::Unchanged, Some(entry)) => SetOutcome::Unchanged(entry),
            _ => return Err(Error::internal("a SET came to something else: report this")),
        };
        if deciding.draft.overtakes(&drained) {
            let work = Work::Set { id, name, value, ttl, drained: Drained::All };
            return Ok(Verdict::of(Done::Undrained(Box::new(work)), Vec::new()));
        }
        let (outcome, void) = (Outcome::Set(outcome), deciding.draft.void());
        let taken = self.taken(deciding.draft, revision, outcome_len(&outcome))?;
        let done = Done::Changed(outcome, void);
        Ok(Verdict::of_draft(done, taken))
    }
}

/// Whether two bindings are one but for their revision.
fn alike(a: &Entry, b: &Entry) -> bool {
    (a.hash, a.expires_at, &a.content_type) == (b.hash, b.expires_at, &b.content_type)
}

fn of_set(outcome: SetOutcome) -> Verdict {
    Verdict::of(Done::Change(Outcome::Set(outcome)), Vec::new())
}

fn told(result: StepResult, old: Option<Entry>, entry: Option<Entry>) -> StepOutcome {
    StepOutcome { result, old, entry, number: None }
}

/// The number of a decimal text, written as it would be written here.
fn number(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}
