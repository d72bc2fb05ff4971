//! What a tier tells of itself to a person: which Locals are attached, how a read would go, what a node holds.

use super::Tier;
use dstore_shared::{Entry, Revision};
use std::time::Duration;

/// One Local that is attached to Global.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attached {
    /// What it calls itself.
    pub label: String,
    /// Which it is, over all its sessions.
    pub id: u128,
    /// How long its lease runs from now, unless it is renewed; zero: it has run out.
    pub lease_left: Duration,
    /// Invalidations that it was sent and has not acknowledged.
    pub behind: u64,
    /// It is told of every change, because what it holds is not known one by one.
    pub wildcard: bool,
    /// It kept a change waiting lately, and so for a while keeps nothing.
    pub slow: bool,
    /// Whether it may hold the name that was asked about; `None`: none was.
    pub holds: Option<bool>,
}

/// The Locals of Global.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Locals {
    /// At most [`LOCALS_TOLD_MAX`] of them: holders of the name first, then those that are furthest behind.
    pub told: Vec<Attached>,
    /// How many there are.
    pub count: u64,
}

/// Locals that one answer tells.
pub const LOCALS_TOLD_MAX: usize = 1000;

/// One step of a read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hop {
    /// Who does it.
    pub tier: Tier,
    /// What is done, in a word or two: `lookup`, `disk`.
    pub step: String,
    /// How long it took.
    pub took: Duration,
    /// What came of it.
    pub told: String,
}

impl Hop {
    /// A step that took so long.
    pub fn new(tier: Tier, step: &str, took: Duration, told: impl Into<String>) -> Self {
        Self { tier, step: step.to_owned(), took, told: told.into() }
    }
}

/// The newest DEL of a name that had to wait, as far as Global remembers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Drained {
    /// At which revision the name was changed; 0 = it is waiting yet.
    pub revision: Revision,
    /// How long ago it ended, or began if it is waiting.
    pub ago: Duration,
    /// How long it waited for Locals.
    pub waited: Duration,
    /// For whom it waited to the last, as they call themselves.
    pub for_whom: Vec<String>,
}

/// How a read of a name goes now.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Why {
    /// What the name is bound to.
    pub entry: Option<Entry>,
    /// The steps, in order. Those of Global lie within the step of the Local that asks it.
    pub hops: Vec<Hop>,
    /// Who made a change of it wait.
    pub drained: Option<Drained>,
}

/// What is known of a name without asking anybody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Peek {
    /// Nobody can tell without asking.
    Unknown,
    /// It is held here, with a value of so many bytes.
    Held(u64),
    /// It is not held here.
    Absent,
}
