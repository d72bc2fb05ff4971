//! Global: the machine under test, a committer, and a disk that survives what was synced.

use super::config::{Config, Fault, Planted};
use super::history::Told;
use super::local::value_of;
use super::rng::{Clock, MS, Rng, Time};
use super::world::{self, World};
use dstore_global::sessions::{
    Action, Answered, Boot, Caller, OpNo, Registration, Sessions, StreamId, Submission, Terms,
};
use dstore_shared::frame::{Answer, Ask, Down, Reply, Request, Resolved, Up};
use dstore_shared::{
    Command, DeleteOutcome, Entry, Epoch, Error, FlightId, HistoryId, Moment, Name, Outcome, RequestId,
    Result, Revision, SetOutcome,
};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

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
    /// With [`Planted::PiecemealDelete`]: the rest of a change is visible.
    Rest(Record),
    Finish(OpNo, Result<Outcome>, Revision),
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
}

/// A change as the journal has it.
#[derive(Clone, Debug)]
pub(super) struct Record {
    rev: Revision,
    id: RequestId,
    outcome: Outcome,
    changes: Vec<(Name, Option<Entry>)>,
}

#[derive(Debug)]
struct Batch {
    results: Vec<(OpNo, Result<Outcome>)>,
    records: Vec<Record>,
}

#[derive(Debug)]
struct Read {
    responder: Responder,
    epoch: Epoch,
    name: Name,
    reg_seq: dstore_shared::RegSeq,
    made: Option<Registration>,
    found: Option<Entry>,
    head: Revision,
}

/// One life of the process.
#[derive(Debug)]
pub(super) struct Process {
    pub m: Sessions<Job, Responder>,
    reads: BTreeMap<u64, Read>,
    queue: VecDeque<(OpNo, Job)>,
    batch: Option<Batch>,
    pub failed: bool,
    retiring: bool,
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
    /// Outcomes that the journal has.
    outcomes: Vec<(RequestId, Outcome)>,
    clean: bool,
    pub paused_until: Time,
    /// When it last stood still.
    pub last_pause: Time,
    inbox: VecDeque<(u64, Event)>,
    /// By session stream.
    epochs: BTreeMap<u64, Epoch>,
    terms: Terms,
    next_read: u64,
}

impl Global {
    pub fn new(rng: &mut Rng, cfg: &Config) -> Self {
        Self {
            clock: Clock::of(rng, cfg),
            boot: 0,
            process: None,
            visible: BTreeMap::new(),
            head: Revision(0),
            before: None,
            outcomes: Vec::new(),
            clean: true,
            paused_until: 0,
            last_pause: 0,
            inbox: VecDeque::new(),
            epochs: BTreeMap::new(),
            terms: Terms { holdings_max: cfg.holdings_max, ..Terms::for_lease(cfg.lease) },
            next_read: 0,
        }
    }

    /// The longest lease of an earlier process that may still run.
    fn grace(&self) -> Duration {
        let d = self.terms.lease;
        d + d * dstore_shared::limits::CLOCK_RATE_ERROR_PER_MILLE as u32 / 1000 + Duration::from_nanos(1)
    }
}

impl World {
    fn global_now(&self) -> Moment {
        self.global.clock.read(self.now)
    }

    fn machine(&mut self) -> &mut Sessions<Job, Responder> {
        &mut self.global.process.as_mut().expect("global is up").m
    }

    pub fn start_global(&mut self) {
        let clean = std::mem::take(&mut self.global.clean) || self.planted(Planted::SkipGrace);
        let grace = if clean { Duration::ZERO } else { self.global.grace() };
        let now = self.global_now();
        self.global.boot += 1;
        self.global.paused_until = 0;
        let boot =
            Boot { history: HISTORY, number: self.global.boot, head: self.global.head, at: now, grace };
        let mut m = Sessions::new(self.global.terms.clone(), boot);
        for (id, outcome) in &self.global.outcomes {
            m.restore_outcome(*id, outcome.clone());
        }
        let (reads, queue) = (BTreeMap::new(), VecDeque::new());
        let (failed, retiring, tick_at) = (false, false, None);
        self.global.process = Some(Process { m, reads, queue, batch: None, failed, retiring, tick_at });
        self.after_global();
    }

