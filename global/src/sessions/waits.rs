//! How long changes waited, and for whom: for people, never for a decision.
//!
//! Pure. Invariant: what is kept does not grow with what happens; of each session two numbers, which go with it.

use super::ops::Op;
use super::session::Session;
use super::{OpNo, SessionNo, Sessions};
use dstore_shared::figures::Tally;
use dstore_shared::{LocalId, Moment};
use std::time::Duration;

/// How long changes took, in microseconds.
#[derive(Clone, Default, Debug)]
pub struct Waits {
    /// From when a change that drains had its names to when every holder had dropped them or was out of time.
    pub drains: Tally,
    /// From when a Local was to drop names to when it said that it had, or its time was over.
    pub holders: Tally,
    /// From when a change had its names to its answer, fsync included.
    pub changes: Tally,
}

/// What changes waited for one Local since its session began.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Waited {
    /// In all.
    pub time: Duration,
    /// So often.
    pub times: u64,
}

/// A Local that changes waited for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Awaited {
    /// What it calls itself.
    pub label: String,
    /// Which it is.
    pub local: LocalId,
    /// How long.
    pub waited: Waited,
}

impl<J, R> Sessions<J, R> {
    /// An op waited for a session until now.
    pub(super) fn note_wait(&mut self, now: Moment, session: SessionNo, op: OpNo) {
        let Some(since) = self.ops.get(&op).and_then(Op::waits_since) else { return };
        let waited = now.since(since);
        self.waits.holders.note_time(waited);
        if let Some(session) = self.by_no.get_mut(&session) {
            session.waited.time += waited;
            session.waited.times += 1;
        }
    }

    /// How long changes took in this boot.
    pub fn waits(&self) -> &Waits {
        &self.waits
    }

    /// The Locals that changes waited for longest in all, at most `most` of them, the longest first. Looks at every
    /// session.
    pub fn most_awaited(&self, most: usize) -> Vec<Awaited> {
        let mut found: Vec<_> =
            self.by_no.values().filter(|session| session.waited.times > 0 && !session.fenced).collect();
        let by_time = |a: &&Session, b: &&super::Session| b.waited.cmp(&a.waited);
        if found.len() > most {
            found.select_nth_unstable_by(most, by_time);
            found.truncate(most);
        }
        found.sort_unstable_by(by_time);
        let told = found.into_iter().map(|session| Awaited {
            label: session.label.clone(),
            local: session.local_id,
            waited: session.waited,
        });
        told.collect()
    }
}
