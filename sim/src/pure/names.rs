//! A Local's name table, as simple as can be.

use super::planted::Planted;
use dstore_local::coherence::NameTable;
use dstore_shared::{Name, Prefix, RegSeq, Revision};
use std::cell::{Ref, RefCell};
use std::collections::BTreeMap;

/// A name held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub value: u64,
    pub rev: Revision,
    pub reg_seq: RegSeq,
    pub era: u64,
}

/// The names that a Local holds.
#[derive(Debug, Default)]
pub(super) struct Names {
    held: RefCell<BTreeMap<Name, Held>>,
    planted: Option<Planted>,
    /// With [`Planted::AckBeforeRemoval`]: what is still to be removed.
    late: RefCell<Vec<(Name, Revision)>>,
}

impl Names {
    pub fn new(planted: Option<Planted>) -> Self {
        Self { planted, ..Self::default() }
    }

    pub fn get(&self, name: &Name) -> Option<Held> {
        self.held.borrow().get(name).copied()
    }

    pub fn install(&self, name: Name, held: Held) {
        self.held.borrow_mut().insert(name, held);
    }

    pub fn evict(&self, name: &Name) -> Option<RegSeq> {
        self.held.borrow_mut().remove(name).map(|h| h.reg_seq)
    }

    pub fn all(&self) -> Ref<'_, BTreeMap<Name, Held>> {
        self.held.borrow()
    }

    pub fn remove_late(&self) {
        for (name, upto) in self.late.take() {
            self.remove(&name, upto);
        }
    }

    fn remove(&self, name: &Name, upto: Revision) {
        let mut held = self.held.borrow_mut();
        if held.get(name).is_some_and(|h| h.rev <= upto) {
            held.remove(name);
        }
    }
}

impl NameTable for Names {
    type Cursor = Option<Name>;

    fn remove_upto(&self, name: &Name, upto: Revision) {
        if self.planted == Some(Planted::AckBeforeRemoval) {
            return self.late.borrow_mut().push((name.clone(), upto));
        }
        self.remove(name, upto);
    }

    fn remove_prefix_upto(&self, prefix: &Prefix, upto: Revision) {
        self.held.borrow_mut().retain(|name, held| !prefix.covers(name) || held.rev > upto);
    }

    fn validate(&self, name: &Name, bind_rev: Revision, reg_seq: RegSeq, era: u64) -> bool {
        let mut held = self.held.borrow_mut();
        let Some(held) = held.get_mut(name) else { return false };
        if held.era < era && held.rev == bind_rev {
            (held.era, held.reg_seq) = (era, reg_seq);
        }
        held.era == era
    }

    fn drop_unvalidated(&self, name: &Name, era: u64) {
        self.held.borrow_mut().retain(|k, held| k != name || held.era >= era);
    }

    fn drop_all(&self) {
        self.held.borrow_mut().clear();
    }

    fn stale(&self, era: u64, cursor: &mut Self::Cursor, limit: usize) -> Vec<(Name, Revision)> {
        // Batches of two, so that listings of a few names take several.
        let held = self.held.borrow();
        let after = |k: &Name| cursor.as_ref().is_none_or(|c| k > c);
        let stale = held.iter().filter(|(k, h)| h.era < era && after(k)).take(limit.min(2));
        let listed: Vec<_> = stale.map(|(k, h)| (k.clone(), h.rev)).collect();
        if let Some((last, _)) = listed.last() {
            *cursor = Some(last.clone());
        }
        listed
    }
}
