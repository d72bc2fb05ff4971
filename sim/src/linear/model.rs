//! The store as one that cannot go wrong would be: what each call does to a few keys, and what it answers.

use std::fmt;

/// A value, by number from 1.
pub type Value = u32;

/// Most keys of a run.
pub const KEYS_MAX: usize = 6;

/// Some of the keys.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Keys(pub u8);

impl Keys {
    /// One key.
    pub fn one(key: usize) -> Self {
        Self(1 << key)
    }

    /// These keys.
    pub fn of(keys: impl IntoIterator<Item = usize>) -> Self {
        Self(keys.into_iter().fold(0, |all, key| all | 1 << key))
    }

    /// Whether `key` is one of them.
    pub fn has(self, key: usize) -> bool {
        self.0 & (1 << key) != 0
    }

    /// Whether there is a key in both.
    pub fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Each of them.
    pub fn each(self) -> impl Iterator<Item = usize> {
        (0..KEYS_MAX).filter(move |key| self.has(*key))
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.each()).finish()
    }
}

/// What each key is bound to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct State([Value; KEYS_MAX]);

impl State {
    /// What `key` is bound to.
    pub fn get(self, key: usize) -> Option<Value> {
        Some(self.0[key]).filter(|value| *value != 0)
    }

    /// The same with `key` bound to `value`.
    #[must_use]
    pub fn with(mut self, key: usize, value: Option<Value>) -> Self {
        self.0[key] = value.unwrap_or(0);
        self
    }

    /// The same with `keys` unbound.
    #[must_use]
    pub fn without(self, keys: Keys) -> Self {
        keys.each().fold(self, |state, key| state.with(key, None))
    }

    /// Only `keys` of it.
    #[must_use]
    pub fn only(self, keys: Keys) -> Self {
        keys.each().fold(Self::default(), |state, key| state.with(key, self.get(key)))
    }

    /// The keys that are bound.
    pub fn bound(self) -> Keys {
        Keys::of((0..KEYS_MAX).filter(|key| self.get(*key).is_some()))
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.bound().each().map(|key| (key, self.0[key]))).finish()
    }
}

/// What a client asked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Op {
    /// Bind a key to a value, unless it is bound to another.
    Set(usize, Value),
    /// Read a key.
    Get(usize),
    /// Read several keys as they were at one moment.
    Read(Keys),
    /// Whether several keys were bound, at one moment.
    Exists(Keys),
    /// Unbind keys.
    Delete(Keys),
    /// Unbind keys by their prefix.
    DeletePrefix(Keys),
    /// Bind the second key to what the first is bound to, unless it is bound to another.
    Copy(usize, usize),
    /// The same, and unbind the first.
    Rename(usize, usize),
    /// Give a key, if it is bound, a time to live.
    Brief(usize),
    /// The time of a key is over that is bound to this value: nobody asks for it.
    Expire(usize, Value),
    /// A transaction.
    Swap(Swap),
}

/// A transaction: if one key is bound as it was once read, another is unbound and a third bound, if it can be.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Swap {
    /// The key of the guard, and what it must be bound to. The revision of that binding is the client's affair.
    pub guard: (usize, Option<Value>),
    /// The key that is unbound.
    pub unbound: usize,
    /// The key that is bound, and to what.
    pub bound: (usize, Value),
}

impl Op {
    /// The keys that it is about.
    pub fn keys(self) -> Keys {
        match self {
            Self::Set(key, _) | Self::Get(key) | Self::Brief(key) | Self::Expire(key, _) => Keys::one(key),
            Self::Read(keys) | Self::Exists(keys) | Self::Delete(keys) | Self::DeletePrefix(keys) => keys,
            Self::Copy(from, to) | Self::Rename(from, to) => Keys::of([from, to]),
            Self::Swap(Swap { guard, unbound, bound }) => Keys::of([guard.0, unbound, bound.0]),
        }
    }

    /// Whether it only reads.
    pub fn is_read(self) -> bool {
        matches!(self, Self::Get(_) | Self::Read(_) | Self::Exists(_))
    }
}

