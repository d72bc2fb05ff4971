//! Serving HTTP on one listener, within [`Limits`]: gRPC by [`Serving`], another [`Door`] by [`Gate`].
//!
//! Our own accept loop over the [`Listener`] seam, so that the same server runs on TCP, on a Unix socket, in
//! one process and in simulation. Invariants: every task belongs to the [`Tasks`] given; every wait for a
//! peer has a deadline; a connection over the limit is closed, never queued. It must never end because one
//! connection or one accept failed.

mod connection;
mod door;
mod gate;
mod limits;
mod metered;
mod patience;
mod routes;
mod together;

pub use crate::watch_wire::OfConnection;
pub use door::{BoxError, Door, HTTP1_BUFFER_BYTES};
pub use gate::{Counts, Gate};
pub use limits::Limits;
pub use routes::{Health, Routes};

use dstore_shared::Result;
use dstore_sys::Sys;
use dstore_sys::net::{Address, Listener};
use dstore_sys::tasks::Tasks;

/// A running gRPC server. It runs until [`Serving::stop`] or until its [`Tasks`] stop, not until this is dropped.
#[derive(Debug)]
pub struct Serving {
    gate: Gate<Routes>,
    health: Health,
}

impl Serving {
    /// Serves `routes` on `listener`, within the limits that the routes were made with.
    ///
    /// # Errors
    /// `Internal` if reflection cannot be built.
    pub fn start(sys: &Sys, tasks: &Tasks, listener: Box<dyn Listener>, routes: Routes) -> Result<Self> {
        let health = routes.health();
        let gate = Gate::open(sys, tasks, listener, routes.complete()?);
        Ok(Self { gate, health })
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        self.gate.address()
    }

    /// What the health service answers.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// What it has seen.
    pub fn counts(&self) -> Counts {
        self.gate.counts()
    }

    /// As [`Gate::stop`].
    pub async fn stop(&self) {
        self.gate.stop().await;
    }
}
