//! What became of each request, so that a late duplicate is answered and never applied twice (rules 24-26).
//!
//! Bounds: [`OUTCOMES_PER_CLIENT`] a client, [`OUTCOME_TTL`] of age, and one overall number; outcomes leave in
//! the order in which their requests were born, and the floor that they leave behind refuses older attempts.

use super::OpNo;
use dstore_shared::limits::{OUTCOME_TTL, OUTCOMES_PER_CLIENT};
use dstore_shared::{Born, ClientId, Error, Outcome, RequestId, Result};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What to do with an attempt.
#[derive(Debug)]
pub(super) enum Admission {
    /// Nobody has seen it: execute.
    New,
    /// It is queued, draining or committing: wait with the others.
    Join(OpNo),
    /// It was executed: answer this.
    Done(Outcome),
}

#[derive(Debug)]
enum State {
    Running(OpNo),
    Done(Outcome),
}

#[derive(Debug, Default)]
struct Client {
    largest: u64,
    /// By `n`, with the birth of the request.
    requests: BTreeMap<u64, (BornAt, State)>,
}

/// Order of birth: boot number, then milliseconds of that boot.
type BornAt = (u64, u64);

/// The outcomes still remembered.
#[derive(Debug)]
pub(super) struct Requests {
    boot: Born,
    clients: HashMap<ClientId, Client>,
    by_birth: BTreeSet<(BornAt, ClientId, u64)>,
    /// An attempt born at or before this may have been executed and forgotten.
    floor: BornAt,
    max: usize,
}

impl Requests {
    /// An empty table of at most `max` outcomes for the boot that began with `boot`.
    pub fn new(boot: Born, max: usize) -> Self {
        Self { boot, clients: HashMap::new(), by_birth: BTreeSet::new(), floor: (0, 0), max }
    }

    /// Takes an outcome back that the journal or a checkpoint kept.
    pub fn restore(&mut self, id: RequestId, outcome: Outcome) {
        self.insert(id, State::Done(outcome));
    }

    /// Judges an attempt at `now_ms` of this boot.
    ///
    /// # Errors
    /// `Closed` if it may have been executed and forgotten; `Invalid` if it carries no birth or one that has
    /// not been yet.
    pub fn admit(&mut self, id: RequestId, now_ms: u64) -> Result<Admission> {
        let known = self.clients.get(&id.client).and_then(|c| c.requests.get(&id.n));
        let same_birth = |born: &BornAt| *born == birth(id);
        match known {
            Some((born, State::Running(op))) if same_birth(born) => return Ok(Admission::Join(*op)),
            Some((born, State::Done(outcome))) if same_birth(born) => {
                return Ok(Admission::Done(outcome.clone()));
            }
            Some(_) => return Err(Error::invalid(format!("request `{}` was used for another change", id.n))),
            None => {}
        }
        if id.n == 0 || id.born.boot == 0 {
            return Err(Error::invalid("the request id has no number or birth: ask for the status first"));
        }
        let age = now_ms.saturating_sub(id.born.at_ms);
        let largest = self.clients.get(&id.client).map_or(0, |c| c.largest);
        let unknown = if id.born.history != self.boot.history {
            "it was made under another history"
        } else if id.born.boot < self.boot.boot {
            "global restarted since it was made"
        } else if age > OUTCOME_TTL.as_millis() as u64 {
            "it is older than ten minutes"
        } else if birth(id) <= self.floor {
            "it is older than the oldest that is remembered"
        } else if id.n.saturating_add(OUTCOMES_PER_CLIENT) <= largest {
            "the client has made 1024 requests since"
        } else if id.born.boot > self.boot.boot || id.born.at_ms > now_ms {
            return Err(Error::invalid("the request id was born in the future: ask for the status first"));
        } else {
            return Ok(Admission::New);
        };
        Err(Error::closed(format!("outcome unknown: {unknown}; look before you ask again with a new id")))
    }

    /// Notes that `op` executes the request.
    pub fn start(&mut self, id: RequestId, op: OpNo) {
        self.insert(id, State::Running(op));
    }

