//! PLACEHOLDER, to be deleted when `dstore-global`, `dstore-local` and `dstore-client` offer these names.
//!
//! Only `serve.rs` and `attach.rs` name anything of this file. The node keeps values in memory of
//! this process, so that the whole command line can be tried; the remote store only connects.

pub mod global {
    //! Instead of `dstore_global`.

    use crate::config::GlobalSettings;
    use dstore_shared::{Error, Result};
    use dstore_sys::Sys;
    use dstore_sys::net::{Address, Listener};

    /// Instead of `dstore_global::Global`.
    #[derive(Debug)]
    pub struct Global(Box<dyn Listener>);

    impl Global {
        pub async fn start(sys: Sys, settings: GlobalSettings) -> Result<Self> {
            let at = &settings.listen;
            let listener = sys.net.listen(at).await;
            listener
                .map(Self)
                .map_err(|e| Error::invalid(format!("cannot listen at `{at}`, {e}: choose another")))
        }

        pub fn address(&self) -> Address {
            self.0.address()
        }

        pub async fn failed(&self) {
            std::future::pending::<()>().await;
        }

        #[expect(clippy::unused_async, reason = "the real one waits")]
        pub async fn stop(self) {}
    }
}

pub mod local {
    //! Instead of `dstore_local`.

    use super::node::MemoryNode;
    use crate::config::LocalSettings;
    use dstore_shared::{Error, Result};
    use dstore_sys::Sys;
    use dstore_sys::net::{Address, Listener};
    use std::sync::Arc;

    /// Instead of `dstore_local::Local`.
    #[derive(Debug)]
    pub struct Local {
        listeners: Vec<Box<dyn Listener>>,
        node: Arc<MemoryNode>,
    }

    impl Local {
        pub async fn start(sys: Sys, settings: LocalSettings) -> Result<Self> {
            let mut listeners = Vec::new();
            let socket = settings.socket.map(Address::Unix);
            let tcp = settings.listen.map(|listen| (listen.address, listen.is_default));
            for (at, is_default) in tcp.into_iter().chain(socket.map(|socket| (socket, false))) {
                let mut listener = sys.net.listen(&at).await;
                if listener.is_err() && is_default {
                    listener = sys.net.listen(&Address::Tcp("127.0.0.1:0".into())).await;
                }
                listeners.push(
                    listener.map_err(|e| {
                        Error::invalid(format!("cannot listen at `{at}`, {e}: choose another"))
                    })?,
                );
            }
            let serving = sys.net.connect(&settings.global).await.is_ok();
            Ok(Self { listeners, node: Arc::new(MemoryNode::new(serving)) })
        }

        pub fn addresses(&self) -> Vec<Address> {
            self.listeners.iter().map(|listener| listener.address()).collect()
        }

        pub fn node(&self) -> Arc<MemoryNode> {
            self.node.clone()
        }

        #[expect(clippy::unused_async, reason = "the real one waits")]
        pub async fn stop(self) {}
    }
}

pub mod client {
    //! Instead of `dstore_client`.

    use dstore_proto::store::{Body, DeleteReply, Found, SetReply, Slice, Stat, Status, Store, Target};
    use dstore_shared::{Error, Name, RequestId, Result};
    use dstore_sys::Sys;
    use dstore_sys::net::Address;
    use std::sync::Arc;

    /// Instead of `dstore_client::ClientConfig`.
    #[derive(Debug, Default)]
    pub struct ClientConfig {}

    /// Instead of `dstore_client::Client`.
    #[derive(Debug)]
    pub struct Client(Arc<RemoteStore>);

    impl Client {
        pub fn connect(_: &Sys, _: &Address, _: ClientConfig) -> Self {
            Self(Arc::new(RemoteStore))
        }

        pub fn store(&self) -> &Arc<RemoteStore> {
            &self.0
        }
    }

