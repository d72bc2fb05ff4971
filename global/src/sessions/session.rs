//! The life of a session: HELLO, renewal, acknowledgement, SUMMARY, end (rules 11 to 20, 29).

use super::collapse::Collapsed;
use super::log::Missed;
use super::{Action, OpNo, SessionNo, Sessions, StreamId, Waited, lengthened};
use dstore_shared::frame::{Down, Hello, Resumption};
use dstore_shared::{
    Epoch, Error, HistoryId, Incarnation, Kind, LocalId, Moment, Name, RegSeq, Result, Revision,
};
use std::collections::{BTreeMap, HashSet};

/// One incarnation of a Local that holds names or may still serve some.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "answers, not states: each is yes or no by itself")]
pub(super) struct Session {
    pub local_id: LocalId,
    pub incarnation: Incarnation,
    pub label: String,
    /// The counter of its current epoch.
    pub epoch: u64,
    pub stream: Option<StreamId>,
    /// A newer incarnation exists: waited for until `lease_end`, spoken to no more (rule 12).
    pub fenced: bool,
    /// Later than the Local's `valid_until` at every moment (rule 3).
    pub lease_end: Moment,
    /// INVs sent in this epoch.
    pub seq: u64,
    /// INVs acknowledged in this epoch.
    pub acked: u64,
    /// Drains that wait for its ack, by the last INV each sent it.
    pub owed: BTreeMap<u64, OpNo>,
    /// The holder index was full: a wildcard to its end.
    pub overflowed: bool,
    /// A name of the SUMMARY round under way was refused (rule 19).
    pub refused: bool,
    /// It is neither registered for what it held nor a wildcard, since it was told to serve nothing of that; but it
    /// may not have heard it yet.
    pub bare: bool,
    /// What it lists stays servable meanwhile: there is no hurry.
    pub resumed: bool,
    /// Frames are left out until it has acknowledged a RESYNC.
    pub collapsed: Option<Collapsed>,
    /// It has kept changes waiting more than once: when it holds nothing servable, its registrations end.
    pub shedding: bool,
    /// It registers nothing before this.
    pub slow_until: Moment,
    /// It keeps "not found" answers (rule 28).
    pub negatives: bool,
    /// The newest KEEP of its stream that was not answered, since it owes an ack: answered with that.
    pub keep_waiting: Option<u64>,
    /// What changes waited for it.
    pub waited: Waited,
}

impl Session {
    /// Whether `epoch` is its session's and frames of it count.
    pub fn is_current(&self, epoch: u64) -> bool {
        self.epoch == epoch && !self.fenced
    }
}

impl<J, R> Sessions<J, R> {
    /// A Local opens a session on `stream`. Gives the new epoch.
    ///
    /// # Errors
    /// `Denied` if a newer incarnation of the Local has a session; `Unavailable` if Global is stopping;
    /// `Exhausted` if there are too many sessions; `Invalid` if the stream has a session already.
    pub fn hello(&mut self, now: Moment, stream: StreamId, hello: &Hello) -> Result<Epoch> {
        self.expire(now);
        if self.retiring {
            return Err(Error::unavailable("global is stopping: try again").retry_after(self.terms.lease));
        }
        if self.by_stream.contains_key(&stream) {
            return Err(Error::invalid("a second hello on one stream: open another stream"));
        }
        let (no, taken_over) = self.seat(now, hello)?;
        self.next_epoch += 1;
        let epoch = self.epoch(self.next_epoch);
        let session = self.by_no.get_mut(&no).expect("seat gave a session");
        let old_stream = session.stream.replace(stream);
        let old_epoch = std::mem::replace(&mut session.epoch, epoch.counter);
        (session.seq, session.acked, session.refused) = (0, 0, false);
        // HELLO counts as the KEEP 0.
        (session.collapsed, session.keep_waiting) = (None, Some(0));
        // Who keeps changes waiting is given nothing that others would have to wait for again.
        session.bare |= !taken_over && now < session.slow_until;
        let (bare, shedding) = (session.bare, session.shedding);
        session.negatives |= hello.negatives;
        self.absences_kept |= session.negatives;
        let owed = std::mem::take(&mut session.owed);
        self.by_epoch.remove(&old_epoch);
        self.by_epoch.insert(epoch.counter, no);
        self.by_stream.insert(stream, no);
        if let Some(old) = old_stream {
            self.drop_stream(old, "the local opened another session stream");
        }
        let (resumption, missed) = self.resumption(hello, bare);
        if !taken_over && hello.last_epoch.is_some() && !bare {
            // Its registrations were swept or lost with a restart, but it may still hold names (rule 16).
            self.wildcards.insert(no);
        }
        let mut list = self.wildcards.contains(&no);
        if let Some(session) = self.by_no.get_mut(&no) {
            session.resumed = resumption == Resumption::Resume;
            self.resumed += u64::from(session.resumed);
            // Of one that is a wildcard to its end nothing need be listed.
            list &= !session.overflowed;
        }
        let (head, lease, born, loss) = (self.head, self.lease(), self.born(now), self.terms.loss);
        self.send(no, |epoch| Down::Welcome { epoch, head, resumption, lease, born, list, loss });
        for (what, upto) in missed {
            match what {
                Missed::Name(name) => self.invalidate_one(no, name, upto),
                Missed::Prefix(prefix) => self.invalidate_prefix(no, prefix, upto),
            };
        }
        self.repeat_running_drains(no, &owed.into_values().collect());
        if shedding {
            self.resync(no);
        }
        // A Local without a lease to take over owes nothing, so this grants (rules 14, 17).
        self.renew(now, no);
        Ok(epoch)
    }

