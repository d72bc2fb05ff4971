//! What became of each request, so that a late duplicate is answered and never applied twice (rules 24-26).
//!
//! Bounds: [`OUTCOMES_PER_CLIENT`] a client, [`OUTCOME_TTL`] of age, and overall a number and a weight in bytes;
//! outcomes leave in the order in which their requests were born, and the floor that they leave behind refuses
//! older attempts.

use super::OpNo;
use dstore_shared::limits::{OUTCOME_TTL, OUTCOMES_PER_CLIENT};
use dstore_shared::{Born, ClientId, Error, Outcome, RequestId, Result};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

/// What one outcome costs in memory, without the answers of a DEL of many names.
const WEIGHT: usize = 250;

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
    /// Nothing was done: it may come again.
    NotDone,
}

impl State {
    /// About how many bytes it holds.
    fn weight(&self) -> usize {
        match self {
            Self::Done(Outcome::Delete(done)) => WEIGHT + done.removed.len(),
            _ => WEIGHT,
        }
    }

    fn is_running(&self) -> bool {
        matches!(self, Self::Running(_))
    }
}

#[derive(Debug, Default)]
struct Client {
    largest: u64,
    running: u64,
    /// By `n`, with the birth of the request.
    requests: BTreeMap<u64, (BornAt, State)>,
}

impl Client {
    /// Requests below this number are forgotten once `n` was made.
    fn bound(&self, n: u64) -> u64 {
        self.largest.max(n).saturating_sub(OUTCOMES_PER_CLIENT - 1)
    }
}

/// Order of birth: boot number, then milliseconds of that boot.
type BornAt = (u64, u64);

/// The outcomes still remembered.
#[derive(Debug)]
pub(super) struct Requests {
    boot: Born,
    clients: HashMap<ClientId, Client>,
    /// What is not running, in the order in which it is forgotten.
    by_birth: BTreeSet<(BornAt, ClientId, u64)>,
    /// An attempt born at or before this may have been executed and forgotten.
    floor: BornAt,
    /// What all of `by_birth` weighs.
    weight: usize,
    max: usize,
    weight_max: usize,
}

impl Requests {
    /// An empty table of at most `max` outcomes and `weight_max` bytes for the boot that began with `boot`.
    pub fn new(boot: Born, max: usize, weight_max: usize) -> Self {
        let (clients, by_birth) = (HashMap::new(), BTreeSet::new());
        Self { boot, clients, by_birth, floor: (0, 0), weight: 0, max, weight_max }
    }

    /// Takes an outcome back that the journal or a checkpoint kept.
    pub fn restore(&mut self, id: RequestId, outcome: Outcome) {
        let state = State::Done(outcome);
        let weight = state.weight();
        self.insert(id, state);
        self.remember(id, weight);
    }

    /// Judges an attempt at `now_ms` of this boot.
    ///
    /// # Errors
    /// `Closed` if it may have been executed and forgotten; `Invalid` if it carries no birth or one that has
    /// not been yet; `Exhausted` if the client has too many under way.
    pub fn admit(&self, id: RequestId, now_ms: u64) -> Result<Admission> {
        let client = self.clients.get(&id.client);
        let mut known = false;
        match client.and_then(|c| c.requests.get(&id.n)) {
            Some((born, _)) if *born != birth(id) => {
                return Err(Error::invalid(format!("request `{}` was used for another change", id.n)));
            }
            Some((_, State::Running(op))) => return Ok(Admission::Join(*op)),
            Some((_, State::Done(outcome))) => return Ok(Admission::Done(outcome.clone())),
            Some((_, State::NotDone)) => known = true,
            None => {}
        }
        if id.n == 0 || id.born.boot == 0 {
            return Err(Error::invalid("the request id has no number or birth: ask for the status first"));
        }
        let age = now_ms.saturating_sub(id.born.at_ms);
        let unknown = if id.born.history != self.boot.history {
            "it was made under another history"
        } else if id.born.boot < self.boot.boot {
            "global restarted since it was made"
        } else if age > OUTCOME_TTL.as_millis() as u64 {
            "it is older than ten minutes"
        } else if birth(id) <= self.floor && !known {
            "it is older than the oldest that is remembered"
        } else if client.is_some_and(|c| id.n < c.bound(0)) && !known {
            "the client has made 1024 requests since"
        } else if client.is_some_and(|c| forgets_younger(c, id)) {
            // Else the floor that it leaves when it is forgotten itself might lie below theirs.
            "it is older than requests with far smaller numbers"
        } else if id.born.boot > self.boot.boot || id.born.at_ms > now_ms {
            return Err(Error::invalid("the request id was born in the future: ask for the status first"));
        } else if client.is_some_and(|c| c.running >= OUTCOMES_PER_CLIENT) {
            return Err(Error::exhausted("the client has 1024 requests under way: wait for one of them"));
        } else {
            return Ok(Admission::New);
        };
        Err(Error::closed(format!("outcome unknown: {unknown}; look before you ask again with a new id")))
    }

