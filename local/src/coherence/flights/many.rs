//! Questions about many names that are answered at one revision.
//!
//! One request goes for all. While the lease is valid each name has, beside it, a flight like that of any GET: INVs
//! of the name poison it, other GETs may join it, its answer is installed under the same rules (10, 21, 22). Its
//! number follows that of the request, and so does its registration.

use super::{Flight, Sort, State};
use crate::coherence::{Action, Coherence, NameTable, Waiter};
use dstore_shared::frame::{Ask, Resolved};
use dstore_shared::{Error, FlightId, Moment, Name, Result};

impl<T: NameTable, W: Waiter> Coherence<T, W> {
    /// GETs missed: asks for `names` at one revision. `waiter` is told what they are bound to by
    /// `Action::TellMany`, and each of `each`, as of a GET, when its value is at hand. While the lease is not valid
    /// nothing is cached: then the waiters `each` are handed back, and the answer has to do.
    ///
    /// # Errors
    /// `Exhausted`, with all waiters, if there are too many flights.
    pub fn read_many(
        &mut self,
        now: Moment,
        names: &[Name],
        waiter: W,
        each: Vec<W>,
    ) -> Result<Vec<W>, (Error, Vec<W>)> {
        self.seen = self.seen.max(now);
        let (valid, seen) = (self.is_valid(now), self.seen);
        if self.flights.len() + names.len() >= self.bounds.flights_max {
            let e = Error::exhausted(format!("`{}` requests are under way: try again", self.flights.len()));
            return Err((e, std::iter::once(waiter).chain(each).collect()));
        }
        let ask = Ask::ResolveMany { names: names.to_vec(), cache: valid, carry: true };
        let id = self.prepare(Sort::Many, None, ask, vec![waiter])?;
        if !valid {
            self.send_flight(id);
            return Ok(each);
        }
        for (name, waiter) in names.iter().zip(each) {
            let ask = Ask::Resolve { name: name.clone(), have: None, cache: true, carry: true };
            let part = self.prepare(Sort::Get, Some(name.clone()), ask, vec![waiter])?;
            if let Some(part) = self.flights.get_mut(&part) {
                (part.state, part.epoch, part.part_of) = (State::Sent, self.epoch, Some(id));
                part.sent_at = seen;
            }
        }
        if let Some(flight) = self.flights.get_mut(&id) {
            // That of the first part.
            flight.request.reg_seq = flight.reg_seq.next();
        }
        self.send_flight(id);
        Ok(Vec::new())
    }

    /// Asks Global what `names` are bound to at one revision, for an answer that is not cached.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn look_many(&mut self, names: Vec<Name>, carry: bool, waiter: W) -> Result<(), (Error, W)> {
        let ask = Ask::ResolveMany { names, cache: false, carry };
        self.start(Sort::Many, None, ask, vec![waiter], false).map_err(super::the_only)
    }

    /// A question about many names was answered: each name's flight is, as by a Resolve of its own.
    ///
    /// # Errors
    /// `Internal`, with all who waited, if it is the answer to another question.
    pub fn resolved_many(
        &mut self,
        now: Moment,
        id: FlightId,
        answers: Vec<Resolved>,
    ) -> Result<(), (Error, Vec<W>)> {
        self.resolved_many_at(now, id, answers, 0)
    }

    /// As [`Self::resolved_many`], answered at journal time `journal_ms`.
    ///
    /// # Errors
    /// As [`Self::resolved_many`].
    pub fn resolved_many_at(
        &mut self,
        now: Moment,
        id: FlightId,
        answers: Vec<Resolved>,
        journal_ms: u64,
    ) -> Result<(), (Error, Vec<W>)> {
        let Some(flight) = self.flights.get(&id) else { return Ok(()) };
        let Ask::ResolveMany { names, .. } = &flight.request.ask else { return Ok(()) };
        let (asked, of_history) = (names.len(), flight.is_of(self.history));
        let head = answers.first().map(|answer| answer.head);
        if answers.len() != asked || answers.iter().any(|answer| Some(answer.head) != head) {
            let e = Error::internal("global answered another question than was asked: report this");
            return Err((e, self.failed(id)));
        }
        if of_history {
            self.known = self.known.max(head.unwrap_or_default());
        }
        let parts: Vec<FlightId> = self.parts(id).collect();
        let Some(flight) = self.remove(id) else { return Ok(()) };
        for (part, answer) in parts.into_iter().zip(&answers) {
            self.resolved_at(now, part, answer.clone(), journal_ms);
        }
        self.actions.push(Action::TellMany(flight.early, answers));
        Ok(())
    }

    /// The flights that are answered with `id`, in the order of its names.
    pub(super) fn parts(&self, id: FlightId) -> impl Iterator<Item = FlightId> + use<T, W> {
        let n = match self.flights.get(&id).map(|flight| &flight.request.ask) {
            Some(Ask::ResolveMany { names, cache: true, .. }) => names.len() as u64,
            _ => 0,
        };
        (id.0 + 1..=id.0 + n).map(FlightId)
    }

    /// Whether nobody waits for a flight any more, nor for another one that is answered with it.
    pub(super) fn is_abandoned(&self, flight: &Flight<W>) -> bool {
        let gone = |f: &Flight<W>| f.early.iter().chain(&f.late).all(Waiter::is_gone);
        let whole = flight.part_of.and_then(|id| self.flights.get(&id)).unwrap_or(flight);
        let parts = self.parts(whole.request.flight).filter_map(|part| self.flights.get(&part));
        gone(flight) && gone(whole) && parts.into_iter().all(gone)
    }
}
