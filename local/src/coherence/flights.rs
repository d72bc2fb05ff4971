//! Outstanding upstream requests: who may share one, who is served by its reply, what may be installed
//! (rules 10, 21 to 24).

mod canon;
mod many;

use super::{Absences, Absent, Action, Coherence, NameTable, Waiter};
use dstore_shared::frame::{Ask, Request, Resolved};
use dstore_shared::{
    Blob, BlobHash, Command, Entry, Epoch, Error, FlightId, HistoryId, Moment, Name, Outcome, Prefix, RegSeq,
    RequestId, Result, Revision, SetOutcome,
};

#[derive(Clone, Debug)]
enum State {
    /// Not sent: a lapsed Local has at most one sent flight a name.
    Waiting,
    /// Sent, perhaps again on a new stream.
    Sent,
    /// A Resolve was answered with this binding; its blob is on the way. True: it may be cached, unless
    /// poisoned.
    Found(Entry, bool),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sort {
    /// A GET that may be shared and installed.
    Get,
    /// A question whose answer is neither shared nor installed.
    Look,
    /// A question about many names at one revision; each that may be installed has a flight of its own.
    Many,
    /// A change.
    Change,
}

/// An outstanding upstream request.
#[derive(Clone, Debug)]
pub(super) struct Flight<W> {
    sort: Sort,
    /// The name whose INVs poison it.
    name: Option<Name>,
    state: State,
    /// The session at its first sending.
    epoch: Option<Epoch>,
    reg_seq: RegSeq,
    /// Not later than its first sending.
    sent_at: Moment,
    /// What it found is to be served before this moment only.
    until: Moment,
    /// INVs of its name that came while it was out covered bindings up to this.
    poison: Option<Revision>,
    /// Kept to be sent again.
    request: Request,
    /// Of a SET: the blob to be kept under its name.
    own: Option<Blob>,
    /// Of a GET: it is answered with the others of this one, which is sent for all of them.
    part_of: Option<FlightId>,
    /// Joined before the first sending: served by any reply.
    early: Vec<W>,
    /// Joined after: served by a cacheable reply only.
    late: Vec<W>,
}

impl<W> Flight<W> {
    /// How many wait for it.
    pub fn waiters(&self) -> usize {
        self.early.len() + self.late.len()
    }

    /// Whether INVs of a name poison it.
    pub fn has_name(&self) -> bool {
        self.name.is_some()
    }

    fn clears_poison(&self, r: Revision) -> bool {
        self.poison.is_none_or(|upto| r > upto)
    }

    /// Whether it was sent in `history`: revisions of another one cannot be compared.
    fn is_of(&self, history: HistoryId) -> bool {
        self.epoch.is_some_and(|epoch| epoch.history == history)
    }
}

impl<T: NameTable, W: Waiter> Coherence<T, W> {
    /// A GET missed: joins a flight or starts one. The waiter is handed back by `complete`, `Action::Tell`
    /// or `failed`. `have`: a blob the node holds that the name was bound to last.
    ///
    /// # Errors
    /// `Exhausted`, with the waiter, if there are too many flights or waiters.
    pub fn read(
        &mut self,
        now: Moment,
        name: &Name,
        have: Option<BlobHash>,
        waiter: W,
    ) -> Result<(), (Error, W)> {
        self.seen = self.seen.max(now);
        if let Some(flight) = self.joinable(now, name) {
            let flight = self.flights.get_mut(&flight).expect("an indexed flight");
            if flight.waiters() >= self.bounds.waiters_max {
                return Err((too_many_wait(), waiter));
            }
            // To join a binding that was found, registered and not poisoned, while the lease is valid, is as
            // good as a hit.
            let late = matches!(flight.state, State::Sent);
            (if late { &mut flight.late } else { &mut flight.early }).push(waiter);
            return Ok(());
        }
        let ask = Ask::Resolve { name: name.clone(), have, cache: true, carry: true };
        // Rule 21: a lapsed Local shares nothing sent, so it sends one at a time.
        let wait = !self.is_valid(now) && self.is_asked(name);
        self.start(Sort::Get, Some(name.clone()), ask, vec![waiter], wait).map_err(the_only)
    }

