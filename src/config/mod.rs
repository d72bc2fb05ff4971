//! What dstore was told to do, checked: command line over environment over file over default.
//!
//! Nothing here is text any more that could still be wrong, and nothing here opens, listens or connects.

mod file;
mod logs;
mod resolve;
mod resp;
mod shm;
mod show;
mod socket;
mod units;

pub use logs::{LogFormat, LogSource};
pub use resolve::{Surroundings, resolve};
pub use show::{Effective, as_toml};
pub use socket::check_folder;

use bytes::Bytes;
use dstore_global::{EngineKind, SyncLevel};
use dstore_local::Database;
use dstore_local::repl::{Command, Mode};
use dstore_proto::store::Slice;
use dstore_shared::{Attributes, Key, Namespace, NamespaceSpec};
use dstore_sys::net::Address;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Everything that was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// What to do.
    pub action: Action,
    /// How answers are written.
    pub mode: Mode,
    /// What is logged, as `DSTORE_LOG` says; `None` = what suits the action.
    pub log: Option<String>,
    /// How its lines are written.
    pub log_format: LogFormat,
    /// Where a server reads again what is logged.
    pub log_source: Option<LogSource>,
}

/// What to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// A whole dstore in one process.
    Solo { global: GlobalSettings, local: LocalSettings, script: ScriptSettings },
    /// The authority.
    Global(GlobalSettings),
    /// A node, perhaps with a prompt.
    Local { local: LocalSettings, repl: bool },
    /// A prompt or script at a running node.
    Repl { node: Node, script: ScriptSettings },
    /// One command at a running node.
    OneShot { node: Node, command: Command },
    /// Explains a data directory.
    Check(CheckSettings),
    /// A part of a value, or a value into a file, from a running node.
    Download { node: Node, key: Key, slice: Slice, out: Option<OutFile> },
    /// `set KEY -` at a running node.
    Upload { node: Node, key: Key, attributes: Attributes },
    /// Files into keys, or back, at a running node.
    Tree { node: Node, what: TreeSettings },
    /// Writes what a shell needs to complete words.
    Completions(clap_complete::Shell),
    /// Writes the pages of the manual into a folder.
    Manual(PathBuf),
    /// Tells what is in force, perhaps with who said so.
    ShowConfig { all: Vec<Effective>, origin: bool },
    /// The configuration is good, of this file if there is one.
    ConfigIsGood(Option<String>),
    /// `ns` at a running node.
    Namespaces { node: Node, what: NamespaceVerb },
}

/// What is to be done about namespaces.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NamespaceVerb {
    /// Create one.
    Create(Namespace, NamespaceSpec),
    /// List them.
    List,
    /// Tell about one.
    Stat(Namespace),
    /// Remove one with all its keys.
    Drop {
        /// Which.
        namespace: Namespace,
        /// It need not be asked for.
        sure: bool,
    },
}

/// An address to listen at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listen {
    /// The address.
    pub address: Address,
    /// Nobody asked for this one: if it is taken, any free port does.
    pub is_default: bool,
}

impl Listen {
    fn by_default(host_port: &str) -> Self {
        Self { address: Address::Tcp(host_port.into()), is_default: true }
    }
}

/// Settings of the authority.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GlobalSettings {
    /// Where it listens.
    pub listen: Address,
    /// Where its data are.
    pub data: PathBuf,
    /// Its index engine.
    pub engine: EngineKind,
    /// How many changes share one fsync.
    pub sync: SyncLevel,
    /// The lease length D.
    pub lease: Duration,
    /// How long it goes on reading after a disk error.
    pub drain_timeout: Duration,
    /// Free bytes of disk below which it stores nothing.
    pub min_free: u64,
    /// Where it tells how it does, if anywhere.
    pub admin: Option<Listen>,
}

/// What is to be explained.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckSettings {
    /// The data directory.
    pub data: PathBuf,
    /// Whether every byte of every blob is read.
    pub deep: bool,
    /// Free bytes of disk below which that is told.
    pub min_free: u64,
    /// Where what is whole is copied to.
    pub salvage: Option<PathBuf>,
}

/// Name of Global's listener within the process in solo mode.
pub const SOLO_GLOBAL: &str = "global";

impl Default for GlobalSettings {
    fn default() -> Self {
        Self {
            listen: Address::Tcp("127.0.0.1:50051".into()), // this machine only, until there is TLS
            data: "./dstore-data".into(),
            engine: EngineKind::preferred(),
            sync: SyncLevel::default(),
            lease: dstore_shared::limits::LEASE,
            drain_timeout: Duration::from_secs(5), // a balancer has noticed by then
            min_free: 256 << 20,                   // a segment in reserve and room for checkpoints
            admin: Some(Listen::by_default(GLOBAL_ADMIN_ADDRESS)),
        }
    }
}

