//! The values that are set: each made from its number, so that whatever is read can be made again and compared.
//!
//! Invariant: no two numbers have the same bytes. Which number a hash has is remembered for a while only: for at least
//! [`REMEMBERED`] after it was last made or met.

use bytes::Bytes;
use dstore_shared::BlobHash;
use dstore_sim::register::Value;
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Longer than a name is called about.
const REMEMBERED: Duration = Duration::from_secs(150);

/// Numbers of values, and their hashes.
#[derive(Debug)]
pub struct Values {
    seed: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    next: Value,
    young: HashMap<BlobHash, Value>,
    old: HashMap<BlobHash, Value>,
    turned: Instant,
}

impl Values {
    pub fn new(seed: u64) -> Self {
        let state = State { next: 1, young: HashMap::new(), old: HashMap::new(), turned: Instant::now() };
        Self { seed, state: Mutex::new(state) }
    }

    /// A value that was never set.
    pub fn fresh(&self) -> (Value, Bytes) {
        let number = {
            let mut state = self.state.lock().expect("nobody panics with it");
            state.next += 1;
            state.next
        };
        (number, self.again(number))
    }

    /// The bytes of a number.
    pub fn again(&self, number: Value) -> Bytes {
        let bytes = bytes_of(self.seed, number);
        let mut state = self.state.lock().expect("nobody panics with it");
        state.turn();
        state.young.insert(BlobHash::of(&bytes), number);
        bytes
    }

    /// The number of a hash; `None` if nobody set such a value lately.
    pub fn number(&self, hash: &BlobHash) -> Option<Value> {
        let mut state = self.state.lock().expect("nobody panics with it");
        let number = state.young.get(hash).or_else(|| state.old.get(hash)).copied()?;
        state.young.insert(*hash, number);
        Some(number)
    }

    /// Whether `bytes` are those of `number`.
    pub fn are(&self, bytes: &[u8], number: Value) -> bool {
        bytes == bytes_of(self.seed, number)
    }
}

impl State {
    fn turn(&mut self) {
        if self.turned.elapsed() > REMEMBERED {
            self.old = std::mem::take(&mut self.young);
            self.turned = Instant::now();
        }
    }
}

/// The number, and then noise.
fn bytes_of(seed: u64, number: Value) -> Bytes {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).update(&number.to_le_bytes());
    let mut noise = hasher.finalize_xof();
    let mut draw = [0; 8];
    noise.fill(&mut draw);
    let mut bytes = vec![0; len(u64::from_le_bytes(draw))];
    noise.fill(&mut bytes);
    let own = number.to_le_bytes();
    bytes[..own.len()].copy_from_slice(&own);
    bytes.into()
}

/// Mostly small; one in some thousand is larger than a message, one in some hundred is staged.
fn len(draw: u64) -> usize {
    let within = |from: usize, to: usize| from + (draw >> 16) as usize % (to - from);
    match draw % 10_000 {
        0..=5 => 5 << 20,
        6..=29 => within(768 << 10, 2 << 20),
        30..=149 => within((64 << 10) + 1, 400 << 10),
        150..=999 => within(20 << 10, (64 << 10) + 1),
        1000..=2999 => within(1 << 10, 8 << 10),
        _ => within(8, 400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_known_by_its_hash_and_no_other_has_its_bytes() {
        let values = Values::new(7);
        let made: Vec<_> = (0..2000).map(|_| values.fresh()).collect();
        for (number, bytes) in &made {
            assert_eq!(values.number(&BlobHash::of(bytes)), Some(*number));
            assert!(values.are(bytes, *number) && !values.are(bytes, number + 1));
        }
        let hashes: std::collections::HashSet<_> = made.iter().map(|(_, b)| BlobHash::of(b)).collect();
        assert_eq!(hashes.len(), made.len());
        assert_eq!(values.number(&BlobHash::of(b"nobody's")), None);
        let (small, large) =
            (made.iter().map(|(_, b)| b.len()).min(), made.iter().map(|(_, b)| b.len()).max());
        assert!(small < Some(100) && large > Some(64 << 10), "{small:?} {large:?}");
    }
}
