//! Both tiers in one process, over real gRPC and in-memory connections.

mod basics;
mod races;
mod rig;
