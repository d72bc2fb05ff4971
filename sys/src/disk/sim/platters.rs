//! What a simulated disk holds, as everybody sees it ([`Tree`]) and as a crash would leave it ([`Platters`]).
//!
//! Invariant: [`Platters::apply`] is the only place that decides what an operation makes durable; the running
//! disk and the replay of its history both go through it.

use super::Survival;
use super::content::Content;
use crate::rng::{Rng, SeededRng};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Unsynced changes above which those of files that came and went without a sync are forgotten: a crash then
/// leaves none of them, and memory stays bounded however long a simulation runs.
const PENDING_MAX: usize = 1_000;

/// Names a file's contents, whatever it is called.
pub(super) type Inode = u64;

/// One change of the disk, in the order in which it was made.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Create { path: PathBuf, inode: Inode },
    MakeDir { path: PathBuf },
    Rename { from: PathBuf, to: PathBuf, inode: Inode },
    Remove { path: PathBuf, inode: Inode },
    Write { inode: Inode, offset: u64, bytes: Arc<[u8]> },
    Grow { inode: Inode, len: u64 },
    Sync { inode: Inode },
    SyncFailed { inode: Inode },
    SyncDir { path: PathBuf },
    SyncDirFailed { path: PathBuf },
    Flip { inode: Inode, offset: u64, mask: u8 },
    Cut { inode: Inode, len: u64 },
}

impl Op {
    /// The file whose contents the operation changes.
    fn writes(&self) -> Option<Inode> {
        match self {
            Self::Write { inode, .. } | Self::Grow { inode, .. } => Some(*inode),
            _ => None,
        }
    }

    /// The directory whose sync makes the operation durable.
    fn names_in(&self) -> Option<&Path> {
        match self {
            Self::Create { path, .. } | Self::MakeDir { path } | Self::Remove { path, .. } => path.parent(),
            Self::Rename { to, .. } => to.parent(),
            _ => None,
        }
    }

    /// The name that the operation gives to a file.
    fn names(&self) -> Option<(&Path, Inode)> {
        match self {
            Self::Create { path, inode } | Self::Rename { to: path, inode, .. } => Some((path, *inode)),
            _ => None,
        }
    }

    /// The name that the operation takes from a file.
    fn unnames(&self) -> Option<(&Path, Inode)> {
        match self {
            Self::Remove { path, inode } | Self::Rename { from: path, inode, .. } => Some((path, *inode)),
            _ => None,
        }
    }

    pub(super) fn inode(&self) -> Option<Inode> {
        match self {
            Self::Create { inode, .. }
            | Self::Rename { inode, .. }
            | Self::Remove { inode, .. }
            | Self::Write { inode, .. }
            | Self::Grow { inode, .. }
            | Self::Sync { inode }
            | Self::SyncFailed { inode }
            | Self::Flip { inode, .. }
            | Self::Cut { inode, .. } => Some(*inode),
            Self::MakeDir { .. } | Self::SyncDir { .. } | Self::SyncDirFailed { .. } => None,
        }
    }

    /// Roughly what it costs to remember.
    pub(super) fn bytes(&self) -> usize {
        let data = if let Self::Write { bytes, .. } = self { bytes.len() } else { 0 };
        size_of::<Self>() + 64 + data
    }
}

/// Directories, names and files.
#[derive(Clone, Default, Debug)]
pub(super) struct Tree {
    pub(super) dirs: BTreeSet<PathBuf>,
    pub(super) names: BTreeMap<PathBuf, Inode>,
    pub(super) files: BTreeMap<Inode, Content>,
}

impl Tree {
    pub(super) fn is_dir(&self, path: &Path) -> bool {
        path.parent().is_none() || path.as_os_str().is_empty() || self.dirs.contains(path)
    }

    /// Does what `op` says. A rename or removal whose name meanwhile means another file leaves that alone,
    /// because after a crash an earlier change may be missing.
    pub(super) fn apply(&mut self, op: &Op) {
        match op {
            Op::Create { path, inode } => {
                self.names.insert(path.clone(), *inode);
                self.files.entry(*inode).or_default();
            }
            Op::MakeDir { path } => _ = self.dirs.insert(path.clone()),
            Op::Rename { from, to, inode } => {
                self.unname(from, *inode);
                self.names.insert(to.clone(), *inode);
            }
            Op::Remove { path, inode } => self.unname(path, *inode),
            Op::Write { inode, offset, bytes } => self.file(*inode).write(bytes, *offset),
            Op::Grow { inode, len } => self.file(*inode).grow(*len),
            Op::Flip { inode, offset, mask } => self.file(*inode).flip(*offset, *mask),
            Op::Cut { inode, len } => self.file(*inode).cut(*len),
            Op::Sync { .. } | Op::SyncFailed { .. } | Op::SyncDir { .. } | Op::SyncDirFailed { .. } => {}
        }
    }

    fn apply_unless_left(&mut self, pending: &Pending) {
        match &pending.op {
            Op::Create { inode, .. } if pending.left => _ = self.file(*inode),
            Op::Rename { from, inode, .. } if pending.left => self.unname(from, *inode),
            op => self.apply(op),
        }
    }

    fn file(&mut self, inode: Inode) -> &mut Content {
        self.files.entry(inode).or_default()
    }

    fn unname(&mut self, path: &Path, inode: Inode) {
        if self.names.get(path) == Some(&inode) {
            self.names.remove(path);
        }
    }

