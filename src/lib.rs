//! dstore as a library: the two tiers to be embedded, the client, and the words that they share.
//!
//! A facade: everything here is defined in one of the workspace's crates and only gathered. It must never
//! hold behaviour of its own.
//!
//! ```
//! use dstore::{Address, Client, ClientConfig, Global, GlobalConfig, Local, LocalConfig, MemoryNet, Name, Sys};
//! use std::sync::Arc;
//!
//! # #[tokio::main]
//! # async fn main() -> dstore::Result<()> {
//! # let dir = tempfile::tempdir().expect("a directory");
//! // Both tiers in this process, with connections in memory. `Sys::real()` alone uses TCP and Unix sockets.
//! let sys = Sys { net: Arc::new(MemoryNet::default()), ..Sys::real() };
//! let at = Address::Memory("global".into());
//! let global = Global::start(
//!     sys.clone(),
//!     GlobalConfig { listen: vec![at.clone()], ..GlobalConfig::new(dir.path()) },
//! )
//! .await?;
//! let local = Local::start(sys.clone(), LocalConfig::new(at)).await?;
//!
//! // What was acknowledged is durable; a second GET is answered from this process's memory.
//! let client = Client::over(&sys, Arc::new(local.node().clone()), ClientConfig::default());
//! let name = Name::of("greeting")?;
//! client.set(&name, "hello").await?;
//! assert_eq!(client.get(&name).await?.expect("it was set").bytes, "hello");
//! client.delete(&[name.clone()]).await?;
//! assert!(client.get(&name).await?.is_none());
//!
//! local.stop().await;
//! global.stop().await
//! # }
//! ```

pub use dstore_client::{Client, ClientConfig, Value, worker};
pub use dstore_global::{EngineKind, Global, GlobalConfig, SyncLevel};
pub use dstore_local::{Listen, Local, LocalConfig, Node, ShmConfig, repl};
pub use dstore_proto::store::{
    Body, BodyStream, DeleteReply, Found, Provenance, SetReply, Slice, Stat, Status, Store, Target, Tier,
};
pub use dstore_shared::{
    Blob, BlobHash, Born, ClientId, Entry, Error, Key, Kind, Name, Namespace, RequestId, Result, Revision,
    SetOutcome, limits,
};
pub use dstore_sys::Sys;
pub use dstore_sys::net::{Address, MemoryNet};
