//! A Local's name table, as simple as can be.

use crate::planted::Planted;
use dstore_local::coherence::NameTable;
use dstore_shared::{Entry, Name, Prefix, RegSeq, Revision};
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// A name held.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub entry: Entry,
    pub reg_seq: RegSeq,
    pub era: u64,
}

/// The names that a Local holds. A clone is another table.
#[derive(Debug, Default)]
pub(crate) struct Names {
    held: Mutex<BTreeMap<Name, Held>>,
    planted: Option<Planted>,
}

impl Clone for Names {
    fn clone(&self) -> Self {
        Self { held: Mutex::new(self.all()), planted: self.planted }
    }
}

impl Names {
    pub fn new(planted: Option<Planted>) -> Self {
        Self { planted, ..Self::default() }
    }

    pub fn get(&self, name: &Name) -> Option<Held> {
        self.held.lock().get(name).cloned()
    }

    pub fn install(&self, name: Name, held: Held) {
        self.held.lock().insert(name, held);
    }

    pub fn evict(&self, name: &Name) -> Option<RegSeq> {
        self.held.lock().remove(name).map(|held| held.reg_seq)
    }

    pub fn all(&self) -> BTreeMap<Name, Held> {
        self.held.lock().clone()
    }
}

impl NameTable for Names {
    type Cursor = Option<Name>;

    fn remove_upto(&self, name: &Name, upto: Revision) {
        if self.planted != Some(Planted::AckWithoutRemoval) {
            self.held.lock().retain(|k, held| k != name || held.entry.bind_rev > upto);
        }
    }

    fn remove_prefix_upto(&self, prefix: &Prefix, upto: Revision) {
        self.held.lock().retain(|k, held| !prefix.covers(k) || held.entry.bind_rev > upto);
    }

    fn validate(&self, name: &Name, bind_rev: Revision, reg_seq: RegSeq, era: u64) -> bool {
        let mut held = self.held.lock();
        let Some(held) = held.get_mut(name) else { return false };
        if held.era < era && held.entry.bind_rev == bind_rev {
            (held.era, held.reg_seq) = (era, reg_seq);
        }
        held.era == era
    }

    fn drop_unvalidated(&self, name: &Name, era: u64) {
        self.held.lock().retain(|k, held| k != name || held.era >= era);
    }

    fn drop_all(&self) {
        self.held.lock().clear();
    }

    fn stale(&self, era: u64, cursor: &mut Self::Cursor, limit: usize) -> Vec<(Name, Revision)> {
        let held = self.held.lock();
        let after = |k: &Name| cursor.as_ref().is_none_or(|c| k > c);
        let stale = held.iter().filter(|(k, held)| held.era < era && after(k)).take(limit);
        let listed: Vec<_> = stale.map(|(k, held)| (k.clone(), held.entry.bind_rev)).collect();
        if let Some((last, _)) = listed.last() {
            *cursor = Some(last.clone());
        }
        listed
    }
}