    /// Drops what cannot be reached: names in directories that are not there, files without a name.
    fn prune(&mut self) {
        let lost: Vec<_> =
            self.dirs.iter().filter(|d| !d.ancestors().all(|a| self.is_dir(a))).cloned().collect();
        for dir in lost {
            self.dirs.remove(&dir);
        }
        let dirs = std::mem::take(&mut self.dirs);
        let is_dir = |p: &Path| p.parent().is_none() || p.as_os_str().is_empty() || dirs.contains(p);
        self.names.retain(|name, _| name.parent().is_some_and(is_dir));
        self.dirs = dirs;
        let named: BTreeSet<Inode> = self.names.values().copied().collect();
        self.files.retain(|inode, _| named.contains(inode));
    }
}

#[derive(Clone, Debug)]
struct Pending {
    op: Op,
    /// A sync failed: the kernel has forgotten that this is dirty, and no later sync makes it durable.
    forgotten: bool,
    /// The name that this gives was taken away again by a change that is durable already.
    left: bool,
}

/// What is durable, and what is still on its way.
#[derive(Clone, Default, Debug)]
pub(super) struct Platters {
    durable: Tree,
    pending: Vec<Pending>,
}

impl Platters {
    pub(super) fn apply(&mut self, op: &Op) {
        match op {
            Op::Sync { inode } => self.promote(|p| p.writes() == Some(*inode)),
            Op::SyncDir { path } => self.promote(|p| p.names_in() == Some(path)),
            Op::SyncFailed { inode } => self.forget(|p| p.writes() == Some(*inode)),
            Op::SyncDirFailed { path } => self.forget(|p| p.names_in() == Some(path)),
            Op::Flip { .. } | Op::Cut { .. } => {
                // Damage hits what is durable, whatever is still pending over it.
                self.durable.apply(op);
            }
            _ => {
                if let Op::Create { inode, .. } = op {
                    self.durable.files.entry(*inode).or_default();
                }
                self.pending.push(Pending { op: op.clone(), forgotten: false, left: false });
            }
        }
    }

    fn promote(&mut self, which: impl Fn(&Op) -> bool) {
        let mut stays = Vec::with_capacity(self.pending.len());
        for pending in std::mem::take(&mut self.pending) {
            if pending.forgotten || !which(&pending.op) {
                stays.push(pending);
                continue;
            }
            self.durable.apply_unless_left(&pending);
            if let Some(taken) = pending.op.unnames() {
                // What gave the name is older and still on its way: its directory must not bring it back.
                stays.iter_mut().filter(|p| p.op.names() == Some(taken)).for_each(|p| p.left = true);
            }
        }
        self.pending = stays;
    }

    fn forget(&mut self, which: impl Fn(&Op) -> bool) {
        for pending in self.pending.iter_mut().filter(|p| which(&p.op)) {
            pending.forgotten = true;
        }
    }

    /// Forgets files that nothing can bring back: no durable name, not in `kept`, no change pending that
    /// names them. Changes that wait for such a file's sync are forgotten with it.
    pub(super) fn collect(&mut self, kept: impl Fn(Inode) -> bool) {
        let mut named: BTreeSet<Inode> = self.durable.names.values().copied().collect();
        if self.pending.len() > PENDING_MAX {
            let stays = |inode: Inode| named.contains(&inode) || kept(inode);
            self.pending.retain(|p| p.op.inode().is_none_or(stays));
        }
        named.extend(self.pending.iter().filter(|p| p.op.writes().is_none()).filter_map(|p| p.op.inode()));
        let stays = |inode: Inode| named.contains(&inode) || kept(inode);
        self.durable.files.retain(|inode, _| stays(*inode));
        self.pending.retain(|p| p.op.writes().is_none_or(stays));
    }

    /// What a crash leaves: all that is durable and, of the rest, what `survival` says.
    pub(super) fn crash(&self, survival: Survival, seed: u64) -> Tree {
        let rng = SeededRng::new(seed);
        let coin = |percent: u64| rng.next_u64() % 100 < percent;
        let mut tree = self.durable.clone();
        let survival = survival.resolve(&rng);
        let stop = if let Survival::Prefix = survival {
            (rng.next_u64() % (self.pending.len() as u64 + 1)) as usize
        } else {
            self.pending.len()
        };
        let percent = [20, 50, 80][(rng.next_u64() % 3) as usize];
        for (i, pending) in self.pending.iter().enumerate() {
            let op = &pending.op;
            let sector = match survival {
                Survival::Nothing => continue,
                Survival::Everything => None,
                Survival::Prefix if i < stop => None,
                Survival::Prefix if i == stop => Some(512),
                Survival::Prefix => break,
                Survival::Sectors { bytes } => Some(bytes.max(1)),
                Survival::Writes | Survival::Any => {
                    if !coin(percent) {
                        continue;
                    }
                    None
                }
            };
            match (op, sector) {
                (_, None) => tree.apply_unless_left(pending),
                (Op::Write { inode, offset, bytes }, Some(sector)) => {
                    tear(&mut tree, *inode, *offset, bytes, sector, || coin(percent));
                }
                (_, Some(_)) if coin(percent) => tree.apply_unless_left(pending),
                (_, Some(_)) => {}
            }
        }
        tree.prune();
        tree
    }
}

/// Writes of `bytes` those sectors that `survives` names.
fn tear(
    tree: &mut Tree,
    inode: Inode,
    offset: u64,
    bytes: &[u8],
    sector: usize,
    mut survives: impl FnMut() -> bool,
) {
    let mut done = 0;
    while done < bytes.len() {
        let at = offset + done as u64;
        let n = (sector - (at % sector as u64) as usize).min(bytes.len() - done);
        if survives() {
            tree.file(inode).write(&bytes[done..done + n], at);
        }
        done += n;
    }
}

impl From<Tree> for Platters {
    fn from(durable: Tree) -> Self {
        Self { durable, pending: Vec::new() }
    }
}
