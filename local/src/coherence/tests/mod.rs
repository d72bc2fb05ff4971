//! Tables of interleavings for the Local's machine: a test a rule of docs/PROTOCOL.md, named after its number,
//! a test for each way in which it was once wrong, and what a hostile Global may send.
//!
//! A [`Table`] is one Local with a plain name table. Every event that looks at the clock takes the time in
//! milliseconds; [`Table::gives`] tells all that was to be done since it was last asked, in order. `e1` is an
//! epoch, `f1` a flight, `#1` a registration, `k@5` name k bound at revision 5; `g1` and the like wait.

mod absences;
mod flights;
mod hostile;
mod many;
mod resume;
mod session;
mod timed;

use super::*;
use dstore_shared::frame::{Ask, Down, Listed, Resolved, Resumption};
use dstore_shared::{
    BlobHash, ClientId, Command, DeleteMode, DeleteOutcome, Kind, Outcome, Prefix, RequestId, SetOutcome,
};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

const LEASE: Duration = Duration::from_secs(2);
/// How long a lease lets a Local serve: D(1-ρ).
const VALID_MS: u64 = 1_990;

fn at(ms: u64) -> Moment {
    Moment::from_nanos((1_000 + ms) * 1_000_000)
}

fn name(k: &str) -> Name {
    Name::of(k.to_owned()).unwrap()
}

fn key(name: &Name) -> String {
    String::from_utf8(name.as_bytes().split(|b| *b == 0).next_back().unwrap().to_vec()).unwrap()
}

fn e(counter: u64) -> Epoch {
    Epoch { history: HistoryId(0xd), boot: 3, counter }
}

fn entry(rev: u64) -> Entry {
    Entry {
        hash: BlobHash::of(&rev.to_le_bytes()),
        size: 8,
        bind_rev: Revision(rev),
        expires_at: None,
        content_type: None,
    }
}

