//! Owns what one reply gathers from many values or keys: room for it at the door, until the reply is told.
//!
//! Invariants: room is taken before bytes are copied or fetched, and given back when it is dropped. One value alone has
//! room elsewhere.

use super::door::Door;
use super::parse::VALUE_MAX;
use dstore_shared::{Error, Result};

/// Bytes of all values that one reply has.
pub const REPLY_MAX: usize = VALUE_MAX as usize;
/// Bytes that a reply may have without asking for room.
const FREE: usize = 64 << 10;

/// What one reply gathers.
#[derive(Debug)]
pub struct Gathered<'a> {
    door: &'a Door,
    bytes: usize,
    reserved: usize,
}

impl<'a> Gathered<'a> {
    /// Nothing yet.
    pub fn new(door: &'a Door) -> Self {
        Self { door, bytes: 0, reserved: 0 }
    }

    /// The door at which it is asked for.
    pub fn door(&self) -> &'a Door {
        self.door
    }

    /// Takes room for `more` bytes.
    ///
    /// # Errors
    /// `TooLarge` beyond `max` in all, `Exhausted` if there is no room.
    pub fn take(&mut self, more: usize, max: usize, advice: &str) -> Result<()> {
        let bytes = self.bytes.saturating_add(more);
        if bytes > max {
            return Err(Error::too_large(format!("more than `{max}` bytes for one reply: {advice}")));
        }
        let wanted = bytes.saturating_sub(FREE);
        if wanted > self.reserved && !self.door.reserve(self.reserved, wanted) {
            return Err(Error::exhausted("too many large replies are under way: try again later"));
        }
        (self.bytes, self.reserved) = (bytes, wanted);
        Ok(())
    }

    /// Takes room for a value.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn value(&mut self, size: u64) -> Result<()> {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        self.take(size, REPLY_MAX, "ask for fewer values at a time")
    }
}

impl Drop for Gathered<'_> {
    fn drop(&mut self) {
        self.door.reserve(self.reserved, 0);
    }
}
