//! How a worker asks its node for shared memory: the frames of the attach socket, byte by byte in `docs/PROTOCOL.md`.
//!
//! ```text
//! worker -> node   HELLO, 96 bytes
//! node -> worker   WELCOME, 256 bytes; if it says ATTACHED, descriptors follow as ancillary data
//! worker -> node   MORE, 8 bytes, whenever the node has segments that the worker lacks; descriptors follow
//! ```
//! Invariants: every frame has one length whatever it says, so that nobody waits for what a wrong length promised; all
//! numbers are little-endian. Nothing is read from a frame of another version but magic and version.
//! It must never panic on, or allocate for, what a peer sends.

use dstore_shared::{Error, Moment, Namespace, Result};

/// The version of these frames.
pub const VERSION: u32 = 1;
/// Bytes of HELLO.
pub const HELLO_BYTES: usize = 96;
/// Bytes of WELCOME.
pub const WELCOME_BYTES: usize = 256;
/// Bytes of MORE.
pub const MORE_BYTES: usize = 8;

const MAGIC: [u8; 8] = *b"dstShare";
const NAMESPACE_AT: usize = 32;
const TEXT_AT: usize = 32;
const MORE: u32 = 1;

/// The first frame of a worker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// The layout of shared memory that it knows.
    pub layout: u32,
    /// `CLOCK_BOOTTIME` as it read it just before.
    pub now: Moment,
    /// What it wants to read.
    pub namespace: Namespace,
}

/// What becomes of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Verdict {
    /// Descriptors follow.
    Attached = 0,
    /// HELLO is not one, or of another version.
    Version = 1,
    /// The memory has another layout than the worker knows.
    Layout = 2,
    /// The namespace is none.
    Namespace = 3,
    /// The two clocks are not one: a worker in another time namespace could think a lease valid that is over.
    Clock = 4,
    /// There are too many workers, or namespaces of workers.
    Exhausted = 5,
    /// There is no such memory here.
    Unsupported = 6,
}

impl Verdict {
    fn of(code: u32) -> Option<Self> {
        use Verdict::{Attached, Clock, Exhausted, Layout, Namespace, Unsupported, Version};
        [Attached, Version, Layout, Namespace, Clock, Exhausted, Unsupported]
            .into_iter()
            .find(|verdict| *verdict as u32 == code)
    }
}

/// The node's answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// What becomes of the worker.
    pub verdict: Verdict,
    /// `CLOCK_BOOTTIME` as the node read it between HELLO and this.
    pub now: Moment,
    /// The worker's number.
    pub worker: u64,
    /// Why not, and what to do, for people; at most 224 bytes.
    pub text: String,
}

fn take<const N: usize>(frame: &[u8], at: usize) -> [u8; N] {
    frame.get(at..at + N).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; N])
}

fn number(frame: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(take(frame, at))
}

fn large(frame: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(take(frame, at))
}

/// The bytes of a field before its padding.
fn unpadded(field: &[u8]) -> &[u8] {
    let len = field.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    &field[..len]
}

impl Hello {
    /// As it is sent.
    pub fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut frame = [0; HELLO_BYTES];
        frame[..8].copy_from_slice(&MAGIC);
        frame[8..12].copy_from_slice(&VERSION.to_le_bytes());
        frame[12..16].copy_from_slice(&self.layout.to_le_bytes());
        frame[16..24].copy_from_slice(&self.now.as_nanos().to_le_bytes());
        let name = self.namespace.as_bytes();
        frame[NAMESPACE_AT..NAMESPACE_AT + name.len()].copy_from_slice(name);
        frame
    }

    /// Reads one.
    ///
    /// # Errors
    /// What to answer instead of attaching, and why.
    pub fn decode(frame: &[u8; HELLO_BYTES]) -> std::result::Result<Self, (Verdict, String)> {
        if frame[..8] != MAGIC {
            return Err((
                Verdict::Version,
                "this is the socket for shared memory: nothing else is spoken here".into(),
            ));
        }
        let version = number(frame, 8);
        if version != VERSION {
            let text = format!(
                "the worker speaks version `{version}`, the node `{VERSION}`: update the older of the two"
            );
            return Err((Verdict::Version, text));
        }
        let namespace = Namespace::new(unpadded(&frame[NAMESPACE_AT..]).to_vec());
        let namespace = namespace.map_err(|e| (Verdict::Namespace, e.message().to_owned()))?;
        Ok(Self { layout: number(frame, 12), now: Moment::from_nanos(large(frame, 16)), namespace })
    }
}

impl Welcome {
    /// As it is sent; a text that is too long is cut.
    pub fn encode(&self) -> [u8; WELCOME_BYTES] {
        let mut frame = [0; WELCOME_BYTES];
        frame[..8].copy_from_slice(&MAGIC);
        frame[8..12].copy_from_slice(&VERSION.to_le_bytes());
        frame[12..16].copy_from_slice(&(self.verdict as u32).to_le_bytes());
        frame[16..24].copy_from_slice(&self.now.as_nanos().to_le_bytes());
        frame[24..32].copy_from_slice(&self.worker.to_le_bytes());
        let fits = |len: &usize| self.text.is_char_boundary(*len);
        let len = (0..=self.text.len().min(WELCOME_BYTES - TEXT_AT)).rev().find(fits).unwrap_or(0);
        frame[TEXT_AT..TEXT_AT + len].copy_from_slice(&self.text.as_bytes()[..len]);
        frame
    }

