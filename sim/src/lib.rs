//! Deterministic simulation of dstore.
//!
//! [`cluster`] runs both tiers as they are, real gRPC included, over a simulated network, disk and clock;
//! [`plan`] draws from the seed what they do and what breaks, [`faults`] breaks it, [`check`] judges what was seen, a
//! promise a file. [`pure`] runs the two coherence
//! machines alone, thousands of times quicker. One seed gives one run: nothing here may ask the machine for time,
//! randomness or a thread. In other processes than `dstore-sim` a clock that h2 keeps is left.

pub mod check;
pub mod cli;
pub mod cluster;
mod epilogue;
pub mod faults;
pub mod history;
pub mod linear;
pub mod long;
pub mod net;
pub mod plan;
pub mod planted;
pub mod pure;
pub mod register;
pub mod run;
pub mod wall;
