//! A Local's node against a Global of a few lines: hits on two threads, fills, invalidations, renewals, a clock that
//! goes on at any moment, streams that break.
//!
//! ```text
//! reader x2  hit, or read and wait      --requests--> asks    --replies--> replies
//! session    frames down, frames up, breaks the stream now and then
//! changer    mark busy, INV, wait for the ack or for the end of the lease, become visible; binds again
//! clock      goes on by half a lease at a time
//! ```
//! The promise: a read that begins after a change was acknowledged never gives a binding that the change removed.
//! Global here obeys rules 3, 7, 13 to 16, 18 and 19, in the plainest way: every session is waited for.

use crate::coherence::Identity;
use crate::core::{Core, Looked};
use dstore_proto::dial::Dial;
use dstore_proto::link::LinkClient;
use dstore_shared::frame::{Answer, Ask, Down, Reply, Request, Resolved, Resumption, Up};
use dstore_shared::{
    Blob, Born, Entry, Epoch, HistoryId, Incarnation, LocalId, Moment, Name, Result, Revision,
};
use dstore_sys::Sys;
use dstore_sys::clock::Clock;
use dstore_sys::net::Address;
use dstore_sys::tasks::Tasks;
use parking_lot::Mutex;
use shuttle::rand::Rng;
use shuttle::thread;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Lease length.
const LEASE: Duration = Duration::from_secs(2);
/// Bound on the error of a clock's rate, as the rules have it.
const STRETCHED: Duration = Duration::from_millis(2_010);
/// How often the name is changed.
const CHANGES: u64 = 3;
/// Reads of each reader after the last change: what was wrongly kept is still there.
const READS_AFTER: usize = 3;
/// Reads of each reader at most.
const READS_MAX: usize = 60;
/// Steps of the clock, each of half a lease.
const STEPS: usize = 8;
/// Turns for which a stream stalls at most.
const STALL_MAX: usize = 300;
/// Enough for one name.
const CACHE_BYTES: u64 = 1 << 20;

/// A clock that another thread moves.
#[derive(Debug)]
struct Ticking(AtomicU64);

impl Clock for Ticking {
    fn now(&self) -> Moment {
        Moment::from_nanos(self.0.load(Ordering::SeqCst))
    }

    fn wall_ms(&self) -> u64 {
        self.now().as_millis()
    }
}

/// What Global knows of the one name and the one Local.
struct Authority {
    bound: Option<(Entry, Blob)>,
    head: u64,
    busy: bool,
    epoch: u64,
    lease_end: Moment,
    seq: u64,
    acked: u64,
    /// The INV that the change under way waits for.
    awaited: u64,
}

/// A frame on its way down, or the end of the stream.
enum Way {
    Frame(Down),
    End,
}

impl Way {
    fn frame(self) -> Option<Down> {
        match self {
            Self::Frame(frame) => Some(frame),
            Self::End => None,
        }
    }
}

struct World {
    core: Arc<Core>,
    clock: Arc<Ticking>,
    name: Name,
    global: Mutex<Authority>,
    down: Mutex<VecDeque<Way>>,
    replies: Mutex<VecDeque<Reply>>,
    /// Bindings up to this revision were removed, and that was acknowledged.
    gone: AtomicU64,
    changes: AtomicU64,
    /// Threads that are still to end before the streams do.
    working: AtomicU64,
    hits: AtomicU64,
}

