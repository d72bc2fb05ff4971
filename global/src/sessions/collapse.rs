//! A session that falls behind: too many frames wait for it, or it keeps changes waiting (rules 14, 17).
//!
//! ```text
//! a frame finds no room -> RESYNC in the last place -> INVs are counted and not sent, LEASEs withheld
//!                       -> its ack: was something left out meanwhile? another RESYNC : as before
//! ```
//! Invariants: a RESYNC stands for every INV up to its `seq`, and nothing follows it on the stream before the
//! Local has acknowledged it, so that memory is bounded and no LEASE overtakes an INV that was left out. A session
//! whose registrations end early holds nothing servable: it has acknowledged a RESYNC, and was registered nowhere
//! since.

use super::session::Session;
use super::{Action, SessionNo, Sessions, StreamId};
use dstore_shared::frame::Down;
use dstore_shared::{Epoch, Moment};
use std::time::Duration;

/// How long a listing of names that stay servable pauses after each batch, so that it takes little from others.
const UNHURRIED: Duration = Duration::from_millis(10);

/// A RESYNC was sent and not acknowledged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Collapsed {
    /// Its number: it stands for the INVs before.
    pub seq: u64,
    /// A frame was left out after it.
    pub missed: bool,
}

impl<J, R> Sessions<J, R> {
    /// A frame found no room on `stream`: it and all that follow are left out until a RESYNC.
    pub fn overflowed(&mut self, stream: StreamId) {
        let Some(no) = self.by_stream.get(&stream).copied() else { return };
        let Some(session) = self.by_no.get_mut(&no) else { return };
        match &mut session.collapsed {
            Some(collapsed) => collapsed.missed = true,
            None => self.resync(no),
        }
    }

    /// Has the Local list what it holds, instead of telling it what it should drop.
    pub(super) fn resync(&mut self, no: SessionNo) {
        let upto = self.head;
        let Some(session) = self.by_no.get_mut(&no) else { return };
        let Some(stream) = session.stream else { return };
        // A number of its own: an ack of the INVs before it does not tell that it was heard.
        session.seq += 1;
        self.resyncs += 1;
        let (seq, counter) = (session.seq, session.epoch);
        session.collapsed = Some(Collapsed { seq, missed: false });
        (session.refused, session.resumed) = (false, false);
        let epoch = self.epoch(counter);
        self.actions.push(Action::Send(stream, Down::Resync { epoch, seq, upto }));
    }

    /// After an ack: the Local has heard a RESYNC, and may have missed something since.
    /// Gives the number that the session has from now on.
    pub(super) fn look_whether_resynced(&mut self, no: SessionNo) -> SessionNo {
        let Some(session) = self.by_no.get_mut(&no) else { return no };
        let Some(collapsed) = session.collapsed.filter(|collapsed| session.acked >= collapsed.seq) else {
            return no;
        };
        if collapsed.missed || session.seq > collapsed.seq {
            self.resync(no);
            return no;
        }
        session.collapsed = None;
        if std::mem::take(&mut session.shedding) { self.shed(no) } else { no }
    }

    /// Ends the registrations of a session that holds nothing servable, by giving it another number.
    fn shed(&mut self, no: SessionNo) -> SessionNo {
        let Some(session) = self.by_no.remove(&no) else { return no };
        debug_assert!(session.owed.is_empty(), "everything that was sent is acknowledged");
        self.next_session += 1;
        let new = SessionNo(self.next_session);
        if self.lease_ends.remove(&(session.lease_end, no)) {
            self.lease_ends.insert((session.lease_end, new));
        }
        self.wildcards.remove(&no);
        self.holders.void(no);
        self.by_local.insert(session.local_id, new);
        self.by_epoch.insert(session.epoch, new);
        if let Some(stream) = session.stream {
            self.by_stream.insert(stream, new);
        }
        self.by_no.insert(new, Session { overflowed: false, ..session });
        new
    }

    /// A change marked at `marked` waited too long for the session: for a while it registers nothing. If it has
    /// happened before, it is to drop what it holds, too, so that nobody waits for it again.
    pub(super) fn hung(&mut self, now: Moment, no: SessionNo, marked: Moment) {
        let Some(session) = self.by_no.get_mut(&no) else { return };
        let max = self.terms.sessions_max;
        let Some((until, again)) = self.slow.note(now, session.local_id, marked, max) else { return };
        session.slow_until = until;
        if again && !session.shedding {
            session.shedding = true;
            match &mut session.collapsed {
                // The one on its way is not enough: what was read before it may be registered after it.
                Some(collapsed) => collapsed.missed = true,
                None => self.resync(no),
            }
        }
    }

    /// The lease of a session runs out: if a change waited for that, the Local hung.
    pub(super) fn waited_out(&mut self, now: Moment, no: SessionNo) {
        let Some(session) = self.by_no.get(&no).filter(|session| !session.fenced) else { return };
        let marks = session.owed.values().filter_map(|op| self.ops.get(op)?.waits_since());
        if let Some(marked) = marks.max() {
            self.slow.note_away(now, session.local_id, marked, self.terms.sessions_max);
        }
    }

    /// Whether a session registers nothing now.
    pub(super) fn is_slow(&self, now: Moment, no: SessionNo) -> bool {
        self.by_no.get(&no).is_some_and(|session| session.shedding || now < session.slow_until)
    }

    /// How long the names of a SUMMARY are not to be looked at yet: nobody would be registered.
    pub fn listing_wait(&self, now: Moment, epoch: Epoch) -> Duration {
        let slow = self.live(epoch).and_then(|no| self.by_no.get(&no)).map(|s| s.slow_until.since(now));
        self.grace_left(now).max(slow.unwrap_or_default())
    }

    /// How long to pause after a batch of a SUMMARY, so that a listing takes little from others.
    pub fn listing_pause(&self, epoch: Epoch) -> Duration {
        let session = self.live(epoch).and_then(|no| self.by_no.get(&no));
        if session.is_some_and(|s| s.resumed) { UNHURRIED } else { Duration::ZERO }
    }
}
