//! What is looked at: who takes part, what callers may ask for, and how often what goes wrong.
//!
//! Each scenario is searched to its end within its bounds: every order of every step. What no scenario has is told in
//! docs/TESTING.md.

mod all;

use crate::planted::Planted;
use crate::seen::Seen;
pub use all::{all, large, small};
use std::fmt;

/// What a caller may ask for. Names and values are small numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// GET of a name.
    Get(usize),
    /// SET of a name to a value, from 1 on.
    Set(usize, u8),
    /// DEL of one name or of both, as a set of bits.
    Del(u8),
}

/// One operation of a caller.
#[derive(Clone, Debug)]
pub struct Op {
    /// The caller: it has one operation at a time.
    pub client: u8,
    /// Any of these.
    pub menu: Vec<(usize, Kind)>,
}

/// How often what may go wrong, or begin anew.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Faults {
    /// Session streams break.
    pub cuts: u8,
    /// Request streams break, and what is not answered is sent again.
    pub breaks: u8,
    /// Locals die and begin a new life.
    pub crashes: u8,
    /// Global dies and begins anew.
    pub global_crashes: u8,
    /// Locals evict a name.
    pub evictions: u8,
    /// Callers ask again at the other Local.
    pub retries: u8,
    /// Sessions are begun after the first ones.
    pub hellos: u8,
    /// Half a lease passes; the largest number stands for any.
    pub ticks: u8,
}

impl Faults {
    /// Nothing goes wrong, and any time may pass.
    pub const NONE: Self = Self {
        cuts: 0,
        breaks: 0,
        crashes: 0,
        global_crashes: 0,
        evictions: 0,
        retries: 0,
        hellos: 0,
        ticks: u8::MAX,
    };
}

/// Steps that are one unless they are split, for other steps to come in between.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is split or not by itself")]
pub struct Split {
    /// A hit: `valid_until` is loaded, the name looked up, the clock read.
    pub hits: bool,
    /// A Resolve at Global: registration, look at the index, confirmation.
    pub reads: bool,
    /// The blob of a binding comes some time after it.
    pub fills: bool,
    /// A change is visible some time before its names are free.
    pub finishes: bool,
}

/// What is looked at.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// To ask for it by.
    pub name: &'static str,
    /// Which Locals have a session as it begins; the others have none, ever.
    pub sessions: [bool; 2],
    /// The second Local is a newer process with the identity of the first.
    pub twins: bool,
    /// What was done before, each to its end.
    pub before: Vec<(usize, Kind)>,
    /// What callers do, each operation after the earlier ones of its caller.
    pub ops: Vec<Op>,
    /// What goes wrong, how often.
    pub faults: Faults,
    /// What is split.
    pub split: Split,
    /// Revisions that Global's log of invalidations takes.
    pub log_max: usize,
    /// Locals hold what they SET.
    pub own: bool,
    /// Clocks run apart as far as they may: Locals slow, Global fast.
    pub skewed: bool,
    /// What is wrong on purpose.
    pub planted: Option<Planted>,
    /// What must happen on some way, or the search proves nothing.
    pub expects: Vec<Seen>,
}

impl Scenario {
    /// Two Locals with sessions, nothing held, nothing goes wrong.
    pub fn new(name: &'static str, ops: Vec<Op>) -> Self {
        Self {
            name,
            sessions: [true, true],
            twins: false,
            before: Vec::new(),
            ops,
            faults: Faults::NONE,
            split: Split::default(),
            log_max: 1_000,
            own: false,
            skewed: true,
            planted: None,
            expects: Vec::new(),
        }
    }

    /// The same with a bug.
    #[must_use]
    pub fn with(mut self, planted: Planted) -> Self {
        self.planted = Some(planted);
        self
    }

    pub(crate) fn is_planted(&self, planted: Planted) -> bool {
        self.planted == Some(planted)
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sessions = self.sessions.iter().filter(|has| **has).count();
        let Self { name, before, faults, log_max, .. } = self;
        write!(f, "{name}: {sessions} sessions, before {before:?}, callers")?;
        for op in &self.ops {
            match op.menu[..] {
                [(local, kind)] => write!(f, " {}: {kind:?}@{local}", op.client)?,
                _ => write!(f, " {}: one of {}", op.client, op.menu.len())?,
            }
        }
        write!(f, "; at most {faults:?}, log of {log_max}")
    }
}

/// An operation at one Local of which there is one choice.
pub fn op(client: u8, local: usize, kind: Kind) -> Op {
    Op { client, menu: vec![(local, kind)] }
}
