//! One state of the world: both machines, what is on its way between them, and the callers.
//!
//! Invariant: whatever a later step depends on is written by [`State::words`], by which states are compared.

use crate::global::Global;
use crate::local::Local;
use crate::scenario::{Faults, Kind, Scenario};
use crate::seen::{Seen, Sightings};
use dstore_global::sessions::StreamId;
use dstore_shared::canon::{Canon, Canonical, Sort};
use dstore_shared::frame::{Down, Reply, Request, Up};
use dstore_shared::{Entry, HistoryId, Incarnation, LocalId, Moment, Name, RequestId};
use std::collections::VecDeque;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The one history there is.
pub(crate) const HISTORY: HistoryId = HistoryId(0xd5);
/// Nanoseconds of true time in a tick: half a lease.
const TICK: u64 = 1_000_000_000;
/// A clock that is not at its beginning, so that "before all" is not "now".
const FIRST_TICK: u64 = 16;

/// What all states of one search share.
pub(crate) struct Run {
    pub scenario: Scenario,
    pub seen: Sightings,
    pub names: [Name; 2],
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.scenario.name)
    }
}

/// One life of a Local, and one of its connections for requests.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Line {
    pub local: usize,
    pub who: (LocalId, Incarnation),
    pub connection: u64,
}

impl Line {
    pub fn canon(self, into: &mut Canon) {
        into.put(self.local as u64);
        into.named(Sort::Line, self.connection);
    }
}

/// A session stream: both directions are in order.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub id: u64,
    pub line: Line,
    pub up: VecDeque<Up>,
    pub down: VecDeque<Down>,
    /// What is sent from now on is lost; what is on its way arrives until its end has heard of it.
    pub cut: bool,
    /// Whether each end takes it for open.
    pub at_global: bool,
    pub at_local: bool,
}

/// How far an operation of a caller is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// It was not begun.
    Idle,
    /// A hit has loaded `valid_until`.
    Loaded(Moment),
    /// It has looked the name up.
    Looked(Moment, u8),
    /// The caller waits.
    Waiting,
    /// It was answered.
    Done,
    /// The Local died under it.
    Lost,
}

/// One operation of a caller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub stage: Stage,
    pub local: usize,
    pub kind: Kind,
    pub id: RequestId,
    /// Of a GET: the values that the name has had since the call began, as a set of bits.
    pub true_since: u8,
    /// Of a change: it was made, or found to change nothing.
    pub executed: bool,
}

/// One state of the world.
#[derive(Clone)]
pub struct State {
    pub(crate) run: Arc<Run>,
    pub(crate) ticks: u64,
    pub(crate) global: Arc<Global>,
    pub(crate) locals: [Arc<Local>; 2],
    pub(crate) streams: Vec<Stream>,
    pub(crate) next_stream: u64,
    pub(crate) asks: Vec<(Line, Request)>,
    pub(crate) replies: Vec<(Line, Reply)>,
    pub(crate) calls: Vec<Call>,
    pub(crate) left: Faults,
    /// What the last step has shown to be wrong.
    pub(crate) wrong: Option<&'static str>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let visible = &self.global.visible;
        let held: Vec<_> = self.locals.iter().map(|local| local.names.all()).collect();
        write!(f, "tick {} visible {visible:?} held {held:?} wrong {:?}", self.ticks, self.wrong)
    }
}

impl State {
    /// As the scenario begins: what was done before is at its end, and nothing is on its way.
    pub(crate) fn new(run: Arc<Run>) -> Self {
        let none = Faults { hellos: u8::MAX, ..Faults::default() };
        let local = |i| Arc::new(Local::new(&run.scenario, i, 1));
        let mut state = Self {
            ticks: FIRST_TICK,
            global: Arc::new(Global::new(Moment::ZERO, run.scenario.log_max)),
            locals: [local(0), local(1)],
            streams: Vec::new(),
            next_stream: 1,
            asks: Vec::new(),
            replies: Vec::new(),
            calls: Vec::new(),
            left: none,
            wrong: None,
            run,
        };
        state.global = Arc::new(Global::new(state.global_now(), state.run.scenario.log_max));
        state.prepare();
        let run = state.run.clone();
        state.left = run.scenario.faults;
        state.calls = run.scenario.ops.iter().map(|op| Call::idle(op.menu[0])).collect();
        state
    }

