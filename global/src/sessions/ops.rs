//! Changes on their way: first come first served a name, drain, commit (rules 5 to 8, 23 to 26).

use super::requests::Admission;
use super::{Action, Answered, Caller, OpNo, SessionNo, Sessions};
use dstore_shared::{
    CopyResult, DeleteMode, Epoch, Error, Moment, Name, Outcome, Prefix, RequestId, Result, Revision,
    SetOutcome,
};
use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

/// Attempts of one request that may wait for it together: more is a client gone wild.
const RESPONDERS_MAX: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// An earlier op has one of its names.
    Queued,
    /// Its names are busy; acks or lease ends are outstanding, or the restart grace.
    Draining,
    /// Its names are busy; the work is with the committer.
    Committing,
    /// An asynchronous DEL is visible and answered; its names are busy until it is drained (rule 27).
    Settling,
}

/// An attempt that waits for its op.
#[derive(Clone, Debug)]
pub(super) struct Waiting<R> {
    pub to: R,
    /// When it is to be answered as pending.
    pub until: Option<Moment>,
    /// It is to be answered when the change is visible, drained or not (rule 27).
    pub early: bool,
}

/// One change on its way.
#[derive(Clone, Debug)]
pub(super) struct Op<J, R> {
    pub names: Vec<Name>,
    /// It wants every name under this, instead of names.
    pub prefix: Option<Prefix>,
    pub id: RequestId,
    job: Option<J>,
    pub responders: Vec<Waiting<R>>,
    pub caller: Option<Caller>,
    pub drains: bool,
    pub spared: Vec<Name>,
    /// How many of its names an earlier op has, and how many earlier ops it waits for because of a prefix.
    pub blocked: usize,
    /// It is committed first and drained after (rule 27).
    pub asynchronous: bool,
    /// Of one that is settling: what it did.
    pub settled: Option<Outcome>,
    pub stage: Stage,
    pub marked_at: Moment,
    /// Every binding that existed at the mark has a revision up to this.
    pub upto: Revision,
    /// The sessions waited for.
    pub waits: BTreeSet<SessionNo>,
    /// The journal failed under it: it never ends.
    pub failed: Option<Error>,
    /// Of one that had to wait for Locals: how long, and whom for to the last; only told.
    pub waited: Option<(Duration, Vec<String>)>,
}

impl<J, R> Op<J, R> {
    /// Whether its names are busy.
    pub fn is_marked(&self) -> bool {
        self.stage != Stage::Queued
    }

    /// Whether acks, lease ends or the grace are outstanding.
    pub fn is_draining(&self) -> bool {
        matches!(self.stage, Stage::Draining | Stage::Settling)
    }

    /// Since when it waits for acks (rule 17): an asynchronous DEL does not before it is visible (rule 27).
    pub fn waits_since(&self) -> Option<Moment> {
        let waits = !self.asynchronous || self.stage == Stage::Settling;
        waits.then_some(self.marked_at)
    }

    /// Whether one more attempt may wait for it.
    pub fn joined(&self) -> Result<()> {
        match &self.failed {
            Some(e) => Err(e.clone()),
            None if self.responders.len() < RESPONDERS_MAX => Ok(()),
            None => {
                Err(Error::exhausted("too many attempts of one request are waiting: wait for one of them"))
            }
        }
    }
}

/// A change as it is submitted.
#[derive(Debug)]
pub struct Submission<J, R> {
    /// Names the change over all its attempts.
    pub id: RequestId,
    /// The names that it changes.
    pub names: Vec<Name>,
    /// Whether holders must be waited for: true for everything but what can only bind absent names, or is expected to
    /// (see [`Sessions::drain_first`]).
    pub drains: bool,
    /// Those of the names whose holders are not waited for: they are bound only if they are absent, or only read, or
    /// live longer. If one comes to be changed, they are void.
    pub spared: Vec<Name>,
    /// When this attempt is answered.
    pub mode: DeleteMode,
    /// The work for the committer.
    pub job: J,
    /// Who asks, if it would cache what it SETs.
    pub caller: Option<Caller>,
    /// Who is told the outcome.
    pub responder: R,
}

impl<J, R> Sessions<J, R> {
    /// Takes a change. It is answered by `Action::Answer`, now or later.
    pub fn submit(&mut self, now: Moment, change: Submission<J, R>) {
        self.submit_wanting(now, change, None);
    }

