//! A small store in memory, for tests of the wire: write-once names, remembered outcomes, and switches that
//! make it misbehave.

#![allow(dead_code, reason = "each test binary uses a part")]

use bytes::Bytes;
use dstore_proto::store::{
    Body, DeleteReply, Found, FoundMany, ListQuery, Listing, Provenance, SetOne, SetReply, Slice, Stat,
    StatMany, Status, Store, Target, Tier,
};
use dstore_proto::watch::{Seen, WatchQuery, Watching};
use dstore_shared::{
    BlobHash, Born, CopyOutcome, CopyResult, Entry, Error, HistoryId, Key, Name, Prefix, PrefixOutcome,
    RequestId, Result, Revision, SetOutcome,
};
use futures_util::stream::{self, StreamExt};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// What Global's clock says in this store.
pub const BORN: Born = Born { history: HistoryId(9), boot: 3, at_ms: 1 };

#[derive(Default)]
struct State {
    blobs: HashMap<BlobHash, Bytes>,
    names: HashMap<Name, Entry>,
    revision: u64,
    sets: HashMap<RequestId, SetReply>,
    deletes: HashMap<RequestId, DeleteReply>,
}

/// A small store in memory.
#[derive(Default)]
pub struct FakeStore {
    state: Mutex<State>,
    /// Every id that came with a change, in order.
    pub ids: Mutex<Vec<RequestId>>,
    /// So many changes are made but never answered.
    pub unanswered: AtomicUsize,
    /// So many calls fail as `Unavailable` before they do anything.
    pub failing: AtomicUsize,
    /// Bytes are sent as a stream, not at once.
    pub streams: AtomicBool,
    /// The last byte sent is another than the hash says.
    pub damaged: AtomicBool,
    /// Milliseconds since [`BORN`].
    pub late_ms: AtomicU64,
    /// Bodies are not read.
    pub deaf: AtomicBool,
    /// Bodies that came.
    pub bodies: AtomicUsize,
    /// Bodies that ended with an error.
    pub cut_bodies: AtomicUsize,
    /// Bytes of the streams that were taken from this store.
    pub streamed: Arc<AtomicU64>,
    /// Streams of this store that are alive.
    pub streaming: Arc<AtomicUsize>,
    /// What each watch in turn tells before it breaks; one more tells nothing.
    pub watches: Mutex<VecDeque<Vec<Result<Seen>>>>,
    /// What was asked of the watches.
    pub asked: Mutex<Vec<WatchQuery>>,
}

