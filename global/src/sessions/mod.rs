//! The coherence machine of Global: sessions, leases, holders, busy names, drains, request outcomes.
//!
//! Pure: events in, actions out; no I/O, no clock. The authority holds it under one lock a shard, reads the
//! clock after it has the lock, and carries the actions out in order before it lets go. What each rule means
//! and why is in docs/PROTOCOL.md; the numbers here are that page's.
//!
//! ```text
//! submit --FIFO a name--> mark busy, fix who is waited for, send INVs        (ops.rs; rules 5, 6)
//!        --acks, leases that ran out, end of grace--> Action::Commit         (rules 3, 17, 18, 29)
//!        --journal--> finish: bits cleared, requester registered, Action::Answer   (rules 8, 23, 25)
//! begin_read --index, outside the lock--> end_read: may the reader cache it?  (rule 7)
//! hello, keep, ack, summarized, drop_names, bye, tick                         (session.rs; rules 11-20)
//! deadlines, asynchronous DELs after they were answered, absent names              (modes.rs; rules 27, 28)
//! ```
//! Invariants: a name between its mark and `finish` registers nobody; a session is released only by `bye`, or
//! by a clock past its `lease_end`; whoever may serve a name is registered for it or a wildcard.
//! It must never release a session because its stream broke.

mod canon;
mod collapse;
mod holders;
mod inspect;
mod log;
mod modes;
mod ops;
mod prefixes;
mod requests;
mod session;
mod slow;
#[cfg(test)]
mod tests;
mod told;
mod waits;

use dstore_shared::frame::Down;
use dstore_shared::limits::{ABSENCE_TERM, CLOCK_RATE_ERROR_PER_MILLE};
use dstore_shared::{
    Born, ClientId, Epoch, Error, HistoryId, LocalId, Moment, Name, Outcome, RegSeq, RequestId, Result,
    Revision,
};
use holders::{Holders, Holding};
pub use log::{InvLog, LogBounds};
use ops::Op;
pub use ops::Submission;
use prefixes::Prefixes;
use requests::Requests;
use session::Session;
use slow::Slow;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;
pub use told::{Drain, Standing};
pub use waits::{Awaited, Waited, Waits};

/// Numbers a (Local, incarnation) that has or had a session; never reused in a boot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionNo(pub u64);

/// Numbers a session stream; given by the server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamId(pub u64);

/// Numbers an op in the order of its arrival.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OpNo(pub u64);

/// The bounds and terms of the machine.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Lease length D while there are few sessions.
    pub lease: Duration,
    /// The longest that it grows to with their number.
    pub lease_max: Duration,
    /// Sessions up to which it does not grow.
    pub sessions_at_lease: usize,
    /// Longest time that an invalidation may go unacknowledged while the lease is still renewed (A), at the shortest
    /// D: it grows with D, since so many Locals are not told in a moment.
    pub ack_max: Duration,
    /// Sessions, those that wait for the end of their lease included.
    pub sessions_max: usize,
    /// Registrations in the holder index; beyond it a session becomes a wildcard.
    pub holdings_max: usize,
    /// Ops queued, draining or committing.
    pub ops_max: usize,
    /// Names that those ops want, in all.
    pub names_max: usize,
    /// Outcomes remembered, over all clients.
    pub outcomes_max: usize,
    /// Bytes of memory that they take: the answer of a DEL has one for each of its names.
    pub outcome_bytes_max: usize,
    /// What is remembered for Locals that come back.
    pub log: LogBounds,
    /// Names that are repeated to one of them, busy ones apart; if it missed more, it lists what it holds.
    pub replay_max: usize,
    /// A crash may take the changes of so long, which every Local is told; `None` = nothing that was acknowledged.
    pub loss: Option<Duration>,
}

/// The longest that a lease grows to by itself.
const LEASE_GROWN: Duration = Duration::from_secs(10);

