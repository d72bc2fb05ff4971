//! Where a client calls: a node in its own process, or tiers elsewhere over gRPC.

use dstore_local::Node;
use dstore_proto::RemoteStore;
use dstore_proto::store::Store;
use dstore_shared::{RequestId, Result};

/// What a client talks to. Which of several tiers, a draw decides.
pub(super) trait Desk: 'static {
    /// What is called there.
    type Store: Store;
    /// A tier.
    fn store(&self, draw: u64) -> &Self::Store;
    /// An id for a change; its attempts may go to any of the tiers.
    async fn id(&self, draw: u64) -> Result<RequestId>;
    /// The host of that tier.
    fn host(&self, draw: u64) -> &str;
}

/// A node in the client's own process.
pub(super) struct Embedded {
    pub host: String,
    pub node: Node,
}

impl Desk for Embedded {
    type Store = Node;

    fn store(&self, _: u64) -> &Node {
        &self.node
    }

    async fn id(&self, _: u64) -> Result<RequestId> {
        self.node.request_id().await
    }

    fn host(&self, _: u64) -> &str {
        &self.host
    }
}

/// Every Local, and Global, each over a connection.
pub(super) struct Remote(pub Vec<(String, dstore_client::Client)>);

impl Remote {
    fn door(&self, draw: u64) -> &(String, dstore_client::Client) {
        &self.0[draw as usize % self.0.len()]
    }
}

impl Desk for Remote {
    type Store = RemoteStore;

    fn store(&self, draw: u64) -> &RemoteStore {
        self.door(draw).1.store()
    }

    async fn id(&self, draw: u64) -> Result<RequestId> {
        self.door(draw).1.request_id().await
    }

    fn host(&self, draw: u64) -> &str {
        &self.door(draw).0
    }
}
