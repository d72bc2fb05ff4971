//! Global's side of the tier link: sessions, request streams, staging, fetching.
//!
//! Moves frames between streams and the authority and decides nothing. Each stream has one task that reads
//! it, owned by the authority's tasks; a stream whose peer does not read is ended by its bounded queue.

mod many;

use crate::authority::{Asked, Authority, Queued, Responder};
use crate::blobs::{Failure, Held};
use crate::committer::Work;
use crate::mailbox::Receiver;
use crate::sessions::{Caller, StreamId};
use bytes::{Bytes, BytesMut};
use dstore_proto::link::{Fetch, Frames, LinkHost};
use dstore_proto::store::{BodyStream, Slice};
use dstore_shared::frame::{Answer, Ask, Down, Listed, Reply, Request, Resolved, Up};
use dstore_shared::limits::{BATCH_LEN_MAX, CARRIED_BYTES_MAX, INLINE_BYTES_MAX};
use dstore_shared::{
    Blob, BlobHash, Command, Entry, Epoch, Error, GROUP_BYTES, Outline, OutlineBuilder, Result,
};
use dstore_sys::net::BoxFuture;
use futures_util::stream::{self, Stream, StreamExt};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Requests of one stream that may be unanswered before it is read no further.
const IN_FLIGHT_MAX: usize = 8192;
/// Questions about many names of one stream whose answers are not sent: each may have 512 KiB.
const MANY_IN_FLIGHT_MAX: usize = 64;
/// Frames of one session that are taken in before others have their turn.
const TAKEN_AT_ONCE: usize = 64;

/// The authority as its Locals see it.
#[derive(Clone, Debug)]
pub(crate) struct Host(pub Arc<Authority>);

impl LinkHost for Host {
    async fn session(&self, mut up: Frames<Up>) -> Result<Frames<Down>> {
        let Some(Ok(Up::Hello(mut hello))) = up.next().await else {
            return Err(Error::invalid("a session begins with HELLO: send it first"));
        };
        let authority = &self.0;
        hello.negatives = hello.negatives && authority.expect_negatives().await;
        let (id, frames) = authority.open_stream();
        if let Err(e) = authority.event(|m, now| m.hello(now, id, &hello)) {
            authority.close_stream(id);
            return Err(e);
        }
        let listing = Listings { at_work: None, waiting: None };
        Ok(Box::pin(SessionStream { authority: authority.clone(), id, up: Some(up), frames, listing }))
    }

    async fn requests(&self, mut up: Frames<Vec<Request>>) -> Result<Frames<Vec<Reply>>> {
        let (replies, mut queue) = mpsc::channel(IN_FLIGHT_MAX);
        let many = Arc::new(Semaphore::new(MANY_IN_FLIGHT_MAX));
        let authority = self.0.clone();
        self.0.readers.spawn("requests", async move {
            let gone = replies.clone();
            let read = async {
                while let Some(Ok(batch)) = up.next().await {
                    if take_requests(&authority, batch, &replies, &many).await.is_none() {
                        return;
                    }
                }
            };
            // In a fixed order, here as everywhere: a simulation's seed is to decide what happens.
            tokio::select! {
                biased;
                () = gone.closed() => {}
                () = read => {}
            }
        });
        let next = stream::poll_fn(move |cx| {
            let mut batch = Vec::new();
            queue.poll_recv_many(cx, &mut batch, BATCH_LEN_MAX).map(|n| {
                let batch = batch.into_iter().map(|queued: Queued| queued.reply).collect();
                (n > 0).then_some(Ok(batch))
            })
        });
        Ok(Box::pin(next))
    }

    async fn stage(&self, size: Option<u64>, body: BodyStream) -> Result<(BlobHash, u64)> {
        self.0.take_blob(size, body).await
    }

    async fn fetch(&self, hash: BlobHash, slice: Slice) -> Result<Option<Fetch>> {
        self.0.give_blob(hash, slice).await
    }
}

/// One batch of names that a Local holds.
struct Listing {
    epoch: Epoch,
    batch: u64,
    names: Vec<Listed>,
    last: bool,
}

/// A session's two directions as one: whoever takes the frames for the Local has those of the Local taken in.
///
/// So a session needs no task besides the one that sends its frames: ten thousand of them pay for each task twice, in
/// memory and at each renewal. A peer that reads nothing is read no further, once its window is full: its lease ends.
struct SessionStream {
    authority: Arc<Authority>,
    id: StreamId,
    /// Gone when the Local's side has ended.
    up: Option<Frames<Up>>,
    frames: Receiver<Result<Down>>,
    listing: Listings,
}