    /// The process is gone; of what it appended, the disk has a prefix.
    pub fn crash_global(&mut self) {
        let Some(mut process) = self.global.process.take() else { return };
        let batch = process.batch.take();
        let appended = batch.map_or(Vec::new(), |b| b.records);
        let kept = if appended.is_empty() { 0 } else { self.rng.between(0, appended.len() as u64) };
        if let Some(before) = self.global.before.take() {
            self.global.visible = before;
        }
        for record in appended.into_iter().take(kept as usize) {
            self.show(&record, true);
        }
        for stream in self.net.open_streams(None) {
            self.net.of(stream).at_global = false;
            self.cut(stream, self.is_calm());
        }
        self.global.inbox.clear();
        let most = self.rng.pick(&[30, 300, 1_500]);
        let away = self.rng.between(5, most) * MS;
        self.after(away, world::Event::GlobalStarts);
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
        match event {
            Event::Frame(stream, frame) => self.frame_at_global(stream, frame),
            Event::Ask(stream, request) => self.ask(stream, request),
            Event::Lost(stream) => {
                if self.planted(Planted::ReleaseOnStreamLoss)
                    && let Some(epoch) = self.global.epochs.remove(&stream)
                {
                    self.machine().bye(now, StreamId(stream), epoch);
                }
                self.machine().stream_lost(StreamId(stream));
            }
            Event::Tick => {
                let process = self.global.process.as_mut().expect("global is up");
                process.tick_at = None;
                while process.m.tick(now) {}
            }
            Event::Read(no) => self.read(no),
            Event::Answer(no) => self.answer_read(no),
            Event::Synced => self.synced(),
            Event::Rest(record) => self.show(&record, true),
            Event::Finish(op, result, head) => self.machine().finish(now, op, &result, head),
            Event::Wake => {}
            Event::Quiet => self.look_whether_quiet(),
            Event::Crash => return self.crash_global(),
        }
        if self.global.process.is_some() {
            self.after_global();
        }
    }

    fn frame_at_global(&mut self, stream: u64, frame: Up) {
        let now = self.global_now();
        let id = StreamId(stream);
        match frame {
            Up::Hello(hello) => match self.machine().hello(now, id, &hello) {
                Ok(epoch) => _ = self.global.epochs.insert(stream, epoch),
                Err(_) => self.close(stream, true),
            },
            Up::Keep { epoch, n, acked } => self.machine().keep(now, id, epoch, n, acked),
            Up::Ack { epoch, seq } => self.machine().ack(now, id, epoch, seq),
            Up::Summary { epoch, batch, names, last } => {
                let mut refused = Vec::new();
                for (i, listed) in (0..).zip(names) {
                    let made = self.machine().begin_read(now, epoch, &listed.name, listed.reg_seq);
                    let bound = self.global.visible.get(&listed.name).map(|e| e.bind_rev);
                    let equal = bound == Some(listed.bind_rev);
                    let held = made.and_then(|made| self.machine().end_read(now, &listed.name, made, equal));
                    if held.is_none() {
                        refused.push(i);
                    }
                }
                self.machine().summarized(now, id, epoch, batch, refused, last);
            }
            Up::Drop { epoch, names } => {
                for (name, reg_seq) in names {
                    self.machine().drop_name(now, id, epoch, &name, reg_seq);
                }
            }
            Up::Bye { epoch } => self.machine().bye(now, id, epoch),
        }
    }

    fn ask(&mut self, stream: u64, request: Request) {
        let now = self.global_now();
        let responder = Responder { stream, flight: request.flight };
        let Request { epoch, reg_seq, .. } = request;
        match request.ask {
            Ask::Resolve { name, cache, .. } => {
                let first = self.planted(Planted::ReadBeforeRegistering);
                let made = if cache && !first {
                    self.machine().begin_read(now, epoch, &name, reg_seq)
                } else {
                    None
                };
                let (found, head) = (None, Revision(0));
                let read = Read { responder, epoch, name, reg_seq, made, found, head };
                self.global.next_read += 1;
                let no = self.global.next_read;
                self.global.process.as_mut().expect("global is up").reads.insert(no, read);
                self.soon(Event::Read(no));
            }
            Ask::Change { id, command } => {
                let (names, drains) = match &command {
                    Command::Set { name, .. } => (vec![name.clone()], false),
                    Command::Delete { names } => (names.clone(), true),
                };
                let caller = (!drains && reg_seq.0 > 0).then_some(Caller { epoch, reg_seq });
                let job = Job { id, command };
                self.machine().submit(now, Submission { id, names, drains, job, caller, responder });
            }
        }
    }

    /// Another thread goes on, at once or a little later.
    fn soon(&mut self, event: Event) {
        let delay = if self.rng.chance(700) { 0 } else { self.rng.between(1, 3_000) * 1_000 };
        self.after(delay, world::Event::Global(self.global.boot, event));
    }

    fn read(&mut self, no: u64) {
        let head = self.global.head;
        let process = self.global.process.as_mut().expect("global is up");
        if let Some(read) = process.reads.get_mut(&no) {
            read.found = self.global.visible.get(&read.name).copied();
            read.head = head;
            self.soon(Event::Answer(no));
        }
    }

