//! A Global and its Locals in this process.

use dstore_global::{EngineKind, Global, GlobalConfig};
use dstore_local::{Listen, Local, LocalConfig};
use dstore_proto::store::{Body, Found, SetReply, Slice, Store, Target};
use dstore_shared::{Name, Result};
use dstore_sys::Sys;
use dstore_sys::net::{Address, MemoryNet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub const SOON: Duration = Duration::from_secs(10);

/// A machine of its own: memory network, real disk and clock.
pub fn machine() -> Sys {
    Sys { net: Arc::new(MemoryNet::default()), ..Sys::real() }
}

pub fn global_at() -> Address {
    Address::Memory("global".into())
}

pub async fn global(sys: &Sys, dir: &Path, lease: Duration) -> Global {
    global_with(sys, dir, |config| config.lease = lease).await
}

pub async fn global_with(sys: &Sys, dir: &Path, change: impl FnOnce(&mut GlobalConfig)) -> Global {
    let mut config = GlobalConfig::new(dir);
    config.engine = EngineKind::Memory;
    config.listen = vec![global_at()];
    change(&mut config);
    Global::start(sys.clone(), config).await.expect("global starts")
}

pub async fn local(sys: &Sys) -> Local {
    let local = Local::start(sys.clone(), LocalConfig::new(global_at())).await.expect("local starts");
    local.ready(SOON).await.expect("a session");
    local
}

/// A Local with a door.
pub async fn local_at(sys: &Sys, at: &Address) -> Local {
    let listen = vec![Listen { address: at.clone(), or_any: false }];
    let config = LocalConfig { listen, ..LocalConfig::new(global_at()) };
    let local = Local::start(sys.clone(), config).await.expect("local starts");
    local.ready(SOON).await.expect("a session");
    local
}

pub fn name(key: impl Into<String>) -> Name {
    Name::of(key.into()).expect("a valid key")
}

pub async fn set(local: &Local, key: &str, value: impl Into<bytes::Bytes>) -> Result<SetReply> {
    let id = local.node().request_id().await?;
    local.node().set(id, Some(name(key)), Body::Bytes(value.into())).await
}

pub async fn get(local: &Local, key: &str) -> Result<Option<Found>> {
    local.node().get(Target::Name(name(key)), Slice::ALL).await
}

pub async fn value(local: &Local, key: &str) -> Option<Vec<u8>> {
    let found = get(local, key).await.expect("answered")?;
    Some(found.body.collect(1 << 30).await.expect("the bytes").to_vec())
}

pub async fn delete(local: &Local, keys: &[&str]) -> Result<Vec<bool>> {
    let id = local.node().request_id().await?;
    let names = keys.iter().map(|key| name(*key)).collect();
    Ok(local.node().delete(id, names).await?.removed)
}