impl Terms {
    /// The terms for a lease of `lease`, with A = min(0.25 s, D/4) and bounds for a machine of a few GiB.
    pub fn for_lease(lease: Duration) -> Self {
        Self {
            lease,
            // The heartbeats of 10,000 Locals then cost twice those of 1,000.
            lease_max: lease.max(LEASE_GROWN),
            sessions_at_lease: 1_000,
            ack_max: (lease / 4).min(Duration::from_millis(250)),
            // 10,000 Locals, and as many that were cut off and are waited for.
            sessions_max: 20_000,
            // About 100 bytes each.
            holdings_max: 8_000_000,
            ops_max: 65_536,
            // All of them, if busy, are repeated to a Local that comes back: they must fit its queue of frames.
            names_max: 24_576,
            outcomes_max: 500_000,
            // As many of SETs and DELs of a few names, about 250 bytes each.
            outcome_bytes_max: 128 << 20,
            log: LogBounds::default(),
            // With the busy ones they fit its queue of frames.
            replay_max: 8_000,
            loss: None,
        }
    }

    /// A, while leases of length `lease` are granted.
    #[must_use]
    pub fn ack_max_at(&self, lease: Duration) -> Duration {
        let per_mille = lease.as_nanos() * 1000 / self.lease.as_nanos().max(1);
        let per_mille = u32::try_from(per_mille.max(1000)).unwrap_or(u32::MAX);
        self.ack_max.saturating_mul(per_mille) / 1000
    }
}

/// What this boot of Global starts from.
#[derive(Clone, Copy, Debug)]
pub struct Boot {
    /// The history.
    pub history: HistoryId,
    /// The boot number, durable already (rule 11).
    pub number: u64,
    /// The newest visible revision.
    pub head: Revision,
    /// When the boot began.
    pub at: Moment,
    /// How long leases of earlier boots may still run; zero for a new directory or after a clean stop
    /// (rule 29).
    pub grace: Duration,
    /// Whether changes that need no drain wait for the grace too: "not found" answers may have been leased, or the
    /// drain after an asynchronous DEL have been cut short (rule 29).
    pub all_wait: bool,
}

/// What is to be done, in this order. `J` is the work of an op, `R` somebody who waits for its outcome.
#[derive(Clone, Debug)]
pub enum Action<J, R> {
    /// Queue a frame on a session stream. If there is no room for it and one more, leave it out, report
    /// `overflowed`, and leave out all that follows until a RESYNC, which takes the last place.
    Send(StreamId, Down),
    /// End a session stream, telling why.
    Close(StreamId, Error),
    /// The names are drained: commit the work, then call `finish` or `fail`.
    Commit(OpNo, J),
    /// Tell a waiting requester.
    Answer(R, Result<Answered>),
}

/// What a requester learns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answered {
    /// What the change did.
    pub outcome: Outcome,
    /// The requester was registered as holder of the name it SET, in this epoch (rule 23).
    pub cacheable: Option<Epoch>,
    /// Of an asynchronous DEL: for so long others may still read the old value (rule 27). `None` = nobody can.
    pub stale: Option<Duration>,
}

/// Who asked for a change, if it wants to cache what it SETs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Caller {
    /// The session it had when it asked.
    pub epoch: Epoch,
    /// The registration it asks for.
    pub reg_seq: RegSeq,
}

/// A registration made for a read that is under way; give it to `end_read`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Registration {
    session: SessionNo,
    epoch: u64,
    mark: Mark,
    /// Changes by prefix that had finished.
    prefixes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mark {
    /// Registered in this generation.
    Indexed(u64),
    /// A wildcard without a bit of its own: valid while no op has finished since.
    Wild { finished: u64 },
}

/// The coherence machine of Global.
#[derive(Clone, Debug)]
pub struct Sessions<J, R> {
    terms: Terms,
    boot: Boot,
    head: Revision,
    grace_end: Moment,
    retiring: bool,

    by_no: BTreeMap<SessionNo, Session>,
    /// The newest incarnation of each Local.
    by_local: HashMap<LocalId, SessionNo>,
    /// Current epochs, by counter; a fenced session has none.
    by_epoch: HashMap<u64, SessionNo>,
    by_stream: HashMap<StreamId, SessionNo>,
    lease_ends: BTreeSet<(Moment, SessionNo)>,
    wildcards: BTreeSet<SessionNo>,
    holders: Holders,

