//! Reads of two names at one moment, as a node makes them: hits, what is missing resolved together, the hits again.

use super::history::Told;
use super::local::{Call, Event, value_of};
use super::names::Held;
use super::planted::Planted;
use super::world::World;
use dstore_shared::Name;
use dstore_shared::frame::Resolved;

/// How often hits may have changed before both names are resolved.
const ATTEMPTS_MAX: u32 = 3;

/// A read of two names under way.
#[derive(Clone, Debug)]
pub(super) struct Both {
    pub names: [Name; 2],
    attempt: u32,
    /// What was looked up so far.
    hits: Vec<Option<Held>>,
    /// What was missing and is told.
    resolved: Option<Vec<Resolved>>,
}

impl Both {
    pub fn of(names: [Name; 2]) -> Self {
        Self { names, attempt: 0, hits: Vec::new(), resolved: None }
    }
}

impl World {
    /// The next step of a read: each may be long after the one before.
    pub(super) fn both(&mut self, i: usize, call: Call, mut both: Both) {
        if both.hits.len() < 2 {
            let name = &both.names[both.hits.len()];
            let hit = if both.attempt < ATTEMPTS_MAX { self.hit_now(i, name) } else { None };
            both.hits.push(hit);
            return self.step(i, Event::Both(call, both));
        }
        let missing: Vec<Name> = both
            .names
            .iter()
            .zip(&both.hits)
            .filter(|(_, hit)| hit.is_none())
            .map(|(n, _)| n.clone())
            .collect();
        match &both.resolved {
            None if !missing.is_empty() => self.ask_both(i, &call, both, missing),
            _ => self.end_both(i, call, both),
        }
    }

    fn hit_now(&self, i: usize, name: &Name) -> Option<Held> {
        let (local, now) = (&self.locals[i], self.local_now(i));
        let held = local.names.get(name).filter(|held| held.era >= local.era)?;
        (now < local.valid_until).then_some(held)
    }

    fn ask_both(&mut self, i: usize, call: &Call, both: Both, missing: Vec<Name>) {
        let now = self.local_now(i);
        let last = both.attempt >= ATTEMPTS_MAX;
        self.locals[i].both.insert(call.op, both);
        let m = &mut self.locals[i].m;
        let asked = if last {
            m.look_many(missing, true, call.clone()).map_err(|(e, _)| e)
        } else {
            let each = missing.iter().map(|_| Call { part: true, ..call.clone() }).collect();
            m.read_many(now, &missing, call.clone(), each).map(|_| ()).map_err(|(e, _)| e)
        };
        if let Err(e) = asked {
            self.locals[i].both.remove(&call.op);
            self.answered(call, Err(e));
        }
    }

    /// What was missing is told.
    pub(super) fn told_both(&mut self, i: usize, calls: Vec<Call>, resolved: &[Resolved]) {
        for call in calls {
            if let Some(both) = self.locals[i].both.remove(&call.op) {
                let both = Both { resolved: Some(resolved.to_vec()), ..both };
                self.step(i, Event::Both(call, both));
            }
        }
    }

    /// The hits are looked at again: if they are as before, all of it was true when the rest was resolved.
    fn end_both(&mut self, i: usize, call: Call, both: Both) {
        let mut resolved = both.resolved.iter().flatten();
        let mut told = [None; 2];
        for (at, before) in both.hits.iter().enumerate() {
            let Some(before) = before else {
                told[at] = resolved.next().and_then(|r| r.entry.clone()).map(|entry| value_of(entry.hash));
                continue;
            };
            let again = self.hit_now(i, &both.names[at]);
            if again.is_none_or(|again| again.rev != before.rev) && !self.planted(Planted::NoSecondLook) {
                let (attempt, hits) = (both.attempt + 1, Vec::new());
                return self.step(i, Event::Both(call, Both { attempt, hits, resolved: None, ..both }));
            }
            told[at] = Some(before.value);
        }
        if both.resolved.is_none() {
            self.hits += 1;
        }
        self.answered(&call, Ok(Told::Both(told)));
    }
}