    /// What the names that a Local holds are worth, and which INVs it missed (rules 14, 31).
    fn resumption(&self, hello: &Hello, bare: bool) -> (Resumption, Vec<(Missed, Revision)>) {
        let unknown = hello.history == HistoryId::default();
        let other = hello.history != self.boot.history && !unknown;
        // Ahead of the newest revision: what it knows is of another line, whatever that is called.
        if other || hello.applied_rev > self.head {
            return (Resumption::NewHistory, Vec::new());
        }
        let held = hello.last_epoch.is_some() && !unknown && !bare;
        let missed = held.then(|| self.log.after(hello.applied_rev, self.terms.replay_max)).flatten();
        match missed {
            Some(missed) => (Resumption::Resume, missed),
            None => (Resumption::Compacted, Vec::new()),
        }
    }

    /// Finds or makes the session of a HELLO; true if it takes over an unexpired one (rules 12, 15, 16).
    fn seat(&mut self, now: Moment, hello: &Hello) -> Result<(SessionNo, bool)> {
        let older = self.by_local.get(&hello.local_id).copied();
        if let Some(no) = older {
            let session = &self.by_no[&no];
            if session.incarnation == hello.incarnation {
                return Ok((no, true));
            }
            if session.incarnation > hello.incarnation {
                return Err(Error::new(
                    Kind::Denied,
                    "a newer process with the same local id has a session: give each local an identity of its own",
                ));
            }
        }
        if self.by_no.len() >= self.terms.sessions_max {
            let n = self.terms.sessions_max;
            return Err(Error::exhausted(format!("there are `{n}` sessions already: try again later"))
                .retry_after(self.terms.lease));
        }
        // Only now: whoever is fenced is followed by another.
        if let Some(older) = older {
            self.fence(older);
        }
        self.next_session += 1;
        let no = SessionNo(self.next_session);
        let session = Session {
            local_id: hello.local_id,
            incarnation: hello.incarnation,
            label: hello.label.chars().take(128).collect(),
            epoch: 0,
            stream: None,
            fenced: false,
            lease_end: Moment::ZERO,
            seq: 0,
            acked: 0,
            owed: BTreeMap::new(),
            overflowed: false,
            refused: false,
            bare: false,
            resumed: false,
            collapsed: None,
            shedding: false,
            slow_until: self.slow.returns(now, hello.local_id),
            negatives: false,
            keep_waiting: None,
            waited: Waited::default(),
        };
        self.by_no.insert(no, session);
        self.by_local.insert(hello.local_id, no);
        Ok((no, false))
    }

    /// Speaks to an older incarnation no more, and goes on waiting for it (rule 12).
    fn fence(&mut self, no: SessionNo) {
        let Some(session) = self.by_no.get_mut(&no) else { return };
        session.fenced = true;
        self.by_epoch.remove(&session.epoch);
        if let Some(stream) = session.stream.take() {
            self.drop_stream(stream, "a newer process with the same local id has a session");
        }
    }

    fn drop_stream(&mut self, stream: StreamId, why: &str) {
        self.by_stream.remove(&stream);
        self.actions.push(Action::Close(stream, Error::closed(why)));
    }

    /// INVs of every name that is busy now, so that none is missed that was marked before this session
    /// could be told (rule 14). Drains that waited for the old session now wait for these (rule 15).
    fn repeat_running_drains(&mut self, no: SessionNo, owed: &HashSet<OpNo>) {
        let running: Vec<OpNo> =
            self.ops.iter().filter(|(_, op)| op.is_marked()).map(|(no, _)| *no).collect();
        for op in running {
            let last = self.invalidate(no, op);
            if owed.contains(&op) {
                self.wait_for(no, op, last);
            }
        }
    }