    /// Asks Global what `name` is bound to, for an answer that is not cached.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn look(&mut self, name: &Name, waiter: W) -> Result<(), (Error, W)> {
        let ask = Ask::Resolve { name: name.clone(), have: None, cache: false, carry: false };
        self.start(Sort::Look, None, ask, vec![waiter], false).map_err(the_only)
    }

    /// Sends a change. A SET is poisoned by INVs of its name like a GET (rule 23); `own` is its blob, if the
    /// node would keep it.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn change(
        &mut self,
        id: RequestId,
        command: Command,
        own: Option<Blob>,
        waiter: W,
    ) -> Result<(), (Error, W)> {
        let name = match &command {
            Command::Set { name, .. } => Some(name.clone()),
            Command::Delete { .. }
            | Command::DeletePrefix { .. }
            | Command::Copy { .. }
            | Command::Rename { .. }
            | Command::Apply(_) => None,
        };
        let keep = name.is_some() && own.is_some();
        let flight =
            self.prepare(Sort::Change, name, Ask::Change { id, command }, vec![waiter]).map_err(the_only)?;
        if let Some(flight) = self.flights.get_mut(&flight) {
            flight.own = own;
            if !keep {
                flight.request.reg_seq = RegSeq(0);
            }
        }
        self.send_flight(flight);
        Ok(())
    }

    /// Whether a flight has found what `name` is bound to, and its blob is on the way.
    pub fn is_found(&self, name: &Name) -> bool {
        self.out(name).any(|f| matches!(f.state, State::Found(..)))
    }

    /// The name that a GET's flight asks for.
    pub fn name_of(&self, id: FlightId) -> Option<Name> {
        self.flights.get(&id)?.name.clone()
    }

    /// What a flight that is a SET would bind, if it is to be kept.
    pub fn own_of(&self, id: FlightId) -> Option<(Name, Blob)> {
        let flight = self.flights.get(&id)?;
        flight.name.clone().zip(flight.own.clone())
    }

    fn start(
        &mut self,
        sort: Sort,
        name: Option<Name>,
        ask: Ask,
        early: Vec<W>,
        wait: bool,
    ) -> Result<(), (Error, Vec<W>)> {
        let id = self.prepare(sort, name, ask, early)?;
        if !wait {
            self.send_flight(id);
        }
        Ok(())
    }

    fn prepare(
        &mut self,
        sort: Sort,
        name: Option<Name>,
        ask: Ask,
        early: Vec<W>,
    ) -> Result<FlightId, (Error, Vec<W>)> {
        if self.flights.len() >= self.bounds.flights_max {
            let e = Error::exhausted(format!("`{}` requests are under way: try again", self.flights.len()));
            return Err((e, early));
        }
        self.next_flight += 1;
        let (id, reg_seq) = (FlightId(self.next_flight), self.next_reg());
        if let Some(name) = &name {
            self.by_name.entry(name.clone()).or_default().push(id);
        }
        let request = Request { flight: id, epoch: Epoch::default(), reg_seq, ask };
        let (state, epoch, late, sent_at) = (State::Waiting, None, Vec::new(), Moment::ZERO);
        let until = Moment::MAX;
        let flight = Flight {
            sort,
            name,
            state,
            epoch,
            reg_seq,
            sent_at,
            until,
            poison: None,
            request,
            own: None,
            part_of: None,
            early,
            late,
        };
        self.flights.insert(id, flight);
        Ok(id)
    }

    fn send_flight(&mut self, id: FlightId) {
        let (epoch, seen) = (self.epoch, self.seen);
        if let Some(flight) = self.flights.get_mut(&id) {
            flight.state = State::Sent;
            flight.sent_at = seen;
            flight.epoch = epoch;
            flight.request.epoch = epoch.unwrap_or_default();
            self.actions.push(Action::Ask(flight.request.clone()));
        }
    }

    fn out(&self, name: &Name) -> impl Iterator<Item = &Flight<W>> {
        self.by_name.get(name).into_iter().flatten().filter_map(|id| self.flights.get(id))
    }

    /// The flight that a GET may join (rule 21): one not sent yet; else one of the current epoch that is not
    /// poisoned, while the lease is valid.
    fn joinable(&self, now: Moment, name: &Name) -> Option<FlightId> {
        let gets = || self.out(name).filter(|f| f.sort == Sort::Get);
        let unsent = gets().find(|f| matches!(f.state, State::Waiting));
        let shared = || {
            let current = |f: &&Flight<W>| {
                f.epoch.is_some() && f.epoch == self.epoch && f.poison.is_none() && now < f.until
            };
            gets().filter(current).find(|f| matches!(f.state, State::Sent | State::Found(_, true)))
        };
        let lease = self.is_valid(now);
        unsent.or_else(|| lease.then(shared).flatten()).map(|f| f.request.flight)
    }

    /// Whether a GET of `name` is sent and not answered.
    fn is_asked(&self, name: &Name) -> bool {
        self.out(name).any(|f| f.sort == Sort::Get && matches!(f.state, State::Sent))
    }

    pub(super) fn poison(&mut self, name: &Name, upto: Revision) {
        for id in self.by_name.get(name).into_iter().flatten() {
            if let Some(flight) = self.flights.get_mut(id) {
                flight.poison = flight.poison.max(Some(upto));
            }
        }
    }

    /// As if an INV of every name had come.
    pub(super) fn poison_all(&mut self, upto: Revision) {
        for flight in self.flights.values_mut() {
            flight.poison = flight.poison.max(Some(upto));
        }
    }

    pub(super) fn poison_prefix(&mut self, prefix: &Prefix, upto: Revision) {
        for flight in self.flights.values_mut() {
            if flight.name.as_ref().is_some_and(|name| prefix.covers(name)) {
                flight.poison = flight.poison.max(Some(upto));
            }
        }
    }

    /// A Resolve was answered. Early waiters are served; late ones only by an answer that may be cached,
    /// while the lease is valid; the others share a new flight (rule 22).
    pub fn resolved(&mut self, now: Moment, id: FlightId, answer: Resolved) {
        self.resolved_at(now, id, answer, 0);
    }

    /// As [`Self::resolved`], answered at journal time `journal_ms`. Without that nothing with a time to live is
    /// served again.
    pub fn resolved_at(&mut self, now: Moment, id: FlightId, answer: Resolved, journal_ms: u64) {
        let epoch = self.epoch;
        let valid = self.is_valid(now);
        let keeps_absent = self.absences.is_some();
        self.seen = self.seen.max(now);
        let Some(flight) = self.flights.get_mut(&id) else { return };
        if !matches!(flight.state, State::Sent) || !matches!(flight.sort, Sort::Get | Sort::Look) {
            return;
        }
        if flight.is_of(self.history) {
            self.known = self.known.max(answer.head);
        }
        let current = answer.cacheable.is_some() && answer.cacheable == epoch && flight.epoch == epoch;
        // What Global tells of an absent name holds for the term, counted from the asking (rule 28).
        let absent_until = flight.sent_at + Absences::term();
        let holds = answer.entry.is_some() || keeps_absent && now < absent_until;
        let registered = current && flight.sort == Sort::Get && holds;
        flight.until = served_until(flight.sent_at, answer.entry.as_ref(), journal_ms);
        let mut again = Vec::new();
        if registered && valid && now < flight.until {
            flight.early.append(&mut flight.late);
        } else {
            again = std::mem::take(&mut flight.late);
        }
        let name = flight.name.clone();
        match answer.entry {
            Some(entry) if flight.sort == Sort::Get => {
                let fresh = registered && flight.clears_poison(entry.bind_rev);
                flight.state = State::Found(entry.clone(), fresh);
                self.actions.push(Action::Found(id, entry, answer.carried));
            }
            entry => {
                if let Some(flight) = self.remove(id) {
                    if current && flight.sort == Sort::Get && keeps_absent {
                        self.keep_absent(&flight, answer.head, absent_until);
                    }
                    self.actions.push(Action::Tell(flight.early, entry, answer.head));
                }
            }
        }
        if let Some(name) = name {
            again.retain(|w| !w.is_gone());
            self.read_again(now, &name, again);
            self.send_waiting(&name);
        }
    }

    /// A name was found absent, and this Local is registered for that: it is kept, or Global is told otherwise
    /// (rules 10, 28). As good as newer than the INV that poisoned it is an answer of a head above it.
    fn keep_absent(&mut self, flight: &Flight<W>, head: Revision, until: Moment) {
        let (Some(name), Some(absences)) = (&flight.name, &self.absences) else { return };
        let absent = Absent { at: head, until, reg_seq: flight.reg_seq };
        let kept = self.seen < until && flight.clears_poison(head) && absences.hold(name, absent);
        self.drop_unless(kept, true, flight.name.clone(), flight.reg_seq);
    }

    /// One flight for all of `waiters`, joined before it is sent. Those whom a flight that is there has no room for
    /// are refused.
    fn read_again(&mut self, now: Moment, name: &Name, mut waiters: Vec<W>) {
        if waiters.is_empty() {
            return;
        }
        let waiting = self.out(name).find(|f| matches!(f.state, State::Waiting)).map(|f| f.request.flight);
        if let Some(flight) = waiting.and_then(|id| self.flights.get_mut(&id)) {
            let room = self.bounds.waiters_max.saturating_sub(flight.waiters());
            let refused = waiters.split_off(room.min(waiters.len()));
            flight.early.extend(waiters);
            if !refused.is_empty() {
                self.actions.push(Action::Refused(refused, too_many_wait()));
            }
            return;
        }
        let ask = Ask::Resolve { name: name.clone(), have: None, cache: true, carry: true };
        let wait = !self.is_valid(now) && self.is_asked(name);
        if let Err((e, waiters)) = self.start(Sort::Get, Some(name.clone()), ask, waiters, wait) {
            self.actions.push(Action::Refused(waiters, e));
        }
    }

    /// Sends the flight of `name` that waited for the one just answered.
    fn send_waiting(&mut self, name: &Name) {
        let waiting = self.out(name).find(|f| matches!(f.state, State::Waiting)).map(|f| f.request.flight);
        if let Some(id) = waiting
            && !self.is_asked(name)
        {
            self.send_flight(id);
        }
    }

    /// Until when what a flight has found may be served.
    pub fn until(&self, id: FlightId) -> Moment {
        self.flights.get(&id).map_or(Moment::ZERO, |flight| flight.until)
    }

    /// As [`Self::until`], of a change that bound a name to `entry` and was answered at journal time `journal_ms`.
    pub fn until_of(&self, id: FlightId, entry: &Entry, journal_ms: u64) -> Moment {
        let sent_at = self.flights.get(&id).map_or(Moment::ZERO, |flight| flight.sent_at);
        served_until(sent_at, Some(entry), journal_ms)
    }

    /// The blob of a found binding is at hand. If the answer may still be cached, `install` is called with
    /// the registration and the era, and says whether the node holds the name now, by this or by another
    /// request (rule 10). Gives back who waited, and whether it is held.
    pub fn complete(&mut self, id: FlightId, install: impl FnOnce(RegSeq, u64) -> bool) -> (Vec<W>, bool) {
        let Some(flight) = self.remove(id) else { return (Vec::new(), false) };
        let State::Found(ref entry, registered) = flight.state else { return (flight.early, false) };
        let current = registered && flight.epoch == self.epoch;
        let installed = current && flight.clears_poison(entry.bind_rev) && install(flight.reg_seq, self.era);
        self.drop_unless(installed, current, flight.name, flight.reg_seq);
        (flight.early, installed)
    }

    fn drop_unless(&mut self, installed: bool, registered: bool, name: Option<Name>, reg_seq: RegSeq) {
        if let Some(name) = name.filter(|_| registered && !installed) {
            self.dropped(vec![(name, reg_seq)]);
        }
    }

    /// A change was answered. If it was a SET that this Local may cache, `install` is called as for
    /// [`Self::complete`]. Gives back who waited, and whether the name is held.
    pub fn changed(
        &mut self,
        id: FlightId,
        outcome: &Outcome,
        cacheable: Option<Epoch>,
        install: impl FnOnce(&Name, &Entry, &Blob, RegSeq, u64) -> bool,
    ) -> (Vec<W>, bool) {
        if !self.flights.get(&id).is_some_and(|f| f.sort == Sort::Change) {
            return (Vec::new(), false);
        }
        let Some(flight) = self.remove(id) else { return (Vec::new(), false) };
        if flight.is_of(self.history) {
            self.known = self.known.max(outcome.revision());
        }
        let Outcome::Set(SetOutcome::Stored(entry)) = outcome else { return (flight.early, false) };
        let current = cacheable.is_some() && cacheable == self.epoch && flight.epoch == self.epoch;
        let installed = match (&flight.name, &flight.own) {
            (Some(name), Some(own)) if current && flight.clears_poison(entry.bind_rev) => {
                install(name, entry, own, flight.reg_seq, self.era)
            }
            _ => false,
        };
        self.drop_unless(installed, current, flight.name, flight.reg_seq);
        (flight.early, installed)
    }

    /// A flight failed, at Global or on the way to the blob. Gives back everybody who waited. Global may go on
    /// waiting for this Local: the name may be held by another request with a smaller `reg_seq`.
    pub fn failed(&mut self, id: FlightId) -> Vec<W> {
        let parts = self.parts(id);
        let Some(flight) = self.remove(id) else { return Vec::new() };
        if let Some(name) = &flight.name {
            self.send_waiting(name);
        }
        let parts: Vec<W> = parts.flat_map(|part| self.failed(part)).collect();
        flight.early.into_iter().chain(flight.late).chain(parts).collect()
    }

    /// The request stream broke and is open again: everything that was sent and not answered goes out again,
    /// with the epoch and ids it had. Reads that nobody waits for any more are forgotten instead.
    pub fn send_again(&mut self) {
        self.forget_abandoned();
        let mut sent: Vec<&Flight<W>> =
            self.flights.values().filter(|f| matches!(f.state, State::Sent) && f.part_of.is_none()).collect();
        sent.sort_by_key(|f| f.request.flight);
        let asks = sent.into_iter().map(|f| Action::Ask(f.request.clone()));
        self.actions.extend(asks);
    }

    /// Forgets requests that nobody waits for any more: to be called now and then while Global is away. A
    /// change that Global has begun goes on there; its outcome is kept under its id.
    pub fn forget_abandoned(&mut self) {
        let gone = |f: &Flight<W>| self.is_abandoned(f);
        let unanswered = |f: &Flight<W>| !matches!(f.state, State::Found(..));
        let mut ids: Vec<FlightId> =
            self.flights.values().filter(|f| unanswered(f) && gone(f)).map(|f| f.request.flight).collect();
        // Those that wait for others go first, so that they are not sent for nobody.
        ids.sort_unstable_by_key(|id| std::cmp::Reverse(*id));
        for id in ids {
            if let Some(name) = self.remove(id).and_then(|f| f.name) {
                self.send_waiting(&name);
            }
        }
    }

    /// Whether a request for `name` is out that may still be installed.
    pub(super) fn is_out(&self, name: &Name) -> bool {
        self.by_name.contains_key(name)
    }

    fn remove(&mut self, id: FlightId) -> Option<Flight<W>> {
        let flight = self.flights.remove(&id)?;
        if let Some(name) = &flight.name
            && let Some(ids) = self.by_name.get_mut(name)
        {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_name.remove(name);
            }
        }
        Some(flight)
    }
}

/// Until when a binding that was asked for at `sent_at` may be served: what it had to live at journal time
/// `journal_ms`, when it was answered, counted from the asking and shortened by the bound on clock rate error.
fn served_until(sent_at: Moment, entry: Option<&Entry>, journal_ms: u64) -> Moment {
    #[cfg(feature = "faults")]
    if dstore_shared::planted::is_made(dstore_shared::planted::Mistake::LateExpiry) {
        return Moment::MAX;
    }
    match entry.and_then(|entry| entry.left(journal_ms)) {
        None => Moment::MAX,
        Some(_) if journal_ms == 0 => Moment::ZERO,
        Some(left) => sent_at + super::session::shortened(left),
    }
}

fn too_many_wait() -> Error {
    Error::exhausted("too many callers wait for one name: try again")
}

fn the_only<W>((error, mut waiters): (Error, Vec<W>)) -> (Error, W) {
    (error, waiters.pop().expect("a flight starts for somebody"))
}