    fn answer_read(&mut self, no: u64) {
        let now = self.global_now();
        let process = self.global.process.as_mut().expect("global is up");
        let Some(mut read) = process.reads.remove(&no) else { return };
        if self.planted(Planted::ReadBeforeRegistering) {
            read.made = self.machine().begin_read(now, read.epoch, &read.name, read.reg_seq);
        }
        let found = read.found.is_some();
        let mut cacheable = read.made.and_then(|made| self.machine().end_read(now, &read.name, made, found));
        if self.planted(Planted::AlwaysCacheable) && found {
            cacheable = Some(read.epoch);
        }
        let resolved = Resolved { entry: read.found, carried: None, cacheable, head: read.head };
        self.reply(read.responder, Answer::Resolved(resolved));
    }

    fn reply(&mut self, to: Responder, answer: Answer) {
        let now = self.global_now();
        if self.net.of(to.stream).at_global {
            let born = self.machine().born(now);
            let reply = Reply { flight: to.flight, answer, born };
            self.send(to.stream, false, world::Event::Reply(to.stream, reply));
        }
    }

    /// Carries out what the machine wants, and sees that it is called again in time.
    fn after_global(&mut self) {
        let actions = self.machine().take_actions();
        let mut greeted = None;
        for action in actions {
            match action {
                Action::Send(stream, frame) => {
                    greeted = match &frame {
                        Down::Welcome { .. } => Some(stream),
                        Down::Lease { .. } => None,
                        _ => greeted,
                    };
                    let left_out = self.planted(Planted::NoRepeatedInvs) && greeted == Some(stream);
                    if left_out && matches!(frame, Down::Inv { .. }) {
                        continue;
                    }
                    self.send(stream.0, false, world::Event::Down(stream.0, frame));
                }
                Action::Close(stream, _) => self.close(stream.0, true),
                Action::Commit(op, job) => {
                    self.global.process.as_mut().expect("global is up").queue.push_back((op, job));
                }
                Action::Answer(to, Ok(Answered { outcome, cacheable })) => {
                    self.reply(to, Answer::Changed { outcome, cacheable });
                }
                Action::Answer(to, Err(e)) => self.reply(to, Answer::Failed(e)),
            }
        }
        self.commit_next();
        self.plan_tick();
    }

    fn plan_tick(&mut self) {
        let process = self.global.process.as_mut().expect("global is up");
        let due = process.m.next_deadline();
        if let Some(deadline) = due.filter(|_| due != process.tick_at) {
            process.tick_at = due;
            let late = self.rng.between(0, 2_000) * 1_000;
            let at = self.global.clock.time_of(deadline).max(self.now) + late;
            self.at(at, world::Event::Global(self.global.boot, Event::Tick));
        }
    }

    // ---- the committer

    /// Appends what is queued as one batch, if no batch is on its way.
    fn commit_next(&mut self) {
        let process = self.global.process.as_mut().expect("global is up");
        if process.batch.is_some() || process.queue.is_empty() || process.failed {
            return;
        }
        let jobs = std::mem::take(&mut process.queue);
        let mut batch = Batch { results: Vec::new(), records: Vec::new() };
        let mut head = self.global.head;
        for (op, job) in jobs {
            // Ops of one batch have no name in common: the state before the batch is the state before each.
            let outcome = self.outcome(&job.command, head.next());
            if let Some(changes) = changes(&job.command, &outcome) {
                head = head.next();
                batch.records.push(Record { rev: head, id: job.id, outcome: outcome.clone(), changes });
            }
            batch.results.push((op, Ok(outcome)));
        }
        if self.planted(Planted::VisibleBeforeSync) {
            self.global.before = Some(self.global.visible.clone());
            for record in &batch.records {
                self.global.apply(record);
            }
        }
        self.global.process.as_mut().expect("global is up").batch = Some(batch);
        let slow = if self.siege().is_some() { 100 } else { 20 };
        let sync = if self.rng.chance(slow) {
            self.rng.between(1, 80) * MS
        } else {
            self.rng.between(100, 900) * 1_000
        };
        self.after(sync, world::Event::Global(self.global.boot, Event::Synced));
    }

    fn outcome(&self, command: &Command, next: Revision) -> Outcome {
        match command {
            Command::Set { name, hash, size, .. } => Outcome::Set(match self.global.visible.get(name) {
                None => {
                    SetOutcome::Stored(Entry { hash: *hash, size: *size, bind_rev: next, expires_at: None })
                }
                Some(held) if held.hash == *hash => SetOutcome::Unchanged(*held),
                Some(held) => SetOutcome::Occupied(*held),
            }),
            Command::Delete { names } => {
                let removed: Vec<bool> = names.iter().map(|n| self.global.visible.contains_key(n)).collect();
                let revision = if removed.contains(&true) { next } else { Revision(next.0 - 1) };
                Outcome::Delete(DeleteOutcome { removed, revision })
            }
        }
    }