    /// Queues the INVs of all of an op's names; gives the last `seq`.
    pub(super) fn invalidate(&mut self, no: SessionNo, op: OpNo) -> u64 {
        let (names, prefix, upto) = {
            let op = &self.ops[&op];
            (op.names.clone(), op.prefix.clone(), op.upto)
        };
        if let Some(prefix) = prefix {
            return self.invalidate_prefix(no, prefix, upto);
        }
        names.into_iter().fold(0, |_, name| self.invalidate_one(no, name, upto))
    }

    /// Queues one INV; gives its `seq`. Without a stream it is counted all the same, and repeated by HELLO.
    pub(super) fn invalidate_one(&mut self, no: SessionNo, name: Name, upto: dstore_shared::Revision) -> u64 {
        let Some(session) = self.by_no.get_mut(&no) else { return 0 };
        session.seq += 1;
        let seq = session.seq;
        self.send(no, |epoch| Down::Inv { epoch, seq, name, upto });
        seq
    }

    pub(super) fn wait_for(&mut self, no: SessionNo, op: OpNo, seq: u64) {
        if let (Some(session), Some(running)) = (self.by_no.get_mut(&no), self.ops.get_mut(&op)) {
            session.owed.insert(seq, op);
            running.waits.insert(no);
        }
    }

    pub(super) fn send(&mut self, no: SessionNo, frame: impl FnOnce(Epoch) -> Down) {
        let Some(session) = self.by_no.get(&no).filter(|session| session.collapsed.is_none()) else { return };
        if let Some(stream) = session.stream {
            let frame = frame(self.epoch(session.epoch));
            self.actions.push(Action::Send(stream, frame));
        }
    }

    /// The session whose current stream and epoch these are; any other frame is dropped (rule 13).
    fn speaker(&self, stream: StreamId, epoch: Epoch) -> Option<SessionNo> {
        let no = self.live(epoch)?;
        (self.by_stream.get(&stream) == Some(&no)).then_some(no)
    }

    /// A KEEP: counts its ack, then renews the lease unless an ack is overdue (rule 17).
    pub fn keep(&mut self, now: Moment, stream: StreamId, epoch: Epoch, n: u64, acked: u64) {
        self.expire(now);
        let Some(no) = self.speaker(stream, epoch) else { return };
        if n > 0
            && let Some(session) = self.by_no.get_mut(&no)
        {
            session.keep_waiting = Some(n);
        }
        self.count_ack(now, no, acked);
    }

    /// Answers the newest KEEP, if there is one and it may be answered: extends the lease, before the frame that says so
    /// is queued (rule 3).
    fn renew(&mut self, now: Moment, no: SessionNo) {
        let Some(session) = self.by_no.get(&no) else { return };
        let Some(n) = session.keep_waiting else { return };
        let oldest = session.owed.values().filter_map(|op| self.ops.get(op)?.waits_since()).min();
        let overdue = oldest.is_some_and(|mark| now.since(mark) >= self.ack_max());
        // A LEASE must not overtake an INV that was left out.
        if overdue || self.retiring || session.collapsed.is_some() {
            return;
        }
        let lease = self.lease();
        self.lease_granted = self.lease_granted.max(lease);
        let end = session.lease_end.max(now + lengthened(lease));
        self.lease_ends.remove(&(session.lease_end, no));
        self.lease_ends.insert((end, no));
        if let Some(session) = self.by_no.get_mut(&no) {
            session.lease_end = end;
            session.keep_waiting = None;
        }
        let (through, born) = (self.head, self.born(now));
        self.send(no, |epoch| Down::Lease { epoch, n, lease, through, born });
    }

    /// An ACK: every INV up to `seq` of this epoch has been applied (rule 13).
    pub fn ack(&mut self, now: Moment, stream: StreamId, epoch: Epoch, seq: u64) {
        self.expire(now);
        if let Some(no) = self.speaker(stream, epoch) {
            self.count_ack(now, no, seq);
        }
    }

    fn count_ack(&mut self, now: Moment, no: SessionNo, seq: u64) {
        let ack_max = self.ack_max();
        let Some(session) = self.by_no.get_mut(&no) else { return };
        // It speaks in this epoch, so it has heard WELCOME.
        session.bare = false;
        session.acked = session.acked.max(seq.min(session.seq));
        let unacked = session.owed.split_off(&(session.acked + 1));
        let acked = std::mem::replace(&mut session.owed, unacked);
        let marks = acked.values().filter_map(|op| self.ops.get(op)?.waits_since());
        let late = marks.filter(|mark| now.since(*mark) > ack_max).max();
        for op in acked.into_values() {
            self.release(now, no, op);
        }
        if let Some(mark) = late {
            self.hung(now, no, mark);
        }
        let no = self.look_whether_resynced(no);
        self.renew(now, no);
    }

