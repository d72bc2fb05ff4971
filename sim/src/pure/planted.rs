//! Bugs that are put in on purpose, one a run, to show that the checkers find them.
//!
//! Each breaks a rule at the boundary of a machine: what goes in, what comes out, or what its driver owes it. So the
//! machines stay as they are, and nothing of this is in any binary that serves. The comments name the rules of
//! docs/PROTOCOL.md or the promises of docs/GUARANTEES.md.

use super::config::{Asks, Config, Fault, Weights};
use std::collections::BTreeMap;
use std::time::Duration;

macro_rules! planted {
    ($($(#[$doc:meta])* $name:ident $rule:literal,)*) => {
        /// A bug put in on purpose, which the checkers must find.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Planted {
            $($(#[$doc])* $name,)*
        }

        impl Planted {
            /// All of them.
            pub const ALL: [Self; [$($rule),*].len()] = [$(Self::$name),*];

            /// The rule or promise that it breaks.
            pub fn rule(self) -> &'static str {
                match self {
                    $(Self::$name => $rule,)*
                }
            }
        }
    };
}

planted! {
    /// `valid_until` is loaded after the lookup.
    LoadAfterLookup "1",
    /// A LEASE counts from its arrival, not from the KEEP that it answers.
    LeaseFromArrival "2",
    /// Global counts a lease shorter than it tells.
    CountsLess "3",
    /// A WELCOME alone ends a lapse.
    WelcomeServes "4",
    /// A SET takes its name without waiting for who has it.
    UnqueuedSet "5",
    /// A DEL by prefix takes the names that there are when it comes, and not those that come into being meanwhile.
    PrefixTakesWhatIsThere "5",
    /// A DEL waits for nobody.
    UndrainedDelete "6",
    /// A DEL by prefix waits for nobody.
    UndrainedPrefix "6",
    /// A RENAME does not wait for the holders of the name that it unbinds.
    UndrainedRename "6",
    /// A SET that binds a name anew waits for nobody.
    UndrainedReplace "6",
    /// Who asks for a DEL is not waited for by it.
    SparesRequester "6",
    /// Every reply says that it may be cached.
    AlwaysCacheable "7",
    /// A name is read before its reader is registered.
    ReadBeforeRegistering "7",
    /// Names are free before the change is visible.
    FreeBeforeVisible "7",
    /// What is under a busy prefix may be cached all the same.
    CachesUnderBusyPrefix "7",
    /// Changes are visible before they are durable.
    VisibleBeforeSync "8",
    /// Changes are acknowledged when they are appended.
    RepliesBeforeSync "8",
    /// INVs say one revision too little.
    UptoOneLess "9",
    /// A reply is installed although an INV met its flight.
    InstallPoisoned "10",
    /// The INV of a prefix removes names and poisons no flight.
    PrefixPoisonsNobody "10",
    /// The boot number is not counted up.
    BootReused "11",
    /// A newer process of a Local releases the older.
    FenceReleases "12",
    /// INVs are acknowledged at once and applied a little later.
    AckBeforeRemoval "13",
    /// INVs of running drains are left out of a resumption.
    NoRepeatedInvs "14",
    /// What a Local that comes back missed is repeated to it but for the first change.
    ReplayOffByOne "14",
    /// The first LEASE of a session goes out before the INVs that must come before it.
    LeaseBeforeInvs "14",
    /// After a restart Global takes what it redid of its journal for all that ever happened.
    ForgetFloor "14",
    /// Names go on being served after a RESYNC.
    IgnoreResync "14",
    /// Changes by prefix are left out of a resumption.
    ForgetsPrefix "14",
    /// A Local that comes back in time is not waited for by the drains that waited for it.
    ResumeReleases "15",
    /// A Local that comes back too late is no wildcard.
    NoWildcard "16",
    /// Leases are renewed whatever is owed.
    NeverOverdue "17",
    /// A broken stream ends its session.
    ReleaseOnStreamLoss "18",
    /// A KEEP revives a session that has run out.
    KeepRevives "18",
    /// A wildcard ends with the first batch of its listing.
    WildcardEndsEarly "19",
    /// What a Local lists is registered whatever it is bound to.
    SummaryUnchecked "19",
    /// A DROP counts whatever registration it is of.
    DropUnnumbered "20",
    /// A GET joins any flight of its name, and is served by any reply.
    JoinsAnyFlight "21, 22",
    /// The binding that a SET was refused for is installed.
    InstallsOccupied "23",
    /// Every attempt has an id of its own.
    RestampRetries "24",
    /// What had no effect is not remembered.
    ForgetsNoEffect "25",
    /// After a restart attempts are stamped anew.
    RestampsBorn "26",
    /// The names of an asynchronous DEL are free as soon as it is visible.
    AsyncFreesAtCommit "27",
    /// A SET does not wait for those who may serve that its name is absent.
    UndrainedPresence "28",
    /// "Not found" answers are kept over a change of the epoch.
    AbsenceOutlivesEpoch "28",
    /// No grace after a crash.
    SkipGrace "29",
    /// The grace after a crash is that of the shortest D, not of the longest granted.
    ForgetLeaseGrown "29",
    /// After a crash nobody knows of asynchronous DELs that were not drained.
    ForgottenAsync "29",
    /// A stop waits for nobody, and says that no lease is outstanding.
    StopsWithLeases "29",
    /// The grace ends as soon as every Local of before is back.
    GraceEndsEarly "30",
    /// Names of before a WELCOME go on being served.
    IgnoreEra "31",
    /// A DEL of several names shows one after the other.
    PiecemealDelete "G2",
    /// A DEL by prefix shows one name after the other.
    PiecemealPrefix "G2",
    /// The names of one question are looked up one after the other.
    PiecemealReads "G2",
    /// A read of several names does not look at its hits again.
    NoSecondLook "G2",
    /// Clocks are ten times as wrong as they may be.
    WrongClocks "G5",
    /// A watch that resumes begins one revision too late.
    WatchSkipsOne "watches",
    /// A watch that asks for what is forgotten begins with what is not.
    WatchForgets "watches",
    /// Watchers are told of changes before these are visible.
    WatchBeforeVisible "watches",
    /// A part of a revision passes for all of it.
    WatchHalf "watches",
}

impl Planted {
    /// The bug of this name, in whatever case.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|bug| format!("{bug:?}").eq_ignore_ascii_case(name))
    }

    /// The faults without which it does not show, or seldom.
    fn needs(self) -> &'static [Fault] {
        use Fault::{
            Cuts, Duplicates, Evictions, GlobalCrashes, GlobalStops, LocalCrashes, LocalPauses, Sieges, Skew,
            Stalls, Twins,
        };
        match self {
            Self::SkipGrace | Self::VisibleBeforeSync | Self::RepliesBeforeSync | Self::ForgottenAsync => {
                &[GlobalCrashes, Sieges]
            }
            Self::ReleaseOnStreamLoss
            | Self::IgnoreEra
            | Self::ForgetsPrefix
            | Self::NoWildcard
            | Self::WelcomeServes
            | Self::KeepRevives
            | Self::WildcardEndsEarly
            | Self::SummaryUnchecked
            | Self::AbsenceOutlivesEpoch => &[Cuts, Sieges],
            Self::NoRepeatedInvs => &[Cuts, Stalls, Sieges],
            Self::WrongClocks => &[Cuts, Skew, Sieges],
            Self::LoadAfterLookup => &[Cuts, LocalPauses, Sieges],
            Self::RestampRetries | Self::ForgetsNoEffect => &[Duplicates, Stalls],
            Self::RestampsBorn | Self::BootReused => &[Duplicates, GlobalCrashes, Stalls],
            Self::ForgetFloor | Self::ForgetLeaseGrown => &[GlobalCrashes, Cuts, Sieges],
            Self::GraceEndsEarly => &[GlobalCrashes, Stalls],
            Self::StopsWithLeases => &[GlobalStops, Stalls],
            Self::IgnoreResync => &[Stalls, LocalPauses, Sieges],
            Self::FenceReleases => &[Twins, LocalCrashes, Sieges],
            Self::ResumeReleases => &[Cuts, Stalls],
            Self::DropUnnumbered => &[Evictions, Stalls],
            Self::WatchSkipsOne | Self::WatchForgets | Self::WatchHalf => &[Cuts],
            _ => &[Stalls, Sieges],
        }
    }
}

