//! The node: what its users ask, and in which order it is looked for.
//!
//! ```text
//! get by name   hit (core.hit: lease, one lookup, clock)          -> Tier::Local
//!               else core.read: flight -> Global -> blob -> admit -> Tier::Global, cached or not
//!               too large to keep, no room now, or a small part of a large one: streamed through, verified group by group
//! get by hash   held, else fetched once for all, else streamed through
//! set           small: carried; larger: offered by hash, or staged first; then decided at Global
//!               occupied: the winner is resolved like any GET
//! delete        decided at Global, which waits for every holder
//! ```
//! Invariants: a name is never answered from memory but by a hit, an absence under the same lease, or, where that
//! was asked for and Global does not answer, as stale with its age; a SET is never answered here, not even from
//! a held name (rule 23); every wait ends by the node's deadline, or with the transfer's idle deadline.

mod front;
mod many;
mod standing;
mod store;

pub(crate) use store::status_of;

use crate::blob_flight::Landed;
use crate::copies::Copies;
use crate::core::{Changed, Core, Looked, stopped};
use bytes::{Bytes, BytesMut};
use dstore_proto::IdSource;
use dstore_proto::store::{Body, BodyStream, Found, Provenance, SetReply, Slice, Stat, Tier};
use dstore_shared::limits::{CARRIED_BYTES_MAX, WATCHES_PER_CONNECTION};
use dstore_shared::{
    Attributes, Blob, BlobHash, ClientId, Command, Entry, Error, Name, Outcome, RequestId, Result, Revision,
    SetOutcome,
};
use futures_util::StreamExt;
use futures_util::stream;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::error::Elapsed;

/// Identities that the node's own requests take in turn: each may have 1,024 in flight.
const CLIENTS: u64 = 64;

/// Watches at a time, which is what its connection to Global may have; one more is refused.
const WATCHES_MAX: usize = WATCHES_PER_CONNECTION;

/// The node. Clones share it.
#[derive(Clone)]
pub struct Node {
    core: Arc<Core>,
    deadline: Duration,
    ids: Arc<Ids>,
    copies: Copies,
    watches: Arc<Semaphore>,
}

struct Ids {
    first: u128,
    next: AtomicU64,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Node")
    }
}

impl Node {
    pub(crate) fn new(core: Arc<Core>, deadline: Duration) -> Self {
        let ids = Ids { first: core.sys.rng.next_u128(), next: AtomicU64::new(0) };
        let copies = Copies::new(core.cache.blob_bytes_max());
        let watches = Arc::new(Semaphore::new(WATCHES_MAX));
        Self { core, deadline, ids: Arc::new(ids), copies, watches }
    }

    /// The value of `name`, if the node holds it under a valid lease. Synchronous, one lookup, no allocation.
    pub fn hit(&self, name: &Name) -> Option<(Entry, Blob)> {
        self.core.hit(name.as_bytes()).map(|hit| (hit.entry, hit.blob))
    }

    /// An id for a change of the embedding process. A change that is tried again keeps its id.
    ///
    /// # Errors
    /// `Unavailable` if Global was not reached within the node's deadline, ever.
    pub async fn request_id(&self) -> Result<RequestId> {
        let wait = async {
            loop {
                // Before the look, so that a session that begins in between is not missed.
                let moved = self.core.lease_moved();
                match self.ids.next_id(&self.core) {
                    Ok(id) => return id,
                    Err(_) => moved.await,
                }
            }
        };
        self.in_time(wait).await?.map_err(|_| self.away())
    }

    /// What the cache holds and did.
    pub fn cache_stats(&self) -> crate::cache::CacheStats {
        self.core.cache.stats()
    }

    /// Turns a bit of the copy that `name` is served from, as a defect of the memory does; `false` if it is not held.
    #[cfg(feature = "faults")]
    pub fn damage(&self, name: &Name) -> bool {
        self.core.damage_copy(name)
    }

    fn away(&self) -> Error {
        away_for(self.deadline)
    }

    async fn answer<T>(&self, from: Result<oneshot::Receiver<Result<T>>>) -> Result<T> {
        match self.in_time(from?).await? {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(stopped()),
            Err(_) => Err(self.away()),
        }
    }

