//! Owns who is told when a name changes that he read: client-side caching.
//!
//! ```text
//! a read:   noted here -> looked up -> answered; what this Local does not hold then, it will not hear of:
//!           the reply is followed by the invalidation at once
//! INV, eviction, a name that is not validated: the name leaves the cache -> whoever noted it is told -> ACK to Global
//! ```
//! Invariants: a name is noted before it is looked up, so no change falls between. Whoever is told of a name is told
//! once, until he reads it again. What is noted is bounded ([`Readers`]): whoever is forgotten is told.

use super::door::Door;
use super::own::Own;
use super::peers::Peer;
use super::readers::Readers;
use super::reply::Reply;
use crate::cache::Left;
use dstore_shared::{BlobHash, Name};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The channel on which clients that speak RESP2 are told.
pub const INVALIDATE: &str = "__redis__:invalidate";

/// Who is told of what.
#[derive(Debug, Default)]
pub struct Tracking {
    /// Clients that are told of something.
    clients: AtomicUsize,
    pub(super) table: Mutex<Table>,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    /// Who is told of something.
    clients: HashMap<u64, Told>,
    readers: Readers,
    /// Reads that wait for their values, by client and name: the note of one is not another's to forget.
    under_way: HashMap<(u64, Name), usize, foldhash::fast::RandomState>,
    /// Changes of clients with NOLOOP.
    pub(super) own: Own,
}

/// How a client is told.
#[derive(Debug)]
struct Told {
    peer: Arc<Peer>,
    /// Who is told instead of it.
    instead: Option<Arc<Peer>>,
}

impl Table {
    /// Tells a client, or who is told instead of it.
    pub(super) fn tell(&self, client: u64, keys: Reply) {
        let Some(Told { peer, instead }) = self.clients.get(&client) else { return };
        match instead {
            None => peer.push(told(peer, keys)),
            Some(other) if !other.gone.load(Ordering::Relaxed) => other.push(told(other, keys)),
            // Who speaks RESP2 cannot be told that nobody is told any more.
            Some(other) if peer.three.load(Ordering::Relaxed) => {
                let broken = vec![Reply::word("tracking-redir-broken"), Reply::Int(other.id as i64)];
                peer.push(Reply::Push(broken));
            }
            Some(_) => {}
        }
    }

    /// A read of these names waits no more.
    fn read_over(&mut self, client: u64, names: Vec<Name>) {
        for name in names {
            if let Entry::Occupied(mut count) = self.under_way.entry((client, name)) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        }
    }

    /// Forgets that a client read a name, unless another read of it is under way.
    fn forget_read(&mut self, client: u64, name: &Name) {
        if !self.under_way.contains_key(&(client, name.clone())) {
            self.readers.forget_one(name, client);
        }
    }

    fn gone(&mut self, name: &Name) {
        for client in self.readers.forget(name) {
            if !self.own.hears(client, name) {
                self.tell(client, keys_of([name]));
            }
        }
    }
}

/// The push as `peer` understands it: of RESP2, as a message of a channel.
fn told(peer: &Peer, keys: Reply) -> Reply {
    if peer.three.load(Ordering::Relaxed) {
        return Reply::Push(vec![Reply::word("invalidate"), keys]);
    }
    Reply::Push(vec![Reply::word("message"), Reply::word(INVALIDATE), keys])
}

/// The keys of names, as they are told.
pub fn keys_of<'a>(names: impl IntoIterator<Item = &'a Name>) -> Reply {
    Reply::Array(names.into_iter().map(|name| Reply::Bulk(name.key().into_bytes())).collect())
}

impl Tracking {
    /// A client is told from now on, or another instead of it. `used` is told whether anybody is, before anybody else
    /// begins or ends.
    pub fn begin(&self, peer: &Arc<Peer>, instead: Option<Arc<Peer>>, used: impl FnOnce(bool)) {
        let mut table = self.table.lock();
        peer.tracks.store(true, Ordering::Relaxed);
        table.clients.insert(peer.id, Told { peer: peer.clone(), instead });
        self.clients.store(table.clients.len(), Ordering::Relaxed);
        used(true);
    }