/// SUMMARYs of one session, answered beside its other frames, so that no ACK waits for a look at the disk. A Local lists
/// one batch at a time; one that comes before the answer takes the place of the one before.
struct Listings {
    at_work: Option<BoxFuture<'static, ()>>,
    waiting: Option<Listing>,
}

impl Stream for SessionStream {
    type Item = Result<Down>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Down>>> {
        let this = &mut *self;
        this.take_in(cx);
        this.list(cx);
        this.frames.poll_take(cx)
    }
}

impl SessionStream {
    /// Takes in what the Local has sent.
    fn take_in(&mut self, cx: &mut Context<'_>) {
        for _ in 0..TAKEN_AT_ONCE {
            let Some(up) = &mut self.up else { return };
            match up.as_mut().poll_next(cx) {
                Poll::Pending => return,
                Poll::Ready(Some(Ok(frame))) => self.take_frame(frame),
                Poll::Ready(Some(Err(_)) | None) => {
                    self.up = None;
                    self.authority.close_stream(self.id);
                }
            }
        }
        cx.waker().wake_by_ref();
    }

    fn take_frame(&mut self, frame: Up) {
        let (authority, id) = (&self.authority, self.id);
        match frame {
            // A second HELLO on a stream is a new stream's business.
            Up::Hello(_) => authority.close_stream(id),
            Up::Keep { epoch, n, acked } => authority.event(|m, now| m.keep(now, id, epoch, n, acked)),
            Up::Ack { epoch, seq } => authority.event(|m, now| m.ack(now, id, epoch, seq)),
            Up::Bye { epoch } => authority.event(|m, now| m.bye(now, id, epoch)),
            Up::Drop { epoch, names } => authority.event(|m, now| {
                for (name, reg_seq) in &names {
                    m.drop_name(now, id, epoch, name, *reg_seq);
                }
            }),
            Up::Summary { epoch, batch, names, last } => {
                self.listing.waiting = Some(Listing { epoch, batch, names, last });
            }
        }
    }

    /// Goes on with what was listed.
    fn list(&mut self, cx: &mut Context<'_>) {
        loop {
            if let Some(at_work) = &mut self.listing.at_work {
                if at_work.as_mut().poll(cx).is_pending() {
                    return;
                }
                self.listing.at_work = None;
            }
            let Some(listing) = self.listing.waiting.take() else { return };
            let (authority, id) = (self.authority.clone(), self.id);
            self.listing.at_work = Some(Box::pin(take_listing(authority, id, listing)));
        }
    }
}

impl Drop for SessionStream {
    fn drop(&mut self) {
        self.authority.close_stream(self.id);
    }
}

/// Answers a SUMMARY. Within the grace, and while the Local is slow, nobody is registered: it waits for the end of that,
/// instead of being refused.
async fn take_listing(authority: Arc<Authority>, id: StreamId, listing: Listing) {
    let Listing { epoch, batch, names, last } = listing;
    loop {
        let wait = authority.event(|m, now| m.listing_wait(now, epoch));
        if wait.is_zero() {
            break;
        }
        tokio::time::sleep(wait).await;
    }
    let refused = if names.is_empty() {
        Vec::new()
    } else {
        let looks = authority.clone();
        authority.sys.blocking.run(move || looks.register_listed(epoch, &names)).await
    };
    let pause = authority.event(|m, now| {
        m.summarized(now, id, epoch, batch, refused, last);
        m.listing_pause(epoch)
    });
    tokio::time::sleep(pause).await;
}

