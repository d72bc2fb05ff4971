//! What the node's parts share: the coherence machine under its one lock, the cache, and the queues to Global.
//!
//! ```text
//! event -> lock -> clock -> machine -> actions, in order:
//!     publish valid_until / era, queue frames and requests, install, wake waiters -> unlock
//!     a binding was found -> `fetch` brings its bytes
//! ```
//! Invariants: names are installed and removed under the machine's lock only (rule 13); `valid_until` and
//! `era` are published before any later action of the same event. The lock is never held across an await,
//! and hits do not take it.

mod fetch;
mod lapses;
mod many;
mod waiting;
mod workers;

use crate::audit::Audit;
use crate::blob_flight::{BlobFlights, FlightLimits};
use crate::cache::{Admission, Cache, CacheConfig, Evicted, Hit, Left};
use crate::coherence::{Absences, Action, Bounds, Coherence, Identity};
use crate::rooms::Rooms;
use crate::served::Served;
use dstore_proto::link::LinkClient;
use dstore_proto::store::Peek;
use dstore_shared::frame::{Answer, Down, Reply, Request, Up};
use dstore_shared::limits::DELETE_DEADLINE_MAX;
use dstore_shared::{
    Blob, Born, Command, DeleteMode, Entry, Epoch, Error, FlightId, Moment, Name, Outcome, RegSeq, RequestId,
    Result, Revision, SetOutcome,
};
use dstore_sys::Sys;
use dstore_sys::tasks::Tasks;
use lapses::Lapses;
pub(crate) use many::ReadMany;
use parking_lot::{Mutex, MutexGuard};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use waiting::Waiting;
pub(crate) use waiting::{Changed, Looked};
pub(crate) use workers::Shown;

/// Session frames that wait to be sent; more means that Global does not read, and the stream is closed.
const SESSION_QUEUE: usize = 8192;
/// The words that a hit reads, alone on their cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Published {
    valid_until: AtomicU64,
    era: AtomicU64,
    /// Nanoseconds of changes that a crash of Global may take; 0 = none.
    loss: AtomicU64,
    /// Milliseconds by which journal time is ahead of this node's clock, as of the newest answer that told it.
    journal_ahead: AtomicU64,
}

struct Machine {
    coherence: Coherence<Cache, Waiting>,
    session: Option<mpsc::Sender<Up>>,
    requests: Option<mpsc::Sender<Request>>,
}

/// What the node's parts share.
pub(crate) struct Core {
    pub sys: Sys,
    pub tasks: Tasks,
    pub link: LinkClient,
    pub cache: Cache,
    pub rooms: Rooms,
    /// "Not found" answers, if they are kept.
    pub absences: Option<Arc<Absences>>,
    absent_hits: AtomicU64,
    lapses: Lapses,
    published: Published,
    machine: Mutex<Machine>,
    blobs: BlobFlights,
    /// Kept values that were found damaged; fetches whose bytes were, when they arrived.
    pub damage: [AtomicU64; 2],
    pub audit: Audit,
    pub served: Served,
    lease_moved: Notify,
    /// Cancelled when this Local has left.
    pub leaving: CancellationToken,
    /// Why there will never be a session.
    refusal: watch::Sender<Option<Error>>,
    /// Who is told of names that left the cache.
    pub gone_to: OnceLock<Arc<dyn Fn(Left) + Send + Sync>>,
    /// Where workers attach, and how many are.
    shm: OnceLock<(String, Arc<Shown>)>,
    myself: Weak<Core>,
}

impl Core {
    pub fn new(
        sys: Sys,
        tasks: Tasks,
        link: LinkClient,
        cache_bytes: u64,
        negatives: bool,
        identity: Identity,
    ) -> Arc<Self> {
        let absences = negatives.then(Arc::<Absences>::default);
        let mut coherence = Coherence::new(identity, Bounds::default());
        if let Some(absences) = &absences {
            coherence = coherence.keeping(absences.clone());
        }
        let cache = Cache::new(CacheConfig { bytes: cache_bytes });
        // Beyond what the cache keeps, one more value of any size that it would keep.
        let rooms = Rooms::new(cache_bytes.saturating_add(cache.blob_bytes_max()));
        Arc::new_cyclic(|myself| Self {
            sys,
            tasks,
            link,
            cache,
            rooms,
            absences,
            absent_hits: AtomicU64::new(0),
            lapses: Lapses::default(),
            published: Published::default(),
            machine: Mutex::new(Machine { coherence, session: None, requests: None }),
            blobs: BlobFlights::new(FlightLimits::default()),
            damage: Default::default(),
            audit: Audit::default(),
            served: Served::default(),
            lease_moved: Notify::new(),
            leaving: CancellationToken::new(),
            refusal: watch::Sender::new(None),
            gone_to: OnceLock::new(),
            shm: OnceLock::new(),
            myself: myself.clone(),
        })
    }

