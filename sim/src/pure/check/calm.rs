//! When the faults stop: every caller is answered, every Local serves again, every watcher has everything, and nothing
//! is left over of what has ended.

use crate::pure::world::World;

impl World {
    /// Whether callers have stopped and everything has come to its end.
    pub fn is_over(&self) -> bool {
        let valid = |i: usize| self.locals[i].up && self.local_now(i) < self.locals[i].valid_until;
        self.is_closing()
            && self.clients.iter().all(|c| c.current.is_none())
            && self.members().all(|i| valid(i) && self.locals[i].m.flights() == 0)
            && (0..self.watchers.len()).all(|w| self.has_all(w))
            && self
                .global
                .process
                .as_ref()
                .is_some_and(|p| p.m.counts().ops == 0 && p.m.counts().sessions == self.members().count())
    }

    fn has_all(&self, w: usize) -> bool {
        self.watchers[w].due.through >= self.global.head()
    }

    /// After a calm, everybody has been answered and everybody may serve again.
    pub fn check_end(&mut self) {
        if !self.violations.is_empty() {
            return;
        }
        for c in 0..self.clients.len() {
            if let Some(current) = &self.clients[c].current {
                let op = self.history.ops[current.op].clone();
                self.violation(|| format!("calm: client {c} was never answered: {op:?}"));
            }
        }
        let members: Vec<usize> = self.members().collect();
        for i in &members {
            let local = &self.locals[*i];
            let valid = local.up && self.local_now(*i) < local.valid_until;
            let flights = local.m.flights();
            if !valid || flights > 0 {
                self.violation(|| {
                    format!("calm: local {i} did not recover: valid {valid}, {flights} flights")
                });
            }
        }
        let counts = self.global.process.as_ref().map(|p| p.m.counts());
        if counts.is_none_or(|c| c.ops > 0 || c.sessions != members.len()) {
            self.violation(|| format!("calm: global did not recover: {counts:?}"));
        }
        for w in 0..self.watchers.len() {
            if !self.has_all(w) {
                let (due, head) = (self.watchers[w].due, self.global.head());
                self.violation(|| format!("calm: watcher {w} is at {due:?}, and the head is {head}"));
            }
        }
        self.check_recovered();
        if !self.cfg.black_box {
            self.check_bounds();
        }
    }
}
