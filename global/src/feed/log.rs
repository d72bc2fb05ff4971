//! Owns the events that are remembered: chunks of them, the newest open to be appended to.
//!
//! Events are copied into a chunk's two arenas instead of shared: that costs less than counting references on two
//! threads, says exactly how much memory they take, and gives it back by the chunk.

use crate::change::{Change, Commit};
use bytes::Bytes;
use dstore_proto::watch::{Event, Happened, Seen, too_old};
use dstore_shared::limits::{WATCH_BYTES_MAX, WATCH_EVENTS_MAX};
use dstore_shared::{Entry, Error, Key, Name, Result, Revision};
use std::collections::VecDeque;
use std::sync::Arc;

/// How much is remembered.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Events, and so revisions that are about names.
    pub events: usize,
    /// Bytes that they take.
    pub bytes: usize,
    /// Events of a chunk: what is read under the lock, and forgotten at once.
    pub chunk: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // About 500,000 events with keys of 20 bytes; 1,000 events are read in some microseconds.
        Self { events: 1 << 20, bytes: 64 << 20, chunk: 1024 }
    }
}

/// Bytes of names after which a chunk is whole though it has few events.
const CHUNK_NAME_BYTES: usize = 128 << 10;
/// What an event takes in a message besides its key.
const EVENT_BYTES: usize = 96;
/// What a content type takes in memory besides its bytes: two allocations, and what counts and points.
const TYPE_OVERHEAD: usize = 64;

/// What a name was bound to that a commit unbinds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unbound {
    /// Of the commit.
    pub revision: Revision,
    /// The name.
    pub name: Name,
    /// What it was bound to.
    pub was: Entry,
}

/// What is remembered: every event of the revisions above the floor up to the head.
#[derive(Debug)]
pub struct Log {
    limits: Limits,
    whole: VecDeque<Arc<Chunk>>,
    open: Chunk,
    floor: Revision,
    head: Revision,
    events: usize,
    bytes: usize,
}

/// Consecutive events.
#[derive(Default, Debug)]
pub struct Chunk {
    /// Number of the first, counted since the log began.
    first: u64,
    events: Vec<Row>,
    names: Vec<u8>,
    /// Bytes of the content types of what it tells, which others may share.
    types: usize,
}

#[derive(Debug)]
struct Row {
    revision: Revision,
    at_ms: u64,
    /// Of its name, in the chunk's names: where it ends, and the one before ended.
    ends: u32,
    bound: bool,
    entry: Option<Entry>,
}

/// Where a watcher is.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    after: Revision,
    /// The number of the event that he looks at next; unknown before the first look.
    next: Option<u64>,
}

impl Place {
    /// Right behind everything of a revision.
    pub fn after(after: Revision) -> Self {
        Self { after, next: None }
    }
}

/// What a watcher wants.
#[derive(Debug)]
pub struct Wanted {
    /// Of packed names.
    pub prefix: Bytes,
    /// Where the key begins in them.
    pub key_at: usize,
}

/// What still fits a batch.
#[derive(Debug)]
pub struct Room {
    /// Events.
    pub events: usize,
    /// Bytes of keys and entries.
    pub bytes: usize,
}

/// What a watcher is to do next.
#[derive(Debug)]
pub enum Part {
    /// Read this chunk, without the lock; what follows it has this revision, or everything up to this head was in it.
    Whole(Arc<Chunk>, After),
    /// There is no more, or no room.
    End,
}

/// What follows a chunk.
#[derive(Clone, Copy, Debug)]
pub enum After {
    /// An event of this revision.
    Event(Revision),
    /// No event up to this head.
    Nothing(Revision),
}

impl After {
    /// Everything that is complete when what is before this was read.
    fn through(self) -> Revision {
        match self {
            Self::Event(revision) => Revision(revision.0 - 1),
            Self::Nothing(head) => head,
        }
    }
}

impl Log {
    /// A log that knows nothing of what was up to `head`.
    pub fn new(head: Revision, limits: Limits) -> Self {
        let open = Chunk::default();
        Self { limits, whole: VecDeque::new(), open, floor: head, head, events: 0, bytes: 0 }
    }

    /// The newest revision of which it tells.
    pub fn head(&self) -> Revision {
        self.head
    }

    /// What may be watched after, at the earliest.
    pub fn floor(&self) -> Revision {
        self.floor
    }

    /// How many events are remembered.
    pub fn events(&self) -> usize {
        self.events
    }

    /// Bytes that the events take.
    pub fn bytes(&self) -> usize {
        self.bytes + self.open.bytes()
    }

    /// Takes `bytes` at most from now on; gives what it forgets.
    pub fn limit(&mut self, bytes: usize) -> Vec<Arc<Chunk>> {
        self.limits.bytes = bytes;
        self.evict()
    }

    /// Room for a whole batch.
    pub fn batch() -> Room {
        Room { events: WATCH_EVENTS_MAX, bytes: WATCH_BYTES_MAX }
    }

    /// Takes the next commits in.
    pub fn append(&mut self, commits: &[Commit], unbound: &[Unbound]) {
        let mut unbound = unbound.iter().peekable();
        for commit in commits {
            for change in &commit.changes {
                let (name, bound, entry) = match change {
                    Change::Bind { name, entry } | Change::Rebind { name, entry } => {
                        (name, true, Some(entry.clone()))
                    }
                    Change::Unbind { name } => {
                        let known = |u: &&Unbound| u.revision == commit.revision && u.name == *name;
                        (name, false, unbound.next_if(known).map(|unbound| unbound.was.clone()))
                    }
                    _ => continue,
                };
                if self.open.events.len() >= self.limits.chunk || self.open.names.len() >= CHUNK_NAME_BYTES {
                    self.close();
                }
                self.open.push(name.as_bytes(), (commit.revision, commit.at_ms), bound, entry);
                self.events += 1;
            }
            self.head = commit.revision;
        }
    }

