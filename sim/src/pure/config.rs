//! What a run is made of: its size, its faults, and the bug that was planted in it.

use super::planted::Planted;
use super::rng::Rng;
use std::collections::BTreeMap;
use std::time::Duration;

/// One run of the simulator, but for its seed.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is on or off by itself")]
pub struct Config {
    /// Locals.
    pub locals: usize,
    /// Callers, each with one operation at a time.
    pub clients: usize,
    /// Names that they fight over.
    pub keys: usize,
    /// Registrations that Global's holder index takes.
    pub holdings_max: usize,
    /// Lease length D, with few sessions.
    pub lease: Duration,
    /// Sessions from which on D grows.
    pub sessions_at_lease: usize,
    /// Revisions that Global's log of invalidations takes.
    pub log_max: usize,
    /// Names that are repeated to a Local that comes back.
    pub replay_max: usize,
    /// Frames that wait on a session stream.
    pub queue_max: usize,
    /// Virtual time with faults; a calm follows in which everything must come to its end.
    pub duration: Duration,
    /// What goes wrong, each how often beside the others.
    pub faults: Weights,
    /// What callers ask for, each how often beside the others.
    pub asks: BTreeMap<Asks, u64>,
    /// How long a caller thinks at most, in microseconds.
    pub think_us: u64,
    /// How often of a thousand times a caller begins to read one name again and again.
    pub bursts: u64,
    /// What is wrong on purpose.
    pub planted: Option<Planted>,
    /// Whether only what callers were told is judged, and not the state of the machines.
    pub black_box: bool,
    /// Whether every event is printed.
    pub narrate: bool,
    /// Whether some DELs are asynchronous, and some have deadlines.
    pub modes: bool,
    /// Whether every other Local keeps "not found" answers.
    pub negatives: bool,
    /// Whether there are DELs by prefix.
    pub prefixes: bool,
    /// Whether a SET binds anew what is bound.
    pub replaces: bool,
    /// How many watch.
    pub watchers: usize,
    /// Outcomes that Global remembers.
    pub outcomes_max: usize,
    /// Changes under way that Global takes.
    pub ops_max: usize,
    /// Requests that a Local has under way.
    pub flights_max: usize,
    /// Events that Global's feed remembers.
    pub events_max: usize,
}

/// How often each thing happens beside the others; what is not there does not happen.
pub type Weights = BTreeMap<Fault, u64>;

/// What callers ask for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Asks {
    /// GET.
    Get,
    /// Two names at one moment.
    Both,
    /// SET.
    Set,
    /// DEL of one name.
    Del,
    /// DEL of two names.
    DelBoth,
    /// DEL by prefix, if the run has any.
    DelPrefix,
    /// COPY.
    Copy,
    /// RENAME.
    Rename,
}

impl Asks {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Get,
        Self::Both,
        Self::Set,
        Self::Del,
        Self::DelBoth,
        Self::DelPrefix,
        Self::Copy,
        Self::Rename,
    ];

    /// How often it is asked for beside the others, if nothing is dominant.
    fn usual(self) -> u64 {
        match self {
            Self::Get => 50,
            Self::Set => 22,
            Self::Both => 10,
            Self::Del => 7,
            Self::DelBoth | Self::DelPrefix | Self::Rename => 4,
            Self::Copy => 2,
        }
    }
}

/// How likely a kind of fault is absent from a run, of a thousand.
const ABSENT: u64 = 450;
/// How likely it dominates one that has it: it strikes eight times as often as another.
const DOMINANT: u64 = 150;

fn draw_faults(rng: &mut Rng) -> Weights {
    let mut faults = Weights::new();
    for fault in Fault::ALL {
        if !rng.chance(ABSENT) {
            faults.insert(fault, if rng.chance(DOMINANT) { 8 } else { 1 });
        }
    }
    // Now and then one alone, or none.
    match rng.between(0, 19) {
        0 => Weights::new(),
        1..=3 => Weights::from([(rng.pick(&Fault::ALL), 1)]),
        _ => faults,
    }
}

fn draw_asks(rng: &mut Rng) -> BTreeMap<Asks, u64> {
    let mut asks: BTreeMap<Asks, u64> = Asks::ALL.into_iter().map(|ask| (ask, ask.usual())).collect();
    if rng.chance(500) {
        for weight in asks.values_mut() {
            *weight *= rng.pick(&[0, 1, 1, 6]);
        }
        // Without these nothing would ever be read, or be there to be read.
        for ask in [Asks::Get, Asks::Set] {
            let weight = asks.entry(ask).or_default();
            *weight = (*weight).max(ask.usual());
        }
    }
    asks
}

