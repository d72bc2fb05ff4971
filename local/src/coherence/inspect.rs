//! What the machine keeps, for the checks of a simulation.

use super::session::KEEPS_MAX;
use super::{Coherence, NameTable, Waiter};

impl<T: NameTable, W: Waiter> Coherence<T, W> {
    /// What is kept beyond its bound, or for something that is gone; nothing if all is well. Looks at everything.
    pub fn leaks(&self) -> Vec<String> {
        let mut leaks = Vec::new();
        let mut bounded = |what: &str, is: usize, max: usize| {
            if is > max {
                leaks.push(format!("`{is}` {what}, at most `{max}`"));
            }
        };
        bounded("flights", self.flights.len(), self.bounds.flights_max);
        let waiters = self.flights.values().map(super::Flight::waiters).max();
        bounded("waiters of a flight", waiters.unwrap_or_default(), self.bounds.waiters_max);
        bounded("unanswered keeps", self.keeps.len(), KEEPS_MAX);
        if let Some(absences) = &self.absences {
            bounded("absences", absences.len(), absences.max());
        }
        let indexed: usize = self.by_name.values().map(|flights| flights.len().max(1)).sum();
        let named = self.flights.values().filter(|flight| flight.has_name()).count();
        bounded("places in the index of no flight", indexed.abs_diff(named), 0);
        leaks
    }
}
