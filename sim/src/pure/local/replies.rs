//! What Global answers a Local's requests, and who is told.

use super::{Call, value_of};
use crate::pure::global::told;
use crate::pure::history::Told;
use crate::pure::names::Held;
use crate::pure::planted::Planted;
use crate::pure::world::World;
use dstore_shared::frame::{Answer, Reply};
use dstore_shared::{Epoch, Error, FlightId, Outcome, RegSeq, Result, SetOutcome};

impl World {
    pub(super) fn reply_at_local(&mut self, i: usize, reply: Reply) {
        let now = self.local_now(i);
        let local = &mut self.locals[i];
        local.m.saw(reply.born);
        self.tell_riders(i, &reply);
        let local = &mut self.locals[i];
        match reply.answer {
            Answer::Resolved(resolved) => local.m.resolved(now, reply.flight, resolved),
            Answer::ResolvedMany(all) => {
                if let Err((e, waiting)) = local.m.resolved_many(now, reply.flight, all) {
                    self.tell_all(waiting, &Err(e));
                }
            }
            Answer::Changed { outcome, cacheable, .. } => self.changed(i, reply.flight, &outcome, cacheable),
            Answer::Failed(e) => {
                local.asked.remove(&reply.flight);
                let waiting = local.m.failed(reply.flight);
                self.tell_all(waiting, &Err(e));
            }
        }
    }

    fn changed(&mut self, i: usize, flight: FlightId, outcome: &Outcome, cacheable: Option<Epoch>) {
        let local = &mut self.locals[i];
        let name = local.asked.remove(&flight);
        if self.cfg.is_planted(Planted::InstallsOccupied)
            && let (Outcome::Set(SetOutcome::Occupied(by)), Some(name)) = (outcome, name)
        {
            let (value, rev, era) = (value_of(by.hash), by.bind_rev, local.era);
            local.names.install(name, Held { value, rev, reg_seq: RegSeq(0), era });
        }
        let names = &local.names;
        let (waiting, _) = local.m.changed(flight, outcome, cacheable, |name, entry, _, reg_seq, era| {
            names.install(
                name.clone(),
                Held { value: value_of(entry.hash), rev: entry.bind_rev, reg_seq, era },
            );
            true
        });
        self.tell_all(waiting, &Ok(told(outcome)));
    }

    pub(super) fn complete(&mut self, i: usize, flight: FlightId) {
        let poisoned_too = self.planted(Planted::InstallPoisoned);
        let refuses = self.rng.chance(30);
        let local = &mut self.locals[i];
        let Some((name, entry)) = local.found.remove(&flight) else { return };
        let names = &local.names;
        let held = |reg_seq, era| Held { value: value_of(entry.hash), rev: entry.bind_rev, reg_seq, era };
        let (waiting, installed) = local.m.complete(flight, |reg_seq, era| {
            if !refuses {
                names.install(name.clone(), held(reg_seq, era));
            }
            names.get(&name).is_some()
        });
        if poisoned_too && !installed {
            names.install(name, held(dstore_shared::RegSeq(0), local.era));
        }
        self.tell_all(waiting, &Ok(Told::Got(Some(value_of(entry.hash)))));
    }

    pub(super) fn tell_all(&mut self, waiting: Vec<Call>, answer: &Result<Told>) {
        for call in waiting.into_iter().filter(|call| !call.part) {
            self.answered(&call, answer.clone());
        }
    }

    /// With [`Planted::JoinsAnyFlight`]: tells those who ride along.
    fn tell_riders(&mut self, i: usize, reply: &Reply) {
        if self.locals[i].riders.is_empty() {
            return;
        }
        let riders = &mut self.locals[i].riders;
        let told: Vec<Call> =
            riders.extract_if(.., |(flight, _)| *flight == reply.flight).map(|(_, call)| call).collect();
        let answer = match &reply.answer {
            Answer::Resolved(resolved) => {
                Ok(Told::Got(resolved.entry.as_ref().map(|entry| value_of(entry.hash))))
            }
            _ => Err(Error::unavailable("the flight came to something else")),
        };
        self.tell_all(told, &answer);
    }
}