    /// Notes that `op` executes the request.
    pub fn start(&mut self, id: RequestId, op: OpNo) {
        self.insert(id, State::Running(op)).running += 1;
    }

    /// Notes what became of it.
    pub fn finish(&mut self, id: RequestId, outcome: Outcome) {
        self.stop(id, State::Done(outcome));
    }

    /// Notes that nothing became of it, and that it may come again.
    pub fn not_done(&mut self, id: RequestId) {
        self.stop(id, State::NotDone);
    }

    fn stop(&mut self, id: RequestId, became: State) {
        if let Some(client) = self.clients.get_mut(&id.client)
            && let Some((_, state)) = client.requests.get_mut(&id.n)
        {
            let weight = became.weight();
            *state = became;
            client.running -= 1;
            self.remember(id, weight);
        }
    }

    /// Counts what does not run, and drives out the oldest if it is too much.
    fn remember(&mut self, id: RequestId, weight: usize) {
        self.by_birth.insert((birth(id), id.client, id.n));
        self.weight += weight;
        while self.by_birth.len() > self.max || self.weight > self.weight_max {
            if !self.drop_oldest() {
                return;
            }
        }
    }

    /// Puts a state in, which [`Self::remember`] must count unless it runs.
    fn insert(&mut self, id: RequestId, state: State) -> &mut Client {
        let client = self.clients.entry(id.client).or_default();
        let bound = client.bound(id.n);
        client.largest = client.largest.max(id.n);
        let outnumbered = client.requests.range(..bound).filter(|(_, (_, s))| !s.is_running());
        for n in outnumbered.map(|(n, _)| *n).collect::<Vec<_>>() {
            if let Some((born, gone)) = client.requests.remove(&n) {
                self.by_birth.remove(&(born, id.client, n));
                self.weight -= gone.weight();
            }
        }
        if let Some((born, before)) = client.requests.insert(id.n, (birth(id), state))
            && self.by_birth.remove(&(born, id.client, id.n))
        {
            self.weight -= before.weight();
        }
        client
    }

    /// Forgets what is older than ten minutes at `now_ms` of this boot, a bounded number at a time.
    pub fn expire(&mut self, now_ms: u64) {
        // Outcomes of earlier boots stay until the cap or this boot's age drives them out.
        let oldest = match now_ms.saturating_sub(OUTCOME_TTL.as_millis() as u64) {
            0 => return,
            at_ms => (self.boot.boot, at_ms),
        };
        for _ in 0..1024 {
            match self.by_birth.first() {
                Some((born, ..)) if *born < oldest => _ = self.drop_oldest(),
                _ => return,
            }
        }
    }

    /// Forgets the oldest outcome and raises the floor; false if there is none.
    fn drop_oldest(&mut self) -> bool {
        let Some((born, client, n)) = self.by_birth.pop_first() else { return false };
        self.floor = self.floor.max(born);
        let Some(entry) = self.clients.get_mut(&client) else { return true };
        if let Some((_, gone)) = entry.requests.remove(&n) {
            self.weight -= gone.weight();
        }
        if entry.requests.is_empty() {
            // The floor now refuses whatever the number would have refused.
            self.clients.remove(&client);
        }
        true
    }

