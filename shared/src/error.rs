//! The one public error: coarse kinds that say what the caller does next.

use crate::BlobHash;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A result with dstore's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller can do about an error.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// The name is bound to other bytes: delete it first, or choose another.
    Occupied,
    /// The request is wrong: correct it.
    Invalid,
    /// A key, value or batch is over its limit: make it smaller or use the named other form.
    TooLarge,
    /// A bounded resource is used up (disk, memory, queue, streams): try again later.
    Exhausted,
    /// Not allowed: ask the operator.
    Denied,
    /// Nobody can answer now: try again after the given delay. Whether a change was made is in the message.
    Unavailable,
    /// Bytes do not match their hash: set them again.
    Corrupt,
    /// The other side ended this, or no longer remembers the request: its outcome may be unknown.
    Closed,
    /// The change is not durable yet and goes on: ask again with the same id.
    Pending,
    /// What was asked from is remembered no more: read the present state, and go on from its revision.
    TooOld,
    /// A defect of dstore: report it.
    Internal,
}

impl Kind {
    /// Every kind, for tables.
    pub const ALL: [Self; 11] = [
        Self::Occupied,
        Self::Invalid,
        Self::TooLarge,
        Self::Exhausted,
        Self::Denied,
        Self::Unavailable,
        Self::Corrupt,
        Self::Closed,
        Self::Pending,
        Self::TooOld,
        Self::Internal,
    ];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Why something was not done. Cheap to clone, because callers that share a flight share its error.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: Kind,
    message: String,
    retry_after: Option<Duration>,
    occupied_by: Option<BlobHash>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `message` is lower case, without full stop, and ends with what to do.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        let (message, retry_after, occupied_by, source) = (message.into(), None, None, None);
        Self(Arc::new(Inner { kind, message, retry_after, occupied_by, source }))
    }

    /// An `Invalid` error.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    /// A `TooLarge` error.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(Kind::TooLarge, message)
    }

    /// An `Exhausted` error.
    pub fn exhausted(message: impl Into<String>) -> Self {
        Self::new(Kind::Exhausted, message)
    }

    /// An `Unavailable` error.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, message)
    }

    /// A `Corrupt` error.
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(Kind::Corrupt, message)
    }

    /// A `Closed` error.
    pub fn closed(message: impl Into<String>) -> Self {
        Self::new(Kind::Closed, message)
    }

    /// An `Internal` error.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }

    /// The error of a SET of other bytes on a bound name.
    pub fn occupied(by: BlobHash) -> Self {
        let message = format!("key occupied by blake3:{by}: delete it first or use another key");
        Self(Arc::new(Inner {
            kind: Kind::Occupied,
            message,
            retry_after: None,
            occupied_by: Some(by),
            source: None,
        }))
    }

    /// The same error, advising to wait `delay` before another attempt.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        Arc::make_mut(&mut self.0).retry_after = Some(delay);
        self
    }

    /// The same error, caused by `source`.
    #[must_use]
    pub fn caused_by(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Arc::make_mut(&mut self.0).source = Some(Arc::new(source));
        self
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The text for a person.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// How long to wait before another attempt, if that helps.
    pub fn delay(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Of an `Occupied` error: the hash that the name holds.
    pub fn occupied_by(&self) -> Option<BlobHash> {
        self.0.occupied_by
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.kind, self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        match &self.0.source {
            Some(source) => write!(f, " ({source})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|s| &**s as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_keeps_kind_delay_and_cause_over_clones() {
        let e = Error::unavailable("global is away: try again").retry_after(Duration::from_secs(1));
        let e = e.caused_by(std::io::Error::other("refused")).clone();
        assert_eq!((e.kind(), e.delay()), (Kind::Unavailable, Some(Duration::from_secs(1))));
        assert_eq!(e.to_string(), "Unavailable: global is away: try again");
        assert!(std::error::Error::source(&e).is_some());
    }
}
