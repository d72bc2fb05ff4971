//! How a Local is set up; plain data.

use crate::front::resp::RespConfig;
use crate::front::shm::ShmConfig;
use dstore_sys::net::Address;
use std::time::Duration;

/// The settings of a Local.
#[derive(Clone, Debug)]
pub struct LocalConfig {
    /// Where Global is.
    pub global: Address,
    /// Where clients are served; none = embedded only.
    pub listen: Vec<Listen>,
    /// Where HTTP is served; none = nowhere.
    pub http: Option<Listen>,
    /// The hosts that HTTP is answered as, besides addresses and `localhost`.
    pub http_hosts: Vec<String>,
    /// Bytes that requests and answers over HTTP may hold together.
    pub http_bytes: u64,
    /// Bytes that names and blobs may take in memory.
    pub cache_bytes: u64,
    /// Whether "not found" answers are kept too, each for half a second: a SET that follows, anywhere, then has to
    /// tell this Local first.
    pub negatives: bool,
    /// How long a call waits for Global.
    pub deadline: Duration,
    /// Shortest and longest pause between attempts to reach Global, before jitter.
    pub back_off: (Duration, Duration),
    /// Thousandths of one core's time for checking the bytes of values that are kept; 0 = never.
    pub scrub_per_mille: u32,
    /// Hits a minute that Global is asked about afterwards; 0 = none.
    pub audits_a_minute: u32,
    /// For people: shown at Global.
    pub label: String,
    /// The RESP door.
    pub resp: RespConfig,
    /// Where workers get at shared memory; none = nowhere.
    pub shm: Option<ShmConfig>,
}

/// An address to listen at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listen {
    /// The address.
    pub address: Address,
    /// If it is taken, any free port of this machine does: nobody asked for this very one.
    pub or_any: bool,
}

impl LocalConfig {
    /// The defaults, for a Global at `global`.
    pub fn new(global: Address) -> Self {
        Self {
            global,
            listen: Vec::new(),
            // What a browser can reach is opened only where it is asked for.
            http: None,
            http_hosts: Vec::new(),
            // As much as RESP has: a hundred callers with the largest batches, thousands with small ones.
            http_bytes: 256 << 20,
            // A node runs other things too; small values by the million still fit.
            cache_bytes: 256 << 20,
            negatives: false,
            // A little less than a person or a client waits (5 s), so that he gets the node's own words.
            deadline: Duration::from_millis(4_500),
            // A restart of Global takes well under a second; 10,000 Locals must not return at once.
            back_off: (Duration::from_millis(20), Duration::from_secs(2)),
            // A full default cache is looked through about once in two minutes, unnoticed by its users.
            scrub_per_mille: 1,
            // Whoever embeds a Local and wants them says so.
            audits_a_minute: 0,
            label: String::new(),
            resp: RespConfig::default(),
            // Where it is depends on the socket of the Local, which whoever starts it chooses.
            shm: None,
        }
    }
}
