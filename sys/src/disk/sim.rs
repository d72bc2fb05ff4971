//! A disk in memory that remembers the order of its changes, so that a test can pull the plug anywhere.
//!
//! What was synced survives a crash; of the rest any part may: whole writes, single sectors, in any order.
//! A name that was created, renamed or removed is durable only after `sync_dir` of its directory (of a rename:
//! the one it goes to), and a file only if its name is. A sync that failed is as Linux does it: the bytes stay
//! readable, a second sync says yes, and a crash may still lose them.
//!
//! Invariants: synced data is never lost; the same history, index, survival and seed give the same image.
//! Memory is what the files hold, what is unsynced, and as much history as [`SimDisk::record`] allows.
//! It must never touch the machine's own files.

mod calls;
mod content;
mod fault;
mod platters;

pub use fault::{Call, Fault};

use super::DiskFile;
use crate::rng::Rng;
use calls::SimFile;
use content::Content;
use fault::Faults;
use parking_lot::{Mutex, MutexGuard};
use platters::{Inode, Op, Platters, Tree};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What survives a crash of all that was not synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Survival {
    /// Nothing.
    Nothing,
    /// Everything: as after `kill -9` of the process on a machine that goes on.
    Everything,
    /// What came before some moment, drawn by seed; the change at that moment is torn at 512 bytes.
    Prefix,
    /// Each whole write and each change of a name by itself: lost or kept, so reordered.
    Writes,
    /// Each sector of `bytes` bytes of each write, and each change of a name, by itself.
    Sectors {
        /// Size and alignment of what is written as one.
        bytes: usize,
    },
    /// One of these, drawn by seed.
    Any,
}

impl Survival {
    fn resolve(self, rng: &impl Rng) -> Self {
        if self != Self::Any {
            return self;
        }
        match rng.next_u64() % 8 {
            0 => Self::Nothing,
            1 => Self::Everything,
            2 | 3 => Self::Prefix,
            4 => Self::Writes,
            5 | 6 => Self::Sectors { bytes: 512 },
            _ => Self::Sectors { bytes: 4096 },
        }
    }
}

/// A disk in memory. Clones are handles of the same disk; [`SimDisk::crash`] makes another one.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    live: Tree,
    platters: Platters,
    history: Option<History>,
    /// Changes since the disk was made.
    ops: usize,
    /// `ops` when unreachable files were last looked for.
    collected: usize,
    inodes: Inode,
    handles: BTreeMap<Inode, usize>,
    locks: BTreeSet<PathBuf>,
    faults: Faults,
    budget: Option<u64>,
    free: Option<u64>,
}

/// Changes between two searches for files that nothing can bring back: the search costs as much as the disk
/// has names and pending changes.
const COLLECT_EVERY: usize = 256;

struct History {
    /// The disk before the first change that is remembered.
    base: Platters,
    first: usize,
    ops: VecDeque<Op>,
    bytes: usize,
    bytes_max: usize,
}

impl History {
    fn push(&mut self, op: &Op) {
        self.bytes += op.bytes();
        self.ops.push_back(op.clone());
        while self.bytes > self.bytes_max {
            let Some(oldest) = self.ops.pop_front() else { break };
            self.bytes -= oldest.bytes();
            self.base.apply(&oldest);
            self.first += 1;
        }
    }
}

impl State {
    fn apply(&mut self, op: &Op) {
        self.ops += 1;
        self.live.apply(op);
        self.platters.apply(op);
        if let Some(history) = &mut self.history {
            history.push(op);
        }
    }

    /// Frees `inode` if neither a name nor a handle leads to it and, now and then, what no crash can bring back.
    fn release(&mut self, inode: Inode) {
        if !self.handles.contains_key(&inode) && !self.live.names.values().any(|named| *named == inode) {
            self.live.files.remove(&inode);
        }
        if self.ops < self.collected + COLLECT_EVERY {
            return;
        }
        self.collected = self.ops;
        self.platters.collect(|inode| self.live.files.contains_key(&inode));
        if let Some(history) = &mut self.history {
            let named: BTreeSet<Inode> = history.ops.iter().filter_map(Op::inode).collect();
            history.base.collect(|inode| self.live.files.contains_key(&inode) || named.contains(&inode));
        }
    }

