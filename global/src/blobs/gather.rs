//! The piece of an upload that gathers: long parts as they came, short ones copied together.
//!
//! Invariants: a piece has at most [`PIECE`] bytes, in at most some thirty parts. What it keeps alive is
//! bounded by what it holds: a short part could keep a whole frame, so it is copied.
//! Must never wait or touch a disk.

use super::stats::{Buffer, Charge, Gauge};
use bytes::Bytes;

/// Bytes of a piece: large enough for a disk to be quick.
pub(super) const PIECE: usize = 1 << 20;
/// Bytes of a part that is kept as it came: a fourth of the frame that it may keep alive.
const WHOLE_MIN: usize = 64 << 10;

/// Bytes that were gathered, counted while they live.
#[derive(Debug, Default)]
pub(super) struct Piece {
    parts: Vec<Bytes>,
    len: usize,
    charges: Vec<Charge>,
}

impl Piece {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The bytes in order.
    pub(super) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.parts.iter().map(|part| &part[..])
    }
}

/// The piece that gathers.
pub(super) struct Gathered {
    piece: Piece,
    /// Short parts after those of the piece.
    short: Vec<u8>,
    short_charge: Charge,
    /// Room to make for a first short part.
    first: usize,
    gauge: Gauge,
}

impl Gathered {
    pub(super) fn new(gauge: &Gauge, hint: u64) -> Self {
        let first = hint.min(PIECE as u64) as usize;
        let (gauge, short_charge) = (gauge.clone(), gauge.charge(0));
        Self { piece: Piece::default(), short: Vec::new(), short_charge, first, gauge }
    }

    pub(super) fn len(&self) -> usize {
        self.piece.len + self.short.len()
    }

    /// Takes as much of `from` as the piece has room for.
    pub(super) fn take_from(&mut self, from: &mut Bytes) {
        let part = from.split_to(from.len().min(PIECE - self.len()));
        if part.len() >= WHOLE_MIN {
            self.close_short();
            self.piece.charges.push(self.gauge.charge(part.len()));
            self.push(part);
        } else {
            self.copy(&part);
        }
    }

    fn copy(&mut self, part: &[u8]) {
        let needed = self.short.len() + part.len();
        if needed > self.short.capacity() {
            let room = needed.max(self.short.capacity() * 2).max(self.first).min(PIECE - self.piece.len);
            self.short.reserve_exact(room - self.short.len());
            self.short_charge = self.gauge.charge(self.short.capacity());
        }
        self.short.extend_from_slice(part);
    }

    fn close_short(&mut self) {
        let short = std::mem::take(&mut self.short);
        self.short_charge = self.gauge.charge(0);
        if !short.is_empty() {
            self.push(Bytes::from_owner(Buffer::new(short, &self.gauge)));
        }
    }

    fn push(&mut self, part: Bytes) {
        self.piece.len += part.len();
        self.piece.parts.push(part);
    }

    /// The piece; the next one begins.
    pub(super) fn take(&mut self) -> Piece {
        self.close_short();
        std::mem::take(&mut self.piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_parts_are_kept_as_they_came_and_short_ones_copied_together_in_order() {
        let gauge = Gauge::default();
        let mut gathered = Gathered::new(&gauge, 0);
        let all: Bytes = (0..3 * PIECE).map(|i| (i * 31 % 251) as u8).collect::<Vec<_>>().into();
        let (mut rest, mut seen, mut kept) = (all.clone(), Vec::new(), 0);
        for len in [5, 70_000, 9, 3000, WHOLE_MIN, WHOLE_MIN - 1, PIECE, 1, PIECE].into_iter().cycle() {
            let mut from = rest.split_to(len.min(rest.len()));
            while !from.is_empty() {
                if gathered.len() == PIECE {
                    let piece = gathered.take();
                    assert_eq!(piece.len(), PIECE);
                    piece.parts().for_each(|part| seen.extend_from_slice(part));
                    kept += piece.parts().filter(|part| all.as_ptr_range().contains(&part.as_ptr())).count();
                }
                gathered.take_from(&mut from);
            }
            if rest.is_empty() {
                break;
            }
        }
        gathered.take().parts().for_each(|part| seen.extend_from_slice(part));
        assert!(seen == all, "all bytes, in order");
        assert!(kept >= 4, "`{kept}` parts were kept as they came");
        drop(gathered);
        assert_eq!(gauge.now(), 0);
    }
}