    pub(super) fn submit_wanting(&mut self, now: Moment, change: Submission<J, R>, prefix: Option<Prefix>) {
        self.expire(now);
        match self.requests.admit(change.id, self.born(now).at_ms) {
            Ok(Admission::New) => self.enqueue(now, change, prefix),
            Ok(Admission::Join(op)) => self.join(now, op, change.mode, change.responder),
            Ok(Admission::Done(outcome)) => {
                self.answer_again(now, change.id, outcome, change.mode, change.responder);
            }
            Err(e) => self.actions.push(Action::Answer(change.responder, Err(e))),
        }
    }

    fn enqueue(&mut self, now: Moment, change: Submission<J, R>, prefix: Option<Prefix>) {
        let mut seen = HashSet::new();
        let names: Vec<Name> = change.names.into_iter().filter(|name| seen.insert(name.clone())).collect();
        let room = self.room_for(names.len().max(1));
        let room = room.and_then(|()| if prefix.is_some() { self.room_for_prefix() } else { Ok(()) });
        if let Err(e) = room {
            return self.actions.push(Action::Answer(change.responder, Err(e)));
        }
        self.next_op += 1;
        let no = OpNo(self.next_op);
        self.names_wanted += names.len().max(1);
        let mut blocked = self.blocked_by(&names, prefix.as_ref());
        for name in &names {
            let queue = self.queues.entry(name.clone()).or_default();
            blocked += usize::from(!queue.is_empty());
            queue.push_back(no);
        }
        self.requests.start(change.id, no);
        if let Some(prefix) = &prefix {
            self.enter_prefix(no, prefix.clone());
        }
        let op = Op {
            names,
            prefix,
            id: change.id,
            job: Some(change.job),
            responders: Vec::new(),
            caller: change.caller,
            drains: change.drains,
            spared: change.spared,
            asynchronous: change.mode == DeleteMode::Async,
            settled: None,
            stage: Stage::Queued,
            blocked,
            marked_at: now,
            upto: self.head,
            waits: BTreeSet::new(),
            failed: None,
            waited: None,
        };
        self.ops.insert(no, op);
        self.join(now, no, change.mode, change.responder);
        self.start_if_free(now, no);
    }

    /// Whether changes are taken.
    ///
    /// # Errors
    /// `Unavailable` once Global is stopping.
    pub fn check_taking(&self) -> Result<()> {
        if self.retiring {
            return Err(Error::unavailable("global is stopping: try again").retry_after(self.terms.lease));
        }
        Ok(())
    }

    fn room_for(&self, names: usize) -> Result<()> {
        self.check_taking()?;
        let (ops, wanted) = (self.ops.len(), self.names_wanted);
        if ops >= self.terms.ops_max || wanted + names > self.terms.names_max {
            let text = format!("`{ops}` changes of `{wanted}` names are waiting already: try again later");
            return Err(Error::exhausted(text).retry_after(self.terms.ack_max));
        }
        Ok(())
    }

    /// Marks the op's names busy, fixes who is waited for and queues the INVs, in one step (rule 6).
    pub(super) fn start_if_free(&mut self, now: Moment, no: OpNo) {
        let head = self.head;
        let Some(op) = self.ops.get_mut(&no).filter(|op| op.blocked == 0 && op.stage == Stage::Queued) else {
            return;
        };
        (op.stage, op.marked_at, op.upto) = (Stage::Draining, now, head);
        if op.drains {
            self.fan_out(now, no);
        } else {
            self.fan_out_presence(now, no);
        }
        self.commit_if_drained(now, no);
    }

    fn fan_out(&mut self, now: Moment, no: OpNo) {
        let Op { names, prefix, spared, upto, .. } = &self.ops[&no];
        let (names, upto) = (names.clone(), *upto);
        let spared: HashSet<Name> = spared.iter().cloned().collect();
        if let Some(prefix) = prefix.clone() {
            return self.fan_out_prefix(no, &prefix, upto);
        }
        let mut last = std::collections::BTreeMap::new();
        for name in names {
            let told: BTreeSet<SessionNo> = if spared.contains(&name) {
                // Nobody holds what it would bind; but somebody may serve that it is absent (rule 28).
                self.serving_absence(now, &name).into_keys().collect()
            } else {
                let holders = self.holders.of(&name).iter().map(|h| h.session);
                holders.chain(self.wildcards.iter().copied()).collect()
            };
            for session in told {
                // A dead session's bits are void and swept later.
                if self.by_no.contains_key(&session) {
                    last.insert(session, self.invalidate_one(session, name.clone(), upto));
                }
            }
        }
        for (session, seq) in last {
            self.wait_for(session, no, seq);
        }
    }

