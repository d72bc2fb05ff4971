//! Is a history linearizable? Wing and Gong's search (1993) with Lowe's memory of configurations (2017), over
//! two names at a time, so that a DEL of both must be seen as one.

use crate::pure::history::{Op, Told, What};
use crate::pure::rng::Time;
use std::collections::HashSet;

/// Two names: the value that each is bound to.
type State = [Option<u64>; 2];

/// What came of the search.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Linearizable,
    Not,
    /// Not decided in the steps allowed.
    Tangled,
}

/// Steps allowed, beside some for each call.
const STEPS_MAX: usize = 400_000;
const STEPS_A_CALL: usize = 20;

/// What an op does to the two names and tells about them.
#[derive(Debug)]
enum Seen {
    Get(usize, Option<u64>),
    /// Of each of the names whether it was read, and what it was.
    Both([(bool, Option<u64>); 2]),
    Set(usize, u64, Option<Told>),
    Replace(usize, u64, Option<Told>),
    Del([Deleted; 2]),
    /// Of a DEL by prefix: which of the names are under it; and how many were bound, if there are no others.
    Under([bool; 2], Option<u64>),
    /// A COPY or RENAME from one to another; either may be neither of the two.
    Move {
        from: Option<usize>,
        to: Option<usize>,
        unbinds: bool,
        told: Told,
    },
}

/// What a DEL does to one of the two names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Deleted {
    No,
    /// And whether it was bound, nobody was told.
    Yes,
    /// And told that it was bound, or not.
    Told(bool),
}

#[derive(Debug)]
struct Call {
    from: Time,
    to: Time,
    seen: Seen,
}

/// Judges what `ops` tell about the names `pair`.
pub(super) fn judge(ops: &[Op], pair: [usize; 2]) -> Verdict {
    let calls: Vec<Call> = ops.iter().filter_map(|op| project(op, pair)).collect();
    Search::new(&calls).run(&calls)
}

fn project(op: &Op, pair: [usize; 2]) -> Option<Call> {
    if op.excused {
        return None;
    }
    let place = |key: usize| pair.iter().position(|k| *k == key);
    let told = op.answer.as_ref().map(|(_, told)| told.clone());
    let seen = match (&op.what, told) {
        (What::Get(key), Some(Told::Got(value))) => Seen::Get(place(*key)?, value),
        (What::Both(keys), Some(Told::Both(values))) => {
            let mut seen = [(false, None); 2];
            for (key, value) in keys.iter().zip(values) {
                if let Some(at) = place(*key) {
                    seen[at] = (true, value);
                }
            }
            Seen::Both(seen)
        }
        (What::Get(_) | What::Both(_), _) => return None,
        (What::Move { from, to, unbinds }, told) => {
            // What an unanswered one did depends on what was bound then: Global's timeline tells.
            let told = told.or_else(|| op.effect.clone())?;
            Seen::Move { from: place(*from), to: place(*to), unbinds: *unbinds, told }
        }
        (What::Set(key, value), told) => Seen::Set(place(*key)?, *value, told),
        (What::Replace(key, value), told) => Seen::Replace(place(*key)?, *value, told),
        (What::Del(keys), told) => {
            let mut deleted = [Deleted::No; 2];
            for (i, key) in keys.iter().enumerate() {
                if let Some(at) = place(*key) {
                    deleted[at] = match &told {
                        Some(Told::Removed(removed)) => Deleted::Told(removed[i]),
                        _ => Deleted::Yes,
                    };
                }
            }
            Seen::Del(deleted)
        }
        (What::DelPrefix(_, keys), told) => {
            let under = pair.map(|key| keys.contains(&key));
            let all = keys.len() == under.iter().filter(|under| **under).count();
            let count = match told {
                Some(Told::RemovedUnder(n)) if all => Some(n),
                _ => None,
            };
            Seen::Under(under, count)
        }
    };
    let elsewhere = matches!(
        seen,
        Seen::Del([Deleted::No, Deleted::No])
            | Seen::Under([false, false], _)
            | Seen::Both([(false, _), (false, _)])
            | Seen::Move { from: None, to: None, .. }
    );
    if elsewhere {
        return None;
    }
    let to = match (&op.answer, op.took_effect) {
        (Some((at, _)), _) => *at,
        (None, true) => Time::MAX,
        (None, false) => return None,
    };
    Some(Call { from: op.from, to, seen })
}

