//! Global: its machine, what readers see, a committer, and what its disk keeps.
//!
//! It decides nothing that the machine decides, but for the bugs that are planted here.

mod commit;
mod doors;

use crate::planted::Planted;
use crate::seen::Seen;
use crate::state::{HISTORY, Line, State};
use dstore_global::sessions::{
    Action, Answered, Boot, LogBounds, OpNo, Registration, Sessions, StreamId, Terms,
};
use dstore_shared::canon::{Canon, Canonical, Sort};
use dstore_shared::frame::{Answer, Down, Reply, Resumption, Up};
use dstore_shared::limits::LEASE;
use dstore_shared::{
    Born, Command, Entry, Epoch, FlightId, Moment, Name, Outcome, RegSeq, RequestId, Revision,
};
use std::time::Duration;

/// Who waits for an outcome.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Responder {
    pub line: Line,
    pub flight: FlightId,
}

impl Canonical for Responder {
    fn canon(&self, into: &mut Canon) {
        self.line.canon(into);
        let (local, life) = self.line.who;
        into.ranked(Sort::flights(local, life), self.flight.0);
    }
}

/// The work of an op.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub id: RequestId,
    pub command: Command,
}

/// A Resolve between the registration of its reader and the answer.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub to: Responder,
    pub epoch: Epoch,
    pub reg_seq: RegSeq,
    pub name: Name,
    pub made: Option<Registration>,
    /// The index was looked at.
    pub looked: bool,
    pub found: Option<Entry>,
}

/// One life of the process, and what the disk keeps over all of them.
#[derive(Clone, Debug)]
pub(crate) struct Global {
    pub m: Sessions<Job, Responder>,
    pub boot: u64,
    /// What readers see; it is on the disk.
    pub visible: [Option<Entry>; 2],
    pub head: Revision,
    /// Drained, and with the committer.
    pub queue: Vec<(OpNo, Job)>,
    /// Visible, and not finished.
    pub shown: Vec<(OpNo, Outcome, Revision)>,
    pub reads: Vec<Read>,
    /// Listings that wait for the grace to end.
    pub listings: Vec<(u64, Up)>,
    /// Outcomes that the journal has.
    pub outcomes: Vec<(RequestId, Outcome)>,
    /// Names that became void, by revision, as the journal has them.
    pub voided: Vec<(Revision, Vec<Name>)>,
    /// With [`Planted::VisibleBeforeSync`]: what is on the disk.
    pub durable: Option<[Option<Entry>; 2]>,
    /// With [`Planted::ReleaseOnStreamLoss`]: the session that each Local has. It follows from the machine.
    pub sessions: [Option<(StreamId, Epoch)>; 2],
}

fn terms(log_max: usize) -> Terms {
    Terms {
        // As many as there may be: an index of few parts is quicker to copy.
        holdings_max: 16,
        log: LogBounds { revisions_max: log_max, ..LogBounds::default() },
        ..Terms::for_lease(LEASE)
    }
}

/// How long leases of before a restart may run: D, for a clock that is fast.
fn grace() -> Duration {
    LEASE + LEASE * dstore_shared::limits::CLOCK_RATE_ERROR_PER_MILLE as u32 / 1000
}

impl Global {
    /// The first boot of an empty directory.
    pub fn new(now: Moment, log_max: usize) -> Self {
        let boot = Boot {
            history: HISTORY,
            number: 1,
            head: Revision(0),
            at: now,
            grace: Duration::ZERO,
            all_wait: false,
        };
        Self {
            m: Sessions::new(terms(log_max), boot),
            boot: 1,
            visible: [const { None }; 2],
            head: Revision(0),
            queue: Vec::new(),
            shown: Vec::new(),
            reads: Vec::new(),
            listings: Vec::new(),
            outcomes: Vec::new(),
            voided: Vec::new(),
            durable: None,
            sessions: [None; 2],
        }
    }

    pub fn canon(&self, now: Moment, state: &State, into: &mut Canon) {
        self.m.canon(now, into);
        for entry in &self.visible {
            entry.canon(into);
        }
        into.count(self.queue.len());
        self.queue.iter().for_each(|(op, _)| into.named(Sort::Op, op.0));
        into.count(self.shown.len());
        for (op, outcome, head) in &self.shown {
            into.named(Sort::Op, op.0);
            outcome.canon(into);
            into.put(head.0);
        }
        into.count(self.reads.len());
        for read in &self.reads {
            read.canon(self.boot, into);
        }
        into.count(self.listings.len());
        for (stream, frame) in &self.listings {
            into.named(Sort::Stream, *stream);
            if let Some(stream) = state.streams.iter().find(|s| s.id == *stream) {
                crate::frames::up(frame, stream.line, into);
            }
        }
        into.maybe(self.durable.clone(), |into, durable| durable.iter().for_each(|entry| entry.canon(into)));
        if state.left.global_crashes > 0 {
            self.canon_journal(into);
        }
    }

    /// It matters for a boot to come only.
    fn canon_journal(&self, into: &mut Canon) {
        into.count(self.outcomes.len());
        for (id, outcome) in &self.outcomes {
            into.put(id.client.0 as u64);
            outcome.canon(into);
        }
        into.count(self.voided.len());
        for (revision, names) in &self.voided {
            into.put(revision.0);
            names.iter().for_each(|name| name.canon(into));
        }
    }
}

