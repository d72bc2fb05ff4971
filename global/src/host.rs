//! Global's side of the tier link: sessions, request streams, staging, fetching.
//!
//! Moves frames between streams and the authority and decides nothing. Each stream has one task that reads
//! it, owned by the authority's tasks; a stream whose peer does not read is ended by its bounded queue.

mod bulk;
mod many;
mod session;

use crate::authority::{Asked, Authority, Queued, Responder};
use crate::sessions::Caller;
use dstore_proto::link::{Fetch, Frames, LinkHost};
use dstore_proto::store::{BodyStream, Slice};
use dstore_shared::frame::{Answer, Ask, Down, Reply, Request, Resolved, Up};
use dstore_shared::limits::{BATCH_LEN_MAX, CARRIED_BYTES_MAX};
use dstore_shared::{BlobHash, Command, Epoch, Error, Result};
use futures_util::stream::{self, StreamExt};
use session::SessionStream;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Requests of one stream that may be unanswered before it is read no further.
const IN_FLIGHT_MAX: usize = 8192;
/// How often a name is looked up again because its time was over by then.
const LOOKS_MAX: usize = 8;
/// Questions about many names of one stream whose answers are not sent: each may have 512 KiB.
const MANY_IN_FLIGHT_MAX: usize = 64;

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
        dstore_sys::failpoint!("global::session::before_hello");
        let (id, frames) = authority.open_stream();
        if let Err(e) = authority.event(|m, now| m.hello(now, id, &hello)) {
            authority.close_stream(id);
            return Err(e);
        }
        dstore_sys::failpoint!("global::session::after_hello");
        Ok(Box::pin(SessionStream::new(authority.clone(), id, up, frames)))
    }

    async fn requests(&self, mut up: Frames<Vec<Request>>) -> Result<Frames<Vec<Reply>>> {
        let (replies, mut queue) = mpsc::channel(IN_FLIGHT_MAX);
        let many = Arc::new(Semaphore::new(MANY_IN_FLIGHT_MAX));
        let authority = self.0.clone();
        self.0.readers.spawn("requests", async move {
            let gone = replies.clone();
            let read = async {
                let mut intake = Intake::new(&authority, &replies, &many);
                while let Some(Ok(batch)) = up.next().await {
                    for request in batch {
                        if intake.take(request).await.is_none() {
                            return;
                        }
                    }
                    intake.start();
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

/// Requests of one stream that came together. Changes among them are submitted together, and so are Resolves; but
/// nothing waits for the room that another one needs: what was gathered starts before a wait.
struct Intake<'a> {
    authority: &'a Arc<Authority>,
    replies: &'a mpsc::Sender<Queued>,
    many: &'a Arc<Semaphore>,
    changes: Vec<Asked>,
    resolves: Vec<Resolve>,
}

impl<'a> Intake<'a> {
    fn new(
        authority: &'a Arc<Authority>,
        replies: &'a mpsc::Sender<Queued>,
        many: &'a Arc<Semaphore>,
    ) -> Self {
        Self { authority, replies, many, changes: Vec::new(), resolves: Vec::new() }
    }

    /// Gathers a request; `None` if nobody reads replies any more.
    async fn take(&mut self, request: Request) -> Option<()> {
        let permit = self.place().await?;
        let Request { flight, epoch, reg_seq, ask } = request;
        match ask {
            Ask::Resolve { name, have, cache, carry } => {
                let request = (flight, epoch);
                self.resolves.push(Resolve { request, reg_seq, name, have, cache, carry, permit });
            }
            Ask::Change { id, command } => {
                let caller = (reg_seq.0 > 0).then_some(Caller { epoch, reg_seq });
                let bytes = self.admit(&command).await;
                let responder = Responder::Stream(flight, permit, bytes);
                self.changes.push(Asked { id, command, caller, responder });
            }
            Ask::ResolveMany { names, cache, carry } => {
                let room = self.room_for_many().await?;
                let asked = many::ResolveMany { flight, epoch, reg_seq, names, cache, carry, permit, room };
                Host(self.authority.clone()).resolve_many(asked);
            }
        }
        Some(())
    }

    /// A place for the reply, before anything else: so no reply ever waits, and no queue is unbounded.
    async fn place(&mut self) -> Option<mpsc::OwnedPermit<Queued>> {
        if let Ok(permit) = self.replies.clone().try_reserve_owned() {
            return Some(permit);
        }
        self.start();
        self.replies.clone().reserve_owned().await.ok()
    }

    /// Room for the value that a change carries.
    async fn admit(&mut self, command: &Command) -> Option<OwnedSemaphorePermit> {
        let len = match command {
            Command::Set { carried: Some(blob), .. } => blob.bytes().len(),
            // What a step costs in memory besides its bytes, the copies of its name in the queues included.
            Command::Apply(transaction) => {
                transaction.weight() + 512 * (transaction.guards.len() + transaction.steps.len())
            }
            _ => return None,
        };
        if let Some(room) = self.authority.try_admit(len) {
            return Some(room);
        }
        self.start();
        self.authority.admit(len).await
    }

    async fn room_for_many(&mut self) -> Option<OwnedSemaphorePermit> {
        if let Ok(room) = self.many.clone().try_acquire_owned() {
            return Some(room);
        }
        self.start();
        self.many.clone().acquire_owned().await.ok()
    }

    /// Starts what was gathered.
    fn start(&mut self) {
        self.authority.submit_all(std::mem::take(&mut self.changes));
        if !self.resolves.is_empty() {
            self.authority.resolve_all(std::mem::take(&mut self.resolves));
        }
    }
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
    /// The blob whose bytes are wanted with the answer.
    fn wanted(&self, resolved: &Resolved) -> Option<BlobHash> {
        let entry = resolved.entry.as_ref()?;
        let wanted = self.carry && entry.size <= CARRIED_BYTES_MAX as u64 && self.have != Some(entry.hash);
        wanted.then_some(entry.hash)
    }

    /// Journal time is read now, after the look: nothing is served longer than it lives.
    fn answer(self, answer: Result<Resolved>, authority: &Authority, born: dstore_shared::Born) {
        let entry = answer.as_ref().ok().and_then(|resolved| resolved.entry.as_ref());
        let journal_ms = authority.journal_for(entry);
        let answer = answer.map_or_else(Answer::Failed, Answer::Resolved);
        self.permit.send(Reply { flight: self.request.0, answer, born, journal_ms }.into());
    }
}

impl Authority {
    /// Answers what memory knows under one hold of the lock, the rest after a look at the disk.
    fn resolve_all(self: &Arc<Self>, resolves: Vec<Resolve>) {
        let (born, looked) = self.event(|m, now| {
            let looked: Vec<_> = resolves
                .into_iter()
                .map(|resolve| {
                    // Visible state changes under this lock only, so look and registration are one step.
                    let Some(entry) = self.catalog.entry_hot(&resolve.name) else { return (resolve, None) };
                    if entry.as_ref().is_some_and(|entry| self.is_overdue(entry)) {
                        return (resolve, None);
                    }
                    let epoch = resolve.request.1;
                    let wanted = resolve.cache && (entry.is_some() || m.keeps_absences(epoch));
                    let cacheable = wanted.then(|| {
                        let name = &resolve.name;
                        let made = m.begin_read(now, epoch, name, resolve.reg_seq)?;
                        match &entry {
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
                Some(mut resolved) => match resolve.wanted(&resolved) {
                    None => resolve.answer(Ok(resolved), self, born),
                    Some(hash) => match self.catalog.inline_hot(&hash) {
                        Some(bytes) => {
                            let verified = self.verified(bytes, hash);
                            let answer = verified.map(|blob| {
                                resolved.carried = Some(blob);
                                resolved
                            });
                            resolve.answer(answer, self, born);
                        }
                        None => cold.push((resolve, Some(resolved))),
                    },
                },
                None => cold.push((resolve, None)),
            }
        }
        if !cold.is_empty() {
            let authority = self.clone();
            self.tasks.spawn("resolve", async move { authority.resolve_apart(cold).await });
        }
    }

    /// Looks at the disk; and again for names whose time was over, once that is committed.
    async fn resolve_apart(self: Arc<Self>, mut cold: Vec<(Resolve, Option<Resolved>)>) {
        for _ in 0..LOOKS_MAX {
            let reader = self.clone();
            let overdue = self.sys.blocking.run(move || reader.resolve_cold(cold)).await;
            if overdue.is_empty() {
                return;
            }
            let names = overdue.iter().map(|resolve| resolve.name.clone()).collect();
            if let Err(e) = self.end_overdue(names).await {
                overdue.into_iter().for_each(|resolve| resolve.answer(Err(e.clone()), &self, self.born()));
                return;
            }
            cold = overdue.into_iter().map(|resolve| (resolve, None)).collect();
        }
        let e = Error::unavailable("the name runs out faster than it can be read: try again");
        cold.into_iter().for_each(|(resolve, _)| resolve.answer(Err(e.clone()), &self, self.born()));
    }

    /// As [`Self::resolve_all`], for what is not in memory. Gives back what is overdue, unanswered. Blocks.
    fn resolve_cold(self: &Arc<Self>, cold: Vec<(Resolve, Option<Resolved>)>) -> Vec<Resolve> {
        let mut overdue = Vec::new();
        for (resolve, known) in cold {
            let looked = match known {
                Some(resolved) => Ok(resolved),
                None => self.look_and_register(&resolve),
            };
            let entry = looked.as_ref().ok().and_then(|resolved| resolved.entry.as_ref());
            if entry.is_some_and(|entry| self.is_overdue(entry)) {
                overdue.push(resolve);
                continue;
            }
            let answer = looked.and_then(|mut resolved| {
                if let Some(hash) = resolve.wanted(&resolved)
                    && let Some(bytes) = self.catalog.inline(&hash)?
                {
                    resolved.carried = Some(self.verified(bytes, hash)?);
                }
                Ok(resolved)
            });
            resolve.answer(answer, self, self.born());
        }
        overdue
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
}
