//! Finds the running node and connects to it: the one place that knows `dstore-client`.

use crate::config::{LOCAL_ADDRESS, Node};
use dstore_client::{Client, ClientConfig};
pub use dstore_proto::RemoteStore;
use dstore_shared::{Error, Result};
use dstore_sys::Sys;
use dstore_sys::net::Address;
use std::sync::Arc;
use std::time::Duration;

/// How long a connection to this machine, or to one nearby, may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);

/// A node that answered.
#[derive(Debug)]
pub struct Attached {
    /// Where it is.
    pub address: Address,
    /// How to ask it.
    pub store: Arc<RemoteStore>,
    /// Owns the connection: it ends with this.
    pub client: Client,
}

/// Connects to `node`.
///
/// # Errors
/// `Unavailable`, naming the address, if no node is there.
pub async fn attach(sys: &Sys, node: Node) -> Result<Attached> {
    let address = match node {
        Node::At(address) => address,
        Node::Default { socket } => match socket.map(Address::Unix) {
            Some(socket) if answers(sys, &socket).await => socket,
            _ => Address::Tcp(LOCAL_ADDRESS.into()),
        },
    };
    // The client connects when it is first used, and waits for a node that comes back; at the start nobody waits.
    probe(sys, &address).await.map_err(|why| {
        Error::unavailable(format!(
            "no node answers at `{address}`, {why}: start one with `dstore` or `dstore local`, or name another with `--node`"
        ))
    })?;
    let client = Client::connect(sys, &address, ClientConfig::default());
    Ok(Attached { address, store: client.store().clone(), client })
}

/// Whether somebody listens at `address`.
pub async fn answers(sys: &Sys, address: &Address) -> bool {
    probe(sys, address).await.is_ok()
}

async fn probe(sys: &Sys, address: &Address) -> Result<(), String> {
    match tokio::time::timeout(CONNECT_DEADLINE, sys.net.connect(address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(e)) => Err(e.to_string()),
        Err(_) => Err(format!("no answer within {CONNECT_DEADLINE:?}")),
    }
}
