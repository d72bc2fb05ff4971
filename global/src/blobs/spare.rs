//! The buffers of one reader, used again: fresh ones would have to be zeroed, and their pages found.
//!
//! Invariants: at most a given number is kept; each counts as memory, lent or kept, and is freed with its
//! reader or after it.

use super::stats::{Buffer, Gauge};
use parking_lot::Mutex;
use std::sync::{Arc, Weak};

/// Buffers of one length.
#[derive(Debug)]
pub(super) struct Spares {
    kept: Arc<Kept>,
    len: usize,
    gauge: Gauge,
}

#[derive(Debug)]
struct Kept {
    max: usize,
    buffers: Mutex<Vec<Buffer>>,
}

impl Spares {
    /// Keeps at most `max` buffers of `len` bytes.
    pub(super) fn new(max: usize, len: usize, gauge: &Gauge) -> Self {
        let kept = Arc::new(Kept { max, buffers: Mutex::default() });
        Self { kept, len, gauge: gauge.clone() }
    }

    /// A buffer of any content.
    pub(super) fn take(&self) -> Lent {
        let spare = self.kept.buffers.lock().pop();
        let buffer = spare.unwrap_or_else(|| Buffer::zeros(self.len, &self.gauge));
        Lent { buffer: Some(buffer), home: Arc::downgrade(&self.kept) }
    }
}

/// A buffer that comes back when it is dropped.
#[derive(Debug)]
pub(super) struct Lent {
    /// `None` only while it is dropped.
    buffer: Option<Buffer>,
    home: Weak<Kept>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        self.buffer.as_ref().expect("only drop takes the buffer").as_ref()
    }
}

impl AsMut<[u8]> for Lent {
    fn as_mut(&mut self) -> &mut [u8] {
        self.buffer.as_mut().expect("only drop takes the buffer").as_mut()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(home) = self.home.upgrade() else { return };
        let mut buffers = home.buffers.lock();
        if buffers.len() < home.max {
            buffers.extend(self.buffer.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_and_freed_with_its_reader_or_after_it() {
        let gauge = Gauge::default();
        let spares = Spares::new(1, 10, &gauge);
        let (mut a, b) = (spares.take(), spares.take());
        a.as_mut()[0] = 7;
        drop(a);
        drop(b);
        assert_eq!(gauge.now(), 10, "one is kept");
        let again = spares.take();
        assert_eq!(again.as_ref()[0], 7);
        assert_eq!(gauge.now(), 10);
        drop(spares);
        assert_eq!(gauge.now(), 10, "it is still lent");
        drop(again);
        assert_eq!(gauge.now(), 0);
    }
}
