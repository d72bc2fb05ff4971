//! What callers asked and were told, and what Global made visible when.

use super::rng::Time;
use dstore_shared::{ClientId, DeleteMode, RequestId};
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
    /// Of a DEL.
    pub mode: DeleteMode,
    /// A GET that told what an asynchronous DEL had removed, within the bound that was stated: no part of what must
    /// be linearizable.
    pub excused: bool,
}

/// A value that an asynchronous DEL removed, and that others may go on telling for a while.
#[derive(Clone, Copy, Debug)]
struct Lingering {
    key: usize,
    value: u64,
    id: (ClientId, u64),
    /// Since when it is gone.
    from: Time,
    /// Until when it may be told; nobody has said so yet if `None`.
    until: Option<Time>,
}

/// Everything that the checkers look at when a run is over, and Global's own timeline.
#[derive(Debug)]
pub(super) struct History {
    pub ops: Vec<Op>,
    /// Of each key: since when it is bound to what.
    versions: Vec<Vec<(Time, Option<u64>)>>,
    /// When each change with an effect became visible, and what it told.
    effects: BTreeMap<(ClientId, u64), (Time, Told)>,
    lingering: Vec<Lingering>,
}

impl History {
    pub fn new(keys: usize) -> Self {
        Self {
            ops: Vec::new(),
            versions: vec![vec![(0, None)]; keys],
            effects: BTreeMap::new(),
            lingering: Vec::new(),
        }
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

    /// An asynchronous DEL, about to become visible, removes what `keys` are bound to.
    pub fn lingers(&mut self, now: Time, id: RequestId, keys: &[usize]) {
        for key in keys {
            if let Some(value) = self.truth(*key) {
                let id = (id.client, id.n);
                self.lingering.push(Lingering { key: *key, value, id, from: now, until: None });
            }
        }
    }

    /// Its bound was stated; or, of all that were not (`None`), Global died and grants nothing more.
    pub fn bounded(&mut self, id: Option<RequestId>, until: Time) {
        for lingering in &mut self.lingering {
            let meant = id.is_none_or(|id| lingering.id == (id.client, id.n));
            if meant && lingering.until.is_none() {
                lingering.until = Some(until);
            }
        }
    }

    /// Whether a reader between `from` and `to` may be told that `key` is bound to `value`, though it is not:
    /// an asynchronous DEL removed it, the bound has not passed, and no strict change of the name that began
    /// after it was acknowledged before the reader began.
    pub fn may_linger(&self, key: usize, value: u64, from: Time, to: Time) -> bool {
        let is = |l: &&Lingering| l.key == key && l.value == value && l.from <= to;
        let open = |l: &&Lingering| l.until.is_none_or(|until| from <= until);
        let overtaken = |l: &Lingering| {
            self.ops.iter().any(|op| {
                let touches = match &op.what {
                    What::Get(_) | What::Both(_) => false,
                    What::Move { from, to, unbinds } => *to == key || *unbinds && *from == key,
                    What::Set(k, _) => *k == key,
                    What::Del(keys) => keys.contains(&key) && op.mode != DeleteMode::Async,
                };
                touches && op.from > l.from && op.answer.as_ref().is_some_and(|(at, _)| *at < from)
            })
        };
        self.lingering.iter().filter(is).filter(open).any(|l| !overtaken(l))
    }

    /// Whether `op` told what an asynchronous DEL had removed, and was allowed to.
    pub fn excuses(&self, op: &Op) -> bool {
        let (What::Get(key), Some((to, Told::Got(Some(value))))) = (&op.what, &op.answer) else {
            return false;
        };
        let is_true = self.ever(&[*key], op.from, *to, |at| at(*key) == Some(*value));
        !is_true && self.may_linger(*key, *value, op.from, *to)
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
        if true_once || op.excused {
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