    ops: BTreeMap<OpNo, Op<J, R>>,
    /// The ops that want a name, in order of arrival; the first has it, and if marked, the name is busy.
    queues: HashMap<Name, VecDeque<OpNo>>,
    names_wanted: usize,
    prefixes: Prefixes,
    requests: Requests,
    log: InvLog,
    slow: Slow,
    drains: told::Drains,
    /// The longest D that may be granted: durable.
    lease_allowed: Duration,
    /// The longest that was granted in this boot.
    lease_granted: Duration,
    /// A Local of this boot keeps "not found" answers, or kept them (rule 28).
    absences_kept: bool,
    /// Asynchronous DELs that are answered and not drained yet.
    settling: HashMap<(ClientId, u64), OpNo>,
    /// When an attempt of an op is to be answered as pending.
    deadlines: BTreeSet<(Moment, OpNo)>,
    /// When an op need not wait for a session any more, whose "not found" answer has run out by then.
    absences: BTreeSet<(Moment, OpNo, SessionNo)>,

    next_session: u64,
    next_epoch: u64,
    next_op: u64,
    finished: u64,
    resumed: u64,
    resyncs: u64,
    waits: Waits,
    actions: Vec<Action<J, R>>,
}

impl<J, R> Sessions<J, R> {
    /// The machine as a boot begins.
    pub fn new(terms: Terms, boot: Boot) -> Self {
        let born = Born { history: boot.history, boot: boot.number, at_ms: 0 };
        let requests = Requests::new(born, terms.outcomes_max, terms.outcome_bytes_max);
        Self {
            holders: Holders::new(terms.holdings_max),
            grace_end: if boot.grace.is_zero() { Moment::ZERO } else { boot.at + boot.grace },
            head: boot.head,
            log: InvLog::new(boot.head, terms.log),
            slow: Slow::default(),
            drains: told::Drains::default(),
            lease_allowed: terms.lease,
            lease_granted: Duration::ZERO,
            terms,
            boot,
            retiring: false,
            by_no: BTreeMap::new(),
            by_local: HashMap::new(),
            by_epoch: HashMap::new(),
            by_stream: HashMap::new(),
            lease_ends: BTreeSet::new(),
            wildcards: BTreeSet::new(),
            ops: BTreeMap::new(),
            queues: HashMap::new(),
            names_wanted: 0,
            prefixes: Prefixes::default(),
            requests,
            absences_kept: false,
            settling: HashMap::new(),
            deadlines: BTreeSet::new(),
            absences: BTreeSet::new(),
            next_session: 0,
            next_epoch: 0,
            next_op: 0,
            finished: 0,
            resumed: 0,
            resyncs: 0,
            waits: Waits::default(),
            actions: Vec::new(),
        }
    }

    /// What is to be done now, in order; the caller carries it out before the next event.
    pub fn take_actions(&mut self) -> Vec<Action<J, R>> {
        std::mem::take(&mut self.actions)
    }

    /// Takes back an outcome that the journal or a checkpoint kept.
    pub fn restore_outcome(&mut self, id: RequestId, outcome: Outcome) {
        self.requests.restore(id, outcome);
    }

    /// Takes back what the journal tells became void: everything after `floor`, in the order of revisions. Its age
    /// counts from the beginning of this boot.
    pub fn restore_log(&mut self, floor: Revision, voided: impl IntoIterator<Item = (Revision, Vec<Name>)>) {
        self.log = InvLog::new(floor, self.terms.log);
        for (revision, names) in voided {
            self.log.push(self.boot.at, revision, names, None);
        }
    }

    /// Global's clock, as told to everybody.
    pub fn born(&self, now: Moment) -> Born {
        let at_ms = now.since(self.boot.at).as_millis() as u64;
        Born { history: self.boot.history, boot: self.boot.number, at_ms }
    }

    /// The newest visible revision.
    pub fn head(&self) -> Revision {
        self.head
    }

    /// A change that is about no name is visible, and so is everything before it. Without this a Local that has
    /// applied all that there is would be behind the log of the next boot.
    pub fn reached(&mut self, revision: Revision) {
        self.head = self.head.max(revision);
    }

    /// The lease length D in force: it grows with the number of sessions, as far as that is durable (rule 29).
    pub fn lease(&self) -> Duration {
        self.lease_wanted().min(self.lease_allowed)
    }

    /// A at the D in force.
    fn ack_max(&self) -> Duration {
        self.terms.ack_max_at(self.lease())
    }