    /// What came within the deadline.
    ///
    /// # Errors
    /// As soon as nobody would bring an answer any more: `Unavailable` when the node stops, and what
    /// [`Core::refused`] says.
    async fn in_time<T>(&self, answer: impl Future<Output = T>) -> Result<Result<T, Elapsed>> {
        self.within(self.deadline, answer).await
    }

    /// As [`Self::in_time`], with a limit of its own.
    async fn within<T>(
        &self,
        limit: Duration,
        answer: impl Future<Output = T>,
    ) -> Result<Result<T, Elapsed>> {
        let stop = self.core.tasks.token();
        tokio::select! {
            biased;
            answer = tokio::time::timeout(limit, answer) => Ok(answer),
            () = stop.cancelled() => Err(stopped()),
            why = self.core.refused() => Err(why),
        }
    }

    async fn get_name(&self, name: Name, slice: Slice, stale: Option<Duration>) -> Result<Option<Found>> {
        if let Some(hit) = self.core.hit(name.as_bytes()) {
            self.core.served.hits.fetch_add(1, Ordering::Relaxed);
            let from = self.of(&hit.entry, (Tier::Local, true), hit.entry.bind_rev);
            return found(hit.entry, from, hit.blob, slice).map(Some);
        }
        if self.core.is_absent(name.as_bytes()) {
            return Ok(None);
        }
        let _timed = self.core.served.miss(&*self.core.sys.clock);
        if stale.is_none()
            && let Some(part) = self.part(&name, slice).await?
        {
            return Ok(part);
        }
        let began = self.core.sys.clock.now();
        // A large blob may take longer than the deadline to arrive: its own transfer has an idle deadline.
        let limit = stale.map_or(self.deadline, |wait| wait.min(self.deadline));
        let Some(looked) = self.transfer(&name, self.core.read(&name)?, limit).await? else {
            // Global does not answer. Only now, and only if it was asked for, will an old value do.
            let old = stale.and_then(|_| self.core.stale(name.as_bytes()));
            let (hit, age) = old.ok_or_else(|| away_for(limit))?;
            let from = stale_since(&hit.entry, age);
            return found(hit.entry, from, hit.blob, slice).map(Some);
        };
        let Looked { entry, blob, cached, head } = looked;
        let Some(entry) = entry else { return Ok(None) };
        let asked_for = Some(self.core.sys.clock.now().since(began));
        let from = Provenance { asked_for, ..self.of(&entry, (Tier::Global, cached), head) };
        match blob {
            Some(blob) => found(entry, from, blob, slice).map(Some),
            None => self.stream_through(entry, from, slice).await,
        }
    }

    /// A small part of a large blob that is not held: only that is moved, and nothing kept. `None`: read it as usual.
    async fn part(&self, name: &Name, slice: Slice) -> Result<Option<Option<Found>>> {
        if slice == Slice::ALL {
            return Ok(None);
        }
        let Looked { entry, head, .. } = self.answer(self.core.look(name)).await?;
        let Some(entry) = entry else { return Ok(Some(None)) };
        if !is_small_part(slice, entry.size)? || self.core.cache.have(&entry.hash).is_some() {
            return Ok(None);
        }
        let from = self.of(&entry, (Tier::Global, false), head);
        self.stream_through(entry, from, slice).await.map(Some)
    }

    /// Waits for the name for `limit`, and for its blob as long as that moves. `None`: Global did not answer.
    async fn transfer(
        &self,
        name: &Name,
        mut answer: oneshot::Receiver<Result<Looked>>,
        limit: Duration,
    ) -> Result<Option<Looked>> {
        loop {
            match self.within(limit, &mut answer).await? {
                Ok(Ok(looked)) => return looked.map(Some),
                Ok(Err(_)) => return Err(stopped()),
                Err(_) if self.core.is_fetching(name) => {}
                Err(_) => return Ok(None),
            }
        }
    }

