//! The session as a Local lives it: lease, invalidations, listing of held names (rules 2, 4, 10, 13, 19, 31).

use super::{Action, Coherence, NameTable, SUMMARY_LEN_MAX, Waiter};
use dstore_shared::frame::{Down, Hello, Listed, Resumption, Up};
use dstore_shared::limits::CLOCK_RATE_ERROR_PER_MILLE;
use dstore_shared::{Epoch, Moment, Name, Prefix, RegSeq, Revision};
use std::collections::HashSet;
use std::time::Duration;

/// KEEPs that may be unanswered; older ones are forgotten, and their LEASEs then ignored.
pub(super) const KEEPS_MAX: usize = 16;

/// How far the session stream is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stream {
    /// There is none.
    None,
    /// HELLO was sent, WELCOME has not come.
    Greeting,
    /// WELCOME has come.
    Open,
}

/// A listing of held names under way: one batch is outstanding at a time.
#[derive(Clone, Debug)]
pub(super) struct Summary<C> {
    pub cursor: C,
    pub batch: u64,
    pub listed: Vec<Listed>,
    pub last: bool,
    pub refused: bool,
}

impl<T: NameTable, W: Waiter> Coherence<T, W> {
    /// A new session stream is open, and every earlier one is gone. Says HELLO. Gives false, and says nothing, if
    /// this Local has left: then nobody needs the stream.
    pub fn connected(&mut self, now: Moment) -> bool {
        self.lost();
        self.seen = self.seen.max(now);
        if self.left {
            return false;
        }
        self.stream = Stream::Greeting;
        self.keeps.push_back((0, now));
        self.actions.push(Action::Send(Up::Hello(Hello {
            local_id: self.identity.local_id,
            incarnation: self.identity.incarnation,
            last_epoch: self.epoch,
            history: self.history,
            applied_rev: self.said_applied(),
            label: self.identity.label.clone(),
            negatives: self.absences.is_some(),
        })));
        true
    }

    /// What HELLO says was applied.
    #[cfg(not(feature = "faults"))]
    fn said_applied(&self) -> Revision {
        self.applied
    }

    /// The same, with a mistake if a test wants it.
    #[cfg(feature = "faults")]
    fn said_applied(&self) -> Revision {
        use dstore_shared::planted::{Mistake, is_made};
        if is_made(Mistake::ResumeOffByOne) { self.applied.next() } else { self.applied }
    }

    /// The session stream broke. Names stay servable until the lease runs out; KEEPs are forgotten (rule 2).
    pub fn lost(&mut self) {
        self.stream = Stream::None;
        self.keeps.clear();
        (self.summary, self.next_batch) = (None, 1);
        self.ack_due = false;
    }

    /// Whether WELCOME has come on the present stream.
    pub fn is_open(&self) -> bool {
        self.stream == Stream::Open
    }

    /// A frame of the session stream, in order.
    pub fn down(&mut self, now: Moment, frame: Down, names: &T) {
        self.seen = self.seen.max(now);
        match (self.stream, frame) {
            (Stream::Greeting, Down::Welcome { epoch, head, resumption, lease, born, list, loss }) => {
                self.saw(born);
                self.lease = lease;
                self.loss = loss;
                self.welcome(epoch, resumption, list, names);
                self.known = self.known.max(head);
            }
            // What was still on its way when the stream broke, or was given up.
            (Stream::None, _) => {}
            (Stream::Greeting, _) | (_, Down::Welcome { .. }) => self.reconnect("frames out of order"),
            // Rule 13: a frame of another epoch is dropped.
            (_, frame) if Some(frame.epoch()) != self.epoch => {}
            (_, Down::Inv { seq, name, upto, .. }) => self.invalidate(seq, &name, upto, names),
            (_, Down::Resync { seq, upto, .. }) => self.resync(seq, upto, names),
            (_, Down::InvPrefix { seq, prefix, upto, .. }) => {
                self.invalidate_prefix(seq, &prefix, upto, names);
            }
            (_, Down::Lease { n, lease, through, born, .. }) => {
                self.saw(born);
                self.extend(now, n, lease, through);
            }
            (_, Down::Summarized { batch, refused, .. }) => self.summarized(batch, &refused, names),
            (_, Down::Retire { .. }) => self.retire(),
        }
    }

    /// Gives the stream up: no LEASE that still comes on it counts, for an INV may be missing.
    fn reconnect(&mut self, why: &'static str) {
        self.lost();
        self.actions.push(Action::Reconnect(why));
    }