    /// A slice of the outcomes that are remembered, oldest birth first: of the `max` requests that follow
    /// `after`. Gives where the next slice begins; `None` = that was the last.
    pub fn done(
        &self,
        after: Option<RequestId>,
        max: usize,
    ) -> (Vec<(RequestId, Outcome)>, Option<RequestId>) {
        let from = after.map_or(Bound::Unbounded, |id| Bound::Excluded((birth(id), id.client, id.n)));
        let slice = self.by_birth.range((from, Bound::Unbounded)).take(max);
        let (mut done, mut seen, mut last) = (Vec::with_capacity(max.min(self.len())), 0, None);
        for ((boot, at_ms), client, n) in slice {
            let born = Born { history: self.boot.history, boot: *boot, at_ms: *at_ms };
            let id = RequestId { client: *client, n: *n, born };
            (seen, last) = (seen + 1, Some(id));
            if let Some((_, State::Done(outcome))) = self.clients.get(client).and_then(|c| c.requests.get(n))
            {
                done.push((id, outcome.clone()));
            }
        }
        (done, last.filter(|_| seen == max))
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.by_birth.len()
    }
}

/// Whether `id` would make its client's table forget a request born after it.
fn forgets_younger(client: &Client, id: RequestId) -> bool {
    let outnumbered = client.requests.range(..client.bound(id.n));
    outnumbered.into_iter().any(|(_, (born, _))| *born > birth(id))
}

