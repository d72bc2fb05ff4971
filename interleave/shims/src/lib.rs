//! What `std`, `parking_lot`, `dashmap` and `dstore-sys` are to code whose threads shuttle schedules: the same names, over
//! shuttle's locks, atomics and threads, so that every use of one is a place where another thread may come in between.
//!
//! Invariants: a lock excludes exactly whom the real one does, or fewer: a table has a few shards instead of many, so
//! rows that never meet may wait for each other, and what the real table does shard by shard is done so here. Atomics
//! are sequentially consistent whatever ordering is asked for: what weaker ones allow is not explored.
//! It must never hand out anything that blocks without shuttle's knowledge.

pub use std::*;

mod locks;
mod table;
pub mod tasks;

pub use dstore_sys::{Sys, clock, disk, net, rng};

/// Nothing: no failpoint is armed here.
#[macro_export]
macro_rules! failpoint {
    ($name:literal) => {};
}

pub use locks::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use table::{DashMap, Ref, RefMut};

/// `std::sync` with shuttle's atomics and channels.
pub mod sync {
    pub use std::sync::*;

    /// Shuttle's channels.
    pub mod mpsc {
        pub use shuttle::sync::mpsc::*;
    }

    /// Shuttle's atomics.
    pub mod atomic {
        pub use shuttle::sync::atomic::*;
    }
}
