//! The log of invalidations: which names became void by which revision, so that a Local that was away can be
//! told what it missed (rule 14).
//!
//! Invariants: every change after the floor that can make a held binding void is in it, in the order of
//! revisions; it is bounded by revisions, bytes and age, and whatever leaves it raises the floor. It never knows
//! who holds what.

use dstore_shared::canon::{Canon, Canonical};
use dstore_shared::{Moment, Name, Prefix, Revision};
use std::collections::VecDeque;
use std::mem::size_of;
use std::time::Duration;

/// What a name costs beside its bytes: itself, and the header of an allocation.
const NAME_OVERHEAD: usize = size_of::<Name>() + 48;

/// How much a log remembers: whichever is reached first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogBounds {
    /// Revisions.
    pub revisions_max: usize,
    /// Bytes of memory.
    pub bytes_max: usize,
    /// How long a revision is remembered.
    pub age_max: Duration,
}

impl Default for LogBounds {
    fn default() -> Self {
        // Who was away for longer lists its names, which costs it a few bytes a name.
        Self { revisions_max: 1_000_000, bytes_max: 64 << 20, age_max: Duration::from_secs(300) }
    }
}

#[derive(Clone, Debug)]
struct Voided {
    revision: Revision,
    at: Moment,
    names: Vec<Name>,
    /// Instead of names: all under this.
    prefix: Option<Prefix>,
}

/// What a Local has to be told of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Missed {
    Name(Name),
    /// All names under it.
    Prefix(Prefix),
}

impl Voided {
    fn weight(&self) -> usize {
        let names: usize = self.names.iter().map(|name| name.as_bytes().len() + NAME_OVERHEAD).sum();
        let prefix = self.prefix.as_ref().map_or(0, |prefix| prefix.as_bytes().len() + NAME_OVERHEAD);
        size_of::<Self>() + names + prefix
    }

    fn what(&self) -> impl Iterator<Item = Missed> {
        let names = self.names.iter().cloned().map(Missed::Name);
        names.chain(self.prefix.clone().map(Missed::Prefix))
    }
}

/// What became void lately.
#[derive(Clone, Debug)]
pub struct InvLog {
    bounds: LogBounds,
    /// Changes up to here may be missing.
    floor: Revision,
    voided: VecDeque<Voided>,
    bytes: usize,
}

impl InvLog {
    /// An empty log, which knows of nothing up to `floor`.
    pub fn new(floor: Revision, bounds: LogBounds) -> Self {
        Self { bounds, floor, voided: VecDeque::new(), bytes: 0 }
    }

    /// Notes what became void by the change of `revision`, while its names are still busy. One that comes after a
    /// later one is noted as of that: it is then repeated to more Locals than need it.
    pub fn push(&mut self, now: Moment, revision: Revision, names: Vec<Name>, prefix: Option<Prefix>) {
        let revision = self.voided.back().map_or(self.floor, |last| last.revision).max(revision);
        let voided = Voided { revision, at: now, names, prefix };
        self.bytes += voided.weight();
        self.voided.push_back(voided);
        self.expire(now);
    }

    /// Forgets what is too old or too much by `now`.
    pub fn expire(&mut self, now: Moment) {
        let LogBounds { revisions_max, bytes_max, age_max } = self.bounds;
        while self.voided.len() > revisions_max
            || self.bytes > bytes_max
            || self.voided.front().is_some_and(|oldest| now.since(oldest.at) >= age_max)
        {
            let Some(oldest) = self.voided.pop_front() else { return };
            self.bytes -= oldest.weight();
            self.floor = self.floor.max(oldest.revision);
        }
        if self.voided.capacity() > 4 * self.voided.len().max(1024) {
            self.voided.shrink_to_fit();
        }
    }

