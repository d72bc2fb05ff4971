//! Callers: each makes one operation at a time, and repeats a change under its id until it is answered.

use super::config::{Asks, Fault};
use super::history::{Op, Told, What};
use super::keys;
use super::local::{self, Call, hash_of};
use super::many::Both;
use super::planted::Planted;
use super::rng::{MS, Time};
use super::world::{self, World};
use dstore_shared::{Born, ClientId, Command, DeleteMode, Kind, RequestId, Result};
use std::cell::Cell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::time::Duration;

/// Attempts of a change before its caller gives up.
const ATTEMPTS_MAX: u32 = 8;

#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    Next,
    /// Perhaps no answer has come in time.
    Late,
}

#[derive(Debug)]
pub(super) struct Client {
    id: ClientId,
    n: u64,
    /// The newest of Global's clock that it has seen.
    born: Option<Born>,
    home: usize,
    pub current: Option<Current>,
    /// GETs of one name that follow at once.
    burst: (usize, u64),
    /// When it looks at its patience next.
    looks_at: Option<Time>,
}

#[derive(Debug)]
pub(super) struct Current {
    pub op: usize,
    attempts: u32,
    /// When its patience is over.
    patient_until: Time,
    calls: Vec<Rc<Cell<bool>>>,
}

impl Client {
    pub fn new(i: usize, home: usize) -> Self {
        Self {
            id: ClientId(i as u128 + 1),
            n: 0,
            born: None,
            home,
            current: None,
            burst: (0, 0),
            looks_at: None,
        }
    }
}

impl World {
    pub fn at_client(&mut self, c: usize, event: Event) {
        match event {
            Event::Next => self.next_op(c),
            Event::Late => self.look_whether_late(c),
        }
    }

    fn look_whether_late(&mut self, c: usize) {
        if self.clients[c].looks_at.is_some_and(|at| at <= self.now) {
            self.clients[c].looks_at = None;
        }
        let Some(until) = self.clients[c].current.as_ref().map(|current| current.patient_until) else {
            return;
        };
        if until <= self.now { self.try_again(c) } else { self.be_patient(c, until) }
    }

    /// The caller waits until then. One look at the clock is planned at a time, or most would be in vain.
    fn be_patient(&mut self, c: usize, until: Time) {
        let client = &mut self.clients[c];
        if let Some(current) = &mut client.current {
            current.patient_until = until;
        }
        if client.looks_at.is_none_or(|at| at > until) {
            client.looks_at = Some(until);
            self.at(until, world::Event::Client(c, Event::Late));
        }
    }

    /// Callers stop a while before the run ends, so that everything can come to its end.
    pub fn is_closing(&self) -> bool {
        self.now >= self.faults_end() + 1_000 * MS
    }

    fn next_op(&mut self, c: usize) {
        if self.is_closing() {
            return;
        }
        let homes = self.homes();
        if self.rng.chance(80) || self.clients[c].home >= homes {
            self.clients[c].home = self.rng.below(homes);
        }
        let fight = self.fight(c);
        if let Some((home, _)) = &fight {
            self.clients[c].home = *home;
        }
        self.learn_born(c);
        let what = fight.map_or_else(|| self.draw_or_burst(c), |(_, what)| what);
        let id = match (&what, self.clients[c].born) {
            (What::Get(_) | What::Both(_), _) => None,
            // It has to see Global's clock first.
            (_, None) => return self.after(20 * MS, world::Event::Client(c, Event::Next)),
            (_, Some(born)) => {
                self.clients[c].n += 1;
                Some(RequestId { client: self.clients[c].id, n: self.clients[c].n, born })
            }
        };
        let op = self.history.ops.len();
        let mode = self.draw_mode(&what);
        let (from, answer, took_effect, excused) = (self.now, None, false, false);
        self.history.ops.push(Op { what, from, answer, id, took_effect, effect: None, mode, excused });
        self.clients[c].current = Some(Current { op, attempts: 0, patient_until: 0, calls: Vec::new() });
        self.attempt(c);
    }

    /// Many callers read one name again and again: most operations of a busy node are such.
    fn draw_or_burst(&mut self, c: usize) -> What {
        let (key, left) = self.clients[c].burst;
        if left > 0 {
            self.clients[c].burst = (key, left - 1);
            return What::Get(key);
        }
        if self.rng.chance(self.cfg.bursts) {
            let (key, left) = (self.rng.below(self.cfg.keys), self.rng.between(10, 600));
            self.clients[c].burst = (key, left);
            return What::Get(key);
        }
        self.draw()
    }