    /// A session acknowledged, or is over.
    pub(super) fn release(&mut self, now: Moment, session: SessionNo, no: OpNo) {
        self.note_last(now, session, no, None);
        if self.ops.get_mut(&no).is_some_and(|op| op.waits.remove(&session)) {
            self.note_wait(now, session, no);
        }
        self.commit_if_drained(now, no);
    }

    pub(super) fn commit_if_drained(&mut self, now: Moment, no: OpNo) {
        let (grace, all_wait) = (self.in_grace(now), self.boot.all_wait);
        let Some(op) = self.ops.get_mut(&no) else { return };
        let waits = !op.waits.is_empty() || grace && (op.drains || all_wait);
        match op.stage {
            Stage::Draining if op.asynchronous || !waits => {
                op.stage = Stage::Committing;
                if op.drains && !op.asynchronous {
                    self.waits.drains.note_time(now.since(op.marked_at));
                }
                let job = op.job.take().expect("an op commits once");
                self.actions.push(Action::Commit(no, job));
            }
            Stage::Settling if !waits => self.end_settling(now, no),
            _ => {}
        }
    }

    /// The committer is done with an op, and what it did is durable and visible as of `head`. In this one
    /// step the holders' bits go, the requester is registered, the names are free again (rules 8, 23).
    ///
    /// `Err`: nothing was done, and the same request may come again.
    pub fn finish(&mut self, now: Moment, no: OpNo, result: &Result<Outcome>, head: Revision) {
        self.finish_with(now, no, result, head, (None, false));
    }

    /// As [`Self::finish`], of a change that was made and says itself for which of its names that makes void what was
    /// held of them, or believed to be absent. A name that only lives longer is none: its holders go on, and must be told
    /// of the next change (rule 9).
    pub fn finish_changed(&mut self, now: Moment, no: OpNo, outcome: Outcome, head: Revision, void: &[Name]) {
        self.finish_with(now, no, &Ok(outcome), head, (Some(void), false));
    }

    /// `told` are the names that became void, if the committer says so; `swept`: names under a prefix were unbound,
    /// which the outcome need not count, as if their time was over.
    pub(super) fn finish_with(
        &mut self,
        now: Moment,
        no: OpNo,
        result: &Result<Outcome>,
        head: Revision,
        (told, swept): (Option<&[Name]>, bool),
    ) {
        self.expire(now);
        let Some(mut op) = self.ops.remove(&no) else { return };
        self.head = self.head.max(head);
        if result.is_ok() {
            self.note_drain(now, &op, head);
        }
        self.finished += 1;
        self.waits.changes.note_time(now.since(op.marked_at));
        let stored = matches!(result, Ok(Outcome::Set(SetOutcome::Stored(_))));
        let copied = matches!(result, Ok(Outcome::Copy(c) | Outcome::Rename(c)) if c.is_fresh());
        let spared: HashSet<&Name> = op.spared.iter().collect();
        let void: HashSet<&Name> = told.into_iter().flatten().collect();
        for name in &op.names {
            let bound = if spared.contains(name) { copied } else { stored };
            let drained = op.drains && result.is_ok() && !spared.contains(name);
            if drained || void.contains(name) || told.is_none() && bound {
                self.holders.clear(name);
            }
        }
        let cacheable =
            op.caller.filter(|_| stored).and_then(|caller| self.register_own(now, caller, &op.names));
        match result {
            Ok(outcome) if outcome.needs_blob() => self.requests.not_done(op.id),
            Err(_) => self.requests.not_done(op.id),
            Ok(outcome) => self.requests.finish(op.id, outcome.clone()),
        }
        let effect = swept
            || !void.is_empty()
            || match result {
                Ok(Outcome::Delete(done)) => done.removed.contains(&true),
                Ok(Outcome::DeletePrefix(done)) => done.removed > 0,
                // Also over a name of the same blob, which stays as it was: the first name is unbound.
                Ok(Outcome::Copy(done) | Outcome::Rename(done)) => matches!(done.result, CopyResult::Done(_)),
                Ok(Outcome::Set(_)) => stored,
                Ok(Outcome::Transaction(_) | Outcome::Namespace(_)) | Err(_) => false,
            };
        if op.drains && effect {
            let voided =
                told.filter(|void| !void.is_empty()).map_or_else(|| op.names.clone(), <[Name]>::to_vec);
            self.log.push(now, head, voided, op.prefix.clone());
        }
        if let Ok(outcome) = result
            && op.asynchronous
            && (!op.waits.is_empty() || self.in_grace(now))
        {
            let early = op.responders.extract_if(.., |waiting| waiting.early).collect();
            self.settle(now, no, op, outcome);
            let stale = Some(self.stale_bound(now, now));
            return self.answer_all(no, early, result, (None, stale));
        }
        let responders = std::mem::take(&mut op.responders);
        self.answer_all(no, responders, result, (cacheable, None));
        self.pass_on(now, no, &op.names);
        self.pass_prefixes(now, no, &op);
    }

