//! Ours, as the figures use it: an embedded Local of a Global process.

use dstore_local::{Local, LocalConfig};
use dstore_proto::store::{Body, Found, SetReply, Slice, Store, Target};
use dstore_shared::{Name, SetOutcome};
use dstore_sys::Sys;
use dstore_sys::net::Address;
use std::time::Duration;

pub fn name(number: u64) -> Name {
    named(&format!("k{number:015}"))
}

pub fn named(key: &str) -> Name {
    Name::of(key.to_owned()).expect("a short key")
}

/// A Local of the Global at `address`, under its lease.
pub async fn local(address: String) -> Local {
    let config = LocalConfig::new(Address::Tcp(address));
    let local = Local::start(Sys::real(), config).await.expect("it starts");
    local.ready(Duration::from_secs(10)).await.expect("global answers");
    local
}

/// SET of a name that is not bound.
pub async fn set(node: &dstore_local::Node, name: Name, value: Vec<u8>) -> SetReply {
    let id = node.request_id().await.expect("global was reached");
    let reply = node.set(id, Some(name), Body::Bytes(value.into())).await.expect("it is set");
    assert!(matches!(reply.outcome, SetOutcome::Stored(_)), "{reply:?}");
    reply
}

pub async fn get(node: &dstore_local::Node, name: Name) -> Found {
    node.get(Target::Name(name), Slice::ALL).await.expect("answered").expect("it is bound")
}