    async fn stat_name(&self, name: Name, stale: Option<Duration>) -> Result<Option<Stat>> {
        // What has a time to live may live longer by now: nobody was told (rule 9).
        let held = self.core.hit(name.as_bytes()).filter(|hit| hit.entry.expires_at.is_none());
        if let Some(hit) = held {
            let from = Provenance::new(Tier::Local, true, hit.entry.bind_rev);
            return Ok(Some(Stat { entry: hit.entry, from }));
        }
        if self.core.is_absent(name.as_bytes()) {
            return Ok(None);
        }
        let limit = stale.map_or(self.deadline, |wait| wait.min(self.deadline));
        let Ok(looked) = self.within(limit, self.core.look(&name)?).await? else {
            let old = stale.and_then(|_| self.core.stale(name.as_bytes()));
            let (hit, age) = old.ok_or_else(|| away_for(limit))?;
            return Ok(Some(Stat { from: stale_since(&hit.entry, age), entry: hit.entry }));
        };
        let looked = looked.map_err(|_| stopped())??;
        let from = |entry: &Entry| self.of(entry, (Tier::Global, false), looked.head);
        Ok(looked.entry.map(|entry| Stat { from: from(&entry), entry }))
    }

    /// Where an answer about `entry` comes from.
    fn of(&self, entry: &Entry, (tier, cached): (Tier, bool), revision: Revision) -> Provenance {
        let from = Provenance::new(tier, cached, revision);
        if entry.expires_at.is_some() { from.timed(self.core.journal_about()) } else { from }
    }

    async fn get_hash(&self, hash: BlobHash, slice: Slice) -> Result<Option<Found>> {
        let entry = |size| Entry { hash, size, bind_rev: Revision(0), expires_at: None, content_type: None };
        let from = |tier, cached| Provenance::new(tier, cached, Revision(0));
        if let Some(blob) = self.core.cache.have(&hash) {
            return found(entry(blob.size()), from(Tier::Local, true), blob, slice).map(Some);
        }
        if slice != Slice::ALL {
            // Its header tells the size.
            let Some(fetched) = self.core.link.fetch(hash, slice).await? else { return Ok(None) };
            if is_small_part(slice, fetched.size)? {
                let body = Body::Stream(fetched.body);
                let from = from(Tier::Global, false);
                return Ok(Some(Found { entry: entry(fetched.size), from, body }));
            }
        }
        match self.core.blob(hash, None, None).await? {
            Landed::Here(blob) => found(entry(blob.size()), from(Tier::Global, true), blob, slice).map(Some),
            Landed::Gone => Ok(None),
            Landed::NoRoom => {
                let Some(fetched) = self.core.link.fetch(hash, slice).await? else { return Ok(None) };
                let body = Body::Stream(fetched.body);
                Ok(Some(Found { entry: entry(fetched.size), from: from(Tier::Global, false), body }))
            }
        }
    }

    async fn stat_hash(&self, hash: BlobHash) -> Result<Option<Stat>> {
        let stat = |size, tier, cached| {
            let entry = Entry { hash, size, bind_rev: Revision(0), expires_at: None, content_type: None };
            Stat { entry, from: Provenance::new(tier, cached, Revision(0)) }
        };
        if let Some(blob) = self.core.cache.have(&hash) {
            return Ok(Some(stat(blob.size(), Tier::Local, true)));
        }
        // The header of a fetch tells the size; no byte of the blob is asked for.
        let fetched = self.core.link.fetch(hash, Slice { offset: 0, len: Some(0) }).await?;
        Ok(fetched.map(|fetched| stat(fetched.size, Tier::Global, false)))
    }

    /// Passes on a blob that is too large to keep; each group is verified before.
    async fn stream_through(&self, entry: Entry, from: Provenance, slice: Slice) -> Result<Option<Found>> {
        slice.within(entry.size)?;
        match self.core.link.fetch(entry.hash, slice).await? {
            Some(fetched) => Ok(Some(Found { entry, from, body: Body::Stream(fetched.body) })),
            None => Err(Error::unavailable("the value changed while it was looked for: try again")),
        }
    }

