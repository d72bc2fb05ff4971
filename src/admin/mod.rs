//! The admin port: is it alive, is it ready, how does it do; for probes, Prometheus, and a person with a browser.
//!
//! ```text
//! /livez   the process answers          /metrics      Prometheus's text format
//! /readyz  it can do what it is for     /status.json  the same numbers, and what status tells
//! /        a page that shows them
//! ```
//! Invariants: it changes nothing; it is answered to this machine only, and to no page of another origin, unless
//! `--insecure` was said with an address that others reach: then to everybody, by any name; what it costs does not depend
//! on what is stored. It must never tell a key or a value.

mod door;
mod exposition;
mod json;
mod report;

use report::Report;
pub use report::Tiers;

use crate::config::Listen;
use door::AdminDoor;
use dstore_proto::serve::Gate;
use dstore_shared::{Error, Result};
use dstore_sys::Sys;
use dstore_sys::net::{Address, Listener};
use dstore_sys::tasks::Tasks;
use std::fmt;
use std::net::SocketAddr;

/// An admin port that was bound, and answers when it is opened.
pub struct AdminPort(Box<dyn Listener>);

/// An open admin port.
#[derive(Debug)]
pub struct Admin {
    gate: Gate<AdminDoor>,
    tasks: Tasks,
}

impl fmt::Debug for AdminPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AdminPort({:?})", self.0.address())
    }
}

impl AdminPort {
    /// Takes the port, before anything else is begun.
    ///
    /// # Errors
    /// `Invalid` if somebody asked for this very one, and it is taken.
    pub async fn bind(sys: &Sys, listen: Option<&Listen>) -> Result<Option<Self>> {
        let Some(Listen { address, is_default }) = listen else { return Ok(None) };
        let mut listener = sys.net.listen(address).await;
        if *is_default && listener.is_err() {
            listener = sys.net.listen(&Address::Tcp("127.0.0.1:0".into())).await;
        }
        match listener {
            Ok(listener) => Ok(Some(Self(listener))),
            // Nobody asked for one.
            Err(_) if *is_default => Ok(None),
            Err(e) => Err(Error::invalid(format!(
                "cannot listen for admin on `{address}`, {e}: stop what uses it, or choose another address"
            ))
            .caused_by(e)),
        }
    }

    /// Answers with what `report` tells.
    pub fn open<R: Report>(self, sys: &Sys, report: R) -> Admin {
        let tasks = Tasks::new();
        let is_open = !is_loopback(&self.0.address());
        let gate = Gate::open(sys, &tasks, self.0, AdminDoor::new(report, is_open));
        Admin { gate, tasks }
    }
}

/// Whether only this machine reaches the address.
fn is_loopback(address: &Address) -> bool {
    match address {
        Address::Tcp(host_port) => host_port.parse::<SocketAddr>().is_ok_and(|at| at.ip().is_loopback()),
        _ => true,
    }
}

impl Admin {
    /// Where it listens.
    pub fn address(&self) -> &Address {
        self.gate.address()
    }

    /// Answers nothing more.
    pub async fn stop(self) {
        self.tasks.cancel();
        self.tasks.stop().await;
    }
}
