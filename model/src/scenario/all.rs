//! The scenarios.
//!
//! Local 0 of most has no session: it only asks, as if it were a caller at Global, and the schedules are those of the
//! other one. In `both`, `twins`, `own`, `pair` and `free` both have one.

use super::{Faults, Kind, Op, Scenario, Split, op};
use crate::seen::Seen;
use Kind::{Del, Get, Set};

const NONE: Faults = Faults::NONE;

/// Those that tests search: at most a few seconds each.
pub fn small() -> Vec<Scenario> {
    vec![
        hit(),
        fill(),
        resume(),
        compacted(),
        local_crash(),
        global_crash(),
        retry(),
        both(),
        evict(),
        twins(),
    ]
}

/// Those that take minutes.
pub fn large() -> Vec<Scenario> {
    vec![
        resume_and_read(),
        compacted_and_read(),
        crash_and_read(),
        global_crash_and_read(),
        retry_and_break(),
        split_hit(),
        refill(),
        own(),
        flapping(),
        pair(),
        free(),
        free_cut(),
        free_crash(),
    ]
}

/// All of them.
pub fn all() -> Vec<Scenario> {
    small().into_iter().chain(large()).collect()
}

/// One Local with a session that holds the first name, and one without.
fn holder(name: &'static str, ops: Vec<Op>) -> Scenario {
    Scenario {
        sessions: [false, true],
        before: vec![(0, Set(0, 1)), (1, Get(0))],
        ..Scenario::new(name, ops)
    }
}

/// A name that is held is read and deleted.
pub(crate) fn hit() -> Scenario {
    Scenario {
        expects: vec![Seen::Hit, Seen::Miss, Seen::DelByAck, Seen::DelByExpiry, Seen::RenewalRefused],
        ..holder("hit", vec![op(0, 0, Del(1)), op(1, 1, Get(0))])
    }
}

/// Reads of a name that is being deleted: what may be installed, who may be served by whose answer.
pub(crate) fn fill() -> Scenario {
    Scenario {
        before: vec![(0, Set(0, 1))],
        faults: Faults { ticks: 1, ..NONE },
        split: Split { reads: true, fills: true, finishes: true, hits: false },
        expects: vec![Seen::Install, Seen::NotInstalled, Seen::NotCacheable, Seen::DelByAck],
        ..holder("fill", vec![op(0, 0, Del(1)), op(1, 1, Get(0)), op(2, 1, Get(0))])
    }
}

/// A Local comes back, and may have missed a DEL.
pub(crate) fn resume() -> Scenario {
    Scenario {
        faults: Faults { cuts: 1, hellos: 1, ..NONE },
        expects: vec![Seen::Resume, Seen::DelByAck, Seen::DelByExpiry, Seen::RenewalRefused],
        ..holder("resume", vec![op(0, 0, Del(1))])
    }
}

/// The same with a log that remembers nothing.
pub(crate) fn compacted() -> Scenario {
    Scenario {
        log_max: 0,
        faults: Faults { cuts: 1, hellos: 1, ..NONE },
        expects: vec![Seen::Compacted, Seen::Refused],
        ..holder("compacted", vec![op(0, 0, Del(1))])
    }
}

/// A Local dies with a name held.
pub(crate) fn local_crash() -> Scenario {
    Scenario {
        faults: Faults { crashes: 1, hellos: 1, ..NONE },
        expects: vec![Seen::CrashHolding, Seen::DelByAck, Seen::DelByExpiry],
        ..holder("local-crash", vec![op(0, 0, Del(1))])
    }
}

/// Global dies with a change on its way, and the Local comes back to it.
pub(crate) fn global_crash() -> Scenario {
    Scenario {
        faults: Faults { global_crashes: 1, hellos: 1, ..NONE },
        expects: vec![Seen::GlobalCrash, Seen::DelByGrace, Seen::Resume],
        ..holder("global-crash", vec![op(0, 0, Del(1))])
    }
}

/// Changes that are asked for twice.
pub(crate) fn retry() -> Scenario {
    Scenario {
        sessions: [false, false],
        before: vec![(0, Set(0, 1))],
        faults: Faults { retries: 1, global_crashes: 1, ticks: 0, ..NONE },
        expects: vec![Seen::Duplicate],
        ..holder("retry", vec![op(0, 0, Del(1)), op(0, 0, Set(0, 2)), op(1, 1, Get(0))])
    }
}

/// A DEL of two names, each of which one Local holds.
pub(crate) fn both() -> Scenario {
    Scenario {
        before: vec![(0, Set(0, 1)), (0, Set(1, 1)), (0, Get(0)), (1, Get(1))],
        expects: vec![Seen::DelByAck, Seen::DelByExpiry],
        ..Scenario::new("both", vec![op(0, 0, Del(3))])
    }
}

/// A held name is evicted and read again.
pub(crate) fn evict() -> Scenario {
    Scenario {
        faults: Faults { evictions: 1, ticks: 0, ..NONE },
        split: Split { reads: true, fills: true, ..Split::default() },
        expects: vec![Seen::Install, Seen::DelByAck],
        ..holder("evict", vec![op(0, 0, Del(1)), op(1, 1, Get(0)), op(2, 1, Get(0))])
    }
}

/// Two processes with one identity: the older one goes on serving until its lease ends.
pub(crate) fn twins() -> Scenario {
    Scenario {
        twins: true,
        sessions: [true, true],
        before: vec![(0, Set(0, 1)), (0, Get(0))],
        expects: vec![Seen::Hit, Seen::DelByExpiry],
        ..Scenario::new("twins", vec![op(0, 1, Del(1)), op(1, 0, Get(0))])
    }
}

