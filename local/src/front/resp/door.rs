//! Owns what all RESP connections share: the node, who is connected, counts, cursors, who tracks what.

use super::commands::{Answered, Call};
use super::config::RespConfig;
use super::cursors::Cursors;
use super::parse::VALUE_MAX;
use super::peers::{Peer, Peers};
use super::reply::Reply;
use super::tracking::{Tracked, Tracking};
use crate::cache::Hit;
use crate::node::Node;
use crate::rooms::Rooms;
use bytes::Bytes;
use dstore_proto::store::{Body, Found};
use dstore_shared::{Error, Moment, Name, Namespace, Result};
use dstore_sys::Sys;
use dstore_sys::clock::Clock;
use dstore_sys::rng::Rng;
use dstore_sys::tasks::{Blocking, Tasks};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// What is counted; CONFIG RESETSTAT counts anew.
#[derive(Debug, Default)]
pub struct Stats {
    /// Commands run.
    pub commands: AtomicU64,
    /// GETs and the like that this Local answered by itself.
    pub hits: AtomicU64,
    /// Those that it had to ask for.
    pub misses: AtomicU64,
    /// Connections refused for want of room.
    pub refused: AtomicU64,
    /// Replies that were errors.
    pub errors: AtomicU64,
    /// Threads that panicked and went on; not counted anew.
    pub panics: AtomicU64,
}

impl Stats {
    /// Counts anew.
    pub fn reset(&self) {
        for count in [&self.commands, &self.hits, &self.misses, &self.refused, &self.errors] {
            count.store(0, Ordering::Relaxed);
        }
    }
}

/// What all connections share.
#[derive(Debug)]
pub struct Door {
    /// The node.
    pub node: Node,
    /// The settings.
    pub config: RespConfig,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub rng: Arc<dyn Rng>,
    /// Where long work runs.
    pub blocking: Blocking,
    /// Who owns what runs beside the loops.
    pub tasks: Tasks,
    /// Who is connected.
    pub peers: Peers,
    /// Counts.
    pub stats: Arc<Stats>,
    /// Where SCANs go on.
    pub cursors: Cursors,
    /// Who tracks what.
    pub tracking: Arc<Tracking>,
    /// Since when it is.
    pub since: Moment,
    /// What INFO calls this run.
    pub run: String,
    /// Bytes that connections hold: commands that come or are under way, replies, beyond what each may have freely.
    pub request_bytes: AtomicUsize,
    /// Room for values that are kept nowhere else: too large for the cache, or no room there.
    rooms: Rooms,
    started: AtomicBool,
    /// The namespaces in replace mode are there.
    pub databases_ready: AtomicBool,
}

impl Door {
    /// A door that nobody is at yet.
    pub fn new(sys: &Sys, tasks: &Tasks, node: Node, config: RespConfig) -> Arc<Self> {
        Arc::new(Self {
            node,
            config,
            clock: sys.clock.clone(),
            rng: sys.rng.clone(),
            blocking: sys.blocking,
            tasks: tasks.clone(),
            peers: Peers::default(),
            stats: Arc::default(),
            cursors: Cursors::new(sys.rng.next_u64()),
            tracking: Arc::default(),
            since: sys.clock.now(),
            run: format!("{:032x}{:08x}", sys.rng.next_u128(), sys.rng.next_u64() as u32),
            request_bytes: AtomicUsize::new(0),
            rooms: Rooms::new(2 * VALUE_MAX),
            started: AtomicBool::new(false),
            databases_ready: AtomicBool::new(false),
        })
    }

    /// The namespace of a client that has just come.
    pub fn first_namespace(&self) -> &Namespace {
        &self.config.databases.first().expect("there is at least one database").namespace
    }

    /// The whole value that was found. One that streams through is held in room of its own until it is sent.
    ///
    /// # Errors
    /// `TooLarge`, `Exhausted` when there is no room for long, and what ended the stream.
    pub async fn whole(&self, found: Found) -> Result<Bytes> {
        let size = found.entry.size;
        match found.body {
            Body::Stream(stream) if size <= VALUE_MAX => {
                let no_room = || Error::exhausted("too many large values are under way: try again later");
                // Not waited for: the stream would hold up others.
                let room = self.rooms.try_take(size).ok_or_else(no_room)?;
                let bytes = Body::Stream(stream).collect(VALUE_MAX).await?;
                Ok(room.hold(bytes))
            }
            body => body.collect(VALUE_MAX).await,
        }
    }