    /// The committer would not do an op: it would change what holders may serve who were not waited for. They are,
    /// now; its names stay busy all the while, and nobody has come to hold them since they were marked (rules 6, 7).
    pub fn drain_first(&mut self, now: Moment, no: OpNo, job: J) {
        self.expire(now);
        let head = self.head;
        let Some(op) = self.ops.get_mut(&no).filter(|op| op.stage == Stage::Committing) else { return };
        (op.stage, op.marked_at, op.upto) = (Stage::Draining, now, head);
        (op.drains, op.spared, op.job) = (true, Vec::new(), Some(job));
        if self.absences_kept {
            // Of the first wait, which a term may have ended: what is acknowledged of it now says nothing of the second.
            self.absences.retain(|(_, other, _)| *other != no);
            self.by_no.values_mut().for_each(|session| session.owed.retain(|_, other| *other != no));
        }
        self.fan_out(now, no);
        self.commit_if_drained(now, no);
    }

    /// Registers who SET a name as its holder (rule 23).
    fn register_own(&mut self, now: Moment, caller: Caller, names: &[Name]) -> Option<Epoch> {
        let name = names.first()?;
        if self.in_grace(now) || self.retiring {
            return None;
        }
        let session = self.live(caller.epoch).filter(|no| !self.is_slow(now, *no))?;
        // A full index makes the session a wildcard, which is a holder too.
        if let Some(generation) = self.register(session, name, caller.reg_seq) {
            self.holders.rely(name, session, generation);
        }
        Some(caller.epoch)
    }

    /// The outcome may be shared; only the first responder asked to cache.
    pub(super) fn answer_all(
        &mut self,
        no: OpNo,
        responders: Vec<Waiting<R>>,
        result: &Result<Outcome>,
        (mut cacheable, stale): (Option<Epoch>, Option<Duration>),
    ) {
        for Waiting { to, until, .. } in responders {
            if let Some(until) = until {
                self.deadlines.remove(&(until, no));
            }
            let answer =
                result.clone().map(|outcome| Answered { outcome, cacheable: cacheable.take(), stale });
            self.actions.push(Action::Answer(to, answer));
        }
    }

    /// Gives the names to whoever is next.
    pub(super) fn pass_on(&mut self, now: Moment, no: OpNo, names: &[Name]) {
        self.names_wanted -= names.len().max(1);
        let mut next = BTreeSet::new();
        for name in names {
            let Some(queue) = self.queues.get_mut(name) else { continue };
            debug_assert_eq!(queue.front(), Some(&no), "an op finishes as first of its queues");
            queue.pop_front();
            match queue.front() {
                Some(op) => _ = next.insert(*op),
                None => _ = self.queues.remove(name),
            }
            if let Some(op) =
                self.queues.get(name).and_then(|q| q.front()).and_then(|no| self.ops.get_mut(no))
            {
                op.blocked -= 1;
            }
        }
        for op in next {
            self.start_if_free(now, op);
        }
    }

    /// The journal failed under an op: its outcome is unknown, and its names stay busy until the process
    /// ends, so that nobody caches what a restart may show otherwise.
    pub fn fail(&mut self, no: OpNo, error: &Error) {
        if let Some(op) = self.ops.get_mut(&no) {
            op.failed = Some(error.clone());
            let responders = std::mem::take(&mut op.responders);
            self.answer_all(no, responders, &Err(error.clone()), (None, None));
        }
    }
}
