//! When a change is answered before or after it is drained, and who is waited for because of what is absent
//! (rules 27, 28).
//!
//! ```text
//! deadline  attempt -> waits for its op -> out of time: answered as pending, naming who is waited for; the op goes on
//! async     mark, INVs, commit -> visible: answered, settling -> drained: the names are free
//! absence   a SET waits for sessions that may serve "not found": for their ack, at most for the term
//! ```
//! Invariants: the names of an op that settles are busy; an attempt that did not ask to be answered early is
//! answered only when nobody can serve the old value.

use super::ops::{Op, Stage, Waiting};
use super::{Action, Answered, OpNo, SessionNo, Sessions};
use dstore_shared::{DeleteMode, Error, Kind, Moment, Name, Outcome, RequestId};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

/// Locals that a pending answer names; of the others it tells the number.
const NAMED_MAX: usize = 5;

impl<J, R> Sessions<J, R> {
    /// One more attempt waits for an op, as long as its mode says.
    pub(super) fn join(&mut self, now: Moment, no: OpNo, mode: DeleteMode, to: R) {
        let op = self.ops.get_mut(&no).expect("a request that runs or settles has an op");
        if let Err(e) = op.joined() {
            return self.actions.push(Action::Answer(to, Err(e)));
        }
        let until = mode.deadline().map(|limit| now + limit);
        op.responders.push(Waiting { to, until, early: mode == DeleteMode::Async });
        self.deadlines.extend(until.map(|until| (until, no)));
    }

    /// Answers an attempt of a change that was made before. One that is to be as good as drained waits for that.
    pub(super) fn answer_again(
        &mut self,
        now: Moment,
        id: RequestId,
        outcome: Outcome,
        mode: DeleteMode,
        to: R,
    ) {
        let settling = self.settling.get(&(id.client, id.n)).copied();
        let stale = match (settling, mode) {
            (Some(op), DeleteMode::Async) => {
                Some(self.ops.get(&op).map_or(now, |op| op.marked_at)).map(|at| self.stale_bound(now, at))
            }
            (Some(op), _) => return self.join(now, op, mode, to),
            // Of a boot before: leases of then may still run.
            (None, DeleteMode::Async) if self.in_grace(now) => Some(self.grace_left(now)),
            (None, _) => None,
        };
        self.actions.push(Action::Answer(to, Ok(Answered { outcome, cacheable: None, stale })));
    }

    /// For how long from `now` others may serve what an asynchronous DEL, visible since `visible`, has removed.
    pub(super) fn stale_bound(&self, now: Moment, visible: Moment) -> Duration {
        (visible + self.drain_max()).since(now).max(self.grace_left(now))
    }

    /// An asynchronous DEL is visible: its names stay busy until it is drained, and its age counts from now.
    pub(super) fn settle(&mut self, now: Moment, no: OpNo, mut op: Op<J, R>, outcome: &Outcome) {
        (op.stage, op.marked_at, op.settled) = (Stage::Settling, now, Some(outcome.clone()));
        self.settling.insert((op.id.client, op.id.n), no);
        self.ops.insert(no, op);
    }

    /// Nobody can serve any more what an asynchronous DEL has removed.
    pub(super) fn end_settling(&mut self, now: Moment, no: OpNo) {
        let Some(mut op) = self.ops.remove(&no) else { return };
        self.settling.remove(&(op.id.client, op.id.n));
        if let Some(outcome) = op.settled.take() {
            self.answer_all(no, std::mem::take(&mut op.responders), &Ok(outcome), (None, None));
        }
        self.pass_on(now, no, &op.names);
        self.pass_prefixes(now, no, &op);
    }

    /// Answers attempts that are out of time.
    pub(super) fn end_deadlines(&mut self, now: Moment) {
        while let Some(&(at, no)) = self.deadlines.first()
            && at <= now
        {
            self.deadlines.pop_first();
            let Some(op) = self.ops.get_mut(&no) else { continue };
            let out_of_time = |waiting: &mut Waiting<R>| waiting.until.is_some_and(|until| until <= now);
            let late: Vec<Waiting<R>> = op.responders.extract_if(.., out_of_time).collect();
            let error = self.pending(now, no);
            for Waiting { to, .. } in late {
                self.actions.push(Action::Answer(to, Err(error.clone())));
            }
        }
    }

