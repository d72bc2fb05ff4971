//! Global: the machine under test, a committer, and a disk that survives what was synced.
//!
//! ```text
//! doors: frames, requests -> machine -> actions: frames, answers, jobs -> committer: batch, sync, visible
//! life: start, stop, crash
//! ```
//! It decides nothing that the machine decides, but for the bugs that are planted here.

mod committer;
mod doors;
mod life;
mod planted;

pub(super) use committer::told;

use super::config::Config;
use super::planted::Planted;
use super::rng::{Clock, MS, Rng, Time, lengthened};
use super::world::{self, World};
use dstore_global::change::Commit;
use dstore_global::feed::Log;
use dstore_global::sessions::{Action, Answered, LogBounds, OpNo, Registration, Sessions, StreamId, Terms};
use dstore_shared::frame::{Answer, Down, Request, Resumption, Up};
use dstore_shared::{Command, Entry, Epoch, FlightId, HistoryId, Moment, Name, Outcome, RequestId, Revision};
use planted::Sabotage;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// How long after its time the machine may be called.
pub(super) const TICK_LATE_MAX: Duration = Duration::from_millis(2);
const HISTORY: HistoryId = HistoryId(0xd5);

#[derive(Debug)]
pub(super) enum Event {
    Frame(u64, Up),
    Ask(u64, Request),
    Lost(u64),
    Tick,
    /// The index is read for a Resolve, some time after its reader was registered.
    Read(u64),
    Answer(u64),
    Synced,
    /// Longer leases may be granted: that is on the disk.
    LeaseAllowed(Duration),
    /// With [`Planted::PiecemealDelete`]: the rest of a change is visible.
    Rest(Record),
    Finish(Box<Finish>),
    Quiet,
    Crash,
    /// It goes on after it stood still.
    Wake,
}

/// Who waits for an outcome.
#[derive(Clone, Copy, Debug)]
pub(super) struct Responder {
    stream: u64,
    flight: FlightId,
}

#[derive(Debug)]
pub(super) struct Job {
    id: RequestId,
    command: Command,
    /// Whoever asked first.
    responder: Responder,
    /// Whether the holders of its names were waited for.
    drained: bool,
}

/// The end of an op, once what it did is visible.
#[derive(Clone, Debug)]
pub(super) struct Finish {
    op: OpNo,
    id: RequestId,
    outcome: Outcome,
    head: Revision,
    asynchronous: bool,
    /// Of a DEL by prefix: what it unbound.
    gone: Option<Vec<Name>>,
}

/// A change as the journal has it.
#[derive(Clone, Debug)]
pub(super) struct Record {
    rev: Revision,
    id: RequestId,
    outcome: Outcome,
    changes: Vec<(Name, Option<Entry>)>,
    asynchronous: bool,
}

#[derive(Debug)]
struct Batch {
    ends: Vec<Finish>,
    records: Vec<Record>,
}

#[derive(Debug)]
struct Read {
    responder: Responder,
    epoch: Epoch,
    /// The names, each with the registration it asks for, the one it got, and what it is bound to.
    asked: Vec<Asked>,
    head: Revision,
    /// It was asked for many at once.
    is_many: bool,
}

#[derive(Debug)]
struct Asked {
    name: Name,
    reg_seq: dstore_shared::RegSeq,
    made: Option<Registration>,
    found: Option<Entry>,
}

/// One life of the process.
#[derive(Debug)]
pub(super) struct Process {
    pub m: Sessions<Job, Responder>,
    reads: BTreeMap<u64, Read>,
    queue: VecDeque<(OpNo, Job)>,
    batch: Option<Batch>,
    pub failed: bool,
    pub feed: Log,
    /// How long leases of earlier processes may run on.
    pub grace: Duration,
    /// The longest lease that it granted.
    pub granted: Duration,
    retiring: bool,
    /// A longer lease is being made durable.
    allowing: bool,
    tick_at: Option<Moment>,
}

/// Global's machine: its disk and clock outlive its processes.
#[derive(Debug)]
pub(super) struct Global {
    pub clock: Clock,
    /// Counts processes; durable.
    pub boot: u64,
    pub process: Option<Process>,
    /// What readers see, or would if there were a process.
    pub visible: BTreeMap<Name, Entry>,
    head: Revision,
    /// With [`Planted::VisibleBeforeSync`]: what was visible before the batch on its way.
    before: Option<BTreeMap<Name, Entry>>,
    /// Outcomes that the journal or a checkpoint has.
    outcomes: VecDeque<(RequestId, Outcome)>,
    /// What the journal has, by revision.
    pub commits: VecDeque<Commit>,
    /// Everything up to here it has no more.
    pub forgotten: Revision,
    /// The longest lease that may have been granted; durable.
    lease_max: Duration,
    clean: bool,
    /// A Local kept absences, ever; durable.
    negatives: bool,
    /// There were asynchronous DELs since the last clean stop; durable.
    async_dels: bool,
    pub paused_until: Time,
    inbox: VecDeque<(u64, Event)>,
    /// By session stream.
    epochs: BTreeMap<u64, Epoch>,
    terms: Terms,
    next_read: u64,
    sabotage: Sabotage,
}

