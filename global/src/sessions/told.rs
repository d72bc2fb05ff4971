//! What a person is told of sessions and drains: who is attached, who holds a name, who made a change wait.
//!
//! Nothing here decides anything; the memory of drains is bounded and forgets the oldest.

use super::{OpNo, SessionNo, Sessions};
use dstore_shared::{Moment, Name, Prefix, Revision};
use std::collections::{HashSet, VecDeque};
use std::time::Duration;

/// Drains remembered.
const DRAINS_MAX: usize = 256;
/// Locals of one drain that are told.
const WAITED_FOR_MAX: usize = 100;
/// Names of one drain remembered.
const NAMES_MAX: usize = 64;

/// A change that had to wait for Locals, and was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Drain {
    names: Vec<Name>,
    prefix: Option<Prefix>,
    /// The head when it was made; 0 = it is waiting yet.
    pub revision: Revision,
    /// When it had waited; of one that is waiting, since when.
    pub at: Moment,
    /// How long it waited.
    pub waited: Duration,
    /// Whom it waited for to the last.
    pub for_whom: Vec<String>,
}

impl Drain {
    fn concerns(&self, name: &Name) -> bool {
        self.names.contains(name) || self.prefix.as_ref().is_some_and(|prefix| prefix.covers(name))
    }
}

/// The newest drains that had to wait.
#[derive(Clone, Debug, Default)]
pub(super) struct Drains(VecDeque<Drain>);

impl Drains {
    fn note(&mut self, drain: Drain) {
        if self.0.len() >= DRAINS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(drain);
    }
}

/// A session, as it is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Which Local.
    pub local: u128,
    /// What it calls itself.
    pub label: String,
    /// Until when its lease runs.
    pub lease_end: Moment,
    /// INVs that it was sent and has not acknowledged.
    pub behind: u64,
    /// It is told of everything.
    pub wildcard: bool,
    /// It registers nothing now.
    pub slow: bool,
    /// Whether it may hold the name that was asked about.
    pub holds: Option<bool>,
}

impl<J, R> Sessions<J, R> {
    /// All sessions, and whether each may hold `name`. Looks at every session.
    pub fn standings(&self, now: Moment, name: Option<&Name>) -> Vec<Standing> {
        let holders: HashSet<SessionNo> = name
            .map(|name| self.holders.of(name).iter().map(|holding| holding.session).collect())
            .unwrap_or_default();
        let told = |(no, session): (&SessionNo, &super::session::Session)| {
            let wildcard = self.wildcards.contains(no);
            Standing {
                local: session.local_id.0,
                label: session.label.clone(),
                lease_end: session.lease_end,
                behind: session.seq.saturating_sub(session.acked),
                wildcard,
                slow: now < session.slow_until,
                holds: name.map(|_| wildcard || holders.contains(no)),
            }
        };
        self.by_no.iter().map(told).collect()
    }

    /// The change of `name` that is waiting for Locals now, else the newest that had to.
    pub fn drain_of(&self, name: &Name) -> Option<Drain> {
        let first = self
            .queues
            .get(name)
            .and_then(|queue| queue.front())
            .and_then(|no| Some((no, self.ops.get(no)?)));
        if let Some((no, op)) = first.filter(|(_, op)| op.is_draining() && !op.waits.is_empty()) {
            return Some(Drain {
                names: Vec::new(),
                prefix: None,
                revision: Revision(0),
                at: op.marked_at,
                waited: Duration::ZERO,
                for_whom: self.waited_for(*no).into_iter().take(WAITED_FOR_MAX).collect(),
            });
        }
        self.drains.0.iter().rev().find(|drain| drain.concerns(name)).cloned()
    }

    /// The op is about to wait for `session` no more: if it was the last, that is remembered. `label`: of a session that
    /// is over.
    pub(super) fn note_last(&mut self, now: Moment, session: SessionNo, no: OpNo, label: Option<&str>) {
        let is_last = |op: &super::ops::Op<J, R>| op.waits.len() == 1 && op.waits.contains(&session);
        if !self.ops.get(&no).is_some_and(is_last) {
            return;
        }
        let here = self.by_no.get(&session).map(|session| session.label.clone());
        let label = here.or_else(|| label.map(|label| format!("{label} (its lease ran out)")));
        if let (Some(op), Some(label)) = (self.ops.get_mut(&no), label) {
            op.waited = Some((now.since(op.marked_at), vec![label]));
        }
    }

    /// A change was made as of `head`; if it had waited, that is remembered.
    pub(super) fn note_drain(&mut self, now: Moment, op: &super::ops::Op<J, R>, head: Revision) {
        let Some((waited, for_whom)) = op.waited.clone() else { return };
        let names = op.names.iter().take(NAMES_MAX).cloned().collect();
        self.drains.note(Drain {
            names,
            prefix: op.prefix.clone(),
            revision: head,
            at: now,
            waited,
            for_whom,
        });
    }
}
