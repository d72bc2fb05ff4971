//! Owns the room in memory for values that were fetched or copied, wherever they are by now: on their way, kept
//! in the cache, or evicted and still being read by somebody.
//!
//! Invariants: such bytes take their room before they come and give it back when nobody has them any more, so
//! that all of them together stay within a bound. Since the cache never keeps more than its budget, the room
//! beyond that budget is for what it does not keep, and whoever waits for it waits for readers only. It must
//! never be waited for with a stream open, which would hold up the others of its connection.

use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a fetch waits for room; then its value is streamed. Under half a call's deadline, so that the stream
/// begins within it.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// Room for bytes.
#[derive(Clone, Debug)]
pub(crate) struct Rooms {
    free: Arc<Semaphore>,
    bytes_max: usize,
    wait_max: Duration,
}

/// What is taken of it, until it is dropped.
#[derive(Debug)]
pub(crate) struct Room(OwnedSemaphorePermit);

impl Rooms {
    /// Room for `bytes_max` bytes.
    pub fn new(bytes_max: u64) -> Self {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { free: Arc::new(Semaphore::new(bytes_max)), bytes_max, wait_max: WAIT_MAX }
    }

    /// Room for `bytes`, if there is any.
    pub fn try_take(&self, bytes: u64) -> Option<Room> {
        self.free.clone().try_acquire_many_owned(u32::try_from(bytes).ok()?).ok().map(Room)
    }

    /// Room for `bytes`, as soon as there is any; `None` if there is none in time. Who came first is served first.
    pub async fn take(&self, bytes: u64) -> Option<Room> {
        let bytes = u32::try_from(bytes).ok().filter(|bytes| *bytes as usize <= self.bytes_max)?;
        let room = self.free.clone().acquire_many_owned(bytes);
        tokio::time::timeout(self.wait_max, room).await.ok()?.ok().map(Room)
    }

    /// Bytes that are taken, and how many may be.
    pub fn taken(&self) -> (usize, usize) {
        (self.bytes_max - self.free.available_permits(), self.bytes_max)
    }
}

impl Room {
    /// For how many bytes it is.
    pub fn bytes(&self) -> u64 {
        self.0.num_permits() as u64
    }

    /// Gives back what is over `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        let over = self.bytes().saturating_sub(bytes);
        drop(usize::try_from(over).ok().and_then(|over| self.0.split(over)));
    }

    /// Makes it one with `more` of the same rooms.
    pub fn join(&mut self, more: Self) {
        self.0.merge(more.0);
    }

    /// `bytes`, which give the room back when their last user is gone.
    pub fn hold(self, bytes: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        Bytes::from_owner(Tenant { bytes, _room: self })
    }
}

struct Tenant<B> {
    bytes: B,
    _room: Room,
}

impl<B: AsRef<[u8]>> AsRef<[u8]> for Tenant<B> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn room_is_taken_for_as_long_as_anybody_has_a_part_of_the_bytes() {
        let rooms = Rooms::new(10);
        let bytes = rooms.take(7).await.expect("there is room").hold(b"1234567".to_vec());
        let part = bytes.slice(2..3);
        assert!(rooms.try_take(4).is_none());
        drop(bytes);
        assert_eq!((rooms.taken(), &part[..]), ((7, 10), &b"3"[..]), "a part keeps the whole");
        let mut waiting = std::pin::pin!(rooms.take(8));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(part);
        assert_eq!(waiting.await.map(|room| room.bytes()), Some(8), "and whoever waits gets it");
        assert_eq!(rooms.taken(), (0, 10));
    }

    #[tokio::test]
    async fn room_is_given_back_in_part_and_joined() {
        let rooms = Rooms::new(10);
        let mut room = rooms.try_take(7).expect("there is room");
        room.shrink_to(9);
        assert_eq!(room.bytes(), 7, "it only shrinks");
        room.shrink_to(2);
        assert_eq!(rooms.taken(), (2, 10));
        room.join(rooms.try_take(3).expect("there is room"));
        assert_eq!((room.bytes(), rooms.taken()), (5, (5, 10)));
        drop(room);
        assert_eq!(rooms.taken(), (0, 10));
    }

    #[tokio::test]
    async fn whoever_finds_no_room_waits_for_a_while_only() {
        let rooms = Rooms { wait_max: Duration::from_millis(20), ..Rooms::new(10) };
        assert!(rooms.take(11).await.is_none());
        let _all = rooms.try_take(10).expect("there is room");
        assert!(rooms.take(1).await.is_none());
        assert!(rooms.take(u64::MAX).await.is_none());
    }
}