    /// A name of a SUMMARY batch goes through `begin_read` and `end_read`; then this answers the batch.
    /// The wildcard ends with a round in which nothing was refused (rule 19).
    pub fn summarized(
        &mut self,
        now: Moment,
        stream: StreamId,
        epoch: Epoch,
        batch: u64,
        refused: Vec<u32>,
        last: bool,
    ) {
        self.expire(now);
        let Some(no) = self.speaker(stream, epoch) else { return };
        let Some(session) = self.by_no.get_mut(&no) else { return };
        session.refused |= !refused.is_empty();
        if last {
            let clean = !std::mem::replace(&mut session.refused, false);
            if clean && !session.overflowed {
                self.wildcards.remove(&no);
            }
        }
        self.send(no, |epoch| Down::Summarized { epoch, batch, refused });
    }

    /// The Local no longer holds a name (rule 20).
    pub fn drop_name(&mut self, now: Moment, stream: StreamId, epoch: Epoch, name: &Name, reg_seq: RegSeq) {
        self.expire(now);
        if let Some(no) = self.speaker(stream, epoch) {
            self.holders.unregister(name, no, |h| h.reg_seq == reg_seq);
        }
    }

    /// The Local has stopped serving names (rule 18).
    pub fn bye(&mut self, now: Moment, stream: StreamId, epoch: Epoch) {
        self.expire(now);
        if let Some(no) = self.speaker(stream, epoch) {
            self.end(now, no, "goodbye");
        }
    }

    /// A stream broke. Releases nobody (rule 18).
    pub fn stream_lost(&mut self, stream: StreamId) {
        if let Some(no) = self.by_stream.remove(&stream)
            && let Some(session) = self.by_no.get_mut(&no)
            && session.stream == Some(stream)
        {
            session.stream = None;
        }
    }

    /// Ends what has run out by `now`: first of every event, so that no event sees a session past its lease.
    pub(super) fn expire(&mut self, now: Moment) {
        while let Some(&(end, no)) = self.lease_ends.first()
            && end <= now
        {
            self.waited_out(now, no);
            self.end(now, no, "the lease ran out: say hello again");
        }
        if self.grace_end > Moment::ZERO && now >= self.grace_end {
            self.grace_end = Moment::ZERO;
            let waiting: Vec<OpNo> = self.ops.keys().copied().collect();
            for op in waiting {
                self.commit_if_drained(now, op);
            }
        }
        self.end_absences(now);
        self.end_deadlines(now);
    }

    /// The session is over for good.
    fn end(&mut self, now: Moment, no: SessionNo, why: &str) {
        let Some(session) = self.by_no.remove(&no) else { return };
        self.lease_ends.remove(&(session.lease_end, no));
        self.wildcards.remove(&no);
        self.holders.void(no);
        if !session.fenced {
            self.by_epoch.remove(&session.epoch);
        }
        if self.by_local.get(&session.local_id) == Some(&no) {
            self.by_local.remove(&session.local_id);
        }
        if let Some(stream) = session.stream {
            self.drop_stream(stream, why);
        }
        for op in session.owed.into_values() {
            self.note_last(now, no, op, Some(&session.label));
            self.release(now, no, op);
        }
    }

    /// Global is about to stop: grants no more, and asks every Local to stop serving (rule 29).
    pub fn retire(&mut self, now: Moment) {
        self.expire(now);
        self.retiring = true;
        let all: Vec<SessionNo> = self.by_no.keys().copied().collect();
        for no in all {
            let Some(session) = self.by_no.get(&no) else { continue };
            // Also to one that has to list first: it serves nothing meanwhile.
            if let Some(stream) = session.stream {
                let epoch = self.epoch(session.epoch);
                self.actions.push(Action::Send(stream, Down::Retire { epoch }));
            }
        }
    }

    /// Whether no lease is outstanding, of this boot or an earlier one.
    pub fn is_quiet(&self, now: Moment) -> bool {
        self.by_no.is_empty() && !self.in_grace(now)
    }

    /// Who a drain is waiting for, as the labels of their HELLOs; for the message of an op that takes long.
    pub fn waited_for(&self, op: OpNo) -> Vec<String> {
        let waits = self.ops.get(&op).into_iter().flat_map(|op| op.waits.iter());
        waits.filter_map(|no| self.by_no.get(no)).map(|s| s.label.clone()).collect()
    }
}