/// Outcomes that are durable, at most: those of the last minutes.
const OUTCOMES_KEPT: usize = 2_000;
/// Commits that the journal has, at most.
const COMMITS_KEPT: usize = 4_000;

impl Global {
    pub fn new(rng: &mut Rng, cfg: &Config) -> Self {
        Self {
            clock: Clock::of(rng, cfg),
            boot: 0,
            process: None,
            visible: BTreeMap::new(),
            head: Revision(0),
            before: None,
            outcomes: VecDeque::new(),
            commits: VecDeque::new(),
            forgotten: Revision(0),
            lease_max: cfg.lease,
            clean: true,
            negatives: false,
            async_dels: false,
            paused_until: 0,
            inbox: VecDeque::new(),
            epochs: BTreeMap::new(),
            terms: Terms {
                holdings_max: cfg.holdings_max,
                sessions_at_lease: cfg.sessions_at_lease,
                log: LogBounds { revisions_max: cfg.log_max, ..LogBounds::default() },
                replay_max: cfg.replay_max,
                outcomes_max: cfg.outcomes_max,
                ops_max: cfg.ops_max,
                ..planted::terms(cfg)
            },
            next_read: 0,
            sabotage: Sabotage::default(),
        }
    }

    /// The newest visible revision.
    pub fn head(&self) -> Revision {
        self.head
    }

    /// A change that the journal has.
    pub fn remember(&mut self, commit: Commit) {
        self.commits.push_back(commit);
        if self.commits.len() > COMMITS_KEPT
            && let Some(oldest) = self.commits.pop_front()
        {
            self.forgotten = oldest.revision;
        }
    }

    /// Whether the journal has what a request did.
    pub fn has_durable(&self, id: RequestId) -> bool {
        self.outcomes.iter().rev().any(|(of, _)| (of.client, of.n) == (id.client, id.n))
    }

    /// The longest lease of an earlier process that may still run.
    fn grace(&self) -> Duration {
        lengthened(self.lease_max)
    }
}

impl World {
    fn global_now(&self) -> Moment {
        self.global.clock.read(self.now)
    }

    fn machine(&mut self) -> &mut Sessions<Job, Responder> {
        &mut self.global.process.as_mut().expect("global is up").m
    }

    pub fn reach_global(&mut self, boot: u64, event: Event) {
        if boot != self.global.boot || self.global.process.is_none() {
            return;
        }
        if self.now < self.global.paused_until {
            return self.global.inbox.push_back((boot, event));
        }
        // What came while it stood still goes first.
        while let Some((boot, event)) = self.global.inbox.pop_front() {
            if boot == self.global.boot && self.global.process.is_some() {
                self.at_global(event);
            }
        }
        if self.global.process.is_some() {
            self.at_global(event);
        }
    }

    fn at_global(&mut self, event: Event) {
        let now = self.global_now();
        self.touched.global = true;
        match event {
            Event::Frame(stream, frame) => self.frame_at_global(stream, frame),
            Event::Ask(stream, request) => self.ask(stream, request),
            Event::Lost(stream) if self.hides_loss(now, stream) => {}
            Event::Lost(stream) => self.machine().stream_lost(StreamId(stream)),
            Event::Tick => {
                let process = self.global.process.as_mut().expect("global is up");
                // Another was planned since, for an earlier moment, or is to come for a later one.
                if process.tick_at.is_some_and(|at| at <= now) {
                    process.tick_at = None;
                    while process.m.tick(now) {}
                }
            }
            Event::Read(no) => self.read(no),
            Event::Answer(no) => self.answer_read(no),
            Event::Synced => self.synced(),
            Event::LeaseAllowed(length) => {
                self.global.lease_max = self.global.lease_max.max(length);
                let process = self.global.process.as_mut().expect("global is up");
                process.allowing = false;
                process.m.allow_lease(length);
            }
            Event::Rest(record) => self.show(&record, true),
            Event::Finish(end) => self.end_op(now, *end),
            Event::Wake => {}
            Event::Quiet => self.look_whether_quiet(),
            Event::Crash => return self.crash_global(),
        }
        if self.global.process.is_some() {
            self.after_global();
        }
    }

