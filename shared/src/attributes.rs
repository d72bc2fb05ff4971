//! What whoever stores a value may say about it: of what type it is, and how long its name lives.
//!
//! Invariant: a [`ContentType`] exists only within its limits, and owns its bytes: it never keeps the frame that it
//! came in alive.

use crate::limits::CONTENT_TYPE_BYTES_MAX;
use crate::{Error, Expiry, Result, check_ttl};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// The media type of a value, in the words of whoever stored it: 1 to 255 bytes of visible ASCII, with spaces only
/// within. It is kept and given back, and never looked into.
///
/// One pointer wide, so that a name without one pays nothing for it; clones share it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentType(Arc<Box<str>>);

impl ContentType {
    /// The type of these words.
    ///
    /// # Errors
    /// `Invalid` for none, for more than 255 bytes, for bytes that are no visible ASCII and no space, and for spaces at
    /// its ends.
    pub fn new(words: &str) -> Result<Self> {
        let n = words.len();
        if n == 0 || n > CONTENT_TYPE_BYTES_MAX {
            return Err(Error::invalid(format!(
                "a content type of `{n}` bytes: use 1 to {CONTENT_TYPE_BYTES_MAX}, or none"
            )));
        }
        // The field of a header has no spaces at its ends.
        if !words.bytes().all(|b| (b' '..=b'~').contains(&b)) || words != words.trim_ascii() {
            return Err(Error::invalid(
                "a content type is visible ASCII, with spaces only within it: leave other bytes out",
            ));
        }
        Ok(Self(Arc::new(words.into())))
    }

    /// The type of these words; none if there are none.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn optional(words: &str) -> Result<Option<Self>> {
        if words.is_empty() { Ok(None) } else { Self::new(words).map(Some) }
    }

    /// Its words.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How many bytes they are.
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Display for ContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl FromStr for ContentType {
    type Err = Error;

    fn from_str(words: &str) -> Result<Self> {
        Self::new(words)
    }
}

/// What a SET says besides its value. The default says nothing.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Attributes {
    /// Of what type the value is.
    pub content_type: Option<ContentType>,
    /// How long the name lives, from the decision on; `None` = as its namespace says. Whole milliseconds count.
    pub ttl: Option<Duration>,
}

impl Attributes {
    /// Whether nothing is said.
    pub fn is_default(&self) -> bool {
        self.content_type.is_none() && self.ttl.is_none()
    }

    /// Whether a name may live for so long.
    ///
    /// # Errors
    /// As [`check_ttl`].
    pub fn check(&self) -> Result<()> {
        self.ttl.map_or(Ok(()), check_ttl)
    }

    /// How long the name is to live.
    pub fn expiry(&self) -> Expiry {
        self.ttl.map_or(Expiry::Clear, Expiry::In)
    }

    /// Bytes that they take beside a name.
    pub fn weight(&self) -> usize {
        type_len(self.content_type.as_ref())
    }
}

/// Bytes of a type, if there is one.
pub fn type_len(content_type: Option<&ContentType>) -> usize {
    content_type.map_or(0, ContentType::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_type_is_one_to_255_bytes_of_visible_ascii_and_spaces() {
        for good in ["x", "text/html; charset=utf-8", &"a".repeat(CONTENT_TYPE_BYTES_MAX), "a ~"] {
            assert_eq!(ContentType::new(good).expect("valid").as_str(), good);
        }
        for bad in
            ["", " a", "a ", "a\n", "a\tb", "\u{7f}", "text/\u{e4}", &"a".repeat(CONTENT_TYPE_BYTES_MAX + 1)]
        {
            assert!(ContentType::new(bad).is_err(), "{bad:?}");
        }
        assert_eq!(ContentType::optional("").expect("none"), None);
        assert!(ContentType::optional("\r\n").is_err());
    }

    #[test]
    fn a_content_type_is_one_pointer_wide() {
        assert_eq!(size_of::<Option<ContentType>>(), size_of::<usize>());
    }
}