/// Starts a batch of requests; `None` if nobody reads replies any more.
async fn take_requests(
    authority: &Arc<Authority>,
    batch: Vec<Request>,
    replies: &mpsc::Sender<Queued>,
    many: &Arc<Semaphore>,
) -> Option<()> {
    let mut resolves = Vec::with_capacity(batch.len());
    // Changes that came together are submitted together, but none waits for the room that another one needs.
    let mut changes = Vec::new();
    for request in batch {
        // A place for the reply is reserved first: so no reply ever waits, and no queue is unbounded.
        let permit = if let Ok(permit) = replies.clone().try_reserve_owned() {
            permit
        } else {
            authority.submit_all(std::mem::take(&mut changes));
            replies.clone().reserve_owned().await.ok()?
        };
        let (flight, epoch, reg_seq) = (request.flight, request.epoch, request.reg_seq);
        match request.ask {
            Ask::Resolve { name, have, cache, carry } => {
                resolves.push(Resolve {
                    request: (flight, epoch),
                    reg_seq,
                    name,
                    have,
                    cache,
                    carry,
                    permit,
                });
            }
            Ask::Change { id, command } => {
                let caller = (reg_seq.0 > 0).then_some(Caller { epoch, reg_seq });
                let bytes = match &command {
                    Command::Set { carried: Some(blob), .. } => {
                        let len = blob.bytes().len();
                        match authority.try_admit(len) {
                            None => {
                                authority.submit_all(std::mem::take(&mut changes));
                                authority.admit(len).await
                            }
                            room => room,
                        }
                    }
                    _ => None,
                };
                changes.push(Asked {
                    id,
                    command,
                    caller,
                    responder: Responder::Stream(flight, permit, bytes),
                });
            }
            Ask::ResolveMany { names, cache, carry } => {
                let room = if let Ok(room) = many.clone().try_acquire_owned() {
                    room
                } else {
                    authority.submit_all(std::mem::take(&mut changes));
                    many.clone().acquire_owned().await.ok()?
                };
                Host(authority.clone()).resolve_many(many::ResolveMany {
                    flight,
                    epoch,
                    reg_seq,
                    names,
                    cache,
                    carry,
                    permit,
                    room,
                });
            }
        }
    }
    authority.submit_all(changes);
    if !resolves.is_empty() {
        authority.resolve_all(resolves);
    }
    Some(())
}

/// A Resolve on its way.
struct Resolve {
    request: (dstore_shared::FlightId, Epoch),
    reg_seq: dstore_shared::RegSeq,
    name: dstore_shared::Name,
    have: Option<BlobHash>,
    cache: bool,
    carry: bool,
    permit: mpsc::OwnedPermit<Queued>,
}

impl Resolve {
    fn wants_bytes(&self, entry: &Entry) -> bool {
        self.carry && entry.size <= CARRIED_BYTES_MAX as u64 && self.have != Some(entry.hash)
    }

    fn answer(self, answer: Result<Resolved>, born: dstore_shared::Born) {
        let answer = answer.map_or_else(Answer::Failed, Answer::Resolved);
        self.permit.send(Reply { flight: self.request.0, answer, born }.into());
    }
}

