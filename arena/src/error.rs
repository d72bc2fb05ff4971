//! Owns why an arena cannot be made or mapped, and why a value is not in it.

use std::fmt;

/// Why an arena cannot be made, attached to or extended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This system has no shared memory of the kind that is needed.
    #[error(
        "no shared memory to be had: {what} failed ({source}); Linux 5.1 or newer is needed, with memfd_create and F_SEAL_FUTURE_WRITE allowed: values are read over the socket"
    )]
    Unsupported {
        /// The call that failed.
        what: &'static str,
        /// What it said.
        source: std::io::Error,
    },
    /// The operating system refused something that it does at other times.
    #[error("{what} failed: {source}")]
    System {
        /// The call that failed.
        what: &'static str,
        /// What it said.
        source: std::io::Error,
    },
    /// What was mapped is not an arena.
    #[error("not an arena: {0}")]
    Foreign(&'static str),
    /// The daemon lays its memory out in another way than this reader knows.
    #[error(
        "the daemon's shared memory has layout version {found}, this reader knows {known}: update the older of the two, until then values are read over the socket"
    )]
    Layout {
        /// The daemon's.
        found: u64,
        /// This reader's.
        known: u32,
    },
    /// Daemon and worker do not read the same clock, so the worker cannot tell when a lease is over.
    #[error(
        "the daemon's clock is not this process's ({0}): give both the same time namespace, until then values are read over the socket"
    )]
    Clock(&'static str),
    /// The sizes asked for do not fit together.
    #[error("an arena of {budget} bytes is not possible: {why}")]
    Config {
        /// Bytes asked for.
        budget: u64,
        /// What does not fit.
        why: &'static str,
    },
}

/// Why a value is not held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The key is empty or longer than [`crate::KEY_BYTES_MAX`].
    Key,
    /// The note is longer than [`crate::NOTE_BYTES_MAX`].
    Note,
    /// The value takes more than a quarter of the arena: it would empty it for the sake of one value.
    Oversize,
    /// There is no room for it: what could leave is pinned.
    Full,
    /// Other bytes of another length are held under the same hash: one of the two is damaged.
    Mismatch,
    /// Too many keys with one hash: somebody looks for such keys.
    Crowded,
}

/// Why a reader has no value to give. All but [`Miss::Forked`] are to be asked of the daemon over its socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Miss {
    /// It is not held, or not to be served in this era, or its time is over.
    Absent,
    /// It is held, but the lease is over: only the daemon knows whether it still holds.
    Lapsed,
    /// The daemon was changing this part of the index all the while, or was stopped in the middle of it.
    Busy,
    /// It is in a segment that this reader has not mapped yet: fetch the descriptors behind the ones it has.
    Unmapped,
    /// This worker has as many bytes pinned as it may, or as many values: let go of some, or use `get_into`.
    PinBudget {
        /// Bytes of values that it has pinned.
        held: u64,
        /// Bytes that it may have pinned; 0: the daemon took it for one that hoards, and it must attach anew.
        max: u64,
    },
    /// This process is a child of the one that attached: attach anew.
    Forked,
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("not held here"),
            Self::Lapsed => f.write_str("held, but the node's lease is over"),
            Self::Busy => f.write_str("the node is changing it"),
            Self::Unmapped => f.write_str("held in a segment that is not mapped yet"),
            Self::PinBudget { held, max } => {
                write!(f, "`{held}` of `{max}` bytes pinned by this process: let go of values, or copy them")
            }
            Self::Forked => f.write_str("this process was forked from the one that attached: attach anew"),
        }
    }
}

impl std::error::Error for Miss {}