/// Settings of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalSettings {
    /// Where Global is.
    pub global: Address,
    /// The TCP address at which it listens, if at any.
    pub listen: Option<Listen>,
    /// The Unix socket at which it listens, if at any.
    pub socket: Option<PathBuf>,
    /// The address at which it serves HTTP, if at any.
    pub http: Option<Address>,
    /// The hosts that HTTP is answered as, besides localhost and addresses.
    pub http_hosts: Vec<String>,
    /// How many bytes of values it keeps.
    pub cache_bytes: u64,
    /// Thousandths of one core's time for checking them.
    pub scrub_per_mille: u32,
    /// Whether it keeps "not found" answers.
    pub negatives: bool,
    /// Hits a minute that Global is asked about afterwards.
    pub audits_a_minute: u32,
    /// Where it tells how it does, if anywhere.
    pub admin: Option<Listen>,
    /// How it serves Redis clients.
    pub resp: RespSettings,
    /// Where workers get at shared memory, if anywhere.
    pub shm: Option<ShmSettings>,
}

/// Where workers get at shared memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShmSettings {
    /// The Unix socket.
    pub socket: PathBuf,
    /// Nobody asked for it.
    pub is_default: bool,
}

/// How a node serves Redis clients.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RespSettings {
    /// The TCP address at which it listens for them, if at any.
    pub listen: Option<Listen>,
    /// The Unix socket at which it listens for them, if at any.
    pub socket: Option<PathBuf>,
    /// Threads; `None` = as many as suit the machine.
    pub threads: Option<usize>,
    /// The namespaces that SELECT chooses.
    pub databases: Vec<Database>,
    /// What AUTH must say, if anything.
    pub password: Option<String>,
    /// What they are told that the server is, and its version, if not Redis.
    pub server: Option<String>,
    /// Its version.
    pub version: Option<String>,
}

/// Where a Local listens for Redis clients by default.
pub const RESP_ADDRESS: &str = "127.0.0.1:50379";

impl Default for RespSettings {
    fn default() -> Self {
        Self {
            listen: Some(Listen { address: Address::Tcp(RESP_ADDRESS.into()), is_default: true }),
            socket: None,
            threads: None,
            databases: dstore_local::RespConfig::default().databases,
            password: None,
            server: None,
            version: None,
        }
    }
}

/// Where Global tells by default how it does.
pub const GLOBAL_ADMIN_ADDRESS: &str = "127.0.0.1:50061";
/// Where a Local does.
pub const LOCAL_ADMIN_ADDRESS: &str = "127.0.0.1:50062";
/// Where a Local listens by default and a client looks.
pub const LOCAL_ADDRESS: &str = "127.0.0.1:50052";

impl Default for LocalSettings {
    fn default() -> Self {
        Self {
            global: GlobalSettings::default().listen,
            listen: Some(Listen { address: Address::Tcp(LOCAL_ADDRESS.into()), is_default: true }),
            socket: None,
            http: None, // what a browser can reach is opened only where it is asked for
            http_hosts: Vec::new(),
            negatives: false,
            audits_a_minute: 60, // nothing beside what a node asks anyhow
            admin: Some(Listen::by_default(LOCAL_ADMIN_ADDRESS)),
            resp: RespSettings::default(),
            shm: None,              // beside the socket, if there is one
            cache_bytes: 256 << 20, // enough to matter, too little to hurt a small machine
            scrub_per_mille: 1,     // unnoticed, and through a full cache in minutes
        }
    }
}

/// A file to write a value to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutFile {
    /// Where it is.
    pub path: PathBuf,
    /// What becomes of one that is there.
    pub how: Existing,
}

/// What becomes of a file that is there already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Existing {
    /// Nothing: the command is refused.
    Refused,
    /// It is replaced when all has arrived.
    Replaced,
    /// It is the beginning of the value: what follows is added.
    Continued,
}

/// `dstore import` and `dstore export`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TreeSettings {
    /// The files under `dir` into keys that begin with `prefix`.
    Import { dir: PathBuf, prefix: Bytes },
    /// Back.
    Export { prefix: Bytes, dir: PathBuf, overwrite: bool },
}

impl TreeSettings {
    /// What the command is called.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Import { .. } => "import",
            Self::Export { .. } => "export",
        }
    }
}

/// Which node to ask.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Node {
    /// This one.
    At(Address),
    /// The one of this socket if it answers, else the one at [`LOCAL_ADDRESS`].
    Default { socket: Option<PathBuf> },
}

/// Where commands come from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ScriptSettings {
    /// The source; `None` = a prompt on a terminal, lines of standard input otherwise.
    pub source: Option<Source>,
    /// Stop at the first failure.
    pub bail: bool,
}

/// A source of commands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// The text of `-c`.
    Text(OsString),
    /// The file of `-f`.
    File(PathBuf),
}

#[cfg(test)]
mod tests;
