//! What the clients did and saw, in true (virtual) time.
//!
//! Invariant: a call that has not ended may have its effect at any later time or never; a call that was
//! refused or read nothing is not remembered.

use crate::linear::{Answer, Call, Op};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::rc::Rc;
use std::time::Duration;

/// A call under way.
#[derive(Debug)]
#[must_use = "a call that is not ended counts as one of unknown outcome"]
pub struct Begun(usize);

/// All calls of a run. Clones are the same history.
#[derive(Clone, Debug, Default)]
pub struct History(Rc<RefCell<Vec<Noted>>>);

#[derive(Clone, Debug)]
struct Noted {
    key: usize,
    call: Call,
    /// Began to be tried again, or never did anything: of no use to the checker.
    void: bool,
}

impl History {
    /// A client calls.
    pub fn begin(&self, by: &str, key: usize, op: Op, now: Duration) -> Begun {
        let mut all = self.0.borrow_mut();
        let call = Call { by: by.to_owned(), op, answer: None, begun: now, ended: None };
        all.push(Noted { key, call, void: false });
        Begun(all.len() - 1)
    }

    /// The client has its answer.
    pub fn end(&self, begun: &Begun, answer: Answer, now: Duration) {
        let mut all = self.0.borrow_mut();
        let noted = &mut all[begun.0];
        noted.call.answer = Some(answer);
        noted.call.ended = Some(now);
    }

    /// The call had no effect and told nothing.
    pub fn forget(&self, begun: &Begun) {
        self.0.borrow_mut()[begun.0].void = true;
    }

    /// Calls that ended with an answer.
    pub fn answered(&self) -> usize {
        self.0.borrow().iter().filter(|noted| noted.call.answer.is_some()).count()
    }

    /// The calls of each key, in the order they began.
    pub fn by_key(&self) -> BTreeMap<usize, Vec<Call>> {
        let mut keys: BTreeMap<usize, Vec<Call>> = BTreeMap::new();
        // A GET without an answer tells nothing.
        let useless = |noted: &Noted| noted.void || (noted.call.op == Op::Get && noted.call.answer.is_none());
        for noted in self.0.borrow().iter().filter(|noted| !useless(noted)) {
            keys.entry(noted.key).or_default().push(noted.call.clone());
        }
        keys
    }

    /// A digest: equal for equal runs.
    pub fn digest(&self) -> u64 {
        let mut text = String::new();
        for noted in self.0.borrow().iter() {
            let _ = writeln!(text, "{} {} {:?}", noted.key, noted.void, noted.call);
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