    /// A session begins. That alone ends no lapse (rule 4). Unless everything missed follows as INVs, what was held
    /// may not be served before it was listed and registered (rule 31): the era is published before any LEASE of
    /// this epoch. Otherwise names stay as servable as they are, and are listed meanwhile if need be (rule 19).
    fn welcome(&mut self, epoch: Epoch, resumption: Resumption, list: bool, names: &T) {
        self.stream = Stream::Open;
        // Rule 28: whatever the resumption, nothing tells this session of absences that another one kept.
        if let Some(absences) = &self.absences {
            absences.drop_all();
        }
        self.epoch = Some(epoch);
        self.history = epoch.history;
        self.acked = 0;
        if self.left {
            // HELLO was on its way when it left: the session that it began must not be waited for either.
            return self.say_bye();
        }
        self.retired = false;
        if resumption == Resumption::NewHistory {
            names.drop_all();
            self.applied = Revision(0);
            self.known = Revision(0);
        }
        if resumption != Resumption::Resume {
            self.begin_era();
            self.actions.push(Action::Era(self.era));
            self.list(T::Cursor::default(), false, names);
        } else if list || self.unlisted {
            self.begin_era();
            self.list(T::Cursor::default(), false, names);
        }
    }

    /// Everything held is to be listed: it is of an older era now.
    fn begin_era(&mut self) {
        self.era += 1;
        self.unlisted = true;
    }

    /// Too much was left unsaid: as if there were an INV of every name. All that is held is listed again, and
    /// flights under way are poisoned (rules 10, 14).
    fn resync(&mut self, seq: u64, upto: Revision, names: &T) {
        if seq <= self.acked {
            return self.reconnect("a resync goes back");
        }
        self.known = self.known.max(upto);
        self.poison_all(upto);
        if let Some(absences) = &self.absences {
            absences.drop_all();
        }
        (self.acked, self.ack_due) = (seq, false);
        self.begin_era();
        // Before the ack, which Global acts upon; and that before the listing, which it would not answer else.
        self.actions.push(Action::Era(self.era));
        if let Some(epoch) = self.epoch {
            self.actions.push(Action::Send(Up::Ack { epoch, seq }));
        }
        // Of an earlier round the answer may have been left out, and a refusal in it.
        self.list(T::Cursor::default(), true, names);
    }

    /// Removes and poisons; the acknowledgement follows when the frames at hand are done (rules 10, 13).
    fn invalidate(&mut self, seq: u64, name: &Name, upto: Revision, names: &T) {
        if Some(seq) != self.acked.checked_add(1) {
            return self.reconnect("an invalidation is missing");
        }
        self.known = self.known.max(upto);
        names.remove_upto(name, upto);
        if let Some(absences) = &self.absences {
            absences.remove_upto(name, upto);
        }
        self.poison(name, upto);
        self.acked = seq;
        self.ack_due = true;
    }

    /// As for one name: removes all names under the prefix, and poisons their flights.
    fn invalidate_prefix(&mut self, seq: u64, prefix: &Prefix, upto: Revision, names: &T) {
        if Some(seq) != self.acked.checked_add(1) {
            return self.reconnect("an invalidation is missing");
        }
        self.known = self.known.max(upto);
        names.remove_prefix_upto(prefix, upto);
        // What is absent stays so, but a flight of before may be under way: it is poisoned, and what it registered is
        // given back, with which Global forgets that an earlier answer is kept.
        if let Some(absences) = &self.absences {
            absences.remove_prefix_upto(prefix, upto);
        }
        self.poison_prefix(prefix, upto);
        self.acked = seq;
        self.ack_due = true;
    }

    /// Extends the lease from the moment at which that very KEEP was made (rule 2).
    fn extend(&mut self, now: Moment, n: u64, lease: Duration, through: Revision) {
        let Some(at) = self.keeps.iter().position(|(keep, _)| *keep == n) else { return };
        if self.retired {
            return;
        }
        let (_, made) = self.keeps[at];
        self.keeps.drain(..=at);
        self.lease = lease;
        self.applied = self.applied.max(through);
        self.known = self.known.max(through);
        let until = made + shortened(lease);
        if until > self.valid_until {
            self.valid_until = until;
            self.actions.push(Action::ValidUntil(until));
        }
        debug_assert!(made <= now, "a KEEP is made before it is answered");
    }

    /// The acknowledgement of the INVs applied since the last one, if any: to be called when the frames at
    /// hand are done, so that a burst is acknowledged once.
    pub fn flush_ack(&mut self) {
        if let Some(epoch) = self.epoch.filter(|_| self.ack_due && self.stream == Stream::Open) {
            self.ack_due = false;
            self.actions.push(Action::Send(Up::Ack { epoch, seq: self.acked }));
        }
    }