fn born(at_ms: u64) -> Born {
    Born { history: HistoryId(0xd), boot: 3, at_ms }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Held {
    rev: u64,
    reg: RegSeq,
    era: u64,
}

/// Names as a node might hold them.
#[derive(Debug, Default)]
struct Names(RefCell<BTreeMap<Name, Held>>);

impl NameTable for Names {
    type Cursor = Option<Name>;

    fn remove_upto(&self, name: &Name, upto: Revision) {
        self.0.borrow_mut().retain(|k, held| k != name || held.rev > upto.0);
    }

    fn remove_prefix_upto(&self, prefix: &Prefix, upto: Revision) {
        self.0.borrow_mut().retain(|name, held| !prefix.covers(name) || held.rev > upto.0);
    }

    fn validate(&self, name: &Name, bind_rev: Revision, reg: RegSeq, era: u64) -> bool {
        let mut names = self.0.borrow_mut();
        let Some(held) = names.get_mut(name) else { return false };
        if held.era < era && held.rev == bind_rev.0 {
            (held.era, held.reg) = (era, reg);
        }
        held.era == era
    }

    fn drop_unvalidated(&self, name: &Name, era: u64) {
        self.0.borrow_mut().retain(|k, held| k != name || held.era >= era);
    }

    fn drop_all(&self) {
        self.0.borrow_mut().clear();
    }

    fn stale(&self, era: u64, cursor: &mut Self::Cursor, limit: usize) -> Vec<(Name, Revision)> {
        let names = self.0.borrow();
        let after = |k: &Name| cursor.as_ref().is_none_or(|c| k > c);
        let stale = names.iter().filter(|(k, held)| held.era < era && after(k)).take(limit);
        let listed: Vec<_> = stale.map(|(k, held)| (k.clone(), Revision(held.rev))).collect();
        *cursor = listed.last().map(|(k, _)| k.clone()).or(cursor.take());
        listed
    }
}

#[derive(Debug)]
struct W(&'static str, Rc<RefCell<BTreeSet<&'static str>>>);

impl Waiter for W {
    fn is_gone(&self) -> bool {
        self.1.borrow().contains(self.0)
    }
}

struct Table {
    m: Coherence<Names, W>,
    names: Names,
    gone: Rc<RefCell<BTreeSet<&'static str>>>,
    /// As a hit sees them.
    valid_until: Moment,
    era: u64,
    changes: u64,
    done: Vec<String>,
}

impl Table {
    fn new() -> Self {
        Self::with(Bounds::default())
    }

    fn with(bounds: Bounds) -> Self {
        let identity = Identity { local_id: LocalId(1), incarnation: Incarnation(1), label: "l".into() };
        Self {
            m: Coherence::new(identity, bounds),
            names: Names::default(),
            gone: Rc::default(),
            valid_until: Moment::ZERO,
            era: 0,
            changes: 0,
            done: Vec::new(),
        }
    }

    /// A Local in e1, with a lease from 0 ms; nothing held, nothing to be said.
    fn open() -> Self {
        let mut t = Self::new();
        t.connected(0);
        t.welcome(e(1));
        t.lease(0, e(1), 0);
        t.summarized(e(1), 1, &[]);
        t.skip();
        t
    }

    /// An open one that holds k@5 by registration 1.
    fn holding_k() -> Self {
        let mut t = Self::open();
        t.fill("k", 5, "g0");
        t.skip();
        t
    }

    // ---- events

    fn connected(&mut self, ms: u64) {
        self.m.connected(at(ms));
    }

    fn down(&mut self, ms: u64, frame: Down) {
        self.m.down(at(ms), frame, &self.names);
    }

    fn welcome(&mut self, epoch: Epoch) {
        self.welcome_as(epoch, Resumption::Compacted);
    }

    fn welcome_as(&mut self, epoch: Epoch, resumption: Resumption) {
        self.welcome_to(epoch, resumption, false);
    }

    /// As [`Self::welcome_as`]; `list`: the session is a wildcard until all that is held was listed.
    fn welcome_to(&mut self, epoch: Epoch, resumption: Resumption, list: bool) {
        let (head, lease) = (Revision(10), LEASE);
        self.down(0, Down::Welcome { epoch, head, resumption, lease, born: born(0), list, loss: None });
    }

    fn resync(&mut self, epoch: Epoch, seq: u64, upto: u64) {
        self.down(0, Down::Resync { epoch, seq, upto: Revision(upto) });
    }

    fn inv(&mut self, epoch: Epoch, seq: u64, k: &str, upto: u64) {
        self.down(0, Down::Inv { epoch, seq, name: name(k), upto: Revision(upto) });
    }

    fn lease(&mut self, ms: u64, epoch: Epoch, n: u64) {
        self.down(ms, Down::Lease { epoch, n, lease: LEASE, through: Revision(10), born: born(0) });
    }

    fn summarized(&mut self, epoch: Epoch, batch: u64, refused: &[u32]) {
        self.down(0, Down::Summarized { epoch, batch, refused: refused.to_vec() });
    }

    fn get(&mut self, ms: u64, k: &str, who: &'static str) {
        let waiter = W(who, self.gone.clone());
        assert!(self.m.read(at(ms), &name(k), None, waiter).is_ok());
    }

    fn set(&mut self, k: &str, who: &'static str) {
        let command = Command::Set {
            name: name(k),
            hash: BlobHash::of(b""),
            size: 0,
            carried: None,
            attributes: dstore_shared::Attributes::default(),
        };
        self.change(command, who);
    }

    fn del(&mut self, k: &str, who: &'static str) {
        self.change(Command::Delete { names: vec![name(k)], mode: DeleteMode::Strict }, who);
    }

    fn change(&mut self, command: Command, who: &'static str) {
        self.changes += 1;
        let id = RequestId { client: ClientId(7), n: self.changes, born: born(0) };
        let own = matches!(command, Command::Set { .. }).then(|| Blob::hash(""));
        assert!(self.m.change(id, command, own, W(who, self.gone.clone())).is_ok());
    }

    /// Flight `f` is answered: bound at `rev`, to be cached in an epoch or not.
    fn bound(&mut self, ms: u64, f: u64, rev: u64, cacheable: Option<Epoch>) {
        let answer = Resolved { entry: Some(entry(rev)), carried: None, cacheable, head: Revision(20) };
        self.m.resolved(at(ms), FlightId(f), answer);
    }

    fn absent(&mut self, ms: u64, f: u64) {
        let answer = Resolved { entry: None, carried: None, cacheable: None, head: Revision(20) };
        self.m.resolved(at(ms), FlightId(f), answer);
    }

    /// The blob is at hand: who is served, and whether the name is held now.
    fn complete(&mut self, f: u64, k: &str, rev: u64) -> (Vec<&'static str>, bool) {
        let names = &self.names;
        let (served, held) = self.m.complete(FlightId(f), |reg, era| {
            names.0.borrow_mut().insert(name(k), Held { rev, reg, era });
            true
        });
        (served.iter().map(|w| w.0).collect(), held)
    }

    fn stored(&mut self, f: u64, k: &str, rev: u64, cacheable: Option<Epoch>) -> (Vec<&'static str>, bool) {
        let names = &self.names;
        let outcome = Outcome::Set(SetOutcome::Stored(entry(rev)));
        let (served, held) = self.m.changed(FlightId(f), &outcome, cacheable, |_, e, _, reg, era| {
            names.0.borrow_mut().insert(name(k), Held { rev: e.bind_rev.0, reg, era });
            true
        });
        (served.iter().map(|w| w.0).collect(), held)
    }

    fn changed(&mut self, f: u64, outcome: &Outcome) -> (Vec<&'static str>, bool) {
        let (served, held) = self.m.changed(FlightId(f), outcome, self.m.epoch(), |_, _, _, _, _| true);
        (served.iter().map(|w| w.0).collect(), held)
    }

    fn failed(&mut self, f: u64) -> Vec<&'static str> {
        self.m.failed(FlightId(f)).iter().map(|w| w.0).collect()
    }

    /// A GET that goes all the way, in the current epoch.
    fn fill(&mut self, k: &str, rev: u64, who: &'static str) {
        self.get(1, k, who);
        let f = self.m.next_flight;
        self.bound(2, f, rev, self.m.epoch());
        assert_eq!(self.complete(f, k, rev), (vec![who], true));
    }

    fn dropped(&mut self, k: &str, reg: u64) {
        self.m.dropped(vec![(name(k), RegSeq(reg))]);
    }

    // ---- what came of it

    fn obey(&mut self) {
        for action in self.m.take_actions() {
            match action {
                Action::ValidUntil(until) => self.valid_until = until,
                Action::Era(era) => self.era = era,
                _ => {}
            }
            self.done.push(told(&action));
        }
    }

    /// All that was to be done since the last such question is this, in order.
    #[track_caller]
    fn gives(&mut self, expected: &[&str]) {
        self.obey();
        assert_eq!(std::mem::take(&mut self.done), expected);
    }

    #[track_caller]
    fn gives_nothing(&mut self) {
        self.gives(&[]);
    }

    /// Everything until now is of no interest.
    fn skip(&mut self) {
        self.obey();
        self.done.clear();
    }

    /// A hit, as the node makes it: the revision served at `ms`.
    fn hit(&mut self, ms: u64, k: &str) -> Option<u64> {
        self.obey();
        let valid_until = self.valid_until;
        let held = self.names.0.borrow().get(&name(k)).copied()?;
        (held.era >= self.era && at(ms) < valid_until).then_some(held.rev)
    }

    fn holds(&self, k: &str) -> bool {
        self.names.0.borrow().contains_key(&name(k))
    }
}

