//! What a reader gives: a value, copied if it is short, in place if it is long.
//!
//! Invariant: one that is in place keeps its reader, the mappings and its pin alive.

use crate::memory::Memory;
use crate::reader::Attached;
use crate::view::{Meta, Pin};
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Values up to so many bytes lie in a [`Value`] itself.
pub(crate) const INLINE_MAX: usize = 128;

/// A value, in place if it is large. Its bytes stay where they are, whatever becomes of the name, until this is dropped.
pub struct Value {
    pub(crate) meta: Meta,
    pub(crate) note: Option<Box<[u8]>>,
    pub(crate) body: Body,
}

/// Where a value's bytes are.
pub(crate) enum Body {
    /// Nothing was read yet.
    Nothing,
    Inline([u8; INLINE_MAX]),
    Copied(Box<[u8]>),
    Pinned(Pinned),
}

/// Bytes that stay in the arena until this is dropped.
pub(crate) struct Pinned {
    pub(crate) reader: Arc<Attached>,
    pub(crate) pin: Pin,
    /// Their first word.
    pub(crate) at: usize,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // The child of a fork has a copy of this, but not the pin.
        if self.reader.canary.is_mine() {
            self.reader.view.unpin(self.pin);
        }
    }
}

impl Value {
    #[inline]
    pub(crate) fn new() -> Self {
        Self { meta: Meta::default(), note: None, body: Body::Nothing }
    }

    /// What goes with its name; empty if nothing does.
    pub fn note(&self) -> &[u8] {
        self.note.as_deref().unwrap_or_default()
    }

    /// What is known of it beside its bytes.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Whether it lies in the arena, and not in this process.
    pub fn is_in_place(&self) -> bool {
        matches!(self.body, Body::Pinned(_))
    }

    /// The bytes; `None` in the child of the process that read a value that lies in the arena: its parent alone keeps it
    /// there.
    #[inline]
    pub fn try_bytes(&self) -> Option<&[u8]> {
        let len = self.meta.size as usize;
        match &self.body {
            Body::Inline(bytes) => bytes.get(..len),
            Body::Copied(bytes) => Some(bytes),
            Body::Pinned(pinned) if pinned.reader.canary.is_mine() => {
                // SAFETY: the row was pinned and found linked behind that, so the daemon neither writes to these words
                // nor uses their place again before the pin is given back, which is when `self` is dropped.
                #[allow(unsafe_code)]
                unsafe {
                    pinned.reader.view.data.slice(pinned.at, len)
                }
            }
            Body::Pinned(_) | Body::Nothing => None,
        }
    }
}

impl Deref for Value {
    type Target = [u8];

    /// The bytes.
    ///
    /// # Panics
    /// In the child of the process that read a value that lies in the arena. See [`Value::try_bytes`].
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
        f.debug_struct("Value")
            .field("meta", &self.meta)
            .field("in_place", &self.is_in_place())
            .finish_non_exhaustive()
    }
}
