//! Owns the copies of uploads that are kept on their way to Global, so that a node holds what is SET through it.
//!
//! Invariant: all copies that are being made have together at most as many bytes as one blob that the cache may
//! keep; an upload that finds no room goes on without a copy. It must never delay or refuse an upload.

use crate::rooms::Rooms;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Room for copies that are being made, in bytes.
#[derive(Clone, Debug)]
pub(crate) struct Copies(Arc<Semaphore>);

/// A copy that grows with its upload.
#[derive(Debug)]
pub(crate) struct Copy {
    bytes: BytesMut,
    room: OwnedSemaphorePermit,
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

    /// The bytes, if `rooms` has room for them for as long as they are kept or used.
    pub fn finish(self, rooms: &Rooms) -> Option<Bytes> {
        Some(rooms.try_take(self.bytes.len() as u64)?.hold(self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_share_their_room_and_give_it_back() {
        let (copies, rooms) = (Copies::new(10), Rooms::new(9));
        let copy = || copies.begin().and_then(|copy| copy.with(b"12345")).and_then(|copy| copy.with(b"678"));
        let first = copy().expect("there is room");
        let second = || copies.begin().and_then(|copy| copy.with(b"123"));
        assert!(second().is_none(), "eight of ten bytes are taken");
        assert!(copies.begin().and_then(|copy| copy.with(b"12")).is_some());
        let kept = first.finish(&rooms).expect("there is room");
        assert_eq!(kept, "12345678");
        assert!(second().is_some(), "what is made takes no room of those being made");
        assert!(copy().expect("there is room").finish(&rooms).is_none(), "but it takes that of what is held");
        drop(kept);
        assert!(copy().expect("there is room").finish(&rooms).is_some(), "and gives it back");
    }
}
