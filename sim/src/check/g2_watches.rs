//! G2, watches: every change once, in the order of revisions, without a gap, the same for everybody.
//!
//! Besides, what watchers were told is a history of its own: replayed, it must give what every read that names its
//! revision was told, and what every Local read at the end.

use super::Evidence;
use super::g2_expiry;
use crate::history::{Bound, Watched};
use crate::linear::{Answer, Bind, Call, Keys, Op, State};
use std::collections::BTreeMap;

/// What happened at each revision, as one or more watchers were told.
type Timeline = BTreeMap<u64, Vec<(usize, Bound)>>;

/// What is wrong with what watchers were told.
pub fn judge(evidence: &Evidence<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut all = Timeline::new();
    for (by, told) in &evidence.watches {
        let told = Told::of(told);
        wrong.extend(told.wrong.iter().map(|what| format!("G2: watch of {by}: {what}")));
        for (revision, events) in &told.timeline {
            let known = all.entry(*revision).or_insert_with(|| events.clone());
            if !is_same(known, events) {
                wrong.push(format!("G2: {by} was told of revision {revision} {events:?}, others {known:?}"));
            }
        }
        for call in &evidence.calls {
            wrong.extend(told.misses(call).map(|what| format!("G2: watch of {by}: {what}")));
        }
    }
    // Somebody who was told of everything from the first revision on.
    let whole = evidence.watches.values().map(|told| Told::of(told)).find(|told| told.gaps.is_empty());
    if let Some(whole) = whole {
        wrong.extend(replay(evidence, &whole));
    }
    wrong.truncate(5);
    wrong
}

/// Whether two watchers were told the same; what a name was bound to before, not all of them need know.
fn is_same(one: &[(usize, Bound)], other: &[(usize, Bound)]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|((key, bound), (other_key, other_bound))| {
            let agree = match (bound, other_bound) {
                (Bound::To(value), Bound::To(other)) => value == other,
                (Bound::NotAnyMore(was), Bound::NotAnyMore(other)) => {
                    was.is_none() || other.is_none() || was == other
                }
                _ => false,
            };
            key == other_key && agree
        })
}

/// What one watcher was told.
struct Told {
    timeline: Timeline,
    /// Revisions that are forgotten: after the first up to the second.
    gaps: Vec<(u64, u64)>,
    through: u64,
    wrong: Vec<String>,
}

impl Told {
    fn of(notes: &[Watched]) -> Self {
        let mut told = Self { timeline: Timeline::new(), gaps: Vec::new(), through: 0, wrong: Vec::new() };
        let (mut lost, mut last) = (false, 0);
        for note in notes {
            match note {
                Watched::TooOld => lost = true,
                Watched::Begun { after, .. } => {
                    if lost {
                        told.gaps.push((told.through, *after));
                        (told.through, last, lost) = (*after, *after, false);
                    } else if *after != told.through {
                        told.wrong.push(format!("it began after {after}, not after {}", told.through));
                    }
                    // What was told of a revision that was not complete comes again.
                    drop(told.timeline.split_off(&(told.through + 1)));
                    last = last.min(told.through);
                }
                Watched::Batch { events, through, .. } => {
                    for (revision, key, bound) in events {
                        if *revision < last || *revision <= told.through {
                            let before = told.through.max(last);
                            told.wrong.push(format!("revision {revision} came after {before}"));
                        }
                        last = *revision;
                        told.timeline.entry(*revision).or_default().push((*key, *bound));
                    }
                    if *through < told.through {
                        told.wrong.push(format!("it fell from {} to {through}", told.through));
                    }
                    told.through = told.through.max(*through);
                }
            }
        }
        if lost {
            told.gaps.push((told.through, u64::MAX));
        }
        told
    }

    fn knows(&self, revision: u64) -> bool {
        revision <= self.through
            && !self.gaps.iter().any(|(after, upto)| revision > *after && revision <= *upto)
    }

    /// What it was not told of an acknowledged change.
    fn misses(&self, call: &Call) -> Option<String> {
        let revision = call.told.revision.filter(|revision| self.knows(*revision))?;
        let expected: Vec<(usize, Option<u32>)> = match (call.op, call.answer?) {
            (Op::Set(key, value), Answer::Stored) => vec![(key, Some(value))],
            (Op::Delete(_), Answer::Removed(keys)) => keys.each().map(|key| (key, None)).collect(),
            (Op::Rename(from, _), Answer::Done(_)) => vec![(from, None)],
            (Op::Swap(swap), Answer::Applied(was, bind)) => {
                let unbound = was.map(|_| (swap.unbound, None));
                let bound = (bind == Bind::Stored).then_some((swap.bound.0, Some(swap.bound.1)));
                unbound.into_iter().chain(bound).collect()
            }
            _ => return None,
        };
        let events = self.timeline.get(&revision).map(Vec::as_slice).unwrap_or_default();
        let is_told = |(key, value): &(usize, Option<u32>)| {
            events.iter().any(|(other, bound)| {
                let now = if let Bound::To(value) = bound { Some(*value) } else { None };
                key == other && now == *value
            })
        };
        let all = expected.iter().all(is_told);
        (!all).then(|| format!("revision {revision} was told as {events:?}, but:\n    {call}"))
    }
}

/// What a history that is whole gives, against what was read.
fn replay(evidence: &Evidence<'_>, whole: &Told) -> Vec<String> {
    let mut wrong = Vec::new();
    let (mut state, mut states) = (State::default(), BTreeMap::from([(0, State::default())]));
    for (revision, events) in &whole.timeline {
        for (key, bound) in events {
            if let Bound::NotAnyMore(Some(was)) = bound
                && state.get(*key) != Some(*was)
            {
                wrong.push(format!(
                    "G2: revision {revision} unbound key {key} from {was}, which had {:?}",
                    state.get(*key)
                ));
            }
            state = state.with(*key, if let Bound::To(value) = bound { Some(*value) } else { None });
        }
        states.insert(*revision, state);
    }
    let at =
        |revision: u64| states.range(..=revision).next_back().map(|(_, state)| *state).unwrap_or_default();
    for call in &evidence.calls {
        let (Op::Read(keys), Some(Answer::All(seen)), Some(revision)) =
            (call.op, call.answer, call.told.revision)
        else {
            continue;
        };
        // What an asynchronous DEL removed may still be read.
        let has_async = evidence.calls.iter().any(|del| del.told.is_async && del.op.keys().meets(keys));
        if revision <= whole.through && !has_async && at(revision).only(keys) != seen {
            wrong.push(format!(
                "G2: at revision {revision} the keys were {:?}, but:\n    {call}",
                at(revision)
            ));
        }
    }
    for (local, seen) in &evidence.looked {
        let seen =
            seen.iter().enumerate().fold(State::default(), |state, (key, value)| state.with(key, *value));
        // Those whose time was over when they were read: the watchers hear of it later.
        let over = Keys::of(state.bound().each().filter(|key| {
            seen.get(*key).is_none()
                && state.get(*key).is_some_and(|value| g2_expiry::is_brief(&evidence.calls, *key, value))
        }));
        if seen != state.without(over) {
            wrong.push(format!("G2: the watches end with {state:?}, local{local} read {seen:?}"));
        }
    }
    wrong
}
