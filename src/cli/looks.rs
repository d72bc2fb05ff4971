//! The verbs that look at keys and nodes, as they were typed: the words of the REPL, one command each.

use super::args::NodeFlag;
use bytes::Bytes;
use clap::Subcommand;
use dstore_local::repl::{Command, Given, List, Warm, What, bench};
use dstore_shared::limits::LIST_NAMES_MAX;
use dstore_shared::{Error, Key, Result};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

#[derive(Subcommand, Clone, Debug)]
pub enum Look {
    /// Tell hash, size, revision, type and time to live of a key, without its value.
    Stat {
        /// The key, or @HASH.
        key: OsString,
        #[command(flatten)]
        node: NodeFlag,
    },
    /// Tell which keys there are, all at one moment.
    Exists {
        #[arg(required = true)]
        keys: Vec<OsString>,
        #[command(flatten)]
        node: NodeFlag,
    },
    /// Tell whether two keys have the same value: 0 if so, else 1.
    Same {
        key: OsString,
        other: OsString,
        #[command(flatten)]
        node: NodeFlag,
    },
    /// List keys in byte order.
    Ls {
        /// What they begin with; without it, all.
        #[arg(default_value = "")]
        prefix: OsString,
        /// At most N keys.
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        /// Only keys after this one.
        #[arg(long, value_name = "KEY")]
        after: Option<OsString>,
        /// Tell size, hash and revision too.
        #[arg(long)]
        long: bool,
        #[command(flatten)]
        node: NodeFlag,
    },
    /// Store a value without a key and tell its hash; it is kept for an hour, unless a key is bound to it.
    Add {
        #[arg(allow_hyphen_values = true)]
        value: OsString,
        #[command(flatten)]
        node: NodeFlag,
    },
    /// Let the node forget its copies of keys.
    Evict {
        #[arg(required = true)]
        keys: Vec<OsString>,
        #[command(flatten)]
        node: NodeFlag,
    },
    /// Keep the values of keys in the node's memory as long as it runs.
    Pin {
        #[arg(required = true)]
        keys: Vec<OsString>,
        #[command(flatten)]
        node: NodeFlag,
    },
    /// Let values that were pinned leave again.
    Unpin {
        #[arg(required = true)]
        keys: Vec<OsString>,
        #[command(flatten)]
        node: NodeFlag,
    },
    /// Fetch the values of all keys under a prefix into the node.
    Warm {
        #[arg(required_unless_present = "file", conflicts_with = "file")]
        prefix: Option<OsString>,
        /// Of the keys on the lines of FILE instead.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        #[command(flatten)]
        node: NodeFlag,
    },
    /// Tell which nodes are attached to global, and who holds KEY.
    Locals {
        key: Option<OsString>,
        #[command(flatten)]
        node: NodeFlag,
    },
    /// Tell how a GET of a key would go now, each hop with its time.
    Why {
        key: OsString,
        #[command(flatten)]
        node: NodeFlag,
    },
    /// Time SET, GET and DEL of keys of its own, and remove them.
    Bench {
        /// So many of each.
        #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=100_000))]
        count: u64,
        /// Values of so many bytes.
        #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u64).range(..=67_108_864))]
        size: u64,
        #[command(flatten)]
        node: NodeFlag,
    },
}

fn key(typed: OsString) -> Result<Key> {
    Key::new(typed.into_vec())
}

fn keys(typed: Vec<OsString>) -> Result<Vec<Key>> {
    typed.into_iter().map(key).collect()
}

fn bytes(typed: OsString) -> Bytes {
    typed.into_vec().into()
}

impl Look {
    /// Which node is asked, and what.
    ///
    /// # Errors
    /// `Invalid` or `TooLarge` for what can be no key.
    pub fn command(self) -> Result<(NodeFlag, Command)> {
        Ok(match self {
            Self::Stat { key: typed, node } => {
                let what = What::written(key(typed)?);
                (node, Command::Stat(what))
            }
            Self::Exists { keys: typed, node } => (node, Command::Exists(keys(typed)?)),
            Self::Same { key: a, other, node } => (node, Command::Same(key(a)?, key(other)?)),
            Self::Ls { prefix, limit, after, long, node } => {
                let limit = limit.map(|n| n.clamp(1, LIST_NAMES_MAX));
                let after = after.map(key).transpose()?;
                (node, Command::List(List { prefix: bytes(prefix), after, limit, long }))
            }
            Self::Add { value, node } => (node, Command::Add(Given::Bytes(bytes(value)))),
            Self::Evict { keys: typed, node } => (node, Command::Evict(keys(typed)?)),
            Self::Pin { keys: typed, node } => (node, Command::Pin(keys(typed)?, true)),
            Self::Unpin { keys: typed, node } => (node, Command::Pin(keys(typed)?, false)),
            Self::Warm { prefix, file, node } => {
                let what = match (prefix, file) {
                    (_, Some(file)) => Warm::File(file),
                    (Some(prefix), None) => Warm::Prefix(bytes(prefix)),
                    (None, None) => return Err(Error::invalid("WARM needs a prefix or a file")),
                };
                (node, Command::Warm(what))
            }
            Self::Locals { key: typed, node } => (node, Command::Locals(typed.map(key).transpose()?)),
            Self::Why { key: typed, node } => (node, Command::Why(key(typed)?)),
            Self::Bench { count, size, node } => (node, bench(count, size)?),
        })
    }
}