    fn draw(&mut self) -> What {
        let key = self.rng.below(self.cfg.keys);
        match self.rng.weighed(&self.cfg.asks) {
            Asks::Get => What::Get(key),
            // Half of what it tells may linger after an asynchronous DEL.
            Asks::Both if self.cfg.modes => What::Get(key),
            Asks::Both => What::Both([key, self.other(key)]),
            Asks::Set => {
                // A few values come again, so that some SETs, COPYs and RENAMEs find equal bytes.
                let value =
                    if self.rng.chance(500) { self.rng.between(1, 2) } else { self.rng.between(4, 1 << 40) };
                self.set(key, value)
            }
            Asks::DelPrefix if self.cfg.prefixes => self.under(key),
            Asks::Del | Asks::DelPrefix => What::Del(vec![key]),
            Asks::DelBoth => What::Del(vec![key, self.other(key)]),
            Asks::Copy => What::Move { from: key, to: self.other(key), unbinds: false },
            Asks::Rename => What::Move { from: key, to: self.other(key), unbinds: true },
        }
    }

    /// A SET as this run has them.
    pub fn set(&self, key: usize, value: u64) -> What {
        if self.cfg.replaces { What::Replace(key, value) } else { What::Set(key, value) }
    }

    /// A DEL of a prefix that `key` is under.
    pub fn under(&mut self, key: usize) -> What {
        let over: Vec<usize> =
            (0..keys::PREFIXES.len()).filter(|p| keys::under(*p, self.cfg.keys).contains(&key)).collect();
        let prefix = self.rng.pick(&over);
        What::DelPrefix(prefix, keys::under(prefix, self.cfg.keys))
    }

    fn other(&mut self, key: usize) -> usize {
        (key + 1 + self.rng.below(self.cfg.keys - 1)) % self.cfg.keys
    }

    fn draw_mode(&mut self, what: &What) -> DeleteMode {
        if !self.cfg.modes || !matches!(what, What::Del(_)) {
            return DeleteMode::Strict;
        }
        match self.rng.between(0, 9) {
            0..=4 => DeleteMode::Async,
            5..=6 => DeleteMode::Deadline(Duration::from_millis(self.rng.between(0, 400))),
            _ => DeleteMode::Strict,
        }
    }

    fn learn_born(&mut self, c: usize) {
        let seen = self.locals[self.clients[c].home].m.born();
        let client = &mut self.clients[c];
        if let Some(seen) = seen
            && client.born.is_none_or(|born| seen.newer_than(&born))
        {
            client.born = Some(seen);
        }
    }

    fn attempt(&mut self, c: usize) {
        let Some(current) = self.clients[c].current.as_mut() else { return };
        current.attempts += 1;
        let (op, attempt) = (current.op, current.attempts);
        // The hit may answer at once.
        current.patient_until = Time::MAX;
        let what = self.history.ops[op].what.clone();
        let mut id = self.history.ops[op].id;
        if self.planted(Planted::RestampRetries)
            && let Some(id) = &mut id
        {
            id.n += u64::from(attempt) << 32;
        }
        let home = self.clients[c].home;
        self.call(c, home, op, &what, id);
        if id.is_some() && self.has(Fault::Duplicates) && self.rng.chance(100) {
            self.struck[Fault::Duplicates as usize] += 1;
            let other = self.rng.below(self.homes());
            self.call(c, other, op, &what, id);
        }
        let patience = match id {
            Some(_) => self.rng.between(100, 3_000) * MS,
            None => self.patience().unwrap_or(3_000 * MS),
        };
        // Unless it was answered already.
        if self.clients[c].current.as_ref().is_some_and(|now| now.op == op && now.patient_until == Time::MAX)
        {
            self.be_patient(c, self.now + patience);
        }
    }