/// What a client was told.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Answer {
    /// SET: it was absent and is bound now.
    Stored,
    /// SET, COPY: it was bound to this very value.
    Unchanged,
    /// SET, COPY, RENAME: it is bound to another value, this one.
    Occupied(Value),
    /// GET: it is bound to this value.
    Found(Value),
    /// GET: it is not bound. COPY, RENAME: nor is the first.
    Absent,
    /// Reads of several: what each was bound to.
    All(State),
    /// Which of them were bound.
    Bound(Keys),
    /// DEL: those that were bound.
    Removed(Keys),
    /// DEL by prefix: how many were bound.
    RemovedMany(u64),
    /// COPY, RENAME: done, with this value.
    Done(Value),
    /// Of a transaction: the guard did not hold, and nothing was done.
    Aborted,
    /// Of a transaction: what was unbound, and what came of the binding.
    Applied(Option<Value>, Bind),
}

/// What came of the binding of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Bind {
    /// The key was absent, and is bound now.
    Stored,
    /// It was bound to this very value.
    Unchanged,
    /// It is bound to another, this one.
    Occupied(Value),
}

/// The keys after `op` found them as `before`, if that agrees with `answer`.
pub fn step(before: State, op: Op, answer: Option<Answer>) -> Option<State> {
    // A key that was bound anew to the same value is bound otherwise than its guard says.
    if let (Op::Swap(Swap { guard: (_, Some(_)), .. }), Some(Answer::Aborted)) = (op, answer) {
        return Some(before);
    }
    let (told, after) = told(before, op);
    answer.is_none_or(|answer| answer == told).then_some(after)
}

/// What `op` answers, and the keys after it.
pub(super) fn told(before: State, op: Op) -> (Answer, State) {
    let found = |key| before.get(key).map_or(Answer::Absent, Answer::Found);
    match op {
        Op::Get(key) | Op::Brief(key) => (found(key), before),
        Op::Read(keys) => (Answer::All(before.only(keys)), before),
        Op::Exists(keys) => (Answer::Bound(before.only(keys).bound()), before),
        Op::Set(key, value) => match before.get(key) {
            None => (Answer::Stored, before.with(key, Some(value))),
            Some(held) if held == value => (Answer::Unchanged, before),
            Some(held) => (Answer::Occupied(held), before),
        },
        Op::Delete(keys) => (Answer::Removed(before.only(keys).bound()), before.without(keys)),
        Op::DeletePrefix(keys) => {
            (Answer::RemovedMany(before.only(keys).bound().each().count() as u64), before.without(keys))
        }
        Op::Expire(key, value) if before.get(key) == Some(value) => (Answer::Absent, before.with(key, None)),
        Op::Expire(..) => (Answer::Unchanged, before),
        Op::Swap(swap) => swapped(before, swap),
        Op::Copy(from, to) => match (before.get(from), before.get(to)) {
            (None, _) => (Answer::Absent, before),
            (Some(value), None) => (Answer::Done(value), before.with(to, Some(value))),
            (Some(value), Some(held)) if held == value => (Answer::Unchanged, before),
            (Some(_), Some(held)) => (Answer::Occupied(held), before),
        },
        Op::Rename(from, to) => match (before.get(from), before.get(to)) {
            (None, _) => (Answer::Absent, before),
            (Some(value), held) if held.is_none_or(|held| held == value) => {
                (Answer::Done(value), before.with(from, None).with(to, Some(value)))
            }
            (Some(_), held) => (held.map_or(Answer::Absent, Answer::Occupied), before),
        },
    }
}

fn swapped(before: State, Swap { guard, unbound, bound }: Swap) -> (Answer, State) {
    if before.get(guard.0) != guard.1 {
        return (Answer::Aborted, before);
    }
    let (was, after) = (before.get(unbound), before.with(unbound, None));
    let (key, value) = bound;
    match after.get(key) {
        None => (Answer::Applied(was, Bind::Stored), after.with(key, Some(value))),
        Some(held) if held == value => (Answer::Applied(was, Bind::Unchanged), after),
        Some(held) => (Answer::Applied(was, Bind::Occupied(held)), after),
    }
}
