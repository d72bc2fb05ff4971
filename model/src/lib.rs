//! Every schedule of a small dstore, looked at one by one: one Global, two Locals, one or two names, a few
//! operations, and what may go wrong a bounded number of times.
//!
//! The machines are those of production, [`dstore_global::sessions`] and [`dstore_local::coherence`]; a state is both
//! of them, what is on its way between them, and the callers. The drivers around them decide nothing that a machine
//! decides. Stateright does the search; states between which nothing that follows can tell are one
//! ([`dstore_shared::canon`]).
//!
//! ```text
//! scenario: who, what, how often -> state: machines, streams, requests, callers
//! step: what may happen next -> happen: global, local, faults -> check: I1, I4, I7, G4, answers
//! explore: stateright, counted and timed
//! ```
//! Time stands still until a [`step::Step::Tick`], which is half a lease; clocks run apart as far as they may.
//! Invariant: a step from one state leads to one state: nothing here asks for time, randomness or the order of a
//! hash map.

pub mod check;
pub mod explore;
mod frames;
mod global;
mod happen;
mod local;
mod planted;
pub mod scenario;
mod seen;
mod state;
pub mod step;
mod tell;
#[cfg(test)]
mod tests;

pub use planted::Planted;
pub use scenario::Scenario;
pub use seen::Seen;
pub use state::State;