    fn pending(&self, now: Moment, no: OpNo) -> Error {
        let mut text = format!("waiting for {}", self.obstacles(now, no));
        let settles = self.ops.get(&no).is_some_and(|op| op.stage == Stage::Settling);
        let how = if settles {
            "durable, but the old value may still be read there"
        } else {
            "not durable yet, it goes on"
        };
        write!(text, ": {how}; ask again with the same request id").expect("a string takes what is written");
        Error::new(Kind::Pending, text)
    }

    /// What an op is waiting for, in words.
    fn obstacles(&self, now: Moment, no: OpNo) -> String {
        let Some(op) = self.ops.get(&no) else { return "its end".into() };
        // Who holds up an op that queues is who holds up those before it.
        let ahead: BTreeSet<OpNo> = match op.stage {
            Stage::Queued => {
                op.names.iter().filter_map(|name| self.queues.get(name)?.front().copied()).collect()
            }
            _ => BTreeSet::from([no]),
        };
        let labels: BTreeSet<String> = ahead.iter().flat_map(|op| self.waited_for(*op)).collect();
        let mut text = String::new();
        for label in labels.iter().take(NAMED_MAX) {
            let comma = if text.is_empty() { "" } else { ", " };
            write!(text, "{comma}`{label}`").expect("a string takes what is written");
        }
        match labels.len() {
            0 if self.in_grace(now) => "leases of before the restart of global".into(),
            0 if op.stage == Stage::Queued => "an earlier change of the key".into(),
            0 => "the disk of global".into(),
            n if n > NAMED_MAX => format!("{text} and {} more", n - NAMED_MAX),
            _ => text,
        }
    }

    /// Tells those who may serve that a name is absent, before it is bound (rule 28).
    pub(super) fn fan_out_presence(&mut self, now: Moment, no: OpNo) {
        if !self.absences_kept {
            return;
        }
        let Op { names, spared, upto, .. } = &self.ops[&no];
        // Of a COPY only the second name is bound.
        let (names, upto) = (if spared.is_empty() { names } else { spared }.clone(), *upto);
        let mut last: BTreeMap<SessionNo, (u64, Option<Moment>)> = BTreeMap::new();
        for name in names {
            for (session, until) in self.serving_absence(now, &name) {
                let seq = self.invalidate_one(session, name.clone(), upto);
                let latest = last.get(&session).map_or(until, |(_, before)| Some((*before)?.max(until?)));
                last.insert(session, (seq, latest));
            }
        }
        for (session, (seq, until)) in last {
            self.wait_for(session, no, seq);
            self.absences.extend(until.map(|until| (until, no, session)));
        }
    }

    /// Who may serve that `name` is absent, and until when; `None` = to the end of its lease.
    pub(super) fn serving_absence(&self, now: Moment, name: &Name) -> BTreeMap<SessionNo, Option<Moment>> {
        let held = self.holders.of(name).iter().filter(|h| h.absent_until > now);
        // A dead session's bits are void and swept later.
        let held = held.filter(|h| self.by_no.contains_key(&h.session));
        let mut serving: BTreeMap<_, _> = held.map(|h| (h.session, Some(h.absent_until))).collect();
        let keeps = |no: &&SessionNo| self.by_no.get(no).is_some_and(|s| s.negatives);
        serving.extend(self.wildcards.iter().filter(keeps).map(|no| (*no, None)));
        serving
    }

    /// Waits no longer for those whose "not found" answers have run out.
    pub(super) fn end_absences(&mut self, now: Moment) {
        while let Some(&(at, no, session)) = self.absences.first()
            && at <= now
        {
            self.absences.pop_first();
            self.release(now, session, no);
        }
    }
}
