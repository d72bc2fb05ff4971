//! Group commit: callers, the authority, the committer, the journal, the publisher and the index, each on its threads.
//!
//! ```text
//! callers     SET, DEL of one and of both, RENAME, through the authority; each waits for its answer
//! committer, publisher, applier, maker of spare segments: as in production, on lanes of their own
//! crasher     at any moment: what is visible and what was answered, and then what a crash would leave on the disk
//! ```
//! The promises: every name is linearizable; what was answered or could be read is on the disk; both names of a DEL go
//! in one step; and all of it ends.

use crate::authority::{Authority, Parts, Responder};
use crate::blobs::{BlobLimits, Blobs};
use crate::catalog::CatalogConfig;
use crate::committer::{Committer, Job};
use crate::data_dir::{self, DataDir, DataDirConfig, Opened};
use crate::engine::EngineKind;
use crate::feed::Feed;
use crate::journal::{self, Journal, JournalConfig};
use crate::publisher::Publishing;
use crate::sessions::{Boot, Terms};
use crate::space::Space;
use crate::sync_level::SyncLevel;
use dstore_shared::{
    Blob, BlobHash, Command, CopyResult, DeleteMode, DeleteOutcome, Entry, Moment, Name, Outcome, Revision,
    SetOutcome,
};
use dstore_sim::register::{self, Answer, Call, Op, Verdict};
use dstore_sys::Sys;
use dstore_sys::clock::ManualClock;
use dstore_sys::disk::{Disk, SimDisk, Survival};
use dstore_sys::tasks::{Lane, Tasks};
use parking_lot::Mutex;
use shuttle::rand::Rng;
use shuttle::thread;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::oneshot;

const CALLERS: u32 = 3;
/// Calls of each.
const CALLS: u32 = 3;
const LEASE: Duration = Duration::from_secs(2);
const HOT_BYTES: u64 = 64 << 10;
/// Jobs that wait for the committer, and that share a batch.
const QUEUE: (usize, usize) = (64, 64);

struct World {
    authority: Arc<Authority>,
    names: [Name; 2],
    disk: Arc<SimDisk>,
    /// A clock of the history: each look is later than the one before.
    at: AtomicU64,
    history: Mutex<Vec<(usize, Call)>>,
    /// The newest revision that a caller was told.
    answered: AtomicU64,
}

/// One run. Gives how many answers there were.
pub fn changes_are_committed_together() -> u64 {
    let disk = Arc::new(SimDisk::new());
    let (authority, dir) = start(&disk);
    let name = |key: &'static str| Name::of(key).expect("a valid key");
    let world = Arc::new(World {
        authority,
        names: [name("a"), name("b")],
        disk,
        at: AtomicU64::new(0),
        history: Mutex::default(),
        answered: AtomicU64::new(0),
    });
    let callers: Vec<_> = (0..CALLERS)
        .map(|me| {
            let world = world.clone();
            thread::spawn(move || world.call(me))
        })
        .collect();
    let of = world.clone();
    let reader = thread::spawn(move || of.read());
    let crashed = world.crash();
    for thread in callers.into_iter().chain([reader]) {
        thread.join().expect("no thread panicked");
    }
    let World { authority, history, .. } = Arc::into_inner(world).expect("everybody else has ended");
    drop((authority, dir));
    crashed.judge();
    judge(&history.into_inner())
}

// ---- as `global.rs` puts them together, but for doors and sessions

fn system(disk: &Arc<SimDisk>) -> Sys {
    let clock = Arc::new(ManualClock::at(Moment::from_nanos(1_000_000_000)));
    Sys { disk: disk.clone(), clock, ..Sys::real() }
}

fn open(sys: &Sys) -> Opened<Journal> {
    let catalog = CatalogConfig {
        hot_names_bytes: HOT_BYTES,
        hot_blobs_bytes: HOT_BYTES,
        hot_inline_bytes: HOT_BYTES,
        // Each memtable is full at once.
        memtable_bytes: 0,
        ..CatalogConfig::default()
    };
    let config = DataDirConfig { path: "/data".into(), engine: EngineKind::Memory, catalog };
    let opened = data_dir::open(sys, &config, |path, floors, replay| {
        let config = JournalConfig {
            segment_bytes: 64 << 10,
            first_segment_bytes: 16 << 10,
            spare_segments: 1,
            min_free_bytes: 0,
            ..JournalConfig::new(path)
        };
        let data_dir::Floors { checkpoint, index, clean, .. } = floors;
        let floors = journal::Floors { checkpoint, index, clean };
        let replay = |batch: journal::Batch| replay(batch.first, batch.last, batch.payload);
        let (journal, opened) = Journal::open(sys, &config, &floors, replay)?;
        let head = journal.head();
        Ok((journal, data_dir::Found { head, torn: opened.torn.map(|torn| torn.to_string()) }))
    });
    opened.expect("it opens")
}

