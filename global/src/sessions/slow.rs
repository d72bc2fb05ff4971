//! Locals that kept a change waiting: served, and for a while registered nowhere (rule 17).
//!
//! Invariants: one hang counts once, however many changes waited for it; the time grows with each further one
//! and is forgiven after a quiet while; a Local in it is no wildcard by coming back.

use dstore_shared::canon::Canon;
use dstore_shared::{LocalId, Moment};
use std::collections::HashMap;
use std::time::Duration;

/// How long a Local registers nothing after its first hang.
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest, after several.
const LONGEST: Duration = Duration::from_secs(60);
/// Quiet for so long after that, and all is forgotten.
const FORGIVEN: Duration = Duration::from_secs(60);
/// From this many on, those forgiven are looked for before another is noted.
const SWEPT_FROM: usize = 1024;

#[derive(Clone, Copy, Debug)]
struct Hang {
    /// When it was noted: changes marked before belong to it.
    noted: Moment,
    until: Moment,
    length: Duration,
    /// Its session ended by it, and it has not come back yet: the time counts from then.
    away: bool,
}

/// The Locals that kept a change waiting lately.
#[derive(Clone, Debug, Default)]
pub(super) struct Slow(HashMap<LocalId, Hang>);

impl Slow {
    /// A change that was marked at `marked` waited too long for a Local. Gives until when it registers nothing, and
    /// whether it has hung before; `None` if this hang is known.
    pub fn note(
        &mut self,
        now: Moment,
        local: LocalId,
        marked: Moment,
        max: usize,
    ) -> Option<(Moment, bool)> {
        let before = self.0.get(&local).copied().filter(|hang| now < hang.until + FORGIVEN);
        if before.is_some_and(|hang| marked <= hang.noted) {
            return None;
        }
        let length = before.map_or(SHORTEST, |hang| (hang.length * 2).min(LONGEST));
        let hang = Hang { noted: now, until: now + length, length, away: false };
        if self.0.len() >= SWEPT_FROM {
            self.0.retain(|_, hang| now < hang.until + FORGIVEN);
        }
        // One that finds no room is not slowed down: leases bound what it can do.
        if self.0.len() < max || self.0.contains_key(&local) {
            self.0.insert(local, hang);
        }
        Some((hang.until, before.is_some()))
    }

    /// A change waited for the end of the Local's lease. Nobody knows how it does until it comes back.
    pub fn note_away(&mut self, now: Moment, local: LocalId, marked: Moment, max: usize) {
        self.note(now, local, marked, max);
        if let Some(hang) = self.0.get_mut(&local) {
            hang.away = true;
        }
    }

    /// The Local begins a session, not resuming one. Gives until when it registers nothing; the beginning of time
    /// if it is not slow.
    pub fn returns(&mut self, now: Moment, local: LocalId) -> Moment {
        let Some(hang) = self.0.get_mut(&local).filter(|hang| now < hang.until + FORGIVEN) else {
            return Moment::ZERO;
        };
        if std::mem::take(&mut hang.away) {
            hang.until = now + hang.length;
        }
        hang.until
    }

    /// Writes what is noted, as it bears on changes that were marked at `marks`. Forgiving is left out: no model
    /// looks at so long a time.
    pub fn canon(&self, now: Moment, marks: &[Moment], into: &mut Canon) {
        let mut hangs: Vec<_> = self.0.iter().collect();
        hangs.sort_unstable_by_key(|(local, _)| **local);
        into.count(hangs.len());
        for (local, hang) in hangs {
            into.bytes(&local.0.to_le_bytes());
            into.left(hang.until, now);
            into.put(hang.length.as_secs());
            into.put(hang.away);
            marks.iter().for_each(|mark| into.put(*mark <= hang.noted));
        }
    }

    /// How many are remembered, those forgiven included.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// How many there are at `now`.
    pub fn count(&self, now: Moment) -> usize {
        self.0.values().filter(|hang| now < hang.until).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const L: LocalId = LocalId(1);

    fn end(slow: &Slow) -> Moment {
        slow.0[&L].until
    }

    fn at(s: u64) -> Moment {
        Moment::from_nanos(s * 1_000_000_000)
    }

    #[test]
    fn each_further_hang_doubles_the_time_up_to_a_minute_and_one_hang_counts_once() {
        let mut slow = Slow::default();
        let mut now = 10;
        for length in [1, 2, 4, 8, 16, 32, 60, 60] {
            let (until, before) = slow.note(at(now), L, at(now - 1), 10).expect("a new hang");
            assert_eq!((until, before), (at(now + length), length > 1));
            assert_eq!(slow.note(at(now + 1), L, at(now), 10), None, "the same one");
            assert_eq!((end(&slow), slow.count(at(now))), (until, 1));
            now += length + 5;
        }
    }

    #[test]
    fn after_a_quiet_minute_it_is_forgiven() {
        let mut slow = Slow::default();
        slow.note(at(10), L, at(9), 10);
        slow.note(at(70), L, at(69), 10);
        assert_eq!(end(&slow), at(72), "not yet");
        slow.note(at(132), L, at(131), 10);
        assert_eq!(end(&slow), at(133));
    }

    #[test]
    fn of_one_that_was_waited_out_the_time_counts_from_its_return() {
        let mut slow = Slow::default();
        slow.note_away(at(10), L, at(8), 10);
        assert_eq!(slow.returns(at(40), L), at(41));
        assert_eq!(slow.returns(at(42), L), at(41), "once a hang");
        assert_eq!(slow.returns(at(42), LocalId(2)), Moment::ZERO, "another one");
        slow.note_away(at(50), L, at(48), 10);
        assert_eq!(slow.returns(at(60), L), at(62), "longer the next time");
        slow.note_away(at(70), L, at(68), 10);
        assert_eq!(slow.returns(at(500), L), Moment::ZERO, "forgiven");
    }

    #[test]
    fn their_number_is_bounded() {
        let mut slow = Slow::default();
        for i in 0..3_000 {
            assert!(slow.note(at(10), LocalId(i), at(9), 2_000).is_some());
        }
        assert_eq!(slow.0.len(), 2_000);
        slow.note(at(1_000), LocalId(9_999), at(999), 2_000);
        assert_eq!(slow.0.len(), 1);
    }
}
