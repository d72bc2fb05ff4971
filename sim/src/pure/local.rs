//! A Local: the machine under test, its name table, and hits as a node makes them.
//!
//! ```text
//! calls -> hit (load, look, clock), or machine -> actions: frames, questions   streams: what comes down
//!                                                                              replies: answers, installs
//! ```

mod replies;
mod streams;

use super::config::Config;
use super::history::Told;
use super::many::Both;
use super::names::{Held, Names};
use super::net::{REQUEST_STREAMS, Slot};
use super::planted::Planted;
use super::rng::{Clock, MS, Rng, Time};
use super::world::{self, World};
use dstore_local::coherence::{Absences, Action, Bounds, Coherence, Identity, Waiter};
use dstore_shared::frame::{Down, Reply, Request, Up};
use dstore_shared::limits::CLOCK_RATE_ERROR_PER_MILLE;
use dstore_shared::{
    Blob, BlobHash, Command, Entry, Error, FlightId, Incarnation, LocalId, Moment, Name, RequestId,
};
use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug)]
pub(super) enum Event {
    Frame(u64, Down),
    Reply(Reply),
    Lost(u64),
    Connect(Slot),
    Keep,
    FlushAck,
    Get(Call, Name),
    /// A read of two names goes on.
    Both(Call, Both),
    Change(Call, RequestId, Command),
    /// A hit under way looks its name up, having loaded `valid_until`.
    Look(Call, Name, Moment),
    /// It reads the clock, having found a value.
    ReadClock(Call, Name, Moment, Held),
    /// It reads the clock, having found that there is no such name, until then.
    ReadClockAbsent(Call, Name, Moment),
    Blob(FlightId),
    Evict(Name),
    RemoveLate,
    Leave,
    Exit,
    /// It goes on after it stood still.
    Wake,
}

/// Somebody who waits for an answer.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub client: usize,
    /// The operation, by its number in the history.
    pub op: usize,
    pub gone: Rc<Cell<bool>>,
    /// It waits for one of several values only, so that it comes to be held: the operation is answered otherwise.
    pub part: bool,
}

impl Waiter for Call {
    fn is_gone(&self) -> bool {
        self.gone.get()
    }
}

/// A Local's machine: its clock outlives its processes.
#[derive(Debug)]
pub(super) struct Local {
    pub up: bool,
    /// Counts processes of this place.
    pub life: u64,
    /// Counts processes of all: the incarnation.
    incarnation: u64,
    pub clock: Clock,
    pub m: Coherence<Names, Call>,
    pub names: Names,
    /// "Not found" answers, if it keeps them.
    pub absences: Option<Arc<Absences>>,
    /// As hits see them.
    pub valid_until: Moment,
    pub era: u64,
    id: LocalId,
    session: Option<u64>,
    requests: [Option<u64>; REQUEST_STREAMS],
    found: BTreeMap<FlightId, (Name, Entry)>,
    asked: BTreeMap<FlightId, Name>,
    /// Reads of two names that wait for Global, by operation.
    pub both: BTreeMap<usize, Both>,
    /// With [`Planted::JoinsAnyFlight`]: who waits for a flight without having joined it.
    riders: Vec<(FlightId, Call)>,
    pub paused_until: Time,
    inbox: VecDeque<(u64, Event)>,
}

pub(super) fn hash_of(value: u64) -> BlobHash {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&value.to_le_bytes());
    BlobHash::from_bytes(bytes)
}

pub(super) fn value_of(hash: BlobHash) -> u64 {
    u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"))
}

impl Local {
    pub fn new(rng: &mut Rng, cfg: &Config, i: usize) -> Self {
        // One place more than there are Locals: a twin of the first.
        let id = LocalId((i % cfg.locals) as u128 + 1);
        Self {
            up: false,
            life: 0,
            incarnation: 0,
            clock: Clock::of(rng, cfg),
            m: machine(id, 0, cfg),
            names: Names::new(cfg.planted),
            absences: None,
            valid_until: Moment::ZERO,
            era: 0,
            id,
            session: None,
            requests: [None; REQUEST_STREAMS],
            found: BTreeMap::new(),
            asked: BTreeMap::new(),
            both: BTreeMap::new(),
            riders: Vec::new(),
            paused_until: 0,
            inbox: VecDeque::new(),
        }
    }