impl Config {
    /// A configuration drawn from `seed`: each run has other faults, so that no fault hides behind another
    /// (swarm testing; Groce et al., 2012).
    pub fn for_seed(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0xC0FF_EE00);
        Self {
            locals: rng.between(2, 4) as usize,
            clients: rng.between(3, 6) as usize,
            keys: rng.between(2, 4) as usize,
            holdings_max: if rng.chance(150) { 2 } else { 1_000 },
            lease: Duration::from_millis(rng.pick(&[100, 400, 2_000])),
            sessions_at_lease: if rng.chance(300) { 1 } else { 1_000 },
            log_max: if rng.chance(300) { 2 } else { 1_000_000 },
            replay_max: if rng.chance(150) { 3 } else { 8_000 },
            queue_max: if rng.chance(300) { 4 } else { 32_768 },
            duration: Duration::from_secs(8),
            faults: draw_faults(&mut rng),
            asks: draw_asks(&mut rng),
            think_us: rng.pick(&[300, 5_000, 40_000]),
            bursts: rng.pick(&[0, 50, 150]),
            planted: None,
            black_box: false,
            narrate: false,
            modes: rng.chance(500),
            negatives: rng.chance(500),
            prefixes: rng.chance(500),
            watchers: rng.below(3),
            outcomes_max: if rng.chance(200) { 8 } else { 500_000 },
            ops_max: if rng.chance(150) { 2 } else { 65_536 },
            flights_max: if rng.chance(150) { 3 } else { 64 },
            events_max: if rng.chance(300) { 6 } else { 1 << 20 },
            // Last, so that a seed means otherwise what it did.
            replaces: rng.chance(300),
        }
    }

    pub(super) fn has(&self, fault: Fault) -> bool {
        self.faults.contains_key(&fault)
    }

    pub(super) fn is_planted(&self, planted: Planted) -> bool {
        self.planted == Some(planted)
    }
}

/// Something that goes wrong in a run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fault {
    /// Streams break, alone or all of a Local at once; each end learns of it when it does.
    Cuts,
    /// A link delivers nothing for a while, then everything.
    Stalls,
    /// A Local dies and returns as another incarnation.
    LocalCrashes,
    /// A Local says BYE and returns.
    LocalStops,
    /// A Local stands still, its clock does not.
    LocalPauses,
    /// Global dies; of what it appended and did not sync, any prefix survives.
    GlobalCrashes,
    /// Global retires its Locals, stops and returns.
    GlobalStops,
    /// Global stands still, its clock does not.
    GlobalPauses,
    /// A sync fails; Global dies soon after.
    SyncFailures,
    /// Locals evict names.
    Evictions,
    /// Clocks run at rates up to ρ off.
    Skew,
    /// A caller sends one change through two Locals at once.
    Duplicates,
    /// A Local is cut off for longer than a lease, one way or both, while others change a name that it holds.
    Sieges,
    /// What is on its way on a stream that breaks arrives all the same, after newer streams were opened.
    LateFrames,
    /// Two processes run under one Local's identity: the newer fences the older, which goes on serving.
    Twins,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Cuts,
        Self::Stalls,
        Self::LocalCrashes,
        Self::LocalStops,
        Self::LocalPauses,
        Self::GlobalCrashes,
        Self::GlobalStops,
        Self::GlobalPauses,
        Self::SyncFailures,
        Self::Evictions,
        Self::Skew,
        Self::Duplicates,
        Self::Sieges,
        Self::LateFrames,
        Self::Twins,
    ];
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Operations that were answered.
    pub ops: usize,
    /// GETs answered without a question to Global.
    pub hits: usize,
    /// Times that something went wrong, as configured.
    pub faults: usize,
    /// The same by kind, in the order of [`Fault::ALL`].
    pub struck: [usize; Fault::ALL.len()],
    /// Changes that watchers were told of.
    pub watched: usize,
    /// Sessions whose Local was told what it missed.
    pub resumed: usize,
    /// Queues of session streams that overflowed.
    pub resyncs: usize,
    /// Histories too tangled to be judged in the steps allowed; each was judged by Global's own timeline.
    pub undecided: usize,
    /// What went wrong that must not.
    pub violations: Vec<String>,
    /// The same for the same seed and configuration, whatever the machine.
    pub trace_hash: u64,
}