    /// Asks for a renewal; due every third of the lease.
    pub fn keep(&mut self, now: Moment) {
        self.seen = self.seen.max(now);
        if let Some(gone) = self.absences.as_ref().map(|absences| absences.expired(now)) {
            self.dropped(gone);
        }
        let Some(epoch) = self.epoch.filter(|_| self.stream == Stream::Open && !self.retired) else { return };
        if self.keeps.len() == KEEPS_MAX {
            self.keeps.pop_front();
        }
        let n = self.next_keep;
        self.next_keep += 1;
        self.keeps.push_back((n, now));
        self.actions.push(Action::Send(Up::Keep { epoch, n, acked: self.acked }));
    }

    /// Serves no name in this epoch any more and says BYE, since Global is about to stop (rules 18, 29).
    /// A hit that loaded `valid_until` before goes on: it began before any change that follows.
    fn retire(&mut self) {
        self.valid_until = Moment::ZERO;
        self.retired = true;
        self.actions.push(Action::ValidUntil(Moment::ZERO));
        self.say_bye();
    }

    /// This Local stops: as for a RETIRE, and for good. No HELLO follows: it would begin a session that
    /// nobody ends.
    pub fn leave(&mut self) {
        self.left = true;
        self.retire();
    }

    fn say_bye(&mut self) {
        if let Some(epoch) = self.epoch.filter(|_| self.stream == Stream::Open) {
            self.actions.push(Action::Send(Up::Bye { epoch }));
        }
    }

    /// Sends the next batch of held names, or the empty batch that ends the round (rule 19).
    fn list(&mut self, mut cursor: T::Cursor, refused: bool, names: &T) {
        let stale = names.stale(self.era, &mut cursor, SUMMARY_LEN_MAX);
        let last = stale.is_empty();
        let listed: Vec<Listed> = stale
            .into_iter()
            .map(|(name, bind_rev)| Listed { name, bind_rev, reg_seq: self.next_reg() })
            .collect();
        self.summarize(Summary { cursor, batch: self.next_batch, listed, last, refused });
    }

    fn summarize(&mut self, summary: Summary<T::Cursor>) {
        let Some(epoch) = self.epoch else { return };
        let (batch, names, last) = (summary.batch, summary.listed.clone(), summary.last);
        self.next_batch = batch + 1;
        self.actions.push(Action::Send(Up::Summary { epoch, batch, names, last }));
        self.summary = Some(summary);
    }

    /// Serves again what was registered, drops what was refused, and lists on. A round with a refusal is
    /// followed by an empty one, which tells that the refused names are gone: whatever was held when the listing
    /// began is validated or dropped, and whatever came since is registered by itself.
    fn summarized(&mut self, batch: u64, refused: &[u32], names: &T) {
        let Some(summary) = self.summary.take_if(|s| s.batch == batch) else { return };
        let refused: HashSet<u32> = refused.iter().copied().collect();
        let mut gone = Vec::new();
        for (i, listed) in summary.listed.into_iter().enumerate() {
            if refused.contains(&(i as u32)) {
                names.drop_unvalidated(&listed.name, self.era);
            } else if !names.validate(&listed.name, listed.bind_rev, listed.reg_seq, self.era) {
                gone.push((listed.name, listed.reg_seq));
            }
        }
        self.dropped(gone);
        let any_refused = summary.refused || !refused.is_empty();
        if !summary.last {
            self.list(summary.cursor, any_refused, names);
        } else if any_refused {
            let (cursor, batch, listed) = (T::Cursor::default(), self.next_batch, Vec::new());
            self.summarize(Summary { cursor, batch, listed, last: true, refused: false });
        } else {
            self.unlisted = false;
        }
    }

    /// Names were evicted, or never installed though registered: Global need not wait for this Local.
    ///
    /// Nothing is said while another request for the name is out: it may be registered with a smaller
    /// `reg_seq` than the one dropped, and its answer be installed after. To stay registered costs an INV.
    pub fn dropped(&mut self, names: Vec<(Name, RegSeq)>) {
        let Some(epoch) = self.epoch.filter(|_| self.stream == Stream::Open) else { return };
        let mut names = names
            .into_iter()
            .filter(|(name, _)| !self.is_out(name))
            .collect::<Vec<_>>()
            .into_iter()
            .peekable();
        while names.peek().is_some() {
            let names = names.by_ref().take(SUMMARY_LEN_MAX).collect();
            self.actions.push(Action::Send(Up::Drop { epoch, names }));
        }
    }
}

/// A duration shortened by the bound on clock rate error, rounded down.
pub(super) fn shortened(d: Duration) -> Duration {
    let error = (d.as_nanos() * u128::from(CLOCK_RATE_ERROR_PER_MILLE)).div_ceil(1000);
    d.saturating_sub(Duration::from_nanos(u64::try_from(error).unwrap_or(u64::MAX)))
}
