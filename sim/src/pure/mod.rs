//! A fast simulator of both coherence machines: one Global, a few Locals, callers, a network, disks and clocks
//! that all go wrong, in virtual time, from one seed.
//!
//! No runtime, no thread, no real clock: a run of some twenty virtual seconds takes a few hundredths of a
//! second, so that thousands of schedules can be looked at. The machines are the ones of production; the
//! drivers around them (`global`, `local`) are as thin as they can be.
//!
//! ```text
//! world: what happens next (agenda) ── faults, siege ── net: streams in order, late or broken
//!   client ── local (machine, names, hits) ── net ── global (machine, committer, disk, feed) ── watch
//! check: one file for each promise; history: what it looks at      planted: bugs put in on purpose
//! ```
//! Invariant: the same seed and configuration give the same trace, whatever else the process does.

mod agenda;
mod check;
pub mod cli;
mod client;
mod config;
mod faults;
mod global;
mod history;
mod keys;
mod local;
mod many;
mod names;
mod net;
mod planted;
mod rng;
mod siege;
#[cfg(test)]
mod tests;
mod watch;
mod world;

pub use config::{Asks, Config, Fault, Report, Weights};
pub use planted::Planted;

/// Runs one schedule to its end, or to the first violations.
pub fn run(seed: u64, config: Config) -> Report {
    world::World::new(seed, config).run()
}