/// The state after an op, if it can have happened in `state`.
fn step(mut state: State, seen: &Seen) -> Option<State> {
    match seen {
        Seen::Get(at, value) => (state[*at] == *value).then_some(state),
        Seen::Both(values) => {
            let fits = values.iter().zip(state).all(|((read, value), is)| !read || *value == is);
            fits.then_some(state)
        }
        Seen::Move { from, to, unbinds, told } => moved(state, (*from, *to), *unbinds, told),
        Seen::Set(at, value, told) => {
            let before = state[*at];
            let fits = match told {
                None => true,
                Some(Told::Stored) => before.is_none(),
                Some(Told::Unchanged) => before == Some(*value),
                Some(Told::Occupied(by)) => before == Some(*by) && by != value,
                Some(_) => false,
            };
            state[*at] = before.or(Some(*value));
            fits.then_some(state)
        }
        Seen::Replace(at, value, told) => {
            let same = state[*at].replace(*value) == Some(*value);
            let fits = match told {
                None => true,
                Some(Told::Stored) => !same,
                Some(Told::Unchanged) => same,
                Some(_) => false,
            };
            fits.then_some(state)
        }
        Seen::Del(deleted) => {
            for (at, told) in deleted.iter().enumerate() {
                match *told {
                    Deleted::No => {}
                    Deleted::Told(was) if was != state[at].is_some() => return None,
                    Deleted::Yes | Deleted::Told(_) => state[at] = None,
                }
            }
            Some(state)
        }
        Seen::Under(under, count) => {
            let mut removed = 0;
            for (at, _) in under.iter().enumerate().filter(|(_, under)| **under) {
                removed += u64::from(state[at].take().is_some());
            }
            count.is_none_or(|count| count == removed).then_some(state)
        }
    }
}

fn moved(
    mut state: State,
    (from, to): (Option<usize>, Option<usize>),
    unbinds: bool,
    told: &Told,
) -> Option<State> {
    let source = from.map(|at| state[at]);
    let target = to.map(|at| state[at]);
    let fits = match told {
        Told::Moved(value) => {
            source.is_none_or(|is| is == Some(*value))
                && target.is_none_or(|is| is.is_none_or(|is| is == *value))
        }
        Told::NotFound => source.is_none_or(|is| is.is_none()),
        Told::Occupied(by) => {
            source.is_none_or(|is| is.is_some_and(|is| is != *by)) && target.is_none_or(|is| is == Some(*by))
        }
        Told::Unchanged => {
            source.is_none_or(|is| is.is_some())
                && target.is_none_or(|is| is.is_some())
                && source.is_none_or(|source| target.is_none_or(|target| source == target))
        }
        _ => false,
    };
    if let Told::Moved(value) = told {
        if let Some(to) = to {
            state[to] = Some(*value);
        }
        if let Some(from) = from.filter(|_| unbinds) {
            state[from] = None;
        }
    }
    fits.then_some(state)
}

