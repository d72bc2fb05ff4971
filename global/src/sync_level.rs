//! Owns the levels of durability that a Global can be started with.
//!
//! Invariant: at every level a change is acknowledged, and readable, only after the fsync of the journal batch that
//! holds it has returned. The levels differ in how many changes share a batch, and in nothing else. There must
//! never be a level here that promises less without saying so in its answers.

#[cfg(test)]
pub(crate) mod tests;

use dstore_shared::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// How many changes share one fsync.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum SyncLevel {
    /// All that have gathered while the batch before was written.
    #[default]
    Group,
    /// One alone: a journal batch and an fsync for each change.
    Always,
}

impl SyncLevel {
    /// Every level.
    pub const ALL: [Self; 2] = [Self::Group, Self::Always];
}

impl fmt::Display for SyncLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Group => "group",
            Self::Always => "always",
        })
    }
}

impl FromStr for SyncLevel {
    type Err = Error;

    /// # Errors
    /// `Invalid` if there is no such level.
    fn from_str(name: &str) -> Result<Self> {
        let named = Self::ALL.into_iter().find(|level| level.to_string() == name);
        named.ok_or_else(|| Error::invalid(format!("`{name}` is not a sync level: use group or always")))
    }
}
