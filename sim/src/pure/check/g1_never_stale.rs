//! G1: a delete that is acknowledged is seen everywhere. Looked at in the machines, before anybody reads: what may be
//! served is true (I1), and whoever may serve it is waited for (I7).

use crate::pure::world::World;

impl World {
    /// I1: what may be served is true, or busy. I7: whoever may serve it is waited for.
    pub(super) fn check_names(&mut self, i: usize) {
        let local = &self.locals[i];
        let (local_id, incarnation) = local.identity();
        let process = self.global.process.as_ref();
        let now = self.global.clock.read(self.now);
        let in_grace = process.is_none_or(|p| p.m.in_grace(now));
        let mut wrong = Vec::new();
        for (name, held) in local.names.all().iter().filter(|(_, held)| held.era >= local.era) {
            let busy = process.is_some_and(|p| p.m.is_busy(name));
            let truth = self.global.visible.get(name).map(|e| e.bind_rev);
            // What an asynchronous DEL removed may linger, until a strict change has been made.
            let lingers =
                || truth.is_none() && self.history.may_linger(self.key(name), held.value, self.now, self.now);
            if truth != Some(held.rev) && !busy && !lingers() {
                let rev = held.rev;
                wrong.push(format!("G1: local {i} may serve {name:?} of {rev:?}, but it is {truth:?}"));
            }
            let waited =
                in_grace || busy || process.is_none_or(|p| p.m.would_wait_for(local_id, incarnation, name));
            if !waited {
                wrong.push(format!("G1: local {i} may serve {name:?} and nobody would wait for it"));
            }
        }
        let absences = local.absences.as_ref().filter(|absences| !absences.is_empty());
        let absences = absences.map(|absences| absences.all()).unwrap_or_default();
        let here = self.local_now(i);
        for (name, _) in absences.iter().filter(|(_, absent)| here < absent.until) {
            let busy = process.is_some_and(|p| p.m.is_busy(name));
            if let Some(truth) = self.global.visible.get(name).filter(|_| !busy) {
                wrong.push(format!("G2: local {i} may tell that {name:?} is absent, but it is {truth:?}"));
            }
        }
        for wrong in wrong {
            self.violation(|| wrong);
        }
    }
}