/// Counts a stream while it is alive.
struct Alive(Arc<AtomicUsize>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn take(switch: &AtomicUsize) -> bool {
    switch.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
}

impl FakeStore {
    /// How many names are bound.
    pub fn names(&self) -> usize {
        self.state.lock().names.len()
    }

    fn provenance(&self) -> Provenance {
        Provenance::new(Tier::Global, false, Revision(self.state.lock().revision))
    }

    fn entry(&self, target: &Target) -> Option<Entry> {
        let state = self.state.lock();
        match target {
            Target::Name(name) => state.names.get(name).cloned(),
            Target::Hash(hash) => state.blobs.get(hash).map(|bytes| Entry {
                hash: *hash,
                size: bytes.len() as u64,
                bind_rev: Revision(0),
                expires_at: None,
                content_type: None,
            }),
        }
    }

    fn works(&self) -> Result<()> {
        if take(&self.failing) { Err(Error::unavailable("the test says so: try again")) } else { Ok(()) }
    }

    /// Makes a change once, and perhaps does not answer.
    async fn change(&self, id: RequestId, name: Name, hash: BlobHash) -> Result<SetReply> {
        let known = self.state.lock().sets.get(&id).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let outcome = self.bound(id, name, hash)?;
        let reply = SetReply { outcome, from: self.provenance() };
        self.state.lock().sets.insert(id, reply.clone());
        if take(&self.unanswered) {
            std::future::pending::<()>().await;
        }
        Ok(reply)
    }

    fn bound(&self, id: RequestId, name: Name, hash: BlobHash) -> Result<SetOutcome> {
        let born = self.clock();
        let mut state = self.state.lock();
        let Some(size) = state.blobs.get(&hash).map(|bytes| bytes.len() as u64) else {
            return Ok(SetOutcome::NeedBlob);
        };
        assert_eq!((id.born.history, id.born.boot), (born.history, born.boot), "it tells when it was born");
        if born.at_ms - id.born.at_ms > 600_000 {
            return Err(Error::closed("outcome unknown: it is older than ten minutes"));
        }
        Ok(match state.names.get(&name) {
            Some(bound) if bound.hash == hash => SetOutcome::Unchanged(bound.clone()),
            Some(bound) => SetOutcome::Occupied(bound.clone()),
            None => {
                state.revision += 1;
                let entry = Entry {
                    hash,
                    size,
                    bind_rev: Revision(state.revision),
                    expires_at: None,
                    content_type: None,
                };
                state.names.insert(name, entry.clone());
                SetOutcome::Stored(entry)
            }
        })
    }

    fn copied(&self, id: RequestId, from: &Name, to: Name, unbinds: bool) -> Result<CopyOutcome> {
        self.ids.lock().push(id);
        self.works()?;
        let state = &mut *self.state.lock();
        let result = match (state.names.get(from).cloned(), state.names.get(&to).cloned()) {
            (None, _) => CopyResult::NotFound,
            (Some(source), Some(held)) if held.hash != source.hash => CopyResult::Occupied(held),
            (Some(source), held) if *from == to || (held.is_some() && !unbinds) => {
                CopyResult::Unchanged(source)
            }
            (Some(source), held) => {
                state.revision += 1;
                let entry = held.unwrap_or(Entry { bind_rev: Revision(state.revision), ..source });
                state.names.insert(to, entry.clone());
                if unbinds {
                    state.names.remove(from);
                }
                CopyResult::Done(entry)
            }
        };
        Ok(CopyOutcome { result, revision: Revision(state.revision) })
    }

    /// What Global's clock says now.
    pub fn clock(&self) -> Born {
        Born { at_ms: BORN.at_ms + self.late_ms.load(Ordering::SeqCst), ..BORN }
    }

    fn body(&self, bytes: Bytes) -> Body {
        if !self.streams.load(Ordering::SeqCst) {
            return Body::Bytes(bytes);
        }
        self.streaming.fetch_add(1, Ordering::SeqCst);
        let (alive, taken) = (Alive(self.streaming.clone()), self.streamed.clone());
        let pieces = Body::Bytes(bytes).into_stream();
        Body::Stream(Box::pin(futures_util::StreamExt::map(pieces, move |piece| {
            let _ = &alive;
            taken.fetch_add(piece.as_ref().map_or(0, |p| p.len() as u64), Ordering::SeqCst);
            piece
        })))
    }
}

impl Store for FakeStore {
    async fn get(&self, target: Target, slice: Slice) -> Result<Option<Found>> {
        self.works()?;
        let Some(entry) = self.entry(&target) else { return Ok(None) };
        let range = slice.within(entry.size)?;
        let whole = self.state.lock().blobs[&entry.hash].clone();
        let mut bytes = whole.slice(range.start as usize..range.end as usize);
        if self.damaged.load(Ordering::SeqCst) {
            let mut damaged = bytes.to_vec();
            if let Some(last) = damaged.last_mut() {
                *last ^= 1;
            }
            bytes = damaged.into();
        }
        Ok(Some(Found { entry, from: self.provenance(), body: self.body(bytes) }))
    }

    async fn set(&self, id: RequestId, name: Option<Name>, body: Body) -> Result<SetReply> {
        if name.is_some() {
            self.ids.lock().push(id);
        }
        self.bodies.fetch_add(1, Ordering::SeqCst);
        if self.deaf.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        self.works()?;
        let bytes = body.collect(1 << 30).await;
        if bytes.is_err() {
            self.cut_bodies.fetch_add(1, Ordering::SeqCst);
        }
        let bytes = bytes?;
        let hash = BlobHash::of(&bytes);
        let size = bytes.len() as u64;
        self.state.lock().blobs.insert(hash, bytes);
        if let Some(name) = name {
            return self.change(id, name, hash).await;
        }
        let entry = Entry { hash, size, bind_rev: Revision(0), expires_at: None, content_type: None };
        Ok(SetReply { outcome: SetOutcome::Stored(entry), from: self.provenance() })
    }

    async fn bind(&self, id: RequestId, name: Name, hash: BlobHash, _: u64) -> Result<SetReply> {
        self.ids.lock().push(id);
        self.works()?;
        self.change(id, name, hash).await
    }

    async fn delete(&self, id: RequestId, names: Vec<Name>) -> Result<DeleteReply> {
        self.ids.lock().push(id);
        self.works()?;
        let reply = {
            let state = &mut *self.state.lock();
            let known = state.deletes.get(&id).cloned();
            known.unwrap_or_else(|| {
                state.revision += 1;
                let removed = names.iter().map(|name| state.names.remove(name).is_some()).collect();
                let reply = DeleteReply { removed, revision: Revision(state.revision), stale: None };
                state.deletes.insert(id, reply.clone());
                reply
            })
        };
        if take(&self.unanswered) {
            std::future::pending::<()>().await;
        }
        Ok(reply)
    }

    async fn get_many(&self, names: Vec<Name>) -> Result<FoundMany> {
        let mut found = Vec::new();
        for name in names {
            found.push(self.get(Target::Name(name), Slice::ALL).await?);
        }
        Ok(FoundMany { found, revision: Revision(self.state.lock().revision) })
    }

    async fn set_many(&self, sets: Vec<SetOne>) -> Result<Vec<Result<SetReply>>> {
        let mut done = Vec::new();
        for SetOne { id, name, value, .. } in sets {
            done.push(self.set(id, Some(name), Body::Blob(value)).await);
        }
        Ok(done)
    }

    async fn copy(&self, id: RequestId, from: Name, to: Name) -> Result<CopyOutcome> {
        self.copied(id, &from, to, false)
    }

    async fn rename(&self, id: RequestId, from: Name, to: Name) -> Result<CopyOutcome> {
        self.copied(id, &from, to, true)
    }

    async fn stat_many(&self, names: Vec<Name>) -> Result<StatMany> {
        self.works()?;
        let stat =
            |name| self.entry(&Target::Name(name)).map(|entry| Stat { entry, from: self.provenance() });
        let stats = names.into_iter().map(stat).collect();
        Ok(StatMany { stats, revision: Revision(self.state.lock().revision) })
    }

    async fn exists(&self, names: Vec<Name>) -> Result<Vec<bool>> {
        Ok(self.stat_many(names).await?.stats.iter().map(Option::is_some).collect())
    }

    async fn delete_prefix(&self, id: RequestId, prefix: Prefix) -> Result<PrefixOutcome> {
        self.ids.lock().push(id);
        self.works()?;
        let state = &mut *self.state.lock();
        state.revision += 1;
        let before = state.names.len();
        state.names.retain(|name, _| !prefix.covers(name));
        let removed = (before - state.names.len()) as u64;
        Ok(PrefixOutcome { removed, revision: Revision(state.revision) })
    }

    async fn stat(&self, target: Target) -> Result<Option<Stat>> {
        self.works()?;
        Ok(self.entry(&target).map(|entry| Stat { entry, from: self.provenance() }))
    }

    async fn list(&self, query: ListQuery) -> Result<Listing> {
        self.works()?;
        let mut names: Vec<(Key, Entry)> = {
            let state = self.state.lock();
            let named = state.names.iter().filter(|(name, _)| name.namespace() == query.namespace);
            named.map(|(name, entry)| (name.key(), entry.clone())).collect()
        };
        names.retain(|(key, _)| {
            key.as_bytes().starts_with(&query.prefix) && query.after.as_ref().is_none_or(|after| key > after)
        });
        names.sort_by(|a, b| a.0.cmp(&b.0));
        let more = names.len() > query.limit;
        names.truncate(query.limit);
        let next = names.last().filter(|_| more).map(|(key, _)| key.clone());
        Ok(Listing { names, next, from: self.provenance() })
    }

    async fn watch(&self, query: WatchQuery) -> Result<Watching> {
        self.asked.lock().push(query.clone());
        self.works()?;
        let script = self.watches.lock().pop_front();
        let then_silent = script.is_none();
        let batches = stream::iter(script.unwrap_or_default());
        let silence = stream::once(async move {
            if then_silent {
                std::future::pending::<()>().await;
            }
            Err(Error::unavailable("cut: try again"))
        });
        let after = query.after.unwrap_or(Revision(1));
        Ok(Watching { history: BORN.history, after, batches: Box::pin(batches.chain(silence)) })
    }

    async fn status(&self) -> Result<Status> {
        Ok(Status {
            tier: Tier::Global,
            version: "0.1.0".into(),
            serving: true,
            born: Some(self.clock()),
            revision: Revision(self.state.lock().revision),
            lease: Duration::from_secs(2),
            facts: vec![("engine".into(), "fake".into())],
        })
    }
}

/// Bytes that tell their places apart.
pub fn bytes_of(size: usize) -> Bytes {
    (0..size).map(|i| (i * 31 % 251) as u8).collect()
}

/// Waits for something that happens elsewhere.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 5 s: {what}");
}
