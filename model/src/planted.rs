//! What is broken on purpose in the drivers, so that the search shows that it would find it.

/// A bug.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Planted {
    /// A Local acknowledges an INV and keeps the name.
    AckWithoutRemoval,
    /// A Local serves names when its lease has run out.
    ServePastLease,
    /// Global takes an INV for acknowledged when it is sent.
    CommitBeforeAcked,
    /// Global releases a session when its stream breaks.
    ReleaseOnStreamLoss,
    /// Global does not wait for leases of before its restart.
    SkipGrace,
    /// After HELLO the LEASE goes out before the repeated INVs.
    LeaseBeforeInvs,
    /// INVs are not repeated to a Local that comes back.
    NoRepeatedInvs,
    /// A Local installs an answer that an INV has overtaken.
    InstallPoisoned,
    /// Global registers a reader after the look at the index.
    ReadBeforeRegistering,
    /// Global says that an answer may be cached though it may not.
    AlwaysCacheable,
    /// After COMPACTED a Local goes on serving what it held.
    IgnoreEra,
    /// The clock of a Local is slower than is allowed for.
    SlowClock,
    /// Each attempt of a change has an id of its own.
    RestampRetries,
    /// A change is visible before it is on the disk.
    VisibleBeforeSync,
}

impl Planted {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::AckWithoutRemoval,
        Self::ServePastLease,
        Self::CommitBeforeAcked,
        Self::ReleaseOnStreamLoss,
        Self::SkipGrace,
        Self::LeaseBeforeInvs,
        Self::NoRepeatedInvs,
        Self::InstallPoisoned,
        Self::ReadBeforeRegistering,
        Self::AlwaysCacheable,
        Self::IgnoreEra,
        Self::SlowClock,
        Self::RestampRetries,
        Self::VisibleBeforeSync,
    ];
}