    fn end_op(&mut self, now: Moment, end: Finish) {
        let Finish { op, id, outcome, head, asynchronous, gone } = end;
        self.note_finished(id, &outcome);
        match gone {
            Some(gone) => self.machine().finish_prefix(now, op, outcome, head, &gone),
            None => self.machine().finish(now, op, &Ok(outcome), head),
        }
        if asynchronous {
            self.bound_told(id);
        }
    }

    /// Carries out what the machine wants, and sees that it is called again in time.
    fn after_global(&mut self) {
        loop {
            let actions = self.machine().take_actions();
            if actions.is_empty() {
                break;
            }
            self.carry_out_all(actions);
        }
        self.commit_next();
        self.allow_lease();
        self.plan_tick();
    }

    /// Has a longer lease made durable, which takes a while.
    fn allow_lease(&mut self) {
        let boot = self.global.boot;
        let process = self.global.process.as_mut().expect("global is up");
        if let Some(length) = process.m.lease_to_allow().filter(|_| !process.allowing) {
            process.allowing = true;
            let sync = self.rng.between(1, 100) * MS;
            self.after(sync, world::Event::Global(boot, Event::LeaseAllowed(length)));
        }
    }

    /// A frame for a Local waits in a queue of some length, whose last place is for a RESYNC.
    fn send_session(&mut self, to: StreamId, frame: Down) {
        let (resync, most) = (matches!(frame, Down::Resync { .. }), self.cfg.queue_max);
        let stream = self.net.of(to.0);
        if stream.cut || stream.queue.stopped && !resync {
            return;
        }
        if stream.queue.len + usize::from(!resync) >= most {
            if resync {
                return self.violation(|| "a RESYNC found no room".to_owned());
            }
            stream.queue.stopped = true;
            self.resyncs += 1;
            return self.machine().overflowed(to);
        }
        stream.queue.stopped = false;
        stream.queue.len += 1;
        self.send(to.0, false, world::Event::Down(to.0, frame));
    }

    fn carry_out_all(&mut self, mut actions: Vec<Action<Job, Responder>>) {
        self.reorder(&mut actions);
        for action in actions {
            match action {
                Action::Send(stream, frame) => {
                    let process = self.global.process.as_mut().expect("global is up");
                    match &frame {
                        Down::Welcome { resumption: Resumption::Resume, .. } => self.resumed += 1,
                        Down::Lease { lease, .. } => process.granted = process.granted.max(*lease),
                        _ => {}
                    }
                    if let Some(frame) = self.doctored(stream, frame) {
                        self.send_session(stream, frame);
                    }
                }
                Action::Close(..) if self.planted(Planted::KeepRevives) => {}
                Action::Close(stream, _) => self.close(stream.0, true),
                Action::Commit(op, job) => {
                    self.global.process.as_mut().expect("global is up").queue.push_back((op, job));
                }
                Action::Answer(to, Ok(Answered { outcome, cacheable, stale })) => {
                    self.reply(to, Answer::Changed { outcome, cacheable, stale });
                }
                Action::Answer(to, Err(e)) => self.reply(to, Answer::Failed(e)),
            }
        }
        self.ack_for_the_spared();
    }

    /// How long, in the time of the world, a lease may run on that an asynchronous DEL did not wait for: as Global
    /// states it by its clock, and its clock may be wrong by ρ.
    fn longest_lingering(&self) -> Time {
        let told = self.global.terms.ack_max_at(self.global.lease_max) + self.global.grace();
        u64::try_from((told * 1006 / 1000).as_nanos()).expect("some seconds") + 1_000
    }

    /// An asynchronous DEL was answered.
    fn bound_told(&mut self, id: RequestId) {
        let until = self.now + self.longest_lingering();
        self.history.bounded(self.now, Some(id), until);
        let only = self.machine().counts().ops == 1;
        if self.planted(Planted::AsyncFreesAtCommit) && only {
            let (now, epochs) = (self.global_now(), self.global.epochs.clone());
            for (stream, epoch) in epochs {
                self.machine().ack(now, StreamId(stream), epoch, u64::MAX);
            }
        }
    }

    fn plan_tick(&mut self) {
        let process = self.global.process.as_mut().expect("global is up");
        let due = process.m.next_deadline();
        // One that comes too early plans the next: leases are renewed all the time.
        if let Some(deadline) = due.filter(|due| process.tick_at.is_none_or(|at| *due < at)) {
            process.tick_at = due;
            let late = self.rng.between(0, TICK_LATE_MAX.as_micros() as u64) * 1_000;
            let at = self.global.clock.time_of(deadline).max(self.now) + late;
            self.at(at, world::Event::Global(self.global.boot, Event::Tick));
        }
    }
}
