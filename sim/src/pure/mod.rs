//! A fast simulator of both coherence machines: one Global, a few Locals, callers, a network, disks and clocks
//! that all go wrong, in virtual time, from one seed.
//!
//! No runtime, no thread, no real clock: a run of some twenty virtual seconds takes a few hundredths of a
//! second, so that thousands of schedules can be looked at. The machines are the ones of production; the
//! drivers around them (`global`, `local`) are as thin as they can be.
//!
//! ```text
//! world: what happens next ── faults ── net: streams in order, late or broken
//!   client ── local (machine, names, hits) ── net ── global (machine, committer, disk)
//! check, after every event: I1, I4, I7, G4      history, wgl, at every answer and at the end: G1, G2, G3
//! ```
//! Invariant: the same seed and configuration give the same trace, whatever else the process does.

mod check;
mod client;
mod config;
mod faults;
mod global;
mod history;
mod local;
mod many;
mod names;
mod net;
mod rng;
mod siege;
#[cfg(test)]
mod tests;
mod wgl;
mod world;

pub use config::{Config, Fault, Planted, Report};

/// Runs one schedule to its end, or to the first violations.
pub fn run(seed: u64, config: Config) -> Report {
    world::World::new(seed, config).run()
}
