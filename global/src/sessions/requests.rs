//! What became of each request, so that a late duplicate is answered and never applied twice (rules 24-26).
//!
//! Bounds: [`OUTCOMES_PER_CLIENT`] a client, [`OUTCOME_TTL`] of age, and overall a number and a weight in bytes;
//! outcomes leave in the order in which their requests were born, and the floor that they leave behind refuses
//! older attempts.

use super::OpNo;
use dstore_shared::canon::{Canon, Canonical, Sort};
use dstore_shared::limits::{OUTCOME_TTL, OUTCOMES_PER_CLIENT};
use dstore_shared::{Born, ClientId, Decision, Error, Outcome, RequestId, Result, StepOutcome};
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

#[derive(Clone, Debug)]
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
            Self::Done(Outcome::Transaction(done)) => match &done.decision {
                Decision::Done(steps) => WEIGHT + steps.len() * size_of::<StepOutcome>() + done.type_len(),
                Decision::Refused(..) => WEIGHT + size_of::<StepOutcome>() + done.type_len(),
                Decision::Aborted(_) | Decision::NeedBlobs(_) => WEIGHT,
            },
            Self::Done(outcome) => WEIGHT + outcome.type_len(),
            _ => WEIGHT,
        }
    }

    fn is_running(&self) -> bool {
        matches!(self, Self::Running(_))
    }
}

#[derive(Clone, Debug, Default)]
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
#[derive(Clone, Debug)]
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

    /// Writes what is remembered. Age and number are left out: nothing is forgotten in what a model looks at.
    pub fn canon(&self, into: &mut Canon) {
        let mut clients: Vec<_> = self.clients.iter().collect();
        clients.sort_unstable_by_key(|(id, _)| **id);
        into.count(clients.len());
        for (id, client) in clients {
            into.put(id.0 as u64);
            into.count(client.requests.len());
            for (n, (born, state)) in &client.requests {
                into.put(*n);
                into.put(born.0);
                match state {
                    State::Running(op) => {
                        into.put(0u8);
                        into.named(Sort::Op, op.0);
                    }
                    State::Done(outcome) => {
                        into.put(1u8);
                        outcome.canon(into);
                    }
                    State::NotDone => into.put(2u8),
                }
            }
        }
    }

    /// The bytes that they take, about.
    pub fn weight(&self) -> usize {
        self.weight
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
mod tests;
