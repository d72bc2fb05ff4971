//! What callers asked and were told, and what Global made visible when. It judges nothing: that is `check`'s.

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
    /// SET of a name that may be bound anew.
    Replace(usize, u64),
    Del(Vec<usize>),
    /// DEL by prefix: which, and the names under it that the run has.
    DelPrefix(usize, Vec<usize>),
    /// COPY; or RENAME, if it unbinds the first.
    Move {
        from: usize,
        to: usize,
        unbinds: bool,
    },
}

impl What {
    /// The names that it is about.
    pub fn keys(&self) -> Vec<usize> {
        match self {
            Self::Get(key) | Self::Set(key, _) | Self::Replace(key, _) => vec![*key],
            Self::Del(keys) | Self::DelPrefix(_, keys) => keys.clone(),
            Self::Both(keys) => keys.to_vec(),
            Self::Move { from, to, .. } => vec![*from, *to],
        }
    }
}

/// What the caller was told.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Told {
    Got(Option<u64>),
    Both([Option<u64>; 2]),
    Stored,
    Unchanged,
    Occupied(u64),
    Removed(Vec<bool>),
    /// So many names, by prefix.
    RemovedUnder(u64),
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
pub(super) struct Lingering {
    pub key: usize,
    pub value: u64,
    pub id: (ClientId, u64),
    /// Since when it is gone.
    pub from: Time,
    /// Until when it may be told; nobody has said so yet if `None`.
    pub until: Option<Time>,
}

/// What a change did, and when that became visible.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Effect {
    pub at: Time,
    pub told: Told,
}

/// Everything that the checkers look at when a run is over, and Global's own timeline.
#[derive(Debug)]
pub(super) struct History {
    pub ops: Vec<Op>,
    /// Of each key: since when it is bound to what.
    pub versions: Vec<Vec<(Time, Option<u64>)>>,
    /// When each change with an effect became visible, and what it told.
    pub effects: BTreeMap<(ClientId, u64), Effect>,
    pub lingering: Vec<Lingering>,
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
        self.effects.insert((id.client, id.n), Effect { at: now, told }).is_none()
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
    pub fn bounded(&mut self, now: Time, id: Option<RequestId>, until: Time) {
        for lingering in &mut self.lingering {
            let meant = id.is_none_or(|id| lingering.id == (id.client, id.n));
            if meant && lingering.until.is_none() {
                lingering.until = Some(until);
            }
        }
        // Whatever began before any operation that is not answered yet is over by a minute later.
        self.lingering.retain(|l| l.until.is_none_or(|until| now < until + 60_000_000_000));
    }

    /// What `key` is bound to.
    pub fn truth(&self, key: usize) -> Option<u64> {
        self.versions[key].last().and_then(|(_, value)| *value)
    }

    pub fn effect_of(&self, op: &Op) -> Option<&Effect> {
        op.id.and_then(|id| self.effects.get(&(id.client, id.n)))
    }

    /// What `key` was bound to at `time`.
    pub fn at(&self, key: usize, time: Time) -> Option<u64> {
        let since = self.versions[key].partition_point(|(t, _)| *t <= time);
        self.versions[key][since.saturating_sub(1)].1
    }

    /// Whether `key` was bound to `value` at a moment between `from` and `to`.
    pub fn was(&self, key: usize, from: Time, to: Time, value: Option<u64>) -> bool {
        let versions = &self.versions[key];
        let since = versions.partition_point(|(t, _)| *t <= from).saturating_sub(1);
        versions[since..].iter().take_while(|(t, _)| *t <= to).any(|(_, is)| *is == value)
    }

    /// Whether something was true of `keys` at a moment between `from` and `to`.
    pub fn ever(
        &self,
        keys: &[usize],
        from: Time,
        to: Time,
        is: impl Fn(&dyn Fn(usize) -> Option<u64>) -> bool,
    ) -> bool {
        let at = |t: Time| is(&|key| self.at(key, t));
        at(from)
            || keys.iter().any(|key| {
                let versions = &self.versions[*key];
                let since = versions.partition_point(|(t, _)| *t <= from);
                versions[since..].iter().take_while(|(t, _)| *t <= to).any(|(t, _)| at(*t))
            })
    }

    /// Notes which changes without answer took effect.
    pub fn close(&mut self) {
        let Self { ops, effects, .. } = self;
        for op in ops.iter_mut().filter(|op| op.answer.is_none()) {
            let effect = op.id.and_then(|id| effects.get(&(id.client, id.n)));
            (op.took_effect, op.effect) = (effect.is_some(), effect.map(|effect| effect.told.clone()));
        }
    }
}
