//! The names that callers fight over, and the prefixes that some of them are under.

use dstore_shared::{Name, Namespace, Prefix};

/// The names, by number: neighbours in number are not under one prefix of a letter.
const NAMES: [&str; 6] = ["a0", "b0", "a1", "b1", "a2", "b2"];

/// The prefixes, by number: of all, of every other one, of the others, and of exactly one.
pub(super) const PREFIXES: [&str; 4] = ["", "a", "b", "a0"];

/// The first `n` names.
pub(super) fn names(n: usize) -> Vec<Name> {
    assert!(n <= NAMES.len(), "a run has at most {} names", NAMES.len());
    NAMES[..n].iter().map(|name| Name::of(*name).expect("a short key")).collect()
}

/// The names, of the first `n`, that are under a prefix, by number.
pub(super) fn under(prefix: usize, n: usize) -> Vec<usize> {
    (0..n).filter(|key| NAMES[*key].starts_with(PREFIXES[prefix])).collect()
}

/// A prefix by number.
pub(super) fn prefix(prefix: usize) -> Prefix {
    Prefix::new(&Namespace::default(), PREFIXES[prefix].as_bytes()).expect("a short prefix")
}