fn birth(id: RequestId) -> BornAt {
    (id.born.boot, id.born.at_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dstore_shared::{DeleteOutcome, HistoryId, Kind, Revision};
    use dstore_sys::rng::{Rng, SeededRng};

    /// Never reached.
    const WEIGHT_MAX: usize = 1 << 40;
    const BOOT: Born = Born { history: HistoryId(1), boot: 3, at_ms: 0 };

    fn id(client: u128, n: u64, at_ms: u64) -> RequestId {
        RequestId { client: ClientId(client), n, born: Born { at_ms, ..BOOT } }
    }

    fn outcome(rev: u64) -> Outcome {
        Outcome::Delete(DeleteOutcome { removed: vec![true], revision: Revision(rev) })
    }

    #[test]
    fn rule_24_a_duplicate_joins_while_it_runs_and_then_gets_the_recorded_result() {
        let mut t = Requests::new(BOOT, 100, WEIGHT_MAX);
        assert!(matches!(t.admit(id(1, 1, 5), 10), Ok(Admission::New)));
        t.start(id(1, 1, 5), OpNo(9));
        assert!(matches!(t.admit(id(1, 1, 5), 11), Ok(Admission::Join(OpNo(9)))));
        t.finish(id(1, 1, 5), outcome(7));
        assert!(matches!(t.admit(id(1, 1, 5), 12), Ok(Admission::Done(o)) if o == outcome(7)));
        assert_eq!(t.admit(id(1, 1, 6), 12).unwrap_err().kind(), Kind::Invalid, "same number, other birth");
    }

    #[test]
    fn rule_25_what_is_forgotten_is_refused_and_never_new() {
        let mut t = Requests::new(BOOT, 2, WEIGHT_MAX);
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
        let mut t = Requests::new(BOOT, 10_000, WEIGHT_MAX);
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
        let mut t = Requests::new(BOOT, 100, WEIGHT_MAX);
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
        let mut t = Requests::new(BOOT, 100, WEIGHT_MAX);
        t.start(id(1, 1, 5), OpNo(1));
        t.not_done(id(1, 1, 5));
        assert!(matches!(t.admit(id(1, 1, 5), 10), Ok(Admission::New)));
        assert_eq!(t.admit(id(1, 1, 6), 10).unwrap_err().kind(), Kind::Invalid);
        t.start(id(1, 1, 5), OpNo(2));
        assert!(matches!(t.admit(id(1, 1, 5), 10), Ok(Admission::Join(OpNo(2)))));
    }

    #[test]
    fn what_was_not_executed_may_come_again_though_younger_ones_were_forgotten() {
        let mut t = Requests::new(BOOT, 2, WEIGHT_MAX);
        t.start(id(1, 1, 7), OpNo(1));
        for n in 2..=4 {
            t.start(id(n, 1, 5), OpNo(n as u64));
            t.finish(id(n, 1, 5), outcome(1));
        }
        assert_eq!(t.admit(id(9, 1, 5), 10).unwrap_err().kind(), Kind::Closed, "the floor");
        t.not_done(id(1, 1, 7));
        t.start(id(5, 1, 9), OpNo(5));
        t.finish(id(5, 1, 9), outcome(1));
        assert!(matches!(t.admit(id(1, 1, 7), 10), Ok(Admission::New)));
    }

    #[test]
    fn clients_whose_requests_are_not_executed_are_forgotten_too() {
        let mut t = Requests::new(BOOT, 100, WEIGHT_MAX);
        for client in 0..1_000 {
            t.start(id(client, 1, 5), OpNo(1));
            t.not_done(id(client, 1, 5));
        }
        assert_eq!((t.len(), t.clients.len()), (100, 100));
    }

    #[test]
    fn an_old_request_that_runs_long_does_not_make_the_table_grow() {
        let mut t = Requests::new(BOOT, 100, WEIGHT_MAX);
        t.start(id(1, 1, 0), OpNo(1));
        for n in 2..1_000 {
            t.start(id(n, 1, 5), OpNo(1));
            t.finish(id(n, 1, 5), outcome(1));
        }
        assert_eq!(t.len(), 100);
        assert!(matches!(t.admit(id(1, 1, 0), 10), Ok(Admission::Join(_))));
        assert_eq!(t.clients.len(), 101);
    }

    #[test]
    fn what_the_number_forgot_is_not_new_when_the_client_is_forgotten() {
        let mut t = Requests::new(BOOT, 1, WEIGHT_MAX);
        t.start(id(1, 1, 100), OpNo(1));
        t.finish(id(1, 1, 100), outcome(1));
        let jump = t.admit(id(1, 5_000, 50), 200);
        assert_eq!(jump.unwrap_err().kind(), Kind::Closed, "its floor would lie below that of number 1");
        t.start(id(1, 5_000, 150), OpNo(2));
        t.finish(id(1, 5_000, 150), outcome(2));
        t.start(id(2, 1, 160), OpNo(3));
        t.finish(id(2, 1, 160), outcome(3));
        assert!(!t.clients.contains_key(&ClientId(1)));
        assert_eq!(t.admit(id(1, 1, 100), 200).unwrap_err().kind(), Kind::Closed);
    }

    #[test]
    fn a_client_has_at_most_1024_requests_under_way() {
        let mut t = Requests::new(BOOT, 10_000, WEIGHT_MAX);
        (1..=1024).for_each(|n| t.start(id(1, n, 5), OpNo(n)));
        assert_eq!(t.admit(id(1, 1025, 5), 10).unwrap_err().kind(), Kind::Exhausted);
        assert!(matches!(t.admit(id(2, 1, 5), 10), Ok(Admission::New)));
        t.finish(id(1, 7, 5), outcome(1));
        assert!(matches!(t.admit(id(1, 1025, 5), 10), Ok(Admission::New)));
    }

    #[test]
    fn outcomes_leave_after_ten_minutes() {
        let mut t = Requests::new(BOOT, 100, WEIGHT_MAX);
        t.start(id(1, 1, 5), OpNo(1));
        t.finish(id(1, 1, 5), outcome(1));
        t.expire(600_000);
        assert_eq!(t.len(), 1);
        t.expire(600_100);
        assert_eq!(t.len(), 0);
    }

    fn of_many(names: usize) -> Outcome {
        Outcome::Delete(DeleteOutcome { removed: vec![false; names], revision: Revision(1) })
    }

    #[test]
    fn a_delete_of_many_names_weighs_what_it_holds_and_the_oldest_leave_for_it() {
        let mut t = Requests::new(BOOT, 1_000, 100_000);
        for n in 1..=200 {
            t.start(id(n.into(), 1, n), OpNo(n));
            t.finish(id(n.into(), 1, n), of_many(10_000));
        }
        assert_eq!((t.len(), t.weight), (9, 9 * (WEIGHT + 10_000)));
        assert!(matches!(t.admit(id(200, 1, 200), 300), Ok(Admission::Done(o)) if o == of_many(10_000)));
        assert_eq!(t.admit(id(191, 1, 191), 300).unwrap_err().kind(), Kind::Closed, "the floor");
        // One that no bound could hold is forgotten like any other, and nothing is counted twice.
        t.start(id(300, 1, 250), OpNo(300));
        t.finish(id(300, 1, 250), of_many(200_000));
        assert_eq!((t.len(), t.weight, t.clients.len()), (0, 0, 0));
        assert_eq!(t.admit(id(300, 1, 250), 300).unwrap_err().kind(), Kind::Closed);
    }

    #[test]
    fn the_weight_is_that_of_what_is_remembered_whatever_happened() {
        let rng = SeededRng::new(5);
        let below = |n: u64| rng.next_u64() % n;
        let mut t = Requests::new(BOOT, 60, 30_000);
        let mut running = Vec::new();
        for at_ms in 1..20_000 {
            let id = id(below(4).into(), 1 + below(3_000), at_ms);
            match below(8) {
                0 => t.restore(id, of_many(below(2_000) as usize)),
                1 => t.expire(600_000 + at_ms.saturating_sub(50)),
                2..=4 if matches!(t.admit(id, at_ms), Ok(Admission::New)) => {
                    t.start(id, OpNo(at_ms));
                    running.push(id);
                }
                _ if running.is_empty() => {}
                _ => {
                    let id = running.swap_remove(below(running.len() as u64) as usize);
                    match below(3) {
                        0 => t.not_done(id),
                        _ => t.finish(id, of_many(below(2_000) as usize)),
                    }
                }
            }
            let states = t.clients.values().flat_map(|c| c.requests.values()).map(|(_, state)| state);
            let (mut len, mut weight) = (0, 0);
            for state in states.filter(|state| !state.is_running()) {
                (len, weight) = (len + 1, weight + state.weight());
            }
            assert_eq!((t.len(), t.weight), (len, weight), "at {at_ms}");
            assert!(len <= 60 && weight <= 30_000, "at {at_ms}");
        }
    }

    #[test]
    fn slices_give_every_outcome_once_and_go_on_where_one_was_forgotten() {
        let mut t = Requests::new(BOOT, 100, WEIGHT_MAX);
        for n in 1..=20 {
            t.start(id(1, n, 100 - n), OpNo(n));
            if n.is_multiple_of(3) {
                t.not_done(id(1, n, 100 - n));
            } else {
                t.finish(id(1, n, 100 - n), outcome(n));
            }
        }
        let (all, end) = t.done(None, 100);
        assert_eq!((all.len(), end), (14, None));
        assert!(all.is_sorted_by_key(|(id, _)| id.born.at_ms));
        for max in 1..=20 {
            let (mut slices, mut next) = (Vec::new(), None);
            loop {
                let (slice, after) = t.done(next, max);
                assert!(slice.len() <= max);
                slices.extend(slice);
                next = after;
                if next.is_none() {
                    break;
                }
            }
            assert_eq!(slices, all, "slices of {max}");
        }
        let (mut slices, next) = t.done(None, 5);
        (0..7).for_each(|_| _ = t.drop_oldest());
        slices.extend(t.done(next, 100).0);
        let left = all.iter().enumerate().filter(|(i, _)| *i < slices.len() - 9 || *i >= all.len() - 9);
        assert_eq!(slices, left.map(|(_, one)| one.clone()).collect::<Vec<_>>());
    }
}
