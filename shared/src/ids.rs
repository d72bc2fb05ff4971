//! Numbers and identities that order events and tell parties apart.

use std::fmt;

/// The number of a committed change of one Global shard: +1 for each, never reused. 0 is "before all".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Revision(pub u64);

impl Revision {
    /// The revision after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:08x}", self.0 >> 96)
            }
        }
    };
}

random_id! {
    /// One line of history of a Global's data; another after a backup was restored.
    HistoryId
}
random_id! {
    /// Who a Local is, over restarts.
    LocalId
}
random_id! {
    /// The first caller of a request: a REPL, a worker, an embedded Local.
    ClientId
}

/// One life of a Local's process. A larger one fences the smaller of the same [`LocalId`] (COHERENCE rule 12).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Incarnation(pub u64);

/// One session stream's life. Never reused: the boot number is durable before the first is given out (rule 11).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Epoch {
    /// The history that granted it.
    pub history: HistoryId,
    /// The boot number of the Global that granted it.
    pub boot: u64,
    /// Counts the sessions of that boot, from 1.
    pub counter: u64,
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}:{}:{}", self.history, self.boot, self.counter)
    }
}

/// When a request was made, as Global's clock told: carried by the request's id, never restamped (rule 26).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Born {
    /// The history the first caller knew.
    pub history: HistoryId,
    /// The boot number the first caller knew.
    pub boot: u64,
    /// Global's milliseconds since that boot began.
    pub at_ms: u64,
}

impl Born {
    /// Whether `self` is news to somebody who has seen `other`. Another history is always news.
    pub fn newer_than(&self, other: &Self) -> bool {
        self.history != other.history || (self.boot, self.at_ms) > (other.boot, other.at_ms)
    }
}

/// Names one change that a caller wants, over all its attempts (rules 24 to 26).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct RequestId {
    /// The first caller.
    pub client: ClientId,
    /// Counts that caller's requests, from 1.
    pub n: u64,
    /// The newest of Global's clock that the caller had seen.
    pub born: Born,
}

/// An outstanding upstream request of a Local; replies match by it, never by key (rule 21).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct FlightId(pub u64);

/// Orders the registrations of one incarnation of a Local; never reused in it (rule 20).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct RegSeq(pub u64);

impl RegSeq {
    /// The registration after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}
