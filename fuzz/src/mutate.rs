//! Spoils inputs at random, by seed: what libFuzzer does blindly, without what it learns from coverage.

/// Numbers at which lengths, counts and kinds tend to change their meaning.
const EDGES: [u64; 14] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 32,
    i64::MAX as u64,
    u64::MAX - 1,
    u64::MAX,
];

/// Longest input that it makes.
const LEN_MAX: usize = 16 << 10;

/// A source of spoilt inputs: the same for the same seed.
#[derive(Clone, Debug)]
pub struct Mutator(u64);

impl Mutator {
    /// The one of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// `SplitMix64` (Steele, Lea, Flood 2014).
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `n`, or 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// `input` with one to eight changes; `other` lends it pieces.
    pub fn spoil(&mut self, input: &[u8], other: &[u8]) -> Vec<u8> {
        let mut bytes = input.to_vec();
        for _ in 0..=self.below(8) {
            self.change(&mut bytes, other);
        }
        bytes.truncate(LEN_MAX);
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(bytes.len() + 1);
        let n = self.below(bytes.len() - at + 1).min(1 << self.below(9));
        match self.below(9) {
            0 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << self.below(8);
                }
            }
            1 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = self.next() as u8;
                }
            }
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..at + n)),
            4 => {
                let again = bytes[at..at + n].to_vec();
                drop(bytes.splice(at..at, again));
            }
            5 => {
                let from = self.below(other.len() + 1);
                let len = self.below(other.len() - from + 1);
                drop(bytes.splice(at..at + n, other[from..from + len].iter().copied()));
            }
            6 => {
                let width = 1 << self.below(4);
                let edge = EDGES[self.below(EDGES.len())].to_le_bytes();
                let mut number = edge[..width].to_vec();
                if self.below(2) == 0 {
                    number.reverse();
                }
                drop(bytes.splice(at..(at + width).min(bytes.len()), number));
            }
            7 => {
                let varint = varint(EDGES[self.below(EDGES.len())]);
                drop(bytes.splice(at..at + n.min(1), varint));
            }
            _ => {
                let random: Vec<u8> = (0..=self.below(16)).map(|_| self.next() as u8).collect();
                drop(bytes.splice(at..at, random));
            }
        }
    }
}

/// As protobuf writes a number.
fn varint(mut n: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while n >= 0x80 {
        bytes.push(n as u8 | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8);
    bytes
}
