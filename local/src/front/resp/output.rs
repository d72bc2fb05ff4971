//! Owns what a client is still to be sent: small replies copied together, large values shared.
//!
//! Invariants: bytes leave in the order in which they were put; a value's bytes are never copied when they are many.

use bytes::Bytes;
use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};

/// Values of at least so many bytes are sent from where they are: below, a copy costs less than a piece of its own.
const SHARED_MIN: usize = 16 << 10;
/// When so much is held already, smaller values are not copied either ...
const COPIED_MAX: usize = 1 << 20;
/// ... unless they are smaller than what a piece costs.
const PIECE_MIN: usize = 256;
/// The most memory that is kept for the next connection that has something to say.
const SPARE_MAX: usize = 1 << 20;
/// Memory beyond twice what is unsent that an output may keep.
const KEPT_MAX: usize = 4 << 10;
/// Pieces in one write.
const PIECES: usize = 64;

/// What is still to be sent.
#[derive(Debug, Default)]
pub struct Output {
    /// Before the tail; whether each is somebody else's.
    queue: VecDeque<(Bytes, bool)>,
    /// What was put last.
    tail: Vec<u8>,
    /// Sent already, of the first piece.
    sent: usize,
    /// Bytes in the queue.
    queued: usize,
    /// Those of them that are somebody else's.
    shared: usize,
}

