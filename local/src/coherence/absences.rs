//! "Not found" answers that a Local keeps, if it was told to (rule 28).
//!
//! ```text
//! machine, under its lock   hold <- a Resolve found nothing and Global registered it
//!                           remove_upto <- INV;  drop_all <- every WELCOME;  expired <- now and then
//! a hit, without a lock     loads `valid_until`, looks here, reads the clock: now < min(valid_until, until)
//! ```
//! Invariants: at most `max` names; an answer is never served at or after its `until`, which lies
//! [`ABSENCE_TERM`] after the question was asked, less the bound on clock rate error.
//! It must never outlive the session in which Global registered it.

use dashmap::DashMap;
use dstore_shared::limits::{ABSENCE_TERM, ABSENCES_MAX};
use dstore_shared::{Moment, Name, Prefix, RegSeq, Revision};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::time::Duration;

/// An answer that is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Absent {
    /// Global's head revision at the read (rule 9).
    pub at: Revision,
    /// Until when it may be served, while the lease is valid.
    pub until: Moment,
    /// The registration that it was made under.
    pub reg_seq: RegSeq,
}

/// The answers kept.
#[derive(Debug)]
pub struct Absences {
    names: DashMap<Name, Absent, foldhash::fast::RandomState>,
    /// By the end of their term; changed together with `names`, by the machine alone.
    ends: Mutex<BTreeSet<(Moment, Name)>>,
    max: usize,
}

impl Default for Absences {
    fn default() -> Self {
        Self::new(ABSENCES_MAX)
    }
}

impl Absences {
    /// None, and room for `max`.
    pub fn new(max: usize) -> Self {
        Self { names: DashMap::default(), ends: Mutex::default(), max }
    }

    /// The answer kept for a packed name, of whatever age.
    pub fn get(&self, packed_name: &[u8]) -> Option<Absent> {
        self.names.view(packed_name, |_, absent| *absent)
    }

    /// All that are kept, in the order in which they run out. Looks at every one.
    pub fn all(&self) -> Vec<(Name, Absent)> {
        let ends = self.ends.lock();
        let kept = |(_, name): &(Moment, Name)| Some((name.clone(), self.get(name.as_bytes())?));
        ends.iter().filter_map(kept).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// How many there may be.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Keeps an answer; false if there is no room.
    pub fn hold(&self, name: &Name, absent: Absent) -> bool {
        let mut ends = self.ends.lock();
        if ends.len() >= self.max && !self.names.contains_key(name.as_bytes()) {
            return false;
        }
        let name = name.compact();
        if let Some(before) = self.names.insert(name.clone(), absent) {
            ends.remove(&(before.until, name.clone()));
        }
        ends.insert((absent.until, name));
        true
    }

    /// Forgets the answer if it is not newer than `upto` (rule 10).
    pub fn remove_upto(&self, name: &Name, upto: Revision) {
        let mut ends = self.ends.lock();
        if let Some((name, absent)) = self.names.remove_if(name.as_bytes(), |_, absent| absent.at <= upto) {
            ends.remove(&(absent.until, name));
        }
    }

    /// The same, of all names under `prefix`. Looks at every one that is kept.
    pub fn remove_prefix_upto(&self, prefix: &Prefix, upto: Revision) {
        let mut ends = self.ends.lock();
        ends.retain(|(_, name)| {
            let covered = prefix.covers(name);
            !covered || self.names.remove_if(name.as_bytes(), |_, absent| absent.at <= upto).is_none()
        });
    }

    /// Forgets all.
    pub fn drop_all(&self) {
        let mut ends = self.ends.lock();
        self.names.clear();
        ends.clear();
    }

    /// Forgets those that have run out by `now`; gives them with their registrations.
    pub fn expired(&self, now: Moment) -> Vec<(Name, RegSeq)> {
        let mut ends = self.ends.lock();
        let mut gone = Vec::new();
        while ends.first().is_some_and(|(until, _)| *until <= now) {
            let Some((_, name)) = ends.pop_first() else { break };
            if let Some((name, absent)) = self.names.remove(name.as_bytes()) {
                gone.push((name, absent.reg_seq));
            }
        }
        gone
    }

    /// How long after the question an answer may be served.
    pub(super) fn term() -> Duration {
        super::session::shortened(ABSENCE_TERM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(k: &str) -> Name {
        Name::of(k.to_owned()).unwrap()
    }

    fn absent(at: u64, until_ms: u64) -> Absent {
        Absent { at: Revision(at), until: Moment::from_nanos(until_ms * 1_000_000), reg_seq: RegSeq(at) }
    }

    fn has(absences: &Absences, k: &str) -> bool {
        absences.get(name(k).as_bytes()).is_some()
    }

    #[test]
    fn a_full_table_keeps_no_more_but_renews_what_it_has() {
        let absences = Absences::new(2);
        assert!(absences.hold(&name("a"), absent(1, 10)));
        assert!(absences.hold(&name("b"), absent(1, 20)));
        assert!(!absences.hold(&name("c"), absent(1, 30)));
        assert!(absences.hold(&name("a"), absent(2, 40)), "it is there already");
        assert_eq!(absences.expired(Moment::from_nanos(20_000_000)), [(name("b"), RegSeq(1))]);
        assert!(absences.hold(&name("c"), absent(1, 30)), "room again");
        assert_eq!((absences.len(), has(&absences, "a"), has(&absences, "b")), (2, true, false));
    }

    #[test]
    fn an_answer_goes_only_by_an_inv_that_covers_it() {
        let absences = Absences::default();
        absences.hold(&name("a"), absent(5, 10));
        absences.remove_upto(&name("a"), Revision(4));
        absences.remove_upto(&name("b"), Revision(9));
        assert!(has(&absences, "a"));
        absences.remove_upto(&name("a"), Revision(5));
        assert!(absences.is_empty());
        assert_eq!(absences.expired(Moment::MAX), [], "nothing of it is left behind");
        absences.hold(&name("a"), absent(5, 10));
        absences.drop_all();
        assert!(absences.is_empty() && absences.expired(Moment::MAX).is_empty());
    }
}
