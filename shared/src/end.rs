//! The end of a name's time.

use std::fmt;

/// A moment of journal time at which a name expires, in milliseconds since 1970, from 1 on.
///
/// Eight bytes, with values to spare: so that neither an [`Entry`](crate::Entry) with an end and a content type that are
/// mostly absent, nor one that is itself optional, takes more than one that had only an end. 56 bits are two million
/// years; what is later ends then.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct End {
    /// Most significant byte first, so that the order is that of the moments.
    ms: [u8; 7],
    mark: Mark,
}

/// A byte that says nothing: all its other values tell what is optional apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
enum Mark {
    End = 1,
}

impl End {
    /// The latest there is.
    pub const MAX: Self = Self { ms: [u8::MAX; 7], mark: Mark::End };

    /// That of these milliseconds; none for 0.
    pub const fn new(ms: u64) -> Option<Self> {
        if ms == 0 {
            return None;
        }
        Some(match ms.to_be_bytes() {
            [0, ms @ ..] => Self { ms, mark: Mark::End },
            _ => Self::MAX,
        })
    }

    /// Its milliseconds.
    pub const fn get(self) -> u64 {
        let mut bytes = [0; 8];
        bytes.split_at_mut(1).1.copy_from_slice(&self.ms);
        u64::from_be_bytes(bytes)
    }
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_its_milliseconds_in_eight_bytes_with_room_to_spare() {
        let all = [1, 2, 255, 256, 1_700_000_000_000, (1 << 56) - 1];
        for ms in all {
            assert_eq!(End::new(ms).map(End::get), Some(ms));
        }
        assert!(all.map(End::new).is_sorted());
        assert_eq!(
            (End::new(0), End::new(1 << 56), End::new(u64::MAX)),
            (None, Some(End::MAX), Some(End::MAX))
        );
        assert_eq!((size_of::<End>(), size_of::<Option<Option<End>>>()), (8, 8));
    }
}
