//! Changes of every name under a prefix: who waits for whom, and who is told (rules 5 to 9).
//!
//! A prefix wants every name under it, existing or not. Between it and another op that wants any of these, the later
//! one waits for the earlier: so there is no circle. It is kept beside the queues of single names, and as long as there
//! is no such op nobody pays for it.
//!
//! Who holds names under a prefix is not looked for: every session is told, and waited for.

use super::ops::Op;
use super::{OpNo, SessionNo, Sessions, Submission};
use dstore_shared::frame::Down;
use dstore_shared::{Error, Moment, Name, Outcome, Prefix, Result, Revision};
use std::collections::BTreeMap;

/// Ops by prefix at a time: each looks at all others, and all others at it.
const PREFIXES_MAX: usize = 64;

/// The ops by prefix that are queued, draining or committing.
#[derive(Clone, Debug, Default)]
pub(super) struct Prefixes {
    ops: BTreeMap<OpNo, Prefix>,
    /// How many have finished: a read that began before the last of them is not to be cached.
    pub finished: u64,
}

impl Prefixes {
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// The ops that cover one of `names`.
    fn over(&self, names: &[Name]) -> impl Iterator<Item = OpNo> {
        self.ops.iter().filter(|(_, prefix)| names.iter().any(|name| prefix.covers(name))).map(|(no, _)| *no)
    }
}

impl<J, R> Op<J, R> {
    /// Whether a name can be wanted by this op and by one of `prefix`.
    fn meets(&self, prefix: &Prefix) -> bool {
        match &self.prefix {
            Some(own) => own.overlaps(prefix),
            None => self.names.iter().any(|name| prefix.covers(name)),
        }
    }
}

impl<J, R> Sessions<J, R> {
    /// Takes a change of every name under `prefix`; `change` names none. Answered as by [`Sessions::submit`].
    pub fn submit_prefix(&mut self, now: Moment, prefix: Prefix, change: Submission<J, R>) {
        self.submit_wanting(now, change, Some(prefix));
    }

    /// How many earlier ops keep one that wants `names` and `prefix` from starting, the queues of names apart.
    pub(super) fn blocked_by(&self, names: &[Name], prefix: Option<&Prefix>) -> usize {
        match prefix {
            Some(prefix) => self.ops.values().filter(|op| op.meets(prefix)).count(),
            None if self.prefixes.is_empty() => 0,
            None => self.prefixes.over(names).count(),
        }
    }

    /// # Errors
    /// `Exhausted` if there are as many as there may be.
    pub(super) fn room_for_prefix(&self) -> Result<()> {
        if self.prefixes.ops.len() < PREFIXES_MAX {
            return Ok(());
        }
        let text = format!("`{PREFIXES_MAX}` deletes by prefix are waiting already: try again later");
        Err(Error::exhausted(text).retry_after(self.terms.ack_max))
    }

    pub(super) fn enter_prefix(&mut self, no: OpNo, prefix: Prefix) {
        self.prefixes.ops.insert(no, prefix);
    }

    /// Whether `name` is under a prefix that is busy (rule 7).
    pub(super) fn is_under_busy_prefix(&self, name: &Name) -> bool {
        !self.prefixes.is_empty()
            && self
                .prefixes
                .over(std::slice::from_ref(name))
                .any(|no| self.ops.get(&no).is_some_and(Op::is_marked))
    }

    /// Tells every session, and waits for it.
    pub(super) fn fan_out_prefix(&mut self, no: OpNo, prefix: &Prefix, upto: Revision) {
        let all: Vec<SessionNo> = self.by_no.keys().copied().collect();
        for session in all {
            let seq = self.invalidate_prefix(session, prefix.clone(), upto);
            self.wait_for(session, no, seq);
        }
    }

    /// Queues the INV of a prefix; gives its `seq`. As for one of a name.
    pub(super) fn invalidate_prefix(&mut self, no: SessionNo, prefix: Prefix, upto: Revision) -> u64 {
        let Some(session) = self.by_no.get_mut(&no) else { return 0 };
        session.seq += 1;
        let seq = session.seq;
        self.send(no, |epoch| Down::InvPrefix { epoch, seq, prefix, upto });
        seq
    }

    /// As [`Sessions::finish`], of a change of every name under a prefix that was made: it unbound `gone`, whose
    /// holders' bits go in this step (rule 8).
    pub fn finish_prefix(&mut self, now: Moment, no: OpNo, outcome: Outcome, head: Revision, gone: &[Name]) {
        gone.iter().for_each(|name| self.holders.clear(name));
        self.finish_with(now, no, &Ok(outcome), head, (None, !gone.is_empty()));
    }

    /// An op has finished: those that came later and waited for it, because one of the two is of a prefix, go on.
    pub(super) fn pass_prefixes(&mut self, now: Moment, no: OpNo, done: &Op<J, R>) {
        let waited: Vec<OpNo> = match &done.prefix {
            None if self.prefixes.is_empty() => return,
            None => self.prefixes.over(&done.names).filter(|later| *later > no).collect(),
            Some(prefix) => {
                self.prefixes.ops.remove(&no);
                self.prefixes.finished += 1;
                let later = self.ops.range(no..);
                later.filter(|(_, op)| op.meets(prefix)).map(|(later, _)| *later).collect()
            }
        };
        for later in waited {
            if let Some(op) = self.ops.get_mut(&later) {
                op.blocked -= 1;
            }
            self.start_if_free(now, later);
        }
    }
}