    /// A name under a valid lease (rule 1): load `valid_until`, look up, read the clock.
    ///
    /// The order of the loads matters. An era is published before the LEASE that follows it, so whoever sees
    /// the new `valid_until` sees the new era, and whoever sees the old one is held by the old lease.
    pub fn hit(&self, name: &[u8]) -> Option<Hit> {
        let hit = self.hit_unseen(name)?;
        self.audit.see(name);
        Some(hit)
    }

    /// As [`Self::hit`], of which the auditor does not hear.
    pub fn hit_unseen(&self, name: &[u8]) -> Option<Hit> {
        let valid_until = Moment::from_nanos(self.published.valid_until.load(Ordering::Acquire));
        let era = self.published.era.load(Ordering::Acquire);
        let hit = self.cache.hit(name, era)?;
        (self.sys.clock.now() < valid_until.min(hit.until)).then_some(hit)
    }

    /// Whether the name is held under a valid lease, and how large it is; not counted as a use.
    pub fn peek(&self, name: &Name) -> Peek {
        let valid_until = Moment::from_nanos(self.published.valid_until.load(Ordering::Acquire));
        let era = self.published.era.load(Ordering::Acquire);
        match self.cache.peek(name.as_bytes(), era) {
            Some((size, until)) if self.sys.clock.now() < valid_until.min(until) => Peek::Held(size),
            _ => Peek::Absent,
        }
    }

    /// Journal time, about: for telling what is left of a time to live, never for deciding.
    pub fn journal_about(&self) -> u64 {
        let ahead = self.published.journal_ahead.load(Ordering::Relaxed);
        self.sys.clock.now().as_millis().wrapping_add(ahead)
    }

    /// Whether it is known, under a valid lease, that there is no such name (rules 1, 28); after a hit that failed.
    pub fn is_absent(&self, name: &[u8]) -> bool {
        let Some(absences) = &self.absences else { return false };
        let valid_until = Moment::from_nanos(self.published.valid_until.load(Ordering::Acquire));
        let Some(absent) = absences.get(name) else { return false };
        let known = self.sys.clock.now() < valid_until.min(absent.until);
        self.absent_hits.fetch_add(u64::from(known), Ordering::Relaxed);
        known
    }

    /// How often [`Self::is_absent`] said yes.
    pub fn absent_hits(&self) -> u64 {
        self.absent_hits.load(Ordering::Relaxed)
    }

    /// What the name was bound to when this Local last had a lease, and how long ago that lease ended: an upper
    /// bound of how long the answer may have been wrong. `None` if there is a lease, if nothing is held, and of a
    /// name that was invalidated or refused since.
    pub fn stale(&self, name: &[u8]) -> Option<(Hit, Duration)> {
        let (hit, era) = self.cache.stale_hit_of(name)?;
        let since = self.lapses.since(era)?;
        let now = self.sys.clock.now();
        let lapsed = now >= Moment::from_nanos(self.published.valid_until.load(Ordering::Acquire));
        // A value whose time is over is not old, it is gone.
        (lapsed && now < hit.until).then(|| (hit, now.since(since)))
    }

    /// Whether hits are served now.
    pub fn is_serving(&self) -> bool {
        !self.lease_left().is_zero()
    }

    /// How long names can still be served; zero = not now.
    pub fn lease_left(&self) -> Duration {
        Moment::from_nanos(self.published.valid_until.load(Ordering::Acquire)).since(self.sys.clock.now())
    }

