//! What a namespace that was created at run time allows.

use crate::{Entry, Namespace, Revision};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// What a SET does to a name that is bound to another blob.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub enum NamespaceMode {
    /// It is refused: the name is occupied until it is deleted.
    #[default]
    WriteOnce,
    /// It binds the name to the new blob.
    Replace,
}

impl fmt::Display for NamespaceMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WriteOnce => "write-once",
            Self::Replace => "replace",
        })
    }
}

impl FromStr for NamespaceMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "write-once" => Ok(Self::WriteOnce),
            "replace" => Ok(Self::Replace),
            other => Err(format!("`{other}` is no mode of a namespace: use write-once or replace")),
        }
    }
}

/// What a namespace allows. The default is that of one that nobody created.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct NamespaceSpec {
    /// What a SET does to a bound name.
    pub mode: NamespaceMode,
    /// How long names live whose SET does not say; `None` = for ever. Whole milliseconds count.
    pub ttl: Option<Duration>,
}

impl NamespaceSpec {
    /// Whether names may be bound to another blob while they are bound.
    pub fn replaces(self) -> bool {
        self.mode == NamespaceMode::Replace
    }
}

/// A namespace that was created.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamespaceInfo {
    /// Its name.
    pub namespace: Namespace,
    /// What it allows.
    pub spec: NamespaceSpec,
    /// The revision at which it was created; 0 of `default`, which is always there.
    pub created: Revision,
}

/// What became of the creation or the drop of a namespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NamespaceOutcome {
    /// What was done, or why nothing was.
    pub result: NamespaceResult,
    /// The revision of the change; the head revision if nothing was changed.
    pub revision: Revision,
}

/// What the creation or the drop of a namespace did.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum NamespaceResult {
    /// It is done.
    Done,
    /// It was created so before; nothing was done.
    Unchanged,
    /// It was created otherwise before; nothing was done.
    Differs,
    /// There are names in it; nothing was done.
    NotEmpty,
    /// There is no such namespace; nothing was done.
    NotFound,
}

impl NamespaceResult {
    /// Every result, in the order of its number on wire and disk, which begins with 1.
    pub const ALL: [Self; 5] = [Self::Done, Self::Unchanged, Self::Differs, Self::NotEmpty, Self::NotFound];

    /// Its number on wire and disk.
    pub fn number(self) -> u8 {
        let place = Self::ALL.iter().position(|one| *one == self);
        place.map_or(0, |place| place as u8 + 1)
    }

    /// The result of a number, if there is one.
    pub fn of_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }
}

impl Entry {
    /// Whether its time is over at journal time `at_ms`.
    pub fn is_over(&self, at_ms: u64) -> bool {
        self.expires_at.is_some_and(|end| end.get() <= at_ms)
    }

    /// How long it has to live at journal time `at_ms`; `None` = for ever.
    pub fn left(&self, at_ms: u64) -> Option<Duration> {
        self.expires_at.map(|end| Duration::from_millis(end.get().saturating_sub(at_ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BlobHash;

    #[test]
    fn a_mode_reads_back_as_it_is_shown() {
        for mode in [NamespaceMode::WriteOnce, NamespaceMode::Replace] {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        assert!("Replace".parse::<NamespaceMode>().is_err());
        for result in NamespaceResult::ALL {
            assert_eq!(NamespaceResult::of_number(result.number()), Some(result));
        }
        assert_eq!(NamespaceResult::of_number(0), None);
    }

    #[test]
    fn a_name_is_over_at_its_end_and_not_before() {
        let entry = |end| Entry {
            expires_at: crate::End::new(end),
            ..Entry::new(BlobHash::of(b"v"), 1, Revision(1))
        };
        assert!(!entry(10).is_over(9) && entry(10).is_over(10) && !entry(0).is_over(u64::MAX));
        assert_eq!(entry(10).left(7), Some(Duration::from_millis(3)));
        assert_eq!(entry(10).left(11), Some(Duration::ZERO));
        assert_eq!(entry(0).left(7), None);
    }
}