/// One run. Gives how many hits there were.
pub fn hits_and_fills_against_invalidations() -> u64 {
    let world = Arc::new(World::new());
    let mut requests = world.core.requests_opened();
    let frames = world.begin(&mut requests);
    world.working.store(4, Ordering::SeqCst);
    let run = |what: fn(&World)| {
        let world = world.clone();
        thread::spawn(move || {
            what(&world);
            world.working.fetch_sub(1, Ordering::SeqCst);
        })
    };
    let threads = [run(World::read), run(World::read), run(World::change), run(World::tick)];
    let of = world.clone();
    let session = thread::spawn(move || of.session(frames));
    let of = world.clone();
    let replies = thread::spawn(move || of.reply());
    // Requests are answered here.
    while world.is_working() {
        match requests.try_recv() {
            Ok(request) => world.ask(request),
            Err(_) => thread::yield_now(),
        }
    }
    for thread in threads.into_iter().chain([session, replies]) {
        thread.join().expect("no thread panicked");
    }
    world.hits.load(Ordering::SeqCst)
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(Ticking(AtomicU64::new(Duration::from_secs(10).as_nanos() as u64)));
        let sys = Sys { clock: clock.clone(), ..Sys::real() };
        let (tasks, nowhere) = (Tasks::new(), Address::Memory("nowhere".into()));
        let link = LinkClient::new(&sys, &tasks, &nowhere, &Dial::default());
        let identity = Identity { local_id: LocalId(1), incarnation: Incarnation(1), label: String::new() };
        let core = Core::new(sys, tasks, link, CACHE_BYTES, false, identity);
        let global = Authority {
            bound: None,
            head: 0,
            busy: false,
            epoch: 0,
            lease_end: Moment::ZERO,
            seq: 0,
            acked: 0,
            awaited: 0,
        };
        let world = Self {
            core,
            clock,
            name: Name::of("k").expect("a valid key"),
            global: Mutex::new(global),
            down: Mutex::default(),
            replies: Mutex::default(),
            gone: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            working: AtomicU64::new(0),
            hits: AtomicU64::new(0),
        };
        world.global.lock().bind();
        world
    }

    fn is_working(&self) -> bool {
        self.working.load(Ordering::SeqCst) > 0
    }

    /// A session, and a name that is held under its lease: here the threads begin.
    fn begin(&self, requests: &mut mpsc::Receiver<Request>) -> Option<mpsc::Receiver<Up>> {
        let mut frames = self.core.session_opened();
        if let Some(frames) = &mut frames {
            self.rise(frames);
        }
        let welcome = std::mem::take(&mut *self.down.lock());
        self.core.session_frames(welcome.into_iter().filter_map(Way::frame).collect());
        let _told = self.core.read(&self.name);
        self.ask(requests.try_recv().expect("a name that is not held is asked for"));
        let reply = self.replies.lock().pop_front();
        self.core.replies(reply.into_iter().collect());
        assert!(self.core.hit(self.name.as_bytes()).is_some(), "it is held");
        frames
    }

    // ---- the threads of the Local

    fn read(&self) {
        let mut waiting: Vec<(u64, oneshot::Receiver<Result<Looked>>)> = Vec::new();
        let mut after = 0;
        for _ in 0..READS_MAX {
            after += usize::from(self.changes.load(Ordering::SeqCst) == CHANGES);
            if after > READS_AFTER {
                break;
            }
            let gone = self.gone.load(Ordering::SeqCst);
            match self.core.hit(self.name.as_bytes()) {
                Some(hit) => {
                    self.hits.fetch_add(1, Ordering::SeqCst);
                    assert!(hit.entry.bind_rev.0 > gone, "a hit gives {:?}, {gone} is gone", hit.entry);
                    assert_eq!(hit.blob.id(), hit.entry.hash);
                }
                None => waiting.extend(self.core.read(&self.name).ok().map(|answer| (gone, answer))),
            }
            waiting.retain_mut(|(gone, answer)| answer.try_recv().map(|told| judge(*gone, told)).is_err());
            pause();
        }
    }

    fn session(&self, mut frames: Option<mpsc::Receiver<Up>>) {
        while self.is_working() {
            let batch = self.arrived();
            let ended = matches!(batch.last(), Some(Way::End));
            let down: Vec<Down> = batch.into_iter().filter_map(Way::frame).collect();
            if !down.is_empty() {
                self.core.session_frames(down);
            }
            let closed = frames.as_mut().is_none_or(|frames| self.rise(frames));
            let stalled = shuttle::rand::thread_rng().gen_bool(0.1) && self.stall();
            if ended || closed || stalled {
                self.core.session_lost();
                // What was under way on the old stream is lost with it.
                self.down.lock().clear();
                frames = self.core.session_opened();
            } else if shuttle::rand::thread_rng().gen_bool(0.2) {
                self.core.keep();
            }
            thread::yield_now();
        }
    }

    /// Hears nothing for longer than a lease; then the stream is broken.
    fn stall(&self) -> bool {
        let until = self.clock.now() + STRETCHED;
        // The clock stops in the end.
        for _ in 0..STALL_MAX {
            if !self.is_working() || self.clock.now() >= until {
                break;
            }
            thread::yield_now();
        }
        true
    }

    /// What came down the session stream: some of it, in order.
    fn arrived(&self) -> Vec<Way> {
        let mut down = self.down.lock();
        let some = shuttle::rand::thread_rng().gen_range(0..=down.len());
        down.drain(..some).collect()
    }

    /// What the Local sends. True: it gave the stream up.
    fn rise(&self, frames: &mut mpsc::Receiver<Up>) -> bool {
        loop {
            match frames.try_recv() {
                Ok(frame) => self.take(frame),
                Err(mpsc::error::TryRecvError::Empty) => return false,
                Err(mpsc::error::TryRecvError::Disconnected) => return true,
            }
        }
    }

    fn reply(&self) {
        while self.is_working() {
            let reply = self.replies.lock().pop_front();
            match reply {
                Some(reply) => self.core.replies(vec![reply]),
                None => thread::yield_now(),
            }
        }
    }

    fn tick(&self) {
        for _ in 0..STEPS {
            pause();
            self.clock.0.fetch_add((LEASE / 2).as_nanos() as u64, Ordering::SeqCst);
        }
    }

    // ---- Global

    fn send(&self, frame: Down) {
        self.down.lock().push_back(Way::Frame(frame));
    }

    fn take(&self, frame: Up) {
        let mut global = self.global.lock();
        let now = self.clock.now();
        match frame {
            Up::Hello(_) => self.hello(&mut global, now),
            // Rule 13.
            Up::Keep { epoch, .. } | Up::Ack { epoch, .. } | Up::Summary { epoch, .. }
                if epoch != global.epoch() => {}
            Up::Keep { n, acked, .. } => {
                global.acked = global.acked.max(acked);
                self.renew(&mut global, now, n);
            }
            Up::Ack { seq, .. } => global.acked = global.acked.max(seq),
            Up::Summary { batch, names, .. } => {
                let held = global.bound.as_ref().map(|(entry, _)| entry.bind_rev);
                let right = |listed: Revision| !global.busy && held == Some(listed);
                let refused = (0u32..).zip(&names).filter(|(_, n)| !right(n.bind_rev)).map(|(at, _)| at);
                let (epoch, refused) = (global.epoch(), refused.collect());
                self.send(Down::Summarized { epoch, batch, refused });
            }
            Up::Drop { .. } | Up::Bye { .. } => {}
        }
    }

    /// Rules 14 to 16: WELCOME, an INV of what is busy, a LEASE.
    fn hello(&self, global: &mut Authority, now: Moment) {
        let unexpired = now < global.lease_end;
        let owes = global.awaited > global.acked;
        (global.epoch, global.seq, global.acked) = (global.epoch + 1, 0, 0);
        self.send(Down::Welcome {
            epoch: global.epoch(),
            head: Revision(global.head),
            resumption: Resumption::Compacted,
            lease: LEASE,
            born: born(now),
            list: true,
            loss: None,
        });
        let mut awaited = 0;
        if global.busy {
            awaited = self.invalidate(global);
        }
        // The change under way goes on waiting for a session that it waited for, by its new INV; no other.
        global.awaited = if unexpired && owes { awaited } else { 0 };
        self.renew(global, now, 0);
    }

    /// Rules 3 and 18.
    fn renew(&self, global: &mut Authority, now: Moment, n: u64) {
        if n > 0 && now >= global.lease_end {
            self.down.lock().push_back(Way::End);
            return;
        }
        global.lease_end = global.lease_end.max(now + STRETCHED);
        let (epoch, through) = (global.epoch(), Revision(global.head));
        self.send(Down::Lease { epoch, n, lease: LEASE, through, born: born(now) });
    }

    fn invalidate(&self, global: &mut Authority) -> u64 {
        global.seq += 1;
        let upto = global.bound.as_ref().map_or(global.head, |(entry, _)| entry.bind_rev.0);
        let (epoch, seq) = (global.epoch(), global.seq);
        self.send(Down::Inv { epoch, seq, name: self.name.clone(), upto: Revision(upto) });
        seq
    }

    fn change(&self) {
        for _ in 0..CHANGES {
            pause();
            {
                let mut global = self.global.lock();
                global.busy = true;
                if global.epoch > 0 {
                    let seq = self.invalidate(&mut global);
                    global.awaited = if self.clock.now() < global.lease_end { seq } else { 0 };
                }
            }
            while !self.is_drained() {
                thread::yield_now();
            }
            let removed = {
                let mut global = self.global.lock();
                let removed = global.bound.take().map_or(0, |(entry, _)| entry.bind_rev.0);
                global.head += 1;
                global.busy = false;
                removed
            };
            // The caller is told.
            self.gone.store(removed, Ordering::SeqCst);
            self.changes.fetch_add(1, Ordering::SeqCst);
            thread::yield_now();
            self.global.lock().bind();
        }
    }

    fn is_drained(&self) -> bool {
        let global = self.global.lock();
        let now = self.clock.now();
        global.awaited <= global.acked || now >= global.lease_end
    }

    /// Rule 7: what is visible, cacheable unless it is busy.
    fn ask(&self, Request { flight, epoch, ask, .. }: Request) {
        let Ask::Resolve { .. } = ask else { return };
        let global = self.global.lock();
        let now = self.clock.now();
        let live = epoch == global.epoch() && now < global.lease_end;
        let (entry, carried) = global.bound.clone().unzip();
        let cacheable = (live && !global.busy && entry.is_some()).then_some(epoch);
        let resolved = Resolved { entry, carried, cacheable, head: Revision(global.head) };
        let reply = Reply { flight, answer: Answer::Resolved(resolved), born: born(now), journal_ms: 0 };
        self.replies.lock().push_back(reply);
    }
}

impl Authority {
    fn bind(&mut self) {
        self.head += 1;
        let blob = Blob::hash(self.head.to_le_bytes().to_vec());
        let entry = Entry {
            hash: blob.id(),
            size: blob.size(),
            bind_rev: Revision(self.head),
            expires_at: None,
            content_type: None,
        };
        self.bound = Some((entry, blob));
    }

    fn epoch(&self) -> Epoch {
        Epoch { history: HistoryId(7), boot: 1, counter: self.epoch }
    }
}

/// Lets others go first, for a while.
fn pause() {
    for _ in 0..shuttle::rand::thread_rng().gen_range(1..20) {
        thread::yield_now();
    }
}

fn born(now: Moment) -> Born {
    Born { history: HistoryId(7), boot: 1, at_ms: now.as_millis() }
}

/// A read that began when `gone` was acknowledged.
fn judge(gone: u64, told: Result<Looked>) {
    if let Ok(Looked { entry: Some(entry), blob, .. }) = told {
        assert!(entry.bind_rev.0 > gone, "a read gives {entry:?}, {gone} is gone");
        assert!(blob.is_none_or(|blob| blob.id() == entry.hash));
    }
}