    /// SET with a name, once the bytes are at hand or staged.
    async fn decide(&self, id: RequestId, name: Name, blob: Bound) -> Result<SetReply> {
        // Rule 23: Global is asked all the same.
        let held = self.core.hit(name.as_bytes()).is_some();
        let began = self.core.sys.clock.now();
        let changed = self.put(id, &name, &blob).await?;
        let asked_for = Some(self.core.sys.clock.now().since(began));
        let reply = self.told(&name, changed, held).await?;
        Ok(SetReply { from: Provenance { asked_for, ..reply.from }, ..reply })
    }

    /// The answer to a SET. `held`: the name was held when it came.
    async fn told(&self, name: &Name, changed: Changed, held: bool) -> Result<SetReply> {
        let Changed { outcome, cached, .. } = changed;
        let Outcome::Set(outcome) = outcome else {
            return Err(Error::internal("global answered a SET with another outcome: report this"));
        };
        let from = match &outcome {
            SetOutcome::Stored(entry) => self.of(entry, (Tier::Global, cached), entry.bind_rev),
            SetOutcome::Unchanged(entry) | SetOutcome::Occupied(entry) => {
                let tier = if held { Tier::Local } else { Tier::Global };
                let cached = held || self.resolve_winner(name, entry.hash).await;
                self.of(entry, (tier, cached), entry.bind_rev)
            }
            SetOutcome::NeedBlob => Provenance::new(Tier::Global, false, self.core.standing().1),
        };
        Ok(SetReply { outcome, from })
    }

    /// Sends the change; a blob that is not carried is staged when Global says that it has it not.
    async fn put(&self, id: RequestId, name: &Name, blob: &Bound) -> Result<Changed> {
        let small = blob.size <= CARRIED_BYTES_MAX as u64;
        let carried = blob.bytes.clone().filter(|_| small);
        let command = blob.command(name, carried);
        let done = self.answer(self.core.change(id, command, self.own(blob))).await.map_err(unknown)?;
        self.staged_if_needed(id, name, blob, done).await
    }

    /// What is kept under its name if Global agrees.
    fn own(&self, blob: &Bound) -> Option<Blob> {
        blob.bytes.clone().filter(|b| b.size() <= self.core.cache.blob_bytes_max())
    }

    async fn staged_if_needed(
        &self,
        id: RequestId,
        name: &Name,
        blob: &Bound,
        done: Changed,
    ) -> Result<Changed> {
        match (&done.outcome, &blob.bytes) {
            (Outcome::Set(SetOutcome::NeedBlob), Some(bytes)) => {
                dstore_sys::failpoint!("local::stage::before");
                self.core.link.stage(Body::Blob(bytes.clone())).await?;
                dstore_sys::failpoint!("local::stage::after");
                let command = blob.command(name, None);
                self.answer(self.core.change(id, command, self.own(blob))).await.map_err(unknown)
            }
            _ => Ok(done),
        }
    }

    /// After an occupied SET the name is resolved like any other (rule 23). Whether the node holds it now.
    async fn resolve_winner(&self, name: &Name, hash: BlobHash) -> bool {
        let looked = self.answer(self.core.read(name)).await;
        looked.is_ok_and(|l| l.cached && l.entry.is_some_and(|e| e.hash == hash))
    }

    /// Takes a body in: whole if it is small enough to keep, staged at Global on the way if it is not small.
    async fn take_in(&self, body: Body) -> Result<Bound> {
        let stream = match body {
            Body::Blob(blob) => return Ok(Bound::whole(blob)),
            Body::Bytes(bytes) => return Ok(Bound::whole(Blob::hash(bytes))),
            Body::Stream(stream) => stream,
        };
        let (head, rest) = gather(stream, CARRIED_BYTES_MAX).await?;
        match rest {
            None => Ok(Bound::whole(Blob::hash(head))),
            Some(rest) => self.stage(head, rest).await,
        }
    }