    pub(crate) fn is_planted(&self, planted: crate::Planted) -> bool {
        self.run.scenario.is_planted(planted)
    }

    pub(crate) fn note(&self, seen: Seen) {
        self.run.seen.note(seen);
    }

    /// The first thing that is wrong is what is told.
    pub(crate) fn wrong(&mut self, what: &'static str) {
        self.wrong.get_or_insert(what);
    }

    pub(crate) fn global(&mut self) -> &mut Global {
        Arc::make_mut(&mut self.global)
    }

    pub(crate) fn local(&mut self, i: usize) -> &mut Local {
        Arc::make_mut(&mut self.locals[i])
    }

    /// Global's clock.
    pub(crate) fn global_now(&self) -> Moment {
        let rate = if self.run.scenario.skewed { 1005 } else { 1000 };
        Moment::from_nanos(self.ticks * (TICK / 1000) * rate)
    }

    /// Nanoseconds of a Local's clock in a second.
    fn local_rate(&self) -> u64 {
        match () {
            () if self.is_planted(crate::Planted::SlowClock) => 800,
            () if self.run.scenario.skewed => 995,
            () => 1000,
        }
    }

    /// The clock of any Local.
    pub(crate) fn local_now(&self) -> Moment {
        Moment::from_nanos(self.ticks * (TICK / 1000) * self.local_rate())
    }

    /// The true time of a moment of a Local's clock, in microseconds, rounded up.
    pub(crate) fn true_of_local(&self, moment: Moment) -> u64 {
        moment.as_nanos().div_ceil(self.local_rate())
    }

    /// The true time of a moment of Global's clock, in microseconds, rounded up.
    pub(crate) fn true_of_global(&self, moment: Moment) -> u64 {
        let rate = if self.run.scenario.skewed { 1005 } else { 1000 };
        moment.as_nanos().div_ceil(rate)
    }

    /// The number of a name.
    pub(crate) fn key(&self, name: &Name) -> usize {
        usize::from(self.run.names[1] == *name)
    }

    pub(crate) fn stream_of(&mut self, id: u64) -> Option<&mut Stream> {
        self.streams.iter_mut().find(|stream| stream.id == id)
    }

    /// The line that a Local has now.
    pub(crate) fn line(&self, i: usize) -> Line {
        let local = &self.locals[i];
        Line { local: i, who: local.who, connection: local.connection }
    }

    /// The state in canonical form.
    pub fn words(&self) -> Vec<u64> {
        let into = &mut Canon::default();
        let (there, here) = (self.global_now(), self.local_now());
        // First, so that what is on the present lines is told from what is on those given up.
        self.locals.iter().for_each(|local| into.named(Sort::Line, local.connection));
        self.global.canon(there, self, into);
        for (i, local) in self.locals.iter().enumerate() {
            local.canon(here, self.ticks, &self.answerable(i), into);
        }
        into.count(self.streams.len());
        for stream in &self.streams {
            stream.canon(self, into);
        }
        into.count(self.asks.len());
        for (line, request) in &self.asks {
            line.canon(into);
            crate::frames::request(request, *line, into);
        }
        into.count(self.replies.len());
        for (line, reply) in &self.replies {
            line.canon(into);
            crate::frames::reply(reply, *line, into);
        }
        for call in &self.calls {
            call.canon(here, into);
        }
        let Faults { cuts, breaks, crashes, global_crashes, evictions, retries, hellos, ticks } = self.left;
        for left in [cuts, breaks, crashes, global_crashes, evictions, retries, hellos, ticks] {
            into.put(left);
        }
        into.put(self.wrong.is_some());
        std::mem::take(into).words()
    }

