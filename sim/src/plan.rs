//! What a run is made from: sizes, workload and faults, each drawn from the seed.
//!
//! Swarm testing (Groce and others, 2012): each seed has some kinds of calls, faults and limits and not the others,
//! so that what seldom happens beside everything else happens often in some runs.
//! Invariant: equal seeds give equal plans.

mod scenario;

pub use scenario::Scenario;

use crate::cluster::GLOBAL;
use crate::faults::{Fault, Planned};
use crate::linear::KEYS_MAX;
use dstore_global::SyncLevel;
use dstore_shared::Kind;
use dstore_sys::disk::Call;
use dstore_sys::rng::{Rng, SeededRng};
use std::time::Duration;

/// A mistake made on purpose, which a run must find.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// Clients keep what they read, and at times answer from it.
    ClientCache,
    /// A Local's clock runs at half speed: it serves names long after its lease has ended.
    SlowClock,
    /// Global's clock runs at double speed: it waits for half as long as Locals serve.
    FastGlobal,
    /// Global's disk forgets, at a crash, also some of what was synced.
    ForgetfulDisk,
    /// Global's fsync returns before anything is durable; it is made up for when the file is next written.
    LateSync,
    /// Global's directories are never synced.
    NoDirSync,
    /// Nobody compares bytes with their hash any more.
    #[cfg(feature = "planted")]
    SkippedHash,
    /// A Local that resumes its session says that it has applied one revision more than it has.
    #[cfg(feature = "planted")]
    ResumeOffByOne,
    /// A watcher that resumes asks for what is after one revision more than it was told.
    WatchOffByOne,
    /// The guards of a transaction are not looked at.
    #[cfg(feature = "planted")]
    SkippedGuard,
    /// Of a transaction the last change is left out.
    #[cfg(feature = "planted")]
    HalfTransaction,
    /// Whoever holds a name that shall live less long is not told.
    #[cfg(feature = "planted")]
    UndrainedExpiry,
    /// A Local serves a name for as long as its lease, whatever it has to live.
    #[cfg(feature = "planted")]
    LateExpiry,
}

impl Bug {
    /// Every bug, with the name that the command line calls it.
    pub const ALL: &[(&str, Self)] = &[
        ("client-cache", Self::ClientCache),
        ("slow-clock", Self::SlowClock),
        ("fast-global", Self::FastGlobal),
        ("forgetful-disk", Self::ForgetfulDisk),
        ("late-sync", Self::LateSync),
        ("no-dir-sync", Self::NoDirSync),
        #[cfg(feature = "planted")]
        ("skipped-hash", Self::SkippedHash),
        #[cfg(feature = "planted")]
        ("resume-off-by-one", Self::ResumeOffByOne),
        ("watch-off-by-one", Self::WatchOffByOne),
        #[cfg(feature = "planted")]
        ("skipped-guard", Self::SkippedGuard),
        #[cfg(feature = "planted")]
        ("half-transaction", Self::HalfTransaction),
        #[cfg(feature = "planted")]
        ("undrained-expiry", Self::UndrainedExpiry),
        #[cfg(feature = "planted")]
        ("late-expiry", Self::LateExpiry),
    ];

    /// What the product is to do wrong, if the bug is one of the product.
    #[cfg(feature = "planted")]
    pub(crate) fn mistake(self) -> Option<dstore_shared::planted::Mistake> {
        use dstore_shared::planted::Mistake;
        match self {
            Self::SkippedHash => Some(Mistake::SkippedHash),
            Self::ResumeOffByOne => Some(Mistake::ResumeOffByOne),
            Self::SkippedGuard => Some(Mistake::SkippedGuard),
            Self::HalfTransaction => Some(Mistake::HalfTransaction),
            Self::UndrainedExpiry => Some(Mistake::UndrainedExpiry),
            Self::LateExpiry => Some(Mistake::LateExpiry),
            _ => None,
        }
    }
}

