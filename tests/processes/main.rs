//! Real `dstore` processes over loopback: what they must withstand, each test a sentence.
//!
//! Locals reach Global through a [`wire::Wire`], which can hold, cut and count what passes; so a Global that is
//! started again may take another port. Daemons are ended by their own id, also when a test fails, and what
//! they wrote to standard error is then shown. Tests that run long are `#[ignore]`d:
//! `cargo test --test processes -- --ignored --nocapture`.

#[path = "../boundaries/mod.rs"]
mod boundaries;

mod admin;
mod contention;
mod daemon;
mod damage;
mod engines;
mod failpoints;
mod full;
mod gone;
mod hostile;
mod hostile_link;
mod hostile_peer;
mod http;
mod http_batch;
mod http_client;
mod http_hostile;
mod http_writes;
mod limits;
mod listing;
mod many;
mod modes;
mod parts;
mod replace;
mod resp;
mod resp_bounds;
mod resp_clients;
mod resp_talk;
mod resp_tracking;
mod restart;
mod resume;
mod rig;
mod shm;
mod sizes;
mod slow;
mod start;
mod storm;
#[path = "../../benches/figures/swarm/mod.rs"]
mod swarm;
mod syscalls;
mod watch;
mod wire;