    fn lease_wanted(&self) -> Duration {
        let per_mille = self.by_no.len().saturating_mul(1000) / self.terms.sessions_at_lease.max(1);
        let per_mille = u32::try_from(per_mille.max(1000)).unwrap_or(u32::MAX);
        let wanted = self.terms.lease.saturating_mul(per_mille) / 1000;
        wanted.min(self.terms.lease_max).max(self.terms.lease)
    }

    /// A length that should be made durable as the longest D that may be granted, then told by
    /// [`Self::allow_lease`]; `None` = there is no need.
    pub fn lease_to_allow(&self) -> Option<Duration> {
        let wanted = self.lease_wanted();
        // At least twice as much, so that it is written a few times and not for every session.
        let next = (self.lease_allowed * 2).max(wanted).min(self.terms.lease_max.max(wanted));
        (wanted > self.lease_allowed).then_some(next)
    }

    /// Leases of up to `length` may be granted from now on: that is durable.
    pub fn allow_lease(&mut self, length: Duration) {
        self.lease_allowed = self.lease_allowed.max(length);
    }

    /// The outcomes that are remembered, for a checkpoint, in slices of at most `max`: those after the request
    /// `after`, and where the next slice begins; `None` = that was the last.
    pub fn outcomes(
        &self,
        after: Option<RequestId>,
        max: usize,
    ) -> (Vec<(RequestId, Outcome)>, Option<RequestId>) {
        self.requests.done(after, max)
    }

    /// Whether [`Self::retire`] was called: no new change is taken and no lease granted.
    pub fn is_retiring(&self) -> bool {
        self.retiring
    }

    /// Whether leases of an earlier boot may still run.
    pub fn in_grace(&self, now: Moment) -> bool {
        now < self.grace_end
    }

    /// How long leases of an earlier boot may still run.
    pub fn grace_left(&self, now: Moment) -> Duration {
        self.grace_end.since(now)
    }

    /// Whether `name` is between a mark and its visibility (rule 7).
    pub fn is_busy(&self, name: &Name) -> bool {
        let first = self.queues.get(name).and_then(VecDeque::front);
        first.is_some_and(|op| self.ops.get(op).is_some_and(Op::is_marked)) || self.is_under_busy_prefix(name)
    }

    /// The first half of a Resolve or of one name of a SUMMARY: registers the reader before the read.
    /// `None` = answer, but it must not be cached (rules 7, 13).
    pub fn begin_read(
        &mut self,
        now: Moment,
        epoch: Epoch,
        name: &Name,
        reg_seq: RegSeq,
    ) -> Option<Registration> {
        self.expire(now);
        if self.in_grace(now) || self.retiring || self.is_busy(name) {
            return None;
        }
        let session = self.live(epoch).filter(|no| !self.is_slow(now, *no))?;
        let mark = match self.register(session, name, reg_seq) {
            Some(generation) => Mark::Indexed(generation),
            None => Mark::Wild { finished: self.finished },
        };
        Some(Registration { session, epoch: epoch.counter, mark, prefixes: self.prefixes.finished })
    }

    /// The second half: the visible state has been read since. `found`: it is what the reader would hold.
    /// Gives the epoch in which it may be cached, if the registration was not broken in between.
    pub fn end_read(&mut self, now: Moment, name: &Name, made: Registration, found: bool) -> Option<Epoch> {
        self.expire(now);
        // Which names a change by prefix was about is not noted: it breaks every read that it overtook.
        let unbroken = match made.mark {
            _ if found && made.prefixes != self.prefixes.finished => false,
            Mark::Indexed(generation) if found => self.holders.rely(name, made.session, generation),
            Mark::Indexed(generation) => {
                // Unless another read of the session shares the registration and was told to cache.
                let useless = |h: &Holding| h.generation == generation && !h.relied_on;
                self.holders.unregister(name, made.session, useless);
                false
            }
            Mark::Wild { finished } => finished == self.finished,
        };
        let cacheable = found && unbroken && self.stands(&made) && !self.is_busy(name);
        cacheable.then(|| self.epoch(made.epoch))
    }

    /// Whether the session of `epoch` keeps "not found" answers.
    pub fn keeps_absences(&self, epoch: Epoch) -> bool {
        self.live(epoch).and_then(|no| self.by_no.get(&no)).is_some_and(|s| s.negatives)
    }

