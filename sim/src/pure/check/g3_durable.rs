//! G3: what is acknowledged is durable, and nothing is readable before it is.

use crate::pure::history::{Op, Told};
use crate::pure::world::World;

impl World {
    /// An answer that tells of a change tells of a durable one.
    pub(in crate::pure) fn check_durable(&mut self, op: usize) {
        let op: &Op = &self.history.ops[op];
        let changed = match op.answer.as_ref().map(|(_, told)| told) {
            Some(Told::Stored | Told::Moved(_)) => true,
            Some(Told::Removed(removed)) => removed.contains(&true),
            Some(Told::RemovedUnder(n)) => *n > 0,
            _ => false,
        };
        let durable = || op.id.is_some_and(|id| self.global.has_durable(id));
        if changed && !durable() {
            let what = format!("G3: acknowledged and not durable: {op:?}");
            self.violation(|| what);
        }
    }

    /// What Global shows is what its disk has, as the process begins: nothing is lost and nothing is back.
    pub(in crate::pure) fn check_recovered(&mut self) {
        for key in 0..self.keys.len() {
            let bound =
                self.global.visible.get(&self.keys[key]).map(|e| crate::pure::local::value_of(e.hash));
            let truth = self.history.truth(key);
            if bound != truth {
                self.violation(|| format!("G3: key {key} is {bound:?} and should be {truth:?}"));
            }
        }
    }
}
