//! G2: which change of unknown outcome a watcher was told of, so that the search for one order tries it there first.
//!
//! Hints, never evidence: a wrong one makes the search longer, not another. Watches of all names are told every change
//! with its revision; what no answered call claims was done by one whose answer was lost, or by time.

use super::Evidence;
use crate::history::{Bound, Watched};
use crate::linear::{Answer, Call, Op, Swap};
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

/// What one revision did, and when somebody was first told.
struct Told {
    at: Duration,
    events: Vec<(usize, Bound)>,
}

/// Gives calls of unknown outcome the revision at which they took effect, as it seems.
pub fn give(calls: &mut [Call], evidence: &Evidence<'_>) {
    let claimed: HashSet<u64> = calls
        .iter()
        .filter(|call| call.answer.is_some_and(is_change))
        .filter_map(|call| call.told.revision)
        .collect();
    for (revision, told) in revisions(evidence) {
        if claimed.contains(&revision) {
            continue;
        }
        let open = |call: &&mut Call| {
            call.answer.is_none()
                && call.told.revision.is_none()
                && call.begun <= told.at
                && !call.op.is_read()
        };
        let by_caller = |call: &&mut Call| !matches!(call.op, Op::Expire(..)) && could(call.op, &told.events);
        if let Some(call) = calls.iter_mut().filter(open).find(by_caller) {
            call.told.revision = Some(revision);
            continue;
        }
        // One change ends the time of several names.
        for (key, bound) in &told.events {
            let Bound::NotAnyMore(was) = bound else { continue };
            let fits = |value| was.is_none_or(|was| was == value);
            let ends =
                |call: &&mut Call| matches!(call.op, Op::Expire(of, value) if of == *key && fits(value));
            // The newest time that was given is the one that ended.
            if let Some(call) = calls.iter_mut().filter(open).filter(ends).max_by_key(|call| call.begun) {
                call.told.revision = Some(revision);
            }
        }
    }
}

fn is_change(answer: Answer) -> bool {
    matches!(
        answer,
        Answer::Stored | Answer::Done(_) | Answer::Removed(_) | Answer::RemovedMany(_) | Answer::Applied(..)
    )
}

fn revisions(evidence: &Evidence<'_>) -> BTreeMap<u64, Told> {
    let mut all = BTreeMap::new();
    for watch in evidence.watches.values() {
        let mut one: BTreeMap<u64, Told> = BTreeMap::new();
        for what in watch {
            let Watched::Batch { at, events, .. } = what else { continue };
            for (revision, key, bound) in events {
                let told = one.entry(*revision).or_insert(Told { at: *at, events: Vec::new() });
                told.events.push((*key, *bound));
            }
        }
        for (revision, told) in one {
            match all.entry(revision) {
                std::collections::btree_map::Entry::Vacant(place) => _ = place.insert(told),
                std::collections::btree_map::Entry::Occupied(mut place) => {
                    let known: &mut Told = place.get_mut();
                    known.at = known.at.min(told.at);
                }
            }
        }
    }
    all
}

/// Whether `op` can have done just that.
fn could(op: Op, events: &[(usize, Bound)]) -> bool {
    let is_gone = |to: &Bound| matches!(to, Bound::NotAnyMore(_));
    let gone = |key: usize| events.iter().any(|(at, to)| *at == key && is_gone(to));
    let bound = |key: usize| events.iter().any(|(at, to)| *at == key && matches!(to, Bound::To(_)));
    match op {
        Op::Set(key, value) => events == [(key, Bound::To(value))],
        Op::Copy(_, to) => events.len() == 1 && bound(to),
        Op::Rename(from, to) => gone(from) && (events.len() == 1 || bound(to)),
        Op::Delete(keys) | Op::DeletePrefix(keys) => {
            events.iter().all(|(key, to)| keys.has(*key) && is_gone(to))
        }
        Op::Swap(Swap { unbound, bound: (key, value), .. }) => events
            .iter()
            .all(|(at, to)| *at == unbound && is_gone(to) || (*at, *to) == (key, Bound::To(value))),
        Op::Get(_) | Op::Read(_) | Op::Exists(_) | Op::Brief(_) | Op::Expire(..) => false,
    }
}