    /// The batch is durable: visible in one step, then its ops are finished one after the other.
    fn synced(&mut self) {
        let Some(batch) = self.global.process.as_mut().and_then(|p| p.batch.take()) else { return };
        if self.has(Fault::SyncFailures) && !self.is_calm() && self.rng.chance(4) {
            return self.sync_fails(batch);
        }
        self.global.before = None;
        let mut late = Vec::new();
        for record in &batch.records {
            if self.planted(Planted::FreeBeforeVisible) {
                late.push(record.clone());
            } else if self.planted(Planted::PiecemealDelete) && record.changes.len() > 1 {
                let (mut first, mut rest) = (record.clone(), record.clone());
                rest.changes = first.changes.split_off(1);
                late.push(rest);
                self.show(&first, false);
            } else {
                self.show(record, true);
            }
        }
        let head = self.global.head;
        let mut delay = 0;
        for rest in late {
            self.after(3 * MS, world::Event::Global(self.global.boot, Event::Rest(rest)));
        }
        for (op, result) in batch.results {
            delay += if self.rng.chance(500) { 0 } else { self.rng.between(1, 1_500) * 1_000 };
            let boot = self.global.boot;
            self.after(delay, world::Event::Global(boot, Event::Finish(op, result, head)));
        }
    }

    fn show(&mut self, record: &Record, whole: bool) {
        self.global.apply(record);
        self.global.outcomes.push((record.id, record.outcome.clone()));
        let mut changes: Vec<_> =
            record.changes.iter().map(|(name, e)| (self.key(name), e.map(|e| value_of(e.hash)))).collect();
        changes.sort_unstable();
        let first = self.history.visible(self.now, record.id, &changes, told(&record.outcome));
        if whole && !first && !self.planted(Planted::PiecemealDelete) {
            self.violation(|| format!("request {:?} took effect twice", record.id));
        }
    }

    /// The process goes on without writing, and dies soon.
    fn sync_fails(&mut self, batch: Batch) {
        let error = Error::unavailable("outcome unknown");
        for (op, _) in &batch.results {
            self.machine().fail(*op, &error);
        }
        let process = self.global.process.as_mut().expect("global is up");
        process.failed = true;
        // Whether it is on the disk will show.
        process.batch = Some(batch);
        let soon = self.rng.between(1, 500) * MS;
        self.after(soon, world::Event::Global(self.global.boot, Event::Crash));
    }

    // ---- stopping

    pub fn stop_global(&mut self) {
        let now = self.global_now();
        let process = self.global.process.as_mut().expect("global is up");
        process.retiring = true;
        process.m.retire(now);
        self.after_global();
        self.after(10 * MS, world::Event::Global(self.global.boot, Event::Quiet));
    }

    fn look_whether_quiet(&mut self) {
        let now = self.global_now();
        let process = self.global.process.as_mut().expect("global is up");
        process.m.tick(now);
        let idle = process.batch.is_none() && process.queue.is_empty() && process.m.counts().ops == 0;
        if process.m.is_quiet(now) && idle {
            self.global.clean = true;
            return self.crash_global();
        }
        self.after(10 * MS, world::Event::Global(self.global.boot, Event::Quiet));
    }

    pub fn is_stopping(&self) -> bool {
        self.global.process.as_ref().is_none_or(|p| p.retiring || p.failed)
    }
}

impl Global {
    fn apply(&mut self, record: &Record) {
        self.head = self.head.max(record.rev);
        for (name, entry) in &record.changes {
            match entry {
                Some(entry) => _ = self.visible.insert(name.clone(), *entry),
                None => _ = self.visible.remove(name),
            }
        }
    }
}

/// What a command changes, if anything.
fn changes(command: &Command, outcome: &Outcome) -> Option<Vec<(Name, Option<Entry>)>> {
    match (command, outcome) {
        (Command::Set { name, .. }, Outcome::Set(SetOutcome::Stored(e))) => {
            Some(vec![(name.clone(), Some(*e))])
        }
        (Command::Delete { names }, Outcome::Delete(d)) => {
            let removed = names.iter().zip(&d.removed).filter(|(_, removed)| **removed);
            let changes: Vec<_> = removed.map(|(name, _)| (name.clone(), None)).collect();
            (!changes.is_empty()).then_some(changes)
        }
        _ => None,
    }
}

pub(super) fn told(outcome: &Outcome) -> Told {
    match outcome {
        Outcome::Set(SetOutcome::Stored(_)) => Told::Stored,
        Outcome::Set(SetOutcome::Unchanged(_)) => Told::Unchanged,
        Outcome::Set(SetOutcome::Occupied(e)) => Told::Occupied(value_of(e.hash)),
        Outcome::Set(SetOutcome::NeedBlob) => unreachable!("every value travels along"),
        Outcome::Delete(d) => Told::Removed(d.removed.clone()),
    }
}
