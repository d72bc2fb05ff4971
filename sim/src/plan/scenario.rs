//! Scenarios: most are drawn, some are made to show one thing.

use super::{Deed, Plan};
use crate::faults::{Fault, Planned};
use std::time::Duration;

/// What a plan is drawn for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scenario {
    /// Everything is drawn.
    Drawn,
    /// As drawn, but nothing breaks.
    Whole,
    /// Two Locals, a quick network, the common calls, and nothing breaks.
    Calm,
    /// Of the values between each Local and Global one is damaged every 100 ms, and nothing else goes wrong.
    Damaged,
    /// One Local is away again and again, and little happens meanwhile.
    Away,
    /// Names that live for moments, transactions, and nothing breaks.
    Brief,
}

impl Scenario {
    /// Every scenario, with the name that the command line calls it.
    pub const ALL: &[(&str, Self)] = &[
        ("drawn", Self::Drawn),
        ("whole", Self::Whole),
        ("calm", Self::Calm),
        ("damaged", Self::Damaged),
        ("away", Self::Away),
        ("brief", Self::Brief),
    ];

    /// Such a plan.
    pub fn plan(self, seed: u64) -> Plan {
        match self {
            Self::Drawn => Plan::of(seed),
            Self::Whole => Plan { faults: Vec::new(), ..Plan::of(seed) },
            Self::Calm => Plan::calm(seed),
            Self::Damaged => damaged(seed),
            Self::Away => away(seed),
            Self::Brief => brief(seed),
        }
    }
}

fn damaged(seed: u64) -> Plan {
    let ms = Duration::from_millis;
    let damage =
        |n: u64| Planned { at: ms(100 + 50 * n), lasts: ms(1), fault: Fault::DamageOnWire(n as usize % 2) };
    Plan { faults: (0..20).map(damage).collect(), ..Plan::calm(seed) }
}

/// Four times for longer than its lease: each time it has missed one change or two when it resumes, and nothing later
/// makes up for one that is left out.
fn away(seed: u64) -> Plan {
    let ms = Duration::from_millis;
    let away = |at| Planned { at: ms(at), lasts: ms(250), fault: Fault::Delay(1) };
    let deeds = vec![Deed::Get, Deed::Get, Deed::Get, Deed::Set, Deed::Delete];
    let faults = [200, 600, 1000, 1400].map(away).to_vec();
    Plan { keys: 2, think_ms: 90, work: ms(1800), deeds, faults, ..Plan::calm(seed) }
}

/// So few names that each is given a time to live while both Locals hold it.
fn brief(seed: u64) -> Plan {
    let often = [
        (Deed::Get, 8),
        (Deed::GetMany, 2),
        (Deed::Set, 3),
        (Deed::SetBrief, 2),
        (Deed::Brief, 2),
        (Deed::Swap, 2),
        (Deed::Rename, 1),
    ];
    let deeds = often.into_iter().flat_map(|(deed, times)| std::iter::repeat_n(deed, times)).collect();
    Plan { keys: 3, think_ms: 20, deeds, ..Plan::calm(seed) }
}
