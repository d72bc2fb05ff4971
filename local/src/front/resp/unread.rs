//! Owns where in what a client is sent stands what it did not ask for, and how much of that it has not taken.
//!
//! Pure. Replies do not count: a client that takes a long one is not deaf.

use std::collections::VecDeque;

/// What was told unasked and not taken.
#[derive(Debug, Default)]
pub struct Unread {
    /// From where to where, counted from the first byte that was ever sent; what adjoins is one.
    parts: VecDeque<(u64, u64)>,
    /// Bytes that the client took, of all.
    pub taken: u64,
    /// Bytes of the parts that it has not taken.
    pub bytes: u64,
}

impl Unread {
    /// Something was told that stands so.
    pub fn put(&mut self, from: u64, to: u64) {
        self.bytes += to - from;
        match self.parts.back_mut() {
            Some(last) if last.1 == from => last.1 = to,
            _ => self.parts.push_back((from, to)),
        }
    }

    /// The client took so many bytes more.
    #[inline]
    pub fn take(&mut self, bytes: u64) {
        let before = self.taken;
        self.taken += bytes;
        while let Some((from, to)) = self.parts.front().copied().filter(|(from, _)| *from < self.taken) {
            self.bytes -= to.min(self.taken) - from.max(before);
            if to > self.taken {
                return;
            }
            self.parts.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_told_unasked_and_not_taken_counts() {
        let mut unread = Unread::default();
        unread.put(100, 110);
        unread.put(110, 120);
        unread.put(200, 230);
        assert_eq!((unread.bytes, unread.parts.len()), (50, 2));
        for (bytes, left) in [(100, 50), (5, 45), (20, 30), (74, 30), (2, 29), (28, 1), (1, 0), (50, 0)] {
            unread.take(bytes);
            assert_eq!(unread.bytes, left, "after {bytes}");
        }
        assert_eq!((unread.taken, unread.parts.len()), (280, 0));
    }
}
