//! What must hold at every step, and what must be true at the end.

use super::config::Planted;
use super::global::TICK_LATE_MAX;
use super::wgl::{Verdict, judge};
use super::world::World;
use std::time::Duration;

impl World {
    /// I1, I4, I7 and the bound of a drain, looked at after every event.
    pub fn check_invariants(&mut self) {
        if self.cfg.black_box {
            return;
        }
        for i in 0..self.locals.len() {
            if self.locals[i].up && self.local_now(i) < self.locals[i].valid_until {
                self.check_lease(i);
                self.check_names(i);
            }
        }
        self.check_drains();
    }

    /// I4: Global waits for a Local longer than it serves.
    fn check_lease(&mut self, i: usize) {
        let local = &self.locals[i];
        let (local_id, life) = local.identity();
        let Some(process) = &self.global.process else { return };
        let now = self.global.clock.read(self.now);
        let end = process.m.lease_end(local_id, life).filter(|end| *end > now);
        let serves_until = local.clock.time_of(local.valid_until);
        let holds = match end {
            Some(end) => serves_until <= self.global.clock.time_of(end) || process.m.in_grace(now),
            None => process.m.in_grace(now),
        };
        if !holds {
            self.violation(|| {
                format!("I4: local {i} serves until {serves_until} ns, global waits until {end:?}")
            });
        }
    }

    /// I1: what may be served is true, or busy. I7: whoever may serve it is waited for.
    fn check_names(&mut self, i: usize) {
        let local = &self.locals[i];
        let (local_id, life) = local.identity();
        let process = self.global.process.as_ref();
        let now = self.global.clock.read(self.now);
        let mut wrong = Vec::new();
        for (name, held) in local.names.all().iter().filter(|(_, held)| held.era >= local.era) {
            let busy = process.is_some_and(|p| p.m.is_busy(name));
            let truth = self.global.visible.get(name).map(|e| e.bind_rev);
            let key = self.key(name);
            // What an asynchronous DEL removed may linger, until a strict change has been made.
            let lingers = truth.is_none() && self.history.may_linger(key, held.value, self.now, self.now);
            if truth != Some(held.rev) && !busy && !lingers {
                wrong
                    .push(format!("I1: local {i} may serve {name:?} of {:?}, but it is {truth:?}", held.rev));
            }
            let waited =
                process.is_none_or(|p| p.m.in_grace(now) || busy || p.m.would_wait_for(local_id, life, name));
            if !waited {
                wrong.push(format!("I7: local {i} may serve {name:?} and nobody would wait for it"));
            }
        }
        let absences = local.absences.as_ref().map(|absences| absences.all()).unwrap_or_default();
        let here = self.local_now(i);
        for (name, _) in absences.iter().filter(|(_, absent)| here < absent.until) {
            let busy = process.is_some_and(|p| p.m.is_busy(name));
            if let Some(truth) = self.global.visible.get(name).filter(|_| !busy) {
                wrong.push(format!("I1: local {i} may tell that {name:?} is absent, but it is {truth:?}"));
            }
        }
        for wrong in wrong {
            self.violation(|| wrong);
        }
    }

    /// G4: no drain is longer than A + D(1+ρ), by Global's clock, while Global runs.
    ///
    /// A Local that owes an ack is granted no LEASE at a mark's age of A or more (rule 17), so that its last
    /// one ends within D(1+ρ) of that; nothing else extends a drain, neither a new session (rules 15, 16) nor
    /// other drains. What stands still decides nothing, so a pause of Global counts in what it sees, but not
    /// here: what is due is done as soon as it wakes. On top comes only how late a tick may be (`plan_tick`).
    fn check_drains(&mut self) {
        let Some(process) = &self.global.process else { return };
        // The event that wakes it may share its moment with others, which happen nanoseconds apart.
        if self.now < self.global.paused_until + 1_000 {
            return;
        }
        let bound = process.m.drain_max() + TICK_LATE_MAX * 1005 / 1000 + Duration::from_micros(1);
        let longest = process.m.longest_drain(self.global.clock.read(self.now));
        // The planted clocks are off by more than the tick is late.
        if longest > bound && !self.planted(Planted::WrongClocks) {
            self.violation(|| format!("G4: a drain takes {longest:?}, more than {bound:?}"));
        }
    }

    /// Whether callers have stopped and everything has come to its end.
    pub fn is_over(&self) -> bool {
        let valid = |i: usize| self.locals[i].up && self.local_now(i) < self.locals[i].valid_until;
        self.is_closing()
            && self.clients.iter().all(|c| c.current.is_none())
            && (0..self.locals.len()).all(|i| valid(i) && self.locals[i].m.flights() == 0)
            && self
                .global
                .process
                .as_ref()
                .is_some_and(|p| p.m.counts().ops == 0 && p.m.counts().sessions == self.locals.len())
    }

    /// After a calm, everybody has been answered and everybody may serve again.
    pub fn check_end(&mut self) {
        if !self.violations.is_empty() {
            return;
        }
        for c in 0..self.clients.len() {
            if let Some(current) = &self.clients[c].current {
                let op = self.history.ops[current.op].clone();
                self.violation(|| format!("client {c} was never answered: {op:?}"));
            }
        }
        for i in 0..self.locals.len() {
            let local = &self.locals[i];
            let valid = local.up && self.local_now(i) < local.valid_until;
            let flights = local.m.flights();
            if !valid || flights > 0 {
                self.violation(|| format!("local {i} did not recover: valid {valid}, {flights} flights"));
            }
        }
        let counts = self.global.process.as_ref().map(|p| p.m.counts());
        if counts.is_none_or(|c| c.ops > 0 || c.sessions != self.cfg.locals) {
            self.violation(|| format!("global did not recover: {counts:?}"));
        }
        for key in 0..self.keys.len() {
            let bound = self.global.visible.get(&self.keys[key]).map(|e| super::local::value_of(e.hash));
            let truth = self.history.truth(key);
            if bound != truth {
                self.violation(|| format!("key {key} is {bound:?} and should be {truth:?}"));
            }
        }
    }

    /// The history as callers lived it, over every pair of keys. Gives how many could not be judged.
    pub fn check_history(&mut self) -> usize {
        self.history.close();
        let keys = self.cfg.keys;
        let pairs = (0..keys).flat_map(|a| (a + 1..keys).map(move |b| [a, b]));
        let mut undecided = 0;
        for pair in pairs {
            match judge(&self.history.ops, pair) {
                Verdict::Linearizable => {}
                Verdict::Not => {
                    self.violation(|| format!("the history of keys {pair:?} is not linearizable"));
                }
                Verdict::Tangled => undecided += 1,
            }
        }
        undecided
    }
}
