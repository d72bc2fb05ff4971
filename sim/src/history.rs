//! What the clients and watchers of one run saw, written down as it happens.

use crate::linear::{Answer, Call, Op, Told, Value};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::rc::Rc;
use std::time::Duration;

/// A call under way.
#[derive(Debug)]
#[must_use = "a call that is not ended counts as one of unknown outcome"]
pub struct Begun(usize);

/// All calls and watches of a run. Clones are the same history.
#[derive(Clone, Debug, Default)]
pub struct History(Rc<RefCell<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    calls: Vec<Noted>,
    watches: BTreeMap<String, Vec<Watched>>,
}

#[derive(Clone, Debug)]
struct Noted {
    call: Call,
    /// Began to be tried again, or never did anything: of no use to the checkers.
    void: bool,
}

/// What a watcher was told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Watched {
    /// A watch begins; what follows is after this revision.
    Begun {
        /// Of the history whose revisions are told.
        history: u128,
        /// The revision.
        after: u64,
    },
    /// Events, and how far they reach.
    Batch {
        /// In true time.
        at: Duration,
        /// Revision, key, and what it is bound to now.
        events: Vec<(u64, usize, Bound)>,
        /// All changes up to this revision were told.
        through: u64,
    },
    /// What follows its last position is forgotten: it goes on after the revision of a list.
    TooOld,
}

/// What an event says of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bound {
    /// It is bound to this value.
    To(Value),
    /// It is not bound any more; to what it was, if that is known.
    NotAnyMore(Option<Value>),
}

impl History {
    /// A client calls.
    pub fn begin(&self, by: &str, op: Op, now: Duration) -> Begun {
        let mut seen = self.0.borrow_mut();
        let told = Told::default();
        let call = Call { by: by.to_owned(), op, answer: None, begun: now, ended: None, told };
        seen.calls.push(Noted { call, void: false });
        Begun(seen.calls.len() - 1)
    }

    /// Says more of a call under way.
    pub fn say(&self, begun: &Begun, more: impl FnOnce(&mut Told)) {
        more(&mut self.0.borrow_mut().calls[begun.0].call.told);
    }

    /// The client has its answer.
    pub fn end(&self, begun: &Begun, answer: Answer, now: Duration) {
        let call = &mut self.0.borrow_mut().calls[begun.0].call;
        call.answer = Some(answer);
        call.ended = Some(now);
    }

    /// The call had no effect and told nothing.
    pub fn forget(&self, begun: &Begun) {
        self.0.borrow_mut().calls[begun.0].void = true;
    }

    /// A watcher was told something.
    pub fn watched(&self, by: &str, what: Watched) {
        self.0.borrow_mut().watches.entry(by.to_owned()).or_default().push(what);
    }

    /// What each watcher was told, in order.
    pub fn watches(&self) -> BTreeMap<String, Vec<Watched>> {
        self.0.borrow().watches.clone()
    }

    /// Up to which revision a watcher was told everything.
    pub fn through(&self, by: &str) -> Option<u64> {
        let seen = self.0.borrow();
        seen.watches.get(by)?.iter().rev().find_map(|what| match what {
            Watched::Batch { through, .. } => Some(*through),
            Watched::Begun { after, .. } => Some(*after),
            Watched::TooOld => None,
        })
    }

    /// The history of the newest watch of a watcher.
    pub fn last_begun(&self, by: &str) -> Option<u128> {
        let seen = self.0.borrow();
        seen.watches.get(by)?.iter().rev().find_map(|what| match what {
            Watched::Begun { history, .. } => Some(*history),
            _ => None,
        })
    }

    /// What a read was about is known only now, with its revision.
    pub fn read_of(&self, begun: &Begun, op: Op, revision: u64) {
        let call = &mut self.0.borrow_mut().calls[begun.0].call;
        call.op = op;
        call.told.revision = Some(revision);
    }

    /// The newest revision that an answer to a change told.
    pub fn revision_max(&self) -> u64 {
        let seen = self.0.borrow();
        let changes = seen.calls.iter().filter(|noted| !noted.call.op.is_read());
        changes.filter_map(|noted| noted.call.told.revision).max().unwrap_or(0)
    }

    /// Calls that ended with an answer.
    pub fn answered(&self) -> usize {
        self.0.borrow().calls.iter().filter(|noted| noted.call.answer.is_some()).count()
    }

    /// The calls in the order they began, but for those that tell nothing.
    pub fn calls(&self) -> Vec<Call> {
        let useless = |noted: &&Noted| noted.void || (noted.call.op.is_read() && noted.call.answer.is_none());
        let seen = self.0.borrow();
        seen.calls.iter().filter(|noted| !useless(noted)).map(|noted| noted.call.clone()).collect()
    }

    /// A digest: equal for equal runs.
    pub fn digest(&self) -> u64 {
        let mut text = String::new();
        let seen = self.0.borrow();
        for noted in &seen.calls {
            let _ = writeln!(text, "{} {:?}", noted.void, noted.call);
        }
        for (by, told) in &seen.watches {
            let _ = writeln!(text, "{by} {told:?}");
        }
        fnv(text.as_bytes())
    }
}

/// FNV-1a (Fowler, Noll, Vo).
pub(crate) fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
