//! Watchers: each reads Global's feed over a connection that breaks, and goes on after what it was told.
//!
//! ```text
//! connect (after what is whole) -> look: the feed's next part, a few events a batch -> arrives -> checked
//! ```
//! The feed is the one of production. A part of it that is not open any more is read some time after it was taken, as
//! by a thread that holds no lock.

use super::check::{Became, Due};
use super::config::Fault;
use super::keys;
use super::planted::Planted;
use super::rng::{MS, Time};
use super::world::{self, World};
use dstore_global::change::{Change, Commit};
use dstore_global::feed::{After, Chunk, Limits, Log, Part, Place, Room, Unbound, Wanted};
use dstore_proto::watch::Seen;
use dstore_shared::{Entry, Name, Prefix, Revision};
use std::sync::Arc;

/// Events of a part of the feed: few, so that a run has many parts.
pub(super) const CHUNK: usize = 3;

#[derive(Debug)]
pub(super) enum Event {
    Connect,
    /// Global looks at what is new, for this connection.
    Look(u64),
    /// It goes on with a part that it took before.
    Read(u64, Box<(Reader, Arc<Chunk>, After)>),
    /// A batch arrives; `None` = what follows is forgotten.
    Arrives(u64, Option<Seen>),
}

/// A connection as Global has it.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    /// The life of Global's process.
    boot: u64,
    place: Place,
    through: Revision,
}

/// A revision of which a part was given.
#[derive(Clone, Copy, Debug)]
struct Begun {
    revision: Revision,
    given: usize,
    /// Over the present connection.
    came: usize,
}

#[derive(Debug)]
pub(super) struct Watcher {
    prefix: usize,
    /// Counts connections.
    connection: u64,
    reader: Option<Reader>,
    /// When the newest batch on its way arrives.
    newest: Time,
    /// What it goes on after; nothing yet if `None`.
    after: Option<Revision>,
    begun: Option<Begun>,
    pub due: Due,
}

impl Watcher {
    pub fn new(w: usize) -> Self {
        let (prefix, due) = (w % keys::PREFIXES.len(), Due { next: 0, through: Revision(0) });
        Self { prefix, connection: 0, reader: None, newest: 0, after: None, begun: None, due }
    }

    pub fn prefix(&self) -> Prefix {
        keys::prefix(self.prefix)
    }

    fn wanted(&self) -> Wanted {
        let prefix = self.prefix();
        Wanted { prefix: prefix.packed(), key_at: prefix.namespace().as_bytes().len() + 1 }
    }

    /// Whether an event was not given over an earlier connection.
    fn is_new(&mut self, revision: Revision) -> bool {
        let begun = match &mut self.begun {
            Some(begun) if begun.revision == revision => begun,
            begun => begun.insert(Begun { revision, given: 0, came: 0 }),
        };
        begun.came += 1;
        let new = begun.came > begun.given;
        begun.given = begun.given.max(begun.came);
        new
    }
}

impl World {
    /// What the feed of a new process knows: the commits after `floor`.
    pub(super) fn feed_after(&self, floor: Revision) -> Log {
        let limits = Limits { events: self.cfg.events_max, chunk: CHUNK, ..Limits::default() };
        let floor = floor.max(Revision(self.global.forgotten.0));
        let mut log = Log::new(floor, limits);
        for commit in self.global.commits.iter().filter(|commit| commit.revision > floor) {
            log.append(std::slice::from_ref(commit), &[]);
            drop(log.evict());
        }
        log
    }

    /// Tells the feed of a change, and notes it for the checkers, which know it from the map of what is visible.
    pub(super) fn note_became(
        &mut self,
        revision: Revision,
        name: &Name,
        value: Option<u64>,
        was: Option<u64>,
    ) {
        self.became.push(Became { revision, name: name.clone(), value, was });
    }

    pub(super) fn feed(&mut self, revision: Revision, changes: &[(Name, Option<Entry>, Option<Entry>)]) {
        let unbound = changes.iter().filter(|(_, is, _)| is.is_none());
        let unbound: Vec<Unbound> = unbound
            .filter_map(|(name, _, was)| Some(Unbound { revision, name: name.clone(), was: was.clone()? }))
            .collect();
        let change = |(name, is, was): &(Name, Option<Entry>, Option<Entry>)| match is {
            Some(entry) if was.as_ref().is_some_and(|was| was != entry) => {
                Change::Rebind { name: name.clone(), entry: entry.clone() }
            }
            Some(entry) => Change::Bind { name: name.clone(), entry: entry.clone() },
            None => Change::Unbind { name: name.clone() },
        };
        let changes = changes.iter().map(change).collect();
        let commit = Commit { revision, at_ms: self.now / MS, outcome: None, changes };
        if let Some(process) = &mut self.global.process {
            process.feed.append(std::slice::from_ref(&commit), &unbound);
            drop(process.feed.evict());
        }
        self.global.remember(commit);
    }

    pub(super) fn at_watcher(&mut self, w: usize, event: Event) {
        match event {
            Event::Connect => self.watch(w),
            Event::Look(connection) if connection == self.watchers[w].connection => self.look_for(w),
            Event::Read(connection, part) if connection == self.watchers[w].connection => {
                let (reader, chunk, follows) = *part;
                let (mut seen, mut room) = self.batch(&reader);
                let wanted = self.watchers[w].wanted();
                let mut reader = reader;
                chunk.read(&mut reader.place, &wanted, &mut room, &mut seen, follows);
                self.give(w, reader, seen);
            }
            Event::Arrives(connection, seen) if connection == self.watchers[w].connection => {
                self.told_watcher(w, seen);
            }
            Event::Look(_) | Event::Read(..) | Event::Arrives(..) => {}
        }
    }

