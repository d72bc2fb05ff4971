//! A thin typed client of a dstore node: what a worker, the REPL and the one-shot verbs link.
//!
//! It names each change with a [`RequestId`](dstore_shared::RequestId) and keeps that name over all attempts,
//! so that a change is made once however often the connection fails. Invariants: every call ends within its
//! deadline; what is retried is retried with jitter and under the same id; at most 1,024 changes are in
//! flight. It must never make a second change where the caller asked for one.

mod client;
mod config;
mod ids;
pub mod worker;

pub use client::{Client, Staged, Value, Values, Watch};
pub use config::ClientConfig;
pub use dstore_proto::store::{
    Body, BodyStream, DeleteReply, Found, ListQuery, Listing, Provenance, SetReply, Slice, Stat, Status,
    Store, Target, Tier,
};
pub use dstore_proto::watch::{Event, Happened, Seen, WatchQuery};
pub use dstore_sys::net::Address;
