//! Owns where SCANs go on: a cursor is a number, a place among keys is a key.
//!
//! Invariants: bounded; the oldest cursor is forgotten for a new one. A cursor may be used again, by any connection of
//! this Local.

use dstore_shared::Key;
use parking_lot::Mutex;
use std::collections::HashMap;

/// Cursors that are kept: with the longest keys some 4 MiB.
const CURSORS_MAX: u64 = 4096;

/// Where SCANs go on.
#[derive(Debug)]
pub struct Cursors(Mutex<Kept>);

#[derive(Debug)]
struct Kept {
    next: u64,
    keys: HashMap<u64, Key>,
}

impl Cursors {
    /// None yet. `first` is drawn by chance, so that the cursors of two Locals are not the same.
    pub fn new(first: u64) -> Self {
        // Some clients read a cursor as a signed number, some as a double.
        let next = (first >> 13) | 1;
        Self(Mutex::new(Kept { next, keys: HashMap::new() }))
    }

    /// A cursor to go on after `key`.
    pub fn keep(&self, key: Key) -> u64 {
        let mut kept = self.0.lock();
        let cursor = kept.next;
        kept.next += 1;
        kept.keys.remove(&cursor.wrapping_sub(CURSORS_MAX));
        kept.keys.insert(cursor, key);
        cursor
    }

    /// After which key a cursor goes on.
    pub fn find(&self, cursor: u64) -> Option<Key> {
        self.0.lock().keys.get(&cursor).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_found_again_until_many_more_were_given() {
        let cursors = Cursors::new(u64::MAX);
        let key = |n: u64| Key::new(n.to_string()).expect("valid");
        let first = cursors.keep(key(0));
        for n in 1..CURSORS_MAX {
            cursors.keep(key(n));
        }
        assert_eq!(cursors.find(first), Some(key(0)));
        let last = cursors.keep(key(CURSORS_MAX));
        assert_eq!((cursors.find(first), cursors.find(last)), (None, Some(key(CURSORS_MAX))));
        assert_eq!(cursors.0.lock().keys.len() as u64, CURSORS_MAX);
        assert!(last < 1 << 53);
    }
}
