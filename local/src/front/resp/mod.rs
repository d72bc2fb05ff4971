//! The RESP door: the protocol of Redis, versions 2 and 3, over TCP and a Unix socket.
//!
//! ```text
//! event_loop   a thread: connections that are its own, and the futures of their commands
//!   connection   bytes in, bytes out, replies in order      runner   which command may run now
//!     parse, inline -> table -> commands/* -> reply, output
//!       a hit is answered there and then; what asks Global is a future, what changes a name a plan
//! ```
//! Invariants: a hit takes no task, no allocation and no lock but the cache's row; what a client may make the door hold
//! has a bound; a reply is never before its turn. docs/RESP.md tells what differs from Redis.

mod args;
mod broadcast;
mod client;
mod commands;
mod config;
mod connection;
mod cursors;
mod databases;
mod door;
mod draft;
mod event_loop;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod gathered;
mod glob;
#[cfg(any(test, feature = "fuzzing"))]
mod harness;
mod inline;
mod mail;
mod output;
mod own;
mod parse;
mod peers;
mod plan;
mod readers;
mod reply;
mod runner;
mod slots;
mod table;
mod tracking;
mod unread;

#[cfg(test)]
mod tests;

pub use config::{Database, RespConfig};

use crate::config::Listen;
use crate::node::Node;
use door::Door;
pub use door::Stats;
use dstore_shared::{Error, Result};
use dstore_sys::Sys;
use dstore_sys::net::Address;
use dstore_sys::ready::Acceptor;
use dstore_sys::tasks::{Tasks, Thread};
use event_loop::EventLoop;
use mail::Mailbox;
use std::sync::Arc;

/// Listeners of a RESP door that nobody serves yet.
#[derive(Debug)]
pub struct RespListeners(Vec<Acceptor>);

impl RespListeners {
    /// Listens wherever the settings say.
    ///
    /// # Errors
    /// `Invalid` if an address cannot be listened at.
    pub async fn bind(sys: &Sys, config: &RespConfig) -> Result<Self> {
        let mut acceptors = Vec::with_capacity(config.listen.len());
        for listen in config.listen.clone() {
            acceptors.push(sys.blocking.run(move || bind(&listen)).await?);
        }
        Ok(Self(acceptors))
    }
}

fn bind(listen: &Listen) -> Result<Acceptor> {
    let mut bound = Acceptor::bind(&listen.address);
    if listen.or_any && bound.is_err() {
        bound = Acceptor::bind(&Address::Tcp("127.0.0.1:0".into()));
    }
    bound.map_err(|e| {
        let address = &listen.address;
        Error::invalid(format!(
            "cannot listen for RESP on `{address}`, {e}: stop what uses it, or choose another address"
        ))
        .caused_by(e)
    })
}

/// An open RESP door.
#[derive(Debug)]
pub struct RespDoor {
    door: Arc<Door>,
    addresses: Vec<Address>,
    mailboxes: Vec<Arc<Mailbox>>,
    threads: Vec<Thread>,
}

impl RespDoor {
    /// Serves who comes. `None` if nobody can.
    ///
    /// # Errors
    /// `Exhausted` when the process is out of descriptors or threads.
    pub fn open(
        sys: &Sys,
        tasks: &Tasks,
        node: &Node,
        config: RespConfig,
        listeners: RespListeners,
    ) -> Result<Option<Self>> {
        let RespListeners(acceptors) = listeners;
        if acceptors.is_empty() {
            return Ok(None);
        }
        let lacks = |e: std::io::Error| {
            Error::exhausted(format!("the RESP door cannot be opened, {e}: raise the limits of the process"))
        };
        let addresses: std::io::Result<Vec<_>> = acceptors.iter().map(Acceptor::address).collect();
        let addresses = addresses.map_err(lacks)?;
        let door = Door::new(sys, tasks, node.clone(), config);
        tasks.spawn("resp databases", databases::create(door.clone()));
        let told = Arc::downgrade(&door.tracking);
        node.tell_gone_to(Arc::new(move |left| {
            if let Some(tracking) = told.upgrade() {
                tracking.left(left);
            }
        }));
        let loops: std::io::Result<Vec<_>> =
            (0..door.config.threads.max(1)).map(|_| EventLoop::new(&door)).collect();
        let mut loops = loops.map_err(lacks)?;
        let mailboxes: Vec<_> = loops.iter().map(EventLoop::mailbox).collect();
        if let Some(first) = loops.first_mut() {
            first.accept(acceptors, mailboxes.clone()).map_err(lacks)?;
        }
        let mut opened = Self { door, addresses, mailboxes, threads: Vec::new() };
        for (at, one) in loops.into_iter().enumerate() {
            match Thread::start(&format!("resp-{at}"), move || one.run()) {
                Ok(thread) => opened.threads.push(thread),
                Err(e) => {
                    opened.tell_stop();
                    return Err(lacks(e));
                }
            }
        }
        Ok(Some(opened))
    }

    /// What it counts.
    pub fn stats(&self) -> &Arc<Stats> {
        &self.door.stats
    }

    /// Where it listens, in the order of the settings.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    fn tell_stop(&self) {
        self.mailboxes.iter().for_each(|mailbox| mailbox.stop());
    }

    /// Ends every connection and thread, and waits for that.
    pub async fn stop(mut self) {
        self.tell_stop();
        for thread in std::mem::take(&mut self.threads) {
            thread.ended().await;
        }
    }
}

impl Drop for RespDoor {
    fn drop(&mut self) {
        self.tell_stop();
    }
}