    /// The KEEPs of a Local that a LEASE on its way answers, or may answer yet.
    fn answerable(&self, i: usize) -> Vec<u64> {
        let session = self.locals[i].session;
        let Some(stream) = self.streams.iter().find(|s| Some(s.id) == session) else { return Vec::new() };
        let up = stream.up.iter().filter_map(|frame| match frame {
            Up::Keep { n, .. } => Some(*n),
            Up::Hello(_) => Some(0),
            _ => None,
        });
        let down = stream.down.iter().filter_map(|frame| match frame {
            Down::Lease { n, .. } => Some(*n),
            _ => None,
        });
        up.chain(down).chain(self.global.m.keep_waiting(StreamId(stream.id))).collect()
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.words().hash(state);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.words() == other.words()
    }
}

impl Eq for State {}

impl Stream {
    fn canon(&self, state: &State, into: &mut Canon) {
        into.named(Sort::Stream, self.id);
        into.put(self.line.local as u64);
        into.put(state.locals[self.line.local].who == self.line.who);
        for flag in [self.cut, self.at_global, self.at_local] {
            into.put(flag);
        }
        into.count(self.up.len());
        self.up.iter().for_each(|frame| crate::frames::up(frame, self.line, into));
        into.count(self.down.len());
        self.down.iter().for_each(|frame| crate::frames::down(frame, self.line, into));
    }
}

impl Call {
    pub fn idle((local, kind): (usize, Kind)) -> Self {
        let (stage, id) = (Stage::Idle, RequestId::default());
        Self { stage, local, kind, id, true_since: 0, executed: false }
    }

    /// Whether it was answered, or never will be.
    pub fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Done | Stage::Lost)
    }

    fn canon(&self, now: Moment, into: &mut Canon) {
        match self.stage {
            Stage::Idle => return into.put(0u8),
            Stage::Loaded(until) => {
                into.put(1u8);
                into.left(until, now);
            }
            Stage::Looked(until, value) => {
                into.put(2u8);
                into.left(until, now);
                into.put(value);
            }
            Stage::Waiting => into.put(3u8),
            Stage::Done => into.put(4u8),
            Stage::Lost => into.put(5u8),
        }
        into.put(self.executed);
        // A change that has ended may still be on its way.
        if matches!(self.kind, Kind::Get(_)) && matches!(self.stage, Stage::Done | Stage::Lost) {
            return;
        }
        into.put(self.local as u64);
        into.put(match self.kind {
            Kind::Get(key) => 1 << 16 | key as u64,
            Kind::Set(key, value) => 2 << 16 | (key as u64) << 8 | u64::from(value),
            Kind::Del(keys) => 3 << 16 | u64::from(keys),
        });
        into.put(self.id.born.boot);
        into.put(self.true_since);
    }
}

/// Who a Local is.
pub(crate) fn identity(scenario: &Scenario, i: usize, life: u64) -> (LocalId, Incarnation) {
    match (scenario.twins, i) {
        (true, 1) => (LocalId(1), Incarnation(life + 100)),
        (_, i) => (LocalId(i as u128 + 1), Incarnation(life)),
    }
}

/// The value of a binding; 0 = none.
pub(crate) fn value_of(entry: Option<Entry>) -> u8 {
    entry.map_or(0, |entry| entry.hash.as_bytes()[0])
}

/// Somebody who waits for an answer at a Local: the number of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Caller(pub usize);

impl Canonical for Caller {
    fn canon(&self, into: &mut Canon) {
        into.put(self.0 as u64);
    }
}

impl dstore_local::coherence::Waiter for Caller {
    fn is_gone(&self) -> bool {
        false
    }
}
