//! A flight written down for a model checker.

use super::{Flight, Sort as Kind, State};
use dstore_shared::canon::{Canon, Canonical, Sort};

impl<W: Canonical> Flight<W> {
    /// Writes it down; `registrations` and `flights`: of which sort its numbers are. What it asks is left out: it
    /// follows from its sort, its name and who waits for it. When it was sent matters for absent names only.
    pub(in super::super) fn canon(&self, registrations: Sort, flights: Sort, into: &mut Canon) {
        into.put(match self.sort {
            Kind::Get => 0u8,
            Kind::Look => 1,
            Kind::Many => 2,
            Kind::Change => 3,
        });
        self.name.canon(into);
        match &self.state {
            State::Waiting => into.put(0u8),
            State::Sent => into.put(1u8),
            State::Found(entry, registered) => {
                into.put(2u8);
                entry.canon(into);
                into.put(*registered);
            }
        }
        into.maybe(self.epoch, Canon::epoch);
        into.ranked(registrations, self.reg_seq.0);
        into.maybe(self.poison, |into, upto| into.put(upto.0));
        into.put(self.own.is_some());
        into.maybe(self.part_of, |into, part| into.ranked(flights, part.0));
        for waiters in [&self.early, &self.late] {
            into.count(waiters.len());
            waiters.iter().for_each(|waiter| waiter.canon(into));
        }
    }
}
