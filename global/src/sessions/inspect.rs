//! What the machine believes, for metrics and for the checks of a simulation.

use super::{OpNo, SessionNo, Sessions, lengthened};
use dstore_shared::{Incarnation, LocalId, Moment, Name};
use std::time::Duration;

impl<J, R> Sessions<J, R> {
    /// Until when one life of a Local is waited for, if it has or had a session that has not run out. Looks
    /// at every session.
    pub fn lease_end(&self, local_id: LocalId, incarnation: Incarnation) -> Option<Moment> {
        let lives = self.by_no.values();
        let same = lives.filter(|s| s.local_id == local_id && s.incarnation == incarnation);
        same.map(|s| s.lease_end).max()
    }

    /// Whether a change of `name` that is marked now would wait for one life of a Local. Looks at every
    /// session.
    pub fn would_wait_for(&self, local_id: LocalId, incarnation: Incarnation, name: &Name) -> bool {
        let lives = self.by_no.iter();
        let mut same = lives.filter(|(_, s)| s.local_id == local_id && s.incarnation == incarnation);
        let registered = |no| self.holders.of(name).iter().any(|h| h.session == no);
        same.any(|(no, _)| self.wildcards.contains(no) || registered(*no))
    }

    /// How long the drain that runs longest has been running. Looks at every op.
    pub fn longest_drain(&self, now: Moment) -> Duration {
        let draining = self.ops.values().filter(|op| op.is_draining());
        draining.map(|op| now.since(op.marked_at)).max().unwrap_or_default()
    }

    /// How many Locals register nothing now, because they kept a change waiting.
    pub fn slow(&self, now: Moment) -> usize {
        self.slow.count(now)
    }

    /// The longest that a drain may run: A + D(1+ρ), for the longest D granted, or the grace.
    pub fn drain_max(&self) -> Duration {
        let lease = self.lease_granted.max(self.terms.lease);
        let of_a_lease = self.terms.ack_max_at(lease) + lengthened(lease);
        of_a_lease.max(self.boot.grace)
    }

    /// What is kept beyond its bound, or for something that is gone; nothing if all is well. Looks at everything.
    pub fn leaks(&self) -> Vec<String> {
        let terms = &self.terms;
        let bounded = [
            ("sessions", self.by_no.len(), terms.sessions_max),
            ("registrations", self.holders.registrations(), terms.holdings_max),
            ("ops", self.ops.len(), terms.ops_max),
            ("names wanted", self.names_wanted, terms.names_max),
            ("outcomes", self.requests.len(), terms.outcomes_max),
            ("bytes of outcomes", self.requests.weight(), terms.outcome_bytes_max),
            ("revisions of the log", self.log.len(), terms.log.revisions_max),
            ("slow locals", self.slow.len(), terms.sessions_max),
        ];
        let over = bounded.into_iter().filter(|(_, is, max)| is > max);
        let over = over.map(|(what, is, max)| format!("`{is}` {what}, at most `{max}`"));
        let stray = self.strays().into_iter().filter(|(_, strays)| *strays > 0);
        over.chain(stray.map(|(what, strays)| format!("`{strays}` {what}"))).collect()
    }

    /// How much of each kind belongs to a session or op that is gone.
    fn strays(&self) -> [(&'static str, usize); 8] {
        let no_session = |no: &SessionNo| !self.by_no.contains_key(no);
        let no_op = |no: &OpNo| !self.ops.contains_key(no);
        let queued: usize = self.queues.values().map(|queue| queue.len().max(1)).sum();
        let wanted: usize = self.ops.values().map(|op| op.names.len()).sum();
        let counted: usize = self.ops.values().map(|op| op.names.len().max(1)).sum();
        let unwaited = |(_, no): &&(Moment, SessionNo)| no_session(no);
        [
            ("wildcards of no session", self.wildcards.iter().filter(|no| no_session(no)).count()),
            ("streams of no session", self.by_stream.values().filter(|no| no_session(no)).count()),
            ("epochs of no session", self.by_epoch.values().filter(|no| no_session(no)).count()),
            ("lease ends of no session", self.lease_ends.iter().filter(unwaited).count()),
            ("places in queues of no op", queued.abs_diff(wanted)),
            ("names counted for no op", self.names_wanted.abs_diff(counted)),
            ("deadlines of no op", self.deadlines.iter().filter(|(_, no)| no_op(no)).count()),
            ("settling requests of no op", self.settling.values().filter(|no| no_op(no)).count()),
        ]
    }
}