    /// Instead of `dstore_client::RemoteStore`.
    #[derive(Debug)]
    pub struct RemoteStore;

    fn absent<T>() -> Result<T> {
        Err(Error::unavailable("this build cannot talk to other processes yet"))
    }

    impl Store for RemoteStore {
        async fn get(&self, _: Target, _: Slice) -> Result<Option<Found>> {
            absent()
        }
        async fn set(&self, _: RequestId, _: Option<Name>, _: Body) -> Result<SetReply> {
            absent()
        }
        async fn delete(&self, _: RequestId, _: Vec<Name>) -> Result<DeleteReply> {
            absent()
        }
        async fn stat(&self, _: Target) -> Result<Option<Stat>> {
            absent()
        }
        async fn status(&self) -> Result<Status> {
            absent()
        }
    }
}

mod node {
    //! Values in memory.

    use dstore_proto::store::{
        Body, DeleteReply, Found, Provenance, SetReply, Slice, Stat, Status, Store, Target, Tier,
    };
    use dstore_shared::{Blob, Born, Entry, Name, RequestId, Result, Revision, SetOutcome};
    use std::collections::HashMap;
    use std::sync::{Mutex, MutexGuard, PoisonError};
    use std::time::Duration;

    #[derive(Debug)]
    pub struct MemoryNode {
        blobs: Mutex<HashMap<Name, Blob>>,
        serving: bool,
    }

    const FROM: Provenance = Provenance { tier: Tier::Local, cached: true, revision: Revision(1) };

    fn entry(blob: &Blob) -> Entry {
        Entry { hash: blob.id(), size: blob.size(), bind_rev: Revision(1), expires_at: None }
    }

    impl MemoryNode {
        pub fn new(serving: bool) -> Self {
            Self { blobs: Mutex::default(), serving }
        }

        fn blobs(&self) -> MutexGuard<'_, HashMap<Name, Blob>> {
            self.blobs.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    impl Store for MemoryNode {
        async fn get(&self, target: Target, _: Slice) -> Result<Option<Found>> {
            let Target::Name(name) = target else { return Ok(None) };
            let blob = self.blobs().get(&name).cloned();
            Ok(blob.map(|blob| Found { entry: entry(&blob), from: FROM, body: Body::Blob(blob) }))
        }

        async fn set(&self, _: RequestId, name: Option<Name>, body: Body) -> Result<SetReply> {
            let blob = Blob::hash(body.collect(1 << 30).await?);
            let mut blobs = self.blobs();
            let new = entry(&blob);
            let outcome = match name.map(|name| (blobs.get(&name).cloned(), name)) {
                Some((Some(held), _)) if held.id() == new.hash => SetOutcome::Unchanged(new),
                Some((Some(held), _)) => SetOutcome::Occupied(entry(&held)),
                Some((None, name)) => {
                    blobs.insert(name, blob);
                    SetOutcome::Stored(new)
                }
                None => SetOutcome::Stored(new),
            };
            Ok(SetReply { outcome, from: FROM })
        }

        async fn delete(&self, _: RequestId, names: Vec<Name>) -> Result<DeleteReply> {
            let mut blobs = self.blobs();
            let removed = names.iter().map(|name| blobs.remove(name).is_some()).collect();
            Ok(DeleteReply { removed, revision: Revision(1) })
        }

        async fn stat(&self, target: Target) -> Result<Option<Stat>> {
            let Target::Name(name) = target else { return Ok(None) };
            Ok(self.blobs().get(&name).map(|blob| Stat { entry: entry(blob), from: FROM }))
        }

        async fn status(&self) -> Result<Status> {
            Ok(Status {
                tier: Tier::Local,
                version: env!("CARGO_PKG_VERSION").into(),
                serving: self.serving,
                born: self.serving.then(Born::default),
                revision: Revision(1),
                lease: Duration::from_secs(2),
                facts: Vec::new(),
            })
        }
    }
}
