//! How a Global is set up; plain data.

use crate::SyncLevel;
use crate::catalog::CatalogConfig;
use crate::engine::EngineKind;
use crate::journal::SEGMENT_BYTES;
use dstore_shared::limits;
use dstore_sys::net::Address;
use std::path::PathBuf;
use std::time::Duration;

/// The settings of a Global.
#[derive(Clone, Debug)]
pub struct GlobalConfig {
    /// Where Locals and clients are served.
    pub listen: Vec<Address>,
    /// The data directory; made if need be.
    pub data: PathBuf,
    /// The engine of the index; recorded in the directory.
    pub engine: EngineKind,
    /// How many changes share one fsync.
    pub sync: SyncLevel,
    /// Lease length D.
    pub lease: Duration,
    /// How long a stop, or a store that failed, waits for calls that still run.
    pub drain_timeout: Duration,
    /// Bytes of the file system that SETs leave free.
    pub min_free: u64,
    /// Largest blob in bytes.
    pub blob_bytes_max: u64,
    /// How long a blob without a name is kept.
    pub sweep_grace: Duration,
    /// Bytes of what watchers can be told of the past.
    pub watch_bytes: usize,
    /// Bytes of a segment of the journal, a multiple of 4096: no batch is longer.
    pub segment_bytes: u64,
    /// A checkpoint is due after commits of so many bytes.
    pub checkpoint_bytes: u64,
}

impl GlobalConfig {
    /// The defaults, for data in `data`.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            listen: Vec::new(),
            data: data.into(),
            engine: EngineKind::preferred(),
            sync: SyncLevel::default(),
            lease: limits::LEASE,
            drain_timeout: Duration::from_secs(5),
            // Enough for DEL, sweep and checkpoint to go on when SETs are refused.
            min_free: 256 << 20,
            blob_bytes_max: limits::BLOB_BYTES_MAX,
            // Long enough for a slow upload to get its name, and for a mistaken DEL to be undone by hash.
            sweep_grace: Duration::from_secs(3600),
            // About 500,000 changes of names with keys of 20 bytes.
            watch_bytes: 64 << 20,
            segment_bytes: SEGMENT_BYTES,
            checkpoint_bytes: CatalogConfig::default().checkpoint_bytes,
        }
    }
}
