//! How the RESP door is set up; plain data.

use crate::config::Listen;
use dstore_shared::Namespace;
use std::time::Duration;

/// The settings of the RESP door.
#[derive(Clone, Debug)]
pub struct RespConfig {
    /// Where it listens; nowhere = there is no such door.
    pub listen: Vec<Listen>,
    /// Threads, each with connections of its own.
    pub threads: usize,
    /// The namespaces that SELECT chooses, by their number.
    pub databases: Vec<Database>,
    /// What AUTH must say, if anything.
    pub password: Option<String>,
    /// What HELLO and INFO call the server.
    pub server: String,
    /// Its version there.
    pub version: String,
    /// Connections at a time.
    pub clients_max: usize,
    /// Bytes of commands that have not wholly come, or run, of all connections together.
    pub request_bytes_max: usize,
    /// How long a command may take to come wholly, and how long a client may read nothing of what it is sent.
    pub patience: Duration,
}

/// A namespace that SELECT chooses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Database {
    /// The namespace.
    pub namespace: Namespace,
    /// It is created in replace mode if nobody created it.
    pub replace: bool,
}

impl Default for RespConfig {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            listen: Vec::new(),
            // The others are the workers'.
            threads: (cores / 2).clamp(1, 8),
            databases: vec![
                Database { namespace: Namespace::default(), replace: false },
                Database { namespace: Namespace::new("cache").expect("a valid name"), replace: true },
            ],
            password: None,
            // redis-py keeps values in the client only if the server says that it is Redis 7.4.
            server: "redis".into(),
            version: "7.4.0".into(),
            clients_max: 16_384,
            // The largest command fits beside others.
            request_bytes_max: 256 << 20,
            patience: Duration::from_secs(60),
        }
    }
}
