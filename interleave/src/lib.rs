//! The parts of dstore that threads share, as they are, under a scheduler that tries interleavings.
//!
//! The production sources are compiled here once more, by path and unchanged, with other crates behind the names `std`,
//! `parking_lot` and `dashmap`: shuttle's locks and atomics, each use of which is a place where another thread may come
//! in. So what is tried is the code itself and not a model of it, and production knows nothing of it.
//!
//! [`node`] has the Local's hits, flights and fills against invalidations and leases; [`shown`] what Global's readers
//! see while commits become visible and move into the index; [`commit`] group commit, from callers to the disk. Each scenario is one run of some threads, which panics if
//! a promise is broken; `tests/` says how many schedules of it are tried.
//!
//! Not explored: orderings of memory weaker than sequential consistency, and what tokio's channels do inside.

// The unit tests of those sources belong to their own crates.
#![cfg(not(test))]
#![allow(
    dead_code,
    unused_imports,
    unexpected_cfgs,
    reason = "of production's sources some parts only are used here"
)]

// `std` too: its atomics.
extern crate dstore_interleave_shims as std;

extern crate dstore_interleave_shims as dashmap;
extern crate dstore_interleave_shims as dstore_sys;
extern crate dstore_interleave_shims as parking_lot;

// Under their own names at the root too, where they look for each other.
use global::{
    authority, blobs, catalog, change, checkpoint, committer, data_dir, engine, expiry, feed, journal,
    journal_time, mailbox, publisher, sealed, sessions, space, sync_level,
};
use local::{audit, blob_flight, cache, coherence, core, rooms, served};

/// The node of a Local: all but its doors and its streams.
#[allow(clippy::pedantic, reason = "judged where they belong")]
#[path = "../../local/src"]
mod local {
    pub(crate) mod audit;
    pub(crate) mod blob_flight;
    pub(crate) mod cache;
    pub(crate) mod coherence;
    pub(crate) mod core;
    pub(crate) mod rooms;
    pub(crate) mod served;
}

/// Global: all but its doors, its watches' doors and its start.
#[allow(clippy::pedantic, reason = "judged where they belong")]
#[path = "../../global/src"]
mod global {
    pub(crate) mod authority;
    pub(crate) mod blobs;
    pub(crate) mod catalog;
    pub(crate) mod change;
    pub(crate) mod checkpoint;
    pub(crate) mod committer;
    pub(crate) mod data_dir;
    pub(crate) mod engine;
    pub(crate) mod expiry;
    pub(crate) mod feed;
    pub(crate) mod journal;
    pub(crate) mod journal_time;
    pub(crate) mod mailbox;
    pub(crate) mod publisher;
    pub(crate) mod sealed;
    pub(crate) mod sessions;
    pub(crate) mod space;
    pub(crate) mod sync_level;
}

use sync_level::SyncLevel;

pub mod commit;
pub mod node;
pub mod shown;
