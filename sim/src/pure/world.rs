//! The virtual world: what happens next, to whom.
//!
//! Everything random comes from the seed, and nothing depends on the order of a hash map, so that a seed
//! replays to the same trace.

use super::agenda::Agenda;
use super::check::{Became, Touched};
use super::client::Client;
use super::config::{Config, Fault, Report};
use super::global::{self, Global};
use super::history::History;
use super::keys;
use super::local::{self, Local};
use super::net::Net;
use super::planted::Planted;
use super::rng::{MS, Rng, Time};
use super::siege::Siege;
use super::watch::{self, Watcher};
use dstore_shared::Name;
use dstore_shared::frame::{Down, Reply, Request, Up};

/// How long everything has to come to its end after the last fault: the longest lease, and some.
const CALM: Time = 15_000 * MS;
/// A run that has found this many violations is over.
const VIOLATIONS_MAX: usize = 3;

#[derive(Debug)]
pub(super) enum Event {
    /// To Global, of the given boot.
    Global(u64, global::Event),
    /// To a Local, of the given life.
    Local(usize, u64, local::Event),
    Client(usize, super::client::Event),
    Watcher(usize, watch::Event),
    /// A frame arrives.
    Up(u64, Up),
    Down(u64, Down),
    Ask(u64, Request),
    Reply(u64, Reply),
    /// An end learns that a stream is no more.
    LostAtGlobal(u64),
    LostAtLocal(u64),
    GlobalStarts,
    LocalStarts(usize),
    Fault,
    /// The cut of a siege begins, and lasts so long.
    Cut(usize, Time),
}

pub(super) struct World {
    pub cfg: Config,
    pub rng: Rng,
    pub now: Time,
    pub net: Net,
    pub global: Global,
    pub locals: Vec<Local>,
    pub clients: Vec<Client>,
    pub watchers: Vec<Watcher>,
    pub keys: Vec<Name>,
    pub history: History,
    pub violations: Vec<String>,
    /// Every change of a name that became visible.
    pub became: Vec<Became>,
    /// What the last event may have changed.
    pub touched: Touched,
    /// Events so far.
    pub steps: u64,
    pub hits: usize,
    pub struck: [usize; Fault::ALL.len()],
    /// Changes that watchers were told of.
    pub watched: usize,
    /// Sessions that were resumed, and queues that overflowed.
    pub resumed: usize,
    pub resyncs: usize,
    /// The latest.
    pub siege: Option<Siege>,
    /// Processes of Locals so far.
    pub incarnations: u64,
    agenda: Agenda<Event>,
    trace: u64,
}

impl World {
    pub fn new(seed: u64, cfg: Config) -> Self {
        let mut rng = Rng::new(seed);
        let keys = keys::names(cfg.keys);
        let global = Global::new(&mut rng, &cfg);
        // A twin has the identity of the first.
        let processes = cfg.locals + usize::from(cfg.has(Fault::Twins));
        let locals = (0..processes).map(|i| Local::new(&mut rng, &cfg, i)).collect();
        let clients = (0..cfg.clients).map(|i| Client::new(i, i % cfg.locals)).collect();
        let watchers = (0..cfg.watchers).map(Watcher::new).collect();
        let mut world = Self {
            net: Net::new(processes),
            history: History::new(cfg.keys),
            cfg,
            rng,
            now: 0,
            global,
            locals,
            clients,
            watchers,
            keys,
            violations: Vec::new(),
            became: Vec::new(),
            touched: Touched::default(),
            steps: 0,
            hits: 0,
            struck: [0; Fault::ALL.len()],
            watched: 0,
            resumed: 0,
            resyncs: 0,
            siege: None,
            incarnations: 0,
            agenda: Agenda::default(),
            trace: 0xcbf2_9ce4_8422_2325,
        };
        // These are there all the time.
        for fault in [Fault::Skew, Fault::Twins] {
            world.struck[fault as usize] = usize::from(world.has(fault));
        }
        world.after(0, Event::GlobalStarts);
        for i in 0..world.locals.len() {
            let delay = world.rng.between(0, 50) * MS;
            world.after(delay, Event::LocalStarts(i));
        }
        for i in 0..world.clients.len() {
            world.after(10 * MS, Event::Client(i, super::client::Event::Next));
        }
        for w in 0..world.watchers.len() {
            world.after(20 * MS, Event::Watcher(w, watch::Event::Connect));
        }
        world.after(200 * MS, Event::Fault);
        world
    }

    pub fn after(&mut self, delay: Time, event: Event) {
        self.at(self.now + delay, event);
    }

    pub fn at(&mut self, at: Time, event: Event) {
        self.agenda.plan(at, event);
    }

    /// The Locals that must serve at the end.
    pub fn members(&self) -> std::ops::Range<usize> {
        0..self.cfg.locals
    }

    /// Where callers may ask.
    pub fn homes(&self) -> usize {
        if self.is_calm() { self.cfg.locals } else { self.locals.len() }
    }

    /// The last time at which something goes wrong.
    pub fn faults_end(&self) -> Time {
        u64::try_from(self.cfg.duration.as_nanos()).expect("a run of some seconds")
    }

    /// Everything is to work from now on.
    pub fn is_calm(&self) -> bool {
        self.now >= self.faults_end()
    }

    pub fn has(&self, fault: Fault) -> bool {
        self.cfg.has(fault)
    }

    pub fn planted(&self, planted: Planted) -> bool {
        self.cfg.is_planted(planted)
    }

