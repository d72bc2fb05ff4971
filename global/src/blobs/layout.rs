//! Where blobs and staged files lie, and which directories are known to be durable.
//!
//! Invariants: a directory `<2 hex>` is entered by a blob only after its own name in `blobs/` was synced.
//! Must never invent a path from anything but a hash or a number of its own.

use dstore_shared::BlobHash;
use dstore_sys::disk::Disk;
use parking_lot::Mutex;
use std::io;
use std::path::{Path, PathBuf};

const STAGING: &str = "staging";
/// Directories that blobs are spread over: one for each first byte of a hash.
pub(super) const FAN_OUT: usize = 256;

#[derive(Debug)]
pub(super) struct Layout {
    root: PathBuf,
    /// For each first byte: its directory is there, and its name durable. Held while it is made, on a
    /// thread that may block.
    ready: Box<[Mutex<bool>]>,
}

impl Layout {
    /// What lies in `root`, for looking at it: nothing is made.
    pub(super) fn at(root: PathBuf) -> Self {
        Self { root, ready: (0..FAN_OUT).map(|_| Mutex::new(false)).collect() }
    }

    /// Makes the directories that must be there and empties staging.
    pub(super) fn open(disk: &dyn Disk, root: PathBuf) -> io::Result<Self> {
        let layout = Self::at(root);
        let staging = layout.staging();
        disk.create_dir_all(&staging)?;
        for left in disk.list(&staging)? {
            if !left.is_dir {
                remove_if_there(disk, &staging.join(&left.name))?;
            }
        }
        disk.sync_dir(&staging)?;
        disk.sync_dir(&layout.root)?;
        if let Some(parent) = layout.root.parent().filter(|p| !p.as_os_str().is_empty()) {
            disk.sync_dir(parent)?;
        }
        for first in layout.present(disk)? {
            *layout.ready[usize::from(first)].lock() = true;
        }
        Ok(layout)
    }

    /// The directory that holds all others.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Where uploads under way are.
    pub(super) fn staging(&self) -> PathBuf {
        self.root.join(STAGING)
    }

    /// Where an upload is written; `run` and `n` together are never used twice.
    pub(super) fn staged(&self, run: u64, n: u64) -> PathBuf {
        self.staging().join(format!("{run:016x}-{n}"))
    }

    /// The directory of the hashes that begin with `first`.
    pub(super) fn dir(&self, first: u8) -> PathBuf {
        self.root.join(format!("{first:02x}"))
    }

    /// Where the blob with `hash` is.
    pub(super) fn blob(&self, hash: &BlobHash) -> PathBuf {
        self.dir(hash.as_bytes()[0]).join(&hash.to_string()[2..])
    }

    /// The hash of the blob called `name` in the directory of `first`; `None` if no blob is called so.
    pub(super) fn hash_of(first: u8, name: &str) -> Option<BlobHash> {
        let lower = name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !lower || name.len() != 62 {
            return None;
        }
        format!("{first:02x}{name}").parse().ok()
    }

    /// The first bytes for which there is a directory.
    pub(super) fn present(&self, disk: &dyn Disk) -> io::Result<Vec<u8>> {
        let dirs = disk.list(&self.root)?.into_iter().filter(|e| e.is_dir && e.name.len() == 2);
        let found = dirs
            .filter_map(|e| u8::from_str_radix(&e.name, 16).ok().filter(|f| format!("{f:02x}") == e.name));
        Ok(found.collect())
    }

    /// Makes sure that the directory of `first` is there and its name durable.
    pub(super) fn prepare(&self, disk: &dyn Disk, first: u8) -> Result<PathBuf, Unprepared> {
        let dir = self.dir(first);
        let mut ready = self.ready[usize::from(first)].lock();
        if !*ready {
            disk.create_dir_all(&dir).map_err(Unprepared::Make)?;
            dstore_sys::failpoint!("global::blobs::folder_made");
            disk.sync_dir(&self.root).map_err(Unprepared::Sync)?;
            *ready = true;
        }
        Ok(dir)
    }
}

fn remove_if_there(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Why a directory is not ready.
#[derive(Debug)]
pub(super) enum Unprepared {
    /// It could not be made: nothing was changed.
    Make(io::Error),
    /// It could not be made durable.
    Sync(io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_a_hash_are_each_others_inverse_and_nothing_else_is_a_blob() {
        let layout = Layout { root: "r".into(), ready: Box::new([]) };
        let hash = BlobHash::of(b"x");
        let path = layout.blob(&hash);
        let name = path.file_name().and_then(|n| n.to_str()).expect("a name");
        assert_eq!(Layout::hash_of(hash.as_bytes()[0], name), Some(hash));
        for other in ["", "README", &name[1..], &name.to_uppercase(), &format!("{name}0")] {
            assert_eq!(Layout::hash_of(0, other), None, "{other}");
        }
    }
}
