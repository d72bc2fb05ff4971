//! Disks that lie, planted to see that it is noticed.
//!
//! They stand between Global and its simulated disk; what a crash leaves is the simulated disk's affair.
//! Nothing here may be used but for a planted bug.

use dstore_sys::disk::{DirEntry, Disk, DiskFile, Lock, Open, SimDisk};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// In what a disk lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lie {
    /// `sync` of a file returns at once; what it should have done is done before the file's next write or sync.
    LateSync,
    /// `sync_dir` does nothing.
    NoDirSync,
}

/// A disk that lies.
#[derive(Debug)]
pub struct LyingDisk {
    disk: SimDisk,
    lie: Lie,
}

impl LyingDisk {
    /// `disk`, with a lie.
    pub fn new(disk: SimDisk, lie: Lie) -> Self {
        Self { disk, lie }
    }
}

impl Disk for LyingDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn DiskFile>> {
        let file = self.disk.open(path, how)?;
        if self.lie == Lie::LateSync {
            return Ok(Box::new(LateFile { file, is_owed: AtomicBool::new(false) }));
        }
        Ok(file)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        if self.lie == Lie::NoDirSync { Ok(()) } else { self.disk.sync_dir(path) }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk.list(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.disk.free_bytes(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        self.disk.lock(path)
    }
}

#[derive(Debug)]
struct LateFile {
    file: Box<dyn DiskFile>,
    /// A sync was promised and not done yet.
    is_owed: AtomicBool,
}

impl LateFile {
    fn settle(&self) -> io::Result<()> {
        if self.is_owed.swap(false, Ordering::Relaxed) { self.file.sync() } else { Ok(()) }
    }
}

impl DiskFile for LateFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.settle()?;
        self.file.write_all_at(buf, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.settle()?;
        self.is_owed.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.settle()?;
        self.file.preallocate(len)
    }
}