impl Read {
    fn canon(&self, boot: u64, into: &mut Canon) {
        self.to.canon(into);
        into.epoch(self.epoch);
        self.name.canon(into);
        into.maybe(self.made.as_ref(), |into, made| made.canon(boot, into));
        into.put(self.looked);
        self.found.canon(into);
        // By Planted::ReadBeforeRegistering it is asked for later.
        let (local, life) = self.to.line.who;
        into.ranked(Sort::registrations(local, life), self.reg_seq.0);
    }
}

impl State {
    /// Gives the machine an event, and carries out what it wants.
    pub(crate) fn at_global<T>(
        &mut self,
        event: impl FnOnce(&mut Sessions<Job, Responder>, Moment) -> T,
    ) -> T {
        let now = self.global_now();
        let result = event(&mut self.global().m, now);
        self.carry_out_global();
        result
    }

    fn carry_out_global(&mut self) {
        loop {
            let mut actions = self.global().m.take_actions();
            if actions.is_empty() {
                return;
            }
            if self.is_planted(Planted::LeaseBeforeInvs) {
                lease_first(&mut actions);
            }
            let mut greeting = false;
            for action in actions {
                match action {
                    Action::Send(stream, frame) => {
                        greeting |= matches!(frame, Down::Welcome { .. });
                        greeting &= !matches!(frame, Down::Lease { .. });
                        let repeated = greeting && matches!(frame, Down::Inv { .. });
                        if !repeated || !self.is_planted(Planted::NoRepeatedInvs) {
                            self.send_down(stream, frame);
                        }
                    }
                    Action::Close(stream, _) => self.close(stream.0),
                    Action::Commit(op, job) => self.global().queue.push((op, job)),
                    Action::Answer(to, Ok(Answered { outcome, cacheable, stale })) => {
                        self.reply(to, Answer::Changed { outcome, cacheable, stale });
                    }
                    Action::Answer(to, Err(e)) => self.reply(to, Answer::Failed(e)),
                }
            }
        }
    }

    fn send_down(&mut self, to: StreamId, frame: Down) {
        let forged = match &frame {
            Down::Inv { epoch, seq, .. } if self.is_planted(Planted::CommitBeforeAcked) => {
                Some((*epoch, *seq))
            }
            _ => None,
        };
        if let Some(stream) = self.stream_of(to.0).filter(|stream| !stream.cut && stream.at_local) {
            stream.down.push_back(frame);
        }
        if let Some((epoch, seq)) = forged {
            let now = self.global_now();
            self.global().m.ack(now, to, epoch, seq);
        }
    }

    /// Answers on the line that asked, if there still is one.
    pub(crate) fn reply(&mut self, to: Responder, answer: Answer) {
        if to.line != self.line(to.line.local) || self.locals[to.line.local].broken {
            return;
        }
        let born = Born { history: HISTORY, boot: self.global.boot, at_ms: 0 };
        let reply = Reply { flight: to.flight, answer, born, journal_ms: 0 };
        let at = self.replies.partition_point(|(line, r)| (*line, r.flight) < (to.line, to.flight));
        self.replies.insert(at, (to.line, reply));
    }

    /// What a WELCOME means for a Local that holds names.
    pub(crate) fn note_welcome(&self, frame: &Down, holds: bool) {
        if let Down::Welcome { resumption, .. } = frame
            && holds
        {
            self.note(if *resumption == Resumption::Resume { Seen::Resume } else { Seen::Compacted });
        }
    }

    /// Global dies and is back at once; `kept`: what was with the committer is on the disk.
    pub(crate) fn crash_global(&mut self, kept: bool) {
        if !self.global.queue.is_empty() || !self.global.shown.is_empty() {
            self.note(Seen::GlobalCrash);
        }
        if kept {
            self.show();
        } else if let Some(durable) = &self.global.durable {
            self.global().visible = durable.clone();
        }
        for stream in &mut self.streams {
            (stream.at_global, stream.cut) = (false, true);
            stream.up.clear();
        }
        self.asks.clear();
        self.replies.clear();
        for i in 0..2 {
            self.local(i).broken = true;
        }
        self.boot();
        self.forget_streams();
    }

    fn boot(&mut self) {
        let at = self.global_now();
        let skips = self.is_planted(Planted::SkipGrace);
        let log_max = self.run.scenario.log_max;
        let global = self.global();
        let number = global.boot + 1;
        let grace = if skips { Duration::ZERO } else { grace() };
        let boot = Boot { history: HISTORY, number, head: global.head, at, grace, all_wait: false };
        let mut m = Sessions::new(terms(log_max), boot);
        for (id, outcome) in &global.outcomes {
            m.restore_outcome(*id, outcome.clone());
        }
        m.restore_log(Revision(0), global.voided.iter().cloned());
        (global.m, global.boot) = (m, number);
        (global.queue, global.shown, global.reads, global.listings) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        (global.durable, global.sessions) = (None, [None; 2]);
    }
}

/// Moves the first LEASE of a session to right behind its WELCOME.
fn lease_first(actions: &mut Vec<Action<Job, Responder>>) {
    let welcome = actions.iter().position(|a| matches!(a, Action::Send(_, Down::Welcome { .. })));
    let lease = actions.iter().position(|a| matches!(a, Action::Send(_, Down::Lease { n: 0, .. })));
    if let (Some(welcome), Some(lease)) = (welcome, lease) {
        let lease = actions.remove(lease);
        actions.insert(welcome + 1, lease);
    }
}
