//! What a search came across, so that it cannot be right for want of anything happening.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Something that may happen on the way from one state to the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    /// A GET was answered from what a Local holds.
    Hit,
    /// A GET was answered through Global.
    Miss,
    /// A Local took a name into its table.
    Install,
    /// An answer that came too late was not taken in.
    NotInstalled,
    /// An acknowledgement let a DEL go on.
    DelByAck,
    /// The end of a lease did.
    DelByExpiry,
    /// The end of the grace after a restart of Global did.
    DelByGrace,
    /// A Local that came back was told what it had missed, holding names.
    Resume,
    /// It was not, and listed what it held.
    Compacted,
    /// A listed name was refused.
    Refused,
    /// A Local died while it might have served a name.
    CrashHolding,
    /// Global died with a change on its way.
    GlobalCrash,
    /// A renewal was refused because an acknowledgement was overdue.
    RenewalRefused,
    /// An attempt met the outcome of an earlier one, or joined it.
    Duplicate,
    /// Global gave a reader no registration.
    NotCacheable,
    /// Every operation was answered, or its Local had died.
    Ended,
}

impl Seen {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Hit,
        Self::Miss,
        Self::Install,
        Self::NotInstalled,
        Self::DelByAck,
        Self::DelByExpiry,
        Self::DelByGrace,
        Self::Resume,
        Self::Compacted,
        Self::Refused,
        Self::CrashHolding,
        Self::GlobalCrash,
        Self::RenewalRefused,
        Self::Duplicate,
        Self::NotCacheable,
        Self::Ended,
    ];
}

/// How often each was seen, over all steps of a search.
#[derive(Debug, Default)]
pub struct Sightings([AtomicU64; Seen::ALL.len()]);

impl Sightings {
    pub(crate) fn note(&self, seen: Seen) {
        self.0[seen as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// On how many steps it was seen.
    pub fn count(&self, seen: Seen) -> u64 {
        self.0[seen as usize].load(Ordering::Relaxed)
    }
}

impl fmt::Display for Sightings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for seen in Seen::ALL.into_iter().filter(|seen| self.count(*seen) > 0) {
            write!(f, " {seen:?} {}", self.count(seen))?;
        }
        Ok(())
    }
}