    /// Whether Global was ever reached.
    pub fn is_started(&self) -> bool {
        if self.started.load(Ordering::Relaxed) {
            return true;
        }
        let started = self.node.knows_global();
        self.started.store(started, Ordering::Relaxed);
        started
    }

    /// Lets commands pass as if Global had been reached.
    #[cfg(any(test, feature = "fuzzing"))]
    pub fn pretend_started(&self, started: bool) {
        self.started.store(started, Ordering::Relaxed);
        self.databases_ready.store(started, Ordering::Relaxed);
    }

    /// Fails while Global was never reached.
    pub fn started(&self) -> Answered<()> {
        if self.is_started() {
            return Ok(());
        }
        Err(Reply::error("LOADING dstore is starting: this node has not reached Global yet"))
    }

    /// The value of a name, if this Local answers it by itself.
    pub fn hit(&self, name: &Name) -> Option<Bytes> {
        let hit = self.node.hit_packed(name.as_bytes());
        let count = if hit.is_some() { &self.stats.hits } else { &self.stats.misses };
        count.fetch_add(1, Ordering::Relaxed);
        hit.map(|Hit { blob, .. }| blob.bytes().clone())
    }

    /// The values of names, if this Local answers all of them by itself, as of one moment: each is looked at twice, and
    /// was bound so between the first looks and the second.
    pub fn hits(&self, names: &[Name]) -> Option<Vec<Bytes>> {
        let look = |name: &Name| self.node.hit_packed(name.as_bytes());
        let found: Option<Vec<Hit>> = names.iter().map(look).collect();
        let same = |found: &Vec<Hit>| {
            let again = |(name, hit): (&Name, &Hit)| look(name).is_some_and(|now| now.entry == hit.entry);
            names.len() < 2 || names.iter().zip(found).all(again)
        };
        let found = found.filter(same);
        let count = if found.is_some() { &self.stats.hits } else { &self.stats.misses };
        count.fetch_add(names.len() as u64, Ordering::Relaxed);
        found.map(|found| found.into_iter().map(|hit| hit.blob.bytes().clone()).collect())
    }

    /// Takes `now` bytes for a command instead of `before`. `false`: there is no room; nothing was taken.
    pub fn reserve(&self, before: usize, now: usize) -> bool {
        if now <= before {
            self.request_bytes.fetch_sub(before - now, Ordering::Relaxed);
            return true;
        }
        let more = now - before;
        let taken = self.request_bytes.fetch_add(more, Ordering::Relaxed) + more;
        if taken <= self.config.request_bytes_max {
            return true;
        }
        self.request_bytes.fetch_sub(more, Ordering::Relaxed);
        false
    }

    /// Whether more than half of the bytes that commands may hold are taken.
    #[inline]
    pub fn is_scarce(&self) -> bool {
        self.request_bytes.load(Ordering::Relaxed) > self.config.request_bytes_max / 2
    }
}

impl Door {
    /// A client is told of invalidations from now on, or another instead of it.
    pub fn begin_tracking(&self, peer: &Arc<Peer>, instead: Option<Arc<Peer>>) {
        self.tracking.begin(peer, instead, |is_used| self.node.want_gone(is_used));
    }

    /// A client is told no more.
    pub fn end_tracking(&self, peer: &Peer) {
        self.tracking.end(peer, |is_used| self.node.want_gone(is_used));
    }
}

impl Call<'_> {
    /// Fails while Global was never reached, or the connection's namespace is not in its mode yet.
    pub fn started(&self) -> Answered<()> {
        self.door.started()?;
        let replaces = self.door.config.databases.get(self.client.database).is_some_and(|one| one.replace);
        if replaces && !self.door.databases_ready.load(Ordering::Acquire) {
            return Err(Reply::error("LOADING the namespace is being created: try again"));
        }
        Ok(())
    }

    /// What the command reads is tracked from now on, if the client wants that. To be called before the first look.
    pub fn tracks(&self, names: &[Name]) -> Tracked {
        if !self.client.tracking.tracks_reads() {
            return Tracked::default();
        }
        self.door.tracking.note(self.peer, names)
    }
}
