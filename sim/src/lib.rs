//! Deterministic simulation of dstore.
//!
//! [`cluster`] runs both tiers as they are, real gRPC included, over a simulated network, disk and clock;
//! [`faults`] breaks them by seed; [`linear`] judges what the clients saw. [`pure`] runs the two coherence
//! machines alone, thousands of times quicker. One seed gives one run: nothing here may ask the machine for
//! time, randomness or a thread.

pub mod cluster;
pub mod faults;
pub mod history;
pub mod linear;
pub mod net;
pub mod pure;
pub mod run;
