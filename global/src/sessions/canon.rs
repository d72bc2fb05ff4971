//! The machine written down for a model checker: all by which it decides, and nothing that only counts.
//!
//! Left out is what follows from the rest (queues, indexes by stream or epoch, the order in which leases end), what is
//! only told (labels, counters), and registrations of sessions that are over.

use super::ops::{Op, Stage};
use super::session::Session;
use super::{Mark, Registration, SessionNo, Sessions, StreamId};
use dstore_shared::canon::{Canon, Canonical, Sort};
use dstore_shared::{Epoch, Moment};
use std::time::Duration;

impl<J, R: Canonical> Sessions<J, R> {
    /// Writes the machine down. To be called between events, when every action was taken.
    pub fn canon(&self, now: Moment, into: &mut Canon) {
        debug_assert!(self.actions.is_empty(), "an action was left behind");
        into.put(self.boot.number);
        into.put(self.head.0);
        into.left(self.grace_end, now);
        into.put(self.retiring);
        into.put(self.absences_kept);
        for lease in [self.lease_allowed, self.lease_granted, self.boot.grace] {
            into.put(lease.as_nanos() as u64);
        }
        let mut sessions: Vec<(&SessionNo, &Session)> = self.by_no.iter().collect();
        sessions.sort_unstable_by_key(|(_, session)| (session.local_id, session.incarnation));
        into.count(sessions.len());
        for (no, session) in sessions {
            self.canon_session(now, *no, session, into);
        }
        self.canon_holders(now, into);
        let marks: Vec<Moment> = self.ops.values().map(|op| op.marked_at).collect();
        into.count(self.ops.len());
        for (no, op) in &self.ops {
            into.named(Sort::Op, no.0);
            self.canon_op(now, op, into);
        }
        into.count(self.absences.len());
        for (at, no, session) in &self.absences {
            into.left(*at, now);
            into.named(Sort::Op, no.0);
            into.named(Sort::Session, session.0);
        }
        self.requests.canon(into);
        self.log.canon(into);
        self.slow.canon(now, &marks, into);
    }

    fn canon_session(&self, now: Moment, no: SessionNo, session: &Session, into: &mut Canon) {
        into.named(Sort::Session, no.0);
        into.put(session.local_id.0 as u64);
        into.put(session.incarnation.0);
        into.epoch(self.epoch(session.epoch));
        into.maybe(session.stream, |into, stream| into.named(Sort::Stream, stream.0));
        into.left(session.lease_end, now);
        into.put(session.seq);
        into.put(session.acked);
        into.count(session.owed.len());
        for (seq, op) in &session.owed {
            into.put(*seq);
            into.named(Sort::Op, op.0);
        }
        let Session { fenced, overflowed, refused, bare, resumed, shedding, negatives, keep_waiting, .. } =
            session;
        let wild = self.wildcards.contains(&no);
        for flag in [*fenced, *overflowed, *refused, *bare, *resumed, *shedding, *negatives, wild] {
            into.put(flag);
        }
        into.maybe(session.collapsed.as_ref(), |into, collapsed| {
            into.put(collapsed.seq);
            into.put(collapsed.missed);
        });
        into.left(session.slow_until, now);
        let keeps = Sort::keeps(session.local_id, session.incarnation);
        into.maybe(*keep_waiting, |into, n| into.ranked(keeps, n));
    }

    /// The KEEP of a stream that is answered as soon as an ack is there.
    pub fn keep_waiting(&self, stream: StreamId) -> Option<u64> {
        let no = self.by_stream.get(&stream)?;
        self.by_no.get(no)?.keep_waiting
    }

    fn canon_holders(&self, now: Moment, into: &mut Canon) {
        let live = |no: &SessionNo| self.by_no.get(no);
        let mut held: Vec<_> =
            self.holders.all().filter_map(|(name, held)| Some((name, live(&held.session)?, held))).collect();
        held.sort_unstable_by_key(|(name, session, _)| (*name, session.local_id, session.incarnation));
        into.count(held.len());
        for (name, session, held) in held {
            name.canon(into);
            into.named(Sort::Session, held.session.0);
            into.ranked(Sort::registrations(session.local_id, session.incarnation), held.reg_seq.0);
            into.named(Sort::Generation, held.generation);
            into.put(held.relied_on);
            into.left(held.absent_until, now);
        }
    }

    /// Its age counts up to the moment at which an ack is overdue, and past it.
    fn canon_op(&self, now: Moment, op: &Op<J, R>, into: &mut Canon) {
        into.put(match op.stage {
            Stage::Queued => 0u8,
            Stage::Draining => 1,
            Stage::Committing => 2,
            Stage::Settling => 3,
        });
        into.count(op.names.len());
        op.names.iter().for_each(|name| name.canon(into));
        into.maybe(op.prefix.as_ref(), |into, prefix| into.bytes(prefix.as_bytes()));
        into.bytes(&op.id.client.0.to_le_bytes());
        into.put(op.id.n);
        into.count(op.responders.len());
        for waiting in &op.responders {
            waiting.to.canon(into);
            into.maybe(waiting.until, |into, until| into.left(until, now));
            into.put(waiting.early);
        }
        // Whose session is over can be registered no more.
        let asks = op.caller.and_then(|caller| Some((self.by_no.get(&self.live(caller.epoch)?)?, caller)));
        into.maybe(asks, |into, (session, caller)| {
            into.epoch(caller.epoch);
            into.ranked(Sort::registrations(session.local_id, session.incarnation), caller.reg_seq.0);
        });
        into.put(op.drains);
        into.put(op.asynchronous);
        into.count(op.spared.len());
        op.spared.iter().for_each(|name| name.canon(into));
        op.settled.canon(into);
        let age = now.since(op.marked_at).min(self.terms.ack_max + Duration::from_nanos(1));
        into.put(age.as_nanos() as u64);
        into.put(op.upto.0);
        let mut waits: Vec<_> =
            op.waits.iter().map(|no| (self.by_no.get(no).map(|s| (s.local_id, s.incarnation)), no)).collect();
        waits.sort_unstable();
        into.count(waits.len());
        waits.into_iter().for_each(|(_, no)| into.named(Sort::Session, no.0));
        into.put(op.failed.is_some());
    }
}

impl Registration {
    /// Writes it down; it is of boot `boot`.
    pub fn canon(&self, boot: u64, into: &mut Canon) {
        into.named(Sort::Session, self.session.0);
        into.epoch(Epoch { boot, counter: self.epoch, ..Epoch::default() });
        match self.mark {
            Mark::Indexed(generation) => into.named(Sort::Generation, generation),
            Mark::Wild { finished } => into.named(Sort::Finished, finished),
        }
        into.named(Sort::Finished, self.prefixes);
    }
}
