//! Owns who is told when a name changes that he read: client-side caching.
//!
//! ```text
//! a read:   noted here -> looked up -> answered; what this Local does not hold then, it will not hear of:
//!           the reply is followed by the invalidation at once
//! INV, eviction, a name that is not validated: the name leaves the cache -> whoever noted it is told -> ACK to Global
//! ```
//! Invariants: a name is noted before it is looked up, so no change falls between. Whoever is told of a name is told
//! once, until he reads it again. It is bounded: beyond [`TRACKED_MAX`] a name is forgotten, and its readers are told.

use super::door::Door;
use super::peers::Peer;
use super::reply::Reply;
use crate::cache::Left;
use dstore_shared::Name;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Names that are noted at a time, as in Redis.
const TRACKED_MAX: usize = 1_000_000;

/// Who is told of what.
#[derive(Debug, Default)]
pub struct Tracking {
    /// Clients that are told of something.
    clients: AtomicUsize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    readers: HashMap<Name, Vec<Arc<Peer>>, foldhash::fast::RandomState>,
    /// Who is told instead of a client.
    redirects: HashMap<u64, Arc<Peer>>,
    /// Names that a client with NOLOOP is changing itself.
    own: Vec<(u64, Name)>,
}

impl Table {
    /// Who is told instead of `peer`, and how.
    fn tell(&self, peer: &Arc<Peer>, keys: Reply) {
        match self.redirects.get(&peer.id) {
            Some(other) => other.push(told(other, keys)),
            None => peer.push(told(peer, keys)),
        }
    }
}

/// The push as `peer` understands it: of RESP2, as a message of a channel.
fn told(peer: &Peer, keys: Reply) -> Reply {
    if peer.three.load(Ordering::Relaxed) {
        return Reply::Push(vec![Reply::word("invalidate"), keys]);
    }
    Reply::Push(vec![Reply::word("message"), Reply::word("__redis__:invalidate"), keys])
}

fn keys_of<'a>(names: impl IntoIterator<Item = &'a Name>) -> Reply {
    Reply::Array(names.into_iter().map(|name| Reply::Bulk(name.key().into_bytes())).collect())
}

impl Tracking {
    /// A client is told from now on, or another instead of it.
    pub fn begin(&self, peer: &Peer, instead: Option<Arc<Peer>>) {
        let mut table = self.table.lock();
        if !peer.tracks.swap(true, Ordering::Relaxed) {
            self.clients.fetch_add(1, Ordering::Relaxed);
        }
        match instead {
            Some(other) => table.redirects.insert(peer.id, other),
            None => table.redirects.remove(&peer.id),
        };
    }

    /// A client is told no more. What it read is forgotten when it changes.
    pub fn end(&self, peer: &Peer) {
        if !peer.tracks.swap(false, Ordering::Relaxed) {
            return;
        }
        self.clients.fetch_sub(1, Ordering::Relaxed);
        let mut table = self.table.lock();
        table.redirects.remove(&peer.id);
        if self.clients.load(Ordering::Relaxed) == 0 {
            table.readers = HashMap::default();
        }
    }

    /// Whether anybody is told of anything.
    pub fn is_used(&self) -> bool {
        self.clients.load(Ordering::Relaxed) > 0
    }

    /// How many are told of something.
    pub fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    /// Names that are noted.
    pub fn len(&self) -> usize {
        self.table.lock().readers.len()
    }

    /// A client is about to read names.
    pub fn note(&self, peer: &Arc<Peer>, names: &[Name]) -> Tracked {
        let mut table = self.table.lock();
        for name in names {
            if table.readers.len() >= TRACKED_MAX
                && let Some(victim) = table.readers.keys().next().cloned()
            {
                Self::gone_from(&mut table, &victim);
            }
            let readers = table.readers.entry(name.compact()).or_default();
            readers.retain(|reader| reader.tracks.load(Ordering::Relaxed));
            if !readers.iter().any(|reader| reader.id == peer.id) {
                readers.push(peer.clone());
            }
        }
        Tracked(Some((peer.clone(), names.to_vec())))
    }

    /// Tells a client, or who is told instead of it, to forget these keys, or with nil all.
    pub fn tell(&self, peer: &Arc<Peer>, keys: Reply) {
        self.table.lock().tell(peer, keys);
    }

    /// A client with NOLOOP changes names: it is not told of that while the guard lives.
    pub fn own(self: &Arc<Self>, peer: &Peer, names: Vec<Name>) -> OwnChange {
        self.table.lock().own.extend(names.iter().map(|name| (peer.id, name.clone())));
        OwnChange { tracking: self.clone(), client: peer.id, names }
    }

    /// Names left the cache.
    pub fn left(&self, left: Left) {
        match left {
            _ if !self.is_used() => {}
            Left::All => self.all_gone(),
            Left::Names(names) => {
                let mut table = self.table.lock();
                names.iter().for_each(|name| Self::gone_from(&mut table, name));
            }
        }
    }

    fn gone_from(table: &mut Table, name: &Name) {
        for peer in table.readers.remove(name).into_iter().flatten() {
            let is_own = table.own.iter().any(|(client, own)| *client == peer.id && own == name);
            if peer.tracks.load(Ordering::Relaxed) && !is_own {
                table.tell(&peer, keys_of([name]));
            }
        }
    }

    /// Everybody is told to forget everything.
    fn all_gone(&self) {
        let mut table = self.table.lock();
        let mut told = std::collections::HashSet::new();
        let readers = std::mem::take(&mut table.readers);
        for peer in readers.into_values().flatten() {
            if peer.tracks.load(Ordering::Relaxed) && told.insert(peer.id) {
                table.tell(&peer, Reply::Nil);
            }
        }
    }
}

/// Names that a client changes itself; not any more when it is dropped.
#[derive(Debug)]
pub struct OwnChange {
    tracking: Arc<Tracking>,
    client: u64,
    names: Vec<Name>,
}

impl Drop for OwnChange {
    fn drop(&mut self) {
        let mut table = self.tracking.table.lock();
        for name in &self.names {
            if let Some(at) = table.own.iter().position(|(client, own)| *client == self.client && own == name)
            {
                table.own.swap_remove(at);
            }
        }
    }
}

/// Names that a client reads, noted.
#[derive(Debug, Default)]
#[must_use = "what is not held must be told of"]
pub struct Tracked(Option<(Arc<Peer>, Vec<Name>)>);

impl Tracked {
    /// The reply, followed by the invalidation of what this Local does not hold: it would not hear of its change.
    pub fn settle(self, door: &Door, reply: Reply) -> Reply {
        let Some((peer, names)) = self.0 else { return reply };
        // Nor does it hear when a time to live is over.
        let lasts = |name: &Name| {
            door.node.hit_packed(name.as_bytes()).is_some_and(|hit| hit.entry.expires_at.is_none())
        };
        let lost: Vec<Name> = names.into_iter().filter(|name| !lasts(name)).collect();
        if lost.is_empty() {
            return reply;
        }
        let mut table = door.tracking.table.lock();
        for name in &lost {
            if let Some(readers) = table.readers.get_mut(name) {
                readers.retain(|reader| reader.id != peer.id);
                if readers.is_empty() {
                    table.readers.remove(name);
                }
            }
        }
        let keys = keys_of(&lost);
        if table.redirects.contains_key(&peer.id) {
            table.tell(&peer, keys);
            return reply;
        }
        Reply::Several(vec![reply, told(&peer, keys)])
    }
}