    /// The second half of a Resolve that found the name absent: gives the epoch in which that may be kept, for
    /// [`ABSENCE_TERM`] from the asking on, by a session that keeps such answers (rule 28).
    pub fn end_absent(&mut self, now: Moment, name: &Name, made: Registration) -> Option<Epoch> {
        let keeps = self.by_no.get(&made.session).is_some_and(|s| s.negatives);
        if !keeps {
            return self.end_read(now, name, made, false);
        }
        self.expire(now);
        let unbroken = match made.mark {
            Mark::Indexed(generation) => {
                let until = now + lengthened(ABSENCE_TERM);
                self.holders.rely_absent(name, made.session, generation, until)
            }
            Mark::Wild { finished } => finished == self.finished,
        };
        (unbroken && self.stands(&made) && !self.is_busy(name)).then(|| self.epoch(made.epoch))
    }

    /// Whether a registration made before the read still counts after it. Not if the session was told meanwhile to
    /// drop what it holds: its registrations end with its acknowledgement, and the answer comes after it was told.
    fn stands(&self, made: &Registration) -> bool {
        self.by_no.get(&made.session).is_some_and(|s| s.is_current(made.epoch) && !s.shedding)
    }

    /// Registers a session; `None` if the index is full: the session is then a wildcard.
    fn register(&mut self, session: SessionNo, name: &Name, reg_seq: RegSeq) -> Option<u64> {
        let state = self.by_no.get_mut(&session)?;
        if state.overflowed {
            return None;
        }
        let generation = self.holders.register(name, session, reg_seq);
        if generation.is_none() {
            state.overflowed = true;
            self.wildcards.insert(session);
        }
        generation
    }

    /// The session that `epoch` is current for, if its lease has not run out. [`Self::expire`] went before.
    fn live(&self, epoch: Epoch) -> Option<SessionNo> {
        let same = epoch.history == self.boot.history && epoch.boot == self.boot.number;
        self.by_epoch.get(&epoch.counter).copied().filter(|_| same)
    }

    fn epoch(&self, counter: u64) -> Epoch {
        Epoch { history: self.boot.history, boot: self.boot.number, counter }
    }

    /// When [`Self::tick`] is due at the latest; `None` = when something has happened.
    pub fn next_deadline(&self) -> Option<Moment> {
        let lease = self.lease_ends.first().map(|(at, _)| *at);
        let grace = (self.grace_end > Moment::ZERO).then_some(self.grace_end);
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        let absence = self.absences.first().map(|(at, ..)| *at);
        lease.into_iter().chain(grace).chain(deadline).chain(absence).min()
    }

    /// Time passes: ends sessions and the grace, sweeps a little. Returns whether there is more to sweep.
    pub fn tick(&mut self, now: Moment) -> bool {
        self.expire(now);
        self.requests.expire(self.born(now).at_ms);
        self.log.expire(now);
        self.holders.sweep()
    }

    /// Counts for status and metrics.
    pub fn counts(&self) -> Counts {
        Counts {
            sessions: self.by_no.len(),
            wildcards: self.wildcards.len(),
            registrations: self.holders.registrations(),
            ops: self.ops.len(),
            outcomes: self.requests.len(),
            log: self.log.len(),
            resumed: self.resumed,
            resyncs: self.resyncs,
        }
    }
}

/// How much the machine remembers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counts {
    /// Sessions whose lease has not run out.
    pub sessions: usize,
    /// Those treated as holders of every name.
    pub wildcards: usize,
    /// Registrations in the holder index, void ones not yet swept included.
    pub registrations: usize,
    /// Ops queued, draining or committing.
    pub ops: usize,
    /// Outcomes remembered.
    pub outcomes: usize,
    /// Changes remembered for Locals that come back.
    pub log: usize,
    /// Sessions of this boot whose Local was told what it had missed, and went on serving.
    pub resumed: u64,
    /// Times in this boot that a Local was to list what it holds because it fell behind.
    pub resyncs: u64,
}

/// A duration lengthened by the bound on clock rate error, rounded up.
pub(crate) fn lengthened(d: Duration) -> Duration {
    let error = (d.as_nanos() * u128::from(CLOCK_RATE_ERROR_PER_MILLE)).div_ceil(1000);
    d.saturating_add(Duration::from_nanos(u64::try_from(error).unwrap_or(u64::MAX)))
}
