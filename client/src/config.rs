//! What a client may be told, each default with its reason.

use dstore_proto::dial::Dial;
use dstore_shared::ClientId;
use std::time::Duration;

/// How a [`Client`](crate::Client) connects, waits and tries again.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// How it connects, and how long one attempt may take; one that may take `deadline` or longer ends by that.
    pub dial: Dial,
    /// One call with all its attempts; for a value too large for one message, all attempts but the last. 5 s.
    pub deadline: Duration,
    /// The first wait before another attempt; it doubles. 20 ms: a node that restarts is back soon.
    pub backoff: Duration,
    /// The longest wait before another attempt. 500 ms.
    pub backoff_max: Duration,
    /// Largest value that [`Client::get`](crate::Client::get) gathers in memory. 256 MiB; larger ones are for
    /// `get_stream`.
    pub get_bytes_max: u64,
    /// Who the client is. `None`: a random identity, as should be unless ids are to be the same again.
    pub client_id: Option<ClientId>,
    /// What messages call the node. `None`: its address.
    pub node: Option<String>,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            dial: Dial::default(),
            deadline: Duration::from_secs(5),
            backoff: Duration::from_millis(20),
            backoff_max: Duration::from_millis(500),
            get_bytes_max: 256 << 20,
            client_id: None,
            node: None,
        }
    }
}