    /// Stages a long stream, keeping a copy as long as it is small enough for the cache.
    async fn stage(&self, head: Bytes, rest: BodyStream) -> Result<Bound> {
        let copy = Arc::new(parking_lot::Mutex::new(self.copies.begin()));
        let tee = copy.clone();
        let body = stream::iter(pieces(&head)).chain(rest).inspect(move |piece| {
            let mut copy = tee.lock();
            *copy = match (piece, copy.take()) {
                (Ok(piece), Some(kept)) => kept.with(piece),
                _ => None,
            };
        });
        let (hash, size) = self.core.link.stage(Body::Stream(Box::pin(body))).await?;
        dstore_sys::failpoint!("local::stage::streamed");
        let copied = copy.lock().take().and_then(|copy| copy.finish(&self.core.rooms));
        let bytes = copied.and_then(|bytes| Blob::verify(bytes, hash).ok());
        Ok(Bound { hash, size, staged: true, bytes, attributes: Attributes::default() })
    }
}

/// A blob about to be bound.
struct Bound {
    hash: BlobHash,
    size: u64,
    /// Global has it.
    staged: bool,
    /// A copy, if there is one; without one it is staged.
    bytes: Option<Blob>,
    /// What is said besides.
    attributes: Attributes,
}

impl Bound {
    fn whole(blob: Blob) -> Self {
        let attributes = Attributes::default();
        Self { hash: blob.id(), size: blob.size(), staged: false, bytes: Some(blob), attributes }
    }

    /// The change that binds `name` to it.
    fn command(&self, name: &Name, carried: Option<Blob>) -> Command {
        let (hash, size, attributes) = (self.hash, self.size, self.attributes.clone());
        Command::Set { name: name.clone(), hash, size, carried, attributes }
    }
}

impl Ids {
    fn next_id(&self, core: &Core) -> Result<RequestId> {
        let born = core.born().ok_or_else(|| Error::unavailable("global was not reached yet: try again"))?;
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let client = ClientId(self.first.wrapping_add(u128::from(turn % CLIENTS)));
        Ok(RequestId { client, n: turn / CLIENTS + 1, born })
    }
}

impl IdSource for Node {
    fn next_id(&self) -> Result<RequestId> {
        self.ids.next_id(&self.core)
    }
}

fn away_for(limit: Duration) -> Error {
    Error::unavailable(format!("global does not answer within `{limit:?}`: try again"))
        .retry_after(Duration::from_secs(1))
}

/// Of a value that may have been wrong for `age`.
fn stale_since(entry: &Entry, age: Duration) -> Provenance {
    Provenance { stale_for: Some(age), ..Provenance::new(Tier::Local, true, entry.bind_rev) }
}

fn found(entry: Entry, from: Provenance, blob: Blob, slice: Slice) -> Result<Found> {
    let body = if slice == Slice::ALL {
        Body::Blob(blob)
    } else {
        let range = slice.within(entry.size)?;
        Body::Bytes(blob.bytes().slice(range.start as usize..range.end as usize))
    };
    Ok(Found { entry, from, body })
}

/// Whether so little of a blob of `size` bytes is asked for that the rest is not worth fetching.
fn is_small_part(slice: Slice, size: u64) -> Result<bool> {
    let range = slice.within(size)?;
    Ok(size > CARRIED_BYTES_MAX as u64 && range.end - range.start <= size / 2)
}

/// A change that was sent and not answered may have been made.
fn unknown(e: Error) -> Error {
    if e.kind() == dstore_shared::Kind::Unavailable && !e.message().contains("unknown") {
        let text = format!("outcome unknown: {}", e.message());
        return Error::unavailable(text).retry_after(e.delay().unwrap_or(Duration::from_secs(1)));
    }
    e
}

/// Takes up to `max` bytes and a piece more from a stream; the rest, if it did not end by then.
async fn gather(mut stream: BodyStream, max: usize) -> Result<(Bytes, Option<BodyStream>)> {
    let mut head = BytesMut::new();
    while let Some(piece) = stream.next().await {
        head.extend_from_slice(&piece?);
        if head.len() > max {
            return Ok((head.freeze(), Some(stream)));
        }
    }
    Ok((head.freeze(), None))
}

fn pieces(bytes: &Bytes) -> Vec<Result<Bytes>> {
    bytes.chunks(dstore_shared::limits::CHUNK_BYTES).map(|piece| Ok(bytes.slice_ref(piece))).collect()
}
