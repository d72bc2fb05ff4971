//! What a blob is called: a key within a namespace.

use crate::limits::{KEY_BYTES_MAX, NAMESPACE_BYTES_MAX};
use crate::{Error, Result};
use bytes::Bytes;
use std::borrow::Borrow;
use std::fmt;

/// 1 to 1,024 arbitrary bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

impl Key {
    /// Checks the length of `bytes`.
    ///
    /// # Errors
    /// `Invalid` for an empty key, `TooLarge` for one of more than 1,024 bytes.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self> {
        let bytes = bytes.into();
        match bytes.len() {
            0 => Err(Error::invalid("the key is empty: a key has 1 to 1024 bytes")),
            1..=KEY_BYTES_MAX => Ok(Self(bytes)),
            n => Err(Error::too_large(format!("the key has `{n}` bytes: a key has 1 to 1024 bytes"))),
        }
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key's bytes, shared.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.0.escape_ascii())
    }
}

/// A space of keys, by a name of 1 to 64 of `a-z 0-9 _ - .`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(Bytes);

impl Namespace {
    /// Checks length and characters of `name`.
    ///
    /// # Errors
    /// `Invalid` if it is empty, too long or has another character.
    pub fn new(name: impl Into<Bytes>) -> Result<Self> {
        let name = name.into();
        let good = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'.');
        if name.is_empty() || name.len() > NAMESPACE_BYTES_MAX || !name.iter().all(good) {
            return Err(Error::invalid(format!(
                "the namespace `{}` is not valid: use 1 to 64 of a-z 0-9 _ - .",
                name.escape_ascii()
            )));
        }
        Ok(Self(name))
    }

    /// The bytes of its name.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The namespace's name.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a namespace is ASCII")
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self(Bytes::from_static(b"default"))
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A namespace and a key, packed as `namespace 0x00 key`: one allocation, one hash, and byte order is
/// order by namespace, then key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(Bytes);

impl Name {
    /// Packs `namespace` and `key`.
    pub fn new(namespace: &Namespace, key: &Key) -> Self {
        let mut packed = Vec::with_capacity(namespace.0.len() + 1 + key.0.len());
        packed.extend_from_slice(&namespace.0);
        packed.push(0);
        packed.extend_from_slice(&key.0);
        Self(packed.into())
    }

    /// A name in the default namespace.
    ///
    /// # Errors
    /// As [`Key::new`].
    pub fn of(key: impl Into<Bytes>) -> Result<Self> {
        Ok(Self::new(&Namespace::default(), &Key::new(key)?))
    }

    /// Reads a packed name back.
    ///
    /// # Errors
    /// As [`Namespace::new`] and [`Key::new`]; `Invalid` without a separator.
    pub fn from_packed(packed: Bytes) -> Result<Self> {
        let Some(at) = packed.iter().position(|b| *b == 0) else {
            return Err(Error::invalid("a packed name has no separator"));
        };
        Namespace::new(packed.slice(..at))?;
        Key::new(packed.slice(at + 1..))?;
        Ok(Self(packed))
    }

    /// The packed bytes, `namespace 0x00 key`.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The packed bytes, shared.
    pub fn packed(&self) -> Bytes {
        self.0.clone()
    }

    /// The same name in an allocation of its own, for whoever keeps it long: bytes that came in a frame
    /// share, and keep alive, the whole frame.
    #[must_use]
    pub fn compact(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }

    /// The namespace.
    pub fn namespace(&self) -> Namespace {
        Namespace(self.0.slice(..self.separator()))
    }

    /// The key.
    pub fn key(&self) -> Key {
        Key(self.0.slice(self.separator() + 1..))
    }

    fn separator(&self) -> usize {
        self.0.iter().position(|b| *b == 0).expect("a name has a separator")
    }
}

// `Hash` must agree with `[u8]`, so that a map of names can be asked with the packed bytes.
impl std::hash::Hash for Name {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0[..].hash(state);
    }
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:?}", self.namespace(), self.key())
    }
}

/// All names of a namespace whose keys begin with some bytes; packed as a name is, `namespace 0x00 bytes`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(Bytes);

