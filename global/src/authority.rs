//! The authority: the only place that decides what a name is bound to, and the order of steps of SET and DEL.
//!
//! ```text
//! change -> sessions.submit      FIFO a name, mark busy, INVs to holders      (under the shard's lock)
//!        -> acks, lease ends     every holder told or out of time             (rules 3, 17, 18)
//!        -> committer            validate, journal, one fsync                 (committer.rs)
//!        -> show + finish        visible, bits cleared, names free, answered  (one step under the lock)
//! read   -> begin_read, look at the catalog, end_read                         (rule 7)
//! ```
//! Invariants: the shard's lock is held across neither an await nor a look at the disk; the clock is read
//! after it is taken; what the machine asks for is carried out, in order, before it is let go. Nothing is
//! acknowledged before it is durable, and nothing is readable before that either, unless the level is `relaxed`.

mod submission;
#[cfg(test)]
mod tests;

use crate::SyncLevel;
use crate::blobs::Blobs;
use crate::catalog::Catalog;
use crate::committer::{Done, Job, NamespaceChange, Work};
use crate::data_dir::DataDir;
use crate::expiry::Ending;
use crate::feed::Feed;
use crate::journal::Syncer;
use crate::journal_time::JournalTime;
use crate::mailbox::{self, mailbox};
use crate::sessions::{
    Action, Answered, Boot, Caller, Counts, InvLog, OpNo, Sessions, StreamId, Submission, Terms,
};
use crate::space::Space;
use dstore_shared::figures::Histogram;
use dstore_shared::frame::{Answer, Down, Reply};
use dstore_shared::{
    BlobHash, Born, ClientId, Command, DeleteMode, Entry, Error, FlightId, Moment, Name, Outcome, Prefix,
    RequestId, Result, Revision, SetOutcome,
};
use dstore_sys::Sys;
use dstore_sys::tasks::{Lane, Tasks};
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

/// Session frames that wait to be sent; the last place is for a RESYNC, which stands for all that find none
/// (rule 14). A DEL of [`DELETE_NAMES_MAX`] names fits three times.
const SESSION_QUEUE: usize = 32_768;
/// KiB of values held for changes that are not answered yet, over all request streams: 256 MiB.
const IN_FLIGHT_KIB: usize = 256 << 10;
/// Identities that the authority gives to changes without one, in turn: each may have 1,024 in flight.
const CLIENTS: u64 = 64;

/// Who waits for the outcome of a change.
#[derive(Debug)]
pub(crate) enum Responder {
    /// A call, and what its bytes count for: also when the caller has gone away.
    Call(oneshot::Sender<Result<Answered>>, Option<OwnedSemaphorePermit>),
    /// A request of a request stream: its place in the stream of replies, and what its bytes count for.
    Stream(FlightId, mpsc::OwnedPermit<Queued>, Option<OwnedSemaphorePermit>),
}

/// A change as somebody asks for it.
#[derive(Debug)]
pub(crate) struct Asked {
    pub id: RequestId,
    pub command: Command,
    /// Who would cache what it SETs.
    pub caller: Option<Caller>,
    pub responder: Responder,
}

pub(crate) type Machine = Sessions<Work, Responder>;

/// A reply that waits to be sent.
pub(crate) struct Queued {
    pub reply: Reply,
    /// Of a large one: its place, which is free again when the reply is taken to be sent.
    pub _room: Option<OwnedSemaphorePermit>,
}

impl From<Reply> for Queued {
    fn from(reply: Reply) -> Self {
        Self { reply, _room: None }
    }
}

/// The machine and where its frames go.
pub(crate) struct Shard {
    pub sessions: Machine,
    streams: HashMap<StreamId, Outlet>,
}

/// The way out to a session stream.
struct Outlet {
    to: mailbox::Sender<Result<Down>>,
    /// A frame was left out, and so is every other until a RESYNC.
    stopped: bool,
}

/// What became of a frame.
#[derive(PartialEq, Eq)]
enum Sent {
    Queued,
    LeftOut,
    /// Left out, as the first.
    Overflowed,
    /// There is not even room for a RESYNC, or nobody reads any more.
    Dead,
}