    fn watcher_event(&mut self, w: usize, delay: Time, event: Event) {
        self.after(delay, world::Event::Watcher(w, event));
    }

    fn connect_later(&mut self, w: usize) {
        self.watchers[w].connection += 1;
        self.watchers[w].reader = None;
        let delay = self.rng.between(1, 200) * MS;
        self.watcher_event(w, delay, Event::Connect);
    }

    fn watch(&mut self, w: usize) {
        let (head, boot) = (self.global.head(), self.global.boot);
        let Some(floor) = self.global.process.as_ref().map(|p| p.feed.floor()) else {
            return self.connect_later(w);
        };
        if self.watchers[w].after.is_none() {
            self.watchers[w].due = Due { next: self.became.len(), through: head };
            self.watchers[w].begun = None;
        }
        let mut at = self.watchers[w].after.unwrap_or(head);
        self.watchers[w].after = Some(at);
        if self.planted(Planted::WatchSkipsOne) && at < head {
            at = at.next();
        }
        if self.planted(Planted::WatchForgets) {
            at = at.max(floor);
        }
        let watcher = &mut self.watchers[w];
        let connection = watcher.connection;
        watcher.begun = watcher.begun.map(|begun| Begun { came: 0, ..begun });
        watcher.reader = Some(Reader { boot, place: Place::after(at), through: at });
        if at < floor || at > head {
            return self.watcher_event(w, MS, Event::Arrives(connection, None));
        }
        self.watcher_event(w, 0, Event::Look(connection));
    }

    fn batch(&mut self, reader: &Reader) -> (Seen, Room) {
        let few = self.rng.between(1, 3) as usize;
        // In the end everybody reads all that there is.
        let events = if self.is_closing() { 1_000 } else { few };
        (Seen { events: Vec::new(), through: reader.through }, Room { events, bytes: 1 << 20 })
    }

    fn look_for(&mut self, w: usize) {
        let Some(mut reader) = self.watchers[w].reader.clone() else { return };
        let lives = self.global.process.is_some() && reader.boot == self.global.boot;
        let breaks = self.has(Fault::Cuts) && !self.is_calm() && self.rng.chance(20);
        if !lives || breaks {
            return self.connect_later(w);
        }
        let connection = self.watchers[w].connection;
        if self.now < self.global.paused_until {
            let pause = self.global.paused_until - self.now;
            return self.watcher_event(w, pause, Event::Look(connection));
        }
        let (mut seen, mut room) = self.batch(&reader);
        let wanted = self.watchers[w].wanted();
        let feed = &self.global.process.as_ref().expect("global is up").feed;
        match feed.part(&mut reader.place, &wanted, &mut room, &mut seen) {
            Ok(Part::End) => self.give(w, reader, seen),
            Ok(Part::Whole(chunk, follows)) => {
                let delay = if self.rng.chance(700) { 0 } else { self.rng.between(1, 20) * MS };
                self.watcher_event(w, delay, Event::Read(connection, Box::new((reader, chunk, follows))));
            }
            Err(_) => {
                let (floor, through) = (feed.floor(), reader.through);
                if floor <= through {
                    self.violation(|| format!("watches: {w} was cut off at {through}, floor {floor}"));
                }
                self.send_batch(w, None);
            }
        }
    }

    /// Sends a batch, if there is something in it, and looks again a little later.
    fn give(&mut self, w: usize, mut reader: Reader, mut seen: Seen) {
        if self.planted(Planted::WatchHalf)
            && let Some(last) = seen.events.last()
        {
            seen.through = seen.through.max(last.revision);
        }
        let news = !seen.events.is_empty() || seen.through > reader.through;
        reader.through = seen.through;
        self.watchers[w].reader = Some(reader);
        if news {
            self.send_batch(w, Some(seen));
        }
        let connection = self.watchers[w].connection;
        let pause = self.rng.between(1, 30) * MS;
        let pause = if self.is_closing() { MS } else { pause };
        self.watcher_event(w, pause, Event::Look(connection));
    }

    /// In order, over one connection.
    fn send_batch(&mut self, w: usize, batch: Option<Seen>) {
        let delay = self.rng.between(20, 3_000) * 1_000;
        let at = (self.watchers[w].newest + 1).max(self.now + delay);
        let watcher = &mut self.watchers[w];
        watcher.newest = at;
        let connection = watcher.connection;
        self.at(at, world::Event::Watcher(w, Event::Arrives(connection, batch)));
    }

    fn told_watcher(&mut self, w: usize, seen: Option<Seen>) {
        let Some(seen) = seen else {
            // It lists, and goes on from there.
            self.watchers[w].after = None;
            return self.connect_later(w);
        };
        let namespace = self.watchers[w].prefix().namespace();
        for event in seen.events {
            if self.watchers[w].is_new(event.revision) {
                let name = Name::new(&namespace, &event.key);
                self.watched += 1;
                self.check_told(w, &name, event.revision, &event.happened);
            }
        }
        self.check_through(w, seen.through);
        let watcher = &mut self.watchers[w];
        watcher.after = watcher.after.max(Some(seen.through));
        watcher.begun = watcher.begun.filter(|begun| begun.revision > seen.through);
    }
}