    fn close(&mut self) {
        let next = Chunk { first: self.open.end(), ..Chunk::default() };
        let mut whole = std::mem::replace(&mut self.open, next);
        whole.events.shrink_to_fit();
        whole.names.shrink_to_fit();
        self.bytes += whole.bytes();
        self.whole.push_back(Arc::new(whole));
    }

    /// Forgets what is too much, the oldest chunks first; gives them to be dropped.
    pub fn evict(&mut self) -> Vec<Arc<Chunk>> {
        let mut gone = Vec::new();
        while self.bytes() > self.limits.bytes || self.events > self.limits.events {
            let Some(oldest) = self.whole.pop_front() else { break };
            self.bytes -= oldest.bytes();
            self.events -= oldest.events.len();
            // A watcher after this revision needs nothing of the chunk, though the next may begin with the same one.
            self.floor = oldest.events.last().map_or(self.floor, |row| row.revision);
            gone.push(oldest);
        }
        gone
    }

    /// The next part of the log for a watcher. What is at its open end is read here.
    ///
    /// # Errors
    /// `TooOld` if he is at what was forgotten.
    pub fn part(&self, place: &mut Place, wanted: &Wanted, room: &mut Room, seen: &mut Seen) -> Result<Part> {
        let oldest = self.whole.front().map_or(self.open.first, |chunk| chunk.first);
        let next = match place.next {
            Some(next) => next,
            None if place.after < self.floor => return Err(too_old(seen.through, self.floor)),
            None => self.number_after(place.after),
        };
        if next < oldest {
            return Err(too_old(seen.through, self.floor));
        }
        place.next = Some(next);
        if next >= self.open.first {
            self.open.read(place, wanted, room, seen, After::Nothing(self.head));
            return Ok(Part::End);
        }
        let at = self.whole.partition_point(|chunk| chunk.end() <= next);
        let follows = self.whole.get(at + 1).map_or(&self.open, |chunk| chunk);
        let follows =
            follows.events.first().map_or(After::Nothing(self.head), |row| After::Event(row.revision));
        Ok(Part::Whole(self.whole[at].clone(), follows))
    }

    /// The number of the first event after a revision.
    fn number_after(&self, after: Revision) -> u64 {
        let old = |chunk: &Chunk| chunk.events.last().is_none_or(|row| row.revision <= after);
        let at = self.whole.partition_point(|chunk| old(chunk));
        let chunk = self.whole.get(at).map_or(&self.open, |chunk| chunk);
        chunk.first + chunk.events.partition_point(|row| row.revision <= after) as u64
    }
}

impl Chunk {
    fn end(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    fn bytes(&self) -> usize {
        self.events.capacity() * size_of::<Row>() + self.names.capacity() + self.types
    }

    fn push(&mut self, name: &[u8], (revision, at_ms): (Revision, u64), bound: bool, entry: Option<Entry>) {
        self.names.extend_from_slice(name);
        let ends =
            u32::try_from(self.names.len()).expect("a chunk has 1,024 names of some 1,100 bytes at most");
        if let Some(words) = entry.as_ref().and_then(|entry| entry.content_type.as_ref()) {
            self.types += words.len() + TYPE_OVERHEAD;
        }
        self.events.push(Row { revision, at_ms, ends, bound, entry });
    }

    fn name(&self, i: usize) -> &[u8] {
        let begins = i.checked_sub(1).map_or(0, |before| self.events[before].ends);
        &self.names[begins as usize..self.events[i].ends as usize]
    }

    /// Copies what is wanted, from the watcher's place on, as long as there is room; true if it went to the end.
    pub fn read(
        &self,
        place: &mut Place,
        wanted: &Wanted,
        room: &mut Room,
        seen: &mut Seen,
        follows: After,
    ) -> bool {
        let next = place.next.unwrap_or(self.first);
        let from = usize::try_from(next.saturating_sub(self.first)).unwrap_or(usize::MAX);
        for i in from..self.events.len() {
            let row = &self.events[i];
            // A list may be of a revision that is visible and not in the log yet.
            if row.revision <= place.after || !self.name(i).starts_with(&wanted.prefix) {
                continue;
            }
            let content_type = row.entry.as_ref().map_or(0, Entry::type_len);
            if !room.take(self.name(i).len() - wanted.key_at + content_type) {
                place.next = Some(self.first + i as u64);
                seen.through = seen.through.max(After::Event(row.revision).through());
                return false;
            }
            match self.event(i, wanted.key_at) {
                Ok(event) => seen.events.push(event),
                // What was committed has a key that may be.
                Err(error) => tracing::error!(%error, "an event was left out of a watch: report this"),
            }
        }
        place.next = Some(self.end());
        seen.through = seen.through.max(follows.through());
        true
    }

    fn event(&self, i: usize, key_at: usize) -> Result<Event, Error> {
        let Row { revision, at_ms, bound, ref entry, .. } = self.events[i];
        let key = Key::new(Bytes::copy_from_slice(&self.name(i)[key_at..]))?;
        let happened = match (bound, entry.clone()) {
            (true, Some(entry)) => Happened::Bound(entry),
            (_, was) => Happened::Unbound(was),
        };
        Ok(Event { revision, at_ms, key, happened })
    }
}

impl Room {
    fn take(&mut self, key: usize) -> bool {
        let bytes = key + EVENT_BYTES;
        if self.events == 0 || self.bytes < bytes {
            return false;
        }
        self.events -= 1;
        self.bytes -= bytes;
        true
    }
}
