//! Both tiers in one process, over real gRPC and in-memory connections.

mod basics;
mod limits;
mod races;
mod rig;
