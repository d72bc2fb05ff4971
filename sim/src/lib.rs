//! Deterministic simulation of dstore: both tiers over a simulated network, disk and clock.

pub mod pure;