/// A random number for each call (after `SplitMix64`, twice).
fn number_of(call: usize) -> u128 {
    let mix = |mut z: u64| {
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    let call = call as u64 + 1;
    let high = mix(call.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    u128::from(high) << 64 | u128::from(mix(high ^ call))
}

/// Beginnings and ends of calls in the order of time, as a list from which calls are lifted. Node 0 is the
/// head; node 0 as a successor is the end.
struct Search {
    next: Vec<usize>,
    prev: Vec<usize>,
    /// Of each node: its call, and whether it is the end.
    node: Vec<(usize, bool)>,
    end_of: Vec<usize>,
}

impl Search {
    fn new(calls: &[Call]) -> Self {
        let mut events: Vec<(Time, bool, usize)> = Vec::new();
        for (i, call) in calls.iter().enumerate() {
            events.push((call.from, false, i));
            events.push((call.to, true, i));
        }
        events.sort_unstable();
        let n = events.len() + 1;
        let mut node = vec![(usize::MAX, false)];
        let mut end_of = vec![0; calls.len()];
        for (_, is_end, call) in events {
            if is_end {
                end_of[call] = node.len();
            }
            node.push((call, is_end));
        }
        Self {
            next: (1..=n).map(|i| i % n).collect(),
            prev: (0..n).map(|i| (i + n - 1) % n).collect(),
            node,
            end_of,
        }
    }

    fn unlink(&mut self, at: usize) {
        let (prev, next) = (self.prev[at], self.next[at]);
        (self.next[prev], self.prev[next]) = (next, prev);
    }

    fn relink(&mut self, at: usize) {
        let (prev, next) = (self.prev[at], self.next[at]);
        (self.next[prev], self.prev[next]) = (at, at);
    }

    fn run(mut self, calls: &[Call]) -> Verdict {
        let mut state: State = [None; 2];
        // Which calls are done, as the sum of a number for each: two sets that differ have different sums, but for a
        // chance of 2^-64 a pair. One that did not would only make this say "no" too soon.
        let mut done = 0_u128;
        let mut seen = HashSet::new();
        let mut lifted: Vec<(usize, State)> = Vec::new();
        let mut at = self.next[0];
        let (mut steps, most) = (0, STEPS_MAX + STEPS_A_CALL * calls.len());
        while self.next[0] != 0 {
            steps += 1;
            if steps > most {
                return Verdict::Tangled;
            }
            // Every list that is not empty ends with an end, so 0 is not met before one.
            let (call, is_end) = self.node[at];
            if is_end {
                let Some((begin, before)) = lifted.pop() else { return Verdict::Not };
                let (call, _) = self.node[begin];
                state = before;
                done = done.wrapping_sub(number_of(call));
                self.relink(self.end_of[call]);
                self.relink(begin);
                at = self.next[begin];
                continue;
            }
            if let Some(after) = step(state, &calls[call].seen) {
                done = done.wrapping_add(number_of(call));
                if seen.insert((done, after)) {
                    lifted.push((at, state));
                    state = after;
                    self.unlink(at);
                    self.unlink(self.end_of[call]);
                    at = self.next[0];
                    continue;
                }
                done = done.wrapping_sub(number_of(call));
            }
            at = self.next[at];
        }
        Verdict::Linearizable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(from: Time, to: Time, what: What, told: Told) -> Op {
        let (answer, mode) = (Some((to, told)), dstore_shared::DeleteMode::Strict);
        Op { what, from, answer, id: None, took_effect: true, effect: None, mode, excused: false }
    }

    fn set(from: Time, to: Time, value: u64) -> Op {
        op(from, to, What::Set(0, value), Told::Stored)
    }

    fn get(from: Time, to: Time, key: usize, value: Option<u64>) -> Op {
        op(from, to, What::Get(key), Told::Got(value))
    }

    fn del(from: Time, to: Time, keys: &[usize]) -> Op {
        op(from, to, What::Del(keys.to_vec()), Told::Removed(vec![true; keys.len()]))
    }

    #[test]
    fn what_may_have_happened_is_linearizable() {
        let ops = [
            set(0, 10, 1),
            get(5, 6, 0, None),
            get(7, 12, 0, Some(1)),
            del(11, 20, &[0]),
            get(15, 30, 0, Some(1)),
        ];
        assert_eq!(judge(&ops, [0, 1]), Verdict::Linearizable);
        assert_eq!(judge(&[], [0, 1]), Verdict::Linearizable);
    }

    #[test]
    fn a_deleted_value_that_is_read_later_is_not() {
        let ops = [set(0, 1, 1), del(2, 3, &[0]), get(4, 5, 0, Some(1))];
        assert_eq!(judge(&ops, [0, 1]), Verdict::Not);
    }

    #[test]
    fn a_read_that_goes_back_in_time_is_not() {
        let ops = [set(0, 1, 1), del(2, 20, &[0]), get(4, 5, 0, None), get(6, 7, 0, Some(1))];
        assert_eq!(judge(&ops, [0, 1]), Verdict::Not);
    }

    #[test]
    fn half_a_delete_of_two_names_is_not() {
        let both = [set(0, 1, 1), op(0, 1, What::Set(1, 2), Told::Stored), del(2, 20, &[0, 1])];
        let half = |a, b| {
            let reads = [get(3, 4, 0, a), get(5, 6, 1, b)];
            judge(&both.iter().cloned().chain(reads).collect::<Vec<_>>(), [0, 1])
        };
        assert_eq!(half(None, Some(2)), Verdict::Not);
        assert_eq!(half(Some(1), None), Verdict::Linearizable);
        assert_eq!(half(None, None), Verdict::Linearizable);
        assert_eq!(half(Some(1), Some(2)), Verdict::Linearizable);
    }

    #[test]
    fn half_a_delete_by_prefix_is_not_nor_a_count_that_was_never_true() {
        let under = |told| op(2, 20, What::DelPrefix(0, vec![0, 1]), Told::RemovedUnder(told));
        let judged = |told, a, b| {
            let both = [set(0, 1, 1), op(0, 1, What::Set(1, 2), Told::Stored), under(told)];
            let reads = [get(3, 4, 0, a), get(5, 6, 1, b)];
            judge(&both.into_iter().chain(reads).collect::<Vec<_>>(), [0, 1])
        };
        assert_eq!(judged(2, None, Some(2)), Verdict::Not);
        assert_eq!(judged(2, Some(1), None), Verdict::Linearizable);
        assert_eq!(judged(2, None, None), Verdict::Linearizable);
        assert_eq!(judged(1, Some(1), None), Verdict::Not);
        // Of three names, of which this looks at two, the number tells nothing.
        let of_three = op(2, 20, What::DelPrefix(0, vec![0, 1, 2]), Told::RemovedUnder(3));
        let ops = [set(0, 1, 1), of_three, get(21, 22, 0, None)];
        assert_eq!(judge(&ops, [0, 1]), Verdict::Linearizable);
        assert_eq!(judge(&[ops[0].clone(), ops[1].clone(), get(21, 22, 0, Some(1))], [0, 1]), Verdict::Not);
    }

    #[test]
    fn an_unanswered_change_may_take_effect_at_any_time_if_it_did_at_all() {
        let lost = |took_effect| Op { answer: None, took_effect, ..set(0, 0, 1) };
        let read = get(100, 101, 0, Some(1));
        assert_eq!(judge(&[lost(true), read.clone()], [0, 1]), Verdict::Linearizable);
        assert_eq!(judge(&[lost(false), read], [0, 1]), Verdict::Not);
        assert_eq!(judge(&[lost(true), get(100, 101, 0, None)], [0, 1]), Verdict::Linearizable);
    }
}
