//! Owns the seam between dstore and the store of its index, and the list of engines behind it.
//!
//! Invariants: the index is *derived*: everything in it can be redone from the journal after the last
//! checkpoint, because journal and index carry absolute results. So an engine need not sync on `apply`, nor
//! keep several applies in order or several tables consistent over a crash; only `checkpoint` promises
//! durability. There is one writer, the catalog's applier; readers are many. An engine must never be
//! `apply`-ed what is not durable in the journal.

#[cfg(test)]
mod contract;
#[cfg(feature = "fjall")]
mod fjall;
#[cfg(any(feature = "fjall", feature = "sled"))]
mod folder;
mod memory;
#[cfg(feature = "sled")]
mod sled;

use bytes::Bytes;
use dstore_shared::{Error, Result, Revision};
use dstore_sys::Sys;
use std::fmt;
use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::str::FromStr;

/// A table of the index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Table {
    /// Packed name to entry.
    Names,
    /// Hash to what is known of the blob.
    Blobs,
    /// Hash to the bytes of a small blob.
    Inline,
    /// Time and hash of blobs that lost their last name: hints for the sweep, to be checked against `Blobs`.
    Unnamed,
}

impl Table {
    /// Every table, in the order of its number.
    pub const ALL: [Self; 4] = [Self::Names, Self::Blobs, Self::Inline, Self::Unnamed];

    /// The table's number, also on disk.
    pub const fn number(self) -> usize {
        match self {
            Self::Names => 0,
            Self::Blobs => 1,
            Self::Inline => 2,
            Self::Unnamed => 3,
        }
    }

    /// The table's name, also on disk.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Names => "names",
            Self::Blobs => "blobs",
            Self::Inline => "inline",
            Self::Unnamed => "unnamed",
        }
    }
}

/// What a key of a table shall be. Engines keep both in memory for long: they must not be slices of something
/// larger.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Write {
    /// The table.
    pub table: Table,
    /// The key, 1 to 1,200 bytes.
    pub key: Bytes,
    /// The value, at most 1 MiB; `None` removes the key.
    pub value: Option<Bytes>,
}

/// What a scan does with a key and its value, and whether it goes on.
pub type Each<'a> = &'a mut dyn FnMut(Bytes, Bytes) -> ControlFlow<()>;

/// Reads of the index.
pub trait View: Send {
    /// The value of a key, in an allocation of its own. May block on a disk.
    ///
    /// # Errors
    /// `Unavailable` or `Corrupt` if the engine fails.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>>;

    /// Hands at most `limit` keys from `start` on to `each`, in byte order. `each` must not call the engine.
    ///
    /// # Errors
    /// As [`View::get`].
    fn scan(&self, table: Table, start: Bound<&[u8]>, limit: usize, each: Each<'_>) -> Result<()>;
}

/// A store of the index. Every call may block on a disk.
pub trait Engine: View + Sync + fmt::Debug {
    /// Which engine it is.
    fn kind(&self) -> EngineKind;

    /// Tells this index from every other, also from one that a wipe left empty: a checkpoint proves only the
    /// index that it names.
    fn identity(&self) -> u128;

    /// The index as it is now, unmoved by later writes.
    ///
    /// # Errors
    /// As [`View::get`].
    fn snapshot(&self) -> Result<Box<dyn View>>;

    /// Makes `writes`, of which a later one of the same key wins, readable together in snapshots taken
    /// afterwards, and notes that the index is at `revision`. Meant for many writes at once. Durable only after a [`Engine::checkpoint`].
    ///
    /// # Errors
    /// As [`View::get`]; the index may then hold any part of `writes`, and takes no more.
    fn apply(&self, writes: Vec<Write>, revision: Revision) -> Result<()>;

    /// The revision of the last [`Engine::apply`] that the index holds. After a crash it says how far the
    /// index *reached*, not that everything before is there.
    ///
    /// # Errors
    /// As [`View::get`].
    fn revision(&self) -> Result<Revision>;

    /// Makes every write so far durable, and gives the revision of the last.
    ///
    /// # Errors
    /// As [`View::get`]; nothing may be taken as durable then.
    fn checkpoint(&self) -> Result<Revision>;

    /// The same engine, empty, at revision 0 and with another identity.
    ///
    /// # Errors
    /// As [`open`].
    fn wipe(self: Box<Self>) -> Result<Box<dyn Engine>>;

    /// About how many keys a table has.
    fn about(&self, table: Table) -> u64;
}

/// Which engine stores the index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EngineKind {
    /// In memory, with one file a checkpoint: for tests and simulation.
    Memory,
    /// An LSM tree on disk.
    Fjall,
    /// A B+ tree over a log on disk.
    Sled,
}

impl EngineKind {
    /// Every engine there is.
    pub const ALL: [Self; 3] = [Self::Fjall, Self::Sled, Self::Memory];

    /// Whether this binary was built with it.
    pub const fn is_built_in(self) -> bool {
        match self {
            Self::Memory => true,
            Self::Fjall => cfg!(feature = "fjall"),
            Self::Sled => cfg!(feature = "sled"),
        }
    }

    /// The engine to use when none is asked for: the durable one, if this binary has it.
    pub const fn preferred() -> Self {
        if cfg!(feature = "fjall") {
            Self::Fjall
        } else if cfg!(feature = "sled") {
            Self::Sled
        } else {
            Self::Memory
        }
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Fjall => "fjall",
            Self::Sled => "sled",
        })
    }
}

impl FromStr for EngineKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "memory" => Ok(Self::Memory),
            "fjall" => Ok(Self::Fjall),
            "sled" => Ok(Self::Sled),
            _ => Err(Error::invalid(format!("there is no engine `{name}`: use fjall, sled or memory"))),
        }
    }
}

/// Opens the index in `dir`, making an empty one if there is none.
///
/// # Errors
/// `Corrupt` or `Unavailable` if what is there cannot be opened, `Invalid` if this binary was built without
/// the engine or the index is of a newer version.
pub fn open(kind: EngineKind, sys: &Sys, dir: &Path) -> Result<Box<dyn Engine>> {
    match kind {
        EngineKind::Memory => Ok(Box::new(memory::MemoryEngine::open(sys, dir)?)),
        #[cfg(feature = "fjall")]
        EngineKind::Fjall => Ok(Box::new(fjall::FjallEngine::open(sys, dir)?)),
        #[cfg(not(feature = "fjall"))]
        EngineKind::Fjall => Err(without(kind)),
        #[cfg(feature = "sled")]
        EngineKind::Sled => Ok(Box::new(sled::SledEngine::open(sys, dir)?)),
        #[cfg(not(feature = "sled"))]
        EngineKind::Sled => Err(without(kind)),
    }
}

/// Removes the index in `dir`, whatever its state.
///
/// # Errors
/// `Unavailable` or `Denied` if it cannot be removed.
pub fn discard(kind: EngineKind, sys: &Sys, dir: &Path) -> Result<()> {
    match kind {
        EngineKind::Memory => memory::discard(sys, dir),
        #[cfg(feature = "fjall")]
        EngineKind::Fjall => fjall::discard(dir),
        #[cfg(not(feature = "fjall"))]
        EngineKind::Fjall => Err(without(kind)),
        #[cfg(feature = "sled")]
        EngineKind::Sled => sled::discard(dir),
        #[cfg(not(feature = "sled"))]
        EngineKind::Sled => Err(without(kind)),
    }
}

#[cfg(not(all(feature = "fjall", feature = "sled")))]
fn without(kind: EngineKind) -> Error {
    Error::invalid(format!(
        "this dstore was built without the engine `{kind}`: build it with `--features {kind}`"
    ))
}
