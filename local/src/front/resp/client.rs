//! Owns what a connection remembers between commands: protocol, namespace, MULTI, tracking.

use super::args::Kept;
use super::broadcast::Watches;
use super::reply::Version;
use super::table::Spec;
use dstore_shared::{Guard, Namespace};
use parking_lot::Mutex;
use std::sync::Arc;

/// Commands that MULTI queues, and the bytes of their words.
pub const QUEUE_MAX: (usize, usize) = (1000, 32 << 20);

/// Whether replies are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Replies {
    /// All.
    #[default]
    On,
    /// None, not even to the command that says ON.
    Off,
    /// Not to the next command.
    SkipNext,
}

/// What MULTI queued.
#[derive(Debug, Default)]
pub struct Multi {
    /// The commands.
    pub queue: Vec<(&'static Spec, Kept)>,
    /// The bytes of their words.
    pub bytes: usize,
    /// One was refused: EXEC will be too.
    pub refused: bool,
}

impl Multi {
    /// EXEC will be refused: what was queued is not kept, nor is what follows.
    pub fn refuse(&mut self) {
        *self = Self { refused: true, ..Self::default() };
    }
}

/// How invalidations are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent options of a command")]
pub struct TrackingMode {
    /// Whether they are.
    pub on: bool,
    /// Of all keys with a prefix, read or not.
    pub broadcast: bool,
    /// Only of keys that are read after CLIENT CACHING YES.
    pub opt_in: bool,
    /// Not of keys that are read after CLIENT CACHING NO.
    pub opt_out: bool,
    /// Not of what this client changes itself.
    pub no_loop: bool,
    /// Which client is told, if not this one.
    pub redirect: Option<u64>,
    /// What CLIENT CACHING said of the next command.
    pub caching: Option<bool>,
}

impl TrackingMode {
    /// Whether what a command reads now is to be tracked.
    pub fn tracks_reads(&self) -> bool {
        let asked = if self.opt_in { self.caching == Some(true) } else { self.caching != Some(false) };
        self.on && !self.broadcast && asked
    }
}

/// What a connection remembers.
#[derive(Debug)]
pub struct Client {
    /// Which protocol it speaks.
    pub version: Version,
    /// The namespace that it chose.
    pub namespace: Namespace,
    /// Its number.
    pub database: usize,
    /// What the packed names of the namespace begin with.
    pub prefix: Vec<u8>,
    /// It said who it is, or need not.
    pub known: bool,
    /// Whether it wants replies.
    pub replies: Replies,
    /// What it queues, after MULTI.
    pub multi: Option<Multi>,
    /// What EXEC will look at.
    pub watched: Arc<Mutex<Vec<Guard>>>,
    /// How it is told of invalidations.
    pub tracking: TrackingMode,
    /// What is watched for it, with BCAST.
    pub watches: Option<Watches>,
    /// The channels that it listens to.
    pub channels: Vec<bytes::Bytes>,
    /// KEYS and the like tell of what this Local holds.
    pub local_view: bool,
    /// It is to be disconnected once it has its replies.
    pub closing: bool,
}

impl Client {
    /// A client that has just come.
    pub fn new(namespace: &Namespace, known: bool) -> Self {
        let mut client = Self {
            version: Version::Two,
            namespace: namespace.clone(),
            database: 0,
            prefix: Vec::new(),
            known,
            replies: Replies::On,
            multi: None,
            watched: Arc::default(),
            tracking: TrackingMode::default(),
            watches: None,
            channels: Vec::new(),
            local_view: false,
            closing: false,
        };
        client.select(0, namespace);
        client
    }

    /// Chooses a namespace.
    pub fn select(&mut self, database: usize, namespace: &Namespace) {
        self.database = database;
        self.namespace = namespace.clone();
        self.prefix.clear();
        self.prefix.extend_from_slice(namespace.as_bytes());
        self.prefix.push(0);
    }

    /// It is told of invalidations no more.
    pub fn end_tracking(&mut self) {
        (self.tracking, self.watches) = (TrackingMode::default(), None);
    }

    /// Whether a GET may be answered without looking at anything of the client.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.known
            && self.multi.is_none()
            && self.replies == Replies::On
            && !self.tracking.on
            && self.channels.is_empty()
    }
}
