//! Since when what is held may be wrong: for answers that were asked for though they may be stale.
//!
//! A name of the present era was right until the lease ended; one of an older era, which was not validated since,
//! until the last lease of that era did. An era that begins while names of the one before stay servable is not told of
//! here: it ends with that one. Invariant: what [`Lapses::since`] tells is never later than the moment
//! from which a change may have been acknowledged that the name's copy does not show.

use dstore_shared::Moment;
use parking_lot::Mutex;
use std::collections::VecDeque;

/// Eras whose ends are remembered: names of older ones, never validated over so many sessions, are not told.
const ERAS_MAX: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Lapses(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    era: u64,
    /// The end of the last lease of the present era; before the first, its beginning.
    end: Moment,
    /// Older eras and when each ended, oldest first.
    ended: VecDeque<(u64, Moment)>,
}

impl Lapses {
    /// The lease was extended, or given up at `now` if it is zero.
    pub fn lease_until(&self, until: Moment, now: Moment) {
        let mut state = self.0.lock();
        state.end = if until == Moment::ZERO { state.end.min(now) } else { until };
    }

    /// A session begins in which names of before are not servable until validated.
    pub fn era(&self, era: u64, now: Moment) {
        let mut state = self.0.lock();
        let ended = (state.era, state.end.min(now));
        state.ended.push_back(ended);
        if state.ended.len() > ERAS_MAX {
            state.ended.pop_front();
        }
        (state.era, state.end) = (era, now);
    }

    /// Since when a name held in `era` may be wrong; `None` = nobody knows.
    pub fn since(&self, era: u64) -> Option<Moment> {
        let state = self.0.lock();
        if era >= state.era {
            return Some(state.end);
        }
        state.ended.iter().rev().find(|(ended, _)| *ended <= era).map(|(_, end)| *end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn a_name_may_be_wrong_from_the_end_of_the_last_lease_of_its_own_era_on() {
        let lapses = Lapses::default();
        lapses.era(1, at(10));
        assert_eq!(lapses.since(1), Some(at(10)), "no lease yet: right when it was validated");
        lapses.lease_until(at(2_000), at(11));
        assert_eq!(lapses.since(1), Some(at(2_000)));
        // Cut off; another session much later, and its lease.
        lapses.era(2, at(9_000));
        lapses.lease_until(at(11_000), at(9_001));
        assert_eq!((lapses.since(1), lapses.since(2)), (Some(at(2_000)), Some(at(11_000))));
        // A session that begins while the lease of before still runs: INVs go to the new one.
        lapses.era(3, at(10_000));
        assert_eq!(lapses.since(2), Some(at(10_000)));
    }

    #[test]
    fn a_name_of_an_era_that_began_with_names_still_servable_is_right_as_long_as_the_others() {
        let lapses = Lapses::default();
        lapses.era(1, at(10));
        lapses.lease_until(at(2_000), at(11));
        // A session is resumed: what is listed in it becomes of era 2, which is not told of.
        lapses.lease_until(at(7_000), at(5_000));
        assert_eq!((lapses.since(1), lapses.since(2)), (Some(at(7_000)), Some(at(7_000))));
        lapses.era(3, at(9_000));
        assert_eq!((lapses.since(2), lapses.since(3)), (Some(at(7_000)), Some(at(9_000))));
        assert_eq!(lapses.since(1), Some(at(7_000)), "it was servable beside the other");
    }

    #[test]
    fn a_lease_that_was_given_up_ended_then() {
        let lapses = Lapses::default();
        lapses.era(1, at(10));
        lapses.lease_until(at(2_000), at(11));
        lapses.lease_until(Moment::ZERO, at(500));
        assert_eq!(lapses.since(1), Some(at(500)));
    }

    #[test]
    fn eras_long_past_are_forgotten() {
        let lapses = Lapses::default();
        for era in 1..=100 {
            lapses.era(era, at(era));
        }
        assert_eq!((lapses.since(20), lapses.since(99)), (None, Some(at(99))));
    }
}