impl Config {
    /// The same with a planted bug, and with what it takes to show: few other faults, or it hides behind them.
    #[must_use]
    pub fn with(mut self, planted: Planted) -> Self {
        let some: Weights = self.faults.into_iter().step_by(3).collect();
        self.faults = some.into_iter().chain(planted.needs().iter().map(|fault| (*fault, 4))).collect();
        self.planted = Some(planted);
        self.black_box = false;
        (self.modes, self.negatives, self.prefixes, self.watchers) = (false, false, false, 0);
        self.replaces = planted == Planted::UndrainedReplace;
        match planted {
            Planted::IgnoreResync => self.queue_max = 4,
            Planted::ForgetLeaseGrown => self.sessions_at_lease = 1,
            Planted::ReplayOffByOne | Planted::LeaseBeforeInvs => {
                self.flapping();
                // Few changes, so that the first one missed is of the name that is fought over.
                (self.lease, self.clients, self.think_us) = (Duration::from_millis(100), 3, 40_000);
                self.asks = BTreeMap::from([(Asks::Get, 50), (Asks::Set, 5)]);
                self.faults = Weights::from([(Fault::Sieges, 1)]);
            }
            Planted::ResumeReleases | Planted::GraceEndsEarly | Planted::StopsWithLeases => self.flapping(),
            Planted::DropUnnumbered => {
                (self.keys, self.think_us, self.bursts) = (2, 300, 0);
                self.faults = Weights::from([(Fault::Evictions, 20), (Fault::Stalls, 1)]);
            }
            Planted::ForgetFloor | Planted::WelcomeServes => {
                (self.log_max, self.replay_max) = (1_000_000, 8_000);
            }
            Planted::SummaryUnchecked | Planted::IgnoreEra => self.log_max = 2,
            Planted::NoWildcard | Planted::WildcardEndsEarly => {
                (self.log_max, self.replay_max, self.holdings_max) = (1_000_000, 8_000, 1_000);
                self.keys = 4;
            }
            Planted::AsyncFreesAtCommit => self.modes = true,
            Planted::ForgottenAsync => {
                self.modes = true;
                // Long enough for Global to be back before it ends.
                self.lease = Duration::from_secs(2);
            }
            Planted::UndrainedPresence | Planted::AbsenceOutlivesEpoch => self.negatives = true,
            Planted::PrefixTakesWhatIsThere
            | Planted::UndrainedPrefix
            | Planted::CachesUnderBusyPrefix
            | Planted::PrefixPoisonsNobody
            | Planted::PiecemealPrefix
            | Planted::ForgetsPrefix => {
                self.prefixes = true;
                (self.log_max, self.replay_max) = (1_000_000, 8_000);
            }
            Planted::WatchSkipsOne
            | Planted::WatchForgets
            | Planted::WatchBeforeVisible
            | Planted::WatchHalf => {
                (self.watchers, self.prefixes) = (2, true);
            }
            _ => {}
        }
        self
    }

    /// Locals that lose their streams now and then and are back before their leases end, while a few names are bound
    /// and unbound all the time.
    fn flapping(&mut self) {
        (self.log_max, self.replay_max, self.queue_max) = (1_000_000, 8_000, 32_768);
        (self.lease, self.keys, self.think_us, self.bursts) = (Duration::from_secs(2), 2, 5_000, 0);
        self.asks = BTreeMap::from([(Asks::Get, 50), (Asks::Set, 25), (Asks::Del, 25)]);
    }
}
