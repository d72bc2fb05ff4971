//! Serving gRPC on one listener, within [`Limits`].
//!
//! Our own accept loop over the [`Listener`] seam, so that the same server runs on TCP, on a Unix socket, in
//! one process and in simulation. Invariants: every task belongs to the [`Tasks`] given; every wait for a
//! peer has a deadline; a connection over the limit is closed, never queued. It must never end because one
//! connection or one accept failed.

mod connection;
mod limits;
mod patience;
mod routes;
mod together;

pub use limits::Limits;
pub use routes::{Health, Routes};

use connection::Connection;
use dstore_shared::Result;
use dstore_sys::Sys;
use dstore_sys::net::{Address, Listener};
use dstore_sys::tasks::Tasks;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// First wait after a failed accept.
const ACCEPT_BACKOFF_MIN: Duration = Duration::from_millis(5);

/// What all connections of one server share.
#[derive(Debug)]
struct Shared {
    routes: Routes,
    tasks: Tasks,
    slots: Arc<Semaphore>,
    /// How many connections there may be.
    connections: usize,
    fresh: Arc<Semaphore>,
    streams: AtomicUsize,
    accepted: AtomicU64,
    refused: AtomicU64,
    failed_accepts: AtomicU64,
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

/// A running server. It runs until [`Serving::stop`] or until its [`Tasks`] stop, not until this is dropped.
#[derive(Debug)]
pub struct Serving {
    address: Address,
    health: Health,
    shared: Arc<Shared>,
    stop: CancellationToken,
    listening: CancellationToken,
}

impl Serving {
    /// Serves `routes` on `listener`, within the limits that the routes were made with.
    ///
    /// # Errors
    /// `Internal` if reflection cannot be built.
    pub fn start(sys: &Sys, tasks: &Tasks, listener: Box<dyn Listener>, routes: Routes) -> Result<Self> {
        let (address, health) = (listener.address(), routes.health());
        let routes = routes.complete()?;
        let connections = routes.limits().connections.min(dstore_sys::net::connections_max());
        let shared = Arc::new(Shared {
            slots: Arc::new(Semaphore::new(connections)),
            connections,
            fresh: Arc::new(Semaphore::new(routes.limits().fresh)),
            routes,
            tasks: tasks.clone(),
            streams: AtomicUsize::new(0),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            failed_accepts: AtomicU64::new(0),
        });
        let (stop, listening) = (tasks.token().child_token(), CancellationToken::new());
        let accept = accept_all(sys.clone(), listener, shared.clone(), stop.clone());
        let closed = listening.clone().drop_guard();
        tasks.spawn_graceful(async move {
            accept.await;
            drop(closed);
        });
        Ok(Self { address, health, shared, stop, listening })
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What the health service answers.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// What it has seen.
    pub fn counts(&self) -> Counts {
        let shared = &self.shared;
        Counts {
            open: shared.connections - shared.slots.available_permits(),
            streams: shared.streams.load(Ordering::Relaxed),
            accepted: shared.accepted.load(Ordering::Relaxed),
            refused: shared.refused.load(Ordering::Relaxed),
            failed_accepts: shared.failed_accepts.load(Ordering::Relaxed),
        }
    }

    /// Stops to listen, tells every connection to go away, and waits until all have; calls that still run
    /// after [`Limits::drain`] are cut.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.listening.cancelled().await;
        let all = self.shared.connections as u32;
        // Nobody else takes slots any more: having all of them means that every connection has ended.
        let _ = self.shared.slots.acquire_many(all).await;
    }
}

async fn accept_all(sys: Sys, mut listener: Box<dyn Listener>, shared: Arc<Shared>, stop: CancellationToken) {
    let mut backoff = ACCEPT_BACKOFF_MIN;
    // Who has not called yet is bounded first: the others wait in the kernel, in order.
    while let Some(Ok(fresh)) = stop.run_until_cancelled(shared.fresh.clone().acquire_owned()).await {
        let Some(accepted) = stop.run_until_cancelled(listener.accept()).await else { return };
        match accepted {
            Ok(io) => {
                backoff = ACCEPT_BACKOFF_MIN;
                shared.accepted.fetch_add(1, Ordering::Relaxed);
                match shared.slots.clone().try_acquire_owned() {
                    Ok(slot) => {
                        let connection = Connection::new(shared.clone(), fresh, stop.clone());
                        shared.tasks.spawn_graceful(async move {
                            connection.serve(io).await;
                            drop(slot);
                        });
                    }
                    Err(_) => _ = shared.refused.fetch_add(1, Ordering::Relaxed),
                }
            }
            Err(e) if is_the_peers(&e) => {}
            Err(e) => {
                shared.failed_accepts.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(error = %e, ?backoff, "a connection could not be accepted");
                stop.run_until_cancelled(tokio::time::sleep(sys.rng.jitter(backoff))).await;
                backoff = (backoff * 2).min(shared.routes.limits().accept_backoff);
            }
        }
    }
}

/// The connection failed before it was accepted; the listener is well.
fn is_the_peers(e: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(e.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}
