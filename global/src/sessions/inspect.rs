//! What the machine believes, for metrics and for the checks of a simulation.

use super::{Sessions, lengthened};
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
}
