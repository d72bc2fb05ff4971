//! The coherence machine of a Local: lease, session, invalidations, flights.
//!
//! Pure: events in, actions out; no I/O, no clock. The node holds it under one lock, reads the clock after it
//! has the lock, and carries the actions out in order before it lets go; names are removed and installed
//! under that lock, frames are queued after (rule 13). A hit does not come here: it loads `valid_until`,
//! looks the name up and reads the clock (rule 1). What each rule means and why is in docs/PROTOCOL.md.
//!
//! ```text
//! read   -> joins a flight, or Action::Ask(Resolve) ... resolved -> Action::Found ... complete -> waiters
//! change -> Action::Ask(Change) ... changed -> waiter
//! connected -> HELLO; down: WELCOME, INV, LEASE, ...; keep -> KEEP; lost
//! ```
//! Invariants: `valid_until` rises only by a LEASE that answers a known KEEP of this stream (rule 2); a reply
//! is installed only if its epoch is current and no INV met its flight that covers it (rule 10); nobody is
//! served by a reply to a question sent before he asked, unless it is cacheable (rule 22).

mod absences;
mod canon;
mod flights;
mod inspect;
mod session;
#[cfg(test)]
mod tests;

pub use absences::{Absences, Absent};
use dstore_shared::frame::{Request, Resolved, Up};
use dstore_shared::limits::SUMMARY_LEN_MAX;
use dstore_shared::{
    Blob, Born, Entry, Epoch, Error, FlightId, HistoryId, Incarnation, LocalId, Moment, Name, Prefix, RegSeq,
    Revision,
};
use flights::Flight;
use session::{Stream, Summary};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// The names that the node holds, as the machine changes them.
pub trait NameTable {
    /// Where a listing of stale names goes on.
    type Cursor: Clone + Default + Send + std::fmt::Debug;

    /// Removes `name` if it is bound at or before `upto`.
    fn remove_upto(&self, name: &Name, upto: Revision);
    /// Removes the names under `prefix` that are bound at or before `upto`.
    fn remove_prefix_upto(&self, prefix: &Prefix, upto: Revision);
    /// Moves a name of an older era to `era` if it is bound at exactly `bind_rev`. Gives whether the name is of
    /// `era` now, by this or by an install in between.
    fn validate(&self, name: &Name, bind_rev: Revision, reg_seq: RegSeq, era: u64) -> bool;
    /// Removes `name` if it is of an older era than `era`.
    fn drop_unvalidated(&self, name: &Name, era: u64);
    /// Removes all names; blobs stay.
    fn drop_all(&self);
    /// The next names of an older era than `era`, at most `limit`; none = all were listed.
    fn stale(&self, era: u64, cursor: &mut Self::Cursor, limit: usize) -> Vec<(Name, Revision)>;
}

/// Somebody who waits for a flight.
pub trait Waiter {
    /// Whether he has gone away, so that the flight need not be kept for him.
    fn is_gone(&self) -> bool;
}

/// Who this Local is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The Local, over restarts.
    pub local_id: LocalId,
    /// This life of its process.
    pub incarnation: Incarnation,
    /// For people.
    pub label: String,
}

/// The bounds of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Flights at a time.
    pub flights_max: usize,
    /// Waiters of one flight.
    pub waiters_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        // A flight is a few hundred bytes, and a waiter less than a hundred.
        Self { flights_max: 65_536, waiters_max: 65_536 }
    }
}

/// What is to be done, in this order.
#[derive(Clone, Debug)]
pub enum Action<W> {
    /// Publish `valid_until` for hits.
    ValidUntil(Moment),
    /// Publish the first era whose names are servable: those of an older one are not.
    Era(u64),
    /// Queue a frame on the session stream.
    Send(Up),
    /// Queue a request.
    Ask(Request),
    /// A Resolve found a binding. Get the blob, then call `complete`.
    Found(FlightId, Entry, Option<Blob>),
    /// Tell them what the name is bound to, as of this revision: not bound, or all they wanted to know.
    Tell(Vec<W>, Option<Entry>, Revision),
    /// Tell them what many names are bound to, all as of one revision, in the order of the question.
    TellMany(Vec<W>, Vec<Resolved>),
    /// These could not be served: too much is under way. Tell them.
    Refused(Vec<W>, Error),
    /// The other side broke the protocol: close the session stream and connect again.
    Reconnect(&'static str),
}

/// The coherence machine of a Local.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "four questions that are answered independently")]
pub struct Coherence<T: NameTable, W> {
    identity: Identity,
    bounds: Bounds,

