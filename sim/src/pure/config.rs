//! What a run is made of: its size, its faults, and the bug that was planted in it.

use super::rng::Rng;
use std::collections::BTreeSet;
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
    /// What goes wrong.
    pub faults: BTreeSet<Fault>,
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
            faults: Fault::ALL.into_iter().filter(|_| rng.chance(550)).collect(),
            planted: None,
            black_box: false,
            narrate: false,
            modes: rng.chance(500),
            negatives: rng.chance(500),
        }
    }

    /// The same with a planted bug, and with the faults that it takes to show.
    #[must_use]
    pub fn with(mut self, planted: Planted) -> Self {
        // Few others, or the bug hides behind them.
        self.faults = self.faults.into_iter().step_by(3).chain(planted.needs()).collect();
        self.planted = Some(planted);
        match planted {
            Planted::IgnoreResync => self.queue_max = 4,
            Planted::ForgetLeaseGrown => self.sessions_at_lease = 1,
            Planted::ReplayOffByOne | Planted::LeaseBeforeInvs | Planted::ForgetFloor => {
                (self.log_max, self.replay_max) = (1_000_000, 8_000);
            }
            _ => {}
        }
        (self.modes, self.negatives) = match planted {
            Planted::AsyncFreesAtCommit | Planted::ForgottenAsync => (true, false),
            Planted::UndrainedPresence | Planted::AbsenceOutlivesEpoch => (false, true),
            _ => (false, false),
        };
        if planted == Planted::ForgottenAsync {
            // Long enough for Global to be back before it ends.
            self.lease = Duration::from_secs(2);
        }
        self
    }

    pub(super) fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
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
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 13] = [
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
    ];
}

/// A bug put into the driver of the machines on purpose, which the checkers must find.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Planted {
    /// No grace after a crash (rule 29).
    SkipGrace,
    /// INVs are acknowledged at once and applied a little later (rule 13).
    AckBeforeRemoval,
    /// A reply is installed although an INV met its flight (rule 10).
    InstallPoisoned,
    /// Every reply says that it may be cached (rule 7).
    AlwaysCacheable,
    /// A broken stream ends its session (rule 18).
    ReleaseOnStreamLoss,
    /// A name is read before its reader is registered (rule 7).
    ReadBeforeRegistering,
    /// `valid_until` is loaded after the lookup (rule 1).
    LoadAfterLookup,
    /// Clocks are ten times as wrong as they may be (G5).
    WrongClocks,
    /// INVs of running drains are left out of a resumption (rule 14).
    NoRepeatedInvs,
    /// Names of before a WELCOME go on being served (rule 31).
    IgnoreEra,
    /// Changes are visible before they are durable (rule 8).
    VisibleBeforeSync,
    /// Names are free before the change is visible (rule 7).
    FreeBeforeVisible,
    /// Every attempt has an id of its own (rule 24).
    RestampRetries,
    /// A DEL of several names shows one after the other (G2).
    PiecemealDelete,
    /// What a Local that comes back missed is repeated to it but for the first change (rule 14).
    ReplayOffByOne,
    /// The first LEASE of a session goes out before the INVs that must come before it (rule 14).
    LeaseBeforeInvs,
    /// After a restart Global takes what it redid of its journal for all that ever happened (rule 14).
    ForgetFloor,
    /// Names go on being served after a RESYNC (rule 14).
    IgnoreResync,
    /// The grace after a crash is that of the shortest D, not of the longest granted (rule 29).
    ForgetLeaseGrown,
    /// The names of one question are looked up one after the other (G2).
    PiecemealReads,
    /// A read of several names does not look at its hits again (G2).
    NoSecondLook,
    /// A RENAME does not wait for the holders of the name that it unbinds (rule 6).
    UndrainedRename,
    /// The names of an asynchronous DEL are free as soon as it is visible (rule 27).
    AsyncFreesAtCommit,
    /// After a crash nobody knows of asynchronous DELs that were not drained (rule 29).
    ForgottenAsync,
    /// A SET does not wait for those who may serve that its name is absent (rule 28).
    UndrainedPresence,
    /// "Not found" answers are kept over a change of the epoch (rule 28).
    AbsenceOutlivesEpoch,
}

impl Planted {
    /// All of them.
    pub const ALL: [Self; 26] = [
        Self::SkipGrace,
        Self::AckBeforeRemoval,
        Self::InstallPoisoned,
        Self::AlwaysCacheable,
        Self::ReleaseOnStreamLoss,
        Self::ReadBeforeRegistering,
        Self::LoadAfterLookup,
        Self::WrongClocks,
        Self::NoRepeatedInvs,
        Self::IgnoreEra,
        Self::VisibleBeforeSync,
        Self::FreeBeforeVisible,
        Self::RestampRetries,
        Self::PiecemealDelete,
        Self::ReplayOffByOne,
        Self::LeaseBeforeInvs,
        Self::ForgetFloor,
        Self::IgnoreResync,
        Self::ForgetLeaseGrown,
        Self::PiecemealReads,
        Self::NoSecondLook,
        Self::UndrainedRename,
        Self::AsyncFreesAtCommit,
        Self::ForgottenAsync,
        Self::UndrainedPresence,
        Self::AbsenceOutlivesEpoch,
    ];

    /// Every one shows more often when somebody looks where it would.
    fn needs(self) -> Vec<Fault> {
        let mut needs = self.needs_of_its_own();
        needs.push(Fault::Sieges);
        needs
    }

    fn needs_of_its_own(self) -> Vec<Fault> {
        match self {
            Self::SkipGrace | Self::VisibleBeforeSync | Self::ForgottenAsync => vec![Fault::GlobalCrashes],
            Self::ReleaseOnStreamLoss
            | Self::IgnoreEra
            | Self::ReplayOffByOne
            | Self::LeaseBeforeInvs
            | Self::AbsenceOutlivesEpoch => vec![Fault::Cuts],
            Self::NoRepeatedInvs => vec![Fault::Cuts, Fault::Stalls],
            Self::WrongClocks => vec![Fault::Cuts, Fault::Skew],
            Self::LoadAfterLookup => vec![Fault::Cuts, Fault::LocalPauses],
            Self::RestampRetries => vec![Fault::Duplicates],
            Self::ForgetFloor | Self::ForgetLeaseGrown => vec![Fault::GlobalCrashes, Fault::Cuts],
            Self::IgnoreResync => vec![Fault::Stalls, Fault::LocalPauses],
            _ => vec![Fault::Stalls],
        }
    }
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
