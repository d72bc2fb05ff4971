//! What a prompt remembers of keys: which there are and how large their values are, for completion and hints.
//!
//! Filled from answers, from a walk over the list of keys and from a watch, all of them beside the prompt: a keystroke
//! reads this memory and asks nobody. Invariants: at most [`KEYS_MAX`] keys of [`BYTES_MAX`] bytes; a look takes time in
//! proportion to what it gives, not to what is remembered; nothing here is promised to be right.

use dstore_proto::store::Peek;
use dstore_shared::Key;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

/// Keys remembered.
pub const KEYS_MAX: usize = 1_000_000;
/// Bytes of keys remembered.
pub const BYTES_MAX: usize = 64 << 20;

/// Asks the node in this process.
pub type AskNode = Arc<dyn Fn(&Key) -> Peek + Send + Sync>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Seen {
    size: u64,
    /// The node said that it holds it, when it was asked last.
    local: bool,
}

#[derive(Default)]
struct Memory {
    keys: BTreeMap<Box<[u8]>, Seen>,
    bytes: usize,
}

/// The memory. Clones share it.
#[derive(Clone, Default)]
pub struct Keys {
    memory: Arc<Mutex<Memory>>,
    /// Asks the node, if it is in this process.
    peek: Option<AskNode>,
    /// Nobody would look.
    idle: bool,
}

/// What is known of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Known {
    /// Bytes of its value.
    pub size: Option<u64>,
    /// Whether the node holds it; `None`: it did not say.
    pub local: Option<bool>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.memory.lock().keys.len())
    }
}

impl Keys {
    /// A memory that keeps nothing: nobody types.
    pub fn idle() -> Self {
        Self { idle: true, ..Self::default() }
    }

    /// An empty memory; `peek` tells what the node holds without asking anybody.
    pub fn new(peek: AskNode) -> Self {
        Self { peek: Some(peek), ..Self::default() }
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.memory.lock().keys.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is room for more.
    pub fn has_room(&self) -> bool {
        let memory = self.memory.lock();
        !self.idle && memory.keys.len() < KEYS_MAX && memory.bytes < BYTES_MAX
    }

    /// An answer told of it.
    pub fn saw(&self, key: Option<&Key>, size: u64, local: bool) {
        if let Some(key) = key {
            self.learn([(key, size)], Some(local));
        }
    }

    /// There are these, with values of so many bytes; `local`: whether the node said that it holds them.
    pub fn learn<'a>(&self, keys: impl IntoIterator<Item = (&'a Key, u64)>, local: Option<bool>) {
        if self.idle {
            return;
        }
        let mut memory = self.memory.lock();
        for (key, size) in keys {
            if let Some(seen) = memory.keys.get_mut(key.as_bytes()) {
                *seen = Seen { size, local: local.unwrap_or(seen.local && seen.size == size) };
            } else if memory.keys.len() < KEYS_MAX && memory.bytes + key.as_bytes().len() <= BYTES_MAX {
                memory.bytes += key.as_bytes().len();
                memory.keys.insert(key.as_bytes().into(), Seen { size, local: local.unwrap_or(false) });
            }
        }
    }

    /// It is there no more.
    pub fn gone(&self, key: &Key) {
        let mut memory = self.memory.lock();
        if memory.keys.remove(key.as_bytes()).is_some() {
            memory.bytes -= key.as_bytes().len();
        }
    }

    /// All that begin with `prefix` are there no more.
    pub fn gone_under(&self, prefix: &[u8]) {
        let mut memory = self.memory.lock();
        let gone: Vec<Box<[u8]>> = range(&memory, prefix).map(|(key, _)| key.clone()).collect();
        for key in gone {
            memory.bytes -= key.len();
            memory.keys.remove(&key);
        }
    }

    /// The node does not hold it any more.
    pub fn evicted(&self, key: &Key) {
        if let Some(seen) = self.memory.lock().keys.get_mut(key.as_bytes()) {
            seen.local = false;
        }
    }

    /// Up to `max` keys that begin with `prefix`, in byte order: the first ones, and the last one. What all of them have in
    /// common is what the first and the last have in common.
    pub fn begin(&self, prefix: &[u8], max: usize) -> Vec<Box<[u8]>> {
        let memory = self.memory.lock();
        let mut found: Vec<Box<[u8]>> =
            range(&memory, prefix).take(max).map(|(key, _)| key.clone()).collect();
        if found.len() == max
            && let (Some(end), Some(place)) = (last(&memory, prefix), found.last_mut())
        {
            *place = end;
        }
        found
    }

    /// What is known of `key`; `None`: nothing.
    pub fn known(&self, key: &[u8]) -> Option<Known> {
        let seen = self.memory.lock().keys.get(key).copied();
        let peeked = match (&self.peek, Key::new(key.to_vec())) {
            (Some(peek), Ok(key)) => peek(&key),
            _ => Peek::Unknown,
        };
        match (peeked, seen) {
            (Peek::Held(size), _) => Some(Known { size: Some(size), local: Some(true) }),
            (Peek::Absent, Some(seen)) => Some(Known { size: Some(seen.size), local: Some(false) }),
            (Peek::Unknown, Some(seen)) => {
                Some(Known { size: Some(seen.size), local: seen.local.then_some(true) })
            }
            (_, None) => None,
        }
    }
}