impl Prefix {
    /// The names of `namespace` whose keys begin with `bytes`: 0 bytes mean all of them.
    ///
    /// # Errors
    /// `TooLarge` for more bytes than a key has.
    pub fn new(namespace: &Namespace, bytes: &[u8]) -> Result<Self> {
        let n = bytes.len();
        if n > KEY_BYTES_MAX {
            return Err(Error::too_large(format!(
                "a prefix of `{n}` bytes: no key is that long, use at most {KEY_BYTES_MAX}"
            )));
        }
        Ok(Self([&namespace.0[..], &[0], bytes].concat().into()))
    }

    /// Reads a packed prefix back, into an allocation of its own.
    ///
    /// # Errors
    /// As [`Prefix::new`] and [`Namespace::new`]; `Invalid` without a separator.
    pub fn from_packed(packed: &[u8]) -> Result<Self> {
        let Some(at) = packed.iter().position(|b| *b == 0) else {
            return Err(Error::invalid("a packed prefix has no separator"));
        };
        Self::new(&Namespace::new(Bytes::copy_from_slice(&packed[..at]))?, &packed[at + 1..])
    }

    /// The packed bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The packed bytes, shared.
    pub fn packed(&self) -> Bytes {
        self.0.clone()
    }

    /// The namespace.
    pub fn namespace(&self) -> Namespace {
        Namespace(self.0.slice(..self.separator()))
    }

    /// What the keys begin with.
    pub fn bytes(&self) -> Bytes {
        self.0.slice(self.separator() + 1..)
    }

    /// Whether `name` is one of them.
    pub fn covers(&self, name: &Name) -> bool {
        name.0.starts_with(&self.0)
    }

    /// Whether a name can be under both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0) || other.0.starts_with(&self.0)
    }

    fn separator(&self) -> usize {
        self.0.iter().position(|b| *b == 0).expect("a prefix has a separator")
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/`{}`*", self.namespace(), self.bytes().escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn a_key_has_1_to_1024_bytes() {
        assert_eq!(Key::new(Bytes::new()).expect_err("empty").kind(), Kind::Invalid);
        assert!(Key::new(vec![0; 1]).is_ok());
        assert!(Key::new(vec![255; 1024]).is_ok());
        assert_eq!(Key::new(vec![1; 1025]).expect_err("long").kind(), Kind::TooLarge);
    }

    #[test]
    fn a_packed_name_gives_back_its_parts_even_if_the_key_has_zeros() {
        let key = Key::new(vec![0, 1, 0]).expect("valid");
        let name = Name::new(&Namespace::default(), &key);
        let again = Name::from_packed(name.packed()).expect("valid");
        assert_eq!((again.key(), again.namespace()), (key, Namespace::default()));
        assert!(Name::from_packed(Bytes::from_static(b"default")).is_err());
        assert!(Name::from_packed(Bytes::from_static(b"UPPER\0k")).is_err());
        assert!(Name::from_packed(Bytes::from_static(b"default\0")).is_err());
    }

    #[test]
    fn a_prefix_covers_the_names_that_begin_with_it_in_its_namespace_and_overlap_goes_both_ways() {
        let of = |bytes: &[u8]| Prefix::new(&Namespace::default(), bytes).expect("valid");
        let (a, ab, b, all) = (of(b"a"), of(b"ab"), of(b"b"), of(b""));
        let name = Name::of("abc").expect("valid");
        assert!(a.covers(&name) && ab.covers(&name) && all.covers(&name) && !b.covers(&name));
        assert!(a.overlaps(&ab) && ab.overlaps(&a) && all.overlaps(&b) && b.overlaps(&all));
        assert!(!a.overlaps(&b) && !b.overlaps(&ab));
        let elsewhere = Prefix::new(&Namespace::new("defaul").expect("valid"), b"t").expect("valid");
        assert!(!elsewhere.covers(&name) && !elsewhere.overlaps(&all));
        assert_eq!(Prefix::from_packed(ab.as_bytes()).expect("valid"), ab);
        assert_eq!((&ab.bytes()[..], ab.namespace()), (&b"ab"[..], Namespace::default()));
        assert_eq!(Prefix::new(&Namespace::default(), &[1; 1025]).expect_err("long").kind(), Kind::TooLarge);
        assert!(Prefix::from_packed(b"default").is_err() && Prefix::from_packed(b"UP\0a").is_err());
    }
}