    pub fn identity(&self) -> (LocalId, Incarnation) {
        (self.id, Incarnation(self.incarnation))
    }

    /// Its session stream.
    pub fn session(&self) -> Option<u64> {
        self.session
    }
}

/// Callers that may wait for one flight: few, so that some are refused.
const WAITERS_MAX: usize = 4;

fn machine(local_id: LocalId, incarnation: u64, cfg: &Config) -> Coherence<Names, Call> {
    let label = format!("local {}", local_id.0);
    let identity = Identity { local_id, incarnation: Incarnation(incarnation), label };
    Coherence::new(identity, Bounds { flights_max: cfg.flights_max, waiters_max: WAITERS_MAX })
}

impl World {
    pub fn start_local(&mut self, i: usize) {
        // A twin that was on its way when the faults stopped stays away.
        if i >= self.homes() {
            return;
        }
        let planted = self.cfg.planted;
        self.incarnations += 1;
        let local = &mut self.locals[i];
        local.life += 1;
        local.incarnation = self.incarnations;
        local.up = true;
        local.m = machine(local.id, local.incarnation, &self.cfg);
        local.absences = None;
        if self.cfg.negatives && i.is_multiple_of(2) {
            // Few, so that there is not always room.
            let absences = Arc::new(Absences::new(2));
            local.absences = Some(absences.clone());
            local.m = machine(local.id, local.incarnation, &self.cfg).keeping(absences);
        }
        local.names = Names::new(planted);
        (local.valid_until, local.era) = (Moment::ZERO, 0);
        (local.session, local.requests) = (None, [None; REQUEST_STREAMS]);
        (local.found, local.asked) = (BTreeMap::new(), BTreeMap::new());
        (local.both, local.riders) = (BTreeMap::new(), Vec::new());
        (local.paused_until, local.inbox) = (0, VecDeque::new());
        self.local_event(i, 0, Event::Connect(Slot::Session));
        for n in 0..REQUEST_STREAMS {
            self.local_event(i, 0, Event::Connect(Slot::Requests(n)));
        }
        self.local_event(i, 1, Event::Keep);
    }

    pub fn crash_local(&mut self, i: usize) {
        if !std::mem::take(&mut self.locals[i].up) {
            return;
        }
        for stream in self.net.open_streams(Some(i)) {
            self.net.of(stream).at_local = false;
            self.cut(stream, self.is_calm());
        }
        let away = self.rng.between(1, 1_000) * MS;
        self.after(away, world::Event::LocalStarts(i));
    }

    pub fn local_event(&mut self, i: usize, delay: Time, event: Event) {
        let life = self.locals[i].life;
        self.after(delay, world::Event::Local(i, life, event));
    }

    pub fn reach_local(&mut self, i: usize, life: u64, event: Event) {
        let local = &mut self.locals[i];
        if life != local.life || !local.up {
            return;
        }
        if self.now < local.paused_until {
            return local.inbox.push_back((life, event));
        }
        while let Some((life, event)) = self.locals[i].inbox.pop_front() {
            if life == self.locals[i].life && self.locals[i].up {
                self.at_local(i, event);
            }
        }
        if self.locals[i].up {
            self.at_local(i, event);
        }
    }

    pub fn local_now(&self, i: usize) -> Moment {
        self.locals[i].clock.read(self.now)
    }