/// A kind of call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    /// GET of a whole value.
    Get,
    /// STAT.
    Stat,
    /// GET of a part of a value.
    Slice,
    /// GET that takes an old value too.
    Stale,
    /// GET by the hash of a value that was read before.
    Hash,
    /// Values of several names at one moment.
    GetMany,
    /// Entries of several names at one moment.
    StatMany,
    /// Which of several names are bound.
    Exists,
    /// A page of a list.
    List,
    /// SET.
    Set,
    /// Several SETs in one call.
    SetMany,
    /// COPY.
    Copy,
    /// RENAME.
    Rename,
    /// DEL of one name.
    Delete,
    /// DEL of two names.
    DeleteTwo,
    /// DEL by prefix.
    DeletePrefix,
    /// DEL that waits for nobody.
    DeleteAsync,
    /// DEL that may be answered as pending, and is asked about again.
    DeletePatient,
    /// SET with a short time to live.
    SetBrief,
    /// A short time to live for a name that has none, or a longer one.
    Brief,
    /// A transaction with a guard.
    Swap,
}

/// Each kind with its weight among those that a seed has, and whether every seed has it.
const DEEDS: &[(Deed, u64, bool)] = &[
    (Deed::Get, 8, true),
    (Deed::Stat, 1, false),
    (Deed::Slice, 2, false),
    (Deed::Stale, 2, false),
    (Deed::Hash, 1, false),
    (Deed::GetMany, 3, false),
    (Deed::StatMany, 2, false),
    (Deed::Exists, 1, false),
    (Deed::List, 2, false),
    (Deed::Set, 6, true),
    (Deed::SetMany, 1, false),
    (Deed::Copy, 2, false),
    (Deed::Rename, 2, false),
    (Deed::Delete, 3, true),
    (Deed::DeleteTwo, 2, false),
    (Deed::DeletePrefix, 1, false),
    (Deed::DeleteAsync, 1, false),
    (Deed::DeletePatient, 1, false),
    (Deed::SetBrief, 2, false),
    (Deed::Brief, 1, false),
    (Deed::Swap, 3, false),
];

