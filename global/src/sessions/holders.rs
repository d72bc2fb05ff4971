//! The holder index: which session may hold which name. A superset of the truth.
//!
//! Invariant: a session that may serve a name has it here, or is a wildcard. Never decides by itself who is
//! waited for: that is done in one step with the busy mark (rule 6), by [`super::Sessions`].

use super::SessionNo;
use dstore_shared::{Moment, Name, RegSeq};
use foldhash::fast::RandomState;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;

/// The index is kept in at most this many parts, so that sweeping after a dead session never holds the lock long.
const PARTS: usize = 256;

/// One registration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Holding {
    pub session: SessionNo,
    /// The largest `reg_seq` asked for (rule 20).
    pub reg_seq: RegSeq,
    /// Unbroken registration: a new number each time the session is registered after it was not.
    pub generation: u64,
    /// The session was told that it may cache: no other read of it may take the registration back.
    pub relied_on: bool,
    /// Until when the session may serve that the name is absent (rule 28).
    pub absent_until: Moment,
}

/// Most names have one holder or a few: one is kept without an allocation.
#[derive(Clone, Debug)]
enum Holdings {
    One(Holding),
    Many(Vec<Holding>),
}

impl Holdings {
    fn as_slice(&self) -> &[Holding] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [Holding] {
        match self {
            Self::One(one) => std::slice::from_mut(one),
            Self::Many(many) => many,
        }
    }

    fn push(&mut self, holding: Holding) {
        match self {
            Self::One(one) => *self = Self::Many(vec![*one, holding]),
            Self::Many(many) => many.push(holding),
        }
    }

    /// Keeps what `keep` says; true if nothing is left.
    fn retain(&mut self, keep: impl Fn(&Holding) -> bool) -> bool {
        match self {
            Self::One(one) => !keep(one),
            Self::Many(many) => {
                many.retain(keep);
                many.is_empty()
            }
        }
    }
}

/// Which session may hold which name.
#[derive(Clone, Debug)]
pub(super) struct Holders {
    parts: Vec<HashMap<Name, Holdings, RandomState>>,
    hash: RandomState,
    registrations: usize,
    max: usize,
    generation: u64,
    /// Sessions whose registrations are void, and the part at which their sweep ends.
    sweeping: HashMap<SessionNo, usize>,
    sweep_at: usize,
}

impl Holders {
    /// An empty index of at most `max` registrations.
    pub fn new(max: usize) -> Self {
        let hash = RandomState::default();
        // One that can hold a few only needs no more than a few.
        let parts = (0..PARTS.min(max.max(1))).map(|_| HashMap::with_hasher(hash.clone())).collect();
        Self { parts, hash, registrations: 0, max, generation: 0, sweeping: HashMap::new(), sweep_at: 0 }
    }

    fn part(&self, name: &Name) -> usize {
        // The high bits: the maps use the low ones.
        (self.hash.hash_one(name) >> 48) as usize % self.parts.len()
    }

    /// Registers `session` and gives the generation of its registration; `None` if the index is full.
    pub fn register(&mut self, name: &Name, session: SessionNo, reg_seq: RegSeq) -> Option<u64> {
        let part = self.part(name);
        if let Some(holdings) = self.parts[part].get_mut(name)
            && let Some(held) = holdings.as_mut_slice().iter_mut().find(|h| h.session == session)
        {
            held.reg_seq = held.reg_seq.max(reg_seq);
            return Some(held.generation);
        }
        if self.registrations >= self.max {
            return None;
        }
        self.generation += 1;
        let (generation, absent_until) = (self.generation, Moment::ZERO);
        let holding = Holding { session, reg_seq, generation, relied_on: false, absent_until };
        match self.parts[part].get_mut(name) {
            Some(holdings) => holdings.push(holding),
            None => _ = self.parts[part].insert(name.clone(), Holdings::One(holding)),
        }
        self.registrations += 1;
        Some(self.generation)
    }

    /// Notes that the session is told that it may cache; false if its registration was broken since.
    pub fn rely(&mut self, name: &Name, session: SessionNo, generation: u64) -> bool {
        let part = self.part(name);
        let holdings = self.parts[part].get_mut(name).map_or(&mut [][..], Holdings::as_mut_slice);
        let held = holdings.iter_mut().find(|h| h.session == session && h.generation == generation);
        held.map(|h| h.relied_on = true).is_some()
    }

    /// As [`Self::rely`], for an absent name, which may be served as such until `until`.
    pub fn rely_absent(&mut self, name: &Name, session: SessionNo, generation: u64, until: Moment) -> bool {
        let part = self.part(name);
        let holdings = self.parts[part].get_mut(name).map_or(&mut [][..], Holdings::as_mut_slice);
        let held = holdings.iter_mut().find(|h| h.session == session && h.generation == generation);
        held.map(|h| (h.relied_on, h.absent_until) = (true, h.absent_until.max(until))).is_some()
    }