    fn call(&mut self, c: usize, i: usize, op: usize, what: &What, id: Option<RequestId>) {
        let gone = Rc::new(Cell::new(false));
        if let Some(current) = self.clients[c].current.as_mut() {
            current.calls.push(gone.clone());
        }
        let call = Call { client: c, op, gone, part: false };
        let name = |key: &usize| self.keys[*key].clone();
        let command = match what {
            What::Get(key) => {
                let (event, life) = (local::Event::Get(call, name(key)), self.locals[i].life);
                return self.reach_local(i, life, event);
            }
            What::Both(keys) => {
                let event = local::Event::Both(call, Both::of([name(&keys[0]), name(&keys[1])]));
                return self.local_event(i, 0, event);
            }
            What::Set(key, value) | What::Replace(key, value) => Command::Set {
                name: name(key),
                hash: hash_of(*value),
                size: 8,
                carried: None,
                attributes: dstore_shared::Attributes::default(),
            },
            What::Move { from, to, unbinds: false } => Command::Copy { from: name(from), to: name(to) },
            What::Move { from, to, unbinds: true } => Command::Rename { from: name(from), to: name(to) },
            What::DelPrefix(prefix, _) => Command::DeletePrefix { prefix: keys::prefix(*prefix) },
            What::Del(keys) => {
                let mode = self.history.ops[op].mode;
                Command::Delete { names: keys.iter().map(name).collect(), mode }
            }
        };
        let event = local::Event::Change(call, id.expect("a change has an id"), command);
        self.local_event(i, 0, event);
    }

    fn try_again(&mut self, c: usize) {
        let Some(current) = &self.clients[c].current else { return };
        if self.history.ops[current.op].id.is_none() || current.attempts >= ATTEMPTS_MAX {
            return self.done(c);
        }
        // Some attempts go on behind the caller's back.
        if self.rng.chance(500) {
            current.calls.iter().for_each(|gone| gone.set(true));
        }
        // A twin that is gone for good does not come back to answer.
        let homes = self.homes();
        if self.rng.chance(500) || self.clients[c].home >= homes {
            self.clients[c].home = self.rng.below(homes);
        }
        self.attempt(c);
    }

    pub fn done(&mut self, c: usize) {
        if let Some(current) = self.clients[c].current.take() {
            current.calls.iter().for_each(|gone| gone.set(true));
        }
        let bursts = self.clients[c].burst.1 > 0;
        let think = self.haste().unwrap_or_else(|| if bursts { 0 } else { self.think() });
        self.after(think, world::Event::Client(c, Event::Next));
    }

    /// How long a caller thinks: now and then long, mostly not.
    fn think(&mut self) -> Time {
        let most = if self.rng.chance(50) { 40_000 } else { self.cfg.think_us };
        self.rng.between(20, most) * 1_000
    }

    /// A Local answers a call.
    pub fn answered(&mut self, call: &Call, answer: Result<Told>) {
        let c = call.client;
        if self.clients[c].current.as_ref().is_none_or(|now| now.op != call.op) || call.is_over() {
            return;
        }
        self.learn_born(c);
        match answer {
            Ok(told) => {
                self.note_answer(c, call.op, told);
                self.done(c);
            }
            Err(e) => match e.kind() {
                Kind::Closed => self.done(c),
                Kind::Unavailable | Kind::Exhausted | Kind::Pending => {
                    let soon = self.rng.between(5, 50) * MS;
                    // Whatever it did in a burst is over.
                    self.clients[c].burst = (0, 0);
                    self.be_patient(c, self.now + soon);
                }
                _ => self.violation(|| format!("op {} was answered {e:?}", call.op)),
            },
        }
    }

    fn note_answer(&mut self, c: usize, op: usize, told: Told) {
        let mut hash = DefaultHasher::new();
        told.hash(&mut hash);
        self.trace(op as u64);
        self.trace(hash.finish());
        let is_change = self.history.ops[op].id.is_some();
        if told == Told::Got(None) {
            // Who asks again and again for what is not there asks Global each time.
            self.clients[c].burst = (0, 0);
        }
        self.history.ops[op].answer = Some((self.now, told));
        let excused = self.cfg.modes && self.history.excuses(&self.history.ops[op]);
        self.history.ops[op].excused = excused;
        // Another id of the same change has an effect of its own, which the search will see.
        if self.cfg.black_box || self.planted(Planted::RestampRetries) && is_change {
            return;
        }
        if let Err(why) = self.history.judge(&self.history.ops[op]) {
            self.violation(|| why);
        }
        if is_change {
            self.check_durable(op);
        }
    }
}

impl Call {
    fn is_over(&self) -> bool {
        self.gone.get()
    }
}