    /// A client is told no more. What it read is forgotten when it changes. `used` as for [`Self::begin`].
    pub fn end(&self, peer: &Peer, used: impl FnOnce(bool)) {
        if !peer.tracks.load(Ordering::Relaxed) {
            return;
        }
        let mut table = self.table.lock();
        peer.tracks.store(false, Ordering::Relaxed);
        table.clients.remove(&peer.id);
        table.own.leave(peer.id);
        self.clients.store(table.clients.len(), Ordering::Relaxed);
        if table.clients.is_empty() {
            table.readers.clear();
        }
        used(!table.clients.is_empty());
    }

    /// Whether anybody is told of anything.
    pub fn is_used(&self) -> bool {
        self.clients() > 0
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
            while let Some(victim) = table.readers.surplus() {
                table.gone(&victim);
            }
            let Table { clients, readers, .. } = &mut *table;
            readers.note(name, peer.id, |client| clients.contains_key(&client));
        }
        Tracked { read: Some((peer.clone(), names.to_vec())), counted: None }
    }

    /// Tells a client, or who is told instead of it, to forget these keys, or with nil all.
    pub fn tell(&self, client: u64, keys: Reply) {
        self.table.lock().tell(client, keys);
    }

    /// Whether what Global tells of a name is what a client with BCAST and NOLOOP did itself.
    pub fn is_echo(&self, client: u64, name: &Name, now: Option<BlobHash>) -> bool {
        self.table.lock().own.is_echo(client, name, now)
    }

    /// What a client with BCAST and NOLOOP did itself may not have been heard of.
    pub fn forget_written(&self, client: u64) {
        self.table.lock().own.leave(client);
    }

    /// Names left the cache.
    pub fn left(&self, left: Left) {
        match left {
            _ if !self.is_used() => {}
            Left::All => self.all_gone(),
            Left::Names(names) => {
                let mut table = self.table.lock();
                names.iter().for_each(|name| table.gone(name));
            }
        }
    }

    /// Everybody is told to forget everything.
    pub fn all_gone(&self) {
        let mut table = self.table.lock();
        table.readers.clear();
        for client in table.clients.keys() {
            table.tell(*client, Reply::Nil);
        }
    }
}

/// Names that a client reads, noted.
#[derive(Debug, Default)]
#[must_use = "what is not held must be told of"]
pub struct Tracked {
    read: Option<(Arc<Peer>, Vec<Name>)>,
    /// Where it is counted among the reads under way.
    counted: Option<Arc<Tracking>>,
}

impl Tracked {
    /// The read waits for its values: until it is settled, no other read of its client forgets its notes.
    pub fn waits(mut self, door: &Door) -> Self {
        if let (Some((peer, names)), None) = (&self.read, &self.counted) {
            let mut table = door.tracking.table.lock();
            for name in names {
                *table.under_way.entry((peer.id, name.clone())).or_default() += 1;
            }
            drop(table);
            self.counted = Some(door.tracking.clone());
        }
        self
    }

    /// The reply, followed by the invalidation of what this Local does not hold: it would not hear of its change.
    pub fn settle(mut self, door: &Door, reply: Reply) -> Reply {
        let Some((peer, names)) = self.read.take() else { return reply };
        // Nor does it hear when a time to live is over.
        let lasts = |name: &Name| {
            door.node.hit_packed(name.as_bytes()).is_some_and(|hit| hit.entry.expires_at.is_none())
        };
        let lost: Vec<Name> = names.iter().filter(|name| !lasts(name)).cloned().collect();
        if lost.is_empty() && self.counted.is_none() {
            return reply;
        }
        let mut table = door.tracking.table.lock();
        if self.counted.take().is_some() {
            table.read_over(peer.id, names);
        }
        if lost.is_empty() {
            return reply;
        }
        for name in &lost {
            table.forget_read(peer.id, name);
        }
        let keys = keys_of(&lost);
        if table.clients.get(&peer.id).is_some_and(|told| told.instead.is_some()) {
            table.tell(peer.id, keys);
            return reply;
        }
        Reply::Several(vec![reply, told(&peer, keys)])
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        if let (Some((peer, names)), Some(tracking)) = (self.read.take(), self.counted.take()) {
            tracking.table.lock().read_over(peer.id, names);
        }
    }
}

#[cfg(test)]
#[path = "tracking_tests.rs"]
mod tests;