// ---- those that take minutes

fn resume_and_read() -> Scenario {
    Scenario {
        faults: Faults { cuts: 1, hellos: 2, ..NONE },
        expects: vec![Seen::Hit, Seen::Resume, Seen::DelByAck, Seen::DelByExpiry],
        ..holder("resume-and-read", vec![op(0, 0, Del(1)), op(1, 1, Get(0))])
    }
}

fn compacted_and_read() -> Scenario {
    Scenario {
        log_max: 0,
        faults: Faults { cuts: 1, hellos: 1, ..NONE },
        expects: vec![Seen::Compacted, Seen::Refused, Seen::Hit, Seen::Install],
        ..holder("compacted-and-read", vec![op(0, 0, Del(1)), op(1, 1, Get(0)), op(1, 1, Get(0))])
    }
}

fn crash_and_read() -> Scenario {
    Scenario {
        faults: Faults { crashes: 1, cuts: 1, hellos: 1, ..NONE },
        expects: vec![Seen::CrashHolding, Seen::Hit, Seen::DelByExpiry],
        ..holder("crash-and-read", vec![op(0, 0, Del(1)), op(1, 1, Get(0)), op(1, 1, Get(0))])
    }
}

fn global_crash_and_read() -> Scenario {
    Scenario {
        faults: Faults { global_crashes: 1, hellos: 1, ..NONE },
        expects: vec![Seen::GlobalCrash, Seen::DelByGrace, Seen::Resume, Seen::Hit],
        ..holder("global-crash-and-read", vec![op(0, 0, Del(1)), op(1, 1, Get(0))])
    }
}

/// Changes that are asked for twice, by callers and by Locals.
fn retry_and_break() -> Scenario {
    Scenario {
        name: "retry-and-break",
        faults: Faults { retries: 1, breaks: 1, global_crashes: 1, ticks: 3, ..NONE },
        ..retry()
    }
}

/// The three steps of a hit with everything else in between.
fn split_hit() -> Scenario {
    Scenario {
        faults: Faults { cuts: 1, hellos: 1, ..NONE },
        split: Split { hits: true, ..Split::default() },
        expects: vec![Seen::Hit, Seen::DelByExpiry],
        ..holder("split-hit", vec![op(0, 0, Del(1)), op(1, 1, Get(0))])
    }
}

/// A name that is deleted, set and read anew while requests are lost and sent again.
fn refill() -> Scenario {
    Scenario {
        before: vec![(0, Set(0, 1))],
        faults: Faults { breaks: 1, ticks: 1, ..NONE },
        split: Split { reads: true, fills: true, finishes: true, hits: false },
        expects: vec![Seen::Install, Seen::NotInstalled],
        ..holder("refill", vec![op(0, 0, Del(1)), op(0, 0, Set(0, 2)), op(1, 1, Get(0)), op(1, 1, Get(0))])
    }
}

/// Locals that hold what they SET.
fn own() -> Scenario {
    Scenario {
        own: true,
        expects: vec![Seen::Install, Seen::Hit],
        ..Scenario::new("own", vec![op(0, 0, Set(0, 1)), op(0, 0, Get(0)), op(1, 1, Del(1))])
    }
}

/// A Local that comes back again and again delays a DEL no longer than once.
fn flapping() -> Scenario {
    Scenario {
        faults: Faults { cuts: 2, hellos: 2, ..NONE },
        expects: vec![Seen::DelByExpiry, Seen::Resume],
        ..holder("flapping", vec![op(0, 0, Del(1))])
    }
}

/// Two Locals that hold one name, one of which deletes it.
fn pair() -> Scenario {
    Scenario {
        before: vec![(0, Set(0, 1)), (0, Get(0)), (1, Get(0))],
        expects: vec![Seen::Hit, Seen::DelByAck, Seen::DelByExpiry],
        ..Scenario::new("pair", vec![op(0, 0, Del(1)), op(1, 1, Get(0))])
    }
}

/// Whatever a caller may ask of two names at two Locals.
fn anything(client: u8) -> Op {
    let kinds = [Get(0), Get(1), Set(0, 2), Set(1, 2), Del(1), Del(2), Del(3)];
    Op { client, menu: (0..2).flat_map(|local| kinds.map(|kind| (local, kind))).collect() }
}

/// Any two operations on two names at two Locals which both hold the first.
fn free() -> Scenario {
    Scenario {
        before: vec![(0, Set(0, 1)), (0, Get(0)), (1, Get(0))],
        expects: vec![Seen::Hit, Seen::DelByAck, Seen::DelByExpiry],
        ..Scenario::new("free", vec![anything(0), anything(1)])
    }
}

/// The same with a stream that breaks and a Local that comes back, for two and a half leases.
fn free_cut() -> Scenario {
    Scenario {
        name: "free-cut",
        faults: Faults { cuts: 1, hellos: 1, ticks: 5, ..NONE },
        expects: vec![Seen::Hit, Seen::DelByAck, Seen::DelByExpiry, Seen::Resume],
        ..free()
    }
}

/// The same with two incarnations of a Local.
fn free_crash() -> Scenario {
    Scenario {
        name: "free-crash",
        faults: Faults { crashes: 1, hellos: 1, ticks: 5, ..NONE },
        expects: vec![Seen::Hit, Seen::DelByAck, Seen::DelByExpiry, Seen::CrashHolding],
        ..free()
    }
}