fn told(action: &Action<W>) -> String {
    match action {
        Action::ValidUntil(Moment::ZERO) => "serve nothing".into(),
        Action::ValidUntil(until) => format!("valid until {}", until.as_millis() - 1_000),
        Action::Era(era) => format!("era {era}"),
        Action::Send(up) => up_told(up),
        Action::Ask(request) => {
            let what = match &request.ask {
                Ask::Resolve { name, cache: true, .. } => format!("resolve {}", key(name)),
                Ask::Resolve { name, .. } => format!("look {}", key(name)),
                Ask::ResolveMany { names, cache, .. } => {
                    let names: Vec<String> = names.iter().map(key).collect();
                    format!("{} many {}", if *cache { "resolve" } else { "look" }, names.join(" "))
                }
                Ask::Change { id, command: Command::Set { name, .. } } => {
                    format!("set {} ({})", key(name), id.n)
                }
                Ask::Change { id, .. } => format!("del ({})", id.n),
            };
            format!("f{} {what} e{} #{}", request.flight.0, request.epoch.counter, request.reg_seq.0)
        }
        Action::Found(flight, entry, _) => format!("f{} found @{}", flight.0, entry.bind_rev),
        Action::Tell(waiters, None, _) => format!("absent for {}", waiters_told(waiters)),
        Action::Tell(waiters, Some(entry), _) => {
            format!("told @{} to {}", entry.bind_rev, waiters_told(waiters))
        }
        Action::TellMany(waiters, _) => format!("told many to {}", waiters_told(waiters)),
        Action::Refused(waiters, e) => format!("{} for {}", e.kind(), waiters_told(waiters)),
        Action::Reconnect(_) => "reconnect".into(),
    }
}

fn up_told(up: &Up) -> String {
    match up {
        Up::Hello(hello) => format!("hello, was e{}", hello.last_epoch.map_or(0, |e| e.counter)),
        Up::Keep { epoch, n, acked } => format!("keep {n} acked {acked} e{}", epoch.counter),
        Up::Ack { epoch, seq } => format!("ack {seq} e{}", epoch.counter),
        Up::Summary { batch, names, last, .. } => {
            let listed = |l: &Listed| format!(" {}@{}#{}", key(&l.name), l.bind_rev, l.reg_seq.0);
            let names: String = names.iter().map(listed).collect();
            format!("summary {batch}{names}{}", if *last { " last" } else { "" })
        }
        Up::Drop { names, .. } => {
            let names: Vec<String> = names.iter().map(|(k, reg)| format!("{}#{}", key(k), reg.0)).collect();
            format!("drop {}", names.join(" "))
        }
        Up::Bye { epoch } => format!("bye e{}", epoch.counter),
    }
}

fn waiters_told(waiters: &[W]) -> String {
    waiters.iter().map(|w| w.0).collect::<Vec<_>>().join(" ")
}