impl Output {
    /// Puts bytes.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
    }

    /// Puts a value.
    #[inline]
    pub fn put_shared(&mut self, bytes: &Bytes) {
        let min =
            if self.queued - self.shared + self.tail.len() < COPIED_MAX { SHARED_MIN } else { PIECE_MIN };
        if bytes.len() < min {
            return self.put(bytes);
        }
        self.seal();
        // What nobody else has is ours from now on: whoever gives it drops it.
        let shared = !bytes.is_unique();
        self.shared += if shared { bytes.len() } else { 0 };
        self.push(bytes.clone(), shared);
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            let tail = std::mem::take(&mut self.tail);
            self.push(tail.into(), false);
        }
    }

    fn push(&mut self, bytes: Bytes, shared: bool) {
        self.queued += bytes.len();
        self.queue.push_back((bytes, shared));
    }

    /// Bytes that are still to be sent.
    #[inline]
    pub fn len(&self) -> usize {
        self.queued + self.tail.len() - self.sent
    }

    /// Bytes of memory that it holds by itself.
    pub fn own_len(&self) -> usize {
        self.own_len_lent() - self.tail.len() + self.tail.capacity()
    }

    /// As [`Self::own_len`], while the tail has memory that is lent.
    pub fn own_len_lent(&self) -> usize {
        self.queued - self.shared + self.tail.len() + self.queue.len() * size_of::<(Bytes, bool)>()
    }

    /// Whether all is sent.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.tail.len() == self.sent
    }

    /// Sends what the other side takes. Whether that was all.
    ///
    /// # Errors
    /// When the connection is broken.
    #[inline]
    pub fn send(&mut self, to: &mut impl Write) -> io::Result<bool> {
        while !self.is_empty() {
            let sent =
                if self.queue.is_empty() { to.write(&self.tail[self.sent..]) } else { self.send_many(to) };
            match sent {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.advance(n),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    fn send_many(&self, to: &mut impl Write) -> io::Result<usize> {
        let mut pieces = [IoSlice::new(&[]); PIECES];
        let mut n = 0;
        let tail = (self.queue.len() < PIECES).then_some(&self.tail[..]);
        for piece in self.queue.iter().map(|(bytes, _)| &bytes[..]).chain(tail).take(PIECES) {
            let from = if n == 0 { self.sent } else { 0 };
            pieces[n] = IoSlice::new(&piece[from..]);
            n += 1;
        }
        to.write_vectored(&pieces[..n])
    }

    #[inline]
    fn advance(&mut self, n: usize) {
        self.sent += n;
        while let Some((first, shared)) = self.queue.front() {
            if self.sent < first.len() {
                return;
            }
            self.sent -= first.len();
            self.queued -= first.len();
            self.shared -= if *shared { first.len() } else { 0 };
            self.queue.pop_front();
        }
        if self.sent == self.tail.len() {
            self.tail.clear();
            self.sent = 0;
        }
    }

    /// Lends memory for the tail, if there is none.
    pub fn lend(&mut self, spare: &mut Vec<u8>) {
        if self.tail.capacity() == 0 {
            self.tail = std::mem::take(spare);
        }
    }

    /// Gives the memory back, if nothing is in it: an idle client has none.
    pub fn give_back(&mut self, spare: &mut Vec<u8>) {
        if self.tail.is_empty() {
            let tail = std::mem::take(&mut self.tail);
            // One that was large once is not everybody's for ever.
            if tail.capacity() > spare.capacity() && tail.capacity() <= SPARE_MAX {
                *spare = tail;
            }
        } else if self.tail.capacity() > KEPT_MAX + 2 * self.tail.len() {
            // A few bytes that are not taken keep no more than they need.
            self.tail.shrink_to_fit();
        }
    }

    /// All of it, for tests.
    #[cfg(any(test, feature = "fuzzing"))]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut all = Vec::new();
        let mut copy = Self { queue: self.queue.clone(), tail: self.tail.clone(), ..*self };
        copy.send(&mut all).expect("a vector takes it");
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a few bytes at a time, and now and then none.
    struct Slow(Vec<u8>, usize, usize);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.write_vectored(&[IoSlice::new(bytes)])
        }

        fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
            self.2 += 1;
            if self.2.is_multiple_of(3) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).take(self.1).collect();
            self.0.extend_from_slice(&bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn bytes_leave_in_their_order_however_few_are_taken_at_a_time() {
        for step in [1, 7, 1000, 16 << 10, 1 << 20] {
            let (mut out, mut wanted) = (Output::default(), Vec::new());
            let mut to = Slow(Vec::new(), step, 0);
            for round in 0..200_usize {
                let len = if round % 5 == 0 && step > 500 { SHARED_MIN + round } else { round };
                let bytes = Bytes::from(vec![round as u8; len]);
                out.put(b"<");
                out.put_shared(&bytes);
                wanted.push(b'<');
                wanted.extend_from_slice(&bytes);
                let left = wanted.len() - to.0.len();
                assert_eq!(out.len(), left);
                if round % 7 == 0 {
                    out.send(&mut to).expect("taken");
                }
            }
            while !out.send(&mut to).expect("taken") {}
            assert!(to.0 == wanted && out.is_empty(), "{step}");
            assert_eq!(out.queued + out.sent, 0);
        }
    }

    #[test]
    fn many_small_values_are_copied_up_to_a_bound_and_then_shared() {
        let value = Bytes::from(vec![1; SHARED_MIN - 1]);
        let mut out = Output::default();
        for _ in 0..10_000 {
            out.put_shared(&value);
        }
        assert_eq!(out.len(), 10_000 * value.len());
        assert!(out.own_len() < 4 << 20, "`{}` bytes are held for values that others have", out.own_len());
    }

    #[test]
    fn what_nobody_else_has_is_counted_as_held() {
        let mut out = Output::default();
        out.put_shared(&Bytes::from(vec![1; 5 << 20]));
        assert!((5 << 20..6 << 20).contains(&out.own_len()), "{}", out.own_len());
        let mut all = Vec::new();
        assert!(out.send(&mut all).expect("taken"));
        assert_eq!((out.own_len(), all.len()), (0, 5 << 20));
    }

    #[test]
    fn of_memory_that_is_lent_an_output_keeps_little_more_than_it_needs() {
        let mut spare = Vec::with_capacity(1 << 20);
        let mut out = Output::default();
        out.lend(&mut spare);
        out.put(b"abc");
        assert_eq!(out.own_len_lent(), 3, "what is lent is not its own");
        out.give_back(&mut spare);
        assert!(out.own_len() <= 3 + KEPT_MAX, "{}", out.own_len());
        let mut spare = Vec::with_capacity(1 << 20);
        let mut out = Output::default();
        out.lend(&mut spare);
        out.put_shared(&Bytes::from(vec![1; SHARED_MIN]));
        out.give_back(&mut spare);
        assert_eq!((out.len(), spare.capacity()), (SHARED_MIN, 1 << 20));
    }

    #[test]
    fn a_large_value_is_not_copied() {
        let value = Bytes::from(vec![1; SHARED_MIN]);
        let mut out = Output::default();
        out.put(b"a");
        out.put_shared(&value);
        assert!(!value.is_unique() && out.queue[1].0.as_ptr() == value.as_ptr());
    }
}