impl Outlet {
    /// Queues a frame, in order. Whoever calls holds the shard's lock, so nobody else takes the room.
    fn send(&mut self, frame: Down) -> Sent {
        let resync = matches!(frame, Down::Resync { .. });
        if self.stopped && !resync {
            return Sent::LeftOut;
        }
        if !resync && self.to.room() == Some(1) {
            self.stopped = true;
            return Sent::Overflowed;
        }
        self.stopped = false;
        if self.to.put(Ok(frame)).is_err() { Sent::Dead } else { Sent::Queued }
    }
}

/// The authority over one shard.
pub struct Authority {
    pub(crate) sys: Sys,
    pub(crate) tasks: Tasks,
    /// Reads the request streams, which end before the doors do: a door waits for what runs on it.
    pub(crate) readers: Tasks,
    pub(crate) catalog: Catalog,
    pub(crate) blobs: Blobs,
    pub(crate) sweep_grace: Duration,
    pub(crate) sync: SyncLevel,
    /// At the level `relaxed`: what makes the journal durable.
    pub(crate) syncer: Option<Arc<Syncer>>,
    pub(crate) space: Arc<Space>,
    pub(crate) feed: Arc<Feed>,
    shard: Mutex<Shard>,
    committer: Lane<Job>,
    next_stream: AtomicU64,
    clients: u128,
    next_request: AtomicU64,
    failure: watch::Sender<Option<Error>>,
    sessions_moved: Notify,
    /// Names that Locals listed, since the start.
    pub(crate) listed: AtomicU64,
    pub(crate) writes: Writes,
    in_flight: Arc<Semaphore>,
    /// By which names are measured, and which commits bear.
    journal_time: JournalTime,
    /// Names whose time is over.
    pub(crate) ending: Ending,
    /// Whoever notes there what the next boot must know.
    pub(crate) dir: Weak<DataDir>,
    /// When the machine is called next, unless something happens.
    ticks_at: AtomicU64,
    /// It is to be called sooner.
    sooner: Notify,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({:?})", self.catalog.head())
    }
}

/// How the journal was written.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    /// How long a batch took, fsync included.
    pub times: Histogram,
    /// How many changes a batch had.
    pub sizes: Histogram,
}

/// What an authority is made of.
pub(crate) struct Parts {
    pub sys: Sys,
    pub tasks: Tasks,
    pub catalog: Catalog,
    pub blobs: Blobs,
    pub sweep_grace: Duration,
    pub sync: SyncLevel,
    pub syncer: Option<Arc<Syncer>>,
    pub space: Arc<Space>,
    pub feed: Arc<Feed>,
    pub committer: Lane<Job>,
    pub terms: Terms,
    pub boot: Boot,
    pub outcomes: Vec<(RequestId, Outcome)>,
    pub log: InvLog,
    pub dir: Weak<DataDir>,
}