    pub fn key(&self, name: &Name) -> usize {
        self.keys.iter().position(|k| k == name).expect("a key of the run")
    }

    pub fn violation(&mut self, what: impl FnOnce() -> String) {
        if self.violations.len() < VIOLATIONS_MAX {
            let at = self.now / 1_000;
            let what = what();
            self.violations.push(format!("at {at} µs: {what}"));
        }
    }

    /// Adds to the hash of the history (after FNV-1a).
    pub fn trace(&mut self, what: u64) {
        self.trace = (self.trace ^ what).wrapping_mul(0x0100_0000_01b3).rotate_left(29);
    }

    pub fn run(mut self) -> Report {
        let end = self.faults_end() + CALM;
        while let Some((at, event)) = self.agenda.next() {
            if at > end || self.violations.len() >= VIOLATIONS_MAX || self.is_over() {
                break;
            }
            // No two things happen at one moment, so that the history's order is the order of events.
            self.now = at.max(self.now + 1);
            self.steps += 1;
            if self.cfg.narrate {
                println!("{:>12} {event:?}", self.now / 1_000);
            }
            self.happen(event);
            self.check_invariants();
        }
        self.finish()
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Global(boot, event) => self.reach_global(boot, event),
            Event::Local(i, life, event) => self.reach_local(i, life, event),
            Event::Client(i, event) => self.at_client(i, event),
            Event::Watcher(w, event) => self.at_watcher(w, event),
            Event::Up(stream, frame) if self.arrives(stream, true) => {
                self.reach_global(self.global.boot, global::Event::Frame(stream, frame));
            }
            Event::Ask(stream, request) if self.arrives(stream, true) => {
                self.reach_global(self.global.boot, global::Event::Ask(stream, request));
            }
            Event::Down(stream, frame) if self.arrives(stream, false) => {
                self.net.of(stream).queue.len -= 1;
                let i = self.net.of(stream).local;
                self.reach_local(i, self.locals[i].life, local::Event::Frame(stream, frame));
            }
            Event::Reply(stream, reply) if self.arrives(stream, false) => {
                let i = self.net.of(stream).local;
                self.reach_local(i, self.locals[i].life, local::Event::Reply(reply));
            }
            Event::Up(..) | Event::Ask(..) | Event::Down(..) | Event::Reply(..) => {}
            Event::LostAtGlobal(stream) => {
                if std::mem::take(&mut self.net.of(stream).at_global) {
                    self.reach_global(self.global.boot, global::Event::Lost(stream));
                }
            }
            Event::LostAtLocal(stream) => {
                let i = self.net.of(stream).local;
                if std::mem::take(&mut self.net.of(stream).at_local) {
                    self.reach_local(i, self.locals[i].life, local::Event::Lost(stream));
                }
            }
            Event::GlobalStarts => self.start_global(),
            Event::LocalStarts(i) => self.start_local(i),
            Event::Fault => self.next_fault(),
            Event::Cut(i, lasts) => self.cut_off(i, lasts),
        }
    }

    fn arrives(&mut self, stream: u64, up: bool) -> bool {
        let stream = self.net.of(stream);
        (!stream.cut || stream.late) && if up { stream.at_global } else { stream.at_local }
    }

    // ---- sending

    pub fn send(&mut self, stream: u64, up: bool, frame: Event) {
        let local = self.net.of(stream).local;
        let slow = self.slow_per_mille(local);
        if let Some(at) = self.net.deliver(self.now, &mut self.rng, stream, up, slow) {
            self.at(at, frame);
        }
    }

    /// A stream breaks; each end learns of it sooner or later.
    pub fn cut(&mut self, stream: u64, soon: bool) {
        let late = self.has(Fault::LateFrames) && self.rng.chance(500);
        self.struck[Fault::LateFrames as usize] += usize::from(late);
        let broken = self.net.of(stream);
        (broken.cut, broken.late) = (true, late);
        let most = if soon { 5 } else { self.rng.pick(&[5, 300, 3_000]) };
        let (to_global, to_local) = (self.rng.between(0, most) * MS, self.rng.between(0, most) * MS);
        self.after(to_global, Event::LostAtGlobal(stream));
        self.after(to_local, Event::LostAtLocal(stream));
    }

    /// One end closes a stream: the other learns of it after what was sent before.
    pub fn close(&mut self, stream: u64, by_global: bool) {
        let open = self.net.of(stream);
        let ours = if by_global { &mut open.at_global } else { &mut open.at_local };
        if std::mem::take(ours) {
            let lost = if by_global { Event::LostAtLocal(stream) } else { Event::LostAtGlobal(stream) };
            self.send(stream, !by_global, lost);
        }
    }

    /// Opens a stream, if Global can be reached.
    pub fn open(&mut self, local: usize) -> Option<u64> {
        let reachable = self.now >= self.net.links[local].down_until && self.global.process.is_some();
        reachable.then(|| self.net.open(local))
    }

    fn finish(mut self) -> Report {
        self.check_end();
        let undecided = self.check_history();
        let ops = self.history.ops.iter().filter(|op| op.answer.is_some()).count();
        self.trace(ops as u64);
        Report {
            ops,
            hits: self.hits,
            faults: self.struck.iter().sum(),
            struck: self.struck,
            watched: self.watched,
            resumed: self.resumed,
            resyncs: self.resyncs,
            undecided,
            violations: self.violations,
            trace_hash: self.trace,
        }
    }
}