    /// What became void after `applied`, with the newest revision that it is about; `None` if the log does not
    /// reach back so far, or if it is more than `names_max` names. A binding that a change made void is older
    /// than the change.
    pub(super) fn after(&self, applied: Revision, names_max: usize) -> Option<Vec<(Missed, Revision)>> {
        if applied < self.floor {
            return None;
        }
        let from = self.voided.partition_point(|voided| voided.revision <= applied);
        let missed = self.voided.range(from..);
        let mut names = Vec::new();
        for voided in missed {
            if names.len() + voided.names.len().max(1) > names_max {
                return None;
            }
            let upto = Revision(voided.revision.0.saturating_sub(1));
            names.extend(voided.what().map(|what| (what, upto)));
        }
        Some(names)
    }

    /// Its floor, and what it remembers, in the order of revisions.
    pub fn into_parts(self) -> (Revision, impl Iterator<Item = (Revision, Vec<Name>)>) {
        (self.floor, self.voided.into_iter().map(|voided| (voided.revision, voided.names)))
    }

    /// Writes what it remembers. Age is left out: nothing is too old in what a model looks at.
    pub(super) fn canon(&self, into: &mut Canon) {
        into.put(self.floor.0);
        into.count(self.voided.len());
        for voided in &self.voided {
            into.put(voided.revision.0);
            into.count(voided.names.len());
            voided.names.iter().for_each(|name| name.canon(into));
            into.maybe(voided.prefix.as_ref(), |into, prefix| into.bytes(prefix.as_bytes()));
        }
    }

    /// Revisions remembered.
    pub fn len(&self) -> usize {
        self.voided.len()
    }

    /// Whether it remembers nothing.
    pub fn is_empty(&self) -> bool {
        self.voided.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Moment {
        Moment::from_nanos(s * 1_000_000_000)
    }

    fn name(k: &str) -> Name {
        Name::of(k.to_owned()).unwrap()
    }

    fn log(bounds: LogBounds) -> InvLog {
        let mut log = InvLog::new(Revision(4), bounds);
        for (s, revision) in [(0, 5), (10, 7), (20, 9)] {
            log.push(at(s), Revision(revision), vec![name(&format!("k{revision}"))], None);
        }
        log
    }

    fn after(log: &InvLog, applied: u64) -> Option<Vec<u64>> {
        Some(log.after(Revision(applied), 100)?.iter().map(|(_, upto)| upto.0 + 1).collect())
    }

    #[test]
    fn it_tells_exactly_what_came_after_and_nothing_below_its_floor() {
        let log = log(LogBounds::default());
        assert_eq!(after(&log, 3), None);
        assert_eq!(after(&log, 4), Some(vec![5, 7, 9]));
        assert_eq!(after(&log, 5), Some(vec![7, 9]));
        assert_eq!(after(&log, 6), Some(vec![7, 9]));
        assert_eq!(after(&log, 8), Some(vec![9]));
        assert_eq!(after(&log, 9), Some(vec![]));
        assert_eq!(log.after(Revision(4), 3).map(|names| names.len()), Some(3));
        assert_eq!(log.after(Revision(4), 2), None, "more than fit");
    }

    #[test]
    fn what_leaves_it_raises_the_floor() {
        let of = |revisions_max, bytes_max, age_s| LogBounds {
            revisions_max,
            bytes_max,
            age_max: Duration::from_secs(age_s),
        };
        assert_eq!(after(&log(of(2, 1 << 20, 300)), 4), None);
        assert_eq!(after(&log(of(2, 1 << 20, 300)), 5), Some(vec![7, 9]));
        assert_eq!(after(&log(of(100, 1, 300)), 8), None, "too many bytes");
        assert_eq!(after(&log(of(100, 1, 300)), 9), Some(vec![]));
        let mut aged = log(of(100, 1 << 20, 300));
        aged.expire(at(309));
        assert_eq!((after(&aged, 4), after(&aged, 5)), (None, Some(vec![7, 9])));
        aged.expire(at(400));
        assert_eq!((after(&aged, 8), after(&aged, 9), aged.bytes), (None, Some(vec![]), 0));
    }
}