/// The last key that begins with `prefix`: the last one before what follows all of them.
fn last(memory: &Memory, prefix: &[u8]) -> Option<Box<[u8]>> {
    let cut = prefix.iter().rposition(|b| *b != 0xff);
    let end: Option<Vec<u8>> = cut.map(|at| [&prefix[..at], &[prefix[at] + 1]].concat());
    let bound = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let mut before = memory.keys.range::<[u8], _>((Bound::Unbounded, bound));
    before.next_back().map(|(key, _)| key.clone()).filter(|key| key.starts_with(prefix))
}

fn range<'a>(memory: &'a Memory, prefix: &'a [u8]) -> impl Iterator<Item = (&'a Box<[u8]>, &'a Seen)> {
    let from = (Bound::Included(prefix), Bound::Unbounded);
    memory.keys.range::<[u8], _>(from).take_while(move |(key, _)| key.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::new(text.to_owned()).expect("valid")
    }

    #[test]
    fn a_look_gives_what_begins_so_and_no_more_than_was_asked_for() {
        let keys = Keys::default();
        for n in 0..1000 {
            keys.saw(Some(&key(&format!("user:{n:03}"))), n, n == 7);
        }
        keys.saw(Some(&key("other")), 1, false);
        let found = keys.begin(b"user:00", 64);
        assert_eq!(found.len(), 10);
        assert_eq!(keys.begin(b"", 64).len(), 64);
        assert_eq!(keys.begin(b"zzz", 64).len(), 0);
        let known = |text: &str| keys.known(text.as_bytes());
        assert_eq!(known("user:007"), Some(Known { size: Some(7), local: Some(true) }));
        assert_eq!(known("user:008"), Some(Known { size: Some(8), local: None }));
        assert_eq!(known("nope"), None);
        keys.evicted(&key("user:007"));
        assert_eq!(known("user:007").and_then(|known| known.local), None);
        keys.gone_under(b"user:0");
        keys.gone(&key("other"));
        assert_eq!(keys.len(), 900);
        assert_eq!(keys.memory.lock().bytes, 900 * 8);
    }

    #[test]
    fn a_node_in_this_process_is_believed_more_than_the_memory() {
        let held = |key: &Key| if key.as_bytes() == b"a" { Peek::Held(5) } else { Peek::Absent };
        let keys = Keys::new(Arc::new(held));
        keys.saw(Some(&key("a")), 1, false);
        keys.saw(Some(&key("b")), 9, true);
        assert_eq!(keys.known(b"a"), Some(Known { size: Some(5), local: Some(true) }));
        assert_eq!(keys.known(b"b"), Some(Known { size: Some(9), local: Some(false) }));
    }

    #[test]
    fn a_memory_that_nobody_looks_at_stays_empty() {
        let keys = Keys::idle();
        keys.saw(Some(&key("a")), 1, false);
        assert!(keys.is_empty() && !keys.has_room());
    }

    #[test]
    fn no_more_keys_are_remembered_than_there_is_room_for() {
        let keys = Keys::default();
        let long = |n: usize| key(&format!("{n:01024}"));
        for n in 0..BYTES_MAX / 1024 + 10 {
            keys.saw(Some(&long(n)), 1, false);
        }
        assert_eq!(keys.len(), BYTES_MAX / 1024);
        assert!(!keys.has_room());
    }
}