/// What a run is made from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Where all randomness comes from.
    pub seed: u64,
    /// Number of Locals.
    pub locals: usize,
    /// Clients in each Local.
    pub clients: usize,
    /// Clients on a host of their own, who call Locals and Global over gRPC.
    pub workers: usize,
    /// Number of keys.
    pub keys: usize,
    /// Lease length D.
    pub lease: Duration,
    /// How long clients work, in true time.
    pub work: Duration,
    /// Longest pause of a client between two calls, in milliseconds.
    pub think_ms: u64,
    /// Longest time that a segment is on its way.
    pub latency_max: Duration,
    /// How long a job that blocks seems to take at most: in each life of a host as long, or less.
    pub blocked: Duration,
    /// Bytes of each Local's cache.
    pub cache_bytes: u64,
    /// Whether Locals keep "not found" answers.
    pub negatives: bool,
    /// How many changes share one fsync.
    pub sync: SyncLevel,
    /// How long a blob without a name is kept.
    pub sweep_grace: Duration,
    /// Bytes of what watchers can be told of the past.
    pub watch_bytes: usize,
    /// Bytes of its disk that Global leaves free.
    pub min_free: u64,
    /// Bytes of a segment of the journal.
    pub segment_bytes: u64,
    /// Bytes of commits after which Global writes a checkpoint.
    pub checkpoint_bytes: u64,
    /// What clients do, each as often as it is there.
    pub deeds: Vec<Deed>,
    /// What breaks, in order of time.
    pub faults: Vec<Planned>,
    /// Whether an hour passes at the end, for what is swept only then.
    pub hour: bool,
    /// A mistake made on purpose.
    pub bug: Option<Bug>,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Self {
        let rng = SeededRng::new(seed ^ 0x5eed_0000);
        let below = |n: u64| rng.next_u64() % n;
        let pick = |of: &[u64]| of[below(of.len() as u64) as usize];
        let mut plan = Self::calm(seed);
        plan.locals = 2 + below(2) as usize;
        plan.workers = pick(&[0, 0, 2]) as usize;
        plan.keys = pick(&[2, 3, 3, 4, KEYS_MAX as u64]) as usize;
        plan.think_ms = pick(&[15, 30, 50]);
        plan.latency_max = Duration::from_millis(pick(&[2, 5, 10, 25]));
        plan.blocked = Duration::from_millis(pick(&[1, 1, 1, 4, 20]));
        plan.cache_bytes = pick(&[1 << 20, 1 << 20, 1 << 20, 40_000, 2_000, 64]);
        plan.negatives = below(4) == 0;
        plan.sync = if below(4) == 0 { SyncLevel::Always } else { SyncLevel::Group };
        plan.sweep_grace = Duration::from_millis(pick(&[3_600_000, 60_000, 300, 60]));
        plan.watch_bytes = pick(&[64 << 20, 64 << 20, 4_000]) as usize;
        plan.min_free = pick(&[0, 1 << 20]);
        plan.segment_bytes = pick(&[64 << 20, 1 << 20, 256 << 10]);
        plan.checkpoint_bytes = pick(&[64 << 20, 100_000, 8_000]);
        plan.hour = below(8) == 0;
        plan.deeds.clear();
        for (deed, weight, is_always) in DEEDS {
            let times = if *is_always || below(2) == 0 { *weight } else { 0 };
            plan.deeds.extend((0..times).map(|_| *deed));
        }
        // Reads near an asynchronous DEL prove little, so most seeds have none.
        if below(2) == 0 {
            plan.deeds.retain(|deed| *deed != Deed::DeleteAsync);
        }
        plan.faults = crate::faults::plan(&rng, plan.locals, plan.work, plan.lease);
        plan
    }

    /// Two Locals, a quick network, and nothing breaks.
    pub fn calm(seed: u64) -> Self {
        Self {
            seed,
            locals: 2,
            clients: 2,
            workers: 0,
            keys: 3,
            lease: Duration::from_millis(100),
            work: Duration::from_millis(1500),
            think_ms: 30,
            latency_max: Duration::from_millis(2),
            blocked: Duration::from_millis(1),
            cache_bytes: 1 << 20,
            negatives: false,
            sync: SyncLevel::Group,
            sweep_grace: Duration::from_secs(3600),
            watch_bytes: 64 << 20,
            min_free: 0,
            segment_bytes: 64 << 20,
            checkpoint_bytes: 64 << 20,
            deeds: DEEDS.iter().filter(|(_, _, is_always)| *is_always).map(|(deed, ..)| *deed).collect(),
            faults: Vec::new(),
            hour: false,
            bug: None,
        }
    }

    /// Whether Global's disk may fail.
    pub(crate) fn breaks_disk(&self) -> bool {
        self.faults.iter().any(|planned| planned.fault.breaks_disk())
    }

    /// Whether a call may fail so. Faults of the network and of processes are `Unavailable` or `Closed`.
    pub(crate) fn allows(&self, kind: Kind) -> bool {
        let has = |which: fn(&Fault) -> bool| self.faults.iter().any(|planned| which(&planned.fault));
        match kind {
            Kind::Unavailable | Kind::Closed => true,
            Kind::Exhausted => has(|fault| matches!(fault, Fault::DiskFull)),
            Kind::Corrupt => self.damages_files() || has(|fault| matches!(fault, Fault::DamageOnWire(_))),
            _ => false,
        }
    }

    /// Whether a value may be lost for good. What is damaged on its way is only to be asked for again.
    pub(crate) fn damages_files(&self) -> bool {
        // What the disk fails to read is refused until it is set again, like what it reads otherwise.
        let damages = |fault: &Fault| matches!(fault, Fault::FlipBlob(_) | Fault::FailCall(Call::Read, _));
        self.faults.iter().any(|planned| damages(&planned.fault))
    }

    /// How fast a host's clock runs, in millionths of true speed, and what it shows at the beginning.
    pub(crate) fn clock(&self, of_host: u64, host: &str) -> (u64, Duration) {
        let rng = SeededRng::new(of_host);
        let ppm = 995_000 + rng.next_u64() % 10_001;
        let boot = Duration::from_millis(rng.next_u64() % 1_000_000);
        let ppm = match self.bug {
            Some(Bug::SlowClock) if host != GLOBAL => ppm / 2,
            Some(Bug::FastGlobal) if host == GLOBAL => ppm * 2,
            _ => ppm,
        };
        (ppm, boot)
    }
}
