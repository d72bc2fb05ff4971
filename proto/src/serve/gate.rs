//! The connections of one listener: who is let in, how many there are, and how they end.

use super::Limits;
use super::connection::Connection;
use super::door::Door;
use dstore_sys::Sys;
use dstore_sys::net::{Address, Listener};
use dstore_sys::tasks::Tasks;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// First wait after a failed accept.
const ACCEPT_BACKOFF_MIN: Duration = Duration::from_millis(5);

/// How many connections there are.
#[derive(Debug)]
pub(super) struct Crowd {
    slots: Arc<Semaphore>,
    /// How many there may be.
    connections: usize,
    pub(super) fresh: Arc<Semaphore>,
    accepted: AtomicU64,
    refused: AtomicU64,
    failed_accepts: AtomicU64,
}

/// What all connections of one listener share.
#[derive(Debug)]
pub(super) struct Shared<D> {
    pub(super) door: Arc<D>,
    pub(super) tasks: Tasks,
    pub(super) streams: AtomicUsize,
    pub(super) crowd: Crowd,
}

/// What a connection that was let in has of its listener.
#[derive(Debug)]
pub(super) struct Admitted {
    /// Its place among those that have not begun a call.
    pub(super) fresh: OwnedSemaphorePermit,
    /// Cancelled when it is to end.
    pub(super) stop: CancellationToken,
}

/// What a server has seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counts {
    /// Connections open now.
    pub open: usize,
    /// Calls running now, on all connections.
    pub streams: usize,
    /// Connections accepted, `refused` included.
    pub accepted: u64,
    /// Connections closed at once because [`Limits::connections`] were open.
    pub refused: u64,
    /// Accepts that failed.
    pub failed_accepts: u64,
}

/// A listener whose connections are served. It runs until [`Gate::stop`] or until its [`Tasks`] stop, not until this is
/// dropped.
#[derive(Debug)]
pub struct Gate<D> {
    address: Address,
    shared: Arc<Shared<D>>,
    stop: CancellationToken,
    listening: CancellationToken,
}

impl<D: Door> Gate<D> {
    /// Lets `door` answer the calls of whoever connects to `listener`.
    pub fn open(sys: &Sys, tasks: &Tasks, listener: Box<dyn Listener>, door: D) -> Self {
        let limits: &Limits = door.limits();
        let connections = limits.connections.min(dstore_sys::net::connections_max());
        let crowd = Crowd {
            slots: Arc::new(Semaphore::new(connections)),
            connections,
            fresh: Arc::new(Semaphore::new(limits.fresh)),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            failed_accepts: AtomicU64::new(0),
        };
        let (tasks, streams, address) = (tasks.clone(), AtomicUsize::new(0), listener.address());
        let (stop, listening) = (tasks.token().child_token(), CancellationToken::new());
        let shared = Arc::new(Shared { door: Arc::new(door), tasks, streams, crowd });
        let accept = accept_all(sys.clone(), listener, shared.clone(), stop.clone());
        let closed = listening.clone().drop_guard();
        shared.tasks.spawn_graceful(async move {
            accept.await;
            drop(closed);
        });
        Self { address, shared, stop, listening }
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What it has seen.
    pub fn counts(&self) -> Counts {
        let crowd = &self.shared.crowd;
        Counts {
            open: crowd.connections - crowd.slots.available_permits(),
            streams: self.shared.streams.load(Ordering::Relaxed),
            accepted: crowd.accepted.load(Ordering::Relaxed),
            refused: crowd.refused.load(Ordering::Relaxed),
            failed_accepts: crowd.failed_accepts.load(Ordering::Relaxed),
        }
    }

    /// Stops to listen, tells every connection to go away, and waits until all have; calls that still run
    /// after [`Limits::drain`] are cut.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.listening.cancelled().await;
        let all = self.shared.crowd.connections as u32;
        // Nobody else takes slots any more: having all of them means that every connection has ended.
        let _ = self.shared.crowd.slots.acquire_many(all).await;
    }
}

async fn accept_all<D: Door>(
    sys: Sys,
    mut listener: Box<dyn Listener>,
    shared: Arc<Shared<D>>,
    stop: CancellationToken,
) {
    let (mut backoff, crowd) = (ACCEPT_BACKOFF_MIN, &shared.crowd);
    // Who has not called yet is bounded first: the others wait in the kernel, in order.
    while let Some(Ok(fresh)) = stop.run_until_cancelled(crowd.fresh.clone().acquire_owned()).await {
        let Some(accepted) = stop.run_until_cancelled(listener.accept()).await else { return };
        match accepted {
            Ok(io) => {
                backoff = ACCEPT_BACKOFF_MIN;
                crowd.accepted.fetch_add(1, Ordering::Relaxed);
                match crowd.slots.clone().try_acquire_owned() {
                    Ok(slot) => {
                        let admitted = Admitted { fresh, stop: stop.clone() };
                        let connection = Connection::new(shared.clone(), admitted);
                        shared.tasks.spawn_graceful(async move {
                            connection.serve(io).await;
                            drop(slot);
                        });
                    }
                    Err(_) => _ = crowd.refused.fetch_add(1, Ordering::Relaxed),
                }
            }
            Err(e) if is_the_peers(&e) => {}
            Err(e) => {
                crowd.failed_accepts.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(error = %e, ?backoff, "a connection could not be accepted");
                stop.run_until_cancelled(tokio::time::sleep(sys.rng.jitter(backoff))).await;
                backoff = (backoff * 2).min(shared.door.limits().accept_backoff);
            }
        }
    }
}

/// The connection failed before it was accepted; the listener is well.
fn is_the_peers(e: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(e.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}
