//! Both tiers in one process, over real gRPC and in-memory connections.

#[path = "../boundaries/mod.rs"]
mod boundaries;

mod basics;
mod limits;
mod list;
mod prefix;
mod races;
mod rig;
mod watch;