    /// Notes what became of it.
    pub fn finish(&mut self, id: RequestId, outcome: Outcome) {
        if let Some((_, state)) = self.clients.get_mut(&id.client).and_then(|c| c.requests.get_mut(&id.n)) {
            *state = State::Done(outcome);
        }
    }

    /// Forgets a request that was not executed and may come again.
    pub fn forget(&mut self, id: RequestId) {
        if let Some(client) = self.clients.get_mut(&id.client)
            && let Some((born, _)) = client.requests.remove(&id.n)
        {
            self.by_birth.remove(&(born, id.client, id.n));
        }
    }

    fn insert(&mut self, id: RequestId, state: State) {
        let client = self.clients.entry(id.client).or_default();
        client.largest = client.largest.max(id.n);
        client.requests.insert(id.n, (birth(id), state));
        self.by_birth.insert((birth(id), id.client, id.n));
        let bound = client.largest.saturating_sub(OUTCOMES_PER_CLIENT - 1);
        while let Some(oldest) = client.requests.first_entry()
            && *oldest.key() < bound
            && matches!(oldest.get().1, State::Done(_))
        {
            let (n, (born, _)) = oldest.remove_entry();
            self.by_birth.remove(&(born, id.client, n));
        }
        while self.by_birth.len() > self.max && self.drop_oldest() {}
    }

    /// Forgets what is older than ten minutes at `now_ms` of this boot, a bounded number at a time.
    pub fn expire(&mut self, now_ms: u64) {
        let limit = (self.boot.boot, now_ms.saturating_sub(OUTCOME_TTL.as_millis() as u64));
        for _ in 0..1024 {
            // Outcomes of earlier boots stay until the cap or this boot's age drives them out.
            match self.by_birth.first() {
                Some(((boot, at), ..))
                    if (*boot, *at) < limit && (*boot == self.boot.boot || limit.1 > 0) =>
                {
                    if !self.drop_oldest() {
                        return;
                    }
                }
                _ => return,
            }
        }
    }

    /// Forgets the oldest outcome and raises the floor; false if it is still running.
    fn drop_oldest(&mut self) -> bool {
        let Some((born, client, n)) = self.by_birth.first().copied() else { return false };
        let Some(entry) = self.clients.get_mut(&client) else { return false };
        if matches!(entry.requests.get(&n), Some((_, State::Running(_)))) {
            return false;
        }
        entry.requests.remove(&n);
        if entry.requests.is_empty() {
            // The floor now refuses whatever the number would have refused.
            self.clients.remove(&client);
        }
        self.by_birth.pop_first();
        self.floor = self.floor.max(born);
        true
    }

    /// Every outcome that is remembered, oldest birth first.
    pub fn done(&self) -> Vec<(RequestId, Outcome)> {
        let outcome = |((boot, at_ms), client, n): &(BornAt, ClientId, u64)| {
            let (_, state) = self.clients.get(client)?.requests.get(n)?;
            let State::Done(outcome) = state else { return None };
            let born = Born { history: self.boot.history, boot: *boot, at_ms: *at_ms };
            Some((RequestId { client: *client, n: *n, born }, outcome.clone()))
        };
        self.by_birth.iter().filter_map(outcome).collect()
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.by_birth.len()
    }
}

