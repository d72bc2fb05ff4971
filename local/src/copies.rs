//! Owns the copies of uploads that are kept on their way to Global, so that a node holds what is SET through it.
//!
//! Invariant: all copies together have at most as many bytes as one blob that the cache may keep; an upload that
//! finds no room goes on without a copy. It must never delay or refuse an upload.

use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Room for copies, in bytes.
#[derive(Clone, Debug)]
pub(crate) struct Copies(Arc<Semaphore>);

/// What is taken of that room, until it is dropped.
pub(crate) type Room = OwnedSemaphorePermit;

/// A copy that grows with its upload.
#[derive(Debug)]
pub(crate) struct Copy {
    bytes: BytesMut,
    room: Room,
}

impl Copies {
    /// Room for `bytes_max` bytes of copies at a time.
    pub fn new(bytes_max: u64) -> Self {
        Self(Arc::new(Semaphore::new(
            usize::try_from(bytes_max).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS),
        )))
    }

    /// An empty copy.
    pub fn begin(&self) -> Option<Copy> {
        let room = self.0.clone().try_acquire_many_owned(0).ok()?;
        Some(Copy { bytes: BytesMut::new(), room })
    }
}

impl Copy {
    /// The copy with `piece` at its end, if there is room for it.
    pub fn with(mut self, piece: &[u8]) -> Option<Self> {
        let more = self.room.semaphore().clone().try_acquire_many_owned(u32::try_from(piece.len()).ok()?);
        self.room.merge(more.ok()?);
        self.bytes.extend_from_slice(piece);
        Some(self)
    }

    /// The bytes, and their room, to be held as long as they are.
    pub fn finish(self) -> (Bytes, Room) {
        (self.bytes.freeze(), self.room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_share_their_room_and_give_it_back() {
        let copies = Copies::new(10);
        let first = copies.begin().and_then(|copy| copy.with(b"12345")).and_then(|copy| copy.with(b"678"));
        let (bytes, room) = first.expect("there is room").finish();
        assert_eq!(bytes, "12345678");
        let second = || copies.begin().and_then(|copy| copy.with(b"123"));
        assert!(second().is_none(), "eight of ten bytes are taken");
        assert!(copies.begin().and_then(|copy| copy.with(b"12")).is_some());
        drop(room);
        assert!(second().is_some(), "and given back");
    }
}
