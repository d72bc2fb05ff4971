//! Files, as the journal, checkpoints and blobs need them.
//!
//! The seam is narrow on purpose: whatever goes through it can be recorded, torn and replayed by a
//! simulated disk. Every call blocks; async code reaches it through [`Blocking`](crate::tasks::Blocking).

mod real;
mod sim;

pub use real::RealDisk;
pub use sim::{Call, Fault, Replay, SimDisk, Survival};

use std::fmt::Debug;
use std::io;
use std::path::Path;

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Open {
    /// For reading; it must exist.
    Read,
    /// For reading and writing; it must exist.
    Write,
    /// For reading and writing; it must not exist.
    Create,
}

/// What becomes of the memory that written bytes pass through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pages {
    /// It holds them for whoever reads them next.
    Stay,
    /// The disk may be given them at once, and their memory used for what is written next.
    Pass,
}

/// One name in a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirEntry {
    /// The file's name.
    pub name: String,
    /// Its length in bytes.
    pub len: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// A file system. Nothing is durable before `sync` of the file, and no new, renamed or removed name before
/// `sync_dir` of its directory.
pub trait Disk: Send + Sync + Debug {
    /// Opens a file.
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn DiskFile>>;
    /// Makes a directory and its parents; one that exists is fine.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Renames a file within the file system, replacing what is there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, in byte order.
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    /// Whether there is a file or directory.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Bytes that can still be written to the file system of `path`.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
    /// Locks `path`, made if need be, for this process. `WouldBlock` if another holds it.
    /// The lock ends with the value or the process.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>>;

    /// The whole of a file of at most `max` bytes.
    ///
    /// # Errors
    /// `InvalidData` for a longer one.
    fn read(&self, path: &Path, max: usize) -> io::Result<Vec<u8>> {
        let file = self.open(path, Open::Read)?;
        let len = file.len()?;
        if len > max as u64 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("`{len}` bytes, at most `{max}`"),
            ));
        }
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

/// An open file. Positions are explicit, so one handle serves any number of readers.
pub trait DiskFile: Send + Sync + Debug {
    /// Reads at `offset`; fewer bytes than asked, or 0, at the end.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `buf` at `offset`.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// Writes `parts` one after another, beginning at `offset`. Durable after `sync`, whatever becomes of the
    /// pages.
    fn write_parts_at(&self, parts: &[&[u8]], mut offset: u64, _pages: Pages) -> io::Result<()> {
        for part in parts {
            self.write_all_at(part, offset)?;
            offset += part.len() as u64;
        }
        Ok(())
    }
    /// Makes contents, and as much metadata as is needed to read them, durable (`fdatasync`).
    fn sync(&self) -> io::Result<()>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Reserves space up to `len` and fills what is new with zeros that are really written, so that later
    /// writes there change no metadata.
    fn preallocate(&self, len: u64) -> io::Result<()>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file ends before.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buf.len() {
            match self.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// Holds a lock until dropped.
pub trait Lock: Send + Sync + Debug {}
