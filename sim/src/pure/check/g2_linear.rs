//! G2: one name is one register, and what is about several names is atomic. Judged twice: at every answer by Global's
//! own timeline, and at the end by a search over what callers lived.

use super::search::{Verdict, judge};
use crate::pure::history::{Effect, History, Op, Told, What};
use crate::pure::world::World;

impl History {
    /// Judges an answer by the timeline: a stronger demand than linearizability, and the one that the
    /// protocol makes. Every change happens when it becomes visible, and every other answer was true at a
    /// moment of its operation.
    pub fn judge(&self, op: &Op) -> Result<(), String> {
        let Some((to, told)) = &op.answer else { return Ok(()) };
        let (from, to) = (op.from, *to);
        let effect = self.effect_of(op);
        let happened = |told: &Told| {
            effect.is_some_and(|effect| effect.told == *told && (from..=to).contains(&effect.at))
        };
        let nothing = effect.is_none();
        let true_once = match (&op.what, told) {
            (What::Get(key), Told::Got(value)) => self.was(*key, from, to, *value),
            (What::Both(keys), Told::Both(values)) => self.ever(keys, from, to, |at| keys.map(at) == *values),
            (What::Move { .. }, Told::Moved(_)) | (What::Set(..) | What::Replace(..), Told::Stored) => {
                happened(told)
            }
            (What::Move { from: a, to: b, .. }, told) => {
                nothing
                    && self.ever(&[*a, *b], from, to, |at| match told {
                        Told::NotFound => at(*a).is_none(),
                        Told::Unchanged => at(*a).is_some() && at(*a) == at(*b),
                        Told::Occupied(by) => at(*a).is_some() && at(*b) == Some(*by) && at(*a) != at(*b),
                        _ => false,
                    })
            }
            (What::Set(key, value) | What::Replace(key, value), Told::Unchanged) => {
                nothing && self.was(*key, from, to, Some(*value))
            }
            (What::Set(key, value), Told::Occupied(by)) => {
                nothing && by != value && self.was(*key, from, to, Some(*by))
            }
            (What::Del(_), Told::Removed(removed)) if removed.contains(&true) => happened(told),
            (What::DelPrefix(..), Told::RemovedUnder(n)) if *n > 0 => happened(told),
            (What::Del(keys), Told::Removed(_)) | (What::DelPrefix(_, keys), Told::RemovedUnder(_)) => {
                nothing && self.ever(keys, from, to, |at| keys.iter().all(|k| at(*k).is_none()))
            }
            _ => false,
        };
        if true_once || op.excused { Ok(()) } else { Err(self.never_true(op, effect)) }
    }

    fn never_true(&self, op: &Op, effect: Option<&Effect>) -> String {
        let recent = |k: usize| self.versions[k].iter().rev().take(4).collect::<Vec<_>>();
        let versions: Vec<_> = op.what.keys().into_iter().map(|k| (k, recent(k))).collect();
        format!("G2: never true: {op:?}; effect {effect:?}; versions {versions:?}")
    }
}

impl World {
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
                    self.violation(|| format!("G2: the history of keys {pair:?} is not linearizable"));
                }
                Verdict::Tangled => undecided += 1,
            }
        }
        undecided
    }
}