fn start(disk: &Arc<SimDisk>) -> (Arc<Authority>, Arc<DataDir>) {
    let sys = system(disk);
    let opened = open(&sys);
    opened.dir.begin(LEASE).expect("the disk is well");
    let blobs = wait(Blobs::open(sys.clone(), "/data/blobs", BlobLimits::default())).expect("it opens");
    let boot = Boot {
        history: opened.history,
        number: opened.boot,
        head: opened.catalog.head(),
        at: sys.clock.now(),
        grace: Duration::ZERO,
        all_wait: false,
    };
    let dir = Arc::new(opened.dir);
    let space = Arc::new(Space::new(&sys, "/data", 0));
    let catalog = opened.catalog;
    let authority = Arc::new_cyclic(|authority| {
        let (publishing, _) = Publishing::start(sys.blocking, authority.clone(), catalog.clone(), None);
        let rules = (SyncLevel::Group, space.clone());
        let mut committer =
            Committer::new(authority.clone(), catalog.clone(), opened.journal, publishing, rules);
        let work = move |jobs: &mut Vec<Job>| committer.work(jobs);
        let (committer, _) = Lane::start(sys.blocking, "dstore-commit", QUEUE, work);
        Authority::new(Parts {
            sys: sys.clone(),
            tasks: Tasks::new(),
            catalog,
            blobs,
            sweep_grace: Duration::from_secs(3600),
            sync: SyncLevel::Group,
            syncer: None,
            space,
            feed: Feed::new(opened.history, opened.feed, 1 << 20),
            committer,
            terms: Terms::for_lease(LEASE),
            boot,
            outcomes: Vec::new(),
            log: opened.log,
            dir: Arc::downgrade(&dir),
        })
    });
    (authority, dir)
}

/// Waits for what another thread of the machine does, which knows nothing of shuttle.
fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return done;
        }
        std::thread::sleep(Duration::from_micros(20));
    }
}

impl World {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.at.fetch_add(1, Ordering::SeqCst))
    }

    // ---- the threads

    fn call(&self, me: u32) {
        for n in 0..CALLS {
            let value = 100 * me + n + 1;
            let name = shuttle::rand::thread_rng().gen_range(0..2usize);
            let (command, ops) = match shuttle::rand::thread_rng().gen_range(0..8u8) {
                0..=3 => (self.set(name, value), vec![(name, Op::Set(value))]),
                4..=5 => (self.delete(&[name]), vec![(name, Op::Delete)]),
                6 => (self.delete(&[0, 1]), vec![(0, Op::Delete), (1, Op::Delete)]),
                _ => (self.rename(name), vec![(name, Op::Delete), (1 - name, Op::Get)]),
            };
            let begun = self.now();
            let outcome = self.submit(command);
            let ended = self.now();
            let answers = answers(&ops, &outcome);
            let mut history = self.history.lock();
            history.extend(answers.into_iter().map(|(name, op, answer)| {
                let (by, answer, ended) = (format!("caller {me}"), Some(answer), Some(ended));
                (name, Call { by, op, answer, begun, ended })
            }));
        }
    }

    /// Makes a change, and waits for its answer.
    fn submit(&self, command: Command) -> Outcome {
        let (to, mut answer) = oneshot::channel();
        self.authority.submit(self.authority.next_id(), command, None, Responder::Call(to, None));
        let answered = loop {
            match answer.try_recv() {
                Ok(answered) => break answered.expect("the disk is well"),
                Err(oneshot::error::TryRecvError::Empty) => thread::yield_now(),
                Err(e) => panic!("nobody answers: {e}"),
            }
        };
        self.answered.fetch_max(answered.outcome.revision().0, Ordering::SeqCst);
        answered.outcome
    }

    fn set(&self, name: usize, value: u32) -> Command {
        let blob = blob(value);
        let (hash, size) = (blob.id(), blob.size());
        Command::Set {
            name: self.names[name].clone(),
            hash,
            size,
            carried: Some(blob),
            attributes: dstore_shared::Attributes::default(),
        }
    }

    fn delete(&self, names: &[usize]) -> Command {
        let names = names.iter().map(|name| self.names[*name].clone()).collect();
        Command::Delete { names, mode: DeleteMode::Strict }
    }

    fn rename(&self, from: usize) -> Command {
        Command::Rename { from: self.names[from].clone(), to: self.names[1 - from].clone() }
    }

    /// Reads of one name, by way of the index if need be.
    fn read(&self) {
        for _ in 0..4 {
            let begun = self.now();
            let (entry, _) = self.authority.look(&self.names[0]).expect("the index is well");
            let ended = self.now();
            let answer = entry.map_or(Answer::Absent, |entry| Answer::Found(number(&entry)));
            let by = "reader".into();
            let call = Call { by, op: Op::Get, answer: Some(answer), begun, ended: Some(ended) };
            self.history.lock().push((0, call));
        }
    }

    /// What a crash at this moment would leave.
    fn crash(&self) -> Crashed {
        for _ in 0..shuttle::rand::thread_rng().gen_range(0..400) {
            thread::yield_now();
        }
        let told = self.answered.load(Ordering::SeqCst).max(self.authority.catalog.head().0);
        Crashed { told: Revision(told), disk: Arc::new(self.disk.crash(Survival::Nothing, 0)) }
    }
}

