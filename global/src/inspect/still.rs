//! A disk that nothing can be changed on: what looks at a data directory is given this one.
//!
//! Invariants: a file is opened for reading only, whatever is asked; a lock is taken only on a file that is
//! there. A directory that would have to be made is said to be there, and so is found empty.

use dstore_sys::disk::{DirEntry, Disk, DiskFile, Lock, Open};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Another disk, for reading.
#[derive(Debug)]
pub(super) struct Still(pub(super) Arc<dyn Disk>);

impl Disk for Still {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn DiskFile>> {
        match how {
            Open::Read | Open::Write => self.0.open(path, Open::Read),
            Open::Create => Err(refused()),
        }
    }

    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Err(refused())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.0.list(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.0.exists(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.0.free_bytes(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        if self.0.exists(path)? { self.0.lock(path) } else { Err(io::ErrorKind::NotFound.into()) }
    }
}

fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "nothing may be changed here")
}
