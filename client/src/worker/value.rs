//! Bytes that a worker has in hand.

use bytes::Bytes;
use std::fmt;
use std::ops::{Deref, Range};

/// A value, or a part of one: in place if it is large and was found in shared memory, else in this process. It stays as it
/// is until it is dropped, whatever becomes of the name.
pub struct Value(Place);

enum Place {
    Here(Bytes),
    Shared(dstore_arena::Value),
    Part(dstore_arena::Value, Range<usize>),
}

impl Value {
    /// Of bytes that came over the socket.
    pub(super) fn of(bytes: Bytes) -> Self {
        Self(Place::Here(bytes))
    }

    pub(super) fn shared(value: dstore_arena::Value) -> Self {
        Self(Place::Shared(value))
    }

    /// A part of it, which must lie within it.
    pub(super) fn part(self, range: Range<usize>) -> Self {
        Self(match self.0 {
            Place::Here(bytes) => Place::Here(bytes.slice(range)),
            Place::Shared(value) => Place::Part(value, range),
            Place::Part(value, outer) => {
                Place::Part(value, outer.start + range.start..outer.start + range.end)
            }
        })
    }

    /// Whether its bytes lie in the node's memory, and were neither copied nor sent.
    pub fn is_in_place(&self) -> bool {
        match &self.0 {
            Place::Here(_) => false,
            Place::Shared(value) | Place::Part(value, _) => value.is_in_place(),
        }
    }

    /// Whether it was found in shared memory.
    pub fn is_shared(&self) -> bool {
        !matches!(self.0, Place::Here(_))
    }

    /// The bytes; `None` in the child of the process that got them, if they lie in the node's memory.
    pub fn try_bytes(&self) -> Option<&[u8]> {
        match &self.0 {
            Place::Here(bytes) => Some(bytes),
            Place::Shared(value) => value.try_bytes(),
            Place::Part(value, range) => value.try_bytes()?.get(range.clone()),
        }
    }

    /// The same, to be shared and cut without a copy.
    ///
    /// Unlike a value, what this gives does not know in which process it is: if the bytes lie in the node's memory it must
    /// not be read in a child of the process that got it, where other bytes may be there as soon as the parent has dropped
    /// its own. Copy what a child is to have.
    pub fn into_bytes(self) -> Bytes {
        match self.0 {
            Place::Here(bytes) => bytes,
            _ => Bytes::from_owner(self),
        }
    }
}

impl Deref for Value {
    type Target = [u8];

    /// The bytes.
    ///
    /// # Panics
    /// In the child of the process that got them, if they lie in the node's memory: see [`Value::try_bytes`].
    #[inline]
    fn deref(&self) -> &[u8] {
        self.try_bytes()
            .expect("a value in shared memory is read by the process that got it, not by its child")
    }
}

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let len = self.try_bytes().map(<[u8]>::len);
        f.debug_struct("Value").field("len", &len).field("in_place", &self.is_in_place()).finish()
    }
}

const _: () = {
    const fn shared_by_threads<T: Send + Sync>() {}
    shared_by_threads::<Value>();
};