impl Authority {
    /// Makes it durable that "not found" answers may be leased, before the first one is (rule 29). False: they may
    /// not.
    async fn expect_negatives(self: &Arc<Self>) -> bool {
        let authority = self.clone();
        let noted = self.sys.blocking.run(move || match authority.dir.upgrade() {
            Some(dir) => dir.persist_negatives(),
            None => Err(Error::unavailable("global is stopping")),
        });
        match noted.await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "a local wants to keep answers about absent names: it may not");
                false
            }
        }
    }

    /// Answers what memory knows under one hold of the lock, the rest after a look at the disk.
    fn resolve_all(self: &Arc<Self>, resolves: Vec<Resolve>) {
        let (born, looked) = self.event(|m, now| {
            let looked: Vec<_> = resolves
                .into_iter()
                .map(|resolve| {
                    // Visible state changes under this lock only, so look and registration are one step.
                    let Some(entry) = self.catalog.entry_hot(&resolve.name) else { return (resolve, None) };
                    let epoch = resolve.request.1;
                    let wanted = resolve.cache && (entry.is_some() || m.keeps_absences(epoch));
                    let cacheable = wanted.then(|| {
                        let name = &resolve.name;
                        let made = m.begin_read(now, epoch, name, resolve.reg_seq)?;
                        match entry {
                            Some(_) => m.end_read(now, name, made, true),
                            None => m.end_absent(now, name, made),
                        }
                    });
                    let cacheable = cacheable.flatten();
                    let resolved = Resolved { entry, carried: None, cacheable, head: m.head() };
                    (resolve, Some(resolved))
                })
                .collect();
            (m.born(now), looked)
        });
        let mut cold = Vec::new();
        for (resolve, known) in looked {
            match known {
                Some(mut resolved) => match resolved.entry.filter(|entry| resolve.wants_bytes(entry)) {
                    None => resolve.answer(Ok(resolved), born),
                    Some(entry) => match self.catalog.inline_hot(&entry.hash) {
                        Some(bytes) => {
                            let verified = self.verified(bytes, entry.hash);
                            let answer = verified.map(|blob| {
                                resolved.carried = Some(blob);
                                resolved
                            });
                            resolve.answer(answer, born);
                        }
                        None => cold.push((resolve, Some(resolved))),
                    },
                },
                None => cold.push((resolve, None)),
            }
        }
        if !cold.is_empty() {
            let authority = self.clone();
            self.tasks.spawn("resolve", async move {
                let reader = authority.clone();
                authority.sys.blocking.run(move || reader.resolve_cold(cold)).await;
            });
        }
    }

    /// As [`Self::resolve_all`], for what is not in memory. Blocks.
    fn resolve_cold(self: &Arc<Self>, cold: Vec<(Resolve, Option<Resolved>)>) {
        for (resolve, known) in cold {
            let looked = match known {
                Some(resolved) => Ok(resolved),
                None => self.look_and_register(&resolve),
            };
            let answer = looked.and_then(|mut resolved| {
                if let Some(entry) = resolved.entry.filter(|entry| resolve.wants_bytes(entry))
                    && let Some(bytes) = self.catalog.inline(&entry.hash)?
                {
                    resolved.carried = Some(self.verified(bytes, entry.hash)?);
                }
                Ok(resolved)
            });
            resolve.answer(answer, self.born());
        }
    }

    fn look_and_register(&self, resolve: &Resolve) -> Result<Resolved> {
        let epoch = resolve.request.1;
        let made = if resolve.cache {
            self.event(|m, now| m.begin_read(now, epoch, &resolve.name, resolve.reg_seq))
        } else {
            None
        };
        let name = &resolve.name;
        let looked = self.look(name);
        let Some(made) = made else {
            let (entry, head) = looked?;
            return Ok(Resolved { entry, carried: None, cacheable: None, head });
        };
        let (cacheable, now_head) = self.event(|m, now| {
            let cacheable = match &looked {
                Ok((Some(_), _)) => m.end_read(now, name, made, true),
                Ok((None, _)) => m.end_absent(now, name, made),
                Err(_) => m.end_read(now, name, made, false),
            };
            (cacheable, m.head())
        });
        let (entry, head) = looked?;
        // A leased absence is of the machine's head, which INVs are measured by (rule 9).
        let head = if entry.is_none() && cacheable.is_some() { now_head } else { head };
        Ok(Resolved { entry, carried: None, cacheable, head })
    }

    /// Registers the names of a SUMMARY batch that are bound as the Local holds them; gives the others. Blocks.
    fn register_listed(&self, epoch: Epoch, listed: &[Listed]) -> Vec<u32> {
        self.listed.fetch_add(listed.len() as u64, Ordering::Relaxed);
        let refused = listed.iter().enumerate().filter(|(_, listed)| {
            let made = self.event(|m, now| m.begin_read(now, epoch, &listed.name, listed.reg_seq));
            let Some(made) = made else { return true };
            let same = matches!(self.look(&listed.name), Ok((Some(e), _)) if e.bind_rev == listed.bind_rev);
            self.event(|m, now| m.end_read(now, &listed.name, made, same)).is_none()
        });
        refused.map(|(i, _)| i as u32).collect()
    }

    /// Bytes of the index as a blob; damaged ones are marked.
    fn verified(self: &Arc<Self>, bytes: Bytes, hash: BlobHash) -> Result<Blob> {
        Blob::verify(bytes, hash).inspect_err(|_| self.mark(hash, "its bytes have another hash"))
    }

    /// Has the journal remember that a blob is damaged.
    pub(crate) fn mark(self: &Arc<Self>, hash: BlobHash, why: &str) {
        tracing::error!(%hash, why, "a blob is damaged: set it again");
        let authority = self.clone();
        self.tasks.spawn("mark", async move {
            // If it cannot be journaled now, the next reader finds it again.
            let _ = authority.commit(Work::Mark { hash }).await;
        });
    }

    /// Takes a blob in: small ones into the index, large ones into a file. It is kept for the grace.
    pub(crate) async fn take_blob(
        self: &Arc<Self>,
        size: Option<u64>,
        mut body: BodyStream,
    ) -> Result<(BlobHash, u64)> {
        if let Some(e) = self.failed() {
            return Err(e);
        }
        // What it would be named by is refused already: better now than after the upload.
        self.event(|m, _| m.check_taking())?;
        let mut head = BytesMut::new();
        while head.len() <= INLINE_BYTES_MAX {
            if let Some(piece) = body.next().await {
                head.extend_from_slice(&piece?);
            } else {
                let blob = Blob::hash(head.freeze());
                let (hash, size) = (blob.id(), blob.size());
                self.commit(Work::Keep { hash, size, carried: Some(blob.compact()) }).await?;
                return Ok((hash, size));
            }
        }
        let mut staging = self.blobs.stage(size).await?;
        staging.write(head.freeze()).await?;
        let mut evicted = pin!(staging.evicted());
        loop {
            let next = tokio::select! {
                biased;
                next = body.next() => next,
                // The next call says why.
                () = &mut evicted => Some(Ok(Bytes::new())),
            };
            let Some(piece) = next else { break };
            staging.write(piece?).await?;
        }
        let staged = staging.finish(None).await.map_err(|failure| match failure {
            Failure::Own(e) => e,
            Failure::Store(e) => {
                self.fail(&e);
                Error::unavailable(format!("outcome unknown: {}", e.message()))
            }
        })?;
        if !staged.fresh && self.is_marked(staged.hash).await? {
            // The damaged file was taken for a good one, because the mark was not in memory yet.
            self.blobs.restore_marks([staged.hash]);
            return Err(Error::unavailable(
                "the blob was damaged at global: set it again, it will be replaced",
            ));
        }
        self.keep(Held { size: staged.size, pin: staged.pin }).await?;
        Ok((staged.hash, staged.size))
    }

    /// Has the journal know of a file. Its pin lives until that is visible or failed, though the caller goes
    /// away: else a sweep could remove the file of a blob that is about to be known.
    pub(crate) async fn keep(self: &Arc<Self>, held: Held) -> Result<()> {
        let (to, answer) = oneshot::channel();
        let authority = self.clone();
        self.tasks.spawn_graceful(async move {
            let Held { size, pin } = held;
            let kept = authority.commit(Work::Keep { hash: pin.hash(), size, carried: None }).await;
            drop(pin);
            // The caller may have gone away.
            let _ = to.send(kept.map(|_| ()));
        });
        answer.await.unwrap_or_else(|_| Err(Error::unavailable("outcome unknown: global is stopping")))
    }

    async fn is_marked(&self, hash: BlobHash) -> Result<bool> {
        let catalog = self.catalog.clone();
        let meta = self.sys.blocking.run(move || catalog.blob(&hash)).await?;
        Ok(meta.is_some_and(|meta| meta.corrupt))
    }

    /// A blob's bytes by its hash, each group verified.
    pub(crate) async fn give_blob(self: &Arc<Self>, hash: BlobHash, slice: Slice) -> Result<Option<Fetch>> {
        let catalog = self.catalog.clone();
        let known = self.sys.blocking.run(move || -> Result<_> {
            let Some(meta) = catalog.blob(&hash)? else { return Ok(None) };
            Ok(Some((meta, catalog.inline(&hash)?)))
        });
        let Some((meta, inline)) = known.await? else { return Ok(None) };
        let range = slice.within(meta.size)?;
        if meta.corrupt {
            return Err(Error::corrupt(format!("blake3:{hash} is damaged at global: set the value again")));
        }
        if let Some(bytes) = inline {
            let blob = self.verified(bytes, hash)?;
            return Ok(Some(whole(&blob, range)));
        }
        if let Some(read) = self.blobs.read(hash, meta.size, slice).await? {
            return Ok(Some(Fetch { size: read.size, outline: read.outline.encode(), body: read.stream }));
        }
        // It was swept since the look, or its file was taken away: a sweep takes nothing that a name is bound to.
        if self.is_bound(hash).await? {
            self.mark(hash, "its file is missing");
            return Err(Error::corrupt(format!("blake3:{hash} is missing at global: set the value again")));
        }
        Ok(None)
    }

    async fn is_bound(&self, hash: BlobHash) -> Result<bool> {
        let catalog = self.catalog.clone();
        let meta = self.sys.blocking.run(move || catalog.blob(&hash)).await?;
        Ok(meta.is_some_and(|meta| meta.refs > 0))
    }
}

/// A blob in memory as a fetch.
fn whole(blob: &Blob, range: std::ops::Range<u64>) -> Fetch {
    let outline = if blob.bytes().len() > GROUP_BYTES { outline(blob).encode() } else { Bytes::new() };
    let bytes = blob.bytes().slice(range.start as usize..range.end as usize);
    Fetch { size: blob.size(), outline, body: dstore_proto::store::Body::Bytes(bytes).into_stream() }
}

fn outline(blob: &Blob) -> Outline {
    let mut builder = OutlineBuilder::new();
    builder.update(blob.bytes());
    builder.finish().1
}