fn birth(id: RequestId) -> BornAt {
    (id.born.boot, id.born.at_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dstore_shared::{DeleteOutcome, HistoryId, Kind, Revision};

    const BOOT: Born = Born { history: HistoryId(1), boot: 3, at_ms: 0 };

    fn id(client: u128, n: u64, at_ms: u64) -> RequestId {
        RequestId { client: ClientId(client), n, born: Born { at_ms, ..BOOT } }
    }

    fn outcome(rev: u64) -> Outcome {
        Outcome::Delete(DeleteOutcome { removed: vec![true], revision: Revision(rev) })
    }

    #[test]
    fn rule_24_a_duplicate_joins_while_it_runs_and_then_gets_the_recorded_result() {
        let mut t = Requests::new(BOOT, 100);
        assert!(matches!(t.admit(id(1, 1, 5), 10), Ok(Admission::New)));
        t.start(id(1, 1, 5), OpNo(9));
        assert!(matches!(t.admit(id(1, 1, 5), 11), Ok(Admission::Join(OpNo(9)))));
        t.finish(id(1, 1, 5), outcome(7));
        assert!(matches!(t.admit(id(1, 1, 5), 12), Ok(Admission::Done(o)) if o == outcome(7)));
        assert_eq!(t.admit(id(1, 1, 6), 12).unwrap_err().kind(), Kind::Invalid, "same number, other birth");
    }

    #[test]
    fn rule_25_what_is_forgotten_is_refused_and_never_new() {
        let mut t = Requests::new(BOOT, 2);
        for n in 1..=3 {
            t.start(id(n, 1, n as u64), OpNo(n as u64));
            t.finish(id(n, 1, n as u64), outcome(1));
        }
        assert_eq!(t.len(), 2);
        assert_eq!(t.admit(id(1, 1, 1), 50).unwrap_err().kind(), Kind::Closed);
        assert_eq!(
            t.admit(id(8, 1, 1), 50).unwrap_err().kind(),
            Kind::Closed,
            "any attempt as old as the floor"
        );
        assert!(matches!(t.admit(id(8, 1, 4), 50), Ok(Admission::New)));
        assert_eq!(t.admit(id(9, 1, 4), 700_000).unwrap_err().kind(), Kind::Closed, "ten minutes");
    }

    #[test]
    fn rule_25_a_client_has_1024_outcomes() {
        let mut t = Requests::new(BOOT, 10_000);
        for n in 1..=1025 {
            assert!(matches!(t.admit(id(1, n, 5), 10), Ok(Admission::New)), "{n}");
            t.start(id(1, n, 5), OpNo(n));
            t.finish(id(1, n, 5), outcome(n));
        }
        assert_eq!(t.len(), 1024);
        assert_eq!(t.admit(id(1, 1, 5), 10).unwrap_err().kind(), Kind::Closed);
        assert!(matches!(t.admit(id(1, 2, 5), 10), Ok(Admission::Done(_))));
    }

    #[test]
    fn rule_26_an_attempt_of_an_older_boot_is_answered_from_the_table_or_refused() {
        let mut t = Requests::new(BOOT, 100);
        let old = |n| RequestId { born: Born { boot: 2, ..BOOT }, ..id(1, n, 0) };
        t.restore(old(1), outcome(4));
        assert!(matches!(t.admit(old(1), 5), Ok(Admission::Done(_))));
        assert_eq!(t.admit(old(2), 5).unwrap_err().kind(), Kind::Closed);
        let other = RequestId { born: Born { history: HistoryId(9), ..BOOT }, ..id(1, 5, 0) };
        assert_eq!(t.admit(other, 5).unwrap_err().kind(), Kind::Closed);
        assert_eq!(t.admit(id(1, 5, 99), 5).unwrap_err().kind(), Kind::Invalid, "the future");
        assert_eq!(t.admit(RequestId::default(), 5).unwrap_err().kind(), Kind::Invalid);
    }

    #[test]
    fn what_was_not_executed_may_come_again() {
        let mut t = Requests::new(BOOT, 100);
        t.start(id(1, 1, 5), OpNo(1));
        t.forget(id(1, 1, 5));
        assert!(matches!(t.admit(id(1, 1, 5), 10), Ok(Admission::New)));
        assert_eq!(t.len(), 0);
    }

    #[test]
    fn outcomes_leave_after_ten_minutes() {
        let mut t = Requests::new(BOOT, 100);
        t.start(id(1, 1, 5), OpNo(1));
        t.finish(id(1, 1, 5), outcome(1));
        t.expire(600_000);
        assert_eq!(t.len(), 1);
        t.expire(600_100);
        assert_eq!(t.len(), 0);
    }
}