    fn at_local(&mut self, i: usize, event: Event) {
        let now = self.local_now(i);
        // A hit, or a question, changes nothing of what may be served.
        let reads = matches!(
            event,
            Event::Get(..)
                | Event::Both(..)
                | Event::Look(..)
                | Event::ReadClock(..)
                | Event::ReadClockAbsent(..)
        );
        if !reads {
            self.touched.locals |= 1 << i;
        }
        match event {
            Event::Frame(stream, frame) => self.frame_at_local(i, stream, frame),
            Event::Reply(reply) => self.reply_at_local(i, reply),
            Event::Lost(stream) => self.lost_at_local(i, stream),
            Event::Connect(slot) => self.connect(i, slot),
            Event::Keep => {
                self.locals[i].m.keep(now);
                let third = u64::try_from(self.cfg.lease.as_nanos() / 3).expect("a lease of some seconds");
                let delay = self.rng.between(third / 2, third);
                self.local_event(i, delay, Event::Keep);
                if self.rng.chance(50) {
                    self.locals[i].m.forget_abandoned();
                }
            }
            Event::FlushAck => self.locals[i].m.flush_ack(),
            Event::Get(call, name) => {
                let valid_until = self.locals[i].valid_until;
                self.step(i, Event::Look(call, name, valid_until));
            }
            Event::Both(call, both) => self.both(i, call, both),
            Event::Look(call, name, valid_until) => self.look(i, call, name, valid_until),
            Event::ReadClock(call, name, mut valid_until, held) => {
                if self.planted(Planted::LoadAfterLookup) {
                    valid_until = self.locals[i].valid_until;
                }
                if now < valid_until {
                    self.hits += 1;
                    self.answered(&call, Ok(Told::Got(Some(held.value))));
                } else {
                    self.miss(i, call, &name);
                }
            }
            Event::ReadClockAbsent(call, name, until) => {
                if now < until {
                    self.hits += 1;
                    self.answered(&call, Ok(Told::Got(None)));
                } else {
                    self.miss(i, call, &name);
                }
            }
            Event::Change(call, id, command) => {
                // What the blob is does not matter here: the simulator knows values by their hash.
                let own = matches!(command, Command::Set { .. }).then(|| Blob::hash(""));
                if let Err((e, call)) = self.locals[i].m.change(id, command, own, call) {
                    self.answered(&call, Err(e));
                }
            }
            Event::Blob(flight) if self.rng.chance(50) => {
                self.locals[i].found.remove(&flight);
                let waiting = self.locals[i].m.failed(flight);
                self.tell_all(waiting, &Err(Error::unavailable("the blob did not come")));
            }
            Event::Blob(flight) => self.complete(i, flight),
            Event::Evict(name) => {
                if let Some(reg_seq) = self.locals[i].names.evict(&name) {
                    self.locals[i].m.dropped(vec![(name, reg_seq)]);
                }
            }
            Event::Wake => {}
            Event::RemoveLate => self.locals[i].names.remove_late(),
            Event::Leave => {
                self.locals[i].m.leave();
                let soon = self.rng.between(1, 50) * MS;
                self.local_event(i, soon, Event::Exit);
            }
            Event::Exit => return self.crash_local(i),
        }
        self.after_local(i);
    }

    /// A hit goes on, at once or a little later: it holds no lock.
    pub(super) fn step(&mut self, i: usize, event: Event) {
        if self.rng.chance(850) {
            return self.at_local(i, event);
        }
        // Now and then its thread is not scheduled for long.
        let often = if self.siege().is_some_and(|siege| siege.local == i) { 500 } else { 100 };
        let long = if self.rng.chance(often) { 500_000 } else { 2_000 };
        let delay = self.rng.between(1, long) * 1_000;
        self.local_event(i, delay, event);
    }

    fn look(&mut self, i: usize, call: Call, name: Name, valid_until: Moment) {
        let local = &self.locals[i];
        let era = local.era;
        let any_era = self.planted(Planted::IgnoreEra);
        match local.names.get(&name).filter(|held| held.era >= era || any_era) {
            Some(held) => self.step(i, Event::ReadClock(call, name, valid_until, held)),
            None => match local.absences.as_ref().and_then(|absences| absences.get(name.as_bytes())) {
                Some(absent) => {
                    let until = valid_until.min(absent.until);
                    self.step(i, Event::ReadClockAbsent(call, name, until));
                }
                None => self.miss(i, call, &name),
            },
        }
    }

