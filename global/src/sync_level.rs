//! Owns the levels of durability that a Global can be started with.
//!
//! Invariant: at `group` and `always` a change is acknowledged, and readable, only after the fsync of the journal batch
//! that holds it has returned; they differ in how many changes share a batch, and in nothing else. At `relaxed` it is
//! acknowledged when it is written, and every answer says how much a crash may take. There must never be a level here
//! that promises less without saying so in its answers, and none that does may be the default.

#[cfg(test)]
mod relaxed_tests;
#[cfg(test)]
pub(crate) mod tests;

use dstore_shared::{Error, Result};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// When a change is acknowledged, and how many share one fsync.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum SyncLevel {
    /// Durable first; all that have gathered while the batch before was written.
    #[default]
    Group,
    /// Durable first; one alone: a journal batch and an fsync for each change.
    Always,
    /// Before it is durable: a crash may take what was acknowledged within one span of this length.
    Relaxed(Duration),
}

impl SyncLevel {
    /// Every level at which what is acknowledged is durable.
    pub const DURABLE: [Self; 2] = [Self::Group, Self::Always];
    /// The span of `relaxed`, unless another is given.
    pub const RELAXED: Duration = Duration::from_millis(100);
    /// The shortest span: a disk needs a few milliseconds for an fsync.
    pub const RELAXED_MIN: Duration = Duration::from_millis(10);
    /// The longest span.
    pub const RELAXED_MAX: Duration = Duration::from_secs(10);

    /// A crash may take the changes of so long; `None`: nothing that was acknowledged.
    pub fn loss(self) -> Option<Duration> {
        match self {
            Self::Group | Self::Always => None,
            Self::Relaxed(span) => Some(span),
        }
    }
}

impl fmt::Display for SyncLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group => f.write_str("group"),
            Self::Always => f.write_str("always"),
            Self::Relaxed(span) => write!(f, "relaxed={}ms", span.as_millis()),
        }
    }
}

impl FromStr for SyncLevel {
    type Err = Error;

    /// # Errors
    /// `Invalid` if there is no such level, or the span of `relaxed` is none or out of range.
    fn from_str(name: &str) -> Result<Self> {
        match name {
            "group" => return Ok(Self::Group),
            "always" => return Ok(Self::Always),
            "relaxed" => return Ok(Self::Relaxed(Self::RELAXED)),
            _ => {}
        }
        let unknown =
            || Error::invalid(format!("`{name}` is not a sync level: use group, always or relaxed=100ms"));
        let text = name.strip_prefix("relaxed=").ok_or_else(unknown)?;
        let (digits, unit) = match text.strip_suffix("ms") {
            Some(digits) => (digits, 1),
            None => (text.strip_suffix('s').ok_or_else(unknown)?, 1000),
        };
        if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(unknown());
        }
        let span = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)).map(Duration::from_millis);
        let fits = |span: &Duration| (Self::RELAXED_MIN..=Self::RELAXED_MAX).contains(span);
        let span = span.filter(fits).map(Self::Relaxed);
        span.ok_or_else(|| Error::invalid(format!("`{text}` is out of range: write 10ms to 10s")))
    }
}
