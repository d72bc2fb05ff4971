//! The machine written down for a model checker: all by which it decides, and nothing that only counts.
//!
//! Left out is what is only told (`known`), and by how much a counter has risen. "Not found" answers are not written:
//! they are kept in a table that clones of the machine share, so that no model can have them.

use super::flights::Flight;
use super::session::{Stream, Summary};
use super::{Coherence, NameTable};
use dstore_shared::canon::{Canon, Canonical, Sort};
use dstore_shared::{FlightId, Moment};

impl<T: NameTable, W: Canonical> Coherence<T, W>
where
    T::Cursor: Canonical,
{
    /// Writes the machine down; `answerable`: the KEEPs of which a LEASE, or they themselves, are on their way. The
    /// others are as good as forgotten. To be called between events, when every action was taken.
    pub fn canon(&self, now: Moment, answerable: &[u64], into: &mut Canon) {
        debug_assert!(self.actions.is_empty(), "an action was left behind");
        debug_assert!(self.absences.is_none(), "absences are not written");
        into.left(self.valid_until, now);
        into.maybe(self.epoch, Canon::epoch);
        into.put(self.unlisted);
        into.bytes(&self.history.0.to_le_bytes());
        into.put(self.applied.0);
        into.put(self.lease.as_nanos() as u64);
        into.maybe(self.born, |into, born| into.put(born.boot));
        into.put(match self.stream {
            Stream::None => 0u8,
            Stream::Greeting => 1,
            Stream::Open => 2,
        });
        let answerable = self.keeps.iter().filter(|(n, _)| answerable.contains(n));
        into.count(answerable.clone().count());
        for (n, made) in answerable {
            into.ranked(self.keep_sort(), *n);
            // What a LEASE that answers it would still give.
            into.left(*made + self.lease, now);
        }
        into.put(self.acked);
        for flag in [self.ack_due, self.retired, self.left] {
            into.put(flag);
        }
        into.put(self.next_batch);
        into.maybe(self.summary.as_ref(), |into, summary| self.canon_summary(summary, into));
        let mut flights: Vec<(&FlightId, &Flight<W>)> = self.flights.iter().collect();
        flights.sort_unstable_by_key(|(id, _)| **id);
        into.count(flights.len());
        for (id, flight) in flights {
            into.ranked(self.flight_sort(), id.0);
            flight.canon(self.registration_sort(), self.flight_sort(), into);
        }
    }

    /// The number of the present listing: names of an older one are still to be listed.
    pub fn era(&self) -> u64 {
        self.era
    }

    fn canon_summary(&self, summary: &Summary<T::Cursor>, into: &mut Canon) {
        summary.cursor.canon(into);
        into.put(summary.batch);
        into.count(summary.listed.len());
        for listed in &summary.listed {
            listed.name.canon(into);
            into.put(listed.bind_rev.0);
            into.ranked(self.registration_sort(), listed.reg_seq.0);
        }
        into.put(summary.last);
        into.put(summary.refused);
    }

    fn registration_sort(&self) -> Sort {
        Sort::registrations(self.identity.local_id, self.identity.incarnation)
    }

    fn flight_sort(&self) -> Sort {
        Sort::flights(self.identity.local_id, self.identity.incarnation)
    }

    fn keep_sort(&self) -> Sort {
        Sort::keeps(self.identity.local_id, self.identity.incarnation)
    }
}