    /// Waits until the lease was extended or given up after this call began.
    pub fn lease_moved(&self) -> Notified<'_> {
        self.lease_moved.notified()
    }

    /// What status tells of the session.
    pub fn standing(&self) -> (Option<Born>, Revision, Duration, Option<Epoch>) {
        let machine = self.machine.lock();
        let c = &machine.coherence;
        (c.born(), c.known(), c.lease(), c.epoch())
    }

    /// A crash of Global may take the changes of its last so long, as it said last.
    pub fn loss(&self) -> Option<Duration> {
        let nanos = self.published.loss.load(Ordering::Relaxed);
        (nanos > 0).then(|| Duration::from_nanos(nanos))
    }

    /// Global's clock, to stamp requests with.
    pub fn born(&self) -> Option<Born> {
        self.machine.lock().coherence.born()
    }

    /// A GET missed: resolve the name, with its blob if it can be kept. The receiver is answered once.
    ///
    /// # Errors
    /// `Exhausted` if too much is under way.
    pub fn read(&self, name: &Name) -> Result<oneshot::Receiver<Result<Looked>>> {
        let (to, answer) = oneshot::channel();
        let have = self.cache.stale_hit(name.as_bytes()).map(|hit| hit.entry.hash);
        self.event(|c, now| c.read(now, name, have, Waiting::Look(to))).map_err(|(e, _)| e)?;
        Ok(answer)
    }

    /// Asks what a name is bound to, without its bytes; nothing is kept.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn look(&self, name: &Name) -> Result<oneshot::Receiver<Result<Looked>>> {
        let (to, answer) = oneshot::channel();
        self.event(|c, _| c.look(name, Waiting::Look(to))).map_err(|(e, _)| e)?;
        Ok(answer)
    }

    /// Sends a change; of a SET, `own` is the blob to keep under its name if Global agrees.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn change(
        &self,
        id: RequestId,
        command: Command,
        own: Option<Blob>,
    ) -> Result<oneshot::Receiver<Result<Changed>>> {
        check_change(id, &command)?;
        dstore_sys::failpoint!("local::change::before_send");
        let (to, answer) = oneshot::channel();
        self.event(|c, _| c.change(id, command, own, Waiting::Change(to))).map_err(|(e, _)| e)?;
        Ok(answer)
    }

    /// A session begins; gives what is to be sent on its stream. Ends when the machine wants another one.
    /// `None`: this Local has left, and begins no session any more.
    pub fn session_opened(&self) -> Option<mpsc::Receiver<Up>> {
        let (to, frames) = mpsc::channel(SESSION_QUEUE);
        self.machine.lock().session = Some(to);
        self.event(super::coherence::Coherence::connected).then_some(frames)
    }

    /// Frames that came together; they are acknowledged together.
    pub fn session_frames(&self, frames: Vec<Down>) {
        self.event(|c, now| {
            for frame in frames {
                c.down(now, frame, &self.cache);
            }
            c.flush_ack();
        });
    }

    /// Whether WELCOME has come on the present stream.
    pub fn is_welcome(&self) -> bool {
        self.machine.lock().coherence.is_open()
    }

    /// There will never be a session: whoever waits for one is told.
    pub fn refuse(&self, why: Error) {
        self.refusal.send_replace(Some(why));
    }

    /// Why there will never be a session. Waits for as long as there may be one.
    pub async fn refused(&self) -> Error {
        let mut refusal = self.refusal.subscribe();
        let why = refusal.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        why.unwrap_or_else(stopped)
    }

    pub fn session_lost(&self) {
        self.machine.lock().session = None;
        self.event(|c, _| c.lost());
    }

    /// Asks for a renewal of the lease.
    pub fn keep(&self) {
        dstore_sys::failpoint!("local::lease::before_keep");
        self.event(super::coherence::Coherence::keep);
        dstore_sys::failpoint!("local::lease::after_keep");
    }

    /// Stops serving names for good and says so to Global.
    pub fn leave(&self) {
        dstore_sys::failpoint!("local::leave::before");
        self.event(|c, _| c.leave());
        dstore_sys::failpoint!("local::leave::after");
        self.leaving.cancel();
    }

    /// A request stream is opened; gives what is to be sent on it, what was not answered first.
    pub fn requests_opened(&self) -> mpsc::Receiver<Request> {
        // Every flight fits twice: once sent again, once new.
        let (to, requests) = mpsc::channel(2 * Bounds::default().flights_max);
        self.machine.lock().requests = Some(to);
        self.event(|c, _| c.send_again());
        requests
    }

    /// Replies that came together.
    pub fn replies(&self, replies: Vec<Reply>) {
        self.event(|c, now| {
            let mut settled = Vec::with_capacity(replies.len());
            for reply in replies {
                c.saw(reply.born);
                let journal_ms = reply.journal_ms;
                if journal_ms > 0 {
                    let ahead = journal_ms.wrapping_sub(now.as_millis());
                    self.published.journal_ahead.store(ahead, Ordering::Relaxed);
                }
                match reply.answer {
                    Answer::Resolved(resolved) => c.resolved_at(now, reply.flight, resolved, journal_ms),
                    Answer::ResolvedMany(all) => {
                        if let Err((e, waiters)) = c.resolved_many_at(now, reply.flight, all, journal_ms) {
                            waiters.into_iter().for_each(|waiter| waiter.fail(&e));
                        }
                    }
                    Answer::Changed { outcome, cacheable, stale } => {
                        settled.push((reply.flight, Ok((outcome, cacheable, stale)), journal_ms));
                    }
                    Answer::Failed(error) => settled.push((reply.flight, Err(error), 0)),
                }
            }
            settled
        })
        .into_iter()
        .for_each(|(flight, answer, journal_ms)| self.settle(flight, answer, journal_ms));
    }

    /// Ends a flight that needs no blob.
    fn settle(
        &self,
        flight: FlightId,
        answer: Result<(Outcome, Option<Epoch>, Option<Duration>)>,
        journal_ms: u64,
    ) {
        match answer {
            Err(error) => self.give_up(flight, &error),
            Ok((outcome, cacheable, stale)) => {
                dstore_sys::failpoint!("local::change::before_install");
                let staged = match &outcome {
                    Outcome::Set(SetOutcome::Stored(_)) => self.stage_own(flight),
                    _ => None,
                };
                let (waiters, cached) = self.event(|c, _| {
                    let mut evicted = Evicted::new();
                    let until = match &outcome {
                        Outcome::Set(SetOutcome::Stored(entry)) => c.until_of(flight, entry, journal_ms),
                        _ => Moment::ZERO,
                    };
                    let done = c.changed(flight, &outcome, cacheable, |name, entry, blob, reg_seq, era| {
                        let blob = staged.as_ref().unwrap_or(blob);
                        self.install(name, (entry.clone(), until), blob, (reg_seq, era), &mut evicted)
                    });
                    c.dropped(evicted);
                    done
                });
                dstore_sys::failpoint!("local::change::after_install");
                for waiter in waiters {
                    if let Waiting::Change(to) = waiter {
                        let _ = to.send(Ok(Changed { outcome: outcome.clone(), cached, stale }));
                    }
                }
            }
        }
    }

    fn give_up(&self, flight: FlightId, error: &Error) {
        for waiter in self.event(|c, _| c.failed(flight)) {
            waiter.fail(error);
        }
    }

    fn install(
        &self,
        name: &Name,
        (entry, until): (Entry, Moment),
        blob: &Blob,
        (reg_seq, era): (RegSeq, u64),
        evicted: &mut Evicted,
    ) -> bool {
        match self.cache.install_until(name, (entry, until), blob, reg_seq, era) {
            Admission::Installed { evicted: gone } => {
                evicted.extend(gone);
                true
            }
            // Perhaps it is held all the same, with a newer binding: then Global must go on waiting for us.
            Admission::Refused(_) => self.cache.hit(name.as_bytes(), era).is_some(),
        }
    }

    pub fn requests_lost(&self) {
        self.machine.lock().requests = None;
    }

    /// To be called now and then while Global is away.
    pub fn forget_abandoned(&self) {
        self.event(|c, _| c.forget_abandoned());
    }

    /// One event of the machine, and what follows from it.
    fn event<O>(&self, event: impl FnOnce(&mut Coherence<Cache, Waiting>, Moment) -> O) -> O {
        let mut machine = self.machine.lock();
        // Read after the lock is held, so that events see a clock that never goes back.
        let now = self.sys.clock.now();
        let done = event(&mut machine.coherence, now);
        let loss = machine.coherence.loss().map_or(0, |loss| loss.as_nanos() as u64);
        self.published.loss.store(loss, Ordering::Relaxed);
        let found = self.carry_out(&mut machine);
        drop(machine);
        for (flight, name, entry, carried) in found {
            self.found(flight, name, entry, carried);
        }
        done
    }

    /// Lets the node forget a name, and tells Global. Whether it was held.
    pub fn forget(&self, name: &Name) -> bool {
        self.event(|c, _| {
            let registration = self.cache.forget(name);
            c.dropped(registration.map(|reg_seq| (name.clone(), reg_seq)).into_iter().collect());
            registration.is_some()
        })
    }

    /// As [`Self::forget`], and gives up the bytes too, unless another name holds them.
    pub fn evict(&self, name: &Name) -> bool {
        let hash = self.cache.stale_hit(name.as_bytes()).map(|hit| hit.entry.hash);
        self.cache.unpin(name);
        let held = self.forget(name);
        if let Some(hash) = hash {
            self.cache.let_go(&hash);
        }
        held
    }

    /// Carries actions out in order. Gives back what needs a blob, which takes the lock again.
    fn carry_out(&self, machine: &mut MutexGuard<'_, Machine>) -> Vec<(FlightId, Name, Entry, Option<Blob>)> {
        let mut found = Vec::new();
        // Before Global is told that they are gone.
        if let Some(told) = self.gone_to.get()
            && let Some(left) = self.cache.take_gone()
        {
            told(left);
        }
        for action in machine.coherence.take_actions() {
            match action {
                Action::ValidUntil(at) => {
                    self.published.valid_until.store(at.as_nanos(), Ordering::Release);
                    self.cache.publish_valid_until(at);
                    self.lapses.lease_until(at, self.sys.clock.now());
                    self.lease_moved.notify_waiters();
                }
                Action::Era(era) => {
                    self.published.era.store(era, Ordering::Release);
                    self.cache.publish_era(era);
                    self.lapses.era(era, self.sys.clock.now());
                }
                Action::Send(frame) => {
                    // Without room the stream is closed, by dropping its queue: nothing is lost silently.
                    if machine.session.as_ref().is_some_and(|to| to.try_send(frame).is_err()) {
                        machine.session = None;
                    }
                }
                // Without a stream the request goes out when there is one: see `send_again`.
                Action::Ask(request) => {
                    if machine.requests.as_ref().is_some_and(|to| to.try_send(request).is_err()) {
                        machine.requests = None;
                    }
                }
                Action::Found(flight, entry, carried) => {
                    if let Some(name) = machine.coherence.name_of(flight) {
                        found.push((flight, name, entry, carried));
                    }
                }
                Action::Tell(waiters, entry, head) => {
                    let looked = Looked { entry, blob: None, cached: false, head };
                    waiters.into_iter().for_each(|waiter| waiter.tell(&looked));
                }
                Action::TellMany(waiters, all) => {
                    waiters.into_iter().for_each(|waiter| waiter.tell_many(&all));
                }
                Action::Refused(waiters, error) => waiters.into_iter().for_each(|waiter| waiter.fail(&error)),
                Action::Reconnect(why) => {
                    tracing::warn!(why, "closing the session stream");
                    machine.session = None;
                }
            }
        }
        found
    }
}

/// What Global would not read must not be sent: with it ends the stream, and each time that it is sent again.
fn check_change(id: RequestId, command: &Command) -> Result<()> {
    if id.n == 0 {
        return Err(Error::invalid("the request id has no number: ask for one"));
    }
    match command {
        Command::Delete { mode: DeleteMode::Deadline(limit), .. } if *limit > DELETE_DEADLINE_MAX => {
            Err(Error::invalid(format!(
                "a deadline of `{limit:?}`: use at most {DELETE_DEADLINE_MAX:?}, and ask again with the same id"
            )))
        }
        Command::Set { attributes, .. } => attributes.check(),
        Command::Apply(transaction) => transaction.check(),
        _ => Ok(()),
    }
}

pub(crate) fn stopped() -> Error {
    Error::unavailable("the local is stopping: try again")
}
