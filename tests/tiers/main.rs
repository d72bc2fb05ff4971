//! Both tiers in one process, over real gRPC and in-memory connections.

#[path = "../boundaries/mod.rs"]
mod boundaries;

mod audit;
mod basics;
mod contract;
mod limits;
mod list;
mod many;
mod prefix;
mod races;
mod relaxed;
mod rig;
mod scrub;
mod standing;
mod transaction;
mod watch;
