//! What callers asked and were told, and what Global made visible when.

use super::rng::Time;
use dstore_shared::{ClientId, RequestId};
use std::collections::BTreeMap;

/// An operation of a caller, over keys by number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum What {
    Get(usize),
    /// Two names at one moment.
    Both([usize; 2]),
    Set(usize, u64),
    Del(Vec<usize>),
    /// COPY; or RENAME, if it unbinds the first.
    Move {
        from: usize,
        to: usize,
        unbinds: bool,
    },
}

/// What the caller was told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Told {
    Got(Option<u64>),
    Both([Option<u64>; 2]),
    Stored,
    Unchanged,
    Occupied(u64),
    Removed(Vec<bool>),
    /// The second name has this value now.
    Moved(u64),
    NotFound,
}

/// An operation as its caller lived it.
#[derive(Clone, Debug)]
pub(super) struct Op {
    pub what: What,
    pub from: Time,
    pub answer: Option<(Time, Told)>,
    pub id: Option<RequestId>,
    /// Of a change without answer: it was made visible.
    pub took_effect: bool,
    /// What it did then.
    pub effect: Option<Told>,
}

/// Everything that the checkers look at when a run is over, and Global's own timeline.
#[derive(Debug)]
pub(super) struct History {
    pub ops: Vec<Op>,
    /// Of each key: since when it is bound to what.
    versions: Vec<Vec<(Time, Option<u64>)>>,
    /// When each change with an effect became visible, and what it told.
    effects: BTreeMap<(ClientId, u64), (Time, Told)>,
}

impl History {
    pub fn new(keys: usize) -> Self {
        Self { ops: Vec::new(), versions: vec![vec![(0, None)]; keys], effects: BTreeMap::new() }
    }

    /// A change has become visible. False if the request had an effect before.
    pub fn visible(
        &mut self,
        now: Time,
        id: RequestId,
        changes: &[(usize, Option<u64>)],
        told: Told,
    ) -> bool {
        for (key, value) in changes {
            self.versions[*key].push((now, *value));
        }
        self.effects.insert((id.client, id.n), (now, told)).is_none()
    }

    /// What `key` is bound to.
    pub fn truth(&self, key: usize) -> Option<u64> {
        self.versions[key].last().and_then(|(_, value)| *value)
    }

    fn at(&self, key: usize, time: Time) -> Option<u64> {
        let since = self.versions[key].partition_point(|(t, _)| *t <= time);
        self.versions[key][since.saturating_sub(1)].1
    }

    /// The moments between `from` and `to` at which one of `keys` was of another state than before.
    fn moments(&self, keys: &[usize], from: Time, to: Time) -> Vec<Time> {
        let changes = keys.iter().flat_map(|k| &self.versions[*k]).map(|(t, _)| *t);
        std::iter::once(from).chain(changes.filter(|t| (from..=to).contains(t))).collect()
    }

    fn ever(
        &self,
        keys: &[usize],
        from: Time,
        to: Time,
        is: impl Fn(&dyn Fn(usize) -> Option<u64>) -> bool,
    ) -> bool {
        self.moments(keys, from, to).into_iter().any(|t| is(&|key| self.at(key, t)))
    }

    /// Judges an answer by the timeline: a stronger demand than linearizability, and the one that the
    /// protocol makes. Every change happens when it becomes visible, and every other answer was true at a
    /// moment of its operation.
    pub fn judge(&self, op: &Op) -> Result<(), String> {
        let Some((to, told)) = &op.answer else { return Ok(()) };
        let (from, to) = (op.from, *to);
        let effect = op.id.and_then(|id| self.effects.get(&(id.client, id.n)));
        let true_once = match (&op.what, told) {
            (What::Get(key), Told::Got(value)) => self.ever(&[*key], from, to, |at| at(*key) == *value),
            (What::Both(keys), Told::Both(values)) => self.ever(keys, from, to, |at| keys.map(at) == *values),
            (What::Move { .. }, Told::Moved(_)) => {
                matches!(effect, Some((t, told_then)) if told_then == told && (from..=to).contains(t))
            }
            (What::Move { from: a, to: b, .. }, told) => {
                effect.is_none()
                    && self.ever(&[*a, *b], from, to, |at| match told {
                        Told::NotFound => at(*a).is_none(),
                        Told::Unchanged => at(*a).is_some() && at(*a) == at(*b),
                        Told::Occupied(by) => at(*a).is_some() && at(*b) == Some(*by) && at(*a) != at(*b),
                        _ => false,
                    })
            }
            (What::Set(..), Told::Stored) => {
                matches!(effect, Some((t, Told::Stored)) if (from..=to).contains(t))
            }
            (What::Set(key, value), Told::Unchanged) => {
                effect.is_none() && self.ever(&[*key], from, to, |at| at(*key) == Some(*value))
            }
            (What::Set(key, value), Told::Occupied(by)) => {
                effect.is_none() && by != value && self.ever(&[*key], from, to, |at| at(*key) == Some(*by))
            }
            (What::Del(_), Told::Removed(removed)) if removed.contains(&true) => {
                matches!(effect, Some((t, told_then)) if told_then == told && (from..=to).contains(t))
            }
            (What::Del(keys), Told::Removed(_)) => {
                effect.is_none() && self.ever(keys, from, to, |at| keys.iter().all(|k| at(*k).is_none()))
            }
            _ => false,
        };
        if true_once {
            return Ok(());
        }
        let keys = match &op.what {
            What::Get(key) | What::Set(key, _) => vec![*key],
            What::Del(keys) => keys.clone(),
            What::Both(keys) => keys.to_vec(),
            What::Move { from, to, .. } => vec![*from, *to],
        };
        let recent = |k: usize| self.versions[k].iter().rev().take(4).collect::<Vec<_>>();
        let versions: Vec<_> = keys.into_iter().map(|k| (k, recent(k))).collect();
        Err(format!("never true: {op:?}; effect {effect:?}; versions {versions:?}"))
    }

    /// Notes which changes without answer took effect.
    pub fn close(&mut self) {
        for op in &mut self.ops {
            let effect = op.id.and_then(|id| self.effects.get(&(id.client, id.n)));
            (op.took_effect, op.effect) = (effect.is_some(), effect.map(|(_, told)| told.clone()));
        }
    }
}