/// A disk after a crash, and the newest revision that anybody could know of before it.
struct Crashed {
    told: Revision,
    disk: Arc<SimDisk>,
}

impl Crashed {
    fn judge(self) {
        if !self.disk.exists(Path::new("/data/meta")).expect("it can be asked") {
            assert_eq!(self.told, Revision(0));
            return;
        }
        let opened = open(&system(&self.disk));
        let head = opened.catalog.head();
        assert!(head >= self.told, "{} was told, and the disk has {head}", self.told);
    }
}

fn blob(value: u32) -> Blob {
    Blob::hash(value.to_le_bytes().to_vec())
}

/// The value that a name is bound to.
fn number(entry: &Entry) -> u32 {
    let is = |value: &u32| BlobHash::of(&value.to_le_bytes()) == entry.hash;
    (0..=100 * CALLERS + CALLS).find(is).expect("somebody set it")
}

/// What an outcome tells of each name.
fn answers(ops: &[(usize, Op)], outcome: &Outcome) -> Vec<(usize, Op, Answer)> {
    let (name, op) = ops[0];
    match outcome {
        Outcome::Set(set) => vec![(
            name,
            op,
            match set {
                SetOutcome::Stored(_) => Answer::Stored,
                SetOutcome::Unchanged(_) => Answer::Unchanged,
                SetOutcome::Occupied(entry) => Answer::Occupied(number(entry)),
                SetOutcome::NeedBlob => panic!("the value came along"),
            },
        )],
        Outcome::Delete(DeleteOutcome { removed, .. }) => ops
            .iter()
            .zip(removed)
            .map(|((name, op), removed)| (*name, *op, Answer::Removed(*removed)))
            .collect(),
        Outcome::Rename(copy) => match &copy.result {
            CopyResult::Done(entry) => {
                let value = number(entry);
                let fresh = if copy.is_fresh() { Answer::Stored } else { Answer::Unchanged };
                vec![(name, Op::Take(value), Answer::Taken), (1 - name, Op::Set(value), fresh)]
            }
            CopyResult::NotFound => vec![(name, Op::Get, Answer::Absent)],
            CopyResult::Occupied(entry) | CopyResult::Unchanged(entry) => {
                vec![(1 - name, Op::Get, Answer::Found(number(entry)))]
            }
        },
        other => panic!("nobody asked for {other:?}"),
    }
}

/// Each name by itself. Gives how many calls there were.
fn judge(history: &[(usize, Call)]) -> u64 {
    for name in 0..2 {
        let calls: Vec<Call> =
            history.iter().filter(|(of, _)| *of == name).map(|(_, call)| call.clone()).collect();
        match register::check(&calls) {
            Verdict::Explained => {}
            Verdict::Impossible(stuck) => panic!("name {name}: {}", stuck.tell(&calls)),
            Verdict::Undecided(steps) => panic!("name {name}: not decided in {steps} steps"),
        }
    }
    history.len() as u64
}