    fn miss(&mut self, i: usize, call: Call, name: &Name) {
        let now = self.local_now(i);
        if self.planted(Planted::JoinsAnyFlight) {
            let local = &mut self.locals[i];
            if let Some((flight, _)) = local.asked.iter().find(|(_, of)| *of == name) {
                return local.riders.push((*flight, call));
            }
        }
        if let Err((e, call)) = self.locals[i].m.read(now, name, None, call) {
            self.answered(&call, Err(e));
        }
    }

    /// Carries out what the machine wants.
    fn after_local(&mut self, i: usize) {
        loop {
            let actions = self.locals[i].m.take_actions();
            if actions.is_empty() {
                return;
            }
            for action in actions {
                self.carry_out(i, action);
            }
        }
    }

    fn carry_out(&mut self, i: usize, action: Action<Call>) {
        match action {
            Action::ValidUntil(until) if until > Moment::ZERO && self.planted(Planted::LeaseFromArrival) => {
                let arrived = self.local_now(i) + self.granted(i);
                self.locals[i].valid_until = until.max(arrived);
            }
            Action::ValidUntil(until) => self.locals[i].valid_until = until,
            Action::Era(era) => self.locals[i].era = era,
            Action::Send(frame) => self.send_up(i, frame),
            Action::Ask(request) => self.ask_global(i, request),
            Action::Found(flight, entry, _) => {
                let local = &mut self.locals[i];
                let name = local.asked.remove(&flight).or_else(|| local.m.name_of(flight));
                let name = name.expect("a name that was asked for");
                self.locals[i].found.insert(flight, (name, entry));
                if self.rng.chance(600) {
                    self.complete(i, flight);
                } else {
                    let fetch = self.rng.between(10, 6_000) * 1_000;
                    self.local_event(i, fetch, Event::Blob(flight));
                }
            }
            // Looks are not asked here, so nothing else is told than that a name is not bound.
            Action::Tell(waiting, entry, _) => {
                let got = entry.map(|entry| value_of(entry.hash));
                self.tell_all(waiting, &Ok(Told::Got(got)));
            }
            Action::TellMany(waiting, all) => self.told_both(i, waiting, &all),
            Action::Refused(waiting, e) => self.tell_all(waiting, &Err::<Told, Error>(e)),
            Action::Reconnect(why) => {
                self.violation(|| format!("a stream broke its order: {why}"));
            }
        }
    }

    /// How long a lease that is granted now may be relied upon.
    fn granted(&self, i: usize) -> Duration {
        let lease = self.locals[i].m.lease();
        lease.saturating_sub(lease * CLOCK_RATE_ERROR_PER_MILLE as u32 / 1000 + Duration::from_nanos(1))
    }

    fn send_up(&mut self, i: usize, frame: Up) {
        if let Some(stream) = self.locals[i].session {
            self.send(stream, true, world::Event::Up(stream, frame));
        }
    }

    fn ask_global(&mut self, i: usize, request: Request) {
        let name = match &request.ask {
            dstore_shared::frame::Ask::Resolve { name, .. } => Some(name.clone()),
            dstore_shared::frame::Ask::Change { command: Command::Set { name, .. }, .. } => {
                Some(name.clone())
            }
            dstore_shared::frame::Ask::ResolveMany { .. } | dstore_shared::frame::Ask::Change { .. } => None,
        };
        if let Some(name) = name {
            self.locals[i].asked.insert(request.flight, name);
        }
        let request = self.restamped(i, request);
        let n = self.rng.below(REQUEST_STREAMS);
        // What is not sent now goes out when a stream opens again.
        if let Some(stream) = self.locals[i].requests[n] {
            self.send(stream, true, world::Event::Ask(stream, request));
        }
    }

    /// With [`Planted::RestampsBorn`]: an attempt of an older boot passes for one of this.
    fn restamped(&self, i: usize, mut request: Request) -> Request {
        if self.planted(Planted::RestampsBorn)
            && let dstore_shared::frame::Ask::Change { id, .. } = &mut request.ask
            && let Some(born) = self.locals[i].m.born().filter(|born| born.boot > id.born.boot)
        {
            id.born = born;
        }
        request
    }
}
