//! Owns what one connection may know of the others: who is there, what each is called, how to tell it something.

use super::mail::{Letter, Mailbox};
use super::reply::{Reply, Version};
use super::table::{Spec, TABLE};
use bytes::Bytes;
use dstore_shared::Moment;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Pushes that wait for one client: one that has so many does not read them, and is disconnected.
pub const PUSHES_MAX: usize = 65_536;

/// What others see of a connection.
#[derive(Debug)]
pub struct Peer {
    /// Its number; none is used again.
    pub id: u64,
    /// Where it comes from.
    pub address: String,
    /// Where it came to.
    pub here: String,
    /// When it came.
    pub since: Moment,
    /// Its place in its loop.
    pub token: usize,
    mailbox: Arc<Mailbox>,
    names: Mutex<Names>,
    /// The number of its namespace.
    pub database: AtomicUsize,
    /// Whether it speaks RESP3.
    pub three: AtomicBool,
    /// Commands queued by MULTI, and one; 0 = no MULTI.
    pub queued: AtomicUsize,
    /// Whether it is told of invalidations.
    pub tracks: AtomicBool,
    /// It is not connected any more.
    pub gone: AtomicBool,
    /// Nanoseconds since boot at its last command.
    last: AtomicU64,
    /// Place in the table of its last command, and one.
    command: AtomicUsize,
    /// Pushes on their way to it.
    pub pushes: AtomicUsize,
}

/// What a client says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Names {
    /// What it is called.
    pub name: Bytes,
    /// The library that it is.
    pub library: Bytes,
    /// The library's version.
    pub version: Bytes,
}

impl Peer {
    /// What it says of itself.
    pub fn names(&self) -> Names {
        self.names.lock().clone()
    }

    /// Sets what it says of itself.
    pub fn rename(&self, rename: impl FnOnce(&mut Names)) {
        rename(&mut self.names.lock());
    }

    /// Notes a command.
    pub fn used(&self, now: Moment, spec: &'static Spec) {
        self.last.store(now.as_nanos(), Ordering::Relaxed);
        let place = TABLE.binary_search_by_key(&spec.name, |other| other.name).map_or(0, |at| at + 1);
        self.command.store(place, Ordering::Relaxed);
    }

    /// Tells it something unasked. One that does not read what it is told is disconnected.
    pub fn push(self: &Arc<Self>, reply: Reply) {
        match self.pushes.fetch_add(1, Ordering::Relaxed) {
            waiting if waiting < PUSHES_MAX => self.mailbox.put(Letter::Push(self.clone(), reply)),
            PUSHES_MAX => self.kill(),
            _ => {}
        }
    }

    /// Ends it.
    pub fn kill(self: &Arc<Self>) {
        self.mailbox.put(Letter::Kill(self.clone()));
    }

    /// The line that CLIENT LIST tells of it.
    pub fn line(&self, now: Moment) -> String {
        let Names { name, library, version } = self.names();
        let last = Moment::from_nanos(self.last.load(Ordering::Relaxed));
        let command = self.command.load(Ordering::Relaxed).checked_sub(1).and_then(|at| TABLE.get(at));
        let queued = self.queued.load(Ordering::Relaxed) as i64 - 1;
        let mut flags = String::new();
        for (flag, on) in [
            ('x', queued >= 0),
            ('t', self.tracks.load(Ordering::Relaxed)),
            ('U', self.address.starts_with("unix:")),
        ] {
            if on {
                flags.push(flag);
            }
        }
        if flags.is_empty() {
            flags.push('N');
        }
        let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        format!(
            "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={flags} db={} sub=0 psub=0 ssub=0 multi={queued} \
             qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll={} omem=0 tot-mem=0 events=r cmd={} \
             user=default redir=-1 resp={} lib-name={} lib-ver={}",
            self.id,
            self.address,
            self.here,
            self.token,
            shown(&name),
            now.since(self.since).as_secs(),
            now.since(last).as_secs(),
            self.database.load(Ordering::Relaxed),
            self.pushes.load(Ordering::Relaxed),
            command.map_or("NULL", |spec| spec.name),
            if self.three.load(Ordering::Relaxed) { 3 } else { 2 },
            shown(&library),
            shown(&version),
        )
    }
}

/// Who is connected.
#[derive(Debug, Default)]
pub struct Peers {
    next: AtomicU64,
    all: Mutex<BTreeMap<u64, Arc<Peer>>>,
}

impl Peers {
    /// Notes a connection. `None`: there are `max` already.
    pub fn enter(
        &self,
        (address, here): (String, String),
        (mailbox, token): (&Arc<Mailbox>, usize),
        now: Moment,
        max: usize,
    ) -> Option<Arc<Peer>> {
        let mut all = self.all.lock();
        if all.len() >= max {
            return None;
        }
        let peer = Arc::new(Peer {
            id: self.next.fetch_add(1, Ordering::Relaxed) + 1,
            address,
            here,
            since: now,
            token,
            mailbox: mailbox.clone(),
            names: Mutex::default(),
            database: AtomicUsize::new(0),
            three: AtomicBool::new(false),
            queued: AtomicUsize::new(0),
            tracks: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            last: AtomicU64::new(now.as_nanos()),
            command: AtomicUsize::new(0),
            pushes: AtomicUsize::new(0),
        });
        all.insert(peer.id, peer.clone());
        Some(peer)
    }

    /// Forgets a connection.
    pub fn leave(&self, peer: &Peer) {
        peer.gone.store(true, Ordering::Relaxed);
        self.all.lock().remove(&peer.id);
    }

    /// One of them.
    pub fn find(&self, id: u64) -> Option<Arc<Peer>> {
        self.all.lock().get(&id).cloned()
    }

    /// All of them, in the order in which they came.
    pub fn all(&self) -> Vec<Arc<Peer>> {
        self.all.lock().values().cloned().collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.lock().len()
    }

    /// How many there ever were.
    pub fn ever(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }
}

/// Which protocol a client speaks, as its number.
pub fn number_of(version: Version) -> i64 {
    match version {
        Version::Two => 2,
        Version::Three => 3,
    }
}