impl Authority {
    pub(crate) fn new(parts: Parts) -> Self {
        let mut sessions = Sessions::new(parts.terms, parts.boot);
        for (id, outcome) in parts.outcomes {
            sessions.restore_outcome(id, outcome);
        }
        let (floor, voided) = parts.log.into_parts();
        sessions.restore_log(floor, voided);
        Self {
            clients: parts.sys.rng.next_u128(),
            journal_time: JournalTime::after(parts.catalog.journal_time(), parts.sys.clock.clone()),
            sys: parts.sys,
            readers: parts.tasks.child(),
            tasks: parts.tasks,
            catalog: parts.catalog,
            blobs: parts.blobs,
            sweep_grace: parts.sweep_grace,
            sync: parts.sync,
            syncer: parts.syncer,
            space: parts.space,
            feed: parts.feed,
            shard: Mutex::new(Shard { sessions, streams: HashMap::new() }),
            committer: parts.committer,
            next_stream: AtomicU64::new(1),
            next_request: AtomicU64::new(0),
            failure: watch::Sender::new(None),
            sessions_moved: Notify::new(),
            listed: AtomicU64::new(0),
            writes: Writes::default(),
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT_KIB)),
            ending: Ending::default(),
            dir: parts.dir,
            ticks_at: AtomicU64::new(0),
            sooner: Notify::new(),
        }
    }

    /// One event of the machine, and what follows from it.
    pub(crate) fn event<O>(&self, event: impl FnOnce(&mut Machine, Moment) -> O) -> O {
        let mut shard = self.shard.lock();
        let now = self.sys.clock.now();
        let done = event(&mut shard.sessions, now);
        self.carry_out(&mut shard);
        let due = shard.sessions.next_deadline();
        if due.is_some_and(|due| due.as_nanos() < self.ticks_at.load(Ordering::Relaxed)) {
            self.sooner.notify_one();
        }
        done
    }

    /// Waits for `limit`, which began at `now`, or until the machine has to be called sooner.
    pub(crate) async fn until_due(&self, now: Moment, limit: Duration) {
        self.ticks_at.store((now + limit).as_nanos(), Ordering::Relaxed);
        // What became due before the store is seen here, and what does after it is told.
        let left = self.shard.lock().sessions.next_deadline().map_or(limit, |due| due.since(now).min(limit));
        let _ = tokio::time::timeout(left, self.sooner.notified()).await;
    }

    /// Carries actions out, in order, until none is left: what cannot be queued makes further ones.
    fn carry_out(&self, shard: &mut MutexGuard<'_, Shard>) {
        loop {
            let actions = shard.sessions.take_actions();
            if actions.is_empty() {
                return;
            }
            let mut drained = Vec::new();
            for action in actions {
                self.carry_out_one(shard, action, &mut drained);
            }
            self.commit_drained(shard, drained);
        }
    }

    /// Hands ops that are drained to the committer, together.
    fn commit_drained(&self, shard: &mut Shard, drained: Vec<(OpNo, Work)>) {
        if drained.is_empty() {
            return;
        }
        dstore_sys::failpoint!("global::change::drained");
        if let Err(Job::Ops(ops)) = self.committer.try_send(Job::Ops(drained)) {
            let e = self.failed().unwrap_or_else(|| Error::exhausted("too many changes wait: try again"));
            let now = self.sys.clock.now();
            for (op, _) in ops {
                shard.sessions.finish(now, op, &Err(e.clone()), Revision(0));
            }
        }
    }

    fn carry_out_one(
        &self,
        shard: &mut Shard,
        action: Action<Work, Responder>,
        drained: &mut Vec<(OpNo, Work)>,
    ) {
        match action {
            Action::Send(stream, frame) => {
                match shard.streams.get_mut(&stream).map(|outlet| outlet.send(frame)) {
                    Some(Sent::Overflowed) => shard.sessions.overflowed(stream),
                    Some(Sent::Dead) => {
                        shard.streams.remove(&stream);
                        shard.sessions.stream_lost(stream);
                    }
                    Some(Sent::Queued | Sent::LeftOut) | None => {}
                }
            }
            Action::Close(stream, error) => {
                self.sessions_moved.notify_waiters();
                if let Some(outlet) = shard.streams.remove(&stream) {
                    // Best effort: the end of the stream tells as much.
                    let _ = outlet.to.put(Err(error));
                }
            }
            Action::Commit(op, work) => drained.push((op, work)),
            Action::Answer(to, answer) => {
                let born = shard.sessions.born(self.sys.clock.now());
                let bound = match &answer {
                    Ok(Answered { outcome: Outcome::Set(SetOutcome::Stored(entry)), .. }) => Some(entry),
                    _ => None,
                };
                let journal_ms = self.journal_for(bound);
                to.tell(answer, (born, journal_ms));
            }
        }
    }

    /// Opens a session stream: the machine may queue frames for it from now on.
    pub(crate) fn open_stream(&self) -> (StreamId, mailbox::Receiver<Result<Down>>) {
        let id = StreamId(self.next_stream.fetch_add(1, Ordering::Relaxed));
        let (to, frames) = mailbox(SESSION_QUEUE);
        self.shard.lock().streams.insert(id, Outlet { to, stopped: false });
        (id, frames)
    }

    /// Waits until a session stream was closed, by either side, after this call began.
    pub(crate) fn sessions_moved(&self) -> Notified<'_> {
        self.sessions_moved.notified()
    }

    /// Waits until `bytes` more of values may be held for changes that are not answered yet.
    pub(crate) async fn admit(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let kib = bytes.div_ceil(1024).min(IN_FLIGHT_KIB) as u32;
        self.in_flight.clone().acquire_many_owned(kib).await.ok()
    }

    /// As [`Self::admit`], without waiting.
    pub(crate) fn try_admit(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let kib = bytes.div_ceil(1024).min(IN_FLIGHT_KIB) as u32;
        self.in_flight.clone().try_acquire_many_owned(kib).ok()
    }

    /// A session stream is gone.
    pub(crate) fn close_stream(&self, id: StreamId) {
        self.shard.lock().streams.remove(&id);
        self.event(|m, _| m.stream_lost(id));
    }

    /// Takes a change of a client or Local; `responder` is told what became of it.
    pub(crate) fn submit(
        &self,
        id: RequestId,
        command: Command,
        caller: Option<Caller>,
        responder: Responder,
    ) {
        self.submit_all(vec![Asked { id, command, caller, responder }]);
    }

    /// Takes changes that came together: those that need no drain share a batch of the journal.
    pub(crate) fn submit_all(&self, asked: Vec<Asked>) {
        if asked.is_empty() {
            return;
        }
        let mut changes = Vec::with_capacity(asked.len());
        for Asked { id, command, caller, responder } in asked {
            match self.failed().map_or_else(|| submission::check(&command), Err) {
                Ok(()) => changes.push(self.submission(id, command, caller, responder)),
                Err(e) => responder.tell(Err(e), (self.born(), 0)),
            }
        }
        self.event(|m, now| {
            for (prefix, change) in changes {
                match prefix {
                    Some(prefix) => m.submit_prefix(now, prefix, change),
                    None => m.submit(now, change),
                }
            }
        });
    }

    /// Creates or drops a namespace, when no change of its names is under way; `responder` is told what became of it.
    pub(crate) fn submit_namespace(&self, id: RequestId, change: NamespaceChange, responder: Responder) {
        let ready = self.failed().map_or_else(|| submission::check_namespace(&change), Err);
        let (NamespaceChange::Create(namespace, _) | NamespaceChange::Drop(namespace)) = &change;
        let prefix = match ready.and_then(|()| Prefix::new(namespace, b"")) {
            Ok(prefix) => prefix,
            Err(e) => return responder.tell(Err(e), (self.born(), 0)),
        };
        let change = Submission {
            id,
            names: Vec::new(),
            // Nothing that anybody holds becomes void.
            drains: false,
            spared: Vec::new(),
            mode: DeleteMode::Strict,
            job: Work::Namespace { id, change },
            caller: None,
            responder,
        };
        self.event(|m, now| m.submit_prefix(now, prefix, change));
    }

    /// Has those of `names` unbound whose time is over; `responder` is told when that is visible.
    pub(crate) fn submit_expiry(&self, names: Vec<Name>, responder: Responder) {
        if let Some(e) = self.failed() {
            return responder.tell(Err(e), (self.born(), 0));
        }
        let change = Submission {
            id: self.next_id(),
            names: names.clone(),
            // A Local counts by its own clock, and ours may have been set forward.
            drains: true,
            spared: Vec::new(),
            mode: DeleteMode::Strict,
            job: Work::Expire { names },
            caller: None,
            responder,
        };
        self.event(|m, now| m.submit(now, change));
    }

    /// Journal time as of now: never less than that of anything visible, whatever becomes of the clock.
    pub(crate) fn journal_now(&self) -> u64 {
        self.journal_time.now()
    }

    /// Journal time for an answer that tells of `entry`: 0 if it has no time to live.
    pub(crate) fn journal_for(&self, entry: Option<&Entry>) -> u64 {
        if entry.is_some_and(|entry| entry.expires_at.is_some()) { self.journal_now() } else { 0 }
    }

    /// Has the committer do internal work: not about names, so no session is concerned.
    ///
    /// # Errors
    /// `Unavailable` if the store has failed or is stopping; what the work itself comes to.
    pub(crate) async fn commit(&self, work: Work) -> Result<Done> {
        let (to, answer) = oneshot::channel();
        let stopped = || self.failed().unwrap_or_else(|| Error::unavailable("global is stopping: try again"));
        self.committer.send(Job::Own(Box::new(work), to)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// What a name is bound to now, durable and visible. May block on the index's disk.
    ///
    /// # Errors
    /// `Unavailable` if the index has failed.
    pub(crate) fn look(&self, name: &Name) -> Result<(Option<Entry>, Revision)> {
        // The head is read first: the answer holds at or after it.
        let head = self.catalog.head();
        Ok((self.catalog.entry(name)?, head))
    }

    /// Global's clock.
    pub fn born(&self) -> Born {
        let shard = self.shard.lock();
        shard.sessions.born(self.sys.clock.now())
    }

    /// An id for a change whose caller gave none.
    pub(crate) fn next_id(&self) -> RequestId {
        let turn = self.next_request.fetch_add(1, Ordering::Relaxed);
        let client = ClientId(self.clients.wrapping_add(u128::from(turn % CLIENTS)));
        RequestId { client, n: turn / CLIENTS + 1, born: self.born() }
    }

    /// How much the machine remembers.
    pub fn counts(&self) -> Counts {
        self.shard.lock().sessions.counts()
    }

    /// How many names Locals have listed since the start.
    pub fn listed(&self) -> u64 {
        self.listed.load(Ordering::Relaxed)
    }

    /// The store takes no changes any more: a journal, a directory or the index failed.
    pub(crate) fn fail(&self, error: &Error) {
        self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            if first {
                tracing::error!(%error, "the store has failed: no change is taken any more");
                *failure = Some(error.clone());
            }
            first
        });
    }

    /// Why the store takes no changes any more, if so.
    pub fn failed(&self) -> Option<Error> {
        self.failure.borrow().clone()
    }

    /// Resolves when the store takes no changes any more.
    pub fn failure(&self) -> watch::Receiver<Option<Error>> {
        self.failure.subscribe()
    }

    /// Has the journal remember that a blob is damaged, as the committer found.
    pub(crate) fn mark_soon(&self, hash: BlobHash) {
        tracing::error!(%hash, "the bytes of a blob have another hash: set it again");
        let (to, _) = oneshot::channel();
        // If it cannot be queued now, the next reader finds it again.
        let _ = self.committer.try_send(Job::Own(Box::new(Work::Mark { hash }), to));
    }

    /// Work for the committer that nobody waits for.
    pub(crate) fn nudge_committer(&self) {
        // A full queue needs no nudge.
        let _ = self.committer.try_send(Job::Tick);
    }

    /// Has everything made durable that was handed to the committer so far; gives the revision up to which.
    pub(crate) async fn sync_all(&self) -> Result<Revision> {
        let (to, answer) = oneshot::channel();
        let stopped = || Error::unavailable("global is stopping");
        self.committer.send(Job::Sync(to)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// Whether what is visible now is durable; makes it so. Blocks on the disk.
    ///
    /// # Errors
    /// `Unavailable` if the journal cannot be synced.
    pub(crate) fn ensure_visible_is_durable(&self) -> Result<()> {
        self.syncer.as_ref().map_or(Ok(()), |syncer| syncer.ensure(self.catalog.head()))
    }

    /// Has the committer write a checkpoint at the head.
    pub(crate) async fn checkpoint(&self) -> Result<Revision> {
        let (to, answer) = oneshot::channel();
        let stopped = || Error::unavailable("global is stopping");
        self.committer.send(Job::Checkpoint(to)).await.map_err(|_| stopped())?;
        let written = answer.await.map_err(|_| stopped())?;
        written.await.map_err(|_| stopped())?
    }
}

impl Responder {
    fn tell(self, answer: Result<Answered>, (born, journal_ms): (Born, u64)) {
        match self {
            // Whoever has gone away asks again with the same id.
            Self::Call(to, _bytes) => _ = to.send(answer),
            Self::Stream(flight, permit, _bytes) => {
                let answer = match answer {
                    Ok(Answered { outcome, cacheable, stale }) => {
                        Answer::Changed { outcome, cacheable, stale }
                    }
                    Err(e) => Answer::Failed(e),
                };
                permit.send(Queued::from(Reply { flight, answer, born, journal_ms }));
            }
        }
    }
}