    /// Names may be served while the clock is before this.
    valid_until: Moment,
    epoch: Option<Epoch>,
    /// Counts listings: what is installed or validated now is of this one.
    era: u64,
    /// A listing of the present era did not come to its end.
    unlisted: bool,
    history: HistoryId,
    applied: Revision,
    known: Revision,
    lease: Duration,
    /// What a crash of Global may take of what it answers.
    loss: Option<Duration>,
    born: Option<Born>,

    stream: Stream,
    /// KEEPs of this stream not yet answered, with the moment each was made; HELLO is number 0.
    keeps: VecDeque<(u64, Moment)>,
    next_keep: u64,
    acked: u64,
    ack_due: bool,
    summary: Option<Summary<T::Cursor>>,
    /// Batches of listings are numbered without repetition on a stream.
    next_batch: u64,
    /// Serves nothing in this epoch any more.
    retired: bool,
    /// Serves nothing any more, and begins no session.
    left: bool,

    /// "Not found" answers, if they are kept.
    absences: Option<Arc<Absences>>,
    /// The newest reading of the clock that came with an event.
    seen: Moment,

    flights: HashMap<FlightId, Flight<W>>,
    by_name: HashMap<Name, Vec<FlightId>>,
    next_flight: u64,
    next_reg: u64,

    actions: Vec<Action<W>>,
}

impl<T: NameTable, W: Waiter> Coherence<T, W> {
    /// A Local that has never had a session.
    pub fn new(identity: Identity, bounds: Bounds) -> Self {
        Self {
            identity,
            bounds,
            valid_until: Moment::ZERO,
            epoch: None,
            era: 0,
            unlisted: false,
            history: HistoryId::default(),
            applied: Revision(0),
            known: Revision(0),
            lease: dstore_shared::limits::LEASE,
            loss: None,
            born: None,
            stream: Stream::None,
            keeps: VecDeque::new(),
            next_keep: 1,
            acked: 0,
            ack_due: false,
            summary: None,
            next_batch: 1,
            retired: false,
            left: false,
            absences: None,
            seen: Moment::ZERO,
            flights: HashMap::new(),
            by_name: HashMap::new(),
            next_flight: 0,
            next_reg: 0,
            actions: Vec::new(),
        }
    }

    /// The same, keeping "not found" answers in `absences` (rule 28). To be called before the first session.
    #[must_use]
    pub fn keeping(mut self, absences: Arc<Absences>) -> Self {
        self.absences = Some(absences);
        self
    }

    /// What is to be done now, in order; the caller carries it out before the next event.
    pub fn take_actions(&mut self) -> Vec<Action<W>> {
        std::mem::take(&mut self.actions)
    }

    /// Whether a name could be served at `now`.
    pub fn is_valid(&self, now: Moment) -> bool {
        now < self.valid_until
    }

    /// A crash of Global may take the changes of its last so long, as it said last.
    pub fn loss(&self) -> Option<Duration> {
        self.loss
    }

    /// The lease length in force.
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// The newest of Global's clock that was seen; requests are stamped with it.
    pub fn born(&self) -> Option<Born> {
        self.born
    }

    /// Notes Global's clock from a reply.
    pub fn saw(&mut self, born: Born) {
        if born.boot > 0 && self.born.is_none_or(|seen| born.newer_than(&seen)) {
            self.born = Some(born);
        }
    }

    /// The newest revision up to which every change was applied.
    pub fn applied(&self) -> Revision {
        self.applied
    }

    /// The newest revision of the present history that Global told, by any frame or reply. Changes before it may
    /// not have been applied: it is for people, and never what HELLO says.
    pub fn known(&self) -> Revision {
        self.known
    }

    /// The session, if there is one.
    pub fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// How many flights there are.
    pub fn flights(&self) -> usize {
        self.flights.len()
    }

    fn next_reg(&mut self) -> RegSeq {
        self.next_reg += 1;
        RegSeq(self.next_reg)
    }
}
