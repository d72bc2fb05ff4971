//! One lock a hash: who moves a blob's file in, trusts that it is there, or removes it, takes turns.
//!
//! Invariants: a bounded number of stripes, so two hashes may share a lock but no hash has two. A guard is
//! owned and travels into the job that blocks: a caller that goes away does not unlock work in progress.
//! Lock order: one stripe at a time; the locks of pins, marks and budget are taken inside it, one at a time.

use dstore_shared::BlobHash;
use std::sync::Arc;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Enough that 16 uploads at once share a stripe in about one case of nine.
const STRIPES: usize = 1024;

/// Held while a blob's file may change.
pub(super) type Locked = OwnedMutexGuard<()>;

#[derive(Debug)]
pub(super) struct Locks(Box<[Arc<Mutex<()>>]>);

impl Locks {
    pub(super) fn new() -> Self {
        Self((0..STRIPES).map(|_| Arc::default()).collect())
    }

    /// Waits for the lock of `hash`, first come, first served.
    pub(super) async fn lock(&self, hash: &BlobHash) -> Locked {
        let [a, b, ..] = *hash.as_bytes();
        let stripe = usize::from(u16::from_le_bytes([a, b])) % STRIPES;
        self.0[stripe].clone().lock_owned().await
    }
}