    /// Reads one.
    ///
    /// # Errors
    /// `Invalid` if it is none, or of another version.
    pub fn decode(frame: &[u8; WELCOME_BYTES]) -> Result<Self> {
        if frame[..8] != MAGIC {
            return Err(Error::invalid("this is no socket for shared memory: correct its path"));
        }
        let text = String::from_utf8_lossy(unpadded(&frame[TEXT_AT..])).into_owned();
        let version = number(frame, 8);
        let verdict = Verdict::of(number(frame, 12)).filter(|_| version == VERSION);
        let Some(verdict) = verdict else {
            return Err(Error::invalid(format!(
                "the node speaks version `{version}`, this worker `{VERSION}`: update the older of the two"
            )));
        };
        let now = Moment::from_nanos(large(frame, 16));
        Ok(Self { verdict, now, worker: large(frame, 24), text })
    }
}

/// The question for segments from number `from` on.
pub fn more(from: u32) -> [u8; MORE_BYTES] {
    let mut frame = [0; MORE_BYTES];
    frame[..4].copy_from_slice(&MORE.to_le_bytes());
    frame[4..].copy_from_slice(&from.to_le_bytes());
    frame
}

/// From which segment on the worker wants them; `None`: it asks for something else.
pub fn read_more(frame: &[u8; MORE_BYTES]) -> Option<u32> {
    (number(frame, 0) == MORE).then(|| number(frame, 4))
}

/// Whether the two read one clock, as far as that can be told: what was read between two readings lies between them.
pub fn is_one_clock(before: Moment, between: Moment, after: Moment) -> bool {
    before <= between && between <= after
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        let namespace = Namespace::new("models.v2").expect("valid");
        Hello { layout: 1, now: Moment::from_nanos(0x0102_0304_0506_0708), namespace }
    }

    fn welcome() -> Welcome {
        let now = Moment::from_nanos(0x0102_0304_0506_0709);
        Welcome { verdict: Verdict::Exhausted, now, worker: 7, text: "too many workers".into() }
    }

    fn unhex(digits: &str) -> Vec<u8> {
        let digit = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex");
        (0..digits.len()).step_by(2).map(digit).collect()
    }

    #[test]
    fn the_frames_are_those_of_the_golden_file() {
        let golden: Vec<(&str, Vec<u8>)> = include_str!("golden-v1-shm.txt")
            .lines()
            .map(|line| line.split_once(' ').expect("a name and digits"))
            .map(|(name, digits)| (name, unhex(digits)))
            .collect();
        let frames = [
            ("HELLO", hello().encode().to_vec()),
            ("WELCOME", welcome().encode().to_vec()),
            ("MORE", more(3).to_vec()),
        ];
        assert_eq!(golden, frames, "the frames of version 1 do not change");
    }

    #[test]
    fn frames_read_back_and_others_are_told_apart() {
        assert_eq!(Hello::decode(&hello().encode()), Ok(hello()));
        assert_eq!(Welcome::decode(&welcome().encode()).expect("a welcome"), welcome());
        assert_eq!((read_more(&more(9)), read_more(&[9; 8])), (Some(9), None));
        let changed = |at: usize, byte: u8| {
            let mut frame = hello().encode();
            frame[at] = byte;
            Hello::decode(&frame).expect_err("changed").0
        };
        assert_eq!((changed(0, b'D'), changed(8, 2)), (Verdict::Version, Verdict::Version));
        assert_eq!((changed(32, b'M'), changed(95, b'x')), (Verdict::Namespace, Verdict::Namespace));
        let mut newer = welcome().encode();
        newer[8] = 2;
        assert!(Welcome::decode(&newer).expect_err("newer").message().contains("version `2`"));
        newer[0] = 0;
        assert!(
            Welcome::decode(&newer).expect_err("foreign").message().contains("no socket for shared memory")
        );
    }

    #[test]
    fn a_long_text_is_cut_between_characters_and_no_bytes_are_a_panic() {
        let long = Welcome { text: "ä".repeat(200), ..welcome() };
        assert_eq!(Welcome::decode(&long.encode()).expect("cut").text, "ä".repeat(112));
        for fill in 0..=255 {
            let _ = Hello::decode(&[fill; HELLO_BYTES]);
            let _ = Welcome::decode(&[fill; WELCOME_BYTES]);
        }
    }

    #[test]
    fn another_clock_shows() {
        let at = Moment::from_nanos;
        assert!(is_one_clock(at(5), at(5), at(6)));
        assert!(!is_one_clock(at(5), at(4), at(6)) && !is_one_clock(at(5), at(7), at(6)));
    }
}