    fn used(&self) -> u64 {
        self.live.files.values().map(Content::len).sum()
    }

    /// How far `inode` may grow towards `len`.
    fn room(&self, inode: Inode, len: u64) -> u64 {
        let now = self.live.files.get(&inode).map_or(0, Content::len);
        let Some(budget) = self.budget else { return len };
        now.max(len.min(now + budget.saturating_sub(self.used())))
    }

    fn strike(&mut self, call: Call, path: &Path) -> io::Result<()> {
        self.faults.strike(call, path).map_or(Ok(()), |(error, _)| Err(error))
    }

    /// The error that a call on an open file gets, by the name that the file has now, and the bytes that are
    /// written nevertheless.
    fn strike_file(&mut self, call: Call, file: &SimFile) -> Option<(io::Error, usize)> {
        if self.faults.is_empty() {
            return None;
        }
        let named = self.live.names.iter().find(|(_, inode)| **inode == file.inode);
        let path = named.map_or_else(|| file.path.clone(), |(path, _)| path.clone());
        self.faults.strike(call, &path)
    }

    fn named(&self, path: &Path) -> io::Result<Inode> {
        self.live.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn parent_is_there(&self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(parent) if self.live.is_dir(parent) => Ok(()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn create(&mut self, path: &Path) -> Inode {
        self.inodes += 1;
        let inode = self.inodes;
        self.apply(&Op::Create { path: path.to_owned(), inode });
        inode
    }
}

impl SimDisk {
    /// An empty disk that keeps no history: it can crash only now.
    pub fn new() -> Self {
        Self::from_tree(Tree::default())
    }

    fn from_tree(tree: Tree) -> Self {
        let inodes = tree.files.keys().next_back().copied().unwrap_or(0);
        let state = State { live: tree.clone(), platters: tree.into(), inodes, ..State::default() };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Remembers changes from now on, at most about `bytes_max` bytes of them: the oldest are forgotten first.
    pub fn record(&self, bytes_max: usize) {
        let mut state = self.state();
        let (base, first) = (state.platters.clone(), state.ops);
        state.history = Some(History { base, first, ops: VecDeque::new(), bytes: 0, bytes_max });
    }

    /// Forgets the history and keeps none any more.
    pub fn stop_recording(&self) {
        self.state().history = None;
    }

    /// Number of changes (writes, names, syncs, failed ones too) since the disk was made.
    pub fn op_count(&self) -> usize {
        self.state().ops
    }

    /// The moments, counted in changes made before, that [`SimDisk::crash_at`] can go to.
    pub fn moments(&self) -> std::ops::RangeInclusive<usize> {
        let state = self.state();
        state.history.as_ref().map_or(state.ops, |h| h.first)..=state.ops
    }

    /// The disk that a machine finds which lost power now. Locks, faults and limits do not come along.
    #[must_use]
    pub fn crash(&self, survival: Survival, seed: u64) -> Self {
        Self::from_tree(self.state().platters.crash(survival, seed))
    }

    /// The disk that the next process finds when one was killed on a machine that goes on: everything is there, and
    /// what was not synced is not synced yet. Locks, faults and limits do not come along.
    #[must_use]
    pub fn after_kill(&self) -> Self {
        let state = self.state();
        let (live, platters, inodes) = (state.live.clone(), state.platters.clone(), state.inodes);
        Self(Arc::new(Mutex::new(State { live, platters, inodes, ..State::default() })))
    }

    /// The disk that a machine finds which lost power after `op` changes.
    ///
    /// # Panics
    /// If `op` is not within [`SimDisk::moments`].
    #[must_use]
    pub fn crash_at(&self, op: usize, survival: Survival, seed: u64) -> Self {
        let state = self.state();
        let Some(history) = &state.history else {
            assert_eq!(op, state.ops, "no history is kept: call `record` first");
            return Self::from_tree(state.platters.crash(survival, seed));
        };
        assert!(op >= history.first && op <= state.ops, "`{op}` is not within the history");
        let mut platters = history.base.clone();
        for past in history.ops.iter().take(op - history.first) {
            platters.apply(past);
        }
        drop(state);
        Self::from_tree(platters.crash(survival, seed))
    }

    /// Goes through the history from its beginning, which costs far less than [`SimDisk::crash_at`] for every moment.
    ///
    /// # Panics
    /// If no history is kept.
    pub fn replay(&self) -> Replay {
        let state = self.state();
        let history = state.history.as_ref().expect("a history is kept: call `record` first");
        Replay { platters: history.base.clone(), at: history.first, ops: history.ops.clone() }
    }

    /// Makes calls fail.
    pub fn inject(&self, fault: Fault) {
        self.state().faults.add(fault);
    }

    /// Ends all faults. What a failed sync left out stays left out.
    pub fn heal(&self) {
        self.state().faults.clear();
    }

    /// Bytes that all files together may have from now on; what would exceed it fails with ENOSPC.
    pub fn set_budget(&self, bytes: Option<u64>) {
        self.state().budget = bytes;
    }

    /// What `free_bytes` says, whatever the budget.
    pub fn set_free_bytes(&self, bytes: Option<u64>) {
        self.state().free = bytes;
    }

    /// Damages a byte, on the disk and in the page cache, as a decaying medium does.
    ///
    /// # Errors
    /// `NotFound` if there is no such file.
    pub fn flip(&self, path: &Path, offset: u64, mask: u8) -> io::Result<()> {
        let mut state = self.state();
        let inode = state.named(path)?;
        state.apply(&Op::Flip { inode, offset, mask });
        Ok(())
    }

    /// Cuts a file to `len` bytes, on the disk and in the page cache.
    ///
    /// # Errors
    /// `NotFound` if there is no such file.
    pub fn cut(&self, path: &Path, len: u64) -> io::Result<()> {
        let mut state = self.state();
        let inode = state.named(path)?;
        state.apply(&Op::Cut { inode, len });
        Ok(())
    }

    /// Every file's path and length, in order: for tests that look at all of them.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let state = self.state();
        let len = |inode| state.live.files.get(inode).map_or(0, Content::len);
        state.live.names.iter().map(|(path, inode)| (path.clone(), len(inode))).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    fn handle(&self, state: &mut State, path: &Path, inode: Inode, writable: bool) -> Box<dyn DiskFile> {
        *state.handles.entry(inode).or_default() += 1;
        Box::new(SimFile { disk: self.clone(), path: path.to_owned(), inode, writable })
    }
}

/// A walk through the history of a disk, forwards.
pub struct Replay {
    platters: Platters,
    /// How many changes were made.
    at: usize,
    /// Those that come.
    ops: VecDeque<Op>,
}

impl Replay {
    /// Goes on to the moment after `op` changes, and pulls the plug there: as [`SimDisk::crash_at`].
    ///
    /// # Panics
    /// If that moment has passed, or has not come when the walk was begun.
    #[must_use]
    pub fn crash_at(&mut self, op: usize, survival: Survival, seed: u64) -> SimDisk {
        assert!(op >= self.at && op <= self.at + self.ops.len(), "`{op}` is not ahead");
        for past in self.ops.drain(..op - self.at) {
            self.platters.apply(&past);
        }
        self.at = op;
        SimDisk::from_tree(self.platters.crash(survival, seed))
    }
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Replay({} made, {} to come)", self.at, self.ops.len())
    }
}

impl Default for SimDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        write!(f, "SimDisk({} files, {} changes)", state.live.names.len(), state.ops)
    }
}

#[cfg(test)]
mod tests;