    /// Everybody who is registered, dead sessions included.
    pub fn of(&self, name: &Name) -> &[Holding] {
        self.parts[self.part(name)].get(name).map_or(&[], Holdings::as_slice)
    }

    /// Removes the registration of `session` if `which` agrees.
    pub fn unregister(&mut self, name: &Name, session: SessionNo, which: impl Fn(&Holding) -> bool) {
        let part = self.part(name);
        let Some(holdings) = self.parts[part].get_mut(name) else { return };
        let before = holdings.as_slice().len();
        let empty = holdings.retain(|h| h.session != session || !which(h));
        let after = if empty { 0 } else { holdings.as_slice().len() };
        self.registrations -= before - after;
        if empty {
            self.parts[part].remove(name);
        }
    }

    /// Removes every registration of `name` (rule 8).
    pub fn clear(&mut self, name: &Name) {
        let part = self.part(name);
        if let Some(holdings) = self.parts[part].remove(name) {
            self.registrations -= holdings.as_slice().len();
        }
    }

    /// Declares all registrations of `session` void; [`Holders::sweep`] removes them bit by bit.
    pub fn void(&mut self, session: SessionNo) {
        self.sweeping.insert(session, self.sweep_at + self.parts.len());
    }

    /// Removes void registrations from one part. Returns whether there is more to do.
    pub fn sweep(&mut self) -> bool {
        if self.sweeping.is_empty() {
            return false;
        }
        let dead: HashSet<SessionNo> = self.sweeping.keys().copied().collect();
        let at = self.sweep_at % self.parts.len();
        let part = &mut self.parts[at];
        let mut removed = 0;
        part.retain(|_, holdings| {
            let before = holdings.as_slice().len();
            let empty = holdings.retain(|h| !dead.contains(&h.session));
            removed += before - if empty { 0 } else { holdings.as_slice().len() };
            !empty
        });
        if part.capacity() > 4 * part.len().max(64) {
            part.shrink_to_fit();
        }
        self.registrations -= removed;
        self.sweep_at += 1;
        let at = self.sweep_at;
        self.sweeping.retain(|_, end| *end > at);
        !self.sweeping.is_empty()
    }

    /// Every registration, dead sessions' included.
    pub fn all(&self) -> impl Iterator<Item = (&Name, &Holding)> {
        let names = self.parts.iter().flatten();
        names.flat_map(|(name, holdings)| holdings.as_slice().iter().map(move |held| (name, held)))
    }

    /// How many registrations there are.
    pub fn registrations(&self) -> usize {
        self.registrations
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(k: &str) -> Name {
        Name::of(k.to_owned()).unwrap()
    }

    #[test]
    fn a_registration_keeps_its_generation_until_it_is_broken() {
        let mut holders = Holders::new(10);
        let (k, s) = (name("k"), SessionNo(1));
        let first = holders.register(&k, s, RegSeq(1)).unwrap();
        assert_eq!(holders.register(&k, s, RegSeq(5)), Some(first));
        assert_eq!(holders.of(&k)[0].reg_seq, RegSeq(5));
        assert!(holders.rely(&k, s, first));
        holders.clear(&k);
        assert!(!holders.rely(&k, s, first));
        assert_ne!(holders.register(&k, s, RegSeq(6)), Some(first));
        assert_eq!(holders.registrations(), 1);
    }

    #[test]
    fn a_full_index_takes_no_further_registration() {
        let mut holders = Holders::new(2);
        assert!(holders.register(&name("a"), SessionNo(1), RegSeq(1)).is_some());
        assert!(holders.register(&name("a"), SessionNo(2), RegSeq(1)).is_some());
        assert!(holders.register(&name("a"), SessionNo(2), RegSeq(2)).is_some(), "already counted");
        assert!(holders.register(&name("b"), SessionNo(1), RegSeq(2)).is_none());
    }

    #[test]
    fn the_sweep_removes_what_is_void_and_nothing_else() {
        let mut holders = Holders::new(100_000);
        for i in 0..5_000 {
            holders.register(&name(&format!("k{i}")), SessionNo(1), RegSeq(i));
            holders.register(&name(&format!("k{i}")), SessionNo(2), RegSeq(i));
        }
        holders.void(SessionNo(1));
        let mut rounds = 1;
        while holders.sweep() {
            rounds += 1;
        }
        assert_eq!((holders.registrations(), rounds), (5_000, PARTS));
        assert!(holders.of(&name("k7")).iter().map(|h| h.session).eq([SessionNo(2)]));
    }
}
